//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::link::Carrier;
use super::proc;
use super::run::{Pace, Times};
use super::server::Launch;
use super::stores::Stores;
use super::wire::Kind;

/// Most of anything that may be asked for: a load must end, and leave the machine standing.
const MOST_MEMBERS: usize = 50_000;
const MOST_SECONDS: f64 = 600.0;

fn number(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").value_parser(value_parser!(usize)).default_value(default).help(help)
}

fn real(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("N").value_parser(value_parser!(f64)).help(help)
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

/// Adds the options that all measuring subcommands have.
fn common(command: Command) -> Command {
    command
        .arg(real("secs", "length of a measurement, s").default_value("4"))
        .arg(real("warmup", "load before it, s").default_value("1"))
        .arg(path("json", "write the figures here, and the plots beside"))
        .arg(flag("pin", "servers on the last core, this program on the others"))
        .arg(path("server-bin", "another binary of tandem than this build's"))
        .arg(relay_by())
}

fn kinds() -> Arg {
    Arg::new("kind").long("kind").value_parser(Kind::NAMES).default_value("heartbeat").help("what is sent")
}

/// How the bare WebSocket relay is made, the strongest first.
pub(crate) const RELAYS: [&str; 3] = ["hand", "axum-tasks", "axum"];

fn relay_by() -> Arg {
    Arg::new("by").long("by").value_parser(RELAYS).default_value(RELAYS[0]).help("how the WebSocket relay is made")
}

fn transports() -> Arg {
    Arg::new("transport")
        .long("transport")
        .value_parser(["ws", "wt"])
        .help("WebSocket or WebTransport [default: wt for ticks, else ws]")
}

/// All subcommands.
pub(crate) fn command() -> Command {
    let run = common(Command::new("run").about("one scenario, against tandem or a bare relay"))
        .args([kinds(), transports(), number("rooms", "20", "rooms"), number("members", "10", "members of each")])
        .arg(real("rate", "messages a second of each room [default: 20]"))
        .arg(Arg::new("window").long("window").value_name("N").value_parser(value_parser!(usize)).help("instead: a closed loop with so many under way"))
        .arg(flag("relay", "against the bare relay"))
        .arg(
            Arg::new("server")
                .long("server")
                .value_name("ADDRESS")
                .value_parser(value_parser!(SocketAddr))
                .action(ArgAction::Append)
                .help("plain HTTP address of a server that runs already, on this machine; several: nodes, members in turn"),
        )
        .arg(
            Arg::new("pid")
                .long("pid")
                .value_parser(value_parser!(u32))
                .action(ArgAction::Append)
                .help("its process, in the order of --server, to measure its costs"),
        );
    let ratio = common(Command::new("ratio").about("tandem and the bare relay in turn: the ratios"))
        .arg(
            Arg::new("of")
                .value_parser(["heartbeat", "tick", "both"])
                .default_value("both")
                .help("heartbeats over WebSocket, ticks over WebTransport"),
        )
        .args([
            number("pairs", "5", "runs of each"),
            number("members", "10", "members of a room"),
            number("rooms", "20", "rooms"),
            number(
                "window",
                "4",
                "heartbeats under way in each room of the closed loop; ticks: 1, since a waiting one is replaced",
            ),
        ])
        .arg(real("rate", "messages a second of each room, for latencies").default_value("20"));
    let relay = |name: &'static str, about: &'static str| {
        Command::new(name).about(about).arg(
            Arg::new("address")
                .long("address")
                .value_parser(value_parser!(SocketAddr))
                .default_value("127.0.0.1:0")
                .help("where"),
        )
    };
    let sessions = |name: &'static str, about: &'static str, sessions: &'static str| {
        common(Command::new(name).about(about))
            .args([number("sessions", sessions, "sessions"), number("members", "10", "members of a room")])
    };
    let growth = |name: &'static str, about: &'static str| {
        common(Command::new(name).about(about))
            .arg(real("deliveries", "deliveries a second at every step").default_value("15000"))
            .arg(number("most", "5000", "where to end"))
    };
    let joins = sessions("joins", "bursts of joins and reconnects, embedded and with Redis + PostgreSQL", "5000")
        .args([number("at-once", "48", "rooms that fill at once"), number("times", "3", "bursts of each kind")]);
    let crowd = common(Command::new("crowd").about("one room with a large audience, and the bare relays in turn"))
        .args([
            number("viewers", "10000", "viewers, half of them on each transport"),
            number("nodes", "1", "nodes, on one Redis and one PostgreSQL if there are several"),
            number("commands", "20", "commands of the host that are measured"),
            number("pairs", "1", "runs"),
        ]);
    let nodes = common(Command::new("nodes").about("two nodes on one Redis and one PostgreSQL")).arg(number(
        "pairs",
        "5",
        "runs of the tick comparison",
    ));
    let all = common(Command::new("all").about("everything, into files and into the tables of docs/PERFORMANCE.md"))
        .arg(number("pairs", "5", "runs of each comparison"))
        .arg(path("report", "directory for JSON and plots").default_value("docs/performance"))
        .arg(path("page", "page whose marked tables are replaced").default_value("docs/PERFORMANCE.md"));
    Command::new("load")
        .about("Puts tandem, and the bare relays beside it, under load")
        .subcommands([run, ratio])
        .subcommand(sessions("memory", "memory of joined, idle sessions", "5000"))
        .subcommand(sessions("idle", "CPU time of joined, idle sessions", "10000"))
        .subcommand(common(Command::new("kinds").about("every kind of load over both transports")))
        .subcommand(stores(joins))
        .subcommand(stores(crowd))
        .subcommand(growth("rooms", "cost of a delivery, from 10 rooms to 5,000").arg(number(
            "pairs",
            "3",
            "runs of the two ends",
        )))
        .subcommand(growth("members", "cost of a delivery, from 2 members a room to 200"))
        .subcommand(stores(nodes))
        .subcommand(stores(all))
        .subcommand(relay("relay-ws", "the bare WebSocket relay, until it is killed").arg(relay_by()))
        .subcommand(
            relay("relay-quic", "the bare datagram relay, until it is killed").arg(
                Arg::new("redis-url")
                    .long("redis-url")
                    .value_name("URL")
                    .help("several of them are one through this Redis"),
            ),
        )
}

fn path(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name("PATH").value_parser(value_parser!(PathBuf)).help(help)
}

/// Redis and PostgreSQL that run already.
fn stores(command: Command) -> Command {
    let url = |name: &'static str, other: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("URL")
            .requires(other)
            .help("on this machine, instead of one started for the run")
    };
    command.args([url("redis-url", "database-url"), url("database-url", "redis-url")])
}

pub(crate) fn launch(matches: &ArgMatches) -> Launch {
    let cores = proc::cores();
    let core = (matches.get_flag("pin") && cores > 1).then(|| cores - 1);
    let relay = matches.get_one::<String>("by").cloned().unwrap_or_else(|| RELAYS[0].to_owned());
    Launch { binary: matches.get_one::<PathBuf>("server-bin").cloned(), core, settings: Vec::new(), relay }
}

/// Redis and PostgreSQL: those that were named, or own ones.
pub(crate) async fn stores_of(matches: &ArgMatches) -> Result<Stores> {
    let url = |name| matches.get_one::<String>(name);
    match (url("redis-url"), url("database-url")) {
        (Some(redis), Some(database)) => Stores::at(redis, database),
        _ => Ok(Stores::start().await),
    }
}

/// A path that has a default.
pub(crate) fn path_of(matches: &ArgMatches, name: &str) -> Result<PathBuf> {
    matches.get_one::<PathBuf>(name).cloned().with_context(|| format!("--{name} is missing"))
}

/// Warm-up and window.
pub(crate) fn times(matches: &ArgMatches) -> Result<Times> {
    let of = |name| matches.get_one::<f64>(name).copied().unwrap_or(1.0);
    let (window, warmup) = (of("secs"), of("warmup"));
    let sane = |seconds: f64| (0.0..=MOST_SECONDS).contains(&seconds);
    ensure!(sane(window) && sane(warmup) && window > 0.0, "--secs and --warmup: at most {MOST_SECONDS} s");
    Ok(Times { warmup: Duration::from_secs_f64(warmup), window: Duration::from_secs_f64(window) })
}

/// A count that has a default.
pub(crate) fn count(matches: &ArgMatches, name: &str) -> Result<usize> {
    let count = matches.get_one::<usize>(name).copied().unwrap_or(1);
    ensure!((1..=MOST_MEMBERS).contains(&count), "--{name}: 1 to {MOST_MEMBERS}");
    Ok(count)
}

/// Rooms, and members of each.
pub(crate) fn size(matches: &ArgMatches) -> Result<(usize, usize)> {
    let (rooms, members) = (count(matches, "rooms")?, count(matches, "members")?);
    ensure!(members >= 2, "--members: at least 2, one speaks and one listens");
    ensure!(rooms * members <= MOST_MEMBERS, "at most {MOST_MEMBERS} members in all");
    Ok((rooms, members))
}

pub(crate) fn kind_and_carrier(matches: &ArgMatches) -> Result<(Kind, Carrier)> {
    let kind = matches.get_one::<String>("kind").and_then(|name| Kind::parse(name)).unwrap_or(Kind::Heartbeat);
    let carrier = match matches.get_one::<String>("transport").map(String::as_str) {
        Some("ws") => Carrier::WebSocket,
        Some(_) => Carrier::WebTransport,
        None if kind == Kind::Tick => Carrier::WebTransport,
        None => Carrier::WebSocket,
    };
    Ok((kind, carrier))
}

/// Rate or closed loop.
pub(crate) fn pace(matches: &ArgMatches) -> Pace {
    match matches.get_one::<usize>("window") {
        Some(window) => Pace::Closed((*window).max(1)),
        None => Pace::Rate(rate(matches)),
    }
}

/// Messages a second.
pub(crate) fn rate(matches: &ArgMatches) -> f64 {
    matches.get_one::<f64>("rate").copied().unwrap_or(20.0).clamp(0.01, 10_000.0)
}
