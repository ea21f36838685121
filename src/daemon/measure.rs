//! What is measured besides the work: how far behind each chain is, what waits and since when, what is in doubt,
//! what the operator's gas still pays for, how fast the database answers.
//!
//! All chains share one round of queries, each of which reads what is open and nothing that is done, so that it
//! costs the same after years.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};

use super::now;
use super::steward::Held;
use super::supervise::Workers;
use crate::account::{self, Purpose};
use crate::db::{Database, DbError};
use crate::deposit::DestinationStatus;
use crate::intent::IntentState;
use crate::metrics::{Metrics, Standing, WaitingAtGate};
use crate::rpc::{FeeEstimate, Node, RpcError};
use crate::settings::{self, Gate};
use crate::units::{Asset, ChainId, Disposition, Progress};
use crate::{broadcast, confirm, deposit, intent, scan};

/// Between two rounds of figures: finer than any scrape, and far coarser than a poll.
const FIGURES_EVERY: Duration = Duration::from_secs(5);
/// Between two looks at the gas addresses, which cost requests.
const FLOAT_EVERY: Duration = Duration::from_secs(60);
/// Gas of a token's sweep and of the fuel before it: twice a dear transfer with the planner's quarter on top,
/// and a plain one.
const GAS_PER_SWEEP: u64 = 21_000 + 2 * 81_250;
const WEI_PER_GWEI: u64 = 1_000_000_000;

/// Lets a worker that is asked at every poll work at its own pace.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    last: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(every: Duration) -> Arc<Self> {
        Arc::new(Self { every, last: Mutex::new(None) })
    }

    pub(super) fn is_due(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).is_none_or(|last| last.elapsed() >= self.every)
    }

    /// A round that failed is tried again after the worker's own pause.
    pub(super) fn done(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// Exports figures of all chains whose lease is ours.
pub(super) fn figures(workers: &mut Workers, db: &Database, nodes: &BTreeMap<ChainId, Arc<Node>>, held: &Held, metrics: &Metrics) {
    let (db, nodes, metrics, pace) = (db.clone(), Arc::new(nodes.clone()), metrics.clone(), Pace::new(FIGURES_EVERY));
    let held = held.clone();
    workers.tick("figures", None, DbError::disposition, move || {
        let (db, nodes, metrics, pace) = (db.clone(), Arc::clone(&nodes), metrics.clone(), Arc::clone(&pace));
        let held = held.clone();
        async move {
            if pace.is_due() {
                measure(&db, &nodes, &held, &metrics).await?;
                pace.done();
            }
            Ok(Progress::Idle)
        }
    });
}

async fn measure(db: &Database, nodes: &BTreeMap<ChainId, Arc<Node>>, ours: &Held, metrics: &Metrics) -> Result<(), DbError> {
    let figures = &metrics.operations;
    let asked = Instant::now();
    let theirs = db.clock().await?;
    figures.database_seen(asked.elapsed(), (now() - theirs).whole_seconds());

    let now = now();
    let since = |moment: time::OffsetDateTime| (now - moment).whole_seconds();
    let mut connection = db.connection().await?;
    let tips = scan::store::list_tips(&mut connection).await?;
    let waiting = confirm::store::list_waiting_totals(&mut connection).await?;
    let held = deposit::store::count_held(&mut connection).await?;
    let intents = intent::store::list_open_totals(&mut connection).await?;
    let reverted = intent::store::count_reverted(&mut connection).await?;
    let doubts = broadcast::store::list_doubts(&mut connection).await?;
    let lowerings = settings::store::count_lowerings(&mut connection).await?;
    for (chain, node) in nodes.iter().filter(|(chain, _)| ours.has_chain(**chain)) {
        let chain = *chain;
        if let Some((head, timestamp)) = node.last_head() {
            let head_timestamp = i64::try_from(timestamp).unwrap_or(i64::MAX);
            figures.head_seen(chain, head.0, head_timestamp);
            if let Some((_, number, time)) = tips.iter().find(|(of, ..)| *of == chain) {
                let (scanned_block, scanned_timestamp) = (number.0, time.unix_timestamp());
                figures.chain_standing(chain, Standing { head_block: head.0, head_timestamp, scanned_block, scanned_timestamp });
            }
        }
        for gate in Gate::ALL {
            let history = settings::store::get_history(&mut connection, gate, chain).await?;
            let standing = history.standing(history.present(now));
            let most = standing.iter().filter_map(|change| change.blocks).map(|blocks| blocks.get()).max();
            figures.thresholds_seen(chain, gate.name(), most.unwrap_or(0));
            let total = waiting.iter().find(|total| total.chain == chain && total.gate == gate);
            let waits = total.map_or_else(WaitingAtGate::default, |total| WaitingAtGate {
                count: total.count,
                depth_blocks: total.depth.0,
                waited_seconds: since(total.oldest),
            });
            let state = match gate {
                Gate::Credit => "waiting",
                Gate::Release => "credited",
            };
            figures.waiting_seen(chain, gate.name(), state, waits);
        }
        let lowered = lowerings.iter().find(|(of, _)| *of == chain).map_or(0, |(_, count)| *count);
        figures.lowerings_seen(chain, lowered);
        for status in [DestinationStatus::Sweeping, DestinationStatus::Quarantined] {
            let count = held.iter().find(|(of, found, _)| *of == chain && *found == status).map_or(0, |(.., count)| *count);
            figures.destinations_seen(chain, status.name(), count);
        }
        for state in IntentState::ALL.into_iter().filter(|state| !is_end(*state)) {
            let total = intents.iter().find(|total| total.chain == chain && total.state == state);
            figures.intents_seen(chain, state.name(), total.map_or(0, |total| total.count), total.map_or(0, |total| since(total.since)));
        }
        let reverted = reverted.iter().find(|(of, _)| *of == chain).map_or(0, |(_, count)| *count);
        figures.reverted_seen(chain, reverted);
        let doubt = doubts.iter().find(|doubt| doubt.chain == chain);
        figures.doubts_seen(chain, doubt.map_or(0, |doubt| doubt.uncertain), doubt.map_or(0, |doubt| doubt.nonce_gaps));
    }
    Ok(())
}

const fn is_end(state: IntentState) -> bool {
    match state {
        IntentState::Settled | IntentState::Reverted | IntentState::Void | IntentState::Replaced => true,
        IntentState::Planned
        | IntentState::Approved
        | IntentState::Signing
        | IntentState::Signed
        | IntentState::Broadcast
        | IntentState::Uncertain
        | IntentState::Mined => false,
    }
}

// === gas ===

/// What the operator's gas addresses hold could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FloatError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("what the gas address holds cannot be read")]
    Rpc(#[from] RpcError),
}

impl FloatError {
    pub(super) fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Rpc(error) => error.disposition(),
        }
    }
}

/// Exports what the gas addresses of one chain hold, and for how long that is enough.
#[derive(Debug)]
pub(super) struct Float {
    db: Database,
    node: Arc<Node>,
    metrics: Metrics,
    pace: Arc<Pace>,
}

impl Float {
    pub(super) fn new(db: Database, node: Arc<Node>, metrics: Metrics) -> Self {
        Self { db, node, metrics, pace: Pace::new(FLOAT_EVERY) }
    }

    pub(super) async fn tick(&self) -> Result<Progress, FloatError> {
        if !self.pace.is_due() {
            return Ok(Progress::Idle);
        }
        let addresses = account::store::list_operator_addresses(&mut *self.db.connection().await?).await?;
        let gas: Vec<Address> =
            addresses.into_iter().filter(|address| address.purpose == Purpose::Gas).map(|address| address.address).collect();
        if !gas.is_empty() {
            let (head, fees) = (self.node.head().await?, self.node.fees().await?);
            for address in gas {
                let wei = self.node.balance(Asset::Native, address, head.block).await?;
                let (gwei, sweeps) = pays_for(wei, fees);
                self.metrics.operations.float_seen(self.node.chain(), &address.to_string(), gwei, sweeps);
            }
        }
        self.pace.done();
        Ok(Progress::Idle)
    }
}

/// The amount in gwei, and how many sweeps it pays for at the fee cap that the planner would freeze.
fn pays_for(wei: U256, fees: FeeEstimate) -> (u64, u64) {
    let cap = U256::from(fees.base_fee) * U256::from(2) + U256::from(fees.priority);
    let sweep = cap * U256::from(GAS_PER_SWEEP);
    let sweeps = wei.checked_div(sweep).unwrap_or(U256::MAX);
    ((wei / U256::from(WEI_PER_GWEI)).saturating_to(), sweeps.saturating_to())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_float_is_told_in_sweeps() {
        let fees = FeeEstimate { base_fee: 10_000_000_000, priority: 1_000_000_000 };
        // One sweep at a cap of 21 gwei is 183,500 × 21 gwei = 3,853,500 gwei.
        let wei = U256::from(38_535_000_u64) * U256::from(WEI_PER_GWEI);
        assert_eq!(pays_for(wei, fees), (38_535_000, 10));
        assert_eq!(pays_for(wei - U256::from(1), fees).1, 9);
        assert_eq!(pays_for(U256::ZERO, fees), (0, 0));
        // Gas that costs nothing is paid for by any float; and nothing overflows.
        assert_eq!(pays_for(U256::ZERO, FeeEstimate { base_fee: 0, priority: 0 }).1, u64::MAX);
        assert_eq!(pays_for(U256::MAX, FeeEstimate { base_fee: u128::MAX >> 1, priority: 0 }).0, u64::MAX);
    }

    #[test]
    fn a_pace_is_kept_after_a_round_that_was_done() {
        let pace = Pace::new(Duration::from_secs(3_600));
        assert!(pace.is_due() && pace.is_due());
        pace.done();
        assert!(!pace.is_due());
    }
}
