//! The door: signing in, enrolling a passkey by a link, going on with a session, signing out.
//!
//! Nobody learns here who exists: a passkey is asked for without a name, and every refusal reads the same.

use askama::Template;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use sqlx::PgConnection;
use webauthn_rs::prelude::{DiscoverableAuthentication, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential};

use super::identity::ceremony::CeremonyId;
use super::identity::passkey::{self, Asked, PasskeyError};
use super::identity::session::{self, Attempt, Officer, Resumed, Tokens, safe_target};
use super::identity::{Secret, of_nobody, random, store};
use super::page::{Frame, Refusal, html};
use super::{Console, ConsoleError, held};
use crate::event;
use crate::units::UserId;

/// What was asked of whoever wants in.
#[derive(Debug)]
pub(super) enum Entering {
    SignIn(Box<DiscoverableAuthentication>),
    Enrol { invitation: [u8; 32], user: UserId, state: Box<PasskeyRegistration> },
}

pub(super) fn ceremony_id(text: &str) -> Option<CeremonyId> {
    alloy::hex::decode(text).ok()?.try_into().ok()
}

/// A passkey that was refused: said once in the log, and to nobody else.
pub(super) fn refused(error: &PasskeyError, at: &'static str) -> Refusal {
    if error.is_copied_key() {
        tracing::error!(at, "a passkey's counter went back: the key may have been copied; lock its officer out and enrol a new one");
    } else {
        tracing::warn!(at, error = error as &dyn std::error::Error, "a passkey was not accepted");
    }
    Refusal::Passkey
}

// === signing in ===

#[derive(Debug, Deserialize)]
pub(super) struct Target {
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    why: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    next: String,
    note: Option<&'static str>,
}

pub(super) async fn sign_in_page(Query(target): Query<Target>) -> Result<Response, Refusal> {
    let note = match target.why.as_deref() {
        Some("over") => Some("Your session has ended."),
        Some("reused") => Some(
            "A cookie of your session was used twice, as if it had been copied. All your sessions are ended, and the log says so. \
             Tell another officer before you sign in again.",
        ),
        Some("enrolled") => Some("The passkey is enrolled. Sign in with it."),
        Some("out") => Some("You are signed out."),
        _ => None,
    };
    html(&SignInPage { frame: Frame::outside("Sign in"), next: safe_target(target.next.as_deref()).to_owned(), note })
}

pub(super) async fn sign_in_begin(State(console): State<Console>, _: Attempt) -> Result<Json<serde_json::Value>, Refusal> {
    let (asked, state) = passkey::ask_anybody(&console.verifier).map_err(|error| refused(&error, "sign-in"))?;
    let id: CeremonyId = random()?;
    held(&console.entering).put(id, Entering::SignIn(Box::new(state)), console.now());
    Ok(Json(serde_json::json!({ "ceremony": alloy::hex::encode(id), "options": asked })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedIn {
    ceremony: String,
    credential: PublicKeyCredential,
}

pub(super) async fn sign_in_finish(
    State(console): State<Console>,
    attempt: Attempt,
    Json(answer): Json<SignedIn>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let asked = ceremony_id(&answer.ceremony).and_then(|id| held(&console.entering).take(id, now));
    let Some(Entering::SignIn(state)) = asked else { return Err(refused(&PasskeyError::NoCeremony, "sign-in")) };
    let verifier = console.verifier.clone();
    let outcome = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                let entered = match judge(connection, &verifier, &answer.credential, *state, now).await? {
                    Ok(user) => Ok(session::begin(connection, user, &attempt, now).await?),
                    Err(error) => Err(error),
                };
                Ok::<Result<Tokens, PasskeyError>, ConsoleError>(entered)
            })
        })
        .await?;
    let tokens = outcome.map_err(|error| refused(&error, "sign-in"))?;
    let mut response = Json(serde_json::json!({ "ok": true })).into_response();
    console.cookies.set(response.headers_mut(), &tokens);
    Ok(response)
}

/// Who signed in. The outer error is ours, the inner one theirs.
async fn judge(
    connection: &mut PgConnection,
    verifier: &webauthn_rs::prelude::Webauthn,
    answer: &PublicKeyCredential,
    state: DiscoverableAuthentication,
    now: time::OffsetDateTime,
) -> Result<Result<UserId, PasskeyError>, ConsoleError> {
    let (user, credential) = match passkey::claimed(verifier, answer) {
        Ok((user, credential)) => (UserId(user), credential),
        Err(error) => return Ok(Err(error)),
    };
    let Some(stored) = store::lock_passkey(connection, user, &credential).await? else { return Ok(Err(PasskeyError::Unknown)) };
    let used = match passkey::check(verifier, answer, Asked::Anybody(state), stored) {
        Ok(used) => used,
        Err(error) => {
            if error.is_copied_key() {
                event::store::append(connection, &of_nobody("passkey.counter_fell", serde_json::json!({ "user": user }))).await?;
            }
            return Ok(Err(error));
        }
    };
    // A role that was taken away opens nothing, whatever the key says.
    let person = store::find_person(connection, user).await?;
    if !person.is_some_and(|person| person.role.is_officer()) {
        return Ok(Err(PasskeyError::NotAnOfficer));
    }
    store::set_used(connection, &used, now).await?;
    event::store::append(connection, &of_nobody("user.signed_in", serde_json::json!({ "user": user }))).await?;
    Ok(Ok(user))
}

// === a session goes on, or ends ===

pub(super) async fn resume(
    State(console): State<Console>,
    _: Attempt,
    headers: HeaderMap,
    Query(target): Query<Target>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let next = safe_target(target.next.as_deref()).to_owned();
    let resumed = match console.cookies.presented_refresh(&headers) {
        None => None,
        Some(presented) => {
            let unit = console.api.db.unit(move |connection| Box::pin(async move { session::resume(connection, &presented, now).await }));
            Some(unit.await?)
        }
    };
    let sign_in = |why: &str| {
        let next = next.replace('?', "%3F").replace('&', "%26").replace('=', "%3D");
        Redirect::to(&format!("/console/sign-in?why={why}&next={next}")).into_response()
    };
    Ok(match resumed {
        Some(Resumed::Tokens(tokens)) => {
            let mut response = Redirect::to(&next).into_response();
            console.cookies.set(response.headers_mut(), &tokens);
            response
        }
        Some(Resumed::OtherTab) => Redirect::to(&next).into_response(),
        Some(Resumed::Reused) => {
            let mut response = sign_in("reused");
            console.cookies.clear(response.headers_mut());
            response
        }
        Some(Resumed::Over) => {
            let mut response = sign_in("over");
            console.cookies.clear(response.headers_mut());
            response
        }
        None => sign_in("first"),
    })
}

pub(super) async fn sign_out(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let (session, now) = (officer.holder.session, console.now());
    let unit = console.api.db.unit(move |connection| {
        Box::pin(async move {
            store::end_session(connection, session, now, "signed out").await?;
            Ok::<(), ConsoleError>(())
        })
    });
    unit.await?;
    let mut response = Json(serde_json::json!({ "ok": true })).into_response();
    console.cookies.clear(response.headers_mut());
    Ok(response)
}

// === a passkey by a link ===

#[derive(Template)]
#[template(path = "enrol.html")]
struct EnrolPage {
    frame: Frame,
}

/// The link's secret is behind its `#`: the script has it, this page's request does not.
pub(super) async fn enrol_page() -> Result<Response, Refusal> {
    html(&EnrolPage { frame: Frame::outside("Enrol a passkey") })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EnrolAsked {
    invitation: String,
}

pub(super) async fn enrol_begin(
    State(console): State<Console>,
    _: Attempt,
    Json(asked): Json<EnrolAsked>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let now = console.now();
    let no = || refused(&PasskeyError::Invitation, "enrolment");
    let presented = Secret::presented(&asked.invitation).ok_or_else(no)?;
    let mut connection = console.api.db.connection().await?;
    let user = store::find_invitation(&mut connection, presented.sha256(), now).await?.ok_or_else(no)?;
    let person = store::find_person(&mut connection, user).await?.filter(|person| person.role.is_officer()).ok_or_else(no)?;
    let known = store::list_passkeys(&mut connection, user).await?;
    let known = known.iter().map(|passkey| passkey.cred_id().clone()).collect();
    let (options, state) = passkey::ask_new(&console.verifier, &person, known).map_err(|error| refused(&error, "enrolment"))?;
    let id: CeremonyId = random()?;
    held(&console.entering).put(id, Entering::Enrol { invitation: presented.sha256(), user, state: Box::new(state) }, now);
    Ok(Json(serde_json::json!({ "ceremony": alloy::hex::encode(id), "options": options, "name": person.name })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Enrolled {
    ceremony: String,
    /// What the officer calls the key.
    label: String,
    credential: RegisterPublicKeyCredential,
}

pub(super) async fn enrol_finish(State(console): State<Console>, _: Attempt, Json(answer): Json<Enrolled>) -> Result<Response, Refusal> {
    let now = console.now();
    let label: String = answer.label.trim().chars().filter(|character| !character.is_control()).take(60).collect();
    if label.is_empty() {
        return Err(Refusal::Field("Give the passkey a name, such as “laptop” or “blue key”.".to_owned()));
    }
    let asked = ceremony_id(&answer.ceremony).and_then(|id| held(&console.entering).take(id, now));
    let Some(Entering::Enrol { invitation, user, state }) = asked else { return Err(refused(&PasskeyError::NoCeremony, "enrolment")) };
    let passkey = passkey::check_new(&console.verifier, &answer.credential, &state).map_err(|error| refused(&error, "enrolment"))?;
    let outcome = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                if !store::use_invitation(connection, invitation, now).await? {
                    return Ok(Err(PasskeyError::Invitation));
                }
                let person = store::find_person(connection, user).await?;
                if !person.is_some_and(|person| person.role.is_officer()) {
                    return Ok(Err(PasskeyError::NotAnOfficer));
                }
                store::insert_passkey(connection, user, &passkey, &label).await?;
                let detail = serde_json::json!({ "user": user, "label": label });
                event::store::append(connection, &of_nobody("passkey.enrolled", detail)).await?;
                Ok::<Result<(), PasskeyError>, ConsoleError>(Ok(()))
            })
        })
        .await?;
    outcome.map_err(|error| refused(&error, "enrolment"))?;
    Ok(Json(serde_json::json!({ "ok": true })).into_response())
}
