//! Places in a chain. A block is number and hash; heights subtract to a depth and never add.

use std::fmt;

use alloy::primitives::B256;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockNumber(pub u64);

impl BlockNumber {
    /// The height above this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The height as Postgres keeps it; heights above 2^63 - 1 are refused when a block is read.
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }
}

impl From<i64> for BlockNumber {
    fn from(number: i64) -> Self {
        Self(number.cast_unsigned())
    }
}

impl fmt::Display for BlockNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in a chain: a number alone is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockRef {
    pub number: BlockNumber,
    pub hash: B256,
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block {} ({})", self.number, self.hash)
    }
}

/// How many blocks confirm a transaction, its own block being the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Depth(pub u64);

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The depth of a block under a head; `None` when the head is below it.
///
/// The block that includes a transaction is its first confirmation, so depth = head - block + 1:
/// the only place where this one is added.
pub fn depth_of(including: BlockNumber, head: BlockNumber) -> Option<Depth> {
    head.0.checked_sub(including.0).map(|distance| Depth(distance + 1))
}

/// A confirmation threshold: 1 to 10,000 blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Confirmations(u32);

impl Confirmations {
    pub const MAX: u32 = 10_000;

    pub fn new(blocks: i64) -> Result<Self, ConfirmationsError> {
        match u32::try_from(blocks) {
            Ok(blocks) if (1..=Self::MAX).contains(&blocks) => Ok(Self(blocks)),
            Ok(_) | Err(_) => Err(ConfirmationsError { blocks }),
        }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    pub fn reached_by(self, depth: Depth) -> bool {
        depth.0 >= u64::from(self.0)
    }
}

impl fmt::Display for Confirmations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("confirmation threshold {blocks} is outside 1 to {max}: 0 would credit money that no block holds", max = Confirmations::MAX)]
pub struct ConfirmationsError {
    pub blocks: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w3_the_including_block_is_the_first_confirmation() {
        let block = BlockNumber(100);
        assert_eq!(depth_of(block, BlockNumber(99)), None);
        assert_eq!(depth_of(block, BlockNumber(100)), Some(Depth(1)));
        assert_eq!(depth_of(block, BlockNumber(102)), Some(Depth(3)));
        let three = Confirmations::new(3).unwrap();
        assert!(!three.reached_by(Depth(2)));
        assert!(three.reached_by(Depth(3)));
    }

    #[test]
    fn thresholds_outside_one_to_ten_thousand_are_refused() {
        for bad in [i64::MIN, -1, 0, 10_001, i64::MAX] {
            assert_eq!(Confirmations::new(bad), Err(ConfirmationsError { blocks: bad }));
        }
        assert!(Confirmations::new(1).is_ok());
        assert!(Confirmations::new(10_000).is_ok());
    }
}
