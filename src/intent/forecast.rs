//! What a queue costs: confirmations on the device, transactions and fees, with and without each way of having
//! fewer of them. Pure; `forecast::store` reads the queue, and [`look`] puts it all together.
//!
//! Nothing is decided here, and nothing is asked of a node for each item: gas is what such a transaction takes on
//! the local chain with a token like USDC, and its price is that of the moment.

pub mod store;
mod worker;

pub use worker::{Look, look};

use std::fmt;

use alloy::primitives::U256;

use super::economy::{Dust, Economy, SweepVerdict, Sweepable};
use crate::units::PaymentId;

/// The ways that save confirmations or coin, each on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ways {
    /// Releases from the deposit address.
    pub direct: bool,
    /// One signed transaction fuels many addresses.
    pub disperse: bool,
    /// Sweeps of tokens with `transferWithAuthorization` (EIP-3009), which a relay account submits.
    pub authorized: bool,
}

impl Ways {
    /// None of them, each alone, then all that remain.
    pub const ALL: [Self; 8] = [
        Self::of(false, false, false),
        Self::of(true, false, false),
        Self::of(false, true, false),
        Self::of(false, false, true),
        Self::of(true, true, false),
        Self::of(true, false, true),
        Self::of(false, true, true),
        Self::of(true, true, true),
    ];

    const fn of(direct: bool, disperse: bool, authorized: bool) -> Self {
        Self { direct, disperse, authorized }
    }
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [(self.direct, "direct release"), (self.disperse, "disperse"), (self.authorized, "EIP-3009")];
        let on: Vec<&str> = named.into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
        if on.is_empty() { f.write_str("sweep, then release") } else { f.write_str(&on.join(" + ")) }
    }
}

/// Money of one payment that waits for a sweep, an order, or both.
#[derive(Clone, Debug)]
pub struct Queued {
    pub payment: PaymentId,
    /// At the deposit address; zero once it was swept.
    pub money: Sweepable,
    /// The deposit address cannot pay for its gas.
    pub needs_fuel: bool,
    /// What its orders pay out, net, in the same asset.
    pub orders: Vec<U256>,
    /// Whether the token knows EIP-3009.
    pub authorizes: bool,
}

/// Gas that one transaction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GasTable {
    /// Coin to an address.
    pub fuel: u64,
    /// A token transfer.
    pub transfer: u64,
    /// A disperse to nobody, and for each address more.
    pub disperse: u64,
    pub disperse_each: u64,
    /// A transfer with an authorization, paid by the relay.
    pub authorized: u64,
}

impl Default for GasTable {
    /// A transfer to somebody who holds some already, as the test of two hundred payments has it; the first one to an
    /// address takes 17,000 more. An address that holds nothing yet is made by the first coin it gets: a contract
    /// pays 25,000 gas for that, a plain transfer nothing.
    fn default() -> Self {
        Self { fuel: 21_000, transfer: 39_000, disperse: 24_000, disperse_each: 35_500, authorized: 84_000 }
    }
}

/// What a press on the device confirms, on a Trezor One.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presses {
    pub transfer: u32,
    /// Calldata longer than a transfer's is shown as far as it goes.
    pub disperse: u32,
    /// A typed hash.
    pub authorization: u32,
}

impl Presses {
    /// Of a chain with fee markets, or of one without, whose transactions have two fee screens less.
    pub const fn of(legacy: bool) -> Self {
        if legacy { Self { transfer: 2, disperse: 8, authorization: 4 } } else { Self { transfer: 4, disperse: 10, authorization: 4 } }
    }
}

/// What is true of a chain while a forecast is made.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    /// Base and priority fee, in wei.
    pub gas_price: u128,
    /// For the data of one transfer on the chain below, in wei.
    pub l1_fee: U256,
    pub gas: GasTable,
    pub presses: Presses,
    /// How many addresses one disperse fuels at most.
    pub disperse_max: usize,
    /// Coin that one fuel brings, in wei.
    pub fuel_units: U256,
}

/// What one way through the queue takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Signatures that the device is asked for: what an officer holds it for.
    pub confirmations: u32,
    /// Presses of its button for all of them.
    pub presses: u32,
    /// On the chain.
    pub transactions: u32,
    pub gas: u64,
    /// In wei.
    pub fee_units: U256,
    /// Coin moved to deposit addresses, in wei. It stays ours, and most of it where it was sent.
    pub fuel_units: U256,
}

/// How the queue goes one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    pub ways: Ways,
    pub tally: Tally,
}

/// A queue and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Payments with something to do now.
    pub payments: u32,
    pub orders: u32,
    /// Deposits that wait for others, and those that are not worth a sweep.
    pub waiting: u32,
    pub dust: u32,
    /// Planned and not signed yet: they are asked for whatever is chosen.
    pub standing: Tally,
    /// One for each of [`Ways::ALL`].
    pub outlooks: Vec<Outlook>,
}

impl Forecast {
    pub fn is_empty(&self) -> bool {
        self.payments == 0 && self.standing.confirmations == 0
    }

    pub fn of(queue: &[Queued], economy: &Economy, market: &Market, standing: Tally) -> Self {
        let mut forecast = Self { standing, ..Self::default() };
        for item in queue {
            forecast.orders += count(item.orders.len());
            match verdict(item, economy) {
                SweepVerdict::Now(_) => forecast.payments += 1,
                SweepVerdict::Wait { .. } => forecast.waiting += 1,
                SweepVerdict::Dust(Dust::Nothing) => forecast.payments += u32::from(!item.orders.is_empty()),
                SweepVerdict::Dust(Dust::Small | Dust::Dear) => forecast.dust += 1,
            }
        }
        let outlook = |ways| Outlook { ways, tally: tally(queue, economy, market, ways) };
        forecast.outlooks = Ways::ALL.map(outlook).into();
        forecast
    }
}

fn verdict(item: &Queued, economy: &Economy) -> SweepVerdict {
    economy.sweep(&Sweepable { wanted: !item.orders.is_empty(), ..item.money })
}

/// One way through a queue.
pub fn tally(queue: &[Queued], economy: &Economy, market: &Market, ways: Ways) -> Tally {
    let mut sum = Sum { market, tally: Tally::default(), to_fuel: 0 };
    for item in queue {
        let orders = count(item.orders.len());
        let due = item.orders.iter().fold(U256::ZERO, |due, units| due.saturating_add(*units));
        let is_swept = item.money.units.is_zero();
        if ways.direct && orders > 0 && !is_swept && due <= item.money.units {
            let left = Sweepable { units: item.money.units - due, wanted: false, ..item.money };
            let again = u32::from(matches!(economy.sweep(&left), SweepVerdict::Now(_)));
            if orders + again < orders + 1 {
                sum.fuel(item.needs_fuel);
                sum.transfers(orders);
                continue;
            }
        }
        match verdict(item, economy) {
            SweepVerdict::Now(_) if ways.authorized && item.authorizes => sum.authorized(),
            SweepVerdict::Now(_) => {
                sum.fuel(item.needs_fuel);
                sum.transfers(1);
            }
            SweepVerdict::Wait { .. } | SweepVerdict::Dust(_) => {}
        }
        sum.transfers(orders);
    }
    sum.finish(ways.disperse)
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

struct Sum<'m> {
    market: &'m Market,
    tally: Tally,
    to_fuel: u32,
}

impl Sum<'_> {
    fn add(&mut self, presses: u32, gas: u64) {
        self.tally.confirmations += 1;
        self.tally.presses += presses;
        self.tally.transactions += 1;
        self.tally.gas += gas;
        let fee = U256::from(gas).saturating_mul(U256::from(self.market.gas_price)).saturating_add(self.market.l1_fee);
        self.tally.fee_units = self.tally.fee_units.saturating_add(fee);
    }

    fn transfers(&mut self, many: u32) {
        for _ in 0..many {
            self.add(self.market.presses.transfer, self.market.gas.transfer);
        }
    }

    fn authorized(&mut self) {
        self.add(self.market.presses.authorization, self.market.gas.authorized);
    }

    fn fuel(&mut self, needed: bool) {
        self.to_fuel += u32::from(needed);
    }

    fn finish(mut self, disperse: bool) -> Tally {
        let gas = self.market.gas;
        self.tally.fuel_units = self.market.fuel_units.saturating_mul(U256::from(self.to_fuel));
        let most = count(self.market.disperse_max.max(1));
        let mut left = self.to_fuel;
        // Each turn takes at least one.
        while left > 0 {
            let now = if disperse { left.min(most) } else { 1 };
            // One address alone is fuelled by a plain transfer.
            match now {
                1 => self.add(self.market.presses.transfer, gas.fuel),
                now => self.add(self.market.presses.disperse, gas.disperse + gas.disperse_each * u64::from(now)),
            }
            left -= now;
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;
    use crate::chains::ChainBook;
    use crate::intent::economy::EconomyBook;
    use crate::units::{Asset, ChainId, pow10};

    fn market() -> Market {
        Market {
            gas_price: 1_000_000_000,
            l1_fee: U256::ZERO,
            gas: GasTable::default(),
            presses: Presses::of(false),
            disperse_max: 100,
            fuel_units: pow10(15),
        }
    }

    fn queued(units: u64, orders: &[u64], needs_fuel: bool, authorizes: bool) -> Queued {
        let token = Asset::Token(alloy::primitives::Address::repeat_byte(7));
        let money = Sweepable {
            asset: token,
            decimals: 6,
            units: U256::from(units),
            age_minutes: 0,
            wanted: false,
            cost_units: U256::ZERO,
            prices: None,
        };
        let orders = orders.iter().map(|units| U256::from(*units)).collect();
        Queued { payment: PaymentId(Uuid::nil()), money, needs_fuel, orders, authorizes }
    }

    fn forecast(queue: &[Queued]) -> Forecast {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let local = book.get(ChainId::new(31_337).unwrap()).unwrap();
        let economy = EconomyBook::default().economy(local, OffsetDateTime::UNIX_EPOCH);
        Forecast::of(queue, &economy, &market(), Tally::default())
    }

    #[test]
    fn what_two_hundred_payments_take() {
        let whole = vec![queued(100, &[100], true, true); 200];
        let fees_stay = vec![queued(100, &[98], true, false); 200];
        let swept = vec![queued(0, &[100], false, false); 3];
        let mut table = String::new();
        for (what, queue) in
            [("200 whole releases", whole), ("200 with a fee that is worth a sweep", fees_stay), ("3 at the treasury", swept)]
        {
            writeln!(table, "{what}").unwrap();
            for Outlook { ways, tally } in forecast(&queue).outlooks {
                writeln!(
                    table,
                    "  {:<38} {:>4} confirmations {:>5} presses {:>4} transactions {:>9} gas",
                    ways.to_string(),
                    tally.confirmations,
                    tally.presses,
                    tally.transactions,
                    tally.gas
                )
                .unwrap();
            }
        }
        println!("{table}");
        insta::assert_snapshot!(table);
    }

    #[test]
    fn no_way_takes_more_confirmations_than_none() {
        for queue in
            [vec![queued(100, &[60, 40], true, true)], vec![queued(100, &[], true, false); 3], vec![queued(100, &[90], false, true); 5]]
        {
            let outlooks = forecast(&queue).outlooks;
            for outlook in &outlooks[1..] {
                assert!(outlook.tally.confirmations <= outlooks[0].tally.confirmations, "{outlook:?}");
            }
        }
        assert!(forecast(&[]).is_empty());
    }
}
