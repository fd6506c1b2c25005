//! The bus: one supervised task that keeps this node subscribed to the channels of its rooms.
//!
//! `wanted` is the set of rooms to hear, `heard` the set confirmed on the present connections. The supervisor makes the
//! second follow the first, in the order of the calls. When a connection breaks, or a probe is not heard, all
//! connections are made anew, everything wanted is subscribed again, and every room has a gap.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::try_join_all;
use parking_lot::Mutex;
use rand::RngExt;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::inbox::BusInbox;
use super::subscriptions::Subscriptions;
use super::wire::{BusBody, BusMessage};
use crate::clock::Clock;
use crate::commit::binary::WireError;
use crate::domain::{NodeId, RoomId};
use crate::log::{Followed, LogError};
use crate::redis::{Partition, RedisKind, RedisLink};
use crate::telemetry::{HotHistogram, Seldom, names};

static BUS_LAG: HotHistogram = HotHistogram::new(names::BUS_LAG);

/// Channels of one SUBSCRIBE.
const CHUNK: usize = 500;
/// A probe that is not heard by then was lost, and other messages may have been lost with it.
const DEAF: Duration = Duration::from_secs(3);

pub(super) struct Bus {
    node: NodeId,
    link: Arc<RedisLink>,
    inbox: Arc<BusInbox>,
    rooms: Mutex<Subscriptions>,
    /// `rooms` has changed.
    asked: Notify,
    alive: watch::Sender<bool>,
    /// The era of the data at each probed partition. It outlives a connection: a restart without the data breaks the
    /// connection too.
    eras: Mutex<HashMap<Partition, String>>,
    /// µs from sending a probe to hearing it.
    lag: AtomicU64,
}

/// Why a connection of the bus ended.
#[derive(Debug, thiserror::Error)]
enum BusError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error("the connection is gone")]
    Gone,
    #[error("a probe was not heard")]
    Deaf,
}

/// Events pushed over the connections of one [`BusConnection`].
#[derive(Default)]
struct Pushes {
    broken: AtomicBool,
    told: Notify,
    /// Expected confirmations of UNSUBSCRIBE. One more means that a slot has moved to another server.
    leaving: AtomicUsize,
    /// The last probe heard on each connection, and when.
    probes: Mutex<HashMap<Partition, (u64, Instant)>>,
}

struct BusShard {
    conn: MultiplexedConnection,
    partitions: Vec<Partition>,
}

struct BusConnection {
    shards: Vec<BusShard>,
    /// By partition, the index of its shard.
    places: Vec<usize>,
    pushes: Arc<Pushes>,
    kind: RedisKind,
}

impl Bus {
    pub(super) fn new(node: NodeId, link: Arc<RedisLink>, inbox: Arc<BusInbox>) -> Arc<Self> {
        Arc::new(Self {
            node,
            link,
            inbox,
            rooms: Mutex::default(),
            asked: Notify::new(),
            alive: watch::Sender::new(false),
            eras: Mutex::default(),
            lag: AtomicU64::new(0),
        })
    }

    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    pub(super) async fn wait_alive(&self) {
        // The sender lives as long as `self`.
        let _ = self.alive.subscribe().wait_for(|alive| *alive).await;
    }

    pub(super) fn lag(&self) -> Duration {
        Duration::from_micros(self.lag.load(Ordering::Relaxed))
    }

    fn note_lag(&self, lag: Duration) {
        self.lag.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        BUS_LAG.record(lag.as_secs_f64());
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
            Ok(Err(_)) => Err(LogError::Closed),
            Err(_) => {
                self.rooms.lock().forget_dropped();
                Err(LogError::NoSubscription(patience))
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
        // One line for an outage; its connection logs that the bus is up again.
        let down = Seldom::new();
        loop {
            let began = Clock::instant();
            let ended = stop.run_until_cancelled(self.run_connection()).await;
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
        self.rooms.lock().end_connection();
    }

    /// From connecting to the break of a connection.
    async fn run_connection(self: &Arc<Self>) -> Result<std::convert::Infallible, BusError> {
        let pushes = Arc::new(Pushes::default());
        let push = {
            let (bus, pushes) = (Arc::clone(self), Arc::clone(&pushes));
            move |info| {
                bus.pushed(info, &pushes);
                Ok(())
            }
        };
        let (kind, connected) = self.link.server().connect_bus(push).await?;
        let mut places = vec![0; Partition::all().count()];
        for (place, (_, partitions)) in connected.iter().enumerate() {
            partitions.iter().for_each(|partition| places[partition.index()] = place);
        }
        let shards = connected.into_iter().map(|(conn, partitions)| BusShard { conn, partitions }).collect();
        let mut connection = BusConnection { shards, places, pushes, kind };
        self.tune_in(&mut connection).await?;
        let mut probes = tokio::time::interval(self.link.options().probe_every);
        probes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut outstanding: Option<(u64, Instant)> = None;
        let mut nonce = 0;
        loop {
            tokio::select! {
                () = connection.pushes.told.notified() => if connection.pushes.broken.load(Ordering::Relaxed) {
                    return Err(BusError::Gone);
                },
                () = self.asked.notified() => self.follow_changes(&mut connection).await?,
                _ = probes.tick() => {
                    if let Some((nonce, sent)) = outstanding {
                        let heard = connection.heard(nonce);
                        self.note_lag(heard.unwrap_or_else(Clock::instant) - sent);
                        outstanding = outstanding.filter(|_| heard.is_none());
                    }
                    match outstanding {
                        Some((_, sent)) if sent.elapsed() > DEAF => return Err(BusError::Deaf),
                        Some(_) => {}
                        None => {
                            nonce += 1;
                            // A probe that can't be sent says nothing about the subscriptions: commands fail as well.
                            let sent = Clock::instant();
                            if self.send_probes(&connection, nonce).await {
                                outstanding = Some((nonce, sent));
                            }
                        }
                    }
                    connection.ping().await?;
                }
            }
        }
    }

    /// Subscribes to everything wanted; from then on the bus is alive.
    async fn tune_in(&self, connection: &mut BusConnection) -> Result<(), BusError> {
        let node = &self.node;
        for place in 0..connection.shards.len() {
            let partitions = connection.shards[place].partitions.clone();
            let mut channels: Vec<_> = partitions.iter().map(|partition| partition.node_channel(node)).collect();
            channels.extend(partitions.first().map(|partition| partition.probe_channel(node)));
            connection.subscribe(place, &channels).await?;
        }
        let wanted = self.rooms.lock().begin_connection();
        self.subscribe_changed(connection, wanted).await?;
        // Not the first connection, or rooms were wanted before it was made: something may have been missed.
        let earlier = self.link.note_reset();
        if earlier > 0 || !self.rooms.lock().wanted.is_empty() {
            self.inbox.gap();
        }
        metrics::gauge!(names::BUS_ALIVE).set(1.0);
        metrics::counter!(names::BUS_CONNECTS).increment(1);
        self.alive.send_replace(true);
        tracing::info!(servers = connection.shards.len(), "the bus is up");
        Ok(())
    }

    async fn follow_changes(&self, connection: &mut BusConnection) -> Result<(), BusError> {
        let changed = std::mem::take(&mut self.rooms.lock().changed);
        self.subscribe_changed(connection, changed).await
    }

    async fn subscribe_changed(&self, connection: &mut BusConnection, changed: Vec<RoomId>) -> Result<(), BusError> {
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
                by_shard.entry(connection.places[partition.index()]).or_default().push(partition.channel(room));
            }
            for (place, channels) in by_shard {
                if joining {
                    connection.subscribe(place, &channels).await?;
                } else {
                    connection.unsubscribe(place, &channels).await?;
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

    /// Returns whether all of them were sent. Another id of a server's data means that it has lost its data.
    async fn send_probes(&self, connection: &BusConnection, nonce: u64) -> bool {
        metrics::gauge!(names::BUS_WAITING).set(self.inbox.waiting() as f64);
        let probes = connection.shards.iter().filter_map(|shard| shard.partitions.first()).map(|partition| {
            let probe = self.link.probe(*partition, &self.node, nonce);
            async move { probe.once().await.map(|era_id| (*partition, era_id)) }
        });
        let Ok(eras) = try_join_all(probes).await else { return false };
        for (partition, era_id) in eras {
            let before = self.eras.lock().insert(partition, era_id.clone());
            if before.is_some_and(|before| before != era_id) {
                tracing::error!("Redis has lost its data: rooms are written back from this node's replicas");
                metrics::counter!(names::REDIS_DATA_LOSSES).increment(1);
                self.link.note_reset();
                self.inbox.gap();
            }
        }
        true
    }

    /// Called by the connections' tasks: must not wait.
    fn pushed(&self, PushInfo { kind, data }: PushInfo, pushes: &Pushes) {
        match kind {
            PushKind::Message | PushKind::SMessage => self.message(data, pushes),
            PushKind::Unsubscribe | PushKind::SUnsubscribe => {
                let expected = pushes.leaving.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
                if expected.is_err() {
                    pushes.fail();
                }
            }
            PushKind::Disconnection => pushes.fail(),
            _ => {}
        }
    }

    fn message(&self, data: Vec<Value>, pushes: &Pushes) {
        let mut data = data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next()) else {
            return;
        };
        if is_probe(&channel) {
            let known = |partition: &Partition| channel == partition.probe_channel(&self.node).as_bytes();
            let nonce = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
            if let Some(partition) = Partition::all().find(known) {
                pushes.probes.lock().insert(partition, (nonce, Clock::instant()));
            }
            return;
        }
        match BusMessage::decode(payload.into()) {
            Ok(message) => self.receive(message),
            // Ephemeral messages of another version alone: its commits are decoded as `Reload`.
            Err(WireError::Version(_)) => {}
            Err(error) => {
                static UNREADABLE: Seldom = Seldom::new();
                if UNREADABLE.is_due() {
                    tracing::error!(%error, "a message on the bus can't be read");
                }
                self.inbox.gap();
            }
        }
    }

    fn receive(&self, BusMessage { from, room, body }: BusMessage) {
        let mine = from == self.node;
        match body {
            BusBody::Ephemeral(_) | BusBody::Directed(_) | BusBody::Reload if mine => {}
            BusBody::Directed(messages) => {
                for (room, message) in messages {
                    self.inbox.push(Followed::Ephemeral { room, message });
                }
            }
            _ if !self.rooms.lock().wanted.contains(&room) => {}
            BusBody::Ephemeral(messages) => {
                for message in messages {
                    self.inbox.push(Followed::Ephemeral { room: room.clone(), message });
                }
            }
            BusBody::Commit { expected, entries } => self.inbox.push(Followed::Commit { room, expected, entries }),
            BusBody::Reload => self.inbox.push(Followed::Gap(Some(room))),
        }
    }
}

/// Cheaper than the names of 64 probe channels to compare with.
fn is_probe(channel: &[u8]) -> bool {
    channel.windows(8).any(|part| part == b"}:probe:")
}

impl Pushes {
    fn fail(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }
}

impl BusConnection {
    /// When the last connection heard the probe; `None`: not all have.
    fn heard(&self, nonce: u64) -> Option<Instant> {
        let probes = self.pushes.probes.lock();
        let first = self.shards.iter().filter_map(|shard| shard.partitions.first());
        let heard = first.map(|partition| probes.get(partition).filter(|(at, _)| *at >= nonce).map(|(_, when)| *when));
        heard.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    async fn subscribe(&mut self, place: usize, channels: &[String]) -> Result<(), BusError> {
        let conn = &self.shards[place].conn;
        match self.kind {
            RedisKind::Single => {
                for chunk in channels.chunks(CHUNK) {
                    conn.clone().subscribe(chunk).await?;
                }
            }
            // One channel a command: the crate takes a confirmation for the answer, and each channel gets one.
            RedisKind::Cluster => {
                for chunk in channels.chunks(CHUNK) {
                    try_join_all(chunk.iter().map(|channel| shard_command(conn, "SSUBSCRIBE", channel))).await?;
                }
            }
        }
        Ok(())
    }

    async fn unsubscribe(&mut self, place: usize, channels: &[String]) -> Result<(), BusError> {
        let conn = &self.shards[place].conn;
        self.pushes.leaving.fetch_add(channels.len(), Ordering::Relaxed);
        match self.kind {
            RedisKind::Single => {
                for chunk in channels.chunks(CHUNK) {
                    conn.clone().unsubscribe(chunk).await?;
                }
            }
            RedisKind::Cluster => {
                for chunk in channels.chunks(CHUNK) {
                    try_join_all(chunk.iter().map(|channel| shard_command(conn, "SUNSUBSCRIBE", channel))).await?;
                }
            }
        }
        Ok(())
    }

    /// Finds connections that broke without a FIN.
    async fn ping(&self) -> Result<(), BusError> {
        let pings =
            self.shards.iter().map(|shard| async { redis::cmd("PING").exec_async(&mut shard.conn.clone()).await });
        try_join_all(pings).await?;
        Ok(())
    }
}

async fn shard_command(conn: &MultiplexedConnection, command: &str, channel: &str) -> Result<(), RedisError> {
    redis::cmd(command).arg(channel).exec_async(&mut conn.clone()).await
}
