//! The lease that keeps a second daemon out of a database.

use std::time::{Duration, Instant};

use amanatd::db::{InstanceLease, LeaseError};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use rustix::process::{Pid, Signal, kill_process};

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_daemon_holds_the_lease_and_the_next_gets_it_after() {
    let base = FreshDatabase::create().unwrap();
    let mut lease = InstanceLease::take(&base.url(APP)).await.unwrap();
    lease.check(PATIENT).await.unwrap();
    assert!(matches!(InstanceLease::take(&base.url(APP)).await, Err(LeaseError::Held)));
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    assert!(matches!(lease.check(PATIENT).await, Err(LeaseError::Lost(_))));
    // The server lets the lock go when it has seen the end of the connection.
    let started = Instant::now();
    while let Err(error) = InstanceLease::take(&base.url(APP)).await {
        assert!(matches!(error, LeaseError::Held) && started.elapsed() < PATIENT, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_has_lost_the_lease_in_bounded_time() {
    let base = FreshDatabase::create().unwrap();
    let mut lease = InstanceLease::take(&base.url(APP)).await.unwrap();
    let pid = backend(&base, "select pid from pg_stat_activity").parse().ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let checked = tokio::time::timeout(PATIENT, lease.check(Duration::from_millis(300))).await;
    // Goes on before anything can fail, or the database could not be dropped.
    kill_process(pid, Signal::CONT).unwrap();
    assert!(matches!(checked, Ok(Err(LeaseError::Lost(_)))), "{checked:?}");
}

/// Asks about the connection that holds the lease.
fn backend(base: &FreshDatabase, question: &str) -> String {
    let only = format!("{question} where application_name = 'amanatd lease' and datname = '{}'", base.name);
    base.sql(&only).unwrap().trim().to_owned()
}
