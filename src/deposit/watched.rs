//! The set of addresses we watch, in memory: every address ever issued, because people pay to old ones.
//!
//! Pure lookups. Reading the rows is the scanner's work; this file says from when on they must be read
//! again, and what is new. An address is never taken out.

use alloy::primitives::Address;
use alloy::primitives::map::AddressSet;
use time::{Duration, OffsetDateTime};

use crate::account::store::WatchedAddress;

/// A row becomes visible when its transaction commits, which is later than the time it carries. The
/// server ends transactions long before this span.
const OVERLAP: Duration = Duration::minutes(10);

/// Addresses alone: whoever needs the row of one looks it up where it is stored.
#[derive(Debug, Default)]
pub struct WatchedSet {
    addresses: AddressSet,
    newest: Option<OffsetDateTime>,
}

impl WatchedSet {
    pub fn contains(&self, address: Address) -> bool {
        self.addresses.contains(&address)
    }

    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Rows from this time on may be new. `None`: read them all.
    ///
    /// The time is the database's and may jump, so whoever refreshes also compares [`WatchedSet::len`]
    /// with the number of rows, and reads them all when it differs.
    pub fn since(&self) -> Option<OffsetDateTime> {
        self.newest.and_then(|newest| newest.checked_sub(OVERLAP))
    }

    /// Adds what was read; rows that are known change nothing. Returns how many were new.
    pub fn extend(&mut self, rows: impl IntoIterator<Item = WatchedAddress>) -> usize {
        let before = self.addresses.len();
        let rows = rows.into_iter();
        if before == 0 {
            // All of them at once: growing step by step takes half as much memory again.
            self.addresses.reserve(rows.size_hint().0);
        }
        for row in rows {
            self.addresses.insert(row.address);
            self.newest = self.newest.max(Some(row.created_at));
        }
        self.addresses.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w9_known_rows_are_read_again_and_change_nothing() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let row = |n: u8, created_at| WatchedAddress { address: Address::repeat_byte(n), created_at };
        let mut set = WatchedSet::default();
        assert_eq!(set.since(), None, "an empty set reads everything");
        assert_eq!(set.extend([row(1, start), row(2, start + Duration::hours(1))]), 2);
        assert_eq!(set.since(), Some(start + Duration::minutes(50)));
        assert_eq!(set.extend([row(2, start + Duration::hours(1)), row(3, start)]), 1);
        assert_eq!(set.since(), Some(start + Duration::minutes(50)), "an older row does not move the mark back");
        assert!(set.contains(Address::repeat_byte(3)));
        assert!(!set.contains(Address::repeat_byte(4)));
        assert_eq!(set.len(), 3);
    }
}
