//! Questions about many blocks at once, for catching up: batches, ranges of logs and several requests
//! in flight, each as large as the endpoint takes.
//!
//! A range only finds (the block's hash and the receipt decide, in `scan`). A refusal halves what was
//! asked and asks for both halves; the whole is done when both are. No part is ever left out: whatever
//! cannot be read is an error of the whole question.

use std::collections::BTreeSet;
use std::fmt;

use alloy::primitives::{Address, B256, Bytes};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream;
use serde_json::{Value, json};

use super::answer::{Block, Header, RangeLog, RawBlock, RawHeader, RawReceipt, Receipt};
use super::endpoint::{Endpoint, LOGS, TraceKind};
use super::error::{Fault, RpcError, is_missing_method};
use super::node::Node;
use super::questions::{BY_NUMBER, hex_number};
use super::read::{HashOnly, read_flag, read_json, read_present, read_range, read_sender, same_number};
use super::trace::{Call, read_frames, read_rows};
use crate::units::{BlockNumber, BlockRef};

/// Questions to one endpoint that are prepared at the same time; the endpoint's own limit says how many
/// of them are on the wire.
const AHEAD: usize = 32;

/// How often a request is repeated that went too fast for the endpoint, each time at a slower pace.
const PATIENCE: u32 = 8;

const RECEIPTS: &str = "eth_getBlockReceipts";

/// Heights from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: BlockNumber,
    pub to: BlockNumber,
}

impl Span {
    /// How many heights; 0 when it ends before it begins.
    pub fn blocks(self) -> u64 {
        (self.to.0 + 1).saturating_sub(self.from.0)
    }

    /// Every height, upward.
    pub fn numbers(self) -> impl Iterator<Item = BlockNumber> {
        (self.from.0..=self.to.0).map(BlockNumber)
    }

    /// Consecutive spans of at most so many blocks.
    pub fn parts(self, blocks: u64) -> impl Iterator<Item = Self> {
        let step = usize::try_from(blocks.max(1)).unwrap_or(usize::MAX);
        let to = self.to;
        (self.from.0..=self.to.0)
            .step_by(step)
            .map(move |from| Self { from: BlockNumber(from), to: BlockNumber((from + blocks - 1).min(to.0)) })
    }

    fn halves(self) -> (Self, Self) {
        let middle = BlockNumber(self.from.0.midpoint(self.to.0));
        (Self { from: self.from, to: middle }, Self { from: middle.next(), to: self.to })
    }
}

/// What to look for in a range of logs.
#[derive(Clone, Copy)]
pub struct LogQuery<'a> {
    pub contracts: &'a [Address],
    pub topic: B256,
    /// Whether a log whose third topic ends in this address is of interest.
    pub wanted: &'a (dyn Fn(Address) -> bool + Sync),
}

impl fmt::Debug for LogQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogQuery").field("contracts", &self.contracts).field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// What a range of logs showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundLogs {
    /// The logs of interest, by height and index.
    pub logs: Vec<RangeLog>,
    /// Heights that have at least one log of the contracts, of interest or not.
    pub present: BTreeSet<BlockNumber>,
    /// The last block of each part, as the answering endpoint showed it together with the part: an
    /// endpoint that does not have a block answers a range with nothing instead of an error.
    pub ends: Vec<BlockRef>,
}

impl FoundLogs {
    fn says_the_same(&self, other: &Self) -> bool {
        self.logs == other.logs && self.present == other.present
    }

    fn join(&mut self, other: Self) {
        self.logs.extend(other.logs);
        self.present.extend(other.present);
        self.ends.extend(other.ends);
    }
}

impl Node {
    /// The headers of consecutive heights, each at the height that was asked.
    pub async fn headers(&self, span: Span) -> Result<Vec<Header>, RpcError> {
        let verify = self.options.verify_header_hash;
        let calls: Vec<_> = span.numbers().map(|number| (BY_NUMBER, json!([hex_number(number), false]))).collect();
        let read = move |place: usize, text: &str| {
            let number = BlockNumber(span.from.0 + place as u64);
            let header = read_present(&format!("block {number}"), text, |raw: RawHeader| raw.read(verify))?;
            same_number(number, header.block)?;
            Ok(header)
        };
        self.agree_many(BY_NUMBER, Vec::<Header>::eq, calls, &read).await
    }

    /// The blocks of consecutive heights with their transactions.
    pub async fn blocks(&self, span: Span) -> Result<Vec<Block>, RpcError> {
        let verify = self.options.verify_header_hash;
        let calls: Vec<_> = span.numbers().map(|number| (BY_NUMBER, json!([hex_number(number), true]))).collect();
        let read = move |place: usize, text: &str| {
            let number = BlockNumber(span.from.0 + place as u64);
            let block = read_present(&format!("block {number}"), text, |raw: RawBlock| raw.read(verify))?;
            same_number(number, block.header.block)?;
            Ok(block)
        };
        self.agree_many(BY_NUMBER, Vec::<Block>::eq, calls, &read).await
    }

    /// All receipts of each block, asked by its hash.
    pub async fn block_receipts(&self, blocks: &[BlockRef]) -> Result<Vec<Vec<Receipt>>, RpcError> {
        let calls: Vec<_> = blocks.iter().map(|block| (RECEIPTS, json!([block.hash]))).collect();
        let read = |place: usize, text: &str| read_receipts(text, blocks[place]);
        let same = |ours: &Vec<Vec<Receipt>>, theirs: &Vec<Vec<Receipt>>| {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| same_receipts(ours, theirs))
        };
        self.agree_many(RECEIPTS, same, calls, &read).await
    }

    /// The receipts of transactions, one by one; for endpoints that do not give a whole block's.
    pub async fn receipts(&self, transactions: &[B256]) -> Result<Vec<Receipt>, RpcError> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let calls: Vec<_> = transactions.iter().map(|hash| (METHOD, json!([hash]))).collect();
        let read = |place: usize, text: &str| {
            let asked = transactions[place];
            read_present(&format!("the receipt of {asked}"), text, |raw: RawReceipt| raw.read(asked))
        };
        self.agree_many(METHOD, |ours, theirs| same_receipts(ours, theirs), calls, &read).await
    }

    /// Who signed each transaction; `None` for one that the nodes do not know.
    pub async fn senders(&self, transactions: &[B256]) -> Result<Vec<Option<Address>>, RpcError> {
        const METHOD: &str = "eth_getTransactionByHash";
        let calls: Vec<_> = transactions.iter().map(|hash| (METHOD, json!([hash]))).collect();
        let read = |place: usize, text: &str| read_sender(text, transactions[place]);
        self.agree_many(METHOD, Vec::<Option<Address>>::eq, calls, &read).await
    }

    /// What contracts answer, at the end of a block, to calls that return a bool. Asked by the block's hash,
    /// so that a node on another branch refuses. No contract there is an error, and not a no.
    pub async fn flags(&self, questions: &[(Address, Bytes)], at: BlockRef) -> Result<Vec<bool>, RpcError> {
        const METHOD: &str = "eth_call";
        let block = json!({ "blockHash": at.hash, "requireCanonical": true });
        let calls: Vec<_> = questions.iter().map(|(contract, data)| (METHOD, json!([{ "to": contract, "data": data }, block]))).collect();
        let read = |place: usize, text: &str| read_flag(text, questions[place].0);
        self.agree_many(METHOD, Vec::<bool>::eq, calls, &read).await
    }

    /// The logs of interest in a range. It only finds: what is not found here is no proof, and what is
    /// found counts after it was read again by its block's hash.
    pub async fn find_logs(&self, span: Span, query: LogQuery<'_>) -> Result<FoundLogs, RpcError> {
        let found = self.agree_on(LOGS, FoundLogs::says_the_same, |endpoint| {
            Box::pin(async move {
                self.prove_chain(endpoint).await?;
                let answer = self.logs_of(endpoint, span, query).await;
                if let Err(fault) = &answer {
                    self.note(endpoint, LOGS, fault);
                }
                answer.map(Some)
            })
        });
        found.await?.ok_or_else(|| self.fault(LOGS, Fault::NotFound { what: "a range of logs".to_owned() }))
    }

    /// What happened inside the transactions of each block; `None` where too few endpoints trace.
    pub async fn calls(&self, blocks: &[BlockRef]) -> Result<Option<Vec<Vec<Call>>>, RpcError> {
        let same = |ours: &Vec<Vec<Call>>, theirs: &Vec<Vec<Call>>| ours == theirs;
        let traced = self.agree_on("trace_block", same, |endpoint| {
            Box::pin(async move {
                self.prove_chain(endpoint).await?;
                let answer = self.calls_of(endpoint, blocks).await;
                if let Err(fault) = &answer {
                    self.note(endpoint, "trace_block", fault);
                }
                answer
            })
        });
        match traced.await {
            // Those that do not trace are no contradiction, and one that does is not enough where two must.
            Err(RpcError { fault: Fault::Unseconded { .. }, .. }) => Ok(None),
            other => other,
        }
    }

    /// Whether an endpoint was found to trace, as far as anybody has asked.
    pub fn traces(&self) -> bool {
        let tracing = self.endpoints().iter().filter(|endpoint| endpoint.tracing.get() != TraceKind::Absent);
        tracing.count() >= self.agreement()
    }

    // === one endpoint ===

    async fn agree_many<T: Send>(
        &self,
        method: &'static str,
        same: fn(&Vec<T>, &Vec<T>) -> bool,
        calls: Vec<(&'static str, Value)>,
        read: &(dyn Fn(usize, &str) -> Result<T, Fault> + Sync),
    ) -> Result<Vec<T>, RpcError> {
        let calls = &calls;
        let answer = self.agree_on(method, same, |endpoint| {
            Box::pin(async move {
                self.prove_chain(endpoint).await?;
                let answer = many(endpoint, calls, read).await;
                if let Err(fault) = &answer {
                    self.note(endpoint, method, fault);
                }
                answer.map(Some)
            })
        });
        answer.await?.ok_or_else(|| self.fault(method, Fault::NotFound { what: "an answer".to_owned() }))
    }

    async fn logs_of(&self, endpoint: &Endpoint, span: Span, query: LogQuery<'_>) -> Result<FoundLogs, Fault> {
        let parts = span.parts(u64::from(endpoint.log_range.get())).map(|part| self.part_of_logs(endpoint, part, query));
        // In order, so that what two endpoints found can be compared.
        let mut parts = stream::iter(parts.collect::<Vec<_>>()).buffered(AHEAD);
        let mut found = FoundLogs::default();
        while let Some(part) = parts.next().await {
            found.join(part?);
        }
        Ok(found)
    }

    /// One request for a part; when it is too much, one for each half.
    fn part_of_logs<'a>(&'a self, endpoint: &'a Endpoint, span: Span, query: LogQuery<'a>) -> BoxFuture<'a, Result<FoundLogs, Fault>> {
        Box::pin(async move {
            let tried = u32::try_from(span.blocks()).unwrap_or(u32::MAX);
            // A smaller size may have been found since this part was cut.
            if tried <= endpoint.log_range.get() || tried == 1 {
                match patiently(|| Box::pin(logs_once(endpoint, span, query))).await {
                    Ok(found) => {
                        endpoint.log_range.succeed(tried);
                        return Ok(found);
                    }
                    Err(fault) if tried == 1 => return logs_from_receipts(endpoint, span.from, query).await.map_err(|_| fault),
                    Err(fault) if fault.may_be_size() => {
                        let suggested = match fault {
                            Fault::TooWide { suggested_blocks, .. } => suggested_blocks,
                            _ => None,
                        };
                        endpoint.log_range.shrink(tried, suggested);
                    }
                    Err(fault) => return Err(fault),
                }
            }
            let (low, high) = span.halves();
            let mut found = self.part_of_logs(endpoint, low, query).await?;
            found.join(self.part_of_logs(endpoint, high, query).await?);
            Ok(found)
        })
    }

    async fn calls_of(&self, endpoint: &Endpoint, blocks: &[BlockRef]) -> Result<Option<Vec<Vec<Call>>>, Fault> {
        loop {
            let kind = endpoint.tracing.get();
            let calls: Vec<(&'static str, Value)> = match kind {
                TraceKind::Block => blocks.iter().map(|block| ("trace_block", json!([hex_number(block.number)]))).collect(),
                TraceKind::Debug => {
                    let tracer = json!({ "tracer": "callTracer" });
                    blocks.iter().map(|block| ("debug_traceBlockByHash", json!([block.hash, tracer]))).collect()
                }
                TraceKind::Absent => return Ok(None),
            };
            let read = |place: usize, text: &str| {
                let mut calls = match kind {
                    TraceKind::Block => read_rows(text, blocks[place])?,
                    TraceKind::Debug | TraceKind::Absent => read_frames(text, blocks[place])?,
                };
                // One order for both forms, so that endpoints can be compared.
                calls.sort_by(|a, b| (a.tx_hash, &a.path).cmp(&(b.tx_hash, &b.path)));
                Ok(calls)
            };
            match many(endpoint, &calls, &read).await {
                // Ends: there are two kinds, and then none.
                Err(fault) if is_missing_method(&fault) => drop(endpoint.tracing.refuse(kind)),
                answer => return answer.map(Some),
            }
        }
    }
}

/// Many calls on one endpoint, in batches of the size that it takes; the answers in their order.
async fn many<T: Send>(
    endpoint: &Endpoint,
    calls: &[(&'static str, Value)],
    read: &(dyn Fn(usize, &str) -> Result<T, Fault> + Sync),
) -> Result<Vec<T>, Fault> {
    let size = usize::try_from(endpoint.batch.get()).unwrap_or(1).max(1);
    let parts: Vec<_> = calls.chunks(size).enumerate().map(|(place, part)| some(endpoint, part, place * size, read)).collect();
    let mut parts = stream::iter(parts).buffered(AHEAD);
    let mut answers = Vec::with_capacity(calls.len());
    while let Some(part) = parts.next().await {
        answers.extend(part?);
    }
    Ok(answers)
}

/// One batch; when it is too much, its halves. `first` is the place of the first call in the whole.
fn some<'a, T: Send + 'a>(
    endpoint: &'a Endpoint,
    calls: &'a [(&'static str, Value)],
    first: usize,
    read: &'a (dyn Fn(usize, &str) -> Result<T, Fault> + Sync),
) -> BoxFuture<'a, Result<Vec<T>, Fault>> {
    Box::pin(async move {
        let tried = u32::try_from(calls.len()).unwrap_or(u32::MAX);
        if let [(method, params)] = calls {
            let answer = patiently(|| Box::pin(endpoint.call(method, params, |text| read(first, text)))).await?;
            return Ok(vec![answer]);
        }
        let mut turns = 0;
        while tried <= endpoint.batch.get() {
            turns += 1;
            match endpoint.batch(calls, |place, text| read(first + place, text)).await {
                Ok(answers) => {
                    endpoint.batch.succeed(tried);
                    return Ok(answers);
                }
                Err(batch) if batch.fault.is_too_fast() && turns <= PATIENCE => {}
                // A method that is not there is no reason to ask for less at once. Batches that are not
                // there are refused in the same words, but as a whole.
                Err(batch) if batch.of_one && is_missing_method(&batch.fault) => return Err(batch.fault),
                Err(batch) if batch.fault.may_be_size() => endpoint.batch.shrink(tried, None),
                Err(batch) => return Err(batch.fault),
            }
        }
        let middle = calls.len() / 2;
        let (low, high) = calls.split_at(middle);
        let mut answers = some(endpoint, low, first, read).await?;
        answers.extend(some(endpoint, high, first + middle, read).await?);
        Ok(answers)
    })
}

/// Repeats what went too fast; the endpoint's pace is slower each time.
async fn patiently<'f, T, F: Fn() -> BoxFuture<'f, Result<T, Fault>>>(ask: F) -> Result<T, Fault> {
    for _ in 0..PATIENCE {
        match ask().await {
            Err(fault) if fault.is_too_fast() => {}
            answer => return answer,
        }
    }
    ask().await
}

/// The logs of a part, and its last block as the same endpoint shows it.
async fn logs_once(endpoint: &Endpoint, span: Span, query: LogQuery<'_>) -> Result<FoundLogs, Fault> {
    let filter = json!([{
        "fromBlock": hex_number(span.from), "toBlock": hex_number(span.to), "address": query.contracts, "topics": [query.topic],
    }]);
    let end = json!([hex_number(span.to), false]);
    let mut found = FoundLogs::default();
    let read_end = |text: &str| {
        let hash = read_present(&format!("block {}", span.to), text, |raw: HashOnly| Ok(raw.hash.0))?;
        Ok(BlockRef { number: span.to, hash })
    };
    let read_logs = |text: &str| {
        let mut present = BTreeSet::new();
        let logs = read_range(text, span, query, &mut present)?;
        Ok(FoundLogs { logs, present, ends: Vec::new() })
    };
    if endpoint.batch.get() > 1 {
        enum Part {
            End(BlockRef),
            Logs(FoundLogs),
        }
        let read = |place: usize, text: &str| match place {
            0 => read_logs(text).map(Part::Logs),
            _ => read_end(text).map(Part::End),
        };
        for part in endpoint.batch(&[(LOGS, filter), (BY_NUMBER, end)], read).await? {
            match part {
                Part::End(block) => found.ends.push(block),
                Part::Logs(logs) => found.join(logs),
            }
        }
    } else {
        found.join(endpoint.call(LOGS, &filter, read_logs).await?);
        found.ends.push(endpoint.call(BY_NUMBER, &end, read_end).await?);
    }
    Ok(found)
}

/// A single block that is too much for a range of logs: from its receipts.
async fn logs_from_receipts(endpoint: &Endpoint, number: BlockNumber, query: LogQuery<'_>) -> Result<FoundLogs, Fault> {
    let hash = endpoint
        .call(BY_NUMBER, &json!([hex_number(number), false]), |text| {
            read_present(&format!("block {number}"), text, |raw: HashOnly| Ok(raw.hash.0))
        })
        .await?;
    let block = BlockRef { number, hash };
    let receipts = endpoint.call(RECEIPTS, &json!([hash]), |text| read_receipts(text, block)).await?;
    let mut found = FoundLogs { ends: vec![block], ..FoundLogs::default() };
    for log in receipts.into_iter().flat_map(|receipt| receipt.logs) {
        if !query.contracts.contains(&log.address) || log.topics.first() != Some(&query.topic) {
            continue;
        }
        found.present.insert(number);
        if log.topics.get(2).is_some_and(|topic| (query.wanted)(Address::from_slice(&topic[12..]))) {
            found.logs.push(RangeLog { number, log });
        }
    }
    Ok(found)
}

fn read_receipts(text: &str, block: BlockRef) -> Result<Vec<Receipt>, Fault> {
    let receipts = read_json::<Option<Vec<RawReceipt>>>(text)?.ok_or_else(|| Fault::NotFound { what: format!("receipts of {block}") })?;
    let receipts = receipts.into_iter().map(|raw| raw.read_any()).collect::<Result<Vec<_>, _>>()?;
    match receipts.iter().find(|receipt| receipt.block != block) {
        Some(alien) => Err(Fault::malformed(format!("a receipt of {} among those of {block}", alien.block))),
        None => Ok(receipts),
    }
}

fn same_receipts(ours: &[Receipt], theirs: &[Receipt]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(ours, theirs)| ours.says_the_same(theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w2_halves_leave_no_height_out() {
        for (from, to) in [(5, 6), (5, 7), (0, 1), (10, 109)] {
            let span = Span { from: BlockNumber(from), to: BlockNumber(to) };
            let (low, high) = span.halves();
            let both: Vec<u64> = low.numbers().chain(high.numbers()).map(|number| number.0).collect();
            assert_eq!(both, (from..=to).collect::<Vec<_>>());
            assert_eq!(low.blocks() + high.blocks(), span.blocks());
        }
        assert_eq!(Span { from: BlockNumber(5), to: BlockNumber(4) }.blocks(), 0);
    }
}
