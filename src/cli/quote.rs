//! `quote`: what an amount would be in a token now, and why; and `quote verify`, which computes every stored
//! quote again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::console::{legible, note, say, table};
use super::database;
use super::threshold::second;
use crate::config::Config;
use crate::daemon::now;
use crate::quote::aggregate::Figures;
use crate::quote::decide::{Fx, identity};
use crate::quote::evidence::differences;
use crate::quote::observation::Observation;
use crate::quote::{self, Asked, Oracle, PairInput, Quote, QuoteKind, Quoted, Refusal, Remembered, Round};
use crate::units::{ChainId, Currency, format_units};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct QuoteArgs {
    #[command(subcommand)]
    command: Option<QuoteCommand>,
    #[command(flatten)]
    ask: Option<AskArgs>,
}

#[derive(Debug, Subcommand)]
pub(super) enum QuoteCommand {
    /// Compute every stored quote again from its evidence, and name those that differ.
    Verify,
}

#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// How much is owed, in units of the currency.
    #[arg(long)]
    amount: String,
    /// USD, EUR, IRR, TRY, USDT or USDC.
    #[arg(long)]
    currency: String,
    /// The symbol of the token or coin that is paid.
    #[arg(long)]
    token: String,
    /// The chain.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: ChainId,
    /// Print every source with its verdict, the figures and the formula.
    #[arg(long)]
    explain: bool,
}

/// How many quotes one page of a verification holds.
const PAGE: i64 = 500;
/// How long a quote in the token itself is shown to hold.
const IDENTITY_HOLDS: time::Duration = time::Duration::hours(1);

pub(super) async fn run(args: QuoteArgs, config: &Config) -> anyhow::Result<()> {
    match (args.command, args.ask) {
        (Some(QuoteCommand::Verify), _) => {
            let db = database::open(config).await?;
            let (rows, differing) = verify_all(&mut *db.connection().await?).await?;
            say(format!("{rows} quotes computed again, differences {differing}"));
            if differing > 0 {
                anyhow::bail!("{differing} of {rows} quotes do not follow from what is stored with them")
            }
            Ok(())
        }
        (None, Some(ask)) => quote_now(&ask, config).await,
        (None, None) => anyhow::bail!("say what to quote with --amount, --currency, --token and --chain; or use `quote verify`"),
    }
}

/// Computes every stored quote again; says which differ, and counts.
pub(super) async fn verify_all(connection: &mut PgConnection) -> anyhow::Result<(usize, usize)> {
    let (mut rows, mut differing, mut after) = (0, 0, None);
    // Ends with the last quote: each page begins after the one before.
    loop {
        let page = quote::store::list(connection, None, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok((rows, differing)) };
        after = Some(last.id);
        for stored in page {
            // What was brought along says nothing about how it came about.
            if stored.quote.is_none() && stored.unreadable.is_none() {
                continue;
            }
            rows += 1;
            let mut found: Vec<String> = stored.unreadable.iter().cloned().collect();
            if let Some(quote) = &stored.quote {
                found.extend(differences(quote, stored.evidence.as_ref()).into_iter().map(str::to_owned));
            }
            if !found.is_empty() {
                differing += 1;
                say(legible(&format!("quote {} of payment {}: {}", stored.id, stored.payment, found.join(", "))));
            }
        }
    }
}

async fn quote_now(ask: &AskArgs, config: &Config) -> anyhow::Result<()> {
    let asked = read(ask, config)?;
    if asked.currency.code() == asked.token {
        let at = now();
        let Some(quote) = identity(&asked, at, at + IDENTITY_HOLDS) else {
            anyhow::bail!("--amount {}: is finer than {}'s {} decimals", ask.amount, asked.token, asked.decimals)
        };
        say("the currency is the token: no source was asked");
        print(&quote, config);
        return Ok(());
    }
    if !config.oracle.quoting_enabled {
        let refusal = Refusal::QuotingDisabled { currency: asked.currency.to_string(), token: asked.token };
        anyhow::bail!("{}: {refusal}", refusal.code());
    }
    let db = database::open(config).await?;
    let mut nodes = BTreeMap::new();
    for (chain, settings) in &config.chains {
        nodes.insert(*chain, Arc::new(settings.node(*chain)?));
    }
    let oracle = Oracle::new(Arc::new(config.book.clone()), Arc::new(nodes), &config.oracle.sources)?;
    let mut remembered = Remembered::read(&mut *db.connection().await?).await?;
    oracle.fetch(now(), true).await?;
    let mut quoted = ask_oracle(&oracle, &asked, &remembered)?;
    if let Err(Refusal::JumpUnconfirmed { retry_after_s, .. }) = quoted.decision.outcome {
        // Nobody has asked lately, or the price moved far: a second round decides, as in the daemon.
        note(format!("a second round must confirm the price; asking again in {retry_after_s} s"));
        remember(&oracle, &mut remembered);
        tokio::time::sleep(Duration::from_secs(u64::from(retry_after_s) + 1)).await;
        oracle.fetch(now(), true).await?;
        remember(&oracle, &mut remembered);
        quoted = ask_oracle(&oracle, &asked, &remembered)?;
    }
    if ask.explain {
        explain(&quoted);
    }
    match &quoted.decision.outcome {
        Ok(quote) => {
            print(quote, config);
            Ok(())
        }
        Err(refusal) => anyhow::bail!("{}: {refusal}", refusal.code()),
    }
}

/// One round of every pair, remembered here and not in the database: that is the daemon's.
fn remember(oracle: &Oracle, remembered: &mut Remembered) {
    for (pair, round) in oracle.rounds(remembered, now()) {
        remembered.memories.insert(pair, round.memory);
    }
}

fn ask_oracle(oracle: &Oracle, asked: &Asked, remembered: &Remembered) -> anyhow::Result<Quoted> {
    oracle.quote(asked, remembered, now()).map_err(|refusal| anyhow::anyhow!("{}: {refusal}", refusal.code()))
}

/// What was asked for; the error names the option and what would do.
fn read(ask: &AskArgs, config: &Config) -> anyhow::Result<Asked> {
    let amount = ask.amount.parse().map_err(|error| anyhow::anyhow!("--amount: {error}"))?;
    let known = Currency::ALL.map(Currency::code).join(", ");
    let currency = ask.currency.parse().map_err(|()| anyhow::anyhow!("--currency {:?} is none of {known}", ask.currency))?;
    let Some(chain) = config.book.get(ask.chain) else { anyhow::bail!("--chain {} is not listed in chains.toml", ask.chain) };
    let Some((_, facts)) = chain.find_asset(&ask.token) else {
        anyhow::bail!("--token {:?} is not listed for {}; use one of {}", ask.token, chain.name, chain.symbols().join(", "))
    };
    Ok(Asked { amount, currency, chain: ask.chain, token: ask.token.clone(), decimals: facts.decimals })
}

fn print(quote: &Quote, config: &Config) {
    let chain = config.book.get(quote.asked.chain).map_or("", |chain| chain.name.as_str());
    let (owed, settle) = (format_units(quote.asked.amount.scaled(), 18), format_units(quote.settled.settle_amount.scaled(), 18));
    say(format!("{owed} {} = {settle} {} on {chain} ({} base units)", quote.asked.currency, quote.asked.token, quote.settled.settle_units));
    if quote.kind == QuoteKind::Priced {
        let bps = quote.settled.depeg_adjustment_bps;
        say(format!(
            "{} is {} ({}); depeg adjustment {bps} bps, in the price already",
            quote.asked.token, quote.machine, quote.settled.peg_state
        ));
        say(format!("holds until {}; a block is in time until {}", second(quote.expires_at), second(quote.payable_until())));
    }
}

// === explaining ===

fn explain(quoted: &Quoted) {
    explain_pair(&quoted.token, &quoted.decision.token);
    if let (Fx::Pair(input), Some(round)) = (&quoted.fx, &quoted.decision.fx) {
        explain_pair(input, round);
    }
    if let Ok(quote) = &quoted.decision.outcome {
        let Quote { terms, settled, .. } = quote;
        say("settle_amount = ceil(amount x fx_rate x (1 + premium) / effective price), at the step");
        say(format!(
            "              = ceil({} x {} x (1 + {} bps) / {}) at {} decimals",
            format_units(terms.amount.scaled(), 18),
            terms.fx_rate,
            terms.premium_bps,
            settled.effective_price,
            terms.step
        ));
        say(format!("              = {}", format_units(settled.settle_amount.scaled(), 18)));
        if let Some(rule) = terms.peg {
            say(format!(
                "effective price: peg {}, policy {}, band {} bps, halt {} bps, token price {}",
                rule.peg,
                rule.policy.name(),
                rule.band_bps,
                rule.halt_bps,
                terms.token_price
            ));
        }
        say("");
    }
}

fn explain_pair(input: &PairInput, round: &Round) {
    let at = now();
    let rows = input.observations.iter().zip(&round.verdicts).map(|(seen, verdict)| row(seen, verdict.name(), at));
    let official = input.sanity.iter().map(|seen| {
        let fault = quote::aggregate::fault_of(seen, at.unix_timestamp());
        row(seen, fault.map_or("official", |fault| fault.name()), at)
    });
    let rows: Vec<Vec<String>> = rows.chain(official).collect();
    say(&input.pair);
    table(&["source", "family", "price", "age", "of at most", "conf bps", "at block", "times", "verdict"], &rows, &[2, 3, 4, 5, 6]);
    let Figures { median, mad, threshold } = &round.figures;
    let outliers = match threshold.is_zero() {
        true => "too few to tell an outlier".to_owned(),
        false => format!("MAD {mad}, outliers from {threshold} on"),
    };
    say(format!("median {median}, {outliers}; {} families used, {} needed", round.used, input.limits.min_sources));
    let limits = &input.limits;
    if let Some(bps) = round.dispersion_bps {
        say(format!("dispersion {bps} bps; limits {} at par, {} stressed", limits.dispersion_normal_bps, limits.dispersion_stressed_bps));
    }
    let deviation = round.deviation_bps.map(|bps| format!(", {bps} bps from its peg")).unwrap_or_default();
    match round.price {
        Some(price) => say(format!("price {price}{deviation}; machine {} -> {}", input.memory.depeg, round.memory.depeg)),
        None => say("no price"),
    }
    if let Err(refusal) = &round.outcome {
        say(format!("refused, {}: {refusal}", refusal.code()));
    }
    say("");
}

fn row(seen: &Observation, verdict: &str, at: OffsetDateTime) -> Vec<String> {
    vec![
        seen.source.clone(),
        seen.family.clone(),
        if seen.price.is_zero() { "-".to_owned() } else { seen.price.to_string().chars().take(24).collect() },
        format!("{} s", seen.age_s(at.unix_timestamp())),
        format!("{} s", seen.max_age_s),
        seen.conf_bps.map(|conf| conf.to_string()).unwrap_or_default(),
        seen.block.map(|block| block.number.to_string()).unwrap_or_default(),
        seen.leg.as_ref().map(|leg| format!("{} {} ({})", leg.pair, leg.price, leg.source)).unwrap_or_default(),
        verdict.to_owned(),
    ]
}
