//! Thousands of made-up chain histories, and the watcher that must come through each of them right.
//!
//! A seed makes a history: blocks with payments of every kind, reorgs, branches that return, nodes that
//! lag, go back or answer rubbish, and restarts. The real scanner, confirmer and bookkeeper live through
//! it over HTTP and Postgres. The reference is the chain as it was made, not what anybody says about it:
//! at the end nothing may be missed, counted twice or made up, and the books must be those of a daemon
//! that starts afresh and reads the final chain (W1 to W6).
//!
//! A failure prints the line that repeats it. `AMANATD_SIM_SEED` and `AMANATD_SIM_HISTORIES` ask for
//! others, or for more.

mod books;
mod chain;
mod daemon;
mod history;
mod kills;
mod tally;

use std::io::Write as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use daemon::Ground;
use tally::Tally;

const SEED: u64 = 20_270_115;
const HISTORIES: u64 = 1_000;
/// A pair of databases serves so many histories: new ones cost time, and full ones do too.
const PER_GROUND: u64 = 40;

/// SplitMix64: the same history for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let length = items.len() as u64;
        &items[usize::try_from(self.below(length)).unwrap()]
    }
}

#[test]
fn w1_w2_w3_w4_w5_w6_every_history_ends_as_its_chain_says() {
    let (seed, histories) = (asked("AMANATD_SIM_SEED", SEED), asked("AMANATD_SIM_HISTORIES", HISTORIES));
    let next = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    // Half of the time each waits for the database.
    let threads = thread::available_parallelism().map_or(2, usize::from).clamp(1, 4) * 2;
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| live_through(&next, seed, histories, &total))).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                resume_unwind(panic);
            }
        }
    });
    let total = total.into_inner().unwrap();
    // Not captured: this line is what the run is for.
    writeln!(std::io::stderr(), "sim: seed {seed}, {total}").unwrap();
    assert_eq!(total.histories, histories);
    if histories >= 500 {
        total.assert_every_kind_was_met();
    }
}

fn live_through(next: &AtomicU64, seed: u64, histories: u64, total: &Mutex<Tally>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ground = Ground::new().await;
        for lived in 1.. {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= histories {
                break;
            }
            if lived % PER_GROUND == 0 {
                ground = Ground::new().await;
            }
            let tally = history::live(seed + number, &ground).await;
            total.lock().unwrap_or_else(PoisonError::into_inner).add(&tally);
        }
    });
}

fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}
