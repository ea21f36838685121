//! The overview: what waits for me, the chains, the money, the payments.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::intents::IntentList;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Chip, chip, filters};
use crate::console::{Console, ConsoleError, store};
use crate::ledger::AccountKind;
use crate::settings::Gate;
use crate::units::AssetId;
use crate::{ledger, reconcile, scan, settings, webhook};

/// A chain that is this far behind its own rhythm is late.
const LATE_BLOCKS: i64 = 5;
/// Whatever its rhythm, this much is not late.
const LATE_SECONDS_MIN: i64 = 30;
const WAITING_MAX: i64 = 20;

#[derive(Template)]
#[template(path = "overview.html")]
struct OverviewPage {
    frame: Frame,
    waiting: IntentList,
    troubles: Vec<Trouble>,
    chains: Vec<ChainLine>,
    money: Vec<MoneyLine>,
    payments: Vec<StateLine>,
}

struct Trouble {
    tone: &'static str,
    text: String,
    link: &'static str,
}

struct ChainLine {
    name: String,
    id: String,
    tip: Option<String>,
    age: Option<String>,
    state: Chip,
    credit: String,
    release: String,
}

struct MoneyLine {
    asset: String,
    chain: String,
    custody: String,
    received: String,
    held: String,
    payable: String,
    suspense: String,
    operator: String,
    equal: bool,
}

struct StateLine {
    chip: Chip,
    count: i64,
    filter: String,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let now = console.now();
    let book = &console.api.book;
    let mut connection = console.api.db.connection().await?;
    let connection = &mut *connection;

    let waiting = store::list_waiting_for(connection, officer.holder.user, WAITING_MAX).await?;
    let waiting = IntentList::read(connection, waiting, &console).await?;

    let mut troubles = Vec::new();
    let mut chains = Vec::new();
    let mut findings = 0;
    for id in console.api.nodes.keys() {
        let Some(spec) = book.get(*id) else { continue };
        let tip = store::find_tip(connection, *id).await?;
        let halted = scan::store::find_cursor(connection, *id).await?.and_then(|cursor| cursor.outflow_halted);
        findings += reconcile::store::count_open(connection, *id).await?;
        let mut gates = Vec::new();
        for gate in Gate::ALL {
            let history = settings::store::get_history(connection, gate, *id).await?;
            let present = history.present(now);
            let base = history.base(present).map_or_else(|| "not set".to_owned(), |base| base.value.get().to_string());
            let tiers = history.standing(present).into_iter().filter(|change| change.key.tier.is_some() && change.blocks.is_some()).count();
            gates.push(if tiers == 0 { base } else { format!("{base} (+{tiers} tier{})", if tiers == 1 { "" } else { "s" }) });
        }
        let age = tip.as_ref().and_then(|tip| tip.time).map(|time| (now - time).whole_seconds().max(0));
        let late_seconds = (i64::from(spec.block_time_ms) * LATE_BLOCKS / 1_000).max(LATE_SECONDS_MIN);
        let state = match (&halted, age) {
            (Some(_), _) => chip("bad", "Outflow halted"),
            (None, None) => chip("wait", "Not read yet"),
            (None, Some(age)) if age > late_seconds => chip("wait", "Behind"),
            (None, Some(_)) => chip("ok", "Up to date"),
        };
        if let Some(reason) = halted {
            troubles.push(Trouble {
                tone: "bad",
                text: format!("Nothing leaves {}: {reason}", spec.name),
                link: "/console/events?noun=chain",
            });
        }
        let release = gates.pop().unwrap_or_default();
        chains.push(ChainLine {
            name: spec.name.clone(),
            id: id.to_string(),
            tip: tip.as_ref().map(|tip| show::grouped(&tip.block.number.0.to_string())),
            age: tip.and_then(|tip| tip.time).map(|time| show::Moment::of(time, now).ago),
            state,
            credit: gates.pop().unwrap_or_default(),
            release,
        });
    }
    if findings > 0 {
        let text = format!("{findings} open {}: the chain holds what the books do not explain", plural(findings, "finding"));
        troubles.push(Trouble { tone: "bad", text, link: "/console/findings" });
    }
    let (states, exceptions) = store::count_payments(connection).await?;
    if exceptions > 0 {
        let count = u64::try_from(exceptions).unwrap_or(0);
        let text = format!("{exceptions} {} with an open exception", plural(count, "payment"));
        troubles.push(Trouble { tone: "wait", text, link: "/console/payments?state=exceptions" });
    }
    let disputes = store::count_open_disputes(connection).await?;
    if disputes > 0 {
        let text = format!("{disputes} open {} for a resolver", if disputes == 1 { "dispute waits" } else { "disputes wait" });
        troubles.push(Trouble { tone: "wait", text, link: "/console/disputes" });
    }
    let deliveries = webhook::store::totals(connection).await?;
    if deliveries.dead > 0 {
        let text = format!("{} webhook {} given up", deliveries.dead, if deliveries.dead == 1 { "delivery" } else { "deliveries" });
        troubles.push(Trouble { tone: "wait", text, link: "/console/webhooks?state=dead" });
    }
    let payments = states
        .into_iter()
        .map(|row| StateLine {
            chip: show::payment_state(&row.status, row.escrow.as_deref()),
            count: row.count,
            filter: row.escrow.unwrap_or(row.status),
        })
        .collect();
    let money = money(ledger::store::list_totals(connection).await.map_err(ConsoleError::from)?, &console);
    html(&OverviewPage { frame: Frame::of("Overview", "overview", &console, &officer), waiting, troubles, chains, money, payments })
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

fn money(totals: Vec<ledger::store::KindTotal>, console: &Console) -> Vec<MoneyLine> {
    let book = &console.api.book;
    let mut assets: BTreeMap<AssetId, BTreeMap<AccountKind, U256>> = BTreeMap::new();
    for total in totals {
        let sum = assets.entry(total.total.asset).or_default().entry(total.kind).or_default();
        *sum = sum.saturating_add(total.total.units);
    }
    assets
        .into_iter()
        .map(|(asset, kinds)| {
            let units = |kind| kinds.get(&kind).copied().unwrap_or_default();
            let shown = |kind| match units(kind) {
                zero if zero.is_zero() => "0".to_owned(),
                units => book
                    .asset(asset)
                    .map_or_else(|| units.to_string(), |facts| show::grouped(&crate::units::format_units(units, facts.decimals))),
            };
            let side = |debit: bool| {
                let of_side = kinds.iter().filter(|(kind, _)| kind.is_debit_normal() == debit);
                of_side.fold(U256::ZERO, |sum, (_, units)| sum.saturating_add(*units))
            };
            MoneyLine {
                asset: book.asset(asset).map_or_else(|| asset.asset.to_string(), |facts| facts.symbol.to_owned()),
                chain: show::chain_name(asset.chain, book),
                custody: shown(AccountKind::Custody),
                received: shown(AccountKind::Received),
                held: shown(AccountKind::Held),
                payable: shown(AccountKind::Payable),
                suspense: shown(AccountKind::Suspense),
                operator: shown(AccountKind::Operator),
                equal: side(true) == side(false),
            }
        })
        .collect()
}
