//! SQL of `outbound_transactions`, and the step from a station's answer to stored bytes.

use alloy::primitives::Bytes;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{BroadcastError, Inclusion, Outbound};
use crate::chains::ChainBook;
use crate::confirm;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql, hash_from_sql, units_from_sql, units_to_sql};
use crate::db::{DbError, expect_one};
use crate::event::{self, Event};
use crate::intent::{self, Intent, IntentEvent};
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
    let station = match &intent.station {
        None => claim.station.clone(),
        Some(holder) if holder_of(holder) == claim.station => holder.clone(),
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
    if let Some(stored) = find_by_intent(connection, id).await?
        && stored.raw == *raw
    {
        return Ok(stored);
    }
    let tx_hash = signed.hash();
    sqlx::query!(
        "insert into outbound_transactions (intent_id, chain_id, from_address, nonce, tx_hash, raw)
         values ($1, $2::bigint, $3::bytea, $4, $5::bytea, $6)",
        id.0,
        chain.as_i64(),
        intent.from.address.as_slice(),
        intent.nonce.cast_signed(),
        tx_hash.as_slice(),
        signed.raw().as_ref()
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let intent = intent::store::advance(connection, &intent, IntentEvent::Signed).await?;
    note(connection, &intent, "intent.signed", serde_json::json!({ "tx_hash": tx_hash })).await?;
    find_by_intent(connection, id).await?.ok_or(DbError::NotOneRow { what: "the transaction just stored", found: 0 }.into())
}

async fn refuse_when_halted(connection: &mut PgConnection, chain: ChainId) -> Result<(), BroadcastError> {
    match confirm::store::find_halt(connection, chain).await? {
        Some(reason) => Err(BroadcastError::Halted { chain, reason }),
        None => Ok(()),
    }
}

async fn note(connection: &mut PgConnection, intent: &Intent, kind: &'static str, detail: serde_json::Value) -> Result<(), DbError> {
    event::store::append(connection, &Event::of_intent(kind, intent.id, intent.payment, intent.chain(), detail)).await
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
        })
    }
}

/// The transaction signed for an intent, if there is one.
pub async fn find_by_intent(connection: &mut PgConnection, intent: IntentId) -> Result<Option<Outbound>, DbError> {
    let row = sqlx::query_as!(
        Row,
        r#"
        select id, intent_id, chain_id as "chain_id!: i64", from_address as "from_address!: Vec<u8>", nonce, tx_hash as "tx_hash!: Vec<u8>",
               raw, send_attempts, last_sent_at, block_number, block_hash as "block_hash?: Vec<u8>", succeeded, fee_paid::text as fee_paid
        from outbound_transactions where intent_id = $1
        "#,
        intent.0
    )
    .fetch_optional(connection)
    .await?;
    row.map(Outbound::try_from).transpose()
}

/// Transactions of a chain that are not settled, in the order in which they were signed.
pub async fn list_open(connection: &mut PgConnection, chain: ChainId, limit: i64) -> Result<Vec<Outbound>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select id, intent_id, chain_id as "chain_id!: i64", from_address as "from_address!: Vec<u8>", nonce, tx_hash as "tx_hash!: Vec<u8>",
               raw, send_attempts, last_sent_at, block_number, block_hash as "block_hash?: Vec<u8>", succeeded, fee_paid::text as fee_paid
        from outbound_transactions where chain_id = $1::bigint and settled_at is null order by id limit $2
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
               t.block_hash as "block_hash?: Vec<u8>", t.succeeded, t.fee_paid::text as fee_paid
        from chain_blocks b
        join outbound_transactions t on t.chain_id = b.chain_id and t.block_number = b.number and t.block_hash = b.hash
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
