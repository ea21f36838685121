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

/// How often a tick meets a world that may mend itself before it stops asking.
const RETRIES_MAX: u32 = 3;

/// The outcomes of a tick over many items. One item at fault holds no other up; a node or a database
/// that is away is not asked for each of them.
#[derive(Debug)]
pub struct Outcomes<E> {
    progress: Progress,
    first: Option<E>,
    retries: u32,
}

impl<E> Outcomes<E> {
    pub const fn new() -> Self {
        Self { progress: Progress::Idle, first: None, retries: 0 }
    }

    /// Notes one outcome; `false` when it is no use to go on.
    #[must_use]
    pub fn note(&mut self, outcome: Result<Progress, E>, disposition: fn(&E) -> Disposition) -> bool {
        match outcome {
            Ok(progress) => self.progress = self.progress.or(progress),
            Err(error) => {
                let stop = match disposition(&error) {
                    Disposition::Retry => {
                        self.retries += 1;
                        self.retries == RETRIES_MAX
                    }
                    Disposition::Skip | Disposition::Officer => false,
                    Disposition::Stop => true,
                };
                if stop || self.first.is_none() {
                    self.first = Some(error);
                }
                return !stop;
            }
        }
        true
    }

    /// The progress, or what stands in the way of it.
    pub fn finish(self) -> Result<Progress, E> {
        self.first.map_or(Ok(self.progress), Err)
    }
}

impl<E> Default for Outcomes<E> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k7_one_item_at_fault_holds_no_other_up() {
        let run = |items: &[Result<Progress, Disposition>]| {
            let mut outcomes = Outcomes::new();
            let seen = items.iter().take_while(|item| outcomes.note(**item, |error| *error)).count();
            (seen, outcomes.finish())
        };
        let (skip, officer, retry, stop) =
            (Err(Disposition::Skip), Err(Disposition::Officer), Err(Disposition::Retry), Err(Disposition::Stop));
        let (idle, worked) = (Ok(Progress::Idle), Ok(Progress::Worked));
        assert_eq!(run(&[idle, worked, idle]), (3, worked));
        assert_eq!(run(&[skip, officer, skip, worked, skip]), (5, skip));
        assert_eq!(run(&[retry, worked, retry, retry, worked]), (3, retry));
        assert_eq!(run(&[skip, stop, worked]), (1, stop));
    }
}
