//! The database server is killed under writers, with the durability it has in production: nothing that was
//! acknowledged is lost, and nothing is there twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use amanatd::db::{Database, DatabaseLimits};
use amanatd::devkit::postgres::{APP, PostgresOptions, PrivatePostgres};
use amanatd::devkit::schema;
use amanatd::ledger::{self, LedgerError};
use amanatd::units::PaymentId;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::ledger::{detected, post, units};

const KILLS: u32 = 5;
const WRITERS: u64 = 4;

/// What the writers were told.
#[derive(Default)]
struct Told {
    acknowledged: std::sync::Mutex<BTreeSet<String>>,
    /// The outcome of the commit is unknown: by the key it is found out.
    unknown: std::sync::Mutex<BTreeSet<String>>,
    posted: AtomicU64,
    stop: AtomicBool,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn y1_five_kills_of_postgres_lose_nothing_that_was_acknowledged() {
    let mut cluster = PrivatePostgres::start(PostgresOptions { directory: None, durable: true }).unwrap();
    cluster.create_database("amanat").unwrap();
    schema::install(&cluster, "amanat").unwrap();
    let payment = PaymentId(Uuid::from_u128(1));
    let insert = format!(
        "insert into payments (id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at) \
         values ('{payment}', 1, 'USDC', 31337, decode(repeat('55', 20), 'hex'), 'USDC', 6, 1, decode(repeat('66', 20), 'hex'), now())"
    );
    cluster.sql("amanat", &insert).unwrap();
    let limits = DatabaseLimits { connections_max: 8, acquire_timeout: Duration::from_secs(2) };
    let db = Database::connect(&cluster.url(APP, "amanat"), limits).await.unwrap();
    let told = Arc::new(Told::default());
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (db, told) = (db.clone(), Arc::clone(&told));
        writers.spawn(async move { write(&db, &told, payment, writer).await });
    }
    for _ in 0..KILLS {
        // Under load: so many more postings are through before the next kill.
        let target = told.posted.load(Ordering::Acquire) + 100;
        let loaded = async {
            while told.posted.load(Ordering::Acquire) < target {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), loaded).await.expect("the writers find the server again");
        cluster = tokio::task::spawn_blocking(move || {
            cluster.kill_and_restart().unwrap();
            cluster
        })
        .await
        .unwrap();
    }
    told.stop.store(true, Ordering::Release);
    writers.join_all().await;

    let (acknowledged, unknown) = (told.acknowledged.lock().unwrap().clone(), told.unknown.lock().unwrap().clone());
    let stored: BTreeSet<String> =
        cluster.sql("amanat", "select idempotency_key from funds_ledger_entries").unwrap().lines().map(str::to_owned).collect();
    let missing = acknowledged.difference(&stored).count();
    let committed = unknown.intersection(&stored).count();
    println!(
        "kills {KILLS}; acknowledged {}, missing {missing}; unknown outcomes {}, of which {committed} had committed",
        acknowledged.len(),
        unknown.len()
    );
    assert_eq!(missing, 0);
    assert!(acknowledged.len() > 500);
    let mut connection = db.connection().await.unwrap();
    assert_eq!(ledger::store::list_drifting(&mut connection).await.unwrap(), [], "L2: balances are those of the entries");
    drop(connection);
    // K5: an unknown outcome is found out by its key, and posting it again changes nothing or happens once.
    for key in unknown {
        let again = post(&db, vec![detected(payment, units(1), &key)]).await;
        match (stored.contains(&key), &again) {
            (true, Err(LedgerError::AlreadyPosted { .. })) | (false, Ok(())) => {}
            outcome => panic!("{key}: {outcome:?}"),
        }
    }
    let doubles = cluster.sql("amanat", "select count(*) - count(distinct idempotency_key) from funds_ledger_entries").unwrap();
    assert_eq!(doubles.trim(), "0");
    db.close().await;
}

/// Posts one entry after the other. One that was refused for want of a server is told apart from one whose
/// commit has no answer.
async fn write(db: &Database, told: &Told, payment: PaymentId, writer: u64) {
    let mut number = 0_u64;
    while !told.stop.load(Ordering::Acquire) {
        let key = format!("writer-{writer}-{number}");
        number += 1;
        match post(db, vec![detected(payment, units(1), &key)]).await {
            Ok(()) => {
                told.acknowledged.lock().unwrap().insert(key);
                told.posted.fetch_add(1, Ordering::AcqRel);
            }
            // The server may have gone in the middle of anything; only what was acknowledged is known.
            Err(_) => {
                told.unknown.lock().unwrap().insert(key);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}
