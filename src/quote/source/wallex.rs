//! Wallex's markets, in toman: ten rial, by the name of the unit and never by the size of the number.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;
use crate::units::{Price, Toward};

#[derive(Debug)]
pub(super) struct Wallex;

#[derive(Deserialize)]
struct Markets {
    success: bool,
    result: Option<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    symbols: BTreeMap<String, Market>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Market {
    quote_asset: String,
    stats: Book,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Book {
    bid_price: Number,
    ask_price: Number,
}

/// Every market there is comes in one answer.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

impl PriceSource for Wallex {
    fn name(&self) -> &'static str {
        "wallex"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        vec![Ask { body_bytes_max: BODY_BYTES_MAX, ..Ask::new("/v1/markets", (0..markets.len()).collect()) }]
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let listed: Markets = match json(body) {
            Ok(listed) => listed,
            Err(reason) => return ask.every(reason),
        };
        let Some(result) = listed.result.filter(|_| listed.success) else { return ask.every(Invalid::Refused) };
        let read = |place: &usize| match result.symbols.get(&markets[*place].symbol) {
            None => reading(*place, String::new(), Err(Invalid::Decode)),
            Some(market) => {
                let raw = format!("bid {} ask {} {}", market.stats.bid_price.text(), market.stats.ask_price.text(), market.quote_asset);
                reading(*place, raw, of(market))
            }
        };
        ask.markets.iter().map(read).collect()
    }
}

fn of(market: &Market) -> Result<Answer, Invalid> {
    let rial_per_unit: Price = match market.quote_asset.as_str() {
        "TMN" => "10".parse().map_err(|_| Invalid::Unit)?,
        _ => return Err(Invalid::Unit),
    };
    let rial = |number: &Number| number.price()?.times(rial_per_unit, Toward::Down).map_err(|_| Invalid::Decode);
    Answer::of_book(rial(&market.stats.bid_price)?, rial(&market.stats.ask_price)?, None)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{read, refuses_garbage};
    use super::*;

    const GOOD: &str = r#"{"success":true,"message":"ok","result":{"symbols":{"USDTTMN":{"symbol":"USDTTMN","baseAsset":"USDT","quoteAsset":"TMN",
        "stats":{"bidPrice":"185830.0000000000000000","askPrice":"186050.0000000000000000","lastPrice":"173530.0000000000000000","24h_ch":-0.04}},
        "BTCTMN":{"symbol":"BTCTMN","baseAsset":"BTC","quoteAsset":"TMN","stats":{"bidPrice":"1","askPrice":"2","24h_ch":"0.1"}}}}}"#;

    #[test]
    fn q3_rial_and_toman_side_by_side() {
        let toman = read(&Wallex, "USDTTMN", GOOD).unwrap().price;
        let rial = read(&super::super::nobitex::Nobitex, "usdt-rls", super::super::nobitex::tests::GOOD).unwrap().price;
        assert_eq!((toman.to_string().as_str(), rial.to_string().as_str()), ("1859400", "1859395"), "one money, within a few rial");
        refuses_garbage(&Wallex, "USDTTMN", GOOD);
        for unit in ["IRR", "tmn", "USDT", ""] {
            assert_eq!(read(&Wallex, "USDTTMN", &GOOD.replace("\"TMN\"", &format!("{unit:?}"))), Err(Invalid::Unit), "{unit}");
        }
        assert_eq!(read(&Wallex, "USDTTMN", r#"{"success":false,"message":"no"}"#), Err(Invalid::Refused));
    }
}
