//! Price sources. Each is one file: which requests it makes, and how its answers are read. Pure: asking is
//! `http.rs`, and what a feed on a chain answers is asked by the worker.
//!
//! To add one: its file here, which is found by `build.rs`, and its `[[venue]]` with markets in `chains.toml`.

pub mod chainlink;
pub mod http;
pub mod number;
pub mod xml;

use std::fmt::Debug;

use alloy::primitives::U256;

use super::observation::Invalid;
use crate::chains::MarketSpec;
use crate::units::{MicroBps, Price};

// One module for each source, and the list of them: `build.rs` makes both of the files that are there.
include!(concat!(env!("OUT_DIR"), "/sources.rs"));

/// The adapter of a venue.
pub fn find(name: &str) -> Option<&'static dyn PriceSource> {
    ALL.iter().copied().find(|source| source.name() == name)
}

/// How a venue is asked and its answers are read.
pub trait PriceSource: Debug + Send + Sync {
    /// As `chains.toml` calls it.
    fn name(&self) -> &'static str;

    /// The requests for these markets.
    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask>;

    /// What an answer says about each market it was asked for.
    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading>;
}

/// One request: what follows the base URL, and which markets it is for, by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub path: String,
    pub markets: Vec<usize>,
    /// Longer answers are cut off.
    pub body_bytes_max: usize,
}

impl Ask {
    pub fn new(path: impl Into<String>, markets: Vec<usize>) -> Self {
        Self { path: path.into(), markets, body_bytes_max: 256 * 1024 }
    }

    /// One request for each market.
    pub fn each(markets: &[MarketSpec], path: impl Fn(&str) -> String) -> Vec<Self> {
        markets.iter().enumerate().map(|(place, market)| Self::new(path(&market.symbol), vec![place])).collect()
    }

    /// The same outcome for every market.
    pub fn every(&self, outcome: Invalid) -> Vec<Reading> {
        self.markets.iter().map(|market| Reading { market: *market, raw: String::new(), answer: Err(outcome) }).collect()
    }
}

/// What a venue says about one market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub market: usize,
    /// The part of the answer that it was read from.
    pub raw: String,
    pub answer: Result<Answer, Invalid>,
}

/// A price of a market, in the market's own direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub price: Price,
    /// By the venue's clock, where it tells.
    pub observed_s: Option<i64>,
    pub conf_bps: Option<MicroBps>,
    /// The venue's count of its answers.
    pub round: Option<U256>,
}

impl Answer {
    /// The middle of a book; half of its spread is how uncertain it is.
    pub fn of_book(bid: Price, ask: Price, observed_s: Option<i64>) -> Result<Self, Invalid> {
        if bid.is_zero() || ask.is_zero() {
            return Err(Invalid::NoAnswer);
        }
        if bid > ask {
            return Err(Invalid::Crossed);
        }
        let price = bid.middle(ask);
        let half = MicroBps::of(ask.minus(bid).middle(Price::ZERO), price);
        Ok(Self { price, observed_s, conf_bps: Some(half), round: None })
    }
}

/// Reads one market; what it was read from is kept short.
pub fn reading(market: usize, raw: String, answer: Result<Answer, Invalid>) -> Reading {
    Reading { market, raw: raw.chars().take(200).collect(), answer }
}

/// What tests of sources share.
#[cfg(test)]
pub mod testing {
    use super::{Answer, PriceSource};
    use crate::chains::MarketSpec;
    use crate::quote::observation::Invalid;

    pub fn market(symbol: &str) -> MarketSpec {
        MarketSpec { pair: "USDC/USD".to_owned(), symbol: symbol.to_owned(), invert: false, cross: None }
    }

    /// The answer of the first market to a body.
    pub fn read(source: &dyn PriceSource, symbol: &str, body: &str) -> Result<Answer, Invalid> {
        let markets = [market(symbol)];
        let ask = &source.asks(&markets)[0];
        source.read(&markets, ask, body).remove(0).answer
    }

    pub fn price(source: &dyn PriceSource, symbol: &str, body: &str) -> String {
        read(source, symbol, body).unwrap().price.to_string()
    }

    /// What every source must refuse, whatever it is: no JSON or XML of its own, cut off, or empty.
    pub fn refuses_garbage(source: &dyn PriceSource, symbol: &str, good: &str) {
        let html = "<!DOCTYPE html><html><body>Just a moment...</body></html>";
        for bad in ["", "null", "{}", "[]", html, "NaN", &good[..good.len() / 2]] {
            assert!(read(source, symbol, bad).is_err(), "{} took {bad:?}", source.name());
        }
        assert!(read(source, symbol, good).is_ok(), "{} does not take what is good", source.name());
        assert!(read(source, "NOTHING-ELSE", good).is_err(), "{} takes another market's price", source.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chains::ChainBook;

    #[test]
    fn q3_every_venue_of_the_book_has_an_adapter_and_every_adapter_a_venue() {
        let book = ChainBook::parse(include_str!("../../chains.toml")).unwrap();
        let mut venues: Vec<&str> = book.prices().venues().iter().map(|venue| venue.name.as_str()).collect();
        let mut adapters: Vec<&str> = ALL.iter().map(|source| source.name()).collect();
        venues.sort_unstable();
        adapters.sort_unstable();
        assert_eq!(venues, adapters);
        assert_eq!(adapters.len(), 11);
        assert!(find("kraken").is_some() && find("chainlink").is_none());
        for venue in book.prices().venues() {
            let asks = find(&venue.name).unwrap().asks(&venue.markets);
            assert!(asks.iter().all(|ask| ask.path.starts_with('/') && ask.body_bytes_max > 0), "{}", venue.name);
            assert!(venue.requests_per_minute >= asks.len() as u32 * 60 / venue.every_s, "{} is asked faster than it may be", venue.name);
        }
    }
}
