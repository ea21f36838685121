//! Every metric this daemon exports: names and help texts in one place.
//!
//! Values are set by `daemon` from what workers report, so that no room knows that it is measured. Each metric is
//! described once more, for operators, in docs/operating.md; a test compares the two.

mod operations;
mod oracle;

pub use operations::{Operations, Standing, WaitingAtGate};
pub use oracle::OracleMetrics;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus::core::Collector;
use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::units::ChainId;

/// Handles on all metrics; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Registry,
    worker_last_tick: IntGaugeVec,
    worker_errors: IntCounterVec,
    chain_scanned: IntGaugeVec,
    outflow_halted: IntGaugeVec,
    deposit_indices: IntGaugeVec,
    chain_final: IntGaugeVec,
    chain_internal_unread: IntGaugeVec,
    open_findings: IntGaugeVec,
    policy_refusals: IntGaugeVec,
    stuck: IntGaugeVec,
    nonce_holes: IntGaugeVec,
    screening_held: IntGaugeVec,
    screening_waiting: IntGaugeVec,
    frozen_addresses: IntGaugeVec,
    endpoint_requests: IntCounterVec,
    endpoint_bytes: IntCounterVec,
    endpoint_faults: IntCounterVec,
    endpoint_dissents: IntCounterVec,
    endpoint_resting: IntGaugeVec,
    head_notices_connected: IntGaugeVec,
    invariant_violations: IntGaugeVec,
    invariant_turns: IntGaugeVec,
    ledger_sealed: IntGauge,
    ledger_sealed_at: IntGauge,
    station_asked: IntGaugeVec,
    webhook_pending: IntGauge,
    webhook_oldest: IntGauge,
    webhook_dead: IntGauge,
    webhook_disabled: IntGauge,
    api_refused: IntCounterVec,
    api_streams: IntGauge,
    standby: IntGauge,
    ready: IntGauge,
    /// Why this process is not ready, by topic; it is when there is none.
    unready: Arc<RwLock<BTreeMap<&'static str, String>>>,
    /// Those that have the label `chain`, but for the workers' own.
    of_chains: Arc<Vec<IntGaugeVec>>,
    /// What is behind, waits, or is stuck.
    pub operations: Operations,
    described: Arc<Vec<Described>>,
    oracle: OracleMetrics,
}

/// A metric as it is registered, whether or not it has a value yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub name: String,
    pub help: String,
    /// In their order.
    pub labels: Vec<String>,
}

/// What one RPC endpoint has cost and done since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndpointTotals {
    pub requests: u64,
    pub bytes_in: u64,
    pub faults: u64,
    pub dissents: u64,
    pub resting: bool,
}

/// What is held and frozen on a chain now.
#[derive(Clone, Copy, Debug, Default)]
pub struct ScreeningTotals {
    pub hits: u64,
    pub unavailable: u64,
    pub waiting: u64,
    pub frozen: u64,
}

impl Metrics {
    /// Registers everything once. The names are constants, so this cannot fail at run time.
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names and labels are constants of this file")
        };
        let worker_last_tick = gauges(
            "amanatd_worker_last_tick_timestamp_seconds",
            "Unix time at which a worker last finished a tick without an error; before the first one, when it was started.",
            &["worker", "chain"],
        );
        let worker_errors = IntCounterVec::new(
            Opts::new("amanatd_worker_errors_total", "Ticks that ended in an error, by what happens next."),
            &["worker", "chain", "disposition"],
        )
        .expect("metric names and labels are constants of this file");
        let chain_scanned = gauges("amanatd_chain_scanned_block", "Number of the last block stored.", &["chain"]);
        let outflow_halted =
            gauges("amanatd_chain_outflow_halted", "1 while nothing may leave this chain until an officer acts.", &["chain"]);
        let deposit_indices = gauges(
            "amanatd_deposit_indices_remaining",
            "Deposit addresses that an account can still issue; at 0 of all of them no payment can be created.",
            &["account"],
        );
        let counters = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(name, help), &["chain", "endpoint"]).expect("metric names and labels are constants of this file")
        };
        let chain_final = gauges("amanatd_chain_final_block", "Highest block that the nodes have called final.", &["chain"]);
        let chain_internal_unread = gauges(
            "amanatd_chain_internal_unread_blocks",
            "Of the newest 10,000 stored blocks, those of which nobody could trace the transactions; there, native coin that a contract sends is found by balance only.",
            &["chain"],
        );
        let open_findings = gauges(
            "amanatd_reconcile_open_findings",
            "Accounts of which the chain holds another amount than the books explain.",
            &["chain"],
        );
        let policy_refusals =
            gauges("amanatd_policy_refused_outflows", "Outflows that are due and that the policy does not let leave now.", &["chain"]);
        let stuck = gauges(
            "amanatd_transactions_stuck",
            "Nonces at which a transaction of ours has been out for 15 minutes and is in no block.",
            &["chain"],
        );
        let nonce_holes = gauges(
            "amanatd_nonce_holes",
            "Nonces that nothing is signed for, while something signed above them has waited for 10 minutes.",
            &["chain"],
        );
        let screening_held = gauges(
            "amanatd_screening_held_transfers",
            "Credited transfers whose money is held: hit until a resolver decides, unavailable until a screener answers.",
            &["chain", "outcome"],
        );
        let screening_waiting =
            gauges("amanatd_screening_waiting_transfers", "Credited transfers that nobody has looked at yet.", &["chain"]);
        let frozen_addresses =
            gauges("amanatd_frozen_addresses", "Addresses of ours and of sellers that a token's issuer has frozen.", &["chain"]);
        let endpoint_requests = counters("amanatd_rpc_requests_total", "Requests sent to an RPC endpoint.");
        let endpoint_bytes = counters("amanatd_rpc_received_bytes_total", "Bytes of answers received from an RPC endpoint.");
        let endpoint_faults = counters("amanatd_rpc_faults_total", "Requests to which an RPC endpoint gave no usable answer.");
        let endpoint_dissents = counters(
            "amanatd_rpc_dissents_total",
            "Answers of an RPC endpoint that enough other endpoints contradicted. Not one is normal.",
        );
        let endpoint_resting = gauges(
            "amanatd_rpc_endpoint_resting",
            "1 while an RPC endpoint is asked after the others because it failed.",
            &["chain", "endpoint"],
        );
        let head_notices_connected = gauges(
            "amanatd_head_notices_connected",
            "1 while a node announces new heads over its WebSocket; at 0 the chain is polled alone. Absent without websocket_url.",
            &["chain"],
        );
        let invariant_violations = gauges(
            "amanatd_invariant_violations",
            "Violations of an invariant that stand; any halts the outflow of every chain. 0 is normal.",
            &["invariant"],
        );
        let invariant_turns = gauges(
            "amanatd_invariant_turns",
            "How often all rows were looked at for an invariant since the start; at a standstill nobody looks.",
            &["invariant"],
        );
        let ledger_sealed = IntGauge::new("amanatd_ledger_seal_number", "Number of the last seal whose head was exported.")
            .expect("metric names and labels are constants of this file");
        let station_asked = gauges(
            "amanatd_station_last_asked_timestamp_seconds",
            "Unix time, to the minute, at which a signing station last asked for work. It asks while it has its device, every 15 seconds at least, and ends without.",
            &["station"],
        );
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("metric names are constants of this file");
        let ledger_sealed_at = gauge("amanatd_ledger_seal_timestamp_seconds", "Unix time at which that seal was made.");
        let webhook_pending = gauge("amanatd_webhook_pending_deliveries", "Events that wait to be taken by an endpoint.");
        let webhook_oldest = gauge("amanatd_webhook_oldest_pending_seconds", "How long the oldest of them has waited; 0 if none does.");
        let webhook_dead =
            gauge("amanatd_webhook_dead_deliveries", "Events that were given up after their last attempt, until they are sent again.");
        let webhook_disabled =
            gauge("amanatd_webhook_disabled_endpoints", "Endpoints that get nothing: disabled by hand, or by their answer 410.");
        let api_refused = IntCounterVec::new(
            Opts::new("amanatd_api_limited_total", "Calls refused with 429, by whose bucket was empty: a token's or a remote address's."),
            &["caller"],
        )
        .expect("metric names and labels are constants of this file");
        let api_streams = gauge("amanatd_api_open_streams", "Open streams of events.");
        let standby = gauge("amanatd_standby", "1 while other daemons hold all leases and this one waits for one.");
        let ready = IntGauge::new("amanatd_ready", "1 once the database answered, the API listens and workers run.")
            .expect("metric names and labels are constants of this file");
        let build = gauges("amanatd_build_info", "Always 1; the label is the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let operations = Operations::new();
        let oracle = OracleMetrics::new();
        let own = [
            &chain_scanned,
            &outflow_halted,
            &chain_final,
            &chain_internal_unread,
            &open_findings,
            &policy_refusals,
            &stuck,
            &nonce_holes,
            &screening_held,
            &screening_waiting,
            &frozen_addresses,
            &endpoint_resting,
            &head_notices_connected,
        ];
        let of_chains = own.into_iter().cloned().chain(operations.of_chains()).collect();
        let all: [Box<dyn prometheus::core::Collector>; 34] = [
            Box::new(worker_last_tick.clone()),
            Box::new(worker_errors.clone()),
            Box::new(chain_scanned.clone()),
            Box::new(outflow_halted.clone()),
            Box::new(deposit_indices.clone()),
            Box::new(chain_final.clone()),
            Box::new(chain_internal_unread.clone()),
            Box::new(open_findings.clone()),
            Box::new(policy_refusals.clone()),
            Box::new(stuck.clone()),
            Box::new(nonce_holes.clone()),
            Box::new(screening_held.clone()),
            Box::new(screening_waiting.clone()),
            Box::new(frozen_addresses.clone()),
            Box::new(endpoint_requests.clone()),
            Box::new(endpoint_bytes.clone()),
            Box::new(endpoint_faults.clone()),
            Box::new(endpoint_dissents.clone()),
            Box::new(endpoint_resting.clone()),
            Box::new(head_notices_connected.clone()),
            Box::new(invariant_violations.clone()),
            Box::new(invariant_turns.clone()),
            Box::new(ledger_sealed.clone()),
            Box::new(ledger_sealed_at.clone()),
            Box::new(station_asked.clone()),
            Box::new(webhook_pending.clone()),
            Box::new(webhook_oldest.clone()),
            Box::new(webhook_dead.clone()),
            Box::new(webhook_disabled.clone()),
            Box::new(api_refused.clone()),
            Box::new(api_streams.clone()),
            Box::new(standby.clone()),
            Box::new(ready.clone()),
            Box::new(build),
        ];
        let mut described = Vec::new();
        for collector in all.into_iter().chain(operations.collectors()).chain(oracle.collectors()) {
            described.extend(collector.desc().into_iter().map(|of| Described {
                name: of.fq_name.clone(),
                help: of.help.clone(),
                labels: of.variable_labels.clone(),
            }));
            registry.register(collector).expect("each metric is registered once");
        }
        Self {
            oracle,
            registry,
            worker_last_tick,
            worker_errors,
            chain_scanned,
            outflow_halted,
            deposit_indices,
            chain_final,
            chain_internal_unread,
            open_findings,
            policy_refusals,
            stuck,
            nonce_holes,
            screening_held,
            screening_waiting,
            frozen_addresses,
            endpoint_requests,
            endpoint_bytes,
            endpoint_faults,
            endpoint_dissents,
            endpoint_resting,
            head_notices_connected,
            invariant_violations,
            invariant_turns,
            ledger_sealed,
            ledger_sealed_at,
            station_asked,
            webhook_pending,
            webhook_oldest,
            webhook_dead,
            webhook_disabled,
            api_refused,
            api_streams,
            standby,
            ready,
            unready: Arc::new(RwLock::new(BTreeMap::from([("start", "it has not come so far yet".to_owned())]))),
            of_chains: Arc::new(of_chains),
            operations,
            described: Arc::new(described),
        }
    }

    /// Every metric there is, also those that have no value yet.
    pub fn describe(&self) -> &[Described] {
        &self.described
    }

    /// A worker that begins. Until its first good tick its age counts from here, so that one which never
    /// succeeds shows; and its errors count from 0, so that the first one is an increase.
    pub fn worker_started(&self, worker: &str, chain: Option<ChainId>, unix_seconds: i64) {
        let chain = label(chain);
        self.worker_last_tick.with_label_values(&[worker, &chain]).set(unix_seconds);
        for disposition in ["retry", "skip", "officer", "stop"] {
            self.worker_errors.with_label_values(&[worker, &chain, disposition]).inc_by(0);
        }
    }

    /// What the price oracle exports.
    pub fn oracle(&self) -> &OracleMetrics {
        &self.oracle
    }

    pub fn tick_finished(&self, worker: &str, chain: Option<ChainId>, unix_seconds: i64) {
        self.worker_last_tick.with_label_values(&[worker, &label(chain)]).set(unix_seconds);
    }

    pub fn tick_failed(&self, worker: &str, chain: Option<ChainId>, disposition: &str) {
        self.worker_errors.with_label_values(&[worker, &label(chain), disposition]).inc();
    }

    pub fn chain_seen(&self, chain: ChainId, scanned: u64, halted: bool) {
        let chain = chain.to_string();
        self.chain_scanned.with_label_values(&[&chain]).set(scanned.cast_signed());
        self.outflow_halted.with_label_values(&[&chain]).set(i64::from(halted));
    }

    pub fn account_seen(&self, account: &str, remaining: u32) {
        self.deposit_indices.with_label_values(&[account]).set(i64::from(remaining));
    }

    pub fn chain_depth_seen(&self, chain: ChainId, final_block: Option<u64>, internal_unread: u64) {
        let chain = chain.to_string();
        if let Some(number) = final_block {
            self.chain_final.with_label_values(&[&chain]).set(number.cast_signed());
        }
        self.chain_internal_unread.with_label_values(&[&chain]).set(internal_unread.cast_signed());
    }

    pub fn findings_seen(&self, chain: ChainId, open: u64) {
        self.open_findings.with_label_values(&[&chain.to_string()]).set(open.cast_signed());
    }

    /// Outflows that the policy refuses, transactions that are stuck, and holes in the nonces.
    pub fn outflow_seen(&self, chain: ChainId, refused: u64, stuck: u64, holes: u64) {
        let chain = chain.to_string();
        self.policy_refusals.with_label_values(&[&chain]).set(refused.cast_signed());
        self.stuck.with_label_values(&[&chain]).set(stuck.cast_signed());
        self.nonce_holes.with_label_values(&[&chain]).set(holes.cast_signed());
    }

    pub fn screening_seen(&self, chain: ChainId, totals: ScreeningTotals) {
        let chain = chain.to_string();
        self.screening_held.with_label_values(&[chain.as_str(), "hit"]).set(totals.hits.cast_signed());
        self.screening_held.with_label_values(&[chain.as_str(), "unavailable"]).set(totals.unavailable.cast_signed());
        self.screening_waiting.with_label_values(&[&chain]).set(totals.waiting.cast_signed());
        self.frozen_addresses.with_label_values(&[&chain]).set(totals.frozen.cast_signed());
    }

    /// `endpoint` is host and position, never the URL. Totals only grow.
    pub fn endpoint_seen(&self, chain: ChainId, endpoint: &str, totals: EndpointTotals) {
        let labels = [&chain.to_string(), endpoint];
        let raise = |counter: &IntCounterVec, total: u64| {
            let counter = counter.with_label_values(&labels);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        raise(&self.endpoint_requests, totals.requests);
        raise(&self.endpoint_bytes, totals.bytes_in);
        raise(&self.endpoint_faults, totals.faults);
        raise(&self.endpoint_dissents, totals.dissents);
        self.endpoint_resting.with_label_values(&labels).set(i64::from(totals.resting));
    }

    pub fn head_notices(&self, chain: ChainId, connected: bool) {
        self.head_notices_connected.with_label_values(&[&chain.to_string()]).set(i64::from(connected));
    }

    pub fn invariant_seen(&self, invariant: &str, violations: u64, turns: u64) {
        self.invariant_violations.with_label_values(&[invariant]).set(violations.cast_signed());
        self.invariant_turns.with_label_values(&[invariant]).set(turns.cast_signed());
    }

    pub fn seal_exported(&self, number: i64, sealed_at: i64) {
        self.ledger_sealed.set(number);
        self.ledger_sealed_at.set(sealed_at);
    }

    /// `station` is the name of its token.
    pub fn station_seen(&self, station: &str, asked_at: i64) {
        self.station_asked.with_label_values(&[station]).set(asked_at);
    }

    pub fn webhooks_seen(&self, pending: u64, oldest_seconds: i64, dead: u64, disabled_endpoints: u64) {
        self.webhook_pending.set(pending.cast_signed());
        self.webhook_oldest.set(oldest_seconds);
        self.webhook_dead.set(dead.cast_signed());
        self.webhook_disabled.set(disabled_endpoints.cast_signed());
    }

    /// Totals only grow.
    pub fn api_seen(&self, token_calls_refused: u64, address_calls_refused: u64, streams_open: usize) {
        for (caller, total) in [("token", token_calls_refused), ("address", address_calls_refused)] {
            let counter = self.api_refused.with_label_values(&[caller]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.api_streams.set(i64::try_from(streams_open).unwrap_or(i64::MAX));
    }

    pub fn set_standby(&self, standby: bool) {
        self.standby.set(i64::from(standby));
    }

    /// Notes why this process is not ready, on a topic of its own.
    pub fn not_ready(&self, topic: &'static str, reason: String) {
        self.unready.write().unwrap_or_else(PoisonError::into_inner).insert(topic, reason);
        self.ready.set(0);
    }

    /// The topic holds it up no more.
    pub fn ready_as_to(&self, topic: &'static str) {
        let mut unready = self.unready.write().unwrap_or_else(PoisonError::into_inner);
        unready.remove(topic);
        self.ready.set(i64::from(unready.is_empty()));
    }

    /// Why this process is not ready: `topic: reason`; none when it is.
    pub fn unready(&self) -> Vec<String> {
        let unready = self.unready.read().unwrap_or_else(PoisonError::into_inner);
        unready.iter().map(|(topic, reason)| format!("{topic}: {reason}")).collect()
    }

    /// A worker that ended because its lease went to another daemon, which has that worker now.
    pub fn worker_ended(&self, worker: &str, chain: Option<ChainId>) {
        // It may have been forgotten before.
        let _ = self.worker_last_tick.remove_label_values(&[worker, &label(chain)]);
    }

    /// Takes back what was exported of a chain: another daemon does that now.
    pub fn forget_chain(&self, chain: ChainId) {
        let chain = chain.to_string();
        for gauges in self.of_chains.iter() {
            for family in gauges.collect() {
                for metric in family.get_metric() {
                    let labels: HashMap<&str, &str> = metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
                    if labels.get("chain") == Some(&chain.as_str()) {
                        // Nobody else removes it.
                        let _ = gauges.remove(&labels);
                    }
                }
            }
        }
    }

    /// The same of what belongs to no chain.
    pub fn forget_house(&self) {
        self.deposit_indices.reset();
        self.station_asked.reset();
        self.seal_exported(0, 0);
        self.invariant_violations.reset();
        self.invariant_turns.reset();
        self.webhooks_seen(0, 0, 0, 0);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        encoded.ok().and_then(|()| String::from_utf8(text).ok()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn label(chain: Option<ChainId>) -> String {
    chain.map(|chain| chain.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_registered_once_and_rendered() {
        let metrics = Metrics::new();
        metrics.tick_finished("scan", ChainId::new(1), 7);
        metrics.tick_failed("scan", None, "retry");
        metrics.chain_seen(ChainId::new(1).unwrap(), 9, true);
        metrics.account_seen("vault", 1_000_001);
        metrics.findings_seen(ChainId::new(1).unwrap(), 2);
        metrics.screening_seen(ChainId::new(1).unwrap(), ScreeningTotals { hits: 3, frozen: 4, ..ScreeningTotals::default() });
        metrics.outflow_seen(ChainId::new(1).unwrap(), 1, 2, 3);
        let text = metrics.render();
        for gauge in [
            "amanatd_policy_refused_outflows{chain=\"1\"} 1",
            "amanatd_transactions_stuck{chain=\"1\"} 2",
            "amanatd_nonce_holes{chain=\"1\"} 3",
        ] {
            assert!(text.contains(gauge), "{gauge}");
        }
        assert!(text.contains("amanatd_screening_held_transfers{chain=\"1\",outcome=\"hit\"} 3"));
        assert!(text.contains("amanatd_frozen_addresses{chain=\"1\"} 4"));
        assert!(text.contains("amanatd_reconcile_open_findings{chain=\"1\"} 2"));
        assert!(text.contains("amanatd_worker_last_tick_timestamp_seconds{chain=\"1\",worker=\"scan\"} 7"));
        assert!(text.contains("amanatd_chain_outflow_halted{chain=\"1\"} 1"));
        assert!(text.contains("amanatd_deposit_indices_remaining{account=\"vault\"} 1000001"));
    }
}
