//! A policy as people write it (TOML, symbols and amounts of `chains.toml`), and as it is stored (JSON,
//! contracts and base units), so that a later change of `chains.toml` changes no policy. Pure.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use serde::{Deserialize, Serialize};

use super::rule::{APPROVALS_EXPIRE_MINUTES, Destinations, IntentKind, Limit, Policy, Rule};
use crate::chains::{ChainBook, ChainSpec};
use crate::units::{Asset, AssetId, ChainId, parse_address, parse_base_units, parse_units};

const COOLING_HOURS: u32 = 24;
const COOLING_HOURS_MAX: u32 = 8_784;
const APPROVALS_MAX: u8 = 20;
const EXPIRE_MINUTES_MIN: u32 = 5;
const EXPIRE_MINUTES_MAX: u32 = 43_200;
/// Leap years have so many; what is older never counts.
const WINDOW_HOURS_MAX: u32 = 8_784;
const RULES_MAX: usize = 500;
const LIMITS_MAX: usize = 10;
const NAME_CHARS_MAX: usize = 100;

/// Names the stored form.
const VERSION: u32 = 1;

/// Why a text is no policy.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("the policy cannot be read: {0}")]
    Form(String),
    #[error("{place}: {field} = {value}: {remedy}")]
    Field { place: String, field: &'static str, value: String, remedy: String },
    #[error("the policy has {found} rules; {RULES_MAX} are allowed")]
    TooMany { found: usize },
    #[error("two rules are named {0:?}; a refusal names the rule it comes from")]
    NameTwice(String),
    #[error("the stored policy is not one this version writes: {0}")]
    Stored(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Draft {
    approvals_expire_minutes: Option<u32>,
    cooling_hours: Option<u32>,
    #[serde(default, rename = "rule")]
    rules: Vec<DraftRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftRule {
    name: String,
    kinds: Vec<String>,
    chain: u64,
    asset: String,
    from: Option<String>,
    approvals: u8,
    destinations: Option<String>,
    max: Option<String>,
    approvals_expire_minutes: Option<u32>,
    #[serde(default, rename = "limit")]
    limits: Vec<DraftLimit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DraftLimit {
    hours: u32,
    max: String,
    #[serde(default)]
    per_recipient: bool,
}

/// Reads what a person wrote; the error names the rule, the field and what would do.
pub fn parse(text: &str, book: &ChainBook) -> Result<Policy, DocumentError> {
    let draft: Draft = toml::from_str(text).map_err(|error| DocumentError::Form(error.to_string()))?;
    if draft.rules.len() > RULES_MAX {
        return Err(DocumentError::TooMany { found: draft.rules.len() });
    }
    let mut names = BTreeSet::new();
    let mut rules = Vec::with_capacity(draft.rules.len());
    for rule in draft.rules {
        let rule = read_rule(rule, book)?;
        if !names.insert(rule.name.clone()) {
            return Err(DocumentError::NameTwice(rule.name));
        }
        rules.push(rule);
    }
    let policy = Policy {
        approvals_expire_minutes: draft.approvals_expire_minutes.unwrap_or(APPROVALS_EXPIRE_MINUTES),
        cooling_hours: draft.cooling_hours.unwrap_or(COOLING_HOURS),
        rules,
    };
    policy.check()?;
    Ok(policy)
}

fn read_rule(draft: DraftRule, book: &ChainBook) -> Result<Rule, DocumentError> {
    let place = format!("rule {:?}", draft.name.chars().take(NAME_CHARS_MAX).collect::<String>());
    let bad = |field, value: String, remedy: String| DocumentError::Field { place: place.clone(), field, value, remedy };
    let spec: &ChainSpec = ChainId::new(draft.chain)
        .and_then(|chain| book.get(chain))
        .ok_or_else(|| bad("chain", draft.chain.to_string(), "list the chain in chains.toml first".to_owned()))?;
    let (asset, facts) = spec
        .find_asset(&draft.asset)
        .ok_or_else(|| bad("asset", draft.asset.clone(), format!("use one of {}", spec.symbols().join(", "))))?;
    let units = |field, text: &str| parse_units(text, facts.decimals).map_err(|error| bad(field, text.to_owned(), error.to_string()));
    let mut kinds = BTreeSet::new();
    for name in &draft.kinds {
        kinds.insert(kind_of(name).ok_or_else(|| bad("kinds", name.clone(), format!("use {}", kind_names())))?);
    }
    let destinations = match draft.destinations.as_deref() {
        None | Some("listed") => Destinations::Listed,
        Some("any") => Destinations::Any,
        Some(other) => return Err(bad("destinations", other.to_owned(), "use listed or any".to_owned())),
    };
    let mut limits = Vec::with_capacity(draft.limits.len());
    for limit in &draft.limits {
        limits.push(Limit { hours: limit.hours, max_units: units("limit.max", &limit.max)?, per_recipient: limit.per_recipient });
    }
    Ok(Rule {
        kinds,
        asset,
        from_units: draft.from.as_deref().map_or(Ok(U256::ZERO), |text| units("from", text))?,
        approvals: draft.approvals,
        destinations,
        max_units: draft.max.as_deref().map(|text| units("max", text)).transpose()?,
        limits,
        approvals_expire_minutes: draft.approvals_expire_minutes,
        name: draft.name,
    })
}

fn kind_of(name: &str) -> Option<IntentKind> {
    IntentKind::ALL.into_iter().find(|kind| kind.name() == name)
}

fn kind_names() -> String {
    IntentKind::ALL.map(IntentKind::name).join(", ")
}

impl Policy {
    /// Every bound, whatever form the policy came in.
    fn check(&self) -> Result<(), DocumentError> {
        let bound = |place: &str, field, value: u32, min: u32, max: u32| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(DocumentError::Field { place: place.to_owned(), field, value: value.to_string(), remedy: format!("use {min} to {max}") })
        };
        bound("policy", "approvals_expire_minutes", self.approvals_expire_minutes, EXPIRE_MINUTES_MIN, EXPIRE_MINUTES_MAX)?;
        bound("policy", "cooling_hours", self.cooling_hours, 0, COOLING_HOURS_MAX)?;
        for rule in &self.rules {
            let place = format!("rule {:?}", rule.name);
            let field =
                |field, value: String, remedy: &str| DocumentError::Field { place: place.clone(), field, value, remedy: remedy.to_owned() };
            let length = rule.name.chars().count();
            if !(1..=NAME_CHARS_MAX).contains(&length) || rule.name.chars().any(char::is_control) {
                return Err(field("name", rule.name.clone(), "use 1 to 100 characters of one line"));
            }
            if rule.kinds.is_empty() {
                return Err(field("kinds", "[]".to_owned(), &format!("use {}", kind_names())));
            }
            bound(&place, "approvals", rule.approvals.into(), 1, APPROVALS_MAX.into())?;
            if let Some(minutes) = rule.approvals_expire_minutes {
                bound(&place, "approvals_expire_minutes", minutes, EXPIRE_MINUTES_MIN, EXPIRE_MINUTES_MAX)?;
            }
            if rule.limits.len() > LIMITS_MAX {
                return Err(field("limit", rule.limits.len().to_string(), "use at most 10 limits"));
            }
            for limit in &rule.limits {
                bound(&place, "limit.hours", limit.hours, 1, WINDOW_HOURS_MAX)?;
            }
        }
        Ok(())
    }

    /// The text that is stored and hashed; equal policies give equal texts.
    pub fn canonical(&self) -> String {
        let stored = Stored {
            version: VERSION,
            approvals_expire_minutes: self.approvals_expire_minutes,
            cooling_hours: self.cooling_hours,
            rules: self.rules.iter().map(StoredRule::of).collect(),
        };
        // Only maps with keys that are no text cannot be written, and there is none.
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// Reads [`Self::canonical`] back.
    pub fn from_canonical(text: &str) -> Result<Self, DocumentError> {
        let stored: Stored = serde_json::from_str(text).map_err(|error| DocumentError::Stored(error.to_string()))?;
        if stored.version != VERSION {
            return Err(DocumentError::Stored(format!("version {}", stored.version)));
        }
        let policy = Self {
            approvals_expire_minutes: stored.approvals_expire_minutes,
            cooling_hours: stored.cooling_hours,
            rules: stored.rules.into_iter().map(StoredRule::read).collect::<Result<_, _>>()?,
        };
        policy.check()?;
        Ok(policy)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    approvals_expire_minutes: u32,
    cooling_hours: u32,
    rules: Vec<StoredRule>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRule {
    name: String,
    kinds: Vec<String>,
    chain: u64,
    asset: String,
    from_units: String,
    approvals: u8,
    listed_only: bool,
    max_units: Option<String>,
    limits: Vec<StoredLimit>,
    approvals_expire_minutes: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLimit {
    hours: u32,
    max_units: String,
    /// Left out where it is not so, so that a policy from before it could be is the same text.
    #[serde(default, skip_serializing_if = "is_off")]
    per_recipient: bool,
}

/// Serde passes a reference.
const fn is_off(on: &bool) -> bool {
    !*on
}

impl StoredRule {
    fn of(rule: &Rule) -> Self {
        Self {
            name: rule.name.clone(),
            kinds: rule.kinds.iter().map(|kind| kind.name().to_owned()).collect(),
            chain: rule.asset.chain.get(),
            asset: format!("{:#x}", rule.asset.asset.marker()),
            from_units: rule.from_units.to_string(),
            approvals: rule.approvals,
            listed_only: rule.destinations == Destinations::Listed,
            max_units: rule.max_units.map(|units| units.to_string()),
            limits: rule
                .limits
                .iter()
                .map(|limit| StoredLimit { hours: limit.hours, max_units: limit.max_units.to_string(), per_recipient: limit.per_recipient })
                .collect(),
            approvals_expire_minutes: rule.approvals_expire_minutes,
        }
    }

    fn read(self) -> Result<Rule, DocumentError> {
        let bad = |what: &str| DocumentError::Stored(format!("rule {:?}: {what}", self.name));
        let units = |text: &str| parse_base_units(text).map_err(|error| bad(&error.to_string()));
        let chain = ChainId::new(self.chain).ok_or_else(|| bad("chain 0"))?;
        let asset = Asset::from_marker(parse_address(&self.asset).map_err(|error| bad(&error.to_string()))?);
        Ok(Rule {
            kinds: self.kinds.iter().map(|name| kind_of(name).ok_or_else(|| bad(name))).collect::<Result<_, _>>()?,
            asset: AssetId { chain, asset },
            from_units: units(&self.from_units)?,
            approvals: self.approvals,
            destinations: if self.listed_only { Destinations::Listed } else { Destinations::Any },
            max_units: self.max_units.as_deref().map(units).transpose()?,
            limits: self
                .limits
                .iter()
                .map(|limit| Ok(Limit { hours: limit.hours, max_units: units(&limit.max_units)?, per_recipient: limit.per_recipient }))
                .collect::<Result<_, DocumentError>>()?,
            approvals_expire_minutes: self.approvals_expire_minutes,
            name: self.name.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = include_str!("../../chains.toml");

    fn read(text: &str) -> Result<Policy, DocumentError> {
        parse(text, &ChainBook::parse(BOOK).unwrap())
    }

    #[test]
    fn s6_a_policy_means_the_same_after_it_was_stored() {
        let text = r#"
            cooling_hours = 48
            [[rule]]
            name = "releases"
            kinds = ["release", "refund"]
            chain = 1
            asset = "USDC"
            approvals = 2
            max = "5000.5"
            [[rule.limit]]
            hours = 24
            max = "20000"
            [[rule.limit]]
            hours = 24
            max = "6000"
            per_recipient = true
            [[rule]]
            name = "inside"
            kinds = ["sweep"]
            chain = 56
            asset = "USDC"
            from = "0.000000000000000001"
            approvals = 1
            destinations = "any"
            approvals_expire_minutes = 60
        "#;
        let policy = read(text).unwrap();
        assert_eq!(policy.rules[0].max_units, Some(U256::from(5_000_500_000_u64)));
        assert_eq!(policy.rules[1].from_units, U256::from(1), "18 decimals there");
        assert_eq!(policy.rules[0].limits.iter().map(|limit| limit.per_recipient).collect::<Vec<_>>(), [false, true]);
        assert_eq!(policy.canonical().matches("per_recipient").count(), 1, "what is not so is not said");
        assert_eq!(policy.rules[0].destinations, Destinations::Listed, "the stricter is the default");
        assert_eq!(Policy::from_canonical(&policy.canonical()).unwrap(), policy);
        assert_eq!(read("").unwrap().rules, [], "a policy that lets nothing leave is one too");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        let rule =
            |more: &str| format!("[[rule]]\nname = \"r\"\nkinds = [\"release\"]\nchain = 1\nasset = \"USDC\"\napprovals = 1\n{more}");
        read(&rule("")).unwrap();
        let replaced = |from: &str, to: &str| rule("").replace(from, to);
        for (text, said) in [
            (replaced("approvals = 1", "approvals = 0"), "approvals = 0"),
            (replaced("approvals = 1", "approvals = 21"), "approvals = 21"),
            (replaced("\"release\"", "\"payout\""), "kinds = payout"),
            (replaced("[\"release\"]", "[]"), "kinds = []"),
            (replaced("chain = 1", "chain = 5"), "chain = 5"),
            (replaced("USDC", "DOGE"), "ETH, USDT, USDC"),
            (replaced("name = \"r\"", "name = \"\""), "name = "),
            (rule("max = \"1.0000001\""), "max = 1.0000001"),
            (rule("from = \"-1\""), "from = -1"),
            (rule("destinations = \"everywhere\""), "listed or any"),
            (rule("approvals_expire_minutes = 4"), "approvals_expire_minutes = 4"),
            (rule("[[rule.limit]]\nhours = 0\nmax = \"1\""), "limit.hours = 0"),
            (rule("maximum = \"1\""), "maximum"),
            (format!("{}{}", rule(""), rule("")), "two rules"),
            ("cooling_hours = 9000".to_owned(), "cooling_hours = 9000"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
