//! Runtime settings with history: how many blocks each gate of a chain asks for.
//!
//! Two gates per chain. `credit` lets money count, `release` lets it leave again. Each has a base and, per
//! asset, tiers: from so many base units on, so many blocks. A change takes effect at an instant that is
//! never before it was written; what is in force at an instant is the newest row that has taken effect by
//! then. Whoever acts on a value stores that row's id. Raising takes one person and acts at once; lowering takes
//! two officers and a day.

mod history;
mod lowering;
mod number;
mod payment_default;
pub mod store;
mod threshold;

pub use history::{Change, History, Reached};
pub use lowering::{LOWERING_DELAY, Lowering, Outcome};
pub use number::{NewNumber, NumberChange};
pub use payment_default::{PaymentDefault, PaymentDefaults};
pub use threshold::{Gate, ParseThresholdError, Threshold, ThresholdKey, Tier};

use time::OffsetDateTime;

use crate::db::DbError;
use crate::officer::OfficerError;
use crate::units::{Confirmations, Disposition, ProposalId, UserId};

/// The channel on which the database knocks when a setting was changed. What changed is read, not told.
pub const CHANGED: &str = "amanat_settings";

/// Who changes a setting, and why: both go into the history for ever.
#[derive(Clone, Debug)]
pub struct ChangeNote {
    /// 1 to 200 characters.
    pub changed_by: String,
    /// The officer, where one is known.
    pub user: Option<UserId>,
    /// 1 to 500 characters.
    pub reason: String,
}

/// A change as it is asked for.
#[derive(Clone, Debug)]
pub struct NewChange {
    pub key: ThresholdKey,
    /// `None` switches a tier off.
    pub blocks: Option<Confirmations>,
    /// `None`: at once.
    pub effective_at: Option<OffsetDateTime>,
    pub note: ChangeNote,
}

/// How far behind the database's clock an instant may be and still mean "at once".
pub const SKEW_MAX: time::Duration = time::Duration::seconds(60);

/// Why a change was refused. Nothing of a refused change is stored.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("takes effect at {asked}, and it is {now}; a change may not be dated back, leave the instant out to change it at once")]
    Past { asked: OffsetDateTime, now: OffsetDateTime },
    #[error("{0} cannot be switched off; set it to 1 or more blocks")]
    BaseOff(ThresholdKey),
    #[error("{0} is not set yet, and a tier stands on it; start the daemon once or set it first")]
    NoBase(ThresholdKey),
    #[error("there is no tier {0} to switch off; `amanatd threshold list` shows those there are")]
    NoTier(ThresholdKey),
    #[error(transparent)]
    Officer(#[from] OfficerError),
    #[error(
        "{key} would fall from {from} to {to}: that takes two officers and {hours} hours; propose it with an officer's token, and another confirms it",
        from = .from, to = blocks(*.to), hours = LOWERING_DELAY.whole_hours()
    )]
    Lowers { key: ThresholdKey, from: Confirmations, to: Option<Confirmations> },
    #[error("proposal {0} is no threshold that this version reads")]
    Proposal(ProposalId),
    #[error("{which} is 0 to {}, not {value}", which.largest())]
    Bounds { which: PaymentDefault, value: i64 },
    #[error("{field} has {found} characters; give it 1 to {max}")]
    Length { field: &'static str, found: usize, max: usize },
}

impl SettingsError {
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Db(error) => error.disposition(),
            Self::Officer(error) => error.disposition(),
            Self::Proposal(_) => Disposition::Officer,
            Self::Lowers { .. }
            | Self::Past { .. }
            | Self::BaseOff(_)
            | Self::NoBase(_)
            | Self::NoTier(_)
            | Self::Bounds { .. }
            | Self::Length { .. } => Disposition::Skip,
        }
    }
}

fn blocks(blocks: Option<Confirmations>) -> String {
    blocks.map_or_else(|| "off".to_owned(), |blocks| blocks.to_string())
}

impl ChangeNote {
    /// Refuses what the table would refuse, by the field's name.
    pub fn check(&self) -> Result<(), SettingsError> {
        for (field, text, max) in [("by", &self.changed_by, 200), ("reason", &self.reason, 500)] {
            let found = text.chars().count();
            if !(1..=max).contains(&found) {
                return Err(SettingsError::Length { field, found, max });
            }
        }
        Ok(())
    }
}
