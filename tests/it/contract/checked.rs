//! Whether a value is of the form that the document gives it, with no field that it does not name.

use std::collections::HashMap;

use amanatd::api;
use serde_json::{Value, json};

use super::Operation;
use crate::house::Answer;

/// Validators, made once for each schema.
#[derive(Default)]
pub(super) struct Checker {
    validators: HashMap<String, jsonschema::Validator>,
}

impl Checker {
    /// Fails unless the document knows this answer of this operation.
    pub(super) fn assert_documented(&mut self, operation: &Operation, answer: &Answer, asked: &str) {
        let status = answer.status.as_u16().to_string();
        let documented = &operation.facts["responses"][&status];
        assert!(documented.is_object(), "{} gives {status}, which its document does not say, to {asked}: {answer:?}", operation.id());
        let Some(content) = documented["content"].as_object() else {
            assert!(answer.body.is_empty(), "{} gives {status} with a body to {asked}: {answer:?}", operation.id());
            return;
        };
        let form = content.get(&answer.content_type);
        let schema = &form.unwrap_or_else(|| panic!("{}: content type {:?} to {asked}", operation.id(), answer.content_type))["schema"];
        let value: Value = serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?} to {asked}"));
        let validator = self.validators.entry(schema.to_string()).or_insert_with(|| validator(schema));
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        assert!(faults.is_empty(), "{} to {asked}: {faults:#?} in {value:#}", operation.id());
        if answer.content_type == "application/problem+json" {
            let problem = answer.problem();
            let code = api::CODES.iter().find(|code| code.name == problem.code).unwrap();
            assert_eq!((code.status.as_u16(), code.title), (problem.status, problem.title.as_str()));
        }
    }
}

pub(super) fn assert_valid(schema: &Value, value: &Value, what: &str) {
    let faults: Vec<String> = validator(schema).iter_errors(value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{what}: {faults:?}");
}

fn validator(schema: &Value) -> jsonschema::Validator {
    let mut components = api::document()["components"].clone();
    close(&mut components);
    let mut schema = schema.clone();
    close(&mut schema);
    let whole = json!({ "allOf": [schema], "components": components });
    jsonschema::options().should_validate_formats(true).build(&whole).unwrap()
}

/// An object has the fields that the document names and no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object) && object.get("type") == Some(&json!("object")) {
                object.entry("additionalProperties").or_insert(json!(false));
            }
            object.values_mut().for_each(close);
        }
        Value::Array(list) => list.iter_mut().for_each(close),
        _ => {}
    }
}
