//! Reads both sides and compares them: on demand at the scanner's block, where nothing is written; and for
//! ever at a confirmed block, where a difference becomes a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, I256, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::finding::{self, Place, Round, Seen, Step};
use super::store::{Part, Side};
use super::{Account, Line, ReconcileError, Report, Sides, store};
use crate::chains::ChainSpec;
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKind};
use crate::rpc::Node;
use crate::settings::Gate;
use crate::units::{Asset, AssetId, BlockRef, ChainId, Disposition, Outcomes, Progress};
use crate::{account, deposit, scan, settings};

/// How many open destinations one report asks the chain about.
const ADDRESSES_MAX: i64 = 10_000;
/// How many addresses one tick reads, each in the coin and in every listed token: a tick must end in bounded
/// time at a provider that lets us ask a few times a second.
const PAGE: i64 = 100;
/// How many one look reads before it rests, besides our own.
const ADDRESSES_PER_LOOK: usize = 2_000;

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
    let accounts: BTreeSet<Account> = booked.keys().chain(pending.keys()).copied().chain(watched).collect();
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

// === findings ===

/// Compares one chain with its books for ever, a page of addresses at a time.
#[derive(Debug)]
pub struct Reconciler {
    db: Database,
    node: Arc<Node>,
    chain: Arc<ChainSpec>,
    /// From the beginning of one look to that of the next.
    every: Duration,
    round: Mutex<Round>,
}

impl Reconciler {
    pub fn new(db: Database, node: Arc<Node>, chain: Arc<ChainSpec>, every: Duration) -> Self {
        Self { db, node, chain, every, round: Mutex::new(Round::new()) }
    }

    /// Compares the next page, if a look is due. A page that could not be read is read again.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ReconcileError> {
        let step = self.round.lock().unwrap_or_else(PoisonError::into_inner).step(now, self.every, ADDRESSES_PER_LOOK);
        if step == Step::Rest {
            return Ok(Progress::Idle);
        }
        self.node.set_clock(now);
        let Some(at) = self.confirmed(now).await? else { return Ok(Progress::Idle) };
        let (addresses, next) = self.addresses(step).await?;
        let outcome = self.compare(&addresses, at, now).await;
        let again = match &outcome {
            // The block left the chain meanwhile.
            Ok(Progress::Idle) => true,
            Ok(Progress::Worked) => false,
            Err(error) => error.disposition() == Disposition::Retry,
        };
        if again {
            return outcome;
        }
        self.round.lock().unwrap_or_else(PoisonError::into_inner).taken(step, addresses.len(), next);
        outcome
    }

    /// The block that both sides are read at; `None` while none such is stored.
    async fn confirmed(&self, now: OffsetDateTime) -> Result<Option<BlockRef>, ReconcileError> {
        let mut connection = self.db.connection().await?;
        let Some(cursor) = scan::store::find_cursor(&mut connection, self.chain.id).await? else { return Ok(None) };
        let history = settings::store::get_history(&mut connection, Gate::Credit, self.chain.id).await?;
        let base = history.base(history.present(now)).ok_or_else(|| settings::store::unset(Gate::Credit, self.chain.id))?;
        let final_block = cursor.final_block.map(|block| block.number);
        let Some(number) = finding::compared_at(cursor.tip.number, base.value, final_block) else { return Ok(None) };
        let hash = scan::store::find_canonical(&mut connection, self.chain.id, number).await?;
        Ok(hash.map(|hash| BlockRef { number, hash }))
    }

    /// The addresses of a step, and where the page after it begins.
    async fn addresses(&self, step: Step) -> Result<(Vec<Address>, Option<Place>), DbError> {
        let mut connection = self.db.connection().await?;
        let chain = self.chain.id;
        let full = |read: usize| i64::try_from(read).is_ok_and(|read| read >= PAGE);
        Ok(match step {
            Step::Rest => (Vec::new(), None),
            Step::Own => {
                let mut addresses: BTreeSet<Address> =
                    account::store::list_operator_addresses(&mut connection).await?.into_iter().map(|own| own.address).collect();
                // What is open is looked at each time; what is beyond a page of it has its turn as all have.
                let open = store::list_findings(&mut connection, Some(chain), false, 0, PAGE).await?;
                addresses.extend(open.into_iter().map(|finding| finding.line.address));
                (addresses.into_iter().collect(), None)
            }
            Step::Page(Place::Unswept(after)) => {
                let page = deposit::store::list_unswept_after(&mut connection, chain, after, PAGE).await?;
                let next = page.last().filter(|_| full(page.len())).map(|(id, _)| Place::Unswept(*id));
                (page.into_iter().map(|(_, address)| address).collect(), next)
            }
            Step::Page(Place::Booked(after)) => {
                let page = ledger::store::list_custody_addresses(&mut connection, chain, after, PAGE).await?;
                let next = page.last().filter(|_| full(page.len())).map(|address| Place::Booked(Some(*address)));
                (page, next)
            }
        })
    }

    async fn compare(&self, addresses: &[Address], at: BlockRef, now: OffsetDateTime) -> Result<Progress, ReconcileError> {
        let (chain, mut connection) = (self.chain.id, self.db.connection().await?);
        let open: BTreeSet<Account> = store::list_open_accounts(&mut connection, chain, addresses).await?.into_iter().collect();
        let sides = store::list_sides(&mut connection, chain, at.number, addresses).await?;
        // A reorg meanwhile: the sides are of another branch than the block.
        if scan::store::find_canonical(&mut connection, chain, at.number).await? != Some(at.hash) {
            return Ok(Progress::Idle);
        }
        drop(connection);
        let mut outcomes = Outcomes::new();
        let (mut differing, mut explained) = (Vec::new(), Vec::new());
        for ((address, asset), (ledger_units, pending_units)) in self.accounts(addresses, &sides) {
            let chain_units = match self.node.balance(asset, address, at).await {
                Ok(units) => units,
                Err(error) => {
                    if outcomes.note(Err(error.into()), ReconcileError::disposition) {
                        continue;
                    }
                    break;
                }
            };
            let line = Line { address, asset: AssetId { chain, asset }, ledger_units, chain_units, pending_units };
            if !line.is_equal() {
                differing.push(line);
            } else if open.contains(&(address, asset)) {
                explained.push((address, asset));
            }
        }
        self.leave_out_in_flight(&mut differing, at).await?;
        if !differing.is_empty() || !explained.is_empty() {
            self.db
                .unit::<_, DbError, _>(move |connection| {
                    Box::pin(async move {
                        for line in &differing {
                            note_difference(connection, line, at, now).await?;
                        }
                        for account in explained {
                            close(connection, chain, account, at, now).await?;
                        }
                        Ok(())
                    })
                })
                .await?;
        }
        let _ = outcomes.note(Ok(Progress::Worked), ReconcileError::disposition);
        outcomes.finish()
    }

    /// What the ledger holds and what is pending, of each address in each listed asset and in each that is
    /// booked: what nobody booked is what nobody saw.
    fn accounts(&self, addresses: &[Address], sides: &[Side]) -> BTreeMap<Account, (U256, I256)> {
        let assets = || std::iter::once(Asset::Native).chain(self.chain.tokens.iter().map(|token| Asset::Token(token.contract)));
        let mut accounts: BTreeMap<Account, (U256, I256)> =
            addresses.iter().flat_map(|address| assets().map(|asset| ((*address, asset), (U256::ZERO, I256::ZERO)))).collect();
        for side in sides {
            let (ledger, pending) = accounts.entry(side.account).or_insert((U256::ZERO, I256::ZERO));
            let signed = I256::try_from(side.units).unwrap_or(I256::MAX);
            match side.part {
                Part::Booked => *ledger = side.units,
                Part::Incoming => *pending = pending.saturating_add(signed),
                Part::Outgoing => *pending = pending.saturating_sub(signed),
            }
        }
        accounts
    }

    /// A transaction of ours that is in such a block, while nobody has noted so yet, moved this money: the next
    /// look will know.
    async fn leave_out_in_flight(&self, differing: &mut Vec<Line>, at: BlockRef) -> Result<(), ReconcileError> {
        if differing.is_empty() {
            return Ok(());
        }
        let addresses: Vec<Address> = differing.iter().map(|line| line.address).collect();
        let flying = store::list_in_flight(&mut *self.db.connection().await?, self.chain.id, &addresses).await?;
        for tx in flying {
            if self.node.receipt(tx.tx_hash).await?.is_some_and(|receipt| receipt.block.number <= at.number) {
                differing.retain(|line| line.address != tx.from && line.address != tx.to);
            }
        }
        Ok(())
    }
}

/// Told when it opens and when it changes, not at every look.
async fn note_difference(connection: &mut PgConnection, line: &Line, at: BlockRef, now: OffsetDateTime) -> Result<(), DbError> {
    let (id, seen) = store::upsert_open(connection, line, at, now).await?;
    let told = match seen {
        Seen::Again => return Ok(()),
        Seen::First => "the chain and the books differ; a finding is open",
        Seen::Changed => "the chain and the books differ by another amount than before",
    };
    tracing::error!(
        finding.id = id, chain.id = line.asset.chain.get(), address = %line.address, asset = %line.asset.asset, ledger = %line.ledger_units,
        pending = %line.pending_units, chain = %line.chain_units, difference = %line.difference(), block = %at, "{told}"
    );
    if seen == Seen::First {
        let detail = serde_json::json!({
            "finding": id, "address": line.address, "asset": line.asset.asset.to_string(), "block_number": at.number.0, "block_hash": at.hash,
            "ledger_units": line.ledger_units.to_string(), "pending_units": line.pending_units.to_string(),
            "chain_units": line.chain_units.to_string(),
        });
        append(connection, "reconcile.finding_opened", line.asset, detail).await?;
        // Less than the books explain: something left that was not ours to send. Nothing more leaves before a
        // person has looked; what is resumed is not halted again for the same finding.
        if line.difference().is_negative() {
            let reason = format!(
                "{} holds less of {} than the books explain (finding {id}); an unknown outflow, or a token that lies",
                line.address, line.asset.asset
            );
            scan::store::halt_outflow(connection, line.asset.chain, &reason, now).await?;
        }
    }
    Ok(())
}

async fn close(connection: &mut PgConnection, chain: ChainId, account: Account, at: BlockRef, now: OffsetDateTime) -> Result<(), DbError> {
    let asset = AssetId { chain, asset: account.1 };
    let Some(id) = store::close_explained(connection, chain, account, now).await? else { return Ok(()) };
    tracing::info!(finding.id = id, chain.id = chain.get(), address = %account.0, asset = %asset.asset, block = %at, "the chain and the books are equal again; the finding is closed");
    let detail = serde_json::json!({
        "finding": id, "address": account.0, "asset": asset.asset.to_string(), "block_number": at.number.0, "block_hash": at.hash,
        "resolution": "explained",
    });
    append(connection, "reconcile.finding_closed", asset, detail).await
}

async fn append(connection: &mut PgConnection, kind: &'static str, asset: AssetId, detail: serde_json::Value) -> Result<(), DbError> {
    event::store::append(connection, &Event { kind, payment: None, intent: None, chain: Some(asset.chain), detail }).await
}
