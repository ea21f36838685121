//! Hexadecimal as the JSON-RPC definition writes it, and nothing looser: a quantity has no leading
//! zeros, data has an even number of digits, digits are lower case except in addresses.
//!
//! The decoders of the usual libraries also take decimal text, missing prefixes and bare numbers. Here
//! a node that writes such things is faulty, and its answer is not used.

use alloy::primitives::{Address, B256, Bytes, FixedBytes, U256};

use super::json::{Flaw, Reader, Wire};

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

// === reading ===

const A_QUANTITY: &str = "a hexadecimal quantity";
const FIXED_DATA: &str = "hexadecimal data of the right length";
const DATA: &str = "hexadecimal data";
const AN_ADDRESS: &str = "an address";

impl Wire for Quantity {
    #[inline]
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        // Most numbers fit a word: they are read digit by digit, up to the quotation mark.
        if let Some(digits) = reader.rest().strip_prefix(b"\"0x") {
            let (mut word, mut count) = (0_u64, 0);
            while let Some(digit) = digits.get(count).and_then(|&byte| digit_of(byte))
                && count < 16
            {
                word = word << 4 | u64::from(digit);
                count += 1;
            }
            let canonical = count == 1 || (count > 1 && digits.first() != Some(&b'0'));
            if canonical && digits.get(count) == Some(&b'"') {
                reader.advance(count + 4);
                return Ok(Self(U256::from(word)));
            }
        }
        parse_quantity(&reader.string(A_QUANTITY)?).map(Self).ok_or(Flaw::Unlike(A_QUANTITY))
    }
}

impl<const N: usize> Wire for Fixed<N> {
    #[inline]
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut bytes = [0; N];
        if read_fixed(reader, &mut bytes, Case::Lower) {
            return Ok(Self(FixedBytes(bytes)));
        }
        let text = reader.string(FIXED_DATA)?;
        match text.strip_prefix("0x") {
            Some(digits) if decode(digits.as_bytes(), &mut bytes, Case::Lower) => Ok(Self(FixedBytes(bytes))),
            Some(_) | None => Err(Flaw::Unlike(FIXED_DATA)),
        }
    }
}

impl Wire for Account {
    #[inline]
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        let mut bytes = [0; 20];
        if read_fixed(reader, &mut bytes, Case::Any) {
            return Ok(Self(Address::from(bytes)));
        }
        let text = reader.string(AN_ADDRESS)?;
        match text.strip_prefix("0x") {
            Some(digits) if decode(digits.as_bytes(), &mut bytes, Case::Any) => Ok(Self(Address::from(bytes))),
            Some(_) | None => Err(Flaw::Unlike(AN_ADDRESS)),
        }
    }
}

impl Wire for Data {
    #[inline]
    fn from_wire(reader: &mut Reader<'_>) -> Result<Self, Flaw> {
        // The data of a transfer is one word.
        let mut word = [0; 32];
        if read_fixed(reader, &mut word, Case::Lower) {
            return Ok(Self(Bytes::copy_from_slice(&word)));
        }
        let text = reader.string(DATA)?;
        let digits = text.strip_prefix("0x").ok_or(Flaw::Unlike(DATA))?;
        let mut bytes = vec![0; digits.len() / 2];
        if decode(digits.as_bytes(), &mut bytes, Case::Lower) { Ok(Self(bytes.into())) } else { Err(Flaw::Unlike(DATA)) }
    }
}

/// Reads a string of a known length, if that is what is next. If it is not, nothing is consumed, and the
/// slow way says what is wrong: an escape, most likely, or no string at all.
#[inline(always)]
fn read_fixed<const N: usize>(reader: &mut Reader<'_>, bytes: &mut [u8; N], case: Case) -> bool {
    let length = N * 2 + 4;
    let Some([b'"', b'0', b'x', digits @ .., b'"']) = reader.rest().get(..length) else { return false };
    if !decode(digits, bytes, case) {
        return false;
    }
    reader.advance(length);
    true
}

fn parse_quantity(text: &str) -> Option<U256> {
    let digits = text.strip_prefix("0x")?;
    let canonical = digits == "0" || (!digits.is_empty() && !digits.starts_with('0'));
    // Sixty-four digits are 256 bits; the bound also keeps the work small.
    if !canonical || digits.len() > 64 {
        return None;
    }
    let mut padded = [b'0'; 64];
    padded[64 - digits.len()..].copy_from_slice(digits.as_bytes());
    let mut bytes = [0; 32];
    decode(&padded, &mut bytes, Case::Lower).then(|| U256::from_be_bytes(bytes))
}

// === digits ===

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    /// Also upper, and both together.
    Any,
}

const fn digit_of(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Two digits to a byte; false where there are more or fewer than that, or others than digits.
#[inline(always)]
fn decode(digits: &[u8], bytes: &mut [u8], case: Case) -> bool {
    if digits.len() != bytes.len() * 2 {
        return false;
    }
    let mut fine = true;
    let (digits, digits_left) = digits.as_chunks::<32>();
    let (bytes, bytes_left) = bytes.as_chunks_mut::<16>();
    for (digits, bytes) in digits.iter().zip(bytes) {
        fine &= decode_some(digits, bytes, case);
    }
    let (digits, digits_left) = digits_left.as_chunks::<8>();
    let (bytes, bytes_left) = bytes_left.as_chunks_mut::<4>();
    for (digits, bytes) in digits.iter().zip(bytes) {
        fine &= decode_some(digits, bytes, case);
    }
    let (digits, _) = digits_left.as_chunks::<2>();
    let (bytes, _) = bytes_left.as_chunks_mut::<1>();
    for (digits, bytes) in digits.iter().zip(bytes) {
        fine &= decode_some(digits, bytes, case);
    }
    fine
}

/// Step by step over all digits, also after a wrong one: so the compiler takes sixteen at a time.
#[inline(always)]
fn decode_some<const D: usize, const B: usize>(digits: &[u8; D], bytes: &mut [u8; B], case: Case) -> bool {
    const { assert!(D == B * 2) };
    let (mut halves, mut wrong) = ([0; D], [0; D]);
    for ((half, wrong), &digit) in halves.iter_mut().zip(&mut wrong).zip(digits) {
        (*half, *wrong) = value_of(digit, case);
    }
    let (pairs, _) = halves.as_chunks::<2>();
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = high << 4 | low;
    }
    wrong.iter().fold(0, |all, one| all | one) == 0
}

/// What a digit counts; and zero if it is one.
#[inline(always)]
const fn value_of(digit: u8, case: Case) -> (u8, u8) {
    let decimal = digit.wrapping_sub(b'0');
    let lower = match case {
        Case::Lower => digit,
        Case::Any => digit | 0x20,
    };
    let letter = lower.wrapping_sub(b'a');
    let value = if letter < 6 { letter.wrapping_add(10) } else { decimal };
    (value, if (decimal < 10) | (letter < 6) { 0 } else { 0xff })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Wire>(json: &str) -> Option<T> {
        crate::rpc::json::read_whole(json).ok()
    }

    #[test]
    fn xc17_every_byte_is_a_digit_or_is_none() {
        for length in [2_usize, 4, 8, 10, 32, 40, 64, 74] {
            for byte in 0..=u8::MAX {
                for place in 0..length {
                    let mut digits = vec![b'7'; length];
                    digits[place] = byte;
                    for (case, is_digit) in
                        [(Case::Lower, matches!(byte, b'0'..=b'9' | b'a'..=b'f')), (Case::Any, byte.is_ascii_hexdigit())]
                    {
                        let mut bytes = vec![0; length / 2];
                        assert_eq!(decode(&digits, &mut bytes, case), is_digit, "{byte:#x} at {place} of {length}");
                        if is_digit {
                            assert_eq!(Ok(bytes), alloy::hex::decode(&digits), "{byte:#x} at {place} of {length}");
                        }
                    }
                }
            }
        }
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
        for bad in [
            "\"0xdac17f958d2ee523a2206206994597c13d831e\"",
            "\"dac17f958d2ee523a2206206994597c13d831ec7\"",
            "\"0x0xdac17f958d2ee523a2206206994597c13d831ec7\"",
            "\"0Xdac17f958d2ee523a2206206994597c13d831ec7\"",
        ] {
            assert_eq!(read::<Account>(bad), None);
        }
    }
}
