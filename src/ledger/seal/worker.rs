//! Seals what was posted, and walks along the seals to see whether it still is what was posted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use alloy::primitives::{Address, B256, Signature};
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::store::{self, Seal};
use super::{BLOCK_ENTRIES, Fault, Head, Record, Verdict, behind, root};
use crate::account::{self, Branch, Deriver, Purpose, TrezorAccount};
use crate::db::{Database, DbError};
use crate::ledger::LedgerError;
use crate::units::{LedgerEntryId, Progress};

/// A block that is not full is sealed once its oldest entry has waited so long.
const WAIT: Duration = Duration::seconds(10);
/// How far below the highest sealed id a tick looks for entries whose transaction came late. More ids than are
/// given while the longest unit of work runs.
const LOOK_BACK: i64 = 100_000;
const BLOCKS_PER_TICK: usize = 16;
const SEALS_PER_PAGE: i64 = 8;
const SIGNATURES_PER_PAGE: i64 = 1_000;

/// Seals the ledger of one database.
#[derive(Debug)]
pub struct Sealer {
    db: Database,
    /// Whether everything was looked through since the start, and not only the recent past.
    looked_back: AtomicBool,
}

impl Sealer {
    pub fn new(db: Database) -> Self {
        Self { db, looked_back: AtomicBool::new(false) }
    }

    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, LedgerError> {
        for _ in 0..BLOCKS_PER_TICK {
            let whole = !self.looked_back.load(Ordering::Acquire);
            let sealed = self.db.unit(move |connection| Box::pin(async move { seal_block(connection, now, LOOK_BACK).await })).await?;
            if sealed {
                continue;
            }
            if !whole {
                return Ok(Progress::Idle);
            }
            // Once after a start: what fell behind while nobody sealed.
            let sealed = self.db.unit(move |connection| Box::pin(async move { seal_block(connection, now, i64::MAX).await })).await?;
            if !sealed {
                self.looked_back.store(true, Ordering::Release);
                return Ok(Progress::Idle);
            }
        }
        Ok(Progress::Worked)
    }
}

/// One block in the caller's transaction; `false` when there is nothing to seal yet. Two at the same time
/// cannot both commit: each seal has one successor.
async fn seal_block(connection: &mut PgConnection, now: OffsetDateTime, look_back: i64) -> Result<bool, LedgerError> {
    let highest = store::get_highest_sealed(connection).await?;
    let after = LedgerEntryId(highest.0.saturating_sub(look_back));
    let limit = i64::try_from(BLOCK_ENTRIES).unwrap_or(i64::MAX);
    let waiting = store::list_unsealed(connection, after, limit).await?;
    let due = waiting.len() == BLOCK_ENTRIES || waiting.iter().any(|entry| entry.created_at + WAIT <= now);
    if waiting.is_empty() || !due {
        return Ok(false);
    }
    let entries: Vec<LedgerEntryId> = waiting.iter().map(|entry| entry.id).collect();
    let records = store::list_records(connection, &entries).await?;
    if records.len() != entries.len() {
        return Err(DbError::NotOneRow { what: "entries to be sealed", found: records.len() as u64 }.into());
    }
    let leaves: Vec<B256> = records.iter().map(Record::leaf).collect();
    let last = store::find_last(connection).await?;
    let head = Head {
        number: last.as_ref().map_or(1, |last| last.head.number + 1),
        previous: last.as_ref().map_or(B256::ZERO, |last| last.hash),
        entries: entries.len() as u64,
        entries_total: last.as_ref().map_or(0, |last| last.head.entries_total) + entries.len() as u64,
        root: root(&leaves),
        derivation: derivation(&account::store::list(connection).await?),
        // The database keeps microseconds.
        sealed_at: now.replace_nanosecond(now.nanosecond() / 1_000 * 1_000).unwrap_or(now),
    };
    let seal = Seal { hash: head.hash(), head, entries, leaves };
    store::insert(connection, &seal).await?;
    Ok(true)
}

/// One line for each account, in the order of their numbers.
fn derivation(accounts: &[TrezorAccount]) -> String {
    let line =
        |account: &TrezorAccount| format!("m/44'/60'/{}' {} {}", account.xpub.account(), account.fingerprint, account.next_deposit_index);
    accounts.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Walks along all seals and computes everything again: rows, roots, chain, signatures, what is in no seal.
/// `exported` are heads that were kept elsewhere: without them a ledger whose end was cut off looks whole.
/// Memory is that of a few blocks, however long the ledger is.
pub async fn verify(connection: &mut PgConnection, exported: &[Head]) -> Result<Verdict, DbError> {
    let mut verdict = Verdict::default();
    let mut kept: BTreeMap<i64, B256> = exported.iter().map(|head| (head.number, head.hash())).collect();
    let mut before: Option<Seal> = None;
    let mut hashes: BTreeMap<i64, Head> = BTreeMap::new();
    let signatures = store::list_signatures(connection, 0, SIGNATURES_PER_PAGE).await?;
    let signed: BTreeSet<i64> = signatures.iter().map(|signature| signature.seal).collect();
    // Ends: each page begins after the last one, and seals are finite.
    loop {
        let after = before.as_ref().map_or(0, |seal| seal.head.number);
        let page = store::list(connection, after, SEALS_PER_PAGE).await?;
        if page.is_empty() {
            break;
        }
        for seal in page {
            verify_block(
                connection,
                before.as_ref().map(|seal| (seal.head.number, seal.head.entries_total, seal.hash)),
                &seal,
                &mut verdict,
            )
            .await?;
            if kept.remove(&seal.head.number).is_some_and(|hash| hash != seal.head.hash()) {
                verdict.note(Fault::NotAsExported { seal: seal.head.number });
            }
            if signed.contains(&seal.head.number) {
                hashes.insert(seal.head.number, seal.head.clone());
            }
            before = Some(seal);
        }
    }
    let found = before.as_ref().map_or(0, |seal| seal.head.number);
    if let Some(exported) = kept.into_keys().next_back().filter(|exported| *exported > found) {
        verdict.note(Fault::Truncated { exported, found });
    }
    verdict.head = before.map(|seal| seal.head);
    let accounts = account::store::list(connection).await?;
    for signature in &signatures {
        let by_account = accounts.iter().find(|account| account.id == signature.account);
        let good = hashes.get(&signature.seal).zip(by_account).is_some_and(|(head, account)| {
            officer_address(account)
                .is_some_and(|address| address == signature.address && signed_by(head, &signature.signature) == Some(address))
        });
        if good {
            verdict.signatures += 1;
        } else {
            verdict.note(Fault::SealChanged { seal: signature.seal, what: "an officer's signature is not of this seal" });
        }
    }
    verify_end(connection, &mut verdict).await?;
    Ok(verdict)
}

/// The seals after a number, each against the one before it: a part of the walk, for one that never stops.
/// Gives back the number to go on after; 0 once the end is reached.
pub async fn verify_blocks(connection: &mut PgConnection, after: i64, limit: i64, verdict: &mut Verdict) -> Result<i64, DbError> {
    let mut before = match after {
        0 => None,
        after => store::list(connection, after - 1, 1)
            .await?
            .into_iter()
            .next()
            .map(|seal| (seal.head.number, seal.head.entries_total, seal.hash)),
    };
    if after > 0 && before.is_none_or(|(number, ..)| number != after) {
        verdict.note(Fault::SealMissing { seal: after });
        return Ok(0);
    }
    let seals = store::list(connection, after, limit).await?;
    let more = i64::try_from(seals.len()).is_ok_and(|found| found == limit);
    for seal in &seals {
        verify_block(connection, before, seal, verdict).await?;
        before = Some((seal.head.number, seal.head.entries_total, seal.hash));
    }
    Ok(before.map(|(number, ..)| number).filter(|_| more).unwrap_or(0))
}

/// What is in no seal and should be, what is in two, and accounts that are behind what was sealed.
async fn verify_end(connection: &mut PgConnection, verdict: &mut Verdict) -> Result<(), DbError> {
    for (seal, entry) in store::list_sealed_twice(connection, 20).await? {
        verdict.note(Fault::EntryTwice { seal, entry });
    }
    let highest = store::get_highest_sealed(connection).await?;
    let (unsealed, lowest) = store::count_unsealed(connection, LedgerEntryId(highest.0.saturating_sub(LOOK_BACK))).await?;
    verdict.unsealed = unsealed;
    if let Some(entry) = lowest {
        verdict.note(Fault::EntryUnsealed { entry });
    }
    if let Some(head) = store::find_last(connection).await?.map(|seal| seal.head) {
        for fault in behind(&head.derivation, &derivation(&account::store::list(connection).await?)) {
            verdict.note(fault);
        }
    }
    Ok(())
}

/// One seal: its place in the chain, its entries as they are now, its root, its hash.
async fn verify_block(
    connection: &mut PgConnection,
    before: Option<(i64, u64, B256)>,
    seal: &Seal,
    verdict: &mut Verdict,
) -> Result<(), DbError> {
    let number = seal.head.number;
    let (last, total, previous) = before.unwrap_or((0, 0, B256::ZERO));
    verdict.seals += 1;
    verdict.entries += seal.entries.len() as u64;
    if number != last + 1 {
        verdict.note(Fault::SealMissing { seal: last + 1 });
    } else if seal.head.previous != previous {
        verdict.note(Fault::SealChanged { seal: number, what: "it does not follow the one before it" });
    }
    let records: BTreeMap<LedgerEntryId, B256> =
        store::list_records(connection, &seal.entries).await?.iter().map(|record| (record.id, record.leaf())).collect();
    for (entry, leaf) in seal.entries.iter().zip(&seal.leaves) {
        match records.get(entry) {
            None => verdict.note(Fault::EntryMissing { seal: number, entry: *entry }),
            Some(found) if found != leaf => verdict.note(Fault::EntryChanged { seal: number, entry: *entry }),
            Some(_) => {}
        }
    }
    let faults: [(bool, &'static str); 4] = [
        (seal.entries.len() != seal.leaves.len(), "its leaves are not one for each entry"),
        (root(&seal.leaves) != seal.head.root, "its root is not that of its leaves"),
        (seal.head.entries_total != total + seal.head.entries && number == last + 1, "its total is not the sum so far"),
        (seal.head.hash() != seal.hash, "its hash is not that of its head"),
    ];
    for (_, what) in faults.into_iter().filter(|(fault, _)| *fault) {
        verdict.note(Fault::SealChanged { seal: number, what });
    }
    Ok(())
}

/// The address with which the officers of an account sign seals: the operator's own that holds the least.
pub fn officer_address(account: &TrezorAccount) -> Option<Address> {
    let (_, index) = Purpose::OPERATOR.into_iter().find(|(purpose, _)| *purpose == Purpose::Gas)?;
    Deriver::new(&account.xpub, Branch::Operator).ok()?.address(account::AddressIndex::new(index)?).ok()
}

/// Whose signature of a head this is. `None` for what is no signature, or one that could be written differently.
pub fn signed_by(head: &Head, signature: &[u8]) -> Option<Address> {
    let signature: &[u8; 65] = signature.try_into().ok()?;
    let parity = match signature[64] {
        27 => false,
        28 => true,
        _ => return None,
    };
    let signature = Signature::from_bytes_and_parity(&signature[..64], parity);
    if signature.normalize_s().is_some() {
        return None;
    }
    signature.recover_address_from_prehash(&head.message_hash()).ok()
}
