//! A panic in one room costs that room's members on this node their connections, and nobody else anything.
//!
//! Its replica may be half changed, so it is dropped: sessions here are closed with INTERNAL (their clients come back with
//! their tokens), what waits is refused, and the room is read from the log again, so that members whose sessions ended are
//! disconnected and its deadlines are kept.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::Hub;
use super::delivery::Refusal;
use super::room_cell::{Completion, RoomCell};
use crate::domain::{CloseCode, Head, RoomId};
use crate::panics;
use crate::room::Room;
use crate::telemetry::names;

/// The pause before a room is read again after a panic: one that panics at each read must not keep a core busy.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(30);

impl Hub {
    /// Runs what concerns one room; a panic ends there.
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
            if std::mem::replace(&mut state.retired, true) {
                return;
            }
            if rooms.get(cell.id()).is_some_and(|known| Arc::ptr_eq(known, cell)) {
                rooms.remove(cell.id());
                self.0.timers.schedule(cell.id(), None);
                self.0.parts.log.unsubscribe(cell.id());
            }
            state.forget_tickets();
            // What is left of the replica means nothing any more, and is counted nowhere.
            state.room = Room::vacant(cell.id().clone(), Head::default());
            self.count_kept(&mut state);
            (std::mem::take(&mut state.attached), std::mem::take(&mut state.queue))
        };
        tracing::error!(roomId = %cell.id(), members = attached.len(), "a room panicked: it is read again, its members come back");
        metrics::counter!(names::ROOMS_BROKEN).increment(1);
        for queued in queue {
            if let Completion::Join(done) = queued.resolve {
                done.answer(Err(Refusal::Internal));
            }
        }
        for member in attached {
            // Perhaps it was this subscriber that panicked.
            let _ = panics::contain(|| member.subscriber.close(CloseCode::Internal, CloseCode::Internal.meaning()));
        }
        cell.changed.notify_waiters();
        self.0.parts.tracker.spawn(self.clone().read_broken(cell.id().clone()));
    }

    /// Opening a room finds the members whose sessions on this node are gone.
    async fn read_broken(self, room: RoomId) {
        let mut pause = PAUSE;
        while !self.0.parts.stop.is_cancelled() {
            tokio::time::sleep(pause).await;
            match AssertUnwindSafe(self.open(&room)).catch_unwind().await {
                Ok(Ok(cell)) => return self.retire(&cell),
                Ok(Err(refusal)) => tracing::warn!(roomId = %room, %refusal, "a room that panicked can't be read yet"),
                Err(_) => tracing::error!(roomId = %room, "a room that panicked panics when it is read"),
            }
            pause = (pause * 2).min(LONGEST);
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
        assert_eq!(fixture.hub.status().attached, 1, "nobody has to come back");
    }
}
