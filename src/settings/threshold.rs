//! What a threshold is about, and how its settings key is written.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::U256;

use crate::units::{Asset, ChainId, Confirmations, parse_address, parse_base_units};

/// What a sighting passes on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "verdict_gate", rename_all = "lowercase")]
pub enum Gate {
    /// The money counts.
    Credit,
    /// It may leave again.
    Release,
}

impl Gate {
    pub const ALL: [Self; 2] = [Self::Credit, Self::Release];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Release => "release",
        }
    }

    /// How the gate's settings begin.
    const fn word(self) -> &'static str {
        match self {
            Self::Credit => "confirmation_threshold",
            Self::Release => "release_threshold",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Gate {
    type Err = ParseThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|gate| gate.name() == text).ok_or_else(|| ParseThresholdError::Gate(shorten(text)))
    }
}

/// A number of blocks and the history row it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub history_id: i64,
    pub value: Confirmations,
}

/// From so many base units of an asset on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier {
    pub asset: Asset,
    /// More than zero: from zero on is the base.
    from_units: U256,
}

impl Tier {
    pub fn new(asset: Asset, from_units: U256) -> Result<Self, ParseThresholdError> {
        if from_units.is_zero() { Err(ParseThresholdError::Zero) } else { Ok(Self { asset, from_units }) }
    }

    pub const fn from_units(&self) -> U256 {
        self.from_units
    }

    /// An amount of exactly the tier's units is in it.
    pub fn reached_by(&self, asset: Asset, units: U256) -> bool {
        self.asset == asset && units >= self.from_units
    }
}

/// The settings key of a threshold: `confirmation_threshold:<chain>` or `release_threshold:<chain>`, and for a
/// tier `…:<asset in lower case, the native coin as its EIP-7528 marker>:<base units>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThresholdKey {
    pub gate: Gate,
    pub chain: ChainId,
    pub tier: Option<Tier>,
}

impl ThresholdKey {
    pub const fn base(gate: Gate, chain: ChainId) -> Self {
        Self { gate, chain, tier: None }
    }
}

impl fmt::Display for ThresholdKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.gate.word(), self.chain)?;
        match &self.tier {
            None => Ok(()),
            Some(tier) => write!(f, ":{:#x}:{}", tier.asset.marker(), tier.from_units),
        }
    }
}

impl FromStr for ThresholdKey {
    type Err = ParseThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || ParseThresholdError::Key(shorten(text));
        let mut parts = text.split(':');
        let word = parts.next().unwrap_or_default();
        let gate = Gate::ALL.into_iter().find(|gate| gate.word() == word).ok_or_else(form)?;
        let chain = parts.next().and_then(|chain| chain.parse().ok()).ok_or_else(form)?;
        let tier = match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(asset), Some(units), None) => {
                let asset = parse_address(asset).map_err(|_| form())?;
                let units = parse_base_units(units).map_err(|_| form())?;
                Some(Tier::new(Asset::from_marker(asset), units)?)
            }
            (Some(_), ..) => return Err(form()),
        };
        Ok(Self { gate, chain, tier })
    }
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseThresholdError {
    #[error("gate {0:?} is neither credit nor release")]
    Gate(String),
    #[error("a tier from 0 units on would be the base; set the base instead")]
    Zero,
    #[error("{0:?} is not the key of a threshold")]
    Key(String),
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::address;

    #[test]
    fn w3_keys_are_the_seeds_and_round_trip() {
        let chain = ChainId::new(137).unwrap();
        let token = Asset::Token(address!("0xc2132D05D31c914a87C6611C10748AEb04B58e8F"));
        let tier = |asset, units: u64| Some(Tier::new(asset, U256::from(units)).unwrap());
        for (gate, tier, text) in [
            (Gate::Credit, None, "confirmation_threshold:137"),
            (Gate::Release, None, "release_threshold:137"),
            (Gate::Credit, tier(token, 5_000_000), "confirmation_threshold:137:0xc2132d05d31c914a87c6611c10748aeb04b58e8f:5000000"),
            (Gate::Release, tier(Asset::Native, 1), "release_threshold:137:0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:1"),
        ] {
            let key = ThresholdKey { gate, chain, tier };
            assert_eq!(key.to_string(), text);
            assert_eq!(text.parse(), Ok(key));
        }
        for bad in
            ["", "confirmation_threshold", "confirmation_threshold:", "confirmation_threshold:0", "other:1", "release_threshold:1:0x00"]
        {
            assert!(bad.parse::<ThresholdKey>().is_err(), "{bad:?}");
        }
        let zero = "release_threshold:1:0xeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee:0";
        assert_eq!(zero.parse::<ThresholdKey>(), Err(ParseThresholdError::Zero));
        assert!(format!("{zero}:1").parse::<ThresholdKey>().is_err());
    }
}
