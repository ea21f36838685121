//! How much one caller may have: calls by token and by address, and streams of events.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use amanatd::api::wire::{EventPage, EventView};
use amanatd::api::{DoorLimits, DoorTotals, Rate};
use amanatd::daemon;
use amanatd::devkit::postgres::APP;
use amanatd::event;
use amanatd::officer::Scope;
use axum::http::StatusCode;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::house::{Answer, ApiHouse, answer};
use crate::watching::NOW;

/// Nothing here is measured; a test that would wait for ever fails instead.
const FOREVER: Duration = Duration::from_secs(120);

// === calls ===

static SECONDS: AtomicI64 = AtomicI64::new(0);

fn own_clock() -> OffsetDateTime {
    NOW + time::Duration::seconds(SECONDS.load(Ordering::SeqCst))
}

#[tokio::test]
async fn z9_a_token_and_an_address_have_so_many_calls_and_go_on_after_a_while() {
    let limits = DoorLimits { token: Rate { per_second: 1, burst: 4 }, address: Rate { per_second: 1, burst: 2 }, ..DoorLimits::default() };
    let house = ApiHouse::start_with(limits, own_clock).await;
    // That clock is far ahead of the tokens' own.
    let token = async || house.token(&[Scope::PaymentsRead], None, 36_500).await;
    let (one, other) = (token().await, token().await);
    let read = async |token: &str| answer(house.get("/v1/payments", token)).await;
    let refused = async |token: &str| house.get("/v1/payments", token).send().await.unwrap();

    for _ in 0..4 {
        assert_eq!(read(&one).await.status, StatusCode::OK);
    }
    let late = refused(&one).await;
    assert_eq!((late.status(), late.headers()["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    let problem = read(&one).await.problem();
    assert_eq!((problem.code.as_str(), problem.retryable), ("rate_limited", true));
    assert_eq!(read(&other).await.status, StatusCode::OK, "another token has its own");

    // Whoever shows no live token has what its address has, and takes nothing from tokens at the same address.
    let unknown = format!("amanat_{}", "0".repeat(64));
    let calls = [house.get("/v1/payments", &unknown), house.request(Method::GET, "/v1/openapi.json")];
    let statuses = [answer(calls[0].try_clone().unwrap()).await.status, answer(calls[1].try_clone().unwrap()).await.status];
    assert_eq!(statuses, [StatusCode::UNAUTHORIZED, StatusCode::OK]);
    let strangers = [
        house.get("/v1/payments", &unknown),
        house.get("/v1/payments", "nonsense"),
        house.request(Method::GET, "/v1/payments"),
        house.request(Method::GET, "/v1/openapi.json"),
        house.request(Method::GET, "/v1/nothing"),
        house.request(Method::PUT, "/v1/payments"),
    ];
    for stranger in strangers {
        assert_eq!(answer(stranger).await.problem().code, "rate_limited");
    }
    assert_eq!(read(&other).await.status, StatusCode::OK);
    let totals = DoorTotals { token_calls_refused: 2, address_calls_refused: 6, streams_open: 0 };
    assert_eq!(house.doors.totals(), totals);

    // A forwarded address is not believed: it would be a bucket for the asking.
    let forged = house.request(Method::GET, "/v1/payments").header("x-forwarded-for", "192.0.2.9").header("forwarded", "for=192.0.2.9");
    assert_eq!(answer(forged).await.status, StatusCode::TOO_MANY_REQUESTS);

    SECONDS.store(1, Ordering::SeqCst);
    assert_eq!([read(&one).await.status, read(&one).await.status], [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS]);
    assert_eq!(answer(house.request(Method::GET, "/v1/payments")).await.status, StatusCode::UNAUTHORIZED);
}

// === streams ===

/// A stream as a client reads it.
struct Reader {
    response: Response,
    text: String,
}

/// One event: its place, its kind, what it says.
type Heard = (String, String, EventView);

impl Reader {
    async fn open(house: &ApiHouse, token: &str, last: Option<&str>) -> Self {
        let mut request = house.get("/v1/events/stream", token);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!((response.status(), response.headers()["content-type"].to_str().unwrap()), (StatusCode::OK, "text/event-stream"));
        Self { response, text: String::new() }
    }

    /// The next event; `None` once the stream has ended.
    async fn next(&mut self) -> Option<Heard> {
        // Ends with an event or with the stream.
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let heard =
                    field("data: ").map(|data| (field("id: ").unwrap(), field("event: ").unwrap(), serde_json::from_str(&data).unwrap()));
                self.text = rest.to_owned();
                if heard.is_some() {
                    return heard;
                }
                continue;
            }
            let chunk = tokio::time::timeout(FOREVER, self.response.chunk()).await.expect("the stream goes on or ends");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    async fn take(&mut self, count: usize) -> Vec<Heard> {
        let mut heard = Vec::new();
        for _ in 0..count {
            heard.push(self.next().await.unwrap());
        }
        heard
    }
}

async fn create(house: &ApiHouse, token: &str) -> Answer {
    let body: Value = json!({
        "amount": "1", "currency": "USDC", "chain_id": 31337, "token": "USDC",
        "seller_address": "0x2222222222222222222222222222222222222222",
    });
    let created = answer(house.post("/v1/payments", token, &Uuid::new_v4().to_string(), body.to_string())).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    created
}

fn ids(heard: &[Heard]) -> Vec<i64> {
    heard.iter().map(|(_, _, event)| event.id).collect()
}

#[tokio::test]
async fn y2_a_stream_gives_each_event_once_in_order_and_goes_on_where_it_was() {
    let house = ApiHouse::start().await;
    let marketplace = house.marketplace().await;
    let listener = house.token(&[Scope::EventsRead], None, 1).await;
    create(&house, &marketplace).await;
    // A transaction of another database of the cluster holds the feed back while it runs.
    while answer(house.get("/v1/events", &listener)).await.json()["events"].as_array().unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    // From now on: what was before is not told.
    let mut reader = Reader::open(&house, &listener, None).await;
    for _ in 0..5 {
        create(&house, &marketplace).await;
    }
    let first = reader.take(5).await;
    assert!(first.iter().all(|(_, kind, event)| kind == "payment.created" && event.kind == *kind));
    drop(reader);

    for _ in 0..3 {
        create(&house, &marketplace).await;
    }
    let mut reader = Reader::open(&house, &listener, Some(&first[4].0)).await;
    let mut second = reader.take(3).await;
    create(&house, &marketplace).await;
    second.extend(reader.take(1).await);

    let feed: EventPage = serde_json::from_str(&answer(house.get("/v1/events", &listener)).await.body).unwrap();
    let all: Vec<i64> = feed.events.iter().map(|event| event.id).collect();
    assert_eq!([ids(&first), ids(&second)].concat(), all[1..]);
    assert_eq!(second[3].0, feed.next_cursor);

    // From the middle of what it had, with the same places; and more at once than a stream holds.
    let mut reader = Reader::open(&house, &listener, Some(&first[1].0)).await;
    assert_eq!(ids(&reader.take(7).await), all[3..]);
    for _ in 0..3 {
        let many = "insert into events (kind, detail) select 'test.many', jsonb_build_object('n', n) from generate_series(1, 90) n";
        house.base.sql(many).unwrap();
    }
    let many = reader.take(270).await;
    assert!(ids(&many).is_sorted_by(|one, next| one < next));

    for bad in ["", "x", "7", "1-x"] {
        let refused = answer(house.get("/v1/events/stream", &listener).header("last-event-id", bad)).await;
        assert_eq!((refused.status, refused.problem().fields[0].field.as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "Last-Event-ID"));
    }
}

#[tokio::test]
async fn y5_streams_are_bounded_and_end_with_their_token_and_with_the_daemon() {
    let limits = DoorLimits { streams_max: 2, ..DoorLimits::default() };
    let mut house = ApiHouse::start_with(limits, daemon::now).await;
    let listener = house.token(&[Scope::EventsRead], None, 1).await;
    let mut stays = Reader::open(&house, &listener, None).await;
    let passing = house.token(&[Scope::EventsRead], None, 1).await;
    let mut ends = Reader::open(&house, &passing, None).await;
    assert_eq!(house.doors.totals().streams_open, 2);
    let refused = answer(house.get("/v1/events/stream", &listener)).await;
    assert_eq!((refused.status, refused.problem().code.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "streams_full"));

    let revoke = "update api_tokens set revoked_at = now() where id = (select id from api_tokens order by created_at desc limit 1)";
    house.base.sql(revoke).unwrap();
    assert!(ends.next().await.is_none(), "who may no longer listen hears nothing more");
    // The seat is free once the connection is done with.
    let again = async {
        while house.doors.totals().streams_open > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FOREVER, again).await.unwrap();
    let mut next = Reader::open(&house, &listener, None).await;

    tokio::time::timeout(FOREVER, house.stop()).await.expect("open streams do not hold the daemon");
    assert!(stays.next().await.is_none() && next.next().await.is_none());
}

#[tokio::test]
async fn y7_a_stream_looks_when_the_database_knocks() {
    let limits = DoorLimits { stream_pause: Duration::from_secs(86_400), ..DoorLimits::default() };
    let house = ApiHouse::start_with(limits, daemon::now).await;
    let marketplace = house.marketplace().await;
    let listener = house.token(&[Scope::EventsRead], None, 1).await;
    let mut reader = Reader::open(&house, &listener, None).await;
    let mut notices = sqlx::postgres::PgListener::connect(&house.base.url(APP)).await.unwrap();
    notices.listen(event::WRITTEN).await.unwrap();
    create(&house, &marketplace).await;
    // Once for the transaction, and without a word of what happened.
    let notice = tokio::time::timeout(FOREVER, notices.recv()).await.expect("the database knocks").unwrap();
    assert_eq!(notice.payload(), "");
    // As the daemon hands it on; more often, since another database's transaction may hold the feed back for a moment.
    let doors = std::sync::Arc::clone(&house.doors);
    let knocking = tokio::spawn(async move {
        loop {
            doors.knock();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let (_, kind, _) = reader.next().await.unwrap();
    assert_eq!(kind, "payment.created");
    knocking.abort();
}
