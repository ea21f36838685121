//! SQL of `events`: append and list, nothing else.

use sqlx::PgConnection;

use super::Event;
use crate::db::DbError;

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

/// One event as readers see it.
#[derive(Debug)]
pub struct EventRow {
    pub id: i64,
    pub kind: String,
    pub payment_id: Option<uuid::Uuid>,
    pub intent_id: Option<uuid::Uuid>,
    pub detail: serde_json::Value,
    pub created_at: time::OffsetDateTime,
}

/// Events after `after`, oldest first, at most `limit`.
pub async fn list(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<EventRow>, DbError> {
    let rows = sqlx::query_as!(
        EventRow,
        "select id, kind, payment_id, intent_id, detail, created_at from events where id > $1 order by id limit $2",
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
