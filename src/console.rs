//! Officers' pages: what the API tells machines, shown to people, and approvals with a passkey.
//!
//! Rendered here, whole, into the binary: no other origin, no script inside a page, one small script beside
//! them. It reads through the rooms' own functions and approves through the same one as the API. Deliberately
//! absent: anything that moves money without an officer's passkey in the same minute, and any way in without
//! one. Off unless an origin is configured.

mod assets;
mod chart;
mod enter;
pub mod identity;
mod options;
mod page;
mod pages;
mod plot;
mod qr;
mod server;
mod show;
mod step_up;
mod store;

pub use options::{ConsoleOptions, ConsoleOptionsError};
pub use server::router;

use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use webauthn_rs::prelude::{Webauthn, WebauthnError};

use crate::account::AccountError;
use crate::api::ApiState;
use crate::approval::ApprovalError;
use crate::broadcast::BroadcastError;
use crate::db::DbError;
use crate::escrow::EscrowError;
use crate::intent::IntentError;
use crate::officer::UserRole;
use crate::payment::PaymentError;
use crate::units::{Disposition, UserId};
use crate::webhook::WebhookError;
use identity::ceremony::Ceremonies;
use identity::session::Cookies;

/// Questions to whoever wants in. Anybody may ask them, so the oldest give way.
const ENTERING_MAX: usize = 1_024;
/// Questions to officers in a session.
const STEPPING_UP_MAX: usize = 256;

/// What the pages share.
#[derive(Clone, Debug)]
pub struct Console {
    api: ApiState,
    options: Arc<ConsoleOptions>,
    verifier: Arc<Webauthn>,
    cookies: Cookies,
    entering: Arc<Mutex<Ceremonies<enter::Entering>>>,
    stepping_up: Arc<Mutex<Ceremonies<step_up::SteppingUp>>>,
}

impl Console {
    pub fn new(api: ApiState, options: ConsoleOptions) -> Result<Self, ConsoleError> {
        let verifier = Arc::new(identity::passkey::verifier(&options).map_err(ConsoleError::Verifier)?);
        Ok(Self {
            api,
            verifier,
            cookies: Cookies { secure: options.is_secure() },
            options: Arc::new(options),
            entering: Arc::new(Mutex::new(Ceremonies::new(ENTERING_MAX))),
            stepping_up: Arc::new(Mutex::new(Ceremonies::new(STEPPING_UP_MAX))),
        })
    }

    fn now(&self) -> OffsetDateTime {
        (self.api.clock)()
    }
}

/// The ceremonies of a sort; a thread that panicked left them whole.
fn held<T>(ceremonies: &Mutex<Ceremonies<T>>) -> std::sync::MutexGuard<'_, Ceremonies<T>> {
    ceremonies.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    Intent(#[from] IntentError),
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    #[error(transparent)]
    Broadcast(#[from] BroadcastError),
    #[error(transparent)]
    Escrow(#[from] EscrowError),
    #[error(transparent)]
    Payment(#[from] PaymentError),
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    #[error("passkeys cannot be verified for this origin")]
    Verifier(#[source] WebauthnError),
    #[error("a page cannot be written")]
    Page(#[from] askama::Error),
    #[error("the system gives no randomness: {0}")]
    Randomness(String),
    #[error("no active user {0}")]
    UnknownUser(UserId),
    #[error("user {user} has role {role}; the console is for officers, who are admins and guards", role = role.name())]
    NotAnOfficer { user: UserId, role: UserRole },
}

impl ConsoleError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Account(error) => error.disposition(),
            Self::Intent(error) => error.disposition(),
            Self::Approval(error) => error.disposition(),
            Self::Broadcast(error) => error.disposition(),
            Self::Escrow(error) => error.disposition(),
            Self::Payment(error) => error.disposition(),
            Self::Webhook(error) => error.disposition(),
            Self::Verifier(_) | Self::Page(_) => Disposition::Officer,
            Self::Randomness(_) => Disposition::Retry,
            Self::UnknownUser(_) | Self::NotAnOfficer { .. } => Disposition::Skip,
        }
    }
}
