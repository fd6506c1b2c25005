//! What nodes know of each other through Redis: leases, and rooms that nobody follows.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Script, Value};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::keys::{self, Partition};
use super::link::Request;
use super::{RedisLog, millis, unreadable};
use crate::clock::Clock;
use crate::domain::{NodeId, RoomId};
use crate::log::LogError;

/// Channels of one question.
const CHUNK: usize = 200;
/// The census among the reports; no node is called so.
const CENSUS: &str = "@";

/// The nodes of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roster {
    /// Their leases run.
    pub alive: Vec<NodeId>,
    /// Their leases ran out.
    pub gone: Vec<NodeId>,
    /// What they said of themselves with their last beats: JSON.
    pub reports: BTreeMap<NodeId, String>,
    /// All of it, as the drainer counted.
    pub census: Option<Census>,
}

impl Roster {
    /// Whether a node's last words were that it stops.
    pub fn has_left(&self, node: &NodeId) -> bool {
        let said = self.reports.get(node).and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        said.is_some_and(|said| said["draining"] == true)
    }
}

/// What only one node counts, for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Census {
    /// Who counted.
    pub drainer: NodeId,
    /// Live rooms in Redis.
    pub rooms: u64,
    /// Commits that the database doesn't have yet.
    pub waiting: u64,
    /// Age of the oldest of them, ms.
    pub age_ms: u64,
    /// Commits in the outboxes, those that the database has included.
    pub entries: u64,
    /// Bytes of the outboxes.
    #[serde(default)]
    pub bytes: u64,
    /// When, ms by Redis' clock; in a [`Roster`]: how long ago.
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

/// What the last beat found.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: Instant,
    /// How long a lease runs.
    pub(super) lease: Duration,
    pub(super) alive: Vec<NodeId>,
}

impl RedisLog {
    /// Renews this node's lease and looks at the others'. A lease that ran out is shown for `remember`.
    pub async fn beat(&self, lease: Duration, remember: Duration) -> Result<Roster, LogError> {
        let roster = self.roster_as(self.node.as_str(), lease, remember).await?;
        *self.seen.lock() = Some(Seen { at: Clock::instant(), lease, alive: roster.alive.clone() });
        Ok(roster)
    }

    /// What this node says of itself from the next beat on: JSON.
    pub fn say(&self, report: String) {
        *self.report.lock() = report;
    }

    /// Looks only.
    pub async fn roster(&self, remember: Duration) -> Result<Roster, LogError> {
        self.roster_as("", remember, remember).await
    }

    /// The last beat: a planned stop is not a death, so nobody is missed for `farewell`. Members that have not come back
    /// to another node by then are found by the lease that runs out.
    pub async fn sign_off(&self, farewell: Duration) -> Result<(), LogError> {
        let end = self.redis_millis().await?.saturating_add(millis(farewell));
        let mut goodbye = redis::pipe();
        goodbye.zadd(keys::LEASES, self.node.as_str(), end).ignore();
        goodbye.hset(keys::REPORTS, self.node.as_str(), self.report.lock().as_str()).ignore();
        self.link.ask(&Request::Pipeline(&goodbye)).await.map(drop)
    }

    async fn roster_as(&self, node: &str, lease: Duration, remember: Duration) -> Result<Roster, LogError> {
        let script = Script::new(include_str!("beat.lua"));
        let mut call = script.prepare_invoke();
        call.key(keys::LEASES).key(keys::REPORTS).arg(node).arg(millis(lease)).arg(millis(remember));
        call.arg(self.report.lock().as_str());
        type Answer = (Vec<String>, Vec<String>, BTreeMap<String, String>, u64);
        let (alive, gone, mut said, now): Answer =
            redis::from_redis_value(self.link.script(&call).await?).map_err(unreadable)?;
        let nodes = |names: Vec<String>| names.iter().filter_map(|name| NodeId::parse(name).ok()).collect();
        let census = said.remove(CENSUS).and_then(|text| serde_json::from_str::<Census>(&text).ok());
        Ok(Roster {
            alive: nodes(alive),
            gone: nodes(gone),
            reports: said.into_iter().filter_map(|(name, text)| Some((NodeId::parse(&name).ok()?, text))).collect(),
            census: census.map(|census| Census { at: now.saturating_sub(census.at), ..census }),
        })
    }

    /// Tells all nodes what this one has counted.
    pub(super) async fn tell(&self, census: &Census) -> Result<(), LogError> {
        let text = serde_json::to_string(census).unwrap_or_default();
        let mut tell = redis::pipe();
        tell.hset(keys::REPORTS, CENSUS, text).ignore();
        // Beats renew it; without one it has a life all the same.
        tell.cmd("PEXPIRE").arg(keys::REPORTS).arg(millis(self.options.lives.place)).arg("NX").ignore();
        self.link.ask(&Request::Pipeline(&tell)).await.map(drop)
    }

    /// Whether this node sweeps for the next while.
    pub async fn may_sweep(&self, lease: Duration) -> Result<bool, LogError> {
        let script = Script::new(include_str!("lease.lua"));
        let mut call = script.prepare_invoke();
        call.key(keys::SWEEPER).arg(self.node.as_str()).arg(millis(lease));
        Ok(redis::from_redis_value::<u8>(self.link.script(&call).await?).map_err(unreadable)? == 1)
    }

    /// Live rooms without a follower on any node, and without a commit since `quiet`. Forgets rooms that are no more.
    pub async fn sweep(&self, quiet: Duration) -> Result<Sweep, LogError> {
        let mut sweep = Sweep::default();
        let before = self.redis_millis().await?.saturating_sub(millis(quiet)) / 1000;
        for partition in Partition::all() {
            let all = self.link.command(redis::cmd("ZCARD").arg(partition.rooms())).await?;
            sweep.rooms += redis::from_redis_value::<usize>(all).map_err(unreadable)?;
            let mut question = redis::cmd("ZRANGEBYSCORE");
            question.arg(partition.rooms()).arg("-inf").arg(before);
            let names: Vec<String> =
                redis::from_redis_value(self.link.command(&question).await?).map_err(unreadable)?;
            let rooms: Vec<RoomId> = names.iter().filter_map(|name| RoomId::parse(name).ok()).collect();
            for rooms in rooms.chunks(CHUNK) {
                sweep.orphans.extend(self.without_follower(partition, rooms).await?);
            }
        }
        Ok(sweep)
    }

    async fn without_follower(&self, partition: Partition, rooms: &[RoomId]) -> Result<Vec<RoomId>, LogError> {
        let mut question = redis::cmd("PUBSUB");
        question.arg(if self.bus.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" });
        for room in rooms {
            question.arg(partition.channel(room));
        }
        let counts: Vec<(String, u64)> =
            redis::from_redis_value::<Vec<(String, u64)>>(self.link.command(&question).await?).map_err(unreadable)?;
        let followed = |room: &RoomId| {
            let channel = partition.channel(room);
            counts.iter().any(|(name, count)| *name == channel && *count > 0)
        };
        let mut orphans = Vec::new();
        for room in rooms.iter().filter(|room| !followed(room)) {
            let exists = self.link.command(redis::cmd("EXISTS").arg(partition.room(room))).await?;
            if matches!(exists, Value::Int(0)) {
                // The index outlived the room.
                self.link.command(redis::cmd("ZREM").arg(partition.rooms()).arg(room.as_str())).await?;
            } else {
                orphans.push(room.clone());
            }
        }
        Ok(orphans)
    }
}
