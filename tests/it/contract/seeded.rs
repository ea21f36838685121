//! A house in which there is one of everything, so that answers have something to say and every route has something
//! that it can be done to: payments in all states on a real chain, intents from planned to sent, a device's signature,
//! disputes, a held transfer, proposals, deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy::primitives::Address;
use amanatd::api::wire::{ClaimIntent, IntentView, PaymentView, ProposeDestination, ProposePolicy};
use amanatd::api::{DoorLimits, Rate};
use amanatd::daemon;
use amanatd::devkit::chain::PAYERS;
use amanatd::officer::{Scope, UserRole};
use amanatd::screen::{ListFile, ScreenOptions, ScreenWorker};
use amanatd::units::{PaymentId, Progress, ProposalId, parse_units};
use amanatd::webhook::Courier;
use serde_json::{Value, json};
use time::Duration;
use uuid::Uuid;

use crate::house::{answer, loopback};
use crate::watching::CHAIN;
use crate::way::Way;

/// Whoever pays from here is on the list.
const SUSPECT: Address = PAYERS[3];
const LISTED: &str = "0x3333333333333333333333333333333333333333";
const POLICY: &str = "[[rule]]\nname = \"inside\"\nkinds = [\"sweep\"]\nchain = 31337\nasset = \"USDC\"\napprovals = 1\n";

/// A request that succeeds once.
#[derive(Clone, Debug)]
pub(super) struct Good {
    pub(super) path: String,
    /// Instead of the document's example.
    pub(super) body: Option<Value>,
}

pub(super) struct Seeded {
    pub(super) way: Way,
    /// Of an admin, with every scope.
    pub(super) admin: String,
    /// Of a resolver, who alone decides about held transfers.
    pub(super) resolver: String,
    good: BTreeMap<&'static str, Vec<Good>>,
    /// Ids of what is there, by what they are of.
    pub(super) ids: BTreeMap<&'static str, Vec<String>>,
}

/// The intents of the house, by what is to be done to each. Each is of a payment of its own.
struct Intents {
    planned: IntentView,
    given_up: IntentView,
    approved: IntentView,
    claimed: IntentView,
    signed: (IntentView, String),
    stuck: [IntentView; 2],
}

impl Seeded {
    pub(super) async fn start() -> Self {
        let all = Rate { per_second: 100_000, burst: 1_000_000 };
        let limits = DoorLimits { token: all, address: all, ..DoorLimits::default() };
        let way = Way::start_within(limits).await;
        let house = &way.api;
        let person = house.user("admin", UserRole::Admin).await;
        let admin = house.token(&Scope::ALL, Some(person), 1).await;
        let judge = house.user("resolver", UserRole::Resolver).await;
        let resolver = house.token(&[Scope::PaymentsRead, Scope::DisputesResolve], Some(judge), 1).await;
        let url = json!({ "url": "http://127.0.0.1:9/hooks", "events": ["*"] });
        let webhook = answer(house.post("/v1/webhooks", &admin, "seed", url.to_string())).await.json();
        let webhook = webhook["id"].as_str().unwrap().to_owned();

        // The first seven are those whose sweeps are under way; what is ordered about the others voids what is planned.
        let mut moving = Vec::new();
        for _ in 0..7 {
            moving.push(paid(&way, "40").await);
        }
        let [releasing, refunding, quarrelling, resolving, ordered, quarantined] = [
            paid(&way, "40").await,
            paid(&way, "40").await,
            paid(&way, "40").await,
            paid(&way, "40").await,
            paid(&way, "40").await,
            paid(&way, "40").await,
        ];
        let held = way.payment("USDC", "40", 1).await;
        let units = parse_units("40", 6).unwrap();
        for hash in [
            way.chain.mint(way.usdc, SUSPECT, units).await.unwrap(),
            way.chain.transfer_token(way.usdc, SUSPECT, held.deposit_address, units).await.unwrap(),
        ] {
            way.chain.mined(hash).await.unwrap();
        }
        let partial = way.payment("USDC", "80", 1).await;
        way.pay(way.usdc, partial.deposit_address, "30").await;
        let waiting = way.payment("USDC", "12", 1).await;
        way.deepen().await;
        let screening = screened(&way).await;

        let intents = Intents::of(&way, &admin, &moving).await;
        let dispute = way.marketplace.open_dispute(resolving.id, "nothing was delivered", "seed").await.unwrap().id;
        let payout = way.marketplace.release(ordered.id, "seed").await.unwrap().payouts[0].id;
        house.base.sql(&format!("update derived_destinations set status = 'quarantined' where payment_id = '{}'", quarantined.id)).unwrap();
        let proposals = proposed(&way).await;
        let courier = Courier::new(house.db.clone(), loopback()).unwrap();
        for _ in 0..4 {
            courier.tick(daemon::now()).await.unwrap();
        }

        let mut good: BTreeMap<&'static str, Vec<Good>> = BTreeMap::new();
        let mut add =
            |operation: &'static str, path: String, body: Option<Value>| good.entry(operation).or_default().push(Good { path, body });
        let of = |payment: &PaymentView, act: &str| format!("/v1/payments/{}{act}", payment.id);
        add("payments_get", of(&releasing, ""), None);
        add("payments_list", "/v1/payments?limit=1".to_owned(), None);
        add("quotes_list", of(&releasing, "/quotes"), None);
        add("escrow_release", of(&releasing, "/release"), None);
        add("escrow_refund", of(&refunding, "/refund"), None);
        add("escrow_open_dispute", of(&quarrelling, "/disputes"), None);
        add("escrow_resolve_dispute", format!("/v1/disputes/{dispute}/resolve"), None);
        add("escrow_withdraw", format!("/v1/payments/{}/payouts/{payout}/withdraw", ordered.id), None);
        add("escrow_end_quarantine", of(&quarantined, "/quarantine"), None);
        add("escrow_accept", of(&partial, "/accept"), None);
        add("escrow_cancel", of(&waiting, "/cancel"), None);
        let on = |intent: &IntentView, act: &str| format!("/v1/intents/{}{act}", intent.id);
        add("intents_list", "/v1/intents?state=planned,approved,void".to_owned(), None);
        add("intents_get", on(&intents.planned, ""), None);
        add("policy_explain", on(&intents.planned, "/policy"), None);
        add("intents_approve", on(&intents.planned, "/approvals"), Some(json!({ "digest": intents.planned.digest })));
        add("intents_void", on(&intents.given_up, "/void"), None);
        add("signing_claim", on(&intents.approved, "/claim"), None);
        add("signing_decline", on(&intents.claimed, "/decline"), None);
        add("signing_submit_signature", on(&intents.signed.0, "/signature"), Some(json!({ "raw": intents.signed.1 })));
        add("intents_replace", on(&intents.stuck[0], "/replacement"), Some(json!({})));
        add("intents_cancel", on(&intents.stuck[1], "/cancel"), Some(json!({ "reason": "another address" })));
        add("accounts_destinations", format!("/v1/destinations?payment={}", releasing.id), None);
        let at = format!("/v1/transfers?address={}", releasing.deposit_address);
        for asked in ["&chain=31337&state=confirmed&limit=1", "&chain=1", ""] {
            add("accounts_transfers", format!("{at}{asked}"), None);
        }
        add("ledger_findings", "/v1/findings?state=all".to_owned(), None);
        add("ledger_entries", "/v1/ledger/entries?limit=1".to_owned(), None);
        for format in ["csv", "json"] {
            add("ledger_statement", format!("/v1/ledger/statement?payment_id={}&format={format}", releasing.id), None);
            add("ledger_balances_at", format!("/v1/ledger/balances?format={format}"), None);
        }
        add("events_list", "/v1/events?limit=1".to_owned(), None);
        add("screenings_list", "/v1/screenings?state=all".to_owned(), None);
        add("screenings_get", format!("/v1/screenings/{screening}"), None);
        add("screenings_decide", format!("/v1/screenings/{screening}/decision"), None);
        add("policy_proposal", format!("/v1/proposals/{}", proposals[0].0), None);
        add("policy_confirm", format!("/v1/proposals/{}/confirm", proposals[0].0), Some(json!({ "digest": proposals[0].1 })));
        add("policy_withdraw", format!("/v1/proposals/{}/withdraw", proposals[1].0), None);
        add("policy_remove_destination", format!("/v1/policies/destinations/{CHAIN}/{LISTED}/remove"), None);
        for operation in ["webhooks_get", "webhooks_secret", "webhooks_rotate", "webhooks_disable", "webhooks_enable", "webhooks_redeliver"]
        {
            let act = match operation {
                "webhooks_get" => "",
                "webhooks_secret" | "webhooks_rotate" => "/secret",
                "webhooks_disable" => "/disable",
                "webhooks_enable" => "/enable",
                _ => "/redeliver",
            };
            add(operation, format!("/v1/webhooks/{webhook}{act}"), None);
        }
        add("webhooks_deliveries", "/v1/webhook-deliveries?limit=1".to_owned(), None);
        for (operation, act) in [("webhooks_attempts", "/attempts"), ("webhooks_redeliver_one", "/redeliver")] {
            add(operation, format!("/v1/webhook-deliveries/1{act}"), None);
        }

        let payments =
            moving.iter().chain([&releasing, &refunding, &quarrelling, &resolving, &ordered, &quarantined, &held, &partial, &waiting]);
        let payments: Vec<String> = payments.map(|payment| payment.id.to_string()).collect();
        let found = way.intents("planned,approved,signing,signed,broadcast,void").await;
        let ids = BTreeMap::from([
            ("payments", payments),
            ("intents", found.iter().map(|intent| intent.id.to_string()).collect()),
            ("disputes", vec![dispute.to_string()]),
            ("payouts", vec![payout.to_string()]),
            ("webhooks", vec![webhook]),
            ("deliveries", vec!["1".to_owned(), "2".to_owned(), "3".to_owned()]),
            ("proposals", proposals.iter().map(|(id, _)| id.to_string()).collect()),
            ("screenings", vec![screening.to_string()]),
            ("addresses", vec![releasing.deposit_address.to_string(), held.deposit_address.to_string()]),
        ]);
        Self { way, admin, resolver, good, ids }
    }

    /// Requests of an operation that mean something here, by its id in the document.
    pub(super) fn good(&self, operation: &str) -> &[Good] {
        self.good.get(operation).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Intents {
    /// The fuel of each of the payments, brought to where it is wanted. Lower nonces go first.
    async fn of(way: &Way, admin: &str, moving: &[PaymentView]) -> Self {
        let of: Vec<PaymentId> = moving.iter().map(|payment| payment.id).collect();
        let mut planned = way.intents("planned").await;
        planned.retain(|intent| intent.kind == "fuel" && intent.payment_id.is_some_and(|payment| of.contains(&payment)));
        planned.sort_by_key(|intent| intent.nonce);
        let planned: [IntentView; 7] = planned.try_into().unwrap_or_else(|found: Vec<IntentView>| panic!("{found:?}"));
        let [first, second, planned, given_up, approved, claimed, signed] = planned;
        for intent in [&first, &second] {
            way.approve(intent).await;
            let raw = way.sign(intent.id).await;
            way.submit(intent.id, &raw).await;
        }
        way.broadcast(daemon::now()).await.unwrap();
        let stuck = [way.intent(first.id).await, way.intent(second.id).await];
        assert!(stuck.iter().all(|intent| intent.state == "broadcast"), "{stuck:?}");
        for intent in [&approved, &claimed, &signed] {
            way.approve(intent).await;
        }
        way.api.client(admin).claim(claimed.id, &ClaimIntent::of("desk")).await.unwrap();
        let raw = way.sign(signed.id).await.to_string();
        Self { planned, given_up, approved, claimed, signed: (signed, raw), stuck }
    }
}

async fn paid(way: &Way, amount: &str) -> PaymentView {
    let payment = way.payment("USDC", amount, 1).await;
    way.pay(way.usdc, payment.deposit_address, amount).await;
    payment
}

/// Screens what came by a list, and gives back the one transfer that is held.
async fn screened(way: &Way) -> i64 {
    let path = std::env::temp_dir().join(format!("amanatd-seeded-{}-{}.txt", std::process::id(), Uuid::new_v4()));
    std::fs::write(&path, format!("{SUSPECT}\n")).unwrap();
    let options = ScreenOptions { list: Some(Arc::new(ListFile::open(&path).unwrap())), ..ScreenOptions::default() };
    let screener = ScreenWorker::new(way.api.db.clone(), Arc::clone(&way.api.node), Arc::new((*way.spec).clone()), options);
    while screener.tick(daemon::now()).await.unwrap() == Progress::Worked {}
    std::fs::remove_file(&path).unwrap();
    let held = way.marketplace.screenings("held", None).await.unwrap().screenings;
    assert_eq!(held.len(), 1, "{held:?}");
    held[0].id
}

/// A policy that waits for a second officer, a destination that does, and one that is listed.
async fn proposed(way: &Way) -> [(i64, alloy::primitives::B256); 2] {
    let asked = ProposePolicy {
        document: POLICY.to_owned(),
        effective_at: Some(daemon::now() + Duration::days(1)),
        reason: "first rules".to_owned(),
    };
    let policy = way.officer.propose_policy(&asked).await.unwrap();
    let destination = |address: &str| ProposeDestination {
        chain_id: CHAIN.get(),
        address: address.to_owned(),
        label: "Seller".to_owned(),
        reason: "contract of May".to_owned(),
    };
    let listed = way.officer.propose_destination(&destination(LISTED)).await.unwrap();
    way.another("second").await.confirm(ProposalId(listed.id), listed.digest).await.unwrap();
    let waiting = way.officer.propose_destination(&destination("0x4444444444444444444444444444444444444444")).await.unwrap();
    [(policy.id, policy.digest), (waiting.id, waiting.digest)]
}
