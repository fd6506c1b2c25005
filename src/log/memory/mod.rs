//! The log of a single process, and the cluster's double in tests: several nodes may attach to one log.
//!
//! ```text
//! commit ──► accepted (compare-and-set under a lock) ──► queue ──► committer: all that waits in one append ──►
//!            settled: visible to load, followers hear of it ──► Committed
//! ```
//! With a repository, "durable" means that [`Repository::append`] answered: one transaction carries whatever has gathered
//! while the last one was on its way (group commit). Without one, commits are as durable as the process.
//!
//! The compare-and-set counts what was accepted, everything else what is settled. So of two commits that expect the same
//! head the second never goes to the disk, yet what the loser is shown is durable: its answer waits until what was ahead
//! of it is settled or rolled back. When an append fails, all its commits and all that were accepted on top of them get
//! an error. Whether the append took effect is asked ([`Repository::heads`]) before the next one: if it did, its commits
//! are settled late, and followers hear of them.
//!
//! A full disk is another matter: rooms must not stop for it. Commits are settled and answered, kept in memory (`owed`), and stored
//! when there is space; until then they are as durable as the process.

mod committer;
pub mod faults;
mod follower;
mod owed;
mod sequence;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::committer::Committer;
use self::faults::{Crossing, Faults, Trouble, What, cross};
use self::follower::Follower;
use self::sequence::{Sequence, Verdict};
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
    shared: Arc<Shared>,
    open: Arc<Open>,
}

impl MemoryLog {
    /// A log that continues from `initial` ([`Repository::live_rooms`]) and stores in `repository`. Its one task runs on
    /// `tracker` until [`MemoryLog::close`], or until this value and all doors are dropped.
    pub fn new(repository: Option<Arc<dyn Repository>>, initial: Vec<Snapshot>, tracker: &TaskTracker) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                sequence: Sequence::new(initial),
                queue: VecDeque::new(),
                nodes: BTreeMap::new(),
                closed: false,
            }),
            work: Notify::new(),
            trouble: Mutex::new(Trouble::default()),
            flushed: CancellationToken::new(),
        });
        let committer = Committer::new(Arc::clone(&shared), repository);
        tracker.spawn(panics::abort_if_panics("committer of the log", committer.run()));
        Self { open: Arc::new(Open(Arc::clone(&shared))), shared }
    }

    /// A node's door. An earlier door of the same node is shut: its calls fail and it hears nothing more, as if that
    /// process had died.
    pub fn attach(&self, node: NodeId) -> Arc<dyn Log> {
        let follower = Arc::new(Follower::default());
        let mut state = self.shared.state.lock();
        if self.shared.trouble.lock().is_partitioned(&node) {
            follower.cut_off();
        }
        if let Some(earlier) = state.nodes.insert(node.clone(), Arc::clone(&follower)) {
            earlier.cut_off();
        }
        drop(state);
        Arc::new(Door { node, follower, shared: Arc::clone(&self.shared), _open: Arc::clone(&self.open) })
    }

    /// The handle that makes trouble; for tests.
    pub fn faults(&self) -> Faults {
        Faults::of(&self.shared)
    }

    /// Takes no more commits, and returns when every accepted one is answered. The repository stays open.
    pub async fn close(&self) {
        self.shared.close();
        self.shared.flushed.cancelled().await;
    }
}

/// What the doors, the committer and the faults share. Locks are taken in the order `state`, `trouble`, a follower's.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The queue has something for the committer, or was closed.
    work: Notify,
    trouble: Mutex<Trouble>,
    /// The committer has ended.
    flushed: CancellationToken,
}

#[derive(Debug)]
struct State {
    sequence: Sequence,
    queue: VecDeque<Waiting>,
    // Ordered, so that the simulation repeats itself.
    nodes: BTreeMap<NodeId, Arc<Follower>>,
    closed: bool,
}

type Answer = oneshot::Sender<Result<Outcome, LogError>>;

/// What waits for the committer.
#[derive(Debug)]
enum Waiting {
    /// An accepted commit.
    Commit(Commit, Answer),
    /// A commit that lost against an accepted one: it is shown the room when that one's fate is known.
    Conflict(RoomId, Answer),
}

impl Shared {
    fn close(&self) {
        self.state.lock().closed = true;
        self.work.notify_one();
    }

    fn with_follower(&self, node: &NodeId, act: impl FnOnce(&Follower)) {
        if let Some(follower) = self.state.lock().nodes.get(node) {
            act(follower);
        }
    }

    fn with_followers(&self, act: impl Fn(&Follower)) {
        self.state.lock().nodes.values().for_each(|follower| act(follower));
    }

    /// Under the state's lock, so that every follower hears a room's commits in the order in which they settle.
    fn publish(&self, state: &State, commit: &Commit) {
        for (node, follower) in &state.nodes {
            if follower.follows(&commit.room) {
                let crossing = Crossing { what: What::Delivery, node, room: &commit.room };
                follower.deliver(commit, self.trouble.lock().delivery(crossing));
            }
        }
    }
}

/// One node's door.
struct Door {
    node: NodeId,
    follower: Arc<Follower>,
    shared: Arc<Shared>,
    _open: Arc<Open>,
}

impl Door {
    /// The first gate; the receiver hears what became of it.
    fn submit(&self, commit: Commit) -> Result<oneshot::Receiver<Result<Outcome, LogError>>, LogError> {
        let mut state = self.shared.state.lock();
        self.check(&state)?;
        if state.closed {
            return Err(LogError("it is closed".to_owned()));
        }
        if state.queue.len() >= QUEUE {
            return Err(LogError("too many commits wait for the disk".to_owned()));
        }
        let (answer, receiver) = oneshot::channel();
        match state.sequence.accept(&commit) {
            Verdict::Refused(error) => return Err(error),
            Verdict::Accepted => state.queue.push_back(Waiting::Commit(commit, answer)),
            Verdict::Conflict if state.sequence.is_ahead(&commit.room) => {
                state.queue.push_back(Waiting::Conflict(commit.room, answer));
            }
            Verdict::Conflict => {
                let _ = answer.send(Ok(Outcome::Conflict(state.sequence.latest_head(&commit.room))));
                return Ok(receiver);
            }
        }
        drop(state);
        self.shared.work.notify_one();
        Ok(receiver)
    }

    fn check(&self, state: &State) -> Result<(), LogError> {
        let mine = state.nodes.get(&self.node).is_some_and(|follower| Arc::ptr_eq(follower, &self.follower));
        if mine { Ok(()) } else { Err(LogError(format!("another process has become {}", self.node))) }
    }

    async fn cross(&self, what: What, room: &RoomId) -> Result<(), LogError> {
        cross(&self.shared.trouble, Crossing { what, node: &self.node, room }).await
    }
}

impl Log for Door {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        Box::pin(async move {
            let room = commit.room.clone();
            self.cross(What::Commit, &room).await?;
            let answer = self.submit(commit)?.await;
            self.cross(What::Answer, &room).await?;
            answer.unwrap_or_else(|_gone| Err(LogError("the committer has died".to_owned())))
        })
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move {
            self.cross(What::Load, room).await?;
            let state = self.shared.state.lock();
            self.check(&state)?;
            Ok(state.sequence.latest(room))
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async move {
            self.check(&self.shared.state.lock())?;
            self.follower.subscribe(room);
            Ok(())
        })
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.follower.unsubscribe(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.follower.next())
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        let state = self.shared.state.lock();
        let mut trouble = self.shared.trouble.lock();
        if self.check(&state).is_err() || trouble.is_partitioned(&self.node) {
            return;
        }
        for (node, follower) in &state.nodes {
            let meant = to.map_or_else(|| follower.follows(room), |to| to == node);
            if meant && *node != self.node {
                let crossing = Crossing { what: What::Ephemeral, node, room };
                follower.deliver_ephemeral(room, message.clone(), trouble.delivery(crossing));
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        if self.check(&state).is_ok() {
            state.nodes.remove(&self.node);
        }
    }
}

/// Whoever could still commit. When the last one is gone the committer finishes what it has and ends.
#[derive(Debug)]
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}
