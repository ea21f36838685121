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

use super::economy::{Economy, PaidFrom, PathFacts, SweepVerdict, Sweepable, paid_from};
use super::plan::{
    Cost, DirectSituation, DirectStep, Fuel, NONCES_SPAN, ReleaseSituation, ReleaseStep, SweepSituation, SweepStep, foreign_nonces,
    next_direct_step, next_nonce, next_release_step, next_sweep_step,
};
use super::{FeeTerms, Intent, IntentError, IntentKind, IntentState, baseline, digest, economy, judge, store};
use crate::account::{self, DerivedAddress, Purpose};
use crate::chains::{ChainSpec, L1Fee, ReleasePath};
use crate::confirm;
use crate::db::Database;
use crate::deposit::{self, Destination, DestinationStatus};
use crate::escrow::{self, Payout, PayoutKind, PayoutState};
use crate::event::{self, Event};
use crate::ledger::{self, AccountKey};
use crate::officer::proposal;
use crate::payment::{self, Payment};
use crate::policy::{APPROVALS_EXPIRE_MINUTES, PolicyError, Refusal};
use crate::rpc::{CallRequest, Node};
use crate::scan;
use crate::screen;
use crate::units::{Asset, AssetId, ChainId, IntentId, Outcomes, PaymentId, PolicyId, Progress, TokenAmount};

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
    leftovers_after: Mutex<Uuid>,
}

/// An outflow that is due, before it has a nonce.
struct Due {
    kind: IntentKind,
    from: DerivedAddress,
    to: Address,
    amount: TokenAmount,
    cost: Cost,
    payment: Payment,
    /// The order that it pays.
    payout: Option<Payout>,
    destination: Option<Destination>,
    /// The deposit address whose money this is.
    gated_by: Uuid,
}

/// Fuel for a deposit address, before it has a price.
struct FuelFor {
    fuel: Fuel,
    economy: Economy,
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
    /// Of a payment that is over.
    Leftover(Uuid),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreserved(id) | Self::Payout(id) => write!(f, "payout {id}"),
            Self::Sweep(id) => write!(f, "sweep of payment {id}"),
            Self::Leftover(id) => write!(f, "sweep of what is left of payment {id}"),
        }
    }
}

impl Planner {
    pub fn new(db: Database, node: Arc<Node>, chain: Arc<ChainSpec>, policy: PlanPolicy) -> Self {
        Self { db, node, chain, policy, sweeps_after: Mutex::default(), payouts_after: Mutex::default(), leftovers_after: Mutex::default() }
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
        let after = PaymentId(page_start(&self.leftovers_after));
        let leftovers = economy::store::list_leftovers(&mut connection, self.chain.id, after, ITEMS_PER_TICK).await?;
        let leftovers: Vec<Uuid> = leftovers.into_iter().map(|id| id.0).collect();
        turn_page(&self.leftovers_after, &leftovers);
        drop(connection);
        let mut outcomes = Outcomes::new();
        let steps = unreserved.into_iter().map(Item::Unreserved);
        let sweeps = sweeps.map(Item::Sweep).chain(leftovers.into_iter().map(Item::Leftover));
        for item in steps.chain(payouts.into_iter().map(Item::Payout)).chain(sweeps) {
            let planned = match item {
                Item::Unreserved(payout) => self.drop_unreserved(payout).await,
                Item::Payout(payout) => self.plan_payout(payout).await,
                Item::Sweep(payment) | Item::Leftover(payment) => self.plan_sweep(PaymentId(payment)).await,
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
        let economy = self.economy(&mut connection).await?;
        drop(connection);
        let Some(cost) = self.cost(from.address, treasury.address, token).await? else { return Ok(Progress::Idle) };
        let there = AtDeposit { payment: &payment, destination, asset: token.asset, units: token.units, native_units: native.units, cost };
        match self.orders_at(&economy, &there).await? {
            // What an order takes from here is not swept away under it.
            Orders::PaidFromHere => return Ok(Progress::Idle),
            Orders::None if economy.release_path == ReleasePath::Direct && payment.state.is_in_escrow() => return Ok(Progress::Idle),
            orders @ (Orders::None | Orders::WantIt) => {
                let wanted = matches!(orders, Orders::WantIt);
                if !matches!(economy.sweep(&self.sweepable(&there, wanted).await?), SweepVerdict::Now(_)) {
                    return Ok(Progress::Idle);
                }
            }
        }
        let gated_by = destination.derived_address;
        let situation = SweepSituation {
            units: token.units,
            is_native: token.asset == self.chain.native_asset(),
            native_units: native.units,
            cost,
            fuel: economy.fuel,
        };
        let due = match next_sweep_step(situation) {
            SweepStep::Nothing => return Ok(Progress::Idle),
            SweepStep::Sweep { units } => {
                let (amount, destination) = (TokenAmount::new(token.asset, units), Some(destination));
                Due { kind: IntentKind::Sweep, from, to: treasury.address, amount, cost, payment, payout: None, destination, gated_by }
            }
            SweepStep::Fuel(fuel) => {
                let destination = Some(destination);
                return self.plan_fuel(FuelFor { fuel, economy, gas, to: from.address, payment, destination, gated_by }).await;
            }
        };
        self.store(due).await
    }

    /// What counts for the chain now.
    async fn economy(&self, connection: &mut sqlx::PgConnection) -> Result<Economy, IntentError> {
        let now = proposal::store::clock(connection).await?;
        Ok(economy::store::get_book(connection).await?.economy(&self.chain, now))
    }

    /// Money at a deposit address as the planner weighs it. Gas for a fuel is reckoned like that of the sweep: it is
    /// less, and a bound is enough.
    async fn sweepable(&self, there: &AtDeposit<'_>, wanted: bool) -> Result<Sweepable, IntentError> {
        let mut connection = self.db.connection().await?;
        let ceiling = there.cost.ceiling();
        let fuelled = there.native_units >= ceiling;
        Ok(Sweepable {
            asset: there.asset.asset,
            decimals: there.payment.token_decimals,
            units: there.units,
            age_minutes: economy::store::get_age_minutes(&mut connection, there.payment.id, there.destination.id).await?,
            wanted,
            cost_units: if fuelled { ceiling } else { ceiling.saturating_mul(U256::from(2)) },
            prices: economy::store::find_prices(&mut connection, &self.chain, there.asset).await?,
        })
    }

    /// What the orders of a payment mean for the money at its address.
    async fn orders_at(&self, economy: &Economy, there: &AtDeposit<'_>) -> Result<Orders, IntentError> {
        let mut connection = self.db.connection().await?;
        let orders = escrow::store::list_payouts(&mut connection, there.payment.id).await?;
        drop(connection);
        let mut wanted = Orders::None;
        for order in orders {
            if order.state != PayoutState::Ordered || order.gross.asset != there.asset {
                continue;
            }
            match self.paid_from(economy, &order, there).await? {
                PaidFrom::Deposit => return Ok(Orders::PaidFromHere),
                PaidFrom::Treasury => wanted = Orders::WantIt,
            }
        }
        Ok(wanted)
    }

    /// From where an order is paid while its payment's deposit is not swept. A refund from where the money is, if
    /// one address holds it: it may have been sent by a wallet that expects it from there.
    async fn paid_from(&self, economy: &Economy, order: &Payout, there: &AtDeposit<'_>) -> Result<PaidFrom, IntentError> {
        let due_units = order.net().units;
        let path = match order.kind {
            PayoutKind::Refund => ReleasePath::Direct,
            PayoutKind::Release => economy.release_path,
        };
        let left = AtDeposit { units: there.units.saturating_sub(due_units), ..*there };
        let facts = PathFacts {
            free_units: there.units,
            due_units,
            needs_fuel: there.native_units < economy.fuel.enough(U256::ZERO, there.cost.ceiling()),
            leftover_pays: matches!(economy.sweep(&self.sweepable(&left, false).await?), SweepVerdict::Now(_) | SweepVerdict::Wait { .. }),
        };
        Ok(paid_from(path, facts))
    }

    /// Native coin for a deposit address, if the gas address has it and the caps allow it.
    async fn plan_fuel(&self, fuel: FuelFor) -> Result<Progress, IntentError> {
        let FuelFor { fuel, economy, gas, to, payment, destination, gated_by } = fuel;
        let mut connection = self.db.connection().await?;
        let today = economy::store::get_fuel_of_day(&mut connection, self.chain.id).await?;
        drop(connection);
        let units = match economy.fuel.cap(fuel.wanted, fuel.least, today) {
            Ok(units) => units,
            Err(refusal) => {
                tracing::warn!(chain.id = self.chain.id.get(), address = %to, payment.id = %payment.id, "no fuel is planned: {refusal}");
                return Ok(Progress::Idle);
            }
        };
        let amount = TokenAmount::new(self.chain.native_asset(), units);
        let Some(cost) = self.cost(gas.address, to, amount).await? else { return Ok(Progress::Idle) };
        if !self.gas_suffices(&gas, amount, cost).await? {
            return Ok(Progress::Idle);
        }
        self.store(Due { kind: IntentKind::Fuel, from: gas, to, amount, cost, payment, payout: None, destination, gated_by }).await
    }

    /// Whether the gas address holds the fuel and its fee, beyond what is promised already.
    async fn gas_suffices(&self, gas: &DerivedAddress, fuel: TokenAmount, cost: Cost) -> Result<bool, IntentError> {
        let mut connection = self.db.connection().await?;
        let held = ledger::store::balance(&mut connection, fuel.asset, AccountKey::Custody(gas.address)).await?;
        let promised = store::get_promised(&mut connection, fuel.asset, gas.address).await?;
        let free = held.units.saturating_sub(promised.units).saturating_sub(promised.gas_units);
        let wanted = fuel.units.saturating_add(cost.ceiling());
        if free < wanted {
            tracing::warn!(
                chain.id = self.chain.id.get(), address = %gas.address, %free, %wanted,
                "gas address is too low to fuel a sweep; send it native coin"
            );
        }
        Ok(free >= wanted)
    }

    /// A refund is paid from the address that holds the money, if one address does. A release from there, too,
    /// where that saves a signature; else from the treasury, where its deposit was swept to.
    async fn plan_payout(&self, payout: Uuid) -> Result<Progress, IntentError> {
        let mut connection = self.db.connection().await?;
        let payout = escrow::store::get_payout(&mut connection, payout).await?;
        let Some(payment) = payment::store::find(&mut connection, payout.payment).await? else { return Ok(Progress::Idle) };
        let destination = deposit::store::get_by_payment(&mut connection, payment.id).await?;
        let deposit_address = account::store::get_address(&mut connection, destination.derived_address).await?;
        let at_deposit = ledger::store::balance(&mut connection, payout.gross.asset, AccountKey::Custody(deposit_address.address)).await?;
        drop(connection);
        match payout.kind {
            PayoutKind::Release if destination.status == DestinationStatus::Active => {
                self.release_from_deposit(payment, payout, destination, deposit_address).await
            }
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

    /// Pays a release from the address that holds its payment's money, if that is cheaper; else it waits for the
    /// sweep.
    async fn release_from_deposit(
        &self,
        payment: Payment,
        payout: Payout,
        destination: Destination,
        from: DerivedAddress,
    ) -> Result<Progress, IntentError> {
        let (asset, native) = (payout.gross.asset, self.chain.native_asset());
        let custody = AccountKey::Custody(from.address);
        let mut connection = self.db.connection().await?;
        let held = ledger::store::balance(&mut connection, asset, custody).await?;
        let coin = ledger::store::balance(&mut connection, native, custody).await?;
        let promised = store::get_promised(&mut connection, asset, from.address).await?;
        let economy = self.economy(&mut connection).await?;
        let treasury = account::store::get_operator_address(&mut connection, from.account, Purpose::Treasury).await?;
        drop(connection);
        let units = held.units.saturating_sub(promised.units);
        if economy.release_path == ReleasePath::Treasury || units < payout.net().units {
            return Ok(Progress::Idle);
        }
        // Weighed with the sweep's cost, as the sweep is: both must come to the same end, or neither would happen.
        let whole = TokenAmount::new(asset, held.units);
        let Some(cost) = self.cost(from.address, treasury.address, whole).await? else { return Ok(Progress::Idle) };
        let there = AtDeposit { payment: &payment, destination, asset, units, native_units: coin.units, cost };
        match self.paid_from(&economy, &payout, &there).await? {
            PaidFrom::Deposit => self.pay_from_deposit(payment, payout, destination, from).await,
            PaidFrom::Treasury => Ok(Progress::Idle),
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
        // No fuel either for a payout that would revert.
        if screen::store::find_freeze(&mut connection, asset, &[from.address, payout.to]).await?.is_some() {
            return Ok(Progress::Idle);
        }
        let economy = self.economy(&mut connection).await?;
        drop(connection);
        let amount = payout.net();
        let Some(cost) = self.cost(from.address, payout.to, amount).await? else { return Ok(Progress::Idle) };
        let situation = DirectSituation {
            units: amount.units,
            is_native: asset == native,
            free_units: held.units.saturating_sub(promised.units),
            free_native_units: coin.units.saturating_sub(promised_coin.units).saturating_sub(promised_coin.gas_units),
            cost,
            fuel: economy.fuel,
        };
        let gated_by = destination.derived_address;
        match next_direct_step(situation) {
            DirectStep::Elsewhere => Ok(Progress::Idle),
            DirectStep::Fuel(fuel) => {
                let destination = Some(destination);
                self.plan_fuel(FuelFor { fuel, economy, gas, to: from.address, payment, destination, gated_by }).await
            }
            DirectStep::Pay => {
                let (kind, to) = (kind_of(&payout), payout.to);
                self.store(Due { kind, from, to, amount, cost, payment, payout: Some(payout), destination: None, gated_by }).await
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
        let Some(cost) = self.cost(treasury.address, payout.to, amount).await? else { return Ok(Progress::Idle) };
        let situation = ReleaseSituation {
            due_units: amount.units,
            treasury_token_units: token.units,
            promised_token_units: promised.units,
            treasury_native_units: native.units,
            promised_native_units: promised.gas_units,
            cost,
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
                self.store(Due { kind, from: treasury, to, amount, cost, payment, payout: Some(payout), destination: None, gated_by }).await
            }
        }
    }

    /// Gas limit and fee caps for a transfer, and what its data may cost besides; `None` while gas is dearer than the
    /// operator allows.
    async fn cost(&self, from: Address, to: Address, amount: TokenAmount) -> Result<Option<Cost>, IntentError> {
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
        let terms = FeeTerms { gas_limit, max_fee_per_gas, max_priority_fee_per_gas: priority };
        let l1_fee = match self.chain.l1_fee {
            L1Fee::InGas => U256::ZERO,
            // Twice, as with the base fee: it may rise while officers read.
            L1Fee::OpStack => self.node.l1_fee_upper_bound(unsigned_len(&call)).await?.saturating_mul(U256::from(2)),
        };
        Ok(Some(Cost { terms, l1_fee }))
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
                    if !due.cost.l1_fee.is_zero() {
                        economy::store::set_l1_fee(connection, intent.id, due.cost.l1_fee).await?;
                    }
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

/// Bytes of the unsigned transaction that makes a call, at most: what a rollup charges data by. Everything that is a
/// number takes its longest form.
fn unsigned_len(call: &CallRequest) -> u64 {
    // Type, list header, chain id 9, nonce 9, two fees 17 each, gas limit 9, recipient 21, value 33, empty access list.
    const WITHOUT_DATA: u64 = 1 + 4 + 9 + 9 + 17 + 17 + 9 + 21 + 33 + 1;
    // And the header of the data.
    WITHOUT_DATA.saturating_add(4).saturating_add(u64::try_from(call.data.len()).unwrap_or(u64::MAX))
}

/// Money of a payment at its deposit address, not promised, and what a transaction from there may cost.
#[derive(Clone, Copy)]
struct AtDeposit<'p> {
    payment: &'p Payment,
    destination: Destination,
    asset: AssetId,
    units: U256,
    native_units: U256,
    cost: Cost,
}

/// What orders mean for money that is not swept.
enum Orders {
    None,
    /// One is paid from where it is.
    PaidFromHere,
    /// One waits for it to be swept.
    WantIt,
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
    let Some(nonce) = foreign_nonces(floor, count, &signed).first().copied() else {
        // Further below the chain's count, the watch has looked since the baseline.
        return Ok(baseline::store::find_told(connection, chain, address).await?);
    };
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
        fees: due.cost.terms,
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
        // What is not swept is where it was paid to; only what a refund gives back may have come somewhere else.
        DestinationStatus::Active => payout.kind == PayoutKind::Refund || due.from.address == destination.address,
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
