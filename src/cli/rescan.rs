//! `rescan`: blocks that were read before are read again, and the line is extended below its first block.
//!
//! Idempotent, and safe beside a running daemon. What is found is judged by the daemon as ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::console::{note, say};
use super::database;
use crate::config::Config;
use crate::daemon::now;
use crate::deposit::Watched;
use crate::rpc::Span;
use crate::scan::{self, RescanReport, ScanError, Scanner, chunks};
use crate::units::{BlockNumber, ChainId, Disposition};

#[derive(Debug, Args)]
pub struct RescanArgs {
    /// The chain.
    #[arg(long, value_name = "CHAIN_ID")]
    chain: ChainId,
    /// The first block to read again; one below the first stored block extends what is stored.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=i64::MAX.cast_unsigned()))]
    from: u64,
    /// The last block to read again.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(..=i64::MAX.cast_unsigned()))]
    to: u64,
}

/// A chunk that failed in a way that may pass is tried so often.
const ATTEMPTS: u32 = 5;
/// The pause after a first failure; it doubles.
const PAUSE: Duration = Duration::from_secs(1);
/// Where there is no bar, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

pub(super) async fn run(args: RescanArgs, config: &Config) -> anyhow::Result<()> {
    let RescanArgs { chain, from, to } = args;
    anyhow::ensure!(from <= to, "--from {from} is above --to {to}");
    let settings = config.chains.get(&chain).with_context(|| format!("--chain {chain} is not in the configuration"))?;
    let spec = config.book.get(chain).context("a configured chain is in the chain book")?;
    let db = database::open(config).await?;
    let cursor = scan::store::find_cursor(&mut *db.connection().await?, chain).await?;
    let start = cursor.map_or(BlockNumber(0), |cursor| cursor.start);
    let node = Arc::new(settings.node(chain)?);
    node.set_clock(now());
    node.verify(spec).await?;
    let scanner = Scanner::new(db, node, Arc::new(Watched::default()), spec, settings.scan);

    let span = Span { from: BlockNumber(from), to: BlockNumber(to) };
    let bar = bar(span.blocks());
    let began = Instant::now();
    let mut told = began;
    let mut total = RescanReport::default();
    for part in chunks(span, start, settings.scan.catch_up_blocks) {
        let report = persistently(&scanner, part).await;
        if report.is_err() {
            bar.finish_and_clear();
            say(summary(total, began));
        }
        total.add(report?);
        bar.set_position(total.blocks);
        if bar.is_hidden() && told.elapsed() >= LINE_EVERY {
            told = Instant::now();
            note(format!("{} of {} blocks, {} a second", total.blocks, span.blocks(), rate(total.blocks, began)));
        }
    }
    bar.finish_and_clear();
    say(summary(total, began));
    if total.unseen_transfers > 0 {
        say(format!(
            "{} stored transfers were not seen this time; they stay. The endpoints show less than they did: traces, for example",
            total.unseen_transfers
        ));
    }
    Ok(())
}

/// One chunk, again after a fault that may pass.
async fn persistently(scanner: &Scanner, part: Span) -> Result<RescanReport, ScanError> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS {
        match scanner.rescan(part, now()).await {
            Err(error) if error.disposition() == Disposition::Retry && !matches!(error, ScanError::Moved { .. }) => {
                tracing::warn!(%error, "blocks {} to {} are tried again in {} s", part.from, part.to, pause.as_secs());
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    scanner.rescan(part, now()).await
}

fn summary(total: RescanReport, began: Instant) -> String {
    format!(
        "{} blocks read, {} transfers seen, {} of them new, {} blocks a second",
        total.blocks,
        total.transfers,
        total.new_transfers,
        rate(total.blocks, began)
    )
}

fn rate(blocks: u64, began: Instant) -> u128 {
    u128::from(blocks) * 1_000 / began.elapsed().as_millis().max(1)
}

/// Hidden where standard error is no terminal.
fn bar(blocks: u64) -> ProgressBar {
    let bar = ProgressBar::new(blocks);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} blocks, {per_sec}, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
