//! Errors as callers see them: RFC 9457 problems with a stable code. What went wrong inside is logged,
//! not told.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use time::format_description::well_known::Rfc3339;

use super::code::Code;
use super::wire::{FieldProblem, ProblemView};
use crate::account::AccountError;
use crate::approval::ApprovalError;
use crate::broadcast::BroadcastError;
use crate::db::DbError;
use crate::escrow::EscrowError;
use crate::intent::IntentError;
use crate::intent::baseline::BaselineError;
use crate::officer::OfficerError;
use crate::officer::proposal::ProposalError;
use crate::payment::{FieldError, PaymentError};
use crate::policy::PolicyError;
use crate::quote::{QuoteError, Refusal};
use crate::reconcile::ReconcileError;
use crate::screen::ScreenError;
use crate::settings::SettingsError;
use crate::webhook::WebhookError;

/// A refusal with its reason.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    retryable: bool,
    fields: Vec<FieldProblem>,
    retry_after_seconds: Option<u64>,
}

impl Problem {
    pub(super) const CONTENT_TYPE: &'static str = "application/problem+json";

    fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retryable: false, fields: Vec::new(), retry_after_seconds: None }
    }

    /// What is wrong, in words for whoever asked.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// For codes of status 400.
    pub(super) fn bad_request(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code, detail)
    }

    pub(super) fn fields(faults: Vec<FieldError>) -> Self {
        let detail = faults.iter().map(FieldError::to_string).collect::<Vec<_>>().join("; ");
        let fields = faults
            .into_iter()
            .map(|fault| FieldProblem { field: fault.field.to_owned(), value: fault.value, problem: fault.problem })
            .collect();
        Self { fields, ..Self::new(Code::InvalidFields, detail) }
    }

    pub(super) fn field(field: &str, value: impl Into<String>, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        let fields = vec![FieldProblem { field: field.to_owned(), value: value.into(), problem: problem.clone() }];
        let detail = format!("{field}: {problem}");
        Self { fields, ..Self::new(Code::InvalidFields, detail) }
    }

    /// No quote, with the oracle's own code. What may pass is worth asking again.
    pub(super) fn refused(refusal: &Refusal) -> Self {
        let problem = refusal.to_string();
        let named = |field: &str, value: String| vec![FieldProblem { field: field.to_owned(), value, problem: problem.clone() }];
        let fields = match refusal {
            Refusal::QuotingDisabled { currency, .. } | Refusal::UnknownCurrency(currency) => named("currency", currency.clone()),
            Refusal::TokenNotOffered { token, .. } => named("token", token.clone()),
            Refusal::AmountNotPositive | Refusal::SettleOverflow => named("amount", String::new()),
            _ => Vec::new(),
        };
        let code = match refusal {
            Refusal::InsufficientSources { .. } => Code::InsufficientSources,
            Refusal::InconsistentSources { .. } => Code::InconsistentSources,
            Refusal::DepegHalt { .. } => Code::DepegHalt,
            Refusal::JumpUnconfirmed { .. } => Code::JumpUnconfirmed,
            Refusal::MarketClosed { .. } => Code::MarketClosed,
            Refusal::FxSanity { .. } | Refusal::FxReference { .. } | Refusal::FxUnbounded { .. } => Code::FxSanity,
            Refusal::AmountNotPositive => Code::AmountNotPositive,
            Refusal::RateNotPositive { .. } => Code::RateNotPositive,
            Refusal::SettleOverflow => Code::SettleOverflow,
            Refusal::UnknownCurrency(_) => Code::UnknownCurrency,
            Refusal::TokenNotOffered { .. } => Code::TokenNotOffered,
            Refusal::QuotingDisabled { .. } => Code::QuotingDisabled,
        };
        Self { retryable: refusal.is_passing(), fields, ..Self::new(code, problem.clone()) }
    }

    /// As it is, with something to do about it.
    pub(super) fn advising(self, advice: &str) -> Self {
        Self { detail: format!("{}; {advice}", self.detail), ..self }
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "send `Authorization: Bearer amanat_…` with a live token (`amanatd token create`)";
        Self::new(Code::Unauthorized, detail)
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, detail)
    }

    pub(super) fn not_found(what: impl Into<String>) -> Self {
        Self::new(Code::NotFound, what)
    }

    pub(super) fn method() -> Self {
        Self::new(Code::Method, "this route does not take that method")
    }

    /// For codes of status 409.
    pub(super) fn conflict(code: Code, detail: impl Into<String>) -> Self {
        Self::new(code, detail)
    }

    pub(super) fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used on this route with another body; use a new key for a new request";
        Self::new(Code::KeyReused, detail)
    }

    pub(super) fn key_running() -> Self {
        let detail = "the first call with this Idempotency-Key is still running; repeat it in a moment";
        Self { retryable: true, ..Self::new(Code::KeyRunning, detail) }
    }

    pub(super) fn unavailable(detail: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::new(Code::Unavailable, detail) }
    }

    pub(super) fn rate_limited(seconds: u64) -> Self {
        let detail = format!("too many requests; go on in {seconds} s");
        Self { retryable: true, retry_after_seconds: Some(seconds), ..Self::new(Code::RateLimited, detail) }
    }

    pub(super) fn streams_full(max: usize) -> Self {
        let detail = format!("{max} streams are open, as many as are allowed; read /v1/events instead, or try later");
        Self { retryable: true, ..Self::new(Code::StreamsFull, detail) }
    }

    /// A refusal from below the handlers, with the words that came with it.
    pub(super) fn of_status(status: StatusCode, said: &str) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => Self::new(Code::BodyTooLarge, "the body may have 64 KiB"),
            StatusCode::GATEWAY_TIMEOUT => {
                let detail = "the call took too long; repeat it with the same Idempotency-Key to learn its outcome";
                Self { retryable: true, ..Self::new(Code::Timeout, detail) }
            }
            _ if status.is_client_error() => {
                let said: String = said.chars().take(300).collect();
                Self::new(Code::Unreadable, if said.is_empty() { status.to_string() } else { said })
            }
            _ => Self::internal(),
        }
    }

    /// What was refused for a reason of its own, in words; `None` for trouble that passes, a missing right, or a
    /// call that could not be read.
    pub(super) fn refusal(&self) -> Option<String> {
        let facts = self.code.facts();
        let refused = matches!(facts.status, StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY);
        (refused && !facts.name.starts_with("idempotency_")).then(|| self.detail.clone())
    }

    fn internal() -> Self {
        let detail = "the daemon logged what happened under this request's id (x-request-id)";
        Self::new(Code::Internal, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let facts = self.code.facts();
        let body = ProblemView {
            kind: format!("urn:amanatd:problem:{}", facts.name),
            title: facts.title.to_owned(),
            status: facts.status.as_u16(),
            detail: self.detail,
            code: facts.name.to_owned(),
            retryable: self.retryable,
            fields: self.fields,
        };
        let mut response = (facts.status, axum::Json(body)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
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
            PaymentError::Illegal { payment, source } => Self::conflict(Code::PaymentState, format!("payment {payment}: {source}")),
        }
    }
}

impl From<EscrowError> for Problem {
    fn from(error: EscrowError) -> Self {
        let said = error.to_string();
        match error {
            EscrowError::Db(error) => error.into(),
            EscrowError::Payment(error) => error.into(),
            EscrowError::State { .. } => Self::conflict(Code::PaymentState, said),
            EscrowError::NotEnough { .. } => Self::conflict(Code::NotEnough, said),
            EscrowError::OnlyFees { .. } => Self::conflict(Code::OnlyFees, said),
            EscrowError::Disputed { .. } => Self::conflict(Code::Disputed, said),
            EscrowError::StillShort { .. } | EscrowError::WorthLess { .. } => Self::conflict(Code::StillShort, said),
            EscrowError::NoFreshQuote { refusal, .. } => Self { detail: said, ..Self::refused(&refusal) },
            EscrowError::NothingToAccept(_) => Self::conflict(Code::NothingToAccept, said),
            EscrowError::Resolved(_) => Self::conflict(Code::DisputeResolved, said),
            EscrowError::Split { .. } => Self::conflict(Code::Split, said),
            EscrowError::PayoutState { .. } => Self::conflict(Code::PayoutState, said),
            EscrowError::NotQuarantined { .. } => Self::conflict(Code::NotQuarantined, said),
            EscrowError::UnknownDispute(_) | EscrowError::UnknownPayout(_) => Self::not_found(said),
            EscrowError::Recipient { to, source } => Self::field("to", to.to_string(), source.to_string()),
            EscrowError::OwnAddress(to) => Self::field("to", to.to_string(), "is one of our own addresses"),
            EscrowError::Length { what, .. } => Self::field(what, "", said),
            EscrowError::Officer(error) => error.into(),
            EscrowError::NotSuspended(_) => Self::conflict(Code::NothingToAccept, said),
            EscrowError::OnlyCredited(_) => Self::conflict(Code::OnlyCredited, said),
            EscrowError::Screened { .. } => Self::conflict(Code::Held, said),
            EscrowError::ForeignAddress(address) => Self::field("address", address.to_string(), "is no address of ours"),
            EscrowError::Units(units) => Self::field("amount", units, "more than zero"),
            EscrowError::AccountShort { .. } => Self::conflict(Code::NotEnough, said),
            EscrowError::Ledger(_) | EscrowError::Unlisted(_) | EscrowError::Adjustment(_) | EscrowError::Empty(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed in escrow");
                Self::internal()
            }
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
            IntentError::Policy(error) => error.into(),
            IntentError::Raise { .. } => Self::conflict(Code::Fees, error.to_string()),
            IntentError::Escrow(error) => error.into(),
            IntentError::Unknown(id) => Self::not_found(format!("no intent {id}")),
            IntentError::Illegal { intent, source } => Self::conflict(Code::IntentState, format!("intent {intent}: {source}")),
            IntentError::MayBeSigned(_) => Self::conflict(Code::MayBeSigned, error.to_string()),
            IntentError::NoPayout(_)
            | IntentError::Item { .. }
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
            ApprovalError::StaleDigest { .. } => Self::conflict(Code::StaleDigest, error.to_string()),
            ApprovalError::Twice { .. } => Self::conflict(Code::AlreadyApproved, error.to_string()),
        }
    }
}

impl From<ScreenError> for Problem {
    fn from(error: ScreenError) -> Self {
        match error {
            ScreenError::Db(error) => error.into(),
            ScreenError::Payment(error) => error.into(),
            ScreenError::Unknown(_) | ScreenError::UnknownRecipient(_) => Self::not_found(error.to_string()),
            ScreenError::NotHeld(_) | ScreenError::RecipientNotHeld(_) => Self::conflict(Code::NotHeld, error.to_string()),
            ScreenError::NotResolver(_) => Self::forbidden(error.to_string()),
            ScreenError::Reason(ref reason) => {
                Self::field("reason", reason.chars().take(100).collect::<String>(), "say why in 1 to 500 characters")
            }
            ScreenError::Rpc(_) | ScreenError::Officer(_) | ScreenError::List(_) => {
                tracing::error!(error = &error as &dyn std::error::Error, "request failed on a screening");
                Self::internal()
            }
        }
    }
}

impl From<BroadcastError> for Problem {
    fn from(error: BroadcastError) -> Self {
        match error {
            BroadcastError::Db(error) => error.into(),
            BroadcastError::Intent(error) => error.into(),
            BroadcastError::ApprovalsExpired { .. } => Self::conflict(Code::ApprovalsExpired, error.to_string()),
            BroadcastError::NonceUsed { .. } => Self::conflict(Code::NonceUsed, error.to_string()),
            BroadcastError::BeingCancelled { .. } => Self::conflict(Code::BeingCancelled, error.to_string()),
            BroadcastError::NotReplaceable { .. } => Self::conflict(Code::NotReplaceable, error.to_string()),
            BroadcastError::Adopt { .. } => Self::conflict(Code::NotAdoptable, error.to_string()),
            BroadcastError::CannotPay { .. } => Self::conflict(Code::CannotPay, error.to_string()),
            BroadcastError::Halted { .. } => Self::conflict(Code::OutflowHalted, error.to_string()),
            BroadcastError::OnlyCredited { .. } => Self::conflict(Code::OnlyCredited, error.to_string()),
            BroadcastError::OtherStation { .. } => Self::conflict(Code::OtherStation, error.to_string()),
            BroadcastError::Held { .. } => Self::conflict(Code::Held, error.to_string()),
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

impl From<OfficerError> for Problem {
    fn from(error: OfficerError) -> Self {
        let said = error.to_string();
        let refused = match error {
            OfficerError::Db(error) => return error.into(),
            OfficerError::Proposal(refused) => refused,
            OfficerError::UnknownUser(_) | OfficerError::UnknownToken(_) => return Self::not_found(said),
            OfficerError::Role(_)
            | OfficerError::Scope(_)
            | OfficerError::ApproverWithoutUser
            | OfficerError::NotAnOfficer { .. }
            | OfficerError::ResolverWithoutUser
            | OfficerError::NotAResolver { .. }
            | OfficerError::TokenNameTaken(_)
            | OfficerError::EmailTaken(_) => return Self::conflict(Code::Officer, said),
        };
        match refused {
            ProposalError::NotAnOfficer | ProposalError::OwnProposal(_) => Self::forbidden(said),
            ProposalError::Unknown(_) => Self::not_found(said),
            ProposalError::Decided(_) => Self::conflict(Code::Decided, said),
            ProposalError::StaleDigest(_) => Self::conflict(Code::StaleDigest, said),
            ProposalError::Dead(_) | ProposalError::ProposerLeft(_) => Self::conflict(Code::ProposalDead, said),
            ProposalError::OtherSubject { .. } => Self::conflict(Code::OtherSubject, said),
            ProposalError::Reason { found } => Self::field("reason", format!("{found} characters"), said),
            ProposalError::Past { asked, .. } => Self::field("effective_at", asked.format(&Rfc3339).unwrap_or_default(), said),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let said = error.to_string();
        match error {
            PolicyError::Db(error) => error.into(),
            PolicyError::Officer(error) => error.into(),
            PolicyError::Document(_) => Self::field("document", "", said),
            PolicyError::Refused { .. } => Self::conflict(Code::PolicyRefused, said),
            PolicyError::NotListed(_) => Self::not_found(said),
            PolicyError::Own(address) => Self::field("address", address.to_string(), said),
            PolicyError::Label { found } => Self::field("label", format!("{found} characters"), said),
        }
    }
}

impl From<BaselineError> for Problem {
    fn from(error: BaselineError) -> Self {
        let said = error.to_string();
        match error {
            BaselineError::Db(error) => error.into(),
            BaselineError::Officer(error) => error.into(),
            BaselineError::NotOurs(address) => Self::field("address", address.to_string(), said),
            BaselineError::NotHigher { .. } => Self::conflict(Code::Baseline, said),
            BaselineError::Stored(_) => {
                tracing::error!(error = said, "a stored proposal cannot be read");
                Self::internal()
            }
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        let said = error.to_string();
        match error {
            WebhookError::Db(error) => error.into(),
            WebhookError::Unknown(_) | WebhookError::UnknownDelivery(_) => Self::not_found(said),
            WebhookError::Disabled(_) | WebhookError::Enabled(_) => Self::conflict(Code::WebhookState, said),
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
            SettingsError::Officer(error) => error.into(),
            SettingsError::Lowers { .. } => Self::conflict(Code::Lowers, problem),
            SettingsError::Proposal(_) => Self::internal(),
            SettingsError::Past { asked, .. } => Self::field("effective_at", asked.format(&Rfc3339).unwrap_or_default(), problem),
            SettingsError::Length { field, found, .. } => Self::field(field, format!("{found} characters"), problem),
            SettingsError::Bounds { which, value } => Self::field(which.name(), value.to_string(), problem),
            SettingsError::BaseOff(_) | SettingsError::NoTier(_) => Self::field("blocks", "null", problem),
            SettingsError::NoBase(_) => Self::conflict(Code::NoBase, problem),
        }
    }
}
