//! SQL of `payments` and `payment_exceptions`.

use alloy::primitives::U256;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Currency, EscrowState, ExceptionKind, FeeRate, NewPayment, Payment, PaymentError, PaymentEvent, PaymentState, PaymentStatus, Provider,
    RefTriple, Terms,
};
use crate::db::codec::{address_from_sql, chain_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::units::{Asset, AssetId, PaymentId, TokenAmount};

pub async fn insert(connection: &mut PgConnection, id: PaymentId, payment: &NewPayment) -> Result<(), DbError> {
    let (kind, entity, external) = columns_of(payment.purchase_request.as_ref());
    let (offer_kind, offer, offer_external) = columns_of(payment.seller_offer.as_ref());
    let terms = &payment.terms;
    sqlx::query!(
        "insert into payments (
             id, buyer_id, seller_id, purchase_request_ref_kind, purchase_request_id, purchase_request_external_ref,
             amount, currency, chain_id, token_contract, token_symbol, token_decimals, due_units, seller_address, expires_at,
             seller_offer_ref_kind, seller_offer_id, seller_offer_external_ref, tolerance_bps, late_window_seconds,
             platform_fee_bps, platform_fee_min_units, provider_fee_bps, provider_fee_min_units
         ) values (
             $1, $2, $3, $4::text::ref_kind, $5, $6, $7::text::numeric, $8, $9::bigint, $10::bytea, $11, $12,
             $13::text::numeric, $14::bytea, $15, $16::text::ref_kind, $17, $18, $19, $20,
             $21, $22::text::numeric, $23, $24::text::numeric
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
        payment.expires_at,
        offer_kind,
        offer,
        offer_external,
        i32::from(terms.tolerance_bps),
        i32::try_from(terms.late_window.whole_seconds()).unwrap_or(i32::MAX),
        i32::from(terms.platform_fee.bps),
        units_to_sql(terms.platform_fee.min_units),
        i32::from(terms.provider_fee.bps),
        units_to_sql(terms.provider_fee.min_units)
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn columns_of(reference: Option<&RefTriple>) -> (Option<&'static str>, Option<Uuid>, Option<&str>) {
    match reference {
        None => (None, None, None),
        Some(RefTriple::Entity(id)) => (Some("entity"), Some(*id), None),
        Some(RefTriple::Template(reference)) => (Some("template"), None, Some(reference.as_str())),
    }
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
    provider: Provider,
    tolerance_bps: i32,
    late_window_seconds: i32,
    platform_fee_bps: i32,
    platform_fee_min: String,
    provider_fee_bps: i32,
    provider_fee_min: String,
    escrowed: String,
    expires_at: OffsetDateTime,
    created_at: OffsetDateTime,
}

impl TryFrom<Row> for Payment {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let state = PaymentState::from_pair(row.status, row.escrow_state);
        let bps = |column, value: i32| {
            u16::try_from(value).map_err(|_| DbError::Corrupt { column, found: value.to_string(), wanted: "basis points" })
        };
        let terms = Terms {
            tolerance_bps: bps("payments.tolerance_bps", row.tolerance_bps)?,
            late_window: Duration::seconds(row.late_window_seconds.into()),
            platform_fee: FeeRate {
                bps: bps("payments.platform_fee_bps", row.platform_fee_bps)?,
                min_units: units_from_sql(&row.platform_fee_min)?,
            },
            provider_fee: FeeRate {
                bps: bps("payments.provider_fee_bps", row.provider_fee_bps)?,
                min_units: units_from_sql(&row.provider_fee_min)?,
            },
        };
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
            provider: row.provider,
            terms,
            escrowed_units: units_from_sql(&row.escrowed)?,
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
               provider as "provider: Provider", tolerance_bps, late_window_seconds, platform_fee_bps,
               platform_fee_min_units::text as "platform_fee_min!", provider_fee_bps,
               provider_fee_min_units::text as "provider_fee_min!", escrowed_units::text as "escrowed!", expires_at, created_at
        from payments where id = $1
        "#,
        id.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Payment::try_from).transpose()
}

/// The payment, its row locked until the transaction ends: what follows is decided by one at a time. Whoever
/// locks more than one row locks the payment first, then its dispute, payout and intent. Rows that only
/// refer to the payment are not held up.
pub async fn lock(connection: &mut PgConnection, id: PaymentId) -> Result<Payment, PaymentError> {
    sqlx::query_scalar!("select id from payments where id = $1 for no key update", id.0)
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
               provider as "provider: Provider", tolerance_bps, late_window_seconds, platform_fee_bps,
               platform_fee_min_units::text as "platform_fee_min!", provider_fee_bps,
               provider_fee_min_units::text as "provider_fee_min!", escrowed_units::text as "escrowed!", expires_at, created_at
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

/// Notes what went into escrow.
pub async fn set_escrowed(connection: &mut PgConnection, payment: PaymentId, units: U256) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update payments set escrowed_units = $2::text::numeric, updated_at = now() where id = $1",
        payment.0,
        units_to_sql(units)
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a payment whose money went into escrow")
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
    pub resolution: Option<String>,
}

pub async fn list_exceptions(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<ExceptionRow>, DbError> {
    let rows = sqlx::query_as!(
        ExceptionRow,
        r#"select kind as "kind: ExceptionKind", detail, opened_at, closed_at, resolution from payment_exceptions where payment_id = $1 order by id"#,
        payment.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}
