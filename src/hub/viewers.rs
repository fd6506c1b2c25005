//! Viewers: how a JOIN takes a seat in the audience, what a viewer may ask for, and how it becomes a member.
//!
//! A room's audience is spread over the nodes like its members, and no node holds the whole. Once a second each node
//! tells the others its part: how many watch there, and whose hands are raised ([`Relay::Audience`]). The parts of
//! nodes that went silent are dropped, so a lost node's viewers are counted for three seconds at most. The node of the
//! host shows the hands to the host, and has the log note the count.
//!
//! An invited viewer becomes a member by a JOIN that its node makes for it: decided, committed and let in like any
//! other, over the session that it has. If the room is full by then, it stays where it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::delivery::{Notice, NoticeBody, Refusal};
use super::ephemeral::{STATUS_EVERY, refuse_request};
use super::join::JoinRequest;
use super::relay::Relay;
use super::room_cell::audience::{Viewer, ViewerSeat};
use super::room_cell::{AttachedMember, Completion, JoinReply, JoinTicket, RoomCell, RoomCellState};
use super::subscriber::Subscriber;
use super::{Hub, Membership};
use crate::domain::{Dialect, ResumeToken, SessionRef, StatusReport, UserId, Username};
use crate::room::{Actor, Ask, Command, Join, OwnerClaim, PinProof, Reject};

/// How often parts are told, and hands shown.
const PERIOD: Duration = Duration::from_secs(1);

/// The host's INVITE_TO_MEMBER, for the answer.
#[derive(Debug, Clone)]
pub(super) struct Invitation {
    pub(super) host: UserId,
    pub(super) session: SessionRef,
    pub(super) request: String,
    pub(super) reference: Option<u64>,
}

impl Hub {
    /// Whether a JOIN that finds no place as a member may take a seat in the audience.
    pub(super) fn may_overflow(&self, request: &JoinRequest) -> bool {
        request.dialect == Dialect::V3 && !request.viewer && self.0.parts.limits.room_audience > 0
    }

    /// Whether the room is full for this JOIN, by the replica: then it need not pass through the queue.
    pub(super) fn overflows(&self, cell: &RoomCell, request: &JoinRequest) -> bool {
        let full = |state: &RoomCellState| {
            let room = state.room();
            let resumes = room.member(&request.user).is_some() || state.attached(&request.session).is_some();
            room.members().len() as u64 >= self.0.parts.limits.room_members && !resumes
        };
        self.may_overflow(request) && full(&cell.lock())
    }

    /// Takes a seat in the audience. On `Ok` the subscriber has ROOM_STATE. `None`: the cell was retired meanwhile.
    pub(super) fn try_watch(
        &self,
        cell: &Arc<RoomCell>,
        request: &JoinRequest,
        pin: PinProof,
        subscriber: &Arc<dyn Subscriber>,
    ) -> Result<Option<Arc<ViewerSeat>>, Refusal> {
        let limits = &self.0.parts.limits;
        let join = self.join_of(request, pin, ResumeToken::random().hash());
        let now = self.now();
        let mut state = cell.lock();
        if state.is_retired() {
            return Ok(None);
        }
        state.whole_room().admits_viewer(now, &join, limits)?;
        let audience = Arc::clone(cell.audience());
        if u64::from(audience.total()) >= limits.room_audience {
            return Err(Reject::Full.into());
        }
        let name = request.name.clone().unwrap_or_else(Username::guest);
        let (user, session) = (request.user.clone(), request.session.clone());
        let viewer = Viewer::new((user, name), session, request.transport, join.origin, Arc::clone(subscriber));
        let seat = Arc::clone(&viewer.seat);
        let first = audience.seat(viewer, now, |viewer, total| state.welcome(viewer, total, self.node(), now));
        // A member that sits down among the audience leaves its place.
        if let Some(user) = state.attached(&request.session).map(|member| member.user.clone()) {
            state.detach(&user, &request.session);
            let by = Actor { user, session: request.session.clone() };
            self.enqueue_in(cell, &mut state, Command::Leave { by }, Completion::MustCommit);
        }
        self.note_size(cell, &state);
        drop(state);
        if first {
            self.0.parts.tracker.spawn(fan_out(self.clone(), Arc::clone(cell)));
        }
        Ok(Some(seat))
    }

    /// RAISE_HAND: a viewer asks the host to become a member, or no longer. The viewer hears HAND; the host within a
    /// second.
    pub fn raise_hand(&self, membership: &Membership, raised: bool) -> Result<(), Refusal> {
        let (audience, session) = (membership.cell.audience(), &membership.actor.session);
        let now = self.now();
        audience.raise_hand(session, raised, now).map_err(|retry_after| Refusal::HandsBusy { retry_after })?;
        audience
            .say(session, now, |viewer, _| say_hand(&*viewer.subscriber, (&viewer.user, &viewer.name), raised, now));
        Ok(())
    }

    /// INVITE_TO_MEMBER: the host lets a viewer with a raised hand in, or (`decline`) asks it to lower the hand.
    pub fn invite(
        &self,
        membership: &Membership,
        target: &UserId,
        decline: bool,
        request: &'static str,
        reference: Option<u64>,
    ) -> Result<(), Refusal> {
        let Actor { user, session } = &membership.actor;
        let cell = &membership.cell;
        let hand = {
            let state = cell.lock();
            if !state.is_attached(user, session) {
                return Err(Reject::NotMember.into());
            }
            if !state.room().is_host(user) {
                return Err(Reject::NotHost.into());
            }
            let hand = cell.audience().hand_of(target).ok_or(Reject::TargetGone)?;
            if !decline && state.room().members().len() as u64 >= self.0.parts.limits.room_members {
                return Err(Reject::Full.into());
            }
            hand
        };
        let (host, session, request) = (user.clone(), session.clone(), request.to_owned());
        let invitation = Invitation { host, session, request, reference };
        if hand.session.node == *self.node() {
            self.answer_hand(cell, &hand.session, decline, invitation);
        } else {
            let Invitation { host: user, session, request, reference } = invitation;
            let node = hand.session.node.clone();
            let relay = Relay::Invite { user, session, viewer: hand.session, decline, request, reference };
            self.0.parts.log.publish(cell.id(), Some(&node), relay.encode());
        }
        Ok(())
    }

    /// Carries out the host's answer to a raised hand of this node.
    pub(super) fn answer_hand(&self, cell: &Arc<RoomCell>, viewer: &SessionRef, decline: bool, by: Invitation) {
        let now = self.now();
        if !cell.audience().lower_hand(viewer) {
            return self.tell_uninvited(cell, by, &Refusal::Room(Reject::TargetGone));
        }
        cell.audience().say(viewer, now, |viewer, _| {
            say_hand(&*viewer.subscriber, (&viewer.user, &viewer.name), false, now);
        });
        if !decline {
            self.promote(cell, viewer, by);
        }
    }

    /// Makes a viewer a member, by a JOIN over its session. The host vouches for the PIN.
    fn promote(&self, cell: &Arc<RoomCell>, session: &SessionRef, by: Invitation) {
        let token = ResumeToken::random();
        let new_token = token.hash();
        let (done, answer) = oneshot::channel();
        {
            let mut state = cell.lock();
            let pin = state.room().pin.clone();
            let invited = cell.audience().with(session, |viewer| {
                let ticket = JoinTicket {
                    user: viewer.user.clone(),
                    session: session.clone(),
                    subscriber: Arc::clone(&viewer.subscriber),
                    token,
                    last_seen: None,
                };
                let join = Join {
                    user: viewer.user.clone(),
                    name: Some(viewer.name.clone()),
                    session: session.clone(),
                    dialect: Dialect::V3,
                    transport: viewer.transport,
                    presented: None,
                    new_token,
                    pin: pin.map_or(PinProof::None, |against| PinProof::Checked { against, fits: true }),
                    origin: viewer.origin,
                    claim: OwnerClaim::default(),
                    moves: false,
                };
                (ticket, join)
            });
            let Some((ticket, join)) = invited.filter(|_| !state.is_retired()) else {
                drop(state);
                return self.tell_uninvited(cell, by, &Refusal::Room(Reject::TargetGone));
            };
            state.issue(ticket);
            self.enqueue_in(cell, &mut state, Command::Join(join), Completion::Join(JoinReply(done)));
        }
        let (hub, cell) = (self.clone(), Arc::clone(cell));
        self.0.parts.tracker.spawn(async move {
            let refusal = match answer.await {
                Ok(Ok(())) => return,
                Ok(Err(refusal)) => refusal,
                Err(_) => Refusal::Unavailable,
            };
            drop(cell.lock().take_ticket(&new_token));
            hub.tell_uninvited(&cell, by, &refusal);
            hub.retire(&cell);
        });
    }

    /// Tells the host that its invitation came to nothing.
    pub(super) fn tell_uninvited(&self, cell: &RoomCell, by: Invitation, refusal: &Refusal) {
        let Invitation { host: user, session, request, reference } = by;
        if session.node == *self.node() {
            return refuse_request(&cell.lock(), &user, &session, &request, reference, refusal);
        }
        let node = session.node.clone();
        let full = matches!(refusal, Refusal::Room(Reject::Full | Reject::AddressFull));
        let relay = Relay::NotInvited { user, session, full, request, reference };
        self.0.parts.log.publish(cell.id(), Some(&node), relay.encode());
    }

    /// A request of the host as the room decides it: a BAN of somebody whom only the audience knows.
    pub(super) fn known_to_room(&self, cell: &RoomCell, ask: Ask) -> Ask {
        match ask {
            Ask::Ban { target } => match cell.audience().origin_of(&target) {
                Some(client) => Ask::BanViewer { target, client },
                None => Ask::Ban { target },
            },
            other => other,
        }
    }

    /// Keeps a viewer's status for the digest. False: it came too soon after the last.
    pub(super) fn viewer_status(&self, membership: &Membership, status: StatusReport) -> bool {
        membership.cell.audience().note_status(&membership.actor.session, status, self.now(), STATUS_EVERY)
    }

    /// Tells the other nodes, the receivers here, the host and the log what is new; once a second for each room.
    fn report_audience(&self, cell: &Arc<RoomCell>) {
        let (now, audience) = (self.now(), cell.audience());
        let report = audience.report(now);
        if let Some(part) = report.part {
            let relay = Relay::Audience { node: self.node().clone(), part };
            self.0.parts.log.publish(cell.id(), None, relay.encode());
        }
        if let Some(count) = report.count {
            cell.lock().tell_audience_count(count, now);
        }
        let state = cell.lock();
        let host = state.host_here().filter(|host| host.dialect == Dialect::V3);
        let hands = audience.hands_for(host.map(|host| &host.session));
        if let Some(AttachedMember { subscriber, .. }) = host {
            for (hand, raised) in &hands {
                say_hand(&**subscriber, (&hand.user, &hand.name), *raised, now);
            }
        }
        let noted_here = state.host_here().is_some();
        drop(state);
        if let Some(count) = report.to_note.filter(|_| noted_here) {
            self.enqueue(cell, Command::CountAudience { count }, Completion::BestEffort);
        }
    }
}

fn say_hand(
    subscriber: &dyn Subscriber,
    (user, name): (&UserId, &Username),
    raised: bool,
    now: crate::domain::RoomTime,
) {
    let body = NoticeBody::Hand { user, name, raised };
    subscriber.notice(&Notice { body, now, encoded: std::cell::OnceCell::new() });
}

/// Delivers to a room's viewers here, slice by slice, as long as there is one.
async fn fan_out(hub: Hub, cell: Arc<RoomCell>) {
    let audience = cell.audience();
    let stop = hub.0.parts.stop.clone();
    while !audience.stop_serving() {
        let Some(mut round) = audience.begin_round() else {
            if stop.run_until_cancelled(audience.fed()).await.is_none() {
                return;
            }
            continue;
        };
        let mut more = true;
        while more {
            more = false;
            hub.contain(&cell, || more = audience.serve_slice(&mut round));
            tokio::task::yield_now().await;
        }
    }
}

/// Reports each room's audience, once a second.
pub(super) async fn run(hub: Hub) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for cell in hub.cells_in_order() {
            if !cell.audience().is_at_rest() {
                hub.contain(&cell, || hub.report_audience(&cell));
            }
        }
    }
}
