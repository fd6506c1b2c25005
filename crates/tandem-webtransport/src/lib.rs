//! WebTransport over HTTP/3, and the other requests of HTTP/3.
//!
//! h3 does the framing, the sessions are ours: `h3-webtransport` keeps the CONNECT stream to itself and never reads it,
//! so a page that closes leaves a ghost until QUIC's idle timeout, and it refuses Safari, which doesn't send the
//! setting that it asks for.
//!
//! ```text
//! QUIC ──► adapter ─► h3 ─► connection ─┬─ WebTransport stream ─► slot ─► session (control stream)
//!                                       └─ request ─► request ─┬─ CONNECT /wt ─► connect (capsules) ─► session
//!                                                              └─ any other ─► http ─► axum::Router
//! ```
//! One session a connection. The connection's task accepts streams and never waits for a request; each request has a
//! task, and a session lives on that of its CONNECT: the application's future next to the reader of capsules.

mod adapter;
pub mod capsule;
mod codes;
mod connect;
mod connection;
mod datagrams;
mod http;
mod inbound;
pub mod message;
mod outbound;
mod protocol;
mod request;
mod session;
mod settings;
mod slot;
mod varint;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use inbound::WebTransportInbound;
pub use outbound::WebTransportOutbound;
pub use session::WebTransportSession;

use super::origin::OriginGuard;
use super::quic::QuicListener;
use super::{Accept, Public};

/// Where a session is opened.
pub const PATH: &str = "/wt";

/// What the listener needs of the application.
#[derive(Debug, Clone)]
pub struct Server<A> {
    /// Takes the sessions.
    pub accept: A,
    /// Who may open one.
    pub origins: OriginGuard,
    /// Answers all other requests; they carry [`Public`] and `ConnectInfo<SocketAddr>`.
    pub router: axum::Router,
    /// Limit of a JSON message.
    pub message_bytes: usize,
    /// Limit of a request body.
    pub body_bytes: usize,
}

/// Serves until `stop`, and on until the sessions have ended by themselves. All tasks are on `tracker`.
pub fn serve<A: Accept>(listener: QuicListener, server: Server<A>, tracker: &TaskTracker, stop: CancellationToken) {
    let server = Arc::new(Server { router: server.router.layer(axum::Extension(Public)), ..server });
    let tracker_of_requests = tracker.clone();
    listener.run(tracker, stop.clone(), move |admitted| {
        connection::drive(admitted, Arc::clone(&server), tracker_of_requests.clone(), stop.clone())
    });
}
