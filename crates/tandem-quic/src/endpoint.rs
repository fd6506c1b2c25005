//! An endpoint: one UDP socket, its connections, and the future that drives them.
//!
//! quinn-proto is QUIC without I/O: packets in, packets and events out. quinn gives each connection a task, a channel
//! and a timer, which suits a few busy connections. This driver is for many quiet ones that are busy together. It
//! handles all that are due, in rounds:
//!
//! ```text
//!                       recvmmsg ─► quinn_proto::Endpoint ─► connection ─┐
//! a handle touched the connection ─► DriverInbox ───────────────────────┼─► due ─► drive: packets out, events to the
//!              its deadline passed ─► Deadlines ────────────────────────┘          endpoint, wakers, next deadline
//! ```
//! A round is bounded. Between two rounds the thread's other tasks run, and what they write leaves together in the next
//! one. An idle connection has no task, no timer and no buffers, only its protocol state.
//!
//! **Several endpoints** share the port (SO_REUSEPORT), so that the cryptography uses several cores. The kernel chooses
//! the socket by the client's address. The packets of a client whose address changes (connection migration, RFC 9000
//! §9) arrive at another endpoint, which reads the owner's number from the connection id and forwards them. No endpoint
//! closes its socket while another has connections, because packets that the kernel had queued there would be lost.
//!
//! **A panic** in the state of one connection drops that connection. A panic in the state that the connections share
//! ends the driver.

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

use crate::QuicEvent;
use crate::admission::{AcceptedConnection, AdmissionDecision, AdmissionPolicy, HandshakePermit, turn_away};
use crate::connection::{ConnectionShared, ConnectionState, DriverInbox, QuicConnection};
use crate::deadlines::{Deadlines, now};
use crate::identity::ConnectionIds;
use crate::socket::QuicSocket;

/// Batches read in a round.
const BATCHES: usize = 4;
/// Connections driven in a round.
const ROUND: usize = 256;
/// Packets that one connection may send in a round.
const PACKETS: usize = 20;
/// A connection without packets for this long counts as silent.
const SILENCE: Duration = Duration::from_secs(1);
/// Packets that wait to be forwarded to an endpoint; more are dropped.
const FORWARDED: usize = 1024;
/// Failed reads in a row after which the driver gives up.
const FAILURES: usize = 100;

/// An endpoint, as the others of its port see it.
#[derive(Default)]
pub(super) struct EndpointHandle {
    inbox: Arc<DriverInbox>,
    /// Packets for its connections that arrived at another socket.
    forwarded: Mutex<Vec<ReceivedPacket>>,
}

impl EndpointHandle {
    fn forward(&self, packet: ReceivedPacket) {
        let mut forwarded = self.forwarded.lock();
        if forwarded.len() < FORWARDED {
            forwarded.push(packet);
            drop(forwarded);
            self.inbox.wake();
        }
    }
}

/// A UDP datagram.
struct ReceivedPacket {
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
    data: BytesMut,
}

/// A connection, in the driver's table.
struct ConnectionEntry {
    shared: Arc<ConnectionShared>,
    /// Its entry in `deadlines`.
    armed: Option<Instant>,
    heard: LastHeard,
    permit: HandshakePermit,
}

/// When the last packet of a connection arrived.
struct LastHeard {
    at: Instant,
    /// A packet has ended a silence since the connection was last driven.
    was_silent: bool,
}

impl LastHeard {
    /// Notes a packet. Several may arrive before the connection is driven.
    fn hear(&mut self, now: Instant) {
        self.was_silent |= now.saturating_duration_since(self.at) > SILENCE;
        self.at = now;
    }
}

impl ConnectionEntry {
    /// When the connection must be driven even if nothing happens.
    fn deadline(heard: Instant, state: &mut ConnectionState, idle: Duration) -> Option<Instant> {
        let silent = state.is_open().then_some(heard + idle);
        silent.into_iter().chain(state.proto.poll_timeout()).min()
    }
}

/// Parts of a driver.
pub(super) struct DriverConfig {
    pub(super) socket: QuicSocket,
    pub(super) config: Arc<EndpointConfig>,
    pub(super) server: Arc<ServerConfig>,
    /// All endpoints of the port; this one is `number`.
    pub(super) handles: Arc<[EndpointHandle]>,
    pub(super) number: usize,
    /// Reads a packet's endpoint from its connection id, if there are several.
    pub(super) ids: Option<ConnectionIds>,
    pub(super) idle: Duration,
    pub(super) admission: AdmissionPolicy,
    pub(super) stop: CancellationToken,
    pub(super) accepted: Box<dyn Fn(AcceptedConnection) + Send>,
}

/// The future that drives an endpoint; [`QuicListener::accept`](crate::QuicListener::accept) says when it ends. An
/// error is the socket's.
#[must_use = "an endpoint does nothing unless its driver is polled"]
pub struct EndpointDriver {
    socket: QuicSocket,
    endpoint: quinn_proto::Endpoint,
    handles: Arc<[EndpointHandle]>,
    number: usize,
    ids: Option<ConnectionIds>,
    idle: Duration,
    admission: AdmissionPolicy,
    /// `None` after the stop.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    accepted: Box<dyn Fn(AcceptedConnection) + Send>,
    /// Indexed by quinn-proto's handles, which are dense.
    connections: Vec<Option<ConnectionEntry>>,
    deadlines: Deadlines,
    /// Numbers of the connections to drive, in order.
    due: VecDeque<usize>,
    received: Box<[u8]>,
    failures: usize,
    /// The packet being sent.
    packet: Vec<u8>,
    /// `packet`, for which the socket had no place. Nothing is sent before it.
    unsent: Option<Transmit>,
}

impl EndpointDriver {
    pub(super) fn new(config: DriverConfig) -> Self {
        let DriverConfig { socket, config, server, handles, number, ids, idle, admission, stop, accepted } = config;
        let batch = usize::from(u16::try_from(config.get_max_udp_payload_size()).unwrap_or(u16::MAX));
        let received = vec![0; batch * socket.receive_segments() * BATCH_SIZE].into();
        Self {
            endpoint: quinn_proto::Endpoint::new(config, Some(server), !socket.may_fragment(), None),
            socket,
            handles,
            number,
            ids,
            idle,
            admission,
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

    fn own_handle(&self) -> &EndpointHandle {
        &self.handles[self.number]
    }

    /// Reads up to `BATCHES` batches; returns whether there may be more.
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
                // Transient: ENOBUFS, or an ICMP unreachable reported as ECONNREFUSED.
                Poll::Ready(Err(error)) if self.failures < FAILURES => {
                    tracing::debug!(%error, "a read of the QUIC socket failed");
                    self.failures += 1;
                    continue;
                }
                Poll::Ready(Err(error)) => break Err(error),
            };
            self.failures = 0;
            for (meta, buffer) in metas.iter().zip(&buffers).take(count) {
                // GRO: one buffer may hold several packets of one sender.
                for data in buffer[..meta.len].chunks(meta.stride.max(1)) {
                    let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                    let packet = ReceivedPacket { from: meta.addr, to: meta.dst_ip, ecn, data: BytesMut::from(data) };
                    match self.ids.as_ref().and_then(|ids| ids.endpoint_of(&packet.data)) {
                        Some(other) if other != self.number && other < self.handles.len() => {
                            self.handles[other].forward(packet);
                        }
                        _ => self.handle(packet, now),
                    }
                }
            }
        };
        self.received = received;
        more
    }

    fn handle(&mut self, ReceivedPacket { from, to, ecn, data }: ReceivedPacket, now: Instant) {
        // Version negotiation, Retry, stateless reset: packets that belong to no connection.
        let mut answer = Vec::new();
        match self.endpoint.handle(now, from, to, ecn, data, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(Some(entry)) = self.connections.get_mut(handle.0) else { return };
                entry.heard.hear(now);
                let mut state = entry.shared.lock();
                if !std::mem::replace(&mut state.touched, true) {
                    self.due.push_back(handle.0);
                }
                let taken = contain(|| state.proto.handle_event(event));
                drop(state);
                if taken.is_err() {
                    self.lose(handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now, answer),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            None => {}
        }
    }

    fn admit(&mut self, incoming: Incoming, now: Instant, mut answer: Vec<u8>) {
        let decision = if self.stop.is_some() {
            self.admission.judge(&incoming)
        } else {
            self.admission.refuse("refused_stopping")
        };
        let transmit = match decision {
            AdmissionDecision::Refuse => Some(self.endpoint.refuse(incoming, &mut answer)),
            // Fails only for a packet that may not be retried, which the policy has checked.
            AdmissionDecision::Retry => self.endpoint.retry(incoming, &mut answer).ok(),
            AdmissionDecision::Admit(permit) => match self.endpoint.accept(incoming, now, &mut answer, None) {
                Ok((handle, proto)) => {
                    let number = handle.0;
                    let (connection, shared) = QuicConnection::new(number, proto, Arc::clone(&self.own_handle().inbox));
                    shared.lock().touched = true;
                    if self.connections.len() <= number {
                        self.connections.resize_with(number + 1, || None);
                    }
                    self.connections[number] = Some(ConnectionEntry {
                        shared,
                        armed: None,
                        heard: LastHeard { at: now, was_silent: false },
                        permit,
                    });
                    self.admission.opened();
                    self.due.push_back(number);
                    (self.accepted)(self.admission.accepted(connection));
                    None
                }
                Err(refused) => {
                    self.admission.count_failure(&refused.cause);
                    refused.response
                }
            },
        };
        if let Some(transmit) = transmit {
            self.answer(&transmit, &answer);
        }
    }

    /// Sends a packet that belongs to no connection, or drops it if the socket is full: the client will ask again.
    fn answer(&self, transmit: &Transmit, content: &[u8]) {
        let _ = self.socket.try_send(transmit, content);
    }

    /// Handles forwarded packets, and collects the connections whose deadline has passed or that were touched.
    fn gather(&mut self, now: Instant) {
        let forwarded = std::mem::take(&mut *self.own_handle().forwarded.lock());
        forwarded.into_iter().for_each(|packet| self.handle(packet, now));
        while let Some(number) = self.deadlines.pop(now) {
            let Some(Some(entry)) = self.connections.get_mut(number) else { continue };
            entry.armed = None;
            // Most deadlines are for loss detection, and have moved because nothing was lost.
            match ConnectionEntry::deadline(entry.heard.at, &mut entry.shared.lock(), self.idle) {
                Some(at) if at > now => self.deadlines.set(number, &mut entry.armed, at, now),
                _ => self.due.push_back(number),
            }
        }
        self.handles[self.number].inbox.take(&mut self.due);
    }

    /// Drives the connections that are due now; returns false when the socket is full.
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
                self.lose(number);
            }
        }
        Ok(true)
    }

    /// Drops a connection whose state has panicked.
    fn lose(&mut self, number: usize) {
        let Some(entry) = self.connections.get_mut(number).and_then(Option::take) else { return };
        tracing::error!("a QUIC connection is dropped: its state panicked");
        self.admission.report(QuicEvent::ConnectionPanicked);
        entry.shared.abandon(&mut entry.shared.lock());
        self.endpoint.handle_event(ConnectionHandle(number), EndpointEvent::drained());
        self.deadlines.remove(number, entry.armed);
        self.closed();
    }

    /// Drives a connection. `in_endpoint` is true while the state that all connections share is being changed.
    fn drive_one(&mut self, number: usize, now: Instant, in_endpoint: &mut bool) {
        let Self { socket, endpoint, connections, deadlines, packet, unsent, due, idle, admission, .. } = self;
        let Some(Some(entry)) = connections.get_mut(number) else { return };
        let ConnectionEntry { shared, armed, heard, permit } = entry;
        let mut state = shared.lock();
        state.touched = false;
        if now >= heard.at + *idle {
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
        shared.notify(&mut state);
        if permit.is_pending() {
            if !state.is_open() {
                permit.give_up();
            } else if state.is_connected() && admission.establish(permit, state.proto.remote_address().ip()).is_err() {
                turn_away(shared, &mut state);
            }
        }
        if drained {
            drop(state);
            deadlines.remove(number, *armed);
            connections[number] = None;
            self.closed();
            return;
        }
        let at = ConnectionEntry::deadline(heard.at, &mut state, *idle);
        drop(state);
        // After a silence the old deadline is far off the real one, and there may be no packet for long: set it anew.
        if std::mem::take(&mut heard.was_silent) {
            deadlines.remove(number, armed.take());
        }
        if let Some(at) = at {
            deadlines.set(number, armed, at, now);
        }
    }

    /// Counts a connection that is gone. After the last one the other endpoints must see that they may end.
    fn closed(&self) {
        if self.admission.closed() {
            self.handles.iter().for_each(|handle| handle.inbox.wake());
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
        self.own_handle().inbox.register(context.waker());
        if self.stop.as_mut().is_some_and(|stop| stop.as_mut().poll(context).is_ready()) {
            self.stop = None;
        }
        let now = now();
        let more = self.receive(context, now)?;
        self.gather(now);
        let writable = self.drive(context, now)?;
        if self.stop.is_none() && self.admission.is_idle() {
            return Ok(Poll::Ready(()));
        }
        let due_again = writable && !self.due.is_empty();
        if more || due_again || self.deadlines.poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }
}

/// Runs work on the state of one connection and catches its panic. The caller drops the connection then.
fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(work))
}

impl Drop for EndpointDriver {
    fn drop(&mut self) {
        // Tasks that still wait on a connection would never be woken.
        for entry in self.connections.iter().flatten() {
            entry.shared.abandon(&mut entry.shared.lock());
            self.closed();
        }
    }
}

impl Future for EndpointDriver {
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
    fn a_packet_that_ends_a_silence_is_not_forgotten_for_the_next_one() {
        let start = super::now();
        let mut heard = LastHeard { at: start, was_silent: false };
        heard.hear(start + SILENCE / 2);
        assert!(!heard.was_silent);
        let late = start + SILENCE * 3;
        heard.hear(late);
        heard.hear(late);
        assert!(heard.was_silent, "both arrived in one batch");
    }
}
