//! Amounts: whole base units of one asset, exactly. No float, no rounding, no mixing of assets.

use std::fmt;

use alloy::primitives::U256;

use super::asset::AssetId;

/// An amount of one asset in base units (wei, or the token's smallest unit).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenAmount {
    pub asset: AssetId,
    pub units: U256,
}

impl TokenAmount {
    pub const fn new(asset: AssetId, units: U256) -> Self {
        Self { asset, units }
    }

    pub fn checked_add(self, other: Self) -> Result<Self, AmountError> {
        self.same_asset(other)?;
        let units = self.units.checked_add(other.units).ok_or_else(|| AmountError::Overflow(Operands::of(self, other)))?;
        Ok(Self { asset: self.asset, units })
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, AmountError> {
        self.same_asset(other)?;
        let units = self.units.checked_sub(other.units).ok_or_else(|| AmountError::Negative(Operands::of(self, other)))?;
        Ok(Self { asset: self.asset, units })
    }

    fn same_asset(self, other: Self) -> Result<(), AmountError> {
        if self.asset == other.asset { Ok(()) } else { Err(AmountError::OtherAsset(Operands::of(self, other))) }
    }
}

impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} units of {}", self.units, self.asset)
    }
}

/// The two amounts of a refused operation; boxed, so that results stay small.
#[derive(Debug, PartialEq, Eq)]
pub struct Operands {
    pub left: TokenAmount,
    pub right: TokenAmount,
}

impl Operands {
    fn of(left: TokenAmount, right: TokenAmount) -> Box<Self> {
        Box::new(Self { left, right })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    #[error("{} and {} are different assets", .0.left, .0.right)]
    OtherAsset(Box<Operands>),
    #[error("{} and {} together exceed 2^256 - 1 units", .0.left, .0.right)]
    Overflow(Box<Operands>),
    #[error("{} is more than {}", .0.right, .0.left)]
    Negative(Box<Operands>),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    #[error("amount {0:?} is not a plain decimal number such as 12.5 (digits, at most one point; no sign, exponent, comma or space)")]
    Form(String),
    #[error("amount {text} has {found} decimals, this asset has {decimals}; it would have to be rounded")]
    TooManyDecimals { text: String, found: usize, decimals: u8 },
    #[error("amount {0} exceeds 2^256 - 1 base units")]
    TooLarge(String),
}

/// Longest text that can be a uint256 with a point: 78 digits, the point, and leading zeros refused.
const TEXT_LEN_MAX: usize = 100;

/// Reads a decimal amount of an asset with `decimals` places into base units, exactly or not at all.
pub fn parse_units(text: &str, decimals: u8) -> Result<U256, ParseAmountError> {
    let form = || ParseAmountError::Form(text.chars().take(TEXT_LEN_MAX).collect());
    if text.len() > TEXT_LEN_MAX {
        return Err(form());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if whole.is_empty() || fraction.is_empty() || !(whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())) {
        return Err(form());
    }
    if whole.len() > 1 && whole.starts_with('0') {
        return Err(form());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > usize::from(decimals) {
        return Err(ParseAmountError::TooManyDecimals { text: text.to_owned(), found: fraction.len(), decimals });
    }
    let digits = format!("{whole}{fraction:0<width$}", width = usize::from(decimals));
    U256::from_str_radix(&digits, 10).map_err(|_| ParseAmountError::TooLarge(text.to_owned()))
}

/// Reads a whole number of base units.
pub fn parse_base_units(text: &str) -> Result<U256, ParseAmountError> {
    if text.contains('.') {
        return Err(ParseAmountError::Form(text.chars().take(TEXT_LEN_MAX).collect()));
    }
    parse_units(text, 0)
}

/// Writes base units as a decimal number, without trailing zeros: the inverse of [`parse_units`].
pub fn format_units(units: U256, decimals: u8) -> String {
    let places = usize::from(decimals);
    let digits = format!("{:0>width$}", units.to_string(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

/// Writes a whole number with a comma after every third digit, as the device's screen does.
pub fn group_thousands(units: U256) -> String {
    let digits = units.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;
    use proptest::prelude::*;

    use super::*;
    use crate::units::{Asset, ChainId};

    #[test]
    fn xn_numbers_that_are_not_exact_are_refused() {
        for bad in [
            "",
            ".",
            "1.",
            ".5",
            "NaN",
            "nan",
            "Infinity",
            "-Infinity",
            "-0",
            "-1",
            "+1",
            "1e18",
            "1E2",
            "1,0",
            "1 ",
            " 1",
            "１",
            "0x10",
            "1.0.0",
            "1_000",
            "00",
            "01.5",
            "null",
        ] {
            assert!(matches!(parse_units(bad, 6), Err(ParseAmountError::Form(_))), "{bad:?} was accepted");
        }
        assert!(matches!(parse_units("1.0000001", 6), Err(ParseAmountError::TooManyDecimals { found: 7, decimals: 6, .. })));
        assert!(matches!(parse_base_units("1.5"), Err(ParseAmountError::Form(_))));
        assert!(matches!(parse_base_units("1.0"), Err(ParseAmountError::Form(_))));
        assert!(matches!(parse_units(&"9".repeat(10_000), 6), Err(ParseAmountError::Form(_))));
        let over = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        assert!(matches!(parse_base_units(over), Err(ParseAmountError::TooLarge(_))));
    }

    #[test]
    fn l9_edge_values_are_exact() {
        assert_eq!(parse_units("1.500000", 6), Ok(U256::from(1_500_000)));
        assert_eq!(parse_units("0.000001", 6), Ok(U256::from(1)));
        assert_eq!(parse_units("1", 18), Ok(U256::from(10).pow(U256::from(18))));
        assert_eq!(format_units(U256::from(1), 18), "0.000000000000000001");
        assert_eq!(format_units(U256::ZERO, 6), "0");
        assert_eq!(parse_base_units(&U256::MAX.to_string()), Ok(U256::MAX));
        assert_eq!(group_thousands(U256::from(123_456_789)), "123,456,789");
        assert_eq!(group_thousands(U256::from(12)), "12");
    }

    proptest! {
        #[test]
        fn l9_format_then_parse_is_the_identity(limbs in any::<[u64; 4]>(), decimals in 0_u8..=77) {
            let units = U256::from_limbs(limbs);
            prop_assert_eq!(parse_units(&format_units(units, decimals), decimals), Ok(units));
        }

        #[test]
        fn parsing_any_text_never_panics(text in ".{0,120}", decimals in any::<u8>()) {
            let _ = parse_units(&text, decimals);
        }
    }

    #[test]
    fn l1_amounts_of_two_assets_do_not_add() {
        let chain = ChainId::new(1).unwrap();
        let native = TokenAmount::new(AssetId { chain, asset: Asset::Native }, U256::from(1));
        let token = TokenAmount::new(AssetId { chain, asset: Asset::Token(Address::repeat_byte(1)) }, U256::from(1));
        assert!(matches!(native.checked_add(token), Err(AmountError::OtherAsset(_))));
        assert!(matches!(native.checked_sub(TokenAmount::new(native.asset, U256::from(2))), Err(AmountError::Negative(_))));
        assert!(matches!(native.checked_add(TokenAmount::new(native.asset, U256::MAX)), Err(AmountError::Overflow(_))));
    }
}
