//! At most one effect per key: the key, the effect and the answer commit together.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::ApiState;
use super::auth::Authenticated;
use super::code::Code;
use super::problem::Problem;
use super::store::{self, CallKey};
use crate::account;
use crate::db::Work;
use crate::officer::Caller;

/// How much of a refused value is repeated.
const VALUE_CHARS_MAX: usize = 100;

/// The one way into a handler that changes something: who calls, with which key, and the bytes of the body. What the
/// caller may do is asked first, then the key and the body are read, then the work is done once.
#[derive(Debug)]
pub(super) struct Writing {
    pub(super) who: Authenticated,
    headers: HeaderMap,
    body: Bytes,
}

impl FromRequest<ApiState> for Writing {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &ApiState) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let who = Authenticated::from_request_parts(&mut parts, state).await?;
        let headers = parts.headers.clone();
        let body = Bytes::from_request(Request::from_parts(parts, body), state).await;
        let body = body.map_err(|refused| Problem::of_status(refused.status(), &refused.body_text()))?;
        Ok(Self { who, headers, body })
    }
}

impl Writing {
    /// For bodies in which nothing must stand: none at all is one without fields.
    pub(super) fn or_empty(self) -> Self {
        let body = if self.body.is_empty() { Bytes::from_static(b"{}") } else { self.body };
        Self { body, ..self }
    }

    /// Reads the key and the body; both must be there before anything happens. The route names what is written to, in
    /// one spelling.
    pub(super) fn read<T: DeserializeOwned>(&self, caller: &Caller, route: String) -> Result<(Write, T), Problem> {
        read_write(caller, route, &self.headers, &self.body)
    }
}

/// A write as it came in: who, which route, which key, which body.
#[derive(Debug)]
pub(super) struct Write {
    call: CallKey,
}

pub(super) fn read_write<T: DeserializeOwned>(
    caller: &Caller,
    route: String,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(Write, T), Problem> {
    let key = headers
        .get("idempotency-key")
        .ok_or_else(|| Problem::bad_request(Code::KeyMissing, "send an Idempotency-Key header, new for each new request"))?;
    let key = key.to_str().unwrap_or_default();
    // The standard's draft quotes the key; bare ones are as common.
    let bare = key.strip_prefix('"').and_then(|key| key.strip_suffix('"')).unwrap_or(key);
    if bare.is_empty() || bare.len() > 200 || !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::bad_request(Code::KeyForm, "Idempotency-Key must be 1 to 200 printable ASCII characters without spaces"));
    }
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")));
    if !is_json {
        return Err(Problem::bad_request(Code::ContentType, "send Content-Type: application/json"));
    }
    let parsed = parse(body)?;
    let body_sha256 = Sha256::digest(body).into();
    Ok((Write { call: CallKey { token: caller.token_id, route, key: bare.to_owned(), body_sha256 } }, parsed))
}

/// Reads a JSON body; the error names the field.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // serde would also fill the fields from a list, by their order.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::bad_request(Code::BodyForm, "the body must be a JSON object with named fields"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let problem = error.inner().to_string();
        // "unknown field `x`, …" and "missing field `x`" carry the name themselves; the path is then the parent.
        let field = problem.split('`').nth(1).filter(|_| problem.contains("field `")).map(str::to_owned).unwrap_or(path);
        let value = shown(body, &field);
        if account::is_secret(&value) {
            return Problem::field(&field, "(hidden)", "looks like a private key or recovery words; it was not stored");
        }
        Problem::field(&field, value.chars().take(VALUE_CHARS_MAX).collect::<String>(), problem)
    })?;
    reader.end().map_err(|error| Problem::bad_request(Code::TrailingText, format!("text after the JSON value: {error}")))?;
    if let Some(field) = field_with_zero(body) {
        return Err(Problem::field(&field, shown(body, &field), "holds the character U+0000, which no stored text can"));
    }
    Ok(parsed)
}

/// The field whose text has a zero character in it, at any depth: Postgres has no way to store it.
fn field_with_zero(body: &[u8]) -> Option<String> {
    fn has_zero(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::String(text) => text.contains('\0'),
            serde_json::Value::Array(list) => list.iter().any(has_zero),
            serde_json::Value::Object(object) => object.iter().any(|(name, value)| name.contains('\0') || has_zero(value)),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => false,
        }
    }
    // JSON has only this way to write one.
    body.windows(6).find(|six| *six == br"\u0000")?;
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    object.into_iter().find(|(_, value)| has_zero(value)).map(|(field, _)| field)
}

/// What a body says in a field, for the error that names it; empty where that is no plain value.
fn shown(body: &[u8], field: &str) -> String {
    let object: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(body).ok();
    match object.as_ref().and_then(|object| object.get(field)) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) if !value.is_array() && !value.is_object() => value.to_string(),
        Some(_) | None => String::new(),
    }
}

impl Write {
    /// Runs the work once. A repeated call gets the first answer; another body under the key is refused.
    pub(super) async fn once<T, F>(self, state: &ApiState, status: StatusCode, work: F) -> Result<Response, Problem>
    where
        T: Serialize + Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, Problem> + Send + 'static,
    {
        let call = self.call;
        let (status, body) = state
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    if !store::claim_key(connection, &call).await? {
                        return Err(Problem::key_running());
                    }
                    if let Some(stored) = store::find_answer(connection, &call).await? {
                        if stored.body_sha256 != call.body_sha256 {
                            return Err(Problem::key_reused());
                        }
                        return Ok((stored.status.cast_unsigned(), stored.response));
                    }
                    let answer = work(connection).await?;
                    let body = serde_json::to_string(&answer).map_err(|error| Problem::unavailable(error.to_string()))?;
                    store::insert_answer(connection, &call, status.as_u16(), &body).await?;
                    Ok((status.as_u16(), body))
                })
            })
            .await?;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
    }
}
