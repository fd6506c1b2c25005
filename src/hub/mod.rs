//! The hub: replicas of the rooms that have a session on this node, and the road from a command to everybody's outbox.
//!
//! ```text
//! session ─ join / submit ─► cell.queue ─► committer: room.decide ─► log.commit ─► absorb: room.apply ─► subscribers
//!         ─ tick / heartbeat / status / signal ─► ephemeral lane ─────────────────────────────────────► subscribers
//!                                                       └─► relay ─► log.publish (when members live on other nodes)
//! log ─ follow ─► absorb (other nodes' commits; our own again, skipped by head), other nodes' relays
//! ```
//!
//! Guarantees:
//! * What a session submits to a room is decided in the order submitted; its reply comes after the events it caused.
//! * ROOM_STATE is the first thing a joiner hears of a room, and every event after that head follows, once, in order.
//! * A command is acknowledged only when the log says that it is durable. When the log can't say, the command is refused
//!   with UNAVAILABLE; what the hub itself must see through (a lost connection, a deadline) is tried until it is in.
//! * One commit a room is in flight; what queues up meanwhile shares the next one.
//!
//! One lock a room (`cell::Cell`), held for moments and never across an await.

mod codec;
mod commit_feed;
mod committer;
pub mod delivery;
mod drift;
mod ephemeral;
mod expiry;
#[cfg(test)]
#[path = "tests/interleavings.rs"]
mod interleavings;
mod join;
mod kept_rooms;
mod lock;
mod member_reports;
mod outage;
mod pin_hasher;
pub mod relay;
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

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::commit::Snapshot;
use crate::domain::{Head, Limits, NodeId, RoomId, RoomTime, SessionRef, UserId};
use crate::log::{Log, LogError};
use crate::panics;
use crate::quota::{Place, Quotas};
use crate::room::{Actor, Ask, Command, Room};
use crate::telemetry::names;
use delivery::Refusal;
pub use join::JoinRequest;
use lock::Mutex;
use outage::Outages;
use pin_hasher::PinHasher;
use room_cell::{Completion, QueuedCommand, RoomCell, RoomCellState};

use timers::Timers;

/// Rooms read again at the same time.
const READS: usize = 64;

/// What the hub is made of.
#[derive(Clone)]
pub struct HubParts {
    /// This node's name.
    pub node: NodeId,
    /// Room time.
    pub clock: Clock,
    /// Limits.
    pub limits: Arc<Limits>,
    /// What clients may use up; `None`: whatever they like (`RATE_LIMITS=off`).
    pub quotas: Option<Arc<dyn Quotas>>,
    /// The sequencer.
    pub log: Arc<dyn Log>,
    /// Where its tasks run.
    pub tracker: TaskTracker,
    /// Ends its tasks.
    pub stop: CancellationToken,
}

/// A handle to the hub; clones share it.
#[derive(Clone)]
pub struct Hub(Arc<HubInner>);

struct HubInner {
    parts: HubParts,
    rooms: Mutex<HashMap<RoomId, Arc<RoomCell>>>,
    timers: Timers,
    hasher: PinHasher,
    kept: Mutex<kept_rooms::KeptRooms>,
    outages: Outages,
    /// So many rooms are read again at a time: a gap in every room must not become thousands of requests at once.
    reads: Semaphore,
    draining: AtomicBool,
    next_session: AtomicU64,
}

/// What a session holds of a room: proof that JOIN succeeded.
#[derive(Clone)]
pub struct Membership {
    cell: Arc<RoomCell>,
    actor: Actor,
    /// Given back with the last copy.
    place: Option<Arc<Place>>,
}

impl Membership {
    /// Which room.
    pub fn room(&self) -> &RoomId {
        self.cell.id()
    }

    /// As whom, over which session.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// The session's place among those of its user and address, where these are counted.
    pub fn place(&self) -> Option<&Arc<Place>> {
        self.place.as_ref()
    }
}

/// How a session leaves a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// LEAVE: gone for good.
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
    /// Members in their grace time whose last session was on this node.
    pub in_grace: usize,
    /// Rooms whose last commit failed, and that the log has not answered for since.
    pub degraded_rooms: usize,
    /// Rooms whose stored state this version can't read.
    pub unreadable_rooms: usize,
    /// Bytes that wait in their outboxes.
    pub waiting_bytes: usize,
}

impl Hub {
    /// Starts the hub's tasks (timers, follower) on `parts.tracker`.
    pub fn start(parts: HubParts) -> Self {
        let hub = Self(Arc::new(HubInner {
            timers: Timers::default(),
            hasher: PinHasher::new(parts.limits.pin_queue),
            kept: Mutex::default(),
            outages: Outages::default(),
            reads: Semaphore::new(READS),
            rooms: Mutex::default(),
            draining: AtomicBool::new(false),
            // A restarted node must not repeat the session ids that its rooms still remember.
            next_session: AtomicU64::new(u64::from(rand::random::<u32>()) << 20),
            parts,
        }));
        let (tracker, stop) = (hub.0.parts.tracker.clone(), hub.0.parts.stop.clone());
        let vital = |task, work: BoxFuture<'static, ()>| {
            let work = stop.clone().run_until_cancelled_owned(work).map(drop);
            tracker.spawn(panics::abort_if_lost(task, stop.clone(), work));
        };
        vital("timers", Box::pin(timers::run(hub.clone())));
        vital("upkeep", Box::pin(sweep::run(hub.clone())));
        vital("follower", Box::pin(commit_feed::run(hub.clone())));
        let steps = stop.clone().run_until_cancelled_owned(timers::follow_steps(hub.clone())).map(drop);
        tracker.spawn(panics::abort_if_panics("steps of room time", steps));
        hub
    }

    /// A name for a new session.
    pub fn new_session(&self) -> SessionRef {
        SessionRef { node: self.node().clone(), id: self.0.next_session.fetch_add(1, Ordering::Relaxed) }
    }

    /// Brings rooms back that outlived the process: their playback runs on, and whoever was connected has the grace
    /// time, from now, to come back.
    pub fn recover(&self, snapshots: Vec<Snapshot>) -> usize {
        let mut recovered = 0;
        for snapshot in snapshots {
            match codec::room(&snapshot) {
                Ok(room) if !room.is_vacant() => {
                    let cell = RoomCell::restored(room);
                    self.0.rooms.lock().insert(cell.id().clone(), Arc::clone(&cell));
                    self.count_kept(&mut cell.lock());
                    let orphans = cell.lock().room.live_sessions();
                    for (user, session) in orphans {
                        self.enqueue(&cell, Command::Disconnect { user, session }, Completion::MustCommit);
                    }
                    let mut state = cell.lock();
                    // Alone at this log: whoever is away was here.
                    state.lost_here = state.room.members().keys().cloned().collect();
                    self.reschedule(&cell, &state);
                    drop(state);
                    recovered += 1;
                }
                Ok(_) => {}
                // One broken room must not keep the others from coming back.
                Err(error) => tracing::error!(roomId = %snapshot.room, %error, "a stored room can't be read; left out"),
            }
        }
        recovered
    }

    /// How far ahead a playback command must lie so that every member here has heard it by then, and its player has had
    /// the time that starting takes: the largest round trip among them and `STARTING`, at most `MAX_LEAD_MS`.
    fn lead_of(&self, cell: &RoomCell) -> Duration {
        /// From `play()` to the first new frame, browsers take 30 to 110 ms (docs/SYNC.md); a start can't be on time with less.
        const STARTING: Duration = Duration::from_millis(150);
        let slowest =
            cell.lock().attached.iter().filter_map(|member| member.subscriber.rtt()).max().unwrap_or_default();
        (slowest + STARTING).min(Duration::from_millis(self.0.parts.limits.max_lead_ms))
    }

    /// How many members hear what is said in the room.
    pub fn audience(&self, membership: &Membership) -> usize {
        membership.cell.lock().room.members().len()
    }

    /// Whether the member is its room's host, as far as this node knows.
    pub fn is_host(&self, membership: &Membership) -> bool {
        membership.cell.lock().room.is_host(&membership.actor.user)
    }

    /// Asks the room for something. The answer goes to the member's subscriber: an ACK when `reference` is given, or
    /// ERROR when refused; events before it.
    pub fn submit(&self, membership: &Membership, ask: Ask, request: &'static str, reference: Option<u64>) {
        let resolve = Completion::Reply { session: membership.actor.session.clone(), request, reference };
        let lead = if ask.is_scheduled() { self.lead_of(&membership.cell) } else { Duration::ZERO };
        self.enqueue(&membership.cell, Command::Asked { by: membership.actor.clone(), lead, ask }, resolve);
    }

    /// The session's part in the room ends.
    pub fn depart(&self, membership: Membership, how: Departure) {
        let Membership { cell, actor, place: _ } = membership;
        // Under one lock with the command: a live member whose session is not here is a breach of an invariant.
        let mut state = cell.lock();
        state.detach(&actor.user, &actor.session);
        let command = match how {
            Departure::Left => Command::Leave { by: actor },
            // A planned stop is no loss: the members come back with their tokens, and nobody saw them go.
            Departure::Lost if self.is_draining() => return,
            Departure::Lost => Command::Disconnect { user: actor.user, session: actor.session },
        };
        self.enqueue_in(&cell, &mut state, command, Completion::MustCommit);
    }

    /// A member whose session is gone without a word.
    fn lose(&self, cell: &Arc<RoomCell>, user: UserId, session: SessionRef) {
        self.lose_in(cell, &mut cell.lock(), user, session);
    }

    fn lose_in(&self, cell: &Arc<RoomCell>, state: &mut RoomCellState, user: UserId, session: SessionRef) {
        // As in `depart`: after a planned stop the members come back with their tokens.
        if !(self.is_draining() && session.node == *self.node()) {
            self.enqueue_in(cell, state, Command::Disconnect { user, session }, Completion::MustCommit);
        }
    }

    /// From now on nobody joins; every member is told to come back after a jittered time.
    pub fn drain(&self, spread: Duration) {
        self.0.draining.store(true, Ordering::Relaxed);
        for cell in self.cells() {
            cell.lock().announce_reconnect(spread, self.now());
        }
    }

    /// Resolves when nothing waits for its commit in any room.
    pub async fn settled(&self) {
        const LOOK_AGAIN: Duration = Duration::from_millis(2);
        let busy = |cell: &Arc<RoomCell>| cell.lock().committing;
        while self.0.rooms.lock().values().any(busy) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether a planned stop has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// A live room: this node's replica, or what the log holds.
    pub async fn peek(&self, room: &RoomId) -> Result<Option<Room>, Refusal> {
        let known = self.find(room).filter(|cell| cell.loaded.initialized());
        let found = match known {
            Some(cell) => Some(cell.lock().room.clone()),
            None => {
                let loaded = self.0.parts.log.load(room).await;
                let snapshot = loaded.map_err(|error| self.unavailable("load", room, &error))?;
                snapshot.as_ref().map(codec::room).transpose().map_err(|_| Refusal::Internal)?
            }
        };
        Ok(found.filter(|room| !room.is_vacant()))
    }

    /// How long a lost connection keeps its membership.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.0.parts.limits.grace_secs)
    }

    /// Counts.
    pub fn status(&self) -> HubStatus {
        let cells = self.cells();
        let mut status = HubStatus { rooms: cells.len(), ..HubStatus::default() };
        for cell in cells {
            let state = cell.lock();
            status.members += state.room.members().len();
            status.attached += state.attached.len();
            status.in_grace += state.in_grace_here();
            // One room that can't be read says nothing of the log.
            status.degraded_rooms += usize::from(state.degraded && !state.unreadable);
            status.unreadable_rooms += usize::from(state.unreadable);
            status.waiting_bytes +=
                state.attached.iter().map(|member| member.subscriber.waiting_bytes()).sum::<usize>();
        }
        status
    }

    /// A copy of a room's replica, for diagnostics and tests.
    pub fn inspect(&self, room: &RoomId) -> Option<Room> {
        self.find(room).map(|cell| cell.lock().room.clone())
    }

    fn node(&self) -> &NodeId {
        &self.0.parts.node
    }

    fn now(&self) -> RoomTime {
        self.0.parts.clock.now()
    }

    fn cells(&self) -> Vec<Arc<RoomCell>> {
        self.0.rooms.lock().values().cloned().collect()
    }

    /// Under the cell's lock: a deadline that is scheduled after it would overwrite a later one.
    fn reschedule(&self, cell: &RoomCell, state: &RoomCellState) {
        // The room's deadlines are those of the cell that took the place of a retired one.
        if !state.retired {
            self.0.timers.schedule(cell.id(), state.room.next_deadline());
        }
    }

    /// The log did not answer: the reason is for the operator.
    fn unavailable(&self, operation: &'static str, room: &RoomId, error: &LogError) -> Refusal {
        self.0.outages.note(operation, room, error);
        Refusal::Unavailable
    }

    fn find(&self, room: &RoomId) -> Option<Arc<RoomCell>> {
        self.0.rooms.lock().get(room).cloned()
    }

    /// The room's cell, made and loaded if need be. Subscribe first, then read: nothing falls between.
    async fn open(&self, room: &RoomId) -> Result<Arc<RoomCell>, Refusal> {
        let mut opening = {
            let mut rooms = self.0.rooms.lock();
            let count = rooms.len() as u64;
            let cell = match rooms.entry(room.clone()) {
                Entry::Occupied(entry) => Arc::clone(entry.get()),
                Entry::Vacant(_) if count >= self.0.parts.limits.rooms => return Err(Refusal::RoomLimit),
                Entry::Vacant(entry) => Arc::clone(entry.insert(RoomCell::empty(room.clone()))),
            };
            Opening::of(self, cell)
        };
        let cell = Arc::clone(&opening.cell);
        let log = &self.0.parts.log;
        cell.loaded
            .get_or_try_init(|| async {
                log.subscribe(room).await.map_err(|error| self.unavailable("subscribe", room, &error))?;
                self.reload(&cell).await
            })
            .await?;
        opening.done = true;
        Ok(cell)
    }

    /// Reads the room from the log again.
    async fn reload(&self, cell: &Arc<RoomCell>) -> Result<(), Refusal> {
        let (asked_at, gaps) = {
            let mut state = cell.lock();
            // What was heard before it is asked for is in the answer, or was over by then.
            state.forget_early();
            (state.room.head(), state.gaps())
        };
        let loaded = self.0.parts.log.load(cell.id()).await;
        let snapshot = loaded.map_err(|error| self.unavailable("load", cell.id(), &error))?;
        let restored = self.write_back(cell, snapshot.as_ref().map(|snapshot| snapshot.head)).await;
        let restored = restored.map_err(|error| self.unavailable("restore", cell.id(), &error))?;
        let snapshot = restored.map_or(snapshot, |WrittenBack(holds)| holds);
        if self.install(cell, snapshot, asked_at)? {
            // What was missed since it was asked for is still missing.
            cell.lock().close_gaps(gaps);
        }
        commit_feed::take_waiting(self, cell);
        Ok(())
    }

    /// Reads a room again in which something was missed. That the log is back, members hear without a commit.
    async fn catch_up(&self, cell: &Arc<RoomCell>) -> Result<(), Refusal> {
        let _turn = self.0.reads.acquire().await.map_err(|_| Refusal::Internal)?;
        self.reload(cell).await?;
        cell.lock().set_degraded(false, self.now());
        Ok(())
    }

    /// A log that knows less of a room than this replica, which only knows what was durable, has lost it (Redis restarted,
    /// or failed over), or the room has ended: the log can tell, and takes the replica or refuses it. Answers the room as
    /// it is then; nothing if the log doesn't know less.
    async fn write_back(&self, cell: &RoomCell, latest: Option<Head>) -> Result<Option<WrittenBack>, LogError> {
        let mine = {
            let room = &cell.lock().room;
            (!room.is_vacant() && room.head() > latest.unwrap_or_default()).then(|| codec::snapshot(room))
        };
        let Some(mine) = mine else { return Ok(None) };
        Ok(Some(WrittenBack(self.0.parts.log.restore(mine).await?)))
    }

    /// The same after a commit that conflicted; answers the head that holds then.
    async fn raise(&self, cell: &RoomCell, latest: Option<Head>) -> Result<Option<Head>, LogError> {
        let written = self.write_back(cell, latest).await?;
        Ok(written.map_or(latest, |WrittenBack(holds)| holds.map(|snapshot| snapshot.head)))
    }

    /// Replaces the replica by what the log holds; local members are told the whole state. An answer that was overtaken
    /// by what the follower brought since it was asked for is older than the replica, and changes nothing. False: the
    /// answer doesn't show whether the replica lacks anything.
    fn install(&self, cell: &Arc<RoomCell>, snapshot: Option<Snapshot>, asked_at: Head) -> Result<bool, Refusal> {
        let mut state = cell.lock();
        // Another cell is the room on this node by now.
        if state.retired {
            return Ok(true);
        }
        let known = state.room.head();
        let room = match snapshot {
            Some(snapshot) if snapshot.head < known => return Ok(true),
            Some(snapshot) => self.read_record(&mut state, &snapshot)?,
            None if known != asked_at => return Ok(false),
            // Ended, or never was: the next epoch may begin from the default head (see `Log::commit`).
            None => Room::vacant(cell.id().clone(), Head::default()),
        };
        let lost = if room == state.room { Vec::new() } else { state.replace(room, self.node(), self.now()) };
        self.count_kept(&mut state);
        self.reschedule(cell, &state);
        drop(state);
        cell.changed.notify_waiters();
        for (user, session) in lost {
            self.lose(cell, user, session);
        }
        Ok(true)
    }

    fn read_record(&self, state: &mut RoomCellState, snapshot: &Snapshot) -> Result<Room, Refusal> {
        let read = codec::room(snapshot);
        let was_unreadable = std::mem::replace(&mut state.unreadable, read.is_err());
        read.map_err(|error| {
            // Said once: it is tried again as long as somebody is here.
            if !was_unreadable {
                tracing::error!(roomId = %snapshot.room, %error, "a stored room can't be read");
            }
            Refusal::Internal
        })
    }

    /// Puts a command into the room's queue and sees that somebody works on it.
    fn enqueue(&self, cell: &Arc<RoomCell>, command: Command, resolve: Completion) {
        self.enqueue_in(cell, &mut cell.lock(), command, resolve);
    }

    fn enqueue_in(&self, cell: &Arc<RoomCell>, state: &mut RoomCellState, command: Command, resolve: Completion) {
        if state.retired {
            // Empty and forgotten, or dropped after a panic: whoever was in it is looked for when it is opened again.
            if let Completion::Join(done) = resolve {
                done.answer(Err(Refusal::Unavailable));
            }
            return;
        }
        let full = state.queue.len() as u64 >= self.0.parts.limits.room_queue;
        // What the hub itself must see through is bounded by the number of members.
        if full && !matches!(resolve, Completion::MustCommit) {
            state.answer(&resolve, Err(Refusal::Overloaded));
            if let Completion::Join(done) = resolve {
                done.answer(Err(Refusal::Overloaded));
            }
            return;
        }
        // What members ask for passes the room's budget; `RATE_LIMITS=off` lifts it with the quotas.
        if let (Completion::Reply { .. }, Command::Asked { ask, .. }) = (&resolve, &command)
            && self.0.parts.quotas.is_some()
            && let Err(retry_after) = state.budget.admit(ask, &self.0.parts.limits)
        {
            metrics::counter!(names::BUDGET_REFUSALS, "budget" => "room").increment(1);
            state.answer(&resolve, Err(Refusal::OverBudget { retry_after }));
            return;
        }
        // Looked up only for somebody who looks.
        let traced = tracing::span_enabled!(tracing::Level::DEBUG);
        let cause = if traced { tracing::Span::current() } else { tracing::Span::none() };
        state.queue.push_back(QueuedCommand { command, resolve, cause });
        self.work_on(cell, state);
    }

    /// Sees that a room is read again, until it was: something was missed, and the log doesn't answer now.
    fn read_later(&self, cell: &Arc<RoomCell>) {
        let mut state = cell.lock();
        if state.retired {
            return;
        }
        state.note_gap();
        self.work_on(cell, &mut state);
    }

    /// Starts the room's task, if it isn't at work.
    fn work_on(&self, cell: &Arc<RoomCell>, state: &mut RoomCellState) {
        if !std::mem::replace(&mut state.committing, true) {
            self.0.parts.tracker.spawn(committer::run(self.clone(), Arc::clone(cell)));
        }
    }

    /// Forgets a cell in which nobody is and for which nothing waits.
    fn retire(&self, cell: &Arc<RoomCell>) {
        let mut rooms = self.0.rooms.lock();
        let same = rooms.get(cell.id()).is_some_and(|known| Arc::ptr_eq(known, cell));
        let mut state = cell.lock();
        if same && state.is_idle() {
            state.retired = true;
            rooms.remove(cell.id());
            // Under the lock of the rooms: a cell that is opened anew subscribes and schedules after this, never before.
            self.0.timers.schedule(cell.id(), None);
            self.0.parts.log.unsubscribe(cell.id());
        }
    }
}

/// A cell is not idle while somebody reads its room: what is read late would be installed beside the cell that took its
/// place.
/// What a log holds of a room after it was given this node's replica.
struct WrittenBack(Option<Snapshot>);

struct Opening<'a> {
    hub: &'a Hub,
    cell: Arc<RoomCell>,
    done: bool,
}

impl<'a> Opening<'a> {
    /// Under the lock of the rooms, as retiring is.
    fn of(hub: &'a Hub, cell: Arc<RoomCell>) -> Self {
        cell.lock().opening += 1;
        Self { hub, cell, done: false }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.cell.lock().opening -= 1;
        // Read in vain, or given up. Who has read it looks after it.
        if !self.done {
            self.hub.retire(&self.cell);
        }
    }
}
