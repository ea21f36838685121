//! Money on its way out, and what can happen to it between the officer's device and the seller.

use alloy::primitives::{Address, U256, keccak256};
use amanatd::api::wire::{ClaimIntent, DeclineIntent};
use amanatd::broadcast::BroadcastError;
use amanatd::daemon;
use amanatd::devkit::chain::DEPLOYER;
use amanatd::devkit::contracts::Token;
use amanatd::intent::IntentError;
use amanatd::ledger::AccountKey;
use amanatd::rpc::SendOutcome;
use amanatd::settle::SettleError;
use amanatd::units::parse_units;
use time::Duration;
use uuid::Uuid;

use super::{BUYER, SELLERS, Stopped, Way};

fn seller(place: usize) -> Address {
    SELLERS[place].parse().unwrap()
}

/// How often the ledger moved money or paid a fee for a transaction.
fn bookings(way: &Way, raw: &[u8]) -> i64 {
    way.api.count(&format!(
        "select count(*) from outbound_transactions t join funds_ledger_entries e on e.idempotency_key like 'outbound:' || t.id || ':%' \
         where t.tx_hash = '\\x{:x}'",
        keccak256(raw)
    ))
}

// === s2: stored, then sent ===

#[tokio::test]
async fn s2_what_was_stored_is_sent_by_the_next_process() {
    let mut way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let (release, raw) = way.signed("release").await;
    // Nothing has left: the process dies between the commit and the first send.
    assert_eq!(way.chain.call::<_, Option<serde_json::Value>>("eth_getTransactionByHash", (keccak256(&raw),)).await.unwrap(), None);
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts = 0"), 1);
    way.restart();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast");
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.intent(release.id).await.state, "settled");
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::from(40_000_000));
    assert_eq!(bookings(&way, &raw), 2);
    way.assert_sound().await;
}

#[tokio::test]
async fn s2_what_was_sent_and_not_noted_pays_once() {
    let mut way = Way::start().await;
    way.releasable("40", 0).await;
    let (release, raw) = way.signed("release").await;
    // The process sent the bytes and died before it could write that down.
    assert_eq!(way.api.node.send_raw(&raw).await, SendOutcome::Accepted);
    way.restart();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where last_send_outcome = 'already known'"), 1);
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.intent(release.id).await.state, "settled");
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::from(40_000_000));
    assert_eq!(bookings(&way, &raw), 2);
    way.assert_sound().await;
}

#[tokio::test]
async fn s2_what_was_mined_and_not_noted_settles_once() {
    let mut way = Way::start().await;
    way.releasable("40", 0).await;
    let (release, raw) = way.signed("release").await;
    assert_eq!(way.api.node.send_raw(&raw).await, SendOutcome::Accepted);
    way.chain.mine(5).await.unwrap();
    way.restart();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "settled");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts > 0 and settled_at is null"), 0);
    // And whatever comes after finds nothing left to do.
    way.restart();
    way.rounds().await;
    assert_eq!(bookings(&way, &raw), 2);
    way.assert_sound().await;
}

// === s3: signed = approved ===

#[tokio::test]
async fn s3_altered_bytes_are_refused_and_not_stored() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let intent = way.planned("release").await;
    way.approve(&intent).await;
    let raw = way.sign(intent.id).await;
    // Every byte of the transaction, one bit of it turned over.
    let mut refused = 0;
    for place in 0..raw.len() {
        let mut altered = raw.to_vec();
        altered[place] ^= 1;
        let error = way.station.submit_signature(intent.id, altered.into(), &Uuid::new_v4().to_string()).await.unwrap_err();
        assert_eq!(error.code(), Some("invalid_fields"), "byte {place}: {error}");
        refused += 1;
    }
    for altered in [raw[..raw.len() - 1].to_vec(), [raw.as_ref(), &[0]].concat(), raw[1..].to_vec(), Vec::new()] {
        assert_eq!(
            way.station.submit_signature(intent.id, altered.into(), &Uuid::new_v4().to_string()).await.unwrap_err().code(),
            Some("invalid_fields")
        );
    }
    assert!(refused > 150, "{refused}");
    let kept = "select count(*) from outbound_transactions where intent_id = ";
    assert_eq!(way.api.count(&format!("{kept} '{}'", intent.id)), 0);
    assert_eq!(way.intent(intent.id).await.state, "signing");
    way.rounds().await;
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::ZERO);

    // The bytes themselves are taken, and taken again by a station that lost its answer.
    for _ in 0..2 {
        assert_eq!(way.submit(intent.id, &raw).await.state, "signed");
    }
    assert_eq!(way.api.count(&format!("{kept} '{}'", intent.id)), 1);
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("releasing"));
}

#[tokio::test]
async fn s1_s3_a_signature_of_one_intent_does_not_serve_another() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;
    let raw = way.sign(release.id).await;
    let other = way.funded("USDC", "60", 1).await;
    let fuel = way.planned("fuel").await;
    way.approve(&fuel).await;
    way.station.claim(fuel.id, &ClaimIntent::of("desk")).await.unwrap();
    assert_eq!(
        way.station.submit_signature(fuel.id, raw.clone(), &Uuid::new_v4().to_string()).await.unwrap_err().code(),
        Some("invalid_fields")
    );
    assert_eq!(way.intent(fuel.id).await.state, "signing");
    assert_eq!(way.read(other.id).await.escrow_state.as_deref(), Some("funded"));
    way.submit(release.id, &raw).await;
}

#[tokio::test]
async fn s3_a_declined_intent_goes_back_and_can_be_signed_later() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;
    way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap();
    let declined = way.station.decline(release.id, &DeclineIntent::of("desk", "the officer refused on the device")).await.unwrap();
    assert_eq!((declined.state.as_str(), declined.nonce), ("approved", release.nonce));
    let raw = way.sign(release.id).await;
    way.submit(release.id, &raw).await;
    // Past the signature nobody takes it back.
    assert_eq!(way.station.decline(release.id, &DeclineIntent::of("desk", "too late")).await.unwrap_err().code(), Some("intent_state"));
}

// === s5: mined, and not ===

#[tokio::test]
async fn s5_a_release_that_fails_on_the_chain_gives_its_hold_back() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let (release, raw) = way.signed("release").await;
    let treasury = way.operator("treasury").await;
    let asset = way.token(way.usdc);
    let coin = way.balance(way.native(), AccountKey::Custody(treasury)).await;
    way.blacklist(seller(0)).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "mined");
    way.assert_sound().await;
    way.deepen().await;

    assert_eq!(way.intent(release.id).await.state, "reverted");
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::from(40_000_000));
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, U256::ZERO);
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    assert_eq!(way.exceptions(payment.id).await, ["held"]);
    // Gas was paid, and nothing else.
    assert_eq!(bookings(&way, &raw), 1);
    let paid = coin - way.balance(way.native(), AccountKey::Custody(treasury)).await;
    assert!(paid > U256::ZERO);
    way.assert_sound().await;
    assert!(way.intents("planned").await.is_empty(), "nothing is tried again by itself");

    // Asked for again, when the cause is gone, it pays once.
    way.as_owner(way.usdc, Token::unBlacklistCall { account: seller(0) }).await;
    way.marketplace.release(payment.id, "again").await.unwrap();
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::from(40_000_000));
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn s5_a_sweep_that_fails_on_the_chain_quarantines_its_address() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    let (sweep, raw) = way.signed("sweep").await;
    way.as_owner(way.usdc, Token::pauseCall {}).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.intent(sweep.id).await.state, "reverted");
    let after = way.read(payment.id).await;
    assert_eq!((after.destination_status.as_str(), after.escrow_state.as_deref()), ("quarantined", Some("funded")));
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Custody(payment.deposit_address)).await, U256::from(40_000_000));
    assert_eq!(bookings(&way, &raw), 1);
    assert!(way.intents("planned").await.is_empty());
    way.assert_sound().await;
}

#[tokio::test]
async fn s5_a_transfer_that_moved_something_else_is_not_settled() {
    let way = Way::start().await;
    let (first, second) = (way.funded("USDT", "40", 0).await, way.funded("USDC", "60", 1).await);
    for _ in 0..2 {
        let fuel = way.intents("planned").await;
        for intent in &fuel {
            way.approve(intent).await;
            let raw = way.sign(intent.id).await;
            way.submit(intent.id, &raw).await;
        }
        way.rounds().await;
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        way.deepen().await;
        if way.intents("planned").await.iter().all(|intent| intent.kind == "sweep") {
            break;
        }
    }
    // A fee is switched on between the signature and the block: less arrives than was approved.
    let owned = way.chain.mint(way.usdt, DEPLOYER, U256::from(1)).await.unwrap();
    way.chain.mined(owned).await.unwrap();
    for intent in way.intents("planned").await {
        way.approve(&intent).await;
        let raw = way.sign(intent.id).await;
        way.submit(intent.id, &raw).await;
    }
    let fee = Token::setParamsCall { newBasisPoints: U256::from(10), newMaxFee: U256::from(1_000_000) };
    way.as_owner(way.usdt, fee).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    let _ = way.try_rounds().await;
    way.chain.mine(2).await.unwrap();
    let stopped = way.try_rounds().await;
    assert!(stopped.iter().any(|error| matches!(error, Stopped::Settle(SettleError::OtherEffect { .. }))), "{stopped:?}");
    assert_eq!(way.read(first.id).await.destination_status, "sweeping");
    // The other payment's sweep has nothing to do with it.
    assert_eq!(way.read(second.id).await.destination_status, "swept", "one odd token holds up every settlement");
    way.assert_books().await;
}

#[tokio::test]
async fn k7_a_seller_who_cannot_be_paid_holds_nobody_else_up() {
    let way = Way::start().await;
    let blocked = way.funded("USDC", "50", 1).await;
    let third = way.funded("USDC", "60", 2).await;
    settle_all(&way, 2).await;
    // The older of two releases cannot even be estimated.
    way.blacklist(seller(1)).await;
    for payment in [&blocked, &third] {
        way.marketplace.release(payment.id, &format!("release-{}", payment.id)).await.unwrap();
    }
    let stopped = way.try_rounds().await;
    assert!(stopped.iter().any(|error| matches!(error, Stopped::Intent(IntentError::Rpc(_)))), "{stopped:?}");
    assert_eq!(way.planned("release").await.payment_id, Some(third.id));
    assert_eq!(way.read(blocked.id).await.escrow_state.as_deref(), Some("releasable"));
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Payable(blocked.id)).await, U256::from(50_000_000), "reserved since it was ordered");
}

/// Signs and settles what is planned until `sweeps` more destinations are swept.
async fn settle_all(way: &Way, sweeps: usize) {
    for _ in 0..6 {
        let planned: Vec<_> = way.intents("planned").await.into_iter().filter(|intent| intent.kind != "release").collect();
        if planned.is_empty() {
            break;
        }
        for intent in planned {
            way.approve(&intent).await;
            let raw = way.sign(intent.id).await;
            way.submit(intent.id, &raw).await;
        }
        way.rounds().await;
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        way.deepen().await;
    }
    let swept = way.api.count("select count(*) from derived_destination_sweeps");
    assert!(swept >= i64::try_from(sweeps).unwrap(), "{swept} swept");
}

// === nonces ===

#[tokio::test]
async fn s7_s8_a_foreign_transaction_from_our_address_freezes_outflow() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let (release, _) = way.signed("release").await;
    // Somebody else holds the key, and is faster.
    let treasury = way.operator("treasury").await;
    way.chain.impersonate(treasury).await.unwrap();
    let theft = way.chain.send_native(treasury, BUYER, parse_units("1", 18).unwrap()).await.unwrap();
    way.chain.mined(theft).await.unwrap();

    let stopped = way.try_rounds().await;
    let foreign = |error: &Stopped| matches!(error, Stopped::Broadcast(BroadcastError::ForeignNonce { .. }));
    assert!(!stopped.iter().any(foreign), "a node may be slow to show what it mined: {stopped:?}");
    assert_eq!(way.halted().await, None);
    // It stays unknown at two further sends: then it is not ours.
    let first = way.broadcast(daemon::now() + Duration::seconds(20)).await;
    let second = way.broadcast(daemon::now() + Duration::seconds(40)).await;
    let frozen = [first, second].into_iter().any(|outcome| {
        let Err(BroadcastError::Item { source, .. }) = outcome else { return false };
        matches!(*source, BroadcastError::ForeignNonce { address, nonce, .. } if address == treasury && nonce == release.nonce)
    });
    assert!(frozen);
    assert!(way.halted().await.unwrap().contains("not ours"));
    // Another payment is credited, and nothing is planned, claimed or sent for it.
    let other = way.payment("USDC", "60", 1).await;
    way.pay(way.usdc, other.deposit_address, "60").await;
    way.chain.mine(3).await.unwrap();
    let _ = way.try_rounds().await;
    assert_eq!(way.read(other.id).await.escrow_state.as_deref(), Some("funded"));
    assert!(way.intents("planned").await.is_empty());
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::ZERO);
    // The books know nothing of the theft, and say so.
    let differing = way.differing().await;
    assert_eq!(differing.iter().map(|line| line.address).collect::<Vec<_>>(), [treasury]);
    way.assert_books().await;
}

#[tokio::test]
async fn s7_a_foreign_nonce_above_ours_stops_planning_from_that_address() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    way.outflow("release").await;
    let treasury = way.operator("treasury").await;
    way.chain.impersonate(treasury).await.unwrap();
    let theft = way.chain.send_native(treasury, BUYER, U256::from(1)).await.unwrap();
    way.chain.mined(theft).await.unwrap();
    assert_eq!(way.read(payment.id).await.status, "completed");

    let other = way.funded("USDC", "60", 1).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(other.id, "release").await.unwrap();
    let stopped = way.try_rounds().await;
    let named =
        stopped.iter().any(|error| matches!(error, Stopped::Intent(IntentError::ForeignNonce { address, .. }) if *address == treasury));
    assert!(named, "{stopped:?}");
    assert!(way.intents("planned").await.is_empty());
    assert_eq!(
        way.balance(way.token(way.usdc), AccountKey::Payable(other.id)).await,
        U256::from(60_000_000),
        "reserved since it was ordered"
    );
}

// === w3: nothing leaves for money that is only credited ===

#[tokio::test]
async fn w3_nothing_is_planned_for_money_that_is_only_credited() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    way.pay(payment.token_contract, payment.deposit_address, "40").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    let credited = way.read(payment.id).await;
    assert_eq!(credited.escrow_state.as_deref(), Some("funded"), "it counts");
    assert!(!credited.transfers[0].may_leave);
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty(), "depth 4 of 5");
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert!(way.read(payment.id).await.transfers[0].may_leave);
    way.planned("fuel").await;
}

#[tokio::test]
async fn w3_a_release_waits_for_whatever_else_was_credited_at_its_address() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.pay(payment.token_contract, payment.deposit_address, "1").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty());
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    way.planned("release").await;
}

#[tokio::test]
async fn w3_a_gate_that_falls_stops_the_claim_and_the_first_send() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    let sweep = way.planned("sweep").await;
    way.approve(&sweep).await;
    // More arrives, and is only credited.
    way.pay(payment.token_contract, payment.deposit_address, "1").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    let refused = way.station.claim(sweep.id, &ClaimIntent::of("desk")).await.unwrap_err();
    assert_eq!(refused.code(), Some("only_credited"));
    assert_eq!(way.intent(sweep.id).await.state, "approved");
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    let raw = way.sign(sweep.id).await;

    // Signed, and then more arrives again: the bytes are kept and not sent.
    way.pay(payment.token_contract, payment.deposit_address, "1").await;
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    way.submit(sweep.id, &raw).await;
    way.rounds().await;
    assert_eq!(way.intent(sweep.id).await.state, "signed");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts = 0"), 1);
    way.chain.mine(2).await.unwrap();
    way.rounds().await;
    assert_eq!(way.intent(sweep.id).await.state, "broadcast");
}
