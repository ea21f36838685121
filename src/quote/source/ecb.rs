//! The European Central Bank's reference rates, once a working day. They bound and never vote.
//!
//! One euro is `rate` units. A market `USD` is US dollars for one euro; `USD/TRY` is US dollars for one lira,
//! both of the same day.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, PrimitiveDateTime, Time};

use super::xml::tags;
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;
use crate::units::{Price, Toward};

#[derive(Debug)]
pub(super) struct Ecb;

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
/// Rates are set in the afternoon of Frankfurt. The hour does not matter to a rate that lives for days.
const SET_AT: Time = time::macros::time!(14:00);

impl PriceSource for Ecb {
    fn name(&self) -> &'static str {
        "ecb"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        vec![Ask::new("/stats/eurofxref/eurofxref-daily.xml", (0..markets.len()).collect())]
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let Some(cubes) = tags(body) else { return ask.every(Invalid::Decode) };
        let Some(day) = cubes.iter().find_map(|cube| cube.attribute("time")) else { return ask.every(Invalid::Decode) };
        let Ok(date) = Date::parse(day, DATE) else { return ask.every(Invalid::Decode) };
        let at_s = PrimitiveDateTime::new(date, SET_AT).assume_utc().unix_timestamp();
        let rate = |currency: &str| {
            let found = cubes.iter().find(|cube| cube.attribute("currency") == Some(currency)).and_then(|cube| cube.attribute("rate"));
            found.and_then(|rate| rate.parse::<Price>().ok()).filter(|rate| !rate.is_zero()).ok_or(Invalid::Decode)
        };
        let read = |place: &usize| {
            let symbol = &markets[*place].symbol;
            let price = match symbol.split_once('/') {
                None => rate(symbol),
                Some((one, other)) => rate(one).and_then(|one| one.over(rate(other)?, Toward::Up).map_err(|_| Invalid::Decode)),
            };
            let answer = price.map(|price| Answer { price, observed_s: Some(at_s), conf_bps: None, round: None });
            reading(*place, format!("{symbol} of {day}"), answer)
        };
        ask.markets.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{price, read, refuses_garbage};
    use super::*;

    const GOOD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<gesmes:Envelope xmlns:gesmes=\"http://www.gesmes.org/xml/2002-08-01\" \
        xmlns=\"http://www.ecb.int/vocabulary/2002-08-01/eurofxref\">\n<gesmes:subject>Reference rates</gesmes:subject>\n<Cube>\n\
        <Cube time='2023-03-10'>\n<Cube currency='USD' rate='1.0586' />\n<Cube currency='JPY' rate='144.21'/>\n<Cube currency='TRY' rate='20.0737'/>\n\
        </Cube></Cube></gesmes:Envelope>";

    #[test]
    fn q3_dollars_for_a_euro_and_for_a_lira() {
        let answer = read(&Ecb, "USD", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("1.0586", Some(1_678_456_800)));
        assert!(price(&Ecb, "USD/TRY", GOOD).starts_with("0.05273566905951568"));
        refuses_garbage(&Ecb, "USD", GOOD);
        assert_eq!(read(&Ecb, "USD", &GOOD.replace("1.0586", "0")), Err(Invalid::Decode));
        assert_eq!(read(&Ecb, "USD", &GOOD.replace("2023-03-10", "10.03.2023")), Err(Invalid::Decode));
    }
}
