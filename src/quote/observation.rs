//! What one source says about one pair, and what became of it.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use crate::units::{ChainId, MicroBps, Price};

/// A price as somebody told it, normalised to US dollars for one unit of the base. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Who said it: `kraken`, `chainlink/1`.
    pub source: String,
    /// The vote: one for each family.
    pub family: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainId>,
    /// Where on the chain it was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<ObservedBlock>,
    /// The source's own count of its answers; it may not go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<U256Text>,
    /// The highest count seen before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_before: Option<U256Text>,
    /// The answer before it was read, cut to what a person needs.
    pub raw: String,
    /// Zero where it was not positive or could not be read.
    pub price: Price,
    /// By the source's clock; by ours where it has none.
    pub observed_s: i64,
    pub fetched_s: i64,
    pub time_known: bool,
    pub max_age_s: i64,
    pub min: Price,
    pub max: Price,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf_bps: Option<MicroBps>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conf_max_bps: Option<MicroBps>,
    /// Millionths; a million is one vote.
    pub weight: u64,
    /// A move of this much makes the source answer anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation_bps: Option<MicroBps>,
    /// Whether it is a market in US dollars, or a feed of US dollars.
    pub direct: bool,
    /// The other price that it was multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leg: Option<Leg>,
    /// What the adapter found wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<Invalid>,
}

/// One vote.
pub const WEIGHT_ONE: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBlock {
    pub number: u64,
    pub hash: B256,
}

/// The second leg of a cross.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    pub source: String,
    pub pair: String,
    pub price: Price,
    pub observed_s: i64,
}

/// A count as text: a round id exceeds 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct U256Text(pub U256);

impl Serialize for U256Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for U256Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        U256::from_str_radix(&text, 10).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Observation {
    /// An observation that every check but those of its own fields lets through.
    pub fn new(source: impl Into<String>, family: impl Into<String>, price: Price, observed_s: i64) -> Self {
        Self {
            source: source.into(),
            family: family.into(),
            chain: None,
            block: None,
            round: None,
            round_before: None,
            raw: String::new(),
            price,
            observed_s,
            fetched_s: observed_s,
            time_known: true,
            max_age_s: 300,
            min: Price::ZERO,
            max: Price::LARGEST,
            conf_bps: None,
            conf_max_bps: None,
            weight: WEIGHT_ONE,
            deviation_bps: None,
            direct: true,
            leg: None,
            invalid: None,
        }
    }

    /// In seconds; negative for one from the future.
    pub const fn age_s(&self, now_s: i64) -> i64 {
        now_s.saturating_sub(self.observed_s)
    }
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|known| known.name() == text).ok_or_else(|| text.to_owned())
            }
        }
    };
}

words! {
    /// What an adapter finds wrong with an answer.
    Invalid {
        /// No answer came in time.
        Unreachable = "unreachable",
        /// The venue refused: a status, or an error inside of its answer.
        Refused = "refused",
        /// Something else than what was asked for, HTML for example.
        Decode = "decode",
        /// A number that is none, or not above zero, where there must be one.
        NoAnswer = "no_answer",
        /// In a unit that the adapter does not know.
        Unit = "unit",
        /// The best bid is above the best ask.
        Crossed = "crossed",
        /// Neither book nor last trade changed for half an hour.
        BookFrozen = "book_frozen",
        AnswerAtBound = "answer_at_bound",
        DecimalsChanged = "decimals_changed",
        DescriptionDiffers = "description_differs",
        SequencerDown = "sequencer_down",
        SequencerGrace = "sequencer_grace",
        /// Providers give different answers at one block.
        RpcDisagrees = "rpc_disagrees",
        /// Feeds of one family on two chains are further apart than they may be.
        ChainsDiffer = "chains_differ",
        MarketClosed = "market_closed",
        /// No price of another family to multiply by.
        NoLeg = "no_leg",
        /// Asked for the first time only now, or not since the start.
        NotYet = "not_yet",
    }
}

/// What became of an observation. The order is that of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Used,
    Invalid(Invalid),
    NonPositive,
    FromFuture,
    Stale,
    OutOfRange,
    Confidence,
    RoundWentBack,
    SameFamily,
    Outlier,
}

impl Verdict {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Used => "used",
            Self::Invalid(reason) => reason.name(),
            Self::NonPositive => "non_positive",
            Self::FromFuture => "from_future",
            Self::Stale => "stale",
            Self::OutOfRange => "out_of_range",
            Self::Confidence => "confidence",
            Self::RoundWentBack => "round_went_back",
            Self::SameFamily => "same_family",
            Self::Outlier => "outlier",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
