//! From the history of a gate to what one sighting must wait for, and back: was a stored verdict right?
//! Pure.

use alloy::primitives::U256;
use time::OffsetDateTime;

use super::verdict::{Bar, Case, Evidence, Verdict, decide};
use crate::settings::{Gate, History, Reached, Threshold};
use crate::units::{Asset, BlockRef, ChainId, Confirmations, Depth, TransferId};

/// What a gate looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    pub asset: Asset,
    pub units: U256,
    pub block: BlockRef,
    /// When its block was first stored, by the database's clock.
    pub first_seen_at: OffsetDateTime,
    /// The credit gate's base in force at that moment, as it was recorded with the block.
    pub recorded_history_id: i64,
}

/// What a round judges by: one gate's history, read at one instant.
#[derive(Clone, Debug)]
pub struct Rule {
    pub history: History,
    /// The instant whose values count as those of now.
    pub present: OffsetDateTime,
    pub bar: Bar,
}

/// A verdict as it is stored, with the sighting that it is about.
#[derive(Clone, Copy, Debug)]
pub struct StoredVerdict {
    pub id: i64,
    pub gate: Gate,
    pub chain: ChainId,
    pub transfer: TransferId,
    pub observation: i64,
    pub sighting: Sighting,
    pub head: BlockRef,
    pub depth: Depth,
    pub threshold: Confirmations,
    pub seen_history_id: i64,
    pub now_history_id: i64,
    pub final_block: Option<BlockRef>,
    /// The instant, and the newest row of the gate then; `None` for one from before they were kept.
    pub judged: Option<(OffsetDateTime, i64)>,
    pub confirmed_at: OffsetDateTime,
    pub revoked_at: Option<OffsetDateTime>,
}

/// Whether the history gives the verdict that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    Agrees,
    Differs { replayed: Option<Verdict> },
}

impl Rule {
    /// What counted when the block was first stored.
    pub fn seen(&self, sighting: &Sighting) -> Option<Reached> {
        let mut reached = self.history.reached(sighting.asset, sighting.units, sighting.first_seen_at)?;
        let recorded = self.history.find(sighting.recorded_history_id);
        if let Some((id, value)) = recorded.and_then(|change| Some((change.id, change.blocks?))) {
            reached.base = Threshold { history_id: id, value };
        }
        Some(reached)
    }

    /// What counts now.
    pub fn now(&self, sighting: &Sighting) -> Option<Reached> {
        self.history.reached(sighting.asset, sighting.units, self.present)
    }

    /// The sighting under a head; `None` before the gate's first row.
    pub fn case(&self, sighting: &Sighting, head: BlockRef) -> Option<Case> {
        let (seen, now) = (self.seen(sighting)?.required(), self.now(sighting)?.required());
        Some(Case { block: sighting.block, head, seen, now, bar: self.bar })
    }
}

impl StoredVerdict {
    fn verdict(&self) -> Verdict {
        Verdict::Confirmed {
            depth: self.depth,
            threshold: self.threshold,
            seen_history_id: self.seen_history_id,
            now_history_id: self.now_history_id,
            final_block: self.final_block,
        }
    }

    /// Decides again from the history as it was, under the head that is stored.
    pub fn replay(&self, history: &History) -> Replay {
        let bar = self.final_block.map_or(Bar::Depth, Bar::Final);
        let case = match self.judged {
            Some((present, head_id)) => Rule { history: history.as_of(head_id), present, bar }.case(&self.sighting, self.head),
            // Only the rows themselves are known, not the instant.
            None => {
                let row = |id| history.find(id).and_then(|change| Some(Threshold { history_id: id, value: change.blocks? }));
                row(self.seen_history_id).zip(row(self.now_history_id)).map(|(seen, now)| Case {
                    block: self.sighting.block,
                    head: self.head,
                    seen,
                    now,
                    bar,
                })
            }
        };
        let replayed = case.map(|case| decide(&case, &Evidence::agreeing(self.sighting.block)));
        if replayed == Some(self.verdict()) { Replay::Agrees } else { Replay::Differs { replayed } }
    }
}
