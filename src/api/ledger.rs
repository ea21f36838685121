//! Read-only views of the books and the chains.

use alloy::primitives::{I256, U256};
use axum::extract::{Query, State};
use serde::Deserialize;
use utoipa::IntoParams;

use super::ApiState;
use super::auth::Authenticated;
use super::payments::Page;
use super::problem::Problem;
use super::schema::OpenOrAllText;
use super::wire::{
    ChainReconciliation, ChainView, EntryPage, EntryView, FindingPage, FindingView, OperatorAddressView, Reconciliation,
    ReconciliationLine, SidesView,
};
use crate::chains::ChainBook;
use crate::ledger;
use crate::ledger::statement::account_name;
use crate::officer::Scope;
use crate::units::{AssetId, LedgerEntryId, format_units};
use crate::{account, reconcile, scan, settings};

/// Watched chains
#[utoipa::path(
    get, path = "/v1/chains", tag = "chains",
    responses((status = 200, body = Vec<ChainView>)),
    security(("token" = ["payments:read"]))
)]
pub(super) async fn chains(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Vec<ChainView>>, Problem> {
    who.require(Scope::PaymentsRead)?;
    let mut connection = state.db.connection().await?;
    let operator: Vec<OperatorAddressView> = account::store::list_operator_addresses(&mut connection)
        .await?
        .into_iter()
        .map(|address| OperatorAddressView {
            purpose: address.purpose.name().to_owned(),
            path: address.path.to_string(),
            address: address.address,
        })
        .collect();
    let mut views = Vec::new();
    for id in state.watched() {
        let Some(spec) = state.book.get(id) else { continue };
        let cursor = scan::store::find_cursor(&mut connection, id).await?;
        let threshold = settings::store::find_threshold(&mut connection, id).await?;
        views.push(ChainView {
            chain_id: id.get(),
            name: spec.name.clone(),
            scanned_number: cursor.as_ref().map(|cursor| cursor.tip.number.0),
            scanned_hash: cursor.as_ref().map(|cursor| cursor.tip.hash),
            threshold: threshold.map(|threshold| threshold.value.get()),
            threshold_history_id: threshold.map(|threshold| threshold.history_id),
            outflow_halted: cursor.and_then(|cursor| cursor.outflow_halted),
            operator_addresses: operator.clone(),
        });
    }
    Ok(axum::Json(views))
}

/// Entries of the ledger, oldest first
#[utoipa::path(
    get, path = "/v1/ledger/entries", tag = "ledger",
    params(Page),
    responses((status = 200, body = EntryPage)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn entries(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(page): Query<Page>,
) -> Result<axum::Json<EntryPage>, Problem> {
    who.require(Scope::LedgerRead)?;
    let limit = page.limit()?;
    let after = page.number()?.unwrap_or(0);
    let mut connection = state.db.connection().await?;
    let found = ledger::store::list(&mut connection, None, LedgerEntryId(after), limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|posted| posted.id.to_string());
    let entries = found
        .into_iter()
        .map(|posted| EntryView {
            id: posted.id.0,
            entry_type: posted.entry.entry_type.name().to_owned(),
            payment_id: posted.entry.payment,
            chain_id: posted.entry.amount.asset.chain.get(),
            asset: posted.entry.amount.asset.asset.to_string(),
            amount: format_units(posted.entry.amount.units, posted.entry.decimals),
            amount_units: posted.entry.amount.units.to_string(),
            debit: account_name(posted.entry.debit),
            credit: account_name(posted.entry.credit),
            memo: posted.entry.memo,
            created_at: posted.created_at,
        })
        .collect();
    Ok(axum::Json(EntryPage { entries, next_cursor }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FindingsAsked {
    /// `open`, the default, or `all`.
    #[serde(default)]
    #[param(value_type = Option<OpenOrAllText>, inline)]
    state: Option<String>,
    /// `next_cursor` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// 1 to 200; 50 without it.
    #[serde(default)]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<i64>,
}

/// What the chain held and the books did not explain
#[utoipa::path(
    get, path = "/v1/findings", tag = "ledger",
    params(FindingsAsked),
    responses((status = 200, body = FindingPage)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn findings(
    State(state): State<ApiState>,
    who: Authenticated,
    Query(asked): Query<FindingsAsked>,
) -> Result<axum::Json<FindingPage>, Problem> {
    who.require(Scope::LedgerRead)?;
    let closed_too = match asked.state.as_deref() {
        None | Some("open") => false,
        Some("all") => true,
        Some(other) => return Err(Problem::field("state", other.chars().take(40).collect::<String>(), "use open or all")),
    };
    let page = Page { cursor: asked.cursor, limit: asked.limit };
    let limit = page.limit()?;
    let after = page.number()?.unwrap_or(0);
    let found = reconcile::store::list_findings(&mut *state.db.connection().await?, None, closed_too, after, limit).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == limit);
    let next_cursor = found.last().filter(|_| full).map(|finding| finding.id.to_string());
    Ok(axum::Json(FindingPage { findings: found.into_iter().map(|finding| finding_view(finding, &state.book)).collect(), next_cursor }))
}

fn finding_view(finding: reconcile::Finding, book: &ChainBook) -> FindingView {
    let line = finding.line;
    let shown = Shown::of(line.asset, book);
    FindingView {
        id: finding.id,
        chain_id: line.asset.chain.get(),
        address: line.address,
        asset: line.asset.asset.to_string(),
        symbol: shown.symbol.clone(),
        ledger: shown.amount(line.ledger_units),
        pending: shown.signed(line.pending_units),
        chain: shown.amount(line.chain_units),
        difference: shown.signed(line.difference()),
        difference_units: line.difference().to_string(),
        block_number: finding.at.number.0,
        block_hash: finding.at.hash,
        first_seen_at: finding.first_seen_at,
        last_seen_at: finding.last_seen_at,
        closed_at: finding.closed_at,
        resolution: finding.resolution,
    }
}

/// Every custody account against its chain, and both sides of the books per asset.
#[utoipa::path(
    get, path = "/v1/reconciliation", tag = "ledger",
    responses((status = 200, body = Reconciliation)),
    security(("token" = ["ledger:read"]))
)]
pub(super) async fn reconciliation(State(state): State<ApiState>, who: Authenticated) -> Result<axum::Json<Reconciliation>, Problem> {
    who.require(Scope::LedgerRead)?;
    let mut chains = Vec::new();
    for (id, node) in state.nodes.iter() {
        let Some(spec) = state.book.get(*id) else { continue };
        let report = reconcile::reconcile(&state.db, node, spec).await?;
        let lines = report.lines.iter().map(|line| line_view(line, &state.book)).collect();
        chains.push(ChainReconciliation { chain_id: id.get(), block_number: report.at.number.0, block_hash: report.at.hash, lines });
    }
    let sides: Vec<SidesView> = reconcile::sides(&state.db).await?.iter().map(|sides| sides_view(sides, &state.book)).collect();
    let equal =
        sides.iter().all(|sides| sides.equal) && chains.iter().all(|chain: &ChainReconciliation| chain.lines.iter().all(|line| line.equal));
    Ok(axum::Json(Reconciliation { chains, sides, equal }))
}

fn line_view(line: &reconcile::Line, book: &ChainBook) -> ReconciliationLine {
    let shown = Shown::of(line.asset, book);
    ReconciliationLine {
        address: line.address,
        asset: line.asset.asset.to_string(),
        symbol: shown.symbol.clone(),
        ledger: shown.amount(line.ledger_units),
        chain: shown.amount(line.chain_units),
        pending: shown.signed(line.pending_units),
        equal: line.is_equal(),
    }
}

fn sides_view(sides: &reconcile::Sides, book: &ChainBook) -> SidesView {
    let shown = Shown::of(sides.asset, book);
    SidesView {
        chain_id: sides.asset.chain.get(),
        asset: sides.asset.asset.to_string(),
        symbol: shown.symbol.clone(),
        custody: shown.amount(sides.custody_units),
        debit: shown.amount(sides.debit_units),
        credit: shown.amount(sides.credit_units),
        equal: sides.is_equal(),
    }
}

/// How an asset's amounts are written; an asset that left the book is written in raw units.
pub(super) struct Shown {
    pub(super) symbol: String,
    decimals: u8,
}

impl Shown {
    pub(super) fn of(asset: AssetId, book: &ChainBook) -> Self {
        match book.asset(asset) {
            Some(facts) => Self { symbol: facts.symbol.to_owned(), decimals: facts.decimals },
            None => Self { symbol: "raw units".to_owned(), decimals: 0 },
        }
    }

    pub(super) fn amount(&self, units: U256) -> String {
        format_units(units, self.decimals)
    }

    fn signed(&self, units: I256) -> String {
        let sign = if units.is_negative() { "-" } else { "" };
        format!("{sign}{}", self.amount(units.unsigned_abs()))
    }
}
