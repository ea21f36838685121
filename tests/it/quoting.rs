//! Quotes from end to end: venues that answer over real HTTP in their recorded shapes, feeds of a real JSON-RPC
//! node, a real database, and payments created over the API. What is refused leaves nothing behind.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use alloy::primitives::{Address, I256, U256, address};
use amanatd::api::wire::{PaymentView, QuoteView, RequoteView};
use amanatd::chains::ChainBook;
use amanatd::quote::evidence::differences;
use amanatd::quote::observation::Invalid;
use amanatd::quote::source::Ask;
use amanatd::quote::source::http::{VenueClient, VenueLimits};
use amanatd::quote::{self, Asked, Oracle, QuoteError, Refusal, Remembered, SourceOptions};
use amanatd::settings::{self, ChangeNote, NewNumber, SettingsError};
use amanatd::units::{Currency, PaymentId};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, Weekday};
use tokio::task::JoinHandle;

use crate::house::{Answer, ApiHouse, NOBODY, Pricing, answer};
use crate::scripted::{Reply, ScriptedNode};
use crate::watching::CHAIN;

const SELLER: &str = "0x2222222222222222222222222222222222222222";

/// Noon of the next Wednesday: tokens are alive, and foreign exchange is open.
fn wednesday() -> i64 {
    let mut day = amanatd::daemon::now().date().next_day().unwrap();
    while day.weekday() != Weekday::Wednesday {
        day = day.next_day().unwrap();
    }
    day.with_hms(12, 0, 0).unwrap().assume_utc().unix_timestamp()
}

/// A clock that this test alone moves.
macro_rules! clock {
    ($now:ident, $read:ident) => {
        static $now: AtomicI64 = AtomicI64::new(0);
        fn $read() -> OffsetDateTime {
            OffsetDateTime::from_unix_timestamp($now.load(Ordering::Relaxed)).unwrap()
        }
        $now.store(wednesday(), Ordering::Relaxed);
    };
}

// === venues ===

type Bodies = Arc<Mutex<HashMap<String, (u16, String)>>>;

/// Every venue at one address: bodies by path.
struct Venues {
    url: String,
    bodies: Bodies,
    server: JoinHandle<()>,
}

async fn respond(State(bodies): State<Bodies>, uri: Uri) -> Response {
    let path = uri.path_and_query().map(|path| path.as_str().to_owned()).unwrap_or_default();
    match bodies.lock().unwrap().get(&path).cloned() {
        Some((status, body)) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        None => (StatusCode::NOT_FOUND, format!("nothing at {path}")).into_response(),
    }
}

impl Venues {
    async fn start() -> Self {
        let bodies = Bodies::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(respond).with_state(Arc::clone(&bodies));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, bodies, server }
    }

    fn says(&self, path: &str, body: impl ToString) {
        self.bodies.lock().unwrap().insert(path.to_owned(), (200, body.to_string()));
    }

    fn fails(&self, path: &str, status: u16) {
        self.bodies.lock().unwrap().insert(path.to_owned(), (status, "no".to_owned()));
    }

    /// Kraken's and Bitstamp's USDC and USDT and EUR, Coinbase's USDT, a bit around a middle, as of an instant.
    fn prices(&self, now: OffsetDateTime, usdc: &str, usdt: &str, euro: &str) {
        self.kraken(&[("USDCUSD", usdc), ("USDTUSD", usdt), ("ZEURZUSD", euro), ("XETHZUSD", "1999")], now);
        for (symbol, pair, price) in
            [("usdcusd", "USDC/USD", usdc), ("usdtusd", "USDT/USD", usdt), ("eurusd", "EUR/USD", euro), ("ethusd", "ETH/USD", "2000")]
        {
            self.bitstamp(symbol, pair, price, now);
        }
        for (symbol, price) in [("USDT-USD", usdt), ("ETH-USD", "2001")] {
            let body = json!({ "trade_id": 1, "price": price, "size": "1", "volume": "1", "bid": price, "ask": price,
                "time": now.format(&time::format_description::well_known::Rfc3339).unwrap() });
            self.says(&format!("/products/{symbol}/ticker"), body);
        }
        self.euro_bank(now, euro);
    }

    fn kraken(&self, prices: &[(&str, &str)], now: OffsetDateTime) {
        let book =
            |price: &str| json!({ "a": [price, "1", "1.000"], "b": [price, "2", "2.000"], "c": [now.unix_timestamp().to_string(), price] });
        let result: serde_json::Map<String, Value> = prices.iter().map(|(key, price)| ((*key).to_owned(), book(price))).collect();
        self.says(KRAKEN, json!({ "error": [], "result": result }));
    }

    fn bitstamp(&self, symbol: &str, pair: &str, price: &str, at: OffsetDateTime) {
        let body = json!({ "timestamp": at.unix_timestamp().to_string(), "bid": price, "ask": price, "last": price, "pair": pair });
        self.says(&format!("/api/v2/ticker/{symbol}/"), body);
    }

    fn euro_bank(&self, now: OffsetDateTime, euro: &str) {
        let body = format!(
            "<Cube><Cube time='{}'><Cube currency='USD' rate='{euro}'/><Cube currency='TRY' rate='44.1'/></Cube></Cube>",
            (now - Duration::days(1)).date()
        );
        self.says("/stats/eurofxref/eurofxref-daily.xml", body);
    }

    /// Only these venues, all of them here.
    fn options(&self, names: &[&str]) -> BTreeMap<String, SourceOptions> {
        let of = |name: &str| SourceOptions {
            enabled: Some(names.contains(&name)),
            url: Some(self.url.clone()),
            requests_per_minute: Some(60_000),
            ..SourceOptions::default()
        };
        let book = book("");
        book.prices().venues().iter().map(|venue| (venue.name.clone(), of(&venue.name))).collect()
    }
}

impl Drop for Venues {
    fn drop(&mut self) {
        self.server.abort();
    }
}

const KRAKEN: &str = "/0/public/Ticker?pair=USDCUSD,USDTUSD,ETHUSD,EURUSD";

/// The shipped chain book, with feeds on the local chain.
fn book(local: &str) -> ChainBook {
    ChainBook::parse(&include_str!("../../chains.toml").replace("name = \"Local\"\n", &format!("name = \"Local\"\n{local}"))).unwrap()
}

// === a shop that quotes ===

struct Shop {
    house: ApiHouse,
    venues: Venues,
    token: String,
    now: &'static AtomicI64,
}

impl Shop {
    async fn open(now: &'static AtomicI64, clock: fn() -> OffsetDateTime) -> Self {
        Self::open_with(now, clock, &["kraken", "coinbase", "bitstamp", "ecb"]).await
    }

    async fn open_with(now: &'static AtomicI64, clock: fn() -> OffsetDateTime, sources: &[&str]) -> Self {
        let venues = Venues::start().await;
        let sources = Some(venues.options(sources));
        let house = ApiHouse::pricing(NOBODY, 8, Pricing { book: book(""), sources, clock }).await;
        house.read_up_to_100().await;
        let scopes = [amanatd::officer::Scope::PaymentsRead, amanatd::officer::Scope::PaymentsWrite];
        let token = house.token(&scopes, None, 30).await;
        Self { house, venues, token, now }
    }

    fn at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.now.load(Ordering::Relaxed)).unwrap()
    }

    fn wait(&self, seconds: i64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    /// One round, and the time until the next has passed.
    async fn round(&self) {
        self.house.oracle.as_ref().unwrap().tick(&self.house.db, self.at()).await.unwrap();
        self.wait(20);
    }

    /// Rounds at these prices until they are accepted.
    async fn settle(&self, usdc: &str, usdt: &str, euro: &str) {
        for _ in 0..2 {
            self.venues.prices(self.at(), usdc, usdt, euro);
            self.round().await;
        }
        self.venues.prices(self.at(), usdc, usdt, euro);
        self.round().await;
    }

    async fn set(&self, key: &str, value: i64) {
        let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
        let change = NewNumber { key: key.to_owned(), value, effective_at: None, description: "test", note };
        let set = self.house.db.unit::<_, SettingsError, _>(move |connection| {
            Box::pin(async move { settings::store::set_number(connection, &change).await.map(drop) })
        });
        set.await.unwrap();
        // Settings are dated by the database, whose time is the real one.
    }

    async fn create(&self, key: &str, amount: &str, currency: &str, token: &str) -> Answer {
        let body = json!({ "amount": amount, "currency": currency, "chain_id": 31337, "token": token, "seller_address": SELLER });
        answer(self.house.post("/v1/payments", &self.token, key, body.to_string())).await
    }

    async fn pay_view(&self, key: &str, amount: &str, currency: &str, token: &str) -> PaymentView {
        let created = self.create(key, amount, currency, token).await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
        serde_json::from_str(&created.body).unwrap()
    }

    /// Refused with this code, and not a row is left.
    async fn refused(&self, key: &str, currency: &str, token: &str, status: StatusCode, code: &str) -> String {
        let before = (self.house.stored(), self.house.count("select count(*) from payment_quotes"));
        let refused = self.create(key, "100", currency, token).await;
        assert_eq!((refused.status, refused.problem().code.as_str()), (status, code), "{refused:?}");
        assert_eq!((self.house.stored(), self.house.count("select count(*) from payment_quotes")), before);
        refused.problem().detail
    }

    async fn quotes_differing(&self) -> (usize, Vec<&'static str>) {
        let mut connection = self.house.db.connection().await.unwrap();
        let all = quote::store::list(&mut connection, None, None, 1_000).await.unwrap();
        let mut found = Vec::new();
        for stored in &all {
            assert_eq!(stored.unreadable, None);
            found.extend(differences(stored.quote.as_ref().unwrap(), stored.evidence.as_ref()));
        }
        (all.len(), found)
    }
}

#[tokio::test]
async fn q1_a_priced_payment_is_quoted_stored_and_computed_again() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.set("depeg_halt_bps", 1_500).await;
    shop.settle("0.8774", "1.0053", "1.0586").await;
    let payment = shop.pay_view("usd", "100", "USD", "USDC").await;
    let quote = payment.quote.clone().unwrap();
    assert_eq!((payment.amount.as_str(), payment.amount_units.as_str()), ("113.973103", "113973103"));
    assert_eq!((quote.settle_amount.as_str(), quote.depeg_adjustment_bps, quote.peg_state.as_str()), ("113.973103", 1_397, "below_peg"));
    assert_eq!((quote.amount.as_str(), quote.currency.as_str(), quote.kind.as_str()), ("100", "USD", "priced"));
    // Adjusted: five minutes, and two more for the block.
    assert_eq!((quote.expires_at - quote.quoted_at, payment.expires_at - quote.expires_at), (Duration::minutes(5), Duration::minutes(2)));

    // A token above its peg is taken at its peg; the other one is a currency marked to market.
    let crossed = shop.pay_view("usdc", "100", "USDC", "USDT").await.quote.unwrap();
    assert_eq!(
        (crossed.settle_amount.as_str(), crossed.peg_state.as_str(), crossed.fx_rate.as_str()),
        ("87.74", "above_peg", "0.877400000000000000")
    );
    let euro = shop.pay_view("eur", "100", "EUR", "USDC").await.quote.unwrap();
    assert_eq!(euro.settle_amount, "120.651927");
    // Nobody is asked for a payment in its own token.
    let plain = shop.pay_view("same", "100.5", "USDC", "USDC").await.quote.unwrap();
    assert_eq!((plain.kind.as_str(), plain.fx_rate.as_str(), plain.settle_amount.as_str()), ("identity", "1.000000000000000000", "100.5"));

    assert_eq!(shop.quotes_differing().await, (4, Vec::new()));
    let listed = answer(shop.house.get(&format!("/v1/payments/{}/quotes", payment.id), &shop.token)).await;
    let listed: Vec<QuoteView> = serde_json::from_str(&listed.body).unwrap();
    let evidence = listed[0].evidence.as_ref().unwrap();
    let sources: Vec<&str> =
        evidence["token"]["input"]["observations"].as_array().unwrap().iter().map(|seen| seen["source"].as_str().unwrap()).collect();
    assert_eq!(sources, ["kraken", "bitstamp"]);
    assert_eq!(evidence["token"]["verdicts"], json!(["used", "used"]));
    assert_eq!(evidence["token"]["memory_after"]["depeg"]["state"], "adjusted");
}

#[tokio::test]
async fn q6_a_quote_never_changes_and_a_changed_one_is_found() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.settle("0.9990", "1", "1.0586").await;
    shop.pay_view("one", "100", "EUR", "USDC").await;
    for statement in ["update payment_quotes set settle_amount = 1", "delete from payment_quotes", "truncate payment_quotes"] {
        let refused = shop.house.base.sql(statement).unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{statement}: {refused}");
    }
    let as_app = sqlx_refused(&shop, "update payment_quotes set token = 'X'").await;
    assert!(as_app.contains("permission denied"), "{as_app}");
    // Whoever switches the guard off is found by computing again.
    let tampered = [
        ("evidence = jsonb_set(evidence, '{token,input,observations,0,price}', '\"0.9991\"')", "the token's round"),
        ("evidence = jsonb_set(evidence, '{fx,memory_after,last_price_s}', '1')", "the currency's round"),
        ("machine_state = 'adjusted'", "machine_state"),
        ("depeg_adjustment_bps = 1", "depeg_adjustment_bps"),
    ];
    for (change, found) in tampered {
        let statement = format!(
            "begin; alter table payment_quotes disable trigger all; create table kept as select * from payment_quotes; \
             update payment_quotes set {change}; alter table payment_quotes enable always trigger payment_quotes_no_update; commit"
        );
        shop.house.base.sql(&statement).unwrap();
        let (_, differing) = shop.quotes_differing().await;
        assert!(differing.contains(&found), "{change}: {differing:?}");
        shop.house
            .base
            .sql(
                "begin; alter table payment_quotes disable trigger all; \
                 update payment_quotes q set evidence = k.evidence, machine_state = k.machine_state, \
                 depeg_adjustment_bps = k.depeg_adjustment_bps from kept k where k.id = q.id; drop table kept; commit",
            )
            .unwrap();
        assert_eq!(shop.quotes_differing().await, (1, Vec::new()));
    }
    // What a CHECK can hold is held by one: not one unit less, not one more.
    for change in [
        "settle_amount = settle_amount - 0.000001",
        "settle_amount = settle_amount + 0.000001",
        "required_units = settle_units::numeric - 1",
    ] {
        let refused = shop.house.base.sql(&format!("update payment_quotes set {change}")).unwrap_err().to_string();
        assert!(refused.contains("payment_quotes_"), "{change}: {refused}");
    }
}

async fn sqlx_refused(shop: &Shop, statement: &'static str) -> String {
    let mut connection = shop.house.db.connection().await.unwrap();
    sqlx::query(statement).execute(&mut *connection).await.unwrap_err().to_string()
}

#[tokio::test]
async fn q3_bad_sources_are_a_typed_refusal_and_nothing_is_stored() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    // Nobody was asked yet.
    let detail = shop.refused("first", "USD", "USDC", unavailable, "insufficient_sources").await;
    assert!(detail.contains("USDC/USD: 0 of 2 sources") && detail.contains("kraken not_yet"), "{detail}");
    // One round is not enough after a start.
    shop.venues.prices(shop.at(), "1", "1", "1.0586");
    shop.round().await;
    shop.refused("start", "USD", "USDC", unavailable, "jump_unconfirmed").await;
    shop.settle("1", "1", "1.0586").await;
    shop.pay_view("good", "100", "USD", "USDC").await;

    // Two sources that differ.
    shop.venues.prices(shop.at(), "1", "1", "1.0586");
    shop.venues.bitstamp("usdcusd", "USDC/USD", "1.04", shop.at());
    shop.round().await;
    let detail = shop.refused("apart", "USD", "USDC", unavailable, "inconsistent_sources").await;
    assert!(detail.contains("kraken 1, bitstamp 1.04") && detail.contains("offered on this chain: USDT"), "{detail}");
    // A page of HTML, an error with status 200, an answer of another market, from the future, stale, below zero.
    type Spoil<'a> = &'a dyn Fn(&Venues, OffsetDateTime);
    let spoil: [(&str, Spoil<'_>); 7] = [
        ("decode", &|venues, _| venues.says("/api/v2/ticker/usdcusd/", "<html>Just a moment...</html>")),
        ("decode", &|venues, now| venues.bitstamp("usdcusd", "BTC/USD", "1", now)),
        ("from_future", &|venues, now| venues.bitstamp("usdcusd", "USDC/USD", "1", now + Duration::seconds(90))),
        ("stale", &|venues, now| venues.bitstamp("usdcusd", "USDC/USD", "1", now - Duration::seconds(600))),
        ("no_answer", &|venues, now| venues.bitstamp("usdcusd", "USDC/USD", "-1", now)),
        ("decode", &|venues, now| venues.bitstamp("usdcusd", "USDC/USD", "NaN", now)),
        ("out_of_range", &|venues, now| venues.bitstamp("usdcusd", "USDC/USD", "10", now)),
    ];
    for (place, (reason, change)) in spoil.into_iter().enumerate() {
        shop.venues.prices(shop.at(), "1", "1", "1.0586");
        change(&shop.venues, shop.at());
        shop.round().await;
        let detail = shop.refused(&format!("spoilt-{place}"), "USD", "USDC", unavailable, "insufficient_sources").await;
        assert!(detail.contains(&format!("bitstamp {reason}")), "{reason}: {detail}");
        // The other token of the chain stays on offer.
        shop.pay_view(&format!("other-{place}"), "100", "USD", "USDT").await;
    }
    // A venue that is away: its last price counts until it is old.
    shop.settle("1", "1", "1.0586").await;
    shop.venues.fails(KRAKEN, 503);
    shop.venues.bitstamp("usdcusd", "USDC/USD", "1", shop.at());
    shop.round().await;
    shop.pay_view("away", "100", "USD", "USDC").await;
    for _ in 0..16 {
        shop.venues.bitstamp("usdcusd", "USDC/USD", "1", shop.at());
        shop.round().await;
    }
    let detail = shop.refused("old", "USD", "USDC", unavailable, "insufficient_sources").await;
    assert!(detail.contains("kraken stale"), "{detail}");
    assert_eq!(shop.quotes_differing().await.1, Vec::<&str>::new());
}

#[tokio::test]
async fn q3_a_token_beyond_the_halt_and_a_rate_beyond_the_official_one() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    shop.settle("0.94", "1", "1.0586").await;
    let detail = shop.refused("halt", "USD", "USDC", unavailable, "depeg_halt").await;
    assert!(detail.contains("-600 bps") && detail.contains("offered on this chain: USDT"), "{detail}");
    // Back inside of the limit it stays refused: the machine remembers.
    shop.settle("0.999", "1", "1.0586").await;
    shop.refused("still", "USD", "USDC", unavailable, "depeg_halt").await;
    // A stablecoin as a currency is refused with it.
    shop.refused("currency", "USDC", "USDT", unavailable, "depeg_halt").await;
    shop.set("depeg_halted:USDT", 1).await;
    let detail = shop.refused("operator", "USD", "USDT", unavailable, "depeg_halt").await;
    assert!(detail.contains("halted by an operator"), "{detail}");
    shop.set("depeg_halted:USDT", 0).await;
    shop.pay_view("resumed", "100", "EUR", "USDT").await;

    // The official rate bounds: 300 bps and no more. It is asked once an hour.
    shop.wait(3_600);
    shop.settle("1", "1", "1.0586").await;
    shop.wait(3_600);
    shop.venues.euro_bank(shop.at(), "1.0277");
    for _ in 0..3 {
        shop.venues.prices(shop.at(), "1", "1", "1.0586");
        shop.venues.euro_bank(shop.at(), "1.0277");
        shop.round().await;
    }
    let detail = shop.refused("sanity", "EUR", "USDT", unavailable, "fx_sanity").await;
    assert!(detail.contains("300 bps") && detail.contains("ecb"), "{detail}");
    // No pair, no sources.
    let detail = shop.refused("rial", "IRR", "USDT", unavailable, "insufficient_sources").await;
    assert!(detail.contains("IRR/USD: 0 of 2"), "{detail}");
}

#[tokio::test]
async fn q3_at_weekends_there_is_no_rate() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.settle("1", "1", "1.0586").await;
    shop.pay_view("week", "100", "EUR", "USDC").await;
    shop.wait(3 * 86_400);
    shop.settle("1", "1", "1.0586").await;
    let detail = shop.refused("weekend", "EUR", "USDC", StatusCode::SERVICE_UNAVAILABLE, "market_closed").await;
    assert!(detail.contains("it opens at"), "{detail}");
    shop.pay_view("dollars", "100", "USD", "USDC").await;
}

#[tokio::test]
async fn q3_without_the_flag_only_payments_in_their_own_token_are_taken() {
    let house = ApiHouse::start().await;
    let token = house.marketplace().await;
    let before = house.stored();
    for (key, currency) in [("usd", "USD"), ("irr", "IRR"), ("usdt", "USDT")] {
        let body = json!({ "amount": "100", "currency": currency, "chain_id": 31337, "token": "USDC", "seller_address": SELLER });
        let refused = answer(house.post("/v1/payments", &token, key, body.to_string())).await;
        assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "quoting_disabled"));
        assert_eq!(refused.problem().fields[0].field, "currency");
        assert!(!refused.problem().retryable);
    }
    assert_eq!(house.stored(), before);
    let body = json!({ "amount": "100", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": SELLER });
    let taken = answer(house.post("/v1/payments", &token, "usdc", body.to_string())).await;
    assert_eq!(taken.json()["quote"]["kind"], "identity");
}

#[tokio::test]
async fn q4_a_restart_keeps_the_machine_and_its_clock() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.settle("0.99", "1", "1.0586").await;
    let oracle = |shop: &Shop| {
        let sources = shop.venues.options(&["kraken", "coinbase", "bitstamp"]);
        let nodes = BTreeMap::from([(CHAIN, Arc::clone(&shop.house.node))]);
        Oracle::new(Arc::clone(&shop.house.book), Arc::new(nodes), &sources).unwrap()
    };
    let state = |shop: &Shop| {
        shop.house
            .base
            .sql("select depeg_state, calm_since is not null from oracle_states where pair = 'USDC/USD'")
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(state(&shop), "adjusted|f");
    // Calm for half an hour, with a new process every few rounds.
    let mut running = oracle(&shop);
    for minute in 0..30 {
        if minute % 7 == 0 {
            running = oracle(&shop);
        }
        shop.venues.prices(shop.at(), "0.9995", "1", "1.0586");
        running.tick(&shop.house.db, shop.at()).await.unwrap();
        assert_eq!(state(&shop), "adjusted|t", "minute {minute}");
        shop.wait(60);
    }
    shop.venues.prices(shop.at(), "0.9995", "1", "1.0586");
    oracle(&shop).tick(&shop.house.db, shop.at()).await.unwrap();
    assert_eq!(state(&shop), "par|f");
}

#[tokio::test]
async fn q3_thresholds_have_a_history_and_a_quote_names_the_row_it_knew() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.settle("0.9980", "1", "1.0586").await;
    assert_eq!(shop.pay_view("inside", "100", "USD", "USDC").await.amount, "100");
    shop.set("depeg_enter_bps:USDC", 15).await;
    shop.settle("0.9980", "1", "1.0586").await;
    let outside = shop.pay_view("outside", "100", "USD", "USDC").await;
    assert_eq!(outside.amount, "100.200401");
    shop.set("depeg_policy", 1).await;
    shop.settle("0.9980", "1.0100", "1.0586").await;
    let above = shop.pay_view("above", "100", "USD", "USDT").await;
    assert_eq!((above.amount.as_str(), above.quote.unwrap().policy.as_deref()), ("99.009901", Some("two_sided")));
    let heads = shop.house.base.sql("select settings_head, band_bps from payment_quotes order by created_at").unwrap();
    let history = shop.house.base.sql("select id from config_setting_history where key ~ '^depeg' order by id").unwrap();
    let ids: Vec<&str> = history.split_whitespace().collect();
    assert_eq!(heads.split_whitespace().collect::<Vec<_>>(), ["0|25".to_owned(), format!("{}|10", ids[0]), format!("{}|10", ids[1])]);
    assert_eq!(shop.quotes_differing().await, (3, Vec::new()));
}

// === life ===

#[tokio::test]
async fn q5_a_dead_quote_is_made_anew_and_late_money_is_worth_what_it_is_worth() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.set("depeg_halt_bps", 1_500).await;
    shop.settle("1", "1", "1.0586").await;
    let payment = shop.pay_view("first", "100", "USD", "USDC").await;
    assert_eq!(payment.quote.clone().unwrap().expires_at - payment.quote.clone().unwrap().quoted_at, Duration::minutes(15));
    let path = format!("/v1/payments/{}/requote", payment.id);
    let requote = async |key: &str| answer(shop.house.post(&path, &shop.token, key, "{}")).await;

    let refused = requote("early").await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "quote_lives"));
    shop.wait(15 * 60 + 120);
    // The token fell meanwhile. Until the chain is read so far, an in-time payment may still show.
    shop.settle("0.8774", "1", "1.0586").await;
    let refused = requote("unread").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
    shop.house.base.sql(&format!("update chain_blocks set block_time = to_timestamp({})", shop.at().unix_timestamp())).unwrap();
    // Somebody sent the old amount, too late.
    suspend(&shop, payment.id, 100_000_000).await;
    let anew = requote("anew").await;
    assert_eq!(anew.status, StatusCode::CREATED, "{anew:?}");
    let anew: RequoteView = serde_json::from_str(&anew.body).unwrap();
    assert_eq!(
        (anew.payment.amount.as_str(), anew.received_units.as_str(), anew.missing_units.as_str()),
        ("113.973103", "100000000", "13973103")
    );
    assert_eq!(anew.quote.supersedes, Some(payment.quote.unwrap().id));

    // It rose again: what was agreed last stays the least while money is there.
    shop.wait(5 * 60 + 120);
    shop.settle("0.9990", "1", "1.0586").await;
    shop.house.base.sql(&format!("update chain_blocks set block_time = to_timestamp({})", shop.at().unix_timestamp())).unwrap();
    let again: RequoteView = serde_json::from_str(&requote("again").await.body).unwrap();
    assert_eq!((again.quote.settle_amount.as_str(), again.quote.required_units.as_str()), ("100", "113973103"));
    assert_eq!(shop.quotes_differing().await, (3, Vec::new()));
    let due = format!("select due_units from payments where id = '{}'", payment.id);
    assert_eq!(shop.house.count(&due), 113_973_103);

    // The database takes nothing else as due, and only one first quote and one successor of each.
    for change in ["due_units = 1", "expires_at = expires_at + interval '1 hour'"] {
        let refused = shop.house.base.sql(&format!("update payments set {change}")).unwrap_err().to_string();
        assert!(refused.contains("what is due is what the live quote says"), "{refused}");
    }
    let plain = shop.pay_view("same", "1", "USDC", "USDC").await;
    let refused = answer(shop.house.post(&format!("/v1/payments/{}/requote", plain.id), &shop.token, "plain", "{}")).await;
    assert_eq!(refused.problem().code, "not_priced");
}

/// A transfer to the address of a payment, in a block of this time, seen, confirmed and posted. Numbers its block.
async fn arrive(shop: &Shop, payment: PaymentId, units: u64, at: OffsetDateTime, block: u8) {
    let rows = format!(
        "insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id)
             values ({CHAIN}, 100 + {block}, decode(repeat('{block:02x}', 32), 'hex'), decode(repeat('aa', 32), 'hex'), to_timestamp({at}), 1);
         insert into transfers (chain_id, tx_hash, position) values ({CHAIN}, decode(repeat('{block:02x}', 32), 'hex'), 'log:0');
         insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount,
                 derived_address_id, internal)
             select t.id, {CHAIN}, 100 + {block}, t.tx_hash, decode('5FbDB2315678afecb367f032d93F642f64180aa3', 'hex'),
                 decode(repeat('33', 20), 'hex'), a.address, {units}, a.id, false
             from transfers t, derived_destinations d join trezor_derived_addresses a on a.id = d.derived_address_id
             where t.tx_hash = decode(repeat('{block:02x}', 32), 'hex') and d.payment_id = '{payment}';
         insert into transfer_verdicts (transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth,
                 threshold, threshold_seen_history_id, threshold_now_history_id)
             select transfer_id, id, chain_id, block_number, block_hash, block_number + 9, block_hash, 10, 3, 1, 1
             from transfer_observations where block_number = 100 + {block}",
        at = at.unix_timestamp()
    );
    shop.house.base.sql(&rows).unwrap();
    let bookkeeper = amanatd::ledger::Bookkeeper::new(shop.house.db.clone(), Arc::clone(&shop.house.book));
    bookkeeper.tick(CHAIN, shop.at()).await.unwrap();
}

impl Shop {
    async fn accept(&self, payment: PaymentId, key: &str, less_than_due: bool) -> Answer {
        let body = json!({ "less_than_due": less_than_due, "reason": "agreed on the telephone" });
        answer(self.house.post(&format!("/v1/payments/{payment}/accept"), &self.token, key, body.to_string())).await
    }

    fn held(&self, payment: PaymentId) -> i64 {
        self.house.count(&format!(
            "select coalesce(sum(b.balance), 0) from ledger_accounts a join ledger_balances b on b.account_id = a.id \
             where a.payment_id = '{payment}' and a.kind = 'held'"
        ))
    }

    /// A payment of 100 dollars whose quote of 100 USDC has ended, and what came a second after it.
    async fn paid_late(&self, key: &str, units: u64, block: u8) -> PaymentView {
        self.settle("1", "1", "1.0586").await;
        let payment = self.pay_view(key, "100", "USD", "USDC").await;
        assert_eq!(payment.amount_units, "100000000");
        self.wait(15 * 60 + 121);
        arrive(self, payment.id, units, payment.expires_at + Duration::seconds(1), block).await;
        let open = format!("select string_agg(kind::text, ',') from payment_exceptions where payment_id = '{}'", payment.id);
        assert_eq!(self.house.base.sql(&open).unwrap().trim(), "late");
        payment
    }
}

#[tokio::test]
async fn q5_late_money_is_valued_by_a_fresh_quote_before_it_is_taken() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.set("depeg_halt_bps", 1_500).await;

    // The token fell meanwhile: the dead quote is not what it is worth.
    let payment = shop.paid_late("fell", 100_000_000, 1).await;
    shop.settle("0.8774", "1", "1.0586").await;
    let refused = shop.accept(payment.id, "fell-1", false).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::CONFLICT, "still_short"));
    assert!(refused.problem().detail.contains("113973103 are required"), "{refused:?}");
    assert_eq!((shop.held(payment.id), shop.house.count("select count(*) from payment_quotes")), (0, 1), "a refusal leaves no quote");
    // An officer says so in so many words, and the fresh quote is what it is stored beside.
    let taken = shop.accept(payment.id, "fell-2", true).await;
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    assert_eq!((shop.held(payment.id), shop.house.count("select count(*) from payment_quotes")), (100_000_000, 2));
    let event = shop.house.base.sql("select detail from events where kind = 'payment.accepted' order by id desc limit 1").unwrap();
    let event: Value = serde_json::from_str(&event).unwrap();
    let revalued = &event["revalued"];
    assert_eq!((revalued["agreed_units"].as_str(), revalued["fresh_units"].as_str()), (Some("100000000"), Some("113973103")), "{event}");

    // Enough by both: what is due is what the fresh quote asks for, and the rest waits.
    let payment = shop.paid_late("enough", 120_000_000, 2).await;
    shop.settle("0.8774", "1", "1.0586").await;
    assert_eq!(shop.accept(payment.id, "enough", false).await.status, StatusCode::OK);
    assert_eq!(shop.held(payment.id), 113_973_103);
    let due = format!("select due_units from payments where id = '{}'", payment.id);
    assert_eq!(shop.house.count(&due), 113_973_103);

    // A euro that fell: what was agreed is still the least.
    shop.settle("1", "1", "1.0586").await;
    let payment = shop.pay_view("rose", "100", "EUR", "USDC").await;
    assert_eq!(payment.amount_units, "105860000");
    shop.wait(15 * 60 + 121);
    arrive(&shop, payment.id, 105_860_000, payment.expires_at + Duration::seconds(1), 3).await;
    shop.settle("1", "1", "1.0500").await;
    assert_eq!(shop.accept(payment.id, "rose", false).await.status, StatusCode::OK);
    assert_eq!(shop.held(payment.id), 105_860_000);

    // In time is in time, whenever an officer looks: nothing is valued anew.
    shop.settle("1", "1", "1.0586").await;
    let payment = shop.pay_view("in-time", "100", "USD", "USDC").await;
    arrive(&shop, payment.id, 60_000_000, payment.expires_at, 4).await;
    shop.wait(15 * 60 + 121);
    shop.settle("0.8774", "1", "1.0586").await;
    let before = shop.house.count("select count(*) from payment_quotes");
    assert_eq!(shop.accept(payment.id, "in-time", true).await.status, StatusCode::OK);
    assert_eq!((shop.held(payment.id), shop.house.count("select count(*) from payment_quotes")), (60_000_000, before));

    // Every quote of all this follows from its evidence.
    assert_eq!(shop.quotes_differing().await.1, Vec::<&str>::new());
}

#[tokio::test]
async fn q5_late_money_that_nobody_can_value_waits_for_an_officer() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    let payment = shop.paid_late("halted", 100_000_000, 1).await;
    shop.settle("0.94", "1", "1.0586").await;
    let refused = shop.accept(payment.id, "halted-1", false).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "depeg_halt"), "{refused:?}");
    assert!(refused.problem().retryable && refused.problem().detail.contains("no fresh quote"), "{refused:?}");
    assert_eq!((shop.held(payment.id), shop.house.count("select count(*) from payment_quotes")), (0, 1));
    let taken = shop.accept(payment.id, "halted-2", true).await;
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    assert_eq!((shop.held(payment.id), shop.house.count("select count(*) from payment_quotes")), (100_000_000, 1));
    let event = shop.house.base.sql("select detail from events where kind = 'payment.accepted'").unwrap();
    assert!(event.contains("\"no_fresh_quote\"") && event.contains("depeg_halt"), "{event}");
}

#[tokio::test]
async fn q5_a_payment_that_failed_is_valued_too_before_what_came_is_taken() {
    clock!(NOW, clock);
    let shop = Shop::open(&NOW, clock).await;
    shop.set("depeg_halt_bps", 1_500).await;
    shop.settle("1", "1", "1.0586").await;
    let payment = shop.pay_view("failed", "100", "USD", "USDC").await;
    shop.wait(2 * 86_400);
    // The chain is read far beyond its late window.
    shop.house.base.sql(&format!("update chain_blocks set block_time = to_timestamp({})", shop.at().unix_timestamp())).unwrap();
    let lapser = amanatd::escrow::Lapser { db: shop.house.db.clone(), chain: CHAIN };
    lapser.tick(shop.at()).await.unwrap();
    arrive(&shop, payment.id, 114_000_000, shop.at(), 1).await;
    shop.settle("0.8774", "1", "1.0586").await;
    let taken = shop.accept(payment.id, "failed", false).await;
    assert_eq!(taken.status, StatusCode::OK, "{taken:?}");
    assert_eq!(shop.held(payment.id), 113_973_103);
    assert_eq!(shop.quotes_differing().await, (2, Vec::new()));
}

#[tokio::test]
async fn q3_a_toman_for_a_rial_is_refused_though_both_venues_agree_on_it() {
    clock!(NOW, clock);
    let shop = Shop::open_with(&NOW, clock, &["kraken", "coinbase", "bitstamp", "ecb", "nobitex", "wallex"]).await;
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let markets = |rial: &str, toman: &str| {
        let book = json!({ "isClosed": false, "bestSell": rial, "bestBuy": rial, "latest": rial });
        shop.venues.says("/market/stats?srcCurrency=usdt&dstCurrency=rls", json!({ "status": "ok", "stats": { "usdt-rls": book } }));
        let market = json!({ "quoteAsset": "TMN", "stats": { "bidPrice": toman, "askPrice": toman } });
        shop.venues.says("/v1/markets", json!({ "success": true, "result": { "symbols": { "USDTTMN": market } } }));
    };
    let rounds = async |rial: &str, toman: &str| {
        // Their books must move to count.
        for place in 0..3 {
            markets(&format!("{rial}.{place}"), toman);
            shop.venues.prices(shop.at(), "1", "1", "1.0586");
            shop.round().await;
        }
    };
    rounds("1859400", "185940").await;
    // No official rate exists, and nobody has said what is known: two venues alone do not carry a rial.
    let detail = shop.refused("unbounded", "IRR", "USDC", unavailable, "fx_sanity").await;
    assert!(detail.contains("fx_reference_per_usd"), "{detail}");
    shop.set("fx_reference_per_usd:IRR", 1_800_000).await;
    rounds("1859400", "185940").await;
    let quoted = answer(
        shop.house.post(
            "/v1/payments",
            &shop.token,
            "good",
            json!({
                "amount": "50000000", "currency": "IRR", "chain_id": 31337, "token": "USDC", "seller_address": SELLER
            })
            .to_string(),
        ),
    )
    .await;
    assert_eq!(quoted.status, StatusCode::CREATED, "{quoted:?}");
    let quote = serde_json::from_str::<PaymentView>(&quoted.body).unwrap().quote.unwrap();
    assert!(quote.settle_amount.starts_with("26.89"), "{quote:?}");

    // One family alone carries nothing.
    shop.venues.fails("/v1/markets", 500);
    shop.wait(301);
    for place in 3..6 {
        let book = json!({ "isClosed": false, "bestSell": format!("1859400.{place}"), "bestBuy": "1859400", "latest": "1" });
        shop.venues.says("/market/stats?srcCurrency=usdt&dstCurrency=rls", json!({ "status": "ok", "stats": { "usdt-rls": book } }));
        shop.venues.prices(shop.at(), "1", "1", "1.0586");
        shop.round().await;
    }
    let detail = shop.refused("one", "IRR", "USDC", unavailable, "insufficient_sources").await;
    assert!(detail.contains("IRR/USD: 1 of 2 sources"), "{detail}");

    // Later, a dollar costs twice as much, and both tell toman as if they were rial. They agree, round after round.
    shop.set("fx_reference_per_usd:IRR", 3_859_400).await;
    rounds("385940", "38594").await;
    rounds("385940", "38594").await;
    let detail = shop.refused("tenfold", "IRR", "USDC", unavailable, "fx_sanity").await;
    assert!(detail.contains("3859400 for a dollar that an operator knows") && detail.contains("about tenfold"), "{detail}");
    shop.set("fx_reference_per_usd:IRR", 1_800_000).await;
    // And the other way round, with the limit as wide as it can be set.
    shop.set("fx_reference_bps:IRR", 8_000).await;
    rounds("18594000", "1859400").await;
    rounds("18594000", "1859400").await;
    let detail = shop.refused("tenth", "IRR", "USDC", unavailable, "fx_sanity").await;
    assert!(detail.contains("about a tenth"), "{detail}");
    // What was refused is no measure for what is right.
    rounds("1859400", "185940").await;
    let again = shop.create("again", "50000000", "IRR", "USDC").await;
    assert_eq!(again.status, StatusCode::CREATED, "{again:?}");
    assert_eq!(shop.quotes_differing().await.1, Vec::<&str>::new());
    let history = shop.house.base.sql("select count(*) from config_setting_history where key like 'fx_reference%'").unwrap();
    assert_eq!(history.trim(), "4");
}

/// Money of a payment that waits for an officer.
async fn suspend(shop: &Shop, payment: PaymentId, units: u64) {
    use amanatd::ledger::{AccountKey, Entry, EntryType, LedgerError, store};
    use amanatd::units::{Asset, AssetId, TokenAmount};
    let asset = address!("5FbDB2315678afecb367f032d93F642f64180aa3");
    let entry = Entry {
        entry_type: EntryType::PaymentDetected,
        payment: Some(payment),
        amount: TokenAmount::new(AssetId { chain: CHAIN, asset: Asset::Token(asset) }, U256::from(units)),
        decimals: 6,
        debit: AccountKey::Custody(Address::repeat_byte(7)),
        credit: AccountKey::Suspense(Some(payment)),
        reverses: None,
        key: format!("test:{payment}"),
        memo: "late".to_owned(),
    };
    let posted =
        shop.house.db.unit::<_, LedgerError, _>(move |connection| Box::pin(async move { store::append(connection, &[entry]).await }));
    posted.await.unwrap();
}

// === feeds of a chain ===

const FEED: Address = address!("00000000000000000000000000000000000000fe");
const AGGREGATOR: Address = address!("00000000000000000000000000000000000000a9");
const UPTIME: Address = address!("0000000000000000000000000000000000000075");

/// What the feed's contracts answer.
#[derive(Clone)]
struct Feed {
    decimals: u64,
    description: &'static str,
    answer: i64,
    updated_s: i64,
    max: i64,
    sequencer: (i64, i64),
}

impl Feed {
    fn word(value: i64) -> String {
        format!("{:064x}", I256::try_from(value).unwrap().into_raw())
    }

    fn round(answer: i64, started_s: i64, updated_s: i64) -> String {
        [Self::word(7), Self::word(answer), Self::word(started_s), Self::word(updated_s), Self::word(7)].concat()
    }

    fn respond(&self, to: &str, data: &str) -> Reply {
        let text = self.description;
        let body = match (to.parse::<Address>().unwrap(), data) {
            (FEED, "0xfeaf968c") => Self::round(self.answer, self.updated_s, self.updated_s),
            (FEED, "0x313ce567") => Self::word(self.decimals.cast_signed()),
            (FEED, "0x7284e416") => {
                let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                format!("{}{}{bytes:0<64}", Self::word(32), Self::word(i64::try_from(text.len()).unwrap()))
            }
            (FEED, "0x245a7bfc") => format!("{:0>64}", format!("{AGGREGATOR:x}")),
            (AGGREGATOR, "0x22adbc78") => Self::word(1),
            (AGGREGATOR, "0x70da2f67") => Self::word(self.max),
            (UPTIME, "0xfeaf968c") => Self::round(self.sequencer.0, self.sequencer.1, self.sequencer.1),
            _ => return Reply::Refuse(3, "execution reverted".to_owned()),
        };
        Reply::Result(json!(format!("0x{body}")))
    }
}

struct Chainlink {
    node: ScriptedNode,
    venues: Venues,
    oracle: Oracle,
    now: OffsetDateTime,
}

impl Chainlink {
    async fn with(feed: Feed, now: OffsetDateTime) -> Self {
        let local = "sequencer = \"0x0000000000000000000000000000000000000075\"\nfeed = [{ pair = \"USDC/USD\", \
            proxy = \"0x00000000000000000000000000000000000000fe\", decimals = 8, heartbeat_s = 3600, deviation_pct = \"0.25\" }]\n";
        let node = ScriptedNode::start().await;
        node.script(move |method, params| match method {
            "eth_call" => feed.respond(params[0]["to"].as_str().unwrap(), params[0]["data"].as_str().unwrap()),
            _ => Reply::Honest,
        });
        let venues = Venues::start().await;
        let nodes = BTreeMap::from([(CHAIN, Arc::new(crate::watching::node_of(&[&node.url()])))]);
        let oracle = Oracle::new(Arc::new(book(local)), Arc::new(nodes), &venues.options(&["kraken"])).unwrap();
        Self { node, venues, oracle, now }
    }

    /// What the feed's verdict is, beside a market that says one dollar.
    async fn verdict(&self) -> Result<String, QuoteError> {
        self.venues.kraken(&[("USDCUSD", "1"), ("USDTUSD", "1")], self.now);
        self.oracle.fetch(self.now, true).await?;
        let asked = Asked { amount: "100".parse().unwrap(), currency: Currency::Usd, chain: CHAIN, token: "USDC".to_owned(), decimals: 6 };
        let quoted = self.oracle.quote(&asked, &Remembered::default(), self.now).unwrap();
        let places = quoted.token.observations.iter().position(|seen| seen.source == format!("chainlink/{CHAIN}"));
        Ok(places.map_or_else(|| "absent".to_owned(), |place| quoted.decision.token.verdicts[place].name().to_owned()))
    }
}

#[tokio::test]
async fn q3_a_feed_of_the_chain_itself_with_its_bounds_and_its_sequencer() {
    let now = OffsetDateTime::from_unix_timestamp(wednesday()).unwrap();
    let now_s = now.unix_timestamp();
    let good = Feed {
        decimals: 8,
        description: "USDC / USD",
        answer: 99_990_000,
        updated_s: now_s - 100,
        max: 105_000_000,
        sequencer: (0, now_s - 86_400),
    };
    let cases = [
        (good.clone(), "used"),
        (Feed { updated_s: now_s - 5_400, ..good.clone() }, "used"),
        (Feed { updated_s: now_s - 5_401, ..good.clone() }, "stale"),
        (Feed { updated_s: now_s + 61, ..good.clone() }, "from_future"),
        (Feed { answer: 0, ..good.clone() }, "no_answer"),
        (Feed { answer: -99_990_000, ..good.clone() }, "no_answer"),
        (Feed { updated_s: 0, ..good.clone() }, "no_answer"),
        (Feed { answer: 105_000_000, ..good.clone() }, "answer_at_bound"),
        (Feed { sequencer: (1, now_s - 86_400), ..good.clone() }, "sequencer_down"),
        (Feed { sequencer: (0, 0), ..good.clone() }, "sequencer_down"),
        (Feed { sequencer: (0, now_s - 3_599), ..good.clone() }, "sequencer_grace"),
        (Feed { sequencer: (0, now_s - 3_600), ..good.clone() }, "used"),
    ];
    for (feed, wanted) in cases {
        let chainlink = Chainlink::with(feed, now).await;
        assert_eq!(chainlink.verdict().await.unwrap(), wanted);
        // Prices and sequencer are read in one block, by its hash.
        assert!(chainlink.node.take_methods().contains(&"eth_call".to_owned()));
    }
    // A feed that is not what chains.toml says ends the process at the first look.
    for feed in [Feed { decimals: 18, ..good.clone() }, Feed { description: "USDT / USD", ..good.clone() }] {
        let error = Chainlink::with(feed, now).await.verdict().await.unwrap_err();
        assert!(matches!(error, QuoteError::Feed { .. }), "{error:?}");
        assert_eq!(error.disposition(), amanatd::units::Disposition::Stop);
    }
    // A node that is away says nothing, and another answer at the same block is no answer.
    let mut away = Chainlink::with(good, now).await;
    away.node.stop().await;
    assert_eq!(away.verdict().await.unwrap(), "absent");
}

// === HTTP ===

#[tokio::test]
async fn q3_a_venue_is_asked_with_limits() {
    let venues = Venues::start().await;
    let limits = VenueLimits { total: std::time::Duration::from_millis(300), ..VenueLimits::per_minute(60_000) };
    let client = VenueClient::new(&venues.url, None, limits).unwrap();
    let ask = |path: &str| Ask::new(path, vec![0]);
    venues.says("/good", "{}");
    venues.says("/long", "x".repeat(300 * 1024));
    venues.fails("/limited", 429);
    venues.fails("/moved", 302);
    assert_eq!(client.get(&ask("/good")).await, Ok("{}".to_owned()));
    assert_eq!(client.get(&ask("/long")).await, Err(Invalid::Decode));
    assert_eq!(client.get(&ask("/limited")).await, Err(Invalid::Refused));
    assert_eq!(client.get(&ask("/moved")).await, Err(Invalid::Refused));
    assert_eq!(client.get(&ask("/nothing")).await, Err(Invalid::Refused));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = VenueClient::new(&format!("http://{}", silent.local_addr().unwrap()), None, limits).unwrap();
    assert_eq!(silent.get(&ask("/good")).await, Err(Invalid::Unreachable));
    let nobody = VenueClient::new(NOBODY, None, limits).unwrap();
    assert_eq!(nobody.get(&ask("/good")).await, Err(Invalid::Unreachable));
}

#[tokio::test]
async fn q3_a_source_that_needs_a_key_is_not_asked_without_one() {
    let venues = Venues::start().await;
    let book = Arc::new(book(""));
    let mut options = venues.options(&["pyth", "kraken"]);
    let nodes = Arc::new(BTreeMap::new());
    let without = Oracle::new(Arc::clone(&book), Arc::clone(&nodes), &options).unwrap();
    assert_eq!(without.sources(), ["kraken"]);
    options.get_mut("pyth").unwrap().key = Some("secret".to_owned().into());
    let with = Oracle::new(Arc::clone(&book), Arc::clone(&nodes), &options).unwrap();
    assert_eq!(with.sources(), ["kraken", "pyth"]);
    assert!(!format!("{with:?}").contains("secret"));
    options.insert("nobody".to_owned(), SourceOptions::default());
    assert!(matches!(Oracle::new(book, nodes, &options), Err(QuoteError::UnknownSource(name)) if name == "nobody"));
}

#[tokio::test]
async fn q3_a_token_without_sources_of_its_own_is_not_offered() {
    let venues = Venues::start().await;
    let oracle = Oracle::new(Arc::new(book("")), Arc::new(BTreeMap::new()), &venues.options(&["kraken"])).unwrap();
    let bsc = amanatd::units::ChainId::new(56).unwrap();
    let asked = Asked { amount: "100".parse().unwrap(), currency: Currency::Usd, chain: bsc, token: "USDC".to_owned(), decimals: 18 };
    let now = OffsetDateTime::from_unix_timestamp(wednesday()).unwrap();
    let refused = oracle.quote(&asked, &Remembered::default(), now).unwrap_err();
    assert!(matches!(refused, Refusal::TokenNotOffered { .. }), "{refused:?}");
}

// === the command line ===

fn amanatd(arguments: &[&str]) -> (bool, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_amanatd")).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn q1_the_vectors_pass_on_the_command_line_and_a_wrong_one_fails() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/oracle/vectors.json");
    let (passed, said) = amanatd(&["oracle", "vectors", file]);
    assert!(passed && said.trim_end().ends_with("30 passed, 0 failed"), "{said}");
    let wrong = std::env::temp_dir().join(format!("amanatd-vectors-{}.json", std::process::id()));
    std::fs::write(&wrong, std::fs::read_to_string(file).unwrap().replacen("113973103", "113973102", 1)).unwrap();
    let (passed, said) = amanatd(&["oracle", "vectors", wrong.to_str().unwrap()]);
    std::fs::remove_file(wrong).unwrap();
    assert!(!passed && said.contains("29 passed, 1 failed") && said.contains("FAIL usd100_usdc_svb_low"), "{said}");
}

#[test]
fn q4_the_replay_prints_its_table_and_draws() {
    let Ok(folder) = std::env::var("AMANATD_ORACLE_DATA") else {
        println!("skipped: set AMANATD_ORACLE_DATA to the folder of the minutes of March 2023");
        return;
    };
    let svg = std::env::temp_dir().join(format!("amanatd-replay-{}.svg", std::process::id()));
    let (passed, said) = amanatd(&["oracle", "replay", &folder, "--svg", svg.to_str().unwrap()]);
    assert!(passed && said.contains("amanatd, three families") && said.contains("97.5 %") && said.contains("82.1 %"), "{said}");
    assert!(said.matches(" met").count() == 2 && !said.contains("MISSED"), "{said}");
    assert!(std::fs::read_to_string(&svg).unwrap().contains("our price"));
    std::fs::remove_file(svg).unwrap();
}
