//! Reading a span of blocks that no reorg touches any more, with as few requests as it takes.
//!
//! The blocks come in batches and the logs in ranges, both at the same time. A range only finds. What
//! was found, and every block whose filter admits our tokens though the range showed none of their logs,
//! is read again by its hash: the receipts decide, and an answer that was empty for lack of the block or
//! of its logs cannot pass (W2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use alloy::primitives::{Address, B256};
use futures_util::{StreamExt, stream};

use super::matching::{self, TRANSFER_TOPIC, View};
use super::tip;
use super::worker::{Read, Scanner, link_of};
use super::{MatchError, ScanError};
use crate::rpc::{Block, Call, Fault, FoundLogs, Log, LogQuery, Receipt, RpcError, Span};
use crate::units::{BlockNumber, BlockRef};

/// Blocks that are read together. While the receipts of one part are on their way, the logs of the next
/// ones are too; an answer stays small enough to be read while others arrive.
const PART_BLOCKS: u64 = 125;
const PARTS_AHEAD: usize = 4;

impl Scanner {
    /// Reads a span: every block in it, linked, ascending, with all that matching needs.
    pub(super) async fn read_span(&self, span: Span) -> Result<Vec<Read>, ScanError> {
        let parts: Vec<_> = span.parts(PART_BLOCKS).map(|part| self.read_part(part)).collect();
        let mut parts = stream::iter(parts).buffered(PARTS_AHEAD);
        let mut reads: Vec<Read> = Vec::new();
        while let Some(part) = parts.next().await {
            let part = part?;
            if let (Some(last), Some(first)) = (reads.last(), part.first())
                && !tip::follows(last.block.header.block, link_of(&first.block.header))
            {
                return Err(self.moved(format!("{} does not follow {}", first.block.header.block, last.block.header.block)));
            }
            reads.extend(part);
        }
        Ok(reads)
    }

    async fn read_part(&self, span: Span) -> Result<Vec<Read>, ScanError> {
        let (blocks, found) = futures_util::future::try_join(self.blocks_of(span), self.logs_of(span)).await?;
        for pair in blocks.windows(2) {
            if !tip::follows(pair[0].header.block, link_of(&pair[1].header)) {
                return Err(self.moved(format!("{} does not follow {}", pair[1].header.block, pair[0].header.block)));
            }
        }
        let line: BTreeMap<BlockNumber, B256> = blocks.iter().map(|block| (block.header.block.number, block.header.block.hash)).collect();
        let is_ours = |block: &BlockRef| line.get(&block.number) == Some(&block.hash);
        if let Some(end) = found.ends.iter().find(|end| !is_ours(end)) {
            return Err(self.moved(format!("the logs were read under {end}, which is not in the line")));
        }
        let mut logs: BTreeMap<BlockNumber, Vec<Log>> = BTreeMap::new();
        for log in found.logs {
            let at = BlockRef { number: log.number, hash: log.log.block_hash.unwrap_or_default() };
            if !is_ours(&at) {
                return Err(self.moved(format!("a log is of {at}, which is not in the line")));
            }
            logs.entry(log.number).or_default().push(log.log);
        }
        let calls = self.look_inside_all(&blocks).await?;
        let mut reads: Vec<Read> = blocks
            .into_iter()
            .zip(calls)
            .map(|(block, calls)| {
                let logs = logs.remove(&block.header.block.number).unwrap_or_default();
                Read { block, logs, calls, receipts: Vec::new() }
            })
            .collect();
        self.read_again(&mut reads, &found.present).await?;
        Ok(reads)
    }

    async fn blocks_of(&self, span: Span) -> Result<Vec<Block>, RpcError> {
        if self.options.native {
            return self.node.blocks(span).await;
        }
        let headers = self.node.headers(span).await?;
        Ok(headers.into_iter().map(|header| Block { header, transactions: Vec::new() }).collect())
    }

    async fn logs_of(&self, span: Span) -> Result<FoundLogs, RpcError> {
        if self.tokens.is_empty() {
            return Ok(FoundLogs::default());
        }
        let wanted = |address: Address| self.watched.read().contains(address);
        self.node.find_logs(span, LogQuery { contracts: &self.tokens, topic: TRANSFER_TOPIC, wanted: &wanted }).await
    }

    /// The inside of many blocks: all at once, or one by one when one of them cannot be had.
    async fn look_inside_all(&self, blocks: &[Block]) -> Result<Vec<Option<Vec<Call>>>, ScanError> {
        let asked: Vec<&Block> = blocks.iter().filter(|block| !block.transactions.is_empty()).collect();
        if self.options.internal && self.node.traces() && !asked.is_empty() {
            let refs: Vec<BlockRef> = asked.iter().map(|block| block.header.block).collect();
            if let Ok(Some(lists)) = self.node.calls(&refs).await {
                let mut traced: BTreeMap<B256, Vec<Call>> = refs.iter().map(|block| block.hash).zip(lists).collect();
                let of = |block: &Block| {
                    if block.transactions.is_empty() {
                        return Some(Vec::new());
                    }
                    traced.remove(&block.header.block.hash).filter(|calls| self.is_whole(block, calls))
                };
                return Ok(blocks.iter().map(of).collect());
            }
        }
        let mut calls = Vec::with_capacity(blocks.len());
        for block in blocks {
            calls.push(self.look_inside(block).await?);
        }
        Ok(calls)
    }

    /// Reads by hash the receipts of every block that pays us, and of those that should have shown a log
    /// and did not.
    async fn read_again(&self, reads: &mut [Read], present: &BTreeSet<BlockNumber>) -> Result<(), ScanError> {
        let wanted: Vec<usize> = {
            let watched = self.watched.read();
            let scope = self.scope(&watched);
            let needed = |read: &Read| {
                let view = View { block: &read.block, logs: &read.logs, calls: read.calls.as_deref().unwrap_or_default() };
                let doubtful = !present.contains(&read.block.header.block.number) && self.may_hold_logs(&read.block);
                doubtful || !matching::hits(view, scope).is_empty()
            };
            (0..reads.len()).filter(|place| needed(&reads[*place])).collect()
        };
        let blocks: Vec<BlockRef> = wanted.iter().map(|place| reads[*place].block.header.block).collect();
        if blocks.is_empty() {
            return Ok(());
        }
        if !self.receipts_one_by_one.load(Ordering::Relaxed) {
            match self.node.block_receipts(&blocks).await {
                Ok(lists) => {
                    for (place, receipts) in wanted.into_iter().zip(lists) {
                        self.take_receipts(&mut reads[place], receipts)?;
                    }
                    return Ok(());
                }
                Err(error) if error.is_missing_method() => {
                    tracing::info!(
                        chain.id = self.chain.get(),
                        "the node does not give the receipts of a block at once; they are asked one by one"
                    );
                    self.receipts_one_by_one.store(true, Ordering::Relaxed);
                }
                // It offers the method and has nothing to say: perhaps it has the receipts one by one.
                Err(error) if matches!(error.fault, Fault::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Second best: the logs by the block's hash here, the receipts of the hits when they are matched.
        for place in wanted {
            let hash = reads[place].block.header.block.hash;
            let logs = self.node.logs_by_block_hash(hash, &self.tokens, TRANSFER_TOPIC).await?;
            self.take_logs(&mut reads[place], logs)?;
        }
        Ok(())
    }

    fn take_receipts(&self, read: &mut Read, receipts: Vec<Receipt>) -> Result<(), ScanError> {
        let of_ours = |log: &&Log| self.tokens.contains(&log.address) && log.topics.first() == Some(&TRANSFER_TOPIC);
        let logs = receipts.iter().filter(|receipt| receipt.succeeded).flat_map(|receipt| &receipt.logs).filter(of_ours).cloned().collect();
        self.take_logs(read, logs)?;
        read.receipts = receipts;
        Ok(())
    }

    /// The logs that were read by hash take the place of those that the range showed, which must be
    /// among them.
    fn take_logs(&self, read: &mut Read, logs: Vec<Log>) -> Result<(), ScanError> {
        if let Some(alien) = read.logs.iter().find(|log| !logs.contains(log)) {
            let source = Box::new(MatchError::LogNotInReceipt { tx_hash: alien.tx_hash });
            return Err(ScanError::Contradiction { chain: self.chain, block: read.block.header.block, source });
        }
        read.logs = logs;
        Ok(())
    }
}
