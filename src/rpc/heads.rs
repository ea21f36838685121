//! Notices of new heads over a WebSocket. A notice is a knock: nothing that it says is used, because a
//! single endpoint said it. Whoever is knocked at asks the endpoints that must agree.
//!
//! The URL is a secret as those of the endpoints are: it is in no error, no log line and no `Debug`. So
//! the errors of the WebSocket library, which quote it, do not leave this file.

use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::endpoint::is_metadata_host;

/// Bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    /// Until the subscription stands.
    pub connect: Duration,
    /// After this much silence the other side is pinged, and after as much again it is gone.
    pub silence: Duration,
    pub message_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        // A header is 2 KB of JSON.
        Self { connect: Duration::from_secs(10), silence: Duration::from_secs(30), message_bytes_max: 64 * 1024 }
    }
}

/// Why no notices come. It never holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    #[error("websocket_url is not a ws or wss URL")]
    Url,
    #[error("websocket_url points at a link-local or metadata address, where no node lives")]
    Metadata,
    #[error("cannot be reached: {0}")]
    Unreachable(std::io::ErrorKind),
    #[error("did not answer in time")]
    Timeout,
    #[error("answered with HTTP status {0} instead of a WebSocket")]
    Http(u16),
    #[error("does not keep to the protocol: {0}")]
    Protocol(&'static str),
    #[error("refused to announce new heads, with code {code}")]
    Refused { code: i64 },
    #[error("closed the connection")]
    Closed,
}

/// A subscription that stands.
pub struct HeadNotices {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    subscription: String,
    silence: Duration,
}

#[derive(Deserialize)]
struct Incoming {
    id: Option<u64>,
    result: Option<String>,
    error: Option<Refusal>,
    params: Option<Notice>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
}

#[derive(Deserialize)]
struct Notice {
    subscription: String,
}

impl HeadNotices {
    /// The host that announces heads, for messages; an error for a URL that cannot be one.
    pub fn host(url: &SecretString) -> Result<String, HeadError> {
        let url = Url::parse(url.expose_secret()).map_err(|_| HeadError::Url)?;
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.scheme(), "ws" | "wss") || host.is_empty() {
            return Err(HeadError::Url);
        }
        if is_metadata_host(host) { Err(HeadError::Metadata) } else { Ok(host.to_owned()) }
    }

    /// Connects and subscribes.
    pub async fn connect(url: &SecretString, limits: HeadLimits) -> Result<Self, HeadError> {
        Self::host(url)?;
        timeout(limits.connect, Self::subscribe(url, limits)).await.map_err(|_| HeadError::Timeout)?
    }

    async fn subscribe(url: &SecretString, limits: HeadLimits) -> Result<Self, HeadError> {
        const ID: u64 = 1;
        // Whoever installed a TLS provider before us is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sizes =
            WebSocketConfig::default().max_message_size(Some(limits.message_bytes_max)).max_frame_size(Some(limits.message_bytes_max));
        let (mut stream, _) = connect_async_with_config(url.expose_secret(), Some(sizes), true).await.map_err(fault_of)?;
        let request = serde_json::json!({ "jsonrpc": "2.0", "id": ID, "method": "eth_subscribe", "params": ["newHeads"] });
        stream.send(Message::text(request.to_string())).await.map_err(fault_of)?;
        // Ends with the answer, or by the caller's time limit.
        loop {
            let Some(answer) = read(&mut stream).await? else { continue };
            if answer.id != Some(ID) {
                continue;
            }
            return match (answer.result, answer.error) {
                (Some(subscription), None) => Ok(Self { stream, subscription, silence: limits.silence }),
                (_, Some(refusal)) => Err(HeadError::Refused { code: refusal.code }),
                (None, None) => Err(HeadError::Protocol("no subscription")),
            };
        }
    }

    /// Comes true at the next notice. After an error there are no more.
    pub async fn notice(&mut self) -> Result<(), HeadError> {
        let mut pinged = false;
        // Ends with a notice, or when the other side is gone.
        loop {
            match timeout(self.silence, read(&mut self.stream)).await {
                Ok(message) => {
                    pinged = false;
                    let told = message?.and_then(|message| message.params);
                    if told.is_some_and(|notice| notice.subscription == self.subscription) {
                        return Ok(());
                    }
                }
                Err(_) if pinged => return Err(HeadError::Timeout),
                Err(_) => {
                    pinged = true;
                    let ping = self.stream.send(Message::Ping(Vec::<u8>::new().into()));
                    timeout(self.silence, ping).await.map_err(|_| HeadError::Timeout)?.map_err(fault_of)?;
                }
            }
        }
    }
}

impl fmt::Debug for HeadNotices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadNotices").finish_non_exhaustive()
    }
}

/// The next message; `None` for one that is no text, such as a pong.
async fn read(stream: &mut WebSocketStream<MaybeTlsStream<TcpStream>>) -> Result<Option<Incoming>, HeadError> {
    match stream.next().await {
        None | Some(Ok(Message::Close(_))) => Err(HeadError::Closed),
        Some(Ok(Message::Text(text))) => serde_json::from_str(&text).map(Some).map_err(|_| HeadError::Protocol("no JSON-RPC message")),
        Some(Ok(_)) => Ok(None),
        Some(Err(error)) => Err(fault_of(error)),
    }
}

/// By kind only: the library's texts quote the URL and the other side.
fn fault_of(error: tungstenite::Error) -> HeadError {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => HeadError::Closed,
        tungstenite::Error::Io(error) => HeadError::Unreachable(error.kind()),
        tungstenite::Error::Tls(_) => HeadError::Protocol("its TLS is not accepted"),
        tungstenite::Error::Capacity(_) => HeadError::Protocol("a message is too large"),
        tungstenite::Error::Url(_) => HeadError::Url,
        tungstenite::Error::Http(response) => HeadError::Http(response.status().as_u16()),
        _ => HeadError::Protocol("no WebSocket"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y7_only_the_host_of_a_url_is_named() {
        let host = |url: &str| HeadNotices::host(&SecretString::from(url));
        assert_eq!(host("wss://user:canary@node.example/v3/canary?key=canary").unwrap(), "node.example");
        for url in ["https://node.example/canary", "canary", "ws://", "ws://169.254.169.254/canary"] {
            let error = host(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
        }
    }
}
