//! What the price oracle knows from `chains.toml`: pairs, venues with their markets, and feeds on chains.
//!
//! Facts and nothing else: which venue is asked, with which key, is configuration; thresholds are
//! settings. A pair is written `BASE/USD` and its price is US dollars for one unit of the base.

use std::collections::BTreeMap;

use alloy::primitives::Address;
use serde::{Deserialize, Serialize};

use super::ChainBookError;
use crate::units::{MicroBps, Price, UsdRate, parse_address};

/// How much later than its heartbeat a feed may come.
pub const HEARTBEAT_MARGIN_S: u32 = 1_800;

/// Pairs by name, venues in order of preference.
#[derive(Clone, Debug, Default)]
pub struct PriceBook {
    pairs: BTreeMap<String, PairSpec>,
    venues: Vec<VenueSpec>,
}

/// What kind of price a pair is, which decides how it may move and which way it is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PairKind {
    /// A token that promises a peg.
    Stable,
    /// A chain's own coin.
    Coin,
    /// A state's money.
    Fx,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairSpec {
    /// `USDC/USD`.
    pub name: String,
    pub kind: PairKind,
    /// US dollars for one token, where it promises any.
    pub peg: Option<UsdRate>,
    /// No price outside of these is believed, whoever says it.
    pub min: Price,
    pub max: Price,
    /// How uncertain a source may be: half of its spread, or the confidence that it states.
    pub conf_max: MicroBps,
    /// Keeps the hours of the foreign exchange markets: closed at weekends.
    pub forex: bool,
}

impl PairSpec {
    /// The key of its settings: `USDC` of `USDC/USD`.
    pub fn base(&self) -> &str {
        base_of(&self.name)
    }
}

/// `USDC` of `USDC/USD`.
pub fn base_of(pair: &str) -> &str {
    pair.split('/').next().unwrap_or(pair)
}

/// A source that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VenueSpec {
    /// Names the adapter, and is the venue's family.
    pub name: String,
    pub url: String,
    /// Whether it is asked unless the configuration says otherwise.
    pub enabled: bool,
    /// Whether it answers only who has a key.
    pub keyed: bool,
    /// An official rate: it bounds the result and never votes.
    pub sanity: bool,
    /// Seconds between two questions.
    pub every_s: u32,
    pub requests_per_minute: u32,
    pub max_age_s: u32,
    /// Whose announcement it repeats, if not its own: two of one family have one vote.
    pub family: String,
    pub markets: Vec<MarketSpec>,
}

/// A market of a venue, and what its price says about a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketSpec {
    pub pair: String,
    /// As the venue writes it.
    pub symbol: String,
    /// The market counts the base in the other money: its price is turned around.
    pub invert: bool,
    /// The market is not in US dollars: its price is multiplied by (or, inverted, divides) this pair's price
    /// of another family.
    pub cross: Option<String>,
}

/// A Chainlink feed on a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSpec {
    pub pair: String,
    pub proxy: Address,
    pub decimals: u8,
    /// What the feed's `description()` must say.
    pub description: String,
    pub heartbeat_s: u32,
    pub max_age_s: u32,
    /// A move of this much is answered with a new round.
    pub deviation: MicroBps,
    /// Keeps the hours of the foreign exchange markets.
    pub forex: bool,
}

impl PriceBook {
    pub fn pair(&self, name: &str) -> Option<&PairSpec> {
        self.pairs.get(name)
    }

    pub fn pairs(&self) -> impl Iterator<Item = &PairSpec> {
        self.pairs.values()
    }

    /// In order of preference.
    pub fn venues(&self) -> &[VenueSpec] {
        &self.venues
    }

    pub(super) fn check(pairs: Vec<RawPair>, venues: Vec<RawVenue>) -> Result<Self, ChainBookError> {
        let mut book = Self::default();
        for raw in pairs {
            let spec = raw.check()?;
            if let Some(twice) = book.pairs.insert(spec.name.clone(), spec) {
                return Err(bad("pair.name", &twice.name, "list each pair once"));
            }
        }
        for raw in venues {
            let spec = raw.check(&book.pairs)?;
            if book.venues.iter().any(|venue| venue.name == spec.name) {
                return Err(bad("venue.name", &spec.name, "list each venue once"));
            }
            book.venues.push(spec);
        }
        Ok(book)
    }

    /// A price key that a token, coin or feed names.
    pub(super) fn require(&self, field: &'static str, pair: &str) -> Result<(), ChainBookError> {
        if self.pairs.contains_key(pair) { Ok(()) } else { Err(bad(field, pair, "list it as a [[pair]]")) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPair {
    name: String,
    kind: PairKind,
    peg: Option<String>,
    min: String,
    max: String,
    conf_max_bps: u32,
    #[serde(default)]
    forex: bool,
}

impl RawPair {
    fn check(self) -> Result<PairSpec, ChainBookError> {
        let form = self.name.strip_suffix("/USD").is_some_and(|base| !base.is_empty() && !base.contains(['/', ':']));
        if !form {
            return Err(bad("pair.name", &self.name, "write it as BASE/USD"));
        }
        let price = |field, text: &str| text.parse::<Price>().map_err(|_| bad(field, text, "use a decimal number in quotes"));
        let (min, max) = (price("pair.min", &self.min)?, price("pair.max", &self.max)?);
        if min.is_zero() || min >= max {
            return Err(bad("pair.min", &self.min, "use more than 0 and less than max"));
        }
        let peg = self.peg.as_deref().map(|peg| peg.parse::<UsdRate>().map_err(|_| bad("pair.peg", peg, "use a decimal number in quotes")));
        let peg = peg.transpose()?;
        if peg.is_some() != (self.kind == PairKind::Stable) {
            return Err(bad("pair.peg", &self.name, "a stable pair has a peg, and no other has one"));
        }
        if peg.is_some_and(|peg| !(min..=max).contains(&Price::from(peg))) {
            return Err(bad("pair.peg", &self.name, "the peg must lie between min and max"));
        }
        Ok(PairSpec { name: self.name, kind: self.kind, peg, min, max, conf_max: MicroBps::from_bps(self.conf_max_bps), forex: self.forex })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVenue {
    name: String,
    url: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    keyed: bool,
    #[serde(default)]
    sanity: bool,
    every_s: u32,
    requests_per_minute: u32,
    max_age_s: u32,
    family: Option<String>,
    #[serde(default)]
    market: Vec<RawMarket>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMarket {
    pair: String,
    symbol: String,
    #[serde(default)]
    invert: bool,
    cross: Option<String>,
}

impl RawVenue {
    fn check(self, pairs: &BTreeMap<String, PairSpec>) -> Result<VenueSpec, ChainBookError> {
        if self.every_s == 0 || self.requests_per_minute == 0 || self.max_age_s == 0 {
            return Err(bad("venue.every_s", &self.name, "every_s, requests_per_minute and max_age_s are at least 1"));
        }
        if self.name == "pyth" && !(30..=300).contains(&self.max_age_s) {
            return Err(bad("venue.max_age_s", &self.name, "use 30 to 300: a Pyth price lives for seconds"));
        }
        for market in &self.market {
            for pair in [Some(&market.pair), market.cross.as_ref()].into_iter().flatten() {
                if !pairs.contains_key(pair) {
                    return Err(bad("venue.market.pair", pair, "list it as a [[pair]]"));
                }
            }
            if market.cross.as_ref() == Some(&market.pair) {
                return Err(bad("venue.market.cross", &market.pair, "a pair is no leg of itself"));
            }
        }
        let family = self.family.unwrap_or_else(|| self.name.clone());
        let markets = self
            .market
            .into_iter()
            .map(|market| MarketSpec { pair: market.pair, symbol: market.symbol, invert: market.invert, cross: market.cross })
            .collect();
        Ok(VenueSpec {
            name: self.name,
            url: self.url,
            enabled: self.enabled,
            keyed: self.keyed,
            sanity: self.sanity,
            every_s: self.every_s,
            requests_per_minute: self.requests_per_minute,
            max_age_s: self.max_age_s,
            family,
            markets,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFeed {
    pair: String,
    proxy: String,
    decimals: u8,
    description: Option<String>,
    heartbeat_s: u32,
    /// Heartbeat and margin, where nothing else is said.
    max_age_s: Option<u32>,
    /// In percent, as Chainlink publishes it: "0.25".
    deviation_pct: String,
    #[serde(default)]
    forex: bool,
}

impl RawFeed {
    pub(super) fn check(self, book: &PriceBook) -> Result<FeedSpec, ChainBookError> {
        book.require("feed.pair", &self.pair)?;
        let proxy = parse_address(&self.proxy).map_err(|_| bad("feed.proxy", &self.proxy, "use the feed's address with its checksum"))?;
        let least = self.heartbeat_s.saturating_add(HEARTBEAT_MARGIN_S);
        let max_age_s = self.max_age_s.unwrap_or(least);
        if max_age_s < least {
            return Err(bad("feed.max_age_s", &self.pair, "use at least heartbeat_s + 1800: the feed promises no more"));
        }
        let percent = self.deviation_pct.parse::<MicroBps>().map_err(|_| bad("feed.deviation_pct", &self.deviation_pct, "use a number"))?;
        if self.decimals > 18 {
            return Err(bad("feed.decimals", &self.decimals.to_string(), "use 0 to 18"));
        }
        let description = self.description.unwrap_or_else(|| self.pair.replace('/', " / "));
        Ok(FeedSpec {
            pair: self.pair,
            proxy,
            decimals: self.decimals,
            description,
            heartbeat_s: self.heartbeat_s,
            max_age_s,
            deviation: percent.times(100),
            forex: self.forex,
        })
    }
}

fn bad(field: &'static str, value: &str, remedy: &'static str) -> ChainBookError {
    ChainBookError::Prices { field, value: value.chars().take(64).collect(), remedy }
}

fn yes() -> bool {
    true
}
