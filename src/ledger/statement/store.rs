//! SQL of statements: pages of entries and of balances.
//!
//! Each page is a statement of its own that an index serves, so that none is long however much is read.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{BalanceLine, Filter, Side};
use crate::db::DbError;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, units_from_sql};
use crate::ledger::entry::AccountKind;
use crate::ledger::store::{PostedEntry, account_key, list_by_ids};
use crate::units::{Asset, AssetId, LedgerAccountId, PaymentId};

/// Ids between which the entries of a period are; `None` when there are none.
pub async fn find_bounds(
    connection: &mut PgConnection,
    from: Option<OffsetDateTime>,
    until: Option<OffsetDateTime>,
) -> Result<Option<(i64, i64)>, DbError> {
    let bounds = if from.is_none() && until.is_none() {
        let row = sqlx::query!("select min(id) as first, max(id) as last from funds_ledger_entries").fetch_one(connection).await?;
        row.first.zip(row.last)
    } else {
        // `+ 0` keeps the planner from walking along the ids until a row of the period comes.
        let row = sqlx::query!(
            "select min(id + 0) as first, max(id + 0) as last from funds_ledger_entries
             where created_at >= coalesce($1::timestamptz, '-infinity') and created_at < coalesce($2::timestamptz, 'infinity')",
            from,
            until
        )
        .fetch_one(connection)
        .await?;
        row.first.zip(row.last)
    };
    Ok(bounds)
}

/// What was in an account before an instant, as a number.
pub async fn get_opening(connection: &mut PgConnection, account: LedgerAccountId, from: Option<OffsetDateTime>) -> Result<String, DbError> {
    let opening = sqlx::query_scalar!(
        r#"
        select (case when a.debit_normal then d.units - c.units else c.units - d.units end)::text as "opening!"
        from ledger_accounts a
        cross join lateral (
            select coalesce(sum(amount_units::numeric), 0) as units from funds_ledger_entries
            where debit_account_id = a.id and created_at < $2
        ) d
        cross join lateral (
            select coalesce(sum(amount_units::numeric), 0) as units from funds_ledger_entries
            where credit_account_id = a.id and created_at < $2
        ) c
        where a.id = $1
        "#,
        account.0,
        from.unwrap_or(OffsetDateTime::UNIX_EPOCH)
    )
    .fetch_optional(connection)
    .await?;
    opening.ok_or(DbError::NotOneRow { what: "a ledger account by its id", found: 0 })
}

/// A page of a statement that is not an account's.
pub async fn list_entries(
    connection: &mut PgConnection,
    filter: &Filter,
    (after, last): (i64, i64),
    limit: i64,
) -> Result<Vec<PostedEntry>, DbError> {
    let ids = match filter.payment {
        Some(PaymentId(payment)) => {
            sqlx::query_scalar!(
                "select e.id from ledger_entries_of($1) as o (id) join funds_ledger_entries e on e.id = o.id
                 where e.id > $2 and e.id <= $3
                   and created_at >= coalesce($4::timestamptz, '-infinity') and created_at < coalesce($5::timestamptz, 'infinity')
                 order by e.id limit $6",
                payment,
                after,
                last,
                filter.from,
                filter.until,
                limit
            )
            .fetch_all(&mut *connection)
            .await?
        }
        None => {
            sqlx::query_scalar!(
                "select id from funds_ledger_entries
                 where id > $1 and id <= $2
                   and created_at >= coalesce($3::timestamptz, '-infinity') and created_at < coalesce($4::timestamptz, 'infinity')
                 order by id limit $5",
                after,
                last,
                filter.from,
                filter.until,
                limit
            )
            .fetch_all(&mut *connection)
            .await?
        }
    };
    list_by_ids(connection, &ids).await
}

/// A page of an account's statement, with what was in the account after each line. `balance` is what was in it
/// before the page.
pub async fn list_account_entries(
    connection: &mut PgConnection,
    filter: &Filter,
    account: LedgerAccountId,
    (after, last): (i64, i64),
    balance: &str,
    limit: i64,
) -> Result<Vec<(PostedEntry, Side)>, DbError> {
    let rows = sqlx::query!(
        r#"
        with sides as (
            (select id, true as debited, amount_units::numeric as units, payment_id, created_at from funds_ledger_entries
             where debit_account_id = $1 and id > $2 and id <= $3
               and ($4::uuid is null or payment_id = $4)
               and created_at >= coalesce($5::timestamptz, '-infinity') and created_at < coalesce($6::timestamptz, 'infinity')
             order by id limit $8)
            union all
            (select id, false, amount_units::numeric, payment_id, created_at from funds_ledger_entries
             where credit_account_id = $1 and id > $2 and id <= $3
               and ($4::uuid is null or payment_id = $4)
               and created_at >= coalesce($5::timestamptz, '-infinity') and created_at < coalesce($6::timestamptz, 'infinity')
             order by id limit $8)
        )
        select s.id as "id!", s.debited as "debited!",
               ($7::text::numeric
                + sum(case when s.debited = a.debit_normal then s.units else -s.units end) over (order by s.id))::text as "balance!"
        from sides s join ledger_accounts a on a.id = $1
        order by s.id limit $8
        "#,
        account.0,
        after,
        last,
        filter.payment.map(|payment| payment.0) as Option<Uuid>,
        filter.from,
        filter.until,
        balance,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let entries = list_by_ids(connection, &ids).await?;
    let sides = rows.into_iter().map(|row| Side { debited: row.debited, balance: row.balance });
    Ok(entries.into_iter().zip(sides).collect())
}

/// Accounts after an id with what is in them, or what was in them at an instant.
pub async fn list_balances(
    connection: &mut PgConnection,
    at: Option<OffsetDateTime>,
    after: LedgerAccountId,
    limit: i64,
) -> Result<Vec<BalanceLine>, DbError> {
    let rows = sqlx::query!(
        r#"
        with page as (
            select * from ledger_accounts where id > $1 order by id limit $2
        )
        select p.id as "id!", p.kind as "kind!: AccountKind", p.chain_id as "chain_id!: i64", p.asset as "asset!: Vec<u8>",
               p.address as "address?: Vec<u8>", p.payment_id as "payment_id?",
               coalesce(h.units, b.balance)::text as "units!", coalesce(h.entries, b.version) as "entries!"
        from page p
        join ledger_balances b on b.account_id = p.id
        left join lateral (
            select case when p.debit_normal then d.units - c.units else c.units - d.units end as units, d.entries + c.entries as entries
            from (
                select coalesce(sum(amount_units::numeric), 0) as units, count(*) as entries from funds_ledger_entries
                where debit_account_id = p.id and created_at <= $3
            ) d
            cross join (
                select coalesce(sum(amount_units::numeric), 0) as units, count(*) as entries from funds_ledger_entries
                where credit_account_id = p.id and created_at <= $3
            ) c
        ) h on $3::timestamptz is not null
        order by p.id
        "#,
        after.0,
        limit,
        at
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(BalanceLine {
                account: LedgerAccountId(row.id),
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                key: account_key(row.kind, row.address.as_deref(), row.payment_id)?,
                units: units_from_sql(&row.units)?,
                entries: count_from_sql("ledger_balances.version", row.entries)?,
            })
        })
        .collect()
}
