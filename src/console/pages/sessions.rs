//! One's own sessions and passkeys: from where and with what each was begun, and signing out of each or of all.

use askama::Template;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use crate::console::identity::session::{ACCESS_LIVES, Officer};
use crate::console::identity::{of_nobody, store};
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::Moment;
use crate::console::{Console, ConsoleError};
use crate::event;

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage {
    frame: Frame,
    role: &'static str,
    sessions: Vec<SessionLine>,
    passkeys: Vec<PasskeyLine>,
}

struct SessionLine {
    id: Uuid,
    /// The one that asks.
    here: bool,
    from: String,
    with: String,
    begun: Moment,
    seen: Moment,
    ends: Moment,
}

struct PasskeyLine {
    name: String,
    created: Moment,
    used: Option<Moment>,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let now = console.now();
    let holder = &officer.holder;
    let mut connection = console.api.db.connection().await?;
    let sessions = store::list_sessions(&mut connection, holder.user, now).await?;
    let passkeys = store::list_passkey_rows(&mut connection, holder.user).await?;
    let said = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "not known".to_owned());
    html(&SessionsPage {
        frame: Frame::of("Your sessions", "sessions", &console, &officer),
        role: holder.role.name(),
        sessions: sessions
            .into_iter()
            .map(|row| SessionLine {
                id: row.id,
                here: row.id == holder.session,
                from: said(row.begun_from),
                with: said(row.begun_with),
                begun: Moment::of(row.created_at, now),
                // The access cookie is renewed while somebody looks.
                seen: Moment::of(row.access_expires_at - ACCESS_LIVES, now),
                ends: Moment::of(row.expires_at, now),
            })
            .collect(),
        passkeys: passkeys
            .into_iter()
            .map(|row| PasskeyLine {
                name: said(row.name),
                created: Moment::of(row.created_at, now),
                used: row.last_used_at.map(|at| Moment::of(at, now)),
            })
            .collect(),
    })
}

pub(in crate::console) async fn end_one(
    State(console): State<Console>,
    officer: Officer,
    Path(session): Path<Uuid>,
) -> Result<Response, Refusal> {
    let (user, now) = (officer.holder.user, console.now());
    let ended = console
        .api
        .db
        .unit(move |connection| {
            Box::pin(async move {
                let ended = store::end_session_of(connection, (user, session), now, "signed out from another session").await?;
                if ended {
                    let detail = serde_json::json!({ "user": user, "session": session });
                    event::store::append(connection, &of_nobody("session.ended", detail)).await?;
                }
                Ok::<bool, ConsoleError>(ended)
            })
        })
        .await?;
    if !ended {
        return Err(Refusal::Unknown("That session is over already.".to_owned()));
    }
    let mut response = Json(serde_json::json!({ "ok": true })).into_response();
    if session == officer.holder.session {
        console.cookies.clear(response.headers_mut());
    }
    Ok(response)
}

pub(in crate::console) async fn end_all(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let (user, now) = (officer.holder.user, console.now());
    let unit = console.api.db.unit(move |connection| {
        Box::pin(async move {
            store::end_sessions(connection, user, now, "signed out everywhere").await?;
            event::store::append(connection, &of_nobody("session.all_ended", serde_json::json!({ "user": user }))).await?;
            Ok::<(), ConsoleError>(())
        })
    });
    unit.await?;
    let mut response = Json(serde_json::json!({ "ok": true })).into_response();
    console.cookies.clear(response.headers_mut());
    Ok(response)
}
