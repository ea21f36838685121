//! Policy over what leaves: which outflows are allowed, how many officers each takes, for how long an
//! approval counts, and where money may go.
//!
//! Deny by default: once there is a policy, what no rule covers cannot leave. All rules that cover an
//! outflow apply and the strictest wins, so their order means nothing. A policy is proposed by one officer
//! and confirmed by another; the rows are never changed, and the newest that has taken effect is in force.
//! Before the first one, a number in the configuration says how many officers every intent takes.
//!
//! This room stands before `intent`, which asks it about every outflow in the transaction that stores it.
//! What has left or is about to is counted there; here it is an argument.

mod destination;
mod document;
mod rule;
pub mod store;

pub use destination::{Destination, DestinationAsked, Standing};
pub use document::{DocumentError, parse};
pub use rule::{
    APPROVALS_EXPIRE_MINUTES, Destinations, Evaluation, Facts, IntentKind, Left, Limit, Outflow, Policy, Refusal, Rule, Terms, Verdict,
    officers,
};

use time::OffsetDateTime;

use crate::db::DbError;
use crate::officer::OfficerError;
use crate::units::{Disposition, PolicyId};

/// A row of `outflow_policies`.
#[derive(Clone, Debug)]
pub struct PolicyRow {
    pub id: PolicyId,
    pub policy: Policy,
    /// SHA-256 of the stored text: what its two officers saw.
    pub digest: alloy::primitives::B256,
    pub effective_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub proposed_by: crate::units::UserId,
    pub confirmed_by: crate::units::UserId,
    pub reason: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Officer(#[from] OfficerError),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("policy {policy} does not let it leave: {}", reasons(.refusals))]
    Refused { policy: PolicyId, refusals: Vec<Refusal> },
    #[error("{0} is not on the list of destinations")]
    NotListed(alloy::primitives::Address),
    #[error("{0} is one of our own addresses; those need no listing")]
    Own(alloy::primitives::Address),
    #[error("label has {found} characters; give it 1 to 100")]
    Label { found: usize },
}

fn reasons(refusals: &[Refusal]) -> String {
    refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ")
}

impl PolicyError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Officer(error) => error.disposition(),
            Self::Document(_) | Self::Refused { .. } | Self::NotListed(_) | Self::Own(_) | Self::Label { .. } => Disposition::Skip,
        }
    }
}
