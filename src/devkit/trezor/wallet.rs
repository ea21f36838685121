//! Words to seed to key to signature: the only place in the project with a private key.
//!
//! The passphrase is taken as the bytes that came over the wire: normalising it is the host's
//! duty, and a simulator that did it too would hide a host that does not. That is why the seed is not
//! asked from the BIP-39 crate, which normalises.

use std::fmt;

use alloy::primitives::{Address, B256, keccak256};
use bip32::{ChildNumber, Prefix, XPrv};
use coins_bip39::{English, Mnemonic};
use k256::ecdsa::{Signature, VerifyingKey};
use pbkdf2::pbkdf2_hmac_array;
use sha2::Sha512;

/// BIP-39's number of rounds.
const ROUNDS: u32 = 2048;

/// A BIP-39 seed: what words and passphrase open.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seed([u8; 64]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// Are these words a wallet: twelve to twenty-four of the list, with the right checksum?
pub(super) fn is_mnemonic(words: &str) -> bool {
    Mnemonic::<English>::new_from_phrase(words).is_ok()
}

impl Seed {
    /// PBKDF2 with HMAC-SHA512. English words need no normalising.
    pub(super) fn open(words: &str, passphrase: &str) -> Self {
        let salt = [b"mnemonic", passphrase.as_bytes()].concat();
        Self(pbkdf2_hmac_array::<Sha512, 64>(words.as_bytes(), &salt, ROUNDS))
    }

    pub(super) fn derive(&self, path: &[u32]) -> Key {
        let root = XPrv::new(&self.0).expect("a seed of 64 bytes makes a key, but for one in 2^127");
        let key = path.iter().try_fold(root, |key, &step| key.derive_child(ChildNumber(step)));
        Key(key.expect("a path of at most eight steps is derived, but for one in 2^127"))
    }
}

/// A signature before it is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) r: B256,
    pub(super) s: B256,
    pub(super) odd: bool,
}

/// A private key and its place in the tree.
#[derive(Debug, Clone)]
pub(super) struct Key(XPrv);

impl Key {
    pub(super) fn address(&self) -> Address {
        address_of(self.0.private_key().verifying_key())
    }

    pub(super) fn xpub(&self) -> String {
        self.0.public_key().to_string(Prefix::XPUB)
    }

    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.public_key().to_bytes().to_vec()
    }

    pub(super) fn depth(&self) -> u32 {
        u32::from(self.0.attrs().depth)
    }

    pub(super) fn parent_fingerprint(&self) -> u32 {
        u32::from_be_bytes(self.0.attrs().parent_fingerprint)
    }

    pub(super) fn child_number(&self) -> u32 {
        self.0.attrs().child_number.0
    }

    pub(super) fn chain_code(&self) -> Vec<u8> {
        self.0.attrs().chain_code.to_vec()
    }

    /// RFC 6979 and low s, byte for byte what the device signs.
    pub(super) fn sign(&self, hash: B256) -> Signed {
        let (signature, recovery): (Signature, _) = self.0.private_key().sign_prehash_recoverable(hash.as_slice());
        let (r, s) = signature.split_bytes();
        Signed { r: B256::from_slice(&r), s: B256::from_slice(&s), odd: recovery.is_y_odd() }
    }
}

fn address_of(key: &VerifyingKey) -> Address {
    let point = key.to_sec1_point(false);
    let hash = keccak256(&point.as_bytes()[1..]);
    Address::from_slice(&hash[12..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "all all all all all all all all all all all all";

    #[test]
    fn the_stretching_is_that_of_the_bip39_crate() {
        let mnemonic = Mnemonic::<English>::new_from_phrase(WORDS).unwrap();
        for passphrase in ["", "x", "a longer passphrase of fifty bytes, which is the max"] {
            let theirs = mnemonic.to_seed(Some(passphrase)).unwrap();
            assert_eq!(Seed::open(WORDS, passphrase).0[..], theirs[..]);
        }
    }

    #[test]
    fn passphrases_are_not_normalised() {
        assert_ne!(Seed::open(WORDS, "\u{e9}"), Seed::open(WORDS, "e\u{301}"));
    }
}
