//! Figures for whoever is called at night: how far behind, what waits and since when, what is stuck.
//!
//! States arrive as the words that the database uses, because the rooms that own them come later.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts};

use crate::units::ChainId;

/// Round trips to the database: from a socket on the same host to a server in trouble, in seconds.
const ROUND_TRIP_BUCKETS: [f64; 11] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Handles on these metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Operations {
    head_block: IntGaugeVec,
    head_timestamp: IntGaugeVec,
    lag_blocks: IntGaugeVec,
    lag_seconds: IntGaugeVec,
    threshold_blocks: IntGaugeVec,
    threshold_lowerings: IntGaugeVec,
    deposits: IntGaugeVec,
    waiting_depth: IntGaugeVec,
    waiting_seconds: IntGaugeVec,
    intents: IntGaugeVec,
    intent_oldest: IntGaugeVec,
    uncertain: IntGaugeVec,
    nonce_gaps: IntGaugeVec,
    reverted: IntGaugeVec,
    gas_float: IntGaugeVec,
    gas_float_sweeps: IntGaugeVec,
    database_round_trip: Histogram,
    clock_skew: IntGauge,
    lease_held: IntGaugeVec,
    started: IntGauge,
    losses_open: IntGauge,
    high_water: IntGauge,
}

/// How the scanner's tip stands to the newest head.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub head_block: u64,
    /// Unix time that the head's producer wrote into it.
    pub head_timestamp: i64,
    pub scanned_block: u64,
    pub scanned_timestamp: i64,
}

/// What waits at a gate.
#[derive(Clone, Copy, Debug, Default)]
pub struct WaitingAtGate {
    pub count: u64,
    /// Of the deepest.
    pub depth_blocks: u64,
    /// Of the oldest.
    pub waited_seconds: i64,
}

impl Operations {
    pub(super) fn new() -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names and labels are constants of this file")
        };
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("metric names are constants of this file");
        let round_trip = HistogramOpts::new(
            "amanatd_database_round_trip_seconds",
            "From asking the pool for a connection to the answer to a trivial statement.",
        )
        .buckets(ROUND_TRIP_BUCKETS.to_vec());
        Self {
            head_block: gauges("amanatd_chain_head_block", "Highest block that enough endpoints shared when last asked.", &["chain"]),
            head_timestamp: gauges(
                "amanatd_chain_head_timestamp_seconds",
                "Unix time in that block's header. Its age grows while the chain stands still or no endpoint answers.",
                &["chain"],
            ),
            lag_blocks: gauges("amanatd_chain_lag_blocks", "Blocks from the last one stored to the head.", &["chain"]),
            lag_seconds: gauges("amanatd_chain_lag_seconds", "The same in the chain's own time; 0 when the head is stored.", &["chain"]),
            threshold_blocks: gauges(
                "amanatd_threshold_blocks",
                "Most confirmations that a gate asks of any amount now, its tiers included.",
                &["chain", "gate"],
            ),
            threshold_lowerings: gauges(
                "amanatd_threshold_lowerings",
                "Changes ever written that lowered a threshold or switched a tier off.",
                &["chain"],
            ),
            deposits: gauges(
                "amanatd_deposits",
                "Deposits that are not at their end: waiting (seen, not counted), credited (counted, not released), \
                 sweeping and quarantined (addresses).",
                &["chain", "state"],
            ),
            waiting_depth: gauges(
                "amanatd_deposit_waiting_depth_blocks",
                "Confirmations of the deepest deposit that waits at a gate; 0 if none does.",
                &["chain", "gate"],
            ),
            waiting_seconds: gauges(
                "amanatd_deposit_waiting_seconds",
                "How long the oldest deposit has waited at a gate; 0 if none does.",
                &["chain", "gate"],
            ),
            intents: gauges("amanatd_intents", "Intents that are not at their end, by state.", &["chain", "state"]),
            intent_oldest: gauges(
                "amanatd_intent_oldest_seconds",
                "How long the oldest intent has been in a state; 0 if none is.",
                &["chain", "state"],
            ),
            uncertain: gauges(
                "amanatd_transactions_uncertain",
                "Transactions that were sent and of which nobody knows yet what became of them.",
                &["chain"],
            ),
            nonce_gaps: gauges(
                "amanatd_nonce_gaps",
                "Nonces below a signed transaction that no intent holds: what is above cannot be mined before they are used.",
                &["chain"],
            ),
            reverted: gauges("amanatd_intents_reverted", "Intents ever whose transaction was mined and failed.", &["chain"]),
            gas_float: gauges("amanatd_gas_float_gwei", "Native coin of an account's gas address, in gwei.", &["chain", "address"]),
            gas_float_sweeps: gauges(
                "amanatd_gas_float_sweeps",
                "How many sweeps of a token that float pays for at the present price of gas.",
                &["chain", "address"],
            ),
            database_round_trip: Histogram::with_opts(round_trip).expect("metric names are constants of this file"),
            clock_skew: gauge("amanatd_clock_skew_seconds", "Whole seconds by which this host's clock is ahead of the database's."),
            lease_held: gauges(
                "amanatd_lease_held",
                "1 while this process holds a lease that it can serve, 0 while another does or nobody.",
                &["lease"],
            ),
            losses_open: gauge(
                "amanatd_database_losses_open",
                "Failovers and restores of the database that no officer has reconciled; any stops the outflow of every chain.",
            ),
            high_water: gauge(
                "amanatd_high_water_timestamp_seconds",
                "Unix time at which it was last noted, outside of the database where so configured, how far the database has come.",
            ),
            started: gauge("amanatd_start_timestamp_seconds", "Unix time at which this process started."),
        }
    }

    /// Those that have the label `chain`.
    pub(super) fn of_chains(&self) -> Vec<IntGaugeVec> {
        self.gauges_of_chains().into_iter().cloned().collect()
    }

    fn gauges_of_chains(&self) -> [&IntGaugeVec; 16] {
        [
            &self.head_block,
            &self.head_timestamp,
            &self.lag_blocks,
            &self.lag_seconds,
            &self.threshold_blocks,
            &self.threshold_lowerings,
            &self.deposits,
            &self.waiting_depth,
            &self.waiting_seconds,
            &self.intents,
            &self.intent_oldest,
            &self.uncertain,
            &self.nonce_gaps,
            &self.reverted,
            &self.gas_float,
            &self.gas_float_sweeps,
        ]
    }

    pub(super) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let gauges = self.gauges_of_chains().into_iter().chain([&self.lease_held]);
        let mut all: Vec<Box<dyn Collector>> = gauges.map(|gauge| Box::new(gauge.clone()) as Box<dyn Collector>).collect();
        all.extend(
            [&self.clock_skew, &self.started, &self.losses_open, &self.high_water]
                .map(|gauge| Box::new(gauge.clone()) as Box<dyn Collector>),
        );
        all.push(Box::new(self.database_round_trip.clone()));
        all
    }

    pub fn process_started(&self, unix_seconds: i64) {
        self.started.set(unix_seconds);
    }

    /// A mark was written.
    pub fn high_water_noted(&self, unix_seconds: i64) {
        self.high_water.set(unix_seconds);
    }

    pub fn losses_seen(&self, open: usize) {
        self.losses_open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub fn reverted_seen(&self, chain: ChainId, total: u64) {
        self.reverted.with_label_values(&[&chain.to_string()]).set(total.cast_signed());
    }

    pub fn lease(&self, name: &str, held: bool) {
        self.lease_held.with_label_values(&[name]).set(i64::from(held));
    }

    /// `skew_seconds` is positive where our clock is ahead.
    pub fn database_seen(&self, round_trip: Duration, skew_seconds: i64) {
        self.database_round_trip.observe(round_trip.as_secs_f64());
        self.clock_skew.set(skew_seconds);
    }

    pub fn chain_standing(&self, chain: ChainId, standing: Standing) {
        let chain = chain.to_string();
        let behind = standing.head_block.saturating_sub(standing.scanned_block);
        let seconds = if behind == 0 { 0 } else { standing.head_timestamp.saturating_sub(standing.scanned_timestamp).max(0) };
        self.lag_blocks.with_label_values(&[&chain]).set(behind.cast_signed());
        self.lag_seconds.with_label_values(&[&chain]).set(seconds);
    }

    pub fn head_seen(&self, chain: ChainId, head_block: u64, head_timestamp: i64) {
        let chain = chain.to_string();
        self.head_block.with_label_values(&[&chain]).set(head_block.cast_signed());
        self.head_timestamp.with_label_values(&[&chain]).set(head_timestamp);
    }

    pub fn thresholds_seen(&self, chain: ChainId, gate: &str, most_blocks: u32) {
        self.threshold_blocks.with_label_values(&[&chain.to_string(), gate]).set(i64::from(most_blocks));
    }

    pub fn lowerings_seen(&self, chain: ChainId, lowerings: u64) {
        self.threshold_lowerings.with_label_values(&[&chain.to_string()]).set(lowerings.cast_signed());
    }

    /// What waits at the gates, by the names of the states that deposits are in meanwhile.
    pub fn waiting_seen(&self, chain: ChainId, gate: &str, state: &str, waiting: WaitingAtGate) {
        let chain = chain.to_string();
        self.deposits.with_label_values(&[&chain, state]).set(waiting.count.cast_signed());
        self.waiting_depth.with_label_values(&[&chain, gate]).set(waiting.depth_blocks.cast_signed());
        self.waiting_seconds.with_label_values(&[&chain, gate]).set(waiting.waited_seconds.max(0));
    }

    pub fn destinations_seen(&self, chain: ChainId, state: &str, count: u64) {
        self.deposits.with_label_values(&[&chain.to_string(), state]).set(count.cast_signed());
    }

    pub fn intents_seen(&self, chain: ChainId, state: &str, count: u64, oldest_seconds: i64) {
        let labels = [&chain.to_string(), state];
        self.intents.with_label_values(&labels).set(count.cast_signed());
        self.intent_oldest.with_label_values(&labels).set(oldest_seconds.max(0));
    }

    pub fn doubts_seen(&self, chain: ChainId, uncertain: u64, nonce_gaps: u64) {
        let chain = chain.to_string();
        self.uncertain.with_label_values(&[&chain]).set(uncertain.cast_signed());
        self.nonce_gaps.with_label_values(&[&chain]).set(nonce_gaps.cast_signed());
    }

    /// Both are at most `i64::MAX`, which is nine billion coins.
    pub fn float_seen(&self, chain: ChainId, address: &str, gwei: u64, sweeps: u64) {
        let labels = [&chain.to_string(), address];
        let most = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.gas_float.with_label_values(&labels).set(most(gwei));
        self.gas_float_sweeps.with_label_values(&labels).set(most(sweeps));
    }
}
