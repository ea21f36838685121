//! Intents: money about to leave an address, planned from the ledger and held there.
//!
//! What an officer approves is the digest of everything that reaches the chain. The nonce is taken in
//! the transaction that stores the intent, so no counter elsewhere can drift from it. The policy is asked there
//! too. A release or a refund pays a payout that was ordered; a dispute gives up those that nobody can have
//! signed. A cancel is an officer's act.

pub mod baseline;
pub mod digest;
mod dispute;
pub mod judge;
pub mod plan;
pub mod raise;
pub mod state;
pub mod store;
mod void;
mod worker;

pub use crate::policy::IntentKind;
pub use dispute::open_dispute;
pub use raise::RaiseError;
pub use state::{Illegal, IntentEvent, IntentState};
pub use void::{give_back, void};
pub use worker::{PlanPolicy, Planner};

use alloy::primitives::{Address, B256};
use uuid::Uuid;

use crate::account::{AccountError, DerivedAddress};
use crate::db::DbError;
use crate::escrow::EscrowError;
use crate::ledger::LedgerError;
use crate::payment::PaymentError;
use crate::policy::PolicyError;
use crate::rpc::RpcError;
use crate::units::{ChainId, Disposition, IntentId, PaymentId, PolicyId, TokenAmount};

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
    /// How long an approval of it counts.
    pub approvals_expire_minutes: u32,
    /// The policy it was planned under; it keeps it. `None` before there was any.
    pub policy: Option<PolicyId>,
    pub requested_by: String,
    /// Who asked for the present revision, where that is somebody else.
    pub revised_by: Option<String>,
    /// The newest revision of which signed bytes are stored.
    pub signed_revision: Option<u32>,
    /// The intent whose nonce a cancel takes.
    pub cancels: Option<IntentId>,
    pub station: Option<String>,
}

impl Intent {
    pub fn chain(&self) -> ChainId {
        self.amount.asset.chain
    }

    /// Whether a signature of it may exist, here or on a device.
    pub fn may_be_signed(&self) -> bool {
        self.station.is_some() || self.signed_revision.is_some()
    }

    /// Whether a person asked for it, or for what it is now: they may not approve it.
    pub fn was_asked_for_by(&self, name: &str) -> bool {
        self.requested_by == name || self.revised_by.as_deref() == Some(name)
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
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("intent {intent} cannot pay more")]
    Raise { intent: IntentId, source: RaiseError },
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
            Self::Policy(error) => error.disposition(),
            Self::Escrow(error) => error.disposition(),
            Self::Item { source, .. } => source.disposition(),
            Self::Raise { .. } | Self::Unknown(_) | Self::Illegal { .. } | Self::MayBeSigned(_) => Disposition::Skip,
            Self::ForeignNonce { .. } | Self::DigestMismatch(_) | Self::NoPayout(_) | Self::GasTooHigh { .. } => Disposition::Officer,
        }
    }
}
