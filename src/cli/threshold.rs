//! `threshold list`, `threshold history`, `threshold set` and `threshold confirm`.
//!
//! Raising needs the database and a name. Lowering needs two officers' tokens, and so the API.

use anyhow::Context;
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::console::{legible, say, table};
use super::{Remote, database, policy};
use crate::api::wire::{SetThreshold, ThresholdOutcome};
use crate::chains::{AssetFacts, ChainBook};
use crate::config::Config;
use crate::daemon::now;
use crate::db::Database;
use crate::settings::{self, Change, ChangeNote, Gate, History, NewChange, SettingsError, ThresholdKey, Tier};
use crate::units::{AssetId, ChainId, Confirmations, ProposalId, format_units, parse_units};

#[derive(Debug, Subcommand)]
pub enum ThresholdCommand {
    /// The thresholds and tiers in force now, and those that are coming.
    #[command(visible_alias = "show")]
    List {
        #[command(flatten)]
        which: Which,
    },
    /// Every change there was, newest first.
    History {
        #[command(flatten)]
        which: Which,
    },
    /// Change a threshold. A rise counts for pending deposits at once. A lower value is proposed with your token,
    /// and takes effect a day after another officer confirmed it, for later blocks only.
    Set(SetArgs),
    /// Confirm a lower threshold that another officer proposed.
    Confirm {
        #[command(flatten)]
        remote: Remote,
        /// The proposal.
        id: ProposalId,
        /// Confirm without asking.
        #[arg(long)]
        yes: bool,
    },
}

/// Which thresholds to show.
#[derive(Debug, Args)]
pub struct Which {
    /// One chain; all configured ones without it.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: Option<ChainId>,
    /// credit or release; both without it.
    #[arg(long)]
    gate: Option<Gate>,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// The chain.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: ChainId,
    /// credit: until a deposit counts; release: until its money may leave again.
    #[arg(long, default_value = "credit")]
    gate: Gate,
    /// Blocks on a transfer, its own being the first: 1 to 10000.
    #[arg(long, allow_negative_numbers = true, required_unless_present = "off", conflicts_with = "off")]
    blocks: Option<i64>,
    /// Switch the tier off.
    #[arg(long, requires = "from_amount")]
    off: bool,
    /// A tier: the symbol of the coin or token that it is about.
    #[arg(long, value_name = "SYMBOL", requires = "from_amount")]
    asset: Option<String>,
    /// A tier: from this amount on, in units of the asset such as 1000 or 0.5.
    #[arg(long, value_name = "AMOUNT", requires = "asset")]
    from_amount: Option<String>,
    /// When it takes effect, such as 2027-03-01T00:00:00Z; at once without it. Never in the past.
    #[arg(long, value_name = "RFC3339")]
    effective_at: Option<String>,
    /// Who changes it; a lower value is proposed by the token's bearer instead.
    #[arg(long)]
    by: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
    /// The daemon's API and an officer's token: needed for a lower value.
    #[command(flatten)]
    remote: Remote,
}

pub(super) async fn run(command: ThresholdCommand, config: &Config) -> anyhow::Result<()> {
    match command {
        ThresholdCommand::List { which } => list(config, &which).await,
        ThresholdCommand::History { which } => history(config, &which).await,
        ThresholdCommand::Set(args) => {
            let change = read(&args, &config.book)?;
            let lowers = match set(&database::open(config).await?, &config.book, change).await {
                Ok(()) => return Ok(()),
                Err(error) => match error.downcast::<SettingsError>() {
                    Ok(lowers @ SettingsError::Lowers { .. }) => lowers,
                    Ok(error) => return Err(error.into()),
                    Err(error) => return Err(error),
                },
            };
            propose(&args).await.with_context(|| lowers.to_string())
        }
        ThresholdCommand::Confirm { remote, id, yes } => policy::confirm(&remote, id, yes).await,
    }
}

/// What was asked for; the error names the option, what it said, and what would do.
fn read(args: &SetArgs, book: &ChainBook) -> anyhow::Result<NewChange> {
    let Some(spec) = book.get(args.chain) else { anyhow::bail!("--chain {} is not listed in chains.toml", args.chain) };
    let blocks = args.blocks.map(Confirmations::new).transpose().map_err(|error| anyhow::anyhow!("--blocks: {error}"))?;
    let tier = match (&args.asset, &args.from_amount) {
        (Some(symbol), Some(amount)) => {
            let (asset, facts) = spec.find_asset(symbol).ok_or_else(|| {
                anyhow::anyhow!("--asset {symbol:?} is not listed for {}; use one of {}", spec.name, spec.symbols().join(", "))
            })?;
            let units = parse_units(amount, facts.decimals).map_err(|error| anyhow::anyhow!("--from-amount: {error}"))?;
            Some(Tier::new(asset.asset, units).map_err(|error| anyhow::anyhow!("--from-amount {amount}: {error}"))?)
        }
        _ => None,
    };
    let effective_at = args.effective_at.as_deref().map(instant).transpose()?;
    let note = ChangeNote { changed_by: args.by.clone(), user: None, reason: args.reason.clone() };
    note.check().map_err(|error| anyhow::anyhow!("--{error}"))?;
    Ok(NewChange { key: ThresholdKey { gate: args.gate, chain: args.chain, tier }, blocks, effective_at, note })
}

/// Proposes what would lower a threshold, with the officer's own token.
async fn propose(args: &SetArgs) -> anyhow::Result<()> {
    let asked = SetThreshold {
        gate: args.gate.name().to_owned(),
        blocks: args.blocks,
        asset: args.asset.clone(),
        from_amount: args.from_amount.clone(),
        effective_at: args.effective_at.as_deref().map(instant).transpose()?,
        reason: args.reason.clone(),
    };
    let key = uuid::Uuid::new_v4().to_string();
    match args.remote.client()?.set_threshold(args.chain, &asked, &key).await? {
        ThresholdOutcome::Proposed { proposal } => policy::proposed(&proposal),
        // Somebody lowered it meanwhile.
        ThresholdOutcome::Set(view) => say(format!("{} is set, history row {}", legible(&view.key), view.history_id)),
    }
    Ok(())
}

pub(super) fn instant(text: &str) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| anyhow::anyhow!("--effective-at {text:?} is not of the form 2027-03-01T00:00:00Z (or with an offset such as +03:30)"))
}

async fn histories(config: &Config, which: &Which) -> anyhow::Result<Vec<History>> {
    let db = database::open(config).await?;
    let mut connection = db.connection().await?;
    let chains: Vec<ChainId> = which.chain.map_or_else(|| config.chains.keys().copied().collect(), |chain| vec![chain]);
    let mut found = Vec::new();
    for chain in chains {
        for gate in Gate::ALL.into_iter().filter(|gate| which.gate.is_none_or(|wanted| wanted == *gate)) {
            found.push(settings::store::get_history(&mut connection, gate, chain).await?);
        }
    }
    if found.iter().all(|history| history.head_id().is_none()) {
        say("no threshold is set yet; the daemon writes the first from chains.toml when it starts");
    }
    Ok(found)
}

async fn list(config: &Config, which: &Which) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for history in histories(config, which).await? {
        let present = history.present(now());
        let mut line = |change: &Change, state: &str| {
            rows.push(vec![
                history.chain.to_string(),
                history.gate.to_string(),
                about(&change.key, &config.book),
                blocks(change.blocks),
                state.to_owned(),
                second(change.effective_at),
                change.id.to_string(),
                change.changed_by.clone(),
                change.reason.clone(),
            ]);
        };
        history.standing(present).into_iter().for_each(|change| line(change, "in force since"));
        history.coming(present).into_iter().for_each(|change| line(change, "coming at"));
    }
    if !rows.is_empty() {
        table(&["chain", "gate", "from", "blocks", "", "", "row", "by", "reason"], &rows, &[0, 3, 6]);
    }
    Ok(())
}

async fn history(config: &Config, which: &Which) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for history in histories(config, which).await? {
        for change in history.newest_first() {
            rows.push(vec![
                history.chain.to_string(),
                history.gate.to_string(),
                change.id.to_string(),
                about(&change.key, &config.book),
                blocks(change.old_blocks),
                blocks(change.blocks),
                second(change.effective_at),
                second(change.created_at),
                change.changed_by.clone(),
                change.reason.clone(),
            ]);
        }
    }
    if !rows.is_empty() {
        table(&["chain", "gate", "row", "from", "old", "new", "effective", "written", "by", "reason"], &rows, &[0, 2, 4, 5]);
    }
    Ok(())
}

async fn set(db: &Database, book: &ChainBook, change: NewChange) -> anyhow::Result<()> {
    let change = db.unit(move |connection| Box::pin(async move { settings::store::raise(connection, &change).await })).await.map_err(
        |error: SettingsError| match error {
            SettingsError::Past { .. } => anyhow::anyhow!("--effective-at: {error}"),
            error => error.into(),
        },
    )?;
    let (old, new) = (change.old_blocks.map_or_else(|| "unset".to_owned(), |old| old.to_string()), blocks(change.blocks));
    let when = if change.effective_at > change.created_at { format!(", from {} on", second(change.effective_at)) } else { String::new() };
    let tier = if change.key.tier.is_some() { format!(" ({})", about(&change.key, book)) } else { String::new() };
    say(format!("{}{tier} {old} -> {new}{when}, history row {}", change.key, change.id));
    Ok(())
}

/// The base, or from which amount on.
pub(super) fn about(key: &ThresholdKey, book: &ChainBook) -> String {
    let Some(tier) = key.tier else { return "any amount".to_owned() };
    match book.asset(AssetId { chain: key.chain, asset: tier.asset }) {
        Some(AssetFacts { symbol, decimals }) => format!("{} {symbol}", format_units(tier.from_units(), decimals)),
        None => format!("{} raw units of {}", tier.from_units(), tier.asset),
    }
}

fn blocks(blocks: Option<Confirmations>) -> String {
    blocks.map_or_else(|| "-".to_owned(), |blocks| blocks.to_string())
}

/// RFC 3339, to the second.
pub(super) fn second(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}
