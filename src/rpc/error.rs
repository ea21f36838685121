//! What an endpoint did wrong, and what a node's text means.
//!
//! The only file that matches text from a node. Nodes do not agree on codes, so the text decides, in
//! lower case and in the order of the table below; whatever is not in the table stays unclear.

use crate::units::{ChainId, Disposition};

/// A request that no endpoint answered usefully; the last endpoint's fault is kept.
#[derive(Debug, thiserror::Error)]
#[error("{method} on {endpoint}: {fault}")]
pub struct RpcError {
    /// Host and position, never the URL.
    pub endpoint: String,
    /// The JSON-RPC method.
    pub method: &'static str,
    /// What went wrong.
    pub fault: Fault,
}

impl RpcError {
    pub fn disposition(&self) -> Disposition {
        match self.fault {
            Fault::Unreachable { .. }
            | Fault::Timeout
            | Fault::Http { .. }
            | Fault::Malformed { .. }
            | Fault::Refused { .. }
            | Fault::RateLimited { .. }
            | Fault::NotFound { .. } => Disposition::Retry,
            Fault::Reverted { .. } => Disposition::Skip,
            // Repeating cannot help: an answer that is too large stays so, and a wrong chain is a wrong URL.
            Fault::TooLarge { .. } | Fault::WrongChain { .. } => Disposition::Officer,
        }
    }
}

/// What one endpoint did instead of answering.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("did not answer in time")]
    Timeout,
    #[error("answered with HTTP status {status}")]
    Http { status: u16 },
    #[error("answered with more than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
    #[error("answered with something that cannot be used: {what}")]
    Malformed { what: String },
    #[error("refused with code {code}: {message}")]
    Refused { code: i64, message: String },
    #[error("refused because of its rate limit, with code {code}: {message}")]
    RateLimited { code: i64, message: String },
    #[error("the call reverts: {message}")]
    Reverted { message: String },
    #[error("does not have {what}")]
    NotFound { what: String },
    #[error("is on chain {found}, not on chain {expected}")]
    WrongChain { expected: ChainId, found: String },
}

impl Fault {
    pub(super) fn malformed(what: impl Into<String>) -> Self {
        Self::Malformed { what: what.into() }
    }

    /// Whether the endpoint should rest before it is asked again. A refusal is an answer.
    pub(super) fn rests(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Timeout
            | Self::Http { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::RateLimited { .. }
            | Self::WrongChain { .. } => true,
            Self::Refused { .. } | Self::Reverted { .. } | Self::NotFound { .. } => false,
        }
    }

    /// Whether the connection was lost, so that another machine may answer next time.
    pub(super) fn lost_contact(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout => true,
            Self::Http { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. }
            | Self::Refused { .. }
            | Self::RateLimited { .. }
            | Self::Reverted { .. }
            | Self::NotFound { .. }
            | Self::WrongChain { .. } => false,
        }
    }
}

/// What a node said to our signed bytes. Only the first two mean that it has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// It took them.
    Accepted,
    /// It had them already.
    AlreadyKnown,
    /// A transaction with this nonce is mined: look for the receipts of all own hashes.
    NonceUsed,
    /// Another transaction holds the nonce in the pool. Not a success.
    Conflict,
    /// A lower nonce is missing.
    Ahead,
    /// The sender cannot pay value and fee.
    CannotPay,
    /// Nobody knows whether the bytes are out. The same bytes may be sent again, others may not.
    Unclear(String),
}

/// A JSON-RPC error object, read.
pub(super) fn read_refusal(code: i64, message: String) -> Fault {
    let text = message.to_lowercase();
    // EIP-1474 reserves 3 for a reverted execution; many nodes only say it in words.
    if code == 3 || text.contains("revert") {
        return Fault::Reverted { message };
    }
    let limited = code == -32005 || code == 429;
    if limited || ["rate limit", "too many requests", "request limit", "quota"].iter().any(|words| text.contains(words)) {
        return Fault::RateLimited { code, message };
    }
    Fault::Refused { code, message }
}

/// Whether a refusal means that the node does not offer the method.
pub(super) fn is_missing_method(fault: &Fault) -> bool {
    match fault {
        Fault::Refused { code, message } => {
            let text = message.to_lowercase();
            *code == -32601
                || ["method not found", "does not exist", "not supported", "unsupported"].iter().any(|words| text.contains(words))
        }
        Fault::Unreachable { .. }
        | Fault::Timeout
        | Fault::Http { .. }
        | Fault::TooLarge { .. }
        | Fault::Malformed { .. }
        | Fault::RateLimited { .. }
        | Fault::Reverted { .. }
        | Fault::NotFound { .. }
        | Fault::WrongChain { .. } => false,
    }
}

/// The answer to `eth_sendRawTransaction`, when it is an error. The order is part of the table.
pub(super) fn read_send_error(message: &str) -> SendOutcome {
    let text = message.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|words| text.contains(words));
    // "unknown transaction" contains "known transaction" and says the opposite.
    let known = text.match_indices("known transaction").any(|(at, _)| !text[..at].ends_with("un"));
    if known || any(&["already known", "already imported"]) {
        SendOutcome::AlreadyKnown
    } else if any(&["nonce too low", "nonce is too low"]) {
        SendOutcome::NonceUsed
    } else if any(&["replacement transaction underpriced"]) {
        SendOutcome::Conflict
    } else if any(&[
        "nonce too high",
        "nonce is too high",
        "nonce too far in the future",
        "exceeds next nonce",
        "nonce out of range",
        "tx-nonce-too-high",
    ]) {
        SendOutcome::Ahead
    } else if any(&["insufficient funds"]) {
        SendOutcome::CannotPay
    } else {
        SendOutcome::Unclear(message.to_owned())
    }
}

/// The longest text of a node that we keep.
const TEXT_LEN_MAX: usize = 200;

/// A node's text made fit for a log line: short, printable, and without any part of the URL that could
/// be a key, because some nodes quote the key they refuse.
pub(super) fn clean(text: &str, secrets: &[String]) -> String {
    let mut cleaned = text.to_owned();
    for secret in secrets {
        cleaned = cleaned.replace(secret.as_str(), "[redacted]");
    }
    cleaned.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_LEN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f28_the_text_of_a_refused_send_is_read_in_order() {
        let unclear = |text: &str| SendOutcome::Unclear(text.to_owned());
        let table = [
            ("already known", SendOutcome::AlreadyKnown),
            ("ALREADY KNOWN", SendOutcome::AlreadyKnown),
            ("known transaction: 0xab", SendOutcome::AlreadyKnown),
            ("Transaction with the same hash was already imported.", SendOutcome::AlreadyKnown),
            ("transaction already imported", SendOutcome::AlreadyKnown),
            ("unknown transaction", unclear("unknown transaction")),
            ("Unknown transaction type", unclear("Unknown transaction type")),
            ("unknown transaction; known transaction", SendOutcome::AlreadyKnown),
            ("nonce too low: next nonce 7, tx nonce 5", SendOutcome::NonceUsed),
            ("Transaction nonce is too low. Try incrementing the nonce.", SendOutcome::NonceUsed),
            ("replacement transaction underpriced", SendOutcome::Conflict),
            ("transaction underpriced", unclear("transaction underpriced")),
            ("nonce too high", SendOutcome::Ahead),
            ("the nonce is too high", SendOutcome::Ahead),
            ("nonce too far in the future", SendOutcome::Ahead),
            ("tx nonce 9 exceeds next nonce 5", SendOutcome::Ahead),
            ("nonce out of range", SendOutcome::Ahead),
            ("tx-nonce-too-high", SendOutcome::Ahead),
            ("insufficient funds for gas * price + value", SendOutcome::CannotPay),
            ("request timed out", unclear("request timed out")),
            ("", unclear("")),
            // The earlier row wins where a text has the words of two.
            ("already known: nonce too low", SendOutcome::AlreadyKnown),
            ("nonce too low; insufficient funds", SendOutcome::NonceUsed),
        ];
        for (text, outcome) in table {
            assert_eq!(read_send_error(text), outcome, "{text:?}");
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        let read = |code, message: &str| read_refusal(code, message.to_owned());
        assert!(matches!(read(3, "execution reverted: no"), Fault::Reverted { .. }));
        assert!(matches!(read(-32000, "execution reverted"), Fault::Reverted { .. }));
        assert!(matches!(read(-32005, "limit exceeded"), Fault::RateLimited { .. }));
        assert!(matches!(read(-32000, "Too Many Requests"), Fault::RateLimited { .. }));
        assert!(matches!(read(-32000, "unknown block"), Fault::Refused { code: -32000, .. }));
        assert!(is_missing_method(&read(-32601, "x")));
        assert!(!is_missing_method(&read(-32000, "unknown block")));
    }

    #[test]
    fn y7_a_quoted_key_does_not_pass() {
        let secrets = ["s3cretkey".to_owned()];
        let cleaned = clean("invalid key s3cretkey\n<html>", &secrets);
        assert_eq!(cleaned, "invalid key [redacted] <html>");
        assert_eq!(clean(&"x".repeat(5_000), &secrets).len(), TEXT_LEN_MAX);
    }
}
