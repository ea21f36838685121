//! The router, and what every answer carries.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use super::page::{self, Refusal};
use super::pages::{
    books, disputes, events, findings, intents, oracle, overview, payments, plan, sessions, settings, statements, webhooks,
};
use super::{Console, assets, enter, step_up};

const BODY_BYTES_MAX: usize = 64 * 1024;
/// How much of a caller's words a log line repeats.
const LOGGED_CHARS_MAX: usize = 128;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// No script or style but our own files, no other origin, no frame around us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'self'";

/// All pages under /console.
pub fn router(console: Console) -> Router {
    Router::new()
        .route("/console", get(overview::get))
        .route("/console/payments", get(payments::list))
        .route("/console/payments/{id}", get(payments::get))
        .route("/console/intents", get(intents::list))
        .route("/console/intents/{id}", get(intents::get))
        .route("/console/intents/{id}/approval/begin", post(step_up::begin))
        .route("/console/intents/{id}/approval/finish", post(step_up::finish))
        .route("/console/ledger", get(books::get))
        .route("/console/plan", get(plan::get))
        .route("/console/statements", get(statements::get))
        .route("/console/statements/entries", get(statements::entries))
        .route("/console/statements/balances", get(statements::balances))
        .route("/console/disputes", get(disputes::list))
        .route("/console/disputes/{id}", get(disputes::get))
        .route("/console/disputes/{id}/resolution/begin", post(step_up::begin_resolution))
        .route("/console/disputes/{id}/resolution/finish", post(step_up::finish_resolution))
        .route("/console/prices", get(oracle::get))
        .route("/console/settings", get(settings::get))
        .route("/console/findings", get(findings::get))
        .route("/console/events", get(events::get))
        .route("/console/webhooks", get(webhooks::get))
        .route("/console/sign-in", get(enter::sign_in_page))
        .route("/console/sign-in/begin", post(enter::sign_in_begin))
        .route("/console/sign-in/finish", post(enter::sign_in_finish))
        .route("/console/enrol", get(enter::enrol_page))
        .route("/console/enrol/begin", post(enter::enrol_begin))
        .route("/console/enrol/finish", post(enter::enrol_finish))
        .route("/console/session/resume", get(enter::resume))
        .route("/console/session/end", post(enter::sign_out))
        .route("/console/sessions", get(sessions::get))
        .route("/console/sessions/end", post(sessions::end_all))
        .route("/console/sessions/{id}/end", post(sessions::end_one))
        .route("/console/assets/{version}/{name}", get(assets::get))
        .route("/console/", get(async || Redirect::permanent("/console")))
        .route("/console/{*rest}", get(async || Refusal::Unknown("There is no such page.".to_owned())))
        .with_state(console.clone())
        .layer(CatchPanicLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(middleware::from_fn_with_state(console, guard))
}

/// Only requests that come to our own name, and changes that come from our own pages; and on every answer
/// what keeps a browser from anything else.
async fn guard(State(console): State<Console>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let asset = path.starts_with("/console/assets/");
    let response = match refuse(&console, &request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let mut response = page::shaped(&method, response);
    // Pages that are open ask every second; what somebody did is worth a line. No query and no body: they
    // may hold what nobody should read in a log.
    if method != Method::GET && method != Method::HEAD {
        let path: String = path.chars().take(LOGGED_CHARS_MAX).collect();
        tracing::info!(method = method.as_str(), path, status = response.status().as_u16(), "console answered");
    }
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: with it browsers hide the origin of our own forms from us too.
    set(header::REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(
        HeaderName::from_static("permissions-policy"),
        "publickey-credentials-get=(self), publickey-credentials-create=(self), clipboard-write=(self), camera=(), geolocation=(), microphone=()",
    );
    if !asset {
        set(header::CACHE_CONTROL, "no-store");
    }
    if console.options.is_secure() {
        set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

fn refuse(console: &Console, request: &Request) -> Option<Response> {
    let header_of = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    if header_of(header::HOST) != Some(console.options.authority()) {
        let told = format!("This is not {}. Use that address.", console.options.origin());
        return Some((StatusCode::MISDIRECTED_REQUEST, told).into_response());
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    let from_us = header_of(header::ORIGIN) == Some(console.options.origin())
        && header_of(HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
    (!reads && !from_us).then(|| Refusal::Forged.into_response())
}
