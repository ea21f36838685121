//! The leases that divide the work between daemons: one holder each, and no write under one that is over.

use std::time::{Duration, Instant};

use amanatd::db::{Database, DatabaseLimits, DbError, Lease, LeaseError, LeaseName, Leases, list_leases};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::event::{self, Event};
use amanatd::units::{ChainId, Disposition};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

/// Long enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn one_daemon_holds_the_lease_and_the_next_gets_it_after() {
    let base = FreshDatabase::create().unwrap();
    let (mut lease, _) = Leases::take(&base.url(APP), LeaseName::House, "test").await.unwrap();
    lease.check(PATIENT).await.unwrap();
    assert!(matches!(Leases::take(&base.url(APP), LeaseName::House, "test").await, Err(LeaseError::Held(_))));
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    assert!(matches!(lease.check(PATIENT).await, Err(LeaseError::Lost(_))));
    // The server lets the lock go when it has seen the end of the connection.
    let started = Instant::now();
    while let Err(error) = Leases::take(&base.url(APP), LeaseName::House, "test").await {
        assert!(matches!(error, LeaseError::Held(_)) && started.elapsed() < PATIENT, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_falls_silent_has_lost_the_lease_in_bounded_time() {
    let base = FreshDatabase::create().unwrap();
    let (mut lease, _) = Leases::take(&base.url(APP), LeaseName::House, "test").await.unwrap();
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

async fn under(base: &FreshDatabase, lease: Lease) -> Database {
    Database::connect(&base.url(APP), DatabaseLimits::default()).await.unwrap().under(lease)
}

/// Takes the lease as soon as the server lets it go.
async fn take(base: &FreshDatabase) -> (Leases, Lease) {
    let started = Instant::now();
    loop {
        match Leases::take(&base.url(APP), LeaseName::House, "next").await {
            Ok(lease) => return lease,
            Err(error) => assert!(matches!(error, LeaseError::Held(_)) && started.elapsed() < PATIENT, "{error:?}"),
        }
    }
}

#[tokio::test]
async fn y3_a_daemon_whose_lease_went_to_another_writes_nothing() {
    let base = FreshDatabase::create().unwrap();
    let (_first, lease) = Leases::take(&base.url(APP), LeaseName::House, "first").await.unwrap();
    let paused = under(&base, lease).await;
    write(&paused, "lease.first").await.unwrap();
    backend(&base, "select pg_terminate_backend(pid) from pg_stat_activity");
    let (_second, next) = take(&base).await;
    let serving = under(&base, next).await;
    write(&serving, "lease.second").await.unwrap();
    let refused = write(&paused, "lease.late").await.unwrap_err();
    assert!(matches!(refused, DbError::Fenced(_)), "{refused:?}");
    assert_eq!(refused.disposition(), Disposition::Stop);
    assert_eq!(base.sql("select string_agg(kind, ' ' order by id) from events").unwrap().trim(), "lease.first lease.second");
}

#[tokio::test]
async fn y3_whoever_takes_over_waits_for_the_units_that_have_begun() {
    let base = FreshDatabase::create().unwrap();
    let (_first, lease) = Leases::take(&base.url(APP), LeaseName::House, "first").await.unwrap();
    let paused = under(&base, lease).await;
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
            match Leases::take(&url, LeaseName::House, "next").await {
                Ok(lease) => return lease,
                Err(error) => assert!(matches!(error, LeaseError::Held(_)), "{error:?}"),
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
    let (_second, next) = tokio::time::timeout(PATIENT, &mut taking).await.unwrap().unwrap();
    write(&under(&base, next).await, "lease.second").await.unwrap();
    assert_eq!(base.sql("select string_agg(kind, ' ' order by id) from events").unwrap().trim(), "lease.begun lease.second");
}

#[tokio::test]
async fn y3_each_lease_has_its_own_number_and_its_own_units() {
    let base = FreshDatabase::create().unwrap();
    let chain = |id| LeaseName::Chain(ChainId::new(id).unwrap());
    let (mut first, house) = Leases::take(&base.url(APP), LeaseName::House, "first").await.unwrap();
    let one = first.try_take(chain(1)).await.unwrap().unwrap();
    assert_eq!(first.try_take(chain(1)).await.unwrap(), Some(one), "it is ours already");
    let mut second = Leases::connect(&base.url(APP), "second").await.unwrap();
    assert_eq!(second.try_take(chain(1)).await.unwrap(), None);
    let two = second.try_take(chain(2)).await.unwrap().unwrap();
    let (under_one, under_two, under_house) = (under(&base, one).await, under(&base, two).await, under(&base, house).await);
    write(&under_one, "lease.one").await.unwrap();
    write(&under_two, "lease.two").await.unwrap();

    // Who holds what is seen from outside, and who asks.
    second.ask(Some(chain(1))).await.unwrap();
    let standing = first.look(PATIENT).await.unwrap();
    assert_eq!(standing.held.len(), 3);
    assert_eq!((standing.held[&chain(1)], standing.held[&chain(2)]), (first.me(), second.me()));
    assert_eq!(standing.asked[&chain(1)], [second.me()]);
    let shown = list_leases(&mut under_one.connection().await.unwrap()).await.unwrap();
    let shown: Vec<String> = shown.iter().map(|row| format!("{} {} {} {}", row.name, row.number, row.holder, row.held)).collect();
    assert_eq!(shown, ["chain:1 1 first true", "chain:2 1 second true", "house 1 first true"]);

    // One goes over; the other leases of the same daemon stand.
    first.release(chain(1)).await.unwrap();
    let taken = second.try_take(chain(1)).await.unwrap().unwrap();
    second.ask(None).await.unwrap();
    assert_eq!(first.look(PATIENT).await.unwrap().asked.len(), 0);
    let refused = write(&under_one, "lease.late").await.unwrap_err();
    assert!(matches!(&refused, DbError::Fenced(message) if message.contains("chain:1")), "{refused:?}");
    write(&under_house, "lease.house").await.unwrap();
    write(&under(&base, taken).await, "lease.taken").await.unwrap();
    assert_eq!(
        base.sql("select string_agg(kind, ' ' order by id) from events").unwrap().trim(),
        "lease.one lease.two lease.house lease.taken"
    );
}

#[tokio::test]
async fn y3_a_daemon_of_the_time_of_one_lease_is_fenced_by_the_migration() {
    let base = FreshDatabase::create().unwrap();
    // Its units called this with the number that it had, which was the last before.
    assert_eq!(base.sql("select number from leases where name = 'daemon'").unwrap().trim(), "1");
    let refused = base.sql("select lease_check(0)").unwrap_err().to_string();
    assert!(refused.contains("is over"), "{refused}");
}
