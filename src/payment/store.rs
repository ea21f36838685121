//! SQL of `payments` and `payment_exceptions`.

use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Currency, EscrowState, ExceptionKind, NewPayment, Payment, PaymentError, PaymentEvent, PaymentState, PaymentStatus, RefTriple,
};
use crate::db::codec::{address_from_sql, chain_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::units::{Asset, AssetId, PaymentId, TokenAmount};

pub async fn insert(connection: &mut PgConnection, id: PaymentId, payment: &NewPayment) -> Result<(), DbError> {
    let (kind, entity, external) = match &payment.purchase_request {
        None => (None, None, None),
        Some(RefTriple::Entity(id)) => (Some("entity"), Some(*id), None),
        Some(RefTriple::Template(reference)) => (Some("template"), None, Some(reference.as_str())),
    };
    sqlx::query!(
        "insert into payments (
             id, buyer_id, seller_id, purchase_request_ref_kind, purchase_request_id, purchase_request_external_ref,
             amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at
         ) values (
             $1, $2, $3, $4::text::ref_kind, $5, $6, $7::text::numeric, $8, $9::bigint, $10::bytea, $11, $12,
             $13::text::numeric, $14::bytea, $15
         )",
        id.0,
        payment.buyer_id.map(|user| user.0),
        payment.seller_id.map(|user| user.0),
        kind,
        entity,
        external,
        payment.amount,
        payment.currency as Currency,
        payment.due.asset.chain.as_i64(),
        payment.token.contract.as_slice(),
        payment.token.symbol,
        i16::from(payment.token.decimals),
        units_to_sql(payment.due.units),
        payment.seller_address.as_slice(),
        payment.expires_at
    )
    .execute(connection)
    .await?;
    Ok(())
}

struct Row {
    id: Uuid,
    status: PaymentStatus,
    escrow_state: Option<EscrowState>,
    state_version: i64,
    due_units: String,
    chain_id: i64,
    token_contract: Vec<u8>,
    token_symbol: String,
    token_decimals: i16,
    currency: Currency,
    seller_address: Vec<u8>,
    release_requested_by: Option<String>,
    expires_at: OffsetDateTime,
    created_at: OffsetDateTime,
}

impl TryFrom<Row> for Payment {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let state = PaymentState::from_pair(row.status, row.escrow_state).ok_or_else(|| DbError::Corrupt {
            column: "payments.status, escrow_state",
            found: format!("{:?}, {:?}", row.status, row.escrow_state),
            wanted: "a pair this daemon writes",
        })?;
        let asset = Asset::Token(address_from_sql(&row.token_contract)?);
        let due = TokenAmount::new(AssetId { chain: chain_from_sql(row.chain_id)?, asset }, units_from_sql(&row.due_units)?);
        let token_decimals = u8::try_from(row.token_decimals).map_err(|_| DbError::Corrupt {
            column: "payments.token_decimals",
            found: row.token_decimals.to_string(),
            wanted: "0 to 18",
        })?;
        Ok(Self {
            id: PaymentId(row.id),
            state,
            state_version: row.state_version,
            due,
            token_symbol: row.token_symbol,
            token_decimals,
            currency: row.currency,
            seller_address: address_from_sql(&row.seller_address)?,
            release_requested_by: row.release_requested_by,
            expires_at: row.expires_at,
            created_at: row.created_at,
        })
    }
}

pub async fn find(connection: &mut PgConnection, id: PaymentId) -> Result<Option<Payment>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, status as "status: PaymentStatus", escrow_state as "escrow_state: EscrowState", state_version,
               due_units::text as "due_units!", chain_id as "chain_id!: i64", token_contract as "token_contract!: Vec<u8>",
               token_symbol, token_decimals, currency as "currency: Currency", seller_address as "seller_address!: Vec<u8>",
               release_requested_by, expires_at, created_at
        from payments where id = $1
        "#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Payment::try_from).transpose()
}

/// The payment, its row locked until the transaction ends: what follows is decided by one at a time.
pub async fn lock(connection: &mut PgConnection, id: PaymentId) -> Result<Payment, PaymentError> {
    sqlx::query_scalar!("select id from payments where id = $1 for update", id.0)
        .fetch_optional(&mut *connection)
        .await
        .map_err(DbError::from)?
        .ok_or(PaymentError::Unknown(id))?;
    find(connection, id).await?.ok_or(PaymentError::Unknown(id))
}

/// Payments created after the cursor `(created_at, id)`, oldest first.
pub async fn list(connection: &mut PgConnection, after: Option<(OffsetDateTime, PaymentId)>, limit: i64) -> Result<Vec<Payment>, DbError> {
    let (created_at, id) = after.map_or((OffsetDateTime::UNIX_EPOCH, Uuid::nil()), |(created_at, id)| (created_at, id.0));
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, status as "status: PaymentStatus", escrow_state as "escrow_state: EscrowState", state_version,
               due_units::text as "due_units!", chain_id as "chain_id!: i64", token_contract as "token_contract!: Vec<u8>",
               token_symbol, token_decimals, currency as "currency: Currency", seller_address as "seller_address!: Vec<u8>",
               release_requested_by, expires_at, created_at
        from payments where (created_at, id) > ($1, $2) order by created_at, id limit $3
        "#,
        created_at,
        id,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Payment::try_from).collect()
}

/// Notes who asked for the release.
pub async fn set_release_requester(connection: &mut PgConnection, payment: PaymentId, by: &str) -> Result<(), DbError> {
    let rows = sqlx::query!("update payments set release_requested_by = $2, updated_at = now() where id = $1", payment.0, by)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "a payment whose release was asked for")
}

/// What is due, and until when, by a new quote of the payment. The database holds both against that quote.
pub async fn set_due(
    connection: &mut PgConnection,
    payment: &Payment,
    due: TokenAmount,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update payments set due_units = $3::text::numeric, expires_at = $4, state_version = state_version + 1, updated_at = now()
         where id = $1 and state_version = $2",
        payment.id.0,
        payment.state_version,
        units_to_sql(due.units),
        expires_at
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a payment that is quoted anew")
}

/// Moves a payment by an event. The row must still be in the state that was read.
///
/// An event that leaves the state as it is writes nothing.
pub async fn advance(connection: &mut PgConnection, payment: &Payment, event: PaymentEvent) -> Result<Payment, PaymentError> {
    let next = payment.state.apply(event).map_err(|source| PaymentError::Illegal { payment: payment.id, source })?;
    if next == payment.state {
        return Ok(payment.clone());
    }
    let rows = sqlx::query!(
        "update payments set status = $3, escrow_state = $4, state_version = state_version + 1, updated_at = now()
         where id = $1 and state_version = $2",
        payment.id.0,
        payment.state_version,
        next.status() as PaymentStatus,
        next.escrow() as Option<EscrowState>
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?
    .rows_affected();
    expect_one(rows, "a payment moving on")?;
    Ok(Payment { state: next, state_version: payment.state_version + 1, ..payment.clone() })
}

/// Opens an exception unless one of its kind is open already.
pub async fn open_exception(connection: &mut PgConnection, payment: PaymentId, kind: ExceptionKind, detail: &str) -> Result<(), DbError> {
    sqlx::query!(
        "insert into payment_exceptions (payment_id, kind, detail) values ($1, $2, $3)
         on conflict (payment_id, kind) where closed_at is null do nothing",
        payment.0,
        kind as ExceptionKind,
        detail
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Closes the open exception of a kind, if there is one.
pub async fn close_exception(
    connection: &mut PgConnection,
    payment: PaymentId,
    kind: ExceptionKind,
    resolution: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "update payment_exceptions set closed_at = now(), resolution = $3 where payment_id = $1 and kind = $2 and closed_at is null",
        payment.0,
        kind as ExceptionKind,
        resolution
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An exception as officers read it.
#[derive(Debug)]
pub struct ExceptionRow {
    pub kind: ExceptionKind,
    pub detail: String,
    pub opened_at: OffsetDateTime,
    pub closed_at: Option<OffsetDateTime>,
}

pub async fn list_exceptions(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<ExceptionRow>, DbError> {
    let rows = sqlx::query_as!(
        ExceptionRow,
        r#"select kind as "kind: ExceptionKind", detail, opened_at, closed_at from payment_exceptions where payment_id = $1 order by id"#,
        payment.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
