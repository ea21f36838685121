//! A fresh answer of a passkey for what an officer decides: approving an intent, ending a dispute.
//!
//! The question remembers the session and exactly what is decided: the digest that the officer saw, or the whole
//! decision about a dispute. The answer does that or nothing: it cannot be used for anything else, for the same thing
//! changed since, by another session, or twice.

use alloy::primitives::B256;
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;
use webauthn_rs::prelude::{PasskeyAuthentication, PublicKeyCredential};

use super::enter::{ceremony_id, refused};
use super::identity::ceremony::CeremonyId;
use super::identity::passkey::{self, Asked, PasskeyError, key_id};
use super::identity::session::Officer;
use super::identity::{of_nobody, random, store};
use super::page::Refusal;
use super::{Console, ConsoleError, held};
use crate::api;
use crate::api::wire::ResolveDispute;
use crate::approval::{self, ApprovalError, Approver};
use crate::escrow::{self, DisputeState, EscrowError};
use crate::event;
use crate::intent::{self, IntentState};
use crate::officer::Resolver;
use crate::payment;
use crate::units::{IntentId, UserId};

/// What was asked of an officer.
#[derive(Debug)]
pub(super) struct SteppingUp {
    session: Uuid,
    user: UserId,
    about: About,
    state: PasskeyAuthentication,
}

/// What the answer does.
#[derive(Clone, Debug)]
enum About {
    Approve { intent: IntentId, digest: B256 },
    Resolve { dispute: Uuid, decision: Box<ResolveDispute> },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answered {
    ceremony: String,
    credential: PublicKeyCredential,
}

/// Asks the officer's own passkeys.
async fn ask(
    console: &Console,
    connection: &mut PgConnection,
    officer: &Officer,
    about: About,
    at: &'static str,
) -> Result<Json<serde_json::Value>, Refusal> {
    let passkeys = store::list_passkeys(connection, officer.holder.user).await?;
    let (options, state) = passkey::ask_person(&console.verifier, &passkeys).map_err(|error| refused(&error, at))?;
    let question = SteppingUp { session: officer.holder.session, user: officer.holder.user, about, state };
    let ceremony: CeremonyId = random()?;
    held(&console.stepping_up).put(ceremony, question, console.now());
    Ok(Json(serde_json::json!({ "ceremony": alloy::hex::encode(ceremony), "options": options })))
}

/// Judges an answer; gives back what it is about. It is used up and its counter kept, even if what it is about is refused
/// afterwards.
async fn judged(console: &Console, officer: &Officer, answer: Answered, at: &'static str) -> Result<About, Refusal> {
    let now = console.now();
    let question = ceremony_id(&answer.ceremony).and_then(|ceremony| held(&console.stepping_up).take(ceremony, now));
    let question = question.ok_or_else(|| refused(&PasskeyError::NoCeremony, at))?;
    if question.session != officer.holder.session || question.user != officer.holder.user {
        return Err(refused(&PasskeyError::OtherSession, at));
    }
    let verifier = console.verifier.clone();
    let SteppingUp { user, about, state, .. } = question;
    let judged = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                let credential = key_id(answer.credential.get_credential_id());
                let Some(stored) = store::lock_passkey(connection, user, &credential).await? else { return Ok(Err(PasskeyError::Unknown)) };
                match passkey::check(&verifier, &answer.credential, Asked::Person(state), stored) {
                    Ok(used) => {
                        store::set_used(connection, &used, now).await?;
                        Ok(Ok(()))
                    }
                    Err(error) => {
                        if error.is_copied_key() {
                            event::store::append(connection, &of_nobody("passkey.counter_fell", serde_json::json!({ "user": user })))
                                .await?;
                        }
                        Ok::<Result<(), PasskeyError>, ConsoleError>(Err(error))
                    }
                }
            })
        })
        .await?;
    judged.map_err(|error| refused(&error, at))?;
    Ok(about)
}

// === approving an intent ===

const APPROVAL: &str = "approval";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalAsked {
    /// Of the page that the officer read.
    digest: B256,
}

pub(super) async fn begin(
    State(console): State<Console>,
    officer: Officer,
    Path(id): Path<IntentId>,
    Json(asked): Json<ApprovalAsked>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let mut connection = console.api.db.connection().await?;
    let intent = intent::store::get(&mut connection, id).await?;
    // Said before the key is asked for; it is judged again when the answer comes.
    if !intent::store::digest_matches(&intent, asked.digest) {
        return Err(ConsoleError::from(ApprovalError::StaleDigest { intent: id }).into());
    }
    if intent.state != IntentState::Planned {
        return Err(Refusal::Conflict(format!("this intent is {} and takes no approval now", intent.state)));
    }
    ask(&console, &mut connection, &officer, About::Approve { intent: id, digest: asked.digest }, APPROVAL).await
}

pub(super) async fn finish(
    State(console): State<Console>,
    officer: Officer,
    Path(id): Path<IntentId>,
    Json(answer): Json<Answered>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let (intent, digest) = match judged(&console, &officer, answer, APPROVAL).await? {
        About::Approve { intent, digest } if intent == id => (intent, digest),
        About::Approve { .. } | About::Resolve { .. } => return Err(refused(&PasskeyError::OtherSession, APPROVAL)),
    };
    let holder = officer.holder;
    let approver = Approver { officer: holder.user, role: holder.role, token: None };
    let standing = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move { Ok::<_, ConsoleError>(approval::store::give(connection, intent, digest, approver).await?) })
        })
        .await?;
    tracing::info!(intent.id = %intent, officer = %holder.user, approvals = standing.approvals, "intent approved at the console");
    Ok(Json(serde_json::json!({
        "ok": true,
        "approvals": standing.approvals,
        "required": standing.intent.approvals_required,
    })))
}

// === ending a dispute ===

const RESOLUTION: &str = "resolution";

/// The officer as a resolver; a guard is none.
fn resolver(officer: &Officer) -> Result<Resolver, Refusal> {
    Resolver::stepped_up(officer.holder.user, officer.holder.role)
        .ok_or_else(|| Refusal::Conflict("Only resolvers and admins end disputes.".to_owned()))
}

pub(super) async fn begin_resolution(
    State(console): State<Console>,
    officer: Officer,
    Path(id): Path<Uuid>,
    Json(decision): Json<ResolveDispute>,
) -> Result<Json<serde_json::Value>, Refusal> {
    resolver(&officer)?;
    let mut connection = console.api.db.connection().await?;
    // Read and judged before the key is asked for, and again when the answer comes.
    let dispute = escrow::store::get_dispute(&mut connection, id).await.map_err(ConsoleError::from)?;
    if dispute.state != DisputeState::Open {
        return Err(ConsoleError::from(EscrowError::Resolved(id)).into());
    }
    let payment = payment::store::find(&mut connection, dispute.payment).await.map_err(ConsoleError::from)?;
    let payment = payment.ok_or_else(|| Refusal::Unknown("The payment of this dispute is not there.".to_owned()))?;
    api::read_verdict(&decision, &payment).map_err(|problem| Refusal::Field(problem.detail().to_owned()))?;
    if !(1..=2_000).contains(&decision.note.chars().count()) {
        return Err(Refusal::Field("Say why, for the record.".to_owned()));
    }
    let about = About::Resolve { dispute: id, decision: Box::new(decision) };
    ask(&console, &mut connection, &officer, about, RESOLUTION).await
}

pub(super) async fn finish_resolution(
    State(console): State<Console>,
    officer: Officer,
    Path(id): Path<Uuid>,
    Json(answer): Json<Answered>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let resolver = resolver(&officer)?;
    let decision = match judged(&console, &officer, answer, RESOLUTION).await? {
        About::Resolve { dispute, decision } if dispute == id => decision,
        About::Approve { .. } | About::Resolve { .. } => return Err(refused(&PasskeyError::OtherSession, RESOLUTION)),
    };
    let book = console.api.book.clone();
    let by = resolver.name().to_owned();
    let resolved = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                let about = escrow::store::get_dispute(connection, id).await?.payment;
                let payment = payment::store::find(connection, about).await?.ok_or(EscrowError::UnknownDispute(id))?;
                // It was read before, and amounts and addresses do not change.
                let verdict = api::read_verdict(&decision, &payment).map_err(|_| EscrowError::UnknownDispute(id))?;
                Ok::<_, ConsoleError>(escrow::resolve(connection, id, &verdict, &decision.note, &resolver, &book).await?)
            })
        })
        .await;
    match resolved {
        Ok(dispute) => {
            tracing::info!(dispute.id = %id, payment.id = %dispute.payment, by, "dispute resolved at the console");
            Ok(Json(serde_json::json!({ "ok": true, "resolution": dispute.resolution.map(escrow::Resolution::name) })))
        }
        Err(error) => {
            if let ConsoleError::Escrow(refusal) = &error {
                note_refusal(&console, id, by, refusal.to_string()).await?;
            }
            Err(error.into())
        }
    }
}

/// Of a refused decision a row stays, as of one that came over the API.
async fn note_refusal(console: &Console, dispute: Uuid, by: String, why: String) -> Result<(), ConsoleError> {
    console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                let Ok(dispute) = escrow::store::get_dispute(connection, dispute).await else { return Ok(()) };
                Ok::<(), ConsoleError>(escrow::store::note_refusal(connection, dispute.payment, "resolve", &by, &why).await?)
            })
        })
        .await
}
