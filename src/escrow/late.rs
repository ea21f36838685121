//! Money that came after its quote had ended. It is valued by a fresh quote before it is taken: what is due is the
//! larger of what was agreed and what a quote would ask for now. The fresh quote is stored as the payment's live one,
//! with its evidence; where there is none, a person has to say in so many words that the money is taken all the same.

use alloy::primitives::U256;
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Acceptance, EscrowError, store};
use crate::event::{self, Event};
use crate::payment::{self, Payment};
use crate::quote::late::{self, Late};
use crate::quote::store::{NewQuote, QUOTES_MAX, StoredQuote};
use crate::quote::{self, Evidence, Oracle, Quote, QuoteKind, Refusal};
use crate::units::TokenAmount;

/// Where a fresh quote comes from, and when it is.
#[derive(Clone, Copy, Debug)]
pub struct Market<'a> {
    /// Absent while quoting is off.
    pub oracle: Option<&'a Oracle>,
    pub now: OffsetDateTime,
}

/// Stores a fresh quote in the place of another, and makes what is due and until when follow it.
pub async fn replace_quote(
    connection: &mut PgConnection,
    payment: &Payment,
    old: &StoredQuote,
    (quote, evidence): (&Quote, &Evidence),
    required_units: U256,
) -> Result<Uuid, EscrowError> {
    let id = Uuid::now_v7();
    let new = NewQuote { id, payment: payment.id, supersedes: Some(old.id), quote, required_units, evidence: Some(evidence) };
    quote::store::insert(connection, &new).await?;
    let due = TokenAmount::new(payment.due.asset, required_units);
    payment::store::set_due(connection, payment, due, quote.payable_until()).await?;
    Ok(id)
}

/// Values what is there for a payment, where any of it came after the end of its quote, and moves what is due to what
/// is required now. `None` where nothing came late, or where there was no quote to end. What was decided is for the
/// event of the acceptance.
pub(super) async fn revalue(
    connection: &mut PgConnection,
    payment: &Payment,
    there: U256,
    acceptance: &Acceptance,
    market: Market<'_>,
) -> Result<Option<Value>, EscrowError> {
    let Some(dead) = find_dead(connection, payment).await? else { return Ok(None) };
    let Some(old) = &dead.quote else { return Ok(None) };
    let fresh = match market.oracle {
        Some(oracle) => oracle.fresh(connection, &old.asked, market.now).await?,
        None => Err(Refusal::QuotingDisabled { currency: old.asked.currency.to_string(), token: old.asked.token.clone() }),
    };
    let fresh_units = fresh.as_ref().ok().map(|(quote, _)| quote.settled.settle_units);
    let required_units = match late::revalue(there, dead.required_units, fresh_units) {
        Late::Suspense => {
            let Err(refusal) = fresh else { return Ok(None) };
            if !acceptance.less_than_due {
                return Err(EscrowError::NoFreshQuote { payment: payment.id, refusal: Box::new(refusal) });
            }
            return Ok(Some(json!({ "no_fresh_quote": refusal.code(), "why": refusal.to_string() })));
        }
        Late::TopUp { required_units, .. } if there < payment.terms.enough(required_units) && !acceptance.less_than_due => {
            return Err(EscrowError::WorthLess { payment: payment.id, there, required: required_units });
        }
        Late::Enough { required_units } | Late::TopUp { required_units, .. } => required_units,
    };
    let Ok((quote, evidence)) = &fresh else { return Ok(None) };
    let id = replace_quote(connection, payment, &dead, (quote, evidence), required_units).await?;
    let detail = json!({ "by": acceptance.by, "quote": id, "required_units": required_units.to_string(), "paid_late": true });
    event::store::append(connection, &Event::of_payment("payment.requoted", payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, quote.id = %id, due = %required_units, "late money valued by a fresh quote");
    Ok(Some(json!({
        "quote": id,
        "agreed_units": dead.required_units.to_string(),
        "fresh_units": quote.settled.settle_units.to_string(),
        "required_units": required_units.to_string(),
    })))
}

/// The live quote of a payment, if it is a priced one that ended before some of the money came.
async fn find_dead(connection: &mut PgConnection, payment: &Payment) -> Result<Option<StoredQuote>, EscrowError> {
    if !store::has_late_credit(connection, payment.id, payment.due.asset, payment.expires_at).await? {
        return Ok(None);
    }
    let quotes = quote::store::list(connection, Some(payment.id), None, QUOTES_MAX).await?;
    if i64::try_from(quotes.len()).is_ok_and(|count| count >= QUOTES_MAX) {
        let what = "it was quoted as often as is allowed; refund what came";
        return Err(EscrowError::State { payment: payment.id, state: payment.state, what });
    }
    let live = quote::store::find_live(connection, payment.id).await?;
    Ok(live.filter(|live| live.quote.as_ref().is_some_and(|quote| quote.kind == QuoteKind::Priced)))
}
