//! Signed bytes on their way to a block: stored before the first send, sent again unchanged, followed
//! until they are deep enough to settle.
//!
//! A retry is always the same bytes. An unclear answer never builds another transaction. What is stuck is
//! replaced or cancelled by officers, on the device: another transaction at the same nonce, stored beside the
//! first and linked to it. Only the newest is sent, each is watched, and whichever is mined settles.

pub mod adopt;
pub mod nonces;
pub mod replace;
pub mod store;
mod worker;

pub use adopt::AdoptError;
pub use worker::{Broadcaster, inclusion_of};

use alloy::primitives::{Address, B256, Bytes, U256};
use time::OffsetDateTime;

use crate::db::DbError;
use crate::intent::{FeeTerms, IntentError, IntentState};
use crate::rpc::RpcError;
use crate::screen::Hold;
use crate::signing::{CheckError, RequestError};
use crate::units::{BlockRef, ChainId, Disposition, IntentId};

/// A row of `outbound_transactions`.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub id: i64,
    pub intent: IntentId,
    pub chain: ChainId,
    pub from: Address,
    pub nonce: u64,
    pub tx_hash: B256,
    pub raw: Bytes,
    pub send_attempts: u32,
    pub last_sent_at: Option<OffsetDateTime>,
    pub included: Option<Inclusion>,
    pub fees: FeeTerms,
    /// Whether it is of a cancel, which goes before what it cancels.
    pub is_cancel: bool,
}

/// The block that included a transaction, as last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub block: BlockRef,
    pub succeeded: bool,
    /// Gas used times its price, and what the chain charges on top, in wei.
    pub fee_paid: U256,
}

#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error("intent {intent} cannot be turned into a transaction")]
    Request { intent: IntentId, source: RequestError },
    #[error("what was signed for intent {intent} is not what was approved; it was not stored")]
    NotApproved { intent: IntentId, source: Box<CheckError> },
    #[error("outflow on chain {chain} is halted: {reason}")]
    Halted { chain: ChainId, reason: String },
    #[error(
        "money of intent {intent} is credited and has not passed the release gate; it waits for that (`amanatd confirm explain` says for how long)"
    )]
    OnlyCredited { intent: IntentId },
    #[error("money of intent {intent} is held: {hold}")]
    Held { intent: IntentId, hold: Hold },
    #[error("{what}: {source}")]
    Item { what: String, source: Box<BroadcastError> },
    #[error("intent {intent} is with station {station:?}; take it over only if that station is gone for good")]
    OtherStation { intent: IntentId, station: String },
    #[error("approvals of intent {intent} have expired; officers must approve it again")]
    ApprovalsExpired { intent: IntentId },
    #[error("tx {tx_hash} used the nonce of intent {intent} already; nothing else can be signed for it")]
    NonceUsed { intent: IntentId, tx_hash: B256 },
    #[error("intent {intent} is being cancelled by {cancel}; it is not signed any more")]
    BeingCancelled { intent: IntentId, cancel: IntentId },
    #[error("intent {intent} is {state}: {remedy}")]
    NotReplaceable { intent: IntentId, state: IntentState, remedy: &'static str },
    #[error("{address} holds {held} wei and may have to pay {wanted}; send it coin first, or ask for lower fees")]
    CannotPay { address: Address, held: U256, wanted: U256 },
    #[error("the receipt of tx {tx_hash} does not say what gas cost; use a node that reports effectiveGasPrice")]
    NoGasPrice { tx_hash: B256 },
    #[error("chain {0} is not configured")]
    UnknownChain(ChainId),
    #[error("tx {tx_hash} cannot be adopted: {source}")]
    Adopt { tx_hash: B256, source: Box<AdoptError> },
    #[error("nonce {nonce} of {address} was used on chain {chain}, and none of our transactions is the one that used it")]
    ForeignNonce { chain: ChainId, address: Address, nonce: u64 },
}

impl BroadcastError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Intent(error) => error.disposition(),
            Self::Item { source, .. } => source.disposition(),
            Self::Halted { .. }
            | Self::OnlyCredited { .. }
            | Self::Held { .. }
            | Self::OtherStation { .. }
            | Self::ApprovalsExpired { .. }
            | Self::NonceUsed { .. }
            | Self::BeingCancelled { .. }
            | Self::NotReplaceable { .. }
            | Self::CannotPay { .. }
            | Self::Adopt { .. } => Disposition::Skip,
            Self::NoGasPrice { .. }
            | Self::Request { .. }
            | Self::NotApproved { .. }
            | Self::UnknownChain(_)
            | Self::ForeignNonce { .. } => Disposition::Officer,
        }
    }
}
