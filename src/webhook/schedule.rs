//! When a delivery is tried again, and when no more. Pure.

use time::{Duration, OffsetDateTime};

/// Pauses after each failed attempt, in seconds: 10 s, 30 s, 2 min, 5 min, 15 min, 30 min, 1 h, 2 h, 4 h, 8 h, 12 h,
/// and twice 24 h. About 76 hours in all: a receiver may be away over a long week-end.
const PAUSES: [i64; 13] = [10, 30, 120, 300, 900, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400, 86_400];
/// No receiver can ask for a longer rest than the longest pause.
const REST_MAX: Duration = Duration::hours(24);
/// Each pause is this much shorter or longer, so that what failed together does not come back together.
const JITTER_PERCENT: i64 = 10;

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 2xx.
    Taken,
    /// 410: the receiver wants no more.
    Gone,
    /// Any other answer, and for how long the receiver asks to be left alone.
    Refused { status: u16, retry_after: Option<Duration> },
    /// No answer, or none in time.
    Unreachable(String),
    /// The address is one that webhooks may not reach.
    Forbidden(String),
}

/// What becomes of the delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Delivered,
    Retry {
        at: OffsetDateTime,
    },
    Dead,
    /// The endpoint is disabled, and the delivery waits with all others of it.
    DisableEndpoint,
}

impl Outcome {
    /// What the log of attempts says.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Taken => "taken".to_owned(),
            Self::Gone => "answered 410: the receiver wants no more".to_owned(),
            Self::Refused { status, retry_after: None } if (300..400).contains(status) => {
                format!("answered {status}: redirects are not followed")
            }
            Self::Refused { status, retry_after: None } => format!("answered {status}"),
            Self::Refused { status, retry_after: Some(rest) } => format!("answered {status}, not before {} s", rest.whole_seconds()),
            Self::Unreachable(why) => format!("no answer: {why}"),
            Self::Forbidden(why) => format!("not sent: {why}"),
        }
    }

    /// Whether the receiver is in trouble rather than of another opinion: then all that is for it rests a while.
    pub(super) const fn is_trouble(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Refused { status: 429 | 502 | 503 | 504, .. } => true,
            Self::Taken | Self::Gone | Self::Refused { .. } | Self::Forbidden(_) => false,
        }
    }
}

/// `attempts` counts this one; `random` is any number, for the jitter.
pub(super) fn next(outcome: &Outcome, attempts: u32, now: OffsetDateTime, random: u16) -> Next {
    let asked = match outcome {
        Outcome::Taken => return Next::Delivered,
        Outcome::Gone => return Next::DisableEndpoint,
        Outcome::Refused { retry_after, .. } => retry_after.unwrap_or(Duration::ZERO).clamp(Duration::ZERO, REST_MAX),
        Outcome::Unreachable(_) | Outcome::Forbidden(_) => Duration::ZERO,
    };
    let place = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(pause) = PAUSES.get(place) else { return Next::Dead };
    let spread = pause * JITTER_PERCENT * (i64::from(random) * 2 - i64::from(u16::MAX)) / (100 * i64::from(u16::MAX));
    Next::Retry { at: now + Duration::seconds(pause + spread).max(asked) }
}

/// Reads `Retry-After`: seconds, or a date of HTTP. `None` for anything else.
pub(super) fn retry_after(text: &str, now: OffsetDateTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u32>() {
        return Some(Duration::seconds(i64::from(seconds)));
    }
    let at = OffsetDateTime::parse(text.trim(), &time::format_description::well_known::Rfc2822).ok()?;
    Some((at - now).max(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2027-01-15 12:00 UTC);

    fn refused(status: u16, retry_after: Option<i64>) -> Outcome {
        Outcome::Refused { status, retry_after: retry_after.map(Duration::seconds) }
    }

    #[test]
    fn y6_every_failed_attempt_has_its_pause_until_the_last() {
        let away = Outcome::Unreachable("connection refused".to_owned());
        let mut whole = Duration::ZERO;
        for attempts in 1..=13 {
            // In the middle of its range, which no odd number is exactly.
            let Next::Retry { at } = next(&away, attempts, NOW, u16::MAX / 2) else { panic!("attempt {attempts} is not the last") };
            whole += at - NOW;
        }
        assert!((Duration::hours(75)..Duration::hours(77)).contains(&whole), "{whole}");
        assert_eq!(next(&away, 14, NOW, 0), Next::Dead);
        assert_eq!(next(&refused(404, None), 14, NOW, 0), Next::Dead);
    }

    #[test]
    fn y6_only_2xx_is_taken_and_410_ends_the_endpoint() {
        assert_eq!(next(&Outcome::Taken, 14, NOW, 0), Next::Delivered);
        assert_eq!(next(&Outcome::Gone, 1, NOW, 0), Next::DisableEndpoint);
        assert!(matches!(next(&refused(302, None), 1, NOW, 0), Next::Retry { .. }));
        assert!(matches!(next(&Outcome::Forbidden("private".to_owned()), 1, NOW, 0), Next::Retry { .. }));
    }

    #[test]
    fn a_receiver_may_ask_for_rest_and_not_for_ever() {
        let at = |outcome: &Outcome| match next(outcome, 1, NOW, 0) {
            Next::Retry { at } => at - NOW,
            other => panic!("{other:?}"),
        };
        assert_eq!(at(&refused(429, Some(60))), Duration::seconds(60));
        assert_eq!(at(&refused(503, Some(1))), Duration::seconds(9), "its own pause is longer");
        assert_eq!(at(&refused(503, Some(1_000_000))), Duration::hours(24));
        assert_eq!(retry_after("120", NOW), Some(Duration::seconds(120)));
        assert_eq!(retry_after("Fri, 15 Jan 2027 12:01:00 GMT", NOW), Some(Duration::seconds(60)));
        assert_eq!(retry_after("Fri, 15 Jan 2027 11:00:00 GMT", NOW), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", NOW), None);
        assert_eq!(retry_after("-5", NOW), None);
    }

    proptest! {
        #[test]
        fn pauses_stay_within_a_tenth(attempts in 1_u32..=13, random: u16) {
            let pause = PAUSES[usize::try_from(attempts).unwrap() - 1];
            let Next::Retry { at } = next(&refused(500, None), attempts, NOW, random) else { panic!("not the last") };
            let seconds = (at - NOW).whole_seconds();
            prop_assert!((pause - pause / 10..=pause + pause / 10).contains(&seconds), "{seconds} of {pause}");
        }
    }
}
