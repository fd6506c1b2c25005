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
//! 2. When `commit` says `Committed`, the commit survives `kill -9` of any single process.
//! 3. A follower of a room gets its commits in order, each at least once; what it can't be given it hears of as a
//!    [`Followed::Gap`]. Subscribe first, then `load`: nothing falls between.
//! 4. The ephemeral lane ([`Log::publish`]) promises nothing but order per publisher.
//!
//! Two implementations: [`memory`] for one process, [`redis`] for a cluster.
//!
//! The log knows no room logic: events, fields and snapshots are bytes that the hub's codec made.

pub mod memory;
pub mod redis;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::commit::{Commit, Entry, Snapshot};
use crate::domain::{Head, NodeId, RoomId};

/// One node's door to the log.
pub trait Log: Send + Sync + 'static {
    /// Appends to a room if its head is still `commit.expected`. Errors are transient: nothing is known of the outcome,
    /// the caller loads and decides again. Dropping the future takes nothing back.
    ///
    /// The rule of heads:
    /// * A live room at head H takes a commit that expects H; any other gets `Conflict(Some(latest))`.
    /// * A room that ended at H takes a commit that expects H or `Head::default()`, and only into a later epoch
    ///   (`next.epoch > H.epoch`): the hub that saw the end stands at H, one that didn't stands at the default. A
    ///   commit that expects anything else comes from a writer who missed the end, and gets `Conflict(None)`: nothing
    ///   brings the old epoch back. One with the right expectation whose epoch is not later (a clock behind the one
    ///   that made the old epoch) gets an error; a moment later its clock has passed H.
    /// * A room that never was, or whose end the log has forgotten, takes a commit that expects `Head::default()`; any
    ///   other gets `Conflict(None)`. Forgetting is safe: new epochs are new by the clock.
    /// * Within the commit heads ascend: `expected` < each entry's, the last of which is `next`. Anything else, and a
    ///   commit without entries, is an error.
    ///
    /// After `Conflict(None)` the caller's room is vacant at `Head::default()`. What it learns from a conflict, from
    /// [`Log::load`] or from [`Log::follow`] is durable already: nobody ever sees a commit that is taken back.
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>>;

    /// The latest durable state of a room; `None`: never was, or ended.
    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>>;

    /// Writes a room back that the log may have lost: `snapshot` is what a replica knows. It only raises: a later head
    /// stays as it is, and an epoch that ended stays ended. Answers what holds afterwards, like [`Log::load`]. A log
    /// that loses nothing has nothing to write.
    fn restore(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move { self.load(&snapshot.room).await })
    }

    /// From now on [`Log::follow`] reports this room's commits. Idempotent.
    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>>;

    /// No longer.
    fn unsubscribe(&self, room: &RoomId);

    /// The next report. One follower a node: only the hub calls it. Dropping the future loses nothing. A report may
    /// come twice, and for a commit that a snapshot loaded since then holds already: its heads tell.
    fn follow(&self) -> BoxFuture<'_, Followed>;

    /// Sends an ephemeral message to other nodes: all that follow the room, or only `to`, whether it follows or not.
    /// Never to the sender itself. Never blocks; may be lost.
    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes);
}

/// Outcome of a commit.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It is the room's next piece, durable.
    Committed,
    /// Somebody was faster, and the room is here now: decide again when its commits have come through [`Log::follow`].
    /// A room's whole state would cost a link to a far log more time than the commits of the others leave it. `None`:
    /// the room has ended, or was lost.
    Conflict(Option<Head>),
}

/// A report to a follower.
#[derive(Debug, Clone)]
pub enum Followed {
    /// A commit of a subscribed room.
    Commit {
        room: RoomId,
        /// Head before.
        expected: Head,
        /// The events.
        entries: Arc<[Entry]>,
    },
    /// An ephemeral message of another node.
    Ephemeral {
        room: RoomId,
        /// Bytes of [`Log::publish`].
        message: Bytes,
    },
    /// Something may be missing: load the room (`None`: every room) again.
    Gap(Option<RoomId>),
}

/// Why the log gave no answer. Transient: nothing is known of the outcome.
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
    /// The hub's: what the log answered is not what its codec writes.
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
