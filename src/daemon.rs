//! The long-running process: start-up checks, the workers, their supervision, shutdown.
//!
//! Any worker that ends ends the process; systemd starts it again. A failed tick is repeated after a
//! pause, unless its error says stop. The end is bounded: what does not come to one in time is cut off.
//! The clock is read here and handed down.

mod admin;
mod heads;
mod highwater;
mod measure;
mod notices;
mod seals;
mod share;
mod start;
mod steward;
mod supervise;

pub(crate) use highwater::{Adopt, meet};
pub(crate) use seals::read_heads;
pub use start::serve;

use std::time::Duration;

use axum::Router;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long requests under way may take once the process was told to stop.
const REQUESTS_ENDING: Duration = Duration::from_secs(5);

/// The clock, read here and nowhere below.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Serves until `stop`; then requests under way are waited for, but not for long: a request that was sent
/// by half would hold the process for ever.
async fn serve_http<L>(listener: L, router: Router, stop: CancellationToken) -> std::io::Result<()>
where
    L: axum::serve::Listener,
    L::Addr: std::fmt::Debug,
{
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
    end_with(serving, stop).await
}

/// The same, and each request knows its remote address: the API's limits go by it where a caller shows no token.
async fn serve_remote(listener: TcpListener, router: Router, stop: CancellationToken) -> std::io::Result<()> {
    let service = router.into_make_service_with_connect_info::<std::net::SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    end_with(serving, stop).await
}

async fn end_with(serving: impl IntoFuture<Output = std::io::Result<()>>, stop: CancellationToken) -> std::io::Result<()> {
    tokio::select! {
        ended = serving.into_future() => ended,
        () = start::past(&stop, REQUESTS_ENDING) => {
            tracing::info!("a connection is still open; it is cut off");
            Ok(())
        }
    }
}
