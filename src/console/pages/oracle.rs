//! Prices: each pair with its sources, how far apart they are, the depeg machine over the last day, and the quotes
//! that were refused. What is drawn is since the daemon started; what must not be forgotten is with each quote.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use time::OffsetDateTime;

use crate::console::Console;
use crate::console::identity::session::Officer;
use crate::console::page::{Frame, Refusal, html};
use crate::console::plot;
use crate::console::show::{Chip, Moment, chip, grouped};
use crate::quote::observation::Verdict;
use crate::quote::refusal::SourceVerdict;
use crate::quote::{Oracle, RoundReport};

#[derive(Template)]
#[template(path = "oracle.html")]
struct OraclePage {
    frame: Frame,
    on: bool,
    pairs: Vec<PairView>,
    refused: Vec<Bar>,
    quoted: Vec<Bar>,
    rejected: Vec<Bar>,
}

struct PairView {
    name: String,
    chip: Chip,
    price: String,
    deviation: Option<String>,
    dispersion: String,
    families: String,
    accepted: Option<Moment>,
    refusal: Option<String>,
    /// An SVG of ours; it holds no words but our own.
    chart: String,
    sources: Vec<SourceView>,
}

struct SourceView {
    name: String,
    chip: Chip,
    price: String,
    age: String,
}

/// A count beside others.
struct Bar {
    name: String,
    count: u64,
    /// Of the largest, in per cent.
    share: u64,
}

pub(in crate::console) async fn get(State(console): State<Console>, officer: Officer) -> Result<Response, Refusal> {
    let frame = Frame::of("Prices", "oracle", &console, &officer);
    let Some(oracle) = &console.api.oracle else {
        return html(&OraclePage { frame, on: false, pairs: Vec::new(), refused: Vec::new(), quoted: Vec::new(), rejected: Vec::new() });
    };
    let now = console.now();
    let tally = oracle.standing();
    let pairs = tally.rounds.iter().map(|(name, round)| pair(oracle, name, round, now)).collect();
    let refused = bars(tally.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)));
    let quoted = bars(tally.quoted.iter().map(|((token, state), count)| (format!("{token}, {}", words(state)), *count)));
    let rejected = bars(tally.rejected.iter().map(|((source, reason), count)| (format!("{source}: {}", words(reason)), *count)));
    html(&OraclePage { frame, on: true, pairs, refused, quoted, rejected })
}

fn pair(oracle: &Oracle, name: &str, round: &RoundReport, now: OffsetDateTime) -> PairView {
    let chip = match (&round.refusal, round.state) {
        (_, Some("halted")) => chip("bad", "Halted"),
        (Some(refusal), _) => chip("wait", capital(&words(refusal.code()))),
        (None, Some("adjusted")) => chip("wait", "Adjusted"),
        (None, Some("par")) => chip("ok", "At par"),
        (None, _) => chip("ok", "Quoted"),
    };
    let accepted = round.accepted_s.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    PairView {
        name: name.to_owned(),
        chip,
        price: round.price.map_or_else(|| "–".to_owned(), |price| shown(&price.to_string())),
        deviation: round.bands_bps.map(|_| round.deviation_bps.map_or_else(|| "–".to_owned(), signed)),
        dispersion: match round.dispersion_bps {
            Some(bps) => format!("{bps} of {} bps", round.dispersion_max_bps),
            None => "–".to_owned(),
        },
        families: format!("{} of {}", round.families, round.min_sources),
        accepted: accepted.map(|at| Moment::of(at, now)),
        refusal: round.refusal.as_ref().map(ToString::to_string),
        chart: plot::day(&oracle.samples(name), round, now.unix_timestamp()),
        sources: round.verdicts.iter().map(source).collect(),
    }
}

fn source(seen: &SourceVerdict) -> SourceView {
    let tone = match seen.verdict {
        Verdict::Used => "ok",
        Verdict::SameFamily => "calm",
        _ => "wait",
    };
    SourceView {
        name: seen.source.clone(),
        chip: chip(tone, capital(&words(seen.verdict.name()))),
        price: if seen.price == "0" { "–".to_owned() } else { shown(&seen.price) },
        age: format!("{} of {} s", grouped(&seen.age_s.max(0).to_string()), grouped(&seen.max_age_s.to_string())),
    }
}

fn bars(counts: impl Iterator<Item = (String, u64)>) -> Vec<Bar> {
    let mut counts: Vec<(String, u64)> = counts.filter(|(_, count)| *count > 0).collect();
    counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
    counts.truncate(BARS);
    let largest = counts.first().map_or(1, |(_, count)| *count);
    counts.into_iter().map(|(name, count)| Bar { name, count, share: (count * 100 / largest).max(1) }).collect()
}

/// Lines of a list of counts.
const BARS: usize = 20;

fn words(code: &str) -> String {
    code.replace('_', " ")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Eight significant places are enough to look at.
fn shown(price: &str) -> String {
    let (whole, fraction) = price.split_once('.').unwrap_or((price, ""));
    let zeros = if whole == "0" { fraction.bytes().take_while(|byte| *byte == b'0').count() } else { 0 };
    let fraction: String = fraction.chars().take(zeros + 8).collect();
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { grouped(whole) } else { format!("{}.{fraction}", grouped(whole)) }
}

fn signed(bps: i32) -> String {
    match bps {
        0 => "0 bps".to_owned(),
        above if above > 0 => format!("+{above} bps"),
        below => format!("−{} bps", below.unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_and_counts_read_at_a_glance() {
        assert_eq!(shown("0.877400000000000000"), "0.8774");
        assert_eq!(shown("0.000002280501710377"), "0.0000022805017");
        assert_eq!(shown("1999.000000000000000000"), "1\u{202f}999");
        assert_eq!((signed(0), signed(12), signed(-1_226)), ("0 bps".to_owned(), "+12 bps".to_owned(), "−1226 bps".to_owned()));
        assert_eq!(capital(&words("insufficient_sources")), "Insufficient sources");
        let counted = bars([("a".to_owned(), 1), ("b".to_owned(), 400), ("c".to_owned(), 0)].into_iter());
        assert_eq!(counted.iter().map(|bar| (bar.name.as_str(), bar.share)).collect::<Vec<_>>(), [("b", 100), ("a", 1)]);
    }
}
