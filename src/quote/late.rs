//! Money that comes after its quote has ended: worth what it is worth now, and never less than was agreed.

use alloy::primitives::U256;
use time::{Duration, OffsetDateTime};

/// Whether a block is in time for a quote (Q5). Its own time counts, not when we saw or confirmed it.
pub fn in_time(block_time: OffsetDateTime, expires_at: OffsetDateTime, grace_s: u32) -> bool {
    block_time <= expires_at + Duration::seconds(i64::from(grace_s))
}

/// What late money is worth. Amounts are base units of one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// Enough, by the old quote and by a fresh one. An officer may accept it.
    Enough { required_units: U256 },
    /// Too little; so much more, or a refund.
    TopUp { required_units: U256, missing_units: U256 },
    /// There is no fresh quote: it stays in suspense, and an officer decides.
    Suspense,
}

/// What is required now: the larger of the dead quote and a fresh one.
pub fn required(old_units: U256, fresh_units: U256) -> U256 {
    old_units.max(fresh_units)
}

/// Values late money anew. `fresh_units`: what a fresh quote asks for, if there is one.
pub fn revalue(received_units: U256, old_units: U256, fresh_units: Option<U256>) -> Late {
    let Some(fresh_units) = fresh_units else { return Late::Suspense };
    let required_units = required(old_units, fresh_units);
    match required_units.checked_sub(received_units) {
        None | Some(U256::ZERO) => Late::Enough { required_units },
        Some(missing_units) => Late::TopUp { required_units, missing_units },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: OffsetDateTime = time::macros::datetime!(2027-01-15 12:15 UTC);

    #[test]
    fn q5_in_time_is_by_block_time_with_both_edges() {
        let at = |seconds| in_time(END + Duration::seconds(seconds), END, 120);
        assert_eq!([-1, 0, 1, 119, 120, 121].map(at), [true, true, true, true, true, false]);
        let strict = |seconds| in_time(END + Duration::seconds(seconds), END, 0);
        assert_eq!([-1, 0, 1].map(strict), [true, true, false]);
    }

    #[test]
    fn q5_late_money_never_settles_at_the_dead_quote_when_that_is_worse() {
        let units = U256::from::<u64>;
        // The token fell: the fresh quote asks for more.
        let fell = revalue(units(100), units(100), Some(units(114)));
        assert_eq!(fell, Late::TopUp { required_units: units(114), missing_units: units(14) });
        assert_eq!(revalue(units(114), units(100), Some(units(114))), Late::Enough { required_units: units(114) });
        // It rose: what was agreed still counts.
        assert_eq!(revalue(units(99), units(100), Some(units(90))), Late::TopUp { required_units: units(100), missing_units: units(1) });
        assert_eq!(revalue(units(101), units(100), Some(units(90))), Late::Enough { required_units: units(100) });
        // Nobody knows: nobody guesses.
        assert_eq!(revalue(units(1_000), units(100), None), Late::Suspense);
    }
}
