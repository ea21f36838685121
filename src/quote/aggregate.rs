//! From what sources say to one price, pure and exact: admit, take the median, throw out outliers by the
//! median absolute deviation, and refuse what is left if it is too far apart.
//!
//! Prices are kept doubled and deviations fourfold: a median may lie half way between two, and nothing is
//! rounded before the end.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use serde::{Deserialize, Serialize};

use super::observation::{Observation, Verdict};
use crate::units::{BPS, Price, PriceError, Toward, UsdRate};

/// A clock may be ahead of ours by this much.
pub const FUTURE_MAX_S: i64 = 60;
/// 3.5 × 1.4826, in ten-thousandths: a modified z-score of 3.5 (Iglewicz and Hoaglin).
const K_MAD: u64 = 51_891;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub min_sources: u32,
    /// Nobody is an outlier who is closer to the median than this.
    pub outlier_floor_bps: u32,
    pub dispersion_max_bps: u32,
    /// Whether at least one must be a market in US dollars: stablecoins priced by each other know nothing.
    pub needs_direct: bool,
}

/// The price that sources agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aggregate {
    /// Twice the price, 36 places.
    doubled: U256,
    /// Of each observation, in their order.
    pub verdicts: Vec<Verdict>,
    pub spread: Spread,
    /// How many were used.
    pub used: u32,
}

/// How far apart prices are: the largest less the smallest, and twice their median.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    range: U256,
    median_doubled: U256,
}

/// Figures for people, stored as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    pub median: Price,
    /// Median absolute deviation before outliers left; zero with fewer than three.
    pub mad: Price,
    /// What lay further from the median was thrown out.
    pub threshold: Price,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AggregateFault {
    Insufficient { have: u32, need: u32, direct_missing: bool, verdicts: Vec<Verdict> },
    Inconsistent { spread: Spread, limit_bps: u32, verdicts: Vec<Verdict> },
}

impl Aggregate {
    pub fn price(&self, toward: Toward) -> Result<UsdRate, PriceError> {
        UsdRate::from_doubled(self.doubled, toward)
    }
}

impl Spread {
    /// Equal to the limit is inside.
    pub fn exceeds(self, limit_bps: u32) -> bool {
        self.range * U256::from(2 * BPS) > self.median_doubled * U256::from(limit_bps)
    }

    /// Rounded half up.
    pub fn bps(self) -> u32 {
        if self.median_doubled.is_zero() {
            return 0;
        }
        let bps = (self.range * U256::from(4 * BPS) + self.median_doubled) / (self.median_doubled * U256::from(2));
        u32::try_from(bps).unwrap_or(u32::MAX)
    }
}

/// The checks of each observation, in their order. `None`: it may vote.
pub fn admit(observations: &[Observation], now_s: i64) -> Vec<Option<Verdict>> {
    let mut families = BTreeSet::new();
    observations
        .iter()
        .map(|seen| fault_of(seen, now_s).or_else(|| (!families.insert(&seen.family)).then_some(Verdict::SameFamily)))
        .collect()
}

/// What is wrong with one observation by itself.
pub fn fault_of(seen: &Observation, now_s: i64) -> Option<Verdict> {
    let age_s = seen.age_s(now_s);
    if let Some(reason) = seen.invalid {
        Some(Verdict::Invalid(reason))
    } else if seen.price.is_zero() {
        Some(Verdict::NonPositive)
    } else if age_s < -FUTURE_MAX_S {
        Some(Verdict::FromFuture)
    } else if age_s > seen.max_age_s {
        Some(Verdict::Stale)
    } else if !(seen.min..=seen.max).contains(&seen.price) {
        Some(Verdict::OutOfRange)
    } else if seen.conf_bps.zip(seen.conf_max_bps).is_some_and(|(conf, max)| conf > max) {
        Some(Verdict::Confidence)
    } else if seen.round.zip(seen.round_before).is_some_and(|(round, before)| round < before) {
        Some(Verdict::RoundWentBack)
    } else {
        None
    }
}

/// Admitted observations to one price.
pub fn aggregate(observations: &[Observation], now_s: i64, rules: Rules) -> Result<Aggregate, AggregateFault> {
    let mut verdicts = admit(observations, now_s);
    let mut kept: Vec<usize> = (0..observations.len()).filter(|place| verdicts[*place].is_none()).collect();
    kept.sort_by_key(|place| observations[*place].price);
    let price = |place: &usize| observations[*place].price.scaled();
    let enough = |kept: &[usize]| {
        let direct = !rules.needs_direct || kept.iter().any(|place| observations[*place].direct);
        kept.len() >= usize::try_from(rules.min_sources).unwrap_or(usize::MAX).max(1) && direct
    };
    let told = |verdicts: Vec<Option<Verdict>>| verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Used)).collect();
    let lacking = |kept: &[usize], verdicts: Vec<Option<Verdict>>| AggregateFault::Insufficient {
        have: count(kept),
        need: rules.min_sources,
        direct_missing: kept.len() >= usize::try_from(rules.min_sources).unwrap_or(usize::MAX),
        verdicts: told(verdicts),
    };
    if !enough(&kept) {
        return Err(lacking(&kept, verdicts));
    }
    if kept.len() >= 3 {
        let prices: Vec<U256> = kept.iter().map(price).collect();
        let bound = Bound::of(&prices, rules.outlier_floor_bps);
        for place in &kept {
            if !bound.keeps(price(place)) {
                verdicts[*place] = Some(Verdict::Outlier);
            }
        }
        kept.retain(|place| verdicts[*place].is_none());
        if !enough(&kept) {
            return Err(lacking(&kept, verdicts));
        }
    }
    let prices: Vec<U256> = kept.iter().map(price).collect();
    let spread = Spread { range: prices[prices.len() - 1] - prices[0], median_doubled: median_doubled(&prices) };
    if spread.exceeds(rules.dispersion_max_bps) {
        return Err(AggregateFault::Inconsistent { spread, limit_bps: rules.dispersion_max_bps, verdicts: told(verdicts) });
    }
    let weighted: Vec<(U256, u64)> = kept.iter().map(|place| (price(place), observations[*place].weight)).collect();
    Ok(Aggregate { doubled: weighted_median_doubled(&weighted), verdicts: told(verdicts), spread, used: count(&kept) })
}

/// Median and bound of what was admitted, for the record.
pub fn figures(observations: &[Observation], now_s: i64, rules: Rules) -> Figures {
    let verdicts = admit(observations, now_s);
    let admitted = observations.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none());
    let mut prices: Vec<U256> = admitted.map(|(seen, _)| seen.price.scaled()).collect();
    prices.sort_unstable();
    if prices.is_empty() {
        return Figures { median: Price::ZERO, mad: Price::ZERO, threshold: Price::ZERO };
    }
    let bound = Bound::of(&prices, rules.outlier_floor_bps);
    let of = |scaled: U256, divisor: u64| Price::from_scaled(scaled / U256::from(divisor), -36).unwrap_or(Price::ZERO);
    let many = prices.len() >= 3;
    Figures {
        median: of(bound.median_doubled, 2),
        mad: if many { of(bound.mad_fourfold, 4) } else { Price::ZERO },
        threshold: if many { of(bound.limit, 4 * BPS) } else { Price::ZERO },
    }
}

/// How far from the median is too far.
struct Bound {
    median_doubled: U256,
    mad_fourfold: U256,
    /// In units of 1 / 40,000.
    limit: U256,
}

impl Bound {
    /// Of sorted prices.
    fn of(prices: &[U256], floor_bps: u32) -> Self {
        let median_doubled = median_doubled(prices);
        let mut deviations: Vec<U256> = prices.iter().map(|price| (*price * U256::from(2)).abs_diff(median_doubled)).collect();
        deviations.sort_unstable();
        let mad_fourfold = self::median_doubled(&deviations);
        let by_mad = mad_fourfold * U256::from(K_MAD);
        let by_floor = median_doubled * U256::from(2) * U256::from(floor_bps);
        Self { median_doubled, mad_fourfold, limit: by_mad.max(by_floor) }
    }

    fn keeps(&self, price: U256) -> bool {
        (price * U256::from(2)).abs_diff(self.median_doubled) * U256::from(2 * BPS) <= self.limit
    }
}

/// Twice the median of sorted numbers; there is at least one.
fn median_doubled(sorted: &[U256]) -> U256 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] * U256::from(2) } else { sorted[middle - 1] + sorted[middle] }
}

/// Twice the price at which half of the weight is passed; exactly at half, both neighbours count.
fn weighted_median_doubled(sorted: &[(U256, u64)]) -> U256 {
    let total: u128 = sorted.iter().map(|(_, weight)| u128::from(*weight)).sum();
    let mut running = 0;
    for (place, (price, weight)) in sorted.iter().enumerate() {
        running += u128::from(*weight);
        if running * 2 > total {
            return *price * U256::from(2);
        }
        if running * 2 == total {
            let next = sorted.get(place + 1).map_or(*price, |(next, _)| *next);
            return *price + next;
        }
    }
    sorted.last().map_or(U256::ZERO, |(price, _)| *price * U256::from(2))
}

fn count(kept: &[usize]) -> u32 {
    u32::try_from(kept.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::quote::observation::{Invalid, U256Text};
    use crate::units::MicroBps;

    const NOW: i64 = 1_000_000;
    const RULES: Rules = Rules { min_sources: 2, outlier_floor_bps: 50, dispersion_max_bps: 150, needs_direct: false };

    fn seen(name: &str, price: &str) -> Observation {
        Observation::new(name, name, price.parse().unwrap_or(Price::ZERO), NOW)
    }

    fn verdict(change: impl FnOnce(&mut Observation)) -> Option<Verdict> {
        let mut one = seen("a", "1");
        change(&mut one);
        fault_of(&one, NOW)
    }

    #[test]
    fn q3_every_check_at_its_edge() {
        assert_eq!(verdict(|_| {}), None);
        assert_eq!(verdict(|seen| seen.observed_s = NOW + 60), None);
        assert_eq!(verdict(|seen| seen.observed_s = NOW + 61), Some(Verdict::FromFuture));
        assert_eq!(verdict(|seen| seen.observed_s = NOW - 300), None);
        assert_eq!(verdict(|seen| seen.observed_s = NOW - 301), Some(Verdict::Stale));
        assert_eq!(verdict(|seen| seen.price = Price::ZERO), Some(Verdict::NonPositive));
        assert_eq!(verdict(|seen| seen.max = seen.price), None);
        assert_eq!(verdict(|seen| seen.max = "0.999999".parse().unwrap()), Some(Verdict::OutOfRange));
        assert_eq!(verdict(|seen| seen.min = "1.000001".parse().unwrap()), Some(Verdict::OutOfRange));
        let conf = |text: &str, seen: &mut Observation| {
            (seen.conf_bps, seen.conf_max_bps) = (Some(text.parse().unwrap()), Some(MicroBps::from_bps(50)));
        };
        assert_eq!(verdict(|seen| conf("50", seen)), None);
        assert_eq!(verdict(|seen| conf("50.000001", seen)), Some(Verdict::Confidence));
        let rounds = |round: u64, before: u64, seen: &mut Observation| {
            (seen.round, seen.round_before) = (Some(U256Text(U256::from(round))), Some(U256Text(U256::from(before))));
        };
        assert_eq!(verdict(|seen| rounds(7, 7, seen)), None);
        assert_eq!(verdict(|seen| rounds(6, 7, seen)), Some(Verdict::RoundWentBack));
        // The earliest check that fails is the reason.
        let all = verdict(|seen| {
            seen.invalid = Some(Invalid::AnswerAtBound);
            seen.price = Price::ZERO;
            seen.observed_s = 0;
        });
        assert_eq!(all, Some(Verdict::Invalid(Invalid::AnswerAtBound)));
        assert_eq!(verdict(|seen| (seen.price, seen.observed_s) = (Price::ZERO, 0)), Some(Verdict::NonPositive));
    }

    #[test]
    fn q3_dispersion_at_its_edge_and_a_lone_venue() {
        // 1 and 1.015 are 150 bps of the lower, and less of their median; 0.9925 and 1.0075 are exactly 150.
        let apart = |low: &str, high: &str| aggregate(&[seen("a", low), seen("b", high)], NOW, RULES);
        assert_eq!(apart("0.9925", "1.0075").unwrap().spread.bps(), 150);
        assert!(matches!(apart("0.9925", "1.007500000000000001"), Err(AggregateFault::Inconsistent { .. })));
        // A print of 0.65 somewhere: with two families no quote, with three it does not move one.
        assert!(matches!(apart("0.65", "1.0001"), Err(AggregateFault::Inconsistent { .. })));
        let three = aggregate(&[seen("a", "0.65"), seen("b", "1.0001"), seen("c", "1.0002")], NOW, RULES).unwrap();
        assert_eq!(three.verdicts, [Verdict::Outlier, Verdict::Used, Verdict::Used]);
        assert_eq!(three.price(Toward::Down).unwrap().to_string(), "1.000150000000000000");
    }

    #[test]
    fn q3_stablecoins_priced_by_each_other_are_no_price() {
        let (mut one, mut two) = (seen("a", "1"), seen("b", "1"));
        (one.direct, two.direct) = (false, false);
        let rules = Rules { needs_direct: true, ..RULES };
        let refused = aggregate(&[one.clone(), two.clone()], NOW, rules).unwrap_err();
        assert!(matches!(refused, AggregateFault::Insufficient { have: 2, direct_missing: true, .. }), "{refused:?}");
        two.direct = true;
        assert!(aggregate(&[one, two], NOW, rules).is_ok());
    }

    proptest! {
        /// Whatever was kept, the price lies between the lowest and the highest of it.
        #[test]
        fn q3_the_price_lies_between_what_was_used(prices in prop::collection::vec(900_000_u64..1_100_000, 2..8)) {
            let all: Vec<Observation> = prices
                .iter()
                .enumerate()
                .map(|(place, price)| Observation::new(format!("s{place}"), format!("f{place}"), Price::from_scaled(U256::from(*price), -6).unwrap(), NOW))
                .collect();
            if let Ok(found) = aggregate(&all, NOW, RULES) {
                let used = all.iter().zip(&found.verdicts).filter(|(_, verdict)| **verdict == Verdict::Used).map(|(seen, _)| seen.price);
                let (low, high) = used.fold((Price::LARGEST, Price::ZERO), |(low, high), price| (low.min(price), high.max(price)));
                let price = Price::from(found.price(Toward::Down).unwrap());
                prop_assert!(low <= price && price <= high);
                prop_assert!(!found.spread.exceeds(150) && found.used >= 2);
            }
        }

        /// The order of sources decides which of a family votes, and nothing else.
        #[test]
        fn q3_the_order_of_families_does_not_move_the_price(prices in prop::collection::vec(990_000_u64..1_010_000, 2..7), turn in 0_usize..7) {
            let all: Vec<Observation> = prices
                .iter()
                .enumerate()
                .map(|(place, price)| Observation::new(format!("s{place}"), format!("f{place}"), Price::from_scaled(U256::from(*price), -6).unwrap(), NOW))
                .collect();
            let mut turned = all.clone();
            turned.rotate_left(turn % all.len());
            let price = |all: &[Observation]| aggregate(all, NOW, RULES).ok().and_then(|found| found.price(Toward::Down).ok());
            prop_assert_eq!(price(&all), price(&turned));
        }
    }
}
