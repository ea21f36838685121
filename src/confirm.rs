//! Transfers to verdicts: when is a sighting deep enough to become a credit?
//!
//! Depth counts from the including block, which is the first confirmation. Required is the larger of two
//! thresholds: the one in force when the block was first stored, and the one in force now. Raising a
//! threshold protects what is pending; lowering it touches only later blocks. Before a verdict is
//! written the node is asked again, in the same round: is the tip still there, is the block, and does
//! the receipt still say that the transaction succeeded in it. The verdict keeps all that it rests on.
//!
//! A verdict whose sighting a reorg took away is broken: it stays until the ledger has reversed the
//! credit and revokes it ([`store::list_broken`], [`store::revoke`]). From the first broken one on nothing
//! leaves on that chain.

pub mod store;
pub mod verdict;
mod worker;

use crate::db::DbError;
use crate::payment::PaymentError;
use crate::rpc::RpcError;
use crate::units::Disposition;

pub use verdict::Verdict;
pub use worker::{Confirmer, Sightings};

/// What kept a tick from deciding. Verdicts that were reached are stored.
#[derive(Debug, thiserror::Error)]
pub enum ConfirmError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
}

impl ConfirmError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
        }
    }
}
