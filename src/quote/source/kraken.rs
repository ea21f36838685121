//! Kraken's ticker: a real market in US dollars, the anchor. It tells no time, so the book counts as of when
//! it was fetched, as long as it moves.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Kraken;

#[derive(Deserialize)]
struct Ticker {
    error: Vec<String>,
    result: Option<BTreeMap<String, Book>>,
}

#[derive(Deserialize)]
struct Book {
    /// Price, whole lots, lots.
    a: Vec<Number>,
    b: Vec<Number>,
    /// The last trade: price, lots.
    c: Vec<Number>,
}

impl PriceSource for Kraken {
    fn name(&self) -> &'static str {
        "kraken"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        let symbols: Vec<&str> = markets.iter().map(|market| market.symbol.as_str()).collect();
        vec![Ask::new(format!("/0/public/Ticker?pair={}", symbols.join(",")), (0..markets.len()).collect())]
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let ticker: Ticker = match json(body) {
            Ok(ticker) => ticker,
            Err(reason) => return ask.every(reason),
        };
        // Errors come with status 200.
        if !ticker.error.is_empty() {
            return ask.every(Invalid::Refused);
        }
        let books = ticker.result.unwrap_or_default();
        let read = |place: &usize| {
            let symbol = &markets[*place].symbol;
            match books.iter().find(|(key, _)| key == &symbol || plain(key) == *symbol) {
                Some((_, book)) => of_book(*place, book),
                None => reading(*place, String::new(), Err(Invalid::Decode)),
            }
        };
        ask.markets.iter().map(read).collect()
    }
}

/// Keys differ from what was asked: XXBTZUSD for XBTUSD, ZEURZUSD for EURUSD.
fn plain(key: &str) -> String {
    match (key.len(), key.as_bytes()) {
        (8, [b'X' | b'Z', _, _, _, b'Z', ..]) => format!("{}{}", &key[1..4], &key[5..]),
        _ => key.to_owned(),
    }
}

fn of_book(place: usize, book: &Book) -> Reading {
    let (Some(bid), Some(ask)) = (book.b.first(), book.a.first()) else { return reading(place, String::new(), Err(Invalid::Decode)) };
    let last = book.c.first().map_or("", Number::text);
    let raw = format!("bid {} ask {} last {last}", bid.text(), ask.text());
    let answer = bid.price().and_then(|bid| Answer::of_book(bid, ask.price()?, None));
    reading(place, raw, answer)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{market, price, read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"error":[],"result":{"USDCUSD":{"a":["0.89590000","1","1.000"],"b":["0.89570000","2","2.000"],
        "c":["0.89580000","0.04408910"],"v":["1","24"],"p":["1","1"],"t":[3907,10056],"l":["0.8","0.8"],"h":["1.06","1.06"],"o":"1.0000"}}}"#;

    #[test]
    fn q3_the_middle_of_the_book_and_never_a_high_or_a_low() {
        let answer = read(&Kraken, "USDCUSD", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.8958", None));
        assert_eq!(answer.conf_bps.unwrap().to_string(), "1.116321");
        refuses_garbage(&Kraken, "USDCUSD", GOOD);
    }

    #[test]
    fn q3_keys_are_not_always_what_was_asked_and_errors_come_with_status_200() {
        let renamed = GOOD.replace("USDCUSD", "XETHZUSD");
        assert_eq!(price(&Kraken, "ETHUSD", &renamed), "0.8958");
        assert_eq!(plain("ZEURZUSD"), "EURUSD");
        assert_eq!(read(&Kraken, "USDCUSD", r#"{"error":["EService:Unavailable"]}"#), Err(Invalid::Refused));
        let crossed = GOOD.replace("0.89570000", "0.8960");
        assert_eq!(read(&Kraken, "USDCUSD", &crossed), Err(Invalid::Crossed));
        for (bad, reason) in [("0", Invalid::NoAnswer), ("-0.9", Invalid::NoAnswer), ("NaN", Invalid::Decode)] {
            assert_eq!(read(&Kraken, "USDCUSD", &GOOD.replace("0.89570000", bad)), Err(reason));
        }
        let path = &Kraken.asks(&[market("USDCUSD"), market("USDTUSD")])[0].path;
        assert_eq!(path, "/0/public/Ticker?pair=USDCUSD,USDTUSD");
    }
}
