//! Migrations over a living database: each is applied over sample rows of all before it, and what brings
//! a database up to date can be run again without a change.
//!
//! A binary of its own with a cluster of its own: roles belong to a cluster.

#![allow(clippy::unwrap_used, reason = "in a test, an unwrap is an assertion")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use amanatd::db;
use amanatd::devkit::postgres::{self, APP, MIGRATOR, PrivatePostgres, SUPERUSER};
use amanatd::devkit::schema::BOOTSTRAP;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Numbered files of a folder, by their number.
fn numbered(folder: &str) -> BTreeMap<u32, PathBuf> {
    fs::read_dir(root().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
        .filter_map(|path| Some((path.file_name()?.to_str()?.get(..4)?.parse().ok()?, path)))
        .collect()
}

async fn connect(cluster: &PrivatePostgres, role: &str, database: &str) -> PgConnection {
    PgConnection::connect(&cluster.url(role, database)).await.unwrap()
}

async fn run(connection: &mut PgConnection, statements: &str, what: &Path) {
    let mut transaction = connection.begin().await.unwrap();
    let outcome = transaction.execute(sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))).await;
    outcome.unwrap_or_else(|error| panic!("{}: {error}", what.display()));
    transaction.commit().await.unwrap();
}

/// One at a time: two superusers who alter one role at the same instant meet in the catalog.
fn bootstrap(cluster: &PrivatePostgres, database: &str) {
    static ALTERS_ROLES: Mutex<()> = Mutex::new(());
    let _alone = ALTERS_ROLES.lock().unwrap_or_else(PoisonError::into_inner);
    cluster.sql(database, BOOTSTRAP).unwrap();
}

/// A database with the roles and nothing else.
fn empty(database: &str) -> &'static PrivatePostgres {
    let cluster = postgres::shared().unwrap();
    cluster.create_database(database).unwrap();
    bootstrap(cluster, database);
    cluster
}

/// Every row of every table but the migrations' own, as text.
fn dump(cluster: &PrivatePostgres, database: &str) -> String {
    let sql = "select string_agg(table_name || query_to_xml(format('select * from %I order by 1', table_name), true, false, '')::text, '' \
         order by table_name) from information_schema.tables where table_schema = 'public' and table_name <> '_sqlx_migrations'";
    cluster.sql(database, sql).unwrap()
}

/// Everything a schema is made of.
fn schema(cluster: &PrivatePostgres, database: &str) -> String {
    let parts = [
        "select table_name, column_name, ordinal_position, column_default, is_nullable, data_type, domain_name, udt_name, is_generated, \
         generation_expression from information_schema.columns where table_schema = 'public' and table_name <> '_sqlx_migrations' order by 1, 3",
        "select conrelid::regclass, conname, pg_get_constraintdef(oid) from pg_constraint where connamespace = 'public'::regnamespace \
         and conrelid is distinct from to_regclass('_sqlx_migrations') order by conrelid::regclass::text, conname",
        "select tablename, indexdef from pg_indexes where schemaname = 'public' and tablename <> '_sqlx_migrations' order by 1, 2",
        "select tgrelid::regclass, tgenabled, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal order by tgrelid::regclass::text, tgname",
        "select pg_get_functiondef(oid), proacl from pg_proc where pronamespace = 'public'::regnamespace order by proname",
        "select relname, relowner::regrole, relacl from pg_class where relnamespace = 'public'::regnamespace and relname not like '\\_sqlx%' order by 1",
        "select attrelid::regclass, attname, attacl from pg_attribute where attacl is not null and attrelid::regclass::text !~ '^(pg_|information)' \
         order by attrelid::regclass::text, attname",
    ];
    parts.map(|sql| cluster.sql(database, sql).unwrap()).join("\n")
}

/// Puts a file's rows in, each part as the role that would.
async fn insert_samples(cluster: &PrivatePostgres, database: &str, file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    for part in text.split("-- as ").skip(1) {
        let (role, statements) = part.split_once('\n').unwrap();
        let mut connection = match role {
            APP => connect(cluster, APP, database).await,
            "amanat_owner" => {
                let mut connection = connect(cluster, MIGRATOR, database).await;
                connection.execute("set role amanat_owner").await.unwrap();
                connection
            }
            other => panic!("{}: nobody inserts as {other}", file.display()),
        };
        run(&mut connection, statements, file).await;
    }
}

#[tokio::test]
async fn each_migration_applies_over_the_rows_of_those_before_it() {
    let database = "grown";
    let cluster = empty(database);
    let (migrations, samples) = (numbered("migrations"), numbered("tests/data/migrations"));
    assert_eq!(migrations.keys().collect::<Vec<_>>(), samples.keys().collect::<Vec<_>>(), "each migration has its sample rows");
    assert!(migrations.len() >= 11);
    for (number, migration) in &migrations {
        let before = dump(cluster, database);
        let mut owner = connect(cluster, MIGRATOR, database).await;
        owner.execute("set role amanat_owner").await.unwrap();
        run(&mut owner, &fs::read_to_string(migration).unwrap(), migration).await;
        // A new table is new; no row of another one was lost.
        let count = |text: &str| text.matches("<row").count();
        assert!(count(&dump(cluster, database)) >= count(&before), "{} takes rows away", migration.display());
        insert_samples(cluster, database, &samples[number]).await;
    }
    let tables = "select table_name from information_schema.tables where table_schema = 'public' order by 1";
    for table in cluster.sql(database, tables).unwrap().lines() {
        let rows = cluster.sql(database, &format!("select count(*) from {table}")).unwrap();
        assert_ne!(rows.trim(), "0", "{table} has no sample row");
    }
    // The ledger is sound with them.
    let overdrawn = "select count(*) from ledger_balances b join ledger_accounts a on a.id = b.account_id \
         where b.balance <> (select coalesce(sum(case when (e.debit_account_id = a.id) = a.debit_normal then e.amount_units::numeric \
         else -e.amount_units::numeric end), 0) from funds_ledger_entries e where a.id in (e.debit_account_id, e.credit_account_id))";
    assert_eq!(cluster.sql(database, overdrawn).unwrap().trim(), "0");

    // What was held and asked for before there were orders is an order now: all of it reserved, for its seller, to be
    // screened, and nothing of it is held twice.
    let ordered = "select y.kind || ' ' || y.state || ' ' || y.net_units || ' ' || encode(y.to_address, 'hex') || ' ' || \
             (select b.balance from ledger_accounts a join ledger_balances b on b.account_id = a.id \
              where a.payment_id = y.payment_id and a.kind = 'payable') || ' ' || \
             (select b.balance from ledger_accounts a join ledger_balances b on b.account_id = a.id \
              where a.payment_id = y.payment_id and a.kind = 'held') || ' ' || p.escrow_state || ' ' || \
             (select count(*) from funds_ledger_entries e where e.idempotency_key = y.reservation_key) || ' ' || \
             (select count(*) from recipient_screenings s where s.payment_id = y.payment_id and s.address = y.to_address) \
         from payment_payouts y join payments p on p.id = y.payment_id where y.payment_id = '01900000-0000-7000-8000-000000000044'";
    let seller = "68".repeat(20);
    assert_eq!(cluster.sql(database, ordered).unwrap().trim(), format!("release ordered 10000000 {seller} 10000000 0 releasable 1 1"));

    // Grown step by step or made at once, it is the same schema.
    empty("at_once");
    db::migrate(&cluster.url(MIGRATOR, "at_once")).await.unwrap();
    let (grown, at_once) = (schema(cluster, database), schema(cluster, "at_once"));
    let differing: Vec<_> = grown.lines().zip(at_once.lines()).filter(|(grown, at_once)| grown != at_once).take(3).collect();
    assert!(grown == at_once, "{differing:?}");
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = "twice";
    let cluster = empty(database);
    let url = cluster.url(MIGRATOR, database);
    let count = db::migrate(&url).await.unwrap();
    assert_eq!(count, numbered("migrations").len());
    for sample in numbered("tests/data/migrations").values() {
        insert_samples(cluster, database, sample).await;
    }
    let applied = || cluster.sql(database, "select * from _sqlx_migrations order by version").unwrap();
    let before = (schema(cluster, database), dump(cluster, database), applied());
    for _ in 0..2 {
        assert_eq!(db::migrate(&url).await.unwrap(), count);
        assert_eq!((schema(cluster, database), dump(cluster, database), applied()), before);
    }
    let mut app = connect(cluster, APP, database).await;
    db::self_test(&mut app).await.unwrap();
}

#[tokio::test]
async fn the_bootstrap_can_be_repeated() {
    let database = "again";
    let cluster = empty(database);
    db::migrate(&cluster.url(MIGRATOR, database)).await.unwrap();
    let state = || {
        let roles = "select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls \
             from pg_roles where rolname like 'amanat%' order by 1";
        let members = "select roleid::regrole, member::regrole, admin_option from pg_auth_members where roleid::regrole::text like 'amanat%' order by 1, 2";
        let settings = "select setrole::regrole, setconfig from pg_db_role_setting order by setrole::regrole::text";
        let owner = format!("select datdba::regrole, datacl from pg_database where datname = '{database}'");
        [roles, members, settings, &owner].map(|sql| cluster.sql(database, sql).unwrap()).join("\n") + &schema(cluster, database)
    };
    let before = state();
    for role in ["amanat_owner|f|t|f|f|f", "amanat_app|f|f|f|f|t", "amanat_migrator|f|f|f|f|t", "amanat_readonly|f|f|f|f|t"] {
        assert!(before.contains(role), "{role} in {before:.400}");
    }
    for _ in 0..2 {
        bootstrap(cluster, database);
        assert_eq!(state(), before);
    }
}

#[tokio::test]
async fn only_who_may_become_the_owner_migrates() {
    let database = "refused";
    let cluster = empty(database);
    let error = db::migrate(&cluster.url(APP, database)).await.unwrap_err();
    assert!(matches!(error, db::MigrateError::Role(_)), "{error:?}");
    let tables = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(cluster.sql(database, tables).unwrap().trim(), "0");
    // A superuser migrates as the owner too: nothing belongs to the superuser afterwards.
    db::migrate(&cluster.url(SUPERUSER, database)).await.unwrap();
    let foreign = "select count(*) from pg_class where relnamespace = 'public'::regnamespace and relowner::regrole::text <> 'amanat_owner'";
    assert_eq!(cluster.sql(database, foreign).unwrap().trim(), "0");
}
