//! SQL of what has left and of `policy_refusals`.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Past;
use crate::db::DbError;
use crate::db::codec::{address_from_sql, chain_from_sql, units_from_sql, units_to_sql};
use crate::intent::{Intent, IntentKind, IntentState};
use crate::policy::{self, Outflow, Standing};
use crate::units::{Asset, AssetId, ChainId, IntentId, PaymentId, PolicyId};

/// Until the transaction ends, nobody else counts what has left of this chain.
pub async fn lock_limits(connection: &mut PgConnection, chain: ChainId) -> Result<(), DbError> {
    sqlx::query_scalar!(
        r#"select pg_advisory_xact_lock(hashtextextended('amanat limits of chain ' || $1::text, 0))::text as "locked?""#,
        chain.to_string()
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// Sums of one kind of outflow.
#[derive(Clone, Copy, Debug)]
pub struct LeftSums {
    pub kind: IntentKind,
    pub units: U256,
    /// Of them, to the recipient that was asked about.
    pub to_recipient_units: U256,
}

/// What has left of an outflow's asset in the last so many hours, by kind: what settled in that time, and everything
/// on its way, however old: reserved, signed or uncertain, it may still leave.
pub async fn list_left(
    connection: &mut PgConnection,
    outflow: &Outflow,
    hours: u32,
    but: Option<IntentId>,
) -> Result<Vec<LeftSums>, DbError> {
    let marker = outflow.asset.asset.marker();
    let rows = sqlx::query!(
        r#"
        select kind as "kind!: IntentKind", sum(amount)::text as "units!",
               coalesce(sum(amount) filter (where to_address = $5::bytea), 0)::text as "to_recipient!"
        from (
            select id, kind, amount, to_address from intents
            where chain_id = $1::bigint and asset = $2::bytea and state = 'settled' and updated_at > now() - make_interval(hours => $3)
            union all
            select id, kind, amount, to_address from intents
            where chain_id = $1::bigint and asset = $2::bytea and state not in ('settled', 'void', 'reverted', 'replaced')
        ) leaving
        where id is distinct from $4
        group by kind
        "#,
        outflow.asset.chain.as_i64(),
        marker.as_slice(),
        hours.cast_signed(),
        but.map(|intent| intent.0),
        outflow.to.as_slice()
    )
    .fetch_all(connection)
    .await?;
    // A sum may be more than any amount; then it is more than any limit, too.
    let units = |text: &str| units_from_sql(text).unwrap_or(U256::MAX);
    let sums = |kind, all: &str, to_recipient: &str| LeftSums { kind, units: units(all), to_recipient_units: units(to_recipient) };
    Ok(rows.into_iter().map(|row| sums(row.kind, &row.units, &row.to_recipient)).collect())
}

/// The newest intents, oldest first, with how their recipients stand now.
pub async fn list_past(connection: &mut PgConnection, limit: i64) -> Result<(Vec<Past>, BTreeMap<(ChainId, Address), Standing>), DbError> {
    let rows = sqlx::query!(
        r#"
        select id, kind as "kind: IntentKind", state as "state: IntentState", chain_id as "chain_id!: i64",
               to_address as "to_address!: Vec<u8>", asset as "asset!: Vec<u8>", amount::text as "amount!", approvals_required, created_at
        from intents order by created_at desc, id desc limit $1
        "#,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut past = Vec::with_capacity(rows.len());
    for row in rows.into_iter().rev() {
        let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
        past.push(Past {
            intent: IntentId(row.id),
            outflow: Outflow { kind: row.kind, asset, units: units_from_sql(&row.amount)?, to: address_from_sql(&row.to_address)? },
            at: row.created_at,
            undone: matches!(row.state, IntentState::Void | IntentState::Reverted | IntentState::Replaced),
            approvals_required: u8::try_from(row.approvals_required).unwrap_or(u8::MAX),
        });
    }
    let mut standings = BTreeMap::new();
    for one in &past {
        let key = (one.outflow.asset.chain, one.outflow.to);
        if let std::collections::btree_map::Entry::Vacant(place) = standings.entry(key) {
            place.insert(policy::store::get_standing(connection, key.0, key.1).await?);
        }
    }
    Ok((past, standings))
}

/// Notes that something due may not leave; `true` when that is news.
pub async fn note_refusal(connection: &mut PgConnection, intent: &Intent, policy: PolicyId, reasons: &str) -> Result<bool, DbError> {
    let Some(payment) = intent.payment else { return Ok(true) };
    let asset = intent.amount.asset.asset.marker();
    let row = sqlx::query!(
        r#"
        insert into policy_refusals (kind, payment_id, chain_id, asset, amount, to_address, policy_id, reasons)
        values ($1, $2, $3::bigint, $4::bytea, $5::text::numeric, $6::bytea, $7, $8)
        on conflict (kind, payment_id, asset, amount, to_address) where closed_at is null do update
        set policy_id = excluded.policy_id, reasons = excluded.reasons, last_seen_at = now()
        where policy_refusals.reasons <> excluded.reasons or policy_refusals.last_seen_at < now() - interval '1 minute'
        returning first_seen_at = last_seen_at as "first!"
        "#,
        intent.kind as IntentKind,
        payment.0,
        intent.chain().as_i64(),
        asset.as_slice(),
        units_to_sql(intent.amount.units),
        intent.to.as_slice(),
        policy.0,
        reasons.chars().take(4_000).collect::<String>()
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.is_some_and(|row| row.first))
}

/// What was refused is planned.
pub async fn close_refusal(connection: &mut PgConnection, intent: &Intent) -> Result<(), DbError> {
    let Some(payment) = intent.payment else { return Ok(()) };
    let asset = intent.amount.asset.asset.marker();
    sqlx::query!(
        r#"
        update policy_refusals set closed_at = now()
        where kind = $1 and payment_id = $2 and chain_id = $3::bigint and asset = $4::bytea and amount = $5::text::numeric
          and to_address = $6::bytea and closed_at is null
        "#,
        intent.kind as IntentKind,
        payment.0,
        intent.chain().as_i64(),
        asset.as_slice(),
        units_to_sql(intent.amount.units),
        intent.to.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Something due that may not leave.
#[derive(Clone, Debug)]
pub struct RefusalRow {
    pub kind: IntentKind,
    pub payment: PaymentId,
    pub asset: AssetId,
    pub units: U256,
    pub to: Address,
    pub policy: PolicyId,
    pub reasons: String,
    pub first_seen_at: OffsetDateTime,
    pub last_seen_at: OffsetDateTime,
}

struct Row {
    kind: IntentKind,
    payment_id: Uuid,
    chain_id: i64,
    asset: Vec<u8>,
    amount: String,
    to_address: Vec<u8>,
    policy_id: i64,
    reasons: String,
    first_seen_at: OffsetDateTime,
    last_seen_at: OffsetDateTime,
}

/// Open refusals, oldest first. What was not looked at for a while is due no longer, or its chain is halted.
pub async fn list_refusals(connection: &mut PgConnection, limit: i64) -> Result<Vec<RefusalRow>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select kind as "kind: IntentKind", payment_id, chain_id as "chain_id!: i64", asset as "asset!: Vec<u8>", amount::text as "amount!",
               to_address as "to_address!: Vec<u8>", policy_id, reasons, first_seen_at, last_seen_at
        from policy_refusals
        where closed_at is null and last_seen_at > now() - interval '10 minutes' order by id limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            Ok(RefusalRow {
                kind: row.kind,
                payment: PaymentId(row.payment_id),
                asset,
                units: units_from_sql(&row.amount)?,
                to: address_from_sql(&row.to_address)?,
                policy: PolicyId(row.policy_id),
                reasons: row.reasons,
                first_seen_at: row.first_seen_at,
                last_seen_at: row.last_seen_at,
            })
        })
        .collect()
}

/// How many outflows of a chain are due and may not leave.
pub async fn count_refusals(connection: &mut PgConnection, chain: ChainId) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from policy_refusals
           where chain_id = $1::bigint and closed_at is null and last_seen_at > now() - interval '10 minutes'"#,
        chain.as_i64()
    )
    .fetch_one(connection)
    .await?;
    Ok(count.cast_unsigned())
}
