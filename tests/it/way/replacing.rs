//! What is stuck: the same intent with higher fees, and cancels. Whichever transaction of the nonce is mined
//! settles, once.

use alloy::consensus::transaction::RlpEcdsaDecodableTx;
use alloy::consensus::{Transaction, TxEip1559};
use alloy::primitives::{Address, Bytes, U256};
use amanatd::api::Client;
use amanatd::api::wire::{CancelIntent, ClaimIntent, IntentView, ReplaceIntent};
use amanatd::broadcast::nonces::NonceWatch;
use amanatd::broadcast::{BroadcastError, nonces};
use amanatd::daemon;
use amanatd::ledger::AccountKey;
use amanatd::rpc::SendOutcome;
use amanatd::units::parse_units;
use time::Duration;

use super::{BUYER, SELLERS, Way};

fn seller() -> Address {
    SELLERS[0].parse().unwrap()
}

fn decoded(raw: &Bytes) -> TxEip1559 {
    TxEip1559::rlp_decode_with_signature(&mut &raw[1..]).unwrap().0
}

/// A release that is out and in no block.
async fn stuck(way: &Way) -> (IntentView, Bytes) {
    way.releasable("40", 0).await;
    let (release, raw) = way.signed("release").await;
    way.rounds().await;
    let release = way.intent(release.id).await;
    assert_eq!(release.state, "broadcast");
    (release, raw)
}

async fn replacement(way: &Way, release: &IntentView) -> IntentView {
    way.officer.replace(release.id, &ReplaceIntent::default()).await.unwrap()
}

async fn cancel(way: &Way, release: &IntentView) -> IntentView {
    let asked =
        CancelIntent { reason: "the seller gave another address".to_owned(), max_fee_per_gas: None, max_priority_fee_per_gas: None };
    way.officer.cancel_intent(release.id, &asked).await.unwrap()
}

async fn approved(second: &Client, intent: &IntentView) {
    assert_eq!(second.approve(intent.id, intent.digest).await.unwrap().state, "approved");
}

/// Mines, and buries what was mined until nothing is left to do.
async fn bury(way: &Way) {
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
}

/// The seller has been paid once, the books say so, and nothing is left open at the nonce.
async fn assert_paid_once(way: &Way, release: &IntentView) {
    assert_eq!(way.intent(release.id).await.state, "settled");
    assert_eq!(way.chain.balance_of(way.usdc, seller()).await.unwrap(), U256::from(40_000_000));
    assert_eq!(way.read(release.payment_id.unwrap()).await.status, "completed");
    assert_eq!(way.api.count("select count(*) from funds_ledger_entries where entry_type = 'release'"), 1);
    assert_eq!(way.api.count("select count(*) from outbound_transactions where settled_at is null"), 0);
    way.assert_sound().await;
}

// === n9: replacement ===

#[tokio::test]
async fn n9_a_stuck_release_is_replaced_by_itself_with_higher_fees() {
    let way = Way::start().await;
    let (release, first) = stuck(&way).await;
    let second = way.another("second").await;
    let revised = replacement(&way, &release).await;
    assert_eq!((revised.state.as_str(), revised.revision, revised.nonce, revised.approvals), ("planned", 2, release.nonce, 0));
    assert_ne!(revised.digest, release.digest);
    // The approval of the first revision does not serve the second, nor does that of whoever asked for it.
    assert_eq!(second.approve(release.id, release.digest).await.unwrap_err().code(), Some("stale_digest"));
    assert_eq!(way.officer.approve(release.id, revised.digest).await.unwrap_err().code(), Some("forbidden"));
    assert_eq!(way.officer.void(release.id, "no").await.unwrap_err().code(), Some("may_be_signed"), "something of it is out");
    approved(&second, &revised).await;
    let raw = way.sign(release.id).await;
    assert_eq!(way.submit(release.id, &raw).await.state, "signed");

    let (before, after) = (decoded(&first), decoded(&raw));
    assert_eq!((after.nonce, after.to, after.value, after.input.clone()), (before.nonce, before.to, before.value, before.input.clone()));
    assert!(after.max_fee_per_gas * 8 >= before.max_fee_per_gas * 9 && after.max_fee_per_gas > before.max_fee_per_gas);
    assert!(after.max_priority_fee_per_gas * 8 >= before.max_priority_fee_per_gas * 9);
    assert!(after.max_priority_fee_per_gas > before.max_priority_fee_per_gas);
    assert!(after.max_fee_per_gas() >= after.max_priority_fee_per_gas);

    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where last_send_outcome = 'accepted'"), 4, "the pool took it");
    bury(&way).await;
    assert_paid_once(&way, &release).await;
    assert_eq!(way.intent(release.id).await.tx_hash, Some(alloy::primitives::keccak256(&raw)));
    // It is over: nothing more is asked of it.
    assert_eq!(way.officer.replace(release.id, &ReplaceIntent::default()).await.unwrap_err().code(), Some("not_replaceable"));
}

#[tokio::test]
async fn s5_the_old_transaction_mines_at_any_moment_of_its_replacement() {
    for stage in ["asked", "approved", "claimed", "stored"] {
        let mut way = Way::start().await;
        let (release, first) = stuck(&way).await;
        let second = way.another("second").await;
        let revised = replacement(&way, &release).await;
        let mut late = None;
        if stage != "asked" {
            approved(&second, &revised).await;
        }
        if stage == "claimed" || stage == "stored" {
            late = Some(way.sign(release.id).await);
        }
        if stage == "stored" {
            way.submit(release.id, late.as_ref().unwrap()).await;
        }
        // The process dies there, and the old one is mined.
        way.restart();
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        assert_eq!(way.intent(release.id).await.state, "mined", "{stage}");
        match (stage, &late) {
            ("asked", _) => assert_eq!(second.approve(release.id, revised.digest).await.unwrap_err().code(), Some("intent_state")),
            ("approved", _) => {
                let refused = way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap_err();
                assert_eq!(refused.code(), Some("nonce_used"));
            }
            // A device signed meanwhile: the bytes are kept, to be watched.
            ("claimed", Some(raw)) => assert_eq!(way.submit(release.id, raw).await.state, "mined"),
            _ => {}
        }
        way.deepen().await;
        assert_paid_once(&way, &release).await;
        assert_eq!(way.intent(release.id).await.tx_hash, Some(alloy::primitives::keccak256(&first)), "{stage}");
    }
}

#[tokio::test]
async fn s2_a_replacement_that_was_stored_or_sent_and_not_noted_pays_once() {
    for sent in [false, true] {
        let mut way = Way::start().await;
        let (release, _) = stuck(&way).await;
        let second = way.another("second").await;
        approved(&second, &replacement(&way, &release).await).await;
        let raw = way.sign(release.id).await;
        way.submit(release.id, &raw).await;
        if sent {
            assert_eq!(way.api.node.send_raw(&raw).await, SendOutcome::Accepted);
        }
        way.restart();
        way.rounds().await;
        bury(&way).await;
        assert_paid_once(&way, &release).await;
    }
}

#[tokio::test]
async fn s5_a_reorg_that_swaps_the_two_settles_the_one_that_stands() {
    let way = Way::start().await;
    let (release, first) = stuck(&way).await;
    let second = way.another("second").await;
    let revised = replacement(&way, &release).await;
    approved(&second, &revised).await;
    let raw = way.sign(release.id).await;
    // The old one is mined, and its block goes; the new one is in the block that stands.
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.submit(release.id, &raw).await;
    assert_eq!(way.intent(release.id).await.tx_hash, Some(alloy::primitives::keccak256(&first)));
    way.chain.reorg(1, Vec::new()).await.unwrap();
    let _ = way.api.node.send_raw(&raw).await;
    way.chain.mine(1).await.unwrap();
    let _ = way.try_rounds().await;
    way.deepen().await;
    assert_paid_once(&way, &release).await;
}

#[tokio::test]
async fn n9_fifty_officers_ask_at_once_and_the_fees_rise_once() {
    let way = Way::start().await;
    let (release, _) = stuck(&way).await;
    let mut officers = Vec::new();
    for place in 0..50 {
        officers.push(way.another(&format!("officer {place}")).await);
    }
    let mut clicks = tokio::task::JoinSet::new();
    for officer in &officers {
        let officer = officer.clone();
        clicks.spawn(async move {
            officer.replace(release.id, &ReplaceIntent::default()).await.map_err(|error| error.code().map(str::to_owned))
        });
    }
    let answers = clicks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(way.intent(release.id).await.revision, 2);

    // And of fifty cancels there is one.
    let mut clicks = tokio::task::JoinSet::new();
    for officer in officers {
        let asked = CancelIntent { reason: "stop".to_owned(), max_fee_per_gas: None, max_priority_fee_per_gas: None };
        clicks.spawn(async move { officer.cancel_intent(release.id, &asked).await.map_err(|error| error.code().map(str::to_owned)) });
    }
    let answers = clicks.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    assert_eq!(way.api.count("select count(*) from intents where kind = 'cancel'"), 1);
}

#[tokio::test]
async fn n9_fees_that_displace_nothing_or_break_the_cap_are_refused() {
    let way = Way::start().await;
    let (release, _) = stuck(&way).await;
    let max: u128 = release.max_fee_per_gas.parse().unwrap();
    let ask = |max: u128, priority: u128| ReplaceIntent {
        max_fee_per_gas: Some(max.to_string()),
        max_priority_fee_per_gas: Some(priority.to_string()),
    };
    for asked in [ask(max, 1), ask(max + max / 16, 1), ask(max * 2, 0), ask(500_000_000_001, 1), ask(max * 2, max * 2 + 1)] {
        assert_eq!(way.officer.replace(release.id, &asked).await.unwrap_err().code(), Some("fees"), "{asked:?}");
    }
    // The treasury cannot pay 500 gwei a unit of gas and more than it holds.
    way.chain.set_balance(way.operator("treasury").await, U256::from(1)).await.unwrap();
    let odd = ReplaceIntent { max_fee_per_gas: Some("1".to_owned()), max_priority_fee_per_gas: None };
    assert_eq!(way.officer.replace(release.id, &odd).await.unwrap_err().code(), Some("invalid_fields"));
    assert_eq!(way.marketplace.replace(release.id, &ReplaceIntent::default()).await.unwrap_err().code(), Some("forbidden"));
    assert_eq!(way.intent(release.id).await.revision, 1, "L8");
}

// === s1, s5: cancel ===

#[tokio::test]
async fn s5_a_cancel_that_wins_gives_the_hold_back() {
    let way = Way::start().await;
    let (release, _) = stuck(&way).await;
    let second = way.another("second").await;
    let cancel = cancel(&way, &release).await;
    assert_eq!((cancel.kind.as_str(), cancel.nonce, cancel.cancels), ("cancel", release.nonce, Some(release.id)));
    assert_eq!((cancel.from_address, cancel.amount_units.as_str()), (cancel.to_address, "0"));
    assert_eq!(way.officer.approve(cancel.id, cancel.digest).await.unwrap_err().code(), Some("forbidden"), "who asks does not approve");
    approved(&second, &cancel).await;
    let raw = way.sign(cancel.id).await;
    way.submit(cancel.id, &raw).await;
    let sent = decoded(&raw);
    assert_eq!((sent.value, sent.input.len()), (U256::ZERO, 0));
    way.rounds().await;
    bury(&way).await;

    assert_eq!((way.intent(cancel.id).await.state.as_str(), way.intent(release.id).await.state.as_str()), ("settled", "replaced"));
    assert_eq!(way.chain.balance_of(way.usdc, seller()).await.unwrap(), U256::ZERO);
    let payment = release.payment_id.unwrap();
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Held(payment)).await, U256::from(40_000_000));
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Payable(payment)).await, U256::ZERO);
    assert_eq!(way.read(payment).await.escrow_state.as_deref(), Some("funded"));
    assert_eq!(way.api.count("select count(*) from outbound_transactions where settled_at is null"), 0);
    way.assert_sound().await;

    // Asked for again, it takes the next nonce and pays once.
    way.marketplace.release(payment, "again").await.unwrap();
    way.rounds().await;
    let again = way.planned("release").await;
    assert_eq!(again.nonce, release.nonce + 1);
    way.outflow("release").await;
    assert_eq!(way.chain.balance_of(way.usdc, seller()).await.unwrap(), U256::from(40_000_000));
    way.assert_sound().await;
}

#[tokio::test]
async fn s5_a_cancel_that_loses_the_race_is_a_normal_path() {
    for stage in ["asked", "approved", "stored"] {
        let way = Way::start().await;
        let (release, _) = stuck(&way).await;
        let second = way.another("second").await;
        let cancel = cancel(&way, &release).await;
        if stage != "asked" {
            approved(&second, &cancel).await;
        }
        if stage == "stored" {
            let raw = way.sign(cancel.id).await;
            way.submit(cancel.id, &raw).await;
        }
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        if stage == "approved" {
            let refused = way.station.claim(cancel.id, &ClaimIntent::of("desk")).await.unwrap_err();
            assert_eq!(refused.code(), Some("nonce_used"));
        }
        way.deepen().await;
        assert_eq!(way.intent(cancel.id).await.state, "replaced", "{stage}");
        assert_paid_once(&way, &release).await;
    }
}

#[tokio::test]
async fn s1_a_cancel_ends_what_a_lost_station_may_have_signed() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    let sweep = way.planned("sweep").await;
    assert_eq!(
        way.officer
            .cancel_intent(sweep.id, &CancelIntent { reason: "x".to_owned(), max_fee_per_gas: None, max_priority_fee_per_gas: None })
            .await
            .unwrap_err()
            .code(),
        Some("not_replaceable"),
        "what no station had is given up"
    );
    way.approve(&sweep).await;
    // The station signs and is never heard of again.
    let lost = way.sign(sweep.id).await;
    let second = way.another("second").await;
    let cancel = cancel(&way, &sweep).await;
    assert_eq!(way.station.claim(sweep.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("being_cancelled"));
    approved(&second, &cancel).await;
    let raw = way.sign(cancel.id).await;
    way.submit(cancel.id, &raw).await;
    // It is found again before the cancel is out: kept, and not sent before it.
    assert_eq!(way.submit(sweep.id, &lost).await.state, "signed");
    way.rounds().await;
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts = 0"), 1);
    bury(&way).await;
    assert_eq!((way.intent(cancel.id).await.state.as_str(), way.intent(sweep.id).await.state.as_str()), ("settled", "replaced"));
    // The deposit waits to be swept again, and is.
    let after = way.read(payment.id).await;
    assert_eq!(after.destination_status, "sweeping", "planned anew at once");
    assert_eq!(way.planned("sweep").await.nonce, sweep.nonce + 1);
    way.assert_sound().await;
}

#[tokio::test]
async fn s1_the_database_takes_no_second_transaction_that_names_no_first() {
    let way = Way::start().await;
    let (release, _) = stuck(&way).await;
    let insert = |intent: &str, replaces: &str, fees: &str| {
        format!(
            "set role amanat_app; insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw, replaces, \
             max_fee_per_gas, max_priority_fee_per_gas) select {intent}, chain_id, from_address, nonce, decode(repeat('99', 32), 'hex'), \
             raw, {replaces}, {fees} from outbound_transactions where intent_id = '{}'",
            release.id
        )
    };
    let own = format!("'{}'", release.id);
    let other = "(select id from intents where kind = 'fuel' limit 1)";
    let raised = "max_fee_per_gas * 2, max_priority_fee_per_gas * 2 + 1";
    for (intent, replaces, fees, said) in [
        (own.as_str(), "null", raised, "outbound_transactions_nonce_key"),
        (other, "id", raised, "replaces one of the same intent"),
        (own.as_str(), "(select min(id) from outbound_transactions)", raised, "replaces one of the same intent"),
        (own.as_str(), "id", "max_fee_per_gas, max_priority_fee_per_gas", "pays an eighth more"),
        (own.as_str(), "id", "max_fee_per_gas * 2, max_priority_fee_per_gas", "pays an eighth more"),
    ] {
        let refused = way.api.base.sql(&insert(intent, replaces, fees)).unwrap_err();
        assert!(format!("{refused:?}").contains(said), "{said}: {refused:?}");
    }
    // Nor is anything replaced or cancelled without a settled transaction at its nonce, or changed without a revision.
    for (change, said) in [
        ("state = 'replaced'", "replaced by a settled transaction"),
        ("state = 'mined'", "mined by a transaction of its own"),
        ("max_fee_per_gas = max_fee_per_gas * 2", "only with the revision"),
        ("state = 'planned'", "another revision"),
        ("revision = revision + 2, state = 'planned'", "follows the one before it"),
    ] {
        let refused =
            way.api.base.sql(&format!("set role amanat_app; update intents set {change} where id = '{}'", release.id)).unwrap_err();
        assert!(format!("{refused:?}").contains(said), "{change}: {refused:?}");
    }
    let cancel = "insert into intents (id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, \
         max_fee_per_gas, max_priority_fee_per_gas, digest, approvals_required, requested_by, cancels) select gen_random_uuid(), 'cancel', \
         chain_id, from_address_id, from_address, from_address, decode(repeat('ee', 20), 'hex'), 0, nonce + 1, gas_limit, max_fee_per_gas, \
         max_priority_fee_per_gas, digest, 1, 'daemon', id from intents where id = ";
    let refused = way.api.base.sql(&format!("set role amanat_app; {cancel} '{}'", release.id)).unwrap_err();
    assert!(format!("{refused:?}").contains("at the nonce of an open intent"), "{refused:?}");
}

// === s7: nonces ===

#[tokio::test]
async fn s7_a_foreign_use_of_a_nonce_halts_within_one_look() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    way.outflow("release").await;
    let watch = || NonceWatch::new(way.api.db.clone(), way.api.node.clone());
    watch().tick(daemon::now()).await.unwrap();
    assert_eq!(way.halted().await, None, "ours are ours");
    let treasury = way.operator("treasury").await;
    way.chain.impersonate(treasury).await.unwrap();
    let theft = way.chain.send_native(treasury, BUYER, parse_units("1", 18).unwrap()).await.unwrap();
    way.chain.mined(theft).await.unwrap();
    let outcome = watch().tick(daemon::now()).await;
    assert!(matches!(outcome, Err(BroadcastError::ForeignNonce { address, .. }) if address == treasury), "{outcome:?}");
    assert!(way.halted().await.unwrap().contains("not ours"));
    assert_eq!(way.api.count("select count(*) from events where kind = 'chain.foreign_nonce'"), 1);

    // Looked at and resumed, it halts nothing again. Planning goes on above it once two officers have said that it is past.
    way.api.base.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null").unwrap();
    watch().tick(daemon::now()).await.unwrap();
    assert_eq!(way.halted().await, None);
    let payment = way.funded("USDC", "30", 0).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    assert!(!way.try_rounds().await.is_empty(), "resumed is not accounted for");
    assert!(way.intents("planned").await.is_empty());
    way.baseline(treasury, 2).await;
    way.rounds().await;
    way.outflow("release").await;
    // The next one halts.
    let theft = way.chain.send_native(treasury, BUYER, parse_units("1", 18).unwrap()).await.unwrap();
    way.chain.mined(theft).await.unwrap();
    assert!(watch().tick(daemon::now()).await.is_err());
    assert!(way.halted().await.is_some());
}

#[tokio::test]
async fn s7_a_hole_that_holds_something_up_is_told_once() {
    let way = Way::start().await;
    let first = way.releasable("40", 0).await;
    let hole = way.planned("release").await;
    // A second release is signed above one that nobody approves.
    let second = way.payment("USDC", "30", 1).await;
    way.pay(way.usdc, second.deposit_address, "30").await;
    way.deepen().await;
    for kind in ["fuel", "sweep", "release"] {
        if kind == "release" {
            way.marketplace.release(second.id, "second").await.unwrap();
            way.rounds().await;
        }
        let planned =
            way.intents("planned").await.into_iter().find(|intent| intent.kind == kind && intent.payment_id == Some(second.id)).unwrap();
        way.approve(&planned).await;
        let raw = way.sign(planned.id).await;
        way.submit(planned.id, &raw).await;
        let _ = way.try_rounds().await;
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        way.deepen().await;
    }
    let watch = NonceWatch::new(way.api.db.clone(), way.api.node.clone());
    watch.tick(daemon::now()).await.unwrap();
    assert_eq!(watch.holes(), 0, "not yet");
    way.api.base.sql("update outbound_transactions set signed_at = signed_at - interval '11 minutes'").unwrap();
    for look in 1..3 {
        watch.tick(daemon::now() + Duration::minutes(look)).await.unwrap();
        assert_eq!(watch.holes(), 1);
    }
    assert_eq!(way.api.count("select count(*) from events where kind = 'chain.nonce_hole'"), 1, "told once");
    assert_eq!(way.halted().await, None);
    let seen = nonces::holes(hole.nonce, &[(hole.nonce, nonces::Taken::Unsigned), (hole.nonce + 1, nonces::Taken::Signed)].into());
    assert_eq!(seen, [hole.nonce]);

    // Signed at last, both are mined.
    way.approve(&hole).await;
    let raw = way.sign(hole.id).await;
    way.submit(hole.id, &raw).await;
    way.rounds().await;
    let _ = way.broadcast_later().await;
    bury(&way).await;
    bury(&way).await;
    watch.tick(daemon::now() + Duration::minutes(9)).await.unwrap();
    assert_eq!(watch.holes(), 0);
    assert_eq!(way.read(first.id).await.status, "completed");
    way.assert_sound().await;
}
