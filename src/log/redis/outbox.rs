//! What the outboxes may hold, so that Redis keeps room for live rooms.
//!
//! Three bounds, each of which removes the oldest entries, those that the database has first:
//! * with each commit, the partition's share of [`RedisOptions::outbox_bytes`](super::RedisOptions) (`shrink.lua`);
//! * in the drainer's housekeeping, when Redis has used three quarters of its `maxmemory` (`trim.lua`);
//! * when a commit was refused for lack of memory, at once, by the node whose commit it was ([`RedisLog::relieve`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use parking_lot::Mutex;
use redis::Script;
use tokio::time::Instant;

use super::drain::GROUP;
use super::keys::Partition;
use super::recent::StreamId;
use super::{PARTITIONS, RedisLog, unreadable};
use crate::clock::Clock;
use crate::log::LogError;
use crate::telemetry::{Seldom, names};

/// What an outbox keeps when memory is nearly used up, bytes.
const REST: u64 = 64 << 10;
/// A node makes room no more often: what it frees must be seen first.
const RELIEF_EVERY: Duration = Duration::from_millis(500);
/// Partitions that are trimmed at the same time.
const AT_ONCE: usize = 16;

/// A script that may make an outbox smaller.
pub(super) fn script(code: &str) -> Script {
    Script::new(&format!("{}{code}", include_str!("shrink.lua")))
}

/// What trimming an outbox found.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trimmed {
    /// Commits that the database doesn't have.
    pub(super) waiting: u64,
    /// Time of the oldest of them, ms; 0: there is none.
    pub(super) since: u64,
    pub(super) entries: u64,
    /// Live rooms of the partition.
    pub(super) rooms: u64,
    pub(super) bytes: u64,
    /// Of Redis' `maxmemory`.
    pub(super) percent: u64,
}

/// Room that was made, and what it cost.
#[derive(Debug, Default)]
pub(super) struct Relief {
    last: Mutex<Option<Instant>>,
    lost: AtomicU64,
    warned: Seldom,
}

impl Relief {
    /// Commits that left the outbox before the database had them.
    pub(super) fn note_lost(&self, commits: u64) {
        if commits == 0 {
            return;
        }
        metrics::counter!(names::OUTBOX_LOST).increment(commits);
        let all = self.lost.fetch_add(commits, Ordering::Relaxed) + commits;
        if self.warned.is_due() {
            tracing::error!(
                commits = all,
                "commits are lost to the audit: the outbox is at its bound (REDIS_OUTBOX_MB, or Redis' maxmemory) and the \
                 database does not keep up"
            );
        }
    }
}

impl RedisLog {
    /// Bytes that one outbox may hold.
    pub(super) fn outbox_share(&self) -> u64 {
        self.options.outbox_bytes / u64::from(PARTITIONS)
    }

    /// Redis refused a write for lack of memory: what the outboxes hold goes, in the order in which it can be spared.
    pub(super) async fn relieve(&self) -> Result<(), LogError> {
        {
            // Commits that fail together try again while one of them makes room.
            let mut last = self.relief.last.lock();
            if last.is_some_and(|at| at.elapsed() < RELIEF_EVERY) {
                return Ok(());
            }
            *last = Some(Clock::instant());
        }
        if self.relief.warned.is_due() {
            tracing::error!("Redis is full (maxmemory): the outboxes are trimmed, so that rooms go on");
        }
        let trim = trim_script();
        let trims = Partition::all().map(|partition| self.trim(&trim, partition, StreamId::default()));
        futures_util::stream::iter(trims).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await
    }

    /// Removes entries that the database has and that are older than `before`, more when memory is short.
    pub(super) async fn trim(
        &self,
        script: &Script,
        partition: Partition,
        before: StreamId,
    ) -> Result<Trimmed, LogError> {
        let mut call = script.prepare_invoke();
        call.key(partition.outbox()).key(partition.audited()).key(partition.rooms());
        call.arg(GROUP).arg(before.to_string()).arg(REST);
        let answer = self.link.script(&call).await?;
        let (waiting, since, entries, rooms, bytes, lost, percent) =
            redis::from_redis_value::<(u64, u64, u64, u64, u64, u64, u64)>(answer).map_err(unreadable)?;
        self.relief.note_lost(lost);
        Ok(Trimmed { waiting, since, entries, rooms, bytes, percent })
    }
}

pub(super) fn trim_script() -> Script {
    script(include_str!("trim.lua"))
}
