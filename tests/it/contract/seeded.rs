//! A house in which there is one of everything, so that answers have something to say.

use alloy::primitives::{Address, B256, U256};
use amanatd::api::wire::PaymentView;
use amanatd::api::{DoorLimits, Rate};
use amanatd::daemon;
use amanatd::db::DbError;
use amanatd::ledger::{self, AccountKey, Entry, EntryType, LedgerError};
use amanatd::officer::{Scope, UserRole};
use amanatd::scan;
use amanatd::scan::{Position, Transfer};
use amanatd::units::{Asset, AssetId, BlockNumber, BlockRef, IntentId, TokenAmount};
use amanatd::webhook::Courier;
use serde_json::json;

use crate::api::planned;
use crate::house::{ApiHouse, answer, loopback};
use crate::watching::CHAIN;

pub(super) struct Seeded {
    pub(super) house: ApiHouse,
    pub(super) payment: PaymentView,
    pub(super) intent: IntentId,
    pub(super) webhook: String,
}

impl Seeded {
    pub(super) async fn start() -> Self {
        let all = Rate { per_second: 100_000, burst: 1_000_000 };
        let limits = DoorLimits { token: all, address: all, ..DoorLimits::default() };
        let house = ApiHouse::start_with(limits, daemon::now).await;
        let guard = house.user("first", UserRole::Admin).await;
        let token = house.token(&Scope::ALL, Some(guard), 1).await;
        let body = json!({
            "amount": "100.5", "currency": "USDC", "chain_id": 31337, "token": "USDC",
            "seller_address": "0x2222222222222222222222222222222222222222",
        });
        let url = json!({ "url": "http://127.0.0.1:9/hooks", "events": ["*"] });
        let webhook = answer(house.post("/v1/webhooks", &token, "seed", url.to_string())).await.json();
        let payment = answer(house.post("/v1/payments", &token, "seed", body.to_string())).await;
        let payment: PaymentView = serde_json::from_str(&payment.body).unwrap();
        let intent = planned(&house, 1, "daemon".to_owned()).await.id;
        seen(&house, payment.deposit_address).await;
        posted(&house, &payment).await;
        let courier = Courier::new(house.db.clone(), loopback()).unwrap();
        for _ in 0..4 {
            courier.tick(daemon::now()).await.unwrap();
        }
        Self { house, payment, intent, webhook: webhook["id"].as_str().unwrap().to_owned() }
    }
}

/// A transfer in the block that counts as read.
async fn seen(house: &ApiHouse, recipient: Address) {
    let tip = BlockRef { number: BlockNumber(100), hash: B256::repeat_byte(1) };
    let transfer = Transfer {
        tx_hash: B256::repeat_byte(0xab),
        position: Position::TOP,
        asset: Asset::Native,
        sender: Address::repeat_byte(0x44),
        recipient,
        amount: U256::from(7),
        internal: false,
    };
    let stored = house.db.unit::<_, DbError, _>(move |connection| {
        Box::pin(async move { scan::store::insert_observations(connection, CHAIN, &[(tip, transfer)]).await })
    });
    stored.await.unwrap();
}

async fn posted(house: &ApiHouse, payment: &PaymentView) {
    let (id, address) = (payment.id, payment.deposit_address);
    let stored = house.db.unit::<_, LedgerError, _>(move |connection| {
        Box::pin(async move {
            let entry = Entry {
                entry_type: EntryType::PaymentDetected,
                payment: Some(id),
                amount: TokenAmount::new(AssetId { chain: CHAIN, asset: Asset::Native }, U256::from(7)),
                decimals: 18,
                debit: AccountKey::Custody(address),
                credit: AccountKey::Suspense(Some(id)),
                reverses: None,
                key: "seed".to_owned(),
                memo: "seed".to_owned(),
            };
            ledger::store::append(connection, &[entry]).await
        })
    });
    stored.await.unwrap();
}
