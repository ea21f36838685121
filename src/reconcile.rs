//! Ledger against chain: per address and asset, at one block.
//!
//! The chain's balance must equal the ledger's, plus what is in the chain and not yet in the ledger:
//! transfers that wait for their depth, and our own transactions that are mined and not settled. What else
//! differs is found at a confirmed block and kept as a finding, for a person: nothing is booked for it.

mod finding;
pub mod invariants;
pub mod store;
mod worker;

pub use finding::Finding;
pub use worker::{Reconciler, reconcile, sides};

use alloy::primitives::{Address, I256, U256};

use crate::db::DbError;
use crate::rpc::RpcError;
use crate::units::{Asset, AssetId, BlockRef, Disposition};

/// An address in an asset of the chain that is spoken of.
type Account = (Address, Asset);

/// One address in one asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub address: Address,
    pub asset: AssetId,
    pub ledger_units: U256,
    pub chain_units: U256,
    /// In the chain and not yet in the ledger, signed.
    pub pending_units: I256,
}

impl Line {
    /// What is at the address and unexplained; negative where it is missing. Saturates.
    pub fn difference(&self) -> I256 {
        let wide = |units: U256| I256::try_from(units).unwrap_or(I256::MAX);
        wide(self.chain_units).saturating_sub(wide(self.ledger_units)).saturating_sub(self.pending_units)
    }

    /// Whether every unit at the address is explained.
    pub fn is_equal(&self) -> bool {
        let wide = |units: U256| I256::try_from(units).ok();
        match (wide(self.ledger_units), wide(self.chain_units)) {
            (Some(ledger), Some(chain)) => ledger.checked_add(self.pending_units) == Some(chain),
            // Balances above 2^255 have no pending part that matters.
            (None, _) | (_, None) => self.ledger_units == self.chain_units && self.pending_units.is_zero(),
        }
    }
}

/// The two sides of the books in one asset: where the money is, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    pub asset: AssetId,
    /// custody + network_fee + shortfall
    pub debit_units: U256,
    /// claims + fees + operator
    pub credit_units: U256,
    pub custody_units: U256,
}

impl Sides {
    pub fn is_equal(&self) -> bool {
        self.debit_units == self.credit_units
    }
}

#[derive(Clone, Debug)]
pub struct Report {
    pub at: BlockRef,
    pub lines: Vec<Line>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("chain {0} has not been scanned yet; start the daemon first")]
    NotScanned(crate::units::ChainId),
}

impl ReconcileError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
            Self::NotScanned(_) => Disposition::Retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ChainId;

    #[test]
    fn w7_only_explained_units_are_equal() {
        let asset = AssetId { chain: ChainId::new(1).unwrap(), asset: Asset::Native };
        let line = |ledger: u64, chain: u64, pending: i64| Line {
            address: Address::ZERO,
            asset,
            ledger_units: U256::from(ledger),
            chain_units: U256::from(chain),
            pending_units: I256::try_from(pending).unwrap(),
        };
        assert!(line(5, 5, 0).is_equal());
        assert!(line(5, 7, 2).is_equal());
        assert!(line(5, 3, -2).is_equal());
        assert!(!line(5, 6, 0).is_equal());
        assert!(!line(5, 5, 1).is_equal());
        assert!(!Line { ledger_units: U256::MAX, ..line(0, 1, 0) }.is_equal());
        assert_eq!(line(5, 7, 1).difference(), I256::ONE);
        assert_eq!(line(5, 3, 0).difference(), -I256::ONE - I256::ONE);
    }
}
