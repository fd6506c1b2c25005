//! The address of Redis, timeouts, lives and bounds.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://`, `rediss://`, or `redis-sentinel://…` (see `docs/OPERATIONS.md`). A cluster is recognised by its
    /// answer.
    pub url: SecretString,
    /// CA certificates (PEM) to trust instead of the machine's.
    pub ca: Option<PathBuf>,
    /// How long one answer may take.
    pub patience: Duration,
    /// How long a caller may wait, all attempts together.
    pub deadline: Duration,
    /// How long quotas wait for an answer before this node counts alone.
    pub quota_patience: Duration,
    /// How often the bus is probed.
    pub probe_every: Duration,
    /// How long commits to a room that was written back wait for what other nodes may know of it: about the time in
    /// which a node notices the loss and connects again.
    pub recovery_wait: Duration,
    pub lives: Lives,
    /// Commits that a partition's outbox holds while the database is away; beyond it the oldest are lost to the audit.
    pub outbox_entries: u32,
    /// Bytes that all outboxes may hold together, each partition's an equal part. Beyond it the oldest entries are
    /// removed, those that the database has first.
    pub outbox_bytes: u64,
}

/// How long things live in Redis.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    /// A live room that no node renews.
    pub room: Duration,
    /// The head of a room that ended.
    pub end: Duration,
    /// An outbox without a commit.
    pub outbox: Duration,
    /// The place of a session that no node renews.
    pub place: Duration,
}

impl RedisOptions {
    /// The values of production.
    pub fn new(url: SecretString) -> Self {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        Self {
            url,
            ca: None,
            patience: Duration::from_millis(1500),
            deadline: Duration::from_secs(4),
            quota_patience: Duration::from_millis(250),
            probe_every: Duration::from_secs(1),
            recovery_wait: Duration::from_secs(2),
            lives: Lives { room: hours(24), end: hours(1), outbox: hours(7 * 24), place: hours(1) },
            outbox_entries: 16_384,
            outbox_bytes: 256 << 20,
        }
    }
}
