//! The figures as a picture: a row a load, on the left p50 and p99 by loss, on the right every tick at one loss. All
//! over the line once: over two lines everything happens twice, and the table has it.

use std::fmt::Write as _;

use super::figures::{Point, Route};
use super::plot::{Axis, step};
use super::setup::{Load, Measured, Setup};
use super::viewer::Carrier;

const WIDTH: f64 = 1080.0;
const ROW: f64 = 340.0;
const TOP: f64 = 84.0;
/// The drawing area of a panel, in the panel.
const LEFT: f64 = 64.0;
const UPPER: f64 = 52.0;
const WIDE: f64 = 400.0;
const HIGH: f64 = 220.0;
const ROUTE: Route = Route::Down;
/// The loss whose ticks are all shown, if it was measured.
const SHOWN: f64 = 2.0;

const CARRIERS: [(Carrier, &str, &str); 2] = [
    (Carrier::WebTransport, "WebTransport, datagrams", "#c2410c"),
    (Carrier::WebSocket, "WebSocket, binary frames", "#1d4ed8"),
];

pub(crate) fn svg(setup: &Setup, measured: &[Measured]) -> String {
    let height = TOP + ROW * setup.loads.len() as f64;
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" font-family="Inter, 'DejaVu Sans', 'Liberation Sans', sans-serif" font-size="12.5">
<style>text {{ fill: #1c1917 }} .muted {{ fill: #57534e }} .end {{ text-anchor: end }} .middle {{ text-anchor: middle }} polyline {{ fill: none; stroke-width: 2; stroke-linejoin: round }}</style>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
<text x="24" y="34" font-size="20" font-weight="700">How old is a tick when it arrives?</text>
<text x="24" y="58" class="muted">From a host beside the server to viewers at the other end of a line: {} ms round trip, up to {} ms of jitter each way, seed {}</text>
"##,
        setup.round_trip_ms, setup.jitter_ms, setup.seed,
    );
    for (index, (_, name, colour)) in CARRIERS.into_iter().enumerate() {
        let x = 664.0 + 196.0 * index as f64;
        let _ = writeln!(
            out,
            r#"<circle cx="{x}" cy="30" r="5" fill="{colour}"/><text x="{}" y="34">{name}</text>"#,
            x + 11.0
        );
    }
    for (row, load) in setup.loads.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let of_load: Vec<&Measured> = measured.iter().filter(|measured| measured.load.name == load.name).collect();
        let _ = write!(out, r#"<g transform="translate(24 {y})">"#);
        by_loss(&mut out, load, &of_load);
        let _ = write!(out, r#"</g><g transform="translate({} {y})">"#, 24.0 + WIDTH / 2.0);
        every_tick(&mut out, &of_load);
        out += "</g>\n";
    }
    out + "</svg>\n"
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

fn x_axis(from: f64, to: f64) -> Axis {
    Axis::linear(from, to, LEFT, LEFT + WIDE)
}

fn y_axis(from: f64, to: f64) -> Axis {
    Axis::linear(from, to, UPPER + HIGH, UPPER)
}

fn ticks(to: f64) -> impl Iterator<Item = f64> {
    let step = step(to);
    (0_u32..).map(move |index| f64::from(index) * step).take_while(move |value| *value <= to)
}

fn frame(out: &mut String, title: &str, subtitle: &str, axis: &str) {
    let middle = LEFT + WIDE / 2.0;
    let _ = write!(
        out,
        r#"<text x="0" y="14" font-size="15" font-weight="600">{title}</text><text x="0" y="33" class="muted">{subtitle}</text><text x="{middle}" y="{}" class="muted middle">{axis}</text>"#,
        UPPER + HIGH + 40.0
    );
}

fn level(out: &mut String, y: f64, label: &str) {
    let _ = write!(
        out,
        r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#e7e5e4"/><text x="{}" y="{:.1}" class="muted end">{label}</text>"##,
        LEFT + WIDE,
        LEFT - 8.0,
        y + 4.0
    );
}

fn mark(out: &mut String, x: f64, label: &str) {
    let bottom = UPPER + HIGH;
    let _ = write!(
        out,
        r##"<line x1="{x:.1}" x2="{x:.1}" y1="{bottom}" y2="{}" stroke="#78716c"/><text x="{x:.1}" y="{}" class="muted middle">{label}</text>"##,
        bottom + 4.0,
        bottom + 19.0
    );
}

fn curve(out: &mut String, points: &[(f64, f64)], colour: &str, dashes: &str) {
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(out, r#"<polyline stroke="{colour}" stroke-dasharray="{dashes}" points="{}"/>"#, path.join(" "));
}

/// p50 and p99 over the loss.
fn by_loss(out: &mut String, load: &Load, measured: &[&Measured]) {
    let points = |carrier| measured.iter().filter_map(move |at_loss| at_loss.of(carrier, ROUTE));
    let all = || CARRIERS.into_iter().flat_map(|(carrier, ..)| points(carrier));
    let highest = all().map(|point| point.age_ms.p99).fold(1.0, f64::max) * 1.08;
    let widest = all().map(|point| point.loss_percent).fold(1.0, f64::max);
    let (x, y) = (x_axis(0.0, widest), y_axis(0.0, highest));
    frame(out, &sentence(load.title), "age on arrival, ms: p99 solid, p50 dashed", "packets lost each way, %");
    ticks(highest).for_each(|value| level(out, y.place(value), &format!("{value:.0}")));
    for at_loss in points(Carrier::WebTransport) {
        mark(out, x.place(at_loss.loss_percent), &format!("{}", at_loss.loss_percent));
    }
    let mut labelled: Vec<(f64, f64)> = Vec::new();
    for (carrier, _, colour) in CARRIERS {
        let drawn = |of: fn(&Point) -> f64| -> Vec<(f64, f64)> {
            points(carrier).map(|point| (x.place(point.loss_percent), y.place(of(point)))).collect()
        };
        curve(out, &drawn(|point| point.age_ms.p50), colour, "4 4");
        let p99 = drawn(|point| point.age_ms.p99);
        curve(out, &p99, colour, "");
        for (point, (cx, cy)) in points(carrier).zip(p99) {
            let _ = write!(out, r#"<circle cx="{cx:.1}" cy="{cy:.1}" r="3.5" fill="{colour}"/>"#);
            // One label is enough where the two lie together.
            if labelled.iter().all(|(lx, ly)| *lx != cx || (ly - cy).abs() > 14.0) {
                labelled.push((cx, cy));
                let (above, age) = (cy - 9.0, point.age_ms.p99);
                let _ =
                    write!(out, r#"<text x="{cx:.1}" y="{above:.1}" class="middle" font-weight="600">{age:.0}</text>"#);
            }
        }
    }
}

/// The share of ticks that were older than so much, at one loss.
fn every_tick(out: &mut String, measured: &[&Measured]) {
    const RAREST: f64 = 1e-4;
    let at_loss = |loss: f64| measured.iter().find(|at| at.loss_percent == loss);
    let Some(shown) = at_loss(SHOWN).or(measured.last()) else { return };
    let points = || CARRIERS.into_iter().filter_map(|(carrier, _, colour)| Some((shown.of(carrier, ROUTE)?, colour)));
    let rare = |point: &Point| point.ages.get(((1.0 - RAREST) * point.ages.len() as f64) as usize).copied();
    let oldest = points().filter_map(|(point, _)| rare(point)).max().unwrap_or_default() as f64 / 1000.0 * 1.04;
    let (x, y) = (x_axis(0.0, oldest.max(1.0)), y_axis(RAREST.log10(), 0.0));
    let loss = shown.loss_percent;
    frame(out, &format!("Every tick at {loss} % loss"), "share of the ticks that were older than …", "… this, ms");
    for (share, label) in [(1.0, "all"), (0.1, "1 in 10"), (0.01, "1 in 100"), (1e-3, "1 in 1000"), (1e-4, "1 in 10⁴")]
    {
        level(out, y.place(f64::log10(share)), label);
    }
    ticks(oldest).for_each(|value| mark(out, x.place(value), &format!("{value:.0}")));
    for (point, colour) in points() {
        let count = point.ages.len();
        let drawn: Vec<_> = quantiles(count)
            .map(|rank| {
                let older = (count - rank) as f64 / count as f64;
                (x.place(point.ages[rank] as f64 / 1000.0), y.place(older.max(RAREST).log10()))
            })
            .collect();
        curve(out, &drawn, colour, "");
    }
}

/// Ranks to draw: evenly over the logarithm of what is left, a few hundred and not thousands.
fn quantiles(count: usize) -> impl Iterator<Item = usize> {
    const POINTS: u32 = 240;
    let last = count.saturating_sub(1);
    let ranks = (0..=POINTS).map(move |index| {
        let left = (count as f64).powf(1.0 - f64::from(index) / f64::from(POINTS));
        (count - left.round() as usize).min(last)
    });
    ranks.take(if count == 0 { 0 } else { usize::MAX })
}
