//! What officers do about a transaction that is stuck: ask for the same one with higher fees, or for a cancel
//! that takes its nonce. Both are signed on the device like anything else, and whichever transaction of the
//! nonce is mined settles.
//!
//! Pure. The steps in the database are in `replace::store`.

pub mod store;

use alloy::primitives::U256;

use super::{BroadcastError, Outbound};
use crate::intent::{FeeTerms, Intent, IntentKind, IntentState, RaiseError, raise};

/// What a plain transfer costs, and with it a cancel; a rollup's estimate may be above it.
pub const CANCEL_GAS: u64 = 21_000;

/// Fees as the market has them, the cap, and what an officer asks for, if anything.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Now: twice the base fee and the priority fee.
    pub market: FeeTerms,
    /// The chain's cap, in wei per gas.
    pub cap: u128,
    /// Maximum and priority fee per gas, in wei.
    pub asked: Option<(u128, u128)>,
}

/// The highest fees that anything at the nonce pays. The intent's own terms count where a device may have signed
/// them: not those of a revision that still waits for a station.
pub fn paid(intent: &Intent, at_nonce: &[Outbound]) -> FeeTerms {
    let waits = match intent.state {
        IntentState::Planned | IntentState::Approved => !at_nonce.is_empty() && intent.signed_revision.is_some(),
        IntentState::Signing
        | IntentState::Signed
        | IntentState::Broadcast
        | IntentState::Uncertain
        | IntentState::Mined
        | IntentState::Settled
        | IntentState::Reverted
        | IntentState::Void
        | IntentState::Replaced => false,
    };
    let start = if waits { FeeTerms { max_fee_per_gas: 0, max_priority_fee_per_gas: 0, ..intent.fees } } else { intent.fees };
    at_nonce.iter().map(|sent| sent.fees).fold(start, |paid, fees| FeeTerms {
        gas_limit: intent.fees.gas_limit,
        max_fee_per_gas: paid.max_fee_per_gas.max(fees.max_fee_per_gas),
        max_priority_fee_per_gas: paid.max_priority_fee_per_gas.max(fees.max_priority_fee_per_gas),
    })
}

/// Whether higher fees can be asked for. Signed bytes must be there: before that an intent is given up and
/// planned anew. While a replacement waits, only other fees, named, make another one of it: however many officers
/// click at once, the fees rise once.
pub fn may_raise(intent: &Intent, asked: Option<(u128, u128)>) -> Result<(), BroadcastError> {
    let no = |remedy| Err(BroadcastError::NotReplaceable { intent: intent.id, state: intent.state, remedy });
    match intent.state {
        IntentState::Planned | IntentState::Approved if intent.signed_revision.is_none() => {
            no("nothing is signed yet; `intent void` gives it up, and it is planned anew with the fees of that moment")
        }
        IntentState::Planned | IntentState::Approved => match asked {
            None => no("a replacement waits already; name other fees to ask for another one"),
            Some(fees) if fees == (intent.fees.max_fee_per_gas, intent.fees.max_priority_fee_per_gas) => {
                no("a replacement with these fees waits already")
            }
            Some(_) => Ok(()),
        },
        IntentState::Signed | IntentState::Broadcast | IntentState::Uncertain => Ok(()),
        IntentState::Signing => no("a station has it; it must sign or decline first"),
        IntentState::Mined | IntentState::Settled | IntentState::Reverted => no("it is in a block"),
        IntentState::Void | IntentState::Replaced => no("it is over"),
    }
}

/// Whether a cancel can be asked for: something may be signed, nothing is in a block, and it is no cancel itself.
pub fn may_cancel(intent: &Intent) -> Result<(), BroadcastError> {
    let no = |remedy| Err(BroadcastError::NotReplaceable { intent: intent.id, state: intent.state, remedy });
    if intent.kind == IntentKind::Cancel {
        return no("a cancel is not cancelled; ask for higher fees if it is stuck");
    }
    match intent.state {
        IntentState::Planned | IntentState::Approved if !intent.may_be_signed() => no("no station had it; `intent void` gives it up"),
        IntentState::Planned
        | IntentState::Approved
        | IntentState::Signing
        | IntentState::Signed
        | IntentState::Broadcast
        | IntentState::Uncertain => Ok(()),
        IntentState::Mined | IntentState::Settled | IntentState::Reverted => no("it is in a block"),
        IntentState::Void | IntentState::Replaced => no("it is over"),
    }
}

/// Fees of the next transaction at the nonce.
pub fn next_fees(intent: &Intent, at_nonce: &[Outbound], offer: Offer) -> Result<FeeTerms, RaiseError> {
    raise::raise(paid(intent, at_nonce), offer.market, offer.asked, offer.cap)
}

/// The most that a transaction takes of its sender's own coin.
pub fn most(intent: &Intent, fees: FeeTerms, native_units: U256) -> U256 {
    U256::from(fees.gas_limit.max(intent.fees.gas_limit)).saturating_mul(U256::from(fees.max_fee_per_gas)).saturating_add(native_units)
}
