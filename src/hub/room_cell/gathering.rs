//! The committer's next step. In a large room joins and leaves are gathered, so that a crowd that comes in costs few
//! commits and few messages.

use std::time::Duration;

use tokio::time::Instant;

use super::{CellPhase, CellWork, QueuedCommand, RoomCellState};
use crate::clock::Clock;
use crate::domain::Limits;

/// Joins and leaves of a large room that follow others within this time are committed together.
const GATHER: Duration = Duration::from_millis(100);

impl RoomCellState {
    /// Takes up to `most` commands, or says what else there is to do. Ends the phase when there is nothing.
    pub(in crate::hub) fn next_work(&mut self, most: usize, limits: &Limits) -> CellWork {
        self.gathering = false;
        if self.phase != CellPhase::Working {
            // The room panicked. What came back into the queue since is found out by the cell that takes this one's
            // place.
            if self.is_retired() {
                self.queue.clear();
            }
            return CellWork::Nothing;
        }
        if !self.queue.is_empty() {
            if let Some(until) = self.gathers_until(most, limits) {
                self.gathering = true;
                return CellWork::Gather(until);
            }
            let count = self.queue.len().min(most);
            let batch: Vec<_> = self.queue.drain(..count).collect();
            if batch.iter().any(|queued| queued.command.moves_member()) {
                self.moved_at = Some(Clock::instant());
            }
            return CellWork::Commit(batch);
        }
        if self.needs_reload() {
            return CellWork::Read;
        }
        self.end_work();
        CellWork::Nothing
    }

    /// Until when joins and leaves that came soon after others wait for more. One that comes alone waits for nothing,
    /// and none waits once there is anything else to commit.
    fn gathers_until(&self, most: usize, limits: &Limits) -> Option<Instant> {
        let until = self.moved_at? + GATHER;
        let waits = self.is_large(limits) && Clock::instant() < until && self.queue.len() < most;
        (waits && self.queue.iter().all(|queued| queued.command.moves_member())).then_some(until)
    }

    /// Whether the committer gathers joins and leaves, and must be told of what can't wait.
    pub(in crate::hub) fn is_kept_waiting(&self, most: usize) -> bool {
        let urgent = |queued: &QueuedCommand| !queued.command.moves_member();
        self.gathering && (self.queue.len() >= most || self.queue.back().is_some_and(urgent))
    }
}
