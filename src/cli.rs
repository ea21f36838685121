//! The command line: one subcommand per thing an operator, an officer or a newcomer does.
//!
//! Reports go to standard output, progress and logs to standard error. Errors name their causes on one
//! line each and end the process with status 1; bad usage ends it with 2.

mod account;
mod adjust;
mod books;
mod chain;
mod confirm;
mod console;
mod database;
mod doctor;
mod failover;
mod intents;
mod oracle;
mod nonce;
mod payment;
mod people;
mod policy;
mod quote;
mod rescan;
mod screen;
mod seal;
mod sign;
mod statement;
mod threshold;
mod webhook;

use std::path::PathBuf;

pub use console::printable;
#[cfg(feature = "devkit")]
pub(crate) use console::table_lines;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;

use crate::api::Client;
use crate::config::Config;

/// Payment watcher and custody daemon: deposit addresses from a Trezor's xpub, deposits judged against
/// confirmation thresholds, an immutable ledger, and a Trezor signature for every outflow.
#[derive(Debug, Parser)]
#[command(name = "amanatd", version, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = "/etc/amanatd/amanatd.toml", env = "AMANATD_CONFIG")]
    config: PathBuf,
    /// Log as JSON lines.
    #[arg(long, global = true)]
    pub log_json: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon: watch, judge, post, plan, broadcast, settle, and serve the API.
    Serve {
        /// Where other daemons serve the database, share nothing with them: wait, and take over when a lease is free.
        #[arg(long)]
        standby: bool,
    },
    /// Bring the database to this version's schema.
    Migrate,
    /// Check the configuration and everything it points to, and say what was found.
    Check,
    /// Look at everything the daemon stands on, and say of each finding what to do.
    Doctor(doctor::DoctorArgs),
    /// Trezor accounts: enrol one, list them, prove their addresses.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// People with a role: officers and marketplace users.
    #[command(subcommand)]
    User(people::UserCommand),
    /// Bearer tokens of services, officers and signing stations.
    #[command(subcommand)]
    Token(people::TokenCommand),
    /// Thresholds of the credit and the release gate, with their history.
    #[command(subcommand)]
    Threshold(threshold::ThresholdCommand),
    /// Money that came for nobody, and losses: what two officers decide.
    #[command(subcommand)]
    Adjust(adjust::AdjustCommand),
    /// What an amount would be in a token now, and why; `quote verify` computes every stored quote again.
    Quote(quote::QuoteArgs),
    /// The price oracle: thresholds with their history, status, acceptance vectors, replay of a past crisis.
    #[command(subcommand)]
    Oracle(oracle::OracleCommand),
    /// Why a payment's transfers count, may leave, or wait.
    #[command(subcommand)]
    Confirm(confirm::ConfirmCommand),
    /// Held transfers: list them, show one, clear or confirm it as a resolver.
    #[command(subcommand)]
    Screen(screen::ScreenCommand),
    /// The breaker of a chain: status, halt, resume.
    #[command(subcommand)]
    Chain(chain::ChainCommand),
    /// A database that is not what it was: a failover, a restore. Status, and an officer's word that it is dealt with.
    #[command(subcommand)]
    Failover(failover::FailoverCommand),
    /// Read blocks of a chain again and store what is missing; or extend the stored blocks downwards.
    Rescan(rescan::RescanArgs),
    /// Payments: show one, cancel, release, refund, accept; and the terms of new ones.
    #[command(subcommand)]
    Payment(payment::PaymentCommand),
    /// Disputes: open one, list those that wait, resolve one.
    #[command(subcommand)]
    Dispute(payment::DisputeCommand),
    /// What may leave: the policy in force, a dry run, a proposal, and what it says of an intent.
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Acts that take two officers: list, confirm, withdraw.
    #[command(subcommand)]
    Proposal(policy::ProposalCommand),
    /// Listed destinations: list, add, remove.
    #[command(subcommand)]
    Destination(policy::DestinationCommand),
    /// Intents: list those that wait, approve one, give one up; replace or cancel what is stuck.
    #[command(subcommand)]
    Intent(intents::IntentCommand),
    /// Used nonces that nothing here is signed for: list them, adopt a forgotten transaction, state an address's past.
    #[command(subcommand)]
    Nonce(nonce::NonceCommand),
    /// Webhooks: who is told of events, what was delivered, sending again.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// Run the signing station: show each approved intent, have it signed on the Trezor.
    Sign(sign::SignArgs),
    /// Compare every custody account with the chain, and list open findings.
    Reconcile(books::ReconcileArgs),
    /// Prove that balances equal their entries, that the books balance, that nothing that was sealed has changed,
    /// and that every verdict follows from the history of its thresholds.
    Verify(books::VerifyArgs),
    /// Seals of the ledger: list them, export their heads, sign one on the Trezor.
    #[command(subcommand)]
    Seal(seal::SealCommand),
    /// Entries of a payment, an account or a period, as CSV or JSON.
    Statement(statement::StatementArgs),
    /// Every account's balance, now or at an instant, as CSV or JSON.
    Balances(statement::BalancesArgs),
    /// Show the whole way on this machine, with a simulated Trezor.
    #[cfg(feature = "devkit")]
    Demo(DemoArgs),
    /// Take payments at a steady rate on a local chain, and see whether memory, connections and lag stay flat.
    #[cfg(feature = "devkit")]
    Soak(SoakArgs),
}

/// How `amanatd demo` runs.
#[cfg(feature = "devkit")]
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Leave everything running at the end and say how to reach it.
    #[arg(long)]
    pub stay: bool,
    /// Kill the daemon with SIGKILL after every step and start it again.
    #[arg(long)]
    pub kill: bool,
    /// Where the demo keeps its database and configuration. Emptied at the start.
    #[arg(long, default_value = ".demo")]
    pub directory: PathBuf,
}

/// How `amanatd soak` runs.
#[cfg(feature = "devkit")]
#[derive(Clone, Debug, Args)]
pub struct SoakArgs {
    /// For how long.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_080))]
    pub minutes: u32,
    /// Payments a minute.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=6_000))]
    pub rate: u32,
    /// Where it keeps its configuration and logs. Emptied at the start.
    #[arg(long, default_value = ".soak")]
    pub directory: PathBuf,
}

/// How to reach a running daemon.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// The daemon's API: a URL, or unix:/run/amanatd/api.sock on its host.
    #[arg(long, default_value = "http://127.0.0.1:8700", env = "AMANATD_URL")]
    url: String,
    /// A file that holds the bearer token; else systemd's credential api-token.
    #[arg(long, env = "AMANATD_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl Remote {
    fn client(&self) -> anyhow::Result<Client> {
        let credential = || std::env::var_os("CREDENTIALS_DIRECTORY").map(|directory| PathBuf::from(directory).join("api-token"));
        let Some(path) = self.token_file.clone().or_else(credential) else {
            anyhow::bail!("no token: name its file with --token-file (`amanatd token create` makes one)");
        };
        let text = std::fs::read_to_string(&path).map_err(|error| anyhow::anyhow!("token file {}: {error}", path.display()))?;
        Ok(Client::new(&self.url, SecretString::from(text.trim().to_owned()))?)
    }
}

/// Runs everything but the demo, which the binary dispatches itself.
pub async fn run(cli: Cli) -> anyhow::Result<()> {
    let config = || Config::load(&cli.config);
    match cli.command {
        Command::Serve { standby } => crate::daemon::serve(config()?, standby).await,
        Command::Migrate => database::migrate(&cli.config).await,
        Command::Check => database::check(&config()?).await,
        Command::Doctor(args) => doctor::run(args, &cli.config).await,
        Command::Account(command) => account::run(command, &config()?).await,
        Command::User(command) => people::run_user(command, &config()?).await,
        Command::Token(command) => people::run_token(command, &config()?).await,
        Command::Threshold(command) => threshold::run(command, &config()?).await,
        Command::Adjust(command) => adjust::run(command).await,
        Command::Quote(args) => quote::run(args, &config()?).await,
        Command::Oracle(command) => oracle::run(command, config).await,
        Command::Confirm(command) => confirm::run(command, &config()?).await,
        Command::Screen(command) => screen::run(command).await,
        Command::Chain(command) => chain::run(command, &config()?).await,
        Command::Failover(command) => failover::run(command, &config()?).await,
        Command::Rescan(args) => rescan::run(args, &config()?).await,
        Command::Payment(command) => payment::run(command, || Ok(config()?)).await,
        Command::Dispute(command) => payment::run_dispute(command).await,
        Command::Policy(command) => policy::run(command).await,
        Command::Nonce(command) => nonce::run(command).await,
        Command::Proposal(command) => policy::run_proposal(command).await,
        Command::Destination(command) => policy::run_destination(command).await,
        Command::Intent(command) => intents::run(command).await,
        Command::Webhook(command) => webhook::run(command, &config()?).await,
        Command::Sign(args) => sign::run(args).await,
        Command::Reconcile(args) => books::reconcile(args, &config()?).await,
        Command::Verify(args) => books::verify(args, &config()?).await,
        Command::Seal(command) => seal::run(command, &config()?).await,
        Command::Statement(args) => statement::statement(args, &config()?).await,
        Command::Balances(args) => statement::balances(args, &config()?).await,
        #[cfg(feature = "devkit")]
        Command::Demo(_) => anyhow::bail!("the demo is dispatched by the binary"),
        #[cfg(feature = "devkit")]
        Command::Soak(_) => anyhow::bail!("the soak is dispatched by the binary"),
    }
}
