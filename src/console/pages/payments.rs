//! Payments: the list, and one with its way from the first sight of its money to its release.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::intents::IntentList;
use super::{PAGE, given, read_place, write_place};
use crate::confirm::store::{ProgressState, TransferProgress};
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::qr::Qr;
use crate::console::show::{self, Chip, Moment, chip, filters};
use crate::console::store::{EntryFilter, EventFilter, EventRow, PaymentFilter};
use crate::console::{Console, store};
use crate::units::{AssetId, PaymentId};
use crate::{account, confirm, deposit, payment};

// === the list ===

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    before: Option<String>,
    /// An id or an address.
    #[serde(default)]
    find: Option<String>,
}

#[derive(Template)]
#[template(path = "payments.html")]
struct PaymentsPage {
    frame: Frame,
    filters: Vec<Filter>,
    rows: Vec<Line>,
    older: Option<String>,
    state: String,
    find: String,
    not_found: bool,
}

pub(in crate::console) struct Filter {
    pub name: &'static str,
    pub value: &'static str,
    pub chosen: bool,
}

struct Line {
    id: String,
    chip: Chip,
    amount: String,
    chain: String,
    created: Moment,
    address: Option<String>,
    exceptions: i64,
}

const STATES: [(&str, &str); 7] = [
    ("All", ""),
    ("Waiting", "pending"),
    ("Seen", "processing"),
    ("Held", "funded"),
    ("Releasing", "releasing"),
    ("Released", "released"),
    ("Exceptions", "exceptions"),
];

pub(in crate::console) async fn list(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let mut connection = console.api.db.connection().await?;
    let find = given(asked.find).map(|text| text.chars().take(80).collect::<String>());
    let mut not_found = false;
    if let Some(text) = &find {
        let found = match (text.parse::<PaymentId>(), text.parse()) {
            (Ok(id), _) => payment::store::find(&mut connection, id).await?.map(|payment| payment.id),
            (Err(_), Ok(address)) => store::find_payment_at(&mut connection, address).await?,
            (Err(_), Err(_)) => None,
        };
        match found {
            Some(id) => return Ok(Redirect::to(&format!("/console/payments/{id}")).into_response()),
            None => not_found = true,
        }
    }
    let state = given(asked.state).unwrap_or_default();
    let known = STATES.iter().any(|(_, value)| *value == state) || ["confirmed", "completed", "releasable"].contains(&state.as_str());
    if !known && !state.chars().all(|character| character.is_ascii_lowercase()) {
        return Err(Refusal::Field("There is no such state of payments.".to_owned()));
    }
    let filter = PaymentFilter {
        state: (!state.is_empty() && state != "exceptions").then(|| state.clone()),
        exceptions: state == "exceptions",
        before: given(asked.before).as_deref().map(read_place).transpose()?,
    };
    let found = store::list_payments(&mut connection, &filter, PAGE).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == PAGE);
    let older = found.last().filter(|_| full).map(|row| write_place(row.created_at, row.id));
    let rows = found
        .into_iter()
        .map(|row| Line {
            id: row.id.to_string(),
            chip: show::payment_state(&row.status, row.escrow.as_deref()),
            amount: show::amount(row.due, row.asset, &console.api.book),
            chain: show::chain_name(row.asset.chain, &console.api.book),
            created: Moment::of(row.created_at, now),
            address: row.address.map(|address| address.to_string()),
            exceptions: row.exceptions,
        })
        .collect();
    html(&PaymentsPage {
        frame: Frame::of("Payments", "payments", &console, &officer),
        filters: STATES.map(|(name, value)| Filter { name, value, chosen: value == state }).into(),
        rows,
        older,
        state,
        find: find.unwrap_or_default(),
        not_found,
    })
}

// === one payment ===

#[derive(Template)]
#[template(path = "payment.html")]
struct PaymentPage {
    frame: Frame,
    id: String,
    chip: Chip,
    amount: String,
    amount_units: String,
    token: String,
    token_contract: String,
    chain: String,
    chain_id: String,
    address: String,
    groups: Vec<String>,
    path: String,
    qr: Option<Qr>,
    destination: String,
    seller: String,
    created: Moment,
    expires: Moment,
    steps: Vec<Step>,
    transfers: Vec<TransferLine>,
    exceptions: Vec<ExceptionLine>,
    intents: IntentList,
    entries: Vec<super::books::Line>,
    events: Vec<super::events::Line>,
    more_events: bool,
    done: bool,
    /// It ended otherwise than by a release: nobody should pay any more.
    over: bool,
}

/// Newest events on the page; the audit log has them all.
const EVENTS: usize = 12;

/// One station of the way. `state` is done, now, todo or bad.
struct Step {
    state: &'static str,
    title: &'static str,
    at: Option<Moment>,
    text: String,
    depth: Option<Depth>,
}

/// Confirmations of those that are needed.
struct Depth {
    have: u64,
    need: u64,
}

struct TransferLine {
    amount: String,
    chip: Chip,
    tx: String,
    block: String,
    sender: String,
    seen: Moment,
    depth: Option<Depth>,
    may_leave: bool,
}

struct ExceptionLine {
    kind: String,
    meaning: &'static str,
    detail: String,
    open: bool,
    opened: Moment,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer, Path(id): Path<String>) -> Result<Response, Refusal> {
    let unknown = || Refusal::Unknown("There is no such payment.".to_owned());
    let id: PaymentId = id.parse().map_err(|_| unknown())?;
    let now = console.now();
    let book = &console.api.book;
    let mut connection = console.api.db.connection().await?;
    let connection = &mut *connection;
    let payment = payment::store::find(connection, id).await?.ok_or_else(unknown)?;
    let destination = deposit::store::get_by_payment(connection, id).await?;
    let address = account::store::get_address(connection, destination.derived_address).await?;
    let progress: Vec<TransferProgress> = confirm::store::get_progress(connection, destination.derived_address)
        .await?
        .into_iter()
        .filter(|transfer| !transfer.internal)
        .collect();
    let events = store::list_events(connection, &EventFilter { payment: Some(id), ..EventFilter::default() }, 200).await?;
    let intents = store::list_intents_of(connection, id).await?;
    let intents = IntentList::read(connection, intents, &console).await?;
    let entries = store::list_entries(connection, &EntryFilter { payment: Some(id), ..EntryFilter::default() }, 100).await?;
    let exceptions = payment::store::list_exceptions(connection, id).await?;

    let status = payment.state.status().name();
    let escrow = payment.state.escrow().map(|escrow| escrow.name());
    let page = PaymentPage {
        frame: Frame::of(format!("Payment {}", show::short(&id.to_string())), "payments", &console, &officer),
        id: id.to_string(),
        chip: show::payment_state(status, escrow),
        amount: show::amount(payment.due.units, payment.due.asset, book),
        amount_units: payment.due.units.to_string(),
        token: payment.token_symbol.clone(),
        token_contract: payment.due.asset.asset.marker().to_string(),
        chain: show::chain_name(payment.due.asset.chain, book),
        chain_id: payment.due.asset.chain.to_string(),
        qr: Qr::of(&destination.address.to_string()),
        address: destination.address.to_string(),
        groups: show::in_groups(destination.address),
        path: address.path.to_string(),
        destination: destination.status.name().to_owned(),
        seller: payment.seller_address.to_string(),
        created: Moment::of(payment.created_at, now),
        expires: Moment::of(payment.expires_at, now),
        steps: steps(&Way { status, escrow, payment: &payment, progress: &progress, events: &events }, now, &console),
        transfers: progress.iter().map(|transfer| transfer_line(transfer, now, &console)).collect(),
        exceptions: exceptions
            .into_iter()
            .map(|row| ExceptionLine {
                kind: row.kind.name().replace('_', " "),
                meaning: show::exception(row.kind.name()),
                detail: row.detail,
                open: row.closed_at.is_none(),
                opened: Moment::of(row.opened_at, now),
            })
            .collect(),
        intents,
        entries: entries.into_iter().map(|row| super::books::Line::of(row, now, book)).collect(),
        more_events: events.len() > EVENTS,
        events: events.into_iter().take(EVENTS).map(|row| super::events::Line::of(row, now, book)).collect(),
        done: escrow == Some("released") || end(status, escrow).is_some(),
        over: end(status, escrow).is_some(),
    };
    html(&page)
}

fn depth(transfer: &TransferProgress) -> Option<Depth> {
    let need = u64::from(transfer.need.get());
    transfer.have.map(|have| Depth { have: have.0, need })
}

fn transfer_line(transfer: &TransferProgress, now: time::OffsetDateTime, console: &Console) -> TransferLine {
    let asset = AssetId { chain: transfer.chain, asset: transfer.asset };
    TransferLine {
        amount: show::amount(transfer.amount, asset, &console.api.book),
        chip: match transfer.state {
            ProgressState::Waiting => chip("info", "Waiting"),
            ProgressState::Confirmed { .. } => chip("ok", "Confirmed"),
            ProgressState::Orphaned { .. } => chip("bad", "Left the chain"),
        },
        tx: transfer.tx_hash.to_string(),
        block: show::grouped(&transfer.block.number.0.to_string()),
        sender: transfer.sender.to_string(),
        seen: Moment::of(transfer.sighting.first_seen_at, now),
        depth: depth(transfer),
        may_leave: transfer.release.is_some(),
    }
}

/// What the way of a payment is read from.
struct Way<'a> {
    status: &'a str,
    escrow: Option<&'a str>,
    payment: &'a payment::Payment,
    progress: &'a [TransferProgress],
    /// Newest first.
    events: &'a [EventRow],
}

fn steps(way: &Way<'_>, now: time::OffsetDateTime, console: &Console) -> Vec<Step> {
    let book = &console.api.book;
    let live: Vec<&TransferProgress> =
        way.progress.iter().filter(|transfer| !matches!(transfer.state, ProgressState::Orphaned { .. })).collect();
    let gone = way.progress.len() > live.len();
    // The transfer that is least deep decides when all of it counts.
    let last = live.iter().min_by_key(|transfer| transfer.have.map_or(0, |have| have.0)).copied();
    let confirmed = !live.is_empty() && live.iter().all(|transfer| matches!(transfer.state, ProgressState::Confirmed { .. }));
    let at = |kind: &str| way.events.iter().find(|event| event.kind == kind).map(|event| Moment::of(event.created_at, now));
    let held = way.escrow.is_some();
    let released = way.escrow == Some("released");
    let asked = matches!(way.escrow, Some("releasable" | "releasing" | "released"));
    let amount = show::amount(way.payment.due.units, way.payment.due.asset, book);

    let seen = live.iter().map(|transfer| transfer.sighting.first_seen_at).min();
    let seen_text = match (live.len(), gone) {
        (0, true) => "What was seen has left the chain again.".to_owned(),
        (0, false) => format!("Waiting for {amount}."),
        (1, _) => format!("In block {}.", show::grouped(&live[0].block.number.0.to_string())),
        (count, _) => format!("{count} transfers, the first in block {}.", show::grouped(&live[0].block.number.0.to_string())),
    };
    let confirmed_at = live.iter().filter_map(|transfer| match transfer.state {
        ProgressState::Confirmed { at, .. } => Some(at),
        ProgressState::Waiting | ProgressState::Orphaned { .. } => None,
    });
    let confirmed_text = match last {
        None => "Counts once it is deep enough in the chain.".to_owned(),
        Some(transfer) => {
            let need = transfer.need.get();
            let have = transfer.have.map_or(0, |have| have.0);
            if confirmed { format!("{need} of {need} confirmations reached.") } else { format!("{have} of {need} confirmations.") }
        }
    };
    let state = |done: bool, now: bool| match (done, now) {
        (true, _) => "done",
        (false, true) => "now",
        (false, false) => "todo",
    };
    let step = |state, title, at, text: String| Step { state, title, at, text, depth: None };
    let mut steps = vec![
        step("done", "Created", Some(Moment::of(way.payment.created_at, now)), format!("{amount} due.")),
        step(
            if live.is_empty() && gone { "bad" } else { state(!live.is_empty(), true) },
            "Seen",
            seen.map(|at| Moment::of(at, now)),
            seen_text,
        ),
        Step {
            depth: last.and_then(depth).filter(|_| !confirmed),
            ..step(
                state(confirmed, !live.is_empty()),
                "Confirmed",
                confirmed_at.max().filter(|_| confirmed).map(|at| Moment::of(at, now)),
                confirmed_text,
            )
        },
        step(
            state(held, confirmed),
            "Held",
            at("payment.funded").filter(|_| held),
            if held { format!("{amount} held in escrow.") } else { "Held once the whole amount is confirmed.".to_owned() },
        ),
        step(
            state(asked, held),
            "Release asked",
            at("payment.release_requested").filter(|_| asked),
            if asked {
                "By the marketplace, or a resolver; who it was stands with the order.".to_owned()
            } else {
                "The marketplace asks when the goods have arrived.".to_owned()
            },
        ),
        step(
            state(released, asked),
            "Released",
            at("intent.settled").filter(|_| released),
            match (released, way.status) {
                (true, _) => format!("Paid to {}.", way.payment.seller_address),
                (false, _) if asked => "An intent is planned, approved, signed on the device and mined.".to_owned(),
                (false, _) => "To the seller's address.".to_owned(),
            },
        ),
    ];
    // A way that ended elsewhere shows that, and nothing that would still come.
    if let Some(end) = end(way.status, way.escrow) {
        steps.retain(|step| step.state == "done");
        steps.push(step(end.state, end.title, at(end.event), end.text.to_owned()));
    }
    steps
}

/// How a payment ends otherwise than by a release.
struct End {
    state: &'static str,
    title: &'static str,
    event: &'static str,
    text: &'static str,
}

fn end(status: &str, escrow: Option<&str>) -> Option<End> {
    match (status, escrow) {
        ("cancelled", _) => Some(End {
            state: "bad",
            title: "Cancelled",
            event: "payment.cancelled",
            text: "Nothing is awaited any more; what comes now waits in suspense.",
        }),
        ("failed", _) => Some(End {
            state: "bad",
            title: "Failed",
            event: "payment.failed",
            text: "Nothing came in time; what comes now waits in suspense.",
        }),
        (_, Some("refunded")) | ("refunded", _) => {
            Some(End { state: "done", title: "Refunded", event: "payment.refunded", text: "The buyer has it back." })
        }
        _ => None,
    }
}
