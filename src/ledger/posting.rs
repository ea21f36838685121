//! Which entries a fact makes. Pure: facts in, entries out.
//!
//! Keys name the fact, so a repeated fact makes the same keys and is refused by the database.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256};
use time::OffsetDateTime;

use super::entry::{AccountKey, Entry, EntryType};
use crate::payment::{ExceptionKind, Payment, PaymentState};
use crate::units::{BlockNumber, LedgerEntryId, PaymentId, TokenAmount};

/// A confirmed transfer to one of our addresses.
#[derive(Clone, Debug)]
pub struct ConfirmedTransfer {
    pub verdict_id: i64,
    pub amount: TokenAmount,
    pub decimals: u8,
    pub recipient: Address,
    pub tx_hash: B256,
    pub block: BlockNumber,
    pub block_time: OffsetDateTime,
}

/// What a confirmed transfer means to the payment whose address it reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Counts towards the amount due.
    Counts,
    /// Goes to suspense until a person decides.
    Suspended(ExceptionKind),
}

/// How a confirmed transfer counts for its payment.
pub fn read(payment: &Payment, birth_block: BlockNumber, transfer: &ConfirmedTransfer) -> Reading {
    if transfer.amount.asset.chain != payment.due.asset.chain {
        return Reading::Suspended(ExceptionKind::WrongChain);
    }
    if transfer.amount.asset != payment.due.asset {
        return Reading::Suspended(ExceptionKind::WrongToken);
    }
    if transfer.block <= birth_block {
        // The address was used before we issued it: someone else's payment must not settle this one.
        return Reading::Suspended(ExceptionKind::Held);
    }
    if transfer.block_time > payment.expires_at {
        return Reading::Suspended(ExceptionKind::Late);
    }
    match payment.state {
        PaymentState::Pending | PaymentState::Processing => Reading::Counts,
        PaymentState::Funded
        | PaymentState::Releasable
        | PaymentState::Releasing
        | PaymentState::Partial
        | PaymentState::Released
        | PaymentState::Refunded => Reading::Suspended(ExceptionKind::Duplicate),
        // Nobody waits for it any more.
        PaymentState::Cancelled | PaymentState::Failed => Reading::Suspended(ExceptionKind::Late),
        // What an import says about it is another system's business.
        PaymentState::Imported(..) => Reading::Suspended(ExceptionKind::Held),
    }
}

/// The credit of a transfer that counts.
pub fn detected(payment: PaymentId, transfer: &ConfirmedTransfer) -> Entry {
    credit(transfer, EntryType::PaymentDetected, Some(payment), AccountKey::Received(payment), "deposit confirmed".to_owned())
}

/// The credit of a transfer that waits for a decision.
pub fn suspended(payment: PaymentId, transfer: &ConfirmedTransfer, why: ExceptionKind) -> Entry {
    let memo = format!("deposit confirmed, {}", why.name());
    credit(transfer, EntryType::PaymentDetected, Some(payment), AccountKey::Suspense(Some(payment)), memo)
}

/// The operator's own money arriving at the operator's own address.
pub fn operator_float(transfer: &ConfirmedTransfer) -> Entry {
    credit(transfer, EntryType::Adjustment, None, AccountKey::Operator, "operator float received".to_owned())
}

/// Money at one of our addresses that belongs to no payment and is not the operator's coin.
pub fn unidentified(transfer: &ConfirmedTransfer) -> Entry {
    credit(transfer, EntryType::Adjustment, None, AccountKey::Suspense(None), "transfer without a payment".to_owned())
}

fn credit(transfer: &ConfirmedTransfer, entry_type: EntryType, payment: Option<PaymentId>, claim: AccountKey, why: String) -> Entry {
    Entry {
        entry_type,
        payment,
        amount: transfer.amount,
        decimals: transfer.decimals,
        debit: AccountKey::Custody(transfer.recipient),
        credit: claim,
        reverses: None,
        key: credit_key(transfer.verdict_id),
        memo: format!("{why}, tx {}", transfer.tx_hash),
    }
}

/// The key under which the credit of a verdict stands in the ledger.
pub fn credit_key(verdict_id: i64) -> String {
    format!("verdict:{verdict_id}:credit")
}

/// The verdict whose credit stands under this key.
pub fn verdict_of_credit(key: &str) -> Option<i64> {
    key.strip_prefix("verdict:")?.strip_suffix(":credit")?.parse().ok()
}

/// The key under which a credit out of suspense was counted after all. Once for each verdict: it is
/// reversed only together with the credit.
pub fn counted_key(verdict_id: i64) -> String {
    format!("verdict:{verdict_id}:counted")
}

/// A credit that was one too many counts, now that an earlier one has left the chain.
pub fn counted(payment: PaymentId, verdict_id: i64, credit: &Entry) -> Entry {
    Entry {
        entry_type: EntryType::Adjustment,
        payment: Some(payment),
        amount: credit.amount,
        decimals: credit.decimals,
        debit: AccountKey::Suspense(Some(payment)),
        credit: AccountKey::Received(payment),
        reverses: None,
        key: counted_key(verdict_id),
        memo: "counts, because an earlier deposit left the chain".to_owned(),
    }
}

/// When a payment is whole: what was received becomes held, and what is too much goes to suspense. Less than
/// was due is whole if it is within the tolerance, or if a person accepted it: that is for the caller to say.
///
/// `received` is the balance of the payment's received account; `cause` begins the entries' keys and
/// names what made it whole.
pub fn hold(payment: &Payment, received: TokenAmount, cause: &str) -> Result<Vec<Entry>, crate::units::AmountError> {
    let held = TokenAmount::new(payment.due.asset, received.units.min(payment.due.units));
    let excess = received.checked_sub(held)?;
    let entry = |entry_type, amount, credit, leg: &str, memo: &str| Entry {
        entry_type,
        payment: Some(payment.id),
        amount,
        decimals: payment.token_decimals,
        debit: AccountKey::Received(payment.id),
        credit,
        reverses: None,
        key: format!("{cause}:{leg}"),
        memo: memo.to_owned(),
    };
    let mut entries = vec![entry(EntryType::Hold, held, AccountKey::Held(payment.id), "hold", "whole amount received")];
    if !excess.units.is_zero() {
        entries.push(entry(EntryType::Adjustment, excess, AccountKey::Suspense(Some(payment.id)), "excess", "more than was due"));
    }
    Ok(entries)
}

/// The credits among a payment's entries that stand, with their verdicts, oldest first.
pub fn standing_credits(entries: &[super::store::PostedEntry]) -> Vec<(i64, &Entry)> {
    let reversed: BTreeSet<LedgerEntryId> = entries.iter().filter_map(|posted| posted.entry.reverses).collect();
    let standing = entries.iter().filter(|posted| !reversed.contains(&posted.id));
    standing.filter_map(|posted| Some((verdict_of_credit(&posted.entry.key)?, &posted.entry))).collect()
}

/// Of the decisions about a payment's money, those that fall with a credit that leaves the chain. An order out of
/// suspense stays where it is, as long as suspense covers what the others take out of it when they are undone.
///
/// `suspense_units` is what the payment's suspense holds in the asset of the credit.
pub fn undone_with(decisions: Vec<super::store::PostedEntry>, suspense_units: U256, credit: &Entry) -> Vec<super::store::PostedEntry> {
    use AccountKey::{Held, Payable, Received, Suspense};
    let sum = |wanted: fn(&Entry) -> bool| {
        let of = decisions.iter().map(|posted| &posted.entry).filter(|entry| wanted(entry));
        of.fold(U256::ZERO, |sum, entry| sum.saturating_add(entry.amount.units))
    };
    let own = if matches!(credit.credit, Suspense(_)) { credit.amount.units } else { U256::ZERO };
    let needed = sum(|entry| matches!((entry.debit, entry.credit), (Received(_), Suspense(_)))).saturating_add(own);
    let returned = sum(|entry| matches!((entry.debit, entry.credit), (Suspense(_), Held(_) | Received(_))));
    let covered = suspense_units.saturating_add(returned) >= needed;
    let stays = |entry: &Entry| covered && matches!((entry.debit, entry.credit), (Suspense(_), Payable(_)));
    decisions.into_iter().filter(|posted| !stays(&posted.entry)).collect()
}

/// The mirror of an entry.
pub fn reversal(of: &super::store::PostedEntry, why: &str) -> Entry {
    Entry {
        entry_type: EntryType::Reversal,
        payment: of.entry.payment,
        amount: of.entry.amount,
        decimals: of.entry.decimals,
        debit: of.entry.credit,
        credit: of.entry.debit,
        reverses: Some(of.id),
        key: format!("reversal:{}", of.id),
        memo: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use uuid::Uuid;

    use super::*;
    use crate::payment::{Currency, EscrowState, PaymentStatus, Provider, Terms};
    use crate::units::{Asset, AssetId, ChainId};

    fn asset(chain: u64, token: u8) -> AssetId {
        AssetId { chain: ChainId::new(chain).unwrap(), asset: Asset::Token(Address::repeat_byte(token)) }
    }

    fn payment(state: PaymentState) -> Payment {
        Payment {
            id: PaymentId(Uuid::nil()),
            state,
            state_version: 1,
            due: TokenAmount::new(asset(1, 7), U256::from(100)),
            token_symbol: "USDC".to_owned(),
            token_decimals: 6,
            currency: Currency::Usdc,
            seller_address: Address::repeat_byte(2),
            provider: Provider::AmnScanner,
            terms: Terms::default(),
            escrowed_units: U256::ZERO,
            expires_at: OffsetDateTime::UNIX_EPOCH + Duration::hours(1),
            created_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    fn transfer(asset: AssetId, units: u64) -> ConfirmedTransfer {
        ConfirmedTransfer {
            verdict_id: 5,
            amount: TokenAmount::new(asset, U256::from(units)),
            decimals: 6,
            recipient: Address::repeat_byte(9),
            tx_hash: B256::repeat_byte(1),
            block: BlockNumber(11),
            block_time: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn what_a_transfer_counts_as() {
        let birth = BlockNumber(10);
        let good = transfer(asset(1, 7), 100);
        assert_eq!(read(&payment(PaymentState::Pending), birth, &good), Reading::Counts);
        assert_eq!(read(&payment(PaymentState::Processing), birth, &good), Reading::Counts);
        for state in [
            PaymentState::Funded,
            PaymentState::Releasable,
            PaymentState::Releasing,
            PaymentState::Partial,
            PaymentState::Released,
            PaymentState::Refunded,
        ] {
            assert_eq!(read(&payment(state), birth, &good), Reading::Suspended(ExceptionKind::Duplicate));
        }
        for state in [PaymentState::Cancelled, PaymentState::Failed] {
            assert_eq!(read(&payment(state), birth, &good), Reading::Suspended(ExceptionKind::Late));
        }
        let imported = PaymentState::Imported(PaymentStatus::Failed, Some(EscrowState::Failed));
        assert_eq!(read(&payment(imported), birth, &good), Reading::Suspended(ExceptionKind::Held));
        let pending = payment(PaymentState::Pending);
        assert_eq!(read(&pending, birth, &transfer(asset(2, 7), 1)), Reading::Suspended(ExceptionKind::WrongChain));
        assert_eq!(read(&pending, birth, &transfer(asset(1, 8), 1)), Reading::Suspended(ExceptionKind::WrongToken));
        assert_eq!(read(&pending, BlockNumber(11), &good), Reading::Suspended(ExceptionKind::Held));
        let at = |seconds| ConfirmedTransfer { block_time: pending.expires_at + Duration::seconds(seconds), ..good.clone() };
        assert_eq!(read(&pending, birth, &at(0)), Reading::Counts);
        assert_eq!(read(&pending, birth, &at(1)), Reading::Suspended(ExceptionKind::Late));
    }

    #[test]
    fn l6_a_hold_takes_what_is_due_and_no_more() {
        let payment = payment(PaymentState::Processing);
        let exact = hold(&payment, payment.due, "verdict:5").unwrap();
        assert_eq!(exact.len(), 1);
        assert_eq!((exact[0].debit, exact[0].credit), (AccountKey::Received(payment.id), AccountKey::Held(payment.id)));
        let over = hold(&payment, TokenAmount::new(payment.due.asset, U256::from(130)), "verdict:5").unwrap();
        assert_eq!(over[0].amount.units, U256::from(100));
        assert_eq!(over[1].amount.units, U256::from(30));
        assert_eq!(over[1].credit, AccountKey::Suspense(Some(payment.id)));
        let less = hold(&payment, TokenAmount::new(payment.due.asset, U256::from(99)), "verdict:5").unwrap();
        assert_eq!((less.len(), less[0].amount.units), (1, U256::from(99)), "what is there, and nothing that is not");
        let other = TokenAmount::new(asset(1, 8), U256::from(100));
        assert!(hold(&payment, other, "verdict:5").is_err());
    }

    #[test]
    fn w5_an_order_out_of_suspense_falls_only_with_its_own_money() {
        let payment = payment(PaymentState::Funded);
        let (held, received, payable) = (AccountKey::Held(payment.id), AccountKey::Received(payment.id), AccountKey::Payable(payment.id));
        let suspense = AccountKey::Suspense(Some(payment.id));
        let decided = |id: i64, debit, credit, units: u64| super::super::store::PostedEntry {
            id: LedgerEntryId(id),
            entry: Entry { debit, credit, ..detected(payment.id, &transfer(asset(1, 7), units)) },
            created_at: OffsetDateTime::UNIX_EPOCH,
        };
        let hold = decided(1, received, held, 100);
        let order = decided(2, suspense, payable, 40);
        let excess = decided(3, received, suspense, 30);
        let undone = |decisions: &[&super::super::store::PostedEntry], there: u64, credit: &Entry| {
            let decisions = decisions.iter().map(|posted| (*posted).clone()).collect();
            undone_with(decisions, U256::from(there), credit).into_iter().map(|posted| posted.id.0).collect::<Vec<_>>()
        };
        let counted = detected(payment.id, &transfer(asset(1, 7), 130));
        let duplicate = suspended(payment.id, &transfer(asset(1, 7), 40), ExceptionKind::Duplicate);
        assert_eq!(undone(&[&order, &hold], 0, &counted), [1], "another transfer's money is not touched");
        assert_eq!(undone(&[&order, &excess, &hold], 29, &counted), [2, 3, 1], "the order has some of the excess");
        assert_eq!(undone(&[&order, &excess, &hold], 30, &counted), [3, 1]);
        assert_eq!(undone(&[&order, &hold], 0, &duplicate), [2, 1], "its own money");
        let accepted = decided(4, suspense, held, 40);
        assert_eq!(undone(&[&accepted, &order, &hold], 0, &duplicate), [4, 1], "what was accepted comes back first");
    }

    #[test]
    fn k2_keys_name_the_fact() {
        let payment = payment(PaymentState::Pending);
        assert_eq!(detected(payment.id, &transfer(asset(1, 7), 1)).key, "verdict:5:credit");
        assert_eq!(suspended(payment.id, &transfer(asset(1, 7), 1), ExceptionKind::Late).key, "verdict:5:credit");
    }
}
