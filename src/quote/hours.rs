//! The hours of the foreign exchange markets: from Sunday 18:00 to Friday 17:00 in New York, as Chainlink's
//! feeds keep them. Holidays are not known here: a feed that rests on one is stale by its age.

use time::{Date, Duration, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset, Weekday};

/// Whether the market is open.
pub fn is_open(now: OffsetDateTime) -> bool {
    let local = in_new_york(now);
    match local.weekday() {
        Weekday::Saturday => false,
        Weekday::Sunday => local.hour() >= 18,
        Weekday::Friday => local.hour() < 17,
        Weekday::Monday | Weekday::Tuesday | Weekday::Wednesday | Weekday::Thursday => true,
    }
}

/// When a closed market opens; `now` for one that is open.
pub fn opens_at(now: OffsetDateTime) -> OffsetDateTime {
    if is_open(now) {
        return now;
    }
    let local = in_new_york(now);
    let days = 7 - i64::from(local.weekday().number_days_from_sunday());
    let sunday = local.date() + Duration::days(if days == 7 { 0 } else { days });
    let wall = PrimitiveDateTime::new(sunday, Time::MIDNIGHT + Duration::hours(18));
    let summer = wall.assume_offset(SUMMER);
    if in_new_york(summer).offset() == SUMMER { summer } else { wall.assume_offset(WINTER) }.to_offset(UtcOffset::UTC)
}

const SUMMER: UtcOffset = time::macros::offset!(-4);
const WINTER: UtcOffset = time::macros::offset!(-5);

/// By the rule in force since 2007: summer time from the second Sunday of March, 2:00, to the first Sunday
/// of November, 2:00.
fn in_new_york(now: OffsetDateTime) -> OffsetDateTime {
    let year = now.to_offset(WINTER).year();
    let begins =
        sunday(year, Month::March, 2).map(|date| PrimitiveDateTime::new(date, Time::MIDNIGHT + Duration::hours(2)).assume_offset(WINTER));
    let ends = sunday(year, Month::November, 1)
        .map(|date| PrimitiveDateTime::new(date, Time::MIDNIGHT + Duration::hours(2)).assume_offset(SUMMER));
    let summer = begins.zip(ends).is_some_and(|(begins, ends)| begins <= now && now < ends);
    now.to_offset(if summer { SUMMER } else { WINTER })
}

/// The nth Sunday of a month.
fn sunday(year: i32, month: Month, nth: i64) -> Option<Date> {
    let first = Date::from_calendar_date(year, month, 1).ok()?;
    let ahead = (7 - i64::from(first.weekday().number_days_from_sunday())) % 7;
    Some(first + Duration::days(ahead + 7 * (nth - 1)))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn q3_forex_rests_at_weekends_in_new_york() {
        let open = |at| is_open(at);
        // Winter: 17:00 is 22:00 UTC.
        assert!(open(datetime!(2026-11-20 21:59:59 UTC)) && !open(datetime!(2026-11-20 22:00 UTC)));
        assert!(!open(datetime!(2026-11-21 12:00 UTC)));
        assert!(!open(datetime!(2026-11-22 22:59:59 UTC)) && open(datetime!(2026-11-22 23:00 UTC)));
        assert_eq!(opens_at(datetime!(2026-11-21 12:00 UTC)), datetime!(2026-11-22 23:00 UTC));
        assert_eq!(opens_at(datetime!(2026-11-22 20:00 UTC)), datetime!(2026-11-22 23:00 UTC));
        // Summer: 17:00 is 21:00 UTC.
        assert!(open(datetime!(2026-07-10 20:59:59 UTC)) && !open(datetime!(2026-07-10 21:00 UTC)));
        assert_eq!(opens_at(datetime!(2026-07-10 21:00 UTC)), datetime!(2026-07-12 22:00 UTC));
        // The weekends on which the clocks change.
        assert_eq!(opens_at(datetime!(2023-03-11 07:00 UTC)), datetime!(2023-03-12 22:00 UTC));
        assert_eq!(opens_at(datetime!(2026-10-31 12:00 UTC)), datetime!(2026-11-01 23:00 UTC));
        let weekday = datetime!(2026-11-24 12:00 UTC);
        assert!(open(weekday));
        assert_eq!(opens_at(weekday), weekday);
    }
}
