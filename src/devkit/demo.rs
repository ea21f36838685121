//! `amanatd demo`: the whole way, for a newcomer in a terminal.
//!
//! Nothing here is staged for the eye: the commands are the ones an operator types, the daemon is a
//! process of its own, the station speaks to a simulated device over its wire protocol, and the table at
//! the end asks the chain. The process ends with 0 only if every row of it is equal.

mod narrator;
mod story;

use std::time::Duration;

use self::narrator::Narrator;
use self::story::Story;
use super::postgres::APP;
use super::stage::{Stage, StageOptions};
use crate::cli::DemoArgs;

pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let narrator = Narrator::new();
    narrator.title("amanatd demo: from a deposit address to a settled release");
    narrator.plain("Starting PostgreSQL, a local chain with two test tokens, and a simulated Trezor …");
    let directory = std::path::absolute(&args.directory)?;
    let stage = Stage::start(StageOptions { binary: std::env::current_exe()?, directory, durable: true }).await?;
    narrator.show_device(&stage.trezor);
    let mut story = Story::new(stage, narrator, args.kill);
    let equal = story.tell().await?;
    if args.stay {
        stay(story.into_stage()).await?;
    }
    if equal { Ok(()) } else { anyhow::bail!("the ledger and the chain differ; the table above says where") }
}

/// Leaves everything running until Ctrl-C. The chain makes a block each second, so that what is sent
/// gets confirmed.
async fn stay(stage: Stage) -> anyhow::Result<()> {
    let narrator = Narrator::new();
    narrator.title("Everything stays up. End it with Ctrl-C.");
    let folder = stage.path("").display().to_string();
    let folder = folder.trim_end_matches('/');
    for (name, value) in [
        ("API", stage.api_url()),
        ("console", format!("{}/console (first let an officer in, see below)", stage.console_origin())),
        ("token", format!("{folder}/marketplace.token (payments), officer.token (approvals), station.token (signing)")),
        ("metrics", format!("{}/metrics", stage.metrics_url())),
        ("database", stage.database_url(APP)),
        ("chain", format!("{} (id 31337, one block a second)", stage.chain.url())),
        ("device", stage.trezor.endpoint()),
        ("log", format!("{folder}/daemon.log")),
    ] {
        narrator.fact(name, &value);
    }
    narrator.plain("Try, in another terminal:");
    for line in [
        format!("curl -H \"Authorization: Bearer $(cat {folder}/marketplace.token)\" {}/v1/payments", stage.api_url()),
        format!("target/debug/amanatd intent list --url {} --token-file {folder}/officer.token", stage.api_url()),
        format!("target/debug/amanatd --config {folder}/amanatd.toml reconcile"),
        format!("target/debug/amanatd --config {folder}/amanatd.toml user invite --user $(cat {folder}/officer.id)"),
        format!(
            "target/debug/amanatd sign --once --url {} --token-file {folder}/station.token --chains {folder}/chains.toml \
             --definitions {folder}/definitions --device {}",
            stage.api_url(),
            stage.trezor.endpoint()
        ),
    ] {
        narrator.command(&line);
    }
    let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            outcome = &mut ended => return Ok(outcome?),
            () = tokio::time::sleep(Duration::from_secs(1)) => drop(stage.chain.mine(1).await?),
        }
    }
}
