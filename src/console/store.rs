//! SQL of the pages: what no single room lists in the order in which people look, newest first. Reads only.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::db::DbError;
use crate::db::codec::{address_from_sql, chain_from_sql, hash_from_sql, units_from_sql};
use crate::intent::Intent;
use crate::ledger::AccountKind;
use crate::units::{Asset, AssetId, BlockRef, ChainId, IntentId, PaymentId, UserId};

// === payments ===

/// Which payments.
#[derive(Clone, Debug, Default)]
pub(super) struct PaymentFilter {
    /// A status or an escrow state.
    pub state: Option<String>,
    /// Only those with an open exception.
    pub exceptions: bool,
    pub before: Option<(OffsetDateTime, PaymentId)>,
}

#[derive(Debug)]
pub(super) struct PaymentRow {
    pub id: PaymentId,
    pub status: String,
    pub escrow: Option<String>,
    pub due: U256,
    pub asset: AssetId,
    pub created_at: OffsetDateTime,
    pub address: Option<Address>,
    pub exceptions: i64,
}

pub(super) async fn list_payments(connection: &mut PgConnection, filter: &PaymentFilter, limit: i64) -> Result<Vec<PaymentRow>, DbError> {
    let (before_at, before_id) = filter.before.unzip();
    let rows = sqlx::query!(
        r#"
        select p.id, p.status::text as "status!", p.escrow_state::text as escrow, p.due_units::text as "due!",
               p.chain_id as "chain_id!: i64", p.token_contract as "token!: Vec<u8>", p.created_at,
               d.address as "address?: Vec<u8>",
               (select count(*) from payment_exceptions x where x.payment_id = p.id and x.closed_at is null) as "exceptions!"
        from payments p left join derived_destinations d on d.payment_id = p.id
        where ($1::text is null or p.status::text = $1 or p.escrow_state::text = $1)
          and (not $2 or exists (select from payment_exceptions x where x.payment_id = p.id and x.closed_at is null))
          and ($3::timestamptz is null or (p.created_at, p.id) < ($3, $4::uuid))
        order by p.created_at desc, p.id desc limit $5
        "#,
        filter.state,
        filter.exceptions,
        before_at,
        before_id.map(|id| id.0),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.token)?) };
            Ok(PaymentRow {
                id: PaymentId(row.id),
                status: row.status,
                escrow: row.escrow,
                due: units_from_sql(&row.due)?,
                asset,
                created_at: row.created_at,
                address: row.address.as_deref().map(address_from_sql).transpose()?,
                exceptions: row.exceptions,
            })
        })
        .collect()
}

/// The payment that collects at an address.
pub(super) async fn find_payment_at(connection: &mut PgConnection, address: Address) -> Result<Option<PaymentId>, DbError> {
    let id = sqlx::query_scalar!(
        r#"select payment_id as "payment_id!" from derived_destinations where address = $1::bytea and payment_id is not null"#,
        address.as_slice()
    )
    .fetch_optional(connection)
    .await?;
    Ok(id.map(PaymentId))
}

#[derive(Debug)]
pub(super) struct StateCount {
    pub status: String,
    pub escrow: Option<String>,
    pub count: i64,
}

/// How many payments are in each state, and how many have an open exception.
pub(super) async fn count_payments(connection: &mut PgConnection) -> Result<(Vec<StateCount>, i64), DbError> {
    let states = sqlx::query_as!(
        StateCount,
        r#"
        select status::text as "status!", escrow_state::text as escrow, count(*) as "count!"
        from payments group by status, escrow_state order by status, escrow_state
        "#
    )
    .fetch_all(&mut *connection)
    .await?;
    let exceptions =
        sqlx::query_scalar!(r#"select count(distinct payment_id) as "count!" from payment_exceptions where closed_at is null"#)
            .fetch_one(connection)
            .await?;
    Ok((states, exceptions))
}

// === chains ===

/// The last block that a chain's cursor names, with its time.
#[derive(Debug)]
pub(super) struct Tip {
    pub block: BlockRef,
    pub time: Option<OffsetDateTime>,
}

pub(super) async fn find_tip(connection: &mut PgConnection, chain: ChainId) -> Result<Option<Tip>, DbError> {
    let row = sqlx::query!(
        r#"
        select c.number, c.hash as "hash!: Vec<u8>", b.block_time as "block_time?"
        from chain_cursors c left join chain_blocks b on b.chain_id = c.chain_id and b.number = c.number and b.hash = c.hash
        where c.chain_id = $1::bigint
        "#,
        chain.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok(Tip { block: BlockRef { number: row.number.into(), hash: hash_from_sql(&row.hash)? }, time: row.block_time }))
        .transpose()
}

// === intents ===

/// Newest first; `open` ones, or closed ones, or both.
pub(super) async fn list_intents(
    connection: &mut PgConnection,
    open: Option<bool>,
    before: Option<(OffsetDateTime, IntentId)>,
    limit: i64,
) -> Result<Vec<(IntentId, OffsetDateTime)>, DbError> {
    let (before_at, before_id) = before.unzip();
    let rows = sqlx::query!(
        r#"
        select id, created_at from intents
        where ($1::boolean is null or (state not in ('settled', 'void', 'reverted', 'replaced')) = $1)
          and ($2::timestamptz is null or (created_at, id) < ($2, $3::uuid))
        order by created_at desc, id desc limit $4
        "#,
        open,
        before_at,
        before_id.map(|id| id.0),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (IntentId(row.id), row.created_at)).collect())
}

/// What moves or moved a payment's money, oldest first.
pub(super) async fn list_intents_of(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<(IntentId, OffsetDateTime)>, DbError> {
    let rows = sqlx::query!(
        "select id, created_at from intents
         where payment_id = $1 or destination_id in (select id from derived_destinations where payment_id = $1)
         order by created_at, id limit 100",
        payment.0
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (IntentId(row.id), row.created_at)).collect())
}

/// Intents that this officer may approve and has not.
pub(super) async fn list_waiting_for(
    connection: &mut PgConnection,
    officer: UserId,
    limit: i64,
) -> Result<Vec<(IntentId, OffsetDateTime)>, DbError> {
    let rows = sqlx::query!(
        "select i.id, i.created_at from intents i
         where i.state = 'planned' and i.requested_by <> $2 and i.revised_by is distinct from $2
           and not exists (
               select from intent_approvals a
               where a.intent_id = i.id and a.revision = i.revision and a.digest = i.digest and a.officer_id = $1
           )
         order by i.created_at, i.id limit $3",
        officer.0,
        format!("user:{officer}"),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (IntentId(row.id), row.created_at)).collect())
}

/// Who approved, and what.
#[derive(Debug)]
pub(super) struct ApprovalRow {
    pub officer: UserId,
    pub name: String,
    pub created_at: OffsetDateTime,
    /// Given with a passkey here, not with a token.
    pub at_console: bool,
    /// It names another revision or digest than the present one, or has expired, and does not count.
    pub stale: bool,
}

pub(super) async fn list_approvals(connection: &mut PgConnection, intent: &Intent) -> Result<Vec<ApprovalRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select a.officer_id, u.display_name, a.created_at, a.api_token_id is null as "at_console!",
               (a.revision <> $2 or a.digest <> $3::bytea or a.expires_at <= now()) as "stale!"
        from intent_approvals a join users u on u.id = a.officer_id
        where a.intent_id = $1 order by a.id limit 100
        "#,
        intent.id.0,
        intent.revision.cast_signed(),
        intent.digest.as_slice()
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(|row| ApprovalRow {
        officer: UserId(row.officer_id),
        name: row.display_name.unwrap_or_else(|| "officer".to_owned()),
        created_at: row.created_at,
        at_console: row.at_console,
        stale: row.stale,
    });
    Ok(rows.collect())
}

// === events ===

/// Which events.
#[derive(Clone, Debug, Default)]
pub(super) struct EventFilter {
    /// How the kind begins, such as `payment`.
    pub noun: Option<String>,
    pub payment: Option<PaymentId>,
    pub intent: Option<IntentId>,
    pub before: Option<i64>,
}

#[derive(Debug)]
pub(super) struct EventRow {
    pub id: i64,
    pub kind: String,
    pub payment_id: Option<Uuid>,
    pub intent_id: Option<Uuid>,
    pub chain_id: Option<i64>,
    pub detail: serde_json::Value,
    pub created_at: OffsetDateTime,
}

/// Newest first.
pub(super) async fn list_events(connection: &mut PgConnection, filter: &EventFilter, limit: i64) -> Result<Vec<EventRow>, DbError> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select id, kind, payment_id, intent_id, chain_id as "chain_id: i64", detail, created_at from events
        where ($1::text is null or split_part(kind, '.', 1) = $1) and ($2::uuid is null or payment_id = $2)
          and ($3::uuid is null or intent_id = $3) and ($4::bigint is null or id < $4)
        order by id desc limit $5
        "#,
        filter.noun,
        filter.payment.map(|payment| payment.0),
        filter.intent.map(|intent| intent.0),
        filter.before,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

// === the ledger ===

/// Which entries.
#[derive(Clone, Debug, Default)]
pub(super) struct EntryFilter {
    pub payment: Option<PaymentId>,
    pub kind: Option<AccountKind>,
    pub address: Option<Address>,
    pub before: Option<i64>,
}

#[derive(Debug)]
pub(super) struct EntryRow {
    pub id: i64,
    pub entry_type: String,
    pub payment: Option<PaymentId>,
    pub asset: AssetId,
    pub units: U256,
    pub memo: String,
    pub created_at: OffsetDateTime,
    pub debit: (AccountKind, Option<String>),
    pub credit: (AccountKind, Option<String>),
}

/// Newest first.
pub(super) async fn list_entries(connection: &mut PgConnection, filter: &EntryFilter, limit: i64) -> Result<Vec<EntryRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select e.id, e.entry_type::text as "entry_type!", e.payment_id, e.chain_id as "chain_id!: i64", e.asset as "asset!: Vec<u8>",
               e.amount_units::text as "units!", e.memo, e.created_at,
               d.kind as "debit_kind!: AccountKind", d.address as "debit_address?: Vec<u8>", d.payment_id as "debit_payment?",
               c.kind as "credit_kind!: AccountKind", c.address as "credit_address?: Vec<u8>", c.payment_id as "credit_payment?"
        from funds_ledger_entries e
        join ledger_accounts d on d.id = e.debit_account_id
        join ledger_accounts c on c.id = e.credit_account_id
        where ($1::uuid is null or e.id in (select o.id from ledger_entries_of($1) as o (id)))
          and ($2::ledger_account_kind is null or d.kind = $2 or c.kind = $2)
          and ($3::bytea is null or d.address = $3::bytea or c.address = $3::bytea)
          and ($4::bigint is null or e.id < $4)
        order by e.id desc limit $5
        "#,
        filter.payment.map(|payment| payment.0),
        filter.kind as Option<AccountKind>,
        filter.address.map(|address| address.to_vec()),
        filter.before,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let whose = |address: Option<Vec<u8>>, payment: Option<Uuid>| match (address, payment) {
                (Some(address), _) => Ok::<_, DbError>(Some(address_from_sql(&address)?.to_string())),
                (None, payment) => Ok(payment.map(|payment| payment.to_string())),
            };
            Ok(EntryRow {
                id: row.id,
                entry_type: row.entry_type,
                payment: row.payment_id.map(PaymentId),
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                units: units_from_sql(&row.units)?,
                memo: row.memo,
                created_at: row.created_at,
                debit: (row.debit_kind, whose(row.debit_address, row.debit_payment)?),
                credit: (row.credit_kind, whose(row.credit_address, row.credit_payment)?),
            })
        })
        .collect()
}
