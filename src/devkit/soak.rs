//! `amanatd soak`: payments at a steady rate for a long while, on a local chain, and whether memory, connections,
//! descriptors, lag and backlog stay where they were. Whole numbers only; the first fifth is warming up.

use std::io::Write;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use anyhow::Context;
use tokio::task::JoinSet;

use super::stage::{PATIENCE, Stage, StageOptions};
use crate::api::Client;
use crate::api::wire::CreatePayment;
use crate::cli::SoakArgs;

const CHAIN: u64 = 31_337;
const SELLER: &str = "0x2222222222222222222222222222222222222222";
/// Each payment is one token of six decimals.
const UNITS: u64 = 1_000_000;
/// More than this at a time, and payments are made slower than they were asked for.
const IN_FLIGHT: usize = 64;
/// A block this often.
const BLOCK_TIME: Duration = Duration::from_secs(1);
/// What counts as flat: memory may be so many KiB, or a tenth, above what it was after warming up.
const MEMORY_KIB: u64 = 8 * 1_024;
/// Blocks that the scanner may be behind, and seconds' worth of payments that may wait to be credited.
const LAG_BLOCKS: u64 = 20;
const BACKLOG_SECONDS: u64 = 30;

/// What was measured in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    minute: u64,
    rss_kib: u64,
    connections: u64,
    descriptors: u64,
    lag_blocks: u64,
    created: u64,
    funded: u64,
    database_kib: u64,
}

/// Runs to its end; an error when anything was not flat.
pub async fn run(args: SoakArgs) -> anyhow::Result<()> {
    let directory = std::path::absolute(&args.directory)?;
    let binary = std::env::current_exe()?;
    let mut stage = Stage::start(StageOptions { binary, directory, durable: true }).await?;
    stage.run(&["migrate"])?;
    let device = stage.trezor.endpoint();
    stage.trezor.officer().confirm_all();
    stage.run(&["account", "enrol", "--label", "soak", "--device", &device])?;
    let client = stage.client("soak", &["payments:read", "payments:write"], None)?;
    stage.start_daemon().await?;
    scanned(&client).await?;
    line(&format!("{} payments a minute for {} minutes, on {}", args.rate, args.minutes, stage.path("").display()));
    line("minute  rss KiB  connections  descriptors  lag blocks  created  funded  database KiB");

    let pause = Duration::from_millis(60_000 / u64::from(args.rate.max(1)));
    let minutes = u64::from(args.minutes);
    let started = Instant::now();
    let mut under_way: JoinSet<anyhow::Result<Address>> = JoinSet::new();
    let (mut created, mut samples) = (0_u64, Vec::new());
    let first = sample(&stage, 0, 0).await?;
    show(&first);
    let (mut next_payment, mut next_block) = (started, started);
    // Ends after the minutes that were asked for, and when everything that was begun is through.
    while started.elapsed() < Duration::from_secs(60 * minutes) || !under_way.is_empty() {
        let more = started.elapsed() < Duration::from_secs(60 * minutes) && under_way.len() < IN_FLIGHT;
        tokio::select! {
            () = tokio::time::sleep_until(next_payment.into()), if more => {
                next_payment += pause;
                created += 1;
                under_way.spawn(create(client.clone(), created));
            }
            Some(ended) = under_way.join_next() => {
                stage.chain.mint(stage.usdc, ended.context("a payment under way")??, U256::from(UNITS)).await?;
            }
            () = tokio::time::sleep_until(next_block.into()) => {
                next_block += BLOCK_TIME;
                stage.chain.mine(1).await?;
            }
        }
        let minute = started.elapsed().as_secs() / 60;
        if minute > samples.len() as u64 && minute < minutes {
            let taken = sample(&stage, minute, created).await?;
            show(&taken);
            samples.push(taken);
        }
    }
    let last = settle(&stage, minutes, created).await?;
    show(&last);
    samples.push(last);
    let grown = last.database_kib.saturating_sub(first.database_kib);
    let each = (grown * 1_024).checked_div(created).unwrap_or(0);
    line(&format!("database: {grown} KiB more, {each} bytes a payment"));
    stage.run(&["verify"]).context("the books after the soak")?;
    let status = stage.stop_daemon()?;
    anyhow::ensure!(status.success(), "the daemon ended with {status}");
    let faults = judge(&samples, u64::from(args.rate));
    if faults.is_empty() {
        line(
            "flat: memory, connections, descriptors, lag and backlog stayed where they were; every payment is funded, and the books verify",
        );
        return Ok(());
    }
    anyhow::bail!("not flat: {}", faults.join("; "))
}

/// Makes a payment and gives back where its buyer pays.
async fn create(client: Client, number: u64) -> anyhow::Result<Address> {
    let asked = CreatePayment {
        amount: "1".to_owned(),
        currency: "USDC".to_owned(),
        chain_id: CHAIN,
        token: "USDC".to_owned(),
        seller_address: SELLER.to_owned(),
        ..CreatePayment::default()
    };
    Ok(client.create_payment(&asked, &format!("soak-{number}")).await?.deposit_address)
}

/// Payments are taken once the chain was read.
async fn scanned(client: &Client) -> anyhow::Result<()> {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if client.chains().await?.iter().any(|chain| chain.scanned_number.is_some()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    anyhow::bail!("the chain is not read")
}

/// Waits until every payment counts, with a few blocks on top of the last.
async fn settle(stage: &Stage, minute: u64, created: u64) -> anyhow::Result<Sample> {
    let started = Instant::now();
    loop {
        stage.chain.mine(1).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let taken = sample(stage, minute, created).await?;
        if taken.funded == created || started.elapsed() > PATIENCE {
            return Ok(taken);
        }
    }
}

async fn sample(stage: &Stage, minute: u64, created: u64) -> anyhow::Result<Sample> {
    let pid = stage.daemon_pid().context("the daemon runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the daemon's memory")?;
    let rss_kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse().ok()).context("VmRSS")?;
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon's descriptors")?.count() as u64;
    let ask = |sql: &str| -> anyhow::Result<u64> { Ok(stage.postgres.sql("amanat", sql)?.trim().parse()?) };
    let metrics = reqwest::get(format!("{}/metrics", stage.metrics_url())).await?.text().await?;
    let lag_blocks =
        metrics.lines().find_map(|line| line.strip_prefix("amanatd_chain_lag_blocks{chain=\"31337\"} ")?.parse().ok()).unwrap_or(0);
    Ok(Sample {
        minute,
        rss_kib,
        connections: ask("select count(*) from pg_stat_activity where application_name like 'amanatd%'")?,
        descriptors,
        lag_blocks,
        created,
        funded: ask("select count(*) from payments where escrow_state = 'funded'")?,
        database_kib: ask("select pg_database_size(current_database()) / 1024")?,
    })
}

fn show(sample: &Sample) {
    let Sample { minute, rss_kib, connections, descriptors, lag_blocks, created, funded, database_kib } = sample;
    line(&format!(
        "{minute:>6}  {rss_kib:>7}  {connections:>11}  {descriptors:>11}  {lag_blocks:>10}  {created:>7}  {funded:>6}  {database_kib:>12}"
    ));
}

/// What did not stay flat after the first fifth.
fn judge(samples: &[Sample], rate: u64) -> Vec<String> {
    let warm = &samples[samples.len() / 5..];
    let quarter = (warm.len() / 4).max(1);
    let (early, late) = (&warm[..quarter], &warm[warm.len() - quarter..]);
    let mean = |part: &[Sample], of: fn(&Sample) -> u64| part.iter().map(of).sum::<u64>() / part.len().max(1) as u64;
    let mut faults = Vec::new();
    let (before, after) = (mean(early, |sample| sample.rss_kib), mean(late, |sample| sample.rss_kib));
    if after > before + (before / 10).max(MEMORY_KIB) {
        faults.push(format!("memory rose from {before} to {after} KiB"));
    }
    for (what, of, slack) in
        [("connections", (|sample| sample.connections) as fn(&Sample) -> u64, 4), ("descriptors", |sample| sample.descriptors, 16)]
    {
        let (before, after) = (mean(early, of), mean(late, of));
        if after > before + slack {
            faults.push(format!("{what} rose from {before} to {after}"));
        }
    }
    let lag = warm.iter().map(|sample| sample.lag_blocks).max().unwrap_or(0);
    if lag > LAG_BLOCKS {
        faults.push(format!("the scanner was {lag} blocks behind"));
    }
    let backlog = warm.iter().map(|sample| sample.created.saturating_sub(sample.funded)).max().unwrap_or(0);
    if backlog > rate * BACKLOG_SECONDS / 60 {
        faults.push(format!("{backlog} payments waited to be credited"));
    }
    if let Some(last) = samples.last().filter(|last| last.funded != last.created) {
        faults.push(format!("{} payments, {} of them funded at the end", last.created, last.funded));
    }
    faults
}

fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(minute: u64) -> Sample {
        let created = minute * 200;
        Sample {
            minute,
            rss_kib: 60_000,
            connections: 14,
            descriptors: 60,
            lag_blocks: 1,
            created,
            funded: created - created.min(10),
            database_kib: 9_000,
        }
    }

    #[test]
    fn y5_what_grows_is_not_flat() {
        let minutes: Vec<Sample> = (1..=20).map(flat).collect();
        let mut good = minutes.clone();
        good[19].funded = good[19].created;
        assert_eq!(judge(&good, 200), Vec::<String>::new());
        // What happens while it warms up does not count.
        let mut warming = good.clone();
        warming[0].rss_kib = 10_000;
        warming[1].lag_blocks = 500;
        assert_eq!(judge(&warming, 200), Vec::<String>::new());
        let grown = |change: fn(&mut Sample)| {
            let mut samples = good.clone();
            samples.iter_mut().for_each(change);
            judge(&samples, 200).join("; ")
        };
        assert!(grown(|sample| sample.rss_kib += sample.minute * 1_000).starts_with("memory rose"));
        assert!(grown(|sample| sample.connections += sample.minute).contains("connections rose"));
        assert!(grown(|sample| sample.descriptors += 3 * sample.minute).contains("descriptors rose"));
        assert!(grown(|sample| sample.lag_blocks += 2 * sample.minute).contains("blocks behind"));
        assert!(grown(|sample| sample.funded -= 10 * sample.minute).contains("waited to be credited"));
        assert!(judge(&minutes, 200).join("; ").contains("of them funded at the end"));
    }
}
