//! SQL of what the nonce watch reads.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use sqlx::PgConnection;

use super::Taken;
use crate::db::DbError;
use crate::db::codec::{address_from_sql, count_from_sql};
use crate::units::ChainId;

/// How many nonces of an address are read, newest first.
const NONCES_MAX: i64 = 1_000;

/// Addresses that have something under way on a chain.
pub async fn list_senders(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Address>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select distinct from_address as "from_address!: Vec<u8>" from intents
        where chain_id = $1::bigint and state not in ('settled', 'void', 'reverted', 'replaced') order by 1 limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|address| address_from_sql(address)).collect()
}

/// The newest nonces of an address, and whether anything is signed for each. A hole counts only when something
/// above it has been signed for so many minutes; what is younger reads as unsigned where it would make one.
pub async fn list_taken(connection: &mut PgConnection, chain: ChainId, from: Address) -> Result<BTreeMap<u64, Taken>, DbError> {
    let rows = sqlx::query!(
        r#"
        select i.nonce,
               exists (
                   select from outbound_transactions t
                   where (t.chain_id, t.from_address, t.nonce) = (i.chain_id, i.from_address, i.nonce)
               ) as "signed!"
        from intents i
        where i.chain_id = $1::bigint and i.from_address = $2::bytea and i.state <> 'void'
        order by i.nonce desc limit $3
        "#,
        chain.as_i64(),
        from.as_slice(),
        NONCES_MAX
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| Ok((count_from_sql("intents.nonce", row.nonce)?, if row.signed { Taken::Signed } else { Taken::Unsigned })))
        .collect()
}

/// Whether anything above a nonce was signed so many minutes ago and is in no block: what waits for the hole.
pub async fn waits_above(connection: &mut PgConnection, chain: ChainId, from: Address, nonce: u64, minutes: u32) -> Result<bool, DbError> {
    let waits = sqlx::query_scalar!(
        r#"
        select exists (
            select from outbound_transactions
            where chain_id = $1::bigint and from_address = $2::bytea and nonce > $3 and settled_at is null and block_number is null
              and signed_at < now() - make_interval(mins => $4)
        ) as "waits!"
        "#,
        chain.as_i64(),
        from.as_slice(),
        nonce.cast_signed(),
        minutes.cast_signed()
    )
    .fetch_one(connection)
    .await?;
    Ok(waits)
}
