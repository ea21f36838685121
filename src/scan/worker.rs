//! The loop that follows one chain. A tick reads a bounded number of chunks and commits each whole, or not.
//!
//! Near the head it goes block by block, by hash; far behind it catches up in ranges (`catch_up`). Order
//! of a tick: the head, then the watched set and the blocks, then the receipts. The head comes first: an
//! address that was committed before somebody paid it is in the set when the paying block is matched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use alloy::primitives::{Address, B256};
use time::OffsetDateTime;

use super::matching::{self, Ignored, Scope, TRANSFER_TOPIC, View};
use super::store::{self, Cursor, NewBlock, Orphaned};
use super::tip::{self, Link, StoredLine, TipChange};
use super::{ScanError, Transfer};
use crate::chains::{ChainSpec, Finality};
use crate::db::{Database, DbError};
use crate::deposit::{Watched, WatchedSet};
use crate::rpc::{Block, Call, Fault, FinalityTag, Log, Node, Receipt, Span};
use crate::settings;
use crate::units::{BlockNumber, BlockRef, ChainId, Progress};

/// How to follow a chain.
#[derive(Clone, Copy, Debug)]
pub struct ScanOptions {
    /// The first block to read, the very first time. `None`: the head at that moment.
    pub start: Option<BlockNumber>,
    /// Blocks per tick and commit near the head.
    pub chunk_blocks: u32,
    /// Blocks per tick and commit when catching up.
    pub catch_up_blocks: u32,
    /// Whether the chain's own coin is looked for. Without it headers are read in place of whole blocks.
    pub native: bool,
    /// Whether to look inside transactions, where the node can.
    pub internal: bool,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self { start: None, chunk_blocks: 50, catch_up_blocks: 500, native: true, internal: true }
    }
}

/// Chunks that one tick reads in ranges at most: few enough that it ends soon.
const CHUNKS_PER_TICK: u32 = 8;

/// Follows one chain. Chains share the watched set, not their fate: each has a scanner of its own.
#[derive(Debug)]
pub struct Scanner {
    pub(super) database: Database,
    pub(super) node: Arc<Node>,
    pub(super) watched: Arc<Watched>,
    pub(super) chain: ChainId,
    pub(super) tokens: Vec<Address>,
    pub(super) reorg_window: u32,
    finality: Option<FinalityTag>,
    pub(super) options: ScanOptions,
    /// The head under which the node was last asked what is final.
    final_asked: AtomicU64,
    /// The node does not give the receipts of a whole block.
    pub(super) receipts_one_by_one: AtomicBool,
}

/// What one tick will commit.
#[derive(Debug)]
struct Round {
    chain: ChainId,
    /// Where the cursor stood; `None` in the first round.
    from: Option<BlockRef>,
    orphan_from: Option<BlockNumber>,
    blocks: Vec<NewBlock>,
    seen: Vec<(BlockRef, Transfer)>,
    now: OffsetDateTime,
}

/// A block with what it takes to match it.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) block: Block,
    pub(super) logs: Vec<Log>,
    /// `None` where nobody could look inside its transactions.
    pub(super) calls: Option<Vec<Call>>,
    /// Those that are read already.
    pub(super) receipts: Vec<Receipt>,
}

impl Scanner {
    pub fn new(database: Database, node: Arc<Node>, watched: Arc<Watched>, spec: &ChainSpec, options: ScanOptions) -> Self {
        Self {
            database,
            node,
            watched,
            chain: spec.id,
            tokens: spec.tokens.iter().map(|token| token.contract).collect(),
            reorg_window: spec.reorg_window,
            finality: match spec.finality {
                Finality::Finalized => Some(FinalityTag::Finalized),
                Finality::Safe => Some(FinalityTag::Safe),
                Finality::Depth => None,
            },
            options,
            final_asked: AtomicU64::new(0),
            receipts_one_by_one: AtomicBool::new(false),
        }
    }

    /// Reads the next blocks and commits them. Safe to repeat at any time.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ScanError> {
        self.node.set_clock(now);
        let head = link_of(&self.node.head().await?);
        let cursor = store::find_cursor(&mut *self.database.connection().await?, self.chain).await?;
        let Some(cursor) = cursor else { return self.first_round(head, now).await };

        let final_block = self.note_final(&cursor, head.block.number).await?;
        if let Some(settled) = self.catch_up_to(&cursor, head.block.number, final_block)
            && self.catch_up(&cursor, settled, now).await?
        {
            return Ok(Progress::Worked);
        }
        self.follow(&cursor, head, now).await
    }

    /// One chunk of the way from the stored tip to the head, block by block.
    async fn follow(&self, cursor: &Cursor, head: Link, now: OffsetDateTime) -> Result<Progress, ScanError> {
        let mut searched = self.reorg_window;
        let mut line = self.stored_line(cursor, searched).await?;
        // At the same height or below, the head itself is what to compare; above, the next block is.
        let first = if head.block.number <= cursor.tip.number { None } else { Some(self.block_at(cursor.tip.number.next()).await?) };
        let mut branch = vec![first.as_ref().map_or(head, |block| link_of(&block.header))];
        let (from, orphan_from) = loop {
            match tip::advance(&line, &branch) {
                TipChange::Same => return Ok(Progress::Idle),
                TipChange::Behind { by } => return self.behind(cursor, by),
                TipChange::Extend { from } => break (from, None),
                // Not even the first block is shared, over a line longer than any reorg: another chain.
                TipChange::Reorg { ancestor: None, depth, .. } if depth > u64::from(self.reorg_window) => {
                    return self.too_deep(head.block, cursor.start, now).await;
                }
                TipChange::Reorg { ancestor, depth, from } => {
                    tracing::warn!(chain.id = self.chain.get(), depth, ?ancestor, tip = %cursor.tip, "the node's branch left the stored line");
                    break (from, Some(ancestor.map_or(cursor.start, |ancestor| ancestor.number.next())));
                }
                // Ends: the branch grows downwards to the lowest stored block at most.
                TipChange::NeedParent { hash } => branch.insert(0, link_of(&self.node.header_by_hash(hash).await?)),
                // Deeper than a reorg should be. Outflow is halted first and a person called; then the
                // line is searched further, because what was dropped must not stay canonical.
                TipChange::TooDeep { searched_to }
                    if cursor.outflow_halted.is_some() && searched_to > cursor.start && self.shares_start(cursor).await? =>
                {
                    searched = searched.saturating_mul(2);
                    line = self.stored_line(cursor, searched).await?;
                }
                TipChange::TooDeep { searched_to } => return self.too_deep(head.block, searched_to, now).await,
                TipChange::Broken { at } => return Err(self.moved(format!("{at} does not follow the block before it"))),
            }
        };
        let reads = self.read_branch(&branch[from..], first, head).await?;
        self.finish(Some(cursor.tip), orphan_from, reads, now).await
    }

    /// Whether the node has the first block that was ever stored: otherwise it is on another chain, and
    /// there is no ancestor to search for.
    async fn shares_start(&self, cursor: &Cursor) -> Result<bool, ScanError> {
        let stored = store::find_canonical(&mut *self.database.connection().await?, self.chain, cursor.start).await?;
        let shown = self.node.header_by_number(cursor.start).await?;
        Ok(shown.map(|header| header.block.hash) == stored)
    }

    /// Asks the node once per head what it calls final, and keeps the highest.
    async fn note_final(&self, cursor: &Cursor, head: BlockNumber) -> Result<Option<BlockNumber>, ScanError> {
        let known = cursor.final_block.map(|block| block.number);
        let Some(tag) = self.finality.filter(|_| self.final_asked.swap(head.0, Ordering::Relaxed) != head.0) else { return Ok(known) };
        let Some(named) = self.node.tagged(tag).await? else { return Ok(known) };
        if known.is_some_and(|known| named.number < known) {
            tracing::warn!(chain.id = self.chain.get(), %named, ?known, "the node's final block went back; the higher one stays");
            return Ok(known);
        }
        if known != Some(named.number) {
            let chain = self.chain;
            self.database
                .unit::<_, DbError, _>(move |connection| Box::pin(async move { store::set_final(connection, chain, named).await }))
                .await?;
        }
        Ok(Some(named.number))
    }

    /// Up to where ranges may be read now: only what no reorg touches, and `None` when it is not far.
    fn catch_up_to(&self, cursor: &Cursor, head: BlockNumber, final_block: Option<BlockNumber>) -> Option<BlockNumber> {
        let settled = final_block.unwrap_or(BlockNumber(head.0.saturating_sub(u64::from(self.reorg_window)))).min(head);
        let behind = settled.0.checked_sub(cursor.tip.number.0)?;
        (behind > u64::from(self.options.chunk_blocks) && self.options.catch_up_blocks > 0).then_some(settled)
    }

    /// Some chunks of the way in ranges, each in a commit of its own, the next one read meanwhile. `false`
    /// when the node's branch has left the stored line.
    async fn catch_up(&self, cursor: &Cursor, settled: BlockNumber, now: OffsetDateTime) -> Result<bool, ScanError> {
        let next = |tip: BlockNumber| {
            let to = BlockNumber(settled.0.min(tip.0 + u64::from(self.options.catch_up_blocks)));
            (to > tip).then_some(Span { from: tip.next(), to })
        };
        // Before anything is read: whoever pays in these blocks, which are all below the head, had the
        // address before.
        self.refresh_watched().await?;
        let mut tip = cursor.tip;
        let Some(first) = next(tip.number) else { return Ok(false) };
        let mut reads = self.read_span(first).await?;
        for chunk in 1..=CHUNKS_PER_TICK {
            let Some(last) = reads.last().map(|read| read.block.header.block) else { break };
            if !tip::follows(tip, link_of(&reads[0].block.header)) {
                return Ok(chunk > 1);
            }
            let ahead = async {
                match next(last.number).filter(|_| chunk < CHUNKS_PER_TICK) {
                    Some(span) => self.read_span(span).await,
                    None => Ok(Vec::new()),
                }
            };
            let (committed, ahead) = futures_util::future::join(self.commit_reads(Some(tip), None, reads, now), ahead).await;
            committed?;
            (tip, reads) = (last, ahead?);
        }
        Ok(true)
    }

    /// The first round stores the block where watching begins.
    async fn first_round(&self, head: Link, now: OffsetDateTime) -> Result<Progress, ScanError> {
        let start = self.options.start.unwrap_or(head.block.number);
        if start > head.block.number {
            return Ok(Progress::Idle);
        }
        let block = self.block_at(start).await?;
        let reads = vec![self.with_logs(block).await?];
        self.finish(None, None, reads, now).await
    }

    /// The node is below us: it lags, or its chain got shorter. We wait; beyond the window it is the
    /// wrong node.
    fn behind(&self, cursor: &Cursor, by: u64) -> Result<Progress, ScanError> {
        if by > u64::from(self.reorg_window) {
            return Err(ScanError::FarBehind { chain: self.chain, tip: cursor.tip, by });
        }
        tracing::debug!(chain.id = self.chain.get(), by, "the node's head is below the stored tip");
        Ok(Progress::Idle)
    }

    async fn too_deep(&self, head: BlockRef, searched_to: BlockNumber, now: OffsetDateTime) -> Result<Progress, ScanError> {
        let error = ScanError::TooDeep { chain: self.chain, head, searched_to };
        let (chain, reason) = (self.chain, error.to_string());
        self.database
            .unit::<_, DbError, _>(move |connection| Box::pin(async move { store::halt_outflow(connection, chain, &reason, now).await }))
            .await?;
        Err(error)
    }

    // === reading ===

    async fn stored_line(&self, cursor: &Cursor, depth: u32) -> Result<StoredLine, ScanError> {
        let lowest = BlockNumber(cursor.tip.number.0.saturating_sub(u64::from(depth)));
        let blocks = store::list_canonical(&mut *self.database.connection().await?, self.chain, lowest.max(cursor.start)).await?;
        let line = StoredLine::new(blocks, cursor.start).map_err(|error| DbError::Corrupt {
            column: "chain_blocks.number",
            found: error.to_string(),
            wanted: "an unbroken line of canonical blocks",
        })?;
        if line.tip() == cursor.tip {
            Ok(line)
        } else {
            // Between two statements another process moved the chain, which only one may.
            Err(self.moved(format!("the stored line ends in {} and the cursor stands on {}", line.tip(), cursor.tip)))
        }
    }

    /// The blocks of a branch whose links are known, and then the ones above by height, up to the chunk's
    /// size or the head.
    async fn read_branch(&self, links: &[Link], first: Option<Block>, head: Link) -> Result<Vec<Read>, ScanError> {
        let chunk = usize::try_from(self.options.chunk_blocks.max(1)).unwrap_or(usize::MAX);
        let mut first = first;
        let mut reads: Vec<Read> = Vec::new();
        for link in links.iter().take(chunk) {
            let block = match first.take_if(|block| block.header.block == link.block) {
                Some(block) => block,
                None => self.node.block_by_hash(link.block.hash).await?,
            };
            reads.push(self.with_logs(block).await?);
        }
        while reads.len() < chunk
            && let Some(last) = reads.last().map(|read| read.block.header.block)
            && last.number < head.block.number
        {
            let block = self.block_at(last.number.next()).await?;
            if !tip::follows(last, link_of(&block.header)) {
                return Err(self.moved(format!("{} does not follow {last}", block.header.block)));
            }
            reads.push(self.with_logs(block).await?);
        }
        Ok(reads)
    }

    async fn block_at(&self, number: BlockNumber) -> Result<Block, ScanError> {
        let block = self.node.block_by_number(number).await?;
        block.ok_or_else(|| self.moved(format!("block {number} is gone, though the head is not below it")))
    }

    /// The logs of a block are asked by its hash, unless its own header proves that it has none of ours.
    async fn with_logs(&self, mut block: Block) -> Result<Read, ScanError> {
        if !self.options.native {
            block.transactions.clear();
        }
        let mut read = Read { block, logs: Vec::new(), calls: None, receipts: Vec::new() };
        if self.may_hold_logs(&read.block) {
            let hash = read.block.header.block.hash;
            read.logs = self.node.logs_by_block_hash(hash, &self.tokens, TRANSFER_TOPIC).await?;
        }
        read.calls = self.look_inside(&read.block).await?;
        Ok(read)
    }

    /// Whether a block may hold logs of our tokens, by its own word: it has transactions, and its filter
    /// does not exclude them.
    pub(super) fn may_hold_logs(&self, block: &Block) -> bool {
        let empty = self.options.native && block.transactions.is_empty();
        !self.tokens.is_empty() && !empty && !block.header.excludes(&self.tokens, TRANSFER_TOPIC)
    }

    /// What happened inside a block's transactions. A trace that cannot be had leaves the block unread in
    /// this respect, which is stored with it; a node that is away is waited for.
    pub(super) async fn look_inside(&self, block: &Block) -> Result<Option<Vec<Call>>, ScanError> {
        if !self.options.internal {
            return Ok(None);
        }
        if block.transactions.is_empty() {
            return Ok(Some(Vec::new()));
        }
        if !self.node.traces() {
            return Ok(None);
        }
        match self.node.calls(&[block.header.block]).await {
            Ok(lists) => Ok(lists.into_iter().flatten().next().filter(|calls| self.is_whole(block, calls))),
            Err(error) if matches!(error.fault, Fault::Unreachable { .. } | Fault::RateLimited { .. }) => Err(error.into()),
            Err(error) => {
                tracing::warn!(chain.id = self.chain.get(), block = %block.header.block, %error, "the inside of a block could not be read");
                Ok(None)
            }
        }
    }

    pub(super) fn is_whole(&self, block: &Block, calls: &[Call]) -> bool {
        let whole = matching::is_whole_trace(block, calls);
        if !whole {
            tracing::warn!(chain.id = self.chain.get(), block = %block.header.block, "a trace leaves transactions out; it is not used");
        }
        whole
    }

    /// Brings the watched set up to what is committed now.
    pub(super) async fn refresh_watched(&self) -> Result<(), ScanError> {
        Ok(self.watched.refresh(&self.database).await?)
    }

    // === matching and committing ===

    /// Matches what was read and commits it.
    async fn finish(
        &self,
        from: Option<BlockRef>,
        orphan_from: Option<BlockNumber>,
        reads: Vec<Read>,
        now: OffsetDateTime,
    ) -> Result<Progress, ScanError> {
        self.refresh_watched().await?;
        self.commit_reads(from, orphan_from, reads, now).await
    }

    async fn commit_reads(
        &self,
        from: Option<BlockRef>,
        orphan_from: Option<BlockNumber>,
        reads: Vec<Read>,
        now: OffsetDateTime,
    ) -> Result<Progress, ScanError> {
        let mut round = Round { chain: self.chain, from, orphan_from, blocks: Vec::with_capacity(reads.len()), seen: Vec::new(), now };
        for read in &reads {
            let header = &read.block.header;
            let time = self.block_time(header.block, header.timestamp)?;
            round.blocks.push(NewBlock { link: link_of(header), time, internal_read: read.calls.is_some() });
            let found = self.transfers_of(read).await?;
            round.seen.extend(found.into_iter().map(|transfer| (header.block, transfer)));
        }
        let Some(tip) = round.blocks.last().map(|block| block.link.block) else { return Ok(Progress::Idle) };
        // A branch that changed while it was read is seen by its highest block; the round is given up.
        match self.node.header_by_number(tip.number).await? {
            Some(header) if header.block == tip => {}
            Some(_) | None => return Err(self.moved(format!("{tip} was replaced"))),
        }
        let transfers = round.seen.len();
        let orphaned = self.commit(round).await?;
        if transfers > 0 || orphaned.is_some() {
            tracing::info!(chain.id = self.chain.get(), %tip, blocks = reads.len(), transfers, ?orphaned, "read");
        }
        Ok(Progress::Worked)
    }

    pub(super) async fn transfers_of(&self, read: &Read) -> Result<Vec<Transfer>, ScanError> {
        let view = View { block: &read.block, logs: &read.logs, calls: read.calls.as_deref().unwrap_or_default() };
        let hits = {
            let watched = self.watched.read();
            matching::hits(view, self.scope(&watched))
        };
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        let mut receipts: BTreeMap<B256, Receipt> = BTreeMap::new();
        let known: BTreeMap<B256, &Receipt> = read.receipts.iter().map(|receipt| (receipt.tx_hash, receipt)).collect();
        for tx_hash in hits {
            if let Some(receipt) = known.get(&tx_hash) {
                receipts.insert(tx_hash, (*receipt).clone());
            } else if let Some(receipt) = self.node.receipt(tx_hash).await? {
                // No receipt is no answer; the matcher refuses the block.
                receipts.insert(tx_hash, receipt);
            }
        }
        let receipts: Vec<Receipt> = receipts.into_values().collect();
        let watched = self.watched.read();
        let block = read.block.header.block;
        let (found, ignored) = matching::transfers(view, &receipts, self.scope(&watched)).map_err(|source| ScanError::Contradiction {
            chain: self.chain,
            block,
            source: Box::new(source),
        })?;
        if ignored != Ignored::default() {
            tracing::info!(chain.id = self.chain.get(), %block, ?ignored, "what looked like a transfer was not taken");
        }
        Ok(found)
    }

    pub(super) fn scope<'a>(&'a self, watched: &'a WatchedSet) -> Scope<'a> {
        Scope { watched, tokens: &self.tokens }
    }

    async fn commit(&self, round: Round) -> Result<Option<Orphaned>, ScanError> {
        let chain = self.chain;
        let outcome = self.database.unit::<_, DbError, _>(move |connection| Box::pin(async move { round.write(connection).await })).await;
        outcome.map_err(|error| match error.constraint() {
            Some("transfer_observations_one_canonical_key") => ScanError::TwoBlocks { chain },
            Some(_) | None => error.into(),
        })
    }

    pub(super) fn block_time(&self, block: BlockRef, timestamp: u64) -> Result<OffsetDateTime, ScanError> {
        let seconds = i64::try_from(timestamp).ok();
        seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()).ok_or(ScanError::Timestamp {
            chain: self.chain,
            block,
            timestamp,
        })
    }

    pub(super) fn moved(&self, what: String) -> ScanError {
        ScanError::Moved { chain: self.chain, what }
    }
}

impl Round {
    /// Blocks, observations and cursor together; the old branch is put aside first.
    async fn write(self, connection: &mut sqlx::PgConnection) -> Result<Option<Orphaned>, DbError> {
        let orphaned = match self.orphan_from {
            Some(number) => Some(store::orphan_from(connection, self.chain, number, self.now).await?),
            None => None,
        };
        let threshold = settings::store::get_threshold(connection, self.chain).await?;
        store::insert_blocks(connection, self.chain, &self.blocks, threshold.history_id).await?;
        store::insert_observations(connection, self.chain, &self.seen).await?;
        let tip = self.blocks.last().map(|block| block.link.block);
        match (self.from, tip) {
            (Some(from), Some(tip)) => store::advance_cursor(connection, self.chain, from, tip, self.now).await?,
            (None, Some(tip)) => store::insert_cursor(connection, self.chain, tip).await?,
            (_, None) => {}
        }
        Ok(orphaned)
    }
}

pub(super) fn link_of(header: &crate::rpc::Header) -> Link {
    Link { block: header.block, parent_hash: header.parent_hash }
}
