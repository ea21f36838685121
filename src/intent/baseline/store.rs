//! SQL of `nonce_baselines`, and of the nonces that something of ours is signed for.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use sqlx::PgConnection;

use super::{BaselineAsked, BaselineError, ForeignUse};
use crate::account;
use crate::db::DbError;
use crate::db::codec::{address_from_sql, chain_from_sql, count_from_sql};
use crate::event::{self, Event};
use crate::officer::Caller;
use crate::officer::proposal::{self, NewProposal, Proposal, Subject};
use crate::scan;
use crate::units::{ChainId, ProposalId};

/// The first nonce of an address that needs a transaction of ours.
pub async fn get(connection: &mut PgConnection, chain: ChainId, address: Address) -> Result<u64, DbError> {
    let nonce = sqlx::query_scalar!(
        r#"select coalesce(max(nonce), 0) as "nonce!" from nonce_baselines where chain_id = $1::bigint and address = $2::bytea"#,
        chain.as_i64(),
        address.as_slice()
    )
    .fetch_one(connection)
    .await?;
    count_from_sql("nonce_baselines.nonce", nonce)
}

/// Nonces from `floor` to below `chain_count` that we have stored signed bytes for.
pub async fn list_signed(
    connection: &mut PgConnection,
    chain: ChainId,
    from: Address,
    floor: u64,
    chain_count: u64,
) -> Result<BTreeSet<u64>, DbError> {
    let rows = sqlx::query_scalar!(
        r#"
        select distinct nonce from outbound_transactions
        where chain_id = $1::bigint and from_address = $2::bytea and nonce >= $3 and nonce < $4
        "#,
        chain.as_i64(),
        from.as_slice(),
        i64::try_from(floor).unwrap_or(i64::MAX),
        i64::try_from(chain_count).unwrap_or(i64::MAX)
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|nonce| count_from_sql("outbound_transactions.nonce", nonce)).collect()
}

/// Notes a foreign use, once, and halts outflow of the chain for it; whether it is news. What an officer has looked
/// at and resumed does not halt again; the next foreign use does.
pub async fn tell_foreign(connection: &mut PgConnection, chain: ChainId, address: Address, nonce: u64) -> Result<bool, DbError> {
    if event::store::has_foreign_nonce(connection, chain, address, nonce).await? {
        return Ok(false);
    }
    let reason = format!("nonce {nonce} of {address} was used by a transaction that is not ours");
    let detail = serde_json::json!({ "address": address.to_string(), "nonce": nonce, "reason": reason });
    let event = Event { kind: event::FOREIGN_NONCE, payment: None, intent: None, chain: Some(chain), detail };
    event::store::append(connection, &event).await?;
    let now = proposal::store::clock(connection).await?;
    scan::store::halt_outflow(connection, chain, &reason, now).await?;
    Ok(true)
}

/// A foreign use of an address that was told of and is not accounted for, however long ago the chain used it.
pub async fn find_told(connection: &mut PgConnection, chain: ChainId, address: Address) -> Result<Option<u64>, DbError> {
    let baseline = get(connection, chain, address).await?;
    let nonce = sqlx::query_scalar!(
        r#"
        select min((e.detail ->> 'nonce')::bigint)
        from events e
        where e.kind = 'chain.foreign_nonce' and e.chain_id = $1::bigint and e.detail ->> 'address' = $2
          and (e.detail ->> 'nonce')::bigint >= $3
          and not exists (
              select from outbound_transactions o
              where o.chain_id = e.chain_id and o.from_address = $4::bytea and o.nonce = (e.detail ->> 'nonce')::bigint
          )
        "#,
        chain.as_i64(),
        address.to_string(),
        baseline.cast_signed(),
        address.as_slice()
    )
    .fetch_one(connection)
    .await?;
    nonce.map(|nonce| count_from_sql("events.detail.nonce", nonce)).transpose()
}

/// Foreign uses that were told of, are not below the baseline, and of which nothing is stored yet; oldest first.
pub async fn list_foreign(connection: &mut PgConnection, limit: i64) -> Result<Vec<ForeignUse>, DbError> {
    let rows = sqlx::query!(
        r#"
        with told as (
            select chain_id, decode(substr(lower(detail ->> 'address'), 3), 'hex') as address, (detail ->> 'nonce')::bigint as nonce,
                   min(created_at) as seen_at
            from events where kind = $1 group by 1, 2, 3
        )
        select t.chain_id as "chain_id!: i64", t.address as "address!: Vec<u8>", t.nonce as "nonce!", t.seen_at as "seen_at!",
               coalesce(b.nonce, 0) as "baseline!"
        from told t
        left join lateral (
            select max(nonce) as nonce from nonce_baselines n where n.chain_id = t.chain_id and n.address = t.address
        ) b on true
        where t.nonce >= coalesce(b.nonce, 0) and not exists (
            select from outbound_transactions o
            where o.chain_id = t.chain_id and o.from_address = t.address and o.nonce = t.nonce
              and (o.settled_at is null or o.block_number is not null)
        )
        order by t.seen_at, t.nonce limit $2
        "#,
        event::FOREIGN_NONCE,
        limit
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(ForeignUse {
                chain: chain_from_sql(row.chain_id)?,
                address: address_from_sql(&row.address)?,
                nonce: count_from_sql("events.detail.nonce", row.nonce)?,
                baseline: count_from_sql("nonce_baselines.nonce", row.baseline)?,
                seen_at: row.seen_at,
            })
        })
        .collect()
}

/// One officer proposes where an address's past ends.
pub async fn propose(
    connection: &mut PgConnection,
    chain: ChainId,
    address: Address,
    nonce: u64,
    reason: String,
    caller: &Caller,
) -> Result<Proposal, BaselineError> {
    if account::store::find_address_id(connection, address).await?.is_none() {
        return Err(BaselineError::NotOurs(address));
    }
    refuse_lower(connection, chain, address, nonce).await?;
    let body = BaselineAsked { chain: chain.get(), address, nonce }.canonical();
    let new = NewProposal { subject: Subject::NonceBaseline, body, effective_at: None, reason };
    Ok(proposal::store::propose(connection, &new, caller).await?)
}

/// Another officer confirms it.
pub async fn confirm(connection: &mut PgConnection, id: ProposalId, digest: B256, caller: &Caller) -> Result<BaselineAsked, BaselineError> {
    let proposal = proposal::store::confirm(connection, id, Subject::NonceBaseline, digest, caller).await?;
    let asked = BaselineAsked::from_canonical(&proposal.body).ok_or_else(|| BaselineError::Stored(proposal.body.clone()))?;
    let chain = ChainId::new(asked.chain).ok_or_else(|| BaselineError::Stored(proposal.body.clone()))?;
    refuse_lower(connection, chain, asked.address, asked.nonce).await?;
    sqlx::query!(
        "insert into nonce_baselines (chain_id, address, nonce, proposal_id) values ($1::bigint, $2::bytea, $3, $4)",
        chain.as_i64(),
        asked.address.as_slice(),
        asked.nonce.cast_signed(),
        id.0
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?;
    tracing::warn!(chain.id = chain.get(), address = %asked.address, nonce = asked.nonce, "nonces below this one are past");
    Ok(asked)
}

async fn refuse_lower(connection: &mut PgConnection, chain: ChainId, address: Address, asked: u64) -> Result<(), BaselineError> {
    let stands = get(connection, chain, address).await?;
    if asked <= stands || i64::try_from(asked).is_err() {
        return Err(BaselineError::NotHigher { chain, address, asked, stands });
    }
    Ok(())
}
