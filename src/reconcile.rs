//! Ledger against chain: per address and asset, at one block.
//!
//! The chain's balance must equal the ledger's, plus what is in the chain and not yet in the ledger:
//! transfers that wait for their depth, and our own transactions that are mined and not settled.

mod store;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, I256, U256};

use crate::chains::ChainSpec;
use crate::db::{Database, DbError};
use crate::ledger::{self, AccountKind};
use crate::rpc::{Node, RpcError};
use crate::scan;
use crate::units::{Asset, AssetId, BlockRef, Disposition};

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

/// Compares every custody account of a chain with the chain, at the scanner's block.
pub async fn reconcile(db: &Database, node: &Node, chain: &ChainSpec) -> Result<Report, ReconcileError> {
    let mut connection = db.connection().await?;
    let cursor = scan::store::find_cursor(&mut connection, chain.id).await?.ok_or(ReconcileError::NotScanned(chain.id))?;
    let booked: BTreeMap<(Address, Asset), U256> = ledger::store::list_custody(&mut connection, chain.id)
        .await?
        .into_iter()
        .map(|row| ((row.address, row.balance.asset.asset), row.balance.units))
        .collect();
    let pending = pending_by_account(store::list_pending(&mut connection, chain.id, cursor.tip.number).await?);
    drop(connection);
    let accounts: BTreeSet<(Address, Asset)> = booked.keys().chain(pending.keys()).copied().collect();
    let mut lines = Vec::with_capacity(accounts.len());
    for (address, asset) in accounts {
        lines.push(Line {
            address,
            asset: AssetId { chain: chain.id, asset },
            ledger_units: booked.get(&(address, asset)).copied().unwrap_or_default(),
            chain_units: node.balance(asset, address, cursor.tip).await?,
            pending_units: pending.get(&(address, asset)).copied().unwrap_or_default(),
        });
    }
    Ok(Report { at: cursor.tip, lines })
}

fn pending_by_account(movements: Vec<store::Pending>) -> BTreeMap<(Address, Asset), I256> {
    let mut sums: BTreeMap<(Address, Asset), I256> = BTreeMap::new();
    for movement in movements {
        let units = I256::try_from(movement.units).unwrap_or(I256::MAX);
        let sum = sums.entry((movement.address, movement.asset)).or_default();
        *sum = if movement.incoming { sum.saturating_add(units) } else { sum.saturating_sub(units) };
    }
    sums.retain(|_, sum| !sum.is_zero());
    sums
}

/// The two sides of the books per asset (L1).
pub async fn sides(db: &Database) -> Result<Vec<Sides>, ReconcileError> {
    let mut connection = db.connection().await?;
    let mut assets: BTreeMap<AssetId, Sides> = BTreeMap::new();
    for row in ledger::store::list_totals(&mut connection).await? {
        let empty = Sides { asset: row.total.asset, debit_units: U256::ZERO, credit_units: U256::ZERO, custody_units: U256::ZERO };
        let sides = assets.entry(row.total.asset).or_insert(empty);
        if row.kind.is_debit_normal() {
            sides.debit_units = sides.debit_units.saturating_add(row.total.units);
        } else {
            sides.credit_units = sides.credit_units.saturating_add(row.total.units);
        }
        if row.kind == AccountKind::Custody {
            sides.custody_units = row.total.units;
        }
    }
    Ok(assets.into_values().collect())
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
    }
}
