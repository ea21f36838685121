//! Binance's ticker of 24 hours, for its book and its time; the plain price has neither.

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Binance;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ticker {
    symbol: String,
    bid_price: Number,
    ask_price: Number,
    /// In milliseconds.
    close_time: Number,
}

impl PriceSource for Binance {
    fn name(&self) -> &'static str {
        "binance"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        Ask::each(markets, |symbol| format!("/api/v3/ticker/24hr?symbol={symbol}"))
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let place = ask.markets[0];
        let ticker: Ticker = match json(body) {
            Ok(ticker) => ticker,
            Err(reason) => return ask.every(reason),
        };
        if ticker.symbol != markets[place].symbol {
            return ask.every(Invalid::Decode);
        }
        let raw = format!("bid {} ask {} at {}", ticker.bid_price.text(), ticker.ask_price.text(), ticker.close_time.text());
        vec![reading(place, raw, of(&ticker))]
    }
}

fn of(ticker: &Ticker) -> Result<Answer, Invalid> {
    let at_s = ticker.close_time.whole()?.div_euclid(1_000);
    Answer::of_book(ticker.bid_price.price()?, ticker.ask_price.price()?, Some(at_s))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"symbol":"USDCUSDT","lastPrice":"0.99970000","bidPrice":"0.99960000","askPrice":"0.99970000","volume":"1.0",
        "quoteVolume":"1.0","openTime":1753701474013,"closeTime":1753787874013,"count":1933312}"#;

    #[test]
    fn q3_the_middle_of_the_book_at_its_time() {
        let answer = read(&Binance, "USDCUSDT", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.99965", Some(1_753_787_874)));
        refuses_garbage(&Binance, "USDCUSDT", GOOD);
        // The endpoint without a time is no source.
        assert_eq!(read(&Binance, "USDCUSDT", r#"{"symbol":"USDCUSDT","price":"0.9997"}"#), Err(Invalid::Decode));
        assert_eq!(read(&Binance, "USDCUSDT", &GOOD.replace("0.99960000", "0.00000000")), Err(Invalid::NoAnswer));
    }
}
