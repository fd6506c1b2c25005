//! From a decoded message to the hub: authenticates the sender, charges the message, and calls the hub.

use std::fmt;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tracing::{Span, field};

use super::budget::SessionBudget;
use super::counts::OpenSession;
use super::outbox::Outbox;
use super::{PeerLiveness, Services};
use crate::domain::{CloseCode, ErrorCode, Fallback, Invalid, Pin, RoomId, SessionRef, TransportKind, UserId};
use crate::hub::JoinRequest;
use crate::hub::delivery::{Refusal, Reply};
use crate::hub::subscriber::RoomDelivery;
use crate::hub::subscriber::Subscriber;
use crate::hub::{Departure, Membership};
use crate::protocol::{self, BadRequest, ClientMessage, ClientRequest, Compact, JoinMessage};
use crate::room::{Ask, Reject};
use crate::telemetry::{HotCounters, names};

static MESSAGES_IN: HotCounters = HotCounters::new(names::MESSAGES_IN, "type", ClientMessage::KINDS);

pub(super) struct Dispatch {
    services: Services,
    session: SessionRef,
    outbox: Arc<Outbox>,
    counted: OpenSession,
    address: IpAddr,
    membership: Option<Membership>,
    /// Created by the first message that is charged.
    budget: Option<Box<SessionBudget>>,
    /// Why the client doesn't use WebTransport; counted once.
    fallback: Option<Fallback>,
}

impl Dispatch {
    pub(super) fn new(
        services: &Services,
        session: SessionRef,
        outbox: Arc<Outbox>,
        counted: OpenSession,
        address: IpAddr,
    ) -> Self {
        Self {
            services: services.clone(),
            session,
            outbox,
            counted,
            address,
            membership: None,
            budget: None,
            fallback: None,
        }
    }

    /// Handles one JSON message. `session` is the session's span.
    pub(super) fn message<'a>(&'a mut self, text: &[u8], life: &'a PeerLiveness, session: &'a Span) -> MessageWork<'a> {
        match self.begin(text, life, session) {
            Some((own, MessageWork::Waits(mut work))) => MessageWork::Waits(Box::pin(async move {
                let span = if own.is_disabled() { session } else { &own };
                // Like `Instrument`, but without a clone of the span, which would cost more than the rest of the
                // message.
                poll_fn(|context| span.in_scope(|| work.as_mut().poll(context))).await;
            })),
            Some((_, done)) => done,
            None => MessageWork::Done(None),
        }
    }

    /// Decodes a message and begins to handle it, in a span of its own.
    fn begin<'a>(
        &'a mut self,
        text: &[u8],
        life: &'a PeerLiveness,
        session: &'a Span,
    ) -> Option<(Span, MessageWork<'a>)> {
        let ClientRequest { reference, message } = match protocol::decode(text, &self.services.rules) {
            Ok(request) => request,
            Err(bad) => {
                self.refuse_bad(&bad);
                return None;
            }
        };
        let request = message.kind();
        MESSAGES_IN.increment(request, 1);
        let own = self.span_of(request, reference, &message, session);
        let span = if own.is_disabled() { session } else { &own };
        let work = span.in_scope(|| self.request(message, text.len(), request, reference, life, session));
        Some((own, work))
    }

    /// The span of a request's log lines and trace; disabled unless `debug` is recorded. Its parent serves the log
    /// lines; its own fields serve the trace.
    fn span_of(&self, request: &'static str, reference: Option<u64>, message: &ClientMessage, session: &Span) -> Span {
        let span = tracing::debug_span!(
            parent: session,
            "request",
            otel.name = request,
            request,
            sessionId = %self.session,
            correlationId = %Correlation { session: &self.session, reference },
            transport = self.counted.transport.as_str(),
            roomId = field::Empty,
            userId = field::Empty,
            outcome = field::Empty,
        );
        match (message, &self.membership) {
            _ if span.is_disabled() => {}
            (ClientMessage::Join(join), _) => tell_place(&span, &join.room, &join.user),
            (_, Some(membership)) => tell_place(&span, membership.room(), &membership.actor().user),
            (_, None) => {}
        }
        span
    }

    fn request<'a>(
        &'a mut self,
        message: ClientMessage,
        bytes: usize,
        request: &'static str,
        reference: Option<u64>,
        life: &'a PeerLiveness,
        session: &'a Span,
    ) -> MessageWork<'a> {
        match message {
            ClientMessage::Ping { echo } => {
                self.outbox.push(protocol::encode_pong(echo.as_ref(), self.services.clock.now()));
            }
            ClientMessage::Join(join) => {
                return MessageWork::Waits(Box::pin(self.enter(join, request, reference, life, session)));
            }
            // A sign of life, before JOIN too.
            ClientMessage::Alive => {}
            ClientMessage::Leave => {
                if let Some(membership) = self.membership.take() {
                    self.services.hub.depart(membership, Departure::Left);
                }
                return MessageWork::Done(Some(CloseCode::Normal));
            }
            message => {
                let Some(membership) = self.membership.clone() else {
                    self.refuse(reference, request, &Refusal::Room(Reject::NotMember));
                    return MessageWork::Done(None);
                };
                if membership.is_viewer() && !message.is_for_audience() {
                    self.refuse(reference, request, &Refusal::Forbidden);
                    return MessageWork::Done(None);
                }
                if let Err(refusal) = self.afford(&membership, &message, bytes) {
                    self.refuse(reference, request, &refusal);
                } else if let ClientMessage::SetPin(pin) = message {
                    return MessageWork::Waits(Box::pin(self.set_pin(membership, pin, request, reference)));
                } else {
                    self.member(&membership, message, request, reference);
                }
            }
        }
        MessageWork::Done(None)
    }

    async fn enter(
        &mut self,
        join: JoinMessage,
        request: &'static str,
        reference: Option<u64>,
        life: &PeerLiveness,
        session: &Span,
    ) {
        self.count_fallback(join.fallback, join.moves);
        let (with_token, moves, dialect) = (join.token.is_some(), join.moves, join.dialect);
        let result = self.join(join, session).await;
        self.count_join(with_token, moves, &result);
        match result {
            Ok(()) => {
                life.note_join(dialect);
                self.outbox.wake_watchdog();
            }
            Err(refusal) => self.refuse(reference, request, &refusal),
        }
    }

    /// Charges a message to the buckets of the session and of its address.
    fn afford(&mut self, membership: &Membership, message: &ClientMessage, bytes: usize) -> Result<(), Refusal> {
        let Services { hub, rules, rates, addresses, .. } = &self.services;
        let costs = matches!(
            message,
            ClientMessage::Ask(_)
                | ClientMessage::SetPin(_)
                | ClientMessage::Signal { .. }
                | ClientMessage::RequestSync
        );
        if !rates || !costs {
            return Ok(());
        }
        let limits = &rules.limits;
        let budget =
            self.budget.get_or_insert_with(|| Box::new(SessionBudget::new(limits, addresses.of(self.address))));
        let taken = match message {
            // argon2 for a member that may not set the PIN would be wasted.
            ClientMessage::SetPin(_) | ClientMessage::Ask(Ask::SetPin { .. }) if !hub.is_host(membership) => {
                return Err(Reject::NotHost.into());
            }
            ClientMessage::Ask(_) | ClientMessage::SetPin(_) => {
                // What moves the playback must not wait because many watch; only those in control may send it.
                let is_said = matches!(message, ClientMessage::Ask(ask) if !ask.is_scheduled());
                let hearers = if is_said { hub.hearers(membership) } else { hub.members(membership) };
                budget.command(limits, message, bytes, hearers)
            }
            ClientMessage::Signal { to, .. } => budget.signal(limits, to, bytes),
            _ => budget.sync(limits, hub.members(membership)),
        };
        taken.map_err(|over| {
            metrics::counter!(names::BUDGET_REFUSALS, "budget" => over.budget).increment(1);
            Refusal::OverBudget { retry_after: over.retry_after }
        })
    }

    async fn set_pin(&self, membership: Membership, pin: Pin, request: &'static str, reference: Option<u64>) {
        match self.services.hub.hash_pin(pin, self.address).await {
            Ok(pin) => {
                self.services.hub.submit(&membership, Ask::SetPin { pin: Some(pin) }, request, reference);
            }
            Err(refusal) => self.refuse(reference, request, &refusal),
        }
    }

    /// Enters a room. A JOIN for another room first leaves the current one. A JOIN as another user of the same room is
    /// decided by the room: it removes the current member when it admits the new one; a refusal changes nothing.
    async fn join(&mut self, join: JoinMessage, session: &Span) -> Result<(), Refusal> {
        let place = self.membership.as_ref().and_then(Membership::place).cloned();
        if let Some(before) = self.membership.take_if(|membership| *membership.room() != join.room) {
            self.services.hub.depart(before, Departure::Left);
        }
        let (session_ref, transport) = (self.session.clone(), self.counted.transport);
        let request = JoinRequest {
            name: join.name,
            pin: join.pin,
            token: join.token,
            dialect: join.dialect,
            moves: join.moves,
            last_seen: join.last_seen,
            client: join.client,
            claim: join.claim,
            viewer: join.viewer,
            place,
            ..JoinRequest::new(join.room, join.user, session_ref, transport, self.address)
        };
        self.counted.speaks(join.dialect);
        let subscriber: Arc<dyn Subscriber> = self.outbox.clone();
        let membership = self.services.hub.join(request, subscriber).await?;
        tell_place(session, membership.room(), &membership.actor().user);
        self.membership = Some(membership);
        Ok(())
    }

    fn count_join(&self, with_token: bool, moves: bool, result: &Result<(), Refusal>) {
        let code = result.as_ref().err().map(|refusal| protocol::refusal_code(refusal).0);
        let word = code.map_or("ok", ErrorCode::as_str);
        metrics::counter!(names::JOINS, "result" => word).increment(1);
        tracing::debug!(result = word, "JOIN");
        let outcome = match (code, with_token) {
            (None, true) if self.outbox.has_resumed() && moves => "moved",
            (None, true) if self.outbox.has_resumed() => "resumed",
            (None, false) if self.outbox.has_resumed() => "replaced",
            (None, true) => "too_late",
            (Some(ErrorCode::TokenInvalid), _) => "token_invalid",
            (Some(_), true) => "refused",
            (_, false) => return,
        };
        metrics::counter!(names::RESUMES, "outcome" => outcome).increment(1);
    }

    /// A reason not to use WebTransport counts on WebSocket only, one to move for on either transport.
    fn count_fallback(&mut self, fallback: Option<Fallback>, moves: bool) {
        let fell_back = fallback.filter(|reason| match reason {
            Fallback::Credit => moves,
            _ => self.counted.transport == TransportKind::WebSocket,
        });
        if let (None, Some(reason)) = (self.fallback, fell_back) {
            self.fallback = Some(reason);
            metrics::counter!(names::FALLBACKS, "reason" => reason.as_str()).increment(1);
        }
    }

    fn member(&self, membership: &Membership, message: ClientMessage, request: &'static str, reference: Option<u64>) {
        let hub = &self.services.hub;
        let done = match message {
            ClientMessage::Ask(ask) => {
                hub.submit(membership, ask, request, reference);
                Ok(())
            }
            ClientMessage::Heartbeat { position, playing, true_at } => {
                hub.heartbeat(membership, position, playing, true_at)
            }
            ClientMessage::Position { position, playing } => {
                hub.position(membership, position, playing);
                Ok(())
            }
            ClientMessage::Signal { to, signal } => hub.signal(membership, &to, &signal, request, reference),
            ClientMessage::RequestSync => {
                hub.sync(membership);
                Ok(())
            }
            ClientMessage::RaiseHand { raised } => hub.raise_hand(membership, raised),
            ClientMessage::Invite { target, decline } => hub.invite(membership, &target, decline, request, reference),
            // Handled before: these need no membership, or wait.
            ClientMessage::Join(_)
            | ClientMessage::Leave
            | ClientMessage::Ping { .. }
            | ClientMessage::Alive
            | ClientMessage::SetPin(_) => Ok(()),
        };
        if let Err(refusal) = done {
            self.refuse(reference, request, &refusal);
        }
    }

    /// Handles one compact message.
    pub(super) fn compact(&mut self, bytes: &[u8]) {
        let arrived = self.services.clock.now();
        match protocol::decode_compact(bytes, &self.services.rules.limits) {
            Ok(Compact::ClockProbe { id, t0 }) => {
                // Taken as late as this task can: the departure time of the reply.
                let reply = protocol::encode_clock_reply(id, t0, arrived, self.services.clock.now());
                self.outbox.push_compact(reply);
            }
            Ok(Compact::Tick(report)) => match &self.membership {
                Some(membership) if membership.is_viewer() => self.refuse(None, "", &Refusal::Forbidden),
                Some(membership) => self.services.hub.tick(membership, report),
                None => {}
            },
            Ok(Compact::Status(report)) => {
                if let Some(membership) = &self.membership {
                    self.services.hub.member_status(membership, report);
                }
            }
            Ok(Compact::Unknown) => {}
            Err(Invalid { code, message }) => {
                self.refuse_bad(&BadRequest { code, message, reference: None, request: "" });
            }
        }
    }

    fn refuse(&self, reference: Option<u64>, request: &'static str, refusal: &Refusal) {
        Span::current().record("outcome", protocol::refusal_code(refusal).0.as_str());
        self.outbox.reply(Reply::Refused { reference, request, refusal });
    }

    fn refuse_bad(&self, bad: &BadRequest) {
        metrics::counter!(names::MESSAGES_REFUSED, "code" => bad.code.as_str()).increment(1);
        self.outbox.push(protocol::encode_error(bad.code, &bad.message, bad.reference, bad.request, None));
    }
}

/// Gives the membership back however the session ends, including by a panic.
impl Drop for Dispatch {
    fn drop(&mut self) {
        if let Some(membership) = self.membership.take() {
            self.services.hub.depart(membership, Departure::Lost);
        }
    }
}

/// The progress of a message. One that waits is boxed: a future is as large as its largest state for all of its life,
/// and these are rare and short.
pub(super) enum MessageWork<'a> {
    /// `Some`: the session ends, after what is queued.
    Done(Option<CloseCode>),
    Waits(BoxFuture<'a, ()>),
}

/// Identifies a request here and at the client: the session id, which ROOM_STATE told the client, and the `ref`, if it
/// gave one.
struct Correlation<'a> {
    session: &'a SessionRef,
    reference: Option<u64>,
}

impl fmt::Display for Correlation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reference {
            Some(reference) => write!(f, "{}#{reference}", self.session),
            None => write!(f, "{}", self.session),
        }
    }
}

fn tell_place(span: &Span, room: &RoomId, user: &UserId) {
    span.record("roomId", field::display(room));
    span.record("userId", field::display(user));
}
