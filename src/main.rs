//! The binary: logging, the TLS provider, the command, and how errors are told.

use std::error::Error;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use amanatd::cli::{self, Cli, Command};
use amanatd::db::LOG_CAP;
use amanatd::signing::CLIENT_LOG_CAP;
use clap::Parser;
use tracing_subscriber::EnvFilter;

/// How long tasks and threads that nobody waits for may take to end.
const RUNTIME_ENDING: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.log_json, matches!(cli.command, Command::Serve { .. }));
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        return fail(&anyhow::anyhow!("the TLS provider was installed before main"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("the runtime cannot start")),
    };
    let outcome = runtime.block_on(run(cli));
    // A thread that waits for a name to resolve, or for a key to be pressed, holds nothing up.
    runtime.shutdown_timeout(RUNTIME_ENDING);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        #[cfg(feature = "devkit")]
        Command::Demo(args) => amanatd::devkit::demo::run(args).await,
        #[cfg(feature = "devkit")]
        Command::Soak(args) => amanatd::devkit::soak::run(args).await,
        _ => cli::run(cli).await,
    }
}

/// Logs go to standard error. The level comes from RUST_LOG; the Trezor library stays capped, because
/// at TRACE it prints PIN positions.
fn start_logging(json: bool, daemon: bool) {
    let default = if daemon { "info" } else { "warn" };
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned());
    let capped = |levels: &str| format!("{levels},{LOG_CAP},{CLIENT_LOG_CAP}");
    let filter = EnvFilter::try_new(capped(&wanted)).unwrap_or_else(|_| EnvFilter::new(capped(default)));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if json { subscriber.json().init() } else { subscriber.init() }
}

/// One line for what failed, one for each cause; no backtrace. A cause may repeat a stranger's words.
fn fail(error: &anyhow::Error) -> ExitCode {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {}", cli::printable(&error.to_string()));
    let mut told = error.to_string();
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !told.contains(&words) {
            let _ = writeln!(stderr, "  because: {}", cli::printable(&words));
        }
        told = words;
        cause = next.source();
    }
    ExitCode::FAILURE
}
