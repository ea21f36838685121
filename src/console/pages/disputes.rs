//! Disputes: those that wait for a resolver, and one with all that is known of it, to be ended by one of four decisions.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::response::Response;
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use super::given;
use super::payments::Filter;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Chip, Moment, chip, filters};
use crate::console::store::EventFilter;
use crate::console::{Console, ConsoleError, store};
use crate::escrow::{self, Dispute, DisputeState};
use crate::ledger;
use crate::payment::{self, Payment};
use crate::units::format_units;

/// Disputes on the page.
const DISPUTES: i64 = 100;
/// Events of the payment, which are what a decision rests on.
const EVENTS: i64 = 50;

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    show: Option<String>,
}

#[derive(Template)]
#[template(path = "disputes.html")]
struct DisputesPage {
    frame: Frame,
    filters: Vec<Filter>,
    show: &'static str,
    rows: Vec<Line>,
}

struct Line {
    id: Uuid,
    payment: String,
    chip: Chip,
    reason: String,
    amount: String,
    chain: String,
    opened: Moment,
    by: String,
}

/// A dispute and the payment that it is about.
async fn read(connection: &mut PgConnection, id: Uuid) -> Result<(Dispute, Payment), ConsoleError> {
    let dispute = escrow::store::get_dispute(connection, id).await?;
    let payment = payment::store::find(connection, dispute.payment).await?.ok_or(escrow::EscrowError::UnknownDispute(id))?;
    Ok((dispute, payment))
}

fn state_of(dispute: &Dispute) -> Chip {
    match (dispute.state, dispute.resolution) {
        (DisputeState::Open, _) => chip("wait", "Open"),
        (DisputeState::Resolved, Some(resolution)) => chip("calm", resolution.name().replace('_', " ")),
        (DisputeState::Resolved, None) => chip("calm", "resolved"),
    }
}

pub(in crate::console) async fn list(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let book = &console.api.book;
    let (show, open) = match given(asked.show).as_deref() {
        None | Some("open") => ("open", true),
        Some("all") => ("all", false),
        Some(_) => return Err(Refusal::Field("Disputes are shown as open or all.".to_owned())),
    };
    let mut connection = console.api.db.connection().await?;
    let mut rows = Vec::new();
    for id in store::list_disputes(&mut connection, open, DISPUTES).await? {
        let (dispute, payment) = read(&mut connection, id).await?;
        rows.push(Line {
            id,
            payment: payment.id.to_string(),
            chip: state_of(&dispute),
            reason: dispute.reason,
            amount: show::amount(payment.due.units, payment.due.asset, book),
            chain: show::chain_name(payment.due.asset.chain, book),
            opened: Moment::of(dispute.opened_at, now),
            by: dispute.opened_by,
        });
    }
    let filters = [("Open", "open"), ("All", "all")].map(|(name, value)| Filter { name, value, chosen: value == show });
    html(&DisputesPage { frame: Frame::of("Disputes", "disputes", &console, &officer), filters: filters.into(), show, rows })
}

#[derive(Template)]
#[template(path = "dispute.html")]
struct DisputePage {
    frame: Frame,
    id: Uuid,
    chip: Chip,
    /// Why this officer cannot end it; nothing if they can.
    barred: Option<&'static str>,
    payment: String,
    payment_chip: Chip,
    amount: String,
    claims: Vec<(String, String)>,
    /// What can be split, as a field wants it.
    disputed: String,
    symbol: String,
    chain: String,
    seller: String,
    reason: String,
    opened: Moment,
    opened_by: String,
    outcome: Option<Outcome>,
    orders: Vec<Order>,
    events: Vec<super::events::Line>,
}

struct Outcome {
    at: Option<Moment>,
    by: String,
    note: String,
}

struct Order {
    kind: &'static str,
    state: &'static str,
    amount: String,
    to: String,
    intent: Option<String>,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer, Path(id): Path<String>) -> Result<Response, Refusal> {
    let id: Uuid = id.parse().map_err(|_| Refusal::Unknown("There is no such dispute.".to_owned()))?;
    let now = console.now();
    let book = &console.api.book;
    let mut connection = console.api.db.connection().await?;
    let connection = &mut *connection;
    let (dispute, payment) = read(connection, id).await?;
    let claims = ledger::store::list_claims(connection, payment.id).await?;
    let payouts = escrow::store::list_payouts(connection, payment.id).await.map_err(ConsoleError::from)?;
    let events = store::list_events(connection, &EventFilter { payment: Some(payment.id), ..EventFilter::default() }, EVENTS).await?;
    let open = dispute.state == DisputeState::Open;
    let disputed = claims
        .iter()
        .filter(|claim| claim.kind == ledger::AccountKind::Disputed && claim.total.asset == payment.due.asset)
        .fold(alloy::primitives::U256::ZERO, |sum, claim| sum.saturating_add(claim.total.units));
    let barred = match (open, officer.holder.role.is_resolver()) {
        (false, _) => Some("It is ended."),
        (true, false) => Some("Guards approve what leaves; disputes are ended by resolvers and admins."),
        (true, true) => None,
    };
    let escrow = payment.state.escrow().map(|escrow| escrow.name());
    html(&DisputePage {
        frame: Frame::of(format!("Dispute {}", show::short(&id.to_string())), "disputes", &console, &officer),
        id,
        chip: state_of(&dispute),
        barred,
        payment_chip: show::payment_state(payment.state.status().name(), escrow),
        payment: payment.id.to_string(),
        amount: show::amount(payment.due.units, payment.due.asset, book),
        claims: claims
            .iter()
            .filter(|claim| !claim.total.units.is_zero())
            .map(|claim| (claim.kind.name().replace('_', " "), show::amount(claim.total.units, claim.total.asset, book)))
            .collect(),
        disputed: format_units(disputed, payment.token_decimals),
        symbol: payment.token_symbol.clone(),
        chain: show::chain_name(payment.due.asset.chain, book),
        seller: payment.seller_address.to_string(),
        reason: dispute.reason.clone(),
        opened: Moment::of(dispute.opened_at, now),
        opened_by: dispute.opened_by.clone(),
        outcome: (!open).then(|| Outcome {
            at: dispute.resolved_at.map(|at| Moment::of(at, now)),
            by: dispute.resolved_by.clone().unwrap_or_default(),
            note: dispute.note.clone().unwrap_or_default(),
        }),
        orders: payouts
            .into_iter()
            .filter(|payout| payout.dispute == Some(id))
            .map(|payout| Order {
                kind: payout.kind.name(),
                state: payout.state.name(),
                amount: show::amount(payout.net().units, payout.gross.asset, book),
                to: payout.to.to_string(),
                intent: payout.intent.map(|intent| intent.to_string()),
            })
            .collect(),
        events: events.into_iter().map(|row| super::events::Line::of(row, now, book)).collect(),
    })
}
