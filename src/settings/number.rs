//! Whole numbers under a key: settings of which another room knows the names, the bounds and the meaning.

use time::OffsetDateTime;

use super::ChangeNote;

/// One row of the history of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberChange {
    pub id: i64,
    pub key: String,
    pub value: i64,
    pub effective_at: OffsetDateTime,
    pub created_at: OffsetDateTime,
    pub changed_by: String,
    pub reason: String,
}

/// A change as it is asked for. Whoever asks has checked the value.
#[derive(Clone, Debug)]
pub struct NewNumber {
    pub key: String,
    pub value: i64,
    /// `None`: at once.
    pub effective_at: Option<OffsetDateTime>,
    /// What the setting is, for people who read the table.
    pub description: &'static str,
    pub note: ChangeNote,
}
