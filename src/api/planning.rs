//! Planning: what the queue takes, each way, and the numbers that outflows are planned by.

use alloy::primitives::U256;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::policies::proposal_view;
use super::problem::Problem;
use super::thresholds::{chain_of, shorten};
use super::wire::{PlanView, PlanWayView, PlanningNumberView, ProposalView, ProposePlanning, TallyView};
use crate::chains::{ChainBook, ChainSpec, ReleasePath};
use crate::intent::economy::{self, EconomyChange, EconomyError, EconomyKey, SPECS};
use crate::intent::forecast::{self, Look, Tally};
use crate::officer::Scope;
use crate::settings::NumberChange;
use crate::units::{AssetId, format_units, parse_units};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// One chain; all watched ones by default.
    #[serde(default)]
    chain_id: Option<u64>,
}

/// What the queue takes
///
/// Confirmations on the device and fees, with and without each way of having fewer.
#[utoipa::path(
    get, path = "/v1/plan", tag = "planning",
    params(Which),
    responses((status = 200, body = Vec<PlanView>), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn plan(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(which): Query<Which>,
) -> Result<axum::Json<Vec<PlanView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let chains = match which.chain_id {
        None => state.watched(),
        Some(id) => vec![chain_of(&state.book, &id.to_string())?.id],
    };
    let mut views = Vec::with_capacity(chains.len());
    for chain in chains {
        let (Some(node), Some(spec)) = (state.nodes.get(&chain), state.book.get(chain)) else {
            return Err(Problem::not_found(format!("chain {chain} is not watched")));
        };
        let look = forecast::look(&state.db, node, spec).await;
        views.push(plan_view(spec, &look.map_err(|error| Problem::unavailable(format!("chain {chain} cannot be looked at: {error}")))?));
    }
    Ok(axum::Json(views))
}

/// A forecast as it is sent, and as the console and the command line show it.
pub fn plan_view(spec: &ChainSpec, look: &Look) -> PlanView {
    let Look { forecast, gas_price } = look;
    let tally = |tally: &Tally| TallyView {
        confirmations: tally.confirmations,
        presses: tally.presses,
        transactions: tally.transactions,
        gas: tally.gas,
        fee_units: tally.fee_units.to_string(),
        fee: coin(spec, tally.fee_units),
        fuel_units: tally.fuel_units.to_string(),
        fuel: coin(spec, tally.fuel_units),
    };
    PlanView {
        chain_id: spec.id.get(),
        name: spec.name.clone(),
        native_symbol: spec.native.symbol.clone(),
        gas_price_wei: gas_price.to_string(),
        payments: forecast.payments,
        orders: forecast.orders,
        waiting: forecast.waiting,
        dust: forecast.dust,
        standing: tally(&forecast.standing),
        ways: forecast
            .outlooks
            .iter()
            .map(|outlook| PlanWayView {
                name: outlook.ways.to_string(),
                direct: outlook.ways.direct,
                disperse: outlook.ways.disperse,
                authorized: outlook.ways.authorized,
                tally: tally(&outlook.tally),
            })
            .collect(),
    }
}

fn coin(spec: &ChainSpec, units: U256) -> String {
    format_units(units, spec.native.decimals)
}

/// Numbers in force
///
/// What outflows of a chain are planned by: from where releases are paid, when deposits are swept, how much fuel.
#[utoipa::path(
    get, path = "/v1/chains/{chain}/planning", tag = "planning",
    responses((status = 200, body = Vec<PlanningNumberView>), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn numbers(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(chain): Path<String>,
) -> Result<axum::Json<Vec<PlanningNumberView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let spec = chain_of(&state.book, &chain)?;
    let mut connection = state.db.connection().await?;
    let book = economy::store::get_book(&mut connection).await?;
    let now = crate::officer::proposal::store::clock(&mut connection).await?;
    let standing = book.standing(spec, now);
    Ok(axum::Json(standing.into_iter().map(|(key, value, change)| number_view(&key, value, change, &state.book)).collect()))
}

/// Every change of a chain's numbers, newest first.
#[utoipa::path(
    get, path = "/v1/chains/{chain}/planning/history", tag = "planning",
    responses((status = 200, body = Vec<PlanningNumberView>), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn history(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(chain): Path<String>,
) -> Result<axum::Json<Vec<PlanningNumberView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let spec = chain_of(&state.book, &chain)?;
    let book = economy::store::get_book(&mut *state.db.connection().await?).await?;
    let rows = book.newest_first().filter(|(key, _)| key.chain == spec.id);
    Ok(axum::Json(rows.map(|(key, change)| number_view(key, change.value, Some(change), &state.book)).collect()))
}

/// Propose a number
///
/// Another officer confirms it; then it counts at once, or when it was dated.
#[utoipa::path(
    post, path = "/v1/chains/{chain}/planning", tag = "planning",
    request_body = ProposePlanning,
    responses((status = 201, body = ProposalView), (status = 404, description = "not_found")),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn propose(State(state): State<ApiState>, Path(chain): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let spec = chain_of(&state.book, &chain)?;
    let (write, asked) = call.read::<ProposePlanning>(&caller, format!("POST /v1/chains/{}/planning", spec.id))?;
    let change = read(&asked, spec)?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let proposal = economy::store::propose(connection, change, asked.effective_at, &asked.reason, &caller).await?;
                Ok(proposal_view(&proposal, &book))
            })
        })
        .await
}

/// What was asked for; a refusal names the field, what it said, and what would do.
fn read(asked: &ProposePlanning, spec: &ChainSpec) -> Result<EconomyChange, Problem> {
    let found = asked.asset.as_deref().map(|symbol| {
        let missing = || Problem::field("asset", shorten(symbol), format!("use one of {}", spec.symbols().join(", ")));
        spec.find_asset(symbol).ok_or_else(missing)
    });
    let asset = found.transpose()?.map(|(asset, _)| asset.asset);
    let key = EconomyKey::new(&asked.name, spec.id, asset).map_err(|error| match error {
        EconomyError::Unknown(_) => {
            Problem::field("name", shorten(&asked.name), format!("use one of {}", SPECS.map(|spec| spec.name).join(", ")))
        }
        EconomyError::NeedsAsset(_) | EconomyError::NoAsset(_) | EconomyError::Bounds { .. } => {
            Problem::field("asset", asked.asset.clone().unwrap_or_default(), error.to_string())
        }
    })?;
    let bad = |problem: String| Problem::field("value", shorten(&asked.value), problem);
    let value = match key.spec().name {
        "release_path" => {
            let path = ReleasePath::ALL.into_iter().find(|path| path.name() == asked.value);
            path.map(ReleasePath::number).ok_or_else(|| bad("use auto, direct or treasury".to_owned()))?
        }
        // Amounts are written as people write them.
        _ if key.spec().per_asset => {
            let millionths = parse_units(&asked.value, 6).map_err(|error| bad(error.to_string()))?;
            i64::try_from(millionths).map_err(|_| bad("is too large".to_owned()))?
        }
        _ => asked.value.parse().map_err(|_| bad("use a whole number".to_owned()))?,
    };
    key.check(value).map_err(|error| bad(error.to_string()))?;
    Ok(EconomyChange { key, value })
}

fn number_view(key: &EconomyKey, value: i64, change: Option<&NumberChange>, book: &ChainBook) -> PlanningNumberView {
    let symbol = key.asset.map(|asset| {
        let known = book.asset(AssetId { chain: key.chain, asset });
        known.map_or_else(|| asset.to_string(), |facts| facts.symbol.to_owned())
    });
    let shown = match key.spec().name {
        "release_path" => ReleasePath::from_number(value).map_or_else(|| value.to_string(), |path| path.name().to_owned()),
        _ if key.spec().per_asset => format_units(U256::from(value.unsigned_abs()), 6),
        _ => value.to_string(),
    };
    PlanningNumberView {
        key: key.to_string(),
        name: key.spec().name.to_owned(),
        asset: symbol,
        value: shown,
        help: key.spec().help.to_owned(),
        history_id: change.map(|change| change.id),
        effective_at: change.map(|change| change.effective_at),
        changed_by: change.map(|change| change.changed_by.clone()),
        reason: change.map(|change| change.reason.clone()),
    }
}
