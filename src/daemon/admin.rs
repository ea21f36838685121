//! Metrics and health, on a thread and a listener of their own: a blocked worker must not hide itself.

use std::net::{SocketAddr, TcpListener};

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::serve_http;
use crate::metrics::Metrics;

/// Binds the listener and serves it until `stop`.
pub(super) fn spawn(listen: SocketAddr, metrics: Metrics, stop: CancellationToken) -> std::io::Result<std::thread::JoinHandle<()>> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "metrics and health have no runtime"),
        };
        runtime.block_on(async move {
            let router = router(metrics);
            let served = match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => serve_http(listener, router, stop).await,
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!(%error, "metrics and health ended");
            }
        });
    })
}

fn router(metrics: Metrics) -> Router {
    let health = metrics.clone();
    Router::new()
        .route("/metrics", get(async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render())))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(async move || readiness(&health)))
}

/// 200 and `ready`, or 503 and each reason on a line of its own.
fn readiness(metrics: &Metrics) -> (StatusCode, String) {
    let reasons = metrics.unready();
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, reasons.into_iter().map(|reason| reason + "\n").collect())
}
