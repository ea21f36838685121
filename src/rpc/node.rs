//! The endpoints of one chain, asked in order, and the questions we ask them.
//!
//! An endpoint that fails rests for a while and the next one is asked; when too few are awake, those
//! that rest are asked anyway. What money rests on is asked of several endpoints where the options say
//! so, and counts only when as many say the same (W8). Time comes from the workers: each tick sets the
//! node's clock, and nothing here reads one.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use alloy::primitives::{Address, Bytes, U256};
use futures_util::future::{BoxFuture, join_all};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::endpoint::{Endpoint, EndpointLimits, ProviderLimits};
use super::error::{Fault, RpcError};
use super::hex::Quantity;
use super::read::read_json;
use crate::units::{BlockNumber, ChainId};

/// How to talk to a chain's endpoints.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    pub limits: EndpointLimits,
    /// How long an endpoint rests after a fault.
    pub rest: Duration,
    /// Whether a block's hash must be the hash of its header's fields. Off only for a chain whose headers
    /// have fields that this version does not know.
    pub verify_header_hash: bool,
    /// How many endpoints must say the same before money rests on it. From 1 to the number of endpoints.
    pub agreement: usize,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { limits: EndpointLimits::default(), rest: Duration::from_secs(30), verify_header_hash: true, agreement: 1 }
    }
}

/// One chain, behind one or more endpoints.
pub struct Node {
    chain: ChainId,
    endpoints: Vec<Endpoint>,
    pub(super) options: NodeOptions,
    now_ms: AtomicI64,
    /// The head as it was last given to anybody: its number, and the time in its header.
    pub(super) last_head: std::sync::Mutex<Option<(BlockNumber, u64)>>,
}

/// One endpoint as it has shown itself since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointStatus {
    /// Host and position.
    pub name: String,
    pub requests: u64,
    pub bytes_in: u64,
    /// Requests without a usable answer.
    pub faults: u64,
    /// Answers that enough other endpoints contradicted.
    pub dissents: u64,
    /// It failed lately and is asked after the others.
    pub resting: bool,
    /// Blocks in one range of logs, as it stands now.
    pub log_range_blocks: u32,
    /// Calls in one request.
    pub batch_calls: u32,
    /// The distance between two requests.
    pub gap: Duration,
}

/// A call without a transaction.
#[derive(Clone, Debug)]
pub struct CallRequest {
    pub from: Address,
    pub to: Address,
    pub value: U256,
    pub data: Bytes,
}

/// What a node has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub requests: u64,
    pub bytes_in: u64,
}

/// Why there is no [`Node`]. The URLs are secrets, so a position stands for each.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("chain {chain} has no RPC endpoint")]
    NoEndpoint { chain: ChainId },
    #[error(
        "{agreement} endpoints of chain {chain} must agree, of {endpoints}: configure more endpoints, or a smaller agreement from 1 on"
    )]
    Agreement { chain: ChainId, agreement: usize, endpoints: usize },
    #[error("RPC endpoint {position} is not an http or https URL")]
    Url { position: usize },
    #[error("RPC endpoint {position} points at a link-local or metadata address, where no node lives")]
    Metadata { position: usize },
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
}

impl Node {
    /// Nothing is asked yet. `urls` are in the order of preference.
    pub fn new(chain: ChainId, urls: &[SecretString], options: NodeOptions) -> Result<Self, NodeError> {
        let providers: Vec<(SecretString, ProviderLimits)> = urls.iter().map(|url| (url.clone(), ProviderLimits::default())).collect();
        Self::with_limits(chain, &providers, options)
    }

    /// As [`Node::new`], with what each provider lets us do.
    pub fn with_limits(chain: ChainId, providers: &[(SecretString, ProviderLimits)], options: NodeOptions) -> Result<Self, NodeError> {
        if providers.is_empty() {
            return Err(NodeError::NoEndpoint { chain });
        }
        if !(1..=providers.len()).contains(&options.agreement) {
            return Err(NodeError::Agreement { chain, agreement: options.agreement, endpoints: providers.len() });
        }
        let endpoints = (1..)
            .zip(providers)
            .map(|(position, (url, provider))| Endpoint::new(url.expose_secret(), position, options.limits, *provider))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, endpoints, options, now_ms: AtomicI64::new(0), last_head: std::sync::Mutex::new(None) })
    }

    pub fn chain(&self) -> ChainId {
        self.chain
    }

    /// Tells the node what time it is; by this clock endpoints rest.
    pub fn set_clock(&self, now: OffsetDateTime) {
        let ms = i64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    pub fn usage(&self) -> Usage {
        self.endpoints.iter().fold(Usage::default(), |sum, endpoint| Usage {
            requests: sum.requests + endpoint.requests(),
            bytes_in: sum.bytes_in + endpoint.bytes_in(),
        })
    }

    /// The newest head that [`Node::head`] gave, with the seconds since 1970 in its header. Nothing is asked.
    pub fn last_head(&self) -> Option<(BlockNumber, u64)> {
        *self.last_head.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// How many endpoints must say the same before money rests on it.
    pub fn agreement(&self) -> usize {
        self.options.agreement
    }

    /// Each endpoint, in the order of preference.
    pub fn statuses(&self) -> Vec<EndpointStatus> {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let status = |endpoint: &Endpoint| EndpointStatus {
            name: endpoint.name().to_owned(),
            requests: endpoint.requests(),
            bytes_in: endpoint.bytes_in(),
            faults: endpoint.faults(),
            dissents: endpoint.dissents(),
            resting: endpoint.rests(now_ms, self.options.rest),
            log_range_blocks: endpoint.log_range.get(),
            batch_calls: endpoint.batch.get(),
            gap: endpoint.gap(),
        };
        self.endpoints.iter().map(status).collect()
    }

    // === asking ===

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Those that do not rest, in their order; then those that rest, if fewer than `needed` are awake.
    pub(super) fn in_order(&self, needed: usize) -> Vec<&Endpoint> {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let (resting, mut order): (Vec<&Endpoint>, Vec<&Endpoint>) =
            self.endpoints.iter().partition(|endpoint| endpoint.rests(now_ms, self.options.rest));
        if order.len() < needed {
            order.extend(resting);
        }
        order
    }

    /// Asks until an endpoint gives an answer.
    pub(super) async fn ask<T>(
        &self,
        method: &'static str,
        params: &Value,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<T, RpcError> {
        let answer = self.ask_optional(method, params, |text| read(text).map(Some)).await?;
        answer.ok_or_else(|| self.fault(method, Fault::NotFound { what: "an answer".to_owned() }))
    }

    /// Asks until an endpoint has it. `None` when at least one says that it does not, and no other has it.
    pub(super) async fn ask_optional<T>(
        &self,
        method: &'static str,
        params: &Value,
        read: impl Fn(&str) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, RpcError> {
        let mut absent = false;
        let mut last = None;
        for endpoint in self.in_order(1) {
            match self.call(endpoint, method, params, &read).await {
                Ok(Some(answer)) => return Ok(Some(answer)),
                Ok(None) => absent = true,
                Err(fault) => {
                    let error = RpcError { endpoint: endpoint.name().to_owned(), method, fault };
                    // A call that reverts does so everywhere.
                    if matches!(error.fault, Fault::Reverted { .. }) {
                        return Err(error);
                    }
                    last = Some(error);
                }
            }
        }
        match last {
            Some(error) if !absent => Err(error),
            Some(_) | None => Ok(None),
        }
    }

    // === agreement ===

    /// As [`Node::agree_optional`], for what must be there.
    pub(super) async fn agree<T: Send>(
        &self,
        method: &'static str,
        params: &Value,
        same: fn(&T, &T) -> bool,
        read: impl Fn(&str) -> Result<T, Fault> + Sync,
    ) -> Result<T, RpcError> {
        let answer = self.agree_optional(method, params, same, |text| read(text).map(Some)).await?;
        answer.ok_or_else(|| self.fault(method, Fault::NotFound { what: "an answer".to_owned() }))
    }

    /// One call, asked of as many endpoints as must agree.
    pub(super) async fn agree_optional<T: Send>(
        &self,
        method: &'static str,
        params: &Value,
        same: fn(&T, &T) -> bool,
        read: impl Fn(&str) -> Result<Option<T>, Fault> + Sync,
    ) -> Result<Option<T>, RpcError> {
        let read = &read;
        self.agree_on(method, same, |endpoint| Box::pin(self.call(endpoint, method, params, read))).await
    }

    /// Asks as many endpoints as must agree at the same time, then the others one by one, until enough
    /// say the same (W8). A fault is no vote. An endpoint that the majority contradicts is counted and
    /// rests; without a majority nothing is taken from any.
    pub(super) async fn agree_on<'a, T, F>(&'a self, method: &'static str, same: fn(&T, &T) -> bool, ask: F) -> Result<Option<T>, RpcError>
    where
        T: Send,
        F: Fn(&'a Endpoint) -> BoxFuture<'a, Result<Option<T>, Fault>>,
    {
        let needed = self.options.agreement;
        let order = self.in_order(needed);
        let mut tally = Tally { needed, same, votes: Vec::new(), last: None };
        let at_once = &order[..needed.min(order.len())];
        for (endpoint, answer) in at_once.iter().zip(join_all(at_once.iter().map(|endpoint| ask(endpoint))).await) {
            tally.count(endpoint, answer);
        }
        for endpoint in &order[at_once.len()..] {
            if tally.decided().is_some() {
                break;
            }
            let answer = ask(endpoint).await;
            tally.count(endpoint, answer);
        }
        tally.finish().map_err(|(endpoint, fault)| RpcError { endpoint, method, fault }).map(|Decision { answer, dissenters }| {
            for endpoint in dissenters {
                endpoint.count_dissent();
                endpoint.rest(self.now_ms.load(Ordering::Relaxed));
                tracing::error!(
                    chain.id = self.chain.get(),
                    endpoint = endpoint.name(),
                    method,
                    "an endpoint contradicts the others; it rests, and nothing of its answer is used"
                );
            }
            answer
        })
    }

    /// One call on one endpoint, after that endpoint has proved its chain.
    pub(super) async fn call<T>(
        &self,
        endpoint: &Endpoint,
        method: &'static str,
        params: &Value,
        read: impl Fn(&str) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let answer = match self.prove_chain(endpoint).await {
            Ok(()) => endpoint.call(method, params, read).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &answer {
            self.note(endpoint, method, fault);
        }
        answer
    }

    /// Draws the consequences of a fault: the chain is to be proved again, the endpoint rests.
    pub(super) fn note(&self, endpoint: &Endpoint, method: &'static str, fault: &Fault) {
        if fault.lost_contact() {
            endpoint.set_chain_proved(false);
        }
        if fault.rests() {
            let now_ms = self.now_ms.load(Ordering::Relaxed);
            // Said once; while it rests, whoever asked logs what it could not do.
            if !endpoint.rests(now_ms, self.options.rest) {
                tracing::warn!(chain.id = self.chain.get(), endpoint = endpoint.name(), method, %fault, "an endpoint failed and rests");
            }
            endpoint.rest(now_ms);
        }
    }

    pub(super) async fn prove_chain(&self, endpoint: &Endpoint) -> Result<(), Fault> {
        if endpoint.chain_is_proved() {
            return Ok(());
        }
        let found = endpoint.call("eth_chainId", &json!([]), read_json::<Quantity>).await?;
        if found.0 != U256::from(self.chain.get()) {
            return Err(Fault::WrongChain { expected: self.chain, found: found.0.to_string() });
        }
        endpoint.set_chain_proved(true);
        Ok(())
    }

    pub(super) fn fault(&self, method: &'static str, fault: Fault) -> RpcError {
        let endpoint = self.endpoints.first().map_or_else(String::new, |endpoint| endpoint.name().to_owned());
        RpcError { endpoint, method, fault }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("chain", &self.chain).field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// What enough endpoints said, and those that said something else.
struct Decision<'a, T> {
    answer: Option<T>,
    dissenters: Vec<&'a Endpoint>,
}

/// The answers of several endpoints to one question.
struct Tally<'a, T> {
    needed: usize,
    same: fn(&T, &T) -> bool,
    votes: Vec<(Option<T>, Vec<&'a Endpoint>)>,
    last: Option<(&'a Endpoint, Fault)>,
}

impl<'a, T> Tally<'a, T> {
    fn count(&mut self, endpoint: &'a Endpoint, answer: Result<Option<T>, Fault>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.last = Some((endpoint, fault));
                return;
            }
        };
        let same = self.same;
        let equal = |vote: &Option<T>| match (vote, &answer) {
            (Some(theirs), Some(ours)) => same(theirs, ours),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        match self.votes.iter_mut().find(|(vote, _)| equal(vote)) {
            Some((_, voters)) => voters.push(endpoint),
            None => self.votes.push((answer, vec![endpoint])),
        }
    }

    /// The answer that enough endpoints gave. Where one endpoint is enough, another may still have what
    /// the first one lacks.
    fn decided(&self) -> Option<usize> {
        self.votes.iter().position(|(vote, voters)| voters.len() >= self.needed && (vote.is_some() || self.needed > 1))
    }

    fn finish(mut self) -> Result<Decision<'a, T>, (String, Fault)> {
        if let Some(place) = self.decided() {
            let (answer, _) = self.votes.swap_remove(place);
            // Not to have it is to lag, and no contradiction.
            let others = self.votes.into_iter().filter(|(vote, _)| answer.is_some() && vote.is_some());
            let dissenters = others.flat_map(|(_, voters)| voters).collect();
            return Ok(Decision { answer, dissenters });
        }
        let contents = self.votes.iter().filter(|(vote, _)| vote.is_some()).count();
        let voters: Vec<&str> = self.votes.iter().flat_map(|(_, voters)| voters).map(|endpoint| endpoint.name()).collect();
        if self.needed == 1 {
            return match self.last {
                Some((endpoint, fault)) if voters.is_empty() => Err((endpoint.name().to_owned(), fault)),
                Some(_) | None => Ok(Decision { answer: None, dissenters: Vec::new() }),
            };
        }
        if contents > 1 {
            return Err((voters.join(", "), Fault::Disagreement { what: format!("{contents} different answers") }));
        }
        let (at, last) = match self.last {
            Some((endpoint, fault)) => (endpoint.name().to_owned(), fault.to_string()),
            None => (voters.join(", "), "the others do not have it".to_owned()),
        };
        let found = self.votes.iter().map(|(vote, voters)| if vote.is_some() { voters.len() } else { 0 }).sum();
        Err((at, Fault::Unseconded { needed: self.needed, found, last }))
    }
}
