//! n12: a database that was restored to an earlier moment, against a chain that went on.

use alloy::primitives::{Address, B256, U256};
use amanatd::api::wire::{AdoptTransaction, IntentView, ProposeBaseline};
use amanatd::broadcast::nonces::NonceWatch;
use amanatd::daemon;
use amanatd::db::DbError;
use amanatd::devkit::postgres;
use amanatd::intent::baseline;
use amanatd::ledger::AccountKey;
use amanatd::units::{ProposalId, parse_units};

use super::{BUYER, SELLERS, Way};
use crate::watching::CHAIN;

const BACKUP: &str = "_backup";

impl Way {
    /// A copy of the database as it is.
    fn back_up(&self) {
        let name = &self.api.base.name;
        copy(name, &format!("{name}{BACKUP}"));
    }

    /// The database is again what it was at the backup; the process starts over.
    fn restore(&mut self) {
        let name = self.api.base.name.clone();
        let cluster = postgres::shared().unwrap();
        disconnect(&name);
        cluster.sql("postgres", &format!("drop database {name} with (force)")).unwrap();
        copy(&format!("{name}{BACKUP}"), &name);
        self.restart();
    }

    async fn adopt(&self, tx_hash: B256) -> Result<IntentView, String> {
        let asked = AdoptTransaction { chain_id: CHAIN.get(), tx_hash, raw: None, payout_id: None, reason: "restored".to_owned() };
        self.officer.adopt(&asked).await.map_err(|error| format!("{error:?}"))
    }

    async fn hash_of(&self, intent: &IntentView) -> B256 {
        self.intent(intent.id).await.tx_hash.unwrap()
    }

    /// Addresses whose nonces were used by what is not known, after a while in which nothing is planned.
    async fn frozen(&self) -> Vec<Address> {
        let _ = self.try_rounds().await;
        assert!(self.intents("planned").await.is_empty());
        let mut frozen: Vec<Address> = self.officer.foreign_nonces().await.unwrap().into_iter().map(|row| row.address).collect();
        frozen.dedup();
        frozen
    }

    /// An officer has looked, and lets money leave again.
    fn resume(&self) {
        self.api.base.sql("update chain_cursors set outflow_halted_at = null, outflow_halted_reason = null").unwrap();
    }

    async fn paid(&self, seller: usize) -> U256 {
        self.chain.balance_of(self.usdc, SELLERS[seller].parse().unwrap()).await.unwrap()
    }
}

fn disconnect(name: &str) {
    let end = format!("select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{name}'");
    postgres::shared().unwrap().sql("postgres", &end).unwrap();
}

/// A template must have no session; a pool may come back in between.
fn copy(from: &str, to: &str) {
    for _ in 0..50 {
        disconnect(from);
        if postgres::shared().unwrap().create_database_from(from, to).is_ok() {
            return;
        }
    }
    panic!("{from} is never free of sessions");
}

#[tokio::test]
async fn n12_a_release_that_a_restored_database_has_forgotten_is_not_paid_again() {
    let mut way = Way::start().await;
    // The treasury holds enough for a second time.
    let other = way.funded("USDC", "300", 1).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    let payment = way.funded("USDC", "250", 0).await;
    let due = U256::from(250_000_000);
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.back_up();
    way.rounds().await;
    let release = way.outflow("release").await;
    let tx_hash = way.hash_of(&release).await;
    assert_eq!(way.paid(0).await, due);

    way.restore();
    let treasury = way.operator("treasury").await;
    // The treasury's first outflow ever is the one that is forgotten; the treasury's books still hold the money.
    assert_eq!(way.frozen().await, [treasury]);
    assert_eq!(way.balance(way.token(way.usdc), AccountKey::Custody(treasury)).await, U256::from(550_000_000));
    let watch = NonceWatch::new(way.api.db.clone(), way.api.node.clone());
    watch.tick(daemon::now()).await.unwrap();
    assert!(way.halted().await.unwrap().contains("not ours"), "told and halted for by the planner");
    let foreign = way.officer.foreign_nonces().await.unwrap();
    assert_eq!(foreign.iter().map(|row| (row.address, row.nonce, row.baseline)).collect::<Vec<_>>(), [(treasury, 0, 0)]);
    assert_eq!(way.differing().await.len(), 2, "token and coin of the treasury");

    let adopted = way.adopt(tx_hash).await.unwrap();
    assert_eq!((adopted.kind.as_str(), adopted.nonce, adopted.payment_id), ("release", 0, Some(payment.id)));
    assert!(way.adopt(tx_hash).await.unwrap_err().contains("already"));
    way.rounds().await;
    assert_eq!(way.intent(adopted.id).await.state, "settled");
    let released = way.read(payment.id).await;
    assert_eq!((released.status.as_str(), released.escrow_state.as_deref()), ("completed", Some("released")));
    assert!(way.officer.foreign_nonces().await.unwrap().is_empty());
    assert_eq!(way.paid(0).await, due, "once");
    way.assert_sound().await;

    // What comes next goes on above it.
    way.resume();
    way.marketplace.release(other.id, "other").await.unwrap();
    way.rounds().await;
    assert_eq!(way.outflow("release").await.nonce, 1);
    assert_eq!(way.read(other.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn n12_every_outflow_of_a_payment_is_adopted_in_its_order() {
    let mut way = Way::start().await;
    let payment = way.payment("USDC", "40", 0).await;
    way.back_up();
    way.pay(payment.token_contract, payment.deposit_address, "40").await;
    way.deepen().await;
    let mut hashes = Vec::new();
    for kind in ["fuel", "sweep", "release"] {
        if kind == "release" {
            way.marketplace.release(payment.id, "release").await.unwrap();
            way.rounds().await;
        }
        let done = way.outflow(kind).await;
        hashes.push(way.hash_of(&done).await);
    }
    let due = U256::from(40_000_000);
    assert_eq!(way.paid(0).await, due);

    way.restore();
    // The credit is found again; nothing is planned for it.
    assert_eq!(way.frozen().await, [payment.deposit_address]);
    assert_eq!(way.read(payment.id).await.escrow_state.as_deref(), Some("funded"));
    // What the books do not hold yet cannot have been paid from them.
    let early = way.adopt(hashes[1]).await.unwrap_err();
    assert!(early.contains("adopt what brought them there first"), "{early}");
    let early = way.adopt(hashes[2]).await.unwrap_err();
    assert!(early.contains("give the order again"), "{early}");
    let unknown = way.adopt(B256::repeat_byte(7)).await.unwrap_err();
    assert!(unknown.contains("no endpoint knows"), "{unknown}");

    assert_eq!(way.adopt(hashes[0]).await.unwrap().kind, "fuel");
    way.resume();
    // Settled, the deposit address can pay for its sweep; which the chain has seen already.
    assert_eq!(way.frozen().await, [payment.deposit_address]);
    assert_eq!(way.adopt(hashes[1]).await.unwrap().kind, "sweep");
    way.rounds().await;
    way.resume();
    assert_eq!(way.read(payment.id).await.destination_status, "swept");
    way.marketplace.release(payment.id, "release").await.unwrap();
    let treasury = way.operator("treasury").await;
    assert_eq!(way.frozen().await, [treasury]);
    assert_eq!(way.adopt(hashes[2]).await.unwrap().kind, "release");
    way.rounds().await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(way.paid(0).await, due, "once");
    way.assert_sound().await;
}

#[tokio::test]
async fn n12_signed_bytes_that_a_restored_database_has_forgotten_come_back_to_their_intent() {
    let mut way = Way::start().await;
    let payment = way.releasable("40", 0).await;
    let planned = way.planned("release").await;
    way.back_up();
    let release = way.outflow("release").await;
    let tx_hash = way.hash_of(&release).await;
    way.restore();
    assert_eq!(way.intent(planned.id).await.state, "planned");
    let watch = NonceWatch::new(way.api.db.clone(), way.api.node.clone());
    assert!(watch.tick(daemon::now()).await.is_err(), "the nonce is used, and nothing is signed for it");
    assert!(way.halted().await.is_some());
    let adopted = way.adopt(tx_hash).await.unwrap();
    assert_eq!(adopted.id, planned.id);
    way.rounds().await;
    assert_eq!(way.intent(planned.id).await.state, "settled");
    assert_eq!(way.read(payment.id).await.status, "completed");
    assert_eq!(way.paid(0).await, U256::from(40_000_000), "once");
    way.assert_sound().await;
}

#[tokio::test]
async fn n12_an_address_with_a_past_waits_for_two_officers() {
    let way = Way::start().await;
    let treasury = way.operator("treasury").await;
    way.chain.impersonate(treasury).await.unwrap();
    let hand = way.chain.send_native(treasury, BUYER, parse_units("1", 18).unwrap()).await.unwrap();
    way.chain.mined(hand).await.unwrap();
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    assert_eq!(way.frozen().await, [treasury], "nobody said that this was before our time");

    let ask = |address: Address, nonce| ProposeBaseline {
        chain_id: CHAIN.get(),
        address: address.to_string(),
        nonce,
        reason: "by hand".to_owned(),
    };
    let refused = format!("{:?}", way.officer.propose_baseline(&ask(BUYER, 1)).await.unwrap_err());
    assert!(refused.contains("not derived from one of our accounts"), "{refused}");
    let proposal = way.officer.propose_baseline(&ask(treasury, 1)).await.unwrap();
    assert!(proposal.lines[0].contains("below 1"), "{proposal:?}");
    assert!(way.officer.confirm(ProposalId(proposal.id), proposal.digest).await.is_err(), "who proposes does not confirm");
    way.resume();
    assert_eq!(way.frozen().await, [treasury]);
    let forged = format!(
        "set role amanat_app; insert into nonce_baselines (chain_id, address, nonce, proposal_id) values ({CHAIN}, decode('{}', 'hex'), 9, {})",
        alloy::hex::encode(treasury),
        proposal.id
    );
    let refused = format!("{:?}", way.api.base.sql(&forged).unwrap_err());
    assert!(refused.contains("what one officer proposed and another confirmed"), "{refused}");

    let other = way.another("second").await;
    other.confirm(ProposalId(proposal.id), proposal.digest).await.unwrap();
    way.rounds().await;
    assert_eq!(way.outflow("release").await.nonce, 1);
    let lower = format!("{:?}", way.officer.propose_baseline(&ask(treasury, 1)).await.unwrap_err());
    assert!(lower.contains("not above the baseline"), "{lower}");
}

#[tokio::test]
async fn n12_a_use_that_was_told_of_stops_planning_however_far_below_the_count_it_is() {
    let way = Way::start().await;
    let treasury = way.operator("treasury").await;
    let told = way.api.db.unit::<_, DbError, _>(move |connection| {
        Box::pin(async move { baseline::store::tell_foreign(connection, CHAIN, treasury, 7).await })
    });
    assert!(told.await.unwrap());
    way.resume();
    let payment = way.funded("USDC", "40", 0).await;
    way.outflow("fuel").await;
    way.outflow("sweep").await;
    way.marketplace.release(payment.id, "release").await.unwrap();
    assert_eq!(way.frozen().await, [treasury]);
    way.baseline(treasury, 8).await;
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
}
