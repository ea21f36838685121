//! The long-running process: start-up checks, the workers, their supervision, shutdown.
//!
//! Any worker that ends ends the process; systemd starts it again. A failed tick is repeated after a
//! pause, unless its error says stop. The clock is read here and handed down.

mod admin;
mod start;
mod supervise;

pub use start::serve;

use time::OffsetDateTime;

/// The clock, read here and nowhere below.
pub fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
