//! A node's calls alone: sent, the body read and dropped, nothing decoded. The floor of any scanner that
//! makes them.

#![allow(clippy::print_stdout, reason = "a bench is there to print")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256};
use amanatd::scan::matching::TRANSFER_TOPIC;
use reqwest::header::CONTENT_TYPE;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::pair;

/// One kind of call, over all blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// `eth_getLogs` by range, one token.
    Logs,
    /// `eth_getBlockByNumber` without transactions, in JSON batches.
    Headers,
    /// `eth_getBlockReceipts`, in JSON batches.
    Receipts,
    /// `eth_getBlockByNumber` with transactions, in JSON batches.
    Blocks,
    /// `trace_block`, in JSON batches.
    Traces,
}

/// How to make a kind of call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) read: Read,
    /// Blocks for each request.
    pub(crate) blocks: u64,
    pub(crate) in_flight: usize,
}

/// What a run cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
}

/// A plain client.
#[derive(Clone, Debug)]
pub(crate) struct Bare {
    client: reqwest::Client,
    url: String,
    token: Address,
    head: u64,
}

impl Read {
    pub(crate) const ALL: [Self; 5] = [Self::Logs, Self::Headers, Self::Receipts, Self::Blocks, Self::Traces];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs by range",
            Self::Headers => "headers",
            Self::Receipts => "block receipts",
            Self::Blocks => "full blocks",
            Self::Traces => "traces",
        }
    }

    fn plans(self) -> Vec<Plan> {
        let blocks: &[u64] = match self {
            Self::Logs => &[50, 100, 200, 500],
            Self::Headers => &[100],
            Self::Receipts | Self::Blocks | Self::Traces => &[10, 100],
        };
        let all = blocks.iter().flat_map(|blocks| [1, 4, 8].map(|in_flight| Plan { read: self, blocks: *blocks, in_flight }));
        all.collect()
    }
}

impl Bare {
    pub(crate) fn new(url: &str, token: Address, head: u64) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { client, url: url.to_owned(), token, head }
    }

    /// The bodies of all requests of a plan, for blocks 1 to the head.
    pub(crate) fn bodies(&self, plan: Plan) -> Vec<String> {
        let step = usize::try_from(plan.blocks).expect("small");
        (1..=self.head).step_by(step).map(|from| self.body(plan.read, from, (from + plan.blocks - 1).min(self.head))).collect()
    }

    fn body(&self, read: Read, from: u64, to: u64) -> String {
        let number = |number: u64| format!("0x{number:x}");
        let call = |id: u64, method: &str, params: Value| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let batch = |method: &str, more: Option<bool>| {
            let calls = (from..=to).map(|block| {
                let params = more.map_or_else(|| json!([number(block)]), |full| json!([number(block), full]));
                call(block, method, params)
            });
            Value::Array(calls.collect()).to_string()
        };
        match read {
            Read::Logs => {
                let topics: [B256; 1] = [TRANSFER_TOPIC];
                let filter = json!([{ "fromBlock": number(from), "toBlock": number(to), "address": self.token, "topics": topics }]);
                call(from, "eth_getLogs", filter).to_string()
            }
            Read::Headers => batch("eth_getBlockByNumber", Some(false)),
            Read::Blocks => batch("eth_getBlockByNumber", Some(true)),
            Read::Receipts => batch("eth_getBlockReceipts", None),
            Read::Traces => batch("trace_block", None),
        }
    }

    pub(crate) async fn post(&self, body: String) -> reqwest::Response {
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").body(body);
        request.send().await.and_then(reqwest::Response::error_for_status).expect("an answer")
    }

    /// Makes all calls of a plan and drops the answers.
    pub(crate) async fn run(&self, plan: Plan) -> Tally {
        let bodies = Arc::new(self.bodies(plan));
        let next = Arc::new(AtomicUsize::new(0));
        let lanes: Vec<_> = (0..plan.in_flight)
            .map(|_| {
                let (bare, bodies, next) = (self.clone(), bodies.clone(), next.clone());
                tokio::spawn(async move {
                    let mut bytes = 0;
                    // Ends with the bodies.
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let mut response = bare.post(body.clone()).await;
                        while let Some(part) = response.chunk().await.expect("a body") {
                            bytes += part.len() as u64;
                        }
                    }
                    bytes
                })
            })
            .collect();
        let mut tally = Tally { requests: bodies.len() as u64, bytes: 0 };
        for lane in lanes {
            tally.bytes += lane.await.expect("a lane");
        }
        tally
    }

    /// Every answer of a plan is a result: what is timed later is no list of refusals.
    async fn prove(&self, plan: Plan) {
        #[derive(Deserialize)]
        struct Answer {
            result: Option<IgnoredAny>,
        }
        for body in self.bodies(plan) {
            let text = self.post(body).await.bytes().await.expect("a body");
            let answers: Vec<Answer> = if text.starts_with(b"[") {
                serde_json::from_slice(&text).expect("answers")
            } else {
                vec![serde_json::from_slice(&text).expect("an answer")]
            };
            assert!(answers.iter().all(|answer| answer.result.is_some()), "{}: the node refuses", plan.read.name());
        }
    }

    /// Tries all plans of all kinds, prints the table, and gives back the quickest of each kind.
    pub(crate) fn table(&self, runtime: &Runtime) -> Vec<Plan> {
        println!("bare calls of blocks 1 to {}, ms | blocks for each request | 1 in flight | 4 | 8 | requests | bytes", self.head);
        Read::ALL.map(|read| self.quickest(runtime, read)).to_vec()
    }

    fn quickest(&self, runtime: &Runtime, read: Read) -> Plan {
        let plans = read.plans();
        runtime.block_on(self.prove(plans[plans.len() - 1]));
        let tried: Vec<(Duration, Tally)> = plans.iter().map(|plan| self.timed(runtime, *plan)).collect();
        for (plans, tried) in plans.chunks(3).zip(tried.chunks(3)) {
            let ms: Vec<String> = tried.iter().map(|(took, _)| took.as_millis().to_string()).collect();
            let (blocks, tally) = (plans[0].blocks, tried[0].1);
            let bytes = pair::grouped(u128::from(tally.bytes));
            println!("{} | {blocks} | {} | {} | {bytes}", read.name(), ms.join(" | "), tally.requests);
        }
        let best = tried.iter().zip(&plans).min_by_key(|((took, _), _)| *took).map(|(_, plan)| *plan);
        best.expect("plans")
    }

    /// The better of two runs.
    fn timed(&self, runtime: &Runtime, plan: Plan) -> (Duration, Tally) {
        let once = || {
            let started = Instant::now();
            let tally = runtime.block_on(self.run(plan));
            (started.elapsed(), tally)
        };
        let (first, second) = (once(), once());
        if first.0 <= second.0 { first } else { second }
    }
}
