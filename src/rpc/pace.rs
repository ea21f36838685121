//! How much to ask an endpoint at once: numbers that follow what it takes. Pure but for the waiting.
//!
//! What providers document is not what they sustain, and it changes. So a configured limit is where we
//! start and never exceed; below it, a refusal halves and ten successes double.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Successes in a row after which more is tried.
const STREAK: u32 = 10;

/// A size that is halved when it was too much and doubled, up to its cap, when it was fine for a while.
#[derive(Debug)]
pub(super) struct Adaptive {
    now: AtomicU32,
    cap: u32,
    streak: AtomicU32,
}

impl Adaptive {
    /// `start` and `cap` are at least 1.
    pub(super) fn new(start: u32, cap: u32) -> Self {
        let cap = cap.max(1);
        Self { now: AtomicU32::new(start.clamp(1, cap)), cap, streak: AtomicU32::new(0) }
    }

    pub(super) fn get(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }

    /// `tried` was too much. A suggestion counts only if it is strictly smaller: some nodes suggest the
    /// range that they have just refused. Several requests in flight may report the same refusal, so
    /// the size goes down from what was tried and not from where it is now.
    pub(super) fn shrink(&self, tried: u32, suggested: Option<u32>) {
        let half = (tried / 2).max(1);
        let next = suggested.filter(|size| (1..tried).contains(size)).unwrap_or(half);
        self.now.fetch_min(next, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
    }

    /// As much as the size now says was fine. Less proves nothing about more.
    pub(super) fn succeed(&self, tried: u32) {
        if tried < self.get() {
            return;
        }
        if self.streak.fetch_add(1, Ordering::Relaxed) + 1 >= STREAK {
            self.streak.store(0, Ordering::Relaxed);
            self.now.store(self.get().saturating_mul(2).min(self.cap), Ordering::Relaxed);
        }
    }
}

/// The longest gap that slowing down leads to.
const GAP_MAX_US: u64 = 5_000_000;
/// The first gap after a refusal for going too fast, where none was configured.
const GAP_FIRST_US: u64 = 20_000;

/// The distance in time between two requests to one endpoint.
#[derive(Debug)]
pub(super) struct Pace {
    gap_us: AtomicU64,
    floor_us: u64,
    slot: Mutex<Option<Interval>>,
}

impl Pace {
    /// `per_second`: requests; `None` for an endpoint of our own, which is asked as fast as it answers.
    pub(super) fn new(per_second: Option<u32>) -> Self {
        let floor_us = per_second.map_or(0, |rate| 1_000_000 / u64::from(rate.max(1)));
        Self { gap_us: AtomicU64::new(floor_us), floor_us, slot: Mutex::new(None) }
    }

    /// Waits until the next request may go. Evenly spaced, without bursts after a pause.
    pub(super) async fn turn(&self) {
        let gap = self.gap_us.load(Ordering::Relaxed);
        if gap == 0 {
            return;
        }
        let gap = Duration::from_micros(gap);
        let mut slot = self.slot.lock().await;
        let beat = match slot.as_mut() {
            Some(beat) if beat.period() == gap => beat,
            Some(_) | None => {
                let mut beat = interval(gap);
                beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
                // The first tick of a new beat is at once; a slower beat begins with its gap.
                beat.reset();
                slot.insert(beat)
            }
        };
        beat.tick().await;
    }

    /// The endpoint said that this is too fast.
    pub(super) fn slow_down(&self) {
        let gap = self.gap_us.load(Ordering::Relaxed);
        self.gap_us.store((gap * 2).clamp(GAP_FIRST_US, GAP_MAX_US), Ordering::Relaxed);
    }

    /// It answered: a little faster again.
    pub(super) fn speed_up(&self) {
        let gap = self.gap_us.load(Ordering::Relaxed);
        if gap > self.floor_us {
            let less = gap - gap / 20 - 1;
            self.gap_us.store(if less < GAP_FIRST_US / 2 { self.floor_us } else { less.max(self.floor_us) }, Ordering::Relaxed);
        }
    }

    pub(super) fn gap(&self) -> Duration {
        Duration::from_micros(self.gap_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y5_a_size_goes_down_at_a_refusal_and_up_after_ten_successes() {
        let size = Adaptive::new(2_000, 4_000);
        size.shrink(2_000, None);
        assert_eq!(size.get(), 1_000);
        size.shrink(1_000, Some(1_000));
        assert_eq!(size.get(), 500, "the suggestion was what had just failed");
        size.shrink(500, Some(120));
        assert_eq!(size.get(), 120);
        size.shrink(500, None);
        assert_eq!(size.get(), 120, "a late refusal of more does not raise it");
        for _ in 0..30 {
            size.succeed(60);
        }
        assert_eq!(size.get(), 120, "less than the size proves nothing");
        for expected in [240, 480, 960, 1_920, 3_840, 4_000, 4_000] {
            for _ in 0..10 {
                size.succeed(size.get());
            }
            assert_eq!(size.get(), expected);
        }
        let one = Adaptive::new(1, 1);
        one.shrink(1, None);
        assert_eq!(one.get(), 1);
    }

    #[test]
    fn y5_a_pace_slows_at_refusals_and_returns_to_what_was_configured() {
        let pace = Pace::new(Some(100));
        assert_eq!(pace.gap(), Duration::from_millis(10));
        pace.slow_down();
        assert_eq!(pace.gap(), Duration::from_millis(20));
        for _ in 0..20 {
            pace.slow_down();
        }
        assert_eq!(pace.gap(), Duration::from_secs(5));
        for _ in 0..1_000 {
            pace.speed_up();
        }
        assert_eq!(pace.gap(), Duration::from_millis(10));
        let own = Pace::new(None);
        own.slow_down();
        for _ in 0..1_000 {
            own.speed_up();
        }
        assert_eq!(own.gap(), Duration::ZERO);
    }
}
