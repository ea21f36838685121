//! The rule that turns a sighting into a credit, and a credit into money that may leave. Pure.

use alloy::primitives::B256;

use crate::chains::Finality;
use crate::settings::{Gate, Threshold};
use crate::units::{BlockRef, Confirmations, Depth, depth_of};

/// By what a gate judges a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// So many blocks, its own being the first.
    Depth,
    /// At or below this block, which the node has called final.
    Final(BlockRef),
}

impl Bar {
    /// Credit counts blocks. Release goes by the node's final block where the chain has a tag for it; it
    /// counts blocks where there is no tag, or the node has never answered it.
    pub fn of(gate: Gate, finality: Finality, final_block: Option<BlockRef>) -> Self {
        match (gate, finality.tag(), final_block) {
            (Gate::Release, Some(_), Some(block)) => Self::Final(block),
            (Gate::Release, None, _) | (Gate::Release, Some(_), None) | (Gate::Credit, ..) => Self::Depth,
        }
    }

    pub fn final_block(self) -> Option<BlockRef> {
        match self {
            Self::Depth => None,
            Self::Final(block) => Some(block),
        }
    }
}

/// A sighting and what is stored about its chain.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The block that showed the transfer.
    pub block: BlockRef,
    /// The stored tip.
    pub head: BlockRef,
    /// What the amount had to wait for when the block was first stored.
    pub seen: Threshold,
    /// What it has to wait for now.
    pub now: Threshold,
    pub bar: Bar,
}

/// What the node says in this round.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// The hash of its block at the sighting's height; `None` when it is not that high.
    pub canonical: Option<B256>,
    /// Whether the transaction succeeded, and in which block; `None` without a receipt.
    pub receipt: Option<(bool, BlockRef)>,
}

impl Evidence {
    /// A node that shows the transfer where it was seen: what every stored verdict rested on.
    pub fn agreeing(block: BlockRef) -> Self {
        Self { canonical: Some(block.hash), receipt: Some((true, block)) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not deep enough. `have` is `None` while the tip is below the block.
    Waiting { have: Option<Depth>, need: Confirmations },
    /// Above the block that the node calls final.
    NotFinal { final_block: BlockRef },
    Confirmed {
        depth: Depth,
        threshold: Confirmations,
        seen_history_id: i64,
        now_history_id: i64,
        /// The final block, where the gate went by it.
        final_block: Option<BlockRef>,
    },
    /// The node no longer has the transfer where we saw it. The scanner will record that.
    Orphaned,
}

impl Case {
    pub fn depth(&self) -> Option<Depth> {
        depth_of(self.block.number, self.head.number)
    }

    /// The larger threshold: a rise protects what is pending, a fall touches only later blocks.
    pub fn required(&self) -> Confirmations {
        self.seen.value.max(self.now.value)
    }

    /// Whether it is worth asking the node.
    pub fn is_deep_enough(&self) -> bool {
        self.depth().is_some_and(|depth| self.is_reached_at(depth))
    }

    fn is_reached_at(&self, depth: Depth) -> bool {
        match self.bar {
            Bar::Depth => self.required().reached_by(depth),
            Bar::Final(block) => self.block.number <= block.number,
        }
    }
}

pub fn decide(case: &Case, evidence: &Evidence) -> Verdict {
    let threshold = case.required();
    let Some(depth) = case.depth().filter(|depth| case.is_reached_at(*depth)) else {
        return match case.bar {
            Bar::Final(final_block) if case.depth().is_some() => Verdict::NotFinal { final_block },
            Bar::Final(_) | Bar::Depth => Verdict::Waiting { have: case.depth(), need: threshold },
        };
    };
    if evidence.canonical != Some(case.block.hash) || evidence.receipt != Some((true, case.block)) {
        return Verdict::Orphaned;
    }
    let final_block = case.bar.final_block();
    Verdict::Confirmed { depth, threshold, seen_history_id: case.seen.history_id, now_history_id: case.now.history_id, final_block }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BlockNumber;

    fn at(number: u64, byte: u8) -> BlockRef {
        BlockRef { number: BlockNumber(number), hash: B256::repeat_byte(byte) }
    }

    fn threshold(history_id: i64, blocks: i64) -> Threshold {
        Threshold { history_id, value: Confirmations::new(blocks).unwrap() }
    }

    #[test]
    fn w3_every_combination_of_depth_thresholds_and_evidence() {
        let block = at(100, 1);
        let fine = Evidence { canonical: Some(block.hash), receipt: Some((true, block)) };
        let confirmed = |depth, blocks: i64| Verdict::Confirmed {
            depth: Depth(depth),
            threshold: Confirmations::new(blocks).unwrap(),
            seen_history_id: 1,
            now_history_id: 2,
            final_block: None,
        };
        let waiting = |have: u64, need: i64| Verdict::Waiting { have: Some(Depth(have)), need: Confirmations::new(need).unwrap() };
        let not_that_high = Verdict::Waiting { have: None, need: Confirmations::new(3).unwrap() };
        let table = [
            ("the tip is below the block", 99, 3, 3, fine, not_that_high),
            ("the including block is depth 1", 100, 3, 3, fine, waiting(1, 3)),
            ("one short", 101, 3, 3, fine, waiting(2, 3)),
            ("exactly deep enough", 102, 3, 3, fine, confirmed(3, 3)),
            ("deeper", 110, 3, 3, fine, confirmed(11, 3)),
            ("threshold of one", 100, 1, 1, fine, confirmed(1, 1)),
            ("raised while waiting", 102, 3, 5, fine, waiting(3, 5)),
            ("raised, and reached", 104, 3, 5, fine, confirmed(5, 5)),
            ("lowered: the old one counts", 102, 5, 3, fine, waiting(3, 5)),
            ("lowered, and reached", 104, 5, 3, fine, confirmed(5, 5)),
            ("another block at that height", 102, 3, 3, Evidence { canonical: Some(B256::repeat_byte(9)), ..fine }, Verdict::Orphaned),
            ("the node is not that high", 102, 3, 3, Evidence { canonical: None, ..fine }, Verdict::Orphaned),
            ("no receipt", 102, 3, 3, Evidence { receipt: None, ..fine }, Verdict::Orphaned),
            ("it failed", 102, 3, 3, Evidence { receipt: Some((false, block)), ..fine }, Verdict::Orphaned),
            ("its receipt is of another block", 102, 3, 3, Evidence { receipt: Some((true, at(100, 2))), ..fine }, Verdict::Orphaned),
            ("waiting comes first", 101, 3, 3, Evidence { canonical: None, receipt: None }, waiting(2, 3)),
        ];
        for (name, head, seen, now, evidence, expected) in table {
            let case = Case { block, head: at(head, 7), seen: threshold(1, seen), now: threshold(2, now), bar: Bar::Depth };
            let found = decide(&case, &evidence);
            println!("{name:<36} {found:?}");
            assert_eq!(found, expected, "{name}");
            assert_eq!(case.is_deep_enough(), !matches!(expected, Verdict::Waiting { .. }), "{name}");
        }
    }

    #[test]
    fn w3_the_release_gate_goes_by_the_tag_where_there_is_one() {
        let named = at(90, 9);
        for gate in Gate::ALL {
            for finality in [Finality::Finalized, Finality::Safe, Finality::Depth] {
                for known in [None, Some(named)] {
                    let tagged = gate == Gate::Release && finality != Finality::Depth && known.is_some();
                    let expected = if tagged { Bar::Final(named) } else { Bar::Depth };
                    assert_eq!(Bar::of(gate, finality, known), expected, "{gate} {finality:?} {known:?}");
                }
            }
        }
    }

    #[test]
    fn w3_under_a_final_block_and_above_it() {
        let block = at(100, 1);
        let case =
            |head, named| Case { block, head: at(head, 7), seen: threshold(1, 50), now: threshold(2, 60), bar: Bar::Final(at(named, 8)) };
        let fine = Evidence::agreeing(block);
        assert_eq!(decide(&case(103, 99), &fine), Verdict::NotFinal { final_block: at(99, 8) });
        let passed = Verdict::Confirmed {
            depth: Depth(4),
            threshold: Confirmations::new(60).unwrap(),
            seen_history_id: 1,
            now_history_id: 2,
            final_block: Some(at(100, 8)),
        };
        assert_eq!(decide(&case(103, 100), &fine), passed, "exactly the final block, far from its depth");
        assert_eq!(decide(&case(103, 100), &Evidence { receipt: None, ..fine }), Verdict::Orphaned);
        let below = decide(&case(99, 100), &fine);
        assert_eq!(below, Verdict::Waiting { have: None, need: Confirmations::new(60).unwrap() }, "the tip is below the block");
    }
}
