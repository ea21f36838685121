//! Plans what is due on one chain: the orders of payments, and fuel and sweeps of whole ones.
//!
//! Reads the situation, asks the node for nonce and fees, then stores the intent with its reservation in
//! one transaction. Everything is decided again from stored state at the next tick, so a lost tick loses
//! nothing.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::{Address, U256};
use alloy::sol_types::SolCall;
use uuid::Uuid;

use super::plan::{
    DirectSituation, DirectStep, NONCES_SPAN, ReleaseSituation, ReleaseStep, SweepSituation, SweepStep, cost_ceiling, foreign_nonces,
    next_direct_step, next_nonce, next_release_step, next_sweep_step,
};
use super::{FeeTerms, Intent, IntentError, IntentKind, IntentState, baseline, digest, judge, store};
use crate::account::{self, DerivedAddress, Purpose};
use crate::chains::ChainSpec;
use crate::confirm;
use crate::db::Database;
use crate::deposit::{self, Destination, DestinationStatus};
use crate::escrow::{self, Payout, PayoutKind, PayoutState};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey};
use crate::payment::{self, Payment};
use crate::policy::{APPROVALS_EXPIRE_MINUTES, PolicyError, Refusal};
use crate::rpc::{CallRequest, Node};
use crate::scan;
use crate::screen;
use crate::units::{Asset, ChainId, IntentId, Outcomes, PaymentId, PolicyId, Progress, TokenAmount};

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
    /// Officers needed per intent while there is no policy.
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
    sweeps_after: Mutex<Uuid>,
    payouts_after: Mutex<Uuid>,
}

/// An outflow that is due, before it has a nonce.
struct Due {
    kind: IntentKind,
    from: DerivedAddress,
    to: Address,
    amount: TokenAmount,
    terms: FeeTerms,
    payment: Payment,
    /// The order that it pays.
    payout: Option<Payout>,
    destination: Option<Destination>,
    /// The deposit address whose money this is.
    gated_by: Uuid,
}

/// Fuel for a deposit address, before it has a price.
struct FuelFor {
    units: U256,
    gas: DerivedAddress,
    to: Address,
    payment: Payment,
    destination: Option<Destination>,
    gated_by: Uuid,
}

/// What a tick looks at.
#[derive(Clone, Copy)]
enum Item {
    Unreserved(Uuid),
    Payout(Uuid),
    Sweep(Uuid),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreserved(id) | Self::Payout(id) => write!(f, "payout {id}"),
            Self::Sweep(id) => write!(f, "sweep of payment {id}"),
        }
    }
}

impl Planner {
    pub fn new(db: Database, node: Arc<Node>, chain: Arc<ChainSpec>, policy: PlanPolicy) -> Self {
        Self { db, node, chain, policy, sweeps_after: Mutex::default(), payouts_after: Mutex::default() }
    }

    /// Plans at most [`ITEMS_PER_TICK`] orders and as many sweeps. One that fails is told of and left;
    /// the others are planned.
    pub async fn tick(&self) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        if scan::store::find_cursor(&mut connection, self.chain.id).await?.is_none()
            || confirm::store::find_halt(&mut connection, self.chain.id).await?.is_some()
        {
            return Ok(Progress::Idle);
        }
        let unreserved = escrow::store::list_unreserved(&mut connection, self.chain.id, ITEMS_PER_TICK).await?;
        let after = page_start(&self.payouts_after);
        let payouts = escrow::store::list_ordered(&mut connection, self.chain.id, after, ITEMS_PER_TICK).await?;
        turn_page(&self.payouts_after, &payouts);
        let after = PaymentId(page_start(&self.sweeps_after));
        let sweeps: Vec<Uuid> =
            store::list_sweepable(&mut connection, self.chain.id, after, ITEMS_PER_TICK).await?.into_iter().map(|id| id.0).collect();
        turn_page(&self.sweeps_after, &sweeps);
        let ordered = store::list_sweepable_for_orders(&mut connection, self.chain.id, ITEMS_PER_TICK).await?;
        let sweeps = sweeps.into_iter().chain(ordered.into_iter().map(|id| id.0));
        drop(connection);
        let mut outcomes = Outcomes::new();
        let steps = unreserved.into_iter().map(Item::Unreserved);
        for item in steps.chain(payouts.into_iter().map(Item::Payout)).chain(sweeps.into_iter().map(Item::Sweep)) {
            let planned = match item {
                Item::Unreserved(payout) => self.drop_unreserved(payout).await,
                Item::Payout(payout) => self.plan_payout(payout).await,
                Item::Sweep(payment) => self.plan_sweep(PaymentId(payment)).await,
            };
            let planned = planned.map_err(|source| IntentError::Item { what: item.to_string(), source: Box::new(source) });
            if !outcomes.note(planned, IntentError::disposition) {
                break;
            }
        }
        outcomes.finish()
    }

    /// An order whose money left the chain with the credit that it came from has nothing to pay.
    async fn drop_unreserved(&self, payout: Uuid) -> Result<Progress, IntentError> {
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    let payout = escrow::store::get_payout(connection, payout).await?;
                    let payment = payment::store::lock(connection, payout.payment).await?;
                    let payout = escrow::store::get_payout(connection, payout.id).await?;
                    if payout.state == PayoutState::Ordered {
                        escrow::withdraw(connection, &payment, &payout, "its money left the chain").await?;
                    }
                    Ok(Progress::Worked)
                })
            })
            .await
    }

    async fn plan_sweep(&self, payment: PaymentId) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let Some(payment) = payment::store::find(&mut connection, payment).await? else { return Ok(Progress::Idle) };
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let from = account::store::get_address(&mut connection, destination.derived_address).await?;
        let custody = AccountKey::Custody(from.address);
        let token = ledger::store::balance(&mut connection, payment.due.asset, custody).await?;
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        let promised = store::get_promised(&mut connection, payment.due.asset, from.address).await?;
        // A refund is on its way from there, or fuel for one: what it leaves is swept afterwards.
        let busy = !promised.gas_units.is_zero() || store::has_live_at(&mut connection, destination.id).await?;
        if token.units.is_zero() || busy {
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
                Due { kind: IntentKind::Sweep, from, to: treasury.address, amount, terms, payment, payout: None, destination, gated_by }
            }
            SweepStep::Fuel { units } => {
                return self.plan_fuel(FuelFor { units, gas, to: from.address, payment, destination, gated_by }).await;
            }
        };
        self.store(due).await
    }

    /// Native coin for a deposit address, if the gas address has it.
    async fn plan_fuel(&self, fuel: FuelFor) -> Result<Progress, IntentError> {
        let FuelFor { units, gas, to, payment, destination, gated_by } = fuel;
        let amount = TokenAmount::new(self.chain.native_asset(), units);
        let Some(terms) = self.terms(gas.address, to, amount).await? else { return Ok(Progress::Idle) };
        if !self.gas_suffices(&gas, amount, terms).await? {
            return Ok(Progress::Idle);
        }
        self.store(Due { kind: IntentKind::Fuel, from: gas, to, amount, terms, payment, payout: None, destination, gated_by }).await
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

    /// A refund is paid from the address that holds the money, if one address does; a release always from the
    /// treasury, where its deposit was swept to.
    async fn plan_payout(&self, payout: Uuid) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let payout = escrow::store::get_payout(&mut connection, payout).await?;
        let Some(payment) = payment::store::find(&mut connection, payout.payment).await? else { return Ok(Progress::Idle) };
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let deposit_address = account::store::get_address(&mut connection, destination.derived_address).await?;
        let at_deposit = ledger::store::balance(&mut connection, payout.gross.asset, AccountKey::Custody(deposit_address.address)).await?;
        drop(connection);
        match payout.kind {
            PayoutKind::Release => self.pay_from_treasury(payment, payout, destination, &deposit_address).await,
            PayoutKind::Refund if at_deposit.units >= payout.net().units => {
                self.pay_from_deposit(payment, payout, destination, deposit_address).await
            }
            // Swept, or it came to an operator address in the first place.
            PayoutKind::Refund if at_deposit.units.is_zero() => {
                self.pay_from_treasury(payment, payout, destination, &deposit_address).await
            }
            PayoutKind::Refund if destination.status != DestinationStatus::Swept || payout.gross.asset != payment.due.asset => {
                Ok(Progress::Idle)
            }
            // Part of it came after the sweep: that part is swept too, and then the treasury pays.
            PayoutKind::Refund => {
                self.db
                    .unit(move |connection| {
                        Box::pin(async move {
                            let (from, to) = (DestinationStatus::Swept, DestinationStatus::Active);
                            deposit::store::advance(connection, destination.id, from, to).await?;
                            Ok(Progress::Worked)
                        })
                    })
                    .await
            }
        }
    }

    async fn pay_from_deposit(
        &self,
        payment: Payment,
        payout: Payout,
        destination: Destination,
        from: DerivedAddress,
    ) -> Result<Progress, IntentError> {
        let (asset, native) = (payout.gross.asset, self.chain.native_asset());
        let mut connection = self.db.connection().await?;
        if store::has_live_at(&mut connection, destination.id).await? {
            return Ok(Progress::Idle);
        }
        let custody = AccountKey::Custody(from.address);
        let held = ledger::store::balance(&mut connection, asset, custody).await?;
        let coin = ledger::store::balance(&mut connection, native, custody).await?;
        let promised = store::get_promised(&mut connection, asset, from.address).await?;
        let promised_coin = store::get_promised(&mut connection, native, from.address).await?;
        let gas = account::store::get_operator_address(&mut connection, from.account, Purpose::Gas).await?;
        drop(connection);
        let amount = payout.net();
        let Some(terms) = self.terms(from.address, payout.to, amount).await? else { return Ok(Progress::Idle) };
        let situation = DirectSituation {
            units: amount.units,
            is_native: asset == native,
            free_units: held.units.saturating_sub(promised.units),
            free_native_units: coin.units.saturating_sub(promised_coin.units).saturating_sub(promised_coin.gas_units),
            terms,
        };
        let gated_by = destination.derived_address;
        match next_direct_step(situation) {
            DirectStep::Elsewhere => Ok(Progress::Idle),
            DirectStep::Fuel { units } => {
                self.plan_fuel(FuelFor { units, gas, to: from.address, payment, destination: Some(destination), gated_by }).await
            }
            DirectStep::Pay => {
                let (kind, to) = (kind_of(&payout), payout.to);
                self.store(Due { kind, from, to, amount, terms, payment, payout: Some(payout), destination: None, gated_by }).await
            }
        }
    }

    async fn pay_from_treasury(
        &self,
        payment: Payment,
        payout: Payout,
        destination: Destination,
        deposit_address: &DerivedAddress,
    ) -> Result<Progress, IntentError> {
        let amount = payout.net();
        let mut connection = self.db.connection().await?;
        let mut treasury = account::store::get_operator_address(&mut connection, deposit_address.account, Purpose::Treasury).await?;
        let mut token = ledger::store::balance(&mut connection, amount.asset, AccountKey::Custody(treasury.address)).await?;
        let gas = account::store::get_operator_address(&mut connection, deposit_address.account, Purpose::Gas).await?;
        let at_gas = ledger::store::balance(&mut connection, amount.asset, AccountKey::Custody(gas.address)).await?;
        // Tokens that came to the gas address go back from there.
        let is_token = amount.asset != self.chain.native_asset();
        if payout.kind == PayoutKind::Refund && is_token && token.units < amount.units && at_gas.units >= amount.units {
            (treasury, token) = (gas, at_gas);
        }
        let custody = AccountKey::Custody(treasury.address);
        let native = ledger::store::balance(&mut connection, self.chain.native_asset(), custody).await?;
        let promised = store::get_promised(&mut connection, amount.asset, treasury.address).await?;
        if screen::store::find_freeze(&mut connection, amount.asset, &[treasury.address, payout.to]).await?.is_some() {
            return Ok(Progress::Idle);
        }
        drop(connection);
        let Some(terms) = self.terms(treasury.address, payout.to, amount).await? else { return Ok(Progress::Idle) };
        let situation = ReleaseSituation {
            due_units: amount.units,
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
                    "treasury is too low on native coin for a payout; send it some"
                );
                Ok(Progress::Idle)
            }
            ReleaseStep::Release => {
                let (kind, to, gated_by) = (kind_of(&payout), payout.to, destination.derived_address);
                self.store(Due { kind, from: treasury, to, amount, terms, payment, payout: Some(payout), destination: None, gated_by })
                    .await
            }
        }
    }

    /// Gas limit and fee caps for a transfer; `None` while gas is dearer than the operator allows.
    async fn terms(&self, from: Address, to: Address, amount: TokenAmount) -> Result<Option<FeeTerms>, IntentError> {
        self.refuse_foreign(from).await?;
        let fees = self.node.fees().await?;
        let max_fee_per_gas = fees.base_fee.saturating_mul(2).saturating_add(fees.priority).max(1);
        let allowed = self.chain.fee_cap(self.policy.max_fee_per_gas_max);
        if max_fee_per_gas > allowed {
            tracing::warn!(
                chain.id = self.chain.id.get(),
                max_fee_per_gas,
                allowed,
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

    /// Before anything is estimated: what is forgotten has moved the money, and an estimate would only say that it
    /// is not there.
    async fn refuse_foreign(&self, address: Address) -> Result<(), IntentError> {
        let (chain, count) = (self.chain.id, self.node.nonce_latest(address).await?);
        let found = self.db.unit(move |connection| Box::pin(async move { find_foreign(connection, chain, address, count).await })).await?;
        match found {
            Some(nonce) => Err(IntentError::ForeignNonce { chain, address, nonce }),
            None => Ok(()),
        }
    }

    /// Stores the intent, its nonce and its reservation in one transaction.
    async fn store(&self, due: Due) -> Result<Progress, IntentError> {
        let chain_count = self.node.nonce_latest(due.from.address).await?;
        let approvals_required = self.policy.approvals_required;
        let planned = self
            .db
            .unit(move |connection| {
                Box::pin(async move {
                    let chain = due.amount.asset.chain;
                    if confirm::store::find_halt(connection, chain).await?.is_some() {
                        return Ok::<Planned, IntentError>(Planned::Not);
                    }
                    if !still_due(connection, &due).await? {
                        return Ok(Planned::Not);
                    }
                    // Something may have been credited at the address since it was listed.
                    if !confirm::store::is_released(connection, chain, due.gated_by).await? {
                        return Ok(Planned::Not);
                    }
                    // And what is there may be held since.
                    if screen::store::find_hold(connection, chain, due.gated_by).await?.is_some() {
                        return Ok(Planned::Not);
                    }
                    if let Some(nonce) = find_foreign(connection, chain, due.from.address, chain_count).await? {
                        return Ok(Planned::Foreign { chain, address: due.from.address, nonce });
                    }
                    if let Some(payout) = &due.payout
                        && screen::recipient::store::find_hold(connection, due.payment.id, chain, payout.to).await?.is_some()
                    {
                        return Ok(Planned::Not);
                    }
                    let taken = store::list_taken_nonces(connection, chain, due.from.address).await?;
                    let nonce = next_nonce(chain_count, &taken);
                    let intent = draft(&due, nonce, approvals_required);
                    let intent = match store::insert(connection, &intent).await {
                        // Nothing was written but the intent's refusal.
                        Err(IntentError::Policy(PolicyError::Refused { policy, refusals })) => {
                            return Ok(Planned::Refused(Box::new(intent), policy, refusals));
                        }
                        outcome => outcome?,
                    };
                    reserve(connection, &due, &intent).await?;
                    let detail = serde_json::json!({
                        "kind": intent.kind.name(), "nonce": nonce, "digest": intent.digest, "policy": intent.policy,
                        "approvals_required": intent.approvals_required,
                    });
                    event::store::append(connection, &Event::of_intent("intent.planned", intent.id, intent.payment, chain, detail)).await?;
                    tracing::info!(
                        intent.id = %intent.id, chain.id = chain.get(), kind = intent.kind.name(), nonce,
                        from = %intent.from.path, to = %intent.to, amount = %intent.amount.units, "intent planned"
                    );
                    Ok(Planned::Stored)
                })
            })
            .await?;
        match planned {
            Planned::Not => Ok(Progress::Idle),
            Planned::Foreign { chain, address, nonce } => Err(IntentError::ForeignNonce { chain, address, nonce }),
            Planned::Stored => Ok(Progress::Worked),
            Planned::Refused(intent, policy, refusals) => self.refused(*intent, policy, &refusals).await,
        }
    }

    /// What the policy refuses is due again at the next tick: a limit has room again some time, and a cooling
    /// ends. It is noted for people, and told when it is news.
    async fn refused(&self, intent: Intent, policy: PolicyId, refusals: &[Refusal]) -> Result<Progress, IntentError> {
        let reasons = refusals.iter().map(Refusal::to_string).collect::<Vec<_>>().join("; ");
        self.db
            .unit(move |connection| {
                Box::pin(async move {
                    if judge::store::note_refusal(connection, &intent, policy, &reasons).await? {
                        let detail = serde_json::json!({
                            "kind": intent.kind.name(), "policy": policy, "reasons": reasons, "to": intent.to,
                            "amount_units": intent.amount.units.to_string(), "asset": intent.amount.asset.asset.to_string(),
                        });
                        let chain = Some(intent.chain());
                        let event = Event { kind: "policy.outflow_refused", payment: intent.payment, intent: None, chain, detail };
                        event::store::append(connection, &event).await?;
                        tracing::warn!(
                            chain.id = intent.chain().get(), kind = intent.kind.name(), %policy, to = %intent.to, amount = %intent.amount.units,
                            "policy refuses an outflow that is due: {reasons}"
                        );
                    }
                    Ok::<Progress, IntentError>(Progress::Idle)
                })
            })
            .await
    }
}

/// Nothing is planned from an address of which the chain has used a nonce that nothing here is signed for: a key
/// that others have, or an outflow that this database has forgotten. It is told once.
async fn find_foreign(
    connection: &mut sqlx::PgConnection,
    chain: ChainId,
    address: Address,
    count: u64,
) -> Result<Option<u64>, IntentError> {
    let floor = baseline::store::get(connection, chain, address).await?.max(count.saturating_sub(NONCES_SPAN));
    let signed = baseline::store::list_signed(connection, chain, address, floor, count).await?;
    let Some(nonce) = foreign_nonces(floor, count, &signed).first().copied() else { return Ok(None) };
    baseline::store::tell_foreign(connection, chain, address, nonce).await?;
    Ok(Some(nonce))
}

/// What became of something due.
enum Planned {
    Not,
    Foreign { chain: ChainId, address: Address, nonce: u64 },
    Stored,
    Refused(Box<Intent>, PolicyId, Vec<Refusal>),
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
        approvals_expire_minutes: APPROVALS_EXPIRE_MINUTES,
        policy: None,
        revised_by: None,
        signed_revision: None,
        cancels: None,
        // Whoever ordered it may not approve it too.
        requested_by: due.payout.as_ref().map_or_else(|| "daemon".to_owned(), |payout| payout.requested_by.clone()),
        station: None,
    };
    intent.digest = digest::digest_of(&intent);
    intent
}

/// Where a page begins.
fn page_start(after: &Mutex<Uuid>) -> Uuid {
    *after.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next page begins after this one; after the last, at the beginning.
fn turn_page(after: &Mutex<Uuid>, page: &[Uuid]) {
    let full = i64::try_from(page.len()).is_ok_and(|length| length >= ITEMS_PER_TICK);
    let next = page.last().copied().filter(|_| full).unwrap_or_default();
    *after.lock().unwrap_or_else(PoisonError::into_inner) = next;
}

fn kind_of(payout: &Payout) -> IntentKind {
    match payout.kind {
        PayoutKind::Release => IntentKind::Release,
        PayoutKind::Refund => IntentKind::Refund,
    }
}

/// Locks the payment of an order and looks again: it may have been taken back, disputed, or its address
/// quarantined since it was listed.
async fn still_due(connection: &mut sqlx::PgConnection, due: &Due) -> Result<bool, IntentError> {
    let Some(payout) = &due.payout else { return Ok(true) };
    let payment = payment::store::lock(connection, due.payment.id).await?;
    let payout = escrow::store::get_payout(connection, payout.id).await?;
    let destination = deposit::store::get_by_payment(connection, payment.id).await?;
    let reachable = match destination.status {
        DestinationStatus::Swept => true,
        DestinationStatus::Active => payout.kind == PayoutKind::Refund,
        DestinationStatus::Sweeping | DestinationStatus::Quarantined => false,
    };
    Ok(reachable && payout.state == PayoutState::Ordered && ledger::store::is_standing(connection, &payout.reservation_key).await?)
}

/// Marks what the intent takes as taken: it cannot be taken by another.
async fn reserve(connection: &mut sqlx::PgConnection, due: &Due, intent: &Intent) -> Result<(), IntentError> {
    match (&due.payout, due.kind) {
        // Its money was set aside when it was ordered.
        (Some(payout), _) => {
            let payment = payment::store::lock(connection, due.payment.id).await?;
            escrow::planned(connection, &payment, payout, intent.id).await?;
        }
        (None, IntentKind::Sweep) => {
            if let Some(destination) = due.destination {
                deposit::store::advance(connection, destination.id, DestinationStatus::Active, DestinationStatus::Sweeping).await?;
            }
        }
        // Fuel is the operator's own coin; the unique index keeps it to one at a time per destination.
        (None, IntentKind::Fuel | IntentKind::Release | IntentKind::Refund | IntentKind::Cancel) => {}
    }
    Ok(())
}
