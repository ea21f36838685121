//! The set of addresses we watch, in memory: every address ever issued, because people pay to old ones.
//!
//! Pure lookups. Reading the rows is `worker`'s; this file says which come next. Each branch of an
//! account is issued in the order of its indices, under the lock of the account's row, so how far it has
//! been read is one number: no clock and no count of rows is asked. An address is never taken out.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;

use alloy::primitives::Address;

use crate::account::{Branch, Counter};
use crate::units::TrezorAccountId;

/// One branch of an account.
pub(super) type BranchOfAccount = (TrezorAccountId, Branch);

/// Addresses alone: whoever needs the row of one looks it up where it is stored.
#[derive(Debug, Default)]
pub struct WatchedSet {
    addresses: HashSet<Address, BuildHasherDefault<FirstBytes>>,
    /// Every index below was read.
    read: BTreeMap<BranchOfAccount, u32>,
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

    /// What these counters have issued and the set has not read yet: nothing, or a range that begins
    /// where reading stopped.
    pub fn unread(&self, counters: &[Counter]) -> Vec<(BranchOfAccount, Range<u32>)> {
        let branches = counters.iter().flat_map(|counter| Branch::ALL.map(|branch| ((counter.id, branch), counter.issued(branch))));
        branches
            .map(|(branch, issued)| (branch, self.read.get(&branch).copied().unwrap_or(0)..issued))
            .filter(|(_, indices)| !indices.is_empty())
            .collect()
    }

    /// Makes room for so many more addresses at once: growing step by step takes half as much memory again.
    pub fn reserve(&mut self, more: u64) {
        self.addresses.reserve(usize::try_from(more).unwrap_or(usize::MAX));
    }

    /// Adds the addresses of a branch below `read_to`. Those that are known change nothing.
    pub fn read(&mut self, branch: BranchOfAccount, read_to: u32, addresses: impl IntoIterator<Item = Address>) {
        self.extend(addresses);
        let place = self.read.entry(branch).or_default();
        *place = read_to.max(*place);
    }
}

impl Extend<Address> for WatchedSet {
    fn extend<I: IntoIterator<Item = Address>>(&mut self, addresses: I) {
        // Not `HashSet::extend`, which would make room for all of them, known or not.
        for address in addresses {
            self.addresses.insert(address);
        }
    }
}

/// The first eight bytes of an address are its hash.
///
/// That is safe only because every key is an address that we derived: the last bytes of a keccak over a
/// key that nobody outside can choose, so the keys are spread as any hash would spread them. Outsiders
/// choose queries, and a query that shares eight bytes with a key costs one comparison. If addresses of
/// another origin may ever enter, fold the address with a secret of the process instead.
#[derive(Clone, Copy, Debug, Default)]
struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        // A length that comes first is the same for every address and moves nothing apart.
        if let Some(first) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault};

    use uuid::Uuid;

    use super::*;
    use crate::account::AccountIndex;

    fn counter(account: u32, next_deposit_index: u32) -> Counter {
        let id = TrezorAccountId(Uuid::from_u128(account.into()));
        Counter { id, label: String::new(), account: AccountIndex::new(account).unwrap(), next_deposit_index }
    }

    #[test]
    fn w9_what_was_issued_is_read_once_and_none_is_left_out() {
        let mut set = WatchedSet::default();
        let counters = [counter(0, 3), counter(1, 0)];
        let (deposits, operator) = ((counters[0].id, Branch::Deposit), (counters[0].id, Branch::Operator));
        let other = (counters[1].id, Branch::Operator);
        assert_eq!(set.unread(&counters), [(deposits, 0..3), (operator, 0..2), (other, 0..2)]);
        set.read(deposits, 2, [Address::repeat_byte(1), Address::repeat_byte(2)]);
        set.read(operator, 2, [Address::repeat_byte(8), Address::repeat_byte(9)]);
        assert_eq!(set.unread(&counters), [(deposits, 2..3), (other, 0..2)], "a page was read, the rest comes next");
        set.read(deposits, 3, [Address::repeat_byte(3)]);
        set.read(other, 2, []);
        assert_eq!(set.unread(&counters), []);
        set.read(deposits, 2, [Address::repeat_byte(2)]);
        assert_eq!(set.unread(&counters), [], "an older page does not move the mark back");
        assert_eq!(set.unread(&[counter(0, 4), counter(1, 0)]), [(deposits, 3..4)]);
        assert_eq!(set.len(), 5);
        assert!(set.contains(Address::repeat_byte(3)));
        assert!(!set.contains(Address::repeat_byte(4)));
    }

    #[test]
    fn addresses_that_share_eight_bytes_are_told_apart() {
        let mut set = WatchedSet::default();
        let alike = |last: u8| Address::with_last_byte(last);
        set.extend((0..100).map(alike));
        assert_eq!(set.len(), 100);
        assert!((0..100).all(|last| set.contains(alike(last))));
        assert!(!set.contains(alike(100)));
        let hash = |address: Address| BuildHasherDefault::<FirstBytes>::default().hash_one(address);
        assert_ne!(hash(Address::repeat_byte(1)), hash(Address::repeat_byte(2)));
    }
}
