//! Sends stored bytes and follows them into a block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy::primitives::{Address, U256};
use time::{Duration, OffsetDateTime};

use super::{BroadcastError, Inclusion, Outbound, store};
use crate::confirm;
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::intent::{self, IntentEvent, IntentState};
use crate::rpc::{Node, Receipt, SendOutcome};
use crate::scan;
use crate::units::{ChainId, Outcomes, Progress};

/// How many open transactions one tick looks at.
const TRANSACTIONS_PER_TICK: i64 = 1_000;
/// Bytes that are in no block are sent again after this long: nodes forget.
const RESEND_AFTER: Duration = Duration::seconds(15);
/// A node that says "nonce used" may have mined ours and not show it yet. Only after this many earlier
/// sends, half a minute, with the transaction still unknown, was it somebody else. Planning from that
/// address stops at once, by the nonce.
const FOREIGN_AFTER_ATTEMPTS: u32 = 2;

/// The one sender of a chain.
#[derive(Debug)]
pub struct Broadcaster {
    pub db: Database,
    pub node: Arc<Node>,
}

impl Broadcaster {
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, BroadcastError> {
        let chain = self.node.chain();
        let mut connection = self.db.connection().await?;
        let open = store::list_open(&mut connection, chain, TRANSACTIONS_PER_TICK).await?;
        let halted = confirm::store::find_halt(&mut connection, chain).await?.is_some();
        drop(connection);
        let senders = leaders(&open);
        let mut outcomes = Outcomes::new();
        for outbound in open {
            let what = format!("tx {} of intent {}", outbound.tx_hash, outbound.intent);
            let send = if senders.contains(&outbound.id) { Send::IfDue { halted } } else { Send::Never };
            let followed = self.follow(outbound, send, now).await;
            let followed = followed.map_err(|source| BroadcastError::Item { what, source: Box::new(source) });
            if !outcomes.note(followed, BroadcastError::disposition) {
                break;
            }
        }
        self.watch_settled(now).await?;
        outcomes.finish()
    }

    /// A settled transaction that a reorg took away is the worst news there is: the books say that it
    /// happened. Nothing more leaves, and the same bytes are sent again, which mends most such cases.
    async fn watch_settled(&self, now: OffsetDateTime) -> Result<(), BroadcastError> {
        let chain = self.node.chain();
        let mut connection = self.db.connection().await?;
        let gone = store::list_settled_orphaned(&mut connection, chain, TRANSACTIONS_PER_TICK).await?;
        drop(connection);
        for outbound in gone {
            // In another block it is the settler's again.
            if self.node.receipt(outbound.tx_hash).await?.is_none() {
                self.settled_is_gone(outbound, now).await?;
            }
        }
        Ok(())
    }

    async fn settled_is_gone(&self, outbound: Outbound, now: OffsetDateTime) -> Result<(), BroadcastError> {
        let reason = format!("settled tx {} of intent {} was reorged away", outbound.tx_hash, outbound.intent);
        let (chain, id) = (outbound.chain, outbound.id);
        let due = outbound.last_sent_at.is_none_or(|last| now - last >= RESEND_AFTER);
        // The halt stands at once; only the bytes wait until they are due again.
        let halted = self
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    let halted = scan::store::halt_outflow(connection, chain, &reason, now).await?;
                    if due {
                        store::note_attempt(connection, id, now).await?;
                    }
                    Ok::<bool, BroadcastError>(halted)
                })
            })
            .await?;
        if halted {
            tracing::error!(
                chain.id = chain.get(), intent.id = %outbound.intent, tx.hash = %outbound.tx_hash,
                "a settled transaction was reorged away; outflow halted, the same bytes are sent again"
            );
        }
        if !due {
            return Ok(());
        }
        let outcome = self.node.send_raw(&outbound.raw).await;
        tracing::info!(tx.hash = %outbound.tx_hash, outcome = ?outcome, "signed bytes sent again");
        Ok(())
    }

    async fn follow(&self, outbound: Outbound, send: Send, now: OffsetDateTime) -> Result<Progress, BroadcastError> {
        if let Some(receipt) = self.node.receipt(outbound.tx_hash).await? {
            return self.included(outbound, &receipt).await;
        }
        if outbound.included.is_some() {
            self.dropped(&outbound).await?;
            return Ok(Progress::Worked);
        }
        let Send::IfDue { halted } = send else { return Ok(Progress::Idle) };
        // What was never sent stays here while outflow is halted, or money behind it is only credited or held;
        // what was sent may be repeated.
        let first = outbound.send_attempts == 0;
        let due = outbound.last_sent_at.is_none_or(|last| now - last >= RESEND_AFTER);
        if (first && (halted || !self.is_released(&outbound).await?)) || !due {
            return Ok(Progress::Idle);
        }
        if first && !self.may_begin(&outbound, now).await? {
            return Ok(Progress::Idle);
        }
        if !first {
            self.note_attempt(outbound.id, now).await?;
        }
        self.send(outbound, now).await?;
        Ok(Progress::Worked)
    }

    /// Notes the first attempt, unless the money is held. A standing that changes at the same time waits for
    /// this, or this sees it.
    async fn may_begin(&self, outbound: &Outbound, now: OffsetDateTime) -> Result<bool, BroadcastError> {
        let (id, intent_id) = (outbound.id, outbound.intent);
        let hold = self
            .db
            .unit::<_, BroadcastError, _>(move |connection| {
                Box::pin(async move {
                    let intent = intent::store::get(connection, intent_id).await?;
                    let hold = intent::store::find_hold(connection, &intent).await?;
                    if hold.is_none() {
                        store::note_attempt(connection, id, now).await?;
                    }
                    Ok(hold)
                })
            })
            .await?;
        if let Some(hold) = hold {
            tracing::debug!(intent.id = %intent_id, chain.id = outbound.chain.get(), tx.hash = %outbound.tx_hash, %hold, "signed and held; it is not sent");
        }
        Ok(hold.is_none())
    }

    async fn note_attempt(&self, id: i64, now: OffsetDateTime) -> Result<(), BroadcastError> {
        Ok(self.db.unit::<_, DbError, _>(move |connection| Box::pin(async move { store::note_attempt(connection, id, now).await })).await?)
    }

    async fn is_released(&self, outbound: &Outbound) -> Result<bool, BroadcastError> {
        let mut connection = self.db.connection().await?;
        let intent = intent::store::get(&mut connection, outbound.intent).await?;
        let released = intent::store::is_released(&mut connection, &intent).await?;
        if !released {
            tracing::debug!(
                intent.id = %outbound.intent, chain.id = outbound.chain.get(), tx.hash = %outbound.tx_hash,
                "money behind a signed transaction is only credited; it is not sent yet"
            );
        }
        Ok(released)
    }

    async fn send(&self, outbound: Outbound, now: OffsetDateTime) -> Result<(), BroadcastError> {
        let outcome = self.node.send_raw(&outbound.raw).await;
        tracing::info!(
            intent.id = %outbound.intent, chain.id = outbound.chain.get(), tx.hash = %outbound.tx_hash, nonce = outbound.nonce,
            outcome = ?outcome, "signed bytes sent"
        );
        let event = match &outcome {
            SendOutcome::Accepted | SendOutcome::AlreadyKnown => Some(IntentEvent::Accepted),
            SendOutcome::Unclear(_) | SendOutcome::NonceUsed => Some(IntentEvent::SendUnclear),
            // Refused for now and certainly not out; the same bytes are tried again.
            SendOutcome::Conflict | SendOutcome::Ahead | SendOutcome::CannotPay => None,
        };
        self.record(&outbound, outcome_name(&outcome), event).await?;
        if outcome == SendOutcome::NonceUsed && outbound.send_attempts >= FOREIGN_AFTER_ATTEMPTS {
            return self.suspect_foreign(&outbound, now).await;
        }
        Ok(())
    }

    /// Our nonce is used, and for half a minute nobody knows our transaction: then somebody else has the key.
    async fn suspect_foreign(&self, outbound: &Outbound, now: OffsetDateTime) -> Result<(), BroadcastError> {
        // Any hash ever signed at the nonce may be the one that used it.
        let mut connection = self.db.connection().await?;
        let intent = intent::store::get(&mut connection, outbound.intent).await?;
        let at_nonce = store::list_at_nonce(&mut connection, &intent).await?;
        drop(connection);
        let mut ours = false;
        for sent in at_nonce {
            ours = ours || self.node.receipt(sent.tx_hash).await?.is_some() || self.node.transaction_known(sent.tx_hash).await?;
        }
        if ours || self.node.nonce_latest(outbound.from).await? <= outbound.nonce {
            return Ok(());
        }
        let reason = format!("nonce {} of {} was used by a transaction that is not ours", outbound.nonce, outbound.from);
        let chain = outbound.chain;
        self.db.unit(move |connection| Box::pin(async move { scan::store::halt_outflow(connection, chain, &reason, now).await })).await?;
        Err(BroadcastError::ForeignNonce { chain, address: outbound.from, nonce: outbound.nonce })
    }

    async fn record(&self, outbound: &Outbound, outcome: &'static str, event: Option<IntentEvent>) -> Result<(), BroadcastError> {
        let (id, intent_id) = (outbound.id, outbound.intent);
        let tx_hash = outbound.tx_hash;
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    store::note_outcome(connection, id, outcome).await?;
                    let Some(event) = event else { return Ok(()) };
                    let intent = intent::store::lock(connection, intent_id).await?;
                    let before = intent.state;
                    // While officers and device are at higher fees, what was signed before is still sent, and moves nothing.
                    if !matches!(before, IntentState::Signed | IntentState::Broadcast | IntentState::Uncertain) {
                        return Ok(());
                    }
                    let intent = intent::store::advance(connection, &intent, event).await?;
                    if intent.state != before {
                        let detail = serde_json::json!({ "tx_hash": tx_hash, "outcome": outcome });
                        let kind = if intent.state == IntentState::Broadcast { "intent.broadcast" } else { "intent.uncertain" };
                        event::store::append(connection, &Event::of_intent(kind, intent.id, intent.payment, intent.chain(), detail))
                            .await?;
                    }
                    Ok::<(), BroadcastError>(())
                })
            })
            .await
    }

    async fn included(&self, outbound: Outbound, receipt: &Receipt) -> Result<Progress, BroadcastError> {
        let inclusion = inclusion_of(receipt).ok_or(BroadcastError::NoGasPrice { tx_hash: outbound.tx_hash })?;
        if outbound.included == Some(inclusion) {
            return Ok(Progress::Idle);
        }
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    store::set_inclusion(connection, outbound.id, Some(inclusion)).await?;
                    let intent = intent::store::lock(connection, outbound.intent).await?;
                    let intent = intent::store::advance(connection, &intent, IntentEvent::Included).await?;
                    let detail = serde_json::json!({
                        "tx_hash": outbound.tx_hash, "block": inclusion.block.number.0, "succeeded": inclusion.succeeded,
                    });
                    let event = Event::of_intent("intent.mined", intent.id, intent.payment, intent.chain(), detail);
                    event::store::append(connection, &event).await?;
                    Ok::<(), BroadcastError>(())
                })
            })
            .await?;
        Ok(Progress::Worked)
    }

    async fn dropped(&self, outbound: &Outbound) -> Result<(), BroadcastError> {
        let (id, intent_id, tx_hash) = (outbound.id, outbound.intent, outbound.tx_hash);
        let gone = outbound.clone();
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    store::set_inclusion(connection, id, None).await?;
                    let intent = intent::store::lock(connection, intent_id).await?;
                    // Another one of the intent took its place in the block that stands.
                    if intent.state != IntentState::Mined || store::has_other_included(connection, &gone).await? {
                        return Ok(());
                    }
                    let intent = intent::store::advance(connection, &intent, IntentEvent::Dropped).await?;
                    let detail = serde_json::json!({ "tx_hash": tx_hash });
                    let event = Event::of_intent("intent.dropped", intent.id, intent.payment, intent.chain(), detail);
                    event::store::append(connection, &event).await?;
                    Ok::<(), BroadcastError>(())
                })
            })
            .await
    }

    pub fn chain(&self) -> ChainId {
        self.node.chain()
    }
}

/// What may be done with bytes that are in no block.
#[derive(Clone, Copy, Debug)]
enum Send {
    IfDue {
        halted: bool,
    },
    /// Others of the nonce go before it, or are in a block.
    Never,
}

/// Of each nonce the one that is sent: a cancel before what it cancels, then the newest; none once any of them
/// is in a block. Two at a time would only displace each other.
fn leaders(open: &[Outbound]) -> BTreeSet<i64> {
    let mut leaders: BTreeMap<(Address, u64), &Outbound> = BTreeMap::new();
    for outbound in open {
        let leader = leaders.entry((outbound.from, outbound.nonce)).or_insert(outbound);
        let rank = |outbound: &Outbound| (outbound.included.is_some(), outbound.is_cancel, outbound.id);
        if rank(outbound) > rank(leader) {
            *leader = outbound;
        }
    }
    leaders.into_values().map(|leader| leader.id).collect()
}

/// What a receipt says that a settlement needs; `None` where it does not say what gas cost, which is not
/// the same as nothing.
pub fn inclusion_of(receipt: &Receipt) -> Option<Inclusion> {
    let gas = U256::from(receipt.gas_used).saturating_mul(U256::from(receipt.effective_gas_price?));
    let fee_paid = gas.saturating_add(receipt.l1_fee.unwrap_or_default());
    Some(Inclusion { block: receipt.block, succeeded: receipt.succeeded, fee_paid })
}

const fn outcome_name(outcome: &SendOutcome) -> &'static str {
    match outcome {
        SendOutcome::Accepted => "accepted",
        SendOutcome::AlreadyKnown => "already known",
        SendOutcome::NonceUsed => "nonce used",
        SendOutcome::Conflict => "another transaction holds the nonce",
        SendOutcome::Ahead => "a lower nonce is missing",
        SendOutcome::CannotPay => "insufficient funds",
        SendOutcome::Unclear(_) => "unclear",
    }
}
