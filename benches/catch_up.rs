//! Catching up with a chain: the daemon's own scanner, from an empty cursor to the head, on a real node and
//! a Postgres that keeps fsync on, against the node's calls alone.
//!
//! No scanner is quicker than the node answers, so the baseline of each line is the calls that the job needs,
//! each kind at its quickest, sent by a plain client that drops the answers. What a line's ratio lacks to 1
//! is our decoding, checking and writing. Everything that is found is compared with the chain's list, by
//! content, after every run; a difference ends the bench.
//!
//! `-- --large`: builds the large chain if there is none. `-- --once`: one run of each mode, for a profiler.

#![allow(clippy::print_stdout, reason = "a bench is there to print")]

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::primitives::Address;
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::db::{Database, DatabaseLimits};
use amanatd::deposit::Watched;
use amanatd::devkit::postgres::{APP, PostgresOptions, PrivatePostgres, SUPERUSER};
use amanatd::devkit::schema;
use amanatd::devkit::workload::{self, Kind, Recipe, Sighting, Workload};
use amanatd::rpc::{Node, NodeOptions};
use amanatd::scan::{ScanOptions, Scanner};
use amanatd::units::{BlockNumber, ChainId, Progress};
use bare::{Bare, Plan, Read};
use pair::{Bench, Equal, Pair, Side};
use probe::Probe;
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio::runtime::Runtime;

mod bare;
mod find;
mod pair;
mod probe;

const CHAIN: ChainId = ChainId::new(31_337).expect("not zero");
/// Nothing of this chain is reorganised, and what is timed is catching up; with the chain's own window the
/// last blocks are followed one by one, which is printed beside.
const WINDOW: u32 = 1;
const TEMPLATE: &str = "watching";
const NOW: OffsetDateTime = time::macros::datetime!(2027-01-15 12:00 UTC);

/// What the daemon's scanner is told to read, and what that takes.
struct Mode {
    name: &'static str,
    finds: &'static [Kind],
    needs: &'static [Read],
}

const MODES: [Mode; 4] = [
    Mode { name: "verified: tokens", finds: &[Kind::Token], needs: &[Read::Headers, Read::Logs, Read::Receipts] },
    Mode { name: "verified: native", finds: &[Kind::Native], needs: &[Read::Blocks, Read::Receipts] },
    Mode { name: "verified: tokens, native", finds: &[Kind::Token, Kind::Native], needs: &[Read::Blocks, Read::Logs, Read::Receipts] },
    Mode {
        name: "verified: tokens, native, internal",
        finds: &[Kind::Token, Kind::Native, Kind::Internal],
        needs: &[Read::Blocks, Read::Logs, Read::Receipts, Read::Traces],
    },
];

fn main() {
    let bench = Bench::start_long("catch_up");
    let once = std::env::args().any(|argument| argument == "--once");
    let large = pair::large() || Recipe::LARGE.is_built();
    let recipe = if large { Recipe::LARGE } else { Recipe::SMALL };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let place = Place::prepare(&bench, &runtime, recipe);
    if once {
        for mode in &MODES {
            place.scan(mode, WINDOW).print(&bench, mode.name);
        }
        return;
    }
    if cfg!(debug_assertions) {
        bench.note("a debug build: nothing is timed");
        return;
    }
    let token = place.spec.tokens[0].contract;
    let bare = Bare::new(place.workload.chain.url(), token, recipe.head());
    let quickest = bare.table(&runtime);
    finding(&bench, &place, &bare, &quickest);
    for mode in &MODES {
        verified(&bench, &place, &bare, &quickest, mode);
    }
}

/// Token transfers by range into Postgres, nothing read twice.
fn finding(bench: &Bench, place: &Place<'_>, bare: &Bare, quickest: &[Plan]) {
    let (headers, logs) = (plan(quickest, Read::Headers), plan(quickest, Read::Logs));
    let token = place.spec.tokens[0].contract;
    let expected = place.expected(&[Kind::Token]);
    let ours = || place.timed(&[Kind::Token], async |database| find::ranges(bare, database, CHAIN, token, headers, logs, NOW).await);
    let equal = Equal::proved("sightings", &ours().found, &expected);

    let last = RefCell::new(None);
    bench.compare(
        &Pair { variant: "find tokens, no proof", baseline: "bare headers and logs", equal },
        Side::measured(place.blocks(), || keep(&last, ours())),
        place.bare_side(bare, vec![headers, logs]),
        None,
    );
    print_last(bench, "find tokens, no proof", &last);
    let naive_logs = Plan { blocks: 100, in_flight: 1, ..logs };
    bench.compare(
        &Pair { variant: "find tokens, no proof", baseline: "one client, alloy Log, a thin table", equal },
        Side::measured(place.blocks(), || ours().took),
        Side::measured(place.blocks(), || place.naive(bare, naive_logs, &expected)),
        None,
    );
}

/// The daemon's scanner.
fn verified(bench: &Bench, place: &Place<'_>, bare: &Bare, quickest: &[Plan], mode: &Mode) {
    let equal = Equal::proved(mode.name, &place.scan(mode, WINDOW).found, &place.expected(mode.finds));
    let plans: Vec<Plan> = mode.needs.iter().map(|read| plan(quickest, *read)).collect();
    let names: Vec<&str> = mode.needs.iter().map(|read| read.name()).collect();
    let last = RefCell::new(None);
    bench.compare(
        &Pair { variant: mode.name, baseline: &format!("bare {}", names.join(", ")), equal },
        Side::measured(place.blocks(), || keep(&last, place.scan(mode, WINDOW))),
        place.bare_side(bare, plans),
        None,
    );
    print_last(bench, mode.name, &last);
    let window = place.spec.reorg_window;
    place.scan(mode, window).print(bench, &format!("{}, the last {window} blocks one by one", mode.name));
}

fn plan(quickest: &[Plan], read: Read) -> Plan {
    *quickest.iter().find(|plan| plan.read == read).expect("every kind was tried")
}

fn keep(last: &RefCell<Option<Cost>>, cost: Cost) -> Duration {
    let took = cost.took;
    last.replace(Some(cost));
    took
}

fn print_last(bench: &Bench, what: &str, last: &RefCell<Option<Cost>>) {
    if let Some(cost) = last.take() {
        cost.print(bench, what);
    }
}

/// What one run found and took.
struct Cost {
    found: Vec<Sighting>,
    took: Duration,
    /// `None`: not counted.
    usage: Option<amanatd::rpc::Usage>,
    commits: i64,
    ours: Duration,
    postgres: Duration,
    node: Duration,
    memory_kb: u64,
}

impl Cost {
    fn print(&self, bench: &Bench, what: &str) {
        let usage = self.usage.map_or_else(String::new, |usage| {
            format!("{} requests, {} bytes, ", pair::grouped(usage.requests.into()), pair::grouped(usage.bytes_in.into()))
        });
        bench.note(&format!(
            "{what}, last run: {} ms, {usage}{} commits; processor time: ours {} ms, Postgres {} ms, node {} ms; {} MB resident at most",
            self.took.as_millis(),
            self.commits,
            self.ours.as_millis(),
            self.postgres.as_millis(),
            self.node.as_millis(),
            self.memory_kb / 1_024,
        ));
    }
}

/// A chain, a server, and a database whose copies the runs fill.
struct Place<'a> {
    runtime: &'a Runtime,
    recipe: Recipe,
    workload: Workload,
    cluster: PrivatePostgres,
    spec: ChainSpec,
    copies: Cell<u32>,
}

impl<'a> Place<'a> {
    fn prepare(bench: &Bench, runtime: &'a Runtime, recipe: Recipe) -> Self {
        if !recipe.is_built() {
            bench.note(&format!("building a chain of {} blocks, once; it stays in target/workload", recipe.blocks));
        }
        if recipe == Recipe::SMALL {
            bench.note(
                "the small chain; `-- --large` (make bench LARGE=1) builds the large one in about 8 minutes, and then it is always used",
            );
        }
        let started = Instant::now();
        let progress = |blocks| bench.note(&format!("{blocks} of {} blocks built, {} s", recipe.blocks, started.elapsed().as_secs()));
        let workload = runtime.block_on(workload::open(&recipe, progress)).expect("a workload");
        let book = ChainBook::parse(include_str!("../chains.toml")).expect("good chains");
        let spec = book.get(CHAIN).expect("the local chain").clone();

        let cluster = PrivatePostgres::start(PostgresOptions { directory: None, durable: true }).expect("a private Postgres");
        let probe = Probe::create(cluster.socket_folder());
        cluster.create_database(TEMPLATE).expect("a database");
        schema::install(&cluster, TEMPLATE).expect("the schema");
        let place = Self { runtime, recipe, workload, cluster, spec, copies: Cell::new(0) };
        runtime.block_on(async {
            let database = place.connect(TEMPLATE).await;
            workload::enrol(&database, CHAIN, recipe.watched).await.expect("addresses");
            database.close().await;
        });
        // Issued long ago: rows of the last minutes are read again for every chunk.
        let age = "set session_replication_role = replica; update trezor_derived_addresses set created_at = created_at - interval '1 day'";
        place.cluster.sql(TEMPLATE, age).expect("older addresses");
        // Only this table: whoever analyses the empty ones gets plans for empty ones.
        place.cluster.sql(TEMPLATE, "vacuum analyze trezor_derived_addresses").expect("statistics");
        let setting =
            |name: &str| place.cluster.sql(TEMPLATE, &format!("show {name}")).map(|text| text.trim().to_owned()).expect("a setting");
        bench.note(&format!(
            "anvil on loopback, {} blocks, {} token transfers, {} watched addresses, {} sightings, seed {}; every block has hits",
            recipe.head(),
            pair::grouped(recipe.logs().into()),
            pair::grouped(recipe.watched.into()),
            pair::grouped(place.workload.expected.len() as u128),
            recipe.seed,
        ));
        bench.note(&format!(
            "Postgres {}, fsync {}, synchronous_commit {}, shared_buffers {}; 8 kB written and sync_data, median of 200: {}",
            setting("server_version"),
            setting("fsync"),
            setting("synchronous_commit"),
            setting("shared_buffers"),
            pair::duration(probe.median()),
        ));
        place
    }

    fn blocks(&self) -> usize {
        usize::try_from(self.recipe.head()).expect("small")
    }

    fn expected(&self, kinds: &[Kind]) -> Vec<Sighting> {
        self.workload.expected.iter().filter(|sighting| kinds.contains(&sighting.kind)).copied().collect()
    }

    async fn connect(&self, database: &str) -> Database {
        Database::connect(&self.cluster.url(APP, database), DatabaseLimits::default()).await.expect("a pool")
    }

    /// The scanner from an empty cursor to the head. Blocks within the window below the head are followed
    /// one by one.
    fn scan(&self, mode: &Mode, window: u32) -> Cost {
        let [tokens, native, internal] = [Kind::Token, Kind::Native, Kind::Internal].map(|kind| mode.finds.contains(&kind));
        let mut spec = self.spec.clone();
        spec.reorg_window = window;
        if !tokens {
            spec.tokens.clear();
        }
        let options = ScanOptions { start: Some(BlockNumber(1)), native, internal, ..ScanOptions::default() };
        let url = SecretString::from(self.workload.chain.url());
        let node = Arc::new(Node::new(CHAIN, &[url], NodeOptions::default()).expect("a node"));
        let cost = self.timed(mode.finds, async |database| {
            let watched = Arc::new(Watched::default());
            let scanner = Scanner::new(database.clone(), node.clone(), watched, &spec, options);
            // Ends at the head, which does not move.
            while scanner.tick(NOW).await.expect("a good node") == Progress::Worked {}
        });
        Cost { usage: Some(node.usage()), ..cost }
    }

    /// Runs a job on a database of its own, measures it and compares what it stored.
    fn timed(&self, finds: &[Kind], job: impl AsyncFn(&Database)) -> Cost {
        let name = self.fresh();
        let cost = self.runtime.block_on(async {
            let database = self.connect(&name).await;
            let (postgres, node) = (self.cluster.pid().expect("a server"), self.workload.chain.pid());
            let spent = || [probe::cpu(std::process::id()), probe::cpu_of_family(postgres), probe::cpu(node)];
            probe::forget_memory_peak();
            let before = spent();
            let started = Instant::now();
            job(&database).await;
            let took = started.elapsed();
            let after = spent();
            let memory_kb = probe::memory_peak_kb();
            let mut connection = database.connection().await.expect("a connection");
            let mut found = workload::found(&mut connection, CHAIN).await.expect("sightings with keys of their own");
            // Near the head whole blocks are read whatever was asked for.
            found.retain(|sighting| finds.contains(&sighting.kind));
            let commits: i64 = sqlx::query_scalar("select count(distinct xmin::text) from chain_blocks")
                .fetch_one(&mut *connection)
                .await
                .expect("a count");
            let blocks: i64 = sqlx::query_scalar("select count(*) from chain_blocks where state = 'canonical'")
                .fetch_one(&mut *connection)
                .await
                .expect("a count");
            assert_eq!(blocks.unsigned_abs(), self.recipe.head(), "blocks stored");
            drop(connection);
            database.close().await;
            let [ours, postgres, node] = [0, 1, 2].map(|place: usize| after[place] - before[place]);
            Cost { found, took, usage: None, commits, ours, postgres, node, memory_kb }
        });
        self.cluster.drop_database(&name).expect("a database to drop");
        prove(&cost.found, &self.expected(finds));
        cost
    }

    fn naive(&self, bare: &Bare, logs: Plan, expected: &[Sighting]) -> Duration {
        let name = self.fresh();
        let watched: HashSet<Address> = self.recipe.watched_addresses().expect("addresses").into_iter().collect();
        let url = self.cluster.url(SUPERUSER, &name);
        let started = Instant::now();
        let found = self.runtime.block_on(find::naive(bare, &url, &watched, logs));
        let took = started.elapsed();
        self.cluster.drop_database(&name).expect("a database to drop");
        prove(&found, expected);
        took
    }

    /// The calls of these plans, one kind after the other.
    fn bare_side<'b>(&'b self, bare: &'b Bare, plans: Vec<Plan>) -> Side<'b> {
        Side::timed(self.blocks(), move || {
            self.runtime.block_on(async {
                for plan in &plans {
                    bare.run(*plan).await;
                }
            });
        })
    }

    /// A copy of the database with the addresses.
    fn fresh(&self) -> String {
        self.copies.set(self.copies.get() + 1);
        let name = format!("run_{}", self.copies.get());
        self.cluster.create_database_from(TEMPLATE, &name).expect("a copy");
        name
    }
}

/// Ends the bench at any difference: what is fast and wrong has no time.
fn prove(found: &[Sighting], expected: &[Sighting]) {
    let (missing, extra) = workload::differences(found, expected);
    let (first_missing, first_extra) = (missing.first(), extra.first());
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{} missing, {} extra; first: {first_missing:?}, {first_extra:?}",
        missing.len(),
        extra.len()
    );
}
