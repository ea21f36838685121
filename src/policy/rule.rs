//! Rules, and what they say of one outflow. Pure.
//!
//! A rule covers outflows of some kinds in one asset from an amount on. What it asks for is the largest
//! number of officers, the shortest life of an approval, the lowest maximum, every limit, and a listed
//! destination if any rule asks for one: adding a rule to those that cover an outflow never makes it easier.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use alloy::primitives::{Address, U256};
use time::{Duration, OffsetDateTime};

use super::destination::Standing;
use crate::chains::ChainBook;
use crate::units::{AssetId, format_units};

/// How long an approval counts where nothing else is said.
pub const APPROVALS_EXPIRE_MINUTES: u32 = 24 * 60;

/// `intent_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "intent_kind", rename_all = "lowercase")]
pub enum IntentKind {
    /// Deposit address to treasury.
    Sweep,
    /// Treasury to the seller.
    Release,
    /// Back to the buyer.
    Refund,
    /// Native coin from the gas address to a deposit address, so that it can be swept.
    Fuel,
    /// A zero transfer to self that takes another intent's nonce.
    Cancel,
}

impl IntentKind {
    pub const ALL: [Self; 5] = [Self::Sweep, Self::Release, Self::Refund, Self::Fuel, Self::Cancel];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Release => "release",
            Self::Refund => "refund",
            Self::Fuel => "fuel",
            Self::Cancel => "cancel",
        }
    }

    /// Whether it moves money between addresses of our own, and so goes to no other.
    pub const fn stays_ours(self) -> bool {
        match self {
            Self::Sweep | Self::Fuel | Self::Cancel => true,
            Self::Release | Self::Refund => false,
        }
    }
}

/// A whole policy, every value checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long an approval counts where no rule says less.
    pub approvals_expire_minutes: u32,
    /// From listing a destination until money may go there.
    pub cooling_hours: u32,
    pub rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub kinds: BTreeSet<IntentKind>,
    pub asset: AssetId,
    /// It covers this amount and more.
    pub from_units: U256,
    pub approvals: u8,
    pub destinations: Destinations,
    /// The most that one outflow may be.
    pub max_units: Option<U256>,
    pub limits: Vec<Limit>,
    pub approvals_expire_minutes: Option<u32>,
}

/// Where a rule lets money go. Sweeps, fuel and cancels go to our own addresses whatever it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destinations {
    Any,
    /// On the list, and past its cooling.
    Listed,
}

/// The most that may leave in any stretch of so many hours, what is reserved or uncertain included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit {
    pub hours: u32,
    pub max_units: U256,
    /// To each recipient, instead of to all together.
    pub per_recipient: bool,
}

/// What is about to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outflow {
    pub kind: IntentKind,
    pub asset: AssetId,
    pub units: U256,
    pub to: Address,
}

/// What has left of the asset, by kind, in the last so many hours; and all that is on its way.
#[derive(Clone, Debug, Default)]
pub struct Left(BTreeMap<(u32, IntentKind), U256>);

impl Left {
    pub fn add(&mut self, hours: u32, kind: IntentKind, units: U256) {
        let sum = self.0.entry((hours, kind)).or_default();
        *sum = sum.saturating_add(units);
    }

    fn of(&self, hours: u32, kinds: &BTreeSet<IntentKind>) -> U256 {
        kinds.iter().filter_map(|kind| self.0.get(&(hours, *kind))).fold(U256::ZERO, |sum, units| sum.saturating_add(*units))
    }
}

/// What is true when an outflow is judged.
#[derive(Clone, Debug)]
pub struct Facts {
    pub now: OffsetDateTime,
    pub standing: Standing,
    pub left: Left,
    /// Of that, what went to the outflow's own recipient.
    pub left_to_recipient: Left,
}

/// What an allowed outflow takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub approvals: u8,
    pub approvals_expire_minutes: u32,
}

/// Why an outflow may not leave now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NoRule,
    /// A sweep, fuel or a cancel to an address that is not ours.
    NotOurs,
    Unlisted {
        rule: String,
    },
    Cooling {
        rule: String,
        until: OffsetDateTime,
    },
    OverMax {
        rule: String,
        max_units: U256,
    },
    OverLimit {
        rule: String,
        limit: Limit,
        left_units: U256,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRule => f.write_str("no rule covers this kind, asset and amount"),
            Self::NotOurs => f.write_str("only an address of our own may receive this kind"),
            Self::Unlisted { rule } => write!(f, "rule {rule:?} asks for a listed destination"),
            Self::Cooling { rule, until } => write!(f, "rule {rule:?}: the destination cools until {}", second(*until)),
            Self::OverMax { rule, max_units } => write!(f, "rule {rule:?} allows {max_units} base units at a time"),
            Self::OverLimit { rule, limit, left_units } => write!(
                f,
                "rule {rule:?} allows {} base units in {} hours{}, and {left_units} have left or are on their way",
                limit.max_units,
                limit.hours,
                if limit.per_recipient { " to one recipient" } else { "" }
            ),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allowed(Terms),
    /// Never empty.
    Refused(Vec<Refusal>),
}

impl Verdict {
    /// Whether nothing passes here that does not pass there on the same or easier terms.
    pub fn is_as_strict_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused(_), _) => true,
            (Self::Allowed(_), Self::Refused(_)) => false,
            (Self::Allowed(here), Self::Allowed(there)) => {
                here.approvals >= there.approvals && here.approvals_expire_minutes <= there.approvals_expire_minutes
            }
        }
    }
}

/// The verdict, and the rules it rests on.
#[derive(Clone, Debug)]
pub struct Evaluation<'p> {
    pub outflow: Outflow,
    pub covering: Vec<&'p Rule>,
    pub verdict: Verdict,
}

impl Rule {
    pub fn covers(&self, outflow: &Outflow) -> bool {
        self.asset == outflow.asset && self.kinds.contains(&outflow.kind) && outflow.units >= self.from_units
    }

    /// What this rule alone has against an outflow that it covers.
    fn refusals(&self, outflow: &Outflow, facts: &Facts, cooling_hours: u32) -> Vec<Refusal> {
        let rule = || self.name.clone();
        let mut refusals = Vec::new();
        if !outflow.kind.stays_ours() && self.destinations == Destinations::Listed {
            match facts.standing {
                Standing::Listed { since } => {
                    let until = since.saturating_add(Duration::hours(i64::from(cooling_hours)));
                    if facts.now < until {
                        refusals.push(Refusal::Cooling { rule: rule(), until });
                    }
                }
                Standing::Own | Standing::Unlisted => refusals.push(Refusal::Unlisted { rule: rule() }),
            }
        }
        if let Some(max_units) = self.max_units.filter(|max| outflow.units > *max) {
            refusals.push(Refusal::OverMax { rule: rule(), max_units });
        }
        for limit in &self.limits {
            let left = if limit.per_recipient { &facts.left_to_recipient } else { &facts.left };
            let left_units = left.of(limit.hours, &self.kinds);
            if left_units.saturating_add(outflow.units) > limit.max_units {
                refusals.push(Refusal::OverLimit { rule: rule(), limit: *limit, left_units });
            }
        }
        refusals
    }
}

impl Policy {
    /// Judges one outflow. A cancel moves nothing, so no rule has to cover it; it takes as many officers as
    /// the rules about cancels ask for, and never fewer than `at_least`, which is 1 for every other kind.
    pub fn evaluate(&self, outflow: Outflow, facts: &Facts, at_least: u8) -> Evaluation<'_> {
        let covering: Vec<&Rule> = self.rules.iter().filter(|rule| rule.covers(&outflow)).collect();
        let mut refusals = Vec::new();
        if covering.is_empty() && outflow.kind != IntentKind::Cancel {
            refusals.push(Refusal::NoRule);
        }
        if outflow.kind.stays_ours() && facts.standing != Standing::Own {
            refusals.push(Refusal::NotOurs);
        }
        refusals.extend(covering.iter().flat_map(|rule| rule.refusals(&outflow, facts, self.cooling_hours)));
        let verdict = if refusals.is_empty() {
            let approvals = covering.iter().map(|rule| rule.approvals).fold(at_least.max(1), u8::max);
            let lives = covering.iter().filter_map(|rule| rule.approvals_expire_minutes);
            Verdict::Allowed(Terms { approvals, approvals_expire_minutes: lives.fold(self.approvals_expire_minutes, u32::min) })
        } else {
            Verdict::Refused(refusals)
        };
        Evaluation { outflow, covering, verdict }
    }

    /// The stretches of hours that rules about an asset look back on.
    pub fn windows(&self, asset: AssetId) -> BTreeSet<u32> {
        self.rules.iter().filter(|rule| rule.asset == asset).flat_map(|rule| rule.limits.iter().map(|limit| limit.hours)).collect()
    }

    /// Each rule in words, with amounts as people write them.
    pub fn lines(&self, book: &ChainBook) -> Vec<String> {
        let head = format!(
            "approvals count {} minutes; a destination cools {} hours; what no rule covers cannot leave",
            self.approvals_expire_minutes, self.cooling_hours
        );
        std::iter::once(head).chain(self.rules.iter().map(|rule| rule.line(book))).collect()
    }
}

impl Rule {
    fn line(&self, book: &ChainBook) -> String {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name()).collect();
        let amount = |units| amount(book, self.asset, units);
        let mut words = vec![format!("rule {:?}: {} on chain {}", self.name, kinds.join(", "), self.asset.chain)];
        words.push(if self.from_units.is_zero() {
            format!("any amount of {}", symbol(book, self.asset))
        } else {
            format!("{} and more", amount(self.from_units))
        });
        words.push(officers(self.approvals));
        words.push(match self.destinations {
            Destinations::Any => "to any address".to_owned(),
            Destinations::Listed => "to listed addresses".to_owned(),
        });
        words.extend(self.max_units.map(|max| format!("at most {} at a time", amount(max))));
        words.extend(self.limits.iter().map(|limit| {
            let whom = if limit.per_recipient { " to each recipient" } else { "" };
            format!("at most {} in {} hours{whom}", amount(limit.max_units), limit.hours)
        }));
        words.extend(self.approvals_expire_minutes.map(|minutes| format!("approvals count {minutes} minutes")));
        words.join("; ")
    }
}

impl Evaluation<'_> {
    /// The verdict in words: every rule that covers the outflow, then what follows from them.
    pub fn lines(&self, book: &ChainBook) -> Vec<String> {
        let Outflow { kind, asset, units, to } = self.outflow;
        let mut lines = vec![format!("{} of {} on chain {} to {to}", kind.name(), amount(book, asset, units), asset.chain)];
        lines.extend(self.covering.iter().map(|rule| format!("covered by {}", rule.line(book))));
        match &self.verdict {
            Verdict::Allowed(terms) => {
                let asking: Vec<String> =
                    self.covering.iter().filter(|rule| rule.approvals == terms.approvals).map(|rule| format!("{:?}", rule.name)).collect();
                let whose = if asking.is_empty() { String::new() } else { format!(" (rule {})", asking.join(", ")) };
                lines.push(format!(
                    "allowed: {}{whose}, approvals count {} minutes",
                    officers(terms.approvals),
                    terms.approvals_expire_minutes
                ));
            }
            Verdict::Refused(refusals) => lines.extend(refusals.iter().map(|refusal| format!("refused: {refusal}"))),
        }
        lines
    }
}

/// So many officers, in words.
pub fn officers(count: u8) -> String {
    if count == 1 { "1 officer".to_owned() } else { format!("{count} officers") }
}

fn symbol(book: &ChainBook, asset: AssetId) -> String {
    book.asset(asset).map_or_else(|| asset.asset.to_string(), |facts| facts.symbol.to_owned())
}

fn amount(book: &ChainBook, asset: AssetId, units: U256) -> String {
    match book.asset(asset) {
        Some(facts) => format!("{} {}", format_units(units, facts.decimals), facts.symbol),
        None => format!("{units} base units of {}", asset.asset),
    }
}

/// RFC 3339, to the second.
fn second(at: OffsetDateTime) -> String {
    use time::format_description::well_known::Rfc3339;
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests;
