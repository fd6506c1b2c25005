//! The subscriber: one supervised task that keeps this node's ear on the bus.
//!
//! What should be heard is the set `wanted`; what is confirmed on the present connection is `heard`. The supervisor makes
//! the second follow the first, in the order in which things were asked for. When a connection breaks, or a probe is not
//! heard, all of them are made anew, everything wanted is subscribed again, and everything counts as missed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Script, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::keys::Partition;
use super::link::{Link, Request};
use super::record::{Body, Message, RecordError};
use super::server::{Kind, Server};
use super::wishes::Rooms;
use super::{Lives, publish_command};
use crate::clock::Clock;
use crate::domain::{NodeId, RoomId};
use crate::log::{Followed, LogError};
use crate::telemetry::{HotHistogram, Seldom, names};

static BUS_LAG: HotHistogram = HotHistogram::new(names::BUS_LAG);

/// Channels of one SUBSCRIBE.
const CHUNK: usize = 500;
/// A probe that is not heard by then was lost, and with it who knows what.
const DEAF: Duration = Duration::from_secs(3);

/// What the supervisor is made of.
pub(super) struct BusParts {
    pub(super) node: NodeId,
    pub(super) server: Server,
    pub(super) link: Arc<Link>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) lives: Lives,
    pub(super) probe_every: Duration,
}

pub(super) struct Bus {
    parts: BusParts,
    rooms: Mutex<Rooms>,
    /// `rooms` has something for the supervisor.
    asked: Notify,
    alive: watch::Sender<bool>,
    /// How often the bus was connected.
    sessions: AtomicU64,
    cluster: AtomicBool,
    /// µs from saying something to hearing it.
    lag: AtomicU64,
    probe: Script,
}

/// Why a session of the bus ended.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the connection is gone")]
    Gone,
    #[error("a probe was not heard")]
    Deaf,
}

/// What the pushes of one session's connections tell it.
#[derive(Default)]
struct Ear {
    broken: AtomicBool,
    told: Notify,
    /// Confirmations of UNSUBSCRIBE that are expected. One more means that a slot has moved to another server.
    leaving: AtomicUsize,
    /// The last probe heard on each connection, and when.
    probes: Mutex<HashMap<Partition, (u64, Instant)>>,
}

struct Shard {
    conn: MultiplexedConnection,
    partitions: Vec<Partition>,
    era: Option<String>,
}

struct Session {
    shards: Vec<Shard>,
    /// Which shard has a partition.
    places: Vec<usize>,
    ear: Arc<Ear>,
    kind: Kind,
}

impl Bus {
    pub(super) fn new(parts: BusParts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            rooms: Mutex::default(),
            asked: Notify::new(),
            alive: watch::Sender::new(false),
            sessions: AtomicU64::new(0),
            cluster: AtomicBool::new(false),
            lag: AtomicU64::new(0),
            probe: Script::new(include_str!("probe.lua")),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    pub(super) async fn wait_alive(&self) {
        // The sender lives as long as `self`.
        let _ = self.alive.subscribe().wait_for(|alive| *alive).await;
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    pub(super) fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    fn note_lag(&self, lag: Duration) {
        self.lag.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        BUS_LAG.record(lag.as_secs_f64());
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.cluster.load(Ordering::Relaxed)
    }

    pub(super) fn wanted(&self) -> Vec<RoomId> {
        self.rooms.lock().wanted.iter().cloned().collect()
    }

    /// Returns when Redis has confirmed it.
    pub(super) async fn subscribe(&self, room: &RoomId, patience: Duration) -> Result<(), LogError> {
        let confirmed = {
            let mut rooms = self.rooms.lock();
            match rooms.want(room) {
                Some(confirmed) => confirmed,
                None => return Ok(()),
            }
        };
        self.asked.notify_one();
        match tokio::time::timeout(patience, confirmed).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(LogError("the bus has stopped".to_owned())),
            Err(_) => {
                self.rooms.lock().forget_dropped();
                Err(LogError(format!("no subscription within {patience:?}")))
            }
        }
    }

    pub(super) fn unsubscribe(&self, room: &RoomId) {
        let mut rooms = self.rooms.lock();
        if rooms.leave(room) {
            drop(rooms);
            self.asked.notify_one();
        }
    }

    /// Keeps the bus connected until stopped.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failures = 0;
        // An outage is one piece of news; that the bus is up again is told by the session.
        let down = Seldom::new();
        loop {
            let began = Clock::instant();
            let ended = stop.run_until_cancelled(self.session()).await;
            self.silence();
            let Some(Err(error)) = ended else { return };
            failures = if began.elapsed() > Duration::from_secs(10) { 0 } else { failures + 1 };
            if down.is_due() {
                tracing::warn!(%error, "the bus is down");
            } else {
                tracing::debug!(%error, "the bus is down");
            }
            let ceiling = (25_u64 << failures.min(6)).min(1500);
            let pause = Duration::from_millis(rand::rng().random_range(ceiling / 4..=ceiling));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn silence(&self) {
        metrics::gauge!(names::BUS_ALIVE).set(0.0);
        self.alive.send_replace(false);
        self.rooms.lock().end_session();
    }

    /// From connecting to the break of a connection.
    async fn session(self: &Arc<Self>) -> Result<std::convert::Infallible, Broken> {
        let ear = Arc::new(Ear::default());
        let push = {
            let (bus, ear) = (Arc::clone(self), Arc::clone(&ear));
            move |info| {
                bus.pushed(info, &ear);
                Ok(())
            }
        };
        let (kind, connected) = self.parts.server.connect_bus(push).await?;
        self.cluster.store(kind == Kind::Cluster, Ordering::Relaxed);
        let mut places = vec![0; Partition::all().count()];
        for (place, (_, partitions)) in connected.iter().enumerate() {
            partitions.iter().for_each(|partition| places[partition.index()] = place);
        }
        let shards = connected.into_iter().map(|(conn, partitions)| Shard { conn, partitions, era: None }).collect();
        let mut session = Session { shards, places, ear, kind };
        self.tune_in(&mut session).await?;
        let mut probes = tokio::time::interval(self.parts.probe_every);
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut outstanding: Option<(u64, Instant)> = None;
        let mut nonce = 0;
        loop {
            tokio::select! {
                () = session.ear.told.notified() => if session.ear.broken.load(Ordering::Relaxed) {
                    return Err(Broken::Gone);
                },
                () = self.asked.notified() => self.follow_wishes(&mut session).await?,
                _ = probes.tick() => {
                    if let Some((nonce, sent)) = outstanding {
                        let heard = session.heard(nonce);
                        self.note_lag(heard.unwrap_or_else(Clock::instant) - sent);
                        outstanding = outstanding.filter(|_| heard.is_none());
                    }
                    match outstanding {
                        Some((_, sent)) if sent.elapsed() > DEAF => return Err(Broken::Deaf),
                        Some(_) => {}
                        None => {
                            nonce += 1;
                            // When the probe can't be sent, commands fail too; the bus is not to blame.
                            let sent = Clock::instant();
                            if self.send_probes(&mut session, nonce).await {
                                outstanding = Some((nonce, sent));
                            }
                        }
                    }
                    session.ping().await?;
                }
            }
        }
    }

    /// Subscribes to everything wanted; from then on the bus is alive.
    async fn tune_in(&self, session: &mut Session) -> Result<(), Broken> {
        let node = &self.parts.node;
        for place in 0..session.shards.len() {
            let partitions = session.shards[place].partitions.clone();
            let mut channels: Vec<_> = partitions.iter().map(|partition| partition.node_channel(node)).collect();
            channels.extend(partitions.first().map(|partition| partition.probe_channel(node)));
            session.subscribe(place, &channels).await?;
        }
        let wanted = self.rooms.lock().begin_session();
        self.follow_wishes_of(session, wanted).await?;
        let session_number = self.sessions.fetch_add(1, Ordering::Relaxed);
        if session_number > 0 || !self.rooms.lock().wanted.is_empty() {
            self.parts.inbox.gap();
        }
        metrics::gauge!(names::BUS_ALIVE).set(1.0);
        metrics::counter!(names::BUS_CONNECTS).increment(1);
        self.alive.send_replace(true);
        tracing::info!(servers = session.shards.len(), "the bus is up");
        Ok(())
    }

    async fn follow_wishes(&self, session: &mut Session) -> Result<(), Broken> {
        let changed = std::mem::take(&mut self.rooms.lock().changed);
        self.follow_wishes_of(session, changed).await
    }

    async fn follow_wishes_of(&self, session: &mut Session, changed: Vec<RoomId>) -> Result<(), Broken> {
        let (mut join, mut leave) = (Vec::new(), Vec::new());
        {
            let rooms = self.rooms.lock();
            let mut seen = HashSet::new();
            for room in changed.into_iter().filter(|room| seen.insert(room.clone())) {
                match (rooms.wanted.contains(&room), rooms.heard.contains(&room)) {
                    (true, false) => join.push(room),
                    (false, true) => leave.push(room),
                    _ => {}
                }
            }
        }
        for (rooms, joining) in [(leave, false), (join, true)] {
            let mut by_shard: HashMap<usize, Vec<String>> = HashMap::new();
            for room in &rooms {
                let partition = Partition::of(room);
                by_shard.entry(session.places[partition.index()]).or_default().push(partition.channel(room));
            }
            for (place, channels) in by_shard {
                if joining {
                    session.subscribe(place, &channels).await?;
                } else {
                    session.unsubscribe(place, &channels).await?;
                }
            }
            let mut state = self.rooms.lock();
            for room in rooms {
                if joining {
                    state.heard.insert(room)
                } else {
                    state.heard.remove(&room)
                };
            }
        }
        self.rooms.lock().confirm();
        Ok(())
    }

    /// Says whether all of them were sent. A change of a server's era means that it has lost its data.
    async fn send_probes(&self, session: &mut Session, nonce: u64) -> bool {
        let publish = publish_command(session.kind == Kind::Cluster);
        metrics::gauge!(names::BUS_WAITING).set(self.parts.inbox.waiting() as f64);
        let probes = session.shards.iter().filter_map(|shard| shard.partitions.first()).map(|partition| {
            let mut call = self.probe.prepare_invoke();
            call.key(partition.era()).arg(format!("{}-{}", self.parts.node, rand::random::<u32>()));
            call.arg(self.parts.lives.outbox.as_millis() as u64).arg(publish);
            call.arg(partition.probe_channel(&self.parts.node)).arg(nonce);
            async move { self.parts.link.once(&Request::Script(&call)).await }
        });
        let Ok(eras) = try_join_all(probes).await else { return false };
        for (shard, era) in session.shards.iter_mut().zip(eras) {
            let era = redis::from_redis_value::<String>(era).ok();
            let before = std::mem::replace(&mut shard.era, era);
            if before.is_some() && before != shard.era {
                tracing::error!("Redis has lost its data: rooms are written back from this node's replicas");
                metrics::counter!(names::REDIS_DATA_LOSSES).increment(1);
                self.sessions.fetch_add(1, Ordering::Relaxed);
                self.parts.inbox.gap();
            }
        }
        true
    }

    /// What the connections were pushed: called by their tasks, must not wait.
    fn pushed(&self, PushInfo { kind, data }: PushInfo, ear: &Ear) {
        match kind {
            PushKind::Message | PushKind::SMessage => self.message(data, ear),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                let expected = ear.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                if expected.is_err() {
                    ear.fail();
                }
            }
            PushKind::Disconnection => ear.fail(),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>, ear: &Ear) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next()) else {
            return;
        };
        if is_probe(&channel) {
            let known = |partition: &Partition| channel == partition.probe_channel(&self.parts.node).as_bytes();
            let nonce = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
            if let Some(partition) = Partition::all().find(known) {
                ear.probes.lock().insert(partition, (nonce, Clock::instant()));
            }
            return;
        }
        match Message::decode(payload.into()) {
            Ok(message) => self.receive(message),
            Err(RecordError::Version(_)) => {}
            Err(error) => {
                static UNREADABLE: Seldom = Seldom::new();
                if UNREADABLE.is_due() {
                    tracing::error!(%error, "a message on the bus can't be read");
                }
                self.parts.inbox.gap();
            }
        }
    }

    fn receive(&self, Message { from, room, body }: Message) {
        let mine = from == self.parts.node;
        let report = match body {
            Body::Directed(message) => (!mine).then(|| ephemeral(&room, message)),
            _ if !self.rooms.lock().wanted.contains(&room) => None,
            Body::Ephemeral(message) => (!mine).then(|| ephemeral(&room, message)),
            Body::Commit { expected, entries } => Some(Followed::Commit { room, expected, entries }),
            Body::Reload => (!mine).then(|| Followed::Gap(Some(room))),
        };
        if let Some(report) = report {
            self.parts.inbox.push(report);
        }
    }
}

fn ephemeral(room: &RoomId, message: Bytes) -> Followed {
    Followed::Ephemeral { room: room.clone(), message }
}

/// A look at the channel's name before sixty-four of them are made to compare.
fn is_probe(channel: &[u8]) -> bool {
    channel.windows(8).any(|part| part == b"}:probe:")
}

impl Ear {
    fn fail(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }
}

impl Session {
    /// When the last connection heard it; `None`: not all have.
    fn heard(&self, nonce: u64) -> Option<Instant> {
        let probes = self.ear.probes.lock();
        let first = self.shards.iter().filter_map(|shard| shard.partitions.first());
        let heard = first.map(|partition| probes.get(partition).filter(|(at, _)| *at >= nonce).map(|(_, when)| *when));
        heard.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    async fn subscribe(&mut self, place: usize, channels: &[String]) -> Result<(), Broken> {
        let conn = &self.shards[place].conn;
        match self.kind {
            Kind::Single => {
                for chunk in channels.chunks(CHUNK) {
                    conn.clone().subscribe(chunk).await?;
                }
            }
            // One channel a command: each gets one confirmation, which the crate takes for the answer.
            Kind::Cluster => {
                for chunk in channels.chunks(CHUNK) {
                    try_join_all(chunk.iter().map(|channel| shard_command(conn, "SSUBSCRIBE", channel))).await?;
                }
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, place: usize, channels: &[String]) -> Result<(), Broken> {
        let conn = &self.shards[place].conn;
        self.ear.leaving.fetch_add(channels.len(), Ordering::Relaxed);
        match self.kind {
            Kind::Single => {
                for chunk in channels.chunks(CHUNK) {
                    conn.clone().unsubscribe(chunk).await?;
                }
            }
            Kind::Cluster => {
                for chunk in channels.chunks(CHUNK) {
                    try_join_all(chunk.iter().map(|channel| shard_command(conn, "SUNSUBSCRIBE", channel))).await?;
                }
            }
        }
        Ok(())
    }

    /// A connection that is gone without a word fails here.
    async fn ping(&self) -> Result<(), Broken> {
        let pings =
            self.shards.iter().map(|shard| async { redis::cmd("PING").exec_async(&mut shard.conn.clone()).await });
        try_join_all(pings).await?;
        Ok(())
    }
}

async fn shard_command(conn: &MultiplexedConnection, command: &str, channel: &str) -> Result<(), RedisError> {
    redis::cmd(command).arg(channel).exec_async(&mut conn.clone()).await
}
