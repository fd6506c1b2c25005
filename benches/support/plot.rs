//! Plots as SVG: lines over a logarithmic axis, and bars against their goals. Small enough to be read as text, and
//! readable on a light page and on a dark one.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 736.0;
const TOP: f64 = 64.0;
const COLOURS: [&str; 6] = ["#3b7ddd", "#e07b22", "#2a9d63", "#c23b6f", "#7a55c7", "#6b7785"];

/// A line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Title and axes around the lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    /// Else from zero.
    pub(crate) logarithmic: bool,
}

/// A value, its range over the runs, and what it should be.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) low: f64,
    pub(crate) middle: f64,
    pub(crate) high: f64,
    pub(crate) goal: Option<f64>,
}

/// Lines; x is logarithmic and has a mark where a line has a point.
pub(crate) fn lines(frame: Frame<'_>, series: &[Series]) -> String {
    const HEIGHT: f64 = 400.0;
    const BOTTOM: f64 = HEIGHT - 56.0;
    let points: Vec<(f64, f64)> = series.iter().flat_map(|series| series.points.iter().copied()).collect();
    let (mut xs, mut ys): (Vec<f64>, Vec<f64>) = points.into_iter().unzip();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    ys.sort_by(f64::total_cmp);
    let (Some(&left), Some(&right), Some(&low), Some(&high)) = (xs.first(), xs.last(), ys.first(), ys.last()) else {
        return String::new();
    };
    let x = Axis::logarithmic(left, right, LEFT + 14.0, RIGHT - 14.0);
    let y = if frame.logarithmic { Axis::decades(low, high, BOTTOM, TOP) } else { Axis::from_zero(high, BOTTOM, TOP) };
    let mut svg = begin(frame.title, HEIGHT);
    for value in y.marks() {
        let at = y.place(value);
        let _ = writeln!(svg, r#"<path class="grid" d="M{LEFT} {at:.1}H{RIGHT}"/>"#);
        text(&mut svg, "end", LEFT - 8.0, at + 4.0, &short(value));
    }
    for value in xs {
        let at = x.place(value);
        let _ = writeln!(svg, r#"<path class="grid" d="M{at:.1} {TOP}V{BOTTOM}"/>"#);
        text(&mut svg, "middle", at, BOTTOM + 18.0, &short(value));
    }
    text(&mut svg, "middle", (LEFT + RIGHT) / 2.0, HEIGHT - 14.0, frame.x);
    let middle = (TOP + BOTTOM) / 2.0;
    let _ = writeln!(
        svg,
        r#"<text text-anchor="middle" transform="translate(20 {middle}) rotate(-90)">{}</text>"#,
        escape(frame.y)
    );
    // From the edge on, and close: four long names are as wide as the sheet.
    let mut legend = 16.0;
    for (series, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        let places: Vec<(f64, f64)> = series.points.iter().map(|point| (x.place(point.0), y.place(point.1))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2.5" points="{}"/>"#,
            path.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(svg, r#"<circle fill="{colour}" r="3.5" cx="{x:.1}" cy="{y:.1}"/>"#);
        }
        let _ = writeln!(svg, r#"<rect fill="{colour}" x="{legend}" y="42" width="14" height="4"/>"#);
        text(&mut svg, "start", legend + 20.0, 48.0, &series.name);
        legend += 40.0 + 6.9 * series.name.chars().count() as f64;
    }
    svg + "</svg>\n"
}

/// A bar for each value, a whisker for its range, a line for its goal.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    const ROW: f64 = 34.0;
    const NAMES: f64 = 300.0;
    let height = TOP + ROW * bars.len() as f64 + 24.0;
    let largest = bars.iter().flat_map(|bar| [bar.high, bar.goal.unwrap_or(0.0)]).fold(0.0, f64::max);
    let x = Axis::from_zero(largest, NAMES, RIGHT - 50.0);
    let mut svg = begin(title, height);
    let bottom = height - 20.0;
    for value in x.marks() {
        let at = x.place(value);
        let _ = writeln!(svg, r#"<path class="grid" d="M{at:.1} {}V{bottom}"/>"#, TOP - 14.0);
        text(&mut svg, "middle", at, TOP - 18.0, &short(value));
    }
    for (index, bar) in bars.iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let middle = top + 9.0;
        let (low, end, high) = (x.place(bar.low), x.place(bar.middle), x.place(bar.high));
        text(&mut svg, "end", NAMES - 10.0, middle + 4.0, &bar.name);
        let _ = writeln!(
            svg,
            r#"<rect fill="{}" x="{NAMES}" y="{top:.1}" width="{:.1}" height="18" rx="2"/>"#,
            COLOURS[0],
            end - NAMES
        );
        let _ = writeln!(svg, r#"<path class="whisker" d="M{low:.1} {middle:.1}H{high:.1}"/>"#);
        if let Some(goal) = bar.goal {
            let at = x.place(goal);
            let _ = writeln!(svg, r#"<path class="goal" d="M{at:.1} {:.1}v26"/>"#, top - 4.0);
        }
        text(&mut svg, "start", RIGHT - 44.0, middle + 4.0, &short(bar.middle));
    }
    svg + "</svg>\n"
}

/// From values to places on the page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    begin: f64,
    end: f64,
    logarithmic: bool,
}

impl Axis {
    fn logarithmic(low: f64, high: f64, begin: f64, end: f64) -> Self {
        let high = if high > low { high } else { low * 10.0 };
        Self { low, high, begin, end, logarithmic: true }
    }

    /// Logarithmic, from one power of ten to another.
    fn decades(low: f64, high: f64, begin: f64, end: f64) -> Self {
        Self::logarithmic(10f64.powf(low.log10().floor()), 10f64.powf(high.log10().ceil()), begin, end)
    }

    /// Linear, to the next mark above.
    fn from_zero(high: f64, begin: f64, end: f64) -> Self {
        let step = step(high);
        Self { low: 0.0, high: (high * 1.02 / step).ceil() * step, begin, end, logarithmic: false }
    }

    pub(crate) fn linear(low: f64, high: f64, begin: f64, end: f64) -> Self {
        Self { low, high, begin, end, logarithmic: false }
    }

    pub(crate) fn place(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.begin + share * (self.end - self.begin)
    }

    fn marks(&self) -> Vec<f64> {
        if self.logarithmic {
            let (first, last) = (self.low.log10().round() as i32, self.high.log10().round() as i32);
            return (first..=last).map(|power| 10f64.powi(power)).collect();
        }
        let step = step(self.high);
        (0..=(self.high / step).round() as u32).map(|count| f64::from(count) * step).collect()
    }
}

/// A round distance between marks: four to eight of them.
pub(crate) fn step(high: f64) -> f64 {
    let rough = high.max(1e-9) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough).unwrap_or(power)
}

fn begin(title: &str, height: f64) -> String {
    let style = "text{font:13px system-ui,sans-serif;fill:#6b7785}.title{font-size:15px;font-weight:600}\
                 .grid{stroke:#8a94a033;fill:none}.whisker{stroke:#e07b22;stroke-width:3;fill:none}\
                 .goal{stroke:#c23b6f;stroke-width:2.5;stroke-dasharray:4 3;fill:none}";
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">"#
    );
    let _ = writeln!(svg, "<title>{0}</title>\n<style>{style}</style>", escape(title));
    let _ = writeln!(svg, r#"<text class="title" x="16" y="24">{}</text>"#, escape(title));
    svg
}

fn text(svg: &mut String, anchor: &str, x: f64, y: f64, words: &str) {
    let _ = writeln!(svg, r#"<text text-anchor="{anchor}" x="{x:.1}" y="{y:.1}">{}</text>"#, escape(words));
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

/// As few digits as tell it.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        small if small >= 1.0 || small == 0.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if value >= 1000.0 { thousands(value) } else { text.to_owned() }
}

/// 1234567 as 1,234,567.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
