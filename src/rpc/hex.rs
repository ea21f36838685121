//! Hexadecimal as the JSON-RPC definition writes it, and nothing looser: a quantity has no leading
//! zeros, data has an even number of digits, digits are lower case except in addresses.
//!
//! The decoders of the usual libraries also take decimal text, missing prefixes and bare numbers. Here
//! a node that writes such things is faulty, and its answer is not used.

use std::fmt;

use alloy::primitives::{Address, B256, Bytes, FixedBytes, U256};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// A number: `0x0`, `0x1f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity(pub(super) U256);

/// Exactly N bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fixed<const N: usize>(pub(super) FixedBytes<N>);

/// 20 bytes whose digits may be in upper case, which EIP-55 uses as a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account(pub(super) Address);

/// Any number of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data(pub(super) Bytes);

impl Quantity {
    pub(super) fn to_u64(self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }

    pub(super) fn to_u128(self) -> Option<u128> {
        u128::try_from(self.0).ok()
    }
}

impl From<Fixed<32>> for B256 {
    fn from(fixed: Fixed<32>) -> Self {
        fixed.0
    }
}

fn parse_quantity(text: &str) -> Option<U256> {
    let digits = text.strip_prefix("0x")?;
    let canonical = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
    // Sixty-four digits are 256 bits; the bound also keeps the work small.
    if !canonical || digits.len() > 64 || !are_lower_digits(digits) {
        return None;
    }
    if digits.len() <= 16 {
        return u64::from_str_radix(digits, 16).ok().map(U256::from);
    }
    let mut padded = [b'0'; 64];
    padded[64 - digits.len()..].copy_from_slice(digits.as_bytes());
    let mut bytes = [0; 32];
    alloy::hex::decode_to_slice(padded, &mut bytes).ok()?;
    Some(U256::from_be_bytes(bytes))
}

fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?;
    if !are_lower_digits(digits) {
        return None;
    }
    alloy::hex::decode(digits).ok()
}

fn parse_fixed<const N: usize>(text: &str) -> Option<FixedBytes<N>> {
    let digits = text.strip_prefix("0x")?;
    if !are_lower_digits(digits) {
        return None;
    }
    let mut bytes = [0; N];
    alloy::hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(FixedBytes(bytes))
}

fn parse_account(text: &str) -> Option<Address> {
    let digits = text.strip_prefix("0x")?;
    let mut bytes = [0; 20];
    alloy::hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(Address::from(bytes))
}

/// Looks at every byte, also after a wrong one: without a way out the compiler takes many at a time.
fn are_lower_digits(digits: &str) -> bool {
    digits.bytes().fold(true, |fine, byte| fine & is_lower_digit(byte))
}

const fn is_lower_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Reads a JSON string through one of the parsers above.
struct Text<T> {
    parse: fn(&str) -> Option<T>,
    wanted: &'static str,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        // The text itself is a stranger's and may be long; its size says enough.
        (self.parse)(text).ok_or_else(|| E::custom(format_args!("a string of {} bytes is not {}", text.len(), self.wanted)))
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { parse: parse_quantity, wanted: "a hexadecimal quantity" }).map(Self)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { parse: parse_fixed::<N>, wanted: "hexadecimal data of the right length" }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { parse: parse_account, wanted: "an address" }).map(Self)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Text { parse: parse_bytes, wanted: "hexadecimal data" }).map(|bytes| Self(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
        serde_json::from_str(json).ok()
    }

    #[test]
    fn xc17_hexadecimal_is_taken_only_as_the_definition_writes_it() {
        assert_eq!(read::<Quantity>("\"0x0\""), Some(Quantity(U256::ZERO)));
        assert_eq!(read::<Quantity>("\"0x1f\""), Some(Quantity(U256::from(31))));
        let max = format!("\"0x{}\"", "f".repeat(64));
        assert_eq!(read::<Quantity>(&max), Some(Quantity(U256::MAX)));
        for bits in 0..256 {
            let power = U256::ONE << bits;
            for number in [power - U256::ONE, power, power + U256::ONE] {
                assert_eq!(read::<Quantity>(&format!("\"{number:#x}\"")), Some(Quantity(number)));
            }
        }
        let over = format!("\"0x1{}\"", "0".repeat(64));
        for bad in ["\"0x\"", "\"\"", "\"0x00\"", "\"0x01\"", "\"0xA\"", "\"0X1\"", "\"1\"", "\"-0x1\"", "1", "null", "\"0xg\"", &over] {
            assert_eq!(read::<Quantity>(bad), None, "{bad} was taken as a quantity");
        }

        assert_eq!(read::<Data>("\"0x\""), Some(Data(Bytes::new())));
        assert_eq!(read::<Data>("\"0x00ff\""), Some(Data(Bytes::from_static(&[0, 255]))));
        for bad in ["\"0x0\"", "\"0x0FF0\"", "\"00\"", "\"\"", "[0]", "null"] {
            assert_eq!(read::<Data>(bad), None, "{bad} was taken as data");
        }

        let hash = format!("\"0x{}\"", "ab".repeat(32));
        assert!(read::<Fixed<32>>(&hash).is_some());
        for bad in [format!("\"0x{}\"", "ab".repeat(31)), format!("\"0x{}\"", "ab".repeat(33)), hash.replace("ab", "AB")] {
            assert_eq!(read::<Fixed<32>>(&bad), None, "{bad} was taken as a hash");
        }

        for good in ["\"0xdac17f958d2ee523a2206206994597c13d831ec7\"", "\"0xdAC17F958D2ee523a2206206994597C13D831ec7\""] {
            assert!(read::<Account>(good).is_some());
        }
        for bad in ["\"0xdac17f958d2ee523a2206206994597c13d831e\"", "\"dac17f958d2ee523a2206206994597c13d831ec7\""] {
            assert_eq!(read::<Account>(bad), None);
        }
    }
}
