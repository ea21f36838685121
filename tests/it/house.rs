//! The daemon's API in this process, over a database of its own: an enrolled account, a threshold, a
//! chain that counts as read, people and tokens. What it serves is the real router on a loopback port.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use alloy::primitives::{Address, B256};
use amanatd::account::store::DeviceHint;
use amanatd::account::{self, AccountXpub, IssueLimit};
use amanatd::api::wire::ProblemView;
use amanatd::api::{self, ApiState, Client, DoorLimits, Doors};
use amanatd::chains::ChainBook;
use amanatd::console::{self, Console, ConsoleOptions};
use amanatd::daemon;
use amanatd::db::{Database, DatabaseLimits, DbError};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::officer::store::NewToken;
use amanatd::officer::{self, OfficerError, Scope, TokenSecret, UserRole};
use amanatd::quote::{Oracle, SourceOptions};
use amanatd::rpc::Node;
use amanatd::scan::store::NewBlock;
use amanatd::scan::tip::Link;
use amanatd::scan::{self};
use amanatd::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
use amanatd::units::{ApiTokenId, BlockNumber, BlockRef, ChainId, Confirmations, UserId};
use amanatd::webhook::Guard;
use axum::http::StatusCode;
use bip32::{ChildNumber, XPub};
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::watching::{CHAIN, XPUB, node_of};

/// Nobody listens there: for tests whose chain is only rows.
pub(crate) const NOBODY: &str = "http://127.0.0.1:9";

/// Receivers of tests listen on this machine.
pub(crate) fn loopback() -> Guard {
    Guard::new(vec!["127.0.0.0/8".parse().unwrap()])
}

/// An API with everything behind it.
pub(crate) struct ApiHouse {
    pub(crate) base: FreshDatabase,
    pub(crate) db: Database,
    pub(crate) book: Arc<ChainBook>,
    pub(crate) node: Arc<Node>,
    pub(crate) doors: Arc<Doors>,
    stop: CancellationToken,
    pub(crate) url: String,
    /// Where the console is.
    pub(crate) origin: String,
    pub(crate) oracle: Option<Arc<Oracle>>,
    http: reqwest::Client,
    server: JoinHandle<()>,
}

/// What a house quotes with.
pub(crate) struct Pricing {
    pub(crate) book: ChainBook,
    /// `None`: quoting is off.
    pub(crate) sources: Option<BTreeMap<String, SourceOptions>>,
    pub(crate) clock: fn() -> OffsetDateTime,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) content_type: String,
    pub(crate) body: String,
}

impl Answer {
    /// The problem document that every refusal is.
    pub(crate) fn problem(&self) -> ProblemView {
        assert_eq!(self.content_type, "application/problem+json", "{self:?}");
        let problem: ProblemView = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        assert_eq!(problem.status, self.status.as_u16(), "{self:?}");
        assert_eq!(problem.kind, format!("urn:amanatd:problem:{}", problem.code));
        problem
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!(self.content_type, "application/json", "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

impl ApiHouse {
    /// Over a chain that was read up to block 100 and whose node is away.
    pub(crate) async fn start() -> Self {
        Self::start_with(DoorLimits::default(), daemon::now).await
    }

    /// The same with other bounds on what a caller may have, and with the API's clock.
    pub(crate) async fn start_with(limits: DoorLimits, clock: fn() -> OffsetDateTime) -> Self {
        let house = Self::built(NOBODY, 16, limits, clock).await;
        house.read_up_to_100().await;
        house
    }

    /// As if the chain was read up to block 100.
    pub(crate) async fn read_up_to_100(&self) {
        let tip = BlockRef { number: BlockNumber(100), hash: B256::repeat_byte(1) };
        let outcome = self.db.unit::<_, DbError, _>(move |connection| {
            Box::pin(async move {
                let threshold = settings::store::get_threshold(connection, CHAIN).await?;
                let block = NewBlock { link: Link { block: tip, parent_hash: B256::ZERO }, time: daemon::now(), internal_read: false };
                scan::store::insert_blocks(connection, CHAIN, &[block], threshold.history_id).await?;
                scan::store::insert_cursor(connection, CHAIN, tip).await
            })
        });
        outcome.await.unwrap();
    }

    /// Over a node; nothing is read yet.
    pub(crate) async fn over(rpc_url: &str, connections_max: u32, limits: DoorLimits) -> Self {
        Self::built(rpc_url, connections_max, limits, daemon::now).await
    }

    async fn built(rpc_url: &str, connections_max: u32, limits: DoorLimits, clock: fn() -> OffsetDateTime) -> Self {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        Self::furnished(rpc_url, connections_max, limits, Pricing { book, sources: None, clock }).await
    }

    /// With sources of prices, or none, and a clock of its own.
    pub(crate) async fn pricing(rpc_url: &str, connections_max: u32, pricing: Pricing) -> Self {
        Self::furnished(rpc_url, connections_max, DoorLimits::default(), pricing).await
    }

    pub(crate) async fn furnished(rpc_url: &str, connections_max: u32, limits: DoorLimits, pricing: Pricing) -> Self {
        // Whoever was first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = FreshDatabase::create().unwrap();
        let database = DatabaseLimits { connections_max, ..DatabaseLimits::default() };
        let db = Database::connect(&base.url(APP), database).await.unwrap();
        let book = Arc::new(pricing.book);
        let node = Arc::new(node_of(&[rpc_url]));
        let nodes: Arc<BTreeMap<ChainId, Arc<Node>>> = Arc::new(BTreeMap::from([(CHAIN, Arc::clone(&node))]));
        let oracle = pricing.sources.map(|sources| Arc::new(Oracle::new(Arc::clone(&book), Arc::clone(&nodes), &sources).unwrap()));
        let stop = CancellationToken::new();
        let doors = Arc::new(Doors::new(limits, stop.clone()));
        let state = ApiState {
            db: db.clone(),
            book: Arc::clone(&book),
            nodes,
            max_fee_per_gas_max: 500_000_000_000,
            webhook_guard: loopback(),
            doors: Arc::clone(&doors),
            oracle: oracle.clone(),
            issue_limit: IssueLimit::default(),
            clock: pricing.clock,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        // Passkeys need a name: browsers and officers come by this one.
        let origin = format!("http://localhost:{}", listener.local_addr().unwrap().port());
        let pages = Console::new(state.clone(), ConsoleOptions::new(&origin, None).unwrap()).unwrap();
        let router = api::router(state).merge(console::router(pages)).into_make_service_with_connect_info::<SocketAddr>();
        let ending = stop.clone().cancelled_owned();
        let server = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(ending).await.unwrap() });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let house = Self { base, db, book, node, doors, stop, oracle, url, origin, http, server };
        house.enrol().await;
        house.set_threshold(3).await;
        house.set(ThresholdKey::base(Gate::Release, CHAIN), 5).await;
        house
    }

    async fn enrol(&self) {
        let outcome = self.db.unit::<_, account::AccountError, _>(|connection| {
            Box::pin(async move {
                let xpub: AccountXpub = XPUB.parse().unwrap();
                account::store::insert(connection, "test", &xpub, &DeviceHint::default()).await
            })
        });
        outcome.await.unwrap();
    }

    pub(crate) async fn set_threshold(&self, blocks: i64) {
        self.set(ThresholdKey::base(Gate::Credit, CHAIN), blocks).await;
    }

    /// Changes any threshold at once.
    pub(crate) async fn set(&self, key: ThresholdKey, blocks: i64) {
        let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
        let change = NewChange { key, blocks: Confirmations::new(blocks).ok(), effective_at: None, note };
        let set = self.db.unit::<_, SettingsError, _>(move |connection| {
            Box::pin(async move { settings::store::set(connection, &change).await.map(drop) })
        });
        set.await.unwrap();
    }

    // === people ===

    pub(crate) async fn user(&self, name: &str, role: UserRole) -> UserId {
        let (id, name) = (UserId(Uuid::now_v7()), name.to_owned());
        let outcome = self.db.unit::<_, OfficerError, _>(move |connection| {
            Box::pin(async move { officer::store::insert_user(connection, id, None, &name, role).await })
        });
        outcome.await.unwrap();
        id
    }

    /// The secret of a new token that lives for `days`; a negative number is one that has expired.
    pub(crate) async fn token(&self, scopes: &[Scope], user: Option<UserId>, days: i64) -> String {
        let id = ApiTokenId(Uuid::now_v7());
        let expires_at = Some(daemon::now() + time::Duration::days(days));
        let token = NewToken { id, name: format!("token-{id}"), scopes: scopes.to_vec(), user, expires_at };
        let mut random = [0; 32];
        getrandom::fill(&mut random).unwrap();
        let outcome = self.db.unit::<_, OfficerError, _>(move |connection| {
            Box::pin(async move {
                let secret = TokenSecret::from_random(random);
                officer::store::insert_token(connection, &token, &secret).await?;
                Ok(secret.expose().to_owned())
            })
        });
        outcome.await.unwrap()
    }

    /// A token of the marketplace's kind.
    pub(crate) async fn marketplace(&self) -> String {
        self.token(&[Scope::PaymentsRead, Scope::PaymentsWrite, Scope::IntentsRead, Scope::LedgerRead], None, 1).await
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(&self.url, SecretString::from(token)).unwrap()
    }

    // === calls ===

    pub(crate) fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str, token: &str, key: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::POST, path)
            .bearer_auth(token)
            .header("idempotency-key", key)
            .header("content-type", "application/json")
            .body(body)
    }

    pub(crate) fn get(&self, path: &str, token: &str) -> reqwest::RequestBuilder {
        self.request(reqwest::Method::GET, path).bearer_auth(token)
    }

    /// Stops the API as the daemon does, and waits until every connection has ended.
    pub(crate) async fn stop(&mut self) {
        self.stop.cancel();
        (&mut self.server).await.unwrap();
    }

    /// One number of the database, as the superuser reads it.
    pub(crate) fn count(&self, sql: &str) -> i64 {
        self.base.sql(sql).unwrap().trim().parse().unwrap()
    }

    /// Everything that creating a payment writes.
    pub(crate) fn stored(&self) -> String {
        let sql = "select (select count(*) from payments), (select count(*) from trezor_derived_addresses), \
             (select count(*) from derived_destinations), (select count(*) from events), (select count(*) from idempotency_keys), \
             (select next_deposit_index from trezor_accounts)";
        self.base.sql(sql).unwrap().trim().to_owned()
    }
}

impl Drop for ApiHouse {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Sends and reads whatever comes back.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status();
    let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    Answer { status, content_type, body: response.text().await.unwrap() }
}

/// An address of the enrolled account, derived by another implementation than the daemon's way to it.
pub(crate) fn derived(branch: u32, index: u32) -> Address {
    let step = |key: XPub, number| key.derive_child(ChildNumber::new(number, false).unwrap()).unwrap();
    let account: XPub = XPUB.parse().unwrap();
    let point = step(step(account, branch), index).public_key().to_sec1_point(false);
    Address::from_raw_public_key(&point.as_bytes()[1..])
}
