//! Nonces of our addresses against the chain: one that somebody else used, and holes that hold others up. Pure.

pub mod store;
mod worker;

pub use worker::NonceWatch;

use std::collections::BTreeMap;

use crate::intent::plan::NONCES_SPAN;

/// What stands at a nonce of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No signature can exist, or none that we have.
    Unsigned,
    /// Bytes of ours are stored.
    Signed,
}

/// Nonces that nothing is signed for, below one that is: what is above them waits, whatever it pays. `taken` holds
/// the newest nonces of an address without a gap in the listing.
pub fn holes(chain_count: u64, taken: &BTreeMap<u64, Taken>) -> Vec<u64> {
    let signed = |nonce: &u64| taken.get(nonce) == Some(&Taken::Signed);
    let highest = taken.iter().rev().find(|(_, taken)| **taken == Taken::Signed).map_or(chain_count, |(nonce, _)| *nonce);
    (chain_count..highest).take(usize::try_from(NONCES_SPAN).unwrap_or(usize::MAX)).filter(|nonce| !signed(nonce)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s7_holes() {
        use Taken::{Signed as S, Unsigned as U};
        for (count, taken, expected) in [
            (0, vec![], vec![]),
            (7, vec![], vec![]),
            (7, vec![(7, U)], vec![]),
            (7, vec![(7, S)], vec![]),
            // Ours were mined.
            (9, vec![(7, S), (8, S)], vec![]),
            // Used below, which is not a hole.
            (8, vec![(7, U)], vec![]),
            (9, vec![(7, S), (9, S)], vec![]),
            // Held up by what nobody signed.
            (7, vec![(7, U), (8, S)], vec![7]),
            (7, vec![(8, S), (10, S), (11, U)], vec![7, 9]),
        ] {
            let taken: BTreeMap<u64, Taken> = taken.into_iter().collect();
            assert_eq!(holes(count, &taken), expected, "{count} {taken:?}");
        }
        let far: BTreeMap<u64, Taken> = [(0, S), (1_000_000, S)].into();
        assert_eq!(holes(1, &far).len(), 100, "bounded");
    }
}
