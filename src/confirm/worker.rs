//! The loop that passes the transfers of one chain through both gates. A tick looks at one page of what
//! waits at each, asks the node again, and commits the verdicts that hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use alloy::primitives::B256;
use time::OffsetDateTime;

use super::ConfirmError;
use super::rule::Rule;
use super::store::{self, Due, NewVerdict, Page, Round};
use super::verdict::{Bar, Evidence, Verdict, decide};
use crate::chains::{ChainSpec, Finality};
use crate::db::{Database, DbError};
use crate::event::{self, Event};
use crate::payment::{self, PaymentEvent, PaymentState};
use crate::rpc::{Node, RpcError};
use crate::scan::{self, Cursor};
use crate::settings::{self, Gate};
use crate::units::{BlockNumber, BlockRef, ChainId, PaymentId, Progress};

/// How many sightings one tick looks at, per gate.
const PAGE: i64 = 200;

/// One odd transaction must not hold the others up; a node that is away must not be asked 200 times.
const FAILURES_MAX: u32 = 3;

/// Confirms the transfers of one chain.
#[derive(Debug)]
pub struct Confirmer {
    database: Database,
    node: Arc<Node>,
    chain: ChainId,
    finality: Finality,
    /// Where the next page of each gate begins, so that sightings that keep waiting never hide others.
    credit_after: AtomicI64,
    release_after: AtomicI64,
}

/// What the node said in this round, asked once per block.
#[derive(Default)]
struct Asked {
    canonical: BTreeMap<BlockNumber, Option<B256>>,
}

impl Confirmer {
    pub fn new(database: Database, node: Arc<Node>, spec: &ChainSpec) -> Self {
        let (credit_after, release_after) = (AtomicI64::new(0), AtomicI64::new(0));
        Self { database, node, chain: spec.id, finality: spec.finality, credit_after, release_after }
    }

    /// Decides one page of each gate. Safe to repeat at any time.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ConfirmError> {
        self.node.set_clock(now);
        let Some(cursor) = scan::store::find_cursor(&mut *self.database.connection().await?, self.chain).await? else {
            return Ok(Progress::Idle);
        };
        self.halt_on_broken(cursor.outflow_halted.is_some(), now).await?;
        let credited = self.pass(Gate::Credit, &cursor, now).await?;
        // What was credited just now may be deep enough to leave, too.
        let released = self.pass(Gate::Release, &cursor, now).await?;
        Ok(credited.or(released))
    }

    async fn pass(&self, gate: Gate, cursor: &Cursor, now: OffsetDateTime) -> Result<Progress, ConfirmError> {
        let (rule, page) = self.page(gate, cursor, now).await?;
        let full = i64::try_from(page.len()).unwrap_or(PAGE) >= PAGE;
        self.after(gate).store(page.last().filter(|_| full).map_or(0, |due| due.observation), Ordering::Relaxed);
        if page.is_empty() {
            return Ok(Progress::Idle);
        }
        // A depth under a tip that the node has dropped is no depth; the scanner comes first then.
        if self.node.header_by_number(cursor.tip.number).await?.map(|header| header.block) != Some(cursor.tip) {
            return Ok(Progress::Idle);
        }
        let (verdicts, failure) = self.decide_page(&page, cursor.tip, &rule).await?;
        let stored = self.commit(cursor.tip, &rule, verdicts).await?;
        match failure {
            Some(error) => Err(error.into()),
            None => Ok(Progress::of(stored > 0 || full)),
        }
    }

    fn after(&self, gate: Gate) -> &AtomicI64 {
        match gate {
            Gate::Credit => &self.credit_after,
            Gate::Release => &self.release_after,
        }
    }

    /// What the gate asks for now, and sightings that reach at least its base.
    async fn page(&self, gate: Gate, cursor: &Cursor, now: OffsetDateTime) -> Result<(Rule, Vec<Due>), ConfirmError> {
        let mut connection = self.database.connection().await?;
        let history = settings::store::get_history(&mut connection, gate, self.chain).await?;
        let present = history.present(now);
        let bar = Bar::of(gate, self.finality, cursor.final_block);
        let rule = Rule { history, present, bar };
        let base = rule.history.base(present).ok_or_else(|| settings::store::unset(gate, self.chain))?;
        let highest = match bar {
            // The block at this height has exactly `base` confirmations, its own included.
            Bar::Depth => (cursor.tip.number.0 + 1).checked_sub(u64::from(base.value.get())).map(BlockNumber),
            // A final block that is not in our line says nothing about it. Not read yet, or on a branch that
            // the node has left: it is asked again, and until then nothing leaves.
            Bar::Final(block) => {
                let ours = scan::store::find_canonical(&mut connection, self.chain, block.number).await? == Some(block.hash);
                ours.then_some(block.number)
            }
        };
        let Some(highest) = highest else { return Ok((rule, Vec::new())) };
        let page = Page { after: self.after(gate).load(Ordering::Relaxed), limit: PAGE };
        let due = store::list_due(&mut connection, gate, self.chain, highest, page).await?;
        Ok((rule, due))
    }

    async fn decide_page(&self, page: &[Due], head: BlockRef, rule: &Rule) -> Result<(Vec<NewVerdict>, Option<RpcError>), ConfirmError> {
        let mut asked = Asked::default();
        let mut verdicts = Vec::new();
        let mut failure = None;
        let mut failures = 0;
        for due in page {
            let Some(case) = rule.case(&due.sighting, head).filter(|case| case.is_deep_enough()) else { continue };
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
                Verdict::Confirmed { depth, threshold, seen_history_id, now_history_id, final_block: _ } => {
                    verdicts.push(NewVerdict { due: *due, depth, threshold, seen_history_id, now_history_id });
                }
                Verdict::Waiting { .. } | Verdict::NotFinal { .. } => {}
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

    /// Stores what was reached, unless a threshold of the gate was changed since the round read them.
    async fn commit(&self, head: BlockRef, rule: &Rule, verdicts: Vec<NewVerdict>) -> Result<u64, ConfirmError> {
        let Some(history_head_id) = rule.history.head_id().filter(|_| !verdicts.is_empty()) else { return Ok(0) };
        let (chain, gate, reached) = (self.chain, rule.history.gate, verdicts.len());
        let round = Round { gate, chain, head, final_block: rule.bar.final_block(), judged_at: rule.present, history_head_id };
        let stored = self
            .database
            .unit::<_, DbError, _>(move |connection| {
                Box::pin(async move {
                    let history = settings::store::lock_history(connection, gate, chain).await?;
                    if history.head_id() != Some(history_head_id) {
                        return Ok(0);
                    }
                    store::insert_verdicts(connection, &round, &verdicts).await
                })
            })
            .await?;
        tracing::info!(chain.id = chain.get(), gate = gate.name(), %head, reached, stored, "confirmed");
        Ok(stored)
    }

    /// A reorg below a credit: nothing may leave on this chain until an officer has looked.
    async fn halt_on_broken(&self, halted: bool, now: OffsetDateTime) -> Result<(), ConfirmError> {
        if halted {
            return Ok(());
        }
        let broken = store::list_broken_credits(&mut *self.database.connection().await?, self.chain, 1).await?;
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
