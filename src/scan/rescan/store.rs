//! SQL of a rescan: what is stored of a span, and the two changes that only a rescan makes.

use std::collections::BTreeMap;

use alloy::primitives::B256;
use sqlx::PgConnection;

use crate::db::codec::{count_from_sql, hash_from_sql};
use crate::db::{DbError, expect_one};
use crate::rpc::Span;
use crate::units::{BlockNumber, ChainId};

/// Holds the cursor until the end of the transaction, so that the line stays as it is meanwhile: a
/// scanner that would move it waits. Gives the first stored height.
pub(super) async fn lock_start(connection: &mut PgConnection, chain: ChainId) -> Result<Option<BlockNumber>, DbError> {
    let start = sqlx::query_scalar!("select start_number from chain_cursors where chain_id = $1::bigint for update", chain.as_i64())
        .fetch_optional(connection)
        .await?;
    Ok(start.map(BlockNumber::from))
}

/// The canonical blocks of a span.
pub(super) async fn list_hashes(connection: &mut PgConnection, chain: ChainId, span: Span) -> Result<BTreeMap<BlockNumber, B256>, DbError> {
    let rows = sqlx::query!(
        r#"
        select number, hash as "hash!: Vec<u8>" from chain_blocks
        where chain_id = $1::bigint and number between $2 and $3 and state = 'canonical'
        "#,
        chain.as_i64(),
        span.from.as_i64(),
        span.to.as_i64()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((BlockNumber::from(row.number), hash_from_sql(&row.hash)?))).collect()
}

/// The parent of the canonical block at a height.
pub(super) async fn find_parent(connection: &mut PgConnection, chain: ChainId, number: BlockNumber) -> Result<Option<B256>, DbError> {
    let hash = sqlx::query_scalar!(
        r#"
        select parent_hash as "parent_hash!: Vec<u8>" from chain_blocks
        where chain_id = $1::bigint and number = $2 and state = 'canonical'
        "#,
        chain.as_i64(),
        number.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    hash.as_deref().map(hash_from_sql).transpose()
}

/// How many transfers are stored as seen in the canonical blocks of a span.
pub(super) async fn count_observations(connection: &mut PgConnection, chain: ChainId, span: Span) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from transfer_observations
        where chain_id = $1::bigint and block_number between $2 and $3 and state = 'canonical'
        "#,
        chain.as_i64(),
        span.from.as_i64(),
        span.to.as_i64()
    )
    .fetch_one(connection)
    .await?;
    count_from_sql("count", count)
}

/// Notes that these canonical blocks were looked inside. What was noted once stays.
pub(super) async fn set_internal_read(connection: &mut PgConnection, chain: ChainId, numbers: &[BlockNumber]) -> Result<(), DbError> {
    let numbers: Vec<i64> = numbers.iter().map(|number| number.as_i64()).collect();
    sqlx::query!(
        r#"
        update chain_blocks set internal_read = true
        where chain_id = $1::bigint and number = any($2::bigint[]) and state = 'canonical' and not internal_read
        "#,
        chain.as_i64(),
        &numbers
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Moves the first block of the line down, to one that is stored.
pub(super) async fn lower_start(connection: &mut PgConnection, chain: ChainId, from: BlockNumber, to: BlockNumber) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        "update chain_cursors set start_number = $3 where chain_id = $1::bigint and start_number = $2 and $3 < start_number",
        chain.as_i64(),
        from.as_i64(),
        to.as_i64()
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "the first block of a chain")
}
