//! SQL of `derived_destinations`.

use alloy::primitives::Address;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Destination, DestinationStatus};
use crate::account::DerivedAddress;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql};
use crate::db::{DbError, expect_one};
use crate::units::{BlockNumber, ChainId, PaymentId};

/// Binds a freshly claimed address to its payment.
pub async fn insert(
    connection: &mut PgConnection,
    payment: PaymentId,
    address: &DerivedAddress,
    chain: ChainId,
    birth_block: BlockNumber,
) -> Result<Destination, DbError> {
    let id = Uuid::now_v7();
    sqlx::query!(
        "insert into derived_destinations (id, payment_ref_kind, payment_id, derived_address_id, address, chain_id, birth_block)
         values ($1, 'entity', $2, $3, $4::bytea, $5::bigint, $6)",
        id,
        payment.0,
        address.id,
        address.address.as_slice(),
        chain.as_i64(),
        birth_block.as_i64()
    )
    .execute(connection)
    .await?;
    Ok(Destination {
        id,
        payment,
        derived_address: address.id,
        address: address.address,
        chain,
        birth_block,
        status: DestinationStatus::Active,
    })
}

struct Row {
    id: Uuid,
    payment_id: Uuid,
    derived_address_id: Uuid,
    address: Vec<u8>,
    chain_id: i64,
    birth_block: i64,
    status: DestinationStatus,
}

impl TryFrom<Row> for Destination {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        Ok(Self {
            id: row.id,
            payment: PaymentId(row.payment_id),
            derived_address: row.derived_address_id,
            address: address_from_sql(&row.address)?,
            chain: chain_from_sql(row.chain_id)?,
            birth_block: BlockNumber::from(row.birth_block),
            status: row.status,
        })
    }
}

/// The destination of a payment; every payment has one from the transaction that made it.
pub async fn get_by_payment(connection: &mut PgConnection, payment: PaymentId) -> Result<Destination, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, payment_id as "payment_id!", derived_address_id, address as "address!: Vec<u8>", chain_id as "chain_id!: i64",
               birth_block, status as "status: DestinationStatus"
        from derived_destinations where payment_id = $1
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    row.try_into()
}

/// The destination of a payment; one that came with an import may have none.
pub async fn find_by_payment(connection: &mut PgConnection, payment: PaymentId) -> Result<Option<Destination>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, payment_id as "payment_id!", derived_address_id, address as "address!: Vec<u8>", chain_id as "chain_id!: i64",
               birth_block, status as "status: DestinationStatus"
        from derived_destinations where payment_id = $1
        "#,
        payment.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Destination::try_from).transpose()
}

/// The destination at a derived address, if that address is a payment's.
pub async fn find_by_derived_address(connection: &mut PgConnection, derived_address: Uuid) -> Result<Option<Destination>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, payment_id as "payment_id!", derived_address_id, address as "address!: Vec<u8>", chain_id as "chain_id!: i64",
               birth_block, status as "status: DestinationStatus"
        from derived_destinations where derived_address_id = $1 and payment_id is not null
        "#,
        derived_address
    )
    .fetch_optional(connection)
    .await?;
    row.map(Destination::try_from).transpose()
}

/// Addresses of destinations that still hold or expect money on a chain.
pub async fn list_unswept(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Address>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select address as "address!: Vec<u8>" from derived_destinations
        where chain_id = $1::bigint and status <> 'swept' order by created_at limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|address| address_from_sql(address)).collect()
}

/// The same, page by page in the order of their ids.
pub async fn list_unswept_after(
    connection: &mut PgConnection,
    chain: ChainId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, Address)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select id, address as "address!: Vec<u8>" from derived_destinations
        where chain_id = $1::bigint and status <> 'swept' and id > $2 order by id limit $3
        "#,
        chain.as_i64(),
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((row.id, address_from_sql(&row.address)?))).collect()
}

/// How many destinations are being swept or held in quarantine, by chain.
pub async fn count_held(connection: &mut PgConnection) -> Result<Vec<(ChainId, DestinationStatus, u64)>, DbError> {
    let rows = sqlx::query!(
        r#"
        select chain_id as "chain_id!: i64", status as "status!: DestinationStatus", count(*) as "count!"
        from derived_destinations
        -- The first condition is the index's own.
        where status <> 'swept' and status in ('sweeping', 'quarantined')
        group by chain_id, status
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok((chain_from_sql(row.chain_id)?, row.status, count_from_sql("count", row.count)?))).collect()
}

/// Moves a destination from one status to another; somebody who moved it first makes this an error.
pub async fn advance(
    connection: &mut PgConnection,
    destination: Uuid,
    from: DestinationStatus,
    to: DestinationStatus,
) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update derived_destinations set status = $3, updated_at = now() where id = $1 and status = $2",
        destination,
        from as DestinationStatus,
        to as DestinationStatus
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a destination moving on")
}

/// Puts a destination into quarantine, from wherever it is.
pub async fn quarantine(connection: &mut PgConnection, destination: Uuid) -> Result<(), DbError> {
    sqlx::query!(
        "update derived_destinations set status = 'quarantined', updated_at = now() where id = $1 and status <> 'quarantined'",
        destination
    )
    .execute(connection)
    .await?;
    Ok(())
}
