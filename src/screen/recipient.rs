//! Whom money goes to: the recipient of every order is screened before a transaction is planned for it.
//!
//! The row that waits comes with the order, by the database's own trigger. The screeners are the ones that are asked about
//! senders. A hit stops the payout, quarantines the payment's destination and is news; only a resolver frees it. `intent`
//! asks [`store::find_hold`] when it plans, when a station claims and before the first send.

pub mod store;

use alloy::primitives::{Address, B256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::policy::{Decision, Outcome, Policy, Standing, retry_after};
use super::store::StoredRuling;
use super::{Answer, Ruling, ScreenError, ScreenerKind, Subject, decide};
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::officer::{self, UserRole};
use crate::payment::{self, ExceptionKind};
use crate::units::{Asset, AssetId, ChainId, PaymentId, TokenAmount};

/// A recipient and where it stands.
#[derive(Clone, Debug)]
pub struct Recipient {
    pub id: i64,
    pub payment: PaymentId,
    pub chain: ChainId,
    pub address: Address,
    /// By which policy it was screened last.
    pub policy: Option<i64>,
    pub standing: Standing,
    /// As the database computes it.
    pub passes: bool,
    pub attempts: u32,
    pub quarantined: bool,
    pub ruling: Option<StoredRuling>,
    pub version: i64,
}

impl Recipient {
    /// As screeners are asked about it: nothing has moved yet, so there is no transaction and no amount.
    pub(super) fn subject(&self) -> Subject {
        let asset = AssetId { chain: self.chain, asset: Asset::Native };
        let amount = TokenAmount::new(asset, U256::ZERO);
        Subject { tx_hash: B256::ZERO, amount, sender: self.address, origin: Some(self.address) }
    }
}

/// Stores what the screeners say of a recipient; what does not pass is held. `false` if the row has changed since it
/// was read, and then nothing is stored.
pub(super) async fn take_answers(
    connection: &mut PgConnection,
    row: &Recipient,
    answers: &[(ScreenerKind, Answer)],
    policy: &(i64, Policy),
    now: OffsetDateTime,
) -> Result<bool, ScreenError> {
    let standing = row.standing.after(answers, policy.1.is_required(), true, false);
    let attempts = if standing.missing.is_empty() { 0 } else { row.attempts.saturating_add(1) };
    let next_at = (!standing.missing.is_empty()).then(|| now + retry_after(attempts));
    let new = store::NewStanding { policy: policy.0, standing: &standing, attempts, next_at };
    if !store::set_standing(connection, row, &new).await? {
        return Ok(false);
    }
    for (screener, answer) in answers {
        // Of screeners that do not answer, the first silence is worth a row, not each.
        if !matches!(answer, Answer::Unavailable { .. }) || row.attempts == 0 {
            store::append_verdict(connection, (row.id, policy.0), *screener, answer, now).await?;
        }
    }
    if standing.passes() {
        if !row.passes {
            free(connection, row, "every screener has answered").await?;
        }
    } else {
        hold(connection, row, &standing).await?;
    }
    Ok(true)
}

/// Holds the payment of a recipient who does not pass.
async fn hold(connection: &mut PgConnection, row: &Recipient, after: &Standing) -> Result<(), ScreenError> {
    let is_hit = after.outcome == Outcome::Hit;
    let what = if is_hit { after.hits.join(", ") } else { after.missing.join(", ") };
    if row.passes || row.standing.hits != after.hits {
        let kind = if is_hit { "payment.recipient_hit" } else { "payment.recipient_unavailable" };
        note(connection, kind, row, serde_json::json!({ "hits": after.hits, "missing": after.missing })).await?;
        if is_hit {
            tracing::error!(
                chain.id = row.chain.get(), recipient = row.id, payment.id = %row.payment, hits = what,
                "screening hit whom money would go to; nothing is planned until a resolver decides"
            );
        } else {
            tracing::warn!(
                chain.id = row.chain.get(), recipient = row.id, payment.id = %row.payment, missing = what,
                "screening of a recipient is incomplete; its payout waits and the screener is asked again"
            );
        }
    }
    payment::store::lock(connection, row.payment).await?;
    if is_hit {
        // A hit says more than what was missing before.
        decide::close(connection, row.payment, "a hit since").await?;
    }
    let detail = format!("{}recipient {}: {what}", decide::DETAIL, row.address);
    payment::store::open_exception(connection, row.payment, ExceptionKind::Held, &detail).await?;
    if is_hit { quarantine(connection, row).await } else { Ok(()) }
}

/// Quarantines the payment's destination, unless it is on its way or somebody did so before.
pub(super) async fn quarantine(connection: &mut PgConnection, row: &Recipient) -> Result<(), ScreenError> {
    let destination = deposit::store::find_by_payment(connection, row.payment).await?;
    if let Some(destination) = destination.filter(|destination| destination.status == DestinationStatus::Active) {
        deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Quarantined).await?;
        store::set_quarantined(connection, row.id).await?;
    }
    Ok(())
}

/// Lets a payment go on when nothing of it is held any more.
async fn free(connection: &mut PgConnection, row: &Recipient, resolution: &str) -> Result<(), ScreenError> {
    payment::store::lock(connection, row.payment).await?;
    if store::is_held(connection, row.payment).await? {
        return Ok(());
    }
    let Some(destination) = deposit::store::find_by_payment(connection, row.payment).await? else {
        return Ok(decide::close(connection, row.payment, resolution).await?);
    };
    let sent = super::store::get_address_standing(connection, row.chain, destination.derived_address).await?;
    if !sent.passes {
        return Ok(());
    }
    decide::close(connection, row.payment, resolution).await?;
    if sent.quarantined || store::has_quarantined(connection, row.payment).await? {
        decide::leave_quarantine(connection, row.payment, destination.derived_address).await?;
    }
    Ok(())
}

/// A resolver clears a held recipient, or confirms that it stays held. Nobody else can, here or in the database.
pub async fn decide_recipient(
    connection: &mut PgConnection,
    id: i64,
    ruling: Ruling,
    now: OffsetDateTime,
) -> Result<Recipient, ScreenError> {
    let reason = decide::check_reason(&ruling.reason)?;
    if officer::store::find_role(connection, ruling.by).await? != Some(UserRole::Resolver) {
        return Err(ScreenError::NotResolver(ruling.by));
    }
    let row = store::lock(connection, id).await?.ok_or(ScreenError::UnknownRecipient(id))?;
    if row.passes {
        return Err(ScreenError::RecipientNotHeld(id));
    }
    let cleared: Vec<String> = match ruling.decision {
        Decision::Cleared => row.standing.cleared.iter().chain(&row.standing.hits).chain(&row.standing.missing).cloned().collect(),
        Decision::Confirmed => row.standing.cleared.clone(),
    };
    let stored = StoredRuling { decision: ruling.decision, by: ruling.by, at: now, reason };
    store::set_ruling(connection, id, &stored, &cleared).await?;
    let kind = match ruling.decision {
        Decision::Cleared => "payment.recipient_cleared",
        Decision::Confirmed => "payment.recipient_confirmed",
    };
    let detail = serde_json::json!({
        "hits": row.standing.hits, "missing": row.standing.missing, "by": ruling.by, "reason": stored.reason,
    });
    note(connection, kind, &row, detail).await?;
    tracing::warn!(recipient = id, payment.id = %row.payment, user = %ruling.by, decision = ruling.decision.name(), "a resolver has decided");
    if ruling.decision == Decision::Cleared {
        free(connection, &row, "cleared by a resolver").await?;
    }
    store::find(connection, id).await?.ok_or(ScreenError::UnknownRecipient(id))
}

async fn note(
    connection: &mut PgConnection,
    kind: &'static str,
    row: &Recipient,
    mut detail: serde_json::Value,
) -> Result<(), ScreenError> {
    if let Some(fields) = detail.as_object_mut() {
        fields.insert("recipient".to_owned(), serde_json::json!(row.id));
        fields.insert("address".to_owned(), serde_json::json!(row.address));
    }
    let event = Event { kind, payment: Some(row.payment), intent: None, chain: Some(row.chain), detail };
    Ok(event::store::append(connection, &event).await?)
}
