//! Reads a chain's queue and its prices, and says what it takes.

use alloy::primitives::U256;

use super::{Forecast, GasTable, Market, Presses, store};
use crate::chains::{ChainSpec, FreezeCheck, L1Fee};
use crate::db::Database;
use crate::intent::plan::Cost;
use crate::intent::{FeeTerms, IntentError, economy};
use crate::officer::proposal;
use crate::rpc::Node;

/// How many addresses one disperse fuels.
const DISPERSE_MAX: usize = 100;
/// Bytes of a token transfer, for what a rollup charges.
const TRANSFER_LEN: u64 = 200;

/// A forecast and the price of gas it rests on, in wei.
#[derive(Clone, Debug)]
pub struct Look {
    pub forecast: Forecast,
    pub gas_price: u128,
}

/// What the queue of a chain takes now. Nothing is planned by it.
pub async fn look(db: &Database, node: &Node, chain: &ChainSpec) -> Result<Look, IntentError> {
    let fees = node.fees().await?;
    let l1_fee = match chain.l1_fee {
        L1Fee::InGas => U256::ZERO,
        L1Fee::OpStack => node.l1_fee_upper_bound(TRANSFER_LEN).await?,
    };
    let gas = GasTable::default();
    let max_fee_per_gas = fees.base_fee.saturating_mul(2).saturating_add(fees.priority).max(1);
    let terms = FeeTerms { gas_limit: gas.transfer + gas.transfer / 4, max_fee_per_gas, max_priority_fee_per_gas: fees.priority };
    let cost = Cost { terms, l1_fee: l1_fee.saturating_mul(U256::from(2)) };
    let mut connection = db.connection().await?;
    let now = proposal::store::clock(&mut connection).await?;
    let economy = economy::store::get_book(&mut connection).await?.economy(chain, now);
    let market = Market {
        gas_price: fees.base_fee.saturating_add(fees.priority).max(1),
        l1_fee,
        gas,
        presses: Presses::of(false),
        disperse_max: DISPERSE_MAX,
        fuel_units: economy.fuel.full(U256::ZERO, cost.ceiling()),
    };
    // Circle's contract is the one that takes authorizations.
    let authorizes =
        |contract| chain.tokens.iter().any(|token| token.contract == contract && token.freeze_check == Some(FreezeCheck::IsBlacklisted));
    let queue = store::list_queue(&mut connection, chain, cost, authorizes).await?;
    let standing = store::get_standing(&mut connection, chain, &market).await?;
    Ok(Look { forecast: Forecast::of(&queue, &economy, &market, standing), gas_price: market.gas_price })
}
