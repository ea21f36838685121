//! Looks at the nonces of our addresses: the operator's own, and those with something under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::Address;
use time::{Duration, OffsetDateTime};

use super::{holes, store};
use crate::account;
use crate::broadcast::BroadcastError;
use crate::db::Database;
use crate::event::{self, Event};
use crate::intent::plan::foreign_nonces;
use crate::intent::{IntentError, baseline};
use crate::rpc::Node;
use crate::scan;
use crate::units::{Outcomes, Progress};

/// How many addresses one look asks the chain about.
const ADDRESSES_PER_LOOK: i64 = 200;
/// From one look to the next.
const EVERY: Duration = Duration::seconds(15);
/// A hole is told of once something above it has waited so long.
const HOLE_MINUTES: u32 = 10;

/// The nonce watch of one chain.
#[derive(Debug)]
pub struct NonceWatch {
    db: Database,
    node: Arc<Node>,
    last: Mutex<Option<OffsetDateTime>>,
    holes: AtomicU64,
    told: Mutex<BTreeSet<(Address, u64)>>,
    /// Below it every nonce of an address was found to be ours or past. A start looks at all of them again.
    looked: Mutex<BTreeMap<Address, u64>>,
}

impl NonceWatch {
    pub fn new(db: Database, node: Arc<Node>) -> Self {
        Self { db, node, last: Mutex::new(None), holes: AtomicU64::new(0), told: Mutex::new(BTreeSet::new()), looked: Mutex::default() }
    }

    /// Holes that held something up at the last look.
    pub fn holes(&self) -> u64 {
        self.holes.load(Ordering::Relaxed)
    }

    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, BroadcastError> {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now - last < EVERY && now >= last) {
                return Ok(Progress::Idle);
            }
            *last = Some(now);
        }
        let chain = self.node.chain();
        let mut connection = self.db.connection().await?;
        if scan::store::find_cursor(&mut connection, chain).await?.is_none() {
            return Ok(Progress::Idle);
        }
        let mut addresses: BTreeSet<Address> = store::list_senders(&mut connection, chain, ADDRESSES_PER_LOOK).await?.into_iter().collect();
        let own = account::store::list_operator_addresses(&mut connection).await?;
        addresses.extend(own.into_iter().map(|own| own.address));
        drop(connection);
        let mut outcomes = Outcomes::new();
        let mut holes = BTreeSet::new();
        for address in addresses {
            let seen = self.look_at(address).await;
            let seen = seen.map(|found| {
                holes.extend(found.into_iter().map(|nonce| (address, nonce)));
                Progress::Idle
            });
            if !outcomes.note(seen, BroadcastError::disposition) {
                break;
            }
        }
        self.tell(holes).await?;
        outcomes.finish()
    }

    /// The holes of one address. A foreign use of its nonce halts outflow of the chain.
    async fn look_at(&self, address: Address) -> Result<Vec<u64>, BroadcastError> {
        let chain = self.node.chain();
        // The count first: what is signed and mined between the two reads is then no foreign use.
        let count = self.node.nonce_latest(address).await?;
        let mut connection = self.db.connection().await?;
        let foreign = self.foreign(&mut connection, address, count).await?;
        let taken = store::list_taken(&mut connection, chain, address).await?;
        let mut waited_for = Vec::new();
        for nonce in holes(count, &taken) {
            if store::waits_above(&mut connection, chain, address, nonce, HOLE_MINUTES).await? {
                waited_for.push(nonce);
            }
        }
        drop(connection);
        self.tell_foreign(address, foreign).await?;
        Ok(waited_for)
    }

    /// Uses by what is not ours, since the baseline at the first look and since the last look then.
    async fn foreign(&self, connection: &mut sqlx::PgConnection, address: Address, count: u64) -> Result<Vec<u64>, BroadcastError> {
        let chain = self.node.chain();
        let looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied().unwrap_or_default();
        let floor = baseline::store::get(connection, chain, address).await?.max(looked);
        let signed = baseline::store::list_signed(connection, chain, address, floor, count).await?;
        let foreign = foreign_nonces(floor, count, &signed);
        let proved = foreign.first().copied().unwrap_or_else(|| count.max(floor));
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).insert(address, proved);
        Ok(foreign)
    }

    async fn tell_foreign(&self, address: Address, foreign: Vec<u64>) -> Result<(), BroadcastError> {
        let chain = self.node.chain();
        let told = self
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    let mut new = None;
                    for nonce in foreign {
                        if baseline::store::tell_foreign(connection, chain, address, nonce).await? {
                            new = new.or(Some(nonce));
                        }
                    }
                    Ok::<Option<u64>, IntentError>(new)
                })
            })
            .await?;
        match told {
            Some(nonce) => Err(BroadcastError::ForeignNonce { chain, address, nonce }),
            None => Ok(()),
        }
    }

    /// Tells of each hole once.
    async fn tell(&self, holes: BTreeSet<(Address, u64)>) -> Result<(), BroadcastError> {
        self.holes.store(u64::try_from(holes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let chain = self.node.chain();
        let new: Vec<(Address, u64)> = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let new = holes.difference(&told).copied().collect();
            *told = holes;
            new
        };
        for (address, nonce) in new {
            tracing::error!(
                chain.id = chain.get(), %address, nonce,
                "nothing is signed for a nonce, and what is signed above it waits; sign, cancel or give up what stands there"
            );
            let detail = serde_json::json!({ "address": address, "nonce": nonce });
            let event = Event { kind: "chain.nonce_hole", payment: None, intent: None, chain: Some(chain), detail };
            self.db
                .unit(move |connection| Box::pin(async move { event::store::append(connection, &event).await.map_err(IntentError::from) }))
                .await?;
        }
        Ok(())
    }
}
