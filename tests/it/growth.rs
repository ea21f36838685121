//! What must not become dearer as the books grow: counts of what the database reads, never times.

use alloy::primitives::{Address, B256, U256};
use amanatd::account::{self, Branch};
use amanatd::confirm::store::{Page, list_due};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::ledger::{AccountKey, Entry, EntryType, store};
use amanatd::scan::store::NewBlock;
use amanatd::scan::tip::Link;
use amanatd::scan::{self, Position, Transfer};
use amanatd::settings::{self, ChangeNote, Gate, NewChange, ThresholdKey};
use amanatd::units::{Asset, AssetId, BlockNumber, BlockRef, ChainId, Confirmations, TokenAmount};
use sqlx::{Connection, PgConnection};

use crate::watching::NOW;

/// Money of nobody at one of many addresses: each has an account.
fn unidentified(number: u64) -> Entry {
    let asset = AssetId { chain: ChainId::new(1).unwrap(), asset: Asset::Native };
    Entry {
        entry_type: EntryType::Adjustment,
        payment: None,
        amount: TokenAmount::new(asset, U256::ONE),
        decimals: 18,
        debit: AccountKey::Custody(Address::left_padding_from(&number.to_be_bytes())),
        credit: AccountKey::Suspense(None),
        reverses: None,
        key: format!("test:{number}"),
        memo: "a transfer without a payment".to_owned(),
    }
}

/// How many rows of these tables this connection has read without an index.
async fn read_in_passing(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select sum(seq_tup_read)::bigint from pg_stat_xact_user_tables where relname in ('ledger_balances', 'ledger_accounts')",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

/// The server keeps the plans of a connection's first posting. A large one must not leave plans behind
/// that read the whole books for each entry that follows.
#[tokio::test]
async fn a_posting_reads_no_accounts_but_its_own() {
    let base = FreshDatabase::create().unwrap();
    let mut connection = PgConnection::connect(&base.url(APP)).await.unwrap();
    let first: Vec<Entry> = (0..2_000).map(unidentified).collect();
    store::append(&mut connection, &first).await.unwrap();

    let mut transaction = connection.begin().await.unwrap();
    let before = read_in_passing(&mut transaction).await;
    store::append(&mut transaction, &[unidentified(2_000)]).await.unwrap();
    let after = read_in_passing(&mut transaction).await;
    transaction.commit().await.unwrap();
    assert_eq!(after - before, 0, "rows read that no index led to");
}

// === addresses ===

/// Accounts of nobody with 60,000 addresses each.
fn many_addresses(base: &FreshDatabase) {
    let rows = "insert into trezor_accounts (label, account_index, path, xpub, fingerprint, next_deposit_index) \
             select n::text, n, format('m/44''/60''/%s''', n), 'xpub' || rpad(translate(md5(n::text), '0', 'x'), 107, 'a'), '\\x00000000', \
                 60000 from generate_series(0, 1) n; \
         insert into trezor_derived_addresses (account_id, branch, address_index, address, purpose) \
             select a.id, b, i, substr(sha256(convert_to(format('%s/%s/%s', a.label, b, i), 'UTF8')), 1, 20), \
                 case b when 0 then 'deposit' else 'gas' end::derived_address_purpose \
             from trezor_accounts a, generate_series(0, 1) b, generate_series(0, case b when 0 then 59999 else 1 end) i; \
         analyze";
    base.sql(rows).unwrap();
}

/// Rows of the address table that this transaction has read without an index, and through one.
async fn addresses_read(connection: &mut PgConnection) -> (i64, i64) {
    let read: (i64, i64) = sqlx::query_as(
        "select coalesce(sum(seq_tup_read), 0)::bigint, coalesce(sum(idx_tup_fetch), 0)::bigint from pg_stat_xact_user_tables \
         where relname = 'trezor_derived_addresses'",
    )
    .fetch_one(connection)
    .await
    .unwrap();
    read
}

/// Each chain asks before each chunk which addresses are new. That may not cost more because there are
/// many old ones.
#[tokio::test]
async fn w9_a_refresh_reads_new_addresses_and_no_old_one() {
    let base = FreshDatabase::create().unwrap();
    many_addresses(&base);
    let mut connection = PgConnection::connect(&base.url(APP)).await.unwrap();
    // Often enough that the server settles on a plan for any range.
    for _ in 0..10 {
        let mut transaction = connection.begin().await.unwrap();
        // Earlier transactions may still be in these numbers.
        let before = addresses_read(&mut transaction).await;
        let counters = account::store::list_counters(&mut transaction).await.unwrap();
        assert_eq!(addresses_read(&mut transaction).await, before, "the counters are read without an address");
        for counter in &counters {
            let new = account::store::list_range(&mut transaction, counter.id, Branch::Deposit, 59_990..60_000).await.unwrap();
            assert_eq!(new.len(), 10);
        }
        let after = addresses_read(&mut transaction).await;
        assert_eq!((after.0 - before.0, after.1 - before.1), (0, 20), "rows read without an index, and through one");
    }
}

/// Storing what a block shows looks up the row of each recipient, and no other.
#[tokio::test]
async fn w9_storing_observations_reads_the_rows_of_their_recipients() {
    const SEEN: u64 = 100;
    let base = FreshDatabase::create().unwrap();
    many_addresses(&base);
    let mut connection = PgConnection::connect(&base.url(APP)).await.unwrap();
    let chain = ChainId::new(1).unwrap();
    let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
    let (key, blocks) = (ThresholdKey::base(Gate::Credit, chain), Confirmations::new(3).ok());
    settings::store::set(&mut connection, &NewChange { key, blocks, effective_at: None, note }).await.unwrap();
    let threshold = settings::store::get_threshold(&mut connection, chain).await.unwrap();
    let account = account::store::list_counters(&mut connection).await.unwrap()[1].id;

    for round in 0..10_u64 {
        let block = BlockRef { number: BlockNumber(round), hash: B256::left_padding_from(&round.to_be_bytes()) };
        let first = u32::try_from(round * SEEN).unwrap();
        let ours = account::store::list_range(&mut connection, account, Branch::Deposit, first..first + 100).await.unwrap();
        let seen: Vec<(BlockRef, Transfer)> = ours
            .iter()
            .map(|row| {
                let transfer = Transfer {
                    tx_hash: B256::from(U256::from(row.index.get())),
                    position: Position::TOP,
                    asset: Asset::Native,
                    sender: Address::repeat_byte(0x55),
                    recipient: row.address,
                    amount: U256::ONE,
                    internal: false,
                };
                (block, transfer)
            })
            .collect();
        let mut transaction = connection.begin().await.unwrap();
        let stored = NewBlock { link: Link { block, parent_hash: B256::ZERO }, time: NOW, internal_read: false };
        scan::store::insert_blocks(&mut transaction, chain, &[stored], threshold.history_id).await.unwrap();
        let before = addresses_read(&mut transaction).await.0;
        scan::store::insert_observations(&mut transaction, chain, &seen).await.unwrap();
        assert_eq!(addresses_read(&mut transaction).await.0 - before, 0, "rows read that no index led to");
        transaction.commit().await.unwrap();
    }
}

// === gates ===

/// A hundred thousand sightings in twenty thousand blocks that have passed both gates, and two hundred that wait at
/// each gate.
const SIGHTINGS: &str = "
    insert into trezor_accounts (id, label, account_index, path, xpub, fingerprint)
        values ('01900000-0000-7000-8000-000000000001', 'test', 0, 'm/44''/60''/0''', 'XPUB', '\\x01020304');
    insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose)
        values ('01900000-0000-7000-8000-000000000001', '01900000-0000-7000-8000-000000000001', 0, 0, decode(repeat('11', 20), 'hex'), 'deposit');
    insert into config_settings (key, value) values ('confirmation_threshold:1', 3);
    insert into config_setting_history (key, new_value, changed_by, reason) values ('confirmation_threshold:1', 3, 'test', 'test');
    insert into chain_blocks (chain_id, number, hash, parent_hash, block_time, threshold_history_id)
        select 1, n, decode(lpad(to_hex(n), 64, '0'), 'hex'), decode(lpad(to_hex(n - 1), 64, '0'), 'hex'), now(), 1
        from generate_series(1, 20080) n;
    insert into transfers (chain_id, tx_hash, position)
        select 1, decode(lpad(to_hex(n), 64, '0'), 'hex'), 'log:0' from generate_series(1, 100400) n;
    insert into transfer_observations (transfer_id, chain_id, block_number, block_hash, asset, sender, recipient, amount,
        derived_address_id, internal, gate_passed)
        select n, 1, 1 + (n - 1) / 5, decode(lpad(to_hex(1 + (n - 1) / 5), 64, '0'), 'hex'), decode(repeat('22', 20), 'hex'),
            decode(repeat('33', 20), 'hex'), decode(repeat('11', 20), 'hex'), 1, '01900000-0000-7000-8000-000000000001', false,
            case when n <= 100000 then 'release'::verdict_gate when n <= 100200 then 'credit' end
        from generate_series(1, 100400) n;
    insert into transfer_verdicts (transfer_id, observation_id, chain_id, block_number, block_hash, head_number, head_hash, depth, threshold,
        threshold_seen_history_id, threshold_now_history_id)
        select transfer_id, id, chain_id, block_number, block_hash, block_number + 2, block_hash, 3, 3, 1, 1
        from transfer_observations where id <= 100200;";

/// Rows of these tables that this connection has read, by whatever way.
async fn rows_read(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint from pg_stat_xact_user_tables \
         where relname in ('transfer_observations', 'transfer_verdicts', 'transfers', 'chain_blocks')",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

/// What waits at a gate is found without passing by what has passed it, before statistics are gathered and
/// after.
#[tokio::test]
async fn a_gate_reads_what_waits_and_not_what_has_passed() {
    let base = FreshDatabase::create().unwrap();
    // One by one the trigger would write `gate_passed`; what it would write is in the rows already.
    let sightings = SIGHTINGS.replace("XPUB", crate::watching::XPUB);
    let quiet = "alter table transfer_verdicts disable trigger transfer_verdicts_follow";
    let loud = "alter table transfer_verdicts enable always trigger transfer_verdicts_follow";
    base.sql(&format!("{quiet}; {sightings} {loud};")).unwrap();
    let chain = ChainId::new(1).unwrap();
    for analyzed in [false, true] {
        if analyzed {
            base.sql("analyze").unwrap();
        }
        for gate in Gate::ALL {
            let mut connection = PgConnection::connect(&base.url(APP)).await.unwrap();
            let mut transaction = connection.begin().await.unwrap();
            let before = rows_read(&mut transaction).await;
            let page = Page { after: 0, limit: 200 };
            let due = list_due(&mut transaction, gate, chain, BlockNumber(20_080), page).await.unwrap();
            assert_eq!(due.len(), 200);
            let read = rows_read(&mut transaction).await - before;
            println!("{gate} gate, analyzed {analyzed}: {read} rows read for {} that wait among 100,400", due.len());
            // A sighting, its transfer, its block, and a look for a credit.
            assert!(read <= 4 * 200, "{gate}, analyzed {analyzed}: {read} rows read");
            let last = due.last().unwrap().observation;
            let before = rows_read(&mut transaction).await;
            let none = list_due(&mut transaction, gate, chain, BlockNumber(20_080), Page { after: last, limit: 200 }).await.unwrap();
            assert!(none.is_empty());
            // The planner itself may look at the ends of an index.
            let read = rows_read(&mut transaction).await - before;
            assert!(read <= 10, "{gate}, analyzed {analyzed}: nothing waits, and {read} rows are read");
        }
    }
}
