//! An account's extended public key, and the addresses below it.
//!
//! Everything here is public data in the cryptographic sense, so variable-time arithmetic is right;
//! it is still nobody's business, because one xpub links all customers of an account, so it is never
//! printed. Input that could be a private key is refused without being repeated anywhere.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, keccak256};
use bip32::{ChildNumber, ExtendedKey, PublicKey, XPub};
use k256::elliptic_curve::point::BatchNormalize;
use k256::elliptic_curve::{PrimeField, sec1::ToSec1Point};
use k256::{AffinePoint, ProjectivePoint, Scalar};
use ripemd::Ripemd160;
use sha2::{Digest, Sha256, Sha512};

use super::path::{AccountIndex, AddressIndex, Branch, DerivationPath};

/// Base58 of a 78-byte extended key and its checksum is always this long for version `xpub`.
const XPUB_LEN: usize = 111;
/// m, purpose, coin type, account.
const ACCOUNT_DEPTH: u8 = 3;

/// The extended public key of `m/44'/60'/account'`, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct AccountXpub {
    text: String,
    account: AccountIndex,
    key: XPub,
}

impl AccountXpub {
    /// Reads an xpub that must belong to this account.
    pub fn parse_for(text: &str, account: AccountIndex) -> Result<Self, XpubError> {
        let xpub = text.parse::<Self>()?;
        if xpub.account == account { Ok(xpub) } else { Err(XpubError::OtherAccount { found: xpub.account, expected: account }) }
    }

    /// Which account of the device: its last step says so.
    pub fn account(&self) -> AccountIndex {
        self.account
    }

    /// Tells accounts apart without revealing them. It is computed from the account's own key; the
    /// fingerprint inside an xpub is the parent's and equal for all accounts of a device.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = Ripemd160::digest(Sha256::digest(self.key.to_bytes()));
        let mut first = [0; 4];
        first.copy_from_slice(&hash[..4]);
        Fingerprint(first)
    }

    /// The key, for deriving below it.
    pub(super) fn key(&self) -> &XPub {
        &self.key
    }

    /// The text itself: for the database row and for comparing with the device, never for a log.
    pub fn expose(&self) -> &str {
        &self.text
    }
}

impl FromStr for AccountXpub {
    type Err = XpubError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        refuse_secrets(text)?;
        refuse_other_versions(text)?;
        if text.len() != XPUB_LEN {
            return Err(XpubError::Length { found: text.len() });
        }
        let decoded = ExtendedKey::from_str(text).map_err(|_| XpubError::Checksum)?;
        if decoded.key_bytes[0] == 0 {
            return Err(XpubError::Secret);
        }
        let (depth, child) = (decoded.attrs.depth, decoded.attrs.child_number);
        if depth != ACCOUNT_DEPTH {
            return Err(XpubError::Depth { found: depth });
        }
        if !child.is_hardened() {
            return Err(XpubError::NotHardened { found: child.index() });
        }
        let account = AccountIndex::new(child.index()).ok_or(XpubError::AccountBound { found: child.index() })?;
        // Not `XPub::try_from`: it would take a private key too, and bring the code for it along.
        let point = PublicKey::from_bytes(decoded.key_bytes).map_err(|_| XpubError::Point)?;
        let key = XPub::new(point, decoded.attrs.clone());
        Ok(Self { text: text.to_owned(), account, key })
    }
}

/// Stops anything that can spend before it is decoded, kept or repeated.
fn refuse_secrets(text: &str) -> Result<(), XpubError> {
    if is_secret(text) { Err(XpubError::Secret) } else { Ok(()) }
}

/// Whether a text could be something that spends: a private key, extended or raw, or recovery words.
pub fn is_secret(text: &str) -> bool {
    let trimmed = text.trim();
    let private = ["xprv", "yprv", "zprv", "tprv", "uprv", "vprv"];
    let recovery_words = trimmed.split_whitespace().count() >= 12;
    let raw_key =
        trimmed.trim_start_matches("0x").len() == 64 && trimmed.trim_start_matches("0x").bytes().all(|byte| byte.is_ascii_hexdigit());
    let prefix: String = trimmed.chars().take(4).collect::<String>().to_ascii_lowercase();
    private.contains(&prefix.as_str()) || recovery_words || raw_key
}

fn refuse_other_versions(text: &str) -> Result<(), XpubError> {
    if text.starts_with("xpub") {
        return Ok(());
    }
    let known = ["ypub", "zpub", "tpub", "upub", "vpub", "Ypub", "Zpub", "Upub", "Vpub"];
    match known.into_iter().find(|version| text.starts_with(version)) {
        Some(version) => Err(XpubError::Version { found: version }),
        None => Err(XpubError::Form),
    }
}

impl fmt::Debug for AccountXpub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountXpub({self})")
    }
}

impl fmt::Display for AccountXpub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account {} with fingerprint {}", self.account, self.fingerprint())
    }
}

/// First four bytes of HASH160 of an account's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 4]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why text was not taken as an xpub. No variant carries the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum XpubError {
    #[error(
        "xpub: this is a private key or a list of recovery words; it was not kept. Move its funds to a new seed, then export the public key of the account from the Trezor"
    )]
    Secret,
    #[error("xpub: version {found} is not xpub; export the Ethereum account m/44'/60'/account' from the Trezor")]
    Version { found: &'static str },
    #[error("xpub: the text does not begin with xpub; export the Ethereum account m/44'/60'/account' from the Trezor")]
    Form,
    #[error("xpub: {found} characters instead of 111; copy the whole key, without spaces")]
    Length { found: usize },
    #[error("xpub: the checksum does not fit, so a character was changed; copy it again from the source")]
    Checksum,
    #[error("xpub: depth {found} instead of 3; export the account level m/44'/60'/account', not a key above or below it")]
    Depth { found: u8 },
    #[error("xpub: last step {found} is not hardened; export the account level m/44'/60'/account'")]
    NotHardened { found: u32 },
    #[error("xpub: account {found} is above 100, and the device signs for none above; use a lower account")]
    AccountBound { found: u32 },
    #[error("xpub: it belongs to account {found}, not to account {expected}; export account {expected}")]
    OtherAccount { found: AccountIndex, expected: AccountIndex },
    #[error("xpub: the key is not a point of secp256k1; export it again from the Trezor")]
    Point,
}

/// Derives the addresses of one branch of an account.
///
/// The change level is derived once. What the following step needs of it is kept ready: the point,
/// and both halves of the HMAC keyed with its chain code and started on its serialised form.
#[derive(Clone)]
pub struct Deriver {
    account: AccountIndex,
    branch: Branch,
    parent: AffinePoint,
    hmac: HmacStart,
}

impl Deriver {
    /// Derives the change level, once.
    pub fn new(xpub: &AccountXpub, branch: Branch) -> Result<Self, DeriveError> {
        let invalid = |_| DeriveError::Branch { account: xpub.account, branch };
        let change = ChildNumber::new(branch.change(), false).map_err(invalid)?;
        let child = xpub.key.derive_child(change).map_err(invalid)?;
        let hmac = HmacStart::new(child.attrs().chain_code, child.to_bytes());
        Ok(Self { account: xpub.account, branch, parent: *child.public_key().as_affine(), hmac })
    }

    /// Where the key of an index sits on the device.
    pub fn path(&self, index: AddressIndex) -> DerivationPath {
        DerivationPath::new(self.account, self.branch, index)
    }

    /// The address at an index. An index without a valid key is an error, never its neighbour.
    pub fn address(&self, index: AddressIndex) -> Result<Address, DeriveError> {
        let point = self.point(index)?;
        let [affine] = ProjectivePoint::batch_normalize_vartime(&[point]);
        Ok(address_of(&affine))
    }

    /// Derives many addresses, with one field inversion for all of them. For rebuild and audit;
    /// keep `indices` to a few hundred.
    pub fn addresses(&self, indices: &[AddressIndex]) -> Result<Vec<Address>, DeriveError> {
        let points = indices.iter().map(|index| self.point(*index)).collect::<Result<Vec<_>, _>>()?;
        let affine: Vec<AffinePoint> = ProjectivePoint::batch_normalize_vartime(points.as_slice());
        Ok(affine.iter().map(address_of).collect())
    }

    fn point(&self, index: AddressIndex) -> Result<ProjectivePoint, DeriveError> {
        let tweak = self.hmac.tweak(index);
        tweaked(&self.parent, tweak).ok_or(DeriveError::Invalid { path: self.path(index) })
    }
}

impl fmt::Debug for Deriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deriver(account {}, {} branch)", self.account, self.branch)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeriveError {
    #[error("the {branch} branch of account {account} has no valid key; use another account")]
    Branch { account: AccountIndex, branch: Branch },
    /// Happens once in 2^127. The index is skipped for ever, never replaced by its neighbour.
    #[error("{path} has no valid key; the index must be skipped")]
    Invalid { path: DerivationPath },
    /// Two implementations give different addresses: one of them, or this machine, computes wrongly.
    #[error("{path}: two derivations disagree ({} and {}); nothing was issued. Check this machine's memory and the binary", or_none(*.first), or_none(*.second))]
    Disagree { path: DerivationPath, first: Option<Address>, second: Option<Address> },
}

fn or_none(address: Option<Address>) -> String {
    address.map_or_else(|| "none".to_owned(), |address| address.to_string())
}

/// HMAC-SHA512 with the key block and the constant part of the message already hashed in.
#[derive(Clone)]
struct HmacStart {
    inner: Sha512,
    outer: Sha512,
}

impl HmacStart {
    fn new(chain_code: [u8; 32], parent: [u8; 33]) -> Self {
        let mut inner = Sha512::new();
        let mut outer = Sha512::new();
        let (mut inner_pad, mut outer_pad) = ([0x36_u8; 128], [0x5c_u8; 128]);
        for (position, byte) in chain_code.into_iter().enumerate() {
            inner_pad[position] ^= byte;
            outer_pad[position] ^= byte;
        }
        inner.update(inner_pad);
        outer.update(outer_pad);
        inner.update(parent);
        Self { inner, outer }
    }

    /// The left half of HMAC-SHA512(chain code, parent key, index).
    fn tweak(&self, index: AddressIndex) -> [u8; 32] {
        let inner = self.inner.clone().chain_update(index.get().to_be_bytes()).finalize();
        let hash = self.outer.clone().chain_update(inner).finalize();
        let mut left = [0; 32];
        left.copy_from_slice(&hash[..32]);
        left
    }
}

/// parent + tweak·G, or nothing where BIP-32 calls the child invalid: a tweak outside the group's
/// order, or a sum at infinity. A zero tweak would repeat the parent and is refused as well.
fn tweaked(parent: &AffinePoint, tweak: [u8; 32]) -> Option<ProjectivePoint> {
    let tweak: Scalar = Option::from(Scalar::from_repr(tweak.into()))?;
    if tweak == Scalar::ZERO {
        return None;
    }
    let sum = ProjectivePoint::mul_by_generator_vartime(&tweak) + parent;
    (sum != ProjectivePoint::IDENTITY).then_some(sum)
}

/// Last 20 bytes of keccak-256 over x ‖ y.
fn address_of(point: &AffinePoint) -> Address {
    let encoded = point.to_sec1_point(false);
    Address::from_slice(&keccak256(&encoded.as_bytes()[1..])[12..])
}

#[cfg(test)]
mod tests {
    use k256::elliptic_curve::Group as _;

    use super::*;

    const ACCOUNT_0: &str =
        "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";
    const ACCOUNT_1: &str =
        "xpub6CNFa58kEQJu4f2ySPWzhVDTrQ1wEkkkoeAkAouhCCdc2JgRWkv5NLgeVvVwcYYiSu5rSjJzdN5ywG6fhT23WMQV5esHjn11MSghAunJefQ";
    const CHANGE_0: &str =
        "xpub6DainZd2Amf7GkkBwKLnfBRDBBrWCf9GWCRwjbMJKweKa9MN2xqhbAH5Myh3uJXkna47WLK8qH7NYn4CsasoqAyHxa4BB5daRqaVBfauhMP";

    fn index(number: u32) -> AddressIndex {
        AddressIndex::new(number).unwrap()
    }

    #[test]
    fn the_fingerprint_is_the_accounts_own() {
        let zero: AccountXpub = ACCOUNT_0.parse().unwrap();
        let one = AccountXpub::parse_for(ACCOUNT_1, AccountIndex::new(1).unwrap()).unwrap();
        assert_eq!(zero.fingerprint().to_string(), "069b8dd0");
        assert_eq!(one.fingerprint().to_string(), "5fc3f0e4");
        assert_eq!(format!("{zero} {zero:?}").matches("xpub6").count(), 0);
        assert_eq!(zero.expose(), ACCOUNT_0);
    }

    #[test]
    fn d2_six_hundred_addresses_equal_two_other_implementations() {
        let table = include_str!("../../tests/data/trezor/addresses.csv");
        let mut equal = 0;
        for line in table.lines().skip(1) {
            let columns: Vec<&str> = line.split(',').collect();
            let path: DerivationPath = columns[3].parse().unwrap();
            let xpub: AccountXpub = [ACCOUNT_0, ACCOUNT_1][path.account.get() as usize].parse().unwrap();
            let deriver = Deriver::new(&xpub, path.branch).unwrap();
            assert_eq!(deriver.path(path.index), path);
            assert_eq!(deriver.address(path.index).unwrap().to_checksum(None), columns[4], "{path}");
            equal += 1;
        }
        assert_eq!(equal, 600);
    }

    #[test]
    fn d2_ten_thousand_indices_equal_the_library() {
        let xpub: AccountXpub = ACCOUNT_0.parse().unwrap();
        for (branch, first) in [(Branch::Deposit, 0), (Branch::Operator, AddressIndex::MAX - 4_999)] {
            let deriver = Deriver::new(&xpub, branch).unwrap();
            let parent = xpub.key.derive_child(ChildNumber::new(branch.change(), false).unwrap()).unwrap();
            let indices: Vec<AddressIndex> = (first..first + 5_000).map(index).collect();
            for batch in indices.chunks(500) {
                let fast = deriver.addresses(batch).unwrap();
                for (index, address) in batch.iter().zip(fast) {
                    let child = parent.derive_child(ChildNumber::new(index.get(), false).unwrap()).unwrap();
                    assert_eq!(address, address_of(child.public_key().as_affine()), "{}", deriver.path(*index));
                }
            }
            assert_eq!(deriver.address(indices[7]).unwrap(), deriver.addresses(&indices[7..8]).unwrap()[0]);
        }
    }

    #[test]
    fn xk1_private_keys_are_refused_and_not_repeated() {
        let xprv = "xprv9s21ZrQH143K3QTDL4LXw2F7HEK3wJUD2nW2nRk4stbPy6cq3jPPqjiChkVvvNKmPGJxWUtg6LnF5kejMRNNU3TGtRBeJgk33yuGBxrMPHi";
        let words = "alcohol woman abuse must during monitor noble actual mixed trade anger aisle";
        let raw = format!("0x{}", "5a".repeat(32));
        for tail in ["", "yprv", "zprv", "tprv", "XPRV", " xprv"] {
            let text = format!("{tail}{}", if tail.is_empty() { xprv } else { &xprv[4..] });
            let error = text.parse::<AccountXpub>().unwrap_err();
            assert_eq!(error, XpubError::Secret, "{tail}");
            assert!(!format!("{error} {error:?}").contains("9s21"));
        }
        for secret in [words, &raw] {
            assert_eq!(secret.parse::<AccountXpub>(), Err(XpubError::Secret));
        }
    }

    #[test]
    fn xk2_other_versions_and_other_accounts_are_refused() {
        for version in ["ypub", "zpub", "tpub"] {
            assert_eq!(format!("{version}{}", &ACCOUNT_0[4..]).parse::<AccountXpub>(), Err(XpubError::Version { found: version }));
        }
        let (zero, one) = (AccountIndex::new(0).unwrap(), AccountIndex::new(1).unwrap());
        assert_eq!(AccountXpub::parse_for(ACCOUNT_1, zero), Err(XpubError::OtherAccount { found: one, expected: zero }));
    }

    #[test]
    fn xk3_wrong_depth_checksum_and_length_are_refused() {
        assert_eq!(CHANGE_0.parse::<AccountXpub>(), Err(XpubError::Depth { found: 4 }));
        let master = "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8NqtwybGhePY2gZ29ESFjqJoCu1Rupje8YtGqsefD265TMg7usUDFdp6W1EGMcet8";
        assert_eq!(master.parse::<AccountXpub>(), Err(XpubError::Depth { found: 0 }));
        for position in [4, 20, 60, 110] {
            let mut changed = ACCOUNT_0.to_owned();
            let other = if &changed[position..=position] == "a" { "b" } else { "a" };
            changed.replace_range(position..=position, other);
            assert_eq!(changed.parse::<AccountXpub>(), Err(XpubError::Checksum), "{position}");
        }
        assert_eq!(ACCOUNT_0[..110].parse::<AccountXpub>(), Err(XpubError::Length { found: 110 }));
        assert_eq!(format!("{ACCOUNT_0} ").parse::<AccountXpub>(), Err(XpubError::Length { found: 112 }));
        assert_eq!("".parse::<AccountXpub>(), Err(XpubError::Form));
        assert_eq!("0x73d0385F4d8E00C5e6504C6030F47BF6212736A8".parse::<AccountXpub>(), Err(XpubError::Form));
    }

    #[test]
    fn xk3_an_account_step_that_is_not_hardened_or_too_high_is_refused() {
        let edit = |child: u32| {
            let mut key = ExtendedKey::from_str(ACCOUNT_0).unwrap();
            key.attrs.child_number = ChildNumber(child);
            key.to_string().parse::<AccountXpub>()
        };
        assert_eq!(edit(0), Err(XpubError::NotHardened { found: 0 }));
        assert_eq!(edit(0x8000_0000 + 101), Err(XpubError::AccountBound { found: 101 }));
        let mut key = ExtendedKey::from_str(ACCOUNT_0).unwrap();
        key.key_bytes = [0xff; 33];
        assert_eq!(key.to_string().parse::<AccountXpub>(), Err(XpubError::Point));
    }

    #[test]
    fn xk5_an_invalid_child_is_an_error_and_never_the_next_index() {
        let order = Scalar::ZERO - Scalar::ONE;
        let parent = ProjectivePoint::generator().to_affine();
        assert!(tweaked(&parent, [0xff; 32]).is_none(), "a tweak beyond the order");
        assert!(tweaked(&parent, [0; 32]).is_none(), "a tweak of zero");
        assert!(tweaked(&parent, order.to_repr().into()).is_none(), "parent + (n - 1)·G is infinity");
        let invalid = DeriveError::Invalid { path: "m/44'/60'/0'/0/7".parse().unwrap() };
        assert!(invalid.to_string().contains("m/44'/60'/0'/0/7"));
    }
}
