//! The scripted node must not be wrong by itself: its views of one chain agree, and its faults are counted.

use alloy::primitives::{Address, B256, U256};
use amanatd::scan::Position;
use amanatd::scan::matching::TRANSFER_TOPIC;
use amanatd::units::Asset;
use serde_json::{Value, json};

use super::{Batches, BlockReceipts, Emitted, Frame, FrameKind, Lie, PAYER, PastHead, RangeText, ScriptedNode, Tags, Tx};

const TOKEN: Address = Address::repeat_byte(0x55);
const OTHER: Address = Address::repeat_byte(0x56);
const OURS: Address = Address::repeat_byte(0x99);
const ROUTER: Address = Address::repeat_byte(0x33);

async fn post(node: &ScriptedNode, body: &Value) -> Value {
    // Whoever was first is right.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let response = reqwest::Client::new().post(node.url()).body(body.to_string()).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

fn request(id: u64, method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

async fn ask(node: &ScriptedNode, method: &str, params: Value) -> Result<Value, String> {
    let answer = post(node, &request(1, method, &params)).await;
    answer.get("result").cloned().ok_or_else(|| answer["error"]["message"].as_str().unwrap().to_owned())
}

/// A router that pays us twice, once deeper; and calls that pay nothing.
fn routed(number: u64) -> Tx {
    let inner = Frame { calls: vec![Frame::call(OURS, OTHER, 1)], ..Frame::call(ROUTER, OURS, 5) };
    let taken_back = Frame { failed: true, calls: vec![Frame::call(ROUTER, OURS, 70)], ..Frame::call(ROUTER, ROUTER, 0) };
    let delegated = Frame { kind: FrameKind::DelegateCall, ..Frame::call(ROUTER, OURS, 80) };
    let destroyed = Frame { kind: FrameKind::SelfDestruct, ..Frame::call(ROUTER, OURS, 6) };
    let deeper = Frame { calls: vec![taken_back, destroyed], ..Frame::call(ROUTER, ROUTER, 0) };
    Tx { value: U256::from(100), calls: vec![inner, delegated, deeper], ..Tx::calling(number, ROUTER) }
}

fn tokens(number: u64) -> Tx {
    let logs = vec![
        Emitted::transfer(OTHER, PAYER, OURS, U256::from(3)),
        Emitted::transfer(TOKEN, PAYER, OURS, U256::from(10)),
        Emitted::transfer(TOKEN, PAYER, OURS, U256::from(11)),
        Emitted::four_topics(TOKEN, OURS, U256::from(12)),
        Emitted::dirty_topic(TOKEN, OURS, U256::from(13)),
        Emitted::short_data(TOKEN, OURS, U256::from(14)),
    ];
    Tx { logs, ..Tx::calling(number, TOKEN) }
}

#[tokio::test]
async fn what_moved_is_what_logs_receipts_traces_and_balances_say() {
    let node = ScriptedNode::start().await;
    let failed = Tx { succeeded: false, value: U256::from(9), ..tokens(3) };
    let block = node.model(|model| model.mine_txs(vec![routed(1), tokens(2), failed]));
    node.model(|model| model.mine_empty(2));
    let to_us: Vec<_> = node.model(|model| model.moved_in(block.hash)).into_iter().filter(|moved| moved.recipient == OURS).collect();
    let expected = [
        (Position::Call(vec![0]), Asset::Native, 5),
        (Position::Call(vec![2, 1]), Asset::Native, 6),
        (Position::Log(0), Asset::Token(OTHER), 3),
        (Position::Log(1), Asset::Token(TOKEN), 10),
        (Position::Log(2), Asset::Token(TOKEN), 11),
    ];
    let found: Vec<_> = to_us.iter().map(|moved| (moved.position.clone(), moved.asset, moved.amount.to::<u64>())).collect();
    assert_eq!(found, expected);

    let by_hash =
        ask(&node, "eth_getLogs", json!([{ "blockHash": block.hash, "address": [TOKEN], "topics": [[TRANSFER_TOPIC]] }])).await.unwrap();
    let by_range = ask(&node, "eth_getLogs", json!([{ "fromBlock": "0x0", "toBlock": "0xff", "address": TOKEN }])).await.unwrap();
    assert_eq!(by_hash, by_range);
    assert_eq!((by_hash.as_array().unwrap().len(), &by_hash[0]["logIndex"]), (5, &json!("0x1")), "the failed transaction has none");
    let none = ask(&node, "eth_getLogs", json!([{ "topics": [null, null, B256::ZERO] }])).await.unwrap();
    assert_eq!(none, json!([]));

    let receipts = ask(&node, "eth_getBlockReceipts", json!([{ "blockHash": block.hash }])).await.unwrap();
    assert_eq!(receipts, ask(&node, "eth_getBlockReceipts", json!([block.hash])).await.unwrap());
    assert_eq!(receipts, ask(&node, "eth_getBlockReceipts", json!(["0x1"])).await.unwrap());
    let one = ask(&node, "eth_getTransactionReceipt", json!([tokens(2).hash()])).await.unwrap();
    assert_eq!((&receipts[1], &receipts[2]["status"]), (&one, &json!("0x0")));

    let flat = ask(&node, "trace_block", json!(["0x1"])).await.unwrap();
    let rows: Vec<_> = flat.as_array().unwrap().iter().map(|row| row["traceAddress"].to_string()).collect();
    assert_eq!(rows, ["[]", "[0]", "[0,0]", "[1]", "[2]", "[2,0]", "[2,0,0]", "[2,1]", "[]", "[]"]);
    assert_eq!((&flat[5]["error"], flat[6].get("error"), &flat[7]["action"]["balance"]), (&json!("Reverted"), None, &json!("0x6")));
    let deep = ask(&node, "debug_traceBlockByHash", json!([block.hash, { "tracer": "callTracer" }])).await.unwrap();
    assert_eq!(
        (&deep[0]["result"]["calls"][2]["calls"][1]["type"], &deep[2]["result"]["error"]),
        (&json!("SELFDESTRUCT"), &json!("execution reverted"))
    );

    let balance = ask(&node, "eth_getBalance", json!([OURS, { "blockHash": block.hash, "requireCanonical": true }])).await.unwrap();
    assert_eq!(balance, json!("0xa"), "five and six came, one went");
    assert_eq!(ask(&node, "eth_getBalance", json!([OURS, "0x0"])).await.unwrap(), json!("0x0"));
    let data = format!("0x70a08231{:x}", OURS.into_word());
    let held = ask(&node, "eth_call", json!([{ "to": TOKEN, "data": data }, "latest"])).await.unwrap();
    assert_eq!(held, json!(B256::from(U256::from(21))));
}

#[tokio::test]
async fn limits_lags_and_lies_are_the_nodes_own_and_counted() {
    let node = ScriptedNode::start().await;
    let other = node.sibling().await;
    node.model(|model| model.mine_empty(5));
    let paid = node.model(|model| model.mine_txs(vec![tokens(1)]));
    other.view(|view| {
        view.lag = 2;
        view.quirks.batches = Batches::Max(2);
        view.quirks.range_max = Some((3, RangeText::Infura));
        view.quirks.past_head = PastHead::Refused;
        view.quirks.block_receipts = BlockReceipts::Unsupported;
        view.quirks.tags = Tags::Unsupported;
        view.quirks.flat_traces = false;
    });
    let head = |number: &str| json!([number, false]);
    assert_eq!(ask(&node, "eth_getBlockByNumber", head("latest")).await.unwrap()["number"], "0x6");
    assert_eq!(ask(&other, "eth_getBlockByNumber", head("latest")).await.unwrap()["number"], "0x4");
    assert_eq!(ask(&other, "eth_getBlockByHash", json!([paid.hash, false])).await.unwrap(), Value::Null);
    assert_eq!(ask(&other, "eth_getLogs", json!([{ "fromBlock": "0x4", "toBlock": "0x6" }])).await.unwrap(), json!([]));
    let refused = |from: &'static str| ask(&other, "eth_getLogs", json!([{ "fromBlock": from, "toBlock": "0x6" }]));
    assert_eq!(refused("0x1").await.unwrap_err(), "range 6 exceeds limit of 3");
    assert!(refused("0x5").await.unwrap_err().contains("BlockOutOfRange"));
    assert!(ask(&other, "eth_getBlockByNumber", head("finalized")).await.unwrap_err().contains("not found"));
    assert!(ask(&other, "eth_getBlockReceipts", json!(["0x1"])).await.is_err());
    assert!(ask(&other, "trace_block", json!(["0x1"])).await.is_err());
    let batch = |length| json!((0..length).map(|id| request(id, "eth_blockNumber", &json!([]))).collect::<Vec<_>>());
    assert_eq!(
        post(&other, &batch(2)).await,
        json!([{ "jsonrpc": "2.0", "id": 0, "result": "0x4" }, { "jsonrpc": "2.0", "id": 1, "result": "0x4" }])
    );
    assert_eq!(post(&other, &batch(3)).await[0]["error"]["message"], "batch too large");
    assert!(node.faults().is_empty(), "the other node's limits are not this one's");

    let invented = Tx { value: U256::from(1), ..Tx::calling(77, OURS) };
    node.view(|view| view.lies = vec![Lie::HideLogs { tx: 1 }, Lie::Invent { block: paid.hash, tx: invented.clone() }]);
    assert_eq!(ask(&node, "eth_getLogs", json!([{ "blockHash": paid.hash }])).await.unwrap(), json!([]));
    let receipt = ask(&node, "eth_getTransactionReceipt", json!([invented.hash()])).await.unwrap();
    assert_eq!((&receipt["blockHash"], &receipt["transactionIndex"]), (&json!(paid.hash), &json!("0x1")));
    let kinds = |node: &ScriptedNode| node.faults().into_keys().collect::<Vec<_>>();
    assert_eq!(kinds(&node), ["lie: log hidden", "lie: transaction invented"]);
    let expected = [
        "batch too large",
        "block receipts unsupported",
        "lag",
        "past the head",
        "range refused",
        "silently cut range",
        "tag unsupported",
        "traces unsupported",
    ];
    assert_eq!(kinds(&other), expected);
}
