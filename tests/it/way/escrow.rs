//! Money out of escrow and out of suspense, from the order to the chain: parts, refunds, disputes, what came
//! late, and what never came.

use alloy::primitives::{Address, B256, Bytes, U256, address};
use amanatd::api::Client;
use amanatd::api::wire::{AcceptPayment, ClaimIntent, CreatePayment, EndQuarantine, PaymentView, RefundPayment, ResolveDispute};
use amanatd::daemon;
use amanatd::escrow::Lapser;
use amanatd::ledger::AccountKey;
use amanatd::officer::{Scope, UserRole};
use amanatd::units::{PaymentId, Progress};
use time::Duration;
use uuid::Uuid;

use super::{SELLERS, Way};
use crate::watching::CHAIN;

/// Where a buyer wants money back: not where it came from.
const HOME: Address = address!("4444444444444444444444444444444444444444");

fn key() -> String {
    Uuid::new_v4().to_string()
}

async fn resolver(way: &Way) -> Client {
    let user = way.api.user("resolver", UserRole::Resolver).await;
    way.api.client(&way.api.token(&[Scope::DisputesResolve], Some(user), 1).await)
}

async fn refund(way: &Way, payment: PaymentId, from: &str, token: Option<&str>) -> PaymentView {
    let asked = RefundPayment { from: from.to_owned(), to: HOME.to_string(), token: token.map(str::to_owned), ..RefundPayment::default() };
    let ordered = way.marketplace.refund(payment, &asked, &key()).await.unwrap();
    way.rounds().await;
    ordered
}

async fn accept(way: &Way, payment: PaymentId, less_than_due: bool) -> PaymentView {
    let acceptance = AcceptPayment { less_than_due, reason: "the buyer and the seller agree".to_owned() };
    let accepted = way.marketplace.accept(payment, &acceptance, &key()).await.unwrap();
    way.rounds().await;
    accepted
}

async fn home(way: &Way, token: Address) -> U256 {
    way.chain.balance_of(token, HOME).await.unwrap()
}

fn units(whole: u64) -> U256 {
    U256::from(whole * 1_000_000)
}

#[tokio::test]
async fn l6_two_parts_and_the_rest_pay_the_seller_and_the_fees_of_the_whole() {
    let way = Way::start().await;
    let asked = CreatePayment {
        amount: "100".to_owned(),
        currency: "USDC".to_owned(),
        chain_id: CHAIN.get(),
        token: "USDC".to_owned(),
        seller_address: SELLERS[0].to_owned(),
        seller_offer_external_ref: Some("offer-7".to_owned()),
        platform_fee_bps: Some(250),
        provider_fee_min: Some("0.5".to_owned()),
        ..CreatePayment::default()
    };
    let payment = way.marketplace.create_payment(&asked, "with-fees").await.unwrap();
    assert_eq!((payment.provider.as_str(), payment.terms.platform_fee_units.as_str()), ("amn.scanner", "2500000"));
    way.pay(way.usdc, payment.deposit_address, "100").await;
    way.deepen().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;

    let seller: Address = SELLERS[0].parse().unwrap();
    let mut paid = U256::ZERO;
    for (part, state) in [(Some("33.333333"), "partial"), (Some("33.333333"), "partial"), (None, "released")] {
        let ordered = way.marketplace.release_part(payment.id, part, &key()).await.unwrap();
        assert_eq!(ordered.escrow_state.as_deref(), Some("releasable"));
        way.rounds().await;
        assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("releasing"));
        let release = way.outflow("release").await;
        paid += release.amount_units.parse::<U256>().unwrap();
        assert_eq!(way.chain.balance_of(way.usdc, seller).await.unwrap(), paid);
        assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some(state));
        way.assert_sound().await;
    }
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(paid, units(97));
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::PlatformFee).await, U256::from(2_500_000));
    assert_eq!(way.balance(asset, AccountKey::ProviderFee).await, U256::from(500_000));
    // What the house earned is still at the treasury, and nobody else's.
    assert_eq!(way.balance(asset, AccountKey::Custody(way.operator("treasury").await)).await, units(3));
}

#[tokio::test]
async fn xc20_an_excess_and_another_token_go_back_to_an_address_that_the_buyer_states() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "100", 0).await;
    way.pay(way.usdc, payment.deposit_address, "130").await;
    way.pay(way.usdt, payment.deposit_address, "7").await;
    way.deepen().await;
    let mut open = way.exceptions(payment.id).await;
    open.sort();
    assert_eq!(open, ["over", "wrong_token"]);
    let ours = way.operator("treasury").await;
    let to_us = RefundPayment { from: "suspense".to_owned(), to: ours.to_string(), ..RefundPayment::default() };
    let refused = way.marketplace.refund(payment.id, &to_us, &key()).await.unwrap_err();
    assert!(refused.to_string().contains("one of our own addresses"), "{refused}");

    // From where it lies, before anything is swept; the rest is swept afterwards.
    let fuel = way.planned("fuel").await;
    way.officer.void(fuel.id, "the refund goes first").await.unwrap();
    refund(&way, payment.id, "suspense", None).await;
    way.outflow("fuel").await;
    let refunded = way.outflow("refund").await;
    assert_eq!((refunded.from_address, refunded.to_address), (payment.deposit_address, HOME));
    assert_eq!((home(&way, way.usdc).await, way.exceptions(payment.id).await), (units(30), vec!["wrong_token".to_owned()]));
    way.assert_sound().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"), "a refund of an excess is no refund of the payment");
    if way.intents("planned").await.iter().any(|intent| intent.kind == "fuel") {
        way.outflow("fuel").await;
    }
    assert_eq!(way.outflow("sweep").await.amount_units, "100000000");

    refund(&way, payment.id, "suspense", Some("USDT")).await;
    if way.intents("planned").await.iter().any(|intent| intent.kind == "fuel") {
        way.outflow("fuel").await;
    }
    way.outflow("refund").await;
    assert_eq!(home(&way, way.usdt).await, units(7));
    assert!(way.exceptions(payment.id).await.is_empty());
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn l6_suspense_in_two_places_is_gathered_before_it_goes_back() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "100", 0).await;
    way.pay(way.usdc, payment.deposit_address, "130").await;
    way.deepen().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    // Thirty are at the treasury, forty come to the address of a payment that is over.
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    refund(&way, payment.id, "suspense", None).await;
    if way.intents("planned").await.iter().any(|intent| intent.kind == "fuel") {
        way.outflow("fuel").await;
    }
    assert_eq!(way.outflow("sweep").await.amount_units, "40000000");
    let refunded = way.outflow("refund").await;
    assert_eq!((refunded.from_address, home(&way, way.usdc).await), (way.operator("treasury").await, units(70)));
    assert_eq!((way.read(payment.id).await.status.as_str(), way.exceptions(payment.id).await), ("completed", Vec::new()));
    way.assert_sound().await;
}

#[tokio::test]
async fn s9_a_dispute_stops_a_planned_release_and_ends_in_a_refund() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;

    let dispute = way.marketplace.open_dispute(payment.id, "nothing was delivered", &key()).await.unwrap();
    assert_eq!(way.intent(release.id).await.state, "void");
    assert_eq!(way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap_err().code(), Some("intent_state"));
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Disputed(payment.id)).await, units(40));
    assert_eq!(way.marketplace.release(payment.id, "again").await.unwrap_err().code(), Some("disputed"));
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty());
    assert_eq!(way.marketplace.disputes().await.unwrap().len(), 1);

    let decision = ResolveDispute {
        resolution: "refund".to_owned(),
        note: "the seller did not answer".to_owned(),
        refund_to: Some(HOME.to_string()),
        refund_amount: None,
    };
    // Not by the marketplace.
    assert_eq!(way.marketplace.resolve_dispute(dispute.id, &decision, &key()).await.unwrap_err().code(), Some("forbidden"));
    let resolved = resolver(&way).await.resolve_dispute(dispute.id, &decision, &key()).await.unwrap();
    assert_eq!(resolved.resolution.as_deref(), Some("refund"));
    way.rounds().await;
    way.outflow("refund").await;
    let refunded = way.read(payment.id).await;
    assert_eq!((refunded.status.as_str(), refunded.escrow_state.as_deref()), ("refunded", Some("refunded")));
    assert_eq!(home(&way, way.usdc).await, units(40));
    way.assert_sound().await;
}

#[tokio::test]
async fn s9_what_may_be_signed_cannot_be_disputed_any_more() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;
    way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap();
    let refused = way.marketplace.open_dispute(payment.id, "stop it", &key()).await.unwrap_err();
    assert_eq!(refused.code(), Some("may_be_signed"));
    let raw = way.sign(release.id).await;
    way.submit(release.id, &raw).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(way.marketplace.open_dispute(payment.id, "too late", &key()).await.unwrap_err().code(), Some("payment_state"));
    way.assert_sound().await;
}

#[tokio::test]
async fn q5_what_came_late_is_accepted_and_released() {
    let way = Way::start().await;
    let payment = way.payment_within("USDC", "40", 0, 60).await;
    let due = payment.expires_at.unix_timestamp();
    way.chain.call::<_, serde_json::Value>("evm_setNextBlockTimestamp", (due + 1,)).await.unwrap();
    way.pay(way.usdc, payment.deposit_address, "25").await;
    way.pay(way.usdc, payment.deposit_address, "14").await;
    way.deepen().await;
    assert_eq!(way.exceptions(payment.id).await, ["late"]);
    // One short: only in so many words.
    let acceptance = AcceptPayment { less_than_due: false, reason: "late".to_owned() };
    assert_eq!(way.marketplace.accept(payment.id, &acceptance, &key()).await.unwrap_err().code(), Some("still_short"));
    let accepted = accept(&way, payment.id, true).await;
    assert_eq!((accepted.status.as_str(), accepted.escrow_state.as_deref()), ("confirmed", Some("funded")));
    assert_eq!(accepted.received_units, "39000000");
    assert!(accepted.exceptions.iter().all(|exception| exception.resolution.as_deref() == Some("accepted")), "{accepted:?}");
    way.assert_sound().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;

    // A second payment after the sweep is accepted on top: it is swept too, and then all of it is released.
    way.pay(way.usdc, payment.deposit_address, "5").await;
    way.deepen().await;
    accept(&way, payment.id, false).await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.iter().all(|intent| intent.kind != "release"), "it would be paid with somebody else's money");
    if way.intents("planned").await.iter().any(|intent| intent.kind == "fuel") {
        way.outflow("fuel").await;
    }
    way.outflow("sweep").await;
    assert_eq!(way.outflow("release").await.amount_units, "44000000");
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn xc8_a_part_is_topped_up_or_goes_back() {
    let way = Way::start().await;
    let (topped, returned) = (way.payment("USDC", "40", 0).await, way.payment_within("USDC", "40", 1, 3_600).await);
    way.pay(way.usdc, topped.deposit_address, "15").await;
    way.pay(way.usdc, returned.deposit_address, "15").await;
    way.deepen().await;
    assert_eq!(way.exceptions(topped.id).await, ["partial"]);
    way.pay(way.usdc, topped.deposit_address, "25").await;
    way.deepen().await;
    let whole = way.read(topped.id).await;
    assert_eq!((whole.escrow_state.as_deref(), whole.exceptions[0].resolution.as_deref()), (Some("funded"), Some("the rest arrived")));

    let fuel = way.planned("fuel").await;
    way.officer.void(fuel.id, "another day").await.unwrap();
    way.api.base.sql(&format!("update derived_destinations set status = 'quarantined' where payment_id = '{}'", topped.id)).unwrap();
    refund(&way, returned.id, "received", None).await;
    way.outflow("fuel").await;
    way.outflow("refund").await;
    assert_eq!((home(&way, way.usdc).await, way.exceptions(returned.id).await), (units(15), Vec::new()));
    let lapser = Lapser { db: way.api.db.clone(), chain: CHAIN };
    assert_eq!(lapser.tick(daemon::now() + Duration::days(9)).await.unwrap(), Progress::Idle, "the chain is not that far");
    way.chain.call::<_, serde_json::Value>("evm_increaseTime", (10 * 86_400,)).await.unwrap();
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    assert_eq!(lapser.tick(daemon::now()).await.unwrap(), Progress::Idle, "and our clock is not that far");
    assert_eq!(lapser.tick(daemon::now() + Duration::days(9)).await.unwrap(), Progress::Worked);
    let back = way.read(returned.id).await;
    assert_eq!((back.status.as_str(), back.escrow_state.as_deref()), ("refunded", Some("refunded")));
    assert_eq!(way.read(topped.id).await.status, "confirmed");
    way.assert_sound().await;
}

#[tokio::test]
async fn q5_what_never_came_ends_and_what_comes_after_the_end_is_not_lost() {
    let way = Way::start().await;
    let (cancelled, failed) = (way.payment("USDC", "40", 0).await, way.payment_within("USDC", "60", 1, 60).await);
    assert_eq!(way.marketplace.cancel(cancelled.id, &key()).await.unwrap().status, "cancelled");
    assert_eq!(way.marketplace.cancel(cancelled.id, &key()).await.unwrap_err().code(), Some("payment_state"));
    way.chain.call::<_, serde_json::Value>("evm_increaseTime", (10 * 86_400,)).await.unwrap();
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    let lapser = Lapser { db: way.api.db.clone(), chain: CHAIN };
    assert_eq!(lapser.tick(daemon::now() + Duration::days(9)).await.unwrap(), Progress::Worked);
    assert_eq!(way.read(failed.id).await.status, "failed");
    assert_eq!(lapser.tick(daemon::now() + Duration::days(9)).await.unwrap(), Progress::Idle);

    way.pay(way.usdc, cancelled.deposit_address, "40").await;
    way.pay(way.usdc, failed.deposit_address, "60").await;
    way.deepen().await;
    let asset = way.token(way.usdc);
    for (payment, status, there) in [(cancelled.id, "cancelled", 40), (failed.id, "failed", 60)] {
        assert_eq!((way.read(payment).await.status.as_str(), way.exceptions(payment).await), (status, vec!["late".to_owned()]));
        assert_eq!(way.balance(asset, AccountKey::Suspense(Some(payment))).await, units(there));
    }
    way.assert_sound().await;
    let acceptance = AcceptPayment { less_than_due: false, reason: "late".to_owned() };
    assert_eq!(way.marketplace.accept(cancelled.id, &acceptance, &key()).await.unwrap_err().code(), Some("payment_state"));
    assert_eq!(accept(&way, failed.id, false).await.escrow_state.as_deref(), Some("funded"));
    way.api.base.sql(&format!("update derived_destinations set status = 'quarantined' where payment_id = '{}'", failed.id)).unwrap();
    for intent in way.intents("planned").await {
        way.officer.void(intent.id, "another day").await.unwrap();
    }
    refund(&way, cancelled.id, "suspense", None).await;
    way.outflow("fuel").await;
    way.outflow("refund").await;
    assert_eq!((home(&way, way.usdc).await, way.exceptions(cancelled.id).await), (units(40), Vec::new()));

    // Out of quarantine, the other's money does not count and goes back too.
    let resolver = resolver(&way).await;
    let exit = EndQuarantine { to_suspense: true, reason: "the buyer changed their mind".to_owned() };
    assert_eq!(way.marketplace.end_quarantine(failed.id, &exit, &key()).await.unwrap_err().code(), Some("forbidden"));
    let out = resolver.end_quarantine(failed.id, &exit, &key()).await.unwrap();
    assert_eq!((out.status.as_str(), out.destination_status.as_str()), ("processing", "active"));
    assert_eq!(way.balance(asset, AccountKey::Suspense(Some(failed.id))).await, units(60));
    assert_eq!(resolver.end_quarantine(failed.id, &exit, &key()).await.unwrap_err().code(), Some("not_quarantined"));
    refund(&way, failed.id, "suspense", None).await;
    way.outflow("fuel").await;
    way.outflow("refund").await;
    assert_eq!(home(&way, way.usdc).await, units(100));
    way.assert_sound().await;
}

#[tokio::test]
async fn w6_a_reorg_takes_what_was_decided_along_and_leaves_a_dispute_open() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    let hash = way.pay(way.usdc, payment.deposit_address, "55").await;
    let bytes: Bytes = way.chain.call("eth_getRawTransactionByHash", (hash,)).await.unwrap();
    way.deepen().await;
    accept(&way, payment.id, false).await;
    let dispute = way.marketplace.open_dispute(payment.id, "nothing was delivered", &key()).await.unwrap();
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Disputed(payment.id)).await, units(55));

    way.chain.reorg(5, Vec::new()).await.unwrap();
    way.rounds().await;
    let gone = way.read(payment.id).await;
    assert_eq!((gone.status.as_str(), gone.escrow_state, gone.claims.len()), ("pending", None, 0));
    way.assert_sound().await;

    // Back in the chain it is whole again, too much again, and disputed still.
    let again: B256 = way.chain.call("eth_sendRawTransaction", (bytes,)).await.unwrap();
    way.chain.mined(again).await.unwrap();
    way.deepen().await;
    let back = way.read(payment.id).await;
    assert_eq!((back.escrow_state.as_deref(), way.exceptions(payment.id).await), (Some("funded"), vec!["over".to_owned()]));
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, units(40));
    assert_eq!(way.marketplace.release(payment.id, &key()).await.unwrap_err().code(), Some("disputed"));
    let decision = ResolveDispute { resolution: "no_action".to_owned(), note: "it came".to_owned(), refund_to: None, refund_amount: None };
    resolver(&way).await.resolve_dispute(dispute.id, &decision, &key()).await.unwrap();
    assert_eq!(way.marketplace.release(payment.id, &key()).await.unwrap().escrow_state.as_deref(), Some("releasable"));
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, units(40));
    way.assert_sound().await;
}
