//! Answers with an entity tag: whoever has the present one already is told so and sent nothing.
//!
//! The tag is the state's version and a hash of the answer. The version alone would not do: depths grow and
//! approvals arrive without a change of state.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// How much of the hash a tag carries.
const TAG_BYTES: usize = 12;

/// The view, or 304 if `If-None-Match` names its tag.
pub(super) fn tagged<T: Serialize>(asked: &HeaderMap, state_version: i64, view: &T) -> Result<Response, Problem> {
    let body = serde_json::to_string(view).map_err(|error| Problem::unavailable(error.to_string()))?;
    let hash = Sha256::digest(body.as_bytes());
    let tag = format!("\"{state_version}-{}\"", alloy::hex::encode(&hash[..TAG_BYTES]));
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|value| value.to_str().is_ok_and(|value| names(value, &tag)));
    let tag = HeaderValue::try_from(tag).map_err(|error| Problem::unavailable(error.to_string()))?;
    let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"))];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    Ok((headers, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Whether a list of tags has this one, compared weakly as RFC 9110 wants it for this header.
fn names(list: &str, tag: &str) -> bool {
    list.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_every_form() {
        for list in ["\"1-ab\"", "W/\"1-ab\"", "\"0-00\", \"1-ab\"", "*"] {
            assert!(names(list, "\"1-ab\""), "{list}");
        }
        for list in ["", "1-ab", "\"1-a\"", "\"1-abc\"", "w/\"1-ab\""] {
            assert!(!names(list, "\"1-ab\""), "{list}");
        }
    }
}
