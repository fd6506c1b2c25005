//! Everybody comes at once: join storms, and reconnect storms with the tokens of the memberships.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::clock;
use super::crowd::{Crowd, Plan};
use super::link::Carrier;
use super::report::{Report, Spread, Table, thousands};
use super::run::millis;
use super::server::{Launch, Server};
use super::stores::Stores;
use super::wire::Kind;

/// How large, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) sessions: usize,
    pub(crate) members: usize,
    pub(crate) at_once: usize,
    pub(crate) times: usize,
}

/// Between a storm and the next one: disconnects are committed, sockets are closed.
const CALM: Duration = Duration::from_secs(1);

/// Where memberships are kept.
struct Backend {
    name: &'static str,
    goal: Option<f64>,
    launch: Launch,
}

/// Both transports, embedded and with the stores, and the bare relays.
pub(crate) async fn storms(storm: Storm, launch: &Launch, stores: &Stores) -> Result<Report> {
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
            for _ in 0..storm.times {
                runs.push(tandem(storm, carrier, backend.launch.tandem().await?).await?);
            }
            // The goals are the WebSocket's; a WebTransport handshake has a signature in it.
            let goal = backend.goal.filter(|_| carrier == Carrier::WebSocket);
            for (what, goal) in [("joins", goal), ("reconnects", None)] {
                let of: Vec<&Gust> = runs.iter().map(|run| if what == "joins" { &run.0 } else { &run.1 }).collect();
                values.push(add(&mut table, backend.name, carrier, what, goal, &of));
            }
        }
        let mut runs = Vec::new();
        for _ in 0..storm.times {
            let (server, spoken) = launch.subject(carrier, true).await?;
            let (crowd, gust) = gust(storm, spoken, &server).await?;
            crowd.disperse().await;
            server.stop().await?;
            runs.push(gust);
        }
        values.push(add(&mut table, "bare relay", carrier, "joins", None, &runs.iter().collect::<Vec<_>>()));
    }
    let caption = format!(
        "{} sessions, rooms of {}, {} rooms fill at once; from the first packet of a connection to its ROOM_STATE",
        storm.sessions, storm.members, storm.at_once
    );
    let json = json!({"sessions": storm.sessions, "members": storm.members, "storms": values});
    Ok(Report { name: "joins", json, tables: vec![(caption, table)], plots: Vec::new() })
}

/// How one storm went.
struct Gust {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu_micros: f64,
}

async fn tandem(storm: Storm, carrier: Carrier, server: Server) -> Result<(Gust, Gust)> {
    let (crowd, joins) = gust(storm, carrier, &server).await?;
    clock::pause(CALM).await;
    let before = server.cpu()?.total();
    let crowd = crowd.reconnect(&[server.place]).await?;
    let reconnects = figures(&crowd, server.cpu()?.total() - before);
    crowd.check()?;
    crowd.disperse().await;
    server.stop().await?;
    Ok((joins, reconnects))
}

async fn gust(storm: Storm, carrier: Carrier, server: &Server) -> Result<(Crowd, Gust)> {
    // As v3 clients: they get tokens.
    let rooms = storm.sessions.div_ceil(storm.members);
    let plan = Plan { carrier, kind: Kind::Tick, rooms, members: storm.members, at_once: storm.at_once };
    let before = server.cpu()?.total();
    let crowd = Crowd::gather(plan, &[server.place]).await?;
    let gust = figures(&crowd, server.cpu()?.total() - before);
    Ok((crowd, gust))
}

fn figures(crowd: &Crowd, cpu: f64) -> Gust {
    let at = |percent| millis(&crowd.join_latencies, percent);
    Gust {
        per_second: crowd.joins_per_second(),
        p50: at(50.0),
        p99: at(99.0),
        cpu_micros: 1e6 * cpu / crowd.size() as f64,
    }
}

fn add(
    table: &mut Table,
    server: &str,
    carrier: Carrier,
    what: &str,
    goal: Option<f64>,
    runs: &[&Gust],
) -> serde_json::Value {
    let spread = |of: fn(&Gust) -> f64| Spread::of(runs.iter().map(|gust| of(gust)).collect());
    let (rate, p50, p99) = (spread(|gust| gust.per_second), spread(|gust| gust.p50), spread(|gust| gust.p99));
    let cpu = spread(|gust| gust.cpu_micros);
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
