//! SQL of `ledger_seals` and `ledger_seal_signatures`, and the entries as they are sealed.

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Head, Record};
use crate::db::DbError;
use crate::db::codec::{address_from_sql, count_from_sql, hash_from_sql};
use crate::units::{LedgerEntryId, TrezorAccountId};

/// A seal with its entries.
#[derive(Clone, Debug)]
pub struct Seal {
    pub head: Head,
    /// As stored; what it must be is the head's.
    pub hash: B256,
    pub entries: Vec<LedgerEntryId>,
    pub leaves: Vec<B256>,
}

/// An officer's signature of a seal.
#[derive(Clone, Debug)]
pub struct SealSignature {
    pub seal: i64,
    pub account: TrezorAccountId,
    pub address: Address,
    pub signature: Vec<u8>,
    pub signed_at: OffsetDateTime,
}

pub async fn insert(connection: &mut PgConnection, seal: &Seal) -> Result<(), DbError> {
    let entries: Vec<i64> = seal.entries.iter().map(|entry| entry.0).collect();
    let leaves: Vec<u8> = seal.leaves.iter().flat_map(|leaf| leaf.0).collect();
    sqlx::query!(
        "insert into ledger_seals (
             number, previous_hash, entry_ids, last_entry_id, leaves, root, entries_total, derivation, sealed_at, hash
         ) values ($1, $2::bytea, $3, $4, $5, $6::bytea, $7, $8, $9, $10::bytea)",
        seal.head.number,
        seal.head.previous.as_slice(),
        &entries,
        entries.iter().max().copied().unwrap_or_default(),
        leaves,
        seal.head.root.as_slice(),
        seal.head.entries_total.cast_signed(),
        seal.head.derivation,
        seal.head.sealed_at,
        seal.hash.as_slice()
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    number: i64,
    previous_hash: Vec<u8>,
    entry_ids: Vec<i64>,
    leaves: Vec<u8>,
    root: Vec<u8>,
    entries_total: i64,
    derivation: String,
    sealed_at: OffsetDateTime,
    hash: Vec<u8>,
}

impl TryFrom<Row> for Seal {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        Ok(Self {
            head: Head {
                number: row.number,
                previous: hash_from_sql(&row.previous_hash)?,
                entries: row.entry_ids.len() as u64,
                entries_total: count_from_sql("ledger_seals.entries_total", row.entries_total)?,
                root: hash_from_sql(&row.root)?,
                derivation: row.derivation,
                sealed_at: row.sealed_at,
            },
            hash: hash_from_sql(&row.hash)?,
            entries: row.entry_ids.into_iter().map(LedgerEntryId).collect(),
            leaves: row.leaves.chunks(32).map(|leaf| B256::right_padding_from(&leaf[..leaf.len().min(32)])).collect(),
        })
    }
}

/// Seals after a number, in order, with their entries.
pub async fn list(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Seal>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select number, previous_hash as "previous_hash!: Vec<u8>", entry_ids, leaves, root as "root!: Vec<u8>", entries_total, derivation,
               sealed_at, hash as "hash!: Vec<u8>"
        from ledger_seals where number > $1 order by number limit $2
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Seal::try_from).collect()
}

/// The last seal, if there is one.
pub async fn find_last(connection: &mut PgConnection) -> Result<Option<Seal>, DbError> {
    let number = get_last_number(connection).await?;
    Ok(list(connection, number - 1, 1).await?.into_iter().next())
}

/// The number of the last seal; 0 before the first.
pub async fn get_last_number(connection: &mut PgConnection) -> Result<i64, DbError> {
    let number = sqlx::query_scalar!(r#"select coalesce(max(number), 0) as "number!" from ledger_seals"#).fetch_one(connection).await?;
    Ok(number)
}

/// The highest entry id in a seal; 0 before the first.
pub async fn get_highest_sealed(connection: &mut PgConnection) -> Result<LedgerEntryId, DbError> {
    let entry =
        sqlx::query_scalar!(r#"select coalesce(max(last_entry_id), 0) as "entry!" from ledger_seals"#).fetch_one(connection).await?;
    Ok(LedgerEntryId(entry))
}

/// An entry that no seal names.
#[derive(Clone, Copy, Debug)]
pub struct Unsealed {
    pub id: LedgerEntryId,
    pub created_at: OffsetDateTime,
}

/// Entries above an id that no seal names, lowest first: those whose transaction is older than every one that
/// still runs. A row whose transaction is not could yet be joined by older ones.
pub async fn list_unsealed(connection: &mut PgConnection, after: LedgerEntryId, limit: i64) -> Result<Vec<Unsealed>, DbError> {
    let rows = sqlx::query!(
        r#"
        with sealed as (
            select unnest(entry_ids) as id from ledger_seals where last_entry_id > $1
        )
        select e.id, e.created_at
        from funds_ledger_entries e
        where e.id > $1 and not exists (select from sealed s where s.id = e.id)
          -- ages are counted back from now, so that a transaction id that wrapped around is still older
          and age(e.xmin) > age(pg_snapshot_xmin(pg_current_snapshot())::xid)
        order by e.id limit $2
        "#,
        after.0,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| Unsealed { id: LedgerEntryId(row.id), created_at: row.created_at }).collect())
}

/// How many entries no seal names, and the lowest of them that lies below an id.
pub async fn count_unsealed(connection: &mut PgConnection, below: LedgerEntryId) -> Result<(u64, Option<LedgerEntryId>), DbError> {
    let row = sqlx::query!(
        r#"
        with sealed as (
            select unnest(entry_ids) as id from ledger_seals
        )
        select count(*) as "count!", min(e.id) filter (where e.id < $1) as lowest
        from funds_ledger_entries e left join sealed s on s.id = e.id
        where s.id is null
        "#,
        below.0
    )
    .fetch_one(connection)
    .await?;
    Ok((count_from_sql("count", row.count)?, row.lowest.map(LedgerEntryId)))
}

/// Entries that more than one seal names, or one seal more than once.
pub async fn list_sealed_twice(connection: &mut PgConnection, limit: i64) -> Result<Vec<(i64, LedgerEntryId)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select max(number) as "seal!", id as "id!" from (select number, unnest(entry_ids) as id from ledger_seals) named
        group by id having count(*) > 1 order by 1, 2 limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.seal, LedgerEntryId(row.id))).collect())
}

/// Entries as they are sealed, by id. One that is not there is left out.
pub async fn list_records(connection: &mut PgConnection, entries: &[LedgerEntryId]) -> Result<Vec<Record>, DbError> {
    let ids: Vec<i64> = entries.iter().map(|entry| entry.0).collect();
    let rows = sqlx::query!(
        r#"
        select
            e.id,
            array[
                e.id::text,
                e.legacy_object_id,
                e.entry_type::text,
                e.payment_ref_kind::text,
                e.payment_id::text,
                e.payment_external_ref,
                e.chain_id::text,
                '0x' || encode(e.asset, 'hex'),
                e.debit_account_id::text,
                d.kind::text,
                '0x' || encode(d.address, 'hex'),
                d.payment_id::text,
                e.credit_account_id::text,
                c.kind::text,
                '0x' || encode(c.address, 'hex'),
                c.payment_id::text,
                e.amount_units::text,
                e.asset_decimals::text,
                e.reverses_entry_id::text,
                e.idempotency_key,
                e.memo,
                (extract(epoch from e.created_at) * 1000000)::bigint::text
            ] as "columns!: Vec<Option<String>>"
        from funds_ledger_entries e
        left join ledger_accounts d on d.id = e.debit_account_id and d.chain_id = e.chain_id and d.asset = e.asset
        left join ledger_accounts c on c.id = e.credit_account_id and c.chain_id = e.chain_id and c.asset = e.asset
        where e.id = any ($1::bigint[])
        order by e.id
        "#,
        &ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let columns = row.columns.try_into().map_err(|_| DbError::Corrupt {
                column: "funds_ledger_entries",
                found: row.id.to_string(),
                wanted: "its columns",
            })?;
            Ok(Record { id: LedgerEntryId(row.id), columns })
        })
        .collect()
}

pub async fn insert_signature(
    connection: &mut PgConnection,
    seal: i64,
    account: TrezorAccountId,
    address: Address,
    signature: &[u8],
) -> Result<(), DbError> {
    sqlx::query!(
        "insert into ledger_seal_signatures (seal_number, account_id, address, signature) values ($1, $2, $3::bytea, $4)",
        seal,
        account.0,
        address.as_slice(),
        signature
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Signatures of seals after a number, in the order of their seals.
pub async fn list_signatures(connection: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<SealSignature>, DbError> {
    let rows = sqlx::query!(
        r#"
        select seal_number, account_id as "account_id: Uuid", address as "address!: Vec<u8>", signature, signed_at
        from ledger_seal_signatures where seal_number > $1 order by seal_number, id limit $2
        "#,
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(SealSignature {
                seal: row.seal_number,
                account: TrezorAccountId(row.account_id),
                address: address_from_sql(&row.address)?,
                signature: row.signature,
                signed_at: row.signed_at,
            })
        })
        .collect()
}
