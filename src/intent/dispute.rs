//! Opening a dispute: whatever is on its way out of the payment's escrow and cannot have been signed stops, and
//! then what is held is frozen.

use sqlx::PgConnection;

use super::{IntentError, void};
use crate::escrow::{self, Dispute, PayoutState};
use crate::payment;
use crate::units::PaymentId;

/// Opens a dispute under the payment's row lock, so that of a release and a dispute at the same instant one
/// wins.
///
/// Refused with [`IntentError::MayBeSigned`] once a station has had an outflow of the payment, and with
/// [`EscrowError`](crate::escrow::EscrowError) where nothing is left to freeze.
pub async fn open_dispute(connection: &mut PgConnection, id: PaymentId, by: &str, reason: &str) -> Result<Dispute, IntentError> {
    payment::store::lock(connection, id).await?;
    for payout in escrow::store::list_payouts(connection, id).await? {
        // What is not escrow is not the seller's to lose or to keep.
        if !payout.source.is_escrow() {
            continue;
        }
        let why = format!("a dispute was opened by {by}");
        match (payout.state, payout.intent) {
            (PayoutState::Planned, Some(intent)) => {
                void(connection, intent, by, &why).await?;
            }
            (PayoutState::Ordered, _) => {
                let payment = payment::store::lock(connection, id).await?;
                escrow::withdraw(connection, &payment, &payout, &why).await?;
            }
            (PayoutState::Planned | PayoutState::Settled | PayoutState::Withdrawn, _) => {}
        }
    }
    let payment = payment::store::lock(connection, id).await?;
    Ok(escrow::freeze(connection, &payment, by, reason).await?)
}
