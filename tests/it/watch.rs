//! From a payment on a real local chain to its verdict.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, Bytes, U256};
use alloy::sol_types::SolCall;
use amanatd::account::{self, AccountError, DerivedAddress};
use amanatd::confirm::store::{ProgressState, list_broken_credits, revoke};
use amanatd::devkit::chain::{ChainOptions, LocalChain, PAYERS, ReorgTx};
use amanatd::devkit::contracts::{self, BatchCalls, MultiSend, Token};
use amanatd::rpc::VerifyError;
use amanatd::scan::Position;
use amanatd::units::{Asset, BlockNumber, Depth, Progress};

use crate::watching::{CHAIN, NOW, Watching, local_spec, node_of};

/// A chain with both listed tokens where `chains.toml` says they are, and somebody who has some.
async fn chain() -> (LocalChain, Address, Address) {
    let chain = LocalChain::start(ChainOptions::default()).await.unwrap();
    let usdc = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    let usdt = chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
    let listed: Vec<Address> = local_spec().tokens.iter().map(|token| token.contract).collect();
    assert_eq!(listed, [usdc, usdt]);
    for token in [usdc, usdt] {
        let minted = chain.mint(token, PAYERS[0], U256::from(1_000_000_000)).await.unwrap();
        chain.mined(minted).await.unwrap();
    }
    (chain, usdc, usdt)
}

/// Ready to be paid: the chain's present is read and one address is issued.
async fn ready() -> (LocalChain, Watching, DerivedAddress, Address) {
    let (chain, usdc, _) = chain().await;
    let watching = Watching::over(&[chain.url()]).await;
    watching.follow().await;
    let address = watching.issue().await;
    (chain, watching, address, usdc)
}

async fn pay(chain: &LocalChain, token: Address, to: &DerivedAddress, amount: u64) -> B256 {
    chain.transfer_token(token, PAYERS[0], to.address, U256::from(amount)).await.unwrap()
}

/// The signed bytes of a mined transaction.
async fn raw(chain: &LocalChain, tx_hash: B256) -> Bytes {
    chain.call("eth_getRawTransactionByHash", (tx_hash,)).await.unwrap()
}

#[tokio::test]
async fn w3_a_deposit_is_confirmed_exactly_at_its_threshold() {
    let (chain, watching, address, usdc) = ready().await;
    let tx_hash = pay(&chain, usdc, &address, 5_000_000).await;
    watching.follow().await;
    assert!(watching.progress(&address).await.is_empty(), "it is in no block yet");

    for depth in 1..=4 {
        let head = chain.mine(1).await.unwrap();
        watching.follow().await;
        let progress = watching.progress(&address).await;
        let [seen] = progress.as_slice() else { panic!("one transfer, not {progress:?}") };
        assert_eq!((seen.tx_hash, seen.amount, seen.asset), (tx_hash, U256::from(5_000_000), Asset::Token(usdc)));
        assert_eq!((seen.sender, &seen.position), (PAYERS[0], &Position::Log(0)));
        assert_eq!(seen.block.number, BlockNumber(head.number - depth + 1));
        assert_eq!((seen.have, seen.need.get()), (Some(Depth(depth)), 3));
        assert_eq!(matches!(seen.state, ProgressState::Confirmed { .. }), depth >= 3, "at depth {depth}");
    }
    assert_eq!(watching.rows(), "1|1|0|1|0");
    let verdict = watching
        .base
        .sql("select depth, threshold, threshold_seen_history_id, threshold_now_history_id from transfer_verdicts where gate = 'credit'");
    assert_eq!(verdict.unwrap().trim(), "3|3|1|1");
    watching.assert_line();
}

#[tokio::test]
async fn w3_f13_a_raised_threshold_protects_what_waits() {
    let (chain, watching, address, usdc) = ready().await;
    pay(&chain, usdc, &address, 1).await;
    chain.mine(2).await.unwrap();
    watching.follow().await;
    watching.set_threshold(5).await;
    chain.mine(2).await.unwrap();
    watching.follow().await;
    let seen = &watching.progress(&address).await[0];
    assert_eq!((seen.have, seen.need.get(), seen.state), (Some(Depth(4)), 5, ProgressState::Waiting));

    chain.mine(1).await.unwrap();
    watching.follow().await;
    let verdict = watching
        .base
        .sql("select depth, threshold, threshold_seen_history_id, threshold_now_history_id from transfer_verdicts where gate = 'credit'");
    // Row 2 is the release gate's.
    assert_eq!(verdict.unwrap().trim(), "5|5|1|3");
}

#[tokio::test]
async fn w3_f13_a_lowered_threshold_touches_only_later_blocks() {
    let (chain, watching, address, usdc) = ready().await;
    pay(&chain, usdc, &address, 1).await;
    chain.mine(1).await.unwrap();
    watching.follow().await;
    watching.set_threshold(1).await;
    chain.mine(1).await.unwrap();
    watching.follow().await;
    let seen = &watching.progress(&address).await[0];
    assert_eq!((seen.have, seen.need.get(), seen.state), (Some(Depth(2)), 3, ProgressState::Waiting));

    pay(&chain, usdc, &address, 2).await;
    chain.mine(1).await.unwrap();
    watching.follow().await;
    let progress = watching.progress(&address).await;
    assert!(progress.iter().all(|seen| matches!(seen.state, ProgressState::Confirmed { .. })), "{progress:?}");
    let verdicts =
        watching.base.sql("select depth, threshold from transfer_verdicts where gate = 'credit' order by observation_id").unwrap();
    assert_eq!(verdicts.trim(), "3|3\n1|1", "the first waited for three, the later block needs one");
}

#[tokio::test]
async fn w1_w5_a_payment_that_is_included_again_counts_once() {
    let (chain, watching, address, usdc) = ready().await;
    let tx_hash = pay(&chain, usdc, &address, 7).await;
    chain.mine(1).await.unwrap();
    let bytes = raw(&chain, tx_hash).await;
    chain.mine(1).await.unwrap();
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|0|0|0");

    // The two newest blocks are replaced; the same transaction is in the second of the new ones.
    chain.reorg(2, vec![(ReorgTx::Raw(bytes), 1)]).await.unwrap();
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|1|0|0", "one transfer, seen in two blocks");
    chain.mine(2).await.unwrap();
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|1|1|0");
    let progress = watching.progress(&address).await;
    assert_eq!(progress[0].state, ProgressState::Orphaned { reversal_due: false });
    assert!(matches!(progress[1].state, ProgressState::Confirmed { .. }));
    assert_eq!(progress[1].block.number, BlockNumber(progress[0].block.number.0 + 1));
    assert_eq!(watching.cursor().await.outflow_halted, None, "nothing that was credited was lost");
    watching.assert_line();
}

#[tokio::test]
async fn w1_w6_a_credit_lost_to_a_reorg_is_broken_until_it_is_revoked() {
    let (chain, watching, address, usdc) = ready().await;
    let tx_hash = pay(&chain, usdc, &address, 7).await;
    chain.mine(1).await.unwrap();
    let bytes = raw(&chain, tx_hash).await;
    chain.mine(2).await.unwrap();
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");

    chain.reorg(3, vec![(ReorgTx::Raw(bytes), 0)]).await.unwrap();
    chain.mine(3).await.unwrap();
    watching.follow().await;
    // The old verdict still lives, so the new block cannot be credited a second time.
    assert_eq!(watching.rows(), "1|1|1|1|0");
    assert_eq!(watching.progress(&address).await[0].state, ProgressState::Orphaned { reversal_due: true });
    let halted = watching.cursor().await.outflow_halted.expect("a lost credit stops outflow");
    assert!(halted.contains("confirmed transfer"), "{halted}");

    let broken = list_broken_credits(&mut watching.database.connection().await.unwrap(), CHAIN, 10).await.unwrap();
    assert_eq!(broken.len(), 1);
    let verdict = broken[0].verdict;
    let revoked = watching.database.unit::<_, amanatd::db::DbError, _>(move |connection| Box::pin(revoke(connection, verdict, NOW))).await;
    revoked.unwrap();
    let again = watching.database.unit::<_, amanatd::db::DbError, _>(move |connection| Box::pin(revoke(connection, verdict, NOW))).await;
    assert!(again.is_err(), "a verdict is revoked once");

    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|1|1|1", "one credit, one reversal, one credit");
    assert!(list_broken_credits(&mut watching.database.connection().await.unwrap(), CHAIN, 10).await.unwrap().is_empty());
}

/// The six steps of the acceptance test, in the default configuration: right within one poll each.
#[tokio::test]
async fn w5_six_steps_of_reorgs_each_right_at_once() {
    let (chain, watching, address, usdc) = ready().await;
    let canonical = || {
        let amounts = watching.base.sql("select amount from transfer_observations where state = 'canonical' order by block_number, id");
        amounts.unwrap().trim().replace('\n', " ")
    };
    for amount in [11, 12, 13, 14] {
        pay(&chain, usdc, &address, amount).await;
        chain.mine(1).await.unwrap();
    }
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12 13 14");

    chain.reorg(2, vec![]).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12", "two deposits are gone");

    pay(&chain, usdc, &address, 15).await;
    chain.mine(1).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12 15");

    let data = Token::transferCall { to: address.address, amount: U256::from(99) }.abi_encode();
    let request = amanatd::devkit::chain::transaction_request(PAYERS[0], usdc, U256::ZERO, data.into());
    chain.reorg(3, vec![(ReorgTx::Request(request), 1)]).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12 99");

    chain.rollback(2).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12 99", "a node that is behind takes nothing back");
    chain.mine(6).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(canonical(), "11 12", "but its new branch does");

    pay(&chain, usdc, &address, 16).await;
    chain.mine(3).await.unwrap();
    watching.follow().await;
    assert_eq!(canonical(), "11 12 16");
    watching.assert_line();
}

#[tokio::test]
async fn t07_two_transfers_of_one_transaction_and_two_recipients_each_count_once() {
    let (chain, watching, first, usdc) = ready().await;
    let second = watching.issue().await;
    let batch = chain.deploy(contracts::batch().bytecode).await.unwrap();
    let minted = chain.mint(usdc, batch, U256::from(1_000)).await.unwrap();
    chain.mined(minted).await.unwrap();
    let transfer = |to: &DerivedAddress, amount: u64| BatchCalls::Call3 {
        target: usdc,
        allowFailure: false,
        callData: Token::transferCall { to: to.address, amount: U256::from(amount) }.abi_encode().into(),
    };
    // The first two are equal in everything but their position.
    let calls = vec![transfer(&first, 10), transfer(&first, 10), transfer(&second, 30)];
    let tx_hash = chain.send(PAYERS[1], batch, U256::ZERO, BatchCalls::aggregate3Call { calls }.abi_encode().into()).await.unwrap();
    chain.mined(tx_hash).await.unwrap();
    chain.mine(2).await.unwrap();
    watching.follow().await;

    assert_eq!(watching.rows(), "3|3|0|3|0");
    let positions: Vec<_> = watching.progress(&first).await.into_iter().map(|seen| (seen.position, seen.amount)).collect();
    assert_eq!(positions, [(Position::Log(0), U256::from(10)), (Position::Log(1), U256::from(10))]);
    assert_eq!(watching.progress(&second).await[0].position, Position::Log(2));
    assert_eq!(watching.scanner.tick(NOW).await.unwrap(), Progress::Idle);
}

#[tokio::test]
async fn t13_xc_fakes_zeroes_and_failures_pay_nothing() {
    let (chain, watching, address, usdc) = ready().await;
    let fake = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    let minted = chain.mint(fake, PAYERS[0], U256::from(1_000)).await.unwrap();
    chain.mined(minted).await.unwrap();

    pay(&chain, fake, &address, 500).await;
    pay(&chain, usdc, &address, 0).await;
    // More than the sender has: it is mined and fails.
    let failing = chain.transfer_token(usdc, PAYERS[5], address.address, U256::from(1)).await.unwrap();
    chain.send_native(PAYERS[1], address.address, U256::ZERO).await.unwrap();
    chain.mine(3).await.unwrap();
    assert_eq!(chain.receipt(failing).await.unwrap().unwrap()["status"], "0x0");
    watching.follow().await;
    assert_eq!(watching.rows(), "0|0|0|0|0");

    // And in the same block as a fake, the real one is found.
    pay(&chain, fake, &address, 500).await;
    pay(&chain, usdc, &address, 1).await;
    chain.mine(3).await.unwrap();
    watching.follow().await;
    assert_eq!(watching.rows(), "1|1|0|1|0");
}

#[tokio::test]
async fn w2_native_coin_and_both_tokens_are_found_with_exact_amounts() {
    let (chain, usdc, usdt) = chain().await;
    let watching = Watching::over(&[chain.url()]).await;
    watching.follow().await;
    let address = watching.issue().await;
    let wei: U256 = "1234567890123456789".parse().unwrap();
    chain.send_native(PAYERS[2], address.address, wei).await.unwrap();
    // Calldata does not matter: an account without code ignores it.
    chain.send(PAYERS[3], address.address, U256::from(5), Bytes::from_static(b"order 17")).await.unwrap();
    pay(&chain, usdc, &address, 42).await;
    pay(&chain, usdt, &address, 43).await;
    chain.mine(3).await.unwrap();
    watching.follow().await;
    let mut found: Vec<_> = watching.progress(&address).await.into_iter().map(|seen| (seen.asset, seen.amount, seen.position)).collect();
    found.sort();
    let mut expected = vec![
        (Asset::Native, wei, Position::TOP),
        (Asset::Native, U256::from(5), Position::TOP),
        (Asset::Token(usdc), U256::from(42), Position::Log(0)),
        (Asset::Token(usdt), U256::from(43), Position::Log(0)),
    ];
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(watching.rows(), "4|4|0|4|0");
}

#[tokio::test]
async fn xc09_a_transfer_between_our_own_addresses_is_never_a_deposit() {
    let (chain, watching, from, usdc) = ready().await;
    let to = watching.issue().await;
    pay(&chain, usdc, &from, 100).await;
    chain.send_native(PAYERS[1], from.address, U256::from(10_u64.pow(18))).await.unwrap();
    chain.mine(1).await.unwrap();
    chain.impersonate(from.address).await.unwrap();
    chain.transfer_token(usdc, from.address, to.address, U256::from(60)).await.unwrap();
    chain.mine(5).await.unwrap();
    watching.follow().await;
    let moved = &watching.progress(&to).await[0];
    assert!(moved.internal);
    assert_eq!(moved.state, ProgressState::Waiting);
    assert_eq!(watching.rows(), "3|3|0|2|0", "the two payments from outside are confirmed");
}

#[tokio::test]
async fn w9_a_payment_in_the_very_next_block_is_found() {
    let (chain, watching, _, usdc) = ready().await;
    for round in 1..=20 {
        let address = watching.issue().await;
        pay(&chain, usdc, &address, round).await;
        chain.mine(1).await.unwrap();
        watching.scan().await.unwrap();
        let progress = watching.progress(&address).await;
        assert_eq!(progress.iter().map(|seen| seen.amount).collect::<Vec<_>>(), [U256::from(round)]);
    }
}

#[tokio::test]
async fn w9_10_000_payments_each_in_the_block_after_its_address_are_all_found() {
    const ROUNDS: u64 = 50;
    const ADDRESSES: u64 = 200;
    let (chain, watching, _, usdc) = ready().await;
    let multi_send = chain.deploy(contracts::multi_send().bytecode).await.unwrap();
    let minted = chain.mint(usdc, multi_send, U256::ONE << 100).await.unwrap();
    chain.mined(minted).await.unwrap();
    watching.follow().await;
    let mut expected = BTreeSet::new();
    for round in 0..ROUNDS {
        let issued = watching
            .database
            .unit::<_, AccountError, _>(|connection| {
                Box::pin(async move {
                    let mut addresses = Vec::new();
                    for _ in 0..ADDRESSES {
                        addresses.push(account::store::claim_deposit_address(connection).await?.address);
                    }
                    Ok(addresses)
                })
            })
            .await
            .unwrap();
        let values: Vec<U256> = (0..ADDRESSES).map(|place| U256::from(round * ADDRESSES + place + 1)).collect();
        expected.extend(issued.iter().copied().zip(values.iter().copied()));
        let data = MultiSend::sendCall { token: usdc, recipients: issued, values }.abi_encode();
        let request = serde_json::json!({ "from": PAYERS[0], "to": multi_send, "data": Bytes::from(data), "gas": "0xe4e1c0" });
        let sent: B256 = chain.call("eth_sendTransaction", (request,)).await.unwrap();
        chain.mined(sent).await.unwrap();
        watching.scan().await.unwrap();
    }
    let rows =
        watching.base.sql("select encode(recipient, 'hex') || ' ' || amount from transfer_observations where state = 'canonical'").unwrap();
    let found: Vec<(Address, U256)> = rows
        .lines()
        .map(|row| {
            let (address, units) = row.split_once(' ').unwrap();
            (address.parse().unwrap(), units.parse().unwrap())
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "found twice, or missed");
    let missed = expected.difference(&found.into_iter().collect()).count();
    println!("payments in the very next block: {} made, {missed} missed", expected.len());
    assert_eq!(missed, 0);
}

/// A database clock that was ahead when an address was issued hides later rows from a query by time.
#[tokio::test]
async fn w9_f10_a_clock_that_jumped_back_hides_no_address() {
    let (chain, watching, address, usdc) = ready().await;
    watching.base.sql("update trezor_derived_addresses set created_at = now() + interval '400 days'").unwrap();
    chain.mine(1).await.unwrap();
    watching.scan().await.unwrap();
    let late = watching.issue().await;
    pay(&chain, usdc, &late, 5).await;
    pay(&chain, usdc, &address, 6).await;
    chain.mine(1).await.unwrap();
    watching.scan().await.unwrap();
    assert_eq!(watching.progress(&late).await.len(), 1);
    assert_eq!(watching.progress(&address).await.len(), 1);
}

#[tokio::test]
async fn w4_t06_a_restart_and_a_backlog_lose_nothing() {
    let (chain, mut watching, address, usdc) = ready().await;
    let before = watching.cursor().await;
    for amount in 1..=4 {
        pay(&chain, usdc, &address, amount).await;
        chain.mine(40).await.unwrap();
    }
    // 160 blocks in chunks of 50, with a new process between two of them.
    assert_eq!(watching.scanner.tick(NOW).await.unwrap(), Progress::Worked);
    assert_eq!(watching.cursor().await.tip.number.0, before.tip.number.0 + 50, "a bounded chunk, not a jump");
    watching.restart();
    assert_eq!(watching.scan().await.unwrap(), 3);
    watching.restart();
    watching.follow().await;
    assert_eq!(watching.cursor().await.start, before.start);
    assert_eq!(watching.rows(), "4|4|0|4|0");
    watching.assert_line();
    let stored = watching.base.sql("select count(*) - (select number - start_number + 1 from chain_cursors) from chain_blocks").unwrap();
    assert_eq!(stored.trim(), "0", "every height once");
}

#[tokio::test]
async fn t09_a_book_with_wrong_decimals_is_refused() {
    let (chain, usdc, _) = chain().await;
    let node = node_of(&[chain.url()]);
    node.verify(&local_spec()).await.unwrap();

    let mut wrong = local_spec();
    wrong.tokens[0].decimals = 18;
    let error = node.verify(&wrong).await.unwrap_err();
    assert!(matches!(error, VerifyError::Decimals { file: 18, on_chain: 6, .. }));
    let text = error.to_string();
    for part in ["Local", "31337", "USDC", &usdc.to_string(), "decimals = 18", "6 on chain", "refusing to start"] {
        assert!(text.contains(part), "{part} is not in {text}");
    }

    let mut nobody = local_spec();
    nobody.tokens[1].contract = Address::repeat_byte(0x11);
    assert!(matches!(node.verify(&nobody).await, Err(VerifyError::NoToken { .. })));
}

#[tokio::test]
async fn w8_a_node_of_another_chain_is_refused() {
    let chain = LocalChain::start(ChainOptions { chain_id: 5, ..ChainOptions::default() }).await.unwrap();
    let node = node_of(&[chain.url()]);
    assert!(matches!(node.verify(&local_spec()).await, Err(VerifyError::ChainId { found, .. }) if found == "5"));
    // And also without the check at start nothing is taken from it.
    assert!(node.head().await.is_err());
}
