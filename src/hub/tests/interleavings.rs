//! Committer, follower, timers and a read of the room, in the orders that shuttle chooses: each lock of the hub is a
//! point at which another of them may go on ([`super::lock`]). Shuttle's threads stand in for tokio's tasks, which
//! never run here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, pending};
use shuttle::scheduler::RandomScheduler;

use super::lock::Mutex;
use super::room_cell::{Completion, RoomCell};
use super::testing::{Fixture, Silent, room};
use super::{Hub, HubParts, codec, commit_feed, committer, timers};
use crate::commit::{Commit, Entry, Snapshot};
use crate::domain::{Dialect, Head, NodeId, ResumeToken, RoomId, SessionRef, TransportKind, UserId};
use crate::log::{Followed, Log, LogError, Outcome};
use crate::room::{Command, Event, Origin, Room};

/// A log that answers at once. A thread of the test follows it.
struct InstantLog(Mutex<Stored>);

struct Stored {
    room: Room,
    deliveries: VecDeque<(Head, Arc<[Entry]>)>,
}

impl InstantLog {
    fn append(&self, expected: Head, entries: Arc<[Entry]>) {
        let mut stored = self.0.lock();
        assert_eq!(stored.room.head(), expected, "no conflict: its pause would need tokio's timer");
        for entry in entries.iter() {
            stored.room.apply(&codec::event(entry).unwrap());
        }
        stored.deliveries.push_back((expected, entries));
    }

    /// Commits an event of another node.
    fn append_event(&self, event: Event) {
        let before = self.0.lock().room.clone();
        let mut after = before.clone();
        after.apply(&event);
        let commit = codec::commit(&before, &after, &[(after.head(), event)], Default::default());
        self.append(commit.expected, commit.entries);
    }
}

impl Log for InstantLog {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        Box::pin(async move {
            self.append(commit.expected, commit.entries);
            Ok(Outcome::Committed)
        })
    }

    fn load<'a>(&'a self, _: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move { Ok(Some(codec::snapshot(&self.0.lock().room))) })
    }

    fn subscribe<'a>(&'a self, _: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        Box::pin(async { Ok(()) })
    }

    fn unsubscribe(&self, _: &RoomId) {}

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(pending())
    }

    fn publish(&self, _: &RoomId, _: Option<&NodeId>, _: Bytes) {}
}

/// A node with one room, on a log that has the same.
struct OneRoom {
    hub: Hub,
    cell: Arc<RoomCell>,
    log: Arc<InstantLog>,
    /// Threads that have finished.
    finished: AtomicUsize,
}

impl OneRoom {
    fn new(parts: &HubParts, room: &Room) -> Arc<Self> {
        let log = Arc::new(InstantLog(Mutex::new(Stored { room: room.clone(), deliveries: VecDeque::new() })));
        let hub = Hub::start(HubParts { log: log.clone(), ..parts.clone() });
        let cell = RoomCell::restored(room.clone());
        hub.0.rooms.lock().insert(room.id().clone(), Arc::clone(&cell));
        Arc::new(Self { hub, cell, log, finished: AtomicUsize::new(0) })
    }

    /// Runs the room's committer whenever the hub has started one, until `others` threads have finished.
    fn commit_until_finished(&self, others: usize) {
        loop {
            let finished = self.finished.load(Ordering::SeqCst) == others;
            let started = self.cell.lock().is_working();
            match (started, finished) {
                (true, _) => shuttle::future::block_on(committer::run(self.hub.clone(), Arc::clone(&self.cell))),
                (false, true) => return,
                (false, false) => {}
            }
        }
    }

    fn take_deliveries(&self, mut count: usize) {
        while count > 0 {
            let next = self.log.0.lock().deliveries.pop_front();
            if let Some((expected, entries)) = next {
                commit_feed::take(&self.hub, &self.cell, expected, &entries);
                count -= 1;
            }
        }
    }

    /// Asserts what must hold when no thread is running.
    fn check(&self) {
        let state = self.cell.lock();
        assert!(*state.room() == self.log.0.lock().room, "the replica is not the log's room");
        assert!(state.queued() == 0 && !state.needs_reload(), "something waits, and nobody works on it");
        assert_eq!(self.hub.0.timers.of(self.cell.id()), state.room().next_deadline(), "the room's deadline is lost");
    }
}

/// Another node commits twice, while a deadline fires early and the room is read again; after a commit of this node, or
/// without one.
fn one_order(parts: &HubParts, start: &Room, bob: &UserId, commits: bool) {
    let world = OneRoom::new(parts, start);
    let now = world.hub.now();
    // A deadline of an earlier state: its command finds nothing due, and the room's own deadline is set again.
    world.hub.0.timers.schedule(world.cell.id(), Some(now));
    let next = Head { seq: start.head().seq + u64::from(commits), ..start.head() };
    if commits {
        let session = start.live_sessions().into_iter().find(|(user, _)| user == bob).unwrap().1;
        world.hub.enqueue(&world.cell, Command::Disconnect { user: bob.clone(), session }, Completion::MustCommit);
    }
    let spawn = |work: Box<dyn FnOnce(&OneRoom) + Send>| {
        let world = Arc::clone(&world);
        shuttle::thread::spawn(move || {
            work(&world);
            world.finished.fetch_add(1, Ordering::SeqCst);
        })
    };
    let bob = bob.clone();
    let others = [
        spawn(Box::new(|world| _ = timers::fire(&world.hub))),
        spawn(Box::new(|world| world.hub.read_later(&world.cell))),
        spawn(Box::new(move |world| world.take_deliveries(2 + usize::from(commits)))),
        spawn(Box::new(move |world| {
            while world.log.0.lock().room.head() != next {}
            world.log.append_event(back(&bob));
            world.log.append_event(lost(&bob, now + Duration::from_secs(600)));
        })),
    ];
    world.commit_until_finished(others.len());
    others.into_iter().for_each(|thread| thread.join().unwrap());
    world.check();
}

fn back(user: &UserId) -> Event {
    Event::Resumed {
        at: Default::default(),
        user: user.clone(),
        session: SessionRef { node: NodeId::parse("node-2").unwrap(), id: 1 },
        dialect: Dialect::V3,
        transport: TransportKind::WebSocket,
        token: ResumeToken::presented("token").hash(),
        proved: None,
        origin: Origin::default(),
        moved: false,
    }
}

fn lost(user: &UserId, until: crate::domain::RoomTime) -> Event {
    Event::Disconnected { at: Default::default(), user: user.clone(), until }
}

/// Fails when `committer::absorb`, `committer::commit_batch` (a batch without events) or `Hub::install` schedules the
/// deadline after it has released the cell's lock: the deadline of an earlier state then overwrites that of a later
/// one.
#[test]
fn a_deadline_survives_every_order_of_committer_follower_timers_and_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (parts, start, bob) = runtime.block_on(async {
        let fixture = Fixture::new();
        let ann = fixture.join("ann", Arc::new(Silent)).await.actor().user.clone();
        let bob = fixture.join("bob", Arc::new(Silent)).await.actor().user.clone();
        fixture.hub.settled().await;
        let mut start = fixture.hub.inspect(&room()).unwrap();
        // The room must not end, and its other member has no session here.
        start.apply(&back(&ann));
        (fixture.hub.0.parts.clone(), start, bob)
    });
    let _entered = runtime.enter();
    for commits in [true, false] {
        let (parts, start, bob) = (parts.clone(), start.clone(), bob.clone());
        let mut config = shuttle::Config::new();
        config.stack_size = 1 << 20;
        let scheduler = RandomScheduler::new_from_seed(11, 600);
        shuttle::Runner::new(scheduler, config).run(move || one_order(&parts, &start, &bob, commits));
    }
}
