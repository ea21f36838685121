//! Releases from the deposit address, sweeps that wait, fuel that is capped, and the two officers who say so.

use alloy::primitives::{Address, U256};
use amanatd::api::wire::{ClaimIntent, CreatePayment, PaymentView, ProposePlanning};
use amanatd::ledger::AccountKey;
use amanatd::units::ProposalId;

use super::{SELLERS, Way};
use crate::watching::CHAIN;

fn seller(place: usize) -> Address {
    SELLERS[place].parse().unwrap()
}

fn units(whole: u64) -> U256 {
    U256::from(whole * 1_000_000)
}

impl Way {
    /// A number of planning that two officers brought into force.
    pub(super) async fn planning(&self, name: &str, asset: Option<&str>, value: &str) {
        let asked = ProposePlanning {
            name: name.to_owned(),
            asset: asset.map(str::to_owned),
            value: value.to_owned(),
            effective_at: None,
            reason: "test".to_owned(),
        };
        let proposal = self.officer.propose_planning(CHAIN, &asked).await.unwrap();
        let other = self.another(&format!("planner of {name} {value}")).await;
        other.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    }

    async fn with_fee(&self, amount: &str, bps: u32) -> PaymentView {
        let asked = CreatePayment {
            amount: amount.to_owned(),
            currency: "USDC".to_owned(),
            chain_id: CHAIN.get(),
            token: "USDC".to_owned(),
            seller_address: SELLERS[0].to_owned(),
            platform_fee_bps: Some(bps),
            ..CreatePayment::default()
        };
        let payment = self.marketplace.create_payment(&asked, &format!("fee-{amount}-{bps}")).await.unwrap();
        self.pay(self.usdc, payment.deposit_address, amount).await;
        self.deepen().await;
        payment
    }

    async fn order(&self, payment: &PaymentView) {
        self.marketplace.release(payment.id, &format!("release-{}", payment.id)).await.unwrap();
        self.rounds().await;
    }

    async fn fuelled_if_planned(&self) {
        if self.intents("planned").await.iter().any(|intent| intent.kind == "fuel") {
            self.outflow("fuel").await;
        }
    }
}

#[tokio::test]
async fn s4_l6_a_release_is_paid_from_the_deposit_address_with_one_signature_less() {
    let way = Way::start().await;
    let (payment, other) = (way.funded("USDC", "250", 0).await, way.funded("USDC", "90", 1).await);
    let asset = way.token(way.usdc);
    // Ordered while the fuel for its sweep waits: what the fuel reaches is paid out, not swept.
    way.order(&payment).await;
    let fuel = way.intents("planned").await.into_iter().find(|intent| intent.payment_id == Some(payment.id)).unwrap();
    way.approve(&fuel).await;
    let raw = way.sign(fuel.id).await;
    way.submit(fuel.id, &raw).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    let planned = way.intents("planned").await;
    let release = planned.iter().find(|intent| intent.kind == "release").unwrap();
    assert_eq!((release.from_address, release.to_address), (payment.deposit_address, seller(0)));
    assert_eq!(release.amount_units, "250000000");
    assert!(!planned.iter().any(|intent| intent.kind == "sweep" && intent.payment_id == Some(payment.id)));
    way.approve(release).await;
    let raw = way.sign(release.id).await;
    way.submit(release.id, &raw).await;
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;

    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), units(250));
    let after = way.read(payment.id).await;
    assert_eq!((after.status.as_str(), after.escrow_state.as_deref()), ("completed", Some("released")));
    // Nothing is left there, so it is done with, and no sweep was made of it.
    assert_eq!(after.destination_status, "swept");
    assert_eq!(way.api.count("select count(*) from derived_destination_sweeps"), 0);
    assert_eq!(way.balance(asset, AccountKey::Payable(payment.id)).await, U256::ZERO);
    assert_eq!(way.balance(asset, AccountKey::Custody(payment.deposit_address)).await, U256::ZERO);
    // The entry of the release credits the address that paid.
    let of = format!(
        "select count(*) from funds_ledger_entries e join ledger_accounts a on a.id = e.credit_account_id \
        where e.entry_type = 'release' and a.kind = 'custody' and a.address = '\\x{:x}'",
        payment.deposit_address
    );
    assert_eq!(way.api.count(&of), 1);
    // Another payment's money is where it was.
    assert_eq!(way.balance(asset, AccountKey::Custody(other.deposit_address)).await, units(90));
    assert_eq!(way.balance(asset, AccountKey::Held(other.id)).await, units(90));
    way.assert_sound().await;
}

#[tokio::test]
async fn l6_fees_stay_at_the_deposit_address_until_they_are_worth_a_sweep() {
    let way = Way::start().await;
    way.planning("sweep_min_millionths", Some("USDC"), "5").await;
    let payment = way.with_fee("100", 250).await;
    way.order(&payment).await;
    way.outflow("fuel").await;
    let release = way.outflow("release").await;
    assert_eq!((release.from_address, release.amount_units.as_str()), (payment.deposit_address, "97500000"));
    let asset = way.token(way.usdc);
    let there = AccountKey::Custody(payment.deposit_address);
    assert_eq!(way.balance(asset, there).await, U256::from(2_500_000));
    assert_eq!(way.balance(asset, AccountKey::PlatformFee).await, U256::from(2_500_000));
    let after = way.read(payment.id).await;
    assert_eq!((after.status.as_str(), after.destination_status.as_str()), ("completed", "active"));
    assert!(way.intents("planned").await.is_empty(), "2.5 are dust below 5");
    way.assert_sound().await;

    // The officers think otherwise: it is swept, and the fees are at the treasury.
    way.planning("sweep_min_millionths", Some("USDC"), "2.5").await;
    way.rounds().await;
    way.fuelled_if_planned().await;
    assert_eq!(way.outflow("sweep").await.amount_units, "2500000");
    assert_eq!(way.read(payment.id).await.destination_status, "swept");
    assert_eq!(way.balance(asset, AccountKey::Custody(way.operator("treasury").await)).await, U256::from(2_500_000));
    assert_eq!(way.api.count("select count(*) from derived_destination_sweeps"), 1);
    way.assert_sound().await;
}

#[tokio::test]
async fn s4_auto_sweeps_first_where_what_stays_would_be_swept_anyway() {
    let way = Way::start().await;
    // A fee that is worth a sweep makes both ways cost the same: then the treasury pays, as before.
    let payment = way.with_fee("100", 250).await;
    way.order(&payment).await;
    way.outflow("fuel").await;
    assert_eq!(way.outflow("sweep").await.amount_units, "100000000");
    assert_eq!(way.outflow("release").await.from_address, way.operator("treasury").await);
    way.assert_sound().await;
}

#[tokio::test]
async fn s4_an_order_never_takes_what_another_payment_brought() {
    let way = Way::start().await;
    // The treasury is rich with the money of another.
    let rich = way.funded("USDC", "500", 1).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    let asset = way.token(way.usdc);
    for path in ["direct", "auto", "treasury"] {
        way.planning("release_path", None, path).await;
        let payment = way.payment("USDC", "40", 0).await;
        way.pay(way.usdc, payment.deposit_address, "40").await;
        way.deepen().await;
        way.order(&payment).await;
        for intent in way.intents("planned").await {
            assert!(intent.kind == "fuel", "{path}: {intent:?}");
        }
        let before = way.chain.balance_of(way.usdc, seller(0)).await.unwrap();
        way.outflow("fuel").await;
        if path == "treasury" {
            way.outflow("sweep").await;
        }
        let release = way.outflow("release").await;
        assert_eq!(release.from_address == payment.deposit_address, path != "treasury", "{path}");
        assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap() - before, units(40));
        assert_eq!(way.balance(asset, AccountKey::Custody(way.operator("treasury").await)).await, units(500), "{path}");
        assert_eq!(way.balance(asset, AccountKey::Held(rich.id)).await, units(500));
        way.assert_sound().await;
    }
}

#[tokio::test]
async fn s4_two_parts_of_one_payment_leave_its_address_one_after_the_other() {
    let way = Way::start().await;
    way.planning("release_path", None, "direct").await;
    let payment = way.funded("USDC", "100", 0).await;
    assert!(way.intents("planned").await.is_empty(), "what waits in escrow is not swept");
    for part in ["60", "40"] {
        way.marketplace.release_part(payment.id, Some(part), part).await.unwrap();
    }
    way.rounds().await;
    way.outflow("fuel").await;
    for amount in ["60000000", "40000000"] {
        let intents = way.intents("planned").await;
        let release = intents.first().unwrap();
        assert_eq!((release.kind.as_str(), release.amount_units.as_str()), ("release", amount), "{intents:?}");
        way.approve(release).await;
        let raw = way.sign(release.id).await;
        way.submit(release.id, &raw).await;
        way.rounds().await;
        way.chain.mine(1).await.unwrap();
        way.rounds().await;
        way.deepen().await;
        way.fuelled_if_planned().await;
    }
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), units(100));
    assert_eq!(way.read(payment.id).await.destination_status, "swept");
    way.assert_sound().await;
}

#[tokio::test]
async fn w6_a_direct_release_cannot_pay_out_what_a_reorg_took() {
    let way = Way::start().await;
    way.planning("release_path", None, "direct").await;
    let payment = way.payment("USDC", "40", 0).await;
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    way.order(&payment).await;
    way.outflow("fuel").await;
    let (release, raw) = way.signed("release").await;
    // The block with the deposit leaves the chain, and the signed bytes are with somebody.
    way.chain.reorg(10, Vec::new()).await.unwrap();
    let _ = way.api.node.send_raw(&raw).await;
    way.chain.mine(1).await.unwrap();
    let _ = way.try_rounds().await;
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::ZERO);
    assert_ne!(way.intent(release.id).await.state, "settled");
    way.assert_books().await;
}

#[tokio::test]
async fn deposits_wait_for_a_batch_by_amount_and_age_and_an_order_waits_for_nothing() {
    let way = Way::start().await;
    way.planning("sweep_after_minutes", None, "60").await;
    way.planning("sweep_now_millionths", Some("USDC"), "200").await;
    way.planning("release_path", None, "treasury").await;
    let small = way.funded("USDC", "50", 0).await;
    assert!(way.intents("planned").await.is_empty(), "young and small");
    let large = way.funded("USDC", "200", 1).await;
    assert_eq!(way.planned("fuel").await.payment_id, Some(large.id));
    way.outflow("fuel").await;
    assert_eq!(way.outflow("sweep").await.payment_id, Some(large.id));
    assert!(way.intents("planned").await.is_empty());
    // Old enough.
    way.planning("sweep_after_minutes", None, "0").await;
    way.rounds().await;
    let fuel = way.planned("fuel").await;
    assert_eq!(fuel.payment_id, Some(small.id));
    way.officer.void(fuel.id, "later").await.unwrap();
    way.planning("sweep_after_minutes", None, "600").await;
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty());
    // An order wants it.
    way.order(&small).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.outflow("release").await;
    assert_eq!(way.read(small.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn fuel_keeps_to_its_caps() {
    let way = Way::start().await;
    // A tenth of what anything costs.
    way.planning("fuel_max_gwei", None, "1").await;
    let first = way.funded("USDC", "50", 0).await;
    assert!(way.intents("planned").await.is_empty(), "no fuel is of use below its cap");
    way.planning("fuel_max_gwei", None, "0").await;
    way.rounds().await;
    let fuel = way.outflow("fuel").await;
    // So much is left of the day as no fuel is: fees fall from block to block, but not to that.
    let gwei = fuel.amount_units.parse::<U256>().unwrap() / U256::from(1_000_000_000);
    way.planning("fuel_day_max_gwei", None, &(gwei + U256::from(1)).to_string()).await;
    way.outflow("sweep").await;
    way.funded("USDC", "50", 1).await;
    assert!(way.intents("planned").await.is_empty());
    way.planning("fuel_day_max_gwei", None, "0").await;
    way.rounds().await;
    way.planned("fuel").await;
    assert_eq!(way.read(first.id).await.destination_status, "swept");
}

#[tokio::test]
async fn s6_numbers_of_planning_take_two_officers_and_keep_their_history() {
    let way = Way::start().await;
    let asked = |name: &str, value: &str, asset: Option<&str>| ProposePlanning {
        name: name.to_owned(),
        asset: asset.map(str::to_owned),
        value: value.to_owned(),
        effective_at: None,
        reason: "fewer presses".to_owned(),
    };
    let proposal = way.officer.propose_planning(CHAIN, &asked("release_path", "direct", None)).await.unwrap();
    assert!(proposal.lines[0].contains("planning:release_path:31337 to 1"), "{:?}", proposal.lines);
    assert_eq!(way.officer.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap_err().code(), Some("forbidden"));
    let path = |rows: &[amanatd::api::wire::PlanningNumberView]| {
        rows.iter().find(|row| row.name == "release_path").map(|row| (row.value.clone(), row.history_id.is_some()))
    };
    assert_eq!(path(&way.officer.planning(CHAIN, false).await.unwrap()), Some(("auto".to_owned(), false)), "nothing has changed");
    let other = way.another("second").await;
    // Fifty clicks at once.
    let clicks = (0..50).map(|_| other.confirm(ProposalId(proposal.id), proposal.digest));
    let done = futures_util::future::join_all(clicks).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(done, 1);
    assert_eq!(path(&way.officer.planning(CHAIN, false).await.unwrap()), Some(("direct".to_owned(), true)));
    let history = way.officer.planning(CHAIN, true).await.unwrap();
    assert_eq!((history.len(), history[0].reason.as_deref()), (1, Some("fewer presses")));
    for (bad, field) in [
        (asked("release_path", "both", None), "value"),
        (asked("release_path", "direct", Some("USDC")), "asset"),
        (asked("sweep_min_millionths", "5", None), "asset"),
        (asked("sweep_min_millionths", "5", Some("DOGE")), "asset"),
        (asked("fuel_below_pct", "99", None), "value"),
        (asked("speed", "1", None), "name"),
    ] {
        let error = way.officer.propose_planning(CHAIN, &bad).await.unwrap_err();
        assert_eq!(error.code(), Some("invalid_fields"), "{bad:?}");
        assert!(format!("{error:?}").contains(field), "{error:?}");
    }
}

#[tokio::test]
async fn the_plan_says_what_the_queue_takes_each_way() {
    let way = Way::start().await;
    let empty = &way.officer.plan(Some(CHAIN)).await.unwrap()[0];
    assert_eq!((empty.payments, empty.orders, empty.standing.confirmations), (0, 0, 0));
    assert!(empty.ways.iter().all(|way| way.tally.confirmations == 0 && way.tally.fee_units == "0"));
    // Three orders whose money waits, and nothing planned yet.
    way.planning("sweep_after_minutes", None, "600").await;
    way.planning("release_path", None, "treasury").await;
    let mut payments = Vec::new();
    for (amount, seller) in [("50", 0), ("60", 1), ("70", 2)] {
        payments.push(way.funded("USDC", amount, seller).await);
    }
    for payment in &payments {
        way.marketplace.release(payment.id, &format!("release-{}", payment.id)).await.unwrap();
    }
    let plan = &way.officer.plan(Some(CHAIN)).await.unwrap()[0];
    assert_eq!((plan.payments, plan.orders), (3, 3));
    let of = |name: &str| plan.ways.iter().find(|way| way.name == name).unwrap().tally.clone();
    let (plain, direct, disperse) = (of("sweep, then release"), of("direct release"), of("disperse"));
    assert_eq!((plain.confirmations, direct.confirmations, disperse.confirmations), (9, 6, 7));
    assert_eq!((plain.presses, direct.presses), (36, 24));
    assert!(plain.fee_units.parse::<U256>().unwrap() > direct.fee_units.parse::<U256>().unwrap());
    assert_eq!(of("direct release + disperse").confirmations, 4);
    // Planned, they stand whatever is chosen.
    way.rounds().await;
    let plan = &way.officer.plan(None).await.unwrap()[0];
    assert_eq!((plan.payments, plan.standing.confirmations), (0, 3));
}

#[tokio::test]
async fn s6_s1_fifty_officers_and_fifty_stations_at_once_make_one_transaction() {
    let way = Way::start().await;
    way.releasable("40", 0).await;
    let release = way.planned("release").await;
    let mut officers = Vec::new();
    for number in 0..50 {
        officers.push(way.another(&format!("officer {number}")).await);
    }
    let clicks = futures_util::future::join_all(officers.iter().map(|officer| officer.approve(release.id, release.digest))).await;
    assert_eq!(clicks.iter().filter(|click| click.is_ok()).count(), 1, "the one that was asked for");
    assert_eq!(way.intent(release.id).await.state, "approved");
    assert_eq!(way.api.count(&format!("select count(*) from intent_approvals where intent_id = '{}'", release.id)), 1);
    let names: Vec<String> = (0..50).map(|number| format!("desk {number}")).collect();
    let claims = names.iter().map(|name| async { way.station.claim(release.id, &ClaimIntent::of(name)).await });
    let claimed = futures_util::future::join_all(claims).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(claimed, 1, "one station has it");
    println!("50 approvals and 50 claims at once: {} approved it, {claimed} station has it", way.intent(release.id).await.state);
}
