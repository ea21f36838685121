//! The replay as a picture: true price, our price and refusals over time. SVG by integers alone.

use std::fmt::Write;

use alloy::primitives::U256;
use time::OffsetDateTime;

use super::replay::Minute;
use crate::units::{Price, UsdRate, pow10};

const WIDTH: i64 = 1_200;
const HEIGHT: i64 = 520;
const LEFT: i64 = 70;
const RIGHT: i64 = 20;
const TOP: i64 = 50;
const BOTTOM: i64 = 60;
/// Grid lines lie this many ten-thousandths of a dollar apart.
const GRID: i64 = 200;
const HOUR_S: i64 = 3_600;

/// True price against the price that quotes used, with the minutes without a quote behind them.
pub fn draw(title: &str, minutes: &[Minute]) -> String {
    let Some(frame) = Frame::of(minutes) else { return "<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n".to_owned() };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" font-size=\"16\">{}</text>\n",
        escape(title)
    );
    refusals(&mut svg, &frame, minutes);
    grid(&mut svg, &frame);
    line(&mut svg, &frame, "#d0602a", minutes.iter().map(|minute| (minute.at_s, Some(tenths(minute.reference)))));
    line(&mut svg, &frame, "#1f4fa3", minutes.iter().map(|minute| (minute.at_s, minute.ours.map(tenths_of_rate))));
    let legend = [("#d0602a", "true price"), ("#1f4fa3", "our price"), ("#d9d9d9", "no quote")];
    for (place, (colour, words)) in (0_i64..).zip(legend) {
        let x = LEFT + 130 * place;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"33\" width=\"22\" height=\"5\" fill=\"{colour}\"/><text x=\"{}\" y=\"40\">{words}</text>",
            x + 28
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// What part of time and price the picture shows.
struct Frame {
    from_s: i64,
    to_s: i64,
    low: i64,
    high: i64,
}

impl Frame {
    fn of(minutes: &[Minute]) -> Option<Self> {
        let (first, last) = (minutes.first()?, minutes.last()?);
        let prices = minutes.iter().flat_map(|minute| [Some(tenths(minute.reference)), minute.ours.map(tenths_of_rate)]).flatten();
        let (low, high) = prices.fold((i64::MAX, i64::MIN), |(low, high), price| (low.min(price), high.max(price)));
        Some(Self {
            from_s: first.at_s,
            to_s: last.at_s.max(first.at_s + 60),
            low: low.div_euclid(GRID) * GRID,
            high: (high.div_euclid(GRID) + 1) * GRID,
        })
    }

    fn x(&self, at_s: i64) -> i64 {
        LEFT + (at_s - self.from_s) * (WIDTH - LEFT - RIGHT) / (self.to_s - self.from_s)
    }

    fn y(&self, price: i64) -> i64 {
        TOP + (self.high - price) * (HEIGHT - TOP - BOTTOM) / (self.high - self.low)
    }
}

/// In ten-thousandths of a dollar.
fn tenths(price: Price) -> i64 {
    i64::try_from(price.scaled() / pow10(32)).unwrap_or(0)
}

fn tenths_of_rate(rate: UsdRate) -> i64 {
    i64::try_from(rate.scaled() / (pow10(14) * U256::ONE)).unwrap_or(0)
}

fn refusals(svg: &mut String, frame: &Frame, minutes: &[Minute]) {
    for minute in minutes.iter().filter(|minute| minute.ours.is_none()) {
        let x = frame.x(minute.at_s - 60);
        let width = (frame.x(minute.at_s) - x).max(1);
        let reason = minute.refused.unwrap_or("no quote");
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{TOP}\" width=\"{width}\" height=\"{}\" fill=\"#d9d9d9\"><title>{reason}</title></rect>",
            HEIGHT - TOP - BOTTOM
        );
    }
}

fn grid(svg: &mut String, frame: &Frame) {
    let mut price = frame.low;
    // Ends: every step is upwards.
    while price <= frame.high {
        let y = frame.y(price);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" stroke=\"#eee\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}.{:02}</text>",
            WIDTH - RIGHT,
            LEFT - 8,
            y + 4,
            price / 10_000,
            price % 10_000 / 100
        );
        price += GRID;
    }
    let mut at_s = (frame.from_s + 6 * HOUR_S - 1).div_euclid(6 * HOUR_S) * 6 * HOUR_S;
    // Ends: every step is forward.
    while at_s <= frame.to_s {
        if let Ok(at) = OffsetDateTime::from_unix_timestamp(at_s) {
            let x = frame.x(at_s);
            let (month, day, hour) = (u8::from(at.month()), at.day(), at.hour());
            let _ = writeln!(
                svg,
                "<line x1=\"{x}\" x2=\"{x}\" y1=\"{TOP}\" y2=\"{}\" stroke=\"#eee\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{month:02}-{day:02} {hour:02}:00</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 22
            );
        }
        at_s += 6 * HOUR_S;
    }
}

/// One line, interrupted where there is no price.
fn line(svg: &mut String, frame: &Frame, colour: &str, points: impl Iterator<Item = (i64, Option<i64>)>) {
    let mut path = String::new();
    let mut drawing = false;
    for (at_s, price) in points {
        if let Some(price) = price {
            let _ = write!(path, "{}{} {}", if drawing { "L" } else { "M" }, frame.x(at_s), frame.y(price));
        }
        drawing = price.is_some();
    }
    let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\"/>");
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
        let minutes = [minute(0, "1", Some("1")), minute(60, "0.9", None), minute(120, "0.88", Some("0.877"))];
        let svg = draw("a < b", &minutes);
        assert!(svg.contains("a &lt; b") && svg.contains("<title>depeg_halt</title>"));
        assert_eq!(svg.matches("<path").count(), 2);
        assert_eq!(svg.matches('M').count(), 3, "our line is interrupted once");
        assert!(svg.ends_with("</svg>\n"));
        assert!(draw("", &[]).contains("<svg"));
    }
}
