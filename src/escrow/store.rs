//! SQL of `payment_payouts` and `disputes`, and what ends a payment that nothing came for.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::adjust::{Adjustment, Suspended};
use super::{Dispute, DisputeState, EscrowError, Payout, PayoutKind, PayoutState, Resolution, Source};
use crate::db::codec::{address_from_sql, chain_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKind};
use crate::payment::{Fees, Figures};
use crate::units::{Asset, AssetId, ChainId, IntentId, LedgerEntryId, PaymentId, ProposalId, TokenAmount};

// === payouts ===

/// An order as it is stored.
pub(super) struct NewPayout<'o> {
    pub(super) id: Uuid,
    pub(super) payment: PaymentId,
    pub(super) kind: PayoutKind,
    pub(super) source: Source,
    pub(super) gross: TokenAmount,
    pub(super) decimals: u8,
    pub(super) fees: Fees,
    pub(super) to: Address,
    pub(super) requested_by: &'o str,
    pub(super) dispute: Option<Uuid>,
    pub(super) reservation_key: String,
}

pub(super) async fn insert_payout(connection: &mut PgConnection, new: &NewPayout<'_>) -> Result<Payout, EscrowError> {
    let marker = new.gross.asset.asset.marker();
    let net = new.gross.units.saturating_sub(new.fees.total());
    sqlx::query!(
        "insert into payment_payouts (
             id, payment_id, kind, chain_id, asset, asset_decimals, source, gross_units, platform_fee_units, provider_fee_units,
             net_units, to_address, requested_by, dispute_id, reservation_key
         ) values (
             $1, $2, $3, $4::bigint, $5::bytea, $6, $7, $8::text::numeric, $9::text::numeric, $10::text::numeric,
             $11::text::numeric, $12::bytea, $13, $14, $15
         )",
        new.id,
        new.payment.0,
        new.kind as PayoutKind,
        new.gross.asset.chain.as_i64(),
        marker.as_slice(),
        i16::from(new.decimals),
        new.source.kind() as AccountKind,
        units_to_sql(new.gross.units),
        units_to_sql(new.fees.platform_units),
        units_to_sql(new.fees.provider_units),
        units_to_sql(net),
        new.to.as_slice(),
        new.requested_by,
        new.dispute,
        new.reservation_key
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?;
    get_payout(connection, new.id).await
}

struct PayoutRow {
    id: Uuid,
    payment_id: Uuid,
    kind: PayoutKind,
    state: PayoutState,
    chain_id: i64,
    asset: Vec<u8>,
    asset_decimals: i16,
    source: AccountKind,
    gross: String,
    platform_fee: String,
    provider_fee: String,
    to_address: Vec<u8>,
    requested_by: String,
    dispute_id: Option<Uuid>,
    intent_id: Option<Uuid>,
    reservation_key: String,
    created_at: OffsetDateTime,
}

impl TryFrom<PayoutRow> for Payout {
    type Error = DbError;

    fn try_from(row: PayoutRow) -> Result<Self, Self::Error> {
        let asset = AssetId { chain: chain_from_sql(row.chain_id)?, asset: Asset::from_marker(address_from_sql(&row.asset)?) };
        let corrupt = |column, found: String, wanted| DbError::Corrupt { column, found, wanted };
        let source = Source::ALL.into_iter().find(|source| source.kind() == row.source);
        Ok(Self {
            id: row.id,
            payment: PaymentId(row.payment_id),
            kind: row.kind,
            state: row.state,
            source: source.ok_or_else(|| corrupt("payment_payouts.source", row.source.name().to_owned(), "a claim of a payment"))?,
            gross: TokenAmount::new(asset, units_from_sql(&row.gross)?),
            decimals: u8::try_from(row.asset_decimals)
                .map_err(|_| corrupt("payment_payouts.asset_decimals", row.asset_decimals.to_string(), "0 to 18"))?,
            fees: Fees { platform_units: units_from_sql(&row.platform_fee)?, provider_units: units_from_sql(&row.provider_fee)? },
            to: address_from_sql(&row.to_address)?,
            requested_by: row.requested_by,
            dispute: row.dispute_id,
            intent: row.intent_id.map(IntentId),
            reservation_key: row.reservation_key,
            created_at: row.created_at,
        })
    }
}

pub async fn get_payout(connection: &mut PgConnection, id: Uuid) -> Result<Payout, EscrowError> {
    let row = sqlx::query_as!(
        PayoutRow,
        r#"
        select id, payment_id, kind as "kind: PayoutKind", state as "state: PayoutState", chain_id as "chain_id!: i64",
               asset as "asset!: Vec<u8>", asset_decimals, source as "source: AccountKind", gross_units::text as "gross!",
               platform_fee_units::text as "platform_fee!", provider_fee_units::text as "provider_fee!",
               to_address as "to_address!: Vec<u8>", requested_by, dispute_id, intent_id, reservation_key, created_at
        from payment_payouts where id = $1
        "#,
        id
    )
    .fetch_optional(connection)
    .await
    .map_err(DbError::from)?;
    Ok(row.ok_or(EscrowError::UnknownPayout(id))?.try_into()?)
}

/// The order that an intent pays.
pub async fn find_payout_of(connection: &mut PgConnection, intent: IntentId) -> Result<Option<Payout>, DbError> {
    let row = sqlx::query_as!(
        PayoutRow,
        r#"
        select id, payment_id, kind as "kind: PayoutKind", state as "state: PayoutState", chain_id as "chain_id!: i64",
               asset as "asset!: Vec<u8>", asset_decimals, source as "source: AccountKind", gross_units::text as "gross!",
               platform_fee_units::text as "platform_fee!", provider_fee_units::text as "provider_fee!",
               to_address as "to_address!: Vec<u8>", requested_by, dispute_id, intent_id, reservation_key, created_at
        from payment_payouts where intent_id = $1
        "#,
        intent.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Payout::try_from).transpose()
}

/// All orders of a payment, oldest first.
pub async fn list_payouts(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<Payout>, DbError> {
    let rows = sqlx::query_as!(
        PayoutRow,
        r#"
        select id, payment_id, kind as "kind: PayoutKind", state as "state: PayoutState", chain_id as "chain_id!: i64",
               asset as "asset!: Vec<u8>", asset_decimals, source as "source: AccountKind", gross_units::text as "gross!",
               platform_fee_units::text as "platform_fee!", provider_fee_units::text as "provider_fee!",
               to_address as "to_address!: Vec<u8>", requested_by, dispute_id, intent_id, reservation_key, created_at
        from payment_payouts where payment_id = $1 order by created_at, id
        "#,
        payment.0
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Payout::try_from).collect()
}

/// Orders of a chain that wait to be planned, after an id: nothing credited at the payment's address waits for
/// the release gate, and the address is not in quarantine. A release is paid from the treasury, so its deposit
/// has been swept: what was not swept is not there to be paid out.
pub async fn list_ordered(connection: &mut PgConnection, chain: ChainId, after: Uuid, limit: i64) -> Result<Vec<Uuid>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select y.id from payment_payouts y join derived_destinations d on d.payment_id = y.payment_id
        where y.state = 'ordered' and y.chain_id = $1::bigint and y.id > $2
          and (d.status = 'swept' or (d.status = 'active' and y.kind = 'refund'))
          and not exists (
              select from transfer_observations o
              where o.derived_address_id = d.derived_address_id and o.gate_passed = 'credit' and o.chain_id = y.chain_id
          )
        order by y.id limit $3
        "#,
        chain.as_i64(),
        after,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Orders that wait and pay one asset to one recipient, oldest first.
pub async fn list_ordered_to(connection: &mut PgConnection, asset: AssetId, to: Address) -> Result<Vec<Uuid>, DbError> {
    let marker = asset.asset.marker();
    Ok(sqlx::query_scalar!(
        r#"
        select id from payment_payouts
        where state = 'ordered' and chain_id = $1::bigint and asset = $2::bytea and to_address = $3::bytea
        order by id
        "#,
        asset.chain.as_i64(),
        marker.as_slice(),
        to.as_slice()
    )
    .fetch_all(connection)
    .await?)
}

/// Orders of a chain whose reservation was reversed together with a credit that left the chain.
pub async fn list_unreserved(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Uuid>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select y.id from payment_payouts y
        join funds_ledger_entries e on e.idempotency_key = y.reservation_key
        join funds_ledger_entries r on r.reverses_entry_id = e.id
        where y.state = 'ordered' and y.chain_id = $1::bigint
        order by y.id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// Moves an order on; somebody who moved it first makes this an error.
pub(super) async fn advance_payout(
    connection: &mut PgConnection,
    id: Uuid,
    from: PayoutState,
    to: PayoutState,
    intent: Option<IntentId>,
) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update payment_payouts
         set state = $3, intent_id = coalesce($4, intent_id),
             closed_at = case when $3 in ('settled'::payout_state, 'withdrawn'::payout_state) then now() end
         where id = $1 and state = $2",
        id,
        from as PayoutState,
        to as PayoutState,
        intent.map(|intent| intent.0)
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a payout moving on")
}

/// What was ordered for the seller and not given back, and the fees of it.
pub(super) struct OrderedBefore {
    pub(super) units: U256,
    pub(super) fees: Fees,
}

pub(super) async fn get_released_before(connection: &mut PgConnection, payment: PaymentId) -> Result<OrderedBefore, DbError> {
    let row = sqlx::query!(
        r#"
        select coalesce(sum(gross_units), 0)::text as "units!", coalesce(sum(platform_fee_units), 0)::text as "platform!",
               coalesce(sum(provider_fee_units), 0)::text as "provider!"
        from payment_payouts where payment_id = $1 and kind = 'release' and state <> 'withdrawn'
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    let fees = Fees { platform_units: units_from_sql(&row.platform)?, provider_units: units_from_sql(&row.provider)? };
    Ok(OrderedBefore { units: units_from_sql(&row.units)?, fees })
}

/// What the orders of a payment say about its escrow; what it holds is the ledger's to say.
pub(super) async fn get_figures(connection: &mut PgConnection, payment: PaymentId) -> Result<Figures, DbError> {
    let row = sqlx::query!(
        r#"
        select coalesce(bool_or(state = 'ordered'), false) as "ordered!", coalesce(bool_or(state = 'planned'), false) as "moving!",
               coalesce(bool_or(state = 'settled' and kind = 'release'), false) as "released!",
               coalesce(bool_or(state = 'settled' and kind = 'refund'), false) as "refunded!"
        from payment_payouts where payment_id = $1 and source in ('held', 'disputed')
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(Figures { holds: false, ordered: row.ordered, moving: row.moving, released: row.released, refunded: row.refunded })
}

// === disputes ===

pub(super) async fn insert_dispute(
    connection: &mut PgConnection,
    id: Uuid,
    payment: PaymentId,
    by: &str,
    reason: &str,
) -> Result<(), DbError> {
    sqlx::query!("insert into disputes (id, payment_id, opened_by, reason) values ($1, $2, $3, $4)", id, payment.0, by, reason)
        .execute(connection)
        .await?;
    Ok(())
}

struct DisputeRow {
    id: Uuid,
    payment_id: Uuid,
    state: DisputeState,
    opened_by: String,
    reason: String,
    resolution: Option<Resolution>,
    resolved_by: Option<String>,
    note: Option<String>,
    opened_at: OffsetDateTime,
    resolved_at: Option<OffsetDateTime>,
}

impl From<DisputeRow> for Dispute {
    fn from(row: DisputeRow) -> Self {
        Self {
            id: row.id,
            payment: PaymentId(row.payment_id),
            state: row.state,
            opened_by: row.opened_by,
            reason: row.reason,
            resolution: row.resolution,
            resolved_by: row.resolved_by,
            note: row.note,
            opened_at: row.opened_at,
            resolved_at: row.resolved_at,
        }
    }
}

pub async fn get_dispute(connection: &mut PgConnection, id: Uuid) -> Result<Dispute, EscrowError> {
    let row = sqlx::query_as!(
        DisputeRow,
        r#"
        select id, payment_id, state as "state: DisputeState", opened_by, reason, resolution as "resolution: Resolution", resolved_by, note,
               opened_at, resolved_at
        from disputes where id = $1
        "#,
        id
    )
    .fetch_optional(connection)
    .await
    .map_err(DbError::from)?;
    row.map(Dispute::from).ok_or(EscrowError::UnknownDispute(id))
}

/// The dispute, its row locked until the transaction ends.
pub(super) async fn lock_dispute(connection: &mut PgConnection, id: Uuid) -> Result<Dispute, EscrowError> {
    sqlx::query_scalar!("select id from disputes where id = $1 for no key update", id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(DbError::from)?
        .ok_or(EscrowError::UnknownDispute(id))?;
    get_dispute(connection, id).await
}

pub async fn find_open_dispute(connection: &mut PgConnection, payment: PaymentId) -> Result<Option<Dispute>, DbError> {
    let row = sqlx::query_as!(
        DisputeRow,
        r#"
        select id, payment_id, state as "state: DisputeState", opened_by, reason, resolution as "resolution: Resolution", resolved_by, note,
               opened_at, resolved_at
        from disputes where payment_id = $1 and state = 'open'
        "#,
        payment.0
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(Dispute::from))
}

/// Disputes of a payment, or all open ones, oldest first.
pub async fn list_disputes(connection: &mut PgConnection, payment: Option<PaymentId>, limit: i64) -> Result<Vec<Dispute>, DbError> {
    let rows = sqlx::query_as!(
        DisputeRow,
        r#"
        select id, payment_id, state as "state: DisputeState", opened_by, reason, resolution as "resolution: Resolution", resolved_by, note,
               opened_at, resolved_at
        from disputes where payment_id = $1 or ($1::uuid is null and state = 'open')
        order by opened_at, id limit $2
        "#,
        payment.map(|payment| payment.0),
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(Dispute::from).collect())
}

pub(super) async fn resolve_dispute(
    connection: &mut PgConnection,
    id: Uuid,
    resolution: Resolution,
    by: &str,
    note: &str,
) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update disputes set state = 'resolved', resolution = $2, resolved_by = $3, note = $4, resolved_at = now()
         where id = $1 and state = 'open'",
        id,
        resolution as Resolution,
        by,
        note
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a dispute to resolve")
}

/// Opens a dispute again whose resolution was not carried out; `false` where it is open, or another is.
pub(super) async fn reopen_dispute(connection: &mut PgConnection, id: Uuid) -> Result<bool, DbError> {
    let rows = sqlx::query!(
        "update disputes d set state = 'open' where d.id = $1 and d.state = 'resolved'
         and not exists (select from disputes o where o.payment_id = d.payment_id and o.state = 'open')",
        id
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows > 0)
}

// === what never came ===

/// The time of the highest block that was read.
pub(super) async fn find_chain_time(connection: &mut PgConnection, chain: ChainId) -> Result<Option<OffsetDateTime>, DbError> {
    let time = sqlx::query_scalar!(
        "select b.block_time from chain_cursors c join chain_blocks b on b.chain_id = c.chain_id and b.number = c.number and b.hash = c.hash
         where c.chain_id = $1::bigint",
        chain.as_i64()
    )
    .fetch_optional(connection)
    .await?;
    Ok(time)
}

/// Payments of a chain whose expiry and late window had passed at `at`, that are not whole and hold nothing.
pub(super) async fn list_lapsed(
    connection: &mut PgConnection,
    chain: ChainId,
    at: OffsetDateTime,
    limit: i64,
) -> Result<Vec<PaymentId>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select id from payments p
        where p.chain_id = $1::bigint and p.status in ('pending', 'processing') and p.provider = 'amn.scanner' and p.expires_at < $2
          and p.expires_at + make_interval(secs => p.late_window_seconds) < $2
          and (
              p.status = 'pending'
              or (
                  exists (select from payment_payouts y where y.payment_id = p.id and y.state = 'settled')
                  and not exists (
                      select from ledger_accounts a join ledger_balances b on b.account_id = a.id
                      where a.payment_id = p.id and b.balance > 0
                  )
              )
          )
        order by p.expires_at, p.id limit $3
        "#,
        chain.as_i64(),
        at,
        limit
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(PaymentId).collect())
}

/// Whether a transfer to the payment's address is in a chain and was not credited yet.
pub(super) async fn has_waiting_sighting(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"
        select exists (
            select from derived_destinations d join transfer_observations o on o.derived_address_id = d.derived_address_id
            where d.payment_id = $1 and o.state = 'canonical' and not o.internal and o.gate_passed is null
        ) as "found!"
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// Whether a credit of an asset for the payment is of a block after an instant.
pub(super) async fn has_late_credit(
    connection: &mut PgConnection,
    payment: PaymentId,
    asset: AssetId,
    after: OffsetDateTime,
) -> Result<bool, DbError> {
    let marker = asset.asset.marker();
    let found = sqlx::query_scalar!(
        r#"
        select exists (
            select from derived_destinations d
                join transfer_observations o on o.derived_address_id = d.derived_address_id
                join transfer_verdicts v on v.observation_id = o.id and v.gate = 'credit' and v.revoked_at is null
                join chain_blocks b on b.chain_id = o.chain_id and b.number = o.block_number and b.hash = o.block_hash
            where d.payment_id = $1 and o.state = 'canonical' and not o.internal and o.chain_id = $2::bigint and o.asset = $3
              and b.block_time > $4
        ) as "found!"
        "#,
        payment.0,
        asset.chain.as_i64(),
        marker.as_slice(),
        after
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// Whether no claim of the payment holds anything.
pub(super) async fn is_empty(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let empty = sqlx::query_scalar!(
        r#"
        select not exists (
            select from ledger_accounts a join ledger_balances b on b.account_id = a.id where a.payment_id = $1 and b.balance > 0
        ) as "empty!"
        "#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(empty)
}

/// Whether any refund of the payment has settled.
pub(super) async fn has_refunded(connection: &mut PgConnection, payment: PaymentId) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"select exists (select from payment_payouts where payment_id = $1 and kind = 'refund' and state = 'settled') as "found!""#,
        payment.0
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

// === what came for nobody ===

/// Notes what two officers decided; of two decisions about the same money the second is refused.
pub(super) async fn insert_adjustment(connection: &mut PgConnection, id: ProposalId, adjustment: &Adjustment) -> Result<(), EscrowError> {
    let outcome = sqlx::query!(
        "insert into ledger_adjustments (proposal_id, act, entry_id) values ($1, $2::text::adjustment_act, $3)",
        id.0,
        adjustment.act(),
        adjustment.entry().map(|entry| entry.0)
    )
    .execute(connection)
    .await
    .map_err(DbError::from);
    match (outcome, adjustment.entry()) {
        (Ok(_), _) => Ok(()),
        (Err(error), Some(entry)) if error.constraint() == Some("ledger_adjustments_entry_key") => Err(EscrowError::NotSuspended(entry)),
        (Err(error), _) => Err(error.into()),
    }
}

pub(super) async fn has_adjustment(connection: &mut PgConnection, entry: LedgerEntryId) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(r#"select exists (select from ledger_adjustments where entry_id = $1) as "found!""#, entry.0)
        .fetch_one(connection)
        .await?;
    Ok(found)
}

/// Credits that came for nobody, stand and were not decided about, after an id.
pub async fn list_suspended(connection: &mut PgConnection, after: LedgerEntryId, limit: i64) -> Result<Vec<Suspended>, DbError> {
    let rows = sqlx::query!(
        r#"
        select e.id,
               (select max(p.id) from change_proposals p
                where p.subject = 'adjustment' and p.created_at > now() - interval '7 days' and (p.body::jsonb ->> 'entry')::bigint = e.id
                  and not exists (select from change_decisions d where d.proposal_id = p.id)) as proposal
        from ledger_accounts a join funds_ledger_entries e on e.credit_account_id = a.id
        where a.kind = 'suspense' and a.payment_id is null and e.entry_type <> 'reversal' and e.id > $1
          and not exists (select from ledger_adjustments j where j.entry_id = e.id)
          and not exists (select from funds_ledger_entries r where r.reverses_entry_id = e.id)
        order by e.id limit $2
        "#,
        after.0,
        limit
    )
    .fetch_all(&mut *connection)
    .await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    let entries = ledger::store::list_by_ids(connection, &ids).await?;
    Ok(entries.into_iter().zip(rows).map(|(posted, row)| Suspended { posted, proposal: row.proposal.map(ProposalId) }).collect())
}

// === refusals ===

/// The one trace that a refused command leaves: who asked for what, and why not. In a unit of work of its own,
/// after the command's was rolled back.
pub async fn note_refusal(connection: &mut PgConnection, payment: PaymentId, command: &str, by: &str, why: &str) -> Result<(), DbError> {
    let known = sqlx::query_scalar!(r#"select exists (select from payments where id = $1) as "known!""#, payment.0)
        .fetch_one(&mut *connection)
        .await?;
    if known {
        let detail = serde_json::json!({ "command": command, "by": by, "why": why });
        event::store::append(connection, &Event::of_payment("escrow.refused", payment, detail)).await?;
    }
    Ok(())
}
