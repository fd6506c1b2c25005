//! A premiere: one room, a host who plays and pauses, an audience on both transports, and a small room beside it.
//!
//! Each viewer probes the server's clock once a second and says its status every two, as the client does. After the
//! crowd is in, the film plays for a window in which nobody acts: bytes to a viewer, CPU time. Then the host plays and
//! pauses, and each viewer's copy is timed. The bare relays (half of the viewers on each) pass the same texts on, in
//! turn with tandem. A small room's heartbeats are timed before the crowd comes and while it plays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clock;
use super::cluster::Cluster;
use super::link::{Carrier, Link, Place};
use super::population::{Plan, Plays, Population, histogram};
use super::proc::Cpu;
use super::quic::QuicClients;
use super::report::{Report, Spread, Table, thousands};
use super::run::{Outcome, Pace, Times, measure, millis, percentiles};
use super::server::{Launch, Server};
use super::stores::Stores;
use super::wire::{self, Incoming, Kind};

/// Viewers that come in at the same time.
const AT_ONCE: usize = 128;
/// After joining: the last events are delivered, buffers are given back.
const SETTLE: Duration = Duration::from_secs(3);
/// Between two commands of the host.
const BETWEEN_COMMANDS: Duration = Duration::from_millis(500);
/// A viewer sends a clock probe as often.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A viewer says its status at every second probe.
const STATUS_EVERY_PROBES: u64 = 2;
/// Viewers who send together, so that the load's timers cost little.
const SLICES: usize = 50;
/// A viewer that is not in by then won't be.
const JOINING: Duration = Duration::from_secs(60);
/// The small room beside the crowd.
const SMALL: Plan = Plan { carrier: Carrier::WebSocket, kind: Kind::Heartbeat, rooms: 1, members: 10, at_once: 1 };
const SMALL_HERTZ: f64 = 20.0;

/// The size of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crowd {
    pub(crate) viewers: usize,
    pub(crate) nodes: usize,
    pub(crate) commands: usize,
    pub(crate) pairs: usize,
}

/// Counts of all that viewers hear.
struct Heard {
    bytes: AtomicU64,
    copies: AtomicU64,
    measuring: AtomicBool,
    plays: Mutex<Plays>,
    latencies: Mutex<Histogram<u64>>,
    trouble: Mutex<Option<String>>,
}

/// The viewers who are in.
struct Audience {
    links: Vec<Arc<Link>>,
    heard: Arc<Heard>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _listening: DropGuard,
}

/// Figures of one run against tandem.
struct Premiere {
    joining: Duration,
    bytes: f64,
    cpu: f64,
    latencies: Histogram<u64>,
    lost: u64,
    kib: [f64; 2],
    small: [Outcome; 2],
}

/// `load crowd`.
pub(crate) async fn crowd(crowd: Crowd, launch: &Launch, stores: Option<&Stores>, times: Times) -> Result<Report> {
    let mut table = Table::new(&[
        "server",
        "in after s",
        "PLAY p50 ms",
        "p99 ms",
        "max ms",
        "lost",
        "B/s a viewer",
        "% of one core",
        "KiB a viewer, ws",
        "wt",
        "small room's p99 alone",
        "beside",
    ]);
    let (mut values, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..crowd.pairs {
        let of = premiere(crowd, launch, stores, times).await?;
        let bare = bare(crowd, launch).await?;
        ratios.push(millis(&of.latencies, 99.0) / millis(&bare.latencies, 99.0));
        let at = |latencies: &Histogram<u64>| {
            [50.0, 99.0, 100.0].map(|percent| format!("{:.1}", millis(latencies, percent)))
        };
        let one = |number: f64| format!("{number:.1}");
        let mut row = vec!["tandem".to_owned(), one(of.joining.as_secs_f64())];
        row.extend(at(&of.latencies));
        row.extend([of.lost.to_string(), one(of.bytes), one(100.0 * of.cpu), one(of.kib[0]), one(of.kib[1])]);
        row.extend(of.small.iter().map(|outcome| format!("{:.2}", outcome.latency(99.0))));
        table.row(row);
        let mut row = vec!["bare relays".to_owned(), one(bare.joining.as_secs_f64())];
        row.extend(at(&bare.latencies));
        row.push(bare.lost.to_string());
        row.extend(std::iter::repeat_n("–".to_owned(), 6));
        table.row(row);
        values.push(json!({
            "joiningSeconds": of.joining.as_secs_f64(), "playMs": percentiles(&of.latencies), "lost": of.lost,
            "bytesASecond": of.bytes, "cpuCores": of.cpu, "kibAViewer": of.kib,
            "smallRoomAlone": of.small[0].json(), "smallRoomBeside": of.small[1].json(),
            "bareJoiningSeconds": bare.joining.as_secs_f64(), "barePlayMs": percentiles(&bare.latencies), "bareLost": bare.lost,
        }));
    }
    let ratio = Spread::of(ratios);
    let caption = format!(
        "{} viewers of one room, half of them on WebTransport, {} node(s), {} commands; p99 of PLAY, tandem / bare relays: {}",
        thousands(crowd.viewers as f64),
        crowd.nodes,
        crowd.commands,
        ratio.text(2)
    );
    let json = json!({"viewers": crowd.viewers, "nodes": crowd.nodes, "runs": values, "p99Ratio": ratio.json()});
    Ok(Report { name: "crowd", json, tables: vec![(caption, table)], plots: Vec::new() })
}

async fn premiere(crowd: Crowd, launch: &Launch, stores: Option<&Stores>, times: Times) -> Result<Premiere> {
    let cluster = match stores {
        Some(stores) if crowd.nodes > 1 => Cluster::start(launch, stores, crowd.nodes).await?,
        _ => Cluster(vec![launch.tandem().await?]),
    };
    let servers = cluster.all();
    let places: Vec<Place> = servers.iter().map(|server| server.place).collect();
    let small = Population::connect_all(SMALL, &places[..1]).await?;
    let alone = measure(&small, &servers[..1], Pace::Rate(SMALL_HERTZ), times).await?;
    let clients = QuicClients::open()?;
    let room = format!("premiere-{:x}", clock::wall_millis() as u64);
    let host = Host::open(&places[0], &clients, &room).await?;
    let mut audience = Audience::empty()?;
    let mut joining = Duration::ZERO;
    let mut kib = [0.0; 2];
    for (share, carrier) in [Carrier::WebSocket, Carrier::WebTransport].into_iter().enumerate() {
        let (before, started, viewers) = (resident(&servers)?, clock::now(), crowd.viewers / 2);
        audience.enter(&clients, &places, carrier, &room, viewers).await?;
        joining += clock::now().duration_since(started);
        clock::pause(SETTLE).await;
        kib[share] = (resident(&servers)? - before) / 1024.0 / viewers as f64;
    }
    // Nobody acts: the film plays.
    host.command(&audience.heard, 0).await?;
    let quiet = async {
        clock::pause(times.warmup).await;
        let start = (cpu(&servers)?, clock::micros(), audience.heard.bytes.load(Ordering::Relaxed));
        clock::pause(times.window).await;
        let seconds = clock::as_seconds(clock::micros() - start.1);
        let bytes = (audience.heard.bytes.load(Ordering::Relaxed) - start.2) as f64;
        anyhow::Ok((bytes / seconds / crowd.viewers as f64, cpu(&servers)?.since(start.0).total() / seconds))
    };
    let (bytes, used) = tokio::select! {
        figures = quiet => figures?,
        ended = host.ticks() => { ended?; bail!("the host's ticks ended") }
        ended = audience.report() => { ended?; bail!("the viewers' reports ended") }
    };
    // The host acts, and the small room goes on.
    audience.heard.measuring.store(true, Ordering::Relaxed);
    let acting = async {
        let beside = measure(&small, &servers[..1], Pace::Rate(SMALL_HERTZ), times);
        let (acted, beside) = tokio::join!(host.act(&audience.heard, crowd.commands), beside);
        acted?;
        beside
    };
    let beside = tokio::select! {
        beside = acting => beside?,
        ended = host.ticks() => { ended?; bail!("the host's ticks ended") }
        ended = audience.report() => { ended?; bail!("the viewers' reports ended") }
    };
    clock::pause(SETTLE).await;
    let (latencies, lost) = audience.outcome(crowd)?;
    audience.leave().await;
    small.disconnect_all().await;
    cluster.stop().await?;
    Ok(Premiere { joining, bytes, cpu: used, latencies, lost, kib, small: [alone, beside] })
}

/// The same fan-out by the two bare relays.
struct Bare {
    joining: Duration,
    latencies: Histogram<u64>,
    lost: u64,
}

async fn bare(crowd: Crowd, launch: &Launch) -> Result<Bare> {
    let (ws, _) = launch.subject(Carrier::WebSocket, true).await?;
    let (quic, spoken) = launch.subject(Carrier::WebTransport, true).await?;
    let clients = QuicClients::open()?;
    let hosts = [
        Host::of_relay(Carrier::WebSocket, &ws.place, &clients).await?,
        Host::of_relay(spoken, &quic.place, &clients).await?,
    ];
    let mut audience = Audience::empty()?;
    let started = clock::now();
    for (carrier, server) in [(Carrier::WebSocket, &ws), (spoken, &quic)] {
        audience.enter(&clients, &[server.place], carrier, "premiere", crowd.viewers / 2).await?;
    }
    let joining = clock::now().duration_since(started);
    clock::pause(SETTLE).await;
    audience.heard.measuring.store(true, Ordering::Relaxed);
    let acting = async {
        for index in 0..=crowd.commands as u64 {
            let now = clock::micros();
            audience.heard.plays.lock().push(now);
            let text = event(now, index);
            hosts[0].link.message(&text).await?;
            hosts[1].link.compact(text.as_bytes()).await?;
            clock::pause(BETWEEN_COMMANDS).await;
        }
        anyhow::Ok(())
    };
    acting.await?;
    clock::pause(SETTLE).await;
    let (latencies, lost) = audience.outcome(crowd)?;
    audience.leave().await;
    for server in [ws, quic] {
        server.stop().await?;
    }
    Ok(Bare { joining, latencies, lost })
}

/// A text as long as tandem's PLAY_PAUSE.
fn event(now: u64, index: u64) -> String {
    let at = clock::as_seconds(now);
    format!(
        r#"{{"type":"PLAY_PAUSE","userId":"host","control":"play","currentTime":{at},"eventTimestamp":1795000000060,"timestamp":1795000000010,"epoch":1795000000000,"seq":{index},"playback":{{"position":{at},"rate":1.0,"playing":true,"at":1795000000060,"seq":{index}}},"gate":null}}"#
    )
}

/// The host: its connection, which somebody must read.
struct Host {
    link: Arc<Link>,
    _tasks: TaskTracker,
    _listening: DropGuard,
}

impl Host {
    /// The room's maker, on WebTransport.
    async fn open(place: &Place, clients: &QuicClients, room: &str) -> Result<Self> {
        Self::connect(Carrier::WebTransport, place, clients, &wire::join(room, "host", 3, None)).await
    }

    async fn of_relay(carrier: Carrier, place: &Place, clients: &QuicClients) -> Result<Self> {
        Self::connect(carrier, place, clients, &wire::join("premiere", "host", 3, None)).await
    }

    async fn connect(carrier: Carrier, place: &Place, clients: &QuicClients, join: &str) -> Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let link = Arc::new(Link::connect(carrier, place, clients).await?);
        let (joined, joins) = oneshot::channel();
        let (mut joined, reading) = (Some(joined), Arc::clone(&link));
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let hear = |incoming: Incoming<'_>| {
                if let Incoming::Message(message) = incoming
                    && wire::kind_of(message) == b"ROOM_STATE"
                    && let Some(joined) = joined.take()
                {
                    let _ = joined.send(());
                }
            };
            let _ = reading.read(hear).await;
        }));
        link.message(join).await?;
        tokio::time::timeout(JOINING, joins).await.context("the host did not get in")??;
        Ok(Self { link, _tasks: tasks, _listening: stop.drop_guard() })
    }

    async fn command(&self, heard: &Heard, index: u64) -> Result<()> {
        let now = clock::micros();
        heard.plays.lock().push(now);
        self.link.message(&wire::play(now, Some(index), index.is_multiple_of(2))).await
    }

    async fn act(&self, heard: &Heard, commands: usize) -> Result<()> {
        for index in 1..=commands as u64 {
            self.command(heard, index).await?;
            clock::pause(BETWEEN_COMMANDS).await;
        }
        Ok(())
    }

    /// A tick a second, until this is dropped.
    async fn ticks(&self) -> Result<()> {
        for seq in 1.. {
            self.link.compact(&wire::tick(seq, clock::micros(), clock::wall_millis())).await?;
            clock::pause(Duration::from_secs(1)).await;
        }
        Ok(())
    }
}

impl Audience {
    fn empty() -> Result<Self> {
        let heard = Heard {
            bytes: AtomicU64::new(0),
            copies: AtomicU64::new(0),
            measuring: AtomicBool::new(false),
            plays: Mutex::default(),
            latencies: Mutex::new(histogram()?),
            trouble: Mutex::default(),
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { links: Vec::new(), heard: Arc::new(heard), tasks, stop: stop.clone(), _listening: stop.drop_guard() })
    }

    /// Lets so many more in, over the places in turn.
    async fn enter(
        &mut self,
        clients: &QuicClients,
        places: &[Place],
        carrier: Carrier,
        room: &str,
        viewers: usize,
    ) -> Result<()> {
        let first = self.links.len();
        let this = &*self;
        let entering = (first..first + viewers)
            .map(|number| this.viewer(clients, places[number % places.len()], carrier, room, number));
        let links: Vec<_> = stream::iter(entering).buffer_unordered(AT_ONCE).try_collect().await?;
        self.links.extend(links);
        Ok(())
    }

    async fn viewer(
        &self,
        clients: &QuicClients,
        place: Place,
        carrier: Carrier,
        room: &str,
        number: usize,
    ) -> Result<Arc<Link>> {
        let link = Arc::new(Link::connect(carrier, &place, clients).await?);
        let (joined, joins) = oneshot::channel();
        let (mut joined, mut played) = (Some(joined), 0);
        let (heard, reading) = (Arc::clone(&self.heard), Arc::clone(&link));
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let told = Arc::clone(&heard);
            let hear = |incoming: Incoming<'_>| {
                let (Incoming::Message(bytes) | Incoming::Compact(bytes)) = incoming;
                heard.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                match wire::kind_of(bytes) {
                    b"PLAY_PAUSE" => {
                        heard.played(played);
                        played += 1;
                    }
                    b"ROOM_STATE" => {
                        if let Some(joined) = joined.take() {
                            let _ = joined.send(());
                        }
                    }
                    b"ERROR" => {
                        heard.trouble.lock().get_or_insert_with(|| String::from_utf8_lossy(bytes).into_owned());
                    }
                    _ => {}
                }
            };
            if let Err(error) = reading.read(hear).await {
                told.trouble.lock().get_or_insert_with(|| format!("a viewer's connection ended: {error:#}"));
            }
        }));
        link.message(&wire::join_as_viewer(room, &format!("viewer-{number}"))).await?;
        match tokio::time::timeout(JOINING, joins).await {
            Ok(Ok(())) => Ok(link),
            _ => bail!(
                "viewer {number} did not get in: {}",
                self.heard.trouble.lock().take().unwrap_or_else(|| "no answer".to_owned())
            ),
        }
    }

    /// Clock probes and statuses of all viewers, evenly spread, until this is dropped.
    async fn report(&self) -> Result<()> {
        let mut ticks = tokio::time::interval(PROBE_EVERY / SLICES as u32);
        for round in 0_u64.. {
            let slice = self.links.len().div_ceil(SLICES).max(1);
            for links in self.links.chunks(slice) {
                ticks.tick().await;
                for link in links {
                    link.compact(&wire::probe(round as u16, clock::micros())).await?;
                    if round.is_multiple_of(STATUS_EVERY_PROBES) {
                        link.compact(&wire::status(round as u32)).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The latencies, and how many copies of the measured commands are missing.
    fn outcome(&self, crowd: Crowd) -> Result<(Histogram<u64>, u64)> {
        if let Some(trouble) = self.heard.trouble.lock().take() {
            bail!("{trouble}");
        }
        let expected = (crowd.viewers / 2 * 2 * crowd.commands) as u64;
        let latencies = self.heard.latencies.lock().clone();
        ensure!(!latencies.is_empty(), "no viewer heard a command");
        Ok((latencies, expected.saturating_sub(self.heard.copies.load(Ordering::Relaxed))))
    }

    async fn leave(self) {
        let Self { links, tasks, _listening, .. } = self;
        drop((_listening, links));
        tasks.close();
        tasks.wait().await;
    }
}

impl Heard {
    /// Counts a viewer's copy of the command of this index; the first one begins the film and is not measured.
    fn played(&self, index: u64) {
        if index == 0 || !self.measuring.load(Ordering::Relaxed) {
            return;
        }
        if let Some(sent) = self.plays.lock().nth(index) {
            self.copies.fetch_add(1, Ordering::Relaxed);
            self.latencies.lock().saturating_record(clock::micros().saturating_sub(sent).max(1));
        }
    }
}

fn resident(servers: &[&Server]) -> Result<f64> {
    let each = servers.iter().map(|server| server.pid.map_or(Ok(0), |pid| pid.resident()));
    Ok(each.sum::<Result<u64>>()? as f64)
}

fn cpu(servers: &[&Server]) -> Result<Cpu> {
    servers.iter().try_fold(Cpu::default(), |sum, server| Ok(sum.plus(server.cpu()?)))
}
