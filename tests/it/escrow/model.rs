//! A reference of maps and sums beside the real SQL: every command on a payment's money, at random, with
//! repeats and refusals. After each one the two must agree on every claim, state, order and dispute, and the
//! books must be sound.
//!
//! The reference shares no code with the rooms: it says in plain arithmetic what the money of a payment does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use amanatd::payment::PaymentState;
use sqlx::Connection as _;

use super::*;

const SEQUENCES: u64 = 256;
const OPERATIONS: u64 = 200;
const PAYMENTS: u64 = 3;

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }

    fn part(&mut self, of: u64) -> Option<u64> {
        match self.roll(4) {
            0 => None,
            1 => Some(self.roll(of.max(1)) + 1),
            2 => Some(of),
            _ => Some(self.roll(2 * of + 2)),
        }
    }
}

/// How far a payment is, but for what its money says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Pending,
    Processing,
    Escrow,
    Over(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Ordered,
    Planned { station: bool },
    Settled,
    Withdrawn,
}

#[derive(Clone, Debug)]
struct Slip {
    id: Uuid,
    intent: Option<IntentId>,
    release: bool,
    source: Source,
    other: bool,
    gross: u64,
    fees: (u64, u64),
    state: Order,
    dispute: Option<usize>,
}

#[derive(Clone, Debug)]
struct Twin {
    asked: Asked,
    phase: Phase,
    received: u64,
    held: u64,
    disputed: u64,
    payable: [u64; 2],
    suspense: [u64; 2],
    escrowed: u64,
    detected: [u64; 2],
    out: [u64; 2],
    earned: (u64, u64),
    slips: Vec<Slip>,
    disputes: Vec<(Uuid, bool)>,
}

/// Why the reference expects a refusal: the name of the error.
type Refusal = &'static str;

impl Twin {
    fn new(asked: Asked) -> Self {
        Self {
            asked,
            phase: Phase::Pending,
            received: 0,
            held: 0,
            disputed: 0,
            payable: [0; 2],
            suspense: [0; 2],
            escrowed: 0,
            detected: [0; 2],
            out: [0; 2],
            earned: (0, 0),
            slips: Vec::new(),
            disputes: Vec::new(),
        }
    }

    fn enough(&self) -> u64 {
        self.asked.due - self.asked.due * u64::from(self.asked.tolerance_bps) / 10_000
    }

    fn open_dispute(&self) -> Option<usize> {
        self.disputes.iter().position(|(_, open)| *open)
    }

    fn slips_of_escrow(&self) -> impl Iterator<Item = &Slip> {
        self.slips.iter().filter(|slip| matches!(slip.source, Source::Held | Source::Disputed))
    }

    /// As the payment's row must read.
    fn state(&self) -> &'static str {
        match self.phase {
            Phase::Pending => "pending",
            Phase::Processing => "processing",
            Phase::Over(state) => state,
            Phase::Escrow => {
                let any = |wanted: &dyn Fn(&Slip) -> bool| self.slips_of_escrow().any(wanted);
                let gone = any(&|slip| slip.state == Order::Settled);
                if any(&|slip| matches!(slip.state, Order::Planned { .. })) {
                    "confirmed/releasing"
                } else if any(&|slip| slip.state == Order::Ordered) {
                    "confirmed/releasable"
                } else if self.held + self.disputed > 0 {
                    if gone { "confirmed/partial" } else { "confirmed/funded" }
                } else if any(&|slip| slip.state == Order::Settled && slip.release) {
                    "completed/released"
                } else {
                    "refunded/refunded"
                }
            }
        }
    }

    /// An escrow of which nothing is left is over.
    fn settle_phase(&mut self) {
        if self.phase == Phase::Escrow && matches!(self.state(), "completed/released" | "refunded/refunded") {
            self.phase = Phase::Over(self.state());
        }
    }

    fn fill_escrow(&mut self, there: u64) {
        self.escrowed = there.min(self.asked.due);
        self.held += self.escrowed;
        self.suspense[0] += there - self.escrowed;
        self.received = 0;
        self.phase = Phase::Escrow;
    }

    fn credit(&mut self, other: bool, units: u64, late: bool) {
        self.detected[usize::from(other)] += units;
        if other || late || !matches!(self.phase, Phase::Pending | Phase::Processing) {
            self.suspense[usize::from(other)] += units;
            return;
        }
        self.received += units;
        self.phase = Phase::Processing;
        if self.received >= self.enough() {
            self.fill_escrow(self.received);
        }
    }

    fn fee_of_whole(&self, (bps, min): (u32, u64), room: u64) -> u64 {
        (self.escrowed * u64::from(bps) / 10_000).max(min).min(self.escrowed).min(room)
    }

    fn fees_of(&self, units: u64) -> (u64, u64) {
        let before = self.slips.iter().filter(|slip| slip.release && slip.state != Order::Withdrawn);
        let (taken, paid) =
            before.fold((0, (0, 0)), |(taken, paid), slip| (taken + slip.gross, (paid.0 + slip.fees.0, paid.1 + slip.fees.1)));
        let platform = self.fee_of_whole(self.asked.platform, self.escrowed);
        let provider = self.fee_of_whole(self.asked.provider, self.escrowed - platform);
        let due =
            |fee: u64| u64::try_from(u128::from(fee) * u128::from((taken + units).min(self.escrowed)) / u128::from(self.escrowed)).unwrap();
        (due(platform).saturating_sub(paid.0), due(provider).saturating_sub(paid.1))
    }

    fn claim_of(&mut self, source: Source, other: bool) -> &mut u64 {
        match source {
            Source::Received => &mut self.received,
            Source::Held => &mut self.held,
            Source::Disputed => &mut self.disputed,
            Source::Suspense => &mut self.suspense[usize::from(other)],
        }
    }

    fn take(&mut self, source: Source, other: bool, units: Option<u64>) -> Result<u64, Refusal> {
        let there = *self.claim_of(source, other);
        let asked = units.unwrap_or(there);
        if asked == 0 || asked > there { Err("NotEnough") } else { Ok(asked) }
    }

    fn order(&mut self, release: bool, source: Source, other: bool, gross: u64, fees: (u64, u64), dispute: Option<usize>) {
        *self.claim_of(source, other) -= gross;
        self.payable[usize::from(other)] += gross;
        let (id, intent, state) = (Uuid::nil(), None, Order::Ordered);
        self.slips.push(Slip { id, intent, release, source, other, gross, fees, state, dispute });
    }

    fn release(&mut self, units: Option<u64>) -> Result<(), Refusal> {
        if self.phase != Phase::Escrow {
            return Err("State");
        }
        if self.open_dispute().is_some() {
            return Err("Disputed");
        }
        self.release_from(Source::Held, units, None)
    }

    fn release_from(&mut self, source: Source, units: Option<u64>, dispute: Option<usize>) -> Result<(), Refusal> {
        let units = self.take(source, false, units)?;
        let fees = self.fees_of(units);
        if fees.0 + fees.1 >= units {
            return Err("OnlyFees");
        }
        self.order(true, source, false, units, fees, dispute);
        Ok(())
    }

    fn refund(&mut self, source: Source, other: bool, units: Option<u64>) -> Result<(), Refusal> {
        if source == Source::Disputed || (source == Source::Held && self.phase != Phase::Escrow) {
            return Err("State");
        }
        if source == Source::Held && self.open_dispute().is_some() {
            return Err("Disputed");
        }
        let units = self.take(source, other, units)?;
        self.order(false, source, other, units, (0, 0), None);
        Ok(())
    }

    fn accept(&mut self, less: bool) -> Result<(), Refusal> {
        match self.phase {
            Phase::Escrow => {
                let waits = std::mem::take(&mut self.suspense[0]);
                self.held += waits;
                self.escrowed += waits;
                if waits == 0 { Err("NothingToAccept") } else { Ok(()) }
            }
            Phase::Pending | Phase::Processing | Phase::Over("failed") => {
                let there = self.received + self.suspense[0];
                if there == 0 {
                    return Err("NothingToAccept");
                }
                if there < self.enough() && !less {
                    return Err("StillShort");
                }
                self.suspense[0] = 0;
                self.fill_escrow(there);
                Ok(())
            }
            Phase::Over(_) => Err("State"),
        }
    }

    fn is_empty(&self) -> bool {
        self.received + self.held + self.disputed + self.payable.iter().sum::<u64>() + self.suspense.iter().sum::<u64>() == 0
    }

    fn cancel(&mut self) -> Result<(), Refusal> {
        if self.phase != Phase::Pending {
            return Err("Payment");
        }
        if !self.is_empty() {
            return Err("State");
        }
        self.phase = Phase::Over("cancelled");
        Ok(())
    }

    fn lapse(&mut self) {
        let refunded = self.slips.iter().any(|slip| !slip.release && slip.state == Order::Settled);
        match self.phase {
            Phase::Pending if self.is_empty() => self.phase = Phase::Over("failed"),
            Phase::Processing if self.is_empty() && refunded => self.phase = Phase::Over("refunded/refunded"),
            Phase::Pending | Phase::Processing | Phase::Escrow | Phase::Over(_) => {}
        }
    }

    fn withdraw(&mut self, place: usize) {
        let Slip { source, other, gross, dispute, .. } = self.slips[place];
        self.slips[place].state = Order::Withdrawn;
        self.payable[usize::from(other)] -= gross;
        *self.claim_of(source, other) += gross;
        if let Some(dispute) = dispute
            && self.open_dispute().is_none()
        {
            self.disputes[dispute].1 = true;
        }
    }

    fn dispute(&mut self) -> Result<(), Refusal> {
        for place in 0..self.slips.len() {
            if !matches!(self.slips[place].source, Source::Held | Source::Disputed) {
                continue;
            }
            match self.slips[place].state {
                Order::Planned { station: true } => return Err("MayBeSigned"),
                Order::Planned { station: false } | Order::Ordered => self.withdraw(place),
                Order::Settled | Order::Withdrawn => {}
            }
        }
        if self.phase != Phase::Escrow {
            return Err("State");
        }
        if self.open_dispute().is_some() {
            return Err("Disputed");
        }
        if self.held == 0 {
            return Err("NotEnough");
        }
        self.disputed += std::mem::take(&mut self.held);
        self.disputes.push((Uuid::nil(), true));
        Ok(())
    }

    fn resolve(&mut self, dispute: usize, verdict: &Verdict) -> Result<(), Refusal> {
        if !self.disputes[dispute].1 {
            return Err("Resolved");
        }
        self.disputed += std::mem::take(&mut self.held);
        self.disputes[dispute].1 = false;
        match verdict {
            Verdict::Refund { .. } => {
                let units = self.take(Source::Disputed, false, None)?;
                self.order(false, Source::Disputed, false, units, (0, 0), Some(dispute));
            }
            Verdict::Compensation { units, .. } => {
                let units: u64 = units.to();
                if units == 0 || units >= self.disputed {
                    return Err("Split");
                }
                self.order(false, Source::Disputed, false, units, (0, 0), Some(dispute));
                self.release_from(Source::Disputed, None, Some(dispute))?;
            }
            Verdict::Replacement | Verdict::NoAction => self.held += std::mem::take(&mut self.disputed),
        }
        Ok(())
    }

    fn settle(&mut self, place: usize) {
        let Slip { other, gross, fees, .. } = self.slips[place];
        self.slips[place].state = Order::Settled;
        self.payable[usize::from(other)] -= gross;
        self.out[usize::from(other)] += gross - fees.0 - fees.1;
        self.earned.0 += fees.0;
        self.earned.1 += fees.1;
    }

    /// What the claims of the payment must hold: account and whether it is the other token, to units.
    fn claims(&self) -> BTreeMap<(&'static str, bool), u64> {
        let all = [
            (("received", false), self.received),
            (("held", false), self.held),
            (("disputed", false), self.disputed),
            (("payable", false), self.payable[0]),
            (("payable", true), self.payable[1]),
            (("suspense", false), self.suspense[0]),
            (("suspense", true), self.suspense[1]),
        ];
        all.into_iter().filter(|(_, units)| *units > 0).collect()
    }

    /// L6: what was detected is what is there, what went out, and what was earned.
    fn assert_conserved(&self) {
        let there: u64 = self.claims().iter().filter(|((_, other), _)| !other).map(|(_, units)| units).sum();
        assert_eq!(self.detected[0], there + self.out[0] + self.earned.0 + self.earned.1, "L6: {self:?}");
        assert_eq!(self.detected[1], self.payable[1] + self.suspense[1] + self.out[1], "L6: {self:?}");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Credit { other: bool, late: bool, units: u64 },
    CreditAgain,
    Release { units: Option<u64> },
    Refund { source: Source, other: bool, units: Option<u64> },
    Accept { less: bool },
    Cancel,
    Lapse,
    Dispute,
    Resolve { dispute: usize, verdict: Verdict },
    Withdraw { slip: usize },
    Plan { slip: usize },
    Void { slip: usize },
    Claim { slip: usize },
    Settle { slip: usize },
    Revert { slip: usize },
}

/// An act that makes sense often enough to go deep, and is nonsense often enough to be refused.
fn next_act(dice: &mut Dice, twin: &Twin) -> Act {
    let slip = dice.roll(twin.slips.len().max(1) as u64) as usize;
    let slip = if dice.roll(3) > 0 { twin.slips.len().saturating_sub(1) } else { slip };
    match dice.roll(30) {
        0..4 => {
            let rest = twin.asked.due.saturating_sub(twin.received);
            let units = if dice.roll(2) == 0 { rest.max(1) } else { dice.roll(twin.asked.due) + 1 };
            Act::Credit { other: dice.roll(6) == 0, late: dice.roll(6) == 0, units }
        }
        4 => Act::CreditAgain,
        5..9 => Act::Release { units: dice.part(twin.held) },
        9..12 => {
            let source = [Source::Held, Source::Received, Source::Suspense, Source::Disputed][dice.roll(4) as usize];
            let other = source == Source::Suspense && dice.roll(3) == 0;
            let of = twin.clone().claim_of(source, other).to_owned();
            Act::Refund { source, other, units: dice.part(of) }
        }
        12 => Act::Accept { less: dice.roll(2) == 0 },
        13 if dice.roll(2) == 0 => Act::Cancel,
        13 => Act::Lapse,
        14 => Act::Dispute,
        15..18 if !twin.disputes.is_empty() && (twin.open_dispute().is_some() || dice.roll(4) == 0) => {
            let dispute = twin.open_dispute().unwrap_or(dice.roll(twin.disputes.len() as u64) as usize);
            let verdict = match dice.roll(4) {
                0 => Verdict::Refund { to: BUYER },
                1 => Verdict::Compensation { units: U256::from(dice.roll(twin.held + twin.disputed + 2)), to: BUYER },
                2 => Verdict::Replacement,
                _ => Verdict::NoAction,
            };
            Act::Resolve { dispute, verdict }
        }
        15..18 => Act::Plan { slip },
        18 => Act::Withdraw { slip },
        19..22 => Act::Plan { slip },
        22 => Act::Void { slip },
        23..26 => Act::Claim { slip },
        26..29 => Act::Settle { slip },
        _ => Act::Revert { slip },
    }
}

/// What stands beside the connection of a sequence.
struct Table<'t> {
    desk: &'t Desk,
    payments: Vec<PaymentId>,
    verdicts: Vec<i64>,
    nonce: u64,
}

fn name<E: std::fmt::Debug>(error: &E) -> String {
    let text = format!("{error:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

/// The name of what an error is about: of a refusal that was handed on, the inner one.
fn refusal_of_intent(error: IntentError) -> String {
    match error {
        IntentError::Escrow(error) => name(&error),
        error => name(&error),
    }
}

/// Does it for real; `None` where there is nothing to do it to.
async fn perform(connection: &mut PgConnection, table: &mut Table<'_>, place: usize, twin: &Twin, act: &Act) -> Option<Result<(), String>> {
    let payment = table.payments[place];
    let book = &table.desk.house.book;
    let escrow = |outcome: Result<(), EscrowError>| outcome.map_err(|error| name(&error));
    let slip = |slip: &usize| twin.slips.get(*slip).cloned();
    Some(match act {
        Act::Credit { other, late, units } => {
            let amount = TokenAmount::new(asset(book, if *other { "USDT" } else { "USDC" }), U256::from(*units));
            let verdict = table.desk.next();
            table.verdicts.push(verdict);
            let transfer = transfer(connection, payment, amount, verdict, *late).await;
            ledger::credit(connection, payment, BlockNumber(1), &transfer).await.map_err(|error| name(&error))
        }
        Act::CreditAgain => {
            let verdict = *table.verdicts.last()?;
            let transfer = transfer(connection, payment, table.desk.usdc(5), verdict, false).await;
            ledger::credit(connection, payment, BlockNumber(1), &transfer).await.map_err(|error| name(&error))
        }
        Act::Release { units } => escrow(escrow::release(connection, payment, units.map(U256::from), "shop").await.map(drop)),
        Act::Refund { source, other, units } => {
            let asset = other.then(|| asset(book, "USDT"));
            let order = RefundOrder { payment, source: *source, asset, units: units.map(U256::from), to: BUYER, by: "shop".to_owned() };
            escrow(escrow::refund(connection, &order, book).await.map(drop))
        }
        Act::Accept { less } => {
            let acceptance = Acceptance { payment, less_than_due: *less, by: "shop".to_owned(), reason: "agreed".to_owned() };
            escrow(escrow::accept(connection, &acceptance, no_market()).await.map(drop))
        }
        Act::Cancel => escrow(escrow::cancel(connection, payment, "shop").await.map(drop)),
        Act::Lapse => escrow(escrow::lapse(connection, payment).await.map(drop)),
        Act::Dispute => intent::open_dispute(connection, payment, "buyer", "nothing came").await.map(drop).map_err(refusal_of_intent),
        Act::Resolve { dispute, verdict } => {
            let (id, _) = twin.disputes[*dispute];
            escrow(escrow::resolve(connection, id, verdict, "looked at", &table.desk.resolver, book).await.map(drop))
        }
        Act::Withdraw { slip: at } => escrow(escrow::withdraw_ordered(connection, slip(at)?.id, "shop").await.map(drop)),
        Act::Plan { slip: at } => {
            let slip = slip(at).filter(|slip| slip.state == Order::Ordered)?;
            let payout = escrow::store::get_payout(connection, slip.id).await.unwrap();
            table.nonce += 1;
            plan(connection, &payout, table.nonce).await.map(drop).map_err(refusal_of_intent)
        }
        Act::Void { slip: at } => {
            let intent = slip(at).filter(|slip| matches!(slip.state, Order::Planned { .. }))?.intent?;
            intent::void(connection, intent, "officer", "another day").await.map(drop).map_err(refusal_of_intent)
        }
        Act::Claim { slip: at } => {
            let intent = slip(at).filter(|slip| slip.state == Order::Planned { station: false })?.intent?;
            let digest = intent::store::get(connection, intent).await.unwrap().digest;
            approval::store::insert(connection, intent, digest, &table.desk.officer).await.unwrap();
            let claim = StationClaim { station: "desk".to_owned(), take_over: false };
            broadcast::store::claim(connection, intent, &claim).await.map(drop).map_err(|error| name(&error))
        }
        Act::Settle { slip: at } | Act::Revert { slip: at } => {
            let slip = slip(at).filter(|slip| slip.state == Order::Planned { station: true })?;
            let payout = escrow::store::get_payout(connection, slip.id).await.unwrap();
            let payment = payment::store::lock(connection, payment).await.unwrap();
            if matches!(act, Act::Revert { .. }) {
                escrow(escrow::withdraw(connection, &payment, &payout, "reverted").await.map(drop))
            } else {
                let destination = deposit::store::get_by_payment(connection, payment.id).await.unwrap();
                ledger::store::append(connection, &[moved(&payout, destination.address)]).await.unwrap();
                escrow(escrow::settled(connection, &payment, &payout, &format!("tx:{}", payout.id)).await.map(drop))
            }
        }
    })
}

/// What the reference says to the same.
fn expect(twin: &mut Twin, act: &Act) -> Result<(), Refusal> {
    match act {
        Act::Credit { other, late, units } => {
            twin.credit(*other, *units, *late);
            Ok(())
        }
        Act::CreditAgain => Err("AlreadyPosted"),
        Act::Release { units } => twin.release(*units),
        Act::Refund { source, other, units } => twin.refund(*source, *other, *units),
        Act::Accept { less } => twin.accept(*less),
        Act::Cancel => twin.cancel(),
        Act::Lapse => {
            twin.lapse();
            Ok(())
        }
        Act::Dispute => twin.dispute(),
        Act::Resolve { dispute, verdict } => twin.resolve(*dispute, verdict),
        Act::Withdraw { slip } => match twin.slips[*slip].state {
            Order::Ordered => {
                twin.withdraw(*slip);
                Ok(())
            }
            Order::Planned { .. } | Order::Settled | Order::Withdrawn => Err("PayoutState"),
        },
        Act::Plan { slip } => {
            twin.slips[*slip].state = Order::Planned { station: false };
            Ok(())
        }
        Act::Void { slip } => match twin.slips[*slip].state {
            Order::Planned { station: false } => {
                twin.withdraw(*slip);
                Ok(())
            }
            _ => Err("MayBeSigned"),
        },
        Act::Claim { slip } => {
            twin.slips[*slip].state = Order::Planned { station: true };
            Ok(())
        }
        Act::Settle { slip } => {
            twin.settle(*slip);
            Ok(())
        }
        Act::Revert { slip } => {
            twin.withdraw(*slip);
            Ok(())
        }
    }
}

/// Payment, order, intent, state, gross, platform fee, provider fee.
type SlipRow = (Uuid, Uuid, Option<Uuid>, String, i64, i64, i64);

/// Everything the database says about the payments of a sequence, against the reference.
async fn compare(connection: &mut PgConnection, table: &Table<'_>, twins: &mut [Twin], what: &str) {
    let ids: Vec<Uuid> = table.payments.iter().map(|id| id.0).collect();
    let usdt = asset(&table.desk.house.book, "USDT").asset.marker();
    let claims: Vec<(Uuid, String, bool, i64)> = sqlx::query_as(
        "select a.payment_id, a.kind::text, a.asset = $2, b.balance::bigint from ledger_accounts a join ledger_balances b on b.account_id = a.id \
         where a.payment_id = any ($1) and b.balance > 0",
    )
    .bind(&ids)
    .bind(usdt.as_slice())
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let slips: Vec<SlipRow> = sqlx::query_as(
        "select payment_id, id, intent_id, state::text, gross_units::bigint, platform_fee_units::bigint, provider_fee_units::bigint \
         from payment_payouts where payment_id = any ($1) order by id",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let disputes: Vec<(Uuid, Uuid, bool)> =
        sqlx::query_as("select payment_id, id, state = 'open' from disputes where payment_id = any ($1) order by id")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
    for (id, twin) in table.payments.iter().zip(twins) {
        let found: BTreeMap<(&str, bool), u64> = claims
            .iter()
            .filter(|(payment, ..)| *payment == id.0)
            .map(|(_, kind, other, units)| ((kind.as_str(), *other), units.unsigned_abs()))
            .collect();
        assert_eq!(found, twin.claims(), "claims after {what}");
        let payment = payment::store::find(connection, *id).await.unwrap().unwrap();
        assert_eq!(payment.state.to_string(), twin.state(), "state after {what}: {twin:?}");
        assert!(!matches!(payment.state, PaymentState::Imported(..)));
        assert_eq!(payment.escrowed_units, U256::from(twin.escrowed), "escrowed after {what}");
        let of_payment: Vec<_> = slips.iter().filter(|(payment, ..)| *payment == id.0).collect();
        assert_eq!(of_payment.len(), twin.slips.len(), "orders after {what}");
        for ((_, row, intent, state, gross, platform, provider), slip) in of_payment.into_iter().zip(&mut twin.slips) {
            (slip.id, slip.intent) = (*row, intent.map(IntentId));
            let expected = match slip.state {
                Order::Ordered => "ordered",
                Order::Planned { .. } => "planned",
                Order::Settled => "settled",
                Order::Withdrawn => "withdrawn",
            };
            assert_eq!(state, expected, "an order after {what}");
            let units = [*gross, *platform, *provider].map(i64::unsigned_abs);
            assert_eq!(units, [slip.gross, slip.fees.0, slip.fees.1], "an order's parts after {what}");
        }
        let of_payment: Vec<_> = disputes.iter().filter(|(payment, ..)| *payment == id.0).collect();
        assert_eq!(of_payment.len(), twin.disputes.len(), "disputes after {what}");
        for ((_, row, open), dispute) in of_payment.into_iter().zip(&mut twin.disputes) {
            dispute.0 = *row;
            assert_eq!(*open, dispute.1, "a dispute after {what}");
        }
        twin.settle_phase();
        twin.assert_conserved();
    }
}

/// L1, L2, L3, L7: the books in themselves.
async fn assert_books(connection: &mut PgConnection, what: &str) {
    assert_eq!(ledger::store::list_drifting(connection).await.unwrap(), [], "L2 after {what}");
    let unsound: (i64, i64, i64) = sqlx::query_as(
        "select (select count(*) from (select a.asset from ledger_accounts a join ledger_balances b on b.account_id = a.id \
           group by a.chain_id, a.asset having sum(case when a.debit_normal then b.balance else -b.balance end) <> 0) s), \
         (select count(*) from ledger_balances where balance < 0), \
         (select count(*) from funds_ledger_entries r join funds_ledger_entries e on e.id = r.reverses_entry_id \
           where (r.debit_account_id, r.credit_account_id, r.amount_units) is distinct from (e.credit_account_id, e.debit_account_id, e.amount_units))",
    )
    .fetch_one(connection)
    .await
    .unwrap();
    assert_eq!(unsound, (0, 0, 0), "L1, L3, L7 after {what}");
}

fn any_terms(dice: &mut Dice) -> Asked {
    let fee = |dice: &mut Dice| (u32::try_from(dice.roll(3) * 125).unwrap(), dice.roll(3) * 3);
    Asked { due: 50 + dice.roll(500), platform: fee(dice), provider: fee(dice), tolerance_bps: u32::try_from(dice.roll(2) * 200).unwrap() }
}

/// One sequence, in a transaction that is never committed: each is alone with its books.
async fn run(desk: &Desk, seed: u64, tally: &std::sync::Mutex<BTreeMap<String, u64>>) -> u64 {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut pooled = desk.house.db.connection().await.unwrap();
    let mut transaction = pooled.begin().await.unwrap();
    let mut table = Table { desk, payments: Vec::new(), verdicts: Vec::new(), nonce: 0 };
    let mut twins = Vec::new();
    for _ in 0..PAYMENTS {
        let asked = any_terms(&mut dice);
        table.payments.push(insert(&mut transaction, &desk.house.book, asked).await.unwrap());
        twins.push(Twin::new(asked));
    }
    let mut performed = 0;
    while performed < OPERATIONS {
        let place = dice.roll(PAYMENTS) as usize;
        // What is over is soon followed by another, and stays in the books that are checked.
        if matches!(twins[place].phase, Phase::Over(_)) && dice.roll(6) == 0 {
            let asked = any_terms(&mut dice);
            table.payments[place] = insert(&mut transaction, &desk.house.book, asked).await.unwrap();
            twins[place] = Twin::new(asked);
        }
        let act = next_act(&mut dice, &twins[place]);
        let what = format!("seed {seed}, operation {performed}, payment {place}: {act:?}");
        let mut point = transaction.begin().await.unwrap();
        let Some(outcome) = perform(&mut point, &mut table, place, &twins[place], &act).await else {
            point.rollback().await.unwrap();
            continue;
        };
        let mut after = twins[place].clone();
        let expected = expect(&mut after, &act);
        let kind = name(&act);
        match (&outcome, expected) {
            (Ok(()), Ok(())) => {
                point.commit().await.unwrap();
                twins[place] = after;
                *tally.lock().unwrap().entry(kind).or_default() += 1;
            }
            (Err(found), Err(wanted)) if found == wanted => {
                point.rollback().await.unwrap();
                *tally.lock().unwrap().entry(format!("{kind} refused: {wanted}")).or_default() += 1;
            }
            (found, wanted) => panic!("{what}: {found:?}, and the reference says {wanted:?}: {:?}", twins[place]),
        }
        compare(&mut transaction, &table, &mut twins, &what).await;
        assert_books(&mut transaction, &what).await;
        performed += 1;
    }
    transaction.rollback().await.unwrap();
    performed
}

#[test]
fn l1_l2_l3_l6_l7_a_payments_money_does_what_the_reference_says() {
    let next = AtomicU64::new(1);
    let tally = std::sync::Mutex::new(BTreeMap::new());
    let began = Instant::now();
    let operations: u64 = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
                    runtime.block_on(async {
                        // Each lane has a database: an open transaction keeps its rows to itself.
                        let desk = Desk::open().await;
                        let mut operations = 0;
                        loop {
                            let seed = next.fetch_add(1, Ordering::Relaxed);
                            if seed > SEQUENCES {
                                break operations;
                            }
                            operations += run(&desk, seed, &tally).await;
                        }
                    })
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    let tally = tally.into_inner().unwrap();
    println!("{SEQUENCES} sequences, {operations} operations checked, violations 0, {} ms", began.elapsed().as_millis());
    for (what, count) in &tally {
        println!("{count:>7} {what}");
    }
    assert_eq!(operations, SEQUENCES * OPERATIONS);
    // What hardly ever happened was not tested.
    for what in [
        "Credit",
        "Release",
        "Refund",
        "Accept",
        "Cancel",
        "Dispute",
        "Resolve",
        "Withdraw",
        "Plan",
        "Void",
        "Claim",
        "Settle",
        "Revert",
        "CreditAgain refused: AlreadyPosted",
        "Release refused: NotEnough",
        "Release refused: Disputed",
        "Release refused: State",
        "Refund refused: NotEnough",
        "Accept refused: StillShort",
        "Dispute refused: MayBeSigned",
        "Resolve refused: Resolved",
        "Void refused: MayBeSigned",
        "Withdraw refused: PayoutState",
    ] {
        assert!(tally.get(what).is_some_and(|count| *count >= 20), "{what} hardly happened: {tally:?}");
    }
}
