//! What a database says happened, read past the code under test.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};
use amanatd::db::Database;
use amanatd::scan::Position;
use amanatd::units::ChainId;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::scripted::Moved;

/// A verdict, with the head under which it was reached.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) id: i64,
    pub(super) tx_hash: B256,
    pub(super) position: Position,
    pub(super) number: u64,
    pub(super) block: B256,
    pub(super) head: B256,
    pub(super) head_number: u64,
}

/// Kind, asset, address, payment, units; only what is not zero.
pub(super) type Balances = Vec<(String, String, Option<String>, Option<String>, String)>;

#[derive(Debug)]
pub(super) struct Tip {
    pub(super) start: u64,
    pub(super) number: u64,
    pub(super) hash: B256,
    pub(super) halted: Option<String>,
}

async fn rows(db: &Database, chain: ChainId, statement: &'static str) -> Vec<PgRow> {
    sqlx::query(statement).bind(chain.as_i64()).fetch_all(&mut *db.connection().await.unwrap()).await.unwrap()
}

fn hash(row: &PgRow, column: &str) -> B256 {
    B256::from_slice(row.get::<&[u8], _>(column))
}

fn number(row: &PgRow, column: &str) -> u64 {
    row.get::<i64, _>(column).cast_unsigned()
}

pub(super) async fn tip(db: &Database, chain: ChainId) -> Option<Tip> {
    let statement = "select start_number, number, hash, outflow_halted_reason from chain_cursors where chain_id = $1::bigint";
    let rows = rows(db, chain, statement).await;
    rows.first().map(|row| Tip {
        start: number(row, "start_number"),
        number: number(row, "number"),
        hash: hash(row, "hash"),
        halted: row.get("outflow_halted_reason"),
    })
}

/// The stored line, from where it begins.
pub(super) async fn line(db: &Database, chain: ChainId) -> Vec<B256> {
    let statement = "select hash from chain_blocks where chain_id = $1::bigint and state = 'canonical' order by number";
    rows(db, chain, statement).await.iter().map(|row| hash(row, "hash")).collect()
}

/// W4: blocks without their parent, and whether the cursor is the top; L3: accounts below zero.
pub(super) async fn assert_sound(db: &Database, chain: ChainId) {
    let statement = "select \
         (select count(*) from chain_blocks b join chain_cursors c on c.chain_id = b.chain_id \
          where b.chain_id = $1::bigint and b.state = 'canonical' and b.number > c.start_number and not exists ( \
            select from chain_blocks p where p.chain_id = b.chain_id and p.number = b.number - 1 and p.hash = b.parent_hash \
            and p.state = 'canonical')) as orphans, \
         (select count(*) from chain_cursors c join chain_blocks b using (chain_id, number, hash) where c.chain_id = $1::bigint \
          and b.state = 'canonical' and c.number = (select max(number) from chain_blocks m where m.chain_id = $1::bigint \
          and m.state = 'canonical')) as tops, \
         (select count(*) from ledger_accounts a join ledger_balances b on b.account_id = a.id where a.chain_id = $1::bigint \
          and b.balance < 0) as negative";
    let rows = rows(db, chain, statement).await;
    let counts = ["orphans", "tops", "negative"].map(|column| rows[0].get::<i64, _>(column));
    assert_eq!(counts, [0, 1, 0], "blocks without parent, cursors on top, accounts below zero");
}

/// The canonical sightings, with their blocks.
pub(super) async fn sightings(db: &Database, chain: ChainId) -> Vec<(B256, Moved)> {
    let statement = "select t.tx_hash, t.position, o.asset, o.sender, o.recipient, o.amount::text as amount, o.block_hash \
         from transfer_observations o join transfers t on t.id = o.transfer_id \
         where o.chain_id = $1::bigint and o.state = 'canonical'";
    rows(db, chain, statement).await.iter().map(|row| (hash(row, "block_hash"), moved(row))).collect()
}

fn moved(row: &PgRow) -> Moved {
    let address = |column: &str| Address::from_slice(row.get::<&[u8], _>(column));
    Moved {
        tx_hash: hash(row, "tx_hash"),
        position: row.get::<&str, _>("position").parse().unwrap(),
        asset: amanatd::units::Asset::from_marker(address("asset")),
        sender: address("sender"),
        recipient: address("recipient"),
        amount: row.get::<&str, _>("amount").parse::<U256>().unwrap(),
    }
}

/// Verdicts after an id.
pub(super) async fn judged(db: &Database, chain: ChainId, after: i64) -> Vec<Judged> {
    let statement = "select v.id, t.tx_hash, t.position, v.block_number, v.block_hash, v.head_hash, v.head_number \
         from transfer_verdicts v join transfers t on t.id = v.transfer_id where v.chain_id = $1::bigint order by v.id";
    let judged = rows(db, chain, statement).await.into_iter().filter(|row| row.get::<i64, _>("id") > after);
    judged
        .map(|row| Judged {
            id: row.get("id"),
            tx_hash: hash(&row, "tx_hash"),
            position: row.get::<&str, _>("position").parse().unwrap(),
            number: number(&row, "block_number"),
            block: hash(&row, "block_hash"),
            head: hash(&row, "head_hash"),
            head_number: number(&row, "head_number"),
        })
        .collect()
}

/// Verdicts that stand and whose credit stands in the books: transaction, position and block.
pub(super) async fn credits(db: &Database, chain: ChainId) -> Vec<(B256, Position, B256)> {
    let statement = "select t.tx_hash, t.position, v.block_hash from transfer_verdicts v join transfers t on t.id = v.transfer_id \
         join funds_ledger_entries e on e.idempotency_key = 'verdict:' || v.id || ':credit' \
         where v.chain_id = $1::bigint and v.revoked_at is null \
         and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)";
    let rows = rows(db, chain, statement).await;
    rows.iter().map(|row| (hash(row, "tx_hash"), row.get::<&str, _>("position").parse().unwrap(), hash(row, "block_hash"))).collect()
}

/// Every account of the chain that holds something.
pub(super) async fn balances(db: &Database, chain: ChainId) -> Balances {
    let statement = "select a.kind::text as kind, encode(a.asset, 'hex') as asset, encode(a.address, 'hex') as address, \
         a.payment_id::text as payment, b.balance::text as balance \
         from ledger_accounts a join ledger_balances b on b.account_id = a.id \
         where a.chain_id = $1::bigint and b.balance <> 0 order by 1, 2, 3, 4";
    let columns = |row: &PgRow| (row.get("kind"), row.get("asset"), row.get("address"), row.get("payment"), row.get("balance"));
    rows(db, chain, statement).await.iter().map(columns).collect()
}

/// Where each payment is.
pub(super) async fn payments(db: &Database, chain: ChainId) -> Vec<(String, String, Option<String>)> {
    let statement = "select id::text as id, status::text as status, escrow_state::text as escrow from payments \
         where chain_id = $1::bigint order by id";
    rows(db, chain, statement).await.iter().map(|row| (row.get("id"), row.get("status"), row.get("escrow"))).collect()
}

/// L1: per asset, what lies somewhere is what somebody may claim.
pub(super) fn assert_sides_equal(balances: &Balances) {
    let mut sides: BTreeMap<&str, (U256, U256)> = BTreeMap::new();
    for (kind, asset, _, _, units) in balances {
        let (debit, credit) = sides.entry(asset).or_default();
        let side = if ["custody", "network_fee", "shortfall"].contains(&kind.as_str()) { debit } else { credit };
        *side += units.parse::<U256>().unwrap();
    }
    for (asset, (debit, credit)) in sides {
        assert_eq!(debit, credit, "L1: {asset}");
    }
}
