//! Who is told of events, and what was delivered.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use utoipa::IntoParams;
use uuid::Uuid;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::payments::Page;
use super::problem::Problem;
use super::schema::DeliveryStateText;
use super::wire::{
    AttemptView, CreateWebhook, DeliveryPage, DeliveryView, DisableWebhook, Nothing, Redeliver, Redelivered, RotateWebhook,
    WebhookSecretView, WebhookView,
};
use crate::officer::Scope;
use crate::webhook::store::DeliveryRow;
use crate::webhook::{
    self, DeliveryState, Endpoint, EventPattern, GuardError, OLD_SECRET_KEEPS, SECRET_BYTES, SigningSecret, WebhookError,
};

/// For how long the old secret may sign at most.
const OLD_SECRET_HOURS_MAX: u32 = 24 * 30;

/// Endpoints that are told of events
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    responses((status = 200, body = Vec<WebhookView>)),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn list(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<WebhookView>>, Problem> {
    who.require(Scope::WebhooksWrite)?;
    let endpoints = webhook::store::list_endpoints(&mut *state.db.connection().await?).await?;
    Ok(axum::Json(endpoints.into_iter().map(view).collect()))
}

/// One endpoint
#[utoipa::path(
    get, path = "/v1/webhooks/{id}", tag = "webhooks",
    responses((status = 200, body = WebhookView), (status = 404, description = "not_found")),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<WebhookView>, Problem> {
    who.require(Scope::WebhooksWrite)?;
    Ok(axum::Json(view(webhook::store::get_endpoint(&mut *state.db.connection().await?, id).await?)))
}

/// Add an endpoint
///
/// The secret is read apart: answers to writes are kept for repeated calls, and it need not be among them.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks",
    request_body = CreateWebhook,
    responses((status = 201, body = WebhookView)),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn create(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, asked) = call.read::<CreateWebhook>(caller, "POST /v1/webhooks".to_owned())?;
    let url = state.webhook_guard.read(&asked.url).map_err(|error| {
        // A password is not repeated.
        let value = if matches!(error, GuardError::Credentials(_)) { "(hidden)".to_owned() } else { shorten(&asked.url) };
        Problem::field("url", value, error.to_string())
    })?;
    let events = patterns(&asked.events)?;
    let description = asked.description.unwrap_or_default();
    if description.chars().count() > 200 {
        return Err(Problem::field("description", shorten(&description), "use at most 200 characters"));
    }
    let endpoint = Endpoint {
        id: Uuid::now_v7(),
        url: url.into(),
        description,
        events,
        created_by: caller.name(),
        created_at: (state.clock)(),
        disabled: None,
    };
    let secret = new_secret()?;
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                webhook::store::insert_endpoint(connection, &endpoint, &secret).await?;
                tracing::info!(endpoint = %endpoint.id, by = endpoint.created_by, "webhook endpoint added");
                Ok(view(endpoint))
            })
        })
        .await
}

/// What deliveries are signed with now.
#[utoipa::path(
    get, path = "/v1/webhooks/{id}/secret", tag = "webhooks",
    responses((status = 200, body = WebhookSecretView), (status = 404, description = "not_found")),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn secret(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<Uuid>,
) -> Result<axum::Json<WebhookSecretView>, Problem> {
    who.require(Scope::WebhooksWrite)?;
    let secret = webhook::store::get_secret(&mut *state.db.connection().await?, id).await?;
    Ok(axum::Json(WebhookSecretView { secret: secret.expose() }))
}

/// Replace the secret
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/secret", tag = "webhooks",
    request_body = RotateWebhook,
    responses((status = 200, body = WebhookView), (status = 404, description = "not_found")),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn rotate(State(state): State<ApiState>, Path(id): Path<Uuid>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, asked) = call.read::<RotateWebhook>(caller, format!("POST /v1/webhooks/{id}/secret"))?;
    let keeps = match asked.old_secret_hours {
        None => OLD_SECRET_KEEPS,
        Some(hours) if hours <= OLD_SECRET_HOURS_MAX => Duration::hours(i64::from(hours)),
        Some(hours) => {
            return Err(Problem::field("old_secret_hours", hours.to_string(), format!("use 0 to {OLD_SECRET_HOURS_MAX}")));
        }
    };
    let (secret, now, by) = (new_secret()?, (state.clock)(), caller.name());
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                webhook::store::rotate_secret(connection, id, &secret, now, now + keeps).await?;
                tracing::info!(endpoint = %id, by, "webhook secret replaced");
                Ok(view(webhook::store::get_endpoint(connection, id).await?))
            })
        })
        .await
}

/// Disable an endpoint
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/disable", tag = "webhooks",
    request_body = DisableWebhook,
    responses(
        (status = 200, body = WebhookView),
        (status = 404, description = "not_found"),
        (status = 409, description = "webhook_state")
    ),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn disable(State(state): State<ApiState>, Path(id): Path<Uuid>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, asked) = call.read::<DisableWebhook>(caller, format!("POST /v1/webhooks/{id}/disable"))?;
    if !(1..=200).contains(&asked.reason.chars().count()) {
        return Err(Problem::field("reason", shorten(&asked.reason), "say why, in 1 to 200 characters"));
    }
    let (now, by) = ((state.clock)(), caller.name());
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                webhook::store::disable(connection, id, &format!("{} ({by})", asked.reason), now).await?;
                Ok(view(webhook::store::get_endpoint(connection, id).await?))
            })
        })
        .await
}

/// Enable an endpoint
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/enable", tag = "webhooks",
    request_body = Nothing,
    responses(
        (status = 200, body = WebhookView),
        (status = 404, description = "not_found"),
        (status = 409, description = "webhook_state")
    ),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn enable(State(state): State<ApiState>, Path(id): Path<Uuid>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, Nothing {}) = call.read::<Nothing>(caller, format!("POST /v1/webhooks/{id}/enable"))?;
    let now = (state.clock)();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                webhook::store::enable(connection, id, now).await?;
                Ok(view(webhook::store::get_endpoint(connection, id).await?))
            })
        })
        .await
}

/// Send a stretch of time again
///
/// One delivery, or all that an endpoint was to get in a stretch of time.
#[utoipa::path(
    post, path = "/v1/webhooks/{id}/redeliver", tag = "webhooks",
    request_body = Redeliver,
    responses((status = 200, body = Redelivered), (status = 404, description = "not_found")),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn redeliver(State(state): State<ApiState>, Path(id): Path<Uuid>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, asked) = call.read::<Redeliver>(caller, format!("POST /v1/webhooks/{id}/redeliver"))?;
    let (now, by) = ((state.clock)(), caller.name());
    let until = asked.until.unwrap_or(now);
    if until <= asked.since {
        return Err(Problem::field("until", until.to_string(), "must be later than since"));
    }
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let count = webhook::store::redeliver_range(connection, id, asked.since, until, asked.dead_only, now).await?;
                tracing::info!(endpoint = %id, by, count, "webhooks are sent again");
                Ok(Redelivered { deliveries: count })
            })
        })
        .await
}

/// Send one delivery again
#[utoipa::path(
    post, path = "/v1/webhook-deliveries/{id}/redeliver", tag = "webhooks",
    request_body = Nothing,
    responses((status = 200, body = Redelivered), (status = 404, description = "not_found")),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn redeliver_one(State(state): State<ApiState>, Path(id): Path<i64>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::WebhooksWrite)?;
    let (write, Nothing {}) = call.read::<Nothing>(caller, format!("POST /v1/webhook-deliveries/{id}/redeliver"))?;
    let now = (state.clock)();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                webhook::store::redeliver(connection, id, now).await?;
                Ok(Redelivered { deliveries: 1 })
            })
        })
        .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveriesAsked {
    /// Of one endpoint; of all without it.
    #[serde(default)]
    webhook: Option<Uuid>,
    /// `pending`, `delivered` or `dead`; all without it.
    #[serde(default)]
    #[param(value_type = Option<DeliveryStateText>, inline)]
    state: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 200; 50 without it.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Deliveries, newest first
///
/// Newest first.
#[utoipa::path(
    get, path = "/v1/webhook-deliveries", tag = "webhooks",
    params(DeliveriesAsked),
    responses((status = 200, body = DeliveryPage)),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn deliveries(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<DeliveriesAsked>,
) -> Result<axum::Json<DeliveryPage>, Problem> {
    who.require(Scope::WebhooksWrite)?;
    let wanted = match &asked.state {
        None => None,
        Some(text) => Some(text.parse::<DeliveryState>().map_err(|remedy| Problem::field("state", shorten(text), remedy))?),
    };
    let page = Page { cursor: asked.cursor, limit: asked.limit };
    let limit = page.limit()?;
    let before = page.number()?;
    let found = webhook::store::list_deliveries(&mut *state.db.connection().await?, asked.webhook, wanted, before, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|row| row.id.to_string());
    Ok(axum::Json(DeliveryPage { deliveries: found.into_iter().map(delivery_view).collect(), next_cursor }))
}

/// Attempts of a delivery
#[utoipa::path(
    get, path = "/v1/webhook-deliveries/{id}/attempts", tag = "webhooks",
    responses((status = 200, body = Vec<AttemptView>)),
    security(("token" = ["webhooks:write"]))
)]
pub(super) async fn attempts(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<i64>,
) -> Result<axum::Json<Vec<AttemptView>>, Problem> {
    who.require(Scope::WebhooksWrite)?;
    let attempts = webhook::store::list_attempts(&mut *state.db.connection().await?, id).await?;
    let views = attempts.into_iter().map(|attempt| AttemptView {
        attempted_at: attempt.attempted_at,
        took_ms: attempt.took_ms,
        status: attempt.status,
        outcome: attempt.outcome,
        answer: attempt.answer,
    });
    Ok(axum::Json(views.collect()))
}

fn patterns(texts: &[String]) -> Result<Vec<EventPattern>, Problem> {
    if !(1..=50).contains(&texts.len()) {
        return Err(Problem::field("events", texts.len().to_string(), "name 1 to 50 kinds of events, such as payment.*"));
    }
    texts
        .iter()
        .map(|text| text.parse().map_err(|error: WebhookError| Problem::field("events", shorten(text), error.to_string())))
        .collect()
}

fn new_secret() -> Result<SigningSecret, Problem> {
    let mut random = vec![0_u8; SECRET_BYTES];
    getrandom::fill(&mut random).map_err(|error| Problem::unavailable(format!("the system gives no randomness: {error}")))?;
    Ok(SigningSecret::new(random))
}

fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

fn view(endpoint: Endpoint) -> WebhookView {
    let (disabled_at, disabled_reason) = endpoint.disabled.map(|disabled| (disabled.at, disabled.reason)).unzip();
    WebhookView {
        id: endpoint.id,
        url: endpoint.url,
        description: endpoint.description,
        events: endpoint.events.iter().map(EventPattern::to_string).collect(),
        created_by: endpoint.created_by,
        created_at: endpoint.created_at,
        disabled_at,
        disabled_reason,
    }
}

fn delivery_view(row: DeliveryRow) -> DeliveryView {
    let waits: Option<OffsetDateTime> = (row.state == DeliveryState::Pending).then_some(row.next_attempt_at);
    DeliveryView {
        id: row.id,
        webhook_id: row.endpoint_id,
        event_id: row.event_id,
        kind: row.kind,
        payment_id: row.payment_id,
        state: row.state.name().to_owned(),
        attempts: row.attempts,
        next_attempt_at: waits,
        created_at: row.created_at,
        finished_at: row.finished_at,
        last_outcome: row.last_outcome,
    }
}
