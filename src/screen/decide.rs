//! What a standing does to its payment, and a resolver's word about it; in the transaction of whoever asks.

use alloy::primitives::U256;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::policy::{Decision, Outcome, Standing};
use super::store::{self, Screened, StoredRuling};
use super::{ScreenError, recipient};
use crate::db::DbError;
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::officer::{self, UserRole};
use crate::payment::{self, ExceptionKind};
use crate::units::{ChainId, PaymentId, UserId};

/// How the details of exceptions of this room begin; those of others are left alone.
pub(super) const DETAIL: &str = "screening: ";
const REASON_CHARS_MAX: usize = 500;

/// What a resolver decides about a held transfer.
#[derive(Clone, Debug)]
pub struct Ruling {
    pub decision: Decision,
    pub by: UserId,
    pub reason: String,
}

/// A resolver clears a held transfer, or confirms that it stays held. Nobody else can, here or in the
/// database. A clearance holds for what is known now; another hit holds it again.
pub async fn decide(connection: &mut PgConnection, observation: i64, ruling: Ruling, now: OffsetDateTime) -> Result<Screened, ScreenError> {
    let reason = check_reason(&ruling.reason)?;
    if officer::store::find_role(connection, ruling.by).await? != Some(UserRole::Resolver) {
        return Err(ScreenError::NotResolver(ruling.by));
    }
    let row = store::lock(connection, observation).await?.ok_or(ScreenError::Unknown(observation))?;
    if row.passes {
        return Err(ScreenError::NotHeld(observation));
    }
    let cleared: Vec<String> = match ruling.decision {
        Decision::Cleared => row.standing.cleared.iter().chain(&row.standing.hits).chain(&row.standing.missing).cloned().collect(),
        Decision::Confirmed => row.standing.cleared.clone(),
    };
    let stored = StoredRuling { decision: ruling.decision, by: ruling.by, at: now, reason };
    store::set_ruling(connection, observation, &stored, &cleared).await?;
    let detail = serde_json::json!({
        "screening": observation, "tx_hash": row.subject.tx_hash, "hits": row.standing.hits, "missing": row.standing.missing,
        "by": ruling.by, "reason": stored.reason,
    });
    let kind = match ruling.decision {
        Decision::Cleared => "payment.screening_cleared",
        Decision::Confirmed => "payment.screening_confirmed",
    };
    append(connection, kind, &row, detail).await?;
    tracing::warn!(screening = observation, tx.hash = %row.subject.tx_hash, user = %ruling.by, decision = ruling.decision.name(), "a resolver has decided");
    if ruling.decision == Decision::Cleared {
        free(connection, &row, "cleared by a resolver").await?;
    }
    store::list_rows(connection, &[observation]).await?.pop().ok_or(ScreenError::Unknown(observation))
}

/// A reason as it is stored.
pub(super) fn check_reason(reason: &str) -> Result<String, ScreenError> {
    let reason = reason.trim().to_owned();
    let fits = (1..=REASON_CHARS_MAX).contains(&reason.chars().count());
    if fits { Ok(reason) } else { Err(ScreenError::Reason(reason.chars().take(REASON_CHARS_MAX).collect())) }
}

/// Holds the payment of a transfer that does not pass: an exception, an event if it is news, and for a hit the
/// quarantine of its destination.
pub(super) async fn hold(connection: &mut PgConnection, row: &Screened, after: &Standing) -> Result<(), ScreenError> {
    let news = row.passes || row.standing.hits != after.hits;
    let what = match after.outcome {
        Outcome::Hit => after.hits.join(", "),
        Outcome::Unavailable | Outcome::Clear | Outcome::NotScreened => after.missing.join(", "),
    };
    if news {
        let kind = if after.outcome == Outcome::Hit { "payment.screening_hit" } else { "payment.screening_unavailable" };
        let detail = serde_json::json!({
            "screening": row.observation, "tx_hash": row.subject.tx_hash, "sender": row.subject.sender, "hits": after.hits,
            "missing": after.missing, "units": row.subject.amount.units.to_string(), "asset": row.subject.amount.asset.asset.to_string(),
        });
        append(connection, kind, row, detail).await?;
        if after.outcome == Outcome::Hit {
            tracing::error!(
                chain.id = chain_of(row).get(), screening = row.observation, tx.hash = %row.subject.tx_hash, hits = what,
                "screening hit; the money is held until a resolver decides"
            );
        } else {
            tracing::warn!(
                chain.id = chain_of(row).get(), screening = row.observation, tx.hash = %row.subject.tx_hash, missing = what,
                "screening is incomplete; the money is held and the screener asked again"
            );
        }
    }
    let Some(payment) = row.payment else { return Ok(()) };
    payment::store::lock(connection, payment).await?;
    let detail = format!("{DETAIL}{} of {what} in tx {}", units(row), row.subject.tx_hash);
    if after.outcome == Outcome::Hit {
        // A hit says more than what was missing before.
        close(connection, payment, "a hit since").await?;
    }
    payment::store::open_exception(connection, payment, ExceptionKind::Held, &detail).await?;
    if after.outcome == Outcome::Hit { quarantine(connection, row).await } else { Ok(()) }
}

/// Quarantines the destination, unless it is on its way or somebody did so before.
pub(super) async fn quarantine(connection: &mut PgConnection, row: &Screened) -> Result<(), ScreenError> {
    let destination = deposit::store::find_by_derived_address(connection, row.derived_address).await?;
    if let Some(destination) = destination.filter(|destination| destination.status == DestinationStatus::Active) {
        deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Quarantined).await?;
        store::set_quarantined(connection, row.observation).await?;
    }
    Ok(())
}

/// Lets a payment go on when nothing of its address is held any more.
pub(super) async fn free(connection: &mut PgConnection, row: &Screened, resolution: &str) -> Result<(), ScreenError> {
    let Some(payment) = row.payment else { return Ok(()) };
    payment::store::lock(connection, payment).await?;
    let standing = store::get_address_standing(connection, chain_of(row), row.derived_address).await?;
    if !standing.passes || recipient::store::is_held(connection, payment).await? {
        return Ok(());
    }
    close(connection, payment, resolution).await?;
    if standing.quarantined {
        leave_quarantine(connection, payment, row.derived_address).await?;
    }
    Ok(())
}

/// Ends a quarantine that this room made, where nobody has another reason for one.
pub(super) async fn leave_quarantine(connection: &mut PgConnection, payment: PaymentId, derived_address: Uuid) -> Result<(), DbError> {
    let Some(destination) = deposit::store::find_by_derived_address(connection, derived_address).await? else { return Ok(()) };
    let held = !store::get_address_standing(connection, destination.chain, derived_address).await?.passes;
    if destination.status != DestinationStatus::Quarantined
        || held
        || recipient::store::is_held(connection, payment).await?
        || store::is_touched_by_freeze(connection, payment).await?
        || store::was_reorged(connection, payment).await?
    {
        return Ok(());
    }
    deposit::store::advance(connection, destination.id, DestinationStatus::Quarantined, DestinationStatus::Active).await
}

/// Closes the open exception `held`, if it is one of ours.
pub(super) async fn close(connection: &mut PgConnection, payment: PaymentId, resolution: &str) -> Result<(), DbError> {
    let exceptions = payment::store::list_exceptions(connection, payment).await?;
    let ours =
        |row: &payment::store::ExceptionRow| row.kind == ExceptionKind::Held && row.closed_at.is_none() && row.detail.starts_with(DETAIL);
    if exceptions.iter().any(ours) {
        payment::store::close_exception(connection, payment, ExceptionKind::Held, resolution).await?;
    }
    Ok(())
}

fn chain_of(row: &Screened) -> ChainId {
    row.subject.amount.asset.chain
}

fn units(row: &Screened) -> U256 {
    row.subject.amount.units
}

async fn append(connection: &mut PgConnection, kind: &'static str, row: &Screened, detail: serde_json::Value) -> Result<(), DbError> {
    event::store::append(connection, &Event { kind, payment: row.payment, intent: None, chain: Some(chain_of(row)), detail }).await
}
