//! Whom money comes from: each credited transfer is screened, and what hits is held.
//!
//! Screeners are asked about the sender that the transfer names and about whoever signed its transaction: a
//! list of addresses from a file, a sanctions oracle on the chain, an HTTP provider. Each answer is a row of
//! its own with what it rests on; together they make one standing per sighting. Money is credited meanwhile:
//! it is there, and the books must say so. What it does not do is leave: `intent` plans nothing with it,
//! and `broadcast` gives nothing to a station and sends nothing, until its standing passes under the policy in
//! force ([`store::find_hold`]). When the list changes, the policy does, and money that is still here is
//! screened again.
//!
//! A hit stays a hit: it quarantines the destination, and only a resolver frees it ([`decide()`]), which the
//! database checks too. Absent on purpose: whether an address should be on a list.
//!
//! Whom money goes to is screened the same way before anything is planned for them ([`recipient`]).
//!
//! The other half of the room is what a token's issuer does: [`freeze`] watches which of our addresses and of
//! the sellers' are frozen, because their transfers would revert or be stuck.

mod decide;
pub mod freeze;
pub mod guard;
pub mod list;
mod oracle;
pub mod policy;
pub mod provider;
pub mod recipient;
pub mod screener;
pub mod store;
mod worker;

use alloy::primitives::Address;

use crate::db::DbError;
use crate::officer::OfficerError;
use crate::payment::PaymentError;
use crate::rpc::RpcError;
use crate::units::{Disposition, UserId};

pub use decide::{Ruling, decide};
pub use freeze::FreezeWatch;
pub use list::{ListError, SanctionsList};
pub use policy::{Decision, Outcome, Policy, ScreenerKind, Waiver};
pub use provider::{Provider, ProviderError, ProviderOptions};
pub use recipient::{Recipient, decide_recipient};
pub use screener::{Answer, Screener, Subject};
pub use worker::{ListFile, ScreenOptions, ScreenWorker};

/// Why money of a deposit may not leave now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Not looked at under the policy in force.
    Unscreened,
    /// Somebody it comes from is on a list.
    Hit,
    /// A screener has not answered.
    Unavailable,
    /// The token's issuer has frozen this address.
    Frozen(Address),
    /// Whom it would go to was not looked at under the policy in force.
    RecipientUnscreened(Address),
    /// Whom it would go to is on a list.
    RecipientHit(Address),
    /// A screener has not answered about whom it would go to.
    RecipientUnavailable(Address),
}

impl std::fmt::Display for Hold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unscreened => f.write_str("its deposit is not screened yet under the policy in force"),
            Self::Hit => f.write_str("screening hit somebody it comes from; only a resolver frees it (`amanatd screen list`)"),
            Self::Unavailable => {
                f.write_str("a screener has not answered yet about its deposit; it is asked again (`amanatd screen list`)")
            }
            Self::Frozen(address) => write!(f, "the token's issuer has frozen {address}"),
            Self::RecipientUnscreened(address) => write!(f, "its recipient {address} is not screened yet under the policy in force"),
            Self::RecipientHit(address) => {
                write!(f, "screening hit its recipient {address}; only a resolver frees it (`amanatd screen recipients`)")
            }
            Self::RecipientUnavailable(address) => {
                write!(f, "a screener has not answered yet about its recipient {address}; it is asked again (`amanatd screen recipients`)")
            }
        }
    }
}

/// What kept a tick or a decision from its end. Standings that were reached are stored.
#[derive(Debug, thiserror::Error)]
pub enum ScreenError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Officer(#[from] OfficerError),
    #[error("the sanctions list is not taken over; what was read before stays in force")]
    List(#[from] ListError),
    #[error("no credited transfer {0} to decide about")]
    Unknown(i64),
    #[error("transfer {0} is not held; there is nothing to decide")]
    NotHeld(i64),
    #[error("no recipient {0} to decide about")]
    UnknownRecipient(i64),
    #[error("recipient {0} is not held; there is nothing to decide")]
    RecipientNotHeld(i64),
    #[error("user {0} is no active resolver; only a resolver decides about what is held")]
    NotResolver(UserId),
    #[error("reason = {0:?}: say why in 1 to 500 characters")]
    Reason(String),
}

impl ScreenError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
            Self::Officer(_)
            | Self::Unknown(_)
            | Self::NotHeld(_)
            | Self::UnknownRecipient(_)
            | Self::RecipientNotHeld(_)
            | Self::NotResolver(_)
            | Self::Reason(_) => Disposition::Skip,
            Self::List(_) => Disposition::Officer,
        }
    }
}
