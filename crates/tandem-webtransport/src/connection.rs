//! One QUIC connection: its streams are sorted into requests and the session's own.

use std::future::{Future, poll_fn};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use h3::frame::FrameStream;
use h3::proto::coding::Encode as _;
use h3::quic::RecvStream as _;
use h3::stream::BufRecvStream;
use h3::webtransport::SessionId;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::adapter::{self, BidiStream};
use super::request::Requests;
use super::slot::ControlRecv;
use super::{Server, codes, varint};
use crate::telemetry::names;
use crate::transport::Accept;
use crate::transport::quic::{self, Admitted};

type Http = h3::server::Connection<adapter::Connection, Bytes>;

/// First bytes of a bidirectional stream that belongs to a session; its id follows.
const SESSION_STREAM: u64 = 0x41;
/// Largest field section of a request.
const MAX_FIELDS: u64 = 16 << 10;
/// A connection without a request for this long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// Streams that came to nothing, after which a client is not worth its connection.
const MAX_STRIKES: u32 = 64;

/// What happens on a connection.
enum Event {
    Stream(BidiStream),
    Sorted(Sorted),
    /// A unidirectional stream of a session.
    Uni(u64, BufRecvStream<adapter::RecvStream, Bytes>),
    End,
}

/// A bidirectional stream, once its first bytes are there.
enum Sorted {
    Request(BidiStream),
    OfSession(u64, BidiStream),
}

/// Runs a connection to its end.
pub(super) fn drive<A: Accept>(
    admitted: Admitted,
    server: Arc<Server<A>>,
    tracker: TaskTracker,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    // In boxes: a handshake is several times as large as what follows it, and soon over; and a session waits on another
    // task, with as little as possible on this one.
    let open = Box::pin(async move {
        let (connection, http) = start(admitted).await?;
        Some(Box::new(Open::new(connection, http, server, tracker, stop)))
    });
    async move {
        if let Some(mut open) = open.await {
            open.serve().await;
        }
    }
}

/// An open connection. Dropping it drops `http`, which closes the connection.
struct Open<A> {
    http: Http,
    requests: Requests<A>,
    /// Streams of which too little has come to tell what they are.
    sorting: FuturesUnordered<BoxFuture<'static, Sorted>>,
    /// The process's tasks.
    tracker: TaskTracker,
    /// Those of this connection.
    running: TaskTracker,
    stop: CancellationToken,
    stopping: bool,
    idle: Option<Pin<Box<Sleep>>>,
    /// Nothing has happened since the idle time began.
    quiet: bool,
    _count: OpenConnection,
}

impl<A: Accept> Open<A> {
    fn new(
        connection: quic::Connection,
        http: Http,
        server: Arc<Server<A>>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self {
            http,
            requests: Requests { server, slot: Arc::default(), connection },
            sorting: FuturesUnordered::new(),
            tracker,
            running: TaskTracker::new(),
            stop,
            stopping: false,
            idle: Some(Box::pin(sleep(IDLE))),
            quiet: true,
            _count: OpenConnection::count(),
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
                    // A session ends its connection itself.
                    self.idle = (!self.requests.slot.is_taken()).then(|| Box::pin(sleep(IDLE)));
                }
            }
        }
    }

    fn handle(&mut self, event: Event) -> ControlFlow<()> {
        self.quiet = false;
        let Requests { slot, connection, .. } = &self.requests;
        match event {
            Event::Stream(stream) => self.sorting.push(Box::pin(sort(stream))),
            Event::Sorted(Sorted::OfSession(id, stream)) => {
                if id % 4 != 0 {
                    connection.close(codes::ID_ERROR, b"not a session id");
                    return ControlFlow::Break(());
                }
                if let (Some(send), Some((unread, recv))) = (stream.send.into_inner(), stream.recv.into_inner()) {
                    slot.offer(id, send, ControlRecv { unread, stream: recv });
                }
            }
            Event::Sorted(Sorted::Request(stream)) => {
                let (held, acknowledged) = (stream.recv.held(), Box::pin(stream.send.acknowledged()));
                let resolver = self.http.create_resolver(FrameStream::new(BufRecvStream::new(stream)));
                let answer = self.requests.clone().answer(resolver, held, acknowledged);
                self.tracker.spawn(self.running.track_future(answer));
            }
            Event::Uni(id, mut stream) => stream.stop_sending(slot.refuse_uni(id)),
            Event::End => return ControlFlow::Break(()),
        }
        if slot.strikes() > MAX_STRIKES {
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

/// HTTP/3 on a connection that is still being established: the SETTINGS leave with the server's first flight.
async fn start(admitted: Admitted) -> Option<(quic::Connection, Http)> {
    let (connection, handshake) = admitted.begin().await?;
    let settings = settings();
    match handshake.complete(Box::pin(settings.build(adapter::Connection::new(connection.clone())))).await {
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
    http: &mut Http,
    sorting: &mut FuturesUnordered<BoxFuture<'static, Sorted>>,
    cx: &mut Context<'_>,
) -> Poll<Event> {
    if let Poll::Ready(Some(sorted)) = sorting.poll_next_unpin(cx) {
        return Poll::Ready(Event::Sorted(sorted));
    }
    match http.poll_accept_request_stream(cx) {
        Poll::Ready(Ok(Some(stream))) => return Poll::Ready(Event::Stream(stream)),
        Poll::Ready(Ok(None)) => return Poll::Ready(Event::End),
        Poll::Ready(Err(error)) => {
            tracing::trace!(%error, "connection ended");
            return Poll::Ready(Event::End);
        }
        Poll::Pending => {}
    }
    // Unidirectional streams were accepted on the way.
    match http.inner.accepted_streams_mut().wt_uni_streams.pop() {
        Some((id, stream)) => Poll::Ready(Event::Uni(session_id(id), stream)),
        None => Poll::Pending,
    }
}

fn session_id(id: SessionId) -> u64 {
    let mut bytes = BytesMut::new();
    id.encode(&mut bytes);
    varint::take(&mut bytes).unwrap_or(u64::MAX)
}

/// Reads as much of a stream as tells what it is.
async fn sort(mut stream: BidiStream) -> Sorted {
    let mut seen = Bytes::new();
    // A stream that ends before is a request as well: an incomplete one, and h3 knows how to say that.
    while let Some(chunk) = stream.recv.peek_chunk().await {
        seen = if seen.is_empty() { chunk } else { Bytes::from([&seen[..], &chunk[..]].concat()) };
        let mut rest = seen.clone();
        match varint::take(&mut rest) {
            None => {}
            Some(SESSION_STREAM) => {
                if let Some(id) = varint::take(&mut rest) {
                    stream.recv.unread(rest);
                    return Sorted::OfSession(id, stream);
                }
            }
            Some(_) => break,
        }
    }
    stream.recv.unread(seen);
    Sorted::Request(stream)
}

struct OpenConnection;

impl OpenConnection {
    fn count() -> Self {
        metrics::gauge!(names::QUIC_CONNECTIONS).increment(1.0);
        Self
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!(names::QUIC_CONNECTIONS).decrement(1.0);
    }
}
