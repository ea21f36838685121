//! The daemon killed with SIGKILL at every boundary of the watcher: in each request that finds or decides,
//! in front of each table that a unit of work writes, and on both sides of each commit.
//!
//! The database itself holds the daemon still at the boundary: a trigger waits for a lock that the test
//! has. The daemon dies there, its connection is ended or let go on, and the next daemon takes over. At
//! the end the books must be those of a daemon that nobody disturbed (FP1, FP2, FP3, FP16).

use std::collections::BTreeSet;
use std::time::Duration;

use alloy::primitives::B256;
use amanatd::devkit::postgres::{APP, SUPERUSER};
use amanatd::scan::{Position, ScanOptions};
use amanatd::units::{BlockNumber, PaymentId, Progress};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::books;
use super::daemon::{Daemon as Twin, Ground, book_of, draft, node_of, spec_of};
use crate::process::{Daemon, Place, until};
use crate::scripted::{Pay, Reply, ScriptedNode, Tx};
use crate::watching::{CHAIN, NOW};

const THRESHOLD: u64 = 3;
const DUE: u64 = 100;

/// What happens on the chain when the daemon is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum During {
    /// A payment comes, and is deep enough.
    Payment,
    /// A credited payment moves into another block.
    Reorg,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// While it waits for an answer.
    Request(&'static str),
    /// Before a row of this table is written: nothing of the unit may stay.
    Write(&'static str, &'static str),
    /// All is written and the commit asked for. It does not come about.
    LostCommit(&'static str, &'static str),
    /// The same, and the commit comes about after the daemon is dead.
    LandedCommit(&'static str, &'static str),
}

const ANY: &str = "true";
const CREDIT: &str = "new.gate = 'credit' and new.revoked_at is null";
const REVERSAL: &str = "new.entry_type = 'reversal'";
const ORPHANED: &str = "new.state = 'orphaned'";

/// Where the daemon dies: FP1 the requests, FP2 the scanner's round, FP3 verdict and credit, FP16 the
/// reversal.
const BOUNDARIES: [(During, At); 26] = [
    (During::Payment, At::Request("eth_getLogs")),
    (During::Payment, At::Request("eth_getTransactionReceipt")),
    (During::Payment, At::Write("chain_blocks", ANY)),
    (During::Payment, At::Write("transfers", ANY)),
    (During::Payment, At::Write("transfer_observations", ANY)),
    (During::Payment, At::Write("chain_cursors", ANY)),
    (During::Payment, At::LostCommit("transfer_observations", ANY)),
    (During::Payment, At::LandedCommit("transfer_observations", ANY)),
    (During::Payment, At::Write("transfer_verdicts", CREDIT)),
    (During::Payment, At::LostCommit("transfer_verdicts", CREDIT)),
    (During::Payment, At::LandedCommit("transfer_verdicts", CREDIT)),
    (During::Payment, At::Write("funds_ledger_entries", ANY)),
    (During::Payment, At::Write("payments", ANY)),
    (During::Payment, At::Write("ledger_cursors", ANY)),
    (During::Payment, At::LostCommit("funds_ledger_entries", ANY)),
    (During::Payment, At::LandedCommit("funds_ledger_entries", ANY)),
    (During::Reorg, At::Write("chain_blocks", ORPHANED)),
    (During::Reorg, At::Write("transfer_observations", ORPHANED)),
    (During::Reorg, At::LostCommit("transfer_observations", ORPHANED)),
    (During::Reorg, At::LandedCommit("transfer_observations", ORPHANED)),
    (During::Reorg, At::Write("funds_ledger_entries", REVERSAL)),
    (During::Reorg, At::Write("transfer_verdicts", "new.revoked_at is not null")),
    (During::Reorg, At::Write("derived_destinations", ANY)),
    (During::Reorg, At::LostCommit("funds_ledger_entries", REVERSAL)),
    (During::Reorg, At::LandedCommit("funds_ledger_entries", REVERSAL)),
    (During::Reorg, At::Request("eth_getBlockByHash")),
];

/// Any number that no lock of the daemon has.
const LOCK: i64 = 424_242;

struct Scene {
    ground: Ground,
    node: ScriptedNode,
    place: Place,
    superuser: PgConnection,
    daemon: Option<Daemon>,
    lives: u32,
    payments: u64,
    /// The block from which the daemon reads.
    first: u64,
}

#[tokio::test]
async fn w4_w5_s2_a_daemon_killed_at_any_boundary_loses_and_doubles_nothing() {
    let mut scene = Scene::open().await;
    for (during, at) in BOUNDARIES {
        scene.die(during, at).await;
    }
    scene.assert_as_undisturbed().await;
}

impl Scene {
    async fn open() -> Self {
        let ground = Ground::new().await;
        ground.open(CHAIN, THRESHOLD).await;
        let node = ScriptedNode::start().await;
        node.model(|model| model.mine_empty(5));
        let first = 5;
        let place = Place::new();
        place.configure(&ground.live.database.url(APP), &node.url());
        let superuser = PgConnection::connect(&ground.live.database.url(SUPERUSER)).await.unwrap();
        let mut scene = Self { ground, node, place, superuser, daemon: None, lives: 0, payments: 0, first };
        let stop = "create function stop_here() returns trigger language plpgsql as $$ \
             begin perform pg_advisory_xact_lock(424242); return new; end $$";
        scene.sql(stop).await;
        scene.start().await;
        scene
    }

    async fn sql(&mut self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.superuser).await.unwrap();
    }

    /// A new daemon, and the chain is read.
    async fn start(&mut self) {
        self.lives += 1;
        self.daemon = Some(self.place.serve(&format!("log-{}", self.lives)));
        self.settled().await;
    }

    /// Until the books hold what the chain as it is now pays.
    async fn settled(&mut self) {
        let (head, expected) = (self.node.model(|model| model.head()), self.due());
        let db = self.ground.live.db.clone();
        let done = async |_: &Daemon| {
            let read = books::tip(&db, CHAIN).await.is_some_and(|tip| tip.hash == head.hash);
            let credits: BTreeSet<_> = books::credits(&db, CHAIN).await.into_iter().collect();
            read && credits == expected && nothing_broken(&db).await
        };
        until(self.daemon.as_mut().unwrap(), "the books say what the chain says", done).await;
        books::assert_sound(&db, CHAIN).await;
    }

    /// Every transfer of the chain is to us, so those that are deep enough are the credits.
    fn due(&self) -> BTreeSet<(B256, Position, B256)> {
        self.node.model(|model| {
            let deep = model.line().len() - usize::try_from(THRESHOLD).unwrap() + 1;
            let first = usize::try_from(self.first).unwrap();
            let blocks = &model.line()[first.min(deep)..deep];
            blocks
                .iter()
                .flat_map(|block| model.moved_in(*block).into_iter().map(|moved| (moved.tx_hash, moved.position, *block)))
                .collect()
        })
    }

    /// One life, up to the boundary and over it.
    async fn die(&mut self, during: During, at: At) {
        let payment = self.ask_payment().await;
        if during == During::Reorg {
            self.pay(payment);
            self.settled().await;
        }
        self.arm(at).await;
        match during {
            During::Payment => self.pay(payment),
            During::Reorg => self.reorg(payment),
        }
        match at {
            At::Request(method) => {
                let node = &self.node;
                let asked = async |_: &Daemon| node.faults().contains_key("silence");
                until(self.daemon.as_mut().unwrap(), &format!("it asks {method}"), asked).await;
                self.daemon.take().unwrap().kill();
                self.node.heal();
                self.node.forget_faults();
            }
            At::Write(table, _) | At::LostCommit(table, _) => {
                let waiting = self.stopped(table, at).await;
                self.daemon.take().unwrap().kill();
                self.sql(&format!("select pg_terminate_backend({waiting})")).await;
                self.let_go(waiting, table).await;
            }
            At::LandedCommit(table, _) => {
                let waiting = self.stopped(table, at).await;
                self.daemon.take().unwrap().kill();
                self.let_go(waiting, table).await;
            }
        }
        books::assert_sound(&self.ground.live.db, CHAIN).await;
        self.start().await;
    }

    async fn arm(&mut self, at: At) {
        match at {
            At::Request(method) => self.node.spoil(method, Reply::Silence),
            At::Write(table, when) => {
                self.sql(&format!("select pg_advisory_lock({LOCK})")).await;
                self.sql(&format!(
                    "create trigger stop_here before insert or update on {table} for each row when ({when}) execute function stop_here()"
                ))
                .await;
            }
            At::LostCommit(table, when) | At::LandedCommit(table, when) => {
                self.sql(&format!("select pg_advisory_lock({LOCK})")).await;
                self.sql(&format!(
                    "create constraint trigger stop_here after insert or update on {table} deferrable initially deferred \
                     for each row when ({when}) execute function stop_here()"
                ))
                .await;
            }
        }
    }

    /// The server process in which the daemon has come to the boundary.
    async fn stopped(&mut self, table: &str, at: At) -> i32 {
        let url = self.ground.live.database.url(SUPERUSER);
        let waiting = async || {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let statement = "select l.pid from pg_locks l join pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' \
                 and not l.granted and l.objid = 424242 and a.datname = current_database()";
            sqlx::query_scalar::<_, i32>(statement).fetch_optional(&mut connection).await.unwrap()
        };
        let mut found = None;
        until(self.daemon.as_mut().unwrap(), &format!("it comes to {table}: {at:?}"), async |_| {
            found = waiting().await;
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Takes the obstacle away, and waits for what is left of the daemon's connection.
    async fn let_go(&mut self, waiting: i32, table: &str) {
        self.sql(&format!("select pg_advisory_unlock({LOCK})")).await;
        for _ in 0..1_000 {
            let alive = "select count(*) from pg_stat_activity where pid = $1";
            let alive: i64 = sqlx::query_scalar(alive).bind(waiting).fetch_one(&mut self.superuser).await.unwrap();
            if alive == 0 {
                self.sql(&format!("drop trigger stop_here on {table}")).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the connection of the dead daemon does not end");
    }

    // === the chain ===

    async fn ask_payment(&mut self) -> Pay {
        self.payments += 1;
        let (spec, birth) = (spec_of(CHAIN, 200), self.node.model(|model| model.head().number));
        let expires_at = OffsetDateTime::from_unix_timestamp(1_800_100_000).unwrap();
        let payment = draft(&book_of(&spec), &spec, DUE, expires_at);
        let id = PaymentId(Uuid::from_u128(self.payments.into()));
        let to = self.ground.ask_payment(id, &payment, birth).await;
        Pay { tx: self.payments, token: Some(spec.tokens[0].contract), to, value: DUE }
    }

    fn pay(&self, payment: Pay) {
        self.node.model(|model| {
            model.mine_txs(vec![Tx::from(payment)]);
            model.mine_empty(THRESHOLD - 1);
        });
    }

    /// The same transaction, one block higher.
    fn reorg(&self, payment: Pay) {
        self.node.model(|model| {
            model.cut(THRESHOLD);
            model.mine_empty(1);
            model.mine_txs(vec![Tx::from(payment)]);
            model.mine_empty(THRESHOLD - 1);
        });
    }

    // === the reckoning ===

    async fn assert_as_undisturbed(mut self) {
        assert_eq!(self.lives, 1 + u32::try_from(BOUNDARIES.len()).unwrap());
        assert_eq!(self.daemon.take().unwrap().terminate().code(), Some(0));
        let tip = books::tip(&self.ground.live.db, CHAIN).await.unwrap();
        assert_eq!(tip.start, self.first);
        let spec = spec_of(CHAIN, 200);
        let options = ScanOptions { start: Some(BlockNumber(tip.start)), ..ScanOptions::default() };
        let node = node_of(CHAIN, &[self.node.url()], false);
        let twin = Twin::start(&self.ground.fresh, &node, &spec, &book_of(&spec), options);
        for _ in 0..100 {
            let mut progress = twin.scanner.tick(NOW).await.unwrap();
            progress = progress.or(twin.confirmer.tick(NOW).await.unwrap());
            progress = progress.or(twin.sightings.tick().await.unwrap());
            progress = progress.or(twin.bookkeeper.tick(CHAIN, NOW).await.unwrap());
            if progress == Progress::Idle {
                break;
            }
        }
        let (live, fresh) = (&self.ground.live.db, &self.ground.fresh.db);
        let balances = books::balances(live, CHAIN).await;
        assert_eq!(balances.len(), 2 * BOUNDARIES.len(), "custody and hold of each payment");
        assert_eq!(balances, books::balances(fresh, CHAIN).await);
        books::assert_sides_equal(&balances);
        assert_eq!(books::payments(live, CHAIN).await, books::payments(fresh, CHAIN).await);
        assert_eq!(books::line(live, CHAIN).await, books::line(fresh, CHAIN).await);
    }
}

/// No verdict stands whose sighting a reorg took away.
async fn nothing_broken(db: &amanatd::db::Database) -> bool {
    let statement = "select not exists (select from transfer_verdicts v join transfer_observations o on o.id = v.observation_id \
         where v.revoked_at is null and o.state = 'orphaned')";
    sqlx::query_scalar(statement).fetch_one(&mut *db.connection().await.unwrap()).await.unwrap()
}
