//! Accounts and the addresses below them: issued once, watched from then on, rebuilt from public keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use alloy::primitives::{Address, B256, U256};
use amanatd::account::store::DeviceHint;
use amanatd::account::{
    self, AccountError, AddressIndex, Branch, Comparison, DeriveError, DerivedAddress, Difference, Purpose, TwoDerivers,
};
use amanatd::db::{Database, DatabaseLimits, DbError};
use amanatd::deposit::Watched;
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::scan::store::NewBlock;
use amanatd::scan::tip::Link;
use amanatd::scan::{self, Position, Transfer};
use amanatd::settings;
use amanatd::units::{Asset, BlockNumber, BlockRef, Disposition, TrezorAccountId};
use tokio::task::JoinSet;

use crate::house::derived;
use crate::watching::{CHAIN, NOW, Watching, XPUB};

/// What the scanner would store of a transfer to somebody, in a block of its own.
async fn observe(watching: &Watching, number: u64, recipient: Address) -> Result<(), DbError> {
    let block = BlockRef { number: BlockNumber(number), hash: B256::left_padding_from(&number.to_be_bytes()) };
    let transfer = Transfer {
        tx_hash: B256::repeat_byte(7),
        position: Position::TOP,
        asset: Asset::Native,
        sender: Address::repeat_byte(0x55),
        recipient,
        amount: U256::ONE,
        internal: false,
    };
    let outcome = watching.database.unit::<_, DbError, _>(move |connection| {
        Box::pin(async move {
            let threshold = settings::store::get_threshold(connection, CHAIN).await?;
            let stored = NewBlock { link: Link { block, parent_hash: B256::ZERO }, time: NOW, internal_read: true };
            scan::store::insert_blocks(connection, CHAIN, &[stored], threshold.history_id).await?;
            scan::store::insert_observations(connection, CHAIN, &[(block, transfer)]).await
        })
    });
    outcome.await
}

#[tokio::test]
async fn w9_an_observation_without_an_address_row_gives_the_round_up() {
    let watching = Watching::over(&["http://127.0.0.1:9"]).await;
    let ours = watching.issue().await;
    observe(&watching, 1, ours.address).await.unwrap();
    assert_eq!(watching.base.sql("select derived_address_id from transfer_observations").unwrap().trim(), ours.id.to_string());

    let refused = observe(&watching, 2, Address::repeat_byte(0x77)).await.unwrap_err();
    assert!(matches!(refused, DbError::NotOneRow { found: 0, .. }), "{refused:?}");
    assert_eq!(watching.rows(), "1|1|0|0|0", "nothing of the round is stored");
}

// === one index, one address, once ===

/// Another account of the same device.
pub(crate) const XPUB_1: &str =
    "xpub6CNFa58kEQJu4f2ySPWzhVDTrQ1wEkkkoeAkAouhCCdc2JgRWkv5NLgeVvVwcYYiSu5rSjJzdN5ywG6fhT23WMQV5esHjn11MSghAunJefQ";

async fn database(base: &FreshDatabase) -> Database {
    Database::connect(&base.url(APP), DatabaseLimits { connections_max: 24, ..DatabaseLimits::default() }).await.unwrap()
}

async fn enrol(db: &Database, label: &'static str, xpub: &'static str) -> TrezorAccountId {
    let outcome = db.unit::<_, AccountError, _>(move |connection| {
        Box::pin(async move { account::store::insert(connection, label, &xpub.parse().unwrap(), &DeviceHint::default()).await })
    });
    outcome.await.unwrap()
}

async fn claim(db: &Database) -> Result<DerivedAddress, AccountError> {
    db.unit::<_, AccountError, _>(|connection| Box::pin(account::store::claim_deposit_address(connection))).await
}

async fn claims(db: &Database, count: usize) -> Vec<DerivedAddress> {
    let mut running = JoinSet::new();
    for _ in 0..count {
        let db = db.clone();
        running.spawn(async move { claim(&db).await.unwrap() });
    }
    running.join_all().await
}

/// Without the lock on the account that is looked at, whoever waited while the last index went would find
/// none, although the next account has room.
#[tokio::test]
async fn d1_64_claims_that_race_over_the_end_of_an_account_get_every_index_once() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    // The order of enrolment means nothing: the lower account number is used up first.
    let one = enrol(&db, "one", XPUB_1).await;
    let zero = enrol(&db, "zero", XPUB).await;
    for round in 0..5 {
        let used = 1_000_001 - 20;
        base.sql(&format!("update trezor_accounts set next_deposit_index = {used} where label = 'zero'")).unwrap();
        base.sql(&format!("delete from trezor_derived_addresses where branch = 0 and account_id = '{zero}'")).unwrap();
        let mut issued = claims(&db, 64).await;
        issued.sort_by_key(|address| address.path);
        let places: Vec<(TrezorAccountId, u32)> = issued.iter().map(|address| (address.account, address.path.index.get())).collect();
        let wanted: Vec<(TrezorAccountId, u32)> =
            (used..1_000_001).map(|index| (zero, index)).chain((round * 44..(round + 1) * 44).map(|index| (one, index))).collect();
        assert_eq!(places, wanted, "round {round}");
        let addresses: BTreeSet<Address> = issued.iter().map(|address| address.address).collect();
        assert_eq!(addresses.len(), 64);
    }
    let counters = account::store::list_counters(&mut db.connection().await.unwrap()).await.unwrap();
    assert_eq!(counters.iter().map(|counter| counter.next_deposit_index).collect::<Vec<_>>(), [1_000_001, 5 * 44]);
}

#[tokio::test]
async fn d1_without_room_nothing_is_issued_and_the_remedy_is_named() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    assert!(matches!(claim(&db).await, Err(AccountError::NoAccount)));
    enrol(&db, "zero", XPUB).await;
    enrol(&db, "one", XPUB_1).await;
    base.sql("update trezor_accounts set next_deposit_index = 1000001").unwrap();
    let refused = claim(&db).await.unwrap_err();
    assert_eq!(refused.disposition(), Disposition::Officer);
    for part in ["\"one\"", "amanatd account add --account 2 --label NAME"] {
        assert!(refused.to_string().contains(part), "{refused}");
    }
    assert_eq!(
        base.sql("select max(next_deposit_index), (select count(*) from trezor_derived_addresses) from trezor_accounts").unwrap().trim(),
        "1000001|4"
    );
}

/// The schema holds the device's bounds too, whatever the code above it does.
#[tokio::test]
async fn xk4_the_schema_takes_nothing_that_the_device_would_refuse() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    enrol(&db, "zero", XPUB).await;
    let row = |branch: i64, index: i64, purpose: &str| {
        format!(
            "insert into trezor_derived_addresses (account_id, branch, address_index, address, purpose) \
             select id, {branch}, {index}, '\\x{:040x}', '{purpose}' from trezor_accounts",
            index + 7
        )
    };
    base.sql(&row(0, 1_000_000, "deposit")).unwrap();
    for (statement, constraint) in [
        (row(0, 1_000_001, "deposit"), "trezor_derived_addresses_index_signable"),
        (row(0, -1, "deposit"), "trezor_derived_addresses_index_signable"),
        (row(2, 0, "deposit"), "trezor_derived_addresses_branch_purpose"),
        (row(0, 5, "gas"), "trezor_derived_addresses_branch_purpose"),
        ("update trezor_accounts set next_deposit_index = 1000002".to_owned(), "trezor_accounts_next_index_signable"),
        ("update trezor_accounts set next_deposit_index = -1".to_owned(), "trezor_accounts_next_index_signable"),
        ("update trezor_accounts set account_index = 101, path = 'm/44''/60''/101'''".to_owned(), "trezor_accounts_account_index_signable"),
    ] {
        let refused = base.sql(&statement).unwrap_err().to_string();
        assert!(refused.contains(constraint), "{statement}: {refused}");
    }
}

// === two implementations ===

#[tokio::test]
async fn d2_where_two_derivations_disagree_nothing_is_stored() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    let id = enrol(&db, "zero", XPUB).await;
    let of = |xpub: &str| TwoDerivers::new(&xpub.parse().unwrap(), Branch::Deposit).unwrap();
    // One of the two computes wrongly: as if it held another account's key.
    let crossed = TwoDerivers { second: of(XPUB_1).second, ..of(XPUB) };
    let outcome = db.unit::<_, AccountError, _>(move |connection| {
        Box::pin(async move {
            account::store::claim_deposit_address(connection).await?;
            account::store::raise_counter(connection, id, 2).await?;
            let index = AddressIndex::new(1).unwrap();
            account::store::insert_address(connection, id, &crossed, index, Purpose::Deposit).await
        })
    });
    let error = outcome.await.unwrap_err();
    assert!(matches!(error, AccountError::Derive(DeriveError::Disagree { .. })), "{error:?}");
    assert_eq!(error.disposition(), Disposition::Stop);
    let stored = "select next_deposit_index, (select count(*) from trezor_derived_addresses where branch = 0) from trezor_accounts";
    assert_eq!(base.sql(stored).unwrap().trim(), "0|0", "nothing of the unit is there");
}

/// A claimed address is what the helper of these tests derives, which is neither of the daemon's ways.
#[tokio::test]
async fn d2_what_is_issued_and_stored_is_what_the_key_says() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    enrol(&db, "zero", XPUB).await;
    for issued in claims(&db, 64).await {
        assert_eq!(issued.address, derived(0, issued.path.index.get()), "{}", issued.path);
        let row = format!("select address from trezor_derived_addresses where id = '{}'", issued.id);
        assert_eq!(base.sql(&row).unwrap().trim(), format!("\\x{:x}", issued.address));
    }
}

#[tokio::test]
async fn xk5_a_skipped_index_is_recorded() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    let path = "m/44'/60'/0'/0/7".parse().unwrap();
    account::store::append_skipped(&mut db.connection().await.unwrap(), path).await.unwrap();
    assert_eq!(base.sql("select kind, detail->>'path' from events").unwrap().trim(), "address_index.skipped|m/44'/60'/0'/0/7");
}

// === the table and the key ===

/// A table with 300 deposits of one account and 3 of another.
async fn issued_table() -> (FreshDatabase, Database) {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    enrol(&db, "zero", XPUB).await;
    base.sql("update trezor_accounts set next_deposit_index = 1000001").unwrap();
    enrol(&db, "one", XPUB_1).await;
    claims(&db, 3).await;
    base.sql("update trezor_accounts set next_deposit_index = 0 where label = 'zero'").unwrap();
    claims(&db, 300).await;
    (base, db)
}

async fn compare(db: &Database) -> Comparison {
    let accounts = account::store::list(&mut db.connection().await.unwrap()).await.unwrap();
    let mut total = Comparison::default();
    for account in &accounts {
        total.add(account::worker::compare(db, account, |_| ()).await.unwrap());
    }
    total
}

#[tokio::test]
async fn d3_the_rebuilt_table_is_identical_and_each_tampering_is_found() {
    let (base, db) = issued_table().await;
    let whole = 300 + 3 + 2 + 2;
    assert_eq!(compare(&db).await, Comparison { checked: whole, ..Comparison::default() });

    let zero = "account_id = (select id from trezor_accounts where label = 'zero')";
    let other = "'\\x00000000000000000000000000000000000000aa'";
    for (what, tampering, checked, differing, missing, first) in [
        ("an address", format!("update trezor_derived_addresses set address = {other} where branch = 0 and address_index = 299 and {zero}"), whole, 1, 0, "m/44'/60'/0'/0/299: the row says 0x00000000000000000000000000000000000000AA; the key gives 0x"),
        ("a treasury", format!("update trezor_derived_addresses set address = {other} where branch = 1 and address_index = 1 and {zero}"), whole, 1, 0, "m/44'/60'/0'/1/1: the row says"),
        ("two purposes", format!("update trezor_derived_addresses set purpose = case purpose when 'gas' then 'treasury' else 'gas' end::derived_address_purpose where branch = 1 and {zero}"), whole, 2, 0, "m/44'/60'/0'/1/0: the row says treasury; that place is gas"),
        ("a lost row", format!("delete from trezor_derived_addresses where branch = 0 and address_index = 7 and {zero}"), whole, 1, 1, "m/44'/60'/0'/0/7: the row is missing; the key gives 0x"),
        ("a moved row", format!("update trezor_derived_addresses set address_index = 400 where branch = 0 and address_index = 7 and {zero}"), whole + 1, 2, 1, "m/44'/60'/0'/0/7: the row is missing"),
        ("another account's row", format!("update trezor_derived_addresses set account_id = (select id from trezor_accounts where label = 'one') where branch = 0 and address_index = 7 and {zero}"), whole + 1, 2, 1, "m/44'/60'/0'/0/7: the row is missing"),
        ("a row that was put in", "insert into trezor_derived_addresses (account_id, branch, address_index, address, purpose) select account_id, 1, 9, '\\x00000000000000000000000000000000000000aa', 'treasury' from trezor_derived_addresses limit 1".to_owned(), whole + 1, 1, 0, "/1/9: the row says 0x00000000000000000000000000000000000000AA; no address was issued there"),
        ("a lowered counter", "update trezor_accounts set next_deposit_index = 298 where label = 'zero'".to_owned(), whole, 2, 0, "m/44'/60'/0'/0/298: the row says"),
        ("a raised counter", "update trezor_accounts set next_deposit_index = 302 where label = 'zero'".to_owned(), whole + 2, 2, 2, "m/44'/60'/0'/0/300: the row is missing"),
        ("a fingerprint", "update trezor_accounts set fingerprint = '\\x00000000' where label = 'zero'".to_owned(), whole, 1, 0, "the stored fingerprint is not that of the stored key"),
    ] {
        let copy = Tampered::of(&base, &tampering).await;
        let found = compare(&copy.db).await;
        assert_eq!((found.checked, found.differing, found.missing), (checked, differing, missing), "{what}: {found:?}");
        let told = found.first.unwrap().to_string();
        assert!(told.contains(first), "{what}: {told}");
    }

    // The whole key exchanged: every row of the account differs.
    let exchanged = format!(
        "delete from trezor_derived_addresses where {zero}; delete from trezor_accounts where label = 'zero'; \
         update trezor_accounts set xpub = '{XPUB}', account_index = 0, path = 'm/44''/60''/0''' where label = 'one'"
    );
    let found = compare(&Tampered::of(&base, &exchanged).await.db).await;
    assert_eq!((found.checked, found.differing, found.missing), (5, 6, 0), "five rows and the fingerprint: {found:?}");
}

/// A copy of the database in which somebody wrote past the daemon.
struct Tampered {
    db: Database,
    base: FreshDatabase,
}

impl Tampered {
    async fn of(original: &FreshDatabase, statements: &str) -> Self {
        let base = FreshDatabase::create().unwrap();
        for table in ["trezor_accounts", "trezor_derived_addresses"] {
            let rows = original.sql(&format!("select coalesce(json_agg(t), '[]') from {table} t")).unwrap();
            let rows = rows.trim().replace('\'', "''");
            base.sql(&format!("insert into {table} select * from json_populate_recordset(null::{table}, '{rows}')")).unwrap();
        }
        base.sql(statements).unwrap();
        Self { db: database(&base).await, base }
    }
}

#[tokio::test]
async fn d3_what_is_missing_is_filled_in_and_what_is_there_is_never_changed() {
    let (base, db) = issued_table().await;
    let good = base.sql("select a.label, branch, address_index, address, purpose from trezor_derived_addresses d join trezor_accounts a on a.id = account_id order by 1, 2, 3").unwrap();
    base.sql("delete from trezor_derived_addresses where address_index in (0, 7, 299)").unwrap();
    assert_eq!(compare(&db).await.missing, 3 + 3);
    let fill = async |db: &Database, label: &str, below: u32| {
        let account = account::store::get_by_label(&mut db.connection().await.unwrap(), label).await.unwrap();
        account::worker::insert_missing(db, &account, below, |_| ()).await
    };
    assert_eq!(fill(&db, "zero", 0).await.unwrap(), 4);
    assert_eq!(fill(&db, "zero", 0).await.unwrap(), 0, "again, there is nothing to do");
    assert_eq!(fill(&db, "one", 0).await.unwrap(), 2);
    let mended = base.sql("select a.label, branch, address_index, address, purpose from trezor_derived_addresses d join trezor_accounts a on a.id = account_id order by 1, 2, 3").unwrap();
    assert_eq!(mended, good);

    // Beside a row that says something else nothing is filled in.
    let changed = "update trezor_derived_addresses set address = '\\x00000000000000000000000000000000000000aa' where branch = 0 and address_index = 5 and account_id = (select id from trezor_accounts where label = 'zero'); \
         delete from trezor_derived_addresses where branch = 0 and address_index = 3";
    let tampered = Tampered::of(&base, changed).await;
    let refused = fill(&tampered.db, "zero", 0).await.unwrap_err();
    assert!(matches!(&refused, AccountError::Differs { label, what: Difference::Address { .. } } if label == "zero"), "{refused:?}");
    assert_eq!(refused.disposition(), Disposition::Officer);
    assert_eq!(
        tampered.base.sql("select count(*) from trezor_derived_addresses where branch = 0 and address_index = 3").unwrap().trim(),
        "0"
    );
    assert!(matches!(account::store::get_by_label(&mut db.connection().await.unwrap(), "none").await, Err(AccountError::Unknown { .. })));
}

/// The daemon issued more than the backup knows. Told how far it had come, the table gets those rows back
/// and the next payment gets an index that nobody has had.
#[tokio::test]
async fn d1_t14_a_restored_backup_hands_out_no_used_index_once_it_is_told() {
    let base = FreshDatabase::create().unwrap();
    let db = database(&base).await;
    enrol(&db, "zero", XPUB).await;
    claims(&db, 10).await;
    let backup = Tampered::of(&base, "select 1").await;
    let lost = claims(&db, 30).await;
    let account = account::store::get_by_label(&mut backup.db.connection().await.unwrap(), "zero").await.unwrap();
    assert_eq!(account::worker::insert_missing(&backup.db, &account, 40, |_| ()).await.unwrap(), 30);
    let watched = Watched::default();
    watched.refresh(&backup.db).await.unwrap();
    assert!(lost.iter().all(|address| watched.read().contains(address.address)), "what was paid meanwhile is seen");
    assert_eq!(claim(&backup.db).await.unwrap().path.index.get(), 40);
    // A number that is too low lowers nothing.
    account::worker::insert_missing(&backup.db, &account, 5, |_| ()).await.unwrap();
    assert_eq!(claim(&backup.db).await.unwrap().path.index.get(), 41);
    assert_eq!(compare(&backup.db).await, Comparison { checked: 44, ..Comparison::default() });
}

// === the watched set ===

#[tokio::test]
async fn w9_the_watched_set_holds_every_address_and_an_issued_one_at_once() {
    let (_base, db) = issued_table().await;
    let watched = Watched::default();
    watched.refresh(&db).await.unwrap();
    assert_eq!(watched.read().len(), 307);
    for branch_and_index in [(0, 0), (0, 299), (1, 0), (1, 1)] {
        assert!(watched.read().contains(derived(branch_and_index.0, branch_and_index.1)), "{branch_and_index:?}");
    }
    assert!(!watched.read().contains(derived(0, 300)));
    // Issued and watched from many sides at once.
    let mut running = JoinSet::new();
    let watched = Arc::new(watched);
    for _ in 0..32 {
        let (db, watched) = (db.clone(), Arc::clone(&watched));
        running.spawn(async move {
            let issued = claim(&db).await.unwrap();
            watched.refresh(&db).await.unwrap();
            assert!(watched.read().contains(issued.address), "{} is committed and not watched", issued.path);
        });
    }
    running.join_all().await;
    assert_eq!(watched.read().len(), 307 + 32);
}

#[tokio::test]
async fn w9_d3_a_lost_row_stops_watching_until_it_is_filled_in() {
    let (base, db) = issued_table().await;
    let lost = derived(0, 250);
    base.sql(&format!("delete from trezor_derived_addresses where address = '\\x{lost:x}'")).unwrap();
    let watched = Watched::default();
    for _ in 0..2 {
        let error = watched.refresh(&db).await.unwrap_err();
        assert_eq!(error.disposition(), Disposition::Officer);
        for part in ["\"zero\"", "m/44'/60'/0'/0/250", "amanatd account rebuild --missing"] {
            assert!(error.to_string().contains(part), "{error}");
        }
    }
    let account = account::store::get_by_label(&mut db.connection().await.unwrap(), "zero").await.unwrap();
    assert_eq!(account::worker::insert_missing(&db, &account, 0, |_| ()).await.unwrap(), 1);
    watched.refresh(&db).await.unwrap();
    assert!(watched.read().contains(lost));
    assert_eq!(watched.read().len(), 307);
}
