//! The address table against what the public key says it must be. Pure.
//!
//! The quick derivation computes many at a time; what it finds different is computed once more by the
//! second implementation before a row is blamed. A row is never changed: a table that differs from its
//! key was written by somebody else, and an officer must know.

use std::fmt;
use std::ops::Range;

use alloy::primitives::Address;

use super::path::{AddressIndex, Branch, DerivationPath};
use super::{DeriveError, Purpose, TwoDerivers};

/// One field inversion is shared by so many derivations.
const BATCH: usize = 256;

/// A row of `trezor_derived_addresses`, without its account and branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredAddress {
    pub index: AddressIndex,
    pub address: Address,
    pub purpose: Purpose,
}

/// How a row is not what the key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Missing {
        path: DerivationPath,
        derived: Address,
    },
    Address {
        path: DerivationPath,
        stored: Address,
        derived: Address,
    },
    Purpose {
        path: DerivationPath,
        stored: Purpose,
        wanted: Option<Purpose>,
    },
    /// A row where no address was issued: a counter that was lowered, or a row that was put in.
    Beyond {
        path: DerivationPath,
        stored: Address,
    },
    /// A row where BIP-32 has no key.
    NoKey {
        path: DerivationPath,
        stored: Address,
    },
    /// The account's own row: its fingerprint is not its key's.
    Fingerprint,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { path, derived } => write!(f, "{path}: the row is missing; the key gives {derived}"),
            Self::Address { path, stored, derived } => write!(f, "{path}: the row says {stored}; the key gives {derived}"),
            Self::Purpose { path, stored, wanted } => {
                write!(f, "{path}: the row says {}; that place is {}", stored.name(), wanted.map_or("nobody's", Purpose::name))
            }
            Self::Beyond { path, stored } => write!(f, "{path}: the row says {stored}; no address was issued there"),
            Self::NoKey { path, stored } => write!(f, "{path}: the row says {stored}; there is no valid key at that index"),
            Self::Fingerprint => f.write_str("the stored fingerprint is not that of the stored key"),
        }
    }
}

/// What comparing found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Places that were compared: one for each index that was issued, and each row beyond.
    pub checked: u64,
    /// Indices without a valid key, which have no row.
    pub skipped: u64,
    /// Of those that differ, rows that are not there.
    pub missing: u64,
    pub differing: u64,
    pub first: Option<Difference>,
    /// The first that is more than a missing row: nobody may mend it by filling in.
    pub first_changed: Option<Difference>,
}

impl Comparison {
    /// Compares the rows stored at `indices` with the key, and gives back where none is. `indices` stays
    /// inside the bounds of [`AddressIndex`]; `rows` are ascending.
    pub fn compare(
        &mut self,
        derivers: &TwoDerivers,
        indices: Range<u32>,
        rows: &[StoredAddress],
    ) -> Result<Vec<AddressIndex>, DeriveError> {
        let indices: Vec<AddressIndex> = indices.filter_map(AddressIndex::new).collect();
        let mut rows = rows.iter().copied().peekable();
        let mut missing = Vec::new();
        for batch in indices.chunks(BATCH) {
            let bulk = derivers.first.addresses(batch).ok();
            for (place, index) in batch.iter().enumerate() {
                let stored = rows.next_if(|row| row.index == *index);
                let quick = bulk.as_ref().and_then(|addresses| addresses.get(place)).copied();
                self.checked += 1;
                match (stored, quick) {
                    (Some(stored), Some(quick)) if stored.address == quick => self.compare_purpose(derivers.path(*index), stored),
                    (stored, _) => self.compare_slowly(derivers, *index, stored, &mut missing)?,
                }
            }
        }
        Ok(missing)
    }

    /// The quick way found a difference, or nothing. Only what both implementations say counts.
    fn compare_slowly(
        &mut self,
        derivers: &TwoDerivers,
        index: AddressIndex,
        stored: Option<StoredAddress>,
        missing: &mut Vec<AddressIndex>,
    ) -> Result<(), DeriveError> {
        let path = derivers.path(index);
        match (stored, derivers.address(index)) {
            (Some(stored), Ok(derived)) if stored.address == derived => self.compare_purpose(path, stored),
            (Some(StoredAddress { address: stored, .. }), Ok(derived)) => self.note(Difference::Address { path, stored, derived }),
            (Some(StoredAddress { address: stored, .. }), Err(DeriveError::Invalid { .. })) => {
                self.note(Difference::NoKey { path, stored })
            }
            (None, Ok(derived)) => {
                self.missing += 1;
                missing.push(index);
                self.note(Difference::Missing { path, derived });
            }
            (None, Err(DeriveError::Invalid { .. })) => self.skipped += 1,
            (_, Err(error)) => return Err(error),
        }
        Ok(())
    }

    fn compare_purpose(&mut self, path: DerivationPath, stored: StoredAddress) {
        let wanted = Purpose::at(path);
        if wanted != Some(stored.purpose) {
            self.note(Difference::Purpose { path, stored: stored.purpose, wanted });
        }
    }

    /// A row that no counter accounts for.
    pub fn note_beyond(&mut self, derivers: &TwoDerivers, stored: StoredAddress) {
        self.checked += 1;
        self.note(Difference::Beyond { path: derivers.path(stored.index), stored: stored.address });
    }

    pub fn note(&mut self, difference: Difference) {
        self.differing += 1;
        self.first.get_or_insert(difference);
        if !matches!(difference, Difference::Missing { .. }) {
            self.first_changed.get_or_insert(difference);
        }
    }

    /// Takes in what another part of the table gave.
    pub fn add(&mut self, other: Self) {
        self.checked += other.checked;
        self.skipped += other.skipped;
        self.missing += other.missing;
        self.differing += other.differing;
        self.first = self.first.or(other.first);
        self.first_changed = self.first_changed.or(other.first_changed);
    }
}

/// The branches of an account and the indices of each that were issued.
pub(super) const fn issued(next_deposit_index: u32) -> [(Branch, Range<u32>); 2] {
    [(Branch::Operator, 0..Branch::OPERATOR_INDICES), (Branch::Deposit, 0..next_deposit_index)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT_0: &str =
        "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";

    fn derivers() -> TwoDerivers {
        TwoDerivers::new(&ACCOUNT_0.parse().unwrap(), Branch::Deposit).unwrap()
    }

    fn index(number: u32) -> AddressIndex {
        AddressIndex::new(number).unwrap()
    }

    fn table(indices: Range<u32>) -> Vec<StoredAddress> {
        let two = derivers();
        indices
            .map(|number| StoredAddress {
                index: index(number),
                address: two.second.address(index(number)).unwrap(),
                purpose: Purpose::Deposit,
            })
            .collect()
    }

    #[test]
    fn d3_a_table_of_the_key_is_identical_also_across_batches() {
        let mut found = Comparison::default();
        assert_eq!(found.compare(&derivers(), 250..800, &table(250..800)), Ok(vec![]));
        assert_eq!(found, Comparison { checked: 550, ..Comparison::default() });
    }

    #[test]
    fn d3_each_difference_is_counted_and_the_first_is_told() {
        let good = table(0..300);
        let swapped = {
            let mut rows = good.clone();
            (rows[3].address, rows[9].address) = (good[9].address, good[3].address);
            rows
        };
        let mut found = Comparison::default();
        assert_eq!(found.compare(&derivers(), 0..300, &swapped), Ok(vec![]));
        assert_eq!((found.checked, found.differing, found.missing), (300, 2, 0));
        assert_eq!(found.first, found.first_changed);
        let path = derivers().path(index(3));
        assert_eq!(found.first, Some(Difference::Address { path, stored: good[9].address, derived: good[3].address }));

        let mut short = good.clone();
        short.remove(299);
        short.remove(257);
        let mut found = Comparison::default();
        assert_eq!(found.compare(&derivers(), 0..300, &short), Ok(vec![index(257), index(299)]));
        assert_eq!((found.checked, found.differing, found.missing, found.first_changed), (300, 2, 2, None));
        assert_eq!(found.first, Some(Difference::Missing { path: derivers().path(index(257)), derived: good[257].address }));

        let mut other = good.clone();
        other[0].purpose = Purpose::Gas;
        let mut found = Comparison::default();
        assert_eq!(found.compare(&derivers(), 0..300, &other), Ok(vec![]));
        assert!(matches!(found.first, Some(Difference::Purpose { stored: Purpose::Gas, wanted: Some(Purpose::Deposit), .. })));
    }

    #[test]
    fn d2_a_row_is_not_blamed_where_the_implementations_disagree() {
        let other = "xpub6CNFa58kEQJu4f2ySPWzhVDTrQ1wEkkkoeAkAouhCCdc2JgRWkv5NLgeVvVwcYYiSu5rSjJzdN5ywG6fhT23WMQV5esHjn11MSghAunJefQ";
        let crossed = TwoDerivers { first: TwoDerivers::new(&other.parse().unwrap(), Branch::Deposit).unwrap().first, ..derivers() };
        let outcome = Comparison::default().compare(&crossed, 0..3, &table(0..3));
        assert!(matches!(outcome, Err(DeriveError::Disagree { .. })), "{outcome:?}");
    }
}
