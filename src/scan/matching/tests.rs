//! Fixtures of bad chain data, and the matcher against an independent reference on generated blocks.

use alloy::primitives::{Bloom, Bytes};
use proptest::prelude::*;

use super::*;
use crate::rpc::{Header, Transaction};
use crate::units::BlockNumber;

const USDC: Address = Address::repeat_byte(0xc1);
const USDT: Address = Address::repeat_byte(0xc2);
const FAKE: Address = Address::repeat_byte(0xc3);
const BLOCK_HASH: B256 = B256::repeat_byte(0xbb);

fn ours(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn stranger(n: u8) -> Address {
    Address::repeat_byte(0x80 + n)
}

fn watched() -> WatchedSet {
    let mut set = WatchedSet::default();
    set.extend((1..=3).map(ours));
    set
}

fn block_ref() -> BlockRef {
    BlockRef { number: BlockNumber(7), hash: BLOCK_HASH }
}

fn block_of(transactions: Vec<Transaction>) -> Block {
    let header = Header { block: block_ref(), parent_hash: B256::ZERO, timestamp: 0, base_fee: None, logs_bloom: Bloom::ZERO };
    Block { header, transactions }
}

fn call(n: u8) -> Transaction {
    Transaction { hash: B256::repeat_byte(n), from: stranger(1), to: Some(USDC), value: U256::ZERO }
}

fn transfer_log(tx: u8, log_index: u64, token: Address, from: Address, to: Address, value: U256) -> Log {
    Log {
        block_hash: Some(BLOCK_HASH),
        tx_hash: B256::repeat_byte(tx),
        log_index,
        address: token,
        topics: vec![TRANSFER_TOPIC, from.into_word(), to.into_word()],
        data: Bytes::from(value.to_be_bytes::<32>()),
        removed: false,
    }
}

fn receipt_of(tx: u8, succeeded: bool, logs: Vec<Log>) -> Receipt {
    Receipt {
        tx_hash: B256::repeat_byte(tx),
        succeeded,
        block: block_ref(),
        tx_index: 0,
        gas_used: 21_000,
        effective_gas_price: Some(1),
        l1_fee: None,
        logs,
    }
}

/// The token contracts' logs, as the node gives them for the block.
fn listed(receipts: &[Receipt]) -> Vec<Log> {
    let logs = receipts.iter().filter(|receipt| receipt.succeeded).flat_map(|receipt| &receipt.logs);
    logs.filter(|log| [USDC, USDT].contains(&log.address) && log.topics.first() == Some(&TRANSFER_TOPIC)).cloned().collect()
}

fn run(transactions: Vec<Transaction>, logs: &[Log], receipts: &[Receipt]) -> Result<(Vec<Transfer>, Ignored), MatchError> {
    let watched = watched();
    let block = block_of(transactions);
    transfers(View { block: &block, logs, calls: &[] }, receipts, Scope { watched: &watched, tokens: &[USDC, USDT] })
}

/// One transaction with these logs; what is taken, as (position, amount).
fn taken(logs: Vec<Log>) -> (Vec<(String, U256)>, Ignored) {
    let receipts = [receipt_of(1, true, logs)];
    let (found, ignored) = run(vec![call(1)], &listed(&receipts), &receipts).unwrap();
    (found.into_iter().map(|transfer| (transfer.position.to_string(), transfer.amount)).collect(), ignored)
}

fn good(log_index: u64, value: u64) -> Log {
    transfer_log(1, log_index, USDC, stranger(1), ours(1), U256::from(value))
}

#[test]
fn xc01_a_failed_transaction_moves_nothing() {
    let by_value = Transaction { to: Some(ours(1)), value: U256::from(5), ..call(1) };
    let (found, ignored) = run(vec![by_value], &[], &[receipt_of(1, false, vec![])]).unwrap();
    assert_eq!((found.len(), ignored.failed), (0, 1));
    // A log of a transaction whose receipt has none is a contradiction, not a transfer.
    let refused = run(vec![call(1)], &[good(0, 5)], &[receipt_of(1, false, vec![])]);
    assert_eq!(refused, Err(MatchError::LogNotInReceipt { tx_hash: B256::repeat_byte(1) }));
}

#[test]
fn xc02_t13_an_unlisted_contract_pays_nothing() {
    let fake = transfer_log(1, 0, FAKE, stranger(1), ours(1), U256::from(9));
    let (found, ignored) = taken(vec![fake, good(1, 5)]);
    assert_eq!(found, [("log:1".to_owned(), U256::from(5))], "the position counts the fake log too");
    assert_eq!(ignored.unlisted, 1);
}

#[test]
fn xc04_a_token_without_a_log_pays_nothing() {
    assert_eq!(taken(vec![]), (vec![], Ignored::default()));
}

#[test]
fn xc05_zero_value_is_ignored_in_and_out() {
    let stolen_look = transfer_log(1, 1, USDC, ours(1), stranger(2), U256::ZERO);
    let (found, ignored) = taken(vec![good(0, 0), stolen_look]);
    assert_eq!((found.len(), ignored.zero), (0, 1));
}

#[test]
fn xc06_xc07_other_shapes_of_the_same_event_are_counted() {
    let mut four_topics = good(0, 5);
    four_topics.topics.push(B256::ZERO);
    let mut one_topic = good(1, 5);
    one_topic.topics.truncate(1);
    let mut long = good(2, 5);
    long.data = Bytes::from(vec![0; 33]);
    let mut short = good(3, 5);
    short.data = Bytes::from(vec![1; 31]);
    let mut empty = good(4, 5);
    empty.data = Bytes::new();
    let mut dirty = good(5, 5);
    dirty.topics[2].0[0] = 1;
    let mut dirty_sender = good(6, 5);
    dirty_sender.topics[1].0[11] = 1;
    let (found, ignored) = taken(vec![four_topics, one_topic, long, short, empty, dirty, dirty_sender]);
    assert_eq!((found.len(), ignored.malformed), (0, 7));
}

#[test]
fn xc08_amounts_are_exact() {
    let largest = transfer_log(1, 0, USDC, stranger(1), ours(1), U256::MAX);
    let (found, _) = taken(vec![largest, good(1, 1)]);
    assert_eq!(found, [("log:0".to_owned(), U256::MAX), ("log:1".to_owned(), U256::from(1))]);
}

#[test]
fn xc09_t07_each_transfer_of_a_transaction_counts_once() {
    let to_other = transfer_log(1, 4, USDT, stranger(1), ours(2), U256::from(7));
    let receipts = [receipt_of(1, true, vec![good(2, 5), good(3, 5), to_other])];
    let (found, _) = run(vec![call(1)], &listed(&receipts), &receipts).unwrap();
    let keys: Vec<String> = found.iter().map(|transfer| transfer.position.to_string()).collect();
    assert_eq!(keys, ["log:0", "log:1", "log:2"]);
    assert_eq!(found[2].recipient, ours(2));
    assert!(found.iter().all(|transfer| !transfer.internal));
}

#[test]
fn xc09_a_transfer_between_our_addresses_is_internal() {
    let to_self = transfer_log(1, 0, USDC, ours(1), ours(1), U256::from(5));
    let receipts = [receipt_of(1, true, vec![to_self])];
    let native = Transaction { hash: B256::repeat_byte(2), from: ours(2), to: Some(ours(3)), value: U256::from(1) };
    let receipts = [receipts[0].clone(), receipt_of(2, true, vec![])];
    let (found, _) = run(vec![call(1), native], &listed(&receipts), &receipts).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|transfer| transfer.internal));
}

#[test]
fn xc13_removed_and_pending_logs_give_nothing_and_order_means_nothing() {
    let removed = Log { removed: true, ..good(9, 1) };
    let pending = Log { block_hash: None, ..good(9, 2) };
    let receipts = [receipt_of(1, true, vec![good(8, 30), good(3, 10), good(8, 30), good(5, 20)])];
    let mut logs = listed(&receipts);
    logs.reverse();
    logs.extend([removed, pending]);
    let (found, ignored) = run(vec![call(1)], &logs, &receipts).unwrap();
    let found: Vec<_> = found.into_iter().map(|transfer| (transfer.position.to_string(), transfer.amount.to::<u64>())).collect();
    assert_eq!(found, [("log:0".to_owned(), 10), ("log:1".to_owned(), 20), ("log:2".to_owned(), 30)]);
    assert_eq!(ignored.unmined, 2);
    // A log that is in no block needs no receipt.
    let alone = Log { removed: true, tx_hash: B256::repeat_byte(5), ..good(0, 1) };
    assert_eq!(run(vec![], &[alone], &[]).unwrap().0, []);
}

#[test]
fn xc14_xc16_a_node_that_contradicts_itself_is_not_used() {
    let tx_hash = B256::repeat_byte(1);
    let two = [receipt_of(1, true, vec![good(0, 1), good(0, 2)])];
    assert_eq!(run(vec![call(1)], &listed(&two)[..1], &two), Err(MatchError::TwoLogs { tx_hash, log_index: 0 }));

    let elsewhere = BlockRef { number: BlockNumber(8), hash: B256::repeat_byte(0xcc) };
    let moved = [Receipt { block: elsewhere, ..receipt_of(1, true, vec![good(0, 1)]) }];
    let refused = run(vec![call(1)], &[good(0, 1)], &moved);
    assert_eq!(refused, Err(MatchError::ReceiptElsewhere { tx_hash, found: elsewhere, wanted: block_ref() }));

    assert_eq!(run(vec![call(1)], &[good(0, 1)], &[]), Err(MatchError::NoReceipt { tx_hash }));

    let receipts = [receipt_of(1, true, vec![good(0, 1)])];
    let mut block = block_of(vec![call(1)]);
    block.header.logs_bloom.accrue_raw_log(USDT, &[TRANSFER_TOPIC]);
    let watched = watched();
    let view = View { block: &block, logs: &listed(&receipts), calls: &[] };
    let refused = transfers(view, &receipts, Scope { watched: &watched, tokens: &[USDC] });
    assert_eq!(refused, Err(MatchError::LogOutsideBloom { tx_hash }));
}

// === inside a transaction ===

fn frame(path: &[u32], kind: CallKind, to: Address, value: u64) -> Call {
    Call {
        tx_hash: B256::repeat_byte(1),
        path: path.to_vec(),
        kind,
        from: stranger(9),
        to: Some(to),
        value: U256::from(value),
        failed: false,
    }
}

/// What a trace of one transaction gives, as (position, amount).
fn traced(calls: &[Call], succeeded: bool) -> Vec<(String, U256)> {
    let watched = watched();
    let block = block_of(vec![call(1)]);
    let scope = Scope { watched: &watched, tokens: &[USDC, USDT] };
    let (found, _) = transfers(View { block: &block, logs: &[], calls }, &[receipt_of(1, succeeded, vec![])], scope).unwrap();
    assert!(found.iter().all(|transfer| transfer.asset == Asset::Native && transfer.sender == stranger(9)));
    found.into_iter().map(|transfer| (transfer.position.to_string(), transfer.amount)).collect()
}

#[test]
fn xc12_the_native_coin_of_contracts_is_found_by_trace() {
    let top = frame(&[], CallKind::Call, USDC, 0);
    let found = traced(
        &[
            top.clone(),
            frame(&[0], CallKind::Call, ours(1), 5),
            frame(&[1], CallKind::Other, ours(1), 6),
            frame(&[2], CallKind::Call, stranger(2), 7),
            frame(&[2, 0], CallKind::SelfDestruct, ours(2), 8),
            frame(&[3], CallKind::Call, ours(1), 0),
            frame(&[4], CallKind::Create, ours(3), 9),
        ],
        true,
    );
    let expected = [("call:0", 5), ("call:2.0", 8), ("call:4", 9)].map(|(position, value)| (position.to_owned(), U256::from(value)));
    assert_eq!(found, expected, "delegated calls, strangers and zeroes pay us nothing");

    // A failed frame voids all below it, and nothing beside it.
    let failed = Call { failed: true, ..frame(&[0], CallKind::Call, stranger(2), 1) };
    let found = traced(&[top.clone(), failed, frame(&[0, 1], CallKind::Call, ours(1), 5), frame(&[1], CallKind::Call, ours(1), 6)], true);
    assert_eq!(found, [("call:1".to_owned(), U256::from(6))]);
    assert_eq!(traced(&[top, frame(&[0], CallKind::Call, ours(1), 5)], false), [], "the receipt decides");
}

#[test]
fn w2_a_trace_that_leaves_a_transaction_out_is_not_whole() {
    let block = block_of(vec![call(1), call(2)]);
    let of = |n: u8, path: &[u32]| Call { tx_hash: B256::repeat_byte(n), ..frame(path, CallKind::Call, USDC, 0) };
    assert!(is_whole_trace(&block, &[of(1, &[]), of(1, &[0]), of(2, &[])]));
    assert!(!is_whole_trace(&block, &[of(1, &[]), of(2, &[0])]));
    assert!(!is_whole_trace(&block, &[of(1, &[])]));
    assert!(!is_whole_trace(&block, &[of(1, &[]), of(2, &[]), of(3, &[])]));
}

// === generated blocks against a reference ===

/// What a generated log is meant to be; the reference believes this and not the bytes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Good { token: Address, from: Address, to: Address, value: u64 },
    Unlisted { to: Address },
    FourTopics { to: Address },
    LongData { to: Address },
    OtherEvent,
}

fn parties() -> impl Strategy<Value = Address> {
    prop_oneof![(1u8..=3).prop_map(ours), (1u8..=3).prop_map(stranger)]
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => (prop_oneof![Just(USDC), Just(USDT)], parties(), parties(), 0u64..4)
            .prop_map(|(token, from, to, value)| Kind::Good { token, from, to, value }),
        1 => parties().prop_map(|to| Kind::Unlisted { to }),
        1 => parties().prop_map(|to| Kind::FourTopics { to }),
        1 => parties().prop_map(|to| Kind::LongData { to }),
        1 => Just(Kind::OtherEvent),
    ]
}

#[derive(Clone, Debug)]
struct Plan {
    from: Address,
    to: Option<Address>,
    value: u64,
    succeeded: bool,
    logs: Vec<Kind>,
    /// Unused indices before this transaction's logs.
    gap: u64,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let plan = (parties(), proptest::option::of(parties()), 0u64..3, any::<bool>(), proptest::collection::vec(kinds(), 0..6), 0u64..3);
    let plan = plan.prop_map(|(from, to, value, succeeded, logs, gap)| Plan { from, to, value, succeeded, logs, gap });
    proptest::collection::vec(plan, 0..8)
}

/// The reference: what the plan says, without looking at topics or data.
fn expected(plans: &[Plan]) -> BTreeSet<(u8, String, Address, Address, u64, bool)> {
    let is_ours = |address: Address| (1..=3).any(|n| ours(n) == address);
    let mut found = BTreeSet::new();
    for (tx, plan) in (1u8..).zip(plans).filter(|(_, plan)| plan.succeeded) {
        if let Some(to) = plan.to.filter(|to| is_ours(*to) && plan.value > 0) {
            found.insert((tx, "call:".to_owned(), Asset::NATIVE_MARKER, to, plan.value, is_ours(plan.from)));
        }
        for (ordinal, kind) in plan.logs.iter().enumerate() {
            if let Kind::Good { token, from, to, value } = *kind
                && is_ours(to)
                && value > 0
            {
                found.insert((tx, format!("log:{ordinal}"), token, to, value, is_ours(from)));
            }
        }
    }
    found
}

fn build(plans: &[Plan]) -> (Vec<Transaction>, Vec<Receipt>) {
    let mut index = 0;
    let mut transactions = Vec::new();
    let mut receipts = Vec::new();
    for (tx, plan) in (1u8..).zip(plans) {
        transactions.push(Transaction { hash: B256::repeat_byte(tx), from: plan.from, to: plan.to, value: U256::from(plan.value) });
        index += plan.gap;
        let mut logs = Vec::new();
        for kind in plan.logs.iter().filter(|_| plan.succeeded) {
            let template = |token, from, to, value: u64| transfer_log(tx, index, token, from, to, U256::from(value));
            logs.push(match *kind {
                Kind::Good { token, from, to, value } => template(token, from, to, value),
                Kind::Unlisted { to } => template(FAKE, stranger(1), to, 5),
                Kind::FourTopics { to } => {
                    let mut log = template(USDC, stranger(1), to, 5);
                    log.topics.push(B256::with_last_byte(5));
                    log
                }
                Kind::LongData { to } => Log { data: Bytes::from(vec![1; 64]), ..template(USDC, stranger(1), to, 5) },
                Kind::OtherEvent => Log { topics: vec![B256::repeat_byte(0xee)], ..template(USDC, stranger(1), ours(1), 5) },
            });
            index += 1;
        }
        receipts.push(receipt_of(tx, plan.succeeded, logs));
    }
    (transactions, receipts)
}

proptest! {
    #[test]
    fn w2_the_matcher_agrees_with_the_reference(plans in plans(), seed in any::<u64>()) {
        let (transactions, mut receipts) = build(&plans);
        let mut logs = listed(&receipts);
        // Answers come in any order and twice.
        if !logs.is_empty() {
            let turn = usize::try_from(seed % logs.len() as u64).unwrap();
            logs.rotate_left(turn);
            logs.push(logs[0].clone());
        }
        receipts.reverse();
        for receipt in &mut receipts {
            receipt.logs.reverse();
        }
        let (found, _) = run(transactions, &logs, &receipts).unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|t| (t.tx_hash[0], t.position.to_string(), t.asset.marker(), t.recipient, t.amount.to::<u64>(), t.internal))
            .collect();
        let unique: BTreeSet<_> = found.iter().cloned().collect();
        prop_assert_eq!(unique.len(), found.len(), "a transfer was taken twice");
        prop_assert_eq!(unique, expected(&plans));
    }
}
