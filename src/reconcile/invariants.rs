//! Online verification (Y8): the promises of the ledger and of sending, checked while the daemon runs, a part
//! at a time. Pure: what can be broken, and what is known of it.
//!
//! Each look is a bounded piece of work over a slice of the rows, and goes on where the last one ended, so
//! that everything is looked at in turn. `amanatd verify` looks at everything at once.

mod store;
mod worker;

pub use worker::{Auditor, Look};

use std::collections::BTreeMap;
use std::fmt;

/// What is checked, by the names of the house.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// Both sides of the books are equal in every asset.
    Conservation,
    /// A balance is the sum of its entries.
    Balance,
    /// No account is below zero.
    Overdraft,
    /// Guards, constraints and rights are as they were made.
    AppendOnly,
    /// What was sealed reads as it did.
    Sealed,
    /// A payment's claims are what its entries say.
    Payment,
    /// A reversal mirrors one entry, once.
    Reversal,
    /// A transfer is credited once.
    Credit,
    /// A nonce has one signed transaction, and those that replace it; one of them is mined.
    Nonce,
    /// An intent is settled once, for no more than it was approved for.
    Settlement,
}

impl Invariant {
    pub const ALL: [Self; 10] = [
        Self::Conservation,
        Self::Balance,
        Self::Overdraft,
        Self::AppendOnly,
        Self::Sealed,
        Self::Payment,
        Self::Reversal,
        Self::Credit,
        Self::Nonce,
        Self::Settlement,
    ];

    /// As in metrics and logs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Conservation => "L1",
            Self::Balance => "L2",
            Self::Overdraft => "L3",
            Self::AppendOnly => "L4",
            Self::Sealed => "L5",
            Self::Payment => "L6",
            Self::Reversal => "L7",
            Self::Credit => "W1",
            Self::Nonce => "S1",
            Self::Settlement => "S5",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub invariant: Invariant,
    /// For the officer: which row, and what is wrong with it.
    pub what: String,
}

/// What is known of each invariant. A violation stands until a whole turn over all rows has not met it again.
#[derive(Debug, Default)]
pub struct Findings {
    by_invariant: BTreeMap<Invariant, Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    /// Met in the turn that runs.
    met: u64,
    /// Met in the turn before it.
    before: u64,
    turns: u64,
}

impl Findings {
    /// Notes one slice: how many violations it had, and whether it was the last of its turn.
    pub fn note(&mut self, invariant: Invariant, violations: u64, turned: bool) {
        let turn = self.by_invariant.entry(invariant).or_default();
        turn.met += violations;
        if turned {
            turn.before = std::mem::take(&mut turn.met);
            turn.turns += 1;
        }
    }

    /// Violations that stand.
    pub fn standing(&self, invariant: Invariant) -> u64 {
        self.by_invariant.get(&invariant).map_or(0, |turn| turn.met.max(turn.before))
    }

    /// How often all rows were looked at.
    pub fn turns(&self, invariant: Invariant) -> u64 {
        self.by_invariant.get(&invariant).map_or(0, |turn| turn.turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y8_a_violation_stands_until_a_whole_turn_is_without_it() {
        let mut findings = Findings::default();
        let mut look = |violations, turned| {
            findings.note(Invariant::Balance, violations, turned);
            findings.standing(Invariant::Balance)
        };
        assert_eq!([look(0, false), look(0, true)], [0, 0]);
        assert_eq!([look(2, false), look(0, true), look(0, false)], [2, 2, 2]);
        assert_eq!([look(2, true), look(0, false), look(0, true)], [2, 2, 0]);
        assert_eq!(findings.turns(Invariant::Balance), 4);
        assert_eq!(findings.standing(Invariant::Credit), 0);
        let ids: std::collections::BTreeSet<&str> = Invariant::ALL.iter().map(|invariant| invariant.id()).collect();
        assert_eq!(ids.len(), Invariant::ALL.len());
    }
}
