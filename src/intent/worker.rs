//! Plans what is due on one chain: fuel and sweeps of whole payments, releases that were asked for.
//!
//! Reads the situation, asks the node for nonce and fees, then stores the intent with its reservation in
//! one transaction. Everything is decided again from stored state at the next tick, so a lost tick loses
//! nothing.

use std::sync::Arc;

use alloy::primitives::{Address, U256};
use alloy::sol_types::SolCall;
use uuid::Uuid;

use super::plan::{ForeignNonce, ReleaseSituation, ReleaseStep, SweepSituation, SweepStep, next_nonce, next_release_step, next_sweep_step};
use super::{FeeTerms, Intent, IntentError, IntentKind, IntentState, digest, store};
use crate::account::{self, DerivedAddress, Purpose};
use crate::chains::ChainSpec;
use crate::confirm;
use crate::db::Database;
use crate::deposit::{self, Destination, DestinationStatus};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey, Entry, EntryType};
use crate::payment::{self, Payment, PaymentEvent, PaymentState};
use crate::rpc::{CallRequest, Node};
use crate::scan;
use crate::units::{Asset, IntentId, Outcomes, Progress, TokenAmount};

alloy::sol! {
    function transfer(address to, uint256 amount) returns (bool);
}

/// How many due items one tick looks at.
const ITEMS_PER_TICK: i64 = 20;

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
    pub db: Database,
    pub node: Arc<Node>,
    pub chain: Arc<ChainSpec>,
    pub policy: PlanPolicy,
}

/// An outflow that is due, before it has a nonce.
struct Due {
    kind: IntentKind,
    from: DerivedAddress,
    to: Address,
    amount: TokenAmount,
    terms: FeeTerms,
    payment: Option<Payment>,
    destination: Option<Destination>,
}

impl Planner {
    /// Plans at most [`ITEMS_PER_TICK`] sweeps and as many releases.
    pub async fn tick(&self) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        if scan::store::find_cursor(&mut connection, self.chain.id).await?.is_none()
            || confirm::store::find_halt(&mut connection, self.chain.id).await?.is_some()
        {
            return Ok(Progress::Idle);
        }
        let destinations = deposit::store::list_sweepable(&mut connection, self.chain.id, ITEMS_PER_TICK).await?;
        let payments = payment::store::list_releasable(&mut connection, ITEMS_PER_TICK).await?;
        drop(connection);
        let mut outcomes = Outcomes::new();
        for destination in destinations {
            if !outcomes.note(self.plan_sweep(destination).await, IntentError::disposition) {
                return outcomes.finish();
            }
        }
        for payment in payments.into_iter().filter(|payment| payment.due.asset.chain == self.chain.id) {
            if !outcomes.note(self.plan_release(payment).await, IntentError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }

    async fn plan_sweep(&self, destination: Destination) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        if store::is_destination_busy(&mut connection, destination.id).await? {
            return Ok(Progress::Idle);
        }
        let payment = payment::store::find(&mut connection, destination.payment).await?;
        let Some(payment) = payment else { return Ok(Progress::Idle) };
        let from = account::store::get_address(&mut connection, destination.derived_address).await?;
        let custody = AccountKey::Custody(from.address);
        let token = ledger::store::balance(&mut connection, payment.due.asset, custody).await?;
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        if token.units.is_zero() {
            return Ok(Progress::Idle);
        }
        let treasury = account::store::get_operator_address(&mut connection, from.account, Purpose::Treasury).await?;
        let gas = account::store::get_operator_address(&mut connection, from.account, Purpose::Gas).await?;
        drop(connection);
        let Some(terms) = self.terms(from.address, treasury.address, token).await? else { return Ok(Progress::Idle) };
        let situation = SweepSituation { token_units: token.units, native_units: native.units, terms };
        let due = match next_sweep_step(situation) {
            SweepStep::Nothing => return Ok(Progress::Idle),
            SweepStep::Sweep { units } => Due {
                kind: IntentKind::Sweep,
                from,
                to: treasury.address,
                amount: TokenAmount::new(token.asset, units),
                terms,
                payment: Some(payment),
                destination: Some(destination),
            },
            SweepStep::Fuel { units } => {
                let amount = TokenAmount::new(self.chain.native_asset(), units);
                if !self.gas_suffices(&gas, amount).await? {
                    return Ok(Progress::Idle);
                }
                let Some(terms) = self.terms(gas.address, from.address, amount).await? else { return Ok(Progress::Idle) };
                Due {
                    kind: IntentKind::Fuel,
                    from: gas,
                    to: from.address,
                    amount,
                    terms,
                    payment: Some(payment),
                    destination: Some(destination),
                }
            }
        };
        self.store(due).await
    }

    /// Whether the gas address holds the fuel and its fee, beyond what is promised already.
    async fn gas_suffices(&self, gas: &DerivedAddress, fuel: TokenAmount) -> Result<bool, IntentError> {
        let mut connection = self.db.connection().await?;
        let held = ledger::store::balance(&mut connection, fuel.asset, AccountKey::Custody(gas.address)).await?;
        let promised = store::get_promised(&mut connection, fuel.asset, gas.address).await?;
        let free = held.units.saturating_sub(promised.units).saturating_sub(promised.gas_units);
        let suffices = free > fuel.units;
        if !suffices {
            tracing::warn!(
                chain.id = self.chain.id.get(), address = %gas.address, held = %held.units, wanted = %fuel.units,
                "gas address is too low to fuel a sweep; send it native coin"
            );
        }
        Ok(suffices)
    }

    async fn plan_release(&self, payment: Payment) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let deposit_address = account::store::get_address(&mut connection, destination.derived_address).await?;
        let treasury = account::store::get_operator_address(&mut connection, deposit_address.account, Purpose::Treasury).await?;
        let custody = AccountKey::Custody(treasury.address);
        let token = ledger::store::balance(&mut connection, payment.due.asset, custody).await?;
        if token.units < payment.due.units {
            return Ok(Progress::Idle);
        }
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        let promised = store::get_promised(&mut connection, payment.due.asset, treasury.address).await?;
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
                self.store(Due { kind: IntentKind::Release, from: treasury, to, amount, terms, payment: Some(payment), destination: None })
                    .await
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
        payment: due.payment.as_ref().map(|payment| payment.id),
        destination: due.destination.map(|destination| destination.id),
        digest: Default::default(),
        approvals_required,
        requested_by: "daemon".to_owned(),
        station: None,
    };
    intent.digest = digest::digest_of(&intent);
    intent
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
            if let Some(payment) = &due.payment {
                let payment = payment::store::lock(connection, payment.id).await?;
                if payment.state != PaymentState::Releasable {
                    let source = payment::Illegal { state: payment.state, event: PaymentEvent::ReleasePlanned };
                    return Err(payment::PaymentError::Illegal { payment: payment.id, source }.into());
                }
                ledger::store::append(connection, &[reservation(intent, &payment)]).await?;
                payment::store::advance(connection, &payment, PaymentEvent::ReleasePlanned).await?;
            }
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
