//! Fault injection: a decorator over any [`Log`] that delays, loses and repeats what crosses between a node and it.
//!
//! Each crossing asks the decision function once, in an order that follows from the order of the calls; delays are
//! tokio timers. So a seeded function under tokio's paused time on one thread repeats its run.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem::commit::{Commit, Snapshot};
use tandem::domain::{NodeId, RoomId};
use tandem::log::memory::MemoryLog;
use tandem::log::{Followed, Log, LogError, Outcome};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// Reports that may wait for a node that doesn't follow, as in the memory log.
const QUEUE: usize = 4096;

/// Something crosses between a node and the log.
#[derive(Debug, Clone, Copy)]
pub struct Crossing<'a> {
    pub what: What,
    /// The node that asks, or that is told.
    pub node: &'a NodeId,
    pub room: &'a RoomId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// A commit on its way in. Lost: the caller gets an error, and the commit never happened.
    Commit,
    /// The answer to a commit. Lost: the caller gets an error, and the commit *did* happen (or conflict).
    Answer,
    /// A load. Lost: an error.
    Load,
    /// A commit on its way to a follower.
    Delivery,
    /// An ephemeral message on its way to a node.
    Ephemeral,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fate {
    #[default]
    Arrives,
    /// Deliveries to one node stay in order: what is behind a late one waits too.
    Late(Duration),
    /// A lost delivery shows by the heads of the room's next one; [`Faults::calm`] reports the rest as gaps.
    Lost,
    /// A delivery or an ephemeral message arrives twice; the others arrive once.
    Twice,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0:?} of {1} was lost")]
    Lost(What, NodeId),
    #[error("{0} is cut off")]
    CutOff(NodeId),
}

type Decide = dyn FnMut(Crossing<'_>) -> Fate + Send;

/// The faults of all nodes of one log; clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    decide: Option<Box<Decide>>,
    partitioned: BTreeSet<NodeId>,
    /// Ordered, so that a run repeats.
    nodes: BTreeMap<NodeId, Weak<Node>>,
}

impl Faults {
    /// A node's way to the log. A second one of the same node replaces the first.
    pub fn over(&self, node: NodeId, log: Arc<dyn Log>) -> Arc<dyn Log> {
        let told = Arc::new(Told::default());
        let following = follow(Arc::clone(&log));
        let inbox = Mutex::new(Inbox { following, reports: VecDeque::new(), missed: BTreeSet::new(), cut_off: false });
        let entry = Arc::new(Node { name: node.clone(), log, inbox, told });
        let mut state = self.0.lock();
        entry.inbox.lock().cut_off = state.partitioned.contains(&node);
        state.nodes.insert(node, Arc::downgrade(&entry));
        drop(state);
        Arc::new(FaultyLog { node: entry, faults: self.clone() })
    }

    /// From now on this function decides. It runs under a lock and must not call the log.
    pub fn decide_by(&self, decide: impl FnMut(Crossing<'_>) -> Fate + Send + 'static) {
        self.take_in_all();
        self.0.lock().decide = Some(Box::new(decide));
    }

    /// Cuts a node off: its commits and loads fail, those under way too (though they may take effect), deliveries stop.
    pub fn partition(&self, node: &NodeId) {
        self.0.lock().partitioned.insert(node.clone());
        if let Some(node) = self.node(node) {
            self.take_in(&node);
            let mut inbox = node.inbox.lock();
            inbox.cut_off = true;
            inbox.reports.clear();
        }
    }

    /// Ends a partition: the node hears [`Followed::Gap`]`(None)`, then what comes next.
    pub fn heal(&self, node: &NodeId) {
        self.0.lock().partitioned.remove(node);
        if let Some(node) = self.node(node) {
            self.reconnect(&node);
        }
    }

    /// No more faults: partitions heal, and each lost delivery that no later one has shown is reported as a gap.
    pub fn calm(&self) {
        self.take_in_all();
        let partitioned = {
            let mut state = self.0.lock();
            state.decide = None;
            std::mem::take(&mut state.partitioned)
        };
        for node in self.nodes() {
            if partitioned.contains(&node.name) {
                self.reconnect(&node);
            }
            let mut inbox = node.inbox.lock();
            for room in std::mem::take(&mut inbox.missed) {
                inbox.push(Followed::Gap(Some(room)), None);
            }
            node.told.0.notify_one();
        }
    }

    fn reconnect(&self, node: &Node) {
        self.take_in(node);
        let mut inbox = node.inbox.lock();
        if std::mem::take(&mut inbox.cut_off) {
            inbox.lose_all();
            node.told.0.notify_one();
        }
    }

    fn node(&self, name: &NodeId) -> Option<Arc<Node>> {
        self.0.lock().nodes.get(name).and_then(Weak::upgrade)
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        self.0.lock().nodes.values().filter_map(Weak::upgrade).collect()
    }

    fn is_partitioned(&self, node: &NodeId) -> bool {
        self.0.lock().partitioned.contains(node)
    }

    fn fate(&self, what: What, node: &NodeId, room: &RoomId) -> Fate {
        let mut state = self.0.lock();
        state.decide.as_mut().map_or(Fate::Arrives, |decide| decide(Crossing { what, node, room }))
    }

    /// A request or an answer crosses: late, or not at all.
    async fn cross(&self, what: What, node: &NodeId, room: &RoomId) -> Result<(), LogError> {
        let fate = self.fate(what, node, room);
        if let Fate::Late(by) = fate {
            tokio::time::sleep(by).await;
        }
        if fate == Fate::Lost {
            return Err(LogError::unavailable(Fault::Lost(what, node.clone())));
        }
        if self.is_partitioned(node) {
            return Err(LogError::unavailable(Fault::CutOff(node.clone())));
        }
        Ok(())
    }

    /// Decides the fate of all that the log has for any node, before the rules change or the caller goes on.
    fn take_in_all(&self) {
        self.nodes().iter().for_each(|node| self.take_in(node));
    }

    fn take_in(&self, node: &Node) {
        let waker = Waker::from(Arc::clone(&node.told));
        let mut inbox = node.inbox.lock();
        while let Poll::Ready(report) = inbox.following.as_mut().poll(&mut Context::from_waker(&waker)) {
            inbox.following = follow(Arc::clone(&node.log));
            let (what, room) = match &report {
                Followed::Commit { room, .. } => (What::Delivery, room.clone()),
                Followed::Ephemeral { room, .. } => (What::Ephemeral, room.clone()),
                Followed::Gap(_) => {
                    inbox.push(report, None);
                    continue;
                }
            };
            if inbox.cut_off {
                continue;
            }
            let fate = self.fate(what, &node.name, &room);
            match (fate, what) {
                (Fate::Lost, What::Delivery) => drop(inbox.missed.insert(room)),
                (Fate::Lost, _) => {}
                _ => {
                    if what == What::Delivery {
                        inbox.missed.remove(&room);
                    }
                    // The timer knows the time: reading the clock is for `clock` alone.
                    let due = if let Fate::Late(by) = fate { Some(tokio::time::sleep(by).deadline()) } else { None };
                    if fate == Fate::Twice {
                        inbox.push(report.clone(), due);
                    }
                    inbox.push(report, due);
                }
            }
            node.told.0.notify_one();
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("partitioned", &self.0.lock().partitioned).finish_non_exhaustive()
    }
}

/// Wakes the follower.
#[derive(Default)]
struct Told(Notify);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

struct Node {
    name: NodeId,
    log: Arc<dyn Log>,
    inbox: Mutex<Inbox>,
    told: Arc<Told>,
}

struct Inbox {
    /// The present question to the log. Polled under the lock only, so that reports stay in order.
    following: BoxFuture<'static, Followed>,
    /// Reports whose fate is decided, and the moment before which each isn't heard.
    reports: VecDeque<(Followed, Option<Instant>)>,
    /// Rooms of which the last report was lost: the heads of the next one show it.
    missed: BTreeSet<RoomId>,
    cut_off: bool,
}

fn follow(log: Arc<dyn Log>) -> BoxFuture<'static, Followed> {
    Box::pin(async move { log.follow().await })
}

impl Inbox {
    fn push(&mut self, report: Followed, due: Option<Instant>) {
        if self.reports.len() >= QUEUE {
            self.lose_all();
        } else {
            self.reports.push_back((report, due));
        }
    }

    fn lose_all(&mut self) {
        self.reports.clear();
        self.missed.clear();
        self.reports.push_back((Followed::Gap(None), None));
    }

    /// The first report's time has come. (Another one may stand there by now, with a time of its own.)
    fn release(&mut self, at: Instant) {
        if let Some((_, due)) = self.reports.front_mut().filter(|(_, due)| due.is_some_and(|due| due <= at)) {
            *due = None;
        }
    }
}

/// One node's log, with faults.
pub struct FaultyLog {
    node: Arc<Node>,
    faults: Faults,
}

impl FaultyLog {
    async fn next(&self) -> Followed {
        loop {
            let told = self.node.told.0.notified();
            self.faults.take_in(&self.node);
            let due = {
                let mut inbox = self.node.inbox.lock();
                if let Some((report, _)) = inbox.reports.pop_front_if(|(_, due)| due.is_none()) {
                    return report;
                }
                inbox.reports.front().and_then(|(_, due)| *due)
            };
            let time = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = told => {}
                () = time => self.node.inbox.lock().release(due.expect("a timer has a time")),
            }
        }
    }
}

impl Log for FaultyLog {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        Box::pin(async move {
            let (node, room) = (&self.node.name, commit.room.clone());
            self.faults.cross(What::Commit, node, &room).await?;
            let outcome = self.node.log.commit(commit).await;
            self.faults.take_in_all();
            self.faults.cross(What::Answer, node, &room).await?;
            outcome
        })
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move {
            self.faults.cross(What::Load, &self.node.name, room).await?;
            self.node.log.load(room).await
        })
    }

    fn restore(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move {
            self.faults.cross(What::Load, &self.node.name, &snapshot.room).await?;
            self.node.log.restore(snapshot).await
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        self.node.log.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.node.log.unsubscribe(room);
        self.node.inbox.lock().missed.remove(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.next())
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        if !self.faults.is_partitioned(&self.node.name) {
            self.node.log.publish(room, to, message);
            self.faults.take_in_all();
        }
    }
}

/// The memory log, whose nodes all have faults.
#[derive(Debug)]
pub struct FaultyMemoryLog {
    log: MemoryLog,
    faults: Faults,
}

impl FaultyMemoryLog {
    /// An empty one, without a repository.
    pub fn new(tracker: &TaskTracker) -> Self {
        Self { log: MemoryLog::new(None, Vec::new(), tracker), faults: Faults::default() }
    }

    /// As [`MemoryLog::attach`].
    pub fn attach(&self, node: NodeId) -> Arc<dyn Log> {
        self.faults.over(node.clone(), self.log.attach(node))
    }

    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// As [`MemoryLog::close`].
    pub async fn close(&self) {
        self.log.close().await;
    }
}
