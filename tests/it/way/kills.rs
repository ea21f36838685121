//! The daemon killed with SIGKILL on both sides of every boundary between an officer's approval and the settled
//! entry. Each time an order of one payment goes its way; it must arrive once.
//!
//! As in the simulator, the database holds the daemon still: a trigger waits at the commit for a lock that the test
//! has. Before the boundary, its connection is ended with it and nothing of the unit stays; after it, the commit
//! comes about although nobody hears of it.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use amanatd::account::AccountXpub;
use amanatd::api::wire::{ClaimIntent, IntentView};
use amanatd::api::{Client, ClientError};
use amanatd::devkit::postgres::{APP, SUPERUSER};
use amanatd::intent;
use amanatd::officer::{Scope, UserRole};
use amanatd::signing::{self, Definitions};
use amanatd::units::{IntentId, PaymentId};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{SELLERS, Way};
use crate::process::{Daemon, Place, until};
use crate::watching::XPUB;

/// What is written at each boundary, in the order in which an outflow comes to them.
const BOUNDARIES: [(&str, &str, &str); 12] = [
    ("an approval is stored", "intent_approvals", "true"),
    ("the intent is approved", "intents", "new.state = 'approved' and old.state = 'planned'"),
    ("a station has it", "intents", "new.state = 'signing'"),
    ("the signed bytes are stored", "outbound_transactions", "new.send_attempts = 0 and new.block_number is null"),
    ("the intent is signed", "intents", "new.state = 'signed'"),
    ("the bytes are about to be sent", "outbound_transactions", "new.send_attempts > 0 and new.last_send_outcome is null"),
    ("the answer to the sending is noted", "outbound_transactions", "new.last_send_outcome is not null and new.block_number is null"),
    ("the intent is broadcast", "intents", "new.state = 'broadcast'"),
    ("its block is noted", "outbound_transactions", "new.block_number is not null and new.settled_at is null"),
    ("the intent is mined", "intents", "new.state = 'mined'"),
    ("its entries are posted", "funds_ledger_entries", "new.entry_type = 'release'"),
    ("the intent is settled", "intents", "new.state = 'settled'"),
];

/// Any number that no lock of the daemon has.
const LOCK: i64 = 424_243;
const PART: u64 = 1_000_000;

struct Scene {
    way: Way,
    place: Place,
    superuser: PgConnection,
    daemon: Option<Daemon>,
    lives: u32,
    payment: PaymentId,
    marketplace: Client,
    officer: Client,
    station: Client,
}

#[tokio::test]
async fn s2_s5_a_daemon_killed_on_both_sides_of_every_boundary_pays_once() {
    let mut scene = Scene::open().await;
    let (mut crossed, mut most) = (0, 0);
    for (number, (what, table, when)) in (1..).zip(BOUNDARIES) {
        for landed in [false, true] {
            let outflows = scene.cross(table, when, landed).await;
            crossed += 1;
            most = most.max(outflows);
            let side = if landed { "after" } else { "before" };
            println!("boundary {number:>2} {side:<6} {what:<36} outflows of the intent: {outflows}");
            let seller: Address = SELLERS[0].parse().unwrap();
            assert_eq!(scene.way.chain.balance_of(scene.way.usdc, seller).await.unwrap(), U256::from(PART * crossed), "{what}, {side}");
        }
    }
    println!("{crossed} of {} boundaries crossed, outflows of an intent at most {most}", 2 * BOUNDARIES.len());
    assert_eq!((crossed, most), (24, 1));
    assert_eq!(scene.daemon.take().unwrap().terminate().code(), Some(0));
    scene.way.rounds().await;
    scene.way.assert_sound().await;
}

impl Scene {
    /// A payment at the treasury, and a daemon of its own over the same rows and chain.
    async fn open() -> Self {
        let way = Way::start().await;
        let payment = way.funded("USDC", "100", 0).await;
        way.outflow("fuel").await;
        way.outflow("sweep").await;
        let place = Place::new();
        place.configure(&way.api.base.url(APP), way.chain.url());
        let user = way.api.user("killer", UserRole::Guard).await;
        let marketplace = place.client(&way.api.marketplace().await);
        let officer = place.client(&way.api.token(&[Scope::IntentsRead, Scope::IntentsApprove], Some(user), 1).await);
        let station = place.client(&way.api.token(&[Scope::IntentsRead, Scope::Signing], None, 1).await);
        let mut superuser = PgConnection::connect(&way.api.base.url(SUPERUSER)).await.unwrap();
        let stop = "create function stop_here() returns trigger language plpgsql as $$ \
             begin perform pg_advisory_xact_lock(424243); return new; end $$";
        sqlx::raw_sql(stop).execute(&mut superuser).await.unwrap();
        let mut scene = Self { way, place, superuser, daemon: None, lives: 0, payment: payment.id, marketplace, officer, station };
        scene.live().await;
        scene
    }

    async fn sql(&mut self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut self.superuser).await.unwrap();
    }

    async fn live(&mut self) {
        self.lives += 1;
        let mut daemon = self.place.serve(&format!("log-{}", self.lives));
        let place = &self.place;
        until(&mut daemon, "the daemon is ready", async |_| place.is_ready().await).await;
        self.daemon = Some(daemon);
    }

    /// One order, over a boundary at which the daemon dies, to its end. How many transactions of it moved money.
    async fn cross(&mut self, table: &str, when: &str, landed: bool) -> i64 {
        let key = format!("part-{}", self.lives);
        self.marketplace.release_part(self.payment, Some("1"), &key).await.unwrap();
        let intent = self.planned().await;
        self.sql(&format!("select pg_advisory_lock({LOCK})")).await;
        // The condition may speak of the row as it was, which an insert has not.
        let of = if when.contains("old.") { "update" } else { "insert or update" };
        let kind = format!("create constraint trigger stop_here after {of} on {table} deferrable initially deferred");
        self.sql(&format!("{kind} for each row when ({when}) execute function stop_here()")).await;
        let mut daemon = self.daemon.take().unwrap();
        let url = self.way.api.base.url(SUPERUSER);
        let killed = async {
            let mut found = None;
            until(&mut daemon, &format!("it comes to {table}: {when}"), async |_| {
                found = waiting(&url).await;
                found.is_some()
            })
            .await;
            daemon.kill();
            found.unwrap()
        };
        // Whoever waits for an answer finds the line cut.
        let (waiting, driven) = tokio::join!(killed, self.drive(&intent));
        assert!(driven.is_err(), "it came to its end past the boundary");
        if !landed {
            self.sql(&format!("select pg_terminate_backend({waiting})")).await;
        }
        self.let_go(waiting, table).await;
        self.live().await;
        self.drive(&intent).await.unwrap();
        let of = |what: &str| self.way.api.count(&format!("{what} '{}'", intent.id));
        assert_eq!(of("select count(*) from outbound_transactions where intent_id ="), 1, "one signature");
        let moved = "select count(*) from funds_ledger_entries e join outbound_transactions t on e.idempotency_key = 'outbound:' || t.id || ':move' \
             where t.intent_id =";
        assert_eq!(of(moved), 1);
        let mined = "select count(*) from outbound_transactions where settled_at is not null and succeeded and intent_id =";
        of(mined)
    }

    async fn planned(&self) -> IntentView {
        for _ in 0..600 {
            if let Some(intent) = self.officer.intents(Some("planned")).await.unwrap().pop() {
                return intent;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing is planned");
    }

    /// Takes an intent to its end, as officer, station and chain.
    async fn drive(&self, intent: &IntentView) -> Result<(), ClientError> {
        for _ in 0..1_500 {
            let now = self.officer.intent(intent.id).await?;
            match now.state.as_str() {
                // A second click of the same officer is refused where the first one landed.
                "planned" => drop(self.officer.approve(intent.id, now.digest).await?),
                "approved" | "signing" => self.sign(intent.id).await?,
                "settled" => return Ok(()),
                _ => {
                    self.way.chain.mine(1).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
        panic!("intent {} never settles", intent.id);
    }

    async fn sign(&self, id: IntentId) -> Result<(), ClientError> {
        self.station.claim(id, &ClaimIntent::of("desk")).await?;
        let intent = intent::store::get(&mut self.way.api.db.connection().await.unwrap(), id).await.unwrap();
        let request = signing::request_for(&intent, &self.way.spec).unwrap();
        let definitions = Definitions::load(None, &self.way.spec, request.transfer().asset);
        let xpub: AccountXpub = XPUB.parse().unwrap();
        let account = self.way.device.open_account(xpub).await.unwrap();
        let raw = account.sign(request, definitions).await.unwrap().raw().clone();
        self.station.submit_signature(id, raw, &uuid::Uuid::new_v4().to_string()).await?;
        Ok(())
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
}

/// The server process in which the daemon has come to the boundary.
async fn waiting(url: &str) -> Option<i32> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let statement = "select l.pid from pg_locks l join pg_stat_activity a on a.pid = l.pid where l.locktype = 'advisory' \
         and not l.granted and l.objid = 424243 and a.datname = current_database()";
    sqlx::query_scalar::<_, i32>(statement).fetch_optional(&mut connection).await.unwrap()
}
