//! One HTTP/3 connection: its streams are sorted into requests and the session's own.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use h3::frame::FrameStream;
use h3::quic::RecvStream as _;
use h3::stream::BufRecvStream;
use tandem_quic::{AcceptedConnection, QuicConnection};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::h3_adapter::{H3BidiStream, H3Connection, H3RecvStream};
use crate::h3_workarounds::session_id;
use crate::request::Requests;
use crate::slot::{ControlRecv, WebTransportSlot};
use crate::{Application, ObserveWebTransport, WebTransportEvent, WebTransportServer, codes, varint};

type H3Server = h3::server::Connection<H3Connection, Bytes>;

/// Begins a bidirectional stream of a session (WT_STREAM); the session's id follows.
const SESSION_STREAM: u64 = 0x41;
/// Bytes of a request's field section (SETTINGS_MAX_FIELD_SECTION_SIZE).
const MAX_FIELDS: u64 = 16 << 10;
/// A connection without a request or a session for this long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Streams that came to nothing, after which a connection is closed.
const MAX_USELESS: u32 = 64;

enum ConnectionEvent {
    Stream(H3BidiStream),
    Sorted(SortedStream),
    /// A unidirectional stream of a session.
    Uni(u64, BufRecvStream<H3RecvStream, Bytes>),
    End,
}

/// A bidirectional stream whose first bytes have arrived.
enum SortedStream {
    Request(H3BidiStream),
    OfSession(u64, H3BidiStream),
}

/// Runs a connection to its end.
pub(super) fn drive<A: Application>(
    accepted: AcceptedConnection,
    server: Arc<WebTransportServer<A>>,
    tracker: TaskTracker,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    // Boxed: the future of a handshake is several times as large as what follows it, and a future is as large as its
    // largest state for all its life.
    let open = Box::pin(async move {
        let (connection, http) = start(accepted).await?;
        Some(Box::new(OpenConnection::new(connection, http, server, tracker, stop)))
    });
    async move {
        if let Some(mut open) = open.await {
            open.serve().await;
        }
    }
}

/// An established connection. Dropping it drops `http`, which closes the connection.
struct OpenConnection<A> {
    http: H3Server,
    requests: Requests<A>,
    /// Streams too few bytes of which have arrived to tell what they are.
    sorting: FuturesUnordered<BoxFuture<'static, SortedStream>>,
    tracker: TaskTracker,
    /// The requests of this connection, which run on `tracker`.
    running: TaskTracker,
    stop: CancellationToken,
    stopping: bool,
    idle: Option<Pin<Box<Sleep>>>,
    /// Nothing has happened since `idle` began.
    quiet: bool,
    _count: ConnectionCount,
}

impl<A: Application> OpenConnection<A> {
    fn new(
        connection: QuicConnection,
        http: H3Server,
        server: Arc<WebTransportServer<A>>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let observe = server.observe;
        let slot = Arc::new(WebTransportSlot::new(server.violation_code, observe));
        Self {
            http,
            requests: Requests { server, slot, connection },
            sorting: FuturesUnordered::new(),
            tracker,
            running: TaskTracker::new(),
            stop,
            stopping: false,
            idle: Some(Box::pin(sleep(IDLE))),
            quiet: true,
            _count: ConnectionCount::new(observe),
        }
    }

    async fn serve(&mut self) {
        loop {
            tokio::select! {
                event = poll_fn(|cx| poll_event(&mut self.http, &mut self.sorting, cx)) => {
                    if self.handle(event).is_break() {
                        return;
                    }
                }
                () = self.stop.cancelled(), if !self.stopping => {
                    self.stopping = true;
                    self.running.close();
                }
                () = self.running.wait(), if self.stopping => return,
                () = over(&mut self.idle) => {
                    if self.quiet && self.running.is_empty() {
                        return;
                    }
                    self.quiet = true;
                    // A session's end closes the connection.
                    self.idle = (!self.requests.slot.is_taken()).then(|| Box::pin(sleep(IDLE)));
                }
            }
        }
    }

    fn handle(&mut self, event: ConnectionEvent) -> ControlFlow<()> {
        self.quiet = false;
        let Requests { slot, connection, .. } = &self.requests;
        match event {
            ConnectionEvent::Stream(stream) => self.sorting.push(Box::pin(sort(stream))),
            ConnectionEvent::Sorted(SortedStream::OfSession(id, stream)) => {
                if id % 4 != 0 {
                    connection.close(codes::ID_ERROR, b"not a session id");
                    return ControlFlow::Break(());
                }
                if let (Some(send), Some((unread, recv))) = (stream.send.into_inner(), stream.recv.into_inner()) {
                    slot.offer(id, send, ControlRecv { unread, stream: recv });
                }
            }
            ConnectionEvent::Sorted(SortedStream::Request(stream)) => {
                let (held, acknowledged) = (stream.recv.held(), Box::pin(stream.send.acknowledged()));
                let resolver = self.http.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
                let answer = self.requests.clone().answer(resolver, held, acknowledged);
                self.tracker.spawn(self.running.track_future(answer));
            }
            ConnectionEvent::Uni(id, mut stream) => stream.stop_sending(slot.refuse_uni(id)),
            ConnectionEvent::End => return ControlFlow::Break(()),
        }
        if slot.useless() > MAX_USELESS {
            connection.close(codes::EXCESSIVE_LOAD, b"too many useless streams");
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

async fn over(idle: &mut Option<Pin<Box<Sleep>>>) {
    match idle {
        Some(idle) => idle.await,
        None => std::future::pending().await,
    }
}

/// Starts HTTP/3 while the handshake is under way: the SETTINGS leave with the server's first flight.
async fn start(accepted: AcceptedConnection) -> Option<(QuicConnection, H3Server)> {
    let (connection, handshake) = accepted.begin().await?;
    let settings = settings();
    match handshake.complete(Box::pin(settings.build(H3Connection::new(connection.clone())))).await {
        Ok(Ok(http)) => Some((connection, http)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "HTTP/3 could not start");
            None
        }
        Err(_) => None,
    }
}

fn settings() -> h3::server::Builder {
    let mut builder = h3::server::builder();
    builder
        .enable_webtransport(true)
        .enable_extended_connect(true)
        .enable_datagram(true)
        .max_webtransport_sessions(1)
        .max_field_section_size(MAX_FIELDS)
        .send_grease(false);
    builder
}

fn poll_event(
    http: &mut H3Server,
    sorting: &mut FuturesUnordered<BoxFuture<'static, SortedStream>>,
    cx: &mut Context<'_>,
) -> Poll<ConnectionEvent> {
    if let Poll::Ready(Some(sorted)) = sorting.poll_next_unpin(cx) {
        return Poll::Ready(ConnectionEvent::Sorted(sorted));
    }
    match http.poll_accept_request_stream(cx) {
        Poll::Ready(Ok(Some(stream))) => return Poll::Ready(ConnectionEvent::Stream(stream)),
        Poll::Ready(Ok(None)) => return Poll::Ready(ConnectionEvent::End),
        Poll::Ready(Err(error)) => {
            tracing::trace!(%error, "connection ended");
            return Poll::Ready(ConnectionEvent::End);
        }
        Poll::Pending => {}
    }
    // h3 has accepted unidirectional streams on the way.
    match http.inner.accepted_streams_mut().wt_uni_streams.pop() {
        Some((id, stream)) => Poll::Ready(ConnectionEvent::Uni(session_id::number(id), stream)),
        None => Poll::Pending,
    }
}

/// Reads as many bytes of a stream as tell what it is.
async fn sort(mut stream: H3BidiStream) -> SortedStream {
    let mut seen = Bytes::new();
    // A stream that ends before counts as a request: h3 answers an incomplete one.
    while let Some(chunk) = stream.recv.peek_chunk().await {
        seen = if seen.is_empty() { chunk } else { Bytes::from([&seen[..], &chunk[..]].concat()) };
        let mut rest = seen.clone();
        match varint::take(&mut rest) {
            None => {}
            Some(SESSION_STREAM) => {
                if let Some(id) = varint::take(&mut rest) {
                    stream.recv.unread(rest);
                    return SortedStream::OfSession(id, stream);
                }
            }
            Some(_) => break,
        }
    }
    stream.recv.unread(seen);
    SortedStream::Request(stream)
}

/// Reports the connection as open until it is dropped.
struct ConnectionCount(ObserveWebTransport);

impl ConnectionCount {
    fn new(observe: ObserveWebTransport) -> Self {
        observe(WebTransportEvent::ConnectionOpened);
        Self(observe)
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        (self.0)(WebTransportEvent::ConnectionClosed);
    }
}
