//! Databases with the schema in them, one for each test: migrated once, then copied.

use std::thread;

use super::postgres::{self, MIGRATOR, PostgresError, PrivatePostgres};
use crate::db::{self, MigrateError};

/// The roles and rights that a superuser sets up before the first migration.
pub const BOOTSTRAP: &str = include_str!("../../migrations/bootstrap.sql");

/// A binary knows one set of migrations and a shared cluster dies with its binary, so one name is
/// enough.
const TEMPLATE: &str = "tmpl_amanat";

/// Why a database could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The cluster.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A migration.
    #[error("migrate a new database")]
    Migrate(#[from] MigrateError),
    /// The thread that ran the migrations.
    #[error("run the migrations: {0}")]
    Runtime(String),
}

/// A database of one's own, in the cluster that the test binary shares.
#[derive(Debug)]
pub struct FreshDatabase {
    /// Its name.
    pub name: String,
    cluster: &'static PrivatePostgres,
}

impl FreshDatabase {
    /// Copies the migrated template. Blocks: 20 ms, and the first time in a process 2 s.
    pub fn create() -> Result<Self, SchemaError> {
        let cluster = postgres::shared()?;
        cluster.template(TEMPLATE, |draft| install(cluster, draft))?;
        Ok(Self { name: cluster.fresh_database(TEMPLATE)?, cluster })
    }

    /// Its address for a role: [`postgres::APP`], [`postgres::MIGRATOR`], [`postgres::SUPERUSER`].
    pub fn url(&self, role: &str) -> String {
        self.cluster.url(role, &self.name)
    }

    /// Runs statements as the superuser, who may do what no role of ours may.
    pub fn sql(&self, statements: &str) -> Result<String, PostgresError> {
        self.cluster.sql(&self.name, statements)
    }
}

impl Drop for FreshDatabase {
    fn drop(&mut self) {
        // Whoever is still connected is thrown out; if it fails, the cluster is temporary anyway.
        let _ = self.cluster.drop_database(&self.name);
    }
}

/// Brings an empty or older database to this binary's schema: the roles as the superuser, the
/// migrations as the migrator, as on a real host.
pub fn install(cluster: &PrivatePostgres, database: &str) -> Result<(), SchemaError> {
    cluster.sql(database, BOOTSTRAP)?;
    let url = cluster.url(MIGRATOR, database);
    // A runtime of its own: the caller may be inside one, and a test's runtime has one thread.
    let migrated = thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .map_err(|error| SchemaError::Runtime(error.to_string()))?
                    .block_on(db::migrate(&url))
                    .map_err(SchemaError::from)
            })
            .join()
    });
    migrated.map_err(|_| SchemaError::Runtime("it panicked".into()))?.map(drop)
}
