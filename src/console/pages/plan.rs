//! What leaves next: money at deposit addresses on its way to the treasury, what was ordered out of payments, what the
//! operator's own addresses hold, and of each thing what it waits for.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::U256;
use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Chip, Moment, chip, filters};
use crate::console::store::{DepositRow, OrderRow};
use crate::console::{Console, store};
use crate::intent::judge;
use crate::scan;
use crate::units::{Asset, AssetId, ChainId, PaymentId};

/// Rows of each list. What is beyond them is said.
const ROWS: i64 = 100;

#[derive(Template)]
#[template(path = "plan.html")]
struct PlanPage {
    frame: Frame,
    halted: Vec<(String, String)>,
    sums: Vec<Sum>,
    deposits: Vec<DepositLine>,
    leftovers: Vec<DepositLine>,
    more_deposits: bool,
    orders: Vec<OrderLine>,
    more_orders: bool,
    floats: Vec<FloatLine>,
    refusals: Vec<RefusalLine>,
}

/// Money at deposit addresses of one asset, by whether it may go.
struct Sum {
    asset: String,
    chain: String,
    there: String,
    under_way: String,
    waits: String,
}

struct DepositLine {
    payment: Option<String>,
    address: String,
    chain: String,
    amount: String,
    step: Step,
}

/// What comes next, and why not now.
struct Step {
    chip: Chip,
    why: String,
    intent: Option<String>,
    kind: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    UnderWay,
    Due,
    Waits,
    Stays,
}

struct OrderLine {
    payment: String,
    kind: String,
    amount: String,
    chain: String,
    to: String,
    by: String,
    made: Moment,
    step: Step,
}

struct FloatLine {
    purpose: String,
    address: String,
    chain: String,
    amount: String,
    empty: bool,
}

struct RefusalLine {
    kind: &'static str,
    payment: String,
    amount: String,
    reasons: String,
    since: Moment,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let now = console.now();
    let book = &console.api.book;
    let mut connection = console.api.db.connection().await?;
    let connection = &mut *connection;
    let mut halted = BTreeMap::new();
    for id in console.api.nodes.keys() {
        if let Some(reason) = scan::store::find_cursor(connection, *id).await?.and_then(|cursor| cursor.outflow_halted) {
            halted.insert(*id, reason);
        }
    }
    let refused = judge::store::list_refusals(connection, ROWS).await?;
    let of_policy: BTreeSet<(PaymentId, &str)> = refused.iter().map(|row| (row.payment, row.kind.name())).collect();
    let deposits = store::list_deposits(connection, ROWS).await?;
    let orders = store::list_orders(connection, ROWS).await?;
    let floats = store::list_floats(connection).await?;
    let full = |length: usize| i64::try_from(length).is_ok_and(|length| length == ROWS);
    let (more_deposits, more_orders) = (full(deposits.len()), full(orders.len()));

    let mut sums: BTreeMap<AssetId, [U256; 3]> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut leftovers = Vec::new();
    for row in deposits {
        let step = next_of_deposit(&row, halted.contains_key(&row.asset.chain), &of_policy);
        if step.kind != Stage::Stays {
            let [there, under_way, waits] = sums.entry(row.asset).or_default();
            *there = there.saturating_add(row.units);
            let of_stage = if step.kind == Stage::UnderWay { under_way } else { waits };
            *of_stage = of_stage.saturating_add(row.units);
        }
        let to = if step.kind == Stage::Stays { &mut leftovers } else { &mut lines };
        to.push(DepositLine {
            payment: row.payment.map(|payment| payment.to_string()),
            address: row.address.to_string(),
            chain: show::chain_name(row.asset.chain, book),
            amount: show::amount(row.units, row.asset, book),
            step,
        });
    }
    let page = PlanPage {
        frame: Frame::of("Plan", "plan", &console, &officer),
        sums: sums
            .into_iter()
            .map(|(asset, [there, under_way, waits])| Sum {
                asset: book.asset(asset).map_or_else(|| asset.asset.to_string(), |facts| facts.symbol.to_owned()),
                chain: show::chain_name(asset.chain, book),
                there: show::amount(there, asset, book),
                under_way: show::amount(under_way, asset, book),
                waits: show::amount(waits, asset, book),
            })
            .collect(),
        deposits: lines,
        leftovers,
        more_deposits,
        orders: orders
            .into_iter()
            .map(|row| OrderLine {
                step: next_of_order(&row, halted.contains_key(&row.asset.chain), &of_policy),
                payment: row.payment.to_string(),
                amount: show::amount(row.net, row.asset, book),
                chain: show::chain_name(row.asset.chain, book),
                to: row.to.to_string(),
                by: row.requested_by,
                made: Moment::of(row.created_at, now),
                kind: row.kind,
            })
            .collect(),
        more_orders,
        floats: floats
            .into_iter()
            .map(|row| FloatLine {
                purpose: row.purpose,
                address: row.address.to_string(),
                chain: show::chain_name(row.asset.chain, book),
                amount: show::amount(row.units, row.asset, book),
                empty: row.units.is_zero() && row.asset.asset == Asset::Native,
            })
            .collect(),
        refusals: refused
            .iter()
            .map(|row| RefusalLine {
                kind: row.kind.name(),
                payment: row.payment.to_string(),
                amount: show::amount(row.units, row.asset, book),
                reasons: row.reasons.clone(),
                since: Moment::of(row.first_seen_at, now),
            })
            .collect(),
        halted: halted.into_iter().map(|(chain, reason): (ChainId, String)| (show::chain_name(chain, book), reason)).collect(),
    };
    html(&page)
}

fn step(kind: Stage, chip: Chip, why: impl Into<String>) -> Step {
    Step { chip, why: why.into(), intent: None, kind }
}

fn of_intent(id: String, kind: &str, state: &str) -> Step {
    let shown = show::intent_state(state);
    Step { why: format!("{kind}: {}", shown.text.to_lowercase()), chip: shown, intent: Some(id), kind: Stage::UnderWay }
}

/// What the planner does with money at a deposit address at its next turn. The gates are those of the planner's own
/// questions to the database; fees and balances of gas it asks the node for.
fn next_of_deposit(row: &DepositRow, halted: bool, refused: &BTreeSet<(PaymentId, &str)>) -> Step {
    if let Some((id, kind, state)) = &row.intent {
        return of_intent(id.to_string(), kind, state);
    }
    if !row.due {
        return match row.asset.asset {
            Asset::Native => step(Stage::Stays, chip("calm", "Stays"), "Coin for gas of this address."),
            Asset::Token(_) => step(Stage::Stays, chip("wait", "Another token"), "Waits for a refund, or to be accepted."),
        };
    }
    if halted {
        return step(Stage::Waits, chip("bad", "Halted"), "Nothing leaves this chain until an officer resumes it.");
    }
    if row.status == "quarantined" {
        return step(Stage::Waits, chip("bad", "Quarantine"), "A resolver ends it.");
    }
    if row.held {
        return step(Stage::Waits, chip("bad", "Held"), "Screening holds it; a resolver decides.");
    }
    if row.only_credited {
        return step(Stage::Waits, chip("info", "Counts only"), "Not deep enough to leave yet.");
    }
    let refused_here = row.payment.is_some_and(|payment| refused.contains(&(payment, "sweep")) || refused.contains(&(payment, "fuel")));
    if refused_here {
        return step(Stage::Waits, chip("bad", "Refused"), "The policy in force does not let it leave; see below.");
    }
    match (row.payment_status.as_deref(), row.status.as_str()) {
        (Some("confirmed"), "active") => {
            step(Stage::Due, chip("ok", "Due"), "Fuelled if it has no coin for gas, then swept, at the planner's next turn.")
        }
        (Some("completed" | "refunded"), _) => step(Stage::Due, chip("ok", "Due"), "Swept when an order wants it."),
        (Some("pending" | "processing"), _) => step(Stage::Waits, chip("wait", "Not whole"), "Waits for the rest, or for a decision."),
        _ => step(Stage::Waits, chip("wait", "Waits"), "Waits for a decision about its payment."),
    }
}

fn next_of_order(row: &OrderRow, halted: bool, refused: &BTreeSet<(PaymentId, &str)>) -> Step {
    if let Some((id, state)) = &row.intent {
        return of_intent(id.to_string(), &row.kind, state);
    }
    if halted {
        return step(Stage::Waits, chip("bad", "Halted"), "Nothing leaves this chain until an officer resumes it.");
    }
    if row.disputed {
        return step(Stage::Waits, chip("bad", "Disputed"), "A resolver's decision comes first.");
    }
    if refused.contains(&(row.payment, row.kind.as_str())) {
        return step(Stage::Waits, chip("bad", "Refused"), "The policy in force does not let it leave; see below.");
    }
    match (row.kind.as_str(), row.swept) {
        ("release", false) => step(Stage::Waits, chip("info", "After the sweep"), "Paid from the treasury once its deposit is there."),
        ("release", true) => step(Stage::Due, chip("ok", "Due"), "Planned at the planner's next turn, once the treasury has coin for gas."),
        _ => step(Stage::Due, chip("ok", "Due"), "Paid from the address that holds it, fuelled first if it has no coin for gas."),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;
    use crate::units::IntentId;

    fn row() -> DepositRow {
        let asset = AssetId { chain: ChainId::new(1).unwrap(), asset: Asset::Token(Address::repeat_byte(7)) };
        DepositRow {
            payment: Some(PaymentId(uuid::Uuid::nil())),
            address: Address::repeat_byte(1),
            status: "active".to_owned(),
            asset,
            units: U256::from(5),
            due: true,
            payment_status: Some("confirmed".to_owned()),
            only_credited: false,
            held: false,
            intent: None,
        }
    }

    #[test]
    fn each_gate_of_a_sweep_has_its_word() {
        let none = BTreeSet::new();
        let said = |row: DepositRow, halted| {
            let step = next_of_deposit(&row, halted, &none);
            (step.chip.text, step.kind)
        };
        let on_its_way = DepositRow { intent: Some((IntentId(uuid::Uuid::nil()), "sweep".to_owned(), "planned".to_owned())), ..row() };
        let dust = DepositRow { due: false, asset: AssetId { asset: Asset::Native, ..row().asset }, ..row() };
        for (found, wanted) in [
            (said(row(), false), ("Due", Stage::Due)),
            (said(row(), true), ("Halted", Stage::Waits)),
            (said(DepositRow { status: "quarantined".to_owned(), ..row() }, false), ("Quarantine", Stage::Waits)),
            (said(DepositRow { held: true, ..row() }, false), ("Held", Stage::Waits)),
            (said(DepositRow { only_credited: true, ..row() }, false), ("Counts only", Stage::Waits)),
            (said(DepositRow { payment_status: Some("processing".to_owned()), ..row() }, false), ("Not whole", Stage::Waits)),
            (said(DepositRow { due: false, ..row() }, false), ("Another token", Stage::Stays)),
            (said(dust, false), ("Stays", Stage::Stays)),
            (said(on_its_way, true), ("Waits for approval", Stage::UnderWay)),
        ] {
            assert_eq!(found, (wanted.0.to_owned(), wanted.1));
        }
        let refused = BTreeSet::from([(PaymentId(uuid::Uuid::nil()), "sweep")]);
        assert_eq!(next_of_deposit(&row(), false, &refused).chip.text, "Refused");
    }
}
