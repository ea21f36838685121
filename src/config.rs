//! The daemon's configuration: one TOML file, every field documented here, unknown fields an error.
//!
//! Connection strings and RPC URLs carry secrets. They are read from systemd credentials or from files,
//! are never printed, and do not come from the environment. Inline values are for sockets and local
//! nodes without a password.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::Deserialize;

use crate::api::{DoorLimits, Rate};
use crate::chains::{ChainBook, ChainBookError};
use crate::console::{ConsoleOptions, ConsoleOptionsError};
use crate::intent::PlanPolicy;
use crate::quote::SourceOptions;
use crate::rpc::{Node, NodeError, NodeOptions, ProviderLimits};
use crate::scan::ScanOptions;
use crate::screen::guard::Reach;
use crate::screen::provider::SCORE_MAX;
use crate::screen::{ListError, ListFile, Provider, ProviderError, ProviderOptions, ScreenOptions, Waiver};
use crate::units::{BlockNumber, ChainId, parse_units};
use crate::webhook::Guard;

/// Everything `amanatd serve` needs, checked.
#[derive(Debug)]
pub struct Config {
    pub database: DatabaseSource,
    pub book: ChainBook,
    pub chains: BTreeMap<ChainId, ChainConfig>,
    pub api_listen: SocketAddr,
    /// How much one caller may have of the API.
    pub api_doors: DoorLimits,
    /// Where the API listens too, for stations on this host without a network.
    pub api_socket: Option<PathBuf>,
    pub metrics_listen: SocketAddr,
    pub poll: Duration,
    /// From one look for findings to the next.
    pub reconcile: Duration,
    /// Where webhooks may go.
    pub webhook_guard: Guard,
    /// Officers' pages; off where it is not configured.
    pub console: Option<ConsoleOptions>,
    pub plan: PlanPolicy,
    pub screening: ScreeningConfig,
    /// Where the heads of the ledger's seals are appended, beside the journal.
    pub seal_heads_file: Option<PathBuf>,
    pub oracle: OracleConfig,
}

/// What transfers are screened by. Nothing is opened yet.
#[derive(Clone, Debug)]
pub struct ScreeningConfig {
    pub list_file: Option<PathBuf>,
    /// Whether the sanctions oracles of chains.toml are asked.
    pub oracle: bool,
    pub provider: Option<ProviderOptions>,
    pub waiver: Waiver,
    /// From one look at the list's file to the next.
    pub every: Duration,
    /// From one look for what issuers have frozen to the next.
    pub freeze_every: Duration,
}

impl ScreeningConfig {
    /// Reads the list and makes the provider's client; nobody is asked.
    pub fn open(&self) -> Result<ScreenOptions, ConfigError> {
        let list = self.list_file.as_deref().map(ListFile::open).transpose()?.map(Arc::new);
        let provider = self.provider.clone().map(Provider::new).transpose()?.map(Arc::new);
        Ok(ScreenOptions { list, oracle: self.oracle, provider, waiver: self.waiver.clone(), every: self.every })
    }
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
    /// Where the daemon keeps, outside of the database, how far the database had come.
    pub high_water_file: Option<PathBuf>,
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
    #[error(transparent)]
    List(#[from] ListError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
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
    api: RawApi,
    #[serde(default)]
    metrics: RawListen,
    #[serde(default)]
    watch: RawWatch,
    #[serde(default)]
    webhooks: RawWebhooks,
    #[serde(default)]
    console: RawConsole,
    #[serde(default)]
    planning: RawPlanning,
    #[serde(default)]
    screening: RawScreening,
    #[serde(default)]
    ledger: RawLedger,
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
    /// Where it is kept, outside of the database, how far the database had come; high-water.json in systemd's state
    /// directory if absent.
    high_water_file: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawApi {
    listen: Option<String>,
    /// A socket of this host besides; api.sock in systemd's runtime directory if absent.
    socket: Option<PathBuf>,
    /// Calls a second of one token, and how many a rested one may make at once.
    token_per_second: Option<u32>,
    token_burst: Option<u32>,
    /// The same for calls without a live token, of one remote address.
    address_per_second: Option<u32>,
    address_burst: Option<u32>,
    /// Streams of events at a time, of all callers.
    streams_max: Option<u32>,
}

impl RawApi {
    fn doors(&self) -> Result<DoorLimits, ConfigError> {
        let checked = |name: &str, given: Option<u32>, default: u32| match given {
            Some(value) if !(1..=1_000_000).contains(&value) => Err(field(name, value, "use 1 to 1000000")),
            Some(value) => Ok(value),
            None => Ok(default),
        };
        let DoorLimits { token, address, streams_max, .. } = DoorLimits::default();
        let streams_max = match self.streams_max {
            Some(max) if max > 10_000 => return Err(field("api.streams_max", max, "use 0 (no streams) to 10000")),
            Some(max) => usize::try_from(max).unwrap_or(streams_max),
            None => streams_max,
        };
        Ok(DoorLimits {
            token: Rate {
                per_second: checked("api.token_per_second", self.token_per_second, token.per_second)?,
                burst: checked("api.token_burst", self.token_burst, token.burst)?,
            },
            address: Rate {
                per_second: checked("api.address_per_second", self.address_per_second, address.per_second)?,
                burst: checked("api.address_burst", self.address_burst, address.burst)?,
            },
            streams_max,
            ..DoorLimits::default()
        })
    }
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConsole {
    /// Where officers' browsers find the console. Without it there is none.
    origin: Option<String>,
    /// What passkeys are bound to; the origin's host without it.
    rp_id: Option<String>,
    /// An address of its own; the API's without it.
    listen: Option<String>,
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLedger {
    /// One line for each seal, relative to this file. Copy it to a host that the database's owner cannot reach.
    seal_heads_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawScreening {
    /// Sanctioned addresses, one a line or a JSON array; relative to this file.
    list_file: Option<PathBuf>,
    /// Ask the sanctions oracle of each chain that has one in chains.toml.
    #[serde(default)]
    oracle: bool,
    provider: Option<RawProvider>,
    /// Amounts of a token below this pass although a screener does not answer; without it none does.
    pass_unscreened_below: Option<String>,
    /// How often the list's file is looked at.
    #[serde(default = "default_list_seconds")]
    list_seconds: u64,
    /// How often tokens are asked which addresses their issuers have frozen.
    #[serde(default = "default_freeze_seconds")]
    freeze_seconds: u64,
}

impl Default for RawScreening {
    fn default() -> Self {
        Self {
            list_file: None,
            oracle: false,
            provider: None,
            pass_unscreened_below: None,
            list_seconds: default_list_seconds(),
            freeze_seconds: default_freeze_seconds(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    /// How records name it.
    name: String,
    /// Credential: screening-url.
    url: Option<String>,
    url_file: Option<PathBuf>,
    /// Sent as a bearer token. Credential: screening-token.
    token_file: Option<PathBuf>,
    /// From this score on it is a hit.
    hit_score: u8,
    #[serde(default = "default_timeout_seconds")]
    timeout_seconds: u64,
    /// The provider is in our own network: http and private addresses are fine.
    #[serde(default)]
    private: bool,
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

fn default_list_seconds() -> u64 {
    60
}

fn default_freeze_seconds() -> u64 {
    300
}

fn default_timeout_seconds() -> u64 {
    10
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
    /// The migrator's connection and nothing else, as `amanatd migrate` needs it; `None` where it is not configured.
    pub fn migrator_url(path: &Path) -> Result<Option<SecretString>, ConfigError> {
        let database = raw(path)?.database;
        let folder = path.parent().unwrap_or(Path::new("."));
        let url = secret(database.migrator_url, database.migrator_url_file, "migrator-url", folder)?;
        Ok(url.map(SecretString::from))
    }

    /// Reads the file and everything it points to.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let raw = raw(path)?;
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
        let screening = screening(raw.screening, folder)?;
        Ok(Self {
            database: database(raw.database, folder)?,
            screening,
            oracle: oracle(raw.oracle, &book, folder)?,
            book,
            chains,
            api_doors: raw.api.doors()?,
            api_listen: listen("api.listen", raw.api.listen, API_LISTEN)?,
            api_socket: socket(raw.api.socket, folder),
            metrics_listen: listen("metrics.listen", raw.metrics.listen, METRICS_LISTEN)?,
            poll: Duration::from_millis(raw.watch.poll_ms),
            reconcile: Duration::from_secs(raw.watch.reconcile_seconds),
            webhook_guard: guard(&raw.webhooks)?,
            console: console(raw.console)?,
            plan: PlanPolicy {
                approvals_required: raw.planning.approvals_required,
                max_fee_per_gas_max: u128::from(raw.planning.max_fee_per_gas_gwei) * WEI_PER_GWEI,
            },
            seal_heads_file: raw.ledger.seal_heads_file.map(|file| folder.join(file)),
        })
    }
}

fn raw(path: &Path) -> Result<RawConfig, ConfigError> {
    toml::from_str(&read(path)?).map_err(|error| ConfigError::Form { path: path.to_owned(), message: error.to_string() })
}

fn guard(raw: &RawWebhooks) -> Result<Guard, ConfigError> {
    let read = |text: &String| {
        text.parse()
            .map_err(|_| field("webhooks.allowed_networks", text, "use addresses with their length, such as 10.0.0.0/8 or fd00::/8"))
    };
    Ok(Guard::new(raw.allowed_networks.iter().map(read).collect::<Result<_, _>>()?))
}

fn console(raw: RawConsole) -> Result<Option<ConsoleOptions>, ConfigError> {
    let Some(origin) = raw.origin else {
        return match (raw.rp_id, raw.listen) {
            (None, None) => Ok(None),
            (Some(value), _) | (None, Some(value)) => {
                Err(field("console", value, "set console.origin too; without an origin there is no console"))
            }
        };
    };
    let mut options = ConsoleOptions::new(&origin, raw.rp_id.as_deref()).map_err(|error| {
        let (name, value) = match error {
            ConsoleOptionsError::RelyingParty => ("console.rp_id", raw.rp_id.clone().unwrap_or_else(|| origin.clone())),
            _ => ("console.origin", origin.clone()),
        };
        field(name, value, error.remedy())
    })?;
    options.listen = raw.listen.map(|text| listen("console.listen", Some(text), "")).transpose()?;
    Ok(Some(options))
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
    let high_water_file = high_water_file(raw.high_water_file, folder);
    Ok(DatabaseSource { url: url.into(), migrator_url: migrator_url.map(SecretString::from), high_water_file })
}

fn screening(raw: RawScreening, folder: &Path) -> Result<ScreeningConfig, ConfigError> {
    if !(1..=3_600).contains(&raw.list_seconds) {
        return Err(field("screening.list_seconds", raw.list_seconds, "use 1 to 3600"));
    }
    if !(10..=86_400).contains(&raw.freeze_seconds) {
        return Err(field("screening.freeze_seconds", raw.freeze_seconds, "use 10 to 86400"));
    }
    // Six decimals, as most stablecoins have them.
    if let Some(below) = raw.pass_unscreened_below.as_deref().filter(|below| parse_units(below, 6).is_err()) {
        return Err(field("screening.pass_unscreened_below", below, "use an amount of a token such as \"100\", or leave it out"));
    }
    Ok(ScreeningConfig {
        list_file: raw.list_file.map(|file| folder.join(file)),
        oracle: raw.oracle,
        provider: raw.provider.map(|provider| self::provider(provider, folder)).transpose()?,
        waiver: Waiver { pass_below: raw.pass_unscreened_below },
        every: Duration::from_secs(raw.list_seconds),
        freeze_every: Duration::from_secs(raw.freeze_seconds),
    })
}

fn provider(raw: RawProvider, folder: &Path) -> Result<ProviderOptions, ConfigError> {
    if !(1..=100).contains(&raw.name.chars().count()) {
        return Err(field("screening.provider.name", raw.name, "use 1 to 100 characters"));
    }
    if !(1..=SCORE_MAX).contains(&raw.hit_score) {
        return Err(field("screening.provider.hit_score", raw.hit_score, "use 1 to 100"));
    }
    if !(1..=60).contains(&raw.timeout_seconds) {
        return Err(field("screening.provider.timeout_seconds", raw.timeout_seconds, "use 1 to 60"));
    }
    let url = secret(raw.url, raw.url_file, "screening-url", folder)?.ok_or(ConfigError::Missing {
        what: "the screening provider's address",
        field: "screening.provider.url",
        credential: "screening-url".to_owned(),
    })?;
    let token = secret(None, raw.token_file, "screening-token", folder)?;
    Ok(ProviderOptions {
        name: raw.name,
        url: url.into(),
        token: token.map(SecretString::from),
        hit_score: raw.hit_score,
        reach: if raw.private { Reach::Private } else { Reach::Public },
        timeout: Duration::from_secs(raw.timeout_seconds),
    })
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

/// The file that is named; else the one in the directory that systemd made for us.
fn high_water_file(named: Option<PathBuf>, folder: &Path) -> Option<PathBuf> {
    match named {
        Some(path) => Some(folder.join(path)),
        None => std::env::var_os("STATE_DIRECTORY").map(|directory| PathBuf::from(directory).join("high-water.json")),
    }
}

/// The socket that is named; else the one in the directory that systemd made for us.
fn socket(named: Option<PathBuf>, folder: &Path) -> Option<PathBuf> {
    match named {
        Some(path) => Some(folder.join(path)),
        None => std::env::var_os("RUNTIME_DIRECTORY").map(|directory| PathBuf::from(directory).join("api.sock")),
    }
}

fn listen(name: &str, given: Option<String>, default: &str) -> Result<SocketAddr, ConfigError> {
    let text = given.unwrap_or_else(|| default.to_owned());
    text.parse().map_err(|_| field(name, text, "use an address and a port, such as 127.0.0.1:8700"))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn field(name: &str, value: impl ToString, remedy: &'static str) -> ConfigError {
    ConfigError::Field { field: name.to_owned(), value: value.to_string(), remedy }
}
