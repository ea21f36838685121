//! Sessions: two cookies, and what becomes of them.
//!
//! The access cookie is opaque and short; the refresh cookie goes to one path, serves once, and is replaced
//! by another each time. One that comes a second time was copied: all of its person's sessions end. Two tabs
//! that refresh at the same instant are told apart by time: the later one gets nothing, and the browser
//! has the new cookies already.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::store::{self, Holder, NewSession};
use super::{Secret, of_nobody};
use crate::console::page::Refusal;
use crate::console::{Console, ConsoleError};
use crate::event;
use crate::units::UserId;

/// How long an access cookie serves.
pub(in crate::console) const ACCESS_LIVES: Duration = Duration::minutes(10);
/// How long a session stays when nobody looks at the console.
const REFRESH_LIVES: Duration = Duration::hours(2);
/// How long it lasts at most: a working day, then the passkey is asked for again.
const SESSION_LIVES: Duration = Duration::hours(12);
/// Within this time a second use of a refresh token is another tab's, and gets nothing.
const OTHER_TAB: Duration = Duration::seconds(20);

/// The refresh cookie goes here and nowhere else.
const REFRESH_PATH: &str = "/console/session";
const CSRF_HEADER: &str = "x-csrf-token";

/// What a browser is to keep.
#[derive(Debug)]
pub(in crate::console) struct Tokens {
    access: Secret,
    refresh: Secret,
}

/// From where and with what somebody tries to get in, as far as it can be known: shown to them, and never believed.
#[derive(Clone, Debug)]
pub(in crate::console) struct Attempt {
    pub from: String,
    pub with: String,
}

/// How much of what a browser calls itself is kept.
const WITH_CHARS_MAX: usize = 200;

/// Refuses once there were too many tries from an address. Behind a proxy that is the proxy's, so all its officers share it.
impl FromRequestParts<Console> for Attempt {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Self::Rejection> {
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical());
        let address = address.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        console.api.doors.admit_entry(address, console.now()).map_err(|seconds| Refusal::TooMany { seconds })?;
        let with = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(Self { from: address.to_string(), with: with.chars().take(WITH_CHARS_MAX).collect() })
    }
}

/// Begins a session of somebody whose passkey was just judged.
pub(in crate::console) async fn begin(
    connection: &mut PgConnection,
    user: UserId,
    attempt: &Attempt,
    now: OffsetDateTime,
) -> Result<Tokens, ConsoleError> {
    let tokens = Tokens { access: Secret::new()?, refresh: Secret::new()? };
    let session = NewSession {
        id: Uuid::now_v7(),
        user,
        access_sha256: tokens.access.sha256(),
        access_expires_at: now + ACCESS_LIVES,
        csrf_token: Secret::new()?.expose().to_owned(),
        created_at: now,
        expires_at: now + SESSION_LIVES,
        begun_from: attempt.from.clone(),
        begun_with: attempt.with.clone(),
    };
    store::insert_session(connection, &session).await?;
    store::insert_refresh(connection, tokens.refresh.sha256(), user, session.id, now + REFRESH_LIVES).await?;
    Ok(tokens)
}

/// What came of a refresh cookie.
#[derive(Debug)]
pub(in crate::console) enum Resumed {
    Tokens(Tokens),
    /// Another tab was there a moment ago; its answer has the cookies.
    OtherTab,
    /// It was used before: copied. All sessions of its person are ended.
    Reused,
    /// Unknown, ended, or too old.
    Over,
}

pub(in crate::console) async fn resume(
    connection: &mut PgConnection,
    presented: &Secret,
    now: OffsetDateTime,
) -> Result<Resumed, ConsoleError> {
    let hash = presented.sha256();
    let Some(refresh) = store::lock_refresh(connection, hash).await? else { return Ok(Resumed::Over) };
    if let Some(used_at) = refresh.used_at {
        if now - used_at <= OTHER_TAB {
            return Ok(Resumed::OtherTab);
        }
        store::end_sessions(connection, refresh.user, now, "a refresh token was used twice").await?;
        let detail = serde_json::json!({ "user": refresh.user, "session": refresh.session });
        event::store::append(connection, &of_nobody("session.refresh_reused", detail)).await?;
        tracing::error!(user = %refresh.user, "a refresh token was used twice: it was copied; all sessions of this officer are ended");
        return Ok(Resumed::Reused);
    }
    if refresh.expires_at <= now || refresh.session_expires_at <= now || !refresh.role.is_officer() {
        return Ok(Resumed::Over);
    }
    let tokens = Tokens { access: Secret::new()?, refresh: Secret::new()? };
    store::use_refresh(connection, hash, now).await?;
    store::set_access(connection, refresh.session, tokens.access.sha256(), now + ACCESS_LIVES).await?;
    store::insert_refresh(connection, tokens.refresh.sha256(), refresh.user, refresh.session, now + REFRESH_LIVES).await?;
    Ok(Resumed::Tokens(tokens))
}

// === cookies ===

/// How our cookies are named and marked.
#[derive(Clone, Copy, Debug)]
pub(in crate::console) struct Cookies {
    /// Off only where the console is on loopback without TLS.
    pub secure: bool,
}

impl Cookies {
    fn access(self) -> &'static str {
        // The prefix makes browsers refuse the cookie without `Secure`.
        if self.secure { "__Secure-amanatd-access" } else { "amanatd-access" }
    }

    fn refresh(self) -> &'static str {
        if self.secure { "__Secure-amanatd-refresh" } else { "amanatd-refresh" }
    }

    pub(in crate::console) fn presented_access(self, headers: &HeaderMap) -> Option<Secret> {
        presented(headers, self.access())
    }

    pub(in crate::console) fn presented_refresh(self, headers: &HeaderMap) -> Option<Secret> {
        presented(headers, self.refresh())
    }

    pub(in crate::console) fn set(self, headers: &mut HeaderMap, tokens: &Tokens) {
        self.put(headers, (self.access(), "/console"), tokens.access.expose(), ACCESS_LIVES);
        self.put(headers, (self.refresh(), REFRESH_PATH), tokens.refresh.expose(), REFRESH_LIVES);
    }

    pub(in crate::console) fn clear(self, headers: &mut HeaderMap) {
        self.put(headers, (self.access(), "/console"), "", Duration::ZERO);
        self.put(headers, (self.refresh(), REFRESH_PATH), "", Duration::ZERO);
    }

    fn put(self, headers: &mut HeaderMap, (name, path): (&str, &str), value: &str, lives: Duration) {
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Path={path}; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lives.whole_seconds());
        if let Ok(mut value) = HeaderValue::from_str(&cookie) {
            value.set_sensitive(true);
            headers.append(header::SET_COOKIE, value);
        }
    }
}

fn presented(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let all = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut found = all.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).filter(|(known, _)| *known == name);
    let (_, value) = found.next()?;
    // Two of one name: somebody on a neighbouring host planted one.
    if found.next().is_some() { None } else { Secret::presented(value) }
}

// === who asks ===

/// An officer in a session, who may be shown the console.
#[derive(Clone, Debug)]
pub(in crate::console) struct Officer {
    pub holder: Holder,
}

impl FromRequestParts<Console> for Officer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, Self::Rejection> {
        let wanted = parts.uri.path_and_query().map_or("/console", |path| path.as_str()).to_owned();
        let Some(access) = console.cookies.presented_access(&parts.headers) else { return Err(Refusal::SignedOut { wanted }) };
        let mut connection = console.api.db.connection().await.map_err(ConsoleError::from)?;
        let holder = store::find_holder(&mut connection, access.sha256(), console.now()).await.map_err(ConsoleError::from)?;
        let Some(holder) = holder else { return Err(Refusal::SignedOut { wanted }) };
        if !holder.role.is_officer() {
            return Err(Refusal::NotAnOfficer);
        }
        // Whatever changes something repeats what only our own pages can know.
        if parts.method != Method::GET && parts.method != Method::HEAD {
            let given = parts.headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !same(given.as_bytes(), holder.csrf_token.as_bytes()) {
                return Err(Refusal::Forged);
            }
        }
        Ok(Self { holder })
    }
}

/// Compares without telling by time how much of it was right.
fn same(given: &[u8], right: &[u8]) -> bool {
    given.len() == right.len() && given.iter().zip(right).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Where to go after signing in: a page of the console and nothing else.
pub(in crate::console) fn safe_target(wanted: Option<&str>) -> &str {
    let good = |path: &&str| {
        (*path == "/console" || path.starts_with("/console/") || path.starts_with("/console?"))
            && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?=&-_.,:%".contains(&byte))
            && !path.contains("//")
            && !path.starts_with("/console/session")
            && !path.starts_with("/console/sign-in")
            && path.len() <= 500
    };
    wanted.filter(good).unwrap_or("/console")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z7_cookies_are_kept_from_scripts_and_from_other_sites() {
        let tokens = Tokens { access: Secret::new().unwrap(), refresh: Secret::new().unwrap() };
        for secure in [true, false] {
            let mut headers = HeaderMap::new();
            Cookies { secure }.set(&mut headers, &tokens);
            let cookies: Vec<&str> = headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect();
            assert_eq!(cookies.len(), 2);
            for cookie in &cookies {
                assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
                assert_eq!(cookie.contains("; Secure"), secure, "{cookie}");
                assert_eq!(cookie.starts_with("__Secure-"), secure, "{cookie}");
            }
            assert!(cookies[1].contains("; Path=/console/session;"), "{}", cookies[1]);
        }
    }

    #[test]
    fn z7_a_cookie_that_comes_twice_counts_as_none() {
        let cookies = Cookies { secure: false };
        let value = "a".repeat(64);
        let of = |text: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            cookies.presented_access(&headers).is_some()
        };
        assert!(of(format!("x=1; amanatd-access={value}; y=2")));
        assert!(!of(format!("amanatd-access={value}; amanatd-access={value}")));
        assert!(!of(format!("amanatd-access={}", "a".repeat(63))));
    }

    #[test]
    fn z7_nobody_is_sent_elsewhere() {
        for good in ["/console", "/console/payments?state=funded", "/console/intents/01a2-3"] {
            assert_eq!(safe_target(Some(good)), good);
        }
        for bad in [
            "",
            "//evil.example",
            "https://evil.example",
            "/consolex",
            "/console//evil",
            "/console/\\evil",
            "/console/session/resume",
            "/v1",
            "/console/\r\n",
        ] {
            assert_eq!(safe_target(Some(bad)), "/console", "{bad:?}");
        }
    }
}
