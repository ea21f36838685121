//! What a chain is screened by, and what the screeners' answers make together. Pure.

use std::collections::BTreeSet;

use alloy::primitives::{Address, B256};
use time::Duration;

use super::screener::Answer;
use crate::units::{Asset, TokenAmount, parse_units};

/// `screener_kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(type_name = "screener_kind", rename_all = "lowercase")]
pub enum ScreenerKind {
    List,
    Oracle,
    Provider,
}

impl ScreenerKind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Oracle => "oracle",
            Self::Provider => "provider",
        }
    }
}

/// `screening_outcome`: what all screeners say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "screening_outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// The policy asks for nothing.
    NotScreened,
    Clear,
    Hit,
    /// Nobody hit, and at least one has not answered.
    Unavailable,
}

impl Outcome {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotScreened => "not_screened",
            Self::Clear => "clear",
            Self::Hit => "hit",
            Self::Unavailable => "unavailable",
        }
    }
}

/// `screening_decision`: what a resolver says of a held transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "screening_decision", rename_all = "lowercase")]
pub enum Decision {
    /// It may go on.
    Cleared,
    /// It is as the screeners say; it stays held.
    Confirmed,
}

impl Decision {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cleared => "cleared",
            Self::Confirmed => "confirmed",
        }
    }
}

/// A version of the sanctions list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListVersion {
    pub sha256: B256,
    pub entries: u32,
}

/// What a chain is screened by. Money that leaves was screened under the one in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub list: Option<ListVersion>,
    pub oracle: Option<Address>,
    /// Its name, and the score from which on it is a hit.
    pub provider: Option<String>,
}

impl Policy {
    /// Whether anything is asked for.
    pub const fn is_required(&self) -> bool {
        self.list.is_some() || self.oracle.is_some() || self.provider.is_some()
    }
}

/// The amount below which a screener that does not answer holds nothing: whole units of a token, such as
/// 100 or 0.5. Without one everything is held. The chain's coin has no such amount, because its price moves.
#[derive(Clone, Debug, Default)]
pub struct Waiver {
    pub pass_below: Option<String>,
}

impl Waiver {
    pub fn waives(&self, amount: TokenAmount, decimals: u8) -> bool {
        let (Some(below), Asset::Token(_)) = (&self.pass_below, amount.asset.asset) else { return false };
        parse_units(below, decimals).is_ok_and(|below| amount.units < below)
    }
}

/// Where a transfer stands before and after it is screened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub outcome: Outcome,
    /// `screener:address`, for good.
    pub hits: Vec<String>,
    /// `unavailable:screener`.
    pub missing: Vec<String>,
    pub waived: bool,
    /// What a resolver has cleared of the two.
    pub cleared: Vec<String>,
}

impl Standing {
    /// Nobody was asked.
    pub const fn new() -> Self {
        Self { outcome: Outcome::NotScreened, hits: Vec::new(), missing: Vec::new(), waived: false, cleared: Vec::new() }
    }

    /// The same rule stands in the table.
    pub fn passes(&self) -> bool {
        let cleared = |what: &String| self.cleared.contains(what);
        self.hits.iter().all(cleared) && (self.waived || self.missing.iter().all(cleared))
    }

    /// After these answers. Hits add to those before: a list that no longer names somebody frees nothing.
    /// What was missing before counts no more. `origin_known` says whether all were asked about whoever signed.
    #[must_use]
    pub fn after(&self, answers: &[(ScreenerKind, Answer)], required: bool, origin_known: bool, waived: bool) -> Self {
        let mut hits: BTreeSet<String> = self.hits.iter().cloned().collect();
        let mut missing = BTreeSet::new();
        for (kind, answer) in answers {
            match answer {
                Answer::Screened { hits: found, .. } => hits.extend(found.iter().map(|address| format!("{}:{address:#x}", kind.name()))),
                Answer::Unavailable { .. } => {
                    missing.insert(format!("unavailable:{}", kind.name()));
                }
            }
        }
        if required && !origin_known {
            missing.insert("unavailable:origin".to_owned());
        }
        let outcome = if !hits.is_empty() {
            Outcome::Hit
        } else if !missing.is_empty() {
            Outcome::Unavailable
        } else if required {
            Outcome::Clear
        } else {
            Outcome::NotScreened
        };
        let waived = waived && !missing.is_empty();
        Self { outcome, hits: hits.into_iter().collect(), missing: missing.into_iter().collect(), waived, cleared: self.cleared.clone() }
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self::new()
    }
}

/// How long a screener that did not answer is left alone: half a minute, twice as long each time, at most an
/// hour.
pub fn retry_after(attempts: u32) -> Duration {
    Duration::seconds((30_i64 << attempts.clamp(1, 8).saturating_sub(1)).min(3_600))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::U256;

    use super::*;
    use crate::units::{AssetId, ChainId};

    const SOMEBODY: Address = Address::repeat_byte(0x77);

    fn clear() -> Answer {
        Answer::Screened { hits: Vec::new(), evidence: serde_json::Value::Null }
    }

    fn hit() -> Answer {
        Answer::Screened { hits: vec![SOMEBODY], evidence: serde_json::Value::Null }
    }

    fn silent() -> Answer {
        Answer::Unavailable { reason: "timeout".to_owned() }
    }

    #[test]
    fn xs_every_combination_of_answers() {
        let mut table = String::new();
        let choices = [("clear", clear()), ("hit", hit()), ("silent", silent())];
        for (list, by_list) in &choices {
            for (provider, by_provider) in &choices {
                for waived in [false, true] {
                    let answers = [(ScreenerKind::List, by_list.clone()), (ScreenerKind::Provider, by_provider.clone())];
                    let after = Standing::new().after(&answers, true, true, waived);
                    let passes = after.passes();
                    table.push_str(&format!("{list:<6} {provider:<6} {waived:<5} {:<12} {passes}\n", after.outcome.name()));
                    assert_eq!(passes, after.hits.is_empty() && (after.missing.is_empty() || waived));
                }
            }
        }
        insta::assert_snapshot!(table, @r"
        clear  clear  false clear        true
        clear  clear  true  clear        true
        clear  hit    false hit          false
        clear  hit    true  hit          false
        clear  silent false unavailable  false
        clear  silent true  unavailable  true
        hit    clear  false hit          false
        hit    clear  true  hit          false
        hit    hit    false hit          false
        hit    hit    true  hit          false
        hit    silent false hit          false
        hit    silent true  hit          false
        silent clear  false unavailable  false
        silent clear  true  unavailable  true
        silent hit    false hit          false
        silent hit    true  hit          false
        silent silent false unavailable  false
        silent silent true  unavailable  true
        ");
    }

    #[test]
    fn xs_a_hit_stays_and_a_clearance_holds_for_what_it_was_about() {
        let before = Standing::new().after(&[(ScreenerKind::List, hit())], true, true, false);
        // Taken from the list, or screening switched off: still a hit.
        for (answers, required) in [(vec![(ScreenerKind::List, clear())], true), (Vec::new(), false)] {
            let after = before.after(&answers, required, true, false);
            assert_eq!((after.outcome, after.passes()), (Outcome::Hit, false));
        }
        let cleared = Standing { cleared: before.hits.clone(), ..before };
        assert!(cleared.passes());
        assert!(cleared.after(&[(ScreenerKind::List, hit())], true, true, false).passes(), "the same hit again");
        assert!(!cleared.after(&[(ScreenerKind::Oracle, hit())], true, true, false).passes(), "somebody else says so too");
        let nobody = Standing::new().after(&[(ScreenerKind::List, clear())], true, false, false);
        assert_eq!((nobody.outcome, nobody.missing, nobody.waived), (Outcome::Unavailable, vec!["unavailable:origin".to_owned()], false));
    }

    #[test]
    fn y5_retries_become_rarer() {
        let seconds: Vec<i64> = (0..10).map(|attempts| retry_after(attempts).whole_seconds()).collect();
        assert_eq!(seconds, [30, 30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
    }

    #[test]
    fn xs_the_waiver_ends_exactly_at_its_amount() {
        let chain = ChainId::new(1).unwrap();
        let of = |asset, units| TokenAmount::new(AssetId { chain, asset }, U256::from(units));
        let token = Asset::Token(SOMEBODY);
        let waiver = Waiver { pass_below: Some("1.5".to_owned()) };
        assert!(waiver.waives(of(token, 1_499_999_u64), 6));
        assert!(!waiver.waives(of(token, 1_500_000_u64), 6));
        assert!(!waiver.waives(of(Asset::Native, 1_u64), 18), "coin is always held");
        assert!(!Waiver::default().waives(of(token, 1_u64), 6));
    }
}
