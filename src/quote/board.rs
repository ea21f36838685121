//! The latest of what each source said. Ages are computed when it is looked at; nothing derived is kept, so
//! that no aggregate can grow old here.

use std::collections::BTreeMap;

use alloy::primitives::U256;

use super::aggregate::fault_of;
use super::observation::{Invalid, Leg, Observation, U256Text};
use super::source::chainlink::mark_contradictions;
use super::source::{Answer, Reading};
use crate::chains::{MarketSpec, PairSpec, PriceBook, VenueSpec};
use crate::units::{Price, Toward};

/// A book that tells no time must move, or its last trade.
const FROZEN_S: i64 = 1_800;

/// By pair and source, in the order of preference of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    markets: BTreeMap<(usize, usize), Said>,
    /// Feeds by pair and source.
    feeds: BTreeMap<(String, String), Observation>,
}

/// The latest of one market.
#[derive(Clone, Debug)]
struct Said {
    reading: Reading,
    fetched_s: i64,
    /// When what it says last changed.
    changed_s: i64,
    /// The highest count before this one.
    round_before: Option<U256>,
}

impl Board {
    /// Notes what a venue, by its place in the book, said about one of its markets.
    pub(super) fn note(&mut self, venue: usize, reading: Reading, now_s: i64) {
        let key = (venue, reading.market);
        let before = self.markets.get(&key);
        // No answer is no news: what was said before grows old by itself.
        let silent = matches!(reading.answer, Err(Invalid::Unreachable | Invalid::Refused));
        if silent && before.is_some_and(|before| before.reading.answer.is_ok()) {
            return;
        }
        let round = |said: &Said| said.reading.answer.ok().and_then(|answer| answer.round);
        let round_before = before.map(|before| round(before).max(before.round_before)).unwrap_or_default();
        let changed_s = before.filter(|before| before.reading.raw == reading.raw).map_or(now_s, |before| before.changed_s);
        self.markets.insert(key, Said { reading, fetched_s: now_s, changed_s, round_before });
    }

    /// Notes what a feed on a chain answered.
    pub(super) fn note_feed(&mut self, pair: &str, mut seen: Observation) {
        let key = (pair.to_owned(), seen.source.clone());
        if let Some(before) = self.feeds.get(&key) {
            seen.round_before = before.round.max(before.round_before);
        }
        self.feeds.insert(key, seen);
    }

    /// Everything said about a pair, in order of preference: what votes, and the official rates that bound it.
    pub(super) fn observations(
        &self,
        book: &PriceBook,
        pair: &PairSpec,
        asked: &[usize],
        now_s: i64,
    ) -> (Vec<Observation>, Vec<Observation>) {
        let look = Look { board: self, book, asked, now_s };
        let (mut votes, mut official) = (Vec::new(), Vec::new());
        for (venue, spec, place, market) in look.markets_of(&pair.name) {
            let seen = look.observe(venue, spec, place, market, pair);
            if spec.sanity { official.push(seen) } else { votes.push(seen) }
        }
        votes.extend(look.feeds_of(pair));
        (votes, official)
    }
}

/// One look at the board.
struct Look<'a> {
    board: &'a Board,
    book: &'a PriceBook,
    /// Venues that are asked, by their place in the book.
    asked: &'a [usize],
    now_s: i64,
}

impl<'a> Look<'a> {
    fn markets_of(&self, pair: &str) -> Vec<(usize, &'a VenueSpec, usize, &'a MarketSpec)> {
        let mut found = Vec::new();
        for (place, venue) in self.book.venues().iter().enumerate().filter(|(place, _)| self.asked.contains(place)) {
            let markets = venue.markets.iter().enumerate().filter(|(_, market)| market.pair == pair);
            found.extend(markets.map(|(market, spec)| (place, venue, market, spec)));
        }
        found
    }

    /// Feeds with the shortest heartbeat first: they vote for the family.
    fn feeds_of(&self, pair: &PairSpec) -> Vec<Observation> {
        let mut feeds: Vec<Observation> =
            self.board.feeds.iter().filter(|((of, _), _)| *of == pair.name).map(|(_, seen)| bounded(seen.clone(), pair)).collect();
        feeds.sort_by_key(|seen| (seen.max_age_s, std::cmp::Reverse(seen.observed_s)));
        mark_contradictions(&mut feeds, self.now_s);
        feeds
    }

    fn observe(&self, venue: usize, spec: &VenueSpec, place: usize, market: &MarketSpec, pair: &PairSpec) -> Observation {
        let said = self.board.markets.get(&(venue, place));
        let answer = said.map_or(Err(Invalid::NotYet), |said| said.reading.answer);
        let fetched_s = said.map_or(self.now_s, |said| said.fetched_s);
        let frozen = said.is_some_and(|said| said.fetched_s - said.changed_s > FROZEN_S);
        let mut seen = Observation::new(&spec.name, &spec.family, Price::ZERO, fetched_s);
        seen.fetched_s = fetched_s;
        seen.max_age_s = i64::from(spec.max_age_s);
        seen.raw = said.map(|said| said.reading.raw.clone()).unwrap_or_default();
        seen.round_before = said.and_then(|said| said.round_before).map(U256Text);
        seen.direct = market.cross.is_none();
        let told = answer.and_then(|answer| {
            seen.time_known = answer.observed_s.is_some();
            seen.observed_s = answer.observed_s.unwrap_or(fetched_s);
            seen.conf_bps = answer.conf_bps;
            seen.round = answer.round.map(U256Text);
            if !seen.time_known && frozen {
                return Err(Invalid::BookFrozen);
            }
            self.normalised(answer, market, spec, &mut seen)
        });
        match told {
            Ok(price) => seen.price = price,
            Err(reason) => seen.invalid = Some(reason),
        }
        bounded(seen, pair)
    }

    /// US dollars for one unit of the base.
    fn normalised(&self, answer: Answer, market: &MarketSpec, spec: &VenueSpec, seen: &mut Observation) -> Result<Price, Invalid> {
        let Some(cross) = &market.cross else {
            let turned = if market.invert { Price::one().over(answer.price, Toward::Up) } else { Ok(answer.price) };
            return turned.map_err(|_| Invalid::Decode);
        };
        let leg = self.leg(cross, &spec.family).ok_or(Invalid::NoLeg)?;
        // A cross is as old as its older leg and as uncertain as both.
        seen.observed_s = seen.observed_s.min(leg.observed_s);
        seen.conf_bps = match (seen.conf_bps, leg.conf_bps) {
            (Some(one), Some(other)) => Some(one.plus(other)),
            (one, other) => one.or(other),
        };
        let price = if market.invert { leg.price.over(answer.price, Toward::Up) } else { answer.price.times(leg.price, Toward::Down) };
        seen.leg = Some(Leg { source: leg.source, pair: cross.clone(), price: leg.price, observed_s: leg.observed_s });
        price.map_err(|_| Invalid::Decode)
    }

    /// The first good price in US dollars of another family.
    fn leg(&self, pair: &str, family: &str) -> Option<Observation> {
        let spec = self.book.pair(pair)?;
        let markets = self.markets_of(pair).into_iter().filter(|(_, venue, _, market)| market.cross.is_none() && !venue.sanity);
        let direct = markets.map(|(venue, venue_spec, place, market)| self.observe(venue, venue_spec, place, market, spec));
        let mut all = direct.chain(self.feeds_of(spec));
        all.find(|seen| seen.family != family && fault_of(seen, self.now_s).is_none())
    }
}

/// What the pair says about every source.
fn bounded(seen: Observation, pair: &PairSpec) -> Observation {
    let conf_max_bps = seen.conf_bps.is_some().then_some(pair.conf_max);
    Observation { min: pair.min, max: pair.max, conf_max_bps, ..seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chains::ChainBook;
    use crate::quote::aggregate::admit;
    use crate::quote::observation::Verdict;

    const NOW: i64 = 1_764_000_000;

    fn book() -> ChainBook {
        ChainBook::parse(include_str!("../../chains.toml")).unwrap()
    }

    fn venue(book: &PriceBook, name: &str) -> usize {
        book.venues().iter().position(|venue| venue.name == name).unwrap()
    }

    fn answer(market: usize, price: &str, observed_s: Option<i64>, raw: &str) -> Reading {
        let answer = Answer { price: price.parse().unwrap(), observed_s, conf_bps: Some(crate::units::MicroBps::from_bps(2)), round: None };
        Reading { market, raw: raw.to_owned(), answer: Ok(answer) }
    }

    /// What the venues that matter here say about a pair.
    fn look(board: &Board, book: &PriceBook, pair: &str, now_s: i64) -> BTreeMap<String, Observation> {
        let asked: Vec<usize> = (0..book.venues().len()).collect();
        let (votes, official) = board.observations(book, book.pair(pair).unwrap(), &asked, now_s);
        votes.into_iter().chain(official).map(|seen| (seen.source.clone(), seen)).collect()
    }

    #[test]
    fn q3_a_cross_takes_the_age_and_the_doubt_of_both_and_a_leg_of_another_family() {
        let book = book();
        let prices = book.prices();
        let mut board = Board::default();
        let (binance, kraken, coinbase) = (venue(prices, "binance"), venue(prices, "kraken"), venue(prices, "coinbase"));
        board.note(binance, answer(0, "0.9", Some(NOW - 5), "a"), NOW);
        assert_eq!(look(&board, prices, "USDC/USD", NOW)["binance"].invalid, Some(Invalid::NoLeg));
        board.note(coinbase, answer(0, "1.01", Some(NOW - 100), "b"), NOW);
        let seen = look(&board, prices, "USDC/USD", NOW).remove("binance").unwrap();
        assert_eq!((seen.price.to_string().as_str(), seen.observed_s, seen.direct), ("0.909", NOW - 100, false));
        assert_eq!(seen.conf_bps.unwrap().to_string(), "4");
        assert_eq!(seen.leg.unwrap().source, "coinbase");
        // Kraken comes first in the book; once it is stale, the next one.
        board.note(kraken, answer(1, "1.02", None, "c"), NOW - 250);
        assert_eq!(look(&board, prices, "USDC/USD", NOW)["binance"].leg.clone().unwrap().source, "kraken");
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 60)["binance"].leg.clone().unwrap().source, "coinbase");
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 350)["binance"].invalid, Some(Invalid::NoLeg));
    }

    #[test]
    fn q3_rial_and_lira_are_dollars_for_one_unit() {
        let book = book();
        let prices = book.prices();
        let mut board = Board::default();
        board.note(venue(prices, "kraken"), answer(1, "1.0001", None, "c"), NOW);
        board.note(venue(prices, "nobitex"), answer(0, "438500", None, "a"), NOW);
        // The same number in toman, unconverted, is ten times too dear and outside of what is believed.
        board.note(venue(prices, "wallex"), answer(0, "43850", None, "a"), NOW);
        let seen = look(&board, prices, "IRR/USD", NOW);
        assert!(seen["nobitex"].price.to_string().starts_with("0.00000228072976054732"), "{}", seen["nobitex"].price);
        assert_eq!(fault_of(&seen["nobitex"], NOW), None);
        assert_eq!(fault_of(&seen["wallex"], NOW), Some(Verdict::OutOfRange));
        board.note(venue(prices, "pyth"), answer(6, "41.25", Some(NOW), "p"), NOW);
        board.note(venue(prices, "ecb"), answer(1, "0.0242", Some(NOW - 86_400), "e"), NOW);
        let lira = look(&board, prices, "TRY/USD", NOW);
        assert!(lira["pyth"].price.to_string().starts_with("0.0242424242"));
        assert_eq!(lira["ecb"].price.to_string(), "0.0242");
    }

    #[test]
    fn q3_a_book_without_a_time_must_move() {
        let book = book();
        let prices = book.prices();
        let kraken = venue(prices, "kraken");
        let mut board = Board::default();
        for minute in 0..=30 {
            board.note(kraken, answer(0, "1", None, "same"), NOW + 60 * minute);
        }
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 1_800)["kraken"].invalid, None);
        board.note(kraken, answer(0, "1", None, "same"), NOW + 1_801);
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 1_801)["kraken"].invalid, Some(Invalid::BookFrozen));
        board.note(kraken, answer(0, "1", None, "traded"), NOW + 1_802);
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 1_802)["kraken"].invalid, None);
    }

    #[test]
    fn q3_silence_lets_a_price_grow_old_and_nonsense_takes_it_away() {
        let book = book();
        let prices = book.prices();
        let kraken = venue(prices, "kraken");
        let mut board = Board::default();
        let spoilt = |reason| Reading { market: 0, raw: String::new(), answer: Err(reason) };
        board.note(kraken, spoilt(Invalid::Unreachable), NOW);
        assert_eq!(look(&board, prices, "USDC/USD", NOW)["kraken"].invalid, Some(Invalid::Unreachable));
        board.note(kraken, answer(0, "1", None, "a"), NOW);
        board.note(kraken, spoilt(Invalid::Unreachable), NOW + 299);
        let seen = look(&board, prices, "USDC/USD", NOW + 300).remove("kraken").unwrap();
        assert_eq!(fault_of(&seen, NOW + 300), None);
        assert_eq!(fault_of(&seen, NOW + 301), Some(Verdict::Stale));
        board.note(kraken, spoilt(Invalid::Decode), NOW + 10);
        assert_eq!(look(&board, prices, "USDC/USD", NOW + 11)["kraken"].invalid, Some(Invalid::Decode));
    }

    #[test]
    fn q3_the_feed_with_the_shortest_heartbeat_votes_and_its_round_does_not_go_back() {
        let book = book();
        let prices = book.prices();
        let feed = |chain: u64, max_age_s: i64, round: u64| Observation {
            max_age_s,
            round: Some(U256Text(U256::from(round))),
            ..Observation::new(format!("chainlink/{chain}"), "chainlink", "0.9999".parse().unwrap(), NOW)
        };
        let mut board = Board::default();
        board.note_feed("USDC/USD", feed(1, 84_600, 7));
        board.note_feed("USDC/USD", feed(42_161, 2_055, 9));
        let (votes, _) = board.observations(prices, prices.pair("USDC/USD").unwrap(), &[], NOW);
        assert_eq!(votes.iter().map(|seen| seen.source.as_str()).collect::<Vec<_>>(), ["chainlink/42161", "chainlink/1"]);
        assert_eq!(admit(&votes, NOW), [None, Some(Verdict::SameFamily)]);
        board.note_feed("USDC/USD", feed(42_161, 2_055, 8));
        let (votes, _) = board.observations(prices, prices.pair("USDC/USD").unwrap(), &[], NOW);
        assert_eq!(admit(&votes, NOW), [Some(Verdict::RoundWentBack), None]);
    }
}
