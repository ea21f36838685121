//! What to do next with an address or a payment. Pure: situation in, step out.

use std::collections::BTreeSet;

use alloy::primitives::U256;

use super::FeeTerms;

/// A deposit address that waits to be swept.
#[derive(Clone, Copy, Debug)]
pub struct SweepSituation {
    /// Token at the address, as the ledger has it.
    pub token_units: U256,
    /// Native coin at the address, as the ledger has it.
    pub native_units: U256,
    /// What the sweep may cost.
    pub terms: FeeTerms,
}

/// The next step for a deposit address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepStep {
    Nothing,
    /// The address cannot pay for its own sweep: send it this much first.
    Fuel {
        units: U256,
    },
    Sweep {
        units: U256,
    },
}

/// Native coin that a transaction under these terms can cost at most.
pub fn cost_ceiling(terms: FeeTerms) -> U256 {
    U256::from(terms.gas_limit) * U256::from(terms.max_fee_per_gas)
}

/// A sweep takes the whole token balance. Fuel brings the native balance to what the sweep may cost,
/// times two, so that a fee rise between fuelling and sweeping does not call the officer twice.
pub fn next_sweep_step(situation: SweepSituation) -> SweepStep {
    if situation.token_units.is_zero() {
        return SweepStep::Nothing;
    }
    let ceiling = cost_ceiling(situation.terms);
    if situation.native_units >= ceiling {
        SweepStep::Sweep { units: situation.token_units }
    } else {
        let wanted = ceiling.saturating_mul(U256::from(2));
        SweepStep::Fuel { units: wanted - situation.native_units }
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
    pub terms: FeeTerms,
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
    let ceiling = cost_ceiling(situation.terms);
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
    pub terms: FeeTerms,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectStep {
    /// The address does not hold it.
    Elsewhere,
    /// The address cannot pay for gas: send it this much first.
    Fuel {
        units: U256,
    },
    Pay,
}

/// Pays from the address that holds it: one signature, and no other payment's money is near. Fuel is sent as
/// for a sweep.
pub fn next_direct_step(situation: DirectSituation) -> DirectStep {
    if situation.free_units < situation.units {
        return DirectStep::Elsewhere;
    }
    let ceiling = cost_ceiling(situation.terms);
    let own = if situation.is_native { situation.units } else { U256::ZERO };
    if situation.free_native_units >= own.saturating_add(ceiling) {
        DirectStep::Pay
    } else {
        let wanted = own.saturating_add(ceiling.saturating_mul(U256::from(2)));
        DirectStep::Fuel { units: wanted - situation.free_native_units }
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

    fn sweep(token: u64, native: u64) -> SweepStep {
        next_sweep_step(SweepSituation { token_units: U256::from(token), native_units: U256::from(native), terms: TERMS })
    }

    #[test]
    fn sweep_steps() {
        assert_eq!(sweep(0, 5_000), SweepStep::Nothing);
        assert_eq!(sweep(7, 0), SweepStep::Fuel { units: U256::from(2_000) });
        assert_eq!(sweep(7, 999), SweepStep::Fuel { units: U256::from(1_001) });
        assert_eq!(sweep(7, 1_000), SweepStep::Sweep { units: U256::from(7) });
    }

    #[test]
    fn direct_steps() {
        let direct = |units: u64, is_native, free: u64, native: u64| {
            next_direct_step(DirectSituation {
                units: U256::from(units),
                is_native,
                free_units: U256::from(free),
                free_native_units: U256::from(native),
                terms: TERMS,
            })
        };
        assert_eq!(direct(8, false, 7, 5_000), DirectStep::Elsewhere);
        assert_eq!(direct(7, false, 7, 0), DirectStep::Fuel { units: U256::from(2_000) });
        assert_eq!(direct(7, false, 7, 999), DirectStep::Fuel { units: U256::from(1_001) });
        assert_eq!(direct(7, false, 7, 1_000), DirectStep::Pay);
        assert_eq!(direct(7, true, 7, 7), DirectStep::Fuel { units: U256::from(2_000) }, "what is paid pays no gas");
        assert_eq!(direct(7, true, 1_007, 1_007), DirectStep::Pay);
    }

    #[test]
    fn s4_promised_money_is_not_promised_twice() {
        let base = ReleaseSituation {
            due_units: U256::from(60),
            treasury_token_units: U256::from(100),
            promised_token_units: U256::ZERO,
            treasury_native_units: U256::from(1_500),
            promised_native_units: U256::ZERO,
            terms: TERMS,
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
