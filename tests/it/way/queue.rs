//! A queue of two hundred payments, each way through it: what it takes, on a real chain with the wire of a device.

use std::time::Instant;

use alloy::primitives::{Address, Bytes, U256};
use alloy::sol_types::SolCall;
use amanatd::api::wire::{CreatePayment, IntentView};
use amanatd::devkit::chain::DEPLOYER;
use amanatd::devkit::contracts::{self, MultiSend};
use amanatd::units::PaymentId;

use super::{SELLERS, Way};
use crate::watching::CHAIN;

const PAYMENTS: usize = 200;
const UNITS: u64 = 25_000_000;
/// So many transfers fit into one block.
const TRANSFERS_MAX: usize = 100;

/// What one way took.
#[derive(Debug)]
struct Taken {
    way: &'static str,
    confirmations: usize,
    presses: usize,
    gas: u64,
    /// Fees in wei.
    fees: U256,
    seconds: u64,
}

impl Way {
    /// Payments that are whole, and all their releases ordered; nothing is planned yet.
    async fn queue(&self, many: usize, name: &str) -> Vec<PaymentId> {
        let mut payments = Vec::with_capacity(many);
        for place in 0..many {
            let asked = CreatePayment {
                amount: "25".to_owned(),
                currency: "USDC".to_owned(),
                chain_id: CHAIN.get(),
                token: "USDC".to_owned(),
                seller_address: SELLERS[place % SELLERS.len()].to_owned(),
                ..CreatePayment::default()
            };
            payments.push(self.marketplace.create_payment(&asked, &format!("{name}-{place}")).await.unwrap());
        }
        let payer = self.chain.deploy(contracts::multi_send().bytecode).await.unwrap();
        let minted = self.chain.mint(self.usdc, payer, U256::from(UNITS) * U256::from(many)).await.unwrap();
        self.chain.mined(minted).await.unwrap();
        for page in payments.chunks(TRANSFERS_MAX) {
            let recipients: Vec<Address> = page.iter().map(|payment| payment.deposit_address).collect();
            let values = vec![U256::from(UNITS); page.len()];
            let call = MultiSend::sendCall { token: self.usdc, recipients, values };
            let data = Bytes::from(call.abi_encode());
            let request = serde_json::json!({ "from": DEPLOYER, "to": payer, "data": data, "gas": "0x800000" });
            let hash = self.chain.call("eth_sendTransaction", (request,)).await.unwrap();
            self.chain.mined(hash).await.unwrap();
        }
        // Credited, and the orders placed before the release gate opens: nothing is planned in between.
        self.chain.mine(2).await.unwrap();
        self.rounds().await;
        for payment in &payments {
            self.marketplace.release(payment.id, &format!("release-{}", payment.id)).await.unwrap();
        }
        self.deepen().await;
        payments.into_iter().map(|payment| payment.id).collect()
    }

    /// Approves, signs and stores all that is planned.
    async fn sign_all(&self, planned: &[IntentView]) {
        for intent in planned {
            self.approve(intent).await;
            let raw = self.sign(intent.id).await;
            self.submit(intent.id, &raw).await;
        }
    }

    /// Screens that the device has shown, each with its press.
    fn presses(&self) -> usize {
        self.trezor.screens().last().map_or(0, |screen| screen.number)
    }

    /// Carries the queue to its end. What left is counted from the chain's receipts.
    async fn through(&self, way: &'static str, payments: &[PaymentId]) -> Taken {
        let began = Instant::now();
        let (mut confirmations, presses_before) = (0, self.presses());
        for _ in 0..6 {
            let planned = self.intents("planned").await;
            if planned.is_empty() {
                break;
            }
            confirmations += planned.len();
            self.sign_all(&planned).await;
            self.rounds().await;
            self.chain.mine(1).await.unwrap();
            self.rounds().await;
            self.deepen().await;
        }
        for payment in payments {
            assert_eq!(self.read(*payment).await.status, "completed");
        }
        let hashes = self.api.base.sql("select string_agg('0x' || encode(tx_hash, 'hex'), ',') from outbound_transactions").unwrap();
        let (mut gas, mut fees) = (0, U256::ZERO);
        for hash in hashes.trim().split(',') {
            let receipt = self.chain.receipt(hash.parse().unwrap()).await.unwrap().unwrap();
            let number = |field: &str| U256::from_str_radix(receipt[field].as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
            gas += number("gasUsed").to::<u64>();
            fees += number("gasUsed") * number("effectiveGasPrice");
        }
        let presses = self.presses() - presses_before;
        Taken { way, confirmations, presses, gas, fees, seconds: began.elapsed().as_secs() }
    }
}

fn per_payment(number: u64) -> String {
    let hundredths = number * 100 / u64::try_from(PAYMENTS).unwrap();
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[tokio::test]
async fn s4_two_hundred_payments_each_way() {
    let mut report = Vec::new();
    for (name, path) in [("sweep, then release", "treasury"), ("direct release", "direct")] {
        let way = Way::start().await;
        way.planning("release_path", None, path).await;
        let payments = way.queue(PAYMENTS, path).await;
        let said = way.officer.plan(Some(CHAIN)).await.unwrap().remove(0);
        let taken = way.through(name, &payments).await;
        // The books are right, and every seller has all of it.
        way.assert_sound().await;
        let mut paid = U256::ZERO;
        for seller in SELLERS {
            paid += way.chain.balance_of(way.usdc, seller.parse().unwrap()).await.unwrap();
        }
        assert_eq!(paid, U256::from(UNITS) * U256::from(PAYMENTS));
        println!("{taken:?}; before: {} standing", said.standing.confirmations);
        report.push(taken);
    }
    println!("{:<22} {:>26} {:>20} {:>16} {:>9}", "way", "confirmations per payment", "presses per payment", "gas per payment", "seconds");
    for Taken { way, confirmations, presses, gas, seconds, fees } in &report {
        let number = |count: &usize| per_payment(u64::try_from(*count).unwrap());
        println!("{way:<22} {:>26} {:>20} {:>16} {seconds:>9}", number(confirmations), number(presses), gas / 200);
        assert!(!fees.is_zero());
    }
    let [swept, direct] = report.try_into().unwrap();
    assert_eq!((swept.confirmations, direct.confirmations), (3 * PAYMENTS, 2 * PAYMENTS));
    assert_eq!((swept.presses, direct.presses), (12 * PAYMENTS, 8 * PAYMENTS));
    assert!(direct.gas < swept.gas);
}
