//! A local EVM chain: a real anvil that mines when told to, with the reorgs, rollbacks and odd
//! balances that a test needs. What anvil cannot do (lie, lag, cap results) belongs to the
//! scripted node of the tests, not here. No private key passes through this file: anvil signs for
//! its own unlocked accounts.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, Bytes, U64, U256, address};
use alloy::providers::{Provider, ProviderBuilder, RootProvider};
use alloy::sol_types::SolCall;
use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::sync::oneshot;

use super::child;
use super::contracts::Token;

/// Where to look before anything else.
pub const ANVIL_ENV: &str = "AMANATD_ANVIL";

/// Deploys the contracts and owns them, and does nothing else, so that the same deployments in
/// the same order get the same addresses on every fresh chain.
pub const DEPLOYER: Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");

/// The other unlocked accounts, each with 10,000 coins: payers and strangers.
pub const PAYERS: [Address; 9] = [
    address!("70997970C51812dc3A010C7d01b50e0d17dc79C8"),
    address!("3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
    address!("90F79bf6EB2c4f870365E785982E1f101E93b906"),
    address!("15d34AAf54267DB7D7c367839AAf71A00a2C6A65"),
    address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc"),
    address!("976EA74026E726554dB657fA54763abd0C3a0aa9"),
    address!("14dC79964da2C08b23698B3D3cc7Ca32193d9955"),
    address!("23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f"),
    address!("a0Ee7A142d267C1f36714E4a8F75612F20a79720"),
];

/// Reading a chain of 300 MB takes 5 s, and three times that on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const MINED_WITHIN: Duration = Duration::from_secs(30);
const REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// Enough for every call we send. A limit of our own, because anvil's estimate refuses to send
/// what would revert, and tests want to see it revert.
const GAS_LIMIT: u64 = 300_000;
const DEPLOY_GAS_LIMIT: u64 = 5_000_000;

/// How to run the chain.
#[derive(Debug, Clone)]
pub struct ChainOptions {
    /// The port on loopback; 0 takes a free one.
    pub port: u16,
    /// Keep the chain here between runs.
    pub state_file: Option<PathBuf>,
    /// Begin with the chain in this file and never write to it.
    pub load_from: Option<PathBuf>,
    /// The chain id.
    pub chain_id: u64,
    /// Mine on this beat. `None`: only when told to.
    pub block_time: Option<Duration>,
    /// `safe` is one epoch behind the head, `finalized` two.
    pub slots_in_an_epoch: u64,
    /// Gas of a block; `None`: anvil's own.
    pub block_gas: Option<u64>,
    /// The timestamp of block 0, in seconds; `None`: now. With it the same calls give the same hashes.
    pub genesis_time: Option<u64>,
    /// How many old states stay within reach of `eth_call`; `None`: anvil's own. Blocks, receipts and
    /// `trace_block` do not need them.
    pub states_kept: Option<u32>,
}

impl Default for ChainOptions {
    fn default() -> Self {
        Self {
            port: 0,
            state_file: None,
            load_from: None,
            chain_id: 31337,
            block_time: None,
            slots_in_an_epoch: 32,
            block_gas: None,
            genesis_time: None,
            states_kept: None,
        }
    }
}

/// Why a chain could not be started or asked.
#[derive(Debug, Error)]
pub enum ChainError {
    /// There is no anvil on this machine.
    #[error("anvil is not installed; run `make setup` (tried: {tried})")]
    NotInstalled {
        /// Every place we looked.
        tried: String,
    },
    /// It ended, or never said that it listens.
    #[error("anvil did not start: {0}")]
    NotStarted(String),
    /// It had to be killed, or failed at its end.
    #[error("anvil did not stop as asked: {0}")]
    NotStopped(ExitStatus),
    /// The operating system refused something.
    #[error("{what}")]
    Io {
        /// The step.
        what: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The HTTP client could not be made.
    #[error("make an HTTP client for anvil")]
    Client(#[source] reqwest::Error),
    /// A call failed.
    #[error("{method} failed")]
    Call {
        /// The JSON-RPC method.
        method: &'static str,
        /// The transport's or anvil's answer.
        #[source]
        source: Box<alloy::transports::TransportError>,
    },
    /// A transaction is in no block, or failed in one.
    #[error("transaction {hash}: {what}")]
    Transaction {
        /// Its hash.
        hash: B256,
        /// What is wrong.
        what: String,
    },
    /// An answer that we did not expect.
    #[error("{method} answered {answer}")]
    Odd {
        /// The JSON-RPC method.
        method: &'static str,
        /// The answer.
        answer: String,
    },
}

/// A block's place in the chain: its number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The height.
    pub number: u64,
    /// The hash.
    pub hash: B256,
}

/// A transaction for the new branch of a reorg.
#[derive(Debug, Clone)]
pub enum ReorgTx {
    /// A request that anvil signs: `{"from": …, "to": …, "value": …, "data": …}`.
    Request(Value),
    /// Signed bytes.
    Raw(Bytes),
}

/// A running anvil. Dropping it stops it.
#[derive(Debug)]
pub struct LocalChain {
    child: Child,
    url: String,
    provider: RootProvider,
    mines_alone: bool,
    keeps_state: bool,
}

impl LocalChain {
    /// Starts anvil and waits until it answers.
    pub async fn start(options: ChainOptions) -> Result<Self, ChainError> {
        let anvil = find_anvil()?;
        let keeps_state = options.state_file.is_some();
        // INT lets it write the state down; without a state there is nothing to be polite about.
        let mut words = child::dies_with_us(if keeps_state { "INT" } else { "KILL" });
        words.push(anvil.to_string_lossy().into_owned());
        words.extend(arguments(&options));
        let mut command = child::command(&words).map_err(|source| ChainError::Io { what: "start anvil", source })?;
        let (reader, writer) = io::pipe().map_err(|source| ChainError::Io { what: "make a pipe", source })?;
        let second = writer.try_clone().map_err(|source| ChainError::Io { what: "make a pipe", source })?;
        command.stdin(Stdio::null()).stdout(writer).stderr(second);
        // A group of its own: Ctrl-C in a terminal must reach us first.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = child::spawn(command).map_err(|source| ChainError::Io { what: "start anvil", source })?;
        let mut guard = Guard(Some(child));
        let port = listening_port(reader).await?;
        let url = format!("http://127.0.0.1:{port}");
        let provider = connect(&url)?;
        let child = guard.0.take().ok_or_else(|| ChainError::NotStarted("it is gone".into()))?;
        let chain = Self { child, url, provider, mines_alone: options.block_time.is_some(), keeps_state };
        chain.head().await?;
        Ok(chain)
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A provider without fillers, with time limits.
    pub fn provider(&self) -> &RootProvider {
        &self.provider
    }

    /// anvil's process id, for tests that look at or kill it.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Any call that has no name here.
    pub async fn call<P, R>(&self, method: &'static str, parameters: P) -> Result<R, ChainError>
    where
        P: Serialize + Clone + std::fmt::Debug + Send + Sync + Unpin + 'static,
        R: DeserializeOwned + std::fmt::Debug + Send + Sync + Unpin + 'static,
    {
        self.provider
            .raw_request(Cow::Borrowed(method), parameters)
            .await
            .map_err(|source| ChainError::Call { method, source: Box::new(source) })
    }

    /// Stops anvil and waits until it has written its state down.
    pub fn stop(mut self, within: Duration) -> Result<(), ChainError> {
        let status = child::stop(&mut self.child, Signal::INT, within).map_err(|source| ChainError::Io { what: "stop anvil", source })?;
        // Killed because it took too long: there is no state then, or half of one.
        if status.success() { Ok(()) } else { Err(ChainError::NotStopped(status)) }
    }

    // === blocks ===

    /// The tip.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.block("latest").await
    }

    /// A block by tag or by hexadecimal number.
    pub async fn block(&self, tag: &str) -> Result<Head, ChainError> {
        let block: Value = self.call("eth_getBlockByNumber", json!([tag, false])).await?;
        head_of(&block).ok_or_else(|| ChainError::Odd { method: "eth_getBlockByNumber", answer: block.to_string() })
    }

    /// Mines `count` blocks, the pending transactions in the first; gives back the new tip.
    pub async fn mine(&self, count: u64) -> Result<Head, ChainError> {
        self.call::<_, Value>("anvil_mine", (U64::from(count),)).await?;
        self.head().await
    }

    /// Replaces the newest `depth` blocks by as many new ones. The old transactions are gone and
    /// not queued again; `transactions` go into the new branch, each with the index (from 0) of
    /// its block there. Several new blocks may carry one equal timestamp.
    pub async fn reorg(&self, depth: u64, transactions: Vec<(ReorgTx, u64)>) -> Result<Head, ChainError> {
        let pairs: Vec<Value> = transactions
            .into_iter()
            .map(|(transaction, index)| match transaction {
                ReorgTx::Request(request) => json!([request, index]),
                ReorgTx::Raw(bytes) => json!([bytes, index]),
            })
            .collect();
        self.call::<_, Value>("anvil_reorg", (depth, pairs)).await?;
        self.head().await
    }

    /// Takes the newest `depth` blocks away, so that the head goes back.
    pub async fn rollback(&self, depth: u64) -> Result<Head, ChainError> {
        self.call::<_, Value>("anvil_rollback", (depth,)).await?;
        self.head().await
    }

    /// Remembers the chain as it is now.
    pub async fn snapshot(&self) -> Result<U256, ChainError> {
        self.call("evm_snapshot", json!([])).await
    }

    /// Goes back to a snapshot, with the old hashes. A snapshot can be used once.
    pub async fn revert(&self, snapshot: U256) -> Result<Head, ChainError> {
        let done: bool = self.call("evm_revert", (snapshot,)).await?;
        if !done {
            return Err(ChainError::Odd { method: "evm_revert", answer: "false".into() });
        }
        self.head().await
    }

    /// Makes the chain's clock jump ahead; the next block shows it.
    pub async fn skip_time(&self, seconds: u64) -> Result<(), ChainError> {
        self.call::<_, Value>("evm_increaseTime", (U64::from(seconds),)).await.map(drop)
    }

    // === transactions ===

    /// Puts a contract on the chain from [`DEPLOYER`], in a block of its own.
    pub async fn deploy(&self, code: Bytes) -> Result<Address, ChainError> {
        let request = json!({ "from": DEPLOYER, "data": code, "gas": U64::from(DEPLOY_GAS_LIMIT) });
        let hash: B256 = self.call("eth_sendTransaction", (request,)).await?;
        let receipt = self.mined(hash).await?;
        receipt
            .get("contractAddress")
            .and_then(|value| serde_json::from_value(value.clone()).ok())
            .ok_or_else(|| ChainError::Transaction { hash, what: "created no contract".into() })
    }

    /// Queues a transfer of a token. It succeeds or fails when it is mined.
    pub async fn transfer_token(&self, token: Address, from: Address, to: Address, amount: U256) -> Result<B256, ChainError> {
        self.send(from, token, U256::ZERO, Token::transferCall { to, amount }.abi_encode().into()).await
    }

    /// Queues the making of new tokens, by their owner.
    pub async fn mint(&self, token: Address, to: Address, amount: U256) -> Result<B256, ChainError> {
        self.send(DEPLOYER, token, U256::ZERO, Token::mintCall { to, amount }.abi_encode().into()).await
    }

    /// Queues a transfer of the native coin.
    pub async fn send_native(&self, from: Address, to: Address, amount: U256) -> Result<B256, ChainError> {
        self.send(from, to, amount, Bytes::new()).await
    }

    /// Queues any call from an unlocked account.
    pub async fn send(&self, from: Address, to: Address, value: U256, data: Bytes) -> Result<B256, ChainError> {
        let request = transaction_request(from, to, value, data);
        self.call("eth_sendTransaction", (request,)).await
    }

    /// Unlocks an account that anvil has no key of: a payer from nowhere, or a thief.
    pub async fn impersonate(&self, account: Address) -> Result<(), ChainError> {
        self.call::<_, Value>("anvil_impersonateAccount", (account,)).await.map(drop)
    }

    /// The receipt, once the transaction is in a block.
    pub async fn receipt(&self, hash: B256) -> Result<Option<Value>, ChainError> {
        self.call("eth_getTransactionReceipt", (hash,)).await
    }

    /// Mines the queue (or waits for the beat) and gives back the receipt; a failed transaction
    /// is an error.
    pub async fn mined(&self, hash: B256) -> Result<Value, ChainError> {
        if !self.mines_alone {
            self.mine(1).await?;
        }
        let started = Instant::now();
        loop {
            if let Some(receipt) = self.receipt(hash).await? {
                if receipt.get("status").and_then(Value::as_str) == Some("0x1") {
                    return Ok(receipt);
                }
                return Err(ChainError::Transaction { hash, what: format!("failed: {receipt}") });
            }
            if started.elapsed() > MINED_WITHIN {
                return Err(ChainError::Transaction { hash, what: "not mined".into() });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    // === state ===

    /// The native balance at the tip.
    pub async fn native_balance(&self, account: Address) -> Result<U256, ChainError> {
        self.call("eth_getBalance", (account, "latest")).await
    }

    /// The token balance at the tip.
    pub async fn balance_of(&self, token: Address, account: Address) -> Result<U256, ChainError> {
        let data = Token::balanceOfCall { account }.abi_encode();
        let answer = self.view(token, data.into()).await?;
        Token::balanceOfCall::abi_decode_returns(&answer).map_err(|_| ChainError::Odd { method: "eth_call", answer: answer.to_string() })
    }

    /// Calls a contract at the tip without a transaction.
    pub async fn view(&self, to: Address, data: Bytes) -> Result<Bytes, ChainError> {
        self.call("eth_call", json!([{ "to": to, "data": data }, "latest"])).await
    }

    /// Sets a native balance: money that no transaction brought.
    pub async fn set_balance(&self, account: Address, amount: U256) -> Result<(), ChainError> {
        self.call::<_, Value>("anvil_setBalance", (account, amount)).await.map(drop)
    }

    /// Puts runtime code at an address of choice.
    pub async fn set_code(&self, account: Address, runtime: Bytes) -> Result<(), ChainError> {
        self.call::<_, Value>("anvil_setCode", (account, runtime)).await.map(drop)
    }

    /// Writes one storage slot.
    pub async fn set_storage(&self, account: Address, slot: U256, value: B256) -> Result<(), ChainError> {
        self.call::<_, Value>("anvil_setStorageAt", (account, slot, value)).await.map(drop)
    }
}

impl Drop for LocalChain {
    fn drop(&mut self) {
        let signal = if self.keeps_state { Signal::INT } else { Signal::KILL };
        // Nobody is left to tell, and the kernel's death signal is still to come.
        let _ = child::stop(&mut self.child, signal, STOP_WITHIN);
    }
}

/// A request that anvil signs for one of its accounts; also the form for [`ReorgTx::Request`].
pub fn transaction_request(from: Address, to: Address, value: U256, data: Bytes) -> Value {
    json!({ "from": from, "to": to, "value": value, "data": data, "gas": U64::from(GAS_LIMIT) })
}

/// Stops the child if starting goes wrong half-way.
struct Guard(Option<Child>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child::stop(child, Signal::KILL, STOP_WITHIN);
        }
    }
}

fn arguments(options: &ChainOptions) -> Vec<String> {
    let mut words: Vec<String> = vec![
        "--host".into(),
        "127.0.0.1".into(),
        "--port".into(),
        options.port.to_string(),
        "--chain-id".into(),
        options.chain_id.to_string(),
        "--slots-in-an-epoch".into(),
        options.slots_in_an_epoch.to_string(),
        // In the order of sending: a test's story does not depend on fees.
        "--order".into(),
        "fifo".into(),
    ];
    match options.block_time {
        Some(beat) => words.extend(["--block-time".into(), seconds(beat)]),
        None => words.push("--no-mining".into()),
    }
    if let Some(file) = &options.state_file {
        words.extend(["--state".into(), file.to_string_lossy().into_owned()]);
    }
    if let Some(file) = &options.load_from {
        words.extend(["--load-state".into(), file.to_string_lossy().into_owned(), "--no-request-size-limit".into()]);
    }
    if let Some(gas) = options.block_gas {
        words.extend(["--gas-limit".into(), gas.to_string()]);
    }
    if let Some(seconds) = options.genesis_time {
        words.extend(["--timestamp".into(), seconds.to_string()]);
    }
    if let Some(states) = options.states_kept {
        words.extend(["--prune-history".into(), states.to_string()]);
    }
    words
}

/// anvil takes seconds with a fraction.
fn seconds(beat: Duration) -> String {
    format!("{}.{:03}", beat.as_secs(), beat.subsec_millis())
}

fn find_anvil() -> Result<PathBuf, ChainError> {
    const IN_PACKAGE: &str = "node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil";
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(std::env::var_os(ANVIL_ENV).map(PathBuf::from));
    candidates.extend(child::find_in_path("anvil"));
    if let Ok(here) = std::env::current_dir() {
        candidates.push(here.join(IN_PACKAGE));
    }
    candidates.push(Path::new(env!("CARGO_MANIFEST_DIR")).join(IN_PACKAGE));
    match candidates.iter().find(|path| child::is_executable(path)) {
        Some(path) => Ok(path.clone()),
        None => {
            let mut tried: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
            tried.extend([format!("{ANVIL_ENV} and PATH, which name none")]);
            Err(ChainError::NotInstalled { tried: tried.join("; ") })
        }
    }
}

/// Reads what anvil prints until it names its port, and then goes on reading: it prints a line
/// for every call and would stand still once the pipe is full.
async fn listening_port(reader: io::PipeReader) -> Result<u16, ChainError> {
    let (found, port) = oneshot::channel::<Result<u16, String>>();
    thread::spawn(move || {
        let mut found = Some(found);
        let mut said = String::new();
        // Ends when anvil does: the pipe then has no writer.
        for line in BufReader::new(reader).lines() {
            let Ok(line) = line else { break };
            let Some(waiting) = found.take() else {
                continue;
            };
            let port = line.strip_prefix("Listening on ").and_then(|address| address.rsplit(':').next()?.trim().parse().ok());
            match port {
                // The starter may have given up; there is nobody else to tell.
                Some(port) => drop(waiting.send(Ok(port))),
                None => {
                    found = Some(waiting);
                    if said.len() < 4096 {
                        said.push_str(&line);
                        said.push('\n');
                    }
                }
            }
        }
        if let Some(waiting) = found {
            let _ = waiting.send(Err(said));
        }
    });
    match tokio::time::timeout(READY_WITHIN, port).await {
        Ok(Ok(Ok(port))) => Ok(port),
        Ok(Ok(Err(said))) => Err(ChainError::NotStarted(said)),
        Ok(Err(_)) => Err(ChainError::NotStarted("its output could not be read".into())),
        Err(_) => Err(ChainError::NotStarted(format!("silent for {} s", READY_WITHIN.as_secs()))),
    }
}

fn connect(url: &str) -> Result<RootProvider, ChainError> {
    // The HTTP client wants a TLS provider even for plain HTTP. Whoever installed one before us
    // is right.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(REQUEST_WITHIN)
        .timeout(REQUEST_WITHIN)
        .build()
        .map_err(ChainError::Client)?;
    let url = reqwest::Url::parse(url).map_err(|error| ChainError::NotStarted(error.to_string()))?;
    Ok(ProviderBuilder::default().connect_reqwest(client, url))
}

fn head_of(block: &Value) -> Option<Head> {
    let number: U64 = serde_json::from_value(block.get("number")?.clone()).ok()?;
    let hash = serde_json::from_value(block.get("hash")?.clone()).ok()?;
    Some(Head { number: number.to(), hash })
}
