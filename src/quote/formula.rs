//! The formula: what is owed, a rate, a price and a peg rule make an amount of a token. One rounding, up,
//! at the end: every other one has already favoured who is paid.

use std::fmt;

use alloy::primitives::{U256, U512};
use serde::{Deserialize, Serialize};

use super::depeg::{Deviation, ratio_bps};
use super::refusal::Refusal;
use crate::units::{BPS, Decimal18, Toward, UsdRate, narrow, pow10, wide_div};

/// What a token above its peg is taken at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "quote_policy", rename_all = "snake_case")]
pub enum Policy {
    /// Its peg: the payer gets no discount.
    SellerWhole,
    /// Its price.
    TwoSided,
    /// Its peg, whatever it costs. For comparisons only: no setting leads here.
    None,
}

/// Where the price stood, seen from the band in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[sqlx(type_name = "quote_peg_state")]
pub enum PegState {
    #[serde(rename = "n/a")]
    #[sqlx(rename = "n/a")]
    None,
    #[serde(rename = "par")]
    #[sqlx(rename = "par")]
    Par,
    #[serde(rename = "below_peg")]
    #[sqlx(rename = "below_peg")]
    BelowPeg,
    #[serde(rename = "above_peg")]
    #[sqlx(rename = "above_peg")]
    AbovePeg,
}

impl PegState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "n/a",
            Self::Par => "par",
            Self::BelowPeg => "below_peg",
            Self::AbovePeg => "above_peg",
        }
    }
}

impl fmt::Display for PegState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Policy {
    pub const fn name(self) -> &'static str {
        match self {
            Self::SellerWhole => "seller_whole",
            Self::TwoSided => "two_sided",
            Self::None => "none",
        }
    }

    /// By its setting.
    pub const fn of_setting(value: u32) -> Self {
        if value == 1 { Self::TwoSided } else { Self::SellerWhole }
    }
}

/// A peg and the rule about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PegRule {
    pub peg: UsdRate,
    pub policy: Policy,
    /// Within this the token is worth its peg.
    pub band_bps: u32,
    /// Beyond this there is no quote.
    pub halt_bps: u32,
}

/// Everything the amount depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// In the price currency.
    pub amount: Decimal18,
    /// US dollars for one unit of the price currency, rounded up.
    pub fx_rate: UsdRate,
    /// US dollars for one token, rounded down.
    pub token_price: UsdRate,
    pub peg: Option<PegRule>,
    pub premium_bps: u32,
    /// Decimals of the amount.
    pub step: u8,
    /// Decimals of the token on its chain; not fewer than the step.
    pub decimals: u8,
}

/// The amount and how it came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    pub settle_amount: Decimal18,
    pub settle_units: U256,
    /// The price that was used.
    pub effective_price: UsdRate,
    /// For people; it is in the price already and multiplies nothing.
    pub depeg_adjustment_bps: i32,
    pub peg_state: PegState,
}

/// How fine an amount is: typeable, and never finer than the token.
pub fn step_of(stable: bool, decimals: u8) -> u8 {
    decimals.min(if stable { 6 } else { 8 })
}

/// `ceil_step(amount × fx_rate × (1 + premium) / effective_price)`.
pub fn settle(terms: &Terms) -> Result<Settled, Refusal> {
    if terms.amount.is_zero() {
        return Err(Refusal::AmountNotPositive);
    }
    for (field, rate) in [("fx_rate", terms.fx_rate), ("token_price_usd", terms.token_price)] {
        if rate.is_zero() {
            return Err(Refusal::RateNotPositive { field });
        }
    }
    let (effective_price, peg_state) = effective(terms)?;
    let depeg_adjustment_bps = terms.peg.map_or(0, |rule| ratio_bps(rule.peg, effective_price));
    let steps = steps(terms, effective_price).ok_or(Refusal::SettleOverflow)?;
    let amount = steps.checked_mul(pow10(usize::from(18 - terms.step.min(18)))).ok_or(Refusal::SettleOverflow)?;
    let settle_amount = Decimal18::from_scaled(amount).map_err(|_| Refusal::SettleOverflow)?;
    let finer = terms.decimals.checked_sub(terms.step).ok_or(Refusal::SettleOverflow)?;
    let settle_units = steps.checked_mul(pow10(usize::from(finer))).ok_or(Refusal::SettleOverflow)?;
    Ok(Settled { settle_amount, settle_units, effective_price, depeg_adjustment_bps, peg_state })
}

/// The price that is used, and where the token stands.
fn effective(terms: &Terms) -> Result<(UsdRate, PegState), Refusal> {
    let price = terms.token_price;
    let Some(rule) = terms.peg else { return Ok((price, PegState::None)) };
    let deviation = Deviation::of(price, rule.peg);
    if !deviation.is_within(rule.halt_bps) {
        let (deviation_bps, limit_bps) = (deviation.bps(), rule.halt_bps);
        return Err(Refusal::DepegHalt { token: "the token".to_owned(), deviation_bps, limit_bps, by_operator: false });
    }
    Ok(match rule.policy {
        Policy::None => (rule.peg, PegState::Par),
        Policy::SellerWhole | Policy::TwoSided if deviation.is_within(rule.band_bps) => (rule.peg, PegState::Par),
        Policy::SellerWhole | Policy::TwoSided if deviation.is_below() => (price, PegState::BelowPeg),
        Policy::SellerWhole => (rule.peg, PegState::AbovePeg),
        Policy::TwoSided => (price, PegState::AbovePeg),
    })
}

/// The amount in steps. The numerator reaches 10^94, so the product is 512 bits wide.
fn steps(terms: &Terms, effective: UsdRate) -> Option<U256> {
    let owed: U512 = terms.amount.scaled().widening_mul(terms.fx_rate.scaled());
    let scale = pow10(usize::from(terms.step)).checked_mul(U256::from(BPS + u64::from(terms.premium_bps)))?;
    let numerator = owed.checked_mul(U512::from(scale))?;
    let divisor: U512 = effective.scaled().widening_mul(pow10(18) * U256::from(BPS));
    narrow(wide_div(numerator, divisor, Toward::Up))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(amount: u64, fx: u64, price: u64) -> Terms {
        let rate = |micro: u64| UsdRate::from_scaled(U256::from(micro) * pow10(12)).unwrap();
        Terms {
            amount: Decimal18::from_scaled(U256::from(amount) * pow10(12)).unwrap(),
            fx_rate: rate(fx),
            token_price: rate(price),
            peg: Some(PegRule { peg: UsdRate::one(), policy: Policy::SellerWhole, band_bps: 25, halt_bps: 5_000 }),
            premium_bps: 0,
            step: 6,
            decimals: 6,
        }
    }

    /// The same by another way: whole steps that are enough, and one fewer that is not.
    fn is_least_enough(terms: &Terms, settled: &Settled) -> bool {
        let step = pow10(usize::from(18 - terms.step));
        let worth = |amount: U256| -> U512 { amount.widening_mul(settled.effective_price.scaled()) };
        let owed: U512 = terms.amount.scaled().widening_mul(terms.fx_rate.scaled());
        let amount = settled.settle_amount.scaled();
        worth(amount) >= owed && worth(amount - step) < owed
    }

    proptest! {
        #[test]
        fn q2_the_excess_is_less_than_one_step(amount in 1_u64..u64::MAX / 4, fx in 1_u64..10_000_000, price in 500_001_u64..1_500_000) {
            let terms = terms(amount, fx, price);
            if let Ok(settled) = settle(&terms) {
                prop_assert!(is_least_enough(&terms, &settled));
                prop_assert_eq!(settled.settle_units * pow10(12), settled.settle_amount.scaled());
            }
        }

        #[test]
        fn q4_a_cheaper_token_never_lowers_the_amount(amount in 1_u64..10_u64.pow(15), fx in 1_u64..10_000_000, price in 500_002_u64..1_500_000, less in 1_u64..1_000) {
            let dear = terms(amount, fx, price);
            let cheap = terms(amount, fx, price.saturating_sub(less).max(500_001));
            for policy in [Policy::SellerWhole, Policy::TwoSided] {
                let with = |terms: Terms| settle(&Terms { peg: terms.peg.map(|rule| PegRule { policy, ..rule }), ..terms });
                if let (Ok(dear), Ok(cheap)) = (with(dear), with(cheap)) {
                    prop_assert!(cheap.settle_amount >= dear.settle_amount);
                }
            }
        }

        #[test]
        fn q4_the_adjustment_is_told_and_never_multiplied(price in 500_001_u64..997_000) {
            let plain = terms(100_000_000, 1_000_000, price);
            let settled = settle(&plain).unwrap();
            // Multiplying the bps in again would ask for more than the least that is enough.
            prop_assert!(settled.depeg_adjustment_bps > 0 && is_least_enough(&plain, &settled));
            let seller = settled.settle_amount.scaled() * U256::from(price);
            let owed = pow10(20) * U256::from(1_000_000);
            prop_assert!(seller >= owed && seller - owed < pow10(12) * U256::from(price));
        }
    }

    #[test]
    fn q4_bands_and_halt_at_their_edges() {
        let at = |price: &str, policy: Policy| {
            let rule = PegRule { peg: UsdRate::one(), policy, band_bps: 25, halt_bps: 500 };
            let base = terms(100_000_000, 1_000_000, 1_000_000);
            settle(&Terms { token_price: price.parse().unwrap(), peg: Some(rule), ..base })
                .map(|settled| (settled.settle_units.to::<u64>(), settled.peg_state))
        };
        let whole = Policy::SellerWhole;
        assert_eq!(at("0.9975", whole), Ok((100_000_000, PegState::Par)));
        assert_eq!(at("0.997499999999999999", whole), Ok((100_250_627, PegState::BelowPeg)));
        assert_eq!(at("1.0025", whole), Ok((100_000_000, PegState::Par)));
        assert_eq!(at("1.002500000000000001", whole), Ok((100_000_000, PegState::AbovePeg)));
        assert_eq!(at("1.002500000000000001", Policy::TwoSided), Ok((99_750_624, PegState::AbovePeg)));
        assert_eq!(at("0.95", whole), Ok((105_263_158, PegState::BelowPeg)));
        assert!(matches!(at("0.949999999999999999", whole), Err(Refusal::DepegHalt { deviation_bps: -500, .. })));
        assert!(matches!(at("1.050000000000000001", Policy::None), Err(Refusal::DepegHalt { deviation_bps: 500, .. })));
    }

    #[test]
    fn t09_decimals_of_6_8_and_18_give_the_same_amount() {
        let base = terms(100_000_000, 1_000_000, 877_400);
        for (decimals, units) in [(6, "113973103"), (8, "11397310300"), (18, "113973103000000000000")] {
            let settled = settle(&Terms { decimals, ..base }).unwrap();
            assert_eq!(
                (settled.settle_units.to_string().as_str(), settled.settle_amount.to_string().as_str()),
                (units, "113.973103000000000000")
            );
        }
        let coarse = settle(&Terms { decimals: 2, step: step_of(true, 2), ..base }).unwrap();
        assert_eq!(coarse.settle_units, U256::from(11_398));
        assert_eq!((step_of(false, 18), step_of(true, 18), step_of(false, 4)), (8, 6, 4));
        let premium = settle(&Terms { premium_bps: 50, ..base }).unwrap();
        assert_eq!(premium.settle_units, U256::from(114_542_968));
    }
}
