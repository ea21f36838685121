//! What stands between a caller that goes away and a lost write, and between two daemons on one
//! database.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use amanatd::db::{Database, DatabaseLimits, DbError, LeaseError, LeaseName, Leases};
use amanatd::devkit::postgres::{self, APP};
use amanatd::devkit::schema::FreshDatabase;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Acquire, Executor, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(60);

// === a server whose answers can be held back ===

/// Stands before the server. It falls shut when a transaction is asked for, if it was set to; what the
/// server says then waits until it is opened.
struct Gate {
    port: u16,
    open: watch::Sender<bool>,
    falls: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Gate {
    async fn before(socket: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, opened) = watch::channel(true);
        let falls = Arc::new(AtomicBool::new(false));
        let (shut, trap) = (open.clone(), Arc::clone(&falls));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&socket).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let (shut, trap, mut opened) = (shut.clone(), Arc::clone(&trap), opened.clone());
                tokio::spawn(async move {
                    let mut bytes = vec![0; 16 * 1024];
                    while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                        let begins = bytes[..length].windows(5).any(|word| word == b"BEGIN");
                        if begins && trap.swap(false, Ordering::AcqRel) {
                            shut.send_replace(false);
                        }
                        if to_server.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                });
                tokio::spawn(async move {
                    let mut bytes = vec![0; 16 * 1024];
                    while let Ok(length @ 1..) = from_server.read(&mut bytes).await {
                        if opened.wait_for(|open| *open).await.is_err() || to_client.write_all(&bytes[..length]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Self { port, open, falls, task }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://{APP}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// The next BEGIN reaches the server, and its answer nobody.
    fn set(&self) {
        self.falls.store(true, Ordering::Release);
    }

    async fn fallen(&self) {
        self.open.subscribe().wait_for(|open| !open).await.unwrap();
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Stand {
    base: FreshDatabase,
    gate: Gate,
}

impl Stand {
    async fn new() -> Self {
        let base = FreshDatabase::create().unwrap();
        let gate = Gate::before(postgres::shared().unwrap().socket_folder().join(".s.PGSQL.5432")).await;
        Self { base, gate }
    }

    /// One connection, so that whoever comes next gets the one that was left.
    async fn database(&self) -> Database {
        let limits = DatabaseLimits { connections_max: 1, acquire_timeout: PATIENCE };
        Database::connect(&self.gate.url(&self.base.name), limits).await.unwrap()
    }

    /// Rows as another connection sees them.
    fn rows(&self) -> i64 {
        self.base.sql("select count(*) from pg_dualwrite_gaps").unwrap().trim().parse().unwrap()
    }

    async fn rows_become(&self, rows: i64) {
        let started = Instant::now();
        while self.rows() != rows {
            assert!(started.elapsed() < PATIENCE, "{} rows, not {rows}", self.rows());
            tokio::task::yield_now().await;
        }
    }
}

const INSERT: &str = "insert into pg_dualwrite_gaps (collection, op, payload, severity) values ('test', 'insert', '{}', 'info')";

async fn insert(connection: &mut PgConnection) -> Result<(), DbError> {
    connection.execute(INSERT).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y1_cancelled_begin() {
    let stand = Stand::new().await;
    let database = stand.database().await;
    let mut connection = database.connection().await.unwrap();
    // The client asks for a transaction and is gone before it has the answer.
    stand.gate.set();
    tokio::select! {
        biased;
        () = stand.gate.fallen() => {}
        begun = connection.begin() => panic!("begun behind a shut gate: {}", begun.is_ok()),
    }
    drop(connection);
    stand.gate.open();
    // The next write is acknowledged, and it is there.
    insert(&mut database.connection().await.unwrap()).await.unwrap();
    assert_eq!(stand.rows(), 1, "an acknowledged write was lost");
    database.unit::<_, DbError, _>(|connection| Box::pin(insert(connection))).await.unwrap();
    assert_eq!(stand.rows(), 2);
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'";
    assert_eq!(stand.base.sql(open).unwrap().trim(), "0");
}

/// The reason for the guard: with a plain pool the same steps lose the write. If this fails after an
/// update of the driver, the driver was mended; the guards stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y1_a_pool_without_the_guard_loses_the_write() {
    let stand = Stand::new().await;
    let url = stand.gate.url(&stand.base.name);
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect(&url).await.unwrap();
    let mut connection = pool.acquire().await.unwrap();
    stand.gate.set();
    tokio::select! {
        biased;
        () = stand.gate.fallen() => {}
        begun = connection.begin() => panic!("begun behind a shut gate: {}", begun.is_ok()),
    }
    drop(connection);
    stand.gate.open();
    assert!(insert(&mut pool.acquire().await.unwrap()).await.is_ok(), "it is acknowledged");
    assert_eq!(stand.rows(), 0, "and nobody else sees it");
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y1_f34_a_unit_of_work_finishes_though_its_caller_is_gone() {
    let stand = Stand::new().await;
    let database = stand.database().await;
    // Gone while the transaction begins.
    stand.gate.set();
    let owner = database.clone();
    let caller = tokio::spawn(async move { owner.unit::<_, DbError, _>(|connection| Box::pin(insert(connection))).await });
    stand.gate.fallen().await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    stand.gate.open();
    stand.rows_become(1).await;

    // Gone in the middle of the work.
    let (started, is_started) = oneshot::channel();
    let (go_on, goes_on) = oneshot::channel::<()>();
    let owner = database.clone();
    let caller = tokio::spawn(async move {
        owner
            .unit::<_, DbError, _>(|connection| {
                Box::pin(async move {
                    insert(connection).await?;
                    started.send(()).unwrap();
                    goes_on.await.unwrap();
                    insert(connection).await
                })
            })
            .await
    });
    is_started.await.unwrap();
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(stand.rows(), 1, "half of a unit is never seen");
    go_on.send(()).unwrap();
    stand.rows_become(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l8_a_unit_that_fails_or_panics_leaves_nothing() {
    let stand = Stand::new().await;
    let database = stand.database().await;
    let failed = database
        .unit::<(), DbError, _>(|connection| {
            Box::pin(async move {
                insert(connection).await?;
                Err(DbError::NotOneRow { what: "a test", found: 0 })
            })
        })
        .await;
    assert!(matches!(failed, Err(DbError::NotOneRow { .. })));
    let owner = database.clone();
    let panicked = tokio::spawn(async move {
        owner
            .unit::<(), DbError, _>(|connection| {
                Box::pin(async move {
                    insert(connection).await?;
                    panic!("in the middle");
                })
            })
            .await
    });
    assert!(panicked.await.unwrap_err().is_panic(), "a bug is not hidden");
    // The connection is sound and serves the next one.
    database.unit::<_, DbError, _>(|connection| Box::pin(insert(connection))).await.unwrap();
    assert_eq!(stand.rows(), 1);
}

#[tokio::test]
async fn y1_f4_a_connection_that_is_cut_fails_whole_and_is_replaced() {
    let stand = Stand::new().await;
    let database = stand.database().await;
    let cut = database
        .unit::<(), DbError, _>(|connection| {
            Box::pin(async move {
                insert(connection).await?;
                sqlx::query("select pg_terminate_backend(pg_backend_pid())").execute(&mut *connection).await?;
                insert(connection).await
            })
        })
        .await;
    let error = cut.unwrap_err();
    assert_eq!(error.disposition(), amanatd::units::Disposition::Retry, "{error:?}");
    assert_eq!(stand.rows(), 0);
    database.unit::<_, DbError, _>(|connection| Box::pin(insert(connection))).await.unwrap();
    assert_eq!(stand.rows(), 1);
}

#[tokio::test]
async fn y1_time_limits_are_on_the_server() {
    let stand = Stand::new().await;
    let database = stand.database().await;
    let mut connection = database.connection().await.unwrap();
    for (setting, value) in [("idle_in_transaction_session_timeout", "15s"), ("statement_timeout", "30s"), ("lock_timeout", "10s")] {
        let found: String = sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut *connection).await.unwrap();
        assert_eq!(found, value, "{setting}");
    }
}

// === the lease ===

/// A lease that was let go is free as soon as the server has seen the connection end.
async fn take_soon(url: &str) -> Leases {
    let started = Instant::now();
    loop {
        match Leases::take(url, LeaseName::House, "test").await {
            Ok((leases, _)) => return leases,
            Err(LeaseError::Held(_)) => assert!(started.elapsed() < PATIENCE, "the lease is never free"),
            Err(error) => panic!("{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn y3_one_instance_holds_the_lease() {
    let (base, other) = (FreshDatabase::create().unwrap(), FreshDatabase::create().unwrap());
    let url = base.url(APP);
    let (mut first, _) = Leases::take(&url, LeaseName::House, "test").await.unwrap();
    for _ in 0..3 {
        assert!(matches!(Leases::take(&url, LeaseName::House, "test").await, Err(LeaseError::Held(_))));
    }
    first.check(PATIENCE).await.unwrap();
    // A lease is of one database.
    Leases::take(&other.url(APP), LeaseName::House, "test").await.unwrap().0.check(PATIENCE).await.unwrap();
    drop(first);
    let mut second = take_soon(&url).await;
    assert!(matches!(Leases::take(&url, LeaseName::House, "test").await, Err(LeaseError::Held(_))));
    second.check(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn y3_of_many_at_once_one_gets_the_lease() {
    let base = FreshDatabase::create().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let url = base.url(APP);
        tasks.spawn(async move { Leases::take(&url, LeaseName::House, "test").await });
    }
    let taken: Vec<_> = tasks.join_all().await;
    assert_eq!(taken.iter().filter(|lease| lease.is_ok()).count(), 1);
    assert!(taken.iter().all(|lease| matches!(lease, Ok(_) | Err(LeaseError::Held(_)))), "{taken:?}");
}

#[tokio::test]
async fn y3_a_holder_whose_connection_dies_knows_and_another_may_follow() {
    let base = FreshDatabase::create().unwrap();
    let url = base.url(APP);
    let (mut first, _) = Leases::take(&url, LeaseName::House, "test").await.unwrap();
    base.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'amanatd lease' and datname = current_database()",
    )
    .unwrap();
    let mut second = take_soon(&url).await;
    assert!(matches!(first.check(PATIENCE).await, Err(LeaseError::Lost(_))));
    second.check(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_database_that_is_not_there_is_told_by_its_cause() {
    let nowhere = std::env::temp_dir().join(format!("amanatd-no-server-{}", std::process::id()));
    let url = format!("postgres://{APP}:canary-password@localhost/amanat?host={}", nowhere.display());
    let error = Database::connect(&url, DatabaseLimits::default()).await.unwrap_err();
    assert!(matches!(error, DbError::Connect(sqlx::Error::Io(_))), "{error:?}");
    assert!(matches!(Leases::take(&url, LeaseName::House, "test").await, Err(LeaseError::Connect(_))));
    let place = amanatd::db::place_of(&url);
    assert!(place.contains(&nowhere.display().to_string()) && place.contains(APP) && !place.contains("canary"), "{place}");
}
