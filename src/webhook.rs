//! Events told to the marketplace's servers, in the form of Standard Webhooks 1.0.0: at least once, signed, and
//! of one payment in the order in which they happened.
//!
//! An event is committed with what it tells of. From there this room pulls: it hands each event to the endpoints
//! that want it, as a delivery, and tries each delivery until the endpoint takes it or the last attempt is spent.
//! Nothing is in memory alone, so a restart loses nothing and starts nothing over.
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

mod guard;
mod post;
mod schedule;
mod signature;
pub mod store;
mod worker;

pub use guard::{Guard, GuardError};
pub use signature::{SECRET_BYTES, SigningSecret};
pub use worker::{Courier, Totals};

use std::fmt;
use std::str::FromStr;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::db::DbError;
use crate::units::Disposition;

/// For how long the secret before the present one signs too, unless told otherwise.
pub const OLD_SECRET_KEEPS: Duration = Duration::hours(24);

/// Where events are sent.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub id: Uuid,
    pub url: String,
    pub description: String,
    pub events: Vec<EventPattern>,
    pub created_by: String,
    pub created_at: OffsetDateTime,
    pub disabled: Option<Disabled>,
}

/// Since when and why an endpoint gets nothing. What happens meanwhile waits for it.
#[derive(Clone, Debug)]
pub struct Disabled {
    pub at: OffsetDateTime,
    pub reason: String,
}

/// Which kinds of events an endpoint wants: one kind, all of a noun (`payment.*`), or all (`*`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventPattern(String);

impl EventPattern {
    pub fn covers(&self, kind: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(noun) => kind.starts_with(noun),
            None => kind == self.0,
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventPattern {
    type Err = WebhookError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let words: Vec<&str> = text.split('.').collect();
        let good = match words.as_slice() {
            ["*"] => true,
            [nouns @ .., "*"] => nouns.iter().all(|noun| word(noun)),
            [_] => false,
            all => all.iter().all(|each| word(each)),
        };
        if good && text.len() <= 100 { Ok(Self(text.to_owned())) } else { Err(WebhookError::Pattern(text.chars().take(100).collect())) }
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "webhook_delivery_state", rename_all = "lowercase")]
pub enum DeliveryState {
    /// To be tried, or tried again.
    Pending,
    Delivered,
    /// The last attempt is spent. It can be sent again by hand.
    Dead,
}

impl DeliveryState {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Pending, Self::Delivered, Self::Dead]
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| "use pending, delivered or dead".to_owned())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("event {0:?} is no kind (payment.funded), no noun (payment.*) and not *")]
    Pattern(String),
    #[error(transparent)]
    Url(#[from] GuardError),
    #[error("no webhook endpoint {0}")]
    Unknown(Uuid),
    #[error("no delivery {0}")]
    UnknownDelivery(i64),
    #[error("endpoint {0} is disabled already")]
    Disabled(Uuid),
    #[error("endpoint {0} is not disabled")]
    Enabled(Uuid),
    #[error(transparent)]
    Db(#[from] DbError),
}

impl WebhookError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Pattern(_) | Self::Url(_) | Self::Unknown(_) | Self::UnknownDelivery(_) | Self::Disabled(_) | Self::Enabled(_) => {
                Disposition::Skip
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_kinds_nouns_and_all() {
        let covers = |pattern: &str, kind: &str| pattern.parse::<EventPattern>().unwrap().covers(kind);
        assert!(covers("payment.funded", "payment.funded"));
        assert!(!covers("payment.funded", "payment.funded_again"));
        assert!(covers("payment.*", "payment.funded"));
        assert!(!covers("payment.*", "payments.funded"));
        assert!(covers("*", "chain.halted"));
        for bad in ["", "payment", "*.funded", "payment.", "payment.*.x", "Payment.funded", "pay ment.x", ".*", "**", "payment*"] {
            assert!(bad.parse::<EventPattern>().is_err(), "{bad:?}");
        }
    }
}
