//! Ceremonies under way: what was asked of a passkey and not answered yet.
//!
//! Kept in the process and nowhere else: a restart ends them, and nobody can bring one from outside. Each is
//! answered once. Their number is bounded; where they are full, the oldest gives way.

use std::collections::{HashMap, VecDeque};

use time::{Duration, OffsetDateTime};

/// As long as a browser waits for a person.
const LIVES: Duration = Duration::minutes(5);

pub(in crate::console) type CeremonyId = [u8; 16];

/// Questions of one sort.
#[derive(Debug)]
pub(in crate::console) struct Ceremonies<T> {
    max: usize,
    waiting: HashMap<CeremonyId, (OffsetDateTime, T)>,
    /// Oldest first; may name some that are gone.
    order: VecDeque<(OffsetDateTime, CeremonyId)>,
}

impl<T> Ceremonies<T> {
    pub(in crate::console) fn new(max: usize) -> Self {
        Self { max, waiting: HashMap::new(), order: VecDeque::new() }
    }

    pub(in crate::console) fn put(&mut self, id: CeremonyId, asked: T, now: OffsetDateTime) {
        // Ends: each turn takes one away.
        while let Some((at, oldest)) = self.order.front().copied() {
            let gone = !self.waiting.contains_key(&oldest);
            if !gone && at + LIVES > now && self.order.len() < self.max {
                break;
            }
            self.order.pop_front();
            self.waiting.remove(&oldest);
        }
        self.waiting.insert(id, (now, asked));
        self.order.push_back((now, id));
    }

    /// The question, if it was asked and not answered; never a second time.
    pub(in crate::console) fn take(&mut self, id: CeremonyId, now: OffsetDateTime) -> Option<T> {
        let (at, asked) = self.waiting.remove(&id)?;
        (at + LIVES > now && at <= now).then_some(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds)
    }

    #[test]
    fn s6_a_ceremony_is_answered_once_and_in_time() {
        let mut ceremonies = Ceremonies::new(4);
        ceremonies.put([1; 16], "one", at(0));
        ceremonies.put([2; 16], "two", at(1));
        assert_eq!(ceremonies.take([1; 16], at(10)), Some("one"));
        assert_eq!(ceremonies.take([1; 16], at(10)), None, "twice");
        assert_eq!(ceremonies.take([2; 16], at(301)), None, "too late");
        assert_eq!(ceremonies.take([3; 16], at(1)), None, "never asked");
    }

    #[test]
    fn what_nobody_answers_takes_no_room() {
        let mut ceremonies = Ceremonies::new(4);
        for number in 0..100_u8 {
            ceremonies.put([number; 16], number, at(i64::from(number)));
            assert!(ceremonies.waiting.len() <= 4 && ceremonies.order.len() <= 4);
        }
        assert_eq!(ceremonies.take([99; 16], at(99)), Some(99));
        assert_eq!(ceremonies.take([95; 16], at(99)), None, "the oldest gave way");
    }
}
