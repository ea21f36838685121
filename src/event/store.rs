//! SQL of `events`: append and list, nothing else.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::Address;
use sqlx::PgConnection;

use super::Event;
use crate::db::DbError;
use crate::units::ChainId;

pub async fn append(connection: &mut PgConnection, event: &Event) -> Result<(), DbError> {
    sqlx::query!(
        "insert into events (kind, payment_id, intent_id, chain_id, detail) values ($1, $2, $3, $4::bigint, $5)",
        event.kind,
        event.payment.map(|payment| payment.0),
        event.intent.map(|intent| intent.0),
        event.chain.map(|chain| chain.as_i64()),
        event.detail
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A place in the feed: the transaction that wrote an event, and the event. Ids alone are drawn before their
/// transactions commit, so whoever reads by them would pass what commits late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    written_by: u64,
    id: i64,
}

impl Position {
    pub const START: Self = Self { written_by: 0, id: 0 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.written_by, self.id)
    }
}

impl FromStr for Position {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (written_by, id) = text.split_once('-').ok_or(())?;
        let id: i64 = id.parse().map_err(drop)?;
        if id < 0 {
            return Err(());
        }
        Ok(Self { written_by: written_by.parse().map_err(drop)?, id })
    }
}

/// One event as readers see it.
#[derive(Debug)]
pub struct EventRow {
    pub position: Position,
    pub id: i64,
    pub kind: String,
    pub payment_id: Option<uuid::Uuid>,
    pub intent_id: Option<uuid::Uuid>,
    pub chain_id: Option<i64>,
    pub detail: serde_json::Value,
    pub created_at: time::OffsetDateTime,
}

/// Events after a place of the feed, at most `limit`; none of a transaction that is younger than one that
/// still runs.
pub async fn list(connection: &mut PgConnection, after: Position, limit: i64) -> Result<Vec<EventRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, written_by::text as "written_by!", kind, payment_id, intent_id, chain_id as "chain_id: i64", detail, created_at
        from events
        where (written_by, id) > ($1::text::xid8, $2) and written_by < pg_snapshot_xmin(pg_current_snapshot())
        order by written_by, id limit $3
        "#,
        after.written_by.to_string(),
        after.id,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let written_by = row.written_by.parse().map_err(|_| DbError::Corrupt {
                column: "events.written_by",
                found: row.written_by.clone(),
                wanted: "a transaction id",
            })?;
            Ok(EventRow {
                position: Position { written_by, id: row.id },
                id: row.id,
                kind: row.kind,
                payment_id: row.payment_id,
                intent_id: row.intent_id,
                chain_id: row.chain_id,
                detail: row.detail,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Whether a foreign use of a nonce was told before.
pub async fn has_foreign_nonce(connection: &mut PgConnection, chain: ChainId, address: Address, nonce: u64) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"select exists (
               select from events
               where kind = 'chain.foreign_nonce' and chain_id = $1::bigint and detail ->> 'address' = $2 and detail ->> 'nonce' = $3
           ) as "found!""#,
        chain.as_i64(),
        address.to_string(),
        nonce.to_string()
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// The end of the feed: behind every event that [`list`] can give now, before every one that it will give later.
pub async fn get_end(connection: &mut PgConnection) -> Result<Position, DbError> {
    let written_by = sqlx::query_scalar!(r#"select (pg_snapshot_xmin(pg_current_snapshot())::text::numeric - 1)::text as "written_by!""#)
        .fetch_one(connection)
        .await?;
    let corrupt = DbError::Corrupt { column: "pg_snapshot_xmin", found: written_by.clone(), wanted: "a transaction id" };
    Ok(Position { written_by: written_by.parse().map_err(|_| corrupt)?, id: i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_of_the_feed_reads_back_and_nothing_else_does() {
        let place = Position { written_by: u64::MAX, id: 7 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "7", "7-", "-7", "7--1", "x-1", "1-x", "99999999999999999999999-1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad:?}");
        }
    }
}
