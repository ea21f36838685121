//! The questions we ask a node, on a real one, and the choice between several.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::sol_types::SolCall;
use amanatd::devkit::chain::{ChainOptions, DEPLOYER, LocalChain, PAYERS};
use amanatd::devkit::contracts::{self, Token};
use amanatd::rpc::{CallRequest, Fault, Node, NodeError, NodeOptions, SendOutcome};
use amanatd::scan::matching::TRANSFER_TOPIC;
use amanatd::units::{Asset, BlockNumber, BlockRef};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::scripted::{Reply, ScriptedNode};
use crate::watching::{CHAIN, NOW, node_of, quick};

async fn anvil() -> (LocalChain, Node, Address) {
    let chain = LocalChain::start(ChainOptions::default()).await.unwrap();
    let token = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    let node = node_of(&[chain.url()]);
    (chain, node, token)
}

/// Signed bytes of a transfer of one wei, from an account whose key anvil holds.
async fn signed(chain: &LocalChain, from: Address, nonce: u64, max_fee: u64) -> Bytes {
    let request = json!({
        "from": from, "to": PAYERS[8], "value": "0x1", "nonce": format!("{nonce:#x}"), "gas": "0x5208",
        "maxFeePerGas": format!("{max_fee:#x}"), "maxPriorityFeePerGas": "0x1", "chainId": "0x7a69",
    });
    chain.call("eth_signTransaction", (request,)).await.unwrap()
}

#[tokio::test]
async fn blocks_logs_and_receipts_agree_with_the_chain() {
    let (chain, node, token) = anvil().await;
    let minted = chain.mint(token, PAYERS[0], U256::from(100)).await.unwrap();
    chain.mined(minted).await.unwrap();
    let paid = chain.transfer_token(token, PAYERS[0], PAYERS[1], U256::from(7)).await.unwrap();
    let coin = chain.send_native(PAYERS[2], PAYERS[3], U256::from(9)).await.unwrap();
    let head = chain.mine(1).await.unwrap();

    assert_eq!(node.chain_id().await.unwrap(), CHAIN);
    let at = BlockRef { number: BlockNumber(head.number), hash: head.hash };
    let latest = node.head().await.unwrap();
    assert_eq!(latest.block, at);
    assert_eq!(node.header_by_number(at.number).await.unwrap().unwrap(), latest);
    assert_eq!(node.header_by_hash(at.hash).await.unwrap(), latest);
    assert_eq!(node.header_by_number(at.number.next()).await.unwrap(), None);
    let block = node.block_by_hash(at.hash).await.unwrap();
    assert_eq!(node.block_by_number(at.number).await.unwrap(), Some(block.clone()));
    assert_eq!(block.transactions.iter().map(|tx| tx.hash).collect::<Vec<_>>(), [paid, coin]);
    assert_eq!((block.transactions[1].to, block.transactions[1].value), (Some(PAYERS[3]), U256::from(9)));

    assert!(!latest.excludes(&[token], TRANSFER_TOPIC));
    assert!(latest.excludes(&[Address::repeat_byte(9)], TRANSFER_TOPIC));
    let logs = node.logs_by_block_hash(at.hash, &[token], TRANSFER_TOPIC).await.unwrap();
    assert_eq!((logs.len(), logs[0].tx_hash, logs[0].block_hash), (1, paid, Some(at.hash)));
    let receipt = node.receipt(paid).await.unwrap().unwrap();
    assert!(receipt.succeeded && receipt.gas_used > 21_000 && receipt.effective_gas_price.unwrap() > 0);
    assert_eq!((receipt.block, receipt.tx_index, receipt.logs, receipt.l1_fee), (at, 0, logs, None));

    let nowhere = B256::repeat_byte(3);
    assert_eq!(node.receipt(nowhere).await.unwrap(), None);
    assert!(node.transaction_known(coin).await.unwrap() && !node.transaction_known(nowhere).await.unwrap());
    assert!(matches!(node.block_by_hash(nowhere).await.unwrap_err().fault, Fault::NotFound { .. }));
    let refused = node.logs_by_block_hash(nowhere, &[token], TRANSFER_TOPIC).await.unwrap_err();
    assert!(matches!(refused.fault, Fault::Refused { .. }), "never an empty list: {refused}");
}

#[tokio::test]
async fn w7_balances_are_read_at_a_block() {
    let (chain, node, token) = anvil().await;
    let head_of = |head: amanatd::devkit::chain::Head| BlockRef { number: BlockNumber(head.number), hash: head.hash };
    let minted = chain.mint(token, PAYERS[0], U256::MAX).await.unwrap();
    chain.mined(minted).await.unwrap();
    let holder = Address::repeat_byte(0x42);
    let before = head_of(chain.head().await.unwrap());
    chain.transfer_token(token, PAYERS[0], holder, U256::from(70)).await.unwrap();
    chain.send_native(PAYERS[1], holder, U256::from(5)).await.unwrap();
    let after = head_of(chain.mine(1).await.unwrap());
    for (at, coins, units) in [(before, 0_u64, 0_u64), (after, 5, 70)] {
        assert_eq!(node.balance(Asset::Native, holder, at).await.unwrap(), U256::from(coins));
        assert_eq!(node.balance(Asset::Token(token), holder, at).await.unwrap(), U256::from(units));
    }
    assert_eq!(node.balance(Asset::Token(token), PAYERS[0], before).await.unwrap(), U256::MAX);
    let gone = BlockRef { hash: B256::repeat_byte(9), ..after };
    assert!(node.balance(Asset::Native, holder, gone).await.is_err(), "a block the node lacks is no zero");
    let nobody = node.balance(Asset::Token(Address::repeat_byte(5)), holder, after).await.unwrap_err();
    assert!(matches!(nobody.fault, Fault::NotFound { .. }), "{nobody}");
}

#[tokio::test]
async fn fees_nonces_estimates_and_simulations() {
    let (chain, node, token) = anvil().await;
    assert_eq!(node.token_decimals(token).await.unwrap(), 6);
    let fees = node.fees().await.unwrap();
    assert!(fees.base_fee > 0, "{fees:?}");

    let nonce = node.nonce_latest(PAYERS[4]).await.unwrap();
    chain.send_native(PAYERS[4], PAYERS[5], U256::from(1)).await.unwrap();
    assert_eq!(node.nonce_latest(PAYERS[4]).await.unwrap(), nonce, "what waits in the pool is not counted");
    chain.mine(1).await.unwrap();
    assert_eq!(node.nonce_latest(PAYERS[4]).await.unwrap(), nonce + 1);

    let call = |from, data: Vec<u8>| CallRequest { from, to: token, value: U256::ZERO, data: data.into() };
    let mint = Token::mintCall { to: PAYERS[0], amount: U256::from(1) }.abi_encode();
    assert!(node.estimate_gas(&call(DEPLOYER, mint.clone())).await.unwrap() > 21_000);
    assert!(matches!(node.estimate_gas(&call(PAYERS[0], mint.clone())).await.unwrap_err().fault, Fault::Reverted { .. }));
    assert!(matches!(node.simulate(&call(PAYERS[0], mint)).await.unwrap_err().fault, Fault::Reverted { .. }));
    let answer = node.simulate(&call(PAYERS[0], Token::decimalsCall {}.abi_encode())).await.unwrap();
    assert_eq!(U256::from_be_slice(&answer), U256::from(6));
}

#[tokio::test]
async fn fees_fall_back_where_a_method_is_missing() {
    let stub = ScriptedNode::start().await;
    let node = node_of(&[&stub.url()]);
    stub.script(|method, _| match method {
        "eth_feeHistory" => Reply::Refuse(-32601, "the method eth_feeHistory does not exist".to_owned()),
        "eth_maxPriorityFeePerGas" => Reply::Refuse(-32601, "method not found".to_owned()),
        "eth_gasPrice" => Reply::Result(json!("0x64")),
        _ => Reply::Honest,
    });
    let fees = node.fees().await.unwrap();
    assert_eq!((fees.base_fee, fees.priority), (7, 93));
    stub.script(|method, _| match method {
        "eth_feeHistory" => Reply::Result(json!({ "baseFeePerGas": ["0x1", "0x2", "0x9"], "reward": [["0x5"], ["0x3"], ["0x4"]] })),
        _ => Reply::Honest,
    });
    let fees = node.fees().await.unwrap();
    assert_eq!((fees.base_fee, fees.priority), (9, 4));
}

#[tokio::test]
async fn f28_a_real_node_and_our_bytes() {
    let (chain, node, _) = anvil().await;
    let from = PAYERS[6];
    let first = signed(&chain, from, 0, 2_000_000_000).await;
    assert_eq!(node.send_raw(&first).await, SendOutcome::Accepted);
    assert!(node.transaction_known(keccak256(&first)).await.unwrap());
    assert_eq!(node.send_raw(&first).await, SendOutcome::AlreadyKnown);
    let rival = signed(&chain, from, 0, 1_900_000_000).await;
    assert_eq!(node.send_raw(&rival).await, SendOutcome::Conflict);
    chain.mine(1).await.unwrap();
    assert_eq!(node.send_raw(&rival).await, SendOutcome::NonceUsed);
    let poor = json!({
        "from": from, "to": PAYERS[8], "value": "0x8ac7230489e80000000", "nonce": "0x1", "gas": "0x5208",
        "maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1", "chainId": "0x7a69",
    });
    let poor: Bytes = chain.call("eth_signTransaction", (poor,)).await.unwrap();
    assert_eq!(node.send_raw(&poor).await, SendOutcome::CannotPay);
}

#[tokio::test]
async fn f28_t03_what_is_unclear_stays_unclear() {
    let (first, second) = (ScriptedNode::start().await, ScriptedNode::start().await);
    let bytes = Bytes::from_static(b"signed");
    let hash = json!(keccak256(&bytes));
    let refusal = |text: &str| Reply::Refuse(-32000, text.to_owned());
    let lost = || Reply::Status(502, "bad gateway".to_owned());
    let table = [
        ("accepted", Reply::Result(hash.clone()), lost(), SendOutcome::Accepted),
        ("lost, and the other has it", lost(), refusal("already known"), SendOutcome::AlreadyKnown),
        ("lost, and the other says used", lost(), refusal("nonce too low"), SendOutcome::NonceUsed),
        ("lost, then accepted by the other", lost(), Reply::Result(hash.clone()), SendOutcome::Accepted),
        (
            "refused, and the other took it: every endpoint is sent it",
            refusal("insufficient funds"),
            Reply::Result(hash.clone()),
            SendOutcome::Accepted,
        ),
        ("refused by both", refusal("insufficient funds"), refusal("insufficient funds"), SendOutcome::CannotPay),
    ];
    for (name, one, other, expected) in table {
        first.spoil("eth_sendRawTransaction", one);
        second.spoil("eth_sendRawTransaction", other);
        let _ = (first.take_methods(), second.take_methods());
        assert_eq!(node_of(&[&first.url(), &second.url()]).send_raw(&bytes).await, expected, "{name}");
        for node in [&first, &second] {
            assert!(node.take_methods().contains(&"eth_sendRawTransaction".to_owned()), "{name}: each endpoint is sent the bytes");
        }
    }
    let unclear = [
        ("lost twice", lost(), lost()),
        ("silence, then a refusal that decides nothing", Reply::Silence, refusal("insufficient funds")),
        ("null", Reply::Result(Value::Null), lost()),
        ("another hash", Reply::Result(json!(B256::ZERO)), lost()),
        ("an unknown text", refusal("unknown transaction"), refusal("pool is full")),
    ];
    for (name, one, other) in unclear {
        first.spoil("eth_sendRawTransaction", one);
        second.spoil("eth_sendRawTransaction", other);
        let outcome = node_of(&[&first.url(), &second.url()]).send_raw(&bytes).await;
        assert!(matches!(outcome, SendOutcome::Unclear(_)), "{name}: {outcome:?}");
    }
}

#[tokio::test]
async fn f14_the_next_endpoint_answers_and_the_first_rests() {
    let (first, second) = (ScriptedNode::start().await, ScriptedNode::start().await);
    let node = node_of(&[&first.url(), &second.url()]);
    node.set_clock(NOW);
    first.spoil("eth_getBlockByNumber", Reply::Status(503, String::new()));
    node.head().await.unwrap();
    assert_eq!(first.take_methods(), ["eth_chainId", "eth_getBlockByNumber"], "each proves its chain first");
    assert_eq!(second.take_methods(), ["eth_chainId", "eth_getBlockByNumber"]);

    first.heal();
    node.head().await.unwrap();
    assert!(first.take_methods().is_empty(), "it rests");
    assert_eq!(second.take_methods(), ["eth_getBlockByNumber"]);
    node.set_clock(NOW + Duration::from_secs(31));
    node.head().await.unwrap();
    assert_eq!(first.take_methods(), ["eth_getBlockByNumber"], "and is first again");
    assert!(second.take_methods().is_empty());

    // When all rest, they are asked all the same.
    for stub in [&first, &second] {
        stub.spoil("eth_getBlockByNumber", Reply::CutJson);
    }
    let error = node.head().await.unwrap_err();
    assert!(error.endpoint.contains("endpoint 2"), "{error}");
    second.heal();
    node.head().await.unwrap();
}

#[tokio::test]
async fn w8_an_endpoint_of_another_chain_gives_no_answer() {
    let (first, second) = (ScriptedNode::start().await, ScriptedNode::start().await);
    first.spoil("eth_chainId", Reply::Result(json!("0x1")));
    second.model(|model| model.mine_empty(3));
    let node = node_of(&[&first.url(), &second.url()]);
    assert_eq!(node.head().await.unwrap().block.number, BlockNumber(3));
    assert_eq!(first.take_methods(), ["eth_chainId"], "nothing else was asked there");
}

#[tokio::test]
async fn w8_the_chain_is_proved_again_after_a_lost_connection() {
    let mut stub = ScriptedNode::start().await;
    let node = node_of(&[&stub.url()]);
    node.head().await.unwrap();
    stub.stop().await;
    assert!(matches!(node.head().await.unwrap_err().fault, Fault::Unreachable { .. }));
    stub.resume().await;
    stub.take_methods();
    node.head().await.unwrap();
    assert_eq!(stub.take_methods(), ["eth_chainId", "eth_getBlockByNumber"]);
}

#[tokio::test]
async fn f21_silence_ends_by_our_own_limits() {
    let stub = ScriptedNode::start().await;
    stub.spoil("eth_getBlockByNumber", Reply::Silence);
    let started = Instant::now();
    let error = node_of(&[&stub.url()]).head().await.unwrap_err();
    assert_eq!(error.fault, Fault::Timeout);
    assert!(started.elapsed() < Duration::from_secs(3));

    // A port that takes connections and never speaks.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(node_of(&[&url]).head().await.unwrap_err().fault, Fault::Timeout);
}

#[tokio::test]
async fn y7_a_key_in_the_url_reaches_no_error() {
    const KEY: &str = "k3yk3yk3yk3y";
    let stub = ScriptedNode::start().await;
    let place = stub.url().replace("http://", "");
    let urls = [format!("http://user:{KEY}@{place}/?key={KEY}"), format!("http://127.0.0.1:1/{KEY}")];
    let urls: Vec<SecretString> = urls.iter().map(|url| SecretString::from(url.as_str())).collect();
    let node = Node::new(CHAIN, &urls, quick()).unwrap();
    for reply in
        [Reply::Refuse(-32000, format!("key {KEY} is not valid")), Reply::Status(401, KEY.to_owned()), Reply::CutJson, Reply::Silence]
    {
        stub.spoil("eth_getBlockByNumber", reply);
        let error = node.head().await.unwrap_err();
        for shown in [error.to_string(), format!("{error:?}"), format!("{node:?}")] {
            assert!(!shown.contains(KEY), "{shown}");
        }
    }
    let outcome = {
        stub.spoil("eth_sendRawTransaction", Reply::Refuse(-32000, format!("key {KEY} is not valid")));
        format!("{:?}", node.send_raw(&Bytes::from_static(b"x")).await)
    };
    assert!(!outcome.contains(KEY), "{outcome}");
}

#[test]
fn a_node_without_endpoints_is_none() {
    assert!(matches!(Node::new(CHAIN, &[], NodeOptions::default()), Err(NodeError::NoEndpoint { chain: CHAIN })));
}
