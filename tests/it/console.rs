//! The console as browsers meet it: over HTTP, with a real database behind it and a security key in memory.

mod browser;
mod passkey;

use std::collections::BTreeMap;

use amanatd::api::{DoorLimits, Rate};
use amanatd::console::identity;
use amanatd::daemon;
use amanatd::officer::{Scope, UserRole};
use amanatd::units::UserId;
use axum::http::StatusCode;
use reqwest::Method;
use serde_json::{Value, json};

use crate::api::planned;
use crate::house::ApiHouse;
use crate::way::Way;
use passkey::{Fault, SoftKey};

const PAGES: [&str; 13] = [
    "/console",
    "/console/payments",
    "/console/intents",
    "/console/ledger",
    "/console/prices",
    "/console/settings",
    "/console/findings",
    "/console/events",
    "/console/webhooks",
    "/console/sessions",
    "/console/plan",
    "/console/statements",
    "/console/disputes",
];

/// An answer, read whole.
#[derive(Debug)]
struct Seen {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    body: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A browser with its cookies.
struct Browser<'a> {
    house: &'a ApiHouse,
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
    csrf: String,
}

impl<'a> Browser<'a> {
    fn new(house: &'a ApiHouse) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { house, http, cookies: BTreeMap::new(), csrf: String::new() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let sent: Vec<String> = self
            .cookies
            .iter()
            .filter(|(name, _)| !name.ends_with("refresh") || path.starts_with("/console/session"))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let request = self.http.request(method, format!("{}{path}", self.house.origin));
        if sent.is_empty() { request } else { request.header("cookie", sent.join("; ")) }
    }

    /// A change as our own page makes it.
    fn change(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.request(Method::POST, path)
            .header("origin", &self.house.origin)
            .header("sec-fetch-site", "same-origin")
            .header("content-type", "application/json")
            .header("x-csrf-token", &self.csrf)
            .body(body.to_string())
    }

    async fn send(&mut self, request: reqwest::RequestBuilder) -> Seen {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let (name, rest) = cookie.to_str().unwrap().split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Seen { status, headers, body: response.text().await.unwrap() }
    }

    async fn get(&mut self, path: &str) -> Seen {
        let request = self.request(Method::GET, path);
        self.send(request).await
    }

    async fn post(&mut self, path: &str, body: Value) -> Seen {
        let request = self.change(path, &body);
        self.send(request).await
    }

    // === passkeys ===

    /// Both halves of enrolling by a link's secret.
    async fn enrol(&mut self, secret: &str, fault: Fault) -> Result<SoftKey, Box<Seen>> {
        let asked = self.post("/console/enrol/begin", json!({ "invitation": secret })).await;
        if asked.status != StatusCode::OK {
            return Err(Box::new(asked));
        }
        let asked = asked.json();
        let (key, credential) = SoftKey::enrol(&asked["options"], &self.house.origin, fault);
        let body = json!({ "ceremony": asked["ceremony"], "label": "soft key", "credential": credential });
        let finished = self.post("/console/enrol/finish", body).await;
        if finished.status == StatusCode::OK { Ok(key) } else { Err(Box::new(finished)) }
    }

    async fn try_sign_in(&mut self, key: &SoftKey, fault: Fault) -> Seen {
        let asked = self.post("/console/sign-in/begin", json!({})).await.json();
        let credential = key.answer(&asked["options"], &self.house.origin, fault);
        self.post("/console/sign-in/finish", json!({ "ceremony": asked["ceremony"], "credential": credential })).await
    }

    async fn sign_in(&mut self, key: &SoftKey) {
        let seen = self.try_sign_in(key, Fault::None).await;
        assert_eq!(seen.status, StatusCode::OK, "{seen:?}");
        let page = self.get("/console").await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        let (_, rest) = page.body.split_once("name=\"csrf-token\" content=\"").unwrap();
        self.csrf = rest[..64].to_owned();
    }

    /// Asks to approve what the page showed.
    async fn ask_approval(&mut self, intent: impl std::fmt::Display, digest: impl std::fmt::Display) -> Seen {
        self.post(&format!("/console/intents/{intent}/approval/begin"), json!({ "digest": digest.to_string() })).await
    }

    async fn answer_approval(&mut self, intent: impl std::fmt::Display, asked: &Value, key: &SoftKey, fault: Fault) -> Seen {
        let credential = key.answer(&asked["options"], &self.house.origin, fault);
        let body = json!({ "ceremony": asked["ceremony"], "credential": credential });
        self.post(&format!("/console/intents/{intent}/approval/finish"), body).await
    }
}

async fn link(house: &ApiHouse, user: UserId) -> String {
    let link = identity::invite(&house.db, &house.origin, user, daemon::now()).await.unwrap();
    let (page, secret) = link.split_once('#').unwrap();
    assert_eq!(page, format!("{}/console/enrol", house.origin));
    secret.to_owned()
}

/// An officer with a passkey, signed in.
async fn officer<'a>(house: &'a ApiHouse, name: &str) -> (UserId, SoftKey, Browser<'a>) {
    officer_as(house, name, UserRole::Guard).await
}

async fn officer_as<'a>(house: &'a ApiHouse, name: &str, role: UserRole) -> (UserId, SoftKey, Browser<'a>) {
    let user = house.user(name, role).await;
    let mut browser = Browser::new(house);
    let key = browser.enrol(&link(house, user).await, Fault::None).await.unwrap();
    browser.sign_in(&key).await;
    (user, key, browser)
}

// === every page ===

#[tokio::test]
async fn z8_every_page_carries_the_policy_and_obeys_it() {
    let house = ApiHouse::start().await;
    let (_, _, mut browser) = officer(&house, "officer").await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let mut pages: Vec<String> = PAGES.map(str::to_owned).into();
    pages.push(format!("/console/intents/{}", intent.id));
    pages.push(format!("/console/payments/{}", intent.payment.unwrap()));
    pages.extend(["/console/sign-in", "/console/enrol", "/console/nowhere", "/console/payments/nothing"].map(str::to_owned));
    for page in &pages {
        let seen = browser.get(page).await;
        let wanted = if page.ends_with("nowhere") || page.ends_with("nothing") { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(seen.status, wanted, "{page}: {seen:?}");
        assert_eq!(
            seen.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; \
             base-uri 'none'; form-action 'self'",
            "{page}"
        );
        assert_eq!(seen.header("x-content-type-options"), "nosniff");
        assert_eq!(seen.header("x-frame-options"), "DENY");
        assert_eq!(seen.header("cache-control"), "no-store");
        assert!(seen.header("content-type").starts_with("text/html"), "{page}");
        // Nothing that the policy would stop, and nothing from elsewhere.
        let lower = seen.body.to_lowercase();
        for wrong in [" style=", "<style", " onclick=", " onload=", "javascript:", "http://", "https://"] {
            assert!(!lower.contains(wrong), "{page} holds {wrong}");
        }
        assert_eq!(lower.matches("<script").count(), lower.matches("<script src=\"/console/assets/").count(), "{page}");
    }
    let sheet = browser.get("/console/sign-in").await.body;
    for asset in sheet.split('"').filter(|part| part.starts_with("/console/assets/")) {
        let seen = browser.get(asset).await;
        assert_eq!(seen.status, StatusCode::OK, "{asset}");
        assert!(seen.header("cache-control").contains("immutable"));
    }
    assert_eq!(browser.get("/console/assets/0/..%2f..%2fconsole.rs").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn z6_nothing_is_shown_without_a_passkey() {
    let house = ApiHouse::start().await;
    let user = house.user("officer", UserRole::Admin).await;
    let token = house.token(&Scope::ALL, Some(user), 1).await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let mut browser = Browser::new(&house);
    let mut pages: Vec<String> = PAGES.map(str::to_owned).into();
    pages.push(format!("/console/intents/{}", intent.id));
    for page in &pages {
        // An API token is no session, whatever it may do.
        for request in [browser.request(Method::GET, page), browser.request(Method::GET, page).bearer_auth(&token)] {
            let seen = browser.send(request).await;
            assert_eq!(seen.status, StatusCode::SEE_OTHER, "{page}: {seen:?}");
            assert!(seen.header("location").starts_with("/console/session/resume?next=/console"), "{page}: {}", seen.header("location"));
        }
    }
    let resumed = browser.get("/console/session/resume?next=/console/ledger").await;
    assert_eq!(resumed.header("location"), "/console/sign-in?why=first&next=/console/ledger");
    let asked = browser.ask_approval(intent.id, intent.digest).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED, "{asked:?}");
    let forged = "a".repeat(64);
    browser.cookies.insert("amanatd-access".to_owned(), forged);
    assert_eq!(browser.get("/console").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn z7_a_change_from_elsewhere_changes_nothing() {
    let house = ApiHouse::start().await;
    let (_, key, mut browser) = officer(&house, "officer").await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let path = format!("/console/intents/{}/approval/begin", intent.id);
    let body = json!({ "digest": intent.digest }).to_string();
    let own = browser.house.origin.clone();
    let bare = |browser: &Browser<'_>| browser.request(Method::POST, &path).header("content-type", "application/json").body(body.clone());
    let csrf = browser.csrf.clone();
    let forged: Vec<(&str, reqwest::RequestBuilder)> = vec![
        ("no origin", bare(&browser).header("x-csrf-token", &csrf)),
        ("another origin", bare(&browser).header("x-csrf-token", &csrf).header("origin", "https://evil.example")),
        ("the origin null", bare(&browser).header("x-csrf-token", &csrf).header("origin", "null")),
        ("another port", bare(&browser).header("x-csrf-token", &csrf).header("origin", "http://localhost:1")),
        ("a neighbouring site", bare(&browser).header("x-csrf-token", &csrf).header("origin", &own).header("sec-fetch-site", "same-site")),
        ("no token", bare(&browser).header("origin", &own)),
        ("another token", bare(&browser).header("origin", &own).header("x-csrf-token", "0".repeat(64))),
    ];
    for (what, request) in forged {
        let seen = browser.send(request).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{what}: {seen:?}");
    }
    // A form of another page can send no JSON.
    let form = browser.request(Method::POST, &path).header("origin", &own).header("x-csrf-token", &csrf).body("digest=1");
    assert!(browser.send(form).await.status.is_client_error());
    // Another name for this address: a page that was rebound to it.
    let port = own.rsplit(':').next().unwrap();
    for host in [format!("evil.example:{port}"), format!("127.0.0.1:{port}"), "localhost".to_owned()] {
        let request = browser.request(Method::GET, "/console").header("host", &host);
        assert_eq!(browser.send(request).await.status, StatusCode::MISDIRECTED_REQUEST, "{host}");
    }
    let out = browser.request(Method::POST, "/console/session/end").header("origin", "https://evil.example");
    assert_eq!(browser.send(out).await.status, StatusCode::FORBIDDEN);
    assert_eq!(browser.get("/console").await.status, StatusCode::OK, "still signed in");
    assert_eq!(house.count("select count(*) from intent_approvals"), 0);
    // The same, as our page asks it.
    let asked = browser.ask_approval(intent.id, intent.digest).await;
    assert_eq!(browser.answer_approval(intent.id, &asked.json(), &key, Fault::None).await.status, StatusCode::OK);
}

#[tokio::test]
async fn xa4_words_of_others_stay_words() {
    let house = ApiHouse::start().await;
    let evil = "<script src=//evil.example></script><img onerror=x>\"'";
    let (_, _, mut browser) = officer(&house, evil).await;
    house.base.sql("insert into events (kind, detail) values ('user.noted', '{\"<b>\": \"<script>alert(1)</script>\"}')").unwrap();
    for page in PAGES {
        let body = browser.get(page).await.body;
        assert!(
            !body.contains("<script src=//") && !body.contains("<img") && !body.contains("<script>alert") && !body.contains("<b>\""),
            "{page}"
        );
    }
    assert!(browser.get("/console/events").await.body.contains("alert(1)"), "shown, as text");
    // A query comes back as text too.
    let found = browser.get("/console/payments?find=%22%3E%3Cscript%3E").await.body;
    assert!(!found.contains("\"><script>"), "{found}");
}

// === enrolling ===

#[tokio::test]
async fn z6_a_link_enrols_once() {
    let house = ApiHouse::start().await;
    let user = house.user("officer", UserRole::Guard).await;
    let passkeys = || house.count("select count(*) from user_passkeys");
    let mut browser = Browser::new(&house);
    let refused = |seen: Result<SoftKey, Box<Seen>>| {
        let seen = seen.err().unwrap();
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{seen:?}");
        assert_eq!(seen.json()["text"], "That passkey was not accepted. Try again, or ask for a new link.");
    };
    for bad in ["", "0", &"0".repeat(64)] {
        refused(browser.enrol(bad, Fault::None).await);
    }
    // A new link ends the one before it.
    let old = link(&house, user).await;
    let secret = link(&house, user).await;
    refused(browser.enrol(&old, Fault::None).await);
    // What comes back wrong enrols nothing and leaves the link as it was.
    for fault in [Fault::Unverified, Fault::Origin, Fault::Challenge] {
        refused(browser.enrol(&secret, fault).await);
    }
    assert_eq!(passkeys(), 0);
    // Of two that began, one is first.
    let mut asked = Vec::new();
    for _ in 0..2 {
        asked.push(browser.post("/console/enrol/begin", json!({ "invitation": secret })).await.json());
    }
    let mut statuses = Vec::new();
    for asked in &asked {
        let (_, credential) = SoftKey::enrol(&asked["options"], &house.origin, Fault::None);
        let body = json!({ "ceremony": asked["ceremony"], "label": "key", "credential": credential });
        statuses.push(browser.post("/console/enrol/finish", body).await.status);
    }
    assert_eq!(statuses, [StatusCode::OK, StatusCode::UNAUTHORIZED]);
    assert_eq!(passkeys(), 1);
    refused(browser.enrol(&secret, Fault::None).await);
    // And not after its time.
    let late = link(&house, user).await;
    house
        .base
        .sql("update user_invitations set created_at = created_at - interval '1 hour', expires_at = now() where used_at is null")
        .unwrap();
    refused(browser.enrol(&late, Fault::None).await);
    assert_eq!(passkeys(), 1);
    // Only hashes are kept.
    for secret in [&old, &secret, &late] {
        assert_eq!(house.count(&format!("select count(*) from user_invitations where token_sha256 = '\\x{secret}'")), 0);
    }
}

#[tokio::test]
async fn z16_buyers_sellers_and_resolvers_get_nothing() {
    let house = ApiHouse::start().await;
    for (role, name) in [(UserRole::Buyer, "buyer"), (UserRole::Seller, "seller"), (UserRole::Resolver, "resolver")] {
        let user = house.user(name, role).await;
        let refused = identity::invite(&house.db, &house.origin, user, daemon::now()).await.unwrap_err();
        assert!(refused.to_string().contains(name), "{refused}");
        // An officer who became one of them: neither the session nor the key nor an open link is of use.
        let (user, key, mut browser) = officer(&house, &format!("was an officer before {name}")).await;
        let secret = link(&house, user).await;
        house.base.sql(&format!("update users set role = '{name}' where id = '{user}'")).unwrap();
        for page in PAGES {
            assert_eq!(browser.get(page).await.status, StatusCode::FORBIDDEN, "{name} {page}");
        }
        assert_eq!(browser.try_sign_in(&key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
        let resumed = browser.get("/console/session/resume?next=/console").await;
        assert!(resumed.header("location").starts_with("/console/sign-in?why=over"), "{resumed:?}");
        assert_eq!(browser.enrol(&secret, Fault::None).await.err().unwrap().status, StatusCode::UNAUTHORIZED);
        house.base.sql(&format!("update users set role = 'guard', status = 'suspended' where id = '{user}'")).unwrap();
        assert_eq!(browser.try_sign_in(&key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
    }
}

// === signing in ===

#[tokio::test]
async fn z6_a_wrong_answer_signs_nobody_in() {
    let house = ApiHouse::start().await;
    let (user, key, _) = officer(&house, "officer").await;
    let mut browser = Browser::new(&house);
    for fault in [Fault::Unverified, Fault::Origin, Fault::Challenge, Fault::Signature, Fault::Counter] {
        let seen = browser.try_sign_in(&key, fault).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{fault:?}: {seen:?}");
        assert!(browser.cookies.is_empty(), "{fault:?}");
        assert!(!seen.body.contains("counter") && !seen.body.contains("officer"), "why is not told: {seen:?}");
    }
    assert_eq!(house.count("select count(*) from events where kind = 'passkey.counter_fell'"), 1);
    // An answer serves once.
    let asked = browser.post("/console/sign-in/begin", json!({})).await.json();
    let body = json!({ "ceremony": asked["ceremony"], "credential": key.answer(&asked["options"], &house.origin, Fault::None) });
    assert_eq!(browser.post("/console/sign-in/finish", body.clone()).await.status, StatusCode::OK);
    assert_eq!(browser.post("/console/sign-in/finish", body).await.status, StatusCode::UNAUTHORIZED);
    // A locked-out officer has no key, no session and no link.
    assert_eq!(identity::lock_out(&house.db, user, daemon::now()).await.unwrap(), 1);
    assert_eq!(browser.get("/console").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.try_sign_in(&key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn z7_cookies_are_strict_and_sign_out_ends_the_session() {
    let house = ApiHouse::start().await;
    let (_, key, mut browser) = officer(&house, "officer").await;
    let seen = browser.try_sign_in(&key, Fault::None).await;
    let cookies: Vec<&str> = seen.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap()).collect();
    assert_eq!(cookies.len(), 2);
    assert!(cookies.iter().all(|cookie| cookie.contains("; HttpOnly; SameSite=Strict")), "{cookies:?}");
    assert!(cookies[1].contains("Path=/console/session;"), "{cookies:?}");
    browser.sign_in(&key).await;
    let held = browser.cookies.clone();
    assert_eq!(browser.post("/console/session/end", json!({})).await.status, StatusCode::OK);
    assert!(browser.cookies.is_empty());
    // Whoever kept them has nothing.
    browser.cookies = held;
    assert_eq!(browser.get("/console").await.status, StatusCode::SEE_OTHER);
    assert!(browser.get("/console/session/resume").await.header("location").starts_with("/console/sign-in?why=over"));
    // Neither token is in the database.
    for value in browser.cookies.values() {
        let sql = format!(
            "select count(*) from user_sessions s, user_refresh_tokens r where r.token = '{value}' or s.access_sha256 = '\\x{value}'"
        );
        assert_eq!(house.count(&sql), 0);
    }
}

#[tokio::test]
async fn z6_a_refresh_token_that_comes_twice_ends_every_session() {
    let house = ApiHouse::start().await;
    let (_, key, mut browser) = officer(&house, "officer").await;
    let mut elsewhere = Browser::new(&house);
    elsewhere.sign_in(&key).await;
    let first = browser.cookies.clone();
    let resumed = browser.get("/console/session/resume?next=/console/ledger").await;
    assert_eq!((resumed.status, resumed.header("location")), (StatusCode::SEE_OTHER, "/console/ledger"));
    assert_ne!(browser.cookies["amanatd-refresh"], first["amanatd-refresh"]);
    assert_eq!(browser.get("/console").await.status, StatusCode::OK);
    // The old access cookie is gone with it.
    let mut thief = Browser::new(&house);
    thief.cookies = first.clone();
    assert_eq!(thief.get("/console").await.status, StatusCode::SEE_OTHER);
    // At the same moment it is another tab: it gets nothing, and nothing ends.
    let tab = thief.get("/console/session/resume?next=/console").await;
    assert_eq!((tab.status, tab.header("location"), tab.headers.contains_key("set-cookie")), (StatusCode::SEE_OTHER, "/console", false));
    assert_eq!(browser.get("/console").await.status, StatusCode::OK);
    // Later it is a copy.
    house.base.sql("update user_refresh_tokens set used_at = used_at - interval '1 minute' where used_at is not null").unwrap();
    let reused = thief.get("/console/session/resume?next=/console").await;
    assert!(reused.header("location").starts_with("/console/sign-in?why=reused"), "{reused:?}");
    for browser in [&mut browser, &mut elsewhere] {
        assert_eq!(browser.get("/console").await.status, StatusCode::SEE_OTHER, "a session lives on");
        assert!(browser.get("/console/session/resume").await.header("location").starts_with("/console/sign-in?why=over"));
    }
    assert_eq!(house.count("select count(*) from events where kind = 'session.refresh_reused'"), 1);
    // Another officer reads it in the audit log.
    let (_, _, mut other) = officer(&house, "another").await;
    let log = other.get("/console/events?noun=session").await;
    assert!(log.body.contains("<li class=\"bad\">") && log.body.contains("session.refresh_reused"), "{log:?}");
    assert_eq!(house.count("select count(*) from user_sessions where ended_at is null"), 1, "the other officer's alone");
}

#[tokio::test]
async fn z6_a_session_ends_by_itself() {
    let house = ApiHouse::start().await;
    let (_, key, mut browser) = officer(&house, "officer").await;
    house.base.sql("update user_sessions set access_expires_at = now()").unwrap();
    assert_eq!(
        browser.get("/console/payments?state=funded").await.header("location"),
        "/console/session/resume?next=/console/payments%3Fstate%3Dfunded"
    );
    let resumed = browser.get("/console/session/resume?next=/console/payments%3Fstate%3Dfunded").await;
    assert_eq!(resumed.header("location"), "/console/payments?state=funded");
    assert_eq!(browser.get("/console").await.status, StatusCode::OK);
    house.base.sql("update user_sessions set expires_at = now()").unwrap();
    assert_eq!(browser.get("/console").await.status, StatusCode::SEE_OTHER);
    assert!(browser.get("/console/session/resume").await.header("location").starts_with("/console/sign-in?why=over"));
    browser.sign_in(&key).await;
    house.base.sql("update user_refresh_tokens set expires_at = now()").unwrap();
    assert!(browser.get("/console/session/resume").await.header("location").starts_with("/console/sign-in?why=over"));
}

#[tokio::test]
async fn z6_an_officer_sees_their_sessions_and_ends_each_and_all() {
    let house = ApiHouse::start().await;
    let (user, key, mut browser) = officer(&house, "officer").await;
    let mut elsewhere = Browser::new(&house);
    elsewhere.sign_in(&key).await;
    let (_, _, mut other) = officer(&house, "another").await;
    let sessions = |user: UserId| {
        let sql = format!(
            "select string_agg(id::text, ' ' order by created_at) from user_sessions where user_id = '{user}' and ended_at is null"
        );
        house.base.sql(&sql).unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mine = sessions(user);
    let page = browser.get("/console/sessions").await;
    assert_eq!(page.body.matches("data-end-session=").count(), 2, "{page:?}");
    assert!(page.body.contains("127.0.0.1") && page.body.contains("this one") && page.body.contains("soft key"), "{page:?}");
    // Nobody ends another's.
    let end = |session: &str| format!("/console/sessions/{session}/end");
    assert_eq!(other.post(&end(&mine[0]), json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.get("/console").await.status, StatusCode::OK);
    assert_eq!(browser.post(&end(&mine[1]), json!({})).await.status, StatusCode::OK);
    assert_eq!(elsewhere.get("/console").await.status, StatusCode::SEE_OTHER);
    assert_eq!(browser.post(&end(&mine[1]), json!({})).await.status, StatusCode::NOT_FOUND, "twice");
    // All, and only one's own.
    elsewhere.sign_in(&key).await;
    assert_eq!(elsewhere.post("/console/sessions/end", json!({})).await.status, StatusCode::OK);
    assert_eq!((sessions(user).len(), browser.get("/console").await.status), (0, StatusCode::SEE_OTHER));
    assert_eq!(other.get("/console").await.status, StatusCode::OK);
    let log = other.get("/console/events?noun=session").await;
    assert!(log.body.contains("session.ended") && log.body.contains("session.all_ended"), "{log:?}");
}

#[tokio::test]
async fn z9_who_tries_too_often_to_get_in_waits() {
    let limits = DoorLimits { entry: Rate { per_second: 1, burst: 5 }, ..DoorLimits::default() };
    let house = ApiHouse::start_with(limits, || time::OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000)).await;
    let mut browser = Browser::new(&house);
    let mut statuses = Vec::new();
    for path in ["/console/sign-in/begin", "/console/sign-in/finish", "/console/enrol/begin", "/console/enrol/finish"] {
        statuses.push(browser.post(path, json!({})).await.status);
    }
    assert!(statuses.iter().all(|status| *status != StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
    browser.get("/console/session/resume").await;
    let refused = browser.post("/console/sign-in/begin", json!({})).await;
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"), "{refused:?}");
    let page = browser.get("/console/session/resume").await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(page.body.contains("Too many tries"), "{page:?}");
    // Pages and the API are another matter, and what was refused is counted.
    assert_eq!(browser.get("/console/sign-in").await.status, StatusCode::OK);
    assert_eq!(house.doors.totals().address_calls_refused, 2);
}

// === approving ===

#[tokio::test]
async fn s6_an_approval_is_one_answer_to_one_digest() {
    let house = ApiHouse::start().await;
    let (first, key, mut browser) = officer(&house, "first").await;
    let (_, other_key, mut other) = officer(&house, "second").await;
    let intent = planned(&house, 2, "daemon".to_owned()).await;
    let another = planned(&house, 2, "daemon".to_owned()).await;
    let given = || house.count("select count(*) from intent_approvals");

    let page = browser.get(&format!("/console/intents/{}", intent.id)).await.body;
    assert!(
        page.contains(&intent.digest.to_string()) && page.contains("Approve with a passkey") && page.contains("transfer(to: 0x2222"),
        "{page}"
    );
    // Another digest than the row's is not even asked about.
    let stale = browser.ask_approval(intent.id, another.digest).await;
    assert_eq!(stale.status, StatusCode::CONFLICT, "{stale:?}");
    // The answer to one question approves nothing else.
    let asked = browser.ask_approval(another.id, another.digest).await.json();
    assert_eq!(browser.answer_approval(intent.id, &asked, &key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
    // Nor does it serve in another session, or with another officer's key.
    let asked = browser.ask_approval(intent.id, intent.digest).await.json();
    assert_eq!(other.answer_approval(intent.id, &asked, &other_key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
    let asked = browser.ask_approval(intent.id, intent.digest).await.json();
    assert_eq!(browser.answer_approval(intent.id, &asked, &other_key, Fault::None).await.status, StatusCode::UNAUTHORIZED);
    for fault in [Fault::Unverified, Fault::Origin, Fault::Challenge, Fault::Signature, Fault::Counter] {
        let asked = browser.ask_approval(intent.id, intent.digest).await.json();
        let seen = browser.answer_approval(intent.id, &asked, &key, fault).await;
        assert_eq!(seen.status, StatusCode::UNAUTHORIZED, "{fault:?}: {seen:?}");
    }
    assert_eq!(given(), 0);

    let asked = browser.ask_approval(intent.id, intent.digest).await.json();
    let credential = key.answer(&asked["options"], &house.origin, Fault::None);
    let body = json!({ "ceremony": asked["ceremony"], "credential": credential });
    let path = format!("/console/intents/{}/approval/finish", intent.id);
    let approved = browser.post(&path, body.clone()).await;
    assert_eq!(
        (approved.status, approved.json()["approvals"].as_u64(), approved.json()["required"].as_u64()),
        (StatusCode::OK, Some(1), Some(2))
    );
    // The same answer again is no second approval, and neither is a fresh one of the same officer.
    assert_eq!(browser.post(&path, body).await.status, StatusCode::UNAUTHORIZED);
    let asked = browser.ask_approval(intent.id, intent.digest).await.json();
    let twice = browser.answer_approval(intent.id, &asked, &key, Fault::None).await;
    assert_eq!(twice.status, StatusCode::CONFLICT, "{twice:?}");
    assert_eq!(given(), 1);
    let row = format!(
        "select count(*) from intent_approvals where officer_id = '{first}' and api_token_id is null and digest = '\\x{:x}'",
        intent.digest
    );
    assert_eq!(house.count(&row), 1);
    // The second officer completes it.
    let asked = other.ask_approval(intent.id, intent.digest).await.json();
    assert_eq!(other.answer_approval(intent.id, &asked, &other_key, Fault::None).await.status, StatusCode::OK);
    assert_eq!(house.count(&format!("select count(*) from intents where id = '{}' and state = 'approved'", intent.id)), 1);
    let late = browser.ask_approval(intent.id, intent.digest).await;
    assert_eq!(late.status, StatusCode::CONFLICT, "{late:?}");
}

#[tokio::test]
async fn s6_what_changed_after_the_page_was_read_is_not_approved() {
    let house = ApiHouse::start().await;
    let (user, key, mut browser) = officer(&house, "officer").await;
    let intent = planned(&house, 1, "daemon".to_owned()).await;
    let asked = browser.ask_approval(intent.id, intent.digest).await.json();
    // Somebody with the database changes the amount while the key is asked for.
    let past = "alter table payment_payouts drop constraint payment_payouts_intent_fkey";
    house.base.sql(&format!("{past}; update intents set amount = amount + 1 where id = '{}'", intent.id)).unwrap();
    let seen = browser.answer_approval(intent.id, &asked, &key, Fault::None).await;
    assert_eq!(seen.status, StatusCode::CONFLICT, "{seen:?}");
    assert_eq!(house.count("select count(*) from intent_approvals"), 0);
    for page in [format!("/console/intents/{}", intent.id), "/console/intents".to_owned(), "/console".to_owned()] {
        let body = browser.get(&page).await.body;
        assert!(body.contains("changed outside the daemon") && !body.contains("Approve with a passkey"), "{page}: {body}");
    }
    // What an officer asked for takes another officer.
    let own = planned(&house, 1, format!("user:{user}")).await;
    let asked = browser.ask_approval(own.id, own.digest).await.json();
    assert_eq!(browser.answer_approval(own.id, &asked, &key, Fault::None).await.status, StatusCode::CONFLICT);
    assert!(browser.get(&format!("/console/intents/{}", own.id)).await.body.contains("another officer has to approve"));
}

// === pages ===

#[tokio::test]
async fn a_payment_is_found_by_its_id_and_by_its_address() {
    let house = ApiHouse::start().await;
    let (_, _, mut browser) = officer(&house, "officer").await;
    let empty = browser.get("/console/payments").await.body;
    assert!(empty.contains("No payment has been created yet"), "{empty}");
    let payment = planned(&house, 1, "daemon".to_owned()).await.payment.unwrap();
    let address = house.base.sql("select '0x' || encode(address, 'hex') from derived_destinations").unwrap().trim().to_owned();
    for text in [payment.to_string(), address] {
        let found = browser.get(&format!("/console/payments?find={text}")).await;
        assert_eq!(found.header("location"), format!("/console/payments/{payment}"));
    }
    assert!(browser.get("/console/payments?find=nothing").await.body.contains("No payment has this id or address"));
    let page = browser.get(&format!("/console/payments/{payment}")).await.body;
    assert!(page.contains("Only <strong>USDC</strong>") && page.contains("class=\"qr\""), "{page}");
    // Lists go on behind a place, and a place that is none is refused.
    for page in ["/console/payments?before=x", "/console/events?before=x", "/console/intents?before=1_x", "/console/ledger?payment=x"] {
        assert_eq!(browser.get(page).await.status, StatusCode::BAD_REQUEST, "{page}");
    }
}

// === disputes, plan, statements ===

#[tokio::test]
async fn s6_a_dispute_is_ended_by_one_answer_to_one_decision() {
    let way = Way::start().await;
    let (payment, other) = (way.funded("USDC", "40", 0).await, way.funded("USDC", "50", 0).await);
    let open = async |payment, key: &str| way.marketplace.open_dispute(payment, "nothing was <b>delivered</b>", key).await.unwrap().id;
    let (dispute, another) = (open(payment.id, "one").await, open(other.id, "two").await);
    let house = &way.api;
    let (_, _, mut guard) = officer(house, "guard").await;
    let (admin, key, mut browser) = officer_as(house, "admin", UserRole::Admin).await;
    let page = format!("/console/disputes/{dispute}");
    let decision = json!({ "resolution": "refund", "note": "lost", "refund_to": "0x4444444444444444444444444444444444444444" });
    let begin = |id: &dyn std::fmt::Display| format!("/console/disputes/{id}/resolution/begin");

    // A guard reads it and cannot end it, on the page or past it.
    let seen = guard.get(&page).await;
    assert!(seen.body.contains("delivered") && !seen.body.contains("<b>delivered") && !seen.body.contains("resolve-form"), "{seen:?}");
    assert_eq!(guard.post(&begin(&dispute), decision.clone()).await.status, StatusCode::CONFLICT);
    assert!(browser.get(&page).await.body.contains("resolve-form"));
    // A decision that cannot be is told before the key is asked for.
    for (field, value) in [("refund_to", json!("0x12")), ("resolution", json!("burn")), ("note", json!("")), ("refund_amount", json!("1"))]
    {
        let mut bad = decision.clone();
        bad[field] = value;
        let refused = browser.post(&begin(&dispute), bad).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}: {refused:?}");
    }
    let finish = async |browser: &mut Browser<'_>, id: String, asked: &Value, key: &SoftKey| {
        let credential = key.answer(&asked["options"], &house.origin, Fault::None);
        let body = json!({ "ceremony": asked["ceremony"], "credential": credential });
        browser.post(&format!("/console/disputes/{id}/resolution/finish"), body).await
    };
    // An answer is for its own dispute, and serves once.
    let asked = browser.post(&begin(&dispute), decision.clone()).await.json();
    assert_eq!(finish(&mut browser, another.to_string(), &asked, &key).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(finish(&mut browser, dispute.to_string(), &asked, &key).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(house.count("select count(*) from disputes where state = 'open'"), 2);
    let asked = browser.post(&begin(&dispute), decision.clone()).await.json();
    let done = finish(&mut browser, dispute.to_string(), &asked, &key).await;
    assert_eq!((done.status, &done.json()["resolution"]), (StatusCode::OK, &json!("refund")), "{done:?}");
    let by = house.base.sql(&format!("select resolved_by from disputes where id = '{dispute}'")).unwrap();
    assert_eq!(by.trim(), format!("user:{admin}"));
    let again = browser.post(&begin(&dispute), decision).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{again:?}");
    let payouts = way.read(payment.id).await.payouts;
    assert_eq!((payouts.len(), payouts[0].kind.as_str(), payouts[0].dispute_id), (1, "refund", Some(dispute)));
    way.rounds().await;
    way.assert_sound().await;
    assert!(browser.get("/console/plan").await.body.contains(&format!("/console/payments/{}", payment.id)));
}

#[tokio::test]
async fn z15_statements_are_drawn_and_downloaded_in_a_session_only() {
    let way = Way::start().await;
    let payment = way.funded("USDC", "40", 0).await;
    let (_, _, mut browser) = officer(&way.api, "officer").await;
    for period in ["1h", "24h", "7d", "30d", "90d"] {
        let page = browser.get(&format!("/console/statements?period={period}")).await;
        assert!(page.body.contains("class=\"series custody\"") && page.body.contains("class=\"part held\""), "{page:?}");
    }
    assert_eq!(browser.get("/console/statements?period=1y").await.status, StatusCode::BAD_REQUEST);
    let csv = browser.get(&format!("/console/statements/entries?payment={}&format=csv", payment.id)).await;
    assert!(csv.header("content-type").starts_with("text/csv") && csv.header("content-disposition").starts_with("attachment;"), "{csv:?}");
    assert!(csv.body.lines().count() >= 3 && csv.body.contains("payment_detected"), "{csv:?}");
    let day = browser.get("/console/statements/entries?from=2001-01-01&until=2001-01-31&format=json").await;
    assert_eq!(day.json(), json!([]));
    let balances = browser.get("/console/statements/balances?format=json").await.json();
    assert!(balances.as_array().unwrap().iter().any(|line| line["kind"] == "held" && line["balance_units"] == "40000000"), "{balances}");
    for bad in ["entries?from=yesterday", "entries?payment=7", "balances?format=xml"] {
        assert_eq!(browser.get(&format!("/console/statements/{bad}")).await.status, StatusCode::BAD_REQUEST, "{bad}");
    }
    let mut stranger = Browser::new(&way.api);
    assert_eq!(stranger.get("/console/statements/entries").await.status, StatusCode::SEE_OTHER);
}
