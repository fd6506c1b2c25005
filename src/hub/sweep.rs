//! The sweep: periodically reads degraded rooms again, and checks the invariant that a live member's session exists on
//! the node that it names.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Hub;
use super::room_cell::{RoomCell, RoomCellState};
use crate::domain::{RoomId, SessionRef, UserId};
use crate::telemetry::names;

/// How often degraded rooms are considered.
const PERIOD: Duration = Duration::from_secs(2);
/// A room is read again when no commit of it failed for this long.
const QUIET: Duration = Duration::from_secs(2);
/// Periods between two searches for members without a session.
const SEARCH_EVERY: u32 = 5;
/// Rooms between two points at which other tasks may run.
const BATCH: usize = 256;

/// Live members that name a session which this node doesn't know.
pub(super) type Suspects = HashSet<(RoomId, UserId, SessionRef)>;

pub(super) async fn run(hub: Hub) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut suspects = Suspects::new();
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        count = count.wrapping_add(1);
        let sweep = count.is_multiple_of(SEARCH_EVERY);
        let mut found = Suspects::new();
        for (index, cell) in hub.cells_in_order().into_iter().enumerate() {
            hub.contain(&cell, || {
                hub.recheck(&cell);
                if sweep {
                    hub.sweep(&cell, &suspects, &mut found);
                }
            });
            if index % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
        }
        if sweep {
            suspects = found;
        }
    }
}

impl Hub {
    /// Reads a degraded room, which shows whether the log answers: the commit that failed may be its last for hours.
    fn recheck(&self, cell: &Arc<RoomCell>) {
        let mut state = cell.lock();
        if state.may_have_recovered(QUIET) {
            state.note_gap();
            self.work_on(cell, &mut state);
        }
    }

    /// Disconnects live members that name this node but have no session here. While a command is under way a member may
    /// look like that, so only one that was suspected before, in a room that commits nothing, is a breach.
    pub(super) fn sweep(&self, cell: &Arc<RoomCell>, suspects: &Suspects, found: &mut Suspects) {
        if self.is_draining() {
            return;
        }
        let mut state = cell.lock();
        for (user, session) in self.without_session(&state) {
            let suspect = (cell.id().clone(), user, session);
            if !suspects.contains(&suspect) || state.is_working() {
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
        let here: HashMap<_, _> = state.members_here().iter().map(|member| (member.session.id, &member.user)).collect();
        let mut sessions = state.room().live_sessions();
        // By the map first: `knows` is linear, so calling it for each of hundreds of members would be quadratic.
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
        tokio::time::sleep(PERIOD * SEARCH_EVERY * 3).await;
        assert_eq!(live(), 2, "no live member was disconnected");
        fixture.hub.find(&room()).unwrap().lock().forget_session_of(&UserId::parse("bob").unwrap());
        tokio::time::sleep(PERIOD * SEARCH_EVERY * 3).await;
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
        assert_eq!(cell.lock().queued(), 1, "no second command");
    }
}
