//! When rooms want to be woken: one task and one ordered set for all of them.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Hub;
use super::room_cell::{Cell, Resolve};
use crate::domain::{RoomId, RoomTime};
use crate::room::Command;

#[derive(Default)]
pub(super) struct Timers {
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Default)]
struct Table {
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
        let (rooms, wait) = hub.0.timers.due(hub.now());
        for room in rooms {
            // While the log is away the deadline stays due: one command that waits is enough.
            let waits =
                |cell: &Cell| cell.lock().queue.iter().any(|queued| matches!(queued.command, Command::Deadline { .. }));
            if let Some(cell) = hub.find(&room).filter(|cell| !waits(cell)) {
                hub.contain(&cell, || {
                    let (lead, may_keep) = (hub.lead_of(&cell), hub.reserve_keep(&cell));
                    hub.enqueue(&cell, Command::Deadline { lead, may_keep }, Resolve::Insist);
                });
            }
        }
        // A millisecond more than asked: timers round, and a deadline that is not quite there costs another turn.
        let wait = wait.map_or(Duration::from_secs(3600), |wait| wait + Duration::from_millis(1));
        let _ = tokio::time::timeout(wait, changed).await;
    }
}

/// Room time was put right in one step: every member is told the whole state, with the time as it is now, and deadlines that
/// were waited for by the old time are looked at again.
pub(super) async fn follow_steps(hub: Hub) {
    let mut steps = hub.0.parts.clock.steps();
    while steps.changed().await.is_ok() {
        for cell in hub.cells() {
            hub.contain(&cell, || {
                let state = cell.lock();
                for member in &state.attached {
                    state.send_state(&member.session, hub.node(), hub.now());
                }
            });
        }
        hub.0.timers.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::committer::absorb;
    use super::super::testing::{Fixture, Silent, room};
    use super::*;
    use crate::domain::{Head, NodeId, SessionRef, UserId};
    use crate::room::Event;

    /// Two commits are taken in at the same time, by the committer and by the follower: whichever comes last, the room's
    /// deadline is that of the room.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_room_s_deadline_is_never_overwritten_by_an_earlier_state_s() {
        const ROUNDS: u64 = 1500;
        let fixture = Fixture::new();
        let _ann = fixture.join("ann", Arc::new(Silent)).await;
        let bob = fixture.join("bob", Arc::new(Silent)).await;
        let bob = bob.actor().user.clone();
        let cell = fixture.hub.find(&room()).unwrap();
        let tasks = tokio_util::task::TaskTracker::new();
        // Other rooms keep the table of deadlines busy.
        let over = Arc::new(AtomicBool::new(false));
        let others = (0..2).map(|number| {
            let (hub, over) = (fixture.hub.clone(), Arc::clone(&over));
            tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    {
                        let _held = hub.0.timers.table.lock();
                        (0..1000 * (number + 1)).for_each(|_| std::hint::spin_loop());
                    }
                    tokio::task::yield_now().await;
                }
            })
        });
        let others: Vec<_> = others.collect();
        let take_in = |expected: Head, event: Event| {
            let (hub, cell) = (fixture.hub.clone(), Arc::clone(&cell));
            let next = Head { seq: expected.seq + 1, ..expected };
            tasks.spawn(async move {
                while cell.lock().room.head() != expected {
                    tokio::task::yield_now().await;
                }
                absorb(&hub, &cell, expected, &[(next, event)]);
            })
        };
        let mut head = cell.lock().room.head();
        for round in 0..ROUNDS {
            let until = fixture.hub.now() + Duration::from_secs(60 + round);
            let lost = take_in(head, lost(&bob, until));
            head.seq += 1;
            let back = take_in(head, back(&bob, round));
            head.seq += 1;
            lost.await.unwrap();
            back.await.unwrap();
            let scheduled = fixture.hub.0.timers.table.lock().of.get(&room()).copied();
            assert_eq!(scheduled, cell.lock().room.next_deadline(), "round {round}");
        }
        over.store(true, Ordering::Relaxed);
        for other in others {
            other.await.unwrap();
        }
    }

    fn lost(user: &UserId, until: RoomTime) -> Event {
        Event::Disconnected { at: RoomTime::default(), user: user.clone(), until }
    }

    fn back(user: &UserId, id: u64) -> Event {
        Event::Resumed {
            at: RoomTime::default(),
            user: user.clone(),
            session: SessionRef { node: NodeId::parse("node-2").unwrap(), id },
            dialect: crate::domain::Dialect::V3,
            transport: crate::domain::TransportKind::WebSocket,
            token: crate::domain::ResumeToken::random().hash(),
            proved: None,
            origin: crate::room::Origin::default(),
        }
    }
}
