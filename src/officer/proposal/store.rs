//! SQL of `change_proposals` and `change_decisions`.

use alloy::primitives::B256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Decision, NewProposal, Proposal, ProposalError, Subject, digest_of};
use crate::db::DbError;
use crate::db::codec::hash_from_sql;
use crate::event::{self, Event};
use crate::officer::{Caller, OfficerError};
use crate::units::{ProposalId, UserId};

/// How far behind the database's clock an instant may be and still mean "at once".
const SKEW_MAX: time::Duration = time::Duration::seconds(60);

fn officer_of(caller: &Caller) -> Result<UserId, ProposalError> {
    caller.user.filter(|(_, role)| role.is_officer()).map(|(user, _)| user).ok_or(ProposalError::NotAnOfficer)
}

/// Stores a proposal. It changes nothing until another officer confirms it.
pub async fn propose(connection: &mut PgConnection, new: &NewProposal, caller: &Caller) -> Result<Proposal, OfficerError> {
    let officer = officer_of(caller)?;
    let found = new.reason.chars().count();
    if !(1..=500).contains(&found) {
        return Err(ProposalError::Reason { found }.into());
    }
    let now = clock(connection).await?;
    let effective_at = match new.effective_at {
        Some(asked) if now - asked > SKEW_MAX => return Err(ProposalError::Past { asked, now }.into()),
        Some(asked) if asked > now => Some(asked),
        Some(_) | None => None,
    };
    let digest = digest_of(&new.body);
    let id = sqlx::query_scalar!(
        r#"
        insert into change_proposals (subject, body, digest, effective_at, proposed_by, api_token_id, reason)
        values ($1, $2, $3::bytea, $4, $5, $6, $7) returning id
        "#,
        new.subject as Subject,
        new.body,
        digest.as_slice(),
        effective_at,
        officer.0,
        caller.token_id.0,
        new.reason
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let proposal = get(connection, ProposalId(id)).await?;
    note(connection, &proposal, "officer.change_proposed", officer).await?;
    Ok(proposal)
}

/// Confirms a proposal by its text's digest. The caller brings about what it says, in this transaction.
pub async fn confirm(
    connection: &mut PgConnection,
    id: ProposalId,
    subject: Subject,
    digest: B256,
    caller: &Caller,
) -> Result<Proposal, OfficerError> {
    let officer = officer_of(caller)?;
    let proposal = get(connection, id).await?;
    if proposal.subject != subject {
        return Err(ProposalError::OtherSubject { id, found: proposal.subject.name(), expected: subject.name() }.into());
    }
    decide(connection, &proposal, true, digest, caller, None).await?;
    note(connection, &proposal, "officer.change_confirmed", officer).await?;
    get(connection, id).await
}

/// Takes a proposal back. Any officer may.
pub async fn withdraw(connection: &mut PgConnection, id: ProposalId, reason: &str, caller: &Caller) -> Result<Proposal, OfficerError> {
    let officer = officer_of(caller)?;
    let found = reason.chars().count();
    if !(1..=500).contains(&found) {
        return Err(ProposalError::Reason { found }.into());
    }
    let proposal = get(connection, id).await?;
    decide(connection, &proposal, false, proposal.digest, caller, Some(reason)).await?;
    note(connection, &proposal, "officer.change_withdrawn", officer).await?;
    get(connection, id).await
}

async fn decide(
    connection: &mut PgConnection,
    proposal: &Proposal,
    confirmed: bool,
    digest: B256,
    caller: &Caller,
    reason: Option<&str>,
) -> Result<(), OfficerError> {
    let id = proposal.id;
    let officer = officer_of(caller)?;
    let outcome = sqlx::query!(
        "insert into change_decisions (proposal_id, confirmed, digest, decided_by, api_token_id, reason) values ($1, $2, $3::bytea, $4, $5, $6)",
        id.0,
        confirmed,
        digest.as_slice(),
        officer.0,
        caller.token_id.0,
        reason
    )
    .execute(connection)
    .await
    .map_err(DbError::from);
    let Err(error) = outcome else { return Ok(()) };
    Err(match error.constraint() {
        Some("change_decisions_pkey") => ProposalError::Decided(id).into(),
        Some("change_decisions_by_another") => ProposalError::OwnProposal(id).into(),
        Some("change_decisions_by_officer") => ProposalError::NotAnOfficer.into(),
        Some("change_decisions_proposer_is_officer") => ProposalError::ProposerLeft(id).into(),
        Some("change_decisions_of_what_was_proposed") => ProposalError::StaleDigest(id).into(),
        Some("change_decisions_in_time") => ProposalError::Dead(id).into(),
        Some(_) | None => error.into(),
    })
}

/// The database's clock.
pub async fn clock(connection: &mut PgConnection) -> Result<OffsetDateTime, DbError> {
    Ok(sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(connection).await?)
}

struct Row {
    id: i64,
    subject: Subject,
    body: String,
    digest: Vec<u8>,
    effective_at: Option<OffsetDateTime>,
    proposed_by: uuid::Uuid,
    reason: String,
    created_at: OffsetDateTime,
    confirmed: Option<bool>,
    decided_by: Option<uuid::Uuid>,
    decided_at: Option<OffsetDateTime>,
}

impl TryFrom<Row> for Proposal {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let decision = match (row.confirmed, row.decided_by, row.decided_at) {
            (Some(confirmed), Some(by), Some(decided_at)) => Some(Decision { confirmed, decided_by: UserId(by), decided_at }),
            _ => None,
        };
        Ok(Self {
            id: ProposalId(row.id),
            subject: row.subject,
            body: row.body,
            digest: hash_from_sql(&row.digest)?,
            effective_at: row.effective_at,
            proposed_by: UserId(row.proposed_by),
            reason: row.reason,
            created_at: row.created_at,
            decision,
        })
    }
}

pub async fn get(connection: &mut PgConnection, id: ProposalId) -> Result<Proposal, OfficerError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select p.id, p.subject as "subject: Subject", p.body, p.digest as "digest!: Vec<u8>", p.effective_at, p.proposed_by, p.reason,
               p.created_at, d.confirmed as "confirmed?", d.decided_by as "decided_by?", d.created_at as "decided_at?"
        from change_proposals p left join change_decisions d on d.proposal_id = p.id
        where p.id = $1
        "#,
        id.0
    )
    .fetch_optional(connection)
    .await
    .map_err(DbError::from)?
    .ok_or(ProposalError::Unknown(id))?;
    Ok(row.try_into()?)
}

/// Proposals, newest first: those that wait, or all.
pub async fn list(connection: &mut PgConnection, open_only: bool, limit: i64) -> Result<Vec<Proposal>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select p.id, p.subject as "subject: Subject", p.body, p.digest as "digest!: Vec<u8>", p.effective_at, p.proposed_by, p.reason,
               p.created_at, d.confirmed as "confirmed?", d.decided_by as "decided_by?", d.created_at as "decided_at?"
        from change_proposals p left join change_decisions d on d.proposal_id = p.id
        where not $1 or (d.proposal_id is null and p.created_at > now() - interval '7 days')
        order by p.id desc limit $2
        "#,
        open_only,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Proposal::try_from).collect()
}

async fn note(connection: &mut PgConnection, proposal: &Proposal, kind: &'static str, officer: UserId) -> Result<(), DbError> {
    let detail = serde_json::json!({
        "proposal": proposal.id, "subject": proposal.subject.name(), "digest": proposal.digest, "officer": officer, "reason": proposal.reason,
    });
    tracing::info!(proposal = %proposal.id, subject = proposal.subject.name(), %officer, "{kind}");
    event::store::append(connection, &Event { kind, payment: None, intent: None, chain: None, detail }).await
}
