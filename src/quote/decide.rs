//! From observations and memory to a price, and from prices to a quote. Pure: the same input gives the same
//! quote, bit for bit, and the input is stored beside it.

use alloy::primitives::U256;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::aggregate::{Aggregate, AggregateFault, Figures, Rules, admit, aggregate, fault_of, figures};
use super::depeg::{DepegEvent, DepegState, Deviation};
use super::formula::{PegRule, Policy, Settled, Terms, settle, step_of};
use super::hours;
use super::jump::{Heard, JumpMemory, Mark, Move};
use super::limits::Limits;
use super::observation::{Observation, Verdict};
use super::refusal::{Refusal, SourceVerdict};
use crate::chains::{PairKind, base_of};
use crate::units::{BPS, ChainId, Currency, Decimal18, Price, Toward, UsdRate, pow10};

/// What is remembered of a pair from round to round; it survives a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    pub depeg: DepegState,
    /// When the sources last agreed.
    pub last_price_s: Option<i64>,
    pub jump: JumpMemory,
}

impl Default for Memory {
    fn default() -> Self {
        Self { depeg: DepegState::Par, last_price_s: None, jump: JumpMemory::default() }
    }
}

/// Everything that the price of one pair depends on, but the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairInput {
    pub pair: String,
    pub kind: PairKind,
    pub peg: Option<UsdRate>,
    pub forex: bool,
    /// Down for a token, up for a currency: both favour who is paid.
    pub toward: Toward,
    /// In order of preference.
    pub observations: Vec<Observation>,
    /// Official rates: they bound, and do not vote.
    pub sanity: Vec<Observation>,
    /// Whether an official rate, or an operator's reference, has to bound what the sources agree on: two of them
    /// can be wrong together, as with a toman for a rial.
    #[serde(default)]
    pub needs_bound: bool,
    pub memory: Memory,
    pub limits: Limits,
}

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    pub outcome: Result<UsdRate, Refusal>,
    /// What the sources agreed on, whether or not it was taken.
    pub price: Option<UsdRate>,
    pub deviation_bps: Option<i32>,
    pub dispersion_bps: Option<u32>,
    pub used: u32,
    pub verdicts: Vec<Verdict>,
    pub figures: Figures,
    pub memory: Memory,
}

/// One round of a pair.
pub fn round(input: &PairInput, now: OffsetDateTime) -> Round {
    let now_s = now.unix_timestamp();
    let limits = &input.limits;
    let stable = input.kind == PairKind::Stable;
    let rules = Rules {
        min_sources: limits.min_sources,
        outlier_floor_bps: limits.outlier_floor_bps,
        // The tight limit comes after the machine, so that a turbulent round can leave par.
        dispersion_max_bps: if stable { limits.dispersion_stressed_bps } else { limits.dispersion_normal_bps },
        needs_direct: stable,
    };
    let figures = figures(&input.observations, now_s, rules);
    let found = match aggregate(&input.observations, now_s, rules) {
        Ok(found) => found,
        Err(fault) => return no_price(input, fault, figures, now),
    };
    let Ok(price) = found.price(input.toward) else {
        let fault = AggregateFault::Insufficient { have: 0, need: limits.min_sources, direct_missing: false, verdicts: found.verdicts };
        return no_price(input, fault, figures, now);
    };
    let deviation = input.peg.map(|peg| Deviation::of(price, peg));
    let depeg = deviation.map_or(input.memory.depeg, |deviation| {
        let gap_s = input.memory.last_price_s.map_or(0, |last_s| now_s.saturating_sub(last_s));
        let before = input.memory.depeg.apply(DepegEvent::NoPrice { for_s: gap_s }, now_s, limits);
        before.apply(DepegEvent::Price(deviation), now_s, limits)
    });
    let close = !found.spread.exceeds(limits.dispersion_normal_bps);
    let calm = !stable || depeg == DepegState::Par;
    let inconsistent = calm && !close;
    let mark = Mark { price, at_s: now_s };
    let bound = bounded(input, price, now);
    // A price that is refused for its sources is no measure for the next.
    let (jump, taken) = match inconsistent || bound.is_err() {
        true => (input.memory.jump.clone(), false),
        false => input.memory.jump.judge(input.kind, Move { mark, families: found.used, close }, limits),
    };
    let memory = Memory { depeg, last_price_s: Some(now_s), jump: jump.listen(heard(input, now_s), limits) };
    let outcome = verdict(input, &found, Judged { price, deviation, depeg, inconsistent, taken, bound }, now);
    Round {
        outcome,
        price: Some(price),
        deviation_bps: deviation.map(Deviation::bps),
        dispersion_bps: Some(found.spread.bps()),
        used: found.used,
        verdicts: found.verdicts,
        figures,
        memory,
    }
}

struct Judged {
    price: UsdRate,
    deviation: Option<Deviation>,
    depeg: DepegState,
    inconsistent: bool,
    taken: bool,
    bound: Result<(), Refusal>,
}

/// What those say that are let in.
fn heard(input: &PairInput, now_s: i64) -> Heard {
    let verdicts = admit(&input.observations, now_s);
    let admitted = input.observations.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none());
    let rate = |(seen, _): (&Observation, _)| UsdRate::from_doubled(seen.price.scaled() * U256::from(2), Toward::Down).ok();
    Heard { at_s: now_s, prices: admitted.filter_map(rate).collect() }
}

fn verdict(input: &PairInput, found: &Aggregate, judged: Judged, now: OffsetDateTime) -> Result<UsdRate, Refusal> {
    let limits = &input.limits;
    let pair = || input.pair.clone();
    if input.forex && !hours::is_open(now) {
        return Err(Refusal::MarketClosed { pair: pair(), opens_at: hours::opens_at(now) });
    }
    let by_operator = limits.depeg_halted == 1;
    let halted = matches!(judged.depeg, DepegState::Halted { .. });
    if let (Some(deviation), true) = (judged.deviation, by_operator || halted) {
        let (deviation_bps, limit_bps) = (deviation.bps(), limits.depeg_halt_bps);
        return Err(Refusal::DepegHalt { token: base_of(&input.pair).to_owned(), deviation_bps, limit_bps, by_operator });
    }
    if judged.inconsistent {
        return Err(Refusal::InconsistentSources {
            pair: pair(),
            dispersion_bps: found.spread.bps(),
            limit_bps: limits.dispersion_normal_bps,
            sources: sources(&input.observations, &found.verdicts, now),
        });
    }
    judged.bound?;
    if !judged.taken {
        let last = input.memory.jump.accepted.map(|mark| mark.price);
        return Err(Refusal::JumpUnconfirmed { pair: pair(), last, candidate: judged.price, retry_after_s: limits.jump_confirm_min_s });
    }
    Ok(judged.price)
}

/// Whether an exchange rate is where the official ones, and the operator's reference, say it may be.
fn bounded(input: &PairInput, rate: UsdRate, now: OffsetDateTime) -> Result<(), Refusal> {
    near_reference(input, rate)?;
    if input.sanity.is_empty() {
        let known = !input.needs_bound || input.limits.fx_reference_per_usd > 0;
        return if known { Ok(()) } else { Err(Refusal::FxUnbounded { pair: input.pair.clone(), sources: Vec::new() }) };
    }
    let now_s = now.unix_timestamp();
    let faults: Vec<Option<Verdict>> = input.sanity.iter().map(|official| fault_of(official, now_s)).collect();
    let mut compared = false;
    for (official, _) in input.sanity.iter().zip(&faults).filter(|(_, fault)| fault.is_none()) {
        compared = true;
        let (ours, theirs) = (Price::from(rate).scaled(), official.price.scaled());
        let limit_bps = input.limits.fx_sanity_bps;
        let far = ours.abs_diff(theirs) * U256::from(BPS);
        if far > theirs * U256::from(limit_bps) {
            let bps = i32::try_from(far / theirs.max(U256::ONE)).unwrap_or(i32::MAX);
            let bps = if ours < theirs { -bps } else { bps };
            return Err(Refusal::FxSanity { pair: input.pair.clone(), rate, source_name: official.source.clone(), bps, limit_bps });
        }
    }
    if compared {
        return Ok(());
    }
    let verdicts: Vec<Verdict> = faults.into_iter().map(|fault| fault.unwrap_or(Verdict::Used)).collect();
    Err(Refusal::FxUnbounded { pair: input.pair.clone(), sources: sources(&input.sanity, &verdicts, now) })
}

/// Whether it is near what an operator has set as known, in units of the currency for one dollar. A factor of ten
/// is outside whatever the limit is.
fn near_reference(input: &PairInput, rate: UsdRate) -> Result<(), Refusal> {
    let per_usd = input.limits.fx_reference_per_usd;
    if per_usd == 0 {
        return Ok(());
    }
    // One is what the reference is worth at exactly its own rate.
    let (worth, one) = (rate.scaled() * U256::from(per_usd), pow10(18));
    let far = worth.abs_diff(one) * U256::from(BPS);
    let limit_bps = input.limits.fx_reference_bps;
    if far <= one * U256::from(limit_bps) {
        return Ok(());
    }
    let bps = i32::try_from(far / one).unwrap_or(i32::MAX);
    let bps = if worth < one { -bps } else { bps };
    Err(Refusal::FxReference { pair: input.pair.clone(), rate, per_usd, bps, limit_bps })
}

fn no_price(input: &PairInput, fault: AggregateFault, figures: Figures, now: OffsetDateTime) -> Round {
    let now_s = now.unix_timestamp();
    let for_s = input.memory.last_price_s.map_or(0, |last_s| now_s.saturating_sub(last_s));
    let depeg = input.memory.depeg.apply(DepegEvent::NoPrice { for_s }, now_s, &input.limits);
    let pair = input.pair.clone();
    let (refusal, verdicts, dispersion_bps, used) = match fault {
        AggregateFault::Insufficient { have, need, direct_missing, verdicts } => {
            let sources = sources(&input.observations, &verdicts, now);
            (Refusal::InsufficientSources { pair, have, need, direct_missing, sources }, verdicts, None, have)
        }
        AggregateFault::Inconsistent { spread, limit_bps, verdicts } => {
            let sources = sources(&input.observations, &verdicts, now);
            let used = verdicts.iter().filter(|verdict| **verdict == Verdict::Used).count();
            let dispersion_bps = spread.bps();
            let refusal = Refusal::InconsistentSources { pair, dispersion_bps, limit_bps, sources };
            (refusal, verdicts, Some(dispersion_bps), u32::try_from(used).unwrap_or(u32::MAX))
        }
    };
    let closed = input.forex && !hours::is_open(now);
    let refusal = if closed { Refusal::MarketClosed { pair: input.pair.clone(), opens_at: hours::opens_at(now) } } else { refusal };
    Round {
        outcome: Err(refusal),
        price: None,
        deviation_bps: None,
        dispersion_bps,
        used,
        verdicts,
        figures,
        memory: Memory {
            depeg,
            last_price_s: input.memory.last_price_s,
            jump: input.memory.jump.clone().listen(heard(input, now_s), &input.limits),
        },
    }
}

/// Each source with what became of it.
pub fn sources(observations: &[Observation], verdicts: &[Verdict], now: OffsetDateTime) -> Vec<SourceVerdict> {
    let told = |(seen, verdict): (&Observation, &Verdict)| SourceVerdict {
        source: seen.source.clone(),
        verdict: *verdict,
        price: seen.price.to_string(),
        age_s: seen.age_s(now.unix_timestamp()),
        max_age_s: seen.max_age_s,
    };
    observations.iter().zip(verdicts).map(told).collect()
}

// === a quote ===

/// What a quote is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// In the price currency.
    pub amount: Decimal18,
    pub currency: Currency,
    pub chain: ChainId,
    /// The symbol on that chain.
    pub token: String,
    pub decimals: u8,
}

/// What the currency is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fx {
    /// US dollars.
    Dollar,
    /// By this pair, rounded up.
    Pair(Box<PairInput>),
}

/// How a quote came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "quote_kind", rename_all = "lowercase")]
pub enum QuoteKind {
    /// From prices.
    Priced,
    /// The currency is the token: no oracle was asked.
    Identity,
    /// Brought along from elsewhere, without evidence.
    Imported,
}

impl QuoteKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Priced => "priced",
            Self::Identity => "identity",
            Self::Imported => "imported",
        }
    }
}

/// A quote as it is stored and as it recomputes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    pub kind: QuoteKind,
    pub asked: Asked,
    pub terms: Terms,
    pub settled: Settled,
    /// The depeg machine's state for the token.
    pub machine: &'static str,
    pub quoted_at: OffsetDateTime,
    pub expires_at: OffsetDateTime,
    /// How much later a block may be and still be in time.
    pub grace_s: u32,
}

impl Quote {
    /// The latest block time that is still in time.
    pub fn payable_until(&self) -> OffsetDateTime {
        self.expires_at + Duration::seconds(i64::from(self.grace_s))
    }
}

/// A quote or its refusal, with the rounds behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub token: Round,
    pub fx: Option<Round>,
    pub outcome: Result<Quote, Refusal>,
}

/// From the rounds of a token and a currency to a quote.
pub fn decide(asked: &Asked, token: &PairInput, fx: &Fx, now: OffsetDateTime) -> Decision {
    let now = now.replace_nanosecond(0).unwrap_or(now);
    let token_round = round(token, now);
    let fx_round = match fx {
        Fx::Dollar => None,
        Fx::Pair(input) => Some(round(input, now)),
    };
    let outcome = quote_of(asked, (token, &token_round), fx, fx_round.as_ref(), now);
    Decision { token: token_round, fx: fx_round, outcome }
}

fn quote_of(
    asked: &Asked,
    (token, token_round): (&PairInput, &Round),
    fx: &Fx,
    fx_round: Option<&Round>,
    now: OffsetDateTime,
) -> Result<Quote, Refusal> {
    if asked.amount.is_zero() {
        return Err(Refusal::AmountNotPositive);
    }
    let token_price = token_round.outcome.clone()?;
    let (fx_rate, fx_adjusted) = match (fx, fx_round) {
        (Fx::Pair(input), Some(round)) => (rate_of(input, round)?, is_adjusted(round)),
        (Fx::Dollar | Fx::Pair(_), _) => (UsdRate::one(), false),
    };
    let limits = &token.limits;
    let state = token_round.memory.depeg;
    let adjusted = token.peg.is_some() && is_adjusted(token_round);
    let rule = |peg| PegRule {
        peg,
        policy: Policy::of_setting(limits.depeg_policy),
        band_bps: state.band_bps(limits),
        halt_bps: limits.depeg_halt_bps,
    };
    let terms = Terms {
        amount: asked.amount,
        fx_rate,
        token_price,
        peg: token.peg.map(rule),
        premium_bps: if adjusted { limits.premium_bps } else { 0 },
        step: step_of(token.kind == PairKind::Stable, asked.decimals),
        decimals: asked.decimals,
    };
    let settled = settle(&terms)?;
    let ttl_s = if adjusted || fx_adjusted { limits.ttl_adjusted_s } else { limits.ttl_par_s };
    Ok(Quote {
        kind: QuoteKind::Priced,
        asked: asked.clone(),
        terms,
        settled,
        machine: state.name(),
        quoted_at: now,
        expires_at: now + Duration::seconds(i64::from(ttl_s)),
        grace_s: limits.inclusion_grace_s,
    })
}

/// US dollars for one unit of the currency. A stablecoin within its band is a dollar, else marked to market.
fn rate_of(input: &PairInput, round: &Round) -> Result<UsdRate, Refusal> {
    let rate = round.outcome.clone()?;
    let Some(peg) = input.peg else { return Ok(rate) };
    let band_bps = round.memory.depeg.band_bps(&input.limits);
    Ok(if Deviation::of(rate, peg).is_within(band_bps) { peg } else { rate })
}

fn is_adjusted(round: &Round) -> bool {
    matches!(round.memory.depeg, DepegState::Adjusted { .. })
}

/// The quote of an amount in the token itself. `None` where the token is not fine enough for it.
pub fn identity(asked: &Asked, quoted_at: OffsetDateTime, expires_at: OffsetDateTime) -> Option<Quote> {
    let quoted_at = quoted_at.replace_nanosecond(0).unwrap_or(quoted_at);
    let terms = Terms {
        amount: asked.amount,
        fx_rate: UsdRate::one(),
        token_price: UsdRate::one(),
        peg: None,
        premium_bps: 0,
        step: asked.decimals,
        decimals: asked.decimals,
    };
    let settled = settle(&terms).ok().filter(|settled| settled.settle_amount == asked.amount)?;
    let machine = DepegState::Par.name();
    Some(Quote { kind: QuoteKind::Identity, asked: asked.clone(), terms, settled, machine, quoted_at, expires_at, grace_s: 0 })
}
