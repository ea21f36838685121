//! What one node says about the chain: its own view of it, its own limits, its own lies.

use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;

use alloy::primitives::{Address, B256, Bytes, U256};
use amanatd::units::Asset;
use serde_json::{Value, json};

use super::model::{Emitted, Frame, FrameKind, GAS, Model, ModelBlock, Tx, bloom};

/// How a node differs from one that has everything and refuses nothing.
#[derive(Clone, Debug)]
pub(crate) struct Quirks {
    pub(crate) batches: Batches,
    /// The widest range of `eth_getLogs`, and how a wider one is refused.
    pub(crate) range_max: Option<(u64, RangeText)>,
    /// The most logs in one answer.
    pub(crate) results_max: Option<usize>,
    /// What `fromBlock` above the head gives; `toBlock` above it is always cut off without a word.
    pub(crate) past_head: PastHead,
    /// Below this height the node has headers and neither logs nor receipts, and does not say so.
    pub(crate) pruned_below: u64,
    pub(crate) block_receipts: BlockReceipts,
    pub(crate) tags: Tags,
    /// `trace_block`.
    pub(crate) flat_traces: bool,
    /// `debug_traceBlockByHash`.
    pub(crate) call_traces: bool,
    /// Traces leave out the last transaction of a block.
    pub(crate) traces_miss_one: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Batches {
    Served,
    Refused,
    Max(usize),
}

/// The words of real providers. What they suggest is sometimes what was just refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeText {
    Reth,
    Infura,
    Alchemy,
    Bsc,
    SameAgain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PastHead {
    Empty,
    Refused,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockReceipts {
    Served,
    Unsupported,
    /// The method is there and never has anything.
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tags {
    /// So many blocks below the head.
    Depth {
        safe: u64,
        finalized: u64,
    },
    Unsupported,
}

/// What a node says that is not so. The header stays as it is, so a good reader can tell.
#[derive(Clone, Debug)]
pub(crate) enum Lie {
    /// No logs of this transaction.
    HideLogs { tx: u64 },
    /// No such transaction.
    HideTx { tx: u64 },
    /// A transaction in a block that does not hold it.
    Invent { block: B256, tx: Tx },
    /// Another value, in the coin and in the first log.
    Amount { tx: u64, value: U256 },
    /// It failed, and the receipt says it did not.
    Succeed { tx: u64 },
}

pub(super) type Refusal = (i64, String);

/// A chain as one node shows it.
pub(super) struct Window<'a> {
    model: &'a Model,
    line: Cow<'a, [B256]>,
    /// Blocks above this height are not there yet.
    lags: bool,
    chain_id: u64,
    quirks: Cow<'a, Quirks>,
    lies: &'a [Lie],
    faults: RefCell<Vec<&'static str>>,
}

/// What is particular about one node.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// So many blocks behind the line.
    pub(crate) lag: u64,
    /// Its own branch instead of the model's line.
    pub(crate) line: Option<Vec<B256>>,
    pub(crate) chain_id: Option<u64>,
    pub(crate) quirks: Quirks,
    pub(crate) lies: Vec<Lie>,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            batches: Batches::Served,
            range_max: None,
            results_max: None,
            past_head: PastHead::Empty,
            pruned_below: 0,
            block_receipts: BlockReceipts::Served,
            tags: Tags::Depth { safe: 32, finalized: 64 },
            flat_traces: true,
            call_traces: true,
            traces_miss_one: false,
        }
    }
}

impl RangeText {
    fn refusal(self, from: u64, to: u64, max: u64) -> Refusal {
        let asked = to - from + 1;
        match self {
            Self::Reth => (-32602, format!("query exceeds max block range {max}")),
            Self::Infura => (-32602, format!("range {asked} exceeds limit of {max}")),
            Self::Alchemy => (
                -32600,
                format!(
                    "Under the Free tier plan, you can make eth_getLogs requests with up to a {max} block range. Based on your parameters, \
                     this block range should work: [{from:#x}, {:#x}]. Upgrade to PAYG for expanded block range.",
                    from + max - 1
                ),
            ),
            Self::Bsc => (-32005, "limit exceeded".to_owned()),
            Self::SameAgain => (
                -32602,
                format!(
                    "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the response \
                     size, or you can request any block range with a cap of 10K logs in the response. Based on your parameters and the \
                     response size limit, this block range should work: [{from:#x}, {to:#x}]"
                ),
            ),
        }
    }
}

impl<'a> Window<'a> {
    pub(super) fn honest(model: &'a Model) -> Self {
        Self::new(model, &model.chain_id(), model.line().into(), Cow::Owned(Quirks::default()), &[])
    }

    pub(super) fn of(model: &'a Model, view: &'a View) -> Self {
        let line = view.line.clone().unwrap_or_else(|| model.line());
        let kept = line.len().saturating_sub(usize::try_from(view.lag).unwrap()).max(1);
        let chain_id = view.chain_id.unwrap_or(model.chain_id());
        let mut window = Self::new(model, &chain_id, line[..kept].to_vec().into(), Cow::Borrowed(&view.quirks), &view.lies);
        window.lags = view.lag > 0;
        window
    }

    fn new(model: &'a Model, chain_id: &u64, line: Cow<'a, [B256]>, quirks: Cow<'a, Quirks>, lies: &'a [Lie]) -> Self {
        Self { model, line, lags: false, chain_id: *chain_id, quirks, lies, faults: RefCell::default() }
    }

    /// The kinds of what was not as it should be in the answers so far.
    pub(super) fn faults(self) -> Vec<&'static str> {
        self.faults.into_inner()
    }

    pub(super) fn batch_refusal(&self, length: usize) -> Option<Refusal> {
        match self.quirks.batches {
            Batches::Served => None,
            Batches::Refused => Some(self.refuse("batch refused", -32600, "Batch requests are not supported")),
            Batches::Max(most) => (length > most).then(|| self.refuse("batch too large", -32600, "batch too large")),
        }
    }

    /// The answer; an error object's fields where a node would refuse.
    pub(super) fn answer(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        let full = params[1].as_bool().unwrap_or(false);
        Ok(match method {
            "eth_chainId" => {
                if self.chain_id != self.model.chain_id() {
                    self.note("wrong chain id");
                }
                json!(hex(self.chain_id))
            }
            "eth_blockNumber" => json!(hex(self.head())),
            "eth_getBlockByNumber" => self.by_tag(text(&params[0]))?.map_or(Value::Null, |block| block_json(&block, full)),
            "eth_getBlockByHash" => self.by_hash(hash_in(&params[0])).map_or(Value::Null, |block| block_json(&block, full)),
            "eth_getLogs" => self.logs(&params[0])?,
            "eth_getTransactionReceipt" => self.receipt(hash_in(&params[0])),
            "eth_getBlockReceipts" => self.block_receipts(&params[0])?,
            "trace_block" if self.quirks.flat_traces => match self.by_tag(text(&params[0]))? {
                Some(block) => self.flat_traces(&block),
                None => Value::Null,
            },
            "debug_traceBlockByHash" if self.quirks.call_traces => {
                let block = self.by_hash(hash_in(&params[0])).ok_or_else(|| self.unknown_block())?;
                self.call_traces(&block)
            }
            "trace_block" | "debug_traceBlockByHash" => {
                return Err(self.refuse("traces unsupported", -32601, &format!("the method {method} does not exist/is not available")));
            }
            "eth_getBalance" => {
                let block = self.at(&params[1])?;
                json!(hex_units(self.model.balance(block.hash, address_in(&params[0]), Asset::Native)))
            }
            "eth_call" => {
                let block = self.at(&params[1])?;
                self.call(&params[0], &block)?
            }
            "eth_getTransactionCount" => json!("0x0"),
            other => return Err((-32601, format!("the method {other} does not exist/is not available"))),
        })
    }

    // === blocks ===

    fn head(&self) -> u64 {
        self.line.len() as u64 - 1
    }

    fn by_number(&self, number: u64) -> Option<Arc<ModelBlock>> {
        let hash = self.line.get(usize::try_from(number).unwrap())?;
        self.by_hash(*hash)
    }

    fn by_hash(&self, hash: B256) -> Option<Arc<ModelBlock>> {
        let block = self.model.block(hash)?;
        if self.lags && block.header.number > self.head() {
            self.note("lag");
            return None;
        }
        Some(if self.lies.is_empty() { block.clone() } else { self.distort(block) })
    }

    fn by_tag(&self, tag: &str) -> Result<Option<Arc<ModelBlock>>, Refusal> {
        let number = match (tag, self.quirks.tags) {
            ("latest", _) => {
                if self.lags {
                    self.note("lag");
                }
                self.head()
            }
            ("earliest", _) => 0,
            ("safe", Tags::Depth { safe: depth, .. }) | ("finalized", Tags::Depth { finalized: depth, .. }) => {
                self.head().saturating_sub(depth)
            }
            ("safe" | "finalized", Tags::Unsupported) => {
                return Err(self.refuse("tag unsupported", -32000, &format!("{tag} block not found")));
            }
            (number, _) => number_in(number),
        };
        Ok(self.by_number(number))
    }

    /// A block by tag, number or EIP-1898 object.
    fn at(&self, place: &Value) -> Result<Arc<ModelBlock>, Refusal> {
        let found = match (place.get("blockHash"), place.get("blockNumber"), place.as_str()) {
            (Some(hash), _, _) => self.by_hash(hash_in(hash)),
            (_, Some(number), _) => self.by_tag(text(number))?,
            (_, _, Some(hash)) if hash.len() == 66 => self.by_hash(hash_in(place)),
            (_, _, tag) => self.by_tag(tag.unwrap_or("latest"))?,
        };
        found.ok_or_else(|| self.unknown_block())
    }

    fn unknown_block(&self) -> Refusal {
        (-32000, "unknown block".to_owned())
    }

    /// The block with this node's lies in it.
    fn distort(&self, block: &Arc<ModelBlock>) -> Arc<ModelBlock> {
        let mut told = ModelBlock::clone(block);
        for lie in self.lies {
            match lie {
                Lie::HideLogs { tx } => change(&mut told, *tx, |tx| tx.logs.clear()),
                Lie::HideTx { tx } => told.txs.retain(|held| held.number != *tx),
                Lie::Invent { block, tx } if *block == told.hash => told.txs.push(tx.clone()),
                Lie::Invent { .. } => {}
                Lie::Amount { tx, value } => change(&mut told, *tx, |tx| {
                    match tx.logs.first_mut() {
                        Some(log) => log.data = B256::from(*value).into(),
                        None => tx.value = *value,
                    };
                }),
                Lie::Succeed { tx } => change(&mut told, *tx, |tx| tx.succeeded = true),
            }
            if told.txs != block.txs {
                self.note(lie.kind());
            }
        }
        Arc::new(told)
    }

    // === logs and receipts ===

    fn logs(&self, filter: &Value) -> Result<Value, Refusal> {
        let addresses: Option<Vec<Address>> = match &filter["address"] {
            Value::Null => None,
            Value::String(_) => Some(vec![address_in(&filter["address"])]),
            many => Some(many.as_array().unwrap().iter().map(address_in).collect()),
        };
        let wanted = |log: &Emitted| {
            addresses.as_ref().is_none_or(|asked| asked.contains(&log.contract)) && fits_topics(&log.topics, &filter["topics"])
        };
        let mut found = Vec::new();
        for block in self.asked_blocks(filter)? {
            if block.header.number < self.quirks.pruned_below {
                self.note("pruned logs");
                continue;
            }
            found.extend(logs_of(&block).filter(|(log, _)| wanted(log)).map(|(_, json)| json));
        }
        match self.quirks.results_max {
            Some(most) if found.len() > most => {
                Err(self.refuse("too many results", -32005, &format!("query returned more than {most} results")))
            }
            Some(_) | None => Ok(json!(found)),
        }
    }

    fn asked_blocks(&self, filter: &Value) -> Result<Vec<Arc<ModelBlock>>, Refusal> {
        if let Some(hash) = filter.get("blockHash") {
            return Ok(vec![self.by_hash(hash_in(hash)).ok_or_else(|| self.unknown_block())?]);
        }
        let edge = |name: &str| match filter.get(name).and_then(Value::as_str) {
            None | Some("latest") => Ok(self.head()),
            Some(tag @ ("safe" | "finalized" | "earliest")) => Ok(self.by_tag(tag)?.map_or(0, |block| block.header.number)),
            Some(number) => Ok::<u64, Refusal>(number_in(number)),
        };
        let (from, to) = (edge("fromBlock")?, edge("toBlock")?);
        if from > to {
            return Err((-32000, "invalid block range params".to_owned()));
        }
        if let Some((most, text)) = self.quirks.range_max
            && to - from + 1 > most
        {
            self.note("range refused");
            return Err(text.refusal(from, to, most));
        }
        if from > self.head() && self.quirks.past_head == PastHead::Refused {
            return Err(self.refuse("past the head", -32602, "BlockOutOfRangeError: block height is out of range"));
        }
        if to > self.head() {
            self.note("silently cut range");
        }
        Ok((from..=to.min(self.head())).filter_map(|number| self.by_number(number)).collect())
    }

    fn receipt(&self, tx_hash: B256) -> Value {
        let invented = self.lies.iter().filter_map(|lie| match lie {
            Lie::Invent { block, tx } if tx.hash() == tx_hash => Some(*block),
            _ => None,
        });
        let blocks = self.model.blocks_with(tx_hash).iter().copied().chain(invented);
        let canonical = blocks.filter_map(|hash| self.by_hash(hash)).find(|block| {
            let here = self.line.get(usize::try_from(block.header.number).unwrap());
            here == Some(&block.hash)
        });
        canonical.map_or(Value::Null, |block| self.receipt_of(&block, tx_hash))
    }

    pub(super) fn receipt_of(&self, block: &ModelBlock, tx_hash: B256) -> Value {
        if block.header.number < self.quirks.pruned_below {
            self.note("pruned receipt");
            return Value::Null;
        }
        block.txs.iter().position(|tx| tx.hash() == tx_hash).map_or(Value::Null, |index| receipt_json(block, index))
    }

    fn block_receipts(&self, place: &Value) -> Result<Value, Refusal> {
        match self.quirks.block_receipts {
            BlockReceipts::Served => {}
            BlockReceipts::Unsupported => {
                let text = "the method eth_getBlockReceipts does not exist/is not available";
                return Err(self.refuse("block receipts unsupported", -32601, text));
            }
            BlockReceipts::Null => {
                self.note("block receipts null");
                return Ok(Value::Null);
            }
        }
        let Ok(block) = self.at(place) else { return Ok(Value::Null) };
        if block.header.number < self.quirks.pruned_below {
            self.note("pruned receipt");
            return Ok(Value::Null);
        }
        Ok(json!((0..block.txs.len()).map(|index| receipt_json(&block, index)).collect::<Vec<_>>()))
    }

    // === state ===

    fn call(&self, call: &Value, block: &ModelBlock) -> Result<Value, Refusal> {
        let data: Bytes =
            call.get("data").or(call.get("input")).and_then(|data| serde_json::from_value(data.clone()).ok()).unwrap_or_default();
        match (data.get(..4), data.len()) {
            // balanceOf
            (Some([0x70, 0xa0, 0x82, 0x31]), 36) => {
                let asset = Asset::Token(address_in(&call["to"]));
                Ok(json!(B256::from(self.model.balance(block.hash, Address::from_slice(&data[16..]), asset))))
            }
            // decimals
            (Some([0x31, 0x3c, 0xe5, 0x67]), _) => Ok(json!(B256::from(U256::from(6)))),
            _ => Err((3, "execution reverted".to_owned())),
        }
    }

    // === traces ===

    fn traced<'b>(&self, block: &'b ModelBlock) -> &'b [Tx] {
        match block.txs.split_last() {
            Some((_, others)) if self.quirks.traces_miss_one => {
                self.note("trace misses a transaction");
                others
            }
            Some(_) | None => &block.txs,
        }
    }

    /// Rows in depth-first order. The children of a failed row are not marked.
    fn flat_traces(&self, block: &ModelBlock) -> Value {
        let mut rows = Vec::new();
        for (index, tx) in self.traced(block).iter().enumerate() {
            flat_rows(&top_frame(tx), &mut Vec::new(), &mut |mut row| {
                row["blockHash"] = json!(block.hash);
                row["blockNumber"] = json!(block.header.number);
                row["transactionHash"] = json!(tx.hash());
                row["transactionPosition"] = json!(index);
                rows.push(row);
            });
        }
        Value::Array(rows)
    }

    fn call_traces(&self, block: &ModelBlock) -> Value {
        self.traced(block).iter().map(|tx| json!({ "txHash": tx.hash(), "result": nested(&top_frame(tx)) })).collect()
    }

    // === counting ===

    fn note(&self, kind: &'static str) {
        self.faults.borrow_mut().push(kind);
    }

    fn refuse(&self, kind: &'static str, code: i64, text: &str) -> Refusal {
        self.note(kind);
        (code, text.to_owned())
    }
}

impl Lie {
    fn kind(&self) -> &'static str {
        match self {
            Self::HideLogs { .. } => "lie: log hidden",
            Self::HideTx { .. } => "lie: transaction hidden",
            Self::Invent { .. } => "lie: transaction invented",
            Self::Amount { .. } => "lie: other amount",
            Self::Succeed { .. } => "lie: failed as succeeded",
        }
    }
}

fn change(block: &mut ModelBlock, number: u64, change: impl FnOnce(&mut Tx)) {
    if let Some(tx) = block.txs.iter_mut().find(|tx| tx.number == number) {
        change(tx);
    }
}

/// Each position: null is anything, a word is itself, a list is any of it.
fn fits_topics(topics: &[B256], filter: &Value) -> bool {
    let Some(positions) = filter.as_array() else { return true };
    positions.len() <= topics.len()
        && positions.iter().zip(topics).all(|(asked, topic)| match asked {
            Value::Null => true,
            Value::Array(any) => any.is_empty() || any.iter().any(|word| hash_in(word) == *topic),
            word => hash_in(word) == *topic,
        })
}

// === JSON ===

fn block_json(block: &ModelBlock, full: bool) -> Value {
    let mut json = serde_json::to_value(&block.header).unwrap();
    json["hash"] = json!(block.hash);
    json["transactions"] =
        block.txs.iter().enumerate().map(|(index, tx)| if full { tx_json(block, index, tx) } else { json!(tx.hash()) }).collect();
    json
}

fn tx_json(block: &ModelBlock, index: usize, tx: &Tx) -> Value {
    json!({
        "hash": tx.hash(), "type": "0x2", "from": tx.from, "to": tx.to, "value": hex_units(tx.value), "input": "0x",
        "blockHash": block.hash, "blockNumber": hex(block.header.number), "transactionIndex": hex(index as u64),
    })
}

/// The logs of a block in their order. Their index counts within the block.
fn logs_of(block: &ModelBlock) -> impl Iterator<Item = (&Emitted, Value)> {
    let logs = block.txs.iter().enumerate().flat_map(|(index, tx)| tx.mined_logs().iter().map(move |log| (index, tx, log)));
    logs.enumerate().map(|(log_index, (index, tx, log))| {
        let json = json!({
            "blockHash": block.hash, "blockNumber": hex(block.header.number), "transactionHash": tx.hash(),
            "transactionIndex": hex(index as u64), "logIndex": hex(log_index as u64), "address": log.contract,
            "topics": log.topics, "data": log.data, "removed": false,
        });
        (log, json)
    })
}

fn receipt_json(block: &ModelBlock, index: usize) -> Value {
    let tx = &block.txs[index];
    let before: usize = block.txs[..index].iter().map(|tx| tx.mined_logs().len()).sum();
    let logs: Vec<Value> = logs_of(block).skip(before).take(tx.mined_logs().len()).map(|(_, json)| json).collect();
    json!({
        "transactionHash": tx.hash(), "type": "0x2", "status": if tx.succeeded { "0x1" } else { "0x0" }, "blockHash": block.hash,
        "blockNumber": hex(block.header.number), "transactionIndex": hex(index as u64), "from": tx.from, "to": tx.to,
        "gasUsed": hex(GAS), "cumulativeGasUsed": hex(GAS * (index as u64 + 1)), "effectiveGasPrice": "0x7",
        "logsBloom": bloom(tx), "logs": logs,
    })
}

fn top_frame(tx: &Tx) -> Frame {
    Frame {
        kind: if tx.to.is_some() { FrameKind::Call } else { FrameKind::Create },
        from: tx.from,
        to: tx.to.unwrap_or(Address::repeat_byte(0xcc)),
        value: tx.value,
        failed: !tx.succeeded,
        calls: tx.calls.clone(),
    }
}

fn flat_rows(frame: &Frame, path: &mut Vec<u32>, push: &mut impl FnMut(Value)) {
    let (from, to, value) = (frame.from, frame.to, hex_units(frame.value));
    let call = |kind: &str| json!({ "callType": kind, "from": from, "to": to, "value": value, "gas": "0xffff", "input": "0x" });
    let (kind, action) = match frame.kind {
        FrameKind::Call => ("call", call("call")),
        FrameKind::CallCode => ("call", call("callcode")),
        FrameKind::DelegateCall => ("call", call("delegatecall")),
        FrameKind::StaticCall => ("call", call("staticcall")),
        FrameKind::Create => ("create", json!({ "from": from, "value": value, "gas": "0xffff", "init": "0x" })),
        FrameKind::SelfDestruct => ("suicide", json!({ "address": from, "refundAddress": to, "balance": value })),
    };
    let mut row = json!({ "type": kind, "action": action, "traceAddress": path, "subtraces": frame.calls.len() });
    match frame.kind {
        _ if frame.failed => row["error"] = json!("Reverted"),
        FrameKind::Create => row["result"] = json!({ "address": to, "code": "0x", "gasUsed": "0x1" }),
        FrameKind::SelfDestruct => row["result"] = Value::Null,
        FrameKind::Call | FrameKind::CallCode | FrameKind::DelegateCall | FrameKind::StaticCall => {
            row["result"] = json!({ "gasUsed": "0x1", "output": "0x" });
        }
    }
    push(row);
    for (step, call) in (0..).zip(&frame.calls) {
        path.push(step);
        flat_rows(call, path, push);
        path.pop();
    }
}

/// As geth's `callTracer` writes it.
fn nested(frame: &Frame) -> Value {
    let kind = match frame.kind {
        FrameKind::Call => "CALL",
        FrameKind::CallCode => "CALLCODE",
        FrameKind::DelegateCall => "DELEGATECALL",
        FrameKind::StaticCall => "STATICCALL",
        FrameKind::Create => "CREATE",
        FrameKind::SelfDestruct => "SELFDESTRUCT",
    };
    let mut json = json!({ "type": kind, "from": frame.from, "to": frame.to, "gas": "0xffff", "gasUsed": "0x1", "input": "0x" });
    if frame.kind != FrameKind::StaticCall {
        json["value"] = json!(hex_units(frame.value));
    }
    if frame.failed {
        json["error"] = json!("execution reverted");
    }
    if !frame.calls.is_empty() {
        json["calls"] = frame.calls.iter().map(nested).collect();
    }
    json
}

fn hex(number: u64) -> String {
    format!("{number:#x}")
}

fn hex_units(units: U256) -> String {
    format!("{units:#x}")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn number_in(text: &str) -> u64 {
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("{text} is no number"))
}

fn hash_in(value: &Value) -> B256 {
    serde_json::from_value(value.clone()).unwrap()
}

fn address_in(value: &Value) -> Address {
    serde_json::from_value(value.clone()).unwrap()
}
