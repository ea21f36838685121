//! `chain status`, `chain halt` and `chain resume`: the breaker that stops all outflow of a chain.

mod status;

use anyhow::Context;
use clap::Subcommand;

use super::console::say;
use super::database;
use crate::config::Config;
use crate::confirm;
use crate::daemon::now;
use crate::db::{Database, DbError, expect_one};
use crate::event::{self, Event};
use crate::scan;
use crate::units::ChainId;

#[derive(Debug, Subcommand)]
pub enum ChainCommand {
    /// How far each chain is scanned, whether anything may leave it, and how its endpoints stand.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let nothing leave a chain until it is resumed. Watching and crediting go on.
    Halt {
        /// The chain.
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// Who halts it.
        #[arg(long)]
        by: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
    /// Let transactions leave again, after the cause of the halt has been looked at.
    Resume {
        /// The chain.
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// Who resumes it.
        #[arg(long)]
        by: String,
        /// What was found and done, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: ChainCommand, config: &Config) -> anyhow::Result<()> {
    let db = database::open(config).await?;
    match command {
        ChainCommand::Status { json } => status::run(&db, config, json).await,
        ChainCommand::Halt { chain, by, reason } => {
            if let Some(standing) = halt_of(&db, chain).await? {
                anyhow::bail!("chain {chain} is halted already: {standing}");
            }
            let text = format!("{reason} (by {by})");
            change(&db, chain, "chain.halted", &by, &reason, Some(text)).await?;
            say(format!("nothing leaves chain {chain} now"));
            Ok(())
        }
        ChainCommand::Resume { chain, by, reason } => {
            if halt_of(&db, chain).await?.is_none() {
                anyhow::bail!("chain {chain} is not halted");
            }
            change(&db, chain, "chain.resumed", &by, &reason, None).await?;
            let mut connection = db.connection().await?;
            match confirm::store::find_halt(&mut connection, chain).await? {
                Some(cause) => say(format!("chain {chain} will halt again: {cause}")),
                None => say(format!("outflow of chain {chain} is resumed; the daemon halts it again if the cause still stands")),
            }
            Ok(())
        }
    }
}

/// Why a chain is halted; a chain that was never scanned cannot be halted, and that is an error.
async fn halt_of(db: &Database, chain: ChainId) -> anyhow::Result<Option<String>> {
    let mut connection = db.connection().await?;
    let cursor = scan::store::find_cursor(&mut connection, chain).await?;
    let cursor = cursor.with_context(|| format!("--chain {chain} has not been scanned yet, so nothing can leave it"))?;
    Ok(cursor.outflow_halted)
}

/// Changes the breaker and records who did and why, together.
async fn change(db: &Database, chain: ChainId, kind: &'static str, by: &str, reason: &str, halt: Option<String>) -> anyhow::Result<()> {
    if !(1..=200).contains(&by.chars().count()) {
        anyhow::bail!("--by must have 1 to 200 characters");
    }
    if !(1..=500).contains(&reason.chars().count()) {
        anyhow::bail!("--reason must have 1 to 500 characters");
    }
    let detail = serde_json::json!({ "by": by, "reason": reason });
    db.unit(move |connection| {
        Box::pin(async move {
            match halt {
                Some(text) => expect_one(u64::from(scan::store::halt_outflow(connection, chain, &text, now()).await?), "a chain to halt")?,
                None => scan::store::resume_outflow(connection, chain).await?,
            }
            event::store::append(connection, &Event { kind, payment: None, intent: None, chain: Some(chain), detail }).await?;
            Ok::<(), DbError>(())
        })
    })
    .await?;
    Ok(())
}
