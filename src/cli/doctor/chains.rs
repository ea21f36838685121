//! Each chain, and each of its endpoints by itself: the right chain, the right decimals, how far behind, whether
//! headers hash to what they are called, and what state and traces it still has. Then what the database says of
//! the chain: thresholds, a halt, open findings.

use alloy::primitives::Address;
use futures_util::future::join_all;
use secrecy::SecretString;

use super::{Report, causes};
use crate::chains::{ChainSpec, Finality};
use crate::config::{ChainConfig, Config};
use crate::daemon::now;
use crate::db::{Database, DbError};
use crate::rpc::{Fault, FinalityTag, Header, Node, NodeError, NodeOptions, ProviderLimits, RpcError, VerifyError};
use crate::settings::{self, Gate};
use crate::units::{Asset, BlockNumber, BlockRef, ChainId};
use crate::{confirm, reconcile, scan};

/// How far below the head the reconciler may ask for balances.
const STATE_BLOCKS: u64 = 120;
/// Deep enough that only an archive answers.
const ARCHIVE_BLOCKS: u64 = 20_000;
/// An endpoint this far below the best one is of no use for agreement.
const LAG_BLOCKS: u64 = 20;
/// Block times that a head may be old before somebody should look; and at least a minute.
const OLD_HEAD_BLOCKS: u64 = 20;
/// Producers date their blocks a few seconds ahead at most.
const FUTURE_SECONDS: i64 = 20;

pub(super) async fn examine(report: &mut Report, config: &Config, database: Option<&Database>) {
    // All endpoints at the same time: one that is silent costs its time limit once.
    let asked = join_all(config.chains.iter().map(|(chain, settings)| async move {
        let spec = config.book.get(*chain);
        let endpoints = match spec {
            Some(spec) => {
                join_all(
                    names(*chain, settings)
                        .into_iter()
                        .zip(&settings.endpoints)
                        .map(|(name, endpoint)| ask(spec, settings, name, endpoint)),
                )
                .await
            }
            None => Vec::new(),
        };
        (*chain, spec, settings, endpoints)
    }))
    .await;
    for (chain, spec, settings, endpoints) in asked {
        let Some(spec) = spec else { continue };
        examine_endpoints(report, spec, settings, &endpoints);
        if let Some(database) = database
            && let Err(error) = examine_stored(report, spec, database).await
        {
            report.fail("chain", chain.to_string(), causes(&error), "look into PostgreSQL's log");
        }
    }
}

/// Host and position, as everywhere.
fn names(chain: ChainId, settings: &ChainConfig) -> Vec<String> {
    settings.node(chain).map(|node| node.statuses().into_iter().map(|status| status.name).collect()).unwrap_or_default()
}

/// What one endpoint answered, alone.
struct Asked {
    name: String,
    head: Result<Header, String>,
    /// Whether the hash of its headers was computed and compared.
    verifies: bool,
    verified: Result<(), VerifyError>,
    /// State at [`STATE_BLOCKS`] and at [`ARCHIVE_BLOCKS`] below the head; `None` where the chain is shorter.
    state: Option<Result<(), String>>,
    archive: Option<Result<(), String>>,
    traces: bool,
    /// The node's word for final, where the chain goes by one.
    names_final: Option<bool>,
}

async fn ask(spec: &ChainSpec, settings: &ChainConfig, name: String, endpoint: &(SecretString, ProviderLimits)) -> Asked {
    let node = match alone(spec.id, settings, endpoint) {
        Ok(node) => node,
        Err(error) => return Asked { head: Err(error.to_string()), ..Asked::silent(name) },
    };
    node.set_clock(now());
    let verified = node.verify(spec).await;
    let head = match node.head().await {
        Ok(head) => head,
        Err(error) => return Asked { head: Err(fault(&error)), verified, ..Asked::silent(name) },
    };
    let state = state_at(&node, head.block, STATE_BLOCKS).await;
    let archive = state_at(&node, head.block, ARCHIVE_BLOCKS).await;
    let traces = matches!(node.calls(&[head.block]).await, Ok(Some(_)));
    let tag = match spec.finality {
        Finality::Finalized => Some(FinalityTag::Finalized),
        Finality::Safe => Some(FinalityTag::Safe),
        Finality::Depth => None,
    };
    let names_final = match tag {
        Some(tag) => Some(matches!(node.tagged(tag).await, Ok(Some(_)))),
        None => None,
    };
    let verifies = settings.options.verify_header_hash;
    Asked { name, head: Ok(head), verifies, verified, state, archive, traces, names_final }
}

impl Asked {
    fn silent(name: String) -> Self {
        let head = Err("no answer".to_owned());
        Self { name, head, verifies: false, verified: Ok(()), state: None, archive: None, traces: false, names_final: None }
    }
}

fn alone(chain: ChainId, settings: &ChainConfig, endpoint: &(SecretString, ProviderLimits)) -> Result<Node, NodeError> {
    Node::with_limits(chain, std::slice::from_ref(endpoint), NodeOptions { agreement: 1, ..settings.options })
}

async fn state_at(node: &Node, head: BlockRef, below: u64) -> Option<Result<(), String>> {
    let number = head.number.0.checked_sub(below)?;
    let found = match node.header_by_number(BlockNumber(number)).await {
        Ok(Some(header)) => node.balance(Asset::Native, Address::ZERO, header.block).await.map(drop).map_err(|error| fault(&error)),
        Ok(None) => Err(format!("block {number} is not there")),
        Err(error) => Err(fault(&error)),
    };
    Some(found)
}

/// Without the endpoint's name, which stands beside it.
fn fault(error: &RpcError) -> String {
    error.fault.to_string()
}

fn examine_endpoints(report: &mut Report, spec: &ChainSpec, settings: &ChainConfig, endpoints: &[Asked]) {
    let best = endpoints.iter().filter_map(|asked| asked.head.as_ref().ok()).map(|head| head.block.number.0).max();
    let mut good = 0;
    let mut tracing = 0;
    for asked in endpoints {
        good += usize::from(examine_endpoint(report, spec, asked, best));
        tracing += usize::from(asked.traces);
    }
    let (chain, needed) = (spec.id.to_string(), settings.options.agreement);
    let found = format!("{good} of {} endpoints are good, {needed} must agree", endpoints.len());
    if good < needed {
        report.fail(
            "agreement",
            chain.clone(),
            found,
            "nothing is read on this chain until enough endpoints are: mend them, or configure others",
        );
    } else if good == needed && endpoints.len() > 1 {
        report.warn("agreement", chain.clone(), found, "one more failure stops this chain: configure one endpoint more than must agree");
    } else if needed == 1 {
        let remedy = "what this one endpoint says is believed: configure two more of other operators, unless it is your own node";
        report.warn("agreement", chain.clone(), found, remedy);
    } else {
        report.ok("agreement", chain.clone(), found);
    }
    if settings.scan.internal && tracing < needed {
        let remedy = "coin that a contract sends is then found by balance only: add endpoints with trace_block or debug_traceBlockByHash";
        report.warn("traces", chain, format!("{tracing} endpoints look inside transactions, {needed} must agree"), remedy);
    } else if settings.scan.internal {
        report.ok("traces", chain, format!("{tracing} endpoints look inside transactions"));
    }
    if !settings.options.verify_header_hash {
        let remedy = "leave it off only for a chain whose headers have fields that this version does not know";
        report.warn("endpoint", spec.id.to_string(), "verify_header_hash is off: a block is believed by its name", remedy);
    }
    if let Some(head) = endpoints.iter().filter_map(|asked| asked.head.as_ref().ok()).max_by_key(|head| head.block.number) {
        clock(report, spec, head);
    }
}

/// Whether it is good enough to agree with others.
fn examine_endpoint(report: &mut Report, spec: &ChainSpec, asked: &Asked, best: Option<u64>) -> bool {
    const AREA: &str = "endpoint";
    let subject = format!("{} {}", spec.id, asked.name);
    match &asked.verified {
        Ok(()) => {}
        Err(VerifyError::Rpc { source, .. }) if matches!(source.fault, Fault::WrongChain { .. }) => {
            report.fail(AREA, subject, fault(source), "it serves another chain: correct its URL");
            return false;
        }
        // Not answering shows in the head, too.
        Err(VerifyError::Rpc { .. }) => {}
        Err(error) => {
            report.fail(AREA, subject, causes(error), "correct the URL or chains.toml: with other decimals every amount is wrong");
            return false;
        }
    }
    let head = match &asked.head {
        Ok(head) => head,
        Err(found) => {
            let remedy = "correct its URL or key, allow its address in the unit (IPAddressAllow), or replace it. A hash that is not that \
                          of the header's fields: do not trust it";
            report.fail(AREA, subject, found.clone(), remedy);
            return false;
        }
    };
    let lag = best.map_or(0, |best| best.saturating_sub(head.block.number.0));
    let mut found = format!("head {}, {lag} behind", head.block.number);
    if asked.verifies {
        found.push_str(", headers hash");
    }
    if lag > LAG_BLOCKS {
        report.warn(AREA, subject, found, "it is not in step with the others: wait until it is synchronised, or replace it");
        return false;
    }
    if asked.traces {
        found.push_str(", traces");
    }
    if matches!(asked.archive, Some(Ok(()))) {
        found.push_str(", archive");
    }
    if let Some(Err(why)) = &asked.state {
        let remedy = "findings are looked for up to 120 blocks below the head: use a node that keeps that much state";
        report.warn(AREA, subject, format!("{found}; no state {STATE_BLOCKS} blocks back: {why}"), remedy);
    } else if asked.names_final == Some(false) {
        let remedy = "the release gate goes by the block that nodes call final: use another node, or finality = \"depth\" in chains.toml";
        report.warn(AREA, subject, format!("{found}; names no final block"), remedy);
    } else {
        report.ok(AREA, subject, found);
    }
    true
}

/// A head from the future means that our clock is late, or the producers' are not to be trusted.
fn clock(report: &mut Report, spec: &ChainSpec, head: &Header) {
    let subject = format!("of chain {}", spec.id);
    let age = now().unix_timestamp().saturating_sub(i64::try_from(head.timestamp).unwrap_or(i64::MAX));
    let old = (u64::from(spec.block_time_ms).saturating_mul(OLD_HEAD_BLOCKS) / 1_000).max(60);
    let found = format!("its head is {age} s old");
    if age < -FUTURE_SECONDS {
        let found = format!("its head is {} s in the future", age.saturating_neg());
        report.fail("clock", subject, found, "synchronise this host's clock (timedatectl), and compare with another chain");
    } else if age.unsigned_abs() > old && age > 0 {
        report.warn("clock", subject, found, "the chain stands still, its endpoints lag, or this host's clock is ahead");
    } else {
        report.ok("clock", subject, found);
    }
}

// === what the database says ===

async fn examine_stored(report: &mut Report, spec: &ChainSpec, database: &Database) -> Result<(), DbError> {
    let chain = spec.id.to_string();
    let mut connection = database.connection().await?;
    for (gate, default) in [(Gate::Credit, spec.confirmation_threshold), (Gate::Release, spec.release_threshold)] {
        let history = settings::store::get_history(&mut connection, gate, spec.id).await?;
        let subject = format!("{chain} {}", gate.name());
        let Some(base) = history.base(history.present(now())) else {
            report.warn(
                "thresholds",
                subject,
                format!("none yet; the daemon begins with {} of chains.toml", default.get()),
                "nothing, or set one",
            );
            continue;
        };
        let found = format!("{} blocks, {} in chains.toml", base.value.get(), default.get());
        if base.value < default {
            report.warn(
                "thresholds",
                subject,
                found,
                "lower than what chains.toml advises: amanatd threshold history says who set it and why",
            );
        } else {
            report.ok("thresholds", subject, found);
        }
    }
    match scan::store::find_cursor(&mut connection, spec.id).await? {
        None => report.warn("chain", chain.clone(), "never read yet", "start the daemon"),
        Some(cursor) => report.ok("chain", chain.clone(), format!("read up to block {}", cursor.tip.number)),
    }
    if let Some(reason) = confirm::store::find_halt(&mut connection, spec.id).await? {
        report.warn(
            "chain",
            chain.clone(),
            format!("outflow is halted: {reason}"),
            "operating.md, Halted outflow; then amanatd chain resume",
        );
    }
    let open = reconcile::store::count_open(&mut connection, spec.id).await?;
    if open > 0 {
        report.warn("chain", chain, format!("{open} findings are open"), "amanatd reconcile --findings");
    }
    Ok(())
}
