//! How many calls one caller may make: a bucket that fills at a steady rate, for each token, and for each remote
//! address that shows none. What is kept of a bucket is one instant: when it will be full again (GCRA). Time is an
//! argument. A restart forgets all buckets.
//!
//! Tokens never pay for what others at their address do, so a station behind the same proxy as a stranger is not
//! shut out.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use time::OffsetDateTime;

use crate::units::ApiTokenId;

/// A steady rate, and how far a caller may run ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub per_second: u32,
    /// Calls that a rested caller may make at once.
    pub burst: u32,
}

impl Rate {
    pub const TOKEN: Self = Self { per_second: 100, burst: 1_000 };
    pub const ADDRESS: Self = Self { per_second: 20, burst: 500 };
    /// A person needs a few tries; whoever guesses gets one a second.
    pub const ENTRY: Self = Self { per_second: 1, burst: 30 };

    fn step_nanos(self) -> i128 {
        NANOS / i128::from(self.per_second.max(1))
    }

    /// How long an empty bucket takes to be full.
    fn depth_nanos(self) -> i128 {
        self.step_nanos() * i128::from(self.burst.max(1))
    }
}

const NANOS: i128 = 1_000_000_000;
/// Past this many, buckets that are full again are forgotten; a bucket that is not cannot be.
const BUCKETS_SWEPT_AT: usize = 10_000;

/// Buckets of all callers.
#[derive(Debug)]
pub(super) struct Limiter {
    tokens: Buckets<ApiTokenId>,
    addresses: Buckets<IpAddr>,
    entries: Buckets<IpAddr>,
}

impl Limiter {
    pub(super) fn new(token: Rate, address: Rate, entry: Rate) -> Self {
        Self { tokens: Buckets::new(token), addresses: Buckets::new(address), entries: Buckets::new(entry) }
    }

    /// Takes one call; refused with the whole seconds until there is another.
    pub(super) fn take_token(&self, token: ApiTokenId, now: OffsetDateTime) -> Result<(), u64> {
        self.tokens.take(token, now)
    }

    pub(super) fn take_address(&self, address: IpAddr, now: OffsetDateTime) -> Result<(), u64> {
        self.addresses.take(network(address), now)
    }

    pub(super) fn take_entry(&self, address: IpAddr, now: OffsetDateTime) -> Result<(), u64> {
        self.entries.take(network(address), now)
    }

    /// Calls refused since the start: with a token, and without, at the console's door too.
    pub(super) fn refused(&self) -> (u64, u64) {
        let [tokens, addresses, entries] =
            [&self.tokens.refused, &self.addresses.refused, &self.entries.refused].map(|refused| refused.load(Ordering::Relaxed));
        (tokens, addresses + entries)
    }
}

/// Whoever has an IPv6 address has all 2^64 of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    full_at: Mutex<HashMap<K, i128>>,
    refused: AtomicU64,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: Mutex::default(), refused: AtomicU64::new(0) }
    }

    fn take(&self, key: K, now: OffsetDateTime) -> Result<(), u64> {
        let now = now.unix_timestamp_nanos();
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= BUCKETS_SWEPT_AT {
            all.retain(|_, full_at| *full_at > now);
        }
        let full_at = all.entry(key).or_insert(now);
        // A clock that was set back must not shut anybody out for longer than an empty bucket does.
        *full_at = (*full_at).clamp(now, now + self.rate.depth_nanos());
        match taken(self.rate, *full_at, now) {
            Ok(next) => {
                *full_at = next;
                Ok(())
            }
            Err(seconds) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(seconds)
            }
        }
    }
}

/// When the bucket is full again after one more call at `now`, or how many seconds there is none.
fn taken(rate: Rate, full_at: i128, now: i128) -> Result<i128, u64> {
    let next = full_at + rate.step_nanos();
    let early = next - rate.depth_nanos() - now;
    if early <= 0 { Ok(next) } else { Err(u64::try_from((early + NANOS - 1) / NANOS).unwrap_or(u64::MAX)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 2, burst: 3 };

    fn at(millis: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(1_000_000 + millis)
    }

    #[test]
    fn z9_a_burst_is_taken_at_once_and_then_the_rate_holds() {
        let buckets = Buckets::new(RATE);
        let take = |millis| buckets.take("a", at(millis));
        assert_eq!([take(0), take(0), take(0), take(0)], [Ok(()), Ok(()), Ok(()), Err(1)]);
        assert_eq!([take(499), take(500), take(500)], [Err(1), Ok(()), Err(1)]);
        // A refused call costs nothing, and rest fills the bucket to the burst and no further.
        let rested: Vec<bool> = (0..5).map(|_| take(60_000).is_ok()).collect();
        assert_eq!(rested, [true, true, true, false, false]);
        assert_eq!(buckets.take("b", at(60_000)), Ok(()), "another caller's bucket is its own");
        assert_eq!(buckets.refused.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn z9_a_clock_set_back_shuts_nobody_out() {
        let buckets = Buckets::new(RATE);
        for _ in 0..3 {
            buckets.take("a", at(3_600_000)).unwrap();
        }
        assert_eq!(buckets.take("a", at(0)), Err(1));
        assert_eq!(buckets.take("a", at(500)), Ok(()));
    }

    #[test]
    fn z9_full_buckets_are_forgotten_and_others_are_not() {
        let buckets = Buckets::new(RATE);
        for key in 0..BUCKETS_SWEPT_AT {
            buckets.take(key, at(0)).unwrap();
        }
        for _ in 0..3 {
            let _ = buckets.take(7, at(900));
        }
        buckets.take(BUCKETS_SWEPT_AT, at(1_000)).unwrap();
        assert_eq!(buckets.full_at.lock().unwrap().len(), 2);
        assert!(buckets.take(7, at(1_000)).is_err());
    }

    #[test]
    fn z9_an_address_is_its_network() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
