//! One daemon per database: an advisory lock held by a connection of its own.
//!
//! The lock goes with the connection, so a daemon that dies lets the next one in at once.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

/// The lock's number: "amanatd" read as a base-256 number.
const LOCK: i64 = 0x0061_6d61_6e61_7464;

/// Proof that no other daemon works on this database.
#[derive(Debug)]
pub struct InstanceLease {
    connection: PgConnection,
}

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    #[error("another amanatd already serves this database; stop it first, or point this one elsewhere")]
    Held,
    #[error("the connection that held the daemon's lease is gone, or silent for too long")]
    Lost(#[source] sqlx::Error),
}

impl InstanceLease {
    pub async fn take(url: &str) -> Result<Self, LeaseError> {
        let options = PgConnectOptions::from_str(url).map_err(LeaseError::Connect)?.application_name("amanatd lease");
        let mut connection = options.connect().await.map_err(LeaseError::Connect)?;
        let taken = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(LeaseError::Connect)?;
        if taken { Ok(Self { connection }) } else { Err(LeaseError::Held) }
    }

    /// Fails when the connection is gone and the lease with it. A server that does not answer in time
    /// counts as gone: behind a cut network it may have let the next daemon in already.
    pub async fn check(&mut self, limit: Duration) -> Result<(), LeaseError> {
        match tokio::time::timeout(limit, self.connection.ping()).await {
            Ok(answer) => answer.map_err(LeaseError::Lost),
            Err(_) => Err(LeaseError::Lost(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")))),
        }
    }
}
