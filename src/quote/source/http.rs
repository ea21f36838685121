//! Asking venues: one client with its own limits for each. No redirects, no proxy, no retries; an answer that
//! is too long, too late or no success is none.

use std::fmt;
use std::time::Duration;

use reqwest::Client;
use reqwest::header::ACCEPT;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::Ask;
use crate::quote::observation::Invalid;

/// How long a venue may take.
#[derive(Clone, Copy, Debug)]
pub struct VenueLimits {
    pub connect: Duration,
    pub total: Duration,
    /// At least this long between two requests.
    pub gap: Duration,
}

impl VenueLimits {
    pub fn per_minute(requests: u32) -> Self {
        Self {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(6),
            gap: Duration::from_millis(60_000 / u64::from(requests.max(1))),
        }
    }
}

/// A venue, where it is asked.
pub struct VenueClient {
    base: String,
    key: Option<SecretString>,
    client: Client,
    turns: Mutex<Interval>,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ClientError(#[from] reqwest::Error);

impl VenueClient {
    /// `base` is the URL before the path of a request.
    pub fn new(base: &str, key: Option<SecretString>, limits: VenueLimits) -> Result<Self, ClientError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .user_agent(concat!("amanatd/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits.connect)
            .timeout(limits.total)
            .build()?;
        let mut turns = interval(limits.gap.max(Duration::from_millis(1)));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), key, client, turns: Mutex::new(turns) })
    }

    /// The text of an answer.
    pub async fn get(&self, ask: &Ask) -> Result<String, Invalid> {
        self.turns.lock().await.tick().await;
        let mut request = self.client.get(format!("{}{}", self.base, ask.path)).header(ACCEPT, "application/json, text/xml;q=0.9");
        if let Some(key) = &self.key {
            request = request.bearer_auth(key.expose_secret());
        }
        let mut response = request.send().await.map_err(|_| Invalid::Unreachable)?;
        if !response.status().is_success() {
            return Err(Invalid::Refused);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Invalid::Unreachable)? {
            if body.len() + chunk.len() > ask.body_bytes_max {
                return Err(Invalid::Decode);
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| Invalid::Decode)
    }
}

impl fmt::Debug for VenueClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VenueClient").field("base", &self.base).field("keyed", &self.key.is_some()).finish_non_exhaustive()
    }
}
