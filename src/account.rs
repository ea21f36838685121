//! Trezor accounts: which xpub we watch, and every address below it.
//!
//! Only public keys live here: addresses are derived from an account's extended public key, and the
//! private side never leaves the device. Paths and indices the device would refuse to sign for
//! cannot be expressed.

mod path;
mod xpub;

pub use path::{AccountIndex, AddressIndex, Branch, DerivationPath, PathError};
pub use xpub::{AccountXpub, DeriveError, Deriver, Fingerprint, XpubError};
