//! From a node's notice of a new head to a wake-up of the scanner. What the notice says is not read; the
//! scanner asks the endpoints that must agree, as at every poll, which remains the fallback.

use std::time::Duration;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use super::supervise::{Wake, Workers};
use crate::metrics::Metrics;
use crate::rpc::{HeadError, HeadLimits, HeadNotices};
use crate::units::ChainId;

/// The first pause before a lost connection is made again; it doubles up to the second, and begins anew
/// after a connection that announced something.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where the heads of a chain are announced, and who wants to know.
pub(super) struct Heads {
    pub(super) chain: ChainId,
    pub(super) url: SecretString,
    /// Host, for the log.
    pub(super) host: String,
    pub(super) wake: Wake,
    pub(super) metrics: Metrics,
}

/// Listens until `stop`.
pub(super) fn forward(workers: &mut Workers, heads: Heads, stop: CancellationToken) {
    workers.run(async move {
        let mut pause = PAUSE_MIN;
        // Ends when the process stops. Losing the connection is no reason to end: polling goes on.
        while !stop.is_cancelled() {
            let mut heard = false;
            let error = tokio::select! {
                error = heads.listen(&mut heard) => error,
                () = stop.cancelled() => break,
            };
            heads.metrics.head_notices(heads.chain, false);
            pause = if heard { PAUSE_MIN } else { pause };
            tracing::warn!(
                chain.id = heads.chain.get(),
                host = heads.host,
                "new heads are not announced: {error}; polling goes on, and it is tried again in {} ms",
                pause.as_millis()
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Ok(())
    });
}

impl Heads {
    /// Wakes at the beginning, for what happened while nobody listened, and at every notice.
    async fn listen(&self, heard: &mut bool) -> HeadError {
        let mut notices = match HeadNotices::connect(&self.url, HeadLimits::default()).await {
            Ok(notices) => notices,
            Err(error) => return error,
        };
        self.metrics.head_notices(self.chain, true);
        tracing::info!(chain.id = self.chain.get(), host = self.host, "new heads are announced");
        // Ends when the connection is lost.
        loop {
            self.wake.wake();
            if let Err(error) = notices.notice().await {
                return error;
            }
            *heard = true;
        }
    }
}
