//! Is this address ours? The watched set, against the hash set of the standard library.

use std::collections::HashSet;
use std::hint::black_box;

use alloy::primitives::Address;
use amanatd::account::store::WatchedAddress;
use amanatd::deposit::WatchedSet;
use pair::{Bench, Equal, Pair, Random, Side};
use time::OffsetDateTime;

mod pair;

const SEED: u64 = 2;
const QUERIES: usize = 1 << 20;
/// One query of a thousand finds something, as on a chain where we are small.
const HIT_EVERY: usize = 1_000;

fn main() {
    let bench = Bench::start("watched");
    bench.note(&format!("{QUERIES} random queries, seed {SEED}; misses: 1 of {HIT_EVERY} hits; hits: all do"));
    let sizes: &[(usize, &str)] =
        if pair::large() { &[(10_000, "10k"), (1_000_000, "1M"), (10_000_000, "10M")] } else { &[(10_000, "10k"), (1_000_000, "1M")] };
    for (size, name) in sizes {
        compare_at(&bench, *size, name);
    }
}

fn compare_at(bench: &Bench, size: usize, name: &str) {
    let mut random = Random::seeded(SEED);
    let addresses: Vec<Address> = (0..size).map(|_| Address::from(random.bytes::<20>())).collect();
    let row = |address: &Address| WatchedAddress { address: *address, created_at: OffsetDateTime::UNIX_EPOCH };

    let before = resident();
    let mut ours = WatchedSet::default();
    ours.extend(addresses.iter().map(row));
    let with_ours = resident();
    let theirs: HashSet<Address> = addresses.iter().copied().collect();
    let with_both = resident();
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

/// Bytes of this process in memory, where the system tells.
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1_024)
}
