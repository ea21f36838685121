//! Settles mined transactions of one chain once they are as deep as a deposit has to be.

use std::sync::Arc;

use alloy::primitives::B256;
use sqlx::PgConnection;

use super::{SettleError, entries, store};
use crate::broadcast::{self, BroadcastError, Inclusion, Outbound};
use crate::chains::ChainSpec;
use crate::db::Database;
use crate::deposit::{self, DestinationStatus};
use crate::escrow::{self, Payout};
use crate::event::{self, Event};
use crate::intent::{self, Intent, IntentError, IntentEvent, IntentKind};
use crate::ledger;
use crate::payment::{self, ExceptionKind, Payment};
use crate::rpc::{Log, Node};
use crate::units::{Asset, AssetId, BlockNumber, Confirmations, Outcomes, Progress, depth_of};
use crate::{scan, settings};

alloy::sol! {
    event Transfer(address indexed from, address indexed to, uint256 value);
}

const TRANSACTIONS_PER_TICK: i64 = 1_000;

/// The settler of one chain.
#[derive(Debug)]
pub struct Settler {
    pub db: Database,
    pub node: Arc<Node>,
    pub chain: Arc<ChainSpec>,
}

impl Settler {
    pub async fn tick(&self) -> Result<Progress, SettleError> {
        let mut connection = self.db.connection().await?;
        let open = broadcast::store::list_open(&mut connection, self.chain.id, TRANSACTIONS_PER_TICK).await?;
        let Some(cursor) = scan::store::find_cursor(&mut connection, self.chain.id).await? else { return Ok(Progress::Idle) };
        let threshold = settings::store::get_threshold(&mut connection, self.chain.id).await?;
        let mut outcomes = Outcomes::new();
        for outbound in open {
            let Some(inclusion) = outbound.included else { continue };
            let deep = depth_of(inclusion.block.number, cursor.tip.number).is_some_and(|depth| threshold.value.reached_by(depth));
            if !deep {
                continue;
            }
            let canonical = scan::store::find_canonical(&mut connection, self.chain.id, inclusion.block.number).await?;
            // Blocks from before our first are not stored; the receipt is read again in any case.
            if canonical.is_some_and(|hash| hash != inclusion.block.hash) {
                continue;
            }
            let what = format!("tx {} of intent {}", outbound.tx_hash, outbound.intent);
            let settled = self.settle(outbound, inclusion).await.map_err(|source| SettleError::Item { what, source: Box::new(source) });
            if !outcomes.note(settled, SettleError::disposition) {
                break;
            }
        }
        for moved in broadcast::store::list_settled_orphaned(&mut connection, self.chain.id, TRANSACTIONS_PER_TICK).await? {
            let what = format!("tx {} of intent {}", moved.tx_hash, moved.intent);
            let settled = self.settle_again(moved, cursor.tip.number, threshold.value).await;
            if !outcomes.note(settled.map_err(|source| SettleError::Item { what, source: Box::new(source) }), SettleError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }

    /// A settled transaction that a reorg moved to another block: what it moved is in the books and
    /// stands; its gas may have cost something else. Anything else is not mended here.
    async fn settle_again(&self, outbound: Outbound, head: BlockNumber, threshold: Confirmations) -> Result<Progress, SettleError> {
        let Some(receipt) = self.node.receipt(outbound.tx_hash).await? else { return Ok(Progress::Idle) };
        let Some(before) = outbound.included else { return Ok(Progress::Idle) };
        let now = broadcast::inclusion_of(&receipt).ok_or(BroadcastError::NoGasPrice { tx_hash: outbound.tx_hash })?;
        if !depth_of(now.block.number, head).is_some_and(|depth| threshold.reached_by(depth)) {
            return Ok(Progress::Idle);
        }
        let mut connection = self.db.connection().await?;
        let intent = intent::store::get(&mut connection, outbound.intent).await?;
        drop(connection);
        if now.succeeded != before.succeeded || (now.succeeded && !moved_exactly(&intent, &receipt.logs)) {
            return Err(SettleError::OtherEffect { intent: intent.id, tx_hash: outbound.tx_hash });
        }
        let fee = entries::network_fee(&intent, self.chain.native_asset(), self.chain.native.decimals, now.fee_paid, outbound.id);
        tracing::warn!(intent.id = %intent.id, tx.hash = %outbound.tx_hash, block = %now.block, "a settled transaction is in another block after a reorg");
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    if now.fee_paid != before.fee_paid {
                        rebook_fee(connection, (outbound.id, outbound.tx_hash), before.block.hash, now.block.hash, fee).await?;
                    }
                    broadcast::store::move_settled(connection, outbound.id, now).await?;
                    Ok::<Progress, SettleError>(Progress::Worked)
                })
            })
            .await
    }

    async fn settle(&self, outbound: Outbound, inclusion: Inclusion) -> Result<Progress, SettleError> {
        let intent = {
            let mut connection = self.db.connection().await?;
            intent::store::get(&mut connection, outbound.intent).await?
        };
        // Read again in this round: what is settled is what the chain says now.
        let Some(receipt) = self.node.receipt(outbound.tx_hash).await? else { return Ok(Progress::Idle) };
        if receipt.block != inclusion.block || receipt.succeeded != inclusion.succeeded {
            return Ok(Progress::Idle);
        }
        if receipt.succeeded && !moved_exactly(&intent, &receipt.logs) {
            return Err(SettleError::OtherEffect { intent: intent.id, tx_hash: outbound.tx_hash });
        }
        let asset = intent.amount.asset;
        let decimals = self.decimals(asset).ok_or(SettleError::UnlistedAsset(asset))?;
        let native = self.chain.native_asset();
        let fee = entries::network_fee(&intent, native, self.chain.native.decimals, inclusion.fee_paid, outbound.id);
        let movement = inclusion.succeeded.then(|| entries::movement(&intent, decimals, (outbound.id, outbound.tx_hash))).flatten();
        let posting: Vec<ledger::Entry> = movement.into_iter().chain(fee).collect();
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    let payout = lock_payout(connection, &intent).await?;
                    lock_payouts_of_rivals(connection, &intent).await?;
                    ledger::store::append(connection, &posting).await?;
                    broadcast::store::set_settled(connection, outbound.id).await?;
                    if inclusion.succeeded {
                        finish(connection, &intent, payout, outbound.tx_hash).await?;
                    } else {
                        give_back(connection, &intent, payout, outbound.tx_hash).await?;
                    }
                    end_rivals(connection, &intent, &outbound).await
                })
            })
            .await?;
        Ok(Progress::Worked)
    }

    fn decimals(&self, asset: AssetId) -> Option<u8> {
        match asset.asset {
            Asset::Native => Some(self.chain.native.decimals),
            Asset::Token(contract) => self.chain.tokens.iter().find(|token| token.contract == contract).map(|token| token.decimals),
        }
    }
}

/// Reverses the fee booked for the block that is gone and books the one of the block that stands.
async fn rebook_fee(
    connection: &mut PgConnection,
    (outbound, tx_hash): (i64, B256),
    gone: B256,
    stands: B256,
    fee: Option<ledger::Entry>,
) -> Result<(), SettleError> {
    let key_in = |block: B256| format!("{}:{block}", entries::fee_key(outbound));
    // The last two are those of transactions that settled while keys had their hash.
    let keys = [key_in(gone), entries::fee_key(outbound), format!("tx:{tx_hash}:fee:{gone}"), format!("tx:{tx_hash}:fee")];
    let mut booked = None;
    for key in keys {
        if booked.is_none() {
            booked = ledger::store::find(connection, &key).await?;
        }
    }
    let mut posting = Vec::new();
    if let Some(booked) = booked {
        posting.push(ledger::posting::reversal(&booked, "gas cost something else in the block that stands"));
    }
    posting.extend(fee.map(|fee| ledger::Entry { key: key_in(stands), ..fee }));
    ledger::store::append(connection, &posting).await?;
    Ok(())
}

/// Whether the receipt's logs show exactly the approved transfer: one of the token, from, to and amount
/// as approved. A native transfer leaves no log; its value is part of the signed bytes.
fn moved_exactly(intent: &Intent, logs: &[Log]) -> bool {
    use alloy::sol_types::SolEvent;
    let Asset::Token(contract) = intent.amount.asset.asset else { return true };
    let mut transfers = logs.iter().filter(|log| log.address == contract && log.topics.first() == Some(&Transfer::SIGNATURE_HASH));
    let Some(only) = transfers.next() else { return false };
    let exact = only.topics.len() == 3
        && only.topics[1] == intent.from.address.into_word()
        && only.topics[2] == intent.to.into_word()
        && only.data.as_ref() == intent.amount.units.to_be_bytes::<32>();
    exact && transfers.next().is_none()
}

/// The order that an intent pays, and its payment, locked before anything else is.
async fn lock_payout(connection: &mut PgConnection, intent: &Intent) -> Result<Option<(Payment, Payout)>, SettleError> {
    match intent.kind {
        IntentKind::Release | IntentKind::Refund => {
            let payout = escrow::store::find_payout_of(connection, intent.id).await?.ok_or(IntentError::NoPayout(intent.id))?;
            let payment = payment::store::lock(connection, payout.payment).await?;
            Ok(Some((payment, payout)))
        }
        IntentKind::Sweep | IntentKind::Fuel | IntentKind::Cancel => Ok(None),
    }
}

/// The payments whose orders go back once this intent has settled: locked before any intent is.
async fn lock_payouts_of_rivals(connection: &mut PgConnection, intent: &Intent) -> Result<(), SettleError> {
    for id in intent::store::list_rivals(connection, intent).await? {
        let rival = intent::store::get(connection, id).await?;
        lock_payout(connection, &rival).await?;
    }
    Ok(())
}

/// The outflow took effect: destination, payment and intent reach their ends.
async fn finish(
    connection: &mut PgConnection,
    intent: &Intent,
    payout: Option<(Payment, Payout)>,
    tx_hash: B256,
) -> Result<(), SettleError> {
    let locked = intent::store::lock(connection, intent.id).await?;
    intent::store::advance(connection, &locked, IntentEvent::Settled).await?;
    match intent.kind {
        IntentKind::Sweep => {
            if let Some(destination) = intent.destination {
                store::insert_sweep(connection, destination, intent, tx_hash).await?;
                deposit::store::advance(connection, destination, DestinationStatus::Sweeping, DestinationStatus::Swept).await?;
            }
        }
        IntentKind::Release | IntentKind::Refund => {
            if let Some((payment, payout)) = payout {
                let payment = escrow::settled(connection, &payment, &payout, &format!("tx:{tx_hash}")).await?;
                close_emptied(connection, &payment, intent).await?;
            }
        }
        IntentKind::Fuel | IntentKind::Cancel => {}
    }
    note(connection, intent, "intent.settled", tx_hash).await
}

/// The address of a payment that is over and was paid out from there holds nothing more: it is done with, as if it
/// had been swept. What stays there, such as fees, keeps it active until it is worth a sweep.
async fn close_emptied(connection: &mut PgConnection, payment: &Payment, intent: &Intent) -> Result<(), SettleError> {
    if payment.state.is_in_escrow() || payment.state.is_open() {
        return Ok(());
    }
    let destination = deposit::store::get_by_payment(connection, payment.id).await?;
    if destination.status != DestinationStatus::Active || destination.address != intent.from.address {
        return Ok(());
    }
    let left = ledger::store::balance(connection, payment.due.asset, ledger::AccountKey::Custody(destination.address)).await?;
    if left.units.is_zero() {
        deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Swept).await?;
    }
    Ok(())
}

/// The chain refused the transfer: gas is gone, the money is not. What was reserved goes back, and
/// nothing is tried again before a person looked.
async fn give_back(
    connection: &mut PgConnection,
    intent: &Intent,
    payout: Option<(Payment, Payout)>,
    tx_hash: B256,
) -> Result<(), SettleError> {
    let locked = intent::store::lock(connection, intent.id).await?;
    intent::store::advance(connection, &locked, IntentEvent::Reverted).await?;
    let why = format!("{} {} reverted in tx {tx_hash}", intent.kind.name(), intent.id);
    match intent.kind {
        IntentKind::Sweep => {
            if let Some(destination) = intent.destination {
                deposit::store::advance(connection, destination, DestinationStatus::Sweeping, DestinationStatus::Quarantined).await?;
            }
        }
        IntentKind::Fuel => {
            if let Some(destination) = intent.destination {
                deposit::store::quarantine(connection, destination).await?;
            }
        }
        IntentKind::Release | IntentKind::Refund => {
            if let Some((payment, payout)) = payout {
                escrow::withdraw(connection, &payment, &payout, &why).await?;
            }
        }
        IntentKind::Cancel => {}
    }
    if let Some(payment) = intent.payment {
        payment::store::open_exception(connection, payment, ExceptionKind::Held, &why).await?;
    }
    tracing::error!(intent.id = %intent.id, chain.id = intent.chain().get(), tx.hash = %tx_hash, "outflow reverted on the chain");
    note(connection, intent, "intent.reverted", tx_hash).await
}

/// The nonce is used for good. Whatever else was signed for it can never be mined, and the intents behind that
/// give back what they reserved: a cancel that lost, or what a cancel took the nonce of.
async fn end_rivals(connection: &mut PgConnection, settled: &Intent, outbound: &Outbound) -> Result<(), SettleError> {
    broadcast::store::set_settled_with(connection, outbound).await?;
    for id in intent::store::list_rivals(connection, settled).await? {
        let rival = intent::store::lock(connection, id).await?;
        let rival = intent::store::advance(connection, &rival, IntentEvent::Outrun).await?;
        let why = format!("{} {id} was replaced by {} {}", rival.kind.name(), settled.kind.name(), settled.id);
        intent::give_back(connection, &rival, &why).await?;
        let detail =
            serde_json::json!({ "kind": rival.kind.name(), "by": settled.id, "by_kind": settled.kind.name(), "tx_hash": outbound.tx_hash });
        event::store::append(connection, &Event::of_intent("intent.replaced", id, rival.payment, rival.chain(), detail)).await?;
        tracing::warn!(intent.id = %id, chain.id = rival.chain().get(), tx.hash = %outbound.tx_hash, "{why}");
    }
    Ok(())
}

async fn note(connection: &mut PgConnection, intent: &Intent, kind: &'static str, tx_hash: B256) -> Result<(), SettleError> {
    let detail = serde_json::json!({ "tx_hash": tx_hash, "kind": intent.kind.name() });
    event::store::append(connection, &Event::of_intent(kind, intent.id, intent.payment, intent.chain(), detail)).await?;
    tracing::info!(intent.id = %intent.id, chain.id = intent.chain().get(), tx.hash = %tx_hash, "{kind}");
    Ok(())
}
