//! What moved money unseen is found at a confirmed block; what only waits is not.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Bytes, U256};
use alloy::sol_types::SolCall;
use amanatd::api::wire::FindingView;
use amanatd::daemon;
use amanatd::deposit::Watched;
use amanatd::devkit::chain::ReorgTx;
use amanatd::devkit::contracts::{self, Forwarder};
use amanatd::ledger::AccountKey;
use amanatd::reconcile::Reconciler;
use amanatd::scan::{ScanOptions, Scanner};
use amanatd::units::Progress;
use time::OffsetDateTime;

use super::{BUYER, Way};

const EVERY: Duration = Duration::from_secs(300);
const OPENED: &str = "select count(*) from events where kind = 'reconcile.finding_opened'";
const CLOSED: &str = "select count(*) from events where kind = 'reconcile.finding_closed'";
const ENTRIES: &str = "select count(*) from funds_ledger_entries";

impl Way {
    fn reconciler(&self) -> Reconciler {
        Reconciler::new(self.api.db.clone(), Arc::clone(&self.api.node), Arc::clone(&self.spec), EVERY)
    }

    /// A scanner that looks inside transactions, or does not.
    fn scanner(&self, internal: bool) -> Scanner {
        let options = ScanOptions { internal, ..ScanOptions::default() };
        Scanner::new(self.api.db.clone(), Arc::clone(&self.api.node), Arc::new(Watched::default()), &self.spec, options)
    }

    async fn findings(&self, state: &str) -> Vec<FindingView> {
        self.marketplace.findings(state, None).await.unwrap().findings
    }
}

/// One whole look.
async fn look(reconciler: &Reconciler, now: OffsetDateTime) {
    for _ in 0..100 {
        if reconciler.tick(now).await.unwrap() == Progress::Idle {
            return;
        }
    }
    panic!("a look never ends");
}

/// A look of a worker that was just made: due at once.
async fn look_afresh(way: &Way) -> Vec<FindingView> {
    look(&way.reconciler(), daemon::now()).await;
    way.findings("open").await
}

#[tokio::test]
async fn w7_native_coin_from_a_contract_without_traces_raises_a_finding() {
    let mut way = Way::start().await;
    way.workers.scanner = way.scanner(false);
    let forwarder = way.chain.deploy(contracts::forwarder().bytecode).await.unwrap();
    let payment = way.payment("USDC", "40", 0).await;
    let call = Forwarder::forwardCall { recipient: payment.deposit_address }.abi_encode();
    let sent = way.chain.send(BUYER, forwarder, U256::from(7), call.into()).await.unwrap();
    way.chain.mined(sent).await.unwrap();
    way.rounds().await;
    let entries = way.api.count(ENTRIES);
    assert!(look_afresh(&way).await.is_empty(), "the block is not confirmed");
    way.deepen().await;

    let (reconciler, now) = (way.reconciler(), daemon::now());
    look(&reconciler, now).await;
    let found = way.findings("open").await;
    let [one] = found.as_slice() else { panic!("one finding, not {found:?}") };
    assert_eq!((one.address, one.symbol.as_str(), one.difference_units.as_str()), (payment.deposit_address, "ETH", "7"));
    assert_eq!((one.ledger.as_str(), one.pending.as_str(), one.closed_at), ("0", "0", None));

    // Told once, however often it is seen; and not seen before a look is due.
    look(&reconciler, now + EVERY / 2).await;
    assert_eq!(way.findings("open").await[0].last_seen_at, one.last_seen_at);
    look(&reconciler, now + EVERY).await;
    assert!(way.findings("open").await[0].last_seen_at > one.last_seen_at);
    assert_eq!((way.findings("all").await.len(), way.api.count(OPENED), way.api.count(CLOSED)), (1, 1, 0));
    // Nothing is credited for it.
    assert_eq!((way.api.count(ENTRIES), way.read(payment.id).await.status.as_str()), (entries, "pending"));
}

#[tokio::test]
async fn w7_a_finding_closes_when_the_transfer_is_seen() {
    let mut way = Way::start().await;
    way.workers.scanner = way.scanner(false);
    let forwarder = way.chain.deploy(contracts::forwarder().bytecode).await.unwrap();
    let payment = way.payment("USDC", "40", 0).await;
    let call = Forwarder::forwardCall { recipient: payment.deposit_address }.abi_encode();
    let sent = way.chain.send(BUYER, forwarder, U256::from(7), call.into()).await.unwrap();
    way.chain.mined(sent).await.unwrap();
    let bytes: Bytes = way.chain.call("eth_getRawTransactionByHash", (sent,)).await.unwrap();
    way.deepen().await;
    assert_eq!(look_afresh(&way).await.len(), 1);

    // The same transfer again, in blocks that are traced.
    way.workers.scanner = way.scanner(true);
    way.chain.reorg(5, vec![(ReorgTx::Raw(bytes), 0)]).await.unwrap();
    way.chain.mine(1).await.unwrap();
    way.rounds().await;
    way.deepen().await;
    assert_eq!(way.balance(way.native(), AccountKey::Custody(payment.deposit_address)).await, U256::from(7));
    assert!(look_afresh(&way).await.is_empty());
    let all = way.findings("all").await;
    let [one] = all.as_slice() else { panic!("one finding, not {all:?}") };
    assert_eq!((one.resolution.as_deref(), one.closed_at.is_some(), one.difference_units.as_str()), (Some("explained"), true, "7"));
    assert_eq!((way.api.count(OPENED), way.api.count(CLOSED)), (1, 1));
}

#[tokio::test]
async fn w7_balances_set_without_a_transaction_raise_findings() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    let treasury = way.operator("treasury").await;
    assert!(look_afresh(&way).await.is_empty());
    way.chain.set_balance(payment.deposit_address, U256::from(7)).await.unwrap();
    way.chain.set_balance(treasury, U256::from(1)).await.unwrap();
    way.deepen().await;
    let found = look_afresh(&way).await;
    let mut seen: Vec<_> = found.iter().map(|finding| (finding.address, finding.difference.as_str())).collect();
    seen.sort_unstable();
    let mut expected = [(payment.deposit_address, "0.000000000000000007"), (treasury, "-9.999999999999999999")];
    expected.sort_unstable();
    assert_eq!(seen, expected);

    // Another amount is the same finding; put right, it closes, and a new difference is a new one.
    way.chain.set_balance(payment.deposit_address, U256::from(8)).await.unwrap();
    way.deepen().await;
    assert_eq!((look_afresh(&way).await.len(), way.api.count(OPENED)), (2, 2));
    way.chain.set_balance(payment.deposit_address, U256::ZERO).await.unwrap();
    way.deepen().await;
    assert_eq!((look_afresh(&way).await.len(), way.api.count(CLOSED)), (1, 1));
    way.chain.set_balance(payment.deposit_address, U256::from(8)).await.unwrap();
    way.deepen().await;
    assert_eq!((look_afresh(&way).await.len(), way.api.count(OPENED)), (2, 3));
}

#[tokio::test]
async fn w7_what_waits_is_no_finding() {
    let way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    way.pay(way.usdc, payment.deposit_address, "40").await;
    for _ in 0..5 {
        way.rounds().await;
        assert!(look_afresh(&way).await.is_empty());
        way.chain.mine(1).await.unwrap();
    }
    way.rounds().await;
    for kind in ["fuel", "sweep"] {
        let (intent, _) = way.signed(kind).await;
        way.workers.broadcaster.tick(daemon::now()).await.unwrap();
        // Mined and deep, while nobody has noted so; then noted and not settled; then settled.
        way.chain.mine(5).await.unwrap();
        for _ in 0..10 {
            way.workers.scanner.tick(daemon::now()).await.unwrap();
        }
        assert!(look_afresh(&way).await.is_empty(), "{kind} in flight");
        way.broadcast_later().await.unwrap();
        assert_eq!(way.intent(intent.id).await.state, "mined");
        assert!(look_afresh(&way).await.is_empty(), "{kind} mined");
        way.rounds().await;
        assert_eq!(way.intent(intent.id).await.state, "settled");
        assert!(look_afresh(&way).await.is_empty(), "{kind} settled");
        // The books are ahead of the block that a final block far behind makes us look at.
        let tip = "update chain_cursors c set final_number = b.number, final_hash = b.hash from chain_blocks b \
             where b.chain_id = c.chain_id and b.state = 'canonical' and b.number = c.number - 6";
        way.api.base.sql(tip).unwrap();
        assert!(look_afresh(&way).await.is_empty(), "{kind} settled after the final block");
        way.api.base.sql("update chain_cursors set final_number = null, final_hash = null").unwrap();
    }
    assert_eq!(way.api.count(OPENED), 0);
}

#[tokio::test]
async fn s8_an_unknown_outflow_halts_at_the_look_that_finds_it() {
    let way = Way::start().await;
    let treasury = way.operator("treasury").await;
    assert!(look_afresh(&way).await.is_empty());
    assert_eq!(way.halted().await, None);
    // Somebody else has the key.
    way.chain.impersonate(treasury).await.unwrap();
    let theft = way.chain.send_native(treasury, BUYER, U256::from(1_000_000)).await.unwrap();
    way.chain.mined(theft).await.unwrap();
    way.deepen().await;
    let found = look_afresh(&way).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].difference_units.starts_with('-'), "{found:?}");
    assert!(way.halted().await.unwrap().contains("holds less of"), "{:?}", way.halted().await);
    // Looked at and resumed, the same finding halts nothing again.
    way.api.base.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null").unwrap();
    look_afresh(&way).await;
    assert_eq!(way.halted().await, None);
}
