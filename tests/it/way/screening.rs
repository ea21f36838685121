//! Whom money comes from, and what an issuer freezes: on a real chain, with a real list file, a real oracle
//! contract and a real HTTP server as the provider.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use alloy::primitives::{Address, B256, U256, keccak256};
use alloy::sol_types::SolCall;
use amanatd::api::ClientError;
use amanatd::api::wire::{ClaimIntent, DecideScreening, PaymentView, RefundPayment, ScreeningView};
use amanatd::chains::ChainSpec;
use amanatd::daemon;
use amanatd::devkit::chain::PAYERS;
use amanatd::devkit::contracts::{self, MultiSend, Sanctions, Token};
use amanatd::devkit::postgres::APP;
use amanatd::intent;
use amanatd::ledger::AccountKey;
use amanatd::metrics::{Metrics, ScreeningTotals};
use amanatd::officer::{Scope, UserRole};
use amanatd::screen::guard::Reach;
use amanatd::screen::{
    self, Answer, FreezeWatch, Hold, ListFile, Provider, ProviderOptions, ScreenError, ScreenOptions, ScreenWorker, Screener, Subject,
    Waiver,
};
use amanatd::units::{Disposition, PaymentId, Progress, TokenAmount, parse_units};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BUYER, SELLERS, Way};
use crate::watching::CHAIN;

/// Pays honestly in one test and is on the list in another.
const SUSPECT: Address = PAYERS[3];

// === tools ===

/// A file of its own, gone after the test.
struct TempList(PathBuf);

impl TempList {
    fn new(text: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let list = Self(std::env::temp_dir().join(format!("amanatd-list-{}-{number}.txt", std::process::id())));
        list.write(text);
        list
    }

    fn naming(addresses: &[Address]) -> Self {
        Self::new(&Self::text(addresses))
    }

    /// With somebody whom no test meets, so that it is never empty.
    fn text(addresses: &[Address]) -> String {
        let mut text = format!("# of a test\n{}\n", Address::repeat_byte(0xdd));
        for address in addresses {
            text.push_str(&format!("{address}\n"));
        }
        text
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    fn open(&self) -> Arc<ListFile> {
        Arc::new(ListFile::open(&self.0).unwrap())
    }
}

impl Drop for TempList {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn by_list(list: &TempList) -> ScreenOptions {
    ScreenOptions { list: Some(list.open()), ..ScreenOptions::default() }
}

fn by_provider(server: &ProviderServer, pass_below: Option<&str>) -> ScreenOptions {
    let waiver = Waiver { pass_below: pass_below.map(str::to_owned) };
    ScreenOptions { provider: Some(Arc::new(server.provider())), waiver, ..ScreenOptions::default() }
}

impl Way {
    fn screener(&self, options: ScreenOptions) -> ScreenWorker {
        self.screener_of((*self.spec).clone(), options)
    }

    fn screener_of(&self, spec: ChainSpec, options: ScreenOptions) -> ScreenWorker {
        ScreenWorker::new(self.api.db.clone(), Arc::clone(&self.api.node), Arc::new(spec), options)
    }

    fn freezes(&self) -> FreezeWatch {
        FreezeWatch::new(self.api.db.clone(), Arc::clone(&self.api.node), Arc::clone(&self.spec), Duration::ZERO)
    }

    /// A transfer from another wallet than the buyer's, in a block when this returns.
    async fn pay_from(&self, payer: Address, token: Address, to: Address, amount: &str) -> B256 {
        let units = parse_units(amount, 6).unwrap();
        let minted = self.chain.mint(token, payer, units).await.unwrap();
        self.chain.mined(minted).await.unwrap();
        let hash = self.chain.transfer_token(token, payer, to, units).await.unwrap();
        self.chain.mined(hash).await.unwrap();
        hash
    }

    /// A whole payment from a wallet, credited and past both gates, not screened.
    async fn paid_by(&self, payer: Address, amount: &str) -> PaymentView {
        let payment = self.payment("USDC", amount, 0).await;
        self.pay_from(payer, self.usdc, payment.deposit_address, amount).await;
        self.deepen().await;
        self.read(payment.id).await
    }

    async fn resolver(&self) -> amanatd::api::Client {
        let user = self.api.user("resolver", UserRole::Resolver).await;
        self.api.client(&self.api.token(&[Scope::PaymentsRead, Scope::PaymentsWrite, Scope::DisputesResolve], Some(user), 1).await)
    }

    async fn screenings(&self, state: &str) -> Vec<ScreeningView> {
        self.marketplace.screenings(state, None).await.unwrap().screenings
    }

    /// The one screening that is held.
    async fn held(&self) -> ScreeningView {
        let mut held = self.screenings("held").await;
        assert_eq!(held.len(), 1, "{held:?}");
        held.remove(0)
    }

    async fn kinds(&self) -> Vec<String> {
        self.intents("planned,approved,signing,signed,broadcast,mined").await.into_iter().map(|intent| intent.kind).collect()
    }

    fn events(&self, kind: &str) -> i64 {
        self.api.count(&format!("select count(*) from events where kind = '{kind}'"))
    }

    async fn status(&self, payment: PaymentId) -> String {
        self.read(payment).await.destination_status
    }
}

/// Ticks until nothing is left to do.
async fn screen(worker: &ScreenWorker, now: OffsetDateTime) {
    for _ in 0..100 {
        if worker.tick(now).await.unwrap() == Progress::Idle {
            return;
        }
    }
    panic!("screening never comes to rest");
}

async fn look(freezes: &FreezeWatch, now: OffsetDateTime) {
    for _ in 0..100 {
        if freezes.tick(now).await.unwrap() == Progress::Idle {
            return;
        }
    }
    panic!("a look never ends");
}

fn ruling(decision: &str, reason: &str) -> DecideScreening {
    DecideScreening { decision: decision.to_owned(), reason: reason.to_owned() }
}

fn seller(place: usize) -> Address {
    SELLERS[place].parse().unwrap()
}

fn code_of<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    outcome.unwrap_err().code().unwrap_or_default().to_owned()
}

fn key() -> String {
    Uuid::new_v4().to_string()
}

// === the list ===

#[tokio::test]
async fn xs_a_hit_holds_its_money_and_nothing_else_until_a_resolver_frees_it() {
    let way = Way::start().await;
    let list = TempList::naming(&[SUSPECT]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let bad = way.paid_by(SUSPECT, "40").await;
    let good = way.paid_by(BUYER, "60").await;
    // In the books and past both gates, but nobody has looked yet: nothing leaves.
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Held(bad.id)).await, U256::from(40_000_000));
    assert_eq!((good.escrow_state.as_deref(), way.kinds().await), (Some("funded"), Vec::new()));

    screen(&worker, daemon::now()).await;
    way.rounds().await;
    assert_eq!(way.planned("fuel").await.to_address, good.deposit_address, "the other payment goes on");
    assert_eq!((way.status(bad.id).await, way.exceptions(bad.id).await), ("quarantined".to_owned(), vec!["held".to_owned()]));
    assert_eq!((way.status(good.id).await, way.exceptions(good.id).await), ("active".to_owned(), Vec::new()));
    let held = way.held().await;
    assert_eq!(
        (held.payment_id, held.outcome.as_deref(), held.hits.clone()),
        (Some(bad.id), Some("hit"), vec![format!("list:{SUSPECT:#x}")])
    );
    assert_eq!((held.sender, held.origin), (SUSPECT, Some(SUSPECT)));
    let evidence = way.marketplace.screening(held.id).await.unwrap().verdicts.remove(0).evidence;
    assert_eq!(evidence["sha256"], screen::SanctionsList::digest(TempList::text(&[SUSPECT]).as_bytes()).to_string());
    // Told once, however often it is looked at.
    screen(&worker, daemon::now()).await;
    assert_eq!(
        (way.events("payment.screening_hit"), way.api.count("select count(*) from screening_verdicts where outcome = 'hit'")),
        (1, 1)
    );
    assert_eq!(way.halted().await, None, "a hit halts nothing else");

    // Nobody but a resolver, with a reason.
    let admin = way.api.user("admin", UserRole::Admin).await;
    let admin = way.api.client(&way.api.token(&[Scope::DisputesResolve], Some(admin), 1).await);
    let resolver = way.resolver().await;
    for client in [&way.marketplace, &admin] {
        assert_eq!(code_of(client.decide_screening(held.id, &ruling("clear", "it is fine"), &key()).await), "forbidden");
    }
    for (decision, reason) in [("clear", ""), ("clear", "  "), ("free", "it is fine")] {
        assert!(resolver.decide_screening(held.id, &ruling(decision, reason), &key()).await.is_err());
    }
    assert_eq!((way.status(bad.id).await, way.held().await.id), ("quarantined".to_owned(), held.id));
    // Confirmed: it stays.
    let confirmed = resolver.decide_screening(held.id, &ruling("confirm", "it is them"), &key()).await.unwrap();
    assert_eq!((confirmed.passes, confirmed.decision.as_deref()), (false, Some("confirmed")));
    screen(&worker, daemon::now()).await;
    assert_eq!(way.status(bad.id).await, "quarantined");

    let cleared = resolver.decide_screening(held.id, &ruling("clear", "a namesake"), &key()).await.unwrap();
    assert_eq!((cleared.passes, cleared.reason.as_deref()), (true, Some("a namesake")));
    assert_eq!((way.status(bad.id).await, way.exceptions(bad.id).await), ("active".to_owned(), Vec::new()));
    assert_eq!((way.events("payment.screening_confirmed"), way.events("payment.screening_cleared")), (1, 1));
    assert_eq!(code_of(resolver.decide_screening(held.id, &ruling("clear", "again"), &key()).await), "not_held");
    assert_eq!(code_of(resolver.decide_screening(9_999, &ruling("clear", "x"), &key()).await), "not_found");
    // The same hit does not hold it again.
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    assert_eq!(way.kinds().await, ["fuel", "fuel"]);
    way.assert_sound().await;
}

#[tokio::test]
async fn xs_the_database_lets_nobody_but_a_resolver_free_a_hit() {
    let way = Way::start().await;
    let list = TempList::naming(&[SUSPECT]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    way.paid_by(SUSPECT, "40").await;
    screen(&worker, daemon::now()).await;
    let held = way.held().await.id;
    let guard = way.api.user("guard", UserRole::Guard).await;
    let gone = way.api.user("gone", UserRole::Resolver).await;
    way.api.base.sql(&format!("update users set status = 'suspended' where id = '{gone}'")).unwrap();
    let mut app = PgConnection::connect(&way.api.base.url(APP)).await.unwrap();
    let clear =
        |by: &str| format!("cleared = hits, decision = 'cleared', decided_by = {by}, decided_at = now(), decision_reason = 'because'");
    for (set, refused) in [
        ("hits = '{}', outcome = 'clear'".to_owned(), "transfer_screenings_hits_stay"),
        ("cleared = hits".to_owned(), "transfer_screenings_resolver_decides"),
        (clear("null"), "transfer_screenings_resolver_decides"),
        (clear(&format!("'{guard}'")), "transfer_screenings_resolver_decides"),
        (clear(&format!("'{gone}'")), "transfer_screenings_resolver_decides"),
        ("outcome = 'clear'".to_owned(), "transfer_screenings_outcome_follows"),
        ("cleared = '{else}', decision = 'cleared'".to_owned(), "transfer_screenings_cleared_is_known"),
    ] {
        let statement = format!("update transfer_screenings set {set} where observation_id = {held}");
        let error = sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut app).await.unwrap_err();
        assert_eq!(error.as_database_error().and_then(|error| error.constraint()), Some(refused), "{statement}");
    }
    for forbidden in ["passes = true", "observation_id = 1", "derived_address_id = derived_address_id"] {
        let statement = format!("update transfer_screenings set {forbidden}");
        assert!(sqlx::query(AssertSqlSafe(statement)).execute(&mut app).await.is_err(), "{forbidden}");
    }
    for forbidden in ["delete from transfer_screenings", "insert into transfer_screenings (observation_id) values (1)"] {
        assert!(sqlx::query(AssertSqlSafe(forbidden.to_owned())).execute(&mut app).await.is_err(), "{forbidden}");
    }
    assert_eq!(way.held().await.id, held);
}

#[tokio::test]
async fn xs_a_list_that_changes_between_credit_and_release_is_seen_by_both() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    // Planned and approved while the buyer was on no list.
    let release = way.planned("release").await;
    way.approve(&release).await;
    list.write(&TempList::text(&[BUYER]));
    // The file has changed; until somebody has looked, the last list counts, and then at once the new one.
    screen(&worker, daemon::now()).await;
    assert_eq!(code_of(way.station.claim(release.id, &ClaimIntent::of("desk")).await), "held");
    assert_eq!(way.exceptions(payment.id).await, ["held"]);
    assert_eq!(way.status(payment.id).await, "swept", "the money is at the treasury, and its release is held");
    // Off the list again: what was hit stays hit.
    list.write(&TempList::text(&[]));
    screen(&worker, daemon::now()).await;
    assert_eq!(code_of(way.station.claim(release.id, &ClaimIntent::of("desk")).await), "held");
    let held = way.held().await.id;
    way.resolver().await.decide_screening(held, &ruling("clear", "a mistake in the list"), &key()).await.unwrap();
    let raw = way.sign(release.id).await;

    // Signed; and before the bytes are out the buyer is named again, by a list that says more.
    list.write(&format!("{}# more\n", TempList::text(&[BUYER, SUSPECT])));
    screen(&worker, daemon::now()).await;
    way.submit(release.id, &raw).await;
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "broadcast", "the same hit was cleared");
    way.assert_books().await;
}

#[tokio::test]
async fn xs_no_release_is_planned_for_money_that_is_held() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    list.write(&TempList::text(&[BUYER]));
    screen(&worker, daemon::now()).await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    assert_eq!(way.kinds().await, Vec::<String>::new());
    let held = way.held().await.id;
    way.resolver().await.decide_screening(held, &ruling("clear", "known customer"), &key()).await.unwrap();
    way.rounds().await;
    assert_eq!(way.kinds().await, Vec::<String>::new(), "nobody has looked at the seller yet");
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    assert_eq!(way.planned("release").await.payment_id, Some(payment.id));
}

#[tokio::test]
async fn xs_a_refund_to_a_listed_address_is_not_planned_until_a_resolver_frees_it() {
    let way = Way::start().await;
    let list = TempList::naming(&[SUSPECT]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    let asked = RefundPayment { from: "held".to_owned(), to: SUSPECT.to_string(), ..RefundPayment::default() };
    way.marketplace.refund(payment.id, &asked, &key()).await.unwrap();
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    assert_eq!(way.kinds().await, Vec::<String>::new());
    assert_eq!((way.status(payment.id).await, way.exceptions(payment.id).await), ("quarantined".to_owned(), vec!["held".to_owned()]));
    let mut held = way.marketplace.recipients("held", None).await.unwrap().recipients;
    assert_eq!(held.len(), 1, "{held:?}");
    let held = held.remove(0);
    assert_eq!((held.payment_id, held.address, held.outcome.as_deref()), (payment.id, SUSPECT, Some("hit")));
    assert_eq!(held.hits, [format!("list:{SUSPECT:#x}")]);
    // Told once, however often it is looked at; taken from the list, it stays a hit.
    list.write(&TempList::text(&[]));
    screen(&worker, daemon::now()).await;
    assert_eq!((way.events("payment.recipient_hit"), way.status(payment.id).await), (1, "quarantined".to_owned()));

    // Nobody but a resolver, here and in the database.
    let resolver = way.resolver().await;
    assert_eq!(code_of(way.marketplace.decide_recipient(held.id, &ruling("clear", "fine"), &key()).await), "forbidden");
    for past in [
        "update recipient_screenings set hits = '{}', outcome = 'clear'",
        "update recipient_screenings set cleared = hits, decision = 'cleared', decided_at = now(), decision_reason = 'x', \
         decided_by = (select id from users where role <> 'resolver' limit 1)",
    ] {
        assert!(way.api.base.sql(past).is_err(), "{past}");
    }
    let cleared = resolver.decide_recipient(held.id, &ruling("clear", "a namesake"), &key()).await.unwrap();
    assert!(cleared.passes);
    assert_eq!((way.status(payment.id).await, way.exceptions(payment.id).await), ("active".to_owned(), Vec::new()));
    assert_eq!(code_of(resolver.decide_recipient(held.id, &ruling("clear", "again"), &key()).await), "not_held");
    assert_eq!(code_of(resolver.decide_recipient(9_999, &ruling("clear", "x"), &key()).await), "not_found");
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.outflow("fuel").await;
    way.outflow("refund").await;
    way.assert_sound().await;
}

#[tokio::test]
async fn xs_a_planned_payout_stops_when_its_recipient_is_listed() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    let (release, _) = way.signed("release").await;
    list.write(&TempList::text(&[seller(0)]));
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.broadcast_later().await.unwrap();
    assert_eq!(way.intent(release.id).await.state, "signed", "what is signed is not sent");
    assert_eq!(way.events("payment.recipient_hit"), 1);
    let held = way.marketplace.recipients("held", None).await.unwrap().recipients.remove(0);
    way.resolver().await.decide_recipient(held.id, &ruling("clear", "known"), &key()).await.unwrap();
    way.rounds().await;
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn xs_what_was_signed_is_not_sent_once_it_is_held() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    let (fuel, raw) = way.signed("fuel").await;
    list.write(&TempList::text(&[BUYER]));
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.broadcast_later().await.unwrap();
    assert_eq!(way.intent(fuel.id).await.state, "signed");
    assert_eq!(way.api.count("select count(*) from outbound_transactions where send_attempts > 0"), 0);
    let known: Option<serde_json::Value> = way.chain.call("eth_getTransactionByHash", (keccak256(&raw),)).await.unwrap();
    assert_eq!(known, None, "no node has the bytes");
    let held = way.held().await.id;
    way.resolver().await.decide_screening(held, &ruling("clear", "known customer"), &key()).await.unwrap();
    way.rounds().await;
    assert_eq!(way.intent(fuel.id).await.state, "broadcast");
    assert_eq!(way.status(payment.id).await, "active");
}

#[tokio::test]
async fn xs_nothing_leaves_between_a_new_policy_and_the_screening_under_it() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    let fuel = way.planned("fuel").await;
    way.approve(&fuel).await;
    // The row of the policy is there; whoever wrote it died before the screening.
    let sha = "decode(repeat('ab', 32), 'hex')";
    way.api.base.sql(&format!("insert into screening_policies (chain_id, list_sha256, list_entries) values ({CHAIN}, {sha}, 1)")).unwrap();
    assert_eq!(code_of(way.station.claim(fuel.id, &ClaimIntent::of("desk")).await), "held");
    let hold = async || {
        let mut connection = way.api.db.connection().await.unwrap();
        let intent = intent::store::get(&mut connection, fuel.id).await.unwrap();
        intent::store::find_hold(&mut connection, &intent).await.unwrap()
    };
    assert_eq!(hold().await, Some(Hold::Unscreened));
    // The next process screens by what it finds.
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    assert_eq!(hold().await, None);
    way.sign(fuel.id).await;
    assert_eq!(way.exceptions(payment.id).await, Vec::<String>::new());
}

#[tokio::test]
async fn xs_a_list_that_goes_bad_stays_the_one_that_was_good() {
    let way = Way::start().await;
    let list = TempList::naming(&[SUSPECT]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    for bad in ["", "# nobody\n", "0x12\n", "<!DOCTYPE html>"] {
        list.write(bad);
        let error = worker.tick(daemon::now()).await.unwrap_err();
        assert!(matches!(&error, ScreenError::List(_)), "{error:?}");
        assert_eq!(error.disposition(), Disposition::Officer);
    }
    std::fs::remove_file(&list.0).unwrap();
    assert!(matches!(worker.tick(daemon::now()).await, Err(ScreenError::List(_))));
    assert!(ListFile::open(&list.0).is_err(), "no start without the list");
    way.paid_by(SUSPECT, "40").await;
    // The tick tells of the list after it has screened by the last good one.
    assert!(worker.tick(daemon::now()).await.is_err());
    assert_eq!(way.held().await.hits, [format!("list:{SUSPECT:#x}")]);
    assert_eq!(way.api.count("select count(*) from screening_policies where required"), 1);
}

#[tokio::test]
async fn xs_with_nothing_configured_all_is_noted_as_not_screened_and_passes() {
    let way = Way::start().await;
    let payment = way.paid_by(SUSPECT, "40").await;
    assert_eq!(way.planned("fuel").await.to_address, payment.deposit_address, "before anybody has ticked, too");
    let worker = way.screener(ScreenOptions::default());
    screen(&worker, daemon::now()).await;
    let all = way.screenings("all").await;
    assert!(all.iter().all(|row| row.passes && row.outcome.as_deref() == Some("not_screened")), "{all:?}");
    assert!(all.iter().any(|row| row.payment_id == Some(payment.id)));
    assert_eq!(way.screenings("held").await.len(), 0);
    // Switched on later, what is still here is screened; what a finished payment brought is not.
    let list = TempList::naming(&[SUSPECT]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    assert_eq!(way.held().await.payment_id, Some(payment.id));
    // Switched off again, a hit stays held.
    let worker = way.screener(ScreenOptions::default());
    screen(&worker, daemon::now()).await;
    assert_eq!(way.held().await.payment_id, Some(payment.id));
}

#[tokio::test]
async fn xs_a_sweep_that_is_given_up_ends_in_quarantine() {
    let way = Way::start().await;
    let list = TempList::naming(&[]);
    let worker = way.screener(by_list(&list));
    screen(&worker, daemon::now()).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    way.rounds().await;
    way.outflow("fuel").await;
    let sweep = way.planned("sweep").await;
    list.write(&TempList::text(&[BUYER]));
    screen(&worker, daemon::now()).await;
    assert_eq!(way.status(payment.id).await, "sweeping");
    way.officer.void(sweep.id, "held").await.unwrap();
    way.rounds().await;
    assert_eq!(way.kinds().await, Vec::<String>::new());
    screen(&worker, daemon::now()).await;
    assert_eq!(way.status(payment.id).await, "quarantined");
}

// === the oracle on the chain ===

#[tokio::test]
async fn xs_the_oracle_is_asked_about_who_signed_too() {
    let way = Way::start().await;
    let oracle = way.chain.deploy(contracts::sanctions_oracle().bytecode).await.unwrap();
    let spec = ChainSpec { sanctions_oracle: Some(oracle), ..(*way.spec).clone() };
    let by_oracle = ScreenOptions { oracle: true, ..ScreenOptions::default() };
    let worker = way.screener_of(spec.clone(), by_oracle.clone());
    screen(&worker, daemon::now()).await;
    let good = way.paid_by(BUYER, "40").await;
    screen(&worker, daemon::now()).await;
    assert_eq!(way.screenings("held").await.len(), 0);
    let clear = way.screenings("all").await.into_iter().find(|row| row.payment_id == Some(good.id)).unwrap();
    let evidence = &way.marketplace.screening(clear.id).await.unwrap().verdicts[0].evidence;
    let asked: B256 = evidence["block_hash"].as_str().unwrap().parse().unwrap();
    let head: serde_json::Value = way.chain.call("eth_getBlockByHash", (asked, false)).await.unwrap();
    assert!(!head.is_null(), "the block of the call is kept");

    // A contract pays out of its own tokens; whoever told it to is sanctioned.
    let call = Sanctions::addToSanctionsListCall { accounts: vec![SUSPECT] };
    way.as_owner(oracle, call).await;
    let sender = way.chain.deploy(contracts::multi_send().bytecode).await.unwrap();
    let units = parse_units("60", 6).unwrap();
    let minted = way.chain.mint(way.usdc, sender, units).await.unwrap();
    way.chain.mined(minted).await.unwrap();
    let payment = way.payment("USDC", "60", 0).await;
    let send = MultiSend::sendCall { token: way.usdc, recipients: vec![payment.deposit_address], values: vec![units] };
    let hash = way.chain.send(SUSPECT, sender, U256::ZERO, send.abi_encode().into()).await.unwrap();
    way.chain.mined(hash).await.unwrap();
    way.deepen().await;
    screen(&worker, daemon::now()).await;
    let held = way.held().await;
    assert_eq!((held.sender, held.origin, held.hits.clone()), (sender, Some(SUSPECT), vec![format!("oracle:{SUSPECT:#x}")]));
    assert_eq!(way.status(payment.id).await, "quarantined");

    // No contract there is no answer, and no answer is not clear.
    let nowhere = ChainSpec { sanctions_oracle: Some(Address::repeat_byte(0x99)), ..spec };
    let worker = way.screener_of(nowhere, by_oracle);
    screen(&worker, daemon::now()).await;
    let held = way.screenings("held").await.into_iter().find(|row| row.payment_id == Some(good.id)).unwrap();
    assert_eq!(held.missing, ["unavailable:oracle"]);
}

// === the provider ===

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Score(u8),
    Status(u16),
    Html,
    Redirect,
    Oversized,
    Slow,
    OtherAddress,
    Garbage,
}

struct ProviderServer {
    url: String,
    mode: Arc<Mutex<Mode>>,
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<serde_json::Value>>>,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Shared {
    mode: Arc<Mutex<Mode>>,
    calls: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<serde_json::Value>>>,
}

async fn respond(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    shared.calls.fetch_add(1, Ordering::Relaxed);
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap();
    let bearer = headers.get(header::AUTHORIZATION).unwrap().to_str().unwrap();
    assert_eq!(bearer, "Bearer canary");
    let addresses: Vec<String> = asked["addresses"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    shared.seen.lock().unwrap().push(asked);
    let scored = |score: u8| {
        let results: Vec<_> = addresses.iter().map(|address| serde_json::json!({ "address": address, "score": score })).collect();
        axum::Json(serde_json::json!({ "results": results })).into_response()
    };
    let mode = *shared.mode.lock().unwrap();
    match mode {
        Mode::Score(score) => scored(score),
        Mode::Status(status) => (StatusCode::from_u16(status).unwrap(), scored(0)).into_response(),
        Mode::Html => ([(header::CONTENT_TYPE, "text/html")], "<html>sign in</html>").into_response(),
        Mode::Redirect => (StatusCode::FOUND, [(header::LOCATION, "/clear")]).into_response(),
        Mode::Oversized => {
            let body = Body::from(format!("{{\"results\":[],\"more\":\"{}\"}}", "x".repeat(100_000)));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        // Longer than anybody waits; the connection is dropped with the client.
        Mode::Slow => std::future::pending().await,
        Mode::OtherAddress => {
            axum::Json(serde_json::json!({ "results": [{ "address": Address::repeat_byte(9), "score": 0 }] })).into_response()
        }
        Mode::Garbage => ([(header::CONTENT_TYPE, "application/json")], "{\"results\":").into_response(),
    }
}

impl ProviderServer {
    async fn start(mode: Mode) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let shared = Shared { mode: Arc::new(Mutex::new(mode)), calls: Arc::default(), seen: Arc::default() };
        let Shared { mode, calls, seen } = shared.clone();
        let clear = async || -> Response { panic!("a redirect was followed") };
        let router = axum::Router::new().route("/clear", axum::routing::any(clear)).fallback(respond).with_state(shared);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/v1/screen", listener.local_addr().unwrap().port());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, mode, calls, seen, server }
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn provider(&self) -> Provider {
        self.provider_within(Reach::Private)
    }

    fn provider_within(&self, reach: Reach) -> Provider {
        let url = if reach == Reach::Public { self.url.replace("http://", "https://") } else { self.url.clone() };
        Provider::new(ProviderOptions {
            name: "test".to_owned(),
            url: SecretString::from(url),
            token: Some(SecretString::from("canary")),
            hit_score: 75,
            reach,
            timeout: Duration::from_millis(400),
        })
        .unwrap()
    }
}

impl Drop for ProviderServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn subject(byte: u8) -> Subject {
    let asset = amanatd::units::AssetId { chain: CHAIN, asset: amanatd::units::Asset::Token(Address::repeat_byte(0x55)) };
    Subject {
        tx_hash: B256::repeat_byte(byte),
        amount: TokenAmount::new(asset, U256::from(7)),
        sender: Address::repeat_byte(byte),
        origin: Some(Address::repeat_byte(byte + 1)),
    }
}

#[tokio::test]
async fn xs_whatever_a_provider_does_wrong_is_no_answer() {
    let server = ProviderServer::start(Mode::Score(74)).await;
    let provider = server.provider();
    let one = [subject(1)];
    let Answer::Screened { hits, evidence } = provider.screen(&one).await.remove(0) else { panic!("a good answer") };
    assert!(hits.is_empty());
    assert_eq!((evidence["hit_score"].as_u64(), evidence["scores"][subject(1).sender.to_string()].as_u64()), (Some(75), Some(74)));
    server.set(Mode::Score(75));
    let Answer::Screened { hits, .. } = provider.screen(&one).await.remove(0) else { panic!("a good answer") };
    assert_eq!(hits.into_iter().collect::<BTreeSet<_>>(), one[0].addresses().into_iter().collect());
    let asked = server.seen.lock().unwrap()[0].clone();
    assert_eq!((asked["chain_id"].as_u64(), asked["amount"].as_str()), (Some(CHAIN.get()), Some("7")));

    for (mode, said) in [
        (Mode::Status(500), "HTTP status 500"),
        (Mode::Status(429), "HTTP status 429"),
        (Mode::Status(204), "HTTP status 204"),
        (Mode::Html, "not application/json"),
        (Mode::Redirect, "redirects"),
        (Mode::Oversized, "64 KiB"),
        (Mode::Slow, "timeout"),
        (Mode::OtherAddress, "other addresses"),
        (Mode::Garbage, "documented form"),
        (Mode::Score(101), "score"),
    ] {
        server.set(mode);
        let Answer::Unavailable { reason } = provider.screen(&one).await.remove(0) else { panic!("{mode:?}") };
        assert!(reason.contains(said), "{mode:?}: {reason}");
        assert!(!reason.contains("canary") && !reason.contains("localhost"), "{reason}");
    }
    // When it is down, it is not asked about each of many.
    server.set(Mode::Status(503));
    let before = server.calls();
    let many: Vec<Subject> = (1..60).map(subject).collect();
    let answers = provider.screen(&many).await;
    assert_eq!(answers.len(), many.len());
    assert!(answers.iter().all(|answer| matches!(answer, Answer::Unavailable { .. })));
    assert_eq!(server.calls() - before, 4);
}

#[tokio::test]
async fn z11_a_name_that_leads_into_our_network_is_not_followed() {
    let server = ProviderServer::start(Mode::Score(0)).await;
    let Answer::Unavailable { reason } = server.provider_within(Reach::Public).screen(&[subject(1)]).await.remove(0) else { panic!() };
    assert_eq!((reason.as_str(), server.calls()), ("it cannot be reached", 0));
}

#[tokio::test]
async fn xs_a_provider_that_is_down_holds_large_sums_and_is_asked_again() {
    let way = Way::start().await;
    let server = ProviderServer::start(Mode::Status(503)).await;
    let worker = way.screener(by_provider(&server, Some("50")));
    let now = daemon::now();
    screen(&worker, now).await;
    let small = way.paid_by(BUYER, "49.999999").await;
    let large = way.paid_by(BUYER, "50").await;
    screen(&worker, now).await;
    way.rounds().await;
    assert_eq!(way.planned("fuel").await.to_address, small.deposit_address);
    // Coin that the operator sent before there was a policy waits too; it gates nothing.
    let held = way.screenings("held").await.into_iter().find(|row| row.payment_id.is_some()).unwrap();
    assert_eq!((held.payment_id, held.missing, held.hits), (Some(large.id), vec!["unavailable:provider".to_owned()], Vec::new()));
    assert_eq!((way.status(large.id).await, way.exceptions(large.id).await), ("active".to_owned(), vec!["held".to_owned()]));
    assert_eq!((way.events("payment.screening_unavailable"), way.exceptions(small.id).await), (3, Vec::new()));
    // Not before it is due; and then silence is not worth another row or event.
    let (before, rows) = (server.calls(), way.api.count("select count(*) from screening_verdicts"));
    screen(&worker, now + Duration::from_secs(29)).await;
    assert_eq!(server.calls(), before);
    screen(&worker, now + Duration::from_secs(31)).await;
    assert!(server.calls() > before);
    assert_eq!((way.api.count("select count(*) from screening_verdicts"), way.events("payment.screening_unavailable")), (rows, 3));
    // It is back: the large one is clear and goes on, the small one's waiver is needed no more.
    server.set(Mode::Score(10));
    screen(&worker, now + Duration::from_secs(1_000)).await;
    way.rounds().await;
    assert_eq!((way.screenings("held").await.len(), way.exceptions(large.id).await), (0, Vec::new()));
    assert_eq!(way.kinds().await, ["fuel", "fuel"]);
    assert_eq!(way.api.count("select count(*) from transfer_screenings where waived"), 0);
    // What it has answered about, it is not asked again, not even by the next process.
    let before = server.calls();
    screen(&way.screener(by_provider(&server, Some("50"))), now + Duration::from_secs(2_000)).await;
    assert_eq!(server.calls(), before);
}

#[tokio::test]
async fn xs_a_resolver_frees_what_no_screener_answers_about_and_a_hit_after_that_holds_again() {
    let way = Way::start().await;
    let server = ProviderServer::start(Mode::Garbage).await;
    let worker = way.screener(by_provider(&server, None));
    let now = daemon::now();
    screen(&worker, now).await;
    let payment = way.paid_by(BUYER, "40").await;
    screen(&worker, now).await;
    way.rounds().await;
    assert_eq!((way.kinds().await.len(), way.exceptions(payment.id).await), (0, vec!["held".to_owned()]), "by default everything is held");
    let held = way.screenings("held").await.into_iter().find(|row| row.payment_id == Some(payment.id)).unwrap();
    way.resolver().await.decide_screening(held.id, &ruling("clear", "asked by telephone"), &key()).await.unwrap();
    way.rounds().await;
    assert_eq!(way.planned("fuel").await.to_address, payment.deposit_address);
    server.set(Mode::Score(99));
    screen(&worker, now + Duration::from_secs(1_000)).await;
    assert_eq!((way.status(payment.id).await, way.exceptions(payment.id).await), ("quarantined".to_owned(), vec!["held".to_owned()]));
}

// === what issuers freeze ===

#[tokio::test]
async fn t19_a_frozen_deposit_address_is_quarantined_and_nothing_is_planned() {
    let way = Way::start().await;
    let (freezes, now) = (way.freezes(), daemon::now());
    look(&freezes, now).await;
    assert_eq!(way.api.count("select count(*) from token_freezes"), 0);
    let payment = way.payment("USDT", "40", 0).await;
    way.pay(way.usdt, payment.deposit_address, "40").await;
    way.as_owner(way.usdt, Token::addBlackListCall { account: payment.deposit_address }).await;
    look(&freezes, now).await;
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"), "the money is there and in the books");
    assert_eq!((way.status(payment.id).await, way.exceptions(payment.id).await), ("quarantined".to_owned(), vec!["frozen".to_owned()]));
    assert_eq!(way.kinds().await, Vec::<String>::new(), "neither fuel nor a sweep that would revert");
    look(&freezes, now).await;
    assert_eq!((way.events("token.frozen"), way.events("payment.frozen")), (1, 1), "told once");
    let counts = screen::store::count(&mut way.api.db.connection().await.unwrap(), CHAIN).await.unwrap();
    let metrics = Metrics::new();
    metrics.screening_seen(CHAIN, ScreeningTotals { frozen: counts.frozen, ..ScreeningTotals::default() });
    assert!(metrics.render().contains("amanatd_frozen_addresses{chain=\"31337\"} 1"));

    way.as_owner(way.usdt, Token::removeBlackListCall { account: payment.deposit_address }).await;
    look(&freezes, now).await;
    assert_eq!((way.status(payment.id).await, way.exceptions(payment.id).await), ("active".to_owned(), Vec::new()));
    way.rounds().await;
    assert_eq!(way.planned("fuel").await.to_address, payment.deposit_address);
    assert_eq!(way.events("token.unfrozen"), 1);
    way.assert_sound().await;
}

#[tokio::test]
async fn t19_a_release_to_a_frozen_seller_is_neither_planned_nor_signed_nor_sent() {
    let way = Way::start().await;
    let (freezes, now) = (way.freezes(), daemon::now());
    let payment = way.releasable("40", 0).await;
    let release = way.planned("release").await;
    way.approve(&release).await;
    way.blacklist(seller(0)).await;
    look(&freezes, now).await;
    assert_eq!(way.exceptions(payment.id).await, ["frozen"]);
    assert_eq!(code_of(way.station.claim(release.id, &ClaimIntent::of("desk")).await), "held");
    assert_eq!(way.status(payment.id).await, "swept", "our own address is not frozen");
    way.officer.void(release.id, "frozen").await.unwrap();
    way.marketplace.release(payment.id, "again").await.unwrap();
    way.rounds().await;
    assert_eq!(way.kinds().await, Vec::<String>::new());
    // Another payment to the same seller is told of it as soon as it exists and somebody looks.
    let later = way.payment("USDC", "10", 0).await;
    let other = way.payment("USDC", "10", 1).await;
    look(&freezes, now).await;
    assert_eq!((way.exceptions(later.id).await, way.exceptions(other.id).await), (vec!["frozen".to_owned()], Vec::new()));

    way.as_owner(way.usdc, Token::unBlacklistCall { account: seller(0) }).await;
    look(&freezes, now).await;
    way.rounds().await;
    assert_eq!(way.exceptions(payment.id).await, Vec::<String>::new());
    let (release, raw) = way.signed("release").await;
    // Frozen again between the signature and the first send.
    way.blacklist(seller(0)).await;
    let stored = way.api.count("select send_attempts from outbound_transactions order by id desc limit 1");
    assert_eq!(stored, 0);
    look(&freezes, now).await;
    way.rounds().await;
    assert_eq!(way.intent(release.id).await.state, "signed");
    let known: Option<serde_json::Value> = way.chain.call("eth_getTransactionByHash", (keccak256(&raw),)).await.unwrap();
    assert_eq!(known, None);
    assert_eq!(way.chain.balance_of(way.usdc, seller(0)).await.unwrap(), U256::ZERO);
    way.assert_books().await;
}

#[tokio::test]
async fn t19_a_frozen_treasury_stops_sweeps_to_it_and_releases_from_it() {
    let way = Way::start().await;
    let (freezes, now) = (way.freezes(), daemon::now());
    let treasury = way.operator("treasury").await;
    way.blacklist(treasury).await;
    look(&freezes, now).await;
    let payment = way.funded("USDC", "40", 0).await;
    assert_eq!(way.kinds().await, Vec::<String>::new());
    // In another token it is free.
    let other = way.funded("USDT", "30", 0).await;
    assert_eq!(way.planned("fuel").await.to_address, other.deposit_address);
    assert_eq!(way.exceptions(payment.id).await, Vec::<String>::new(), "it is the operator's trouble: an event and a gauge");
    assert_eq!(way.events("token.frozen"), 1);
}
