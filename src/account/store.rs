//! SQL of `trezor_accounts` and `trezor_derived_addresses`.

use alloy::primitives::Address;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    AccountError, AccountIndex, AccountXpub, AddressIndex, Branch, DerivationPath, DeriveError, DerivedAddress, Deriver, Purpose,
    TrezorAccount,
};
use crate::db::DbError;
use crate::db::codec::{address_from_sql, count_from_sql};
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
    let deriver = Deriver::new(xpub, Branch::Operator)?;
    for (purpose, place) in Purpose::OPERATOR {
        let place = AddressIndex::new(place).expect("the operator's places are small");
        insert_address(connection, id, &deriver, place, purpose).await?;
    }
    Ok(id)
}

/// Enrolled accounts, oldest first.
pub async fn list(connection: &mut PgConnection) -> Result<Vec<TrezorAccount>, DbError> {
    let rows = sqlx::query!("select id, label, account_index, xpub, next_deposit_index from trezor_accounts order by created_at, id")
        .fetch_all(connection)
        .await?;
    rows.into_iter()
        .map(|row| {
            Ok(TrezorAccount {
                id: TrezorAccountId(row.id),
                label: row.label,
                xpub: stored_xpub(&row.xpub, row.account_index)?,
                next_deposit_index: row.next_deposit_index.cast_unsigned(),
            })
        })
        .collect()
}

/// Hands out the next deposit address of the newest account. An index is never handed out twice: the
/// counter moves in the caller's transaction, under the account row's lock.
pub async fn claim_deposit_address(connection: &mut PgConnection) -> Result<DerivedAddress, AccountError> {
    loop {
        let row = sqlx::query!(
            r#"
            update trezor_accounts set next_deposit_index = next_deposit_index + 1, updated_at = now()
            where id = (select id from trezor_accounts order by created_at desc, id desc limit 1) and next_deposit_index <= $1
            returning id, label, account_index, xpub, next_deposit_index - 1 as "index!"
            "#,
            AddressIndex::MAX.cast_signed()
        )
        .fetch_optional(&mut *connection)
        .await
        .map_err(DbError::from)?;
        let Some(row) = row else {
            return Err(match list(connection).await?.pop() {
                Some(account) => AccountError::Exhausted { label: account.label },
                None => AccountError::NoAccount,
            });
        };
        let xpub = stored_xpub(&row.xpub, row.account_index)?;
        let index = AddressIndex::try_from(row.index).map_err(|_| DbError::Corrupt {
            column: "trezor_accounts.next_deposit_index",
            found: row.index.to_string(),
            wanted: "0 to 1000000",
        })?;
        let deriver = Deriver::new(&xpub, Branch::Deposit)?;
        match insert_address(connection, TrezorAccountId(row.id), &deriver, index, Purpose::Deposit).await {
            // Once in 2^127: the index stays skipped, the next one serves.
            Err(AccountError::Derive(DeriveError::Invalid { .. })) => {}
            outcome => return outcome,
        }
    }
}

async fn insert_address(
    connection: &mut PgConnection,
    account: TrezorAccountId,
    deriver: &Deriver,
    index: AddressIndex,
    purpose: Purpose,
) -> Result<DerivedAddress, AccountError> {
    let path = deriver.path(index);
    let address = deriver.address(index)?;
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

/// An address we watch.
#[derive(Clone, Copy, Debug)]
pub struct WatchedAddress {
    pub address: Address,
    pub created_at: OffsetDateTime,
}

/// Every address ever issued, or those created at or after `since`.
pub async fn list_watched(connection: &mut PgConnection, since: Option<OffsetDateTime>) -> Result<Vec<WatchedAddress>, DbError> {
    let rows = sqlx::query!(
        r#"select address as "address!: Vec<u8>", created_at from trezor_derived_addresses where $1::timestamptz is null or created_at >= $1"#,
        since
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok(WatchedAddress { address: address_from_sql(&row.address)?, created_at: row.created_at })).collect()
}

/// How many addresses were ever issued. Whoever keeps them in memory compares: a clock that jumped hides
/// rows from [`list_watched`], but not from this.
pub async fn count_watched(connection: &mut PgConnection) -> Result<u64, DbError> {
    let rows = sqlx::query_scalar!(r#"select count(*) as "rows!" from trezor_derived_addresses"#).fetch_one(connection).await?;
    count_from_sql("count(*)", rows)
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
    let account = AccountIndex::try_from(i32::from(account_index)).map_err(|_| corrupt())?;
    AccountXpub::parse_for(text, account).map_err(|_| corrupt())
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
