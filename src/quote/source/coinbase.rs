//! Coinbase Exchange's ticker. USDC counts as a dollar there, so it is never asked for USDC.

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Coinbase;

#[derive(Deserialize)]
struct Ticker {
    bid: Number,
    ask: Number,
    time: String,
}

impl PriceSource for Coinbase {
    fn name(&self) -> &'static str {
        "coinbase"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        let asks = Ask::each(markets, |symbol| format!("/products/{symbol}/ticker"));
        asks.into_iter().filter(|ask| !markets[ask.markets[0]].symbol.starts_with("USDC")).collect()
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        // The answer does not repeat the market, so the path is all there is to go by.
        let place = ask.markets[0];
        let asked = ask.path == format!("/products/{}/ticker", markets[place].symbol) && markets[place].symbol.ends_with("-USD");
        let ticker: Ticker = match json(body) {
            Ok(ticker) if asked => ticker,
            Ok(_) => return ask.every(Invalid::Decode),
            Err(reason) => return ask.every(reason),
        };
        let raw = format!("bid {} ask {} at {}", ticker.bid.text(), ticker.ask.text(), ticker.time);
        vec![reading(place, raw, of(&ticker))]
    }
}

fn of(ticker: &Ticker) -> Result<Answer, Invalid> {
    let at = OffsetDateTime::parse(&ticker.time, &Rfc3339).map_err(|_| Invalid::Decode)?;
    Answer::of_book(ticker.bid.price()?, ticker.ask.price()?, Some(at.unix_timestamp()))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{market, read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"trade_id":843439,"price":"0.997999","size":"80.29769","time":"2020-01-28T02:13:33.012523Z",
        "bid":"0.997094","ask":"0.998","volume":"1903188.03750000"}"#;

    #[test]
    fn q3_the_middle_of_the_book_at_its_time() {
        let answer = read(&Coinbase, "USDT-USD", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.997547", Some(1_580_177_613)));
        refuses_garbage(&Coinbase, "USDT-USD", GOOD);
        assert_eq!(read(&Coinbase, "USDT-USD", &GOOD.replace("2020-01-28T", "yesterday ")), Err(Invalid::Decode));
        assert_eq!(read(&Coinbase, "USDT-USD", &GOOD.replace("\"0.997094\"", "null")), Err(Invalid::Decode));
    }

    #[test]
    fn q3_usdc_is_never_asked_where_it_counts_as_a_dollar() {
        assert!(Coinbase.asks(&[market("USDC-USD")]).is_empty());
    }
}
