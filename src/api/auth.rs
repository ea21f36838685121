//! Who calls: the bearer of a live token, looked up by the hash of what was presented. A live token pays for its
//! calls from its own bucket; whoever shows none pays from that of its address.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::ApiState;
use super::problem::Problem;
use crate::officer::{self, Caller, Scope};
use crate::units::UserId;

/// A caller whose token is live. What it may do is asked per route.
#[derive(Debug)]
pub(super) struct Authenticated {
    caller: Caller,
    /// Of the token, to look it up again.
    hash: [u8; 32],
}

impl Authenticated {
    /// Refuses unless the token has the scope.
    pub(super) fn require(&self, scope: Scope) -> Result<&Caller, Problem> {
        if self.caller.may(scope) {
            Ok(&self.caller)
        } else {
            Err(Problem::forbidden(format!("token {:?} lacks the scope {scope}", self.caller.token_name)))
        }
    }

    /// Refuses unless the token has the scope and is a custody officer's own.
    pub(super) fn require_officer(&self, scope: Scope) -> Result<(&Caller, UserId), Problem> {
        let caller = self.require(scope)?;
        match caller.user {
            Some((user, role)) if role.is_officer() => Ok((caller, user)),
            Some(_) | None => Err(Problem::forbidden("only an officer may do this; officers are admins and guards")),
        }
    }

    pub(super) const fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

impl FromRequestParts<ApiState> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Self::Rejection> {
        let now = (state.clock)();
        let presented = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(bearer);
        let Some(hash) = presented.and_then(officer::presented_hash) else {
            return Err(nobody(parts, state));
        };
        let mut connection = state.db.connection().await?;
        let Some(caller) = officer::store::find_caller(&mut connection, hash, now).await? else {
            return Err(nobody(parts, state));
        };
        state.doors.limiter.take_token(caller.token_id, now).map_err(Problem::rate_limited)?;
        officer::store::touch_token(&mut connection, caller.token_id, now).await?;
        Ok(Self { caller, hash })
    }
}

/// Refuses a call without a live token: with 401, or with 429 once its address has made too many.
fn nobody(parts: &Parts, state: &ApiState) -> Problem {
    match Unauthenticated::take(parts, state) {
        Ok(()) => Problem::unauthorized(),
        Err(limited) => limited,
    }
}

/// A caller of a route that needs no token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unauthenticated;

impl Unauthenticated {
    fn take(parts: &Parts, state: &ApiState) -> Result<(), Problem> {
        // Behind a proxy this is the proxy: what a header says of where a call came from is not believed.
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
        let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        state.doors.limiter.take_address(address, (state.clock)()).map_err(Problem::rate_limited)
    }
}

impl FromRequestParts<ApiState> for Unauthenticated {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Self::Rejection> {
        Self::take(parts, state).map(|()| Self)
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
