//! Findings: what a chain holds and the books do not explain.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;

use super::payments::Filter;
use super::{given, number};
use crate::console::Console;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Moment, filters};
use crate::reconcile;

const FINDINGS: i64 = 100;

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    show: Option<String>,
    #[serde(default)]
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "findings.html")]
struct FindingsPage {
    frame: Frame,
    filters: Vec<Filter>,
    show: &'static str,
    rows: Vec<Line>,
    more: Option<i64>,
}

struct Line {
    address: String,
    chain: String,
    difference: String,
    ledger: String,
    pending: String,
    chain_holds: String,
    block: String,
    first: Moment,
    last: Moment,
    closed: Option<(Moment, String)>,
}

pub(in crate::console) async fn get(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let book = &console.api.book;
    let (show, closed_too) = match given(asked.show).as_deref() {
        None | Some("open") => ("open", false),
        Some("all") => ("all", true),
        Some(_) => return Err(Refusal::Field("Findings are shown as open or all.".to_owned())),
    };
    let after = number(asked.after.as_deref())?.unwrap_or(0);
    let found = reconcile::store::list_findings(&mut *console.api.db.connection().await?, None, closed_too, after, FINDINGS).await?;
    let full = i64::try_from(found.len()).is_ok_and(|length| length == FINDINGS);
    let more = found.last().filter(|_| full).map(|finding| finding.id);
    let rows = found
        .into_iter()
        .map(|finding| {
            let line = finding.line;
            Line {
                address: line.address.to_string(),
                chain: show::chain_name(line.asset.chain, book),
                difference: show::signed_amount(line.difference(), line.asset, book),
                ledger: show::amount(line.ledger_units, line.asset, book),
                pending: show::signed_amount(line.pending_units, line.asset, book),
                chain_holds: show::amount(line.chain_units, line.asset, book),
                block: show::grouped(&finding.at.number.0.to_string()),
                first: Moment::of(finding.first_seen_at, now),
                last: Moment::of(finding.last_seen_at, now),
                closed: finding.closed_at.map(|at| (Moment::of(at, now), finding.resolution.unwrap_or_default())),
            }
        })
        .collect();
    let filters = [("Open", "open"), ("All", "all")].map(|(name, value)| Filter { name, value, chosen: value == show });
    html(&FindingsPage { frame: Frame::of("Findings", "findings", &console, &officer), filters: filters.into(), show, rows, more })
}
