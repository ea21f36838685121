//! SQL of `reconcile_findings`, and of what earlier rooms wrote about the same addresses.

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::finding::{Finding, Seen};
use super::{Account, Line};
use crate::db::DbError;
use crate::db::codec::{
    address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, signed_from_sql, signed_to_sql, units_from_sql, units_to_sql,
};
use crate::units::{Asset, AssetId, BlockNumber, BlockRef, ChainId};

/// A movement that is in the chain and not in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub address: Address,
    pub asset: Asset,
    pub units: U256,
    pub incoming: bool,
}

/// Movements up to a block that the ledger does not hold yet: transfers from outside that wait for
/// their depth or their posting, and our own mined transactions that are not settled.
pub(super) async fn list_pending(connection: &mut PgConnection, chain: ChainId, up_to: BlockNumber) -> Result<Vec<Pending>, DbError> {
    let rows = sqlx::query!(
        r#"
        -- transfers from outside without a posted credit
        select o.recipient as "address!: Vec<u8>", o.asset as "asset!: Vec<u8>", o.amount::text as "units!", true as "incoming!"
        from transfer_observations o
        left join transfer_verdicts v on v.observation_id = o.id and v.revoked_at is null and v.gate = 'credit'
        where o.chain_id = $1::bigint and o.state = 'canonical' and not o.internal and o.block_number <= $2
          and not exists (select from funds_ledger_entries e where e.idempotency_key = 'verdict:' || v.id || ':credit')
        union all
        -- our own mined transactions: what leaves the sender
        select t.from_address, i.asset, i.amount::text, false
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
        union all
        -- what it cost
        select t.from_address, $3::bytea, t.fee_paid::text, false
        from outbound_transactions t
        where t.chain_id = $1::bigint and t.settled_at is null and t.block_number <= $2
        union all
        -- what arrives at another address of ours
        select i.to_address, i.asset, i.amount::text, true
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
          and exists (select from trezor_derived_addresses d where d.address = i.to_address)
        "#,
        chain.as_i64(),
        up_to.as_i64(),
        Asset::NATIVE_MARKER.as_slice()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Pending {
                address: address_from_sql(&row.address)?,
                asset: Asset::from_marker(address_from_sql(&row.asset)?),
                units: units_from_sql(&row.units)?,
                incoming: row.incoming,
            })
        })
        .collect()
}

/// One amount that says something about an account by a block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side {
    pub account: Account,
    pub units: U256,
    pub part: Part,
}

/// What an amount is to the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Booked,
    Incoming,
    Outgoing,
}

/// All that the database knows of these addresses by a block, from one snapshot.
pub(super) async fn list_sides(
    connection: &mut PgConnection,
    chain: ChainId,
    at: BlockNumber,
    addresses: &[Address],
) -> Result<Vec<Side>, DbError> {
    let rows = sqlx::query_file!(
        "src/reconcile/list_sides.sql",
        chain.as_i64(),
        at.as_i64(),
        &as_bytes(addresses),
        Asset::NATIVE_MARKER.as_slice()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let part = match row.part.as_str() {
                "booked" => Part::Booked,
                "incoming" => Part::Incoming,
                "outgoing" => Part::Outgoing,
                _ => return Err(DbError::Corrupt { column: "part", found: row.part, wanted: "booked, incoming or outgoing" }),
            };
            let account = (address_from_sql(&row.address)?, Asset::from_marker(address_from_sql(&row.asset)?));
            Ok(Side { account, units: units_from_sql(&row.units)?, part })
        })
        .collect()
}

/// A transaction of ours that no block is known to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub from: Address,
    pub to: Address,
    pub tx_hash: B256,
}

/// Signed transactions from or to these addresses that were not seen in a block yet.
pub(super) async fn list_in_flight(connection: &mut PgConnection, chain: ChainId, addresses: &[Address]) -> Result<Vec<InFlight>, DbError> {
    let rows = sqlx::query!(
        r#"
        select t.from_address as "from_address!: Vec<u8>", i.to_address as "to_address!: Vec<u8>", t.tx_hash as "tx_hash!: Vec<u8>"
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null and t.block_number is null
          and (t.from_address = any ($2::bytea[]) or i.to_address = any ($2::bytea[]))
        "#,
        chain.as_i64(),
        &as_bytes(addresses)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(InFlight {
                from: address_from_sql(&row.from_address)?,
                to: address_from_sql(&row.to_address)?,
                tx_hash: hash_from_sql(&row.tx_hash)?,
            })
        })
        .collect()
}

// === findings ===

struct Row {
    id: i64,
    chain_id: i64,
    address: Vec<u8>,
    asset: Vec<u8>,
    ledger_units: String,
    chain_units: String,
    pending_units: String,
    block_number: i64,
    block_hash: Vec<u8>,
    first_seen_at: OffsetDateTime,
    last_seen_at: OffsetDateTime,
    closed_at: Option<OffsetDateTime>,
    resolution: Option<String>,
}

impl TryFrom<Row> for Finding {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        Ok(Self {
            id: row.id,
            line: Line {
                address: address_from_sql(&row.address)?,
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                ledger_units: units_from_sql(&row.ledger_units)?,
                chain_units: units_from_sql(&row.chain_units)?,
                pending_units: signed_from_sql(&row.pending_units)?,
            },
            at: BlockRef { number: BlockNumber::from(row.block_number), hash: hash_from_sql(&row.block_hash)? },
            first_seen_at: row.first_seen_at,
            last_seen_at: row.last_seen_at,
            closed_at: row.closed_at,
            resolution: row.resolution,
        })
    }
}

/// Findings after an id, oldest first; closed ones too if asked for. All chains if none is named.
pub async fn list_findings(
    connection: &mut PgConnection,
    chain: Option<ChainId>,
    closed_too: bool,
    after: i64,
    limit: i64,
) -> Result<Vec<Finding>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, chain_id as "chain_id!: i64", address as "address!: Vec<u8>", asset as "asset!: Vec<u8>",
               ledger_units::text as "ledger_units!", chain_units::text as "chain_units!", pending_units::text as "pending_units!",
               block_number, block_hash as "block_hash!: Vec<u8>", first_seen_at, last_seen_at, closed_at, resolution
        from reconcile_findings
        where id > $3 and ($1::bigint is null or chain_id = $1::bigint) and ($2 or closed_at is null)
        order by id limit $4
        "#,
        chain.map(|chain| chain.as_i64()),
        closed_too,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Finding::try_from).collect()
}

/// How many findings of a chain are open.
pub async fn count_open(connection: &mut PgConnection, chain: ChainId) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from reconcile_findings where chain_id = $1::bigint and closed_at is null"#,
        chain.as_i64()
    )
    .fetch_one(connection)
    .await?;
    count_from_sql("count", count)
}

/// Notes a difference: opens a finding, or brings the open one of the account up to date.
pub(super) async fn upsert_open(
    connection: &mut PgConnection,
    line: &Line,
    at: BlockRef,
    now: OffsetDateTime,
) -> Result<(i64, Seen), DbError> {
    let (chain, marker) = (line.asset.chain.as_i64(), line.asset.asset.marker());
    let (ledger, held, pending) = (units_to_sql(line.ledger_units), units_to_sql(line.chain_units), signed_to_sql(line.pending_units));
    let open = sqlx::query!(
        r#"
        select id, chain_units::numeric - ledger_units::numeric - pending_units
                   = $4::text::numeric - $5::text::numeric - $6::text::numeric as "same!"
        from reconcile_findings
        where chain_id = $1::bigint and address = $2::bytea and asset = $3::bytea and closed_at is null
        for update
        "#,
        chain,
        line.address.as_slice(),
        marker.as_slice(),
        held,
        ledger,
        pending
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(open) = open {
        sqlx::query!(
            r#"
            update reconcile_findings
            set ledger_units = $2::text::numeric, chain_units = $3::text::numeric, pending_units = $4::text::numeric,
                block_number = $5, block_hash = $6::bytea, last_seen_at = greatest(last_seen_at, $7)
            where id = $1 and closed_at is null
            "#,
            open.id,
            ledger,
            held,
            pending,
            at.number.as_i64(),
            at.hash.as_slice(),
            now
        )
        .execute(connection)
        .await?;
        return Ok((open.id, if open.same { Seen::Again } else { Seen::Changed }));
    }
    let id = sqlx::query_scalar!(
        r#"
        insert into reconcile_findings (
            chain_id, address, asset, ledger_units, chain_units, pending_units, block_number, block_hash, first_seen_at, last_seen_at
        ) values ($1::bigint, $2::bytea, $3::bytea, $4::text::numeric, $5::text::numeric, $6::text::numeric, $7, $8::bytea, $9, $9)
        returning id
        "#,
        chain,
        line.address.as_slice(),
        marker.as_slice(),
        ledger,
        held,
        pending,
        at.number.as_i64(),
        at.hash.as_slice(),
        now
    )
    .fetch_one(connection)
    .await?;
    Ok((id, Seen::First))
}

/// Closes the open finding of an account whose difference is gone; `None` if it has none.
pub(super) async fn close_explained(
    connection: &mut PgConnection,
    chain: ChainId,
    account: Account,
    now: OffsetDateTime,
) -> Result<Option<i64>, DbError> {
    let (address, marker) = (account.0, account.1.marker());
    let id = sqlx::query_scalar!(
        r#"
        update reconcile_findings set closed_at = greatest(last_seen_at, $4), resolution = 'explained'
        where chain_id = $1::bigint and address = $2::bytea and asset = $3::bytea and closed_at is null
        returning id
        "#,
        chain.as_i64(),
        address.as_slice(),
        marker.as_slice(),
        now
    )
    .fetch_optional(connection)
    .await?;
    Ok(id)
}

/// Accounts at these addresses that have an open finding.
pub(super) async fn list_open_accounts(
    connection: &mut PgConnection,
    chain: ChainId,
    addresses: &[Address],
) -> Result<Vec<Account>, DbError> {
    let rows = sqlx::query!(
        r#"
        select address as "address!: Vec<u8>", asset as "asset!: Vec<u8>" from reconcile_findings
        where chain_id = $1::bigint and address = any ($2::bytea[]) and closed_at is null
        "#,
        chain.as_i64(),
        &as_bytes(addresses)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((address_from_sql(&row.address)?, Asset::from_marker(address_from_sql(&row.asset)?)))).collect()
}

fn as_bytes(addresses: &[Address]) -> Vec<Vec<u8>> {
    addresses.iter().map(|address| address.to_vec()).collect()
}
