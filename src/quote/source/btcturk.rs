//! BtcTurk's ticker: a live market of the Turkish lira against USDT. Its numbers are bare.

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct BtcTurk;

#[derive(Deserialize)]
struct Ticker {
    data: Vec<Book>,
}

#[derive(Deserialize)]
struct Book {
    pair: String,
    /// In milliseconds.
    timestamp: Number,
    bid: Option<Number>,
    ask: Option<Number>,
}

impl PriceSource for BtcTurk {
    fn name(&self) -> &'static str {
        "btcturk"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        Ask::each(markets, |symbol| format!("/api/v2/ticker?pairSymbol={symbol}"))
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let place = ask.markets[0];
        let ticker: Ticker = match json(body) {
            Ok(ticker) => ticker,
            Err(reason) => return ask.every(reason),
        };
        let Some(book) = ticker.data.iter().find(|book| book.pair == markets[place].symbol) else { return ask.every(Invalid::Decode) };
        // Either may be null when nobody trades.
        let (Some(bid), Some(offer)) = (&book.bid, &book.ask) else { return ask.every(Invalid::NoAnswer) };
        let raw = format!("bid {} ask {} at {}", bid.text(), offer.text(), book.timestamp.text());
        let answer = book.timestamp.whole().and_then(|at| Answer::of_book(bid.price()?, offer.price()?, Some(at.div_euclid(1_000))));
        vec![reading(place, raw, answer)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"data":[{"pair":"USDTTRY","pairNormalized":"USDT_TRY","timestamp":1618826361234,"last":41.25,"bid":41.24,
        "ask":41.26,"denominatorSymbol":"TRY","numeratorSymbol":"USDT"}]}"#;

    #[test]
    fn q3_bare_numbers_are_read_exactly_and_null_is_no_price() {
        let answer = read(&BtcTurk, "USDTTRY", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("41.25", Some(1_618_826_361)));
        refuses_garbage(&BtcTurk, "USDTTRY", GOOD);
        assert_eq!(read(&BtcTurk, "USDTTRY", &GOOD.replace("41.24", "null")), Err(Invalid::NoAnswer));
    }
}
