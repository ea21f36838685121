//! Signed bytes on their way to a block: stored before the first send, sent again unchanged, followed
//! until they are deep enough to settle.
//!
//! A retry is always the same bytes. An unclear answer never builds another transaction. Replacements
//! with higher fees join later; they need the officer's device again.

pub mod store;
mod worker;

pub use worker::{Broadcaster, inclusion_of};

use alloy::primitives::{Address, B256, Bytes, U256};
use time::OffsetDateTime;

use crate::db::DbError;
use crate::intent::IntentError;
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
    #[error("the receipt of tx {tx_hash} does not say what gas cost; use a node that reports effectiveGasPrice")]
    NoGasPrice { tx_hash: B256 },
    #[error("chain {0} is not configured")]
    UnknownChain(ChainId),
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
            Self::Halted { .. } | Self::OnlyCredited { .. } | Self::Held { .. } | Self::OtherStation { .. } => Disposition::Skip,
            Self::NoGasPrice { .. }
            | Self::Request { .. }
            | Self::NotApproved { .. }
            | Self::UnknownChain(_)
            | Self::ForeignNonce { .. } => Disposition::Officer,
        }
    }
}
