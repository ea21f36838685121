//! SQL of `chain_blocks`, `chain_cursors`, `transfers` and `transfer_observations`.

use alloy::primitives::B256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::tip::Link;
use super::transfer::Transfer;
use crate::db::codec::{chain_from_sql, count_from_sql, hash_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::units::{BlockNumber, BlockRef, ChainId};

/// How far a chain has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The first block that was ever read.
    pub start: BlockNumber,
    /// The last block that was read: everything from `start` to here is stored.
    pub tip: BlockRef,
    /// The highest block that the node has called final; `None` until it has named one.
    pub final_block: Option<BlockRef>,
    /// Why nothing may leave on this chain, if so.
    pub outflow_halted: Option<String>,
}

/// A block as it is stored, with its time.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock {
    pub link: Link,
    pub time: OffsetDateTime,
    /// The inside of its transactions was read too, so that the native coin of contracts was seen.
    pub internal_read: bool,
}

/// How much a reorg took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphaned {
    pub blocks: u64,
    pub observations: u64,
}

/// The time of the newest block that is stored.
pub async fn find_tip_time(connection: &mut PgConnection, chain: ChainId) -> Result<Option<OffsetDateTime>, DbError> {
    let found = sqlx::query_scalar!(
        "select block_time from chain_blocks where chain_id = $1::bigint and state = 'canonical' order by number desc limit 1",
        chain.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    Ok(found)
}

/// The cursor; `None` before the first round.
pub async fn find_cursor(connection: &mut PgConnection, chain: ChainId) -> Result<Option<Cursor>, DbError> {
    let row = sqlx::query!(
        r#"
        select start_number, number, hash as "hash!: Vec<u8>", final_number, final_hash as "final_hash?: Vec<u8>", outflow_halted_reason
        from chain_cursors where chain_id = $1::bigint
        "#,
        chain.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let final_block = match (row.final_number, row.final_hash) {
            (Some(number), Some(hash)) => Some(BlockRef { number: BlockNumber::from(number), hash: hash_from_sql(&hash)? }),
            _ => None,
        };
        Ok(Cursor {
            start: BlockNumber::from(row.start_number),
            tip: BlockRef { number: BlockNumber::from(row.number), hash: hash_from_sql(&row.hash)? },
            final_block,
            outflow_halted: row.outflow_halted_reason,
        })
    })
    .transpose()
}

/// Sets the first cursor of a chain, on a block that is stored.
pub async fn insert_cursor(connection: &mut PgConnection, chain: ChainId, tip: BlockRef) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        "insert into chain_cursors (chain_id, start_number, number, hash) values ($1::bigint, $2, $2, $3::bytea)",
        chain.as_i64(),
        tip.number.as_i64(),
        tip.hash.as_slice()
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "the first cursor of a chain")
}

/// Moves the cursor, if it still stands where this round began.
pub async fn advance_cursor(
    connection: &mut PgConnection,
    chain: ChainId,
    from: BlockRef,
    to: BlockRef,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        r#"
        update chain_cursors set number = $4, hash = $5::bytea, updated_at = $6
        where chain_id = $1::bigint and number = $2 and hash = $3::bytea
        "#,
        chain.as_i64(),
        from.number.as_i64(),
        from.hash.as_slice(),
        to.number.as_i64(),
        to.hash.as_slice(),
        now
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "the cursor of a chain")
}

/// Notes the block that the node calls final. Only a higher one is taken: what was final once stays final,
/// and a node whose tag goes back is at fault. Returns whether it was taken.
pub async fn set_final(connection: &mut PgConnection, chain: ChainId, block: BlockRef) -> Result<bool, DbError> {
    let outcome = sqlx::query!(
        r#"
        update chain_cursors set final_number = $2, final_hash = $3::bytea
        where chain_id = $1::bigint and (final_number is null or final_number < $2)
        "#,
        chain.as_i64(),
        block.number.as_i64(),
        block.hash.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// The canonical blocks from a height on, ascending. The tip bounds the answer.
pub async fn list_canonical(connection: &mut PgConnection, chain: ChainId, from: BlockNumber) -> Result<Vec<BlockRef>, DbError> {
    let rows = sqlx::query!(
        r#"
        select number, hash as "hash!: Vec<u8>"
        from chain_blocks where chain_id = $1::bigint and number >= $2 and state = 'canonical' order by number
        "#,
        chain.as_i64(),
        from.as_i64()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok(BlockRef { number: BlockNumber::from(row.number), hash: hash_from_sql(&row.hash)? })).collect()
}

/// The canonical block at a height; `None` for a height that is not stored.
pub async fn find_canonical(connection: &mut PgConnection, chain: ChainId, number: BlockNumber) -> Result<Option<B256>, DbError> {
    let hash = sqlx::query_scalar!(
        r#"select hash as "hash!: Vec<u8>" from chain_blocks where chain_id = $1::bigint and number = $2 and state = 'canonical'"#,
        chain.as_i64(),
        number.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    hash.as_deref().map(hash_from_sql).transpose()
}

/// The number of the last block stored and the time in its header, for every chain that was ever read.
pub async fn list_tips(connection: &mut PgConnection) -> Result<Vec<(ChainId, BlockNumber, OffsetDateTime)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select c.chain_id as "chain_id!: i64", c.number, b.block_time
        from chain_cursors c join chain_blocks b on b.chain_id = c.chain_id and b.number = c.number and b.hash = c.hash
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((chain_from_sql(row.chain_id)?, BlockNumber::from(row.number), row.block_time))).collect()
}

/// How many of the newest 10,000 canonical blocks were not looked inside.
pub async fn count_internal_unread(connection: &mut PgConnection, chain: ChainId) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from chain_blocks b
        where b.chain_id = $1::bigint and b.state = 'canonical' and not b.internal_read
          and b.number > (select c.number - 10000 from chain_cursors c where c.chain_id = $1::bigint)
        "#,
        chain.as_i64()
    )
    .fetch_one(connection)
    .await?;
    count_from_sql("count", count)
}

/// Marks blocks and observations from a height on as orphaned. Nothing is deleted.
pub async fn orphan_from(
    connection: &mut PgConnection,
    chain: ChainId,
    number: BlockNumber,
    now: OffsetDateTime,
) -> Result<Orphaned, DbError> {
    let observations = sqlx::query!(
        r#"
        update transfer_observations set state = 'orphaned', orphaned_at = $3
        where chain_id = $1::bigint and block_number >= $2 and state = 'canonical'
        "#,
        chain.as_i64(),
        number.as_i64(),
        now
    )
    .execute(&mut *connection)
    .await?;
    let blocks = sqlx::query!(
        r#"
        update chain_blocks set state = 'orphaned', orphaned_at = $3
        where chain_id = $1::bigint and number >= $2 and state = 'canonical'
        "#,
        chain.as_i64(),
        number.as_i64(),
        now
    )
    .execute(connection)
    .await?;
    Ok(Orphaned { blocks: blocks.rows_affected(), observations: observations.rows_affected() })
}

/// Stores blocks as canonical. A block that was orphaned becomes canonical again in the same row, with
/// the threshold of the time when it was first seen.
pub async fn insert_blocks(
    connection: &mut PgConnection,
    chain: ChainId,
    blocks: &[NewBlock],
    threshold_history_id: i64,
) -> Result<(), DbError> {
    let numbers: Vec<i64> = blocks.iter().map(|block| block.link.block.number.as_i64()).collect();
    let hashes = as_bytes(blocks.iter().map(|block| block.link.block.hash));
    let parents = as_bytes(blocks.iter().map(|block| block.link.parent_hash));
    let times: Vec<OffsetDateTime> = blocks.iter().map(|block| block.time).collect();
    let internal_read: Vec<bool> = blocks.iter().map(|block| block.internal_read).collect();
    let outcome = sqlx::query!(
        r#"
        insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, internal_read, threshold_history_id)
        select $1::bigint, b.number, b.hash, b.parent_hash, b.block_time, b.internal_read, $7
        from unnest($2::bigint[], $3::bytea[], $4::bytea[], $5::timestamptz[], $6::boolean[])
            as b (number, hash, parent_hash, block_time, internal_read)
        on conflict on constraint chain_blocks_pkey do update
            set state = 'canonical', orphaned_at = null, internal_read = chain_blocks.internal_read or excluded.internal_read
        where chain_blocks.parent_hash = excluded.parent_hash and chain_blocks.block_time = excluded.block_time
        "#,
        chain.as_i64(),
        &numbers,
        &hashes,
        &parents,
        &times,
        &internal_read,
        threshold_history_id
    )
    .execute(connection)
    .await?;
    expect_all(outcome.rows_affected(), blocks.len(), "blocks of a round")
}

/// Stores what blocks of this round showed. The same sighting again makes its row canonical again and
/// must say the same. A recipient that is no derived address is an error: the round is given up.
pub async fn insert_observations(connection: &mut PgConnection, chain: ChainId, seen: &[(BlockRef, Transfer)]) -> Result<(), DbError> {
    if seen.is_empty() {
        return Ok(());
    }
    let tx_hashes = as_bytes(seen.iter().map(|(_, transfer)| transfer.tx_hash));
    let positions: Vec<String> = seen.iter().map(|(_, transfer)| transfer.position.to_string()).collect();
    sqlx::query!(
        r#"
        insert into transfers (chain_id, tx_hash, position)
        select $1::bigint, t.tx_hash, t.position from unnest($2::bytea[], $3::text[]) as t (tx_hash, position)
        on conflict on constraint transfers_economic_key do nothing
        "#,
        chain.as_i64(),
        &tx_hashes,
        &positions
    )
    .execute(&mut *connection)
    .await?;

    let numbers: Vec<i64> = seen.iter().map(|(block, _)| block.number.as_i64()).collect();
    let hashes = as_bytes(seen.iter().map(|(block, _)| block.hash));
    let assets: Vec<Vec<u8>> = seen.iter().map(|(_, transfer)| transfer.asset.marker().to_vec()).collect();
    let senders: Vec<Vec<u8>> = seen.iter().map(|(_, transfer)| transfer.sender.to_vec()).collect();
    let recipients: Vec<Vec<u8>> = seen.iter().map(|(_, transfer)| transfer.recipient.to_vec()).collect();
    let amounts: Vec<String> = seen.iter().map(|(_, transfer)| units_to_sql(transfer.amount)).collect();
    let internals: Vec<bool> = seen.iter().map(|(_, transfer)| transfer.internal).collect();
    let outcome = sqlx::query_file!(
        "src/scan/insert_observations.sql",
        chain.as_i64(),
        &tx_hashes,
        &positions,
        &numbers,
        &hashes,
        &assets,
        &senders,
        &recipients,
        &amounts,
        &internals
    )
    .execute(connection)
    .await?;
    expect_all(outcome.rows_affected(), seen.len(), "observations of a round")
}

/// Stops everything that would leave on this chain. The first reason stays until an officer lifts it.
/// Returns whether outflow was running.
pub async fn halt_outflow(connection: &mut PgConnection, chain: ChainId, reason: &str, now: OffsetDateTime) -> Result<bool, DbError> {
    let outcome = sqlx::query!(
        r#"
        update chain_cursors set outflow_halted_at = $2, outflow_halted_reason = $3
        where chain_id = $1::bigint and outflow_halted_at is null
        "#,
        chain.as_i64(),
        now,
        reason
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Lets money leave again. An officer's act.
pub async fn resume_outflow(connection: &mut PgConnection, chain: ChainId) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        r#"
        update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null
        where chain_id = $1::bigint and outflow_halted_at is not null
        "#,
        chain.as_i64()
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "a halted chain")
}

fn as_bytes(hashes: impl Iterator<Item = B256>) -> Vec<Vec<u8>> {
    hashes.map(|hash| hash.to_vec()).collect()
}

fn expect_all(rows: u64, wanted: usize, what: &'static str) -> Result<(), DbError> {
    let wanted = count_from_sql("rows", i64::try_from(wanted).unwrap_or(i64::MAX))?;
    if rows == wanted { Ok(()) } else { Err(DbError::NotOneRow { what, found: rows }) }
}
