//! The QUIC listener: a UDP port, screened handshakes, a stop that waits.
//!
//! ```text
//! listener ─► endpoint (socket, driver) ─┬─ handshake (who is let in) ─► handler
//!                  ▲ inbox               └─ deadlines
//!                  └───────── connection ◄─ stream ◄─ WebTransport
//! ```
//! It hands every connection to a handler while the handshake is still under way, because a server may already send
//! then (0.5-RTT): HTTP/3's SETTINGS are what a browser waits for before it asks for a session.

mod config;
mod connection;
mod deadlines;
mod endpoint;
mod handshake;
mod identity;
mod socket;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ResolvesServerCert;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use connection::{Connection, SendDatagramError};
pub use handshake::{Admitted, Handshake, HandshakeError};
pub use identity::{Identity, MAX_ENDPOINTS, ServerId, SharedSecret};
pub use quinn_proto::{ApplicationClose, ConnectionError, Dir, Side, StreamId, VarInt};
pub use stream::{ReadError, RecvStream, SendStream, WriteError};

use endpoint::{Desk, Driver, Setup};
use handshake::Screen;
use identity::Endpoints;
use socket::Socket;

use crate::quota::Caps;
use crate::vital::Vital;

/// HTTP/3's H3_NO_ERROR.
pub(super) const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// What can be tuned. The defaults are for many quiet connections.
#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// Endpoints that share the port: what one core can't do.
    pub endpoints: usize,
    /// Size of each of a socket's two buffers, as far as the kernel allows.
    pub socket_buffer_bytes: usize,
    /// Silence after which we ask the peer for a sign of life.
    pub keep_alive: Duration,
    /// Silence after which a connection is lost. Below the 15 s that the sessions promise; what is left of it after the
    /// keep-alive is for its retransmissions on a bad network.
    ///
    /// The peer is told twice as much: QUIC's own idle timeout (RFC 9000 §10.1) is one time for both sides, and a peer that
    /// only listens would give up while our keep-alive is still being repeated.
    pub idle: Duration,
    /// Time for the client's hello, and again for the rest of the handshake.
    pub handshake: Duration,
    /// Handshakes under way at once; more are refused.
    pub max_handshakes: usize,
    /// Of these, handshakes of clients that haven't proved their address. More must prove it first (Retry, RFC 9000 §8.1.2),
    /// at the cost of one round trip: such a client has no state here, so forged packets use up these places only.
    pub retry_above: usize,
    /// Places of connections, with and without a session, in all and for each address; more are refused. Shared with TCP.
    pub caps: Caps,
    /// Hears of an endpoint that is gone.
    pub vital: Vital,
    /// This node among others behind the same address.
    pub identity: Identity,
}

impl Default for QuicOptions {
    fn default() -> Self {
        // The sessions need the other half: they are who has something to send.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            endpoints: (cores / 2).clamp(1, 16),
            socket_buffer_bytes: 4 << 20,
            keep_alive: Duration::from_secs(10),
            idle: Duration::from_millis(14_500),
            handshake: Duration::from_secs(10),
            max_handshakes: 1024,
            retry_above: 64,
            caps: Caps::new(120_000, None),
            vital: Vital::default(),
            identity: Identity::default(),
        }
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("can't listen for QUIC on UDP address {}, port {}: {doing}: {source}", .address.ip(), .address.port())]
    Socket {
        /// Where.
        address: SocketAddr,
        /// At which step.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// TLS can't be set up with the provider of this build.
    #[error("can't set up TLS for QUIC on UDP address {}, port {}: {source}", .address.ip(), .address.port())]
    Tls {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: rustls::Error,
    },
    /// An option is out of QUIC's range.
    #[error("can't configure QUIC: {0}")]
    Options(&'static str),
}

/// A bound UDP port that doesn't accept yet.
pub struct QuicListener {
    sockets: Vec<Socket>,
    endpoints: Endpoints,
    server: Arc<quinn_proto::ServerConfig>,
    address: SocketAddr,
    options: QuicOptions,
}

impl QuicListener {
    /// Binds the port. `certificates` is asked at each handshake, so certificates can change under the listener.
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
        let sockets = sockets.into_iter().map(Socket::new).collect::<Result<_, _>>();
        let sockets = sockets.map_err(failed("starting the endpoint"))?;
        Ok(Self { sockets, endpoints, server: Arc::new(server), address, options })
    }

    /// The address with the port that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`, each connection on a task of its own on `tracker`. After `stop` new connections are
    /// refused; the endpoints' own tasks end when the last connection has, with everything on the wire.
    pub fn run<H, F>(self, tracker: &TaskTracker, stop: CancellationToken, handle: H)
    where
        H: Fn(Admitted) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let Self { sockets, endpoints: Endpoints { configs, ids }, server, options, .. } = self;
        let screen = Screen::new(&options);
        let desks: Arc<[Desk]> = sockets.iter().map(|_| Desk::default()).collect();
        for (number, (socket, config)) in sockets.into_iter().zip(configs).enumerate() {
            let (handle, tracker_of_connections) = (handle.clone(), tracker.clone());
            let accepted = move |admitted| drop(tracker_of_connections.spawn(handle(admitted)));
            let driver = Driver::new(Setup {
                socket,
                config,
                server: Arc::clone(&server),
                desks: Arc::clone(&desks),
                number,
                ids: ids.clone(),
                idle: options.idle,
                screen: screen.clone(),
                stop: stop.clone(),
                accepted: Box::new(accepted),
            });
            tracker.spawn(options.vital.clone().guard("a QUIC endpoint", stop.clone(), driver));
        }
    }
}

impl std::fmt::Debug for QuicListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicListener").field("address", &self.address).finish_non_exhaustive()
    }
}
