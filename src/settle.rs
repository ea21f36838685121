//! From a transaction deep in the chain to the ledger: the only place where an outflow becomes final.
//!
//! Broadcast says that bytes went out; this room says that they took effect. It reads the receipt again,
//! at the threshold, and posts once by the transaction's own key.

mod entries;
mod worker;

pub mod store;

pub use worker::Settler;

use alloy::primitives::B256;

use crate::account::AccountError;
use crate::broadcast::BroadcastError;
use crate::db::DbError;
use crate::escrow::EscrowError;
use crate::intent::IntentError;
use crate::ledger::LedgerError;
use crate::payment::PaymentError;
use crate::rpc::RpcError;
use crate::units::{AssetId, Disposition, IntentId};

#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Escrow(#[from] EscrowError),
    #[error("{what}: {source}")]
    Item { what: String, source: Box<SettleError> },
    #[error("tx {tx_hash} of intent {intent} succeeded but did not move exactly the approved amount; an officer must look at it")]
    OtherEffect { intent: IntentId, tx_hash: B256 },
    #[error("asset {0} is not in the chain book")]
    UnlistedAsset(AssetId),
}

impl SettleError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Intent(error) => error.disposition(),
            Self::Broadcast(error) => error.disposition(),
            Self::Account(error) => error.disposition(),
            Self::Ledger(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
            Self::Escrow(error) => error.disposition(),
            Self::Item { source, .. } => source.disposition(),
            Self::OtherEffect { .. } | Self::UnlistedAsset(_) => Disposition::Officer,
        }
    }
}
