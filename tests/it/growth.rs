//! What must not become dearer as the books grow: counts of what the database reads, never times.

use alloy::primitives::{Address, U256};
use amanatd::devkit::postgres::APP;
use amanatd::devkit::schema::FreshDatabase;
use amanatd::ledger::{AccountKey, Entry, EntryType, store};
use amanatd::units::{Asset, AssetId, ChainId, TokenAmount};
use sqlx::{Connection, PgConnection};

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
