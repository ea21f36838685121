//! A transaction of ours that the database did not know becomes an intent and its signed bytes, in one
//! transaction.

use alloy::primitives::{Address, Bytes, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{AdoptError, Meaning};
use crate::account;
use crate::broadcast::{BroadcastError, Inclusion, store};
use crate::chains::ChainBook;
use crate::deposit::{self, Destination, DestinationStatus};
use crate::escrow::{self, Payout, PayoutKind, PayoutState};
use crate::event::{self, Event};
use crate::intent::{self, FeeTerms, Intent, IntentError, IntentKind, IntentState};
use crate::ledger::{self, AccountKey};
use crate::payment::{self, Payment};
use crate::policy::APPROVALS_EXPIRE_MINUTES;
use crate::signing::SignedTransfer;
use crate::units::{Asset, AssetId, IntentId, PaymentId, TokenAmount};

/// What an officer asks for.
#[derive(Clone, Debug)]
pub struct AdoptAsked {
    /// Of the intent, where a new one is made.
    pub id: IntentId,
    pub signed: SignedTransfer,
    pub raw: Bytes,
    /// Of its receipt.
    pub inclusion: Inclusion,
    /// The order that it paid, where several would do.
    pub payout: Option<Uuid>,
    pub by: String,
    pub reason: String,
}

/// Takes the transaction in. It settles once its block is deep enough, as what it is.
pub async fn adopt(connection: &mut PgConnection, book: &ChainBook, asked: &AdoptAsked) -> Result<Intent, BroadcastError> {
    let signed = asked.signed;
    let refuse = |source| BroadcastError::Adopt { tx_hash: signed.hash, source: Box::new(source) };
    let Some(from) = account::store::find_address_id(connection, signed.sender).await? else {
        return Err(refuse(AdoptError::NotOurs(signed.sender)));
    };
    let from = account::store::get_address(connection, from).await?;
    let to = match account::store::find_address_id(connection, signed.transfer.to).await? {
        Some(id) => Some(account::store::get_address(connection, id).await?),
        None => None,
    };
    let meaning = Meaning::of(&signed, from.purpose, to.as_ref().map(|to| to.purpose)).map_err(refuse)?;
    let asset = AssetId { chain: signed.chain, asset: signed.transfer.asset };
    let mut intent = Intent {
        id: asked.id,
        kind: meaning.kind().unwrap_or(IntentKind::Release),
        state: IntentState::Planned,
        state_version: 1,
        revision: 1,
        to: signed.transfer.to,
        amount: TokenAmount::new(asset, signed.transfer.amount),
        nonce: signed.nonce,
        fees: FeeTerms {
            gas_limit: signed.fees.gas_limit,
            max_fee_per_gas: signed.fees.max_fee_per_gas,
            max_priority_fee_per_gas: signed.fees.max_priority_fee_per_gas,
        },
        from,
        payment: None,
        destination: None,
        digest: Default::default(),
        approvals_required: 1,
        approvals_expire_minutes: APPROVALS_EXPIRE_MINUTES,
        policy: None,
        requested_by: asked.by.clone(),
        revised_by: None,
        signed_revision: None,
        cancels: None,
        station: None,
    };
    let held = intent::store::find_at_nonce(connection, signed.chain, signed.sender, signed.nonce).await?;
    let intent = match (held, meaning) {
        // It is what we know of, signed by terms that we do not.
        (Some(held), Meaning::Sweep | Meaning::Fuel | Meaning::Payout) => {
            let held = lock(connection, held).await?;
            if (held.to, held.amount) != (intent.to, intent.amount) || held.kind == IntentKind::Cancel {
                return Err(refuse(AdoptError::NonceHeld { intent: held.id, nonce: signed.nonce }));
            }
            Intent { fees: intent.fees, ..held }
        }
        (Some(held), Meaning::Cancel) => {
            let held = lock(connection, held).await?;
            if held.kind == IntentKind::Cancel {
                Intent { fees: intent.fees, ..held }
            } else {
                intent.cancels = Some(held.id);
                intent.payment = held.payment;
                intent.approvals_required = held.approvals_required;
                new(connection, intent).await?
            }
        }
        (None, Meaning::Cancel) => new(connection, intent).await?,
        (None, Meaning::Fuel) => {
            let destination = destination_at(connection, intent.to).await?.ok_or_else(|| refuse(AdoptError::NoDestination(intent.to)))?;
            refuse_unbooked(connection, &intent, asked.inclusion).await.map_err(refuse_in(&signed))?;
            (intent.payment, intent.destination) = (Some(destination.payment), Some(destination.id));
            new(connection, intent).await?
        }
        (None, Meaning::Sweep) => {
            let address = intent.from.address;
            let destination = destination_at(connection, address).await?.ok_or_else(|| refuse(AdoptError::NoDestination(address)))?;
            let payment = payment::store::lock(connection, destination.payment).await.map_err(IntentError::from)?;
            refuse_other_sweep(&intent, &payment, &destination).map_err(refuse)?;
            refuse_unbooked(connection, &intent, asked.inclusion).await.map_err(refuse_in(&signed))?;
            (intent.payment, intent.destination) = (Some(destination.payment), Some(destination.id));
            deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Sweeping).await?;
            new(connection, intent).await?
        }
        (None, Meaning::Payout) => {
            let payout = order_of(connection, &intent, asked.payout).await.map_err(refuse_in(&signed))?;
            let payment = payment::store::lock(connection, payout.payment).await.map_err(IntentError::from)?;
            let payout = escrow::store::get_payout(connection, payout.id).await.map_err(IntentError::from)?;
            if payout.state != PayoutState::Ordered {
                return Err(no_order(&signed));
            }
            refuse_unbooked(connection, &intent, asked.inclusion).await.map_err(refuse_in(&signed))?;
            intent.kind = match payout.kind {
                PayoutKind::Release => IntentKind::Release,
                PayoutKind::Refund => IntentKind::Refund,
            };
            intent.payment = Some(payout.payment);
            let intent = new(connection, intent).await?;
            escrow::planned(connection, &payment, &payout, intent.id).await.map_err(IntentError::from)?;
            intent
        }
    };
    store::insert_adopted(connection, book, &intent, &asked.raw).await?;
    let detail = serde_json::json!({
        "tx_hash": signed.hash, "nonce": signed.nonce, "kind": intent.kind.name(), "by": asked.by, "reason": asked.reason,
    });
    event::store::append(connection, &Event::of_intent("intent.adopted", intent.id, intent.payment, signed.chain, detail)).await?;
    tracing::warn!(
        intent.id = %intent.id, chain.id = signed.chain.get(), tx.hash = %signed.hash, nonce = signed.nonce, kind = intent.kind.name(),
        by = %asked.by, "a transaction that this database did not know was adopted"
    );
    Ok(intent::store::get(connection, intent.id).await?)
}

/// A sweep takes what its payment is due in, from an address that nothing holds.
fn refuse_other_sweep(intent: &Intent, payment: &Payment, destination: &Destination) -> Result<(), AdoptError> {
    if intent.amount.asset != payment.due.asset {
        let (from, to, asset) = (intent.from.address, intent.to, intent.amount.asset.asset);
        return Err(AdoptError::Meaningless { from, to, asset, units: intent.amount.units });
    }
    let refused = |remedy| AdoptError::Destination { address: intent.from.address, status: destination.status, remedy };
    match destination.status {
        DestinationStatus::Active => Ok(()),
        DestinationStatus::Sweeping => Err(refused("give up the sweep that is planned there first")),
        DestinationStatus::Swept => Err(refused("what it swept is in the books; what came after that must be credited first")),
        DestinationStatus::Quarantined => Err(refused("a resolver must free it first")),
    }
}

/// Whoever locks both locks the payment first.
async fn lock(connection: &mut PgConnection, id: IntentId) -> Result<Intent, BroadcastError> {
    if let Some(payment) = intent::store::get(connection, id).await?.payment {
        payment::store::lock(connection, payment).await.map_err(IntentError::from)?;
    }
    Ok(intent::store::lock(connection, id).await?)
}

async fn new(connection: &mut PgConnection, mut intent: Intent) -> Result<Intent, BroadcastError> {
    intent.digest = intent::digest::digest_of(&intent);
    Ok(intent::store::insert_adopted(connection, &intent).await?)
}

async fn destination_at(connection: &mut PgConnection, address: Address) -> Result<Option<Destination>, BroadcastError> {
    match account::store::find_address_id(connection, address).await? {
        Some(id) => Ok(deposit::store::find_by_derived_address(connection, id).await?),
        None => Ok(None),
    }
}

/// Why a step of the adoption stopped: what is asked for cannot be, or the database failed.
enum Stop {
    Refused(AdoptError),
    Failed(BroadcastError),
}

impl<E: Into<BroadcastError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn refuse_in(signed: &SignedTransfer) -> impl Fn(Stop) -> BroadcastError + use<> {
    let tx_hash = signed.hash;
    move |stop| match stop {
        Stop::Refused(source) => BroadcastError::Adopt { tx_hash, source: Box::new(source) },
        Stop::Failed(error) => error,
    }
}

fn no_order(signed: &SignedTransfer) -> BroadcastError {
    let source = AdoptError::NoOrder { to: signed.transfer.to, asset: signed.transfer.asset, units: signed.transfer.amount };
    BroadcastError::Adopt { tx_hash: signed.hash, source: Box::new(source) }
}

/// The order that waits and pays exactly this; from a deposit address only that of its own payment.
async fn order_of(connection: &mut PgConnection, intent: &Intent, named: Option<Uuid>) -> Result<Payout, Stop> {
    let own: Option<PaymentId> = match intent.from.purpose {
        account::Purpose::Deposit => {
            let found = destination_at(connection, intent.from.address).await.map_err(Stop::Failed)?;
            Some(found.ok_or(Stop::Refused(AdoptError::NoDestination(intent.from.address)))?.payment)
        }
        account::Purpose::Treasury | account::Purpose::Gas => None,
    };
    let mut fitting = Vec::new();
    for id in escrow::store::list_ordered_to(connection, intent.amount.asset, intent.to).await? {
        let payout = escrow::store::get_payout(connection, id).await.map_err(IntentError::from)?;
        let its_own = own.is_none_or(|own| own == payout.payment);
        if its_own && payout.net() == intent.amount && named.is_none_or(|named| named == payout.id) {
            fitting.push(payout);
        }
    }
    match fitting.len() {
        0 => Err(Stop::Refused(AdoptError::NoOrder { to: intent.to, asset: intent.amount.asset.asset, units: intent.amount.units })),
        1 => Ok(fitting.remove(0)),
        _ => Err(Stop::Refused(AdoptError::SeveralOrders(fitting.iter().map(|payout| payout.id).collect()))),
    }
}

/// The books must hold what it took, fee and all, or its settlement could not be posted.
async fn refuse_unbooked(connection: &mut PgConnection, intent: &Intent, inclusion: Inclusion) -> Result<(), Stop> {
    let native = AssetId { chain: intent.chain(), asset: Asset::Native };
    let moved = if inclusion.succeeded { intent.amount.units } else { U256::ZERO };
    let coin = if intent.amount.asset == native { moved } else { U256::ZERO };
    let address = intent.from.address;
    for (asset, units) in [(intent.amount.asset, moved), (native, coin.saturating_add(inclusion.fee_paid))] {
        let held = ledger::store::balance(connection, asset, AccountKey::Custody(address)).await.map_err(IntentError::from)?.units;
        if held < units {
            return Err(Stop::Refused(AdoptError::NotBooked { address, asset: asset.asset, held, units }));
        }
    }
    Ok(())
}
