//! The log's commits, as they arrive. A commit that the replica holds already changes nothing. Ephemeral messages of
//! other nodes are handed on undecoded ([`super::ephemeral_feed`]).
//!
//! The feed never waits for the log: one slow read would stop the traffic of all rooms, and after a break of the bus,
//! when each room has a gap, the feed would never catch up. A room with a gap is read again by its own task
//! ([`super::committer`]), a bounded number at a time. Commits that arrive meanwhile are kept in the cell and taken in
//! after the read. Members here are told the whole state only if the read shows events that they did not hear.

use std::sync::Arc;

use super::room_cell::{RoomCell, RoomCellState};
use super::{Hub, codec, committer};
use crate::commit::Entry;
use crate::domain::Head;
use crate::log::Followed;
use crate::room::Event;
use crate::telemetry::names;

pub(super) async fn run(hub: Hub) {
    loop {
        receive(&hub, hub.0.parts.log.follow().await);
    }
}

/// Takes in one report. Not async, so that no report waits for anything.
fn receive(hub: &Hub, report: Followed) {
    match report {
        Followed::Commit { room, expected, entries } => {
            if let Some(cell) = hub.find(&room) {
                hub.contain(&cell, || take(hub, &cell, expected, &entries));
                // Another node may have ended it.
                hub.retire(&cell);
            }
        }
        Followed::Ephemeral { room, message } => {
            let _ = hub.0.ephemeral.push(room, message);
        }
        Followed::Gap(Some(room)) => {
            count_gaps("restored", 1);
            if let Some(cell) = hub.find(&room) {
                hub.read_later(&cell);
            }
        }
        Followed::Gap(None) => {
            let cells = hub.cells_in_order();
            count_gaps("lost", cells.len());
            for cell in cells {
                hub.read_later(&cell);
            }
        }
    }
}

pub(super) fn take(hub: &Hub, cell: &Arc<RoomCell>, expected: Head, entries: &[Entry]) {
    let Some(last) = entries.last() else { return };
    if last.head <= cell.lock().room().head() {
        return;
    }
    let events = entries.iter().map(|entry| codec::event(entry).map(|event| (entry.head, event)));
    let events: Vec<_> = match events.collect() {
        Ok(events) => events,
        Err(error) => {
            tracing::error!(roomId = %cell.id(), %error, "a commit of another node can't be read");
            count_gaps("sequence", 1);
            return hub.read_later(cell);
        }
    };
    let mut state = cell.lock();
    // A read may have brought it since: without this look it would count as a gap.
    if last.head <= state.room().head() {
        return;
    }
    if let Some(expected) = follows(&state, expected, &events) {
        drop(state);
        committer::absorb(hub, cell, expected, &events);
        take_in_early(hub, cell);
        return;
    }
    // Its predecessors are missing: it is kept until the room was read.
    state.keep_early(expected, events);
    note_missing(hub, cell, &mut state);
}

/// The head from which these events continue the replica. `None`: they don't.
fn follows(state: &RoomCellState, expected: Head, events: &[(Head, Event)]) -> Option<Head> {
    let known = state.room().head();
    let is_next = |head: &Head| head.epoch == known.epoch && head.seq == known.seq + 1;
    if events.iter().any(|(head, _)| is_next(head)) {
        return Some(expected);
    }
    let begins_epoch = state.room().is_vacant() && events.first().is_some_and(|(head, _)| head.seq == 1);
    begins_epoch.then_some(known)
}

/// Takes in the commits that were kept, after the room was read or has advanced. One that still doesn't follow shows
/// another gap.
pub(super) fn take_in_early(hub: &Hub, cell: &Arc<RoomCell>) {
    loop {
        let (expected, events) = {
            let mut state = cell.lock();
            let Some((expected, events)) = state.take_early() else { return };
            match follows(&state, expected, &events) {
                Some(expected) => (expected, events),
                None => {
                    state.put_back_early(expected, events);
                    note_missing(hub, cell, &mut state);
                    return;
                }
            }
        };
        committer::absorb(hub, cell, expected, &events);
    }
}

/// A kept commit doesn't follow: has the room read. A read under way, as at the opening of a room, may bring what is
/// missing; what doesn't follow its answer is a gap.
fn note_missing(hub: &Hub, cell: &Arc<RoomCell>, state: &mut RoomCellState) {
    if state.needs_reload() || state.is_being_read() {
        return;
    }
    count_gaps("sequence", 1);
    state.note_gap();
    hub.work_on(cell, state);
}

fn count_gaps(cause: &'static str, rooms: usize) {
    metrics::counter!(names::BUS_GAPS, "cause" => cause).increment(rooms as u64);
}
