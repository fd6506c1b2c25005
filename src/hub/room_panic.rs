//! A panic in one room closes the sessions of its members on this node, and touches no other room.
//!
//! The replica may be half changed, so it is dropped. Sessions are closed with INTERNAL (their clients come back with
//! their tokens), queued commands are refused, and the room is read from the log again: that disconnects the members
//! whose sessions ended, and keeps the room's deadlines.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::{Completion, RoomCell};
use crate::domain::{CloseCode, RoomId};
use crate::panics;
use crate::telemetry::names;

/// The pause before a room is read again after a panic, doubled each time: a room that panics at each read must not
/// keep a core busy.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Hub {
    /// Runs work on one room; a panic of it drops the room's replica.
    pub(super) fn contain(&self, cell: &Arc<RoomCell>, work: impl FnOnce()) {
        if panics::contain(work).is_err() {
            self.drop_broken(cell);
        }
    }

    /// Drops the replica of a room in which something panicked, and has it read again.
    pub(super) fn drop_broken(&self, cell: &Arc<RoomCell>) {
        let (attached, queue) = {
            let mut rooms = self.0.rooms.lock();
            let mut state = cell.lock();
            let Some(parts) = state.dismantle() else { return };
            if rooms.get(cell.id()).is_some_and(|known| Arc::ptr_eq(known, cell)) {
                rooms.remove(cell.id());
                self.0.timers.schedule(cell.id(), None);
                self.0.parts.log.unsubscribe(cell.id());
            }
            self.count_kept(&mut state);
            parts
        };
        let members = attached.len();
        tracing::error!(roomId = %cell.id(), members, "a room panicked: it is read again, its members come back");
        metrics::counter!(names::ROOMS_BROKEN).increment(1);
        for queued in queue {
            if let Completion::Join(done) = queued.completion {
                done.answer(Err(Refusal::Internal));
            }
        }
        for member in attached {
            // This subscriber may be what panicked.
            let _ = panics::contain(|| member.subscriber.close(CloseCode::Internal, CloseCode::Internal.meaning()));
        }
        cell.audience().close(CloseCode::Internal, self.now());
        cell.notify_changed();
        self.0.parts.tracker.spawn(self.clone().read_broken(cell.id().clone()));
    }

    /// Opens the room, which finds the members whose sessions on this node are gone.
    async fn read_broken(self, room: RoomId) {
        let mut pause = FIRST_PAUSE;
        while !self.0.parts.stop.is_cancelled() {
            tokio::time::sleep(pause).await;
            match AssertUnwindSafe(self.open(&room)).catch_unwind().await {
                Ok(Ok(cell)) => return self.retire(&cell),
                Ok(Err(refusal)) => tracing::warn!(roomId = %room, %refusal, "a room that panicked can't be read yet"),
                Err(_) => tracing::error!(roomId = %room, "a room that panicked panics when it is read"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, POISON, Silent, room};
    use super::*;
    use crate::domain::{ChatText, Limits};
    use crate::room::Ask;

    #[tokio::test(start_paused = true)]
    async fn a_command_that_panics_is_refused_and_the_others_of_its_batch_are_committed() {
        let fixture = Fixture::new();
        let ann = fixture.join("ann", Arc::new(Silent)).await;
        let head = || fixture.hub.inspect(&room()).unwrap().head().seq;
        let before = head();
        for text in ["one", POISON, "two"] {
            let text = ChatText::parse(text, &Limits::default()).unwrap();
            fixture.hub.submit(&ann, Ask::Chat { text }, "CHAT", None);
        }
        fixture.hub.settled().await;
        assert_eq!(head(), before + 2);
        assert_eq!(fixture.hub.status().attached, 1, "no session was closed");
    }
}
