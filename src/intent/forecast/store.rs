//! SQL of the queue that a forecast is of.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Market, Queued, Tally};
use crate::chains::ChainSpec;
use crate::db::DbError;
use crate::db::codec::{address_from_sql, units_from_sql};
use crate::intent::economy::{self, Sweepable};
use crate::intent::plan::Cost;
use crate::units::{Asset, AssetId, PaymentId};

/// How many payments a forecast looks at.
const QUEUE_MAX: i64 = 5_000;

struct Row {
    payment_id: Uuid,
    token_contract: Vec<u8>,
    token_decimals: i16,
    units: String,
    coin: String,
    orders: String,
    age_minutes: Option<i64>,
}

/// Payments of a chain whose money waits at its address or whose orders wait, with nothing on its way and nothing
/// that waits for the release gate, oldest first. `cost` is what a transfer may cost.
pub async fn list_queue(
    connection: &mut PgConnection,
    chain: &ChainSpec,
    cost: Cost,
    authorizes: impl Fn(Address) -> bool,
) -> Result<Vec<Queued>, DbError> {
    let rows = sqlx::query_as!(
        Row,
        r#"
        select p.id as "payment_id!", p.token_contract as "token_contract!: Vec<u8>", p.token_decimals as "token_decimals!",
               coalesce(tb.balance, 0)::text as "units!", coalesce(nb.balance, 0)::text as "coin!",
               coalesce(o.orders, '') as "orders!", age.minutes as age_minutes
        from derived_destinations d
        join payments p on p.id = d.payment_id and p.status in ('confirmed', 'completed', 'refunded') and p.chain_id = d.chain_id
        left join ledger_accounts t on t.kind = 'custody' and t.chain_id = d.chain_id and t.address = d.address and t.asset = p.token_contract
        left join ledger_balances tb on tb.account_id = t.id
        left join ledger_accounts n on n.kind = 'custody' and n.chain_id = d.chain_id and n.address = d.address
             and n.asset = decode(repeat('ee', 20), 'hex')
        left join ledger_balances nb on nb.account_id = n.id
        left join lateral (
            select string_agg(y.net_units::text, ',' order by y.id) as orders
            from payment_payouts y where y.payment_id = p.id and y.state = 'ordered' and y.asset = p.token_contract
        ) o on true
        left join lateral (
            select floor(extract(epoch from now() - min(e.created_at)) / 60)::bigint as minutes
            from funds_ledger_entries e where e.payment_id = p.id and e.entry_type = 'payment_detected'
        ) age on true
        where d.chain_id = $1::bigint and d.status in ('active', 'swept') and (coalesce(tb.balance, 0) > 0 or o.orders is not null)
          and (d.status = 'active' or o.orders is not null)
          and (
              p.status = 'confirmed' or o.orders is not null or not exists (
                  select from ledger_accounts a join ledger_balances l on l.account_id = a.id where a.payment_id = p.id and l.balance > 0
              )
          )
          and not exists (
              select from intents i
              where (i.destination_id = d.id or i.payment_id = p.id) and i.state not in ('void', 'reverted', 'settled', 'replaced')
          )
          and not exists (
              select from transfer_observations s
              where s.derived_address_id = d.derived_address_id and s.gate_passed = 'credit' and s.chain_id = d.chain_id
          )
        order by p.id limit $2
        "#,
        chain.id.as_i64(),
        QUEUE_MAX
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut queue = Vec::with_capacity(rows.len());
    let mut prices_of = BTreeMap::new();
    for row in rows {
        let contract = address_from_sql(&row.token_contract)?;
        let asset = AssetId { chain: chain.id, asset: Asset::from_marker(contract) };
        let prices = match prices_of.get(&asset.asset) {
            Some(known) => *known,
            None => {
                let found = economy::store::find_prices(&mut *connection, chain, asset).await?;
                prices_of.insert(asset.asset, found);
                found
            }
        };
        let ceiling = cost.ceiling();
        let needs_fuel = units_from_sql(&row.coin)? < ceiling;
        let orders = row.orders.split(',').filter(|units| !units.is_empty()).map(units_from_sql).collect::<Result<Vec<U256>, _>>()?;
        let money = Sweepable {
            asset: asset.asset,
            decimals: u8::try_from(row.token_decimals).unwrap_or(u8::MAX),
            units: units_from_sql(&row.units)?,
            age_minutes: row.age_minutes.map_or(u64::MAX, |minutes| u64::try_from(minutes).unwrap_or(0)),
            wanted: false,
            cost_units: if needs_fuel { ceiling.saturating_mul(U256::from(2)) } else { ceiling },
            prices,
        };
        queue.push(Queued { payment: PaymentId(row.payment_id), money, needs_fuel, orders, authorizes: authorizes(contract) });
    }
    Ok(queue)
}

/// What is planned on a chain and not signed: each is one confirmation, and its fee is the ceiling it was planned with.
pub async fn get_standing(connection: &mut PgConnection, chain: &ChainSpec, market: &Market) -> Result<Tally, DbError> {
    let row = sqlx::query!(
        r#"
        select count(*) as "count!", coalesce(sum(gas_limit), 0)::bigint as "gas!",
               coalesce(sum(gas_limit * max_fee_per_gas + l1_fee_max), 0)::text as "fee!"
        from intents where chain_id = $1::bigint and state in ('planned', 'approved', 'signing')
        "#,
        chain.id.as_i64()
    )
    .fetch_one(connection)
    .await?;
    let confirmations = u32::try_from(row.count).unwrap_or(u32::MAX);
    Ok(Tally {
        confirmations,
        presses: confirmations.saturating_mul(market.presses.transfer),
        transactions: confirmations,
        gas: row.gas.unsigned_abs(),
        fee_units: units_from_sql(&row.fee).unwrap_or(U256::MAX),
        fuel_units: U256::ZERO,
    })
}
