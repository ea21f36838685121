//! From a knock of the database to a wake-up of workers. What a notice says is not read: whoever is woken reads
//! the tables, as at every poll, which remains the fallback.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use super::supervise::{Workers, chain_of};

/// The pause before a lost connection is made again; polls go on meanwhile.
const PAUSE: Duration = Duration::from_secs(1);

/// Listens on a channel of the database, on a connection of its own, until `stop`.
pub(super) fn forward<W>(workers: &mut Workers, url: String, channel: &'static str, wake: W, stop: CancellationToken)
where
    W: Fn() + Send + Sync + 'static,
{
    workers.run(async move {
        // Ends when the process stops. Losing the connection is no reason to end: polling goes on.
        while !stop.is_cancelled() {
            let ended = tokio::select! {
                ended = listen(&url, channel, &wake) => ended,
                () = stop.cancelled() => break,
            };
            if let Err(error) = ended {
                tracing::warn!(channel, "the database does not knock: {}; listening again in {} ms", chain_of(&error), PAUSE.as_millis());
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    });
}

/// Wakes at the beginning, for what happened while nobody listened, and at every notice. Ends when the
/// connection is lost.
async fn listen(url: &str, channel: &str, wake: &(impl Fn() + Sync)) -> Result<(), sqlx::Error> {
    let options = PgConnectOptions::from_str(url)?.application_name("amanatd notices");
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(channel).await?;
    wake();
    while listener.try_recv().await?.is_some() {
        wake();
    }
    Ok(())
}
