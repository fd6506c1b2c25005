//! A connection's handle, and the state that it shares with the endpoint's driver.
//!
//! One lock guards the state. The driver takes it to feed in packets and to fetch packets to send, the handles take it
//! to read and write. A handle that changed something *touches* the connection, which wakes the driver once for all
//! connections that were touched until it runs: a datagram to nine connections is nine pushes and one wake-up.
//!
//! Each kind of waiting has one waiter (one task accepts streams, one reads datagrams, …); a later waiter replaces the
//! earlier. Only [`closed`](QuicConnection::closed) and [`send_datagram`](QuicConnection::send_datagram) may be awaited
//! by many tasks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quinn_proto::{ConnectionError, Dir, Event, StreamEvent, StreamId, VarInt};
use tokio::sync::Notify;

use crate::codes::NO_ERROR;
use crate::deadlines::now;
use crate::stream::{RecvStream, SendStream};

/// The connections that an endpoint's driver must look at because a handle changed them.
#[derive(Default)]
pub(super) struct DriverInbox {
    touched: Mutex<Vec<usize>>,
    driver: AtomicWaker,
}

impl DriverInbox {
    /// Registers the driver's waker. Call it before [`take`](Self::take): a later touch wakes the driver again.
    pub(super) fn register(&self, driver: &Waker) {
        self.driver.register(driver);
    }

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
    /// The peer has not enabled datagrams (RFC 9221 §3).
    #[error("the peer takes no datagrams")]
    Unsupported,
    /// The datagram doesn't fit into a packet.
    #[error("the datagram is too large")]
    TooLarge,
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// A handle of a connection; clones share it. The connection is closed when the last handle and the last stream are
/// dropped.
pub struct QuicConnection(Arc<ConnectionShared>);

/// A connection, shared by its driver and its handles.
pub(super) struct ConnectionShared {
    state: Mutex<ConnectionState>,
    inbox: Arc<DriverInbox>,
    /// The endpoint's handle of it.
    number: usize,
    /// Handles and streams. The driver's own reference doesn't count.
    handles: AtomicUsize,
    closed: Notify,
    datagram_place: Notify,
    /// Smoothed round trip in microseconds, written by the driver: readers may hold locks of their own.
    rtt_micros: AtomicU64,
}

/// Guarded by the connection's lock.
pub(super) struct ConnectionState {
    pub(super) proto: quinn_proto::Connection,
    /// The connection is among those that the driver will look at.
    pub(super) touched: bool,
    hello: bool,
    connected: bool,
    error: Option<ConnectionError>,
    handshake: Option<Waker>,
    accept: [Option<Waker>; 2],
    open_uni: Option<Waker>,
    datagram: Option<Waker>,
    streams: Vec<(StreamId, StreamWait, Waker)>,
}

/// A task's wait on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamWait {
    Read,
    Write,
    /// The peer has acknowledged everything, or has stopped the stream.
    Stopped,
}

impl QuicConnection {
    /// The first handle of a new connection, and the driver's reference.
    pub(super) fn new(
        number: usize,
        proto: quinn_proto::Connection,
        inbox: Arc<DriverInbox>,
    ) -> (Self, Arc<ConnectionShared>) {
        let state = ConnectionState {
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
        let shared = Arc::new(ConnectionShared {
            inbox,
            number,
            rtt_micros: AtomicU64::new(micros(state.proto.rtt())),
            handles: AtomicUsize::new(1),
            closed: Notify::new(),
            datagram_place: Notify::new(),
            state: Mutex::new(state),
        });
        (Self(Arc::clone(&shared)), shared)
    }

    /// Ready when the client's whole hello has arrived: from here on the server may send.
    pub(super) fn poll_hello(&self, context: &Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.poll_handshake(context, |state| state.hello)
    }

    /// Ready when the handshake is done.
    pub(super) fn poll_connected(&self, context: &Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.poll_handshake(context, |state| state.connected)
    }

    fn poll_handshake(
        &self,
        context: &Context<'_>,
        reached: impl Fn(&ConnectionState) -> bool,
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
            // MAX_STREAMS must be sent: the peer may open another one now.
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

    /// The next datagram. Datagrams that arrived before the connection ended are still delivered.
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

    /// Sends a datagram if the send buffer has place for it now; returns `None`, and keeps nothing, if it hasn't.
    pub fn try_send_datagram(&self, datagram: Bytes) -> Option<Result<(), SendDatagramError>> {
        match self.0.send_datagram(&mut self.0.state.lock(), datagram) {
            DatagramSend::Done(sent) => Some(sent),
            DatagramSend::Blocked(_) => None,
        }
    }

    /// Sends a datagram as soon as the send buffer has place for it.
    pub async fn send_datagram(&self, mut datagram: Bytes) -> Result<(), SendDatagramError> {
        loop {
            let place = {
                let mut state = self.0.state.lock();
                match self.0.send_datagram(&mut state, datagram) {
                    DatagramSend::Done(sent) => return sent,
                    DatagramSend::Blocked(back) => datagram = back,
                }
                // Made under the lock, so that no notification between here and the await is missed.
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

    /// Closes the connection with an application error code (RFC 9000 §20.2). Data that wasn't sent is dropped.
    pub fn close(&self, code: VarInt, reason: &[u8]) {
        self.0.close(&mut self.0.state.lock(), code, Bytes::copy_from_slice(reason));
    }

    /// The peer's address, which changes when the peer migrates (RFC 9000 §9).
    pub fn remote_address(&self) -> SocketAddr {
        self.0.state.lock().proto.remote_address()
    }

    /// The smoothed round trip (RFC 9002 §5.3) as of the last packets; 333 ms before the first measurement. Takes no
    /// lock.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.0.rtt_micros.load(Ordering::Relaxed))
    }

    /// The round trip to plan with: on a path that loses packets, one in which a packet is lost, missed after a probe
    /// timeout (RFC 9002 §6.2) and sent again. Takes the connection's lock.
    pub fn repaired_rtt(&self) -> Duration {
        let quinn_proto::PathStats { rtt, sent_packets, lost_packets, .. } = self.0.state.lock().proto.stats().path;
        repaired(rtt, sent_packets, lost_packets)
    }

    /// Runs `work` on the state. It returns whether it changed something that must be sent.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut ConnectionState) -> (T, bool)) -> T {
        let mut state = self.0.state.lock();
        let (result, changed) = work(&mut state);
        if changed {
            self.0.touch(&mut state);
        }
        result
    }
}

impl Clone for QuicConnection {
    fn clone(&self) -> Self {
        self.0.handles.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for QuicConnection {
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

impl std::fmt::Debug for QuicConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QuicConnection").field(&self.0.number).finish()
    }
}

impl ConnectionShared {
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, ConnectionState> {
        self.state.lock()
    }

    /// Wakes the tasks that wait for what has happened to the connection, and publishes its round trip.
    pub(super) fn notify(&self, state: &mut ConnectionState) {
        self.rtt_micros.store(micros(state.proto.rtt()), Ordering::Relaxed);
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
                // A server opens no bidirectional streams.
                Event::Stream(StreamEvent::Available { dir: Dir::Bi }) => {}
                Event::Stream(StreamEvent::Readable { id }) => state.wake(id, |wait| wait == StreamWait::Read),
                Event::Stream(StreamEvent::Writable { id }) => state.wake(id, |wait| wait == StreamWait::Write),
                Event::Stream(StreamEvent::Finished { id }) => state.wake(id, |wait| wait == StreamWait::Stopped),
                Event::Stream(StreamEvent::Stopped { id, .. }) => state.wake(id, |wait| wait != StreamWait::Read),
            }
        }
    }

    /// Ends a connection without packets for [`idle`](crate::QuicOptions::idle).
    pub(super) fn give_up(&self, state: &mut ConnectionState, now: Instant) {
        if state.is_open() {
            // The path may be broken in one direction only, so the peer is told.
            state.proto.close(now, NO_ERROR, Bytes::from_static(b"nothing heard"));
            self.end(state, ConnectionError::TimedOut);
        }
    }

    /// Ends a connection whose driver is gone.
    pub(super) fn abandon(&self, state: &mut ConnectionState) {
        self.end(state, ConnectionError::LocallyClosed);
    }

    fn touch(&self, state: &mut ConnectionState) {
        if !std::mem::replace(&mut state.touched, true) {
            self.inbox.touch(self.number);
        }
    }

    /// Sends a datagram, or gives it back if the send buffer has no place for it.
    fn send_datagram(&self, state: &mut ConnectionState, datagram: Bytes) -> DatagramSend {
        use quinn_proto::SendDatagramError as Refused;
        if let Some(error) = &state.error {
            return DatagramSend::Done(Err(SendDatagramError::ConnectionLost(error.clone())));
        }
        // `false`: no older datagram is dropped for this one. The application knows better which of its own are stale.
        DatagramSend::Done(Err(match state.proto.datagrams().send(datagram, false) {
            Ok(()) => {
                self.touch(state);
                return DatagramSend::Done(Ok(()));
            }
            Err(Refused::Blocked(datagram)) => return DatagramSend::Blocked(datagram),
            Err(Refused::TooLarge) => SendDatagramError::TooLarge,
            Err(Refused::UnsupportedByPeer | Refused::Disabled) => SendDatagramError::Unsupported,
        }))
    }

    pub(super) fn close(&self, state: &mut ConnectionState, code: VarInt, reason: Bytes) {
        state.proto.close(now(), code, reason);
        self.end(state, ConnectionError::LocallyClosed);
        self.touch(state);
    }

    /// Marks the connection as over and wakes every waiter. The first reason is kept.
    fn end(&self, state: &mut ConnectionState, reason: ConnectionError) {
        state.error.get_or_insert(reason);
        let ConnectionState { handshake, accept: [bi, uni], open_uni, datagram, streams, .. } = state;
        for waker in [handshake, bi, uni, open_uni, datagram] {
            wake(waker);
        }
        streams.drain(..).for_each(|(_, _, waker)| waker.wake());
        self.datagram_place.notify_waiters();
        self.closed.notify_waiters();
    }
}

impl ConnectionState {
    pub(super) fn is_open(&self) -> bool {
        self.error.is_none()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Handles one timeout that is due. After a pause of the process several probe timeouts (RFC 9002 §6.2) are
    /// overdue; the probe of one must be sent before the next is handled, or each would double the wait for the one
    /// after it.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.is_due(now) {
            self.proto.handle_timeout(now);
        }
    }

    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.proto.poll_timeout().is_some_and(|at| at <= now)
    }

    pub(super) fn error(&self) -> Option<ConnectionError> {
        self.error.clone()
    }

    /// Registers the waker of a task that waits on a stream.
    pub(super) fn wait(&mut self, id: StreamId, wait: StreamWait, waker: &Waker) {
        match self.streams.iter_mut().find(|(of, what, _)| (*of, *what) == (id, wait)) {
            Some((_, _, waiting)) => waiting.clone_from(waker),
            None => self.streams.push((id, wait, waker.clone())),
        }
    }

    /// Drops wakers of a stream.
    pub(super) fn forget(&mut self, id: StreamId, which: impl Fn(StreamWait) -> bool) {
        self.streams.retain(|(of, wait, _)| *of != id || !which(*wait));
    }

    fn wake(&mut self, id: StreamId, which: impl Fn(StreamWait) -> bool) {
        let woken = self.streams.extract_if(.., |(of, wait, _)| *of == id && which(*wait));
        woken.for_each(|(_, _, waker)| waker.wake());
    }
}

/// Outcome of sending a datagram.
enum DatagramSend {
    /// It was sent, or can never be.
    Done(Result<(), SendDatagramError>),
    /// The send buffer is full.
    Blocked(Bytes),
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

/// The round trip with a repair, where one packet in 200 or more is lost. The variation of the round trip, which the
/// probe timeout includes four times, is not public: an eighth of the round trip stands for it.
fn repaired(rtt: Duration, sent: u64, lost: u64) -> Duration {
    /// The peer's delay of acknowledgements that the probe timeout allows for.
    const MAX_ACK_DELAY: Duration = Duration::from_millis(25);
    /// One loss may be a handshake's.
    const FEWEST: u64 = 3;
    const ONE_IN: u64 = 200;
    if lost < FEWEST || lost * ONE_IN < sent {
        return rtt;
    }
    rtt + rtt + rtt / 4 + MAX_ACK_DELAY
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use quinn_proto::crypto::rustls::QuicClientConfig;
    use quinn_proto::{ClientConfig, Endpoint, EndpointConfig};

    use super::*;

    /// A client's connection whose first packet is never answered.
    fn unanswered(now: Instant) -> (QuicConnection, Arc<ConnectionShared>) {
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
        let (connection, shared) = QuicConnection::new(0, proto, Arc::default());
        assert_eq!(packets(&shared, now), 1);
        (connection, shared)
    }

    fn packets(shared: &ConnectionShared, now: Instant) -> usize {
        let mut packet = Vec::new();
        let mut sent = 0;
        while shared.lock().proto.poll_transmit(now, 1, &mut packet).is_some() {
            packet.clear();
            sent += 1;
        }
        sent
    }

    #[test]
    fn a_path_that_loses_packets_is_planned_with_a_repair_and_one_with_a_single_loss_is_not() {
        let rtt = Duration::from_millis(100);
        assert_eq!(repaired(rtt, 0, 0), rtt);
        assert_eq!(repaired(rtt, 20, 2), rtt, "the handshake's");
        assert_eq!(repaired(rtt, 1000, 20), Duration::from_millis(250));
        assert_eq!(repaired(rtt, 1_000_000, 20), rtt, "long ago");
    }

    #[test]
    fn of_several_overdue_probe_timeouts_one_is_handled_and_its_probe_is_sent_before_the_next() {
        let start = now();
        let (_connection, shared) = unanswered(start);
        let first = shared.lock().proto.poll_timeout().unwrap() - start;
        // The process was suspended for so long that the following timeouts are overdue as well.
        let now = start + first * 8;
        shared.lock().expire(now);
        assert!(packets(&shared, now) > 0, "the probe");
        let next = shared.lock().proto.poll_timeout().unwrap() - now;
        assert!(next <= first * 2, "the wait for the next one has doubled once: {first:?}, {next:?}");
    }
}
