//! Disputes: what is held is frozen when one is opened, and only a resolver's decision moves it again.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::order::{Draw, RefundTo, place_refund, place_release, restate};
use super::{Dispute, DisputeState, EscrowError, Resolution, Source, check_text, store};
use crate::chains::ChainBook;
use crate::event::{self, Event};
use crate::ledger::{self, Entry, EntryType};
use crate::officer::Resolver;
use crate::payment::{self, Payment};
use crate::units::TokenAmount;

/// Freezes what a payment holds. The payment's row is locked by the caller, who has taken back every order out
/// of escrow that nobody can have signed.
///
/// Refused while the payment is not in escrow, is disputed already, or holds nothing any more.
pub async fn freeze(connection: &mut PgConnection, payment: &Payment, by: &str, reason: &str) -> Result<Dispute, EscrowError> {
    check_text("reason", reason)?;
    if !payment.state.is_in_escrow() {
        let what = "a dispute freezes what is held, and nothing is";
        return Err(EscrowError::State { payment: payment.id, state: payment.state, what });
    }
    if let Some(open) = store::find_open_dispute(connection, payment.id).await? {
        return Err(EscrowError::Disputed { payment: payment.id, dispute: open.id });
    }
    let held = balance(connection, payment, Source::Held).await?;
    if held.units.is_zero() {
        return Err(EscrowError::NotEnough { payment: payment.id, source_of: Source::Held, asked: U256::from(1), there: U256::ZERO });
    }
    let id = Uuid::now_v7();
    store::insert_dispute(connection, id, payment.id, by, reason).await?;
    hold(connection, payment, held, &format!("dispute:{id}:hold")).await?;
    restate(connection, payment).await?;
    let detail = serde_json::json!({ "dispute": id, "by": by, "reason": reason, "units": held.units.to_string() });
    event::store::append(connection, &Event::of_payment("dispute.opened", payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, dispute.id = %id, by, "dispute opened");
    store::get_dispute(connection, id).await
}

/// What a resolver decides.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// All that is disputed goes back to the buyer, at an address that the buyer states.
    Refund { to: Address },
    /// The seller delivers again; the money stays in escrow.
    Replacement,
    /// The buyer gets a part back, the seller the rest.
    Compensation { units: U256, to: Address },
    /// The dispute was about nothing; the money stays in escrow.
    NoAction,
}

impl Verdict {
    pub const fn resolution(&self) -> Resolution {
        match self {
            Self::Refund { .. } => Resolution::Refund,
            Self::Replacement => Resolution::Replacement,
            Self::Compensation { .. } => Resolution::Compensation,
            Self::NoAction => Resolution::NoAction,
        }
    }
}

/// Ends a dispute. What it orders out is signed by officers like any payout; if one of these is given up, its
/// money is disputed again and the dispute open.
pub async fn resolve(
    connection: &mut PgConnection,
    id: Uuid,
    verdict: &Verdict,
    note: &str,
    resolver: &Resolver,
    book: &ChainBook,
) -> Result<Dispute, EscrowError> {
    check_text("note", note)?;
    let about = store::get_dispute(connection, id).await?.payment;
    let payment = payment::store::lock(connection, about).await?;
    let dispute = store::lock_dispute(connection, id).await?;
    if dispute.state != DisputeState::Open {
        return Err(EscrowError::Resolved(id));
    }
    if !payment.state.is_in_escrow() {
        let what = "its money left the chain and is not back yet";
        return Err(EscrowError::State { payment: payment.id, state: payment.state, what });
    }
    let act = Uuid::now_v7();
    // Accepted or credited again since the dispute was opened: it is about that too.
    let held = balance(connection, &payment, Source::Held).await?;
    if !held.units.is_zero() {
        hold(connection, &payment, held, &format!("dispute:{id}:hold:{act}")).await?;
    }
    let disputed = balance(connection, &payment, Source::Disputed).await?;
    store::resolve_dispute(connection, id, verdict.resolution(), resolver.name(), note).await?;
    let by = resolver.name();
    let draw = |units| Draw { source: Source::Disputed, units, dispute: Some(id), by };
    let back_to = |to| RefundTo { asset: payment.due.asset, to, book };
    match verdict {
        Verdict::Refund { to } => {
            place_refund(connection, &payment, back_to(*to), draw(None)).await?;
        }
        Verdict::Compensation { units, to } => {
            if units.is_zero() || *units >= disputed.units {
                return Err(EscrowError::Split { asked: *units, there: disputed.units });
            }
            place_refund(connection, &payment, back_to(*to), draw(Some(*units))).await?;
            let payment = payment::store::lock(connection, payment.id).await?;
            place_release(connection, &payment, draw(None)).await?;
        }
        Verdict::Replacement | Verdict::NoAction => {
            let back =
                entry(&payment, disputed, EntryType::Adjustment, [Source::Disputed, Source::Held], &format!("dispute:{id}:back:{act}"));
            ledger::store::append(connection, &[back]).await?;
            restate(connection, &payment).await?;
        }
    }
    let detail = serde_json::json!({
        "dispute": id, "resolution": verdict.resolution().name(), "by": by, "note": note, "units": disputed.units.to_string(),
    });
    event::store::append(connection, &Event::of_payment("dispute.resolved", payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, dispute.id = %id, by, resolution = verdict.resolution().name(), "dispute resolved");
    store::get_dispute(connection, id).await
}

async fn balance(connection: &mut PgConnection, payment: &Payment, source: Source) -> Result<TokenAmount, EscrowError> {
    Ok(ledger::store::balance(connection, payment.due.asset, source.account(payment.id)).await?)
}

async fn hold(connection: &mut PgConnection, payment: &Payment, held: TokenAmount, key: &str) -> Result<(), EscrowError> {
    let freezes = entry(payment, held, EntryType::DisputeHold, [Source::Held, Source::Disputed], key);
    Ok(ledger::store::append(connection, &[freezes]).await?)
}

fn entry(payment: &Payment, amount: TokenAmount, entry_type: EntryType, [from, to]: [Source; 2], key: &str) -> Entry {
    Entry {
        entry_type,
        payment: Some(payment.id),
        amount,
        decimals: payment.token_decimals,
        debit: from.account(payment.id),
        credit: to.account(payment.id),
        reverses: None,
        key: key.to_owned(),
        memo: format!("{} to {}", from.name(), to.name()),
    }
}
