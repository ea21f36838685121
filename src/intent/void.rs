//! Giving an intent up, while no signature of it can exist: its nonce and what it reserved are free again.

use sqlx::PgConnection;

use super::{Intent, IntentError, IntentEvent, IntentKind, reservation_key, store};
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::ledger::{self, LedgerError};
use crate::payment::{self, PaymentEvent};
use crate::units::IntentId;

/// Voids an intent that no station ever had. A sweep's destination waits to be swept again; a release's
/// payment is held again and must be asked for anew.
pub async fn void(connection: &mut PgConnection, id: IntentId, by: &str, reason: &str) -> Result<Intent, IntentError> {
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

/// Gives back what an intent reserved that nothing became of. A sweep's destination waits to be swept again; a
/// release's payment is held again and must be asked for anew.
pub async fn give_back(connection: &mut PgConnection, intent: &Intent, why: &str) -> Result<(), IntentError> {
    match intent.kind {
        IntentKind::Sweep => {
            if let Some(destination) = intent.destination {
                deposit::store::advance(connection, destination, DestinationStatus::Sweeping, DestinationStatus::Active).await?;
            }
        }
        IntentKind::Release | IntentKind::Refund => {
            let key = reservation_key(intent.id);
            let reserved = ledger::store::find(connection, &key).await?.ok_or(LedgerError::UnknownEntry { key })?;
            ledger::store::append(connection, &[ledger::posting::reversal(&reserved, why)]).await?;
            if let Some(payment) = intent.payment {
                let payment = payment::store::lock(connection, payment).await?;
                payment::store::advance(connection, &payment, PaymentEvent::ReleaseWithdrawn).await?;
            }
        }
        // Neither reserves anything.
        IntentKind::Fuel | IntentKind::Cancel => {}
    }
    Ok(())
}
