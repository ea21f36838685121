//! An HTTP provider of risk scores. docs/operating.md documents the request and the answer.
//!
//! Nothing of it is trusted: no redirects, no proxies, only addresses that may be there, time limits, a cap on
//! the answer's size, and an answer that names each asked address exactly once. Whatever else comes back is no
//! answer, and no answer is never "clear".

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use alloy::primitives::{Address, B256};
use futures_util::future::{BoxFuture, join_all};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{StatusCode, Url, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::guard::Reach;
use super::policy::ScreenerKind;
use super::screener::{Answer, Screener, Subject};
use crate::units::parse_address;

/// A larger answer is not read to its end.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests at the same time; when all of them fail, the others are not sent.
const AT_ONCE: usize = 4;
/// Scores are from 0 to this.
pub const SCORE_MAX: u8 = 100;

/// How a provider is reached and read.
#[derive(Clone, Debug)]
pub struct ProviderOptions {
    /// How records name it.
    pub name: String,
    /// https; http too where it is in our own network.
    pub url: SecretString,
    /// Sent as a bearer token.
    pub token: Option<SecretString>,
    /// From this score on it is a hit; 1 to 100.
    pub hit_score: u8,
    pub reach: Reach,
    /// From the first byte sent to the last one read.
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("screening.provider.url is not an https URL; http is for a provider in your own network, with private = true")]
    Url,
    #[error("screening.provider.url names the address {0}, where no provider may be; one in your own network needs private = true")]
    Address(IpAddr),
    #[error("the HTTP client of the screening provider cannot be made")]
    Client(#[source] reqwest::Error),
}

pub struct Provider {
    name: String,
    url: Url,
    token: Option<SecretString>,
    hit_score: u8,
    http: reqwest::Client,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("hit_score", &self.hit_score).finish_non_exhaustive()
    }
}

impl Provider {
    /// Nothing is asked yet.
    pub fn new(options: ProviderOptions) -> Result<Self, ProviderError> {
        let url = Url::parse(options.url.expose_secret().trim()).map_err(|_| ProviderError::Url)?;
        let known = url.scheme() == "https" || (url.scheme() == "http" && options.reach == Reach::Private);
        if !known || url.host_str().is_none() {
            return Err(ProviderError::Url);
        }
        // An address in the URL is never resolved, so it is judged here.
        let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse::<IpAddr>().ok());
        if let Some(address) = literal.filter(|address| !options.reach.allows(*address)) {
            return Err(ProviderError::Address(address));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(options.timeout)
            .timeout(options.timeout)
            .dns_resolver(Guarded(options.reach))
            .build()
            .map_err(ProviderError::Client)?;
        Ok(Self { name: options.name, url, token: options.token, hit_score: options.hit_score, http })
    }

    /// As a policy names it: another score from which on it is a hit is another policy.
    pub fn identity(&self) -> String {
        format!("{}, hit from {}", self.name, self.hit_score)
    }

    async fn ask(&self, subject: &Subject) -> Result<Answer, Unusable> {
        let asked = subject.addresses();
        let body = serde_json::json!({
            "chain_id": subject.amount.asset.chain.get(), "tx_hash": subject.tx_hash, "asset": subject.amount.asset.asset.to_string(),
            "amount": subject.amount.units.to_string(), "addresses": asked,
        });
        let mut request = self.http.post(self.url.clone()).header(header::ACCEPT, "application/json").json(&body);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.expose_secret());
        }
        let mut response = request.send().await.map_err(Unusable::of)?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(if status.is_redirection() { Unusable::Redirect } else { Unusable::Status(status.as_u16()) });
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
            return Err(Unusable::NotJson);
        }
        let mut body = Vec::new();
        // Ends: the answer does, or its size or time is up.
        while let Some(chunk) = response.chunk().await.map_err(Unusable::of)? {
            if body.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(Unusable::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let scores = read_scores(&body, &asked)?;
        let hits = scores.iter().filter(|(_, score)| **score >= self.hit_score).map(|(address, _)| *address).collect();
        let digest = B256::from(<[u8; 32]>::from(Sha256::digest(&body)));
        let evidence = serde_json::json!({
            "provider": self.name, "hit_score": self.hit_score, "scores": scores, "response_sha256": digest,
        });
        Ok(Answer::Screened { hits, evidence })
    }

    async fn screen_all(&self, subjects: &[Subject]) -> Vec<Answer> {
        let mut answers = Vec::with_capacity(subjects.len());
        let mut down = false;
        for part in subjects.chunks(AT_ONCE) {
            if down {
                answers.extend(
                    part.iter().map(|_| Answer::Unavailable { reason: "it had just failed for others, and was not asked".to_owned() }),
                );
                continue;
            }
            let found = join_all(part.iter().map(|subject| self.ask(subject))).await;
            down = found.iter().all(Result::is_err);
            for (subject, answer) in part.iter().zip(found) {
                answers.push(answer.unwrap_or_else(|unusable| {
                    tracing::warn!(provider = self.name, tx.hash = %subject.tx_hash, reason = %unusable, "the screening provider gave no usable answer");
                    Answer::Unavailable { reason: unusable.to_string() }
                }));
            }
        }
        answers
    }
}

impl Screener for Provider {
    fn kind(&self) -> ScreenerKind {
        ScreenerKind::Provider
    }

    fn screen<'a>(&'a self, subjects: &'a [Subject]) -> BoxFuture<'a, Vec<Answer>> {
        Box::pin(self.screen_all(subjects))
    }
}

/// Why an answer cannot be used. Nothing of the answer itself, and no URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Unusable {
    #[error("timeout")]
    Timeout,
    #[error("it cannot be reached")]
    Unreachable,
    #[error("it redirects, and redirects are not followed")]
    Redirect,
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("its answer is not application/json")]
    NotJson,
    #[error("its answer has more than 64 KiB")]
    TooLarge,
    #[error("its answer is not of the documented form")]
    Form,
    #[error("its answer is about other addresses than those asked")]
    OtherAddresses,
    #[error("it gives a score that is no whole number from 0 to 100")]
    Score,
}

impl Unusable {
    // By value, because it maps errors: the error may print the URL and goes no further.
    #[allow(clippy::needless_pass_by_value, reason = "the shape of map_err")]
    fn of(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::Unreachable }
    }
}

#[derive(Deserialize)]
struct RawAnswer {
    results: Vec<RawResult>,
}

#[derive(Deserialize)]
struct RawResult {
    address: String,
    score: serde_json::Number,
}

fn read_scores(body: &[u8], asked: &[Address]) -> Result<BTreeMap<Address, u8>, Unusable> {
    let answer: RawAnswer = serde_json::from_slice(body).map_err(|_| Unusable::Form)?;
    let mut scores = BTreeMap::new();
    for result in answer.results {
        let address = parse_address(&result.address).map_err(|_| Unusable::OtherAddresses)?;
        let score = result.score.as_u64().and_then(|score| u8::try_from(score).ok()).filter(|score| *score <= SCORE_MAX);
        if !asked.contains(&address) || scores.insert(address, score.ok_or(Unusable::Score)?).is_some() {
            return Err(Unusable::OtherAddresses);
        }
    }
    if scores.len() == asked.len() { Ok(scores) } else { Err(Unusable::OtherAddresses) }
}

/// Resolves names as the system does, and keeps only addresses where a provider may be: what was judged is
/// what is connected to.
struct Guarded(Reach);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.0;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address is enough: a name that leads both ways is an attempt.
            if found.iter().any(|address| !reach.allows(address.ip())) {
                return Err("the screening provider's name leads to an address where no provider may be".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Address = Address::repeat_byte(0x11);
    const TWO: Address = Address::repeat_byte(0x22);

    #[test]
    fn xs_an_answer_names_each_address_once() {
        let result = |address: Address, score: &str| format!("{{\"address\":\"{address}\",\"score\":{score},\"more\":[1]}}");
        let answer = |results: &[String]| format!("{{\"results\":[{}],\"id\":\"x\"}}", results.join(","));
        let read = |body: &str| read_scores(body.as_bytes(), &[ONE, TWO]);
        let good = answer(&[result(TWO, "100"), result(ONE, "0")]);
        assert_eq!(read(&good), Ok(BTreeMap::from([(ONE, 0), (TWO, 100)])));
        for (body, expected) in [
            (answer(&[result(ONE, "0")]), Unusable::OtherAddresses),
            (answer(&[]), Unusable::OtherAddresses),
            (answer(&[result(ONE, "0"), result(ONE, "0")]), Unusable::OtherAddresses),
            (answer(&[result(ONE, "0"), result(TWO, "0"), result(TWO, "99")]), Unusable::OtherAddresses),
            (answer(&[result(ONE, "0"), result(Address::repeat_byte(3), "0")]), Unusable::OtherAddresses),
            (answer(&[result(ONE, "0"), result(TWO, "101")]), Unusable::Score),
            (answer(&[result(ONE, "0"), result(TWO, "-1")]), Unusable::Score),
            (answer(&[result(ONE, "0"), result(TWO, "0.5")]), Unusable::Score),
            (answer(&[result(ONE, "0"), result(TWO, "1e999")]), Unusable::Form),
            (answer(&[result(ONE, "0"), result(TWO, "null")]), Unusable::Form),
            (answer(&[result(ONE, "0"), result(TWO, "\"0\"")]), Unusable::Form),
            ("{\"results\":null}".to_owned(), Unusable::Form),
            ("{}".to_owned(), Unusable::Form),
            ("[]".to_owned(), Unusable::Form),
            ("<html>".to_owned(), Unusable::Form),
            (String::new(), Unusable::Form),
            (format!("{good}{good}"), Unusable::Form),
        ] {
            assert_eq!(read(&body), Err(expected), "{body}");
        }
    }

    #[test]
    fn z11_a_provider_is_https_on_the_internet_or_in_our_network() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let open = |url: &str, reach| {
            let options = ProviderOptions {
                name: "x".to_owned(),
                url: SecretString::from(url),
                token: None,
                hit_score: 50,
                reach,
                timeout: Duration::from_secs(1),
            };
            Provider::new(options).map(|provider| provider.identity())
        };
        assert_eq!(open("https://screen.example/v1", Reach::Public).unwrap(), "x, hit from 50");
        assert!(open("http://127.0.0.1:8080/", Reach::Private).is_ok());
        for bad in ["http://screen.example/", "ftp://screen.example/", "screen.example", ""] {
            assert!(matches!(open(bad, Reach::Public), Err(ProviderError::Url)), "{bad}");
        }
        for bad in ["https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/", "https://[::ffff:10.0.0.1]/"] {
            assert!(matches!(open(bad, Reach::Public), Err(ProviderError::Address(_))), "{bad}");
        }
        assert!(matches!(open("http://169.254.169.254/", Reach::Private), Err(ProviderError::Address(_))));
    }
}
