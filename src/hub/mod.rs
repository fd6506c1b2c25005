//! The hub: replicas of the rooms that have a session on this node, and the road from a command to every member's
//! outbox.
//!
//! ```text
//! session ─ join / submit ─► queue ─► committer: room.decide ─► log.commit ─► absorb: room.apply ─► subscribers
//!         ─ tick / heartbeat / status / signal ─► ephemeral lane ─────────────────────────────────► subscribers
//!                                                       └─► relay ─► log.publish (when members live on other nodes)
//! statuses of a large room ─► digest, once a second ────────────────────────────────────────────► subscribers
//! log ─ follow ─► commit feed: absorb (commits of all nodes; known ones are skipped by head)
//!                     └─► ephemeral feed: relays of other nodes ──────────────────────────────────► subscribers
//! ```
//!
//! Guarantees:
//! * The commands of one session to a room are decided in the order submitted; a reply follows the events it caused.
//! * ROOM_STATE is the first message of a membership; every event after its head follows, once, in order.
//! * A command is acknowledged only when the log says that it is durable. When the log can't say, the command is
//!   refused with UNAVAILABLE. The hub's own commands (a lost connection, a deadline) are repeated until they are
//!   committed.
//! * One commit a room is in flight; commands that arrive meanwhile share the next one.
//!
//! Each room has one lock ([`room_cell::RoomCell`]), held for moments and never across an await.

mod codec;
mod commit_feed;
mod committer;
pub mod delivery;
pub mod digest;
mod drift;
mod ephemeral;
mod ephemeral_feed;
mod expiry;
#[cfg(test)]
#[path = "tests/interleavings.rs"]
mod interleavings;
mod join;
mod kept_rooms;
mod large_rooms;
mod lock;
mod member_reports;
mod pin_hasher;
mod queue;
pub mod relay;
mod replica;
mod room_budget;
mod room_cell;
mod room_panic;
#[cfg(test)]
#[path = "tests/stress.rs"]
mod stress;
pub mod subscriber;
mod sweep;
#[cfg(test)]
#[path = "tests/fixture.rs"]
mod testing;
mod timers;
mod v2_pace;
mod viewers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::domain::{Limits, NodeId, RoomId, RoomTime, SessionRef};
use crate::log::Log;
use crate::panics;
use crate::quota::{QuotaPlace, Quotas};
use crate::room::{Actor, Ask, Command, Room};
use crate::telemetry::Seldom;
use ephemeral_feed::EphemeralFeed;
pub use join::JoinRequest;
use large_rooms::LargeRooms;
use lock::Mutex;
use pin_hasher::PinHasher;
use room_cell::audience::ViewerSeat;
pub use room_cell::audience::{AudiencePart, RaisedHand};
use room_cell::{Completion, RoomCell};
use timers::Timers;

/// Rooms that are read again at the same time after a gap: a gap in every room must not become thousands of requests at
/// once. Reads for which a client waits take no permit (an opening, a commit that failed or missed others): the
/// requests of clients bound these, and behind the reads after a gap they would wait longest while the log answers
/// slowly.
const CONCURRENT_RELOADS: usize = 64;

/// The hub's dependencies.
#[derive(Clone)]
pub struct HubParts {
    /// This node's name.
    pub node: NodeId,
    /// Room time.
    pub clock: Clock,
    /// Sizes and bounds.
    pub limits: Arc<Limits>,
    /// Counts of JOINs, PINs and sessions; `None` with `RATE_LIMITS=off`.
    pub quotas: Option<Arc<dyn Quotas>>,
    /// The sequencer.
    pub log: Arc<dyn Log>,
    /// Runs the hub's tasks.
    pub tracker: TaskTracker,
    /// Ends the hub's tasks.
    pub stop: CancellationToken,
}

/// A handle to the hub; clones share it.
#[derive(Clone)]
pub struct Hub(Arc<HubInner>);

struct HubInner {
    parts: HubParts,
    rooms: Mutex<HashMap<RoomId, Arc<RoomCell>>>,
    timers: Timers,
    large_rooms: LargeRooms,
    pin_hasher: PinHasher,
    kept: Mutex<kept_rooms::KeptRooms>,
    ephemeral: EphemeralFeed,
    log_outage: Seldom,
    reloads: Semaphore,
    draining: AtomicBool,
    next_session: AtomicU64,
}

/// A session's proof that its JOIN succeeded.
#[derive(Clone)]
pub struct Membership {
    cell: Arc<RoomCell>,
    actor: Actor,
    place: Option<Arc<QuotaPlace>>,
    /// Its seat in the audience, if its JOIN took one.
    viewer: Option<Arc<ViewerSeat>>,
}

impl Membership {
    /// The room.
    pub fn room(&self) -> &RoomId {
        self.cell.id()
    }

    /// The member and its session.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// Whether the session is in the room's audience. It may become a member at any moment, and no viewer after that.
    pub fn is_viewer(&self) -> bool {
        self.viewer.as_ref().is_some_and(|seat| seat.is_taken())
    }

    /// The session's place in the quotas of its user and address, where they are counted. Freed with its last copy.
    pub fn place(&self) -> Option<&Arc<QuotaPlace>> {
        self.place.as_ref()
    }
}

/// How a session leaves a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// LEAVE: the membership ends.
    Left,
    /// The connection ended: the grace time begins.
    Lost,
}

/// Counts for diagnostics.
#[derive(Debug, Clone, Copy, Default)]
pub struct HubStatus {
    /// Rooms with a replica here.
    pub rooms: usize,
    /// Members of these rooms.
    pub members: usize,
    /// Members with a session on this node.
    pub attached: usize,
    /// Viewers with a session on this node.
    pub audience: usize,
    /// Members in their grace time whose last session was on this node.
    pub in_grace: usize,
    /// Rooms whose last commit failed, and for which the log has not answered since.
    pub degraded_rooms: usize,
    /// Rooms whose stored state this version can't read.
    pub unreadable_rooms: usize,
    /// Bytes in the outboxes.
    pub waiting_bytes: usize,
}

impl Hub {
    /// Starts the hub's tasks (timers, sweep, digests, both feeds, steps of room time) on `parts.tracker`.
    pub fn start(parts: HubParts) -> Self {
        let (ephemeral, queues) = EphemeralFeed::new();
        let hub = Self(Arc::new(HubInner {
            ephemeral,
            timers: Timers::default(),
            large_rooms: LargeRooms::default(),
            pin_hasher: PinHasher::new(parts.limits.pin_queue),
            kept: Mutex::default(),
            log_outage: Seldom::new(),
            reloads: Semaphore::new(CONCURRENT_RELOADS),
            rooms: Mutex::default(),
            draining: AtomicBool::new(false),
            // A restarted node must not repeat the session ids that its rooms still hold.
            next_session: AtomicU64::new(u64::from(rand::random::<u32>()) << 20),
            parts,
        }));
        let (tracker, stop) = (hub.0.parts.tracker.clone(), hub.0.parts.stop.clone());
        panics::spawn_or_abort(&tracker, "timers", &stop, timers::run(hub.clone()));
        panics::spawn_or_abort(&tracker, "sweep", &stop, sweep::run(hub.clone()));
        panics::spawn_or_abort(&tracker, "digests", &stop, large_rooms::run(hub.clone()));
        panics::spawn_or_abort(&tracker, "audience", &stop, viewers::run(hub.clone()));
        panics::spawn_or_abort(&tracker, "commit feed", &stop, commit_feed::run(hub.clone()));
        ephemeral_feed::start(&hub, queues);
        let steps = stop.clone().run_until_cancelled_owned(timers::follow_steps(hub.clone())).map(drop);
        tracker.spawn(panics::abort_if_panics("steps of room time", steps));
        hub
    }

    /// A new session's id, unique in the cluster.
    pub fn new_session(&self) -> SessionRef {
        SessionRef { node: self.node().clone(), id: self.0.next_session.fetch_add(1, Ordering::Relaxed) }
    }

    /// Submits a member's request to its room. The answer goes to the member's subscriber, after the events: an ACK if
    /// there is a `reference`, or ERROR.
    pub fn submit(&self, membership: &Membership, ask: Ask, request: &'static str, reference: Option<u64>) {
        if self.is_echo(membership, &ask) {
            return;
        }
        let completion = Completion::Reply { session: membership.actor.session.clone(), request, reference };
        let ask = self.known_to_room(&membership.cell, ask);
        let lead = if ask.is_scheduled() { self.lead_of(&membership.cell) } else { Duration::ZERO };
        self.enqueue(&membership.cell, Command::Asked { by: membership.actor.clone(), lead, ask }, completion);
    }

    /// Ends a session's membership, or begins its grace time.
    pub fn depart(&self, membership: Membership, how: Departure) {
        let Membership { cell, actor, viewer, .. } = membership;
        let mut state = cell.lock();
        if viewer.is_some_and(|seat| seat.is_taken()) {
            cell.audience().leave(&actor.session);
            // An invitation may be under way: its JOIN lets nobody in now.
            state.give_up_session(&actor.session);
            return;
        }
        // Under one lock with the command: the sweep takes a live member without an attached session for a breach.
        state.detach(&actor.user, &actor.session);
        let command = match how {
            Departure::Left => Command::Leave { by: actor },
            // After a planned stop the members come back with their tokens; the others are told nothing.
            Departure::Lost if self.is_draining() => return,
            Departure::Lost => Command::Disconnect { user: actor.user, session: actor.session },
        };
        self.enqueue_in(&cell, &mut state, command, Completion::MustCommit);
    }

    /// Begins a planned stop: refuses JOINs, and tells every member to come back within `spread`.
    pub fn drain(&self, spread: Duration) {
        self.0.draining.store(true, Ordering::Relaxed);
        for cell in self.cells() {
            cell.lock().announce_reconnect(spread, self.now());
        }
    }

    /// Whether a planned stop has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Resolves when no room has a commit or a read under way, or a command queued.
    pub async fn settled(&self) {
        const POLL: Duration = Duration::from_millis(2);
        while self.cells().iter().any(|cell| cell.lock().is_working()) {
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many members the room has.
    pub fn members(&self, membership: &Membership) -> usize {
        membership.cell.lock().room().members().len()
    }

    /// How many members and viewers hear what a member says to all.
    pub fn hearers(&self, membership: &Membership) -> usize {
        self.members(membership) + membership.cell.audience().total() as usize
    }

    /// Whether the member is its room's host, by this node's replica.
    pub fn is_host(&self, membership: &Membership) -> bool {
        membership.cell.lock().room().is_host(&membership.actor.user)
    }

    /// How long a lost connection keeps its membership.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.0.parts.limits.grace_secs)
    }

    /// Counts over all rooms of this node.
    pub fn status(&self) -> HubStatus {
        let cells = self.cells();
        let mut status = HubStatus { rooms: cells.len(), ..HubStatus::default() };
        for cell in cells {
            cell.lock().add_to(&mut status);
        }
        status
    }

    /// A copy of a room's replica, for diagnostics and tests.
    pub fn inspect(&self, room: &RoomId) -> Option<Room> {
        self.find(room).map(|cell| cell.lock().room().clone())
    }

    fn node(&self) -> &NodeId {
        &self.0.parts.node
    }

    fn now(&self) -> RoomTime {
        self.0.parts.clock.now()
    }

    fn find(&self, room: &RoomId) -> Option<Arc<RoomCell>> {
        self.0.rooms.lock().get(room).cloned()
    }

    fn cells(&self) -> Vec<Arc<RoomCell>> {
        self.0.rooms.lock().values().cloned().collect()
    }

    /// The cells by room id: where the order shows outside, a simulation must repeat itself.
    fn cells_in_order(&self) -> Vec<Arc<RoomCell>> {
        let mut cells = self.cells();
        cells.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        cells
    }
}
