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

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use parking_lot::Mutex;
use quinn_proto::{ConnectionHandle, DatagramEvent, EcnCodepoint, EndpointConfig, Incoming, ServerConfig, Transmit};
use quinn_udp::{BATCH_SIZE, RecvMeta};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::connection::{Connection, Inbox, Shared, State};
use super::deadlines::Deadlines;
use super::handshake::{self, Admitted, Screen, Verdict};
use super::identity::Ids;
use super::socket::Socket;
use crate::clock::Clock;

/// Batches read in a round: more wait for the next one.
const BATCHES: usize = 4;
/// Connections driven in a round.
const ROUND: usize = 256;
/// Packets that one connection may send in a round.
const PACKETS: usize = 20;
/// Packets of one connection that the kernel may be handed as one.
const SEGMENTS: usize = 10;
/// Who says nothing for so long is quiet.
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
    /// When the last packet came.
    heard: Instant,
    /// That packet ended a silence.
    was_silent: bool,
}

impl Slot {
    /// When there is something to do even if nothing happens.
    fn deadline(&self, state: &mut State, idle: Duration) -> Option<Instant> {
        let silent = state.is_open().then_some(self.heard + idle);
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
    pub(super) segmentation_offload: bool,
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
    segments: usize,
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
        let Setup { socket, config, server, desks, number, ids, idle, segmentation_offload, screen, stop, accepted } =
            setup;
        let segments = if segmentation_offload { socket.max_segments().min(SEGMENTS) } else { 1 };
        let batch = usize::from(u16::try_from(config.get_max_udp_payload_size()).unwrap_or(u16::MAX));
        let received = vec![0; batch * socket.receive_segments() * BATCH_SIZE].into();
        Self {
            endpoint: quinn_proto::Endpoint::new(config, Some(server), !socket.may_fragment(), None),
            socket,
            desks,
            number,
            ids,
            idle,
            segments,
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
                if let Some(Some(slot)) = self.connections.get_mut(handle.0) {
                    slot.was_silent = now.saturating_duration_since(slot.heard) > SILENCE;
                    slot.heard = now;
                    let mut state = slot.shared.lock();
                    state.proto.handle_event(event);
                    if !std::mem::replace(&mut state.touched, true) {
                        self.due.push_back(handle.0);
                    }
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.admit(incoming, now, answer),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit, &answer),
            None => {}
        }
    }

    fn admit(&mut self, incoming: Incoming, now: Instant, mut answer: Vec<u8>) {
        let transmit = match self.screen.judge(&incoming) {
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
                    self.connections[number] = Some(Slot { shared, armed: None, heard: now, was_silent: false });
                    self.screen.opened();
                    self.due.push_back(number);
                    (self.accepted)(self.screen.admitted(connection, place));
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
            match slot.deadline(&mut slot.shared.lock(), self.idle) {
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
            self.drive_one(number, now);
        }
        Ok(true)
    }

    fn drive_one(&mut self, number: usize, now: Instant) {
        let Self { socket, endpoint, connections, deadlines, packet, unsent, segments, due, idle, .. } = self;
        let Some(Some(slot)) = connections.get_mut(number) else { return };
        let Slot { shared, heard, .. } = &*slot;
        let mut state = shared.lock();
        state.touched = false;
        if now >= *heard + *idle {
            shared.give_up(&mut state, now);
        }
        while state.proto.poll_timeout().is_some_and(|at| at <= now) {
            state.proto.handle_timeout(now);
        }
        let mut drained = false;
        while let Some(event) = state.proto.poll_endpoint_events() {
            drained |= event.is_drained();
            if let Some(answer) = endpoint.handle_event(ConnectionHandle(number), event) {
                state.proto.handle_event(answer);
            }
        }
        let mut sent = 0;
        while sent < PACKETS {
            packet.clear();
            let Some(transmit) = state.proto.poll_transmit(now, *segments, packet) else { break };
            sent += transmit.segment_size.map_or(1, |size| transmit.size.div_ceil(size));
            if socket.try_send(&transmit, packet).is_err() {
                *unsent = Some(transmit);
                break;
            }
        }
        if (sent >= PACKETS || unsent.is_some()) && !std::mem::replace(&mut state.touched, true) {
            due.push_back(number);
        }
        shared.tell(&mut state);
        if drained {
            drop(state);
            deadlines.remove(number, slot.armed);
            connections[number] = None;
            self.closed();
            return;
        }
        let at = slot.deadline(&mut state, *idle);
        drop(state);
        // A deadline that moves away mostly comes back with the next packet, and is left; not if there is none for long.
        if std::mem::take(&mut slot.was_silent) {
            deadlines.remove(number, slot.armed.take());
        }
        if let Some(at) = at {
            deadlines.set(number, &mut slot.armed, at, now);
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
            self.endpoint.set_server_config(None);
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
