//! Looks at the nonces of our addresses: the operator's own, and those with something under way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::Address;
use time::{Duration, OffsetDateTime};

use super::{look, store};
use crate::account;
use crate::broadcast::BroadcastError;
use crate::db::Database;
use crate::event::{self, Event};
use crate::intent::IntentError;
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
}

impl NonceWatch {
    pub fn new(db: Database, node: Arc<Node>) -> Self {
        Self { db, node, last: Mutex::new(None), holes: AtomicU64::new(0), told: Mutex::new(BTreeSet::new()) }
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
            let seen = self.look_at(address, now).await;
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
    async fn look_at(&self, address: Address, now: OffsetDateTime) -> Result<Vec<u64>, BroadcastError> {
        let chain = self.node.chain();
        // The count first: what is signed and mined between the two reads is then no foreign use.
        let count = self.node.nonce_latest(address).await?;
        let mut connection = self.db.connection().await?;
        let taken = store::list_taken(&mut connection, chain, address).await?;
        let found = look(count, &taken);
        let mut holes = Vec::new();
        for nonce in found.holes {
            if store::waits_above(&mut connection, chain, address, nonce, HOLE_MINUTES).await? {
                holes.push(nonce);
            }
        }
        drop(connection);
        self.tell_foreign(address, found.foreign, now).await?;
        Ok(holes)
    }

    /// Halts outflow for a foreign use that was not told before. What an officer has looked at and resumed does not
    /// halt again; the next foreign use does.
    async fn tell_foreign(&self, address: Address, foreign: Vec<u64>, now: OffsetDateTime) -> Result<(), BroadcastError> {
        let chain = self.node.chain();
        let told = self
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    let mut new = None;
                    for nonce in foreign {
                        if event::store::has_foreign_nonce(connection, chain, address, nonce).await? {
                            continue;
                        }
                        let reason = format!("nonce {nonce} of {address} was used by a transaction that is not ours");
                        let detail = serde_json::json!({ "address": address.to_string(), "nonce": nonce, "reason": reason });
                        let event = Event { kind: event::FOREIGN_NONCE, payment: None, intent: None, chain: Some(chain), detail };
                        event::store::append(connection, &event).await?;
                        scan::store::halt_outflow(connection, chain, &reason, now).await?;
                        new = new.or(Some(nonce));
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
