//! The daemon's configuration: one TOML file, every field documented here, unknown fields an error.
//!
//! Connection strings and RPC URLs carry secrets. They are read from systemd credentials or from files,
//! are never printed, and do not come from the environment. Inline values are for sockets and local
//! nodes without a password.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::chains::{ChainBook, ChainBookError};
use crate::intent::PlanPolicy;
use crate::quote::SourceOptions;
use crate::rpc::{Node, NodeError, NodeOptions, ProviderLimits};
use crate::scan::ScanOptions;
use crate::units::{BlockNumber, ChainId};
use crate::webhook::Guard;

/// Everything `amanatd serve` needs, checked.
#[derive(Debug)]
pub struct Config {
    pub database: DatabaseSource,
    pub book: ChainBook,
    pub chains: BTreeMap<ChainId, ChainConfig>,
    pub api_listen: SocketAddr,
    pub metrics_listen: SocketAddr,
    pub poll: Duration,
    /// From one look for findings to the next.
    pub reconcile: Duration,
    /// Where webhooks may go.
    pub webhook_guard: Guard,
    pub plan: PlanPolicy,
    pub oracle: OracleConfig,
}

/// Quotes for payments in another currency than their token.
#[derive(Debug, Default)]
pub struct OracleConfig {
    /// Off: such payments are refused.
    pub quoting_enabled: bool,
    /// By the venue's name in chains.toml.
    pub sources: BTreeMap<String, SourceOptions>,
}

/// Connection strings for the daemon and for `amanatd migrate`.
#[derive(Debug)]
pub struct DatabaseSource {
    pub url: SecretString,
    pub migrator_url: Option<SecretString>,
}

/// How one chain is reached.
#[derive(Debug)]
pub struct ChainConfig {
    /// In order of preference, each with what its provider lets us do.
    pub endpoints: Vec<(SecretString, ProviderLimits)>,
    /// Where new heads are announced.
    pub websocket_url: Option<SecretString>,
    pub options: NodeOptions,
    pub scan: ScanOptions,
}

impl ChainConfig {
    /// The chain as its endpoints show it. Nothing is asked yet.
    pub fn node(&self, chain: ChainId) -> Result<Node, NodeError> {
        Node::with_limits(chain, &self.endpoints, self.options)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Form { path: PathBuf, message: String },
    #[error(transparent)]
    Chains(#[from] ChainBookError),
    #[error("configuration field {field} = {value}: {remedy}")]
    Field { field: String, value: String, remedy: &'static str },
    #[error("{what} is not configured: set {field}, or {field}_file, or give systemd the credential {credential}")]
    Missing { what: &'static str, field: &'static str, credential: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    /// Facts about chains; relative to this file.
    #[serde(default = "default_chains_file")]
    chains_file: PathBuf,
    #[serde(default)]
    database: RawDatabase,
    #[serde(default)]
    api: RawListen,
    #[serde(default)]
    metrics: RawListen,
    #[serde(default)]
    watch: RawWatch,
    #[serde(default)]
    webhooks: RawWebhooks,
    #[serde(default)]
    planning: RawPlanning,
    #[serde(default)]
    oracle: RawOracle,
    #[serde(default, rename = "chain")]
    chains: Vec<RawChain>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDatabase {
    /// For amanat_app. Credential: database-url.
    url: Option<String>,
    url_file: Option<PathBuf>,
    /// For amanat_migrator, used by `amanatd migrate` only. Credential: migrator-url.
    migrator_url: Option<String>,
    migrator_url_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawListen {
    listen: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWebhooks {
    /// Networks that webhooks may reach besides the public internet, and in the clear.
    #[serde(default)]
    allowed_networks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWatch {
    /// Pause between two looks at a quiet chain.
    #[serde(default = "default_poll_ms")]
    poll_ms: u64,
    /// From one look for what the chain holds and the books do not explain to the next.
    #[serde(default = "default_reconcile_seconds")]
    reconcile_seconds: u64,
}

impl Default for RawWatch {
    fn default() -> Self {
        Self { poll_ms: default_poll_ms(), reconcile_seconds: default_reconcile_seconds() }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlanning {
    /// Officers who must approve an intent before it can be signed.
    #[serde(default = "default_approvals")]
    approvals_required: u8,
    /// Nothing is planned while gas costs more.
    #[serde(default = "default_gwei")]
    max_fee_per_gas_gwei: u32,
}

impl Default for RawPlanning {
    fn default() -> Self {
        Self { approvals_required: default_approvals(), max_fee_per_gas_gwei: default_gwei() }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOracle {
    /// Whether payments in another currency than their token are quoted. ORACLE_QUOTING_ENABLED overrides it.
    #[serde(default)]
    quoting_enabled: bool,
    #[serde(default)]
    source: Vec<RawSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSource {
    /// A venue of chains.toml.
    name: String,
    /// Whether it is asked; as chains.toml says if absent.
    enabled: Option<bool>,
    /// A key, where the venue wants one. Credential: oracle-key-<name>.
    key_file: Option<PathBuf>,
    /// Another place where it answers.
    url: Option<String>,
    /// The most that it is asked.
    requests_per_minute: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawChain {
    id: u64,
    /// In order of preference. Credential: rpc-urls-<id>, one per line.
    #[serde(default)]
    rpc_urls: Vec<String>,
    rpc_urls_file: Option<PathBuf>,
    /// Where new heads are announced (ws or wss). Credential: websocket-url-<id>.
    websocket_url: Option<String>,
    websocket_url_file: Option<PathBuf>,
    /// How many endpoints must say the same before money rests on it; 2 where there are two or more.
    agreement: Option<usize>,
    /// Where scanning starts on an empty database; the head if absent.
    start_block: Option<u64>,
    /// Off only for chains whose headers have fields this version does not know.
    #[serde(default = "yes")]
    verify_header_hash: bool,
    /// Whether to look inside transactions, where the node can.
    #[serde(default = "yes")]
    trace: bool,
    /// What every endpoint of the chain lets us do: requests a second, requests at a time, calls in one
    /// request, blocks in one range of logs.
    requests_per_second: Option<u32>,
    in_flight: Option<u32>,
    batch_calls: Option<u32>,
    log_range_blocks: Option<u32>,
    /// What one of them lets us do instead.
    #[serde(default)]
    endpoint: Vec<RawEndpoint>,
}

#[derive(Clone, Copy)]
struct RawLimits {
    requests_per_second: Option<u32>,
    in_flight: Option<u32>,
    batch_calls: Option<u32>,
    log_range_blocks: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEndpoint {
    /// From 1, in the order of rpc_urls.
    position: usize,
    requests_per_second: Option<u32>,
    in_flight: Option<u32>,
    batch_calls: Option<u32>,
    log_range_blocks: Option<u32>,
}

impl RawLimits {
    /// These where they are given, else what was there before.
    fn over(self, before: ProviderLimits) -> Result<ProviderLimits, ConfigError> {
        let checked = |name: &str, given: Option<u32>, before: u32, max: u32, remedy: &'static str| match given {
            Some(value) if !(1..=max).contains(&value) => Err(field(name, value, remedy)),
            Some(value) => Ok(value),
            None => Ok(before),
        };
        let rate = match self.requests_per_second {
            Some(_) => {
                Some(checked("chain.requests_per_second", self.requests_per_second, 1, 100_000, "use 1 to 100000, or leave it out")?)
            }
            None => before.requests_per_second,
        };
        Ok(ProviderLimits {
            requests_per_second: rate,
            in_flight: checked("chain.in_flight", self.in_flight, before.in_flight, 256, "use 1 to 256")?,
            batch_calls: checked("chain.batch_calls", self.batch_calls, before.batch_calls, 1_000, "use 1 (no batches) to 1000")?,
            log_range_blocks: checked(
                "chain.log_range_blocks",
                self.log_range_blocks,
                before.log_range_blocks,
                100_000,
                "use 1 to 100000",
            )?,
        })
    }
}

fn default_chains_file() -> PathBuf {
    PathBuf::from("chains.toml")
}

fn default_poll_ms() -> u64 {
    500
}

fn default_reconcile_seconds() -> u64 {
    300
}

fn default_approvals() -> u8 {
    1
}

fn default_gwei() -> u32 {
    500
}

fn yes() -> bool {
    true
}

const API_LISTEN: &str = "127.0.0.1:8700";
const METRICS_LISTEN: &str = "127.0.0.1:9700";
/// How many endpoints must agree where there are enough of them (W8).
const AGREEMENT: usize = 2;
const WEI_PER_GWEI: u128 = 1_000_000_000;

impl Config {
    /// Reads the file and everything it points to.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let raw: RawConfig =
            toml::from_str(&text).map_err(|error| ConfigError::Form { path: path.to_owned(), message: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let book = ChainBook::parse(&read(&folder.join(&raw.chains_file))?)?;
        let chains = chains(raw.chains, &book, folder)?;
        if !(10..=60_000).contains(&raw.watch.poll_ms) {
            return Err(field("watch.poll_ms", raw.watch.poll_ms, "use 10 to 60000"));
        }
        if !(10..=86_400).contains(&raw.watch.reconcile_seconds) {
            return Err(field("watch.reconcile_seconds", raw.watch.reconcile_seconds, "use 10 to 86400"));
        }
        if !(1..=20).contains(&raw.planning.approvals_required) {
            return Err(field("planning.approvals_required", raw.planning.approvals_required, "use 1 to 20"));
        }
        if raw.planning.max_fee_per_gas_gwei == 0 {
            return Err(field("planning.max_fee_per_gas_gwei", 0, "use at least 1"));
        }
        Ok(Self {
            database: database(raw.database, folder)?,
            oracle: oracle(raw.oracle, &book, folder)?,
            book,
            chains,
            api_listen: listen("api.listen", raw.api, API_LISTEN)?,
            metrics_listen: listen("metrics.listen", raw.metrics, METRICS_LISTEN)?,
            poll: Duration::from_millis(raw.watch.poll_ms),
            reconcile: Duration::from_secs(raw.watch.reconcile_seconds),
            webhook_guard: guard(&raw.webhooks)?,
            plan: PlanPolicy {
                approvals_required: raw.planning.approvals_required,
                max_fee_per_gas_max: u128::from(raw.planning.max_fee_per_gas_gwei) * WEI_PER_GWEI,
            },
        })
    }
}

fn guard(raw: &RawWebhooks) -> Result<Guard, ConfigError> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| field("webhooks.allowed_networks", text, "use addresses with their length, such as 10.0.0.0/8 or fd00::/8"))
    };
    Ok(Guard::new(raw.allowed_networks.iter().map(read).collect::<Result<_, _>>()?))
}

/// The variable that switches quoting on or off, whatever the file says.
const QUOTING_VARIABLE: &str = "ORACLE_QUOTING_ENABLED";

fn oracle(raw: RawOracle, book: &ChainBook, folder: &Path) -> Result<OracleConfig, ConfigError> {
    let quoting_enabled = match std::env::var(QUOTING_VARIABLE).as_deref() {
        Err(_) => raw.quoting_enabled,
        Ok("true" | "1") => true,
        Ok("false" | "0") => false,
        Ok(other) => return Err(field(QUOTING_VARIABLE, other, "use true or false")),
    };
    let mut sources = BTreeMap::new();
    for venue in book.prices().venues() {
        let key = secret(None, None, &format!("oracle-key-{}", venue.name), folder)?.map(SecretString::from);
        sources.insert(venue.name.clone(), SourceOptions { key, ..SourceOptions::default() });
    }
    for source in raw.source {
        let Some(options) = sources.get_mut(&source.name) else {
            return Err(field("oracle.source.name", source.name, "use the name of a [[venue]] of chains.toml"));
        };
        options.enabled = source.enabled;
        options.url = source.url;
        if let Some(file) = source.key_file {
            options.key = Some(SecretString::from(read(&folder.join(file))?.trim().to_owned()));
        }
        if let Some(0) = source.requests_per_minute {
            return Err(field("oracle.source.requests_per_minute", 0, "use at least 1"));
        }
        options.requests_per_minute = source.requests_per_minute;
    }
    Ok(OracleConfig { quoting_enabled, sources })
}

fn database(raw: RawDatabase, folder: &Path) -> Result<DatabaseSource, ConfigError> {
    let url = secret(raw.url, raw.url_file, "database-url", folder)?.ok_or(ConfigError::Missing {
        what: "the database",
        field: "database.url",
        credential: "database-url".to_owned(),
    })?;
    let migrator_url = secret(raw.migrator_url, raw.migrator_url_file, "migrator-url", folder)?;
    Ok(DatabaseSource { url: url.into(), migrator_url: migrator_url.map(SecretString::from) })
}

fn chains(raw: Vec<RawChain>, book: &ChainBook, folder: &Path) -> Result<BTreeMap<ChainId, ChainConfig>, ConfigError> {
    let mut chains = BTreeMap::new();
    for chain in raw {
        let id = ChainId::new(chain.id)
            .filter(|id| book.get(*id).is_some())
            .ok_or_else(|| field("chain.id", chain.id, "list the chain in chains.toml first"))?;
        let credential = format!("rpc-urls-{id}");
        let inline = (!chain.rpc_urls.is_empty()).then(|| chain.rpc_urls.join("\n"));
        let text = secret(inline, chain.rpc_urls_file, &credential, folder)?.ok_or(ConfigError::Missing {
            what: "the RPC endpoint of a chain",
            field: "chain.rpc_urls",
            credential,
        })?;
        let urls: Vec<SecretString> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(SecretString::from).collect();
        let all = RawLimits {
            requests_per_second: chain.requests_per_second,
            in_flight: chain.in_flight,
            batch_calls: chain.batch_calls,
            log_range_blocks: chain.log_range_blocks,
        };
        let mut limits = vec![all.over(ProviderLimits::default())?; urls.len()];
        for endpoint in chain.endpoint {
            let place = endpoint.position.checked_sub(1).and_then(|place| limits.get_mut(place));
            let Some(own) = place else {
                return Err(field("chain.endpoint.position", endpoint.position, "use 1 to the number of rpc_urls"));
            };
            let one = RawLimits {
                requests_per_second: endpoint.requests_per_second,
                in_flight: endpoint.in_flight,
                batch_calls: endpoint.batch_calls,
                log_range_blocks: endpoint.log_range_blocks,
            };
            *own = one.over(*own)?;
        }
        let agreement = chain.agreement.unwrap_or(urls.len().clamp(1, AGREEMENT));
        if !(1..=urls.len()).contains(&agreement) {
            return Err(field("chain.agreement", agreement, "use 1 to the number of rpc_urls"));
        }
        let websocket = secret(chain.websocket_url, chain.websocket_url_file, &format!("websocket-url-{id}"), folder)?;
        let config = ChainConfig {
            endpoints: urls.into_iter().zip(limits).collect(),
            websocket_url: websocket.map(SecretString::from),
            options: NodeOptions { verify_header_hash: chain.verify_header_hash, agreement, ..NodeOptions::default() },
            scan: ScanOptions { start: chain.start_block.map(BlockNumber), internal: chain.trace, ..ScanOptions::default() },
        };
        if chains.insert(id, config).is_some() {
            return Err(field("chain.id", id, "configure each chain once"));
        }
    }
    if chains.is_empty() {
        return Err(field("chain", "none", "configure at least one [[chain]] with its rpc_urls"));
    }
    Ok(chains)
}

/// A secret from the file itself, from another file, or from a systemd credential; in this order.
fn secret(inline: Option<String>, file: Option<PathBuf>, credential: &str, folder: &Path) -> Result<Option<String>, ConfigError> {
    if let Some(text) = inline {
        return Ok(Some(text));
    }
    if let Some(file) = file {
        return Ok(Some(read(&folder.join(file))?.trim().to_owned()));
    }
    let Some(directory) = std::env::var_os("CREDENTIALS_DIRECTORY") else { return Ok(None) };
    let path = Path::new(&directory).join(credential);
    if path.exists() { Ok(Some(read(&path)?.trim().to_owned())) } else { Ok(None) }
}

fn listen(name: &str, raw: RawListen, default: &str) -> Result<SocketAddr, ConfigError> {
    let text = raw.listen.unwrap_or_else(|| default.to_owned());
    text.parse().map_err(|_| field(name, text, "use an address and a port, such as 127.0.0.1:8700"))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn field(name: &str, value: impl ToString, remedy: &'static str) -> ConfigError {
    ConfigError::Field { field: name.to_owned(), value: value.to_string(), remedy }
}
