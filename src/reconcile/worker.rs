//! Reads both sides and compares them. Run on demand; nothing is written.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, I256, U256};

use super::{Line, ReconcileError, Report, Sides, store};
use crate::account;
use crate::chains::ChainSpec;
use crate::db::Database;
use crate::deposit;
use crate::ledger::{self, AccountKind};
use crate::rpc::Node;
use crate::scan;
use crate::units::{Asset, AssetId};

/// How many open destinations one report asks the chain about.
const ADDRESSES_MAX: i64 = 10_000;

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
    // The operator's addresses and every destination that is not swept are asked for in each listed
    // asset, booked or not: what nobody booked is what nobody saw.
    let mut addresses: Vec<Address> = deposit::store::list_unswept(&mut connection, chain.id, ADDRESSES_MAX).await?;
    addresses.extend(account::store::list_operator_addresses(&mut connection).await?.into_iter().map(|own| own.address));
    drop(connection);
    let assets: Vec<Asset> = std::iter::once(Asset::Native).chain(chain.tokens.iter().map(|token| Asset::Token(token.contract))).collect();
    let watched = addresses.iter().flat_map(|address| assets.iter().map(|asset| (*address, *asset)));
    let accounts: BTreeSet<(Address, Asset)> = booked.keys().chain(pending.keys()).copied().chain(watched).collect();
    let mut lines = Vec::with_capacity(accounts.len());
    for (address, asset) in accounts {
        let line = Line {
            address,
            asset: AssetId { chain: chain.id, asset },
            ledger_units: booked.get(&(address, asset)).copied().unwrap_or_default(),
            chain_units: node.balance(asset, address, cursor.tip).await?,
            pending_units: pending.get(&(address, asset)).copied().unwrap_or_default(),
        };
        // Nothing there and nothing booked is not worth a line.
        let has_account = booked.contains_key(&(address, asset)) || pending.contains_key(&(address, asset));
        if has_account || !line.chain_units.is_zero() {
            lines.push(line);
        }
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
