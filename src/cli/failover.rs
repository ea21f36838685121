//! `failover status`, `reconcile` and `adopt`: what to do about a database that is not what it was.

use anyhow::Context;
use clap::Subcommand;

use super::console::{say, table};
use super::database;
use crate::account::IssueLimit;
use crate::config::Config;
use crate::daemon::{self, Adopt, now};
use crate::db::continuity::{self, Loss};
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::{reconcile, scan};

#[derive(Debug, Subcommand)]
pub enum FailoverCommand {
    /// Losses that nobody has reconciled, and what still has to happen first.
    Status,
    /// Say that a loss is dealt with: chains are read again and the books compared. Outflow is then resumed chain by chain.
    Reconcile {
        /// Who says so.
        #[arg(long)]
        by: String,
        /// What was found and done, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Take on a database of another system, as after an upgrade by pg_upgrade or a dump. It counts as a loss.
    Adopt {
        /// Who says so.
        #[arg(long)]
        by: String,
        /// Why it is another one, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: FailoverCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        FailoverCommand::Status => status(&db).await,
        FailoverCommand::Reconcile { by, reason } => reconcile(&db, &by, &reason).await,
        FailoverCommand::Adopt { by, reason } => adopt(&db, config, &by, &reason).await,
    }
}

async fn status(db: &Database) -> anyhow::Result<()> {
    let mut connection = db.connection().await?;
    let losses = continuity::list_open_losses(&mut connection).await?;
    if losses.is_empty() {
        say("the database is what it was; nothing is to be reconciled");
        return Ok(());
    }
    let rows: Vec<Vec<String>> = losses
        .iter()
        .map(|loss| {
            let at = super::threshold::second(loss.found_at);
            vec![loss.id.to_string(), at, loss.cause.clone(), loss.detail.clone(), loss.found_by.clone()]
        })
        .collect();
    table(&["loss", "found", "cause", "what", "by"], &rows, &[0]);
    say("\nNothing leaves any chain. Before you reconcile:");
    let open = before(&mut connection, &losses).await?;
    for line in &open {
        say(format!("- {line}"));
    }
    if open.is_empty() {
        say("- nothing is left to wait for; compare `amanatd reconcile`, `amanatd verify` and `amanatd account rebuild` once more");
    }
    Ok(())
}

/// What must have happened first: every chain is read again as far as it was.
async fn before(connection: &mut sqlx::PgConnection, losses: &[Loss]) -> anyhow::Result<Vec<String>> {
    let tips = scan::store::list_tips(connection).await?;
    let mut open = Vec::new();
    for (chain, block) in losses.iter().flat_map(|loss| &loss.read_again) {
        let read = tips.iter().find(|(of, ..)| of == chain).map(|(_, number, _)| number.0);
        if read.is_none_or(|read| read < *block) {
            let read = read.map_or_else(|| "not read yet".to_owned(), |read| format!("read up to {read}"));
            open.push(format!("chain {chain} is {read}; it had been read up to {block}"));
        }
    }
    Ok(open)
}

async fn reconcile(db: &Database, by: &str, reason: &str) -> anyhow::Result<()> {
    named(by, reason)?;
    let mut connection = db.connection().await?;
    let losses = continuity::list_open_losses(&mut connection).await?;
    anyhow::ensure!(!losses.is_empty(), "nothing is to be reconciled");
    let open = before(&mut connection, &losses).await?;
    anyhow::ensure!(open.is_empty(), "not yet: {}", open.join("; "));
    let tips = scan::store::list_tips(&mut connection).await?;
    let mut findings = Vec::new();
    for (chain, ..) in &tips {
        let count = reconcile::store::count_open(&mut connection, *chain).await?;
        if count > 0 {
            findings.push(format!("chain {chain}: {count}"));
        }
    }
    drop(connection);
    let (by, reason) = (by.to_owned(), reason.to_owned());
    let ids: Vec<i64> = losses.iter().map(|loss| loss.id).collect();
    db.unit(move |connection| {
        Box::pin(async move {
            for id in &ids {
                continuity::reconcile_loss(connection, *id, &by, &reason, now()).await?;
            }
            let detail = serde_json::json!({ "losses": ids, "by": by, "reason": reason });
            event::store::append(connection, &Event { kind: "database.loss_reconciled", payment: None, intent: None, chain: None, detail })
                .await
        })
    })
    .await
    .map_err(|error: DbError| anyhow::Error::new(error))?;
    say("reconciled; outflow stays halted until each chain is resumed:");
    for (chain, ..) in tips {
        say(format!("  amanatd chain resume --chain {chain} --by … --reason …"));
    }
    if !findings.is_empty() {
        say(format!("open findings: {}; look at `amanatd reconcile --findings` before you resume", findings.join(", ")));
    }
    Ok(())
}

async fn adopt(db: &Database, config: &Config, by: &str, reason: &str) -> anyhow::Result<()> {
    named(by, reason)?;
    let path = config.database.high_water_file.as_ref().context("database.high_water_file is not set, so nothing is compared")?;
    let holder = format!("{by}: {reason}");
    match daemon::meet(db, path, &holder, &IssueLimit::default(), Adopt::OtherSystem).await? {
        Some(found) => say(format!("taken on: {found}\nnothing leaves any chain until it is reconciled: amanatd failover status")),
        None => say("it is the database that it was; nothing changed"),
    }
    Ok(())
}

fn named(by: &str, reason: &str) -> anyhow::Result<()> {
    anyhow::ensure!((1..=200).contains(&by.chars().count()), "--by must have 1 to 200 characters");
    anyhow::ensure!((1..=500).contains(&reason.trim().chars().count()), "--reason must have 1 to 500 characters");
    Ok(())
}
