//! What was agreed about a payment when it was created: how exact it has to be, how long it may be late,
//! and what its fees are. Pure. A later change of a default does not reach a payment that is there.

use alloy::primitives::{U256, U512};
use time::Duration;

/// One hundred per cent, in basis points.
const WHOLE_BPS: u64 = 10_000;

/// A fee: a share of the whole, and at least so much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeeRate {
    /// Hundredths of a per cent: 0 to 5000.
    pub bps: u16,
    pub min_units: U256,
}

impl FeeRate {
    /// The fee of a whole amount: rounded down, in the payee's favour; never more than the amount.
    pub fn of_whole(self, whole_units: U256) -> U256 {
        share_div_floor(whole_units, self.bps).max(self.min_units).min(whole_units)
    }
}

/// The terms of one payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How much less than due still counts as whole, in basis points of what is due.
    pub tolerance_bps: u16,
    /// How long after it expires a payment that nothing came for waits before it has failed.
    pub late_window: Duration,
    pub platform_fee: FeeRate,
    pub provider_fee: FeeRate,
}

impl Default for Terms {
    /// Exact, a day late at most, and free.
    fn default() -> Self {
        Self { tolerance_bps: 0, late_window: Duration::DAY, platform_fee: FeeRate::default(), provider_fee: FeeRate::default() }
    }
}

/// What a release pays to the house.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fees {
    pub platform_units: U256,
    pub provider_units: U256,
}

impl Fees {
    /// Never overflows: both together are at most the whole that they are of.
    pub fn total(self) -> U256 {
        self.platform_units.saturating_add(self.provider_units)
    }
}

/// A part of an escrow on its way to the seller.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// What went into escrow.
    pub whole_units: U256,
    /// What was ordered for the seller before, fees included, and not given back.
    pub before_units: U256,
    pub units: U256,
    /// The fees of what was ordered before.
    pub fees_before: Fees,
}

impl Terms {
    /// The fees of a whole escrow. Both together never exceed it: the provider's gives way.
    pub fn fees_of_whole(&self, whole_units: U256) -> Fees {
        let platform_units = self.platform_fee.of_whole(whole_units);
        let provider_units = self.provider_fee.of_whole(whole_units).min(whole_units - platform_units);
        Fees { platform_units, provider_units }
    }

    /// The fees of a part: the share that is due once this part has gone out, less what the parts before
    /// have paid. Shares are rounded down, so the last part pays what is left: the fees of all parts together
    /// are those of the whole, to the unit.
    pub fn fees_of_part(&self, part: Part) -> Fees {
        let whole = self.fees_of_whole(part.whole_units);
        let after = part.before_units.saturating_add(part.units).min(part.whole_units);
        let due = |fee: U256| part_div_floor(fee, after, part.whole_units);
        Fees {
            platform_units: due(whole.platform_units).saturating_sub(part.fees_before.platform_units),
            provider_units: due(whole.provider_units).saturating_sub(part.fees_before.provider_units),
        }
    }

    /// The least that counts as whole: tolerance is rounded down, so it is never more than agreed.
    pub fn enough(&self, due_units: U256) -> U256 {
        due_units - share_div_floor(due_units, self.tolerance_bps).min(due_units)
    }
}

/// `units * bps / 10000`, rounded down, without overflow.
fn share_div_floor(units: U256, bps: u16) -> U256 {
    part_div_floor(units, U256::from(bps), U256::from(WHOLE_BPS))
}

/// `units * part / whole`, rounded down. `part` is at most `whole`, so the result is at most `units`; of
/// nothing, everything is due.
fn part_div_floor(units: U256, part: U256, whole: U256) -> U256 {
    if whole.is_zero() {
        return units;
    }
    let exact = U512::from(units) * U512::from(part) / U512::from(whole);
    U256::from_limbs_slice(&exact.as_limbs()[..4])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(platform: (u16, u64), provider: (u16, u64)) -> Terms {
        let rate = |(bps, min): (u16, u64)| FeeRate { bps, min_units: U256::from(min) };
        Terms { platform_fee: rate(platform), provider_fee: rate(provider), ..Terms::default() }
    }

    fn of_whole(terms: Terms, whole: u64) -> (u64, u64) {
        let fees = terms.fees_of_whole(U256::from(whole));
        (fees.platform_units.to(), fees.provider_units.to())
    }

    #[test]
    fn a_fee_is_a_share_and_at_least_its_minimum() {
        assert_eq!(of_whole(terms((250, 0), (30, 0)), 1_000_000), (25_000, 3_000));
        assert_eq!(of_whole(terms((250, 0), (0, 0)), 39), (0, 0), "rounded down");
        assert_eq!(of_whole(terms((250, 0), (0, 0)), 40), (1, 0));
        assert_eq!(of_whole(terms((250, 50_000), (0, 0)), 1_000_000), (50_000, 0));
        assert_eq!(of_whole(terms((0, 100), (0, 100)), 150), (100, 50), "together never more than the whole");
        assert_eq!(of_whole(terms((0, 100), (0, 100)), 60), (60, 0));
        assert_eq!(terms((5_000, 0), (5_000, 0)).fees_of_whole(U256::MAX).total(), U256::MAX - U256::from(1));
    }

    #[test]
    fn the_tolerance_is_never_more_than_agreed() {
        let enough = |bps, due: u64| Terms { tolerance_bps: bps, ..Terms::default() }.enough(U256::from(due)).to::<u64>();
        assert_eq!(enough(0, 100), 100);
        assert_eq!(enough(10, 100_000_000), 99_900_000);
        assert_eq!(enough(10, 999), 999);
        assert_eq!(enough(1_000, 1), 1);
    }

    proptest! {
        #[test]
        fn l6_fees_of_parts_are_the_fee_of_the_whole(
            bps in (0_u16..=5_000, 0_u16..=5_000),
            min in (0_u64..2_000, 0_u64..2_000),
            parts in proptest::collection::vec(1_u64..100_000, 1..12),
            withdrawn in 0_usize..12,
        ) {
            let terms = terms((bps.0, min.0), (bps.1, min.1));
            let whole: u64 = parts.iter().sum();
            let whole_units = U256::from(whole);
            let mut paid: Vec<(u64, Fees)> = Vec::new();
            let sums = |paid: &[(u64, Fees)]| {
                let before: u64 = paid.iter().map(|(units, _)| units).sum();
                let fees = paid.iter().fold(Fees::default(), |sum, (_, fees)| Fees {
                    platform_units: sum.platform_units + fees.platform_units,
                    provider_units: sum.provider_units + fees.provider_units,
                });
                (U256::from(before), fees)
            };
            let order = |paid: &mut Vec<(u64, Fees)>, units: u64| {
                let (before_units, fees_before) = sums(paid);
                let fees = terms.fees_of_part(Part { whole_units, before_units, units: U256::from(units), fees_before });
                paid.push((units, fees));
                fees
            };
            for (place, units) in parts.iter().enumerate() {
                order(&mut paid, *units);
                // One that is given back and asked for anew later changes nothing in the sum.
                if place == withdrawn && place + 1 < parts.len() {
                    let (units, _) = paid.remove(place / 2);
                    order(&mut paid, units);
                }
                let (before, fees) = sums(&paid);
                prop_assert!(fees.total() <= before.max(terms.fees_of_whole(whole_units).total()));
            }
            prop_assert_eq!(sums(&paid).1, terms.fees_of_whole(whole_units));
        }
    }
}
