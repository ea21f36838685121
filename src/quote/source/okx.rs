//! OKX's ticker.

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;

#[derive(Debug)]
pub(super) struct Okx;

#[derive(Deserialize)]
struct Ticker {
    /// `"0"` where all is well.
    code: Number,
    data: Vec<Book>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Book {
    inst_id: String,
    ask_px: Number,
    bid_px: Number,
    /// In milliseconds, as text.
    ts: Number,
}

impl PriceSource for Okx {
    fn name(&self) -> &'static str {
        "okx"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        Ask::each(markets, |symbol| format!("/api/v5/market/ticker?instId={symbol}"))
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let place = ask.markets[0];
        let ticker: Ticker = match json(body) {
            Ok(ticker) => ticker,
            Err(reason) => return ask.every(reason),
        };
        if ticker.code.text() != "0" {
            return ask.every(Invalid::Refused);
        }
        let Some(book) = ticker.data.iter().find(|book| book.inst_id == markets[place].symbol) else { return ask.every(Invalid::Decode) };
        let raw = format!("bid {} ask {} at {}", book.bid_px.text(), book.ask_px.text(), book.ts.text());
        vec![reading(place, raw, of(book))]
    }
}

fn of(book: &Book) -> Result<Answer, Invalid> {
    Answer::of_book(book.bid_px.price()?, book.ask_px.price()?, Some(book.ts.whole()?.div_euclid(1_000)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"code":"0","msg":"","data":[{"instType":"SPOT","instId":"USDC-USDT","last":"0.9999","askPx":"1.0000",
        "bidPx":"0.9998","vol24h":"1","ts":"1621440583784"}]}"#;

    #[test]
    fn q3_the_middle_of_the_book_at_its_time() {
        let answer = read(&Okx, "USDC-USDT", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.9999", Some(1_621_440_583)));
        refuses_garbage(&Okx, "USDC-USDT", GOOD);
        assert_eq!(read(&Okx, "USDC-USDT", r#"{"code":"51001","msg":"Instrument ID does not exist","data":[]}"#), Err(Invalid::Refused));
        assert_eq!(read(&Okx, "USDC-USDT", &GOOD.replace("\"bidPx\":\"0.9998\"", "\"bidPx\":\"\"")), Err(Invalid::Decode));
    }
}
