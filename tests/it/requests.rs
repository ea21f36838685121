//! What the log says about a request, and under which id.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use amanatd::account::IssueLimit;
use amanatd::api::{self, ApiState, Doors};
use amanatd::chains::ChainBook;
use amanatd::db::{Database, DatabaseLimits};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::officer::store::NewToken;
use amanatd::officer::{self, OfficerError, Scope, TokenSecret};
use amanatd::units::ApiTokenId;
use amanatd::webhook::Guard;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use tower::ServiceExt;
use tracing_subscriber::fmt::MakeWriter;

use crate::watching::NOW;

/// A log that a test can read.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines_with(&self, words: &[&str]) -> usize {
        self.text().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

struct Asked {
    base: FreshDatabase,
    router: axum::Router,
    log: Log,
}

impl Asked {
    async fn start() -> Self {
        let base = FreshDatabase::create().unwrap();
        let db = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() }).await.unwrap();
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let state = ApiState {
            db,
            book: Arc::new(book),
            nodes: Arc::new(BTreeMap::new()),
            max_fee_per_gas_max: 500_000_000_000,
            webhook_guard: Guard::default(),
            doors: Arc::new(Doors::default()),
            oracle: None,
            issue_limit: IssueLimit::default(),
            clock: || NOW,
        };
        Self { base, router: api::router(state), log: Log::default() }
    }

    /// Status, and the id of the answer.
    async fn ask(&self, request: Request<Body>) -> (StatusCode, String) {
        let subscriber = tracing_subscriber::fmt().with_writer(self.log.clone()).with_ansi(false).finish();
        // For the whole thread, since units of work are tasks of their own; a test's runtime has one.
        let _heard = tracing::subscriber::set_default(subscriber);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let id = response.headers().get("x-request-id").unwrap().to_str().unwrap().to_owned();
        (response.status(), id)
    }
}

#[tokio::test]
async fn a_request_is_logged_by_its_id_and_path_and_nothing_private() {
    let asked = Asked::start().await;
    let request = Request::get("/v1/payments?cursor=private")
        .header("x-request-id", "shop-17")
        .header("authorization", "Bearer amanat_private")
        .body(Body::from("private"))
        .unwrap();
    assert_eq!(asked.ask(request).await, (StatusCode::UNAUTHORIZED, "shop-17".to_owned()));
    let words = ["INFO", "request.id=\"shop-17\"", "method=\"GET\"", "path=\"/v1/payments\"", "status=401", "latency_ms="];
    assert_eq!(asked.log.lines_with(&words), 1, "{}", asked.log.text());
    assert!(!asked.log.text().contains("private"), "{}", asked.log.text());

    let (_, made) = asked.ask(Request::get("/v1/nothing").body(Body::empty()).unwrap()).await;
    assert_eq!(asked.log.lines_with(&[&made, "status=404"]), 1, "{}", asked.log.text());
    // A caller's words are repeated, but not at any length.
    let long = "x".repeat(4_000);
    asked.ask(Request::get("/v1/nothing").header("x-request-id", &long).body(Body::empty()).unwrap()).await;
    assert!(!asked.log.text().contains(&"x".repeat(129)));
}

#[tokio::test]
async fn a_failure_inside_is_logged_under_the_id_of_its_request() {
    let asked = Asked::start().await;
    let token = station_token(&asked.base).await;
    // The write is a unit of work in a task of its own; what fails in there is the request's failure too.
    asked.base.sql("alter table intents rename to intents_gone").unwrap();
    let request = Request::post("/v1/intents/00000000-0000-0000-0000-000000000001/claim")
        .header("x-request-id", "station-3")
        .header("authorization", format!("Bearer {token}"))
        .header("idempotency-key", "one")
        .header("content-type", "application/json")
        .body(Body::from("{\"station\":\"desk\"}"))
        .unwrap();
    let (status, id) = asked.ask(request).await;
    assert_eq!((status, id.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "station-3"));
    let words = ["ERROR", "request.id=\"station-3\"", "request failed in the database"];
    assert_eq!(asked.log.lines_with(&words), 1, "{}", asked.log.text());
    assert!(!asked.log.text().contains(&token));
}

/// The bearer token of a signing station.
async fn station_token(base: &FreshDatabase) -> String {
    let db = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 1, ..DatabaseLimits::default() }).await.unwrap();
    let secret = TokenSecret::from_random([7; 32]);
    let token = NewToken {
        id: ApiTokenId(uuid::Uuid::from_u128(1)),
        name: "station".to_owned(),
        scopes: vec![Scope::Signing],
        user: None,
        expires_at: None,
    };
    let presented = secret.expose().to_owned();
    db.unit::<_, OfficerError, _>(move |connection| {
        Box::pin(async move { officer::store::insert_token(connection, &token, &secret).await })
    })
    .await
    .unwrap();
    presented
}
