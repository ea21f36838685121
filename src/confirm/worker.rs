//! The loop that confirms the transfers of one chain. A tick looks at one page of what may be deep
//! enough, asks the node again, and commits the verdicts that hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alloy::primitives::B256;
use time::OffsetDateTime;

use super::ConfirmError;
use super::store::{self, Due, NewVerdict, Page};
use super::verdict::{Case, Evidence, Verdict, decide};
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::payment::{self, PaymentEvent, PaymentState};
use crate::rpc::{Node, RpcError};
use crate::scan;
use crate::settings::{self, Threshold};
use crate::units::{BlockNumber, BlockRef, ChainId, PaymentId, Progress};

/// How many sightings one tick looks at.
const PAGE: i64 = 200;

/// One odd transaction must not hold the others up; a node that is away must not be asked 200 times.
const FAILURES_MAX: u32 = 3;

/// Confirms the transfers of one chain.
#[derive(Debug)]
pub struct Confirmer {
    database: Database,
    node: Arc<Node>,
    chain: ChainId,
    /// Where the next page begins, so that sightings that keep waiting never hide others.
    after: AtomicI64,
}

/// What the node said in this round, asked once per block.
#[derive(Default)]
struct Asked {
    canonical: BTreeMap<BlockNumber, Option<B256>>,
    thresholds: BTreeMap<i64, Threshold>,
}

impl Confirmer {
    pub fn new(database: Database, node: Arc<Node>, chain: ChainId) -> Self {
        Self { database, node, chain, after: AtomicI64::new(0) }
    }

    /// Decides one page. Safe to repeat at any time.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ConfirmError> {
        self.node.set_clock(now);
        let Some(cursor) = scan::store::find_cursor(&mut *self.database.connection().await?, self.chain).await? else {
            return Ok(Progress::Idle);
        };
        self.halt_on_broken(cursor.outflow_halted.is_some(), now).await?;

        let (threshold, page) = self.page(cursor.tip).await?;
        let full = i64::try_from(page.len()).unwrap_or(PAGE) >= PAGE;
        self.after.store(page.last().filter(|_| full).map_or(0, |due| due.observation), Ordering::Relaxed);
        if page.is_empty() {
            return Ok(Progress::Idle);
        }
        // A depth under a tip that the node has dropped is no depth; the scanner comes first then.
        if self.node.header_by_number(cursor.tip.number).await?.map(|header| header.block) != Some(cursor.tip) {
            return Ok(Progress::Idle);
        }
        let (verdicts, failure) = self.decide_page(&page, cursor.tip, threshold).await?;
        let stored = self.commit(cursor.tip, threshold, verdicts).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Progress::of(stored > 0 || full)),
        }
    }

    /// The threshold in force, and sightings that reach at least that.
    async fn page(&self, tip: BlockRef) -> Result<(Threshold, Vec<Due>), ConfirmError> {
        let mut connection = self.database.connection().await?;
        let threshold = settings::store::get_threshold(&mut connection, self.chain).await?;
        // The block at this height has exactly `threshold` confirmations, its own included.
        let Some(highest) = (tip.number.0 + 1).checked_sub(u64::from(threshold.value.get())) else {
            return Ok((threshold, Vec::new()));
        };
        let page = Page { after: self.after.load(Ordering::Relaxed), limit: PAGE };
        let due = store::list_due(&mut connection, self.chain, BlockNumber(highest), page).await?;
        Ok((threshold, due))
    }

    async fn decide_page(&self, page: &[Due], head: BlockRef, now: Threshold) -> Result<(Vec<NewVerdict>, Option<RpcError>), ConfirmError> {
        let mut asked = Asked::default();
        let mut verdicts = Vec::new();
        let mut failure = None;
        let mut failures = 0;
        for due in page {
            let seen = self.threshold_of(due.seen_history_id, &mut asked).await?;
            let case = Case { block: due.block, head, seen, now };
            if !case.is_deep_enough() {
                continue;
            }
            let evidence = match self.evidence(due, &mut asked).await {
                Ok(evidence) => evidence,
                Err(error) => {
                    failure.get_or_insert(error);
                    failures += 1;
                    if failures == FAILURES_MAX {
                        break;
                    }
                    continue;
                }
            };
            match decide(&case, &evidence) {
                Verdict::Confirmed { depth, threshold, seen_history_id, now_history_id } => {
                    verdicts.push(NewVerdict { due: *due, depth, threshold, seen_history_id, now_history_id });
                }
                Verdict::Waiting { .. } => {}
                Verdict::Orphaned => {
                    tracing::info!(chain.id = self.chain.get(), tx.hash = %due.tx_hash, block = %due.block, "deep enough, but the node has it no longer there");
                }
            }
        }
        Ok((verdicts, failure))
    }

    async fn evidence(&self, due: &Due, asked: &mut Asked) -> Result<Evidence, RpcError> {
        let number = due.block.number;
        let canonical = match asked.canonical.get(&number) {
            Some(known) => *known,
            None => {
                let hash = self.node.header_by_number(number).await?.map(|header| header.block.hash);
                asked.canonical.insert(number, hash);
                hash
            }
        };
        let receipt = self.node.receipt(due.tx_hash).await?;
        Ok(Evidence { canonical, receipt: receipt.map(|receipt| (receipt.succeeded, receipt.block)) })
    }

    async fn threshold_of(&self, history_id: i64, asked: &mut Asked) -> Result<Threshold, DbError> {
        if let Some(known) = asked.thresholds.get(&history_id) {
            return Ok(*known);
        }
        let threshold = settings::store::get_threshold_row(&mut *self.database.connection().await?, history_id).await?;
        asked.thresholds.insert(history_id, threshold);
        Ok(threshold)
    }

    /// Stores what was reached, unless the threshold has changed since the round read it.
    async fn commit(&self, head: BlockRef, now: Threshold, verdicts: Vec<NewVerdict>) -> Result<u64, ConfirmError> {
        if verdicts.is_empty() {
            return Ok(0);
        }
        let (chain, reached) = (self.chain, verdicts.len());
        let stored = self
            .database
            .unit::<_, DbError, _>(move |connection| {
                Box::pin(async move {
                    if settings::store::get_threshold(connection, chain).await? != now {
                        return Ok(0);
                    }
                    store::insert_verdicts(connection, chain, head, &verdicts).await
                })
            })
            .await?;
        tracing::info!(chain.id = chain.get(), %head, reached, stored, "confirmed");
        Ok(stored)
    }

    /// A reorg below a credit: nothing may leave on this chain until an officer has looked.
    async fn halt_on_broken(&self, halted: bool, now: OffsetDateTime) -> Result<(), ConfirmError> {
        if halted {
            return Ok(());
        }
        let broken = store::list_broken(&mut *self.database.connection().await?, self.chain, 1).await?;
        let Some(first) = broken.first() else { return Ok(()) };
        let chain = self.chain;
        let reason = format!("a reorg took away a confirmed transfer in {}", first.block);
        tracing::error!(chain.id = chain.get(), block = %first.block, "a reorg took away a confirmed transfer; outflow is halted");
        self.database
            .unit::<_, DbError, _>(move |connection| {
                Box::pin(async move { scan::store::halt_outflow(connection, chain, &reason, now).await })
            })
            .await?;
        Ok(())
    }
}

// === first sight ===

/// How far behind the highest observation a tick looks, for one that committed late.
const OBSERVATIONS_BACK: i64 = 1_000;

/// First sight: a payment is `processing` as soon as a transfer to its address is in the chain, and
/// `pending` again if every such transfer left it. Never a reason to deliver; only a threshold is.
#[derive(Debug)]
pub struct Sightings {
    database: Database,
    /// Everything up to here was looked at since the start.
    after: AtomicI64,
}

impl Sightings {
    pub fn new(database: Database) -> Self {
        Self { database, after: AtomicI64::new(0) }
    }

    pub async fn tick(&self) -> Result<Progress, ConfirmError> {
        let mut connection = self.database.connection().await?;
        let highest = store::get_highest_observation(&mut connection).await?;
        let seen = store::list_newly_seen(&mut connection, self.after.load(Ordering::Relaxed)).await?;
        let gone = store::list_newly_gone(&mut connection).await?;
        drop(connection);
        let progress = Progress::of(!seen.is_empty() || !gone.is_empty());
        for payment in seen {
            advance(&self.database, payment, PaymentState::Pending, PaymentEvent::TransferSeen).await?;
        }
        for payment in gone {
            advance(&self.database, payment, PaymentState::Processing, PaymentEvent::TransfersGone).await?;
        }
        self.after.store((highest - OBSERVATIONS_BACK).max(0), Ordering::Relaxed);
        Ok(progress)
    }
}

async fn advance(database: &Database, id: PaymentId, from: PaymentState, event: PaymentEvent) -> Result<(), ConfirmError> {
    database
        .unit(move |connection| {
            Box::pin(async move {
                let payment = payment::store::lock(connection, id).await?;
                // The ledger may have been faster.
                if payment.state != from {
                    return Ok(());
                }
                let payment = payment::store::advance(connection, &payment, event).await?;
                let kind = if payment.state == PaymentState::Processing { "payment.processing" } else { "payment.pending" };
                event::store::append(connection, &Event::of_payment(kind, id, serde_json::json!({}))).await?;
                tracing::info!(payment.id = %id, "{kind}");
                Ok(())
            })
        })
        .await
}
