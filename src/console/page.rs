//! What every page is made in: the frame, and refusals that read as pages too.

use askama::Template;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use super::assets::VERSION;
use super::identity::session::{self, Officer};
use super::{Console, ConsoleError};
use crate::approval::ApprovalError;
use crate::escrow::EscrowError;
use crate::intent::IntentError;
use crate::webhook::WebhookError;

/// Around every page.
#[derive(Debug)]
pub(super) struct Frame {
    pub title: String,
    /// Which entry of the navigation is this one.
    pub here: &'static str,
    pub version: &'static str,
    /// Who is signed in, and what a change must repeat.
    pub officer: Option<(String, String)>,
    pub clock: String,
}

impl Frame {
    pub(super) fn of(title: impl Into<String>, here: &'static str, console: &Console, officer: &Officer) -> Self {
        let holder = &officer.holder;
        Self {
            title: title.into(),
            here,
            version: VERSION.as_str(),
            officer: Some((holder.name.clone(), holder.csrf_token.clone())),
            clock: super::show::clock(console.now()),
        }
    }

    pub(super) fn outside(title: impl Into<String>) -> Self {
        Self { title: title.into(), here: "", version: VERSION.as_str(), officer: None, clock: String::new() }
    }
}

pub(super) fn html(page: &impl Template) -> Result<Response, Refusal> {
    let text = page.render().map_err(ConsoleError::from)?;
    Ok(Html(text).into_response())
}

/// Why there is no page.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nobody is signed in, or no longer.
    SignedOut { wanted: String },
    /// Signed in, and not an officer any more.
    NotAnOfficer,
    /// A change that did not come from one of our pages.
    Forged,
    /// It names what is not there.
    Unknown(String),
    /// It can be read and cannot be done, with the reason for the officer.
    Conflict(String),
    /// A field says what it may not.
    Field(String),
    /// A passkey was not accepted. Why is logged and not told.
    Passkey,
    /// Too many tries to get in from this address; so many seconds until the next.
    TooMany { seconds: u64 },
    /// Something behind the console failed; logged.
    Failed { retryable: bool },
}

impl From<ConsoleError> for Refusal {
    fn from(error: ConsoleError) -> Self {
        let said = error.to_string();
        match error {
            ConsoleError::Intent(IntentError::Unknown(_)) | ConsoleError::Webhook(WebhookError::Unknown(_)) => Self::Unknown(said),
            ConsoleError::Approval(ApprovalError::Intent(IntentError::Unknown(_))) => Self::Unknown(said),
            ConsoleError::Intent(IntentError::DigestMismatch(_))
            | ConsoleError::Approval(ApprovalError::Intent(IntentError::DigestMismatch(_))) => {
                tracing::error!(error = said, "an intent is not what its digest says");
                Self::Conflict(
                    "This intent is not what its digest says: its row was changed outside the daemon. Approve nothing, halt the chain, \
                     and look into it."
                        .to_owned(),
                )
            }
            ConsoleError::Approval(ApprovalError::Intent(IntentError::Illegal { ref source, .. })) => {
                Self::Conflict(format!("this intent is {} and takes no approval now", source.state))
            }
            ConsoleError::Approval(
                ApprovalError::NotAnOfficer
                | ApprovalError::OwnRequest { .. }
                | ApprovalError::StaleDigest { .. }
                | ApprovalError::Twice { .. },
            ) => Self::Conflict(said),
            ConsoleError::Escrow(EscrowError::UnknownDispute(_)) => Self::Unknown("There is no such dispute.".to_owned()),
            ConsoleError::Escrow(
                EscrowError::State { .. }
                | EscrowError::NotEnough { .. }
                | EscrowError::OnlyFees { .. }
                | EscrowError::Disputed { .. }
                | EscrowError::Recipient { .. }
                | EscrowError::OwnAddress(_)
                | EscrowError::Resolved(_)
                | EscrowError::Split { .. }
                | EscrowError::Length { .. },
            ) => Self::Conflict(said),
            other => {
                let retryable = matches!(other.disposition(), crate::units::Disposition::Retry);
                tracing::error!(error = &other as &dyn std::error::Error, "a page of the console failed");
                Self::Failed { retryable }
            }
        }
    }
}

impl From<crate::db::DbError> for Refusal {
    fn from(error: crate::db::DbError) -> Self {
        ConsoleError::from(error).into()
    }
}

impl From<IntentError> for Refusal {
    fn from(error: IntentError) -> Self {
        ConsoleError::from(error).into()
    }
}

/// What a refusal says, in the one shape that suits the request: see [`shaped`].
#[derive(Clone, Debug)]
struct Said {
    status: StatusCode,
    title: &'static str,
    text: String,
    wanted: Option<String>,
    retry_after: Option<u64>,
}

impl Refusal {
    fn said(self) -> Said {
        let (status, title, text) = match self {
            Self::SignedOut { wanted } => {
                let text = "Your session has ended. Sign in again.".to_owned();
                return Said { status: StatusCode::UNAUTHORIZED, title: "Signed out", text, wanted: Some(wanted), retry_after: None };
            }
            Self::TooMany { seconds } => {
                let text = format!("There were too many tries from your address. Try again in {seconds} s.");
                let (status, title) = (StatusCode::TOO_MANY_REQUESTS, "Too many tries");
                return Said { status, title, text, wanted: None, retry_after: Some(seconds) };
            }
            Self::NotAnOfficer => (StatusCode::FORBIDDEN, "Not for you", "The console is for custody officers.".to_owned()),
            Self::Forged => (
                StatusCode::FORBIDDEN,
                "Not from this page",
                "The request did not come from a page of this console. Reload the page and try again.".to_owned(),
            ),
            Self::Unknown(text) => (StatusCode::NOT_FOUND, "Not here", text),
            Self::Conflict(text) => (StatusCode::CONFLICT, "Not possible now", text),
            Self::Field(text) => (StatusCode::BAD_REQUEST, "Cannot be read", text),
            Self::Passkey => {
                (StatusCode::UNAUTHORIZED, "Not accepted", "That passkey was not accepted. Try again, or ask for a new link.".to_owned())
            }
            Self::Failed { retryable: true } => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not available",
                "What this page needs cannot be read at the moment. Try again in a minute; the log says why.".to_owned(),
            ),
            Self::Failed { retryable: false } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "Something is wrong", "This page cannot be shown; the log says why.".to_owned())
            }
        };
        Said { status, title, text, wanted: None, retry_after: None }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let said = self.said();
        let mut response = said.status.into_response();
        response.extensions_mut().insert(said);
        response
    }
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage {
    frame: Frame,
    title: &'static str,
    text: String,
}

/// Gives a refusal its shape: a page for a person, a small document for our script.
pub(super) fn shaped(method: &Method, mut response: Response) -> Response {
    let Some(said) = response.extensions_mut().remove::<Said>() else { return plain_as_page(method, response) };
    let retry_after = said.retry_after;
    let mut response = said_as(method, said);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn said_as(method: &Method, said: Said) -> Response {
    if method != Method::GET && method != Method::HEAD {
        let body = serde_json::json!({ "title": said.title, "text": said.text });
        return (said.status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response();
    }
    if let Some(wanted) = said.wanted {
        let target = session::safe_target(Some(&wanted));
        return Redirect::to(&format!("/console/session/resume?next={}", query_escape(target))).into_response();
    }
    said_page(said.status, said.title, said.text)
}

/// What an extractor or a layer refused by itself.
fn plain_as_page(method: &Method, response: Response) -> Response {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) || response.headers().contains_key("x-shaped") {
        return response;
    }
    if method != Method::GET && method != Method::HEAD {
        let body = serde_json::json!({ "title": "Cannot be read", "text": "The request cannot be read." });
        return (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response();
    }
    let (title, text) = match status {
        StatusCode::NOT_FOUND => ("Not here", "There is no such page."),
        status if status.is_server_error() => ("Something is wrong", "This page cannot be shown; the log says why."),
        _ => ("Cannot be read", "The address of this page cannot be read."),
    };
    said_page(status, title, text.to_owned())
}

fn said_page(status: StatusCode, title: &'static str, text: String) -> Response {
    let page = RefusalPage { frame: Frame::outside(title), title, text };
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(_) => status.into_response(),
    }
}

/// Makes a checked path fit into a query.
fn query_escape(path: &str) -> String {
    path.replace('%', "%25").replace('&', "%26").replace('?', "%3F").replace('=', "%3D").replace('+', "%2B")
}
