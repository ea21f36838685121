//! What a rollup charges for data: part of every ceiling on an OP-stack chain, part of gas on Arbitrum.

use std::sync::Arc;

use alloy::primitives::{B256, Bytes, U256, hex};
use amanatd::chains::{ChainSpec, L1Fee};
use amanatd::ledger::AccountKey;
use amanatd::rpc::GAS_PRICE_ORACLE;

use super::{Way, workers};

/// Answers every call with what is stored at slot 0.
const ANSWERS_SLOT_0: [u8; 11] = hex!("60005460005260206000f3");

impl Way {
    /// The same chain, as if it charged for data like an OP-stack chain: a stand-in of the gas oracle stands where
    /// the real one is on every such chain.
    async fn on_op_stack(mut self, upper_bound: u64) -> Self {
        self.chain.set_code(GAS_PRICE_ORACLE, Bytes::from_static(&ANSWERS_SLOT_0)).await.unwrap();
        self.l1_fee(upper_bound).await;
        self.spec = Arc::new(ChainSpec { l1_fee: L1Fee::OpStack, ..(*self.spec).clone() });
        self.workers = workers(&self.api, &self.api.node, &self.spec);
        self
    }

    async fn l1_fee(&self, upper_bound: u64) {
        self.chain.set_storage(GAS_PRICE_ORACLE, U256::ZERO, B256::from(U256::from(upper_bound))).await.unwrap();
    }

    fn l1_fee_max(&self, kind: &str) -> U256 {
        let sql = format!("select l1_fee_max::bigint from intents where kind = '{kind}' order by created_at desc limit 1");
        U256::from(u64::try_from(self.api.count(&sql)).unwrap())
    }
}

#[tokio::test]
async fn t10_fuel_and_payouts_hold_what_the_chain_below_charges() {
    let fee = 7_000_000_000_000_000_u64;
    let way = Way::start().await.on_op_stack(fee).await;
    let payment = way.funded("USDC", "40", 0).await;
    // Twice the bound, as the base fee may rise too; and the deposit address gets twice all of it.
    let fuel = way.planned("fuel").await;
    assert_eq!(way.l1_fee_max("fuel"), U256::from(2 * fee));
    assert!(fuel.amount_units.parse::<U256>().unwrap() > U256::from(4 * fee), "{}", fuel.amount_units);
    way.outflow("fuel").await;
    let sweep = way.planned("sweep").await;
    assert_eq!(way.l1_fee_max("sweep"), U256::from(2 * fee));
    // Whatever it costs within its ceiling, the address can pay it.
    let ceiling = U256::from(sweep.gas_limit) * sweep.max_fee_per_gas.parse::<U256>().unwrap() + way.l1_fee_max("sweep");
    assert!(way.balance(way.native(), AccountKey::Custody(payment.deposit_address)).await >= ceiling);
    way.outflow("sweep").await;

    // The treasury holds gas, and not what the data may cost now: nothing that cannot land is shown to an officer.
    let treasury = way.operator("treasury").await;
    let held = way.balance(way.native(), AccountKey::Custody(treasury)).await;
    way.l1_fee(u64::MAX).await;
    assert!(held < U256::from(u64::MAX));
    way.marketplace.release(payment.id, "release").await.unwrap();
    way.rounds().await;
    assert!(way.intents("planned").await.is_empty());
    way.l1_fee(fee).await;
    way.rounds().await;
    way.outflow("release").await;
    assert_eq!(way.read(payment.id).await.status, "completed");
    way.assert_sound().await;
}

#[tokio::test]
async fn t10_an_oracle_that_is_not_there_plans_nothing() {
    let way = Way::start().await.on_op_stack(1).await;
    way.chain.set_code(GAS_PRICE_ORACLE, Bytes::new()).await.unwrap();
    let payment = way.payment("USDC", "40", 0).await;
    way.pay(way.usdc, payment.deposit_address, "40").await;
    way.chain.mine(4).await.unwrap();
    let stopped = way.try_rounds().await;
    assert!(format!("{stopped:?}").contains("OP-stack"), "{stopped:?}");
    assert!(way.intents("planned").await.is_empty(), "no answer is not a fee of nothing");
}

#[tokio::test]
async fn t10_where_gas_counts_the_data_the_limit_is_the_nodes() {
    let way = Way::start().await;
    // On Arbitrum a plain transfer takes more than 21,000 gas. A recipient with code stands in for that.
    let payment = way.funded("USDC", "40", 0).await;
    let fuel = way.planned("fuel").await;
    way.officer.void(fuel.id, "another day").await.unwrap();
    // The deposit address itself answers like a contract that reads its storage: the estimate is above 21,000.
    way.chain.set_code(payment.deposit_address, Bytes::from_static(&ANSWERS_SLOT_0)).await.unwrap();
    way.rounds().await;
    let fuel = way.planned("fuel").await;
    assert!(fuel.gas_limit > 21_000 + 21_000 / 4, "{}", fuel.gas_limit);
}
