//! What is held where: accounts, destinations, transfers seen, balances. Reads only.

use alloy::primitives::Address;
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::ApiState;
use super::auth::Authenticated;
use super::ledger::Shown;
use super::payments::{Page, payment_id};
use super::problem::Problem;
use super::schema::TransferStateText;
use super::wire::{BalanceView, DestinationView, EnrolledAccount, ObservedTransfer, TransferPage};
use crate::account::Branch;
use crate::chains::ChainBook;
use crate::confirm::store::TransferProgress;
use crate::officer::Scope;
use crate::units::{AssetId, ChainId};
use crate::{account, confirm, deposit, ledger, payment};

/// Enrolled accounts
///
/// In the order in which they are used. The xpub is not among it.
#[utoipa::path(
    get, path = "/v1/accounts", tag = "accounts",
    responses((status = 200, body = Vec<EnrolledAccount>)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn accounts(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<EnrolledAccount>>, Problem> {
    who.require(Scope::LedgerRead)?;
    let mut connection = state.db.connection().await?;
    let fingerprints = account::store::list(&mut connection).await?;
    let counters = account::store::list_counters(&mut connection).await?;
    let views = counters.into_iter().filter_map(|counter| {
        // Enrolled between the two reads: shown next time.
        let account = fingerprints.iter().find(|account| account.id == counter.id)?;
        Some(EnrolledAccount {
            path: format!("m/44'/60'/{}'", counter.account),
            fingerprint: account.fingerprint.to_string(),
            issued: counter.issued(Branch::Deposit),
            remaining: counter.remaining(),
            label: counter.label,
        })
    });
    Ok(axum::Json(views.collect()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DestinationsAsked {
    /// The payment.
    payment: String,
}

/// Addresses of a payment
#[utoipa::path(
    get, path = "/v1/destinations", tag = "accounts",
    params(DestinationsAsked),
    responses((status = 200, body = Vec<DestinationView>), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn destinations(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<DestinationsAsked>,
) -> Result<axum::Json<Vec<DestinationView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let id = payment_id(&asked.payment)?;
    let mut connection = state.db.connection().await?;
    payment::store::find(&mut connection, id).await?.ok_or_else(|| Problem::not_found(format!("no payment {id}")))?;
    let destination = deposit::store::get_by_payment(&mut connection, id).await?;
    let address = account::store::get_address(&mut connection, destination.derived_address).await?;
    Ok(axum::Json(vec![DestinationView {
        id: destination.id,
        payment_id: id,
        chain_id: destination.chain.get(),
        address: destination.address,
        path: address.path.to_string(),
        status: destination.status.name().to_owned(),
        birth_block: destination.birth_block.0,
    }]))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct TransfersAsked {
    /// An address of ours.
    #[param(pattern = "^0x[0-9a-fA-F]{40}$")]
    address: String,
    /// Of one chain; of all without it.
    #[serde(default)]
    chain: Option<u64>,
    /// `waiting`, `confirmed` or `orphaned`; all without it.
    #[serde(default)]
    #[param(value_type = Option<TransferStateText>, inline)]
    state: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 200; 50 without it.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// Transfers seen at an address
///
/// Each with how far it is: blocks on it, blocks it needs, and whether its money may leave. A transfer that a reorg
/// moved is seen once in each block.
#[utoipa::path(
    get, path = "/v1/transfers", tag = "accounts",
    params(TransfersAsked),
    responses((status = 200, body = TransferPage), (status = 404, description = "not_found")),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn transfers(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<TransfersAsked>,
) -> Result<axum::Json<TransferPage>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let page = Page { cursor: asked.cursor, limit: asked.limit };
    let limit = usize::try_from(page.limit()?).unwrap_or(0);
    let after = page.number()?.unwrap_or(0);
    let shown: String = asked.address.chars().take(100).collect();
    let address: Address = asked.address.parse().map_err(|_| Problem::field("address", shown, "use 0x and 40 hex digits"))?;
    let chain = asked.chain.map(|chain| ChainId::new(chain).ok_or_else(|| Problem::field("chain", chain.to_string(), "is no chain")));
    let chain = chain.transpose()?;
    if let Some(other) = asked.state.as_deref().filter(|state| !["waiting", "confirmed", "orphaned"].contains(state)) {
        let shown: String = other.chars().take(40).collect();
        return Err(Problem::field("state", shown, "use waiting, confirmed or orphaned"));
    }
    let mut connection = state.db.connection().await?;
    let id: Option<Uuid> = account::store::find_address_id(&mut connection, address).await?;
    let id = id.ok_or_else(|| Problem::not_found(format!("{address} is no address of ours")))?;
    let mut seen = confirm::store::get_progress(&mut connection, id).await?;
    seen.retain(|row| {
        row.observation > after
            && chain.is_none_or(|chain| row.chain == chain)
            && asked.state.as_deref().is_none_or(|state| row.state.name() == state)
    });
    seen.sort_by_key(|row| row.observation);
    let more = seen.len() > limit;
    seen.truncate(limit);
    let next_cursor = seen.last().filter(|_| more).map(|row| row.observation.to_string());
    Ok(axum::Json(TransferPage { transfers: seen.into_iter().map(|row| transfer(row, address, &state.book)).collect(), next_cursor }))
}

fn transfer(row: TransferProgress, address: Address, book: &ChainBook) -> ObservedTransfer {
    let shown = Shown::of(AssetId { chain: row.chain, asset: row.asset }, book);
    ObservedTransfer {
        id: row.observation,
        chain_id: row.chain.get(),
        address,
        sender: row.sender,
        tx_hash: row.tx_hash,
        position: row.position.to_string(),
        asset: row.asset.to_string(),
        amount: shown.amount(row.amount),
        symbol: shown.symbol,
        amount_units: row.amount.to_string(),
        block_number: row.block.number.0,
        block_hash: row.block.hash,
        block_time: row.block_time,
        internal: row.internal,
        state: row.state.name().to_owned(),
        depth: row.have.map_or(0, |depth| depth.0),
        threshold: row.need.get(),
        may_leave: row.release.is_some(),
    }
}

/// Balances of the ledger
///
/// By asset and kind of account.
#[utoipa::path(
    get, path = "/v1/balances", tag = "ledger",
    responses((status = 200, body = Vec<BalanceView>)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn balances(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<BalanceView>>, Problem> {
    who.require(Scope::LedgerRead)?;
    let totals = ledger::store::list_totals(&mut *state.db.connection().await?).await?;
    let views = totals.into_iter().map(|row| {
        let shown = Shown::of(row.total.asset, &state.book);
        BalanceView {
            chain_id: row.total.asset.chain.get(),
            asset: row.total.asset.asset.to_string(),
            kind: row.kind.name().to_owned(),
            amount: shown.amount(row.total.units),
            symbol: shown.symbol,
            amount_units: row.total.units.to_string(),
        }
    });
    Ok(axum::Json(views.collect()))
}
