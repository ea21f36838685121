//! Statements and balances as downloads: streamed a page at a time, never held whole.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::problem::Problem;
use super::schema::FormatText;
use crate::db::{Database, DbError};
use crate::ledger::statement::{self, BalanceLines, Filter, Format, StatementLines};
use crate::officer::Scope;
use crate::units::{LedgerAccountId, PaymentId};

/// `GET /v1/ledger/statement`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AskStatement {
    payment_id: Option<PaymentId>,
    account_id: Option<i64>,
    /// Entries written from then on.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<OffsetDateTime>,
    /// And before then.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<OffsetDateTime>,
    /// json without it.
    #[param(value_type = Option<FormatText>, inline)]
    format: Option<Format>,
}

/// `GET /v1/ledger/balances`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AskBalances {
    /// As they stood then; as they stand now without it.
    #[serde(default, with = "time::serde::rfc3339::option")]
    #[param(value_type = Option<String>, format = DateTime)]
    at: Option<OffsetDateTime>,
    /// json without it.
    #[param(value_type = Option<FormatText>, inline)]
    format: Option<Format>,
}

/// Entries of a payment, an account or a period
#[utoipa::path(
    get, path = "/v1/ledger/statement", tag = "ledger",
    params(AskStatement),
    responses((status = 200, content((serde_json::Value = "application/json"), (String = "text/csv"))), (status = 404, description = "not_found")),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn statement(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<AskStatement>,
) -> Result<Response, Problem> {
    who.require(Scope::LedgerRead)?;
    if let Some(account) = asked.account_id {
        // A refusal in the middle of a download would be no document.
        let known =
            statement::store::list_balances(&mut *state.db.connection().await?, None, LedgerAccountId(account.saturating_sub(1)), 1)
                .await?;
        if known.first().is_none_or(|line| line.account.0 != account) {
            return Err(Problem::not_found(format!("no ledger account {account}")));
        }
    }
    let format = asked.format.unwrap_or(Format::Json);
    let filter = Filter { payment: asked.payment_id, account: asked.account_id.map(LedgerAccountId), from: asked.from, until: asked.until };
    Ok(download_statement(state.db, filter, format))
}

/// Balances at an instant
#[utoipa::path(
    get, path = "/v1/ledger/balances", tag = "ledger",
    params(AskBalances),
    responses((status = 200, content((serde_json::Value = "application/json"), (String = "text/csv")))),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn balances_at(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<AskBalances>,
) -> Result<Response, Problem> {
    who.require(Scope::LedgerRead)?;
    Ok(download_balances(state.db, asked.at, asked.format.unwrap_or(Format::Json)))
}

/// A statement as a file, whoever asks for it.
pub fn download_statement(db: Database, filter: Filter, format: Format) -> Response {
    let lines = StatementLines::new(db, filter, format);
    let pieces = stream::try_unfold(lines, async |mut lines| Ok::<_, DbError>(lines.next().await?.map(|piece| (piece, lines))));
    (head(format, "statement"), Body::from_stream(pieces)).into_response()
}

/// All balances as a file: as they stand, or as they stood then.
pub fn download_balances(db: Database, at: Option<OffsetDateTime>, format: Format) -> Response {
    let lines = BalanceLines::new(db, at, format);
    let pieces = stream::try_unfold(lines, async |mut lines| Ok::<_, DbError>(lines.next().await?.map(|piece| (piece, lines))));
    (head(format, "balances"), Body::from_stream(pieces)).into_response()
}

/// Saved and not shown: a browser takes nothing in it for a page.
fn head(format: Format, name: &str) -> [(HeaderName, String); 3] {
    let (kind, ending) = match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Json => ("application/json", "json"),
    };
    [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}.{ending}\"")),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ]
}
