//! The scanner against a node that lags, lies, breaks off, is away, or shows another branch: the stored
//! line and the money stay right, and everything is found once the node is well again.

use alloy::primitives::{Address, B256};
use amanatd::account::DerivedAddress;
use amanatd::scan::{ScanError, ScanOptions};
use amanatd::units::{BlockNumber, Disposition, Progress};
use serde_json::{Value, json};

use crate::scripted::{Pay, Reply, ScriptedNode};
use crate::watching::{NOW, Watching, local_spec};

/// A node with some blocks, all read, and an address to pay to.
async fn ready() -> (ScriptedNode, Watching, DerivedAddress) {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(10));
    let watching = Watching::over(&[&node.url()]).await;
    watching.follow().await;
    let address = watching.issue().await;
    (node, watching, address)
}

fn usdc() -> Address {
    local_spec().tokens[0].contract
}

fn token(tx: u64, to: &DerivedAddress, value: u64) -> Pay {
    Pay { tx, token: Some(usdc()), to: to.address, value }
}

fn native(tx: u64, to: &DerivedAddress, value: u64) -> Pay {
    Pay { tx, token: None, to: to.address, value }
}

#[tokio::test]
async fn w5_w6_f18_reorgs_of_every_depth_converge() {
    for depth in [1, 2, 3, 4, 32, 128, 157, 187] {
        let (node, watching, address) = ready().await;
        node.model(|model| {
            model.mine(vec![token(1, &address, 10), native(2, &address, 20)]);
            model.mine_empty(depth - 1);
        });
        watching.follow().await;
        let credited = depth >= 3;
        assert_eq!(watching.rows(), if credited { "2|2|0|2|0" } else { "2|2|0|0|0" }, "depth {depth}");

        // The new branch has one of the two, one block higher, and another payment.
        node.model(|model| {
            model.cut(depth);
            model.mine(vec![native(3, &address, 30)]);
            model.mine(vec![token(1, &address, 10)]);
            model.mine_empty(depth);
        });
        watching.follow().await;
        watching.assert_line();
        assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()), "depth {depth}");
        assert_eq!(watching.cursor().await.outflow_halted.is_some(), credited, "depth {depth}");
        let canonical = watching.base.sql("select amount from transfer_observations where state = 'canonical' order by amount").unwrap();
        assert_eq!(canonical.trim(), "10\n30", "depth {depth}");
        let live = watching.base.sql(
            "select count(*) from (select transfer_id from transfer_verdicts where gate = 'credit' and revoked_at is null group by 1 having count(*) > 1) twice",
        );
        assert_eq!(live.unwrap().trim(), "0", "depth {depth}");
    }
}

#[tokio::test]
async fn w6_a_reorg_below_the_window_halts_outflow_and_calls_an_officer() {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(10));
    let mut spec = local_spec();
    spec.reorg_window = 20;
    let watching = Watching::with(&[&node.url()], spec, ScanOptions { start: Some(BlockNumber(1)), ..ScanOptions::default() }).await;
    let address = watching.issue().await;
    node.model(|model| {
        model.mine(vec![token(1, &address, 10)]);
        model.mine_empty(30);
    });
    watching.follow().await;
    let before = (watching.cursor().await.tip, watching.rows());
    let line = node.model(|model| model.line());

    node.model(|model| {
        model.cut(25);
        model.mine_empty(26);
    });
    let error = watching.scan().await.unwrap_err();
    assert!(matches!(error, ScanError::TooDeep { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Officer);
    let after = watching.cursor().await;
    assert_eq!((after.tip, watching.rows()), before, "before anything is undone, outflow is halted and a person called");
    assert!(after.outflow_halted.unwrap().contains("no block in common"));
    watching.confirm().await;

    // Then what the chain has dropped is orphaned, however deep it lies, and the halt stays.
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()));
    assert_eq!(watching.rows(), "1|1|0|1|0", "the payment lies below the fork");
    assert!(watching.cursor().await.outflow_halted.is_some());
    watching.assert_line();

    // A reorg as deep as the window is followed; the halt stays until an officer lifts it.
    node.model(|model| {
        model.set_line(line);
        model.cut(20);
        model.mine_empty(21);
    });
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()));
    assert!(watching.cursor().await.outflow_halted.is_some());
    watching.assert_line();
}

/// A node of another chain, or of a chain that was reset, shares nothing with the stored line: nothing is
/// orphaned for its sake, also not while outflow is halted.
#[tokio::test]
async fn w6_a_chain_that_shares_no_block_takes_nothing_back() {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(10));
    let mut spec = local_spec();
    spec.reorg_window = 20;
    let watching = Watching::with(&[&node.url()], spec, ScanOptions { start: Some(BlockNumber(0)), ..ScanOptions::default() }).await;
    let address = watching.issue().await;
    node.model(|model| {
        model.mine(vec![token(1, &address, 10)]);
        model.mine_empty(50);
    });
    watching.follow().await;
    let before = (watching.cursor().await.tip, watching.rows());
    node.model(|model| {
        let blocks = model.line().len() as u64;
        model.cut(blocks);
        model.mine_empty(blocks + 1);
    });
    for _ in 0..3 {
        let error = watching.scan().await.unwrap_err();
        assert!(matches!(error, ScanError::TooDeep { .. }), "{error}");
        let after = watching.cursor().await;
        assert_eq!((after.tip, watching.rows()), before);
        assert!(after.outflow_halted.is_some());
    }
}

#[tokio::test]
async fn w6_a_reorg_of_the_very_first_blocks_is_followed() {
    let node = ScriptedNode::start().await;
    node.model(|model| model.mine_empty(10));
    let watching = Watching::over(&[&node.url()]).await;
    watching.follow().await;
    let address = watching.issue().await;
    // The first stored block is the head at the start; it is replaced itself, and its parent is not stored.
    node.model(|model| {
        model.cut(1);
        model.mine(vec![token(1, &address, 4)]);
        model.mine_empty(1);
    });
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()));
    assert_eq!(watching.rows(), "1|1|0|0|0");
    watching.assert_line();
}

/// Here and not on the local chain, which forgets a branch once it has left it.
#[tokio::test]
async fn w5_f18_a_branch_that_returns_uses_its_old_rows() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    node.model(|model| model.mine_empty(1));
    let first = node.model(|model| model.line());
    watching.follow().await;
    let row = watching.progress(&address).await[0].observation;
    let second = node.model(|model| {
        model.cut(2);
        model.mine_empty(1);
        model.mine(vec![token(1, &address, 10), token(2, &address, 5)]);
        model.line()
    });
    for (line, rows) in [(&second, "2|2|1|0|0"), (&first, "2|1|2|0|0"), (&second, "2|2|1|0|0"), (&first, "2|1|2|0|0")] {
        node.model(|model| model.set_line(line.clone()));
        watching.follow().await;
        assert_eq!(watching.rows(), rows);
        watching.assert_line();
    }
    node.model(|model| model.mine_empty(1));
    watching.follow().await;
    assert_eq!(watching.rows(), "2|1|2|1|0");
    let verdict = watching.base.sql("select observation_id from transfer_verdicts where gate = 'credit'").unwrap();
    assert_eq!(verdict.trim(), row.to_string(), "the first sighting of all, in its old row");
}

#[tokio::test]
async fn f14_f21_broken_answers_move_nothing_and_everything_is_found_afterwards() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10), native(2, &address, 20)]));
    let before = watching.cursor().await;
    let methods = ["eth_getBlockByNumber", "eth_getLogs", "eth_getTransactionReceipt"];
    let replies = [
        Reply::WrongId,
        Reply::CutJson,
        Reply::Huge(5 * 1024 * 1024),
        Reply::Status(429, "slow down".to_owned()),
        Reply::Status(503, "<html>busy</html>".to_owned()),
        Reply::Status(200, "<html>welcome</html>".to_owned()),
        Reply::Status(302, String::new()),
        Reply::Result(Value::Null),
        Reply::Result(json!({})),
        Reply::Refuse(-32000, "unknown block".to_owned()),
        Reply::Refuse(-32005, "limit exceeded".to_owned()),
        Reply::Silence,
    ];
    let mut faults = 0;
    for method in methods {
        for reply in &replies {
            node.spoil(method, reply.clone());
            let error = watching.scanner.tick(NOW).await.unwrap_err();
            assert_eq!(watching.cursor().await, before, "{method} {reply:?}: {error}");
            assert_eq!(watching.rows(), "0|0|0|0|0", "{method} {reply:?}");
            assert!(!error.to_string().contains("http://"), "{error}");
            faults += 1;
        }
    }
    assert_eq!(faults, 36);
    node.heal();
    watching.follow().await;
    assert_eq!(watching.rows(), "2|2|0|0|0");
    watching.assert_line();
}

#[tokio::test]
async fn w2_f15_an_empty_list_instead_of_logs_is_no_proof() {
    let (node, watching, address) = ready().await;
    let paid = node.model(|model| model.mine(vec![token(1, &address, 10)]));
    // A node that lacks the block refuses, because it is asked by hash.
    node.script(move |method, params| {
        let by_hash = method == "eth_getLogs" && params[0]["blockHash"] == json!(paid.hash) && params[0].get("fromBlock").is_none();
        if by_hash { Reply::Refuse(-32000, "unknown block".to_owned()) } else { Reply::Honest }
    });
    assert!(watching.scan().await.is_err());
    node.heal();
    watching.scan().await.unwrap();
    assert_eq!(watching.rows(), "1|1|0|0|0");
}

#[tokio::test]
async fn xc15_xc16_answers_that_contradict_themselves_are_refused() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    let before = watching.cursor().await;
    let honest = |method: &'static str, change: fn(&mut Value)| (method, change);
    let lies = [
        honest("eth_getBlockByNumber", |answer| answer["hash"] = json!(B256::repeat_byte(1))),
        honest("eth_getBlockByNumber", |answer| answer["parentHash"] = json!(B256::repeat_byte(1))),
        honest("eth_getBlockByNumber", |answer| answer["timestamp"] = json!("0x1")),
        honest("eth_getBlockByNumber", |answer| answer["number"] = json!("0x8000000000000000")),
        honest("eth_getTransactionReceipt", |answer| answer["blockHash"] = json!(B256::repeat_byte(1))),
        honest("eth_getTransactionReceipt", |answer| answer["transactionHash"] = json!(B256::repeat_byte(1))),
        honest("eth_getTransactionReceipt", |answer| answer["logs"] = json!([])),
        honest("eth_getTransactionReceipt", |answer| answer["status"] = json!("0x2")),
        honest("eth_getTransactionReceipt", |answer| answer["logs"][0]["removed"] = json!(true)),
        honest("eth_getTransactionReceipt", |answer| answer["logs"][0]["blockHash"] = Value::Null),
        honest("eth_getLogs", |answer| answer[0]["blockHash"] = json!(B256::repeat_byte(1))),
        honest("eth_getLogs", |answer| answer[0]["address"] = json!(Address::repeat_byte(1))),
        honest("eth_getLogs", |answer| answer[0]["data"] = json!(B256::repeat_byte(1))),
    ];
    for (index, (method, change)) in lies.into_iter().enumerate() {
        let answers = node.model(|model| model.answers());
        node.script(move |asked, params| {
            if asked != method || params[0] == json!("latest") {
                return Reply::Honest;
            }
            let mut answer = answers(asked, params);
            change(&mut answer);
            Reply::Result(answer)
        });
        let error = watching.scanner.tick(NOW).await.unwrap_err();
        assert_eq!(watching.cursor().await, before, "lie {index} on {method}: {error}");
        assert_eq!(watching.rows(), "0|0|0|0|0", "lie {index} on {method}");
    }
    node.heal();
    watching.scan().await.unwrap();
    assert_eq!(watching.rows(), "1|1|0|0|0");
}

/// A block that is honest in itself, shown at a height where it does not follow the one before it.
#[tokio::test]
async fn w4_a_parent_that_does_not_match_is_never_stored() {
    let (node, watching, address) = ready().await;
    let before = watching.cursor().await;
    let height = json!(format!("{:#x}", before.tip.number.0 + 1));
    // Another branch from genesis on, of which one block shows up between honest ones.
    let alien = node.model(|model| {
        let line = model.line();
        model.cut(line.len() as u64 - 1);
        model.mine_empty(line.len() as u64 - 1);
        model.mine(vec![token(9, &address, 9)]);
        let alien = model.answers();
        model.set_line(line);
        model.mine_empty(2);
        alien
    });
    node.script(
        move |method, params| {
            if method == "eth_getBlockByNumber" && params[0] == height { Reply::Result(alien(method, params)) } else { Reply::Honest }
        },
    );
    let error = watching.scanner.tick(NOW).await.unwrap_err();
    assert!(matches!(error, ScanError::Moved { .. }), "{error}");
    assert_eq!((watching.cursor().await, watching.rows().as_str()), (before, "0|0|0|0|0"));
    node.heal();
    watching.follow().await;
    assert_eq!(watching.cursor().await.tip, node.model(|model| model.head()));
    watching.assert_line();
}

#[tokio::test]
async fn w4_a_branch_that_changes_while_it_is_read_is_given_up() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    let before = watching.cursor().await;
    // The highest new block is read again before the commit; by then it is another one.
    let other = node.model(|model| {
        let line = model.line();
        model.cut(1);
        let other = model.mine(vec![token(2, &address, 20)]);
        let answers = model.answers();
        model.set_line(line);
        answers("eth_getBlockByHash", &json!([other.hash, false]))
    });
    node.script(move |method, params| {
        let again = method == "eth_getBlockByNumber" && params[0] != json!("latest") && params[1] == json!(false);
        if again { Reply::Result(other.clone()) } else { Reply::Honest }
    });
    let error = watching.scanner.tick(NOW).await.unwrap_err();
    assert!(matches!(error, ScanError::Moved { .. }), "{error}");
    assert_eq!(error.disposition(), Disposition::Retry);
    assert_eq!((watching.cursor().await, watching.rows().as_str()), (before, "0|0|0|0|0"));
}

#[tokio::test]
async fn w3_m9_the_block_is_read_again_before_a_verdict() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    node.model(|model| model.mine_empty(2));
    watching.scan().await.unwrap();
    let paid = watching.progress(&address).await[0].block;

    // The reorg happens between the scanner's round and the confirmer's.
    let line = node.model(|model| {
        let line = model.line();
        model.cut(3);
        model.mine_empty(3);
        line
    });
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|0|0", "no verdict under a tip that the node has dropped");

    // One block less is one confirmation less, whatever the stored tip says.
    node.model(|model| {
        model.set_line(line.clone());
        model.cut(1);
    });
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|0|0", "two confirmations are not three");
    node.model(|model| {
        model.cut(2);
        model.mine_empty(3);
    });

    // Even if the tip and the receipt are right, the block itself must be.
    let alien = node.model(|model| {
        let answers = model.answers();
        answers("eth_getBlockByNumber", &json!([format!("{:#x}", paid.number.0), false]))
    });
    node.model(|model| model.set_line(line));
    let height = json!(format!("{:#x}", paid.number.0));
    node.script(
        move |method, params| {
            if method == "eth_getBlockByNumber" && params[0] == height { Reply::Result(alien.clone()) } else { Reply::Honest }
        },
    );
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|0|0");

    node.spoil("eth_getTransactionReceipt", Reply::Result(Value::Null));
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|0|0", "no receipt, no verdict");
    node.heal();
    watching.confirm().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");
}

#[tokio::test]
async fn y4_a_node_that_is_away_is_missed_and_caught_up() {
    let (mut node, watching, address) = ready().await;
    let before = watching.cursor().await;
    node.stop().await;
    let error = watching.scanner.tick(NOW).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry);
    assert!(error.to_string().contains("cannot be reached"), "{error}");
    assert!(watching.confirmer.tick(NOW).await.is_ok(), "with nothing due the node is not even asked");
    assert_eq!(watching.cursor().await, before);

    node.model(|model| {
        model.mine(vec![token(1, &address, 10)]);
        model.mine_empty(70);
    });
    node.resume().await;
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");
    watching.assert_line();
}

#[tokio::test]
async fn f16_a_head_that_goes_back_changes_nothing_and_far_back_is_an_alarm() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    node.model(|model| model.mine_empty(300));
    watching.follow().await;
    let (before, rows) = (watching.cursor().await, watching.rows());
    node.model(|model| model.cut(200));
    assert_eq!(watching.scanner.tick(NOW).await.unwrap(), Progress::Idle);
    node.model(|model| model.cut(1));
    let error = watching.scanner.tick(NOW).await.unwrap_err();
    assert!(matches!(error, ScanError::FarBehind { by: 201, .. }), "{error}");
    assert_eq!((watching.cursor().await, watching.rows()), (before, rows));
}

#[tokio::test]
async fn w1_a_node_that_shows_one_transaction_in_two_blocks_is_refused() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    watching.scan().await.unwrap();
    let before = watching.cursor().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    // The node's receipt names the first block, so the second sighting is a contradiction already.
    let error = watching.scan().await.unwrap_err();
    assert!(matches!(error, ScanError::Contradiction { .. }), "{error}");
    // If the receipt agreed with the second block as well, the database would refuse.
    let second = node.model(|model| model.receipt_in(model.head().hash, 1));
    node.spoil("eth_getTransactionReceipt", Reply::Result(second));
    let error = watching.scan().await.unwrap_err();
    assert!(matches!(error, ScanError::TwoBlocks { .. }), "{error}");
    assert_eq!((watching.cursor().await, watching.rows().as_str()), (before, "1|1|0|0|0"));
}

/// Requests, not seconds: three for a block with transactions (itself, its logs, its inside), one for an empty
/// one, and three for the round (head, second look, and the next poll's head).
#[tokio::test]
async fn a_round_asks_no_more_than_it_needs() {
    let (node, watching, address) = ready().await;
    node.model(|model| model.mine(vec![token(1, &address, 10)]));
    node.take_methods();
    watching.scanner.tick(NOW).await.unwrap();
    assert_eq!(
        node.take_methods(),
        ["eth_getBlockByNumber", "eth_getBlockByNumber", "eth_getLogs", "trace_block", "eth_getTransactionReceipt", "eth_getBlockByNumber"]
    );
    watching.scanner.tick(NOW).await.unwrap();
    assert_eq!(node.take_methods(), ["eth_getBlockByNumber"], "an idle poll asks for the head alone");
}
