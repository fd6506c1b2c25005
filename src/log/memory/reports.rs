//! The reports of one attached node: of the rooms that it follows, until another process has become that node.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::commit::Commit;
use crate::domain::RoomId;
use crate::log::Followed;
use crate::log::report_queue::ReportQueue;

#[derive(Debug, Default)]
pub(super) struct NodeReports {
    queue: ReportQueue,
    /// Held while a report is queued: after [`NodeReports::shut`] none is.
    following: Mutex<Following>,
}

#[derive(Debug, Default)]
struct Following {
    rooms: HashSet<RoomId>,
    shut: bool,
}

impl NodeReports {
    pub(super) fn subscribe(&self, room: &RoomId) {
        self.following.lock().rooms.insert(room.clone());
    }

    pub(super) fn unsubscribe(&self, room: &RoomId) {
        self.following.lock().rooms.remove(room);
    }

    pub(super) fn follows(&self, room: &RoomId) -> bool {
        self.following.lock().rooms.contains(room)
    }

    /// A settled commit, if the node follows its room.
    pub(super) fn deliver(&self, commit: &Commit) {
        let following = self.following.lock();
        if !following.shut && following.rooms.contains(&commit.room) {
            let (room, entries) = (commit.room.clone(), Arc::clone(&commit.entries));
            self.queue.push(Followed::Commit { room, expected: commit.expected, entries });
        }
    }

    pub(super) fn deliver_ephemeral(&self, room: &RoomId, message: Bytes) {
        let following = self.following.lock();
        if !following.shut {
            self.queue.push(Followed::Ephemeral { room: room.clone(), message });
        }
    }

    /// Another process has become this node: nothing more is heard, and what waits is dropped.
    pub(super) fn shut(&self) {
        let mut following = self.following.lock();
        following.shut = true;
        self.queue.clear();
    }

    pub(super) async fn next(&self) -> Followed {
        self.queue.next().await
    }
}
