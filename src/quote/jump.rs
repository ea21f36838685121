//! The jump guard: a price that moved far since the last one is taken only if enough families say so, or if
//! the next round says so again. A lone venue's misprint does not last that long.

use alloy::primitives::U256;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::chains::PairKind;
use crate::units::{BPS, UsdRate};

/// A price at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub price: UsdRate,
    pub at_s: i64,
}

/// What the guard remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JumpMemory {
    /// The last price that was taken.
    pub accepted: Option<Mark>,
    /// One that waits for a second round.
    pub candidate: Option<Mark>,
}

/// A price and how well it is founded.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub mark: Mark,
    /// Families that agree.
    pub families: u32,
    /// Whether they are as close as in calm times.
    pub close: bool,
}

/// Three families need no second round.
const FAMILIES_ENOUGH: u32 = 3;

impl JumpMemory {
    /// The memory afterwards, and whether the price is taken.
    pub fn judge(self, kind: PairKind, seen: Move, limits: &Limits) -> (Self, bool) {
        let Move { mark, families, close } = seen;
        let limit_bps = if kind == PairKind::Stable { limits.jump_stable_bps } else { limits.jump_bps };
        let fresh = self.accepted.filter(|last| mark.at_s.saturating_sub(last.at_s) <= i64::from(limits.jump_memory_s));
        let plain = fresh.is_some_and(|last| is_near(mark.price, last.price, limit_bps));
        let founded = fresh.is_some() && families >= FAMILIES_ENOUGH && close;
        if plain || founded || self.confirms(mark, limits) {
            return (Self { accepted: Some(mark), candidate: None }, true);
        }
        // A candidate that is still young and near keeps its instant, so that asking often does not
        // put the second round off for ever.
        let kept = self.candidate.filter(|candidate| {
            let age_s = mark.at_s.saturating_sub(candidate.at_s);
            (0..i64::from(limits.jump_confirm_min_s)).contains(&age_s) && is_near(mark.price, candidate.price, limits.jump_confirm_bps)
        });
        (Self { candidate: Some(kept.unwrap_or(mark)), ..self }, false)
    }

    fn confirms(self, mark: Mark, limits: &Limits) -> bool {
        self.candidate.is_some_and(|candidate| {
            let age_s = mark.at_s.saturating_sub(candidate.at_s);
            let span = i64::from(limits.jump_confirm_min_s)..=i64::from(limits.jump_confirm_max_s);
            span.contains(&age_s) && is_near(mark.price, candidate.price, limits.jump_confirm_bps)
        })
    }
}

/// Whether a price is within so much of another; equal is inside.
fn is_near(price: UsdRate, of: UsdRate, limit_bps: u32) -> bool {
    price.scaled().abs_diff(of.scaled()) * U256::from(BPS) <= of.scaled() * U256::from(limit_bps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(price: &str, at_s: i64, families: u32, close: bool) -> Move {
        Move { mark: Mark { price: price.parse().unwrap(), at_s }, families, close }
    }

    fn memory(price: &str, at_s: i64) -> JumpMemory {
        JumpMemory { accepted: Some(Mark { price: price.parse().unwrap(), at_s }), candidate: None }
    }

    #[test]
    fn q3_a_jump_waits_for_a_third_family_or_a_second_round() {
        let limits = Limits::default();
        let judge = |memory: JumpMemory, seen| memory.judge(PairKind::Stable, seen, &limits);
        assert!(judge(memory("1", 0), seen("0.98", 60, 2, true)).1, "exactly at the limit");
        assert!(judge(memory("1", 0), seen("0.97", 60, 3, true)).1);
        let (waiting, taken) = judge(memory("1", 0), seen("0.979", 60, 3, false));
        assert!(!taken);
        assert!(!judge(waiting, seen("0.979", 74, 2, true)).1, "one second too early");
        assert!(judge(waiting, seen("0.979", 75, 2, true)).1);
        assert!(judge(waiting, seen("0.98", 180, 2, true)).1);
        let (later, taken) = judge(waiting, seen("0.9", 75, 2, true));
        assert!(!taken, "another price confirms nothing");
        assert_eq!(later.candidate.unwrap().price.to_string(), "0.900000000000000000");
        assert!(!judge(waiting, seen("0.979", 181, 2, true)).1, "too late");
        // Asked in between, the first instant stands.
        let (asked, _) = judge(waiting, seen("0.979", 65, 2, true));
        assert_eq!(asked, waiting);
    }

    #[test]
    fn q3_after_a_start_or_a_gap_the_first_price_needs_two_rounds() {
        let limits = Limits::default();
        let (first, taken) = JumpMemory::default().judge(PairKind::Stable, seen("1", 0, 5, true), &limits);
        assert!(!taken);
        assert!(first.judge(PairKind::Stable, seen("1", 20, 2, true), &limits).1);
        assert!(memory("1", 0).judge(PairKind::Stable, seen("1", 600, 2, true), &limits).1);
        assert!(!memory("1", 0).judge(PairKind::Stable, seen("1", 601, 2, true), &limits).1);
        // What is no stablecoin may move further.
        assert!(memory("1000", 0).judge(PairKind::Coin, seen("1050", 60, 2, true), &limits).1);
        assert!(!memory("1000", 0).judge(PairKind::Coin, seen("1051", 60, 2, true), &limits).1);
    }
}
