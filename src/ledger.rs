//! The ledger: who owns what, and where it is.
//!
//! A row of `funds_ledger_entries` moves one amount of one asset from one account to another, so a row
//! cannot be out of balance. Custody accounts (debit-normal) answer *where is the money?* and equal the
//! chain's balance of their address; claim accounts (credit-normal) answer *whose is it?*. Per asset,
//! always: custody + network_fee + shortfall = claims + fees + operator.
//!
//! The store has `append` and reads. There is no update or delete to call. Seals fix what was posted, and
//! statements are how it is read outside.

mod entry;
pub mod posting;
pub mod seal;
pub mod statement;
pub mod store;
mod worker;

pub use entry::{AccountKey, AccountKind, Entry, EntryType};
pub use worker::{Bookkeeper, credit, make_whole};

use crate::db::DbError;
use crate::payment::PaymentError;
use crate::units::{AmountError, Disposition};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("posting {key:?} would take an account below zero")]
    Overdraft { key: String },
    #[error("posting {key:?} is in the ledger already")]
    AlreadyPosted { key: String },
    #[error("entry {key:?} is not in the ledger")]
    UnknownEntry { key: String },
    #[error("verdict {verdict} no longer stands: its transfer left the chain")]
    NotStanding { verdict: i64 },
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error("asset {0} was credited but is no longer in the chain book; restore it to chains.toml")]
    UnlistedAsset(crate::units::AssetId),
}

impl LedgerError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::AlreadyPosted { .. } | Self::NotStanding { .. } => Disposition::Retry,
            Self::Payment(error) => error.disposition(),
            Self::Overdraft { .. } | Self::UnknownEntry { .. } | Self::Amount(_) | Self::UnlistedAsset(_) => Disposition::Officer,
        }
    }
}
