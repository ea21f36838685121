//! SQL of `screening_policies`, `screening_verdicts`, `transfer_screenings` and `token_freezes`.

use std::collections::BTreeSet;

use alloy::primitives::Address;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::policy::{Decision, ListVersion, Outcome, Policy, ScreenerKind, Standing};
use super::screener::Answer;
use super::{Hold, Subject};
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, units_from_sql};
use crate::db::{DbError, expect_one};
use crate::deposit::DestinationStatus;
use crate::units::{Asset, AssetId, BlockNumber, BlockRef, ChainId, PaymentId, TokenAmount, UserId};

// === policies ===

/// The policy in force on a chain, and its row.
pub async fn find_policy(connection: &mut PgConnection, chain: ChainId) -> Result<Option<(i64, Policy)>, DbError> {
    let row = sqlx::query!(
        r#"
        select id, list_sha256 as "list_sha256?: Vec<u8>", list_entries, oracle as "oracle?: Vec<u8>", provider
        from screening_policies where chain_id = $1::bigint order by id desc limit 1
        "#,
        chain.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let list = match (row.list_sha256, row.list_entries) {
        (Some(sha256), Some(entries)) => Some(ListVersion { sha256: hash_from_sql(&sha256)?, entries: entries.cast_unsigned() }),
        _ => None,
    };
    let oracle = row.oracle.map(|oracle| address_from_sql(&oracle)).transpose()?;
    Ok(Some((row.id, Policy { list, oracle, provider: row.provider })))
}

pub async fn insert_policy(connection: &mut PgConnection, chain: ChainId, policy: &Policy) -> Result<i64, DbError> {
    let id = sqlx::query_scalar!(
        "insert into screening_policies (chain_id, list_sha256, list_entries, oracle, provider)
         values ($1::bigint, $2::bytea, $3, $4::bytea, $5) returning id",
        chain.as_i64(),
        policy.list.as_ref().map(|list| list.sha256.as_slice()),
        policy.list.map(|list| list.entries.cast_signed()),
        policy.oracle.as_ref().map(|oracle| oracle.as_slice()),
        policy.provider
    )
    .fetch_one(connection)
    .await?;
    Ok(id)
}

// === standings ===

/// A credited transfer and where it stands.
#[derive(Clone, Debug)]
pub struct Screened {
    pub observation: i64,
    pub derived_address: Uuid,
    pub payment: Option<PaymentId>,
    /// By which policy it was screened last.
    pub policy: Option<i64>,
    pub subject: Subject,
    pub block: BlockNumber,
    /// The transfer is the transaction itself, so its sender signed it.
    pub is_top: bool,
    pub standing: Standing,
    /// As the database computes it.
    pub passes: bool,
    pub attempts: u32,
    pub quarantined: bool,
    pub ruling: Option<StoredRuling>,
    pub version: i64,
}

/// What a resolver has decided.
#[derive(Clone, Debug)]
pub struct StoredRuling {
    pub decision: Decision,
    pub by: UserId,
    pub at: OffsetDateTime,
    pub reason: String,
}

/// These sightings, in the order of their ids.
pub async fn list_rows(connection: &mut PgConnection, observations: &[i64]) -> Result<Vec<Screened>, DbError> {
    let rows = sqlx::query_file!("src/screen/list_rows.sql", observations).fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            let ruling = match (row.decision, row.decided_by, row.decided_at, row.decision_reason) {
                (Some(decision), Some(by), Some(at), Some(reason)) => Some(StoredRuling { decision, by: UserId(by), at, reason }),
                _ => None,
            };
            Ok(Screened {
                observation: row.observation_id,
                derived_address: row.derived_address_id,
                payment: row.payment_id.map(PaymentId),
                policy: row.policy_id,
                subject: Subject {
                    tx_hash: hash_from_sql(&row.tx_hash)?,
                    amount: TokenAmount::new(asset, units_from_sql(&row.amount)?),
                    sender: address_from_sql(&row.sender)?,
                    origin: row.origin.map(|origin| address_from_sql(&origin)).transpose()?,
                },
                block: BlockNumber::from(row.block_number),
                is_top: row.position == "call:",
                standing: Standing {
                    outcome: row.outcome.unwrap_or(Outcome::NotScreened),
                    hits: row.hits,
                    missing: row.missing,
                    waived: row.waived,
                    cleared: row.cleared,
                },
                passes: row.passes,
                attempts: row.attempts.cast_unsigned(),
                quarantined: row.quarantined,
                ruling,
                version: row.state_version,
            })
        })
        .collect()
}

/// Credited transfers that nobody has looked at, oldest first.
pub async fn list_new(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select observation_id from transfer_screenings where chain_id = $1::bigint and policy_id is null order by observation_id limit $2",
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Those of a chain whose missing screeners may be asked again.
pub async fn list_retries(connection: &mut PgConnection, chain: ChainId, now: OffsetDateTime, limit: i64) -> Result<Vec<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select observation_id from transfer_screenings where chain_id = $1::bigint and next_at <= $2 order by next_at, observation_id limit $3",
        chain.as_i64(),
        now,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// A place in the walk over what was screened under an older policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub policy: i64,
    pub observation: i64,
}

/// The next page of what was screened under an older policy, and whether its money may still leave: its payment
/// is not finished, or something about it is open.
pub async fn list_stale(
    connection: &mut PgConnection,
    chain: ChainId,
    policy: i64,
    after: Place,
    limit: i64,
) -> Result<Vec<(Place, bool)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select s.policy_id as "policy_id!", s.observation_id,
               p.status in ('pending', 'processing', 'confirmed')
               or exists (select from payment_exceptions e where e.payment_id = p.id and e.closed_at is null) as "open?"
        from transfer_screenings s
        left join derived_destinations d on d.derived_address_id = s.derived_address_id
        left join payments p on p.id = d.payment_id
        where s.chain_id = $1::bigint and s.policy_id < $2 and (s.policy_id, s.observation_id) > ($3, $4)
        order by s.policy_id, s.observation_id limit $5
        "#,
        chain.as_i64(),
        policy,
        after.policy,
        after.observation,
        limit
    )
    .fetch_all(connection)
    .await?;
    let place = |policy, observation| Place { policy, observation };
    Ok(rows.into_iter().map(|row| (place(row.policy_id, row.observation_id), row.open.unwrap_or(false))).collect())
}

/// Others at the addresses of these that were screened under an older policy.
pub async fn list_stale_beside(connection: &mut PgConnection, chain: ChainId, policy: i64, beside: &[i64]) -> Result<Vec<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select distinct s.observation_id
         from transfer_screenings b
         join transfer_screenings s on s.derived_address_id = b.derived_address_id and s.chain_id = b.chain_id
         where b.observation_id = any ($3::bigint[]) and s.chain_id = $1::bigint and s.policy_id < $2
         order by s.observation_id limit 1000",
        chain.as_i64(),
        policy,
        beside
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// Notes of all that is new that nobody screens it. Returns how many.
pub async fn set_not_screened(connection: &mut PgConnection, chain: ChainId, policy: i64, limit: i64) -> Result<u64, DbError> {
    let outcome = sqlx::query!(
        "update transfer_screenings set policy_id = $2, outcome = 'not_screened', state_version = state_version + 1
         where observation_id in (
             select observation_id from transfer_screenings where chain_id = $1::bigint and policy_id is null order by observation_id limit $3
         )",
        chain.as_i64(),
        policy,
        limit
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected())
}

/// Those of these sightings about which the provider has answered already.
pub async fn list_answered(connection: &mut PgConnection, observations: &[i64], provider: &str) -> Result<BTreeSet<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select distinct v.observation_id from screening_verdicts v join screening_policies p on p.id = v.policy_id
         where v.observation_id = any ($1::bigint[]) and v.screener = 'provider' and v.outcome <> 'unavailable' and p.provider = $2",
        observations,
        provider
    )
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().collect())
}

/// One answer, under a policy.
#[derive(Clone, Debug)]
pub struct NewVerdict {
    pub observation: i64,
    pub policy: i64,
    pub screener: ScreenerKind,
    pub answer: Answer,
}

/// An answer as it is stored.
pub(super) fn outcome_of(answer: &Answer) -> (Outcome, serde_json::Value) {
    match answer {
        Answer::Screened { hits, evidence } if hits.is_empty() => (Outcome::Clear, evidence.clone()),
        Answer::Screened { hits, evidence } => {
            let mut evidence = evidence.clone();
            if let Some(fields) = evidence.as_object_mut() {
                fields.insert("hits".to_owned(), serde_json::json!(hits));
            }
            (Outcome::Hit, evidence)
        }
        Answer::Unavailable { reason } => (Outcome::Unavailable, serde_json::json!({ "reason": reason })),
    }
}

pub async fn append_verdict(connection: &mut PgConnection, verdict: &NewVerdict, now: OffsetDateTime) -> Result<(), DbError> {
    let (outcome, evidence) = outcome_of(&verdict.answer);
    sqlx::query!(
        "insert into screening_verdicts (observation_id, policy_id, screener, outcome, evidence, screened_at) values ($1, $2, $3, $4, $5, $6)",
        verdict.observation,
        verdict.policy,
        verdict.screener as ScreenerKind,
        outcome as Outcome,
        evidence,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a round made of a row.
#[derive(Clone, Debug)]
pub struct NewStanding {
    pub policy: i64,
    pub origin: Option<Address>,
    pub standing: Standing,
    pub attempts: u32,
    pub next_at: Option<OffsetDateTime>,
}

/// Stores a new standing; `false` if the row was changed since it was read, and then nothing is stored.
pub async fn set_standing(connection: &mut PgConnection, row: &Screened, new: &NewStanding) -> Result<bool, DbError> {
    let outcome = sqlx::query!(
        "update transfer_screenings
         set policy_id = $3, outcome = $4, origin = $5::bytea, hits = $6, missing = $7, waived = $8, attempts = $9, next_at = $10,
             state_version = state_version + 1
         where observation_id = $1 and state_version = $2",
        row.observation,
        row.version,
        new.policy,
        new.standing.outcome as Outcome,
        new.origin.as_ref().map(|origin| origin.as_slice()),
        &new.standing.hits,
        &new.standing.missing,
        new.standing.waived,
        new.attempts.cast_signed(),
        new.next_at
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

/// The row, locked until the transaction ends.
pub async fn lock(connection: &mut PgConnection, observation: i64) -> Result<Option<Screened>, DbError> {
    sqlx::query_scalar!("select observation_id from transfer_screenings where observation_id = $1 for update", observation)
        .fetch_optional(&mut *connection)
        .await?;
    Ok(list_rows(connection, &[observation]).await?.pop())
}

/// Stores a decision. The database refuses anybody but a resolver.
pub async fn set_ruling(connection: &mut PgConnection, observation: i64, ruling: &StoredRuling, cleared: &[String]) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update transfer_screenings
         set decision = $2, decided_by = $3, decided_at = $4, decision_reason = $5, cleared = $6, state_version = state_version + 1
         where observation_id = $1",
        observation,
        ruling.decision as Decision,
        ruling.by.0,
        ruling.at,
        ruling.reason,
        cleared
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a transfer that a resolver decides about")
}

/// Notes that the quarantine of its destination is ours.
pub async fn set_quarantined(connection: &mut PgConnection, observation: i64) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update transfer_screenings set quarantined = true, state_version = state_version + 1 where observation_id = $1",
        observation
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a transfer whose destination is quarantined")
}

/// Hits that nobody has cleared and whose destination is not quarantined: it was on its way, or somebody took
/// it out.
pub async fn list_unquarantined(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select s.observation_id
         from transfer_screenings s join derived_destinations d on d.derived_address_id = s.derived_address_id
         where s.chain_id = $1::bigint and not s.passes and s.outcome = 'hit' and d.status = 'active' order by s.observation_id limit $2",
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// What is held, or everything there is, after an id.
pub async fn list_held(connection: &mut PgConnection, all: bool, after: i64, limit: i64) -> Result<Vec<Screened>, DbError> {
    let ids = sqlx::query_scalar!(
        "select observation_id from transfer_screenings where (not passes or $1) and observation_id > $2 order by observation_id limit $3",
        all,
        after,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    list_rows(connection, &ids).await
}

/// A stored answer as people read it.
#[derive(Debug)]
pub struct VerdictRow {
    pub screener: ScreenerKind,
    pub outcome: Outcome,
    pub evidence: serde_json::Value,
    pub screened_at: OffsetDateTime,
}

/// The newest answers about a sighting, newest first.
pub async fn list_verdicts(connection: &mut PgConnection, observation: i64) -> Result<Vec<VerdictRow>, DbError> {
    let rows = sqlx::query_as!(
        VerdictRow,
        r#"
        select screener as "screener: ScreenerKind", outcome as "outcome: Outcome", evidence, screened_at
        from screening_verdicts where observation_id = $1 order by id desc limit 100
        "#,
        observation
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Whether nothing is held at an address, and whether its quarantine was made by screening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressStanding {
    pub passes: bool,
    pub quarantined: bool,
}

pub async fn get_address_standing(
    connection: &mut PgConnection,
    chain: ChainId,
    derived_address: Uuid,
) -> Result<AddressStanding, DbError> {
    let row = sqlx::query!(
        r#"
        select coalesce(bool_and(passes), true) as "passes!", coalesce(bool_or(quarantined), false) as "quarantined!"
        from transfer_screenings where derived_address_id = $2 and chain_id = $1::bigint
        "#,
        chain.as_i64(),
        derived_address
    )
    .fetch_one(connection)
    .await?;
    Ok(AddressStanding { passes: row.passes, quarantined: row.quarantined })
}

/// Why money of an address may not leave, if so: not everything credited there passes under the policy in
/// force. No standing there changes before the caller's transaction ends.
pub async fn find_hold(connection: &mut PgConnection, chain: ChainId, derived_address: Uuid) -> Result<Option<Hold>, DbError> {
    let rows = sqlx::query!(
        r#"
        select policy_id, passes, outcome as "outcome?: Outcome"
        from transfer_screenings where derived_address_id = $2 and chain_id = $1::bigint order by observation_id for share
        "#,
        chain.as_i64(),
        derived_address
    )
    .fetch_all(&mut *connection)
    .await?;
    let in_force = find_policy(connection, chain).await?.filter(|(_, policy)| policy.is_required()).map(|(id, _)| id);
    let held = rows.iter().filter(|row| !row.passes).map(|row| match row.outcome {
        Some(Outcome::Hit) => Hold::Hit,
        Some(Outcome::Unavailable | Outcome::Clear | Outcome::NotScreened) | None => Hold::Unavailable,
    });
    let worst = held.reduce(|worst, hold| if worst == Hold::Hit { worst } else { hold });
    let unscreened = in_force.is_some() && rows.iter().any(|row| row.policy_id != in_force);
    Ok(worst.or(unscreened.then_some(Hold::Unscreened)))
}

/// What is worth a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub hits: u64,
    pub unavailable: u64,
    pub waiting: u64,
    pub frozen: u64,
}

pub async fn count(connection: &mut PgConnection, chain: ChainId) -> Result<Counts, DbError> {
    let row = sqlx::query!(
        r#"
        select
            (select count(*) from transfer_screenings where chain_id = $1::bigint and not passes and outcome = 'hit') as "hits!",
            (select count(*) from transfer_screenings where chain_id = $1::bigint and not passes and outcome = 'unavailable') as "unavailable!",
            (select count(*) from transfer_screenings where chain_id = $1::bigint and policy_id is null) as "waiting!",
            (select count(*) from token_freezes where chain_id = $1::bigint and closed_at is null) as "frozen!"
        "#,
        chain.as_i64()
    )
    .fetch_one(connection)
    .await?;
    Ok(Counts {
        hits: count_from_sql("transfer_screenings", row.hits)?,
        unavailable: count_from_sql("transfer_screenings", row.unavailable)?,
        waiting: count_from_sql("transfer_screenings", row.waiting)?,
        frozen: count_from_sql("token_freezes", row.frozen)?,
    })
}

// === what issuers froze ===

/// An address that a token's issuer has frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freeze {
    pub id: i64,
    pub contract: Address,
    pub address: Address,
    pub quarantined: bool,
}

/// What is frozen on a chain as far as anybody has seen.
pub async fn list_freezes(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Freeze>, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, contract as "contract!: Vec<u8>", address as "address!: Vec<u8>", quarantined
        from token_freezes where chain_id = $1::bigint and closed_at is null order by id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let (contract, address) = (address_from_sql(&row.contract)?, address_from_sql(&row.address)?);
            Ok(Freeze { id: row.id, contract, address, quarantined: row.quarantined })
        })
        .collect()
}

/// The open row of a freeze, made if there is none; and whether it is new.
pub async fn upsert_freeze(
    connection: &mut PgConnection,
    chain: ChainId,
    (contract, address): (Address, Address),
    at: BlockRef,
    now: OffsetDateTime,
) -> Result<(i64, bool), DbError> {
    let inserted = sqlx::query_scalar!(
        "insert into token_freezes (chain_id, contract, address, block_number, block_hash, first_seen_at)
         values ($1::bigint, $2::bytea, $3::bytea, $4, $5::bytea, $6)
         on conflict (chain_id, contract, address) where closed_at is null do nothing returning id",
        chain.as_i64(),
        contract.as_slice(),
        address.as_slice(),
        at.number.as_i64(),
        at.hash.as_slice(),
        now
    )
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(id) = inserted {
        return Ok((id, true));
    }
    let id = sqlx::query_scalar!(
        "select id from token_freezes where chain_id = $1::bigint and contract = $2::bytea and address = $3::bytea and closed_at is null",
        chain.as_i64(),
        contract.as_slice(),
        address.as_slice()
    )
    .fetch_one(connection)
    .await?;
    Ok((id, false))
}

/// Notes that the quarantine of its destination is ours.
pub async fn set_freeze_quarantined(connection: &mut PgConnection, freeze: i64) -> Result<(), DbError> {
    let rows = sqlx::query!("update token_freezes set quarantined = true where id = $1 and closed_at is null", freeze)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "a freeze whose destination is quarantined")
}

/// The issuer has lifted it. `false` if it was closed already.
pub async fn close_freeze(connection: &mut PgConnection, freeze: i64, now: OffsetDateTime) -> Result<bool, DbError> {
    let outcome =
        sqlx::query!("update token_freezes set closed_at = greatest($2, first_seen_at) where id = $1 and closed_at is null", freeze, now)
            .execute(connection)
            .await?;
    Ok(outcome.rows_affected() == 1)
}

/// Which of these addresses a token's issuer has frozen, if one. The chain's own coin has no issuer.
pub async fn find_freeze(connection: &mut PgConnection, asset: AssetId, addresses: &[Address]) -> Result<Option<Address>, DbError> {
    let Asset::Token(contract) = asset.asset else { return Ok(None) };
    let addresses: Vec<Vec<u8>> = addresses.iter().map(|address| address.to_vec()).collect();
    let found = sqlx::query_scalar!(
        r#"
        select address as "address!: Vec<u8>" from token_freezes
        where chain_id = $1::bigint and contract = $2::bytea and address = any ($3::bytea[]) and closed_at is null limit 1
        "#,
        asset.chain.as_i64(),
        contract.as_slice(),
        &addresses
    )
    .fetch_optional(connection)
    .await?;
    found.map(|address| address_from_sql(&address)).transpose()
}

/// Sellers of payments that are not finished, with the token that they are to get, in the order of the
/// payments.
pub async fn list_sellers(
    connection: &mut PgConnection,
    chain: ChainId,
    after: PaymentId,
    limit: i64,
) -> Result<Vec<(PaymentId, Address, Address)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, seller_address as "seller!: Vec<u8>", token_contract as "contract!: Vec<u8>"
        from payments where chain_id = $1::bigint and id > $2 and status in ('pending', 'processing', 'confirmed') order by id limit $3
        "#,
        chain.as_i64(),
        after.0,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((PaymentId(row.id), address_from_sql(&row.seller)?, address_from_sql(&row.contract)?))).collect()
}

/// A payment whose money a freeze touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affected {
    pub payment: PaymentId,
    pub destination: Uuid,
    pub status: DestinationStatus,
    /// It is the payment's own deposit address, and not its seller's.
    pub is_deposit: bool,
    /// The exception is open already.
    pub told: bool,
}

/// Payments that are not finished and whose seller or unswept deposit address this is.
pub async fn list_affected(
    connection: &mut PgConnection,
    chain: ChainId,
    (contract, address): (Address, Address),
    limit: i64,
) -> Result<Vec<Affected>, DbError> {
    let rows = sqlx::query_as!(
        AffectedRow,
        r#"
        select p.id, d.id as destination_id, d.status as "status: DestinationStatus", d.address = $3::bytea as "is_deposit!",
               exists (
                   select from payment_exceptions e where e.payment_id = p.id and e.kind = 'frozen' and e.closed_at is null
               ) as "told!"
        from payments p join derived_destinations d on d.payment_id = p.id
        where p.chain_id = $1::bigint and p.status in ('pending', 'processing', 'confirmed')
          and ((p.seller_address = $3::bytea and p.token_contract = $2::bytea) or (d.address = $3::bytea and d.status <> 'swept'))
        order by p.id limit $4
        "#,
        chain.as_i64(),
        contract.as_slice(),
        address.as_slice(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Affected::from).collect())
}

struct AffectedRow {
    id: Uuid,
    destination_id: Uuid,
    status: DestinationStatus,
    is_deposit: bool,
    told: bool,
}

impl From<AffectedRow> for Affected {
    fn from(row: AffectedRow) -> Self {
        let payment = PaymentId(row.id);
        Self { payment, destination: row.destination_id, status: row.status, is_deposit: row.is_deposit, told: row.told }
    }
}

/// Whether anything that a payment's money passes is frozen: its deposit address, or its seller in the token
/// due.
pub async fn is_touched_by_freeze(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let touched = sqlx::query_scalar!(
        r#"
        select exists (
            select from payments p
            join derived_destinations d on d.payment_id = p.id
            join token_freezes f on f.chain_id = p.chain_id and f.closed_at is null
                and (f.address = d.address or (f.address = p.seller_address and f.contract = p.token_contract))
            where p.id = $1
        ) as "touched!"
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(touched)
}

/// Whether a reorg ever took a credit of a payment away: then its quarantine is not ours alone.
pub async fn was_reorged(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from payment_exceptions where payment_id = $1 and kind = 'reorged') as "found!""#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}
