//! A connection, as those see it who use it.
//!
//! Its state is under one lock, which the endpoint's driver takes to feed it packets and to fetch what is to be sent, and
//! the handles take to read and write. A handle that changed something *touches* the connection: the driver is woken, once
//! for all connections that were touched until it runs. So a tick for nine members is nine pushes and one wake-up.
//!
//! Of each kind of waiting there is one waiter (one task accepts the streams, one reads the datagrams, …), and a new one
//! takes the place of the old. Only [`closed`](Connection::closed) and a datagram's place may be awaited by many.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quinn_proto::{ConnectionError, Dir, Event, StreamEvent, StreamId, VarInt};
use tokio::sync::Notify;

use super::NO_ERROR;
use super::stream::{RecvStream, SendStream};
use crate::clock::Clock;

/// How connections reach the driver of their endpoint.
#[derive(Default)]
pub(super) struct Inbox {
    touched: Mutex<Vec<usize>>,
    driver: AtomicWaker,
}

impl Inbox {
    /// The driver listens. Before it looks at what was touched: whatever comes later wakes it again.
    pub(super) fn listen(&self, driver: &Waker) {
        self.driver.register(driver);
    }

    /// Wakes the driver.
    pub(super) fn wake(&self) {
        self.driver.wake();
    }

    /// Moves the handles of the touched connections to the end of `due`.
    pub(super) fn take(&self, due: &mut impl Extend<usize>) {
        due.extend(self.touched.lock().drain(..));
    }

    fn touch(&self, connection: usize) {
        let mut touched = self.touched.lock();
        touched.push(connection);
        if touched.len() == 1 {
            drop(touched);
            self.wake();
        }
    }
}

/// Why a datagram can't be sent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendDatagramError {
    /// The peer takes none.
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// It doesn't fit into a packet.
    #[error("the datagram is too large")]
    TooLarge,
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// A handle of a connection; clones share it. When the last one goes, and the streams, the connection is closed.
pub struct Connection(Arc<Shared>);

/// A connection, between its driver and its handles.
pub(super) struct Shared {
    state: Mutex<State>,
    inbox: Arc<Inbox>,
    /// Its name in the endpoint.
    number: usize,
    /// Handles and streams; the driver's own reference is none.
    handles: AtomicUsize,
    closed: Notify,
    datagram_place: Notify,
}

/// What the lock guards.
pub(super) struct State {
    pub(super) proto: quinn_proto::Connection,
    /// The driver knows already that there is something to do.
    pub(super) touched: bool,
    hello: bool,
    connected: bool,
    error: Option<ConnectionError>,
    handshake: Option<Waker>,
    accept: [Option<Waker>; 2],
    open_uni: Option<Waker>,
    datagram: Option<Waker>,
    streams: Vec<(StreamId, Wait, Waker)>,
}

/// What the user of a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Read,
    Write,
    /// That the peer has everything, or wants no more.
    Stopped,
}

impl Connection {
    /// The first handle of a new connection, and the driver's own end.
    pub(super) fn new(number: usize, proto: quinn_proto::Connection, inbox: Arc<Inbox>) -> (Self, Arc<Shared>) {
        let state = State {
            proto,
            touched: false,
            hello: false,
            connected: false,
            error: None,
            handshake: None,
            accept: [None, None],
            open_uni: None,
            datagram: None,
            streams: Vec::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            inbox,
            number,
            handles: AtomicUsize::new(1),
            closed: Notify::new(),
            datagram_place: Notify::new(),
        });
        (Self(Arc::clone(&shared)), shared)
    }

    /// Resolves when the client's whole hello is there: from here on the server may send.
    pub(super) fn poll_hello(&self, context: &Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.poll_handshake(context, |state| state.hello)
    }

    /// Resolves when the handshake is done.
    pub(super) fn poll_connected(&self, context: &Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.poll_handshake(context, |state| state.connected)
    }

    fn poll_handshake(
        &self,
        context: &Context<'_>,
        reached: impl Fn(&State) -> bool,
    ) -> Poll<Result<(), ConnectionError>> {
        let mut state = self.0.state.lock();
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        if reached(&state) {
            return Poll::Ready(Ok(()));
        }
        state.handshake = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next bidirectional stream that the peer opens.
    pub fn poll_accept_bi(&self, context: &Context<'_>) -> Poll<Result<(SendStream, RecvStream), ConnectionError>> {
        self.poll_accept(Dir::Bi, context)
            .map_ok(|id| (SendStream::new(self.clone(), id), RecvStream::new(self.clone(), id)))
    }

    /// The next unidirectional stream that the peer opens.
    pub fn poll_accept_uni(&self, context: &Context<'_>) -> Poll<Result<RecvStream, ConnectionError>> {
        self.poll_accept(Dir::Uni, context).map_ok(|id| RecvStream::new(self.clone(), id))
    }

    fn poll_accept(&self, dir: Dir, context: &Context<'_>) -> Poll<Result<StreamId, ConnectionError>> {
        let mut state = self.0.state.lock();
        if let Some(id) = state.proto.streams().accept(dir) {
            // The peer may open another one now, and has to be told.
            self.0.touch(&mut state);
            return Poll::Ready(Ok(id));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.accept[dir as usize] = Some(context.waker().clone());
        Poll::Pending
    }

    /// Opens a unidirectional stream, as soon as the peer allows one.
    pub fn poll_open_uni(&self, context: &Context<'_>) -> Poll<Result<SendStream, ConnectionError>> {
        let mut state = self.0.state.lock();
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        if let Some(id) = state.proto.streams().open(Dir::Uni) {
            drop(state);
            return Poll::Ready(Ok(SendStream::new(self.clone(), id)));
        }
        state.open_uni = Some(context.waker().clone());
        Poll::Pending
    }

    /// The next datagram. What came before the end is still delivered.
    pub fn poll_read_datagram(&self, context: &Context<'_>) -> Poll<Result<Bytes, ConnectionError>> {
        let mut state = self.0.state.lock();
        if let Some(datagram) = state.proto.datagrams().recv() {
            return Poll::Ready(Ok(datagram));
        }
        if let Some(error) = &state.error {
            return Poll::Ready(Err(error.clone()));
        }
        state.datagram = Some(context.waker().clone());
        Poll::Pending
    }

    /// Sends a datagram if there is place for it now. `None`: there is none, and nothing was kept.
    pub fn try_send_datagram(&self, datagram: Bytes) -> Option<Result<(), SendDatagramError>> {
        self.0.send_datagram(&mut self.0.state.lock(), datagram).ok()
    }

    /// Sends a datagram as soon as there is place for it.
    pub async fn send_datagram(&self, mut datagram: Bytes) -> Result<(), SendDatagramError> {
        loop {
            let place = {
                let mut state = self.0.state.lock();
                match self.0.send_datagram(&mut state, datagram) {
                    Ok(sent) => return sent,
                    Err(back) => datagram = back,
                }
                // Made under the lock, so it hears of any place that there is from now on.
                self.0.datagram_place.notified()
            };
            place.await;
        }
    }

    /// Resolves when the connection is over, with the reason.
    pub async fn closed(&self) -> ConnectionError {
        loop {
            let closed = {
                let state = self.0.state.lock();
                if let Some(error) = &state.error {
                    return error.clone();
                }
                self.0.closed.notified()
            };
            closed.await;
        }
    }

    /// Why the connection is over, if it is.
    pub fn close_reason(&self) -> Option<ConnectionError> {
        self.0.state.lock().error.clone()
    }

    /// Closes the connection. The peer gets code and reason, and what wasn't sent is dropped.
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        self.0.close(&mut self.0.state.lock(), code, Bytes::copy_from_slice(reason));
    }

    /// Where the peer is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.0.state.lock().proto.remote_address()
    }

    /// The round trip, smoothed.
    pub fn rtt(&self) -> Duration {
        self.0.state.lock().proto.rtt()
    }

    /// Runs `work` on the state, for the streams. What it changed is sent if it says so.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut State) -> (T, bool)) -> T {
        let mut state = self.0.state.lock();
        let (result, changed) = work(&mut state);
        if changed {
            self.0.touch(&mut state);
        }
        result
    }
}

impl Clone for Connection {
    fn clone(&self) -> Self {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.0.handles.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        let mut state = self.0.state.lock();
        if state.error.is_none() {
            self.0.close(&mut state, VarInt::from_u32(0), Bytes::new());
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.0.number).finish()
    }
}

impl Shared {
    /// For the driver.
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Tells those who wait what has happened to the connection.
    pub(super) fn tell(&self, state: &mut State) {
        while let Some(event) = state.proto.poll() {
            match event {
                Event::HandshakeDataReady => {
                    state.hello = true;
                    wake(&mut state.handshake);
                }
                Event::Connected => {
                    state.connected = true;
                    wake(&mut state.handshake);
                }
                Event::ConnectionLost { reason } => self.end(state, reason),
                Event::DatagramReceived => wake(&mut state.datagram),
                Event::DatagramsUnblocked => self.datagram_place.notify_waiters(),
                Event::Stream(StreamEvent::Opened { dir }) => wake(&mut state.accept[dir as usize]),
                Event::Stream(StreamEvent::Available { dir: Dir::Uni }) => wake(&mut state.open_uni),
                // Nobody here opens any.
                Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => {}
                Event::Stream(StreamEvent::Readable { id }) => state.wake(id, |wait| wait == Wait::Read),
                Event::Stream(StreamEvent::Writable { id }) => state.wake(id, |wait| wait == Wait::Write),
                Event::Stream(StreamEvent::Finished { id }) => state.wake(id, |wait| wait == Wait::Stopped),
                Event::Stream(StreamEvent::Stopped { id, .. }) => state.wake(id, |wait| wait != Wait::Read),
            }
        }
    }

    /// Ends a connection whose peer was silent for too long.
    pub(super) fn give_up(&self, state: &mut State, now: Instant) {
        if state.is_open() {
            // The peer may hear us although we don't hear it.
            state.proto.close(now, NO_ERROR, Bytes::from_static(b"nothing heard"));
            self.end(state, ConnectionError::TimedOut);
        }
    }

    /// Ends a connection that nobody drives any more.
    pub(super) fn abandon(&self, state: &mut State) {
        self.end(state, ConnectionError::LocallyClosed);
    }

    fn touch(&self, state: &mut State) {
        if !std::mem::replace(&mut state.touched, true) {
            self.inbox.touch(self.number);
        }
    }

    /// The outcome, or the datagram back, for which there is no place.
    fn send_datagram(&self, state: &mut State, datagram: Bytes) -> Result<Result<(), SendDatagramError>, Bytes> {
        use quinn_proto::SendDatagramError as Refused;
        if let Some(error) = &state.error {
            return Ok(Err(SendDatagramError::ConnectionLost(error.clone())));
        }
        // Not by dropping an older one: what waits for its place is replaced by newer ticks outside.
        Ok(Err(match state.proto.datagrams().send(datagram, false) {
            Ok(()) => {
                self.touch(state);
                return Ok(Ok(()));
            }
            Err(Refused::Blocked(datagram)) => return Err(datagram),
            Err(Refused::TooLarge) => SendDatagramError::TooLarge,
            Err(Refused::UnsupportedByPeer | Refused::Disabled) => SendDatagramError::Unsupported,
        }))
    }

    /// Closes the connection from this side.
    pub(super) fn close(&self, state: &mut State, code: VarInt, reason: Bytes) {
        state.proto.close(Clock::instant().into_std(), code, reason);
        self.end(state, ConnectionError::LocallyClosed);
        self.touch(state);
    }

    /// It is over, and everybody who waits is woken. The first reason stays.
    fn end(&self, state: &mut State, reason: ConnectionError) {
        state.error.get_or_insert(reason);
        let State { handshake, accept: [bi, uni], open_uni, datagram, streams, .. } = state;
        for waker in [handshake, bi, uni, open_uni, datagram] {
            wake(waker);
        }
        streams.drain(..).for_each(|(_, _, waker)| waker.wake());
        self.datagram_place.notify_waiters();
        self.closed.notify_waiters();
    }
}

impl State {
    pub(super) fn is_open(&self) -> bool {
        self.error.is_none()
    }

    /// The handshake is done.
    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Does what the passing of time asks for, once: what a probe timeout (RFC 9002 §6.2) asks for must be sent before the
    /// next one counts, or each doubles the wait for the one after it. After a pause of the process several are overdue.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.is_due(now) {
            self.proto.handle_timeout(now);
        }
    }

    /// Whether a timer of the connection is over.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.proto.poll_timeout().is_some_and(|at| at <= now)
    }

    pub(super) fn error(&self) -> Option<ConnectionError> {
        self.error.clone()
    }

    /// Notes who waits for a stream.
    pub(super) fn wait(&mut self, id: StreamId, wait: Wait, waker: &Waker) {
        match self.streams.iter_mut().find(|(of, what, _)| (*of, *what) == (id, wait)) {
            Some((_, _, waiting)) => waiting.clone_from(waker),
            None => self.streams.push((id, wait, waker.clone())),
        }
    }

    /// Nobody waits for this any more.
    pub(super) fn forget(&mut self, id: StreamId, which: impl Fn(Wait) -> bool) {
        self.streams.retain(|(of, wait, _)| *of != id || !which(*wait));
    }

    fn wake(&mut self, id: StreamId, which: impl Fn(Wait) -> bool) {
        let woken = self.streams.extract_if(.., |(of, wait, _)| *of == id && which(*wait));
        woken.for_each(|(_, _, waker)| waker.wake());
    }
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use quinn_proto::crypto::rustls::QuicClientConfig;
    use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};

    use super::*;

    /// A connection whose first packet was sent, and is never answered.
    fn unanswered(now: Instant) -> (Connection, Arc<Shared>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let (_, proto) = endpoint.connect(now, config, ([192, 0, 2, 1], 443).into(), "localhost").unwrap();
        let (connection, shared) = Connection::new(0, proto, Arc::default());
        assert_eq!(packets(&shared, now), 1);
        (connection, shared)
    }

    fn packets(shared: &Shared, now: Instant) -> usize {
        let mut packet = Vec::new();
        let mut sent = 0;
        while shared.lock().proto.poll_transmit(now, 1, &mut packet).is_some() {
            packet.clear();
            sent += 1;
        }
        sent
    }

    #[test]
    fn of_several_overdue_probe_timeouts_one_counts_and_its_probe_is_sent_before_the_next() {
        let start = Clock::instant().into_std();
        let (_connection, shared) = unanswered(start);
        let first = shared.lock().proto.poll_timeout().unwrap() - start;
        // The process stood still for so long that the next timeouts are overdue as well.
        let now = start + first * 8;
        shared.lock().expire(now);
        assert!(packets(&shared, now) > 0, "the probe");
        let next = shared.lock().proto.poll_timeout().unwrap() - now;
        assert!(next <= first * 2, "the wait for the next one has doubled once: {first:?}, {next:?}");
    }
}
