//! What a restored database has forgotten: nonces that the chain used and nothing here is signed for, taking in the
//! transactions that used them, and where an address's past ends.

use alloy::primitives::{B256, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::intents::view;
use super::policies::proposal_view;
use super::problem::Problem;
use super::thresholds::{chain_of, shorten};
use super::wire::{AdoptTransaction, ForeignNonceView, IntentView, ProposalView, ProposeBaseline};
use crate::broadcast::adopt::store::{self, AdoptAsked};
use crate::broadcast::{AdoptError, BroadcastError, inclusion_of};
use crate::intent::baseline;
use crate::officer::Scope;
use crate::rpc::Node;
use crate::signing::SignedTransfer;
use crate::units::{ChainId, IntentId, parse_address};

const LIST_MAX: i64 = 500;

/// Nonces used by what is not known here
///
/// Nothing is planned from such an address until the transaction is adopted, or two officers have raised the
/// address's baseline above it.
#[utoipa::path(
    get, path = "/v1/nonces/foreign", tag = "intents",
    responses((status = 200, body = Vec<ForeignNonceView>)),
    security(("token" = ["intents:read"]))
)]
pub(super) async fn foreign(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<ForeignNonceView>>, Problem> {
    who.require(Scope::IntentsRead)?;
    let mut connection = state.db.connection().await?;
    let rows = baseline::store::list_foreign(&mut connection, LIST_MAX).await?;
    let views = rows.into_iter().map(|row| ForeignNonceView {
        chain_id: row.chain.get(),
        address: row.address,
        nonce: row.nonce,
        baseline: row.baseline,
        seen_at: row.seen_at,
    });
    Ok(axum::Json(views.collect()))
}

/// Propose a nonce baseline
///
/// Says that an address's nonces below this one are past: used before it was watched, or looked into. Another
/// officer confirms it.
#[utoipa::path(
    post, path = "/v1/nonces/baselines", tag = "policy",
    request_body = ProposeBaseline,
    responses((status = 201, body = ProposalView), (status = 404, description = "not_found"), (status = 409, description = "baseline")),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn propose_baseline(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let (write, asked) = call.read::<ProposeBaseline>(&caller, "POST /v1/nonces/baselines".to_owned())?;
    let chain = chain_of(&state.book, &asked.chain_id.to_string())?.id;
    let address = parse_address(&asked.address).map_err(|error| Problem::field("address", shorten(&asked.address), error.to_string()))?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let proposal = baseline::store::propose(connection, chain, address, asked.nonce, asked.reason, &caller).await?;
                Ok(proposal_view(&proposal, &book))
            })
        })
        .await
}

/// Adopt a transaction
///
/// Takes into the books a transaction that one of our addresses signed and that this database does not know, as after
/// a restore from a backup. It must be in a block; what it pays decides which sweep, fuel, order or cancel it is.
#[utoipa::path(
    post, path = "/v1/intents/adopted", tag = "intents",
    request_body = AdoptTransaction,
    responses(
        (status = 201, body = IntentView),
        (status = 404, description = "not_found"),
        (status = 409, description = "not_adoptable")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn adopt(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let (write, asked) = call.read::<AdoptTransaction>(&caller, "POST /v1/intents/adopted".to_owned())?;
    let chain = chain_of(&state.book, &asked.chain_id.to_string())?.id;
    if !(1..=500).contains(&asked.reason.chars().count()) {
        return Err(Problem::field("reason", shorten(&asked.reason), "must have 1 to 500 characters"));
    }
    let Some(node) = state.nodes.get(&chain) else {
        return Err(Problem::field("chain_id", chain.to_string(), "is not a chain that this daemon watches"));
    };
    let raw = raw_of(node, asked.tx_hash, asked.raw).await?;
    let signed = read(chain, asked.tx_hash, &raw).map_err(|source| not_adopted(asked.tx_hash, source))?;
    let receipt = node.receipt(asked.tx_hash).await.map_err(|error| Problem::unavailable(format!("the chain cannot be read: {error}")))?;
    let Some(receipt) = receipt else { return Err(not_adopted(asked.tx_hash, AdoptError::NotMined).into()) };
    let inclusion = inclusion_of(&receipt).ok_or(BroadcastError::NoGasPrice { tx_hash: asked.tx_hash })?;
    let (id, by, reason) = (IntentId(Uuid::now_v7()), caller.name(), asked.reason);
    let adopted = AdoptAsked { id, signed, raw, inclusion, payout: asked.payout_id, by, reason };
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let intent = store::adopt(connection, &book, &adopted).await?;
                view(connection, &intent, &book).await
            })
        })
        .await
}

fn not_adopted(tx_hash: B256, source: AdoptError) -> BroadcastError {
    BroadcastError::Adopt { tx_hash, source: Box::new(source) }
}

/// The bytes that the caller brings, or those that the node has.
async fn raw_of(node: &Node, tx_hash: B256, given: Option<Bytes>) -> Result<Bytes, Problem> {
    if let Some(raw) = given {
        return Ok(raw);
    }
    let found = node.raw_transaction(tx_hash).await.map_err(|error| {
        Problem::field("raw", "", format!("the node does not give the signed bytes ({error}); send them along: explorers show them"))
    })?;
    found.ok_or_else(|| Problem::not_found(format!("no endpoint knows transaction {tx_hash}")))
}

fn read(chain: ChainId, tx_hash: B256, raw: &[u8]) -> Result<SignedTransfer, AdoptError> {
    let signed = SignedTransfer::read(raw).map_err(|error| AdoptError::NoTransfer(error.to_string()))?;
    if signed.hash != tx_hash {
        return Err(AdoptError::OtherBytes { found: signed.hash });
    }
    if signed.chain != chain {
        return Err(AdoptError::OtherChain { found: signed.chain, asked: chain });
    }
    Ok(signed)
}
