//! SQL of `funds_ledger_entries`, `ledger_accounts` and `ledger_balances`: append and read.
//!
//! Balances are written by the database itself when entries are inserted.

use std::collections::{BTreeSet, HashMap};

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::LedgerError;
use super::entry::{AccountKey, AccountKind, Entry, EntryType};
use crate::db::DbError;
use crate::db::codec::{address_from_sql, chain_from_sql, units_from_sql, units_to_sql};
use crate::units::{Asset, AssetId, ChainId, LedgerAccountId, LedgerEntryId, PaymentId, TokenAmount};

/// Posts entries in one statement: all of them, or none.
///
/// Fails with [`LedgerError::AlreadyPosted`] when a key is in the ledger, and with
/// [`LedgerError::Overdraft`] when an account would fall below zero.
pub async fn append(connection: &mut PgConnection, entries: &[Entry]) -> Result<(), LedgerError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let columns = Columns::of(entries);
    if insert(connection, &columns, first).await? {
        return Ok(());
    }
    open_accounts(connection, columns.accounts).await?;
    if insert(connection, &Columns::of(entries), first).await? {
        return Ok(());
    }
    Err(DbError::NotOneRow { what: "a ledger account just opened", found: 0 }.into())
}

/// Finds the accounts and posts between them, or posts nothing (`false`) when one of them is not open.
///
/// Each account is looked up by the unique key: a subquery for each leaves the planner no way that reads more,
/// however many there are.
async fn insert(connection: &mut PgConnection, columns: &Columns, first: &Entry) -> Result<bool, LedgerError> {
    let outcome = sqlx::query!(
        r#"
        -- What rows share comes once and is converted once; the rows say which of it they mean.
        with shapes as materialized (
            select $1::text[]::funds_ledger_entry_type[] as types, $2::bigint[] as chains, $3::bytea[]::evm_address[] as assets,
                   $4::smallint[] as decimals
        ),
        names as materialized (
            select $5::text[]::ledger_account_kind[] as kinds, $6::bigint[] as chains, $7::bytea[] as assets
        ),
        accounts as materialized (
            select array(
                select (
                    select a.id from ledger_accounts a
                    where a.kind = (select kinds from names)[k.name] and a.holder = k.holder
                      and a.chain_id = (select chains from names)[k.name] and a.asset = (select assets from names)[k.name]
                )
                from unnest($8::integer[], $9::bytea[]) with ordinality as k (name, holder, place)
                order by k.place
            ) as ids
        )
        insert into funds_ledger_entries (
            entry_type, payment_ref_kind, payment_id, chain_id, asset, debit_account_id, credit_account_id,
            amount_units, asset_decimals, reverses_entry_id, idempotency_key, memo
        )
        select (select types from shapes)[e.shape], case when e.payment_id is not null then 'entity'::ref_kind end, e.payment_id,
               (select chains from shapes)[e.shape], (select assets from shapes)[e.shape],
               (select ids from accounts)[e.debit], (select ids from accounts)[e.credit],
               e.amount::numeric, (select decimals from shapes)[e.shape], e.reverses, e.key, e.memo
        from unnest($10::integer[], $11::uuid[], $12::integer[], $13::integer[], $14::text[], $15::bigint[], $16::text[], $17::text[])
             with ordinality as e (shape, payment_id, debit, credit, amount, reverses, key, memo, place)
        where (select array_position(ids, null) is null from accounts)
        order by e.place
        "#,
        &columns.shapes.types,
        &columns.shapes.chains,
        &columns.shapes.assets,
        &columns.shapes.decimals,
        &columns.names.kinds,
        &columns.names.chains,
        &columns.names.assets,
        &columns.name,
        &columns.holder,
        &columns.shape,
        &columns.payment as &[Option<Uuid>],
        &columns.debit,
        &columns.credit,
        &columns.amount,
        &columns.reverses as &[Option<i64>],
        &columns.key,
        &columns.memo
    )
    .execute(connection)
    .await
    .map_err(DbError::from);
    match outcome {
        Ok(done) => Ok(done.rows_affected() > 0),
        Err(error) => Err(match error.constraint() {
            Some("ledger_balances_no_overdraft") => LedgerError::Overdraft { key: first.key.clone() },
            Some("funds_ledger_entries_idempotency_key" | "funds_ledger_entries_reversed_once_key") => {
                LedgerError::AlreadyPosted { key: first.key.clone() }
            }
            Some(_) | None => error.into(),
        }),
    }
}

/// What many entries have in common: type, asset, decimals.
#[derive(Default)]
struct Shapes {
    known: Vec<(EntryType, AssetId, u8)>,
    types: Vec<String>,
    chains: Vec<i64>,
    assets: Vec<Vec<u8>>,
    decimals: Vec<i16>,
}

impl Shapes {
    /// Its place, counted from 1. A handful at most, so they are looked through.
    fn place(&mut self, entry: &Entry) -> i32 {
        let shape = (entry.entry_type, entry.amount.asset, entry.decimals);
        let place = self.known.iter().position(|known| *known == shape).unwrap_or_else(|| {
            self.known.push(shape);
            self.types.push(entry.entry_type.name().to_owned());
            self.chains.push(entry.amount.asset.chain.as_i64());
            self.assets.push(entry.amount.asset.asset.marker().to_vec());
            self.decimals.push(i16::from(entry.decimals));
            self.known.len() - 1
        });
        i32::try_from(place + 1).unwrap_or(i32::MAX)
    }
}

/// What many accounts have in common: kind and asset.
#[derive(Default)]
struct Names {
    known: Vec<(AccountKind, AssetId)>,
    kinds: Vec<String>,
    chains: Vec<i64>,
    assets: Vec<Vec<u8>>,
}

impl Names {
    fn place(&mut self, asset: AssetId, kind: AccountKind) -> i32 {
        let place = self.known.iter().position(|known| *known == (kind, asset)).unwrap_or_else(|| {
            self.known.push((kind, asset));
            self.kinds.push(kind.name().to_owned());
            self.chains.push(asset.chain.as_i64());
            self.assets.push(asset.asset.marker().to_vec());
            self.known.len() - 1
        });
        i32::try_from(place + 1).unwrap_or(i32::MAX)
    }
}

/// The entries of one statement, column by column, and the accounts that they mean by their places.
#[derive(Default)]
struct Columns {
    shapes: Shapes,
    names: Names,
    accounts: HashMap<(AssetId, AccountKey), i32>,
    name: Vec<i32>,
    holder: Vec<Vec<u8>>,
    shape: Vec<i32>,
    payment: Vec<Option<Uuid>>,
    debit: Vec<i32>,
    credit: Vec<i32>,
    amount: Vec<String>,
    /// Empty when nothing is reversed; the server reads what is missing as null.
    reverses: Vec<Option<i64>>,
    key: Vec<String>,
    memo: Vec<String>,
}

impl Columns {
    fn of(entries: &[Entry]) -> Self {
        let mut columns = Self::default();
        let reversing = entries.iter().any(|entry| entry.reverses.is_some());
        for entry in entries {
            let shape = columns.shapes.place(entry);
            columns.shape.push(shape);
            columns.payment.push(entry.payment.map(|payment| payment.0));
            let debit = columns.account(entry.amount.asset, entry.debit);
            columns.debit.push(debit);
            let credit = columns.account(entry.amount.asset, entry.credit);
            columns.credit.push(credit);
            columns.amount.push(units_to_sql(entry.amount.units));
            if reversing {
                columns.reverses.push(entry.reverses.map(|entry| entry.0));
            }
            columns.key.push(entry.key.clone());
            columns.memo.push(entry.memo.clone());
        }
        columns
    }

    /// The place of an account, counted from 1.
    fn account(&mut self, asset: AssetId, key: AccountKey) -> i32 {
        let next = i32::try_from(self.accounts.len() + 1).unwrap_or(i32::MAX);
        let place = *self.accounts.entry((asset, key)).or_insert(next);
        if place == next {
            self.name.push(self.names.place(asset, key.kind()));
            self.holder.push(key.holder());
        }
        place
    }
}

/// Opens those of the accounts that do not exist yet, in one order for all, so that two postings do not wait
/// for each other.
async fn open_accounts(connection: &mut PgConnection, wanted: HashMap<(AssetId, AccountKey), i32>) -> Result<(), DbError> {
    let wanted: BTreeSet<(AssetId, AccountKey)> = wanted.into_keys().collect();
    let kinds: Vec<String> = wanted.iter().map(|(_, key)| key.kind().name().to_owned()).collect();
    let chains: Vec<i64> = wanted.iter().map(|(asset, _)| asset.chain.as_i64()).collect();
    let assets: Vec<Vec<u8>> = wanted.iter().map(|(asset, _)| asset.asset.marker().to_vec()).collect();
    let addresses: Vec<Option<Vec<u8>>> = wanted.iter().map(|(_, key)| key.address().map(|address| address.to_vec())).collect();
    let payments: Vec<Option<Uuid>> = wanted.iter().map(|(_, key)| key.payment().map(|payment| payment.0)).collect();
    sqlx::query!(
        r#"
        insert into ledger_accounts (kind, chain_id, asset, address, payment_id)
        select k.kind::ledger_account_kind, k.chain_id, k.asset, k.address, k.payment_id
        from unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[], $5::uuid[]) as k (kind, chain_id, asset, address, payment_id)
        on conflict on constraint ledger_accounts_key do nothing
        "#,
        &kinds,
        &chains,
        &assets,
        &addresses as &[Option<Vec<u8>>],
        &payments as &[Option<Uuid>]
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The balance of one account; zero for an account that was never opened.
pub async fn balance(connection: &mut PgConnection, asset: AssetId, key: AccountKey) -> Result<TokenAmount, DbError> {
    let marker = asset.asset.marker();
    let text = sqlx::query_scalar!(
        r#"
        select b.balance::text as "balance!"
        from ledger_accounts a join ledger_balances b on b.account_id = a.id
        where a.kind = $1 and a.chain_id = $2::bigint and a.asset = $3::bytea and a.holder = $4
        "#,
        key.kind() as AccountKind,
        asset.chain.as_i64(),
        marker.as_slice(),
        key.holder()
    )
    .fetch_optional(connection)
    .await?;
    text.map_or(Ok(TokenAmount::new(asset, U256::ZERO)), |text| Ok(TokenAmount::new(asset, units_from_sql(&text)?)))
}

/// One custody account: what the ledger says is at an address.
#[derive(Clone, Copy, Debug)]
pub struct CustodyRow {
    pub address: Address,
    pub balance: TokenAmount,
}

/// Custody accounts of a chain, by address and asset.
pub async fn list_custody(connection: &mut PgConnection, chain: ChainId) -> Result<Vec<CustodyRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select a.address as "address!: Vec<u8>", a.asset as "asset!: Vec<u8>", b.balance::text as "balance!"
        from ledger_accounts a join ledger_balances b on b.account_id = a.id
        where a.kind = 'custody' and a.chain_id = $1::bigint
        order by a.holder, a.asset
        "#,
        chain.as_i64()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            Ok(CustodyRow { address: address_from_sql(&row.address)?, balance: TokenAmount::new(asset, units_from_sql(&row.balance)?) })
        })
        .collect()
}

/// Addresses of custody accounts of a chain, page by page in their own order.
pub async fn list_custody_addresses(
    connection: &mut PgConnection,
    chain: ChainId,
    after: Option<Address>,
    limit: i64,
) -> Result<Vec<Address>, DbError> {
    let after = after.map(|address| address.to_vec()).unwrap_or_default();
    let rows = sqlx::query_scalar!(
        r#"
        select distinct holder as "address!: Vec<u8>" from ledger_accounts
        where kind = 'custody' and chain_id = $1::bigint and holder > $2::bytea
        order by 1 limit $3
        "#,
        chain.as_i64(),
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|address| address_from_sql(address)).collect()
}

/// The sum of all accounts of one kind in one asset.
#[derive(Clone, Copy, Debug)]
pub struct KindTotal {
    pub kind: AccountKind,
    pub total: TokenAmount,
}

/// Totals per asset and kind of account. Their two sides must be equal (L1).
pub async fn list_totals(connection: &mut PgConnection) -> Result<Vec<KindTotal>, DbError> {
    let rows = sqlx::query!(
        r#"
        select a.chain_id as "chain_id!: i64", a.asset as "asset!: Vec<u8>", a.kind as "kind!: AccountKind", sum(b.balance)::text as "total!"
        from ledger_accounts a join ledger_balances b on b.account_id = a.id
        group by a.chain_id, a.asset, a.kind order by a.chain_id, a.asset, a.kind
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            Ok(KindTotal { kind: row.kind, total: TokenAmount::new(asset, units_from_sql(&row.total)?) })
        })
        .collect()
}

/// An entry in the ledger.
#[derive(Clone, Debug)]
pub struct PostedEntry {
    pub id: LedgerEntryId,
    pub entry: Entry,
    pub created_at: OffsetDateTime,
}

struct Row {
    id: i64,
    entry_type: EntryType,
    payment_id: Option<Uuid>,
    chain_id: i64,
    asset: Vec<u8>,
    amount: String,
    asset_decimals: i16,
    reverses_entry_id: Option<i64>,
    idempotency_key: String,
    memo: String,
    created_at: OffsetDateTime,
    debit_kind: AccountKind,
    debit_address: Option<Vec<u8>>,
    debit_payment: Option<Uuid>,
    credit_kind: AccountKind,
    credit_address: Option<Vec<u8>>,
    credit_payment: Option<Uuid>,
}

impl TryFrom<Row> for PostedEntry {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
        let decimals = u8::try_from(row.asset_decimals).map_err(|_| DbError::Corrupt {
            column: "funds_ledger_entries.asset_decimals",
            found: row.asset_decimals.to_string(),
            wanted: "0 to 18",
        })?;
        Ok(Self {
            id: LedgerEntryId(row.id),
            entry: Entry {
                entry_type: row.entry_type,
                payment: row.payment_id.map(PaymentId),
                amount: TokenAmount::new(asset, units_from_sql(&row.amount)?),
                decimals,
                debit: account_key(row.debit_kind, row.debit_address.as_deref(), row.debit_payment)?,
                credit: account_key(row.credit_kind, row.credit_address.as_deref(), row.credit_payment)?,
                reverses: row.reverses_entry_id.map(LedgerEntryId),
                key: row.idempotency_key,
                memo: row.memo,
            },
            created_at: row.created_at,
        })
    }
}

pub(super) fn account_key(kind: AccountKind, address: Option<&[u8]>, payment: Option<Uuid>) -> Result<AccountKey, DbError> {
    let corrupt = || DbError::Corrupt { column: "ledger_accounts", found: kind.name().to_owned(), wanted: "its address or payment" };
    let payment = payment.map(PaymentId);
    let of_payment = || payment.ok_or_else(corrupt);
    Ok(match kind {
        AccountKind::Custody => AccountKey::Custody(address_from_sql(address.ok_or_else(corrupt)?)?),
        AccountKind::NetworkFee => AccountKey::NetworkFee,
        AccountKind::Shortfall => AccountKey::Shortfall,
        AccountKind::Received => AccountKey::Received(of_payment()?),
        AccountKind::Held => AccountKey::Held(of_payment()?),
        AccountKind::Disputed => AccountKey::Disputed(of_payment()?),
        AccountKind::Payable => AccountKey::Payable(of_payment()?),
        AccountKind::Suspense => AccountKey::Suspense(payment),
        AccountKind::PlatformFee => AccountKey::PlatformFee,
        AccountKind::ProviderFee => AccountKey::ProviderFee,
        AccountKind::Operator => AccountKey::Operator,
    })
}

/// Entries of a payment, or all of them, after an id; oldest first.
pub async fn list(
    connection: &mut PgConnection,
    payment: Option<PaymentId>,
    after: LedgerEntryId,
    limit: i64,
) -> Result<Vec<PostedEntry>, DbError> {
    let ids = match payment {
        Some(PaymentId(payment)) => {
            sqlx::query_scalar!(
                r#"select o.id as "id!" from ledger_entries_of($1) as o (id) where o.id > $2 order by 1 limit $3"#,
                payment,
                after.0,
                limit
            )
            .fetch_all(&mut *connection)
            .await?
        }
        None => {
            sqlx::query_scalar!("select id from funds_ledger_entries where id > $1 order by id limit $2", after.0, limit)
                .fetch_all(&mut *connection)
                .await?
        }
    };
    list_by_ids(connection, &ids).await
}

/// Entries by their ids, in the order of the ids. One that is not there is left out.
pub async fn list_by_ids(connection: &mut PgConnection, ids: &[i64]) -> Result<Vec<PostedEntry>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select e.id, e.entry_type as "entry_type: EntryType", e.payment_id, e.chain_id as "chain_id!: i64", e.asset as "asset!: Vec<u8>",
               e.amount_units::text as "amount!", e.asset_decimals, e.reverses_entry_id, e.idempotency_key, e.memo, e.created_at,
               d.kind as "debit_kind!: AccountKind", d.address as "debit_address?: Vec<u8>", d.payment_id as "debit_payment?",
               c.kind as "credit_kind!: AccountKind", c.address as "credit_address?: Vec<u8>", c.payment_id as "credit_payment?"
        from funds_ledger_entries e
        join ledger_accounts d on d.id = e.debit_account_id
        join ledger_accounts c on c.id = e.credit_account_id
        where e.id = any ($1::bigint[])
        order by e.id
        "#,
        ids
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(PostedEntry::try_from).collect()
}

/// The entry under a key, if it was posted.
pub async fn find(connection: &mut PgConnection, key: &str) -> Result<Option<PostedEntry>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select e.id, e.entry_type as "entry_type: EntryType", e.payment_id, e.chain_id as "chain_id!: i64", e.asset as "asset!: Vec<u8>",
               e.amount_units::text as "amount!", e.asset_decimals, e.reverses_entry_id, e.idempotency_key, e.memo, e.created_at,
               d.kind as "debit_kind!: AccountKind", d.address as "debit_address?: Vec<u8>", d.payment_id as "debit_payment?",
               c.kind as "credit_kind!: AccountKind", c.address as "credit_address?: Vec<u8>", c.payment_id as "credit_payment?"
        from funds_ledger_entries e
        join ledger_accounts d on d.id = e.debit_account_id
        join ledger_accounts c on c.id = e.credit_account_id
        where e.idempotency_key = $1
        "#,
        key
    )
    .fetch_optional(connection)
    .await?;
    row.map(PostedEntry::try_from).transpose()
}

/// Which of these keys are in the ledger.
pub async fn list_posted_keys(connection: &mut PgConnection, keys: &[String]) -> Result<BTreeSet<String>, DbError> {
    let rows = sqlx::query_scalar!("select idempotency_key from funds_ledger_entries where idempotency_key = any ($1::text[])", keys)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Entries of a payment that took money out of its received account and were not reversed, newest first.
pub async fn list_taken_from_received(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<PostedEntry>, DbError> {
    let keys = sqlx::query_scalar!(
        r#"
        select e.idempotency_key
        from ledger_accounts a join funds_ledger_entries e on e.debit_account_id = a.id
        where a.payment_id = $1 and a.kind = 'received' and e.entry_type <> 'reversal'
          and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)
        order by e.id desc
        "#,
        payment.0
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        entries.extend(find(connection, &key).await?);
    }
    Ok(entries)
}

/// Standing entries between two claims of a payment in one asset, newest first: what was decided about its
/// money. What arrived, what left and what was earned are not among them, and neither is a credit that was
/// counted after all.
pub async fn list_decisions(connection: &mut PgConnection, payment: PaymentId, asset: AssetId) -> Result<Vec<PostedEntry>, DbError> {
    let marker = asset.asset.marker();
    let keys = sqlx::query_scalar!(
        r#"
        select e.idempotency_key
        from ledger_entries_of($1) as o (id)
        join funds_ledger_entries e on e.id = o.id
        join ledger_accounts d on d.id = e.debit_account_id
        join ledger_accounts c on c.id = e.credit_account_id
        where e.chain_id = $2::bigint and e.asset = $3::bytea and e.entry_type <> 'reversal'
          and d.payment_id = $1 and c.payment_id = $1 and e.idempotency_key not like 'verdict:%:counted'
          and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)
        order by e.id desc
        "#,
        payment.0,
        asset.chain.as_i64(),
        marker.as_slice()
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut entries = Vec::with_capacity(keys.len());
    for key in keys {
        entries.extend(find(connection, &key).await?);
    }
    Ok(entries)
}

/// Whether the entry under a key was posted and not reversed.
pub async fn is_standing(connection: &mut PgConnection, key: &str) -> Result<bool, DbError> {
    let standing = sqlx::query_scalar!(
        r#"
        select exists (
            select from funds_ledger_entries e
            where e.idempotency_key = $1 and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)
        ) as "standing!"
        "#,
        key
    )
    .fetch_one(connection)
    .await?;
    Ok(standing)
}

/// What the claims of a payment hold, account by account; empty ones are left out.
pub async fn list_claims(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<KindTotal>, DbError> {
    let rows = sqlx::query!(
        r#"
        select a.chain_id as "chain_id!: i64", a.asset as "asset!: Vec<u8>", a.kind as "kind!: AccountKind", b.balance::text as "balance!"
        from ledger_accounts a join ledger_balances b on b.account_id = a.id
        where a.payment_id = $1 and b.balance > 0
        order by a.chain_id, a.asset, a.kind
        "#,
        payment.0
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            Ok(KindTotal { kind: row.kind, total: TokenAmount::new(asset, units_from_sql(&row.balance)?) })
        })
        .collect()
}

/// Accounts whose balance or version differs from what their entries say (L2). Empty in health.
pub async fn list_drifting(connection: &mut PgConnection) -> Result<Vec<LedgerAccountId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select a.id as "id!"
        from ledger_accounts a
        left join ledger_balances b on b.account_id = a.id
        left join (
            select account_id, sum(debited) as debited, sum(credited) as credited, count(*) as entries from (
                select debit_account_id as account_id, amount_units::numeric as debited, 0::numeric as credited from funds_ledger_entries
                union all
                select credit_account_id, 0, amount_units::numeric from funds_ledger_entries
            ) legs group by account_id
        ) m on m.account_id = a.id
        where b.balance is distinct from
                  case when a.debit_normal then coalesce(m.debited - m.credited, 0) else coalesce(m.credited - m.debited, 0) end
           or b.version is distinct from coalesce(m.entries, 0)
        limit 100
        "#
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(LedgerAccountId).collect())
}

/// Up to which verdict the ledger has read a chain.
pub async fn get_cursor(connection: &mut PgConnection, chain: ChainId) -> Result<i64, DbError> {
    let verdict = sqlx::query_scalar!("select verdict_id from ledger_cursors where chain_id = $1::bigint", chain.as_i64())
        .fetch_optional(connection)
        .await?;
    Ok(verdict.unwrap_or(0))
}

/// Moves the cursor on; it never goes back.
pub async fn advance_cursor(connection: &mut PgConnection, chain: ChainId, verdict: i64) -> Result<(), DbError> {
    sqlx::query!(
        "insert into ledger_cursors (chain_id, verdict_id) values ($1::bigint, $2)
         on conflict (chain_id) do update set verdict_id = greatest(ledger_cursors.verdict_id, excluded.verdict_id), updated_at = now()",
        chain.as_i64(),
        verdict
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes a verdict that could not be posted.
pub async fn set_aside(connection: &mut PgConnection, chain: ChainId, verdict: i64, reason: &str) -> Result<(), DbError> {
    sqlx::query!(
        "insert into ledger_unposted (verdict_id, chain_id, reason) values ($1, $2::bigint, $3)
         on conflict (verdict_id) do update set reason = excluded.reason",
        verdict,
        chain.as_i64(),
        reason
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Verdicts that wait to be posted, oldest first.
pub async fn list_unposted(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<i64>, DbError> {
    let rows = sqlx::query_scalar!(
        "select verdict_id from ledger_unposted where chain_id = $1::bigint and posted_at is null order by verdict_id limit $2",
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// A verdict is posted; if it had waited, it waits no longer.
pub async fn close_unposted(connection: &mut PgConnection, verdict: i64, now: OffsetDateTime) -> Result<(), DbError> {
    sqlx::query!("update ledger_unposted set posted_at = $2 where verdict_id = $1 and posted_at is null", verdict, now)
        .execute(connection)
        .await?;
    Ok(())
}
