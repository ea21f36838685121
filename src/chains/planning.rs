//! What outflows are planned by before officers set something else: the defaults of `intent::economy`'s settings.
//! Pure.

use serde::Deserialize;

use crate::units::parse_units;

/// From where a release is paid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReleasePath {
    /// From the deposit address where that takes fewer confirmations on the device.
    #[default]
    Auto,
    /// From the deposit address wherever it holds the money; then nothing is swept while it waits in escrow.
    Direct,
    /// Always from the treasury.
    Treasury,
}

impl ReleasePath {
    pub const ALL: [Self; 3] = [Self::Auto, Self::Direct, Self::Treasury];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Treasury => "treasury",
        }
    }

    /// As the setting has it.
    pub const fn number(self) -> i64 {
        match self {
            Self::Auto => 0,
            Self::Direct => 1,
            Self::Treasury => 2,
        }
    }

    pub fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.number() == number)
    }
}

/// A chain's defaults. Without any of them everything whole is swept at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanningSpec {
    pub release_path: ReleasePath,
    pub sweep_after_minutes: u32,
    pub sweep_min_usd: u32,
    pub sweep_cost_pct: u32,
    pub fuel_below_pct: u32,
    pub fuel_to_pct: u32,
    pub fuel_max_gwei: u64,
    pub fuel_day_max_gwei: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawPlanning {
    release_path: ReleasePath,
    sweep_after_minutes: u32,
    sweep_min_usd: u32,
    sweep_cost_pct: u32,
    fuel_below_pct: Option<u32>,
    fuel_to_pct: Option<u32>,
    fuel_max_gwei: u64,
    fuel_day_max_gwei: u64,
}

impl PlanningSpec {
    pub(super) fn check(raw: RawPlanning) -> Result<Self, (&'static str, String, &'static str)> {
        let (below, to) = (raw.fuel_below_pct.unwrap_or(100), raw.fuel_to_pct.unwrap_or(200));
        if !(100..=1_000).contains(&below) {
            return Err(("planning.fuel_below_pct", below.to_string(), "use 100 to 1000: with less it could not pay"));
        }
        if !(below..=1_000).contains(&to) {
            return Err(("planning.fuel_to_pct", to.to_string(), "use fuel_below_pct to 1000"));
        }
        if raw.sweep_after_minutes > 525_600 {
            return Err(("planning.sweep_after_minutes", raw.sweep_after_minutes.to_string(), "use 0 to 525600, a year"));
        }
        if raw.fuel_max_gwei.max(raw.fuel_day_max_gwei) > 1_000_000_000_000_000 {
            return Err(("planning.fuel_max_gwei", raw.fuel_max_gwei.to_string(), "use at most 10^15"));
        }
        Ok(Self {
            release_path: raw.release_path,
            sweep_after_minutes: raw.sweep_after_minutes,
            sweep_min_usd: raw.sweep_min_usd,
            sweep_cost_pct: raw.sweep_cost_pct,
            fuel_below_pct: below,
            fuel_to_pct: to,
            fuel_max_gwei: raw.fuel_max_gwei,
            fuel_day_max_gwei: raw.fuel_day_max_gwei,
        })
    }
}

/// A token's two amounts, in millionths of a whole one; which field, and what it said, where one cannot be read.
pub(super) fn sweep_defaults(min: Option<&str>, now: Option<&str>) -> Result<(u64, u64), (&'static str, String)> {
    let read = |field: &'static str, text: Option<&str>| -> Result<u64, (&'static str, String)> {
        let Some(text) = text else { return Ok(0) };
        let bad = || (field, text.chars().take(64).collect());
        parse_units(text, 6).ok().and_then(|units| u64::try_from(units).ok()).filter(|units| *units < 1 << 60).ok_or_else(bad)
    };
    Ok((read("token.sweep_min", min)?, read("token.sweep_now", now)?))
}
