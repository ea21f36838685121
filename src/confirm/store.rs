//! SQL of `transfer_verdicts`, and the reading side of what the scanner stored.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::rule::{Rule, Sighting, StoredVerdict};
use super::verdict::Bar;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, units_from_sql};
use crate::db::{DbError, continuity, expect_one};
use crate::scan::{self, Cursor, Position};
use crate::settings::{self, Gate, History};
use crate::units::{Asset, AssetId, BlockNumber, BlockRef, ChainId, Confirmations, Depth, PaymentId, TokenAmount, TransferId, depth_of};

/// A sighting that waits at a gate: canonical, from outside, without a live verdict of that gate.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    pub observation: i64,
    pub transfer: TransferId,
    pub tx_hash: B256,
    pub block: BlockRef,
    pub sighting: Sighting,
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

/// What all verdicts of one round share.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    pub gate: Gate,
    pub chain: ChainId,
    pub head: BlockRef,
    /// The final block, where the gate went by it.
    pub final_block: Option<BlockRef>,
    /// The instant whose thresholds counted as those of now.
    pub judged_at: OffsetDateTime,
    /// The gate's newest history row at that time.
    pub history_head_id: i64,
}

/// A live credit whose sighting is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenVerdict {
    pub verdict: i64,
    pub transfer: TransferId,
    pub observation: i64,
    pub block: BlockRef,
}

/// Where a list goes on: after this id, at most so many.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub after: i64,
    pub limit: i64,
}

/// What waits at a gate of a chain, in figures.
#[derive(Clone, Copy, Debug)]
pub struct WaitingTotals {
    pub chain: ChainId,
    pub gate: Gate,
    pub count: u64,
    /// Of the deepest, by the last block stored.
    pub depth: Depth,
    /// When the oldest of them was first stored.
    pub oldest: OffsetDateTime,
}

/// What waits, of all chains; nothing for a gate at which nothing does. Reads what waits and nothing else.
pub async fn list_waiting_totals(connection: &mut PgConnection) -> Result<Vec<WaitingTotals>, DbError> {
    let rows = sqlx::query!(
        r#"
        select w.chain_id as "chain_id!: i64", w.released as "released!", w.count as "count!", w.oldest as "oldest!",
               greatest(c.number, w.lowest) as "number!", w.lowest as "lowest!"
        from (
            select o.chain_id, false as released, count(*) as count, min(o.created_at) as oldest, min(o.block_number) as lowest
            from transfer_observations o
            where o.state = 'canonical' and not o.internal and o.gate_passed is null
            group by o.chain_id
            union all
            select o.chain_id, true, count(*), min(o.created_at), min(o.block_number)
            from transfer_observations o
            where o.state = 'canonical' and o.gate_passed = 'credit'
            group by o.chain_id
        ) w join chain_cursors c on c.chain_id = w.chain_id
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(WaitingTotals {
                chain: chain_from_sql(row.chain_id)?,
                gate: if row.released { Gate::Release } else { Gate::Credit },
                count: count_from_sql("count", row.count)?,
                depth: depth_of(BlockNumber::from(row.lowest), BlockNumber::from(row.number)).unwrap_or(Depth(0)),
                oldest: row.oldest,
            })
        })
        .collect()
}

/// A row of what waits at a gate.
struct DueRow {
    id: i64,
    transfer_id: i64,
    block_number: i64,
    block_hash: Vec<u8>,
    tx_hash: Vec<u8>,
    asset: Vec<u8>,
    amount: String,
    threshold_history_id: i64,
    first_seen_at: OffsetDateTime,
}

impl TryFrom<DueRow> for Due {
    type Error = DbError;

    fn try_from(row: DueRow) -> Result<Self, Self::Error> {
        let block = BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? };
        Ok(Self {
            observation: row.id,
            transfer: TransferId(row.transfer_id),
            tx_hash: hash_from_sql(&row.tx_hash)?,
            block,
            sighting: Sighting {
                asset: Asset::from_marker(address_from_sql(&row.asset)?),
                units: units_from_sql(&row.amount)?,
                block,
                first_seen_at: row.first_seen_at,
                recorded_history_id: row.threshold_history_id,
            },
        })
    }
}

/// Sightings at or below `highest` that wait at a gate, in the order of their observation. Reads what
/// waits and nothing else, however many sightings there are: `gate_passed` is kept by the database.
pub async fn list_due(
    connection: &mut PgConnection,
    gate: Gate,
    chain: ChainId,
    highest: BlockNumber,
    page: Page,
) -> Result<Vec<Due>, DbError> {
    let (chain, highest) = (chain.as_i64(), highest.as_i64());
    let rows = match gate {
        // A transfer whose credit rests on another block waits until that one is revoked.
        Gate::Credit => {
            sqlx::query_as!(
                DueRow,
                r#"
                select o.id, o.transfer_id, o.block_number, o.block_hash as "block_hash!: Vec<u8>", t.tx_hash as "tx_hash!: Vec<u8>",
                       o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", b.threshold_history_id as "threshold_history_id!",
                       b.first_seen_at as "first_seen_at!"
                from transfer_observations o
                -- One row each, looked up: a join would let the planner read every block there is instead.
                cross join lateral (select tx_hash from transfers where id = o.transfer_id limit 1) t
                cross join lateral (
                    select threshold_history_id, first_seen_at from chain_blocks
                    where chain_id = o.chain_id and number = o.block_number and hash = o.block_hash limit 1
                ) b
                where o.chain_id = $1::bigint and o.block_number <= $2 and o.id > $3
                  and o.state = 'canonical' and not o.internal and o.gate_passed is null
                  and not exists (
                      select from transfer_verdicts v where v.transfer_id = o.transfer_id and v.gate = 'credit' and v.revoked_at is null
                  )
                order by o.id limit $4
                "#,
                chain,
                highest,
                page.after,
                page.limit
            )
            .fetch_all(connection)
            .await?
        }
        Gate::Release => {
            sqlx::query_as!(
                DueRow,
                r#"
                select o.id, o.transfer_id, o.block_number, o.block_hash as "block_hash!: Vec<u8>", t.tx_hash as "tx_hash!: Vec<u8>",
                       o.asset as "asset!: Vec<u8>", o.amount::text as "amount!", b.threshold_history_id as "threshold_history_id!",
                       b.first_seen_at as "first_seen_at!"
                from transfer_observations o
                -- One row each, looked up: a join would let the planner read every block there is instead.
                cross join lateral (select tx_hash from transfers where id = o.transfer_id limit 1) t
                cross join lateral (
                    select threshold_history_id, first_seen_at from chain_blocks
                    where chain_id = o.chain_id and number = o.block_number and hash = o.block_hash limit 1
                ) b
                where o.chain_id = $1::bigint and o.block_number <= $2 and o.id > $3
                  and o.state = 'canonical' and o.gate_passed = 'credit'
                order by o.id limit $4
                "#,
                chain,
                highest,
                page.after,
                page.limit
            )
            .fetch_all(connection)
            .await?
        }
    };
    rows.into_iter().map(Due::try_from).collect()
}

/// Stores verdicts of one round. One whose sighting or head was orphaned since, whose transfer has a live
/// verdict of the gate by now, or whose credit was taken back is left out. Returns how many were stored.
pub async fn insert_verdicts(connection: &mut PgConnection, round: &Round, verdicts: &[NewVerdict]) -> Result<u64, DbError> {
    let observations: Vec<i64> = verdicts.iter().map(|verdict| verdict.due.observation).collect();
    let depths: Vec<i64> = verdicts.iter().map(|verdict| verdict.depth.0.cast_signed()).collect();
    let thresholds: Vec<i32> = verdicts.iter().map(|verdict| verdict.threshold.get().cast_signed()).collect();
    let seen: Vec<i64> = verdicts.iter().map(|verdict| verdict.seen_history_id).collect();
    let now: Vec<i64> = verdicts.iter().map(|verdict| verdict.now_history_id).collect();
    let outcome = sqlx::query_file!(
        "src/confirm/insert_verdicts.sql",
        round.chain.as_i64(),
        round.head.number.as_i64(),
        round.head.hash.as_slice(),
        &observations,
        &depths,
        &thresholds,
        &seen,
        &now,
        round.gate as Gate,
        round.final_block.map(|block| block.number.as_i64()),
        round.final_block.as_ref().map(|block| block.hash.as_slice()),
        round.judged_at,
        round.history_head_id
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected())
}

/// Verdicts of both gates after an id, oldest first, live and revoked; of one address, or of all.
pub async fn list_verdicts(connection: &mut PgConnection, address: Option<Uuid>, page: Page) -> Result<Vec<StoredVerdict>, DbError> {
    let rows = sqlx::query_file!("src/confirm/list_verdicts.sql", page.after, address, page.limit).fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| {
            let block = BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? };
            let final_block = match (row.final_number, row.final_hash) {
                (Some(number), Some(hash)) => Some(BlockRef { number: BlockNumber::from(number), hash: hash_from_sql(&hash)? }),
                _ => None,
            };
            Ok(StoredVerdict {
                id: row.id,
                gate: row.gate,
                chain: chain_from_sql(row.chain_id)?,
                transfer: TransferId(row.transfer_id),
                observation: row.observation_id,
                sighting: Sighting {
                    asset: Asset::from_marker(address_from_sql(&row.asset)?),
                    units: units_from_sql(&row.amount)?,
                    block,
                    first_seen_at: row.first_seen_at,
                    recorded_history_id: row.threshold_history_id,
                },
                head: BlockRef { number: BlockNumber::from(row.head_number), hash: hash_from_sql(&row.head_hash)? },
                depth: Depth(count_from_sql("transfer_verdicts.depth", row.depth)?),
                threshold: Confirmations::new(row.threshold.into()).map_err(|_| DbError::Corrupt {
                    column: "transfer_verdicts.threshold",
                    found: row.threshold.to_string(),
                    wanted: "1 to 10000",
                })?,
                seen_history_id: row.threshold_seen_history_id,
                now_history_id: row.threshold_now_history_id,
                final_block,
                judged: row.judged_at.zip(row.history_head_id),
                confirmed_at: row.confirmed_at,
                revoked_at: row.revoked_at,
            })
        })
        .collect()
}

/// A credit in force, and the transfer it confirms.
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

/// Credits of a chain in force after an id, oldest first. Whether their money may leave is another gate.
pub async fn list_credited(connection: &mut PgConnection, chain: ChainId, page: Page) -> Result<Vec<ConfirmedSighting>, DbError> {
    let rows = sqlx::query_file!("src/confirm/list_credited.sql", chain.as_i64(), page.after, page.limit).fetch_all(connection).await?;
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

/// Whether a credit is in force and its sighting in the chain. The sighting cannot be orphaned before
/// the caller's transaction ends.
pub async fn is_credit_standing(connection: &mut PgConnection, verdict: i64) -> Result<bool, DbError> {
    let standing = sqlx::query_scalar!(
        r#"
        select v.revoked_at is null and o.state = 'canonical' as "standing!"
        from transfer_verdicts v join transfer_observations o on o.id = v.observation_id
        where v.id = $1 and v.gate = 'credit'
        for share of o
        "#,
        verdict
    )
    .fetch_optional(connection)
    .await?;
    Ok(standing.unwrap_or(false))
}

/// Live credits whose sighting a reorg took away, oldest first.
pub async fn list_broken_credits(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<BrokenVerdict>, DbError> {
    let rows = sqlx::query!(
        r#"
        select v.id, v.transfer_id, v.observation_id, v.block_number, v.block_hash as "block_hash!: Vec<u8>"
        from transfer_verdicts v join transfer_observations o on o.id = v.observation_id
        where v.chain_id = $1::bigint and v.revoked_at is null and v.gate = 'credit' and o.state = 'orphaned'
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
/// a reorg has just taken away and that nobody has halted for yet. A loss of the database halts all chains, also
/// those that were never read.
pub async fn find_halt(connection: &mut PgConnection, chain: ChainId) -> Result<Option<String>, DbError> {
    if let Some(reason) = scan::store::find_cursor(connection, chain).await?.and_then(|cursor| cursor.outflow_halted) {
        return Ok(Some(reason));
    }
    if let Some(loss) = continuity::list_open_losses(connection).await?.first() {
        return Ok(Some(format!("the database lost something that nobody has reconciled: {}", loss.detail)));
    }
    let broken = list_broken_credits(connection, chain, 1).await?;
    Ok(broken.first().map(|verdict| format!("a reorg took away the credited transfer {}", verdict.transfer)))
}

/// Takes a live credit back, in the transaction that reverses it. Its release goes with it.
pub async fn revoke(connection: &mut PgConnection, verdict: i64, now: OffsetDateTime) -> Result<(), DbError> {
    let outcome =
        sqlx::query!("update transfer_verdicts set revoked_at = $2 where id = $1 and gate = 'credit' and revoked_at is null", verdict, now)
            .execute(connection)
            .await?;
    expect_one(outcome.rows_affected(), "a live credit")
}

/// Whether everything that was credited at an address on a chain has passed the release gate: nothing
/// leaves for money that is only credited. What a reorg took away and nobody has reversed yet counts too.
pub async fn is_released(connection: &mut PgConnection, chain: ChainId, derived_address: Uuid) -> Result<bool, DbError> {
    let only_credited = sqlx::query_scalar!(
        r#"
        select exists (
            select from transfer_observations o
            where o.derived_address_id = $2 and o.gate_passed = 'credit' and o.chain_id = $1::bigint
        ) as "found!"
        "#,
        chain.as_i64(),
        derived_address
    )
    .fetch_one(connection)
    .await?;
    Ok(!only_credited)
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
    pub sighting: Sighting,
    /// Sent by an address of ours; it will not be confirmed.
    pub internal: bool,
    /// Confirmations now; `None` for a block that is gone.
    pub have: Option<Depth>,
    /// Confirmations required for the credit.
    pub need: Confirmations,
    /// At the credit gate.
    pub state: ProgressState,
    /// The live verdict of the release gate: its money may leave.
    pub release: Option<i64>,
    pub orphaned_at: Option<OffsetDateTime>,
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

/// What is known of a chain, for judging what was seen there.
#[derive(Clone, Debug)]
pub struct ChainState {
    pub cursor: Cursor,
    /// The credit gate's, then the release gate's.
    pub histories: [History; 2],
}

impl ChainState {
    pub fn history(&self, gate: Gate) -> &History {
        let [credit, release] = &self.histories;
        match gate {
            Gate::Credit => credit,
            Gate::Release => release,
        }
    }
}

/// The cursor and both histories of a chain on which something was seen.
pub async fn get_chain(connection: &mut PgConnection, chain: ChainId) -> Result<ChainState, DbError> {
    let cursor = scan::store::find_cursor(connection, chain).await?.ok_or_else(|| DbError::Corrupt {
        column: "chain_cursors",
        found: format!("none of chain {chain}"),
        wanted: "a cursor above every sighting",
    })?;
    let credit = settings::store::get_history(connection, Gate::Credit, chain).await?;
    let release = settings::store::get_history(connection, Gate::Release, chain).await?;
    Ok(ChainState { cursor, histories: [credit, release] })
}

/// Every sighting at an address, on every chain, oldest first. Thresholds are those in force by the
/// database's clock.
pub async fn get_progress(connection: &mut PgConnection, derived_address: Uuid) -> Result<Vec<TransferProgress>, DbError> {
    let rows = sqlx::query_file!("src/confirm/progress.sql", derived_address).fetch_all(&mut *connection).await?;
    let mut chains: BTreeMap<ChainId, (Rule, Cursor)> = BTreeMap::new();
    let mut progress = Vec::with_capacity(rows.len());
    for row in rows {
        let chain = chain_from_sql(row.chain_id)?;
        let (rule, cursor) = match chains.entry(chain) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unread) => {
                let ChainState { cursor, histories: [history, _] } = get_chain(connection, chain).await?;
                let present = history.present(OffsetDateTime::UNIX_EPOCH);
                unread.insert((Rule { history, present, bar: Bar::Depth }, cursor))
            }
        };
        let block = BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? };
        let sighting = Sighting {
            asset: Asset::from_marker(address_from_sql(&row.asset)?),
            units: units_from_sql(&row.amount)?,
            block,
            first_seen_at: row.first_seen_at,
            recorded_history_id: row.threshold_history_id,
        };
        let case = rule.case(&sighting, cursor.tip).ok_or_else(|| settings::store::unset(Gate::Credit, chain))?;
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
            asset: sighting.asset,
            amount: sighting.units,
            sender: address_from_sql(&row.sender)?,
            block,
            block_time: row.block_time,
            sighting,
            internal: row.internal,
            have: if row.orphaned { None } else { depth_of(block.number, cursor.tip.number) },
            need: case.required(),
            state,
            release: row.release_id,
            orphaned_at: row.orphaned_at,
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
              left join transfer_verdicts v on v.observation_id = o.id and v.revoked_at is null and v.gate = 'credit'
              where o.derived_address_id = d.derived_address_id and not o.internal and (o.state = 'canonical' or v.id is not null)
          )
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}
