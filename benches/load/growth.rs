//! How the cost of a delivery grows: with the number of rooms, and with the members of a room.
//!
//! All steps have about the same deliveries a second, so that what differs is the number of rooms or members. What the
//! sessions cost while nobody speaks (their heartbeats) is measured before each step and taken off.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::clock;
use super::crowd::{AT_ONCE, Crowd, Plan};
use super::link::Carrier;
use super::plot::{self, Frame, Series};
use super::report::{Report, Table, thousands};
use super::run::{Pace, Times, measure};
use super::server::Launch;
use super::wire::Kind;

/// Before the look at what idle sessions cost.
const SETTLE: Duration = Duration::from_secs(2);

/// What is varied.
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

/// One line of the plot for each transport.
pub(crate) async fn walk(by: By, most: usize, launch: &Launch, deliveries: f64, times: Times) -> Result<Report> {
    let mut table = Table::new(&[
        "transport",
        "rooms",
        "members",
        "deliveries/s",
        "CPU µs a delivery",
        "of it idle",
        "net",
        "to the first",
        "p50 ms",
        "p99 ms",
    ]);
    let (mut values, mut series) = (Vec::<Value>::new(), Vec::new());
    for (carrier, kind) in [(Carrier::WebSocket, Kind::Heartbeat), (Carrier::WebTransport, Kind::Tick)] {
        let mut points = Vec::new();
        for (rooms, members) in steps(by, most) {
            let server = launch.tandem().await?;
            let plan = Plan { carrier, kind, rooms, members, at_once: AT_ONCE };
            let crowd = Crowd::gather(plan, &[server.place]).await?;
            clock::pause(SETTLE).await;
            let (before, started) = (server.cpu()?, clock::micros());
            clock::pause(times.window).await;
            let idle = server.cpu()?.since(before).total() / clock::as_seconds(clock::micros() - started);
            let rate = deliveries / (rooms * kind.receivers(members)) as f64;
            let outcome = measure(&crowd, &[&server], Pace::Rate(rate), times).await?;
            crowd.disperse().await;
            server.stop().await?;
            let gross = 1e6 * outcome.cpu.total() / outcome.deliveries as f64;
            let resting = 1e6 * idle * outcome.seconds / outcome.deliveries as f64;
            let net = gross - resting;
            points.push((if by == By::Rooms { rooms } else { members } as f64, net));
            let first = points[0].1;
            table.row(vec![
                carrier.name().to_owned(),
                thousands(rooms as f64),
                members.to_string(),
                thousands(outcome.rate()),
                format!("{gross:.2}"),
                format!("{resting:.2}"),
                format!("{net:.2}"),
                format!("{:.2} ×", net / first),
                format!("{:.3}", outcome.latency(50.0)),
                format!("{:.3}", outcome.latency(99.0)),
            ]);
            values.push(json!({
                "transport": carrier.name(), "rooms": rooms, "members": members, "grossMicros": gross,
                "idleMicros": resting, "netMicros": net, "outcome": outcome.json(),
            }));
        }
        series.push(Series { name: format!("{}, {}", carrier.name(), kind.name()), points });
    }
    let (name, title, x) = match by {
        By::Rooms => ("rooms", "Server CPU time of a delivery, by the number of rooms", "rooms (of 3 members)"),
        By::Members => ("members", "Server CPU time of a delivery, by the size of a room", "members of a room"),
    };
    let frame = Frame { title, x, y: "µs of CPU a delivery, net of idle", logarithmic: false };
    let caption = format!("about {} deliveries a second at every step", thousands(deliveries));
    Ok(Report {
        name,
        json: json!({"deliveriesPerSecond": deliveries, "steps": values}),
        tables: vec![(caption, table)],
        plots: vec![(name.to_owned(), plot::lines(frame, &series))],
    })
}
