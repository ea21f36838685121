//! SQL of the pages: what no single room lists in the order in which people look, newest first. Reads only.

use alloy::primitives::{Address, I256, U256};
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

// === what leaves next ===

/// Money at a deposit address, and what stands between it and the treasury.
#[derive(Debug)]
pub(super) struct DepositRow {
    pub payment: Option<PaymentId>,
    pub address: Address,
    pub status: String,
    pub asset: AssetId,
    pub units: U256,
    /// It is what the payment is due in.
    pub due: bool,
    pub payment_status: Option<String>,
    /// Some of it has not passed the release gate.
    pub only_credited: bool,
    /// Screening holds some of it.
    pub held: bool,
    /// What is on its way there or from there.
    pub intent: Option<(IntentId, String, String)>,
}

/// Custody accounts of deposit addresses that hold something, the payment's own token first.
pub(super) async fn list_deposits(connection: &mut PgConnection, limit: i64) -> Result<Vec<DepositRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select d.payment_id, d.address as "address!: Vec<u8>", d.status::text as "status!", a.chain_id as "chain_id!: i64",
               a.asset as "asset!: Vec<u8>", b.balance::text as "units!", p.status::text as "payment_status?",
               coalesce(a.asset = p.token_contract and a.chain_id = p.chain_id, false) as "due!",
               exists (
                   select from transfer_observations o
                   where o.derived_address_id = d.derived_address_id and o.gate_passed = 'credit' and o.chain_id = d.chain_id
               ) as "only_credited!",
               exists (
                   select from transfer_screenings s
                   where s.derived_address_id = d.derived_address_id and s.chain_id = d.chain_id and not s.passes
               ) as "held!",
               i.id as "intent_id?", i.kind::text as "intent_kind?", i.state::text as "intent_state?"
        from ledger_balances b
        join ledger_accounts a on a.id = b.account_id and a.kind = 'custody'
        join derived_destinations d on d.address = a.address
        left join payments p on p.id = d.payment_id
        left join lateral (
            select n.id, n.kind, n.state from intents n
            where (n.destination_id = d.id or (n.payment_id = d.payment_id and n.from_address = d.address))
              and n.state not in ('void', 'reverted', 'settled', 'replaced')
            order by n.created_at desc limit 1
        ) i on true
        where b.balance > 0
        order by 8 desc, b.updated_at, a.id limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
            let intent = match (row.intent_id, row.intent_kind, row.intent_state) {
                (Some(id), Some(kind), Some(state)) => Some((IntentId(id), kind, state)),
                _ => None,
            };
            Ok(DepositRow {
                payment: row.payment_id.map(PaymentId),
                address: address_from_sql(&row.address)?,
                status: row.status,
                asset,
                units: units_from_sql(&row.units)?,
                due: row.due,
                payment_status: row.payment_status,
                only_credited: row.only_credited,
                held: row.held,
                intent,
            })
        })
        .collect()
}

/// Money ordered out of a payment that has not arrived.
#[derive(Debug)]
pub(super) struct OrderRow {
    pub payment: PaymentId,
    pub kind: String,
    pub asset: AssetId,
    pub net: U256,
    pub to: Address,
    pub requested_by: String,
    pub created_at: OffsetDateTime,
    pub intent: Option<(IntentId, String)>,
    /// Its deposit was swept.
    pub swept: bool,
    pub disputed: bool,
}

/// Oldest first.
pub(super) async fn list_orders(connection: &mut PgConnection, limit: i64) -> Result<Vec<OrderRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select y.payment_id, y.kind::text as "kind!", y.chain_id as "chain_id!: i64", y.asset as "asset!: Vec<u8>",
               y.net_units::text as "net!", y.to_address as "to!: Vec<u8>", y.requested_by, y.created_at,
               i.id as "intent_id?", i.state::text as "intent_state?", (d.status = 'swept') as "swept!",
               exists (select from disputes q where q.payment_id = y.payment_id and q.state = 'open') as "disputed!"
        from payment_payouts y
        join derived_destinations d on d.payment_id = y.payment_id
        left join intents i on i.id = y.intent_id
        where y.state in ('ordered', 'planned') order by y.created_at, y.id limit $1
        "#,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(OrderRow {
                payment: PaymentId(row.payment_id),
                kind: row.kind,
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                net: units_from_sql(&row.net)?,
                to: address_from_sql(&row.to)?,
                requested_by: row.requested_by,
                created_at: row.created_at,
                intent: row.intent_id.map(IntentId).zip(row.intent_state),
                swept: row.swept,
                disputed: row.disputed,
            })
        })
        .collect()
}

/// What one of the operator's own addresses holds of one asset, as the books have it.
#[derive(Debug)]
pub(super) struct FloatRow {
    pub purpose: String,
    pub address: Address,
    pub asset: AssetId,
    pub units: U256,
}

pub(super) async fn list_floats(connection: &mut PgConnection) -> Result<Vec<FloatRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        select t.purpose::text as "purpose!", t.address as "address!: Vec<u8>", a.chain_id as "chain_id!: i64", a.asset as "asset!: Vec<u8>",
               b.balance::text as "units!"
        from trezor_derived_addresses t
        join ledger_accounts a on a.kind = 'custody' and a.address = t.address
        join ledger_balances b on b.account_id = a.id
        where t.branch = 1 order by a.chain_id, t.purpose, t.address_index, a.asset limit 200
        "#
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(FloatRow {
                purpose: row.purpose,
                address: address_from_sql(&row.address)?,
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                units: units_from_sql(&row.units)?,
            })
        })
        .collect()
}

// === balances over time ===

/// By how much all accounts of a kind in an asset grew within one step of a period.
#[derive(Debug)]
pub(super) struct DeltaRow {
    pub asset: AssetId,
    pub kind: AccountKind,
    /// Steps from the beginning of the period.
    pub step: usize,
    pub delta: I256,
}

/// Changes since an instant, in steps of so many seconds.
pub(super) async fn list_deltas(connection: &mut PgConnection, since: OffsetDateTime, step_seconds: i64) -> Result<Vec<DeltaRow>, DbError> {
    let rows = sqlx::query!(
        r#"
        with sides as (
            select debit_account_id as account, true as debited, amount_units::numeric as units, created_at
            from funds_ledger_entries where created_at >= $1
            union all
            select credit_account_id, false, amount_units::numeric, created_at from funds_ledger_entries where created_at >= $1
        )
        select a.chain_id as "chain_id!: i64", a.asset as "asset!: Vec<u8>", a.kind as "kind!: AccountKind",
               extract(epoch from s.created_at - $1)::bigint / $2 as "step!",
               sum(case when s.debited = a.debit_normal then s.units else -s.units end)::text as "delta!"
        from sides s join ledger_accounts a on a.id = s.account
        group by a.chain_id, a.asset, a.kind, 4 order by a.chain_id, a.asset, a.kind, 4
        "#,
        since,
        step_seconds
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let corrupt = |found: String| DbError::Corrupt { column: "funds_ledger_entries.amount_units", found, wanted: "a sum of units" };
            Ok(DeltaRow {
                asset: AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) },
                kind: row.kind,
                step: usize::try_from(row.step).map_err(|_| corrupt(row.step.to_string()))?,
                delta: I256::from_dec_str(&row.delta).map_err(|_| corrupt(row.delta.clone()))?,
            })
        })
        .collect()
}

// === disputes ===

/// Open ones oldest first, or all newest first.
pub(super) async fn list_disputes(connection: &mut PgConnection, open: bool, limit: i64) -> Result<Vec<Uuid>, DbError> {
    let ids = sqlx::query_scalar!(
        "select id from disputes where not $1 or state = 'open'
         order by case when $1 then opened_at end, opened_at desc, id limit $2",
        open,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(ids)
}

pub(super) async fn count_open_disputes(connection: &mut PgConnection) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(r#"select count(*) as "count!" from disputes where state = 'open'"#).fetch_one(connection).await?)
}
