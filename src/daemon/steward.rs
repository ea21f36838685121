//! The steward: looks who holds which lease, takes what is free, starts its workers, and ends them before it gives a
//! lease to a daemon that has fewer.
//!
//! A lease's workers are made anew each time it is taken, so nothing that they remember outlives it. When the
//! connection that holds the leases is gone, the process ends: another may hold them already.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::now;
use super::share::{Moves, moves};
use super::supervise::Workers;
use crate::db::{Lease, LeaseName, Leases};
use crate::metrics::Metrics;
use crate::units::ChainId;

/// Between two looks at who holds what.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long the server may take to show that it still holds our leases.
const LEASE_LIMIT: Duration = Duration::from_secs(10);
/// How long the workers of a lease may take to end. The process waits a little longer for the steward.
const ENDING: Duration = Duration::from_secs(15);
/// The steward's name among the workers.
const NAME: &str = "lease";

/// What this daemon holds now, for whoever measures it.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<RwLock<BTreeSet<LeaseName>>>);

impl Held {
    pub(super) fn has(&self, name: LeaseName) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&name)
    }

    pub(super) fn has_chain(&self, chain: ChainId) -> bool {
        self.has(LeaseName::Chain(chain))
    }

    fn set(&self, name: LeaseName, held: bool) {
        let mut names = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if held {
            names.insert(name);
        } else {
            names.remove(&name);
        }
    }
}

/// What the steward works with.
pub(super) struct Steward {
    pub(super) leases: Leases,
    /// The leases that this daemon's configuration can serve.
    pub(super) able: Vec<LeaseName>,
    pub(super) held: Held,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
}

/// The workers of one lease, until they have ended.
struct Scope {
    stop: CancellationToken,
    /// Whether it ends so that another daemon can have it.
    given: bool,
}

impl Steward {
    /// Runs until the process stops, a worker cannot go on, or the leases are gone. `open` starts the workers of a
    /// lease.
    pub(super) async fn run<F, Fut>(mut self, workers: &Workers, open: F) -> anyhow::Result<()>
    where
        F: Fn(Lease, Workers) -> Fut,
        Fut: Future<Output = anyhow::Result<Workers>>,
    {
        let mut scopes: BTreeMap<LeaseName, Scope> = BTreeMap::new();
        let mut tasks: JoinSet<(LeaseName, anyhow::Result<()>)> = JoinSet::new();
        let outcome = self.work(workers, &open, &mut scopes, &mut tasks).await;
        for scope in scopes.values() {
            scope.stop.cancel();
        }
        while let Some(ended) = tasks.join_next().await {
            if let Ok((name, Err(error))) = ended {
                tracing::error!(lease = %name, "while it ended: {error:#}");
            }
        }
        // The leases go with their connection, when all that worked under them has ended.
        outcome
    }

    async fn work<F, Fut>(
        &mut self,
        workers: &Workers,
        open: &F,
        scopes: &mut BTreeMap<LeaseName, Scope>,
        tasks: &mut JoinSet<(LeaseName, anyhow::Result<()>)>,
    ) -> anyhow::Result<()>
    where
        F: Fn(Lease, Workers) -> Fut,
        Fut: Future<Output = anyhow::Result<Workers>>,
    {
        let pulse = workers.pulse(NAME);
        self.metrics.worker_started(NAME, None, now().unix_timestamp());
        // Ends when the process stops, or on what must not go on.
        while !self.stop.is_cancelled() {
            pulse.store(workers.elapsed_ms(), Ordering::Relaxed);
            let standing = self.leases.look(LEASE_LIMIT).await.context("worker lease cannot go on")?;
            let Moves { take, give, ask } = moves(self.leases.me(), &self.able, &standing);
            for name in take {
                if let Some(lease) = self.leases.try_take(name).await.context("worker lease cannot go on")? {
                    let opened = open(lease, workers.scope()).await.with_context(|| format!("the work under lease {name} cannot begin"))?;
                    scopes.insert(name, Scope { stop: opened.stop_token(), given: false });
                    self.held.set(name, true);
                    tracing::info!(lease = %name, "working under it from now on");
                    tasks.spawn(async move { (name, opened.join_within(ENDING).await) });
                }
            }
            // One at a time: what ends now still counts as ours.
            if let Some((name, scope)) =
                give.filter(|_| scopes.values().all(|scope| !scope.given)).and_then(|name| scopes.get_key_value(&name))
            {
                tracing::info!(lease = %name, "another daemon has less to do and takes it over");
                scope.stop.cancel();
                let name = *name;
                scopes.insert(name, Scope { stop: scope.stop.clone(), given: true });
            }
            self.leases.ask(ask).await.context("worker lease cannot go on")?;
            self.report();
            // Whatever was free has begun.
            self.metrics.ready_as_to("start");
            self.metrics.tick_finished(NAME, None, now().unix_timestamp());
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.stop.cancelled() => {}
                Some(ended) = tasks.join_next() => {
                    let (name, outcome) = ended.context("the task that waits for a lease's workers panicked")?;
                    let given = scopes.remove(&name).is_some_and(|scope| scope.given);
                    if !given && !self.stop.is_cancelled() {
                        return outcome.and_then(|()| Err(anyhow::anyhow!("the workers under lease {name} ended although nobody asked them to")));
                    }
                    outcome.with_context(|| format!("the work under lease {name} did not end well"))?;
                    self.held.set(name, false);
                    self.leases.release(name).await.context("worker lease cannot go on")?;
                }
            }
        }
        Ok(())
    }

    /// Exports what is held, and takes back what was exported of what is not.
    fn report(&self) {
        for name in &self.able {
            let held = self.held.has(*name);
            self.metrics.operations.lease(&name.to_string(), held);
            if !held {
                match name {
                    LeaseName::House => self.metrics.forget_house(),
                    LeaseName::Chain(chain) => self.metrics.forget_chain(*chain),
                }
            }
        }
    }
}
