//! Looks at a slice of everything every few seconds. A violation halts the outflow of every chain, in the same
//! words each time, until an officer has looked; watching and crediting go on.

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::store::{self, Slice};
use super::{Findings, Invariant, Violation};
use crate::db::codec::chain_from_sql;
use crate::db::{self, Database, DbError, SelfTestError};
use crate::event::{self, Event};
use crate::ledger::seal::{self, Verdict};
use crate::reconcile::ReconcileError;
use crate::scan;

/// Between two looks.
const PERIOD: Duration = Duration::seconds(10);
/// Sums over all balances are taken at every so many looks.
const TOTALS_EVERY: u64 = 6;
/// Bounds of one look.
const ACCOUNTS: i64 = 500;
const ACCOUNT_ENTRIES: i64 = 50_000;
const PAYMENTS: i64 = 200;
const REVERSALS: i64 = 500;
const TRANSFERS: i64 = 500;
const TRANSACTIONS: i64 = 500;
const SEALS: i64 = 8;

/// Checks the invariants of one database, over and over.
#[derive(Debug)]
pub struct Auditor {
    db: Database,
    place: Mutex<Place>,
}

/// Where each check goes on, and what is known.
#[derive(Debug, Default)]
struct Place {
    last: Option<OffsetDateTime>,
    looks: u64,
    account: i64,
    payment: Uuid,
    reversal: i64,
    transfer: i64,
    transaction: i64,
    seal: i64,
    findings: Findings,
}

/// What one look met.
#[derive(Debug, Default)]
pub struct Look {
    /// Empty in health.
    pub violations: Vec<Violation>,
    /// Of each invariant: violations that stand, and how often all rows were looked at.
    pub standing: Vec<(Invariant, u64, u64)>,
}

impl Auditor {
    pub fn new(db: Database) -> Self {
        Self { db, place: Mutex::default() }
    }

    /// Looks once if it is time to; `None` if not.
    pub async fn tick(&self, now: OffsetDateTime) -> Result<Option<Look>, ReconcileError> {
        let mut place = self.place.lock().await;
        // A clock that was set back does not stop it.
        if place.last.is_some_and(|last| now - last < PERIOD && now >= last) {
            return Ok(None);
        }
        place.last = Some(now);
        let mut connection = self.db.connection().await?;
        let violations = place.look(&mut connection).await?;
        drop(connection);
        let standing = Invariant::ALL.map(|invariant| (invariant, place.findings.standing(invariant), place.findings.turns(invariant)));
        drop(place);
        if !violations.is_empty() {
            self.halt(&violations, now).await?;
        }
        Ok(Some(Look { violations, standing: standing.into() }))
    }

    /// Halts every chain that is not halted. The books are one: what is wrong in them is no chain's own.
    async fn halt(&self, violations: &[Violation], now: OffsetDateTime) -> Result<(), ReconcileError> {
        let Some(first) = violations.first() else { return Ok(()) };
        for violation in violations {
            tracing::error!(invariant = violation.invariant.id(), "{}", violation.what);
        }
        let reason = format!("invariant {} is broken: {}", first.invariant, first.what);
        let detail = serde_json::json!({ "invariant": first.invariant.id(), "what": first.what, "violations": violations.len() });
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    for chain in store::list_scanned_chains(connection).await? {
                        let chain = chain_from_sql(chain)?;
                        if scan::store::halt_outflow(connection, chain, &reason, now).await? {
                            let detail = detail.clone();
                            let halted = Event { kind: "invariant.broken", payment: None, intent: None, chain: Some(chain), detail };
                            event::store::append(connection, &halted).await?;
                        }
                    }
                    Ok::<(), DbError>(())
                })
            })
            .await?;
        Ok(())
    }
}

impl Place {
    async fn look(&mut self, connection: &mut PgConnection) -> Result<Vec<Violation>, ReconcileError> {
        let mut met = Met { violations: Vec::new(), findings: &mut self.findings };
        if self.looks.is_multiple_of(TOTALS_EVERY) {
            met.note(Invariant::Conservation, store::list_unequal_sides(connection).await?, true);
            met.note(Invariant::Overdraft, store::list_overdrawn(connection).await?, true);
        }
        self.looks += 1;
        met.note(Invariant::AppendOnly, guards(connection).await?, true);
        self.account = met.slice(Invariant::Balance, store::list_drifting(connection, self.account, ACCOUNTS, ACCOUNT_ENTRIES).await?);
        self.payment = met.slice(Invariant::Payment, store::list_unconserved(connection, self.payment, PAYMENTS).await?);
        self.reversal = met.slice(Invariant::Reversal, store::list_unmirrored(connection, self.reversal, REVERSALS).await?);
        self.transfer = met.slice(Invariant::Credit, store::list_credited_twice(connection, self.transfer, TRANSFERS).await?);
        let outbound = store::list_outbound_faults(connection, self.transaction, TRANSACTIONS).await?;
        met.note(Invariant::Nonce, outbound.nonces, outbound.next.is_none());
        met.note(Invariant::Settlement, outbound.settlements, outbound.next.is_none());
        self.transaction = outbound.next.unwrap_or_default();
        let mut verdict = Verdict::default();
        self.seal = seal::verify_blocks(connection, self.seal, SEALS, &mut verdict).await?;
        met.note(Invariant::Sealed, verdict.faults.iter().map(ToString::to_string).collect(), self.seal == 0);
        Ok(met.violations)
    }
}

struct Met<'f> {
    violations: Vec<Violation>,
    findings: &'f mut Findings,
}

impl Met<'_> {
    fn note(&mut self, invariant: Invariant, wrong: Vec<String>, turned: bool) {
        self.findings.note(invariant, wrong.len() as u64, turned);
        self.violations.extend(wrong.into_iter().map(|what| Violation { invariant, what }));
    }

    /// Gives back the place to go on after: the beginning, once the end is reached.
    fn slice<P: Default>(&mut self, invariant: Invariant, slice: Slice<P>) -> P {
        self.note(invariant, slice.wrong, slice.next.is_none());
        slice.next.unwrap_or_default()
    }
}

/// What the start-up self-test asks, asked again: a guard may be switched off under a running daemon.
async fn guards(connection: &mut PgConnection) -> Result<Vec<String>, DbError> {
    match db::self_test(connection).await {
        Ok(()) => Ok(Vec::new()),
        Err(SelfTestError::Db(error)) => Err(error),
        Err(broken) => Ok(vec![broken.to_string()]),
    }
}
