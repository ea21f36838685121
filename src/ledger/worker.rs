//! Posts what is confirmed, many transfers in one transaction, and reverses what was reorged away.
//!
//! Pull: it lists confirmed transfers that are not in the ledger. Each is posted exactly once by its key. When
//! one of a batch cannot be posted the batch rolls back and each of its transfers gets a transaction of its
//! own, so that the one holds no other up.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::U256;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::entry::AccountKey;
use super::posting::{self, ConfirmedTransfer, Reading};
use super::{LedgerError, store};
use crate::account::{self, Purpose};
use crate::chains::ChainBook;
use crate::confirm;
use crate::confirm::store::{ConfirmedSighting, Page};
use crate::db::{Database, DbError};
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::payment::{self, ExceptionKind, Payment, PaymentError, PaymentEvent, PaymentState};
use crate::scan;
use crate::units::{Asset, BlockNumber, ChainId, Disposition, LedgerEntryId, Outcomes, PaymentId, Progress, TokenAmount, format_units};

/// How many transfers one tick posts at most.
const TRANSFERS_PER_TICK: i64 = 1_000;
/// How many of them share a transaction: enough that the commit is a small part of it, few enough that the
/// payments it locks are free again in a moment.
const TRANSFERS_PER_UNIT: usize = 200;
/// How far a start looks back behind the cursor, for a verdict that committed late.
const LOOK_BACK: i64 = 1_000;
/// Entries of a payment read at once.
const ENTRIES_PER_PAGE: i64 = 1_000;

/// Keeps the books of the chains it is ticked for.
#[derive(Debug)]
pub struct Bookkeeper {
    db: Database,
    book: Arc<ChainBook>,
    /// Chains whose recent past was looked through since the start.
    looked_back: Mutex<BTreeSet<ChainId>>,
}

impl Bookkeeper {
    pub fn new(db: Database, book: Arc<ChainBook>) -> Self {
        Self { db, book, looked_back: Mutex::default() }
    }

    pub async fn tick(&self, chain: ChainId, now: OffsetDateTime) -> Result<Progress, LedgerError> {
        // A reversal that does not fit waits for an officer, and deposits are credited meanwhile.
        let reversed = self.reverse_broken(chain, now).await;
        self.retry_unposted(chain, now).await?;
        let posted = self.post_confirmed(chain, now).await?;
        Ok(reversed?.or(posted))
    }

    async fn post_confirmed(&self, chain: ChainId, now: OffsetDateTime) -> Result<Progress, LedgerError> {
        let mut connection = self.db.connection().await?;
        let cursor = store::get_cursor(&mut connection, chain).await?;
        let fresh = !self.looked_back.lock().unwrap_or_else(PoisonError::into_inner).contains(&chain);
        let (after, limit) =
            if fresh { ((cursor - LOOK_BACK).max(0), TRANSFERS_PER_TICK + LOOK_BACK) } else { (cursor, TRANSFERS_PER_TICK) };
        let sightings = confirm::store::list_credited(&mut connection, chain, Page { after, limit }).await?;
        let keys: Vec<String> = sightings.iter().map(|sighting| posting::credit_key(sighting.verdict)).collect();
        let posted = store::list_posted_keys(&mut connection, &keys).await?;
        drop(connection);
        let due: Vec<ConfirmedSighting> =
            sightings.into_iter().zip(keys).filter(|(_, key)| !posted.contains(key)).map(|(sighting, _)| sighting).collect();
        for batch in due.chunks(TRANSFERS_PER_UNIT) {
            if batch.len() > 1 && self.post_together(batch, chain, now).await? {
                continue;
            }
            for sighting in batch {
                self.post_or_set_aside(*sighting, chain, now).await?;
            }
        }
        let progress = Progress::of(!due.is_empty());
        self.looked_back.lock().unwrap_or_else(PoisonError::into_inner).insert(chain);
        Ok(progress)
    }

    /// Posts all of them in one transaction; `false` when one of them could not be, and none is posted.
    ///
    /// An unknown commit is an error: the next tick finds by their keys what was posted.
    async fn post_together(&self, batch: &[ConfirmedSighting], chain: ChainId, now: OffsetDateTime) -> Result<bool, LedgerError> {
        let mut transfers = Vec::with_capacity(batch.len());
        for sighting in batch {
            // One that left the book is told of and set aside on its own.
            let Some(facts) = self.book.asset(sighting.amount.asset) else { return Ok(false) };
            transfers.push((*sighting, facts.decimals));
        }
        let posted = self
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    let mut last = 0;
                    for (sighting, decimals) in &transfers {
                        post_one(connection, sighting, *decimals).await?;
                        store::close_unposted(connection, sighting.verdict, now).await?;
                        last = last.max(sighting.verdict);
                    }
                    store::advance_cursor(connection, chain, last).await?;
                    Ok::<(), LedgerError>(())
                })
            })
            .await;
        match posted {
            Ok(()) => Ok(true),
            Err(error @ LedgerError::Db(DbError::Connect(_) | DbError::CommitUnknown(_))) => Err(error),
            Err(error) => {
                tracing::debug!(chain.id = chain.get(), transfers = batch.len(), %error, "a batch is posted one by one");
                Ok(false)
            }
        }
    }

    /// A transfer that cannot be posted is set aside, so that it holds no other up; only trouble with
    /// the database stops the tick.
    async fn post_or_set_aside(&self, sighting: ConfirmedSighting, chain: ChainId, now: OffsetDateTime) -> Result<(), LedgerError> {
        let error = match self.post(sighting, chain, now).await {
            Ok(()) => return Ok(()),
            Err(error) if error.disposition() == Disposition::Retry => return Err(error),
            Err(error) => error,
        };
        tracing::error!(
            chain.id = chain.get(), tx.hash = %sighting.tx_hash, error = &error as &dyn std::error::Error,
            "a confirmed transfer could not be posted; it is set aside and tried again"
        );
        let reason = error.to_string();
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    store::set_aside(connection, chain, sighting.verdict, &reason).await?;
                    store::advance_cursor(connection, chain, sighting.verdict).await
                })
            })
            .await?;
        Ok(())
    }

    async fn retry_unposted(&self, chain: ChainId, now: OffsetDateTime) -> Result<(), LedgerError> {
        let mut connection = self.db.connection().await?;
        let waiting = store::list_unposted(&mut connection, chain, TRANSFERS_PER_TICK).await?;
        let mut sightings = Vec::with_capacity(waiting.len());
        for verdict in waiting {
            let page = Page { after: verdict - 1, limit: 1 };
            sightings.extend(
                confirm::store::list_credited(&mut connection, chain, page).await?.into_iter().filter(|found| found.verdict == verdict),
            );
        }
        drop(connection);
        for sighting in sightings {
            match self.post(sighting, chain, now).await {
                Err(error) if error.disposition() == Disposition::Retry => return Err(error),
                // Posted; or still waiting, of which was told when it was set aside.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    async fn post(&self, sighting: ConfirmedSighting, chain: ChainId, now: OffsetDateTime) -> Result<(), LedgerError> {
        let asset = sighting.amount.asset;
        let decimals = self.book.asset(asset).ok_or(LedgerError::UnlistedAsset(asset))?.decimals;
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    post_one(connection, &sighting, decimals).await?;
                    store::close_unposted(connection, sighting.verdict, now).await?;
                    store::advance_cursor(connection, chain, sighting.verdict).await?;
                    Ok(())
                })
            })
            .await
    }

    /// Each reversal also halts outflow, in the same transaction: `confirm` does so too, but it runs apart.
    async fn reverse_broken(&self, chain: ChainId, now: OffsetDateTime) -> Result<Progress, LedgerError> {
        let mut connection = self.db.connection().await?;
        let broken = confirm::store::list_broken_credits(&mut connection, chain, TRANSFERS_PER_TICK).await?;
        let mut sightings = Vec::with_capacity(broken.len());
        for verdict in &broken {
            let page = Page { after: verdict.verdict - 1, limit: 1 };
            sightings.extend(confirm::store::list_credited(&mut connection, chain, page).await?);
        }
        drop(connection);
        let mut outcomes = Outcomes::new();
        for sighting in sightings {
            tracing::error!(chain.id = chain.get(), tx.hash = %sighting.tx_hash, "a credited transfer left the chain; its credit is reversed");
            let reversed = self.db.unit(move |connection| Box::pin(async move { reverse_one(connection, &sighting, now).await })).await;
            if !outcomes.note(reversed.map(|()| Progress::Worked), LedgerError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }
}

fn confirmed(verdict: &ConfirmedSighting, decimals: u8) -> ConfirmedTransfer {
    ConfirmedTransfer {
        verdict_id: verdict.verdict,
        amount: verdict.amount,
        decimals,
        recipient: verdict.recipient,
        tx_hash: verdict.tx_hash,
        block: verdict.block.number,
        block_time: verdict.block_time,
    }
}

async fn post_one(connection: &mut PgConnection, verdict: &ConfirmedSighting, decimals: u8) -> Result<(), LedgerError> {
    if !confirm::store::is_credit_standing(connection, verdict.verdict).await? {
        return Err(LedgerError::NotStanding { verdict: verdict.verdict });
    }
    let transfer = confirmed(verdict, decimals);
    let Some(destination) = deposit::store::find_by_derived_address(connection, verdict.derived_address).await? else {
        let address = account::store::get_address(connection, verdict.derived_address).await?;
        let own_coin = transfer.amount.asset.asset == Asset::Native && address.purpose != Purpose::Deposit;
        let entry = if own_coin { posting::operator_float(&transfer) } else { posting::unidentified(&transfer) };
        return store::append(connection, &[entry]).await;
    };
    credit(connection, destination.payment, destination.birth_block, &transfer).await
}

/// Credits a confirmed transfer to the payment whose address it reached: towards what is due, or to
/// suspense until a person decides.
pub async fn credit(
    connection: &mut PgConnection,
    payment: PaymentId,
    birth_block: BlockNumber,
    transfer: &ConfirmedTransfer,
) -> Result<(), LedgerError> {
    let payment = payment::store::lock(connection, payment).await?;
    match posting::read(&payment, birth_block, transfer) {
        Reading::Counts => {
            store::append(connection, &[posting::detected(payment.id, transfer)]).await?;
            note_credit(connection, &payment, transfer, "payment.credited").await?;
            settle_state(connection, &payment, &format!("verdict:{}", transfer.verdict_id)).await
        }
        Reading::Suspended(why) => {
            store::append(connection, &[posting::suspended(payment.id, transfer, why)]).await?;
            let amount = format_units(transfer.amount.units, transfer.decimals);
            let detail = format!("{amount} of {} in tx {}", transfer.amount.asset, transfer.tx_hash);
            payment::store::open_exception(connection, payment.id, why, &detail).await?;
            note_credit(connection, &payment, transfer, "payment.suspended").await
        }
    }
}

async fn note_credit(
    connection: &mut PgConnection,
    payment: &Payment,
    transfer: &ConfirmedTransfer,
    kind: &'static str,
) -> Result<(), LedgerError> {
    let detail = serde_json::json!({
        "tx_hash": transfer.tx_hash, "units": transfer.amount.units.to_string(), "asset": transfer.amount.asset.asset.to_string(),
    });
    event::store::append(connection, &Event::of_payment(kind, payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, tx.hash = %transfer.tx_hash, amount = %transfer.amount.units, "{kind}");
    Ok(())
}

/// Whole now? Then the amount is held and the payment confirmed; else the rest stays due. `cause` begins
/// the keys of the entries.
async fn settle_state(connection: &mut PgConnection, payment: &Payment, cause: &str) -> Result<(), LedgerError> {
    let received = store::balance(connection, payment.due.asset, AccountKey::Received(payment.id)).await?;
    if received.units < payment.terms.enough(payment.due.units) {
        payment::store::advance(connection, payment, PaymentEvent::TransferSeen).await?;
        let missing = payment.due.checked_sub(received)?;
        let shown = |amount: TokenAmount| format_units(amount.units, payment.token_decimals);
        let detail = format!("{} of {} {} received, {} missing", shown(received), shown(payment.due), payment.token_symbol, shown(missing));
        payment::store::open_exception(connection, payment.id, ExceptionKind::Partial, &detail).await?;
        return Ok(());
    }
    make_whole(connection, payment, received, cause, "the rest arrived").await
}

/// Puts what was received into escrow, up to what is due: it is enough, or a person says that it is.
pub async fn make_whole(
    connection: &mut PgConnection,
    payment: &Payment,
    received: TokenAmount,
    cause: &str,
    resolution: &str,
) -> Result<(), LedgerError> {
    let entries = posting::hold(payment, received, cause)?;
    // A surplus within the tolerance is kept apart as well, and calls nobody.
    let over = received.units > payment.due.units.saturating_add(payment.due.units - payment.terms.enough(payment.due.units));
    store::append(connection, &entries).await?;
    let escrowed = received.units.min(payment.due.units);
    payment::store::set_escrowed(connection, payment.id, escrowed).await.map_err(PaymentError::from)?;
    payment::store::close_exception(connection, payment.id, ExceptionKind::Partial, resolution).await?;
    payment::store::close_exception(connection, payment.id, ExceptionKind::Reorged, "whole again").await?;
    if over {
        let shown = |amount: TokenAmount| format_units(amount.units, payment.token_decimals);
        let detail = format!("{} {} received, {} due", shown(received), payment.token_symbol, shown(payment.due));
        payment::store::open_exception(connection, payment.id, ExceptionKind::Over, &detail).await?;
    }
    payment::store::advance(connection, payment, PaymentEvent::Funded).await?;
    let detail = serde_json::json!({ "units": escrowed.to_string() });
    event::store::append(connection, &Event::of_payment("payment.funded", payment.id, detail)).await?;
    tracing::info!(payment.id = %payment.id, "payment funded");
    Ok(())
}

/// Undoes the credit of a verdict, the hold first. What was paid out meanwhile makes this fail as an
/// overdraft, and an officer books the shortfall.
async fn reverse_one(connection: &mut PgConnection, verdict: &ConfirmedSighting, now: OffsetDateTime) -> Result<(), LedgerError> {
    let why = format!("tx {} left the chain", verdict.tx_hash);
    let reason = format!("credited transfer {} was reorged away", verdict.tx_hash);
    scan::store::halt_outflow(connection, verdict.amount.asset.chain, &reason, now).await?;
    let destination = deposit::store::find_by_derived_address(connection, verdict.derived_address).await?;
    if let Some(destination) = destination {
        let mut payment = payment::store::lock(connection, destination.payment).await?;
        let counted = reverse_claims(connection, &payment, verdict, &why).await?;
        // A payment that is over stays over, whatever became of money that it never counted.
        let moves = payment.state.is_in_escrow() || payment.state.is_open();
        if counted && moves {
            payment = payment::store::advance(connection, &payment, PaymentEvent::CreditReversed).await?;
            payment::store::set_escrowed(connection, payment.id, U256::ZERO).await.map_err(PaymentError::from)?;
        }
        payment::store::open_exception(connection, payment.id, ExceptionKind::Reorged, &why).await?;
        let detail = serde_json::json!({ "tx_hash": verdict.tx_hash });
        event::store::append(connection, &Event::of_payment("payment.reversed", payment.id, detail)).await?;
        if destination.status == DestinationStatus::Active {
            deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Quarantined).await?;
        }
        confirm::store::revoke(connection, verdict.verdict, now).await?;
        return count_again(connection, &payment, destination.birth_block, verdict.verdict).await;
    }
    reverse_credit(connection, verdict, &why).await?;
    confirm::store::revoke(connection, verdict.verdict, now).await?;
    Ok(())
}

/// What is left may be whole without the credit that was just reversed: by itself, or with transfers
/// that were one too many before. The books must be those of a daemon that never saw what left the chain
/// (W5).
async fn count_again(connection: &mut PgConnection, payment: &Payment, birth_block: BlockNumber, reversed: i64) -> Result<(), LedgerError> {
    if !matches!(payment.state, PaymentState::Pending | PaymentState::Processing) {
        return Ok(());
    }
    let entries = entries_of(connection, payment.id).await?;
    let standing = posting::standing_credits(&entries);
    for (verdict, _) in &standing {
        // Its own reversal comes, and ends here again. Nothing is made whole with it meanwhile.
        if !confirm::store::is_credit_standing(connection, *verdict).await? {
            return Ok(());
        }
    }
    let suspense = AccountKey::Suspense(Some(payment.id));
    let mut received = store::balance(connection, payment.due.asset, AccountKey::Received(payment.id)).await?;
    let (mut counted, mut left) = (false, false);
    let keys: BTreeSet<&str> = entries.iter().map(|posted| posted.entry.key.as_str()).collect();
    for (verdict, credit) in standing {
        if credit.credit != suspense || keys.contains(posting::counted_key(verdict).as_str()) {
            continue;
        }
        let page = Page { after: verdict - 1, limit: 1 };
        let found = confirm::store::list_credited(connection, credit.amount.asset.chain, page).await?;
        let Some(sighting) = found.into_iter().find(|found| found.verdict == verdict) else { continue };
        if posting::read(payment, birth_block, &confirmed(&sighting, credit.decimals)) != Reading::Counts {
            continue;
        }
        // Somebody may have decided about it and paid it back.
        let free = store::balance(connection, credit.amount.asset, suspense).await?;
        if received.units >= payment.terms.enough(payment.due.units) || free.units < credit.amount.units {
            left = true;
            continue;
        }
        store::append(connection, &[posting::counted(payment.id, verdict, credit)]).await?;
        received = received.checked_add(credit.amount)?;
        counted = true;
    }
    if counted && !left {
        payment::store::close_exception(connection, payment.id, ExceptionKind::Duplicate, "counts, an earlier one left the chain").await?;
    }
    if received.units.is_zero() {
        return Ok(());
    }
    settle_state(connection, payment, &format!("verdict:{reversed}:reversed")).await
}

/// All entries of a payment, oldest first.
async fn entries_of(connection: &mut PgConnection, payment: PaymentId) -> Result<Vec<store::PostedEntry>, LedgerError> {
    let mut entries: Vec<store::PostedEntry> = Vec::new();
    loop {
        let after = entries.last().map_or(LedgerEntryId(0), |last| last.id);
        let page = store::list(connection, Some(payment), after, ENTRIES_PER_PAGE).await?;
        let full = i64::try_from(page.len()).is_ok_and(|rows| rows >= ENTRIES_PER_PAGE);
        entries.extend(page);
        // Ends: each page begins after the last one, and entries are finite.
        if !full {
            return Ok(entries);
        }
    }
}

/// Reverses what stands on the credit, newest first, then the credit. Tells whether it counted.
///
/// What people decided about the payment's money meanwhile (an order that is not planned, a dispute's hold, an
/// accepted surplus) stands on it too: it is undone, and whoever decided decides again.
async fn reverse_claims(
    connection: &mut PgConnection,
    payment: &Payment,
    verdict: &ConfirmedSighting,
    why: &str,
) -> Result<bool, LedgerError> {
    let credit = store::find(connection, &posting::credit_key(verdict.verdict)).await?;
    let Some(credit) = credit else { return Ok(false) };
    let after_all = store::find(connection, &posting::counted_key(verdict.verdict)).await?;
    let suspense = store::balance(connection, credit.entry.amount.asset, AccountKey::Suspense(Some(payment.id))).await?;
    let counted = matches!(credit.entry.credit, AccountKey::Received(_))
        || after_all.is_some()
        // It waited in suspense, and somebody made use of it.
        || (credit.entry.amount.asset == payment.due.asset && suspense.units < credit.entry.amount.units);
    if counted {
        let standing = if payment.state == PaymentState::Releasing {
            // An intent has its money: this will not fit, and an officer sees the case as it is.
            store::list_taken_from_received(connection, payment.id).await?
        } else {
            let decisions = store::list_decisions(connection, payment.id, payment.due.asset).await?;
            posting::undone_with(decisions, suspense.units, &credit.entry)
        };
        for taken in standing {
            store::append(connection, &[posting::reversal(&taken, why)]).await?;
        }
    }
    if let Some(after_all) = after_all {
        store::append(connection, &[posting::reversal(&after_all, why)]).await?;
    }
    reverse_credit(connection, verdict, why).await?;
    Ok(counted)
}

async fn reverse_credit(connection: &mut PgConnection, verdict: &ConfirmedSighting, why: &str) -> Result<(), LedgerError> {
    if let Some(credit) = store::find(connection, &posting::credit_key(verdict.verdict)).await? {
        store::append(connection, &[posting::reversal(&credit, why)]).await?;
    }
    Ok(())
}
