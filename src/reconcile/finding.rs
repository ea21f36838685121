//! What is found, and where the next look begins. Pure.

use std::time::Duration;

use alloy::primitives::Address;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Line;
use crate::units::{BlockNumber, BlockRef, Confirmations};

/// A difference that was found, as it was last seen.
#[derive(Clone, Debug)]
pub struct Finding {
    pub id: i64,
    pub line: Line,
    pub at: BlockRef,
    pub first_seen_at: OffsetDateTime,
    pub last_seen_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
    pub resolution: Option<String>,
}

/// Whether a difference is news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    First,
    /// The same units are unexplained as before.
    Again,
    /// Others are.
    Changed,
}

/// A full node keeps the state of about its last 128 blocks; one of ours may be some blocks behind another.
const STATE_KEPT: u64 = 120;

/// The height at which a chain is compared with its books: as deep as the credit gate asks, and final where
/// the node names what is, so that what a short reorg takes away opens nothing. Never deeper than full nodes
/// keep the state, though: where finality or the gate is farther behind, a finding may close again by a reorg.
/// `None` while the chain is shorter than the gate is deep.
pub(super) fn compared_at(tip: BlockNumber, gate: Confirmations, final_block: Option<BlockNumber>) -> Option<BlockNumber> {
    // The block at this height has exactly as many confirmations, its own included.
    let deep = (tip.0 + 1).checked_sub(u64::from(gate.get()))?;
    let confirmed = final_block.map_or(deep, |block| block.0.min(deep));
    Some(BlockNumber(confirmed.max(tip.0.saturating_sub(STATE_KEPT))))
}

/// Whose addresses are read next. Both lists are gone through for ever, each from where the last look stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Destinations that are not swept, after this one: booked or not, money may be there.
    Unswept(Uuid),
    /// Every address that was ever booked, after this one: money may come late to one that was swept.
    Booked(Option<Address>),
}

impl Place {
    pub(super) const START: Self = Self::Unswept(Uuid::nil());

    /// The beginning of the other list.
    const fn other(self) -> Self {
        match self {
            Self::Unswept(_) => Self::Booked(None),
            Self::Booked(_) => Self::START,
        }
    }
}

/// How far the worker is: when its last look began, and what is left of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    began: Option<OffsetDateTime>,
    left: Option<Left>,
    place: Place,
}

/// What is left of a look.
#[derive(Clone, Copy, Debug)]
struct Left {
    addresses: usize,
    lists: u8,
    own: bool,
}

/// What a tick reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: the next look is not due.
    Rest,
    /// The operator's addresses, and those of open findings.
    Own,
    Page(Place),
}

impl Round {
    pub(super) const fn new() -> Self {
        Self { began: None, left: None, place: Place::START }
    }

    /// What is to be read at `now`; a look begins `every` after the last one began, or at once when the clock
    /// has gone back. `addresses` is how many one look reads besides our own, in whole pages.
    pub(super) fn step(&mut self, now: OffsetDateTime, every: Duration, addresses: usize) -> Step {
        let left = match self.left {
            Some(left) => left,
            None if self.began.is_some_and(|began| began <= now && now < began + every) => return Step::Rest,
            None => {
                self.began = Some(now);
                Left { addresses, lists: 2, own: true }
            }
        };
        self.left = Some(left);
        if left.own { Step::Own } else { Step::Page(self.place) }
    }

    /// The step was taken. `read` is how many addresses the page had, `next` where the one after it begins;
    /// `None` at the end of its list. Each list ends once in a look at most.
    pub(super) fn taken(&mut self, step: Step, read: usize, next: Option<Place>) {
        let Some(mut left) = self.left else { return };
        match step {
            Step::Rest => return,
            Step::Own => left.own = false,
            Step::Page(place) => {
                left.addresses = left.addresses.saturating_sub(read);
                if next.is_none() {
                    left.lists = left.lists.saturating_sub(1);
                }
                self.place = next.unwrap_or(place.other());
            }
        }
        self.left = (left.addresses > 0 && left.lists > 0).then_some(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2027-01-15 12:00 UTC);
    const EVERY: Duration = Duration::from_secs(300);

    #[test]
    fn w7_compared_as_deep_as_confirmed_and_as_the_state_reaches() {
        let gate = |blocks| Confirmations::new(blocks).unwrap();
        let at = |tip, blocks, last: Option<u64>| compared_at(BlockNumber(tip), gate(blocks), last.map(BlockNumber)).map(|block| block.0);
        assert_eq!(at(100, 12, None), Some(89));
        assert_eq!(at(100, 12, Some(95)), Some(89));
        assert_eq!(at(100, 12, Some(60)), Some(60));
        assert_eq!(at(11, 12, None), Some(0));
        assert_eq!(at(10, 12, None), None);
        // Polygon asks for 200 blocks, and a final block may stand still.
        assert_eq!(at(1_000, 200, None), Some(880));
        assert_eq!(at(1_000, 12, Some(700)), Some(880));
    }

    /// Two lists of so many addresses, read in pages of ten; gives what one look read.
    fn look(round: &mut Round, now: OffsetDateTime, lists: [u8; 2]) -> Vec<(u8, u8)> {
        let mut read = Vec::new();
        loop {
            let step = round.step(now, EVERY, 20);
            let (list, after) = match step {
                Step::Rest => return read,
                Step::Own => {
                    round.taken(step, 1, None);
                    continue;
                }
                Step::Page(Place::Unswept(after)) => (0, u8::try_from(after.as_u128()).unwrap()),
                Step::Page(Place::Booked(after)) => (1, after.map_or(0, |address| address.0[19])),
            };
            let end = lists[usize::from(list)].min(after + 10);
            read.push((list, end));
            let next =
                if list == 0 { Place::Unswept(Uuid::from_u128(end.into())) } else { Place::Booked(Some(Address::with_last_byte(end))) };
            round.taken(step, usize::from(end - after), (end == after + 10).then_some(next));
        }
    }

    #[test]
    fn w7_every_address_has_its_turn_and_small_lists_are_read_once_a_look() {
        let mut round = Round::new();
        assert_eq!(look(&mut round, NOW, [35, 5]), [(0, 10), (0, 20)]);
        assert_eq!(look(&mut round, NOW + EVERY - Duration::from_secs(1), [35, 5]), []);
        assert_eq!(look(&mut round, NOW + EVERY, [35, 5]), [(0, 30), (0, 35), (1, 5)]);
        assert_eq!(look(&mut round, NOW + 2 * EVERY, [35, 5]), [(0, 10), (0, 20)]);

        let mut round = Round::new();
        assert_eq!(look(&mut round, NOW, [3, 0]), [(0, 3), (1, 0)]);
        // A clock that has gone back does not stop the looking.
        assert_eq!(look(&mut round, NOW - EVERY, [3, 0]), [(0, 3), (1, 0)]);
        assert_eq!(look(&mut round, NOW - EVERY, [3, 0]), []);
    }
}
