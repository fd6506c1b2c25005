//! Reports that one node has not taken yet: a bounded queue, in order.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commit::Commit;
use crate::domain::RoomId;
use crate::log::Followed;

/// Reports that may wait. Beyond it the node is told to load everything again, which costs less than an endless queue.
const QUEUE: usize = 4096;
/// Ephemeral messages beyond this are dropped: they may be lost, and must not cost commits a reload.
const EPHEMERAL: usize = QUEUE / 2;

#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    waiting: Mutex<WaitingReports>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct WaitingReports {
    reports: VecDeque<Followed>,
    /// Rooms that the node follows.
    rooms: HashSet<RoomId>,
    shut: bool,
}

impl ReportQueue {
    pub(super) fn subscribe(&self, room: &RoomId) {
        self.waiting.lock().rooms.insert(room.clone());
    }

    pub(super) fn unsubscribe(&self, room: &RoomId) {
        self.waiting.lock().rooms.remove(room);
    }

    pub(super) fn follows(&self, room: &RoomId) -> bool {
        self.waiting.lock().rooms.contains(room)
    }

    /// A settled commit, if the node follows its room.
    pub(super) fn deliver(&self, commit: &Commit) {
        let mut waiting = self.waiting.lock();
        if waiting.shut || !waiting.rooms.contains(&commit.room) {
            return;
        }
        if waiting.reports.len() >= QUEUE {
            waiting.reports.clear();
            waiting.reports.push_back(Followed::Gap(None));
        } else {
            let (room, entries) = (commit.room.clone(), Arc::clone(&commit.entries));
            waiting.reports.push_back(Followed::Commit { room, expected: commit.expected, entries });
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    pub(super) fn deliver_ephemeral(&self, room: &RoomId, message: Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.shut || waiting.reports.len() >= EPHEMERAL {
            return;
        }
        waiting.reports.push_back(Followed::Ephemeral { room: room.clone(), message });
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Another process has become this node: nothing more is heard, and what waits is dropped.
    pub(super) fn shut(&self) {
        let mut waiting = self.waiting.lock();
        waiting.shut = true;
        waiting.reports.clear();
    }

    pub(super) async fn next(&self) -> Followed {
        loop {
            let arrived = self.arrived.notified();
            if let Some(report) = self.waiting.lock().reports.pop_front() {
                return report;
            }
            arrived.await;
        }
    }
}
