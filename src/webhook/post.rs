//! One attempt over HTTP: addresses checked where they are resolved, no redirects, no proxy, bounded in time and size.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use time::OffsetDateTime;

use super::guard::{self, Guard};
use super::schedule::{self, Outcome};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Connecting, sending and the whole answer.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(15);
/// How much of an answer is read, and how much of it is kept.
const ANSWER_BYTES_MAX: usize = 4_096;
const ANSWER_CHARS_KEPT: usize = 500;

/// One signed request, ready to go.
#[derive(Debug)]
pub(super) struct Letter {
    pub url: String,
    pub id: String,
    pub at: OffsetDateTime,
    pub signature: String,
    pub body: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Receipt {
    pub outcome: Outcome,
    pub status: Option<u16>,
    /// The beginning of the answer.
    pub answer: String,
    pub took: Duration,
}

/// Sends letters. One client for each scheme: what may be reached differs.
#[derive(Debug)]
pub(super) struct Post {
    guard: Arc<Guard>,
    secure: Client,
    plain: Client,
}

impl Post {
    pub(super) fn new(guard: Guard) -> Result<Self, reqwest::Error> {
        let guard = Arc::new(guard);
        let client = |tls: bool| {
            Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .timeout(TOTAL_TIMEOUT)
                .redirect(Policy::none())
                // A proxy would resolve names by itself, where nobody checks the addresses.
                .no_proxy()
                .user_agent(concat!("amanatd/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(Arc::new(GuardedNames { guard: Arc::clone(&guard), tls }))
                .build()
        };
        Ok(Self { secure: client(true)?, plain: client(false)?, guard })
    }

    pub(super) async fn send(&self, letter: Letter) -> Receipt {
        let began = Instant::now();
        let failed = |outcome| Receipt { outcome, status: None, answer: String::new(), took: began.elapsed() };
        // What was allowed when the endpoint was added may not be now.
        let url = match self.guard.read(&letter.url) {
            Ok(url) => url,
            Err(error) => return failed(Outcome::Forbidden(error.to_string())),
        };
        let client = if url.scheme() == "https" { &self.secure } else { &self.plain };
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", letter.id)
            .header("webhook-timestamp", letter.at.unix_timestamp().to_string())
            .header("webhook-signature", letter.signature)
            .body(letter.body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return failed(unsent(&error)),
        };
        let status = response.status();
        let rest = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let retry_after = rest.and_then(|text| schedule::retry_after(&text, letter.at));
        // The verdict is in the status; a body that breaks off changes nothing.
        let mut answer = Vec::new();
        // Ends with the body, at the cap, or at the timeout of the whole request.
        while answer.len() < ANSWER_BYTES_MAX {
            match response.chunk().await {
                Ok(Some(chunk)) => answer.extend_from_slice(&chunk[..chunk.len().min(ANSWER_BYTES_MAX - answer.len())]),
                Ok(None) | Err(_) => break,
            }
        }
        let answer = String::from_utf8_lossy(&answer).chars().filter(|character| !character.is_control()).take(ANSWER_CHARS_KEPT).collect();
        let outcome = match status {
            StatusCode::GONE => Outcome::Gone,
            status if status.is_success() => Outcome::Taken,
            status => Outcome::Refused { status: status.as_u16(), retry_after },
        };
        Receipt { outcome, status: Some(status.as_u16()), answer, took: began.elapsed() }
    }
}

/// Why nothing was sent or answered; the innermost cause says most, and none repeats the URL.
fn unsent(error: &reqwest::Error) -> Outcome {
    let mut cause: &dyn Error = error;
    while let Some(inner) = cause.source() {
        if let Some(refused) = inner.downcast_ref::<guard::GuardError>() {
            return Outcome::Forbidden(refused.to_string());
        }
        cause = inner;
    }
    if error.is_timeout() {
        return Outcome::Unreachable(format!("nothing within {} s", TOTAL_TIMEOUT.as_secs()));
    }
    Outcome::Unreachable(cause.to_string().chars().take(300).collect())
}

/// Resolves names as the system does, and gives an address only if it may be called. The connection is made to
/// what is given here, so a name cannot change its mind in between.
#[derive(Debug)]
struct GuardedNames {
    guard: Arc<Guard>,
    tls: bool,
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, tls) = (Arc::clone(&self.guard), self.tls);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            for address in &found {
                guard.check(address.ip(), tls)?;
            }
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}
