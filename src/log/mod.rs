//! The log (the sequencer): gives every room one total order on every node.
//!
//! ```text
//! hub ── commit(room, expected head, events, patch) ──► log ── Committed | Conflict(latest head)
//! hub ◄── follow(): every commit of the rooms subscribed to, in order, own ones too ── log
//! ```
//!
//! Guarantees that every implementation gives, held by one contract suite:
//! 1. `commit` is a compare-and-set on the head: of two commits that expect the same head one succeeds, the other gets
//!    the latest head. State, fan-out and audit move together or not at all.
//! 2. When `commit` answers `Committed`, the commit survives `kill -9` of any single process.
//! 3. A follower of a room gets its commits in order, each at least once; missing ones are reported as a
//!    [`Followed::Gap`]. Subscribe first, then `load`: no commit falls between.
//! 4. The ephemeral lane ([`Log::publish`]) guarantees order per publisher, and no delivery.
//!
//! Two implementations: [`memory`] for one process, [`redis`] for a cluster.
//!
//! The log knows no room logic: events, fields and snapshots are bytes that the hub's codec made.

pub mod memory;
pub mod redis;
mod report_queue;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::commit::{Commit, Entry, Snapshot};
use crate::domain::{Head, NodeId, RoomId};

/// One node's access to the log.
pub trait Log: Send + Sync + 'static {
    /// Appends to a room if its head is still `commit.expected`. Errors are transient: nothing is known of the outcome,
    /// and the caller loads and decides again. Dropping the future cancels nothing.
    ///
    /// The rule of heads:
    /// * A live room at head H takes a commit that expects H; any other gets `Conflict(Some(latest))`.
    /// * A room that ended at H takes a commit that expects H or `Head::default()`, and only into a later epoch
    ///   (`next.epoch > H.epoch`): the hub that saw the end stands at H, one that didn't stands at the default. A
    ///   commit that expects anything else comes from a writer that missed the end, and gets `Conflict(None)`: the old
    ///   epoch can't come back. One with the right expectation whose epoch is not later (a clock behind the one that
    ///   made the old epoch) gets an error; a moment later its clock has passed H.
    /// * A room that never was, or whose end the log has forgotten, takes a commit that expects `Head::default()`; any
    ///   other gets `Conflict(None)`. Forgetting is safe: new epochs are new by the clock.
    /// * Within the commit heads ascend: `expected` < each entry's, the last of which is `next`. Anything else, and a
    ///   commit without entries, is an error.
    ///
    /// A conflict may name the head that was expected: the log wants a new decision, because what other nodes know may
    /// have reached the caller meanwhile.
    /// After `Conflict(None)` the caller's room is vacant at `Head::default()`. Heads and commits from a conflict, from
    /// [`Log::load`] or from [`Log::follow`] are durable: a commit that is rolled back is never shown.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>>;

    /// The latest durable state of a room; `None`: never was, or ended.
    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>>;

    /// Writes a room back that the log may have lost: `snapshot` is a replica's state. It only raises: a later head
    /// stays, and an epoch that ended stays ended. Returns the state afterwards, like [`Log::load`]. A log that loses
    /// nothing writes nothing.
    fn restore(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move { self.load(&snapshot.room).await })
    }

    /// From now on [`Log::follow`] reports this room's commits. Idempotent.
    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>>;

    fn unsubscribe(&self, room: &RoomId);

    /// The next report. One follower a node: only the hub calls it. Dropping the future loses nothing. A report may
    /// come twice, or for a commit that a snapshot loaded since then contains: compare the heads.
    fn follow(&self) -> BoxFuture<'_, Followed>;

    /// Sends an ephemeral message to other nodes: all that follow the room, or only `to`, whether it follows or not.
    /// Never to the sender itself. Never blocks; may be lost.
    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes);
}

#[derive(Debug, Clone)]
pub enum Outcome {
    /// Durable, and the room's head is the commit's.
    Committed,
    /// Another commit was first, and the room is at this head: decide again when the commits up to it have come through
    /// [`Log::follow`]. The room's whole state would take a slow link longer than the pause between others' commits.
    /// `None`: the room has ended, or was lost.
    Conflict(Option<Head>),
}

/// A report of [`Log::follow`].
#[derive(Debug, Clone)]
pub enum Followed {
    /// A commit of a subscribed room.
    Commit {
        room: RoomId,
        /// The head before it.
        expected: Head,
        entries: Arc<[Entry]>,
    },
    /// An ephemeral message of another node.
    Ephemeral {
        room: RoomId,
        /// As passed to [`Log::publish`].
        message: Bytes,
    },
    /// Commits may be missing: load the room (`None`: every room) again.
    Gap(Option<RoomId>),
}

/// Why the log did not commit, or gave no answer. Of a commit nothing is known, except where the log refused it before
/// it wrote: [`LogError::Heads`], [`LogError::EarlyEpoch`], and [`LogError::Full`] at the first attempt. The hub treats
/// all alike: it reads the room, and refuses the commands with UNAVAILABLE.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    #[error("a commit to {0} whose heads do not ascend from `expected` to `next`")]
    Heads(RoomId),
    /// The clock is behind the one that made the epoch that ended.
    #[error("epoch {next} of {room} is not later than {ended}, which has ended: the clock is behind")]
    EarlyEpoch { room: RoomId, next: u64, ended: u64 },
    #[error("another process has become {0}")]
    Replaced(NodeId),
    #[error("the log is closed")]
    Closed,
    #[error("too many commits wait for the disk")]
    Crowded,
    #[error("commits of other nodes had their turns for {0:?}")]
    Overtaken(Duration),
    #[error("Redis is full (maxmemory)")]
    Full,
    #[error("no subscription within {0:?}")]
    NoSubscription(Duration),
    /// The hub's: it gives up a batch.
    #[error("{0} conflicts in a row")]
    Conflicts(u32),
    /// The hub's: its codec can't read what the log returned.
    #[error("the room's stored state can't be read")]
    Unreadable,
    #[error("the log is unavailable: {0}")]
    Unavailable(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl LogError {
    pub fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

/// Refuses a commit whose heads don't ascend from `expected` to `next`.
fn ascending(commit: &Commit) -> Result<(), LogError> {
    let mut last = commit.expected;
    for entry in commit.entries.iter() {
        if entry.head <= last {
            return Err(LogError::Heads(commit.room.clone()));
        }
        last = entry.head;
    }
    if commit.entries.is_empty() || last != commit.next { Err(LogError::Heads(commit.room.clone())) } else { Ok(()) }
}

/// The refusal of a new epoch that is not later than the one that ended at `ended`.
fn too_early(commit: &Commit, ended: Head) -> LogError {
    LogError::EarlyEpoch { room: commit.room.clone(), next: commit.next.epoch, ended: ended.epoch }
}
