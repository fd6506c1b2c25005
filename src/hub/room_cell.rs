//! One room on this node: its replica, the members with a session here, its viewers ([`audience`]), and what waits to
//! be committed.

mod absorb;
pub(super) mod audience;
mod digest_parts;
mod gathering;
mod tell;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::Instant;

use super::delivery::Refusal;
use super::digest::DigestPart;
use super::drift::HostDrift;
use super::lock::{Mutex, MutexGuard};
use super::member_reports::LastReport;
use super::room_budget::RoomBudget;
use super::subscriber::Subscriber;
use super::v2_pace::V2Pace;
use super::{HubStatus, Membership};
use crate::clock::Clock;
use crate::domain::{
    AddressTag, Dialect, Head, Limits, MemberSlot, NodeId, ResumeToken, RoomId, RoomTime, SessionRef, StatusReport,
    TickReport, TokenHash, UserId,
};
use crate::room::{Ask, Command, Event, Room};
use audience::Audience;

/// Commits kept while the room is read.
const EARLY_COMMITS: usize = 64;

pub(super) struct RoomCell {
    id: RoomId,
    state: Mutex<RoomCellState>,
    /// Set once the replica was read from the log.
    loaded: OnceCell<()>,
    changed: Notify,
    /// Something was queued that must not wait for more joins and leaves.
    hurry: Notify,
    audience: Arc<Audience>,
}

/// Phase of a cell.
///
/// ```text
///            a command, a missed commit          queue empty, nothing missed
///   Idle ────────────────────────────► Working ─────────────────────────────► Idle
///    │                                     │
///    ├── a change of the replica begins ───┤      (ends under the same lock: back to the phase before)
///    ▼                                     ▼
///   Torn ── the change panicked: Hub::drop_broken ──► Retired ◄── Hub::retire, from Idle alone
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CellPhase {
    /// Nothing is queued and nothing was missed: the cell has no task.
    Idle,
    /// The cell's committer task commits, or reads the room again.
    Working,
    /// The replica is half changed. Found under the lock, this shows that the change panicked.
    Torn,
    /// No longer in the hub's map: the room, if it still exists, is another cell's.
    Retired,
}

/// The state of a cell, behind its lock.
pub(super) struct RoomCellState {
    room: Room,
    phase: CellPhase,
    attached: Vec<AttachedMember>,
    /// The cell's own: what the room does is fed to it under this lock.
    audience: Arc<Audience>,
    /// JOINs in flight on this node, by the token that each would be given. Whoever settles a JOIN first takes its
    /// ticket: the event lets the session in; a failure, or the end of the session, gives the JOIN up. Without a ticket
    /// nobody is let in.
    tickets: HashMap<TokenHash, JoinTicket>,
    queue: VecDeque<QueuedCommand>,
    /// How many calls of `Hub::open` wait for the room.
    openers: usize,
    /// How often the outcome of a commit, or a commit of another node, became unknown until the room is read again; and
    /// how many of these times a read has settled.
    reloads_needed: u64,
    reloads_done: u64,
    /// Reads under way, the first one at the opening included.
    reads: u32,
    /// When a commit failed last, unless one has succeeded since. Members were told DEGRADED.
    failed_commit: Option<Instant>,
    /// This version can't read the stored state.
    unreadable: bool,
    /// The address class under which the room is counted as kept ([`Hub::count_kept`](super::Hub::count_kept)).
    kept_place: Option<AddressTag>,
    drift: HostDrift,
    /// Parts of a large room's digest, of other nodes, and when they came.
    parts: BTreeMap<NodeId, (RoomTime, DigestPart)>,
    remote: RemoteMembers,
    /// The part of ROOM_STATE that its receivers share, of a large room, from its first use to the next change.
    encoded_state: std::cell::OnceCell<Bytes>,
    /// When joins and leaves were taken from the queue last.
    moved_at: Option<Instant>,
    /// The committer waits for more joins and leaves.
    gathering: bool,
    budget: RoomBudget,
    /// Commits that arrived before their predecessors: taken in after the room was read.
    early: VecDeque<(Head, Vec<(Head, Event)>)>,
    /// Members whose last session was on this node: this node's status counts them during their grace time.
    lost_here: BTreeSet<UserId>,
}

/// Whether members live on other nodes, by dialect. Cached, because every tick reads it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RemoteMembers {
    pub(super) v2: bool,
    pub(super) v3: bool,
}

impl RemoteMembers {
    fn of(room: &Room, node: &NodeId) -> Self {
        let mut remote = Self::default();
        for member in room.members().values() {
            if member.node().is_some_and(|its| its != node) {
                match member.dialect {
                    Dialect::V2 => remote.v2 = true,
                    Dialect::V3 => remote.v3 = true,
                }
            }
        }
        remote
    }
}

/// A member with a session on this node.
pub(super) struct AttachedMember {
    pub(super) user: UserId,
    pub(super) session: SessionRef,
    pub(super) slot: MemberSlot,
    pub(super) dialect: Dialect,
    /// The token of the JOIN that let it in.
    ticket: TokenHash,
    pub(super) subscriber: Arc<dyn Subscriber>,
    /// Stored for the tables that people read; never committed.
    pub(super) last_report: LastReport,
    /// Its latest status, and when that came.
    pub(super) status: Option<(RoomTime, StatusReport)>,
    /// When its status was last counted and relayed.
    pub(super) status_at: Option<RoomTime>,
    /// When a tick of it was last sent as HOST_HEARTBEAT.
    pub(super) heartbeat_at: Option<RoomTime>,
    /// For a v2 member.
    pub(super) pace: Option<Box<V2Pace>>,
}

impl AttachedMember {
    /// Compares the number first: it is unique among the sessions of a node, and every tick compares.
    fn is_on(&self, session: &SessionRef) -> bool {
        self.session.id == session.id && self.session.node == session.node
    }
}

/// A JOIN in flight.
pub(super) struct JoinTicket {
    pub(super) user: UserId,
    pub(super) session: SessionRef,
    pub(super) subscriber: Arc<dyn Subscriber>,
    pub(super) token: ResumeToken,
    pub(super) last_seen: Option<Head>,
}

pub(super) struct QueuedCommand {
    pub(super) command: Command,
    pub(super) completion: Completion,
    /// The request's span, where traces are recorded: the request lasts until its commit.
    pub(super) cause: tracing::Span,
}

/// The use of a command's outcome.
pub(super) enum Completion {
    /// The member's subscriber gets ACK or ERROR.
    Reply { session: SessionRef, request: &'static str, reference: Option<u64> },
    /// The JOIN that waits gets it.
    Join(JoinReply),
    /// The command is repeated until it is committed: a lost connection, a deadline.
    MustCommit,
    /// The command may fail.
    BestEffort,
}

pub(super) struct JoinReply(pub(super) oneshot::Sender<Result<(), Refusal>>);

impl JoinReply {
    pub(super) fn answer(self, result: Result<(), Refusal>) {
        // The receiver is gone when the session ended: its ticket is gone too, so the event won't let it in.
        let _ = self.0.send(result);
    }
}

/// A committer's next step.
pub(super) enum CellWork {
    Commit(Vec<QueuedCommand>),
    /// Joins and leaves wait for more of them, until then.
    Gather(Instant),
    /// Nothing is queued, but commits may be missing: the room must be read before the cell may be idle.
    Read,
    Nothing,
}

impl RoomCell {
    pub(super) fn empty(id: RoomId) -> Arc<Self> {
        Self::with(Room::vacant(id, Head::default()), OnceCell::new())
    }

    pub(super) fn restored(room: Room) -> Arc<Self> {
        Self::with(room, OnceCell::new_with(Some(())))
    }

    fn with(room: Room, loaded: OnceCell<()>) -> Arc<Self> {
        let audience = Arc::<Audience>::default();
        let state = RoomCellState {
            audience: Arc::clone(&audience),
            phase: CellPhase::Idle,
            attached: Vec::new(),
            tickets: HashMap::new(),
            queue: VecDeque::new(),
            openers: 0,
            reloads_needed: 0,
            reloads_done: 0,
            reads: 0,
            failed_commit: None,
            unreadable: false,
            kept_place: None,
            drift: HostDrift::default(),
            parts: BTreeMap::new(),
            remote: RemoteMembers::default(),
            encoded_state: std::cell::OnceCell::new(),
            moved_at: None,
            gathering: false,
            budget: RoomBudget::default(),
            early: VecDeque::new(),
            lost_here: BTreeSet::new(),
            room,
        };
        let id = state.room.id().clone();
        let (state, changed, hurry) = (Mutex::new(state), Notify::new(), Notify::new());
        Arc::new(Self { id, state, loaded, changed, hurry, audience })
    }

    pub(super) fn id(&self) -> &RoomId {
        &self.id
    }

    pub(super) fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RoomCellState> {
        self.state.lock()
    }

    /// Runs `load` unless the replica was read before; concurrent callers share one attempt at a time.
    pub(super) async fn load_once(&self, load: impl Future<Output = Result<(), Refusal>>) -> Result<(), Refusal> {
        self.loaded.get_or_try_init(|| load).await.copied()
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.loaded.initialized()
    }

    /// Resolves after the next change of the replica. Created before the state is looked at, it misses none.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Resolves when the committer must not go on gathering.
    pub(super) fn hurried(&self) -> Notified<'_> {
        self.hurry.notified()
    }

    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    pub(super) fn notify_changed(&self) {
        self.changed.notify_waiters();
    }
}

/// The phase.
impl RoomCellState {
    /// Whether the cell may be removed from the hub's map.
    pub(super) fn is_idle(&self) -> bool {
        let waited_for = !self.queue.is_empty() || !self.tickets.is_empty() || self.openers > 0;
        self.phase == CellPhase::Idle && self.room.is_vacant() && !waited_for
    }

    pub(super) fn is_working(&self) -> bool {
        self.phase == CellPhase::Working
    }

    pub(super) fn is_retired(&self) -> bool {
        self.phase == CellPhase::Retired
    }

    /// True: the caller must start the committer.
    pub(super) fn begin_work(&mut self) -> bool {
        let begins = self.phase == CellPhase::Idle;
        if begins {
            self.phase = CellPhase::Working;
        }
        begins
    }

    pub(super) fn end_work(&mut self) {
        if self.phase == CellPhase::Working {
            self.phase = CellPhase::Idle;
        }
    }

    pub(super) fn retire(&mut self) {
        self.phase = CellPhase::Retired;
    }

    /// Retires a cell whose room panicked and empties it. `None`: it is retired already.
    pub(super) fn dismantle(&mut self) -> Option<(Vec<AttachedMember>, VecDeque<QueuedCommand>)> {
        if self.is_retired() {
            return None;
        }
        self.retire();
        self.tickets.clear();
        // The rest of the replica is invalid, and must be counted nowhere.
        self.room = Room::vacant(self.room.id().clone(), Head::default());
        Some((std::mem::take(&mut self.attached), std::mem::take(&mut self.queue)))
    }

    pub(super) fn add_opener(&mut self) {
        self.openers += 1;
    }

    pub(super) fn remove_opener(&mut self) {
        self.openers -= 1;
    }

    /// Commits may be missing: the room must be read again.
    pub(super) fn note_gap(&mut self) {
        self.reloads_needed += 1;
    }

    pub(super) fn needs_reload(&self) -> bool {
        self.reloads_needed > self.reloads_done
    }

    pub(super) fn begin_read(&mut self) {
        self.reads += 1;
    }

    pub(super) fn end_read(&mut self) {
        self.reads -= 1;
    }

    /// Commits that don't follow are kept for the end of the read.
    pub(super) fn is_being_read(&self) -> bool {
        self.reads > 0
    }

    /// The gaps that a read from now on will settle, for [`RoomCellState::reloaded`]. Commits that were kept so far are
    /// in its answer, or are over by then.
    pub(super) fn mark_read(&mut self) -> (Head, u64) {
        self.early.clear();
        (self.room.head(), self.reloads_needed)
    }

    /// A gap that was noted after the read had begun stays open.
    pub(super) fn reloaded(&mut self, settled: u64) {
        self.reloads_done = self.reloads_done.max(settled);
    }

    /// Keeps a commit whose predecessors are missing. Of too many only the last one is kept: it shows the gap.
    pub(super) fn keep_early(&mut self, expected: Head, events: Vec<(Head, Event)>) {
        if self.early.len() >= EARLY_COMMITS {
            self.early.clear();
        }
        self.early.push_back((expected, events));
    }

    /// The next kept commit that the replica doesn't hold yet.
    pub(super) fn take_early(&mut self) -> Option<(Head, Vec<(Head, Event)>)> {
        let known = self.room.head();
        loop {
            let (expected, events) = self.early.pop_front()?;
            if events.last().is_some_and(|(head, _)| *head > known) {
                return Some((expected, events));
            }
        }
    }

    pub(super) fn put_back_early(&mut self, expected: Head, events: Vec<(Head, Event)>) {
        self.early.push_front((expected, events));
    }

    /// Degraded, with no commit under way and none that failed within `time`.
    pub(super) fn may_have_recovered(&self, time: Duration) -> bool {
        self.phase == CellPhase::Idle && self.failed_commit.is_some_and(|at| Clock::instant() >= at + time)
    }

    /// Records whether the stored state can be read. True: it is unreadable for the first time.
    pub(super) fn note_readable(&mut self, readable: bool) -> bool {
        !std::mem::replace(&mut self.unreadable, !readable) && !readable
    }
}

/// The queue.
impl RoomCellState {
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn has_queued_deadline(&self) -> bool {
        self.queue.iter().any(|queued| matches!(queued.command, Command::Deadline { .. }))
    }

    pub(super) fn push(&mut self, queued: QueuedCommand) {
        self.queue.push_back(queued);
    }

    pub(super) fn push_front(&mut self, queued: QueuedCommand) {
        self.queue.push_front(queued);
    }

    /// Charges the room's byte budget, or returns how long to wait.
    pub(super) fn charge(&mut self, ask: &Ask, limits: &Limits) -> Result<(), Duration> {
        self.budget.admit(ask, limits)
    }
}

/// The replica and the members.
impl RoomCellState {
    pub(super) fn room(&self) -> &Room {
        &self.room
    }

    /// The replica, as a base for decisions.
    ///
    /// # Panics
    /// When a change of it panicked half-way: nothing may be decided, or committed, on what is left.
    pub(super) fn whole_room(&self) -> &Room {
        assert!(self.phase != CellPhase::Torn, "the replica is half changed");
        &self.room
    }

    pub(super) fn members_here(&self) -> &[AttachedMember] {
        &self.attached
    }

    pub(super) fn members_here_mut(&mut self) -> &mut [AttachedMember] {
        &mut self.attached
    }

    pub(super) fn audience(&self) -> &Arc<Audience> {
        &self.audience
    }

    /// The room's host, if its session is on this node.
    pub(super) fn host_here(&self) -> Option<&AttachedMember> {
        self.attached.iter().find(|member| self.room.is_host(&member.user))
    }

    pub(super) fn remote_members(&self) -> RemoteMembers {
        self.remote
    }

    /// Whether the host's player has left the playback vector for good.
    pub(super) fn host_drifted(&mut self, report: &TickReport) -> bool {
        self.drift.feed(report, &self.room.playback)
    }

    pub(super) fn attached(&self, session: &SessionRef) -> Option<&AttachedMember> {
        self.attached.iter().find(|member| member.is_on(session))
    }

    pub(super) fn attached_mut(&mut self, membership: &Membership) -> Option<&mut AttachedMember> {
        let session = &membership.actor().session;
        self.attached.iter_mut().find(|member| member.is_on(session))
    }

    /// Detaches the session if it still is this member: a JOIN over it may have made it another one.
    pub(super) fn detach(&mut self, user: &UserId, session: &SessionRef) -> Option<AttachedMember> {
        self.detach_where(|member| member.is_on(session) && member.user == *user)
    }

    fn detach_where(&mut self, is_it: impl FnMut(&AttachedMember) -> bool) -> Option<AttachedMember> {
        let index = self.attached.iter().position(is_it)?;
        // The order of the members here means nothing.
        Some(self.attached.swap_remove(index))
    }

    pub(super) fn is_attached(&self, user: &UserId, session: &SessionRef) -> bool {
        self.attached(session).is_some_and(|member| member.user == *user)
    }

    /// Whether this node knows the session of a live member: it is attached, or its JOIN is in flight.
    pub(super) fn knows(&self, user: &UserId, session: &SessionRef) -> bool {
        self.is_attached(user, session) || self.tickets.values().any(|ticket| ticket.session == *session)
    }

    pub(super) fn issue(&mut self, ticket: JoinTicket) {
        self.tickets.insert(ticket.token.hash(), ticket);
    }

    /// Whether the JOIN with this token is in flight.
    pub(super) fn has_ticket(&self, token: &TokenHash) -> bool {
        self.tickets.contains_key(token)
    }

    /// Settles the JOIN with this token: the caller decides its fate. `None`: it was settled before.
    pub(super) fn take_ticket(&mut self, token: &TokenHash) -> Option<JoinTicket> {
        self.tickets.remove(token)
    }

    /// Gives the JOINs of a session up that it has not asked for itself: its invitations.
    pub(super) fn give_up_session(&mut self, session: &SessionRef) {
        self.tickets.retain(|_, ticket| ticket.session != *session);
    }

    /// Gives the JOIN with this token up. True: it had let a session in, which is detached now.
    pub(super) fn give_up(&mut self, token: &TokenHash) -> bool {
        self.take_ticket(token).is_none() && self.detach_where(|member| member.ticket == *token).is_some()
    }

    /// The 95th percentile of the round trips of the members here; of two or three members the longest one.
    pub(super) fn usual_rtt(&self) -> Duration {
        let mut round_trips: Vec<_> = self.attached.iter().filter_map(|member| member.subscriber.rtt()).collect();
        let last = round_trips.len().saturating_sub(1);
        let place = if last < 3 { last } else { last * 95 / 100 };
        round_trips.sort_unstable();
        round_trips.get(place).copied().unwrap_or_default()
    }

    /// After a restart of the only node: all members that are away were connected to it.
    pub(super) fn count_all_as_lost_here(&mut self) {
        self.lost_here = self.room.members().keys().cloned().collect();
    }

    pub(super) fn kept_place(&self) -> Option<AddressTag> {
        self.kept_place
    }

    pub(super) fn set_kept_place(&mut self, place: Option<AddressTag>) -> Option<AddressTag> {
        std::mem::replace(&mut self.kept_place, place)
    }

    pub(super) fn add_to(&self, status: &mut HubStatus) {
        let in_grace = |user: &&UserId| self.room.member(user).is_some_and(|member| !member.is_live());
        status.members += self.room.members().len();
        status.attached += self.attached.len();
        status.audience += self.audience.here();
        status.in_grace += self.lost_here.iter().filter(in_grace).count();
        // One room that can't be read says nothing of the log.
        status.degraded_rooms += usize::from(self.failed_commit.is_some() && !self.unreadable);
        status.unreadable_rooms += usize::from(self.unreadable);
        status.waiting_bytes += self.attached.iter().map(|member| member.subscriber.waiting_bytes()).sum::<usize>();
        status.waiting_bytes += self.audience.waiting_bytes();
    }

    /// Forgets a session as a fault of the hub would: no command says so.
    #[cfg(test)]
    pub(super) fn forget_session_of(&mut self, user: &UserId) {
        self.attached.retain(|member| member.user != *user);
    }
}
