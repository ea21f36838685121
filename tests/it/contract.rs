//! The API's contract: the document is what the code says, the routes are those of the document, and every answer
//! is of the form that the document gives it, whatever is asked and whoever asks.

mod asked;
mod checked;
mod examples;
mod schemathesis;
mod seeded;
mod who;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use amanatd::api;
use amanatd::officer::Scope;
use reqwest::Method;
use serde_json::Value;

use crate::house::{ApiHouse, answer};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One operation of the document.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) facts: Value,
}

impl Operation {
    pub(crate) fn all() -> Vec<Self> {
        let paths = api::document()["paths"].as_object().unwrap();
        let mut all = Vec::new();
        for (path, item) in paths {
            for (method, facts) in item.as_object().unwrap() {
                let method: Method = method.to_uppercase().parse().unwrap();
                all.push(Self { method, path: path.clone(), facts: facts.clone() });
            }
        }
        all
    }

    pub(crate) fn id(&self) -> &str {
        self.facts["operationId"].as_str().unwrap()
    }

    pub(crate) fn params(&self, place: &str) -> Vec<&Value> {
        let all = self.facts["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter(|param| param["in"] == place).collect()
    }

    /// The scheme and the scope, unless nobody is asked for a token.
    pub(crate) fn security(&self) -> Option<(String, Scope)> {
        let wanted = self.facts["security"].as_array()?;
        assert_eq!(wanted.len(), 1, "{self:?}");
        let (scheme, scopes) = wanted[0].as_object().unwrap().iter().next().unwrap();
        assert_eq!(scopes.as_array().unwrap().len(), 1, "{self:?}");
        Some((scheme.clone(), scopes[0].as_str().unwrap().parse().unwrap()))
    }

    /// The schema of a request's body.
    pub(crate) fn body(&self) -> Option<&Value> {
        let schema = &self.facts["requestBody"]["content"]["application/json"]["schema"];
        schema.is_object().then(|| resolved(schema))
    }

    pub(crate) fn example(&self) -> Option<Value> {
        let body = self.body()?;
        assert!(body["example"].is_object(), "the body of {} has no example", self.id());
        Some(body["example"].clone())
    }

    /// The path with something of the right form for each parameter, and what a query must have.
    pub(crate) fn filled(&self) -> String {
        let mut path = self.path.clone();
        for param in self.params("path") {
            let name = param["name"].as_str().unwrap();
            let value = match (name, param["schema"]["type"].as_str()) {
                ("chain", _) => "31337",
                (_, Some("integer")) => "7",
                _ => "00000000-0000-0000-0000-000000000007",
            };
            path = path.replace(&format!("{{{name}}}"), value);
        }
        let needed: Vec<String> = self
            .params("query")
            .into_iter()
            .filter(|param| param["required"] == true)
            .map(|param| match param["name"].as_str().unwrap() {
                "address" => "address=0x2222222222222222222222222222222222222222".to_owned(),
                name => format!("{name}=00000000-0000-0000-0000-000000000007"),
            })
            .collect();
        if needed.is_empty() { path } else { format!("{path}?{}", needed.join("&")) }
    }
}

/// What a reference points to.
pub(crate) fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(reference) => api::document().pointer(reference.strip_prefix('#').unwrap()).unwrap(),
        None => schema,
    }
}

/// Rewritten with `UPDATE_OPENAPI=1`.
#[test]
fn the_committed_document_is_what_the_code_says() {
    let path: PathBuf = root().join("docs/openapi.json");
    let present = api::document();
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&path, format!("{present:#}\n")).unwrap();
    }
    let committed: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert!(committed == *present, "docs/openapi.json is stale: run this test with UPDATE_OPENAPI=1 and read the diff");
}

#[test]
fn every_operation_says_what_a_caller_needs() {
    let all = Operation::all();
    let ids: BTreeSet<&str> = all.iter().map(Operation::id).collect();
    assert_eq!(ids.len(), all.len(), "two operations have one id");
    for operation in &all {
        let id = operation.id();
        assert!(operation.facts["summary"].as_str().is_some_and(|text| (3..=80).contains(&text.len())), "{id} needs a short title");
        assert!(operation.facts["tags"][0].is_string(), "{id} has no tag");
        let idempotent = operation.params("header").iter().any(|param| param["name"] == "Idempotency-Key");
        assert_eq!(idempotent, operation.method == Method::POST, "{id}");
        assert_eq!(operation.body().is_some(), operation.method == Method::POST, "{id}");
        if let Some(body) = operation.body() {
            assert_eq!(body["additionalProperties"], false, "the body of {id} takes unknown fields");
            checked::assert_valid(body, &operation.example().unwrap(), id);
        }
        assert!(operation.security().is_some() || operation.path == "/v1/openapi.json", "{id} needs no token?");
        let answers = operation.facts["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with('2')), "{id}");
        assert!(answers.values().all(|answer| !answer["description"].as_str().unwrap().is_empty()), "{id}");
    }
}

#[tokio::test]
async fn the_routes_and_the_document_are_the_same_set() {
    let house = ApiHouse::start().await;
    let token = house.token(&[Scope::PaymentsRead], None, 1).await;
    let all = Operation::all();
    for operation in &all {
        let taken: BTreeSet<&str> = all.iter().filter(|other| other.path == operation.path).map(|other| other.method.as_str()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = house.request(method.parse().unwrap(), &operation.filled()).bearer_auth(&token);
            let response = request.send().await.unwrap();
            let is_event_stream = response.headers()["content-type"] == "text/event-stream";
            let status = response.status();
            let said = if is_event_stream { String::new() } else { response.text().await.unwrap() };
            if taken.contains(method) {
                assert!(status != 405 && !said.contains("no such route; the API is"), "{method} {}: {status} {said}", operation.path);
            } else {
                assert_eq!(status, 405, "{method} {} is not in the document: {said}", operation.path);
            }
        }
    }
    // The other way round: there is one list of routes, and nothing is added to it beside the annotated handlers.
    let served = answer(house.request(Method::GET, "/v1/openapi.json")).await;
    assert_eq!(served.json(), *api::document());
    let mut listed = 0;
    for file in std::fs::read_dir(root().join("src/api")).unwrap() {
        let file = file.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        for word in [".route(", ".nest(", ".merge(", ".route_service(", ".nest_service(", "MethodRouter", "axum::routing"] {
            assert!(!text.contains(word), "{}: `{word}` adds routes that the document does not know", file.display());
        }
        let handlers = text.split("routes!(").skip(1).map(|rest| rest.split(')').next().unwrap().split(',').count());
        listed += handlers.sum::<usize>();
    }
    assert_eq!(listed, all.len());
}

/// docs/api.md has the table of the code, and no other.
#[test]
fn every_problem_code_is_explained() {
    let text = std::fs::read_to_string(root().join("docs/api.md")).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("| `") && line.split('|').count() == 5).collect();
    let wanted: Vec<String> =
        api::CODES.iter().map(|code| format!("| `{}` | {} | {} |", code.name, code.status.as_u16(), code.meaning)).collect();
    assert_eq!(lines, wanted, "the table should be:\n{}", wanted.join("\n"));
    let names: BTreeSet<&str> = api::CODES.iter().map(|code| code.name).collect();
    assert_eq!(names.len(), api::CODES.len(), "a code is listed twice");
}
