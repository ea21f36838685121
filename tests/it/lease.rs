//! The lease that keeps a second daemon out of a database.

use std::time::{Duration, Instant};

use amanatd::db::{Database, DatabaseLimits, DbError, InstanceLease, LeaseError};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::event::{self, Event};
use amanatd::units::Disposition;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_daemon_holds_the_lease_and_the_next_gets_it_after() {
    let base = FreshDatabase::create().unwrap();
    let mut lease = InstanceLease::take(&base.url(APP), "test").await.unwrap();
    lease.check(PATIENT).await.unwrap();
    assert!(matches!(InstanceLease::take(&base.url(APP), "test").await, Err(LeaseError::Held)));
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    assert!(matches!(lease.check(PATIENT).await, Err(LeaseError::Lost(_))));
    // The server lets the lock go when it has seen the end of the connection.
    let started = Instant::now();
    while let Err(error) = InstanceLease::take(&base.url(APP), "test").await {
        assert!(matches!(error, LeaseError::Held) && started.elapsed() < PATIENT, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_has_lost_the_lease_in_bounded_time() {
    let base = FreshDatabase::create().unwrap();
    let mut lease = InstanceLease::take(&base.url(APP), "test").await.unwrap();
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

/// A unit that writes one event.
async fn write(db: &Database, kind: &'static str) -> Result<(), DbError> {
    let event = Event { kind, payment: None, intent: None, chain: None, detail: serde_json::json!({}) };
    db.unit(move |connection| Box::pin(async move { event::store::append(connection, &event).await })).await
}

async fn under(base: &FreshDatabase, lease: &InstanceLease) -> Database {
    Database::connect(&base.url(APP), DatabaseLimits::default()).await.unwrap().under(lease.number())
}

/// Takes the lease as soon as the server lets it go.
async fn take(base: &FreshDatabase) -> InstanceLease {
    let started = Instant::now();
    loop {
        match InstanceLease::take(&base.url(APP), "next").await {
            Ok(lease) => return lease,
            Err(error) => assert!(matches!(error, LeaseError::Held) && started.elapsed() < PATIENT, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn y3_a_daemon_whose_lease_went_to_another_writes_nothing() {
    let base = FreshDatabase::create().unwrap();
    let first = InstanceLease::take(&base.url(APP), "first").await.unwrap();
    let paused = under(&base, &first).await;
    write(&paused, "lease.first").await.unwrap();
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    let second = take(&base).await;
    let serving = under(&base, &second).await;
    write(&serving, "lease.second").await.unwrap();
    let refused = write(&paused, "lease.late").await.unwrap_err();
    assert!(matches!(refused, DbError::Fenced(_)), "{refused:?}");
    assert_eq!(refused.disposition(), Disposition::Stop);
    assert_eq!(base.sql("select string_agg(kind, ' ' order by id) from events").unwrap().trim(), "lease.first lease.second");
}

#[tokio::test]
async fn y3_whoever_takes_over_waits_for_the_units_that_have_begun() {
    let base = FreshDatabase::create().unwrap();
    let first = InstanceLease::take(&base.url(APP), "first").await.unwrap();
    let paused = under(&base, &first).await;
    let (begun, on_begin) = oneshot::channel();
    let (go_on, on_go) = oneshot::channel::<()>();
    let unit = tokio::spawn(async move {
        paused
            .unit::<_, DbError, _>(move |connection| {
                Box::pin(async move {
                    begun.send(()).unwrap();
                    on_go.await.unwrap();
                    let event = Event { kind: "lease.begun", payment: None, intent: None, chain: None, detail: serde_json::json!({}) };
                    event::store::append(connection, &event).await
                })
            })
            .await
    });
    on_begin.await.unwrap();
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    let url = base.url(APP);
    let mut taking = tokio::spawn(async move {
        loop {
            match InstanceLease::take(&url, "next").await {
                Ok(lease) => return lease,
                Err(error) => assert!(matches!(error, LeaseError::Held), "{error:?}"),
            }
        }
    });
    // It has its number and waits.
    let waits = "select count(*) from pg_stat_activity";
    let started = Instant::now();
    while base.sql(&format!("{waits} where datname = '{}' and wait_event_type = 'Lock'", base.name)).unwrap().trim() != "1" {
        assert!(started.elapsed() < PATIENT && !taking.is_finished(), "nobody waits for the unit");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    go_on.send(()).unwrap();
    unit.await.unwrap().unwrap();
    let second = tokio::time::timeout(PATIENT, &mut taking).await.unwrap().unwrap();
    write(&under(&base, &second).await, "lease.second").await.unwrap();
    assert_eq!(base.sql("select string_agg(kind, ' ' order by id) from events").unwrap().trim(), "lease.begun lease.second");
}
