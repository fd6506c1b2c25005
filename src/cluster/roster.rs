//! What nodes know of each other through Redis: leases, reports, and rooms without a follower.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::{NodeId, RoomId};
use crate::redis::{LEASES, LinkError, LinkRequest, Partition, REPORTS, RedisLink, SWEEPER, millis};

/// Channels of one PUBSUB NUMSUB.
const CHUNK: usize = 200;
/// The census among the reports; no node id is that.
const CENSUS: &str = "@";

/// The nodes of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Their leases run.
    pub alive: Vec<NodeId>,
    /// Their leases ran out.
    pub gone: Vec<NodeId>,
    /// Their reports of themselves with the last renewals: JSON.
    pub reports: BTreeMap<NodeId, String>,
    pub census: Option<Census>,
}

impl Roster {
    /// Whether a node's last report said that it stops.
    pub fn has_left(&self, node: &NodeId) -> bool {
        let said = self.reports.get(node).and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        said.is_some_and(|said| said["draining"] == true)
    }
}

/// Counts of the whole cluster, by the drainer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// The node that counted.
    pub drainer: NodeId,
    /// Live rooms in Redis.
    pub rooms: u64,
    /// Commits that the database doesn't have yet.
    pub waiting: u64,
    /// Age of the oldest of them, ms.
    pub age_ms: u64,
    /// Commits in the outboxes, including those that the database has.
    pub entries: u64,
    /// Bytes of the outboxes.
    #[serde(default)]
    pub bytes: u64,
    /// When it was counted, ms by Redis' clock; in a [`Roster`]: how long ago.
    pub at: u64,
}

/// Rooms that no node follows.
#[derive(Debug, Clone, Default)]
pub struct Sweep {
    /// Live rooms in Redis.
    pub rooms: usize,
    /// Those without a follower.
    pub orphans: Vec<RoomId>,
}

/// As of the last renewal.
#[derive(Debug, Clone)]
struct SeenNodes {
    at: Instant,
    /// How long a lease runs.
    lease: Duration,
    alive: Vec<NodeId>,
}

/// This node's lease, and the others'.
pub struct ClusterNodes {
    link: Arc<RedisLink>,
    node: NodeId,
    seen: Mutex<Option<SeenNodes>>,
    /// Sent with the next renewal.
    report: Mutex<String>,
}

impl ClusterNodes {
    pub fn new(link: Arc<RedisLink>, node: NodeId) -> Arc<Self> {
        Arc::new(Self { link, node, seen: Mutex::default(), report: Mutex::default() })
    }

    /// The nodes whose lease runs, and how long a lease is; `None`: the last look is older than a lease.
    pub fn alive(&self) -> Option<(Vec<NodeId>, Duration)> {
        let seen = self.seen.lock();
        seen.as_ref().filter(|seen| seen.at.elapsed() < seen.lease).map(|seen| (seen.alive.clone(), seen.lease))
    }

    /// Renews this node's lease and looks at the others'. A lease that ran out is shown for `remember`.
    pub async fn beat(&self, lease: Duration, remember: Duration) -> Result<Roster, LinkError> {
        let roster = self.roster_as(self.node.as_str(), lease, remember).await?;
        *self.seen.lock() = Some(SeenNodes { at: Clock::instant(), lease, alive: roster.alive.clone() });
        Ok(roster)
    }

    /// Sets this node's report from the next renewal on: JSON.
    pub fn say(&self, report: String) {
        *self.report.lock() = report;
    }

    /// Looks at the leases without renewing one.
    pub async fn roster(&self, remember: Duration) -> Result<Roster, LinkError> {
        self.roster_as("", remember, remember).await
    }

    /// The last renewal. A planned stop is not a loss: the lease runs for `farewell` more, and members that have not
    /// come back to another node by then are found by its end.
    pub async fn sign_off(&self, farewell: Duration) -> Result<(), LinkError> {
        let end = self.link.millis().await?.saturating_add(millis(farewell));
        let mut goodbye = redis::pipe();
        goodbye.zadd(LEASES, self.node.as_str(), end).ignore();
        goodbye.hset(REPORTS, self.node.as_str(), self.report.lock().as_str()).ignore();
        self.link.ask(&LinkRequest::Pipeline(&goodbye)).await.map(drop)
    }

    async fn roster_as(&self, node: &str, lease: Duration, remember: Duration) -> Result<Roster, LinkError> {
        let report = self.report.lock().clone();
        let (alive, gone, mut said, now) = self.link.beat(node, lease, remember, &report).run().await?;
        let nodes = |names: Vec<String>| names.iter().filter_map(|name| NodeId::parse(name).ok()).collect();
        let census = said.remove(CENSUS).and_then(|text| serde_json::from_str::<Census>(&text).ok());
        Ok(Roster {
            alive: nodes(alive),
            gone: nodes(gone),
            reports: said.into_iter().filter_map(|(name, text)| Some((NodeId::parse(&name).ok()?, text))).collect(),
            census: census.map(|census| Census { at: now.saturating_sub(census.at), ..census }),
        })
    }

    /// Whether this node sweeps for the next while.
    pub async fn may_sweep(&self, lease: Duration) -> Result<bool, LinkError> {
        self.link.lease(SWEEPER, &self.node, lease).run().await
    }

    /// Live rooms without a follower on any node and without a commit for `quiet`. Removes rooms that no longer exist
    /// from the index.
    pub async fn find_orphans(&self, quiet: Duration) -> Result<Sweep, LinkError> {
        let mut sweep = Sweep::default();
        let before = self.link.millis().await?.saturating_sub(millis(quiet)) / 1000;
        for partition in Partition::all() {
            sweep.rooms += self.link.command::<usize>(redis::cmd("ZCARD").arg(partition.rooms())).await?;
            let mut question = redis::cmd("ZRANGEBYSCORE");
            question.arg(partition.rooms()).arg("-inf").arg(before);
            let names: Vec<String> = self.link.command(&question).await?;
            let rooms: Vec<RoomId> = names.iter().filter_map(|name| RoomId::parse(name).ok()).collect();
            for rooms in rooms.chunks(CHUNK) {
                sweep.orphans.extend(self.without_follower(partition, rooms).await?);
            }
        }
        Ok(sweep)
    }

    async fn without_follower(&self, partition: Partition, rooms: &[RoomId]) -> Result<Vec<RoomId>, LinkError> {
        let mut question = redis::cmd("PUBSUB");
        question.arg(if self.link.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" });
        for room in rooms {
            question.arg(partition.channel(room));
        }
        let counts: Vec<(String, u64)> = self.link.command(&question).await?;
        let followed = |room: &RoomId| {
            let channel = partition.channel(room);
            counts.iter().any(|(name, count)| *name == channel && *count > 0)
        };
        let mut orphans = Vec::new();
        for room in rooms.iter().filter(|room| !followed(room)) {
            if self.link.command(redis::cmd("EXISTS").arg(partition.room(room))).await? {
                orphans.push(room.clone());
            } else {
                // The index outlived the room.
                self.link.command::<()>(redis::cmd("ZREM").arg(partition.rooms()).arg(room.as_str())).await?;
            }
        }
        Ok(orphans)
    }
}

/// Publishes the census to all nodes.
pub(super) async fn tell(link: &RedisLink, census: &Census) -> Result<(), LinkError> {
    let text = serde_json::to_string(census).unwrap_or_default();
    let mut tell = redis::pipe();
    tell.hset(REPORTS, CENSUS, text).ignore();
    // The nodes' renewals renew it; without one it lapses too.
    tell.cmd("PEXPIRE").arg(REPORTS).arg(millis(link.options().lives.place)).arg("NX").ignore();
    link.ask(&LinkRequest::Pipeline(&tell)).await.map(drop)
}
