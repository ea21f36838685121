//! Nonces of our addresses against the chain: one that somebody else used, and holes that hold others up. Pure.

pub mod store;
mod worker;

pub use worker::NonceWatch;

use std::collections::BTreeMap;

/// How many holes one look names, and how far below the chain's count it looks for a foreign use.
const SPAN: u64 = 100;

/// What stands at a nonce of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No signature can exist, or none that we have.
    Unsigned,
    /// Bytes of ours are stored.
    Signed,
}

/// What a look finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Nonces that the chain has used and we have signed nothing for: somebody else has the key.
    pub foreign: Vec<u64>,
    /// Nonces that nothing is signed for, below one that is: what is above them waits, whatever it pays.
    pub holes: Vec<u64>,
}

/// Compares the chain's count of an address with its nonces, of which `taken` holds the newest without a gap in
/// the listing. Before the first of ours nothing is foreign: the address may be older than this installation.
pub fn look(chain_count: u64, taken: &BTreeMap<u64, Taken>) -> Found {
    let Some(first) = taken.keys().next().copied() else { return Found::default() };
    let signed = |nonce: &u64| taken.get(nonce) == Some(&Taken::Signed);
    let used = first.max(chain_count.saturating_sub(SPAN))..chain_count;
    let foreign = used.filter(|nonce| !signed(nonce)).collect();
    let highest = taken.iter().rev().find(|(_, taken)| **taken == Taken::Signed).map_or(chain_count, |(nonce, _)| *nonce);
    let holes = (chain_count..highest).take(usize::try_from(SPAN).unwrap_or(usize::MAX)).filter(|nonce| !signed(nonce)).collect();
    Found { foreign, holes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_foreign_uses_and_holes() {
        use Taken::{Signed as S, Unsigned as U};
        for (count, taken, foreign, holes) in [
            (0, vec![], vec![], vec![]),
            // Older than this installation.
            (7, vec![], vec![], vec![]),
            (7, vec![(7, U)], vec![], vec![]),
            (7, vec![(7, S)], vec![], vec![]),
            // Ours were mined.
            (9, vec![(7, S), (8, S)], vec![], vec![]),
            // Somebody used what is still to be signed, or what we never had.
            (8, vec![(7, U)], vec![7], vec![]),
            (10, vec![(7, S), (8, S)], vec![9], vec![]),
            (9, vec![(7, S), (9, S)], vec![8], vec![]),
            // Held up by what nobody signed.
            (7, vec![(7, U), (8, S)], vec![], vec![7]),
            (7, vec![(8, S), (10, S), (11, U)], vec![], vec![7, 9]),
        ] {
            let taken: BTreeMap<u64, Taken> = taken.into_iter().collect();
            assert_eq!(look(count, &taken), Found { foreign, holes }, "{count} {taken:?}");
        }
        let far: BTreeMap<u64, Taken> = [(0, S), (1_000_000, S)].into();
        assert_eq!(look(1, &far).holes.len(), 100, "bounded");
    }
}
