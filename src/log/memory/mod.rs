//! The log of a single process, and the cluster's double in tests: several nodes may attach to one log.
//!
//! ```text
//! commit ──► accepted (compare-and-set under a lock) ──► queue ──► group commit: all that waits in one append ──►
//!            settled: visible to load, followers hear of it ──► Committed
//! ```
//! With a repository, "durable" means that [`Repository::append`] answered: one transaction carries whatever has
//! gathered while the last one was on its way (group commit). Without one, commits are as durable as the process.
//!
//! The compare-and-set counts what was accepted, everything else what is settled. So of two commits that expect the
//! same head the second never goes to the disk, yet the head that the loser gets is durable: its answer waits until the
//! commits ahead of it are settled or rolled back. When an append fails, all its commits and all that were accepted on
//! top of them get an error. Whether the append took effect is asked ([`Repository::heads`]) before the next one: if it
//! did, its commits are settled late, and followers hear of them.
//!
//! A full disk must not stop rooms. Commits are settled and answered, kept in memory (`unsaved`), and stored when there
//! is space; until then they are as durable as the process.

mod group_commit;
mod reports;
mod sequence;
mod unsaved;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::group_commit::GroupCommit;
use self::reports::NodeReports;
use self::sequence::{Acceptance, Sequence};
use super::{Followed, Log, LogError, Outcome};
use crate::commit::{Commit, Snapshot};
use crate::domain::{NodeId, RoomId};
use crate::panics;
use crate::repository::Repository;

/// Commits that may wait for the disk.
const QUEUE: usize = 16_384;

/// The log of one process.
#[derive(Debug)]
pub struct MemoryLog {
    core: Arc<MemoryLogCore>,
    open: Arc<CloseOnDrop>,
}

impl MemoryLog {
    /// A log that continues from `initial` ([`Repository::live_rooms`]) and stores in `repository`. Its one task runs
    /// on `tracker` until [`MemoryLog::close`], or until this value and all handles are dropped.
    pub fn new(repository: Option<Arc<dyn Repository>>, initial: Vec<Snapshot>, tracker: &TaskTracker) -> Self {
        let core = Arc::new(MemoryLogCore {
            state: Mutex::new(MemoryLogState {
                sequence: Sequence::new(initial),
                queue: VecDeque::new(),
                nodes: BTreeMap::new(),
                closed: false,
            }),
            work: Notify::new(),
            flushed: CancellationToken::new(),
        });
        let committing = GroupCommit::new(Arc::clone(&core), repository);
        tracker.spawn(panics::abort_if_panics("committer of the log", committing.run()));
        Self { open: Arc::new(CloseOnDrop(Arc::clone(&core))), core }
    }

    /// A node's handle. An earlier handle of the same node is shut: its calls fail and it hears nothing more, as if
    /// that process had died.
    pub fn attach(&self, node: NodeId) -> Arc<dyn Log> {
        let reports = Arc::new(NodeReports::default());
        if let Some(earlier) = self.core.state.lock().nodes.insert(node.clone(), Arc::clone(&reports)) {
            earlier.shut();
        }
        Arc::new(MemoryLogHandle { node, reports, core: Arc::clone(&self.core), _open: Arc::clone(&self.open) })
    }

    /// Takes no more commits, and returns when every accepted one is answered. The repository stays open.
    pub async fn close(&self) {
        self.core.close();
        self.core.flushed.cancelled().await;
    }
}

/// Shared by the handles and the group commit. Locks are taken in the order `state`, a report queue's.
#[derive(Debug)]
struct MemoryLogCore {
    state: Mutex<MemoryLogState>,
    /// The queue has something for the group commit, or was closed.
    work: Notify,
    /// The group commit has ended.
    flushed: CancellationToken,
}

#[derive(Debug)]
struct MemoryLogState {
    sequence: Sequence,
    queue: VecDeque<QueuedCommit>,
    /// Ordered, so that a simulation repeats.
    nodes: BTreeMap<NodeId, Arc<NodeReports>>,
    closed: bool,
}

type OutcomeSender = oneshot::Sender<Result<Outcome, LogError>>;

/// An entry in the group commit's queue.
#[derive(Debug)]
enum QueuedCommit {
    Accepted(Commit, OutcomeSender),
    /// A commit that lost against an accepted one: it is answered when that one is settled or rolled back.
    Conflict(RoomId, OutcomeSender),
}

impl MemoryLogCore {
    fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }
}

impl MemoryLogState {
    /// Under the lock of the state, so that every follower hears a room's commits in the order in which they settle.
    fn publish(&self, commit: &Commit) {
        self.nodes.values().for_each(|reports| reports.deliver(commit));
    }
}

/// One node's access to the log.
struct MemoryLogHandle {
    node: NodeId,
    reports: Arc<NodeReports>,
    core: Arc<MemoryLogCore>,
    _open: Arc<CloseOnDrop>,
}

impl MemoryLogHandle {
    /// The compare-and-set; the receiver hears what became of the commit.
    fn submit(&self, commit: Commit) -> Result<oneshot::Receiver<Result<Outcome, LogError>>, LogError> {
        let mut state = self.core.state.lock();
        self.check(&state)?;
        if state.closed {
            return Err(LogError::Closed);
        }
        if state.queue.len() >= QUEUE {
            return Err(LogError::Crowded);
        }
        let (answer, receiver) = oneshot::channel();
        match state.sequence.accept(&commit) {
            Acceptance::Refused(error) => return Err(error),
            Acceptance::Accepted => state.queue.push_back(QueuedCommit::Accepted(commit, answer)),
            Acceptance::Conflict if state.sequence.is_ahead(&commit.room) => {
                state.queue.push_back(QueuedCommit::Conflict(commit.room, answer));
            }
            Acceptance::Conflict => {
                let _ = answer.send(Ok(Outcome::Conflict(state.sequence.latest_head(&commit.room))));
                return Ok(receiver);
            }
        }
        drop(state);
        self.core.work.notify_one();
        Ok(receiver)
    }

    fn check(&self, state: &MemoryLogState) -> Result<(), LogError> {
        let mine = state.nodes.get(&self.node).is_some_and(|reports| Arc::ptr_eq(reports, &self.reports));
        if mine { Ok(()) } else { Err(LogError::Replaced(self.node.clone())) }
    }
}

impl Log for MemoryLogHandle {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        Box::pin(async move {
            let answer = self.submit(commit)?.await;
            answer.unwrap_or_else(|_gone| Err(LogError::Closed))
        })
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move {
            let state = self.core.state.lock();
            self.check(&state)?;
            Ok(state.sequence.latest(room))
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            self.check(&self.core.state.lock())?;
            self.reports.subscribe(room);
            Ok(())
        })
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.reports.unsubscribe(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.reports.next())
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        let state = self.core.state.lock();
        if self.check(&state).is_err() {
            return;
        }
        for (node, reports) in &state.nodes {
            let meant = to.map_or_else(|| reports.follows(room), |to| to == node);
            if meant && *node != self.node {
                reports.deliver_ephemeral(room, message.clone());
            }
        }
    }
}

impl Drop for MemoryLogHandle {
    fn drop(&mut self) {
        let mut state = self.core.state.lock();
        if self.check(&state).is_ok() {
            state.nodes.remove(&self.node);
        }
    }
}

/// Held by everything that can still commit. When the last one is dropped, the group commit finishes what waits and
/// ends.
#[derive(Debug)]
struct CloseOnDrop(Arc<MemoryLogCore>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
