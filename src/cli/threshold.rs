//! `threshold show` and `threshold set`.

use clap::Subcommand;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::console::{say, table};
use super::database;
use crate::config::Config;
use crate::db::{Database, DbError};
use crate::settings::{self, ChangeNote};
use crate::units::{ChainId, Confirmations};

#[derive(Debug, Subcommand)]
pub enum ThresholdCommand {
    /// The thresholds in force and every change before them.
    Show {
        /// One chain; all configured ones without it.
        #[arg(long, value_name = "CHAIN_ID")]
        chain: Option<ChainId>,
    },
    /// Change a chain's threshold. A rise counts for pending deposits at once, a fall only for later blocks.
    Set {
        /// The chain.
        #[arg(long, value_name = "CHAIN_ID")]
        chain: ChainId,
        /// Blocks on a transfer, its own being the first: 1 to 10000.
        #[arg(long, allow_negative_numbers = true)]
        blocks: i64,
        /// Who changes it.
        #[arg(long)]
        by: String,
        /// Why, for the record.
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(command: ThresholdCommand, config: &Config) -> anyhow::Result<()> {
    match command {
        ThresholdCommand::Show { chain } => {
            let chains: Vec<ChainId> = chain.map_or_else(|| config.chains.keys().copied().collect(), |chain| vec![chain]);
            show(&database::open(config).await?, &chains).await
        }
        ThresholdCommand::Set { chain, blocks, by, reason } => {
            if config.book.get(chain).is_none() {
                anyhow::bail!("--chain {chain} is not listed in chains.toml");
            }
            let value = Confirmations::new(blocks).map_err(|error| anyhow::anyhow!("--blocks: {error}"))?;
            if !(1..=200).contains(&by.chars().count()) {
                anyhow::bail!("--by must have 1 to 200 characters");
            }
            if !(1..=500).contains(&reason.chars().count()) {
                anyhow::bail!("--reason must have 1 to 500 characters");
            }
            set(&database::open(config).await?, chain, value, ChangeNote { changed_by: by, reason }).await
        }
    }
}

async fn show(db: &Database, chains: &[ChainId]) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    let mut connection = db.connection().await?;
    for chain in chains {
        for (place, change) in settings::store::list_threshold_changes(&mut connection, *chain).await?.into_iter().enumerate() {
            rows.push(vec![
                chain.to_string(),
                change.id.to_string(),
                change.old_value.map_or_else(|| "-".to_owned(), |old| old.to_string()),
                change.new_value.to_string(),
                if place == 0 { "in force" } else { "" }.to_owned(),
                second(change.created_at),
                change.changed_by,
                change.reason,
            ]);
        }
    }
    if rows.is_empty() {
        say("no threshold is set yet; the daemon writes the first from chains.toml when it starts");
        return Ok(());
    }
    table(&["chain", "row", "from", "to", "", "at", "by", "reason"], &rows, &[0, 1, 2, 3]);
    Ok(())
}

/// RFC 3339, to the second.
fn second(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

async fn set(db: &Database, chain: ChainId, value: Confirmations, note: ChangeNote) -> anyhow::Result<()> {
    let (old, new) = db
        .unit(move |connection| {
            Box::pin(async move {
                let old = settings::store::find_threshold(connection, chain).await?;
                let new = settings::store::set_threshold(connection, chain, value, &note).await?;
                Ok::<_, DbError>((old, new))
            })
        })
        .await?;
    let old = old.map_or_else(|| "unset".to_owned(), |old| old.value.to_string());
    say(format!("confirmation_threshold:{chain} {old} -> {}, history row {}", new.value, new.history_id));
    Ok(())
}
