//! Intents: money about to leave an address, planned from the ledger and held there.
//!
//! What an officer approves is the digest of everything that reaches the chain. The nonce is taken in
//! the transaction that stores the intent, so no counter elsewhere can drift from it. A release or a refund
//! pays a payout that was ordered; a dispute gives up those that nobody can have signed. Cancels have their
//! kind already and are planned later.

pub mod digest;
mod dispute;
pub mod plan;
pub mod state;
pub mod store;
mod void;
mod worker;

pub use dispute::open_dispute;
pub use state::{Illegal, IntentEvent, IntentState};
pub use void::void;
pub use worker::{PlanPolicy, Planner};

use alloy::primitives::{Address, B256};
use uuid::Uuid;

use crate::account::{AccountError, DerivedAddress};
use crate::db::DbError;
use crate::escrow::EscrowError;
use crate::ledger::LedgerError;
use crate::payment::PaymentError;
use crate::rpc::RpcError;
use crate::units::{ChainId, Disposition, IntentId, PaymentId, TokenAmount};

/// `intent_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "intent_kind", rename_all = "lowercase")]
pub enum IntentKind {
    /// Deposit address to treasury.
    Sweep,
    /// Treasury to the seller.
    Release,
    /// Back to the buyer.
    Refund,
    /// Native coin from the gas address to a deposit address, so that it can be swept.
    Fuel,
    /// A zero transfer to self that takes another intent's nonce.
    Cancel,
}

impl IntentKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Release => "release",
            Self::Refund => "refund",
            Self::Fuel => "fuel",
            Self::Cancel => "cancel",
        }
    }
}

/// The most an intent may pay for gas: frozen with it, because a person takes longer than a fee market.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeeTerms {
    pub gas_limit: u64,
    pub max_fee_per_gas: u128,
    pub max_priority_fee_per_gas: u128,
}

/// A row of `intents`.
#[derive(Clone, Debug)]
pub struct Intent {
    pub id: IntentId,
    pub kind: IntentKind,
    pub state: IntentState,
    pub state_version: i64,
    pub revision: u32,
    pub from: DerivedAddress,
    pub to: Address,
    /// What moves; its asset names the chain.
    pub amount: TokenAmount,
    pub nonce: u64,
    pub fees: FeeTerms,
    pub payment: Option<PaymentId>,
    pub destination: Option<Uuid>,
    pub digest: B256,
    pub approvals_required: u8,
    pub requested_by: String,
    pub station: Option<String>,
}

impl Intent {
    pub fn chain(&self) -> ChainId {
        self.amount.asset.chain
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IntentError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Escrow(#[from] EscrowError),
    #[error("{what}: {source}")]
    Item { what: String, source: Box<IntentError> },
    #[error("the node wants {estimate} gas for a transfer, more than {max}; nothing is planned on its word")]
    GasTooHigh { estimate: u64, max: u64 },
    #[error("a station has had intent {0}; a signature may exist, so it cannot be given up")]
    MayBeSigned(IntentId),
    #[error("intent {0} pays no order of a payment; an officer must look at it")]
    NoPayout(IntentId),
    #[error("no intent {0}")]
    Unknown(IntentId),
    #[error("intent {intent}")]
    Illegal { intent: IntentId, source: Illegal },
    #[error(
        "nonce {nonce} of {address} on chain {chain} was used by a transaction that is not ours; nothing is planned from that address until an officer has looked"
    )]
    ForeignNonce { chain: ChainId, address: Address, nonce: u64 },
    #[error("stored digest of intent {0} differs from its fields; the row was changed outside this daemon")]
    DigestMismatch(IntentId),
}

impl IntentError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Account(error) => error.disposition(),
            Self::Ledger(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
            Self::Escrow(error) => error.disposition(),
            Self::Item { source, .. } => source.disposition(),
            Self::Unknown(_) | Self::Illegal { .. } | Self::MayBeSigned(_) => Disposition::Skip,
            Self::ForeignNonce { .. } | Self::DigestMismatch(_) | Self::NoPayout(_) | Self::GasTooHigh { .. } => Disposition::Officer,
        }
    }
}
