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
    /// What the document does not know of this answer of this operation.
    pub(super) fn check(&mut self, operation: &Operation, answer: &Answer) -> Result<(), String> {
        let status = answer.status.as_u16().to_string();
        let documented = &operation.facts["responses"][&status];
        if !documented.is_object() {
            return Err(format!("the document has no {status}"));
        }
        let Some(content) = documented["content"].as_object() else {
            return if answer.body.is_empty() { Ok(()) } else { Err("a body that the document does not have".to_owned()) };
        };
        let kind = answer.content_type.split(';').next().unwrap_or_default();
        let form = content.get(kind).ok_or_else(|| format!("content type {:?}", answer.content_type))?;
        let value: Value = match kind {
            "text/csv" => Value::String(answer.body.clone()),
            _ => serde_json::from_str(&answer.body).map_err(|error| error.to_string())?,
        };
        let schema = &form["schema"];
        let validator = self.validators.entry(schema.to_string()).or_insert_with(|| validator(schema));
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        if answer.content_type == "application/problem+json" {
            let problem = answer.problem();
            let code = api::CODES.iter().find(|code| code.name == problem.code).ok_or("a code without a line")?;
            if (code.status.as_u16(), code.title) != (problem.status, problem.title.as_str()) {
                return Err(format!("{} is not what its line says", problem.code));
            }
        }
        Ok(())
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
