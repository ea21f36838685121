//! Acts that take two officers: one proposes a text, another confirms exactly that text.
//!
//! What a confirmed proposal brings about is the business of the room whose subject it is, in the same
//! transaction. The database itself refuses a confirmation by whoever proposed, by nobody's officer, of
//! another text, or after seven days.

pub mod store;

use alloy::primitives::B256;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::units::{ProposalId, UserId};

/// `proposal_subject`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "proposal_subject", rename_all = "lowercase")]
pub enum Subject {
    Policy,
    Destination,
    Threshold,
    #[sqlx(rename = "nonce_baseline")]
    NonceBaseline,
    /// Money that came for nobody, and losses.
    Adjustment,
}

impl Subject {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Destination => "destination",
            Self::Threshold => "threshold",
            Self::NonceBaseline => "nonce baseline",
            Self::Adjustment => "adjustment",
        }
    }
}

/// A change as it is proposed.
#[derive(Clone, Debug)]
pub struct NewProposal {
    pub subject: Subject,
    /// What both officers decide about.
    pub body: String,
    /// Not before this; at once when absent.
    pub effective_at: Option<OffsetDateTime>,
    /// 1 to 500 characters.
    pub reason: String,
}

/// A row of `change_proposals`, with what was decided.
#[derive(Clone, Debug)]
pub struct Proposal {
    pub id: ProposalId,
    pub subject: Subject,
    pub body: String,
    pub digest: B256,
    pub effective_at: Option<OffsetDateTime>,
    pub proposed_by: UserId,
    pub reason: String,
    pub created_at: OffsetDateTime,
    pub decision: Option<Decision>,
}

#[derive(Clone, Debug)]
pub struct Decision {
    pub confirmed: bool,
    pub decided_by: UserId,
    pub decided_at: OffsetDateTime,
}

/// SHA-256 of a proposal's text.
pub fn digest_of(body: &str) -> B256 {
    B256::from(<[u8; 32]>::from(Sha256::digest(body.as_bytes())))
}

/// Why two officers did not come together.
#[derive(Debug, thiserror::Error)]
pub enum ProposalError {
    #[error("only an officer proposes and decides; officers are admins and guards")]
    NotAnOfficer,
    #[error("no proposal {0}")]
    Unknown(ProposalId),
    #[error("proposal {0} is decided already")]
    Decided(ProposalId),
    #[error("you proposed {0}; another officer confirms it")]
    OwnProposal(ProposalId),
    #[error("proposal {0} is not the text you saw; read it again")]
    StaleDigest(ProposalId),
    #[error("proposal {0} was not confirmed within seven days; propose it again")]
    Dead(ProposalId),
    #[error("proposal {0}: who proposed it is no officer any more; propose it again")]
    ProposerLeft(ProposalId),
    #[error("proposal {id} is about a {found}, not a {expected}")]
    OtherSubject { id: ProposalId, found: &'static str, expected: &'static str },
    #[error("reason has {found} characters; give it 1 to 500")]
    Reason { found: usize },
    #[error("takes effect at {asked}, and it is {now}; a change may not be dated back")]
    Past { asked: OffsetDateTime, now: OffsetDateTime },
}
