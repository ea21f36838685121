//! Posting to the ledger, with every trigger, index and balance on, against one transaction for each
//! entry, against a plain COPY of the same rows, and against the disk. With `--large` also in a ledger of ten
//! million entries, against a small one.
//!
//! The server is private, with the durability it has in production; the disk is measured in the same run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use alloy::primitives::{Address, B256, U256};
use amanatd::devkit::postgres::{APP, PostgresOptions, PrivatePostgres, SUPERUSER};
use amanatd::devkit::schema;
use amanatd::ledger::{AccountKey, Entry, EntryType, store};
use amanatd::units::{Asset, AssetId, ChainId, PaymentId, TokenAmount};
use pair::{Bench, Equal, Pair, Random, Side};
use probe::Probe;
use sqlx::{Connection, PgConnection, Row};
use tokio::runtime::Runtime;
use uuid::Uuid;

mod pair;
mod probe;

const SEED: u64 = 4;
const DATABASE: &str = "bench";
/// The ledger that has grown, and how far; `AMANATD_BENCH_ROWS` sets another number.
const GROWN: &str = "bench_grown";
const GROWN_ROWS: u64 = 10_000_000;
const GROWN_PAYMENTS: usize = 1_000_000;
/// Postings go to the youngest payments: a payment's money moves while it is open, and then no more.
const YOUNG: usize = 10_000;
/// Balances read for each call.
const READS: usize = 100;
/// Payments whose accounts are open before anything is timed.
const PAYMENTS: usize = 10_000;
const BATCH: usize = 1_000;
/// Entries for each call where every entry has a transaction of its own.
const SINGLES: usize = 20;

const COLUMNS: &str = "entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id, \
                       amount_units, asset_decimals, idempotency_key, memo";

fn main() {
    let bench = Bench::start("post");
    let cluster = PrivatePostgres::start(PostgresOptions { directory: None, durable: true }).expect("a private Postgres");
    cluster.create_database(DATABASE).expect("a database");
    schema::install(&cluster, DATABASE).expect("the schema");
    let probe = Probe::create(cluster.socket_folder());
    let holder = RefCell::new(Books::open(&cluster, DATABASE, PAYMENTS));
    let books = &holder;
    let setting = |name: &str| cluster.sql(DATABASE, &format!("show {name}")).map(|text| text.trim().to_owned()).expect("a setting");
    bench.note(&format!(
        "Postgres {}, fsync {}, synchronous_commit {}, shared_buffers {}, one connection over a unix socket",
        setting("server_version"),
        setting("fsync"),
        setting("synchronous_commit"),
        setting("shared_buffers"),
    ));
    bench.note(&format!("disk: 8 kB written and sync_data, median of 200: {}", pair::duration(probe.median())));
    bench.note(&format!(
        "seed {SEED}; a deposit's credit, from one of {PAYMENTS} custody accounts to its payment's account, both with a balance; \
         COPY: same columns, constraints, indexes and immutability triggers, but no balances, no account to find"
    ));

    let equal = prove(books);
    let own_transaction = "one transaction for each entry";
    let copy = "COPY, immutability triggers only";
    let ours = |size: usize| Side::measured(size, move || books.borrow_mut().post_known(size, size));
    let singles = || Side::measured(SINGLES, || books.borrow_mut().post_known(SINGLES, 1));
    let copied = |size: usize| Side::measured(size, move || books.borrow_mut().copy_known(size));
    let floor = "COPY into a bare table: no index, check or trigger";
    let bare = |size: usize| Side::measured(size, move || books.borrow_mut().copy_bare(size));

    bench.compare(
        &Pair { variant: "append, 1 entry", baseline: "8 kB write and sync_data", equal },
        ours(1),
        Side::measured(1, || probe.write()),
        None,
    );
    bench.compare(&Pair { variant: "append, 10 entries", baseline: own_transaction, equal }, ours(10), singles(), None);
    bench.compare(&Pair { variant: "append, 1,000 entries", baseline: own_transaction, equal }, ours(BATCH), singles(), None);
    bench.compare(&Pair { variant: "append, 1,000 entries", baseline: copy, equal }, ours(BATCH), copied(BATCH), None);
    bench.compare(&Pair { variant: "append, 1,000 entries", baseline: floor, equal }, ours(BATCH), bare(BATCH), None);
    bench.compare(
        &Pair { variant: "append, 1,000 entries, 2,000 accounts to open", baseline: copy, equal },
        Side::measured(BATCH, || books.borrow_mut().post_first(BATCH)),
        copied(BATCH),
        None,
    );
    bench.compare(
        &Pair { variant: "the commit of 1 entry, alone", baseline: "8 kB write and sync_data", equal },
        Side::measured(1, || books.borrow_mut().commit_one()),
        Side::measured(1, || probe.write()),
        None,
    );
    bench.compare(
        &Pair { variant: "balance read", baseline: "select 1 over the same connection", equal },
        Side::measured(READS, || books.borrow_mut().read_balances(READS)),
        Side::measured(READS, || books.borrow_mut().ask_nothing(READS)),
        None,
    );
    if pair::large() {
        let grown = RefCell::new(grow(&bench, &cluster));
        let grown = &grown;
        bench.compare(
            &Pair { variant: "append, 1,000 entries, into a grown ledger", baseline: "append, 1,000 entries, into a small one", equal },
            Side::measured(BATCH, || grown.borrow_mut().post_known(BATCH, BATCH)),
            ours(BATCH),
            None,
        );
        bench.compare(
            &Pair { variant: "append, 1,000 entries, into a grown ledger", baseline: copy, equal },
            Side::measured(BATCH, || grown.borrow_mut().post_known(BATCH, BATCH)),
            copied(BATCH),
            None,
        );
        bench.compare(
            &Pair {
                variant: "append, 1,000 entries of payments of any age, into a grown ledger",
                baseline: "append, 1,000 entries, into a small one",
                equal,
            },
            Side::measured(BATCH, || grown.borrow_mut().post_any(BATCH)),
            ours(BATCH),
            None,
        );
        bench.compare(
            &Pair { variant: "balance read in a grown ledger", baseline: "balance read in a small one", equal },
            Side::measured(READS, || grown.borrow_mut().read_balances(READS)),
            Side::measured(READS, || books.borrow_mut().read_balances(READS)),
            None,
        );
        let entries = grown.borrow_mut().entries();
        bench.note(&format!("the grown ledger has {} entries", pair::grouped(u128::from(entries))));
        bench.compare(&Pair { variant: "append, 10,000 entries", baseline: copy, equal }, ours(10_000), copied(10_000), None);
    }

    let mut books = holder.into_inner();
    let drifting = books.drifting();
    assert_eq!(drifting, 0, "balances differ from what their entries say");
    bench.note(&format!("afterwards: {} entries, every balance equals the sum of its entries", pair::grouped(u128::from(books.entries()))));
}

/// A ledger with its years behind it: through the posting trigger, with every index and every balance.
fn grow(bench: &Bench, cluster: &PrivatePostgres) -> Books {
    let rows = std::env::var("AMANATD_BENCH_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(GROWN_ROWS);
    cluster.create_database(GROWN).expect("a database");
    schema::install(cluster, GROWN).expect("the schema");
    let started = Instant::now();
    let mut books = Books::open(cluster, GROWN, GROWN_PAYMENTS);
    books.fill(rows);
    bench.note(&format!(
        "grown to {} entries of {GROWN_PAYMENTS} payments in {} s",
        pair::grouped(u128::from(rows)),
        started.elapsed().as_secs()
    ));
    books
}

/// The same entries through every door, compared row by row.
fn prove(books: &RefCell<Books>) -> Equal {
    let mut books = books.borrow_mut();
    let mut posted = Vec::new();
    for (entries, per_transaction) in [(BATCH, BATCH), (100, 10), (SINGLES, 1)] {
        let entries = books.known(entries);
        books.post(&entries, per_transaction);
        books.copy(&entries);
        posted.extend(entries.into_iter().map(|entry| entry.key));
    }
    posted.sort_unstable();
    let same = books.equal_keys(&posted);
    Equal::proved("entries", &same, &posted)
}

/// A database with payments in it, and both ways to write.
struct Books {
    runtime: Runtime,
    /// As the daemon connects.
    app: PgConnection,
    owner: PgConnection,
    random: Random,
    payments: Vec<(PaymentId, Address)>,
    /// Ids of the accounts of the payments above: custody, received.
    ids: BTreeMap<Address, (i64, i64)>,
    keys: u64,
    /// Payments so far.
    issued: u64,
}

impl Books {
    fn open(cluster: &PrivatePostgres, database: &str, payments: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let connect = |role| runtime.block_on(PgConnection::connect(&cluster.url(role, database))).expect("a connection");
        let (app, owner) = (connect(APP), connect(SUPERUSER));
        let mut books =
            Self { runtime, app, owner, random: Random::seeded(SEED), payments: Vec::new(), ids: BTreeMap::new(), keys: 0, issued: 0 };
        books.run(
            "create table entries_copied (like funds_ledger_entries including all);
             create table entries_bare as select * from entries_copied;
             create trigger no_update before update on entries_copied for each statement execute function forbid_change();
             create trigger no_delete before delete on entries_copied for each statement execute function forbid_change();
             create trigger no_truncate before truncate on entries_copied for each statement execute function forbid_change()",
        );
        books.payments = books.new_payments(payments);
        // Every account gets a first entry, so that it is open and has a balance.
        let payments = books.payments.clone();
        for some in payments.chunks(BATCH) {
            let entries: Vec<Entry> = some.iter().map(|payment| books.entry(*payment)).collect();
            books.post(&entries, BATCH);
        }
        books.ids = books.account_ids();
        books
    }

    fn run(&mut self, statements: &'static str) {
        self.runtime.block_on(sqlx::raw_sql(statements).execute(&mut self.owner)).expect("statements");
    }

    fn new_payments(&mut self, count: usize) -> Vec<(PaymentId, Address)> {
        // Ids grow with time, as those that the daemon gives; addresses are as derived ones, in no order.
        let payments: Vec<(PaymentId, Address)> = (0..count)
            .map(|_| {
                self.issued += 1;
                let id = (u128::from(self.issued) << 64) | u128::from_be_bytes(self.random.bytes::<16>()) >> 64;
                (PaymentId(Uuid::from_u128(id)), Address::from(self.random.bytes::<20>()))
            })
            .collect();
        let ids: Vec<Uuid> = payments.iter().map(|(payment, _)| payment.0).collect();
        let insert = sqlx::query(
            "insert into payments (id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at)
             select id, 10, 'USDC', 1, $2, 'USDC', 6, 10000000, $2, now() + '1 hour' from unnest($1::uuid[]) as id",
        );
        self.runtime.block_on(insert.bind(ids).bind(asset().asset.marker().to_vec()).execute(&mut self.owner)).expect("payments");
        payments
    }

    fn account_ids(&mut self) -> BTreeMap<Address, (i64, i64)> {
        let rows = self
            .runtime
            .block_on(
                sqlx::query(
                    "select c.address::bytea, e.debit_account_id, e.credit_account_id
                     from funds_ledger_entries e join ledger_accounts c on c.id = e.debit_account_id",
                )
                .fetch_all(&mut self.owner),
            )
            .expect("accounts");
        rows.iter().map(|row| (Address::from_slice(row.get::<&[u8], _>(0)), (row.get(1), row.get(2)))).collect()
    }

    /// Credits of the same accounts, made by the server, until there are so many entries: each payment's own stand
    /// together, in the order of the payments.
    fn fill(&mut self, rows: u64) {
        const STEP: u64 = 50_000;
        while self.keys + STEP <= rows {
            let statement = sqlx::query(
                "insert into funds_ledger_entries (entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id,
                     credit_account_id, amount_units, asset_decimals, idempotency_key, memo)
                 select 'payment_detected', 'entity', e.payment_id, e.chain_id, e.asset, e.debit_account_id, e.credit_account_id,
                     1 + n % 1000, 6, 'verdict:' || n || ':credit', 'deposit confirmed, tx 0x' || md5(n::text) || md5((n + 1)::text)
                 from generate_series($1::bigint + 1, $1 + $2) n
                 join funds_ledger_entries e on e.id = 1 + (n - 1) * $3 / $4",
            );
            let bound = statement
                .bind(self.keys.cast_signed())
                .bind(STEP.cast_signed())
                .bind(i64::try_from(self.payments.len()).expect("payments in memory"))
                .bind(rows.cast_signed());
            let written = self.runtime.block_on(bound.execute(&mut self.owner)).expect("rows");
            assert_eq!(written.rows_affected(), STEP);
            self.keys += STEP;
        }
        self.run("analyze");
        self.run("checkpoint");
    }

    /// The commit alone: what a caller waits for after the last statement.
    fn commit_one(&mut self) -> Duration {
        let entries = self.known(1);
        let app = &mut self.app;
        self.runtime.block_on(async {
            let mut transaction = app.begin().await.expect("a transaction");
            store::append(&mut transaction, &entries).await.expect("good entries");
            let started = Instant::now();
            transaction.commit().await.expect("a commit");
            started.elapsed()
        })
    }

    fn read_balances(&mut self, count: usize) -> Duration {
        let keys: Vec<AccountKey> = self.known(count).into_iter().map(|entry| entry.credit).collect();
        let app = &mut self.app;
        self.runtime.block_on(async {
            let started = Instant::now();
            for key in keys {
                let balance = store::balance(app, asset(), key).await.expect("a balance");
                assert!(!balance.units.is_zero());
            }
            started.elapsed()
        })
    }

    fn ask_nothing(&mut self, count: usize) -> Duration {
        let app = &mut self.app;
        self.runtime.block_on(async {
            let started = Instant::now();
            for _ in 0..count {
                sqlx::query_scalar::<_, i32>("select 1").fetch_one(&mut *app).await.expect("an answer");
            }
            started.elapsed()
        })
    }

    /// Credits of payments whose accounts are open.
    fn known(&mut self, count: usize) -> Vec<Entry> {
        self.among(YOUNG, count)
    }

    /// Credits of some of the youngest payments.
    fn among(&mut self, youngest: usize, count: usize) -> Vec<Entry> {
        let oldest = self.payments.len().saturating_sub(youngest);
        (0..count)
            .map(|_| {
                let place = self.random.below((self.payments.len() - oldest) as u64);
                let payment = self.payments[oldest + usize::try_from(place).expect("a place in memory")];
                self.entry(payment)
            })
            .collect()
    }

    fn post_any(&mut self, count: usize) -> Duration {
        let entries = self.among(usize::MAX, count);
        self.post(&entries, count)
    }

    fn entry(&mut self, (payment, address): (PaymentId, Address)) -> Entry {
        self.keys += 1;
        Entry {
            entry_type: EntryType::PaymentDetected,
            payment: Some(payment),
            amount: TokenAmount::new(asset(), U256::from(1 + self.random.below(1_000_000_000))),
            decimals: 6,
            debit: AccountKey::Custody(address),
            credit: AccountKey::Received(payment),
            reverses: None,
            key: format!("verdict:{}:credit", self.keys),
            memo: format!("deposit confirmed, tx {}", B256::from(self.random.bytes::<32>())),
        }
    }

    /// Through the store, as the daemon does it.
    fn post(&mut self, entries: &[Entry], per_transaction: usize) -> Duration {
        let app = &mut self.app;
        self.runtime.block_on(async {
            let started = Instant::now();
            for some in entries.chunks(per_transaction) {
                let mut transaction = app.begin().await.expect("a transaction");
                store::append(&mut transaction, some).await.expect("good entries");
                transaction.commit().await.expect("a commit");
            }
            started.elapsed()
        })
    }

    fn post_known(&mut self, count: usize, per_transaction: usize) -> Duration {
        let entries = self.known(count);
        self.post(&entries, per_transaction)
    }

    /// Credits that are the first of their payments.
    fn post_first(&mut self, count: usize) -> Duration {
        let payments = self.new_payments(count);
        let entries: Vec<Entry> = payments.into_iter().map(|payment| self.entry(payment)).collect();
        self.post(&entries, count)
    }

    /// The rows as text are ready before the clock starts: only the server's work counts.
    fn copy(&mut self, entries: &[Entry]) -> Duration {
        self.copy_into("entries_copied", entries)
    }

    fn copy_bare(&mut self, count: usize) -> Duration {
        let entries = self.known(count);
        self.copy_into("entries_bare", &entries)
    }

    fn copy_into(&mut self, table: &str, entries: &[Entry]) -> Duration {
        let mut text = String::new();
        for entry in entries {
            let (debit, credit) = self.ids[&entry.debit.address().expect("a custody account")];
            let payment = entry.payment.expect("a payment").0;
            let (asset, units) = (entry.amount.asset, entry.amount.units);
            writeln!(
                text,
                "{}\tentity\t{payment}\t{}\t\\\\x{:x}\t{debit}\t{credit}\t{units}\t{}\t{}\t{}",
                entry.entry_type.name(),
                asset.chain.get(),
                asset.asset.marker(),
                entry.decimals,
                entry.key,
                entry.memo,
            )
            .expect("memory");
        }
        let owner = &mut self.owner;
        self.runtime.block_on(async {
            let started = Instant::now();
            let mut copy = owner.copy_in_raw(&format!("copy {table} ({COLUMNS}) from stdin")).await.expect("a copy");
            copy.send(text.as_bytes()).await.expect("rows");
            let rows = copy.finish().await.expect("rows");
            let took = started.elapsed();
            assert_eq!(rows, entries.len() as u64);
            took
        })
    }

    fn copy_known(&mut self, count: usize) -> Duration {
        let entries = self.known(count);
        self.copy(&entries)
    }

    /// Keys whose rows are the same in both tables, of those asked for.
    fn equal_keys(&mut self, keys: &[String]) -> Vec<String> {
        let query = sqlx::query_scalar(
            "select p.idempotency_key from funds_ledger_entries p join entries_copied c using (
                 idempotency_key, entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id,
                 amount_units, asset_decimals, amount, memo
             ) where p.idempotency_key = any ($1) order by p.idempotency_key collate \"C\"",
        );
        self.runtime.block_on(query.bind(keys).fetch_all(&mut self.owner)).expect("keys")
    }

    fn drifting(&mut self) -> usize {
        self.runtime.block_on(store::list_drifting(&mut self.owner)).expect("accounts").len()
    }

    fn entries(&mut self) -> u64 {
        let count: i64 = self
            .runtime
            .block_on(sqlx::query_scalar("select count(*) from funds_ledger_entries").fetch_one(&mut self.owner))
            .expect("a count");
        count.unsigned_abs()
    }
}

fn asset() -> AssetId {
    AssetId { chain: ChainId::new(1).expect("not zero"), asset: Asset::Token(Address::repeat_byte(0xa0)) }
}
