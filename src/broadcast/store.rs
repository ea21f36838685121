//! SQL of `outbound_transactions`, and the step from a station's answer to stored bytes.

use alloy::primitives::{Bytes, keccak256};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{AdoptError, BroadcastError, Inclusion, Outbound};
use crate::approval;
use crate::chains::ChainBook;
use crate::confirm;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::event::{self, Event};
use crate::intent::{self, FeeTerms, Intent, IntentEvent, IntentState};
use crate::signing::{self, SignedTx};
use crate::units::{BlockNumber, BlockRef, ChainId, IntentId};

/// A station that asks for an intent.
#[derive(Clone, Debug)]
pub struct StationClaim {
    /// Its name and the token it speaks with.
    pub station: String,
    /// Take the intent from a station that had it. Its device may have signed, so the intent can never be
    /// given up afterwards; signing it again gives the same bytes.
    pub take_over: bool,
}

/// Between the names of stations that had an intent one after the other.
const TAKEN_OVER: &str = " > ";

/// Gives an approved intent to a station, which may now ask its device.
pub async fn claim(connection: &mut PgConnection, id: IntentId, claim: &StationClaim) -> Result<Intent, BroadcastError> {
    let intent = intent::store::lock(connection, id).await?;
    refuse_when_halted(connection, intent.chain()).await?;
    if !intent::store::is_released(connection, &intent).await? {
        return Err(BroadcastError::OnlyCredited { intent: id });
    }
    if let Some(hold) = intent::store::find_hold(connection, &intent).await? {
        return Err(BroadcastError::Held { intent: id, hold });
    }
    refuse_when_moot(connection, &intent).await?;
    // One that a station has already was claimed in time, and may be signed.
    if intent.state == IntentState::Approved && approval::store::count(connection, &intent).await? < intent.approvals_required {
        return Err(BroadcastError::ApprovalsExpired { intent: id });
    }
    let station = match &intent.station {
        None => claim.station.clone(),
        Some(holder) if holder_of(holder) == claim.station => holder.clone(),
        // What it had is signed and stored; another revision is anybody's.
        Some(_) if intent.state == IntentState::Approved && intent.signed_revision.is_some_and(|signed| signed < intent.revision) => {
            claim.station.clone()
        }
        Some(holder) if claim.take_over => format!("{holder}{TAKEN_OVER}{}", claim.station),
        Some(holder) => return Err(BroadcastError::OtherStation { intent: id, station: holder_of(holder).to_owned() }),
    };
    let intent = intent::store::advance(connection, &intent, IntentEvent::Claimed).await?;
    intent::store::set_station(connection, id, Some(&station)).await?;
    note(connection, &intent, "intent.signing", serde_json::json!({ "station": station })).await?;
    Ok(Intent { station: Some(station), ..intent })
}

/// Takes an intent back from the station that has it and says for certain that nothing was signed.
pub async fn decline(connection: &mut PgConnection, id: IntentId, station: &str, reason: &str) -> Result<Intent, BroadcastError> {
    let intent = intent::store::lock(connection, id).await?;
    let holder = intent.station.clone().unwrap_or_default();
    if holder_of(&holder) != station {
        return Err(BroadcastError::OtherStation { intent: id, station: holder_of(&holder).to_owned() });
    }
    let intent = intent::store::advance(connection, &intent, IntentEvent::Declined).await?;
    // A station before this one may have a signature; then the name stays, and with it the bar to void.
    if !holder.contains(TAKEN_OVER) {
        intent::store::set_station(connection, id, None).await?;
    }
    note(connection, &intent, "intent.declined", serde_json::json!({ "reason": reason, "station": station })).await?;
    Ok(intent)
}

fn holder_of(stations: &str) -> &str {
    stations.rsplit(TAKEN_OVER).next().unwrap_or(stations)
}

/// Checks signed bytes against the approved intent and stores them. Nothing has been sent yet.
///
/// The same bytes again are no error: the station may not have heard our first answer.
pub async fn insert_signed(connection: &mut PgConnection, book: &ChainBook, id: IntentId, raw: &Bytes) -> Result<Outbound, BroadcastError> {
    let intent = intent::store::lock(connection, id).await?;
    let chain = intent.chain();
    let spec = book.get(chain).ok_or(BroadcastError::UnknownChain(chain))?;
    let request = signing::request_for(&intent, spec).map_err(|source| BroadcastError::Request { intent: id, source })?;
    let signed = SignedTx::from_raw(request, raw).map_err(|source| BroadcastError::NotApproved { intent: id, source: Box::new(source) })?;
    let tx_hash = signed.hash();
    let at_nonce = list_at_nonce(connection, &intent).await?;
    if let Some(stored) = at_nonce.iter().find(|stored| stored.tx_hash == tx_hash) {
        return Ok(stored.clone());
    }
    // A transaction of an earlier revision was mined while the device was asked: these bytes can do nothing
    // unless that block goes, and then they must be known here.
    let overtaken = intent.state == IntentState::Mined && intent.signed_revision.is_some_and(|signed| signed < intent.revision);
    write(connection, &intent, &signed, at_nonce.last()).await?;
    let intent = if overtaken { intent } else { intent::store::advance(connection, &intent, IntentEvent::Signed).await? };
    intent::store::set_signed(connection, &intent).await?;
    let detail = serde_json::json!({ "tx_hash": tx_hash, "revision": intent.revision, "overtaken": overtaken });
    note(connection, &intent, "intent.signed", detail).await?;
    let stored = list_at_nonce(connection, &intent).await?.into_iter().find(|stored| stored.tx_hash == tx_hash);
    stored.ok_or(DbError::NotOneRow { what: "the transaction just stored", found: 0 }.into())
}

/// Stores the bytes of a transaction that the chain has already. Whatever the intent's state, the receipt brings it
/// to a block.
pub(super) async fn insert_adopted(
    connection: &mut PgConnection,
    book: &ChainBook,
    intent: &Intent,
    raw: &Bytes,
) -> Result<(), BroadcastError> {
    let chain = intent.chain();
    let spec = book.get(chain).ok_or(BroadcastError::UnknownChain(chain))?;
    // Nothing was asked of a device here, so what does not hold is the officer's to know.
    let no = |said: String| BroadcastError::Adopt { tx_hash: keccak256(raw), source: Box::new(AdoptError::NoTransfer(said)) };
    let request = signing::request_for(intent, spec).map_err(|error| no(error.to_string()))?;
    let signed = SignedTx::from_raw(request, raw).map_err(|error| no(error.to_string()))?;
    let at_nonce = list_at_nonce(connection, intent).await?;
    if let Some(stored) = at_nonce.iter().find(|stored| stored.tx_hash == signed.hash()) {
        return Err(BroadcastError::Adopt { tx_hash: stored.tx_hash, source: Box::new(AdoptError::Known(stored.intent)) });
    }
    write(connection, intent, &signed, at_nonce.last()).await?;
    Ok(intent::store::set_signed(connection, intent).await?)
}

async fn write(connection: &mut PgConnection, intent: &Intent, signed: &SignedTx, replaces: Option<&Outbound>) -> Result<(), DbError> {
    let tx_hash = signed.hash();
    sqlx::query!(
        "insert into outbound_transactions (
             intent_id, chain_id, from_address, nonce, tx_hash, raw, replaces, max_fee_per_gas, max_priority_fee_per_gas
         ) values ($1, $2::bigint, $3::bytea, $4, $5::bytea, $6, $7, $8::text::numeric, $9::text::numeric)",
        intent.id.0,
        intent.chain().as_i64(),
        intent.from.address.as_slice(),
        intent.nonce.cast_signed(),
        tx_hash.as_slice(),
        signed.raw().as_ref(),
        replaces.map(|newest| newest.id),
        intent.fees.max_fee_per_gas.to_string(),
        intent.fees.max_priority_fee_per_gas.to_string()
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Nothing more is signed for a nonce that is used, nor for an intent whose cancel is under way.
pub(super) async fn refuse_when_moot(connection: &mut PgConnection, intent: &Intent) -> Result<(), BroadcastError> {
    if let Some(used) = list_at_nonce(connection, intent).await?.into_iter().find(|sent| sent.included.is_some()) {
        return Err(BroadcastError::NonceUsed { intent: intent.id, tx_hash: used.tx_hash });
    }
    match intent::store::find_cancel(connection, intent.id).await? {
        Some(cancel) => Err(BroadcastError::BeingCancelled { intent: intent.id, cancel }),
        None => Ok(()),
    }
}

pub(super) async fn refuse_when_halted(connection: &mut PgConnection, chain: ChainId) -> Result<(), BroadcastError> {
    match confirm::store::find_halt(connection, chain).await? {
        Some(reason) => Err(BroadcastError::Halted { chain, reason }),
        None => Ok(()),
    }
}

pub(super) async fn note(
    connection: &mut PgConnection,
    intent: &Intent,
    kind: &'static str,
    detail: serde_json::Value,
) -> Result<(), DbError> {
    event::store::append(connection, &Event::of_intent(kind, intent.id, intent.payment, intent.chain(), detail)).await
}

fn wei(text: &str) -> Result<u128, DbError> {
    text.parse().map_err(|_| DbError::Corrupt {
        column: "outbound_transactions.max_fee_per_gas",
        found: text.chars().take(80).collect(),
        wanted: "wei that fit 128 bits",
    })
}

struct Row {
    id: i64,
    intent_id: uuid::Uuid,
    chain_id: i64,
    from_address: Vec<u8>,
    nonce: i64,
    tx_hash: Vec<u8>,
    raw: Vec<u8>,
    send_attempts: i32,
    last_sent_at: Option<OffsetDateTime>,
    block_number: Option<i64>,
    block_hash: Option<Vec<u8>>,
    succeeded: Option<bool>,
    fee_paid: Option<String>,
    gas_limit: i64,
    max_fee_per_gas: String,
    max_priority_fee_per_gas: String,
    is_cancel: bool,
}

impl TryFrom<Row> for Outbound {
    type Error = DbError;

    fn try_from(row: Row) -> Result<Self, Self::Error> {
        let included = match (row.block_number, row.block_hash, row.succeeded, row.fee_paid) {
            (Some(number), Some(hash), Some(succeeded), Some(fee)) => Some(Inclusion {
                block: BlockRef { number: BlockNumber::from(number), hash: hash_from_sql(&hash)? },
                succeeded,
                fee_paid: units_from_sql(&fee)?,
            }),
            _ => None,
        };
        Ok(Self {
            id: row.id,
            intent: IntentId(row.intent_id),
            chain: chain_from_sql(row.chain_id)?,
            from: address_from_sql(&row.from_address)?,
            nonce: count_from_sql("outbound_transactions.nonce", row.nonce)?,
            tx_hash: hash_from_sql(&row.tx_hash)?,
            raw: row.raw.into(),
            send_attempts: row.send_attempts.cast_unsigned(),
            last_sent_at: row.last_sent_at,
            included,
            fees: FeeTerms {
                gas_limit: count_from_sql("intents.gas_limit", row.gas_limit)?,
                max_fee_per_gas: wei(&row.max_fee_per_gas)?,
                max_priority_fee_per_gas: wei(&row.max_priority_fee_per_gas)?,
            },
            is_cancel: row.is_cancel,
        })
    }
}

/// The transaction signed for an intent, if there is one: the one that is in a block, else the newest.
pub async fn find_by_intent(connection: &mut PgConnection, intent: IntentId) -> Result<Option<Outbound>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select t.id, t.intent_id, t.chain_id as "chain_id!: i64", t.from_address as "from_address!: Vec<u8>", t.nonce,
               t.tx_hash as "tx_hash!: Vec<u8>", t.raw, t.send_attempts, t.last_sent_at, t.block_number,
               t.block_hash as "block_hash?: Vec<u8>", t.succeeded, t.fee_paid::text as fee_paid, i.gas_limit,
               t.max_fee_per_gas::text as "max_fee_per_gas!", t.max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               i.kind = 'cancel' as "is_cancel!"
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.intent_id = $1 order by t.block_number is null, t.id desc limit 1
        "#,
        intent.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Outbound::try_from).transpose()
}

/// Every transaction ever signed at an intent's nonce, in the order in which they were signed: of all its
/// revisions, and of its cancel or of what it cancels.
pub async fn list_at_nonce(connection: &mut PgConnection, intent: &Intent) -> Result<Vec<Outbound>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select t.id, t.intent_id, t.chain_id as "chain_id!: i64", t.from_address as "from_address!: Vec<u8>", t.nonce,
               t.tx_hash as "tx_hash!: Vec<u8>", t.raw, t.send_attempts, t.last_sent_at, t.block_number,
               t.block_hash as "block_hash?: Vec<u8>", t.succeeded, t.fee_paid::text as fee_paid, i.gas_limit,
               t.max_fee_per_gas::text as "max_fee_per_gas!", t.max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               i.kind = 'cancel' as "is_cancel!"
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.from_address = $2::bytea and t.nonce = $3 order by t.id
        "#,
        intent.chain().as_i64(),
        intent.from.address.as_slice(),
        intent.nonce.cast_signed()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Outbound::try_from).collect()
}

/// Transactions of a chain that are not settled, in the order in which they were signed.
pub async fn list_open(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Outbound>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select t.id, t.intent_id, t.chain_id as "chain_id!: i64", t.from_address as "from_address!: Vec<u8>", t.nonce,
               t.tx_hash as "tx_hash!: Vec<u8>", t.raw, t.send_attempts, t.last_sent_at, t.block_number,
               t.block_hash as "block_hash?: Vec<u8>", t.succeeded, t.fee_paid::text as fee_paid, i.gas_limit,
               t.max_fee_per_gas::text as "max_fee_per_gas!", t.max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               i.kind = 'cancel' as "is_cancel!"
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null order by t.id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Outbound::try_from).collect()
}

/// Settled transactions of a chain whose block a reorg took away. Empty in health.
pub async fn list_settled_orphaned(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Outbound>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select t.id, t.intent_id, t.chain_id as "chain_id!: i64", t.from_address as "from_address!: Vec<u8>", t.nonce,
               t.tx_hash as "tx_hash!: Vec<u8>", t.raw, t.send_attempts, t.last_sent_at, t.block_number,
               t.block_hash as "block_hash?: Vec<u8>", t.succeeded, t.fee_paid::text as fee_paid, i.gas_limit,
               t.max_fee_per_gas::text as "max_fee_per_gas!", t.max_priority_fee_per_gas::text as "max_priority_fee_per_gas!",
               i.kind = 'cancel' as "is_cancel!"
        from chain_blocks b
        join outbound_transactions t on t.chain_id = b.chain_id and t.block_number = b.number and t.block_hash = b.hash
        join intents i on i.id = t.intent_id
        where b.chain_id = $1::bigint and b.state = 'orphaned' and t.settled_at is not null
        order by t.id limit $2
        "#,
        chain.as_i64(),
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(Outbound::try_from).collect()
}

/// The others at the nonce of a settled transaction are settled with it: none of them can be mined.
pub async fn set_settled_with(connection: &mut PgConnection, settled: &Outbound) -> Result<u64, DbError> {
    let rows = sqlx::query!(
        "update outbound_transactions
         set settled_at = now(), block_number = null, block_hash = null, succeeded = null, fee_paid = null
         where chain_id = $1::bigint and from_address = $2::bytea and nonce = $3 and id <> $4 and settled_at is null",
        settled.chain.as_i64(),
        settled.from.as_slice(),
        settled.nonce.cast_signed(),
        settled.id
    )
    .execute(connection)
    .await?
    .rows_affected();
    Ok(rows)
}

/// Whether another transaction of the same intent is in a block.
pub async fn has_other_included(connection: &mut PgConnection, outbound: &Outbound) -> Result<bool, DbError> {
    let found = sqlx::query_scalar!(
        r#"select exists (
               select from outbound_transactions where intent_id = $1 and id <> $2 and block_number is not null
           ) as "found!""#,
        outbound.intent.0,
        outbound.id
    )
    .fetch_one(connection)
    .await?;
    Ok(found)
}

/// How many intents of a chain have been out for so long without being mined.
pub async fn count_stuck(connection: &mut PgConnection, chain: ChainId, minutes: u32) -> Result<u64, DbError> {
    let count = sqlx::query_scalar!(
        r#"
        select count(distinct (from_address, nonce)) as "count!" from outbound_transactions t
        where chain_id = $1::bigint and settled_at is null and first_sent_at < now() - make_interval(mins => $2)
          and not exists (
              select from outbound_transactions o
              where (o.chain_id, o.from_address, o.nonce) = (t.chain_id, t.from_address, t.nonce) and o.block_number is not null
          )
        "#,
        chain.as_i64(),
        minutes.cast_signed()
    )
    .fetch_one(connection)
    .await?;
    Ok(count.cast_unsigned())
}

/// A settled transaction that a reorg had taken away is in another block now.
pub async fn move_settled(connection: &mut PgConnection, id: i64, inclusion: Inclusion) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update outbound_transactions set block_number = $2, block_hash = $3::bytea, fee_paid = $4::text::numeric
         where id = $1 and settled_at is not null",
        id,
        inclusion.block.number.as_i64(),
        inclusion.block.hash.as_slice(),
        units_to_sql(inclusion.fee_paid)
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a settled transaction in another block")
}

/// What is unclear about a chain's outgoing transactions.
#[derive(Clone, Copy, Debug)]
pub struct Doubts {
    pub chain: ChainId,
    /// Sent, and nobody knows what became of them.
    pub uncertain: u64,
    /// Nonces that must be used before signed bytes can be mined, and that no intent holds.
    pub nonce_gaps: u64,
}

/// Doubts of all chains with signed transactions under way.
pub async fn list_doubts(connection: &mut PgConnection) -> Result<Vec<Doubts>, DbError> {
    let rows = sqlx::query_file!("src/broadcast/list_doubts.sql").fetch_all(connection).await?;
    rows.into_iter()
        .map(|row| {
            Ok(Doubts {
                chain: chain_from_sql(row.chain_id)?,
                uncertain: count_from_sql("count", row.uncertain)?,
                nonce_gaps: count_from_sql("count", row.nonce_gaps)?,
            })
        })
        .collect()
}

/// Notes that the bytes are about to go out, before they do.
pub async fn note_attempt(connection: &mut PgConnection, id: i64, now: OffsetDateTime) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update outbound_transactions
         set send_attempts = send_attempts + 1, last_sent_at = $2, first_sent_at = coalesce(first_sent_at, $2)
         where id = $1",
        id,
        now
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a transaction about to be sent")
}

pub async fn note_outcome(connection: &mut PgConnection, id: i64, outcome: &str) -> Result<(), DbError> {
    let rows = sqlx::query!("update outbound_transactions set last_send_outcome = $2 where id = $1", id, outcome)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "a transaction that was sent")
}

/// Stores or clears the block that includes a transaction.
pub async fn set_inclusion(connection: &mut PgConnection, id: i64, inclusion: Option<Inclusion>) -> Result<(), DbError> {
    let rows = sqlx::query!(
        "update outbound_transactions
         set block_number = $2, block_hash = $3::bytea, succeeded = $4, fee_paid = $5::text::numeric
         where id = $1 and settled_at is null",
        id,
        inclusion.map(|inclusion| inclusion.block.number.as_i64()),
        inclusion.as_ref().map(|inclusion| inclusion.block.hash.as_slice()),
        inclusion.map(|inclusion| inclusion.succeeded),
        inclusion.map(|inclusion| units_to_sql(inclusion.fee_paid))
    )
    .execute(connection)
    .await?
    .rows_affected();
    expect_one(rows, "a transaction that was included or dropped")
}

/// Marks a transaction as settled: nothing is left to do for it.
pub async fn set_settled(connection: &mut PgConnection, id: i64) -> Result<(), DbError> {
    let rows = sqlx::query!("update outbound_transactions set settled_at = now() where id = $1 and settled_at is null", id)
        .execute(connection)
        .await?
        .rows_affected();
    expect_one(rows, "a transaction to settle")
}
