//! Committed events, and whole rooms read from the log, become the replica; members here are told, attached and
//! detached.

use super::super::delivery::{EventDelivery, Notice, NoticeBody, RosterDelivery};
use super::super::member_reports::LastReport;
use super::{AttachedMember, CellPhase, JoinTicket, RemoteMembers, RoomCellState};
use crate::domain::{CloseCode, Dialect, Head, Limits, MediaTime, NodeId, RoomTime, SessionRef, UserId};
use crate::room::{By, Event, LeaveReason, Member, Room};
use crate::telemetry::{HotCounter, names};

static RESYNCS: HotCounter = HotCounter::new(names::RESYNCS, &[]);
static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "event")]);

fn close_code(reason: LeaveReason) -> CloseCode {
    match reason {
        LeaveReason::Kicked => CloseCode::Kicked,
        LeaveReason::Banned => CloseCode::Banned,
        LeaveReason::Left | LeaveReason::Lost => CloseCode::Normal,
    }
}

/// Whether the member itself issued the command: its player has done it already.
fn is_by(event: &Event, user: &UserId) -> bool {
    match event {
        Event::Moved { by: By::Member(by), .. } | Event::Sought { by, .. } => by == user,
        _ => false,
    }
}

fn is_removal(reason: LeaveReason) -> bool {
    matches!(reason, LeaveReason::Kicked | LeaveReason::Banned)
}

/// Whether a large room is told of the event together with others of its kind. A removal is the host's act, and a
/// message of its own.
fn is_coming_or_going(event: &Event) -> bool {
    matches!(event, Event::Joined { .. }) || matches!(event, Event::Left { reason, .. } if !is_removal(*reason))
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
    /// Applies committed events, of which the first follows the replica, and delivers them to the members here. Returns
    /// the members whose session ended before their JOIN was committed: the caller must disconnect them.
    pub(in crate::hub) fn absorb(
        &mut self,
        events: &[(Head, Event)],
        node: &NodeId,
        now: RoomTime,
        limits: &Limits,
    ) -> Vec<(UserId, SessionRef)> {
        let (mut lost, mut rest) = (Vec::new(), events);
        while !rest.is_empty() {
            let (next, later) = rest.split_at(self.told_together(rest, limits));
            match next {
                [(head, event)] => lost.extend(self.absorb_event(event, *head, node, now)),
                roster => lost.extend(self.absorb_roster(roster, node, now)),
            }
            rest = later;
        }
        lost
    }

    /// How many of the first events are told together; 1: the first is told alone.
    fn told_together(&self, events: &[(Head, Event)], limits: &Limits) -> usize {
        let roster = events.iter().take_while(|(_, event)| is_coming_or_going(event));
        let (mut length, mut members) = (0, self.room.members().len());
        let mut most = members;
        for (_, event) in roster {
            length += 1;
            members = if matches!(event, Event::Left { .. }) { members.saturating_sub(1) } else { members + 1 };
            most = most.max(members);
        }
        if most as u64 > limits.full_presence_members { length.max(1) } else { 1 }
    }

    /// Applies joins and leaves and tells v3 members all of them as one message. A joiner is told the whole state when
    /// all are in: the same one for all joiners of the commit, and no join but its own concerns it.
    fn absorb_roster(&mut self, events: &[(Head, Event)], node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        let Some(phase) = self.begin_change() else { return Vec::new() };
        let v2 = |member: &&AttachedMember| member.dialect == Dialect::V2;
        for (head, event) in events {
            self.note_loss(event, node);
            self.room.apply(event);
            debug_assert_eq!(self.room.head(), *head, "an event is one step of its room");
            self.before_fan_out(event);
            let encoded = std::cell::OnceCell::new();
            let delivery = EventDelivery { room: &self.room, event, head: *head, now, encoded };
            for member in self.attached.iter().filter(v2) {
                member.subscriber.event(&delivery);
                DELIVERIES.increment(1);
            }
        }
        self.remote = RemoteMembers::of(&self.room, node);
        let roster = RosterDelivery { room: &self.room, events, now, encoded: std::cell::OnceCell::new() };
        for member in self.attached.iter().filter(|member| !v2(member)) {
            member.subscriber.roster(&roster);
            DELIVERIES.increment(1);
        }
        match self.audience.encode(|viewer, _| viewer.encode_roster(&roster)).flatten() {
            Some(message) => self.audience.tell(message, now),
            None => events.iter().for_each(|(head, _)| self.audience.pass(*head)),
        }
        let lost = events.iter().filter_map(|(_, event)| self.after_fan_out(event, node, now)).collect();
        self.phase = phase;
        lost
    }

    /// Applies one committed event and delivers it.
    fn absorb_event(
        &mut self,
        event: &Event,
        head: Head,
        node: &NodeId,
        now: RoomTime,
    ) -> Option<(UserId, SessionRef)> {
        let phase = self.begin_change()?;
        self.note_loss(event, node);
        let agreed = self.room.duration();
        self.room.apply(event);
        debug_assert_eq!(self.room.head(), head, "an event is one step of its room");
        if moves_members(event) {
            self.remote = RemoteMembers::of(&self.room, node);
        }
        if self.is_of_another_node(event, node) {
            self.budget.note(event);
        }
        self.before_fan_out(event);
        let delivery = EventDelivery { room: &self.room, event, head, now, encoded: std::cell::OnceCell::new() };
        for member in &mut self.attached {
            if let Some(pace) = &mut member.pace {
                let way = member.subscriber.rtt().unwrap_or_default() / 2;
                let wait = pace.wait_for(event, now, way, is_by(event, &member.user));
                if !wait.is_zero() {
                    member.subscriber.hold(wait);
                }
            }
            member.subscriber.event(&delivery);
        }
        self.stop_v2_seeker(event, now);
        DELIVERIES.increment(self.attached.len() as u64);
        if !self.audience.is_empty() {
            self.tell_audience(&delivery, agreed, node);
        }
        let lost = self.after_fan_out(event, node, now);
        self.phase = phase;
        lost
    }

    /// A v2 client plays on after its own seek and ignores SEEK_PAUSE, while the others wait at the gate: it is told to
    /// wait at the target, too.
    fn stop_v2_seeker(&self, event: &Event, now: RoomTime) {
        let Event::Sought { by, gate: Some(gate), .. } = event else { return };
        let Some(seeker) = self.attached.iter().find(|member| member.user == *by && member.pace.is_some()) else {
            return;
        };
        let body = NoticeBody::Nudge { position: gate.target, playing: false };
        seeker.subscriber.notice(&Notice { body, now, encoded: std::cell::OnceCell::new() });
    }

    /// Tells the viewers of an event, where it concerns them.
    fn tell_audience(&self, delivery: &EventDelivery<'_>, agreed: Option<MediaTime>, node: &NodeId) {
        let EventDelivery { room, event, head, now, .. } = *delivery;
        let encoded = match event {
            Event::GateProgress { .. } => None,
            Event::PlayerChanged { .. } if room.duration() == agreed => None,
            // The film stands, which members hear when they come back.
            Event::Kept { .. } => {
                self.resync_audience(node, now);
                return;
            }
            Event::Ended { .. } => {
                self.audience.close(CloseCode::RoomOver, now);
                return;
            }
            _ => self.audience.encode(|viewer, _| viewer.encode(delivery)).flatten(),
        };
        match encoded {
            Some(message) => self.audience.tell(message, now),
            None => self.audience.pass(head),
        }
        if let Event::BansChanged { banned: true, .. } = event {
            self.audience.evict(CloseCode::Banned, |viewer| room.has_banned(&viewer.user, &viewer.origin));
        }
    }

    /// Returns the phase to restore after the change. `None`: an earlier change panicked, so there is nothing to
    /// change.
    fn begin_change(&mut self) -> Option<CellPhase> {
        self.encoded_state.take();
        let phase = std::mem::replace(&mut self.phase, CellPhase::Torn);
        (phase != CellPhase::Torn).then_some(phase)
    }

    /// Notes whose last session was here. Called before the event is applied.
    fn note_loss(&mut self, event: &Event, node: &NodeId) {
        match event {
            Event::Disconnected { user, .. } if self.room.member(user).and_then(Member::node) == Some(node) => {
                self.lost_here.insert(user.clone());
            }
            Event::Joined { user, .. } | Event::Resumed { user, .. } | Event::Left { user, .. } => {
                self.lost_here.remove(user);
            }
            Event::Created { .. } | Event::Ended { .. } => self.lost_here.clear(),
            _ => {}
        }
    }

    fn is_of_another_node(&self, event: &Event, node: &NodeId) -> bool {
        let (Event::Chat { user, .. }
        | Event::Custom { user, .. }
        | Event::Renamed { user, .. }
        | Event::UrlChanged { by: user, .. }
        | Event::Adopted { by: user, .. }) = event
        else {
            return false;
        };
        self.room.member(user).and_then(Member::node).is_some_and(|its| its != node)
    }

    /// A member that is gone hears no more of this room. One that was removed hears USER_LEFT, in case its transport
    /// loses the closing code.
    fn before_fan_out(&mut self, event: &Event) {
        match event {
            Event::Left { user, reason, .. } if !self.hears_of_removal(user, *reason) => {
                self.release(user, None, close_code(*reason));
            }
            Event::Disconnected { user, .. } => self.release(user, None, CloseCode::Idle),
            Event::Resumed { user, session, moved: false, .. } => {
                self.release(user, Some(session), CloseCode::Superseded);
            }
            Event::Moved { .. }
            | Event::Sought { .. }
            | Event::UrlChanged { .. }
            | Event::Adopted { .. }
            | Event::HostChanged { .. } => self.drift.reset(),
            Event::AudienceCounted { count } => self.audience.note_count(*count),
            _ => {}
        }
    }

    /// v3 only: v2 servers told everybody else.
    fn hears_of_removal(&self, user: &UserId, reason: LeaveReason) -> bool {
        let speaks_v3 = |member: &AttachedMember| member.user == *user && member.dialect == Dialect::V3;
        is_removal(reason) && self.attached.iter().any(speaks_v3)
    }

    /// Detaches a member's session, unless it is `keep`, and ends it.
    fn release(&mut self, user: &UserId, keep: Option<&SessionRef>, code: CloseCode) {
        if let Some(member) = self.detach_where(|m| m.user == *user && keep != Some(&m.session)) {
            // A session that becomes another member of this room goes on. One that asks again for a membership which
            // another session has taken over is superseded like any other.
            let moves = self.tickets.values().any(|ticket| ticket.session == member.session && ticket.user != *user);
            if !moves {
                member.subscriber.close(code, code.meaning());
            }
        }
    }

    /// Sends ROOM_STATE to a joiner: after the others heard of it, before any later event. A session that its client
    /// has replaced hears that event as its last one, and ends when its successor has ROOM_STATE.
    fn after_fan_out(&mut self, event: &Event, node: &NodeId, now: RoomTime) -> Option<(UserId, SessionRef)> {
        let lost = self.admit_joiner(event, node, now);
        if let Event::Resumed { user, session, moved: true, .. } = event {
            self.release(user, Some(session), CloseCode::Superseded);
        }
        lost
    }

    fn admit_joiner(&mut self, event: &Event, node: &NodeId, now: RoomTime) -> Option<(UserId, SessionRef)> {
        let (user, session, token, resumed) = match event {
            Event::Created { user, session, token, .. } | Event::Joined { user, session, token, .. } => {
                (user, session, token, false)
            }
            Event::Resumed { user, session, token, .. } => (user, session, token, true),
            Event::Left { user, reason, .. } if is_removal(*reason) => {
                self.release(user, None, close_code(*reason));
                return None;
            }
            _ => return None,
        };
        if session.node != *node {
            return None;
        }
        match self.take_ticket(token) {
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
            status: None,
            status_at: None,
            heartbeat_at: None,
            pace: (member.dialect == Dialect::V2).then(Box::default),
        };
        // It has been a viewer until now.
        self.audience.promote(&attached.session, now);
        self.send_joined(&attached, Some(&token), resumed, node, now);
        if attached.dialect == Dialect::V3 {
            self.replay_chat(&attached, last_seen.filter(|_| resumed));
        }
        self.attached.push(attached);
    }

    /// Replaces the replica by the room as it was read from the log after a gap; members here are told the whole state.
    /// Returns live members on sessions of this node that it doesn't know: the caller must disconnect them.
    pub(in crate::hub) fn replace(&mut self, room: Room, node: &NodeId, now: RoomTime) -> Vec<(UserId, SessionRef)> {
        let Some(phase) = self.begin_change() else { return Vec::new() };
        let was_here = self.room.live_sessions().into_iter().filter(|(_, session)| session.node == *node);
        self.lost_here.extend(was_here.map(|(user, _)| user));
        // A room of another epoch is another room, with a PIN and bans of its own.
        let is_over = room.is_vacant() || room.head().epoch != self.room.head().epoch;
        self.room = room;
        self.lost_here.retain(|user| self.room.member(user).is_some_and(|member| !member.is_live()));
        self.drift.reset();
        self.remote = RemoteMembers::of(&self.room, node);
        let (stay, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.attached)
            .into_iter()
            .partition(|member| self.room.member(&member.user).is_some_and(|known| known.is_on(&member.session)));
        self.attached = stay;
        for member in gone {
            // A member that is live in another session took over deliberately. Any other was taken for lost while this
            // node was cut off; its client must come back.
            let is_live = self.room.member(&member.user).is_some_and(Member::is_live);
            let code = if is_live { CloseCode::Superseded } else { CloseCode::Idle };
            member.subscriber.close(code, "this membership is no longer on this session");
        }
        RESYNCS.increment(self.attached.len() as u64);
        if is_over {
            self.audience.close(CloseCode::RoomOver, now);
        } else {
            let room = &self.room;
            self.audience.evict(CloseCode::Banned, |viewer| room.has_banned(&viewer.user, &viewer.origin));
        }
        self.send_state_to_all(node, now);
        let lost = self.find_ours(node, now);
        self.phase = phase;
        lost
    }

    /// Live members on sessions of this node that are not attached. A JOIN whose answer was lost is let in now; what is
    /// left are sessions that ended unseen.
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
            match self.take_ticket(&token) {
                Some(ticket) => self.attach(&user, ticket, before.is_some(), node, now),
                None => lost.push((user, session)),
            }
        }
        lost
    }
}
