//! First sight: a payment is `processing` as soon as a transfer to its address is in the chain, and
//! `pending` again if every such transfer left it. Never a reason to deliver; only a threshold is.

use super::{ConfirmError, store};
use crate::db::Database;
use crate::event::{self, Event};
use crate::payment::{self, PaymentEvent, PaymentState};
use crate::units::{PaymentId, Progress};

/// How many payments one tick moves.
const PAYMENTS_PER_TICK: i64 = 200;

/// Moves payments that were seen, or that lost what was seen.
pub async fn note_sightings(database: &Database) -> Result<Progress, ConfirmError> {
    let mut connection = database.connection().await?;
    let seen = store::list_newly_seen(&mut connection, PAYMENTS_PER_TICK).await?;
    let gone = store::list_newly_gone(&mut connection, PAYMENTS_PER_TICK).await?;
    drop(connection);
    let progress = Progress::of(!seen.is_empty() || !gone.is_empty());
    for payment in seen {
        advance(database, payment, PaymentState::Pending, PaymentEvent::TransferSeen).await?;
    }
    for payment in gone {
        advance(database, payment, PaymentState::Processing, PaymentEvent::TransfersGone).await?;
    }
    Ok(progress)
}

async fn advance(database: &Database, id: PaymentId, from: PaymentState, event: PaymentEvent) -> Result<(), ConfirmError> {
    database
        .unit(move |connection| {
            Box::pin(async move {
                let payment = payment::store::lock(connection, id).await?;
                // The ledger may have been faster.
                if payment.state != from {
                    return Ok(());
                }
                let payment = payment::store::advance(connection, &payment, event).await?;
                let kind = if payment.state == PaymentState::Processing { "payment.processing" } else { "payment.pending" };
                event::store::append(connection, &Event::of_payment(kind, id, serde_json::json!({}))).await?;
                tracing::info!(payment.id = %id, "{kind}");
                Ok(())
            })
        })
        .await
}
