//! This node's own last commits, until the database has them: what Redis loses before that is put into the outbox
//! again. The database stores each (room, epoch, seq) once, so a commit that was not lost after all does no harm.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::RedisLog;
use crate::commit::Commit;
use crate::domain::{Head, RoomId};
use crate::redis::{FoundCommits, LinkError, LostCommit, Partition, StreamId};
use crate::telemetry::names;

/// Bounds of the remembered commits: the oldest beyond them is forgotten, so it is not put again if Redis loses it. It
/// takes a database that has been away for thousands of commits of this node, and then Redis' own loss. Not counted:
/// `tandem_outbox_age_seconds` warns long before.
const COMMITS: usize = 8192;
const BYTES: usize = 32 << 20;
/// How often Redis is asked what became of them.
const EVERY: Duration = Duration::from_secs(1);
/// Entries of one look-up.
const LOOKS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct RecentCommits(Mutex<RecentByPartition>);

#[derive(Debug, Default)]
struct RecentByPartition {
    partitions: BTreeMap<Partition, VecDeque<RecentCommit>>,
    commits: usize,
    bytes: usize,
    /// Partitions in the order in which their commits came, to forget the oldest first.
    order: VecDeque<Partition>,
}

#[derive(Debug, Clone)]
struct RecentCommit {
    entry: StreamId,
    /// The id of the data that it was added to.
    era_id: String,
    room: RoomId,
    head: Head,
    events: Bytes,
    state: Bytes,
}

impl RecentCommit {
    fn bytes(&self) -> usize {
        self.events.len() + self.state.len() + 128
    }
}

impl RecentCommits {
    pub(super) fn add(
        &self,
        partition: Partition,
        entry: StreamId,
        era_id: String,
        commit: &Commit,
        events: Bytes,
        state: Bytes,
    ) {
        let (room, head) = (commit.room.clone(), commit.next);
        self.0.lock().keep(partition, RecentCommit { entry, era_id, room, head, events, state });
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().commits
    }

    fn partitions(&self) -> Vec<Partition> {
        self.0.lock().partitions.keys().copied().collect()
    }
}

impl RecentByPartition {
    fn keep(&mut self, partition: Partition, kept: RecentCommit) {
        self.commits += 1;
        self.bytes += kept.bytes();
        self.partitions.entry(partition).or_default().push_back(kept);
        self.order.push_back(partition);
        while self.commits > COMMITS || self.bytes > BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget_first(oldest);
        }
        // Drops partitions whose commits were forgotten since.
        if self.order.len() > 2 * COMMITS {
            self.order.clear();
            for (partition, kept) in &self.partitions {
                self.order.extend(std::iter::repeat_n(*partition, kept.len()));
            }
        }
    }

    fn forget_first(&mut self, partition: Partition) {
        let Some(queue) = self.partitions.get_mut(&partition) else { return };
        if let Some(kept) = queue.pop_front() {
            self.commits -= 1;
            self.bytes -= kept.bytes();
        }
        if queue.is_empty() {
            self.partitions.remove(&partition);
        }
    }

    /// Returns the lost ones, and forgets those that the database has.
    fn sort_out(&mut self, partition: Partition, found: &FoundCommits) -> Vec<RecentCommit> {
        let Some(queue) = self.partitions.remove(&partition) else { return Vec::new() };
        let (mut stay, mut lost) = (VecDeque::new(), Vec::new());
        for kept in queue {
            let same_era = kept.era_id == found.era_id;
            if same_era && found.audited.is_some_and(|audited| kept.entry <= audited) {
                self.commits -= 1;
                self.bytes -= kept.bytes();
            } else if !same_era || found.missing.contains(&kept.entry) {
                self.commits -= 1;
                self.bytes -= kept.bytes();
                lost.push(kept);
            } else {
                stay.push_back(kept);
            }
        }
        if !stay.is_empty() {
            self.partitions.insert(partition, stay);
        }
        lost
    }
}

impl RedisLog {
    /// Follows the fate of this node's recent commits, until the task is dropped.
    pub(super) async fn keep_recent(self: Arc<Self>) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen_resets = self.link.resets();
        loop {
            every.tick().await;
            let resets = self.link.resets();
            // After a reset anything may be lost, the last commits before it first of all.
            let suspicious = resets != seen_resets;
            let mut whole = true;
            for partition in self.recent.partitions() {
                if let Err(error) = self.look_up_recent(partition, suspicious).await {
                    tracing::debug!(%error, "the fate of recent commits is not known yet");
                    whole = false;
                }
            }
            if whole {
                seen_resets = resets;
            }
        }
    }

    async fn look_up_recent(&self, partition: Partition, suspicious: bool) -> Result<(), LinkError> {
        let suspects: Vec<StreamId> = {
            let memory = self.recent.0.lock();
            let queue = memory.partitions.get(&partition).filter(|_| suspicious);
            queue.map(|queue| queue.iter().map(|kept| kept.entry).collect()).unwrap_or_default()
        };
        let mut found = self.link.look_up(partition, &[]).run().await?;
        let open: Vec<_> = suspects.into_iter().filter(|entry| found.audited.is_none_or(|at| *entry > at)).collect();
        for suspects in open.chunks(LOOKS) {
            found.missing.extend(self.link.look_up(partition, suspects).run().await?.missing);
        }
        let lost = self.recent.0.lock().sort_out(partition, &found);
        if !lost.is_empty() {
            tracing::warn!(commits = lost.len(), "Redis had lost commits that the database doesn't have: once more");
            metrics::counter!(names::COMMITS_REQUEUED).increment(lost.len() as u64);
        }
        let mut lost = VecDeque::from(lost);
        while let Some(kept) = lost.pop_front() {
            // Each loss begins an era of its own: under an earlier id the second loss would not be noticed.
            let new_era = format!("{}-again", self.next_id());
            let again =
                LostCommit { room: &kept.room, head: kept.head, events: &kept.events, state: &kept.state, new_era };
            match self.link.requeue(partition, &again).run().await {
                Ok((entry, era_id)) => self.recent.0.lock().keep(partition, RecentCommit { entry, era_id, ..kept }),
                Err(error) => {
                    let mut memory = self.recent.0.lock();
                    // No id of the data equals "?": the next look finds them lost again.
                    for kept in std::iter::once(kept).chain(lost) {
                        memory.keep(partition, RecentCommit { era_id: String::from("?"), ..kept });
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
