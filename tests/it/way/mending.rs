//! What officers can undo, what no station can take from another, and what must stop everything.

use std::sync::Arc;

use alloy::primitives::U256;
use amanatd::api::wire::{ClaimIntent, CreatePayment, DeclineIntent};
use amanatd::chains::ChainBook;
use amanatd::daemon;
use amanatd::ledger::{AccountKey, Bookkeeper};
use time::Duration;

use super::{SELLERS, Way};

#[tokio::test]
async fn s4_a_void_gives_back_what_was_reserved_and_the_nonce() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let asset = way.token(way.usdc);
    let planned = way.planned("release").await;
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, U256::from(40_000_000));
    way.approve(&planned).await;

    let void = way.officer.void(planned.id, "the seller asked for another day").await.unwrap();
    assert_eq!(void.state, "void");
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, U256::ZERO);
    assert_eq!(way.balance(asset, AccountKey::Held(payment.id)).await, U256::from(40_000_000));
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty(), "a release given up is not planned by itself");
    assert_eq!(way.officer.void(planned.id, "again").await.unwrap_err().code(), Some("intent_state"));

    // Asked for again, it takes the same nonce and pays once.
    way.marketplace.release(payment.id, "a-later-day").await.unwrap();
    way.rounds().await;
    assert_eq!(way.planned("release").await.nonce, planned.nonce);
    way.outflow("release").await;
    assert_eq!(way.chain.balance_of(way.usdc, SELLERS[0].parse().unwrap()).await.unwrap(), U256::from(40_000_000));
    way.assert_sound().await;
}

#[tokio::test]
async fn n3_what_a_station_has_cannot_be_void_nor_taken_by_another() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;
    way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap();
    assert_eq!(way.officer.void(release.id, "too late").await.unwrap_err().code(), Some("may_be_signed"));
    assert_eq!(way.station.claim(release.id, &ClaimIntent::of("attic")).await.unwrap_err().code(), Some("other_station"));
    let foreign = DeclineIntent::of("attic", "not mine");
    assert_eq!(way.station.decline(release.id, &foreign).await.unwrap_err().code(), Some("other_station"));

    // The one that has it may give it back, and then it can be given up.
    way.station.decline(release.id, &DeclineIntent::of("desk", "refused on the device")).await.unwrap();
    assert_eq!(way.intent(release.id).await.state, "approved");

    // A station that is gone may have signed: whoever takes over cannot clear that.
    way.station.claim(release.id, &ClaimIntent::of("desk")).await.unwrap();
    let take_over = ClaimIntent { station: "attic".to_owned(), take_over: true };
    way.station.claim(release.id, &take_over).await.unwrap();
    way.station.decline(release.id, &DeclineIntent::of("attic", "refused on the device")).await.unwrap();
    assert_eq!(way.officer.void(release.id, "which station signed?").await.unwrap_err().code(), Some("may_be_signed"));
    way.assert_sound().await;
}

#[tokio::test]
async fn s6_the_database_itself_refuses_an_approval_without_officers() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let release = way.planned("release").await;
    for (change, constraint) in [
        ("state = 'approved'", "as many officers"),
        ("state = 'signing'", "does not go from planned to signing"),
        ("state = 'settled'", "does not go from planned to settled"),
    ] {
        let refused =
            way.api.base.sql(&format!("set role amanat_app; update intents set {change} where id = '{}'", release.id)).unwrap_err();
        assert!(format!("{refused:?}").contains(constraint), "{change}: {refused:?}");
    }
    assert_eq!(way.intent(release.id).await.state, "planned");
}

#[tokio::test]
async fn l6_a_release_waits_for_its_own_deposit_to_be_swept() {
    let way = Way::start().await;
    // Where releases are paid from the treasury; `direct.rs` has them paid from where the money is.
    way.planning("release_path", None, "treasury").await;
    // The treasury holds another payment's money, more than enough.
    let rich = way.funded("USDC", "1000", 0).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    let poor = way.funded("USDC", "30", 1).await;
    way.marketplace.release(poor.id, "release").await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.iter().all(|intent| intent.kind == "fuel"), "paid out of another payment's deposit");
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.outflow("release").await;
    assert_eq!(way.read(poor.id).await.status, "completed");
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Held(rich.id)).await, U256::from(1_000_000_000));
    way.assert_sound().await;
}

#[tokio::test]
async fn w6_a_settled_release_that_a_reorg_takes_halts_and_comes_back_with_the_same_bytes() {
    let way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let release = way.outflow("release").await;
    let seller = SELLERS[0].parse().unwrap();
    assert_eq!(way.read(payment.id).await.status, "completed");

    let mined: i64 = way.api.count(&format!("select block_number from outbound_transactions where intent_id = '{}'", release.id));
    let depth = way.chain.head().await.unwrap().number - u64::try_from(mined).unwrap() + 1;
    way.chain.reorg(depth, Vec::new()).await.unwrap();
    let _ = way.try_rounds().await;
    assert_eq!(way.chain.balance_of(way.usdc, seller).await.unwrap(), U256::ZERO);
    assert!(way.halted().await.unwrap().contains("reorged away"), "the halt does not wait until the bytes are due again");
    let _ = way.broadcast(daemon::now() + Duration::seconds(20)).await;

    // The same bytes were sent again: the books are right once they are mined.
    way.chain.mine(3).await.unwrap();
    let stopped = way.try_rounds().await;
    assert!(stopped.is_empty(), "{stopped:?}");
    assert_eq!(way.chain.balance_of(way.usdc, seller).await.unwrap(), U256::from(40_000_000));
    let entries =
        way.api.count(&format!("select count(*) from funds_ledger_entries where entry_type = 'release' and payment_id = '{}'", payment.id));
    assert_eq!(entries, 1);
    way.assert_sound().await;
}

#[tokio::test]
async fn w2_a_transfer_that_cannot_be_posted_waits_in_sight_and_holds_no_other_up() {
    let mut way = Way::start().await;
    let odd = way.payment("USDT", "40", 0).await;
    let good = way.payment("USDC", "60", 1).await;
    // Somebody took a token out of the book while a transfer of it was on its way.
    let text = include_str!("../../../chains.toml");
    let book = |text: &str| Arc::new(ChainBook::parse(text).unwrap());
    let whole = book(text);
    let usdt = way.usdt.to_string();
    assert!(text.contains(&usdt));
    let without = book(&text.replace(&usdt, "0x4444444444444444444444444444444444444444"));
    way.workers.bookkeeper = Bookkeeper::new(way.api.db.clone(), without);
    way.pay(way.usdt, odd.deposit_address, "40").await;
    way.pay(way.usdc, good.deposit_address, "60").await;
    way.chain.mine(3).await.unwrap();
    way.rounds().await;
    assert_eq!(way.read(good.id).await.escrow_state.as_deref(), Some("funded"));
    assert_eq!(way.read(odd.id).await.received_units, "0");
    let waiting = "select count(*) from ledger_unposted where posted_at is null";
    assert_eq!(way.api.count(waiting), 1);

    // Put back, it is credited, once.
    way.workers.bookkeeper = Bookkeeper::new(way.api.db.clone(), whole);
    way.rounds().await;
    assert_eq!(way.read(odd.id).await.escrow_state.as_deref(), Some("funded"));
    assert_eq!(way.api.count(waiting), 0);
    way.rounds().await;
    way.assert_sound().await;
}

#[tokio::test]
async fn w7_money_that_nobody_booked_is_found_at_our_own_addresses() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    let treasury = way.operator("treasury").await;
    // Coin that no transaction and no log shows.
    way.chain.set_balance(payment.deposit_address, U256::from(7)).await.unwrap();
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    let found: Vec<_> = way.differing().await.iter().map(|line| (line.address, line.chain_units)).collect();
    assert_eq!(found, [(payment.deposit_address, U256::from(7))]);

    // And nobody is paid at an address of ours.
    let asked = CreatePayment {
        amount: "1".to_owned(),
        currency: "USDC".to_owned(),
        chain_id: 31_337,
        token: "USDC".to_owned(),
        seller_address: treasury.to_string(),
        buyer_id: None,
        seller_id: None,
        purchase_request_id: None,
        purchase_request_external_ref: None,
        expires_in_seconds: None,
        ..CreatePayment::default()
    };
    let refused = way.marketplace.create_payment(&asked, "to-ourselves").await.unwrap_err();
    assert!(refused.to_string().contains("seller_address: is one of our own addresses"), "{refused}");
}
