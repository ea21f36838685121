//! What an outflow is worth, and from where it is cheapest: what is dust, what waits for a batch, how much fuel an
//! address gets, and from which address a release is paid. Pure.
//!
//! Every number is a setting with history; `chains.toml` has what counts before anybody set one. Money that an
//! order waits for is neither dust nor early.

pub mod store;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use alloy::primitives::U256;
use time::OffsetDateTime;

use crate::chains::{ChainSpec, ReleasePath};
use crate::settings::NumberChange;
use crate::units::{Asset, ChainId, Toward, UsdRate, mul_div, parse_address, pow10};

/// What one number is.
#[derive(Clone, Copy, Debug)]
pub struct NumberSpec {
    pub name: &'static str,
    /// Whether there is one for each asset of a chain, or one for the chain.
    pub per_asset: bool,
    pub min: i64,
    pub max: i64,
    pub help: &'static str,
}

const fn of_chain(name: &'static str, min: i64, max: i64, help: &'static str) -> NumberSpec {
    NumberSpec { name, per_asset: false, min, max, help }
}

const fn of_asset(name: &'static str, max: i64, help: &'static str) -> NumberSpec {
    NumberSpec { name, per_asset: true, min: 0, max, help }
}

const RELEASE_PATH: NumberSpec =
    of_chain("release_path", 0, 2, "releases: 0 auto, 1 from the deposit address where it holds the money, 2 from the treasury");
const SWEEP_AFTER: NumberSpec = of_chain("sweep_after_minutes", 0, 525_600, "a deposit waits so long for others; 0: not at all");
const SWEEP_MIN_USD: NumberSpec = of_chain("sweep_min_usd", 0, 1_000_000, "worth less is dust, while there are prices");
const SWEEP_COST: NumberSpec =
    of_chain("sweep_cost_pct", 0, 100_000, "worth less than this share of what its sweep may cost is dust, while there are prices");
const FUEL_BELOW: NumberSpec =
    of_chain("fuel_below_pct", 100, 1_000, "an address is fuelled below this share of what its transaction may cost");
const FUEL_TO: NumberSpec = of_chain("fuel_to_pct", 100, 1_000, "and is filled up to this share");
const FUEL_MAX: NumberSpec = of_chain("fuel_max_gwei", 0, 1_000_000_000_000_000, "the most of one fuel; 0: no cap");
const FUEL_DAY_MAX: NumberSpec = of_chain("fuel_day_max_gwei", 0, 1_000_000_000_000_000, "the most of all fuel in 24 hours; 0: no cap");
const SWEEP_MIN: NumberSpec = of_asset("sweep_min_millionths", 1 << 60, "less is dust, while there are no prices");
const SWEEP_NOW: NumberSpec = of_asset("sweep_now_millionths", 1 << 60, "as much or more waits for no others; 0: no amount does");

/// Every number there is.
pub const SPECS: [NumberSpec; 10] =
    [RELEASE_PATH, SWEEP_AFTER, SWEEP_MIN_USD, SWEEP_COST, FUEL_BELOW, FUEL_TO, FUEL_MAX, FUEL_DAY_MAX, SWEEP_MIN, SWEEP_NOW];

/// How the settings' keys begin.
pub const WORD: &str = "planning";

/// `planning:<name>:<chain>`, and for a number of an asset `…:<asset in lower case>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EconomyKey {
    spec: usize,
    pub chain: ChainId,
    pub asset: Option<Asset>,
}

impl EconomyKey {
    pub fn new(name: &str, chain: ChainId, asset: Option<Asset>) -> Result<Self, EconomyError> {
        let unknown = || EconomyError::Unknown(name.chars().take(64).collect());
        let spec = SPECS.iter().position(|spec| spec.name == name).ok_or_else(unknown)?;
        match (SPECS[spec].per_asset, asset.is_some()) {
            (true, false) => Err(EconomyError::NeedsAsset(SPECS[spec].name)),
            (false, true) => Err(EconomyError::NoAsset(SPECS[spec].name)),
            (true, true) | (false, false) => Ok(Self { spec, chain, asset }),
        }
    }

    pub fn spec(&self) -> &'static NumberSpec {
        &SPECS[self.spec]
    }

    /// A value that may be set.
    pub fn check(&self, value: i64) -> Result<(), EconomyError> {
        let spec = self.spec();
        let good = (spec.min..=spec.max).contains(&value);
        if good { Ok(()) } else { Err(EconomyError::Bounds { name: spec.name, value, min: spec.min, max: spec.max }) }
    }

    /// What counts before anybody set it.
    pub fn default_of(&self, chain: &ChainSpec) -> i64 {
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let plan = &chain.planning;
        let token = self.asset.and_then(|asset| chain.tokens.iter().find(|token| asset == Asset::Token(token.contract)));
        match self.spec().name {
            "release_path" => plan.release_path.number(),
            "sweep_after_minutes" => plan.sweep_after_minutes.into(),
            "sweep_min_usd" => plan.sweep_min_usd.into(),
            "sweep_cost_pct" => plan.sweep_cost_pct.into(),
            "fuel_below_pct" => plan.fuel_below_pct.into(),
            "fuel_to_pct" => plan.fuel_to_pct.into(),
            "fuel_max_gwei" => whole(plan.fuel_max_gwei),
            "fuel_day_max_gwei" => whole(plan.fuel_day_max_gwei),
            "sweep_min_millionths" => token.map_or(0, |token| whole(token.sweep_min_millionths)),
            _ => token.map_or(0, |token| whole(token.sweep_now_millionths)),
        }
    }
}

impl fmt::Display for EconomyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WORD}:{}:{}", self.spec().name, self.chain)?;
        match self.asset {
            None => Ok(()),
            Some(asset) => write!(f, ":{:#x}", asset.marker()),
        }
    }
}

impl FromStr for EconomyKey {
    type Err = EconomyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || EconomyError::Unknown(text.chars().take(64).collect());
        let mut parts = text.split(':');
        if parts.next() != Some(WORD) {
            return Err(bad());
        }
        let name = parts.next().ok_or_else(bad)?;
        let chain = parts.next().and_then(|chain| chain.parse().ok()).ok_or_else(bad)?;
        let asset = parts.next().map(|asset| parse_address(asset).map(Asset::from_marker)).transpose().map_err(|_| bad())?;
        if parts.next().is_some() { Err(bad()) } else { Self::new(name, chain, asset) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EconomyError {
    #[error("{0:?} is not a number of planning; `amanatd planning show` lists them")]
    Unknown(String),
    #[error("{0} is one number for each asset; name the asset")]
    NeedsAsset(&'static str),
    #[error("{0} is one number for the chain; it has no asset")]
    NoAsset(&'static str),
    #[error("{name} = {value} is outside of {min} to {max}")]
    Bounds { name: &'static str, value: i64, min: i64, max: i64 },
}

/// A change as two officers decide about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EconomyChange {
    pub key: EconomyKey,
    pub value: i64,
}

impl EconomyChange {
    pub fn canonical(&self) -> String {
        serde_json::json!({ "key": self.key.to_string(), "value": self.value }).to_string()
    }

    pub fn from_canonical(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let change = Self { key: value.get("key")?.as_str()?.parse().ok()?, value: value.get("value")?.as_i64()? };
        change.key.check(change.value).ok()?;
        Some(change)
    }
}

/// The history of all numbers, as it was read.
#[derive(Clone, Debug, Default)]
pub struct EconomyBook {
    /// In the order of their ids.
    changes: Vec<(EconomyKey, NumberChange)>,
}

impl EconomyBook {
    /// Changes of numbers of this version, in any order; others are left out.
    pub fn new(changes: Vec<NumberChange>) -> Self {
        let mut changes: Vec<_> = changes.into_iter().filter_map(|change| Some((change.key.parse().ok()?, change))).collect();
        changes.sort_by_key(|(_, change): &(EconomyKey, NumberChange)| change.id);
        Self { changes }
    }

    /// The newest row of a key that has taken effect.
    pub fn change(&self, key: &EconomyKey, at: OffsetDateTime) -> Option<&NumberChange> {
        self.changes.iter().rev().find(|(of, change)| of == key && change.effective_at <= at).map(|(_, change)| change)
    }

    /// Newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &(EconomyKey, NumberChange)> {
        self.changes.iter().rev()
    }

    /// Every number of a chain at an instant, in the order of [`SPECS`], assets in the order of the chain book.
    pub fn standing(&self, chain: &ChainSpec, at: OffsetDateTime) -> Vec<(EconomyKey, i64, Option<&NumberChange>)> {
        let mut standing = Vec::new();
        for (spec, number) in SPECS.iter().enumerate() {
            let of: Vec<Option<Asset>> = match number.per_asset {
                false => vec![None],
                true => chain.tokens.iter().map(|token| Some(Asset::Token(token.contract))).collect(),
            };
            for asset in of {
                let key = EconomyKey { spec, chain: chain.id, asset };
                let change = self.change(&key, at);
                standing.push((key, change.map_or_else(|| key.default_of(chain), |change| change.value), change));
            }
        }
        standing
    }

    /// What counts for a chain at an instant.
    pub fn economy(&self, chain: &ChainSpec, at: OffsetDateTime) -> Economy {
        let standing = self.standing(chain, at);
        let number = |name: &str, asset: Option<Asset>| {
            let found = standing.iter().find(|(key, ..)| key.spec().name == name && key.asset == asset);
            U256::from(found.map_or(0, |(_, value, _)| value.unsigned_abs()))
        };
        let small = |name: &str| u32::try_from(number(name, None)).unwrap_or(u32::MAX);
        let gwei = |name: &str| number(name, None) * pow10(9);
        let assets = chain.tokens.iter().map(|token| {
            let asset = Asset::Token(token.contract);
            let units =
                |name: &str| mul_div(number(name, Some(asset)), pow10(token.decimals.into()), pow10(6), Toward::Up).unwrap_or(U256::MAX);
            (asset, AssetEconomy { min_units: units("sweep_min_millionths"), now_units: units("sweep_now_millionths") })
        });
        Economy {
            release_path: i64::try_from(number("release_path", None)).ok().and_then(ReleasePath::from_number).unwrap_or_default(),
            sweep_after_minutes: small("sweep_after_minutes"),
            sweep_min_usd: small("sweep_min_usd"),
            sweep_cost_pct: small("sweep_cost_pct"),
            fuel: FuelRule {
                below_pct: small("fuel_below_pct"),
                to_pct: small("fuel_to_pct").max(small("fuel_below_pct")),
                max_units: gwei("fuel_max_gwei"),
                day_max_units: gwei("fuel_day_max_gwei"),
            },
            assets: assets.collect(),
        }
    }
}

/// What counts for one chain at one instant.
#[derive(Clone, Debug)]
pub struct Economy {
    pub release_path: ReleasePath,
    pub sweep_after_minutes: u32,
    pub sweep_min_usd: u32,
    pub sweep_cost_pct: u32,
    pub fuel: FuelRule,
    assets: BTreeMap<Asset, AssetEconomy>,
}

/// In base units.
#[derive(Clone, Copy, Debug, Default)]
struct AssetEconomy {
    min_units: U256,
    now_units: U256,
}

// === sweeps ===

/// US dollars for one whole unit of an asset, and of the coin that gas is paid in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prices {
    pub asset: UsdRate,
    pub coin: UsdRate,
}

/// Money at a deposit address that might be swept.
#[derive(Clone, Copy, Debug)]
pub struct Sweepable {
    pub asset: Asset,
    pub decimals: u8,
    pub units: U256,
    /// Since the oldest of it was credited.
    pub age_minutes: u64,
    /// An order waits for it to be at the treasury.
    pub wanted: bool,
    /// The most that the sweep and its fuel can cost, in wei.
    pub cost_units: U256,
    /// `None` while the oracle is off or has no fresh price.
    pub prices: Option<Prices>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepVerdict {
    /// An order wants it, it is enough, or it has waited long enough.
    Now(Ripe),
    /// It is worth a sweep, and waits for others for so long.
    Wait { minutes: u64 },
    /// Left where it is.
    Dust(Dust),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ripe {
    Wanted,
    Amount,
    Age,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dust {
    Nothing,
    /// Worth less than the least that is swept.
    Small,
    /// Worth too little beside what sweeping it costs.
    Dear,
}

/// What an amount is worth, in US dollars with 18 places.
pub fn worth(units: U256, decimals: u8, price: UsdRate) -> U256 {
    mul_div(units, price.scaled(), pow10(decimals.into()), Toward::Down).unwrap_or(U256::MAX)
}

impl Economy {
    /// Sweep now, wait for a batch, or leave it.
    pub fn sweep(&self, money: &Sweepable) -> SweepVerdict {
        if money.units.is_zero() {
            return SweepVerdict::Dust(Dust::Nothing);
        }
        if money.wanted {
            return SweepVerdict::Now(Ripe::Wanted);
        }
        if let Some(dust) = self.dust(money) {
            return SweepVerdict::Dust(dust);
        }
        let AssetEconomy { now_units, .. } = self.assets.get(&money.asset).copied().unwrap_or_default();
        if !now_units.is_zero() && money.units >= now_units {
            return SweepVerdict::Now(Ripe::Amount);
        }
        match u64::from(self.sweep_after_minutes).saturating_sub(money.age_minutes) {
            0 => SweepVerdict::Now(Ripe::Age),
            minutes => SweepVerdict::Wait { minutes },
        }
    }

    fn dust(&self, money: &Sweepable) -> Option<Dust> {
        let Some(prices) = money.prices else {
            let AssetEconomy { min_units, .. } = self.assets.get(&money.asset).copied().unwrap_or_default();
            return (money.units < min_units).then_some(Dust::Small);
        };
        let value = worth(money.units, money.decimals, prices.asset);
        if value < U256::from(self.sweep_min_usd) * pow10(18) {
            return Some(Dust::Small);
        }
        let cost = worth(money.cost_units, 18, prices.coin).saturating_mul(U256::from(self.sweep_cost_pct));
        (value.saturating_mul(U256::from(100)) < cost).then_some(Dust::Dear)
    }
}

// === fuel ===

/// When an address is fuelled, and with how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FuelRule {
    pub below_pct: u32,
    pub to_pct: u32,
    /// Of one fuel, in wei; zero: no cap.
    pub max_units: U256,
    /// Of all fuel of the chain in 24 hours, in wei; zero: no cap.
    pub day_max_units: U256,
}

impl Default for FuelRule {
    /// To twice what is needed, so that a fee rise between fuelling and spending does not call the officer twice.
    fn default() -> Self {
        Self { below_pct: 100, to_pct: 200, max_units: U256::ZERO, day_max_units: U256::ZERO }
    }
}

impl FuelRule {
    /// What an address needs to hold so that it is not fuelled: what it pays of its own coin, and its ceiling.
    pub fn enough(&self, own: U256, ceiling: U256) -> U256 {
        own.saturating_add(share(ceiling, self.below_pct))
    }

    /// What it is filled up to.
    pub fn full(&self, own: U256, ceiling: U256) -> U256 {
        own.saturating_add(share(ceiling, self.to_pct))
    }

    /// How much is sent to an address that is to be filled by `wanted` and cannot do with less than `least`, when
    /// so much fuel has left in 24 hours.
    pub fn cap(&self, wanted: U256, least: U256, left_today: U256) -> Result<U256, FuelRefusal> {
        let one = if self.max_units.is_zero() { U256::MAX } else { self.max_units };
        let day = if self.day_max_units.is_zero() { U256::MAX } else { self.day_max_units.saturating_sub(left_today) };
        if least > one {
            return Err(FuelRefusal::OverMax { least, max: one });
        }
        if least > day {
            return Err(FuelRefusal::OverDay { least, left: day });
        }
        Ok(wanted.min(one).min(day))
    }
}

fn share(ceiling: U256, pct: u32) -> U256 {
    mul_div(ceiling, U256::from(pct), U256::from(100), Toward::Up).unwrap_or(U256::MAX)
}

/// Why an address gets no fuel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FuelRefusal {
    #[error("it needs {least} wei, and one fuel is {max} wei at most (planning fuel_max_gwei)")]
    OverMax { least: U256, max: U256 },
    #[error("it needs {least} wei, and {left} wei are left of what may be fuelled in 24 hours (planning fuel_day_max_gwei)")]
    OverDay { least: U256, left: U256 },
}

// === releases ===

/// What decides from where an order is paid.
#[derive(Clone, Copy, Debug)]
pub struct PathFacts {
    /// Of the order's asset, at the deposit address and not promised.
    pub free_units: U256,
    pub due_units: U256,
    /// The deposit address cannot pay for its gas.
    pub needs_fuel: bool,
    /// What stays there is worth a sweep of its own.
    pub leftover_pays: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaidFrom {
    Deposit,
    /// Once it was swept there.
    Treasury,
}

impl PathFacts {
    /// Signatures to pay from the deposit address: fuel, the release, and the sweep of what stays.
    pub fn direct_signatures(&self) -> u32 {
        u32::from(self.needs_fuel) + 1 + u32::from(self.leftover_pays)
    }

    /// Signatures to pay from the treasury: fuel, the sweep, the release.
    pub fn treasury_signatures(&self) -> u32 {
        u32::from(self.needs_fuel) + 2
    }
}

/// From where an order of a payment whose deposit is not swept is paid. Nothing but the payment's own address is
/// looked at: no order takes what another payment brought.
pub fn paid_from(path: ReleasePath, facts: PathFacts) -> PaidFrom {
    if facts.free_units < facts.due_units {
        return PaidFrom::Treasury;
    }
    match path {
        ReleasePath::Direct => PaidFrom::Deposit,
        ReleasePath::Treasury => PaidFrom::Treasury,
        ReleasePath::Auto if facts.direct_signatures() < facts.treasury_signatures() => PaidFrom::Deposit,
        ReleasePath::Auto => PaidFrom::Treasury,
    }
}

#[cfg(test)]
mod tests;
