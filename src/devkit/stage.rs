//! Everything a whole run needs, started for real: Postgres, a local chain with our tokens, a simulated
//! Trezor on its UDP port, and the daemon as a process of its own that can be killed and started again.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

use super::chain::{ChainOptions, LocalChain};
use super::postgres::{APP, MIGRATOR, PostgresOptions, PrivatePostgres};
use super::trezor::{DATA_VERSION_MIN, Definition, SimulatedTrezor, SimulatorOptions};
use super::{child, contracts, schema};
use crate::api::Client;

/// What a stage starts from.
#[derive(Clone, Debug)]
pub struct StageOptions {
    /// The `amanatd` to run.
    pub binary: PathBuf,
    /// Emptied at the start; configuration, tokens, logs and the database live here.
    pub directory: PathBuf,
    /// Whether Postgres keeps fsync on.
    pub durable: bool,
}

/// The actors of a run. Dropping it stops them all.
#[derive(Debug)]
pub struct Stage {
    pub postgres: PrivatePostgres,
    pub chain: LocalChain,
    pub trezor: SimulatedTrezor,
    pub usdc: Address,
    pub usdt: Address,
    options: StageOptions,
    api_port: u16,
    metrics_port: u16,
    daemon: Option<Child>,
}

const DATABASE: &str = "amanat";
const CHAIN_ID: u64 = 31_337;
/// How long anything on the stage may take.
pub const PATIENCE: Duration = Duration::from_secs(90);
const CHAINS_TOML: &str = include_str!("../../chains.toml");

impl Stage {
    /// Starts everything but the daemon. The schema is not there yet, only the roles.
    pub async fn start(options: StageOptions) -> anyhow::Result<Self> {
        empty(&options.directory)?;
        let postgres = PrivatePostgres::start(PostgresOptions { directory: None, durable: options.durable })?;
        postgres.create_database(DATABASE)?;
        postgres.sql(DATABASE, schema::BOOTSTRAP)?;
        let chain = LocalChain::start(ChainOptions::default()).await?;
        // The first two deployments of a fresh chain: the addresses in chains.toml.
        let usdc = chain.deploy(contracts::test_usdc().bytecode).await?;
        let usdt = chain.deploy(contracts::test_usdt().bytecode).await?;
        let trezor = SimulatedTrezor::start(SimulatorOptions::default())?;
        let stage = Self { postgres, chain, trezor, usdc, usdt, options, api_port: free_port()?, metrics_port: free_port()?, daemon: None };
        stage.write("chains.toml", CHAINS_TOML)?;
        stage.write("amanatd.toml", &stage.configuration())?;
        stage.write_definitions()?;
        Ok(stage)
    }

    fn configuration(&self) -> String {
        format!(
            "[database]\nurl = \"{}\"\nmigrator_url = \"{}\"\n\n[api]\nlisten = \"127.0.0.1:{}\"\n\n\
             [console]\norigin = \"{}\"\n\n[metrics]\nlisten = \"127.0.0.1:{}\"\n\n[watch]\npoll_ms = 50\n\n[[chain]]\nid = 31337\nrpc_urls = [\"{}\"]\n",
            self.postgres.url(APP, DATABASE),
            self.postgres.url(MIGRATOR, DATABASE),
            self.api_port,
            self.console_origin(),
            self.metrics_port,
            self.chain.url()
        )
    }

    // === files ===

    /// Names for the device: without them it writes UNKN for a chain and tokens it does not know. The
    /// vendor signs none for a local chain, so these are sealed for the simulated device only.
    fn write_definitions(&self) -> anyhow::Result<()> {
        let token = |address, symbol: &str| Definition::Token {
            chain_id: CHAIN_ID,
            address,
            symbol: symbol.to_owned(),
            decimals: 6,
            name: format!("test {symbol}"),
        };
        let network = Definition::Network { chain_id: CHAIN_ID, symbol: "ETH".to_owned(), slip44: 60, name: "Local".to_owned() };
        for definition in [network, token(self.usdc, "USDC"), token(self.usdt, "USDT")] {
            let path = self.path("definitions").join(definition.file());
            let folder = path.parent().context("a definition's folder")?;
            std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
            std::fs::write(&path, definition.encode(DATA_VERSION_MIN)).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.options.directory.join(name)
    }

    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    pub fn api_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api_port)
    }

    /// Passkeys need a name, so not the address.
    pub fn console_origin(&self) -> String {
        format!("http://localhost:{}", self.api_port)
    }

    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics_port)
    }

    pub fn database_url(&self, role: &str) -> String {
        self.postgres.url(role, DATABASE)
    }

    // === commands ===

    /// `amanatd` with this stage's configuration and the given words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binary);
        command.arg("--config").arg(self.path("amanatd.toml")).args(words).env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end and returns what it printed; its failure is our error.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.output(words)?;
        if !output.status.success() {
            anyhow::bail!("amanatd {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs a command to its end, whatever that is.
    pub fn output(&self, words: &[&str]) -> anyhow::Result<Output> {
        self.command(words).output().with_context(|| format!("run amanatd {}", words.join(" ")))
    }

    /// A client whose token is made now, with these scopes.
    pub fn client(&self, name: &str, scopes: &[&str], user: Option<&str>) -> anyhow::Result<Client> {
        let mut words = vec!["token", "create", "--name", name];
        for scope in scopes {
            words.extend(["--scope", scope]);
        }
        if let Some(user) = user {
            words.extend(["--user", user]);
        }
        let secret = self.run(&words)?;
        self.write(&format!("{name}.token"), &secret)?;
        Ok(Client::new(&self.api_url(), SecretString::from(secret))?)
    }

    // === the daemon ===

    /// Starts the daemon and waits until it says that it is ready.
    pub async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("daemon.log")).context("open daemon.log")?;
        let mut words = child::dies_with_us("KILL");
        words.push(self.options.binary.to_string_lossy().into_owned());
        words.extend(["--config".to_owned(), self.path("amanatd.toml").to_string_lossy().into_owned(), "serve".to_owned()]);
        let mut command = child::command(&words)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).env_remove("RUST_LOG");
        self.daemon = Some(child::spawn(command).context("start the daemon")?);
        let client = reqwest::Client::new();
        let ready = format!("{}/readyz", self.metrics_url());
        let started = Instant::now();
        // Ends when the daemon is ready or gone, or patience is.
        loop {
            if client.get(&ready).send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.daemon.as_mut().map(Child::try_wait).transpose()?.flatten() {
                anyhow::bail!("the daemon ended at its start ({status}):\n{}", self.log_tail());
            }
            if started.elapsed() > PATIENCE {
                anyhow::bail!("the daemon did not get ready:\n{}", self.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the daemon at once, without a chance to tidy up: SIGKILL.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().context("kill the daemon")?;
            daemon.wait().context("wait for the killed daemon")?;
        }
        Ok(())
    }

    /// Asks the daemon to end and waits for it; when patience ends it is killed, and the status says so.
    pub fn stop_daemon(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        child::stop(&mut daemon, Signal::TERM, PATIENCE).context("stop the daemon")
    }

    /// Waits until the daemon ends by itself.
    pub fn wait_for_daemon(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let mut daemon = self.daemon.take().context("the daemon does not run")?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = daemon.try_wait().context("wait for the daemon")? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.daemon = Some(daemon);
        anyhow::bail!("the daemon did not end:\n{}", self.log_tail())
    }

    /// The daemon's process, while it runs.
    pub fn daemon_pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Sends the daemon a signal and waits for nothing.
    pub fn signal_daemon(&self, signal: Signal) -> anyhow::Result<()> {
        let daemon = self.daemon.as_ref().context("the daemon does not run")?;
        // It has not been reaped, so its pid cannot belong to anybody else.
        kill_process(Pid::from_child(daemon), signal).context("signal the daemon")
    }

    /// The last lines of the daemon's log, for an error message.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.path("daemon.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // The stage is going; if this fails, the kernel ends the daemon with us.
            let _ = child::stop(daemon, Signal::TERM, Duration::from_secs(5));
        }
    }
}

/// Makes the directory, or empties one that an earlier run made. Anything else is left alone.
fn empty(directory: &Path) -> anyhow::Result<()> {
    let mark = directory.join("amanatd.toml");
    if directory.exists() {
        let is_empty = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?.next().is_none();
        if !is_empty && !mark.exists() {
            anyhow::bail!("{} holds other files; name an empty directory with --directory", directory.display());
        }
        std::fs::remove_dir_all(directory).with_context(|| format!("empty {}", directory.display()))?;
    }
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))
}

/// A port that was free a moment ago.
fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
