//! Plans what is due on one chain: fuel and sweeps of whole payments, releases that were asked for.
//!
//! Reads the situation, asks the node for nonce and fees, then stores the intent with its reservation in
//! one transaction. Everything is decided again from stored state at the next tick, so a lost tick loses
//! nothing.

use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::{Address, U256};
use alloy::sol_types::SolCall;
use uuid::Uuid;

use super::plan::{
    ForeignNonce, ReleaseSituation, ReleaseStep, SweepSituation, SweepStep, cost_ceiling, next_nonce, next_release_step, next_sweep_step,
};
use super::{FeeTerms, Intent, IntentError, IntentKind, IntentState, digest, store};
use crate::account::{self, DerivedAddress, Purpose};
use crate::chains::ChainSpec;
use crate::confirm;
use crate::db::Database;
use crate::deposit::{self, Destination, DestinationStatus};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey, Entry, EntryType};
use crate::payment::{self, Payment, PaymentEvent};
use crate::rpc::{CallRequest, Node};
use crate::scan;
use crate::screen;
use crate::units::{Asset, IntentId, Outcomes, PaymentId, Progress, TokenAmount};

alloy::sol! {
    function transfer(address to, uint256 amount) returns (bool);
}

/// How many due items one tick looks at.
const ITEMS_PER_TICK: i64 = 20;
/// A token transfer takes some tens of thousands, on a rollup that adds its data some hundred thousands. A
/// node that asks for more is not believed: its word decides how much coin leaves the gas address.
const GAS_MAX: u64 = 1_500_000;

/// What the operator allows when planning.
#[derive(Clone, Copy, Debug)]
pub struct PlanPolicy {
    /// Officers needed per intent.
    pub approvals_required: u8,
    /// No intent is planned while gas costs more than this, in wei.
    pub max_fee_per_gas_max: u128,
}

/// The planner of one chain.
#[derive(Debug)]
pub struct Planner {
    db: Database,
    node: Arc<Node>,
    chain: Arc<ChainSpec>,
    policy: PlanPolicy,
    /// Where the next page of each kind begins, so that items that cannot be planned hide no others.
    sweeps_after: Mutex<PaymentId>,
    releases_after: Mutex<PaymentId>,
}

/// An outflow that is due, before it has a nonce.
struct Due {
    kind: IntentKind,
    from: DerivedAddress,
    to: Address,
    amount: TokenAmount,
    terms: FeeTerms,
    payment: Payment,
    destination: Option<Destination>,
    /// The deposit address whose money this is.
    gated_by: Uuid,
}

impl Planner {
    pub fn new(db: Database, node: Arc<Node>, chain: Arc<ChainSpec>, policy: PlanPolicy) -> Self {
        let start = PaymentId(Uuid::nil());
        Self { db, node, chain, policy, sweeps_after: Mutex::new(start), releases_after: Mutex::new(start) }
    }

    /// Plans at most [`ITEMS_PER_TICK`] sweeps and as many releases. One that fails is told of and left;
    /// the others are planned.
    pub async fn tick(&self) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        if scan::store::find_cursor(&mut connection, self.chain.id).await?.is_none()
            || confirm::store::find_halt(&mut connection, self.chain.id).await?.is_some()
        {
            return Ok(Progress::Idle);
        }
        let sweeps = intent_page(&self.sweeps_after);
        let sweeps = store::list_sweepable(&mut connection, self.chain.id, sweeps, ITEMS_PER_TICK).await?;
        turn_page(&self.sweeps_after, &sweeps);
        let releases = intent_page(&self.releases_after);
        let releases = store::list_releasable(&mut connection, self.chain.id, releases, ITEMS_PER_TICK).await?;
        turn_page(&self.releases_after, &releases);
        drop(connection);
        let mut outcomes = Outcomes::new();
        for (payment, is_sweep) in sweeps.into_iter().map(|id| (id, true)).chain(releases.into_iter().map(|id| (id, false))) {
            let planned = if is_sweep { self.plan_sweep(payment).await } else { self.plan_release(payment).await };
            let planned = planned.map_err(|source| {
                let what = format!("{} of payment {payment}", if is_sweep { "sweep" } else { "release" });
                IntentError::Item { what, source: Box::new(source) }
            });
            if !outcomes.note(planned, IntentError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }

    async fn plan_sweep(&self, payment: PaymentId) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let Some(payment) = payment::store::find(&mut connection, payment).await? else { return Ok(Progress::Idle) };
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let from = account::store::get_address(&mut connection, destination.derived_address).await?;
        let custody = AccountKey::Custody(from.address);
        let token = ledger::store::balance(&mut connection, payment.due.asset, custody).await?;
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        if token.units.is_zero() {
            return Ok(Progress::Idle);
        }
        let treasury = account::store::get_operator_address(&mut connection, from.account, Purpose::Treasury).await?;
        let gas = account::store::get_operator_address(&mut connection, from.account, Purpose::Gas).await?;
        // No fuel either for a sweep that would revert.
        if screen::store::find_freeze(&mut connection, token.asset, &[from.address, treasury.address]).await?.is_some() {
            return Ok(Progress::Idle);
        }
        drop(connection);
        let Some(terms) = self.terms(from.address, treasury.address, token).await? else { return Ok(Progress::Idle) };
        let gated_by = destination.derived_address;
        let destination = Some(destination);
        let due = match next_sweep_step(SweepSituation { token_units: token.units, native_units: native.units, terms }) {
            SweepStep::Nothing => return Ok(Progress::Idle),
            SweepStep::Sweep { units } => {
                let amount = TokenAmount::new(token.asset, units);
                Due { kind: IntentKind::Sweep, from, to: treasury.address, amount, terms, payment, destination, gated_by }
            }
            SweepStep::Fuel { units } => {
                let amount = TokenAmount::new(self.chain.native_asset(), units);
                let Some(terms) = self.terms(gas.address, from.address, amount).await? else { return Ok(Progress::Idle) };
                if !self.gas_suffices(&gas, amount, terms).await? {
                    return Ok(Progress::Idle);
                }
                Due { kind: IntentKind::Fuel, from: gas, to: from.address, amount, terms, payment, destination, gated_by }
            }
        };
        self.store(due).await
    }

    /// Whether the gas address holds the fuel and its fee, beyond what is promised already.
    async fn gas_suffices(&self, gas: &DerivedAddress, fuel: TokenAmount, terms: FeeTerms) -> Result<bool, IntentError> {
        let mut connection = self.db.connection().await?;
        let held = ledger::store::balance(&mut connection, fuel.asset, AccountKey::Custody(gas.address)).await?;
        let promised = store::get_promised(&mut connection, fuel.asset, gas.address).await?;
        let free = held.units.saturating_sub(promised.units).saturating_sub(promised.gas_units);
        let wanted = fuel.units.saturating_add(cost_ceiling(terms));
        if free < wanted {
            tracing::warn!(
                chain.id = self.chain.id.get(), address = %gas.address, %free, %wanted,
                "gas address is too low to fuel a sweep; send it native coin"
            );
        }
        Ok(free >= wanted)
    }

    async fn plan_release(&self, payment: PaymentId) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let Some(payment) = payment::store::find(&mut connection, payment).await? else { return Ok(Progress::Idle) };
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let deposit_address = account::store::get_address(&mut connection, destination.derived_address).await?;
        let treasury = account::store::get_operator_address(&mut connection, deposit_address.account, Purpose::Treasury).await?;
        let custody = AccountKey::Custody(treasury.address);
        let token = ledger::store::balance(&mut connection, payment.due.asset, custody).await?;
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        let promised = store::get_promised(&mut connection, payment.due.asset, treasury.address).await?;
        if screen::store::find_freeze(&mut connection, payment.due.asset, &[treasury.address, payment.seller_address]).await?.is_some() {
            return Ok(Progress::Idle);
        }
        drop(connection);
        let Some(terms) = self.terms(treasury.address, payment.seller_address, payment.due).await? else { return Ok(Progress::Idle) };
        let situation = ReleaseSituation {
            due_units: payment.due.units,
            treasury_token_units: token.units,
            promised_token_units: promised.units,
            treasury_native_units: native.units,
            promised_native_units: promised.gas_units,
            terms,
        };
        match next_release_step(situation) {
            ReleaseStep::WaitForSweep => Ok(Progress::Idle),
            ReleaseStep::WaitForGas { missing } => {
                tracing::warn!(
                    chain.id = self.chain.id.get(), address = %treasury.address, %missing, payment.id = %payment.id,
                    "treasury is too low on native coin for a release; send it some"
                );
                Ok(Progress::Idle)
            }
            ReleaseStep::Release => {
                let (to, amount) = (payment.seller_address, payment.due);
                let gated_by = destination.derived_address;
                self.store(Due { kind: IntentKind::Release, from: treasury, to, amount, terms, payment, destination: None, gated_by }).await
            }
        }
    }

    /// Gas limit and fee caps for a transfer; `None` while gas is dearer than the operator allows.
    async fn terms(&self, from: Address, to: Address, amount: TokenAmount) -> Result<Option<FeeTerms>, IntentError> {
        let fees = self.node.fees().await?;
        let max_fee_per_gas = fees.base_fee.saturating_mul(2).saturating_add(fees.priority).max(1);
        if max_fee_per_gas > self.policy.max_fee_per_gas_max {
            tracing::warn!(
                chain.id = self.chain.id.get(),
                max_fee_per_gas,
                allowed = self.policy.max_fee_per_gas_max,
                "gas is dearer than allowed; nothing is planned until it falls"
            );
            return Ok(None);
        }
        let call = match amount.asset.asset {
            Asset::Native => CallRequest { from, to, value: U256::ZERO, data: Default::default() },
            Asset::Token(contract) => {
                let data = transferCall { to, amount: amount.units }.abi_encode().into();
                CallRequest { from, to: contract, value: U256::ZERO, data }
            }
        };
        let estimate = self.node.estimate_gas(&call).await?;
        if estimate > GAS_MAX {
            return Err(IntentError::GasTooHigh { estimate, max: GAS_MAX });
        }
        // A quarter on top: the state may change between now and the block that includes it.
        let gas_limit = estimate.saturating_add(estimate / 4).max(21_000);
        let priority = fees.priority.min(max_fee_per_gas);
        Ok(Some(FeeTerms { gas_limit, max_fee_per_gas, max_priority_fee_per_gas: priority }))
    }

    /// Stores the intent, its nonce and its reservation in one transaction.
    async fn store(&self, due: Due) -> Result<Progress, IntentError> {
        let chain_count = self.node.nonce_latest(due.from.address).await?;
        let approvals_required = self.policy.approvals_required;
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    let chain = due.amount.asset.chain;
                    if confirm::store::find_halt(connection, chain).await?.is_some() {
                        return Ok(Progress::Idle);
                    }
                    // Something may have been credited at the address since it was listed.
                    if !confirm::store::is_released(connection, chain, due.gated_by).await? {
                        return Ok(Progress::Idle);
                    }
                    // And what is there may be held since.
                    if screen::store::find_hold(connection, chain, due.gated_by).await?.is_some() {
                        return Ok(Progress::Idle);
                    }
                    let taken = store::list_taken_nonces(connection, chain, due.from.address).await?;
                    let nonce = next_nonce(chain_count, &taken).map_err(|ForeignNonce(nonce)| IntentError::ForeignNonce {
                        chain,
                        address: due.from.address,
                        nonce,
                    })?;
                    let intent = draft(&due, nonce, approvals_required);
                    store::insert(connection, &intent).await?;
                    reserve(connection, &due, &intent).await?;
                    let detail = serde_json::json!({ "kind": intent.kind.name(), "nonce": nonce, "digest": intent.digest });
                    event::store::append(connection, &Event::of_intent("intent.planned", intent.id, intent.payment, chain, detail)).await?;
                    tracing::info!(
                        intent.id = %intent.id, chain.id = chain.get(), kind = intent.kind.name(), nonce,
                        from = %intent.from.path, to = %intent.to, amount = %intent.amount.units, "intent planned"
                    );
                    Ok(Progress::Worked)
                })
            })
            .await
    }
}

fn draft(due: &Due, nonce: u64, approvals_required: u8) -> Intent {
    let mut intent = Intent {
        id: IntentId(Uuid::now_v7()),
        kind: due.kind,
        state: IntentState::Planned,
        state_version: 1,
        revision: 1,
        from: due.from,
        to: due.to,
        amount: due.amount,
        nonce,
        fees: due.terms,
        payment: Some(due.payment.id),
        destination: due.destination.map(|destination| destination.id),
        digest: Default::default(),
        approvals_required,
        requested_by: match due.kind {
            // Whoever asked for the release may not approve it too.
            IntentKind::Release => due.payment.release_requested_by.clone().unwrap_or_else(|| "daemon".to_owned()),
            IntentKind::Sweep | IntentKind::Fuel | IntentKind::Refund | IntentKind::Cancel => "daemon".to_owned(),
        },
        station: None,
    };
    intent.digest = digest::digest_of(&intent);
    intent
}

fn intent_page(after: &Mutex<PaymentId>) -> PaymentId {
    *after.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next page begins after this one; after the last, at the beginning.
fn turn_page(after: &Mutex<PaymentId>, page: &[PaymentId]) {
    let full = i64::try_from(page.len()).is_ok_and(|length| length >= ITEMS_PER_TICK);
    let next = page.last().copied().filter(|_| full).unwrap_or(PaymentId(Uuid::nil()));
    *after.lock().unwrap_or_else(PoisonError::into_inner) = next;
}

/// Sets the money aside: what an intent takes cannot be taken by another.
async fn reserve(connection: &mut sqlx::PgConnection, due: &Due, intent: &Intent) -> Result<(), IntentError> {
    match due.kind {
        IntentKind::Sweep => {
            if let Some(destination) = due.destination {
                deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Sweeping).await?;
            }
        }
        // Fuel is the operator's own coin; the unique index keeps it to one at a time per destination.
        IntentKind::Fuel => {}
        IntentKind::Release => {
            let payment = payment::store::lock(connection, due.payment.id).await?;
            payment::store::advance(connection, &payment, PaymentEvent::ReleasePlanned).await?;
            ledger::store::append(connection, &[reservation(intent, &payment)]).await?;
        }
        // Not planned yet; they will reserve like a release.
        IntentKind::Refund | IntentKind::Cancel => {}
    }
    Ok(())
}

/// The key under which a release's reservation stands in the ledger.
pub fn reservation_key(intent: IntentId) -> String {
    format!("intent:{intent}:reserve")
}

fn reservation(intent: &Intent, payment: &Payment) -> Entry {
    Entry {
        entry_type: EntryType::Hold,
        payment: Some(payment.id),
        amount: intent.amount,
        decimals: payment.token_decimals,
        debit: AccountKey::Held(payment.id),
        credit: AccountKey::Payable(payment.id),
        reverses: None,
        key: reservation_key(intent.id),
        memo: format!("reserved for release {}", intent.id),
    }
}
