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
use crate::quota::{Exceeded, Place, Visitor};
use crate::room::{Actor, Command, Join, Origin, OwnerClaim, PinProof, Reject, Room};
use crate::telemetry::names;

/// How long a live member that would be replaced has for its sign of life; the session ends itself at 1.5 s.
const PROBE: Duration = Duration::from_millis(2000);

/// A JOIN as the session hands it to the hub.
#[derive(Debug)]
pub struct JoinRequest {
    /// Which room.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// Called what.
    pub name: Option<Username>,
    /// PIN, as typed.
    pub pin: Option<Pin>,
    /// Token, as presented.
    pub token: Option<ResumeToken>,
    /// Dialect.
    pub dialect: Dialect,
    /// The last event that the client saw, to be sent the CHAT that it missed.
    pub last_seen: Option<Head>,
    /// The session.
    pub session: SessionRef,
    /// What carries it.
    pub transport: TransportKind,
    /// Where the client is (throttling only; never stored).
    pub address: IpAddr,
    /// The place that the session holds from a JOIN before.
    pub place: Option<Arc<Place>>,
    /// Hash of the key that its client keeps.
    pub client: Option<KeyHash>,
    /// What it says of whose room this is.
    pub claim: OwnerClaim,
}

impl JoinRequest {
    /// Somebody new, in the current dialect: no name, no PIN, no token, nothing seen.
    pub fn new(room: RoomId, user: UserId, session: SessionRef, transport: TransportKind, address: IpAddr) -> Self {
        Self {
            room,
            user,
            name: None,
            pin: None,
            token: None,
            dialect: Dialect::V3,
            last_seen: None,
            session,
            transport,
            address,
            place: None,
            client: None,
            claim: OwnerClaim::default(),
        }
    }

    /// Who asks, as quotas see it.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.user.clone(), self.address)
    }
}

impl Hub {
    /// Enters a room. When it answers `Ok`, the subscriber has ROOM_STATE; when it answers `Err`, nothing is bound.
    /// Dropping the future (the session ended) leaves nothing behind: a JOIN that was committed all the same is disconnected.
    pub async fn join(&self, request: JoinRequest, subscriber: Arc<dyn Subscriber>) -> Result<Membership, Refusal> {
        if self.is_draining() {
            return Err(Refusal::Draining);
        }
        let mut request = request;
        let held = request.place.take();
        // Neither waits for the other. One turned away drops what it was about to open.
        let (admitted, mut visit) = tokio::try_join!(self.admit(&request, held), self.visit(&request.room))?;
        let place = match admitted {
            Ok(place) => place,
            Err(full) => self.readmit(&visit.cell, &request).ok_or(full)?,
        };
        let mut probed = false;
        loop {
            let cell = &visit.cell;
            let pin = self.prove(cell, &request).await?;
            match self.try_join(cell, &request, pin, &subscriber).await {
                Ok(Some(actor)) => return Ok(Membership { cell: Arc::clone(cell), actor, place }),
                // Retired between our two looks at it, or the PIN changed: once more.
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

    /// Counts the JOIN, and finds its session a place: the one that it holds, if it joins as the same user again. Full is
    /// not the last word: whether the member proves itself is seen when the room is there.
    async fn admit(
        &self,
        request: &JoinRequest,
        held: Option<Arc<Place>>,
    ) -> Result<Result<Option<Arc<Place>>, Refusal>, Refusal> {
        let Some(quotas) = &self.0.parts.quotas else { return Ok(Ok(None)) };
        let visitor = request.visitor();
        let taken = match held.filter(|place| *place.visitor() == visitor) {
            Some(place) => quotas.join(request.address).await.map(|()| place),
            None => quotas.enter(&visitor).await.map(Arc::new),
        };
        match taken {
            Ok(place) => Ok(Ok(Some(place))),
            Err(Exceeded::Rate { retry_after }) => Err(Refusal::JoinThrottled { retry_after }),
            Err(Exceeded::UserSessions) => Ok(Err(Refusal::SessionLimit)),
            Err(Exceeded::AddressSessions) => Ok(Err(Refusal::AddressFull)),
        }
    }

    /// There is no place, but a member with its token only comes back to what it has.
    fn readmit(&self, cell: &RoomCell, request: &JoinRequest) -> Option<Option<Arc<Place>>> {
        let quotas = self.0.parts.quotas.as_ref()?;
        proves_itself(&cell.lock().room, request).then(|| Some(Arc::new(quotas.readmit(&request.visitor()))))
    }

    /// The class of an address, where addresses are counted.
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
    ) -> Result<Option<Actor>, Refusal> {
        let token = ResumeToken::random();
        let join = Join {
            user: request.user.clone(),
            name: request.name.clone(),
            session: request.session.clone(),
            dialect: request.dialect,
            transport: request.transport,
            presented: request.token.as_ref().map(ResumeToken::hash),
            new_token: token.hash(),
            pin,
            origin: Origin { client: request.client, address: self.counted(request.address) },
            claim: request.claim,
        };
        let mut waits = Waits { hub: self, cell, request, token: token.hash(), told: false };
        {
            let mut state = cell.lock();
            if state.retired {
                return Ok(None);
            }
            let (user, session, subscriber) = (request.user.clone(), request.session.clone(), Arc::clone(subscriber));
            state.issue(JoinTicket { user, session, subscriber, token, last_seen: request.last_seen });
        }
        let (done, answer) = oneshot::channel();
        self.enqueue(cell, Command::Join(join), Completion::Join(JoinReply(done)));
        answer.await.map_err(|_| Refusal::Unavailable)??;
        waits.told = true;
        Ok(Some(Actor { user: request.user.clone(), session: request.session.clone() }))
    }

    /// What can be said of the PIN before the room decides. A wrong one counts; a right one doesn't.
    async fn prove(&self, cell: &RoomCell, request: &JoinRequest) -> Result<PinProof, Refusal> {
        let Some(pin) = &request.pin else { return Ok(PinProof::None) };
        let against = {
            let room = &cell.lock().room;
            // The token proves more than a PIN.
            if proves_itself(room, request) { return Ok(PinProof::None) } else { room.pin.clone() }
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
        let HubInner { hasher, parts, .. } = &*self.0;
        let fits = hasher.run(&parts.tracker, request.address, move || pin.matches(&hash)).await?;
        if let Some(quotas) = quotas.filter(|_| fits) {
            quotas.guessed_right(&request.room, request.address).await;
        }
        Ok(PinProof::Checked { against, fits })
    }

    /// argon2, off the async threads, when the address's turn has come.
    pub async fn hash_pin(&self, pin: Pin, address: IpAddr) -> Result<PinHash, Refusal> {
        let HubInner { hasher, parts, .. } = &*self.0;
        hasher.run(&parts.tracker, address, move || pin.hash()).await?.map_err(|_| Refusal::Internal)
    }

    /// Asks a live member's connection for a sign of life, and waits until it is gone or the time is over.
    async fn probe(&self, cell: &Arc<RoomCell>, user: &UserId, session: &SessionRef) {
        if session.node == *self.node() {
            self.probe_here(cell, user, session);
        } else {
            let relay = Relay::Probe { user: user.clone(), session: session.clone() };
            self.0.parts.log.publish(cell.id(), Some(&session.node), relay.encode());
        }
        let gone = async {
            loop {
                let changed = cell.changed.notified();
                if !cell.lock().room.member(user).is_some_and(|member| member.is_on(session)) {
                    return;
                }
                changed.await;
            }
        };
        let _ = tokio::time::timeout(PROBE, gone).await;
    }

    /// Probes a session of this node.
    fn probe_here(&self, cell: &Arc<RoomCell>, user: &UserId, session: &SessionRef) {
        let known = {
            let state = cell.lock();
            let known = state.attached(session).filter(|member| member.user == *user);
            // Or its JOIN is in, and this node is the last to hear of it.
            known.inspect(|member| member.subscriber.probe()).is_some() || state.knows(user, session)
        };
        if !known {
            // A session that no longer is: its Disconnect is on its way, or was lost with a process before.
            self.lose(cell, user.clone(), session.clone());
        }
    }

    /// Another node wants to know whether a session of this one lives. Silence ends it, and the others hear of that.
    pub(super) fn probe_for_another_node(&self, room: &RoomId, user: UserId, session: SessionRef) {
        if session.node != *self.node() {
            return;
        }
        if let Some(cell) = self.find(room) {
            self.probe_here(&cell, &user, &session);
            return;
        }
        // A process before this one held it: opening the room finds that out.
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

/// Whether it presents the token of the member that it wants to be.
fn proves_itself(room: &Room, request: &JoinRequest) -> bool {
    let Some(token) = &request.token else { return false };
    room.member(&request.user).is_some_and(|member| member.knows(&token.hash()))
}

/// Somebody looks at a cell: empty ones go when the last one has looked, however that ends.
struct Visit<'a> {
    hub: &'a Hub,
    cell: Arc<RoomCell>,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.hub.retire(&self.cell);
    }
}

/// A JOIN that somebody waits for. When nobody does any more, it is given up: if it got in, the membership is given back,
/// because its session does not know of it. What the session was before it asked is the session's to give back.
struct Waits<'a> {
    hub: &'a Hub,
    cell: &'a Arc<RoomCell>,
    request: &'a JoinRequest,
    token: TokenHash,
    /// The session has heard that it is in.
    told: bool,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let mut state = self.cell.lock();
        if state.give_up(&self.token) {
            let JoinRequest { user, session, .. } = self.request;
            self.hub.lose_in(self.cell, &mut state, user.clone(), session.clone());
        }
    }
}
