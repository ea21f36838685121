//! Officers' decisions, bound to an intent's digest.
//!
//! An approval names the digest and the revision it saw, so that a changed intent has none, and it counts for a
//! time only: where one expires before a station has the intent, that becomes a new revision, and every approval
//! is asked for anew. How many officers an intent needs, and how long an approval counts, is stored with it when
//! it is planned.

pub mod store;
mod worker;

pub use worker::Lapser;

use crate::intent::IntentError;
use crate::officer::UserRole;
use crate::units::{ApiTokenId, Disposition, IntentId, UserId};

/// Who approves: an officer, by a token of theirs, or by a passkey at the console and then without one.
#[derive(Clone, Copy, Debug)]
pub struct Approver {
    pub officer: UserId,
    pub role: UserRole,
    pub token: Option<ApiTokenId>,
}

impl Approver {
    /// As `Caller::name` names the same person.
    pub fn name(&self) -> String {
        format!("user:{}", self.officer)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error(transparent)]
    Db(#[from] crate::db::DbError),
    #[error("the token's bearer is not an officer; approvals come from admins and guards")]
    NotAnOfficer,
    #[error("officer {officer} asked for intent {intent}, or for its present fees, and may not approve it too")]
    OwnRequest { intent: IntentId, officer: UserId },
    #[error("intent {intent} is no longer what was shown; read it again and approve its present digest")]
    StaleDigest { intent: IntentId },
    #[error("officer {officer} has approved intent {intent} already")]
    Twice { intent: IntentId, officer: UserId },
}

impl ApprovalError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Intent(error) => error.disposition(),
            Self::Db(error) => error.disposition(),
            Self::NotAnOfficer | Self::OwnRequest { .. } | Self::StaleDigest { .. } | Self::Twice { .. } => Disposition::Skip,
        }
    }
}
