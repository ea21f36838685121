//! The router, and the bounds on every request.

use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::http::{HeaderName, Request, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;

use super::problem::Problem;
use super::{ApiState, intents, ledger, payments, quotes, thresholds, webhooks};

/// Larger bodies are refused unread.
const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Names a request in the log and in the answer. A caller may bring its own; else one is made.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How much of a caller's words a log line repeats.
const LOGGED_CHARS_MAX: usize = 128;

/// All routes under /v1.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/v1/payments", post(payments::create).get(payments::list))
        .route("/v1/payments/{id}", get(payments::get))
        .route("/v1/payments/{id}/release", post(payments::release))
        .route("/v1/payments/{id}/quotes", get(quotes::list))
        .route("/v1/payments/{id}/requote", post(quotes::requote))
        .route("/v1/intents", get(intents::list))
        .route("/v1/intents/{id}", get(intents::get))
        .route("/v1/intents/{id}/approvals", post(intents::approve))
        .route("/v1/intents/{id}/claim", post(intents::claim))
        .route("/v1/intents/{id}/signature", post(intents::submit_signature))
        .route("/v1/intents/{id}/decline", post(intents::decline))
        .route("/v1/intents/{id}/void", post(intents::void))
        .route("/v1/signing-queue", get(intents::signing_queue))
        .route("/v1/chains", get(ledger::chains))
        .route("/v1/chains/{chain}/thresholds", get(thresholds::list).post(thresholds::set))
        .route("/v1/chains/{chain}/thresholds/history", get(thresholds::history))
        .route("/v1/ledger/entries", get(ledger::entries))
        .route("/v1/findings", get(ledger::findings))
        .route("/v1/reconciliation", get(ledger::reconciliation))
        .route("/v1/events", get(webhooks::events))
        .route("/v1/webhooks", get(webhooks::list).post(webhooks::create))
        .route("/v1/webhooks/{id}", get(webhooks::get))
        .route("/v1/webhooks/{id}/secret", get(webhooks::secret).post(webhooks::rotate))
        .route("/v1/webhooks/{id}/disable", post(webhooks::disable))
        .route("/v1/webhooks/{id}/enable", post(webhooks::enable))
        .route("/v1/webhooks/{id}/redeliver", post(webhooks::redeliver))
        .route("/v1/webhook-deliveries", get(webhooks::deliveries))
        .route("/v1/webhook-deliveries/{id}/attempts", get(webhooks::attempts))
        .route("/v1/webhook-deliveries/{id}/redeliver", post(webhooks::redeliver_one))
        .fallback(async || Problem::not_found("no such route; the API is under /v1"))
        .method_not_allowed_fallback(async || Problem::bad_request("method", "this route does not take that method"))
        .with_state(state)
        .layer(CatchPanicLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        // Units of work run in tasks of their own, so a request that is cut off here stays whole.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(middleware::map_response(as_problem))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(TraceLayer::new_for_http().make_span_with(span_of).on_request(()).on_response(log_answer).on_failure(()))
        .layer(SetRequestIdLayer::new(REQUEST_ID, MakeRequestUuid))
}

/// What every line that is logged on the way to an answer carries. No query, no header but the id, no
/// body: they may hold what nobody should read in a log.
fn span_of<B>(request: &Request<B>) -> Span {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("-");
    tracing::info_span!(
        "request",
        request.id = bounded(id),
        method = bounded(request.method().as_str()),
        path = bounded(request.uri().path())
    )
}

fn log_answer<B>(response: &axum::http::Response<B>, latency: Duration, _: &Span) {
    let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(status = response.status().as_u16(), latency_ms, "answered");
}

fn bounded(text: &str) -> &str {
    text.char_indices().nth(LOGGED_CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// What an extractor or a layer refuses is a problem document too.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let told = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == Problem::CONTENT_TYPE);
    if told || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let said = to_bytes(response.into_body(), BODY_BYTES_MAX).await.unwrap_or_default();
    Problem::of_status(status, &String::from_utf8_lossy(&said)).into_response()
}
