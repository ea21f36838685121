//! How many deposit addresses are left, and when to enrol the next account. Pure.
//!
//! An account's key is hardened, so opening the next one needs the device and an officer: whoever
//! watches must learn of it while there is time.

use super::path::{AccountIndex, AddressIndex, Branch};
use crate::units::TrezorAccountId;

/// Indices of the deposit branch of one account: 0 to 1,000,000.
const INDICES: u32 = AddressIndex::MAX + 1;
/// The last account with room is low when it has used this many of ten.
const LOW_TENTHS: u32 = 9;

/// How far an account has been issued: a row of `trezor_accounts` without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counter {
    pub id: TrezorAccountId,
    pub label: String,
    pub account: AccountIndex,
    /// Every deposit index below this one was issued.
    pub next_deposit_index: u32,
}

impl Counter {
    /// Deposit indices that can still be issued.
    pub const fn remaining(&self) -> u32 {
        INDICES.saturating_sub(self.next_deposit_index)
    }

    /// Every index of this branch below the answer was issued, and none from there on.
    pub const fn issued(&self, branch: Branch) -> u32 {
        match branch {
            Branch::Deposit => self.next_deposit_index,
            Branch::Operator => Branch::OPERATOR_INDICES,
        }
    }
}

/// Whether an officer has to enrol the next account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    Enough,
    /// One account has room, and nine tenths of it are used.
    Low,
    /// No account has room: nothing can be issued.
    None,
}

/// What all enrolled accounts can still issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub room: Room,
    pub remaining: u64,
    /// The account to enrol next; `None` when account 100 is in use.
    pub next: Option<AccountIndex>,
}

impl Capacity {
    pub fn of(counters: &[Counter]) -> Self {
        let with_room: Vec<u32> = counters.iter().map(Counter::remaining).filter(|remaining| *remaining > 0).collect();
        let room = match with_room.as_slice() {
            [] => Room::None,
            [last] if INDICES - last >= (INDICES * LOW_TENTHS).div_ceil(10) => Room::Low,
            _ => Room::Enough,
        };
        let highest = counters.iter().map(|counter| counter.account).max();
        Self {
            room,
            remaining: with_room.into_iter().map(u64::from).sum(),
            next: highest.map_or(AccountIndex::new(0), |highest| AccountIndex::new(highest.get() + 1)),
        }
    }

    /// What an officer has to do, for logs and lists.
    pub fn advice(&self) -> String {
        format!("{} deposit addresses are left in all accounts; {}", self.remaining, remedy(self.next))
    }
}

/// How claiming goes on when no account has room.
pub(super) fn remedy(next: Option<AccountIndex>) -> String {
    match next {
        Some(next) => format!("connect the Trezor and run `amanatd account add --account {next} --label NAME`"),
        None => "account 100 is in use: set up another seed and run `amanatd account add --account 0 --label NAME`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn counter(account: u32, next_deposit_index: u32) -> Counter {
        let id = TrezorAccountId(Uuid::from_u128(account.into()));
        Counter { id, label: format!("a{account}"), account: AccountIndex::new(account).unwrap(), next_deposit_index }
    }

    #[test]
    fn d1_the_last_account_with_room_is_low_at_nine_tenths() {
        for (used, room, remaining) in [
            (&[][..], Room::None, 0),
            (&[0], Room::Enough, 1_000_001),
            (&[900_000], Room::Enough, 100_001),
            (&[900_001], Room::Low, 100_000),
            (&[1_000_000], Room::Low, 1),
            (&[1_000_001], Room::None, 0),
            (&[1_000_000, 0], Room::Enough, 1_000_002),
            (&[1_000_000, 1_000_000], Room::Enough, 2),
            (&[1_000_001, 900_000], Room::Enough, 100_001),
            (&[1_000_001, 900_001], Room::Low, 100_000),
            (&[1_000_001, 1_000_001], Room::None, 0),
        ] {
            let counters: Vec<Counter> = (0..).zip(used).map(|(account, used)| counter(account, *used)).collect();
            let capacity = Capacity::of(&counters);
            assert_eq!((capacity.room, capacity.remaining), (room, remaining), "{used:?}");
            assert_eq!(capacity.next.map(AccountIndex::get), Some(u32::try_from(used.len()).unwrap()), "{used:?}");
        }
        assert_eq!(Capacity::of(&[counter(100, 5)]).next, None, "the device signs for no account above 100");
    }
}
