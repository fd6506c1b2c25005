//! Bounds of the outboxes, so that Redis keeps memory for live rooms.
//!
//! Three bounds, each of which removes the oldest entries, those that the database has first:
//! * with each commit, the partition's share of [`RedisOptions::outbox_bytes`](super::RedisOptions) (`shrink.lua`);
//! * in the drainer's housekeeping, when Redis has used three quarters of its `maxmemory` (`trim.lua`);
//! * when a commit was refused for lack of memory, at once, by the node whose commit it was (`log::redis`).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::{Seldom, names};

static LOST: AtomicU64 = AtomicU64::new(0);
static WARNED: Seldom = Seldom::new();

/// Counts commits that left the outbox before the database had them.
pub(crate) fn note_lost(commits: u64) {
    if commits == 0 {
        return;
    }
    metrics::counter!(names::OUTBOX_LOST).increment(commits);
    let all = LOST.fetch_add(commits, Ordering::Relaxed) + commits;
    if WARNED.is_due() {
        tracing::error!(
            commits = all,
            "commits are lost to the audit: the outbox is at its bound (REDIS_OUTBOX_MB, or Redis' maxmemory) and the \
             database does not keep up"
        );
    }
}
