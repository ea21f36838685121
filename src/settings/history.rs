//! Which rows of the history are in force at an instant, pure.

use std::collections::BTreeSet;

use alloy::primitives::U256;
use time::OffsetDateTime;

use super::threshold::{Gate, Threshold, ThresholdKey};
use crate::units::{Asset, ChainId, Confirmations};

/// One row of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub id: i64,
    pub key: ThresholdKey,
    /// What it replaces; `None` where nothing was, or a tier was off.
    pub old_blocks: Option<Confirmations>,
    /// `None`: the tier is off.
    pub blocks: Option<Confirmations>,
    pub effective_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub changed_by: String,
    pub reason: String,
}

/// All changes of one gate of one chain.
#[derive(Clone, Debug)]
pub struct History {
    pub gate: Gate,
    pub chain: ChainId,
    /// In the order of their ids.
    changes: Vec<Change>,
    /// The database's clock when this was read.
    read_at: OffsetDateTime,
}

/// What an amount must wait for: the base, and every tier that it reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub base: Threshold,
    /// Smallest tier first.
    pub tiers: Vec<(ThresholdKey, Threshold)>,
}

impl Reached {
    /// The largest of them. Among equals it is the base, then the smaller tier.
    pub fn required(&self) -> Threshold {
        self.tiers.iter().fold(self.base, |largest, (_, tier)| if tier.value > largest.value { *tier } else { largest })
    }
}

impl History {
    /// Changes of one gate of one chain, in any order.
    pub fn new(gate: Gate, chain: ChainId, mut changes: Vec<Change>, read_at: OffsetDateTime) -> Self {
        changes.retain(|change| change.key.gate == gate && change.key.chain == chain);
        changes.sort_by_key(|change| change.id);
        Self { gate, chain, changes, read_at }
    }

    /// The newest row; `None` before the first.
    pub fn head_id(&self) -> Option<i64> {
        self.changes.last().map(|change| change.id)
    }

    /// The history as it was when this row was its newest.
    #[must_use]
    pub fn as_of(&self, head_id: i64) -> Self {
        let changes = self.changes.iter().filter(|change| change.id <= head_id).cloned().collect();
        Self { changes, ..self.clone() }
    }

    pub fn find(&self, id: i64) -> Option<&Change> {
        self.changes.iter().find(|change| change.id == id)
    }

    /// All rows, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev()
    }

    /// The present, by whichever clock is furthest: ours, the database's, or the one that dated the newest
    /// row. A clock that went back never takes back a change that was in force.
    pub fn present(&self, now: OffsetDateTime) -> OffsetDateTime {
        self.changes.iter().map(|change| change.created_at).fold(now.max(self.read_at), OffsetDateTime::max)
    }

    /// The newest row of a key that has taken effect.
    pub fn in_force(&self, key: &ThresholdKey, at: OffsetDateTime) -> Option<&Change> {
        self.changes.iter().rev().find(|change| change.key == *key && change.effective_at <= at)
    }

    /// The base in force. What came before the first row of a gate is judged by that row: a gate that was
    /// introduced later also holds for what was there.
    pub fn base(&self, at: OffsetDateTime) -> Option<Threshold> {
        let key = ThresholdKey::base(self.gate, self.chain);
        let change = self.in_force(&key, at).or_else(|| self.changes.iter().find(|change| change.key == key))?;
        change.blocks.map(|value| Threshold { history_id: change.id, value })
    }

    /// What an amount must wait for at an instant; `None` before the gate's first row.
    pub fn reached(&self, asset: Asset, units: U256, at: OffsetDateTime) -> Option<Reached> {
        let base = self.base(at)?;
        let tiers = self
            .keys()
            .into_iter()
            .filter(|key| key.tier.is_some_and(|tier| tier.reached_by(asset, units)))
            .filter_map(|key| {
                let change = self.in_force(&key, at)?;
                Some((key, Threshold { history_id: change.id, value: change.blocks? }))
            })
            .collect();
        Some(Reached { base, tiers })
    }

    /// The base, then the tiers by asset and amount.
    fn keys(&self) -> BTreeSet<ThresholdKey> {
        self.changes.iter().map(|change| change.key).collect()
    }

    /// What is in force, and not switched off: the base, then the tiers.
    pub fn standing(&self, at: OffsetDateTime) -> Vec<&Change> {
        self.keys().iter().filter_map(|key| self.in_force(key, at)).filter(|change| change.blocks.is_some()).collect()
    }

    /// What will take effect after an instant, soonest first. A row that a newer one of its key overtakes
    /// before its instant never takes effect and is not among them.
    pub fn coming(&self, at: OffsetDateTime) -> Vec<&Change> {
        let mut coming: Vec<&Change> = self
            .changes
            .iter()
            .filter(|change| change.effective_at > at)
            .filter(|change| self.in_force(&change.key, change.effective_at).is_some_and(|newest| newest.id == change.id))
            .collect();
        coming.sort_by_key(|change| (change.effective_at, change.id));
        coming
    }
}

#[cfg(test)]
mod tests {
    use super::super::threshold::Tier;
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    const T0: OffsetDateTime = datetime!(2027-01-01 00:00 UTC);
    const CHAIN: ChainId = ChainId::new(1).unwrap();

    /// id, tier (units; 0 is the base), blocks (0 is off), seconds after T0 at which it takes effect. Written
    /// one second after another.
    fn history(rows: &[(i64, u64, i64, i64)]) -> History {
        let changes = rows.iter().map(|(id, units, blocks, effective)| {
            let tier = Tier::new(Asset::Native, U256::from(*units)).ok();
            Change {
                id: *id,
                key: ThresholdKey { gate: Gate::Credit, chain: CHAIN, tier },
                old_blocks: None,
                blocks: Confirmations::new(*blocks).ok(),
                effective_at: T0 + Duration::seconds(*effective),
                created_at: T0 + Duration::seconds(*id),
                changed_by: "test".to_owned(),
                reason: "test".to_owned(),
            }
        });
        History::new(Gate::Credit, CHAIN, changes.collect(), T0)
    }

    fn required(history: &History, units: u64, seconds: i64) -> (i64, u32) {
        let reached = history.reached(Asset::Native, U256::from(units), T0 + Duration::seconds(seconds)).unwrap();
        (reached.required().history_id, reached.required().value.get())
    }

    #[test]
    fn w3_the_newest_row_that_has_taken_effect_is_in_force() {
        let rows = history(&[(1, 0, 3, 1), (2, 0, 9, 100), (3, 0, 5, 50)]);
        assert_eq!(required(&rows, 1, 0), (1, 3), "before the first row, the first row");
        assert_eq!(required(&rows, 1, 49), (1, 3));
        assert_eq!(required(&rows, 1, 50), (3, 5), "exactly at its instant");
        assert_eq!(required(&rows, 1, 100), (3, 5), "an older row that is due later is overtaken");
        assert!(rows.coming(T0).iter().map(|change| change.id).eq([1, 3]));
        assert!(rows.coming(T0 + Duration::seconds(50)).is_empty());
        assert_eq!(required(&rows.as_of(2), 1, 100), (2, 9), "as it was before row 3 was written");
        assert!(history(&[]).reached(Asset::Native, U256::ONE, T0).is_none());
    }

    #[test]
    fn w3_the_largest_of_all_tiers_that_the_amount_reaches_counts() {
        let rows = history(&[(1, 0, 3, 1), (2, 100, 6, 2), (3, 1_000, 5, 3), (4, 10_000, 40, 4), (5, 10_000, 0, 60)]);
        assert_eq!(required(&rows, 99, 10), (1, 3), "one unit below");
        assert_eq!(required(&rows, 100, 10), (2, 6), "exactly at it");
        assert_eq!(required(&rows, 1_000, 10), (2, 6), "a smaller tier may ask for more");
        assert_eq!(required(&rows, 9_999, 10), (2, 6));
        assert_eq!(required(&rows, 10_000, 10), (4, 40));
        assert_eq!(required(&rows, 10_000, 59), (4, 40));
        assert_eq!(required(&rows, 10_000, 60), (2, 6), "switched off");
        let token = Asset::Token(alloy::primitives::Address::repeat_byte(7));
        let other = rows.reached(token, U256::MAX, T0 + Duration::seconds(10)).unwrap();
        assert_eq!(other.required().history_id, 1, "another asset reaches no tier of this one");
        assert!(rows.standing(T0 + Duration::seconds(60)).iter().map(|change| change.id).eq([1, 2, 3]));
    }

    #[test]
    fn w3_f10_a_clock_that_goes_back_takes_no_change_back() {
        let rows = history(&[(1, 0, 3, 1), (20, 0, 9, 20)]);
        let present = rows.present(T0 - Duration::days(10));
        assert_eq!(rows.in_force(&ThresholdKey::base(Gate::Credit, CHAIN), present).map(|change| change.id), Some(20));
    }
}
