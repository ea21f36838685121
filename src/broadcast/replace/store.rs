//! A replacement or a cancel, asked for in one transaction. The rows are those of `intents`.

use alloy::primitives::U256;
use sqlx::PgConnection;

use super::{CANCEL_GAS, Offer, may_cancel, may_raise, most, next_fees};
use crate::broadcast::{BroadcastError, store};
use crate::intent::{self, FeeTerms, Intent, IntentError, IntentEvent, IntentKind, IntentState};
use crate::ledger::{self, AccountKey};
use crate::units::{Asset, AssetId, IntentId, TokenAmount};

/// Asks for the same intent with higher fees: a new revision, which waits for approvals. What was signed stays,
/// is watched, and may still be the one that is mined.
pub async fn raise_fees(connection: &mut PgConnection, id: IntentId, offer: Offer, by: &str) -> Result<Intent, BroadcastError> {
    let intent = intent::store::lock(connection, id).await?;
    store::refuse_when_halted(connection, intent.chain()).await?;
    may_raise(&intent, offer.asked)?;
    store::refuse_when_moot(connection, &intent).await?;
    let at_nonce = store::list_at_nonce(connection, &intent).await?;
    let fees = next_fees(&intent, &at_nonce, offer).map_err(|source| IntentError::Raise { intent: id, source })?;
    let native_units = if intent.amount.asset.asset == Asset::Native { intent.amount.units } else { U256::ZERO };
    refuse_when_poor(connection, &intent, id, most(&intent, fees, native_units)).await?;
    let revised = intent::store::revise(connection, &intent, IntentEvent::FeesRaised, Some((fees, by))).await?;
    let detail = serde_json::json!({
        "by": by, "revision": revised.revision, "digest": revised.digest, "max_fee_per_gas": fees.max_fee_per_gas.to_string(),
        "max_priority_fee_per_gas": fees.max_priority_fee_per_gas.to_string(),
    });
    store::note(connection, &revised, "intent.replacement_asked", detail).await?;
    tracing::warn!(intent.id = %id, chain.id = intent.chain().get(), by, revision = revised.revision, "higher fees were asked for");
    Ok(revised)
}

/// A cancel that was asked for.
#[derive(Clone, Debug)]
pub struct CancelAsked {
    /// Of the new intent.
    pub id: IntentId,
    pub offer: Offer,
    /// What the node wants for a transfer of nothing, if it is more than a plain transfer.
    pub gas_limit: u64,
    pub by: String,
    pub reason: String,
}

/// Plans a cancel: nothing, to itself, at the intent's nonce. It waits for as many approvals as the intent did,
/// or more if the policy says so. The intent is signed no more; if it was, either of the two may be mined.
pub async fn cancel(connection: &mut PgConnection, id: IntentId, asked: &CancelAsked) -> Result<Intent, BroadcastError> {
    let intent = intent::store::lock(connection, id).await?;
    store::refuse_when_halted(connection, intent.chain()).await?;
    may_cancel(&intent)?;
    store::refuse_when_moot(connection, &intent).await?;
    let at_nonce = store::list_at_nonce(connection, &intent).await?;
    let fees = next_fees(&intent, &at_nonce, asked.offer).map_err(|source| IntentError::Raise { intent: id, source })?;
    let fees = FeeTerms { gas_limit: asked.gas_limit.max(CANCEL_GAS), ..fees };
    let mut cancel = Intent {
        id: asked.id,
        kind: IntentKind::Cancel,
        state: IntentState::Planned,
        state_version: 1,
        revision: 1,
        to: intent.from.address,
        amount: TokenAmount::new(AssetId { chain: intent.chain(), asset: Asset::Native }, U256::ZERO),
        fees,
        destination: None,
        requested_by: asked.by.clone(),
        revised_by: None,
        signed_revision: None,
        cancels: Some(id),
        station: None,
        ..intent.clone()
    };
    let wanted = U256::from(cancel.fees.gas_limit).saturating_mul(U256::from(fees.max_fee_per_gas));
    // A cancel has less data than anything it takes the place of.
    refuse_when_poor(connection, &cancel, id, wanted).await?;
    cancel.digest = intent::digest::digest_of(&cancel);
    let cancel = intent::store::insert(connection, &cancel).await?;
    let detail = serde_json::json!({ "by": asked.by, "reason": asked.reason, "cancel": cancel.id, "digest": cancel.digest });
    store::note(connection, &intent, "intent.cancel_asked", detail).await?;
    let detail = serde_json::json!({ "kind": "cancel", "nonce": cancel.nonce, "digest": cancel.digest, "cancels": id });
    store::note(connection, &cancel, "intent.planned", detail).await?;
    tracing::warn!(intent.id = %id, chain.id = intent.chain().get(), by = %asked.by, cancel = %cancel.id, "a cancel was asked for");
    Ok(cancel)
}

async fn refuse_when_poor(connection: &mut PgConnection, intent: &Intent, of: IntentId, wanted: U256) -> Result<(), BroadcastError> {
    let native = AssetId { chain: intent.chain(), asset: Asset::Native };
    let held = ledger::store::balance(connection, native, AccountKey::Custody(intent.from.address)).await.map_err(IntentError::from)?;
    // What its data may cost on the chain below does not rise with the fees of gas, and is paid too.
    let wanted = wanted.saturating_add(intent::economy::store::get_l1_fee(connection, of).await?);
    if held.units < wanted {
        return Err(BroadcastError::CannotPay { address: intent.from.address, held: held.units, wanted });
    }
    Ok(())
}
