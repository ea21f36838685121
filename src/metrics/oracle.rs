//! What the price oracle exports.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts};

use crate::units::ChainId;

/// Handles on the metrics of prices and quotes.
#[derive(Clone, Debug)]
pub struct OracleMetrics {
    source_age: IntGaugeVec,
    source_rejected: IntCounterVec,
    families: IntGaugeVec,
    dispersion: IntGaugeVec,
    depeg: IntGaugeVec,
    state: IntGaugeVec,
    last_accepted: IntGaugeVec,
    refused: IntCounterVec,
    quotes: IntCounterVec,
    duration: Histogram,
}

const CONSTANT: &str = "metric names and labels are constants of this file";

impl OracleMetrics {
    pub(super) fn new() -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels).expect(CONSTANT);
        let buckets = vec![0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];
        let options = HistogramOpts::new("amanatd_quote_duration_seconds", "What a quote took, the reading of its memory included.");
        let duration = Histogram::with_opts(options.buckets(buckets)).expect(CONSTANT);
        Self {
            source_age: gauges(
                "amanatd_oracle_source_age_seconds",
                "How old the price of a source was at the last round.",
                &["source", "chain", "pair"],
            ),
            source_rejected: counters(
                "amanatd_oracle_source_rejected_total",
                "Observations that did not vote, by what was wrong with them.",
                &["source", "reason"],
            ),
            families: gauges("amanatd_oracle_families_usable", "Families whose price was used in the last round.", &["pair"]),
            dispersion: gauges("amanatd_oracle_dispersion_bps", "How far apart the sources were in the last round.", &["pair"]),
            depeg: gauges("amanatd_oracle_depeg_bps", "How far a token is from its peg, with its sign.", &["token"]),
            state: gauges("amanatd_oracle_state", "0 at par, 1 adjusted, 2 halted.", &["token"]),
            last_accepted: gauges(
                "amanatd_oracle_last_accepted_timestamp_seconds",
                "Unix time at which a price of a pair was last accepted.",
                &["pair"],
            ),
            refused: counters("amanatd_quotes_refused_total", "Quotes that were refused, by reason.", &["reason"]),
            quotes: counters("amanatd_quotes_total", "Quotes that were given.", &["token", "peg_state"]),
            duration,
        }
    }

    pub(super) fn collectors(&self) -> [Box<dyn Collector>; 10] {
        [
            Box::new(self.source_age.clone()),
            Box::new(self.source_rejected.clone()),
            Box::new(self.families.clone()),
            Box::new(self.dispersion.clone()),
            Box::new(self.depeg.clone()),
            Box::new(self.state.clone()),
            Box::new(self.last_accepted.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.quotes.clone()),
            Box::new(self.duration.clone()),
        ]
    }

    pub fn source_seen(&self, source: &str, chain: Option<ChainId>, pair: &str, age_s: i64) {
        let chain = chain.map(|chain| chain.to_string()).unwrap_or_default();
        self.source_age.with_label_values(&[source, &chain, pair]).set(age_s);
    }

    pub fn round_seen(&self, pair: &str, families: u32, dispersion_bps: Option<u32>, accepted_s: Option<i64>) {
        self.families.with_label_values(&[pair]).set(i64::from(families));
        if let Some(bps) = dispersion_bps {
            self.dispersion.with_label_values(&[pair]).set(i64::from(bps));
        }
        if let Some(at_s) = accepted_s {
            self.last_accepted.with_label_values(&[pair]).set(at_s);
        }
    }

    pub fn token_seen(&self, token: &str, state: &str, deviation_bps: Option<i32>) {
        let number = match state {
            "par" => 0,
            "adjusted" => 1,
            _ => 2,
        };
        self.state.with_label_values(&[token]).set(number);
        if let Some(bps) = deviation_bps {
            self.depeg.with_label_values(&[token]).set(i64::from(bps));
        }
    }

    /// Totals only grow.
    pub fn rejected(&self, source: &str, reason: &str, total: u64) {
        raise(&self.source_rejected, &[source, reason], total);
    }

    pub fn refused(&self, reason: &str, total: u64) {
        raise(&self.refused, &[reason], total);
    }

    pub fn quoted(&self, token: &str, peg_state: &str, total: u64) {
        raise(&self.quotes, &[token, peg_state], total);
    }

    pub fn took(&self, took: Duration) {
        self.duration.observe(took.as_secs_f64());
    }
}

fn raise(counters: &IntCounterVec, labels: &[&str], total: u64) {
    let counter = counters.with_label_values(labels);
    counter.inc_by(total.saturating_sub(counter.get()));
}
