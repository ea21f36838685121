//! What arrives otherwise than asked: too much, too late, twice, of another kind, to nobody.

use alloy::primitives::U256;
use amanatd::devkit::chain::PAYERS;
use amanatd::devkit::contracts;
use amanatd::devkit::postgres::APP;
use amanatd::ledger::AccountKey;
use amanatd::units::parse_units;

use super::{BUYER, SELLERS, Way};
use crate::process::Place;

#[tokio::test]
async fn xc8_xc20_parts_add_up_and_the_excess_waits_in_suspense() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "100", 0).await;
    let asset = way.token(way.usdc);
    way.pay(way.usdc, payment.deposit_address, "99.999999").await;
    way.deepen().await;
    let partial = way.read(payment.id).await;
    assert_eq!((partial.status.as_str(), partial.escrow_state, partial.received_units.as_str()), ("processing", None, "99999999"));
    assert_eq!(way.exceptions(payment.id).await, ["partial"]);
    assert!(way.intents("planned").await.is_empty(), "a part is not swept");

    // Two more in one block: the first makes it whole, the second finds it whole.
    let units = |text| parse_units(text, 6).unwrap();
    let minted = way.chain.mint(way.usdc, BUYER, units("30")).await.unwrap();
    way.chain.mined(minted).await.unwrap();
    let first = way.chain.transfer_token(way.usdc, BUYER, payment.deposit_address, units("20")).await.unwrap();
    let second = way.chain.transfer_token(way.usdc, BUYER, payment.deposit_address, units("10")).await.unwrap();
    way.chain.mine(1).await.unwrap();
    for hash in [first, second] {
        assert!(way.chain.receipt(hash).await.unwrap().is_some());
    }
    way.deepen().await;
    let funded = way.read(payment.id).await;
    assert_eq!((funded.status.as_str(), funded.escrow_state.as_deref()), ("confirmed", Some("funded")));
    let mut open = way.exceptions(payment.id).await;
    open.sort();
    assert_eq!(open, ["duplicate", "over"]);
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::from(100_000_000));
    assert_eq!(way.balance(asset, AccountKey::Suspense(Some(payment.id))).await, U256::from(29_999_999));
    way.assert_sound().await;

    // The sweep takes all that is there; the release takes what was due.
    way.outflow("fuel").await;
    assert_eq!(way.outflow("sweep").await.amount_units, "129999999");
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    assert_eq!(way.outflow("release").await.amount_units, "100000000");
    assert_eq!(way.chain.balance_of(way.usdc, SELLERS[0].parse().unwrap()).await.unwrap(), U256::from(100_000_000));
    assert_eq!(way.balance(asset, AccountKey::Suspense(Some(payment.id))).await, U256::from(29_999_999));
    way.assert_sound().await;
}

#[tokio::test]
async fn q5_what_comes_late_does_not_settle() {
    let way = Way::start().await;
    let payment = way.payment_within("USDC", "40", 0, 60).await;
    let due = payment.expires_at.unix_timestamp();
    // The block of the transfer is the first one past the expiry.
    way.chain.call::<_, serde_json::Value>("evm_setNextBlockTimestamp", (due + 1,)).await.unwrap();
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    let late = way.read(payment.id).await;
    assert_eq!((late.escrow_state, late.received_units.as_str()), (None, "0"));
    assert_eq!(way.exceptions(payment.id).await, ["late"]);
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Suspense(Some(payment.id))).await, U256::from(40_000_000));
    assert!(way.intents("planned").await.is_empty());
    assert_eq!(way.marketplace.release(payment.id, "release").await.unwrap_err().code(), Some("payment_state"));
    way.assert_sound().await;
}

#[tokio::test]
async fn xc20_a_payment_that_is_whole_takes_no_more() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    assert_eq!(way.exceptions(payment.id).await, ["duplicate"]);
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::from(40_000_000));
    assert_eq!(way.balance(asset, AccountKey::Suspense(Some(payment.id))).await, U256::from(40_000_000));
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    way.assert_sound().await;
}

#[tokio::test]
async fn xc20_another_token_or_coin_does_not_settle() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    way.pay(way.usdt, payment.deposit_address, "40").await;
    let coin = way.chain.send_native(BUYER, payment.deposit_address, U256::from(5)).await.unwrap();
    way.chain.mined(coin).await.unwrap();
    // Nobody lists this one, so nobody sees it.
    let odd = way.chain.deploy(contracts::odd_token().bytecode).await.unwrap();
    way.pay(odd, payment.deposit_address, "40").await;
    way.deepen().await;
    let seen = way.read(payment.id).await;
    assert_eq!((seen.status.as_str(), seen.escrow_state, seen.received_units.as_str()), ("processing", None, "0"));
    assert_eq!(way.exceptions(payment.id).await, ["wrong_token"]);
    assert_eq!(way.balance(way.token(way.usdt), AccountKey::Suspense(Some(payment.id))).await, U256::from(40_000_000));
    assert_eq!(way.balance(way.native(), AccountKey::Suspense(Some(payment.id))).await, U256::from(5));
    assert_eq!(way.balance(way.token(odd), AccountKey::Suspense(Some(payment.id))).await, U256::ZERO);
    // The right token still counts.
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    way.assert_sound().await;
}

#[tokio::test]
async fn l6_the_operators_own_money_is_nobodys_claim() {
    let way = Way::start().await;
    let (gas, treasury) = (way.operator("gas").await, way.operator("treasury").await);
    let ten = parse_units("10", 18).unwrap();
    assert_eq!(way.balance(way.native(), AccountKey::Operator).await, ten + ten);
    for address in [gas, treasury] {
        assert_eq!(way.balance(way.native(), AccountKey::Custody(address)).await, ten);
    }
    // A token at the treasury is not float: whose it is, a person says.
    way.pay(way.usdc, treasury, "7").await;
    way.deepen().await;
    let asset = way.token(way.usdc);
    assert_eq!(way.balance(asset, AccountKey::Operator).await, U256::ZERO);
    assert_eq!(way.balance(asset, AccountKey::Suspense(None)).await, U256::from(7_000_000));
    way.assert_sound().await;
}

#[tokio::test]
async fn xc9_two_payments_are_told_apart_in_neighbouring_blocks() {
    let way = Way::start().await;
    let (first, second) = (way.payment("USDC", "10", 0).await, way.payment("USDT", "20", 1).await);
    let pay = async |token, to, units: u64| {
        let minted = way.chain.mint(token, PAYERS[2], U256::from(units)).await.unwrap();
        way.chain.mined(minted).await.unwrap();
        way.chain.transfer_token(token, PAYERS[2], to, U256::from(units)).await.unwrap()
    };
    pay(way.usdc, first.deposit_address, 10_000_000).await;
    pay(way.usdt, second.deposit_address, 20_000_000).await;
    way.chain.mine(1).await.unwrap();
    way.deepen().await;
    for payment in [first.id, second.id] {
        assert_eq!(way.read(payment).await.escrow_state.as_deref(), Some("funded"));
    }
    way.assert_sound().await;
}

// === told on the command line ===

#[tokio::test]
async fn w3_confirm_explain_says_why_and_fails_where_a_verdict_does_not_follow() {
    let way = Way::start().await;
    let place = Place::new();
    place.configure(&way.api.base.url(APP), way.chain.url());
    let payment = way.payment("USDC", "40", 0).await;
    let id = payment.id.to_string();
    let empty: serde_json::Value = serde_json::from_str(&place.succeed(&["confirm", "explain", &id, "--json"])).unwrap();
    assert_eq!(empty["differing"], 0);
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.rounds().await;
    way.deepen().await;
    let text = place.succeed(&["confirm", "explain", &id]);
    for words in
        ["40 USDC", "credit gate: passed", "release gate: passed", "3 blocks required", "5 of 3 blocks", "replayed from history: agrees"]
    {
        assert!(text.contains(words), "no {words:?} in:\n{text}");
    }
    let told: serde_json::Value = serde_json::from_str(&place.succeed(&["confirm", "explain", &id, "--json"])).unwrap();
    assert_eq!(told["differing"], 0);
    assert!(told.to_string().contains("40"), "{told}");
    place.run(&["confirm", "explain", "01930c6e-0000-7000-8000-000000000000"]).assert_failed(&["no payment"]);

    // Whoever can switch triggers off writes a verdict that the history does not give.
    let forged = "alter table transfer_verdicts disable trigger user; update transfer_verdicts set threshold = 1 where gate = 'credit'; \
         alter table transfer_verdicts enable always trigger transfer_verdicts_guard; \
         alter table transfer_verdicts enable always trigger transfer_verdicts_gate; \
         alter table transfer_verdicts enable always trigger transfer_verdicts_follow; \
         alter table transfer_verdicts enable always trigger transfer_verdicts_screen";
    way.api.base.sql(forged).unwrap();
    let ended = place.run(&["confirm", "explain", &id]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("do not follow from the history"), "{ended:?}");
}
