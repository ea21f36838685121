//! Chainlink feeds, read from the chain itself. Pure: which calls to make, and what their answers mean.
//!
//! A feed promises a new round after its heartbeat, or when the price has moved by its deviation. That is a
//! trigger and not a bound. `answeredInRound` is deprecated and not looked at.

use alloy::primitives::{B256, Bytes, I256, U256};

use crate::chains::FeedSpec;
use crate::quote::observation::{Invalid, Observation, ObservedBlock, U256Text};
use crate::units::{BlockRef, ChainId, MicroBps, Price};

/// `latestRoundData()`.
pub const LATEST_ROUND_DATA: Bytes = Bytes::from_static(&[0xfe, 0xaf, 0x96, 0x8c]);
/// `decimals()`.
pub const DECIMALS: Bytes = Bytes::from_static(&[0x31, 0x3c, 0xe5, 0x67]);
/// `description()`.
pub const DESCRIPTION: Bytes = Bytes::from_static(&[0x72, 0x84, 0xe4, 0x16]);
/// `aggregator()`: the contract behind the proxy.
pub const AGGREGATOR: Bytes = Bytes::from_static(&[0x24, 0x5a, 0x7b, 0xfc]);
/// `minAnswer()` of the aggregator.
pub const MIN_ANSWER: Bytes = Bytes::from_static(&[0x22, 0xad, 0xbc, 0x78]);
/// `maxAnswer()` of the aggregator.
pub const MAX_ANSWER: Bytes = Bytes::from_static(&[0x70, 0xda, 0x2f, 0x67]);

/// How long a sequencer must be up before prices count again.
pub const SEQUENCER_GRACE_S: i64 = 3_600;
/// What two chains' feeds may differ by, besides their deviations.
const CHAINS_MARGIN_BPS: u32 = 20;

/// What `latestRoundData()` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundData {
    pub round: U256,
    pub answer: I256,
    pub started_s: i64,
    pub updated_s: i64,
}

/// What a feed is, read at start and daily.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedFacts {
    pub decimals: u8,
    pub description: String,
    /// The answers that it never goes beyond, where it has such.
    pub bounds: Option<(I256, I256)>,
}

/// One feed's answer, with all that decides whether it counts.
#[derive(Clone, Copy, Debug)]
pub struct FeedAnswer<'a> {
    pub spec: &'a FeedSpec,
    pub facts: &'a FeedFacts,
    pub data: RoundData,
    /// The sequencer's uptime feed in the same block, on a rollup.
    pub sequencer: Option<RoundData>,
}

/// Five words.
pub fn read_round(bytes: &[u8]) -> Result<RoundData, Invalid> {
    if bytes.len() != 160 {
        return Err(Invalid::Decode);
    }
    let word = |place: usize| B256::from_slice(&bytes[place * 32..place * 32 + 32]);
    let seconds = |place: usize| i64::try_from(U256::from_be_bytes(word(place).0)).map_err(|_| Invalid::Decode);
    Ok(RoundData {
        round: U256::from_be_bytes(word(0).0),
        answer: I256::from_be_bytes(word(1).0),
        started_s: seconds(2)?,
        updated_s: seconds(3)?,
    })
}

/// One word.
pub fn read_word(bytes: &[u8]) -> Result<U256, Invalid> {
    if bytes.len() == 32 { Ok(U256::from_be_slice(bytes)) } else { Err(Invalid::Decode) }
}

/// A string: offset, length, bytes.
pub fn read_string(bytes: &[u8]) -> Result<String, Invalid> {
    let length = bytes.get(32..64).map(U256::from_be_slice).and_then(|length| usize::try_from(length).ok()).ok_or(Invalid::Decode)?;
    let text = bytes.get(64..).and_then(|rest| rest.get(..length)).ok_or(Invalid::Decode)?;
    String::from_utf8(text.to_vec()).map_err(|_| Invalid::Decode)
}

impl FeedAnswer<'_> {
    /// The price, or why it does not count.
    pub fn price(&self, now_s: i64) -> Result<Price, Invalid> {
        if let Some(uptime) = self.sequencer {
            // 0 is up. A feed that never started has no status.
            if !uptime.answer.is_zero() || uptime.started_s == 0 {
                return Err(Invalid::SequencerDown);
            }
            if now_s.saturating_sub(uptime.started_s) < SEQUENCER_GRACE_S {
                return Err(Invalid::SequencerGrace);
            }
        }
        if self.facts.decimals != self.spec.decimals {
            return Err(Invalid::DecimalsChanged);
        }
        if self.facts.description != self.spec.description {
            return Err(Invalid::DescriptionDiffers);
        }
        if !self.data.answer.is_positive() || self.data.updated_s == 0 {
            return Err(Invalid::NoAnswer);
        }
        if self.facts.bounds.is_some_and(|(min, max)| self.data.answer <= min || self.data.answer >= max) {
            return Err(Invalid::AnswerAtBound);
        }
        Price::from_scaled(self.data.answer.into_raw(), -i32::from(self.spec.decimals)).map_err(|_| Invalid::Decode)
    }

    /// The observation of it; `pair` fields are the caller's.
    pub fn observe(&self, chain: ChainId, at: BlockRef, now_s: i64) -> Observation {
        let price = self.price(now_s);
        let invalid = price.err();
        Observation {
            chain: Some(chain),
            block: Some(ObservedBlock { number: at.number.0, hash: at.hash }),
            round: Some(U256Text(self.data.round)),
            raw: format!("{} with {} decimals", self.data.answer, self.facts.decimals),
            fetched_s: now_s,
            max_age_s: i64::from(self.spec.max_age_s),
            deviation_bps: Some(self.spec.deviation),
            invalid,
            ..Observation::new(source_name(chain), "chainlink", price.unwrap_or(Price::ZERO), self.data.updated_s)
        }
    }
}

/// `chainlink/1`.
pub fn source_name(chain: ChainId) -> String {
    format!("chainlink/{chain}")
}

/// Marks feeds of one pair on several chains that contradict each other: by more than both may deviate, and a
/// margin. Stale and invalid ones contradict nobody.
pub fn mark_contradictions(observations: &mut [Observation], now_s: i64) {
    let counts = |seen: &Observation| seen.family == "chainlink" && seen.invalid.is_none() && seen.age_s(now_s) <= seen.max_age_s;
    let differ = |one: &Observation, other: &Observation| {
        let deviation = |seen: &Observation| seen.deviation_bps.unwrap_or(MicroBps::from_bps(0));
        let limit = deviation(one).plus(deviation(other)).plus(MicroBps::from_bps(CHAINS_MARGIN_BPS));
        limit.is_exceeded_between(one.price, other.price)
    };
    let feeds: Vec<&Observation> = observations.iter().filter(|seen| counts(seen)).collect();
    let contradicted = feeds.iter().enumerate().any(|(place, one)| feeds[place + 1..].iter().any(|other| differ(one, other)));
    if contradicted {
        for seen in observations.iter_mut().filter(|seen| seen.family == "chainlink" && seen.invalid.is_none()) {
            seen.invalid = Some(Invalid::ChainsDiffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, hex};

    use super::*;

    const NOW: i64 = 1_678_521_120;

    fn spec() -> FeedSpec {
        FeedSpec {
            pair: "USDC/USD".to_owned(),
            proxy: Address::repeat_byte(1),
            decimals: 8,
            description: "USDC / USD".to_owned(),
            heartbeat_s: 82_800,
            max_age_s: 84_600,
            deviation: MicroBps::from_bps(25),
            forex: false,
        }
    }

    fn facts() -> FeedFacts {
        FeedFacts { decimals: 8, description: "USDC / USD".to_owned(), bounds: None }
    }

    fn data(answer: i64) -> RoundData {
        RoundData { round: U256::from(7), answer: I256::try_from(answer).unwrap(), started_s: NOW - 40, updated_s: NOW - 37 }
    }

    fn price(facts: &FeedFacts, data: RoundData, sequencer: Option<RoundData>) -> Result<String, Invalid> {
        FeedAnswer { spec: &spec(), facts, data, sequencer }.price(NOW).map(|price| price.to_string())
    }

    #[test]
    fn q3_a_recorded_answer_is_read_word_by_word() {
        let recorded = hex!(
            "0000000000000000000000000000000000000000000000020000000000000fe9"
            "0000000000000000000000000000000000000000000000000000000005488c84"
            "00000000000000000000000000000000000000000000000000000000640c339b"
            "00000000000000000000000000000000000000000000000000000000640c339b"
            "0000000000000000000000000000000000000000000000020000000000000fe9"
        );
        let read = read_round(&recorded).unwrap();
        assert_eq!(read.round.to_string(), "36893488147419107305");
        assert_eq!((read.answer.to_string().as_str(), read.updated_s), ("88640644", 1_678_521_243));
        assert_eq!(read_round(&recorded[..128]), Err(Invalid::Decode));
        let text = hex!(
            "0000000000000000000000000000000000000000000000000000000000000020"
            "000000000000000000000000000000000000000000000000000000000000000a"
            "55534443202f2055534400000000000000000000000000000000000000000000"
        );
        assert_eq!(read_string(&text).unwrap(), "USDC / USD");
        assert!(read_string(&text[..70]).is_err() && read_string(&[]).is_err());
    }

    #[test]
    fn q3_a_feed_that_is_not_as_it_must_be_does_not_count() {
        assert_eq!(price(&facts(), data(88_640_700), None), Ok("0.886407".to_owned()));
        assert_eq!(price(&facts(), data(0), None), Err(Invalid::NoAnswer));
        assert_eq!(price(&facts(), data(-1), None), Err(Invalid::NoAnswer));
        assert_eq!(price(&facts(), RoundData { updated_s: 0, ..data(88_640_700) }, None), Err(Invalid::NoAnswer));
        assert_eq!(price(&FeedFacts { decimals: 18, ..facts() }, data(88_640_700), None), Err(Invalid::DecimalsChanged));
        let renamed = FeedFacts { description: "USDT / USD".to_owned(), ..facts() };
        assert_eq!(price(&renamed, data(88_640_700), None), Err(Invalid::DescriptionDiffers));
    }

    #[test]
    fn q3_an_answer_at_its_bound_is_no_price() {
        let bound = |value: i64| I256::try_from(value).unwrap();
        let clamped = FeedFacts { bounds: Some((bound(1), bound(105_000_000))), ..facts() };
        assert_eq!(price(&clamped, data(105_000_000), None), Err(Invalid::AnswerAtBound));
        assert_eq!(price(&clamped, data(1), None), Err(Invalid::AnswerAtBound));
        assert_eq!(price(&clamped, data(104_999_999), None), Ok("1.04999999".to_owned()));
    }

    #[test]
    fn q3_a_sequencer_that_is_down_or_just_up() {
        let up = |answer: i64, started_s: i64| Some(RoundData { started_s, ..data(answer) });
        let with = |sequencer| price(&facts(), data(99_990_000), sequencer);
        assert_eq!(with(up(0, NOW - 3_600)), Ok("0.9999".to_owned()));
        assert_eq!(with(up(0, NOW - 3_599)), Err(Invalid::SequencerGrace));
        assert_eq!(with(up(1, NOW - 86_400)), Err(Invalid::SequencerDown));
        assert_eq!(with(up(0, 0)), Err(Invalid::SequencerDown));
    }

    #[test]
    fn q3_two_chains_that_contradict_each_other_are_both_out() {
        let feed = |chain: u64, price: &str, age_s: i64| Observation {
            deviation_bps: Some(MicroBps::from_bps(25)),
            max_age_s: 84_600,
            ..Observation::new(format!("chainlink/{chain}"), "chainlink", price.parse().unwrap(), NOW - age_s)
        };
        let marked = |mut feeds: [Observation; 2]| {
            mark_contradictions(&mut feeds, NOW);
            feeds.map(|feed| feed.invalid)
        };
        let differ = Some(Invalid::ChainsDiffer);
        assert_eq!(marked([feed(1, "1", 5), feed(56, "1.007", 5)]), [None, None]);
        assert_eq!(marked([feed(1, "1", 5), feed(56, "1.007000001", 5)]), [differ, differ]);
        assert_eq!(marked([feed(1, "1", 84_601), feed(56, "1.2", 5)]), [None, None], "what is stale contradicts nobody");
    }
}
