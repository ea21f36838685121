//! SQL of what planning weighs, and the two officers' way to its numbers, which are rows of the settings' history.

use alloy::primitives::{B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{EconomyBook, EconomyChange, Prices, WORD};
use crate::chains::ChainSpec;
use crate::db::DbError;
use crate::db::codec::{units_from_sql, units_to_sql};
use crate::event::{self, Event};
use crate::intent::IntentError;
use crate::officer::Caller;
use crate::officer::proposal::{self, NewProposal, Proposal, Subject};
use crate::quote;
use crate::settings::{self, ChangeNote, NewNumber, NumberChange, SettingsError};
use crate::units::{Asset, AssetId, ChainId, IntentId, PaymentId, ProposalId};

/// A price that the oracle took longer ago says nothing about now.
const PRICE_AGE_MAX_S: i64 = 15 * 60;

/// Every number that was ever set.
pub async fn get_book(connection: &mut PgConnection) -> Result<EconomyBook, DbError> {
    Ok(EconomyBook::new(settings::store::list_numbers(connection, &[WORD.to_owned()]).await?))
}

/// Proposes a number to another officer.
pub async fn propose(
    connection: &mut PgConnection,
    change: EconomyChange,
    effective_at: Option<OffsetDateTime>,
    reason: &str,
    caller: &Caller,
) -> Result<Proposal, IntentError> {
    change.key.check(change.value)?;
    let new = NewProposal { subject: Subject::Planning, body: change.canonical(), effective_at, reason: reason.to_owned() };
    Ok(proposal::store::propose(connection, &new, caller).await?)
}

/// Another officer confirms it: it counts at once, or when it was dated.
pub async fn confirm(connection: &mut PgConnection, id: ProposalId, digest: B256, caller: &Caller) -> Result<NumberChange, IntentError> {
    let proposal = proposal::store::confirm(connection, id, Subject::Planning, digest, caller).await?;
    let change = EconomyChange::from_canonical(&proposal.body).ok_or(SettingsError::Proposal(id))?;
    let note = ChangeNote {
        changed_by: format!("user:{}, confirmed by {}", proposal.proposed_by, caller.name()),
        user: Some(proposal.proposed_by),
        reason: proposal.reason.clone(),
    };
    let now = proposal::store::clock(connection).await?;
    let new = NewNumber {
        key: change.key.to_string(),
        value: change.value,
        effective_at: proposal.effective_at.filter(|at| *at > now),
        description: change.key.spec().help,
        note,
    };
    let set = settings::store::set_number(connection, &new).await?;
    let detail = serde_json::json!({
        "key": set.key, "value": set.value, "proposal": id, "history": set.id, "effective_at": set.effective_at.unix_timestamp(),
    });
    tracing::warn!(key = %set.key, value = set.value, proposal = %id, by = %caller.name(), row = set.id, "a number of planning was changed");
    let event = Event { kind: "settings.planning_changed", payment: None, intent: None, chain: Some(change.key.chain), detail };
    event::store::append(connection, &event).await?;
    Ok(set)
}

/// For how many minutes the oldest money at a payment's address has been there, since it was last swept.
pub async fn get_age_minutes(connection: &mut PgConnection, payment: PaymentId, destination: Uuid) -> Result<u64, DbError> {
    let minutes = sqlx::query_scalar!(
        r#"
        select floor(extract(epoch from now() - min(e.created_at)) / 60)::bigint
        from funds_ledger_entries e
        where e.payment_id = $1 and e.entry_type = 'payment_detected'
          and e.created_at > coalesce(
              (select max(s.swept_at) from derived_destination_sweeps s where s.destination_id = $2), '-infinity'
          )
        "#,
        payment.0,
        destination
    )
    .fetch_one(connection)
    .await?;
    // What nobody knows the age of has waited long enough.
    Ok(minutes.map_or(u64::MAX, |minutes| u64::try_from(minutes).unwrap_or(0)))
}

/// Fuel of a chain that was planned in the last 24 hours and not given up, in wei.
pub async fn get_fuel_of_day(connection: &mut PgConnection, chain: ChainId) -> Result<U256, DbError> {
    let units = sqlx::query_scalar!(
        r#"
        select coalesce(sum(amount), 0)::text as "units!" from intents
        where chain_id = $1::bigint and kind = 'fuel' and state not in ('void', 'reverted', 'replaced')
          and created_at > now() - interval '24 hours'
        "#,
        chain.as_i64()
    )
    .fetch_one(connection)
    .await?;
    Ok(units_from_sql(&units).unwrap_or(U256::MAX))
}

/// Payments of a chain that are over, with nothing claimed or on its way, whose address still holds some of what
/// was due: fees that stayed where they were earned.
pub async fn list_leftovers(
    connection: &mut PgConnection,
    chain: ChainId,
    after: PaymentId,
    limit: i64,
) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select p.id
        from derived_destinations d
        join payments p on p.id = d.payment_id and p.status in ('completed', 'refunded')
        join ledger_accounts c on c.kind = 'custody' and c.address = d.address and c.chain_id = d.chain_id and c.asset = p.token_contract
        join ledger_balances b on b.account_id = c.id and b.balance > 0
        where d.status = 'active' and d.chain_id = $1::bigint and p.chain_id = $1::bigint and p.id > $2
          and not exists (
              select from ledger_accounts a join ledger_balances l on l.account_id = a.id where a.payment_id = p.id and l.balance > 0
          )
          and not exists (
              select from intents i
              where (i.destination_id = d.id or i.payment_id = p.id) and i.state not in ('void', 'reverted', 'settled', 'replaced')
          )
          and not exists (
              select from transfer_observations o
              where o.derived_address_id = d.derived_address_id and o.gate_passed = 'credit' and o.chain_id = d.chain_id
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

/// What the oracle last took for an asset and for the chain's coin; `None` unless both are fresh.
pub async fn find_prices(connection: &mut PgConnection, chain: &ChainSpec, asset: AssetId) -> Result<Option<Prices>, DbError> {
    let pair = match asset.asset {
        Asset::Native => chain.native.price.as_ref(),
        Asset::Token(contract) => chain.tokens.iter().find(|token| token.contract == contract).and_then(|token| token.price.as_ref()),
    };
    let (Some(pair), Some(coin)) = (pair, chain.native.price.as_ref()) else { return Ok(None) };
    let memories = quote::store::list_memories(&mut *connection).await?;
    let now_s = proposal::store::clock(connection).await?.unix_timestamp();
    let fresh = |pair: &String| {
        let mark = memories.get(pair)?.jump.accepted?;
        (now_s.saturating_sub(mark.at_s) <= PRICE_AGE_MAX_S).then_some(mark.price)
    };
    Ok(fresh(pair).zip(fresh(coin)).map(|(asset, coin)| Prices { asset, coin }))
}

/// Notes the most that a planned intent may pay for its data on the chain below, in wei.
pub async fn set_l1_fee(connection: &mut PgConnection, intent: IntentId, units: U256) -> Result<(), DbError> {
    let rows = sqlx::query!("update intents set l1_fee_max = $2::text::numeric where id = $1", intent.0, units_to_sql(units))
        .execute(connection)
        .await?
        .rows_affected();
    crate::db::expect_one(rows, "an intent with a fee on the chain below")
}

/// That fee; zero on most chains.
pub async fn get_l1_fee(connection: &mut PgConnection, intent: IntentId) -> Result<U256, DbError> {
    let units =
        sqlx::query_scalar!(r#"select l1_fee_max::text as "units!" from intents where id = $1"#, intent.0).fetch_one(connection).await?;
    units_from_sql(&units)
}
