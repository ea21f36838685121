//! Which chain, which coin or token. A token is its contract on its chain; a symbol is decoration.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, address};

/// An EIP-155 chain id. Never zero (a signature for chain 0 is valid on every chain), and small
/// enough for the database's `bigint`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct ChainId(u64);

impl ChainId {
    /// Accepts 1 ..= 2^63 - 1.
    pub const fn new(id: u64) -> Option<Self> {
        if id == 0 || id > i64::MAX as u64 { None } else { Some(Self(id)) }
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The id as Postgres keeps it; the constructor made sure that it fits.
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }
}

impl TryFrom<u64> for ChainId {
    type Error = ParseAssetError;

    fn try_from(id: u64) -> Result<Self, Self::Error> {
        Self::new(id).ok_or_else(|| ParseAssetError::ChainId(id.to_string()))
    }
}

impl From<ChainId> for u64 {
    fn from(id: ChainId) -> Self {
        id.0
    }
}

impl TryFrom<i64> for ChainId {
    type Error = ParseAssetError;

    fn try_from(id: i64) -> Result<Self, Self::Error> {
        u64::try_from(id).ok().and_then(Self::new).ok_or_else(|| ParseAssetError::ChainId(id.to_string()))
    }
}

impl FromStr for ChainId {
    type Err = ParseAssetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse().ok().and_then(Self::new)).flatten().ok_or_else(|| ParseAssetError::ChainId(text.to_owned()))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The chain's own coin, or a token by contract address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asset {
    Native,
    Token(Address),
}

impl Asset {
    /// How the native coin is written where an address is expected (EIP-7528).
    pub const NATIVE_MARKER: Address = address!("0xEeeeeEeeeEeEeeEeEeEeeEEEeeeeEeeeeeeeEEeE");

    /// The 20 bytes that stand for this asset in the database.
    pub const fn marker(self) -> Address {
        match self {
            Self::Native => Self::NATIVE_MARKER,
            Self::Token(contract) => contract,
        }
    }

    pub fn from_marker(marker: Address) -> Self {
        if marker == Self::NATIVE_MARKER { Self::Native } else { Self::Token(marker) }
    }
}

impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native => f.write_str("native"),
            Self::Token(contract) => contract.fmt(f),
        }
    }
}

/// An asset on its chain: the unit in which an amount is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssetId {
    pub chain: ChainId,
    pub asset: Asset,
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on chain {}", self.asset, self.chain)
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAssetError {
    #[error("chain id {0:?} is not a whole number from 1 to 9223372036854775807")]
    ChainId(String),
    #[error("address {0:?} is not 0x and 40 hexadecimal digits")]
    AddressForm(String),
    #[error("address {0} fails its EIP-55 checksum; {1} would pass: compare every digit with the source, one of them was changed")]
    AddressChecksum(String, Address),
    #[error("address {0} is the zero address; money sent there is lost")]
    ZeroAddress(Address),
}

/// Reads an address from text.
///
/// `0x` and 40 hexadecimal digits; mixed case must satisfy EIP-55, because a person typed or copied
/// it and the checksum is the only thing that notices a slip. All-lower case carries no checksum and
/// is accepted. The zero address is refused.
pub fn parse_address(text: &str) -> Result<Address, ParseAssetError> {
    let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let Some(digits) = digits else {
        return Err(ParseAssetError::AddressForm(shorten(text)));
    };
    let parsed: Address = text.parse().map_err(|_| ParseAssetError::AddressForm(shorten(text)))?;
    let one_case = !digits.bytes().any(|byte| byte.is_ascii_uppercase()) || !digits.bytes().any(|byte| byte.is_ascii_lowercase());
    if !one_case && parsed.to_checksum(None) != text {
        return Err(ParseAssetError::AddressChecksum(text.to_owned(), parsed));
    }
    if parsed.is_zero() {
        return Err(ParseAssetError::ZeroAddress(parsed));
    }
    Ok(parsed)
}

/// Input that was refused is repeated in the error, but never at any length.
fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_id_refuses_zero_signs_and_overflow() {
        for bad in ["", "0", "-1", "+1", " 1", "1.0", "9223372036854775808", "0x1", "１"] {
            assert!(bad.parse::<ChainId>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("31337".parse::<ChainId>().unwrap().get(), 31_337);
    }

    #[test]
    fn xc18_addresses_with_a_wrong_checksum_or_form_are_refused() {
        let good = "0xdAC17F958D2ee523a2206206994597C13D831ec7";
        assert!(parse_address(good).is_ok());
        assert!(parse_address(&good.to_lowercase()).is_ok());
        assert!(matches!(parse_address("0xdAC17F958D2ee523a2206206994597C13D831eC7"), Err(ParseAssetError::AddressChecksum(..))));
        for bad in [
            "",
            "0x",
            "dAC17F958D2ee523a2206206994597C13D831ec7",
            "0xdAC17F958D2ee523a2206206994597C13D831e",
            "0xdAC17F958D2ee523a2206206994597C13D831ec7aa",
            "XE7338O073KYGTWWZN0F2WZ0R8PX5ZPPZS",
            "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
            "0xdAC17F958D2ee523a2206206994597C13D831eg7",
        ] {
            assert!(matches!(parse_address(bad), Err(ParseAssetError::AddressForm(_))), "{bad:?} was accepted");
        }
        assert!(matches!(parse_address(&format!("0x{}", "0".repeat(40))), Err(ParseAssetError::ZeroAddress(_))));
    }

    #[test]
    fn native_marker_round_trips() {
        assert_eq!(Asset::from_marker(Asset::Native.marker()), Asset::Native);
        let token = Asset::Token(address!("0xdAC17F958D2ee523a2206206994597C13D831ec7"));
        assert_eq!(Asset::from_marker(token.marker()), token);
    }
}
