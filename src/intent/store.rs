//! SQL of `intents`.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::digest::digest_of;
use super::{FeeTerms, Intent, IntentError, IntentEvent, IntentKind, IntentState, judge};
use crate::account;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::policy;
use crate::screen::{self, Hold};
use crate::units::{Asset, AssetId, ChainId, IntentId, PaymentId, PolicyId, TokenAmount};
use crate::{confirm, deposit};

/// Stores a planned intent on the terms of the policy, which may refuse it, and gives it back with them. Its
/// nonce and its destination's sweep are unique in the database, and a payout has one intent, so two planners
/// cannot both succeed; nor does the database take one that is not under the policy in force.
pub async fn insert(connection: &mut PgConnection, intent: &Intent) -> Result<Intent, IntentError> {
    let intent = judge::judge(connection, intent).await?;
    write(connection, &intent).await?;
    judge::store::close_refusal(connection, &intent).await?;
    Ok(intent)
}

/// Stores an intent of what is on the chain already. No policy can refuse that; it is recorded as of the one in
/// force, and what it moved counts towards its limits.
pub async fn insert_adopted(connection: &mut PgConnection, intent: &Intent) -> Result<Intent, IntentError> {
    let policy = policy::store::find_in_force(connection).await?.map(|row| row.id);
    let intent = Intent { policy, ..intent.clone() };
    write(connection, &intent).await?;
    Ok(intent)
}

async fn write(connection: &mut PgConnection, intent: &Intent) -> Result<(), DbError> {
    let asset = intent.amount.asset.asset.marker();
    sqlx::query!(
        "insert into intents (
             id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, max_fee_per_gas,
             max_priority_fee_per_gas, payment_id, destination_id, digest, approvals_required, requested_by, approvals_expire_minutes,
             policy_id, cancels
         ) values (
             $1, $2, $3::bigint, $4, $5::bytea, $6::bytea, $7::bytea, $8::text::numeric, $9, $10, $11::text::numeric,
             $12::text::numeric, $13, $14, $15::bytea, $16, $17, $18, $19, $20
         )",
        intent.id.0,
        intent.kind as IntentKind,
        intent.chain().as_i64(),
        intent.from.id,
        intent.from.address.as_slice(),
        intent.to.as_slice(),
        asset.as_slice(),
        units_to_sql(intent.amount.units),
        intent.nonce.cast_signed(),
        intent.fees.gas_limit.cast_signed(),
        intent.fees.max_fee_per_gas.to_string(),
        intent.fees.max_priority_fee_per_gas.to_string(),
        intent.payment.map(|payment| payment.0),
        intent.destination,
        intent.digest.as_slice(),
        i16::from(intent.approvals_required),
        intent.requested_by,
        intent.approvals_expire_minutes.cast_signed(),
        intent.policy.map(|policy| policy.0),
        intent.cancels.map(|cancelled| cancelled.0)
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    kind: IntentKind,
    state: IntentState,
    state_version: i64,
    revision: i32,
    chain_id: i64,
    from_address_id: Uuid,
    to_address: Vec<u8>,
    asset: Vec<u8>,
    amount: String,
    nonce: i64,
    gas_limit: i64,
    max_fee_per_gas: String,
    max_priority_fee_per_gas: String,
    payment_id: Option<Uuid>,
    destination_id: Option<Uuid>,
    digest: Vec<u8>,
    approvals_required: i16,
    approvals_expire_minutes: i32,
    policy_id: Option<i64>,
    requested_by: String,
    revised_by: Option<String>,
    signed_revision: Option<i32>,
    cancels: Option<Uuid>,
    station: Option<String>,
}

/// Completes a row with its address and proves that nobody changed it behind our back.
async fn complete(connection: &mut PgConnection, row: Row) -> Result<Intent, IntentError> {
    let from = account::store::get_address(connection, row.from_address_id).await?;
    let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
    let fees = FeeTerms {
        gas_limit: count_from_sql("intents.gas_limit", row.gas_limit)?,
        max_fee_per_gas: wei("intents.max_fee_per_gas", &row.max_fee_per_gas)?,
        max_priority_fee_per_gas: wei("intents.max_priority_fee_per_gas", &row.max_priority_fee_per_gas)?,
    };
    let small = |column, value: i64, wanted| DbError::Corrupt { column, found: value.to_string(), wanted };
    let intent = Intent {
        id: IntentId(row.id),
        kind: row.kind,
        state: row.state,
        state_version: row.state_version,
        revision: u32::try_from(row.revision).map_err(|_| small("intents.revision", row.revision.into(), "1 or more"))?,
        from,
        to: address_from_sql(&row.to_address)?,
        amount: TokenAmount::new(asset, units_from_sql(&row.amount)?),
        nonce: count_from_sql("intents.nonce", row.nonce)?,
        fees,
        payment: row.payment_id.map(PaymentId),
        destination: row.destination_id,
        digest: hash_from_sql(&row.digest)?,
        approvals_required: u8::try_from(row.approvals_required)
            .map_err(|_| small("intents.approvals_required", row.approvals_required.into(), "1 to 20"))?,
        approvals_expire_minutes: row.approvals_expire_minutes.cast_unsigned(),
        policy: row.policy_id.map(PolicyId),
        requested_by: row.requested_by,
        revised_by: row.revised_by,
        signed_revision: row.signed_revision.map(i32::cast_unsigned),
        cancels: row.cancels.map(IntentId),
        station: row.station,
    };
    if digest_of(&intent) == intent.digest { Ok(intent) } else { Err(IntentError::DigestMismatch(intent.id)) }
}

fn wei(column: &'static str, text: &str) -> Result<u128, DbError> {
    text.parse().map_err(|_| DbError::Corrupt { column, found: text.chars().take(80).collect(), wanted: "wei that fit 128 bits" })
}

pub async fn get(connection: &mut PgConnection, id: IntentId) -> Result<Intent, IntentError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, kind as "kind: IntentKind", state as "state: IntentState", state_version, revision, chain_id as "chain_id!: i64",
               from_address_id, to_address as "to_address!: Vec<u8>", asset as "asset!: Vec<u8>", amount::text as "amount!", nonce,
               gas_limit, max_fee_per_gas::text as "max_fee_per_gas!", max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               payment_id, destination_id, digest as "digest!: Vec<u8>", approvals_required, approvals_expire_minutes, policy_id,
               requested_by, revised_by, signed_revision, cancels, station
        from intents where id = $1
        "#,
        id.0
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(DbError::from)?
    .ok_or(IntentError::Unknown(id))?;
    complete(connection, row).await
}

/// The intent, its row locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, id: IntentId) -> Result<Intent, IntentError> {
    sqlx::query_scalar!("select id from intents where id = $1 for no key update", id.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(DbError::from)?
        .ok_or(IntentError::Unknown(id))?;
    get(connection, id).await
}

/// Intents in any of these states, oldest first.
pub async fn list(connection: &mut PgConnection, states: &[IntentState], limit: i64) -> Result<Vec<Intent>, IntentError> {
    let states: Vec<String> = states.iter().map(|state| state.name().to_owned()).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, kind as "kind: IntentKind", state as "state: IntentState", state_version, revision, chain_id as "chain_id!: i64",
               from_address_id, to_address as "to_address!: Vec<u8>", asset as "asset!: Vec<u8>", amount::text as "amount!", nonce,
               gas_limit, max_fee_per_gas::text as "max_fee_per_gas!", max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               payment_id, destination_id, digest as "digest!: Vec<u8>", approvals_required, approvals_expire_minutes, policy_id,
               requested_by, revised_by, signed_revision, cancels, station
        from intents where state = any ($1::text[]::intent_state[]) order by created_at, id limit $2
        "#,
        &states,
        limit
    )
    .fetch_all(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let mut intents = Vec::with_capacity(rows.len());
    for row in rows {
        intents.push(complete(connection, row).await?);
    }
    Ok(intents)
}

/// Payments of a chain whose deposit is whole and waits to be swept, with nothing on its way, after an id.
/// Everything credited at the address has passed the release gate, and screening under the policy in force:
/// nothing leaves for money that is only credited, or held.
pub async fn list_sweepable(
    connection: &mut PgConnection,
    chain: ChainId,
    after: PaymentId,
    limit: i64,
) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select p.id from payments p join derived_destinations d on d.payment_id = p.id
        where p.status = 'confirmed' and p.chain_id = $1::bigint and p.id > $2 and d.status = 'active'
          and not exists (
              select from intents i
              where i.destination_id = d.id and i.kind in ('sweep', 'fuel') and i.state not in ('void', 'reverted', 'settled', 'replaced')
          )
          and not exists (
              select from transfer_observations o
              where o.derived_address_id = d.derived_address_id and o.gate_passed = 'credit' and o.chain_id = d.chain_id
          )
          and not exists (
              select from transfer_screenings s
              where s.derived_address_id = d.derived_address_id and s.chain_id = d.chain_id
                and (not s.passes or (s.policy_id is distinct from (
                    select n.id from screening_policies n where n.chain_id = $1::bigint order by n.id desc limit 1
                ) and (select n.required from screening_policies n where n.chain_id = $1::bigint order by n.id desc limit 1)))
          )
        order by p.id limit $3
        "#,
        chain.as_i64(),
        after.0,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}

/// Payments of a chain that are over and of which an order wants money that is at its address, with nothing on its
/// way and nothing that waits for the release gate.
pub async fn list_sweepable_for_orders(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select distinct p.id
        from payment_payouts y
        join payments p on p.id = y.payment_id and p.status in ('completed', 'refunded')
        join derived_destinations d on d.payment_id = p.id and d.status = 'active'
        where y.state = 'ordered' and y.chain_id = $1::bigint and p.chain_id = $1::bigint and y.asset = p.token_contract
          and not exists (
              select from intents i
              where i.destination_id = d.id and i.kind in ('sweep', 'fuel') and i.state not in ('void', 'reverted', 'settled', 'replaced')
          )
          and not exists (
              select from transfer_observations o
              where o.derived_address_id = d.derived_address_id and o.gate_passed = 'credit' and o.chain_id = d.chain_id
          )
        order by p.id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}

/// Whether a fuel or a sweep of a destination is on its way.
pub async fn has_live_at(connection: &mut PgConnection, destination: Uuid) -> Result<bool, DbError> {
    let live = sqlx::query_scalar!(
        r#"
        select exists (
            select from intents where destination_id = $1 and kind in ('sweep', 'fuel') and state not in ('void', 'reverted', 'settled', 'replaced')
        ) as "live!"
        "#,
        destination
    )
    .fetch_one(connection)
    .await?;
    Ok(live)
}

/// Whether an intent spends only money that has passed the release gate: that of its payment's deposit. One
/// without a payment spends the operator's own, and a cancel nothing.
pub async fn is_released(connection: &mut PgConnection, intent: &Intent) -> Result<bool, DbError> {
    if intent.kind == IntentKind::Cancel {
        return Ok(true);
    }
    let Some(payment) = intent.payment else { return Ok(true) };
    let destination = deposit::store::get_by_payment(connection, payment).await?;
    confirm::store::is_released(connection, intent.chain(), destination.derived_address).await
}

/// Why an intent may not leave although its money is released: the deposit that it spends is not screened or
/// is held, whom it would go to is, or the token's issuer has frozen one of its ends. Screening stands still until the
/// caller's transaction ends.
pub async fn find_hold(connection: &mut PgConnection, intent: &Intent) -> Result<Option<Hold>, DbError> {
    // It moves nothing.
    if intent.kind == IntentKind::Cancel {
        return Ok(None);
    }
    if let Some(frozen) = screen::store::find_freeze(connection, intent.amount.asset, &[intent.from.address, intent.to]).await? {
        return Ok(Some(Hold::Frozen(frozen)));
    }
    let Some(payment) = intent.payment else { return Ok(None) };
    if matches!(intent.kind, IntentKind::Release | IntentKind::Refund) {
        let held = screen::recipient::store::find_hold(connection, payment, intent.chain(), intent.to).await?;
        if held.is_some() {
            return Ok(held);
        }
    }
    let destination = deposit::store::get_by_payment(connection, payment).await?;
    screen::store::find_hold(connection, intent.chain(), destination.derived_address).await
}

/// Intents in one state that is not an end.
#[derive(Clone, Copy, Debug)]
pub struct OpenTotals {
    pub chain: ChainId,
    pub state: IntentState,
    pub count: u64,
    /// When the one that is longest in the state came to it.
    pub since: OffsetDateTime,
}

/// How many intents ever were mined and failed, by chain. There are few of them, and an index of their own.
pub async fn count_reverted(connection: &mut PgConnection) -> Result<Vec<(ChainId, u64)>, DbError> {
    let rows =
        sqlx::query!(r#"select chain_id as "chain!: i64", count(*) as "count!" from intents where state = 'reverted' group by chain_id"#)
            .fetch_all(connection)
            .await?;
    rows.into_iter().map(|row| Ok((chain_from_sql(row.chain)?, count_from_sql("count", row.count)?))).collect()
}

/// Open intents of all chains in figures.
pub async fn list_open_totals(connection: &mut PgConnection) -> Result<Vec<OpenTotals>, DbError> {
    let rows = sqlx::query!(
        r#"
        select chain_id as "chain_id!: i64", state as "state!: IntentState", count(*) as "count!", min(updated_at) as "since!"
        from intents where state not in ('settled', 'void', 'reverted', 'replaced')
        group by chain_id, state
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (chain, count) = (chain_from_sql(row.chain_id)?, count_from_sql("count", row.count)?);
            Ok(OpenTotals { chain, state: row.state, count, since: row.since })
        })
        .collect()
}

/// Nonces of an address that belong to one of our intents.
pub async fn list_taken_nonces(connection: &mut PgConnection, chain: ChainId, from: Address) -> Result<BTreeSet<u64>, DbError> {
    let rows = sqlx::query_scalar!(
        "select nonce from intents where chain_id = $1::bigint and from_address = $2::bytea and state <> 'void' order by nonce desc limit 10000",
        chain.as_i64(),
        from.as_slice()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|nonce| count_from_sql("intents.nonce", nonce)).collect()
}

/// The intent that holds a nonce; its cancel aside.
pub async fn find_at_nonce(connection: &mut PgConnection, chain: ChainId, from: Address, nonce: u64) -> Result<Option<IntentId>, DbError> {
    let id = sqlx::query_scalar!(
        r#"
        select id from intents
        where chain_id = $1::bigint and from_address = $2::bytea and nonce = $3 and state <> 'void' and cancels is null
        "#,
        chain.as_i64(),
        from.as_slice(),
        nonce.cast_signed()
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map(IntentId))
}

/// What intents on their way take from an address: the asset itself, and the most they can cost in gas.
#[derive(Clone, Copy, Debug)]
pub struct Promised {
    pub units: U256,
    pub gas_units: U256,
}

pub async fn get_promised(connection: &mut PgConnection, asset: AssetId, from: Address) -> Result<Promised, DbError> {
    let marker = asset.asset.marker();
    let row = sqlx::query!(
        r#"
        select coalesce(sum(amount) filter (where asset = $3::bytea), 0)::text as "units!",
               coalesce(sum(gas_limit * max_fee_per_gas), 0)::text as "gas!"
        from intents
        where chain_id = $1::bigint and from_address = $2::bytea and state not in ('void', 'reverted', 'settled', 'replaced')
        "#,
        asset.chain.as_i64(),
        from.as_slice(),
        marker.as_slice()
    )
    .fetch_one(connection)
    .await?;
    Ok(Promised { units: units_from_sql(&row.units)?, gas_units: units_from_sql(&row.gas)? })
}

/// Moves an intent by an event. The row must still be as it was read.
pub async fn advance(connection: &mut PgConnection, intent: &Intent, event: IntentEvent) -> Result<Intent, IntentError> {
    let next = intent.state.apply(event).map_err(|source| IntentError::Illegal { intent: intent.id, source })?;
    let rows = sqlx::query!(
        "update intents set state = $3, state_version = state_version + 1, updated_at = now() where id = $1 and state_version = $2",
        intent.id.0,
        intent.state_version,
        next as IntentState
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    expect_one(rows, "an intent moving on")?;
    Ok(Intent { state: next, state_version: intent.state_version + 1, ..intent.clone() })
}

/// Makes a new revision, which waits for approvals anew: those of the one before it are void with it. Other fees
/// and who asked for them come with a raise.
pub async fn revise(
    connection: &mut PgConnection,
    intent: &Intent,
    event: IntentEvent,
    raised: Option<(FeeTerms, &str)>,
) -> Result<Intent, IntentError> {
    let next = intent.state.apply(event).map_err(|source| IntentError::Illegal { intent: intent.id, source })?;
    let mut revised = Intent { state: next, state_version: intent.state_version + 1, revision: intent.revision + 1, ..intent.clone() };
    if let Some((fees, by)) = raised {
        revised.fees = FeeTerms { gas_limit: intent.fees.gas_limit, ..fees };
        revised.revised_by = Some(by.to_owned());
    }
    revised.digest = digest_of(&revised);
    let rows = sqlx::query!(
        "update intents
         set state = $3, state_version = state_version + 1, updated_at = now(), revision = $4, digest = $5::bytea,
             max_fee_per_gas = $6::text::numeric, max_priority_fee_per_gas = $7::text::numeric, revised_by = $8
         where id = $1 and state_version = $2",
        intent.id.0,
        intent.state_version,
        next as IntentState,
        revised.revision.cast_signed(),
        revised.digest.as_slice(),
        revised.fees.max_fee_per_gas.to_string(),
        revised.fees.max_priority_fee_per_gas.to_string(),
        revised.revised_by
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    expect_one(rows, "an intent revised")?;
    Ok(revised)
}

/// Notes that signed bytes of the present revision are stored.
pub async fn set_signed(connection: &mut PgConnection, intent: &Intent) -> Result<(), DbError> {
    let rows = sqlx::query!("update intents set signed_revision = $2 where id = $1", intent.id.0, intent.revision.cast_signed())
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "an intent that was signed")
}

/// The cancel of an intent that is neither given up nor outrun.
pub async fn find_cancel(connection: &mut PgConnection, intent: IntentId) -> Result<Option<IntentId>, DbError> {
    let row = sqlx::query_scalar!("select id from intents where cancels = $1 and state not in ('void', 'replaced')", intent.0)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(IntentId))
}

/// Other intents at the nonce of this one that have not come to their end.
pub async fn list_rivals(connection: &mut PgConnection, intent: &Intent) -> Result<Vec<IntentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select id from intents
        where chain_id = $1::bigint and from_address = $2::bytea and nonce = $3 and id <> $4
          and state not in ('settled', 'void', 'reverted', 'replaced')
        order by id
        "#,
        intent.chain().as_i64(),
        intent.from.address.as_slice(),
        intent.nonce.cast_signed(),
        intent.id.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(IntentId).collect())
}

/// Notes which station has the intent.
pub async fn set_station(connection: &mut PgConnection, intent: IntentId, station: Option<&str>) -> Result<(), DbError> {
    let rows = sqlx::query!("update intents set station = $2, updated_at = now() where id = $1", intent.0, station)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "an intent given to a station")
}

/// The digest as an approval names it.
pub fn digest_matches(intent: &Intent, digest: B256) -> bool {
    intent.digest == digest && digest_of(intent) == digest
}
