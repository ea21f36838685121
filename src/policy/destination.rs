//! Where money may go: the list of destinations, and how an address stands on it. Pure.

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::units::ChainId;

/// How an address stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Derived from one of our accounts.
    Own,
    /// On the list since its newest change, which is when its cooling began.
    Listed {
        since: OffsetDateTime,
    },
    Unlisted,
}

/// The newest change of one destination.
#[derive(Clone, Debug)]
pub struct Destination {
    pub chain: ChainId,
    pub address: Address,
    pub label: String,
    pub allowed: bool,
    pub changed_by: crate::units::UserId,
    pub reason: String,
    pub created_at: OffsetDateTime,
}

/// A destination as it is proposed: the text that both officers decide about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DestinationAsked {
    pub chain: u64,
    /// In lower case.
    pub address: Address,
    pub label: String,
}

impl DestinationAsked {
    pub fn new(chain: ChainId, address: Address, label: &str) -> Self {
        Self { chain: chain.get(), address, label: label.to_owned() }
    }

    /// The stored text; the same destination always gives the same.
    pub fn canonical(&self) -> String {
        serde_json::json!({ "chain": self.chain, "address": format!("{:#x}", self.address), "label": self.label }).to_string()
    }
}
