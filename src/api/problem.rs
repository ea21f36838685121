//! Errors as callers see them: RFC 9457 problems with a stable code. What went wrong inside is logged,
//! not told.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use time::format_description::well_known::Rfc3339;

use super::wire::{FieldProblem, ProblemView};
use crate::account::AccountError;
use crate::approval::ApprovalError;
use crate::broadcast::BroadcastError;
use crate::db::DbError;
use crate::intent::IntentError;
use crate::payment::{FieldError, PaymentError};
use crate::quote::{QuoteError, Refusal};
use crate::reconcile::ReconcileError;
use crate::settings::SettingsError;
use crate::webhook::WebhookError;

/// A refusal with its reason.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    retryable: bool,
    fields: Vec<FieldProblem>,
}

impl Problem {
    pub(super) const CONTENT_TYPE: &'static str = "application/problem+json";

    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into(), retryable: false, fields: Vec::new() }
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, "The request cannot be read", detail)
    }

    pub(super) fn fields(faults: Vec<FieldError>) -> Self {
        let detail = faults.iter().map(FieldError::to_string).collect::<Vec<_>>().join("; ");
        let fields = faults
            .into_iter()
            .map(|fault| FieldProblem { field: fault.field.to_owned(), value: fault.value, problem: fault.problem })
            .collect();
        Self { fields, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", "A field cannot be accepted", detail) }
    }

    pub(super) fn field(field: &str, value: impl Into<String>, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        let fields = vec![FieldProblem { field: field.to_owned(), value: value.into(), problem: problem.clone() }];
        let detail = format!("{field}: {problem}");
        Self { fields, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_fields", "A field cannot be accepted", detail) }
    }

    /// No quote, with the oracle's own code. What may pass is worth asking again.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let status = if refusal.is_passing() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::UNPROCESSABLE_ENTITY };
        let problem = refusal.to_string();
        let named = |field: &str, value: String| vec![FieldProblem { field: field.to_owned(), value, problem: problem.clone() }];
        let fields = match refusal {
            Refusal::QuotingDisabled { currency, .. } | Refusal::UnknownCurrency(currency) => named("currency", currency.clone()),
            Refusal::TokenNotOffered { token, .. } => named("token", token.clone()),
            Refusal::AmountNotPositive | Refusal::SettleOverflow => named("amount", String::new()),
            _ => Vec::new(),
        };
        Self { retryable: refusal.is_passing(), fields, ..Self::new(status, refusal.code(), "There is no quote", problem.clone()) }
    }

    /// As it is, with something to do about it.
    pub(super) fn advising(self, advice: &str) -> Self {
        Self { detail: format!("{}; {advice}", self.detail), ..self }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer amanat_…` with a live token (`amanatd token create`)";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "No live token", detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The token may not do this", detail)
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is no such thing", what)
    }

    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, "Not possible in the present state", detail)
    }

    pub(super) fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used on this route with another body; use a new key for a new request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency key reused", detail)
    }

    pub(super) fn key_running() -> Self {
        let detail = "the first call with this Idempotency-Key is still running; repeat it in a moment";
        Self { retryable: true, ..Self::new(StatusCode::CONFLICT, "idempotency_key_running", "Still running", detail) }
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible right now", detail) }
    }

    /// A refusal from below the handlers, with the words that came with it.
    pub(super) fn of_status(status: StatusCode, said: &str) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(status, "body_too_large", "The request cannot be read", "the body may have 64 KiB"),
            StatusCode::GATEWAY_TIMEOUT => {
                let detail = "the call took too long; repeat it with the same Idempotency-Key to learn its outcome";
                Self { retryable: true, ..Self::new(status, "timeout", "Not possible right now", detail) }
            }
            _ if status.is_client_error() => {
                let said: String = said.chars().take(300).collect();
                let detail = if said.is_empty() { status.to_string() } else { said };
                Self::new(status, "unreadable", "The request cannot be read", detail)
            }
            _ => Self::internal(),
        }
    }

    fn internal() -> Self {
        let detail = "the daemon logged what happened under this request's id (x-request-id)";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The daemon failed", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemView {
            kind: format!("urn:amanatd:problem:{}", self.code),
            title: self.title.to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.to_owned(),
            retryable: self.retryable,
            fields: self.fields,
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::CONTENT_TYPE));
        response
    }
}

impl From<DbError> for Problem {
    fn from(error: DbError) -> Self {
        let detail = match &error {
            DbError::Connect(_) => "the database cannot be reached; repeat the call with the same Idempotency-Key",
            DbError::CommitUnknown(_) => "the outcome is unknown; repeat the call with the same Idempotency-Key to learn it",
            DbError::Fenced(_) => "another daemon has taken over; call it with the same Idempotency-Key",
            DbError::NotOneRow { .. } => "another process moved it first; read it again",
            DbError::Query(_) | DbError::Corrupt { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed in the database");
                return Self::internal();
            }
        };
        tracing::warn!(error = &error as &dyn std::error::Error, "request met a database that is not there");
        Self::unavailable(detail)
    }
}

impl From<QuoteError> for Problem {
    fn from(error: QuoteError) -> Self {
        match error {
            QuoteError::Db(error) => error.into(),
            QuoteError::UnknownSource(_) | QuoteError::Client(_) | QuoteError::Feed { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed in the oracle");
                Self::internal()
            }
        }
    }
}

impl From<PaymentError> for Problem {
    fn from(error: PaymentError) -> Self {
        match error {
            PaymentError::Db(error) => error.into(),
            PaymentError::Unknown(id) => Self::not_found(format!("no payment {id}")),
            PaymentError::Illegal { payment, source } => Self::conflict("payment_state", format!("payment {payment}: {source}")),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Db(error) => error.into(),
            AccountError::NoAccount | AccountError::Exhausted { .. } => Self::unavailable(error.to_string()),
            AccountError::Derive(_)
            | AccountError::Unknown { .. }
            | AccountError::RowMissing { .. }
            | AccountError::Differs { .. }
            | AccountError::XpubTaken { .. }
            | AccountError::LabelTaken { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed in the account");
                Self::internal()
            }
        }
    }
}

impl From<IntentError> for Problem {
    fn from(error: IntentError) -> Self {
        match error {
            IntentError::Db(error) => error.into(),
            IntentError::Account(error) => error.into(),
            IntentError::Payment(error) => error.into(),
            IntentError::Unknown(id) => Self::not_found(format!("no intent {id}")),
            IntentError::Illegal { intent, source } => Self::conflict("intent_state", format!("intent {intent}: {source}")),
            IntentError::MayBeSigned(_) => Self::conflict("may_be_signed", error.to_string()),
            IntentError::Item { .. }
            | IntentError::GasTooHigh { .. }
            | IntentError::Rpc(_)
            | IntentError::Ledger(_)
            | IntentError::ForeignNonce { .. }
            | IntentError::DigestMismatch(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed on an intent");
                Self::internal()
            }
        }
    }
}

impl From<ApprovalError> for Problem {
    fn from(error: ApprovalError) -> Self {
        match error {
            ApprovalError::Intent(error) => error.into(),
            ApprovalError::Db(error) => error.into(),
            ApprovalError::NotAnOfficer | ApprovalError::OwnRequest { .. } => Self::forbidden(error.to_string()),
            ApprovalError::StaleDigest { .. } => Self::conflict("stale_digest", error.to_string()),
            ApprovalError::Twice { .. } => Self::conflict("already_approved", error.to_string()),
        }
    }
}

impl From<BroadcastError> for Problem {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::Db(error) => error.into(),
            BroadcastError::Intent(error) => error.into(),
            BroadcastError::Halted { .. } => Self::conflict("outflow_halted", error.to_string()),
            BroadcastError::OnlyCredited { .. } => Self::conflict("only_credited", error.to_string()),
            BroadcastError::OtherStation { .. } => Self::conflict("other_station", error.to_string()),
            BroadcastError::NotApproved { intent, source } => {
                tracing::error!(intent.id = %intent, error = &*source as &dyn std::error::Error, "a station sent a signature over something else");
                Self::field("raw", "", format!("not what was approved for intent {intent}: {source}"))
            }
            BroadcastError::Rpc(_)
            | BroadcastError::Request { .. }
            | BroadcastError::UnknownChain(_)
            | BroadcastError::NoGasPrice { .. }
            | BroadcastError::Item { .. }
            | BroadcastError::ForeignNonce { .. } => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed on a transaction");
                Self::internal()
            }
        }
    }
}

impl From<ReconcileError> for Problem {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Db(error) => error.into(),
            ReconcileError::Rpc(error) => Self::unavailable(format!("a chain cannot be read: {error}")),
            ReconcileError::NotScanned(_) => Self::unavailable(error.to_string()),
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let said = error.to_string();
        match error {
            WebhookError::Db(error) => error.into(),
            WebhookError::Unknown(_) | WebhookError::UnknownDelivery(_) => Self::not_found(said),
            WebhookError::Disabled(_) | WebhookError::Enabled(_) => Self::conflict("webhook_state", said),
            WebhookError::Pattern(text) => Self::field("events", text, said),
            WebhookError::Url(_) => Self::field("url", "", said),
        }
    }
}

impl From<SettingsError> for Problem {
    fn from(error: SettingsError) -> Self {
        let problem = error.to_string();
        match error {
            SettingsError::Db(error) => error.into(),
            SettingsError::Past { asked, .. } => Self::field("effective_at", asked.format(&Rfc3339).unwrap_or_default(), problem),
            SettingsError::Length { field, found, .. } => Self::field(field, format!("{found} characters"), problem),
            SettingsError::BaseOff(_) | SettingsError::NoTier(_) => Self::field("blocks", "null", problem),
            SettingsError::NoBase(_) => Self::conflict("no_base", problem),
        }
    }
}
