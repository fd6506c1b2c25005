//! Rooms above `FULL_PRESENCE_MEMBERS`: members hear the room's digest once a second, instead of everybody's ticks and
//! statuses. The audience of a room hears it always.
//!
//! One task serves the large rooms of the node. They are spread over the second by their names, so that many of them
//! don't all speak in one moment. The digest is made of what the sessions here last said ([`DigestPart`]), which is
//! published to the other nodes, and of the latest part of each of these.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use tokio::sync::Notify;

use super::Hub;
use super::digest::DigestPart;
use super::lock::Mutex;
use super::relay::Relay;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::{NodeId, RoomId};

/// Time between two digests of a room.
const EVERY: Duration = Duration::from_secs(1);
/// Moments of that time at which rooms are served.
const BEATS: u64 = 10;

/// The large rooms of this node.
#[derive(Default)]
pub(super) struct LargeRooms {
    rooms: Mutex<BTreeSet<(u64, RoomId)>>,
    changed: Notify,
}

impl LargeRooms {
    fn add(&self, room: &RoomId) {
        let mut rooms = self.rooms.lock();
        let first = rooms.is_empty();
        if rooms.insert((beat_of(room), room.clone())) && first {
            self.changed.notify_one();
        }
    }

    fn remove(&self, room: &RoomId) {
        self.rooms.lock().remove(&(beat_of(room), room.clone()));
    }

    fn due(&self, beat: u64) -> Vec<RoomId> {
        let rooms = self.rooms.lock();
        rooms.iter().filter(|(its, _)| *its == beat).map(|(_, room)| room.clone()).collect()
    }
}

fn beat_of(room: &RoomId) -> u64 {
    let mut hash = DefaultHasher::new();
    room.hash(&mut hash);
    hash.finish() % BEATS
}

pub(super) async fn run(hub: Hub) {
    let large = &hub.0.large_rooms;
    for beat in (0..BEATS).cycle() {
        while large.rooms.lock().is_empty() {
            large.changed.notified().await;
        }
        tokio::time::sleep(EVERY / BEATS as u32).await;
        for room in large.due(beat) {
            match hub.find(&room) {
                Some(cell) => hub.contain(&cell, || hub.tell_digest(&cell)),
                None => large.remove(&room),
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Hub {
    /// Sees to it that a large room gets its digests. Called after every change that may have made it large.
    pub(super) fn note_size(&self, cell: &RoomCell, state: &RoomCellState) {
        if state.has_digest(&self.0.parts.limits) {
            self.0.large_rooms.add(cell.id());
        }
    }

    /// Tells the members here how the room does, and the other nodes how the members here do.
    fn tell_digest(&self, cell: &RoomCell) {
        let now = self.now();
        let mut state = cell.lock();
        state.drop_silent_parts(now);
        if !state.has_digest(&self.0.parts.limits) || state.is_retired() {
            // Under the room's lock: a change that makes the room large again adds it after this.
            self.0.large_rooms.remove(cell.id());
            return;
        }
        let part = state.tell_digest(&self.0.parts.limits, now);
        let heard_elsewhere = state.remote_members().v3 || state.audience().is_elsewhere();
        drop(state);
        if heard_elsewhere {
            let relay = Relay::Digest { node: self.node().clone(), part };
            self.0.parts.log.publish(cell.id(), None, relay.encode());
        }
    }

    /// Takes another node's part of a room's digest.
    pub(super) fn receive_digest(&self, cell: &RoomCell, node: NodeId, part: DigestPart) {
        if node == *self.node() {
            return;
        }
        let now = self.now();
        let mut state = cell.lock();
        state.note_part(node, part, now);
        self.note_size(cell, &state);
    }
}
