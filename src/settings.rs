//! Runtime settings with history. The newest history row of a key is the value in force, and whoever
//! acts on a value stores that row's id.

pub mod store;

use crate::units::{ChainId, Confirmations};

/// The confirmation threshold of a chain and the history row it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    pub history_id: i64,
    pub value: Confirmations,
}

/// The settings key of a chain's confirmation threshold.
pub fn threshold_key(chain: ChainId) -> String {
    format!("confirmation_threshold:{chain}")
}

/// Who changes a setting, and why: both go into the history for ever.
#[derive(Clone, Debug)]
pub struct ChangeNote {
    pub changed_by: String,
    pub reason: String,
}
