//! Sessions that are joined and silent: what they cost in memory, and in CPU time.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::clock;
use super::link::Carrier;
use super::plot::{self, Frame, Series};
use super::population::{AT_ONCE, Plan, Population};
use super::report::{Report, Table, thousands};
use super::server::{Launch, Server};
use super::wire::Kind;

/// After joining: the last events are delivered, buffers are given back.
const SETTLE: Duration = Duration::from_secs(3);
/// Sessions that come and go before the first look at a server's memory, so that its code is in it.
const FIRST: usize = 20;

/// Name, whether it is tandem, and transport of each server measured.
const SUBJECTS: [(&str, bool, Carrier); 4] = [
    ("tandem", false, Carrier::WebSocket),
    ("bare relay", true, Carrier::WebSocket),
    ("tandem", false, Carrier::WebTransport),
    ("bare relay", true, Carrier::WebTransport),
];

async fn connect_all(server: &Server, carrier: Carrier, sessions: usize, members: usize) -> Result<Population> {
    let rooms = sessions.div_ceil(members);
    Population::connect_all(Plan { carrier, kind: Kind::Tick, rooms, members, at_once: AT_ONCE }, &[server.place]).await
}

/// `load memory`: resident memory on the way to so many sessions.
pub(crate) async fn memory(launch: &Launch, sessions: usize, members: usize) -> Result<Report> {
    let mut table = Table::new(&["server", "transport", "sessions", "MiB", "KiB a session", "goal"]);
    let (mut values, mut series) = (Vec::new(), Vec::new());
    for (name, relay, carrier) in SUBJECTS {
        let (server, spoken) = launch.subject(carrier, relay).await?;
        connect_all(&server, spoken, FIRST, members).await?.disconnect_all().await;
        clock::pause(SETTLE).await;
        let empty = resident(&server)?;
        let (mut populations, mut present, mut points) = (Vec::new(), 0, Vec::new());
        for share in [0.1, 0.2, 0.5, 1.0] {
            let more = (sessions as f64 * share) as usize - present;
            let population = connect_all(&server, spoken, more.max(members), members).await?;
            present += population.size();
            populations.push(population);
            clock::pause(SETTLE).await;
            let each = (resident(&server)? - empty) / 1024.0 / present as f64;
            points.push((present as f64, each));
            let goal = match (share, relay, carrier) {
                (1.0, false, Carrier::WebSocket) => "≤ 10",
                (1.0, false, _) => "≤ 35",
                _ => "–",
            };
            table.row(vec![
                name.to_owned(),
                carrier.name().to_owned(),
                thousands(present as f64),
                format!("{:.1}", resident(&server)? / f64::from(1 << 20)),
                format!("{each:.1}"),
                goal.to_owned(),
            ]);
        }
        for population in populations {
            population.check()?;
            population.disconnect_all().await;
        }
        server.stop().await?;
        values.push(json!({"server": name, "transport": carrier.name(), "kibASession": points}));
        series.push(Series { name: format!("{name}, {}", carrier.name()), points });
    }
    let frame =
        Frame { title: "Memory of a session, joined and idle", x: "sessions", y: "KiB a session", logarithmic: false };
    Ok(Report {
        name: "memory",
        json: json!({"members": members, "subjects": values}),
        tables: vec![(format!("rooms of {members}; resident memory above that of the empty server"), table)],
        plots: vec![("memory".to_owned(), plot::lines(frame, &series))],
    })
}

fn resident(server: &Server) -> Result<f64> {
    Ok(server.pid.map_or(Ok(0), |pid| pid.resident())? as f64)
}

/// `load idle`: the share of a core that so many sessions take.
pub(crate) async fn idle(launch: &Launch, sessions: usize, members: usize, window: Duration) -> Result<Report> {
    let mut table = Table::new(&["server", "transport", "sessions", "% of one core", "goal", "threads"]);
    let mut values: Vec<Value> = Vec::new();
    for (name, relay, carrier) in SUBJECTS {
        let (server, spoken) = launch.subject(carrier, relay).await?;
        let population = connect_all(&server, spoken, sessions, members).await?;
        clock::pause(SETTLE).await;
        let (before, started) = (server.cpu()?, clock::micros());
        clock::pause(window).await;
        let seconds = clock::as_seconds(clock::micros() - started);
        let share = 100.0 * server.cpu()?.since(before).total() / seconds;
        let threads = server.pid.map_or(Ok(0), |pid| pid.threads())?;
        population.check()?;
        table.row(vec![
            name.to_owned(),
            carrier.name().to_owned(),
            thousands(population.size() as f64),
            format!("{share:.2}"),
            if relay { "–" } else { "< 3" }.to_owned(),
            threads.to_string(),
        ]);
        values.push(json!({"server": name, "transport": carrier.name(), "sessions": population.size(), "percentOfOneCore": share, "seconds": seconds}));
        population.disconnect_all().await;
        server.stop().await?;
    }
    let caption = format!("rooms of {members}, all joined, nobody speaks; over {} s", window.as_secs());
    Ok(Report { name: "idle", json: json!({"subjects": values}), tables: vec![(caption, table)], plots: Vec::new() })
}
