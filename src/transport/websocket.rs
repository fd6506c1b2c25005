//! WebSocket (RFC 6455): the upgrade, and the frames.
//!
//! The upgrade is not axum's, so that its task runs on the tracker that shutdown waits for and protocol errors are
//! typed. A text frame carries a JSON message, a binary frame a compact message.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::ready;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as RawFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::fragments::{FragmentLimit, TooManyFragments};
use super::origin::OriginGuard;
use super::tcp::ConnectionPermits;
use crate::clock::Clock;
use crate::domain::{CloseCode, Limits, TransportKind};
use crate::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use crate::telemetry::names;

/// Bytes of the read buffer, which tungstenite allocates for each connection for all its life (128 KiB by default). A
/// client's periodic messages fit; a larger message is read in several pieces.
const READ_BUFFER: usize = 1024;
/// Bytes that are buffered before a write without a flush.
const WRITE_BUFFER: usize = 16 * 1024;
/// The code that stands for a close frame without one (RFC 6455 §7.1.5).
const NO_CODE: u32 = 1005;
/// Bytes of a close frame's reason, at most (RFC 6455 §5.5 allows 123).
const REASON_BYTES: usize = 120;

/// Runs a session to its end.
pub type ServeWebSocket = Arc<dyn Fn(WebSocketTransport) -> BoxFuture<'static, ()> + Send + Sync>;

/// Answers upgrade requests and starts their sessions.
#[derive(Clone)]
pub struct WebSocketUpgrade {
    origins: OriginGuard,
    config: WebSocketConfig,
    tracker: TaskTracker,
    draining: CancellationToken,
    serve: ServeWebSocket,
}

impl WebSocketUpgrade {
    /// Sessions run on `tracker`; after `draining` is cancelled, upgrades are refused.
    pub fn new(
        origins: OriginGuard,
        limits: &Limits,
        tracker: TaskTracker,
        draining: CancellationToken,
        serve: ServeWebSocket,
    ) -> Self {
        let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX / 2);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER + bytes(limits.outbox_bytes) + bytes(limits.message_bytes))
            .max_message_size(Some(bytes(limits.message_bytes)))
            .max_frame_size(Some(bytes(limits.message_bytes)));
        Self { origins, config, tracker, draining, serve }
    }

    /// Whether a page that sends these headers to `asked` may open sessions.
    pub fn admits(&self, headers: &HeaderMap, asked: Option<&Authority>) -> bool {
        self.origins.admits(headers, asked)
    }

    /// Answers an upgrade request of a client at `peer` that was sent to `asked`; the session starts when the client
    /// has the answer.
    pub fn upgrade(&self, mut request: Request, peer: IpAddr, asked: Option<&Authority>) -> Response {
        let accept = match handshake(&request) {
            Ok(accept) => accept,
            Err((status, hint, words)) => return refuse((status, [hint], words).into_response(), "handshake"),
        };
        if !self.admits(request.headers(), asked) {
            return refuse(
                (StatusCode::FORBIDDEN, "this origin may not open sessions here\n").into_response(),
                "origin",
            );
        }
        if self.draining.is_cancelled() {
            let away = (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], "this server is going away\n");
            return refuse(away.into_response(), "draining");
        }
        let cap = request.extensions().get::<Arc<ConnectionPermits>>().cloned();
        let upgrade = hyper::upgrade::on(&mut request);
        let (config, serve) = (self.config, Arc::clone(&self.serve));
        self.tracker.spawn(async move {
            // Held until the session ends.
            let _cap = cap;
            match upgrade.await {
                Ok(io) => {
                    // Boxed: this future holds the stream several times, and the task keeps its size for the session's
                    // life.
                    let stream = Box::pin(WebSocketStream::from_raw_socket(
                        FragmentLimit::new(TokioIo::new(io)),
                        Role::Server,
                        Some(config),
                    ));
                    let stream = stream.await;
                    serve(WebSocketTransport { peer, shared: Arc::new(WebSocketShared::new(stream)) }).await;
                }
                Err(error) => tracing::debug!(%peer, %error, "a WebSocket client left during the upgrade"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

impl std::fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            .field("origins", &self.origins)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

fn refuse(response: Response, reason: &'static str) -> Response {
    metrics::counter!(names::HANDSHAKE_FAILURES, "transport" => "websocket", "reason" => reason).increment(1);
    response
}

/// Validates the client's handshake (RFC 6455 §4.2.1); returns the value of `Sec-WebSocket-Accept`.
fn handshake(request: &Request) -> Result<HeaderValue, UpgradeRefusal> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err((StatusCode::METHOD_NOT_ALLOWED, (header::ALLOW, "GET"), "GET it is\n"));
    }
    let asks = request.version() == Version::HTTP_11
        && lists(headers, header::CONNECTION, "upgrade")
        && lists(headers, header::UPGRADE, "websocket");
    if !asks {
        return Err((StatusCode::UPGRADE_REQUIRED, (header::UPGRADE, "websocket"), "this is a WebSocket endpoint\n"));
    }
    let version = (header::SEC_WEBSOCKET_VERSION, "13");
    if headers.get(&version.0).is_none_or(|given| given != version.1) {
        return Err((StatusCode::UPGRADE_REQUIRED, version, "WebSocket version 13 it is\n"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    let no_key = (StatusCode::BAD_REQUEST, version, "no Sec-WebSocket-Key\n");
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(no_key);
    }
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).map_err(|_| no_key)
}

/// Status, the header field that says what is expected, and the body.
type UpgradeRefusal = (StatusCode, (HeaderName, &'static str), &'static str);

fn lists(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

type UpgradedStream = WebSocketStream<FragmentLimit<TokioIo<Upgraded>>>;

/// Shared by both halves. They are polled from one task, so the locks are never contended.
#[derive(Debug)]
struct WebSocketShared {
    stream: Mutex<UpgradedStream>,
    /// The peer has broken the protocol: what follows can't be parsed as frames.
    broken: AtomicBool,
    pings: Mutex<Pings>,
}

#[derive(Debug, Default)]
struct Pings {
    count: u64,
    sent: Option<tokio::time::Instant>,
}

impl WebSocketShared {
    fn new(stream: UpgradedStream) -> Self {
        Self { stream: Mutex::new(stream), broken: AtomicBool::new(false), pings: Mutex::default() }
    }

    /// Writes all messages, then flushes once.
    async fn send(&self, messages: impl Iterator<Item = Message>) -> Result<(), Error> {
        let mut messages = messages.peekable();
        poll_fn(|cx| {
            let mut stream = self.stream.lock();
            while messages.peek().is_some() {
                ready!(stream.poll_ready_unpin(cx))?;
                if let Some(message) = messages.next() {
                    stream.start_send_unpin(message)?;
                }
            }
            stream.poll_flush_unpin(cx)
        })
        .await
    }

    /// A ping with a number by which its pong is recognised.
    fn ping(&self) -> Message {
        let mut pings = self.pings.lock();
        pings.count += 1;
        pings.sent = Some(Clock::instant());
        Message::Ping(Bytes::copy_from_slice(&pings.count.to_be_bytes()))
    }
}

/// An upgraded connection.
#[derive(Debug)]
pub struct WebSocketTransport {
    peer: IpAddr,
    shared: Arc<WebSocketShared>,
}

impl Transport for WebSocketTransport {
    type Inbound = WebSocketInbound;
    type Outbound = WebSocketOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::WebSocket
    }

    fn peer(&self) -> IpAddr {
        self.peer
    }

    fn split(self) -> (WebSocketInbound, WebSocketOutbound) {
        (WebSocketInbound(Arc::clone(&self.shared)), WebSocketOutbound(self.shared))
    }
}

#[derive(Debug)]
pub struct WebSocketInbound(Arc<WebSocketShared>);

impl Inbound for WebSocketInbound {
    async fn next(&mut self) -> Result<Frame, TransportError> {
        loop {
            // Cancel-safe: a partial frame stays in the stream's buffer.
            let message = match poll_fn(|cx| self.0.stream.lock().poll_next_unpin(cx)).await {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    self.0.broken.store(true, Ordering::Relaxed);
                    return Err(failure(error));
                }
                None => return Err(TransportError::Lost("the connection ended without a close".into())),
            };
            return Ok(match message {
                Message::Text(text) => Frame::Message(text.into()),
                Message::Binary(bytes) => Frame::Compact(bytes),
                Message::Ping(_) => Frame::Alive { rtt: None },
                Message::Pong(payload) => Frame::Alive { rtt: self.answered(&payload) },
                Message::Close(frame) => Frame::Closed(frame.map_or(NO_CODE, |frame| u32::from(u16::from(frame.code)))),
                Message::Frame(_) => continue,
            });
        }
    }
}

impl WebSocketInbound {
    /// The round trip, if this pong answers the latest ping.
    fn answered(&self, payload: &[u8]) -> Option<Duration> {
        let mut pings = self.0.pings.lock();
        if payload != pings.count.to_be_bytes() {
            return None;
        }
        Some(Clock::instant().saturating_duration_since(pings.sent.take()?))
    }
}

#[derive(Debug)]
pub struct WebSocketOutbound(Arc<WebSocketShared>);

impl Outbound for WebSocketOutbound {
    async fn send(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), TransportError> {
        let messages = frames.drain(..).filter_map(|frame| match frame {
            Outgoing::Message(bytes) => Some(raw(bytes, Data::Text)),
            Outgoing::Compact(compact) => Some(raw(compact.message(), Data::Binary)),
            Outgoing::Drain => None,
            Outgoing::Ping => Some(self.0.ping()),
        });
        self.0.send(messages).await.map_err(failure)
    }

    async fn close(self, code: CloseCode, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let frame = CloseFrame { code: code.number().into(), reason: reason[..end].into() };
        // Fails if the peer's close was answered already.
        let _ = self.0.send(std::iter::once(Message::Close(Some(frame)))).await;
        if self.0.send(std::iter::empty()).await.is_err() {
            return;
        }
        // Closing a TCP socket with unread data sends RST, which would overtake the close frame. So only the sending
        // direction is shut down; the peer's data is read and dropped until its close frame or the end of the stream.
        let shutdown = poll_fn(|cx| Pin::new(self.0.stream.lock().get_mut()).poll_shutdown(cx)).await;
        while shutdown.is_ok() && !self.0.broken.load(Ordering::Relaxed) {
            match poll_fn(|cx| self.0.stream.lock().poll_next_unpin(cx)).await {
                Some(Ok(Message::Close(_))) | None => return,
                Some(Ok(_)) => {}
                Some(Err(_)) => break,
            }
        }
        // On the heap: an array would be part of the session's future for all its life.
        let mut rest = vec![0; 4096];
        while shutdown.is_ok() {
            let mut buffer = ReadBuf::new(&mut rest);
            let read = poll_fn(|cx| Pin::new(self.0.stream.lock().get_mut()).poll_read(cx, &mut buffer)).await;
            if read.is_err() || buffer.filled().is_empty() {
                return;
            }
        }
    }
}

/// A raw frame skips tungstenite's UTF-8 check: the bytes come from this server's encoder.
fn raw(payload: Bytes, kind: Data) -> Message {
    debug_assert!(kind == Data::Binary || std::str::from_utf8(&payload).is_ok());
    Message::Frame(RawFrame::message(payload, OpCode::Data(kind), true))
}

fn failure(error: Error) -> TransportError {
    let code = match &error {
        Error::Capacity(_) => CloseCode::TooBig,
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing) => {
            return TransportError::Lost(error.into());
        }
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => CloseCode::ProtocolError,
        Error::WriteBufferFull(_) => CloseCode::SlowConsumer,
        Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<TooManyFragments>()) => {
            CloseCode::ProtocolError
        }
        _ => return TransportError::Lost(error.into()),
    };
    TransportError::Violation { code, reason: error.to_string() }
}
