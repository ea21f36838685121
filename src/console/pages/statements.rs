//! Statements: where the money was over a period and whose it is, drawn, and the same as downloads.

use std::collections::BTreeMap;

use alloy::primitives::{I256, U256};
use askama::Template;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use time::{Date, Duration, OffsetDateTime};

use super::given;
use super::payments::Filter;
use crate::api;
use crate::console::chart;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Moment};
use crate::console::store::DeltaRow;
use crate::console::{Console, store};
use crate::ledger::statement::{self, Format};
use crate::ledger::{self, AccountKind};
use crate::units::{AssetId, PaymentId};

/// Steps of a chart.
const STEPS: usize = 96;
const STEPS_I64: i64 = 96;
/// Assets on the page.
const ASSETS_MAX: usize = 12;

/// Periods to choose from: name, value, hours.
const PERIODS: [(&str, &str, i64); 5] =
    [("1 hour", "1h", 1), ("24 hours", "24h", 24), ("7 days", "7d", 7 * 24), ("30 days", "30d", 30 * 24), ("90 days", "90d", 90 * 24)];

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Asked {
    #[serde(default)]
    period: Option<String>,
}

#[derive(Template)]
#[template(path = "statements.html")]
struct StatementsPage {
    frame: Frame,
    filters: Vec<Filter>,
    since: Moment,
    until: Moment,
    assets: Vec<AssetCard>,
    from: String,
    until_day: String,
}

struct AssetCard {
    id: String,
    symbol: String,
    chain: String,
    /// What the upper edge of the chart is.
    top: String,
    lines: Vec<LineView>,
    area: String,
    /// Whose it is, in parts of a bar.
    parts: Vec<Part>,
    whole: String,
    said: String,
}

struct LineView {
    class: &'static str,
    name: &'static str,
    path: String,
    first: String,
    now: String,
}

struct Part {
    class: &'static str,
    name: String,
    kind: &'static str,
    amount: String,
    share: String,
    x: u64,
    width: u64,
}

/// What is drawn as a line: which kinds, summed.
const LINES: [(&str, &str, &[AccountKind]); 3] = [
    ("custody", "In custody", &[AccountKind::Custody]),
    ("held", "Held for payments", &[AccountKind::Received, AccountKind::Held, AccountKind::Disputed]),
    ("leaving", "Leaving", &[AccountKind::Payable]),
];

/// Whose it is, in the order of the bar.
const CLAIMS: [(AccountKind, &str); 8] = [
    (AccountKind::Received, "received"),
    (AccountKind::Held, "held"),
    (AccountKind::Disputed, "disputed"),
    (AccountKind::Payable, "leaving"),
    (AccountKind::Suspense, "suspense"),
    (AccountKind::PlatformFee, "fees"),
    (AccountKind::ProviderFee, "fees"),
    (AccountKind::Operator, "operator"),
];

/// What there is of an asset, and how it got there.
#[derive(Default)]
struct Standing {
    now: BTreeMap<AccountKind, U256>,
    deltas: BTreeMap<AccountKind, Vec<I256>>,
}

pub(in crate::console) async fn get(
    State(console): State<Console>,
    officer: Officer,
    Query(asked): Query<Asked>,
) -> Result<Response, Refusal> {
    let now = console.now();
    let asked = given(asked.period);
    let chosen = asked.as_deref().unwrap_or("7d");
    let Some((_, period, hours)) = PERIODS.into_iter().find(|(_, value, _)| *value == chosen) else {
        return Err(Refusal::Field("Statements are shown of 1 hour, 24 hours, 7, 30 or 90 days.".to_owned()));
    };
    let step_seconds = hours * 3_600 / STEPS_I64;
    let since = now - Duration::hours(hours);
    let mut connection = console.api.db.connection().await?;
    let totals = ledger::store::list_totals(&mut connection).await?;
    let deltas = store::list_deltas(&mut connection, since, step_seconds).await?;
    drop(connection);
    let assets = standings(totals, deltas).into_iter().take(ASSETS_MAX).map(|(asset, standing)| card(asset, &standing, &console)).collect();
    let filters = PERIODS.map(|(name, value, _)| Filter { name, value, chosen: value == period });
    html(&StatementsPage {
        frame: Frame::of("Statements", "statements", &console, &officer),
        filters: filters.into(),
        since: Moment::of(since, now),
        until: Moment::of(now, now),
        assets,
        from: show::day(since),
        until_day: show::day(now),
    })
}

fn standings(totals: Vec<ledger::store::KindTotal>, deltas: Vec<DeltaRow>) -> BTreeMap<AssetId, Standing> {
    let mut all: BTreeMap<AssetId, Standing> = BTreeMap::new();
    for row in totals {
        let now = all.entry(row.total.asset).or_default().now.entry(row.kind).or_default();
        *now = now.saturating_add(row.total.units);
    }
    for row in deltas {
        let steps = all.entry(row.asset).or_default().deltas.entry(row.kind).or_insert_with(|| vec![I256::ZERO; STEPS]);
        // What was posted since the page began counts to the last step.
        let step = &mut steps[row.step.min(STEPS - 1)];
        *step = step.saturating_add(row.delta);
    }
    all.retain(|_, standing| !standing.deltas.is_empty() || standing.now.values().any(|units| !units.is_zero()));
    all
}

impl Standing {
    fn units(&self, kinds: &[AccountKind]) -> U256 {
        kinds.iter().filter_map(|kind| self.now.get(kind)).fold(U256::ZERO, |sum, units| sum.saturating_add(*units))
    }

    /// What the kinds held together at the end of each step.
    fn values(&self, kinds: &[AccountKind]) -> Vec<U256> {
        let mut steps = vec![I256::ZERO; STEPS];
        for deltas in kinds.iter().filter_map(|kind| self.deltas.get(kind)) {
            for (sum, delta) in steps.iter_mut().zip(deltas) {
                *sum = sum.saturating_add(*delta);
            }
        }
        chart::balances(self.units(kinds), &steps)
    }
}

fn card(asset: AssetId, standing: &Standing, console: &Console) -> AssetCard {
    let book = &console.api.book;
    let shown = |units| show::amount(units, asset, book);
    let series: Vec<_> = LINES.iter().map(|(class, name, kinds)| (*class, *name, standing.values(kinds))).collect();
    let top = series.iter().flat_map(|(_, _, values)| values).copied().max().unwrap_or_default();
    let lines: Vec<LineView> = series
        .iter()
        .map(|&(class, name, ref values)| LineView {
            class,
            name,
            path: chart::line(values, top),
            first: shown(values.first().copied().unwrap_or_default()),
            now: shown(values.last().copied().unwrap_or_default()),
        })
        .collect();
    let whole = CLAIMS.iter().fold(U256::ZERO, |sum, (kind, _)| sum.saturating_add(standing.units(&[*kind])));
    let mut x = 0;
    let mut parts = Vec::new();
    for (kind, class) in CLAIMS {
        let units = standing.units(&[kind]);
        if units.is_zero() {
            continue;
        }
        let width = chart::scaled(units, whole, chart::WIDTH).min(chart::WIDTH.saturating_sub(x));
        let permille = chart::scaled(units, whole, 1_000);
        parts.push(Part {
            class,
            name: kind.name().replace('_', " "),
            kind: kind.name(),
            amount: shown(units),
            share: format!("{}.{} %", permille / 10, permille % 10),
            x,
            width,
        });
        x += width;
    }
    let custody = lines.first().map_or_else(String::new, |line| format!("{} at the beginning and {} now", line.first, line.now));
    AssetCard {
        id: format!("{}-{}", asset.chain, asset.asset),
        symbol: book.asset(asset).map_or_else(|| asset.asset.to_string(), |facts| facts.symbol.to_owned()),
        chain: show::chain_name(asset.chain, book),
        top: shown(top),
        area: series.first().map_or_else(String::new, |(_, _, values)| chart::area(values, top)),
        lines,
        parts,
        whole: shown(whole),
        said: format!("Balances over time: in custody {custody}."),
    }
}

// === downloads ===

#[derive(Debug, Deserialize)]
pub(in crate::console) struct Wanted {
    #[serde(default)]
    format: Option<String>,
    #[serde(default)]
    payment: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    until: Option<String>,
}

fn format_of(text: Option<String>) -> Result<Format, Refusal> {
    match given(text).as_deref() {
        None | Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Json),
        Some(_) => Err(Refusal::Field("Downloads are written as csv or json.".to_owned())),
    }
}

/// The beginning of a day, in UTC.
fn day_of(text: Option<String>) -> Result<Option<OffsetDateTime>, Refusal> {
    let bad = || Refusal::Field("A day is written as 2026-01-31.".to_owned());
    let form = time::macros::format_description!("[year]-[month]-[day]");
    given(text).map(|text| Date::parse(&text, form).map(|day| day.midnight().assume_utc()).map_err(|_| bad())).transpose()
}

/// Entries of a payment, or of the days from one to another, both included.
pub(in crate::console) async fn entries(
    State(console): State<Console>,
    _: Officer,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let payment = given(wanted.payment).map(|text| text.parse::<PaymentId>()).transpose();
    let payment = payment.map_err(|_| Refusal::Field("The payment's id cannot be read.".to_owned()))?;
    let until = day_of(wanted.until)?.map(|day| day.checked_add(Duration::days(1)).unwrap_or(day));
    let filter = statement::Filter { payment, account: None, from: day_of(wanted.from)?, until };
    Ok(api::download_statement(console.api.db, filter, format_of(wanted.format)?))
}

/// All balances as they stand, or stood at the end of a day.
pub(in crate::console) async fn balances(
    State(console): State<Console>,
    _: Officer,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Refusal> {
    let at = day_of(wanted.until)?.map(|day| day.checked_add(Duration::days(1)).unwrap_or(day));
    Ok(api::download_balances(console.api.db, at, format_of(wanted.format)?))
}
