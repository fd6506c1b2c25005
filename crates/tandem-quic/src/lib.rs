//! A QUIC server for many quiet connections: quinn-proto, driven by one task for each UDP socket.
//!
//! ```text
//! QuicListener ─► EndpointDriver (socket, timers) ─┬─ admission ─► the application's handler
//!                      ▲ DriverInbox               └─ deadlines
//!                      └───────── QuicConnection ◄─ SendStream, RecvStream ◄─ the application
//! ```
//! [quinn-proto](https://docs.rs/quinn-proto) is QUIC (RFC 9000, 9001, 9002, 9221) without I/O. quinn drives it with a
//! task, a channel and a timer for each connection; this crate drives all connections of a socket with one task. An
//! idle connection costs its protocol state and nothing else, and nine datagrams to nine connections cost one wake-up.
//!
//! [`QuicListener::bind`] opens the port, [`QuicListener::accept`] hands each connection to a handler while its
//! handshake is still under way, because a server may already send then: HTTP/3's SETTINGS are what a browser waits
//! for.
#![warn(missing_docs)]

mod admission;
pub mod codes;
mod config;
mod connection;
mod deadlines;
mod endpoint;
mod identity;
mod limits;
mod socket;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ResolvesServerCert;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use admission::{AcceptedConnection, Handshake, HandshakeError};
pub use connection::{QuicConnection, SendDatagramError};
pub use endpoint::EndpointDriver;
pub use identity::{MAX_ENDPOINTS, NodeIdentity, SecretTooShort, ServerId, ServerIdError, SharedSecret};
pub use limits::{ConnectionLimits, ConnectionPermit, LimitReached, Unlimited};
pub use quinn_proto::{ApplicationClose, ConnectionError, Dir, Side, StreamId, VarInt};
pub use stream::{ReadError, RecvStream, SendStream, WriteError};

use admission::AdmissionPolicy;
use endpoint::{DriverConfig, EndpointHandle};
use identity::EndpointConfigs;
use socket::QuicSocket;

/// Observer for the application's counters. Called from the driver's task and from the handlers: it must not block.
pub type ObserveQuic = fn(QuicEvent);

/// An event for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuicEvent {
    /// A handshake was admitted and is pending.
    HandshakeBegun,
    /// A pending handshake is done, or failed.
    HandshakeEnded,
    /// How a first packet or a handshake ended: `ok`, `retry`, or why it failed: `refused_handshakes`,
    /// `refused_address`, `refused_connections`, `refused_stopping`, `timeout`, `version`, `tls`, `protocol`,
    /// `tls_refused_by_client`, `closed_by_client`, `closed_here`, `reset`, `ids_exhausted`.
    Handshake {
        /// One of the list above.
        outcome: &'static str,
    },
    /// The state of one connection panicked, and the connection was dropped.
    ConnectionPanicked,
}

/// Settings of the driver. The defaults are for many quiet connections.
#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// Endpoints that share the port, at most [`MAX_ENDPOINTS`]: the cryptography of an endpoint uses one core at a
    /// time.
    pub endpoints: usize,
    /// Bytes of each of a socket's two buffers, as far as the kernel allows; 0 leaves the kernel's default.
    pub socket_buffer_bytes: usize,
    /// A connection without packets for this long is sent a PING.
    pub keep_alive: Duration,
    /// A connection without packets for this long is lost. What is left of it after the keep-alive is for the PING's
    /// retransmissions on a bad network.
    ///
    /// The peer is told twice as much: QUIC's own idle timeout (RFC 9000 §10.1) is one time for both sides, and a peer
    /// that only listens would give up while the server's PING is still being repeated.
    pub idle: Duration,
    /// Time for the client's hello, and again for the rest of the handshake.
    pub handshake: Duration,
    /// Handshakes under way at once; more are refused.
    pub max_handshakes: usize,
    /// Handshakes under way of clients that haven't proved their address. More clients must prove it first (Retry, RFC
    /// 9000 §8.1.2), at the cost of one round trip. Packets with a forged sender use up these handshakes only.
    pub retry_above: usize,
    /// Counts connections, in total and for each address.
    pub limits: Arc<dyn ConnectionLimits>,
    /// This node among others behind the same address.
    pub identity: NodeIdentity,
    /// Takes events for metrics.
    pub observe: ObserveQuic,
}

impl Default for QuicOptions {
    fn default() -> Self {
        // The other half of the cores is for the application, which makes what the endpoints send.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            endpoints: (cores / 2).clamp(1, 16),
            socket_buffer_bytes: 4 << 20,
            keep_alive: Duration::from_secs(10),
            idle: Duration::from_millis(14_500),
            handshake: Duration::from_secs(10),
            max_handshakes: 1024,
            retry_above: 64,
            limits: Arc::new(Unlimited),
            identity: NodeIdentity::default(),
            observe: |_| {},
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket can't be opened.
    #[error("can't listen for QUIC on UDP address {}, port {}: {doing}: {source}", .address.ip(), .address.port())]
    Socket {
        /// The address that was asked for.
        address: SocketAddr,
        /// The step that failed.
        doing: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// TLS 1.3 can't be set up with ring.
    #[error("can't set up TLS for QUIC on UDP address {}, port {}: {source}", .address.ip(), .address.port())]
    Tls {
        /// The address that was asked for.
        address: SocketAddr,
        /// The error of rustls.
        source: rustls::Error,
    },
    /// An option is out of QUIC's range.
    #[error("can't configure QUIC: {0}")]
    Options(&'static str),
}

/// A bound UDP port that doesn't accept yet.
pub struct QuicListener {
    sockets: Vec<QuicSocket>,
    endpoints: EndpointConfigs,
    server: Arc<quinn_proto::ServerConfig>,
    address: SocketAddr,
    options: QuicOptions,
}

impl QuicListener {
    /// Binds the port. `certificates` is asked at each handshake, so certificates can change under the listener.
    ///
    /// Must be called within a tokio runtime.
    pub fn bind(
        address: SocketAddr,
        certificates: Arc<dyn ResolvesServerCert>,
        options: QuicOptions,
    ) -> Result<Self, BindError> {
        let mut server = config::server(address, certificates, &options)?;
        let count = options.endpoints.clamp(1, MAX_ENDPOINTS);
        let endpoints = options.identity.endpoints(&mut server, count)?;
        let failed = |doing| move |source| BindError::Socket { address, doing, source };
        let sockets = socket::open(address, count, options.socket_buffer_bytes)?;
        let address = sockets[0].local_addr().map_err(failed("reading the bound address"))?;
        let sockets = sockets.into_iter().map(QuicSocket::new).collect::<Result<_, _>>();
        let sockets = sockets.map_err(failed("starting the endpoint"))?;
        Ok(Self { sockets, endpoints, server: Arc::new(server), address, options })
    }

    /// The address with the port that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`, each connection on a task of its own on `tracker`. After `stop` new connections are
    /// refused.
    ///
    /// Returns one driver for each endpoint, each to be spawned as a task. It ends after `stop`, when the last
    /// connection of the port has ended and everything is on the wire. A driver that ends before `stop`, or panics,
    /// takes its endpoint's connections with it.
    #[must_use = "nothing happens unless the drivers are spawned"]
    pub fn accept<H, F>(self, tracker: &TaskTracker, stop: CancellationToken, handler: H) -> Vec<EndpointDriver>
    where
        H: Fn(AcceptedConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { sockets, endpoints: EndpointConfigs { configs, ids }, server, options, .. } = self;
        let admission = AdmissionPolicy::new(&options);
        let handles: Arc<[EndpointHandle]> = sockets.iter().map(|_| EndpointHandle::default()).collect();
        let drivers = sockets.into_iter().zip(configs).enumerate().map(|(number, (socket, config))| {
            let (handler, tracker) = (handler.clone(), tracker.clone());
            EndpointDriver::new(DriverConfig {
                socket,
                config,
                server: Arc::clone(&server),
                handles: Arc::clone(&handles),
                number,
                ids: ids.clone(),
                idle: options.idle,
                admission: admission.clone(),
                stop: stop.clone(),
                accepted: Box::new(move |accepted| drop(tracker.spawn(handler(accepted)))),
            })
        });
        drivers.collect()
    }
}

impl std::fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicListener").field("address", &self.address).finish_non_exhaustive()
    }
}
