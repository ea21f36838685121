//! What the marketplace and resolvers order about a payment's money: release, refund, acceptance, disputes. Each
//! refusal is noted: that row is all that a refused command leaves.

use alloy::primitives::{Address, U256};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use sqlx::PgConnection;
use uuid::Uuid;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::payments::{dispute_view, payment_id, view};
use super::problem::Problem;
use super::wire::{
    AcceptPayment, DisputeView, EndQuarantine, Nothing, OpenDispute, PaymentView, RefundPayment, ReleasePayment, ResolveDispute,
};
use crate::chains::ChainBook;
use crate::escrow::{self, Acceptance, Market, QuarantineExit, RefundOrder, Source, Verdict};
use crate::officer::{Caller, Scope};
use crate::payment::{self, Payment};
use crate::units::{AssetId, ChainId, PaymentId, parse_address, parse_units};
use crate::{db, intent};

const DISPUTES_MAX: i64 = 200;
const SHOWN_CHARS_MAX: usize = 100;

/// A command as its refusal is noted.
struct Command {
    payment: PaymentId,
    name: &'static str,
    by: String,
}

impl Command {
    /// Hands the outcome on; of a refusal, a row stays.
    async fn noted(self, state: &ApiState, outcome: Result<Response, Problem>) -> Result<Response, Problem> {
        if let Err(problem) = &outcome
            && let Some(why) = problem.refusal()
        {
            let Self { payment, name, by } = self;
            tracing::info!(payment.id = %payment, by, "{name} refused: {why}");
            state
                .db
                .unit(move |connection| {
                    Box::pin(async move { escrow::store::note_refusal(connection, payment, name, &by, &why).await })
                        as db::Work<'_, (), db::DbError>
                })
                .await?;
        }
        outcome
    }
}

/// Release a payment, or a part of it
///
/// The marketplace's instruction to pay the seller, all or a part. What follows is planned, approved and signed.
#[utoipa::path(
    post, path = "/v1/payments/{id}/release", tag = "escrow",
    request_body = ReleasePayment,
    responses((status = 202, body = PaymentView), (status = 404, description = "not_found"), (status = 409, description = "payment_state, not_enough, only_fees, disputed")),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn release(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let call = call.or_empty();
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, asked) = call.read::<ReleasePayment>(caller, format!("POST /v1/payments/{id}/release"))?;
    let (by, book) = (caller.name(), state.book.clone());
    let command = Command { payment: id, name: "release", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::ACCEPTED, move |connection| {
            Box::pin(async move {
                let payment = find(connection, id).await?;
                let units = amount("amount", asked.amount.as_deref(), payment.token_decimals)?;
                escrow::release(connection, id, units, &by).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

/// Refund a payment, or a part of it
#[utoipa::path(
    post, path = "/v1/payments/{id}/refund", tag = "escrow",
    request_body = RefundPayment,
    responses((status = 202, body = PaymentView), (status = 404, description = "not_found"), (status = 409, description = "payment_state, not_enough, disputed")),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn refund(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, asked) = call.read::<RefundPayment>(caller, format!("POST /v1/payments/{id}/refund"))?;
    let source = match asked.from.as_str() {
        "held" => Source::Held,
        "received" => Source::Received,
        "suspense" => Source::Suspense,
        other => return Err(Problem::field("from", shorten(other), "is none of held, received, suspense")),
    };
    let to = address("to", &asked.to)?;
    let (by, book) = (caller.name(), state.book.clone());
    let command = Command { payment: id, name: "refund", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::ACCEPTED, move |connection| {
            Box::pin(async move {
                let payment = find(connection, id).await?;
                let (asset, decimals) = refunded_asset(&asked, &payment, &book)?;
                let units = amount("amount", asked.amount.as_deref(), decimals)?;
                let order = RefundOrder { payment: id, source, asset: Some(asset), units, to, by };
                escrow::refund(connection, &order, &book).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

/// Which asset a refund is of, and its decimals.
fn refunded_asset(asked: &RefundPayment, payment: &Payment, book: &ChainBook) -> Result<(AssetId, u8), Problem> {
    let due = payment.due.asset;
    if asked.from != "suspense" && (asked.chain_id.is_some() || asked.token.is_some()) {
        return Err(Problem::field("token", "", "only money in suspense can be of another kind; leave token and chain_id out"));
    }
    let chain = match asked.chain_id {
        None => due.chain,
        Some(id) => ChainId::new(id).ok_or_else(|| Problem::field("chain_id", id.to_string(), "is not a chain"))?,
    };
    let spec = book.get(chain).ok_or_else(|| Problem::field("chain_id", chain.to_string(), "is not in chains.toml"))?;
    match asked.token.as_deref() {
        None if chain == due.chain => Ok((due, payment.token_decimals)),
        None => Err(Problem::field("token", "", format!("name what it is on {}: {}", spec.name, spec.symbols().join(", ")))),
        Some(symbol) => spec.find_asset(symbol).map(|(asset, facts)| (asset, facts.decimals)).ok_or_else(|| {
            Problem::field("token", shorten(symbol), format!("is not listed for {}; use one of {}", spec.name, spec.symbols().join(", ")))
        }),
    }
}

/// Accept what came otherwise than asked
///
/// What came after the end of its quote is valued first: the larger of what was agreed and of a fresh quote is due,
/// and the fresh quote is stored. With `less_than_due` it is taken although that is more, or there is no fresh quote.
#[utoipa::path(
    post, path = "/v1/payments/{id}/accept", tag = "escrow",
    request_body = AcceptPayment,
    responses(
        (status = 200, body = PaymentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "payment_state, still_short, nothing_to_accept"),
        (status = 422, description = "quoting_disabled"),
        (status = 503, description = "it came after the end of its quote, and there is no fresh one: unavailable, or the oracle's own code")
    ),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn accept(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, asked) = call.read::<AcceptPayment>(caller, format!("POST /v1/payments/{id}/accept"))?;
    let (by, book) = (caller.name(), state.book.clone());
    let (oracle, now) = (state.oracle.clone(), (state.clock)());
    let command = Command { payment: id, name: "accept", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let acceptance = Acceptance { payment: id, less_than_due: asked.less_than_due, by, reason: asked.reason };
                escrow::accept(connection, &acceptance, Market { oracle: oracle.as_deref(), now }).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

/// Cancel a payment that nothing came for
#[utoipa::path(
    post, path = "/v1/payments/{id}/cancel", tag = "escrow",
    request_body = Nothing,
    responses((status = 200, body = PaymentView), (status = 404, description = "not_found"), (status = 409, description = "payment_state")),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn cancel(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let call = call.or_empty();
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, Nothing {}) = call.read::<Nothing>(caller, format!("POST /v1/payments/{id}/cancel"))?;
    let (by, book) = (caller.name(), state.book.clone());
    let command = Command { payment: id, name: "cancel", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                escrow::cancel(connection, id, &by).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

/// Take back an order
///
/// Takes back an order that is not planned yet.
#[utoipa::path(
    post, path = "/v1/payments/{id}/payouts/{payout}/withdraw", tag = "escrow",
    request_body = Nothing,
    responses((status = 200, body = PaymentView), (status = 404, description = "not_found"), (status = 409, description = "payout_state")),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn withdraw(
    State(state): State<ApiState>,
    Path((id, payout)): Path<(String, String)>,
    call: Writing,
) -> Result<Response, Problem> {
    let call = call.or_empty();
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let no_payout = || Problem::not_found(format!("payment {id} has no payout {:?}", shorten(&payout)));
    let payout: Uuid = payout.parse().map_err(|_| no_payout())?;
    let route = format!("POST /v1/payments/{id}/payouts/{payout}/withdraw");
    let (write, Nothing {}) = call.read::<Nothing>(caller, route)?;
    let (by, book) = (caller.name(), state.book.clone());
    let command = Command { payment: id, name: "withdraw", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                if escrow::store::get_payout(connection, payout).await?.payment != id {
                    return Err(Problem::not_found(format!("payment {id} has no payout {payout}")));
                }
                escrow::withdraw_ordered(connection, payout, &by).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

// === disputes ===

/// Open a dispute
#[utoipa::path(
    post, path = "/v1/payments/{id}/disputes", tag = "escrow",
    request_body = OpenDispute,
    responses((status = 201, body = DisputeView), (status = 404, description = "not_found"), (status = 409, description = "payment_state, not_enough, disputed, may_be_signed")),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn open_dispute(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, asked) = call.read::<OpenDispute>(caller, format!("POST /v1/payments/{id}/disputes"))?;
    let by = caller.name();
    let command = Command { payment: id, name: "dispute", by: by.clone() };
    let outcome = write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move { Ok(dispute_view(intent::open_dispute(connection, id, &by, &asked.reason).await?)) })
        })
        .await;
    command.noted(&state, outcome).await
}

/// Open disputes
///
/// The disputes that wait for a resolver, oldest first.
#[utoipa::path(
    get, path = "/v1/disputes", tag = "escrow",
    responses((status = 200, body = Vec<DisputeView>)),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn list_disputes(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<DisputeView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let mut connection = state.db.connection().await?;
    let open = escrow::store::list_disputes(&mut connection, None, DISPUTES_MAX).await?;
    Ok(axum::Json(open.into_iter().map(dispute_view).collect()))
}

/// Resolve a dispute
#[utoipa::path(
    post, path = "/v1/disputes/{id}/resolve", tag = "escrow",
    request_body = ResolveDispute,
    responses((status = 200, body = DisputeView), (status = 404, description = "not_found"), (status = 409, description = "payment_state, dispute_resolved, split, only_fees")),
    security(("resolver" = ["disputes:resolve"]))
)]
pub(super) async fn resolve_dispute(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::DisputesResolve)?;
    let resolver = caller.resolver().ok_or_else(|| not_a_resolver(caller))?;
    let id: Uuid = id.parse().map_err(|_| Problem::not_found(format!("no dispute {:?}", shorten(&id))))?;
    let (write, asked) = call.read::<ResolveDispute>(caller, format!("POST /v1/disputes/{id}/resolve"))?;
    let payment = escrow::store::get_dispute(&mut *state.db.connection().await?, id).await?.payment;
    let command = Command { payment, name: "resolve", by: caller.name() };
    let book = state.book.clone();
    let outcome = write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let payment = find(connection, payment).await?;
                let verdict = read_verdict(&asked, &payment)?;
                Ok(dispute_view(escrow::resolve(connection, id, &verdict, &asked.note, &resolver, &book).await?))
            })
        })
        .await;
    command.noted(&state, outcome).await
}

/// What the resolver decided; a refusal names the field.
pub fn read_verdict(asked: &ResolveDispute, payment: &Payment) -> Result<Verdict, Problem> {
    let needs = |field: &str| Problem::field(field, "", format!("is needed for a {}", asked.resolution));
    let to = || asked.refund_to.as_deref().ok_or_else(|| needs("refund_to")).and_then(|to| address("refund_to", to));
    let verdict = match asked.resolution.as_str() {
        "refund" => Verdict::Refund { to: to()? },
        "replacement" => Verdict::Replacement,
        "compensation" => {
            let units = amount("refund_amount", asked.refund_amount.as_deref(), payment.token_decimals)?;
            Verdict::Compensation { units: units.ok_or_else(|| needs("refund_amount"))?, to: to()? }
        }
        "no_action" => Verdict::NoAction,
        other => {
            return Err(Problem::field("resolution", shorten(other), "is none of refund, replacement, compensation, no_action"));
        }
    };
    let extra = match verdict {
        Verdict::Refund { .. } => asked.refund_amount.is_some().then_some("refund_amount"),
        Verdict::Compensation { .. } => None,
        Verdict::Replacement | Verdict::NoAction => {
            asked.refund_to.is_some().then_some("refund_to").or(asked.refund_amount.is_some().then_some("refund_amount"))
        }
    };
    match extra {
        Some(field) => Err(Problem::field(field, "", format!("has no place in a {}", asked.resolution))),
        None => Ok(verdict),
    }
}

/// End the quarantine of a deposit address
#[utoipa::path(
    post, path = "/v1/payments/{id}/quarantine", tag = "escrow",
    request_body = EndQuarantine,
    responses((status = 200, body = PaymentView), (status = 404, description = "not_found"), (status = 409, description = "payment_state, not_quarantined, disputed")),
    security(("resolver" = ["disputes:resolve"]))
)]
pub(super) async fn end_quarantine(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::DisputesResolve)?;
    let resolver = caller.resolver().ok_or_else(|| not_a_resolver(caller))?;
    let id = payment_id(&id)?;
    let (write, asked) = call.read::<EndQuarantine>(caller, format!("POST /v1/payments/{id}/quarantine"))?;
    let command = Command { payment: id, name: "end_quarantine", by: caller.name() };
    let book = state.book.clone();
    let outcome = write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let exit = if asked.to_suspense { QuarantineExit::ToSuspense } else { QuarantineExit::Back };
                escrow::leave_quarantine(connection, id, exit, resolver.name(), &asked.reason).await?;
                view(connection, id, &book).await
            })
        })
        .await;
    command.noted(&state, outcome).await
}

// === reading what was sent ===

fn not_a_resolver(caller: &Caller) -> Problem {
    Problem::forbidden(format!("token {:?} does not belong to a resolver; resolvers and admins end disputes", caller.token_name))
}

async fn find(connection: &mut PgConnection, id: PaymentId) -> Result<Payment, Problem> {
    payment::store::find(connection, id).await?.ok_or_else(|| Problem::not_found(format!("no payment {id}")))
}

/// A decimal amount, if one was named. Nothing is not an amount.
fn amount(field: &str, text: Option<&str>, decimals: u8) -> Result<Option<U256>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let units = parse_units(text, decimals).map_err(|error| Problem::field(field, shorten(text), error.to_string()))?;
    if units.is_zero() { Err(Problem::field(field, text, "must be more than zero")) } else { Ok(Some(units)) }
}

fn address(field: &str, text: &str) -> Result<Address, Problem> {
    parse_address(text).map_err(|error| Problem::field(field, shorten(text), error.to_string()))
}

fn shorten(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}
