//! Intents: officers read and approve them, stations claim them and hand in signatures.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use sqlx::PgConnection;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::problem::Problem;
use super::tagged::tagged;
use super::wire::{AccountView, ApproveIntent, ClaimIntent, DeclineIntent, IntentView, SigningQueue, SubmitSignature, VoidIntent};
use crate::broadcast::store::StationClaim;
use crate::chains::ChainBook;
use crate::intent::{self, Intent, IntentState};
use crate::officer::{Caller, Scope};
use crate::units::{IntentId, format_units};
use crate::{account, approval, broadcast};

const INTENTS_MAX: i64 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Filter {
    /// Comma-separated states; all open ones by default.
    #[serde(default)]
    state: Option<String>,
}

/// Intents that still want something done.
const OPEN: [IntentState; 7] = [
    IntentState::Planned,
    IntentState::Approved,
    IntentState::Signing,
    IntentState::Signed,
    IntentState::Broadcast,
    IntentState::Uncertain,
    IntentState::Mined,
];

/// Intents
#[utoipa::path(
    get, path = "/v1/intents", tag = "intents",
    params(Filter),
    responses((status = 200, body = Vec<IntentView>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(filter): Query<Filter>,
) -> Result<axum::Json<Vec<IntentView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let states = match &filter.state {
        None => OPEN.to_vec(),
        Some(text) => text.split(',').map(read_state).collect::<Result<Vec<_>, _>>()?,
    };
    let mut connection = state.db.connection().await?;
    let found = intent::store::list(&mut connection, &states, INTENTS_MAX).await?;
    Ok(axum::Json(views(&mut connection, &found, &state.book).await?))
}

fn read_state(text: &str) -> Result<IntentState, Problem> {
    IntentState::ALL.into_iter().find(|state| state.name() == text).ok_or_else(|| {
        let known: Vec<&str> = IntentState::ALL.iter().map(|state| state.name()).collect();
        Problem::field("state", text.chars().take(40).collect::<String>(), format!("is none of {}", known.join(", ")))
    })
}

/// One intent
#[utoipa::path(
    get, path = "/v1/intents/{id}", tag = "intents",
    responses((status = 200, body = IntentView), (status = 304), (status = 404, description = "not_found")),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn get(
    State(state): State<ApiState>,
    who: Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let found = intent::store::get(&mut connection, intent_id(&id)?).await?;
    let intent = view(&mut connection, &found, &state.book).await?;
    tagged(&headers, intent.state_version, &intent)
}

/// Approve an intent
#[utoipa::path(
    post, path = "/v1/intents/{id}/approvals", tag = "intents",
    request_body = ApproveIntent,
    responses(
        (status = 201, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "stale_digest, already_approved, intent_state")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn approve(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<ApproveIntent>(&caller, format!("POST /v1/intents/{id}/approvals"))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let standing = approval::store::insert(connection, id, asked.digest, &caller).await?;
                tracing::info!(intent.id = %id, officer = %caller.name(), approvals = standing.approvals, "intent approved");
                view(connection, &standing.intent, &book).await
            })
        })
        .await
}

/// Claim an intent for a station
#[utoipa::path(
    post, path = "/v1/intents/{id}/claim", tag = "signing",
    request_body = ClaimIntent,
    responses(
        (status = 200, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "intent_state, other_station, outflow_halted, only_credited")
    ),
    security(("token" = ["signing"]))
)]
pub(super) async fn claim(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::Signing)?;
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<ClaimIntent>(caller, format!("POST /v1/intents/{id}/claim"))?;
    if !(1..=100).contains(&asked.station.chars().count()) {
        return Err(Problem::field("station", asked.station.chars().take(100).collect::<String>(), "must have 1 to 100 characters"));
    }
    let claim = StationClaim { station: station_name(caller, &asked.station), take_over: asked.take_over };
    let book = state.book.clone();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let intent = broadcast::store::claim(connection, id, &claim).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

/// Hand in a signature
#[utoipa::path(
    post, path = "/v1/intents/{id}/signature", tag = "signing",
    request_body = SubmitSignature,
    responses(
        (status = 201, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "intent_state, outflow_halted, only_credited")
    ),
    security(("token" = ["signing"]))
)]
pub(super) async fn submit_signature(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::Signing)?;
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<SubmitSignature>(caller, format!("POST /v1/intents/{id}/signature"))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let outbound = broadcast::store::insert_signed(connection, &book, id, &asked.raw).await?;
                tracing::info!(intent.id = %id, tx.hash = %outbound.tx_hash, "signature accepted");
                let intent = intent::store::get(connection, id).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

/// Give a claimed intent back
#[utoipa::path(
    post, path = "/v1/intents/{id}/decline", tag = "signing",
    request_body = DeclineIntent,
    responses(
        (status = 200, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "intent_state, other_station")
    ),
    security(("token" = ["signing"]))
)]
pub(super) async fn decline(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require(Scope::Signing)?;
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<DeclineIntent>(caller, format!("POST /v1/intents/{id}/decline"))?;
    let station = station_name(caller, &asked.station);
    let book = state.book.clone();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let reason: String = asked.reason.chars().take(500).collect();
                let intent = broadcast::store::decline(connection, id, &station, &reason).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

/// An officer gives an intent up before anybody signed it.
#[utoipa::path(
    post, path = "/v1/intents/{id}/void", tag = "intents",
    request_body = VoidIntent,
    responses(
        (status = 200, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "intent_state, may_be_signed")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn void(State(state): State<ApiState>, Path(id): Path<String>, call: Writing) -> Result<Response, Problem> {
    let (caller, _) = call.who.require_officer(Scope::IntentsApprove)?;
    let id = intent_id(&id)?;
    let (write, asked) = call.read::<VoidIntent>(caller, format!("POST /v1/intents/{id}/void"))?;
    if !(1..=500).contains(&asked.reason.chars().count()) {
        return Err(Problem::field("reason", asked.reason.chars().take(100).collect::<String>(), "must have 1 to 500 characters"));
    }
    let by = caller.name();
    let book = state.book.clone();
    write
        .once(&state, StatusCode::OK, move |connection| {
            Box::pin(async move {
                let intent = intent::void(connection, id, &by, &asked.reason).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

/// A station is its name and its token: another token cannot speak for it.
fn station_name(caller: &Caller, name: &str) -> String {
    format!("{} ({})", name.chars().take(100).collect::<String>(), caller.token_id)
}

/// What a station may sign now, and the accounts its device must hold.
#[utoipa::path(
    get, path = "/v1/signing-queue", tag = "signing",
    responses((status = 200, body = SigningQueue)),
    security(("token" = ["signing"]))
)]
pub(super) async fn signing_queue(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<SigningQueue>, Problem> {
    who.require(Scope::Signing)?;
    let mut connection = state.db.connection().await?;
    let found = intent::store::list(&mut connection, &[IntentState::Approved, IntentState::Signing], INTENTS_MAX).await?;
    let intents = views(&mut connection, &found, &state.book).await?;
    let accounts = account::store::list(&mut connection)
        .await?
        .into_iter()
        .map(|account| AccountView {
            label: account.label,
            path: format!("m/44'/60'/{}'", account.xpub.account()),
            fingerprint: account.xpub.fingerprint().to_string(),
            xpub: account.xpub.expose().to_owned(),
        })
        .collect();
    Ok(axum::Json(SigningQueue { accounts, intents }))
}

pub(super) fn intent_id(text: &str) -> Result<IntentId, Problem> {
    text.parse().map_err(|_| Problem::not_found(format!("no intent {:?}", text.chars().take(64).collect::<String>())))
}

async fn views(connection: &mut PgConnection, intents: &[Intent], book: &ChainBook) -> Result<Vec<IntentView>, Problem> {
    let mut found = Vec::with_capacity(intents.len());
    for intent in intents {
        found.push(view(connection, intent, book).await?);
    }
    Ok(found)
}

pub(super) async fn view(connection: &mut PgConnection, intent: &Intent, book: &ChainBook) -> Result<IntentView, Problem> {
    let facts = book
        .asset(intent.amount.asset)
        .ok_or_else(|| Problem::unavailable(format!("{} is no longer listed in chains.toml", intent.amount.asset)))?;
    let to_path = match account::store::find_address_id(connection, intent.to).await? {
        Some(id) => Some(account::store::get_address(connection, id).await?.path.to_string()),
        None => None,
    };
    let approvals = approval::store::count(connection, intent).await?;
    let tx_hash = broadcast::store::find_by_intent(connection, intent.id).await?.map(|outbound| outbound.tx_hash);
    Ok(IntentView {
        id: intent.id,
        kind: intent.kind.name().to_owned(),
        state: intent.state.name().to_owned(),
        state_version: intent.state_version,
        revision: intent.revision,
        chain_id: intent.chain().get(),
        from_path: intent.from.path.to_string(),
        from_address: intent.from.address,
        to_address: intent.to,
        to_path,
        asset: intent.amount.asset.asset.to_string(),
        symbol: facts.symbol.to_owned(),
        amount: format_units(intent.amount.units, facts.decimals),
        amount_units: intent.amount.units.to_string(),
        nonce: intent.nonce,
        gas_limit: intent.fees.gas_limit,
        max_fee_per_gas: intent.fees.max_fee_per_gas.to_string(),
        max_priority_fee_per_gas: intent.fees.max_priority_fee_per_gas.to_string(),
        payment_id: intent.payment,
        destination_id: intent.destination,
        digest: intent.digest,
        approvals,
        approvals_required: intent.approvals_required,
        approvals_expire_minutes: intent.approvals_expire_minutes,
        policy_id: intent.policy.map(|policy| policy.0),
        revised_by: intent.revised_by.clone(),
        cancels: intent.cancels,
        tx_hash,
    })
}
