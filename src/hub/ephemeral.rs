//! The ephemeral lane: ticks, heartbeats, statuses, signals. These are not committed themselves and never wait. Two of
//! them may cause a command: a host's reports that its player has left the room's playback vector, and a v2 member's
//! first position, which shows that it has a player.
//!
//! Members on this node are told at once. For members on other nodes one [`Relay`] is published, if the replica shows
//! any that would be told. The receiving node accepts it only if its own replica shows the sender on the session that
//! the relay names.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;

use super::delivery::{Notice, NoticeBody, Refusal, Reply, Signal, StatusDelivery, TickDelivery};
use super::relay::Relay;
use super::room_cell::{Completion, RoomCellState};
use super::v2_pace::PaceCorrection;
use super::viewers::Invitation;
use super::{Hub, Membership};
use crate::domain::{
    Dialect, Measurement, MediaTime, Player, PlayerState, RelayedTick, RoomId, RoomTime, SessionRef, StatusReport,
    TickReport, UserId,
};
use crate::room::{Ask, Command, Member, Reject};
use crate::telemetry::{HotCounter, HotHistogram, names};

static TICKS_RELAYED: HotCounter = HotCounter::new(names::TICKS_RELAYED, &[]);
static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "tick")]);

static CLIENT_RTT: HotHistogram = HotHistogram::new(names::CLIENT_RTT);
static CLIENT_DRIFT: HotHistogram = HotHistogram::new(names::CLIENT_DRIFT);
static CLIENT_CLOCK_ERROR: HotHistogram = HotHistogram::new(names::CLIENT_CLOCK_ERROR);
static CLIENTS_BUFFERING: HotCounter = HotCounter::new(names::CLIENTS_BUFFERING, &[]);

/// Older reports are dropped.
const STALE: Duration = Duration::from_secs(10);
/// Clock error of a client: how far ahead of room time a report may lie.
const AHEAD: Duration = Duration::from_secs(1);
/// Least time between two HOST_HEARTBEATs made of a v3 host's ticks.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(250);
/// Least time between two reports of the host in a large room: one a second, from a client that reports every 250 ms
/// and may be late.
const LARGE_ROOM_EVERY: Duration = Duration::from_millis(875);
/// Least time between two relayed statuses of a member.
pub(super) const STATUS_EVERY: Duration = Duration::from_millis(500);

impl Hub {
    /// A v3 member's position report. A stale one is dropped, and one of a session that is no member any more.
    pub fn tick(&self, membership: &Membership, report: TickReport) {
        let now = self.now();
        if report.at + STALE < now || report.at > now + AHEAD {
            return;
        }
        self.take_report(membership, report, now, false);
    }

    /// A HOST_HEARTBEAT, the tick of v2. `true_at` is used if it lies at most 2 s back and the dialect's clock is
    /// trusted ([`Dialect::believed`]).
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
            if !state.room().is_host(&member.user) {
                return Err(Reject::NotHost.into());
            }
            // v2 has no counter; milliseconds grow too.
            (now.as_millis() as u32, state.room().playback.rate, member.dialect)
        };
        let at = true_at.filter(|at| *at <= now && *at + NEAR > now).map_or(now, |at| dialect.believed(at, now));
        self.take_report(membership, TickReport { seq, playing, position, at, rate }, now, true);
        Ok(())
    }

    fn take_report(&self, membership: &Membership, report: TickReport, now: RoomTime, as_heartbeat: bool) {
        let mut guard = membership.cell.lock();
        let state = &mut *guard;
        let Some(sender) = state.attached_mut(membership) else { return };
        sender.last_report.note_position(report.position, report.playing, now);
        let (user, slot, heartbeat_at) = (sender.user.clone(), sender.slot, sender.heartbeat_at);
        let from_host = state.room().is_host(&user);
        let large = state.is_large(&self.0.parts.limits);
        if report.at < state.room().playback.at || (large && !from_host) {
            return;
        }
        let every = if large { LARGE_ROOM_EVERY } else { HEARTBEAT_EVERY };
        let due = heartbeat_at.is_none_or(|last| last + every <= now);
        let heartbeat = from_host && (due || (as_heartbeat && !large));
        if heartbeat && let Some(sender) = state.attached_mut(membership) {
            sender.heartbeat_at = Some(now);
        }
        let tick = report.relayed(slot, from_host);
        let told = !large || due;
        if told {
            fan_out_tick(state, &user, tick, heartbeat, now);
        }
        let remote = state.remote_members();
        // A node may have viewers and no member.
        let watched = || from_host && state.audience().is_elsewhere();
        let published = told && (remote.v3 || (heartbeat && remote.v2) || watched());
        let drifted = from_host && state.room().gate.is_none() && state.host_drifted(&report);
        drop(guard);
        if published {
            let session = membership.actor.session.clone();
            self.publish(membership, &Relay::Tick { user: user.clone(), session, tick, heartbeat });
        }
        if drifted {
            let command =
                Command::Correct { host: user, position: report.position, playing: report.playing, at: report.at };
            self.enqueue(&membership.cell, command, Completion::BestEffort);
        }
    }

    /// POSITION_UPDATE: stored, not relayed. A v2 client can't send PLAYER: its first report shows that it has a
    /// player.
    pub fn position(&self, membership: &Membership, position: MediaTime, playing: bool) {
        let now = self.now();
        let mut guard = membership.cell.lock();
        let state = &mut *guard;
        let Some(sender) = state.attached_mut(membership) else { return };
        sender.last_report.note_position(position, playing, now);
        let is_v2 = sender.dialect == Dialect::V2;
        let followed = if is_v2 { keep_pace(state, membership, position, playing, now) } else { None };
        if let Some(position) = followed {
            drop(guard);
            let host = membership.actor.user.clone();
            let command = Command::Correct { host, position, playing, at: now };
            return self.enqueue(&membership.cell, command, Completion::BestEffort);
        }
        let shown = |member: &Member| member.player.is_ready();
        if !is_v2 || state.room().member(&membership.actor.user).is_none_or(shown) {
            return;
        }
        drop(guard);
        let (by, player) = (membership.actor.clone(), Player::of(PlayerState::Ready));
        let (lead, ask) = (self.lead_of(&membership.cell), Ask::Player { player, film: None });
        let command = Command::Asked { by, lead, ask };
        self.enqueue(&membership.cell, command, Completion::BestEffort);
    }

    /// Whether a v2 member's command is the answer of its own player to a correction.
    pub(super) fn is_echo(&self, membership: &Membership, ask: &Ask) -> bool {
        if !matches!(ask, Ask::Seek { .. }) {
            return false;
        }
        let now = self.now();
        let state = membership.cell.lock();
        let pace = state.attached(&membership.actor.session).and_then(|member| member.pace.as_ref());
        pace.is_some_and(|pace| pace.is_echo(ask, now))
    }

    /// A member's own measurements: for the other v3 members, or for the digest of a large room.
    pub fn member_status(&self, membership: &Membership, status: StatusReport) {
        // Without the room's lock: a crowd of viewers says it every two seconds.
        if membership.is_viewer() {
            if self.viewer_status(membership, status) {
                measure(&status);
            }
            return;
        }
        let now = self.now();
        let mut state = membership.cell.lock();
        let large = state.is_large(&self.0.parts.limits);
        let Some(sender) = state.attached_mut(membership) else { return };
        sender.status = Some((now, status));
        if sender.status_at.is_some_and(|last| last + STATUS_EVERY > now) {
            return;
        }
        sender.status_at = Some(now);
        sender.last_report.note_status(&status, now);
        measure(&status);
        if large {
            return;
        }
        let user = sender.user.clone();
        fan_out_status(&state, &user, status);
        let published = state.remote_members().v3;
        drop(state);
        if published {
            let session = membership.actor.session.clone();
            self.publish(membership, &Relay::Status { user, session, status });
        }
    }

    /// A signal from one member to one other. The sender is refused if the target is gone or its outbox is half full.
    /// When only the target's node finds that out, its relay brings the refusal to the sender's subscriber.
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
        let node = state.room().member(to).and_then(Member::node).filter(|its| *its != self.node()).cloned();
        let node = node.ok_or(Reject::TargetGone)?;
        drop(state);
        let session = membership.actor.session.clone();
        let (to, signal, request) = (to.clone(), signal.clone(), request.to_owned());
        let relay = Relay::Signal { user, session, to, signal, request, reference };
        self.0.parts.log.publish(membership.room(), Some(&node), relay.encode());
        Ok(())
    }

    /// REQUEST_SYNC: a v2 member gets SYNC_RESPONSE, a v3 member or a viewer the whole state.
    pub fn sync(&self, membership: &Membership) {
        let (now, session) = (self.now(), &membership.actor.session);
        let state = membership.cell.lock();
        match state.attached(session).filter(|member| member.dialect == Dialect::V2) {
            None => state.send_state(session, self.node(), now),
            Some(member) => {
                let body = NoticeBody::Sync { room: state.room() };
                member.subscriber.notice(&Notice { body, now, encoded: OnceCell::new() });
            }
        }
    }

    /// Publishes to all nodes that follow the room.
    fn publish(&self, membership: &Membership, relay: &Relay) {
        self.0.parts.log.publish(membership.room(), None, relay.encode());
    }

    /// Takes in an ephemeral message of another node.
    pub(super) fn receive_ephemeral(&self, room: &RoomId, message: &Bytes) {
        let Some(relay) = Relay::decode(message) else {
            tracing::debug!(roomId = %room, bytes = message.len(), "a relay that this version can't read");
            return;
        };
        if let Relay::Probe { user, session } = relay {
            self.probe_for_another_node(room, user, session);
            return;
        }
        if let Relay::Audience { node, part } = relay {
            if let Some(cell) = self.find(room) {
                cell.audience().hear_part(&node, part);
                self.note_size(&cell, &cell.lock());
            }
            return;
        }
        let Some(cell) = self.find(room) else {
            // The room has no member here.
            if let Relay::Signal { user, session, request, reference, .. } = relay {
                self.tell_gone(room, user, session, request, reference);
            }
            return;
        };
        if let Relay::Digest { node, part } = relay {
            self.receive_digest(&cell, node, part);
            return;
        }
        let state = cell.lock();
        let now = self.now();
        let large = state.is_large(&self.0.parts.limits);
        match relay {
            Relay::Tick { user, session, tick, heartbeat } => {
                let Some(sender) = self.sender_elsewhere(&state, &user, &session) else { return };
                let from_host = state.room().is_host(&user);
                if tick.at < state.room().playback.at || (large && !from_host) {
                    return;
                }
                let tick = RelayedTick { slot: sender.slot, from_host, ..tick };
                fan_out_tick(&state, &user, tick, heartbeat && from_host, now);
            }
            Relay::Status { user, session, status } => {
                if !large && self.sender_elsewhere(&state, &user, &session).is_some() {
                    fan_out_status(&state, &user, status);
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
                refuse_request(&state, &user, &session, &request, reference, &refusal);
            }
            Relay::Busy { user, session, request, reference } => {
                refuse_request(&state, &user, &session, &request, reference, &Refusal::TargetBusy);
            }
            Relay::Invite { user, session, viewer, decline, request, reference } => {
                let believed = self.sender_elsewhere(&state, &user, &session).is_some() && state.room().is_host(&user);
                drop(state);
                if believed {
                    let by = Invitation { host: user, session, request, reference };
                    self.answer_hand(&cell, &viewer, decline, by);
                }
            }
            Relay::NotInvited { user, session, full, request, reference } => {
                let reject = if full { Reject::Full } else { Reject::TargetGone };
                refuse_request(&state, &user, &session, &request, reference, &Refusal::Room(reject));
            }
            Relay::Probe { .. } | Relay::Digest { .. } | Relay::Audience { .. } => {}
        }
    }

    /// Tells the sender's node that the target of a signal is gone.
    fn tell_gone(&self, room: &RoomId, user: UserId, session: SessionRef, request: String, reference: Option<u64>) {
        let node = session.node.clone();
        let relay = Relay::Gone { user, session, request, reference };
        self.0.parts.log.publish(room, Some(&node), relay.encode());
    }

    /// The sender that a relay names, if the replica shows it live on that session, on another node.
    fn sender_elsewhere<'a>(
        &self,
        state: &'a RoomCellState,
        user: &UserId,
        session: &SessionRef,
    ) -> Option<&'a Member> {
        state.room().member(user).filter(|member| member.is_on(session) && session.node != *self.node())
    }
}

/// Corrects a v2 member whose player is out of step. Returns where the room should be instead, for a host.
fn keep_pace(
    state: &mut RoomCellState,
    membership: &Membership,
    position: MediaTime,
    playing: bool,
    now: RoomTime,
) -> Option<MediaTime> {
    let playback = state.room().playback;
    let is_host = state.room().is_host(&membership.actor.user);
    // While a gate waits, players seek and stand by themselves.
    if state.room().gate.is_some() {
        return None;
    }
    let member = state.attached_mut(membership)?;
    let way = member.subscriber.rtt().unwrap_or_default() / 2;
    match member.pace.as_mut()?.report(position, playing, now, way, &playback, is_host)? {
        PaceCorrection::Follow { position } => Some(position),
        PaceCorrection::Seek { position, playing } => {
            let body = NoticeBody::Nudge { position, playing };
            member.subscriber.notice(&Notice { body, now, encoded: OnceCell::new() });
            None
        }
    }
}

/// Records a report in the node's metrics: once, on the sender's node, at the rate at which reports are relayed. A
/// value is capped at the largest bucket, so that a member can shift a share, not the sum.
fn measure(status: &StatusReport) {
    const MOST: f64 = 10.0;
    let record = |histogram: &HotHistogram, measured: Option<Measurement>| {
        if let Some(measured) = measured {
            histogram.record((measured.millis().abs() / 1000.0).min(MOST));
        }
    };
    record(&CLIENT_RTT, status.rtt);
    record(&CLIENT_DRIFT, status.drift);
    record(&CLIENT_CLOCK_ERROR, status.clock_error);
    if status.buffering {
        CLIENTS_BUFFERING.increment(1);
    }
}

/// SYNC_RESPONSE moves the target's player, so it takes the right to control playback.
fn may_send(state: &RoomCellState, from: &UserId, signal: &Signal) -> bool {
    !matches!(signal, Signal::SyncResponse { .. }) || state.room().may_control(from)
}

/// Tells a member here that its request was refused elsewhere, or later.
pub(super) fn refuse_request(
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
    /// The target has no session on this node.
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
    let Some(target) = state.members_here().iter().find(|member| member.user == *to) else { return SignalFate::Gone };
    if !target.subscriber.has_room(signal.bytes()) {
        metrics::counter!(names::BUDGET_REFUSALS, "budget" => "target").increment(1);
        return SignalFate::Busy;
    }
    let body = NoticeBody::Signal { from, to, signal, node: &session.node };
    target.subscriber.notice(&Notice { body, now, encoded: OnceCell::new() });
    SignalFate::Delivered
}

/// Delivers a status to every other v3 member here.
fn fan_out_status(state: &RoomCellState, from: &UserId, status: StatusReport) {
    let Some(sender) = state.room().member(from) else { return };
    let delivery = StatusDelivery { status: status.relayed(sender.slot, sender.transport), encoded: OnceCell::new() };
    for member in state.members_here().iter().filter(|m| m.dialect == Dialect::V3 && m.slot != sender.slot) {
        member.subscriber.status(&delivery);
    }
}

/// Delivers a report to the other v3 members here as a tick, and to v2 members (a v2 host itself, too) as
/// HOST_HEARTBEAT.
fn fan_out_tick(state: &RoomCellState, from: &UserId, tick: RelayedTick, heartbeat: bool, now: RoomTime) {
    let report = TickDelivery { tick, encoded: OnceCell::new() };
    let notice = Notice { body: NoticeBody::Heartbeat { from, tick }, now, encoded: OnceCell::new() };
    let mut told = 0;
    for member in state.members_here() {
        match member.dialect {
            Dialect::V3 if member.slot != tick.slot => member.subscriber.tick(&report),
            Dialect::V2 if heartbeat => member.subscriber.notice(&notice),
            _ => continue,
        }
        told += 1;
    }
    if tick.from_host {
        state.audience().tick(tick, now);
    }
    TICKS_RELAYED.increment(1);
    DELIVERIES.increment(told);
}
