//! What is decided about a payment's money, against the real database: who wins a race, what a refusal
//! leaves, what parts cost, and a reference of its own that does the same at random.

mod model;

use std::sync::Arc;

use alloy::primitives::{Address, B256, U256, address};
use amanatd::account::{self, Purpose};
use amanatd::approval;
use amanatd::broadcast;
use amanatd::broadcast::store::StationClaim;
use amanatd::chains::ChainBook;
use amanatd::daemon;
use amanatd::db::{Database, DbError, Work};
use amanatd::deposit;
use amanatd::escrow::{self, Acceptance, EscrowError, Market, Payout, PayoutState, RefundOrder, Source, Verdict};
use amanatd::intent::{self, FeeTerms, Intent, IntentError, IntentKind, IntentState};
use amanatd::ledger::posting::ConfirmedTransfer;
use amanatd::ledger::{self, AccountKey};
use amanatd::officer::{Caller, Scope, UserRole};
use amanatd::payment::{self, FeeDraft, PaymentDraft};
use amanatd::units::{ApiTokenId, AssetId, BlockNumber, IntentId, PaymentId, TokenAmount, UserId};
use axum::http::StatusCode;
use serde_json::json;
use sqlx::PgConnection;
use time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::house::{ApiHouse, answer};
use crate::watching::CHAIN;

const SELLER: &str = "0x2222222222222222222222222222222222222222";
const BUYER: Address = address!("4444444444444444444444444444444444444444");

/// What a payment is created with.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    due: u64,
    platform: (u32, u64),
    provider: (u32, u64),
    tolerance_bps: u32,
}

fn draft(asked: Asked) -> PaymentDraft {
    let shown = |units: u64| amanatd::units::format_units(U256::from(units), 6);
    let fee = |(bps, min): (u32, u64)| FeeDraft { bps: Some(bps), min: Some(shown(min)) };
    PaymentDraft {
        amount: shown(asked.due),
        currency: "USDC".to_owned(),
        chain_id: CHAIN.get(),
        token: "USDC".to_owned(),
        seller_address: SELLER.to_owned(),
        tolerance_bps: Some(asked.tolerance_bps),
        platform_fee: fee(asked.platform),
        provider_fee: fee(asked.provider),
        ..PaymentDraft::default()
    }
}

async fn insert(connection: &mut PgConnection, book: &ChainBook, asked: Asked) -> Result<PaymentId, DbError> {
    let id = PaymentId(Uuid::now_v7());
    let new = draft(asked).check(book, &[CHAIN], daemon::now()).unwrap();
    payment::store::insert(connection, id, &new).await?;
    let address = account::store::claim_deposit_address(connection).await.unwrap();
    deposit::store::insert(connection, id, &address, CHAIN, BlockNumber(1)).await?;
    Ok(id)
}

fn asset(book: &ChainBook, symbol: &str) -> AssetId {
    let spec = book.get(CHAIN).unwrap();
    spec.token_asset(spec.token(symbol).unwrap())
}

/// A confirmed transfer to a payment's address, as the bookkeeper would hand it on.
async fn transfer(
    connection: &mut PgConnection,
    payment: PaymentId,
    amount: TokenAmount,
    verdict_id: i64,
    late: bool,
) -> ConfirmedTransfer {
    let destination = deposit::store::get_by_payment(connection, payment).await.unwrap();
    ConfirmedTransfer {
        verdict_id,
        amount,
        decimals: 6,
        recipient: destination.address,
        tx_hash: B256::repeat_byte(7),
        block: BlockNumber(50),
        block_time: daemon::now() + if late { Duration::days(40) } else { Duration::ZERO },
    }
}

/// An intent for an order, as the planner would store it.
async fn plan(connection: &mut PgConnection, payout: &Payout, nonce: u64) -> Result<Intent, IntentError> {
    let account = account::store::list(connection).await?.remove(0).id;
    let from = account::store::get_operator_address(connection, account, Purpose::Treasury).await?;
    let kind = match payout.kind {
        escrow::PayoutKind::Release => IntentKind::Release,
        escrow::PayoutKind::Refund => IntentKind::Refund,
    };
    let mut intent = Intent {
        id: IntentId(Uuid::now_v7()),
        kind,
        state: IntentState::Planned,
        state_version: 1,
        revision: 1,
        from,
        to: payout.to,
        amount: payout.net(),
        nonce,
        fees: FeeTerms { gas_limit: 65_000, max_fee_per_gas: 10, max_priority_fee_per_gas: 1 },
        payment: Some(payout.payment),
        destination: None,
        digest: B256::ZERO,
        approvals_required: 1,
        approvals_expire_minutes: 1440,
        policy: None,
        revised_by: None,
        signed_revision: None,
        cancels: None,
        requested_by: payout.requested_by.clone(),
        station: None,
    };
    intent.digest = intent::digest::digest_of(&intent);
    let payment = payment::store::lock(connection, payout.payment).await?;
    intent::store::insert(connection, &intent).await?;
    escrow::planned(connection, &payment, payout, intent.id).await?;
    Ok(intent)
}

/// The rooms around a payment, over rows alone.
struct Desk {
    house: ApiHouse,
    officer: Caller,
    resolver: amanatd::officer::Resolver,
    next: std::sync::atomic::AtomicI64,
}

impl Desk {
    async fn open() -> Self {
        let house = ApiHouse::start().await;
        let person = async |name: &str, role, scope| {
            let user: UserId = house.user(name, role).await;
            house.token(&[scope], Some(user), 1).await;
            let id: Uuid = house.base.sql(&format!("select id from api_tokens where user_id = '{user}'")).unwrap().trim().parse().unwrap();
            Caller { token_id: ApiTokenId(id), token_name: name.to_owned(), scopes: vec![scope], user: Some((user, role)) }
        };
        let officer = person("officer", UserRole::Guard, Scope::IntentsApprove).await;
        let resolver = person("resolver", UserRole::Resolver, Scope::DisputesResolve).await.resolver().unwrap();
        Self { house, officer, resolver, next: std::sync::atomic::AtomicI64::new(1) }
    }

    fn next(&self) -> i64 {
        self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    fn usdc(&self, units: u64) -> TokenAmount {
        TokenAmount::new(asset(&self.house.book, "USDC"), U256::from(units))
    }

    async fn payment(&self, asked: Asked) -> PaymentId {
        let book = Arc::clone(&self.house.book);
        self.house.db.unit(move |connection| Box::pin(async move { insert(connection, &book, asked).await })).await.unwrap()
    }

    async fn credit(&self, payment: PaymentId, amount: TokenAmount, late: bool) {
        let verdict = self.next();
        let credited = self.house.db.unit::<_, ledger::LedgerError, _>(move |connection| {
            Box::pin(async move {
                let transfer = transfer(connection, payment, amount, verdict, late).await;
                ledger::credit(connection, payment, BlockNumber(1), &transfer).await
            })
        });
        credited.await.unwrap();
    }

    /// A payment that is whole.
    async fn funded(&self, asked: Asked) -> PaymentId {
        let payment = self.payment(asked).await;
        self.credit(payment, self.usdc(asked.due), false).await;
        payment
    }

    async fn release(&self, payment: PaymentId, units: Option<u64>) -> Result<Payout, EscrowError> {
        release(&self.house.db, payment, units.map(U256::from)).await
    }

    async fn refund(&self, payment: PaymentId, source: Source, units: Option<u64>) -> Result<Payout, EscrowError> {
        let book = Arc::clone(&self.house.book);
        let order = RefundOrder { payment, source, asset: None, units: units.map(U256::from), to: BUYER, by: "shop".to_owned() };
        self.house.db.unit(move |connection| Box::pin(async move { escrow::refund(connection, &order, &book).await })).await
    }

    async fn dispute(&self, payment: PaymentId) -> Result<escrow::Dispute, IntentError> {
        dispute(&self.house.db, payment).await
    }

    async fn resolve(&self, dispute: Uuid, verdict: Verdict) -> Result<escrow::Dispute, EscrowError> {
        let (book, resolver) = (Arc::clone(&self.house.book), self.resolver.clone());
        let resolved = self.house.db.unit(move |connection| {
            Box::pin(async move { escrow::resolve(connection, dispute, &verdict, "looked at", &resolver, &book).await })
        });
        resolved.await
    }

    async fn accept(&self, payment: PaymentId, less_than_due: bool) -> Result<payment::Payment, EscrowError> {
        let acceptance = Acceptance { payment, less_than_due, by: "shop".to_owned(), reason: "agreed".to_owned() };
        self.house.db.unit(move |connection| Box::pin(async move { escrow::accept(connection, &acceptance, no_market()).await })).await
    }

    async fn plan(&self, payout: &Payout) -> Intent {
        let (payout, nonce) = (payout.clone(), self.next().cast_unsigned());
        self.house.db.unit(move |connection| Box::pin(async move { plan(connection, &payout, nonce).await })).await.unwrap()
    }

    async fn approve(&self, intent: &Intent) {
        let (id, digest, caller) = (intent.id, intent.digest, self.officer.clone());
        let approved = self
            .house
            .db
            .unit(move |connection| Box::pin(async move { approval::store::insert(connection, id, digest, &caller).await.map(drop) }));
        approved.await.unwrap();
    }

    /// The payout's transaction is final, or refused by the chain.
    async fn end(&self, payout: Uuid, takes_effect: bool) {
        let ended = self.house.db.unit::<_, EscrowError, _>(move |connection| {
            Box::pin(async move {
                let payout = escrow::store::get_payout(connection, payout).await?;
                let payment = payment::store::lock(connection, payout.payment).await?;
                if !takes_effect {
                    return escrow::withdraw(connection, &payment, &payout, "reverted").await.map(drop);
                }
                let destination = deposit::store::get_by_payment(connection, payout.payment).await?;
                ledger::store::append(connection, &[moved(&payout, destination.address)]).await?;
                escrow::settled(connection, &payment, &payout, &format!("tx:{}", payout.id)).await.map(drop)
            })
        });
        ended.await.unwrap();
    }

    async fn state(&self, payment: PaymentId) -> String {
        let found = payment::store::find(&mut self.house.db.connection().await.unwrap(), payment).await.unwrap().unwrap();
        found.state.to_string()
    }

    async fn balance(&self, key: AccountKey) -> u64 {
        let asset = asset(&self.house.book, "USDC");
        ledger::store::balance(&mut self.house.db.connection().await.unwrap(), asset, key).await.unwrap().units.to()
    }

    async fn assert_sound(&self) {
        let mut connection = self.house.db.connection().await.unwrap();
        assert_eq!(ledger::store::list_drifting(&mut connection).await.unwrap(), []);
        for sides in amanatd::reconcile::sides(&self.house.db).await.unwrap() {
            assert!(sides.is_equal(), "L1: {sides:?}");
        }
    }

    /// Every row of every table but the one that notes refusals and the one that notes callers, as text.
    fn dump(&self) -> String {
        let sql = "select string_agg(table_name || query_to_xml(format('select * from %I order by 1', table_name), true, false, '')::text, '' \
             order by table_name) from information_schema.tables where table_schema = 'public' and table_name not in ('events', 'api_tokens')";
        self.house.base.sql(sql).unwrap()
    }

    fn events(&self) -> i64 {
        self.house.count("select count(*) from events")
    }
}

/// No prices: these payments are in their own token.
fn no_market() -> Market<'static> {
    Market { oracle: None, now: daemon::now() }
}

/// What a payout's transaction moves out of custody.
fn moved(payout: &Payout, from: Address) -> ledger::Entry {
    ledger::Entry {
        entry_type: match payout.kind {
            escrow::PayoutKind::Release => ledger::EntryType::Release,
            escrow::PayoutKind::Refund => ledger::EntryType::Refund,
        },
        payment: Some(payout.payment),
        amount: payout.net(),
        decimals: 6,
        debit: AccountKey::Payable(payout.payment),
        credit: AccountKey::Custody(from),
        reverses: None,
        key: format!("tx:{}:move", payout.id),
        memo: "test".to_owned(),
    }
}

async fn release(db: &Database, payment: PaymentId, units: Option<U256>) -> Result<Payout, EscrowError> {
    db.unit(move |connection| Box::pin(async move { escrow::release(connection, payment, units, "shop").await })).await
}

async fn dispute(db: &Database, payment: PaymentId) -> Result<escrow::Dispute, IntentError> {
    db.unit(move |connection| {
        Box::pin(async move { intent::open_dispute(connection, payment, "buyer", "nothing came").await }) as Work<'_, _, IntentError>
    })
    .await
}

async fn claim(db: &Database, intent: IntentId) -> Result<Intent, broadcast::BroadcastError> {
    let claim = StationClaim { station: "desk".to_owned(), take_over: false };
    db.unit(move |connection| Box::pin(async move { broadcast::store::claim(connection, intent, &claim).await })).await
}

// === races ===

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_t16_sixty_four_releases_of_one_hold_order_it_once() {
    let desk = Desk::open().await;
    let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
    let mut rivals = JoinSet::new();
    for _ in 0..64 {
        let db = desk.house.db.clone();
        rivals.spawn(async move { release(&db, payment, None).await });
    }
    let outcomes = rivals.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, EscrowError::NotEnough { there: U256::ZERO, .. }), "{refused:?}");
    }
    assert_eq!((desk.balance(AccountKey::Held(payment)).await, desk.balance(AccountKey::Payable(payment)).await), (0, 100));
    assert_eq!(desk.house.count("select count(*) from payment_payouts"), 1);

    // Of many parts, as many as fit.
    let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
    let mut rivals = JoinSet::new();
    for _ in 0..64 {
        let db = desk.house.db.clone();
        rivals.spawn(async move { release(&db, payment, Some(U256::from(7))).await });
    }
    assert_eq!(rivals.join_all().await.iter().filter(|outcome| outcome.is_ok()).count(), 14, "fourteen sevens are in a hundred");
    desk.assert_sound().await;
}

/// Races of a dispute with a release, each over a payment of its own.
const RACES: u32 = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s9_of_a_dispute_and_a_release_one_wins() {
    let desk = Desk::open().await;
    let (mut both, mut disputed, mut released) = (0, 0, 0);
    for race in 0..RACES {
        let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
        let db = desk.house.db.clone();
        let (released_won, disputed_won) = if race % 2 == 0 {
            // The order itself: a dispute after it takes it back, an order after a dispute is refused.
            let (order, frozen) = tokio::join!(release(&db, payment, None), dispute(&db, payment));
            frozen.unwrap();
            if let Err(refused) = &order {
                assert!(matches!(refused, EscrowError::Disputed { .. }), "{refused:?}");
            }
            (desk.balance(AccountKey::Payable(payment)).await > 0, desk.balance(AccountKey::Disputed(payment)).await > 0)
        } else {
            // The station that would sign it, against the dispute.
            let payout = desk.release(payment, None).await.unwrap();
            let intent = desk.plan(&payout).await;
            desk.approve(&intent).await;
            let (signing, frozen) = tokio::join!(claim(&db, intent.id), dispute(&db, payment));
            if let Err(refused) = &frozen {
                assert!(matches!(refused, IntentError::MayBeSigned(_)), "{refused:?}");
            }
            (signing.is_ok(), frozen.is_ok())
        };
        assert!(released_won || disputed_won);
        both += u32::from(released_won && disputed_won);
        disputed += u32::from(disputed_won);
        released += u32::from(released_won);
    }
    println!("{RACES} races of a dispute and a release: disputes {disputed}, releases {released}, both won {both}");
    assert_eq!(both, 0);
    assert!(disputed > 0 && released > 0, "a side that never wins was not raced");
    let live = "select count(*) from disputes d join payment_payouts y on y.payment_id = d.payment_id \
         where d.state = 'open' and y.state in ('ordered', 'planned')";
    assert_eq!(desk.house.count(live), 0);
    desk.assert_sound().await;
}

// === refusals ===

#[tokio::test]
async fn l8_a_refused_command_leaves_nothing_but_its_note() {
    let desk = Desk::open().await;
    let asked = Asked { due: 100, platform: (0, 99), ..Asked::default() };
    let pending = desk.payment(asked).await;
    let short = desk.payment(asked).await;
    desk.credit(short, desk.usdc(40), false).await;
    // Half of it is ordered out: the fee of the next unit is that unit.
    let funded = desk.funded(asked).await;
    desk.release(funded, Some(50)).await.unwrap();
    let disputed = desk.funded(asked).await;
    let case = desk.dispute(disputed).await.unwrap();
    let signing = desk.funded(asked).await;
    let payout = desk.release(signing, None).await.unwrap();
    let intent = desk.plan(&payout).await;
    desk.approve(&intent).await;
    claim(&desk.house.db, intent.id).await.unwrap();
    let unknown = PaymentId(Uuid::nil());

    let before = desk.dump();
    let noted = desk.events();
    let mut refused = 0;
    let mut unchanged = |what: &str, refusal: String| {
        assert_eq!(desk.dump(), before, "L8: {what}, refused as {refusal}, left a trace");
        refused += 1;
    };
    for (what, payment, units) in [
        ("release of nothing", pending, None),
        ("release of a part that came", short, None),
        ("release of too much", funded, Some(101)),
        ("release of zero", funded, Some(0)),
        ("release of a part that is only fees", funded, Some(1)),
        ("release of what is disputed", disputed, None),
        ("release of what is on its way", signing, None),
        ("release of an unknown payment", unknown, None),
    ] {
        unchanged(what, desk.release(payment, units).await.expect_err(what).to_string());
    }
    for (what, payment, source, units) in [
        ("refund of nothing", pending, Source::Held, None),
        ("refund of suspense that is empty", funded, Source::Suspense, None),
        ("refund of too much", funded, Source::Held, Some(101)),
        ("refund of what is disputed", disputed, Source::Held, None),
        ("refund out of a dispute", disputed, Source::Disputed, None),
        ("refund of more than came", short, Source::Received, Some(41)),
    ] {
        unchanged(what, desk.refund(payment, source, units).await.expect_err(what).to_string());
    }
    for (what, payment) in [("dispute of nothing", pending), ("second dispute", disputed), ("dispute of what may be signed", signing)] {
        unchanged(what, desk.dispute(payment).await.expect_err(what).to_string());
    }
    for (what, payment) in [("nothing to accept", pending), ("still short", short), ("no surplus", funded)] {
        unchanged(what, desk.accept(payment, false).await.expect_err(what).to_string());
    }
    for (what, verdict) in [
        ("compensation of nothing", Verdict::Compensation { units: U256::ZERO, to: BUYER }),
        ("compensation of all", Verdict::Compensation { units: U256::from(100), to: BUYER }),
        ("compensation of more than all", Verdict::Compensation { units: U256::from(101), to: BUYER }),
        ("refund to nobody", Verdict::Refund { to: Address::ZERO }),
    ] {
        unchanged(what, desk.resolve(case.id, verdict).await.expect_err(what).to_string());
    }
    unchanged("an unknown dispute", desk.resolve(Uuid::nil(), Verdict::NoAction).await.unwrap_err().to_string());
    for payment in [short, funded, disputed, signing] {
        let cancel = desk.house.db.unit(move |connection| Box::pin(async move { escrow::cancel(connection, payment, "shop").await }));
        unchanged("cancel of what came", cancel.await.unwrap_err().to_string());
    }
    assert_eq!(desk.events(), noted);

    // The same through the API: the note is the one row, and it says who, what and why.
    let shop = desk.house.marketplace().await;
    let calls = [
        (format!("/v1/payments/{pending}/release"), json!({}), "payment_state"),
        (format!("/v1/payments/{funded}/release"), json!({"amount": "0.000101"}), "not_enough"),
        (format!("/v1/payments/{disputed}/release"), json!({}), "disputed"),
        (format!("/v1/payments/{funded}/refund"), json!({"from": "suspense", "to": BUYER}), "not_enough"),
        (format!("/v1/payments/{short}/accept"), json!({"reason": "why not"}), "still_short"),
        (format!("/v1/payments/{funded}/cancel"), json!({}), "payment_state"),
        (format!("/v1/payments/{disputed}/disputes"), json!({"reason": "again"}), "disputed"),
        (format!("/v1/payments/{signing}/disputes"), json!({"reason": "stop it"}), "may_be_signed"),
        (format!("/v1/payments/{signing}/payouts/{}/withdraw", payout.id), json!({}), "payout_state"),
    ];
    for (place, (path, body, code)) in calls.into_iter().enumerate() {
        let before = desk.dump();
        let noted = desk.events();
        let refusal = answer(desk.house.post(&path, &shop, &format!("refused-{place}"), body.to_string())).await;
        assert_eq!((refusal.status, refusal.problem().code.as_str()), (StatusCode::CONFLICT, code), "{path}: {refusal:?}");
        assert_eq!(desk.dump(), before, "L8: {path} left a trace");
        let note = desk.house.base.sql("select kind, detail from events order by id desc limit 1").unwrap();
        assert_eq!(desk.events(), noted + 1, "{path}");
        assert!(note.contains("escrow.refused") && note.contains("\"why\""), "{note}");
        refused += 1;
    }
    println!("refused commands compared byte for byte: {refused}, differences 0");
    desk.assert_sound().await;
}

#[tokio::test]
async fn l6_the_database_itself_keeps_a_payment_with_money_from_failing() {
    let desk = Desk::open().await;
    let (funded, pending) =
        (desk.funded(Asked { due: 100, ..Asked::default() }).await, desk.payment(Asked { due: 100, ..Asked::default() }).await);
    desk.credit(pending, desk.usdc(5), true).await;
    for payment in [funded, pending] {
        for status in ["failed", "cancelled"] {
            let change =
                format!("set role amanat_app; update payments set escrow_state = null, status = '{status}' where id = '{payment}'");
            let refused = desk.house.base.sql(&change).unwrap_err();
            assert!(format!("{refused:?}").contains("can neither fail nor be cancelled"), "{refused:?}");
        }
    }
    let payout = desk.release(funded, Some(60)).await.unwrap();
    let refused =
        desk.house.base.sql(&format!("update payment_payouts set state = 'settled', closed_at = now() where id = '{}'", payout.id));
    assert!(format!("{:?}", refused.unwrap_err()).contains("does not go from ordered to settled"));
}

// === parts and fees ===

#[tokio::test]
async fn l6_fees_of_parts_are_the_fees_of_the_whole() {
    let desk = Desk::open().await;
    let asked = Asked { due: 1_000_003, platform: (250, 0), provider: (30, 5_000), ..Asked::default() };
    let payment = desk.funded(asked).await;
    let mut net = 0;
    for (part, state) in [(Some(333_333), "confirmed/partial"), (Some(1_001), "confirmed/partial"), (None, "completed/released")] {
        let payout = desk.release(payment, part).await.unwrap();
        desk.plan(&payout).await;
        assert_eq!(desk.state(payment).await, "confirmed/releasing");
        // Given up once and ordered anew, it costs the same.
        desk.end(payout.id, false).await;
        let payout = desk.release(payment, part).await.unwrap();
        assert_eq!(desk.state(payment).await, "confirmed/releasable");
        desk.plan(&payout).await;
        desk.end(payout.id, true).await;
        net += payout.net().units.to::<u64>();
        assert_eq!(desk.state(payment).await, state);
    }
    let (platform, provider) = (desk.balance(AccountKey::PlatformFee).await, desk.balance(AccountKey::ProviderFee).await);
    assert_eq!((platform, provider), (25_000, 5_000), "2.5 % rounded down, and the minimum");
    assert_eq!(net + platform + provider, asked.due);
    desk.assert_sound().await;
}

#[tokio::test]
async fn xc8_the_tolerance_makes_whole_and_a_surplus_within_it_calls_nobody() {
    let desk = Desk::open().await;
    let asked = Asked { due: 1_000_000, tolerance_bps: 10, ..Asked::default() };
    let (short, enough, over) = (desk.payment(asked).await, desk.payment(asked).await, desk.payment(asked).await);
    desk.credit(short, desk.usdc(998_999), false).await;
    desk.credit(enough, desk.usdc(999_000), false).await;
    desk.credit(over, desk.usdc(1_001_000), false).await;
    assert_eq!(desk.state(short).await, "processing");
    assert_eq!((desk.state(enough).await.as_str(), desk.balance(AccountKey::Held(enough)).await), ("confirmed/funded", 999_000));
    assert_eq!((desk.balance(AccountKey::Held(over)).await, desk.balance(AccountKey::Suspense(Some(over))).await), (1_000_000, 1_000));
    let open = |payment| desk.house.count(&format!("select count(*) from payment_exceptions where payment_id = '{payment}'"));
    assert_eq!((open(short), open(enough), open(over)), (1, 0, 0));
    desk.assert_sound().await;
}

// === refunds ===

#[tokio::test]
async fn xc20_money_on_another_chain_is_refunded_there() {
    let desk = Desk::open().await;
    let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
    let ethereum = desk.house.book.get(amanatd::units::ChainId::new(1).unwrap()).unwrap();
    let elsewhere = ethereum.token_asset(ethereum.token("USDC").unwrap());
    desk.credit(payment, TokenAmount::new(elsewhere, U256::from(30)), false).await;
    let open = "select kind from payment_exceptions where closed_at is null";
    assert_eq!(desk.house.base.sql(open).unwrap().trim(), "wrong_chain");

    // Not as if it were here.
    assert!(matches!(desk.refund(payment, Source::Suspense, None).await, Err(EscrowError::NotEnough { there: U256::ZERO, .. })));
    let book = Arc::clone(&desk.house.book);
    let order = RefundOrder { payment, source: Source::Suspense, asset: Some(elsewhere), units: None, to: BUYER, by: "shop".to_owned() };
    let ordered = desk.house.db.unit(move |connection| Box::pin(async move { escrow::refund(connection, &order, &book).await }));
    let payout = ordered.await.unwrap();
    assert_eq!((payout.gross, payout.to), (TokenAmount::new(elsewhere, U256::from(30)), BUYER));
    assert_eq!(desk.state(payment).await, "confirmed/funded", "it is no part of the escrow");
    let waiting =
        async |chain| escrow::store::list_ordered(&mut desk.house.db.connection().await.unwrap(), chain, Uuid::nil(), 10).await.unwrap();
    assert_eq!((waiting(CHAIN).await, waiting(ethereum.id).await), (Vec::new(), vec![payout.id]));
    desk.plan(&payout).await;
    desk.end(payout.id, true).await;
    assert_eq!(desk.house.base.sql(open).unwrap().trim(), "", "nothing of it is left to decide about");
    desk.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y2_the_same_refund_called_many_times_is_one_order() {
    let desk = Desk::open().await;
    let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
    let shop = desk.house.marketplace().await;
    let path = format!("/v1/payments/{payment}/refund");
    let body = json!({"from": "held", "to": BUYER, "amount": "0.00001"}).to_string();
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        calls.spawn(answer(desk.house.post(&path, &shop, "one-refund", body.clone())));
    }
    for call in calls.join_all().await {
        let done = call.status == StatusCode::ACCEPTED;
        assert!(done || call.problem().retryable, "{call:?}");
    }
    let again = answer(desk.house.post(&path, &shop, "one-refund", body)).await;
    assert_eq!(again.status, StatusCode::ACCEPTED);
    assert_eq!(desk.house.count("select count(*) from payment_payouts"), 1);
    assert_eq!((desk.balance(AccountKey::Held(payment)).await, desk.balance(AccountKey::Payable(payment)).await), (90, 10));
    let other = answer(desk.house.post(&path, &shop, "one-refund", json!({"from": "held", "to": BUYER}).to_string())).await;
    assert_eq!(other.problem().code, "idempotency_key_reused");
}

// === disputes ===

#[tokio::test]
async fn s9_each_resolution_moves_exactly_what_was_disputed() {
    let desk = Desk::open().await;
    let asked = Asked { due: 100, platform: (1_000, 0), ..Asked::default() };
    // Half has gone out; the dispute is about the other half.
    let disputed = async || {
        let payment = desk.funded(asked).await;
        let payout = desk.release(payment, Some(50)).await.unwrap();
        desk.plan(&payout).await;
        desk.end(payout.id, true).await;
        let dispute = desk.dispute(payment).await.unwrap();
        assert_eq!((desk.balance(AccountKey::Held(payment)).await, desk.balance(AccountKey::Disputed(payment)).await), (0, 50));
        assert_eq!(desk.state(payment).await, "confirmed/partial");
        (payment, dispute.id)
    };
    for verdict in [Verdict::Replacement, Verdict::NoAction] {
        let (payment, dispute) = disputed().await;
        desk.resolve(dispute, verdict.clone()).await.unwrap();
        assert_eq!((desk.balance(AccountKey::Held(payment)).await, desk.balance(AccountKey::Disputed(payment)).await), (50, 0));
        assert!(matches!(desk.resolve(dispute, verdict).await, Err(EscrowError::Resolved(_))));
        desk.release(payment, None).await.unwrap();
    }

    let (payment, dispute) = disputed().await;
    desk.resolve(dispute, Verdict::Refund { to: BUYER }).await.unwrap();
    let payouts = escrow::store::list_payouts(&mut desk.house.db.connection().await.unwrap(), payment).await.unwrap();
    let refund = payouts.last().unwrap();
    assert_eq!((refund.to, refund.net(), refund.source, refund.dispute), (BUYER, desk.usdc(50), Source::Disputed, Some(dispute)));
    // Given up, its money is disputed again, and only a resolver moves it.
    desk.plan(refund).await;
    desk.end(refund.id, false).await;
    assert_eq!(desk.balance(AccountKey::Disputed(payment)).await, 50);
    assert!(matches!(desk.release(payment, None).await, Err(EscrowError::Disputed { .. })));
    desk.resolve(dispute, Verdict::Compensation { units: U256::from(20), to: BUYER }).await.unwrap();
    let payouts = escrow::store::list_payouts(&mut desk.house.db.connection().await.unwrap(), payment).await.unwrap();
    let open: Vec<&Payout> = payouts.iter().filter(|payout| payout.state == PayoutState::Ordered).collect();
    assert_eq!(
        open.iter().map(|payout| (payout.gross.units.to::<u64>(), payout.net().units.to::<u64>())).collect::<Vec<_>>(),
        [(20, 20), (30, 27)]
    );
    for payout in open {
        desk.plan(payout).await;
        desk.end(payout.id, true).await;
    }
    assert_eq!(desk.state(payment).await, "completed/released");

    // All of it back.
    let payment = desk.funded(asked).await;
    let dispute = desk.dispute(payment).await.unwrap();
    desk.resolve(dispute.id, Verdict::Refund { to: BUYER }).await.unwrap();
    let payouts = escrow::store::list_payouts(&mut desk.house.db.connection().await.unwrap(), payment).await.unwrap();
    desk.plan(&payouts[0]).await;
    desk.end(payouts[0].id, true).await;
    assert_eq!(desk.state(payment).await, "refunded/refunded");
    desk.assert_sound().await;
}

#[tokio::test]
async fn s9_only_a_resolver_ends_a_dispute() {
    let desk = Desk::open().await;
    let payment = desk.funded(Asked { due: 100, ..Asked::default() }).await;
    let dispute = desk.dispute(payment).await.unwrap();
    let path = format!("/v1/disputes/{}/resolve", dispute.id);
    let body = json!({"resolution": "no_action", "note": "nothing to it"}).to_string();
    let guard = desk.house.user("guard", UserRole::Guard).await;
    for token in [desk.house.marketplace().await, desk.house.token(&[Scope::IntentsApprove], Some(guard), 1).await] {
        let refused = answer(desk.house.post(&path, &token, "k", body.clone())).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    }
    // The scope alone is given to resolvers and admins only; and whoever loses the role loses the right.
    let resolver = desk.house.user("another", UserRole::Resolver).await;
    let token = desk.house.token(&[Scope::DisputesResolve], Some(resolver), 1).await;
    desk.house.base.sql(&format!("update users set role = 'buyer' where id = '{resolver}'")).unwrap();
    assert_eq!(answer(desk.house.post(&path, &token, "k", body.clone())).await.status, StatusCode::FORBIDDEN);
    desk.house.base.sql(&format!("update users set role = 'admin' where id = '{resolver}'")).unwrap();
    for (bad, field) in [
        (json!({"resolution": "keep", "note": "n"}), "resolution"),
        (json!({"resolution": "refund", "note": "n"}), "refund_to"),
        (json!({"resolution": "compensation", "note": "n", "refund_to": BUYER}), "refund_amount"),
        (json!({"resolution": "no_action", "note": "n", "refund_to": BUYER}), "refund_to"),
        (json!({"resolution": "no_action", "note": ""}), "note"),
    ] {
        let refused = answer(desk.house.post(&path, &token, &Uuid::new_v4().to_string(), bad.to_string())).await;
        assert_eq!(refused.problem().fields[0].field, field, "{refused:?}");
    }
    let resolved = answer(desk.house.post(&path, &token, "resolved", body.clone())).await;
    assert_eq!(resolved.json()["state"], "resolved");
    // Y2: the same call again is the same answer.
    assert_eq!(answer(desk.house.post(&path, &token, "resolved", body)).await.body, resolved.body);
    assert_eq!(desk.house.count("select count(*) from events where kind = 'dispute.resolved'"), 1);
}

// === what is imported ===

#[tokio::test]
async fn every_pair_of_states_can_be_read() {
    let desk = Desk::open().await;
    let payment = desk.payment(Asked { due: 100, ..Asked::default() }).await;
    let shop = desk.house.marketplace().await;
    let mut read = 0;
    for status in ["pending", "processing", "confirmed", "completed", "failed", "cancelled", "refunded"] {
        for escrow in
            ["null", "'funded'", "'releasable'", "'released'", "'refunded'", "'releasing'", "'failed'", "'cancelled'", "'partial'"]
        {
            // As an import by the owner would leave it; pairs that the table refuses are none.
            let set = format!("update payments set status = '{status}', escrow_state = {escrow} where id = '{payment}'");
            if desk.house.base.sql(&set).is_err() {
                continue;
            }
            let found = answer(desk.house.get(&format!("/v1/payments/{payment}"), &shop)).await;
            let shown = found.json();
            assert_eq!(shown["status"], status);
            assert_eq!(shown["escrow_state"].as_str().unwrap_or("null"), escrow.trim_matches('\''));
            read += 1;
        }
    }
    assert_eq!(read, 7 + 5 * 8, "every pair that the table holds");
}
