//! The audit log: what happened, newest first.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use time::OffsetDateTime;

use super::payments::Filter;
use super::{PAGE, given, number};
use crate::chains::ChainBook;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Moment, filters};
use crate::console::store::{EventFilter, EventRow};
use crate::console::{Console, store};
use crate::units::{ChainId, PaymentId};

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    noun: Option<String>,
    #[serde(default)]
    payment: Option<String>,
    #[serde(default)]
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Frame,
    filters: Vec<Filter>,
    noun: String,
    payment: String,
    rows: Vec<Line>,
    older: Option<i64>,
}

/// An event as it is read.
pub(in crate::console) struct Line {
    pub id: i64,
    pub kind: String,
    pub tone: &'static str,
    pub payment: Option<String>,
    pub intent: Option<String>,
    pub chain: Option<String>,
    pub details: Vec<(String, String)>,
    pub at: Moment,
}

impl Line {
    pub(in crate::console) fn of(row: EventRow, now: OffsetDateTime, book: &ChainBook) -> Self {
        let chain = row.chain_id.and_then(|id| u64::try_from(id).ok()).and_then(ChainId::new);
        Self {
            id: row.id,
            tone: tone(&row.kind),
            kind: row.kind,
            payment: row.payment_id.map(|payment| payment.to_string()),
            intent: row.intent_id.map(|intent| intent.to_string()),
            chain: chain.map(|chain| show::chain_name(chain, book)),
            details: details(&row.detail),
            at: Moment::of(row.created_at, now),
        }
    }
}

/// Fields and their values, flat: what is nested stays JSON.
fn details(detail: &serde_json::Value) -> Vec<(String, String)> {
    let serde_json::Value::Object(fields) = detail else { return Vec::new() };
    let shown = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.iter().map(|(name, value)| (name.replace('_', " "), shown(value).chars().take(400).collect())).collect()
}

fn tone(kind: &str) -> &'static str {
    match kind {
        "chain.halted" | "session.refresh_reused" | "passkey.counter_fell" | "user.locked_out" => "bad",
        kind if kind.contains("revers") || kind.contains("orphan") || kind.contains("fail") || kind.contains("freez") => "bad",
        kind if kind.ends_with("confirmed") || kind.ends_with("funded") || kind.ends_with("settled") || kind.ends_with("released") => "ok",
        _ => "calm",
    }
}

const NOUNS: [(&str, &str); 9] = [
    ("All", ""),
    ("Payments", "payment"),
    ("Transfers", "transfer"),
    ("Intents", "intent"),
    ("Chains", "chain"),
    ("Settings", "setting"),
    ("People", "user"),
    ("Passkeys", "passkey"),
    ("Sessions", "session"),
];

pub(in crate::console) async fn get(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let noun = given(asked.noun).unwrap_or_default();
    if !noun.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') || noun.len() > 40 {
        return Err(Refusal::Field("There are no such events.".to_owned()));
    }
    let before = number(asked.before.as_deref())?;
    let payment = given(asked.payment);
    let of = payment
        .as_deref()
        .map(str::parse::<PaymentId>)
        .transpose()
        .map_err(|_| Refusal::Field("The payment's id cannot be read.".to_owned()))?;
    let filter = EventFilter { noun: (!noun.is_empty()).then(|| noun.clone()), payment: of, before, ..EventFilter::default() };
    let found = store::list_events(&mut *console.api.db.connection().await?, &filter, PAGE).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == PAGE);
    let older = found.last().filter(|_| full).map(|row| row.id);
    html(&EventsPage {
        frame: Frame::of("Audit log", "events", &console, &officer),
        filters: NOUNS.map(|(name, value)| Filter { name, value, chosen: value == noun }).into(),
        noun,
        payment: payment.unwrap_or_default(),
        rows: found.into_iter().map(|row| Line::of(row, now, &console.api.book)).collect(),
        older,
    })
}
