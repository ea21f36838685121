//! The endpoints of one chain, asked in order, and the questions we ask them.
//!
//! An endpoint that fails rests for a while and the next one is asked; when all rest, they are asked
//! anyway. Time comes from the workers: each tick sets the node's clock, and nothing here reads one.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::answer::{Block, FeeEstimate, Header, Log, RawBlock, RawHeader, Receipt};
use super::endpoint::{Endpoint, EndpointLimits};
use super::error::{Fault, RpcError, SendOutcome, is_missing_method, read_send_error};
use super::hex::{Data, Fixed, Quantity};
use super::read::{
    HashOnly, read_block, read_decimals, read_fee_history, read_json, read_logs, read_present, read_receipt, read_wei, read_word,
    same_hash, same_number,
};
use crate::units::{Asset, BlockNumber, BlockRef, ChainId};

/// How to talk to a chain's endpoints.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    pub limits: EndpointLimits,
    /// How long an endpoint rests after a fault.
    pub rest: Duration,
    /// Whether a block's hash must be the hash of its header's fields. Off only for a chain whose headers
    /// have fields that this version does not know.
    pub verify_header_hash: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { limits: EndpointLimits::default(), rest: Duration::from_secs(30), verify_header_hash: true }
    }
}

/// One chain, behind one or more endpoints.
pub struct Node {
    chain: ChainId,
    endpoints: Vec<Endpoint>,
    options: NodeOptions,
    now_ms: AtomicI64,
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
        if urls.is_empty() {
            return Err(NodeError::NoEndpoint { chain });
        }
        let endpoints = urls
            .iter()
            .enumerate()
            .map(|(index, url)| Endpoint::new(url.expose_secret(), index + 1, options.limits))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { chain, endpoints, options, now_ms: AtomicI64::new(0) })
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

    // === blocks ===

    /// The chain id that the first answering endpoint names; it equals [`Node::chain`].
    pub async fn chain_id(&self) -> Result<ChainId, RpcError> {
        let number = self.ask("eth_chainId", &json!([]), read_json::<Quantity>).await?;
        // Asking proved the chain already, so this is only the same number in another type.
        number.to_u64().and_then(ChainId::new).ok_or_else(|| self.fault("eth_chainId", Fault::malformed("no chain id")))
    }

    /// The newest block's header.
    pub async fn head(&self) -> Result<Header, RpcError> {
        let verify = self.options.verify_header_hash;
        self.ask("eth_getBlockByNumber", &json!(["latest", false]), |text| {
            read_present("the latest block", text, |raw: RawHeader| raw.read(verify))
        })
        .await
    }

    /// A header by its hash. A hash that somebody has shown must exist, so a missing one is an error.
    pub async fn header_by_hash(&self, hash: B256) -> Result<Header, RpcError> {
        let verify = self.options.verify_header_hash;
        self.ask("eth_getBlockByHash", &json!([hash, false]), |text| {
            let header = read_present(&format!("block {hash}"), text, |raw: RawHeader| raw.read(verify))?;
            same_hash(hash, header.block)?;
            Ok(header)
        })
        .await
    }

    /// The header at a height; `None` when the chain is not that high.
    pub async fn header_by_number(&self, number: BlockNumber) -> Result<Option<Header>, RpcError> {
        let verify = self.options.verify_header_hash;
        self.ask_optional("eth_getBlockByNumber", &json!([hex_number(number), false]), |text| {
            let Some(raw) = read_json::<Option<RawHeader>>(text)? else { return Ok(None) };
            let header = raw.read(verify)?;
            same_number(number, header.block)?;
            Ok(Some(header))
        })
        .await
    }

    /// A block with its transactions.
    pub async fn block_by_hash(&self, hash: B256) -> Result<Block, RpcError> {
        let verify = self.options.verify_header_hash;
        self.ask("eth_getBlockByHash", &json!([hash, true]), |text| read_block(text, hash, verify)).await
    }

    /// The block at a height with its transactions; `None` when the chain is not that high.
    pub async fn block_by_number(&self, number: BlockNumber) -> Result<Option<Block>, RpcError> {
        let verify = self.options.verify_header_hash;
        self.ask_optional("eth_getBlockByNumber", &json!([hex_number(number), true]), |text| {
            let Some(raw) = read_json::<Option<RawBlock>>(text)? else { return Ok(None) };
            let block = raw.read(verify)?;
            same_number(number, block.header.block)?;
            Ok(Some(block))
        })
        .await
    }

    /// The logs of these contracts with this first topic in one block.
    ///
    /// Asked by hash: a node that lacks the block answers with an error, where a range would be answered
    /// with an empty list.
    pub async fn logs_by_block_hash(&self, hash: B256, contracts: &[Address], topic: B256) -> Result<Vec<Log>, RpcError> {
        let filter = json!([{ "blockHash": hash, "address": contracts, "topics": [topic] }]);
        self.ask("eth_getLogs", &filter, |text| read_logs(text, hash, contracts, topic)).await
    }

    // === transactions ===

    /// The receipt; `None` when no endpoint knows one. That is not proof that the transaction is lost.
    pub async fn receipt(&self, tx_hash: B256) -> Result<Option<Receipt>, RpcError> {
        self.ask_optional("eth_getTransactionReceipt", &json!([tx_hash]), |text| read_receipt(text, tx_hash)).await
    }

    /// Whether an endpoint knows the transaction, mined or waiting.
    pub async fn transaction_known(&self, tx_hash: B256) -> Result<bool, RpcError> {
        let found = self
            .ask_optional("eth_getTransactionByHash", &json!([tx_hash]), |text| match read_json::<Option<HashOnly>>(text)? {
                Some(found) if found.hash.0 != tx_hash => Err(Fault::malformed(format!("another transaction than {tx_hash}"))),
                found => Ok(found),
            })
            .await?;
        Ok(found.is_some())
    }

    /// Sends signed bytes. Never fails: whatever goes wrong leaves it unclear whether the bytes are out.
    ///
    /// While the outcome is unclear the same bytes go to the next endpoint, which can only help.
    pub async fn send_raw(&self, bytes: &Bytes) -> SendOutcome {
        const METHOD: &str = "eth_sendRawTransaction";
        let expected = keccak256(bytes);
        let mut unclear = None;
        for endpoint in self.in_order() {
            let answer = self.call(endpoint, METHOD, &json!([bytes]), read_json::<Fixed<32>>).await;
            let outcome = match answer {
                Ok(hash) if hash.0 == expected => SendOutcome::Accepted,
                Ok(hash) => SendOutcome::Unclear(format!("{} answered with hash {} instead of {expected}", endpoint.name(), hash.0)),
                Err(Fault::Refused { message, .. } | Fault::Reverted { message } | Fault::RateLimited { message, .. }) => {
                    read_send_error(&message)
                }
                Err(fault) => SendOutcome::Unclear(format!("{} {fault}", endpoint.name())),
            };
            match outcome {
                SendOutcome::Unclear(text) => unclear = Some(text),
                SendOutcome::Accepted | SendOutcome::AlreadyKnown | SendOutcome::NonceUsed => return outcome,
                // After an unclear answer the bytes may be in a pool, so a refusal elsewhere decides nothing.
                SendOutcome::Conflict | SendOutcome::Ahead | SendOutcome::CannotPay => {
                    return unclear.map_or(outcome, SendOutcome::Unclear);
                }
            }
        }
        SendOutcome::Unclear(unclear.unwrap_or_else(|| "no endpoint".to_owned()))
    }

    // === state ===

    /// The number of decimals a token's contract names.
    pub async fn token_decimals(&self, contract: Address) -> Result<u8, RpcError> {
        self.ask("eth_call", &json!([{ "to": contract, "data": "0x313ce567" }, "latest"]), |text| read_decimals(text, contract)).await
    }

    /// What an address holds at the end of a block, asked by the block's hash so that a node on another
    /// branch refuses.
    pub async fn balance(&self, asset: Asset, holder: Address, at: BlockRef) -> Result<U256, RpcError> {
        let block = json!({ "blockHash": at.hash, "requireCanonical": true });
        match asset {
            Asset::Native => {
                let balance = self.ask("eth_getBalance", &json!([holder, block]), read_json::<Quantity>).await?;
                Ok(balance.0)
            }
            Asset::Token(contract) => {
                let data = Bytes::from([&[0x70, 0xa0, 0x82, 0x31], holder.into_word().as_slice()].concat());
                self.ask("eth_call", &json!([{ "to": contract, "data": data }, block]), |text| read_word(text, contract)).await
            }
        }
    }

    /// How many transactions of an account are mined. What waits in a pool is one node's opinion.
    pub async fn nonce_latest(&self, account: Address) -> Result<u64, RpcError> {
        self.ask("eth_getTransactionCount", &json!([account, "latest"]), |text| {
            read_json::<Quantity>(text)?.to_u64().ok_or_else(|| Fault::malformed("a nonce above 2^64 - 1"))
        })
        .await
    }

    /// What gas costs now: the next block's base fee, and the median of what producers got lately.
    pub async fn fees(&self) -> Result<FeeEstimate, RpcError> {
        match self.ask("eth_feeHistory", &json!([hex_u64(FEE_BLOCKS), "latest", [50]]), read_fee_history).await {
            Ok(fees) => return Ok(fees),
            Err(error) if is_missing_method(&error.fault) => {}
            Err(error) => return Err(error),
        }
        let base_fee = self.head().await?.base_fee.unwrap_or(0);
        let priority = match self.ask("eth_maxPriorityFeePerGas", &json!([]), read_wei).await {
            Ok(priority) => priority,
            Err(error) if is_missing_method(&error.fault) => self.ask("eth_gasPrice", &json!([]), read_wei).await?.saturating_sub(base_fee),
            Err(error) => return Err(error),
        };
        Ok(FeeEstimate { base_fee, priority })
    }

    /// How much gas a call would use. A call that would fail is [`Fault::Reverted`].
    pub async fn estimate_gas(&self, call: &CallRequest) -> Result<u64, RpcError> {
        self.ask("eth_estimateGas", &json!([call.as_json()]), |text| {
            read_json::<Quantity>(text)?.to_u64().ok_or_else(|| Fault::malformed("gas above 2^64 - 1"))
        })
        .await
    }

    /// Tries a call on the newest state and gives back what it returns.
    pub async fn simulate(&self, call: &CallRequest) -> Result<Bytes, RpcError> {
        self.ask("eth_call", &json!([call.as_json(), "latest"]), |text| Ok(read_json::<Data>(text)?.0)).await
    }

    // === asking ===

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Those that do not rest, in their order; or all of them if all rest.
    fn in_order(&self) -> Vec<&Endpoint> {
        let now_ms = self.now_ms.load(Ordering::Relaxed);
        let awake: Vec<&Endpoint> = self.endpoints.iter().filter(|endpoint| !endpoint.rests(now_ms, self.options.rest)).collect();
        if awake.is_empty() { self.endpoints.iter().collect() } else { awake }
    }

    /// Asks until an endpoint gives an answer.
    async fn ask<T>(&self, method: &'static str, params: &Value, read: impl Fn(&str) -> Result<T, Fault>) -> Result<T, RpcError> {
        let answer = self.ask_optional(method, params, |text| read(text).map(Some)).await?;
        answer.ok_or_else(|| self.fault(method, Fault::NotFound { what: "an answer".to_owned() }))
    }

    /// Asks until an endpoint has it. `None` when at least one says that it does not, and no other has it.
    async fn ask_optional<T>(
        &self,
        method: &'static str,
        params: &Value,
        read: impl Fn(&str) -> Result<Option<T>, Fault>,
    ) -> Result<Option<T>, RpcError> {
        let mut absent = false;
        let mut last = None;
        for endpoint in self.in_order() {
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

    /// One call on one endpoint, after that endpoint has proved its chain.
    async fn call<T>(
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
        answer
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

    fn fault(&self, method: &'static str, fault: Fault) -> RpcError {
        let endpoint = self.endpoints.first().map_or_else(String::new, |endpoint| endpoint.name().to_owned());
        RpcError { endpoint, method, fault }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("chain", &self.chain).field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl CallRequest {
    fn as_json(&self) -> Value {
        json!({ "from": self.from, "to": self.to, "value": self.value, "data": self.data })
    }
}

/// How many blocks the fee estimate looks at.
const FEE_BLOCKS: u64 = 5;

fn hex_number(number: BlockNumber) -> String {
    hex_u64(number.0)
}

fn hex_u64(number: u64) -> String {
    format!("{number:#x}")
}
