//! Screened transfers and recipients: what is held and why, and a resolver's decisions.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::payments::Page;
use super::problem::Problem;
use super::schema::HeldOrAllText;
use super::wire::{DecideScreening, RecipientPage, RecipientView, ScreeningPage, ScreeningVerdictView, ScreeningView};
use crate::chains::ChainBook;
use crate::officer::{Scope, UserRole};
use crate::screen::store::{Screened, StoredRuling, VerdictRow};
use crate::screen::{self, Decision, Recipient, Ruling};
use crate::units::{UserId, format_units};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Asked {
    /// `held`, the default, or `all`.
    #[serde(default)]
    #[param(value_type = Option<HeldOrAllText>, inline)]
    state: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 200; 50 without it.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

impl Asked {
    /// Whether all are wanted, after which, and how many.
    fn read(self) -> Result<(bool, i64, i64), Problem> {
        let all = match self.state.as_deref() {
            None | Some("held") => false,
            Some("all") => true,
            Some(other) => return Err(Problem::field("state", other.chars().take(40).collect::<String>(), "use held or all")),
        };
        let page = Page { cursor: self.cursor, limit: self.limit };
        Ok((all, page.number()?.unwrap_or(0), page.limit()?))
    }
}

/// Screened transfers
#[utoipa::path(
    get, path = "/v1/screenings", tag = "screenings",
    params(Asked),
    responses((status = 200, body = ScreeningPage)),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<Asked>,
) -> Result<axum::Json<ScreeningPage>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let (all, after, limit) = asked.read()?;
    let found = screen::store::list_held(&mut *state.db.connection().await?, all, after, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|row| row.observation.to_string());
    Ok(axum::Json(ScreeningPage { screenings: found.into_iter().map(|row| view(row, &state.book)).collect(), next_cursor }))
}

/// One screened transfer with every verdict
#[utoipa::path(
    get, path = "/v1/screenings/{id}", tag = "screenings",
    responses((status = 200, body = ScreeningView), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<ScreeningView>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let id = id_of(&id)?;
    let mut connection = state.db.connection().await?;
    let row = screen::store::list_rows(&mut connection, &[id]).await?.pop().ok_or_else(|| unknown(&id.to_string()))?;
    let verdicts = screen::store::list_verdicts(&mut connection, id).await?;
    Ok(axum::Json(ScreeningView { verdicts: verdict_views(verdicts), ..view(row, &state.book) }))
}

/// Clear or confirm a held transfer
#[utoipa::path(
    post, path = "/v1/screenings/{id}/decision", tag = "screenings",
    request_body = DecideScreening,
    responses((status = 200, body = ScreeningView), (status = 404, description = "not_found"), (status = 409, description = "not_held")),
    security(("resolver_alone" = ["disputes:resolve"]))
)]
pub(super) async fn decide(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let by = resolver(&call.who)?;
    let caller = call.who.require(Scope::DisputesResolve)?;
    let id = id_of(&id)?;
    let (write, asked) = call.read::<DecideScreening>(caller, format!("POST /v1/screenings/{id}/decision"))?;
    let decision = decision_of(&asked)?;
    let (book, now) = (state.book.clone(), (state.clock)());
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let row = screen::decide(connection, id, Ruling { decision, by, reason: asked.reason }, now).await?;
                Ok(view(row, &book))
            })
        })
        .await
}

/// Screened recipients
///
/// Whom money of payments would go to: sellers, and where refunds are wanted.
#[utoipa::path(
    get, path = "/v1/recipients", tag = "screenings",
    params(Asked),
    responses((status = 200, body = RecipientPage)),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn recipients(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<Asked>,
) -> Result<axum::Json<RecipientPage>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let (all, after, limit) = asked.read()?;
    let found = screen::recipient::store::list_held(&mut *state.db.connection().await?, all, after, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|row| row.id.to_string());
    Ok(axum::Json(RecipientPage { recipients: found.into_iter().map(recipient_view).collect(), next_cursor }))
}

/// One screened recipient with every verdict
#[utoipa::path(
    get, path = "/v1/recipients/{id}", tag = "screenings",
    responses((status = 200, body = RecipientView), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn recipient(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<RecipientView>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let unknown = || Problem::not_found(format!("no recipient {:?}", id.chars().take(40).collect::<String>()));
    let number: i64 = id.parse().map_err(|_| unknown())?;
    let mut connection = state.db.connection().await?;
    let row = screen::recipient::store::find(&mut connection, number).await?.ok_or_else(unknown)?;
    let verdicts = screen::recipient::store::list_verdicts(&mut connection, number).await?;
    Ok(axum::Json(RecipientView { verdicts: verdict_views(verdicts), ..recipient_view(row) }))
}

/// Clear or confirm a held recipient
#[utoipa::path(
    post, path = "/v1/recipients/{id}/decision", tag = "screenings",
    request_body = DecideScreening,
    responses((status = 200, body = RecipientView), (status = 404, description = "not_found"), (status = 409, description = "not_held")),
    security(("resolver_alone" = ["disputes:resolve"]))
)]
pub(super) async fn decide_recipient(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let by = resolver(&call.who)?;
    let caller = call.who.require(Scope::DisputesResolve)?;
    let id: i64 = id.parse().map_err(|_| Problem::not_found(format!("no recipient {:?}", id.chars().take(40).collect::<String>())))?;
    let (write, asked) = call.read::<DecideScreening>(caller, format!("POST /v1/recipients/{id}/decision"))?;
    let decision = decision_of(&asked)?;
    let now = (state.clock)();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let row = screen::decide_recipient(connection, id, Ruling { decision, by, reason: asked.reason }, now).await?;
                Ok(recipient_view(row))
            })
        })
        .await
}

fn resolver(who: &Authenticated) -> Result<UserId, Problem> {
    match who.require(Scope::DisputesResolve)?.user {
        Some((by, UserRole::Resolver)) => Ok(by),
        _ => Err(Problem::forbidden("only a resolver decides about what is held; use the token of a user with that role")),
    }
}

fn decision_of(asked: &DecideScreening) -> Result<Decision, Problem> {
    match asked.decision.as_str() {
        "clear" => Ok(Decision::Cleared),
        "confirm" => Ok(Decision::Confirmed),
        other => Err(Problem::field("decision", other.chars().take(40).collect::<String>(), "use clear or confirm")),
    }
}

fn id_of(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| unknown(text))
}

fn unknown(text: &str) -> Problem {
    Problem::not_found(format!("no screening {:?}", text.chars().take(40).collect::<String>()))
}

fn view(row: Screened, book: &ChainBook) -> ScreeningView {
    let amount = row.subject.amount;
    let (symbol, decimals) =
        book.asset(amount.asset).map_or_else(|| ("raw units".to_owned(), 0), |facts| (facts.symbol.to_owned(), facts.decimals));
    let (decision, decided_by, decided_at, reason) = ruling_parts(row.ruling);
    ScreeningView {
        id: row.observation,
        chain_id: amount.asset.chain.get(),
        payment_id: row.payment,
        tx_hash: row.subject.tx_hash,
        sender: row.subject.sender,
        origin: row.subject.origin,
        asset: amount.asset.asset.to_string(),
        symbol,
        amount: format_units(amount.units, decimals),
        amount_units: amount.units.to_string(),
        outcome: row.policy.map(|_| row.standing.outcome.name().to_owned()),
        hits: row.standing.hits,
        missing: row.standing.missing,
        passes: row.passes,
        decision,
        decided_by,
        decided_at,
        reason,
        verdicts: Vec::new(),
    }
}

type RulingParts = (Option<String>, Option<UserId>, Option<time::OffsetDateTime>, Option<String>);

fn ruling_parts(ruling: Option<StoredRuling>) -> RulingParts {
    match ruling {
        Some(ruling) => (Some(ruling.decision.name().to_owned()), Some(ruling.by), Some(ruling.at), Some(ruling.reason)),
        None => (None, None, None, None),
    }
}

fn verdict_views(rows: Vec<VerdictRow>) -> Vec<ScreeningVerdictView> {
    rows.into_iter()
        .map(|row| ScreeningVerdictView {
            screener: row.screener.name().to_owned(),
            outcome: row.outcome.name().to_owned(),
            evidence: row.evidence,
            screened_at: row.screened_at,
        })
        .collect()
}

fn recipient_view(row: Recipient) -> RecipientView {
    let (decision, decided_by, decided_at, reason) = ruling_parts(row.ruling);
    RecipientView {
        id: row.id,
        chain_id: row.chain.get(),
        payment_id: row.payment,
        address: row.address,
        outcome: row.policy.map(|_| row.standing.outcome.name().to_owned()),
        hits: row.standing.hits,
        missing: row.standing.missing,
        passes: row.passes,
        decision,
        decided_by,
        decided_at,
        reason,
        verdicts: Vec::new(),
    }
}
