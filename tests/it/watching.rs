//! What the tests of the watching rooms stand in: a database, a node, a scanner and a confirmer, moved
//! by hand.

use std::sync::Arc;
use std::time::Duration;

use amanatd::account;
use amanatd::account::AccountXpub;
use amanatd::account::store::DeviceHint;
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::confirm::store::TransferProgress;
use amanatd::confirm::{self, Confirmer};
use amanatd::db::{Database, DatabaseLimits};
use amanatd::deposit::Watched;
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::rpc::{EndpointLimits, Node, NodeOptions};
use amanatd::scan::{self, Cursor, ScanError, ScanOptions, Scanner};
use amanatd::settings::{self, Change, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
use amanatd::units::{ChainId, Confirmations, Progress};
use secrecy::SecretString;
use time::OffsetDateTime;

pub(crate) const XPUB: &str =
    "xpub6CNFa58kEQJu2hwMVoofpDEKVVSg6gfwqBqE2zHAianaUnQkrJzJJ42iLDp7Dmg2aP88qCKoFZ4jidk3tECdQuF4567NGHDfe7iBRwHxgke";

/// The time of every tick; nothing here depends on it moving.
pub(crate) const NOW: OffsetDateTime = time::macros::datetime!(2027-01-15 12:00 UTC);

pub(crate) const CHAIN: ChainId = ChainId::new(31_337).unwrap();

/// The local chain as `chains.toml` lists it.
pub(crate) fn local_spec() -> ChainSpec {
    let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
    book.get(CHAIN).unwrap().clone()
}

/// Short enough that a silent node does not hold a test up.
pub(crate) fn quick() -> NodeOptions {
    let limits = EndpointLimits {
        connect: Duration::from_millis(500),
        read: Duration::from_millis(500),
        total: Duration::from_secs(2),
        body_bytes_max: 4 * 1024 * 1024,
    };
    NodeOptions { limits, ..NodeOptions::default() }
}

pub(crate) fn node_of(urls: &[&str]) -> Node {
    let urls: Vec<SecretString> = urls.iter().map(|url| SecretString::from(*url)).collect();
    Node::new(CHAIN, &urls, quick()).unwrap()
}

pub(crate) struct Watching {
    pub(crate) base: FreshDatabase,
    pub(crate) database: Database,
    pub(crate) node: Arc<Node>,
    pub(crate) spec: ChainSpec,
    pub(crate) scanner: Scanner,
    pub(crate) confirmer: Confirmer,
    options: ScanOptions,
}

impl Watching {
    /// A new database with one enrolled account, and thresholds of 3 and 5; nothing is read yet.
    pub(crate) async fn over(urls: &[&str]) -> Self {
        Self::with(urls, local_spec(), ScanOptions::default()).await
    }

    pub(crate) async fn with(urls: &[&str], spec: ChainSpec, options: ScanOptions) -> Self {
        Self::through(node_of(urls), spec, options).await
    }

    /// Over endpoints of which so many must agree.
    pub(crate) async fn agreeing(urls: &[&str], agreement: usize) -> Self {
        let urls: Vec<SecretString> = urls.iter().map(|url| SecretString::from(*url)).collect();
        let node = Node::new(CHAIN, &urls, NodeOptions { agreement, ..quick() }).unwrap();
        Self::through(node, local_spec(), ScanOptions::default()).await
    }

    async fn through(node: Node, spec: ChainSpec, options: ScanOptions) -> Self {
        let base = FreshDatabase::create().unwrap();
        let database = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 3, ..DatabaseLimits::default() }).await.unwrap();
        let node = Arc::new(node);
        let (scanner, confirmer) = workers(&database, &node, &spec, options);
        let watching = Self { base, database, node, spec, scanner, confirmer, options };
        watching.set_threshold(3).await;
        watching.set(ThresholdKey::base(Gate::Release, CHAIN), 5, None).await.unwrap();
        let outcome = watching.database.unit::<_, account::AccountError, _>(|connection| {
            Box::pin(async move {
                let xpub: AccountXpub = XPUB.parse().unwrap();
                account::store::insert(connection, "test", &xpub, &DeviceHint::default()).await
            })
        });
        outcome.await.unwrap();
        watching
    }

    /// Forgets everything that is in memory, as a new process would.
    pub(crate) fn restart(&mut self) {
        (self.scanner, self.confirmer) = workers(&self.database, &self.node, &self.spec, self.options);
    }

    /// Issues a deposit address and commits it.
    pub(crate) async fn issue(&self) -> account::DerivedAddress {
        let claim =
            self.database.unit::<_, account::AccountError, _>(|connection| Box::pin(account::store::claim_deposit_address(connection)));
        claim.await.unwrap()
    }

    /// Changes the base of the credit gate at once.
    pub(crate) async fn set_threshold(&self, blocks: i64) {
        self.set(ThresholdKey::base(Gate::Credit, CHAIN), blocks, None).await.unwrap();
    }

    /// Changes any threshold; 0 switches a tier off.
    pub(crate) async fn set(&self, key: ThresholdKey, blocks: i64, effective_at: Option<OffsetDateTime>) -> Result<Change, SettingsError> {
        let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
        let change = NewChange { key, blocks: Confirmations::new(blocks).ok(), effective_at, note };
        self.database.unit(move |connection| Box::pin(async move { settings::store::set(connection, &change).await })).await
    }

    /// Ticks the scanner until it is idle.
    pub(crate) async fn scan(&self) -> Result<u32, ScanError> {
        for worked in 0..1_000 {
            if self.scanner.tick(NOW).await? == Progress::Idle {
                return Ok(worked);
            }
        }
        panic!("the scanner never comes to rest");
    }

    /// Ticks the confirmer until it is idle.
    pub(crate) async fn confirm(&self) {
        self.confirm_at(NOW).await;
    }

    /// The same, by another clock.
    pub(crate) async fn confirm_at(&self, now: OffsetDateTime) {
        for _ in 0..1_000 {
            if self.confirmer.tick(now).await.unwrap() == Progress::Idle {
                return;
            }
        }
        panic!("the confirmer never comes to rest");
    }

    /// Reads all there is and decides it.
    pub(crate) async fn follow(&self) {
        self.scan().await.unwrap();
        self.confirm().await;
    }

    pub(crate) async fn progress(&self, address: &account::DerivedAddress) -> Vec<TransferProgress> {
        confirm::store::get_progress(&mut self.database.connection().await.unwrap(), address.id).await.unwrap()
    }

    pub(crate) async fn cursor(&self) -> Cursor {
        scan::store::find_cursor(&mut self.database.connection().await.unwrap(), CHAIN).await.unwrap().unwrap()
    }

    /// Rows of transfers, of canonical and of orphaned observations, and of live and of revoked credits.
    pub(crate) fn rows(&self) -> String {
        let counts = "select (select count(*) from transfers), \
             (select count(*) from transfer_observations where state = 'canonical'), \
             (select count(*) from transfer_observations where state = 'orphaned'), \
             (select count(*) from transfer_verdicts where gate = 'credit' and revoked_at is null), \
             (select count(*) from transfer_verdicts where gate = 'credit' and revoked_at is not null)";
        self.base.sql(counts).unwrap().trim().to_owned()
    }

    /// W4: the canonical blocks are one unbroken line, each on the hash of the one below, up to the cursor.
    pub(crate) fn assert_line(&self) {
        let broken = "select count(*) from chain_blocks b where state = 'canonical' and b.number > (select start_number from chain_cursors) \
             and not exists (select from chain_blocks p where p.chain_id = b.chain_id and p.number = b.number - 1 \
             and p.hash = b.parent_hash and p.state = 'canonical')";
        assert_eq!(self.base.sql(broken).unwrap().trim(), "0", "a canonical block without its parent");
        let top = "select count(*) from chain_cursors c join chain_blocks b using (chain_id, number, hash) where b.state = 'canonical' \
             and c.number = (select max(number) from chain_blocks m where m.state = 'canonical')";
        assert_eq!(self.base.sql(top).unwrap().trim(), "1", "the cursor is not the top of the line");
    }
}

fn workers(database: &Database, node: &Arc<Node>, spec: &ChainSpec, options: ScanOptions) -> (Scanner, Confirmer) {
    let watched = Arc::new(Watched::default());
    (Scanner::new(database.clone(), node.clone(), watched, spec, options), Confirmer::new(database.clone(), node.clone(), spec))
}
