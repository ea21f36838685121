//! The set of addresses we watch, in memory: every address ever issued, because people pay to old ones.
//!
//! Pure lookups. Reading the rows is the scanner's work; this file says from when on they must be read
//! again, and what is new. An address is never taken out.

use alloy::primitives::Address;
use alloy::primitives::map::AddressMap;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::account::store::WatchedAddress;

/// A row becomes visible when its transaction commits, which is later than the time it carries. The
/// server ends transactions long before this span.
const OVERLAP: Duration = Duration::minutes(10);

/// Address → id of its row.
#[derive(Debug, Default)]
pub struct WatchedSet {
    ids: AddressMap<Uuid>,
    newest: Option<OffsetDateTime>,
}

impl WatchedSet {
    /// The row of an address of ours.
    pub fn find(&self, address: Address) -> Option<Uuid> {
        self.ids.get(&address).copied()
    }

    pub fn contains(&self, address: Address) -> bool {
        self.ids.contains_key(&address)
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
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
        let before = self.ids.len();
        let rows = rows.into_iter();
        if before == 0 {
            // All of them at once: growing step by step takes half as much memory again.
            self.ids.reserve(rows.size_hint().0);
        }
        for row in rows {
            self.ids.insert(row.address, row.id);
            self.newest = self.newest.max(Some(row.created_at));
        }
        self.ids.len() - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w9_known_rows_are_read_again_and_change_nothing() {
        let start = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let row = |n: u8, created_at| WatchedAddress { id: Uuid::from_u128(n.into()), address: Address::repeat_byte(n), created_at };
        let mut set = WatchedSet::default();
        assert_eq!(set.since(), None, "an empty set reads everything");
        assert_eq!(set.extend([row(1, start), row(2, start + Duration::hours(1))]), 2);
        assert_eq!(set.since(), Some(start + Duration::minutes(50)));
        assert_eq!(set.extend([row(2, start + Duration::hours(1)), row(3, start)]), 1);
        assert_eq!(set.since(), Some(start + Duration::minutes(50)), "an older row does not move the mark back");
        assert_eq!(set.find(Address::repeat_byte(3)), Some(Uuid::from_u128(3)));
        assert_eq!(set.find(Address::repeat_byte(4)), None);
        assert_eq!(set.len(), 3);
    }
}
