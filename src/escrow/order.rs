//! Orders: money reserved for a recipient, and what becomes of it.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::store::{self, OrderedBefore};
use super::{EscrowError, Payout, PayoutKind, PayoutState, Source};
use crate::account;
use crate::chains::ChainBook;
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey, Entry, EntryType, LedgerError, posting};
use crate::payment::{self, ExceptionKind, Fees, Figures, Part, Payment, PaymentEvent};
use crate::units::{AssetId, IntentId, PaymentId, TokenAmount};

/// Orders a release of what is held, or of a part of it, to the seller. Fees are taken from it when it
/// settles.
///
/// Refused while the payment is not in escrow, is disputed, or holds less.
pub async fn release(connection: &mut PgConnection, id: PaymentId, units: Option<U256>, by: &str) -> Result<Payout, EscrowError> {
    let payment = payment::store::lock(connection, id).await?;
    must_be_in_escrow(&payment, "a release takes a payment that is whole and not over")?;
    refuse_disputed(connection, id).await?;
    place_release(connection, &payment, Draw { source: Source::Held, units, dispute: None, by }).await
}

/// Money to take out of a claim of a payment.
pub(super) struct Draw<'d> {
    pub(super) source: Source,
    /// All of it, when absent.
    pub(super) units: Option<U256>,
    pub(super) dispute: Option<Uuid>,
    pub(super) by: &'d str,
}

pub(super) async fn place_release(connection: &mut PgConnection, payment: &Payment, draw: Draw<'_>) -> Result<Payout, EscrowError> {
    let units = available(connection, payment.id, payment.due.asset, &draw).await?;
    let OrderedBefore { units: before_units, fees: fees_before } = store::get_released_before(connection, payment.id).await?;
    let fees = payment.terms.fees_of_part(Part { whole_units: payment.escrowed_units, before_units, units, fees_before });
    if fees.total() >= units {
        return Err(EscrowError::OnlyFees { units, fees: fees.total() });
    }
    let gross = TokenAmount::new(payment.due.asset, units);
    let order = Order { kind: PayoutKind::Release, gross, decimals: payment.token_decimals, fees, to: payment.seller_address };
    place(connection, payment, order, draw).await
}

/// A refund as asked for.
#[derive(Clone, Debug)]
pub struct RefundOrder {
    pub payment: PaymentId,
    /// Received, held or suspense; what is disputed goes back by a resolver's decision only.
    pub source: Source,
    /// Of suspense; the asset that is due when absent.
    pub asset: Option<AssetId>,
    /// All of it, when absent.
    pub units: Option<U256>,
    /// Where the buyer wants it. Never taken from where it came from.
    pub to: Address,
    pub by: String,
}

/// Orders a refund. Without fees: the house earns on what it releases.
pub async fn refund(connection: &mut PgConnection, order: &RefundOrder, book: &ChainBook) -> Result<Payout, EscrowError> {
    let payment = payment::store::lock(connection, order.payment).await?;
    match order.source {
        Source::Held => {
            must_be_in_escrow(&payment, "what is held goes back only while the payment is in escrow")?;
            refuse_disputed(connection, payment.id).await?;
        }
        Source::Disputed => {
            let what = "what is disputed goes back by a resolver's decision only";
            return Err(EscrowError::State { payment: payment.id, state: payment.state, what });
        }
        Source::Received | Source::Suspense => {}
    }
    let asset = match order.source {
        Source::Suspense => order.asset.unwrap_or(payment.due.asset),
        Source::Received | Source::Held | Source::Disputed => payment.due.asset,
    };
    let draw = Draw { source: order.source, units: order.units, dispute: None, by: &order.by };
    place_refund(connection, &payment, RefundTo { asset, to: order.to, book }, draw).await
}

/// A refund's recipient, on the chain of its asset.
pub(super) struct RefundTo<'b> {
    pub(super) asset: AssetId,
    pub(super) to: Address,
    pub(super) book: &'b ChainBook,
}

pub(super) async fn place_refund(
    connection: &mut PgConnection,
    payment: &Payment,
    refund: RefundTo<'_>,
    draw: Draw<'_>,
) -> Result<Payout, EscrowError> {
    let RefundTo { asset, to, book } = refund;
    let facts = book.asset(asset).ok_or(EscrowError::Unlisted(asset))?;
    let spec = book.get(asset.chain).ok_or(EscrowError::Unlisted(asset))?;
    spec.check_recipient(to).map_err(|source| EscrowError::Recipient { to, source })?;
    if account::store::find_address_id(connection, to).await?.is_some() {
        return Err(EscrowError::OwnAddress(to));
    }
    let units = available(connection, payment.id, asset, &draw).await?;
    let gross = TokenAmount::new(asset, units);
    let order = Order { kind: PayoutKind::Refund, gross, decimals: facts.decimals, fees: Fees::default(), to };
    place(connection, payment, order, draw).await
}

fn must_be_in_escrow(payment: &Payment, what: &'static str) -> Result<(), EscrowError> {
    if payment.state.is_in_escrow() { Ok(()) } else { Err(EscrowError::State { payment: payment.id, state: payment.state, what }) }
}

async fn refuse_disputed(connection: &mut PgConnection, payment: PaymentId) -> Result<(), EscrowError> {
    match store::find_open_dispute(connection, payment).await? {
        Some(dispute) => Err(EscrowError::Disputed { payment, dispute: dispute.id }),
        None => Ok(()),
    }
}

/// What is asked for, if it is there.
async fn available(connection: &mut PgConnection, payment: PaymentId, asset: AssetId, draw: &Draw<'_>) -> Result<U256, EscrowError> {
    let there = ledger::store::balance(connection, asset, draw.source.account(payment)).await?.units;
    let asked = draw.units.unwrap_or(there);
    if asked.is_zero() || asked > there {
        return Err(EscrowError::NotEnough { payment, source_of: draw.source, asked, there });
    }
    Ok(asked)
}

struct Order {
    kind: PayoutKind,
    gross: TokenAmount,
    decimals: u8,
    fees: Fees,
    to: Address,
}

/// Stores the order and sets its money aside, in one transaction.
async fn place(connection: &mut PgConnection, payment: &Payment, order: Order, draw: Draw<'_>) -> Result<Payout, EscrowError> {
    let Order { kind, gross, decimals, fees, to } = order;
    let id = Uuid::now_v7();
    let payout = store::insert_payout(
        connection,
        &store::NewPayout {
            id,
            payment: payment.id,
            kind,
            source: draw.source,
            gross,
            decimals,
            fees,
            to,
            requested_by: draw.by,
            dispute: draw.dispute,
            reservation_key: format!("payout:{id}:reserve"),
        },
    )
    .await?;
    let reservation = Entry {
        entry_type: EntryType::Hold,
        payment: Some(payment.id),
        amount: gross,
        decimals,
        debit: draw.source.account(payment.id),
        credit: AccountKey::Payable(payment.id),
        reverses: None,
        key: payout.reservation_key.clone(),
        memo: format!("reserved for {} {id}", kind.name()),
    };
    ledger::store::append(connection, &[reservation]).await?;
    // What a reverted transaction left open is taken up again; what waits in suspense stays open.
    let suspense = ledger::store::balance(connection, payment.due.asset, Source::Suspense.account(payment.id)).await?;
    if suspense.units.is_zero() {
        payment::store::close_exception(connection, payment.id, ExceptionKind::Held, "ordered again").await?;
    }
    if draw.source.is_escrow() {
        restate(connection, payment).await?;
    }
    let event = match kind {
        PayoutKind::Release => "payment.release_requested",
        PayoutKind::Refund => "payment.refund_requested",
    };
    let detail = serde_json::json!({
        "payout": id, "by": draw.by, "from": draw.source.name(), "units": gross.units.to_string(), "asset": gross.asset.asset.to_string(),
        "to": to, "fees": fees.total().to_string(),
    });
    event::store::append(connection, &Event::of_payment(event, payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, payout.id = %id, amount = %gross.units, by = draw.by, "{event}");
    Ok(payout)
}

/// Moves a payment to where its books and orders say it is. Nothing changes for one that is not in escrow.
pub async fn restate(connection: &mut PgConnection, payment: &Payment) -> Result<Payment, EscrowError> {
    if !payment.state.is_in_escrow() {
        return Ok(payment.clone());
    }
    let mut figures: Figures = store::get_figures(connection, payment.id).await?;
    for source in [Source::Held, Source::Disputed] {
        let balance = ledger::store::balance(connection, payment.due.asset, source.account(payment.id)).await?;
        figures.holds |= !balance.units.is_zero();
    }
    let standing = figures.standing().ok_or(EscrowError::Empty(payment.id))?;
    Ok(payment::store::advance(connection, payment, PaymentEvent::Escrow(standing)).await?)
}

/// Binds an order to the intent that pays it. The payment's row is locked by the caller.
pub async fn planned(connection: &mut PgConnection, payment: &Payment, payout: &Payout, intent: IntentId) -> Result<(), EscrowError> {
    store::advance_payout(connection, payout.id, PayoutState::Ordered, PayoutState::Planned, Some(intent)).await?;
    restate(connection, payment).await?;
    Ok(())
}

/// The payout's transaction is final: the house earns its fees, and the payment is where its books say. The
/// payment's row is locked by the caller, who has posted what the transaction moved.
pub async fn settled(connection: &mut PgConnection, payment: &Payment, payout: &Payout, cause: &str) -> Result<Payment, EscrowError> {
    let fee = |entry_type, units: U256, credit, leg: &str| Entry {
        entry_type,
        payment: Some(payment.id),
        amount: TokenAmount::new(payout.gross.asset, units),
        decimals: payout.decimals,
        debit: AccountKey::Payable(payment.id),
        credit,
        reverses: None,
        key: format!("{cause}:{leg}"),
        memo: format!("fee of {} {}", payout.kind.name(), payout.id),
    };
    let entries: Vec<Entry> = [
        fee(EntryType::PlatformFee, payout.fees.platform_units, AccountKey::PlatformFee, "platform_fee"),
        fee(EntryType::ProviderFee, payout.fees.provider_units, AccountKey::ProviderFee, "provider_fee"),
    ]
    .into_iter()
    .filter(|entry| !entry.amount.units.is_zero())
    .collect();
    ledger::store::append(connection, &entries).await?;
    store::advance_payout(connection, payout.id, PayoutState::Planned, PayoutState::Settled, None).await?;
    let payment = if payout.source.is_escrow() { restate(connection, payment).await? } else { payment.clone() };
    if payout.source == Source::Suspense {
        close_suspended(connection, &payment, "refunded").await?;
    }
    let received = ledger::store::balance(connection, payment.due.asset, Source::Received.account(payment.id)).await?;
    if payout.source == Source::Received && received.units.is_zero() {
        payment::store::close_exception(connection, payment.id, ExceptionKind::Partial, "refunded").await?;
    }
    let detail = serde_json::json!({ "payout": payout.id, "kind": payout.kind.name(), "units": payout.net().units.to_string() });
    event::store::append(connection, &Event::of_payment("payment.paid_out", payment.id, detail)).await?;
    Ok(payment)
}

/// Gives the money of an order back to where it came from. Whoever ordered must order anew; a dispute that it
/// was to resolve is open again. The payment's row is locked by the caller.
pub async fn withdraw(connection: &mut PgConnection, payment: &Payment, payout: &Payout, why: &str) -> Result<Payment, EscrowError> {
    let key = &payout.reservation_key;
    // A credit that left the chain takes the reservation along.
    if ledger::store::is_standing(connection, key).await? {
        let reserved = ledger::store::find(connection, key).await?.ok_or_else(|| LedgerError::UnknownEntry { key: key.clone() })?;
        ledger::store::append(connection, &[posting::reversal(&reserved, why)]).await?;
    }
    store::advance_payout(connection, payout.id, payout.state, PayoutState::Withdrawn, None).await?;
    if let Some(dispute) = payout.dispute {
        let reopened = store::reopen_dispute(connection, dispute).await?;
        if reopened {
            let detail = serde_json::json!({ "dispute": dispute, "why": why });
            event::store::append(connection, &Event::of_payment("dispute.reopened", payment.id, detail)).await?;
        }
    }
    let payment = restate(connection, payment).await?;
    let detail = serde_json::json!({ "payout": payout.id, "why": why });
    event::store::append(connection, &Event::of_payment("payment.payout_withdrawn", payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, payout.id = %payout.id, "payout withdrawn: {why}");
    Ok(payment)
}

/// Takes back an order that is not planned yet.
pub async fn withdraw_ordered(connection: &mut PgConnection, id: Uuid, by: &str) -> Result<Payout, EscrowError> {
    let payout = store::get_payout(connection, id).await?;
    let payment = payment::store::lock(connection, payout.payment).await?;
    let payout = store::get_payout(connection, id).await?;
    if payout.state != PayoutState::Ordered {
        return Err(EscrowError::PayoutState { payout: id, state: payout.state });
    }
    withdraw(connection, &payment, &payout, &format!("taken back by {by}")).await?;
    store::get_payout(connection, id).await
}

/// Closes what suspended money had opened, once none of its kind is left.
pub(super) async fn close_suspended(connection: &mut PgConnection, payment: &Payment, resolution: &str) -> Result<(), EscrowError> {
    let claims = ledger::store::list_claims(connection, payment.id).await?;
    let suspended =
        |of: &dyn Fn(AssetId) -> bool| claims.iter().any(|claim| claim.kind == Source::Suspense.kind() && of(claim.total.asset));
    let due = payment.due.asset;
    let left = [
        (suspended(&|asset| asset == due), &[ExceptionKind::Over, ExceptionKind::Late, ExceptionKind::Duplicate, ExceptionKind::Held][..]),
        (suspended(&|asset| asset != due && asset.chain == due.chain), &[ExceptionKind::WrongToken][..]),
        (suspended(&|asset| asset.chain != due.chain), &[ExceptionKind::WrongChain][..]),
    ];
    for (left, kinds) in left {
        for kind in kinds.iter().filter(|_| !left) {
            payment::store::close_exception(connection, payment.id, *kind, resolution).await?;
        }
    }
    Ok(())
}
