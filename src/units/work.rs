//! What a worker says after a tick, and what every error must answer: who acts next.

/// Whether a tick found something to do. After work, the next tick follows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Idle,
    Worked,
}

impl Progress {
    pub const fn of(worked: bool) -> Self {
        if worked { Self::Worked } else { Self::Idle }
    }

    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Idle, Self::Idle) => Self::Idle,
            (Self::Worked, _) | (_, Self::Worked) => Self::Worked,
        }
    }
}

/// What happens after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The world may mend itself: try the tick again after a pause.
    Retry,
    /// This one item is at fault: leave it, go on with the others.
    Skip,
    /// A person must decide; watching goes on.
    Officer,
    /// Going on would risk money: end the process.
    Stop,
}
