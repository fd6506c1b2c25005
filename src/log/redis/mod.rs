//! The log of a cluster: every node at one Redis (or Valkey) 7 or later, be it one server, one with Sentinels, or a cluster.
//!
//! ```text
//! commit ──► one EVALSHA: position check, changed fields, PUBLISH, XADD ──► Committed | Conflict(latest)
//!                                                   │          └─► outbox ──► Drainer ──► Repository::append
//!                                                   └─► every node's Bus ──► Inbox ──► follow
//! ```
//!
//! Keys, by partition (`pNN`, 64 of them, by a hash of the room's name; the braces keep a commit on one shard):
//!
//! | key | what | life |
//! |---|---|---|
//! | `tandem:{pNN}:room:<id>` | hash: `@head`, `@last` (each node's last commit), `@turn` (whose commit is waited for), `@hold` (until when commits wait, after it was written back), `@end` when over, and `.`+field for each stored field | [`Lives::room`], renewed; an end is remembered for [`Lives::end`] |
//! | `tandem:{pNN}:rooms` | sorted set of live rooms by the second of their last commit | [`Lives::room`] |
//! | `tandem:{pNN}:outbox` | stream of commits for the database and others (`docs/EVENTS.md`) | [`Lives::outbox`] after the last commit; entries are trimmed, bytes bounded (`outbox.rs`) |
//! | `tandem:{pNN}:era` | a random name of the data: another one means that Redis has lost it | [`Lives::outbox`] |
//! | `tandem:{pNN}:audited` | the last outbox entry that the database has | [`Lives::outbox`] |
//! | `tandem:{p00}:ahead` | how far room time is ahead of Redis' clock, because that was put back once (µs) | [`Lives::outbox`], renewed |
//! | `tandem:{pNN}:joins:<address>`, `…:pins:<address and room>` | what of a rate is used up | two windows of it |
//! | `tandem:{pNN}:address:<address>`, `…:user:<user>` | sorted set of joined sessions by the moment at which they lapse | [`Lives::place`], renewed |
//! | `tandem:{nodes}:salt` | what the addresses and users in those names are hashed with | [`Lives::place`], renewed |
//! | `tandem:{nodes}:leases` | sorted set of nodes by the end of their lease, ms | a minute after the last one |
//! | `tandem:{nodes}:reports` | hash: what each node says of itself, and the drainer (`@`) of the whole, JSON | as the leases |
//! | `tandem:{nodes}:drainer`, `…:sweeper` | which node does it | seconds |
//! | `tandem:{pNN}:bus:<id>` | channel of a room | |
//! | `tandem:{pNN}:node:<node>` | channel of a node, in each partition so that it keeps its place among the room's messages | |
//! | `tandem:{pNN}:probe:<node>` | channel on which a node hears itself | |
//!
//! **An answer that was lost.** Each commit has an id of its own, and the room remembers the last one of each node. A request
//! that is sent again finds out that it took effect. When that can't be found out in time the caller gets an error.
//!
//! **A node that is far from Redis** would lose every race against near ones: after some conflicts in a row it is given the
//! room's next turn, and the others' commits wait for its (`turns.rs`).
//!
//! **Redis loses data.** Nodes hear of it (the bus breaks, or the era changes) as a gap in every room, and write back what
//! they know ([`crate::log::Log::restore`]). Whoever is first may know less than another, and what would be committed on that
//! is what the other has acknowledged already: so commits to a room that was written back wait for the others' turn to write,
//! [`RedisOptions::muster`], about the time in which a node finds out and connects again. What was committed and had not reached the database is remembered by the node
//! that committed it, and goes into the outbox again.

mod bus;
mod codec;
mod drain;
mod inbox;
mod keys;
mod link;
mod outbox;
mod publisher;
mod quotas;
mod recent;
mod record;
mod roster;
mod server;
mod tallies;
mod time;
mod turns;
mod wishes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use redis::{Script, Value};
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::bus::{Bus, BusParts};
use self::inbox::Inbox;
use self::keys::Partition;
use self::link::Link;
use self::outbox::Relief;
use self::publisher::{Publication, Publisher};
use self::recent::Recent;
use self::roster::Seen;
use self::server::Server;
use self::turns::Turns;
use super::{Followed, Log, LogError, Outcome};
use crate::authorities;
use crate::commit::{Commit, Snapshot};
use crate::domain::{Head, NodeId, RoomId};
use crate::panics;
use crate::telemetry::{Seldom, names};

pub use drain::{DrainOptions, Drainer};
pub use keys::PARTITIONS;
pub use quotas::RedisQuotas;
pub use roster::{Census, Roster, Sweep};

/// Rooms that are written back at the same time.
const RESTORES: usize = 32;

/// Where Redis is, and what this node wants of it.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://`, or `redis-sentinel://…` (see `docs/OPERATIONS.md`). That it is a cluster shows itself.
    pub url: SecretString,
    /// CA certificates (PEM) to trust instead of the machine's.
    pub ca: Option<PathBuf>,
    /// How long an answer may take.
    pub patience: Duration,
    /// How long a caller may wait, all attempts together.
    pub deadline: Duration,
    /// How long quotas wait for an answer before this node counts alone.
    pub quota_patience: Duration,
    /// How often the bus is probed.
    pub probe_every: Duration,
    /// How long commits to a room that was written back wait for what other nodes may know of it.
    pub muster: Duration,
    /// How long things live.
    pub lives: Lives,
    /// Commits that a partition's outbox holds while the database is away; beyond it the oldest are lost to the audit.
    pub outbox_entries: u32,
    /// Bytes that all outboxes may hold together, each partition's an equal part. Beyond it the oldest go: those that
    /// the database has, then others.
    pub outbox_bytes: u64,
}

/// How long things live in Redis.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    /// A live room that no node renews.
    pub room: Duration,
    /// The head of a room that ended.
    pub end: Duration,
    /// An outbox to which nothing comes.
    pub outbox: Duration,
    /// The place of a session that no node renews.
    pub place: Duration,
}

impl RedisOptions {
    /// What production uses.
    pub fn new(url: SecretString) -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self {
            url,
            ca: None,
            patience: Duration::from_millis(1500),
            deadline: Duration::from_secs(4),
            quota_patience: Duration::from_millis(250),
            probe_every: Duration::from_secs(1),
            muster: Duration::from_secs(2),
            lives: Lives { room: hours(24), end: hours(1), outbox: hours(7 * 24), place: hours(1) },
            outbox_entries: 16_384,
            outbox_bytes: 256 << 20,
        }
    }
}

/// One node's door to the log in Redis.
pub struct RedisLog {
    node: NodeId,
    link: Arc<Link>,
    bus: Arc<Bus>,
    inbox: Arc<Inbox>,
    recent: Recent,
    /// The other nodes, as the last beat found them.
    seen: Mutex<Option<Seen>>,
    /// What the next beat tells them.
    report: Mutex<String>,
    turns: Turns,
    publisher: Publisher,
    relief: Relief,
    options: RedisOptions,
    scripts: Scripts,
    /// Commits are named by this process's random number and a count.
    incarnation: String,
    commits: AtomicU64,
    stop: CancellationToken,
}

struct Scripts {
    commit: Script,
    restore: Script,
}

/// What became of a room that was written back.
enum Restored {
    /// Redis had less, and has it now.
    Raised,
    /// Redis has this.
    Found(Option<Snapshot>),
}

impl RedisLog {
    /// Connects, and returns when commands are answered and the bus is heard. Its tasks run on `tracker` until `stop`.
    pub async fn connect(
        options: RedisOptions,
        node: NodeId,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, LogError> {
        let root = options.ca.as_deref().map(authorities::read).transpose();
        let root = root.map_err(|error| LogError(format!("REDIS_CA_PATH={error}")))?.map(|read| read.pem);
        let server = Server::parse(options.url.expose_secret(), root, options.patience);
        let server = server.map_err(|error| LogError(format!("REDIS_URL: {error}")))?;
        let link = Link::new(server.clone(), options.deadline);
        link.command(&redis::cmd("PING")).await?;
        let inbox = Arc::new(Inbox::default());
        let bus = Bus::new(BusParts {
            node: node.clone(),
            server,
            link: Arc::clone(&link),
            inbox: Arc::clone(&inbox),
            lives: options.lives,
            probe_every: options.probe_every,
        });
        let (publisher, publications) = Publisher::new();
        let log = Arc::new(Self {
            node,
            link,
            bus,
            inbox,
            recent: Recent::default(),
            seen: Mutex::default(),
            report: Mutex::default(),
            turns: Turns::default(),
            publisher,
            relief: Relief::default(),
            scripts: Scripts {
                commit: outbox::script(include_str!("commit.lua")),
                restore: Script::new(include_str!("restore.lua")),
            },
            incarnation: format!("{:016x}", rand::random::<u64>()),
            commits: AtomicU64::new(0),
            stop: stop.clone(),
            options,
        });
        let publishing = publisher::run(Arc::clone(&log.bus), Arc::clone(&log.link), publications);
        let vital = |task, work: BoxFuture<'static, ()>| {
            let work = stop.clone().run_until_cancelled_owned(work).map(drop);
            tracker.spawn(panics::abort_if_lost(task, stop.clone(), work));
        };
        tracker.spawn(panics::abort_if_lost("bus", stop.clone(), Arc::clone(&log.bus).run(stop.clone())));
        vital("publisher", Box::pin(publishing));
        vital("rooms' lives", Box::pin(Arc::clone(&log).keep_rooms()));
        vital("recent commits", Box::pin(Arc::clone(&log).keep_recent()));
        let up = tokio::time::timeout(log.options.deadline, log.bus.wait_alive()).await;
        match up {
            Ok(()) => Ok(log),
            Err(_) => {
                log.stop.cancel();
                Err(LogError("Redis answers, but subscriptions fail".to_owned()))
            }
        }
    }

    /// Whether this node hears the others: for readiness. Also the gauge `tandem_bus_alive`.
    pub fn bus_alive(&self) -> bool {
        self.bus.is_alive()
    }

    /// Waits until it does.
    pub async fn bus_up(&self) {
        self.bus.wait_alive().await;
    }

    /// From saying something on the bus to hearing it, at the last probe.
    pub fn bus_lag(&self) -> Duration {
        self.bus.lag()
    }

    /// Whether commands are answered.
    pub async fn ping(&self) -> Result<(), LogError> {
        self.link.command(&redis::cmd("PING")).await.map(drop)
    }

    /// This node's commits that the database is not known to have.
    pub fn unaudited(&self) -> usize {
        self.recent.len()
    }

    /// Writes back what a Redis that is new or has lost everything lacks: [`crate::repository::Repository::live_rooms`] at
    /// a start. Only raises, like [`Log::restore`]; says how many rooms it brought back.
    pub async fn restore_all(&self, snapshots: Vec<Snapshot>) -> Result<usize, LogError> {
        let mut restored = 0;
        let mut writes =
            futures_util::stream::iter(snapshots).map(|snapshot| self.write_back(snapshot)).buffer_unordered(RESTORES);
        while let Some(written) = writes.next().await {
            restored += usize::from(matches!(written?, Restored::Raised));
        }
        Ok(restored)
    }

    async fn try_commit(&self, commit: Commit) -> Result<Outcome, LogError> {
        super::ascending(&commit)?;
        let partition = Partition::of(&commit.room);
        let (events, state) = (Bytes::from(record::events(&commit)), Bytes::from(record::state(&commit)));
        let id = format!("{}-{}", self.incarnation, self.commits.fetch_add(1, Ordering::Relaxed));
        let lives = &self.options.lives;
        let mut call = self.scripts.commit.prepare_invoke();
        call.key(partition.room(&commit.room)).key(partition.outbox()).key(partition.rooms()).key(partition.era());
        call.key(partition.audited());
        call.arg(record::head_text(commit.expected)).arg(record::head_text(commit.next)).arg(commit.next.epoch);
        call.arg(u8::from(commit.row.ended)).arg(u8::from(commit.patch.clear)).arg(self.node.as_str()).arg(id);
        call.arg(publish_command(self.bus.is_cluster())).arg(partition.channel(&commit.room));
        call.arg(record::commit_message(&self.node, &commit)).arg(&events[..]).arg(&state[..]);
        call.arg(commit.room.as_str()).arg(millis(lives.room)).arg(millis(lives.end)).arg(millis(lives.outbox));
        call.arg(self.options.outbox_entries);
        call.arg(u8::from(self.turns.is_due(&commit.room))).arg(millis(turns::TURN));
        // An answer is asked for again within the deadline; twice that for clocks and pauses.
        call.arg(self.outbox_share()).arg(millis(self.options.deadline * 2));
        let gone: Vec<_> = commit.patch.fields.iter().filter(|(_, value)| value.is_none()).collect();
        call.arg(gone.len());
        for (field, _) in gone {
            call.arg(stored_field(field));
        }
        for (field, value) in &commit.patch.fields {
            if let Some(value) = value {
                call.arg(stored_field(field)).arg(&value[..]);
            }
        }
        let answer = self.in_turn(&call).await?;
        self.turns.note(&commit.room, answer.what == "conflict");
        match answer.what.as_str() {
            "ok" | "again" => {
                let (entry, era) = (answer.text(0)?, answer.text(1)?);
                let lost = redis::from_redis_value(answer.value(2)?).map_err(unreadable)?;
                self.relief.note_lost(lost);
                self.recent.add(partition, &entry, &era, &commit, events, state);
                Ok(Outcome::Committed)
            }
            "conflict" => {
                let latest = record::parse_head(answer.text(0)?.as_bytes());
                let latest = latest.ok_or_else(|| LogError("the room's head can't be read".to_owned()))?;
                Ok(Outcome::Conflict(Some(latest)))
            }
            "vacant" => Ok(Outcome::Conflict(None)),
            "early" => {
                let (room, next, ended) = (&commit.room, commit.next.epoch, answer.text(0)?);
                Err(LogError(format!("epoch {next} of {room} is not later than {ended}, which has ended")))
            }
            other => Err(LogError(format!("a script answered {other}"))),
        }
    }

    async fn try_restore(&self, given: Snapshot) -> Result<Option<Snapshot>, LogError> {
        match self.write_back(given.clone()).await? {
            Restored::Raised => Ok(Some(given)),
            Restored::Found(found) => Ok(found),
        }
    }

    async fn write_back(&self, given: Snapshot) -> Result<Restored, LogError> {
        let partition = Partition::of(&given.room);
        let mut call = self.scripts.restore.prepare_invoke();
        call.key(partition.room(&given.room)).key(partition.rooms());
        call.arg(given.head.epoch).arg(given.head.seq).arg(given.room.as_str()).arg(millis(self.options.lives.room));
        call.arg(publish_command(self.bus.is_cluster())).arg(partition.channel(&given.room));
        call.arg(record::reload(&self.node, &given.room)).arg(millis(self.options.muster));
        for (field, value) in &given.fields {
            call.arg(stored_field(field)).arg(&value[..]);
        }
        let answer = Answer::of(self.link.script(&call).await?)?;
        match answer.what.as_str() {
            "raised" => {
                // One line for all of them says that Redis has lost its data; this one tells of a room.
                tracing::debug!(roomId = %given.room, "written back to Redis, which had lost it");
                metrics::counter!(names::ROOMS_RESTORED).increment(1);
                Ok(Restored::Raised)
            }
            "latest" => Ok(Restored::Found(snapshot(&given.room, answer.value(0)?)?)),
            "vacant" => Ok(Restored::Found(None)),
            other => Err(LogError(format!("a script answered {other}"))),
        }
    }

    async fn try_load(&self, room: &RoomId) -> Result<Option<Snapshot>, LogError> {
        let partition = Partition::of(room);
        let fields = self.link.command(redis::cmd("HGETALL").arg(partition.room(room))).await?;
        snapshot(room, fields)
    }

    /// Rooms that this node follows don't end because nobody says anything in them.
    async fn keep_rooms(self: Arc<Self>) {
        let mut every = tokio::time::interval((self.options.lives.room / 4).max(Duration::from_millis(50)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let away = Seldom::new();
        loop {
            every.tick().await;
            for room in self.bus.wanted() {
                let partition = Partition::of(&room);
                for key in [partition.room(&room), partition.rooms()] {
                    let mut renew = redis::cmd("PEXPIRE");
                    // Greater only: what has just been renewed by another node is left alone.
                    renew.arg(key).arg(millis(self.options.lives.room)).arg("GT");
                    if let Err(error) = self.link.command(&renew).await {
                        if away.is_due() {
                            tracing::warn!(%error, "rooms could not be renewed");
                        }
                        break;
                    }
                }
            }
        }
    }
}

impl Log for RedisLog {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        Box::pin(self.try_commit(commit))
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(self.try_load(room))
    }

    fn restore(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<Option<Snapshot>, LogError>> {
        Box::pin(self.try_restore(snapshot))
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(self.bus.subscribe(room, self.options.deadline))
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.bus.unsubscribe(room);
        self.turns.forget(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.inbox.next())
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        let partition = Partition::of(room);
        let channel = to.map_or_else(|| partition.channel(room), |node| partition.node_channel(node));
        let message = record::ephemeral(&self.node, room, to.is_some(), &message);
        self.publisher.publish(Publication { partition, channel, message });
    }
}

/// What a script answered: a word, and what belongs to it.
struct Answer {
    what: String,
    rest: Vec<Value>,
}

impl Answer {
    fn of(value: Value) -> Result<Self, LogError> {
        let mut rest: Vec<Value> = redis::from_redis_value(value).map_err(unreadable)?;
        if rest.is_empty() {
            return Err(LogError("a script answered nothing".to_owned()));
        }
        let what = redis::from_redis_value(rest.remove(0)).map_err(unreadable)?;
        Ok(Self { what, rest })
    }

    fn value(&self, index: usize) -> Result<Value, LogError> {
        self.rest.get(index).cloned().ok_or_else(|| LogError("a script's answer is short".to_owned()))
    }

    fn text(&self, index: usize) -> Result<String, LogError> {
        redis::from_redis_value(self.value(index)?).map_err(unreadable)
    }
}

fn unreadable(error: redis::ParsingError) -> LogError {
    LogError(format!("an answer of Redis can't be read: {error}"))
}

/// Stored fields are told from the log's own (`@head`) by a dot.
fn stored_field(field: &str) -> String {
    format!(".{field}")
}

fn snapshot(room: &RoomId, hash: Value) -> Result<Option<Snapshot>, LogError> {
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = redis::from_redis_value(hash).map_err(unreadable)?;
    let mut head = None;
    let mut fields = BTreeMap::new();
    for (field, value) in pairs {
        match &field[..] {
            b"@end" => return Ok(None),
            b"@head" => head = record::parse_head(&value),
            [b'.', name @ ..] => {
                let name = std::str::from_utf8(name).map_err(|_| LogError(format!("a field of {room} is not text")))?;
                fields.insert(name.to_owned(), Bytes::from(value));
            }
            _ => {}
        }
    }
    Ok(head.map(|head: Head| Snapshot { room: room.clone(), head, fields }))
}

fn publish_command(cluster: bool) -> &'static str {
    if cluster { "SPUBLISH" } else { "PUBLISH" }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
