//! The jump guard: a price that moved far since the last one is taken only if enough families say so, or if
//! the next round says so again. A lone venue's misprint does not last that long.
//!
//! After a start, or after ten minutes in which nobody listened, the first price needs two rounds. Sources that are
//! heard but too few or too far apart for a price are no such gap: the last accepted price stays the measure, and
//! what one of them said in the round before counts as the first of the two rounds.

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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JumpMemory {
    /// The last price that was taken.
    pub accepted: Option<Mark>,
    /// One that waits for a second round.
    pub candidate: Option<Mark>,
    /// The last round in which sources were listened to, whether or not they made a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard: Option<Heard>,
}

/// A round, and what those said in it that were let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    pub at_s: i64,
    pub prices: Vec<UsdRate>,
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
    pub fn judge(&self, kind: PairKind, seen: Move, limits: &Limits) -> (Self, bool) {
        let Move { mark, families, close } = seen;
        let limit_bps = if kind == PairKind::Stable { limits.jump_stable_bps } else { limits.jump_bps };
        let is_recent = |at_s: i64| mark.at_s.saturating_sub(at_s) <= i64::from(limits.jump_memory_s);
        let recent = self.accepted.filter(|last| is_recent(last.at_s));
        let listening = self.heard.as_ref().is_some_and(|heard| is_recent(heard.at_s));
        let last = recent.or(self.accepted.filter(|_| listening));
        let plain = last.is_some_and(|last| is_near(mark.price, last.price, limit_bps));
        let founded = last.is_some() && families >= FAMILIES_ENOUGH && close;
        let told = recent.is_none() && last.is_some() && self.was_told(mark, limits);
        if plain || founded || told || self.confirms(mark, limits) {
            return (Self { accepted: Some(mark), candidate: None, heard: self.heard.clone() }, true);
        }
        // A candidate that is still young and near keeps its instant, so that asking often does not
        // put the second round off for ever.
        let kept = self.candidate.filter(|candidate| {
            let age_s = mark.at_s.saturating_sub(candidate.at_s);
            (0..i64::from(limits.jump_confirm_min_s)).contains(&age_s) && is_near(mark.price, candidate.price, limits.jump_confirm_bps)
        });
        (Self { candidate: Some(kept.unwrap_or(mark)), ..self.clone() }, false)
    }

    /// Notes what a round heard. Where nobody listened for long, what was accepted before is no measure any more.
    #[must_use]
    pub fn listen(self, heard: Heard, limits: &Limits) -> Self {
        let is_recent = |at_s: i64| heard.at_s.saturating_sub(at_s) <= i64::from(limits.jump_memory_s);
        let listening = self.heard.as_ref().is_some_and(|before| is_recent(before.at_s));
        let accepted = self.accepted.filter(|last| listening || is_recent(last.at_s));
        Self { accepted, heard: Some(heard), ..self }
    }

    /// As a quote sees it. It looks at what the last round heard, and so it is no second round itself.
    #[must_use]
    pub fn without_rounds(self) -> Self {
        let heard = self.heard.map(|heard| Heard { prices: Vec::new(), ..heard });
        Self { candidate: None, heard, ..self }
    }

    fn confirms(&self, mark: Mark, limits: &Limits) -> bool {
        self.candidate.is_some_and(|candidate| {
            is_second(candidate.at_s, mark, limits) && is_near(mark.price, candidate.price, limits.jump_confirm_bps)
        })
    }

    /// Whether a source said nearly so in the round before.
    fn was_told(&self, mark: Mark, limits: &Limits) -> bool {
        self.heard.as_ref().is_some_and(|heard| {
            let near = |told: &UsdRate| is_near(mark.price, *told, limits.jump_confirm_bps);
            is_second(heard.at_s, mark, limits) && heard.prices.iter().any(near)
        })
    }
}

/// Whether a round is far enough from the one before to confirm it, and not too far.
fn is_second(first_s: i64, mark: Mark, limits: &Limits) -> bool {
    let span = i64::from(limits.jump_confirm_min_s)..=i64::from(limits.jump_confirm_max_s);
    span.contains(&mark.at_s.saturating_sub(first_s))
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
        JumpMemory { accepted: Some(Mark { price: price.parse().unwrap(), at_s }), ..JumpMemory::default() }
    }

    #[test]
    fn q3_a_jump_waits_for_a_third_family_or_a_second_round() {
        let limits = Limits::default();
        let judge = |memory: &JumpMemory, seen| memory.judge(PairKind::Stable, seen, &limits);
        assert!(judge(&memory("1", 0), seen("0.98", 60, 2, true)).1, "exactly at the limit");
        assert!(judge(&memory("1", 0), seen("0.97", 60, 3, true)).1);
        let (waiting, taken) = judge(&memory("1", 0), seen("0.979", 60, 3, false));
        assert!(!taken);
        assert!(!judge(&waiting, seen("0.979", 74, 2, true)).1, "one second too early");
        assert!(judge(&waiting, seen("0.979", 75, 2, true)).1);
        assert!(judge(&waiting, seen("0.98", 180, 2, true)).1);
        let (later, taken) = judge(&waiting, seen("0.9", 75, 2, true));
        assert!(!taken, "another price confirms nothing");
        assert_eq!(later.candidate.unwrap().price.to_string(), "0.900000000000000000");
        assert!(!judge(&waiting, seen("0.979", 181, 2, true)).1, "too late");
        // Asked in between, the first instant stands.
        let (asked, _) = judge(&waiting, seen("0.979", 65, 2, true));
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

    fn heard(memory: JumpMemory, at_s: i64, prices: &[&str]) -> JumpMemory {
        let prices = prices.iter().map(|price| price.parse().unwrap()).collect();
        memory.listen(Heard { at_s, prices }, &Limits::default())
    }

    #[test]
    fn q3_while_sources_are_heard_the_last_price_stays_the_measure() {
        let limits = Limits::default();
        let taken = |memory: &JumpMemory, seen| memory.judge(PairKind::Stable, seen, &limits).1;
        // One source alone for eleven minutes: there is no price, and no gap either.
        let lone = (1..=11).fold(memory("1", 0), |memory, minute| heard(memory, minute * 60, &["0.95"]));
        assert!(taken(&lone, seen("0.98", 720, 2, true)), "within the limit of what was accepted");
        assert!(!taken(&lone, seen("0.979", 720, 2, true)), "a jump that nobody told of before");
        // What it said a round before is the first of two rounds, at both edges of time and of price.
        assert!(taken(&lone, seen("0.9595", 675, 2, true)));
        assert!(!taken(&lone, seen("0.9595", 674, 2, true)));
        assert!(taken(&lone, seen("0.9405", 780, 2, true)));
        assert!(!taken(&lone, seen("0.9405", 781, 2, true)));
        assert!(!taken(&lone, seen("0.940499999999999999", 720, 2, true)));
        // Inside of the ten minutes, a move needs a round of its own as before.
        assert!(!taken(&heard(memory("1", 0), 60, &["0.95"]), seen("0.95", 90, 2, true)));
        // A quote looks at the same answers again: it confirms nothing.
        assert!(!taken(&lone.clone().without_rounds(), seen("0.9595", 720, 2, true)));
        assert!(taken(&lone.without_rounds(), seen("0.99", 720, 2, true)));
        // Ten minutes in which nobody listened are a gap: what is heard then comes without a past.
        let gap = heard(memory("1", 0), 601, &["1"]);
        assert_eq!(gap.accepted, None);
        assert!(!taken(&gap, seen("1", 661, 2, true)));
        assert!(taken(&heard(memory("1", 0), 600, &["1"]), seen("1", 1_200, 2, true)));
    }
}
