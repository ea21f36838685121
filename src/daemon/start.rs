//! From a configuration to a running daemon, in the order in which things must be true.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::highwater::{self, Adopt};
use super::steward::{Held, Steward};
use super::supervise::{Loop, Wake, Woken, Workers, chain_of};
use super::{admin, heads, measure, notices, now, seals, serve_http, serve_remote};
use crate::account::{self, Capacity, IssueLimit, Room};
use crate::api::{self, ApiState, Doors};
use crate::approval::{self, ApprovalError};
use crate::broadcast::nonces::NonceWatch;
use crate::broadcast::{self, BroadcastError, Broadcaster};
use crate::chains::{ChainBook, ChainSpec, base_of};
use crate::config::{ChainConfig, Config, OracleConfig};
use crate::confirm::{ConfirmError, Confirmer, Sightings};
use crate::console::{self, Console, ConsoleOptions};
use crate::db::{Database, DatabaseLimits, DbError, Lease, LeaseError, LeaseName, Leases, SelfTestError, place_of};
use crate::deposit::Watched;
use crate::escrow::{EscrowError, Lapser};
use crate::event;
use crate::intent::{IntentError, PlanPolicy, Planner, judge};
use crate::ledger::{Bookkeeper, LedgerError};
use crate::metrics::{EndpointTotals, Metrics, ScreeningTotals};
use crate::officer::store::TokenRow;
use crate::officer::{self, Scope};
use crate::quote::{self, Oracle, QuoteError};
use crate::reconcile::invariants::Auditor;
use crate::reconcile::{self, ReconcileError, Reconciler};
use crate::rpc::{HeadNotices, Node, VerifyError};
use crate::scan::{self, ScanError, Scanner};
use crate::screen::{self, FreezeWatch, ScreenError, ScreenOptions, ScreenWorker};
use crate::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
use crate::settle::{SettleError, Settler};
use crate::units::{ChainId, Disposition, Progress};
use crate::webhook::{self, Courier, Guard, WebhookError};

/// Pauses between two attempts to reach the database at start.
const DATABASE_PAUSE_MIN: Duration = Duration::from_millis(500);
const DATABASE_PAUSE_MAX: Duration = Duration::from_secs(10);
/// How often a daemon that stands by looks for a lease that is free.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);
/// How long the server may take to say who holds what.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// A transaction that has been out for so long counts as stuck.
const STUCK_MINUTES: u32 = 15;

/// Between two looks whether every chain was read, and how much longer a start may take after each.
const READY_PAUSE: Duration = Duration::from_secs(1);
const START_EXTENSION_US: u32 = 60_000_000;
/// How long units of work may take to finish once nobody waits for them.
const CLOSING: Duration = Duration::from_secs(8);
/// After this long the process ends, whatever it is at: below TimeoutStopSec of the unit, which kills.
const END: Duration = Duration::from_secs(35);
/// What a shell reports for a program that was interrupted: a second signal ends at once.
const INTERRUPTED: i32 = 130;

/// Runs until a signal, or until something that must not go on. From either on, it ends in bounded time.
pub async fn serve(config: Config, standby: bool) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    watch_signals(stop.clone())?;
    let metrics = Metrics::new();
    metrics.operations.process_started(now().unix_timestamp());
    let admin = admin::spawn(config.metrics_listen, metrics.clone(), stop.clone())
        .with_context(|| format!("metrics cannot listen on {}", config.metrics_listen))?;
    let outcome = tokio::select! {
        outcome = run(config, standby, metrics.clone(), stop.clone()) => outcome,
        () = past(&stop, END) => Err(anyhow::anyhow!("stopping took longer than {} s; what was left is cut off", END.as_secs())),
    };
    metrics.not_ready("stop", "it is stopping".to_owned());
    stop.cancel();
    notify(&[sd_notify::NotifyState::Stopping]);
    if admin.join().is_err() {
        tracing::error!("the thread of metrics and health panicked");
    }
    outcome
}

async fn run(config: Config, standby: bool, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
    // Before anything is waited for: a standby with a bad list would end when it is needed.
    let screening = config.screening.open().context("screening")?;
    let url = config.database.url.expose_secret();
    let Some(db) = connect(url, &metrics, &stop).await? else { return Ok(()) };
    let book = Arc::new(config.book);
    let mut nodes = BTreeMap::new();
    for (chain, settings) in &config.chains {
        nodes.insert(*chain, Arc::new(settings.node(*chain).with_context(|| format!("chain {chain}"))?));
    }
    let issue_limit = IssueLimit::default();
    if let Some(path) = &config.database.high_water_file {
        highwater::meet(&db, path, &holder(), &issue_limit, Adopt::Never)
            .await
            .context("the database, compared with what was known of it")?;
    } else {
        tracing::warn!("database.high_water_file is not set: a failover that loses something would not be noticed");
    }
    let able: Vec<LeaseName> = std::iter::once(LeaseName::House).chain(nodes.keys().copied().map(LeaseName::Chain)).collect();
    let Some(leases) = leases(url, standby.then_some(&able), &metrics, &stop).await? else { return Ok(()) };
    metrics.not_ready("start", "the API and the workers are being started".to_owned());

    let listener = tokio::net::TcpListener::bind(config.api_listen)
        .await
        .with_context(|| format!("the API cannot listen on {}", config.api_listen))?;
    let listening = listener.local_addr()?;
    let doors = Arc::new(Doors::new(config.api_doors, stop.clone()));
    let shared_nodes = Arc::new(nodes.clone());
    let oracle = oracle(&db, &book, &shared_nodes, &config.oracle).await?;
    let state = ApiState {
        db: db.clone(),
        book: Arc::clone(&book),
        nodes: shared_nodes,
        max_fee_per_gas_max: config.plan.max_fee_per_gas_max,
        webhook_guard: config.webhook_guard.clone(),
        doors: Arc::clone(&doors),
        oracle: oracle.clone(),
        issue_limit: issue_limit.clone(),
        clock: now,
    };
    let mut workers = Workers::new(stop.clone(), metrics.clone(), config.poll);
    if let Some(path) = &config.api_socket {
        let (socket, router, ending) = (bind_socket(path)?, api::router(state.clone()), stop.clone());
        workers.run(async move { serve_http(socket, router, ending).await.context("the API's socket ended") });
    }
    let ending = stop.clone();
    let (router, apart) = with_console(state, config.console)?;
    workers.run(async move { serve_remote(listener, router, ending).await.context("the API ended") });
    if let Some((address, pages)) = apart {
        let listener = tokio::net::TcpListener::bind(address).await.with_context(|| format!("the console cannot listen on {address}"))?;
        let ending = stop.clone();
        workers.run(async move { serve_remote(listener, pages, ending).await.context("the console ended") });
    }
    highwater::keep(&mut workers, &db, config.database.high_water_file, &issue_limit, &metrics);
    let held = Held::default();
    door_metrics(&mut workers, Arc::clone(&doors), &metrics);
    measure::figures(&mut workers, &db, &nodes, &held, &metrics);
    if let Some(oracle) = &oracle {
        prices_beside(&mut workers, oracle, &held, &metrics);
    }
    let settings_changed = Wake::new();
    let wake = settings_changed.clone();
    notices::forward(&mut workers, url.to_owned(), settings::CHANGED, move || wake.wake(), stop.clone());
    notices::forward(&mut workers, url.to_owned(), event::WRITTEN, move || doors.knock(), stop.clone());
    let staff = Arc::new(Staff {
        db: db.clone(),
        book,
        nodes: nodes.clone(),
        chains: config.chains,
        watched: Arc::new(Watched::default()),
        oracle,
        plan: config.plan,
        reconcile_every: config.reconcile,
        screening,
        freeze_every: config.screening.freeze_every,
        webhook_guard: config.webhook_guard,
        seal_heads_file: config.seal_heads_file,
        settings_changed,
        metrics: metrics.clone(),
    });
    let steward = Steward { leases, able, held, metrics: metrics.clone(), stop: stop.clone() };
    let beside = workers.scope();
    workers.run(async move {
        steward
            .run(&beside, move |lease, workers| {
                let staff = Arc::clone(&staff);
                async move { staff.begin(lease, workers).await }
            })
            .await
    });
    workers.feed_watchdog();
    tell_ready(&mut workers, &db, nodes.keys().copied().collect(), stop.clone());
    tracing::info!(api = %listening, metrics = %config.metrics_listen, chains = nodes.len(), "amanatd is ready");
    let outcome = workers.join().await;
    if tokio::time::timeout(CLOSING, db.close()).await.is_err() {
        tracing::warn!("the database still works for us; what it has not committed rolls back");
    }
    tracing::info!("amanatd has stopped");
    outcome
}

/// The API's router, with the console's pages in it; or beside it, on an address of their own.
fn with_console(state: ApiState, options: Option<ConsoleOptions>) -> anyhow::Result<(Router, Option<(SocketAddr, Router)>)> {
    let Some(options) = options else { return Ok((api::router(state), None)) };
    let apart = options.listen;
    tracing::info!(origin = options.origin(), "officers find the console at {}/console", options.origin());
    let pages = console::router(Console::new(state.clone(), options)?);
    Ok(match apart {
        None => (api::router(state).merge(pages), None),
        Some(address) => (api::router(state), Some((address, pages))),
    })
}

/// The connection that will hold our leases. A daemon that stands by waits until one of `awaited` is free; `None`
/// when it is told to stop meanwhile.
async fn leases(
    url: &str,
    awaited: Option<&Vec<LeaseName>>,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Leases>> {
    let holder = holder();
    let mut leases = None;
    let mut told = false;
    // Ends when there is work for us or the process is told to stop.
    while !stop.is_cancelled() {
        match free(&mut leases, url, &holder, awaited).await {
            Ok(true) => {
                metrics.set_standby(false);
                metrics.ready_as_to("standby");
                return Ok(leases);
            }
            Ok(false) => {}
            // While it stands by, a database that is away is waited for like one that is served.
            Err(error) if told => {
                leases = None;
                tracing::warn!(error = &error as &dyn std::error::Error, "standing by");
            }
            Err(error) => return Err(error.into()),
        }
        if !told {
            told = true;
            metrics.set_standby(true);
            metrics.not_ready("standby", "other daemons serve this database, and this one takes over when a lease is free".to_owned());
            notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("standing by")]);
            tracing::info!("other daemons serve this database; standing by to take over");
        }
        notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::select! {
            () = tokio::time::sleep(STANDBY_PAUSE) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(None)
}

/// Whether there is a lease to take, which is always so for a daemon that awaits none. Connects if need be.
async fn free(leases: &mut Option<Leases>, url: &str, holder: &str, awaited: Option<&Vec<LeaseName>>) -> Result<bool, LeaseError> {
    let leases = match leases {
        Some(leases) => leases,
        None => leases.insert(Leases::connect(url, holder).await?),
    };
    let Some(awaited) = awaited else { return Ok(true) };
    let standing = leases.look(LOOK_LIMIT).await?;
    Ok(awaited.iter().any(|name| !standing.held.contains_key(name) && !standing.asked.contains_key(name)))
}

/// Who this is, for people.
pub(crate) fn holder() -> String {
    format!("pid {} on {}", std::process::id(), host())
}

/// The machine's name, for people.
fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "an unnamed host".to_owned(), |name| name.trim().to_owned())
}

/// Connects and tests the schema; a database that is away is waited for, a wrong one is refused.
async fn connect(url: &str, metrics: &Metrics, stop: &CancellationToken) -> anyhow::Result<Option<Database>> {
    let mut pause = DATABASE_PAUSE_MIN;
    // Ends when the database answers or the process is told to stop.
    while !stop.is_cancelled() {
        match open(url).await {
            Ok(db) => return Ok(Some(db)),
            // A replica may be promoted at any moment.
            Err(error @ SelfTestError::Replica) => {
                tracing::warn!("database {}: {error}; trying again in {} ms", place_of(url), pause.as_millis());
                metrics.not_ready("start", format!("database {}: {error}", place_of(url)));
            }
            Err(SelfTestError::Db(error)) if error.disposition() == Disposition::Retry => {
                tracing::warn!("database {}: {}; trying again in {} ms", place_of(url), chain_of(&error), pause.as_millis());
                metrics.not_ready("start", format!("database {}: {}", place_of(url), chain_of(&error)));
            }
            Err(error) => return Err(error.into()),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
        pause = (pause * 2).min(DATABASE_PAUSE_MAX);
    }
    Ok(None)
}

async fn open(url: &str) -> Result<Database, SelfTestError> {
    let db = Database::connect(url, DatabaseLimits::default()).await?;
    let mut connection = db.connection().await?;
    crate::db::self_test(&mut connection).await?;
    drop(connection);
    Ok(db)
}

/// Writes the thresholds of chains.toml as the first history rows of a chain that has none, so that every
/// verdict can name the rows it rests on.
async fn first_thresholds(db: &Database, spec: &ChainSpec) -> anyhow::Result<()> {
    for (gate, blocks) in [(Gate::Credit, spec.confirmation_threshold), (Gate::Release, spec.release_threshold)] {
        let key = ThresholdKey::base(gate, spec.id);
        db.unit(move |connection| {
            Box::pin(async move {
                if settings::store::get_history(connection, key.gate, key.chain).await?.head_id().is_none() {
                    let note = ChangeNote { changed_by: "daemon".to_owned(), user: None, reason: "default of chains.toml".to_owned() };
                    settings::store::set(connection, &NewChange { key, blocks: Some(blocks), effective_at: None, note }).await?;
                }
                Ok::<(), SettingsError>(())
            })
        })
        .await?;
    }
    Ok(())
}

/// A socket of this host. Whoever may reach it may also reach loopback: the API asks both for a token. A socket that
/// nobody answers at is a dead daemon's.
fn bind_socket(path: &Path) -> anyhow::Result<tokio::net::UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket()) {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            anyhow::bail!("another process listens at {}; give this daemon an api.socket of its own", path.display());
        }
        std::fs::remove_file(path).with_context(|| format!("the old socket {} cannot be removed", path.display()))?;
    }
    let listener = tokio::net::UnixListener::bind(path).with_context(|| format!("the API cannot listen on {}", path.display()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666)).with_context(|| format!("the mode of {}", path.display()))?;
    Ok(listener)
}

/// Tells systemd READY once a first block of every chain is stored: only then is everything at work. That is at
/// once, but for a chain that was never read and whose node is away; for it the start may take longer.
fn tell_ready(workers: &mut Workers, db: &Database, chains: Vec<ChainId>, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let db = db.clone();
    workers.run(async move {
        // Ends when the process does, or all chains were read.
        while !stop.is_cancelled() {
            let waits_for = match unread(&db, &chains).await {
                Ok(None) => {
                    notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status("at work")]);
                    break;
                }
                Ok(Some(chain)) => format!("waiting for the first block of chain {chain}"),
                Err(error) => format!("waiting for the database: {}", chain_of(&error)),
            };
            notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(START_EXTENSION_US), sd_notify::NotifyState::Status(&waits_for)]);
            tokio::select! {
                () = tokio::time::sleep(READY_PAUSE) => {}
                () = stop.cancelled() => {}
            }
        }
        stop.cancelled().await;
        Ok(())
    });
}

/// A chain of which no block is stored.
async fn unread(db: &Database, chains: &[ChainId]) -> Result<Option<ChainId>, DbError> {
    let tips = scan::store::list_tips(&mut *db.connection().await?).await?;
    Ok(chains.iter().copied().find(|chain| !tips.iter().any(|(read, ..)| read == chain)))
}

/// Exports when stations last asked for work and how many deposit addresses are left, and says when an officer has to enrol the next account.
fn account_metrics(workers: &mut Workers, db: &Database, metrics: &Metrics) {
    let (db, metrics) = (db.clone(), metrics.clone());
    // Told once when it changes, not at every tick.
    let told = Arc::new(std::sync::Mutex::new(Room::Enough));
    workers.tick("account_metrics", None, DbError::disposition, move || {
        let (db, metrics, told) = (db.clone(), metrics.clone(), Arc::clone(&told));
        async move {
            let mut connection = db.connection().await?;
            let signs = |token: &TokenRow| token.revoked_at.is_none() && token.scopes.iter().any(|scope| scope == Scope::Signing.name());
            for token in officer::store::list_tokens(&mut connection).await?.into_iter().filter(signs) {
                if let Some(asked) = token.last_used_at {
                    metrics.station_seen(&token.name, asked.unix_timestamp());
                }
            }
            let counters = account::store::list_counters(&mut connection).await?;
            for counter in &counters {
                metrics.account_seen(&counter.label, counter.remaining());
            }
            let capacity = Capacity::of(&counters);
            let before = std::mem::replace(&mut *told.lock().unwrap_or_else(PoisonError::into_inner), capacity.room);
            if before != capacity.room {
                match capacity.room {
                    Room::Enough => tracing::info!(remaining = capacity.remaining, "deposit addresses are left"),
                    Room::Low => tracing::warn!(remaining = capacity.remaining, "{}", capacity.advice()),
                    Room::None => tracing::error!(remaining = 0, "no payment can be created: {}", capacity.advice()),
                }
            }
            Ok(Progress::Idle)
        }
    });
}

/// Exports what the API refused for being too much, and its open streams.
fn door_metrics(workers: &mut Workers, doors: Arc<Doors>, metrics: &Metrics) {
    let metrics = metrics.clone();
    workers.tick("api_metrics", None, DbError::disposition, move || {
        let totals = doors.totals();
        metrics.api_seen(totals.token_calls_refused, totals.address_calls_refused, totals.streams_open);
        async { Ok(Progress::Idle) }
    });
}

/// Checks the invariants while everything else works, and exports what it finds.
fn audit(workers: &mut Workers, db: &Database, metrics: &Metrics) {
    let (auditor, metrics) = (Arc::new(Auditor::new(db.clone())), metrics.clone());
    workers.tick("audit", None, ReconcileError::disposition, move || {
        let (auditor, metrics) = (Arc::clone(&auditor), metrics.clone());
        async move {
            if let Some(look) = auditor.tick(now()).await? {
                for (invariant, violations, turns) in look.standing {
                    metrics.invariant_seen(invariant.id(), violations, turns);
                }
            }
            Ok(Progress::Idle)
        }
    });
}

/// Delivers events, and exports what waits.
/// The oracle, if payments in another currency are to be quoted; refused where a token has too few families.
async fn oracle(
    db: &Database,
    book: &Arc<ChainBook>,
    nodes: &Arc<BTreeMap<ChainId, Arc<Node>>>,
    config: &OracleConfig,
) -> anyhow::Result<Option<Arc<Oracle>>> {
    if !config.quoting_enabled {
        tracing::info!("quoting is off: a payment in another currency than its token is refused");
        return Ok(None);
    }
    let oracle = Oracle::new(Arc::clone(book), Arc::clone(nodes), &config.sources)?;
    let limits = quote::store::get_limits(&mut *db.connection().await?).await?;
    let lacking = oracle.lint(&limits, now());
    if !lacking.is_empty() {
        anyhow::bail!("quoting is enabled and cannot work: {}; configure more sources, or switch it off", lacking.join("; "));
    }
    tracing::info!(sources = oracle.sources().join(", "), "quoting is on");
    Ok(Some(Arc::new(oracle)))
}

/// The rounds of the oracle, whose memory is in the database and has one writer.
fn prices(workers: &mut Workers, db: &Database, oracle: &Arc<Oracle>) {
    let (db, asked) = (db.clone(), Arc::clone(oracle));
    workers.tick("oracle", None, QuoteError::disposition, move || {
        let (db, oracle) = (db.clone(), Arc::clone(&asked));
        async move { oracle.tick(&db, now()).await }
    });
}

/// What every daemon does that quotes: it asks the sources also while the rounds are another's, and exports.
fn prices_beside(workers: &mut Workers, oracle: &Arc<Oracle>, held: &Held, metrics: &Metrics) {
    let (asked, held) = (Arc::clone(oracle), held.clone());
    workers.tick("oracle_sources", None, QuoteError::disposition, move || {
        let (oracle, rounds_are_ours) = (Arc::clone(&asked), held.has(LeaseName::House));
        async move {
            if rounds_are_ours {
                return Ok(Progress::Idle);
            }
            oracle.fetch(now(), false).await.map(Progress::of)
        }
    });
    let (oracle, metrics) = (Arc::clone(oracle), metrics.clone());
    workers.tick("oracle_metrics", None, QuoteError::disposition, move || {
        let (oracle, metrics) = (Arc::clone(&oracle), metrics.clone());
        async move {
            let tally = oracle.tally();
            for (pair, round) in &tally.rounds {
                metrics.oracle().round_seen(pair, round.families, round.dispersion_bps, round.accepted_s);
                for (source, chain, age_s) in &round.sources {
                    metrics.oracle().source_seen(source, *chain, pair, *age_s);
                }
                if let Some(state) = round.state {
                    metrics.oracle().token_seen(base_of(pair), state, round.deviation_bps);
                }
            }
            tally.rejected.iter().for_each(|((source, reason), total)| metrics.oracle().rejected(source, reason, *total));
            tally.refused.iter().for_each(|(reason, total)| metrics.oracle().refused(reason, *total));
            tally.quoted.iter().for_each(|((token, peg_state), total)| metrics.oracle().quoted(token, peg_state, *total));
            tally.durations.iter().for_each(|took| metrics.oracle().took(*took));
            Ok(Progress::Idle)
        }
    });
}

fn webhooks(workers: &mut Workers, db: &Database, guard: Guard, metrics: &Metrics) -> anyhow::Result<()> {
    let courier = Arc::new(Courier::new(db.clone(), guard).context("webhooks cannot be sent")?);
    workers.tick("webhook", None, WebhookError::disposition, move || {
        let courier = Arc::clone(&courier);
        async move { courier.tick(now()).await }
    });
    let (db, metrics) = (db.clone(), metrics.clone());
    workers.tick("webhook_metrics", None, DbError::disposition, move || {
        let (db, metrics) = (db.clone(), metrics.clone());
        async move {
            let totals = webhook::store::totals(&mut *db.connection().await?).await?;
            let age = totals.oldest.map_or(0, |oldest| (now() - oldest).whole_seconds().max(0));
            metrics.webhooks_seen(totals.pending, age, totals.dead, totals.disabled_endpoints);
            Ok(Progress::Idle)
        }
    });
    Ok(())
}

/// What the workers of every lease are made from.
struct Staff {
    db: Database,
    book: Arc<ChainBook>,
    nodes: BTreeMap<ChainId, Arc<Node>>,
    chains: BTreeMap<ChainId, ChainConfig>,
    watched: Arc<Watched>,
    oracle: Option<Arc<Oracle>>,
    plan: PlanPolicy,
    reconcile_every: Duration,
    screening: ScreenOptions,
    freeze_every: Duration,
    webhook_guard: Guard,
    seal_heads_file: Option<PathBuf>,
    settings_changed: Wake,
    metrics: Metrics,
}

impl Staff {
    /// Starts what works under a lease. Everything is made anew, and writes under that lease alone.
    async fn begin(&self, lease: Lease, mut workers: Workers) -> anyhow::Result<Workers> {
        let db = self.db.under(lease);
        match lease.name() {
            LeaseName::House => self.house(&db, &mut workers)?,
            LeaseName::Chain(chain) => self.chain(&db, chain, &mut workers).await?,
        }
        Ok(workers)
    }

    fn house(&self, db: &Database, workers: &mut Workers) -> anyhow::Result<()> {
        let sightings = Arc::new(Sightings::new(db.clone()));
        workers.tick("sightings", None, ConfirmError::disposition, move || {
            let sightings = Arc::clone(&sightings);
            async move { sightings.tick().await }
        });
        let lapser = Arc::new(approval::Lapser { db: db.clone() });
        workers.tick("approval", None, ApprovalError::disposition, move || {
            let lapser = Arc::clone(&lapser);
            async move { lapser.tick().await }
        });
        account_metrics(workers, db, &self.metrics);
        seals::seal(workers, db, &self.metrics, self.seal_heads_file.clone());
        audit(workers, db, &self.metrics);
        webhooks(workers, db, self.webhook_guard.clone(), &self.metrics)?;
        if let Some(oracle) = &self.oracle {
            prices(workers, db, oracle);
        }
        Ok(())
    }

    async fn chain(&self, db: &Database, chain: ChainId, workers: &mut Workers) -> anyhow::Result<()> {
        let spec = self.book.get(chain).context("a configured chain is in the chain book")?;
        let node = self.nodes.get(&chain).context("a configured chain has its node")?;
        let config = self.chains.get(&chain).context("a lease is taken for a configured chain")?;
        first_thresholds(db, spec).await?;
        let scanner = Scanner::new(db.clone(), Arc::clone(node), Arc::clone(&self.watched), spec, config.scan);
        let new_head = Wake::new();
        if let Some(url) = config.websocket_url.clone() {
            let host = HeadNotices::host(&url).with_context(|| format!("chain {chain}"))?;
            let heads = heads::Heads { chain, url, host, wake: new_head.clone(), metrics: self.metrics.clone() };
            self.metrics.head_notices(chain, false);
            let stop = workers.stop_token();
            heads::forward(workers, heads, stop);
        }
        let planner = Planner::new(db.clone(), Arc::clone(node), Arc::new(spec.clone()), self.plan);
        let parts = ChainWorkers {
            db: db.clone(),
            node: Arc::clone(node),
            spec: Arc::new(spec.clone()),
            scanner,
            planner,
            bookkeeper: Arc::new(Bookkeeper::new(db.clone(), Arc::clone(&self.book))),
            metrics: self.metrics.clone(),
            reconcile_every: self.reconcile_every,
            screening: self.screening.clone(),
            freeze_every: self.freeze_every,
            settings_changed: self.settings_changed.clone(),
            new_head,
        };
        chain_workers(workers, parts);
        Ok(())
    }
}

struct ChainWorkers {
    db: Database,
    node: Arc<Node>,
    spec: Arc<ChainSpec>,
    scanner: Scanner,
    planner: Planner,
    bookkeeper: Arc<Bookkeeper>,
    metrics: Metrics,
    reconcile_every: Duration,
    screening: ScreenOptions,
    freeze_every: Duration,
    settings_changed: Wake,
    new_head: Wake,
}

/// The workers of one chain. None of them does anything before the node has proved that it serves the
/// chain of chains.toml, with the decimals of chains.toml.
fn chain_workers(workers: &mut Workers, parts: ChainWorkers) {
    let chain = parts.spec.id;
    let verified = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = Door { verified: Arc::clone(&verified) };

    let (node, spec, open) = (Arc::clone(&parts.node), Arc::clone(&parts.spec), gate.clone());
    workers.tick("verify", Some(chain), VerifyError::disposition, move || {
        let (node, spec, open) = (Arc::clone(&node), Arc::clone(&spec), open.clone());
        async move {
            if open.is_open() {
                return Ok(Progress::Idle);
            }
            node.set_clock(now());
            node.verify(&spec).await?;
            tracing::info!(chain.id = spec.id.get(), "{}: chain id and token decimals agree with chains.toml", spec.name);
            open.open();
            Ok(Progress::Worked)
        }
    });

    let scanner = Arc::new(parts.scanner);
    let scan = Loop { name: "scan", chain: Some(chain), woken: parts.new_head.listen() };
    gated_woken(workers, &gate, scan, ScanError::disposition, move || {
        let scanner = Arc::clone(&scanner);
        async move { scanner.tick(now()).await }
    });
    let confirmer = Arc::new(Confirmer::new(parts.db.clone(), Arc::clone(&parts.node), &parts.spec));
    let confirm = Loop { name: "confirm", chain: Some(chain), woken: parts.settings_changed.listen() };
    gated_woken(workers, &gate, confirm, ConfirmError::disposition, move || {
        let confirmer = Arc::clone(&confirmer);
        async move { confirmer.tick(now()).await }
    });
    let screener = Arc::new(ScreenWorker::new(parts.db.clone(), Arc::clone(&parts.node), Arc::clone(&parts.spec), parts.screening));
    gated(workers, &gate, "screen", chain, ScreenError::disposition, move || {
        let screener = Arc::clone(&screener);
        async move { screener.tick(now()).await }
    });
    let freezes = Arc::new(FreezeWatch::new(parts.db.clone(), Arc::clone(&parts.node), Arc::clone(&parts.spec), parts.freeze_every));
    gated(workers, &gate, "freeze", chain, ScreenError::disposition, move || {
        let freezes = Arc::clone(&freezes);
        async move { freezes.tick(now()).await }
    });
    let bookkeeper = parts.bookkeeper;
    gated(workers, &gate, "ledger", chain, LedgerError::disposition, move || {
        let bookkeeper = Arc::clone(&bookkeeper);
        async move { bookkeeper.tick(chain, now()).await }
    });
    let lapser = Arc::new(Lapser { db: parts.db.clone(), chain });
    gated(workers, &gate, "escrow", chain, EscrowError::disposition, move || {
        let lapser = Arc::clone(&lapser);
        async move { lapser.tick(now()).await }
    });
    let planner = Arc::new(parts.planner);
    gated(workers, &gate, "intent", chain, IntentError::disposition, move || {
        let planner = Arc::clone(&planner);
        async move { planner.tick().await }
    });
    let broadcaster = Arc::new(Broadcaster { db: parts.db.clone(), node: Arc::clone(&parts.node) });
    gated(workers, &gate, "broadcast", chain, BroadcastError::disposition, move || {
        let broadcaster = Arc::clone(&broadcaster);
        async move { broadcaster.tick(now()).await }
    });
    let nonces = Arc::new(NonceWatch::new(parts.db.clone(), Arc::clone(&parts.node)));
    let watched_nonces = Arc::clone(&nonces);
    gated(workers, &gate, "nonces", chain, BroadcastError::disposition, move || {
        let nonces = Arc::clone(&nonces);
        async move { nonces.tick(now()).await }
    });
    let reconciler = Arc::new(Reconciler::new(parts.db.clone(), Arc::clone(&parts.node), Arc::clone(&parts.spec), parts.reconcile_every));
    gated(workers, &gate, "reconcile", chain, ReconcileError::disposition, move || {
        let reconciler = Arc::clone(&reconciler);
        async move { reconciler.tick(now()).await }
    });
    let float = Arc::new(measure::Float::new(parts.db.clone(), Arc::clone(&parts.node), parts.metrics.clone()));
    gated(workers, &gate, "float", chain, measure::FloatError::disposition, move || {
        let float = Arc::clone(&float);
        async move { float.tick().await }
    });
    let watched_node = Arc::clone(&parts.node);
    let settler = Arc::new(Settler { db: parts.db.clone(), node: parts.node, chain: parts.spec });
    gated(workers, &gate, "settle", chain, SettleError::disposition, move || {
        let settler = Arc::clone(&settler);
        async move { settler.tick().await }
    });
    let (db, metrics, node) = (parts.db, parts.metrics, watched_node);
    workers.tick("chain_metrics", Some(chain), crate::db::DbError::disposition, move || {
        let (db, metrics, node, nonces) = (db.clone(), metrics.clone(), Arc::clone(&node), Arc::clone(&watched_nonces));
        async move {
            for endpoint in node.statuses() {
                let totals = EndpointTotals {
                    requests: endpoint.requests,
                    bytes_in: endpoint.bytes_in,
                    faults: endpoint.faults,
                    dissents: endpoint.dissents,
                    resting: endpoint.resting,
                };
                metrics.endpoint_seen(chain, &endpoint.name, totals);
            }
            let mut connection = db.connection().await?;
            let screen::store::Counts { hits, unavailable, waiting, frozen } = screen::store::count(&mut connection, chain).await?;
            metrics.screening_seen(chain, ScreeningTotals { hits, unavailable, waiting, frozen });
            metrics.findings_seen(chain, reconcile::store::count_open(&mut connection, chain).await?);
            let refused = judge::store::count_refusals(&mut connection, chain).await?;
            let stuck = broadcast::store::count_stuck(&mut connection, chain, STUCK_MINUTES).await?;
            metrics.outflow_seen(chain, refused, stuck, nonces.holes());
            if let Some(cursor) = scan::store::find_cursor(&mut connection, chain).await? {
                metrics.chain_seen(chain, cursor.tip.number.0, cursor.outflow_halted.is_some());
                let unread = scan::store::count_internal_unread(&mut connection, chain).await?;
                metrics.chain_depth_seen(chain, cursor.final_block.map(|block| block.number.0), unread);
            }
            Ok(Progress::Idle)
        }
    });
}

#[derive(Clone, Debug)]
struct Door {
    verified: Arc<std::sync::atomic::AtomicBool>,
}

impl Door {
    fn is_open(&self) -> bool {
        self.verified.load(std::sync::atomic::Ordering::Acquire)
    }

    fn open(&self) {
        self.verified.store(true, std::sync::atomic::Ordering::Release);
    }
}

/// A worker that waits for its chain's gate, and then for its poll.
fn gated<F, Fut, E>(workers: &mut Workers, gate: &Door, name: &'static str, chain: ChainId, disposition: fn(&E) -> Disposition, tick: F)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Progress, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    gated_woken(workers, gate, Loop { name, chain: Some(chain), woken: Woken::never() }, disposition, tick);
}

/// As [`gated`], and it is woken too.
fn gated_woken<F, Fut, E>(workers: &mut Workers, gate: &Door, turning: Loop, disposition: fn(&E) -> Disposition, tick: F)
where
    F: Fn() -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Progress, E>> + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
{
    let gate = gate.clone();
    let tick = Arc::new(tick);
    workers.tick_woken(turning, disposition, move || {
        let (gate, tick) = (gate.clone(), Arc::clone(&tick));
        async move { if gate.is_open() { tick().await } else { Ok(Progress::Idle) } }
    });
}

/// The first signal asks for an end; the second does not wait for it. What was not committed is not lost:
/// the next start finds it where it was, as after a power cut.
fn watch_signals(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be watched")?;
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let first = next().await;
        tracing::info!("{first}: stopping");
        stop.cancel();
        let second = next().await;
        tracing::warn!("{second} while stopping: ending at once");
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

/// Comes true `limit` after the process was told to stop.
pub(super) async fn past(stop: &CancellationToken, limit: Duration) {
    stop.cancelled().await;
    tokio::time::sleep(limit).await;
}

/// Tells systemd; without a notify socket this does nothing.
fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}
