//! JOIN: from a request to a membership.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::delivery::Refusal;
use super::relay::Relay;
use super::room_cell::{Completion, JoinReply, JoinTicket, RoomCell};
use super::subscriber::Subscriber;
use super::{Hub, HubInner, Membership};
use crate::domain::{
    AddressTag, Dialect, Head, KeyHash, Pin, PinHash, ResumeToken, RoomId, SessionRef, TokenHash, TransportKind,
    UserId, Username,
};
use crate::quota::{Exceeded, QuotaPlace, Visitor};
use crate::room::{Actor, Command, Join, Origin, OwnerClaim, PinProof, Reject, Room};
use crate::telemetry::names;

/// How long a JOIN waits for the end of the live session that it would replace. A session that doesn't answer its probe
/// ends after 1.5 s.
const PROBE_PATIENCE: Duration = Duration::from_millis(2000);

/// A JOIN as the session passes it to the hub.
#[derive(Debug)]
pub struct JoinRequest {
    /// The room.
    pub room: RoomId,
    /// The userId it asks for.
    pub user: UserId,
    /// The name; `None` keeps the one of a resumed member.
    pub name: Option<Username>,
    /// The PIN as typed.
    pub pin: Option<Pin>,
    /// The resume token as presented.
    pub token: Option<ResumeToken>,
    /// The protocol that the client speaks.
    pub dialect: Dialect,
    /// The member's live session is to be replaced by this one, unseen by the others.
    pub moves: bool,
    /// The last event that the client saw: later CHAT lines are replayed.
    pub last_seen: Option<Head>,
    /// The session that joins.
    pub session: SessionRef,
    /// The transport of the session.
    pub transport: TransportKind,
    /// The client's address: for throttling; never stored.
    pub address: IpAddr,
    /// The quota place that the session holds from an earlier JOIN.
    pub place: Option<Arc<QuotaPlace>>,
    /// Hash of the client key.
    pub client: Option<KeyHash>,
    /// Its claim about the room's owner.
    pub claim: OwnerClaim,
    /// It wants to watch without being a member.
    pub viewer: bool,
}

impl JoinRequest {
    /// A v3 JOIN of a new member: without name, PIN and token.
    pub fn new(room: RoomId, user: UserId, session: SessionRef, transport: TransportKind, address: IpAddr) -> Self {
        Self {
            room,
            user,
            name: None,
            pin: None,
            token: None,
            dialect: Dialect::V3,
            moves: false,
            last_seen: None,
            session,
            transport,
            address,
            place: None,
            client: None,
            claim: OwnerClaim::default(),
            viewer: false,
        }
    }

    /// The user and address that the quotas count.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.user.clone(), self.address)
    }
}

/// The quotas' answer to a JOIN.
enum Admission {
    /// Sessions are not counted (`RATE_LIMITS=off`).
    Uncounted,
    Placed(Arc<QuotaPlace>),
    /// No place. Not final: the room may show that the member proves itself with its token.
    Full(Refusal),
}

impl Hub {
    /// Enters a room. On `Ok` the subscriber has ROOM_STATE; on `Err` the session is no member. When the future is
    /// dropped (the session ended), a JOIN that is committed all the same is disconnected.
    pub async fn join(&self, request: JoinRequest, subscriber: Arc<dyn Subscriber>) -> Result<Membership, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let mut request = request;
        let held = request.place.take();
        // Concurrently. A refusal by the quotas drops the opening of the room.
        let (admitted, mut visit) = tokio::try_join!(self.admit(&request, held), self.visit(&request.room))?;
        let place = match admitted {
            Admission::Uncounted => None,
            Admission::Placed(place) => Some(place),
            Admission::Full(refusal) => Some(self.readmit(&visit.cell, &request).ok_or(refusal)?),
        };
        let mut probed = false;
        loop {
            let cell = &visit.cell;
            let pin = self.check_pin(cell, &request).await?;
            let entered = if request.viewer || self.overflows(cell, &request) {
                self.try_watch(cell, &request, pin, &subscriber).map(|seat| seat.map(Some))
            } else {
                self.try_join(cell, &request, pin, &subscriber).await.map(|joined| joined.map(|()| None))
            };
            match entered {
                Ok(Some(viewer)) => {
                    let actor = Actor { user: request.user.clone(), session: request.session.clone() };
                    return Ok(Membership { cell: Arc::clone(cell), actor, place, viewer });
                }
                // Others took the last places while it waited.
                Err(Refusal::Room(Reject::Full)) if self.may_overflow(&request) => request.viewer = true,
                // The cell was retired meanwhile, or the PIN changed: again.
                Ok(None) | Err(Refusal::Room(Reject::PinStale)) => {}
                Err(Refusal::Room(Reject::ProbeFirst(session))) if !probed => {
                    probed = true;
                    self.probe(cell, &request.user, &session).await;
                }
                Err(Refusal::Room(Reject::ProbeFirst(_))) => return Err(Refusal::Room(Reject::UserIdTaken)),
                Err(refusal) => return Err(refusal),
            }
            visit = self.visit(&request.room).await?;
        }
    }

    async fn visit(&self, room: &RoomId) -> Result<Visit<'_>, Refusal> {
        Ok(Visit { hub: self, cell: self.open(room).await? })
    }

    /// Counts the JOIN and finds its session a place: the one that it holds, if it joins as the same user again.
    async fn admit(&self, request: &JoinRequest, held: Option<Arc<QuotaPlace>>) -> Result<Admission, Refusal> {
        let Some(quotas) = &self.0.parts.quotas else { return Ok(Admission::Uncounted) };
        let visitor = request.visitor();
        let taken = match held.filter(|place| *place.visitor() == visitor) {
            Some(place) => quotas.count_join(request.address).await.map(|()| place),
            None => quotas.take_place(&visitor).await.map(Arc::new),
        };
        match taken {
            Ok(place) => Ok(Admission::Placed(place)),
            Err(Exceeded::Rate { retry_after }) => Err(Refusal::JoinThrottled { retry_after }),
            Err(Exceeded::UserSessions) => Ok(Admission::Full(Refusal::SessionLimit)),
            Err(Exceeded::AddressSessions) => Ok(Admission::Full(Refusal::AddressFull)),
        }
    }

    /// A place beyond the bound for a member that proves itself with its token: it only takes back what it had.
    fn readmit(&self, cell: &RoomCell, request: &JoinRequest) -> Option<Arc<QuotaPlace>> {
        let quotas = self.0.parts.quotas.as_ref()?;
        presents_its_token(cell.lock().room(), request).then(|| Arc::new(quotas.readmit(&request.visitor())))
    }

    /// The address class, where addresses are counted.
    fn counted(&self, address: IpAddr) -> Option<AddressTag> {
        self.0.parts.quotas.is_some().then(|| AddressTag::of(address))
    }

    /// `None`: the cell was retired meanwhile.
    async fn try_join(
        &self,
        cell: &Arc<RoomCell>,
        request: &JoinRequest,
        pin: PinProof,
        subscriber: &Arc<dyn Subscriber>,
    ) -> Result<Option<()>, Refusal> {
        let token = ResumeToken::random();
        let join = self.join_of(request, pin, token.hash());
        let mut pending = PendingJoin { hub: self, cell, request, token: token.hash(), answered: false };
        {
            let mut state = cell.lock();
            if state.is_retired() {
                return Ok(None);
            }
            let (user, session, subscriber) = (request.user.clone(), request.session.clone(), Arc::clone(subscriber));
            state.issue(JoinTicket { user, session, subscriber, token, last_seen: request.last_seen });
        }
        let (done, answer) = oneshot::channel();
        self.enqueue(cell, Command::Join(join), Completion::Join(JoinReply(done)));
        answer.await.map_err(|_| Refusal::Unavailable)??;
        pending.answered = true;
        Ok(Some(()))
    }

    pub(super) fn join_of(&self, request: &JoinRequest, pin: PinProof, new_token: TokenHash) -> Join {
        Join {
            user: request.user.clone(),
            name: request.name.clone(),
            session: request.session.clone(),
            dialect: request.dialect,
            transport: request.transport,
            presented: request.token.as_ref().map(ResumeToken::hash),
            new_token,
            pin,
            origin: Origin { client: request.client, address: self.counted(request.address) },
            claim: request.claim,
            moves: request.moves,
        }
    }

    /// Checks the PIN before the room decides. Only a wrong one counts as a guess.
    async fn check_pin(&self, cell: &RoomCell, request: &JoinRequest) -> Result<PinProof, Refusal> {
        let Some(pin) = &request.pin else { return Ok(PinProof::None) };
        let against = {
            let state = cell.lock();
            let room = state.room();
            // The token proves more than the PIN.
            if presents_its_token(room, request) { return Ok(PinProof::None) } else { room.pin.clone() }
        };
        let Some(against) = against else {
            return Ok(PinProof::Fresh(self.hash_pin(pin.clone(), request.address).await?));
        };
        let quotas = self.0.parts.quotas.as_ref();
        if let Some(quotas) = quotas
            && let Err(exceeded) = quotas.guess(&request.room, request.address).await
        {
            metrics::counter!(names::PIN_THROTTLES).increment(1);
            let retry_after = exceeded.retry_after();
            return Err(Refusal::PinThrottled { retry_after });
        }
        let (pin, hash) = (pin.clone(), against.clone());
        let HubInner { pin_hasher, parts, .. } = &*self.0;
        let fits = pin_hasher.run(&parts.tracker, request.address, move || pin.matches(&hash)).await?;
        if let Some(quotas) = quotas.filter(|_| fits) {
            quotas.guessed_right(&request.room, request.address).await;
        }
        Ok(PinProof::Checked { against, fits })
    }

    /// Hashes a PIN with argon2, off the async threads, when it is the address's turn.
    pub async fn hash_pin(&self, pin: Pin, address: IpAddr) -> Result<PinHash, Refusal> {
        let HubInner { pin_hasher, parts, .. } = &*self.0;
        pin_hasher.run(&parts.tracker, address, move || pin.hash()).await?.map_err(|_| Refusal::Internal)
    }

    /// Probes a live member's session and waits until it has ended, at most `PROBE_PATIENCE`.
    async fn probe(&self, cell: &Arc<RoomCell>, user: &UserId, session: &SessionRef) {
        if session.node == *self.node() {
            self.probe_here(cell, user, session);
        } else {
            let relay = Relay::Probe { user: user.clone(), session: session.clone() };
            self.0.parts.log.publish(cell.id(), Some(&session.node), relay.encode());
        }
        let gone = async {
            loop {
                let changed = cell.changed();
                if !cell.lock().room().member(user).is_some_and(|member| member.is_on(session)) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(PROBE_PATIENCE, gone).await;
    }

    /// Probes a session of this node.
    fn probe_here(&self, cell: &Arc<RoomCell>, user: &UserId, session: &SessionRef) {
        let known = {
            let state = cell.lock();
            let known = state.attached(session).filter(|member| member.user == *user);
            // Or its JOIN is committed, and this node has not heard of it yet.
            known.inspect(|member| member.subscriber.probe()).is_some() || state.knows(user, session)
        };
        if !known {
            // The session has ended, and its Disconnect is under way; or the replica came from a log that has lost it.
            self.lose(cell, user.clone(), session.clone());
        }
    }

    /// Probes a session of this node for another node. Silence ends the session, which its node's commit tells the
    /// others.
    pub(super) fn probe_for_another_node(&self, room: &RoomId, user: UserId, session: SessionRef) {
        if session.node != *self.node() {
            return;
        }
        if let Some(cell) = self.find(room) {
            self.probe_here(&cell, &user, &session);
            return;
        }
        // The session has ended, and so has this node's replica, while the other node's still shows the member: opening
        // the room disconnects the member, if the log shows it too.
        let (hub, room) = (self.clone(), room.clone());
        self.0.parts.tracker.spawn(async move {
            match hub.open(&room).await {
                Ok(cell) => hub.retire(&cell),
                Err(refusal) => {
                    tracing::warn!(roomId = %room, %refusal, "a room that another node asks about can't be opened");
                }
            }
        });
    }
}

/// Whether the JOIN presents the token of the member that it asks for.
fn presents_its_token(room: &Room, request: &JoinRequest) -> bool {
    let Some(token) = &request.token else { return false };
    room.member(&request.user).is_some_and(|member| member.knows(&token.hash()))
}

/// A JOIN's use of a cell, which retires an empty cell at its end.
struct Visit<'a> {
    hub: &'a Hub,
    cell: Arc<RoomCell>,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.hub.retire(&self.cell);
    }
}

/// A JOIN whose session waits for the answer. Dropped without one, it gives the JOIN up and disconnects a member that
/// was let in meanwhile, because the session doesn't know of it. An earlier membership is the session's to give back.
struct PendingJoin<'a> {
    hub: &'a Hub,
    cell: &'a Arc<RoomCell>,
    request: &'a JoinRequest,
    token: TokenHash,
    /// The session has got its answer.
    answered: bool,
}

impl Drop for PendingJoin<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.cell.lock();
        if state.give_up(&self.token) {
            let JoinRequest { user, session, .. } = self.request;
            self.hub.lose_in(self.cell, &mut state, user.clone(), session.clone());
        }
    }
}
