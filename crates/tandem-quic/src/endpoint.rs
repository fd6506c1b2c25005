//! An endpoint: one UDP socket, the connections that live on it, and the task that drives them all.
//!
//! quinn-proto is QUIC without I/O: packets in, packets and events out. quinn gives each connection a task, a channel and a
//! timer, which is right for a few busy ones. Here are many quiet ones that are busy together: a tick comes in and nine
//! leave. So the driver does for all of them what is due, in rounds:
//!
//! ```text
//!            recvmmsg ─► quinn_proto::Endpoint ─► connection ─┐
//! a handle touched it ─► Inbox ───────────────────────────────┼─► due ─► drive: packets out, events to the endpoint,
//!         its deadline ─► Deadlines ──────────────────────────┘          waiters woken, next deadline
//! ```
//! A round is bounded, and between two rounds the thread's other tasks have their turn: what they write goes out together.
//! An idle connection has no task, no timer and no buffers, only its state.
//!
//! **Several endpoints** share the port (SO_REUSEPORT) where there are cores for them: the cryptography of an endpoint's
//! connections is on one of them at a time. The kernel chooses the socket by the client's address. A client whose address
//! changes turns up at another one, which sees by the connection id whose the packet is, and hands it over. So none closes
//! its socket while another has connections: what the kernel had put there for them would be lost.
//!
//! **A panic** in the state of one connection drops that connection. One in what the connections share ends the endpoint,
//! and with it the process ([`Vital`](crate::vital::Vital)).

use std::any::Any;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn_proto::{
    ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, EndpointEvent, Incoming, ServerConfig, Transmit,
};
use quinn_udp::{BATCH_SIZE, RecvMeta};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection::{Connection, Inbox, Shared, State};
use super::deadlines::Deadlines;
use super::handshake::{self, Admitted, Place, Screen, Verdict};
use super::identity::Ids;
use super::socket::Socket;
use crate::clock::Clock;
use crate::telemetry::names;

/// Batches read in a round: more wait for the next one.
const BATCHES: usize = 4;
/// Connections driven in a round.
const ROUND: usize = 256;
/// Packets that one connection may send in a round.
const PACKETS: usize = 20;
/// A connection without packets for this long counts as silent.
const SILENCE: Duration = Duration::from_secs(1);
/// Packets of one endpoint that wait for another: beyond it they are lost, as UDP's may be.
const FORWARDED: usize = 1024;
/// Failed reads in a row after which the socket is given up.
const FAILURES: usize = 100;

/// One of the endpoints that share a port, as the others see it.
#[derive(Default)]
pub(super) struct Desk {
    inbox: Arc<Inbox>,
    /// Packets for its connections that came to another socket.
    forwarded: Mutex<Vec<Packet>>,
}

impl Desk {
    fn forward(&self, packet: Packet) {
        let mut forwarded = self.forwarded.lock();
        if forwarded.len() < FORWARDED {
            forwarded.push(packet);
            drop(forwarded);
            self.inbox.wake();
        }
    }
}

/// What came to a socket.
struct Packet {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    data: BytesMut,
}

/// A connection.
struct Slot {
    shared: Arc<Shared>,
    /// The deadline that is set for it.
    armed: Option<Instant>,
    heard: Hearing,
    /// What it counts for, while it lives.
    place: Place,
}

/// When packets of a connection came.
struct Hearing {
    last: Instant,
    /// A packet ended a silence since the connection was last driven.
    was_silent: bool,
}

impl Hearing {
    /// A packet came. Several may come before the connection is driven.
    fn hear(&mut self, now: Instant) {
        self.was_silent |= now.saturating_duration_since(self.last) > SILENCE;
        self.last = now;
    }
}

impl Slot {
    /// When there is something to do even if nothing happens.
    fn deadline(heard: Instant, state: &mut State, idle: Duration) -> Option<Instant> {
        let silent = state.is_open().then_some(heard + idle);
        silent.into_iter().chain(state.proto.poll_timeout()).min()
    }
}

/// What an endpoint starts with.
pub(super) struct Setup {
    pub(super) socket: Socket,
    pub(super) config: Arc<EndpointConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// All endpoints of the port, and which this is.
    pub(super) desks: Arc<[Desk]>,
    pub(super) number: usize,
    /// Tells whose a packet is, if there are several.
    pub(super) ids: Option<Ids>,
    /// Silence after which a connection is lost.
    pub(super) idle: Duration,
    pub(super) screen: Screen,
    /// From here on new connections are refused.
    pub(super) stop: CancellationToken,
    /// Takes the connections.
    pub(super) accepted: Box<dyn Fn(Admitted) + Send>,
}

/// The future that keeps an endpoint going. It ends after `stop`, when the last connection of the port has, with everything
/// on the wire.
pub(super) struct Driver {
    socket: Socket,
    endpoint: quinn_proto::Endpoint,
    desks: Arc<[Desk]>,
    number: usize,
    ids: Option<Ids>,
    idle: Duration,
    screen: Screen,
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    accepted: Box<dyn Fn(Admitted) + Send>,
    /// By the endpoint's handles, which are dense.
    connections: Vec<Option<Slot>>,
    deadlines: Deadlines,
    /// Connections for which there may be something to do.
    due: VecDeque<usize>,
    received: Box<[u8]>,
    failures: usize,
    /// One packet's place, for all connections.
    packet: Vec<u8>,
    /// What the socket had no place for. Nothing else is sent before it.
    unsent: Option<Transmit>,
}

impl Driver {
    pub(super) fn new(setup: Setup) -> Self {
        let Setup { socket, config, server, desks, number, ids, idle, screen, stop, accepted } = setup;
        let batch = usize::from(u16::try_from(config.get_max_udp_payload_size()).unwrap_or(u16::MAX));
        let received = vec![0; batch * socket.receive_segments() * BATCH_SIZE].into();
        Self {
            endpoint: quinn_proto::Endpoint::new(config, Some(server), !socket.may_fragment(), None),
            socket,
            desks,
            number,
            ids,
            idle,
            screen,
            stop: Some(Box::pin(stop.cancelled_owned())),
            accepted,
            connections: Vec::new(),
            deadlines: Deadlines::new(),
            due: VecDeque::new(),
            received,
            failures: 0,
            packet: Vec::new(),
            unsent: None,
        }
    }

    fn desk(&self) -> &Desk {
        &self.desks[self.number]
    }

    /// Reads what is there, up to a bound. True: there may be more.
    fn receive(&mut self, context: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut received = std::mem::take(&mut self.received);
        let size = received.len() / BATCH_SIZE;
        let mut batches = 0;
        let more = loop {
            if batches == BATCHES {
                break Ok(true);
            }
            batches += 1;
            let mut chunks = received.chunks_mut(size).map(IoSliceMut::new);
            let mut buffers: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| chunks.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            let count = match self.socket.poll_receive(context, &mut buffers, &mut metas) {
                Poll::Ready(Ok(count)) => count,
                Poll::Pending => break Ok(false),
                // The kernel may be short of memory, or pass on somebody's word that we can't be heard there.
                Poll::Ready(Err(error)) if self.failures < FAILURES => {
                    tracing::debug!(%error, "a read of the QUIC socket failed");
                    self.failures += 1;
                    continue;
                }
                Poll::Ready(Err(error)) => break Err(error),
            };
            self.failures = 0;
            for (meta, buffer) in metas.iter().zip(&buffers).take(count) {
                // The kernel may have joined several of one sender.
                for data in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                    let packet = Packet { from: meta.addr, to: meta.dst_ip, ecn, data: BytesMut::from(data) };
                    match self.ids.as_ref().and_then(|ids| ids.endpoint_of(&packet.data)) {
                        Some(other) if other != self.number && other < self.desks.len() => {
                            self.desks[other].forward(packet);
                        }
                        _ => self.handle(packet, now),
                    }
                }
            }
        };
        self.received = received;
        more
    }

    fn handle(&mut self, Packet { from, to, ecn, data }: Packet, now: Instant) {
        // Answers that belong to no connection.
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, to, ecn, data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(Some(slot)) = self.connections.get_mut(handle.0) else { return };
                slot.heard.hear(now);
                let mut state = slot.shared.lock();
                if !std::mem::replace(&mut state.touched, true) {
                    self.due.push_back(handle.0);
                }
                let taken = contain(|| state.proto.handle_event(event));
                drop(state);
                if let Err(panic) = taken {
                    self.lose(handle.0, &*panic);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now, answer),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            None => {}
        }
    }

    fn admit(&mut self, incoming: Incoming, now: Instant, mut answer: Vec<u8>) {
        let verdict = if self.stop.is_some() {
            self.screen.judge(&incoming)
        } else {
            handshake::count("refused_stopping");
            Verdict::Refuse
        };
        let transmit = match verdict {
            Verdict::Refuse => Some(self.endpoint.refuse(incoming, &mut answer)),
            // Fails only where it is not possible, and then it wasn't asked for.
            Verdict::Retry => self.endpoint.retry(incoming, &mut answer).ok(),
            Verdict::Admit(place) => match self.endpoint.accept(incoming, now, &mut answer, None) {
                Ok((handle, proto)) => {
                    let number = handle.0;
                    let (connection, shared) = Connection::new(number, proto, Arc::clone(&self.desk().inbox));
                    shared.lock().touched = true;
                    if self.connections.len() <= number {
                        self.connections.resize_with(number + 1, || None);
                    }
                    self.connections[number] =
                        Some(Slot { shared, armed: None, heard: Hearing { last: now, was_silent: false }, place });
                    self.screen.opened();
                    self.due.push_back(number);
                    (self.accepted)(self.screen.admitted(connection));
                    None
                }
                Err(refused) => {
                    handshake::failed(&refused.cause);
                    refused.response
                }
            },
        };
        if let Some(transmit) = transmit {
            self.answer(&transmit, &answer);
        }
    }

    /// Sends what belongs to no connection, if there is place for it: whoever asked will ask again.
    fn answer(&self, transmit: &Transmit, content: &[u8]) {
        let _ = self.socket.try_send(transmit, content);
    }

    /// What other endpoints got for this one, whose time has come, and who was touched.
    fn gather(&mut self, now: Instant) {
        let forwarded = std::mem::take(&mut *self.desk().forwarded.lock());
        forwarded.into_iter().for_each(|packet| self.handle(packet, now));
        while let Some(number) = self.deadlines.pop(now) {
            let Some(Some(slot)) = self.connections.get_mut(number) else { continue };
            slot.armed = None;
            // Most were set for the loss of a packet, and nothing was lost.
            match Slot::deadline(slot.heard.last, &mut slot.shared.lock(), self.idle) {
                Some(at) if at > now => self.deadlines.set(number, &mut slot.armed, at, now),
                _ => self.due.push_back(number),
            }
        }
        self.desks[self.number].inbox.take(&mut self.due);
    }

    /// Drives what is due now. False: the socket takes no more.
    fn drive(&mut self, context: &mut Context<'_>, now: Instant) -> io::Result<bool> {
        for _ in 0..self.due.len().min(ROUND) {
            if self.unsent.is_some() && !self.send_unsent(context)? {
                return Ok(false);
            }
            let Some(number) = self.due.pop_front() else { break };
            let mut in_endpoint = false;
            if let Err(panic) = contain(|| self.drive_one(number, now, &mut in_endpoint)) {
                if in_endpoint {
                    resume_unwind(panic);
                }
                self.lose(number, &*panic);
            }
        }
        Ok(true)
    }

    /// A panic in one connection's state: the connection is dropped, and the others live on.
    fn lose(&mut self, number: usize, panic: &(dyn Any + Send)) {
        let Some(slot) = self.connections.get_mut(number).and_then(Option::take) else { return };
        tracing::error!(panic = crate::vital::words(panic), "a QUIC connection is dropped: its state panicked");
        metrics::counter!(names::PANICS_CONTAINED, "in" => "quic_connection").increment(1);
        slot.shared.abandon(&mut slot.shared.lock());
        self.endpoint.handle_event(ConnectionHandle(number), EndpointEvent::drained());
        self.deadlines.remove(number, slot.armed);
        self.closed();
    }

    /// `in_endpoint` is true while the state that all connections share is being changed.
    fn drive_one(&mut self, number: usize, now: Instant, in_endpoint: &mut bool) {
        let Self { socket, endpoint, connections, deadlines, packet, unsent, due, idle, screen, .. } = self;
        let Some(Some(slot)) = connections.get_mut(number) else { return };
        let Slot { shared, armed, heard, place } = slot;
        let mut state = shared.lock();
        state.touched = false;
        if now >= heard.last + *idle {
            shared.give_up(&mut state, now);
        }
        state.expire(now);
        let mut drained = false;
        while let Some(event) = state.proto.poll_endpoint_events() {
            drained |= event.is_drained();
            *in_endpoint = true;
            let answer = endpoint.handle_event(ConnectionHandle(number), event);
            *in_endpoint = false;
            if let Some(answer) = answer {
                state.proto.handle_event(answer);
            }
        }
        let mut sent = 0;
        while sent < PACKETS {
            packet.clear();
            let Some(transmit) = state.proto.poll_transmit(now, 1, packet) else { break };
            sent += 1;
            if socket.try_send(&transmit, packet).is_err() {
                *unsent = Some(transmit);
                break;
            }
        }
        let unfinished = sent >= PACKETS || unsent.is_some() || state.is_due(now);
        if unfinished && !std::mem::replace(&mut state.touched, true) {
            due.push_back(number);
        }
        shared.tell(&mut state);
        if place.is_under_way() {
            if !state.is_open() {
                place.given_up();
            } else if state.is_connected() && screen.establish(place, state.proto.remote_address().ip()).is_err() {
                handshake::turn_away(shared, &mut state);
            }
        }
        if drained {
            drop(state);
            deadlines.remove(number, *armed);
            connections[number] = None;
            self.closed();
            return;
        }
        let at = Slot::deadline(heard.last, &mut state, *idle);
        drop(state);
        // A deadline that moves away mostly comes back with the next packet, and is left; not if there is none for long.
        if std::mem::take(&mut heard.was_silent) {
            deadlines.remove(number, armed.take());
        }
        if let Some(at) = at {
            deadlines.set(number, armed, at, now);
        }
    }

    /// A connection is gone. After the last one the other endpoints may end as well.
    fn closed(&self) {
        if self.screen.closed() {
            self.desks.iter().for_each(|desk| desk.inbox.wake());
        }
    }

    fn send_unsent(&mut self, context: &mut Context<'_>) -> io::Result<bool> {
        let Some(transmit) = &self.unsent else { return Ok(true) };
        loop {
            if self.socket.poll_writable(context)?.is_pending() {
                return Ok(false);
            }
            if self.socket.try_send(transmit, &self.packet).is_ok() {
                self.unsent = None;
                return Ok(true);
            }
        }
    }

    fn round(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        self.desk().inbox.listen(context.waker());
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
            self.stop = None;
        }
        let now = Clock::instant().into_std();
        let more = self.receive(context, now)?;
        self.gather(now);
        let writable = self.drive(context, now)?;
        if self.stop.is_none() && self.screen.is_idle() {
            return Ok(Poll::Ready(()));
        }
        let due_again = writable && !self.due.is_empty();
        if more || due_again || self.deadlines.poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }
}

/// Runs work on the state of one connection, and catches its panic: what it leaves half done is dropped with the connection.
fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(work))
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Whoever still waits would do so for ever.
        for slot in self.connections.iter().flatten() {
            slot.shared.abandon(&mut slot.shared.lock());
            self.closed();
        }
    }
}

impl Future for Driver {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.round(context)?);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_that_ends_a_silence_is_not_forgotten_for_the_one_behind_it() {
        let start = Clock::instant().into_std();
        let mut hearing = Hearing { last: start, was_silent: false };
        hearing.hear(start + SILENCE / 2);
        assert!(!hearing.was_silent);
        let late = start + SILENCE * 3;
        hearing.hear(late);
        hearing.hear(late);
        assert!(hearing.was_silent, "both came in one batch");
    }
}
