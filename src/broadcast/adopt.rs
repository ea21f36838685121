//! Taking into the books a transaction that we signed and that this database does not know: it was restored to
//! before the transaction was planned or signed.
//!
//! The bytes prove themselves: their hash is what the chain included, and the signature is of one of our addresses.
//! What they pay decides what they are. From then on the transaction is watched and settles like any other, so the
//! order that it paid is not paid again. Pure; the steps in the database are in `adopt::store`.

pub mod store;

use alloy::primitives::{Address, B256, U256};
use uuid::Uuid;

use crate::account::Purpose;
use crate::deposit::DestinationStatus;
use crate::intent::IntentKind;
use crate::signing::{SignedTransfer, Transfer};
use crate::units::{Asset, ChainId, IntentId};

/// What a transaction of one of our addresses is, by what it moves and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing, to itself.
    Cancel,
    /// From a deposit address to the treasury.
    Sweep,
    /// Coin from the gas address to a deposit address.
    Fuel,
    /// To somebody else: an order.
    Payout,
}

impl Meaning {
    /// `to` is what we know of the recipient, if it is ours.
    pub fn of(signed: &SignedTransfer, from: Purpose, to: Option<Purpose>) -> Result<Self, AdoptError> {
        let Transfer { asset, to: recipient, amount } = signed.transfer;
        if recipient == signed.sender && amount.is_zero() && asset == Asset::Native {
            return Ok(Self::Cancel);
        }
        match (from, to) {
            // Nothing of ours moves nothing.
            _ if amount.is_zero() => Err(AdoptError::Meaningless { from: signed.sender, to: recipient, asset, units: amount }),
            (Purpose::Deposit, Some(Purpose::Treasury)) => Ok(Self::Sweep),
            (Purpose::Gas, Some(Purpose::Deposit)) if asset == Asset::Native => Ok(Self::Fuel),
            (Purpose::Deposit | Purpose::Treasury, None) => Ok(Self::Payout),
            (Purpose::Deposit | Purpose::Gas | Purpose::Treasury, _) => {
                Err(AdoptError::Meaningless { from: signed.sender, to: recipient, asset, units: amount })
            }
        }
    }

    /// Of an order it is the order's kind.
    pub const fn kind(self) -> Option<IntentKind> {
        match self {
            Self::Cancel => Some(IntentKind::Cancel),
            Self::Sweep => Some(IntentKind::Sweep),
            Self::Fuel => Some(IntentKind::Fuel),
            Self::Payout => None,
        }
    }
}

/// Why a transaction is not taken in. Nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("the chain does not have it in a block")]
    NotMined,
    #[error("the bytes given are of {found}")]
    OtherBytes { found: B256 },
    #[error("it is of chain {found}, not {asked}")]
    OtherChain { found: ChainId, asked: ChainId },
    #[error("it is no plain transfer: {0}")]
    NoTransfer(String),
    #[error("it was signed by {0}, which is not derived from one of our accounts")]
    NotOurs(Address),
    #[error("it belongs to intent {0} already")]
    Known(IntentId),
    #[error("intent {intent} holds nonce {nonce} and moves something else; give that up first (`amanatd intent void`)")]
    NonceHeld { intent: IntentId, nonce: u64 },
    #[error(
        "{units} base units of {asset} from {from} to {to} are no sweep, fuel or payout; if it was meant, correct the books by an \
         adjustment and raise the baseline (`amanatd nonce baseline`)"
    )]
    Meaningless { from: Address, to: Address, asset: Asset, units: U256 },
    #[error(
        "no order waits that pays {units} base units of {asset} to {to}; give the order again as it was, and adopt this before anything \
         else is planned"
    )]
    NoOrder { to: Address, asset: Asset, units: U256 },
    #[error("orders {0:?} pay the same to the same; name the one that it paid (--payout)")]
    SeveralOrders(Vec<Uuid>),
    #[error("the deposit address {address} is {}; {remedy}", .status.name())]
    Destination { address: Address, status: DestinationStatus, remedy: &'static str },
    #[error("the deposit address {0} belongs to no payment here; let the watcher catch up and restore the payment first")]
    NoDestination(Address),
    #[error(
        "the books hold {held} of the {units} base units of {asset} at {address} that it took; adopt what brought them there first, or rescan"
    )]
    NotBooked { address: Address, asset: Asset, held: U256, units: U256 },
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;

    use super::*;
    use crate::signing::FeeCaps;

    const OWN: Address = address!("0x00000000000000000000000000000000000000a1");
    const OTHER: Address = address!("0x00000000000000000000000000000000000000b2");
    const USDC: Asset = Asset::Token(address!("0x00000000000000000000000000000000000000c3"));

    #[test]
    fn n12_a_transaction_means_what_it_moves() {
        use Purpose::{Deposit, Gas, Treasury};
        let of = |from, to: (Address, Option<Purpose>), asset, units: u64| {
            let transfer = Transfer { asset, to: to.0, amount: U256::from(units) };
            let fees = FeeCaps { gas_limit: 21_000, max_fee_per_gas: 1, max_priority_fee_per_gas: 1 };
            let chain = ChainId::new(1).unwrap();
            let signed = SignedTransfer { chain, sender: OWN, nonce: 0, transfer, fees, hash: B256::ZERO };
            Meaning::of(&signed, from, to.1).ok()
        };
        for (from, to, asset, units, meaning) in [
            (Treasury, (OWN, Some(Treasury)), Asset::Native, 0, Some(Meaning::Cancel)),
            (Treasury, (OWN, Some(Treasury)), USDC, 0, None),
            (Treasury, (OTHER, None), USDC, 5, Some(Meaning::Payout)),
            (Treasury, (OTHER, None), Asset::Native, 5, Some(Meaning::Payout)),
            (Treasury, (OTHER, Some(Deposit)), USDC, 5, None),
            (Deposit, (OTHER, Some(Treasury)), USDC, 5, Some(Meaning::Sweep)),
            (Deposit, (OTHER, Some(Treasury)), USDC, 0, None),
            (Treasury, (OTHER, None), USDC, 0, None),
            (Deposit, (OTHER, None), USDC, 5, Some(Meaning::Payout)),
            (Deposit, (OTHER, Some(Deposit)), USDC, 5, None),
            (Gas, (OTHER, Some(Deposit)), Asset::Native, 5, Some(Meaning::Fuel)),
            (Gas, (OTHER, Some(Deposit)), USDC, 5, None),
            (Gas, (OTHER, None), Asset::Native, 5, None),
        ] {
            assert_eq!(of(from, to, asset, units), meaning, "{from:?} {to:?} {asset}");
        }
    }
}
