//! The ledger's promises, kept by the real database: conservation, no overdraft, exactly once,
//! append-only, and a refusal that leaves no trace; by races of many writers, and by a model that
//! does at random what the rooms do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, U256, address};
use amanatd::db::{Database, DatabaseLimits, DbError};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::ledger::{self, AccountKey, Entry, EntryType, LedgerError, posting};
use amanatd::units::{Asset, AssetId, ChainId, LedgerEntryId, PaymentId, TokenAmount};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::watching::{CHAIN, XPUB};

pub(crate) const DEPOSIT: Address = address!("1111111111111111111111111111111111111111");
pub(crate) const TREASURY: Address = address!("2222222222222222222222222222222222222222");
const USDC: Address = address!("5FbDB2315678afecb367f032d93F642f64180aa3");

pub(crate) fn usdc() -> AssetId {
    AssetId { chain: CHAIN, asset: Asset::Token(USDC) }
}

pub(crate) fn native() -> AssetId {
    AssetId { chain: CHAIN, asset: Asset::Native }
}

/// A ledger of its own with some payments to book for.
pub(crate) struct Books {
    pub(crate) base: FreshDatabase,
    pub(crate) db: Database,
    pub(crate) payments: Vec<PaymentId>,
}

impl Books {
    pub(crate) async fn open(payments: u128) -> Self {
        let base = FreshDatabase::create().unwrap();
        let limits = DatabaseLimits { connections_max: 16, ..DatabaseLimits::default() };
        let db = Database::connect(&base.url(APP), limits).await.unwrap();
        let payments: Vec<PaymentId> = (1..=payments).map(|number| PaymentId(Uuid::from_u128(number))).collect();
        for payment in &payments {
            let insert = format!(
                "insert into payments (id, amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, \
                 seller_address, expires_at) values ('{payment}', 1, 'USDC', {CHAIN}, '\\x{USDC:x}', 'USDC', 6, 1, '\\x{TREASURY:x}', now())"
            );
            base.sql(&insert).unwrap();
        }
        Self { base, db, payments }
    }

    /// Payouts that are planned: without one, no release and no refund is posted. One for each amount.
    pub(crate) fn order(&self, payment: PaymentId, kind: &str, asset: AssetId, amounts: std::ops::RangeInclusive<u64>) {
        let (first, last) = (amounts.start(), amounts.end());
        let marker = asset.asset.marker();
        let decimals = if asset.asset == Asset::Native { 18 } else { 6 };
        let statements = format!(
            "insert into trezor_accounts (label, account_index, path, xpub, fingerprint) \
                 select 'test', 0, 'm/44''/60''/0''', '{XPUB}', '\\x01020304' where not exists (select from trezor_accounts); \
             insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose) \
                 select gen_random_uuid(), id, 0, 0, '\\x{DEPOSIT:x}', 'deposit' from trezor_accounts \
                 where not exists (select from trezor_derived_addresses); \
             insert into intents (id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, \
                 max_fee_per_gas, max_priority_fee_per_gas, payment_id, digest, approvals_required, requested_by) \
             select gen_random_uuid(), '{kind}', {CHAIN}, a.id, a.address, '\\x{TREASURY:x}', '\\x{marker:x}', n, \
                 (select count(*) from intents) + n, 65000, 2, 1, '{payment}', decode(repeat('e1', 32), 'hex'), 1, 'test' \
             from generate_series({first}, {last}) n, (select * from trezor_derived_addresses limit 1) a; \
             insert into payment_payouts (id, payment_id, kind, state, chain_id, asset, asset_decimals, source, gross_units, \
                 platform_fee_units, provider_fee_units, net_units, to_address, requested_by, intent_id, reservation_key) \
             select i.id, i.payment_id, '{kind}', 'planned', i.chain_id, i.asset, {decimals}, 'held', i.amount, 0, 0, i.amount, i.to_address, \
                 'test', i.id, 'payout:' || i.id || ':reserve' \
             from intents i where i.payment_id = '{payment}' and i.kind = '{kind}' \
                 and not exists (select from payment_payouts y where y.intent_id = i.id)"
        );
        self.base.sql(&statements).unwrap();
    }

    /// A release of so many units is under way.
    pub(crate) fn order_release(&self, payment: PaymentId, units: u64) {
        self.order(payment, "release", usdc(), units..=units);
    }

    pub(crate) async fn post(&self, entries: Vec<Entry>) -> Result<(), LedgerError> {
        post(&self.db, entries).await
    }

    pub(crate) async fn balance(&self, asset: AssetId, key: AccountKey) -> U256 {
        ledger::store::balance(&mut self.db.connection().await.unwrap(), asset, key).await.unwrap().units
    }

    pub(crate) async fn entry(&self, key: &str) -> ledger::store::PostedEntry {
        ledger::store::find(&mut self.db.connection().await.unwrap(), key).await.unwrap().unwrap()
    }

    pub(crate) async fn assert_sound(&self) {
        let mut connection = self.db.connection().await.unwrap();
        assert_eq!(ledger::store::list_drifting(&mut connection).await.unwrap(), [], "L2: a balance differs from its entries");
        let mut sides: BTreeMap<AssetId, (U256, U256)> = BTreeMap::new();
        for row in ledger::store::list_totals(&mut connection).await.unwrap() {
            let sides = sides.entry(row.total.asset).or_default();
            let side = if row.kind.is_debit_normal() { &mut sides.0 } else { &mut sides.1 };
            *side += row.total.units;
        }
        for (asset, (debit, credit)) in sides {
            assert_eq!(debit, credit, "L1: {asset}");
        }
    }

    /// Every row of every table, as text.
    fn dump(&self) -> String {
        let sql = "select string_agg(table_name || query_to_xml(format('select * from %I order by 1', table_name), true, false, '')::text, '' \
             order by table_name) from information_schema.tables where table_schema = 'public'";
        self.base.sql(sql).unwrap()
    }

    /// The refusal changes nothing at all.
    async fn refused(&self, entries: Vec<Entry>) -> LedgerError {
        let before = self.dump();
        let error = self.post(entries.clone()).await.expect_err(&format!("{entries:?} must be refused"));
        assert_eq!(self.dump(), before, "L8: {error:?} left a trace");
        error
    }
}

pub(crate) async fn post(db: &Database, entries: Vec<Entry>) -> Result<(), LedgerError> {
    db.unit(move |connection| Box::pin(async move { ledger::store::append(connection, &entries).await })).await
}

pub(crate) fn entry(
    entry_type: EntryType,
    payment: Option<PaymentId>,
    amount: TokenAmount,
    legs: (AccountKey, AccountKey),
    key: &str,
) -> Entry {
    let (debit, credit) = legs;
    let decimals = if amount.asset.asset == Asset::Native { 18 } else { 6 };
    Entry { entry_type, payment, amount, decimals, debit, credit, reverses: None, key: key.to_owned(), memo: "test".to_owned() }
}

pub(crate) fn units(units: u64) -> TokenAmount {
    TokenAmount::new(usdc(), U256::from(units))
}

/// A deposit of a payment.
pub(crate) fn detected(payment: PaymentId, amount: TokenAmount, key: &str) -> Entry {
    let legs = (AccountKey::Custody(DEPOSIT), AccountKey::Received(payment));
    entry(EntryType::PaymentDetected, Some(payment), amount, legs, key)
}

pub(crate) fn held(payment: PaymentId, amount: TokenAmount, key: &str) -> Entry {
    entry(EntryType::Hold, Some(payment), amount, (AccountKey::Received(payment), AccountKey::Held(payment)), key)
}

/// Takes a hold for an outflow.
pub(crate) fn reserved(payment: PaymentId, amount: TokenAmount, key: &str) -> Entry {
    entry(EntryType::Hold, Some(payment), amount, (AccountKey::Held(payment), AccountKey::Payable(payment)), key)
}

pub(crate) fn released(payment: PaymentId, amount: TokenAmount, key: &str) -> Entry {
    entry(EntryType::Release, Some(payment), amount, (AccountKey::Payable(payment), AccountKey::Custody(DEPOSIT)), key)
}

fn constraint(error: &LedgerError) -> Option<String> {
    match error {
        LedgerError::Db(error) => error.constraint().map(str::to_owned),
        _ => None,
    }
}

// === one writer ===

#[tokio::test]
async fn s4_the_database_refuses_a_release_or_refund_that_was_not_ordered() {
    let books = Books::open(2).await;
    let (one, two) = (books.payments[0], books.payments[1]);
    for payment in [one, two] {
        let funded = vec![
            detected(payment, units(100), &format!("{payment}-a")),
            held(payment, units(100), &format!("{payment}-b")),
            reserved(payment, units(100), &format!("{payment}-c")),
        ];
        books.post(funded).await.unwrap();
    }
    let refund = |payment, amount, key: &str| Entry { entry_type: EntryType::Refund, ..released(payment, amount, key) };
    books.order_release(two, 40);
    // Nothing ordered at all, for another payment, of another kind, of another amount.
    for entries in [
        vec![released(one, units(40), "a-1")],
        vec![refund(one, units(40), "a-2")],
        vec![refund(two, units(40), "a-3")],
        vec![released(two, units(41), "a-4")],
        vec![released(two, units(40), "a-5"), released(one, units(40), "a-6")],
    ] {
        let error = books.refused(entries).await;
        assert_eq!(constraint(&error).as_deref(), Some("funds_ledger_entries_payout_ordered"), "{error:?}");
    }
    books.post(vec![released(two, units(40), "b-1")]).await.unwrap();
    // What has settled pays no more.
    books.base.sql("update payment_payouts set state = 'settled', closed_at = now()").unwrap();
    let error = books.refused(vec![released(two, units(40), "b-2")]).await;
    assert_eq!(constraint(&error).as_deref(), Some("funds_ledger_entries_payout_ordered"));

    // Nor can whoever writes as the daemon plan what was not ordered.
    for kind in ["release", "refund"] {
        let plan = format!(
            "insert into intents (id, kind, chain_id, from_address_id, from_address, to_address, asset, amount, nonce, gas_limit, \
             max_fee_per_gas, max_priority_fee_per_gas, payment_id, digest, approvals_required, requested_by) \
             select gen_random_uuid(), '{kind}', chain_id, from_address_id, from_address, to_address, asset, amount, 999, gas_limit, \
             max_fee_per_gas, max_priority_fee_per_gas, payment_id, digest, 1, 'daemon' from intents limit 1"
        );
        let outcome: Result<(), DbError> = books
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    sqlx::query(sqlx::AssertSqlSafe(plan)).execute(connection).await?;
                    Ok(())
                })
            })
            .await;
        let error = outcome.expect_err("nothing was ordered");
        assert_eq!(error.constraint(), Some("intents_payout_ordered"), "{error:?}");
    }
    books.assert_sound().await;
}

#[tokio::test]
async fn l1_l2_balances_are_the_sum_of_their_entries() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(100), "a-1")]).await.unwrap();
    books.post(vec![detected(payment, units(50), "a-2"), held(payment, units(120), "a-3")]).await.unwrap();
    books.post(vec![reserved(payment, units(120), "a-4")]).await.unwrap();
    books.order_release(payment, 120);
    books.post(vec![released(payment, units(120), "a-5")]).await.unwrap();
    books.post(Vec::new()).await.unwrap();

    let expected = [
        (AccountKey::Custody(DEPOSIT), 30_u64),
        (AccountKey::Received(payment), 30),
        (AccountKey::Held(payment), 0),
        (AccountKey::Payable(payment), 0),
        (AccountKey::Disputed(payment), 0),
    ];
    for (key, balance) in expected {
        assert_eq!(books.balance(usdc(), key).await, U256::from(balance), "{key:?}");
    }
    assert_eq!(books.balance(native(), AccountKey::Custody(DEPOSIT)).await, U256::ZERO);
    let versions = "select a.kind, b.version from ledger_balances b join ledger_accounts a on a.id = b.account_id order by a.kind::text";
    assert_eq!(books.base.sql(versions).unwrap().trim(), "custody|3\nheld|2\npayable|2\nreceived|3");
    books.assert_sound().await;
    let posted = ledger::store::list(&mut books.db.connection().await.unwrap(), Some(payment), LedgerEntryId(0), 10).await.unwrap();
    assert_eq!(posted.iter().map(|posted| posted.entry.key.as_str()).collect::<Vec<_>>(), ["a-1", "a-2", "a-3", "a-4", "a-5"]);
    assert_eq!(posted[0].entry, detected(payment, units(100), "a-1"), "what was written is what is read");
}

#[tokio::test]
async fn l2_a_balance_that_was_changed_is_found() {
    let books = Books::open(1).await;
    books.post(vec![detected(books.payments[0], units(100), "a-1")]).await.unwrap();
    for damage in [
        "update ledger_balances set balance = balance + 1 where account_id = 1",
        "update ledger_balances set balance = balance - 1 where account_id = 1",
        "update ledger_balances set version = version + 1 where account_id = 1",
        "delete from ledger_balances where account_id = 1",
    ] {
        let found = async || ledger::store::list_drifting(&mut books.db.connection().await.unwrap()).await.unwrap();
        assert_eq!(found().await, []);
        let before = books.base.sql("select balance, version from ledger_balances where account_id = 1").unwrap();
        let (balance, version) = before.trim().split_once('|').unwrap();
        books.base.sql(damage).unwrap();
        assert_eq!(found().await.len(), 1, "{damage}");
        let mend = format!(
            "insert into ledger_balances (account_id, balance, version, chain_id, asset, debit_normal) \
             select id, {balance}, {version}, chain_id, asset, debit_normal from ledger_accounts where id = 1 \
             on conflict (account_id) do update set balance = excluded.balance, version = excluded.version"
        );
        books.base.sql(&mend).unwrap();
    }
}

#[tokio::test]
async fn l3_l8_an_overdraft_is_refused_without_a_trace() {
    let books = Books::open(2).await;
    let (payment, stranger) = (books.payments[0], books.payments[1]);
    books.post(vec![detected(payment, units(100), "a-1"), held(payment, units(100), "a-2")]).await.unwrap();
    let overdrafts = [
        vec![reserved(payment, units(101), "b-1")],
        // An account that was never opened.
        vec![reserved(stranger, units(1), "b-2")],
        // The second takes what the first left.
        vec![reserved(payment, units(60), "b-3"), reserved(payment, units(60), "b-4")],
        // One that could be posted, and one that cannot: neither is.
        vec![detected(payment, units(5), "b-5"), reserved(payment, units(101), "b-6")],
        // Money of another asset at the same address.
        vec![entry(
            EntryType::NetworkFee,
            None,
            TokenAmount::new(native(), U256::from(1)),
            (AccountKey::NetworkFee, AccountKey::Custody(DEPOSIT)),
            "b-7",
        )],
        // More than a uint256 in one account.
        vec![detected(payment, TokenAmount::new(usdc(), U256::MAX), "b-8")],
    ];
    for entries in overdrafts {
        let key = entries[0].key.clone();
        let error = books.refused(entries).await;
        assert!(matches!(&error, LedgerError::Overdraft { key: named } if *named == key), "{error:?}");
    }
    // Within one statement, what comes in can go out: only the sum counts.
    books.order_release(payment, 100);
    books.post(vec![reserved(payment, units(100), "c-1"), released(payment, units(100), "c-2")]).await.unwrap();
    books.assert_sound().await;
}

#[tokio::test]
async fn l8_a_posting_that_is_no_posting_is_refused_without_a_trace() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(100), "a-1")]).await.unwrap();
    let good = detected(payment, units(1), "b-1");
    let received = AccountKey::Received(payment);
    let unknown = PaymentId(Uuid::from_u128(99));
    let cases = [
        (Entry { amount: units(0), ..good.clone() }, "funds_ledger_entries_amount_positive"),
        (Entry { debit: received, credit: received, ..good.clone() }, "funds_ledger_entries_accounts_differ"),
        (Entry { decimals: 19, ..good.clone() }, "funds_ledger_entries_decimals_bounds"),
        (Entry { key: "k".to_owned(), ..good.clone() }, "funds_ledger_entries_idempotency_key_form"),
        (Entry { key: "k".repeat(161), ..good.clone() }, "funds_ledger_entries_idempotency_key_form"),
        (Entry { payment: Some(unknown), ..good.clone() }, "funds_ledger_entries_payment_id_fkey"),
        (Entry { credit: AccountKey::Held(unknown), ..good.clone() }, "ledger_accounts_payment_id_fkey"),
        (Entry { entry_type: EntryType::Reversal, ..good.clone() }, "funds_ledger_entries_reversal_names_entry"),
        (Entry { reverses: Some(LedgerEntryId(1)), ..good.clone() }, "funds_ledger_entries_reversal_names_entry"),
    ];
    for (bad, name) in cases {
        let error = books.refused(vec![bad.clone()]).await;
        assert_eq!(constraint(&error).as_deref(), Some(name), "{bad:?}: {error:?}");
        // Together with a good one it takes that one along.
        books.refused(vec![detected(payment, units(7), "b-2"), bad]).await;
    }
    books.post(vec![good]).await.unwrap();
}

#[tokio::test]
async fn w1_a_key_is_posted_once() {
    let books = Books::open(2).await;
    let (payment, other) = (books.payments[0], books.payments[1]);
    books.post(vec![detected(payment, units(100), "a-1")]).await.unwrap();
    for again in [
        vec![detected(payment, units(100), "a-1")],
        vec![detected(other, units(3), "a-1")],
        // A half duplicate fails whole.
        vec![detected(payment, units(5), "b-1"), detected(payment, units(100), "a-1")],
        vec![detected(payment, units(5), "b-2"), detected(payment, units(6), "b-2")],
    ] {
        let error = books.refused(again).await;
        assert!(matches!(error, LedgerError::AlreadyPosted { .. }), "{error:?}");
    }
    assert_eq!(books.balance(usdc(), AccountKey::Received(payment)).await, U256::from(100));
}

#[tokio::test]
async fn l7_a_reversal_mirrors_its_entry_once() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(100), "a-1"), detected(payment, units(30), "a-2")]).await.unwrap();
    books
        .post(vec![entry(
            EntryType::Adjustment,
            None,
            TokenAmount::new(native(), U256::from(100)),
            (AccountKey::Custody(DEPOSIT), AccountKey::Operator),
            "a-3",
        )])
        .await
        .unwrap();
    let of = books.entry("a-1").await;
    let mirror = posting::reversal(&of, "test");
    let bad = [
        Entry { amount: units(99), ..mirror.clone() },
        Entry { amount: units(101), ..mirror.clone() },
        // The same direction again, another account, another asset, an entry that is not there.
        Entry { debit: mirror.credit, credit: mirror.debit, ..mirror.clone() },
        Entry { credit: AccountKey::Custody(TREASURY), ..mirror.clone() },
        Entry { debit: AccountKey::Held(payment), ..mirror.clone() },
        Entry { amount: TokenAmount::new(native(), U256::from(100)), ..mirror.clone() },
    ];
    for bad in bad {
        let error = books.refused(vec![bad.clone()]).await;
        let refused = constraint(&error).is_some_and(|name| name == "funds_ledger_entries_reversal_mirrors");
        assert!(refused, "{bad:?}: {error:?}");
    }
    let ghost = Entry { reverses: Some(LedgerEntryId(1_000)), ..mirror.clone() };
    let error = books.refused(vec![ghost]).await;
    assert_eq!(constraint(&error).as_deref(), Some("funds_ledger_entries_reverses_fkey"));

    books.post(vec![mirror.clone()]).await.unwrap();
    let reversal = books.entry(&mirror.key).await;
    assert_eq!(reversal.entry.reverses, Some(of.id));
    for again in [mirror.clone(), Entry { key: "another key".to_owned(), ..mirror.clone() }] {
        let error = books.refused(vec![again]).await;
        assert!(matches!(error, LedgerError::AlreadyPosted { .. }), "{error:?}");
    }
    // A reversal of a reversal would post the entry again under another name.
    let back = posting::reversal(&reversal, "test");
    let error = books.refused(vec![back]).await;
    assert_eq!(constraint(&error).as_deref(), Some("funds_ledger_entries_reversal_mirrors"));
    assert_eq!(books.balance(usdc(), AccountKey::Received(payment)).await, U256::from(30));
    books.assert_sound().await;
}

#[tokio::test]
async fn l9_amounts_are_exact_from_end_to_end() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    let two = U256::from(2);
    let edges = [
        U256::from(1),
        two.pow(U256::from(64)),
        two.pow(U256::from(96)) - U256::from(1),
        two.pow(U256::from(96)),
        two.pow(U256::from(96)) + U256::from(1),
        two.pow(U256::from(128)),
        U256::from(10).pow(U256::from(77)),
        U256::MAX,
    ];
    for (place, edge) in edges.into_iter().enumerate() {
        // An asset of its own for each, so that they do not add up.
        let asset = AssetId { chain: CHAIN, asset: Asset::Token(Address::repeat_byte(u8::try_from(place + 1).unwrap())) };
        let key = format!("edge-{place}");
        books.post(vec![detected(payment, TokenAmount::new(asset, edge), &key)]).await.unwrap();
        assert_eq!(books.entry(&key).await.entry.amount, TokenAmount::new(asset, edge));
        assert_eq!(books.balance(asset, AccountKey::Received(payment)).await, edge);
        assert_eq!(books.balance(asset, AccountKey::Custody(DEPOSIT)).await, edge);
    }
    books.assert_sound().await;
}

#[tokio::test]
async fn accounts_of_another_chain_are_other_accounts() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    let elsewhere = AssetId { chain: ChainId::new(1).unwrap(), asset: Asset::Token(USDC) };
    books.post(vec![detected(payment, units(5), "a-1")]).await.unwrap();
    books.post(vec![detected(payment, TokenAmount::new(elsewhere, U256::from(7)), "a-2")]).await.unwrap();
    assert_eq!(books.balance(usdc(), AccountKey::Received(payment)).await, U256::from(5));
    assert_eq!(books.balance(elsewhere, AccountKey::Received(payment)).await, U256::from(7));
}

// === many writers ===

/// Posts all at once; how many succeeded, and the errors of the others.
pub(crate) async fn race(books: &Books, postings: Vec<Vec<Entry>>) -> (usize, Vec<LedgerError>) {
    let mut tasks = JoinSet::new();
    for entries in postings {
        let db = books.db.clone();
        tasks.spawn(async move { post(&db, entries).await });
    }
    let outcomes = tasks.join_all().await;
    let total = outcomes.len();
    let errors: Vec<LedgerError> = outcomes.into_iter().filter_map(Result::err).collect();
    (total - errors.len(), errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_concurrent_releases_pay_once() {
    let books = Books::open(7).await;
    let rivals = [2, 3, 4, 8, 16, 32, 64];
    for (payment, rivals) in books.payments.clone().into_iter().zip(rivals) {
        books
            .post(vec![detected(payment, units(100), &format!("{payment}-a")), held(payment, units(100), &format!("{payment}-b"))])
            .await
            .unwrap();
        let postings = (0..rivals).map(|rival| vec![reserved(payment, units(100), &format!("{payment}-{rival}"))]).collect();
        let (won, errors) = race(&books, postings).await;
        assert_eq!(won, 1, "{won} of {rivals} took one hold");
        for error in errors {
            assert!(matches!(error, LedgerError::Overdraft { .. }), "{error:?}");
        }
        assert_eq!(books.balance(usdc(), AccountKey::Held(payment)).await, U256::ZERO);
        assert_eq!(books.balance(usdc(), AccountKey::Payable(payment)).await, U256::from(100));
    }
    books.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l3_parts_of_a_hold_go_out_up_to_its_amount() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(100), "a-1"), held(payment, units(100), "a-2")]).await.unwrap();
    let (won, _) = race(&books, (0..64).map(|rival| vec![reserved(payment, units(7), &format!("part-{rival}"))]).collect()).await;
    assert_eq!(won, 14, "fourteen sevens are in a hundred");
    assert_eq!(books.balance(usdc(), AccountKey::Held(payment)).await, U256::from(2));
    books.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn w1_concurrent_postings_of_one_key_post_once() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    let (won, errors) = race(&books, (0..64).map(|_| vec![detected(payment, units(5), "the-one")]).collect()).await;
    assert_eq!(won, 1);
    for error in errors {
        assert!(matches!(error, LedgerError::AlreadyPosted { .. }), "{error:?}");
    }
    assert_eq!(books.balance(usdc(), AccountKey::Received(payment)).await, U256::from(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l7_concurrent_reversals_of_one_entry_reverse_once() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    // Enough is there for a second reversal to go unnoticed by the balances.
    let fund = (0..64).map(|place| detected(payment, units(100), &format!("fund-{place}"))).collect();
    books.post(fund).await.unwrap();
    let of = books.entry("fund-0").await;
    let same_key = (0..32).map(|_| vec![posting::reversal(&of, "test")]);
    let own_key = (0..32).map(|rival| vec![Entry { key: format!("rival-{rival}"), ..posting::reversal(&of, "test") }]);
    let (won, errors) = race(&books, same_key.chain(own_key).collect()).await;
    assert_eq!(won, 1);
    for error in errors {
        assert!(matches!(error, LedgerError::AlreadyPosted { .. }), "{error:?}");
    }
    assert_eq!(books.balance(usdc(), AccountKey::Received(payment)).await, U256::from(6_300));
    books.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_postings_in_opposite_directions_do_not_deadlock() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    books.post(vec![detected(payment, units(10_000), "a-1"), held(payment, units(5_000), "a-2")]).await.unwrap();
    let (received, held) = (AccountKey::Received(payment), AccountKey::Held(payment));
    let postings = (0..64).map(|place| {
        let legs = if place % 2 == 0 { (received, held) } else { (held, received) };
        vec![entry(EntryType::Adjustment, Some(payment), units(10), legs, &format!("swing-{place}"))]
    });
    let (won, errors) = race(&books, postings.collect()).await;
    assert_eq!((won, errors.len()), (64, 0), "{errors:?}");
    assert_eq!(books.balance(usdc(), held).await, U256::from(5_000));
    books.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_accounts_are_opened_once_by_many() {
    let books = Books::open(1).await;
    let payment = books.payments[0];
    let postings =
        (0..64).map(|place| vec![detected(payment, units(1), &format!("new-{place}")), held(payment, units(1), &format!("hold-{place}"))]);
    let (won, errors) = race(&books, postings.collect()).await;
    assert_eq!((won, errors.len()), (64, 0), "{errors:?}");
    assert_eq!(books.base.sql("select count(*) from ledger_accounts").unwrap().trim(), "3");
    books.assert_sound().await;
}

// === the model ===

/// What a room might do; numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Act {
    Detect { payment: usize, coin: bool, units: u64 },
    Move { payment: usize, coin: bool, step: Step, units: u64 },
    Sweep { coin: bool, units: u64 },
    Fee { units: u64 },
    Reverse { entry: usize },
    ReverseUnderAnotherKey { entry: usize },
    Repeat { entry: usize },
    Both { payment: usize, first: u64, second: u64 },
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Hold,
    Reserve,
    GiveBack,
    Release,
    Refund,
    Dispute,
    Resolve,
    PlatformFee,
}

impl Step {
    const ALL: [Self; 8] =
        [Self::Hold, Self::Reserve, Self::GiveBack, Self::Release, Self::Refund, Self::Dispute, Self::Resolve, Self::PlatformFee];

    fn entry(self, payment: PaymentId, amount: TokenAmount, key: &str) -> Entry {
        use AccountKey::{Custody, Disputed, Held, Payable, PlatformFee, Received};
        let (entry_type, debit, credit) = match self {
            Self::Hold => (EntryType::Hold, Received(payment), Held(payment)),
            Self::Reserve => (EntryType::Hold, Held(payment), Payable(payment)),
            Self::GiveBack => (EntryType::Adjustment, Payable(payment), Held(payment)),
            Self::Release => (EntryType::Release, Payable(payment), Custody(TREASURY)),
            Self::Refund => (EntryType::Refund, Payable(payment), Custody(DEPOSIT)),
            Self::Dispute => (EntryType::DisputeHold, Held(payment), Disputed(payment)),
            Self::Resolve => (EntryType::Adjustment, Disputed(payment), Held(payment)),
            Self::PlatformFee => (EntryType::PlatformFee, Held(payment), PlatformFee),
        };
        entry(entry_type, Some(payment), amount, (debit, credit), key)
    }
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let (payment, units) = (0_usize..3, 1_u64..200);
    let act = prop_oneof![
        4 => (payment.clone(), any::<bool>(), units.clone()).prop_map(|(payment, coin, units)| Act::Detect { payment, coin, units }),
        8 => (payment.clone(), any::<bool>(), proptest::sample::select(Step::ALL.to_vec()), units.clone())
            .prop_map(|(payment, coin, step, units)| Act::Move { payment, coin, step, units }),
        2 => (any::<bool>(), units.clone()).prop_map(|(coin, units)| Act::Sweep { coin, units }),
        1 => units.clone().prop_map(|units| Act::Fee { units }),
        3 => (0_usize..100).prop_map(|entry| Act::Reverse { entry }),
        1 => (0_usize..100).prop_map(|entry| Act::ReverseUnderAnotherKey { entry }),
        2 => (0_usize..100).prop_map(|entry| Act::Repeat { entry }),
        2 => (payment, units.clone(), units).prop_map(|(payment, first, second)| Act::Both { payment, first, second }),
    ];
    proptest::collection::vec(act, 40)
}

/// What the outcome of a posting is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Posted,
    Overdraft,
    AlreadyPosted,
    NoMirror,
    NoPayout,
}

/// A ledger of maps.
#[derive(Default)]
struct Reference {
    /// Balance and version.
    accounts: BTreeMap<(AssetId, AccountKey), (i128, i64)>,
    posted: Vec<(LedgerEntryId, Entry)>,
    keys: BTreeSet<String>,
    reversed: BTreeSet<i64>,
    /// The payment for which everything was ordered; for the others nothing was.
    ordered: Option<PaymentId>,
}

impl Reference {
    fn expect(&self, entries: &[Entry]) -> Outcome {
        let mut keys = self.keys.clone();
        let mut reversed = self.reversed.clone();
        for entry in entries {
            let fresh = keys.insert(entry.key.clone());
            if !fresh || entry.reverses.is_some_and(|of| !reversed.insert(of.0)) {
                return Outcome::AlreadyPosted;
            }
        }
        for of in entries.iter().filter_map(|entry| entry.reverses) {
            if self.posted.iter().any(|(id, entry)| *id == of && entry.entry_type == EntryType::Reversal) {
                return Outcome::NoMirror;
            }
        }
        let leaves = |entry: &Entry| matches!(entry.entry_type, EntryType::Release | EntryType::Refund);
        if entries.iter().any(|entry| leaves(entry) && entry.payment != self.ordered) {
            return Outcome::NoPayout;
        }
        let after = self.after(entries);
        if after.values().any(|(balance, _)| *balance < 0) { Outcome::Overdraft } else { Outcome::Posted }
    }

    fn after(&self, entries: &[Entry]) -> BTreeMap<(AssetId, AccountKey), (i128, i64)> {
        let mut accounts = self.accounts.clone();
        for entry in entries {
            let units: i128 = entry.amount.units.to::<u64>().into();
            for (key, debited) in [(entry.debit, true), (entry.credit, false)] {
                let account = accounts.entry((entry.amount.asset, key)).or_default();
                account.0 += if key.kind().is_debit_normal() == debited { units } else { -units };
                account.1 += 1;
            }
        }
        accounts
    }

    /// L6: per payment and asset, what came in is what is there and what went out.
    fn assert_payments_conserved(&self) {
        let mut flows: BTreeMap<(PaymentId, AssetId), i128> = BTreeMap::new();
        for (_, entry) in &self.posted {
            let units: i128 = entry.amount.units.to::<u64>().into();
            if let (Some(payment), None) = (entry.credit.payment(), entry.debit.payment()) {
                *flows.entry((payment, entry.amount.asset)).or_default() += units;
            }
            if let (Some(payment), None) = (entry.debit.payment(), entry.credit.payment()) {
                *flows.entry((payment, entry.amount.asset)).or_default() -= units;
            }
        }
        for ((payment, asset), net) in flows {
            let claims: i128 = self
                .accounts
                .iter()
                .filter(|((of, key), _)| *of == asset && key.payment() == Some(payment))
                .map(|(_, (balance, _))| *balance)
                .sum();
            assert_eq!(net, claims, "L6: payment {payment} in {asset}");
        }
    }
}

#[test]
fn l1_l2_l3_l6_the_ledger_does_what_a_ledger_of_maps_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases: 32, failure_persistence: None, max_shrink_iters: 64, ..Config::default() };
    let tally = Arc::new(std::sync::Mutex::new(BTreeMap::<String, u32>::new()));
    let counted = Arc::clone(&tally);
    TestRunner::new(config)
        .run(&acts(), |acts| {
            runtime.block_on(replay(acts, &counted));
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
    let tally = tally.lock().unwrap();
    // A kind of outcome that never came was not tested.
    for outcome in [Outcome::Posted, Outcome::Overdraft, Outcome::AlreadyPosted, Outcome::NoMirror, Outcome::NoPayout] {
        assert!(tally.get(&format!("{outcome:?}")).is_some_and(|count| *count > 5), "{outcome:?} hardly happened: {tally:?}");
    }
}

async fn replay(acts: Vec<Act>, tally: &std::sync::Mutex<BTreeMap<String, u32>>) {
    let books = Books::open(3).await;
    let ordered = books.payments[0];
    for (kind, asset) in [("release", usdc()), ("refund", usdc()), ("release", native()), ("refund", native())] {
        books.order(ordered, kind, asset, 1..=200);
    }
    let mut reference = Reference { ordered: Some(ordered), ..Reference::default() };
    for (place, act) in acts.into_iter().enumerate() {
        let Some(entries) = entries_of(&act, &books, &reference, place) else { continue };
        let expected = reference.expect(&entries);
        let found = match books.post(entries.clone()).await {
            Ok(()) => Outcome::Posted,
            Err(LedgerError::Overdraft { .. }) => Outcome::Overdraft,
            Err(LedgerError::AlreadyPosted { .. }) => Outcome::AlreadyPosted,
            Err(error) if constraint(&error).as_deref() == Some("funds_ledger_entries_reversal_mirrors") => Outcome::NoMirror,
            Err(error) if constraint(&error).as_deref() == Some("funds_ledger_entries_payout_ordered") => Outcome::NoPayout,
            Err(error) => panic!("{act:?}: {error:?}"),
        };
        assert_eq!(found, expected, "step {place}, {act:?}: {entries:?}");
        *tally.lock().unwrap().entry(format!("{found:?}")).or_default() += 1;
        if found == Outcome::Posted {
            reference.accounts = reference.after(&entries);
            for entry in entries {
                reference.reversed.extend(entry.reverses.map(|of| of.0));
                reference.keys.insert(entry.key.clone());
                let posted = books.entry(&entry.key).await;
                assert_eq!(posted.entry, entry);
                reference.posted.push((posted.id, entry));
            }
        }
        assert_same(&books, &reference).await.unwrap();
        reference.assert_payments_conserved();
    }
    books.assert_sound().await;
}

fn entries_of(act: &Act, books: &Books, reference: &Reference, place: usize) -> Option<Vec<Entry>> {
    let key = format!("step-{place}");
    let amount = |coin: bool, units: u64| TokenAmount::new(if coin { native() } else { usdc() }, U256::from(units));
    let nth = |entry: usize| (!reference.posted.is_empty()).then(|| reference.posted[entry % reference.posted.len()].clone());
    let reversal = |(id, entry): (LedgerEntryId, Entry)| Entry {
        entry_type: EntryType::Reversal,
        debit: entry.credit,
        credit: entry.debit,
        reverses: Some(id),
        key: format!("reversal:{id}"),
        ..entry
    };
    Some(match act {
        Act::Detect { payment, coin, units } => vec![detected(books.payments[*payment], amount(*coin, *units), &key)],
        Act::Move { payment, coin, step, units } => vec![step.entry(books.payments[*payment], amount(*coin, *units), &key)],
        Act::Sweep { coin, units } => {
            let legs = (AccountKey::Custody(TREASURY), AccountKey::Custody(DEPOSIT));
            vec![entry(EntryType::Sweep, None, amount(*coin, *units), legs, &key)]
        }
        Act::Fee { units } => {
            let legs = (AccountKey::NetworkFee, AccountKey::Custody(TREASURY));
            vec![entry(EntryType::NetworkFee, None, amount(true, *units), legs, &key)]
        }
        Act::Reverse { entry } => vec![reversal(nth(*entry)?)],
        Act::ReverseUnderAnotherKey { entry } => vec![Entry { key, ..reversal(nth(*entry)?) }],
        Act::Repeat { entry } => vec![nth(*entry)?.1],
        Act::Both { payment, first, second } => {
            let payment = books.payments[*payment];
            vec![detected(payment, amount(false, *first), &key), held(payment, amount(false, *second), &format!("{key}-hold"))]
        }
    })
}

/// Every account the reference knows, and no other that holds anything.
async fn assert_same(books: &Books, reference: &Reference) -> Result<(), DbError> {
    let mut connection = books.db.connection().await?;
    for ((asset, key), (balance, _)) in &reference.accounts {
        let found = ledger::store::balance(&mut connection, *asset, *key).await?;
        assert_eq!(found.units.to_string(), balance.to_string(), "{key:?} in {asset}");
    }
    let sum = "select coalesce(sum(version), 0)::bigint, count(*) from ledger_balances";
    let kept: (i64, i64) = sqlx::query_as(sum).fetch_one(&mut *connection).await?;
    let versions: i64 = reference.accounts.values().map(|(_, version)| version).sum();
    assert_eq!(kept, (versions, i64::try_from(reference.accounts.len()).unwrap()));
    Ok(())
}
