//! The pages, one file for each. Each reads what its rooms wrote and fills a template; none of them writes.

pub(super) mod books;
pub(super) mod disputes;
pub(super) mod events;
pub(super) mod findings;
pub(super) mod intents;
pub(super) mod oracle;
pub(super) mod overview;
pub(super) mod payments;
pub(super) mod plan;
pub(super) mod sessions;
pub(super) mod settings;
pub(super) mod statements;
pub(super) mod webhooks;

use time::OffsetDateTime;

use super::page::Refusal;

/// Rows on a page.
const PAGE: i64 = 50;

/// An id behind which a list goes on, as `micros_id`.
fn read_place<T: std::str::FromStr>(text: &str) -> Result<(OffsetDateTime, T), Refusal> {
    let bad = || Refusal::Field("This place in the list cannot be read; begin again from the first page.".to_owned());
    let (micros, id) = text.split_once('_').ok_or_else(bad)?;
    let micros: i128 = micros.parse().map_err(|_| bad())?;
    let nanos = micros.checked_mul(1_000).ok_or_else(bad)?;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| bad())?;
    Ok((at, id.parse().map_err(|_| bad())?))
}

fn write_place(at: OffsetDateTime, id: impl std::fmt::Display) -> String {
    format!("{}_{id}", at.unix_timestamp_nanos() / 1_000)
}

/// A number in a query; nothing where it is absent or empty.
fn number(text: Option<&str>) -> Result<Option<i64>, Refusal> {
    let text = text.filter(|text| !text.is_empty());
    text.map(str::parse)
        .transpose()
        .map_err(|_| Refusal::Field("This place in the list cannot be read; begin again from the first page.".to_owned()))
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}
