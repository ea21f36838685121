//! The router, and the bounds on every request.

use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, StatusCode};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use super::problem::Problem;
use super::{ApiState, intents, ledger, payments};

/// Larger bodies are refused unread.
const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// All routes under /v1.
pub fn router(state: ApiState) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    Router::new()
        .route("/v1/payments", post(payments::create).get(payments::list))
        .route("/v1/payments/{id}", get(payments::get))
        .route("/v1/payments/{id}/release", post(payments::release))
        .route("/v1/intents", get(intents::list))
        .route("/v1/intents/{id}", get(intents::get))
        .route("/v1/intents/{id}/approvals", post(intents::approve))
        .route("/v1/intents/{id}/claim", post(intents::claim))
        .route("/v1/intents/{id}/signature", post(intents::submit_signature))
        .route("/v1/intents/{id}/decline", post(intents::decline))
        .route("/v1/signing-queue", get(intents::signing_queue))
        .route("/v1/chains", get(ledger::chains))
        .route("/v1/ledger/entries", get(ledger::entries))
        .route("/v1/reconciliation", get(ledger::reconciliation))
        .fallback(async || Problem::not_found("no such route; the API is under /v1"))
        .method_not_allowed_fallback(async || Problem::bad_request("method", "this route does not take that method"))
        .with_state(state)
        .layer(CatchPanicLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        // Units of work run in tasks of their own, so a request that is cut off here stays whole.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
}
