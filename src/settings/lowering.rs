//! What a change makes easier, and so takes two officers and a day. Pure.

use time::{Duration, OffsetDateTime};

use super::NewChange;
use super::history::{Change, History};
use super::threshold::ThresholdKey;
use crate::officer::proposal::Proposal;
use crate::units::Confirmations;

/// From the confirmation of a lower threshold until it takes effect: time to notice, and to set the old one again.
pub const LOWERING_DELAY: Duration = Duration::hours(24);

/// What became of a change that an officer asked for.
#[derive(Clone, Debug)]
pub enum Outcome {
    Set(Change),
    Proposed(Box<Proposal>),
}

/// A lower threshold as it is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowering {
    pub key: ThresholdKey,
    /// `None`: the tier is off.
    pub blocks: Option<Confirmations>,
}

impl Lowering {
    /// The text that two officers decide about.
    pub fn canonical(&self) -> String {
        serde_json::json!({ "key": self.key.to_string(), "blocks": self.blocks.map(Confirmations::get) }).to_string()
    }

    pub fn from_canonical(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let key = value.get("key")?.as_str()?.parse().ok()?;
        let blocks = match value.get("blocks")? {
            serde_json::Value::Null => None,
            blocks => Some(Confirmations::new(blocks.as_i64()?).ok()?),
        };
        Some(Self { key, blocks })
    }
}

/// The value from which a change would lower its key, at its instant or at any later one: a newer row also
/// overtakes those that are dated after it. `None` if it lowers nothing. A key without a value is not lowered.
pub(super) fn lowers(history: &History, change: &NewChange, now: OffsetDateTime) -> Option<Confirmations> {
    let at = change.effective_at.map_or(now, |asked| asked.max(now));
    let coming = history.coming(at).into_iter().filter(|coming| coming.key == change.key);
    let stands = history.in_force(&change.key, at).into_iter().chain(coming).filter_map(|row| row.blocks).max()?;
    change.blocks.is_none_or(|blocks| blocks < stands).then_some(stands)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::threshold::{Gate, Tier};
    use super::super::{Change, ChangeNote};
    use super::*;
    use crate::units::{Asset, ChainId};

    const T0: OffsetDateTime = datetime!(2027-01-01 00:00 UTC);
    const CHAIN: ChainId = ChainId::new(1).unwrap();

    fn row(id: i64, key: ThresholdKey, blocks: i64, hours: i64) -> Change {
        Change {
            id,
            key,
            old_blocks: None,
            blocks: Confirmations::new(blocks).ok(),
            effective_at: T0 + Duration::hours(hours),
            created_at: T0,
            changed_by: "test".to_owned(),
            reason: "test".to_owned(),
        }
    }

    #[test]
    fn w3_what_lowers_a_threshold() {
        let base = ThresholdKey::base(Gate::Credit, CHAIN);
        let tier = ThresholdKey { tier: Some(Tier::new(Asset::Native, alloy::primitives::U256::from(5)).unwrap()), ..base };
        // 12 now, 20 in ten hours; the tier asks for 40.
        let history = History::new(Gate::Credit, CHAIN, vec![row(1, base, 12, 0), row(2, base, 20, 10), row(3, tier, 40, 0)], T0);
        let lowers = |key, blocks: Option<i64>, hours: Option<i64>| {
            let blocks = blocks.map(|blocks| Confirmations::new(blocks).unwrap());
            let effective_at = hours.map(|hours| T0 + Duration::hours(hours));
            let note = ChangeNote { changed_by: "test".to_owned(), user: None, reason: "test".to_owned() };
            let change = NewChange { key, blocks, effective_at, note };
            super::lowers(&history, &change, T0 + Duration::SECOND).map(Confirmations::get)
        };
        assert_eq!(lowers(base, Some(20), None), None);
        assert_eq!(lowers(base, Some(19), None), Some(20), "it overtakes the 20 that is coming");
        assert_eq!(lowers(base, Some(11), None), Some(20));
        assert_eq!(lowers(base, Some(19), Some(11)), Some(20));
        assert_eq!(lowers(base, Some(20), Some(11)), None);
        assert_eq!(lowers(tier, Some(39), None), Some(40));
        assert_eq!(lowers(tier, None, None), Some(40), "switching a tier off lowers it");
        let other = ThresholdKey { tier: Some(Tier::new(Asset::Native, alloy::primitives::U256::from(6)).unwrap()), ..base };
        assert_eq!(lowers(other, Some(1), None), None, "a new tier only adds");
        assert_eq!(lowers(ThresholdKey::base(Gate::Credit, ChainId::new(5).unwrap()), Some(1), None), None);
    }

    #[test]
    fn w3_a_proposed_threshold_is_read_back() {
        let key = ThresholdKey::base(Gate::Release, CHAIN);
        for blocks in [None, Some(Confirmations::new(7).unwrap())] {
            let lowering = Lowering { key, blocks };
            assert_eq!(Lowering::from_canonical(&lowering.canonical()), Some(lowering));
        }
        for bad in
            ["", "{}", r#"{"key":"x","blocks":1}"#, r#"{"key":"release_threshold:1","blocks":0}"#, r#"{"key":"release_threshold:1"}"#]
        {
            assert_eq!(Lowering::from_canonical(bad), None, "{bad}");
        }
    }
}
