//! What a node looks after without being asked: rooms whose last commit failed, and the invariant that a live member's
//! session exists on the node that it names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Hub;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::{RoomId, SessionRef, UserId};
use crate::telemetry::names;

/// How often degraded rooms are read again.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A room in which nothing failed for this long, and that can be read, is no longer degraded.
const CALM: Duration = Duration::from_secs(2);
/// Every so many looks, members without a session are looked for.
const SWEEP_EVERY: u32 = 5;
/// Rooms looked at before other tasks get their turn.
const AT_ONCE: usize = 256;

/// Live members of rooms whose session this node does not know.
pub(super) type Suspects = HashSet<(RoomId, UserId, SessionRef)>;

pub(super) async fn run(hub: Hub) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspects = Suspects::new();
    let mut count = 0_u32;
    loop {
        looks.tick().await;
        count = count.wrapping_add(1);
        let sweep = count.is_multiple_of(SWEEP_EVERY);
        let mut found = Suspects::new();
        let mut cells = hub.cells();
        // In order, so that a simulation repeats itself.
        cells.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        for (index, cell) in cells.into_iter().enumerate() {
            hub.contain(&cell, || {
                hub.try_again(&cell);
                if sweep {
                    hub.sweep(&cell, &suspects, &mut found);
                }
            });
            if index % AT_ONCE == AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        if sweep {
            suspects = found;
        }
    }
}

impl Hub {
    /// The commit that failed may have been the room's last for hours: reading the room shows whether the log answers.
    fn try_again(&self, cell: &Arc<RoomCell>) {
        let mut state = cell.lock();
        if state.is_calm(CALM) {
            state.note_gap();
            self.work_on(cell, &mut state);
        }
    }

    /// Disconnects live members that name this node but have no session here. A command on its way looks the same for a
    /// moment, so only one that was suspected before, in a room for which nothing waits, is a breach.
    pub(super) fn sweep(&self, cell: &Arc<RoomCell>, suspects: &Suspects, found: &mut Suspects) {
        if self.is_draining() {
            return;
        }
        let mut state = cell.lock();
        for (user, session) in self.without_session(&state) {
            let suspect = (cell.id().clone(), user, session);
            if !suspects.contains(&suspect) || state.committing {
                found.insert(suspect);
                continue;
            }
            let (room, user, session) = suspect;
            tracing::error!(roomId = %room, userId = %user, sessionId = %session, "a live member has no session: disconnected");
            metrics::counter!(names::GHOST_MEMBERS).increment(1);
            self.lose_in(cell, &mut state, user, session);
        }
    }

    fn without_session(&self, state: &RoomCellState) -> Vec<(UserId, SessionRef)> {
        let here: HashMap<_, _> = state.attached.iter().map(|member| (member.session.id, &member.user)).collect();
        let mut sessions = state.room.live_sessions();
        // Looked up first: asking the room for each of its hundreds of members is quadratic, and nearly all are there.
        sessions.retain(|(user, session)| session.node == *self.node() && here.get(&session.id) != Some(&user));
        sessions.retain(|(user, session)| !state.knows(user, session));
        sessions
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, Silent, room};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_live_member_without_a_session_is_found_counted_and_disconnected() {
        let fixture = Fixture::new();
        let _ann = fixture.join("ann", Arc::new(Silent)).await;
        let _bob = fixture.join("bob", Arc::new(Silent)).await;
        let live = || fixture.hub.inspect(&room()).unwrap().live_sessions().len();
        tokio::time::sleep(LOOK_EVERY * SWEEP_EVERY * 3).await;
        assert_eq!(live(), 2, "nobody is missed who is there");
        // As a fault of the hub would: the session is forgotten, and no command says so.
        fixture.hub.find(&room()).unwrap().lock().attached.retain(|member| member.user.as_str() == "ann");
        tokio::time::sleep(LOOK_EVERY * SWEEP_EVERY * 3).await;
        assert_eq!(live(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_whose_disconnect_waits_for_the_log_is_no_ghost() {
        let fixture = Fixture::new();
        let bob = fixture.join("bob", Arc::new(Silent)).await;
        fixture.fail_commits();
        fixture.hub.depart(bob, super::super::Departure::Lost);
        let cell = fixture.hub.find(&room()).unwrap();
        let mut before = Suspects::new();
        for _ in 0..3 {
            let mut found = Suspects::new();
            fixture.hub.sweep(&cell, &before, &mut found);
            assert_eq!(found.len(), 1, "suspected again and again, and never confirmed");
            before = found;
        }
        assert_eq!(cell.lock().queue.len(), 1, "no second command");
    }
}
