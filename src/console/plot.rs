//! A day of one pair as a picture: how far from its peg, how far apart its sources, and the machine's state below.
//! Integers alone; classes alone, whose colours are the sheet's. Every mark has its words in a title.

use std::fmt::Write;

use time::OffsetDateTime;

use crate::quote::{RoundReport, Sample};

const WIDTH: i64 = 1_000;
const LEFT: i64 = 62;
const RIGHT: i64 = 12;
const DAY_S: i64 = 86_400;
/// At least so much is drawn, so that a line begins as one.
const SPAN_MIN_S: i64 = 3_600;
const UPPER: (i64, i64) = (10, 130);
const LOWER: (i64, i64) = (158, 70);
const STRIP: (i64, i64) = (244, 12);
const HEIGHT: i64 = 284;
/// Two samples that are further apart than this have a gap between them.
const GAP_S: i64 = 150;
/// The height of a line of words.
const WORDS: i64 = 14;

/// One curve's part of the picture.
struct Band {
    top: i64,
    height: i64,
    low: i64,
    high: i64,
}

impl Band {
    fn y(&self, value: i64) -> i64 {
        self.top + (self.high - value.clamp(self.low, self.high)) * self.height / (self.high - self.low).max(1)
    }
}

/// The part of time that is drawn.
struct Span {
    from_s: i64,
    to_s: i64,
}

impl Span {
    fn x(&self, at_s: i64) -> i64 {
        LEFT + (at_s - self.from_s).clamp(0, self.to_s - self.from_s) * (WIDTH - LEFT - RIGHT) / (self.to_s - self.from_s)
    }
}

/// Nothing where there is nothing to draw yet.
pub(super) fn day(samples: &[Sample], round: &RoundReport, now_s: i64) -> String {
    let Some(first) = samples.first() else { return String::new() };
    let from_s = first.at_s.clamp(now_s - DAY_S, now_s - SPAN_MIN_S);
    let span = Span { from_s, to_s: now_s };
    let shown: Vec<Sample> = samples.iter().copied().filter(|sample| sample.at_s >= from_s).collect();
    let pegged = round.bands_bps.is_some();
    let (shift, height) = if pegged { (0, HEIGHT) } else { (LOWER.0 - UPPER.0, HEIGHT - LOWER.0 + UPPER.0) };
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 {shift} {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        if pegged { "distance from the peg, dispersion and state over time" } else { "dispersion over time" }
    );
    if let Some((enter, halt)) = round.bands_bps {
        let values = || shown.iter().filter_map(|sample| sample.deviation_bps).map(i64::from);
        let far = values().map(i64::abs).max().unwrap_or(0).max(i64::from(enter) * 2);
        let band = Band { top: UPPER.0, height: UPPER.1, low: -far, high: far };
        levels(&mut svg, &band, &[0]);
        for level in [i64::from(enter), -i64::from(enter), i64::from(halt), -i64::from(halt)] {
            if level.abs() <= far {
                limit(&mut svg, &band, level, if level.abs() == i64::from(halt) { "bad" } else { "wait" });
            }
        }
        curve(&mut svg, &span, &band, "main", shown.iter().map(|sample| (sample.at_s, sample.deviation_bps.map(i64::from))));
    }
    let most = shown.iter().filter_map(|sample| sample.dispersion_bps).max().unwrap_or(0).max(round.dispersion_max_bps);
    let band = Band { top: LOWER.0, height: LOWER.1, low: 0, high: i64::from(most) * 11 / 10 };
    levels(&mut svg, &band, &[0]);
    limit(&mut svg, &band, i64::from(round.dispersion_max_bps), "bad");
    curve(&mut svg, &span, &band, "side", shown.iter().map(|sample| (sample.at_s, sample.dispersion_bps.map(i64::from))));
    strip(&mut svg, &span, &shown);
    hours(&mut svg, &span);
    svg.push_str("</svg>");
    svg
}

fn levels(svg: &mut String, band: &Band, levels: &[i64]) {
    for level in levels {
        let y = band.y(*level);
        let _ = write!(svg, "<line class=\"level\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", WIDTH - RIGHT);
        let _ = write!(svg, "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{level} bps</text>", LEFT - 8, y + 4);
    }
}

fn limit(svg: &mut String, band: &Band, level: i64, tone: &str) {
    let y = band.y(level);
    let sign = if level < 0 { "−" } else { "" };
    let _ = write!(svg, "<line class=\"limit {tone}\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>", WIDTH - RIGHT);
    // Beside the line of zero there is no room for words.
    if level == 0 || (y - band.y(0)).abs() >= WORDS {
        let _ = write!(svg, "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{sign}{}</text>", LEFT - 8, y + 4, level.abs());
    }
}

/// One line, interrupted where there is no value or nothing was heard.
fn curve(svg: &mut String, span: &Span, band: &Band, class: &str, points: impl Iterator<Item = (i64, Option<i64>)>) {
    let mut path = String::new();
    let mut last: Option<i64> = None;
    for (at_s, value) in points {
        let Some(value) = value else {
            last = None;
            continue;
        };
        let joined = last.is_some_and(|last| at_s - last <= GAP_S);
        let (x, y) = (span.x(at_s), band.y(value));
        let _ = if joined { write!(path, "L{x} {y}") } else { write!(path, "M{x} {y}h1") };
        last = Some(at_s);
    }
    let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
}

/// The machine's states, and where a quote would have been refused.
fn strip(svg: &mut String, span: &Span, samples: &[Sample]) {
    let kind = |sample: &Sample| match (sample.refused, sample.state) {
        (_, Some("halted")) => ("bad", "halted"),
        (Some(code), _) => ("none", code),
        (None, Some("adjusted")) => ("wait", "adjusted"),
        (None, Some(state)) => ("ok", state),
        (None, None) => ("ok", "quoted"),
    };
    let (top, height) = STRIP;
    for stretch in samples.chunk_by(|one, other| kind(one) == kind(other) && other.at_s - one.at_s <= GAP_S) {
        let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
        let (tone, words) = kind(first);
        let (x, end) = (span.x(first.at_s - 60), span.x(last.at_s));
        let _ = write!(
            svg,
            "<rect class=\"state {tone}\" x=\"{x}\" y=\"{top}\" width=\"{}\" height=\"{height}\"><title>{}: {} min</title></rect>",
            (end - x).max(2),
            words.replace('_', " "),
            stretch.len()
        );
    }
}

/// A handful of hours, by the clock.
fn hours(svg: &mut String, span: &Span) {
    let length = span.to_s - span.from_s;
    let step = [900, 1_800, 3_600, 10_800, 21_600].into_iter().find(|step| length / step <= 8).unwrap_or(21_600);
    let mut at_s = (span.from_s + step - 1).div_euclid(step) * step;
    // Ends: every step is forward.
    while at_s <= span.to_s {
        if let Ok(at) = OffsetDateTime::from_unix_timestamp(at_s) {
            let x = span.x(at_s);
            let anchor = if x > WIDTH - 60 { "end" } else { "middle" };
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{:02}:{:02}</text>",
                HEIGHT - 6,
                at.hour(),
                at.minute()
            );
        }
        at_s += step;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_s: i64, deviation: Option<i32>, refused: Option<&'static str>) -> Sample {
        let dispersion_bps = deviation.map(i32::unsigned_abs);
        Sample { at_s, price: None, deviation_bps: deviation, dispersion_bps, state: Some("par"), refused }
    }

    fn round(bands_bps: Option<(u32, u32)>) -> RoundReport {
        RoundReport {
            at_s: 0,
            price: None,
            refusal: None,
            min_sources: 2,
            dispersion_max_bps: 150,
            bands_bps,
            verdicts: Vec::new(),
            families: 2,
            dispersion_bps: None,
            deviation_bps: None,
            state: None,
            accepted_s: None,
            sources: Vec::new(),
        }
    }

    #[test]
    fn a_day_is_drawn_with_its_gaps_and_refusals() {
        let samples = [
            sample(100_000, Some(1), None),
            sample(100_060, Some(-30), None),
            sample(100_120, None, Some("insufficient_sources")),
            sample(101_000, Some(3), None),
        ];
        let svg = day(&samples, &round(Some((25, 500))), 101_000);
        let main = svg.split("<path class=\"main\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!((main.matches('M').count(), main.matches('L').count()), (2, 1), "{main}");
        assert!(svg.contains("<title>insufficient sources: 1 min</title>") && svg.contains("limit wait") && !svg.contains("−500"));
        assert!(!day(&samples, &round(None), 101_000).contains("class=\"main\""));
        assert_eq!(day(&[], &round(None), 0), "");
        assert!(!svg.contains("style="), "the policy of the pages allows no style inside of one");
    }
}
