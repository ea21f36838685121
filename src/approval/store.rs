//! SQL of `intent_approvals`.

use alloy::primitives::B256;
use sqlx::PgConnection;

use super::{ApprovalError, Approver};
use crate::db::DbError;
use crate::event::{self, Event};
use crate::intent::{self, Intent, IntentEvent, IntentState};
use crate::officer::Caller;
use crate::units::IntentId;

/// How far the approvals of an intent are.
#[derive(Clone, Debug)]
pub struct Standing {
    pub intent: Intent,
    pub approvals: u8,
}

/// Records the approval of a token's bearer.
pub async fn insert(connection: &mut PgConnection, id: IntentId, digest: B256, caller: &Caller) -> Result<Standing, ApprovalError> {
    let Some((officer, role)) = caller.user else { return Err(ApprovalError::NotAnOfficer) };
    give(connection, id, digest, Approver { officer, role, token: Some(caller.token_id) }).await
}

/// Records an officer's approval; the one that completes the number moves the intent on.
pub async fn give(connection: &mut PgConnection, id: IntentId, digest: B256, approver: Approver) -> Result<Standing, ApprovalError> {
    let Approver { officer, role, token } = approver;
    if !role.is_officer() {
        return Err(ApprovalError::NotAnOfficer);
    }
    let intent = intent::store::lock(connection, id).await?;
    if intent.was_asked_for_by(&approver.name()) {
        return Err(ApprovalError::OwnRequest { intent: id, officer });
    }
    if !intent::store::digest_matches(&intent, digest) {
        return Err(ApprovalError::StaleDigest { intent: id });
    }
    if intent.state != IntentState::Planned {
        let source = intent::Illegal { state: intent.state, event: IntentEvent::Approved };
        return Err(intent::IntentError::Illegal { intent: id, source }.into());
    }
    let outcome = sqlx::query!(
        "insert into intent_approvals (intent_id, revision, digest, officer_id, api_token_id) values ($1, $2, $3::bytea, $4, $5)",
        id.0,
        intent.revision.cast_signed(),
        digest.as_slice(),
        officer.0,
        token.map(|token| token.0)
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from);
    if let Err(error) = outcome {
        return Err(match error.constraint() {
            Some("intent_approvals_once_per_officer_key") => ApprovalError::Twice { intent: id, officer },
            Some("intent_approvals_not_by_requester") => ApprovalError::OwnRequest { intent: id, officer },
            Some("intent_approvals_of_what_stands") => ApprovalError::StaleDigest { intent: id },
            Some("intent_approvals_by_officer") => ApprovalError::NotAnOfficer,
            Some(_) | None => error.into(),
        });
    }
    let approvals = count(connection, &intent).await?;
    let detail = serde_json::json!({ "officer": officer, "digest": digest, "approvals": approvals, "required": intent.approvals_required });
    event::store::append(connection, &Event::of_intent("intent.approval_given", id, intent.payment, intent.chain(), detail)).await?;
    if approvals < intent.approvals_required {
        return Ok(Standing { intent, approvals });
    }
    let intent = intent::store::advance(connection, &intent, IntentEvent::Approved).await?;
    Ok(Standing { intent, approvals })
}

/// How many officers approved exactly this revision and digest, and whose approval still counts.
pub async fn count(connection: &mut PgConnection, intent: &Intent) -> Result<u8, DbError> {
    let count = sqlx::query_scalar!(
        r#"select count(*) as "count!" from intent_approvals where intent_id = $1 and revision = $2 and digest = $3::bytea and expires_at > now()"#,
        intent.id.0,
        intent.revision.cast_signed(),
        intent.digest.as_slice()
    )
    .fetch_one(connection)
    .await?;
    u8::try_from(count).map_err(|_| DbError::Corrupt { column: "intent_approvals", found: count.to_string(), wanted: "at most 255" })
}

/// Intents that no station has and of which an approval has expired.
pub async fn list_lapsed(connection: &mut PgConnection, limit: i64) -> Result<Vec<IntentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select i.id from intents i
        where i.state in ('planned', 'approved')
          and exists (
              select from intent_approvals a where a.intent_id = i.id and a.revision = i.revision and a.expires_at <= now()
          )
        order by i.created_at limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(IntentId).collect())
}

/// Makes a new revision of an intent whose approvals have expired in part: officers read it and approve it again.
/// `None` if a station was faster.
pub async fn lapse(connection: &mut PgConnection, id: IntentId) -> Result<Option<Intent>, ApprovalError> {
    let intent = intent::store::lock(connection, id).await?;
    match intent.state {
        IntentState::Planned | IntentState::Approved => {}
        IntentState::Signing
        | IntentState::Signed
        | IntentState::Broadcast
        | IntentState::Uncertain
        | IntentState::Mined
        | IntentState::Settled
        | IntentState::Reverted
        | IntentState::Void
        | IntentState::Replaced => return Ok(None),
    }
    let revised = intent::store::revise(connection, &intent, IntentEvent::Lapsed, None).await?;
    let detail = serde_json::json!({ "revision": revised.revision, "digest": revised.digest });
    event::store::append(connection, &Event::of_intent("intent.approvals_expired", id, intent.payment, intent.chain(), detail)).await?;
    tracing::info!(intent.id = %id, chain.id = intent.chain().get(), revision = revised.revision, "approvals expired; the intent waits for new ones");
    Ok(Some(revised))
}
