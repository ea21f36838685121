//! Many confirmed transfers in one transaction, and what becomes of the others when one of them cannot be
//! posted.

use std::sync::Arc;

use amanatd::chains::ChainBook;
use amanatd::db::{Database, DatabaseLimits};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::ledger::{self, Bookkeeper};
use amanatd::units::Progress;

use crate::watching::{CHAIN, NOW, XPUB};

const USDC: &str = "5FbDB2315678afecb367f032d93F642f64180aa3";
const USDT: &str = "e7f1725E7734CE288F8367e1Bb143E90bb3F0512";

struct Confirmed {
    base: FreshDatabase,
    db: Database,
    bookkeeper: Bookkeeper,
}

impl Confirmed {
    /// So many transfers of one unit to an address of nobody, each with its verdict, of which some pay in
    /// another token and amount.
    async fn transfers(count: u32, odd: &[(u32, &str)]) -> Self {
        let base = FreshDatabase::create().unwrap();
        let cases: String = odd.iter().map(|(place, amount)| format!("when n = {place} then {amount}::numeric ")).collect();
        let amount = if cases.is_empty() { "1".to_owned() } else { format!("case {cases} else 1 end") };
        let odd: String = odd.iter().map(|(place, _)| format!("{place}, ")).collect();
        let rows = format!(
            "insert into trezor_accounts (id, label, account_index, path, xpub, fingerprint)
                 values ('01900000-0000-7000-8000-000000000001', 'test', 0, 'm/44''/60''/0''', '{XPUB}', '\\x01020304');
             insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose)
                 values ('01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000001', 0, 0, decode(repeat('11', 20), 'hex'), 'deposit');
             insert into config_settings (key, value) values ('confirmation_threshold:{CHAIN}', 3);
             insert into config_setting_history (key, new_value, changed_by, reason) values ('confirmation_threshold:{CHAIN}', 3, 'test', 'test');
             insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id)
                 values ({CHAIN}, 5, decode(repeat('05', 32), 'hex'), decode(repeat('04', 32), 'hex'), now(), 1);
             insert into transfers (chain_id, tx_hash, position)
                 select {CHAIN}, decode(lpad(to_hex(n), 64, '0'), 'hex'), 'log:0' from generate_series(1, {count}) n;
             insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount,
                     derived_address_id, internal)
                 select n, {CHAIN}, 5, decode(repeat('05', 32), 'hex'), decode(case when n in ({odd}0) then '{USDT}' else '{USDC}' end, 'hex'),
                     decode(repeat('33', 20), 'hex'), decode(repeat('11', 20), 'hex'), {amount}, '01900000-0000-7000-8000-000000000001', false
                 from generate_series(1, {count}) n;
             insert into transfer_verdicts (transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth,
                     threshold, threshold_seen_history_id, threshold_now_history_id)
                 select n, n, {CHAIN}, 5, decode(repeat('05', 32), 'hex'), 7, decode(repeat('07', 32), 'hex'), 3, 3, 1, 1
                 from generate_series(1, {count}) n;"
        );
        base.sql(&rows).unwrap();
        let db = Database::connect(&base.url(APP), DatabaseLimits { connections_max: 2, ..DatabaseLimits::default() }).await.unwrap();
        let book = Arc::new(ChainBook::parse(include_str!("../../chains.toml")).unwrap());
        let bookkeeper = Bookkeeper::new(db.clone(), book);
        Self { base, db, bookkeeper }
    }

    fn count(&self, sql: &str) -> i64 {
        self.base.sql(sql).unwrap().trim().parse().unwrap()
    }

    /// Entries, and the transactions in which they came.
    fn entries(&self) -> (i64, i64) {
        (self.count("select count(*) from funds_ledger_entries"), self.count("select count(distinct xmin::text) from funds_ledger_entries"))
    }

    async fn assert_sound(&self) {
        assert_eq!(ledger::store::list_drifting(&mut self.db.connection().await.unwrap()).await.unwrap(), []);
        let (once, keys) = (
            self.count("select count(*) from funds_ledger_entries"),
            self.count("select count(distinct idempotency_key) from funds_ledger_entries"),
        );
        assert_eq!(once, keys, "W1");
    }
}

#[tokio::test]
async fn w1_a_backlog_is_posted_in_few_transactions_each_transfer_once() {
    let confirmed = Confirmed::transfers(950, &[]).await;
    assert_eq!(confirmed.bookkeeper.tick(CHAIN, NOW).await.unwrap(), Progress::Worked);
    assert_eq!(confirmed.entries(), (950, 5), "two hundred share a transaction");
    assert_eq!(confirmed.bookkeeper.tick(CHAIN, NOW).await.unwrap(), Progress::Idle);
    assert_eq!(confirmed.count("select verdict_id from ledger_cursors"), 950);
    confirmed.assert_sound().await;
}

#[tokio::test]
async fn k7_a_poisoned_transfer_holds_no_other_of_its_batch_up() {
    // Twice all there can be of a token, at one address: the second does not fit.
    let most = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    let confirmed = Confirmed::transfers(500, &[(230, most), (260, most)]).await;
    assert_eq!(confirmed.bookkeeper.tick(CHAIN, NOW).await.unwrap(), Progress::Worked);
    // The first batch and the third whole, the second one by one but for the one that waits in sight.
    assert_eq!(confirmed.entries(), (499, 1 + 199 + 1));
    assert_eq!(confirmed.count("select verdict_id from ledger_unposted where posted_at is null"), 260);
    confirmed.assert_sound().await;
    confirmed.bookkeeper.tick(CHAIN, NOW).await.unwrap();
    assert_eq!(confirmed.entries().0, 499);

    // Somebody else's posting of one of them meanwhile, as after an unknown commit: nothing is posted twice.
    let other = Confirmed::transfers(300, &[]).await;
    let slow = "insert into ledger_accounts (kind, chain_id, asset, address) values ('custody', 31337, decode('USDC', 'hex'), decode(repeat('11', 20), 'hex')); \
         insert into ledger_accounts (kind, chain_id, asset) values ('suspense', 31337, decode('USDC', 'hex')); \
         insert into funds_ledger_entries (entry_type, chain_id, asset, debit_account_id, credit_account_id, amount_units, asset_decimals, \
             idempotency_key, memo) values ('adjustment', 31337, decode('USDC', 'hex'), 1, 2, 1, 6, 'verdict:77:credit', 'by another')";
    other.base.sql(&slow.replace("USDC", USDC)).unwrap();
    assert_eq!(other.bookkeeper.tick(CHAIN, NOW).await.unwrap(), Progress::Worked);
    assert_eq!(other.entries(), (300, 1 + 2));
    other.assert_sound().await;
}
