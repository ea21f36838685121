//! `chain status`: how far each chain is read and judged, and how its endpoints stand.
//!
//! The database part needs no node: what a node would have said stays open, and its fault is shown where
//! it is. Only a database that cannot be read is an error.

use anyhow::Context;
use serde::Serialize;

use super::super::console::{say, table};
use crate::chains::ChainSpec;
use crate::config::{ChainConfig, Config};
use crate::confirm;
use crate::daemon::now;
use crate::db::{Database, LeaseName, list_leases};
use crate::rpc::EndpointHead;
use crate::scan;
use crate::settings::{self, Gate};
use crate::units::ChainId;

#[derive(Debug, Serialize)]
struct ChainStatus {
    chain_id: u64,
    name: String,
    /// The newest block that enough endpoints share.
    head: Option<u64>,
    /// Why there is none.
    fault: Option<String>,
    scanned: Option<u64>,
    lag_blocks: Option<u64>,
    /// By the chain's mean block time.
    lag_ms: Option<u64>,
    final_block: Option<u64>,
    /// Of the newest 10,000 blocks.
    blocks_not_looked_inside: u64,
    credit_blocks: Option<u32>,
    release_blocks: Option<u32>,
    /// Why nothing may leave; absent while outflow is open.
    outflow_halted: Option<String>,
    /// The daemon that works on the chain now.
    held_by: Option<String>,
    /// How many endpoints must say the same.
    agreement: usize,
    endpoints: Vec<EndpointState>,
}

#[derive(Debug, Serialize)]
struct EndpointState {
    /// Host and position, never the URL.
    name: String,
    head: Option<u64>,
    /// Blocks below the highest head of all.
    lag_blocks: Option<u64>,
    round_trip_ms: Option<u64>,
    /// Blocks in one range of logs, and calls in one request, to begin with.
    log_range_blocks: Option<u32>,
    batch_calls: Option<u32>,
    fault: Option<String>,
}

pub(super) async fn run(db: &Database, config: &Config, json: bool) -> anyhow::Result<()> {
    // The endpoints of all chains at the same time: one that is silent costs its time limit once.
    let asked = config.chains.iter().map(|(chain, settings)| async move { (*chain, asked(*chain, settings).await) });
    let nodes = futures_util::future::join_all(asked).await;
    let mut chains = Vec::new();
    for (chain, node) in nodes {
        let settings = config.chains.get(&chain).context("a configured chain")?;
        let spec = config.book.get(chain).context("a configured chain is in the chain book")?;
        chains.push(status(db, spec, settings, node).await?);
    }
    if json {
        say(serde_json::to_string_pretty(&chains).context("write the status as JSON")?);
    } else {
        print(&chains);
    }
    Ok(())
}

/// What the endpoints of a chain say.
struct Asked {
    head: Result<u64, String>,
    endpoints: Vec<EndpointState>,
}

async fn asked(chain: ChainId, settings: &ChainConfig) -> Asked {
    let node = match settings.node(chain) {
        Ok(node) => node,
        Err(error) => return Asked { head: Err(error.to_string()), endpoints: Vec::new() },
    };
    node.set_clock(now());
    let heads = node.heads().await;
    let head = node.head().await.map(|header| header.block.number.0).map_err(|error| error.to_string());
    let best = heads.iter().filter_map(|seen| seen.head.as_ref().ok()).map(|header| header.block.number.0).max();
    let statuses = node.statuses();
    let state = |seen: EndpointHead| {
        let limits = statuses.iter().find(|status| status.name == seen.name);
        let number = seen.head.as_ref().ok().map(|header| header.block.number.0);
        EndpointState {
            head: number,
            lag_blocks: best.zip(number).map(|(best, number)| best - number),
            round_trip_ms: number.map(|_| u64::try_from(seen.round_trip.as_millis()).unwrap_or(u64::MAX)),
            log_range_blocks: limits.map(|status| status.log_range_blocks),
            batch_calls: limits.map(|status| status.batch_calls),
            fault: seen.head.err().map(|fault| fault.to_string()),
            name: seen.name,
        }
    };
    Asked { head, endpoints: heads.into_iter().map(state).collect() }
}

async fn status(db: &Database, spec: &ChainSpec, settings: &ChainConfig, asked: Asked) -> anyhow::Result<ChainStatus> {
    let mut connection = db.connection().await?;
    let cursor = scan::store::find_cursor(&mut connection, spec.id).await?;
    let halted = confirm::store::find_halt(&mut connection, spec.id).await?;
    let unread = scan::store::count_internal_unread(&mut connection, spec.id).await?;
    let mut in_force = [None, None];
    for (gate, blocks) in [Gate::Credit, Gate::Release].into_iter().zip(&mut in_force) {
        let history = settings::store::get_history(&mut connection, gate, spec.id).await?;
        *blocks = history.base(history.present(now())).map(|threshold| threshold.value.get());
    }
    let leases = list_leases(&mut connection).await?;
    let scanned = cursor.as_ref().map(|cursor| cursor.tip.number.0);
    let head = asked.head.as_ref().ok().copied();
    let lag_blocks = head.zip(scanned).map(|(head, scanned)| head.saturating_sub(scanned));
    Ok(ChainStatus {
        chain_id: spec.id.get(),
        name: spec.name.clone(),
        head,
        fault: asked.head.err(),
        scanned,
        lag_blocks,
        lag_ms: lag_blocks.map(|blocks| blocks.saturating_mul(u64::from(spec.block_time_ms))),
        final_block: cursor.and_then(|cursor| cursor.final_block).map(|block| block.number.0),
        blocks_not_looked_inside: unread,
        credit_blocks: in_force[0],
        release_blocks: in_force[1],
        outflow_halted: halted,
        held_by: leases.into_iter().find(|lease| lease.held && lease.name == LeaseName::Chain(spec.id)).map(|lease| lease.holder),
        agreement: settings.options.agreement,
        endpoints: asked.endpoints,
    })
}

fn print(chains: &[ChainStatus]) {
    let rows: Vec<Vec<String>> = chains
        .iter()
        .map(|chain| {
            vec![
                chain.chain_id.to_string(),
                chain.name.clone(),
                shown(chain.head),
                shown(chain.scanned),
                shown(chain.lag_blocks),
                chain.lag_ms.map_or_else(|| "-".to_owned(), duration),
                shown(chain.final_block),
                chain.blocks_not_looked_inside.to_string(),
                shown(chain.credit_blocks),
                shown(chain.release_blocks),
                chain.outflow_halted.clone().unwrap_or_else(|| "open".to_owned()),
                chain.held_by.clone().unwrap_or_else(|| "nobody".to_owned()),
            ]
        })
        .collect();
    let head =
        ["chain", "name", "head", "scanned", "lag", "in time", "final", "not traced", "credit", "release", "outflow", "worked on by"];
    table(&head, &rows, &[0, 2, 3, 4, 5, 6, 7, 8, 9]);
    say("");
    let mut rows = Vec::new();
    for chain in chains {
        for endpoint in &chain.endpoints {
            rows.push(vec![
                chain.chain_id.to_string(),
                endpoint.name.clone(),
                shown(endpoint.head),
                shown(endpoint.lag_blocks),
                shown(endpoint.round_trip_ms),
                format!("{} of {}", chain.agreement, chain.endpoints.len()),
                shown(endpoint.log_range_blocks),
                shown(endpoint.batch_calls),
                endpoint.fault.clone().unwrap_or_else(|| "answers".to_owned()),
            ]);
        }
    }
    table(&["chain", "endpoint", "head", "lag", "ms", "must agree", "log range", "batch", ""], &rows, &[0, 2, 3, 4, 6, 7]);
    for chain in chains {
        if let Some(fault) = &chain.fault {
            say(super::super::console::legible(&format!("chain {}: no head: {fault}", chain.chain_id)));
        }
    }
}

fn shown(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Days, hours, minutes or seconds, whole ones of the largest that fits and the next.
fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_told_in_two_units() {
        let told: Vec<String> = [0, 59_999, 61_000, 7_260_000, 90_000_000].into_iter().map(duration).collect();
        assert_eq!(told, ["0 s", "59 s", "1 min 1 s", "2 h 1 min", "1 d 1 h"]);
    }
}
