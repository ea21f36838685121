//! Whether this is still the database it was: which server, which timeline, how far its log has come, and what of it
//! an officer has not reconciled yet.
//!
//! A failover raises the timeline, and a restore to an earlier point does too. A copy of an old data directory keeps
//! it, and its log is shorter than what was seen before. `daemon` keeps what was seen in a file beside the database.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{DbError, expect_one};
use crate::units::ChainId;

/// `insufficient_privilege`: a managed server may keep its identity to itself.
const FORBIDDEN: &str = "42501";

/// Which database this is, and how far its log is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The system identifier, made with the cluster; unknown where the server does not tell.
    pub system: Option<String>,
    /// Grows with each promotion and each restore to a point in time.
    pub timeline: u32,
    /// Bytes of log that are on the disk.
    pub flushed: u64,
}

/// A loss that was found, with what it takes to be done with it.
#[derive(Clone, Debug)]
pub struct Loss {
    pub id: i64,
    pub found_at: OffsetDateTime,
    pub found_by: String,
    pub cause: String,
    pub detail: String,
    /// Each chain must be read up to this block again.
    pub read_again: BTreeMap<ChainId, u64>,
}

/// A loss to be noted.
#[derive(Clone, Debug)]
pub struct NewLoss {
    pub found_at: OffsetDateTime,
    pub found_by: String,
    /// failover, `set_back` or `other_system`.
    pub cause: &'static str,
    pub detail: String,
    pub read_again: BTreeMap<ChainId, u64>,
}

/// Fails on a replica, which has no log of its own.
pub async fn get_identity(connection: &mut PgConnection) -> Result<Identity, DbError> {
    let log = sqlx::query!(
        r#"
        select ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint as "timeline!",
            (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint as "flushed!"
        "#
    )
    .fetch_one(&mut *connection)
    .await?;
    let system = sqlx::query_scalar!(r#"select system_identifier::text as "system!" from pg_control_system()"#).fetch_one(connection).await;
    let system = match system {
        Ok(system) => Some(system),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(FORBIDDEN) => None,
        Err(error) => return Err(error.into()),
    };
    Ok(Identity { system, timeline: u32::try_from(log.timeline).unwrap_or(u32::MAX), flushed: log.flushed.cast_unsigned() })
}

/// The number and token that an installation wrote last.
pub async fn find_mark(connection: &mut PgConnection, installation: Uuid) -> Result<Option<(i64, Uuid)>, DbError> {
    let row =
        sqlx::query!("select number, token from high_water_marks where installation = $1", installation).fetch_optional(connection).await?;
    Ok(row.map(|row| (row.number, row.token)))
}

/// Writes the next number, with a token that nobody else knows. Gives the number back.
pub async fn put_mark(connection: &mut PgConnection, installation: Uuid, token: Uuid, now: OffsetDateTime) -> Result<i64, DbError> {
    let number = sqlx::query_scalar!(
        "insert into high_water_marks (installation, number, token, written_at) values ($1, 1, $2, $3)
         on conflict on constraint high_water_marks_pkey
         do update set number = high_water_marks.number + 1, token = excluded.token, written_at = excluded.written_at
         returning number",
        installation,
        token,
        now
    )
    .fetch_one(connection)
    .await?;
    Ok(number)
}

/// Notes a loss, unless the same is open already. Whether it was noted.
pub async fn insert_loss(connection: &mut PgConnection, loss: &NewLoss) -> Result<bool, DbError> {
    let read_again: BTreeMap<String, u64> = loss.read_again.iter().map(|(chain, block)| (chain.to_string(), *block)).collect();
    let outcome = sqlx::query!(
        "insert into database_losses (found_at, found_by, cause, detail, read_again)
         select $1, $2, $3::text, $4::text, $5
         where not exists (select from database_losses where cause = $3 and detail = $4 and reconciled_at is null)",
        loss.found_at,
        loss.found_by,
        loss.cause,
        loss.detail,
        Json(read_again) as _
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Losses that nobody has reconciled, oldest first: while there is one, nothing leaves.
pub async fn list_open_losses(connection: &mut PgConnection) -> Result<Vec<Loss>, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, found_at, found_by, cause, detail, read_again as "read_again: Json<BTreeMap<String, u64>>"
        from database_losses where reconciled_at is null order by id
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let mut read_again = BTreeMap::new();
            for (chain, block) in row.read_again.0 {
                let parsed = chain.parse();
                let chain: ChainId =
                    parsed.map_err(|_| DbError::Corrupt { column: "database_losses.read_again", found: chain, wanted: "a chain id" })?;
                read_again.insert(chain, block);
            }
            Ok(Loss { id: row.id, found_at: row.found_at, found_by: row.found_by, cause: row.cause, detail: row.detail, read_again })
        })
        .collect()
}

/// An officer's act: the loss is dealt with, for good.
pub async fn reconcile_loss(connection: &mut PgConnection, id: i64, by: &str, reason: &str, now: OffsetDateTime) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        "update database_losses set reconciled_at = $2, reconciled_by = $3, reconciled_reason = $4 where id = $1 and reconciled_at is null",
        id,
        now,
        by,
        reason
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "an open loss of the database")
}
