//! SQL of `transfer_verdicts`, and the reading side of what the scanner stored.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::verdict::Case;
use crate::db::codec::{address_from_sql, chain_from_sql, hash_from_sql, units_from_sql};
use crate::db::{DbError, expect_one};
use crate::scan::{self, Position};
use crate::settings;
use crate::units::{Asset, AssetId, BlockNumber, BlockRef, ChainId, Confirmations, Depth, PaymentId, TokenAmount, TransferId};

/// A sighting that may be deep enough: canonical, from outside, without a live verdict.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub observation: i64,
    pub transfer: TransferId,
    pub tx_hash: B256,
    pub block: BlockRef,
    /// The history row in force when the block was first stored.
    pub seen_history_id: i64,
}

/// A verdict with everything it rests on.
#[derive(Clone, Copy, Debug)]
pub struct NewVerdict {
    pub due: Due,
    pub depth: Depth,
    pub threshold: Confirmations,
    pub seen_history_id: i64,
    pub now_history_id: i64,
}

/// A live verdict whose sighting is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenVerdict {
    pub verdict: i64,
    pub transfer: TransferId,
    pub observation: i64,
    pub block: BlockRef,
}

/// Where a list goes on: after this observation, at most so many.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub after: i64,
    pub limit: i64,
}

/// Sightings at or below `highest`, in the order of their observation.
pub async fn list_due(connection: &mut PgConnection, chain: ChainId, highest: BlockNumber, page: Page) -> Result<Vec<Due>, DbError> {
    let rows = sqlx::query!(
        r#"
        select o.id, o.transfer_id, o.block_number, o.block_hash as "block_hash!: Vec<u8>", t.tx_hash as "tx_hash!: Vec<u8>",
               b.threshold_history_id
        from transfer_observations o
        join transfers t on t.id = o.transfer_id
        join chain_blocks b on b.chain_id = o.chain_id and b.number = o.block_number and b.hash = o.block_hash
        where o.chain_id = $1::bigint and o.block_number <= $2 and o.state = 'canonical' and not o.internal and o.id > $3
          and not exists (select from transfer_verdicts v where v.transfer_id = o.transfer_id and v.revoked_at is null)
        order by o.id limit $4
        "#,
        chain.as_i64(),
        highest.as_i64(),
        page.after,
        page.limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Due {
                observation: row.id,
                transfer: TransferId(row.transfer_id),
                tx_hash: hash_from_sql(&row.tx_hash)?,
                block: BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? },
                seen_history_id: row.threshold_history_id,
            })
        })
        .collect()
}

/// Stores verdicts reached under one head. One whose sighting or head was orphaned since, or whose
/// transfer has a live verdict by now, is left out. Returns how many were stored.
pub async fn insert_verdicts(
    connection: &mut PgConnection,
    chain: ChainId,
    head: BlockRef,
    verdicts: &[NewVerdict],
) -> Result<u64, DbError> {
    let observations: Vec<i64> = verdicts.iter().map(|verdict| verdict.due.observation).collect();
    let depths: Vec<i64> = verdicts.iter().map(|verdict| verdict.depth.0.cast_signed()).collect();
    let thresholds: Vec<i32> = verdicts.iter().map(|verdict| verdict.threshold.get().cast_signed()).collect();
    let seen: Vec<i64> = verdicts.iter().map(|verdict| verdict.seen_history_id).collect();
    let now: Vec<i64> = verdicts.iter().map(|verdict| verdict.now_history_id).collect();
    let outcome = sqlx::query_file!(
        "src/confirm/insert_verdicts.sql",
        chain.as_i64(),
        head.number.as_i64(),
        head.hash.as_slice(),
        &observations,
        &depths,
        &thresholds,
        &seen,
        &now
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected())
}

/// A verdict in force, and the transfer it confirms.
#[derive(Clone, Copy, Debug)]
pub struct ConfirmedSighting {
    pub verdict: i64,
    pub amount: TokenAmount,
    pub recipient: Address,
    pub derived_address: Uuid,
    pub tx_hash: B256,
    pub block: BlockRef,
    pub block_time: OffsetDateTime,
}

/// Verdicts of a chain after an id, oldest first: those in force, and revoked ones among them left out.
pub async fn list_confirmed(connection: &mut PgConnection, chain: ChainId, page: Page) -> Result<Vec<ConfirmedSighting>, DbError> {
    let rows = sqlx::query_file!("src/confirm/list_confirmed.sql", chain.as_i64(), page.after, page.limit).fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            Ok(ConfirmedSighting {
                verdict: row.id,
                amount: TokenAmount::new(asset, units_from_sql(&row.amount)?),
                recipient: address_from_sql(&row.recipient)?,
                derived_address: row.derived_address_id,
                tx_hash: hash_from_sql(&row.tx_hash)?,
                block: BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? },
                block_time: row.block_time,
            })
        })
        .collect()
}

/// Whether a verdict is in force and its sighting in the chain. The sighting cannot be orphaned before
/// the caller's transaction ends.
pub async fn is_standing(connection: &mut PgConnection, verdict: i64) -> Result<bool, DbError> {
    let standing = sqlx::query_scalar!(
        r#"
        select v.revoked_at is null and o.state = 'canonical' as "standing!"
        from transfer_verdicts v join transfer_observations o on o.id = v.observation_id
        where v.id = $1
        for share of o
        "#,
        verdict
    )
    .fetch_optional(connection)
    .await?;
    Ok(standing.unwrap_or(false))
}

/// Live verdicts whose sighting a reorg took away, oldest first.
pub async fn list_broken(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<BrokenVerdict>, DbError> {
    let rows = sqlx::query!(
        r#"
        select v.id, v.transfer_id, v.observation_id, v.block_number, v.block_hash as "block_hash!: Vec<u8>"
        from transfer_verdicts v join transfer_observations o on o.id = v.observation_id
        where v.chain_id = $1::bigint and v.revoked_at is null and o.state = 'orphaned'
        order by v.id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BrokenVerdict {
                verdict: row.id,
                transfer: TransferId(row.transfer_id),
                observation: row.observation_id,
                block: BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? },
            })
        })
        .collect()
}

/// Why nothing may leave a chain now, if so: an officer's or a breaker's halt, or a credit whose sighting
/// a reorg has just taken away and that nobody has halted for yet.
pub async fn find_halt(connection: &mut PgConnection, chain: ChainId) -> Result<Option<String>, DbError> {
    if let Some(reason) = scan::store::find_cursor(connection, chain).await?.and_then(|cursor| cursor.outflow_halted) {
        return Ok(Some(reason));
    }
    let broken = list_broken(connection, chain, 1).await?;
    Ok(broken.first().map(|verdict| format!("a reorg took away the credited transfer {}", verdict.transfer)))
}

/// Takes a live verdict back, in the transaction that reverses its credit.
pub async fn revoke(connection: &mut PgConnection, verdict: i64, now: OffsetDateTime) -> Result<(), DbError> {
    let outcome = sqlx::query!("update transfer_verdicts set revoked_at = $2 where id = $1 and revoked_at is null", verdict, now)
        .execute(connection)
        .await?;
    expect_one(outcome.rows_affected(), "a live verdict")
}

// === progress, for people ===

/// One sighting at an address, and how far it is.
#[derive(Clone, Debug)]
pub struct TransferProgress {
    pub transfer: TransferId,
    pub observation: i64,
    pub chain: ChainId,
    pub tx_hash: B256,
    pub position: Position,
    pub asset: Asset,
    pub amount: U256,
    pub sender: Address,
    pub block: BlockRef,
    pub block_time: OffsetDateTime,
    /// Sent by an address of ours; it will not be confirmed.
    pub internal: bool,
    /// Confirmations now; `None` for a block that is gone.
    pub have: Option<Depth>,
    /// Confirmations required.
    pub need: Confirmations,
    pub state: ProgressState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    Waiting,
    Confirmed {
        verdict: i64,
        at: OffsetDateTime,
    },
    /// A reorg took the block away; `reversal_due` while a credit rests on it.
    Orphaned {
        reversal_due: bool,
    },
}

impl ProgressState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Confirmed { .. } => "confirmed",
            Self::Orphaned { .. } => "orphaned",
        }
    }
}

/// Every sighting at an address, on every chain, oldest first.
pub async fn get_progress(connection: &mut PgConnection, derived_address: Uuid) -> Result<Vec<TransferProgress>, DbError> {
    let rows = sqlx::query_file!("src/confirm/progress.sql", derived_address).fetch_all(&mut *connection).await?;
    let mut chains = BTreeMap::new();
    let mut thresholds = BTreeMap::new();
    let mut progress = Vec::with_capacity(rows.len());
    for row in rows {
        let chain = chain_from_sql(row.chain_id)?;
        if let Entry::Vacant(unread) = chains.entry(chain) {
            let now = settings::store::get_threshold(connection, chain).await?;
            unread.insert((now, scan::store::find_cursor(connection, chain).await?));
        }
        let Some((now, Some(cursor))) = chains.get(&chain) else {
            return Err(DbError::Corrupt {
                column: "chain_cursors",
                found: format!("none of chain {chain}"),
                wanted: "a cursor above every sighting",
            });
        };
        let block = BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? };
        let seen = match thresholds.get(&row.threshold_history_id) {
            Some(seen) => *seen,
            None => {
                let seen = settings::store::get_threshold_row(connection, row.threshold_history_id).await?;
                thresholds.insert(row.threshold_history_id, seen);
                seen
            }
        };
        let case = Case { block, head: cursor.tip, seen, now: *now };
        let state = match (row.orphaned, row.verdict_id, row.confirmed_at) {
            (true, verdict, _) => ProgressState::Orphaned { reversal_due: verdict.is_some() },
            (false, Some(verdict), Some(at)) => ProgressState::Confirmed { verdict, at },
            (false, _, _) => ProgressState::Waiting,
        };
        progress.push(TransferProgress {
            transfer: TransferId(row.transfer_id),
            observation: row.id,
            chain,
            tx_hash: hash_from_sql(&row.tx_hash)?,
            position: position_from_sql(&row.position)?,
            asset: Asset::from_marker(address_from_sql(&row.asset)?),
            amount: units_from_sql(&row.amount)?,
            sender: address_from_sql(&row.sender)?,
            block,
            block_time: row.block_time,
            internal: row.internal,
            have: if row.orphaned { None } else { case.depth() },
            need: case.required(),
            state,
        });
    }
    Ok(progress)
}

fn position_from_sql(text: &str) -> Result<Position, DbError> {
    text.parse().map_err(|_| DbError::Corrupt { column: "transfers.position", found: text.to_owned(), wanted: "a position" })
}

/// The highest observation there is.
pub async fn get_highest_observation(connection: &mut PgConnection) -> Result<i64, DbError> {
    let highest =
        sqlx::query_scalar!(r#"select coalesce(max(id), 0) as "highest!" from transfer_observations"#).fetch_one(connection).await?;
    Ok(highest)
}

/// Pending payments with a transfer from outside in the chain, observed after an id.
pub async fn list_newly_seen(connection: &mut PgConnection, after: i64) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select distinct p.id
        from transfer_observations o
        join derived_destinations d on d.derived_address_id = o.derived_address_id
        join payments p on p.id = d.payment_id
        where o.id > $1 and o.state = 'canonical' and not o.internal and p.status = 'pending'
        "#,
        after
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}

/// Payments that were seen, of which nothing is in the chain any more and nothing was credited. Begins
/// at what reorgs took away, which is little.
pub async fn list_newly_gone(connection: &mut PgConnection) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select distinct p.id
        from transfer_observations gone
        join derived_destinations d on d.derived_address_id = gone.derived_address_id
        join payments p on p.id = d.payment_id
        where gone.state = 'orphaned' and p.status = 'processing'
          and not exists (
              select from transfer_observations o
              left join transfer_verdicts v on v.observation_id = o.id and v.revoked_at is null
              where o.derived_address_id = d.derived_address_id and not o.internal and (o.state = 'canonical' or v.id is not null)
          )
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}
