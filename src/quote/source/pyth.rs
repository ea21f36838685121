//! Pyth's prices through Hermes. A price comes with its confidence, in the same exponent; the averaged price
//! beside it is not used.

use alloy::primitives::U256;
use serde::Deserialize;

use super::number::{Number, json};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;
use crate::units::{MicroBps, Price};

#[derive(Debug)]
pub(super) struct Pyth;

#[derive(Deserialize)]
struct Latest {
    parsed: Vec<Feed>,
}

#[derive(Deserialize)]
struct Feed {
    /// Without 0x.
    id: String,
    price: Stated,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
struct Stated {
    price: Number,
    conf: Number,
    expo: i32,
    publish_time: i64,
}

#[derive(Deserialize)]
struct Metadata {
    slot: Option<u64>,
}

const EXPONENTS: std::ops::RangeInclusive<i32> = -20..=12;

impl PriceSource for Pyth {
    fn name(&self) -> &'static str {
        "pyth"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        let ids: Vec<String> = markets.iter().map(|market| format!("ids[]={}", market.symbol)).collect();
        vec![Ask::new(format!("/v2/updates/price/latest?{}&parsed=true", ids.join("&")), (0..markets.len()).collect())]
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let latest: Latest = match json(body) {
            Ok(latest) => latest,
            Err(reason) => return ask.every(reason),
        };
        let bare = |id: &str| id.trim_start_matches("0x").to_lowercase();
        let read = |place: &usize| match latest.parsed.iter().find(|feed| bare(&feed.id) == bare(&markets[*place].symbol)) {
            None => reading(*place, String::new(), Err(Invalid::Decode)),
            Some(feed) => {
                let stated = &feed.price;
                let raw = format!("{}e{} conf {} at {}", stated.price.text(), stated.expo, stated.conf.text(), stated.publish_time);
                reading(*place, raw, of(feed))
            }
        };
        ask.markets.iter().map(read).collect()
    }
}

fn of(feed: &Feed) -> Result<Answer, Invalid> {
    let stated = &feed.price;
    if !EXPONENTS.contains(&stated.expo) {
        return Err(Invalid::Decode);
    }
    if stated.price.text().starts_with('-') {
        return Err(Invalid::NoAnswer);
    }
    let scaled = |number: &Number| {
        let integer = U256::from_str_radix(number.text(), 10).map_err(|_| Invalid::Decode)?;
        Price::from_scaled(integer, stated.expo).map_err(|_| Invalid::Decode)
    };
    let (price, conf) = (scaled(&stated.price)?, scaled(&stated.conf)?);
    if price.is_zero() {
        return Err(Invalid::NoAnswer);
    }
    let round = feed.metadata.as_ref().and_then(|metadata| metadata.slot).map(U256::from);
    Ok(Answer { price, observed_s: Some(stated.publish_time), conf_bps: Some(MicroBps::of(conf, price)), round })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{market, read, refuses_garbage};
    use super::*;

    const ID: &str = "0xeaa020c61cc479712813461ce153894a96a6c00b21ed0cfc2798d1f9a9e9c94a";
    const GOOD: &str = r#"{"binary":{"encoding":"hex","data":["504e4155"]},"parsed":[{"id":"eaa020c61cc479712813461ce153894a96a6c00b21ed0cfc2798d1f9a9e9c94a",
        "price":{"price":"87740000","conf":"609793","expo":-8,"publish_time":1692110601},
        "ema_price":{"price":"99990000","conf":"1","expo":-8,"publish_time":1692110601},
        "metadata":{"slot":89783664,"proof_available_time":1692110604,"prev_publish_time":1692110601}}]}"#;

    #[test]
    fn q3_price_and_confidence_share_an_exponent() {
        let answer = read(&Pyth, ID, GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("0.8774", Some(1_692_110_601)));
        assert_eq!(answer.conf_bps.unwrap().to_string(), "69.5");
        assert_eq!(answer.round, Some(U256::from(89_783_664)));
        refuses_garbage(&Pyth, ID, GOOD);
        for (from, to, reason) in [
            ("\"expo\":-8", "\"expo\":-21", Invalid::Decode),
            ("\"expo\":-8", "\"expo\":13", Invalid::Decode),
            ("\"87740000\"", "\"0\"", Invalid::NoAnswer),
            ("\"87740000\"", "\"-1\"", Invalid::NoAnswer),
            ("\"87740000\"", "\"NaN\"", Invalid::Decode),
        ] {
            assert_eq!(read(&Pyth, ID, &GOOD.replacen(from, to, 1)), Err(reason), "{to}");
        }
        let path = &Pyth.asks(&[market("0xaa"), market("0xbb")])[0].path;
        assert_eq!(path, "/v2/updates/price/latest?ids[]=0xaa&ids[]=0xbb&parsed=true");
    }
}
