//! One room on this node: its replica, the outlets of its local members, and what waits to be committed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use rand::RngExt;
use tokio::sync::{Notify, OnceCell, oneshot};

use super::Membership;
use super::budget::RoomBudget;
use super::drift::HostDrift;
use super::outlet::{Happening, Notice, NoticeBody, Outlet, Refusal, Reply, Welcome};
use crate::domain::{
    AddressTag, CloseCode, Dialect, Head, MediaTime, NodeId, ResumeToken, RoomId, RoomTime, SessionRef, Slot,
    TokenHash, UserId,
};
use crate::room::{Command, Connection, Event, LeaveReason, Member, Room};
use crate::telemetry::{HotCounter, names};

static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "event")]);

pub(super) struct Cell {
    id: RoomId,
    state: Mutex<State>,
    /// Set once the replica was read from the log.
    pub(super) loaded: OnceCell<()>,
    /// Told after every change of the membership: a prober waits on it.
    pub(super) changed: Notify,
}

pub(super) struct State {
    pub(super) room: Room,
    pub(super) attached: Vec<Attached>,
    /// JOINs in flight on this node: who gets ROOM_STATE when the event comes.
    pub(super) joining: HashMap<u64, Joining>,
    pub(super) queue: VecDeque<Queued>,
    /// A committer task is at work.
    pub(super) committing: bool,
    /// How many wait for the room to be read.
    pub(super) opening: usize,
    /// What became of the last commit, or what others have committed, is not known until the room was read again.
    pub(super) unsure: bool,
    /// The last commit failed; members were told.
    pub(super) degraded: bool,
    /// No longer in the hub's map: open it anew.
    pub(super) retired: bool,
    /// As whose room that waits it is counted ([`Hub::count_kept`](super::Hub::count_kept)).
    pub(super) counted_as_kept: Option<AddressTag>,
    pub(super) drift: HostDrift,
    pub(super) elsewhere: Elsewhere,
    pub(super) budget: RoomBudget,
}

/// Whether members live on other nodes, by dialect. Kept, because every tick asks.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Elsewhere {
    pub(super) v2: bool,
    pub(super) v3: bool,
}

impl Elsewhere {
    fn of(room: &Room, node: &NodeId) -> Self {
        let mut elsewhere = Self::default();
        for member in room.members().values() {
            if matches!(&member.connection, Connection::Live(session) if session.node != *node) {
                match member.dialect {
                    Dialect::V2 => elsewhere.v2 = true,
                    Dialect::V3 => elsewhere.v3 = true,
                }
            }
        }
        elsewhere
    }
}

/// A member with a session on this node.
pub(super) struct Attached {
    pub(super) user: UserId,
    pub(super) session: SessionRef,
    pub(super) slot: Slot,
    pub(super) dialect: Dialect,
    pub(super) outlet: Arc<dyn Outlet>,
    /// The latest position report: kept, never committed.
    pub(super) position: Option<(MediaTime, RoomTime)>,
    /// When a MEMBER_STATUS of it was last relayed.
    pub(super) status_at: Option<RoomTime>,
    /// When a HOST_HEARTBEAT was last made of its ticks.
    pub(super) heartbeat_at: Option<RoomTime>,
}

impl Attached {
    /// The number first: it alone tells all of a node's sessions apart, and every tick asks.
    fn is_on(&self, session: &SessionRef) -> bool {
        self.session.id == session.id && self.session.node == session.node
    }
}

/// A JOIN that waits for its event.
pub(super) struct Joining {
    pub(super) user: UserId,
    pub(super) outlet: Arc<dyn Outlet>,
    pub(super) token: ResumeToken,
    pub(super) last_seen: Option<Head>,
}

pub(super) struct Queued {
    pub(super) command: Command,
    pub(super) resolve: Resolve,
    /// The request's span, for whoever traces: the request lasts until its commit.
    pub(super) cause: tracing::Span,
}

/// Who hears what became of a command.
pub(super) enum Resolve {
    /// The member's outlet.
    Reply { session: SessionRef, request: &'static str, reference: Option<u64> },
    /// The JOIN that waits.
    Join(JoinDone),
    /// Nobody, but it must get in: tried again as long as the log is away.
    Insist,
    /// Nobody, and it may fail.
    Forget,
}

pub(super) struct JoinDone(pub(super) oneshot::Sender<Result<(), Refusal>>);

impl JoinDone {
    pub(super) fn answer(self, result: Result<(), Refusal>) {
        // A session that ended meanwhile no longer listens; `joining` is gone with it, and the event finds that out.
        let _ = self.0.send(result);
    }
}

impl Cell {
    pub(super) fn empty(id: RoomId) -> Arc<Self> {
        let room = Room::vacant(id, Head::default());
        Self::with(room, OnceCell::new())
    }

    pub(super) fn restored(room: Room) -> Arc<Self> {
        Self::with(room, OnceCell::new_with(Some(())))
    }

    fn with(room: Room, loaded: OnceCell<()>) -> Arc<Self> {
        let state = State {
            attached: Vec::new(),
            joining: HashMap::new(),
            queue: VecDeque::new(),
            committing: false,
            opening: 0,
            unsure: false,
            degraded: false,
            retired: false,
            counted_as_kept: None,
            drift: HostDrift::default(),
            elsewhere: Elsewhere::default(),
            budget: RoomBudget::default(),
            room,
        };
        Arc::new(Self { id: state.room.id().clone(), state: Mutex::new(state), loaded, changed: Notify::new() })
    }

    pub(super) fn id(&self) -> &RoomId {
        &self.id
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
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

impl State {
    pub(super) fn is_idle(&self) -> bool {
        let works = self.committing || self.opening > 0;
        self.room.is_vacant() && self.queue.is_empty() && self.joining.is_empty() && !works
    }

    pub(super) fn attached(&self, session: &SessionRef) -> Option<&Attached> {
        self.attached.iter().find(|member| member.is_on(session))
    }

    pub(super) fn attached_mut(&mut self, membership: &Membership) -> Option<&mut Attached> {
        let session = &membership.actor().session;
        self.attached.iter_mut().find(|member| member.is_on(session))
    }

    pub(super) fn detach(&mut self, session: &SessionRef) -> Option<Attached> {
        let index = self.attached.iter().position(|member| member.is_on(session))?;
        // The order of the outlets means nothing.
        Some(self.attached.swap_remove(index))
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
        self.room.apply(event);
        debug_assert_eq!(self.room.head(), head, "an event is one step of its room");
        if moves_members(event) {
            self.elsewhere = Elsewhere::of(&self.room, node);
        }
        if self.is_of_another_node(event, node) {
            self.budget.note(event);
        }
        self.before_fan_out(event);
        let happening = Happening { room: &self.room, event, head, now, encoded: std::cell::OnceCell::new() };
        for member in &self.attached {
            member.outlet.event(&happening);
        }
        DELIVERIES.increment(self.attached.len() as u64);
        self.after_fan_out(event, node, now)
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
        matches!(connection, Some(Connection::Live(session)) if session.node != *node)
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
        let speaks_v3 = |member: &Attached| member.user == *user && member.dialect == Dialect::V3;
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
        let stale =
            self.attached.iter().find(|m| m.user == *user && keep != Some(&m.session)).map(|m| m.session.clone());
        if let Some(member) = stale.and_then(|session| self.detach(&session)) {
            // A session that moves to another member of the same room goes on. One that asks again for a membership that
            // another session took meanwhile is as superseded as any.
            let moves = self.joining.get(&member.session.id).is_some_and(|joining| joining.user != *user);
            if !moves {
                member.outlet.close(code, code.meaning());
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
        match self.take_joining(session, token) {
            Some(joining) => {
                self.attach(user, session, joining, resumed, node, now);
                None
            }
            None if self.attached(session).is_some() => None,
            None => Some((user.clone(), session.clone())),
        }
    }

    /// The JOIN that was committed with this token. Another one of the same session is a later one: the first was given
    /// up, and nobody has its token.
    fn take_joining(&mut self, session: &SessionRef, token: &TokenHash) -> Option<Joining> {
        let waits = self.joining.get(&session.id).is_some_and(|joining| joining.token.hash() == *token);
        if waits { self.joining.remove(&session.id) } else { None }
    }

    fn attach(
        &mut self,
        user: &UserId,
        session: &SessionRef,
        joining: Joining,
        resumed: bool,
        node: &NodeId,
        now: RoomTime,
    ) {
        let Some(member) = self.room.member(user) else { return };
        let Joining { outlet, token, last_seen, .. } = joining;
        let attached = Attached {
            user: user.clone(),
            session: session.clone(),
            slot: member.slot,
            dialect: member.dialect,
            outlet,
            position: None,
            status_at: None,
            heartbeat_at: None,
        };
        let welcome = Welcome { user, session, token: Some(&token), resumed, node, now };
        attached.outlet.state(&self.room, &welcome);
        if attached.dialect == Dialect::V3 {
            self.replay_chat(&attached, last_seen.filter(|_| resumed));
        }
        self.attached.push(attached);
    }

    /// What was said before it came, or while it was away: whatever it hasn't seen.
    fn replay_chat(&self, member: &Attached, seen: Option<Head>) {
        let epoch = self.room.head().epoch;
        let from = seen.filter(|seen| seen.epoch == epoch).map_or(0, |seen| seen.seq);
        for (seq, line) in self.room.chat().iter().filter(|(seq, _)| **seq > from) {
            member.outlet.replay(Head { epoch, seq: *seq }, line);
        }
    }

    /// The whole state to one member: REQUEST_SYNC, or a JOIN repeated on the same session.
    pub(super) fn send_state(&self, session: &SessionRef, node: &NodeId, now: RoomTime) {
        if let Some(member) = self.attached(session) {
            let welcome = Welcome { user: &member.user, session, token: None, resumed: true, node, now };
            member.outlet.state(&self.room, &welcome);
        }
    }

    /// Another replica takes the place of this one (a conflict, a gap): members here are told the whole state. Returns
    /// members that it shows on sessions of this node which are none of ours: they must be disconnected.
    pub(super) fn replace(&mut self, room: Room, node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        self.room = room;
        self.drift.reset();
        self.elsewhere = Elsewhere::of(&self.room, node);
        let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|member| self.room.member(&member.user).is_some_and(|known| known.is_on(&member.session)));
        self.attached = stay;
        for member in gone {
            // Who is live elsewhere is there of its own will. Anybody else was taken for lost while this node was cut off,
            // and must not stay away.
            let elsewhere = self.room.member(&member.user).is_some_and(Member::is_live);
            let code = if elsewhere { CloseCode::Superseded } else { CloseCode::Idle };
            member.outlet.close(code, "this membership is no longer on this session");
        }
        for member in &self.attached {
            self.send_state(&member.session, node, now);
        }
        self.find_ours(node, now)
    }

    /// Members on sessions of this node that are not attached. A JOIN that is in, though nobody heard the answer, is let
    /// in now; what is left are sessions that ended unseen, or belonged to an earlier process of this node.
    fn find_ours(&mut self, node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        let mut lost = Vec::new();
        for (user, session) in self.room.live_sessions() {
            if session.node != *node || self.attached(&session).is_some() {
                continue;
            }
            let Some((token, before)) = self.room.member(&user).map(|member| (member.token, member.previous_token))
            else {
                continue;
            };
            match self.take_joining(&session, &token) {
                Some(joining) => {
                    let resumed = before.is_some();
                    self.attach(&user, &session, joining, resumed, node, now);
                }
                None => lost.push((user, session)),
            }
        }
        lost
    }

    /// Tells a member what became of its command.
    pub(super) fn answer(&self, resolve: &Resolve, result: Result<Head, Refusal>) {
        let Resolve::Reply { session, request, reference } = resolve else { return };
        let Some(member) = self.attached(session) else { return };
        match (result, *reference) {
            (Ok(head), Some(reference)) => member.outlet.reply(Reply::Ack { reference, head }),
            (Ok(_), None) => {}
            (Err(refusal), reference) => member.outlet.reply(Reply::Refused { reference, request, refusal: &refusal }),
        }
    }

    /// One message to every member here.
    pub(super) fn tell_all(&self, body: NoticeBody<'_>, now: RoomTime) {
        let notice = Notice { body, now, encoded: std::cell::OnceCell::new() };
        for member in &self.attached {
            member.outlet.notice(&notice);
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
            member.outlet.notice(&notice);
        }
    }
}
