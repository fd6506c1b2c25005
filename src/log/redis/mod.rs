//! The log of a cluster: every node at one Redis ([`crate::redis`] has the keys).
//!
//! ```text
//! commit ──► one EVALSHA: head compared, changed fields, PUBLISH, XADD ──► Committed | Conflict(latest)
//!                                                   │          └─► outbox ──► cluster::Drainer ──► Repository::append
//!                                                   └─► every node's Bus ──► BusInbox ──► follow
//! ```
//!
//! **A lost answer.** Each commit has an id, and the room remembers the last one of each node: a request that is sent
//! again finds out that it took effect. When that can't be found out in time the caller gets an error.
//!
//! **A node that is far from Redis** would lose every race against near ones: after some conflicts in a row it is given
//! the room's next turn, and the others' commits wait for its commit (`fairness.rs`).
//!
//! **Redis loses data.** Nodes hear of it (the bus breaks, or the id of the data changes) as a gap in every room, and
//! write back what they know ([`crate::log::Log::restore`]). The first node to write may know less than another one,
//! whose last commit is acknowledged already. So commits to a room that was written back wait for
//! [`RedisOptions::recovery_wait`](crate::redis::RedisOptions), and the highest head wins. A room that begins where the
//! loss was found waits as long: a node that has no replica must not take the place of a room that another one has. A
//! commit that was lost before the database had it is remembered by its node, and goes into the outbox again
//! (`recent.rs`).

mod bus;
mod commit;
mod fairness;
mod inbox;
mod publisher;
mod recent;
mod restore;
mod subscriptions;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::bus::Bus;
use self::fairness::Fairness;
use self::inbox::BusInbox;
use self::publisher::{Publication, Publisher};
use self::recent::RecentCommits;
use super::{Followed, Log, LogError, Outcome};
use crate::commit::{Commit, Snapshot};
use crate::domain::{NodeId, RoomId};
use crate::panics;
use crate::redis::{LinkError, Partition, RedisLink, millis};
use crate::telemetry::Seldom;

/// One node's access to the log in Redis.
pub struct RedisLog {
    node: NodeId,
    link: Arc<RedisLink>,
    bus: Arc<Bus>,
    inbox: Arc<BusInbox>,
    recent: RecentCommits,
    fairness: Fairness,
    publisher: Publisher,
    /// When the outboxes were trimmed because Redis was full.
    relieved: Mutex<Option<Instant>>,
    full: Seldom,
    /// Commits are named by a random number of this process and a count.
    incarnation: String,
    commits: AtomicU64,
}

impl From<LinkError> for LogError {
    fn from(error: LinkError) -> Self {
        Self::unavailable(error)
    }
}

impl RedisLog {
    /// Writes back what Redis lacks of `rooms` ([`Repository::live_rooms`](crate::repository::Repository::live_rooms)),
    /// and returns when the bus is heard. The log's tasks run on `tracker` until `stop`.
    pub async fn start(
        link: Arc<RedisLink>,
        node: NodeId,
        rooms: Vec<Snapshot>,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Arc<Self>, LogError> {
        let inbox = Arc::new(BusInbox::default());
        let bus = Bus::new(node.clone(), Arc::clone(&link), Arc::clone(&inbox));
        let (publisher, publications) = Publisher::new();
        let log = Arc::new(Self {
            node,
            link: Arc::clone(&link),
            bus,
            inbox,
            recent: RecentCommits::default(),
            fairness: Fairness::default(),
            publisher,
            relieved: Mutex::default(),
            full: Seldom::new(),
            incarnation: format!("{:016x}", rand::random::<u64>()),
            commits: AtomicU64::new(0),
        });
        log.restore_all(rooms).await?;
        tracker.spawn(panics::abort_if_lost("bus", stop.clone(), Arc::clone(&log.bus).run(stop.clone())));
        panics::spawn_or_abort(
            tracker,
            "publisher",
            &stop,
            publisher::run(Arc::clone(&link), log.node.clone(), publications),
        );
        panics::spawn_or_abort(tracker, "rooms' lives", &stop, Arc::clone(&log).keep_rooms());
        panics::spawn_or_abort(tracker, "recent commits", &stop, Arc::clone(&log).keep_recent());
        let patience = link.options().deadline;
        if tokio::time::timeout(patience, log.bus.wait_alive()).await.is_err() {
            stop.cancel();
            return Err(LogError::NoSubscription(patience));
        }
        Ok(log)
    }

    /// Whether this node hears the others: for readiness. Also the gauge `tandem_bus_alive`.
    pub fn bus_alive(&self) -> bool {
        self.bus.is_alive()
    }

    /// Waits until it does.
    pub async fn bus_up(&self) {
        self.bus.wait_alive().await;
    }

    /// From sending a probe to hearing it, at the last one.
    pub fn bus_lag(&self) -> Duration {
        self.bus.lag()
    }

    /// This node's commits that the database is not known to have.
    pub fn unaudited(&self) -> usize {
        self.recent.len()
    }

    /// A name that no other commit of the cluster has.
    fn next_id(&self) -> String {
        format!("{}-{}", self.incarnation, self.commits.fetch_add(1, Ordering::Relaxed))
    }

    /// Renews the life of the rooms that this node follows: a silent room must not lapse.
    async fn keep_rooms(self: Arc<Self>) {
        let life = self.link.options().lives.room;
        let mut every = tokio::time::interval((life / 4).max(Duration::from_millis(50)));
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let away = Seldom::new();
        loop {
            every.tick().await;
            for room in self.bus.wanted() {
                let partition = Partition::of(&room);
                for key in [partition.room(&room), partition.rooms()] {
                    let mut renew = redis::cmd("PEXPIRE");
                    // GT: what another node has just renewed is left alone.
                    renew.arg(key).arg(millis(life)).arg("GT");
                    if let Err(error) = self.link.command::<()>(&renew).await {
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
        Box::pin(self.bus.subscribe(room, self.link.options().deadline))
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.bus.unsubscribe(room);
        self.fairness.forget(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.inbox.next())
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        self.publisher.publish(Publication { room: room.clone(), to: to.cloned(), message });
    }
}
