//! Reading again what was read before, and reading what lies below the first stored block.
//!
//! A rescan adds and never takes away: no block, no observation and no cursor of the scanner changes.
//! Inside the stored line a block counts only if it is the one that is stored; below it, only if it
//! links to the first stored block. Each chunk is one transaction, so that a rescan may be ended at any
//! time and begun again, and it needs no lease: it holds the cursor while it writes, and the scanner of
//! a daemon waits that long.

mod store;

use std::collections::BTreeMap;

use alloy::primitives::B256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::store::{self as lines, Cursor, NewBlock};
use super::worker::{Scanner, link_of};
use super::{ScanError, Transfer};
use crate::rpc::Span;
use crate::settings;
use crate::units::{BlockNumber, BlockRef, ChainId};

/// What a rescan read and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RescanReport {
    pub blocks: u64,
    /// Transfers to addresses of ours in these blocks.
    pub transfers: u64,
    /// Those that were not stored before.
    pub new_transfers: u64,
    /// Stored before, and not seen this time: the node shows less than it did, such as no traces.
    pub unseen_transfers: u64,
}

impl RescanReport {
    pub fn add(&mut self, other: Self) {
        self.blocks += other.blocks;
        self.transfers += other.transfers;
        self.new_transfers += other.new_transfers;
        self.unseen_transfers += other.unseen_transfers;
    }
}

/// Cuts a span into chunks, in the order in which they must be read: upward inside the stored line, then
/// downward below it, where each chunk links to the one before.
pub fn chunks(span: Span, start: BlockNumber, chunk_blocks: u32) -> Vec<Span> {
    let step = u64::from(chunk_blocks.max(1));
    let mut parts = Vec::new();
    let mut from = span.from.max(start).0;
    // Ends: `from` grows by at least one.
    while from <= span.to.0 {
        let to = span.to.0.min(from.saturating_add(step - 1));
        parts.push(Span { from: BlockNumber(from), to: BlockNumber(to) });
        from = to.saturating_add(1);
    }
    // The heights below the line, the end excluded.
    let mut end = start.0.min(span.to.0.saturating_add(1));
    // Ends: `end` falls by at least one.
    while end > span.from.0 {
        let from = span.from.0.max(end.saturating_sub(step));
        parts.push(Span { from: BlockNumber(from), to: BlockNumber(end - 1) });
        end = from;
    }
    parts
}

/// What one chunk will commit.
#[derive(Debug)]
struct Chunk {
    chain: ChainId,
    span: Span,
    /// Where the line begins, if the chunk lies below it.
    below: Option<BlockNumber>,
    blocks: Vec<NewBlock>,
    seen: Vec<(BlockRef, Transfer)>,
}

impl Scanner {
    /// Reads one chunk again and stores what is missing of it. Safe to repeat at any time.
    ///
    /// The chunk lies inside the stored line, or ends right below it and then extends the line downwards.
    /// A branch that is not the stored one is [`ScanError::Moved`], and nothing is written.
    pub async fn rescan(&self, span: Span, now: OffsetDateTime) -> Result<RescanReport, ScanError> {
        self.node.set_clock(now);
        let cursor = lines::find_cursor(&mut *self.database.connection().await?, self.chain).await?;
        let Some(cursor) = cursor else {
            return Err(self.refused("nothing is scanned yet: start the daemon, with start_block where to begin"));
        };
        let head = self.node.head().await?.block.number;
        let below = self.place_of(span, &cursor, head)?;
        self.refresh_watched().await?;
        let reads = self.read_span(span).await?;
        let mut chunk = Chunk { chain: self.chain, span, below, blocks: Vec::with_capacity(reads.len()), seen: Vec::new() };
        for read in &reads {
            let header = &read.block.header;
            let time = self.block_time(header.block, header.timestamp)?;
            chunk.blocks.push(NewBlock { link: link_of(header), time, internal_read: read.calls.is_some() });
            let found = self.transfers_of(read).await?;
            chunk.seen.extend(found.into_iter().map(|transfer| (header.block, transfer)));
        }
        let chain = self.chain;
        let outcome = self.database.unit::<_, ScanError, _>(move |connection| Box::pin(async move { chunk.write(connection).await })).await;
        outcome.map_err(|error| {
            let twice = matches!(&error, ScanError::Db(error) if error.constraint() == Some("transfer_observations_one_canonical_key"));
            if twice { ScanError::TwoBlocks { chain } } else { error }
        })
    }

    /// Where the line begins, for a chunk below it; `None` for one inside.
    fn place_of(&self, span: Span, cursor: &Cursor, head: BlockNumber) -> Result<Option<BlockNumber>, ScanError> {
        let final_block = cursor.final_block.map_or(0, |block| block.number.0).min(head.0);
        let settled = final_block.max(head.0.saturating_sub(u64::from(self.reorg_window)));
        if span.blocks() == 0 {
            return Err(self.refused("the span ends before it begins"));
        }
        if span.to > cursor.tip.number {
            return Err(self.refused(format!("blocks above {} are not read yet: the daemon reads them", cursor.tip.number)));
        }
        if span.to.0 > settled {
            return Err(self.refused(format!("a reorg may still replace blocks above {settled}: end there, or wait for more blocks")));
        }
        if span.from >= cursor.start {
            return Ok(None);
        }
        if span.to.next() != cursor.start {
            let start = cursor.start;
            return Err(
                self.refused(format!("the stored line begins at {start} and grows downwards without a gap: end at {start} or above"))
            );
        }
        Ok(Some(cursor.start))
    }

    fn refused(&self, what: impl Into<String>) -> ScanError {
        ScanError::RescanRefused { chain: self.chain, what: what.into() }
    }
}

impl Chunk {
    async fn write(self, connection: &mut PgConnection) -> Result<RescanReport, ScanError> {
        let start = store::lock_start(connection, self.chain).await?;
        match self.below {
            None => self.check_inside(connection).await?,
            Some(first) if start == Some(first) => self.extend(connection, first).await?,
            Some(first) => return Err(self.moved(format!("the line does not begin at {first} any more; another rescan moved it"))),
        }
        let before = store::count_observations(connection, self.chain, self.span).await?;
        lines::insert_observations(connection, self.chain, &self.seen).await?;
        let after = store::count_observations(connection, self.chain, self.span).await?;
        let seen = self.seen.len() as u64;
        Ok(RescanReport {
            blocks: self.blocks.len() as u64,
            transfers: seen,
            new_transfers: after.saturating_sub(before),
            unseen_transfers: after.saturating_sub(seen),
        })
    }

    /// Each block that was read must be the one that is stored.
    async fn check_inside(&self, connection: &mut PgConnection) -> Result<(), ScanError> {
        let stored: BTreeMap<BlockNumber, B256> = store::list_hashes(connection, self.chain, self.span).await?;
        let differs = |block: &&NewBlock| stored.get(&block.link.block.number) != Some(&block.link.block.hash);
        if let Some(other) = self.blocks.iter().find(differs) {
            return Err(self.moved(format!("{} is not the block that is stored at its height", other.link.block)));
        }
        let looked: Vec<BlockNumber> =
            self.blocks.iter().filter(|block| block.internal_read).map(|block| block.link.block.number).collect();
        Ok(store::set_internal_read(connection, self.chain, &looked).await?)
    }

    /// Puts the chunk under the first stored block, whose parent must be the chunk's highest.
    async fn extend(&self, connection: &mut PgConnection, first: BlockNumber) -> Result<(), ScanError> {
        let parent = store::find_parent(connection, self.chain, first).await?;
        let top = self.blocks.last().map(|block| block.link.block);
        if parent.is_none() || top.map(|block| block.hash) != parent {
            let top = top.map_or_else(|| "nothing".to_owned(), |block| block.to_string());
            return Err(self.moved(format!("{top} is not the parent of the first stored block, {first}")));
        }
        let threshold = settings::store::get_threshold(connection, self.chain).await?;
        lines::insert_blocks(connection, self.chain, &self.blocks, threshold.history_id).await?;
        Ok(store::lower_start(connection, self.chain, first, self.span.from).await?)
    }

    fn moved(&self, what: String) -> ScanError {
        ScanError::Moved { chain: self.chain, what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(from: u64, to: u64, start: u64, step: u32) -> Vec<(u64, u64)> {
        let span = Span { from: BlockNumber(from), to: BlockNumber(to) };
        chunks(span, BlockNumber(start), step).into_iter().map(|part| (part.from.0, part.to.0)).collect()
    }

    #[test]
    fn w4_chunks_go_up_inside_the_line_and_down_below_it() {
        assert_eq!(parts(10, 14, 5, 2), [(10, 11), (12, 13), (14, 14)]);
        assert_eq!(parts(0, 4, 5, 2), [(3, 4), (1, 2), (0, 0)]);
        assert_eq!(parts(3, 7, 5, 2), [(5, 6), (7, 7), (3, 4)]);
        assert_eq!(parts(3, 3, 5, 2), [(3, 3)], "a gap, which the scanner refuses");
        assert!(parts(7, 6, 5, 2).is_empty());
        assert_eq!(parts(0, 0, 0, 500), [(0, 0)]);
    }
}
