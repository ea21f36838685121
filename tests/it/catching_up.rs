//! Far behind the head, over providers with their limits, and over endpoints that lag or lie: everything
//! is found once, nothing is made up, and what cannot be proved moves nothing.

use alloy::primitives::{Address, U256};
use amanatd::account::DerivedAddress;
use amanatd::rpc::Fault;
use amanatd::scan::{ScanError, ScanOptions};
use amanatd::units::{BlockNumber, Progress};

use crate::scripted::{Batches, BlockReceipts, Emitted, Frame, FrameKind, Lie, PastHead, Pay, RangeText, Reply, ScriptedNode, Tags, Tx};
use crate::watching::{NOW, Watching, local_spec};

fn usdc() -> Address {
    local_spec().tokens[0].contract
}

fn token(tx: u64, to: &DerivedAddress, value: u64) -> Pay {
    Pay { tx, token: Some(usdc()), to: to.address, value }
}

fn native(tx: u64, to: &DerivedAddress, value: u64) -> Pay {
    Pay { tx, token: None, to: to.address, value }
}

/// Somebody else's transfer of a listed token.
fn foreign(tx: u64) -> Pay {
    Pay { tx, token: Some(usdc()), to: Address::repeat_byte(0x99), value: 1 }
}

/// 1,000 blocks with ten payments among them, of which every third is native, after the first block was
/// read; the last payment is near the head.
async fn behind(watching: &Watching, node: &ScriptedNode) -> Vec<u64> {
    watching.follow().await;
    let address = watching.issue().await;
    node.model(|model| {
        for round in 0..10_u64 {
            model.mine(vec![foreign(1_000 + round)]);
            model.mine_empty(97);
            let paid = if round % 3 == 0 { native(round, &address, 100 + round) } else { token(round, &address, 100 + round) };
            model.mine(vec![foreign(2_000 + round), paid]);
            model.mine_empty(1);
        }
    });
    (100..110).collect()
}

fn amounts(watching: &Watching) -> Vec<u64> {
    let found = watching.base.sql("select amount from transfer_observations where state = 'canonical' order by amount").unwrap();
    found.lines().map(|line| line.trim().parse().unwrap()).collect()
}

#[tokio::test]
async fn w2_w4_t06_an_outage_is_caught_up_in_ranges() {
    let node = ScriptedNode::start().await;
    let watching = Watching::over(&[&node.url()]).await;
    let expected = behind(&watching, &node).await;
    node.take_methods();
    let before = watching.cursor().await.tip.number.0;
    assert_eq!(watching.scanner.tick(NOW).await.unwrap(), Progress::Worked);
    // All that no reorg touches: 1,000 blocks behind, with a window of 200.
    assert_eq!(watching.cursor().await.tip.number.0, before + 800);
    let commits = watching.base.sql("select count(distinct xmin::text) from chain_blocks").unwrap();
    assert_eq!(commits.trim(), "3", "the first block, and a commit for each chunk of 500");
    let methods = node.take_methods();
    let count = |name: &str| methods.iter().filter(|method| *method == name).count();
    // Seven parts. The head, each block, the end of each part, and each chunk's tip again before its commit.
    assert_eq!((count("eth_getLogs"), count("eth_getBlockByNumber")), (7, 1 + 800 + 7 + 2));
    // Eight blocks pay us; the inside of blocks without transactions is not asked for.
    assert_eq!((count("eth_getBlockReceipts"), count("trace_block")), (8, 16));
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()));
    assert_eq!(amounts(&watching), expected);
    watching.assert_line();
    let stored = watching.base.sql("select count(*) - (select number - start_number + 1 from chain_cursors) from chain_blocks").unwrap();
    assert_eq!(stored.trim(), "0", "every height once");
    let unread = watching.base.sql("select count(*) from chain_blocks where not internal_read").unwrap();
    assert_eq!(unread.trim(), "0");
}

#[tokio::test]
async fn f14_w2_every_limit_of_a_provider_is_found_out_and_kept() {
    type Limit = fn(&mut crate::scripted::View);
    let limits: Vec<(&str, Limit)> = vec![
        ("batches refused", |view| view.quirks.batches = Batches::Refused),
        ("batches of seven", |view| view.quirks.batches = Batches::Max(7)),
        ("ranges of 100 blocks, a suggestion", |view| view.quirks.range_max = Some((100, RangeText::Reth))),
        ("ranges of 50 blocks, with the code of a bad parameter", |view| view.quirks.range_max = Some((50, RangeText::Infura))),
        ("ranges of 10 blocks", |view| view.quirks.range_max = Some((10, RangeText::Alchemy))),
        ("ranges of 30 blocks, with the code of a rate limit", |view| view.quirks.range_max = Some((30, RangeText::Bsc))),
        ("a suggestion that is refused too", |view| view.quirks.range_max = Some((20, RangeText::SameAgain))),
        ("two logs an answer", |view| view.quirks.results_max = Some(2)),
        ("a range past the head is an error", |view| view.quirks.past_head = PastHead::Refused),
        ("no receipts of whole blocks", |view| view.quirks.block_receipts = BlockReceipts::Unsupported),
        ("receipts of whole blocks are null", |view| view.quirks.block_receipts = BlockReceipts::Null),
        ("no flat traces", |view| view.quirks.flat_traces = false),
        ("no tags", |view| view.quirks.tags = Tags::Unsupported),
        ("all at once", |view| {
            view.quirks.batches = Batches::Max(3);
            view.quirks.range_max = Some((40, RangeText::SameAgain));
            view.quirks.results_max = Some(2);
            view.quirks.block_receipts = BlockReceipts::Unsupported;
            view.quirks.flat_traces = false;
            view.quirks.call_traces = false;
        }),
    ];
    for (name, limit) in limits {
        let node = ScriptedNode::start().await;
        node.view(limit);
        let watching = Watching::over(&[&node.url()]).await;
        let expected = behind(&watching, &node).await;
        watching.follow().await;
        assert_eq!(amounts(&watching), expected, "{name}");
        assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()), "{name}");
        watching.assert_line();
    }
}

/// A node that has pruned its logs answers a range with nothing, and receipts with null, though it has
/// the headers.
#[tokio::test]
async fn w2_f15_a_pruned_node_moves_nothing_past_what_it_lacks() {
    let node = ScriptedNode::start().await;
    let watching = Watching::over(&[&node.url()]).await;
    let expected = behind(&watching, &node).await;
    node.view(|view| view.quirks.pruned_below = 10_000);
    let before = watching.cursor().await;
    for _ in 0..3 {
        watching.scanner.tick(NOW).await.unwrap_err();
        assert_eq!(watching.cursor().await, before);
    }
    node.view(|view| view.quirks.pruned_below = 0);
    watching.follow().await;
    assert_eq!(amounts(&watching), expected);
}

/// The emptiness of an answer is proved by the block's own filter, or not at all.
#[tokio::test]
async fn w2_xc14_a_range_that_hides_a_log_is_found_out_by_the_filter() {
    let node = ScriptedNode::start().await;
    let watching = Watching::over(&[&node.url()]).await;
    watching.follow().await;
    let address = watching.issue().await;
    node.model(|model| {
        model.mine_empty(100);
        model.mine(vec![token(7, &address, 70)]);
        model.mine_empty(400);
    });
    let answers = node.model(|model| model.answers());
    node.script(move |method, params| {
        let ranged = method == "eth_getLogs" && params[0].get("fromBlock").is_some();
        let _ = &answers;
        if ranged { Reply::Result(serde_json::json!([])) } else { Reply::Honest }
    });
    watching.follow().await;
    assert_eq!(amounts(&watching), [70]);
}

#[tokio::test]
async fn y5_a_provider_that_is_too_fast_asked_is_asked_slower() {
    let node = ScriptedNode::start().await;
    let watching = Watching::over(&[&node.url()]).await;
    let expected = behind(&watching, &node).await;
    let count = std::sync::atomic::AtomicU32::new(0);
    node.script(move |_, _| {
        let turn = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if turn % 1_500 == 7 { Reply::Status(429, "slow down".to_owned()) } else { Reply::Honest }
    });
    let mut errors = 0;
    while watching.cursor().await.tip != node.model(|model| model.head()) {
        errors += u32::from(watching.scanner.tick(NOW).await.is_err());
        assert!(errors < 50, "it never comes through");
    }
    node.heal();
    watching.follow().await;
    assert_eq!(amounts(&watching), expected);
}

// === inside transactions ===

fn inner(number: u64, to: Address, value: u64, kind: FrameKind) -> Tx {
    let contract = Address::repeat_byte(0x55);
    let deep = Frame { kind, ..Frame::call(contract, to, value) };
    let undone =
        Frame { failed: true, calls: vec![Frame::call(contract, to, 999)], ..Frame::call(contract, Address::repeat_byte(0x56), 1) };
    let delegated = Frame { kind: FrameKind::DelegateCall, ..Frame::call(contract, to, 998) };
    Tx {
        calls: vec![undone, delegated, Frame { calls: vec![deep], ..Frame::call(contract, Address::repeat_byte(0x57), 0) }],
        ..Tx::calling(number, contract)
    }
}

#[tokio::test]
async fn w2_xc12_native_coin_from_contracts_is_found_near_and_far() {
    for (name, flat, nested) in [("flat", true, true), ("nested", false, true)] {
        let node = ScriptedNode::start().await;
        node.view(|view| {
            view.quirks.flat_traces = flat;
            view.quirks.call_traces = nested;
        });
        let watching = Watching::over(&[&node.url()]).await;
        watching.follow().await;
        let to = watching.issue().await;
        node.model(|model| {
            model.mine_txs(vec![inner(1, to.address, 11, FrameKind::Call), inner(2, to.address, 12, FrameKind::SelfDestruct)]);
            model.mine_empty(600);
            model.mine_txs(vec![
                inner(3, to.address, 13, FrameKind::Call),
                Tx { succeeded: false, ..inner(4, to.address, 14, FrameKind::Call) },
            ]);
        });
        watching.follow().await;
        assert_eq!(amounts(&watching), [11, 12, 13], "{name}");
        let positions = watching.base.sql("select distinct position from transfers").unwrap();
        assert_eq!(positions.trim(), "call:2.0", "{name}: the path is the ordinal");
        node.model(|model| model.mine_empty(3));
        watching.follow().await;
        assert_eq!(watching.rows(), "3|3|0|3|0", "{name}");
    }
}

#[tokio::test]
async fn w2_what_cannot_be_traced_is_counted_and_holds_nothing_up() {
    for (name, spoil) in [("no traces", true), ("a trace leaves one out", false)] {
        let node = ScriptedNode::start().await;
        node.view(|view| {
            view.quirks.flat_traces = !spoil;
            view.quirks.call_traces = !spoil;
            view.quirks.traces_miss_one = !spoil;
        });
        let watching = Watching::over(&[&node.url()]).await;
        watching.follow().await;
        let to = watching.issue().await;
        node.model(|model| {
            model.mine_txs(vec![inner(1, to.address, 11, FrameKind::Call)]);
            model.mine(vec![token(2, &to, 20)]);
        });
        watching.follow().await;
        assert_eq!(amounts(&watching), [20], "{name}");
        let unread = watching.base.sql("select count(*) from chain_blocks where not internal_read").unwrap();
        assert_eq!(unread.trim(), "2", "{name}: the two with transactions");
    }
}

// === endpoints that must agree ===

async fn three() -> ([ScriptedNode; 3], Watching, DerivedAddress) {
    let first = ScriptedNode::start().await;
    first.model(|model| model.mine_empty(10));
    let nodes = [first.sibling().await, first.sibling().await, first];
    let urls: Vec<String> = nodes.iter().map(ScriptedNode::url).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let watching = Watching::agreeing(&urls, 2).await;
    watching.follow().await;
    let address = watching.issue().await;
    (nodes, watching, address)
}

/// Ticks until the chain is read, over errors, which disagreement may bring.
async fn follow_over_errors(watching: &Watching, node: &ScriptedNode) {
    let mut errors = 0;
    while watching.cursor().await.tip != node.model(|model| model.head()) {
        errors += u32::from(watching.scanner.tick(NOW).await.is_err());
        assert!(errors < 20, "one liar of three must not stop the others");
    }
    for _ in 0..5 {
        let _ = watching.confirmer.tick(NOW).await;
    }
}

#[tokio::test]
async fn w8_f17_one_liar_of_three_neither_makes_nor_hides_a_credit() {
    for far in [false, true] {
        for liar in 0..3 {
            type Lying = fn(&DerivedAddress, alloy::primitives::B256) -> Lie;
            let lies: [(&str, Lying); 5] = [
                ("hides the logs", |_, _| Lie::HideLogs { tx: 1 }),
                ("hides the transaction", |_, _| Lie::HideTx { tx: 2 }),
                ("invents a payment", |to, block| Lie::Invent { block, tx: Tx::from(native(77, to, 7_777)) }),
                ("says another amount", |_, _| Lie::Amount { tx: 2, value: U256::from(999) }),
                ("says that a failed one succeeded", |_, _| Lie::Succeed { tx: 3 }),
            ];
            for (name, lie) in lies {
                let (nodes, watching, to) = three().await;
                let failed = Tx { succeeded: false, value: U256::from(30), ..Tx::calling(3, to.address) };
                let block = nodes[0].model(|model| {
                    let paid = vec![Tx::from(token(1, &to, 10)), Tx::from(native(2, &to, 20)), failed];
                    let block = model.mine_txs(paid);
                    model.mine_empty(if far { 600 } else { 5 });
                    block
                });
                nodes[liar].view(|view| view.lies.push(lie(&to, block.hash)));
                follow_over_errors(&watching, &nodes[0]).await;
                assert_eq!(amounts(&watching), [10, 20], "endpoint {liar} {name}, far {far}");
                assert_eq!(watching.rows(), "2|2|0|2|0", "endpoint {liar} {name}, far {far}");
                watching.assert_line();
            }
        }
    }
}

#[tokio::test]
async fn w8_t05_an_endpoint_that_lags_is_not_believed_about_what_it_lacks() {
    let (nodes, watching, to) = three().await;
    nodes[0].view(|view| view.lag = 20);
    nodes[0].model(|model| {
        model.mine(vec![token(1, &to, 10)]);
        model.mine_empty(5);
    });
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, nodes[0].model(|model| model.head()), "two of three are at the head");
    assert_eq!(watching.rows(), "1|1|0|1|0");
    assert!(watching.node.statuses().iter().all(|endpoint| endpoint.dissents == 0), "to lag is no lie");
}

#[tokio::test]
async fn w8_two_that_must_agree_and_do_not_stop_the_line() {
    let (nodes, watching, to) = three().await;
    let block = nodes[0].model(|model| model.mine(vec![native(2, &to, 20)]));
    nodes[0].model(|model| model.mine_empty(4));
    let before = watching.cursor().await;
    // Three different stories: there is no majority.
    nodes[0].view(|view| view.lies.push(Lie::Amount { tx: 2, value: U256::from(999) }));
    nodes[1].view(|view| view.lies.push(Lie::Invent { block: block.hash, tx: Tx::from(native(78, &to, 1)) }));
    for _ in 0..3 {
        let error = watching.scanner.tick(NOW).await.unwrap_err();
        assert!(matches!(&error, ScanError::Rpc(error) if matches!(error.fault, Fault::Disagreement { .. })), "{error}");
        assert_eq!((watching.cursor().await, watching.rows().as_str()), (before.clone(), "0|0|0|0|0"));
    }
    nodes[0].view(|view| view.lies.clear());
    watching.follow().await;
    assert_eq!(amounts(&watching), [20]);
    let dissents: Vec<u64> = watching.node.statuses().iter().map(|endpoint| endpoint.dissents).collect();
    assert!(dissents[1] > 0 && dissents[2] == 0, "{dissents:?}");
}

#[tokio::test]
async fn w8_a_credit_needs_the_second_endpoint() {
    let (mut nodes, watching, to) = three().await;
    nodes[0].model(|model| {
        model.mine(vec![token(1, &to, 10)]);
        model.mine_empty(5);
    });
    watching.scan().await.unwrap();
    nodes[0].stop().await;
    nodes[1].stop().await;
    assert!(watching.confirmer.tick(NOW).await.is_err());
    assert_eq!(watching.rows(), "1|1|0|0|0", "one alone credits nothing");
    nodes[1].resume().await;
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");
}

#[tokio::test]
async fn w8_a_longer_chain_that_only_one_shows_is_not_followed() {
    let (nodes, watching, to) = three().await;
    nodes[0].model(|model| model.mine_empty(3));
    let fake = nodes[0].model(|model| {
        let line = model.line();
        model.cut(5);
        model.mine(vec![token(66, &to, 666)]);
        model.mine_empty(50);
        let fake = model.line();
        model.set_line(line);
        fake
    });
    nodes[1].view(|view| view.line = Some(fake));
    follow_over_errors(&watching, &nodes[0]).await;
    assert_eq!(watching.cursor().await.tip, nodes[0].model(|model| model.head()));
    assert_eq!(watching.rows(), "0|0|0|0|0");
}

#[tokio::test]
async fn w2_a_chain_without_native_coin_reads_headers_only() {
    let node = ScriptedNode::start().await;
    let options = ScanOptions { start: Some(BlockNumber(0)), native: false, internal: false, ..ScanOptions::default() };
    let watching = Watching::with(&[&node.url()], local_spec(), options).await;
    let to = watching.issue().await;
    node.model(|model| {
        model.mine_txs(vec![Tx {
            logs: vec![Emitted::transfer(usdc(), Address::repeat_byte(1), to.address, U256::from(5))],
            ..Tx::calling(1, usdc())
        }]);
        model.mine(vec![native(2, &to, 9)]);
        model.mine_empty(500);
    });
    watching.follow().await;
    assert_eq!(amounts(&watching), [5]);
}
