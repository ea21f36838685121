//! Quotes of payments: priced when they are created, shown with their evidence, and made anew when they have
//! ended.

use std::time::Instant;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::ApiState;
use super::auth::Authenticated;
use super::code::Code;
use super::idempotency::Writing;
use super::payments::{self, payment_id};
use super::problem::Problem;
use super::wire::{Nothing, QuoteView, RequoteView};
use crate::chains::ChainBook;
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey};
use crate::officer::Scope;
use crate::payment::{self, NewPayment, Payment, PaymentDraft, PaymentState};
use crate::quote::decide::identity;
use crate::quote::late;
use crate::quote::store::{QUOTES_MAX, StoredQuote};
use crate::quote::{self, Asked, Evidence, Oracle, Quote, QuoteKind, Refusal, Remembered};
use crate::units::{PaymentId, TokenAmount, format_units};
use crate::{confirm, deposit, escrow, scan};

/// A priced payment while quoting is off: refused with all else that is wrong with it.
pub(super) fn disabled(draft: PaymentDraft, state: &ApiState) -> Problem {
    let refusal = Refusal::QuotingDisabled { currency: draft.currency.clone(), token: draft.token.clone() };
    match draft.check(&state.book, &state.watched(), (state.clock)()) {
        Err(faults) if faults.iter().any(|fault| fault.field != "currency") => Problem::fields(faults),
        Ok(_) | Err(_) => Problem::refused(&refusal),
    }
}

/// A quote from what the oracle knows now. Nothing is stored by it, and a refusal leaves nothing behind.
pub(super) async fn price(
    connection: &mut PgConnection,
    oracle: &Oracle,
    asked: &Asked,
    book: &ChainBook,
    now: OffsetDateTime,
) -> Result<(Quote, Evidence), Problem> {
    let started = Instant::now();
    let remembered = Remembered::read(connection).await?;
    let quoted = oracle.quote(asked, &remembered, now).map_err(|refusal| refuse(&refusal, asked, book))?;
    oracle.note_duration(started.elapsed());
    match &quoted.decision.outcome {
        Ok(quote) => Ok((quote.clone(), quoted.evidence())),
        Err(refusal) => {
            tracing::warn!(currency = asked.currency.code(), token = asked.token, code = refusal.code(), "no quote: {refusal}");
            Err(refuse(refusal, asked, book))
        }
    }
}

/// What else the payer could use, where one token is the trouble.
fn refuse(refusal: &Refusal, asked: &Asked, book: &ChainBook) -> Problem {
    let problem = Problem::refused(refusal);
    let of_token = matches!(
        refusal,
        Refusal::DepegHalt { .. }
            | Refusal::InsufficientSources { .. }
            | Refusal::InconsistentSources { .. }
            | Refusal::TokenNotOffered { .. }
    );
    let tokens = book.get(asked.chain).map(|chain| chain.tokens.as_slice()).unwrap_or_default();
    let others: Vec<&str> =
        tokens.iter().filter(|token| token.symbol != asked.token && token.price.is_some()).map(|token| token.symbol.as_str()).collect();
    if of_token && !others.is_empty() { problem.advising(&format!("offered on this chain: {}", others.join(", "))) } else { problem }
}

/// The quote of a payment in its own token, for which nobody is asked.
pub(super) fn same_asset(payment: &NewPayment, now: OffsetDateTime) -> Result<Quote, Problem> {
    let amount =
        payment.amount.parse().map_err(|error: crate::units::PriceError| Problem::field("amount", &payment.amount, error.to_string()))?;
    let asked = Asked {
        amount,
        currency: payment.currency,
        chain: payment.due.asset.chain,
        token: payment.token.symbol.clone(),
        decimals: payment.token.decimals,
    };
    let quote = identity(&asked, now, payment.expires_at).filter(|quote| quote.settled.settle_units == payment.due.units);
    quote.ok_or_else(|| Problem::field("amount", &payment.amount, "is finer than the token"))
}

/// All quotes of a payment with their evidence, oldest first; the last one counts.
#[utoipa::path(
    get, path = "/v1/payments/{id}/quotes", tag = "quotes",
    responses((status = 200, body = Vec<QuoteView>), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
) -> Result<axum::Json<Vec<QuoteView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let id = payment_id(&id)?;
    let mut connection = state.db.connection().await?;
    payment::store::find(&mut connection, id).await?.ok_or_else(|| Problem::not_found(format!("no payment {id}")))?;
    let quotes = quote::store::list(&mut connection, Some(id), None, QUOTES_MAX).await?;
    Ok(axum::Json(quotes.iter().filter_map(|quote| view(quote, true)).collect()))
}

/// A fresh quote for a payment whose quote has ended before it was paid.
#[utoipa::path(
    post, path = "/v1/payments/{id}/requote", tag = "quotes",
    request_body = Nothing,
    responses(
        (status = 201, body = RequoteView),
        (status = 404, description = "not_found"),
        (status = 409, description = "payment_state, quote_lives, quoted_too_often, not_priced"),
        (status = 503, description = "unavailable, or there is no quote")
    ),
    security(("token" = ["payments:write"]))
)]
pub(super) async fn requote(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let call = call.or_empty();
    let caller = call.who.require(Scope::PaymentsWrite)?;
    let id = payment_id(&id)?;
    let (write, Nothing {}) = call.read::<Nothing>(caller, format!("POST /v1/payments/{id}/requote"))?;
    let (by, book, now) = (caller.name(), state.book.clone(), (state.clock)());
    let Some(oracle) = state.oracle.clone() else {
        return Err(Problem::refused(&Refusal::QuotingDisabled {
            currency: "another currency".to_owned(),
            token: "this token".to_owned(),
        }));
    };
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let payment = payment::store::lock(connection, id).await?;
                let (old, waits) = may_be_requoted(connection, &payment, now).await?;
                let Some(old_quote) = &old.quote else { return Err(not_priced(id)) };
                let (quote, evidence) = price(connection, &oracle, &old_quote.asked, &book, now).await?;
                let received = received(connection, &payment).await?;
                // Where money has come, what was agreed is the least; else the fresh quote stands alone.
                let asked = quote.settled.settle_units;
                let nothing = received.units.is_zero() && !waits;
                let required_units = if nothing { asked } else { late::required(old.required_units, asked) };
                let fresh = escrow::replace_quote(connection, &payment, &old, (&quote, &evidence), required_units).await?;
                let detail = serde_json::json!({ "by": by, "quote": fresh, "required_units": required_units.to_string() });
                event::store::append(connection, &Event::of_payment("payment.requoted", id, detail)).await?;
                tracing::info!(payment.id = %id, quote.id = %fresh, due = %required_units, "payment quoted anew");
                let live = quote::store::find_live(connection, id).await?.as_ref().and_then(|live| view(live, false));
                Ok(RequoteView {
                    payment: payments::view(connection, id, &book).await?,
                    quote: live.ok_or_else(|| not_priced(id))?,
                    received_units: received.units.to_string(),
                    missing_units: required_units.saturating_sub(received.units).to_string(),
                })
            })
        })
        .await
}

/// The live quote, if it has ended and nothing that was in time for it can still come; and whether something that came
/// too late for it waits for its confirmations.
async fn may_be_requoted(connection: &mut PgConnection, payment: &Payment, now: OffsetDateTime) -> Result<(StoredQuote, bool), Problem> {
    let id = payment.id;
    if !matches!(payment.state, PaymentState::Pending | PaymentState::Processing) {
        return Err(Problem::conflict(Code::PaymentState, format!("payment {id} is {}; only an unpaid one is quoted anew", payment.state)));
    }
    let quotes = quote::store::list(connection, Some(id), None, QUOTES_MAX).await?;
    if i64::try_from(quotes.len()).is_ok_and(|count| count >= QUOTES_MAX) {
        return Err(Problem::conflict(Code::QuotedTooOften, format!("payment {id} has {QUOTES_MAX} quotes; create another payment")));
    }
    let live = quote::store::find_live(connection, id).await?.ok_or_else(|| not_priced(id))?;
    if live.quote.as_ref().is_none_or(|quote| quote.kind != QuoteKind::Priced) {
        return Err(not_priced(id));
    }
    if now <= payment.expires_at {
        return Err(Problem::conflict(Code::QuoteLives, format!("the quote of payment {id} is honoured until {}", payment.expires_at)));
    }
    let read_until = scan::store::find_tip_time(connection, payment.due.asset.chain).await?;
    if read_until.is_none_or(|read_until| read_until <= payment.expires_at) {
        return Err(Problem::unavailable(
            "the chain is not read up to the end of the quote yet; what was in time for it may still be seen",
        ));
    }
    let destination = deposit::store::get_by_payment(connection, id).await?;
    let progress = confirm::store::get_progress(connection, destination.derived_address).await?;
    let mut waiting = progress.iter().filter(|seen| !seen.internal && seen.state == confirm::store::ProgressState::Waiting).peekable();
    let waits = waiting.peek().is_some();
    if waiting.any(|seen| seen.block_time <= payment.expires_at) {
        return Err(Problem::unavailable("a transfer that was in time waits for its confirmations"));
    }
    Ok((live, waits))
}

fn not_priced(id: PaymentId) -> Problem {
    Problem::conflict(Code::NotPriced, format!("payment {id} is in its own token, or was not quoted here; it needs no quote"))
}

/// What has come in the token that is due, counted or in suspense.
async fn received(connection: &mut PgConnection, payment: &Payment) -> Result<TokenAmount, Problem> {
    let counted = ledger::store::balance(connection, payment.due.asset, AccountKey::Received(payment.id)).await?;
    let suspended = ledger::store::balance(connection, payment.due.asset, AccountKey::Suspense(Some(payment.id))).await?;
    counted.checked_add(suspended).map_err(|error| Problem::unavailable(error.to_string()))
}

/// A quote as callers read it. `None` for one that was brought along without its terms.
pub(super) fn view(stored: &StoredQuote, with_evidence: bool) -> Option<QuoteView> {
    let quote = stored.quote.as_ref()?;
    Some(QuoteView {
        id: stored.id,
        kind: quote.kind.name().to_owned(),
        amount: format_units(quote.asked.amount.scaled(), 18),
        currency: quote.asked.currency.code().to_owned(),
        fx_rate: quote.terms.fx_rate.to_string(),
        token_price_usd: quote.terms.token_price.to_string(),
        effective_price_usd: quote.settled.effective_price.to_string(),
        depeg_adjustment_bps: quote.settled.depeg_adjustment_bps,
        peg_state: quote.settled.peg_state.name().to_owned(),
        policy: quote.terms.peg.map(|rule| rule.policy.name().to_owned()),
        settle_amount: format_units(quote.settled.settle_amount.scaled(), 18),
        settle_units: quote.settled.settle_units.to_string(),
        required_units: stored.required_units.to_string(),
        quoted_at: quote.quoted_at,
        expires_at: quote.expires_at,
        inclusion_grace_s: quote.grace_s,
        supersedes: stored.supersedes,
        evidence: stored.evidence.as_ref().filter(|_| with_evidence).and_then(|evidence| serde_json::to_value(evidence).ok()),
    })
}
