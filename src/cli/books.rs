//! `reconcile` and `verify`: are the books right, and do they equal the chain?

use anyhow::Context;

use super::console::{say, table};
use super::database;
use crate::chains::ChainBook;
use crate::config::Config;
use crate::daemon::now;
use crate::ledger;
use crate::reconcile;
use crate::units::{AssetId, format_units};

pub(super) async fn reconcile(config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
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
    if broken > 0 {
        anyhow::bail!("{broken} custody accounts differ from the chain");
    }
    Ok(())
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

pub(super) async fn verify(config: &Config) -> anyhow::Result<()> {
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
    let (verdicts, differing) = super::confirm::replay_all(&mut *db.connection().await?).await?;
    if faults > 0 || differing > 0 {
        anyhow::bail!("{faults} faults in the books, {differing} of {verdicts} verdicts differ from the history");
    }
    say("balances equal their entries");
    say(format!("{verdicts} verdicts replayed from the history, differences 0"));
    Ok(())
}

/// How an asset is written; one that left the book is written in raw units.
fn shown(asset: AssetId, book: &ChainBook) -> (&str, u8) {
    book.asset(asset).map_or(("raw units", 0), |facts| (facts.symbol, facts.decimals))
}
