//! All members connect at once: bursts of JOINs, and bursts of reconnects with the tokens of the memberships.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::clock;
use super::link::Carrier;
use super::population::{Plan, Population};
use super::report::{Report, Spread, Table, thousands};
use super::run::millis;
use super::server::{Launch, Server};
use super::stores::Stores;
use super::wire::Kind;

/// Size and number of the bursts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JoinBurst {
    pub(crate) sessions: usize,
    pub(crate) members: usize,
    pub(crate) at_once: usize,
    pub(crate) times: usize,
}

/// Between two bursts: disconnects are committed, sockets are closed.
const CALM: Duration = Duration::from_secs(1);

/// A place where memberships are kept.
struct Backend {
    name: &'static str,
    goal: Option<f64>,
    launch: Launch,
}

/// Both transports, embedded and with the stores, and the bare relays.
pub(crate) async fn bursts(burst: JoinBurst, launch: &Launch, stores: &Stores) -> Result<Report> {
    let mut with_stores = launch.clone();
    with_stores.settings.extend(stores.settings());
    let backends = [
        Backend { name: "embedded", goal: Some(4000.0), launch: launch.clone() },
        Backend { name: "Redis + PostgreSQL", goal: Some(2500.0), launch: with_stores },
    ];
    let mut table = Table::new(&[
        "server",
        "transport",
        "what",
        "per second: min / median / max",
        "goal",
        "p50 ms",
        "p99 ms",
        "CPU µs each",
    ]);
    let mut values = Vec::new();
    for carrier in [Carrier::WebSocket, Carrier::WebTransport] {
        for backend in &backends {
            let mut runs = Vec::new();
            for _ in 0..burst.times {
                runs.push(tandem(burst, carrier, backend.launch.tandem().await?).await?);
            }
            // The goals are the WebSocket's; a WebTransport handshake has a signature in it.
            let goal = backend.goal.filter(|_| carrier == Carrier::WebSocket);
            for (what, goal) in [("joins", goal), ("reconnects", None)] {
                let of: Vec<&Filled> = runs.iter().map(|run| if what == "joins" { &run.0 } else { &run.1 }).collect();
                values.push(add(&mut table, backend.name, carrier, what, goal, &of));
            }
        }
        let mut runs = Vec::new();
        for _ in 0..burst.times {
            let (server, spoken) = launch.subject(carrier, true).await?;
            let (population, fill) = fill(burst, spoken, &server).await?;
            population.disconnect_all().await;
            server.stop().await?;
            runs.push(fill);
        }
        values.push(add(&mut table, "bare relay", carrier, "joins", None, &runs.iter().collect::<Vec<_>>()));
    }
    let caption = format!(
        "{} sessions, rooms of {}, {} rooms fill at once; from the first packet of a connection to its ROOM_STATE",
        burst.sessions, burst.members, burst.at_once
    );
    let json = json!({"sessions": burst.sessions, "members": burst.members, "storms": values});
    Ok(Report { name: "joins", json, tables: vec![(caption, table)], plots: Vec::new() })
}

/// The figures of one burst.
struct Filled {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu_micros: f64,
}

async fn tandem(burst: JoinBurst, carrier: Carrier, server: Server) -> Result<(Filled, Filled)> {
    let (population, joins) = fill(burst, carrier, &server).await?;
    clock::pause(CALM).await;
    let before = server.cpu()?.total();
    let population = population.reconnect(&[server.place]).await?;
    let reconnects = figures(&population, server.cpu()?.total() - before);
    population.check()?;
    population.disconnect_all().await;
    server.stop().await?;
    Ok((joins, reconnects))
}

async fn fill(burst: JoinBurst, carrier: Carrier, server: &Server) -> Result<(Population, Filled)> {
    // As v3 clients: they get tokens.
    let rooms = burst.sessions.div_ceil(burst.members);
    let plan = Plan { carrier, kind: Kind::Tick, rooms, members: burst.members, at_once: burst.at_once };
    let before = server.cpu()?.total();
    let population = Population::connect_all(plan, &[server.place]).await?;
    let fill = figures(&population, server.cpu()?.total() - before);
    Ok((population, fill))
}

fn figures(population: &Population, cpu: f64) -> Filled {
    let at = |percent| millis(&population.join_latencies, percent);
    Filled {
        per_second: population.joins_per_second(),
        p50: at(50.0),
        p99: at(99.0),
        cpu_micros: 1e6 * cpu / population.size() as f64,
    }
}

fn add(
    table: &mut Table,
    server: &str,
    carrier: Carrier,
    what: &str,
    goal: Option<f64>,
    runs: &[&Filled],
) -> serde_json::Value {
    let spread = |of: fn(&Filled) -> f64| Spread::of(runs.iter().map(|fill| of(fill)).collect());
    let (rate, p50, p99) = (spread(|fill| fill.per_second), spread(|fill| fill.p50), spread(|fill| fill.p99));
    let cpu = spread(|fill| fill.cpu_micros);
    table.row(vec![
        server.to_owned(),
        carrier.name().to_owned(),
        what.to_owned(),
        rate.text(0),
        goal.map_or("–".to_owned(), |goal| format!("≥ {}", thousands(goal))),
        format!("{:.2}", p50.median),
        format!("{:.2}", p99.median),
        format!("{:.0}", cpu.median),
    ]);
    json!({
        "server": server, "transport": carrier.name(), "what": what, "perSecond": rate.json(), "goal": goal,
        "p50Ms": p50.json(), "p99Ms": p99.json(), "cpuMicros": cpu.json(),
    })
}
