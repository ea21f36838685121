//! Is this address ours? The watched set, against the hash set of the standard library; and with
//! `--large`, what a process needs that reads ten million rows into it.

use std::collections::HashSet;
use std::hint::black_box;
use std::process::Command;
use std::time::Instant;

use alloy::primitives::Address;
use amanatd::db::{Database, DatabaseLimits};
use amanatd::deposit::{Watched, WatchedSet};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use pair::{Bench, Equal, Pair, Random, Side};

mod pair;

const SEED: u64 = 2;
const QUERIES: usize = 1 << 20;
/// One query of a thousand finds something, as on a chain where we are small.
const HIT_EVERY: usize = 1_000;
/// As many as ten full accounts.
const ROWS: u64 = 10_000_000;
/// What the whole process may need with so many rows, in MB of a million bytes, and one address of it.
const PEAK_MB_MAX: u64 = 600;
const BYTES_EACH_MAX: u64 = 45;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    if let [_, word, url, ..] = words.as_slice()
        && word == "--load"
    {
        load(url);
        return;
    }
    let bench = Bench::start("watched");
    bench.note(&format!("{QUERIES} random queries, seed {SEED}; misses: 1 of {HIT_EVERY} hits; hits: all do"));
    let sizes: &[(usize, &str)] =
        if pair::large() { &[(10_000, "10k"), (1_000_000, "1M"), (10_000_000, "10M")] } else { &[(10_000, "10k"), (1_000_000, "1M")] };
    for (size, name) in sizes {
        compare_at(&bench, *size, name);
    }
    if pair::large() {
        peak(&bench);
    }
}

fn compare_at(bench: &Bench, size: usize, name: &str) {
    let mut random = Random::seeded(SEED);
    let addresses: Vec<Address> = (0..size).map(|_| Address::from(random.bytes::<20>())).collect();

    let before = status("VmRSS");
    let mut ours = WatchedSet::default();
    ours.reserve(size as u64);
    ours.extend(addresses.iter().copied());
    let with_ours = status("VmRSS");
    let theirs: HashSet<Address> = addresses.iter().copied().collect();
    let with_both = status("VmRSS");
    if let (Some(before), Some(with_ours), Some(with_both)) = (before, with_ours, with_both) {
        let per_address = |bytes: u64| bytes / size as u64;
        bench.note(&format!(
            "{name}: {} bytes of resident memory for each address in ours, {} in the baseline",
            per_address(with_ours.saturating_sub(before)),
            per_address(with_both.saturating_sub(with_ours)),
        ));
    }

    let mostly_misses: Vec<Address> = (0..QUERIES)
        .map(|place| if place % HIT_EVERY == 0 { pick(&mut random, &addresses) } else { Address::from(random.bytes::<20>()) })
        .collect();
    let hits: Vec<Address> = (0..QUERIES).map(|_| pick(&mut random, &addresses)).collect();

    for (queries, kind) in [(&mostly_misses, "misses"), (&hits, "hits")] {
        let found: Vec<bool> = queries.iter().map(|address| ours.contains(*address)).collect();
        let wanted: Vec<bool> = queries.iter().map(|address| theirs.contains(address)).collect();
        let equal = Equal::proved(name, &found, &wanted);
        bench.compare(
            &Pair { variant: &format!("WatchedSet::contains, {name}, {kind}"), baseline: "std HashSet<Address>::contains", equal },
            Side::timed(QUERIES, || {
                black_box(queries.iter().filter(|address| ours.contains(**address)).count());
            }),
            Side::timed(QUERIES, || {
                black_box(queries.iter().filter(|address| theirs.contains(*address)).count());
            }),
            None,
        );
    }
}

fn pick(random: &mut Random, addresses: &[Address]) -> Address {
    let place = random.below(addresses.len() as u64);
    addresses[usize::try_from(place).expect("a place in memory")]
}

// === a process of its own ===

/// Makes the rows, and has a fresh process read them as the daemon does.
fn peak(bench: &Bench) {
    let base = FreshDatabase::create().expect("a database of our own");
    let started = Instant::now();
    // Rows of accounts that are nobody's. Indices that reading does not use are left out, so that making
    // the rows takes a minute and not ten.
    let rows = format!(
        "alter table trezor_derived_addresses drop constraint trezor_derived_addresses_pkey cascade, \
             drop constraint trezor_derived_addresses_address_key; \
         drop index trezor_derived_addresses_created_idx; \
         alter table trezor_derived_addresses set unlogged; \
         insert into trezor_accounts (label, account_index, path, xpub, fingerprint, next_deposit_index) \
             select n::text, n, format('m/44''/60''/%s''', n), 'xpub' || rpad(translate(md5(n::text), '0', 'x'), 107, 'a'), '\\x00000000', \
                 {each} from generate_series(0, 9) n; \
         insert into trezor_derived_addresses (account_id, branch, address_index, address, purpose) \
             select a.id, b, i, substr(sha256(convert_to(format('%s/%s/%s', a.label, b, i), 'UTF8')), 1, 20), \
                 case b when 0 then 'deposit' else 'gas' end::derived_address_purpose \
             from trezor_accounts a, generate_series(0, 1) b, generate_series(0, case b when 0 then {each} - 1 else 1 end) i \
             order by a.account_index, b, i; \
         analyze trezor_derived_addresses",
        each = ROWS / 10
    );
    base.sql(&rows).expect("rows");
    bench.note(&format!("{ROWS} rows made in {} s; a fresh process now reads them", started.elapsed().as_secs()));
    let program = std::env::current_exe().expect("this program");
    let outcome = Command::new(program).args(["--load", &base.url(APP)]).status().expect("this program again");
    assert!(outcome.success(), "reading the rows failed");
}

/// Reads every address there is, as the daemon does at its start, and says what that took.
#[allow(clippy::print_stdout, reason = "a bench is there to print")]
fn load(url: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let database = Database::connect(url, DatabaseLimits::default()).await.expect("the database");
        let before = status("VmRSS").unwrap_or_default();
        let started = Instant::now();
        let watched = Watched::default();
        watched.refresh(&database).await.expect("every row below its counter");
        let took = started.elapsed().as_millis();
        let addresses = watched.read().len() as u64;
        let (rest, peak) = (status("VmRSS").unwrap_or_default(), status("VmHWM").unwrap_or_default());
        let started = Instant::now();
        watched.refresh(&database).await.expect("nothing new");
        let again = started.elapsed().as_micros();
        let mb = |bytes: u64| bytes / 1_000_000;
        let each = rest.saturating_sub(before) / addresses;
        println!("watched: {addresses} addresses read in {took} ms; a refresh that finds nothing new takes {again} µs");
        println!(
            "watched: at rest {} MB, {each} bytes for each address (goal {BYTES_EACH_MAX}: {}); peak of the whole process {} MB (goal {PEAK_MB_MAX}: {})",
            mb(rest),
            verdict(each <= BYTES_EACH_MAX),
            mb(peak),
            verdict(mb(peak) <= PEAK_MB_MAX)
        );
    });
}

fn verdict(kept: bool) -> &'static str {
    if kept { "kept" } else { "MISSED" }
}

/// A size of this process in bytes, where the system tells: `VmRSS` now, `VmHWM` at its highest.
fn status(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024)
}
