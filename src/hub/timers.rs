//! The deadlines of all rooms: one task and one ordered set.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::sync::Notify;

use super::Hub;
use super::lock::Mutex;
use super::room_cell::Completion;
use crate::domain::{RoomId, RoomTime};
use crate::room::Command;

#[derive(Default)]
pub(super) struct Timers {
    table: Mutex<DeadlineTable>,
    changed: Notify,
}

#[derive(Default)]
struct DeadlineTable {
    due: BTreeSet<(RoomTime, RoomId)>,
    of: HashMap<RoomId, RoomTime>,
}

impl Timers {
    /// Sets, moves or removes a room's deadline.
    pub(super) fn schedule(&self, room: &RoomId, deadline: Option<RoomTime>) {
        let mut table = self.table.lock();
        let known = table.of.get(room).copied();
        if known == deadline {
            return;
        }
        if let Some(known) = known {
            table.due.remove(&(known, room.clone()));
            table.of.remove(room);
        }
        let Some(deadline) = deadline else { return };
        let first = table.due.first().is_none_or(|(earliest, _)| deadline < *earliest);
        table.due.insert((deadline, room.clone()));
        table.of.insert(room.clone(), deadline);
        drop(table);
        if first {
            self.changed.notify_one();
        }
    }

    #[cfg(test)]
    pub(super) fn of(&self, room: &RoomId) -> Option<RoomTime> {
        self.table.lock().of.get(room).copied()
    }

    /// Rooms whose deadline has passed, and the time until the next one.
    fn due(&self, now: RoomTime) -> (Vec<RoomId>, Option<Duration>) {
        let mut table = self.table.lock();
        let mut rooms = Vec::new();
        while table.due.first().is_some_and(|(deadline, _)| *deadline <= now) {
            if let Some((_, room)) = table.due.pop_first() {
                table.of.remove(&room);
                rooms.push(room);
            }
        }
        (rooms, table.due.first().map(|(deadline, _)| deadline.saturating_since(now)))
    }
}

pub(super) async fn run(hub: Hub) {
    loop {
        let changed = hub.0.timers.changed.notified();
        // A millisecond more than needed: timers round, and a deadline that is a moment early costs another turn.
        let wait = fire(&hub).map_or(Duration::from_secs(3600), |wait| wait + Duration::from_millis(1));
        let _ = tokio::time::timeout(wait, changed).await;
    }
}

/// Queues a command in each room whose deadline has passed. Returns the time until the next deadline.
pub(super) fn fire(hub: &Hub) -> Option<Duration> {
    let (rooms, wait) = hub.0.timers.due(hub.now());
    for room in rooms {
        // While the log is away the deadline stays due: one queued command is enough.
        if let Some(cell) = hub.find(&room).filter(|cell| !cell.lock().has_queued_deadline()) {
            hub.contain(&cell, || {
                let (lead, may_keep) = (hub.lead_of(&cell), hub.reserve_keep(&cell));
                hub.enqueue(&cell, Command::Deadline { lead, may_keep }, Completion::MustCommit);
            });
        }
    }
    wait
}

/// After a step of room time: tells every member the whole state, with the new time, and computes the timer's wait
/// anew.
pub(super) async fn follow_steps(hub: Hub) {
    let mut steps = hub.0.parts.clock.steps();
    while steps.changed().await.is_ok() {
        for cell in hub.cells() {
            hub.contain(&cell, || {
                cell.lock().send_state_to_all(hub.node(), hub.now());
            });
        }
        hub.0.timers.changed.notify_one();
    }
}
