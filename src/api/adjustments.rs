//! Money that came for nobody, and losses: what waits, and what two officers decide about it.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::ApiState;
use super::auth::Authenticated;
use super::idempotency::Writing;
use super::payments::Page;
use super::policies;
use super::problem::Problem;
use super::thresholds::{chain_of, shorten};
use super::wire::{AdjustmentAsked, SuspendedPage, SuspendedView};
use crate::chains::ChainBook;
use crate::escrow;
use crate::escrow::adjust::{self, Adjustment, Suspended};
use crate::officer::Scope;
use crate::units::{Asset, AssetId, LedgerEntryId, format_units, parse_address, parse_units};

/// Money that came for nobody
///
/// Credits at addresses of ours that belong to no payment and are not the operator's coin, not decided about yet.
#[utoipa::path(
    get, path = "/v1/suspense", tag = "ledger",
    params(Page),
    responses((status = 200, body = SuspendedPage)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(page): Query<Page>,
) -> Result<axum::Json<SuspendedPage>, Problem> {
    who.require(Scope::LedgerRead)?;
    let limit = page.limit()?;
    let after = LedgerEntryId(page.number()?.unwrap_or(0));
    let found = escrow::store::list_suspended(&mut *state.db.connection().await?, after, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|row| row.posted.id.to_string());
    Ok(axum::Json(SuspendedPage { suspended: found.iter().map(|row| view(row, &state.book)).collect(), next_cursor }))
}

/// Propose an adjustment
///
/// Another officer confirms it (`POST /v1/proposals/{id}/confirm`), and it is posted at once. What is attributed to a payment
/// waits in its suspense: accept it, or refund it to whoever it belongs to.
#[utoipa::path(
    post, path = "/v1/adjustments", tag = "ledger",
    request_body = AdjustmentAsked,
    responses(
        (status = 201, body = super::wire::ProposalView),
        (status = 409, description = "nothing_to_accept, not_enough, only_credited, held")
    ),
    security(("officer" = ["intents:approve"]))
)]
pub(super) async fn propose(State(state): State<ApiState>, call: Writing) -> Result<Response, Problem> {
    let caller = call.who.require_officer(Scope::IntentsApprove)?.0.clone();
    let (write, asked) = call.read::<AdjustmentAsked>(&caller, "POST /v1/adjustments".to_owned())?;
    let adjustment = read(&asked, &state.book)?;
    let book = state.book.clone();
    write
        .once(&state, StatusCode::CREATED, move |connection| {
            Box::pin(async move {
                let proposal = adjust::propose(connection, &adjustment, asked.reason, &caller, &book).await?;
                Ok(policies::proposal_view(&proposal, &book))
            })
        })
        .await
}

/// What was asked for; a refusal names the field, what it said, and what would do.
fn read(asked: &AdjustmentAsked, book: &ChainBook) -> Result<Adjustment, Problem> {
    let entry = || asked.entry.map(LedgerEntryId).ok_or_else(|| Problem::field("entry", "", "name the entry (`GET /v1/suspense`)"));
    let amount = || {
        let chain = asked.chain_id.ok_or_else(|| Problem::field("chain_id", "", "name the chain"))?;
        let spec = chain_of(book, &chain.to_string())?;
        let symbol = asked.asset.as_deref().ok_or_else(|| Problem::field("asset", "", "name its symbol"))?;
        let (asset, facts) = spec.find_asset(symbol).ok_or_else(|| {
            let known = spec.symbols().join(", ");
            Problem::field("asset", shorten(symbol), format!("is not listed for {}; use one of {known}", spec.name))
        })?;
        let amount = asked.amount.as_deref().ok_or_else(|| Problem::field("amount", "", "say how much"))?;
        let units = parse_units(amount, facts.decimals).map_err(|error| Problem::field("amount", shorten(amount), error.to_string()))?;
        Ok::<_, Problem>((spec.id, asset.asset.marker(), units.to_string()))
    };
    match asked.act.as_str() {
        "attribute" => {
            let payment = asked.payment_id.ok_or_else(|| Problem::field("payment_id", "", "name the payment that it is of"))?;
            Ok(Adjustment::Attribute { entry: entry()?, payment })
        }
        "own" => Ok(Adjustment::Own { entry: entry()? }),
        "lost" => {
            let (chain, asset, units) = amount()?;
            let text = asked.address.as_deref().ok_or_else(|| Problem::field("address", "", "name the address that lost it"))?;
            let address = parse_address(text).map_err(|error| Problem::field("address", shorten(text), error.to_string()))?;
            Ok(Adjustment::Lost { chain, asset, units, address })
        }
        "cover" => {
            let (chain, asset, units) = amount()?;
            Ok(Adjustment::Cover { chain, asset, units })
        }
        other => Err(Problem::field("act", shorten(other), "use attribute, own, lost or cover")),
    }
}

/// What an adjustment says, for people.
pub(super) fn line_of(adjustment: &Adjustment, book: &ChainBook) -> String {
    let shown = |chain, asset, units: &str| {
        let asset = AssetId { chain, asset: Asset::from_marker(asset) };
        match (book.asset(asset), units.parse()) {
            (Some(facts), Ok(units)) => format!("{} {} on chain {chain}", format_units(units, facts.decimals), facts.symbol),
            _ => format!("{units} base units of {asset}"),
        }
    };
    match adjustment {
        Adjustment::Attribute { entry, payment } => format!("what entry {entry} credited to nobody is of payment {payment}"),
        Adjustment::Own { entry } => format!("what entry {entry} credited to nobody is the operator's own"),
        Adjustment::Lost { chain, asset, units, address } => format!("{} at {address} is lost", shown(*chain, *asset, units)),
        Adjustment::Cover { chain, asset, units } => format!("the operator's float bears a loss of {}", shown(*chain, *asset, units)),
    }
}

fn view(row: &Suspended, book: &ChainBook) -> SuspendedView {
    let entry = &row.posted.entry;
    let symbol = book.asset(entry.amount.asset).map_or_else(|| "raw units".to_owned(), |facts| facts.symbol.to_owned());
    SuspendedView {
        entry: row.posted.id.0,
        chain_id: entry.amount.asset.chain.get(),
        address: entry.debit.address(),
        symbol,
        amount: format_units(entry.amount.units, entry.decimals),
        amount_units: entry.amount.units.to_string(),
        memo: entry.memo.clone(),
        credited_at: row.posted.created_at,
        proposal: row.proposal.map(|proposal| proposal.0),
    }
}
