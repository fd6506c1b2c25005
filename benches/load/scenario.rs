//! The subcommands, from their arguments to a report.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ArgMatches;
use serde_json::json;

use super::args;
use super::crowd::Crowd;
use super::growth::{self, By};
use super::join_burst::{self, JoinBurst};
use super::link::Carrier;
use super::population::{AT_ONCE, Plan, Population};
use super::ratio::{self, Contest, Phase};
use super::report::{self, OUTCOME, Report, Table};
use super::run::{Pace, Times, measure, millis};
use super::server::{Launch, Server};
use super::wire::Kind;
use super::{crowd, idle, nodes, proc};

/// Binds this program to all cores but the last, which is the servers'.
pub(crate) fn leave_the_last_core() -> Result<()> {
    let cores = proc::cores();
    if cores < 2 {
        return Ok(());
    }
    let list = format!("0-{}", cores - 2);
    let own = std::process::id().to_string();
    let output = Command::new("taskset").args(["-a", "-c", "-p", &list, &own]).output();
    let output = output.context("--pin needs taskset: apt-get install util-linux")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// `load run`.
pub(crate) async fn one(matches: &ArgMatches) -> Result<Report> {
    let launch = args::launch(matches).relaying_all();
    let (kind, carrier) = args::kind_and_carrier(matches)?;
    let (rooms, members) = args::size(matches)?;
    let (pace, times) = (args::pace(matches), args::times(matches)?);
    let given: Vec<SocketAddr> = matches.get_many("server").into_iter().flatten().copied().collect();
    let pids: Vec<u32> = matches.get_many("pid").into_iter().flatten().copied().collect();
    let relay = matches.get_flag("relay");
    ensure!(!relay || matches!(kind, Kind::Heartbeat | Kind::Tick), "the relay knows no {}", kind.name());
    let mut servers = Vec::new();
    for (index, address) in given.iter().enumerate() {
        servers.push(Server::running(*address, pids.get(index).copied()).await?);
    }
    let mut spoken = carrier;
    if servers.is_empty() {
        let (server, spoken_there) = launch.subject(carrier, relay).await?;
        servers.push(server);
        spoken = spoken_there;
    }
    let places: Vec<_> = servers.iter().map(|server| server.place).collect();
    let population =
        Population::connect_all(Plan { carrier: spoken, kind, rooms, members, at_once: AT_ONCE }, &places).await?;
    let joins = population.joins_per_second();
    let outcome = measure(&population, &servers.iter().collect::<Vec<_>>(), pace, times).await?;
    let caption = format!(
        "{} over {}: {rooms} rooms of {members}, {} for {:.1} s; {} joins/s before it; the client used {:.0} % of a core, \
         its senders were {:.3} ms late at p99; {} ticks were coalesced",
        kind.name(),
        spoken.name(),
        pace.words(),
        outcome.seconds,
        report::thousands(joins),
        100.0 * outcome.client_cpu.total() / outcome.seconds,
        millis(&outcome.late, 99.0),
        outcome.coalesced,
    );
    let mut table = Table::new(&OUTCOME);
    table.row(report::outcome(&outcome));
    let mut tables = vec![(caption, table)];
    if places.len() > 1 {
        let mut table = Table::new(&["deliveries", "p50 ms", "p99 ms", "p99.9 ms", "max ms"]);
        let at = |percent| format!("{:.3}", millis(&outcome.elsewhere, percent));
        table.row(vec![outcome.elsewhere.len().to_string(), at(50.0), at(99.0), at(99.9), at(100.0)]);
        tables.push(("To members on other nodes than the sender".to_owned(), table));
    }
    population.disconnect_all().await;
    for server in servers {
        server.stop().await?;
    }
    let json = json!({
        "kind": kind.name(), "transport": spoken.name(), "rooms": rooms, "members": members, "pace": pace.words(),
        "joinsPerSecond": joins, "outcome": outcome.json(),
    });
    Ok(Report { name: "run", json, tables, plots: Vec::new() })
}

/// `load ratio`.
pub(crate) async fn ratios(matches: &ArgMatches) -> Result<Report> {
    let (rooms, members) = args::size(matches)?;
    let sizes = Sizes { rooms, members, window: args::count(matches, "window")?, hertz: args::rate(matches) };
    let of = matches.get_one::<String>("of").map_or("both", String::as_str);
    let (pairs, times) = (args::count(matches, "pairs")?, args::times(matches)?);
    contests(of, sizes, pairs, times, &args::launch(matches)).await
}

/// The contests of the goals.
pub(crate) async fn goals(launch: &Launch, pairs: usize, times: Times) -> Result<Report> {
    contests("both", Sizes { rooms: 20, members: 10, window: 4, hertz: 20.0 }, pairs, times, launch).await
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    rooms: usize,
    members: usize,
    window: usize,
    hertz: f64,
}

async fn contests(of: &str, sizes: Sizes, pairs: usize, times: Times, launch: &Launch) -> Result<Report> {
    let Sizes { rooms, members, window, hertz } = sizes;
    let contests = [
        (Carrier::WebSocket, Kind::Heartbeat, window),
        // A waiting tick is replaced by the next one, so a room has one under way.
        (Carrier::WebTransport, Kind::Tick, 1),
    ];
    let mut findings = Vec::new();
    for (carrier, kind, window) in contests.into_iter().filter(|contest| of == "both" || of == contest.1.name()) {
        let phase = |pace| Phase { rooms, pace };
        let (busy, calm) = (phase(Pace::Closed(window)), phase(Pace::Rate(hertz)));
        findings.push(ratio::contest(&Contest { carrier, kind, members, busy, calm, pairs, times }, launch).await?);
    }
    Ok(ratio::report(findings))
}

/// Every kind of load over both transports, at a rate and in a closed loop.
pub(crate) async fn kinds(launch: &Launch, times: Times) -> Result<Report> {
    const ROOMS: usize = 20;
    const MEMBERS: usize = 10;
    let mut table = Table::new(&[&["what", "transport", "pace"][..], &OUTCOME].concat());
    let mut values = Vec::new();
    for kind in [Kind::Heartbeat, Kind::Tick, Kind::Play, Kind::Signal] {
        for carrier in [Carrier::WebSocket, Carrier::WebTransport] {
            let server = launch.tandem().await?;
            let plan = Plan { carrier, kind, rooms: ROOMS, members: MEMBERS, at_once: AT_ONCE };
            let population = Population::connect_all(plan, &[server.place]).await?;
            for pace in [Pace::Rate(20.0), Pace::Closed(if kind == Kind::Tick { 1 } else { 4 })] {
                let outcome = measure(&population, &[&server], pace, times).await?;
                let names = [kind.name().to_owned(), carrier.name().to_owned(), pace.words()];
                table.row(names.into_iter().chain(report::outcome(&outcome)).collect());
                values.push(json!({
                    "kind": kind.name(), "transport": carrier.name(), "pace": pace.words(), "outcome": outcome.json(),
                }));
            }
            population.disconnect_all().await;
            server.stop().await?;
        }
    }
    let caption = format!("tandem alone, embedded: {ROOMS} rooms of {MEMBERS}");
    Ok(Report { name: "kinds", json: json!({"runs": values}), tables: vec![(caption, table)], plots: Vec::new() })
}

/// The subcommands of one figure.
pub(crate) async fn figure(name: &str, matches: &ArgMatches) -> Result<Report> {
    let (launch, times) = (args::launch(matches), args::times(matches)?);
    let sessions = || args::count(matches, "sessions");
    let members = || args::count(matches, "members");
    let most = || args::count(matches, "most");
    let deliveries = || matches.get_one::<f64>("deliveries").copied().unwrap_or(15_000.0).clamp(10.0, 1e6);
    match name {
        "crowd" => {
            let count = |name| args::count(matches, name);
            let size = Crowd {
                viewers: count("viewers")?,
                nodes: count("nodes")?,
                commands: count("commands")?,
                pairs: count("pairs")?,
            };
            ensure!(size.viewers >= 2 && size.nodes <= 8, "--viewers: at least 2; --nodes: at most 8");
            let stores = if size.nodes > 1 { Some(args::stores_of(matches).await?) } else { None };
            crowd::crowd(size, &launch, stores.as_ref(), times).await
        }
        "kinds" => kinds(&launch, times).await,
        "memory" => idle::memory(&launch, sessions()?, members()?).await,
        "idle" => idle::idle(&launch, sessions()?, members()?, times.window).await,
        "rooms" => growth::rooms(most()?, &launch, deliveries(), args::count(matches, "pairs")?, times).await,
        "members" => growth::walk(By::Members, most()?, &launch, deliveries(), times).await,
        "joins" => {
            let burst = JoinBurst {
                sessions: sessions()?,
                members: members()?,
                at_once: args::count(matches, "at-once")?,
                times: args::count(matches, "times")?,
            };
            join_burst::bursts(burst, &launch, &args::stores_of(matches).await?).await
        }
        _ => nodes::nodes(&launch, &args::stores_of(matches).await?, args::count(matches, "pairs")?, times).await,
    }
}
