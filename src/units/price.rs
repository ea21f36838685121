//! Prices and rates: exact decimals, scaled integers underneath. Every rounding has a direction.
//!
//! [`Price`] is what a source says, with 36 places, so that a product of two quoted prices is exact.
//! [`UsdRate`] and [`Decimal18`] are what is stored, with the 18 places of `numeric(38,18)`. Absent on
//! purpose: floating point, `rust_decimal` (at 18 places it ends at 7.9e10 and rounds without a word), and
//! any conversion that rounds without saying where to.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{U256, U512};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Which way a number that must be rounded goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Toward {
    Down,
    Up,
}

/// Ten thousand basis points are one.
pub const BPS: u64 = 10_000;

const PRICE_PLACES: usize = 36;
const RATE_PLACES: usize = 18;
/// No price and no amount has more digits before the point: `numeric(38,18)` keeps 20.
const WHOLE_DIGITS_MAX: usize = 20;
const TEXT_LEN_MAX: usize = 80;

/// A price as a source gives it, 36 places. Zero also stands for what was not positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(U256);

/// US dollars for one unit of something, 18 places, below 10^20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsdRate(U256);

/// An amount in a currency or token, 18 places, below 10^20.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decimal18(U256);

/// A text or number that is no price.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("{0:?} is not a plain decimal number")]
    Form(String),
    #[error("{0} is below zero")]
    Negative(String),
    #[error("{text} has more than {places} decimals; it would have to be rounded")]
    TooPrecise { text: String, places: usize },
    #[error("{0} is 10^20 or more")]
    TooLarge(String),
    #[error("division by a price of zero")]
    Zero,
}

impl Price {
    pub const ZERO: Self = Self(U256::ZERO);
    /// Above every price that can be read.
    pub const LARGEST: Self = Self(U256::from_limbs([0, 0, 0, 1 << 60]));

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// The scaled integer: 10^36 is one.
    pub const fn scaled(self) -> U256 {
        self.0
    }

    /// An integer with an exponent of ten, as feeds give it: `from_scaled(99970000, -8)` is 0.9997.
    pub fn from_scaled(integer: U256, exponent: i32) -> Result<Self, PriceError> {
        let shown = || format!("{integer}e{exponent}");
        let places = i32::try_from(PRICE_PLACES).unwrap_or(i32::MAX) + exponent;
        let scaled = match u32::try_from(places) {
            Ok(up) => U256::from(10).checked_pow(U256::from(up)).and_then(|power| integer.checked_mul(power)),
            Err(_) => {
                let power = U256::from(10).checked_pow(U256::from(places.unsigned_abs())).ok_or_else(|| PriceError::Form(shown()))?;
                if !(integer % power).is_zero() {
                    return Err(PriceError::TooPrecise { text: shown(), places: PRICE_PLACES });
                }
                Some(integer / power)
            }
        };
        scaled.map(Self).filter(|price| price.0 < pow10(PRICE_PLACES + WHOLE_DIGITS_MAX)).ok_or_else(|| PriceError::TooLarge(shown()))
    }

    /// The product, rounded at 36 places.
    pub fn times(self, other: Self, toward: Toward) -> Result<Self, PriceError> {
        mul_div(self.0, other.0, pow10(PRICE_PLACES), toward).map(Self).ok_or_else(|| PriceError::TooLarge(format!("{self} x {other}")))
    }

    /// The quotient, rounded at 36 places.
    pub fn over(self, other: Self, toward: Toward) -> Result<Self, PriceError> {
        if other.is_zero() {
            return Err(PriceError::Zero);
        }
        mul_div(self.0, pow10(PRICE_PLACES), other.0, toward).map(Self).ok_or_else(|| PriceError::TooLarge(format!("{self} / {other}")))
    }

    /// One.
    pub fn one() -> Self {
        Self(pow10(PRICE_PLACES))
    }

    /// The difference, or zero.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The middle of two prices; the last of 36 places is cut.
    pub fn middle(self, other: Self) -> Self {
        Self((self.0 + other.0) / U256::from(2))
    }
}

impl UsdRate {
    pub fn one() -> Self {
        Self(pow10(RATE_PLACES))
    }

    /// Half of a doubled price, rounded once at 18 places. Aggregates are kept doubled: their median may lie
    /// between two prices.
    pub fn from_doubled(doubled: U256, toward: Toward) -> Result<Self, PriceError> {
        let unit = pow10(PRICE_PLACES - RATE_PLACES) * U256::from(2);
        let (whole, rest) = doubled.div_rem(unit);
        let up = toward == Toward::Up && !rest.is_zero();
        let rate = whole + U256::from(u8::from(up));
        if rate < limit18() { Ok(Self(rate)) } else { Err(PriceError::TooLarge(rate.to_string())) }
    }
}

impl From<UsdRate> for Price {
    fn from(rate: UsdRate) -> Self {
        Self(rate.0 * pow10(PRICE_PLACES - RATE_PLACES))
    }
}

macro_rules! eighteen_places {
    ($($name:ident),*) => {$(
        impl $name {
            pub const ZERO: Self = Self(U256::ZERO);

            pub fn is_zero(self) -> bool {
                self.0.is_zero()
            }

            /// The scaled integer: 10^18 is one.
            pub const fn scaled(self) -> U256 {
                self.0
            }

            /// From the scaled integer; below 10^38.
            pub fn from_scaled(scaled: U256) -> Result<Self, PriceError> {
                if scaled < limit18() { Ok(Self(scaled)) } else { Err(PriceError::TooLarge(scaled.to_string())) }
            }
        }

        impl FromStr for $name {
            type Err = PriceError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                parse(text, RATE_PLACES).map(Self)
            }
        }

        /// All 18 places, as the database gives them back.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let digits = format!("{:0>width$}", self.0.to_string(), width = RATE_PLACES + 1);
                let (whole, fraction) = digits.split_at(digits.len() - RATE_PLACES);
                write!(f, "{whole}.{fraction}")
            }
        }
    )*};
}

eighteen_places!(UsdRate, Decimal18);

impl FromStr for Price {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, PRICE_PLACES).map(Self)
    }
}

/// Without trailing zeros.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:0>width$}", self.0.to_string(), width = PRICE_PLACES + 1);
        let (whole, fraction) = digits.split_at(digits.len() - PRICE_PLACES);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { f.write_str(whole) } else { write!(f, "{whole}.{fraction}") }
    }
}

macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(Price, UsdRate, Decimal18, MicroBps);

/// Basis points with six decimals: half a spread, or a feed's confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroBps(u64);

const MICRO: u64 = 1_000_000;

impl MicroBps {
    pub const fn from_bps(bps: u32) -> Self {
        Self(bps as u64 * MICRO)
    }

    /// `part` of `whole`, rounded up; more than the type holds counts as its largest value.
    pub fn of(part: Price, whole: Price) -> Self {
        if whole.is_zero() {
            return Self(u64::MAX);
        }
        let micro = mul_div(part.0, U256::from(BPS * MICRO), whole.0, Toward::Up);
        Self(micro.and_then(|micro| u64::try_from(micro).ok()).unwrap_or(u64::MAX))
    }

    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// So many times as much.
    #[must_use]
    pub const fn times(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }

    /// Whether two prices are further apart than this, of the lower one.
    pub fn is_exceeded_between(self, one: Price, other: Price) -> bool {
        Self::of(Price(one.0.abs_diff(other.0)), one.min(other)) > self
    }
}

impl FromStr for MicroBps {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let scaled = parse(text, 6)?;
        u64::try_from(scaled).map(Self).map_err(|_| PriceError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for MicroBps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:06}", self.0 % MICRO);
        let fraction = fraction.trim_end_matches('0');
        let whole = self.0 / MICRO;
        if fraction.is_empty() { write!(f, "{whole}") } else { write!(f, "{whole}.{fraction}") }
    }
}

/// `a × b ÷ divisor`, exact in between; `None` where the result exceeds 2^256 - 1 or the divisor is zero.
pub fn mul_div(a: U256, b: U256, divisor: U256, toward: Toward) -> Option<U256> {
    if divisor.is_zero() {
        return None;
    }
    narrow(wide_div(a.widening_mul(b), U512::from(divisor), toward))
}

/// A quotient of wide integers; the divisor is not zero.
pub fn wide_div(numerator: U512, divisor: U512, toward: Toward) -> U512 {
    let (quotient, rest) = numerator.div_rem(divisor);
    if toward == Toward::Up && !rest.is_zero() { quotient + U512::from(1) } else { quotient }
}

/// Back to 256 bits, or `None`.
pub fn narrow(wide: U512) -> Option<U256> {
    let limbs = wide.as_limbs();
    limbs[4..].iter().all(|limb| *limb == 0).then(|| U256::from_limbs([limbs[0], limbs[1], limbs[2], limbs[3]]))
}

/// A power of ten that fits.
pub fn pow10(exponent: usize) -> U256 {
    U256::from(10).pow(U256::from(exponent))
}

fn limit18() -> U256 {
    pow10(RATE_PLACES + WHOLE_DIGITS_MAX)
}

/// Digits, at most one point, and an exponent where a bare JSON number has one. Exactly or not at all.
fn parse(text: &str, places: usize) -> Result<U256, PriceError> {
    let shown = || text.chars().take(TEXT_LEN_MAX).collect::<String>();
    let form = || PriceError::Form(shown());
    if text.len() > TEXT_LEN_MAX {
        return Err(form());
    }
    let (plain, negative) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
    let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
        None => (plain, 0),
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i16>().map_err(|_| form())?),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    if whole.is_empty() || fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(form());
    }
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(U256::ZERO);
    }
    if negative {
        return Err(PriceError::Negative(shown()));
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    let significant = &digits[..digits.len() - trailing];
    // significant × 10^power
    let power = i64::from(exponent) + trailing as i64 - fraction.len() as i64;
    let shift = places as i64 + power;
    if shift < 0 {
        return Err(PriceError::TooPrecise { text: shown(), places });
    }
    if significant.len() as i64 + power > WHOLE_DIGITS_MAX as i64 {
        return Err(PriceError::TooLarge(shown()));
    }
    let shift = usize::try_from(shift).map_err(|_| form())?;
    let significant = U256::from_str_radix(significant, 10).map_err(|_| PriceError::TooLarge(shown()))?;
    significant.checked_mul(pow10(shift)).ok_or_else(|| PriceError::TooLarge(shown()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn l9_prices_read_exactly_or_not_at_all() {
        for (text, shown) in [
            ("1", "1"),
            ("0.8774", "0.8774"),
            ("462485", "462485"),
            ("1.0000000", "1"),
            ("1e-7", "0.0000001"),
            ("4.62485E5", "462485"),
            ("0", "0"),
            ("-0.0", "0"),
            ("00.5", "0.5"),
            ("173539.0000000000000000", "173539"),
        ] {
            assert_eq!(text.parse::<Price>().unwrap().to_string(), shown, "{text}");
        }
        for bad in ["", ".", "1.", ".5", "NaN", "nan", "Infinity", "+1", "1,0", " 1", "1 ", "0x1", "1e", "1e99999", "--1", "１"] {
            assert!(matches!(bad.parse::<Price>(), Err(PriceError::Form(_))), "{bad:?} was accepted");
        }
        assert!(matches!("-1".parse::<Price>(), Err(PriceError::Negative(_))));
        assert!(matches!("1e20".parse::<Price>(), Err(PriceError::TooLarge(_))));
        assert!(matches!("1e-37".parse::<Price>(), Err(PriceError::TooPrecise { .. })));
        assert!(matches!("0.0000000000000000001".parse::<UsdRate>(), Err(PriceError::TooPrecise { .. })));
        let largest = "99999999999999999999.999999999999999999";
        assert_eq!(largest.parse::<Decimal18>().unwrap().to_string(), largest);
        assert_eq!("1.0586".parse::<UsdRate>().unwrap().to_string(), "1.058600000000000000");
    }

    #[test]
    fn q2_roundings_go_where_they_say() {
        let price = |text: &str| text.parse::<Price>().unwrap();
        let cross = price("1.0586").over(price("20.0737"), Toward::Up).unwrap();
        assert_eq!(UsdRate::from_doubled(cross.scaled() * U256::from(2), Toward::Up).unwrap().to_string(), "0.052735669059515685");
        assert_eq!(UsdRate::from_doubled(cross.scaled() * U256::from(2), Toward::Down).unwrap().to_string(), "0.052735669059515684");
        assert_eq!(Price::from_scaled(U256::from(99_970_000), -8).unwrap(), price("0.9997"));
        assert!(Price::from_scaled(U256::MAX, 0).is_err());
        assert_eq!(price("0.9997").times(price("1.0002"), Toward::Down).unwrap(), price("0.99989994"));
        assert_eq!(price("1").over(Price::ZERO, Toward::Up), Err(PriceError::Zero));
        assert_eq!(MicroBps::of(price("0.0003"), price("1")).to_string(), "3");
        assert_eq!("69.5".parse::<MicroBps>().unwrap().to_string(), "69.5");
        assert!(MicroBps::from_bps(50).is_exceeded_between(price("1"), price("1.0050001")));
        assert!(!MicroBps::from_bps(50).is_exceeded_between(price("1"), price("1.005")));
    }

    proptest! {
        #[test]
        fn l9_text_and_back_is_the_identity(low in any::<u128>(), whole in 0_u64..u64::MAX) {
            let scaled = (U256::from(whole) * pow10(18) + U256::from(low) % pow10(18)) % limit18();
            let rate = UsdRate::from_scaled(scaled).unwrap();
            prop_assert_eq!(rate.to_string().parse::<UsdRate>().unwrap(), rate);
            let price = Price::from(rate);
            prop_assert_eq!(price.to_string().parse::<Price>().unwrap(), price);
        }

        #[test]
        fn parsing_any_text_never_panics(text in ".{0,90}") {
            let _ = text.parse::<Price>();
            let _ = text.parse::<UsdRate>();
            let _ = text.parse::<MicroBps>();
        }
    }
}
