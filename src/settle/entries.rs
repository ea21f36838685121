//! The entries of a settled transaction. Pure.

use alloy::primitives::{B256, U256};

use crate::intent::{Intent, IntentKind};
use crate::ledger::{AccountKey, Entry, EntryType};
use crate::units::{AssetId, TokenAmount};

/// What was paid for gas, out of the sender's native coin.
pub(super) fn network_fee(intent: &Intent, native: AssetId, native_decimals: u8, fee: U256, tx_hash: B256) -> Option<Entry> {
    (!fee.is_zero()).then(|| Entry {
        entry_type: EntryType::NetworkFee,
        payment: intent.payment,
        amount: TokenAmount::new(native, fee),
        decimals: native_decimals,
        debit: AccountKey::NetworkFee,
        credit: AccountKey::Custody(intent.from.address),
        reverses: None,
        key: format!("tx:{tx_hash}:fee"),
        memo: format!("gas of {} {}", intent.kind.name(), intent.id),
    })
}

/// What the transaction moved.
///
/// A sweep and its fuel go from custody to custody. A release takes what was reserved for the seller.
/// `None` for a cancel, which moves nothing.
pub(super) fn movement(intent: &Intent, decimals: u8, tx_hash: B256) -> Option<Entry> {
    let custody = AccountKey::Custody(intent.from.address);
    let (entry_type, debit) = match intent.kind {
        IntentKind::Sweep | IntentKind::Fuel => (EntryType::Sweep, AccountKey::Custody(intent.to)),
        IntentKind::Release => (EntryType::Release, AccountKey::Payable(intent.payment?)),
        IntentKind::Refund => (EntryType::Refund, AccountKey::Payable(intent.payment?)),
        IntentKind::Cancel => return None,
    };
    Some(Entry {
        entry_type,
        payment: intent.payment,
        amount: intent.amount,
        decimals,
        debit,
        credit: custody,
        reverses: None,
        key: format!("tx:{tx_hash}:move"),
        memo: format!("{} {}, tx {tx_hash}", intent.kind.name(), intent.id),
    })
}
