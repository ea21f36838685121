//! What to do next with an address or a payment. Pure: situation in, step out.

use std::collections::BTreeSet;

use alloy::primitives::U256;

use super::FeeTerms;
use super::economy::FuelRule;

/// What a transaction may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    pub terms: FeeTerms,
    /// What the chain charges for the transaction's data besides gas, at most, in wei.
    pub l1_fee: U256,
}

impl Cost {
    /// Where gas is all that is paid.
    pub const fn of_gas(terms: FeeTerms) -> Self {
        Self { terms, l1_fee: U256::ZERO }
    }

    /// Native coin that a transaction can cost at most: a node takes none whose sender holds less.
    pub fn ceiling(self) -> U256 {
        gas_ceiling(self.terms).saturating_add(self.l1_fee)
    }
}

/// Native coin that gas can cost at most under these terms.
pub fn gas_ceiling(terms: FeeTerms) -> U256 {
    U256::from(terms.gas_limit) * U256::from(terms.max_fee_per_gas)
}

/// A deposit address that waits to be swept.
#[derive(Clone, Copy, Debug)]
pub struct SweepSituation {
    /// What is swept, as the ledger has it.
    pub units: U256,
    /// Whether that is the coin that gas is paid in.
    pub is_native: bool,
    /// Native coin at the address, as the ledger has it.
    pub native_units: U256,
    /// What the sweep may cost.
    pub cost: Cost,
    pub fuel: FuelRule,
}

/// The next step for a deposit address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    Nothing,
    /// The address cannot pay for its own sweep: send it this much first.
    Fuel(Fuel),
    Sweep {
        units: U256,
    },
}

/// Native coin for an address that cannot pay for its own transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fuel {
    /// Without so much it is of no use.
    pub least: U256,
    pub wanted: U256,
}

/// Fuel for an address that is to pay `own` of its coin and a transaction; `None` where it has enough.
fn fuel(rule: FuelRule, held: U256, own: U256, ceiling: U256) -> Option<Fuel> {
    if held >= rule.enough(own, ceiling) {
        return None;
    }
    let least = own.saturating_add(ceiling).saturating_sub(held);
    Some(Fuel { least, wanted: rule.full(own, ceiling).saturating_sub(held).max(least) })
}

/// A sweep takes all of the token; of the native coin all but what the sweep itself may cost. Fuel brings the
/// native balance to what the sweep may cost, times two where no setting says otherwise, so that a fee rise
/// between fuelling and sweeping does not call the officer twice.
pub fn next_sweep_step(situation: SweepSituation) -> SweepStep {
    let ceiling = situation.cost.ceiling();
    if situation.is_native {
        // No more than what is there beside the fee ever leaves.
        let units = situation.units.min(situation.native_units.saturating_sub(ceiling));
        return if units.is_zero() { SweepStep::Nothing } else { SweepStep::Sweep { units } };
    }
    if situation.units.is_zero() {
        return SweepStep::Nothing;
    }
    // With the ceiling alone it can pay, but a threshold above that was set to leave room for a rise.
    match fuel(situation.fuel, situation.native_units, U256::ZERO, ceiling) {
        Some(fuel) => SweepStep::Fuel(fuel),
        None => SweepStep::Sweep { units: situation.units },
    }
}

/// An order that the treasury would pay.
#[derive(Clone, Copy, Debug)]
pub struct ReleaseSituation {
    pub due_units: U256,
    /// Token at the treasury, as the ledger has it.
    pub treasury_token_units: U256,
    /// Of that, promised to releases that are on their way.
    pub promised_token_units: U256,
    pub treasury_native_units: U256,
    /// Of that, the most that transactions on their way can cost.
    pub promised_native_units: U256,
    pub cost: Cost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseStep {
    /// The token has not been swept to the treasury yet.
    WaitForSweep,
    /// The treasury cannot pay for gas.
    WaitForGas {
        missing: U256,
    },
    Release,
}

pub fn next_release_step(situation: ReleaseSituation) -> ReleaseStep {
    let token = situation.treasury_token_units.saturating_sub(situation.promised_token_units);
    if token < situation.due_units {
        return ReleaseStep::WaitForSweep;
    }
    let native = situation.treasury_native_units.saturating_sub(situation.promised_native_units);
    let ceiling = situation.cost.ceiling();
    if native < ceiling { ReleaseStep::WaitForGas { missing: ceiling - native } } else { ReleaseStep::Release }
}

/// An order that can be paid from the deposit address itself.
#[derive(Clone, Copy, Debug)]
pub struct DirectSituation {
    pub units: U256,
    /// Whether what is paid is the coin that gas is paid in.
    pub is_native: bool,
    /// The asset at the address and not promised, as the ledger has it.
    pub free_units: U256,
    /// Native coin there and not promised.
    pub free_native_units: U256,
    pub cost: Cost,
    pub fuel: FuelRule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectStep {
    /// The address does not hold it.
    Elsewhere,
    /// The address cannot pay for gas: send it this much first.
    Fuel(Fuel),
    Pay,
}

/// Pays from the address that holds it: one signature, and no other payment's money is near. Fuel is sent as
/// for a sweep.
pub fn next_direct_step(situation: DirectSituation) -> DirectStep {
    if situation.free_units < situation.units {
        return DirectStep::Elsewhere;
    }
    let ceiling = situation.cost.ceiling();
    let own = if situation.is_native { situation.units } else { U256::ZERO };
    match fuel(situation.fuel, situation.free_native_units, own, ceiling) {
        Some(fuel) => DirectStep::Fuel(fuel),
        None => DirectStep::Pay,
    }
}

/// How many nonces one look names, and how far below the chain's count the planner looks.
pub const NONCES_SPAN: u64 = 100;

/// Nonces that the chain has used and that nothing of ours is signed for, lowest first. `floor` is where the
/// address's past ends: its baseline, or what was looked at before; `signed` holds our signed nonces from there on.
///
/// Either somebody else has the key, or this database has forgotten an outflow. Nothing is planned from the address
/// then: what it owes may be paid already.
pub fn foreign_nonces(floor: u64, chain_count: u64, signed: &BTreeSet<u64>) -> Vec<u64> {
    let most = usize::try_from(NONCES_SPAN).unwrap_or(usize::MAX);
    (floor..chain_count).filter(|nonce| !signed.contains(nonce)).take(most).collect()
}

/// The lowest nonce that is free: not below the chain's count, not taken by one of ours.
///
/// `taken` are the nonces of our intents from this address that are not void. A hole left by a void
/// intent is filled first; otherwise everything above it would be stuck.
pub fn next_nonce(chain_count: u64, taken: &BTreeSet<u64>) -> u64 {
    let mut nonce = chain_count;
    while taken.contains(&nonce) {
        nonce += 1;
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: FeeTerms = FeeTerms { gas_limit: 100, max_fee_per_gas: 10, max_priority_fee_per_gas: 1 };

    const COST: Cost = Cost::of_gas(TERMS);

    fn sweep(token: u64, native: u64, l1_fee: u64) -> SweepStep {
        next_sweep_step(SweepSituation {
            units: U256::from(token),
            is_native: false,
            native_units: U256::from(native),
            cost: Cost { l1_fee: U256::from(l1_fee), ..COST },
            fuel: FuelRule::default(),
        })
    }

    fn fuel_of(least: u64, wanted: u64) -> Fuel {
        Fuel { least: U256::from(least), wanted: U256::from(wanted) }
    }

    #[test]
    fn sweep_steps() {
        assert_eq!(sweep(0, 5_000, 0), SweepStep::Nothing);
        assert_eq!(sweep(7, 0, 0), SweepStep::Fuel(fuel_of(1_000, 2_000)));
        assert_eq!(sweep(7, 999, 0), SweepStep::Fuel(fuel_of(1, 1_001)));
        assert_eq!(sweep(7, 1_000, 0), SweepStep::Sweep { units: U256::from(7) });
    }

    #[test]
    fn t10_what_the_chain_below_charges_is_part_of_every_ceiling() {
        assert_eq!(sweep(7, 1_000, 1), SweepStep::Fuel(fuel_of(1, 1_002)), "gas alone is not enough");
        assert_eq!(sweep(7, 1_001, 1), SweepStep::Sweep { units: U256::from(7) });
        let native = |units: u64, held: u64, l1_fee: u64| {
            next_sweep_step(SweepSituation {
                units: U256::from(units),
                is_native: true,
                native_units: U256::from(held),
                cost: Cost { l1_fee: U256::from(l1_fee), ..COST },
                fuel: FuelRule::default(),
            })
        };
        // All of it but what it may cost: amount and ceiling never exceed what is there.
        assert_eq!(native(5_000, 5_000, 0), SweepStep::Sweep { units: U256::from(4_000) });
        assert_eq!(native(5_000, 5_000, 30), SweepStep::Sweep { units: U256::from(3_970) });
        assert_eq!(native(1_030, 1_030, 30), SweepStep::Nothing);
        assert_eq!(native(500, 5_000, 30), SweepStep::Sweep { units: U256::from(500) });
    }

    #[test]
    fn direct_steps() {
        let direct = |units: u64, is_native, free: u64, native: u64, l1_fee: u64| {
            next_direct_step(DirectSituation {
                units: U256::from(units),
                is_native,
                free_units: U256::from(free),
                free_native_units: U256::from(native),
                cost: Cost { l1_fee: U256::from(l1_fee), ..COST },
                fuel: FuelRule::default(),
            })
        };
        assert_eq!(direct(8, false, 7, 5_000, 0), DirectStep::Elsewhere);
        assert_eq!(direct(7, false, 7, 0, 0), DirectStep::Fuel(fuel_of(1_000, 2_000)));
        assert_eq!(direct(7, false, 7, 999, 0), DirectStep::Fuel(fuel_of(1, 1_001)));
        assert_eq!(direct(7, false, 7, 1_000, 0), DirectStep::Pay);
        assert_eq!(direct(7, false, 7, 1_000, 9), DirectStep::Fuel(fuel_of(9, 1_018)));
        assert_eq!(direct(7, true, 7, 7, 0), DirectStep::Fuel(fuel_of(1_000, 2_000)), "what is paid pays no gas");
        assert_eq!(direct(7, true, 1_007, 1_007, 0), DirectStep::Pay);
        assert_eq!(direct(7, true, 1_007, 1_007, 1), DirectStep::Fuel(fuel_of(1, 1_002)));
    }

    #[test]
    fn s4_promised_money_is_not_promised_twice() {
        let base = ReleaseSituation {
            due_units: U256::from(60),
            treasury_token_units: U256::from(100),
            promised_token_units: U256::ZERO,
            treasury_native_units: U256::from(1_500),
            promised_native_units: U256::ZERO,
            cost: COST,
        };
        assert_eq!(next_release_step(base), ReleaseStep::Release);
        assert_eq!(next_release_step(ReleaseSituation { promised_token_units: U256::from(60), ..base }), ReleaseStep::WaitForSweep);
        let gas = next_release_step(ReleaseSituation { promised_native_units: U256::from(1_000), ..base });
        assert_eq!(gas, ReleaseStep::WaitForGas { missing: U256::from(500) });
    }

    #[test]
    fn n7_next_nonce() {
        let taken = |nonces: &[u64]| nonces.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(next_nonce(0, &taken(&[])), 0);
        assert_eq!(next_nonce(5, &taken(&[])), 5);
        assert_eq!(next_nonce(0, &taken(&[0, 1])), 2);
        assert_eq!(next_nonce(2, &taken(&[0, 1])), 2);
        // A void intent left 1 free.
        assert_eq!(next_nonce(1, &taken(&[0, 2])), 1);
    }

    #[test]
    fn n12_a_used_nonce_is_signed_here_or_below_the_baseline() {
        for (floor, count, signed, foreign) in [
            (0, 0, &[][..], &[][..]),
            // Nothing known, and the chain used some: a database of before the first outflow.
            (0, 1, &[], &[0]),
            (0, 3, &[], &[0, 1, 2]),
            // Older than this installation, as two officers have said.
            (7, 7, &[], &[]),
            (7, 9, &[7, 8], &[]),
            (7, 10, &[7, 8], &[9]),
            (7, 9, &[7, 9], &[8]),
            // A restored database knows the first of three.
            (0, 3, &[0], &[1, 2]),
            // Signed above the chain's count is on its way.
            (0, 2, &[0, 1, 2, 3], &[]),
            // A chain that lags, or went back.
            (9, 4, &[], &[]),
        ] {
            let signed = signed.iter().copied().collect();
            assert_eq!(foreign_nonces(floor, count, &signed), foreign, "{floor} {count} {signed:?}");
        }
        assert_eq!(foreign_nonces(0, 1_000_000, &BTreeSet::new()).len(), 100, "bounded");
    }
}
