//! Transfers to verdicts: when does a sighting count, and when may its money leave again?
//!
//! Two gates. Credit counts blocks from the including one, which is the first confirmation. Release goes
//! by the block that the node calls final, or counts blocks where it names none. Required is the larger
//! of what was in force when the block was first stored and what is in force now, each the largest of the
//! base and the tiers that the amount reaches. Raising a threshold protects what is pending; lowering it
//! touches only later blocks. Before a verdict is written the node is asked again, in the same round: is
//! the tip still there, is the block, and does the receipt still say that the transaction succeeded in it.
//! The verdict keeps all that it rests on, so that it can be decided again at any time.
//!
//! A credit whose sighting a reorg took away is broken: it stays until the ledger has reversed it and
//! revokes it ([`store::list_broken_credits`], [`store::revoke`]), and its release goes with it. From the
//! first broken one on nothing leaves on that chain.

pub mod explain;
pub mod rule;
pub mod store;
pub mod verdict;
mod worker;

use crate::db::DbError;
use crate::payment::PaymentError;
use crate::rpc::RpcError;
use crate::units::Disposition;

pub use rule::{Replay, Rule, Sighting, StoredVerdict};
pub use verdict::{Bar, Verdict};
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
