//! Fairness among nodes with unequal round trips to Redis.
//!
//! A commit is a race for the room's next head, and a node whose round trip is longer than the pause between the
//! others' commits loses every one of them. So a node that has lost [`PATIENT`] times in a row claims the next turn,
//! with the very request that loses once more (`commit.lua`): until its next commit is in, or [`TURN`] is over, the
//! others' commits to this room are answered `wait`, and sent again after a moment. It costs nothing where no node
//! loses like that.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::RoomId;

/// Conflicts in a row after which a node claims the room's next turn.
const PATIENT: u32 = 3;
/// How long the others wait for its commit: longer than its round trip, shorter than a caller's patience.
const TURN: Duration = Duration::from_millis(1000);

/// Conflicts in a row, of the rooms that have some.
#[derive(Debug, Default)]
pub(super) struct Fairness(Mutex<HashMap<RoomId, u32>>);

impl Fairness {
    /// How long the others shall wait for this node's next commit, if it has lost often enough to claim the turn.
    pub(super) fn claim(&self, room: &RoomId) -> Option<Duration> {
        self.0.lock().get(room).is_some_and(|lost| *lost >= PATIENT).then_some(TURN)
    }

    pub(super) fn note(&self, room: &RoomId, lost: bool) {
        let mut conflicts = self.0.lock();
        if lost {
            *conflicts.entry(room.clone()).or_default() += 1;
        } else {
            conflicts.remove(room);
        }
    }

    /// This node no longer follows the room.
    pub(super) fn forget(&self, room: &RoomId) {
        self.0.lock().remove(room);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_that_this_node_left_after_a_conflict_is_forgotten() {
        let (fairness, friday) = (Fairness::default(), RoomId::parse("friday").unwrap());
        (0..PATIENT).for_each(|_| fairness.note(&friday, true));
        assert!(fairness.claim(&friday).is_some());
        fairness.forget(&friday);
        assert!(fairness.claim(&friday).is_none() && fairness.0.lock().is_empty());
    }
}
