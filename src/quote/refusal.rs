//! Why there is no quote. Each names the rule, the source and the value; none is ever replaced by a guess.

use time::OffsetDateTime;

use super::observation::Verdict;
use crate::units::UsdRate;

/// One source and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceVerdict {
    pub source: String,
    pub verdict: Verdict,
    pub price: String,
    pub age_s: i64,
    pub max_age_s: i64,
}

impl std::fmt::Display for SourceVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.verdict {
            Verdict::Stale => write!(f, "{} stale {} s > {} s", self.source, self.age_s, self.max_age_s),
            Verdict::Used => write!(f, "{} {}", self.source, self.price),
            other => write!(f, "{} {other}", self.source),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{pair}: {have} of {need} sources{}; {}", if *.direct_missing { ", and no market in US dollars among them" } else { "" }, list(.sources))]
    InsufficientSources { pair: String, have: u32, need: u32, direct_missing: bool, sources: Vec<SourceVerdict> },
    #[error("{pair}: sources are {dispersion_bps} bps apart, the limit is {limit_bps}; {}", list(.sources))]
    InconsistentSources { pair: String, dispersion_bps: u32, limit_bps: u32, sources: Vec<SourceVerdict> },
    #[error("{token} is {deviation_bps} bps from its peg, the limit is {limit_bps}{}", if *.by_operator { "; halted by an operator" } else { "" })]
    DepegHalt { token: String, deviation_bps: i32, limit_bps: u32, by_operator: bool },
    #[error("{pair}: {candidate} after {}; a second round must confirm it, ask again in {retry_after_s} s", last.map_or_else(|| "nothing".to_owned(), |last| last.to_string()))]
    JumpUnconfirmed { pair: String, last: Option<UsdRate>, candidate: UsdRate, retry_after_s: u32 },
    #[error("the market of {pair} is closed; it opens at {opens_at}")]
    MarketClosed { pair: String, opens_at: OffsetDateTime },
    #[error("{pair}: {rate} is {bps} bps from the official rate of {source_name}, the limit is {limit_bps}")]
    FxSanity { pair: String, rate: UsdRate, source_name: String, bps: i32, limit_bps: u32 },
    #[error("{pair}: {rate} is {bps} bps from the {per_usd} for a dollar that an operator knows, the limit is {limit_bps} (fx_reference_bps){}", ten(*.bps))]
    FxReference { pair: String, rate: UsdRate, per_usd: u32, bps: i32, limit_bps: u32 },
    #[error("{pair}: no official rate to compare with{}", unbounded(.sources))]
    FxUnbounded { pair: String, sources: Vec<SourceVerdict> },
    #[error("the amount must be more than zero")]
    AmountNotPositive,
    #[error("{field} is not above zero")]
    RateNotPositive { field: &'static str },
    #[error("the amount in the token would be 10^20 or more, or exceed what its contract can hold")]
    SettleOverflow,
    #[error("currency {0:?} is none of USD, EUR, IRR, USDT, USDC, TRY, or has no pair in chains.toml")]
    UnknownCurrency(String),
    #[error("{token} on chain {chain} has no sources of its own and is not offered for prices in another currency")]
    TokenNotOffered { token: String, chain: crate::units::ChainId },
    #[error("currency {currency} paid in {token} needs an oracle quote, and quoting is not enabled (ORACLE_QUOTING_ENABLED)")]
    QuotingDisabled { currency: String, token: String },
}

impl Refusal {
    /// Stable: the problem type and the label of the metric.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InsufficientSources { .. } => "insufficient_sources",
            Self::InconsistentSources { .. } => "inconsistent_sources",
            Self::DepegHalt { .. } => "depeg_halt",
            Self::JumpUnconfirmed { .. } => "jump_unconfirmed",
            Self::MarketClosed { .. } => "market_closed",
            Self::FxSanity { .. } | Self::FxReference { .. } | Self::FxUnbounded { .. } => "fx_sanity",
            Self::AmountNotPositive => "amount_not_positive",
            Self::RateNotPositive { .. } => "rate_not_positive",
            Self::SettleOverflow => "settle_overflow_numeric_38_18",
            Self::UnknownCurrency(_) => "unknown_currency",
            Self::TokenNotOffered { .. } => "token_not_offered",
            Self::QuotingDisabled { .. } => "quoting_disabled",
        }
    }

    /// Whether the same request may succeed later.
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::InsufficientSources { .. }
                | Self::InconsistentSources { .. }
                | Self::DepegHalt { .. }
                | Self::JumpUnconfirmed { .. }
                | Self::MarketClosed { .. }
                | Self::FxSanity { .. }
                | Self::FxReference { .. }
                | Self::FxUnbounded { .. }
        )
    }
}

/// What a factor of about ten looks like.
fn ten(bps: i32) -> &'static str {
    match bps {
        -9_300..=-8_500 => "; about a tenth: is somebody's rial another's toman?",
        50_000..=150_000 => "; about tenfold: is somebody's toman another's rial?",
        _ => "",
    }
}

fn unbounded(sources: &[SourceVerdict]) -> String {
    if sources.is_empty() { ", and no fx_reference_per_usd is set".to_owned() } else { format!("; {}", list(sources)) }
}

fn list(sources: &[SourceVerdict]) -> String {
    sources.iter().map(SourceVerdict::to_string).collect::<Vec<_>>().join(", ")
}
