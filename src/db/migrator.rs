//! Applies the migrations, as the owner, and only when told to.

use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Executor};

/// Every migration this binary knows, with its text and checksum.
pub(super) static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    #[error("this role may not become amanat_owner; connect as amanat_migrator (migrations/bootstrap.sql makes the roles)")]
    Role(#[source] sqlx::Error),
    #[error("a migration failed; nothing of it was kept")]
    Apply(#[from] sqlx::migrate::MigrateError),
}

/// Whether this role could migrate. Changes nothing.
pub async fn may_migrate(url: &str) -> Result<(), MigrateError> {
    let options = PgConnectOptions::from_str(url).map_err(MigrateError::Connect)?.application_name("amanatd doctor");
    let mut connection = options.connect().await.map_err(MigrateError::Connect)?;
    connection.execute("set role amanat_owner").await.map_err(MigrateError::Role)?;
    Ok(())
}

/// Brings the database to this binary's schema. Returns how many migrations the schema has.
pub async fn migrate(url: &str) -> Result<usize, MigrateError> {
    let mut connection = PgConnectOptions::from_str(url)
        .map_err(MigrateError::Connect)?
        .application_name("amanatd migrate")
        .connect()
        .await
        .map_err(MigrateError::Connect)?;
    connection.execute("set role amanat_owner").await.map_err(MigrateError::Role)?;
    MIGRATOR.run(&mut connection).await?;
    // The daemon compares what was applied with what it carries.
    connection.execute("grant select on _sqlx_migrations to amanat_app, amanat_readonly").await.map_err(MigrateError::Role)?;
    Ok(MIGRATOR.iter().count())
}
