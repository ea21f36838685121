//! Payments: create and read.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::problem::Problem;
use super::quotes;
use super::tagged::tagged;
use super::wire::{ClaimView, CreatePayment, DisputeView, ExceptionView, PaymentPage, PaymentView, PayoutView, TermsView, TransferView};
use crate::account::IssueLimit;
use crate::chains::ChainBook;
use crate::escrow::{self, Dispute, Payout};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey};
use crate::officer::Scope;
use crate::payment::{self, FeeDraft, NewPayment, Payment, PaymentDraft};
use crate::quote::store::NewQuote;
use crate::quote::{self, Evidence, Quote};
use crate::units::{PaymentId, UserId, format_units};
use crate::{account, confirm, deposit, scan, settings};

/// Create a payment
#[utoipa::path(
    post, path = "/v1/payments", tag = "payments",
    request_body = CreatePayment,
    responses((status = 201, body = PaymentView)),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn create(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let (write, asked) = call.read::<CreatePayment>(caller, "POST /v1/payments".to_owned())?;
    let defaults = settings::store::get_payment_defaults(&mut *state.db.connection().await?).await?;
    let draft = PaymentDraft {
        amount: asked.amount,
        currency: asked.currency,
        chain_id: asked.chain_id,
        token: asked.token,
        seller_address: asked.seller_address,
        buyer_id: asked.buyer_id,
        seller_id: asked.seller_id,
        purchase_request_id: asked.purchase_request_id,
        purchase_request_external_ref: asked.purchase_request_external_ref,
        seller_offer_id: asked.seller_offer_id,
        seller_offer_external_ref: asked.seller_offer_external_ref,
        expires_in_seconds: asked.expires_in_seconds,
        tolerance_bps: asked.tolerance_bps,
        late_window_seconds: asked.late_window_seconds,
        platform_fee: FeeDraft { bps: asked.platform_fee_bps, min: asked.platform_fee_min },
        provider_fee: FeeDraft { bps: asked.provider_fee_bps, min: asked.provider_fee_min },
        defaults,
    };
    let (book, now, limit) = (state.book.clone(), (state.clock)(), state.issue_limit.clone());
    if draft.is_priced() {
        let Some(oracle) = state.oracle.clone() else { return Err(quotes::disabled(draft, &state)) };
        let draft = draft.check_priced(&state.book, &state.watched(), now).map_err(Problem::fields)?;
        return write
            .once(&state, StatusCode::CREATED, move |connection| {
                Box::pin(async move {
                    let (quote, evidence) = quotes::price(connection, &oracle, &draft.asked(), &book, now).await?;
                    let payment = draft.quoted(&quote).map_err(Problem::fields)?;
                    create_one(connection, &payment, (&quote, Some(&evidence)), &book, &limit).await
                })
            })
            .await;
    }
    let payment = draft.check(&state.book, &state.watched(), now).map_err(Problem::fields)?;
    let quote = quotes::same_asset(&payment, now)?;
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move { create_one(connection, &payment, (&quote, None), &book, &limit).await })
        })
        .await
}

/// The payment, its quote, its address and the address's watch commit together, before anybody learns of
/// them.
async fn create_one(
    connection: &mut PgConnection,
    new: &NewPayment,
    (quote, evidence): (&Quote, Option<&Evidence>),
    book: &ChainBook,
    limit: &IssueLimit,
) -> Result<PaymentView, Problem> {
    let chain = new.due.asset.chain;
    let cursor = scan::store::find_cursor(connection, chain)
        .await?
        .ok_or_else(|| Problem::unavailable(format!("chain {chain} is not being watched yet; its node has not answered")))?;
    if account::store::find_address_id(connection, new.seller_address).await?.is_some() {
        // A release to ourselves would leave the books saying that the seller was paid.
        return Err(Problem::field("seller_address", new.seller_address.to_string(), "is one of our own addresses"));
    }
    let id = PaymentId(Uuid::now_v7());
    let no_user =
        |field: &str, user: Option<UserId>| Problem::field(field, user.map(|user| user.to_string()).unwrap_or_default(), "no such user");
    payment::store::insert(connection, id, new).await.map_err(|error| match error.constraint() {
        Some("payments_buyer_id_fkey") => no_user("buyer_id", new.buyer_id),
        Some("payments_seller_id_fkey") => no_user("seller_id", new.seller_id),
        Some(_) | None => error.into(),
    })?;
    let required_units = quote.settled.settle_units;
    let first = NewQuote { id: Uuid::now_v7(), payment: id, supersedes: None, quote, required_units, evidence };
    quote::store::insert(connection, &first).await?;
    let address = account::store::claim_deposit_address(connection).await?;
    if !limit.allows(&address) {
        // Not before it is noted outside of the database that it may have been issued.
        return Err(Problem::unavailable("addresses are issued faster than that can be noted; ask again in a second".to_owned()));
    }
    deposit::store::insert(connection, id, &address, chain, cursor.tip.number).await?;
    let detail = serde_json::json!({ "address": address.address, "path": address.path.to_string() });
    event::store::append(connection, &Event::of_payment("payment.created", id, detail)).await?;
    tracing::info!(payment.id = %id, chain.id = chain.get(), address = %address.address, path = %address.path, "payment created");
    view(connection, id, book).await
}

/// One payment
#[utoipa::path(
    get, path = "/v1/payments/{id}", tag = "payments",
    responses((status = 200, body = PaymentView), (status = 304), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    who.require(Scope::PaymentsRead)?;
    let id = payment_id(&id)?;
    let mut connection = state.db.connection().await?;
    let payment = view(&mut connection, id, &state.book).await?;
    tagged(&headers, payment.state_version, &payment)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// `next_cursor` of the page before.
    #[serde(default)]
    pub(super) cursor: Option<String>,
    /// 1 to 200; 50 without it.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<i64>,
}

pub(super) const PAGE_MAX: i64 = 200;
/// Disputes of one payment that are shown.
const DISPUTES_MAX: i64 = 50;

impl Page {
    pub(super) fn limit(&self) -> Result<i64, Problem> {
        match self.limit {
            None => Ok(50),
            Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(Problem::field("limit", limit.to_string(), format!("must be 1 to {PAGE_MAX}"))),
        }
    }

    pub(super) fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// A cursor that is the number of a row.
    pub(super) fn number(&self) -> Result<Option<i64>, Problem> {
        let number = self.cursor().map(str::parse).transpose();
        number.map_err(|_| Problem::field("cursor", self.cursor().unwrap_or_default(), "use next_cursor of the page before, unchanged"))
    }
}

/// Payments, newest first
#[utoipa::path(
    get, path = "/v1/payments", tag = "payments",
    params(Page),
    responses((status = 200, body = PaymentPage)),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(page): Query<Page>,
) -> Result<axum::Json<PaymentPage>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let limit = page.limit()?;
    let after = page.cursor().map(read_cursor).transpose()?;
    let mut connection = state.db.connection().await?;
    let found = payment::store::list(&mut connection, after, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(write_cursor);
    let mut payments = Vec::with_capacity(found.len());
    for payment in found {
        payments.push(view(&mut connection, payment.id, &state.book).await?);
    }
    Ok(axum::Json(PaymentPage { payments, next_cursor }))
}

fn write_cursor(payment: &Payment) -> String {
    format!("{}_{}", payment.created_at.unix_timestamp_nanos() / 1_000, payment.id)
}

fn read_cursor(text: &str) -> Result<(OffsetDateTime, PaymentId), Problem> {
    let bad = || Problem::field("cursor", text.chars().take(100).collect::<String>(), "use next_cursor of the page before, unchanged");
    let (micros, id) = text.split_once('_').ok_or_else(bad)?;
    let micros: i128 = micros.parse().map_err(|_| bad())?;
    let nanos = micros.checked_mul(1_000).ok_or_else(bad)?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| bad())?;
    Ok((at, id.parse().map_err(|_| bad())?))
}

pub(super) fn payment_id(text: &str) -> Result<PaymentId, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("no payment {:?}", text.chars().take(64).collect::<String>())))
}

/// A payment with everything a reader needs to understand where it stands.
pub(super) async fn view(connection: &mut PgConnection, id: PaymentId, book: &ChainBook) -> Result<PaymentView, Problem> {
    let payment = payment::store::find(connection, id).await?.ok_or_else(|| Problem::not_found(format!("no payment {id}")))?;
    let destination = deposit::store::get_by_payment(connection, id).await?;
    let address = account::store::get_address(connection, destination.derived_address).await?;
    let received = received(connection, &payment).await?;
    let transfers = transfers(connection, destination.derived_address).await?;
    let exceptions = payment::store::list_exceptions(connection, id)
        .await?
        .into_iter()
        .map(|row| ExceptionView {
            kind: row.kind.name().to_owned(),
            detail: row.detail,
            open: row.closed_at.is_none(),
            resolution: row.resolution,
        })
        .collect();
    let claims = ledger::store::list_claims(connection, id).await?.iter().map(|claim| claim_view(claim, book)).collect();
    let payouts = escrow::store::list_payouts(connection, id).await?.into_iter().map(payout_view).collect();
    let disputes = escrow::store::list_disputes(connection, Some(id), DISPUTES_MAX).await?.into_iter().map(dispute_view).collect();
    let decimals = book.asset(payment.due.asset).map_or(payment.token_decimals, |facts| facts.decimals);
    Ok(PaymentView {
        id,
        status: status_name(&payment),
        escrow_state: escrow_name(&payment),
        state_version: payment.state_version,
        amount: format_units(payment.due.units, decimals),
        amount_units: payment.due.units.to_string(),
        currency: payment.currency.code().to_owned(),
        chain_id: payment.due.asset.chain.get(),
        token: payment.token_symbol.clone(),
        token_contract: payment.due.asset.asset.marker(),
        deposit_address: destination.address,
        deposit_path: address.path.to_string(),
        destination_status: destination.status.name().to_owned(),
        seller_address: payment.seller_address,
        received_units: received,
        expires_at: payment.expires_at,
        created_at: payment.created_at,
        provider: payment.provider.name().to_owned(),
        terms: terms_view(&payment),
        claims,
        payouts,
        disputes,
        transfers,
        exceptions,
        quote: quote::store::find_live(connection, id).await?.and_then(|live| quotes::view(&live, false)),
    })
}

fn terms_view(payment: &Payment) -> TermsView {
    let terms = &payment.terms;
    let whole = if payment.escrowed_units.is_zero() { payment.due.units } else { payment.escrowed_units };
    let fees = terms.fees_of_whole(whole);
    TermsView {
        tolerance_bps: terms.tolerance_bps,
        late_until: payment.expires_at + terms.late_window,
        platform_fee_bps: terms.platform_fee.bps,
        platform_fee_min_units: terms.platform_fee.min_units.to_string(),
        provider_fee_bps: terms.provider_fee.bps,
        provider_fee_min_units: terms.provider_fee.min_units.to_string(),
        platform_fee_units: fees.platform_units.to_string(),
        provider_fee_units: fees.provider_units.to_string(),
    }
}

fn claim_view(claim: &ledger::store::KindTotal, book: &ChainBook) -> ClaimView {
    // An asset that left the book is written in raw units.
    let (symbol, decimals) = book.asset(claim.total.asset).map_or(("raw units", 0), |facts| (facts.symbol, facts.decimals));
    ClaimView {
        account: claim.kind.name().to_owned(),
        chain_id: claim.total.asset.chain.get(),
        asset: claim.total.asset.asset.to_string(),
        symbol: symbol.to_owned(),
        amount: format_units(claim.total.units, decimals),
        units: claim.total.units.to_string(),
    }
}

fn payout_view(payout: Payout) -> PayoutView {
    PayoutView {
        id: payout.id,
        kind: payout.kind.name().to_owned(),
        state: payout.state.name().to_owned(),
        from: payout.source.name().to_owned(),
        chain_id: payout.gross.asset.chain.get(),
        asset: payout.gross.asset.asset.to_string(),
        gross_units: payout.gross.units.to_string(),
        platform_fee_units: payout.fees.platform_units.to_string(),
        provider_fee_units: payout.fees.provider_units.to_string(),
        net_units: payout.net().units.to_string(),
        to_address: payout.to,
        requested_by: payout.requested_by,
        dispute_id: payout.dispute,
        intent_id: payout.intent,
        created_at: payout.created_at,
    }
}

pub(super) fn dispute_view(dispute: Dispute) -> DisputeView {
    DisputeView {
        id: dispute.id,
        payment_id: dispute.payment,
        state: dispute.state.name().to_owned(),
        opened_by: dispute.opened_by,
        reason: dispute.reason,
        resolution: dispute.resolution.map(|resolution| resolution.name().to_owned()),
        resolved_by: dispute.resolved_by,
        note: dispute.note,
        opened_at: dispute.opened_at,
        resolved_at: dispute.resolved_at,
    }
}

fn status_name(payment: &Payment) -> String {
    payment.state.status().name().to_owned()
}

fn escrow_name(payment: &Payment) -> Option<String> {
    payment.state.escrow().map(|state| state.name().to_owned())
}

/// What counted towards the amount: the part still in `received`, and the whole once it is held.
async fn received(connection: &mut PgConnection, payment: &Payment) -> Result<String, Problem> {
    let waiting = ledger::store::balance(connection, payment.due.asset, AccountKey::Received(payment.id)).await?;
    Ok(payment.escrowed_units.saturating_add(waiting.units).to_string())
}

async fn transfers(connection: &mut PgConnection, address: Uuid) -> Result<Vec<TransferView>, Problem> {
    let progress = confirm::store::get_progress(connection, address).await?;
    Ok(progress
        .into_iter()
        .filter(|row| !row.internal)
        .map(|row| TransferView {
            tx_hash: row.tx_hash,
            asset: row.asset.to_string(),
            units: row.amount.to_string(),
            block_number: row.block.number.0,
            block_hash: row.block.hash,
            state: row.state.name().to_owned(),
            depth: row.have.map_or(0, |depth| depth.0),
            threshold: row.need.get(),
            may_leave: row.release.is_some(),
        })
        .collect())
}
