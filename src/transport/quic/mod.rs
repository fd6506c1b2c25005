//! The QUIC listener: one UDP socket, screened handshakes, a stop that waits.
//!
//! It hands every connection to a handler while the handshake is still under way, because a server may already send
//! then (0.5-RTT): HTTP/3's SETTINGS are what a browser waits for before it asks for a session.

mod config;
mod handshake;
mod identity;
mod runtime;
mod socket;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::ResolvesServerCert;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use handshake::{Handshake, HandshakeError};
pub use identity::{Identity, ServerId, SharedSecret};

use handshake::Screen;
use runtime::CoarseTimers;

/// What can be tuned. The defaults are for many quiet connections.
#[derive(Debug, Clone)]
pub struct QuicOptions {
    /// Size of each of the socket's two buffers, as far as the kernel allows.
    pub socket_buffer_bytes: usize,
    /// Silence after which we ask the peer for a sign of life.
    pub keep_alive: Duration,
    /// Silence after which a connection is lost.
    ///
    /// The keep-alive itself restarts this timer once (RFC 9000 §10.1), so a peer that dies without a word is noticed
    /// after at most `keep_alive + idle`: 5 s + 9.5 s stays under the 15 s that the sessions promise, and leaves the
    /// unanswered keep-alive most of ten seconds of retransmissions to get through a bad network.
    pub idle: Duration,
    /// Time for the client's hello, and again for the rest of the handshake.
    pub handshake: Duration,
    /// Handshakes under way at once; more are refused.
    pub max_handshakes: usize,
    /// Handshakes under way from which clients must prove their address first, at the cost of one round trip.
    pub retry_above: usize,
    /// Connections open at once, with and without a session; more are refused.
    pub max_connections: usize,
    /// Generic segmentation offload. Off: ticks and events of many clients gain nothing by it, a connection that has once
    /// sent ten packets at a time keeps their place (7 KiB) for its life, and some network drivers break it.
    pub segmentation_offload: bool,
    /// This node among others behind the same address.
    pub identity: Identity,
}

impl Default for QuicOptions {
    fn default() -> Self {
        Self {
            socket_buffer_bytes: 4 << 20,
            keep_alive: Duration::from_secs(5),
            idle: Duration::from_millis(9500),
            handshake: Duration::from_secs(10),
            max_handshakes: 1024,
            retry_above: 256,
            max_connections: 120_000,
            segmentation_offload: false,
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
#[derive(Debug)]
pub struct QuicListener {
    endpoint: quinn::Endpoint,
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
        let endpoint = options.identity.endpoint(&mut server)?;
        let failed = |doing| move |source| BindError::Socket { address, doing, source };
        let socket = socket::open(address, options.socket_buffer_bytes)?;
        let runtime = Arc::new(CoarseTimers::new());
        let endpoint =
            quinn::Endpoint::new(endpoint, Some(server), socket, runtime).map_err(failed("starting the endpoint"))?;
        let address = endpoint.local_addr().map_err(failed("reading the bound address"))?;
        Ok(Self { endpoint, address, options })
    }

    /// The address with the port that was bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts until `stop`, each connection on a task of its own on `tracker`. After `stop` new connections are
    /// refused; the listener's own task ends when the last connection has, with everything on the wire.
    pub fn run<H, F>(self, tracker: &TaskTracker, stop: CancellationToken, handle: H)
    where
        H: Fn(quinn::Connection, Handshake) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let tracker_of_connections = tracker.clone();
        tracker.spawn(self.accept_until(tracker_of_connections, stop, handle));
    }

    async fn accept_until<H, F>(self, tracker: TaskTracker, stop: CancellationToken, handle: H)
    where
        H: Fn(quinn::Connection, Handshake) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let screen = Screen {
            places: Arc::new(Semaphore::new(self.options.max_handshakes)),
            options: self.options,
            endpoint: self.endpoint.clone(),
        };
        loop {
            let incoming = tokio::select! {
                () = stop.cancelled() => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let Some(admitted) = screen.admit(incoming) else { continue };
            let handle = handle.clone();
            // The handshake's cryptography begins on the connection's task, so it doesn't hold up the others.
            tracker.spawn(async move {
                if let Some((connection, handshake)) = admitted.begin().await {
                    handle(connection, handshake).await;
                }
            });
        }
        self.endpoint.set_server_config(None);
        self.endpoint.wait_idle().await;
    }
}
