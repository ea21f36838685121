//! The replay as a picture: true price, our price and refusals over time. SVG by integers alone.
//!
//! It follows the reader's scheme, light or dark. Colours are not all that tells lines apart: the true price is a broad
//! pale line, ours a thin strong one on top of it, and where there was no quote the ground is hatched.

use std::fmt::Write;

use alloy::primitives::U256;
use time::OffsetDateTime;

use super::replay::Minute;
use crate::units::{Price, UsdRate, pow10};

/// One plot: what it shows, what it came to, and its minutes.
#[derive(Clone, Debug)]
pub struct Panel {
    pub caption: String,
    pub figures: String,
    pub minutes: Vec<Minute>,
}

// All in tenths of a pixel, so that a minute is not lost between two of them.
const WIDTH: i64 = 12_000;
const LEFT: i64 = 760;
const RIGHT: i64 = 360;
const HEAD: i64 = 1_200;
const CAPTION: i64 = 620;
const PLOT: i64 = 3_000;
const AXIS: i64 = 560;
const FOOT: i64 = 100;
/// Grid lines lie this many ten-thousandths of a dollar apart.
const GRID: i64 = 200;
const HOUR_S: i64 = 3_600;
const TICK_S: i64 = 6 * HOUR_S;
/// A dollar, in ten-thousandths.
const DOLLAR: i64 = 10_000;

const STYLE: &str = "\
svg{--ground:#fff;--ink:#16202b;--soft:#5b6673;--grid:#e3e7ec;--true:#a3afbd;--ours:#0b5cc4;--blind:#c2410c;--none:#f0b429;--wash:.09}\
@media(prefers-color-scheme:dark){svg{--ground:#0f151c;--ink:#e8edf3;--soft:#97a3b1;--grid:#243040;--true:#64748a;--ours:#6cb2ff;\
--blind:#ff9466;--none:#e0a526;--wash:.12}}\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',sans-serif;fill:var(--ink);font-size:13px}\
.title{font-size:21px;font-weight:650}.soft{fill:var(--soft)}.caption{font-weight:600;font-size:13.5px}\
.grid{stroke:var(--grid);stroke-width:1}.dollar{stroke:var(--blind);stroke-width:1.4;stroke-dasharray:7 5}\
.true{fill:none;stroke:var(--true);stroke-width:4;stroke-linejoin:round}.ours{fill:none;stroke:var(--ours);stroke-width:1.5;stroke-linejoin:round}\
.lost{fill:var(--blind);opacity:var(--wash)}.none{fill:url(#none)}.veil{fill:var(--none);opacity:.28}.hatch{stroke:var(--none);stroke-width:2.6;opacity:.7}\
.low{fill:var(--ground);stroke:var(--ink);stroke-width:1.5}";

/// True price against the price that quotes used, one plot for each panel, with the minutes without a quote behind
/// them.
pub fn draw(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let frames: Vec<(Frame, &Panel)> = panels.iter().filter_map(|panel| Some((Frame::of(&panel.minutes)?, panel))).collect();
    let height = HEAD + i64::try_from(frames.len()).unwrap_or(0) * (CAPTION + PLOT + AXIS) + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <defs><pattern id=\"none\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
         <rect class=\"veil\" width=\"6\" height=\"6\"/><path class=\"hatch\" d=\"M0 0V6\"/></pattern></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"var(--ground)\"/>\n\
         <text class=\"title\" x=\"{}\" y=\"40\">{}</text>\n<text class=\"soft\" x=\"{}\" y=\"64\">{}</text>\n",
        px(WIDTH),
        px(height),
        escape(title),
        px(LEFT),
        escape(title),
        px(LEFT),
        escape(subtitle)
    );
    legend(&mut svg);
    let mut top = HEAD;
    for (frame, panel) in &frames {
        let frame = Frame { top: top + CAPTION, ..*frame };
        let _ = writeln!(
            svg,
            "<text class=\"caption\" x=\"{0}\" y=\"{1}\">{2}</text>\n<text class=\"soft\" x=\"{0}\" y=\"{3}\">{4}</text>",
            px(LEFT),
            px(top + 240),
            escape(&panel.caption),
            px(top + 440),
            escape(&panel.figures)
        );
        lost(&mut svg, &frame, &panel.minutes);
        refusals(&mut svg, &frame, &panel.minutes);
        grid(&mut svg, &frame);
        line(&mut svg, &frame, "true", panel.minutes.iter().map(|minute| (minute.at_s, Some(tenths(minute.reference)))));
        line(&mut svg, &frame, "ours", panel.minutes.iter().map(|minute| (minute.at_s, minute.ours.map(tenths_of_rate))));
        lowest(&mut svg, &frame, &panel.minutes);
        top += CAPTION + PLOT + AXIS;
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String) {
    let y = 930;
    let mut x = LEFT;
    let entries = [
        ("true", "true price", 1_180),
        ("ours", "our price", 1_120),
        ("none", "no quote, with a reason", 2_050),
        ("dollar", "a hard-coded dollar, and what it loses", 0),
    ];
    for (class, words, width) in entries {
        let (from, to) = (px(x), px(x + 260));
        let _ = match class {
            "none" => writeln!(svg, "<rect class=\"none\" x=\"{from}\" y=\"{}\" width=\"26\" height=\"12\"/>", px(y - 60)),
            _ => writeln!(svg, "<line class=\"{class}\" x1=\"{from}\" x2=\"{to}\" y1=\"{0}\" y2=\"{0}\"/>", px(y)),
        };
        let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{words}</text>", px(x + 340), px(y + 45));
        x += 340 + width;
    }
}

/// What part of time and price a plot shows, and where it begins.
#[derive(Clone, Copy)]
struct Frame {
    from_s: i64,
    to_s: i64,
    low: i64,
    high: i64,
    top: i64,
}

impl Frame {
    fn of(minutes: &[Minute]) -> Option<Self> {
        let (first, last) = (minutes.first()?, minutes.last()?);
        let prices = minutes.iter().flat_map(|minute| [Some(tenths(minute.reference)), minute.ours.map(tenths_of_rate)]).flatten();
        let (low, high) = prices.fold((DOLLAR, DOLLAR), |(low, high), price| (low.min(price), high.max(price)));
        Some(Self {
            from_s: first.at_s,
            to_s: last.at_s.max(first.at_s + 60),
            low: low.div_euclid(GRID) * GRID,
            high: (high.div_euclid(GRID) + 1) * GRID,
            top: 0,
        })
    }

    fn x(&self, at_s: i64) -> i64 {
        LEFT + (at_s - self.from_s) * (WIDTH - LEFT - RIGHT) / (self.to_s - self.from_s)
    }

    fn y(&self, price: i64) -> i64 {
        self.top + (self.high - price) * PLOT / (self.high - self.low)
    }
}

/// Tenths of a pixel as pixels.
fn px(tenths: i64) -> String {
    let (whole, part) = (tenths.div_euclid(10), tenths.rem_euclid(10));
    if part == 0 { whole.to_string() } else { format!("{whole}.{part}") }
}

/// In ten-thousandths of a dollar.
fn tenths(price: Price) -> i64 {
    i64::try_from(price.scaled() / pow10(32)).unwrap_or(0)
}

fn tenths_of_rate(rate: UsdRate) -> i64 {
    i64::try_from(rate.scaled() / (pow10(14) * U256::ONE)).unwrap_or(0)
}

/// Between a dollar and what the token was worth.
fn lost(svg: &mut String, frame: &Frame, minutes: &[Minute]) {
    let (Some(first), Some(last)) = (minutes.first(), minutes.last()) else { return };
    let mut path = format!("M{} {}", px(frame.x(first.at_s)), px(frame.y(DOLLAR)));
    for minute in minutes {
        let _ = write!(path, "L{} {}", px(frame.x(minute.at_s)), px(frame.y(tenths(minute.reference).min(DOLLAR))));
    }
    let _ = writeln!(svg, "<path class=\"lost\" d=\"{path}L{} {}Z\"/>", px(frame.x(last.at_s)), px(frame.y(DOLLAR)));
}

/// Each stretch without a quote, with its reasons and how long it was.
fn refusals(svg: &mut String, frame: &Frame, minutes: &[Minute]) {
    for stretch in minutes.chunk_by(|one, other| one.ours.is_none() == other.ours.is_none()) {
        let (Some(first), Some(last)) = (stretch.first().filter(|first| first.ours.is_none()), stretch.last()) else { continue };
        let mut reasons: Vec<&str> = stretch.iter().map(|minute| minute.refused.unwrap_or("no quote")).collect();
        let count = reasons.len();
        reasons.sort_unstable();
        reasons.dedup();
        let x = frame.x((first.at_s - 60).max(frame.from_s));
        let width = (frame.x(last.at_s) - x).max(10);
        let _ = writeln!(
            svg,
            "<rect class=\"none\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}: {count} min</title></rect>",
            px(x),
            px(frame.top),
            px(width),
            px(PLOT),
            reasons.join(", ")
        );
    }
}

fn grid(svg: &mut String, frame: &Frame) {
    let (left, right) = (px(LEFT), px(WIDTH - RIGHT));
    let mut price = frame.low;
    // Ends: every step is upwards.
    while price <= frame.high {
        let y = px(frame.y(price));
        let class = if price == DOLLAR { "dollar" } else { "grid" };
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{left}\" x2=\"{right}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"soft\" x=\"{}\" y=\"{}\" text-anchor=\"end\">${}.{:02}</text>",
            px(LEFT - 100),
            px(frame.y(price) + 45),
            price / DOLLAR,
            price % DOLLAR / 100
        );
        price += GRID;
    }
    let mut at_s = (frame.from_s + TICK_S - 1).div_euclid(TICK_S) * TICK_S;
    // Ends: every step is forward.
    while at_s <= frame.to_s {
        if let Ok(at) = OffsetDateTime::from_unix_timestamp(at_s) {
            let x = px(frame.x(at_s));
            let (month, day, hour) = (at.month().to_string(), at.day(), at.hour());
            // The day is named where it begins.
            let words = if hour == 0 { format!("{day} {}", month.get(..3).unwrap_or(&month)) } else { format!("{hour:02}:00") };
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>\
                 <text class=\"{}\" x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{words}</text>",
                px(frame.top),
                px(frame.top + PLOT),
                if hour == 0 { "caption" } else { "soft" },
                px(frame.top + PLOT + 220)
            );
        }
        at_s += TICK_S;
    }
}

/// The lowest true price there was, with its figure.
fn lowest(svg: &mut String, frame: &Frame, minutes: &[Minute]) {
    let Some(low) = minutes.iter().min_by_key(|minute| minute.reference) else { return };
    let price = tenths(low.reference);
    let (x, y) = (frame.x(low.at_s), frame.y(price));
    let _ = writeln!(
        svg,
        "<circle class=\"low\" cx=\"{}\" cy=\"{}\" r=\"4\"/><text x=\"{}\" y=\"{}\">${}.{:04}</text>",
        px(x),
        px(y),
        px(x + 90),
        px(y + 60),
        price / DOLLAR,
        price % DOLLAR
    );
}

/// One line, interrupted where there is no price.
fn line(svg: &mut String, frame: &Frame, class: &str, points: impl Iterator<Item = (i64, Option<i64>)>) {
    let mut path = String::new();
    let mut drawing = false;
    for (at_s, price) in points {
        if let Some(price) = price {
            let _ = write!(path, "{}{} {}", if drawing { "L" } else { "M" }, px(frame.x(at_s)), px(frame.y(price)));
        }
        drawing = price.is_some();
    }
    let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_shows_both_prices_and_the_minutes_without() {
        let minute = |at_s, reference: &str, ours: Option<&str>| Minute {
            at_s,
            reference: reference.parse().unwrap(),
            ours: ours.map(|price| price.parse().unwrap()),
            refused: ours.is_none().then_some("depeg_halt"),
        };
        let minutes =
            vec![minute(0, "1", Some("1")), minute(60, "0.9", None), minute(120, "0.9", None), minute(180, "0.88", Some("0.877"))];
        let svg = draw("a < b", "c & d", &[Panel { caption: "e > f".to_owned(), figures: "g & h".to_owned(), minutes }]);
        assert!(svg.contains("a &lt; b") && svg.contains("c &amp; d") && svg.contains("e &gt; f"));
        assert!(svg.contains("<title>depeg_halt: 2 min</title>") && svg.contains("$0.8800"));
        let ours = svg.lines().find(|line| line.starts_with("<path class=\"ours\"")).unwrap();
        assert_eq!(ours.matches('M').count(), 2, "our line is interrupted once: {ours}");
        assert_eq!(svg.matches("<path class=\"true\"").count(), 1);
        assert!(svg.ends_with("</svg>\n") && svg.contains("prefers-color-scheme:dark"));
        assert!(draw("", "", &[]).contains("<svg"));
        assert_eq!([px(0), px(15), px(120)], ["0", "1.5", "12"].map(str::to_owned));
    }
}
