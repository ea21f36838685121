//! The depeg machine: is a token worth its peg? It leaves par at once and comes back only after it has been
//! calm for a while, so that a price at the edge does not switch it at every round.

use std::fmt;

use alloy::primitives::U256;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use crate::units::{BPS, UsdRate};

/// Where a token stands. `calm_since_s` is when it came close enough to go back, without leaving since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DepegState {
    /// Worth its peg.
    Par,
    /// Worth its price.
    Adjusted { calm_since_s: Option<i64> },
    /// Refused.
    Halted { calm_since_s: Option<i64> },
}

/// What a round says about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DepegEvent {
    /// Its price.
    Price(Deviation),
    /// There was none for so many seconds.
    NoPrice { for_s: i64 },
}

/// How far a price is from a peg, exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deviation {
    price: UsdRate,
    peg: UsdRate,
}

impl Deviation {
    pub const fn of(price: UsdRate, peg: UsdRate) -> Self {
        Self { price, peg }
    }

    /// Equal to the limit is inside.
    pub fn is_within(self, limit_bps: u32) -> bool {
        self.is_within_tenths(U256::from(limit_bps) * U256::from(10))
    }

    fn is_within_tenths(self, limit: U256) -> bool {
        self.price.scaled().abs_diff(self.peg.scaled()) * U256::from(BPS * 10) <= self.peg.scaled() * limit
    }

    pub fn is_below(self) -> bool {
        self.price < self.peg
    }

    /// Signed, rounded half up.
    pub fn bps(self) -> i32 {
        ratio_bps(self.price, self.peg)
    }
}

/// (numerator / denominator - 1) in bps, rounded half toward plus infinity.
pub(super) fn ratio_bps(numerator: UsdRate, denominator: UsdRate) -> i32 {
    if denominator.is_zero() {
        return i32::MAX;
    }
    let doubled = numerator.scaled() * U256::from(2 * BPS) + denominator.scaled();
    let whole = doubled / (denominator.scaled() * U256::from(2));
    i32::try_from(whole).map_or(i32::MAX, |whole| whole.saturating_sub(10_000))
}

impl DepegState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Par => "par",
            Self::Adjusted { .. } => "adjusted",
            Self::Halted { .. } => "halted",
        }
    }

    /// Within this of its peg a token is worth its peg.
    pub const fn band_bps(self, limits: &Limits) -> u32 {
        match self {
            Self::Par => limits.depeg_enter_bps,
            Self::Adjusted { .. } | Self::Halted { .. } => limits.depeg_exit_bps,
        }
    }

    /// The whole machine. Every event is possible in every state.
    #[must_use]
    pub fn apply(self, event: DepegEvent, at_s: i64, limits: &Limits) -> Self {
        match event {
            DepegEvent::NoPrice { for_s } if for_s > i64::from(limits.depeg_gap_s) => self.not_calm(),
            DepegEvent::NoPrice { .. } => self,
            DepegEvent::Price(deviation) => self.at_price(deviation, at_s, limits),
        }
    }

    fn at_price(self, deviation: Deviation, at_s: i64, limits: &Limits) -> Self {
        if !deviation.is_within(limits.depeg_halt_bps) {
            return Self::Halted { calm_since_s: None };
        }
        let dwelt = |since_s: i64| at_s.saturating_sub(since_s) >= i64::from(limits.depeg_dwell_s);
        match self {
            Self::Par if deviation.is_within(limits.depeg_enter_bps) => Self::Par,
            Self::Par => Self::Adjusted { calm_since_s: None },
            Self::Adjusted { calm_since_s } if deviation.is_within(limits.depeg_exit_bps) => {
                let since_s = calm_since_s.unwrap_or(at_s);
                if dwelt(since_s) { Self::Par } else { Self::Adjusted { calm_since_s: Some(since_s) } }
            }
            Self::Adjusted { .. } => Self::Adjusted { calm_since_s: None },
            // Four fifths of the limit.
            Self::Halted { calm_since_s } if deviation.is_within_tenths(U256::from(limits.depeg_halt_bps) * U256::from(8)) => {
                let since_s = calm_since_s.unwrap_or(at_s);
                if dwelt(since_s) { Self::Adjusted { calm_since_s: None } } else { Self::Halted { calm_since_s: Some(since_s) } }
            }
            Self::Halted { .. } => Self::Halted { calm_since_s: None },
        }
    }

    const fn not_calm(self) -> Self {
        match self {
            Self::Par => Self::Par,
            Self::Adjusted { .. } => Self::Adjusted { calm_since_s: None },
            Self::Halted { .. } => Self::Halted { calm_since_s: None },
        }
    }
}

impl fmt::Display for DepegState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Par => f.write_str("par"),
            Self::Adjusted { calm_since_s: None } => f.write_str("adjusted"),
            Self::Halted { calm_since_s: None } => f.write_str("halted"),
            Self::Adjusted { calm_since_s: Some(since) } => write!(f, "adjusted, calm since {since}"),
            Self::Halted { calm_since_s: Some(since) } => write!(f, "halted, calm since {since}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deviation(price: &str) -> Deviation {
        Deviation::of(price.parse().unwrap(), UsdRate::one())
    }

    #[test]
    fn every_state_and_event() {
        let now = 10_000;
        let states = [
            DepegState::Par,
            DepegState::Adjusted { calm_since_s: None },
            DepegState::Adjusted { calm_since_s: Some(now - 1_799) },
            DepegState::Adjusted { calm_since_s: Some(now - 1_800) },
            DepegState::Halted { calm_since_s: None },
            DepegState::Halted { calm_since_s: Some(now - 1_799) },
            DepegState::Halted { calm_since_s: Some(now - 1_800) },
        ];
        let unit = "000000000000001";
        let prices = [
            "1".to_owned(),
            "0.999".to_owned(),
            format!("0.998{}", "9".repeat(15)),
            format!("1.001{}", "0".repeat(14) + "1"),
            "0.9975".to_owned(),
            format!("0.9974{}", "9".repeat(14)),
            "0.96".to_owned(),
            format!("0.959{}", "9".repeat(15)),
            "0.95".to_owned(),
            format!("0.949{}", "9".repeat(15)),
            "1.05".to_owned(),
            format!("1.050{unit}"),
        ];
        let limits = Limits::default();
        let mut table = String::new();
        for state in states {
            for price in &prices {
                let next = state.apply(DepegEvent::Price(deviation(price)), now, &limits);
                table.push_str(&format!("{:<28} {:<22} {next}\n", state.to_string(), price));
            }
            for for_s in [300, 301] {
                let next = state.apply(DepegEvent::NoPrice { for_s }, now, &limits);
                table.push_str(&format!("{:<28} {:<22} {next}\n", state.to_string(), format!("none for {for_s} s")));
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn q4_deviations_round_half_up_and_compare_exactly() {
        assert_eq!(deviation("0.84999999").bps(), -1_500);
        assert_eq!(deviation("1.0126").bps(), 126);
        assert_eq!(deviation("0.99995").bps(), 0, "half of one below rounds up");
        assert_eq!(deviation("1.00005").bps(), 1);
        assert!(deviation("0.999").is_within(10), "in floats (0.9990 - 1) x 10^4 is below -10");
        assert!(!deviation("0.998999999999999999").is_within(10));
        let two = "2".parse().unwrap();
        assert_eq!(Deviation::of("1.99".parse().unwrap(), two).bps(), -50);
    }
}
