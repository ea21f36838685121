//! What a run went through, counted by kind. A kind that was never met proves nothing.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) histories: u64,
    pub(super) blocks: u64,
    pub(super) requests: u64,
    /// Value that reached a watched address on a final chain.
    pub(super) transfers: u64,
    pub(super) credits: u64,
    pub(super) verdicts: u64,
    pub(super) missed: u64,
    pub(super) duplicated: u64,
    pub(super) phantom: u64,
    pub(super) early: u64,
    pub(super) ledgers_equal: u64,
    pub(super) halts: u64,
    /// By depth.
    pub(super) reorgs: BTreeMap<u64, u64>,
    pub(super) transactions: BTreeMap<&'static str, u64>,
    pub(super) faults: BTreeMap<&'static str, u64>,
}

/// What every run of some hundred histories must have met.
const KINDS: [&str; 35] = [
    "429",
    "branch returned",
    "chain moved before the verdict",
    "chain moved during a tick",
    "chain moved during the verdict",
    "cut JSON",
    "dropped",
    "head went back",
    "included again",
    "lag",
    "lie: failed as succeeded",
    "lie: log hidden",
    "lie: longer chain",
    "lie: other amount",
    "lie: transaction hidden",
    "lie: transaction invented",
    "null",
    "one by one",
    "one liar of three",
    "other result",
    "provider lag",
    "read afresh in ranges",
    "refused",
    "reorg below the window",
    "reorg of the first block",
    "replaced",
    "restart",
    "scanner ahead",
    "several blocks at once",
    "silence",
    "status or HTML",
    "tick twice",
    "transient faults",
    "wrong chain id",
    "wrong id",
];

impl Tally {
    pub(super) fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.blocks += other.blocks;
        self.requests += other.requests;
        self.transfers += other.transfers;
        self.credits += other.credits;
        self.verdicts += other.verdicts;
        self.missed += other.missed;
        self.duplicated += other.duplicated;
        self.phantom += other.phantom;
        self.early += other.early;
        self.ledgers_equal += other.ledgers_equal;
        self.halts += other.halts;
        merge(&mut self.reorgs, &other.reorgs);
        merge(&mut self.transactions, &other.transactions);
        merge(&mut self.faults, &other.faults);
    }

    pub(super) fn assert_every_kind_was_met(&self) {
        let unmet: Vec<&str> = KINDS.into_iter().filter(|kind| !self.faults.contains_key(kind)).collect();
        assert!(unmet.is_empty(), "never met: {unmet:?}");
        let kinds = super::chain::KINDS;
        let unmade: Vec<&str> = kinds.into_iter().filter(|kind| !self.transactions.contains_key(kind)).collect();
        assert!(unmade.is_empty(), "no such transaction was made: {unmade:?}");
        for depth in [1, 2, 3, 4, 5, 32, 128] {
            assert!(self.reorgs.contains_key(&depth), "no reorg of {depth} blocks");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} histories, {} blocks, {} requests, {} transfers, {} credits of {} verdicts, missed/duplicated/phantom = {}/{}/{}, early credits {}, \
             ledgers equal {}/{}, halted {}; reorgs by depth {:?}; transactions {:?}; faults {:?}",
            self.histories,
            self.blocks,
            self.requests,
            self.transfers,
            self.credits,
            self.verdicts,
            self.missed,
            self.duplicated,
            self.phantom,
            self.early,
            self.ledgers_equal,
            self.histories,
            self.halts,
            self.reorgs,
            self.transactions,
            self.faults
        )
    }
}

fn merge<K: Ord + Copy>(into: &mut BTreeMap<K, u64>, from: &BTreeMap<K, u64>) {
    for (kind, count) in from {
        *into.entry(*kind).or_default() += count;
    }
}
