//! Who calls: the bearer of a live token, looked up by the hash of what was presented.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::ApiState;
use super::problem::Problem;
use crate::officer::{self, Caller, Scope};

/// A caller whose token is live. What it may do is asked per route.
#[derive(Debug)]
pub(super) struct Authenticated(pub Caller);

impl Authenticated {
    /// Refuses unless the token has the scope.
    pub(super) fn require(&self, scope: Scope) -> Result<&Caller, Problem> {
        if self.0.may(scope) {
            Ok(&self.0)
        } else {
            Err(Problem::forbidden(format!("token {:?} lacks the scope {scope}", self.0.token_name)))
        }
    }
}

impl FromRequestParts<ApiState> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Self::Rejection> {
        let presented = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let hash = presented.and_then(officer::presented_hash).ok_or_else(Problem::unauthorized)?;
        let now = (state.clock)();
        let mut connection = state.db.connection().await?;
        let caller = officer::store::find_caller(&mut connection, hash, now).await?.ok_or_else(Problem::unauthorized)?;
        officer::store::touch_token(&mut connection, caller.token_id, now).await?;
        Ok(Self(caller))
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
