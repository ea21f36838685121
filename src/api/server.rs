//! The router, and the bounds on every request.

use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::http::{HeaderName, Request, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;
use tracing::Span;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Unauthenticated;
use super::problem::Problem;
use super::{
    ApiState, adjustments, adopt, document, escrow, feed, held, intents, ledger, payments, policies, quotes, replace, screenings,
    statements, thresholds, webhooks,
};

/// Larger bodies are refused unread.
const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Names a request in the log and in the answer. A caller may bring its own; else one is made.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// How much of a caller's words a log line repeats.
const LOGGED_CHARS_MAX: usize = 128;

/// All routes, each with what its handler says of itself. There is no other way in: a route without an annotation
/// does not compile here.
pub(super) fn routes(base: OpenApi) -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(base)
        .routes(routes!(document::get))
        .routes(routes!(payments::create, payments::list))
        .routes(routes!(payments::get))
        .routes(routes!(quotes::list))
        .routes(routes!(quotes::requote))
        .routes(routes!(escrow::release))
        .routes(routes!(escrow::refund))
        .routes(routes!(escrow::accept))
        .routes(routes!(escrow::cancel))
        .routes(routes!(escrow::withdraw))
        .routes(routes!(escrow::end_quarantine))
        .routes(routes!(escrow::open_dispute))
        .routes(routes!(escrow::list_disputes))
        .routes(routes!(escrow::resolve_dispute))
        .routes(routes!(intents::list))
        .routes(routes!(intents::get))
        .routes(routes!(intents::approve))
        .routes(routes!(intents::claim))
        .routes(routes!(intents::submit_signature))
        .routes(routes!(intents::decline))
        .routes(routes!(intents::void))
        .routes(routes!(replace::replace))
        .routes(routes!(replace::cancel))
        .routes(routes!(adopt::adopt))
        .routes(routes!(adopt::foreign))
        .routes(routes!(adopt::propose_baseline))
        .routes(routes!(policies::explain))
        .routes(routes!(intents::signing_queue))
        .routes(routes!(policies::list, policies::propose))
        .routes(routes!(policies::check))
        .routes(routes!(policies::refusals))
        .routes(routes!(policies::proposals))
        .routes(routes!(policies::proposal))
        .routes(routes!(policies::confirm))
        .routes(routes!(policies::withdraw))
        .routes(routes!(policies::destinations, policies::propose_destination))
        .routes(routes!(policies::remove_destination))
        .routes(routes!(ledger::chains))
        .routes(routes!(thresholds::list, thresholds::set))
        .routes(routes!(thresholds::history))
        .routes(routes!(held::accounts))
        .routes(routes!(held::destinations))
        .routes(routes!(held::transfers))
        .routes(routes!(held::balances))
        .routes(routes!(ledger::entries))
        .routes(routes!(ledger::findings))
        .routes(routes!(screenings::list))
        .routes(routes!(screenings::get))
        .routes(routes!(screenings::decide))
        .routes(routes!(adjustments::list))
        .routes(routes!(adjustments::propose))
        .routes(routes!(screenings::recipients))
        .routes(routes!(screenings::recipient))
        .routes(routes!(screenings::decide_recipient))
        .routes(routes!(statements::statement))
        .routes(routes!(statements::balances_at))
        .routes(routes!(ledger::reconciliation))
        .routes(routes!(feed::list))
        .routes(routes!(feed::stream))
        .routes(routes!(webhooks::list, webhooks::create))
        .routes(routes!(webhooks::get))
        .routes(routes!(webhooks::secret, webhooks::rotate))
        .routes(routes!(webhooks::disable))
        .routes(routes!(webhooks::enable))
        .routes(routes!(webhooks::redeliver))
        .routes(routes!(webhooks::deliveries))
        .routes(routes!(webhooks::attempts))
        .routes(routes!(webhooks::redeliver_one))
}

/// All routes under /v1. Remote addresses are known where it is served with their connect info.
pub fn router(state: ApiState) -> Router {
    let (router, _) = routes(OpenApi::default()).split_for_parts();
    router
        .fallback(async |_: Unauthenticated| Problem::not_found("no such route; the API is under /v1"))
        .method_not_allowed_fallback(async |_: Unauthenticated| Problem::method())
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
