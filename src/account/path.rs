//! Where a key sits: `m/44'/60'/account'/branch/index`, and nothing a Trezor would refuse.
//!
//! The bounds are the device's own: with strict checks it answers "Forbidden key path" for account
//! 101, branch 2 or index 1,000,001, while an xpub derives an address there without complaint. An
//! address issued past the bounds could be paid and never swept, so the types stop at them.

use std::fmt;
use std::str::FromStr;

/// Bit 31 of a path step: the step is hardened and needs the private key.
const HARDENED: u32 = 1 << 31;
const PURPOSE: u32 = 44;
/// Coin type 60 for every chain: the device accepts it on all of them.
const COIN_TYPE: u32 = 60;

/// Which account of the device, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountIndex(u32);

impl AccountIndex {
    pub const MAX: u32 = 100;

    pub const fn new(index: u32) -> Option<Self> {
        if index <= Self::MAX { Some(Self(index)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index as Postgres keeps it; the constructor made sure that it fits.
    pub const fn as_i32(self) -> i32 {
        self.0.cast_signed()
    }
}

impl TryFrom<i32> for AccountIndex {
    type Error = PathError;

    fn try_from(index: i32) -> Result<Self, Self::Error> {
        u32::try_from(index).ok().and_then(Self::new).ok_or_else(|| PathError::Account(index.to_string()))
    }
}

impl FromStr for AccountIndex {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        plain_number(text).and_then(Self::new).ok_or_else(|| PathError::Account(shorten(text)))
    }
}

impl fmt::Display for AccountIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which address of a branch, 0 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressIndex(u32);

impl AddressIndex {
    pub const MAX: u32 = 1_000_000;
    pub const FIRST: Self = Self(0);

    pub const fn new(index: u32) -> Option<Self> {
        if index <= Self::MAX { Some(Self(index)) } else { None }
    }

    pub const fn get(self) -> u32 {
        self.0
    }

    /// The index as Postgres keeps it; the constructor made sure that it fits.
    pub const fn as_i32(self) -> i32 {
        self.0.cast_signed()
    }

    /// The following index, or nothing when the account is used up and the next one must be opened.
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

impl TryFrom<i32> for AddressIndex {
    type Error = PathError;

    fn try_from(index: i32) -> Result<Self, Self::Error> {
        u32::try_from(index).ok().and_then(Self::new).ok_or_else(|| PathError::Index(index.to_string()))
    }
}

impl FromStr for AddressIndex {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        plain_number(text).and_then(Self::new).ok_or_else(|| PathError::Index(shorten(text)))
    }
}

impl fmt::Display for AddressIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The two sides of an account: addresses customers pay to, and the operator's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Branch {
    /// Change level 0: one address per payment.
    Deposit,
    /// Change level 1: gas float and treasury, never handed out.
    Operator,
}

impl Branch {
    /// How many of the operator's own addresses an account has, from index 0: see `Purpose::OPERATOR`.
    pub const OPERATOR_INDICES: u32 = 2;
    pub const ALL: [Self; 2] = [Self::Deposit, Self::Operator];

    /// The number of the change level.
    pub const fn change(self) -> u32 {
        match self {
            Self::Deposit => 0,
            Self::Operator => 1,
        }
    }

    /// The change level as Postgres keeps it.
    pub const fn as_i32(self) -> i32 {
        self.change().cast_signed()
    }

    const fn from_change(change: u32) -> Option<Self> {
        match change {
            0 => Some(Self::Deposit),
            1 => Some(Self::Operator),
            _ => None,
        }
    }
}

impl TryFrom<i32> for Branch {
    type Error = PathError;

    fn try_from(change: i32) -> Result<Self, Self::Error> {
        u32::try_from(change).ok().and_then(Self::from_change).ok_or_else(|| PathError::Branch(change.to_string()))
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deposit => "deposit",
            Self::Operator => "operator",
        })
    }
}

/// A key the device will sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DerivationPath {
    pub account: AccountIndex,
    pub branch: Branch,
    pub index: AddressIndex,
}

impl DerivationPath {
    pub const fn new(account: AccountIndex, branch: Branch, index: AddressIndex) -> Self {
        Self { account, branch, index }
    }

    /// The five steps as BIP-32 numbers, hardened where the scheme hardens them.
    pub const fn to_bip32(self) -> [u32; 5] {
        let [purpose, coin, account] = self.account.to_bip32();
        [purpose, coin, account, self.branch.change(), self.index.0]
    }
}

impl AccountIndex {
    /// The three hardened steps of `m/44'/60'/account'`.
    pub const fn to_bip32(self) -> [u32; 3] {
        [HARDENED | PURPOSE, HARDENED | COIN_TYPE, HARDENED | self.0]
    }
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "m/{PURPOSE}'/{COIN_TYPE}'/{}'/{}/{}", self.account, self.branch.change(), self.index)
    }
}

impl FromStr for DerivationPath {
    type Err = PathError;

    /// Reads exactly the form that [`fmt::Display`] writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || PathError::Form(shorten(text));
        let steps = text.strip_prefix("m/44'/60'/").ok_or_else(form)?;
        let mut steps = steps.split('/');
        let (Some(account), Some(change), Some(index), None) = (steps.next(), steps.next(), steps.next(), steps.next()) else {
            return Err(form());
        };
        let account = account.strip_suffix('\'').ok_or_else(form)?.parse()?;
        let branch = plain_number(change).and_then(Branch::from_change).ok_or_else(|| PathError::Branch(shorten(change)))?;
        Ok(Self { account, branch, index: index.parse()? })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path {0:?} is not of the form m/44'/60'/account'/branch/index")]
    Form(String),
    #[error("account {0:?} is not a plain number from 0 to 100: the device signs for no other")]
    Account(String),
    #[error("branch {0:?} is neither 0 (deposits) nor 1 (operator)")]
    Branch(String),
    #[error("index {0:?} is not a plain number from 0 to 1000000: the device signs for no other; open the next account")]
    Index(String),
}

/// A decimal number without sign, leading zero, space or hardening mark.
fn plain_number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten()
}

/// Input that was refused is repeated in the error, but never at any length.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(account: u32, branch: Branch, index: u32) -> DerivationPath {
        DerivationPath::new(AccountIndex::new(account).unwrap(), branch, AddressIndex::new(index).unwrap())
    }

    #[test]
    fn a_path_has_three_hardened_steps_and_two_plain_ones() {
        let h = 0x8000_0000_u32;
        assert_eq!(path(1, Branch::Operator, 7).to_bip32(), [h + 44, h + 60, h + 1, 1, 7]);
        assert_eq!(path(0, Branch::Deposit, 0).to_string(), "m/44'/60'/0'/0/0");
        assert_eq!("m/44'/60'/100'/0/1000000".parse(), Ok(path(100, Branch::Deposit, 1_000_000)));
    }

    #[test]
    fn xk4_paths_the_device_refuses_cannot_be_expressed() {
        assert_eq!("m/44'/60'/101'/0/0".parse::<DerivationPath>(), Err(PathError::Account("101".to_owned())));
        assert_eq!("m/44'/60'/0'/2/0".parse::<DerivationPath>(), Err(PathError::Branch("2".to_owned())));
        for index in ["1000001", "2147483647", "2147483648", "4294967296", "0'", "5h", "-1", "+1", "", "01", " 1", "１"] {
            let text = format!("m/44'/60'/0'/0/{index}");
            assert_eq!(text.parse::<DerivationPath>(), Err(PathError::Index(index.to_owned())), "{text}");
        }
        for form in
            ["", "m", "m/44'/60'/0'", "m/44'/60'/0'/0", "m/44'/60'/0'/0/0/0", "m/44'/60'/0/0/0", "m/44'/1'/0'/0/0", "44'/60'/0'/0/0"]
        {
            assert_eq!(form.parse::<DerivationPath>(), Err(PathError::Form(form.to_owned())), "{form:?}");
        }
        assert_eq!(AddressIndex::new(AddressIndex::MAX).unwrap().next(), None);
        for bad in [-1, 1_000_001, i32::MAX] {
            assert!(AddressIndex::try_from(bad).is_err(), "{bad}");
        }
        for bad in [-1, 101] {
            assert!(AccountIndex::try_from(bad).is_err(), "{bad}");
        }
        assert!(Branch::try_from(2).is_err());
    }

    proptest! {
        #[test]
        fn writing_then_reading_a_path_is_the_identity(account in 0_u32..=100, change in 0_u32..=1, index in 0_u32..=1_000_000) {
            let original = path(account, Branch::from_change(change).unwrap(), index);
            prop_assert_eq!(original.to_string().parse(), Ok(original));
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<DerivationPath>();
        }
    }
}
