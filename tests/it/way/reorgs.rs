//! What a reorg takes away: a transaction of ours that was mined, a deposit that was seen, a deposit
//! that was credited, and one whose money has moved on.

use alloy::primitives::{B256, Bytes, U256};
use amanatd::api::wire::ClaimIntent;
use amanatd::devkit::chain::ReorgTx;
use amanatd::ledger::{AccountKey, LedgerError};
use amanatd::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey, Tier};
use amanatd::units::{Confirmations, Disposition, parse_units};

use super::{SELLERS, Stopped, Way};

async fn raw(way: &Way, hash: B256) -> Bytes {
    way.chain.call("eth_getRawTransactionByHash", (hash,)).await.unwrap()
}

#[tokio::test]
async fn s5_a_release_mined_dropped_and_mined_again_settles_once() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let (release, bytes) = way.signed("release").await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    let mined = way.intent(release.id).await;
    assert_eq!(mined.state, "mined");
    let hash = mined.tx_hash.unwrap();

    // One block short of its depth it leaves the chain.
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.chain.reorg(2, Vec::new()).await.unwrap();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast");
    assert_eq!(way.chain.balance_of(way.usdc, SELLERS[0].parse().unwrap()).await.unwrap(), U256::ZERO);
    way.assert_sound().await;

    // The same bytes go out again, land in another block, leave once more with all that came after,
    // and come back in the branch itself.
    way.broadcast_later().await.unwrap();
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "mined");
    way.chain.mine(1).await.unwrap();
    way.chain.reorg(2, vec![(ReorgTx::Raw(bytes.clone()), 1)]).await.unwrap();
    way.rounds().await;
    let again = way.intent(release.id).await;
    assert_eq!((again.state.as_str(), again.tx_hash), ("mined", Some(hash)));
    way.assert_sound().await;
    way.deepen().await;
    assert_eq!(way.intent(release.id).await.state, "settled");
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(way.chain.balance_of(way.usdc, SELLERS[0].parse().unwrap()).await.unwrap(), U256::from(40_000_000));
    let booked = format!(
        "select count(*) from outbound_transactions t join funds_ledger_entries e on e.idempotency_key like 'outbound:' || t.id || ':%' \
         where t.tx_hash = '\\x{hash:x}'"
    );
    assert_eq!(way.api.count(&booked), 2);
    way.rounds().await;
    assert_eq!(way.api.count(&booked), 2);
    way.assert_sound().await;
}

#[tokio::test]
async fn w1_w3_a_deposit_reorged_before_its_depth_is_credited_once_later() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    let hash = way.pay(way.usdc, payment.deposit_address, "40").await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert_eq!(way.read(payment.id).await.status, "processing");
    let bytes = raw(&way, hash).await;
    way.chain.reorg(2, Vec::new()).await.unwrap();
    way.rounds().await;
    let gone = way.read(payment.id).await;
    assert_eq!((gone.status.as_str(), gone.transfers[0].state.as_str()), ("pending", "orphaned"));
    way.deepen().await;
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Received(payment.id)).await, U256::ZERO);

    let again: B256 = way.chain.call("eth_sendRawTransaction", (bytes,)).await.unwrap();
    assert_eq!(again, hash);
    way.chain.mined(again).await.unwrap();
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    let credits = "select count(*) from funds_ledger_entries where entry_type = 'payment_detected'";
    assert_eq!(way.api.count(credits), 1);
    assert_eq!(way.halted().await, None, "nothing was credited, so nothing is halted");
    way.assert_sound().await;
}

#[tokio::test]
async fn w6_a_reorg_below_a_credit_reverses_it_and_halts_outflow() {
    let way = Way::start().await;
    let bystander = way.funded("USDT", "75", 1).await;
    let fuel = way.planned("fuel").await;
    let planned = async || way.intents("planned").await.into_iter().map(|intent| intent.id).collect::<Vec<_>>();
    let payment = way.payment("USDC", "40", 0).await;
    let hash = way.pay(way.usdc, payment.deposit_address, "40").await;
    let bytes = raw(&way, hash).await;
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    // The marketplace trusts it already.
    way.marketplace.release(payment.id, "release").await.unwrap();
    let mut before = planned().await;

    way.chain.reorg(5, Vec::new()).await.unwrap();
    way.rounds().await;
    let after = way.read(payment.id).await;
    assert_eq!((after.status.as_str(), after.escrow_state, after.received_units.as_str()), ("pending", None, "0"));
    assert_eq!((after.destination_status.as_str(), after.transfers[0].state.as_str()), ("quarantined", "orphaned"));
    assert_eq!(way.exceptions(payment.id).await, ["reorged"]);
    let asset = way.token(way.usdc);
    for key in [AccountKey::Held(payment.id), AccountKey::Received(payment.id), AccountKey::Custody(payment.deposit_address)] {
        assert_eq!(way.balance(asset, key).await, U256::ZERO, "{key:?}");
    }
    // L7: the credit, the hold and what was reserved out of it, each undone by its mirror.
    let reversals = format!("select count(*) from funds_ledger_entries where entry_type = 'reversal' and payment_id = '{}'", payment.id);
    assert_eq!(way.api.count(&reversals), 3);
    let orders = way.api.base.sql("select state from payment_payouts").unwrap();
    assert_eq!(orders.trim(), "ordered", "nothing is planned or taken back while outflow is halted");
    way.assert_sound().await;

    // Nothing leaves this chain any more, also not what has nothing to do with it.
    assert!(way.halted().await.unwrap().contains("reorg"));
    way.officer.approve(fuel.id, fuel.digest).await.unwrap();
    assert_eq!(way.station.claim(fuel.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("outflow_halted"));
    way.marketplace.release(bystander.id, "release").await.unwrap();
    way.rounds().await;
    before.retain(|id| *id != fuel.id);
    assert_eq!(planned().await, before, "planned while halted");

    // Watching goes on: the same transfer in another block is credited again, once.
    let again: B256 = way.chain.call("eth_sendRawTransaction", (bytes,)).await.unwrap();
    assert_eq!(again, hash);
    way.chain.mined(again).await.unwrap();
    way.deepen().await;
    let back = way.read(payment.id).await;
    assert_eq!((back.escrow_state.as_deref(), back.received_units.as_str()), (Some("funded"), "40000000"));
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::from(40_000_000));
    assert!(way.halted().await.is_some(), "only an officer lifts the halt");
    assert_eq!(planned().await, before);
    way.assert_sound().await;
}

/// Two deposits, of which the later one is credited first, because the larger must be deeper; then a reorg
/// takes the later one. What is left pays the payment by itself, and the books are those of a daemon that
/// never saw the other.
#[tokio::test]
async fn w5_l6_what_is_left_after_a_reorg_counts_again() {
    let way = Way::start().await;
    let asset = way.token(way.usdc);
    let tier = Tier::new(asset.asset, parse_units("50", 6).unwrap()).unwrap();
    let change = NewChange {
        key: ThresholdKey { gate: Gate::Credit, chain: asset.chain, tier: Some(tier) },
        blocks: Some(Confirmations::new(10).unwrap()),
        effective_at: None,
        note: ChangeNote { changed_by: "test".to_owned(), user: None, reason: "large amounts wait longer".to_owned() },
    };
    let set =
        way.api.db.unit::<_, SettingsError, _>(move |connection| Box::pin(async move { settings::store::set(connection, &change).await }));
    set.await.unwrap();

    let payment = way.payment("USDC", "40", 0).await;
    way.pay(way.usdc, payment.deposit_address, "60").await;
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    let units = |text| parse_units(text, 6).unwrap();
    let books = async || {
        let [received, held, suspense, custody] = [
            AccountKey::Received(payment.id),
            AccountKey::Held(payment.id),
            AccountKey::Suspense(Some(payment.id)),
            AccountKey::Custody(payment.deposit_address),
        ]
        .map(|key| way.balance(asset, key));
        (received.await, held.await, suspense.await, custody.await)
    };
    assert_eq!(books().await, (U256::ZERO, units("40"), U256::ZERO, units("40")), "the small one pays, the large one waits");
    // Ten blocks on the large one, eight on the small one.
    way.chain.mine(5).await.unwrap();
    way.rounds().await;
    assert_eq!(books().await, (U256::ZERO, units("40"), units("60"), units("100")));
    assert_eq!(way.exceptions(payment.id).await, ["duplicate"]);
    way.assert_sound().await;

    // From the later deposit's block on everything is replaced.
    way.chain.reorg(8, Vec::new()).await.unwrap();
    for round in 1..=2 {
        way.rounds().await;
        assert_eq!(books().await, (U256::ZERO, units("40"), units("20"), units("60")), "round {round}");
    }
    let after = way.read(payment.id).await;
    assert_eq!((after.status.as_str(), after.escrow_state.as_deref()), ("confirmed", Some("funded")));
    let mut open = way.exceptions(payment.id).await;
    open.sort();
    assert_eq!(open, ["over"], "it is whole, and the rest is too much");
    assert_eq!(after.destination_status, "quarantined");
    assert!(way.halted().await.unwrap().contains("reorg"));
    way.assert_sound().await;
}

#[tokio::test]
async fn w6_a_release_of_money_that_a_reorg_took_never_leaves() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let approved = way.planned("release").await;
    way.approve(&approved).await;
    let deposit = way.read(payment.id).await.transfers[0].block_number;
    let depth = way.chain.head().await.unwrap().number - deposit + 1;
    way.chain.reorg(depth, Vec::new()).await.unwrap();
    let stopped = way.try_rounds().await;
    assert!(stopped.iter().any(|error| matches!(error, Stopped::Ledger(LedgerError::Overdraft { .. }))), "{stopped:?}");
    // Also when an officer lifts the halt too early: the case is still open.
    way.api.base.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null").unwrap();
    assert_eq!(way.station.claim(approved.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("outflow_halted"));
    let _ = way.try_rounds().await;
    assert_eq!(way.station.claim(approved.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("outflow_halted"));
    way.assert_books().await;
}

#[tokio::test]
async fn w6_signed_bytes_stay_here_while_outflow_is_halted() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let (release, bytes) = way.signed("release").await;
    way.api.base.sql("update chain_cursors set outflow_halted_at = now(), outflow_halted_reason = 'test'").unwrap();
    way.rounds().await;
    way.broadcast_later().await.unwrap();
    assert_eq!(way.intent(release.id).await.state, "signed");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts > 0 and settled_at is null"), 0);
    // Lifted, the same bytes go out.
    way.api.base.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null").unwrap();
    way.rounds().await;
    let sent = way.intent(release.id).await;
    assert_eq!((sent.state.as_str(), sent.tx_hash), ("broadcast", Some(alloy::primitives::keccak256(&bytes))));
}

#[tokio::test]
async fn w6_a_credit_whose_money_moved_on_waits_for_an_officer_and_others_go_on() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    let blocks = way.chain.head().await.unwrap().number;
    way.outflow("sweep").await;
    let other = way.payment("USDC", "60", 1).await;
    // The deposit leaves the chain, and the sweep of it too, long after both were final.
    let deposit = way.read(payment.id).await.transfers[0].block_number;
    let depth = way.chain.head().await.unwrap().number - deposit + 1;
    assert!(depth > 6 && blocks > deposit);
    way.chain.reorg(depth, Vec::new()).await.unwrap();
    let stopped = way.try_rounds().await;
    let waits = stopped.iter().any(|error| match error {
        Stopped::Ledger(error) => matches!(error, LedgerError::Overdraft { .. }) && error.disposition() == Disposition::Officer,
        Stopped::Intent(_) | Stopped::Broadcast(_) | Stopped::Settle(_) => false,
    });
    assert!(waits, "{stopped:?}");
    assert!(way.halted().await.is_some());
    way.assert_books().await;
    assert!(!way.differing().await.is_empty(), "the books hold what the chain took back");

    // A case that waits for a person does not keep others from being credited.
    way.pay(way.usdc, other.deposit_address, "60").await;
    way.chain.mine(2).await.unwrap();
    let _ = way.try_rounds().await;
    assert_eq!(way.read(other.id).await.escrow_state.as_deref(), Some("funded"), "one open case stops every credit");
    way.assert_books().await;
}
