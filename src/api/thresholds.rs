//! Thresholds of a chain's two gates: what is in force, what is coming, what was, and officers' changes.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::policies;
use super::problem::Problem;
use super::wire::{SetThreshold, ThresholdOutcome, ThresholdView, ThresholdsView};
use crate::chains::{ChainBook, ChainSpec};
use crate::officer::Scope;
use crate::settings::{self, Change, ChangeNote, Gate, NewChange, Outcome, ThresholdKey, Tier};
use crate::units::{AssetId, Confirmations, format_units, parse_units};

/// Thresholds in force and coming
#[utoipa::path(
    get, path = "/v1/chains/{chain}/thresholds", tag = "thresholds",
    responses((status = 200, body = Vec<ThresholdsView>), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(chain): Path<String>,
) -> Result<axum::Json<Vec<ThresholdsView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let spec = chain_of(&state.book, &chain)?;
    let mut connection = state.db.connection().await?;
    let mut gates = Vec::new();
    for gate in Gate::ALL {
        let history = settings::store::get_history(&mut connection, gate, spec.id).await?;
        let present = history.present((state.clock)());
        let views = |changes: Vec<&Change>| changes.into_iter().map(|change| view(change, &state.book)).collect();
        gates.push(ThresholdsView {
            gate: gate.name().to_owned(),
            in_force: views(history.standing(present)),
            coming: views(history.coming(present)),
        });
    }
    Ok(axum::Json(gates))
}

/// Every change of both gates, newest first.
#[utoipa::path(
    get, path = "/v1/chains/{chain}/thresholds/history", tag = "thresholds",
    responses((status = 200, body = Vec<ThresholdView>), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn history(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(chain): Path<String>,
) -> Result<axum::Json<Vec<ThresholdView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let spec = chain_of(&state.book, &chain)?;
    let mut connection = state.db.connection().await?;
    let mut views = Vec::new();
    for gate in Gate::ALL {
        let history = settings::store::get_history(&mut connection, gate, spec.id).await?;
        views.extend(history.newest_first().map(|change| view(change, &state.book)));
    }
    views.sort_by_key(|view| std::cmp::Reverse(view.history_id));
    Ok(axum::Json(views))
}

/// Change a threshold
///
/// A lower one is proposed: another officer confirms it, and it takes a day.
#[utoipa::path(
    post, path = "/v1/chains/{chain}/thresholds", tag = "thresholds",
    request_body = SetThreshold,
    responses((status = 201, body = ThresholdOutcome), (status = 404, description = "not_found"), (status = 409, description = "no_base")),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn set(State(state): State<ApiState>, Path(chain): Path<String>, call: Writing) -> Result<Response, Problem> {
    let (caller, user) = call.who.require_officer(Scope::IntentsApprove)?;
    let caller = caller.clone();
    let spec = chain_of(&state.book, &chain)?;
    let (write, asked) = call.read::<SetThreshold>(&caller, format!("POST /v1/chains/{}/thresholds", spec.id))?;
    let change = read(asked, spec, ChangeNote { changed_by: caller.name(), user: Some(user), reason: String::new() })?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let change = match settings::store::change(connection, &change, &caller).await? {
                    Outcome::Set(change) => change,
                    // Lower: another officer confirms it, and then it takes a day.
                    Outcome::Proposed(proposal) => {
                        return Ok(ThresholdOutcome::Proposed { proposal: Box::new(policies::proposal_view(&proposal, &book)) });
                    }
                };
                tracing::info!(
                    chain.id = change.key.chain.get(),
                    gate = change.key.gate.name(),
                    by = change.changed_by,
                    row = change.id,
                    "threshold changed"
                );
                Ok(ThresholdOutcome::Set(Box::new(view(&change, &book))))
            })
        })
        .await
}

/// What was asked for; a refusal names the field, what it said, and what would do.
fn read(asked: SetThreshold, spec: &ChainSpec, note: ChangeNote) -> Result<NewChange, Problem> {
    let gate: Gate = asked.gate.parse().map_err(|_| Problem::field("gate", shorten(&asked.gate), "use credit or release"))?;
    let tier = match (&asked.asset, &asked.from_amount) {
        (None, None) => None,
        (Some(_), None) => return Err(Problem::field("from_amount", "", "a tier needs asset and from_amount; name both or neither")),
        (None, Some(amount)) => return Err(Problem::field("asset", "", format!("which asset is {amount} of? name its symbol"))),
        (Some(symbol), Some(amount)) => {
            let (asset, facts) = spec.find_asset(symbol).ok_or_else(|| {
                let known = spec.symbols().join(", ");
                Problem::field("asset", shorten(symbol), format!("is not listed for {}; use one of {known}", spec.name))
            })?;
            let bad = |problem: String| Problem::field("from_amount", shorten(amount), problem);
            let units = parse_units(amount, facts.decimals).map_err(|error| bad(error.to_string()))?;
            Some(Tier::new(asset.asset, units).map_err(|error| bad(error.to_string()))?)
        }
    };
    let blocks = asked.blocks.map(Confirmations::new).transpose();
    let blocks = blocks.map_err(|error| Problem::field("blocks", error.blocks.to_string(), "use 1 to 10000"))?;
    if blocks.is_none() && tier.is_none() {
        return Err(Problem::field("blocks", "null", "use 1 to 10000; only a tier can be switched off, by leaving blocks out"));
    }
    let key = ThresholdKey { gate, chain: spec.id, tier };
    Ok(NewChange { key, blocks, effective_at: asked.effective_at, note: ChangeNote { reason: asked.reason, ..note } })
}

pub(super) fn chain_of<'a>(book: &'a ChainBook, text: &str) -> Result<&'a ChainSpec, Problem> {
    let chain = text.parse().ok().and_then(|chain| book.get(chain));
    chain.ok_or_else(|| Problem::not_found(format!("no chain {:?} in chains.toml", shorten(text))))
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(100).collect()
}

pub(super) fn view(change: &Change, book: &ChainBook) -> ThresholdView {
    let tier = change.key.tier.map(|tier| {
        let asset = AssetId { chain: change.key.chain, asset: tier.asset };
        match book.asset(asset) {
            Some(facts) => (facts.symbol.to_owned(), format_units(tier.from_units(), facts.decimals), tier.from_units()),
            None => (tier.asset.to_string(), tier.from_units().to_string(), tier.from_units()),
        }
    });
    ThresholdView {
        history_id: change.id,
        gate: change.key.gate.name().to_owned(),
        key: change.key.to_string(),
        asset: tier.as_ref().map(|(symbol, ..)| symbol.clone()),
        from_amount: tier.as_ref().map(|(_, amount, _)| amount.clone()),
        from_units: tier.as_ref().map(|(_, _, units)| units.to_string()),
        old_blocks: change.old_blocks.map(Confirmations::get),
        blocks: change.blocks.map(Confirmations::get),
        effective_at: change.effective_at,
        created_at: change.created_at,
        changed_by: change.changed_by.clone(),
        reason: change.reason.clone(),
    }
}
