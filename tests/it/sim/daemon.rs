//! The real workers over a real database, and the twin that will read the final chain afresh.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;
use amanatd::account::{self, AccountError, AccountXpub, DerivedAddress};
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::confirm::{Confirmer, Sightings};
use amanatd::db::{Database, DatabaseLimits};
use amanatd::deposit::{self, Watched};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::ledger::Bookkeeper;
use amanatd::payment::{self, NewPayment, PaymentDraft};
use amanatd::rpc::{EndpointLimits, Node, NodeOptions};
use amanatd::scan::{ScanOptions, Scanner};
use amanatd::settings::{self, ChangeNote, Gate, NewChange, SettingsError, ThresholdKey};
use amanatd::units::{BlockNumber, ChainId, Confirmations, PaymentId, format_units};
use secrecy::SecretString;
use time::OffsetDateTime;

use crate::watching::{XPUB, local_spec};

/// Two databases in which the same things are asked for in the same order, so that addresses are the same.
pub(super) struct Ground {
    pub(super) live: Base,
    pub(super) fresh: Base,
}

pub(super) struct Base {
    pub(super) database: FreshDatabase,
    pub(super) db: Database,
}

impl Ground {
    pub(super) async fn new() -> Self {
        Self { live: Base::new().await, fresh: Base::new().await }
    }

    /// Gives both the threshold of a history's chain.
    pub(super) async fn open(&self, chain: ChainId, threshold: u64) {
        for base in [&self.live, &self.fresh] {
            let value = Confirmations::new(threshold.cast_signed()).unwrap();
            for gate in [Gate::Credit, Gate::Release] {
                let note = ChangeNote { changed_by: "sim".to_owned(), user: None, reason: "sim".to_owned() };
                let change = NewChange { key: ThresholdKey::base(gate, chain), blocks: Some(value), effective_at: None, note };
                let set = base.db.unit::<_, SettingsError, _>(move |connection| {
                    Box::pin(async move { settings::store::set(connection, &change).await })
                });
                set.await.unwrap();
            }
        }
    }

    /// An address without a payment.
    pub(super) async fn issue(&self) -> Address {
        let live = self.live.claim(None).await;
        assert_eq!(self.fresh.claim(None).await, live, "both hand out the same addresses");
        live
    }

    pub(super) async fn ask_payment(&self, id: PaymentId, payment: &NewPayment, birth: BlockNumber) -> Address {
        let live = self.live.claim(Some((id, payment.clone(), birth))).await;
        assert_eq!(self.fresh.claim(Some((id, payment.clone(), birth))).await, live, "both hand out the same addresses");
        live
    }
}

impl Base {
    async fn new() -> Self {
        let database = FreshDatabase::create().unwrap();
        let limits = DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() };
        let db = Database::connect(&database.url(APP), limits).await.unwrap();
        let enrolled = db.unit::<_, AccountError, _>(|connection| {
            Box::pin(async move {
                let xpub: AccountXpub = XPUB.parse().unwrap();
                account::store::insert(connection, "sim", &xpub, &account::store::DeviceHint::default()).await
            })
        });
        enrolled.await.unwrap();
        Self { database, db }
    }

    async fn claim(&self, payment: Option<(PaymentId, NewPayment, BlockNumber)>) -> Address {
        let claimed = self.db.unit::<DerivedAddress, AccountError, _>(move |connection| {
            Box::pin(async move {
                let address = account::store::claim_deposit_address(connection).await?;
                if let Some((id, payment, birth)) = payment {
                    payment::store::insert(connection, id, &payment).await?;
                    deposit::store::insert(connection, id, &address, payment.due.asset.chain, birth).await?;
                }
                Ok(address)
            })
        });
        claimed.await.unwrap().address
    }
}

/// The local chain under another id, so that histories share a database and not their fate.
pub(super) fn spec_of(chain: ChainId, reorg_window: u32) -> ChainSpec {
    ChainSpec { id: chain, reorg_window, ..local_spec() }
}

pub(super) fn book_of(spec: &ChainSpec) -> Arc<ChainBook> {
    let tokens: String = spec
        .tokens
        .iter()
        .map(|token| format!("[[chain.token]]\nsymbol = \"{}\"\ncontract = \"{}\"\ndecimals = 6\n", token.symbol, token.contract))
        .collect();
    let text = format!(
        "[[chain]]\nid = {}\nname = \"Sim\"\nnative = {{ symbol = \"ETH\", decimals = 18 }}\nblock_time_ms = 1000\nfinality = \"depth\"\n\
         confirmation_threshold = 3\nrelease_threshold = 5\nreorg_window = {}\n{tokens}",
        spec.id, spec.reorg_window
    );
    Arc::new(ChainBook::parse(&text).unwrap())
}

/// A payment of so many units, in time until `expires_at`.
pub(super) fn draft(book: &ChainBook, spec: &ChainSpec, due: u64, expires_at: OffsetDateTime) -> NewPayment {
    let draft = PaymentDraft {
        amount: format_units(alloy::primitives::U256::from(due), 6),
        currency: "USDC".to_owned(),
        chain_id: spec.id.get(),
        token: spec.tokens[0].symbol.clone(),
        seller_address: Address::repeat_byte(0x22).to_string(),
        expires_in_seconds: Some(60),
        ..PaymentDraft::default()
    };
    draft.check(book, &[spec.id], expires_at - Duration::from_secs(60)).unwrap()
}

/// One life of the workers.
pub(super) struct Daemon {
    pub(super) db: Database,
    pub(super) scanner: Scanner,
    pub(super) confirmer: Confirmer,
    pub(super) sightings: Sightings,
    pub(super) bookkeeper: Bookkeeper,
}

impl Daemon {
    pub(super) fn start(base: &Base, node: &Arc<Node>, spec: &ChainSpec, book: &Arc<ChainBook>, options: ScanOptions) -> Self {
        let db = base.db.clone();
        let watched = Arc::new(Watched::default());
        Self {
            scanner: Scanner::new(db.clone(), node.clone(), watched, spec, options),
            confirmer: Confirmer::new(db.clone(), node.clone(), spec),
            sightings: Sightings::new(db.clone()),
            bookkeeper: Bookkeeper::new(db.clone(), book.clone()),
            db,
        }
    }
}

/// Of three endpoints two must agree.
pub(super) fn node_of(chain: ChainId, urls: &[String], silent: bool) -> Arc<Node> {
    let urls: Vec<SecretString> = urls.iter().map(|url| SecretString::from(url.as_str())).collect();
    let read = Duration::from_millis(if silent { 250 } else { 10_000 });
    let limits = EndpointLimits { connect: Duration::from_secs(5), read, total: Duration::from_secs(20), body_bytes_max: 1024 * 1024 };
    Arc::new(Node::new(chain, &urls, NodeOptions { limits, agreement: urls.len().div_ceil(2), ..NodeOptions::default() }).unwrap())
}
