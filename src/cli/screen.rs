//! `screen list`, `screen show`, `screen clear` and `screen confirm`.

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::Remote;
use super::console::{legible, say, table};
use crate::api::wire::{DecideScreening, ScreeningView};

#[derive(Debug, Subcommand)]
pub enum ScreenCommand {
    /// Credited transfers that are held, or all.
    List {
        #[command(flatten)]
        remote: Remote,
        /// Those that pass, too.
        #[arg(long)]
        all: bool,
    },
    /// One transfer, with every answer of the screeners.
    Show {
        #[command(flatten)]
        remote: Remote,
        /// The screening, by its number.
        screening: i64,
    },
    /// Free a held transfer: a resolver says that it may go on.
    Clear(RulingArgs),
    /// Note that a held transfer is what the screeners say. It stays held.
    Confirm(RulingArgs),
}

#[derive(Debug, Args)]
pub struct RulingArgs {
    #[command(flatten)]
    remote: Remote,
    /// The screening, by its number.
    screening: i64,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(command: ScreenCommand) -> anyhow::Result<()> {
    match command {
        ScreenCommand::List { remote, all } => list(&remote, all).await,
        ScreenCommand::Show { remote, screening } => {
            show(&remote.client()?.screening(screening).await?);
            Ok(())
        }
        ScreenCommand::Clear(args) => decide(args, "clear").await,
        ScreenCommand::Confirm(args) => decide(args, "confirm").await,
    }
}

async fn decide(args: RulingArgs, decision: &str) -> anyhow::Result<()> {
    let ruling = DecideScreening { decision: decision.to_owned(), reason: args.reason };
    let view = args.remote.client()?.decide_screening(args.screening, &ruling, &Uuid::new_v4().to_string()).await?;
    say(format!("screening {}: {}", view.id, standing(&view)));
    Ok(())
}

async fn list(remote: &Remote, all: bool) -> anyhow::Result<()> {
    let client = remote.client()?;
    let state = if all { "all" } else { "held" };
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.screenings(state, cursor.as_deref()).await?;
        rows.extend(page.screenings.iter().map(row));
        cursor = page.next_cursor;
        // Ends: each page begins after the last one.
        if cursor.is_none() {
            break;
        }
    }
    if rows.is_empty() {
        say(if all { "nothing was credited yet" } else { "nothing is held" });
    } else {
        table(&["screening", "chain", "amount", "from", "standing", "why", "payment"], &rows, &[0, 1]);
    }
    Ok(())
}

fn row(view: &ScreeningView) -> Vec<String> {
    vec![
        view.id.to_string(),
        view.chain_id.to_string(),
        format!("{} {}", view.amount, view.symbol),
        view.sender.to_string(),
        standing(view),
        [view.hits.as_slice(), view.missing.as_slice()].concat().join(" "),
        view.payment_id.map_or_else(|| "-".to_owned(), |payment| payment.to_string()),
    ]
}

fn standing(view: &ScreeningView) -> String {
    let state = if view.passes { "passes" } else { "held" };
    match &view.decision {
        Some(decision) => format!("{state}, {decision}"),
        None => format!("{state}, {}", view.outcome.as_deref().unwrap_or("not looked at yet")),
    }
}

fn show(view: &ScreeningView) {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("screening", view.id.to_string()),
        ("standing", standing(view)),
        ("amount", format!("{} {} ({} base units) on chain {}", view.amount, view.symbol, view.amount_units, view.chain_id)),
        ("tx", view.tx_hash.to_string()),
        ("sender", view.sender.to_string()),
        ("signed by", or_none(view.origin.map(|origin| origin.to_string()))),
        ("payment", or_none(view.payment_id.map(|payment| payment.to_string()))),
        ("hits", view.hits.join(" ")),
        ("missing", view.missing.join(" ")),
        ("decided by", or_none(view.decided_by.map(|user| user.to_string()))),
        ("reason", or_none(view.reason.clone())),
    ] {
        say(format!("{name:<12} {}", legible(&value)));
    }
    for verdict in &view.verdicts {
        say(format!("{:<12} {} at {}: {}", verdict.screener, verdict.outcome, verdict.screened_at, legible(&verdict.evidence.to_string())));
    }
}
