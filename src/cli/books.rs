//! `reconcile` and `verify`: are the books right, and do they equal the chain?

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::console::{say, table};
use super::database;
use crate::chains::ChainBook;
use crate::config::Config;
use crate::daemon::{now, read_heads};
use crate::db::Database;
use crate::ledger;
use crate::ledger::seal::{self, Head};
use crate::reconcile;
use crate::units::{AssetId, format_units};

/// Findings listed at once; more than that is one cause, and the metric counts them.
const FINDINGS_MAX: i64 = 1_000;

#[derive(Debug, clap::Args)]
pub struct ReconcileArgs {
    /// Only list what the daemon has found and is open; the chain is not asked.
    #[arg(long)]
    findings: bool,
}

pub(super) async fn reconcile(args: ReconcileArgs, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    if args.findings {
        let open = list_findings(&db, &config.book).await?;
        anyhow::ensure!(open == 0, "{open} findings are open");
        say("no finding is open");
        return Ok(());
    }
    let mut broken = 0;
    for (chain, settings) in &config.chains {
        let spec = config.book.get(*chain).context("a configured chain is in the chain book")?;
        let node = settings.node(*chain)?;
        node.set_clock(now());
        let report = reconcile::reconcile(&db, &node, spec).await?;
        say(format!("{} at {}", spec.name, report.at));
        let rows: Vec<Vec<String>> = report.lines.iter().map(|line| row(line, &config.book)).collect();
        broken += report.lines.iter().filter(|line| !line.is_equal()).count();
        if rows.is_empty() {
            say("  no custody account yet");
        } else {
            table(&["custody account", "asset", "ledger", "pending", "chain", ""], &rows, &[2, 3, 4]);
        }
    }
    list_findings(&db, &config.book).await?;
    if broken > 0 {
        anyhow::bail!("{broken} custody accounts differ from the chain");
    }
    Ok(())
}

/// Prints open findings; gives how many there are.
async fn list_findings(db: &Database, book: &ChainBook) -> anyhow::Result<usize> {
    let open = reconcile::store::list_findings(&mut *db.connection().await?, None, false, 0, FINDINGS_MAX).await?;
    let rows: Vec<Vec<String>> = open
        .iter()
        .map(|finding| {
            let (symbol, decimals) = shown(finding.line.asset, book);
            let difference = finding.line.difference();
            let sign = if difference.is_negative() { "-" } else { "+" };
            vec![
                finding.id.to_string(),
                finding.line.asset.chain.to_string(),
                finding.line.address.to_string(),
                symbol.to_owned(),
                format!("{sign}{}", format_units(difference.unsigned_abs(), decimals)),
                finding.at.number.to_string(),
                finding.first_seen_at.to_string(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        table(&["finding", "chain", "address", "asset", "unexplained", "block", "since"], &rows, &[0, 1, 4, 5]);
    }
    Ok(rows.len())
}

fn row(line: &reconcile::Line, book: &ChainBook) -> Vec<String> {
    let (symbol, decimals) = shown(line.asset, book);
    let sign = if line.pending_units.is_negative() { "-" } else { "" };
    vec![
        line.address.to_string(),
        symbol.to_owned(),
        format_units(line.ledger_units, decimals),
        format!("{sign}{}", format_units(line.pending_units.unsigned_abs(), decimals)),
        format_units(line.chain_units, decimals),
        if line.is_equal() { "equal" } else { "DIFFERENT" }.to_owned(),
    ]
}

/// What the ledger is compared with.
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Heads of seals that were exported and kept elsewhere, one a line; without it, ledger.seal_heads_file of the
    /// configuration. A ledger whose end was cut off looks whole without them.
    #[arg(long, value_name = "FILE")]
    heads: Option<PathBuf>,
}

pub(super) async fn verify(args: VerifyArgs, config: &Config) -> anyhow::Result<()> {
    let exported = exported_heads(args.heads, config)?;
    let db = database::open(config).await?;
    let mut connection = db.connection().await?;
    let drifting = ledger::store::list_drifting(&mut connection).await?;
    drop(connection);
    let mut faults = drifting.len();
    for account in &drifting {
        say(format!("account {account}: balance or version differs from its entries"));
    }
    let mut rows = Vec::new();
    for sides in reconcile::sides(&db).await? {
        let (symbol, decimals) = shown(sides.asset, &config.book);
        rows.push(vec![
            sides.asset.chain.to_string(),
            symbol.to_owned(),
            format_units(sides.debit_units, decimals),
            format_units(sides.credit_units, decimals),
            if sides.is_equal() { "equal" } else { "DIFFERENT" }.to_owned(),
        ]);
        faults += usize::from(!sides.is_equal());
    }
    if rows.is_empty() {
        say("the ledger is empty");
    } else {
        table(&["chain", "asset", "where it is", "whose it is", ""], &rows, &[0, 2, 3]);
    }
    faults += verify_seals(&mut *db.connection().await?, &exported).await?;
    let (verdicts, differing) = super::confirm::replay_all(&mut *db.connection().await?).await?;
    let (quotes, wrong) = super::quote::verify_all(&mut *db.connection().await?).await?;
    if wrong > 0 {
        anyhow::bail!("{wrong} of {quotes} quotes do not follow from what is stored with them");
    }
    if faults > 0 || differing > 0 {
        anyhow::bail!("{faults} faults in the books, {differing} of {verdicts} verdicts differ from the history");
    }
    say("balances equal their entries");
    say(format!("{verdicts} verdicts replayed from the history, differences 0"));
    say(format!("{quotes} quotes computed again, differences 0"));
    Ok(())
}

/// The heads to compare with. A file that was asked for must be there; one that is only configured is there once
/// something was sealed.
fn exported_heads(asked: Option<PathBuf>, config: &Config) -> anyhow::Result<Vec<Head>> {
    let configured = config.seal_heads_file.clone().filter(|path| path.exists());
    let Some(path) = asked.or(configured) else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    // A line that is being written while we read is not one yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    Ok(read_heads(&path, whole)?)
}

/// Tells of the seals, and how many faults there are.
async fn verify_seals(connection: &mut sqlx::PgConnection, exported: &[Head]) -> anyhow::Result<usize> {
    let found = seal::verify(connection, exported).await?;
    for (place, fault) in found.faults.iter().enumerate() {
        say(format!("{}: {fault}", if place == 0 { "first broken" } else { "also broken" }));
    }
    match &found.head {
        None => say("no seal yet"),
        Some(head) => {
            say(format!("{} seals over {} entries recomputed, {} entries wait to be sealed", found.seals, found.entries, found.unsealed));
            say(format!("seal {}: {}", head.number, head.hash()));
            say(format!("{} signatures of officers hold, {} exported heads compared", found.signatures, exported.len()));
        }
    }
    Ok(found.faults.len())
}

/// How an asset is written; one that left the book is written in raw units.
fn shown(asset: AssetId, book: &ChainBook) -> (&str, u8) {
    book.asset(asset).map_or(("raw units", 0), |facts| (facts.symbol, facts.decimals))
}
