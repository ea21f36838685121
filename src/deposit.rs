//! Deposit addresses: one per payment, claimed and committed before anybody learns of it, and watched
//! for ever.

pub mod store;
mod watched;
mod worker;

pub use watched::WatchedSet;
pub use worker::Watched;

use alloy::primitives::Address;
use uuid::Uuid;

use crate::units::{BlockNumber, ChainId, PaymentId};

/// `derived_destination_status`, the marketplace's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "derived_destination_status", rename_all = "lowercase")]
pub enum DestinationStatus {
    Active,
    Swept,
    Sweeping,
    Quarantined,
}

impl DestinationStatus {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Swept => "swept",
            Self::Sweeping => "sweeping",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A row of `derived_destinations`: where a payment collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    pub id: Uuid,
    pub payment: PaymentId,
    pub derived_address: Uuid,
    pub address: Address,
    pub chain: ChainId,
    /// Only transfers in blocks above this one count towards the payment.
    pub birth_block: BlockNumber,
    pub status: DestinationStatus,
}
