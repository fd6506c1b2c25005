//! tandem and the bare relay of the same transport, in turn, each time in fresh processes, under the same load.

use anyhow::Result;
use serde_json::{Value, json};

use super::link::Carrier;
use super::plot::{self, Bar, Frame, Series};
use super::population::{AT_ONCE, Plan, Population};
use super::report::{self, OUTCOME, Report, Spread, Table};
use super::run::{Outcome, Pace, Times, measure};
use super::server::Launch;
use super::wire::Kind;

/// The servers that are compared, and the phases.
#[derive(Debug, Clone)]
pub(crate) struct Contest {
    pub(crate) carrier: Carrier,
    pub(crate) kind: Kind,
    pub(crate) members: usize,
    /// For the cost of a delivery: as much as goes.
    pub(crate) busy: Phase,
    /// For latencies: a rate that both hold with ease.
    pub(crate) calm: Phase,
    pub(crate) pairs: usize,
    pub(crate) times: Times,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    pub(crate) rooms: usize,
    pub(crate) pace: Pace,
}

/// One server's two phases.
struct Run {
    busy: Outcome,
    calm: Outcome,
}

/// Runs and ratios of one contest.
pub(crate) struct Findings {
    pub(crate) json: Value,
    pub(crate) caption: String,
    pub(crate) runs: Table,
    pub(crate) ratios: Table,
    pub(crate) bars: Vec<Bar>,
    pub(crate) latencies: Vec<Series>,
}

/// Both transports' contests as one report.
pub(crate) fn report(findings: Vec<Findings>) -> Report {
    let mut report = Report { name: "ratio", json: Value::Null, tables: Vec::new(), plots: Vec::new() };
    let (mut bars, mut series, mut contests) = (Vec::new(), Vec::new(), Vec::new());
    for found in findings {
        report.tables.push((found.caption.clone(), found.ratios));
        report.tables.push((format!("The runs behind it ({})", found.caption), found.runs));
        bars.extend(found.bars);
        series.extend(found.latencies);
        contests.push(found.json);
    }
    report.json = json!({"contests": contests});
    let title = "tandem / bare relay: median, range of the runs, goal (dashed)";
    let frame = Frame { title: "Latency, calm", x: "one delivery in … is slower", y: "ms", logarithmic: true };
    report.plots =
        vec![("ratio".to_owned(), plot::bars(title, &bars)), ("latency".to_owned(), plot::lines(frame, &series))];
    report
}

/// Runs all pairs.
pub(crate) async fn contest(contest: &Contest, launch: &Launch) -> Result<Findings> {
    let caption = format!(
        "{} over {}, rooms of {}; busy: {} rooms, {}; calm: {} rooms, {}",
        contest.kind.name(),
        contest.carrier.name(),
        contest.members,
        contest.busy.rooms,
        contest.busy.pace.words(),
        contest.calm.rooms,
        contest.calm.pace.words(),
    );
    let mut table = Table::new(&[&["run", "server", "phase"][..], &OUTCOME].concat());
    let mut pairs = Vec::new();
    for pair in 1..=contest.pairs {
        let tandem = run(contest, launch, false).await?;
        let relay = run(contest, launch, true).await?;
        for (server, run) in [("tandem", &tandem), ("bare relay", &relay)] {
            for (phase, outcome) in [("busy", &run.busy), ("calm", &run.calm)] {
                let names = [pair.to_string(), server.to_owned(), phase.to_owned()];
                table.row(names.into_iter().chain(report::outcome(outcome)).collect());
            }
        }
        eprintln!("pair {pair} of {}: per CPU second {:.3} of the relay's", contest.pairs, tandem.efficiency(&relay));
        pairs.push((tandem, relay));
    }
    let (ratios, verdicts, bars) = judge(&pairs, contest.kind);
    let curves = [
        ("tandem", pairs.iter().map(|pair| &pair.0).collect()),
        ("bare relay", pairs.iter().map(|pair| &pair.1).collect()),
    ];
    let latencies = curves.map(|(name, runs): (_, Vec<&Run>)| Series {
        name: format!("{name}, {}", contest.kind.name()),
        points: curve(&runs),
    });
    let runs = pairs.iter().map(|(tandem, relay)| json!({"tandem": tandem.json(), "relay": relay.json()}));
    let json = json!({
        "kind": contest.kind.name(), "transport": contest.carrier.name(), "members": contest.members,
        "busy": {"rooms": contest.busy.rooms, "pace": contest.busy.pace.words()},
        "calm": {"rooms": contest.calm.rooms, "pace": contest.calm.pace.words()},
        "runs": runs.collect::<Vec<_>>(), "ratios": verdicts,
    });
    Ok(Findings { json, caption, runs: table, ratios, bars, latencies: latencies.into() })
}

/// Calm latencies of all runs together: what one delivery in so many exceeds.
fn curve(runs: &[&Run]) -> Vec<(f64, f64)> {
    let mut all = runs[0].calm.latencies.clone();
    for run in &runs[1..] {
        // Same bounds: it can't fail.
        let _ = all.add(&run.calm.latencies);
    }
    let at = |one_in: f64| all.value_at_quantile(1.0 - 1.0 / one_in) as f64 / 1000.0;
    [2.0, 5.0, 10.0, 100.0, 1000.0].map(|one_in| (one_in, at(one_in))).to_vec()
}

async fn run(contest: &Contest, launch: &Launch, relay: bool) -> Result<Run> {
    let (server, carrier) = launch.subject(contest.carrier, relay).await?;
    let mut outcomes = Vec::new();
    for phase in [contest.calm, contest.busy] {
        let plan = Plan { carrier, kind: contest.kind, rooms: phase.rooms, members: contest.members, at_once: AT_ONCE };
        let population = Population::connect_all(plan, &[server.place]).await?;
        outcomes.push(measure(&population, &[&server], phase.pace, contest.times).await?);
        population.disconnect_all().await;
    }
    server.stop().await?;
    let busy = outcomes.remove(1);
    Ok(Run { busy, calm: outcomes.remove(0) })
}

impl Run {
    fn efficiency(&self, relay: &Self) -> f64 {
        self.busy.per_cpu_second() / relay.busy.per_cpu_second()
    }

    fn json(&self) -> Value {
        json!({"busy": self.busy.json(), "calm": self.calm.json()})
    }
}

/// A ratio of each pair, against the goal of the issue.
fn judge(pairs: &[(Run, Run)], kind: Kind) -> (Table, Value, Vec<Bar>) {
    type Ratio = fn(&Run, &Run) -> f64;
    let goals: [(&str, Ratio, Option<f64>, bool); 7] = [
        ("deliveries per CPU second, busy", Run::efficiency, Some(0.8), true),
        ("deliveries per CPU second, calm", |a, b| a.calm.per_cpu_second() / b.calm.per_cpu_second(), None, true),
        ("deliveries/s, busy", |a, b| a.busy.rate() / b.busy.rate(), None, true),
        ("p50, calm", |a, b| a.calm.latency(50.0) / b.calm.latency(50.0), Some(1.2), false),
        ("p99, calm", |a, b| a.calm.latency(99.0) / b.calm.latency(99.0), Some(1.5), false),
        ("p50, busy", |a, b| a.busy.latency(50.0) / b.busy.latency(50.0), None, false),
        ("p99, busy", |a, b| a.busy.latency(99.0) / b.busy.latency(99.0), None, false),
    ];
    let mut table = Table::new(&["tandem / bare relay", "min / median / max", "goal", "reached"]);
    let (mut values, mut bars) = (serde_json::Map::new(), Vec::new());
    for (name, ratio, goal, at_least) in goals {
        let spread = Spread::of(pairs.iter().map(|(tandem, relay)| ratio(tandem, relay)).collect());
        let reached = goal.map(|goal| if at_least { spread.median >= goal } else { spread.median <= goal });
        table.row(vec![
            name.to_owned(),
            spread.text(3),
            goal.map_or("–".to_owned(), |goal| format!("{} {goal}", if at_least { "≥" } else { "≤" })),
            reached.map_or("–", |reached| if reached { "yes" } else { "no" }).to_owned(),
        ]);
        let mut value = spread.json();
        value["goal"] = goal.into();
        value["reached"] = reached.into();
        values.insert(name.to_owned(), value);
        if goal.is_some() {
            let Spread { min: low, median: middle, max: high } = spread;
            bars.push(Bar { name: format!("{}: {name}", kind.name()), low, middle, high, goal });
        }
    }
    (table, values.into(), bars)
}
