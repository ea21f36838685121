//! A past crisis, minute by minute, through the real code: what the seller would have lost, what the payer
//! would have paid too much, and how often there would have been no quote. Pure: it reads text.
//!
//! The minutes are those of March 2023, when USDC fell to 0.88 dollars. A minute is decided when it has
//! ended. What a venue repeats without a trade keeps the age of its last trade.

use std::collections::BTreeMap;

use alloy::primitives::U256;
use time::OffsetDateTime;

use super::decide::{Memory, PairInput, round};
use super::formula::{PegRule, Policy, Terms, settle};
use super::limits::Limits;
use super::observation::{Observation, U256Text};
use crate::chains::PairKind;
use crate::units::{Decimal18, Price, Toward, UsdRate, pow10};

/// The texts of the files, by their names.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// `kraken_usdcusd_1m.csv`, the reference.
    pub kraken_usdc: &'a str,
    /// `binance_usdcusdt_1m.csv`.
    pub binance_usdc: &'a str,
    /// `coinbase_usdtusd_1m.csv`, the other leg of the former.
    pub coinbase_usdt: &'a str,
    /// `chainlink_eth_usdc_usd_rounds.csv`.
    pub chainlink: &'a str,
}

/// A price at the instant at which it was known.
#[derive(Clone, Copy, Debug)]
struct Known {
    price: Price,
    /// When it was made.
    observed_s: i64,
    round: Option<U256>,
}

/// Prices by the instant at which they are known.
type Series = BTreeMap<i64, Known>;

/// All series, read.
#[derive(Clone, Debug)]
pub struct History {
    kraken: Series,
    binance: Series,
    coinbase: Series,
    chainlink: Series,
}

/// Which sources take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// The design, with all three families.
    Ours,
    /// The design without the venue that is also the reference: the honest row.
    OursWithoutReference,
    /// One token is one dollar.
    HardCoded,
    /// One venue and its cross, whatever it says.
    SingleVenue,
    /// The last round of the feed, whatever its age.
    FeedAlone,
    /// The middle one of three, without any check.
    MedianOfThree,
}

impl Method {
    pub const ALL: [Self; 6] =
        [Self::Ours, Self::OursWithoutReference, Self::HardCoded, Self::SingleVenue, Self::FeedAlone, Self::MedianOfThree];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "amanatd, three families",
            Self::OursWithoutReference => "amanatd, without the reference venue",
            Self::HardCoded => "hard-coded 1 USD",
            Self::SingleVenue => "one venue (Binance x Coinbase)",
            Self::FeedAlone => "Chainlink alone",
            Self::MedianOfThree => "median of three, no checks",
        }
    }
}

/// One minute as it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Minute {
    /// When it was decided.
    pub at_s: i64,
    /// What the token was worth.
    pub reference: Price,
    /// The price used, or none.
    pub ours: Option<UsdRate>,
    /// The refusal's code where there is none.
    pub refused: Option<&'static str>,
}

/// A distribution, in thousandths of a basis point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    pub mean: u64,
    pub p95: u64,
    pub max: u64,
}

/// What a method came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Score {
    pub seller_loss: Spread,
    pub payer_overcharge: Spread,
    pub minutes: usize,
    pub quoted: usize,
    /// The longest time without a quote, in minutes.
    pub longest_refusal: usize,
    pub refusals: BTreeMap<&'static str, usize>,
}

impl Score {
    /// In thousandths, rounded half up.
    pub fn availability_permille(&self) -> usize {
        (self.quoted * 1_000 + self.minutes / 2) / self.minutes.max(1)
    }
}

/// What a method must come to on the minutes of March 2023 with a halt at 1,500 bps: all three figures together. One
/// alone is easy: a lower price costs the payer, and a refusal costs neither.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    pub method: Method,
    pub seller_loss: Spread,
    pub payer_overcharge: Spread,
    pub quoted_permille: usize,
}

/// The halt at which the goals were set.
pub const GOAL_HALT_BPS: u32 = 1_500;

/// What a plain replay of the rules came to when they were designed, in binary floats and with that many digits.
pub const GOALS: [Goal; 2] = [
    Goal {
        method: Method::Ours,
        seller_loss: Spread { mean: 4_600, p95: 33_000, max: 167_000 },
        payer_overcharge: Spread { mean: 12_000, p95: 49_000, max: 248_000 },
        quoted_permille: 975,
    },
    Goal {
        method: Method::OursWithoutReference,
        seller_loss: Spread { mean: 16_000, p95: 78_000, max: 408_000 },
        payer_overcharge: Spread { mean: 24_000, p95: 87_000, max: 248_000 },
        quoted_permille: 821,
    },
];

impl Goal {
    /// Whether every figure is at least as good, to the digits that the goal has.
    pub fn is_met(&self, score: &Score) -> bool {
        let pairs = |ours: Spread, goal: Spread| [(ours.mean, goal.mean), (ours.p95, goal.p95), (ours.max, goal.max)];
        let mut figures =
            pairs(score.seller_loss, self.seller_loss).into_iter().chain(pairs(score.payer_overcharge, self.payer_overcharge));
        // A goal of whole bps is met by what rounds to it; one with a decimal, by what rounds to that.
        let rounds = |goal: u64| if goal.is_multiple_of(1_000) { 500 } else { 50 };
        figures.all(|(ours, goal)| ours < goal + rounds(goal)) && score.availability_permille() >= self.quoted_permille
    }
}

/// 2023-03-10 20:00 UTC, and how many minutes from then on.
pub const WINDOW_START_S: i64 = 1_678_478_400;
pub const WINDOW_MINUTES: i64 = 2_210;
/// Before the window, so that the machine and the jump guard have a past.
const WARM_UP_MINUTES: i64 = 60;
/// The feed's heartbeat was a day then, and the margin is half an hour.
const FEED_MAX_AGE_S: i64 = 88_200;
const VENUE_MAX_AGE_S: i64 = 300;

impl History {
    pub fn read(texts: Texts<'_>) -> Result<Self, String> {
        Ok(Self {
            kraken: minutes("kraken_usdcusd_1m.csv", texts.kraken_usdc)?,
            binance: minutes("binance_usdcusdt_1m.csv", texts.binance_usdc)?,
            coinbase: minutes("coinbase_usdtusd_1m.csv", texts.coinbase_usdt)?,
            chainlink: rounds("chainlink_eth_usdc_usd_rounds.csv", texts.chainlink)?,
        })
    }

    /// Every minute of the window by one method. `limits` are those of the token.
    pub fn run(&self, method: Method, limits: &Limits) -> Vec<Minute> {
        let mut memory = Memory::default();
        let mut minutes = Vec::new();
        for minute in -WARM_UP_MINUTES..WINDOW_MINUTES {
            let at_s = WINDOW_START_S + (minute + 1) * 60;
            let decided = self.decide(method, at_s, limits, &mut memory);
            if minute >= 0 {
                minutes.extend(latest(&self.kraken, at_s).map(|reference| {
                    let (ours, refused) = decided.map_or_else(|code| (None, Some(code)), |price| (Some(price), None));
                    Minute { at_s, reference: reference.price, ours, refused }
                }));
            }
        }
        minutes
    }

    fn decide(&self, method: Method, at_s: i64, limits: &Limits, memory: &mut Memory) -> Result<UsdRate, &'static str> {
        let cross = || {
            let (usdc, usdt) = (latest(&self.binance, at_s)?, latest(&self.coinbase, at_s)?);
            let price = usdc.price.times(usdt.price, Toward::Down).ok()?;
            Some(Known { price, observed_s: usdc.observed_s.min(usdt.observed_s), round: None })
        };
        let feed = || latest(&self.chainlink, at_s).copied();
        let plain = |price: Price| UsdRate::from_doubled(price.scaled() * U256::from(2), Toward::Down).map_err(|_| "no_price");
        match method {
            Method::HardCoded => Ok(UsdRate::one()),
            Method::SingleVenue => plain(cross().ok_or("no_price")?.price),
            Method::FeedAlone => plain(feed().ok_or("no_price")?.price),
            Method::MedianOfThree => {
                let known = [latest(&self.kraken, at_s).copied(), cross(), feed()];
                let mut prices: Vec<Price> = known.into_iter().flatten().map(|known| known.price).collect();
                prices.sort_unstable();
                plain(*prices.get(1).ok_or("no_price")?)
            }
            Method::Ours | Method::OursWithoutReference => {
                let mut observations = Vec::new();
                if method == Method::Ours {
                    observations.extend(latest(&self.kraken, at_s).map(|known| seen("kraken", known, VENUE_MAX_AGE_S)));
                }
                observations.extend(cross().map(|known| Observation { direct: false, ..seen("binance", &known, VENUE_MAX_AGE_S) }));
                observations.extend(feed().map(|known| seen("chainlink", &known, FEED_MAX_AGE_S)));
                effective(observations, at_s, limits, memory)
            }
        }
    }
}

/// One round through the real code, and the price that a quote would use.
fn effective(observations: Vec<Observation>, at_s: i64, limits: &Limits, memory: &mut Memory) -> Result<UsdRate, &'static str> {
    let input = PairInput {
        pair: "USDC/USD".to_owned(),
        kind: PairKind::Stable,
        peg: Some(UsdRate::one()),
        forex: false,
        toward: Toward::Down,
        observations,
        sanity: Vec::new(),
        needs_bound: false,
        memory: memory.clone(),
        limits: limits.clone(),
    };
    let now = OffsetDateTime::from_unix_timestamp(at_s).map_err(|_| "no_time")?;
    let decided = round(&input, now);
    *memory = decided.memory;
    let token_price = decided.outcome.map_err(|refusal| refusal.code())?;
    let terms = Terms {
        amount: Decimal18::from_scaled(pow10(20)).map_err(|_| "no_amount")?,
        fx_rate: UsdRate::one(),
        token_price,
        peg: Some(PegRule {
            peg: UsdRate::one(),
            policy: Policy::of_setting(limits.depeg_policy),
            band_bps: memory.depeg.band_bps(limits),
            halt_bps: limits.depeg_halt_bps,
        }),
        premium_bps: 0,
        step: 6,
        decimals: 6,
    };
    settle(&terms).map(|settled| settled.effective_price).map_err(|refusal| refusal.code())
}

fn seen(source: &str, known: &Known, max_age_s: i64) -> Observation {
    let round = known.round.map(U256Text);
    Observation { max_age_s, round, ..Observation::new(source, source, known.price, known.observed_s) }
}

fn latest(series: &Series, at_s: i64) -> Option<&Known> {
    series.range(..=at_s).next_back().map(|(_, known)| known)
}

/// What the minutes of a method came to.
pub fn score(minutes: &[Minute]) -> Score {
    let (mut losses, mut overcharges) = (Vec::new(), Vec::new());
    let (mut refusals, mut longest, mut current) = (BTreeMap::new(), 0, 0);
    for minute in minutes {
        match minute.ours {
            Some(ours) => {
                let (ours, truth) = (Price::from(ours), minute.reference);
                losses.push(excess(ours, truth));
                overcharges.push(excess(truth, ours));
                current = 0;
            }
            None => {
                current += 1;
                longest = longest.max(current);
                *refusals.entry(minute.refused.unwrap_or("no_price")).or_insert(0) += 1;
            }
        }
    }
    Score {
        quoted: losses.len(),
        seller_loss: spread(losses),
        payer_overcharge: spread(overcharges),
        minutes: minutes.len(),
        longest_refusal: longest,
        refusals,
    }
}

/// How much more one price is than another, in thousandths of a basis point.
fn excess(one: Price, other: Price) -> u64 {
    let more = one.scaled().saturating_sub(other.scaled());
    let thousandths = more * U256::from(10_000_000) / other.scaled().max(U256::ONE);
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

fn spread(mut values: Vec<u64>) -> Spread {
    values.sort_unstable();
    let Some(max) = values.last().copied() else { return Spread::default() };
    let p95 = values[values.len() * 95 / 100];
    let mean = values.iter().sum::<u64>() / values.len() as u64;
    Spread { mean, p95, max }
}

/// `ts,open,high,low,close,volume[,trades]`. A row without a trade repeats the price of the last one and its
/// age.
fn minutes(name: &str, text: &str) -> Result<Series, String> {
    let mut series = Series::new();
    let mut traded_s = None;
    for (place, line) in text.lines().enumerate().skip(1) {
        let bad = |what: &str| format!("{name}, line {}: {what}", place + 1);
        let cells: Vec<&str> = line.split(',').collect();
        let start_s: i64 = cells.first().and_then(|cell| cell.parse().ok()).ok_or_else(|| bad("ts"))?;
        let price = cells.get(4).and_then(|cell| cell.parse::<Price>().ok()).ok_or_else(|| bad("close"))?;
        let known_s = start_s + 60;
        if cells.get(6).is_none_or(|trades| *trades != "0") {
            traded_s = Some(known_s);
        }
        // Before the first trade nobody knows how old the price is.
        if let Some(observed_s) = traded_s {
            series.insert(known_s, Known { price, observed_s, round: None });
        }
    }
    Ok(series)
}

/// `roundId,answer,updatedAt,…` after a comment and a header; eight decimals.
fn rounds(name: &str, text: &str) -> Result<Series, String> {
    let mut series = Series::new();
    for (place, line) in text.lines().enumerate().skip(2) {
        let bad = |what: &str| format!("{name}, line {}: {what}", place + 1);
        let cells: Vec<&str> = line.split(',').collect();
        let number = |column: usize| cells.get(column).and_then(|cell| U256::from_str_radix(cell, 10).ok());
        let round = number(0).ok_or_else(|| bad("roundId"))?;
        let price = number(1).and_then(|answer| Price::from_scaled(answer, -8).ok()).ok_or_else(|| bad("answer"))?;
        let updated_s: i64 = cells.get(2).and_then(|cell| cell.parse().ok()).ok_or_else(|| bad("updatedAt"))?;
        series.insert(updated_s, Known { price, observed_s: updated_s, round: Some(round) });
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(reference: &str, ours: Option<&str>) -> Minute {
        Minute {
            at_s: 0,
            reference: reference.parse().unwrap(),
            ours: ours.map(|price| price.parse().unwrap()),
            refused: ours.is_none().then_some("depeg_halt"),
        }
    }

    #[test]
    fn losses_are_of_the_reference_and_overcharges_of_our_price() {
        let score =
            score(&[minute("0.8", Some("1")), minute("1", Some("0.8")), minute("1", None), minute("1", None), minute("1", Some("1"))]);
        assert_eq!(score.seller_loss, Spread { mean: 833_333, p95: 2_500_000, max: 2_500_000 });
        assert_eq!(score.payer_overcharge.max, 2_500_000);
        assert_eq!((score.quoted, score.minutes, score.longest_refusal, score.availability_permille()), (3, 5, 2, 600));
        assert_eq!(score.refusals, BTreeMap::from([("depeg_halt", 2)]));
    }

    /// The shipped history of March 2023, where it is: this project may use but not publish it.
    fn shipped() -> Option<History> {
        let folder = std::env::var("AMANATD_ORACLE_DATA").ok()?;
        let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).ok();
        let texts =
            ["kraken_usdcusd_1m.csv", "binance_usdcusdt_1m.csv", "coinbase_usdtusd_1m.csv", "chainlink_eth_usdc_usd_rounds.csv"].map(read);
        let [Some(kraken_usdc), Some(binance_usdc), Some(coinbase_usdt), Some(chainlink)] = &texts else { return None };
        Some(History::read(Texts { kraken_usdc, binance_usdc, coinbase_usdt, chainlink }).unwrap())
    }

    #[test]
    fn q4_the_crisis_of_march_2023_is_met_at_least_as_well_as_designed() {
        let Some(history) = shipped() else {
            println!("skipped: set AMANATD_ORACLE_DATA to the folder of the minutes of March 2023");
            return;
        };
        let limits = Limits { depeg_halt_bps: 1_500, ..Limits::default() };
        for method in Method::ALL {
            println!("{}: {:?}", method.name(), score(&history.run(method, &limits)));
        }
        let ours = score(&history.run(Method::Ours, &limits));
        assert_eq!(ours.minutes, 2_210);
        for goal in GOALS {
            let score = score(&history.run(goal.method, &limits));
            assert!(goal.is_met(&score), "{}: {score:?}", goal.method.name());
        }
        // With two families the guard holds up one minute of 2,210: a jump of 3.5 %.
        let without = score(&history.run(Method::OursWithoutReference, &limits));
        assert_eq!((without.quoted, without.refusals["jump_unconfirmed"]), (1_814, 1), "{without:?}");
        let blind = score(&history.run(Method::HardCoded, &limits));
        assert!(blind.seller_loss.mean > 100 * ours.seller_loss.mean);
    }

    #[test]
    fn a_goal_is_met_by_all_of_its_figures_together() {
        let goal = GOALS[1];
        let score = Score {
            seller_loss: Spread { mean: 16_499, p95: 78_499, max: 408_499 },
            payer_overcharge: goal.payer_overcharge,
            minutes: 2_210,
            quoted: 1_814,
            longest_refusal: 0,
            refusals: BTreeMap::new(),
        };
        assert!(goal.is_met(&score));
        assert!(!goal.is_met(&Score { quoted: 1_813, ..score.clone() }));
        assert!(!goal.is_met(&Score { seller_loss: Spread { mean: 16_500, ..score.seller_loss }, ..score.clone() }));
        assert!(!goal.is_met(&Score { payer_overcharge: Spread { max: 248_500, ..score.payer_overcharge }, ..score }));
    }

    #[test]
    fn a_repeated_price_keeps_its_age() {
        let rows = "ts,open,high,low,close,volume,trades\n0,1,1,1,0.99,0,0\n60,1,1,1,1.01,5,3\n120,1,1,1,1.01,0,0\n";
        let series = minutes("binance", rows).unwrap();
        assert!(latest(&series, 119).is_none(), "nobody knows how old the first one is");
        assert_eq!(latest(&series, 180).map(|known| (known.observed_s, known.price.to_string())), Some((120, "1.01".to_owned())));
        assert!(minutes("kraken", "ts,open,high,low,close,volume\n0,1,1,1,x,0\n").unwrap_err().contains("line 2: close"));
    }
}
