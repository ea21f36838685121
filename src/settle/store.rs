//! SQL of `derived_destination_sweeps`.

use alloy::primitives::B256;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::db::DbError;
use crate::db::codec::units_to_sql;
use crate::intent::Intent;

/// Records a settled sweep.
pub async fn insert_sweep(connection: &mut PgConnection, destination: Uuid, intent: &Intent, tx_hash: B256) -> Result<(), DbError> {
    let asset = intent.amount.asset.asset.marker();
    sqlx::query!(
        "insert into derived_destination_sweeps (destination_id, intent_id, chain_id, tx_hash, asset, amount_units)
         values ($1, $2, $3::bigint, $4::bytea, $5::bytea, $6::text::numeric)",
        destination,
        intent.id.0,
        intent.chain().as_i64(),
        tx_hash.as_slice(),
        asset.as_slice(),
        units_to_sql(intent.amount.units)
    )
    .execute(connection)
    .await?;
    Ok(())
}
