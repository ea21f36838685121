//! Settings: the thresholds of each chain's gates, in force and coming, and every change there was.

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use crate::console::Console;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::show::{self, Moment};
use crate::settings::{self, Change, Gate};
use crate::units::AssetId;

/// Changes on the page.
const CHANGES: usize = 200;

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage {
    frame: Frame,
    chains: Vec<Chain>,
    changes: Vec<Line>,
}

struct Chain {
    name: String,
    id: String,
    gates: Vec<GateView>,
}

struct GateView {
    name: &'static str,
    meaning: &'static str,
    in_force: Vec<Line>,
    coming: Vec<Line>,
}

struct Line {
    id: i64,
    chain: String,
    gate: &'static str,
    applies: String,
    before: String,
    blocks: String,
    effective: Moment,
    made: Moment,
    by: String,
    reason: String,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let now = console.now();
    let mut connection = console.api.db.connection().await?;
    let mut chains = Vec::new();
    let mut changes = Vec::new();
    let line = |change: &Change| {
        let applies = change.key.tier.map_or_else(
            || "every amount".to_owned(),
            |tier| {
                let asset = AssetId { chain: change.key.chain, asset: tier.asset };
                format!("from {}", show::amount(tier.from_units(), asset, &console.api.book))
            },
        );
        let blocks =
            |blocks: Option<crate::units::Confirmations>| blocks.map_or_else(|| "off".to_owned(), |blocks| blocks.get().to_string());
        Line {
            id: change.id,
            chain: show::chain_name(change.key.chain, &console.api.book),
            gate: change.key.gate.name(),
            applies,
            before: change.old_blocks.map_or_else(|| "–".to_owned(), |before| before.get().to_string()),
            blocks: blocks(change.blocks),
            effective: Moment::of(change.effective_at, now),
            made: Moment::of(change.created_at, now),
            by: change.changed_by.clone(),
            reason: change.reason.clone(),
        }
    };
    for id in console.api.nodes.keys() {
        let mut gates = Vec::new();
        for gate in Gate::ALL {
            let history = settings::store::get_history(&mut connection, gate, *id).await?;
            let present = history.present(now);
            gates.push(GateView {
                name: gate.name(),
                meaning: match gate {
                    Gate::Credit => "a deposit counts",
                    Gate::Release => "its money may leave again",
                },
                in_force: history.standing(present).into_iter().map(line).collect(),
                coming: history.coming(present).into_iter().map(line).collect(),
            });
            changes.extend(history.newest_first().map(line));
        }
        chains.push(Chain { name: show::chain_name(*id, &console.api.book), id: id.to_string(), gates });
    }
    changes.sort_by_key(|change: &Line| std::cmp::Reverse(change.id));
    changes.truncate(CHANGES);
    html(&SettingsPage { frame: Frame::of("Settings", "settings", &console, &officer), chains, changes })
}
