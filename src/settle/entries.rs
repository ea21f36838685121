//! The entries of a settled transaction. Pure.
//!
//! Their keys begin with the number of the outbound transaction, not with its hash: keys that grow keep the
//! index of all keys local, however many entries there are. Transactions that settled before that have
//! keys with their hash.

use alloy::primitives::{B256, U256};

use crate::intent::{Intent, IntentKind};
use crate::ledger::{AccountKey, Entry, EntryType};
use crate::units::{AssetId, TokenAmount};

/// The key under which the gas of a transaction stands in the ledger.
pub(super) fn fee_key(outbound: i64) -> String {
    format!("outbound:{outbound}:fee")
}

/// What was paid for gas, out of the sender's native coin.
pub(super) fn network_fee(intent: &Intent, native: AssetId, native_decimals: u8, fee: U256, outbound: i64) -> Option<Entry> {
    (!fee.is_zero()).then(|| Entry {
        entry_type: EntryType::NetworkFee,
        payment: intent.payment,
        amount: TokenAmount::new(native, fee),
        decimals: native_decimals,
        debit: AccountKey::NetworkFee,
        credit: AccountKey::Custody(intent.from.address),
        reverses: None,
        key: fee_key(outbound),
        memo: format!("gas of {} {}", intent.kind.name(), intent.id),
    })
}

/// What the transaction moved.
///
/// A sweep and its fuel go from custody to custody. A release takes what was reserved for the seller.
/// `None` for a cancel, which moves nothing.
pub(super) fn movement(intent: &Intent, decimals: u8, (outbound, tx_hash): (i64, B256)) -> Option<Entry> {
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
        key: format!("outbound:{outbound}:move"),
        memo: format!("{} {}, tx {tx_hash}", intent.kind.name(), intent.id),
    })
}
