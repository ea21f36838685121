//! One endpoint: a client with limits, and one JSON-RPC call on it.
//!
//! The URL is a secret. It leaves this file only towards the endpoint itself: not in an error, not in a
//! log line, not in `Debug`.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::Value;

use super::envelope::{EnvelopeFault, ErrorObject, read_single};
use super::error::{Fault, clean, read_refusal};
use super::node::NodeError;

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
    bytes_in: AtomicU64,
    chain_proved: AtomicBool,
    rests_since_ms: AtomicI64,
}

impl Endpoint {
    /// `position` counts from 1, as people do.
    pub(super) fn new(text: &str, position: usize, limits: EndpointLimits) -> Result<Self, NodeError> {
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
            bytes_in: AtomicU64::new(0),
            chain_proved: AtomicBool::new(false),
            rests_since_ms: AtomicI64::new(NEVER),
        })
    }

    /// Host and position.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn requests(&self) -> u64 {
        self.next_id.load(Ordering::Relaxed) - 1
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
        let response = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(request.to_string())
            .send()
            .await
            .map_err(fault_of)?;
        let status = response.status();
        let body = self.body(response).await?;
        self.bytes_in.fetch_add(body.len() as u64, Ordering::Relaxed);
        let envelope = self.envelope(status, &body, id)?;
        read(envelope)
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

    fn refusal(&self, error: ErrorObject) -> Fault {
        read_refusal(error.code, clean(&error.message, &self.secrets))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Where and how JSON was broken, without quoting it.
pub(super) fn json_fault(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Eof => "cut off".to_owned(),
        serde_json::error::Category::Syntax => "not JSON".to_owned(),
        serde_json::error::Category::Io | serde_json::error::Category::Data => {
            error.to_string().chars().filter(|c| !c.is_control()).take(200).collect()
        }
    }
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
fn is_metadata_host(host: &str) -> bool {
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
        let endpoint = Endpoint::new(KEYED, 2, EndpointLimits::default()).unwrap();
        assert_eq!(endpoint.name(), "rpc.example.org (endpoint 2)");
        let shown = format!("{endpoint:?}");
        for secret in ["passw0rd", "0123456789abcdef", "abcdefghi", "https"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert_eq!(endpoint.secrets, ["0123456789abcdef", "passw0rd-long", "abcdefghi"]);
        let refused = endpoint.refusal(ErrorObject { code: -32000, message: "invalid token abcdefghi".to_owned() });
        assert_eq!(refused, Fault::Refused { code: -32000, message: "invalid token [redacted]".to_owned() });
        let broken = Endpoint::new("no url with s3cret", 1, EndpointLimits::default()).unwrap_err();
        assert!(!format!("{broken} {broken:?}").contains("s3cret"));
    }

    #[test]
    fn z11_metadata_services_are_no_nodes() {
        for url in ["http://169.254.169.254/", "http://[fd00:ec2::254]/", "http://[::ffff:169.254.169.254]/", "ftp://x/", "http://"] {
            assert!(Endpoint::new(url, 1, EndpointLimits::default()).is_err(), "{url}");
        }
        assert!(Endpoint::new("http://127.0.0.1:8545", 1, EndpointLimits::default()).is_ok());
    }

    #[test]
    fn a_rest_ends_by_time_and_by_a_clock_that_goes_back() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", 1, EndpointLimits::default()).unwrap();
        let span = Duration::from_secs(30);
        assert!(!endpoint.rests(0, span));
        endpoint.rest(1_000_000);
        assert!(endpoint.rests(1_000_000, span) && endpoint.rests(1_029_999, span));
        assert!(!endpoint.rests(1_030_000, span));
        assert!(!endpoint.rests(999_999, span));
    }

    #[test]
    fn f14_envelopes_are_read_strictly() {
        let endpoint = Endpoint::new("http://127.0.0.1:1", 1, EndpointLimits::default()).unwrap();
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
