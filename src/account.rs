//! Trezor accounts: which xpub we watch, and every address below it.
//!
//! Only public keys live here: addresses are derived from an account's extended public key, and the
//! private side never leaves the device. Paths and indices the device would refuse to sign for
//! cannot be expressed.

mod capacity;
mod limit;
mod path;
mod rebuild;
mod second;
pub mod store;
pub mod worker;
mod xpub;

pub use capacity::{Capacity, Counter, Room};
pub use limit::IssueLimit;
pub use path::{AccountIndex, AddressIndex, Branch, DerivationPath, PathError};
pub use rebuild::{Comparison, Difference, StoredAddress};
pub use second::{SecondDeriver, TwoDerivers};
pub use xpub::{AccountXpub, DeriveError, Deriver, Fingerprint, XpubError, is_secret};

use alloy::primitives::Address;
use uuid::Uuid;

use crate::db::DbError;
use crate::units::{Disposition, TrezorAccountId};

/// An enrolled account: a row of `trezor_accounts`.
#[derive(Clone, Debug)]
pub struct TrezorAccount {
    pub id: TrezorAccountId,
    pub label: String,
    pub xpub: AccountXpub,
    pub fingerprint: Fingerprint,
    pub next_deposit_index: u32,
}

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "derived_address_purpose", rename_all = "lowercase")]
pub enum Purpose {
    /// Collects one payment.
    Deposit,
    /// Holds the operator's native coin that fuels sweeps.
    Gas,
    /// Collects sweeps and pays releases.
    Treasury,
}

impl Purpose {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deposit => "deposit",
            Self::Gas => "gas",
            Self::Treasury => "treasury",
        }
    }

    /// The operator's own addresses have fixed places on branch 1 of every account.
    pub const OPERATOR: [(Self, u32); 2] = [(Self::Gas, 0), (Self::Treasury, 1)];

    /// What an address at this place is for; nothing of ours is elsewhere on the operator's branch.
    pub fn at(path: DerivationPath) -> Option<Self> {
        match path.branch {
            Branch::Deposit => Some(Self::Deposit),
            Branch::Operator => Self::OPERATOR.into_iter().find(|(_, index)| *index == path.index.get()).map(|(purpose, _)| purpose),
        }
    }
}

/// An address ever issued: a row of `trezor_derived_addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DerivedAddress {
    pub id: Uuid,
    pub account: TrezorAccountId,
    pub path: DerivationPath,
    pub address: Address,
    pub purpose: Purpose,
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Derive(#[from] DeriveError),
    #[error("no Trezor account is enrolled; run `amanatd account enrol`")]
    NoAccount,
    /// Claiming goes on with the account of this number once it is enrolled. `None`: this seed has no more.
    #[error("every enrolled account has issued all its 1000001 addresses (the last is {last:?}); {}", capacity::remedy(*.next))]
    Exhausted { last: String, next: Option<AccountIndex> },
    #[error("no account is labelled {label:?}; `amanatd account list` shows them")]
    Unknown { label: String },
    /// The row of an index below the counter is not there: an address that was issued would not be watched.
    #[error("{path} of account {label:?} was issued and its row is missing; run `amanatd account rebuild --missing`")]
    RowMissing { label: String, path: DerivationPath },
    /// What is missing may be filled in, what is there is never changed.
    #[error("account {label:?}: {what}; nothing was written")]
    Differs { label: String, what: Difference },
    #[error("this xpub is enrolled already, as account {label:?}")]
    XpubTaken { label: String },
    #[error("an account labelled {label:?} exists already; choose another label")]
    LabelTaken { label: String },
}

impl AccountError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            // Two implementations that disagree: neither may be believed, and nothing may be issued.
            Self::Derive(DeriveError::Disagree { .. }) => Disposition::Stop,
            Self::Derive(DeriveError::Branch { .. } | DeriveError::Invalid { .. })
            | Self::NoAccount
            | Self::Exhausted { .. }
            | Self::Unknown { .. }
            | Self::RowMissing { .. }
            | Self::Differs { .. }
            | Self::XpubTaken { .. }
            | Self::LabelTaken { .. } => Disposition::Officer,
        }
    }
}
