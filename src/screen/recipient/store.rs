//! SQL of `recipient_screenings` and `recipient_verdicts`.

use alloy::primitives::Address;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::policy::{Decision, Outcome, Standing};
use super::super::store::{StoredRuling, VerdictRow, find_policy, outcome_of};
use super::super::{Answer, Hold, ScreenerKind};
use super::Recipient;
use crate::db::codec::{address_from_sql, chain_from_sql};
use crate::db::{DbError, expect_one};
use crate::units::{ChainId, PaymentId, UserId};

struct Row {
    id: i64,
    payment_id: Uuid,
    chain_id: i64,
    address: Vec<u8>,
    policy_id: Option<i64>,
    outcome: Option<Outcome>,
    hits: Vec<String>,
    missing: Vec<String>,
    cleared: Vec<String>,
    passes: bool,
    attempts: i32,
    quarantined: bool,
    decision: Option<Decision>,
    decided_by: Option<Uuid>,
    decided_at: Option<OffsetDateTime>,
    decision_reason: Option<String>,
    state_version: i64,
}

impl TryFrom<Row> for Recipient {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let ruling = match (row.decision, row.decided_by, row.decided_at, row.decision_reason) {
            (Some(decision), Some(by), Some(at), Some(reason)) => Some(StoredRuling { decision, by: UserId(by), at, reason }),
            _ => None,
        };
        Ok(Self {
            id: row.id,
            payment: PaymentId(row.payment_id),
            chain: chain_from_sql(row.chain_id)?,
            address: address_from_sql(&row.address)?,
            policy: row.policy_id,
            standing: Standing {
                outcome: row.outcome.unwrap_or(Outcome::NotScreened),
                hits: row.hits,
                missing: row.missing,
                waived: false,
                cleared: row.cleared,
            },
            passes: row.passes,
            attempts: row.attempts.cast_unsigned(),
            quarantined: row.quarantined,
            ruling,
            version: row.state_version,
        })
    }
}

async fn list_rows(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<Recipient>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, payment_id, chain_id as "chain_id!: i64", address as "address!: Vec<u8>", policy_id, outcome as "outcome?: Outcome",
               hits, missing, cleared, passes, attempts, quarantined, decision as "decision?: Decision", decided_by, decided_at,
               decision_reason, state_version
        from recipient_screenings where id = any ($1::bigint[]) order by id
        "#,
        ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Recipient::try_from).collect()
}

pub async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<Recipient>, DbError> {
    Ok(list_rows(connection, &[id]).await?.pop())
}

/// The row, locked until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, id: i64) -> Result<Option<Recipient>, DbError> {
    sqlx::query_scalar!("select id from recipient_screenings where id = $1 for update", id).fetch_optional(&mut *connection).await?;
    find(connection, id).await
}

/// Recipients of a chain that nobody has looked at, that an older policy screened and whose payment is not finished, or
/// about whom a screener owes an answer.
pub(in crate::screen) async fn list_due(
    connection: &mut PgConnection,
    chain: ChainId,
    policy: i64,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<Recipient>, DbError> {
    let ids = sqlx::query_scalar!(
        r#"
        (select id as "id!" from recipient_screenings where chain_id = $1::bigint and policy_id is null order by id limit $4)
        union
        (select id from recipient_screenings where chain_id = $1::bigint and next_at <= $3 order by next_at, id limit $4)
        union
        (select s.id from recipient_screenings s join payments p on p.id = s.payment_id
         where s.chain_id = $1::bigint and s.policy_id < $2
           and (p.status in ('pending', 'processing', 'confirmed')
                or exists (select from payment_exceptions e where e.payment_id = p.id and e.closed_at is null))
         order by s.policy_id, s.id limit $4)
        order by 1 limit $4
        "#,
        chain.as_i64(),
        policy,
        now,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    list_rows(connection, &ids).await
}

/// What a round made of a row.
pub(super) struct NewStanding<'s> {
    pub(super) policy: i64,
    pub(super) standing: &'s Standing,
    pub(super) attempts: u32,
    pub(super) next_at: Option<OffsetDateTime>,
}

pub(super) async fn set_standing(connection: &mut PgConnection, row: &Recipient, new: &NewStanding<'_>) -> Result<bool, DbError> {
    let outcome = sqlx::query!(
        "update recipient_screenings
         set policy_id = $3, outcome = $4, hits = $5, missing = $6, attempts = $7, next_at = $8, state_version = state_version + 1
         where id = $1 and state_version = $2",
        row.id,
        row.version,
        new.policy,
        new.standing.outcome as Outcome,
        &new.standing.hits,
        &new.standing.missing,
        new.attempts.cast_signed(),
        new.next_at
    )
    .execute(connection)
    .await?;
    Ok(outcome.rows_affected() == 1)
}

pub(super) async fn append_verdict(
    connection: &mut PgConnection,
    (recipient, policy): (i64, i64),
    screener: ScreenerKind,
    answer: &Answer,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    let (outcome, evidence) = outcome_of(answer);
    sqlx::query!(
        "insert into recipient_verdicts (recipient_id, policy_id, screener, outcome, evidence, screened_at) values ($1, $2, $3, $4, $5, $6)",
        recipient,
        policy,
        screener as ScreenerKind,
        outcome as Outcome,
        evidence,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores a decision. The database refuses anybody but a resolver.
pub(super) async fn set_ruling(connection: &mut PgConnection, id: i64, ruling: &StoredRuling, cleared: &[String]) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update recipient_screenings
         set decision = $2, decided_by = $3, decided_at = $4, decision_reason = $5, cleared = $6, state_version = state_version + 1
         where id = $1",
        id,
        ruling.decision as Decision,
        ruling.by.0,
        ruling.at,
        ruling.reason,
        cleared
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a recipient that a resolver decides about")
}

/// Notes that the quarantine of its payment's destination is ours.
pub(super) async fn set_quarantined(connection: &mut PgConnection, id: i64) -> Result<(), DbError> {
    let rows = sqlx::query!("update recipient_screenings set quarantined = true, state_version = state_version + 1 where id = $1", id)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "a recipient whose payment's destination is quarantined")
}

/// Whether any recipient of a payment is held.
pub(in crate::screen) async fn is_held(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let held = sqlx::query_scalar!(
        r#"select exists (select from recipient_screenings where payment_id = $1 and not passes) as "held!""#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(held)
}

/// Whether a recipient of a payment had its destination quarantined.
pub(super) async fn has_quarantined(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from recipient_screenings where payment_id = $1 and quarantined) as "found!""#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// Hits that nobody has cleared and whose destination is not quarantined: it was on its way.
pub(in crate::screen) async fn list_unquarantined(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<i64>, DbError> {
    let ids = sqlx::query_scalar!(
        "select s.id from recipient_screenings s join derived_destinations d on d.payment_id = s.payment_id
         where s.chain_id = $1::bigint and not s.passes and s.outcome = 'hit' and d.status = 'active' order by s.id limit $2",
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

/// The row if it is still held, locked.
pub(in crate::screen) async fn lock_held(connection: &mut PgConnection, id: i64) -> Result<Option<Recipient>, DbError> {
    Ok(lock(connection, id).await?.filter(|row| !row.passes))
}

/// Recipients that are held, or all, after an id.
pub async fn list_held(connection: &mut PgConnection, all: bool, after: i64, limit: i64) -> Result<Vec<Recipient>, DbError> {
    let ids = sqlx::query_scalar!(
        "select id from recipient_screenings where (not passes or $1) and id > $2 order by id limit $3",
        all,
        after,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    list_rows(connection, &ids).await
}

/// The newest answers about a recipient, newest first.
pub async fn list_verdicts(connection: &mut PgConnection, id: i64) -> Result<Vec<VerdictRow>, DbError> {
    let rows = sqlx::query_as!(
        VerdictRow,
        r#"
        select screener as "screener: ScreenerKind", outcome as "outcome: Outcome", evidence, screened_at
        from recipient_verdicts where recipient_id = $1 order by id desc limit 100
        "#,
        id
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Why nothing may go to this recipient of a payment, if so. Its standing does not change before the caller's
/// transaction ends.
pub async fn find_hold(
    connection: &mut PgConnection,
    payment: PaymentId,
    chain: ChainId,
    address: Address,
) -> Result<Option<Hold>, DbError> {
    let row = sqlx::query!(
        r#"
        select policy_id, passes, outcome as "outcome?: Outcome" from recipient_screenings
        where payment_id = $1 and chain_id = $2::bigint and address = $3::bytea for share
        "#,
        payment.0,
        chain.as_i64(),
        address.as_slice()
    )
    .fetch_optional(&mut *connection)
    .await?;
    let in_force = find_policy(connection, chain).await?.filter(|(_, policy)| policy.is_required()).map(|(id, _)| id);
    let Some(row) = row else { return Ok(in_force.map(|_| Hold::RecipientUnscreened(address))) };
    if !row.passes {
        let is_hit = row.outcome == Some(Outcome::Hit);
        return Ok(Some(if is_hit { Hold::RecipientHit(address) } else { Hold::RecipientUnavailable(address) }));
    }
    let unscreened = in_force.is_some() && row.policy_id != in_force;
    Ok(unscreened.then_some(Hold::RecipientUnscreened(address)))
}
