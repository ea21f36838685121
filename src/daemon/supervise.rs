//! Worker loops and what an error means to them.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::now;
use crate::metrics::Metrics;
use crate::units::{ChainId, Disposition, Progress};

/// The first pause after an error; it doubles up to the second.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A loop that has not turned for this long hangs: longer than any tick's own time limits together.
const HANG: Duration = Duration::from_secs(300);

/// How long the workers may take to come to an end by themselves. Together with the other limits of an
/// end this stays below TimeoutStopSec of the unit.
const ENDING: Duration = Duration::from_secs(20);
/// How long tasks that are cut off may take to notice.
const CUT_OFF: Duration = Duration::from_secs(2);

/// Wakes worker loops that have nothing to do. It carries no data: whoever is woken reads what there is, as at
/// every poll. A wake-up during a tick is kept for after it, and a poll comes in any case.
#[derive(Clone, Debug)]
pub(super) struct Wake(watch::Sender<()>);

/// One loop's ear for a [`Wake`].
#[derive(Clone, Debug)]
pub(super) struct Woken(Option<watch::Receiver<()>>);

impl Wake {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// Wakes every loop that listens, now or after the tick it is in.
    pub(super) fn wake(&self) {
        self.0.send_replace(());
    }

    pub(super) fn listen(&self) -> Woken {
        Woken(Some(self.0.subscribe()))
    }
}

impl Woken {
    /// A loop that only polls.
    pub(super) const fn never() -> Self {
        Self(None)
    }

    /// Comes true at the next wake-up, or at once for one since the last time.
    async fn woken(&mut self) {
        let heard = match &mut self.0 {
            Some(wake) => wake.changed().await.is_ok(),
            None => false,
        };
        if !heard {
            // Nobody is left who could wake us.
            std::future::pending().await
        }
    }
}

/// A worker loop: its name, its chain, and what wakes it before its poll does.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) name: &'static str,
    pub(super) chain: Option<ChainId>,
    pub(super) woken: Woken,
}

/// A loop's name and when it last turned.
type Pulse = (&'static str, Arc<AtomicU64>);
/// The same, for as long as its loop is there.
type WatchedPulse = (&'static str, Weak<AtomicU64>);

/// The workers that run, and the signal that ends them.
#[derive(Debug)]
pub(super) struct Workers {
    tasks: JoinSet<Result<(), anyhow::Error>>,
    stop: CancellationToken,
    metrics: Metrics,
    poll: Duration,
    /// When each loop last turned, in milliseconds since the start; gone with the loop.
    pulses: Arc<Mutex<Vec<WatchedPulse>>>,
    started: Instant,
    /// Workers whose figures end with them: those of a lease that may be given away.
    scoped: bool,
    begun: Vec<(&'static str, Option<ChainId>)>,
}

impl Workers {
    pub(super) fn new(stop: CancellationToken, metrics: Metrics, poll: Duration) -> Self {
        let (tasks, pulses) = (JoinSet::new(), Arc::default());
        Self { tasks, stop, metrics, poll, pulses, started: Instant::now(), scoped: false, begun: Vec::new() }
    }

    /// Workers that can end before the others do.
    pub(super) fn scope(&self) -> Self {
        Self {
            tasks: JoinSet::new(),
            stop: self.stop.child_token(),
            metrics: self.metrics.clone(),
            poll: self.poll,
            pulses: Arc::clone(&self.pulses),
            started: self.started,
            scoped: true,
            begun: Vec::new(),
        }
    }

    /// What ends these workers, and none beside them.
    pub(super) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Runs a task that is not a worker loop, such as the API server.
    pub(super) fn run<F>(&mut self, task: F)
    where
        F: Future<Output = Result<(), anyhow::Error>> + Send + 'static,
    {
        self.tasks.spawn(task);
    }

    /// Ticks a worker until the process stops, at every poll.
    pub(super) fn tick<F, Fut, E>(&mut self, name: &'static str, chain: Option<ChainId>, disposition: fn(&E) -> Disposition, tick: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Progress, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        self.tick_woken(Loop { name, chain, woken: Woken::never() }, disposition, tick);
    }

    /// Ticks a worker until the process stops, at every poll and whenever it is woken. After an error it is
    /// left alone for its pause: a node that is away is not asked more often because somebody knocks.
    pub(super) fn tick_woken<F, Fut, E>(&mut self, turning: Loop, disposition: fn(&E) -> Disposition, tick: F)
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Progress, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let Loop { name, chain, mut woken } = turning;
        let (stop, metrics, poll, started) = (self.stop.clone(), self.metrics.clone(), self.poll, self.started);
        let pulse = self.pulse(name);
        metrics.worker_started(name, chain, now().unix_timestamp());
        self.begun.push((name, chain));
        self.tasks.spawn(async move {
            let mut pause = PAUSE_MIN;
            // Ends when the process stops, or on an error that says so.
            while !stop.is_cancelled() {
                pulse.store(elapsed_ms(started), Ordering::Relaxed);
                let wait = match tick().await {
                    Ok(progress) => {
                        metrics.tick_finished(name, chain, now().unix_timestamp());
                        pause = PAUSE_MIN;
                        if progress == Progress::Idle {
                            tokio::select! {
                                () = tokio::time::sleep(poll) => {}
                                () = woken.woken() => {}
                                () = stop.cancelled() => {}
                            }
                        }
                        continue;
                    }
                    Err(error) => {
                        let what = disposition(&error);
                        metrics.tick_failed(name, chain, disposition_name(what));
                        report(name, chain, what, &error);
                        if what == Disposition::Stop {
                            return Err(anyhow::Error::new(error).context(format!("worker {name} cannot go on")));
                        }
                        let wait = pause;
                        pause = (pause * 2).min(PAUSE_MAX);
                        wait
                    }
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
            Ok(())
        });
    }

    /// A pulse that the watchdog goes by for as long as somebody holds it.
    pub(super) fn pulse(&self, name: &'static str) -> Arc<AtomicU64> {
        let pulse = Arc::new(AtomicU64::new(elapsed_ms(self.started)));
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|(_, pulse)| pulse.strong_count() > 0);
        pulses.push((name, Arc::downgrade(&pulse)));
        pulse
    }

    /// Since the start; what a pulse is set to.
    pub(super) fn elapsed_ms(&self) -> u64 {
        elapsed_ms(self.started)
    }

    /// Feeds systemd's watchdog while every loop turns; when one hangs, systemd ends and restarts the
    /// process. It proves no progress: a loop that fails and retries for ever turns. That shows in the
    /// metric of each worker's last tick without an error.
    pub(super) fn feed_watchdog(&mut self) {
        let Some(limit) = sd_notify::watchdog_enabled() else { return };
        let (stop, pulses, started) = (self.stop.clone(), Arc::clone(&self.pulses), self.started);
        self.tasks.spawn(async move {
            while !stop.is_cancelled() {
                let living: Vec<Pulse> = {
                    let pulses = pulses.lock().unwrap_or_else(PoisonError::into_inner);
                    pulses.iter().filter_map(|(name, pulse)| Some((*name, pulse.upgrade()?))).collect()
                };
                let hung = hung(&living, elapsed_ms(started));
                match hung {
                    None => drop(sd_notify::notify(&[sd_notify::NotifyState::Watchdog])),
                    Some(name) => tracing::error!(worker = name, "the loop does not turn; the watchdog is not fed"),
                }
                tokio::select! {
                    () = tokio::time::sleep(limit / 3) => {}
                    () = stop.cancelled() => {}
                }
            }
            Ok(())
        });
    }

    /// Waits until a task ends or the process is told to stop, then ends the rest: each loop after its
    /// tick, and what takes too long in the middle of it. Units of work run in tasks of their own, so
    /// one that is cut off here commits whole or not at all.
    pub(super) async fn join(self) -> Result<(), anyhow::Error> {
        self.join_within(ENDING).await
    }

    /// As [`Self::join`], with another limit for the end.
    pub(super) async fn join_within(mut self, ending: Duration) -> Result<(), anyhow::Error> {
        let first = tokio::select! {
            ended = self.tasks.join_next() => ended,
            () = self.stop.cancelled() => None,
        };
        let outcome = match first {
            None => Ok(()),
            Some(Ok(Ok(()))) if self.stop.is_cancelled() => Ok(()),
            Some(Ok(Ok(()))) => Err(anyhow::anyhow!("a worker ended although nobody asked it to")),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(panic)) => Err(anyhow::Error::new(panic).context("a worker panicked")),
        };
        self.stop.cancel();
        if tokio::time::timeout(ending, async { while self.tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "some tasks still run {} s after the signal to stop; they are cut off",
                ending.as_secs()
            );
            if tokio::time::timeout(CUT_OFF, self.tasks.shutdown()).await.is_err() {
                tracing::error!("a task blocks its thread; the process ends without it");
            }
        }
        if self.scoped {
            self.begun.iter().for_each(|(name, chain)| self.metrics.worker_ended(name, *chain));
        }
        outcome
    }
}

/// A loop that has not turned for too long.
fn hung(pulses: &[Pulse], now_ms: u64) -> Option<&'static str> {
    let oldest = now_ms.saturating_sub(u64::try_from(HANG.as_millis()).unwrap_or(u64::MAX));
    pulses.iter().find(|(_, pulse)| pulse.load(Ordering::Relaxed) < oldest).map(|(name, _)| *name)
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn report(name: &str, chain: Option<ChainId>, what: Disposition, error: &(dyn std::error::Error + 'static)) {
    let chain = chain.map_or(0, ChainId::get);
    let text = chain_of(error);
    match what {
        Disposition::Retry | Disposition::Skip => tracing::warn!(worker = name, chain.id = chain, "{text}"),
        Disposition::Officer | Disposition::Stop => tracing::error!(worker = name, chain.id = chain, "{text}"),
    }
}

/// An error and its causes in one line. A cause that an error already repeats is left out.
pub(super) fn chain_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = next.source();
    }
    text
}

const fn disposition_name(disposition: Disposition) -> &'static str {
    match disposition {
        Disposition::Retry => "retry",
        Disposition::Skip => "skip",
        Disposition::Officer => "officer",
        Disposition::Stop => "stop",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the lease is gone")]
    struct Gone;

    /// A worker that never comes back from its tick, as one that waits for a silent node.
    fn hanging(workers: &mut Workers) {
        workers.tick("hangs", None, |_: &Gone| Disposition::Retry, std::future::pending::<Result<Progress, Gone>>);
    }

    async fn joined(workers: Workers) -> Result<(), anyhow::Error> {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, workers.join_within(Duration::from_millis(100))).await.expect("the end must be bounded")
    }

    /// A loop that tells of each of its ticks.
    fn counted(workers: &mut Workers, woken: Woken) -> tokio::sync::mpsc::UnboundedReceiver<()> {
        let (told, ticks) = tokio::sync::mpsc::unbounded_channel();
        workers.tick_woken(
            Loop { name: "counted", chain: None, woken },
            |_: &Gone| Disposition::Retry,
            move || {
                let told = told.clone();
                async move {
                    told.send(()).unwrap();
                    Ok(Progress::Idle)
                }
            },
        );
        ticks
    }

    async fn ticked(ticks: &mut tokio::sync::mpsc::UnboundedReceiver<()>) {
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, ticks.recv()).await.expect("woken long before its poll").unwrap();
    }

    #[tokio::test]
    async fn w3_a_loop_that_is_woken_does_not_wait_for_its_poll() {
        let stop = CancellationToken::new();
        let mut workers = Workers::new(stop.clone(), Metrics::new(), Duration::from_secs(60));
        let wake = Wake::new();
        let mut ticks = counted(&mut workers, wake.listen());
        ticked(&mut ticks).await;
        for _ in 0..3 {
            wake.wake();
            ticked(&mut ticks).await;
        }
        stop.cancel();
        joined(workers).await.unwrap();
    }

    #[cfg(feature = "devkit")]
    #[tokio::test]
    async fn w3_a_changed_threshold_wakes_a_loop_before_its_poll() {
        use crate::daemon::notices;
        use crate::db::{Database, DatabaseLimits};
        use crate::devkit::{postgres::APP, schema::FreshDatabase};
        use crate::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
        use crate::units::Confirmations;

        let base = FreshDatabase::create().unwrap();
        let db = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() }).await.unwrap();
        let stop = CancellationToken::new();
        let mut workers = Workers::new(stop.clone(), Metrics::new(), Duration::from_secs(60));
        let wake = Wake::new();
        let mut ticks = counted(&mut workers, wake.listen());
        notices::forward(&mut workers, base.url(APP), settings::CHANGED, move || wake.wake(), stop.clone());
        // Listening begins with a knock of its own: what was changed before it is read then.
        for _ in 0..2 {
            ticked(&mut ticks).await;
        }
        // A connection that is lost is made again.
        for blocks in [3, 4, 5] {
            let set = db.unit::<_, SettingsError, _>(move |connection| {
                Box::pin(async move {
                    let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
                    let key = ThresholdKey::base(Gate::Credit, ChainId::new(1).expect("one"));
                    let blocks = Confirmations::new(blocks).ok();
                    settings::store::set(connection, &NewChange { key, blocks, effective_at: None, note }).await
                })
            });
            set.await.unwrap();
            ticked(&mut ticks).await;
            base.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amanatd notices' and datname = current_database()")
                .unwrap();
            ticked(&mut ticks).await;
        }
        stop.cancel();
        joined(workers).await.unwrap();
    }

    #[test]
    fn y4_one_loop_that_does_not_turn_starves_the_watchdog() {
        let pulse = |ms| Arc::new(AtomicU64::new(ms));
        let pulses = [("scan", pulse(1_000_000)), ("ledger", pulse(700_000))];
        assert_eq!(hung(&pulses, 1_000_000), None);
        assert_eq!(hung(&pulses, 1_000_001), Some("ledger"));
        // At the start nothing has turned yet, and nothing hangs.
        assert_eq!(hung(&[("scan", pulse(0))], 300_000), None);
    }

    #[tokio::test]
    async fn a_tick_that_hangs_does_not_hold_the_end_up() {
        let stop = CancellationToken::new();
        let mut workers = Workers::new(stop.clone(), Metrics::new(), Duration::from_millis(1));
        hanging(&mut workers);
        stop.cancel();
        joined(workers).await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_cannot_go_on_ends_the_others_and_is_the_reason() {
        let mut workers = Workers::new(CancellationToken::new(), Metrics::new(), Duration::from_millis(1));
        hanging(&mut workers);
        workers.tick("lease", None, |_: &Gone| Disposition::Stop, async || Err(Gone));
        let reason = joined(workers).await.unwrap_err();
        assert_eq!(format!("{reason:#}"), "worker lease cannot go on: the lease is gone");
    }
}
