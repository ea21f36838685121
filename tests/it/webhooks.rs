//! Webhooks as a receiver meets them: over HTTP, signed, at least once, in order, and nowhere they may not go.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use amanatd::api::wire::{AttemptView, DeliveryPage, DeliveryView, EventPage, WebhookSecretView, WebhookView};
use amanatd::daemon;
use amanatd::officer::Scope;
use amanatd::units::Progress;
use amanatd::webhook::{Courier, Guard};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use time::{Duration, OffsetDateTime};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::house::{ApiHouse, answer, loopback};

const SELLER: &str = "0x2222222222222222222222222222222222222222";

/// One request as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    id: String,
    timestamp: i64,
    signatures: Vec<String>,
    body: String,
}

impl Arrived {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    fn payment(&self) -> Option<String> {
        self.json()["data"]["payment_id"].as_str().map(str::to_owned)
    }

    fn event(&self) -> i64 {
        self.json()["data"]["event_id"].as_i64().unwrap()
    }

    /// Checked with nothing of ours: by the words of the standard.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut code = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        code.update(format!("{}.{}.{}", self.id, self.timestamp, self.body).as_bytes());
        self.signatures.contains(&format!("v1,{}", STANDARD.encode(code.finalize().into_bytes())))
    }
}

/// How a receiver answers.
#[derive(Clone, Debug)]
enum Mood {
    Takes,
    Answers(u16, Option<(&'static str, String)>),
    /// 200 and a body that never ends.
    Babbles,
}

#[derive(Clone, Debug)]
struct Shared {
    arrived: Arc<Mutex<Vec<Arrived>>>,
    mood: Arc<Mutex<Mood>>,
}

/// A receiver on this machine.
struct Receiver {
    shared: Shared,
    port: u16,
    server: JoinHandle<()>,
}

impl Receiver {
    async fn start() -> Self {
        Self::listen(0, Shared { arrived: Arc::default(), mood: Arc::new(Mutex::new(Mood::Takes)) }).await
    }

    async fn listen(port: u16, shared: Shared) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(take).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, port, server }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks", self.port)
    }

    /// Gone, with its port free for the next.
    async fn kill(self) -> (u16, Shared) {
        self.server.abort();
        let _ = self.server.await;
        (self.port, self.shared)
    }

    fn mood(&self, mood: Mood) {
        *self.shared.mood.lock().unwrap() = mood;
    }

    fn arrived(&self) -> Vec<Arrived> {
        self.shared.arrived.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.shared.arrived.lock().unwrap().clear();
    }
}

async fn take(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    assert_eq!(header("content-type"), "application/json");
    let arrived = Arrived {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        signatures: header("webhook-signature").split(' ').map(str::to_owned).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
    };
    shared.arrived.lock().unwrap().push(arrived);
    let mood = shared.mood.lock().unwrap().clone();
    match mood {
        Mood::Takes => Response::new(Body::empty()),
        Mood::Answers(status, header) => {
            let mut response = Response::builder().status(status);
            if let Some((name, value)) = header {
                response = response.header(name, value);
            }
            response.body(Body::from("no, \u{1b}[31mthanks")).unwrap()
        }
        Mood::Babbles => {
            let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 8_192])));
            Response::new(Body::from_stream(endless))
        }
    }
}

/// An API, a courier, and a token that may manage webhooks.
struct Stage {
    house: ApiHouse,
    courier: Courier,
    token: String,
    marketplace: String,
}

impl Stage {
    async fn start() -> Self {
        let house = ApiHouse::start().await;
        let courier = Courier::new(house.db.clone(), loopback()).unwrap();
        let token = house.token(&[Scope::WebhooksWrite, Scope::EventsRead], None, 1).await;
        let marketplace = house.marketplace().await;
        Self { house, courier, token, marketplace }
    }

    async fn post(&self, path: &str, body: Value) -> crate::house::Answer {
        answer(self.house.post(path, &self.token, &Uuid::new_v4().to_string(), body.to_string())).await
    }

    async fn endpoint(&self, url: &str, events: &[&str]) -> WebhookView {
        let created = self.post("/v1/webhooks", json!({ "url": url, "events": events })).await;
        assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
        serde_json::from_str(&created.body).unwrap()
    }

    async fn secret(&self, id: Uuid) -> String {
        let view: WebhookSecretView =
            serde_json::from_str(&answer(self.house.get(&format!("/v1/webhooks/{id}/secret"), &self.token)).await.body).unwrap();
        view.secret
    }

    async fn payment(&self) -> String {
        let body = json!({ "amount": "5", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": SELLER });
        let created = answer(self.house.post("/v1/payments", &self.marketplace, &Uuid::new_v4().to_string(), body.to_string())).await;
        created.json()["id"].as_str().unwrap().to_owned()
    }

    /// Something that happened to a payment, or to none.
    fn event(&self, kind: &str, payment: Option<&str>) {
        let payment = payment.map_or_else(|| "null".to_owned(), |id| format!("'{id}'"));
        self.house.base.sql(&format!("insert into events (kind, payment_id, detail) values ('{kind}', {payment}, '{{}}')")).unwrap();
    }

    async fn tick(&self, now: OffsetDateTime) -> Progress {
        self.courier.tick(now).await.unwrap()
    }

    /// Ticks until every event there is was handed on. Other databases of the cluster have transactions too, and
    /// what is younger than the oldest of them waits.
    async fn handed_on(&self, now: OffsetDateTime) {
        let behind = "select count(*) from events e, webhook_cursor c where (e.written_by, e.id) > (c.written_by, c.event_id)";
        for _ in 0..500 {
            self.tick(now).await;
            if self.house.count(behind) == 0 {
                // What the last tick handed on, it also tried; one more for what became due by that.
                while self.tick(now).await == Progress::Worked {}
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("events are never handed on");
    }

    async fn deliveries(&self, query: &str) -> Vec<DeliveryView> {
        let found = answer(self.house.get(&format!("/v1/webhook-deliveries?limit=200{query}"), &self.token)).await;
        serde_json::from_str::<DeliveryPage>(&found.body).unwrap_or_else(|error| panic!("{error}: {found:?}")).deliveries
    }

    async fn attempts(&self, delivery: i64) -> Vec<AttemptView> {
        let found = answer(self.house.get(&format!("/v1/webhook-deliveries/{delivery}/attempts"), &self.token)).await;
        serde_json::from_str(&found.body).unwrap()
    }
}

#[tokio::test]
async fn y6_a_receiver_that_was_away_gets_every_event_once_per_id_and_in_order() {
    let mut stage = Stage::start().await;
    let receiver = Receiver::start().await;
    let endpoint = stage.endpoint(&receiver.url(), &["payment.*"]).await;
    let secret = stage.secret(endpoint.id).await;
    let (port, shared) = receiver.kill().await;

    let (first, second) = (stage.payment().await, stage.payment().await);
    for kind in ["payment.processing", "payment.funded", "payment.released"] {
        for payment in [&first, &second] {
            stage.event(kind, Some(payment));
        }
    }
    stage.event("chain.halted", None);
    let mut now = daemon::now();
    stage.handed_on(now).await;
    // Away for half an hour; the daemon is killed in between, and nothing of it was in memory.
    for minute in 0..30 {
        now += Duration::MINUTE;
        if minute == 15 {
            stage.courier = Courier::new(stage.house.db.clone(), loopback()).unwrap();
        }
        stage.tick(now).await;
    }
    let waiting = stage.deliveries("&state=pending").await;
    assert_eq!(waiting.len(), 8, "four of each payment, none of the chain");
    assert!(waiting.iter().any(|delivery| delivery.attempts > 2) && waiting.iter().any(|delivery| delivery.attempts == 0));

    let receiver = Receiver::listen(port, shared).await;
    for _ in 0..60 {
        now += Duration::MINUTE;
        stage.tick(now).await;
    }
    let arrived = receiver.arrived();
    assert_eq!(arrived.len(), 8, "{arrived:?}");
    let ids: std::collections::BTreeSet<&str> = arrived.iter().map(|letter| letter.id.as_str()).collect();
    assert_eq!(ids.len(), 8);
    let mut of_payment: BTreeMap<String, Vec<(i64, String)>> = BTreeMap::new();
    for letter in &arrived {
        assert!(letter.is_signed_with(&secret), "{letter:?}");
        of_payment.entry(letter.payment().unwrap()).or_default().push((letter.event(), letter.kind()));
    }
    for events in of_payment.values() {
        let kinds: Vec<&str> = events.iter().map(|(_, kind)| kind.as_str()).collect();
        assert_eq!(kinds, ["payment.created", "payment.processing", "payment.funded", "payment.released"]);
        assert!(events.is_sorted());
    }
    assert_eq!(of_payment.len(), 2);
    assert!(stage.deliveries("&state=pending").await.is_empty());
}

#[tokio::test]
async fn y6_what_one_payment_waits_for_holds_no_other_up() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver.url(), &["payment.*"]).await;
    let first = stage.payment().await;
    let mut now = daemon::now();
    // A refusal of that one letter, not of a receiver in trouble.
    receiver.mood(Mood::Answers(422, None));
    stage.handed_on(now).await;
    receiver.mood(Mood::Takes);
    receiver.forget();
    let second = stage.payment().await;
    stage.event("payment.processing", Some(&first));
    stage.handed_on(now).await;
    let arrived: Vec<_> = receiver.arrived().iter().map(|letter| letter.payment().unwrap()).collect();
    assert_eq!(arrived, [second], "the first payment's second event waits behind its first");
    now += Duration::seconds(12);
    while stage.tick(now).await == Progress::Worked {}
    let kinds: Vec<_> = receiver.arrived()[1..].iter().map(Arrived::kind).collect();
    assert_eq!(kinds, ["payment.created", "payment.processing"]);
}

#[tokio::test]
async fn y6_an_event_that_commits_late_is_not_passed_by() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver.url(), &["*"]).await;
    let now = daemon::now();
    let mut late = stage.house.db.connection().await.unwrap();
    // The lower id, and a transaction that is open while the higher one commits.
    for statement in ["begin", "insert into events (kind, detail) values ('chain.halted', '{}')"] {
        sqlx::raw_sql(statement).execute(&mut *late).await.unwrap();
    }
    stage.event("chain.resumed", None);
    for _ in 0..3 {
        stage.tick(now).await;
    }
    assert!(receiver.arrived().is_empty(), "what is younger than an open transaction waits");
    sqlx::raw_sql("commit").execute(&mut *late).await.unwrap();
    drop(late);
    stage.handed_on(now).await;
    let mut kinds: Vec<_> = receiver.arrived().iter().map(Arrived::kind).collect();
    kinds.sort();
    assert_eq!(kinds, ["chain.halted", "chain.resumed"]);

    // The feed neither: page by page, each event once.
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/v1/events?limit=1{cursor}");
        let page: EventPage = serde_json::from_str(&answer(stage.house.get(&path, &stage.token)).await.body).unwrap();
        if page.events.is_empty() {
            assert_eq!(format!("&cursor={}", page.next_cursor), cursor);
            break;
        }
        seen.extend(page.events.into_iter().map(|event| event.kind));
        cursor = format!("&cursor={}", page.next_cursor);
    }
    seen.sort();
    assert_eq!(seen, ["chain.halted", "chain.resumed"]);
}

#[tokio::test]
async fn y6_a_restored_database_hands_on_what_is_new_and_nothing_twice() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    stage.endpoint(&receiver.url(), &["*"]).await;
    let now = daemon::now();
    stage.event("chain.halted", None);
    stage.handed_on(now).await;
    // Another cluster counts its transactions from the beginning.
    stage.house.base.sql("update webhook_cursor set written_by = '9000000000000'::xid8, event_id = 999").unwrap();
    stage.event("chain.resumed", None);
    for _ in 0..500 {
        stage.tick(now).await;
        if receiver.arrived().len() > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    while stage.tick(now).await == Progress::Worked {}
    let kinds: Vec<_> = receiver.arrived().iter().map(Arrived::kind).collect();
    assert_eq!(kinds, ["chain.halted", "chain.resumed"]);
}

#[tokio::test]
async fn y6_answers_decide_what_happens_next() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    let endpoint = stage.endpoint(&receiver.url(), &["*"]).await;
    let mut now = daemon::now().replace_nanosecond(0).unwrap();
    stage.event("chain.halted", None);
    receiver.mood(Mood::Answers(302, Some(("location", format!("{}elsewhere", receiver.url())))));
    stage.handed_on(now).await;
    assert_eq!(receiver.arrived().len(), 1, "a redirect is not followed");
    let delivery = stage.deliveries("").await[0].clone();
    assert_eq!((delivery.state.as_str(), delivery.attempts), ("pending", 1));
    assert_eq!(delivery.last_outcome.as_deref(), Some("answered 302: redirects are not followed"));

    now += Duration::seconds(12);
    receiver.mood(Mood::Answers(503, Some(("retry-after", "3600".to_owned()))));
    stage.tick(now).await;
    let delivery = stage.deliveries("").await[0].clone();
    assert_eq!(delivery.next_attempt_at.unwrap() - now, Duration::HOUR, "{delivery:?}");
    let attempt = stage.attempts(delivery.id).await.pop().unwrap();
    assert_eq!((attempt.status, attempt.answer.as_str()), (Some(503), "no, [31mthanks"));

    now += Duration::HOUR;
    receiver.mood(Mood::Babbles);
    stage.tick(now).await;
    let delivery = stage.deliveries("").await[0].clone();
    assert_eq!((delivery.state.as_str(), delivery.attempts), ("delivered", 3));
    assert!(stage.attempts(delivery.id).await[2].answer.len() <= 500);
    // The same id and the same words each time, and each attempt its own time.
    let arrived = receiver.arrived();
    assert!(
        arrived.windows(2).all(|pair| pair[0].id == pair[1].id && pair[0].body == pair[1].body && pair[0].timestamp < pair[1].timestamp)
    );

    // 410: no more, until somebody says so.
    receiver.mood(Mood::Answers(410, None));
    stage.event("chain.resumed", None);
    stage.handed_on(now).await;
    stage.event("chain.halted", None);
    stage.handed_on(now + Duration::DAY).await;
    assert_eq!(receiver.arrived().len(), 4);
    let shown: WebhookView =
        serde_json::from_str(&answer(stage.house.get(&format!("/v1/webhooks/{}", endpoint.id), &stage.token)).await.body).unwrap();
    assert_eq!(shown.disabled_reason.as_deref(), Some("the receiver answered 410 Gone"));
    receiver.mood(Mood::Takes);
    let enabled = stage.post(&format!("/v1/webhooks/{}/enable", endpoint.id), json!({})).await;
    assert_eq!(enabled.status, StatusCode::OK, "{enabled:?}");
    while stage.tick(daemon::now() + Duration::seconds(1)).await == Progress::Worked {}
    assert_eq!(receiver.arrived().len(), 6, "what happened meanwhile waited");
}

#[tokio::test]
async fn y6_what_is_given_up_is_kept_and_can_be_sent_again() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    let endpoint = stage.endpoint(&receiver.url(), &["*"]).await;
    receiver.mood(Mood::Answers(404, None));
    let begun = daemon::now() - Duration::minutes(5);
    let mut now = daemon::now();
    stage.event("chain.halted", None);
    stage.handed_on(now).await;
    for _ in 0..13 {
        now += Duration::hours(27);
        stage.tick(now).await;
    }
    let dead = stage.deliveries("&state=dead").await;
    assert_eq!((dead.len(), dead[0].attempts, stage.attempts(dead[0].id).await.len()), (1, 14, 14));
    now += Duration::days(30);
    assert_eq!(stage.tick(now).await, Progress::Idle);
    receiver.mood(Mood::Takes);
    let again = json!({ "since": begun.format(&time::format_description::well_known::Rfc3339).unwrap(), "dead_only": true });
    let sent = stage.post(&format!("/v1/webhooks/{}/redeliver", endpoint.id), again).await;
    assert_eq!(sent.json(), json!({ "deliveries": 1 }));
    stage.tick(now).await;
    assert_eq!(stage.deliveries("&state=delivered").await.len(), 1);
    let one = stage.post(&format!("/v1/webhook-deliveries/{}/redeliver", dead[0].id), json!({})).await;
    assert_eq!(one.status, StatusCode::OK);
    stage.tick(now).await;
    let arrived = receiver.arrived();
    assert_eq!(arrived.len(), 16);
    assert!(arrived.iter().all(|letter| letter.id == arrived[0].id), "always the same id");
    assert_eq!(stage.post("/v1/webhook-deliveries/99999/redeliver", json!({})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn y6_a_secret_is_replaced_without_a_gap() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    let endpoint = stage.endpoint(&receiver.url(), &["*"]).await;
    let old = stage.secret(endpoint.id).await;
    let rotated = stage.post(&format!("/v1/webhooks/{}/secret", endpoint.id), json!({ "old_secret_hours": 2 })).await;
    assert_eq!(rotated.status, StatusCode::OK, "{rotated:?}");
    let new = stage.secret(endpoint.id).await;
    assert_ne!(old, new);
    assert!(!rotated.body.contains("whsec_"), "answers to writes are kept; secrets are not among them");
    let now = daemon::now();
    stage.event("chain.halted", None);
    stage.handed_on(now).await;
    stage.event("chain.resumed", None);
    stage.handed_on(now + Duration::hours(3)).await;
    let arrived = receiver.arrived();
    assert_eq!(arrived.iter().map(|letter| letter.signatures.len()).collect::<Vec<_>>(), [2, 1]);
    assert!(arrived.iter().all(|letter| letter.is_signed_with(&new)));
    assert!(arrived[0].is_signed_with(&old) && !arrived[1].is_signed_with(&old));
}

#[tokio::test]
async fn z_ssrf_what_may_not_be_reached_is_not_called() {
    let stage = Stage::start().await;
    let receiver = Receiver::start().await;
    // Both were allowed when they were added.
    stage.endpoint(&receiver.url(), &["*"]).await;
    stage.endpoint(&format!("http://localhost:{}/", receiver.port), &["*"]).await;
    stage.endpoint(&format!("https://localhost:{}/", receiver.port), &["*"]).await;
    let strict = Courier::new(stage.house.db.clone(), Guard::new(vec!["192.0.2.0/24".parse().unwrap()])).unwrap();
    stage.event("chain.halted", None);
    let now = daemon::now();
    for _ in 0..500 {
        strict.tick(now).await.unwrap();
        if stage.deliveries("").await.iter().filter(|delivery| delivery.attempts == 1).count() == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let deliveries = stage.deliveries("").await;
    assert_eq!(deliveries.len(), 3);
    for delivery in deliveries {
        let outcome = delivery.last_outcome.unwrap();
        assert!(outcome.starts_with("not sent: ") && outcome.contains("is not an address of the public internet"), "{outcome}");
    }
    assert!(receiver.arrived().is_empty());
}

#[tokio::test]
async fn z_what_is_asked_of_webhooks_is_checked() {
    let stage = Stage::start().await;
    let good = json!({ "url": "https://shop.example/hooks", "events": ["payment.*"] });
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    for (field, body) in [
        ("url", with("url", json!("ftp://shop.example/"))),
        ("url", with("url", json!("https://169.254.169.254/latest/meta-data"))),
        ("url", with("url", json!("https://user:secret@shop.example/"))),
        ("url", with("url", json!("http://10.0.0.1/"))),
        ("events", with("events", json!([]))),
        ("events", with("events", json!(["everything"]))),
        ("description", with("description", json!("x".repeat(201)))),
        ("secret", with("secret", json!("mine"))),
    ] {
        let refused = stage.post("/v1/webhooks", body).await;
        let problem = refused.problem();
        assert_eq!(problem.fields.first().map(|fault| fault.field.as_str()), Some(field), "{refused:?}");
        assert!(!refused.body.contains("secret@"), "{refused:?}");
    }
    assert_eq!(stage.house.count("select count(*) from webhook_endpoints"), 0);

    let key = Uuid::new_v4().to_string();
    for _ in 0..2 {
        let created = answer(stage.house.post("/v1/webhooks", &stage.token, &key, good.to_string())).await;
        assert_eq!(created.status, StatusCode::CREATED);
    }
    assert_eq!(stage.house.count("select count(*) from webhook_endpoints"), 1);
    let listed = answer(stage.house.get("/v1/webhooks", &stage.token)).await;
    assert!(!listed.body.contains("whsec_"));
    let id = listed.json()[0]["id"].as_str().unwrap().to_owned();
    let enabled = stage.post(&format!("/v1/webhooks/{id}/enable"), json!({})).await;
    assert_eq!(enabled.problem().code, "webhook_state");

    for path in ["/v1/webhooks", "/v1/webhook-deliveries", "/v1/events"] {
        let refused = answer(stage.house.get(path, &stage.marketplace)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
    let refused = answer(stage.house.get("/v1/events?cursor=7", &stage.token)).await;
    assert_eq!(refused.problem().fields[0].field, "cursor");
    let refused = answer(stage.house.get("/v1/webhook-deliveries?state=lost", &stage.token)).await;
    assert_eq!(refused.problem().fields[0].field, "state");
}
