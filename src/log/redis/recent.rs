//! This node's own last commits, until the database has them: what Redis loses before that is put into the outbox again.
//! That (room, epoch, seq) is stored once makes it harmless when it was not lost after all.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use redis::{Script, Value};

use super::keys::Partition;
use super::{Answer, RedisLog, millis, outbox, record, unreadable};
use crate::commit::Commit;
use crate::domain::{Head, RoomId};
use crate::log::LogError;
use crate::telemetry::names;

/// Bounds of what is remembered.
const COMMITS: usize = 8192;
const BYTES: usize = 32 << 20;
/// How often the fate of remembered commits is asked.
const EVERY: Duration = Duration::from_secs(1);
/// Entries that are looked for at a time.
const LOOKS: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    partitions: BTreeMap<Partition, VecDeque<Kept>>,
    commits: usize,
    bytes: usize,
    /// Partitions in the order in which their commits came, to forget the oldest first.
    order: VecDeque<Partition>,
}

#[derive(Debug, Clone)]
struct Kept {
    entry: StreamId,
    era: String,
    room: RoomId,
    head: Head,
    events: Bytes,
    state: Bytes,
}

/// `ms-count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct StreamId(u64, u64);

impl StreamId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (ms, count) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, count.parse().ok()?))
    }

    pub(super) fn at_millis(millis: u64) -> Self {
        Self(millis, 0)
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        self.events.len() + self.state.len() + 128
    }
}

impl Recent {
    pub(super) fn add(
        &self,
        partition: Partition,
        entry: &str,
        era: &str,
        commit: &Commit,
        events: Bytes,
        state: Bytes,
    ) {
        let Some(entry) = StreamId::parse(entry) else { return };
        let (room, head) = (commit.room.clone(), commit.next);
        self.0.lock().keep(partition, Kept { entry, era: era.to_owned(), room, head, events, state });
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().commits
    }

    fn partitions(&self) -> Vec<Partition> {
        self.0.lock().partitions.keys().copied().collect()
    }
}

impl Memory {
    fn keep(&mut self, partition: Partition, kept: Kept) {
        self.commits += 1;
        self.bytes += kept.bytes();
        self.partitions.entry(partition).or_default().push_back(kept);
        self.order.push_back(partition);
        while self.commits > COMMITS || self.bytes > BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            self.forget_first(oldest);
        }
        // Names of partitions whose commits were forgotten since.
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

    /// Takes those that are lost, forgets those that the database has.
    fn settle(&mut self, partition: Partition, found: &Found) -> Vec<Kept> {
        let Some(queue) = self.partitions.remove(&partition) else { return Vec::new() };
        let (mut stay, mut lost) = (VecDeque::new(), Vec::new());
        for kept in queue {
            let same_era = kept.era == found.era;
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

struct Found {
    era: String,
    audited: Option<StreamId>,
    missing: Vec<StreamId>,
}

impl RedisLog {
    pub(super) async fn keep_recent(self: Arc<Self>) {
        let (look, again) = (Script::new(include_str!("recent.lua")), outbox::script(include_str!("again.lua")));
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen_session = self.bus.sessions();
        loop {
            every.tick().await;
            let session = self.bus.sessions();
            // After a break anything may be lost, the last commits before it first of all.
            let suspicious = session != seen_session;
            let mut whole = true;
            for partition in self.recent.partitions() {
                if let Err(error) = self.settle_recent(partition, suspicious, &look, &again).await {
                    tracing::debug!(%error, "the fate of recent commits is not known yet");
                    whole = false;
                }
            }
            if whole {
                seen_session = session;
            }
        }
    }

    async fn settle_recent(
        &self,
        partition: Partition,
        suspicious: bool,
        look: &Script,
        again: &Script,
    ) -> Result<(), LogError> {
        let suspects: Vec<StreamId> = {
            let memory = self.recent.0.lock();
            let queue = memory.partitions.get(&partition).filter(|_| suspicious);
            queue.map(|queue| queue.iter().map(|kept| kept.entry).collect()).unwrap_or_default()
        };
        let mut found = self.look(partition, &[], look).await?;
        let open: Vec<_> = suspects.into_iter().filter(|entry| found.audited.is_none_or(|at| *entry > at)).collect();
        for suspects in open.chunks(LOOKS) {
            found.missing.extend(self.look(partition, suspects, look).await?.missing);
        }
        let lost = self.recent.0.lock().settle(partition, &found);
        if !lost.is_empty() {
            tracing::warn!(commits = lost.len(), "Redis had lost commits that the database doesn't have: once more");
            metrics::counter!(names::COMMITS_REMEMBERED).increment(lost.len() as u64);
        }
        let mut lost = VecDeque::from(lost);
        while let Some(kept) = lost.pop_front() {
            match self.put_again(partition, &kept, again).await {
                Ok((entry, era)) => self.recent.0.lock().keep(partition, Kept { entry, era, ..kept }),
                Err(error) => {
                    let mut memory = self.recent.0.lock();
                    // Whatever era they had, it is not the present one: the next look finds them lost again.
                    for kept in std::iter::once(kept).chain(lost) {
                        memory.keep(partition, Kept { era: String::from("?"), ..kept });
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn look(&self, partition: Partition, suspects: &[StreamId], look: &Script) -> Result<Found, LogError> {
        let mut call = look.prepare_invoke();
        call.key(partition.outbox()).key(partition.era()).key(partition.audited());
        for suspect in suspects {
            call.arg(suspect.to_string());
        }
        let answer = self.link.script(&call).await?;
        let (era, audited, missing): (String, String, Vec<String>) =
            redis::from_redis_value::<Vec<Value>>(answer).map_err(unreadable).and_then(|parts| {
                let mut parts = parts.into_iter();
                let mut next = || parts.next().unwrap_or(Value::Nil);
                Ok((
                    redis::from_redis_value(next()).map_err(unreadable)?,
                    redis::from_redis_value(next()).map_err(unreadable)?,
                    redis::from_redis_value(next()).map_err(unreadable)?,
                ))
            })?;
        let missing = missing.iter().filter_map(|entry| StreamId::parse(entry)).collect();
        Ok(Found { era, audited: StreamId::parse(&audited), missing })
    }

    async fn put_again(
        &self,
        partition: Partition,
        kept: &Kept,
        again: &Script,
    ) -> Result<(StreamId, String), LogError> {
        let mut call = again.prepare_invoke();
        call.key(partition.outbox()).key(partition.era()).key(partition.audited());
        call.arg(kept.room.as_str()).arg(record::head_text(kept.head)).arg(&kept.events[..]).arg(&kept.state[..]);
        call.arg(millis(self.options.lives.outbox)).arg(self.options.outbox_entries);
        // Each loss begins an era of its own: under a name that was there before, the second one would not be noticed.
        call.arg(format!("{}-{}-again", self.incarnation, self.commits.fetch_add(1, Ordering::Relaxed)));
        call.arg(self.outbox_share());
        let answer = Answer::of(self.link.script(&call).await?)?;
        let entry = answer.text(0)?;
        let entry = StreamId::parse(&entry).ok_or_else(|| LogError(format!("{entry} is no stream entry")))?;
        Ok((entry, answer.text(1)?))
    }
}
