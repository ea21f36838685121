//! Hands events on, and tries what is due.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::guard::Guard;
use super::post::{Letter, Post, Receipt};
use super::schedule::{self, Next, Outcome};
use super::signature;
use super::store::{self, Attempt, Due};
use super::{DeliveryState, Endpoint, WebhookError};
use crate::db::Database;
use crate::units::{Outcomes, Progress};

/// How many events are handed on in one transaction.
const EVENTS_PER_UNIT: i64 = 1_000;
/// How many letters one endpoint gets at a time.
const LETTERS_PER_ENDPOINT: i64 = 8;
/// How long an endpoint in trouble is left alone, whatever waits for it.
const REST: Duration = Duration::seconds(10);

/// Delivers for ever.
#[derive(Debug)]
pub struct Courier {
    db: Database,
    post: Post,
    /// Endpoints in trouble, and until when they rest. Forgotten at a restart: then they are tried at once.
    resting: Mutex<BTreeMap<Uuid, OffsetDateTime>>,
}

/// How deliveries stand.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    pub pending: u64,
    /// Since when the oldest of them waits.
    pub oldest: Option<OffsetDateTime>,
    pub dead: u64,
    pub disabled_endpoints: u64,
}

impl Courier {
    pub fn new(db: Database, guard: Guard) -> Result<Self, reqwest::Error> {
        Ok(Self { db, post: Post::new(guard)?, resting: Mutex::default() })
    }

    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, WebhookError> {
        let handed = self.hand_on(now).await?;
        let resting: Vec<Uuid> = {
            let mut resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
            // A clock that went back ends a rest that would last longer than any.
            resting.retain(|_, until| now < *until && *until <= now + REST);
            resting.keys().copied().collect()
        };
        let mut connection = self.db.connection().await?;
        let due = store::list_due(&mut connection, now, &resting, LETTERS_PER_ENDPOINT).await?;
        let mut letters = Vec::with_capacity(due.len());
        for due in due {
            let secrets = store::list_secrets(&mut connection, due.endpoint_id, now).await?;
            let (id, body) = (format!("msg_{}", due.id), body(&due));
            let signature = signature::header(&secrets, &id, now.unix_timestamp(), &body);
            letters.push((Letter { url: due.url.clone(), id, at: now, signature, body }, due));
        }
        drop(connection);
        let sent = join_all(letters.into_iter().map(async |(letter, due)| (self.post.send(letter).await, due))).await;
        let mut outcomes = Outcomes::new();
        for (receipt, due) in sent {
            if receipt.outcome.is_trouble() {
                self.resting.lock().unwrap_or_else(PoisonError::into_inner).insert(due.endpoint_id, now + REST);
            }
            let noted = self.note(receipt, due, now).await.map(|()| Progress::Worked);
            if !outcomes.note(noted, WebhookError::disposition) {
                break;
            }
        }
        Ok(outcomes.finish()?.or(handed))
    }

    /// All of it before anything is sent: the order within a payment is that of its events, so they must all
    /// be there.
    async fn hand_on(&self, now: OffsetDateTime) -> Result<Progress, WebhookError> {
        let endpoints: Vec<Endpoint> = store::list_endpoints(&mut *self.db.connection().await?).await?;
        let mut progress = Progress::Idle;
        // Ends when no event is left.
        loop {
            let endpoints = endpoints.clone();
            let count = self
                .db
                .unit::<_, WebhookError, _>(move |connection| {
                    Box::pin(async move { Ok(store::hand_on(connection, &endpoints, now, EVENTS_PER_UNIT).await?) })
                })
                .await?;
            progress = progress.or(Progress::of(count > 0));
            if i64::try_from(count).is_ok_and(|count| count < EVENTS_PER_UNIT) {
                return Ok(progress);
            }
        }
    }

    async fn note(&self, receipt: Receipt, due: Due, now: OffsetDateTime) -> Result<(), WebhookError> {
        let mut random = [0_u8; 2];
        // Without randomness the pauses are not spread, and nothing else.
        let _ = getrandom::fill(&mut random);
        let attempts = due.attempts.cast_unsigned().saturating_add(1);
        let next = schedule::next(&receipt.outcome, attempts, now, u16::from_le_bytes(random));
        tell(&receipt, &due, next);
        let attempt = Attempt {
            attempted_at: now,
            took_ms: i32::try_from(receipt.took.as_millis()).unwrap_or(i32::MAX),
            status: receipt.status.and_then(|status| i16::try_from(status).ok()),
            outcome: receipt.outcome.words().chars().take(500).collect(),
            answer: receipt.answer,
        };
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    store::insert_attempt(connection, due.id, &attempt).await?;
                    match next {
                        Next::Delivered => store::finish(connection, &due, DeliveryState::Delivered, now).await?,
                        Next::Dead => store::finish(connection, &due, DeliveryState::Dead, now).await?,
                        Next::Retry { at } => store::put_off(connection, &due, at).await?,
                        Next::DisableEndpoint => {
                            store::put_off(connection, &due, now).await?;
                            match store::disable(connection, due.endpoint_id, "the receiver answered 410 Gone", now).await {
                                // Another of its deliveries did so a moment ago.
                                Ok(()) | Err(WebhookError::Disabled(_)) => {}
                                Err(error) => return Err(error),
                            }
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}

fn tell(receipt: &Receipt, due: &Due, next: Next) {
    let (delivery, endpoint, kind, words) = (due.id, due.endpoint_id, &due.kind, receipt.outcome.words());
    match next {
        Next::Delivered => tracing::debug!(delivery, %endpoint, kind, "webhook delivered"),
        Next::Retry { at } => {
            tracing::info!(delivery, %endpoint, kind, outcome = words, next_attempt = %at, "webhook not taken; tried again")
        }
        Next::Dead => {
            tracing::error!(delivery, %endpoint, kind, outcome = words, "webhook given up; `amanatd webhook redeliver` sends it again")
        }
        Next::DisableEndpoint => tracing::warn!(delivery, %endpoint, "the receiver answered 410; the endpoint is disabled"),
    }
    if matches!(receipt.outcome, Outcome::Forbidden(_)) {
        tracing::warn!(delivery, %endpoint, outcome = words, "a webhook may not go there");
    }
}

/// What is signed and sent. It is made of what never changes, so every attempt sends the same bytes.
fn body(due: &Due) -> String {
    let mut data = serde_json::json!({ "event_id": due.event_id, "detail": due.detail });
    let mut put = |name: &str, value: Option<serde_json::Value>| {
        if let (Some(value), Some(data)) = (value, data.as_object_mut()) {
            data.insert(name.to_owned(), value);
        }
    };
    put("payment_id", due.payment_id.map(|id| id.to_string().into()));
    put("state_version", due.payment_version.map(Into::into));
    put("intent_id", due.intent_id.map(|id| id.to_string().into()));
    put("chain_id", due.chain_id.map(Into::into));
    let timestamp = due.happened_at.format(&Rfc3339).unwrap_or_default();
    serde_json::json!({ "type": due.kind, "timestamp": timestamp, "data": data }).to_string()
}
