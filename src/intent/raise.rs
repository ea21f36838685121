//! Higher fees for a nonce that does not move: how much more a pool wants before it takes another transaction
//! in the place of one it has. Pure.

use super::FeeTerms;

/// What another transaction at the same nonce must pay at least: an eighth more in both fees, and not the same.
/// Pools ask for 10 % (go-ethereum); both fees, because a pool compares both.
pub const fn at_least(fee: u128) -> u128 {
    let eighth = fee.div_ceil(8);
    fee.saturating_add(if eighth == 0 { 1 } else { eighth })
}

/// Why no higher fees can be planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RaiseError {
    #[error("a replacement needs {field} of at least {needed} wei per gas; {asked} was asked for")]
    TooLow { field: &'static str, needed: u128, asked: u128 },
    #[error("it would pay {needed} wei per gas, and {cap} is the most that is allowed on this chain")]
    OverCap { needed: u128, cap: u128 },
    #[error("the priority fee of {priority} wei per gas is above the maximum of {max}")]
    PriorityAboveMax { priority: u128, max: u128 },
}

/// Fees that displace a transaction that pays `paid`: at least what a pool wants, and at least what the market
/// does now, or exactly what was asked for.
pub fn raise(paid: FeeTerms, market: FeeTerms, asked: Option<(u128, u128)>, cap: u128) -> Result<FeeTerms, RaiseError> {
    let (max_needed, priority_needed) = (at_least(paid.max_fee_per_gas), at_least(paid.max_priority_fee_per_gas));
    let (max, priority) = match asked {
        Some((max, priority)) => {
            if max < max_needed {
                return Err(RaiseError::TooLow { field: "max_fee_per_gas", needed: max_needed, asked: max });
            }
            if priority < priority_needed {
                return Err(RaiseError::TooLow { field: "max_priority_fee_per_gas", needed: priority_needed, asked: priority });
            }
            (max, priority)
        }
        None => {
            let priority = priority_needed.max(market.max_priority_fee_per_gas);
            (max_needed.max(market.max_fee_per_gas).max(priority), priority)
        }
    };
    if priority > max {
        return Err(RaiseError::PriorityAboveMax { priority, max });
    }
    if max > cap {
        return Err(RaiseError::OverCap { needed: max, cap });
    }
    Ok(FeeTerms { gas_limit: paid.gas_limit, max_fee_per_gas: max, max_priority_fee_per_gas: priority })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn fees(max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> FeeTerms {
        FeeTerms { gas_limit: 50_000, max_fee_per_gas, max_priority_fee_per_gas }
    }

    #[test]
    fn n9_a_replacement_pays_an_eighth_more_in_both_fees() {
        for (paid, market, cap, expected) in [
            (fees(80, 8), fees(10, 1), 1_000, Ok(fees(90, 9))),
            // Rounded up; and nothing becomes something.
            (fees(81, 0), fees(10, 1), 1_000, Ok(fees(92, 1))),
            (fees(80, 8), fees(200, 20), 1_000, Ok(fees(200, 20))),
            (fees(80, 80), fees(10, 200), 1_000, Ok(fees(200, 200))),
            (fees(80, 8), fees(10, 1), 90, Ok(fees(90, 9))),
            (fees(80, 8), fees(10, 1), 89, Err(RaiseError::OverCap { needed: 90, cap: 89 })),
        ] {
            assert_eq!(raise(paid, market, None, cap), expected, "{paid:?} {market:?}");
        }
        let asked = |max, priority| raise(fees(80, 8), fees(500, 50), Some((max, priority)), 1_000);
        assert_eq!(asked(90, 9), Ok(fees(90, 9)));
        assert_eq!(asked(89, 9), Err(RaiseError::TooLow { field: "max_fee_per_gas", needed: 90, asked: 89 }));
        assert_eq!(asked(90, 8), Err(RaiseError::TooLow { field: "max_priority_fee_per_gas", needed: 9, asked: 8 }));
        assert_eq!(asked(90, 91), Err(RaiseError::PriorityAboveMax { priority: 91, max: 90 }));
        assert_eq!(asked(1_001, 9), Err(RaiseError::OverCap { needed: 1_001, cap: 1_000 }));
    }

    proptest! {
        #[test]
        fn n9_whatever_was_paid_a_replacement_clears_the_pools_floor(max in 1_u128..1 << 100, priority in 0_u128..1 << 90, market in 1_u128..1 << 80) {
            let paid = fees(max.max(priority), priority);
            let raised = raise(paid, fees(market, market), None, u128::MAX).unwrap();
            for (new, old) in [
                (raised.max_fee_per_gas, paid.max_fee_per_gas), (raised.max_priority_fee_per_gas, paid.max_priority_fee_per_gas),
            ] {
                prop_assert!(new > old && new * 8 >= old * 9);
            }
            prop_assert!(raised.max_priority_fee_per_gas <= raised.max_fee_per_gas);
        }
    }
}
