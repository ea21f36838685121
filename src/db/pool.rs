//! The pool, and the one place that begins and commits.
//!
//! sqlx up to 0.9.0 can lose later writes when the future of a `BEGIN` is dropped: the connection goes
//! back to the pool inside an open transaction. Three guards: every release rolls back, the server
//! ends idle transactions, and a unit of work runs in a task of its own so that no caller can cancel it.

use std::future::Future;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, PgPool, Postgres};
use time::OffsetDateTime;
use tracing::Instrument;

use super::DbError;
use super::lease::Lease;

/// What `lease_verify` of the migrations raises.
const FENCED: &str = "AM001";

/// The future of a unit of work, borrowing the transaction's connection.
pub type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// Bounds of the pool.
#[derive(Clone, Copy, Debug)]
pub struct DatabaseLimits {
    pub connections_max: u32,
    pub acquire_timeout: Duration,
}

impl Default for DatabaseLimits {
    fn default() -> Self {
        Self { connections_max: 16, acquire_timeout: Duration::from_secs(5) }
    }
}

/// A handle on the database; clones share the pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    lease: Option<Lease>,
}

impl Database {
    /// Opens the pool and proves that the server answers.
    pub async fn connect(url: &str, limits: DatabaseLimits) -> Result<Self, DbError> {
        let options = PgConnectOptions::from_str(url).map_err(DbError::Connect)?;
        // The pool would try for as long as a caller may wait, and then not say why.
        let first = tokio::time::timeout(limits.acquire_timeout, options.connect()).await;
        first
            .map_err(|_| DbError::Connect(sqlx::Error::PoolTimedOut))?
            .map_err(DbError::Connect)?
            .close()
            .await
            .map_err(DbError::Connect)?;
        // The limits are on the server so that they hold whatever happens to the client.
        let options = options
            .application_name("amanatd")
            .options([("idle_in_transaction_session_timeout", "15s"), ("statement_timeout", "30s"), ("lock_timeout", "10s")])
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::from_secs(1))
            .log_statements(tracing::log::LevelFilter::Off);
        let pool = PgPoolOptions::new()
            .max_connections(limits.connections_max)
            .acquire_timeout(limits.acquire_timeout)
            .after_release(|connection, _| {
                Box::pin(async move {
                    connection.execute("rollback").await?;
                    Ok(true)
                })
            })
            .connect_with(options)
            .await
            .map_err(DbError::Connect)?;
        Ok(Self { pool, lease: None })
    }

    /// The same database, to be written to only as long as the lease is the last one given.
    #[must_use]
    pub fn under(&self, lease: Lease) -> Self {
        Self { pool: self.pool.clone(), lease: Some(lease) }
    }

    /// A connection for reading. Nothing is begun on it.
    pub async fn connection(&self) -> Result<PoolConnection<Postgres>, DbError> {
        self.pool.acquire().await.map_err(DbError::Connect)
    }

    /// Runs `work` in one transaction and commits it if it succeeds.
    ///
    /// The work goes on when the caller goes away: it either commits whole or never began. A lost answer
    /// to the commit is [`DbError::CommitUnknown`]; whoever repeats the work finds it by its key.
    pub async fn unit<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> FnOnce(&'c mut PgConnection) -> Work<'c, T, E> + Send + 'static,
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
    {
        let (pool, lease) = (self.pool.clone(), self.lease);
        let unit = async move {
            let mut transaction = pool.begin().await.map_err(DbError::Connect)?;
            if let Some(lease) = lease {
                check_lease(&mut transaction, lease).await?;
            }
            match work(&mut transaction).await {
                Ok(value) => match transaction.commit().await {
                    Ok(()) => Ok(value),
                    Err(error @ sqlx::Error::Database(_)) => Err(E::from(DbError::Query(error))),
                    Err(error) => Err(E::from(DbError::CommitUnknown(error))),
                },
                Err(error) => {
                    // The server rolls back when the connection ends, so a failure here loses nothing.
                    let _ = transaction.rollback().await;
                    Err(error)
                }
            }
        };
        // What the work logs belongs to what asked for it, a request for example.
        let task = tokio::spawn(unit.in_current_span());
        match task.await {
            Ok(outcome) => outcome,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => Err(E::from(DbError::Connect(sqlx::Error::PoolClosed))),
        }
    }

    /// What time it is by the database's clock: the cheapest question there is.
    pub async fn clock(&self) -> Result<OffsetDateTime, DbError> {
        let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&mut *self.connection().await?).await?;
        Ok(now)
    }

    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Holds off whoever takes over until the transaction ends; fails when somebody has.
async fn check_lease(transaction: &mut PgConnection, lease: Lease) -> Result<(), DbError> {
    match sqlx::query!("select lease_verify($1, $2)", lease.name.to_string(), lease.number).execute(transaction).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(FENCED) => Err(DbError::Fenced(error.message().to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// Where a database is and who asks, for messages; never the password.
pub fn place_of(url: &str) -> String {
    let Ok(options) = PgConnectOptions::from_str(url) else { return "(its url cannot be read)".to_owned() };
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{database} at {} as {}", socket.display(), options.get_username()),
        None => format!("{database} at {}:{} as {}", options.get_host(), options.get_port(), options.get_username()),
    }
}
