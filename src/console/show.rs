//! How amounts, times, states and addresses are written for people.

use alloy::primitives::{Address, I256, U256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use crate::chains::ChainBook;
use crate::units::{AssetId, ChainId, format_units};

/// A state in one word. The tone gives its colour; the word says the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    /// ok, wait, bad, info or calm
    pub tone: &'static str,
    pub text: String,
}

pub(super) fn chip(tone: &'static str, text: impl Into<String>) -> Chip {
    Chip { tone, text: text.into() }
}

/// An instant: exact, and how long ago.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub iso: String,
    pub text: String,
    pub ago: String,
}

impl Moment {
    pub(super) fn of(at: OffsetDateTime, now: OffsetDateTime) -> Self {
        let at = at.to_offset(time::UtcOffset::UTC);
        Self { iso: at.format(&Rfc3339).unwrap_or_default(), text: stamp(at), ago: ago(at, now) }
    }
}

fn stamp(at: OffsetDateTime) -> String {
    at.format(format_description!("[year]-[month]-[day] [hour]:[minute]:[second]")).unwrap_or_default()
}

pub(super) fn day(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(format_description!("[year]-[month]-[day]")).unwrap_or_default()
}

pub(super) fn clock(now: OffsetDateTime) -> String {
    now.format(format_description!("[hour]:[minute]:[second]")).unwrap_or_default()
}

fn ago(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - at).whole_seconds();
    let (direction, seconds) = if seconds < 0 { ("in ", -seconds) } else { ("", seconds) };
    let text = match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    };
    if direction.is_empty() { format!("{text} ago") } else { format!("{direction}{text}") }
}

/// How much of what; an asset that left chains.toml is written in raw units.
pub(super) fn amount(units: U256, asset: AssetId, book: &ChainBook) -> String {
    match book.asset(asset) {
        Some(facts) => format!("{} {}", grouped(&format_units(units, facts.decimals)), facts.symbol),
        None => format!("{units} raw units of {}", asset.asset),
    }
}

pub(super) fn signed_amount(units: I256, asset: AssetId, book: &ChainBook) -> String {
    let sign = if units.is_negative() { "−" } else { "+" };
    format!("{sign}{}", amount(units.unsigned_abs(), asset, book))
}

/// Thin spaces between thousands, so that a long number reads and still copies as digits and a point.
pub(super) fn grouped(decimal: &str) -> String {
    let (whole, fraction) = decimal.split_once('.').map_or((decimal, None), |(whole, fraction)| (whole, Some(fraction)));
    let mut text = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    if let Some(fraction) = fraction {
        text.push('.');
        text.push_str(fraction);
    }
    text
}

/// Wei as gwei, exactly.
pub(super) fn gwei(wei: u128) -> String {
    format!("{} gwei", format_units(U256::from(wei), 9))
}

pub(super) fn chain_name(chain: ChainId, book: &ChainBook) -> String {
    book.get(chain).map_or_else(|| format!("chain {chain}"), |spec| spec.name.clone())
}

/// The beginning and the end, for places where the whole is one click away.
pub(super) fn short(text: &str) -> String {
    if text.len() <= 14 || !text.is_ascii() {
        return text.to_owned();
    }
    format!("{}…{}", &text[..8], &text[text.len() - 4..])
}

pub(super) fn payment_state(status: &str, escrow: Option<&str>) -> Chip {
    match (status, escrow) {
        ("pending", _) => chip("calm", "Waiting for payment"),
        ("processing", _) => chip("info", "Seen"),
        (_, Some("funded")) => chip("ok", "Held"),
        (_, Some("releasable")) => chip("wait", "Release asked"),
        (_, Some("releasing")) => chip("wait", "Releasing"),
        (_, Some("released")) => chip("ok", "Released"),
        (_, Some("refunded")) => chip("ok", "Refunded"),
        ("failed", _) => chip("bad", "Failed"),
        ("cancelled", _) => chip("bad", "Cancelled"),
        (status, None) => chip("calm", status),
        (status, Some(escrow)) => chip("calm", format!("{status}, {escrow}")),
    }
}

pub(super) fn intent_state(state: &str) -> Chip {
    match state {
        "planned" => chip("wait", "Waits for approval"),
        "approved" => chip("info", "Approved"),
        "signing" => chip("info", "At the device"),
        "signed" => chip("info", "Signed"),
        "broadcast" => chip("info", "Sent"),
        "uncertain" => chip("wait", "Sent, unclear"),
        "mined" => chip("info", "In a block"),
        "settled" => chip("ok", "Settled"),
        "reverted" => chip("bad", "Failed on chain"),
        "void" => chip("calm", "Given up"),
        other => chip("calm", other),
    }
}

/// What an exception means for the one who reads it.
pub(super) fn exception(kind: &str) -> &'static str {
    match kind {
        "partial" => "Less than the amount has arrived.",
        "over" => "More than the amount has arrived; the rest waits in suspense.",
        "late" => "Money came after the payment's end.",
        "duplicate" => "Paid more than once.",
        "wrong_token" => "Another token or coin was sent here.",
        "wrong_chain" => "Sent on another chain.",
        "reorged" => "A transfer that counted has left the chain.",
        "held" => "Held back for an officer.",
        "frozen" => "Frozen.",
        _ => "Out of the ordinary.",
    }
}

/// An address in groups of four, as people compare them.
pub(super) fn in_groups(address: Address) -> Vec<String> {
    let text = address.to_string();
    let mut groups = vec![text[..2].to_owned()];
    groups.extend(text.as_bytes()[2..].chunks(4).map(|group| String::from_utf8_lossy(group).into_owned()));
    groups
}

/// What templates may call.
#[allow(unreachable_pub, reason = "the macro makes a public struct beside the function")]
pub(super) mod filters {
    use std::fmt::Display;

    #[askama::filter_fn]
    pub(in crate::console) fn shortened(text: impl Display, _: &dyn askama::Values) -> askama::Result<String> {
        Ok(super::short(&text.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_grouped_and_nothing_is_rounded() {
        let plain = |text: &str| grouped(text).replace('\u{202f}', "_");
        assert_eq!(plain("1"), "1");
        assert_eq!(plain("1234567.000001"), "1_234_567.000001");
        assert_eq!(plain("999"), "999");
        assert_eq!(plain("100000"), "100_000");
    }

    #[test]
    fn times_say_how_long_ago() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let after = |seconds: i64| Moment::of(at, at + time::Duration::seconds(seconds)).ago;
        assert_eq!(
            [after(0), after(119), after(120), after(7_200), after(200_000)],
            ["0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 d ago"]
        );
        assert_eq!(after(-90), "in 90 s");
        assert_eq!(Moment::of(at, at).text, "1970-01-01 00:00:00");
    }

    #[test]
    fn an_address_is_shown_whole() {
        let address: Address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266".parse().unwrap();
        assert_eq!(in_groups(address).concat(), address.to_string());
        assert_eq!(short(&address.to_string()), "0xf39Fd6…2266");
    }
}
