//! Nobitex's market statistics, in rial.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Nobitex;

#[derive(Deserialize)]
struct Statistics {
    status: String,
    #[serde(default)]
    stats: BTreeMap<String, Market>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Market {
    is_closed: bool,
    /// The lowest that sellers ask.
    best_sell: Number,
    best_buy: Number,
}

impl PriceSource for Nobitex {
    fn name(&self) -> &'static str {
        "nobitex"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        Ask::each(markets, |symbol| {
            let (source, target) = symbol.split_once('-').unwrap_or((symbol, ""));
            format!("/market/stats?srcCurrency={source}&dstCurrency={target}")
        })
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let place = ask.markets[0];
        let symbol = &markets[place].symbol;
        let statistics: Statistics = match json(body) {
            Ok(statistics) => statistics,
            Err(reason) => return ask.every(reason),
        };
        if statistics.status != "ok" {
            return ask.every(Invalid::Refused);
        }
        let Some(market) = statistics.stats.get(symbol) else { return ask.every(Invalid::Decode) };
        // Rial by its name; the size of a number says nothing.
        if !symbol.ends_with("-rls") {
            return ask.every(Invalid::Unit);
        }
        if market.is_closed {
            return ask.every(Invalid::MarketClosed);
        }
        let raw = format!("bid {} ask {} rls", market.best_buy.text(), market.best_sell.text());
        let answer = market.best_buy.price().and_then(|bid| Answer::of_book(bid, market.best_sell.price()?, None));
        vec![reading(place, raw, answer)]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    pub(in super::super) const GOOD: &str = r#"{"status":"ok","stats":{"usdt-rls":{"isClosed":false,"bestSell":"1860470","bestBuy":"1858320","latest":"1860650",
        "volumeSrc":"1","volumeDst":"1","dayOpen":"1","dayHigh":"1","dayLow":"1","dayClose":"1","dayChange":"9.38"}}}"#;

    #[test]
    fn q3_rial_as_it_is_and_a_closed_market_is_none() {
        assert_eq!(read(&Nobitex, "usdt-rls", GOOD).unwrap().price.to_string(), "1859395");
        refuses_garbage(&Nobitex, "usdt-rls", GOOD);
        assert_eq!(read(&Nobitex, "usdt-rls", &GOOD.replace("false", "true")), Err(Invalid::MarketClosed));
        assert_eq!(read(&Nobitex, "usdt-tmn", &GOOD.replace("usdt-rls", "usdt-tmn")), Err(Invalid::Unit));
        assert_eq!(read(&Nobitex, "usdt-rls", r#"{"status":"failed","message":"x"}"#), Err(Invalid::Refused));
    }
}
