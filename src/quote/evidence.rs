//! What a quote rests on, stored with it and never changed; and the proof that the quote follows from it.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::aggregate::Figures;
use super::decide::{Asked, Decision, Fx, Memory, PairInput, Quote, QuoteKind, Round, decide, identity};
use super::observation::Verdict;
use crate::units::UsdRate;

/// The layout of this version: the memory tells what the last round heard.
pub const VERSION: u32 = 2;
/// The layout before: its rounds remembered nothing of what was heard. It proves itself as before.
const WITHOUT_HEARD: u32 = 1;

/// Inputs and results of the rounds behind a quote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    pub version: u32,
    /// Which amanatd computed it.
    pub software: String,
    /// The newest row of the settings' history that it knew.
    pub settings_head: i64,
    pub token: PairEvidence,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fx: Option<PairEvidence>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairEvidence {
    pub input: PairInput,
    pub verdicts: Vec<Verdict>,
    pub figures: Figures,
    pub dispersion_bps: Option<u32>,
    pub used: u32,
    pub price: Option<UsdRate>,
    pub memory_after: Memory,
}

impl PairEvidence {
    pub fn new(input: PairInput, round: &Round) -> Self {
        Self {
            input,
            verdicts: round.verdicts.clone(),
            figures: round.figures.clone(),
            dispersion_bps: round.dispersion_bps,
            used: round.used,
            price: round.price,
            memory_after: round.memory.clone(),
        }
    }
}

impl Evidence {
    pub fn new(token: PairInput, fx: Fx, decision: &Decision, settings_head: i64) -> Self {
        let fx = match (fx, &decision.fx) {
            (Fx::Pair(input), Some(round)) => Some(PairEvidence::new(*input, round)),
            (Fx::Dollar | Fx::Pair(_), _) => None,
        };
        let software = format!("amanatd {}", env!("CARGO_PKG_VERSION"));
        Self { version: VERSION, software, settings_head, token: PairEvidence::new(token, &decision.token), fx }
    }
}

/// What does not follow from what is stored; empty when all of it does.
pub fn differences(stored: &Quote, evidence: Option<&Evidence>) -> Vec<&'static str> {
    match (stored.kind, evidence) {
        (QuoteKind::Imported, _) => Vec::new(),
        (QuoteKind::Identity, _) => match identity(&stored.asked, stored.quoted_at, stored.expires_at) {
            Some(again) => compare(stored, &again),
            None => vec!["the amount is finer than the token"],
        },
        (QuoteKind::Priced, None) => vec!["evidence is missing"],
        (QuoteKind::Priced, Some(evidence)) => priced(stored, evidence),
    }
}

fn priced(stored: &Quote, evidence: &Evidence) -> Vec<&'static str> {
    if !(WITHOUT_HEARD..=VERSION).contains(&evidence.version) {
        return vec!["evidence is of another layout"];
    }
    let pair = |input: &PairInput, round: &Round| {
        let mut again = PairEvidence::new(input.clone(), round);
        if evidence.version == WITHOUT_HEARD {
            again.memory_after.jump.heard = None;
        }
        again
    };
    let fx = evidence.fx.as_ref().map_or(Fx::Dollar, |fx| Fx::Pair(Box::new(fx.input.clone())));
    let again = decide(&stored.asked, &evidence.token.input, &fx, stored.quoted_at);
    let mut found = match &again.outcome {
        Ok(quote) => compare(stored, quote),
        Err(_) => vec!["the evidence gives a refusal"],
    };
    if pair(&evidence.token.input, &again.token) != evidence.token {
        found.push("the token's round");
    }
    let fx_again = again.fx.as_ref().zip(evidence.fx.as_ref()).map(|(round, fx)| pair(&fx.input, round));
    if fx_again != evidence.fx {
        found.push("the currency's round");
    }
    found
}

fn compare(stored: &Quote, again: &Quote) -> Vec<&'static str> {
    let Asked { amount, currency, chain, token, decimals } = &stored.asked;
    let same_asked = *amount == again.asked.amount
        && *currency == again.asked.currency
        && *chain == again.asked.chain
        && *token == again.asked.token
        && *decimals == again.asked.decimals;
    let checks = [
        (same_asked, "what was asked"),
        (stored.terms.fx_rate == again.terms.fx_rate, "fx_rate"),
        (stored.terms.token_price == again.terms.token_price, "token_price_usd"),
        (stored.terms.peg == again.terms.peg, "peg, policy, band or halt"),
        (stored.terms.premium_bps == again.terms.premium_bps, "premium_bps"),
        ((stored.terms.step, stored.terms.decimals) == (again.terms.step, again.terms.decimals), "step or decimals"),
        (stored.settled.effective_price == again.settled.effective_price, "effective_price_usd"),
        (stored.settled.depeg_adjustment_bps == again.settled.depeg_adjustment_bps, "depeg_adjustment_bps"),
        (stored.settled.peg_state == again.settled.peg_state, "peg_state"),
        (stored.settled.settle_amount == again.settled.settle_amount, "settle_amount"),
        (stored.settled.settle_units == again.settled.settle_units, "settle_units"),
        (stored.machine == again.machine, "machine_state"),
        (whole(stored.quoted_at) == again.quoted_at, "quoted_at"),
        (stored.expires_at == again.expires_at, "expires_at"),
        (stored.grace_s == again.grace_s, "inclusion_grace_s"),
    ];
    checks.into_iter().filter(|(same, _)| !same).map(|(_, what)| what).collect()
}

fn whole(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}
