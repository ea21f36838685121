//! One endpoint: a client with limits, and one JSON-RPC call on it.
//!
//! The URL is a secret. It leaves this file only towards the endpoint itself: not in an error, not in a
//! log line, not in `Debug`.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::envelope::{EnvelopeFault, ErrorObject, read_batch, read_single};
use super::error::{Fault, clean, read_range_refusal, read_refusal};
use super::node::NodeError;
use super::pace::{Adaptive, Pace};

/// What a provider lets us do. Starting values: below them the daemon adapts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProviderLimits {
    /// Requests a second, evenly spaced. `None`: as fast as it answers.
    pub requests_per_second: Option<u32>,
    /// Requests at the same time.
    pub in_flight: u32,
    /// Calls in one batch request; 1 for providers that refuse batches.
    pub batch_calls: u32,
    /// Blocks in one range of logs.
    pub log_range_blocks: u32,
}

impl Default for ProviderLimits {
    fn default() -> Self {
        Self { requests_per_second: None, in_flight: 8, batch_calls: 100, log_range_blocks: 10_000 }
    }
}

pub(super) const LOGS: &str = "eth_getLogs";

/// Where a range of logs starts; what is configured may be less.
const LOG_RANGE_START: u32 = 2_000;

/// Bounds of one call. alloy's default HTTP client has none: a silent node would hold it for ever.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLimits {
    pub connect: Duration,
    /// The longest silence while the answer arrives.
    pub read: Duration,
    /// From the first byte sent to the last byte read.
    pub total: Duration,
    pub body_bytes_max: usize,
}

impl Default for EndpointLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(10),
            total: Duration::from_secs(30),
            // A full block with 10,000 logs stays below; a body above is a fault or an attack.
            body_bytes_max: 32 * 1024 * 1024,
        }
    }
}

/// An endpoint never rested: no time is this early.
const NEVER: i64 = i64::MIN;

/// The smallest part of a URL that is long enough to be a key.
const SECRET_LEN_MIN: usize = 6;

pub(super) struct Endpoint {
    name: String,
    url: Url,
    /// Parts of the URL that may be keys, for striking them out of the node's own text.
    secrets: Vec<String>,
    client: Client,
    body_bytes_max: usize,
    next_id: AtomicU64,
    requests: AtomicU64,
    bytes_in: AtomicU64,
    faults: AtomicU64,
    dissents: AtomicU64,
    chain_proved: AtomicBool,
    rests_since_ms: AtomicI64,
    turns: Semaphore,
    pace: Pace,
    /// Calls in one batch.
    pub(super) batch: Adaptive,
    /// Blocks in one range of logs.
    pub(super) log_range: Adaptive,
    pub(super) tracing: Tracing,
}

impl Endpoint {
    /// `position` counts from 1, as people do.
    pub(super) fn new(text: &str, position: usize, limits: EndpointLimits, provider: ProviderLimits) -> Result<Self, NodeError> {
        // The text is a secret, so the error names the position alone.
        let url = Url::parse(text).map_err(|_| NodeError::Url { position })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if !matches!(url.scheme(), "http" | "https") || host.is_empty() {
            return Err(NodeError::Url { position });
        }
        if is_metadata_host(&host) {
            return Err(NodeError::Metadata { position });
        }
        // The client wants a TLS provider even for plain HTTP. Whoever installed one before us is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(limits.connect)
            .read_timeout(limits.read)
            .timeout(limits.total)
            .build()
            .map_err(|error| NodeError::Client(error.without_url()))?;
        let secrets = secrets_of(&url);
        Ok(Self {
            name: format!("{host} (endpoint {position})"),
            url,
            secrets,
            client,
            body_bytes_max: limits.body_bytes_max,
            next_id: AtomicU64::new(1),
            requests: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            dissents: AtomicU64::new(0),
            chain_proved: AtomicBool::new(false),
            rests_since_ms: AtomicI64::new(NEVER),
            turns: Semaphore::new(usize::try_from(provider.in_flight.max(1)).unwrap_or(1)),
            pace: Pace::new(provider.requests_per_second),
            batch: Adaptive::new(provider.batch_calls, provider.batch_calls),
            log_range: Adaptive::new(LOG_RANGE_START, provider.log_range_blocks),
            tracing: Tracing::default(),
        })
    }

    /// Host and position.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Calls that did not give a usable answer.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Answers that enough others contradicted.
    pub(super) fn dissents(&self) -> u64 {
        self.dissents.load(Ordering::Relaxed)
    }

    /// The distance in time between two requests, as it stands now.
    pub(super) fn gap(&self) -> Duration {
        self.pace.gap()
    }

    pub(super) fn count_dissent(&self) {
        self.dissents.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    pub(super) fn chain_is_proved(&self) -> bool {
        self.chain_proved.load(Ordering::Relaxed)
    }

    pub(super) fn set_chain_proved(&self, proved: bool) {
        self.chain_proved.store(proved, Ordering::Relaxed);
    }

    pub(super) fn rest(&self, now_ms: i64) {
        self.rests_since_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Whether a fault is so recent that others should be asked first. A clock that jumps back ends the
    /// rest instead of prolonging it.
    pub(super) fn rests(&self, now_ms: i64, span: Duration) -> bool {
        let since = self.rests_since_ms.load(Ordering::Relaxed);
        let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        since != NEVER && now_ms >= since && now_ms < since.saturating_add(span_ms)
    }

    /// One call. `read` gets the text of `result`, which may be `null`.
    pub(super) async fn call<T>(&self, method: &'static str, params: &Value, read: impl Fn(&str) -> Result<T, Fault>) -> Result<T, Fault> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let answer = match self.post(request.to_string()).await {
            Ok((status, body)) => self.envelope(status, &body, id).map_err(|fault| of_method(method, fault)).and_then(read),
            Err(fault) => Err(fault),
        };
        self.account(answer.as_ref().err());
        answer
    }

    /// Several calls in one request. Each must be answered; the first that was not is the fault of all.
    /// `read` gets the position of the call and the text of its result.
    pub(super) async fn batch<T>(
        &self,
        calls: &[(&'static str, Value)],
        read: impl Fn(usize, &str) -> Result<T, Fault>,
    ) -> Result<Vec<T>, BatchFault> {
        let count = calls.len() as u64;
        let first = self.next_id.fetch_add(count, Ordering::Relaxed);
        let requests: Vec<Value> = (first..)
            .zip(calls)
            .map(|(id, (method, params))| serde_json::json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }))
            .collect();
        let whole = |fault| BatchFault { fault, of_one: false };
        let answer = match self.post(Value::Array(requests).to_string()).await {
            Ok((status, body)) => match self.batch_envelope(status, &body, first..first + count) {
                Ok(results) => {
                    let answers = results
                        .into_iter()
                        .zip(calls)
                        .enumerate()
                        .map(|(position, (result, (method, _)))| read(position, result.map_err(|fault| of_method(method, fault))?));
                    answers.collect::<Result<_, Fault>>().map_err(|fault| BatchFault { fault, of_one: true })
                }
                Err(fault) => Err(whole(fault)),
            },
            Err(fault) => Err(whole(fault)),
        };
        self.account(answer.as_ref().err().map(|batch| &batch.fault));
        answer
    }

    async fn post(&self, request: String) -> Result<(StatusCode, Vec<u8>), Fault> {
        // The semaphore is never closed.
        let Ok(_turn) = self.turns.acquire().await else { return Err(Fault::Timeout) };
        self.pace.turn().await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        let response = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(request)
            .send()
            .await
            .map_err(fault_of)?;
        let status = response.status();
        let body = self.body(response).await?;
        self.bytes_in.fetch_add(body.len() as u64, Ordering::Relaxed);
        Ok((status, body))
    }

    /// What an answer, or the fault in its place, says about the endpoint.
    fn account(&self, fault: Option<&Fault>) {
        match fault {
            None => self.pace.speed_up(),
            Some(fault) => {
                self.faults.fetch_add(1, Ordering::Relaxed);
                if fault.is_too_fast() {
                    self.pace.slow_down();
                }
            }
        }
    }

    /// Reads the body up to the cap. A length that is announced above it is not even begun.
    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Fault> {
        let limit_bytes = self.body_bytes_max;
        let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        if announced > limit_bytes {
            return Err(Fault::TooLarge { limit_bytes });
        }
        let mut body = Vec::with_capacity(announced);
        while let Some(chunk) = response.chunk().await.map_err(fault_of)? {
            if body.len() + chunk.len() > limit_bytes {
                return Err(Fault::TooLarge { limit_bytes });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The text of `result`, or the fault that stands in its place.
    fn envelope<'b>(&self, status: StatusCode, body: &'b [u8], id: u64) -> Result<&'b str, Fault> {
        let result = read_single(body, id);
        if !status.is_success() {
            // Some nodes put a JSON-RPC error into a 4xx; a limit or a failing server speaks by its status.
            let limited = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            return match result {
                Err(EnvelopeFault::Refused(error)) if !limited => Err(self.refusal(error)),
                Ok(_) | Err(_) => Err(Fault::Http { status: status.as_u16() }),
            };
        }
        result.map_err(|fault| match fault {
            EnvelopeFault::Refused(error) => self.refusal(error),
            fault => Fault::malformed(fault.to_string()),
        })
    }

    /// The text of each result in the order of the ids, or its own fault. A batch that was refused whole,
    /// or that does not answer each call once, is one fault.
    fn batch_envelope<'b>(
        &self,
        status: StatusCode,
        body: &'b [u8],
        ids: std::ops::Range<u64>,
    ) -> Result<Vec<Result<&'b str, Fault>>, Fault> {
        let answers = read_batch(body, ids);
        if !status.is_success() {
            let limited = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            return Err(match answers {
                Err(EnvelopeFault::Refused(error)) if !limited => self.refusal(error),
                Ok(_) | Err(_) => Fault::Http { status: status.as_u16() },
            });
        }
        let answers = answers.map_err(|fault| match fault {
            EnvelopeFault::Refused(error) => self.refusal(error),
            fault => Fault::malformed(fault.to_string()),
        })?;
        Ok(answers.into_iter().map(|answer| answer.map_err(|error| self.refusal(error))).collect())
    }

    fn refusal(&self, error: ErrorObject) -> Fault {
        read_refusal(error.code, clean(&error.message, &self.secrets))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a batch failed: as a whole, or because of one of its calls.
#[derive(Debug)]
pub(super) struct BatchFault {
    pub(super) fault: Fault,
    pub(super) of_one: bool,
}

impl From<BatchFault> for Fault {
    fn from(batch: BatchFault) -> Self {
        batch.fault
    }
}

/// Which of the two ways of tracing a block an endpoint offers. Found out once, by asking.
#[derive(Debug, Default)]
pub(super) struct Tracing(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TraceKind {
    Block,
    Debug,
    Absent,
}

impl Tracing {
    pub(super) fn get(&self) -> TraceKind {
        match self.0.load(Ordering::Relaxed) {
            0 => TraceKind::Block,
            1 => TraceKind::Debug,
            _ => TraceKind::Absent,
        }
    }

    /// The method that was tried is not offered: the next one.
    pub(super) fn refuse(&self, tried: TraceKind) -> TraceKind {
        let next = match tried {
            TraceKind::Block => 1,
            TraceKind::Debug | TraceKind::Absent => 2,
        };
        self.0.fetch_max(next, Ordering::Relaxed);
        self.get()
    }
}

/// What a refusal means for this method: a range of logs is refused in words of its own, some of which
/// elsewhere speak of the rate.
fn of_method(method: &str, fault: Fault) -> Fault {
    if method == LOGS { read_range_refusal(fault) } else { fault }
}

fn fault_of(error: reqwest::Error) -> Fault {
    if error.is_timeout() {
        return Fault::Timeout;
    }
    // The chain of causes says "connection refused" or "no such host"; the URL is taken off first.
    let error = error.without_url();
    let mut reason = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        reason = next.to_string();
        cause = next.source();
    }
    Fault::Unreachable { reason }
}

/// User, password, path segments and query values.
fn secrets_of(url: &Url) -> Vec<String> {
    let mut parts: Vec<String> = vec![url.username().to_owned(), url.password().unwrap_or_default().to_owned()];
    parts.extend(url.path_segments().into_iter().flatten().map(str::to_owned));
    parts.extend(url.query_pairs().map(|(_, value)| value.into_owned()));
    parts.retain(|part| part.len() >= SECRET_LEN_MIN);
    // The longest first, so that a part of a key does not hide the rest of it.
    parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
    parts
}

/// Cloud metadata services answer on link-local addresses; no node lives there.
pub(super) fn is_metadata_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    match bare.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            let mapped = address.to_ipv4_mapped().is_some_and(|address| address.is_link_local());
            mapped || address.is_unicast_link_local() || address.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        }
        Err(_) => matches!(bare, "metadata.google.internal"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYED: &str = "https://user:passw0rd-long@rpc.example.org:8545/v3/0123456789abcdef?token=abcdefghi";

    #[test]
    fn y7_a_url_is_never_printed() {
        let endpoint = Endpoint::new(KEYED, 2, EndpointLimits::default(), ProviderLimits::default()).unwrap();
        assert_eq!(endpoint.name(), "rpc.example.org (endpoint 2)");
        let shown = format!("{endpoint:?}");
        for secret in ["passw0rd", "0123456789abcdef", "abcdefghi", "https"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(endpoint.secrets, ["0123456789abcdef", "passw0rd-long", "abcdefghi"]);
        let refused = endpoint.refusal(ErrorObject { code: -32000, message: "invalid token abcdefghi".to_owned() });
        assert_eq!(refused, Fault::Refused { code: -32000, message: "invalid token [redacted]".to_owned() });
        let broken = Endpoint::new("no url with s3cret", 1, EndpointLimits::default(), ProviderLimits::default()).unwrap_err();
        assert!(!format!("{broken} {broken:?}").contains("s3cret"));
    }

    #[test]
    fn z11_metadata_services_are_no_nodes() {
        for url in ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/", "ftp://x/", "http://"] {
            assert!(Endpoint::new(url, 1, EndpointLimits::default(), ProviderLimits::default()).is_err(), "{url}");
        }
        assert!(Endpoint::new("http://127.0.0.1:8545", 1, EndpointLimits::default(), ProviderLimits::default()).is_ok());
    }

    #[test]
    fn a_rest_ends_by_time_and_by_a_clock_that_goes_back() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", 1, EndpointLimits::default(), ProviderLimits::default()).unwrap();
        let span = Duration::from_secs(30);
        assert!(!endpoint.rests(0, span));
        endpoint.rest(1_000_000);
        assert!(endpoint.rests(1_000_000, span) && endpoint.rests(1_029_999, span));
        assert!(!endpoint.rests(1_030_000, span));
        assert!(!endpoint.rests(999_999, span));
    }

    #[test]
    fn f14_envelopes_are_read_strictly() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", 1, EndpointLimits::default(), ProviderLimits::default()).unwrap();
        let read =
            |status: u16, body: &str| endpoint.envelope(StatusCode::from_u16(status).unwrap(), body.as_bytes(), 7).map(str::to_owned);
        assert_eq!(read(200, r#"{"id":7,"result":"0x1"}"#), Ok("\"0x1\"".to_owned()));
        assert_eq!(read(200, r#"{"id":7,"result":null}"#), Ok("null".to_owned()));
        assert_eq!(read(200, r#"{"id":7,"result":"0x1","error":null}"#), Ok("\"0x1\"".to_owned()));
        for body in [
            r#"{"id":8,"result":"0x1"}"#,
            r#"{"id":"7","result":"0x1"}"#,
            r#"{"result":"0x1"}"#,
            r#"{"id":7}"#,
            r#"{"id":7,"result":"0x"#,
            "<html>busy</html>",
            "",
            "[]",
        ] {
            assert!(matches!(read(200, body), Err(Fault::Malformed { .. })), "{body}");
        }
        let refused = r#"{"id":null,"error":{"code":-32000,"message":"unknown block"}}"#;
        assert!(matches!(read(200, refused), Err(Fault::Refused { code: -32000, .. })));
        assert!(matches!(read(400, refused), Err(Fault::Refused { code: -32000, .. })));
        assert_eq!(read(429, refused), Err(Fault::Http { status: 429 }));
        assert_eq!(read(503, "<html>"), Err(Fault::Http { status: 503 }));
        assert_eq!(read(302, ""), Err(Fault::Http { status: 302 }));
        let both = r#"{"id":7,"result":"0x1","error":{"code":1,"message":"x"}}"#;
        assert!(matches!(read(200, both), Err(Fault::Refused { .. })), "an error is never overlooked");
    }
}
