//! Giving an intent up, while no signature of it can exist: its nonce and what it reserved are free again.

use sqlx::PgConnection;

use super::{Intent, IntentError, IntentEvent, IntentKind, store};
use crate::deposit::{self, DestinationStatus};
use crate::escrow;
use crate::event::{self, Event};
use crate::payment;
use crate::units::IntentId;

/// Voids an intent that no station ever had. A sweep's destination waits to be swept again; the
/// money of a release or a refund is where it came from and must be ordered anew.
pub async fn void(connection: &mut PgConnection, id: IntentId, by: &str, reason: &str) -> Result<Intent, IntentError> {
    // Whoever locks both locks the payment first.
    if let Intent { payment: Some(payment), kind: IntentKind::Release | IntentKind::Refund, .. } = store::get(connection, id).await? {
        payment::store::lock(connection, payment).await?;
    }
    let intent = store::lock(connection, id).await?;
    if intent.may_be_signed() {
        return Err(IntentError::MayBeSigned(id));
    }
    let intent = store::advance(connection, &intent, IntentEvent::Voided).await?;
    give_back(connection, &intent, &format!("{} {id} was given up: {reason}", intent.kind.name())).await?;
    let detail = serde_json::json!({ "by": by, "reason": reason });
    event::store::append(connection, &Event::of_intent("intent.voided", id, intent.payment, intent.chain(), detail)).await?;
    tracing::info!(intent.id = %id, by, "intent voided");
    Ok(intent)
}

/// Gives back what an intent reserved that nothing became of. A sweep's destination waits to be swept again; the
/// money of a release or a refund is where it came from and must be ordered anew. Whoever calls this locks the
/// payment before the intent.
pub async fn give_back(connection: &mut PgConnection, intent: &Intent, why: &str) -> Result<(), IntentError> {
    match intent.kind {
        IntentKind::Sweep => {
            if let Some(destination) = intent.destination {
                deposit::store::advance(connection, destination, DestinationStatus::Sweeping, DestinationStatus::Active).await?;
            }
        }
        IntentKind::Release | IntentKind::Refund => {
            let payout = escrow::store::find_payout_of(connection, intent.id).await?.ok_or(IntentError::NoPayout(intent.id))?;
            let payment = payment::store::lock(connection, payout.payment).await?;
            escrow::withdraw(connection, &payment, &payout, why).await?;
        }
        // Neither reserves anything.
        IntentKind::Fuel | IntentKind::Cancel => {}
    }
    Ok(())
}
