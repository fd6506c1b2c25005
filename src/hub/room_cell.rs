//! One room on this node: its replica, the subscribers of its local members, and what waits to be committed.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{Notify, OnceCell, oneshot};
use tokio::time::Instant;

use super::Membership;
use super::delivery::{EventDelivery, Joined, Notice, NoticeBody, Refusal, Reply};
use super::drift::HostDrift;
use super::lock::{Mutex, MutexGuard};
use super::member_reports::LastReport;
use super::room_budget::RoomBudget;
use super::subscriber::Subscriber;
use crate::clock::Clock;
use crate::domain::{
    AddressTag, CloseCode, Dialect, Head, MemberSlot, NodeId, ResumeToken, RoomId, RoomTime, SessionRef, TokenHash,
    UserId,
};
use crate::room::{Command, Event, LeaveReason, Member, MemberConnection, Room};
use crate::telemetry::{HotCounter, names};

static RESYNCS: HotCounter = HotCounter::new(names::RESYNCS, &[]);
static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "event")]);

/// Commits kept while the room is read.
const EARLY_COMMITS: usize = 64;

pub(super) struct RoomCell {
    id: RoomId,
    state: Mutex<RoomCellState>,
    /// Set once the replica was read from the log.
    pub(super) loaded: OnceCell<()>,
    /// Told after every change of the membership: a prober waits on it.
    pub(super) changed: Notify,
}

pub(super) struct RoomCellState {
    pub(super) room: Room,
    pub(super) attached: Vec<AttachedMember>,
    /// JOINs in flight on this node, by the token that each would be given. Whoever settles one first takes its ticket: the
    /// event lets the session in, a failure or the end of its session gives it up. Without a ticket nobody is let in.
    tickets: HashMap<TokenHash, JoinTicket>,
    pub(super) queue: VecDeque<QueuedCommand>,
    /// A committer task is at work.
    pub(super) committing: bool,
    /// How many wait for the room to be read.
    pub(super) opening: usize,
    /// How often what became of a commit, or what others have committed, was not known until the room was read again; and
    /// up to which of these it was.
    gaps: u64,
    gaps_closed: u64,
    /// The last commit failed; members were told.
    pub(super) degraded: bool,
    /// When a commit last failed.
    pub(super) failed_at: Option<Instant>,
    /// The stored state can't be read by this version.
    pub(super) unreadable: bool,
    /// No longer in the hub's map: open it anew.
    pub(super) retired: bool,
    /// As whose room that waits it is counted ([`Hub::count_kept`](super::Hub::count_kept)).
    pub(super) counted_as_kept: Option<AddressTag>,
    /// A change of the replica has begun and not ended: seen under the lock, it panicked in between.
    torn: bool,
    pub(super) drift: HostDrift,
    pub(super) remote_members: RemoteMembers,
    pub(super) budget: RoomBudget,
    /// Commits heard while something before them was missing: taken in once the room was read.
    early: VecDeque<(Head, Vec<(Head, Event)>)>,
    /// Members whose last session was on this node: in their grace time they are counted here.
    pub(super) lost_here: BTreeSet<UserId>,
}

/// Whether members live on other nodes, by dialect. Kept, because every tick asks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RemoteMembers {
    pub(super) v2: bool,
    pub(super) v3: bool,
}

impl RemoteMembers {
    fn of(room: &Room, node: &NodeId) -> Self {
        let mut remote_members = Self::default();
        for member in room.members().values() {
            if matches!(&member.connection, MemberConnection::Live(session) if session.node != *node) {
                match member.dialect {
                    Dialect::V2 => remote_members.v2 = true,
                    Dialect::V3 => remote_members.v3 = true,
                }
            }
        }
        remote_members
    }
}

/// A member with a session on this node.
pub(super) struct AttachedMember {
    pub(super) user: UserId,
    pub(super) session: SessionRef,
    pub(super) slot: MemberSlot,
    pub(super) dialect: Dialect,
    /// The JOIN that let it in.
    ticket: TokenHash,
    pub(super) subscriber: Arc<dyn Subscriber>,
    /// For the tables that people read; never committed.
    pub(super) last_report: LastReport,
    /// When a MEMBER_STATUS of it was last relayed.
    pub(super) status_at: Option<RoomTime>,
    /// When a HOST_HEARTBEAT was last made of its ticks.
    pub(super) heartbeat_at: Option<RoomTime>,
}

impl AttachedMember {
    /// The number first: it alone tells all of a node's sessions apart, and every tick asks.
    fn is_on(&self, session: &SessionRef) -> bool {
        self.session.id == session.id && self.session.node == session.node
    }
}

/// A JOIN that waits for its event.
pub(super) struct JoinTicket {
    pub(super) user: UserId,
    pub(super) session: SessionRef,
    pub(super) subscriber: Arc<dyn Subscriber>,
    pub(super) token: ResumeToken,
    pub(super) last_seen: Option<Head>,
}

pub(super) struct QueuedCommand {
    pub(super) command: Command,
    pub(super) resolve: Completion,
    /// The request's span, for whoever traces: the request lasts until its commit.
    pub(super) cause: tracing::Span,
}

/// Who hears what became of a command.
pub(super) enum Completion {
    /// The member's subscriber.
    Reply { session: SessionRef, request: &'static str, reference: Option<u64> },
    /// The JOIN that waits.
    Join(JoinReply),
    /// Nobody, but it must get in: tried again as long as the log is away.
    MustCommit,
    /// Nobody, and it may fail.
    BestEffort,
}

pub(super) struct JoinReply(pub(super) oneshot::Sender<Result<(), Refusal>>);

impl JoinReply {
    pub(super) fn answer(self, result: Result<(), Refusal>) {
        // A session that ended meanwhile no longer listens; its ticket is gone, and the event finds that out.
        let _ = self.0.send(result);
    }
}

impl RoomCell {
    pub(super) fn empty(id: RoomId) -> Arc<Self> {
        let room = Room::vacant(id, Head::default());
        Self::with(room, OnceCell::new())
    }

    pub(super) fn restored(room: Room) -> Arc<Self> {
        Self::with(room, OnceCell::new_with(Some(())))
    }

    fn with(room: Room, loaded: OnceCell<()>) -> Arc<Self> {
        let state = RoomCellState {
            attached: Vec::new(),
            tickets: HashMap::new(),
            queue: VecDeque::new(),
            committing: false,
            opening: 0,
            gaps: 0,
            gaps_closed: 0,
            degraded: false,
            failed_at: None,
            unreadable: false,
            retired: false,
            counted_as_kept: None,
            torn: false,
            drift: HostDrift::default(),
            remote_members: RemoteMembers::default(),
            budget: RoomBudget::default(),
            early: VecDeque::new(),
            lost_here: BTreeSet::new(),
            room,
        };
        Arc::new(Self { id: state.room.id().clone(), state: Mutex::new(state), loaded, changed: Notify::new() })
    }

    pub(super) fn id(&self) -> &RoomId {
        &self.id
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, RoomCellState> {
        self.state.lock()
    }
}

fn code_of(reason: LeaveReason) -> CloseCode {
    match reason {
        LeaveReason::Kicked => CloseCode::Kicked,
        LeaveReason::Banned => CloseCode::Banned,
        LeaveReason::Left | LeaveReason::Lost => CloseCode::Normal,
    }
}

/// Whether the event changes who is in the room, or over which session.
fn moves_members(event: &Event) -> bool {
    matches!(
        event,
        Event::Created { .. }
            | Event::Joined { .. }
            | Event::Resumed { .. }
            | Event::Disconnected { .. }
            | Event::Left { .. }
            | Event::Ended { .. }
    )
}

impl RoomCellState {
    pub(super) fn is_idle(&self) -> bool {
        let works = self.committing || self.opening > 0;
        self.room.is_vacant() && self.queue.is_empty() && self.tickets.is_empty() && !works
    }

    /// Something was missed: the room must be read again.
    pub(super) fn note_gap(&mut self) {
        self.gaps += 1;
    }

    /// The last gap, for [`RoomCellState::close_gaps`].
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The room was read after this gap was noted. A later one stays open.
    pub(super) fn close_gaps(&mut self, up_to: u64) {
        self.gaps_closed = self.gaps_closed.max(up_to);
    }

    pub(super) fn has_gap(&self) -> bool {
        self.gaps > self.gaps_closed
    }

    /// A commit that came before its time. Too many of them: the room must be read once more after the read under way.
    pub(super) fn keep_for_later(&mut self, expected: Head, events: Vec<(Head, Event)>) {
        if self.early.len() >= EARLY_COMMITS {
            self.early.clear();
            self.note_gap();
        }
        self.early.push_back((expected, events));
    }

    /// The first of them that is not known by now.
    pub(super) fn take_early(&mut self) -> Option<(Head, Vec<(Head, Event)>)> {
        let known = self.room.head();
        loop {
            let (expected, events) = self.early.pop_front()?;
            if events.last().is_some_and(|(head, _)| *head > known) {
                return Some((expected, events));
            }
        }
    }

    pub(super) fn forget_early(&mut self) {
        self.early.clear();
    }

    pub(super) fn put_back(&mut self, expected: Head, events: Vec<(Head, Event)>) {
        self.early.push_front((expected, events));
    }

    /// Degraded, and nothing has failed or waited for a while.
    pub(super) fn is_calm(&self, time: Duration) -> bool {
        self.degraded && !self.committing && self.failed_at.is_none_or(|at| Clock::instant() >= at + time)
    }

    /// Members in their grace time whose last session was on this node.
    pub(super) fn in_grace_here(&self) -> usize {
        let is_lost = |user: &&UserId| self.room.member(user).is_some_and(|member| !member.is_live());
        self.lost_here.iter().filter(is_lost).count()
    }

    /// The replica, to decide on it.
    ///
    /// # Panics
    /// When a change of it panicked half-way: nothing may be decided, or committed, on what is left.
    pub(super) fn whole_room(&self) -> &Room {
        assert!(!self.torn, "the replica is half changed");
        &self.room
    }

    pub(super) fn attached(&self, session: &SessionRef) -> Option<&AttachedMember> {
        self.attached.iter().find(|member| member.is_on(session))
    }

    pub(super) fn attached_mut(&mut self, membership: &Membership) -> Option<&mut AttachedMember> {
        let session = &membership.actor().session;
        self.attached.iter_mut().find(|member| member.is_on(session))
    }

    /// The session, as long as it is this member: a JOIN on it may have made it another one.
    pub(super) fn detach(&mut self, user: &UserId, session: &SessionRef) -> Option<AttachedMember> {
        self.detach_where(|member| member.is_on(session) && member.user == *user)
    }

    fn detach_where(&mut self, is_it: impl FnMut(&AttachedMember) -> bool) -> Option<AttachedMember> {
        let index = self.attached.iter().position(is_it)?;
        // The order of the subscribers means nothing.
        Some(self.attached.swap_remove(index))
    }

    /// Whether this is a member here, over this session.
    pub(super) fn is_attached(&self, user: &UserId, session: &SessionRef) -> bool {
        self.attached(session).is_some_and(|member| member.user == *user)
    }

    /// Whether this node knows the session of a live member: it is attached, or its JOIN is about to be answered.
    pub(super) fn knows(&self, user: &UserId, session: &SessionRef) -> bool {
        self.is_attached(user, session) || self.tickets.values().any(|ticket| ticket.session == *session)
    }

    pub(super) fn forget_tickets(&mut self) {
        self.tickets.clear();
    }

    pub(super) fn issue(&mut self, ticket: JoinTicket) {
        self.tickets.insert(ticket.token.hash(), ticket);
    }

    /// Whether the JOIN with this token still waits.
    pub(super) fn waits(&self, token: &TokenHash) -> bool {
        self.tickets.contains_key(token)
    }

    /// Settles the JOIN with this token; `None`: somebody else has.
    pub(super) fn settle(&mut self, token: &TokenHash) -> Option<JoinTicket> {
        self.tickets.remove(token)
    }

    /// The JOIN with this token is given up. True: it had let a session in, which is detached now.
    pub(super) fn give_up(&mut self, token: &TokenHash) -> bool {
        self.settle(token).is_none() && self.detach_where(|member| member.ticket == *token).is_some()
    }

    /// Takes one committed event in and sends it to everybody here. Returns members whose session ended before its
    /// JOIN was committed: they must be disconnected.
    pub(super) fn absorb(
        &mut self,
        event: &Event,
        head: Head,
        node: &NodeId,
        now: RoomTime,
    ) -> Option<(UserId, SessionRef)> {
        self.torn = true;
        self.note_loss(event, node);
        self.room.apply(event);
        debug_assert_eq!(self.room.head(), head, "an event is one step of its room");
        if moves_members(event) {
            self.remote_members = RemoteMembers::of(&self.room, node);
        }
        if self.is_of_another_node(event, node) {
            self.budget.note(event);
        }
        self.before_fan_out(event);
        let delivery = EventDelivery { room: &self.room, event, head, now, encoded: std::cell::OnceCell::new() };
        for member in &self.attached {
            member.subscriber.event(&delivery);
        }
        DELIVERIES.increment(self.attached.len() as u64);
        let lost = self.after_fan_out(event, node, now);
        self.torn = false;
        lost
    }

    /// Keeps whose last session was here, by the room as it is before the event.
    fn note_loss(&mut self, event: &Event, node: &NodeId) {
        match event {
            Event::Disconnected { user, .. } => {
                let connection = self.room.member(user).map(|member| &member.connection);
                if matches!(connection, Some(MemberConnection::Live(session)) if session.node == *node) {
                    self.lost_here.insert(user.clone());
                }
            }
            Event::Joined { user, .. } | Event::Resumed { user, .. } | Event::Left { user, .. } => {
                self.lost_here.remove(user);
            }
            Event::Created { .. } | Event::Ended { .. } => self.lost_here.clear(),
            _ => {}
        }
    }

    /// Whether a member of another node said it.
    fn is_of_another_node(&self, event: &Event, node: &NodeId) -> bool {
        let (Event::Chat { user, .. }
        | Event::Custom { user, .. }
        | Event::Renamed { user, .. }
        | Event::UrlChanged { by: user, .. }
        | Event::Adopted { by: user, .. }) = event
        else {
            return false;
        };
        let connection = self.room.member(user).map(|member| &member.connection);
        matches!(connection, Some(MemberConnection::Live(session)) if session.node != *node)
    }

    /// A member that is gone hears no more of this room. One that was removed hears that, whatever becomes of the closing code.
    fn before_fan_out(&mut self, event: &Event) {
        match event {
            Event::Left { user, reason, .. } if !self.hears_of_removal(user, *reason) => {
                self.release(user, None, code_of(*reason));
            }
            Event::Disconnected { user, .. } => self.release(user, None, CloseCode::Idle),
            Event::Resumed { user, session, .. } => self.release(user, Some(session), CloseCode::Superseded),
            Event::Moved { .. } | Event::Sought { .. } | Event::UrlChanged { .. } | Event::Adopted { .. } => {
                self.drift.reset();
            }
            Event::HostChanged { .. } => self.drift.reset(),
            _ => {}
        }
    }

    /// v2's servers told everybody else only.
    fn hears_of_removal(&self, user: &UserId, reason: LeaveReason) -> bool {
        let speaks_v3 = |member: &AttachedMember| member.user == *user && member.dialect == Dialect::V3;
        matches!(reason, LeaveReason::Kicked | LeaveReason::Banned) && self.attached.iter().any(speaks_v3)
    }

    fn end_removed(&mut self, event: &Event) {
        if let Event::Left { user, reason, .. } = event
            && matches!(reason, LeaveReason::Kicked | LeaveReason::Banned)
        {
            self.release(user, None, code_of(*reason));
        }
    }

    /// Detaches a member's session, unless it is `keep`, and ends it.
    fn release(&mut self, user: &UserId, keep: Option<&SessionRef>, code: CloseCode) {
        if let Some(member) = self.detach_where(|m| m.user == *user && keep != Some(&m.session)) {
            // A session that moves to another member of the same room goes on. One that asks again for a membership that
            // another session took meanwhile is as superseded as any.
            let moves = self.tickets.values().any(|ticket| ticket.session == member.session && ticket.user != *user);
            if !moves {
                member.subscriber.close(code, code.meaning());
            }
        }
    }

    /// A joiner hears ROOM_STATE now, after the others heard of it and before any later event.
    fn after_fan_out(&mut self, event: &Event, node: &NodeId, now: RoomTime) -> Option<(UserId, SessionRef)> {
        self.end_removed(event);
        let (user, session, token, resumed) = match event {
            Event::Created { user, session, token, .. } | Event::Joined { user, session, token, .. } => {
                (user, session, token, false)
            }
            Event::Resumed { user, session, token, .. } => (user, session, token, true),
            _ => return None,
        };
        if session.node != *node {
            return None;
        }
        match self.settle(token) {
            Some(ticket) => {
                self.attach(user, ticket, resumed, node, now);
                None
            }
            None if self.is_attached(user, session) => None,
            None => Some((user.clone(), session.clone())),
        }
    }

    fn attach(&mut self, user: &UserId, ticket: JoinTicket, resumed: bool, node: &NodeId, now: RoomTime) {
        let Some(member) = self.room.member(user) else { return };
        let JoinTicket { session, subscriber, token, last_seen, .. } = ticket;
        let attached = AttachedMember {
            user: user.clone(),
            session,
            slot: member.slot,
            dialect: member.dialect,
            ticket: token.hash(),
            subscriber,
            last_report: LastReport::default(),
            status_at: None,
            heartbeat_at: None,
        };
        let joined = Joined { user, session: &attached.session, token: Some(&token), resumed, node, now };
        attached.subscriber.state(&self.room, &joined);
        if attached.dialect == Dialect::V3 {
            self.replay_chat(&attached, last_seen.filter(|_| resumed));
        }
        self.attached.push(attached);
    }

    /// What was said before it came, or while it was away: whatever it hasn't seen.
    fn replay_chat(&self, member: &AttachedMember, seen: Option<Head>) {
        let epoch = self.room.head().epoch;
        let from = seen.filter(|seen| seen.epoch == epoch).map_or(0, |seen| seen.seq);
        for (seq, line) in self.room.chat().iter().filter(|(seq, _)| **seq > from) {
            member.subscriber.replay(Head { epoch, seq: *seq }, line);
        }
    }

    /// The whole state to one member: REQUEST_SYNC, or a JOIN repeated on the same session.
    pub(super) fn send_state(&self, session: &SessionRef, node: &NodeId, now: RoomTime) {
        if let Some(member) = self.attached(session) {
            let joined = Joined { user: &member.user, session, token: None, resumed: true, node, now };
            member.subscriber.state(&self.room, &joined);
        }
    }

    /// Another replica takes the place of this one (a gap): members here are told the whole state. Returns
    /// members that it shows on sessions of this node which are none of ours: they must be disconnected.
    pub(super) fn replace(&mut self, room: Room, node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        self.torn = true;
        let was_here = self.room.live_sessions().into_iter().filter(|(_, session)| session.node == *node);
        self.lost_here.extend(was_here.map(|(user, _)| user));
        self.room = room;
        self.lost_here.retain(|user| self.room.member(user).is_some_and(|member| !member.is_live()));
        self.drift.reset();
        self.remote_members = RemoteMembers::of(&self.room, node);
        let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|member| self.room.member(&member.user).is_some_and(|known| known.is_on(&member.session)));
        self.attached = stay;
        for member in gone {
            // Who is live remote_members is there of its own will. Anybody else was taken for lost while this node was cut off,
            // and must not stay away.
            let remote_members = self.room.member(&member.user).is_some_and(Member::is_live);
            let code = if remote_members { CloseCode::Superseded } else { CloseCode::Idle };
            member.subscriber.close(code, "this membership is no longer on this session");
        }
        RESYNCS.increment(self.attached.len() as u64);
        for member in &self.attached {
            self.send_state(&member.session, node, now);
        }
        let lost = self.find_ours(node, now);
        self.torn = false;
        lost
    }

    /// Members on sessions of this node that are not attached. A JOIN that is in, though nobody heard the answer, is let
    /// in now; what is left are sessions that ended unseen, or belonged to an earlier process of this node.
    fn find_ours(&mut self, node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        let mut lost = Vec::new();
        for (user, session) in self.room.live_sessions() {
            if session.node != *node || self.is_attached(&user, &session) {
                continue;
            }
            let Some((token, before)) = self.room.member(&user).map(|member| (member.token, member.previous_token))
            else {
                continue;
            };
            match self.settle(&token) {
                Some(ticket) => self.attach(&user, ticket, before.is_some(), node, now),
                None => lost.push((user, session)),
            }
        }
        lost
    }

    /// Tells a member what became of its command.
    pub(super) fn answer(&self, resolve: &Completion, result: Result<Head, Refusal>) {
        let Completion::Reply { session, request, reference } = resolve else { return };
        let Some(member) = self.attached(session) else { return };
        match (result, *reference) {
            (Ok(head), Some(reference)) => member.subscriber.reply(Reply::Ack { reference, head }),
            (Ok(_), None) => {}
            (Err(refusal), reference) => {
                member.subscriber.reply(Reply::Refused { reference, request, refusal: &refusal })
            }
        }
    }

    /// One message to every member here.
    pub(super) fn tell_all(&self, body: NoticeBody<'_>, now: RoomTime) {
        let notice = Notice { body, now, encoded: std::cell::OnceCell::new() };
        for member in &self.attached {
            member.subscriber.notice(&notice);
        }
    }

    /// Members learn whether the room can commit.
    pub(super) fn set_degraded(&mut self, degraded: bool, now: RoomTime) {
        if std::mem::replace(&mut self.degraded, degraded) != degraded {
            self.tell_all(NoticeBody::Degraded { degraded }, now);
        }
    }

    /// Each member gets a moment of its own, so that they don't come back all at once.
    pub(super) fn announce_reconnect(&self, spread: Duration, now: RoomTime) {
        for member in &self.attached {
            let after = Duration::from_millis(rand::rng().random_range(0..=spread.as_millis().max(1) as u64));
            let notice = Notice { body: NoticeBody::Reconnect { after }, now, encoded: std::cell::OnceCell::new() };
            member.subscriber.notice(&notice);
        }
    }
}
