//! Every metric this daemon exports: names and help texts in one place.
//!
//! Values are set by `daemon` from what workers report, so that no room knows that it is measured.

mod oracle;

use prometheus::{Encoder, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

pub use oracle::OracleMetrics;

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
    endpoint_requests: IntCounterVec,
    endpoint_bytes: IntCounterVec,
    endpoint_faults: IntCounterVec,
    endpoint_dissents: IntCounterVec,
    endpoint_resting: IntGaugeVec,
    head_notices_connected: IntGaugeVec,
    webhook_pending: IntGauge,
    webhook_oldest: IntGauge,
    webhook_dead: IntGauge,
    webhook_disabled: IntGauge,
    standby: IntGauge,
    ready: IntGauge,
    oracle: OracleMetrics,
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

impl Metrics {
    /// Registers everything once. The names are constants, so this cannot fail at run time.
    pub fn new() -> Self {
        let registry = Registry::new();
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(name, help), labels).expect("metric names and labels are constants of this file")
        };
        let worker_last_tick = gauges(
            "amanatd_worker_last_tick_timestamp_seconds",
            "Unix time at which a worker last finished a tick without an error.",
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
        let gauge = |name: &str, help: &str| IntGauge::new(name, help).expect("metric names are constants of this file");
        let webhook_pending = gauge("amanatd_webhook_pending_deliveries", "Events that wait to be taken by an endpoint.");
        let webhook_oldest = gauge("amanatd_webhook_oldest_pending_seconds", "How long the oldest of them has waited; 0 if none does.");
        let webhook_dead =
            gauge("amanatd_webhook_dead_deliveries", "Events that were given up after their last attempt, until they are sent again.");
        let webhook_disabled =
            gauge("amanatd_webhook_disabled_endpoints", "Endpoints that get nothing: disabled by hand, or by their answer 410.");
        let standby = gauge("amanatd_standby", "1 while another daemon holds the lease and this one waits for it.");
        let ready = IntGauge::new("amanatd_ready", "1 once the database answered, the API listens and workers run.")
            .expect("metric names and labels are constants of this file");
        let build = gauges("amanatd_build_info", "Always 1; the label is the version.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let all: [Box<dyn prometheus::core::Collector>; 21] = [
            Box::new(worker_last_tick.clone()),
            Box::new(worker_errors.clone()),
            Box::new(chain_scanned.clone()),
            Box::new(outflow_halted.clone()),
            Box::new(deposit_indices.clone()),
            Box::new(chain_final.clone()),
            Box::new(chain_internal_unread.clone()),
            Box::new(open_findings.clone()),
            Box::new(endpoint_requests.clone()),
            Box::new(endpoint_bytes.clone()),
            Box::new(endpoint_faults.clone()),
            Box::new(endpoint_dissents.clone()),
            Box::new(endpoint_resting.clone()),
            Box::new(head_notices_connected.clone()),
            Box::new(webhook_pending.clone()),
            Box::new(webhook_oldest.clone()),
            Box::new(webhook_dead.clone()),
            Box::new(webhook_disabled.clone()),
            Box::new(standby.clone()),
            Box::new(ready.clone()),
            Box::new(build),
        ];
        for collector in all {
            registry.register(collector).expect("each metric is registered once");
        }
        let oracle = OracleMetrics::new(&registry);
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
            endpoint_requests,
            endpoint_bytes,
            endpoint_faults,
            endpoint_dissents,
            endpoint_resting,
            head_notices_connected,
            webhook_pending,
            webhook_oldest,
            webhook_dead,
            webhook_disabled,
            standby,
            ready,
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

    pub fn webhooks_seen(&self, pending: u64, oldest_seconds: i64, dead: u64, disabled_endpoints: u64) {
        self.webhook_pending.set(pending.cast_signed());
        self.webhook_oldest.set(oldest_seconds);
        self.webhook_dead.set(dead.cast_signed());
        self.webhook_disabled.set(disabled_endpoints.cast_signed());
    }

    pub fn set_standby(&self, standby: bool) {
        self.standby.set(i64::from(standby));
    }

    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }

    pub fn is_ready(&self) -> bool {
        self.ready.get() == 1
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
        let text = metrics.render();
        assert!(text.contains("amanatd_reconcile_open_findings{chain=\"1\"} 2"));
        assert!(text.contains("amanatd_worker_last_tick_timestamp_seconds{chain=\"1\",worker=\"scan\"} 7"));
        assert!(text.contains("amanatd_chain_outflow_halted{chain=\"1\"} 1"));
        assert!(text.contains("amanatd_deposit_indices_remaining{account=\"vault\"} 1000001"));
    }
}
