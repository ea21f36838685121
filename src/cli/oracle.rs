//! `oracle`: thresholds of quoting with their history, what the machine remembers, acceptance vectors, and the
//! replay of a past crisis.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::console::{say, table};
use super::database;
use super::threshold::second;
use crate::config::Config;
use crate::daemon::now;
use crate::db::Database;
use crate::quote::chart::{self, Panel};
use crate::quote::limits::{self, LimitKey, SPECS};
use crate::quote::replay::{self, GOAL_HALT_BPS, GOALS, History, Method, Score, Spread, Texts};
use crate::quote::{self, LimitBook, Limits, vectors};
use crate::settings::{self, ChangeNote, NewNumber, NumberChange, SettingsError};

#[derive(Debug, Subcommand)]
pub enum OracleCommand {
    /// Run a file of acceptance vectors through the code that quotes. Fails if one differs.
    Vectors {
        /// In the schema oracle-vectors/1.
        file: PathBuf,
    },
    /// Run a past crisis through the code that quotes, and draw it. Fails if a goal is missed.
    Replay(ReplayArgs),
    /// The thresholds in force.
    Limits {
        /// One token, currency or chain, such as USDC; those for all without it.
        #[arg(long, default_value = "")]
        scope: String,
    },
    /// Every change of a threshold there was, newest first.
    History,
    /// Change a threshold.
    Set(SetArgs),
    /// Refuse a token until an instant, or until `oracle resume`.
    Halt(HaltArgs),
    /// Take a token again that an operator has halted.
    Resume(WhoArgs),
    /// What is remembered of each pair: the depeg machine, the last accepted price.
    Status,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The folder with the minutes of March 2023.
    folder: PathBuf,
    /// Beyond this there is no quote.
    #[arg(long, default_value_t = GOAL_HALT_BPS)]
    halt_bps: u32,
    /// Where the picture goes.
    #[arg(long, default_value = "oracle-replay.svg")]
    svg: PathBuf,
}

#[derive(Debug, Args)]
pub struct SetArgs {
    /// `depeg_enter_bps` for all, or `depeg_enter_bps:USDC` for one.
    #[arg(long)]
    key: LimitKey,
    /// A whole number inside of its bounds.
    #[arg(long, allow_negative_numbers = true)]
    value: i64,
    /// When it takes effect; at once without it. Never in the past.
    #[arg(long, value_name = "RFC3339")]
    effective_at: Option<String>,
    /// Until when it holds; what was there before follows.
    #[arg(long, value_name = "RFC3339")]
    until: Option<String>,
    /// Who changes it.
    #[arg(long)]
    by: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Args)]
pub struct HaltArgs {
    #[command(flatten)]
    who: WhoArgs,
    /// Until when; without it, until `oracle resume`.
    #[arg(long, value_name = "RFC3339")]
    until: Option<String>,
}

#[derive(Debug, Args)]
pub struct WhoArgs {
    /// The token, by the base of its pair: USDC.
    #[arg(long)]
    token: String,
    /// Who says so.
    #[arg(long)]
    by: String,
    /// Why, for the record.
    #[arg(long)]
    reason: String,
}

/// `config` is read only by what needs it: vectors and replay run anywhere.
pub(super) async fn run(command: OracleCommand, config: impl Fn() -> Result<Config, crate::config::ConfigError>) -> anyhow::Result<()> {
    match command {
        OracleCommand::Vectors { file } => run_vectors(&file),
        OracleCommand::Replay(args) => run_replay(&args),
        OracleCommand::Limits { scope } => show_limits(&database::open(&config()?).await?, &scope).await,
        OracleCommand::History => show_history(&database::open(&config()?).await?).await,
        OracleCommand::Set(args) => {
            let note = ChangeNote { changed_by: args.by, user: None, reason: args.reason };
            let change = Change {
                key: args.key,
                value: args.value,
                from: instant("--effective-at", args.effective_at)?,
                until: instant("--until", args.until)?,
            };
            set(&database::open(&config()?).await?, change, note).await
        }
        OracleCommand::Halt(HaltArgs { who, until }) => halt(&config()?, who, 1, instant("--until", until)?).await,
        OracleCommand::Resume(who) => halt(&config()?, who, 0, None).await,
        OracleCommand::Status => status(&database::open(&config()?).await?).await,
    }
}

// === without a database ===

fn run_vectors(file: &Path) -> anyhow::Result<()> {
    let outcomes = vectors::run(&read(file)?).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?;
    let mut failed = 0;
    for outcome in &outcomes {
        let good = outcome.differences.is_empty();
        failed += usize::from(!good);
        say(format!("{} {}", if good { "pass" } else { "FAIL" }, outcome.name));
        outcome.differences.iter().for_each(|difference| say(format!("     {difference}")));
    }
    say(format!("{} passed, {failed} failed", outcomes.len() - failed));
    if failed > 0 {
        anyhow::bail!("{failed} of {} vectors failed", outcomes.len())
    }
    Ok(())
}

fn run_replay(args: &ReplayArgs) -> anyhow::Result<()> {
    let text = |name: &str| read(&args.folder.join(name));
    let (kraken, binance) = (text("kraken_usdcusd_1m.csv")?, text("binance_usdcusdt_1m.csv")?);
    let (coinbase, chainlink) = (text("coinbase_usdtusd_1m.csv")?, text("chainlink_eth_usdc_usd_rounds.csv")?);
    let texts = Texts { kraken_usdc: &kraken, binance_usdc: &binance, coinbase_usdt: &coinbase, chainlink: &chainlink };
    let history = History::read(texts).map_err(|error| anyhow::anyhow!("{error}"))?;
    let limits = Limits { depeg_halt_bps: args.halt_bps, ..Limits::default() };
    let start = OffsetDateTime::from_unix_timestamp(replay::WINDOW_START_S)?;
    say(format!(
        "USDC from {}, {} minutes, against Kraken's USDC/USD close; halt at {} bps",
        second(start),
        replay::WINDOW_MINUTES,
        args.halt_bps
    ));
    let mut rows = Vec::new();
    let mut missed = Vec::new();
    let mut pictures = Vec::new();
    for method in Method::ALL {
        let minutes = history.run(method, &limits);
        let score = replay::score(&minutes);
        rows.push(row(method.name(), &score));
        if let Some(goal) = GOALS.iter().find(|goal| goal.method == method) {
            pictures.push(Panel { caption: caption(method).to_owned(), figures: sentence(&score), minutes });
            if args.halt_bps == GOAL_HALT_BPS {
                let met = goal.is_met(&score);
                let (loss, overcharge) = (goal_figures(goal.seller_loss), goal_figures(goal.payer_overcharge));
                let quoted = format!("{} %", tenths(whole(goal.quoted_permille), 1));
                let verdict = if met { "met" } else { "MISSED" };
                rows.push(vec!["  its goal".to_owned(), loss, overcharge, quoted, String::new(), verdict.to_owned()]);
                missed.extend((!met).then_some(method.name()));
            }
        }
    }
    let default = Limits::default();
    if args.halt_bps != default.depeg_halt_bps {
        let name = format!("amanatd, three families, halt at {}", default.depeg_halt_bps);
        rows.push(row(&name, &replay::score(&history.run(Method::Ours, &default))));
    }
    say("bps of the true price: mean / 95th percentile / maximum");
    table(&["", "seller's loss", "payer's overcharge", "quoted", "longest refusal", "refusals"], &rows, &[1, 2, 3, 4]);
    let subtitle = format!(
        "{} minutes from {} on, each decided when it had ended, against Kraken's USDC/USD close; halt at {} bps",
        replay::WINDOW_MINUTES,
        second(start),
        args.halt_bps
    );
    let picture = chart::draw("USDC in March 2023, as amanatd would have quoted it", &subtitle, &pictures);
    std::fs::write(&args.svg, picture).with_context(|| format!("write {}", args.svg.display()))?;
    say(format!("chart: {}", args.svg.display()));
    if !missed.is_empty() {
        anyhow::bail!("worse than its goal: {}", missed.join("; "))
    }
    Ok(())
}

fn row(name: &str, score: &Score) -> Vec<String> {
    let refusals: Vec<String> = score.refusals.iter().map(|(code, count)| format!("{code} {count}")).collect();
    vec![
        name.to_owned(),
        figures(score.seller_loss),
        figures(score.payer_overcharge),
        format!("{} %", tenths(whole(score.quoted * 100_000 / score.minutes.max(1)), 100)),
        format!("{} min", score.longest_refusal),
        refusals.join(", "),
    ]
}

const fn caption(method: Method) -> &'static str {
    match method {
        Method::OursWithoutReference => "Two families: without Kraken, which is also the reference",
        _ => "Three families: Kraken, Binance × Coinbase, Chainlink",
    }
}

fn sentence(score: &Score) -> String {
    format!(
        "quoted {} % of the minutes; seller's loss {} bps, payer's overcharge {} bps (mean / 95th percentile / maximum)",
        tenths(whole(score.availability_permille()), 1),
        figures(score.seller_loss),
        figures(score.payer_overcharge)
    )
}

fn figures(Spread { mean, p95, max }: Spread) -> String {
    [mean, p95, max].map(|thousandths| tenths(thousandths, 100)).join(" / ")
}

/// With the digits that a goal was set with.
fn goal_figures(Spread { mean, p95, max }: Spread) -> String {
    let shown = |thousandths: u64| match thousandths.is_multiple_of(1_000) {
        true => (thousandths / 1_000).to_string(),
        false => tenths(thousandths, 100),
    };
    [mean, p95, max].map(shown).join(" / ")
}

fn whole(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// With one decimal, rounded half up. `unit` is a tenth of one.
fn tenths(value: u64, unit: u64) -> String {
    let tenths = (value + unit / 2) / unit;
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

fn instant(option: &str, text: Option<String>) -> anyhow::Result<Option<OffsetDateTime>> {
    let parse = |text: String| {
        OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| anyhow::anyhow!("{option} {text:?} is not of the form 2027-03-01T00:00:00Z"))
    };
    text.map(parse).transpose()
}

// === settings ===

async fn book(db: &Database) -> anyhow::Result<LimitBook> {
    Ok(quote::store::get_limits(&mut *db.connection().await?).await?)
}

async fn show_limits(db: &Database, scope: &str) -> anyhow::Result<()> {
    let book = book(db).await?;
    let limits = book.limits(scope, now());
    let rows: Vec<Vec<String>> = SPECS
        .iter()
        .map(|spec| {
            let value = limits.get(spec.name).unwrap_or(spec.default);
            let set = [format!("{}:{scope}", spec.name), spec.name.to_owned()].into_iter().find_map(|key| {
                let key: LimitKey = key.parse().ok()?;
                book.change(&key, now()).map(|change| format!("{key}, row {}", change.id))
            });
            let bounds = format!("{} to {}", spec.min, spec.max);
            vec![spec.name.to_owned(), value.to_string(), set.unwrap_or_else(|| "default".to_owned()), bounds, spec.help.to_owned()]
        })
        .collect();
    table(&["threshold", "value", "from", "bounds", ""], &rows, &[1]);
    Ok(())
}

async fn show_history(db: &Database) -> anyhow::Result<()> {
    let book = book(db).await?;
    let rows: Vec<Vec<String>> = book
        .newest_first()
        .map(|(key, change)| {
            vec![
                change.id.to_string(),
                key.to_string(),
                change.value.to_string(),
                second(change.effective_at),
                second(change.created_at),
                change.changed_by.clone(),
                change.reason.clone(),
            ]
        })
        .collect();
    if rows.is_empty() {
        say("no threshold of quoting was ever set; the defaults are in force");
    } else {
        table(&["row", "key", "value", "effective", "written", "by", "reason"], &rows, &[0, 2]);
    }
    Ok(())
}

struct Change {
    key: LimitKey,
    value: i64,
    from: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
}

async fn set(db: &Database, change: Change, note: ChangeNote) -> anyhow::Result<()> {
    let Change { key, value, from, until } = change;
    let value = limits::check(&key, value).map_err(|error| anyhow::anyhow!("--value: {error}"))?;
    let before = book(db).await?;
    let scope = key.scope.clone().unwrap_or_default();
    let at = from.unwrap_or_else(now);
    let old = before.limits(&scope, at).get(key.spec().name).unwrap_or(key.spec().default);
    let row = |id, value: u32, effective_at| NumberChange {
        id,
        key: key.to_string(),
        value: i64::from(value),
        effective_at,
        created_at: at,
        changed_by: String::new(),
        reason: String::new(),
    };
    // As it would be with the change, for the token or currency that it is about and for all.
    let mut changes: Vec<NumberChange> = before.newest_first().map(|(_, change)| change.clone()).collect();
    changes.push(row(i64::MAX, value, at));
    LimitBook::new(changes).limits(&scope, at).check().map_err(|error| anyhow::anyhow!("--value: {error}"))?;
    if until.is_some_and(|until| until <= at) {
        anyhow::bail!("--until must be after the change takes effect");
    }
    let mut wanted = vec![new(&key, value, from, &note)];
    if let Some(until) = until {
        let note = ChangeNote { reason: format!("ends: {}", note.reason).chars().take(500).collect(), ..note.clone() };
        wanted.push(new(&key, old, Some(until), &note));
    }
    let written = db
        .unit::<_, SettingsError, _>(move |connection| {
            Box::pin(async move {
                let mut written = Vec::new();
                for change in &wanted {
                    written.push(settings::store::set_number(connection, change).await?);
                }
                Ok(written)
            })
        })
        .await?;
    let mut old = old;
    for change in written {
        say(format!("{} {old} -> {} from {} on, history row {}", change.key, change.value, second(change.effective_at), change.id));
        old = value;
    }
    Ok(())
}

fn new(key: &LimitKey, value: u32, effective_at: Option<OffsetDateTime>, note: &ChangeNote) -> NewNumber {
    NewNumber { key: key.to_string(), value: i64::from(value), effective_at, description: key.spec().help, note: note.clone() }
}

async fn halt(config: &Config, who: WhoArgs, value: i64, until: Option<OffsetDateTime>) -> anyhow::Result<()> {
    let pair = format!("{}/USD", who.token);
    if config.book.prices().pair(&pair).is_none_or(|pair| pair.peg.is_none()) {
        anyhow::bail!("--token {:?} is not the base of a pair with a peg in chains.toml", who.token);
    }
    let key: LimitKey = format!("depeg_halted:{}", who.token).parse()?;
    let note = ChangeNote { changed_by: who.by, user: None, reason: who.reason };
    set(&database::open(config).await?, Change { key, value, from: None, until }, note).await
}

async fn status(db: &Database) -> anyhow::Result<()> {
    let memories = quote::store::list_memories(&mut *db.connection().await?).await?;
    if memories.is_empty() {
        say("the oracle has not run yet");
        return Ok(());
    }
    let at = |seconds: Option<i64>| {
        seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()).map(second).unwrap_or_default()
    };
    let rows: Vec<Vec<String>> = memories
        .iter()
        .map(|(pair, memory)| {
            let price = |mark: Option<quote::jump::Mark>| mark.map(|mark| mark.price.to_string()).unwrap_or_default();
            vec![
                pair.clone(),
                memory.depeg.to_string(),
                at(memory.last_price_s),
                price(memory.jump.accepted),
                at(memory.jump.accepted.map(|mark| mark.at_s)),
                price(memory.jump.candidate),
            ]
        })
        .collect();
    table(&["pair", "state", "sources agreed", "accepted", "at", "waits for a second round"], &rows, &[3, 5]);
    Ok(())
}
