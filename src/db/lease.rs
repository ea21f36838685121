//! One daemon per database: an advisory lock held by a connection of its own.
//!
//! The lock goes with the connection, so a daemon that dies lets the next one in at once. A daemon that only
//! slept does not know that its connection, and so its lock, is gone: the lease has a number too, which every
//! unit of work checks where it commits.

use std::io;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

/// The lock's number: "amanatd" read as a base-256 number.
const LOCK: i64 = 0x0061_6d61_6e61_7464;

/// Shared by all units of work under a lease; `lease_check` of the migrations names it too.
const UNITS: i64 = 7_061_654_493_442_434_917;

/// Proof that no other daemon works on this database.
#[derive(Debug)]
pub struct InstanceLease {
    connection: PgConnection,
    number: LeaseNumber,
}

/// Which lease it is. It grows with every daemon that takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseNumber(pub(super) i64);

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
    /// `holder` says to people who it is.
    pub async fn take(url: &str, holder: &str) -> Result<Self, LeaseError> {
        let options = PgConnectOptions::from_str(url).map_err(LeaseError::Connect)?.application_name("amanatd lease");
        let mut connection = options.connect().await.map_err(LeaseError::Connect)?;
        let taken = sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, LOCK)
            .fetch_one(&mut connection)
            .await
            .map_err(LeaseError::Connect)?;
        if !taken {
            return Err(LeaseError::Held);
        }
        let number = sqlx::query_scalar!(
            "update leases set number = number + 1, holder = $1, taken_at = now() where name = 'daemon' returning number",
            holder
        )
        .fetch_one(&mut connection)
        .await
        .map_err(LeaseError::Connect)?;
        // From here on no unit of the daemon before begins; those that have begun are waited for.
        for statement in ["select pg_advisory_lock($1)", "select pg_advisory_unlock($1)"] {
            sqlx::query(statement).bind(UNITS).execute(&mut connection).await.map_err(LeaseError::Connect)?;
        }
        Ok(Self { connection, number: LeaseNumber(number) })
    }

    pub const fn number(&self) -> LeaseNumber {
        self.number
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
