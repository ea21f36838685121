//! Defaults of a payment's terms: what counts for a payment that is created without naming its own. Pure.

use std::fmt;
use std::str::FromStr;

/// A default, one whole number each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PaymentDefault {
    /// How much less than due still counts as whole, in hundredths of a per cent.
    ToleranceBps,
    /// How long after its expiry a payment that nothing came for waits before it has failed.
    LateWindowSeconds,
    PlatformFeeBps,
    ProviderFeeBps,
    /// In millionths of a whole token, whichever token it is.
    PlatformFeeMinMillionths,
    ProviderFeeMinMillionths,
}

impl PaymentDefault {
    pub const ALL: [Self; 6] = [
        Self::ToleranceBps,
        Self::LateWindowSeconds,
        Self::PlatformFeeBps,
        Self::ProviderFeeBps,
        Self::PlatformFeeMinMillionths,
        Self::ProviderFeeMinMillionths,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::ToleranceBps => "tolerance_bps",
            Self::LateWindowSeconds => "late_window_seconds",
            Self::PlatformFeeBps => "platform_fee_bps",
            Self::ProviderFeeBps => "provider_fee_bps",
            Self::PlatformFeeMinMillionths => "platform_fee_min_millionths",
            Self::ProviderFeeMinMillionths => "provider_fee_min_millionths",
        }
    }

    /// The largest value; the smallest is 0. The table has the same bounds.
    pub const fn largest(self) -> i64 {
        match self {
            Self::ToleranceBps => 1_000,
            Self::LateWindowSeconds => 90 * 24 * 3_600,
            Self::PlatformFeeBps | Self::ProviderFeeBps => 5_000,
            Self::PlatformFeeMinMillionths | Self::ProviderFeeMinMillionths => 1_000_000_000_000,
        }
    }

    /// What counts before the first row.
    pub const fn unset(self) -> i64 {
        match self {
            Self::LateWindowSeconds => 24 * 3_600,
            Self::ToleranceBps
            | Self::PlatformFeeBps
            | Self::ProviderFeeBps
            | Self::PlatformFeeMinMillionths
            | Self::ProviderFeeMinMillionths => 0,
        }
    }
}

impl fmt::Display for PaymentDefault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "payment_default:{}", self.name())
    }
}

impl FromStr for PaymentDefault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
            format!("is none of {}", known.join(", "))
        })
    }
}

/// All of them, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaymentDefaults([i64; 6]);

impl Default for PaymentDefaults {
    fn default() -> Self {
        Self(PaymentDefault::ALL.map(PaymentDefault::unset))
    }
}

impl PaymentDefaults {
    pub fn get(&self, which: PaymentDefault) -> i64 {
        PaymentDefault::ALL.iter().zip(self.0).find(|(known, _)| **known == which).map_or(which.unset(), |(_, value)| value)
    }

    #[must_use]
    pub fn with(mut self, which: PaymentDefault, value: i64) -> Self {
        for (known, place) in PaymentDefault::ALL.iter().zip(&mut self.0) {
            if *known == which {
                *place = value;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_default_has_its_own_place_and_name() {
        let mut defaults = PaymentDefaults::default();
        for (value, which) in (1..).zip(PaymentDefault::ALL) {
            defaults = defaults.with(which, value);
            assert_eq!(which.name().parse(), Ok(which));
        }
        assert_eq!(PaymentDefault::ALL.map(|which| defaults.get(which)), [1, 2, 3, 4, 5, 6]);
        assert!("fee".parse::<PaymentDefault>().is_err());
    }
}
