//! What other nodes committed: taken in by head, so that what is known already changes nothing; a gap reads the snapshot
//! again and tells local members the whole state. If it can't be read now, the room's own task goes on trying: the log may
//! be away for a moment while the bus is not, and then no other gap would be reported.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cell::Cell;
use super::outlet::Refusal;
use super::{Hub, committer, record};
use crate::domain::Head;
use crate::log::{Entry, Followed};
use crate::telemetry::names;

pub(super) async fn run(hub: Hub) {
    loop {
        match hub.0.parts.log.follow().await {
            Followed::Commit { room, expected, entries } => {
                if let Some(cell) = hub.find(&room) {
                    take(&hub, &cell, expected, &entries).await;
                    // Another node may have ended it.
                    hub.retire(&cell);
                }
            }
            Followed::Ephemeral { room, message } => hub.receive_ephemeral(&room, &message),
            Followed::Gap(Some(room)) => {
                count_gaps("restored", 1);
                if let Some(cell) = hub.find(&room) {
                    reload(&hub, &cell).await;
                }
            }
            Followed::Gap(None) => {
                // In order, so that a simulation repeats itself.
                let rooms: BTreeSet<_> = hub.0.rooms.lock().keys().cloned().collect();
                count_gaps("lost", rooms.len());
                let mut answers = true;
                for cell in rooms.iter().filter_map(|room| hub.find(room)) {
                    // Where one waited in vain the others needn't, one after the other.
                    if answers {
                        answers = reload(&hub, &cell).await;
                    } else {
                        hub.read_later(&cell);
                    }
                }
            }
        }
    }
}

async fn take(hub: &Hub, cell: &Arc<Cell>, expected: Head, entries: &[Entry]) {
    let known = cell.lock().room.head();
    let Some(last) = entries.last() else { return };
    if last.head <= known {
        return;
    }
    let begins_epoch = entries.first().is_some_and(|first| first.head.seq == 1) && cell.lock().room.is_vacant();
    let follows = entries.iter().any(|entry| entry.head.epoch == known.epoch && entry.head.seq == known.seq + 1);
    let events: Result<Vec<_>, _> =
        entries.iter().map(|entry| record::event(entry).map(|event| (entry.head, event))).collect();
    match events {
        Ok(events) if follows || begins_epoch => {
            let expected = if begins_epoch { known } else { expected };
            committer::absorb(hub, cell, expected, &events);
        }
        Ok(_) => {
            count_gaps("sequence", 1);
            reload(hub, cell).await;
        }
        Err(error) => {
            tracing::error!(roomId = %cell.id(), %error, "a commit of another node can't be read");
            count_gaps("sequence", 1);
            reload(hub, cell).await;
        }
    }
}

fn count_gaps(cause: &'static str, rooms: usize) {
    metrics::counter!(names::BUS_GAPS, "cause" => cause).increment(rooms as u64);
}

/// False: the log doesn't answer.
async fn reload(hub: &Hub, cell: &Arc<Cell>) -> bool {
    let read = hub.catch_up(cell).await;
    if let Err(error) = &read {
        tracing::warn!(roomId = %cell.id(), %error, "a gap can't be closed yet");
    }
    let answers = !matches!(read, Err(Refusal::Unavailable));
    if !answers {
        hub.read_later(cell);
    }
    hub.retire(cell);
    answers
}
