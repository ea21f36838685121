//! The decision about the chain's tip, pure: what is stored against what the node shows.
//!
//! The stored line moves only onto a block whose parent it holds. When the node's branch does not link,
//! the caller walks it back by parent hash, one header at a time, until it does or until the written
//! bound is reached. Deeper than the bound is no loop and no guess: a person decides.

use alloy::primitives::B256;

use crate::units::{BlockNumber, BlockRef};

/// A block and the hash of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub block: BlockRef,
    pub parent_hash: B256,
}

/// The newest part of the stored line: unbroken, ascending, ending in the tip.
#[derive(Clone, Debug)]
pub struct StoredLine {
    blocks: Vec<BlockRef>,
    /// The line begins here and was never longer: there is no older block to compare with.
    whole: bool,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored line of blocks is empty or has a gap above {after:?}")]
pub struct BrokenLine {
    pub after: Option<BlockRef>,
}

impl StoredLine {
    /// `start` is the first block that was ever stored of this chain.
    pub fn new(blocks: Vec<BlockRef>, start: BlockNumber) -> Result<Self, BrokenLine> {
        let Some(first) = blocks.first() else { return Err(BrokenLine { after: None }) };
        let whole = first.number == start;
        match blocks.windows(2).find(|pair| pair[0].number.next() != pair[1].number) {
            Some(pair) => Err(BrokenLine { after: Some(pair[0]) }),
            None => Ok(Self { blocks, whole }),
        }
    }

    pub fn tip(&self) -> BlockRef {
        *self.blocks.last().expect("the constructor refuses an empty line")
    }

    fn lowest(&self) -> BlockRef {
        self.blocks[0]
    }

    /// The stored block at a height.
    fn at(&self, number: BlockNumber) -> Option<BlockRef> {
        let offset = number.0.checked_sub(self.lowest().number.0)?;
        self.blocks.get(usize::try_from(offset).ok()?).copied()
    }
}

/// What the node's branch means for the stored line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipChange {
    /// The node's head is the stored tip.
    Same,
    /// The node's head is below the stored tip: it lags, or its chain got shorter. Nothing is undone
    /// until its branch is as high as ours.
    Behind { by: u64 },
    /// The branch goes on from the stored tip; `seen[from..]` is new.
    Extend { from: usize },
    /// The branch leaves the stored line. Everything stored above the ancestor is orphaned; without an
    /// ancestor the first block ever stored is replaced too. `seen[from..]` is new.
    Reorg { ancestor: Option<BlockRef>, depth: u64, from: usize },
    /// The branch does not link yet: put the header with this hash before it and ask again.
    NeedParent { hash: B256 },
    /// No common block down to the bound.
    TooDeep { searched_to: BlockNumber },
    /// The branch itself does not hang together.
    Broken { at: BlockRef },
}

/// Compares the stored line with a branch: ascending, at least one block.
///
/// # Panics
/// When `seen` is empty.
pub fn advance(stored: &StoredLine, seen: &[Link]) -> TipChange {
    let (first, last) = (seen[0], seen[seen.len() - 1]);
    if let Some(pair) = seen.windows(2).find(|pair| !follows(pair[0].block, pair[1])) {
        return TipChange::Broken { at: pair[1].block };
    }
    let tip = stored.tip();
    if last.block == tip {
        return TipChange::Same;
    }
    if last.block.number < tip.number {
        return TipChange::Behind { by: tip.number.0 - last.block.number.0 };
    }
    // The branch may begin with blocks that are stored.
    let from = seen.iter().take_while(|link| stored.at(link.block.number) == Some(link.block)).count();
    let ancestor = match from.checked_sub(1) {
        Some(shared) => Some(seen[shared].block),
        None => first
            .block
            .number
            .0
            .checked_sub(1)
            .and_then(|below| stored.at(BlockNumber(below)))
            .filter(|below| below.hash == first.parent_hash),
    };
    match ancestor {
        Some(ancestor) if ancestor == tip => TipChange::Extend { from },
        Some(ancestor) => TipChange::Reorg { ancestor: Some(ancestor), depth: tip.number.0 - ancestor.number.0, from },
        None if first.block.number > stored.lowest().number => TipChange::NeedParent { hash: first.parent_hash },
        None if first.block.number == stored.lowest().number && stored.whole => {
            TipChange::Reorg { ancestor: None, depth: tip.number.0 - first.block.number.0 + 1, from: 0 }
        }
        None => TipChange::TooDeep { searched_to: stored.lowest().number },
    }
}

/// Whether `next` is the block after `block`.
pub fn follows(block: BlockRef, next: Link) -> bool {
    next.block.number == block.number.next() && next.parent_hash == block.hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block n of a branch: `hash(1, 7)` is block 7 of branch 1.
    fn hash(branch: u8, number: u64) -> B256 {
        let mut bytes = [branch; 32];
        bytes[24..].copy_from_slice(&number.to_be_bytes());
        B256::from(bytes)
    }

    fn block(branch: u8, number: u64) -> BlockRef {
        BlockRef { number: BlockNumber(number), hash: hash(branch, number) }
    }

    /// A run of a branch; its first block hangs on `below`.
    fn run(branch: u8, numbers: std::ops::RangeInclusive<u64>, below: u8) -> Vec<Link> {
        let first = *numbers.start();
        numbers
            .map(|number| {
                let parent = if number == first { below } else { branch };
                Link { block: block(branch, number), parent_hash: hash(parent, number.saturating_sub(1)) }
            })
            .collect()
    }

    /// Blocks 10 to 14 of branch A are stored; the line was longer once unless `whole`.
    fn line(whole: bool) -> StoredLine {
        let start = if whole { 10 } else { 3 };
        StoredLine::new((10..=14).map(|number| block(A, number)).collect(), BlockNumber(start)).unwrap()
    }

    const A: u8 = 0xa;
    const B: u8 = 0xb;
    const C: u8 = 0xc;

    #[test]
    fn w4_every_shape_of_branch_against_the_stored_line() {
        use TipChange::{Behind, Broken, Extend, NeedParent, Reorg, Same, TooDeep};
        let broken = [run(A, 15..=15, A), run(B, 16..=16, B)].concat();
        let gap = [run(A, 15..=15, A), run(A, 17..=17, A)].concat();
        let table: Vec<(&str, bool, Vec<Link>, TipChange)> = vec![
            ("the head is the tip", false, run(A, 14..=14, A), Same),
            ("a branch that ends in the tip", false, run(A, 12..=14, A), Same),
            ("the head is one lower", false, run(A, 13..=13, A), Behind { by: 1 }),
            ("the head is lower, on a fork", false, run(B, 13..=13, A), Behind { by: 1 }),
            ("the head is below the line", false, run(A, 2..=2, A), Behind { by: 12 }),
            ("one new block", false, run(A, 15..=15, A), Extend { from: 0 }),
            ("three new blocks", false, run(A, 15..=17, A), Extend { from: 0 }),
            ("the same height replaced", false, run(B, 14..=14, A), Reorg { ancestor: Some(block(A, 13)), depth: 1, from: 0 }),
            ("the tip replaced, one higher", false, run(B, 14..=15, A), Reorg { ancestor: Some(block(A, 13)), depth: 1, from: 0 }),
            ("only the new block is known", false, run(B, 15..=15, B), NeedParent { hash: hash(B, 14) }),
            ("a fork at 14, its parent unknown", false, run(B, 14..=15, B), NeedParent { hash: hash(B, 13) }),
            ("a fork from 11 on", false, run(B, 11..=15, A), Reorg { ancestor: Some(block(A, 10)), depth: 4, from: 0 }),
            (
                "a fork that is shown with the blocks below it",
                false,
                [run(A, 11..=12, A), run(B, 13..=15, A)].concat(),
                Reorg { ancestor: Some(block(A, 12)), depth: 2, from: 2 },
            ),
            ("stored blocks, then a new one", false, run(A, 13..=15, A), Extend { from: 2 }),
            ("the lowest stored block is replaced too", false, run(B, 10..=15, B), TooDeep { searched_to: BlockNumber(10) }),
            ("the same, and the line begins there", true, run(B, 10..=15, B), Reorg { ancestor: None, depth: 5, from: 0 }),
            ("deeper than the line ever was", true, run(B, 9..=15, B), TooDeep { searched_to: BlockNumber(10) }),
            ("a gap above the tip", false, run(A, 17..=17, A), NeedParent { hash: hash(A, 16) }),
            ("the branch changes sides inside", false, broken, Broken { at: block(B, 16) }),
            ("a height is missing inside", false, gap, Broken { at: block(A, 17) }),
            ("genesis of another chain", false, run(C, 0..=14, C), TooDeep { searched_to: BlockNumber(10) }),
        ];
        for (name, whole, seen, expected) in table {
            let found = advance(&line(whole), &seen);
            println!("{name:<52} {found:?}");
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_line_with_a_gap_is_not_a_line() {
        let gap = vec![block(A, 10), block(A, 12)];
        assert_eq!(StoredLine::new(gap, BlockNumber(0)).unwrap_err(), BrokenLine { after: Some(block(A, 10)) });
        assert_eq!(StoredLine::new(vec![], BlockNumber(0)).unwrap_err(), BrokenLine { after: None });
    }

    /// The caller's loop ends: each turn puts one block before the branch, down to the lowest stored one.
    #[test]
    fn w6_walking_back_ends_at_the_bound() {
        let branch = run(B, 2..=20, B);
        for whole in [false, true] {
            let mut shown = vec![branch[18]];
            let mut turns = 0;
            let end = loop {
                match advance(&line(whole), &shown) {
                    TipChange::NeedParent { hash: wanted } => {
                        let parent = *branch.iter().find(|link| link.block.hash == wanted).unwrap();
                        shown.insert(0, parent);
                    }
                    end => break end,
                }
                turns += 1;
                assert!(turns <= 10, "20 down to 10");
            };
            assert!(matches!(end, TipChange::TooDeep { .. } | TipChange::Reorg { ancestor: None, .. }), "{end:?}");
        }
    }
}
