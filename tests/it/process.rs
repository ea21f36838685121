//! `amanatd` as an operator meets it: a process with a configuration, an exit status and two streams.
//! Whatever is wrong or missing, it says which, on standard error, and never with a backtrace.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use amanatd::api::Client;
use amanatd::cli::Cli;
use amanatd::devkit::chain::{ChainOptions, LocalChain};
use amanatd::devkit::postgres::{self, APP, MIGRATOR, SUPERUSER};
use amanatd::devkit::schema::FreshDatabase;
use amanatd::devkit::trezor::{SimulatedTrezor, SimulatorOptions};
use amanatd::devkit::{child, contracts};
use clap::CommandFactory;
use rustix::process::Signal;
use secrecy::SecretString;

use crate::watching::XPUB;

const AMANATD: &str = env!("CARGO_BIN_EXE_amanatd");
const CHAINS: &str = include_str!("../../chains.toml");
/// Bounds every wait; far above what anything takes.
const PATIENCE: Duration = Duration::from_secs(90);

// === tools ===

/// A folder with a configuration, gone after the test.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) api_port: u16,
    pub(crate) metrics_port: u16,
}

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Whoever was first is right.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("amanatd-process-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let place = Self { folder, api_port: free_port(), metrics_port: free_port() };
        place.write("chains.toml", CHAINS);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The configuration of a daemon on the local chain.
    pub(crate) fn configure(&self, database: &str, rpc: &str) {
        self.write("amanatd.toml", &self.configuration(database, rpc));
    }

    pub(crate) fn configuration(&self, database: &str, rpc: &str) -> String {
        format!(
            "[database]\nurl = \"{database}\"\n\n[api]\nlisten = \"127.0.0.1:{}\"\n\n[metrics]\nlisten = \"127.0.0.1:{}\"\n\n\
             [watch]\npoll_ms = 20\n\n[[chain]]\nid = 31337\nrpc_urls = [\"{rpc}\"]\n",
            self.api_port, self.metrics_port
        )
    }

    /// `amanatd` with this configuration, in a shell that asks for backtraces.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(AMANATD);
        command.arg("--config").arg(self.path("amanatd.toml")).args(words).stdin(Stdio::null());
        command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").env_remove("CREDENTIALS_DIRECTORY");
        command
    }

    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Ended::of(words, self.command(words).output().unwrap())
    }

    /// What it printed; it must have succeeded.
    pub(crate) fn succeed(&self, words: &[&str]) -> String {
        let ended = self.run(words);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.trim().to_owned()
    }

    pub(crate) fn serve(&self, log: &str) -> Daemon {
        self.serve_with(log, |_| {})
    }

    pub(crate) fn serve_with(&self, log: &str, prepare: impl FnOnce(&mut Command)) -> Daemon {
        let log = self.path(log);
        let mut words = child::dies_with_us("KILL");
        words.extend([AMANATD.to_owned(), "--config".to_owned(), self.path("amanatd.toml").display().to_string(), "serve".to_owned()]);
        let mut command = child::command(&words).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG").env_remove("CREDENTIALS_DIRECTORY");
        prepare(&mut command);
        Daemon { child: Some(child::spawn(command).unwrap()), log }
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let ready = client.get(format!("http://127.0.0.1:{}/readyz", self.metrics_port)).send().await;
        ready.is_ok_and(|response| response.status().is_success())
    }

    pub(crate) fn client(&self, token: &str) -> Client {
        Client::new(&format!("http://127.0.0.1:{}", self.api_port), SecretString::from(token)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A process that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    what: String,
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(words: &[&str], output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let ended = Self { what: words.join(" "), code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert_calm(&ended.stdout);
        assert_calm(&ended.stderr);
        ended
    }

    /// It failed as the world's faults do: status 1, the words on standard error.
    pub(crate) fn assert_failed(&self, said: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        for word in said {
            assert!(self.stderr.contains(word), "`{}` does not say {word:?}: {self:?}", self.what);
        }
        assert!(self.stderr.contains("error: "), "{self:?}");
        assert!(!self.stdout.contains("error"), "an error on standard output: {self:?}");
    }
}

/// No output is a crash.
fn assert_calm(text: &str) {
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", "Stack backtrace", "unwrap()", "src/main.rs"] {
        assert!(!text.contains(word), "{word}:\n{text}");
    }
}

/// A daemon that runs. Dropping it ends it.
pub(crate) struct Daemon {
    child: Option<Child>,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap();
        assert_calm(&text);
        text
    }

    pub(crate) fn said(&self, words: &str) -> bool {
        self.log().contains(words)
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    /// Ends by itself, with a status; gives back what it said.
    pub(crate) async fn ended(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.has_ended() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it goes on:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.child = None;
        Ended { what: "serve".to_owned(), code: status.code(), stdout: String::new(), stderr: self.log() }
    }

    /// SIGKILL: it can do nothing about it.
    pub(crate) fn kill(mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        self.log();
    }

    /// SIGTERM, and what it ends with.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let status = child::stop(&mut child, Signal::TERM, PATIENCE).unwrap();
        self.log();
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child::stop(child, Signal::KILL, Duration::from_secs(5));
        }
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asks until it is so. The daemon must go on meanwhile.
pub(crate) async fn until(daemon: &mut Daemon, what: &str, mut reached: impl AsyncFnMut(&Daemon) -> bool) {
    let started = Instant::now();
    while !reached(daemon).await {
        if let Some(status) = daemon.has_ended() {
            panic!("it ended ({status}) before {what}:\n{}", daemon.log());
        }
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}:\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A local chain with the two tokens of chains.toml.
pub(crate) async fn chain(port: u16) -> LocalChain {
    let chain = LocalChain::start(ChainOptions { port, ..ChainOptions::default() }).await.unwrap();
    chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
    chain
}

/// A URL where nobody listens.
pub(crate) fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

// === no database ===

#[tokio::test]
async fn no_database_is_waited_for_and_named() {
    let place = Place::new();
    let socket = place.path("no-server");
    place.configure(&format!("postgres://amanat_app:canary-password@localhost/amanat?host={}", socket.display()), &nobody());
    let mut daemon = place.serve("log");
    until(&mut daemon, "it has tried twice", async |daemon| daemon.log().matches("the database cannot be reached").count() >= 2).await;
    let log = daemon.log();
    assert!(log.contains("trying again"), "{log}");
    assert!(log.contains(&socket.display().to_string()), "it does not say which database:\n{log}");
    assert!(!log.contains("canary-password"), "{log}");
    assert!(!place.is_ready().await);
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0), "SIGTERM is no failure");
}

#[tokio::test]
async fn a_database_that_comes_later_is_taken() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP).replace(&base.name, "not_yet_there"), &nobody());
    let mut daemon = place.serve("log");
    until(&mut daemon, "it has tried", async |daemon| daemon.said("the database cannot be reached")).await;
    let cluster = postgres::shared().unwrap();
    cluster.create_database_from(&base.name, "not_yet_there").unwrap();
    until(&mut daemon, "it is ready", async |_| place.is_ready().await).await;
    assert_eq!(daemon.terminate().code(), Some(0));
    cluster.drop_database("not_yet_there").unwrap();
}

#[test]
fn commands_without_a_database_say_so() {
    let place = Place::new();
    let url = format!("postgres://amanat_app@localhost/amanat?host={}", place.path("no-server").display());
    place.write("amanatd.toml", &place.configuration(&url, &nobody()).replace("url = ", &format!("migrator_url = \"{url}\"\nurl = ")));
    for words in [["check"].as_slice(), &["migrate"], &["token", "list"], &["account", "list"], &["verify"], &["reconcile"]] {
        place.run(words).assert_failed(&["the database cannot be reached", &place.path("no-server").display().to_string()]);
    }
}

// === the wrong database ===

#[tokio::test]
async fn y9_serve_refuses_a_database_that_is_not_as_it_must_be() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    for (role, said) in [(SUPERUSER, "is a superuser"), (MIGRATOR, "may become their owner")] {
        place.configure(&base.url(role), &nobody());
        place.serve("log").ended().await.assert_failed(&[role, said]);
        place.run(&["check"]).assert_failed(&[role, said]);
    }
    place.configure(&base.url(APP), &nobody());
    base.sql("alter table funds_ledger_entries disable trigger funds_ledger_entries_no_delete").unwrap();
    place.serve("log").ended().await.assert_failed(&["funds_ledger_entries_no_delete", "disabled"]);

    let cluster = postgres::shared().unwrap();
    cluster.create_database("process_empty").unwrap();
    cluster.sql("process_empty", amanatd::devkit::schema::BOOTSTRAP).unwrap();
    place.configure(&cluster.url(APP, "process_empty"), &nobody());
    place.serve("log").ended().await.assert_failed(&["migration 1 is not applied", "amanatd migrate"]);
    cluster.drop_database("process_empty").unwrap();
}

#[tokio::test]
async fn y3_a_second_daemon_takes_its_share_and_then_all_of_it() {
    let base = FreshDatabase::create().unwrap();
    let (first, second) = (Place::new(), Place::new());
    first.configure(&base.url(APP), &nobody());
    second.configure(&base.url(APP), &nobody());
    let mut daemon = first.serve("log");
    until(&mut daemon, "the first is ready", async |_| first.is_ready().await).await;
    let mut third = second.serve("log");
    // One chain and the house: each has one, and nothing moves any more.
    let holders = "select count(distinct holder), count(*) from leases where name <> 'daemon'";
    until(&mut third, "each has its share", async |_| second.is_ready().await && base.sql(holders).unwrap().trim() == "2|2").await;
    let numbers = "select string_agg(name || ' ' || number, ', ' order by name) from leases where name <> 'daemon'";
    let shared = base.sql(numbers).unwrap();
    assert_eq!(shared.trim(), "chain:31337 2, house 1");
    until(&mut daemon, "the first has ended what it gave", async |daemon| daemon.said("another daemon has less to do")).await;
    assert!(first.is_ready().await && second.is_ready().await, "the API is served by both");
    assert_eq!(base.sql(numbers).unwrap(), shared);
    // With the first killed, what it held is free at once.
    daemon.kill();
    until(&mut third, "it has both", async |_| base.sql(numbers).unwrap().trim() == "chain:31337 2, house 2").await;
    assert_eq!(third.terminate().code(), Some(0));
}

// === the node ===

#[tokio::test]
async fn no_node_is_waited_for_and_the_api_answers_meanwhile() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let port = free_port();
    place.configure(&base.url(APP), &format!("http://127.0.0.1:{port}"));
    let token = place.succeed(&["token", "create", "--name", "t", "--scope", "payments:read"]);
    let mut daemon = place.serve("log");
    until(&mut daemon, "it is ready", async |_| place.is_ready().await).await;
    until(&mut daemon, "it names the node", async |daemon| daemon.said("Local (chain 31337)") && daemon.said("127.0.0.1 (endpoint 1)"))
        .await;
    let client = place.client(&token);
    assert_eq!(client.chains().await.unwrap()[0].scanned_number, None);

    let chain = chain(port).await;
    until(&mut daemon, "the chain is read", async |_| {
        client.chains().await.is_ok_and(|chains| chains[0].scanned_number.is_some_and(|number| number >= 2))
    })
    .await;
    // The node goes away under way, and comes back.
    drop(chain);
    until(&mut daemon, "the loss is told", async |daemon| daemon.log().matches("WARN").count() > 1).await;
    assert!(client.chains().await.is_ok());
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[tokio::test]
async fn y9_another_chain_is_refused_with_both_ids() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = LocalChain::start(ChainOptions { chain_id: 1_337, ..ChainOptions::default() }).await.unwrap();
    place.configure(&base.url(APP), chain.url());
    place.serve("log").ended().await.assert_failed(&["chain 31337", "1337", "Local"]);
    place.run(&["check"]).assert_failed(&["chain 31337", "on chain"]);
}

#[tokio::test]
async fn y9_other_decimals_are_refused_with_both_numbers() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    place.configure(&base.url(APP), chain.url());
    let usdc = "symbol = \"USDC\"\n  contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\n  decimals = ";
    place.write("chains.toml", &CHAINS.replace(&format!("{usdc}6"), &format!("{usdc}8")));
    place.serve("log").ended().await.assert_failed(&["USDC", "decimals = 8", "6 on chain"]);

    place.write("chains.toml", &CHAINS.replace("0x5FbDB2315678afecb367f032d93F642f64180aa3", "0x3333333333333333333333333333333333333333"));
    place.serve("log").ended().await.assert_failed(&["USDC", "0x3333333333333333333333333333333333333333"]);
}

// === the configuration ===

#[tokio::test]
async fn a_taken_port_is_named() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    for port in [place.api_port, place.metrics_port] {
        let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        place.serve("log").ended().await.assert_failed(&[&format!("127.0.0.1:{port}"), "cannot listen"]);
        drop(taken);
    }
}

#[test]
fn a_bad_configuration_names_its_field() {
    let place = Place::new();
    let missing = Command::new(AMANATD).args(["--config", "/nowhere/amanatd.toml", "serve"]).output().unwrap();
    Ended::of(&["serve"], missing).assert_failed(&["/nowhere/amanatd.toml"]);

    let good = place.configuration("postgres:///x", "http://127.0.0.1:9");
    let with = |text: &str| format!("{text}\n{good}");
    let without = |text: &str| good.replace(text, "");
    let instead = |text: &str, other: &str| {
        assert!(good.contains(text), "{text}");
        good.replace(text, other)
    };
    let cases: Vec<(String, &[&str])> = vec![
        (with("pol_ms = 5"), &["pol_ms"]),
        (instead("poll_ms", "pol_ms"), &["pol_ms"]),
        (instead("[watch]", "[wtach]"), &["wtach"]),
        (instead("poll_ms = 20", "poll_ms = \"20\""), &["poll_ms"]),
        (instead("poll_ms = 20", "poll_ms = 5"), &["watch.poll_ms", "5"]),
        (instead("poll_ms = 20", "poll_ms = 60001"), &["watch.poll_ms", "60001"]),
        (instead("poll_ms = 20", "poll_ms = -1"), &["poll_ms"]),
        (instead("id = 31337", "id = 0"), &["chain.id", "0"]),
        (instead("id = 31337", "id = 424242"), &["chain.id", "424242", "chains.toml"]),
        (instead("id = 31337", "id = \"31337\""), &["id"]),
        (format!("{good}\n[[chain]]\nid = 31337\nrpc_urls = [\"http://127.0.0.1:9\"]\n"), &["chain.id", "31337", "once"]),
        (instead("rpc_urls = [\"http://127.0.0.1:9\"]", ""), &["chain.rpc_urls", "rpc-urls-31337"]),
        (good.split("[[chain]]").next().unwrap().to_owned(), &["[[chain]]"]),
        (without("url = \"postgres:///x\""), &["database.url", "database-url"]),
        (instead("127.0.0.1:", "localhost:"), &["listen", "localhost:"]),
        (with("chains_file = \"other.toml\""), &["other.toml"]),
        (with("[planning]\napprovals_required = 0\n"), &["planning.approvals_required", "0"]),
        (with("[planning]\napprovals_required = 21\n"), &["planning.approvals_required", "21"]),
        (with("[planning]\nmax_fee_per_gas_gwei = 0\n"), &["planning.max_fee_per_gas_gwei", "0"]),
        ("not toml".to_owned(), &["amanatd.toml"]),
    ];
    for (text, said) in cases {
        place.write("amanatd.toml", &text);
        place.run(&["serve"]).assert_failed(said);
    }
    place.write("amanatd.toml", &good);
    for (text, said) in [
        (CHAINS.replace("confirmation_threshold = 3\n", "confirmation_threshold = 0\n"), ["31337", "confirmation_threshold"]),
        (CHAINS.replace("confirmation_threshold = 3\n", "confirmation_threshold = 10001\n"), ["31337", "10001"]),
        (CHAINS.replace("name = \"Local\"", "nome = \"Local\""), ["chains.toml", "cannot be read"]),
        (CHAINS.replace("0x5FbDB2315678afecb367f032d93F642f64180aa3", "0x5FbDB2315678afecb367f032d93F642f64180Aa3"), ["31337", "USDC"]),
        (CHAINS.replace("id = 31337", "id = 1"), ["chain 1", "twice"]),
    ] {
        assert_ne!(text, CHAINS);
        place.write("chains.toml", &text);
        place.run(&["serve"]).assert_failed(&said);
    }
}

#[test]
fn secrets_come_from_files_and_credentials_and_are_not_repeated() {
    let place = Place::new();
    let canary = "postgres://amanat_app:canary-password@localhost/amanat?host=/nowhere-at-all";
    place.write("database.secret", &format!("{canary}\n"));
    let inline = format!("url = \"{canary}\"");
    let good = place.configuration(canary, "http://127.0.0.1:9/canary-key");
    place.write("amanatd.toml", &good.replace(&inline, "url_file = \"database.secret\""));
    let by_file = place.run(&["check"]);
    by_file.assert_failed(&["the database cannot be reached"]);

    place.write("amanatd.toml", &good.replace(&inline, ""));
    fs::create_dir_all(place.path("credentials")).unwrap();
    place.write("credentials/database-url", canary);
    let output = place.command(&["check"]).env("CREDENTIALS_DIRECTORY", place.path("credentials")).output().unwrap();
    let by_credential = Ended::of(&["check"], output);
    by_credential.assert_failed(&["the database cannot be reached"]);
    for ended in [by_file, by_credential] {
        assert!(!ended.stdout.contains("canary") && !ended.stderr.contains("canary"), "{ended:?}");
    }
}

// === commands that are refused ===

#[test]
fn w3_a_threshold_out_of_bounds_is_refused_and_not_stored() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    let set = |blocks: &str| place.run(&["threshold", "set", "--chain", "31337", "--blocks", blocks, "--by", "test", "--reason", "test"]);
    for blocks in ["0", "-1", "10001", "2147483648", "9223372036854775807"] {
        set(blocks).assert_failed(&["--blocks", blocks]);
    }
    for blocks in ["NaN", "1.5", "three", "", "1e3", "9223372036854775808"] {
        let ended = set(blocks);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("--blocks"), "{ended:?}");
    }
    let other = place.run(&["threshold", "set", "--chain", "424242", "--blocks", "3", "--by", "test", "--reason", "test"]);
    other.assert_failed(&["--chain", "424242"]);
    let long = "r".repeat(501);
    place.run(&["threshold", "set", "--chain", "31337", "--blocks", "3", "--by", "test", "--reason", &long]).assert_failed(&["--reason"]);
    place.run(&["threshold", "set", "--chain", "31337", "--blocks", "3", "--by", "", "--reason", "x"]).assert_failed(&["--by"]);
    assert_eq!(base.sql("select count(*) from config_setting_history").unwrap().trim(), "0");
    for blocks in ["1", "10000"] {
        assert_eq!(set(blocks).code, Some(0));
    }
    let rows = base.sql("select new_value, changed_by, old_value from config_setting_history order by id").unwrap();
    assert_eq!(rows.trim(), "1|test|\n10000|test|1");

    // Tiers and dates, and the table that shows them.
    let by = ["threshold", "set", "--chain", "31337", "--by", "test", "--reason", "test"];
    let more = |words: &[&str]| place.run(&[&by, words].concat());
    more(&["--blocks", "4", "--asset", "DOGE", "--from-amount", "1"]).assert_failed(&["--asset", "DOGE", "ETH, USDC, USDT"]);
    more(&["--blocks", "4", "--asset", "USDC", "--from-amount", "1.0000001"]).assert_failed(&["--from-amount", "1.0000001"]);
    more(&["--blocks", "4", "--effective-at", "tomorrow"]).assert_failed(&["--effective-at", "tomorrow"]);
    more(&["--blocks", "4", "--effective-at", "2020-01-01T00:00:00Z"]).assert_failed(&["--effective-at", "2020"]);
    more(&["--off", "--asset", "USDC", "--from-amount", "1"]).assert_failed(&["no tier"]);
    let tier = ["--blocks", "4", "--gate", "release", "--asset", "USDC", "--from-amount", "1"];
    more(&tier).assert_failed(&["release_threshold:31337 is not set"]);
    assert_eq!(base.sql("select count(*) from config_setting_history").unwrap().trim(), "2", "L8");
    assert_eq!(more(&["--blocks", "40", "--asset", "USDC", "--from-amount", "1000.5"]).code, Some(0));
    // A lower value takes two officers, and the first of them a token.
    more(&["--blocks", "7", "--effective-at", "2040-01-01T03:30:00+03:30"]).assert_failed(&[
        "from 10000 to 7",
        "two officers",
        "--token-file",
    ]);
    more(&["--off", "--asset", "USDC", "--from-amount", "1000.5"]).assert_failed(&["from 40 to off", "two officers"]);
    assert_eq!(base.sql("select count(*) from config_setting_history").unwrap().trim(), "3", "L8");
    assert_eq!(more(&["--blocks", "10000", "--effective-at", "2040-01-01T03:30:00+03:30"]).code, Some(0));
    let list = place.run(&["threshold", "list"]).stdout;
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1][..6], ["31337", "credit", "any", "amount", "10000", "in"], "{list}");
    assert_eq!(lines[2][..6], ["31337", "credit", "1000.5", "USDC", "40", "in"], "{list}");
    assert_eq!(lines[3][..8], ["31337", "credit", "any", "amount", "10000", "coming", "at", "2040-01-01T00:00:00Z"], "{list}");
    assert_eq!(place.run(&["threshold", "history", "--gate", "credit"]).stdout.lines().count(), 5);
}

#[test]
fn people_and_tokens_that_cannot_be_are_refused() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    place.run(&["user", "create", "--name", "", "--role", "guard"]).assert_failed(&["--name"]);
    place.run(&["user", "create", "--name", "x", "--role", "guard", "--email", "nobody"]).assert_failed(&["--email"]);
    let role = place.run(&["user", "create", "--name", "x", "--role", "king"]);
    assert!(role.code == Some(2) && role.stderr.contains("king"), "{role:?}");
    let buyer = place.succeed(&["user", "create", "--name", "x", "--role", "buyer"]);
    let approve = ["token", "create", "--name", "a", "--scope", "intents:approve"];
    place.run(&approve).assert_failed(&["--user"]);
    place.run(&[approve.as_slice(), &["--user", &buyer]].concat()).assert_failed(&[&buyer, "buyer"]);
    let nobody = "00000000-0000-0000-0000-000000000001";
    place.run(&[approve.as_slice(), &["--user", nobody]].concat()).assert_failed(&[nobody]);
    let scope = place.run(&["token", "create", "--name", "a", "--scope", "everything"]);
    assert!(scope.code == Some(2) && scope.stderr.contains("everything"), "{scope:?}");
    let days = place.run(&["token", "create", "--name", "a", "--scope", "signing", "--expires", "0"]);
    assert!(days.code == Some(2) && days.stderr.contains("--expires"), "{days:?}");
    place.run(&["token", "revoke", "--name", "ghost"]).assert_failed(&["ghost"]);
    assert_eq!(base.sql("select count(*) from api_tokens").unwrap().trim(), "0");

    place.succeed(&["token", "create", "--name", "a", "--scope", "signing"]);
    place.run(&["token", "create", "--name", "a", "--scope", "signing"]).assert_failed(&["\"a\"", "revoke"]);
}

#[test]
fn an_enrolment_without_its_device_stores_nothing() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    place.configure(&base.url(APP), &nobody());
    let enrol = |device: &str| place.run(&["account", "enrol", "--label", "main", "--device", device]);
    enrol(&format!("udp:127.0.0.1:{}", free_port())).assert_failed(&["Trezor", "plug it in"]);
    for device in ["udp:192.0.2.1:21324", "tcp:1", "usb:1", "usb:999:1", ""] {
        let ended = enrol(device);
        assert!(ended.code == Some(2) && ended.stderr.contains("--device"), "{ended:?}");
    }
    let far = place.run(&["account", "enrol", "--label", "main", "--account", "101"]);
    assert!(far.code == Some(2) && far.stderr.contains("101"), "{far:?}");

    // A device without a wallet, and one with a firmware that cannot be trusted.
    let empty = SimulatedTrezor::start(SimulatorOptions { initialized: false, ..SimulatorOptions::default() }).unwrap();
    enrol(&empty.endpoint()).assert_failed(&["holds no seed"]);
    let boots = SimulatedTrezor::start(SimulatorOptions { bootloader_mode: true, ..SimulatorOptions::default() }).unwrap();
    enrol(&boots.endpoint()).assert_failed(&["bootloader mode"]);
    assert_eq!(base.sql("select count(*) from trezor_accounts").unwrap().trim(), "0");

    let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    trezor.officer().confirm_all();
    assert_eq!(enrol(&trezor.endpoint()).code, Some(0));
    enrol(&trezor.endpoint()).assert_failed(&["main"]);
    assert_eq!(base.sql("select count(*) from trezor_accounts").unwrap().trim(), "1");
}

#[test]
fn a_station_without_daemon_token_or_device_says_which() {
    let place = Place::new();
    place.configure("postgres:///x", &nobody());
    let chains = place.path("chains.toml").display().to_string();
    place.run(&["sign", "--once", "--chains", &chains]).assert_failed(&["--token-file"]);
    place.run(&["sign", "--once", "--chains", &chains, "--token-file", "/nowhere/token"]).assert_failed(&["/nowhere/token"]);
    place.run(&["sign", "--once", "--chains", "/nowhere/chains.toml"]).assert_failed(&["/nowhere/chains.toml"]);
    place.write("token", &format!("amanat_{}", "0".repeat(64)));
    let token = place.path("token").display().to_string();
    let device = format!("udp:127.0.0.1:{}", free_port());
    let sign = ["sign", "--once", "--chains", &chains, "--token-file", &token, "--device", &device];
    place.run(&sign).assert_failed(&["Trezor", "plug it in"]);
    let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    let (url, device) = (nobody(), trezor.endpoint());
    let sign = ["sign", "--once", "--chains", &chains, "--token-file", &token, "--device", &device, "--url", &url];
    place.run(&sign).assert_failed(&["the daemon cannot be reached"]);
    place.run(&["intent", "list", "--token-file", &token, "--url", &url]).assert_failed(&["the daemon cannot be reached"]);
    place.run(&["intent", "list", "--token-file", &token, "--url", "ftp://x"]).assert_failed(&["ftp://x"]);
}

// === how the chains stand ===

#[tokio::test]
async fn chain_status_needs_the_database_and_no_node() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    let away = nobody();
    let two = format!("{}\", \"{away}/canary-key", chain.url());
    place.configure(&base.url(APP), chain.url());
    let mut daemon = place.serve("log");
    until(&mut daemon, "the chain is read", async |_| base.sql("select count(*) from chain_cursors").unwrap().trim() == "1").await;
    assert_eq!(daemon.terminate().code(), Some(0));
    let scanned: u64 = base.sql("select number from chain_cursors").unwrap().trim().parse().unwrap();
    chain.mine(90).await.unwrap();
    let head = chain.head().await.unwrap().number;

    place.write("amanatd.toml", &(place.configuration(&base.url(APP), &two) + "agreement = 1\n"));
    let told: serde_json::Value = serde_json::from_str(&place.succeed(&["chain", "status", "--json"])).unwrap();
    let status = &told[0];
    let numbers = [&status["head"], &status["scanned"], &status["lag_blocks"], &status["credit_blocks"], &status["agreement"]];
    assert_eq!(numbers.map(serde_json::Value::as_u64), [Some(head), Some(scanned), Some(head - scanned), Some(3), Some(1)], "{status}");
    assert!(status["outflow_halted"].is_null() && status["fault"].is_null(), "{status}");
    let [first, second] = status["endpoints"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(
        (first["name"].as_str(), first["head"].as_u64(), first["lag_blocks"].as_u64()),
        (Some("127.0.0.1 (endpoint 1)"), Some(head), Some(0))
    );
    assert!(first["round_trip_ms"].is_u64() && first["fault"].is_null(), "{first}");
    assert!(second["head"].is_null() && second["fault"].as_str().is_some_and(|fault| !fault.is_empty()), "{second}");

    // For people; and when no endpoint answers, what the database knows is there all the same.
    place.configure(&base.url(APP), &format!("{away}/canary-key"));
    let table = place.run(&["chain", "status"]);
    assert_eq!(table.code, Some(0), "{table:?}");
    for said in ["scanned", "Local", &scanned.to_string(), "open", "127.0.0.1 (endpoint 1)", "1 of 1", "chain 31337: no head"] {
        assert!(table.stdout.contains(said), "{said}: {table:?}");
    }
    assert!(!table.stdout.contains("canary") && !table.stderr.contains("canary"), "{table:?}");
    let gone = format!("postgres://amanat_app@localhost/amanat?host={}", place.path("no-server").display());
    place.configure(&gone, &away);
    place.run(&["chain", "status"]).assert_failed(&["the database cannot be reached"]);
}

#[tokio::test]
async fn rescan_is_a_command_that_can_be_repeated() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    chain.mine(30).await.unwrap();
    place.write("amanatd.toml", &(place.configuration(&base.url(APP), chain.url()) + "start_block = 20\n"));
    place.run(&["rescan", "--chain", "31337", "--from", "1", "--to", "9"]).assert_failed(&["nothing is scanned yet"]);
    let mut daemon = place.serve("log");
    chain.mine(280).await.unwrap();
    let head = chain.head().await.unwrap().number.to_string();
    until(&mut daemon, "the chain is read", async |_| base.sql("select number from chain_cursors").unwrap().trim() == head).await;
    // Beside the daemon, below the first stored block and above it.
    let rescan = ["rescan", "--chain", "31337", "--from", "5", "--to", "25"];
    for _ in 0..2 {
        let ended = place.run(&rescan);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("21 blocks read, 0 transfers seen, 0 of them new, "), "{ended:?}");
    }
    assert_eq!(base.sql("select start_number from chain_cursors").unwrap().trim(), "5");
    place.run(&["rescan", "--chain", "31337", "--from", "9", "--to", "8"]).assert_failed(&["--from 9"]);
    place.run(&["rescan", "--chain", "1", "--from", "8", "--to", "9"]).assert_failed(&["--chain 1"]);
    place.run(&["rescan", "--chain", "31337", "--from", "8", "--to", "999999"]).assert_failed(&["the daemon reads them"]);
    chain.mine(1).await.unwrap();
    let head = chain.head().await.unwrap().number.to_string();
    until(&mut daemon, "it goes on", async |_| base.sql("select number from chain_cursors").unwrap().trim() == head).await;
    assert_eq!(daemon.terminate().code(), Some(0));
}

// === new heads are announced ===

/// A TCP relay whose connections can be cut.
struct Cable {
    address: std::net::SocketAddr,
    carried: std::sync::Arc<std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Cable {
    async fn to(target: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let carried: std::sync::Arc<std::sync::Mutex<Vec<tokio::task::JoinHandle<()>>>> = std::sync::Arc::default();
        let list = std::sync::Arc::clone(&carried);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = tokio::net::TcpStream::connect(&target).await else { continue };
                let carry = tokio::spawn(async move {
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
                list.lock().unwrap().push(carry);
            }
        });
        Self { address, carried }
    }

    fn connections(&self) -> usize {
        self.carried.lock().unwrap().len()
    }

    fn cut(&self) {
        self.carried.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
    }
}

#[tokio::test]
async fn y7_a_head_that_is_announced_is_read_before_the_poll() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    let cable = Cable::to(chain.url().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned()).await;
    let text = place.configuration(&base.url(APP), chain.url()).replace("poll_ms = 20", "poll_ms = 60000");
    place.write("amanatd.toml", &format!("{text}websocket_url = \"ws://canary-user:canary@{}/?key=canary-key\"\n", cable.address));
    let mut daemon = place.serve("log");
    until(&mut daemon, "the node is verified", async |daemon| daemon.said("agree with chains.toml")).await;
    for connections in 1..=2 {
        until(&mut daemon, "it is connected", async |daemon| {
            daemon.log().matches("new heads are announced").count() == connections && cable.connections() == connections
        })
        .await;
        // Polls come every minute.
        let read = async {
            for _ in 0..3 {
                chain.mine(1).await.unwrap();
                let head = chain.head().await.unwrap().number.to_string();
                until(&mut daemon, "the block is read", async |_| base.sql("select number from chain_cursors").unwrap().trim() == head)
                    .await;
            }
        };
        tokio::time::timeout(Duration::from_secs(55), read).await.expect("it waits for its poll");
        cable.cut();
        until(&mut daemon, "the loss is told", async |daemon| daemon.log().matches("new heads are not announced").count() == connections)
            .await;
    }
    let log = daemon.log();
    assert!(!log.contains("canary"), "{log}");
    assert_eq!(daemon.terminate().code(), Some(0));
}

// === help ===

#[test]
fn help_of_each_command_names_each_option() {
    let mut checked = 0;
    check_help(&Cli::command(), &mut Vec::new(), &mut checked);
    assert!(checked > 15, "{checked} commands");
}

fn check_help(command: &clap::Command, path: &mut Vec<String>, checked: &mut usize) {
    let output = Command::new(AMANATD).args(path.iter()).arg("--help").output().unwrap();
    let ended = Ended::of(&["--help"], output);
    assert_eq!(ended.code, Some(0), "{path:?}: {ended:?}");
    for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
        let name = option.get_long().map_or_else(|| option.get_id().as_str().to_uppercase(), |long| format!("--{long}"));
        assert!(ended.stdout.contains(&name), "{path:?} does not mention {name}:\n{}", ended.stdout);
    }
    for inner in command.get_subcommands() {
        assert!(ended.stdout.contains(inner.get_name()), "{path:?} does not mention {}", inner.get_name());
        path.push(inner.get_name().to_owned());
        check_help(inner, path, checked);
        path.pop();
    }
    *checked += 1;
}

#[test]
fn bad_usage_ends_with_two() {
    for words in [["serv"].as_slice(), &[], &["serve", "--force"], &["threshold", "set"], &["intent", "approve", "x"]] {
        let ended = Ended::of(words, Command::new(AMANATD).args(words).output().unwrap());
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{ended:?}");
    }
}

// === secrets ===

#[tokio::test]
async fn y7_no_secret_reaches_the_log() {
    let base = FreshDatabase::create().unwrap();
    let place = Place::new();
    let chain = chain(0).await;
    let database = base.url(APP).replace("amanat_app@", "amanat_app:canary-password@");
    let rpc = chain.url().replace("http://", "http://canary-user:canary-key@");
    place.configure(&database, &format!("{rpc}/?token=canary-query"));
    let trezor = SimulatedTrezor::start(SimulatorOptions::default()).unwrap();
    trezor.officer().confirm_all();
    let enrolled = place.succeed(&["account", "enrol", "--label", "main", "--device", &trezor.endpoint()]);
    let token = place.succeed(&["token", "create", "--name", "t", "--scope", "payments:read", "--scope", "payments:write"]);
    let listed = place.succeed(&["token", "list"]) + &place.succeed(&["account", "list"]);
    let mut daemon = place.serve_with("log", |command| {
        command.env("RUST_LOG", "trace");
    });
    let client = place.client(&token);
    until(&mut daemon, "the chain is read", async |_| client.chains().await.is_ok_and(|chains| chains[0].scanned_number.is_some())).await;
    let unknown = format!("amanat_{}", "ab".repeat(32));
    assert!(place.client(&unknown).chains().await.is_err());
    let asked = serde_json::from_value(serde_json::json!({
        "amount": "1", "currency": "USDC", "chain_id": 31337, "token": "USDC", "seller_address": "0x2222222222222222222222222222222222222222",
    }));
    client.create_payment(&asked.unwrap(), "canary").await.unwrap();
    // The node goes, and its loss is told in full.
    drop(chain);
    until(&mut daemon, "the loss is told", async |daemon| daemon.said("WARN")).await;
    let path = daemon.log.clone();
    assert_eq!(daemon.terminate().code(), Some(0));
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.len() > 2_000, "a log at TRACE");
    let secrets = [token.as_str(), unknown.as_str(), "canary-password", "canary-key", "canary-query", XPUB];
    for secret in secrets {
        for (name, text) in [("log", &log), ("list", &listed), ("enrolment", &enrolled)] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{secret} in the {name}: {line:?}");
        }
    }
}

// === the whole way ===

#[test]
fn whole_way() {
    let place = Place::new();
    let ended = demo(&place.path("demo"), &[]);
    assert!(ended.stdout.contains("All equal.") && !ended.stdout.contains("DIFFERENT"), "{ended:?}");
}

#[test]
fn s2_w4_whole_way_with_sigkill_between_steps() {
    let place = Place::new();
    let ended = demo(&place.path("demo"), &["--kill"]);
    assert!(ended.stdout.contains("All equal.") && !ended.stdout.contains("DIFFERENT"), "{ended:?}");
    let kills = ended.stdout.split("started again ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(kills.parse::<u32>().unwrap() >= 30, "{kills} kills");
}

fn demo(directory: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new(AMANATD);
    command.arg("demo").arg("--directory").arg(directory).args(words).stdin(Stdio::null());
    command.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
    let ended = Ended::of(&["demo"], command.output().unwrap());
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    let log = fs::read_to_string(directory.join("daemon.log")).unwrap();
    assert_calm(&log);
    ended
}

#[test]
fn xs_a_daemon_does_not_start_on_a_bad_list_or_provider() {
    let place = Place::new();
    let base = place.configuration("postgres://amanat_app@localhost/amanat?host=/nowhere-at-all", "http://127.0.0.1:9/");
    let with = |section: &str| {
        place.write("amanatd.toml", &format!("{base}\n[screening]\n{section}\n"));
        place.run(&["check"])
    };
    place.write("list.txt", "# of a test\n0x1111111111111111111111111111111111111111\n0x12\n");
    with("list_file = \"list.txt\"").assert_failed(&["list.txt", "line 3", "\"0x12\"", "give one 0x address a line"]);
    place.write("list.txt", "# nobody\n");
    with("list_file = \"list.txt\"").assert_failed(&["list.txt", "names no address"]);
    with("list_file = \"nowhere.txt\"").assert_failed(&["nowhere.txt", "cannot be read"]);
    let provider = |fields: &str| with(&format!("[screening.provider]\nname = \"x\"\n{fields}"));
    provider("hit_score = 75").assert_failed(&["screening.provider.url", "screening-url"]);
    provider("hit_score = 0\nurl = \"https://screen.example/\"").assert_failed(&["screening.provider.hit_score = 0", "1 to 100"]);
    provider("hit_score = 75\nurl = \"http://screen.example/canary\"").assert_failed(&["not an https URL"]);
    provider("hit_score = 75\nurl = \"https://10.0.0.7/canary\"").assert_failed(&["10.0.0.7", "private = true"]);
    with("pass_unscreened_below = \"lots\"").assert_failed(&["screening.pass_unscreened_below = lots"]);
    with("list_seconds = 0").assert_failed(&["screening.list_seconds = 0"]);
    with("lists = []").assert_failed(&["unknown field"]);
    // A good one is told of before the database is asked.
    place.write("list.txt", "0x1111111111111111111111111111111111111111\n");
    let good = with(
        "list_file = \"list.txt\"\noracle = true\n[screening.provider]\nname = \"x\"\nhit_score = 75\nurl = \"https://screen.example/canary\"",
    );
    assert!(good.stdout.contains("by a list of 1 addresses"), "{good:?}");
    assert!(good.stdout.contains("the provider x, hit from 75") && !good.stdout.contains("canary"), "{good:?}");
    let none = with("");
    assert!(none.stdout.contains("none: transfers are noted as not screened, and pass"), "{none:?}");
}
