//! Two variants side by side: the loop that every bench shares.
//!
//! A time says what this machine did just now. A ratio of two variants that ran in turn, in one
//! process, says something about the code. So each round runs both sides, the order swaps every round,
//! and the result is the median of the rounds' ratios with the lowest and the highest. Outputs are
//! compared before anything is timed; a difference ends the run, slowness never does.
//!
//! Numbers are integers throughout: picoseconds for one item, thousandths for ratios.

#![allow(dead_code, reason = "every bench takes its own part of the loop")]
#![allow(clippy::print_stdout, reason = "a bench is there to print")]

use std::fmt::Debug;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: usize = 21;
/// For jobs of seconds.
const ROUNDS_LONG: usize = 5;
/// Each side runs at least this long in each round.
const SIDE_AT_LEAST: Duration = Duration::from_millis(20);
/// A baseline whose slow rounds take so much longer than its quick ones (thousandths) is noise.
const NOISY: u128 = 1_500;

/// One side of a pair: something that handles a number of items each time it is called.
pub(crate) struct Side<'a> {
    items: u64,
    call: Box<dyn FnMut() -> Duration + 'a>,
}

impl<'a> Side<'a> {
    /// All of `work` counts.
    pub(crate) fn timed(items: usize, mut work: impl FnMut() + 'a) -> Self {
        Self::measured(items, move || {
            let started = Instant::now();
            work();
            started.elapsed()
        })
    }

    /// Only what `call` gives back counts, so that it can prepare its input first.
    pub(crate) fn measured(items: usize, call: impl FnMut() -> Duration + 'a) -> Self {
        Self { items: items as u64, call: Box::new(call) }
    }

    /// Picoseconds for one item, over as many calls as the time asks for.
    fn run(&mut self) -> u128 {
        let (mut spent, mut items) = (Duration::ZERO, 0_u128);
        while spent < SIDE_AT_LEAST {
            spent += (self.call)();
            items += u128::from(self.items);
        }
        spent.as_nanos() * 1_000 / items
    }
}

/// What is compared.
pub(crate) struct Pair<'a> {
    pub(crate) variant: &'a str,
    pub(crate) baseline: &'a str,
    /// What was compared before.
    pub(crate) equal: Equal,
}

/// Outputs of two variants that were the same.
#[derive(Clone, Copy)]
pub(crate) struct Equal {
    of: usize,
}

impl Equal {
    /// Ends the run at the first difference.
    pub(crate) fn proved<T: PartialEq + Debug>(what: &str, candidate: &[T], baseline: &[T]) -> Self {
        assert_eq!(candidate.len(), baseline.len(), "{what}: the variants give different numbers of results");
        for (place, (ours, theirs)) in candidate.iter().zip(baseline).enumerate() {
            assert_eq!(ours, theirs, "{what}: the variants differ at {place}");
        }
        assert!(!candidate.is_empty(), "{what}: nothing was compared");
        Self { of: candidate.len() }
    }
}

/// One path, its machine and its results.
pub(crate) struct Bench {
    path: &'static str,
    rounds: usize,
}

impl Bench {
    pub(crate) fn start(path: &'static str) -> Self {
        println!();
        println!("{path}: {}, {} cores, load {}", cpu_model(), cores(), load());
        println!("{path}: {}, commit {}, release profile with overflow checks", said("rustc", &["--version"]), commit());
        println!(
            "path | variant | ratio median (min..max) | baseline | share of limit | equal | noisy? | candidate median/min | baseline median/min | candidate rate"
        );
        Self { path, rounds: ROUNDS }
    }

    /// For jobs of seconds: fewer rounds.
    pub(crate) fn start_long(path: &'static str) -> Self {
        Self { rounds: ROUNDS_LONG, ..Self::start(path) }
    }

    /// The working set, the settings, what else was measured.
    pub(crate) fn note(&self, text: &str) {
        println!("{}: {text}", self.path);
    }

    /// Runs both sides in turn and prints the line. `limit` is a third side that nothing can beat.
    pub(crate) fn compare(&self, pair: &Pair<'_>, mut candidate: Side<'_>, mut baseline: Side<'_>, mut limit: Option<Side<'_>>) {
        if cfg!(debug_assertions) {
            println!("{} | {} | not timed: debug build | {} | - | {of}/{of}", self.path, pair.variant, pair.baseline, of = pair.equal.of);
            return;
        }
        let mut rounds = Vec::with_capacity(self.rounds);
        // The first round warms up.
        for round in 0..=self.rounds {
            let (ours, theirs) = if round % 2 == 0 {
                let theirs = baseline.run();
                (candidate.run(), theirs)
            } else {
                (candidate.run(), baseline.run())
            };
            let bound = limit.as_mut().map(Side::run);
            if round > 0 {
                rounds.push(Round { ours, theirs, bound });
            }
        }
        let ratios = Spread::of(rounds.iter().map(|round| round.theirs * 1_000 / round.ours.max(1)));
        let ours = Spread::of(rounds.iter().map(|round| round.ours));
        let theirs = Spread::of(rounds.iter().map(|round| round.theirs));
        let shares: Option<Vec<u128>> = rounds.iter().map(|round| Some(round.bound? * 1_000 / round.ours.max(1))).collect();
        let share = shares.map_or_else(|| "-".to_owned(), |shares| percent(Spread::of(shares.into_iter()).median));
        let noisy = if theirs.high * 1_000 / theirs.low.max(1) > NOISY { "noisy" } else { "-" };
        println!(
            "{} | {} | {} ({}..{}) | {} | {share} | {of}/{of} | {noisy} | {}/{} | {}/{} | {}/s",
            self.path,
            pair.variant,
            times(ratios.median),
            times(ratios.min),
            times(ratios.max),
            pair.baseline,
            duration(ours.median),
            duration(ours.min),
            duration(theirs.median),
            duration(theirs.min),
            grouped(1_000_000_000_000 / ours.median.max(1)),
            of = pair.equal.of,
        );
    }
}

struct Round {
    ours: u128,
    theirs: u128,
    bound: Option<u128>,
}

struct Spread {
    min: u128,
    /// Nine of ten are above.
    low: u128,
    median: u128,
    /// Nine of ten are below.
    high: u128,
    max: u128,
}

impl Spread {
    fn of(values: impl Iterator<Item = u128>) -> Self {
        let mut sorted: Vec<u128> = values.collect();
        sorted.sort_unstable();
        let at = |tenths: usize| sorted[(sorted.len() - 1) * tenths / 10];
        Self { min: at(0), low: at(1), median: at(5), high: at(9), max: at(10) }
    }
}

/// Whether larger inputs were asked for: `cargo bench -- --large`.
pub(crate) fn large() -> bool {
    std::env::args().any(|argument| argument == "--large")
}

// === numbers as text ===

/// 2412 thousandths are 2.41x, 84012 are 84.0x.
fn times(thousandths: u128) -> String {
    match thousandths {
        0..10_000 => format!("{}.{:02}x", thousandths / 1_000, thousandths % 1_000 / 10),
        _ => format!("{}.{}x", thousandths / 1_000, thousandths % 1_000 / 100),
    }
}

fn percent(thousandths: u128) -> String {
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

pub(crate) fn duration(picoseconds: u128) -> String {
    let (unit, name) = match picoseconds {
        0..1_000_000 => (1_000, "ns"),
        1_000_000..1_000_000_000 => (1_000_000, "µs"),
        _ => (1_000_000_000, "ms"),
    };
    format!("{}.{:02} {name}", picoseconds / unit, picoseconds % unit * 100 / unit)
}

pub(crate) fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

// === the machine ===

fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

pub(crate) fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn commit() -> String {
    let hash = said("git", &["rev-parse", "--short", "HEAD"]);
    let clean = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    if clean { hash } else { format!("{hash} with changes") }
}

/// What a program prints, run where the package is.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Ok(_) | Err(_) => format!("{program} unknown"),
    }
}

// === inputs ===

/// SplitMix64: the same input for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.number().to_le_bytes()[..part.len()]);
        }
        bytes
    }

    pub(crate) fn data(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number().to_le_bytes()[0]).collect()
    }
}
