//! Approving: a fresh answer of a passkey, bound to what was on the page.
//!
//! The question remembers the session, the intent and the digest that the officer saw. The answer approves
//! exactly that digest or nothing: it cannot be used for another intent, for the same intent changed since,
//! by another session, or twice.

use alloy::primitives::B256;
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use uuid::Uuid;
use webauthn_rs::prelude::{PasskeyAuthentication, PublicKeyCredential};

use super::enter::{ceremony_id, refused};
use super::identity::ceremony::CeremonyId;
use super::identity::passkey::{self, Asked, PasskeyError, key_id};
use super::identity::session::Officer;
use super::identity::{of_nobody, random, store};
use super::page::Refusal;
use super::{Console, ConsoleError, held};
use crate::approval::{self, ApprovalError, Approver};
use crate::event;
use crate::intent::{self, IntentState};
use crate::units::{IntentId, UserId};

/// What was asked of an officer.
#[derive(Debug)]
pub(super) struct SteppingUp {
    session: Uuid,
    user: UserId,
    intent: IntentId,
    digest: B256,
    state: PasskeyAuthentication,
}

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
    let passkeys = store::list_passkeys(&mut connection, officer.holder.user).await?;
    let (options, state) = passkey::ask_person(&console.verifier, &passkeys).map_err(|error| refused(&error, "approval"))?;
    let question = SteppingUp { session: officer.holder.session, user: officer.holder.user, intent: id, digest: asked.digest, state };
    let ceremony: CeremonyId = random()?;
    held(&console.stepping_up).put(ceremony, question, console.now());
    Ok(Json(serde_json::json!({ "ceremony": alloy::hex::encode(ceremony), "options": options })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApprovalAnswered {
    ceremony: String,
    credential: PublicKeyCredential,
}

pub(super) async fn finish(
    State(console): State<Console>,
    officer: Officer,
    Path(id): Path<IntentId>,
    Json(answer): Json<ApprovalAnswered>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let now = console.now();
    let question = ceremony_id(&answer.ceremony).and_then(|ceremony| held(&console.stepping_up).take(ceremony, now));
    let question = question.ok_or_else(|| refused(&PasskeyError::NoCeremony, "approval"))?;
    if question.session != officer.holder.session || question.user != officer.holder.user || question.intent != id {
        return Err(refused(&PasskeyError::OtherSession, "approval"));
    }
    let verifier = console.verifier.clone();
    let holder = officer.holder;
    // The answer is judged and its counter kept even if the approval is refused: it was used.
    let SteppingUp { user, intent, digest, state, .. } = question;
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
    judged.map_err(|error| refused(&error, "approval"))?;
    let approver = Approver { officer: user, role: holder.role, token: None };
    let standing = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move { Ok::<_, ConsoleError>(approval::store::give(connection, intent, digest, approver).await?) })
        })
        .await?;
    tracing::info!(intent.id = %intent, officer = %user, approvals = standing.approvals, "intent approved at the console");
    Ok(Json(serde_json::json!({
        "ok": true,
        "approvals": standing.approvals,
        "required": standing.intent.approvals_required,
    })))
}
