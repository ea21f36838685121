//! The rule that turns a sighting into a credit, pure.

use alloy::primitives::B256;

use crate::settings::Threshold;
use crate::units::{BlockRef, Confirmations, Depth, depth_of};

/// A sighting and what is stored about its chain.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The block that showed the transfer.
    pub block: BlockRef,
    /// The stored tip.
    pub head: BlockRef,
    /// In force when the block was first stored.
    pub seen: Threshold,
    /// In force now.
    pub now: Threshold,
}

/// What the node says in this round.
#[derive(Clone, Copy, Debug)]
pub struct Evidence {
    /// The hash of its block at the sighting's height; `None` when it is not that high.
    pub canonical: Option<B256>,
    /// Whether the transaction succeeded, and in which block; `None` without a receipt.
    pub receipt: Option<(bool, BlockRef)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not deep enough. `have` is `None` while the tip is below the block.
    Waiting {
        have: Option<Depth>,
        need: Confirmations,
    },
    Confirmed {
        depth: Depth,
        threshold: Confirmations,
        seen_history_id: i64,
        now_history_id: i64,
    },
    /// The node no longer has the transfer where we saw it. The scanner will record that.
    Orphaned,
}

impl Case {
    pub fn depth(&self) -> Option<Depth> {
        depth_of(self.block.number, self.head.number)
    }

    /// The larger threshold.
    pub fn required(&self) -> Confirmations {
        self.seen.value.max(self.now.value)
    }

    /// Whether it is worth asking the node.
    pub fn is_deep_enough(&self) -> bool {
        self.depth().is_some_and(|depth| self.required().reached_by(depth))
    }
}

pub fn decide(case: &Case, evidence: &Evidence) -> Verdict {
    let threshold = case.required();
    let Some(depth) = case.depth().filter(|depth| threshold.reached_by(*depth)) else {
        return Verdict::Waiting { have: case.depth(), need: threshold };
    };
    if evidence.canonical != Some(case.block.hash) || evidence.receipt != Some((true, case.block)) {
        return Verdict::Orphaned;
    }
    Verdict::Confirmed { depth, threshold, seen_history_id: case.seen.history_id, now_history_id: case.now.history_id }
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
            let case = Case { block, head: at(head, 7), seen: threshold(1, seen), now: threshold(2, now) };
            let found = decide(&case, &evidence);
            println!("{name:<36} {found:?}");
            assert_eq!(found, expected, "{name}");
            assert_eq!(case.is_deep_enough(), !matches!(expected, Verdict::Waiting { .. }), "{name}");
        }
    }
}
