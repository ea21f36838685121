//! What is stuck: higher fees, and cancels. Officers' acts; both are approved and signed like anything else.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::ApiState;
use super::idempotency::Writing;
use super::intents::{intent_id, view};
use super::problem::Problem;
use super::wire::{CancelIntent, IntentView, ReplaceIntent};
use crate::broadcast::replace::store::CancelAsked;
use crate::broadcast::replace::{CANCEL_GAS, Offer, store};
use crate::intent::{self, FeeTerms, Intent};
use crate::officer::Scope;
use crate::rpc::CallRequest;
use crate::units::IntentId;

/// Ask for higher fees
#[utoipa::path(
    post, path = "/v1/intents/{id}/replacement", tag = "intents",
    request_body = ReplaceIntent,
    responses(
        (status = 201, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "not_replaceable, nonce_used, cannot_pay, fees, being_cancelled, outflow_halted")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn replace(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<ReplaceIntent>(&caller, format!("POST /v1/intents/{id}/replacement"))?;
    let fees = read_fees(asked.max_fee_per_gas.as_deref(), asked.max_priority_fee_per_gas.as_deref())?;
    let intent = find(&state, id).await?;
    let offer = offer(&state, &intent, fees).await?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let intent = store::raise_fees(connection, id, offer, &caller.name()).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

/// Ask for a cancel
#[utoipa::path(
    post, path = "/v1/intents/{id}/cancel", tag = "intents",
    request_body = CancelIntent,
    responses(
        (status = 201, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "not_replaceable, nonce_used, cannot_pay, fees, being_cancelled, outflow_halted")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn cancel(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<CancelIntent>(&caller, format!("POST /v1/intents/{id}/cancel"))?;
    if !(1..=500).contains(&asked.reason.chars().count()) {
        return Err(Problem::field("reason", asked.reason.chars().take(100).collect::<String>(), "must have 1 to 500 characters"));
    }
    let fees = read_fees(asked.max_fee_per_gas.as_deref(), asked.max_priority_fee_per_gas.as_deref())?;
    let intent = find(&state, id).await?;
    let offer = offer(&state, &intent, fees).await?;
    let gas_limit = cancel_gas(&state, &intent).await?;
    let asked = CancelAsked { id: IntentId(Uuid::now_v7()), offer, gas_limit, by: caller.name(), reason: asked.reason };
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let cancel = store::cancel(connection, id, &asked).await?;
                view(connection, &cancel, &book).await
            })
        })
        .await
}

fn read_fees(max: Option<&str>, priority: Option<&str>) -> Result<Option<(u128, u128)>, Problem> {
    let wei = |field: &str, text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = if digits { text.parse::<u128>().ok() } else { None };
        parsed.ok_or_else(|| Problem::field(field, text.chars().take(60).collect::<String>(), "use wei per gas, a whole number"))
    };
    match (max, priority) {
        (None, None) => Ok(None),
        (Some(max), Some(priority)) => Ok(Some((wei("max_fee_per_gas", max)?, wei("max_priority_fee_per_gas", priority)?))),
        (Some(_), None) => Err(Problem::field("max_priority_fee_per_gas", "", "name both fees or neither")),
        (None, Some(_)) => Err(Problem::field("max_fee_per_gas", "", "name both fees or neither")),
    }
}

async fn find(state: &ApiState, id: IntentId) -> Result<Intent, Problem> {
    let mut connection = state.db.connection().await?;
    Ok(intent::store::get(&mut connection, id).await?)
}

async fn offer(state: &ApiState, intent: &Intent, asked: Option<(u128, u128)>) -> Result<Offer, Problem> {
    let chain = intent.chain();
    let (Some(node), Some(spec)) = (state.nodes.get(&chain), state.book.get(chain)) else {
        return Err(Problem::unavailable(format!("chain {chain} is not configured")));
    };
    let fees = node.fees().await.map_err(|error| Problem::unavailable(format!("fees cannot be read: {error}")))?;
    let max_fee_per_gas = fees.base_fee.saturating_mul(2).saturating_add(fees.priority).max(1);
    let market =
        FeeTerms { gas_limit: intent.fees.gas_limit, max_fee_per_gas, max_priority_fee_per_gas: fees.priority.min(max_fee_per_gas) };
    Ok(Offer { market, cap: spec.fee_cap(state.max_fee_per_gas_max), asked })
}

/// A quarter more than the node wants for a transfer of nothing; rollups count their data into gas.
async fn cancel_gas(state: &ApiState, intent: &Intent) -> Result<u64, Problem> {
    let Some(node) = state.nodes.get(&intent.chain()) else { return Ok(CANCEL_GAS) };
    let own = intent.from.address;
    let call = CallRequest { from: own, to: own, value: Default::default(), data: Default::default() };
    let estimate = node.estimate_gas(&call).await.map_err(|error| Problem::unavailable(format!("gas cannot be estimated: {error}")))?;
    Ok(if estimate <= CANCEL_GAS { CANCEL_GAS } else { estimate.saturating_add(estimate / 4).min(1_500_000) })
}
