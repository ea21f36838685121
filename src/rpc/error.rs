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
            | Fault::NotFound { .. }
            | Fault::TooWide { .. }
            | Fault::Disagreement { .. }
            | Fault::Unseconded { .. } => Disposition::Retry,
            Fault::Reverted { .. } => Disposition::Skip,
            // Repeating cannot help: an answer that is too large stays so, and a wrong chain is a wrong URL.
            Fault::TooLarge { .. } | Fault::WrongChain { .. } => Disposition::Officer,
        }
    }
}

impl RpcError {
    /// Whether the endpoint does not offer what was asked at all.
    pub fn is_missing_method(&self) -> bool {
        is_missing_method(&self.fault)
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
    /// A range of logs that holds too much for this endpoint; smaller ones may do.
    #[error("refused a range of blocks as too large: {message}")]
    TooWide { suggested_blocks: Option<u32>, message: String },
    /// Endpoints that must agree say different things. Nothing is taken from any of them.
    #[error("the endpoints contradict each other: {what}")]
    Disagreement { what: String },
    /// Fewer endpoints than must agree gave an answer that counts.
    #[error("{found} of {needed} endpoints that must agree gave an answer: {last}")]
    Unseconded { needed: usize, found: usize, last: String },
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
            Self::Refused { .. }
            | Self::Reverted { .. }
            | Self::NotFound { .. }
            | Self::TooWide { .. }
            | Self::Disagreement { .. }
            | Self::Unseconded { .. } => false,
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
            | Self::WrongChain { .. }
            | Self::TooWide { .. }
            | Self::Disagreement { .. }
            | Self::Unseconded { .. } => false,
        }
    }

    /// Whether the endpoint asks for fewer requests in the same time.
    pub(super) fn is_too_fast(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Http { status: 429 })
    }

    /// Whether the same question in smaller parts may be answered: too much at once, or too long to make.
    /// A refusal in words that nobody knows counts, because there is no standard for them; whoever asks
    /// for one block gets the refusal as it is.
    pub(super) fn may_be_size(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::TooWide { .. } | Self::Timeout | Self::Refused { .. } | Self::Malformed { .. } => true,
            Self::Http { status } => matches!(status, 413 | 500..=599) || (*status == 400),
            Self::Unreachable { .. }
            | Self::RateLimited { .. }
            | Self::Reverted { .. }
            | Self::NotFound { .. }
            | Self::WrongChain { .. }
            | Self::Disagreement { .. }
            | Self::Unseconded { .. } => false,
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

impl SendOutcome {
    /// What two endpoints' answers to the same bytes say together. Whoever took them decides: then they are out. After
    /// an unclear answer they may be out, so a refusal elsewhere decides nothing.
    pub(super) fn beside(self, other: Self) -> Self {
        if other.rank() < self.rank() { other } else { self }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Accepted => 0,
            Self::AlreadyKnown => 1,
            Self::NonceUsed => 2,
            Self::Unclear(_) => 3,
            Self::Conflict | Self::Ahead | Self::CannotPay => 4,
        }
    }
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
        | Fault::WrongChain { .. }
        | Fault::TooWide { .. }
        | Fault::Disagreement { .. }
        | Fault::Unseconded { .. } => false,
    }
}

/// A refused range of logs, read. Codes say nothing here: one and the same stands for range, size and
/// quota at different providers. Words about the rate come first, because a smaller range is no help
/// against them.
pub(super) fn read_range_refusal(fault: Fault) -> Fault {
    let (message, limited) = match &fault {
        Fault::Refused { message, .. } => (message, false),
        Fault::RateLimited { message, .. } => (message, true),
        _ => return fault,
    };
    let text = message.to_lowercase();
    let any = |words: &[&str]| words.iter().any(|words| text.contains(words));
    if any(&["rate limit", "too many requests", "request limit", "quota", "per second", "capacity"]) {
        return fault;
    }
    let wide = any(&[
        "more than",
        "exceeds max",
        "exceed max",
        "block range",
        "blocks range",
        "range limit",
        "range is too",
        "range too",
        "max range",
        "too large",
        "too many results",
        "max results",
        "response size",
        "query timeout",
        "limited to",
        "exceeds limit of",
        "exceeds the limit",
        // BNB Smart Chain's public nodes say this, with the code of a rate limit, about a range.
        "limit exceeded",
    ]);
    if wide || !limited && any(&["range"]) {
        return Fault::TooWide { suggested_blocks: suggested_range(&text), message: message.clone() };
    }
    fault
}

/// The number of blocks in a range that an error proposes, such as "[0x10, 0x1f]" or "range 16-31".
fn suggested_range(text: &str) -> Option<u32> {
    let numbers: Vec<u64> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => word.parse().ok(),
        })
        .collect();
    let [.., from, to] = numbers.as_slice() else { return None };
    // A range of blocks, and not a code or a limit that happens to be a number.
    let proposes = ["retry with", "this block range should work", "try with"].iter().any(|words| text.contains(words));
    let blocks = to.checked_sub(*from)?.checked_add(1)?;
    proposes.then(|| u32::try_from(blocks).ok()).flatten()
}

/// Whether a refusal means that the node knows no block by that name: it is no fault then.
pub(super) fn is_unknown_tag(fault: &Fault) -> bool {
    match fault {
        Fault::Refused { message, .. } => {
            let text = message.to_lowercase();
            ["finalized", "safe", "invalid block", "block tag", "unknown block", "not found"].iter().any(|words| text.contains(words))
                || is_missing_method(fault)
        }
        Fault::NotFound { .. } => true,
        _ => false,
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
    fn f14_refused_ranges_are_told_from_refused_rates() {
        let read = |code, message: &str| read_range_refusal(read_refusal(code, message.to_owned()));
        let wide = |code, message: &str| match read(code, message) {
            Fault::TooWide { suggested_blocks, .. } => suggested_blocks,
            fault => panic!("{message:?} is {fault:?}"),
        };
        for (code, message) in [
            (-32005, "query returned more than 10000 results"),
            (-32005, "query timeout exceeded"),
            (-32000, "query exceeds max block range 100000"),
            (-32602, "Log response size exceeded."),
            (-32602, "range 12000 exceeds limit of 10000"),
            (-32005, "limit exceeded"),
            (-32600, "You can make eth_getLogs requests with up to a 10 block range."),
            (-32614, "eth_getLogs is limited to a 10,000 range"),
            (-32000, "exceed max addresses or topics per search position"),
        ] {
            assert_eq!(wide(code, message), None, "{message}");
        }
        let reth = "query exceeds max results 20000, retry with the range 18000000-18000499";
        assert_eq!(wide(-32602, reth), Some(500));
        let alchemy = "Log response size exceeded. Based on your parameters, this block range should work: [0x10, 0x1f]";
        assert_eq!(wide(-32602, alchemy), Some(16));
        for (code, message) in [
            (-32005, "daily request count exceeded, request rate limited: quota"),
            (-32005, "project ID request rate exceeded: too many requests"),
            (429, "Your app has exceeded its compute units per second capacity"),
        ] {
            assert!(matches!(read(code, message), Fault::RateLimited { .. }), "{message}");
        }
        assert!(matches!(read(-32000, "unknown block"), Fault::Refused { .. }));
    }

    #[test]
    fn y7_a_quoted_key_does_not_pass() {
        let secrets = ["s3cretkey".to_owned()];
        let cleaned = clean("invalid key s3cretkey\n<html>", &secrets);
        assert_eq!(cleaned, "invalid key [redacted] <html>");
        assert_eq!(clean(&"x".repeat(5_000), &secrets).len(), TEXT_LEN_MAX);
    }
}
