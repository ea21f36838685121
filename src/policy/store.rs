//! SQL of `outflow_policies` and `outflow_destinations`.

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{Destination, DestinationAsked, DocumentError, Policy, PolicyError, PolicyRow, Standing};
use crate::account;
use crate::db::codec::{address_from_sql, chain_from_sql, hash_from_sql};
use crate::db::{DbError, expect_one};
use crate::event::{self, Event};
use crate::officer::proposal::{self, NewProposal, Proposal, ProposalError, Subject};
use crate::officer::{Caller, OfficerError};
use crate::units::{ChainId, PolicyId, ProposalId, UserId};

/// Stores a policy as one officer's proposal.
pub async fn propose(
    connection: &mut PgConnection,
    policy: &Policy,
    effective_at: Option<OffsetDateTime>,
    reason: String,
    caller: &Caller,
) -> Result<Proposal, PolicyError> {
    let new = NewProposal { subject: Subject::Policy, body: policy.canonical(), effective_at, reason };
    Ok(proposal::store::propose(connection, &new, caller).await?)
}

/// Another officer confirms a proposed policy; it is in force from now, or from the instant it was dated to.
pub async fn confirm(connection: &mut PgConnection, id: ProposalId, digest: B256, caller: &Caller) -> Result<PolicyRow, PolicyError> {
    let proposal = proposal::store::confirm(connection, id, Subject::Policy, digest, caller).await?;
    // What cannot be read must not come into force: nothing could leave, and nothing could say why.
    Policy::from_canonical(&proposal.body)?;
    let policy_id = sqlx::query_scalar!(
        r#"
        insert into outflow_policies (proposal_id, body, digest, effective_at)
        values ($1, $2, $3::bytea, greatest(now(), coalesce($4, now()))) returning id
        "#,
        id.0,
        proposal.body,
        proposal.digest.as_slice(),
        proposal.effective_at
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let row = get(connection, PolicyId(policy_id)).await?;
    let detail = serde_json::json!({
        "policy": row.id, "proposal": id, "digest": row.digest, "rules": row.policy.rules.len(), "proposed_by": row.proposed_by,
        "confirmed_by": row.confirmed_by,
    });
    tracing::warn!(policy = %row.id, proposal = %id, by = %caller.name(), "policy confirmed");
    event::store::append(connection, &Event { kind: "policy.confirmed", payment: None, intent: None, chain: None, detail }).await?;
    Ok(row)
}

struct Row {
    id: i64,
    body: String,
    digest: Vec<u8>,
    effective_at: OffsetDateTime,
    created_at: OffsetDateTime,
    proposed_by: uuid::Uuid,
    decided_by: uuid::Uuid,
    reason: String,
}

impl TryFrom<Row> for PolicyRow {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, DbError> {
        let policy = Policy::from_canonical(&row.body).map_err(|error: DocumentError| DbError::Corrupt {
            column: "outflow_policies.body",
            found: error.to_string(),
            wanted: "a policy that this version reads",
        })?;
        Ok(Self {
            id: PolicyId(row.id),
            policy,
            digest: hash_from_sql(&row.digest)?,
            effective_at: row.effective_at,
            created_at: row.created_at,
            proposed_by: UserId(row.proposed_by),
            confirmed_by: UserId(row.decided_by),
            reason: row.reason,
        })
    }
}

/// The policy in force by the database's clock; `None` before the first.
pub async fn find_in_force(connection: &mut PgConnection) -> Result<Option<PolicyRow>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select o.id, o.body, o.digest as "digest!: Vec<u8>", o.effective_at, o.created_at, p.proposed_by, d.decided_by, p.reason
        from outflow_policies o
        join change_proposals p on p.id = o.proposal_id
        join change_decisions d on d.proposal_id = p.id
        where o.effective_at <= now() order by o.id desc limit 1
        "#
    )
    .fetch_optional(connection)
    .await?;
    row.map(PolicyRow::try_from).transpose()
}

pub async fn get(connection: &mut PgConnection, id: PolicyId) -> Result<PolicyRow, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select o.id, o.body, o.digest as "digest!: Vec<u8>", o.effective_at, o.created_at, p.proposed_by, d.decided_by, p.reason
        from outflow_policies o
        join change_proposals p on p.id = o.proposal_id
        join change_decisions d on d.proposal_id = p.id
        where o.id = $1
        "#,
        id.0
    )
    .fetch_one(connection)
    .await?;
    row.try_into()
}

/// Every policy there was and those that are dated ahead, newest first.
pub async fn list(connection: &mut PgConnection, limit: i64) -> Result<Vec<PolicyRow>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select o.id, o.body, o.digest as "digest!: Vec<u8>", o.effective_at, o.created_at, p.proposed_by, d.decided_by, p.reason
        from outflow_policies o
        join change_proposals p on p.id = o.proposal_id
        join change_decisions d on d.proposal_id = p.id
        order by o.id desc limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(PolicyRow::try_from).collect()
}

// === destinations ===

/// One officer proposes a destination, or another label of it: either way its cooling begins anew once it is
/// confirmed.
pub async fn propose_destination(
    connection: &mut PgConnection,
    asked: &DestinationAsked,
    reason: String,
    caller: &Caller,
) -> Result<Proposal, PolicyError> {
    let found = asked.label.chars().count();
    if !(1..=100).contains(&found) {
        return Err(PolicyError::Label { found });
    }
    if account::store::find_address_id(connection, asked.address).await?.is_some() {
        return Err(PolicyError::Own(asked.address));
    }
    let new = NewProposal { subject: Subject::Destination, body: asked.canonical(), effective_at: None, reason };
    Ok(proposal::store::propose(connection, &new, caller).await?)
}

/// Another officer confirms a destination.
pub async fn confirm_destination(
    connection: &mut PgConnection,
    id: ProposalId,
    digest: B256,
    caller: &Caller,
) -> Result<Destination, PolicyError> {
    let proposal = proposal::store::confirm(connection, id, Subject::Destination, digest, caller).await?;
    let asked: DestinationAsked = serde_json::from_str(&proposal.body).map_err(|error| DocumentError::Stored(error.to_string()))?;
    let chain = ChainId::new(asked.chain).ok_or_else(|| DocumentError::Stored("chain 0".to_owned()))?;
    let Some((officer, _)) = caller.user else { return Err(OfficerError::Proposal(ProposalError::NotAnOfficer).into()) };
    let change = Change { chain, address: asked.address, label: &asked.label, proposal: Some(id), officer, reason: &proposal.reason };
    append_destination(connection, change).await
}

/// Takes a destination off the list, at once: one officer's act.
pub async fn remove_destination(
    connection: &mut PgConnection,
    chain: ChainId,
    address: Address,
    reason: &str,
    caller: &Caller,
) -> Result<Destination, PolicyError> {
    let Some((officer, role)) = caller.user else { return Err(OfficerError::Proposal(ProposalError::NotAnOfficer).into()) };
    if !role.is_officer() {
        return Err(OfficerError::Proposal(ProposalError::NotAnOfficer).into());
    }
    let found = reason.chars().count();
    if !(1..=500).contains(&found) {
        return Err(OfficerError::Proposal(ProposalError::Reason { found }).into());
    }
    let listed = find_destination(connection, chain, address).await?.filter(|destination| destination.allowed);
    let Some(listed) = listed else { return Err(PolicyError::NotListed(address)) };
    append_destination(connection, Change { chain, address, label: &listed.label, proposal: None, officer, reason }).await
}

struct Change<'a> {
    chain: ChainId,
    address: Address,
    label: &'a str,
    proposal: Option<ProposalId>,
    officer: UserId,
    reason: &'a str,
}

async fn append_destination(connection: &mut PgConnection, change: Change<'_>) -> Result<Destination, PolicyError> {
    let Change { chain, address, label, proposal, officer, reason } = change;
    let allowed = proposal.is_some();
    let rows = sqlx::query!(
        "insert into outflow_destinations (chain_id, address, label, allowed, proposal_id, changed_by, reason)
         values ($1::bigint, $2::bytea, $3, $4, $5, $6, $7)",
        chain.as_i64(),
        address.as_slice(),
        label,
        allowed,
        proposal.map(|proposal| proposal.0),
        officer.0,
        reason
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    expect_one(rows, "a change of a destination")?;
    let kind = if allowed { "policy.destination_listed" } else { "policy.destination_removed" };
    let detail = serde_json::json!({ "address": address, "label": label, "officer": officer, "reason": reason, "proposal": proposal });
    tracing::warn!(chain.id = chain.get(), %address, %officer, "{kind}");
    event::store::append(connection, &Event { kind, payment: None, intent: None, chain: Some(chain), detail }).await?;
    let found = find_destination(connection, chain, address).await?;
    found.ok_or_else(|| DbError::NotOneRow { what: "the destination just stored", found: 0 }.into())
}

struct DestinationRow {
    chain_id: i64,
    address: Vec<u8>,
    label: String,
    allowed: bool,
    changed_by: uuid::Uuid,
    reason: String,
    created_at: OffsetDateTime,
}

impl TryFrom<DestinationRow> for Destination {
    type Error = DbError;

    fn try_from(row: DestinationRow) -> Result<Self, DbError> {
        Ok(Self {
            chain: chain_from_sql(row.chain_id)?,
            address: address_from_sql(&row.address)?,
            label: row.label,
            allowed: row.allowed,
            changed_by: UserId(row.changed_by),
            reason: row.reason,
            created_at: row.created_at,
        })
    }
}

/// The newest change of an address.
async fn find_destination(connection: &mut PgConnection, chain: ChainId, address: Address) -> Result<Option<Destination>, DbError> {
    let row = sqlx::query_as!(
        DestinationRow,
        r#"
        select chain_id as "chain_id!: i64", address as "address!: Vec<u8>", label, allowed, changed_by, reason, created_at
        from outflow_destinations where chain_id = $1::bigint and address = $2::bytea order by id desc limit 1
        "#,
        chain.as_i64(),
        address.as_slice()
    )
    .fetch_optional(connection)
    .await?;
    row.map(Destination::try_from).transpose()
}

/// What is on the list, by chain and address.
pub async fn list_destinations(connection: &mut PgConnection, limit: i64) -> Result<Vec<Destination>, DbError> {
    let rows = sqlx::query_as!(
        DestinationRow,
        r#"
        select chain_id as "chain_id!: i64", address as "address!: Vec<u8>", label, allowed, changed_by, reason, created_at
        from (select distinct on (chain_id, address) * from outflow_destinations order by chain_id, address, id desc) newest
        where allowed order by chain_id, address limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Destination::try_from).collect()
}

/// How an address stands now.
pub async fn get_standing(connection: &mut PgConnection, chain: ChainId, address: Address) -> Result<Standing, DbError> {
    if account::store::find_address_id(connection, address).await?.is_some() {
        return Ok(Standing::Own);
    }
    Ok(match find_destination(connection, chain, address).await? {
        Some(destination) if destination.allowed => Standing::Listed { since: destination.created_at },
        Some(_) | None => Standing::Unlisted,
    })
}
