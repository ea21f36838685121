//! SQL of `idempotency_keys`.

use sqlx::PgConnection;

use crate::db::DbError;
use crate::units::ApiTokenId;

/// A call that must take effect at most once.
#[derive(Clone, Debug)]
pub(super) struct CallKey {
    pub token: ApiTokenId,
    pub route: String,
    pub key: String,
    pub body_sha256: [u8; 32],
}

/// An answer given before.
#[derive(Debug)]
pub(super) struct StoredAnswer {
    pub body_sha256: Vec<u8>,
    pub status: i16,
    pub response: String,
}

/// Takes the key for this transaction; `false` if another call holds it.
pub(super) async fn claim_key(connection: &mut PgConnection, call: &CallKey) -> Result<bool, DbError> {
    let claimed = sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtextextended($1, 0)) as "claimed!""#,
        format!("{}\n{}\n{}", call.token, call.route, call.key)
    )
    .fetch_one(connection)
    .await?;
    Ok(claimed)
}

pub(super) async fn find_answer(connection: &mut PgConnection, call: &CallKey) -> Result<Option<StoredAnswer>, DbError> {
    let row = sqlx::query_as!(
        StoredAnswer,
        r#"
        select body_sha256 as "body_sha256!: Vec<u8>", status, response from idempotency_keys
        where api_token_id = $1 and route = $2 and key = $3
        "#,
        call.token.0,
        call.route,
        call.key
    )
    .fetch_optional(connection)
    .await?;
    Ok(row)
}

pub(super) async fn insert_answer(connection: &mut PgConnection, call: &CallKey, status: u16, response: &str) -> Result<(), DbError> {
    sqlx::query!(
        "insert into idempotency_keys (api_token_id, route, key, body_sha256, status, response) values ($1, $2, $3, $4::bytea, $5, $6)",
        call.token.0,
        call.route,
        call.key,
        call.body_sha256.as_slice(),
        status.cast_signed(),
        response
    )
    .execute(connection)
    .await?;
    Ok(())
}
