//! Charts as paths of SVG, drawn here: no script, no style of their own, whole numbers all the way. Pure.

use alloy::primitives::{I256, U256};

/// The inside of a chart, in its own units.
pub(super) const WIDTH: u64 = 640;
pub(super) const HEIGHT: u64 = 160;

/// A balance over equal steps as a path that goes along and then up or down, as balances do. `top` is the value at the
/// upper edge.
pub(super) fn line(values: &[U256], top: U256) -> String {
    let mut path = String::new();
    let count = u64::try_from(values.len()).unwrap_or(u64::MAX).max(1);
    for (place, value) in values.iter().enumerate() {
        let place = u64::try_from(place).unwrap_or(u64::MAX);
        let y = height_of(*value, top);
        if place == 0 {
            path.push_str(&format!("M0 {y}"));
        } else {
            path.push_str(&format!("V{y}"));
        }
        path.push_str(&format!("H{}", (place + 1) * WIDTH / count));
    }
    path
}

/// The same, closed along the lower edge.
pub(super) fn area(values: &[U256], top: U256) -> String {
    if values.is_empty() { String::new() } else { format!("{}V{HEIGHT}H0Z", line(values, top)) }
}

fn height_of(value: U256, top: U256) -> u64 {
    if top.is_zero() {
        return HEIGHT;
    }
    let up = scaled(value.min(top), top, HEIGHT);
    HEIGHT - up
}

/// `value` of `top` in parts of `whole`, rounded down; something is never shown as nothing.
pub(super) fn scaled(value: U256, top: U256, whole: u64) -> u64 {
    // Amounts of 256 bits lose their lowest bits before they could overflow.
    let shift = top.bit_len().saturating_sub(192);
    let (value_low, top_low) = (value >> shift, (top >> shift).max(U256::ONE));
    let parts = u64::try_from(value_low * U256::from(whole) / top_low).unwrap_or(whole).min(whole);
    if value.is_zero() { 0 } else { parts.max(1) }
}

/// Balances at the end of each step, from what there is now and what each step changed. What the books cannot have
/// held, less than nothing, is drawn as nothing.
pub(super) fn balances(now: U256, deltas: &[I256]) -> Vec<U256> {
    let mut values = Vec::with_capacity(deltas.len());
    let mut value = I256::try_from(now).unwrap_or(I256::MAX);
    for delta in deltas.iter().rev() {
        values.push(value.max(I256::ZERO).unsigned_abs());
        value = value.saturating_sub(*delta);
    }
    values.reverse();
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(values: &[u64]) -> Vec<U256> {
        values.iter().copied().map(U256::from).collect()
    }

    #[test]
    fn a_line_goes_along_and_then_up_or_down() {
        assert_eq!(line(&units(&[0, 50, 100, 25]), U256::from(100)), "M0 160H160V80H320V0H480V120H640");
        assert_eq!(area(&units(&[100]), U256::from(100)), "M0 0H640V160H0Z");
        assert_eq!(line(&units(&[0, 0]), U256::ZERO), "M0 160H320V160H640");
        assert_eq!((line(&[], U256::ONE), area(&[], U256::ONE)), (String::new(), String::new()));
    }

    #[test]
    fn l9_the_largest_amount_is_drawn_and_the_smallest_is_seen() {
        assert_eq!(scaled(U256::MAX, U256::MAX, 160), 160);
        assert_eq!(scaled(U256::ONE, U256::MAX, 160), 1);
        assert_eq!(scaled(U256::ZERO, U256::MAX, 160), 0);
        assert_eq!(scaled(U256::from(1), U256::from(2), 1_000), 500);
    }

    #[test]
    fn balances_are_read_back_from_now() {
        let deltas = [5, -2, 0, 4].map(|delta: i64| I256::try_from(delta).unwrap());
        assert_eq!(balances(U256::from(9), &deltas), units(&[7, 5, 5, 9]));
        assert_eq!(balances(U256::from(1), &[I256::ZERO, I256::try_from(5).unwrap()]), units(&[0, 1]));
        assert_eq!(balances(U256::from(3), &[]), units(&[]));
    }
}
