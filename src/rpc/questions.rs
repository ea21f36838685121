//! The questions we ask a chain one at a time: blocks, receipts, state, fees, and sending.
//!
//! What money comes in on is asked of as many endpoints as must agree. What goes out is checked by its
//! own rules, and asks the first endpoint that answers.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::answer::{Block, FeeEstimate, Header, Log, RawBlock, RawHeader, Receipt};
use super::endpoint::{Endpoint, LOGS};
use super::error::{Fault, RpcError, SendOutcome, is_missing_method, is_unknown_tag, read_send_error};
use super::hex::{Data, Fixed, Quantity};
use super::node::{CallRequest, Node};
use super::read::{
    HashOnly, read_block, read_decimals, read_fee_history, read_json, read_logs, read_present, read_receipt, read_wei, read_word,
    same_hash, same_number,
};
use crate::units::{Asset, BlockNumber, BlockRef, ChainId};

pub(super) const BY_NUMBER: &str = "eth_getBlockByNumber";
pub(super) const BY_HASH: &str = "eth_getBlockByHash";

/// The two names for blocks that a chain does not take back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalityTag {
    /// Justified, or, on a rollup, published on its parent chain.
    Safe,
    /// What no reorg takes back unless the chain itself fails.
    Finalized,
}

impl FinalityTag {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Safe => "safe",
            Self::Finalized => "finalized",
        }
    }
}

/// What one endpoint says the newest block is, asked alone.
#[derive(Debug)]
pub struct EndpointHead {
    /// Host and position.
    pub name: String,
    pub head: Result<Header, Fault>,
    /// From the question to its answer or fault, the waiting for a turn included.
    pub round_trip: Duration,
}

impl Node {
    // === blocks ===

    /// The newest block's header of every endpoint, asked at the same time, in the order of preference.
    /// Nothing is decided by it: this is for people.
    pub async fn heads(&self) -> Vec<EndpointHead> {
        join_all(self.endpoints().iter().map(|endpoint| self.head_of(endpoint))).await
    }

    async fn head_of(&self, endpoint: &Endpoint) -> EndpointHead {
        let name = endpoint.name().to_owned();
        // The first question to an endpoint is for its chain, and is not part of the round trip.
        if let Err(fault) = self.prove_chain(endpoint).await {
            return EndpointHead { name, head: Err(fault), round_trip: Duration::ZERO };
        }
        let verify = self.options.verify_header_hash;
        let read = |text: &str| read_present("the latest block", text, |raw: RawHeader| raw.read(verify));
        let asked = Instant::now();
        let head = self.call(endpoint, BY_NUMBER, &json!(["latest", false]), read).await;
        EndpointHead { name, head, round_trip: asked.elapsed() }
    }

    /// The chain id that the first answering endpoint names; it equals [`Node::chain`].
    pub async fn chain_id(&self) -> Result<ChainId, RpcError> {
        let number = self.ask("eth_chainId", &json!([]), read_json::<Quantity>).await?;
        // Asking proved the chain already, so this is only the same number in another type.
        number.to_u64().and_then(ChainId::new).ok_or_else(|| self.fault("eth_chainId", Fault::malformed("no chain id")))
    }

    /// The newest block's header: the highest one that as many endpoints as must agree can serve.
    pub async fn head(&self) -> Result<Header, RpcError> {
        let head = self.ask_head().await?;
        let seen = (head.block.number, head.timestamp);
        *self.last_head.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(seen);
        Ok(head)
    }

    async fn ask_head(&self) -> Result<Header, RpcError> {
        let verify = self.options.verify_header_hash;
        let read = |text: &str| read_present("the latest block", text, |raw: RawHeader| raw.read(verify));
        let needed = self.agreement();
        if needed == 1 {
            return self.ask(BY_NUMBER, &json!(["latest", false]), read).await;
        }
        let latest = json!(["latest", false]);
        let order = self.in_order(needed);
        let answers = join_all(order.iter().map(|endpoint| self.call(endpoint, BY_NUMBER, &latest, read))).await;
        let (mut heads, mut last) = (Vec::new(), None);
        for (endpoint, answer) in order.into_iter().zip(answers) {
            match answer {
                Ok(header) => heads.push((endpoint, header)),
                Err(fault) => last = Some(fault),
            }
        }
        heads.sort_by_key(|(_, header)| std::cmp::Reverse(header.block.number));
        // An endpoint below a height cannot serve it, so the first that can have enough votes is here.
        for (_, candidate) in heads.iter().skip(needed - 1) {
            let height = json!([hex_number(candidate.block.number), false]);
            let mut votes = 0;
            for (endpoint, head) in &heads {
                let at_height = if head.block.number > candidate.block.number {
                    let read = |text: &str| read_json::<Option<HashOnly>>(text);
                    self.call(endpoint, BY_NUMBER, &height, read).await.ok().flatten().map(|found| found.hash.0)
                } else {
                    Some(head.block.hash)
                };
                votes += usize::from(at_height == Some(candidate.block.hash));
            }
            if votes >= needed {
                return Ok(candidate.clone());
            }
        }
        let fault = if heads.len() < needed {
            let last = last.map_or_else(|| "the others gave none".to_owned(), |fault| fault.to_string());
            Fault::Unseconded { needed, found: heads.len(), last }
        } else {
            Fault::Disagreement { what: format!("no head that {needed} of {} endpoints share", heads.len()) }
        };
        Err(self.fault(BY_NUMBER, fault))
    }

    /// The block that the node calls final by this name. `None` where it knows no such block.
    ///
    /// The lowest of as many endpoints as must agree: what is final for one alone is not final.
    pub async fn tagged(&self, tag: FinalityTag) -> Result<Option<BlockRef>, RpcError> {
        let verify = self.options.verify_header_hash;
        let params = json!([tag.as_str(), false]);
        let read = |text: &str| -> Result<Option<BlockRef>, Fault> {
            read_json::<Option<RawHeader>>(text)?.map(|raw| Ok(raw.read(verify)?.block)).transpose()
        };
        let needed = self.agreement();
        let (mut found, mut last) = (Vec::new(), None);
        for endpoint in self.in_order(needed) {
            match self.call(endpoint, BY_NUMBER, &params, read).await {
                Ok(Some(block)) => found.push(block),
                Ok(None) => {}
                Err(fault) if is_unknown_tag(&fault) => {}
                Err(fault) => last = Some(RpcError { endpoint: endpoint.name().to_owned(), method: BY_NUMBER, fault }),
            }
            if found.len() == needed {
                return Ok(found.into_iter().min_by_key(|block| block.number));
            }
        }
        last.map_or(Ok(None), Err)
    }

    /// A header by its hash. A hash that somebody has shown must exist, so a missing one is an error.
    pub async fn header_by_hash(&self, hash: B256) -> Result<Header, RpcError> {
        let verify = self.options.verify_header_hash;
        self.agree(BY_HASH, &json!([hash, false]), Header::eq, |text| {
            let header = read_present(&format!("block {hash}"), text, |raw: RawHeader| raw.read(verify))?;
            same_hash(hash, header.block)?;
            Ok(header)
        })
        .await
    }

    /// The header at a height; `None` when the chain is not that high.
    pub async fn header_by_number(&self, number: BlockNumber) -> Result<Option<Header>, RpcError> {
        let verify = self.options.verify_header_hash;
        self.agree_optional(BY_NUMBER, &json!([hex_number(number), false]), Header::eq, |text| {
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
        self.agree(BY_HASH, &json!([hash, true]), Block::eq, |text| read_block(text, hash, verify)).await
    }

    /// The block at a height with its transactions; `None` when the chain is not that high.
    pub async fn block_by_number(&self, number: BlockNumber) -> Result<Option<Block>, RpcError> {
        let verify = self.options.verify_header_hash;
        self.agree_optional(BY_NUMBER, &json!([hex_number(number), true]), Block::eq, |text| {
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
        self.agree(LOGS, &filter, Vec::<Log>::eq, |text| read_logs(text, hash, contracts, topic)).await
    }

    // === transactions ===

    /// The receipt; `None` when no endpoint knows one. That is not proof that the transaction is lost.
    pub async fn receipt(&self, tx_hash: B256) -> Result<Option<Receipt>, RpcError> {
        self.agree_optional("eth_getTransactionReceipt", &json!([tx_hash]), Receipt::says_the_same, |text| read_receipt(text, tx_hash))
            .await
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

    /// The signed bytes of a transaction, proven by its hash; `None` when no endpoint has them. Not every node
    /// offers this call.
    pub async fn raw_transaction(&self, tx_hash: B256) -> Result<Option<Bytes>, RpcError> {
        self.ask_optional("eth_getRawTransactionByHash", &json!([tx_hash]), |text| {
            match read_json::<Option<Data>>(text)?.map(|data| data.0) {
                // Some nodes say so instead of null.
                Some(raw) if raw.is_empty() => Ok(None),
                Some(raw) if keccak256(&raw) != tx_hash => Err(Fault::malformed(format!("bytes that are not of {tx_hash}"))),
                found => Ok(found),
            }
        })
        .await
    }

    /// Sends signed bytes. Never fails: whatever goes wrong leaves it unclear whether the bytes are out.
    ///
    /// While the outcome is unclear the same bytes go to the next endpoint, which can only help.
    pub async fn send_raw(&self, bytes: &Bytes) -> SendOutcome {
        const METHOD: &str = "eth_sendRawTransaction";
        let expected = keccak256(bytes);
        let mut unclear = None;
        for endpoint in self.in_order(1) {
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

    /// What a contract returns at a block, asked by the block's hash of as many endpoints as must agree.
    pub async fn call_at(&self, to: Address, data: &Bytes, at: BlockRef) -> Result<Bytes, RpcError> {
        let block = json!({ "blockHash": at.hash, "requireCanonical": true });
        self.agree("eth_call", &json!([{ "to": to, "data": data }, block]), Bytes::eq, |text| Ok(read_json::<Data>(text)?.0)).await
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
}

impl CallRequest {
    fn as_json(&self) -> Value {
        json!({ "from": self.from, "to": self.to, "value": self.value, "data": self.data })
    }
}

/// How many blocks the fee estimate looks at.
const FEE_BLOCKS: u64 = 5;

pub(super) fn hex_number(number: BlockNumber) -> String {
    hex_u64(number.0)
}

fn hex_u64(number: u64) -> String {
    format!("{number:#x}")
}
