//! The ephemeral lane: ticks, heartbeats, statuses, signals. Nothing here is committed; nothing here waits.
//!
//! Members on this node get theirs at once. For members on other nodes one [`Relay`] is published, only when the replica
//! shows somebody there who would be told; the node that gets it believes it only if its own replica shows the sender
//! on the session that the relay names.

use std::cell::OnceCell;
use std::time::Duration;

use super::delivery::{MemberStatus, Notice, NoticeBody, Refusal, Reply, Signal, TickDelivery};
use super::relay::Relay;
use super::room_cell::{AttachedMember, Completion, RoomCellState};
use super::{Hub, Membership};
use crate::domain::{
    Dialect, MediaTime, Player, PlayerState, RelayedTick, RoomId, RoomTime, SessionRef, TickReport, UserId,
};
use crate::room::{Ask, Command, Member, MemberConnection, Reject};
use crate::telemetry::{HotCounter, HotHistogram, names};

static TICKS_RELAYED: HotCounter = HotCounter::new(names::TICKS_RELAYED, &[]);
static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "tick")]);

static CLIENT_RTT: HotHistogram = HotHistogram::new(names::CLIENT_RTT);
static CLIENT_DRIFT: HotHistogram = HotHistogram::new(names::CLIENT_DRIFT);
static CLIENT_CLOCK_ERROR: HotHistogram = HotHistogram::new(names::CLIENT_CLOCK_ERROR);
static CLIENTS_BUFFERING: HotCounter = HotCounter::new(names::CLIENTS_BUFFERING, &[]);

/// Reports older than this are of no use to anybody.
const STALE: Duration = Duration::from_secs(10);
/// How far ahead of room time a report may lie: a client's clock error.
const AHEAD: Duration = Duration::from_secs(1);
/// A v3 host's ticks become HOST_HEARTBEAT at most this often.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// MEMBER_STATUS is relayed at most this often.
const STATUS_EVERY: Duration = Duration::from_millis(500);

impl Hub {
    /// A v3 member's position report. What is stale or from nobody is dropped.
    pub fn tick(&self, membership: &Membership, report: TickReport) {
        let now = self.now();
        if report.at + STALE < now || report.at > now + AHEAD {
            return;
        }
        self.take_report(membership, report, now, false);
    }

    /// A HOST_HEARTBEAT: v2's tick. `true_at` counts while it is near, and as far as the sender's
    /// clock is believed.
    pub fn heartbeat(
        &self,
        membership: &Membership,
        position: MediaTime,
        playing: bool,
        true_at: Option<RoomTime>,
    ) -> Result<(), Refusal> {
        const NEAR: Duration = Duration::from_secs(2);
        let now = self.now();
        let (seq, rate, dialect) = {
            let state = membership.cell.lock();
            let member = state.attached(&membership.actor.session).ok_or(Reject::NotMember)?;
            if !state.room.is_host(&member.user) {
                return Err(Reject::NotHost.into());
            }
            // The counter only has to grow: milliseconds do.
            (now.as_millis() as u32, state.room.playback.rate, member.dialect)
        };
        let at = true_at.filter(|at| *at <= now && *at + NEAR > now).map_or(now, |at| dialect.believed(at, now));
        self.take_report(membership, TickReport { seq, playing, position, at, rate }, now, true);
        Ok(())
    }

    fn take_report(&self, membership: &Membership, report: TickReport, now: RoomTime, as_heartbeat: bool) {
        let mut guard = membership.cell.lock();
        let state = &mut *guard;
        let Some(sender) = state.attached_mut(membership) else { return };
        sender.last_report.note_position(report.position, Some(report.playing), now);
        let due = sender.heartbeat_at.is_none_or(|last| last + HEARTBEAT_EVERY <= now);
        let (user, slot) = (sender.user.clone(), sender.slot);
        let from_host = state.room.is_host(&user);
        let playback = state.room.playback;
        if report.at < playback.at {
            return;
        }
        let heartbeat = from_host && (as_heartbeat || due);
        if heartbeat && let Some(sender) = state.attached_mut(membership) {
            sender.heartbeat_at = Some(now);
        }
        let tick = report.relayed(slot, from_host);
        fan_out_tick(state, &user, tick, heartbeat, now);
        let remote_members = state.remote_members.v3 || (heartbeat && state.remote_members.v2);
        let astray = from_host && state.room.gate.is_none() && state.drift.feed(&report, &playback);
        drop(guard);
        if remote_members {
            let session = membership.actor.session.clone();
            self.publish(membership, &Relay::Tick { user: user.clone(), session, tick, heartbeat });
        }
        if astray {
            let command =
                Command::Correct { host: user, position: report.position, playing: report.playing, at: report.at };
            self.enqueue(&membership.cell, command, Completion::BestEffort);
        }
    }

    /// POSITION_UPDATE: kept, not relayed. A v2 client can't say PLAYER: its first report shows that it has a player.
    pub fn position(&self, membership: &Membership, position: MediaTime) {
        let now = self.now();
        let mut guard = membership.cell.lock();
        let state = &mut *guard;
        let Some(sender) = state.attached_mut(membership) else { return };
        sender.last_report.note_position(position, None, now);
        let is_v2 = sender.dialect == Dialect::V2;
        let shown = |member: &Member| member.player.is_ready();
        if !is_v2 || state.room.member(&membership.actor.user).is_none_or(shown) {
            return;
        }
        drop(guard);
        let (by, player) = (membership.actor.clone(), Player::of(PlayerState::Ready));
        let (lead, ask) = (self.lead_of(&membership.cell), Ask::Player { player, film: None });
        let command = Command::Asked { by, lead, ask };
        self.enqueue(&membership.cell, command, Completion::BestEffort);
    }

    /// A member's own measurements, for the other v3 members.
    pub fn member_status(&self, membership: &Membership, status: MemberStatus) {
        let now = self.now();
        let mut state = membership.cell.lock();
        let Some(sender) = state.attached_mut(membership) else { return };
        if sender.status_at.is_some_and(|last| last + STATUS_EVERY > now) {
            return;
        }
        sender.status_at = Some(now);
        sender.last_report.note_status(&status, now);
        measure(&status);
        let user = sender.user.clone();
        fan_out_status(&state, &user, status, now);
        let remote_members = state.remote_members.v3;
        drop(state);
        if remote_members {
            let session = membership.actor.session.clone();
            self.publish(membership, &Relay::Status { user, session, status });
        }
    }

    /// From one member to one other. If that one is gone, or has no room for it, the sender is told: at once, as far as this
    /// node knows, else when the other's node finds out; then its subscriber gets the refusal.
    pub fn signal(
        &self,
        membership: &Membership,
        to: &UserId,
        signal: &Signal,
        request: &'static str,
        reference: Option<u64>,
    ) -> Result<(), Refusal> {
        let state = membership.cell.lock();
        let sender = state.attached(&membership.actor.session).ok_or(Reject::NotMember)?;
        if !may_send(&state, &sender.user, signal) {
            return Err(Reject::NotInControl.into());
        }
        let user = sender.user.clone();
        match deliver_signal(&state, &membership.actor.session, &user, to, signal, self.now()) {
            SignalFate::Delivered => return Ok(()),
            SignalFate::Busy => return Err(Refusal::TargetBusy),
            SignalFate::Gone => {}
        }
        let node = match state.room.member(to).map(|member| &member.connection) {
            Some(MemberConnection::Live(session)) if session.node != *self.node() => session.node.clone(),
            _ => return Err(Reject::TargetGone.into()),
        };
        drop(state);
        let session = membership.actor.session.clone();
        let (to, signal, request) = (to.clone(), signal.clone(), request.to_owned());
        let relay = Relay::Signal { user, session, to, signal, request, reference };
        self.0.parts.log.publish(membership.room(), Some(&node), relay.encode());
        Ok(())
    }

    /// REQUEST_SYNC: a v2 member gets SYNC_RESPONSE, a v3 member the whole state.
    pub fn sync(&self, membership: &Membership) {
        let (now, session) = (self.now(), &membership.actor.session);
        let state = membership.cell.lock();
        let Some(member) = state.attached(session) else { return };
        match member.dialect {
            Dialect::V3 => state.send_state(session, self.node(), now),
            Dialect::V2 => {
                let body = NoticeBody::Sync { room: &state.room };
                member.subscriber.notice(&Notice { body, now, encoded: OnceCell::new() });
            }
        }
    }

    /// To all nodes that follow the room.
    fn publish(&self, membership: &Membership, relay: &Relay) {
        self.0.parts.log.publish(membership.room(), None, relay.encode());
    }

    /// An ephemeral message of another node.
    pub(super) fn receive_ephemeral(&self, room: &RoomId, message: &[u8]) {
        let Some(relay) = Relay::decode(message) else {
            tracing::debug!(roomId = %room, bytes = message.len(), "a relay that this version can't read");
            return;
        };
        if let Relay::Probe { user, session } = relay {
            self.probe_for_another_node(room, user, session);
            return;
        }
        let Some(cell) = self.find(room) else {
            // Nobody is here at all.
            if let Relay::Signal { user, session, request, reference, .. } = relay {
                self.tell_gone(room, user, session, request, reference);
            }
            return;
        };
        let state = cell.lock();
        let now = self.now();
        match relay {
            Relay::Tick { user, session, tick, heartbeat } => {
                let Some(sender) = self.sender_elsewhere(&state, &user, &session) else { return };
                if tick.at < state.room.playback.at {
                    return;
                }
                let from_host = state.room.is_host(&user);
                let tick = tick.report().relayed(sender.slot, from_host);
                fan_out_tick(&state, &user, tick, heartbeat && from_host, now);
            }
            Relay::Status { user, session, status } => {
                if self.sender_elsewhere(&state, &user, &session).is_some() {
                    fan_out_status(&state, &user, status, now);
                }
            }
            Relay::Signal { user, session, to, signal, request, reference } => {
                let believed = self.sender_elsewhere(&state, &user, &session).is_some();
                if believed && may_send(&state, &user, &signal) {
                    let fate = deliver_signal(&state, &session, &user, &to, &signal, now);
                    drop(state);
                    match fate {
                        SignalFate::Delivered => {}
                        SignalFate::Gone => self.tell_gone(room, user, session, request, reference),
                        SignalFate::Busy => {
                            let node = session.node.clone();
                            let relay = Relay::Busy { user, session, request, reference };
                            self.0.parts.log.publish(room, Some(&node), relay.encode());
                        }
                    }
                }
            }
            Relay::Gone { user, session, request, reference } => {
                let refusal = Refusal::Room(Reject::TargetGone);
                refuse_signal(&state, &user, &session, &request, reference, &refusal);
            }
            Relay::Busy { user, session, request, reference } => {
                refuse_signal(&state, &user, &session, &request, reference, &Refusal::TargetBusy);
            }
            Relay::Probe { .. } => {}
        }
    }

    /// To the node of a member whose signal found nobody.
    fn tell_gone(&self, room: &RoomId, user: UserId, session: SessionRef, request: String, reference: Option<u64>) {
        let node = session.node.clone();
        let relay = Relay::Gone { user, session, request, reference };
        self.0.parts.log.publish(room, Some(&node), relay.encode());
    }

    /// The member for whom another node speaks: live, on exactly this session, and not one of ours.
    fn sender_elsewhere<'a>(
        &self,
        state: &'a RoomCellState,
        user: &UserId,
        session: &SessionRef,
    ) -> Option<&'a Member> {
        state.room.member(user).filter(|member| member.is_on(session) && session.node != *self.node())
    }
}

/// Into the node's numbers: one observation a report, on the sender's node only, at the rate at which reports are
/// relayed. What a member claims beyond the largest bucket counts as that bucket: it can shift a share, not the sum.
fn measure(status: &MemberStatus) {
    const MOST: f64 = 10.0;
    let record = |histogram: &HotHistogram, millis: Option<f64>| {
        if let Some(millis) = millis {
            histogram.record((millis.abs() / 1000.0).min(MOST));
        }
    };
    record(&CLIENT_RTT, status.rtt_ms);
    record(&CLIENT_DRIFT, status.drift_ms);
    record(&CLIENT_CLOCK_ERROR, status.clock_error_ms);
    if status.buffering {
        CLIENTS_BUFFERING.increment(1);
    }
}

/// A peer that tells another where the film stands moves its player: that is control.
fn may_send(state: &RoomCellState, from: &UserId, signal: &Signal) -> bool {
    !matches!(signal, Signal::SyncResponse { .. }) || state.room.may_control(from)
}

/// Another node's answer to a signal, to the member that sent it.
fn refuse_signal(
    state: &RoomCellState,
    user: &UserId,
    session: &SessionRef,
    request: &str,
    reference: Option<u64>,
    refusal: &Refusal,
) {
    if let Some(member) = state.attached(session).filter(|member| member.user == *user) {
        member.subscriber.reply(Reply::Refused { reference, request, refusal });
    }
}

enum SignalFate {
    Delivered,
    /// The target has no session here.
    Gone,
    /// Its outbox has no room for it.
    Busy,
}

fn deliver_signal(
    state: &RoomCellState,
    session: &SessionRef,
    from: &UserId,
    to: &UserId,
    signal: &Signal,
    now: RoomTime,
) -> SignalFate {
    let Some(target) = state.attached.iter().find(|member| member.user == *to) else { return SignalFate::Gone };
    if !target.subscriber.has_room(signal.bytes()) {
        metrics::counter!(names::BUDGET_REFUSALS, "budget" => "target").increment(1);
        return SignalFate::Busy;
    }
    let body = NoticeBody::Signal { from, to, signal, node: &session.node };
    target.subscriber.notice(&Notice { body, now, encoded: OnceCell::new() });
    SignalFate::Delivered
}

/// To every other v3 member.
fn fan_out_status(state: &RoomCellState, from: &UserId, status: MemberStatus, now: RoomTime) {
    let Some(transport) = state.room.member(from).map(|member| member.transport) else { return };
    let body = NoticeBody::Status { user: from, transport, status };
    let notice = Notice { body, now, encoded: OnceCell::new() };
    for member in state.attached.iter().filter(|m| m.dialect == Dialect::V3 && m.user != *from) {
        member.subscriber.notice(&notice);
    }
}

/// To every other v3 member as a tick; to v2 members, and to the v2 host itself, as HOST_HEARTBEAT.
fn fan_out_tick(state: &RoomCellState, from: &UserId, tick: RelayedTick, heartbeat: bool, now: RoomTime) {
    let report = TickDelivery { tick, encoded: OnceCell::new() };
    let notice = Notice { body: NoticeBody::Heartbeat { from, tick }, now, encoded: OnceCell::new() };
    let deliver = |member: &AttachedMember| match member.dialect {
        Dialect::V3 if member.slot != tick.slot => member.subscriber.tick(&report),
        Dialect::V2 if heartbeat => member.subscriber.notice(&notice),
        _ => {}
    };
    state.attached.iter().for_each(deliver);
    TICKS_RELAYED.increment(1);
    DELIVERIES.increment(state.attached.len() as u64);
}
