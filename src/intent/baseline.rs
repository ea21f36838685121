//! Where the past of an address ends on a chain: below it, used nonces need no transaction of ours.
//!
//! Zero unless two officers say otherwise, so that a database which has forgotten outflows (restored from a
//! backup) never reads like one whose addresses were in use before it.

pub mod store;

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};

use crate::db::DbError;
use crate::officer::OfficerError;
use crate::units::{ChainId, Disposition};

/// A baseline as it is proposed: the text that both officers decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineAsked {
    pub chain: u64,
    pub address: Address,
    /// The first nonce that needs a transaction of ours.
    pub nonce: u64,
}

impl BaselineAsked {
    /// The stored text; the same baseline always gives the same.
    pub fn canonical(&self) -> String {
        serde_json::json!({ "chain": self.chain, "address": format!("{:#x}", self.address), "nonce": self.nonce }).to_string()
    }

    pub fn from_canonical(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// An address whose nonces were used by what is not ours, as it stands now.
#[derive(Clone, Debug)]
pub struct ForeignUse {
    pub chain: ChainId,
    pub address: Address,
    pub nonce: u64,
    pub baseline: u64,
    pub seen_at: time::OffsetDateTime,
}

#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Officer(#[from] OfficerError),
    #[error("{0} is not derived from one of our accounts")]
    NotOurs(Address),
    #[error("nonce {asked} is not above the baseline of {address} on chain {chain}, which is {stands}")]
    NotHigher { chain: ChainId, address: Address, asked: u64, stands: u64 },
    #[error("the stored text of the proposal is no baseline: {0}")]
    Stored(String),
}

impl BaselineError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Officer(error) => error.disposition(),
            Self::NotOurs(_) | Self::NotHigher { .. } => Disposition::Skip,
            Self::Stored(_) => Disposition::Officer,
        }
    }
}
