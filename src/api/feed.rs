//! The feed of events: page by page, and as a stream of server-sent events.
//!
//! A stream looks at the feed itself, when the database knocks and else after a pause, and holds no more than one page,
//! which is read only once the one before was taken: a slow reader costs nothing but its connection. It ends when the daemon stops, when the token is no longer
//! live, and when the database is away; whoever comes back with `Last-Event-ID` misses nothing and gets nothing twice.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::sse::{KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, watch};
use tokio_util::sync::CancellationToken;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::payments::Page;
use super::problem::Problem;
use super::wire::{EventPage, EventView, StreamedEvent};
use crate::db::{Database, DbError};
use crate::event;
use crate::event::store::{EventRow, Position};
use crate::officer::{self, Scope};

/// From one look to the next, however often the database knocks.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Events that a stream holds at most.
const STREAM_PAGE: i64 = 100;
/// A line without meaning, for whoever in between gives up silent connections.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A page of the feed
///
/// Oldest first. What is committed late comes late and is not passed by.
#[utoipa::path(
    get, path = "/v1/events", tag = "events",
    params(Page),
    responses((status = 200, body = EventPage)),
    security(("token" = ["events:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(page): Query<Page>,
) -> Result<axum::Json<EventPage>, Problem> {
    who.require(Scope::EventsRead)?;
    let limit = page.limit()?;
    let after = page.cursor().map_or(Ok(Position::START), |text| position("cursor", text))?;
    let found = event::store::list(&mut *state.db.connection().await?, after, limit).await?;
    let next_cursor = found.last().map_or(after, |row| row.position).to_string();
    Ok(axum::Json(EventPage { events: found.into_iter().map(view).collect(), next_cursor }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamAsked {
    /// `next_cursor` of a page or the id of an event. Without it and without `Last-Event-ID` the stream begins now.
    #[serde(default)]
    after: Option<String>,
}

/// Events as they happen
///
/// Server-sent events: `id` is the place in the feed, `event` the kind, `data` an `EventView`. A client that comes
/// back with `Last-Event-ID` goes on behind it.
#[utoipa::path(
    get, path = "/v1/events/stream", tag = "events",
    params(StreamAsked, ("Last-Event-ID" = Option<String>, Header, description = "the id of the last event that was taken")),
    responses((status = 200, content_type = "text/event-stream", body = StreamedEvent)),
    security(("token" = ["events:read"]))
)]
pub(super) async fn stream(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<StreamAsked>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    who.require(Scope::EventsRead)?;
    let last = headers.get("last-event-id").map(|value| value.to_str().unwrap_or_default());
    let after = match (last, &asked.after) {
        (Some(last), _) => position("Last-Event-ID", last)?,
        (None, Some(after)) => position("after", after)?,
        (None, None) => event::store::get_end(&mut *state.db.connection().await?).await?,
    };
    let seat = state.doors.streams.take_seat()?;
    let feed = Feed {
        db: state.db.clone(),
        clock: state.clock,
        token_hash: who.hash(),
        place: after,
        waiting: VecDeque::new(),
        news: state.doors.streams.news.subscribe(),
        pause: state.doors.streams.pause,
        stop: state.doors.streams.stop.clone(),
        _seat: seat,
    };
    Ok(Sse::new(feed.into_stream()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn position(field: &str, text: &str) -> Result<Position, Problem> {
    let shown: String = text.chars().take(100).collect();
    text.parse().map_err(|()| Problem::field(field, shown, "use next_cursor of a page or the id of an event, unchanged"))
}

fn view(row: EventRow) -> EventView {
    EventView {
        id: row.id,
        kind: row.kind,
        payment_id: row.payment_id,
        intent_id: row.intent_id,
        chain_id: row.chain_id,
        detail: row.detail,
        created_at: row.created_at,
    }
}

/// Who may stream: so many at a time, until the daemon stops.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    seats: Arc<Semaphore>,
    max: usize,
    /// Carries nothing: whoever is woken looks.
    news: watch::Sender<()>,
    pause: Duration,
    stop: CancellationToken,
}

impl Streams {
    pub(super) fn new(max: usize, pause: Duration, stop: CancellationToken) -> Self {
        Self { seats: Arc::new(Semaphore::new(max)), max, news: watch::Sender::new(()), pause, stop }
    }

    pub(super) fn knock(&self) {
        self.news.send_replace(());
    }

    fn take_seat(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.seats).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits | TryAcquireError::Closed => Problem::streams_full(self.max),
        })
    }

    /// Streams that are open.
    pub(super) fn open(&self) -> usize {
        self.max.saturating_sub(self.seats.available_permits())
    }
}

/// One stream.
struct Feed {
    db: Database,
    clock: fn() -> OffsetDateTime,
    token_hash: [u8; 32],
    /// Everything up to here was handed to the connection or is waiting.
    place: Position,
    waiting: VecDeque<EventRow>,
    news: watch::Receiver<()>,
    /// How long it waits where nobody knocks.
    pause: Duration,
    stop: CancellationToken,
    _seat: OwnedSemaphorePermit,
}

impl Feed {
    fn into_stream(self) -> impl Stream<Item = Result<axum::response::sse::Event, Infallible>> {
        stream::unfold(self, |mut feed| async move {
            // Ends with an event, when the daemon stops, or when there can be no more events for this caller.
            loop {
                if feed.stop.is_cancelled() {
                    return None;
                }
                if let Some(row) = feed.waiting.pop_front() {
                    let line = axum::response::sse::Event::default().id(row.position.to_string()).event(&row.kind);
                    let line = line.json_data(view(row)).ok()?;
                    return Some((Ok(line), feed));
                }
                // A knock from now on is for the next look.
                feed.news.mark_unchanged();
                match feed.look().await {
                    Ok(true) if !feed.waiting.is_empty() => {}
                    Ok(true) => feed.rest().await,
                    Ok(false) => return None,
                    Err(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "a stream of events ends: the feed cannot be read");
                        return None;
                    }
                }
            }
        })
    }

    /// Until somebody knocks, or for the pause; not past the daemon's end.
    async fn rest(&mut self) {
        let Self { news, pause, stop, .. } = self;
        let knocked = async {
            if news.changed().await.is_err() {
                // Nobody is left who could knock.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(LOOK_PAUSE_MIN).await;
        };
        tokio::select! {
            () = knocked => {}
            () = tokio::time::sleep(*pause) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Reads what is new; `false` if the caller may no longer listen.
    async fn look(&mut self) -> Result<bool, DbError> {
        let mut connection = self.db.connection().await?;
        let caller = officer::store::find_caller(&mut connection, self.token_hash, (self.clock)()).await?;
        if !caller.is_some_and(|caller| caller.may(Scope::EventsRead)) {
            return Ok(false);
        }
        self.waiting.extend(event::store::list(&mut connection, self.place, STREAM_PAGE).await?);
        if let Some(last) = self.waiting.back() {
            self.place = last.position;
        }
        Ok(true)
    }
}
