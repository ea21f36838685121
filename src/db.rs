//! The database: a guarded pool, units of work, migrations, the start-up self-test, and the leases
//! that divide the work between daemons.
//!
//! The only room that begins and commits. Rooms above hand in the work; their stores hold the SQL.
//! Absent on purpose: a repository trait. The database is Postgres, also in tests.

pub mod codec;
pub mod continuity;
mod lease;
mod migrator;
mod pool;
mod selftest;

pub use lease::{Holder, Lease, LeaseError, LeaseName, LeaseRow, Leases, Standing, list_leases};
pub use migrator::{MigrateError, may_migrate, migrate};
pub use pool::{Database, DatabaseLimits, Work, place_of};
pub use selftest::{SelfTestError, self_test};

use crate::units::Disposition;

/// Log directives of this room: releasing a connection rolls back, and the server warns each time that
/// there was nothing to roll back.
pub const LOG_CAP: &str = "sqlx::postgres::notice=error";

/// What can go wrong between us and Postgres.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    #[error("the database refused a statement")]
    Query(#[from] sqlx::Error),
    #[error("the outcome of a commit is unknown; it will be looked up by its key")]
    CommitUnknown(#[source] sqlx::Error),
    #[error("column {column} holds {found}, which is not {wanted}")]
    Corrupt { column: &'static str, found: String, wanted: &'static str },
    #[error("another daemon has taken over: {0}")]
    Fenced(String),
    #[error("{what}: {found} rows where exactly one was expected; another process moved it first")]
    NotOneRow { what: &'static str, found: u64 },
}

impl DbError {
    /// Name of the violated constraint, if that is what the statement failed on.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Query(sqlx::Error::Database(error)) => error.constraint(),
            Self::Query(_)
            | Self::Connect(_)
            | Self::CommitUnknown(_)
            | Self::Corrupt { .. }
            | Self::Fenced(_)
            | Self::NotOneRow { .. } => None,
        }
    }

    pub fn disposition(&self) -> Disposition {
        match self {
            // What the data itself forbids stays forbidden; a key that is taken may be a race.
            Self::Query(sqlx::Error::Database(error))
                if !error.is_unique_violation() && error.code().is_some_and(|code| is_about_data(&code)) =>
            {
                Disposition::Officer
            }
            Self::Connect(_) | Self::Query(_) | Self::CommitUnknown(_) | Self::NotOneRow { .. } => Disposition::Retry,
            Self::Corrupt { .. } | Self::Fenced(_) => Disposition::Stop,
        }
    }
}

/// SQLSTATE classes 22 (data exception) and 23 (integrity constraint violation).
fn is_about_data(code: &str) -> bool {
    code.starts_with("22") || code.starts_with("23")
}

/// A conditional update moved exactly one row, or somebody else was first.
pub fn expect_one(rows: u64, what: &'static str) -> Result<(), DbError> {
    if rows == 1 { Ok(()) } else { Err(DbError::NotOneRow { what, found: rows }) }
}
