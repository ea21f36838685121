//! Webhooks: who is told, and how each delivery went.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::payments::Filter;
use super::{PAGE, given, number};
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{Chip, Moment, chip, filters};
use crate::console::{Console, ConsoleError};
use crate::webhook::{self, DeliveryState};

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    frame: Frame,
    endpoints: Vec<Endpoint>,
    filters: Vec<Filter>,
    state: String,
    rows: Vec<Line>,
    older: Option<i64>,
}

struct Endpoint {
    url: String,
    description: String,
    events: String,
    chip: Chip,
    reason: Option<String>,
    created: Moment,
}

struct Line {
    id: i64,
    endpoint: String,
    kind: String,
    event: i64,
    payment: Option<String>,
    chip: Chip,
    attempts: i32,
    outcome: String,
    next: Option<Moment>,
    created: Moment,
}

pub(in crate::console) async fn get(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let state = given(asked.state).unwrap_or_default();
    let wanted = match state.as_str() {
        "" => None,
        text => Some(text.parse::<DeliveryState>().map_err(|_| Refusal::Field("There is no such state of deliveries.".to_owned()))?),
    };
    let before = number(asked.before.as_deref())?;
    let mut connection = console.api.db.connection().await?;
    let known = webhook::store::list_endpoints(&mut connection).await?;
    let names: BTreeMap<_, _> = known.iter().map(|endpoint| (endpoint.id, endpoint.url.clone())).collect();
    let found = webhook::store::list_deliveries(&mut connection, None, wanted, before, PAGE).await.map_err(ConsoleError::from)?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == PAGE);
    let older = found.last().filter(|_| full).map(|row| row.id);
    let rows = found
        .into_iter()
        .map(|row| Line {
            id: row.id,
            endpoint: names.get(&row.endpoint_id).cloned().unwrap_or_default(),
            kind: row.kind,
            event: row.event_id,
            payment: row.payment_id.map(|payment| payment.to_string()),
            chip: match row.state {
                DeliveryState::Pending => chip("wait", "Pending"),
                DeliveryState::Delivered => chip("ok", "Delivered"),
                DeliveryState::Dead => chip("bad", "Given up"),
            },
            attempts: row.attempts,
            outcome: row.last_outcome.unwrap_or_else(|| "not tried yet".to_owned()),
            next: (row.state == DeliveryState::Pending).then(|| Moment::of(row.next_attempt_at, now)),
            created: Moment::of(row.created_at, now),
        })
        .collect();
    let endpoints = known
        .into_iter()
        .map(|endpoint| Endpoint {
            url: endpoint.url,
            description: endpoint.description,
            events: endpoint.events.iter().map(|pattern| pattern.as_str().to_owned()).collect::<Vec<_>>().join(", "),
            chip: if endpoint.disabled.is_some() { chip("wait", "Disabled") } else { chip("ok", "Enabled") },
            reason: endpoint.disabled.map(|disabled| disabled.reason),
            created: Moment::of(endpoint.created_at, now),
        })
        .collect();
    let filters = [("All", ""), ("Pending", "pending"), ("Delivered", "delivered"), ("Given up", "dead")];
    html(&WebhooksPage {
        frame: Frame::of("Webhooks", "webhooks", &console, &officer),
        endpoints,
        filters: filters.map(|(name, value)| Filter { name, value, chosen: value == state }).into(),
        state,
        rows,
        older,
    })
}
