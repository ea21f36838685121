//! The two gates on a real local chain: thresholds with tiers and dates, the node's final block, and what
//! the database itself keeps of both.

use alloy::primitives::{Address, B256, U256};
use amanatd::account::DerivedAddress;
use amanatd::chains::{ChainSpec, Finality};
use amanatd::confirm::store::{self, Page};
use amanatd::confirm::{Confirmer, Replay};
use amanatd::db::DbError;
use amanatd::devkit::chain::{ChainOptions, LocalChain, PAYERS};
use amanatd::devkit::contracts;
use amanatd::scan::{self, ScanOptions};
use amanatd::settings::{Gate, SettingsError, ThresholdKey, Tier};
use amanatd::units::{Asset, BlockNumber, BlockRef};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use crate::watching::{CHAIN, NOW, Watching, local_spec};

const CREDIT: ThresholdKey = ThresholdKey::base(Gate::Credit, CHAIN);
const RELEASE: ThresholdKey = ThresholdKey::base(Gate::Release, CHAIN);

struct Gates {
    chain: LocalChain,
    watching: Watching,
    address: DerivedAddress,
    usdc: Address,
}

impl Gates {
    /// Ready to be paid, on a chain that is judged like this.
    async fn ready(finality: Finality) -> Self {
        let chain = LocalChain::start(ChainOptions::default()).await.unwrap();
        let usdc = chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
        chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
        let minted = chain.mint(usdc, PAYERS[0], U256::from(1_000_000_000)).await.unwrap();
        chain.mined(minted).await.unwrap();
        // The scanner asks for no tag: the test says what the node calls final.
        let mut watching = Watching::over(&[chain.url()]).await;
        let spec = ChainSpec { finality, ..local_spec() };
        watching.confirmer = Confirmer::new(watching.database.clone(), watching.node.clone(), &spec);
        watching.follow().await;
        let address = watching.issue().await;
        Self { chain, watching, address, usdc }
    }

    /// A transfer to the address, in a block that is read.
    async fn pay(&self, amount: u64) {
        let hash = self.chain.transfer_token(self.usdc, PAYERS[0], self.address.address, U256::from(amount)).await.unwrap();
        self.chain.mined(hash).await.unwrap();
        self.watching.follow().await;
    }

    /// So many more blocks, each read and judged.
    async fn mine(&self, blocks: u64) {
        for _ in 0..blocks {
            self.chain.mine(1).await.unwrap();
            self.watching.follow().await;
        }
    }

    fn tier(&self, gate: Gate, from: u64) -> ThresholdKey {
        ThresholdKey { gate, chain: CHAIN, tier: Tier::new(Asset::Token(self.usdc), U256::from(from)).ok() }
    }

    async fn set(&self, key: ThresholdKey, blocks: i64) {
        self.watching.set(key, blocks, None).await.unwrap();
    }

    /// Amount, depth and threshold of a gate's live verdicts.
    fn passed(&self, gate: Gate) -> String {
        let sql = format!(
            "select string_agg(o.amount || ':' || v.depth || '/' || v.threshold, ' ' order by v.id) from transfer_verdicts v \
             join transfer_observations o on o.id = v.observation_id where v.gate = '{gate}' and v.revoked_at is null"
        );
        self.watching.base.sql(&sql).unwrap().trim().to_owned()
    }

    async fn is_released(&self) -> bool {
        store::is_released(&mut self.watching.database.connection().await.unwrap(), CHAIN, self.address.id).await.unwrap()
    }

    async fn tip(&self) -> BlockRef {
        self.watching.cursor().await.tip
    }

    /// The node names its final block.
    async fn name_final(&self, block: BlockRef) -> bool {
        let named = self
            .watching
            .database
            .unit::<_, DbError, _>(move |connection| Box::pin(async move { scan::store::set_final(connection, CHAIN, block).await }));
        named.await.unwrap()
    }

    /// W3: every stored verdict follows from the history. Gives back those that do not.
    async fn differing(&self) -> Vec<i64> {
        let mut connection = self.watching.database.connection().await.unwrap();
        let chain = store::get_chain(&mut connection, CHAIN).await.unwrap();
        let verdicts = store::list_verdicts(&mut connection, None, Page { after: 0, limit: 1_000 }).await.unwrap();
        verdicts
            .into_iter()
            .filter(|verdict| verdict.replay(chain.history(verdict.gate)) != Replay::Agrees)
            .map(|verdict| verdict.id)
            .collect()
    }

    /// Everything that a change of a threshold writes.
    fn settings(&self) -> String {
        let sql = "select (select string_agg(s::text, ';' order by key) from config_settings s), \
             (select string_agg(h::text, ';' order by id) from config_setting_history h)";
        self.watching.base.sql(sql).unwrap()
    }
}

#[tokio::test]
async fn w3_money_that_counts_may_not_leave_yet() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(10).await;
    for depth in 2..=5 {
        gates.mine(1).await;
        assert_eq!(gates.passed(Gate::Credit), if depth >= 3 { "10:3/3" } else { "" }, "at depth {depth}");
        assert_eq!(gates.passed(Gate::Release), if depth >= 5 { "10:5/5" } else { "" }, "at depth {depth}");
        // Before the credit there is nothing that could leave.
        assert_eq!(gates.is_released().await, !(3..5).contains(&depth), "at depth {depth}");
    }
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn w3_f13_both_gates_take_the_larger_of_then_and_now() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(10).await;
    // Raised while it waits: counts at once.
    gates.set(CREDIT, 4).await;
    gates.set(RELEASE, 7).await;
    gates.mine(2).await;
    assert_eq!(gates.passed(Gate::Credit), "");
    gates.mine(1).await;
    assert_eq!(gates.passed(Gate::Credit), "10:4/4");
    gates.pay(20).await;
    // Lowered while it waits: only later blocks. The first, seen under 5 and 3, is judged by those.
    gates.set(CREDIT, 1).await;
    gates.set(RELEASE, 2).await;
    gates.mine(1).await;
    assert_eq!((gates.passed(Gate::Credit).as_str(), gates.passed(Gate::Release).as_str()), ("10:4/4", "10:6/5"));
    gates.pay(30).await;
    gates.mine(1).await;
    assert_eq!(gates.passed(Gate::Credit), "10:4/4 30:1/1 20:4/4");
    assert_eq!(gates.passed(Gate::Release), "10:6/5 30:2/2");
    gates.mine(3).await;
    assert_eq!(gates.passed(Gate::Release), "10:6/5 30:2/2 20:7/7");
    assert!(gates.differing().await.is_empty(), "each follows from the rows it names");
}

#[tokio::test]
async fn w3_a_tier_begins_exactly_at_its_amount() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.set(gates.tier(Gate::Credit, 1_000), 5).await;
    gates.set(gates.tier(Gate::Release, 1_001), 8).await;
    for amount in [999, 1_000, 1_001] {
        gates.pay(amount).await;
    }
    gates.mine(7).await;
    assert_eq!(gates.passed(Gate::Credit), "999:3/3 1000:5/5 1001:5/5");
    assert_eq!(gates.passed(Gate::Release), "999:5/5 1000:5/5 1001:8/8");
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn w3_f13_a_tier_is_raised_and_switched_off_while_a_deposit_waits() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(1_000).await;
    // A tier that comes later holds for what waits.
    gates.set(gates.tier(Gate::Credit, 1_000), 5).await;
    gates.mine(2).await;
    gates.pay(2_000).await;
    assert_eq!(gates.passed(Gate::Credit), "", "four of five");
    gates.set(gates.tier(Gate::Credit, 1_000), 0).await;
    // The first was seen before the tier and is judged after it; the second was seen under it.
    gates.mine(3).await;
    assert_eq!(gates.passed(Gate::Credit), "1000:5/3");
    gates.mine(1).await;
    assert_eq!(gates.passed(Gate::Credit), "1000:5/3 2000:5/5");
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn w3_a_dated_change_counts_exactly_from_its_instant_on() {
    const INSTANT: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);
    let gates = Gates::ready(Finality::Depth).await;
    gates.watching.set(CREDIT, 6, Some(INSTANT)).await.unwrap();
    gates.watching.set(gates.tier(Gate::Credit, 50), 9, Some(INSTANT + Duration::days(1))).await.unwrap();
    gates.pay(10).await;
    gates.pay(50).await;
    gates.chain.mine(3).await.unwrap();
    gates.watching.scan().await.unwrap();
    gates.watching.confirm_at(INSTANT).await;
    assert_eq!(gates.passed(Gate::Credit), "", "five and four of six");
    gates.watching.confirm_at(INSTANT - Duration::microseconds(1)).await;
    assert_eq!(gates.passed(Gate::Credit), "10:5/3 50:4/3", "until then it is three");
    gates.pay(60).await;
    gates.chain.mine(5).await.unwrap();
    gates.watching.scan().await.unwrap();
    gates.watching.confirm_at(INSTANT + Duration::days(1)).await;
    assert_eq!(gates.passed(Gate::Credit), "10:5/3 50:4/3", "six of nine");
    gates.watching.confirm_at(INSTANT + Duration::days(1) - Duration::microseconds(1)).await;
    assert_eq!(gates.passed(Gate::Credit), "10:5/3 50:4/3 60:6/6");
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn w3_a_newer_row_overtakes_a_dated_one() {
    const INSTANT: OffsetDateTime = datetime!(2030-01-01 00:00 UTC);
    let gates = Gates::ready(Finality::Depth).await;
    gates.watching.set(CREDIT, 100, Some(INSTANT)).await.unwrap();
    gates.set(CREDIT, 4).await;
    gates.pay(10).await;
    gates.chain.mine(3).await.unwrap();
    gates.watching.scan().await.unwrap();
    gates.watching.confirm_at(INSTANT + Duration::days(1)).await;
    assert_eq!(gates.passed(Gate::Credit), "10:4/4");
}

#[tokio::test]
async fn w3_f10_a_clock_that_jumps_credits_nothing_early() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.set(CREDIT, 4).await;
    // Lowered in two years: a clock that is already there is wrong.
    gates.watching.set(CREDIT, 1, Some(NOW + Duration::days(300))).await.unwrap();
    gates.watching.set(RELEASE, 1, Some(NOW + Duration::days(300))).await.unwrap();
    gates.pay(10).await;
    for depth in 1..=5_u32 {
        for days in [0, 400, -10, -4_000] {
            gates.watching.scan().await.unwrap();
            gates.watching.confirm_at(NOW + Duration::days(days)).await;
            assert_eq!(gates.passed(Gate::Credit).is_empty(), depth < 4, "depth {depth}, {days} days off");
            assert_eq!(gates.passed(Gate::Release).is_empty(), depth < 5, "depth {depth}, {days} days off");
        }
        gates.chain.mine(1).await.unwrap();
    }
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn l8_w3_a_refused_change_leaves_nothing() {
    let gates = Gates::ready(Finality::Depth).await;
    let before = gates.settings();
    let past = gates.watching.set(CREDIT, 5, Some(datetime!(2026-01-01 00:00 UTC))).await.unwrap_err();
    assert!(matches!(past, SettingsError::Past { .. }), "{past:?}");
    let off = gates.watching.set(RELEASE, 0, None).await.unwrap_err();
    assert!(matches!(off, SettingsError::BaseOff(RELEASE)), "{off:?}");
    let none = gates.watching.set(gates.tier(Gate::Credit, 7), 0, None).await.unwrap_err();
    assert!(matches!(none, SettingsError::NoTier(_)), "{none:?}");
    let elsewhere = ThresholdKey { chain: amanatd::units::ChainId::new(5).unwrap(), ..gates.tier(Gate::Credit, 7) };
    let unset = gates.watching.set(elsewhere, 9, None).await.unwrap_err();
    assert!(matches!(unset, SettingsError::NoBase(_)), "{unset:?}");
    assert_eq!(gates.settings(), before);

    // A caller whose clock is a little behind means "at once".
    let database_now: OffsetDateTime =
        sqlx::query_scalar("select now()").fetch_one(&mut *gates.watching.database.connection().await.unwrap()).await.unwrap();
    let change = gates.watching.set(CREDIT, 5, Some(database_now - Duration::seconds(30))).await.unwrap();
    assert_eq!(change.effective_at, change.created_at);
}

/// F19: the tag goes back, and what was final stays final.
#[tokio::test]
async fn w3_f19_release_goes_by_the_final_block_which_never_goes_back() {
    let gates = Gates::ready(Finality::Finalized).await;
    let early = gates.tip().await;
    assert!(gates.name_final(early).await);
    gates.pay(10).await;
    let paid = gates.tip().await;
    gates.mine(9).await;
    assert_eq!((gates.passed(Gate::Credit).as_str(), gates.passed(Gate::Release).as_str()), ("10:3/3", ""), "deep, and not final");

    // Final, by another node's word than ours: that is no block of our line.
    let elsewhere = BlockRef { number: BlockNumber(paid.number.0 + 1), hash: B256::repeat_byte(9) };
    assert!(gates.name_final(elsewhere).await);
    gates.watching.confirm().await;
    assert_eq!(gates.passed(Gate::Release), "");
    assert!(!gates.is_released().await);

    let tip = gates.tip().await;
    assert!(gates.name_final(tip).await);
    gates.watching.confirm().await;
    assert_eq!(gates.passed(Gate::Release), "10:10/5");
    let named = gates.watching.base.sql("select final_number from transfer_verdicts where gate = 'release'").unwrap();
    assert_eq!(named.trim(), tip.number.to_string());

    assert!(!gates.name_final(paid).await, "it went back");
    assert_eq!(gates.watching.cursor().await.final_block, Some(tip));
    assert!(gates.differing().await.is_empty());
}

#[tokio::test]
async fn w3_exactly_the_final_block_may_leave_and_the_next_may_not() {
    let gates = Gates::ready(Finality::Safe).await;
    gates.pay(10).await;
    let first = gates.tip().await;
    gates.pay(20).await;
    gates.mine(1).await;
    assert!(gates.name_final(first).await);
    gates.watching.confirm().await;
    assert_eq!((gates.passed(Gate::Credit).as_str(), gates.passed(Gate::Release).as_str()), ("10:3/3", "10:3/5"));
    gates.mine(9).await;
    assert_eq!(gates.passed(Gate::Release), "10:3/5");
}

#[tokio::test]
async fn w3_f19_a_node_that_names_no_final_block_is_judged_by_depth() {
    let gates = Gates::ready(Finality::Finalized).await;
    gates.pay(10).await;
    gates.mine(3).await;
    assert_eq!(gates.passed(Gate::Release), "");
    gates.mine(1).await;
    assert_eq!(gates.passed(Gate::Release), "10:5/5");
}

#[tokio::test]
async fn w1_w3_a_credit_that_is_taken_back_takes_its_release_along() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(10).await;
    gates.mine(4).await;
    assert_eq!((gates.passed(Gate::Credit).as_str(), gates.passed(Gate::Release).as_str()), ("10:3/3", "10:5/5"));
    let passed = || gates.watching.base.sql("select gate_passed from transfer_observations").unwrap().trim().to_owned();
    assert_eq!(passed(), "release");

    gates.chain.reorg(5, vec![]).await.unwrap();
    gates.chain.mine(1).await.unwrap();
    gates.watching.follow().await;
    let mut connection = gates.watching.database.connection().await.unwrap();
    let broken = store::list_broken_credits(&mut connection, CHAIN, 10).await.unwrap();
    assert_eq!(broken.len(), 1, "one credit, not two verdicts");
    store::revoke(&mut connection, broken[0].verdict, NOW).await.unwrap();
    assert_eq!((gates.passed(Gate::Credit).as_str(), gates.passed(Gate::Release).as_str()), ("", ""));
    assert_eq!(passed(), "");
    assert!(store::revoke(&mut connection, broken[0].verdict, NOW).await.is_err());
    assert!(gates.differing().await.is_empty(), "what was revoked was right when it was decided");
}

/// The rules that hold whatever the code does.
#[tokio::test]
async fn w3_the_table_itself_releases_only_what_is_credited_and_deep_or_final() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(10).await;
    gates.mine(1).await;
    let tip = gates.tip().await.number.0;
    let insert = |gate: &str, depth: u64, threshold: u32, named: &str| {
        format!(
            "insert into transfer_verdicts (transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, \
             threshold, threshold_seen_history_id, threshold_now_history_id, gate, final_number, final_hash, judged_at, history_head_id) \
             select transfer_id, id, chain_id, block_number, block_hash, block_number + {depth} - 1, block_hash, {depth}, {threshold}, 1, 1, \
             '{gate}', {named}, now(), 2 from transfer_observations"
        )
    };
    let named = |number: u64| format!("{number}, block_hash");
    let refused = |statement: String| gates.watching.base.sql(&statement).unwrap_err().to_string();
    let uncredited = refused(insert("release", 9, 5, "null, null"));
    assert!(uncredited.contains("a sighting without a credit passes no release gate"), "{uncredited}");
    for statement in [insert("credit", 2, 3, "null, null"), insert("credit", 2, 3, &named(tip)), insert("credit", 3, 0, "null, null")] {
        let error = refused(statement);
        assert!(error.contains("transfer_verdicts_gate_reached") || error.contains("transfer_verdicts_final_is_of_release"), "{error}");
    }
    gates.watching.base.sql(&insert("credit", 3, 3, "null, null")).unwrap();
    for statement in [insert("release", 4, 5, "null, null"), insert("release", 4, 5, &named(1))] {
        let error = refused(statement);
        assert!(error.contains("transfer_verdicts_gate_reached"), "{error}");
    }
    gates.watching.base.sql(&insert("release", 4, 5, &named(tip))).unwrap();
}

#[tokio::test]
async fn w3_a_verdict_that_does_not_follow_from_the_history_is_found() {
    let gates = Gates::ready(Finality::Depth).await;
    gates.pay(10).await;
    gates.mine(4).await;
    assert!(gates.differing().await.is_empty());
    let sql = |statement: &str| gates.watching.base.sql(statement).unwrap();
    for (damage, mend) in [
        ("threshold = 2", "threshold = 3"),
        ("threshold_now_history_id = 2", "threshold_now_history_id = 1"),
        (
            "head_number = head_number - 1, depth = depth - 1, threshold = 2",
            "head_number = head_number + 1, depth = depth + 1, threshold = 3",
        ),
    ] {
        sql(&format!("update transfer_verdicts set {damage} where gate = 'credit'"));
        assert_eq!(gates.differing().await.len(), 1, "{damage}");
        sql(&format!("update transfer_verdicts set {mend} where gate = 'credit'"));
    }
    assert!(gates.differing().await.is_empty());
}

/// With a real node and its tag: two blocks behind the head, where an epoch is one block.
#[tokio::test]
async fn w3_what_the_node_itself_calls_final_may_leave() {
    let chain = LocalChain::start(ChainOptions { slots_in_an_epoch: 1, ..ChainOptions::default() }).await.unwrap();
    chain.deploy(contracts::test_usdc().bytecode).await.unwrap();
    chain.deploy(contracts::test_usdt().bytecode).await.unwrap();
    chain.mine(5).await.unwrap();
    let spec = ChainSpec { finality: Finality::Finalized, ..local_spec() };
    let watching = Watching::with(&[chain.url()], spec, ScanOptions::default()).await;
    watching.follow().await;
    let address = watching.issue().await;
    let hash = chain.send_native(PAYERS[0], address.address, U256::from(7)).await.unwrap();
    chain.mined(hash).await.unwrap();
    watching.follow().await;
    for depth in 2..=4_u64 {
        chain.mine(1).await.unwrap();
        // The final block is noted in the round that reads the head, and is there for the next.
        watching.follow().await;
        watching.follow().await;
        let released = watching.progress(&address).await[0].release.is_some();
        assert_eq!(released, depth >= 3, "depth {depth}: credited at three, final since three, five by depth");
    }
}
