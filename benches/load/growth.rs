//! How the cost of a delivery grows: with the number of rooms, and with the members of a room.
//!
//! All steps have about the same deliveries a second, so that what differs is the number of rooms or members. What
//! WebSocket sessions cost without messages (pings, at their own times) is measured before each step and taken off;
//! QUIC asks for a sign of life only when there is silence, so with ticks there is nothing to take off. A walk shows
//! the shape; machines are too noisy for one walk to say by how much the end is dearer, so the two ends are measured in
//! turn as well. Large rooms relay every tick here (`FULL_PRESENCE_MEMBERS`), as the bare relay does.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};

use super::clock;
use super::link::Carrier;
use super::plot::{self, Frame, Series};
use super::population::{AT_ONCE, Plan, Population};
use super::report::{Report, Spread, Table, thousands};
use super::run::{Outcome, Pace, Times, measure};
use super::server::Launch;
use super::wire::Kind;

/// Before the look at what idle sessions cost, and before the load where there is none.
const SETTLE: Duration = Duration::from_secs(2);
/// Their heartbeats come once in so long, many of them together: a shorter look sees too many or none.
const PERIOD: Duration = Duration::from_secs(10);
/// The cost of fewer sessions disappears in the noise.
const MANY: usize = 1000;

/// A datagram costs about three times what a text costs, and a machine that has nothing left shows queues, not costs.
const WEB_TRANSPORT: f64 = 3.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Rooms,
    Members,
}

/// Room counts and members of each, for a walk to `most`.
fn steps(by: By, most: usize) -> Vec<(usize, usize)> {
    let steps = match by {
        By::Rooms => [10, 50, 200, 1000, 2000, 5000].map(|rooms| (rooms, 3)).to_vec(),
        By::Members => [2, 5, 10, 25, 50, 100, 200].map(|members| ((400 / members).max(2), members)).to_vec(),
    };
    let within = |&(rooms, members): &(usize, usize)| if by == By::Rooms { rooms <= most } else { members <= most };
    steps.into_iter().filter(within).collect()
}

/// Of the longest walk.
pub(crate) const MOST: usize = 5000;

const COLUMNS: [&str; 11] = [
    "transport",
    "rooms",
    "members",
    "deliveries/s",
    "µs a delivery",
    "of it idle",
    "net",
    "relay, net",
    "tandem / relay",
    "p50 ms",
    "p99 ms",
];

/// The cost of a delivery on one server, µs of its CPU time.
struct Cost {
    idle: f64,
    gross: f64,
    outcome: Outcome,
}

impl Cost {
    /// Without what the sessions cost anyway.
    fn net(&self) -> f64 {
        self.gross - self.idle
    }
}

/// Deliveries a second over a transport, of those asked for over WebSocket.
fn share(carrier: Carrier, deliveries: f64) -> f64 {
    if carrier == Carrier::WebSocket { deliveries } else { deliveries / WEB_TRANSPORT }
}

const CONTESTS: [(Carrier, Kind); 2] = [(Carrier::WebSocket, Kind::Heartbeat), (Carrier::WebTransport, Kind::Tick)];

/// One step on tandem, or on the bare relay of the plan's transport, in a fresh process.
async fn cost(launch: &Launch, relay: bool, plan: &Plan, deliveries: f64, times: Times) -> Result<Cost> {
    let (server, carrier) = launch.subject(plan.carrier, relay).await?;
    let (rooms, members) = (plan.rooms, plan.members);
    let rate = deliveries / (rooms * plan.kind.receivers(members)) as f64;
    let population = Population::connect_all(Plan { carrier, ..plan.clone() }, &[server.place]).await?;
    clock::pause(SETTLE).await;
    let resting = if carrier == Carrier::WebSocket {
        let (before, started) = (server.cpu()?, clock::micros());
        let look = if rooms * members >= MANY { times.window.max(PERIOD) } else { times.window };
        clock::pause(look).await;
        server.cpu()?.since(before).total() / clock::as_seconds(clock::micros() - started)
    } else {
        0.0
    };
    let outcome = measure(&population, &[&server], Pace::Rate(rate), times).await?;
    population.disconnect_all().await;
    server.stop().await?;
    ensure!(outcome.deliveries > 0, "{rooms} rooms of {members}: nothing arrives, this machine has no time left");
    let each = |seconds: f64| 1e6 * seconds / outcome.deliveries as f64;
    Ok(Cost { idle: each(resting * outcome.seconds), gross: each(outcome.cpu.total()), outcome })
}

/// The row of a step that this machine could not take.
fn failed(carrier: Carrier, rooms: usize, members: usize, error: &anyhow::Error) -> Vec<String> {
    eprintln!("{rooms} rooms of {members}, {}: {error:#}", carrier.name());
    let mut row =
        vec![carrier.name().to_owned(), thousands(rooms as f64), members.to_string(), format!("failed: {error:#}")];
    row.resize(COLUMNS.len(), "–".to_owned());
    row
}

/// The walk by rooms, then its ends in turn.
pub(crate) async fn rooms(most: usize, launch: &Launch, deliveries: f64, pairs: usize, times: Times) -> Result<Report> {
    let mut report = walk(By::Rooms, most, launch, deliveries, times).await?;
    let (values, caption, table) = ends(most, launch, deliveries, pairs, times).await?;
    report.json["ends"] = values;
    report.tables.push((caption, table));
    Ok(report)
}

/// The fewest and the most rooms, in turn, each time in fresh processes.
async fn ends(
    most: usize,
    launch: &Launch,
    deliveries: f64,
    pairs: usize,
    times: Times,
) -> Result<(Value, String, Table)> {
    let steps = steps(By::Rooms, most);
    let (Some(&few), Some(&many)) = (steps.first(), steps.last()) else { bail!("no room at all") };
    let mut table = Table::new(&["transport", "server", "µs a delivery, few", "many", "many / few (goal ≤ 1.2)"]);
    let mut values = Vec::new();
    for (carrier, kind) in CONTESTS {
        // Of tandem and of the relay: what few rooms cost, and many.
        let mut costs = [const { [const { Vec::new() }; 2] }; 2];
        for pair in 1..=pairs {
            for (of_server, relay) in costs.iter_mut().zip([false, true]) {
                for (of_step, (rooms, members)) in of_server.iter_mut().zip([few, many]) {
                    let plan = Plan { carrier, kind, rooms, members, at_once: AT_ONCE };
                    of_step.push(cost(launch, relay, &plan, share(carrier, deliveries), times).await?.net());
                }
            }
            eprintln!("{}: few and many rooms, pair {pair} of {pairs}", carrier.name());
        }
        let growth =
            |[few, many]: &[Vec<f64>; 2]| -> Vec<f64> { many.iter().zip(few).map(|(many, few)| many / few).collect() };
        for (name, of_server) in ["tandem", "bare relay"].into_iter().zip(&costs) {
            let [few, many] = of_server.each_ref().map(|costs| Spread::of(costs.clone()));
            let ratio = Spread::of(growth(of_server));
            let cells = [carrier.name(), name, &few.text(1), &many.text(1), &ratio.text(2)];
            table.row(cells.map(str::to_owned).into());
            values.push(json!({
                "transport": carrier.name(), "server": name, "fewMicros": few.json(), "manyMicros": many.json(),
                "ratio": ratio.json(),
            }));
        }
        let [tandem, relay] = costs.each_ref().map(growth);
        let beside = Spread::of(tandem.iter().zip(&relay).map(|(tandem, relay)| tandem / relay).collect());
        table.row([carrier.name(), "tandem / bare relay", "–", "–", &beside.text(2)].map(str::to_owned).into());
        values.push(json!({"transport": carrier.name(), "server": "tandem / bare relay", "ratio": beside.json()}));
    }
    let caption =
        format!("Few and many rooms ({} and {}) in turn, net: min / median / max", few.0, thousands(many.0 as f64));
    Ok((values.into(), caption, table))
}

/// Steps of both transports, tandem and the bare relay in turn.
pub(crate) async fn walk(by: By, most: usize, launch: &Launch, deliveries: f64, times: Times) -> Result<Report> {
    let launch = &launch.relaying_all();
    let mut table = Table::new(&COLUMNS);
    let (mut values, mut series) = (Vec::<Value>::new(), Vec::new());
    for (carrier, kind) in CONTESTS {
        let (mut points, mut limits) = (Vec::new(), Vec::new());
        let deliveries = share(carrier, deliveries);
        for (rooms, members) in steps(by, most) {
            let plan = Plan { carrier, kind, rooms, members, at_once: AT_ONCE };
            let step = async {
                let tandem = cost(launch, false, &plan, deliveries, times).await?;
                Ok((tandem, cost(launch, true, &plan, deliveries, times).await?))
            };
            let (tandem, relay) = match step.await {
                Ok(both) => both,
                Err(error) => {
                    // What the smaller steps found is not worth less for it.
                    table.row(failed(carrier, rooms, members, &error));
                    values.push(json!({"transport": carrier.name(), "rooms": rooms, "members": members, "failed": format!("{error:#}")}));
                    continue;
                }
            };
            let x = if by == By::Rooms { rooms } else { members } as f64;
            points.push((x, tandem.net()));
            limits.push((x, relay.net()));
            table.row(vec![
                carrier.name().to_owned(),
                thousands(rooms as f64),
                members.to_string(),
                thousands(tandem.outcome.rate()),
                format!("{:.2}", tandem.gross),
                format!("{:.2}", tandem.idle),
                format!("{:.2}", tandem.net()),
                format!("{:.2}", relay.net()),
                format!("{:.2}", tandem.net() / relay.net()),
                format!("{:.3}", tandem.outcome.latency(50.0)),
                format!("{:.3}", tandem.outcome.latency(99.0)),
            ]);
            let json = |cost: &Cost| json!({"grossMicros": cost.gross, "idleMicros": cost.idle, "netMicros": cost.net(), "outcome": cost.outcome.json()});
            values.push(json!({
                "transport": carrier.name(), "rooms": rooms, "members": members, "tandem": json(&tandem), "relay": json(&relay),
            }));
            eprintln!("{rooms} rooms of {members}, {}: {:.2} of the relay", carrier.name(), tandem.net() / relay.net());
        }
        series.push(Series { name: format!("tandem, {}", carrier.name()), points });
        series.push(Series { name: format!("bare relay, {}", carrier.name()), points: limits });
    }
    let (name, title, x) = match by {
        By::Rooms => ("rooms", "Server CPU time of a delivery, by the number of rooms", "rooms (of 3 members)"),
        By::Members => ("members", "Server CPU time of a delivery, by the size of a room", "members of a room"),
    };
    let frame = Frame { title, x, y: "µs of CPU a delivery, net of idle", logarithmic: false };
    let caption = format!(
        "about {} deliveries a second at every step, {} over WebTransport; CPU time of the server",
        thousands(deliveries),
        thousands(share(Carrier::WebTransport, deliveries))
    );
    Ok(Report {
        name,
        json: json!({"deliveriesPerSecond": deliveries, "steps": values}),
        tables: vec![(caption, table)],
        plots: vec![(name.to_owned(), plot::lines(frame, &series))],
    })
}
