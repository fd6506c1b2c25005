//! Figures for people and for programs.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

pub(crate) use super::plot::thousands;
use super::proc;
use super::run::Outcome;

/// The figures of one subcommand.
#[derive(Debug)]
pub(crate) struct Report {
    /// Of its files, and of its place in `docs/PERFORMANCE.md`.
    pub(crate) name: &'static str,
    pub(crate) json: Value,
    /// Each with a line above it.
    pub(crate) tables: Vec<(String, Table)>,
    /// Each with its file's name.
    pub(crate) plots: Vec<(String, String)>,
}

impl Report {
    /// For the terminal, and for the page.
    pub(crate) fn text(&self) -> String {
        let parts: Vec<String> =
            self.tables.iter().map(|(caption, table)| format!("{caption}:\n\n{}", table.text())).collect();
        parts.join("\n")
    }
}

/// Rows of text under headings, as wide as they need.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| (*heading).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// As Markdown, which a terminal shows well too.
    pub(crate) fn text(&self) -> String {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            text += &line(row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect());
            if index == 0 {
                text += &line(widths.iter().map(|width| "-".repeat(*width)).collect());
            }
        }
        text
    }
}

/// The columns of one measurement.
pub(crate) const OUTCOME: [&str; 9] =
    ["deliveries/s", "per CPU second", "CPU", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "lost", "out of order"];

pub(crate) fn outcome(outcome: &Outcome) -> Vec<String> {
    let costs = outcome.cpu.total() > 0.0;
    let known = |text: String| if costs { text } else { "–".to_owned() };
    vec![
        thousands(outcome.rate()),
        known(thousands(outcome.per_cpu_second())),
        known(format!("{:.0} %", 100.0 * outcome.cpu.total() / outcome.seconds)),
        format!("{:.3}", outcome.latency(50.0)),
        format!("{:.3}", outcome.latency(99.0)),
        format!("{:.3}", outcome.latency(99.9)),
        format!("{:.3}", outcome.latency(100.0)),
        outcome.lost.to_string(),
        outcome.disordered.to_string(),
    ]
}

/// Smallest, middle and largest of some numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let middle = numbers.len() / 2;
        let median = if numbers.len().is_multiple_of(2) {
            (numbers[middle - 1] + numbers[middle]) / 2.0
        } else {
            numbers[middle]
        };
        Self { min: numbers[0], median, max: numbers[numbers.len() - 1] }
    }

    pub(crate) fn text(self, digits: usize) -> String {
        format!("{:.digits$} / {:.digits$} / {:.digits$}", self.min, self.median, self.max)
    }

    pub(crate) fn json(self) -> Value {
        json!({"min": self.min, "median": self.median, "max": self.max})
    }
}

/// Adds what every report must say, and writes it.
pub(crate) fn write_json(file: &Path, mut report: Value) -> Result<()> {
    report["machine"] = proc::machine().into();
    report["loadAverage"] = proc::load_average().into();
    let text = serde_json::to_string_pretty(&report)? + "\n";
    std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))
}

/// Each into a file of its own.
pub(crate) fn write_plots(directory: &Path, report: &Report) -> Result<()> {
    for (name, svg) in &report.plots {
        let file = directory.join(name).with_extension("svg");
        std::fs::write(&file, svg).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}
