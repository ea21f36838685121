//! Reading again: what was missed is found, nothing is added twice, and only the stored line counts.

use alloy::primitives::Address;
use amanatd::rpc::Span;
use amanatd::scan::{RescanReport, ScanError, ScanOptions, Scanner};
use amanatd::units::{BlockNumber, Disposition};

use crate::scripted::{Frame, Pay, ScriptedNode, Tx};
use crate::watching::{NOW, Watching, local_spec};

/// A payment that a contract makes: only a trace shows it.
fn inner(number: u64, to: Address, value: u64) -> Tx {
    let contract = Address::repeat_byte(0x55);
    Tx { calls: vec![Frame::call(contract, to, value)], ..Tx::calling(number, contract) }
}

fn native(tx: u64, to: Address, value: u64) -> Pay {
    Pay { tx, token: None, to, value }
}

fn span(from: u64, to: u64) -> Span {
    Span { from: BlockNumber(from), to: BlockNumber(to) }
}

/// A second process over the same database, which looks inside.
fn other(watching: &Watching) -> Scanner {
    Scanner::new(watching.database.clone(), watching.node.clone(), std::sync::Arc::default(), &watching.spec, ScanOptions::default())
}

fn stored(watching: &Watching) -> String {
    let all = "select (select string_agg(b::text, ';' order by number) from chain_blocks b), \
         (select string_agg(o::text, ';' order by id) from transfer_observations o), (select c::text from chain_cursors c)";
    watching.base.sql(all).unwrap()
}

/// A block's height, beginning at the head, with so many empty blocks after it.
fn settle(node: &ScriptedNode) {
    node.model(|model| model.mine_empty(u64::from(local_spec().reorg_window) + 5));
}

#[tokio::test]
async fn w2_a_rescan_finds_what_was_missed_and_adds_nothing_twice() {
    let node = ScriptedNode::start().await;
    let options = ScanOptions { internal: false, ..ScanOptions::default() };
    let watching = Watching::with(&[&node.url()], local_spec(), options).await;
    watching.follow().await;
    let to = watching.issue().await.address;
    let at = node.model(|model| model.mine(vec![native(1, to, 10)])).number.0;
    node.model(|model| model.mine_txs(vec![inner(2, to, 20)]));
    settle(&node);
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|0|1|0", "nobody looked inside");
    let unread = || watching.base.sql("select count(*) from chain_blocks where not internal_read").unwrap().trim().to_owned();
    assert_ne!(unread(), "0");
    let before = watching.cursor().await;

    let scanner = other(&watching);
    let found = scanner.rescan(span(at, at + 1), NOW).await.unwrap();
    assert_eq!(found, RescanReport { blocks: 2, transfers: 2, new_transfers: 1, unseen_transfers: 0 });
    watching.confirm().await;
    assert_eq!(watching.rows(), "2|2|0|2|0", "the credit follows");

    let first = stored(&watching);
    let again = scanner.rescan(span(at, at + 1), NOW).await.unwrap();
    assert_eq!(again, RescanReport { blocks: 2, transfers: 2, new_transfers: 0, unseen_transfers: 0 });
    assert_eq!(stored(&watching), first, "nothing changes the second time");
    // One that sees less takes nothing away, and says so.
    let blind = watching.scanner.rescan(span(at, at + 1), NOW).await.unwrap();
    assert_eq!(blind, RescanReport { blocks: 2, transfers: 1, new_transfers: 0, unseen_transfers: 1 });
    assert_eq!(stored(&watching), first);
    let looked = watching.base.sql("select count(*) from chain_blocks where internal_read").unwrap();
    assert_eq!(looked.trim(), "2");
    assert_eq!(watching.cursor().await, before, "the scanner's cursor is not a rescan's to move");
    watching.assert_line();
}

#[tokio::test]
async fn w4_a_rescan_below_the_first_block_extends_the_line() {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(20));
    let options = ScanOptions { start: Some(BlockNumber(25)), ..ScanOptions::default() };
    let watching = Watching::with(&[&node.url()], local_spec(), options).await;
    let to = watching.issue().await.address;
    let low = node.model(|model| model.mine(vec![native(1, to, 10)])).number.0;
    node.model(|model| model.mine_empty(3));
    settle(&node);
    watching.follow().await;
    assert_eq!(watching.cursor().await.start, BlockNumber(25));
    assert!(low < 25 && watching.rows() == "0|0|0|0|0");

    // Not next to the line, across its end, or where a reorg still reaches: nothing is read.
    let tip = watching.cursor().await.tip.number.0;
    let before = stored(&watching);
    for (from, to, said) in
        [(10, 23, "begins at 25"), (20, 26, "begins at 25"), (26, tip + 1, "the daemon reads them"), (26, tip, "a reorg")]
    {
        let error = watching.scanner.rescan(span(from, to), NOW).await.unwrap_err();
        assert!(error.to_string().contains(said) && error.disposition() == Disposition::Officer, "{error}");
    }
    assert_eq!(stored(&watching), before);

    // Chunk by chunk; after each the line is whole, as it is when the process is killed there.
    let mut found = RescanReport::default();
    for part in amanatd::scan::chunks(span(3, 26), BlockNumber(25), 5) {
        found.add(watching.scanner.rescan(part, NOW).await.unwrap());
        watching.assert_line();
        assert_eq!(watching.cursor().await.start, part.from.min(BlockNumber(25)));
        watching.scan().await.unwrap();
    }
    assert_eq!(found, RescanReport { blocks: 24, transfers: 1, new_transfers: 1, unseen_transfers: 0 });
    assert_eq!(watching.cursor().await.start, BlockNumber(3));
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");
    // The daemon goes on where it was.
    node.model(|model| model.mine(vec![native(2, to, 20)]));
    node.model(|model| model.mine_empty(5));
    watching.follow().await;
    assert_eq!(watching.rows(), "2|2|0|2|0");
}

#[tokio::test]
async fn w4_a_rescan_over_a_branch_that_differs_writes_nothing() {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(20));
    let options = ScanOptions { start: Some(BlockNumber(10)), ..ScanOptions::default() };
    let watching = Watching::with(&[&node.url()], local_spec(), options).await;
    let to = watching.issue().await.address;
    settle(&node);
    watching.follow().await;
    let before = stored(&watching);
    // The node changes its chain from the fifth block on, with payments on both sides of the line's end.
    node.model(|model| {
        let head = model.head().number.0;
        model.cut(head - 5);
        model.mine(vec![native(1, to, 10)]);
        model.mine_empty(10);
        model.mine(vec![native(2, to, 20)]);
        model.mine_empty(head);
    });
    for part in [span(10, 18), span(5, 9)] {
        let error = watching.scanner.rescan(part, NOW).await.unwrap_err();
        assert!(matches!(error, ScanError::Moved { .. }), "{error}");
        assert_eq!(stored(&watching), before);
    }
    assert_eq!(watching.cursor().await.start, BlockNumber(10));
}
