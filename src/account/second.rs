//! The same addresses by another road, for comparing: the `bip32` crate derives every level itself.
//!
//! It shares no step of its own with [`Deriver`]: the HMAC is keyed anew for each child, the tweak is
//! multiplied in constant time without a table, and the address is taken from the key as alloy does it.
//! An address is published only when both roads lead to it. It is slow; bulk work compares with it only
//! where it matters. Not `coins-bip32`: on an invalid index that one answers with the neighbour's key.

use alloy::primitives::Address;
use bip32::{ChildNumber, XPub};

use super::path::{AddressIndex, Branch, DerivationPath};
use super::xpub::{AccountXpub, DeriveError, Deriver};

/// Derives with the `bip32` crate alone.
#[derive(Clone, Debug)]
pub struct SecondDeriver {
    branch: XPub,
}

impl SecondDeriver {
    pub fn new(xpub: &AccountXpub, branch: Branch) -> Result<Self, DeriveError> {
        let invalid = |_| DeriveError::Branch { account: xpub.account(), branch };
        let change = ChildNumber::new(branch.change(), false).map_err(invalid)?;
        Ok(Self { branch: xpub.key().derive_child(change).map_err(invalid)? })
    }

    /// The address at an index, or nothing where the index has no valid key.
    pub fn address(&self, index: AddressIndex) -> Option<Address> {
        let child = self.branch.derive_child(ChildNumber::new(index.get(), false).ok()?).ok()?;
        let point = child.public_key().to_sec1_point(false);
        Some(Address::from_raw_public_key(&point.as_bytes()[1..]))
    }
}

/// Both roads to the addresses of one branch of an account.
#[derive(Clone, Debug)]
pub struct TwoDerivers {
    pub first: Deriver,
    pub second: SecondDeriver,
}

impl TwoDerivers {
    pub fn new(xpub: &AccountXpub, branch: Branch) -> Result<Self, DeriveError> {
        Ok(Self { first: Deriver::new(xpub, branch)?, second: SecondDeriver::new(xpub, branch)? })
    }

    pub fn path(&self, index: AddressIndex) -> DerivationPath {
        self.first.path(index)
    }

    /// The address that both derive. An index that both call invalid is [`DeriveError::Invalid`];
    /// anything else that is not the same is [`DeriveError::Disagree`], and nobody may use either.
    pub fn address(&self, index: AddressIndex) -> Result<Address, DeriveError> {
        let path = self.path(index);
        match (self.first.address(index), self.second.address(index)) {
            (Ok(first), Some(second)) if first == second => Ok(first),
            (Err(DeriveError::Invalid { .. }), None) => Err(DeriveError::Invalid { path }),
            (first, second) => Err(DeriveError::Disagree { path, first: first.ok(), second }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT_0: &str =
        "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";
    const ACCOUNT_1: &str =
        "xpub6CNFa58kEQJu4f2ySPWzhVDTrQ1wEkkkoeAkAouhCCdc2JgRWkv5NLgeVvVwcYYiSu5rSjJzdN5ywG6fhT23WMQV5esHjn11MSghAunJefQ";

    fn index(number: u32) -> AddressIndex {
        AddressIndex::new(number).unwrap()
    }

    #[test]
    fn d2_10_000_addresses_equal_the_second_implementation() {
        let mut equal = 0;
        for (xpub, branch, first) in
            [(ACCOUNT_0, Branch::Deposit, 0), (ACCOUNT_1, Branch::Deposit, AddressIndex::MAX - 4_999), (ACCOUNT_1, Branch::Operator, 0)]
        {
            let two = TwoDerivers::new(&xpub.parse().unwrap(), branch).unwrap();
            let indices: Vec<AddressIndex> = (first..first + 5_000).map(index).collect();
            let bulk: Vec<Address> = indices.chunks(256).flat_map(|some| two.first.addresses(some).unwrap()).collect();
            for (index, fast) in indices.into_iter().zip(bulk) {
                assert_eq!(two.second.address(index), Some(fast), "{}", two.path(index));
                equal += 1;
            }
        }
        assert_eq!(equal, 15_000);
    }

    #[test]
    fn d2_a_disagreement_names_both_and_is_no_address() {
        let of = |xpub: &str| TwoDerivers::new(&xpub.parse().unwrap(), Branch::Deposit).unwrap();
        let (zero, one) = (of(ACCOUNT_0), of(ACCOUNT_1));
        let [from_zero, from_one] = [&zero, &one].map(|two| two.address(index(7)).unwrap());
        let crossed = TwoDerivers { first: zero.first, second: one.second };
        let error = crossed.address(index(7)).unwrap_err();
        let path = "m/44'/60'/0'/0/7".parse().unwrap();
        assert_eq!(error, DeriveError::Disagree { path, first: Some(from_zero), second: Some(from_one) });
        for part in ["m/44'/60'/0'/0/7", &from_zero.to_string(), &from_one.to_string(), "nothing was issued"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
