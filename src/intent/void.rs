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
    let payment = match store::get(connection, id).await? {
        Intent { payment: Some(payment), kind: IntentKind::Release | IntentKind::Refund, .. } => {
            Some(payment::store::lock(connection, payment).await?)
        }
        _ => None,
    };
    let intent = store::lock(connection, id).await?;
    if intent.station.is_some() {
        return Err(IntentError::MayBeSigned(id));
    }
    let intent = store::advance(connection, &intent, IntentEvent::Voided).await?;
    match intent.kind {
        IntentKind::Sweep => {
            if let Some(destination) = intent.destination {
                deposit::store::advance(connection, destination, DestinationStatus::Sweeping, DestinationStatus::Active).await?;
            }
        }
        IntentKind::Release | IntentKind::Refund => {
            let payout = escrow::store::find_payout_of(connection, id).await?.ok_or(IntentError::NoPayout(id))?;
            let why = format!("{} {id} was given up: {reason}", intent.kind.name());
            if let Some(payment) = payment {
                escrow::withdraw(connection, &payment, &payout, &why).await?;
            }
        }
        // Neither reserves anything.
        IntentKind::Fuel | IntentKind::Cancel => {}
    }
    let detail = serde_json::json!({ "by": by, "reason": reason });
    event::store::append(connection, &Event::of_intent("intent.voided", id, intent.payment, intent.chain(), detail)).await?;
    tracing::info!(intent.id = %id, by, "intent voided");
    Ok(intent)
}
