//! Bitstamp's ticker: a real market in US dollars.

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Bitstamp;

#[derive(Deserialize)]
struct Ticker {
    /// In seconds, as text.
    timestamp: Number,
    bid: Number,
    ask: Number,
    /// `USDC/USD`.
    pair: String,
}

impl PriceSource for Bitstamp {
    fn name(&self) -> &'static str {
        "bitstamp"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        Ask::each(markets, |symbol| format!("/api/v2/ticker/{symbol}/"))
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let place = ask.markets[0];
        let ticker: Ticker = match json(body) {
            Ok(ticker) => ticker,
            Err(reason) => return ask.every(reason),
        };
        if ticker.pair.replace('/', "").to_lowercase() != markets[place].symbol {
            return ask.every(Invalid::Decode);
        }
        let raw = format!("bid {} ask {} at {}", ticker.bid.text(), ticker.ask.text(), ticker.timestamp.text());
        vec![reading(place, raw, of(&ticker))]
    }
}

fn of(ticker: &Ticker) -> Result<Answer, Invalid> {
    Answer::of_book(ticker.bid.price()?, ticker.ask.price()?, Some(ticker.timestamp.whole()?))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"timestamp":"1686068944","high":"1.0001","last":"0.9999","bid":"0.99980","vwap":"1","volume":"1","low":"0.99",
        "ask":"0.99990","open":"1","pair":"USDC/USD"}"#;

    #[test]
    fn q3_the_middle_of_the_book_at_its_time() {
        let answer = read(&Bitstamp, "usdcusd", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.99985", Some(1_686_068_944)));
        refuses_garbage(&Bitstamp, "usdcusd", GOOD);
        assert_eq!(read(&Bitstamp, "usdcusd", &GOOD.replace("USDC/USD", "BTC/USD")), Err(Invalid::Decode));
        assert_eq!(read(&Bitstamp, "usdcusd", &GOOD.replace("1686068944", "1686068944.5")), Err(Invalid::Decode));
    }
}
