//! SQL of `trezor_accounts` and `trezor_derived_addresses`.

use std::ops::Range;

use alloy::primitives::Address;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    AccountError, AccountIndex, AccountXpub, AddressIndex, Branch, Capacity, Counter, DerivationPath, DeriveError, DerivedAddress,
    Fingerprint, Purpose, StoredAddress, TrezorAccount, TwoDerivers,
};
use crate::db::codec::address_from_sql;
use crate::db::{DbError, expect_one};
use crate::event::{self, Event};
use crate::units::TrezorAccountId;

/// What the device said of itself at enrolment: a hint for the officer, never an identity.
#[derive(Clone, Debug, Default)]
pub struct DeviceHint {
    pub device_id: Option<String>,
    pub model: Option<String>,
}

/// Enrols an account and derives the operator's own addresses on it.
pub async fn insert(
    connection: &mut PgConnection,
    label: &str,
    xpub: &AccountXpub,
    hint: &DeviceHint,
) -> Result<TrezorAccountId, AccountError> {
    let id = TrezorAccountId(Uuid::now_v7());
    let index = xpub.account();
    let fingerprint = xpub.fingerprint();
    let outcome = sqlx::query!(
        "insert into trezor_accounts (id, label, account_index, path, xpub, fingerprint, device_id, device_model)
         values ($1, $2, $3::integer::smallint, $4, $5, $6, $7, $8)",
        id.0,
        label,
        index.as_i32(),
        format!("m/44'/60'/{index}'"),
        xpub.expose(),
        fingerprint.0.as_slice(),
        hint.device_id,
        hint.model
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from);
    if let Err(error) = outcome {
        return Err(match error.constraint() {
            Some("trezor_accounts_xpub_key") => AccountError::XpubTaken { label: label.to_owned() },
            Some("trezor_accounts_label_key") => AccountError::LabelTaken { label: label.to_owned() },
            Some(_) | None => error.into(),
        });
    }
    let derivers = TwoDerivers::new(xpub, Branch::Operator)?;
    for (purpose, place) in Purpose::OPERATOR {
        let place = AddressIndex::new(place).expect("the operator's places are small");
        insert_address(connection, id, &derivers, place, purpose).await?;
    }
    Ok(id)
}

/// Enrolled accounts, in the order in which they are used.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<TrezorAccount>, DbError> {
    let rows = sqlx::query!(
        "select id, label, account_index, xpub, fingerprint, next_deposit_index from trezor_accounts order by account_index, created_at, id"
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TrezorAccount {
                id: TrezorAccountId(row.id),
                label: row.label,
                xpub: stored_xpub(&row.xpub, row.account_index)?,
                fingerprint: stored_fingerprint(&row.fingerprint)?,
                next_deposit_index: row.next_deposit_index.cast_unsigned(),
            })
        })
        .collect()
}

/// The account with this label.
pub async fn get_by_label(connection: &mut PgConnection, label: &str) -> Result<TrezorAccount, AccountError> {
    let found = list(connection).await?.into_iter().find(|account| account.label == label);
    found.ok_or_else(|| AccountError::Unknown { label: label.to_owned() })
}

/// The xpub of an account.
pub async fn get_xpub(connection: &mut PgConnection, account: TrezorAccountId) -> Result<AccountXpub, DbError> {
    let row = sqlx::query!("select account_index, xpub from trezor_accounts where id = $1", account.0).fetch_one(connection).await?;
    stored_xpub(&row.xpub, row.account_index)
}

/// How far each account has been issued, in the order in which they are used. One row for each account,
/// however many addresses there are.
pub async fn list_counters(connection: &mut PgConnection) -> Result<Vec<Counter>, DbError> {
    let rows =
        sqlx::query!("select id, label, account_index, next_deposit_index from trezor_accounts order by account_index, created_at, id")
            .fetch_all(connection)
            .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Counter {
                id: TrezorAccountId(row.id),
                label: row.label,
                account: stored_account(row.account_index)?,
                next_deposit_index: row.next_deposit_index.cast_unsigned(),
            })
        })
        .collect()
}

/// Hands out the next deposit address, of the first account that has room: the lowest account number.
///
/// An index is never handed out twice: the counter moves in the caller's transaction, under the account
/// row's lock. Whoever waits for that lock while the last index goes looks at the next account.
pub async fn claim_deposit_address(connection: &mut PgConnection) -> Result<DerivedAddress, AccountError> {
    // Ends: each turn uses up an index.
    loop {
        let row = sqlx::query!(
            r#"
            update trezor_accounts set next_deposit_index = next_deposit_index + 1, updated_at = now()
            where id = (
                select id from trezor_accounts where next_deposit_index <= $1
                order by account_index, created_at, id limit 1 for no key update
            )
            returning id, account_index, xpub, next_deposit_index - 1 as "index!"
            "#,
            AddressIndex::MAX.cast_signed()
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(DbError::from)?;
        let Some(row) = row else {
            let counters = list_counters(connection).await?;
            return Err(match counters.last() {
                Some(last) => AccountError::Exhausted { last: last.label.clone(), next: Capacity::of(&counters).next },
                None => AccountError::NoAccount,
            });
        };
        let account = TrezorAccountId(row.id);
        let xpub = stored_xpub(&row.xpub, row.account_index)?;
        let index = stored_index("trezor_accounts.next_deposit_index", row.index)?;
        let derivers = TwoDerivers::new(&xpub, Branch::Deposit)?;
        match insert_address(connection, account, &derivers, index, Purpose::Deposit).await {
            // Once in 2^127: the index stays skipped, the next one serves.
            Err(AccountError::Derive(DeriveError::Invalid { path })) => append_skipped(connection, path).await?,
            outcome => return outcome,
        }
    }
}

/// Stores an address that two implementations derive alike; one that they do not is never stored.
pub async fn insert_address(
    connection: &mut PgConnection,
    account: TrezorAccountId,
    derivers: &TwoDerivers,
    index: AddressIndex,
    purpose: Purpose,
) -> Result<DerivedAddress, AccountError> {
    let path = derivers.path(index);
    let address = derivers.address(index)?;
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into trezor_derived_addresses (id, account_id, branch, address_index, address, purpose)
         values ($1, $2, $3::integer::smallint, $4, $5::bytea, $6)",
        id,
        account.0,
        path.branch.as_i32(),
        index.as_i32(),
        address.as_slice(),
        purpose as Purpose
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?;
    Ok(DerivedAddress { id, account, path, address, purpose })
}

/// Records that an index has no valid key and is skipped for ever.
pub async fn append_skipped(connection: &mut PgConnection, path: DerivationPath) -> Result<(), DbError> {
    tracing::warn!(%path, "an index without a valid key is skipped for ever");
    let detail = serde_json::json!({ "path": path.to_string() });
    event::store::append(connection, &Event { kind: "address_index.skipped", payment: None, intent: None, chain: None, detail }).await
}

/// Raises an account's counter to `next`, never lowers it. The row stays locked until the caller commits.
pub async fn raise_counter(connection: &mut PgConnection, account: TrezorAccountId, next: u32) -> Result<(), DbError> {
    let outcome = sqlx::query!(
        "update trezor_accounts set next_deposit_index = greatest(next_deposit_index, $2), updated_at = now() where id = $1",
        account.0,
        next.cast_signed()
    )
    .execute(connection)
    .await?;
    expect_one(outcome.rows_affected(), "an account by its id")
}

/// The stored addresses of a branch at `indices`, ascending. The caller bounds the range: every index has
/// at most one row.
pub async fn list_range(
    connection: &mut PgConnection,
    account: TrezorAccountId,
    branch: Branch,
    indices: Range<u32>,
) -> Result<Vec<StoredAddress>, DbError> {
    let rows = sqlx::query!(
        r#"
        select address_index, address as "address!: Vec<u8>", purpose as "purpose: Purpose"
        from trezor_derived_addresses
        where account_id = $1 and branch = $2::integer::smallint and address_index >= $3 and address_index < $4
        order by address_index
        "#,
        account.0,
        branch.as_i32(),
        indices.start.cast_signed(),
        indices.end.cast_signed()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(StoredAddress {
                index: stored_index("trezor_derived_addresses.address_index", row.address_index)?,
                address: address_from_sql(&row.address)?,
                purpose: row.purpose,
            })
        })
        .collect()
}

/// The first stored addresses that no counter accounts for: deposit indices not yet issued, and places of
/// the operator's branch that are nobody's. One statement, so that an address issued meanwhile is none.
pub async fn list_beyond(
    connection: &mut PgConnection,
    account: TrezorAccountId,
    limit: i64,
) -> Result<Vec<(Branch, StoredAddress)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select
            d.branch as "branch!", d.address_index as "address_index!", d.address as "address!: Vec<u8>", d.purpose as "purpose!: Purpose"
        from trezor_accounts a
        join trezor_derived_addresses d on d.account_id = a.id and d.branch = 0 and d.address_index >= a.next_deposit_index
        where a.id = $1
        union all
        select branch, address_index, address, purpose
        from trezor_derived_addresses where account_id = $1 and branch = 1 and address_index >= $2
        order by 1, 2 limit $3
        "#,
        account.0,
        Branch::OPERATOR_INDICES.cast_signed(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let path = stored_path(0, row.branch, row.address_index)?;
            Ok((path.branch, StoredAddress { index: path.index, address: address_from_sql(&row.address)?, purpose: row.purpose }))
        })
        .collect()
}

/// The address with this id.
pub async fn get_address(connection: &mut PgConnection, id: Uuid) -> Result<DerivedAddress, DbError> {
    let found = list_addresses(connection, Some(id)).await?;
    found.into_iter().next().ok_or(DbError::NotOneRow { what: "a derived address by its id", found: 0 })
}

/// The id of an address, if it is one of ours.
pub async fn find_address_id(connection: &mut PgConnection, address: Address) -> Result<Option<Uuid>, DbError> {
    let id = sqlx::query_scalar!("select id from trezor_derived_addresses where address = $1::bytea", address.as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(id)
}

/// The operator's own address of an account.
pub async fn get_operator_address(
    connection: &mut PgConnection,
    account: TrezorAccountId,
    purpose: Purpose,
) -> Result<DerivedAddress, DbError> {
    let id = sqlx::query_scalar!(
        "select id from trezor_derived_addresses where account_id = $1 and purpose = $2 and branch = 1 order by address_index limit 1",
        account.0,
        purpose as Purpose
    )
    .fetch_one(&mut *connection)
    .await?;
    get_address(connection, id).await
}

/// The operator's addresses of all accounts.
pub async fn list_operator_addresses(connection: &mut PgConnection) -> Result<Vec<DerivedAddress>, DbError> {
    let found = list_addresses(connection, None).await?;
    Ok(found.into_iter().filter(|address| address.path.branch == Branch::Operator).collect())
}

/// One address by id, or all of the operator's (deposit addresses are many, so never all of them).
async fn list_addresses(connection: &mut PgConnection, id: Option<Uuid>) -> Result<Vec<DerivedAddress>, DbError> {
    let rows = sqlx::query!(
        r#"
        select d.id, d.account_id, d.branch, d.address_index, d.address as "address!: Vec<u8>", d.purpose as "purpose: Purpose",
               a.account_index
        from trezor_derived_addresses d join trezor_accounts a on a.id = d.account_id
        where d.id = $1 or ($1::uuid is null and d.branch = 1)
        order by d.account_id, d.branch, d.address_index
        "#,
        id
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let path = stored_path(row.account_index, row.branch, row.address_index)?;
            Ok(DerivedAddress {
                id: row.id,
                account: TrezorAccountId(row.account_id),
                path,
                address: address_from_sql(&row.address)?,
                purpose: row.purpose,
            })
        })
        .collect()
}

fn stored_xpub(text: &str, account_index: i16) -> Result<AccountXpub, DbError> {
    // The text itself must not reach an error: it opens the view on every customer's address.
    let corrupt = || DbError::Corrupt { column: "trezor_accounts.xpub", found: "text".to_owned(), wanted: "the xpub of its account" };
    let account = stored_account(account_index)?;
    AccountXpub::parse_for(text, account).map_err(|_| corrupt())
}

fn stored_fingerprint(bytes: &[u8]) -> Result<Fingerprint, DbError> {
    let found = || DbError::Corrupt { column: "trezor_accounts.fingerprint", found: format!("{} bytes", bytes.len()), wanted: "4 bytes" };
    bytes.try_into().map(Fingerprint).map_err(|_| found())
}

fn stored_account(index: i16) -> Result<AccountIndex, DbError> {
    AccountIndex::try_from(i32::from(index)).map_err(|_| DbError::Corrupt {
        column: "trezor_accounts.account_index",
        found: index.to_string(),
        wanted: "0 to 100",
    })
}

fn stored_index(column: &'static str, index: i32) -> Result<AddressIndex, DbError> {
    AddressIndex::try_from(index).map_err(|_| DbError::Corrupt { column, found: index.to_string(), wanted: "0 to 1000000" })
}

fn stored_path(account: i16, branch: i16, index: i32) -> Result<DerivationPath, DbError> {
    let corrupt = |_| DbError::Corrupt {
        column: "trezor_derived_addresses",
        found: format!("{account}/{branch}/{index}"),
        wanted: "a path the device signs for",
    };
    Ok(DerivationPath::new(
        AccountIndex::try_from(i32::from(account)).map_err(corrupt)?,
        Branch::try_from(i32::from(branch)).map_err(corrupt)?,
        AddressIndex::try_from(index).map_err(corrupt)?,
    ))
}
