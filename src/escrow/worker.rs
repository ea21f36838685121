//! Ends payments that nothing came for, by the chain's own time: a daemon that was away has not read what
//! may have come in time.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{EscrowError, store};
use crate::db::Database;
use crate::event::{self, Event};
use crate::payment::{self, PaymentEvent, PaymentState};
use crate::units::{ChainId, Outcomes, PaymentId, Progress};

/// How many payments one tick ends at most.
const PAYMENTS_PER_TICK: i64 = 200;

/// Ends what lapsed on one chain.
#[derive(Debug)]
pub struct Lapser {
    pub db: Database,
    pub chain: ChainId,
}

impl Lapser {
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, EscrowError> {
        let mut connection = self.db.connection().await?;
        let Some(read_to) = store::find_chain_time(&mut connection, self.chain).await? else { return Ok(Progress::Idle) };
        let lapsed = store::list_lapsed(&mut connection, self.chain, now.min(read_to), PAYMENTS_PER_TICK).await?;
        drop(connection);
        let mut outcomes = Outcomes::new();
        for payment in lapsed {
            let ended = self.db.unit(move |connection| Box::pin(async move { lapse(connection, payment).await })).await;
            if !outcomes.note(ended, EscrowError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }
}

/// Ends a payment whose time is over. What is in the chain or on its way back keeps it open.
pub async fn lapse(connection: &mut PgConnection, id: PaymentId) -> Result<Progress, EscrowError> {
    let payment = payment::store::lock(connection, id).await?;
    if !payment.state.is_open() || store::has_waiting_sighting(connection, id).await? || !store::is_empty(connection, id).await? {
        return Ok(Progress::Idle);
    }
    let event = match payment.state {
        PaymentState::Processing if store::has_refunded(connection, id).await? => PaymentEvent::RefundedWhole,
        PaymentState::Pending => PaymentEvent::Lapsed,
        // What was seen left the chain again; first sight takes it back to pending.
        PaymentState::Processing
        | PaymentState::Funded
        | PaymentState::Releasable
        | PaymentState::Releasing
        | PaymentState::Partial
        | PaymentState::Released
        | PaymentState::Refunded
        | PaymentState::Cancelled
        | PaymentState::Failed
        | PaymentState::Imported(..) => return Ok(Progress::Idle),
    };
    let payment = payment::store::advance(connection, &payment, event).await?;
    let kind = if payment.state == PaymentState::Failed { "payment.failed" } else { "payment.refunded" };
    event::store::append(connection, &Event::of_payment(kind, id, serde_json::json!({}))).await?;
    tracing::info!(payment.id = %id, "{kind}");
    Ok(Progress::Worked)
}
