//! The canonical encoding of an intent, and its hash: what approvals bind to.
//!
//! Fixed width, fixed order, every field that reaches the chain or says why. Two intents that differ
//! anywhere have different digests; a test changes each field in turn.

use alloy::primitives::{B256, keccak256};

use super::Intent;
use super::IntentKind;

/// Names the encoding, so that a digest of another version never matches.
const DOMAIN: &[u8; 24] = b"amanatd intent version 1";

pub fn digest_of(intent: &Intent) -> B256 {
    let kind: u8 = match intent.kind {
        IntentKind::Sweep => 1,
        IntentKind::Release => 2,
        IntentKind::Refund => 3,
        IntentKind::Fuel => 4,
        IntentKind::Cancel => 5,
    };
    let mut bytes = Vec::with_capacity(384);
    bytes.extend_from_slice(DOMAIN);
    bytes.extend_from_slice(intent.id.0.as_bytes());
    bytes.extend_from_slice(&intent.revision.to_be_bytes());
    bytes.push(kind);
    bytes.extend_from_slice(&intent.chain().get().to_be_bytes());
    for step in intent.from.path.to_bip32() {
        bytes.extend_from_slice(&step.to_be_bytes());
    }
    bytes.extend_from_slice(intent.from.address.as_slice());
    bytes.extend_from_slice(intent.to.as_slice());
    bytes.extend_from_slice(intent.amount.asset.asset.marker().as_slice());
    bytes.extend_from_slice(&intent.amount.units.to_be_bytes::<32>());
    bytes.extend_from_slice(&intent.nonce.to_be_bytes());
    bytes.extend_from_slice(&intent.fees.gas_limit.to_be_bytes());
    bytes.extend_from_slice(&intent.fees.max_fee_per_gas.to_be_bytes());
    bytes.extend_from_slice(&intent.fees.max_priority_fee_per_gas.to_be_bytes());
    bytes.extend_from_slice(intent.payment.map(|payment| payment.0).unwrap_or_default().as_bytes());
    bytes.extend_from_slice(intent.destination.unwrap_or_default().as_bytes());
    // Only a cancel has it, so that every other kind keeps the digest it always had.
    if let Some(cancelled) = intent.cancels {
        bytes.extend_from_slice(cancelled.0.as_bytes());
    }
    keccak256(&bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use alloy::primitives::{Address, U256};
    use uuid::Uuid;

    use super::*;
    use crate::account::{AccountIndex, AddressIndex, Branch, DerivationPath, DerivedAddress, Purpose};
    use crate::intent::{FeeTerms, IntentState};
    use crate::units::{Asset, AssetId, ChainId, IntentId, PaymentId, TokenAmount, TrezorAccountId};

    pub(in crate::intent) fn sample() -> Intent {
        let chain = ChainId::new(1).unwrap();
        Intent {
            id: IntentId(Uuid::from_u128(1)),
            kind: IntentKind::Sweep,
            state: IntentState::Planned,
            state_version: 1,
            revision: 1,
            from: DerivedAddress {
                id: Uuid::from_u128(2),
                account: TrezorAccountId(Uuid::from_u128(3)),
                path: DerivationPath::new(AccountIndex::new(0).unwrap(), Branch::Deposit, AddressIndex::new(7).unwrap()),
                address: Address::repeat_byte(4),
                purpose: Purpose::Deposit,
            },
            to: Address::repeat_byte(5),
            amount: TokenAmount::new(AssetId { chain, asset: Asset::Token(Address::repeat_byte(6)) }, U256::from(7)),
            nonce: 8,
            fees: FeeTerms { gas_limit: 65_000, max_fee_per_gas: 10, max_priority_fee_per_gas: 1 },
            payment: Some(PaymentId(Uuid::from_u128(9))),
            destination: Some(Uuid::from_u128(10)),
            digest: B256::ZERO,
            approvals_required: 1,
            approvals_expire_minutes: 1_440,
            policy: None,
            requested_by: "daemon".to_owned(),
            revised_by: None,
            signed_revision: None,
            cancels: None,
            station: None,
        }
    }

    #[test]
    fn s6_each_field_changes_the_digest() {
        let base = sample();
        let other_chain = AssetId { chain: ChainId::new(2).unwrap(), asset: base.amount.asset.asset };
        let other_token = AssetId { chain: base.chain(), asset: Asset::Native };
        let path =
            |account, branch, index| DerivationPath::new(AccountIndex::new(account).unwrap(), branch, AddressIndex::new(index).unwrap());
        let from = |path| DerivedAddress { path, ..base.from };
        let changed = [
            base.clone(),
            Intent { id: IntentId(Uuid::from_u128(99)), ..base.clone() },
            Intent { revision: 2, ..base.clone() },
            Intent { kind: IntentKind::Fuel, ..base.clone() },
            Intent { from: from(path(1, Branch::Deposit, 7)), ..base.clone() },
            Intent { from: from(path(0, Branch::Operator, 7)), ..base.clone() },
            Intent { from: from(path(0, Branch::Deposit, 8)), ..base.clone() },
            Intent { from: DerivedAddress { address: Address::repeat_byte(44), ..base.from }, ..base.clone() },
            Intent { to: Address::repeat_byte(55), ..base.clone() },
            Intent { amount: TokenAmount::new(other_chain, base.amount.units), ..base.clone() },
            Intent { amount: TokenAmount::new(other_token, base.amount.units), ..base.clone() },
            Intent { amount: TokenAmount::new(base.amount.asset, U256::from(70)), ..base.clone() },
            Intent { nonce: 9, ..base.clone() },
            Intent { fees: FeeTerms { gas_limit: 65_001, ..base.fees }, ..base.clone() },
            Intent { fees: FeeTerms { max_fee_per_gas: 11, ..base.fees }, ..base.clone() },
            Intent { fees: FeeTerms { max_priority_fee_per_gas: 2, ..base.fees }, ..base.clone() },
            Intent { payment: None, ..base.clone() },
            Intent { destination: None, ..base.clone() },
            Intent { cancels: Some(IntentId(Uuid::from_u128(98))), ..base.clone() },
            Intent { cancels: Some(IntentId(Uuid::from_u128(97))), ..base.clone() },
        ];
        let digests: BTreeSet<B256> = changed.iter().map(digest_of).collect();
        assert_eq!(digests.len(), changed.len());
    }

    #[test]
    fn what_does_not_reach_the_chain_does_not_change_it() {
        let base = sample();
        let moved = Intent { state: IntentState::Approved, state_version: 9, station: Some("desk".to_owned()), ..base.clone() };
        assert_eq!(digest_of(&moved), digest_of(&base));
    }
}
