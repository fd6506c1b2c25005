//! Transports turn bytes into frames and back; nothing about rooms is decided here.
//!
//! ```text
//! UDP ─► tandem_quic ─► tandem_webtransport ─┬─ CONNECT /wt ─► webtransport ─► Accept::admit ─► Accept::serve(session)
//!                                            └─ any other request ─► axum::Router ─► http
//! TCP ─► tcp (TLS, HTTP) ─► axum::Router ─► http ─ /ws ─► websocket ─► Accept::serve(session)
//! ```
//! The seam toward the application is [`Accept`]: WebTransport asks `admit` before it answers a client. WebSocket
//! answers first, because a browser can read a closing code and not the status of a refused upgrade; `app` admits the
//! opened connection, or closes it with the code. Either hands the session to `serve` and keeps nothing of it but the
//! machinery that moves its bytes. The session ends when the future of `serve` ends.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::session::transport::Transport;

mod fragments;
pub mod origin;
mod paced;
pub mod proxies;
pub mod quic;
mod stall;
pub mod tcp;
pub mod tls;
pub mod websocket;
pub mod webtransport;

/// The application, as transports need it. Cloned per connection, so it is a handle.
pub trait Accept: Clone + Send + Sync + 'static {
    /// A place for one session, given back when dropped.
    type Permit: Send + 'static;

    /// Takes a place for a session of this client. WebTransport asks before it answers the client.
    fn admit(&self, peer: IpAddr) -> Result<Self::Permit, SessionRefused>;

    /// Runs one session to its end.
    fn serve<T: Transport + 'static>(&self, transport: T, permit: Self::Permit) -> BoxFuture<'static, ()>;
}

/// Why there is no place. Both answer 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionRefused {
    /// The node, or the client's address, has all the sessions it may have.
    #[error("no place for another session")]
    Full {
        /// When the client may ask again.
        retry_after: Duration,
    },
    /// The node is stopping; another one has a place.
    #[error("this server is going away")]
    Draining,
}

/// Request extension: the connection has one of the last file descriptors, which are reserved for probes and
/// diagnostics.
#[derive(Debug, Clone, Copy)]
pub struct ProbesOnly;

/// Request extension: the request arrived at a public listener, where `/status` and `/metrics` are refused.
#[derive(Debug, Clone, Copy)]
pub struct Public;
