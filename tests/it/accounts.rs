//! Accounts and the addresses below them: issued once, watched from then on, rebuilt from public keys.

use alloy::primitives::{Address, B256, U256};
use amanatd::db::DbError;
use amanatd::scan::store::NewBlock;
use amanatd::scan::tip::Link;
use amanatd::scan::{self, Position, Transfer};
use amanatd::settings;
use amanatd::units::{Asset, BlockNumber, BlockRef};

use crate::watching::{CHAIN, NOW, Watching};

/// What the scanner would store of a transfer to somebody, in a block of its own.
async fn observe(watching: &Watching, number: u64, recipient: Address) -> Result<(), DbError> {
    let block = BlockRef { number: BlockNumber(number), hash: B256::left_padding_from(&number.to_be_bytes()) };
    let transfer = Transfer {
        tx_hash: B256::repeat_byte(7),
        position: Position::TOP,
        asset: Asset::Native,
        sender: Address::repeat_byte(0x55),
        recipient,
        amount: U256::ONE,
        internal: false,
    };
    let outcome = watching.database.unit::<_, DbError, _>(move |connection| {
        Box::pin(async move {
            let threshold = settings::store::get_threshold(connection, CHAIN).await?;
            let stored = NewBlock { link: Link { block, parent_hash: B256::ZERO }, time: NOW, internal_read: true };
            scan::store::insert_blocks(connection, CHAIN, &[stored], threshold.history_id).await?;
            scan::store::insert_observations(connection, CHAIN, &[(block, transfer)]).await
        })
    });
    outcome.await
}

#[tokio::test]
async fn w9_an_observation_without_an_address_row_gives_the_round_up() {
    let watching = Watching::over(&["http://127.0.0.1:9"]).await;
    let ours = watching.issue().await;
    observe(&watching, 1, ours.address).await.unwrap();
    assert_eq!(watching.base.sql("select derived_address_id from transfer_observations").unwrap().trim(), ours.id.to_string());

    let refused = observe(&watching, 2, Address::repeat_byte(0x77)).await.unwrap_err();
    assert!(matches!(refused, DbError::NotOneRow { found: 0, .. }), "{refused:?}");
    assert_eq!(watching.rows(), "1|1|0|0|0", "nothing of the round is stored");
}
