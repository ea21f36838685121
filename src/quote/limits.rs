//! The thresholds of quoting: names, bounds and defaults in one table; values with their history are
//! settings. A key is `name` for all, or `name:SCOPE` for one base (`USDC`, `IRR`) or chain (`1`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::settings::NumberChange;

/// What one threshold is.
#[derive(Clone, Copy, Debug)]
pub struct LimitSpec {
    pub name: &'static str,
    pub default: u32,
    pub min: u32,
    pub max: u32,
    pub help: &'static str,
}

macro_rules! limits {
    ($($name:ident = $default:literal, $min:literal..=$max:literal, $help:literal;)*) => {
        /// All thresholds in force for one pair at one instant.
        /// Evidence from before a threshold existed has its default.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Limits {
            $(#[doc = $help] pub $name: u32,)*
        }

        /// Every threshold there is.
        pub const SPECS: &[LimitSpec] = &[
            $(LimitSpec { name: stringify!($name), default: $default, min: $min, max: $max, help: $help },)*
        ];

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            fn set(&mut self, name: &str, value: u32) {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => {}
                }
            }

            /// By name; `None` for a name that nobody knows.
            pub fn get(&self, name: &str) -> Option<u32> {
                match name {
                    $(stringify!($name) => Some(self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

limits! {
    min_sources = 2, 2..=10, "families that must survive";
    outlier_floor_bps = 50, 1..=1000, "nobody is an outlier who is closer to the median";
    dispersion_normal_bps = 150, 1..=2000, "how far apart sources may be while a token is at par, and for other pairs";
    dispersion_stressed_bps = 300, 1..=2000, "how far apart sources may be while a token is adjusted";
    depeg_enter_bps = 25, 1..=2000, "a token further from its peg is taken at its price";
    depeg_exit_bps = 10, 0..=2000, "a token as close as this for the dwell is at par again";
    depeg_halt_bps = 500, 10..=5000, "a token further from its peg is refused";
    depeg_dwell_s = 1800, 60..=604800, "how long a token must be calm";
    depeg_gap_s = 300, 30..=86400, "after so long without a price the dwell begins anew";
    depeg_policy = 0, 0..=1, "above the peg: 0 seller_whole (taken at the peg), 1 two_sided (taken at its price)";
    depeg_halted = 0, 0..=1, "1: refused by an operator";
    jump_stable_bps = 200, 1..=5000, "a larger move of a stablecoin must be confirmed";
    jump_bps = 500, 1..=5000, "a larger move of anything else must be confirmed";
    jump_confirm_bps = 100, 1..=5000, "how close the next round must be to confirm";
    jump_confirm_min_s = 15, 1..=600, "the next round comes not before";
    jump_confirm_max_s = 120, 2..=3600, "and not after";
    jump_memory_s = 600, 60..=86400, "how long the last accepted price is a measure";
    fx_sanity_bps = 300, 10..=5000, "how far a rate may be from the official one";
    fx_reference_per_usd = 0, 0..=1_000_000_000, "what a dollar costs in whole units of a currency, as an operator knows it; 0: unknown (scope: IRR, TRY)";
    fx_reference_bps = 5000, 100..=8000, "how far a rate may be from that";
    ttl_par_s = 900, 60..=86400, "how long a quote holds at par";
    ttl_adjusted_s = 300, 60..=86400, "how long a quote holds while a token is adjusted";
    premium_bps = 0, 0..=500, "added while a token is adjusted";
    inclusion_grace_s = 120, 0..=3600, "how much later than the end of a quote its block may be (scope: a chain id)";
}

/// What a built-in default says for one scope and not for the others.
const SCOPED_DEFAULTS: &[(&str, &str, u32)] = &[("fx_sanity_bps", "IRR", 600)];

/// What says nothing about all currencies together.
const OF_ONE_CURRENCY: &str = "fx_reference_per_usd";

/// Which threshold of what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LimitKey {
    spec: usize,
    pub scope: Option<String>,
}

impl LimitKey {
    pub fn spec(&self) -> &'static LimitSpec {
        &SPECS[self.spec]
    }
}

impl FromStr for LimitKey {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, scope) = text.split_once(':').map_or((text, None), |(name, scope)| (name, Some(scope)));
        let spec = SPECS.iter().position(|spec| spec.name == name).ok_or_else(|| LimitError::Unknown(text.chars().take(64).collect()))?;
        let good = |scope: &str| (1..=20).contains(&scope.len()) && scope.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
        if scope.is_some_and(|scope| !good(scope)) {
            return Err(LimitError::Unknown(text.chars().take(64).collect()));
        }
        if scope.is_none() && SPECS[spec].name == OF_ONE_CURRENCY {
            return Err(LimitError::Scope(OF_ONE_CURRENCY));
        }
        Ok(Self { spec, scope: scope.map(str::to_owned) })
    }
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            None => f.write_str(self.spec().name),
            Some(scope) => write!(f, "{}:{scope}", self.spec().name),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("{0:?} is not a threshold of quoting; `amanatd oracle limits` lists them")]
    Unknown(String),
    #[error("{0} is of one currency: name it, as in {0}:IRR")]
    Scope(&'static str),
    #[error("{key} = {value} is outside of {min} to {max}")]
    Bounds { key: String, value: i64, min: u32, max: u32 },
    #[error("{0}")]
    Together(&'static str),
}

/// A value that may be set.
pub fn check(key: &LimitKey, value: i64) -> Result<u32, LimitError> {
    let spec = key.spec();
    u32::try_from(value).ok().filter(|value| (spec.min..=spec.max).contains(value)).ok_or_else(|| LimitError::Bounds {
        key: key.to_string(),
        value,
        min: spec.min,
        max: spec.max,
    })
}

impl Limits {
    /// What only makes sense together.
    pub fn check(&self) -> Result<(), LimitError> {
        let ordered = [
            (self.depeg_exit_bps <= self.depeg_enter_bps, "depeg_exit_bps must not be above depeg_enter_bps"),
            (self.depeg_enter_bps < self.depeg_halt_bps, "depeg_enter_bps must be below depeg_halt_bps"),
            (self.dispersion_normal_bps <= self.dispersion_stressed_bps, "dispersion_normal_bps must not be above dispersion_stressed_bps"),
            (self.ttl_adjusted_s <= self.ttl_par_s, "ttl_adjusted_s must not be above ttl_par_s"),
            (self.jump_confirm_min_s < self.jump_confirm_max_s, "jump_confirm_min_s must be below jump_confirm_max_s"),
        ];
        ordered.into_iter().find(|(good, _)| !good).map_or(Ok(()), |(_, why)| Err(LimitError::Together(why)))
    }
}

/// The history of all thresholds, as it was read.
#[derive(Clone, Debug, Default)]
pub struct LimitBook {
    /// In the order of their ids.
    changes: Vec<(LimitKey, NumberChange)>,
}

impl LimitBook {
    /// Changes of thresholds of this version, in any order; others are left out.
    pub fn new(changes: Vec<NumberChange>) -> Self {
        let mut changes: Vec<(LimitKey, NumberChange)> =
            changes.into_iter().filter_map(|change| Some((change.key.parse().ok()?, change))).collect();
        changes.sort_by_key(|(_, change)| change.id);
        Self { changes }
    }

    /// The newest row there is; 0 before the first.
    pub fn head_id(&self) -> i64 {
        self.changes.last().map_or(0, |(_, change)| change.id)
    }

    /// The thresholds in force for a scope: its own, else those for all, else the defaults.
    pub fn limits(&self, scope: &str, at: OffsetDateTime) -> Limits {
        let mut limits = Limits::default();
        for (name, of, value) in SCOPED_DEFAULTS {
            if *of == scope {
                limits.set(name, *value);
            }
        }
        for spec in SPECS {
            let own = self.in_force(spec.name, Some(scope), at).or_else(|| self.in_force(spec.name, None, at));
            if let Some(value) = own.and_then(|change| u32::try_from(change.value).ok()) {
                limits.set(spec.name, value);
            }
        }
        limits
    }

    fn in_force(&self, name: &str, scope: Option<&str>, at: OffsetDateTime) -> Option<&NumberChange> {
        let same = |key: &LimitKey| key.spec().name == name && key.scope.as_deref() == scope;
        self.changes.iter().rev().find(|(key, change)| same(key) && change.effective_at <= at).map(|(_, change)| change)
    }

    /// The newest row of a key that has taken effect, for people.
    pub fn change(&self, key: &LimitKey, at: OffsetDateTime) -> Option<&NumberChange> {
        self.in_force(key.spec().name, key.scope.as_deref(), at)
    }

    /// Newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &(LimitKey, NumberChange)> {
        self.changes.iter().rev()
    }

    /// Every key that was ever set.
    pub fn keys(&self) -> std::collections::BTreeSet<&LimitKey> {
        self.changes.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    const T0: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn row(id: i64, key: &str, value: i64, seconds: i64) -> NumberChange {
        NumberChange {
            id,
            key: key.to_owned(),
            value,
            effective_at: T0 + Duration::seconds(seconds),
            created_at: T0,
            changed_by: "test".to_owned(),
            reason: "test".to_owned(),
        }
    }

    #[test]
    fn q3_the_newest_row_in_force_counts_and_a_scope_goes_before_all() {
        let book = LimitBook::new(vec![
            row(2, "depeg_enter_bps:USDC", 40, 0),
            row(1, "depeg_enter_bps", 30, 0),
            row(3, "depeg_enter_bps:USDC", 50, 100),
            row(4, "something_else", 7, 0),
        ]);
        let enter = |scope: &str, seconds: i64| book.limits(scope, T0 + Duration::seconds(seconds)).depeg_enter_bps;
        assert_eq!((enter("USDT", 0), enter("USDC", 99), enter("USDC", 100)), (30, 40, 50));
        assert_eq!(LimitBook::default().limits("USDC", T0), Limits::default());
        assert_eq!(LimitBook::default().limits("IRR", T0).fx_sanity_bps, 600);
        assert_eq!(book.head_id(), 3);
    }

    #[test]
    fn q3_defaults_are_inside_of_their_bounds_and_fit_together() {
        for spec in SPECS {
            assert!((spec.min..=spec.max).contains(&spec.default), "{}", spec.name);
            let key: LimitKey = format!("{}:USDC", spec.name).parse().unwrap();
            assert_eq!(key.to_string(), format!("{}:USDC", spec.name));
            assert!(check(&key, i64::from(spec.max) + 1).is_err() && check(&key, i64::from(spec.default)).is_ok());
            assert_eq!(Limits::default().get(spec.name), Some(spec.default));
        }
        Limits::default().check().unwrap();
        assert!(Limits { depeg_exit_bps: 26, ..Limits::default() }.check().is_err());
        // `none`, which takes a token at its peg whatever it costs, cannot be set at all.
        assert!(check(&"depeg_policy".parse().unwrap(), 2).is_err());
        for bad in ["fx_reference_per_usd", "", "depeg", "depeg_enter_bps:", "depeg_enter_bps:a b", "depeg_enter_bps:USDC:1"] {
            assert!(bad.parse::<LimitKey>().is_err(), "{bad:?}");
        }
    }
}
