//! `screen list`, `screen show`, `screen clear` and `screen confirm`; `screen recipients`, `screen clear-recipient` and
//! `screen confirm-recipient`.

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
    /// Those whom money would go to and who are held, or all.
    Recipients {
        #[command(flatten)]
        remote: Remote,
        /// Those that pass, too.
        #[arg(long)]
        all: bool,
    },
    /// Free a held recipient: a resolver says that money may go there.
    ClearRecipient(RulingArgs),
    /// Note that a held recipient is what the screeners say. Nothing goes there.
    ConfirmRecipient(RulingArgs),
}

#[derive(Debug, Args)]
pub struct RulingArgs {
    #[command(flatten)]
    remote: Remote,
    /// The screening or the recipient, by its number.
    number: i64,
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
        ScreenCommand::Recipients { remote, all } => recipients(&remote, all).await,
        ScreenCommand::ClearRecipient(args) => decide_recipient(args, "clear").await,
        ScreenCommand::ConfirmRecipient(args) => decide_recipient(args, "confirm").await,
    }
}

async fn decide(args: RulingArgs, decision: &str) -> anyhow::Result<()> {
    let ruling = DecideScreening { decision: decision.to_owned(), reason: args.reason };
    let view = args.remote.client()?.decide_screening(args.number, &ruling, &Uuid::new_v4().to_string()).await?;
    say(format!("screening {}: {}", view.id, standing_of(&view)));
    Ok(())
}

async fn decide_recipient(args: RulingArgs, decision: &str) -> anyhow::Result<()> {
    let ruling = DecideScreening { decision: decision.to_owned(), reason: args.reason };
    let view = args.remote.client()?.decide_recipient(args.number, &ruling, &Uuid::new_v4().to_string()).await?;
    say(format!("recipient {}: {}", view.id, standing(view.passes, view.decision.as_deref(), view.outcome.as_deref())));
    Ok(())
}

async fn recipients(remote: &Remote, all: bool) -> anyhow::Result<()> {
    let client = remote.client()?;
    let state = if all { "all" } else { "held" };
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = client.recipients(state, cursor.as_deref()).await?;
        rows.extend(page.recipients.iter().map(|view| {
            vec![
                view.id.to_string(),
                view.chain_id.to_string(),
                view.address.to_string(),
                standing(view.passes, view.decision.as_deref(), view.outcome.as_deref()),
                [view.hits.as_slice(), view.missing.as_slice()].concat().join(" "),
                view.payment_id.to_string(),
            ]
        }));
        cursor = page.next_cursor;
        // Ends: each page begins after the last one.
        if cursor.is_none() {
            break;
        }
    }
    if rows.is_empty() {
        say(if all { "nothing was ordered yet" } else { "nobody is held" });
    } else {
        table(&["recipient", "chain", "address", "standing", "why", "payment"], &rows, &[0, 1]);
    }
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
        standing_of(view),
        [view.hits.as_slice(), view.missing.as_slice()].concat().join(" "),
        view.payment_id.map_or_else(|| "-".to_owned(), |payment| payment.to_string()),
    ]
}

fn standing(passes: bool, decision: Option<&str>, outcome: Option<&str>) -> String {
    let state = if passes { "passes" } else { "held" };
    format!("{state}, {}", decision.or(outcome).unwrap_or("not looked at yet"))
}

fn standing_of(view: &ScreeningView) -> String {
    standing(view.passes, view.decision.as_deref(), view.outcome.as_deref())
}

fn show(view: &ScreeningView) {
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("screening", view.id.to_string()),
        ("standing", standing_of(view)),
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
