//! The router, what its handlers share, and the bounds on every request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::http::{HeaderName, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use time::OffsetDateTime;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use super::problem::Problem;
use super::{intents, ledger, payments};
use crate::chains::ChainBook;
use crate::db::Database;
use crate::rpc::Node;
use crate::units::ChainId;

/// Larger bodies are refused unread.
const BODY_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What handlers share.
#[derive(Clone, Debug)]
pub struct ApiState {
    pub db: Database,
    pub book: Arc<ChainBook>,
    /// The chains that are configured, each with its node.
    pub nodes: Arc<BTreeMap<ChainId, Arc<Node>>>,
    /// The clock, read by the daemon's choice and not here.
    pub clock: fn() -> OffsetDateTime,
}

impl ApiState {
    pub(super) fn watched(&self) -> Vec<ChainId> {
        self.nodes.keys().copied().collect()
    }
}

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
        .route("/v1/intents/{id}/void", post(intents::void))
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
        .layer(middleware::map_response(as_problem))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
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
