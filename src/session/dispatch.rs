//! From a decoded message to the hub: who the session is, and what it may ask.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::counts::Counted;
use super::outbox::Outbox;
use super::{Life, Services};
use crate::domain::{CloseCode, Invalid, SessionRef, Slot, Tick};
use crate::hub::outlet::{JoinRequest, Outlet, Refusal, Reply};
use crate::hub::{Departure, Membership};
use crate::protocol::{self, Ask, BadRequest, ClientMessage, Compact, JoinMessage, Request};
use crate::room::Command;
use crate::telemetry::{HotCounters, names};

static MESSAGES_IN: HotCounters = HotCounters::new(names::MESSAGES_IN, "type", ClientMessage::KINDS);

pub(super) struct Dispatch {
    services: Services,
    session: SessionRef,
    outbox: Arc<Outbox>,
    counted: Counted,
    address: IpAddr,
    membership: Option<Membership>,
}

impl Dispatch {
    pub(super) fn new(
        services: &Services,
        session: SessionRef,
        outbox: Arc<Outbox>,
        counted: Counted,
        address: IpAddr,
    ) -> Self {
        Self { services: services.clone(), session, outbox, counted, address, membership: None }
    }

    /// What must be given back when the session ends.
    pub(super) fn into_membership(self) -> Option<Membership> {
        self.membership
    }

    /// Deals with one JSON message. `Some`: the session ends in order.
    pub(super) async fn message(&mut self, text: &[u8], life: &Life) -> Option<CloseCode> {
        let Request { reference, message } = match protocol::decode(text, &self.services.rules) {
            Ok(request) => request,
            Err(bad) => {
                self.refuse_bad(&bad);
                return None;
            }
        };
        let request = message.kind();
        MESSAGES_IN.increment(request, 1);
        match message {
            ClientMessage::Ping { echo } => {
                self.outbox.push(protocol::encode_pong(echo.as_ref(), self.services.clock.now()))
            }
            ClientMessage::Join(join) => {
                let result = self.join(join).await;
                let outcome = result.as_ref().err().map_or("ok", |refusal| protocol::refusal_code(refusal).0.as_str());
                metrics::counter!(names::JOINS, "result" => outcome).increment(1);
                match result {
                    Ok(()) => life.note_join(),
                    Err(refusal) => self.refuse(reference, request, &refusal),
                }
            }
            ClientMessage::Leave => {
                let membership = self.membership.take();
                if let Some(membership) = membership {
                    self.services.hub.depart(membership, Departure::Left);
                }
                return Some(CloseCode::Normal);
            }
            member_message => match self.membership.clone() {
                Some(membership) => self.member(&membership, member_message, request, reference).await,
                None => self.refuse(reference, request, &Refusal::Room(crate::room::Reject::NotMember)),
            },
        }
        None
    }

    /// Enters a room. A JOIN for another room first leaves the one before; one as somebody else in the same room is the
    /// room's to decide: it takes the one before out when it lets the other in, and a refusal changes nothing.
    async fn join(&mut self, join: JoinMessage) -> Result<(), Refusal> {
        let place = self.membership.as_ref().and_then(Membership::place).cloned();
        if let Some(before) = self.membership.take_if(|membership| *membership.room() != join.room) {
            self.services.hub.depart(before, Departure::Left);
        }
        let request = JoinRequest {
            room: join.room,
            user: join.user,
            name: join.name,
            pin: join.pin,
            token: join.token,
            dialect: join.dialect,
            last_seen: join.last_seen,
            session: self.session.clone(),
            transport: self.counted.transport,
            address: self.address,
            place,
        };
        self.counted.speaks(join.dialect);
        let outlet: Arc<dyn Outlet> = self.outbox.clone();
        self.membership = Some(self.services.hub.join(request, outlet).await?);
        Ok(())
    }

    async fn member(
        &mut self,
        membership: &Membership,
        message: ClientMessage,
        request: &'static str,
        reference: Option<u64>,
    ) {
        let hub = &self.services.hub;
        let done = match message {
            ClientMessage::Command(ask) => match self.command(membership, ask).await {
                Ok(command) => {
                    hub.submit(membership, command, request, reference);
                    return;
                }
                Err(refusal) => Err(refusal),
            },
            ClientMessage::Heartbeat { position, playing, true_at } => {
                hub.heartbeat(membership, position, playing, true_at)
            }
            ClientMessage::Position { position, .. } => {
                hub.position(membership, position);
                Ok(())
            }
            ClientMessage::Signal { to, signal } => hub.signal(membership, &to, &signal),
            ClientMessage::Status(status) => {
                hub.member_status(membership, status);
                Ok(())
            }
            ClientMessage::RequestSync => {
                hub.sync(membership);
                Ok(())
            }
            ClientMessage::Join(_) | ClientMessage::Leave | ClientMessage::Ping { .. } => Ok(()),
        };
        if let Err(refusal) = done {
            self.refuse(reference, request, &refusal);
        }
    }

    /// The room's command for what a member asks: with its name, and with the lead of a scheduled one.
    async fn command(&self, membership: &Membership, ask: Ask) -> Result<Command, Refusal> {
        let by = membership.actor().clone();
        let lead = || -> Duration { self.services.hub.lead(membership) };
        Ok(match ask {
            Ask::Rename(name) => Command::Rename { by, name },
            Ask::GuestControl(enabled) => Command::SetGuestControl { by, enabled },
            Ask::TransferHost(target) => Command::TransferHost { by, target },
            Ask::Kick(target) => Command::Kick { by, target },
            Ask::Ban(target) => Command::Ban { by, target },
            Ask::Unban(target) => Command::Unban { by, target },
            Ask::SetPin(None) => Command::SetPin { by, pin: None },
            Ask::SetPin(Some(pin)) => Command::SetPin { by, pin: Some(self.services.hub.hash_pin(pin).await?) },
            Ask::PlayPause { control, position, true_at } => {
                Command::PlayPause { by, control, position, true_at, lead: lead() }
            }
            Ask::Seek { position, resume, true_at } => Command::Seek { by, position, resume, true_at, lead: lead() },
            Ask::SetRate(rate) => Command::SetRate { by, rate, lead: lead() },
            Ask::SetUrl { url, position } => Command::SetUrl { by, url, position },
            Ask::Adopt { position, playing, url } => Command::Adopt { by, position, playing, url, lead: lead() },
            Ask::Ready { gate, target } => Command::Ready { by, gate, target, lead: lead() },
            Ask::Chat(text) => Command::Chat { by, text },
            Ask::Custom { namespace, payload } => Command::Custom { by, namespace, payload },
        })
    }

    /// Deals with one compact message.
    pub(super) fn compact(&mut self, bytes: &[u8]) {
        let arrived = self.services.clock.now();
        match protocol::decode_compact(bytes, &self.services.rules.limits) {
            Ok(Compact::ClockProbe { id, t0 }) => {
                // The departure time is taken as late as this task can know it.
                let reply = protocol::encode_clock_reply(id, t0, arrived, self.services.clock.now());
                self.outbox.push_compact(reply);
            }
            Ok(Compact::Tick { playing, seq, position, at, rate }) => {
                if let Some(membership) = &self.membership {
                    let tick = Tick { slot: Slot(0), seq, playing, from_host: false, position, at, rate };
                    self.services.hub.tick(membership, tick);
                }
            }
            Ok(Compact::Unknown) => {}
            Err(Invalid { code, message }) => {
                self.refuse_bad(&BadRequest { code, message, reference: None, request: "" });
            }
        }
    }

    fn refuse(&self, reference: Option<u64>, request: &'static str, refusal: &Refusal) {
        self.outbox.reply(Reply::Refused { reference, request, refusal });
    }

    fn refuse_bad(&self, bad: &BadRequest) {
        metrics::counter!(names::MESSAGES_REFUSED, "code" => bad.code.as_str()).increment(1);
        self.outbox.push(protocol::encode_error(bad.code, &bad.message, bad.reference, bad.request, None));
    }
}
