//! Which addresses a token's issuer has frozen: ours, and those of sellers who are to be paid.
//!
//! Asked of the contract in batches, one page a tick, from the beginning again after a while. A freeze opens a
//! row, an event, and the exception `frozen` at every payment whose money it touches; an own deposit address is
//! quarantined. While it is open, `intent` plans nothing that would revert or be stuck. When the contract no
//! longer says so, all of it ends. Issuers also announce freezes as events; they are not needed, because the
//! state says the same and is there after any outage.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::{Address, Bytes, keccak256};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ScreenError, decide, store};
use crate::account;
use crate::chains::{ChainSpec, FreezeCheck};
use crate::db::{Database, DbError};
use crate::deposit::{self, DestinationStatus};
use crate::event::{self, Event};
use crate::payment::{self, ExceptionKind};
use crate::rpc::Node;
use crate::units::{BlockRef, ChainId, PaymentId, Progress};

/// How many addresses or payments one tick reads.
const PAGE: i64 = 200;
/// How many open freezes are asked about, and how many payments one freeze is told to.
const FREEZES_MAX: i64 = 1_000;

/// Contract and address.
type Pair = (Address, Address);

/// Watches the freezes of one chain.
#[derive(Debug)]
pub struct FreezeWatch {
    db: Database,
    node: Arc<Node>,
    spec: Arc<ChainSpec>,
    /// From the beginning of one look to that of the next.
    every: Duration,
    look: Mutex<Look>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    began: Option<OffsetDateTime>,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Rest,
    /// The operator's addresses, and what is frozen as far as we know.
    Own,
    Destinations(Uuid),
    Sellers(PaymentId),
}

impl FreezeWatch {
    pub fn new(db: Database, node: Arc<Node>, spec: Arc<ChainSpec>, every: Duration) -> Self {
        Self { db, node, spec, every, look: Mutex::new(Look { began: None, step: Step::Rest }) }
    }

    /// Asks about the next page, if a look is due. A page that could not be read is read again.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Progress, ScreenError> {
        let checks = self.checks();
        let Some(step) = self.step(now).filter(|_| !checks.is_empty()) else { return Ok(Progress::Idle) };
        self.node.set_clock(now);
        let (pairs, next) = self.page(step, &checks).await?;
        if !pairs.is_empty() {
            self.ask(pairs, &checks, now).await?;
        }
        self.look.lock().unwrap_or_else(PoisonError::into_inner).step = next;
        Ok(Progress::of(next != Step::Rest))
    }

    /// The tokens whose contracts can be asked.
    fn checks(&self) -> Vec<(Address, FreezeCheck)> {
        self.spec.tokens.iter().filter_map(|token| Some((token.contract, token.freeze_check?))).collect()
    }

    fn step(&self, now: OffsetDateTime) -> Option<Step> {
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        if look.step == Step::Rest {
            if look.began.is_some_and(|began| (now - began).unsigned_abs() < self.every) {
                return None;
            }
            *look = Look { began: Some(now), step: Step::Own };
        }
        Some(look.step)
    }

    /// Whom a step asks about, and the step after it.
    async fn page(&self, step: Step, checks: &[(Address, FreezeCheck)]) -> Result<(BTreeSet<Pair>, Step), DbError> {
        let (chain, mut connection) = (self.spec.id, self.db.connection().await?);
        let full = |read: usize| i64::try_from(read).is_ok_and(|read| read >= PAGE);
        let each = |address: Address| checks.iter().map(move |(contract, _)| (*contract, address));
        Ok(match step {
            Step::Rest => (BTreeSet::new(), Step::Rest),
            Step::Own => {
                let own = account::store::list_operator_addresses(&mut connection).await?;
                let mut pairs: BTreeSet<Pair> = own.into_iter().flat_map(|own| each(own.address)).collect();
                let known = store::list_freezes(&mut connection, chain, FREEZES_MAX).await?;
                pairs.extend(known.into_iter().map(|freeze| (freeze.contract, freeze.address)));
                (pairs, Step::Destinations(Uuid::nil()))
            }
            Step::Destinations(after) => {
                let page = deposit::store::list_unswept_after(&mut connection, chain, after, PAGE).await?;
                let next = page.last().filter(|_| full(page.len())).map(|(id, _)| Step::Destinations(*id));
                let pairs = page.into_iter().flat_map(|(_, address)| each(address)).collect();
                (pairs, next.unwrap_or(Step::Sellers(PaymentId(Uuid::nil()))))
            }
            Step::Sellers(after) => {
                let page = store::list_sellers(&mut connection, chain, after, PAGE).await?;
                let next = page.last().filter(|_| full(page.len())).map(|(id, ..)| Step::Sellers(*id));
                (page.into_iter().map(|(_, seller, contract)| (contract, seller)).collect(), next.unwrap_or(Step::Rest))
            }
        })
    }

    async fn ask(&self, mut pairs: BTreeSet<Pair>, checks: &[(Address, FreezeCheck)], now: OffsetDateTime) -> Result<(), ScreenError> {
        let check_of = |contract: Address| checks.iter().find(|(known, _)| *known == contract).map(|(_, check)| *check);
        pairs.retain(|(contract, _)| check_of(*contract).is_some());
        let questions: Vec<(Address, Bytes)> =
            pairs.iter().filter_map(|(contract, address)| Some((*contract, call(check_of(*contract)?, *address)))).collect();
        let at = self.node.head().await?.block;
        let flags = self.node.flags(&questions, at).await?;
        let (frozen, free): (Vec<_>, Vec<_>) = pairs.into_iter().zip(flags).partition(|(_, frozen)| *frozen);
        let chain = self.spec.id;
        let known = store::list_freezes(&mut *self.db.connection().await?, chain, FREEZES_MAX).await?;
        let lifted: Vec<store::Freeze> =
            known.into_iter().filter(|known| free.iter().any(|(pair, _)| *pair == (known.contract, known.address))).collect();
        for (pair, _) in frozen {
            self.db
                .unit::<_, ScreenError, _>(move |connection| Box::pin(async move { note(connection, chain, pair, at, now).await }))
                .await?;
        }
        for freeze in lifted {
            self.db
                .unit::<_, ScreenError, _>(move |connection| Box::pin(async move { lift(connection, chain, freeze, now).await }))
                .await?;
        }
        Ok(())
    }
}

/// The call: four bytes of the signature's hash, then the address as a word.
fn call(check: FreezeCheck, address: Address) -> Bytes {
    let selector = &keccak256(check.signature())[..4];
    Bytes::from([selector, address.into_word().as_slice()].concat())
}

/// A freeze is there: told once, and at each payment that it touches, also at those that came later.
async fn note(connection: &mut PgConnection, chain: ChainId, pair: Pair, at: BlockRef, now: OffsetDateTime) -> Result<(), ScreenError> {
    let (contract, address) = pair;
    let (freeze, is_new) = store::upsert_freeze(connection, chain, pair, at, now).await?;
    if is_new {
        tracing::error!(
            chain.id = chain.get(), %contract, %address, block = %at,
            "a token's issuer has frozen an address; nothing is planned with it in that token"
        );
        append(connection, "token.frozen", chain, pair, at).await?;
    }
    for affected in store::list_affected(connection, chain, pair, FREEZES_MAX).await? {
        if affected.is_deposit && affected.status == DestinationStatus::Active {
            deposit::store::advance(connection, affected.destination, DestinationStatus::Active, DestinationStatus::Quarantined).await?;
            store::set_freeze_quarantined(connection, freeze).await?;
        }
        if !affected.told {
            let whose = if affected.is_deposit { "our deposit address" } else { "the seller's address" };
            let detail = format!("the issuer of token {contract} has frozen {whose} {address}");
            payment::store::open_exception(connection, affected.payment, ExceptionKind::Frozen, &detail).await?;
            let detail = serde_json::json!({ "contract": contract, "address": address, "deposit": affected.is_deposit });
            event::store::append(connection, &Event::of_payment("payment.frozen", affected.payment, detail)).await?;
        }
    }
    Ok(())
}

async fn lift(connection: &mut PgConnection, chain: ChainId, freeze: store::Freeze, now: OffsetDateTime) -> Result<(), ScreenError> {
    let pair = (freeze.contract, freeze.address);
    let affected = store::list_affected(connection, chain, pair, FREEZES_MAX).await?;
    if !store::close_freeze(connection, freeze.id, now).await? {
        return Ok(());
    }
    tracing::warn!(chain.id = chain.get(), contract = %freeze.contract, address = %freeze.address, "a token's issuer has lifted a freeze");
    let detail = serde_json::json!({ "contract": freeze.contract, "address": freeze.address });
    event::store::append(connection, &Event { kind: "token.unfrozen", payment: None, intent: None, chain: Some(chain), detail }).await?;
    for affected in affected {
        if store::is_touched_by_freeze(connection, affected.payment).await? {
            continue;
        }
        payment::store::close_exception(connection, affected.payment, ExceptionKind::Frozen, "the issuer has lifted the freeze").await?;
        if affected.is_deposit && freeze.quarantined {
            let destination = deposit::store::get_by_payment(connection, affected.payment).await?;
            decide::leave_quarantine(connection, affected.payment, destination.derived_address).await?;
        }
    }
    Ok(())
}

async fn append(
    connection: &mut PgConnection,
    kind: &'static str,
    chain: ChainId,
    (contract, address): Pair,
    at: BlockRef,
) -> Result<(), DbError> {
    let detail = serde_json::json!({ "contract": contract, "address": address, "block_number": at.number.0, "block_hash": at.hash });
    event::store::append(connection, &Event { kind, payment: None, intent: None, chain: Some(chain), detail }).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calls_are_those_of_the_contracts() {
        // Selectors as block explorers list them for the contracts.
        for (check, selector) in [
            (FreezeCheck::IsBlackListed, "e47d6060"),
            (FreezeCheck::GetBlackListStatus, "59bf1abe"),
            (FreezeCheck::IsBlacklisted, "fe575a87"),
            (FreezeCheck::IsBlocked, "fbac3951"),
        ] {
            let data = call(check, Address::repeat_byte(0x22));
            assert_eq!(alloy::hex::encode(&data), format!("{selector}{}{}", "00".repeat(12), "22".repeat(20)));
        }
    }
}
