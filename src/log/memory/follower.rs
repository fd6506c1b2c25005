//! What a node has not heard yet: one bounded queue, in order.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::faults::Delivery;
use crate::commit::Commit;
use crate::domain::RoomId;
use crate::log::Followed;

/// Reports that may wait. Beyond it the node is told to load everything again: cheaper than an endless queue.
pub(super) const QUEUE: usize = 4096;
/// Ephemeral messages stop here: they may be lost, commits should not cost a reload for them.
const EPHEMERAL: usize = QUEUE / 2;

/// The follower of one node.
#[derive(Debug, Default)]
pub(super) struct Follower {
    inbox: Mutex<Inbox>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inbox {
    reports: VecDeque<Report>,
    rooms: HashSet<RoomId>,
    /// Rooms of which the last report was dropped by a fault: the heads of the next one show it.
    missed: BTreeSet<RoomId>,
    cut_off: bool,
}

#[derive(Debug)]
struct Report {
    what: Followed,
    /// Not before; only faults set it. What is behind it waits too: the order stays.
    due: Option<Instant>,
}

impl Follower {
    pub(super) fn subscribe(&self, room: &RoomId) {
        self.inbox.lock().rooms.insert(room.clone());
    }

    pub(super) fn unsubscribe(&self, room: &RoomId) {
        let mut inbox = self.inbox.lock();
        inbox.rooms.remove(room);
        inbox.missed.remove(room);
    }

    pub(super) fn follows(&self, room: &RoomId) -> bool {
        self.inbox.lock().rooms.contains(room)
    }

    /// A settled commit of a room that this node follows.
    pub(super) fn deliver(&self, commit: &Commit, delivery: Delivery) {
        let mut inbox = self.inbox.lock();
        if inbox.cut_off {
            return;
        }
        if delivery.dropped {
            inbox.missed.insert(commit.room.clone());
            return;
        }
        inbox.missed.remove(&commit.room);
        for _ in 0..delivery.times {
            let what = Followed::Commit {
                room: commit.room.clone(),
                expected: commit.expected,
                entries: Arc::clone(&commit.entries),
            };
            inbox.push(Report { what, due: delivery.due });
        }
        drop(inbox);
        self.arrived.notify_one();
    }

    pub(super) fn deliver_ephemeral(&self, room: &RoomId, message: Bytes, delivery: Delivery) {
        let mut inbox = self.inbox.lock();
        if inbox.cut_off || delivery.dropped || inbox.reports.len() >= EPHEMERAL {
            return;
        }
        for _ in 0..delivery.times {
            let what = Followed::Ephemeral { room: room.clone(), message: message.clone() };
            inbox.push(Report { what, due: delivery.due });
        }
        drop(inbox);
        self.arrived.notify_one();
    }

    /// Hears nothing more, and forgets what waits.
    pub(super) fn cut_off(&self) {
        let mut inbox = self.inbox.lock();
        inbox.cut_off = true;
        inbox.reports.clear();
    }

    /// Hears again, and first that it missed something.
    pub(super) fn reconnect(&self) {
        let mut inbox = self.inbox.lock();
        if std::mem::take(&mut inbox.cut_off) {
            inbox.lose_all();
            drop(inbox);
            self.arrived.notify_one();
        }
    }

    /// Dropped reports that no later one has shown become gaps.
    pub(super) fn admit_missed(&self) {
        let mut inbox = self.inbox.lock();
        for room in std::mem::take(&mut inbox.missed) {
            inbox.push(Report { what: Followed::Gap(Some(room)), due: None });
        }
        drop(inbox);
        self.arrived.notify_one();
    }

    pub(super) async fn next(&self) -> Followed {
        loop {
            let arrived = self.arrived.notified();
            let due = {
                let mut inbox = self.inbox.lock();
                let due = inbox.reports.front().map(|report| report.due);
                if let Some(report) = inbox.reports.pop_front_if(|report| report.due.is_none()) {
                    return report.what;
                }
                due.flatten()
            };
            match due {
                None => arrived.await,
                Some(due) => {
                    tokio::time::sleep_until(due).await;
                    self.inbox.lock().release(due);
                }
            }
        }
    }
}

impl Inbox {
    fn push(&mut self, report: Report) {
        if self.reports.len() >= QUEUE {
            self.lose_all();
        } else {
            self.reports.push_back(report);
        }
    }

    fn lose_all(&mut self) {
        self.reports.clear();
        self.missed.clear();
        self.reports.push_back(Report { what: Followed::Gap(None), due: None });
    }

    /// The first report's time has come. (Another one may stand there by now, with a time of its own.)
    fn release(&mut self, due: Instant) {
        if let Some(first) = self.reports.front_mut().filter(|first| first.due.is_some_and(|at| at <= due)) {
            first.due = None;
        }
    }
}
