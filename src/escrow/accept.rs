//! What a person takes or gives up although it is not as it was asked: late, too much, too little, nothing;
//! and the way out of quarantine.

use alloy::primitives::U256;
use sqlx::PgConnection;
use uuid::Uuid;

use super::late::{self, Market};
use super::order::{close_suspended, restate};
use super::{EscrowError, Source, check_text, store};
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey, Entry, EntryType};
use crate::payment::{self, ExceptionKind, Payment, PaymentEvent, PaymentState};
use crate::units::{PaymentId, TokenAmount};

/// What is accepted.
#[derive(Clone, Debug)]
pub struct Acceptance {
    pub payment: PaymentId,
    /// Take what is there as the whole, although it is less than was due.
    pub less_than_due: bool,
    pub by: String,
    pub reason: String,
}

/// Takes what waits in suspense in the asset that was due. Towards what is due while the payment is not whole
/// (too much of it goes back to suspense); on top of it while it is in escrow. What came after the end of its quote is
/// valued by a fresh one first.
pub async fn accept(connection: &mut PgConnection, acceptance: &Acceptance, market: Market<'_>) -> Result<Payment, EscrowError> {
    let Acceptance { payment: id, less_than_due, by, reason } = acceptance;
    check_text("reason", reason)?;
    let mut payment = payment::store::lock(connection, *id).await?;
    let mut revalued = None;
    let act = Uuid::now_v7();
    let waits = balance(connection, &payment, Source::Suspense).await?;
    if payment.state.is_in_escrow() {
        if waits.units.is_zero() {
            return Err(EscrowError::NothingToAccept(*id));
        }
        move_on(connection, &payment, waits, [Source::Suspense, Source::Held], &format!("accept:{act}")).await?;
        let escrowed = payment.escrowed_units.saturating_add(waits.units);
        payment::store::set_escrowed(connection, *id, escrowed).await?;
        restate(connection, &payment).await?;
    } else if payment.state.is_open() || payment.state == PaymentState::Failed {
        let received = balance(connection, &payment, Source::Received).await?;
        let there = received.units.saturating_add(waits.units);
        if there.is_zero() {
            return Err(EscrowError::NothingToAccept(*id));
        }
        revalued = late::revalue(connection, &payment, there, acceptance, market).await?;
        if revalued.is_some() {
            payment = payment::store::lock(connection, *id).await?;
        }
        if there < payment.terms.enough(payment.due.units) && !less_than_due {
            return Err(EscrowError::StillShort { payment: *id, there, due: payment.due.units });
        }
        if !waits.units.is_zero() {
            move_on(connection, &payment, waits, [Source::Suspense, Source::Received], &format!("accept:{act}")).await?;
        }
        let total = TokenAmount::new(payment.due.asset, there);
        ledger::make_whole(connection, &payment, total, &format!("accept:{act}"), "accepted").await?;
    } else {
        let what = "nothing can be accepted for it any more; refund what waits";
        return Err(EscrowError::State { payment: *id, state: payment.state, what });
    }
    let payment = payment::store::lock(connection, *id).await?;
    close_suspended(connection, &payment, "accepted").await?;
    sweep_again(connection, &payment).await?;
    let detail = serde_json::json!({
        "by": by, "reason": reason, "units": waits.units.to_string(), "less_than_due": less_than_due, "revalued": revalued,
    });
    event::store::append(connection, &Event::of_payment("payment.accepted", *id, detail)).await?;
    tracing::info!(payment.id = %id, by, amount = %waits.units, "accepted");
    Ok(payment)
}

/// A release is paid from the treasury: what is accepted after a sweep has to be swept too.
async fn sweep_again(connection: &mut PgConnection, payment: &Payment) -> Result<(), EscrowError> {
    let Some(destination) = deposit::store::find_by_payment(connection, payment.id).await? else { return Ok(()) };
    let custody = AccountKey::Custody(destination.address);
    let there = ledger::store::balance(connection, payment.due.asset, custody).await?;
    if destination.status == DestinationStatus::Swept && !there.units.is_zero() {
        deposit::store::advance(connection, destination.id, DestinationStatus::Swept, DestinationStatus::Active).await?;
    }
    Ok(())
}

/// Gives up a payment that nothing came for. Whatever comes afterwards waits in suspense as late.
pub async fn cancel(connection: &mut PgConnection, id: PaymentId, by: &str) -> Result<Payment, EscrowError> {
    let payment = payment::store::lock(connection, id).await?;
    if payment.state == PaymentState::Pending
        && (store::has_waiting_sighting(connection, id).await? || !store::is_empty(connection, id).await?)
    {
        let what = "and yet money came to its address; refund or accept that";
        return Err(EscrowError::State { payment: id, state: payment.state, what });
    }
    let payment = payment::store::advance(connection, &payment, PaymentEvent::Cancelled).await?;
    event::store::append(connection, &Event::of_payment("payment.cancelled", id, serde_json::json!({ "by": by }))).await?;
    tracing::info!(payment.id = %id, by, "payment cancelled");
    Ok(payment)
}

/// How a deposit address leaves quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuarantineExit {
    /// Its money is where it was, and can be swept and released.
    Back,
    /// Its money does not count: it goes to suspense, from where it is refunded or accepted.
    ToSuspense,
}

/// Ends the quarantine of a payment's deposit address.
pub async fn leave_quarantine(
    connection: &mut PgConnection,
    id: PaymentId,
    exit: QuarantineExit,
    by: &str,
    reason: &str,
) -> Result<Payment, EscrowError> {
    check_text("reason", reason)?;
    let payment = payment::store::lock(connection, id).await?;
    let destination = deposit::store::get_by_payment(connection, id).await?;
    if destination.status != DestinationStatus::Quarantined {
        return Err(EscrowError::NotQuarantined { payment: id, status: destination.status });
    }
    deposit::store::advance(connection, destination.id, DestinationStatus::Quarantined, DestinationStatus::Active).await?;
    payment::store::close_exception(connection, id, ExceptionKind::Reorged, reason).await?;
    payment::store::close_exception(connection, id, ExceptionKind::Held, reason).await?;
    if exit == QuarantineExit::ToSuspense {
        to_suspense(connection, &payment).await?;
    }
    let detail = serde_json::json!({ "by": by, "reason": reason, "to_suspense": exit == QuarantineExit::ToSuspense });
    event::store::append(connection, &Event::of_payment("payment.quarantine_ended", id, detail)).await?;
    tracing::warn!(payment.id = %id, by, address = %destination.address, "quarantine ended");
    Ok(payment::store::lock(connection, id).await?)
}

async fn to_suspense(connection: &mut PgConnection, payment: &Payment) -> Result<(), EscrowError> {
    if !matches!(payment.state, PaymentState::Pending | PaymentState::Processing | PaymentState::Funded) {
        let what = "its money is ordered out or gone; take the orders back first";
        return Err(EscrowError::State { payment: payment.id, state: payment.state, what });
    }
    if let Some(dispute) = store::find_open_dispute(connection, payment.id).await? {
        return Err(EscrowError::Disputed { payment: payment.id, dispute: dispute.id });
    }
    let act = Uuid::now_v7();
    for source in [Source::Held, Source::Received] {
        let amount = balance(connection, payment, source).await?;
        if !amount.units.is_zero() {
            move_on(connection, payment, amount, [source, Source::Suspense], &format!("quarantine:{act}:{}", source.name())).await?;
            payment::store::open_exception(connection, payment.id, ExceptionKind::Held, "out of quarantine, to be decided about").await?;
        }
    }
    if payment.state == PaymentState::Funded {
        payment::store::advance(connection, payment, PaymentEvent::CreditReversed).await?;
        payment::store::set_escrowed(connection, payment.id, U256::ZERO).await?;
    }
    Ok(())
}

async fn balance(connection: &mut PgConnection, payment: &Payment, source: Source) -> Result<TokenAmount, EscrowError> {
    Ok(ledger::store::balance(connection, payment.due.asset, source.account(payment.id)).await?)
}

async fn move_on(
    connection: &mut PgConnection,
    payment: &Payment,
    amount: TokenAmount,
    [from, to]: [Source; 2],
    key: &str,
) -> Result<(), EscrowError> {
    let entry = Entry {
        entry_type: EntryType::Adjustment,
        payment: Some(payment.id),
        amount,
        decimals: payment.token_decimals,
        debit: from.account(payment.id),
        credit: to.account(payment.id),
        reverses: None,
        key: key.to_owned(),
        memo: format!("{} to {}, decided by a person", from.name(), to.name()),
    };
    Ok(ledger::store::append(connection, &[entry]).await?)
}
