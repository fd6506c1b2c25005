//! Commands into a room's queue.

use std::sync::Arc;
use std::time::Duration;

use super::delivery::Refusal;
use super::room_cell::{Completion, QueuedCommand, RoomCell, RoomCellState};
use super::{Hub, committer};
use crate::domain::{SessionRef, UserId};
use crate::room::Command;
use crate::telemetry::names;

impl Hub {
    /// Puts a command into the room's queue and starts the committer if it isn't running.
    pub(super) fn enqueue(&self, cell: &Arc<RoomCell>, command: Command, completion: Completion) {
        self.enqueue_in(cell, &mut cell.lock(), command, completion);
    }

    pub(super) fn enqueue_in(
        &self,
        cell: &Arc<RoomCell>,
        state: &mut RoomCellState,
        command: Command,
        completion: Completion,
    ) {
        if let Err(refusal) = self.admit_command(state, &command, &completion) {
            return state.answer(completion, Err(refusal));
        }
        // A clone of the current span costs more than the check whether anybody records it.
        let traced = tracing::span_enabled!(tracing::Level::DEBUG);
        let cause = if traced { tracing::Span::current() } else { tracing::Span::none() };
        state.push(QueuedCommand { command, completion, cause });
        if state.is_kept_waiting(committer::BATCH) {
            cell.hurry();
        }
        self.work_on(cell, state);
    }

    fn admit_command(
        &self,
        state: &mut RoomCellState,
        command: &Command,
        completion: &Completion,
    ) -> Result<(), Refusal> {
        let limits = &self.0.parts.limits;
        // Empty and removed, or dropped after a panic: opening the room anew disconnects the members that are gone.
        if state.is_retired() {
            return Err(Refusal::Unavailable);
        }
        // The number of commands that must be committed is bounded by the number of members.
        let full = state.queued() as u64 >= limits.room_queue;
        if full && !matches!(completion, Completion::MustCommit) {
            return Err(Refusal::Overloaded);
        }
        // Members' requests are charged to the room's budget; `RATE_LIMITS=off` lifts it together with the quotas.
        if let (Completion::Reply { .. }, Command::Asked { ask, .. }) = (completion, command)
            && self.0.parts.quotas.is_some()
            && let Err(retry_after) = state.charge(ask, limits)
        {
            metrics::counter!(names::BUDGET_REFUSALS, "budget" => "room").increment(1);
            return Err(Refusal::OverBudget { retry_after });
        }
        Ok(())
    }

    /// Disconnects a member whose session is gone.
    pub(super) fn lose(&self, cell: &Arc<RoomCell>, user: UserId, session: SessionRef) {
        self.lose_in(cell, &mut cell.lock(), user, session);
    }

    pub(super) fn lose_in(&self, cell: &Arc<RoomCell>, state: &mut RoomCellState, user: UserId, session: SessionRef) {
        // As in `depart`: after a planned stop the members come back with their tokens.
        if !(self.is_draining() && session.node == *self.node()) {
            self.enqueue_in(cell, state, Command::Disconnect { user, session }, Completion::MustCommit);
        }
    }

    /// Has the room read again, repeatedly until the log answers.
    pub(super) fn read_later(&self, cell: &Arc<RoomCell>) {
        let mut state = cell.lock();
        state.note_gap();
        self.work_on(cell, &mut state);
    }

    /// Starts the room's committer, if it isn't running.
    pub(super) fn work_on(&self, cell: &Arc<RoomCell>, state: &mut RoomCellState) {
        if state.begin_work() {
            self.0.parts.tracker.spawn(committer::run(self.clone(), Arc::clone(cell)));
        }
    }

    /// How far ahead a scheduled command must lie so that the members here have heard of it, and their players have
    /// started: a round trip that 95 % of them keep (with a retransmission, where packets are lost), plus `STARTING`,
    /// at most `MAX_LEAD_MS`. The slowest phone of a room makes nobody else wait: it starts late, and catches up.
    pub(super) fn lead_of(&self, cell: &RoomCell) -> Duration {
        /// From `play()` to the first new frame browsers take 30 to 110 ms (docs/SYNC.md).
        const STARTING: Duration = Duration::from_millis(150);
        let usual = cell.lock().usual_rtt();
        (usual + STARTING).min(Duration::from_millis(self.0.parts.limits.max_lead_ms))
    }
}
