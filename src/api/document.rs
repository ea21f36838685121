//! The OpenAPI document: what the handlers' annotations say, and what holds for every route alike, said once here.
//!
//! An annotation names what is a route's own: its answer, its body, its security, its own refusals. Added here are
//! the refusals that any route of its form can give, the idempotency key of every POST, the table of problem codes,
//! and an id for each operation.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApiBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::auth::Unauthenticated;
use super::code::CODES;
use super::problem::Problem;
use super::server;
use super::wire::{FieldProblem, ProblemView};

static DOCUMENT: LazyLock<Value> = LazyLock::new(build);

/// The document as it is served and committed.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "document", responses((status = 200, body = serde_json::Value)))]
pub(super) async fn get(_: Unauthenticated) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.to_string())
}

const DESCRIPTION: &str = "Payments to addresses of their own, the ledger behind them, and the intents by which money leaves.\n\n\
    Amounts are decimal strings, with the raw integer beside them; times are RFC 3339; hashes and addresses are hex. \
    Every POST needs an `Idempotency-Key`: the same key with the same body gets the first answer again. Lists that may grow \
    take `cursor` and `limit` (1 to 200, 50 without it); `next_cursor` is absent on the last page. Refusals are RFC 9457 \
    problems; `x-problems` below lists their codes.";

fn build() -> Value {
    let bearer = |words: &str| {
        let mut http = Http::new(HttpAuthScheme::Bearer);
        http.description = Some(words.to_owned());
        SecurityScheme::Http(http)
    };
    let components = ComponentsBuilder::new()
        .schema(ProblemView::name(), ProblemView::schema())
        .schema(FieldProblem::name(), FieldProblem::schema())
        .security_scheme("token", bearer("A live token with the scope."))
        .security_scheme("officer", bearer("A live token with the scope that is a custody officer's own: an admin's or a guard's."))
        .security_scheme("resolver", bearer("A live token with the scope that belongs to a resolver or an admin."))
        .security_scheme("resolver_alone", bearer("A live token with the scope that belongs to a resolver."))
        .build();
    let base = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("amanatd").version(env!("CARGO_PKG_VERSION")).description(Some(DESCRIPTION)).build())
        .components(Some(components))
        .build();
    let routes = server::routes(base).into_openapi();
    let mut document = serde_json::to_value(&routes).expect("a document is plain JSON");
    complete(&mut document);
    document
}

fn complete(document: &mut Value) {
    let names: Vec<&str> = CODES.iter().map(|code| code.name).collect();
    document["components"]["schemas"]["ProblemView"]["properties"]["code"]["enum"] = json!(names);
    document["x-problems"] = CODES
        .iter()
        .map(|code| {
            json!({
                "type": format!("urn:amanatd:problem:{}", code.name),
                "code": code.name,
                "status": code.status.as_u16(),
                "title": code.title,
                "meaning": code.meaning,
            })
        })
        .collect();
    let paths = document["paths"].as_object_mut().expect("a document has paths");
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        for (method, operation) in item.iter_mut() {
            complete_operation(method, operation);
        }
    }
}

fn complete_operation(method: &str, operation: &mut Value) {
    let tag = operation["tags"][0].as_str().unwrap_or_default().to_owned();
    let handler = operation["operationId"].as_str().unwrap_or_default();
    operation["operationId"] = json!(format!("{tag}_{handler}"));
    let writes = method == "post";
    let secured = operation.get("security").is_some();
    let params = operation["parameters"].as_array().cloned().unwrap_or_default();
    let queried = params.iter().any(|param| param["in"] != "path");
    if writes {
        let mut params = params.clone();
        params.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": true,
            "description": "New for each new request, the same for the same request again; bare or quoted.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$" },
            "example": "order-1017",
        }));
        operation["parameters"] = Value::Array(params);
    } else if params.is_empty() {
        operation.as_object_mut().expect("an operation is an object").remove("parameters");
    }
    let responses = operation["responses"].as_object_mut().expect("an operation has responses");
    let mut refused = |status: StatusCode, codes: &[&str]| refuse(responses, status, codes);
    if secured {
        refused(StatusCode::UNAUTHORIZED, &["unauthorized"]);
        refused(StatusCode::FORBIDDEN, &["forbidden"]);
    }
    if !params.is_empty() {
        refused(StatusCode::BAD_REQUEST, &["unreadable"]);
    }
    if queried {
        refused(StatusCode::UNPROCESSABLE_ENTITY, &["invalid_fields"]);
    }
    if writes {
        let form = ["idempotency_key_missing", "idempotency_key_form", "content_type", "body_form", "trailing_text"];
        refused(StatusCode::BAD_REQUEST, &form);
        refused(StatusCode::CONFLICT, &["idempotency_key_running"]);
        refused(StatusCode::PAYLOAD_TOO_LARGE, &["body_too_large"]);
        refused(StatusCode::UNPROCESSABLE_ENTITY, &["invalid_fields", "idempotency_key_reused"]);
    }
    refused(StatusCode::TOO_MANY_REQUESTS, &["rate_limited"]);
    refused(StatusCode::INTERNAL_SERVER_ERROR, &["internal"]);
    refused(StatusCode::SERVICE_UNAVAILABLE, &["unavailable"]);
    refused(StatusCode::GATEWAY_TIMEOUT, &["timeout"]);
    for (status, response) in responses.iter_mut() {
        describe(status, response);
    }
}

/// Adds codes to what a route says of a status itself.
fn refuse(responses: &mut Map<String, Value>, status: StatusCode, codes: &[&str]) {
    let response = responses.entry(status.as_str()).or_insert_with(|| json!({ "description": "" }));
    let mut all: Vec<&str> = response["description"].as_str().unwrap_or_default().split(", ").filter(|code| !code.is_empty()).collect();
    all.extend(codes.iter().filter(|code| !response["description"].as_str().unwrap_or_default().split(", ").any(|known| known == **code)));
    response["description"] = json!(all.join(", "));
}

/// A refusal's body is a problem; an answer's description is its status in words, unless it has one.
fn describe(status: &str, response: &mut Value) {
    let Some(status) = status.parse().ok().and_then(|number: u16| StatusCode::from_u16(number).ok()) else { return };
    if status.is_client_error() || status.is_server_error() {
        response["content"] = json!({ Problem::CONTENT_TYPE: { "schema": { "$ref": "#/components/schemas/ProblemView" } } });
        if status == StatusCode::TOO_MANY_REQUESTS {
            response["headers"] = json!({ "Retry-After": { "description": "seconds", "schema": { "type": "integer", "minimum": 1 } } });
        }
    } else if response["description"].as_str().unwrap_or_default().is_empty() {
        response["description"] = json!(status.canonical_reason().unwrap_or_default());
    }
}
