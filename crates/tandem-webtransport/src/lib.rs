//! WebTransport sessions (draft-ietf-webtrans-http3) for browsers, on [tandem_quic] and h3, and plain HTTP/3 requests
//! beside them.
//!
//! A session here is one bidirectional stream of messages, opened by the client, and datagrams. That is less than
//! WebTransport allows: further streams are refused, the server opens none, and a connection carries one session.
//!
//! ```text
//! QUIC ──► h3_adapter ─► h3 ─► connection ─┬─ the session's stream ─► slot ─► session
//!                                          └─ request ─► request ─┬─ CONNECT ─► connect (capsules) ─► session
//!                                                                 └─ any other ─► http ─► Application::answer
//! ```
//! A connection's task accepts streams and never waits for a request. Each request has a task of its own. A session
//! runs on the task of its CONNECT request: the application's future beside the reader of capsules.
//!
//! h3 does HTTP/3's framing (RFC 9114). The sessions are not those of `h3-webtransport`; the module `h3_workarounds`
//! says why, and holds what h3 lacks.
//!
//! # Messages
//!
//! On the stream a message is its length, four bytes big-endian, and as many bytes. A datagram is a message of its own,
//! of at most [`MAX_DATAGRAM`] bytes, and may be lost.
#![warn(missing_docs)]

pub mod capsule;
mod codes;
mod connect;
mod connection;
mod datagrams;
mod h3_adapter;
mod h3_workarounds;
mod http;
pub mod message;
mod reader;
mod request;
mod session;
mod slot;
mod varint;
mod writer;

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use tandem_quic::{EndpointDriver, QuicListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::http::{BodyError, RequestBody};
pub use datagrams::{Datagram, MAX_DATAGRAM, SessionDatagrams};
pub use message::Violation;
pub use reader::{Received, SessionReader};
pub use session::{SessionError, WebTransportSession};
pub use tandem_quic as quic;
pub use writer::SessionWriter;

/// The application, as the listener needs it. Cloned for each connection, so it is a handle.
pub trait Application: Clone + Send + Sync + 'static {
    /// A place for one session, returned when it is dropped.
    type Permit: Send + 'static;

    /// Whether this request may open a session: the place to check `Origin`. Everything may by default.
    fn check(&self, request: &Request<()>) -> Result<(), SessionRefusal> {
        let _ = request;
        Ok(())
    }

    /// Takes a place for a session of the client at `peer`, before the client is answered.
    fn admit(&self, peer: IpAddr) -> Result<Self::Permit, SessionRefusal>;

    /// Runs a session. The session ends with the future, and its connection with it.
    fn serve(&self, session: WebTransportSession, permit: Self::Permit) -> BoxFuture<'static, ()>;

    /// Answers a request that opens no session; with 404 by default. The future is dropped when the client is gone.
    fn answer(&self, request: Request<RequestBody>, peer: SocketAddr) -> BoxFuture<'static, Response<ResponseBody>> {
        let _ = (request, peer);
        let mut response = Response::new(ResponseBody::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Box::pin(std::future::ready(response))
    }
}

/// The body of an answer.
pub type ResponseBody = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// The answer to a client that may not open a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRefusal {
    /// The status of the answer, 4xx or 5xx.
    pub status: StatusCode,
    /// Sent as `Retry-After`, in whole seconds, at least one.
    pub retry_after: Option<Duration>,
    /// Reported as [`WebTransportEvent::Request`].
    pub outcome: &'static str,
}

/// An event for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebTransportEvent {
    /// An HTTP/3 connection was established.
    ConnectionOpened,
    /// It is gone.
    ConnectionClosed,
    /// How a request for a session ended: `ok`, `unanswered`, `second` (the connection has a session), `method`,
    /// `path`, `protocol`, or what [`SessionRefusal::outcome`] says.
    Request {
        /// One of the list above.
        outcome: &'static str,
    },
    /// A stream was reset or stopped: `request` (no readable header fields came), `no_session`, `second`,
    /// `unidirectional`.
    StreamRefused {
        /// One of the list above.
        reason: &'static str,
    },
    /// A datagram from a client was dropped: `too_big`, `unknown_session`.
    DatagramInDropped {
        /// One of the list above.
        reason: &'static str,
    },
    /// A datagram to a client was dropped: `too_big`, `unsupported`.
    DatagramOutDropped {
        /// One of the list above.
        reason: &'static str,
    },
}

/// Takes events for metrics. It must not block.
pub type ObserveWebTransport = fn(WebTransportEvent);

/// A server's settings and its application.
#[derive(Debug, Clone)]
pub struct WebTransportServer<A> {
    /// Takes sessions and requests.
    pub application: A,
    /// The path of CONNECT requests that open a session.
    pub path: &'static str,
    /// Bytes of a message from a client, at most.
    pub message_bytes: usize,
    /// The application's error code for streams and messages that a session doesn't have; a client reads it from the
    /// reset.
    pub violation_code: u32,
    /// Takes events for metrics.
    pub observe: ObserveWebTransport,
}

impl<A> WebTransportServer<A> {
    /// Messages up to 64 KiB, code 1 for violations, no metrics.
    pub fn new(path: &'static str, application: A) -> Self {
        Self { application, path, message_bytes: 65_536, violation_code: 1, observe: |_| {} }
    }
}

/// Serves until `stop`, and after it until the sessions have ended. Connections and requests run on `tracker`.
///
/// Returns the endpoints' drivers, each to be spawned; see [`QuicListener::accept`].
#[must_use = "nothing happens unless the drivers are spawned"]
pub fn serve<A: Application>(
    listener: QuicListener,
    server: WebTransportServer<A>,
    tracker: &TaskTracker,
    stop: CancellationToken,
) -> Vec<EndpointDriver> {
    let (server, requests) = (Arc::new(server), tracker.clone());
    listener.accept(tracker, stop.clone(), move |accepted| {
        connection::drive(accepted, Arc::clone(&server), requests.clone(), stop.clone())
    })
}
