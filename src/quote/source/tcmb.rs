//! The Turkish central bank's rates: liras for a number of units of another money. They bound and never vote.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, PrimitiveDateTime, Time};

use super::xml::{Tag, tags};
use super::{Answer, Ask, PriceSource, Reading, reading};
use crate::chains::MarketSpec;
use crate::quote::observation::Invalid;
use crate::units::{Price, Toward};

#[derive(Debug)]
pub(super) struct Tcmb;

/// `Tarih` is day first, `Date` month first.
const DAY_FIRST: &[BorrowedFormatItem<'_>] = format_description!("[day].[month].[year]");
/// 15:30 in Istanbul.
const SET_AT: Time = time::macros::time!(12:30);

impl PriceSource for Tcmb {
    fn name(&self) -> &'static str {
        "tcmb"
    }

    fn asks(&self, markets: &[MarketSpec]) -> Vec<Ask> {
        vec![Ask::new("/kurlar/today.xml", (0..markets.len()).collect())]
    }

    fn read(&self, markets: &[MarketSpec], ask: &Ask, body: &str) -> Vec<Reading> {
        let Some(tags) = tags(body) else { return ask.every(Invalid::Decode) };
        let day = tags.iter().find(|tag| tag.name == "Tarih_Date").and_then(|tag| tag.attribute("Tarih"));
        let Some(date) = day.and_then(|day| Date::parse(day, DAY_FIRST).ok()) else { return ask.every(Invalid::Decode) };
        let at_s = PrimitiveDateTime::new(date, SET_AT).assume_utc().unix_timestamp();
        let read = |place: &usize| {
            let symbol = &markets[*place].symbol;
            let answer = of(&tags, symbol).map(|answer| Answer { observed_s: Some(at_s), ..answer });
            reading(*place, format!("{symbol} of {date}"), answer)
        };
        ask.markets.iter().map(read).collect()
    }
}

/// Liras for one unit: the middle of what the bank buys and sells at, for as many units as it says.
fn of(tags: &[Tag<'_>], symbol: &str) -> Result<Answer, Invalid> {
    let start =
        tags.iter().position(|tag| tag.name == "Currency" && tag.attribute("CurrencyCode") == Some(symbol)).ok_or(Invalid::Decode)?;
    let fields = &tags[start + 1..];
    let end = fields.iter().position(|tag| tag.name == "Currency").unwrap_or(fields.len());
    let number = |name: &str| {
        let text = fields[..end].iter().find(|tag| tag.name == name).map(|tag| tag.text).filter(|text| !text.is_empty());
        text.ok_or(Invalid::NoAnswer)?.parse::<Price>().map_err(|_| Invalid::Decode)
    };
    let units = number("Unit")?;
    let for_one = |name| number(name)?.over(units, Toward::Up).map_err(|_| Invalid::Decode);
    Answer::of_book(for_one("ForexBuying")?, for_one("ForexSelling")?, None)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{price, read, refuses_garbage};
    use super::*;

    const GOOD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<?xml-stylesheet type=\"text/xsl\" href=\"isokur.xsl\"?>\n\
        <Tarih_Date Tarih=\"31.01.2024\" Date=\"01/31/2024\"  Bulten_No=\"2024/22\" >\n<Currency CrossOrder=\"0\" Kod=\"USD\" CurrencyCode=\"USD\">\n\
        <Unit>1</Unit><Isim>ABD DOLARI</Isim><CurrencyName>US DOLLAR</CurrencyName><ForexBuying>30.2952</ForexBuying>\
        <ForexSelling>30.3497</ForexSelling><CrossRateUSD/><CrossRateOther/></Currency>\n\
        <Currency CrossOrder=\"9\" Kod=\"JPY\" CurrencyCode=\"JPY\"><Unit>100</Unit><ForexBuying>20.4461</ForexBuying>\
        <ForexSelling>20.5815</ForexSelling></Currency>\n<Currency CrossOrder=\"13\" Kod=\"RON\" CurrencyCode=\"RON\"><Unit>1</Unit>\
        <ForexBuying></ForexBuying><ForexSelling/></Currency></Tarih_Date>";

    #[test]
    fn q3_units_of_a_hundred_and_empty_tags() {
        let answer = read(&Tcmb, "USD", GOOD).unwrap();
        assert_eq!((answer.price.to_string().as_str(), answer.observed_s), ("30.32245", Some(1_706_704_200)));
        assert_eq!(price(&Tcmb, "JPY", GOOD), "0.205138");
        assert_eq!(read(&Tcmb, "RON", GOOD), Err(Invalid::NoAnswer));
        refuses_garbage(&Tcmb, "USD", GOOD);
        assert_eq!(read(&Tcmb, "USD", &GOOD.replace("<Unit>1</Unit>", "<Unit>0</Unit>")), Err(Invalid::Decode));
        // The day is taken from the attribute whose order is known.
        assert_eq!(read(&Tcmb, "USD", &GOOD.replace("31.01.2024", "01/31/2024")), Err(Invalid::Decode));
    }
}
