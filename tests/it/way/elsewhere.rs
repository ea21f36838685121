//! Money on another chain than its payment's, over two real chains: the same key holds the address on both.

use std::sync::Arc;

use alloy::primitives::{Address, U256, address};
use amanatd::api::wire::{IntentView, RefundPayment};
use amanatd::chains::{ChainBook, ChainSpec};
use amanatd::confirm::Sightings;
use amanatd::daemon;
use amanatd::devkit::chain::{ChainOptions, LocalChain, PAYERS};
use amanatd::devkit::contracts;
use amanatd::ledger::{self, AccountKey};
use amanatd::reconcile;
use amanatd::rpc::Node;
use amanatd::settings::{Gate, ThresholdKey};
use amanatd::units::{Asset, AssetId, ChainId, Progress, parse_units};
use secrecy::SecretString;
use uuid::Uuid;

use super::{BUYER, RELEASE_THRESHOLD, Way, Workers, workers};
use crate::watching::quick;

const ELSEWHERE: ChainId = ChainId::new(31_338).unwrap();
const HOME: Address = address!("0x4444444444444444444444444444444444444444");

/// The book with a second local chain, whose contracts are where those of the first are.
fn both() -> ChainBook {
    let text = include_str!("../../../chains.toml");
    let (from, to) = (text.find("[[chain]]\nid = 31337").unwrap(), text.find("# What prices are made of.").unwrap());
    let local = &text[from..to];
    let other = local.replacen("31337", "31338", 1).replacen("Local", "Elsewhere", 1);
    ChainBook::parse(&text.replacen(local, &format!("{local}{other}"), 1)).unwrap()
}

/// The other chain, and what works on it.
struct Elsewhere {
    chain: LocalChain,
    node: Arc<Node>,
    spec: Arc<ChainSpec>,
    usdc: Address,
    workers: Workers,
}

impl Elsewhere {
    async fn start(way: &Way) -> Self {
        let chain = LocalChain::start(ChainOptions { chain_id: ELSEWHERE.get(), ..ChainOptions::default() }).await.unwrap();
        let usdc = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
        chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
        way.api.set(ThresholdKey::base(Gate::Credit, ELSEWHERE), 3).await;
        way.api.set(ThresholdKey::base(Gate::Release, ELSEWHERE), 5).await;
        let node = Arc::new(Node::new(ELSEWHERE, &[SecretString::from(chain.url())], quick()).unwrap());
        let spec = Arc::new(way.api.book.get(ELSEWHERE).unwrap().clone());
        let workers = workers(&way.api, &node, &spec);
        let elsewhere = Self { chain, node, spec, usdc, workers };
        elsewhere.rounds(way).await;
        let gas = way.operator("gas").await;
        let hash = elsewhere.chain.send_native(PAYERS[0], gas, parse_units("10", 18).unwrap()).await.unwrap();
        elsewhere.chain.mined(hash).await.unwrap();
        elsewhere.deepen(way).await;
        elsewhere
    }

    async fn rounds(&self, way: &Way) {
        let (workers, now) = (&self.workers, daemon::now());
        for _ in 0..100 {
            let mut progress = workers.scanner.tick(now).await.unwrap();
            progress = progress.or(workers.confirmer.tick(now).await.unwrap());
            progress = progress.or(Sightings::new(way.api.db.clone()).tick().await.unwrap());
            progress = progress.or(workers.bookkeeper.tick(ELSEWHERE, now).await.unwrap());
            progress = progress.or(workers.planner.tick().await.unwrap());
            progress = progress.or(workers.broadcaster.tick(now).await.unwrap());
            progress = progress.or(workers.settler.tick().await.unwrap());
            if progress == Progress::Idle {
                return;
            }
        }
        panic!("the workers never come to rest");
    }

    async fn deepen(&self, way: &Way) {
        self.chain.mine(RELEASE_THRESHOLD - 1).await.unwrap();
        self.rounds(way).await;
    }

    async fn outflow(&self, way: &Way, kind: &str) -> IntentView {
        let (intent, _) = way.signed(kind).await;
        assert_eq!(intent.chain_id, ELSEWHERE.get());
        self.rounds(way).await;
        self.chain.mine(1).await.unwrap();
        self.rounds(way).await;
        self.deepen(way).await;
        let settled = way.intent(intent.id).await;
        assert_eq!(settled.state, "settled");
        settled
    }
}

#[tokio::test]
async fn w7_money_on_the_wrong_chain_is_seen_there_and_refunded_from_the_same_address() {
    let way = Way::start_with(both()).await;
    let elsewhere = Elsewhere::start(&way).await;
    let payment = way.payment("USDC", "40", 0).await;
    let units = parse_units("40", 6).unwrap();
    let minted = elsewhere.chain.mint(elsewhere.usdc, BUYER, units).await.unwrap();
    elsewhere.chain.mined(minted).await.unwrap();
    let paid = elsewhere.chain.transfer_token(elsewhere.usdc, BUYER, payment.deposit_address, units).await.unwrap();
    elsewhere.chain.mined(paid).await.unwrap();
    elsewhere.deepen(&way).await;
    // An exception of that payment, which waits as before; the money is in suspense where it is.
    assert_eq!((way.read(payment.id).await.escrow_state, way.exceptions(payment.id).await), (None, vec!["wrong_chain".to_owned()]));
    let there = AssetId { chain: ELSEWHERE, asset: Asset::Token(elsewhere.usdc) };
    assert_eq!(way.balance(there, AccountKey::Suspense(Some(payment.id))).await, units);
    assert_eq!(way.balance(there, AccountKey::Custody(payment.deposit_address)).await, units);
    assert!(way.intents("planned").await.is_empty(), "nobody has decided about it");

    let asked = RefundPayment {
        from: "suspense".to_owned(),
        to: HOME.to_string(),
        chain_id: Some(ELSEWHERE.get()),
        token: Some("USDC".to_owned()),
        ..RefundPayment::default()
    };
    way.marketplace.refund(payment.id, &asked, &Uuid::new_v4().to_string()).await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty(), "not on the payment's chain");
    elsewhere.rounds(&way).await;
    elsewhere.outflow(&way, "fuel").await;
    let refund = elsewhere.outflow(&way, "refund").await;
    assert_eq!((refund.from_address, refund.to_address), (payment.deposit_address, HOME));
    assert_eq!(elsewhere.chain.balance_of(elsewhere.usdc, HOME).await.unwrap(), units);
    assert_eq!(way.chain.balance_of(way.usdc, HOME).await.unwrap(), U256::ZERO);
    assert_eq!(way.balance(there, AccountKey::Suspense(Some(payment.id))).await, U256::ZERO);
    assert_eq!((way.read(payment.id).await.escrow_state, way.exceptions(payment.id).await), (None, Vec::new()));

    // The right chain is still waited for.
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.deepen().await;
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    way.assert_sound().await;
    let report = reconcile::reconcile(&way.api.db, &elsewhere.node, &elsewhere.spec).await.unwrap();
    assert!(report.lines.iter().all(reconcile::Line::is_equal), "{:?}", report.lines);
    let drifting = ledger::store::list_drifting(&mut way.api.db.connection().await.unwrap()).await.unwrap();
    assert_eq!(drifting, []);
}
