//! `load all`: every figure of `docs/PERFORMANCE.md`, one after the other, into files and into the page.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;
use serde_json::json;

use super::growth::{self, By};
use super::join_burst::{self, JoinBurst};
use super::report::{self, Report};
use super::{args, clock, idle, nodes, proc, scenario};

/// Sizes of the run that the page shows.
const JOIN_BURST: JoinBurst = JoinBurst { sessions: 5000, members: 10, at_once: 48, times: 3 };
const MEMORY_SESSIONS: usize = 5000;
const IDLE_SESSIONS: usize = 10_000;
const MEMBERS: usize = 10;
const DELIVERIES: f64 = 15_000.0;

/// Runs all of it. What fails is said at the end, and costs the others nothing.
pub(crate) async fn all(matches: &ArgMatches) -> Result<Report> {
    let (launch, times, pairs) = (args::launch(matches), args::times(matches)?, args::count(matches, "pairs")?);
    let (directory, page) = (args::path_of(matches, "report")?, args::path_of(matches, "page")?);
    std::fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    check(&page)?;
    let mut failures = String::new();
    let mut done = Vec::new();
    let mut take = |name: &str, report: Result<Report>| -> Result<()> {
        match report {
            Ok(report) => {
                println!("## {name}\n\n{}", report.text());
                write(&directory, &page, &report)?;
                done.push(report.name);
            }
            Err(error) => {
                eprintln!("{name}: {error:#}");
                let _ = writeln!(failures, "{name}: {error:#}");
            }
        }
        Ok(())
    };
    let started = clock::now();
    take("ratio", scenario::goals(&launch, pairs, times).await)?;
    take("kinds", scenario::kinds(&launch, times).await)?;
    take("memory", idle::memory(&launch, MEMORY_SESSIONS, MEMBERS).await)?;
    take("idle", idle::idle(&launch, IDLE_SESSIONS, MEMBERS, 5 * times.window).await)?;
    take("rooms", growth::rooms(growth::MOST, &launch, DELIVERIES, pairs, times).await)?;
    take("members", growth::walk(By::Members, growth::MOST, &launch, DELIVERIES, times).await)?;
    let stores = args::stores_of(matches).await?;
    take("joins", join_burst::bursts(JOIN_BURST, &launch, &stores).await)?;
    take("nodes", nodes::nodes(&launch, &stores, pairs, times).await)?;
    ensure!(failures.is_empty(), "{failures}");
    let minutes = clock::now().duration_since(started).as_secs_f64() / 60.0;
    println!("{} reports in {minutes:.1} minutes, in {}", done.len(), directory.display());
    Ok(Report { name: "all", json: json!({"reports": done}), tables: Vec::new(), plots: Vec::new() })
}

/// Every report of a run, in its order.
const REPORTS: [&str; 8] = ["ratio", "kinds", "memory", "idle", "rooms", "members", "joins", "nodes"];

/// A page without a place for a report must not come out at the end of a long run.
fn check(page: &Path) -> Result<()> {
    let text = std::fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    for name in REPORTS {
        ensure!(replace(&text, name, "").is_some(), "{} has no place for {name}", page.display());
    }
    Ok(())
}

/// Figures, plots, and the place of the tables in the page.
fn write(directory: &Path, page: &Path, report: &Report) -> Result<()> {
    report::write_json(&directory.join(report.name).with_extension("json"), report.json.clone())?;
    report::write_plots(directory, report)?;
    let text = std::fs::read_to_string(page).with_context(|| format!("reading {}", page.display()))?;
    let note = format!("*{}; load average {:.1}.*", proc::machine(), proc::load_average());
    let text = replace(&text, report.name, &format!("{}\n{note}\n", report.text()))
        .with_context(|| format!("{} has no place for {}", page.display(), report.name))?;
    std::fs::write(page, text).with_context(|| format!("writing {}", page.display()))
}

/// Replaces the text between `<!-- load:name -->` and `<!-- /load:name -->`.
fn replace(page: &str, name: &str, new: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- load:{name} -->\n"), format!("<!-- /load:{name} -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{new}{end}{after}"))
}
