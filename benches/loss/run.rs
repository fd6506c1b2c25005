//! Options, and the course of a run.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::figures::{Place, Room, Route, point};
use super::line::link::Conditions;
use super::line::tunnel::{self, BothWays, End, LineSet};
use super::setup::{Load, Measured, Setup};
use super::viewer::{self, Carrier, Member, Party, Told};
use super::{lines, panels, report};

/// The namespaces are ours alone, so the ports can be anything.
const PORT: u16 = 4433;
const CARRIERS: [Carrier; 2] = [Carrier::WebTransport, Carrier::WebSocket];
const CHILD: &str = "as-viewers";
/// All viewers are at one end.
const FAR: End = End::Far(0);

const LOADS: [Load; 2] = [
    // `HOST_TICK_MS` and `TICK_MS` of web-demo/client/report.js.
    Load {
        name: "client",
        title: "as our client ticks: host 4 Hz, others 1 Hz",
        rooms: 20,
        viewers: 3,
        host_hz: 4.0,
        viewer_hz: 1.0,
    },
    // The most that suits TCP: every next packet tells it soon of the one that was lost.
    Load { name: "dense", title: "everybody ticks at 20 Hz", rooms: 2, viewers: 3, host_hz: 20.0, viewer_hz: 20.0 },
];

fn command() -> Command {
    fn option(name: &'static str, default: &'static str, help: &'static str) -> Arg {
        Arg::new(name).long(name).default_value(default).help(help)
    }
    let number = || value_parser!(u64);
    let run = Command::new("run")
        .about("Measures, prints a table, and writes JSON and a plot")
        .arg(
            option("loss", "0,1,2,5", "Loss each way, percent, a list")
                .value_delimiter(',')
                .value_parser(value_parser!(f64)),
        )
        .arg(option("rtt", "100", "Round trip without jitter, ms").value_parser(number()))
        .arg(option("jitter", "4", "Each way takes up to so much longer, ms").value_parser(number()))
        .arg(option("mbit", "20", "Width of the line each way, Mbit/s").value_parser(number().range(1..)))
        .arg(option("queue", "64000", "Bytes that may wait for the line").value_parser(value_parser!(usize)))
        .arg(
            option("load", "client,dense", "Who ticks how often, a list")
                .value_delimiter(',')
                .value_parser(LOADS.map(|load| load.name)),
        )
        .arg(option("seconds", "26", "For each load and loss").value_parser(number().range(1..)))
        .arg(option("seed", "1", "Of the losses").value_parser(number()))
        .arg(option("json", "docs/performance/loss.json", "Where the figures go"))
        .arg(option("plot", "docs/performance/loss.svg", "Where the plot goes"));
    let lines = Command::new(lines::NAME)
        .about("Lays lines for another program (benches/sync), until its standard input ends")
        .arg(Arg::new("spec").required(true).help("JSON: the conditions of each line, each way"));
    let child = Command::new(CHILD).hide(true).arg(Arg::new("party").required(true));
    Command::new("loss")
        .about("Age of ticks over a line that loses packets, WebTransport beside WebSocket. Needs root: it makes two network namespaces.")
        .bin_name("cargo bench --bench loss --")
        .subcommand(run)
        .subcommand(lines)
        .subcommand(child)
}

pub(crate) fn main() -> Result<()> {
    // What `cargo bench` and `cargo test` add of their own.
    let words = std::env::args().filter(|word| word != "--bench" && word != "--test");
    let mut command = command();
    let chosen = command.try_get_matches_from_mut(words).unwrap_or_else(|error| error.exit());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match chosen.subcommand() {
        Some(("run", options)) => runtime.block_on(async {
            tokio::select! {
                done = run(options) => done,
                () = interrupted() => bail!("interrupted"),
            }
        }),
        Some((lines::NAME, options)) => {
            let spec: &String = options.get_one("spec").context("no lines")?;
            runtime.block_on(async {
                tokio::select! {
                    done = lines::keep(spec) => done,
                    () = interrupted() => Ok(()),
                }
            })
        }
        Some((CHILD, options)) => {
            let party: &String = options.get_one("party").context("no party")?;
            runtime.block_on(viewer::attend(serde_json::from_str(party)?))
        }
        _ => Ok(command.print_help()?),
    }
}

/// Dropping what runs takes the namespaces away.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

async fn run(options: &ArgMatches) -> Result<()> {
    let number = |name: &str| options.get_one::<u64>(name).copied().unwrap_or_default();
    let size = |name: &str| options.get_one::<usize>(name).copied().unwrap_or_default();
    let wanted: Vec<&String> = options.get_many("load").into_iter().flatten().collect();
    let setup = Setup {
        loads: LOADS.into_iter().filter(|load| wanted.iter().any(|name| *name == load.name)).collect(),
        loss_percent: options.get_many("loss").into_iter().flatten().copied().collect(),
        round_trip_ms: number("rtt"),
        jitter_ms: number("jitter"),
        megabits: number("mbit"),
        queue_bytes: size("queue"),
        seconds: number("seconds"),
        seed: number("seed"),
    };
    if setup.loss_percent.iter().any(|loss| !(0.0..=100.0).contains(loss)) {
        bail!("--loss must be between 0 and 100");
    }
    tunnel::sweep()?;
    eprintln!("seed {}", setup.seed);
    let mut measured = Vec::new();
    for load in &setup.loads {
        for loss in &setup.loss_percent {
            eprintln!("{}, {loss} % loss, {} s …", load.title, setup.seconds);
            measured.push(measure(&setup, *load, *loss).await?);
        }
    }
    println!("{}", report::table(&setup, &measured));
    for (name, text) in [("json", report::json(&setup, &measured)?), ("plot", panels::svg(&setup, &measured))] {
        let path = PathBuf::from(options.get_one::<String>(name).context("no path")?);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

async fn measure(setup: &Setup, load: Load, loss_percent: f64) -> Result<Measured> {
    let conditions = Conditions {
        delay: Duration::from_micros(setup.round_trip_ms * 500),
        jitter: Duration::from_millis(setup.jitter_ms),
        loss: loss_percent / 100.0,
        rate: setup.megabits * 125_000,
        queue: setup.queue_bytes,
    };
    let line = LineSet::lay(&[BothWays { down: conditions, up: conditions }], setup.seed)?;
    let server = Server::start().await?;
    // The first of a room is its host: the one beside the server.
    let mut near = Party::of(setup, load, &server, End::Near).start(End::Near).await?;
    let mut far = Party::of(setup, load, &server, FAR).start(FAR).await?;
    for group in [&mut near, &mut far] {
        group.go().await?;
    }
    let (near, far) = (near.told().await?, far.told().await?);
    let mut points = Vec::new();
    for (index, carrier) in CARRIERS.into_iter().enumerate() {
        // Members are listed by room: one here, all the viewers there.
        let rooms = (index * load.rooms..(index + 1) * load.rooms)
            .map(|room| Room { near: &near[room..=room], far: &far[room * load.viewers..(room + 1) * load.viewers] });
        let (place, rooms) = (Place { load: load.name, loss_percent, carrier }, Vec::from_iter(rooms));
        points.extend(Route::ALL.map(|route| point(place, route, &rooms)));
    }
    Ok(Measured { load, loss_percent, points, packets: line.fates()[0] })
}

impl Party {
    fn of(setup: &Setup, load: Load, server: &Server, end: End) -> Self {
        let (numbers, hz) = match end {
            End::Near => (0..1, load.host_hz),
            End::Far(_) => (1..1 + load.viewers, load.viewer_hz),
        };
        let period_micros = (1e6 / hz) as u64;
        let member = |room: usize, number: usize| Member {
            user: format!("member-{number}"),
            room: format!("room-{room}"),
            carrier: CARRIERS[room / load.rooms],
            period_micros,
            // The golden section spreads the phases: no two members' ticks fall together, however many they are.
            phase_micros: (period_micros as f64 * ((room * 7 + number) as f64 * 0.618_034).fract()) as u64,
        };
        let rooms = 0..CARRIERS.len() * load.rooms;
        Self {
            server: tunnel::NEAR,
            port: PORT,
            certificate: server.certificate(),
            members: rooms
                .flat_map(|room| numbers.clone().map(move |number| (room, number)))
                .map(|(room, number)| member(room, number))
                .collect(),
            micros: setup.seconds * 1_000_000,
            patience_micros: 2_500_000,
        }
    }

    async fn start(self, end: End) -> Result<Group> {
        let program = std::env::current_exe()?;
        let [ip, words @ ..] = tunnel::at(end, &program.to_string_lossy());
        let mut child = tokio::process::Command::new(ip)
            .args(words)
            .args([CHILD, &serde_json::to_string(&self)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().context("no stdin")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut group = Group { _child: child, stdin, lines };
        let joining = Duration::from_secs(60);
        match tokio::time::timeout(joining, group.lines.next_line()).await.context("nobody could join in time")?? {
            Some(line) if line == "joined" => Ok(group),
            _ => bail!("the viewers ended before they had joined"),
        }
    }
}

/// A process of viewers.
struct Group {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Group {
    async fn go(&mut self) -> Result<()> {
        Ok(self.stdin.write_all(b"go\n").await?)
    }

    async fn told(mut self) -> Result<Vec<Told>> {
        let line = self.lines.next_line().await?.context("the viewers ended early")?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// The server under test, in the near namespace.
struct Server {
    home: tempfile::TempDir,
    _child: Child,
}

impl Server {
    async fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        // `env -i`: whatever is set here, a Redis for instance, is not meant for it.
        let [ip, words @ ..] = tunnel::at(End::Near, "env");
        let mut child = tokio::process::Command::new(ip)
            .args(words)
            .args(["-i", env!("CARGO_BIN_EXE_tandem"), "--log-level", "warn"])
            .args(["--host", &tunnel::NEAR.to_string(), "--port", "4001", "--quic-port", &PORT.to_string()])
            .arg("--data-dir")
            .arg(home.path().join("data"))
            .arg("--certs-dir")
            .arg(home.path().join("certs"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let patience = Duration::from_secs(20);
        let serving = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("WebTransport") {
                    return Ok(());
                }
            }
            bail!("the server ended before it served")
        };
        tokio::time::timeout(patience, serving).await.context("the server doesn't start")??;
        Ok(Self { home, _child: child })
    }

    fn certificate(&self) -> PathBuf {
        self.home.path().join("certs/dev.crt")
    }
}
