//! SQL of reconciliation: it reads what earlier rooms wrote and writes nothing.

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;

use crate::db::DbError;
use crate::db::codec::{address_from_sql, units_from_sql};
use crate::units::{Asset, BlockNumber, ChainId};

/// A movement that is in the chain and not in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub address: Address,
    pub asset: Asset,
    pub units: U256,
    pub incoming: bool,
}

/// Movements up to a block that the ledger does not hold yet: transfers from outside that wait for
/// their depth or their posting, and our own mined transactions that are not settled.
pub(super) async fn list_pending(connection: &mut PgConnection, chain: ChainId, up_to: BlockNumber) -> Result<Vec<Pending>, DbError> {
    let rows = sqlx::query!(
        r#"
        -- transfers from outside without a posted credit
        select o.recipient as "address!: Vec<u8>", o.asset as "asset!: Vec<u8>", o.amount::text as "units!", true as "incoming!"
        from transfer_observations o
        left join transfer_verdicts v on v.observation_id = o.id and v.revoked_at is null and v.gate = 'credit'
        where o.chain_id = $1::bigint and o.state = 'canonical' and not o.internal and o.block_number <= $2
          and not exists (select from funds_ledger_entries e where e.idempotency_key = 'verdict:' || v.id || ':credit')
        union all
        -- our own mined transactions: what leaves the sender
        select t.from_address, i.asset, i.amount::text, false
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
        union all
        -- what it cost
        select t.from_address, $3::bytea, t.fee_paid::text, false
        from outbound_transactions t
        where t.chain_id = $1::bigint and t.settled_at is null and t.block_number <= $2
        union all
        -- what arrives at another address of ours
        select i.to_address, i.asset, i.amount::text, true
        from outbound_transactions t join intents i on i.id = t.intent_id
        where t.chain_id = $1::bigint and t.settled_at is null and t.succeeded and t.block_number <= $2
          and exists (select from trezor_derived_addresses d where d.address = i.to_address)
        "#,
        chain.as_i64(),
        up_to.as_i64(),
        Asset::NATIVE_MARKER.as_slice()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Pending {
                address: address_from_sql(&row.address)?,
                asset: Asset::from_marker(address_from_sql(&row.asset)?),
                units: units_from_sql(&row.units)?,
                incoming: row.incoming,
            })
        })
        .collect()
}
