//! The two TCP listeners: plain HTTP on `PORT`, and HTTPS on the TCP side of `QUIC_PORT`. Both serve one router.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::paced::{BodyProgress, stalled};
use super::stall::Unstalled;
use super::{ProbesOnly, Public};
use crate::quota::{Cap, Caps, CapsFull};
use crate::telemetry::{Seldom, names};

/// Pause after an accept that failed (EMFILE, ENFILE, ENOBUFS, ENOMEM): retrying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for the request of a connection that has one of the last file descriptors.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted (listen(2)); tokio's default.
const BACKLOG: i32 = 1024;

/// A TCP port can't be bound.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: can't listen on {address}: {source}")]
pub struct TcpBindError {
    /// The variable with the port.
    pub setting: &'static str,
    pub address: SocketAddr,
    pub source: std::io::Error,
}

/// Binds a listener; `setting` names the port's variable in the error.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, TcpBindError> {
    let bound = if address.is_ipv6() && address.ip().is_unspecified() {
        dual_stack(address)
    } else {
        TcpListener::bind(address).await
    };
    bound.map_err(|source| TcpBindError { setting, address, source })
}

/// `::` accepts IPv4 too, whatever the system's default is.
fn dual_stack(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub handshake: Duration,
    /// For the head of a request, and for the wait before it.
    pub header: Duration,
    /// For requests under way when the server stops.
    pub drain: Duration,
    /// In which a peer must take some of what it is sent, by TCP and by the windows of HTTP/2.
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(30),
            drain: Duration::from_secs(1),
            stall: Duration::from_secs(30),
        }
    }
}

/// Serves HTTP on a TCP listener. Every connection runs on `tracker`, and so does what it was upgraded to: when the
/// tracker is empty, nothing is left.
#[derive(Debug, Clone)]
pub struct HttpServer {
    pub router: Router,
    pub timeouts: Timeouts,
    pub tracker: TaskTracker,
    /// Ends accepting; requests under way may finish.
    pub stop: CancellationToken,
    pub descriptors: Descriptors,
}

/// The file descriptors of both TCP listeners. The last ones are reserved for probes on the plain listener: a process
/// without a free descriptor couldn't answer `/health`.
#[derive(Debug, Clone)]
pub struct Descriptors {
    places: Caps,
    total: usize,
    kept: usize,
}

impl Descriptors {
    /// `kept` of `total` are for probes.
    pub fn new(total: usize, kept: usize) -> Self {
        Self { places: Caps::new(total, None), total, kept: kept.min(total) }
    }

    /// Takes a descriptor for a connection. True: it is one of those for probes.
    fn take(&self, peer: SocketAddr, is_public: bool) -> Result<(Cap, bool), CapsFull> {
        let places = if is_public { self.places.leaving(self.kept) } else { self.places.clone() };
        let cap = places.admit(peer.ip())?;
        Ok((cap, self.places.held() > self.total - self.kept))
    }
}

/// A connection's place and descriptor, held until the connection, or what it was upgraded to, ends.
#[derive(Debug)]
pub struct ConnectionPermits {
    place: Cap,
    _descriptor: Cap,
}

impl HttpServer {
    /// Plain HTTP/1.1 until stopped.
    pub async fn serve_plain(self, listener: TcpListener, caps: Caps) {
        let connection = HttpConnection { server: self, secure: None, probes_only: false };
        connection
            .clone()
            .accept(listener, caps, "http", move |stream, peer, held, probes_only| {
                let mut connection = connection.clone();
                if probes_only {
                    connection.restrict();
                }
                async move { connection.serve(stream, peer, held, false).await }
            })
            .await;
    }

    /// HTTPS (HTTP/2, HTTP/1.1) until stopped. `quic_port` is what `Alt-Svc` offers for HTTP/3.
    pub async fn serve_tls(self, listener: TcpListener, caps: Caps, tls: Arc<rustls::ServerConfig>, quic_port: u16) {
        let alt_svc = HeaderValue::from_str(&format!("h3=\":{quic_port}\"; ma=86400")).ok();
        let connection = HttpConnection { server: self, secure: Some(AltSvc { alt_svc }), probes_only: false };
        let acceptor = TlsAcceptor::from(tls);
        connection
            .clone()
            .accept(listener, caps, "https", move |stream, peer, mut held, _| {
                let (connection, acceptor) = (connection.clone(), acceptor.clone());
                async move {
                    let handshake = tokio::time::timeout(connection.server.timeouts.handshake, acceptor.accept(stream));
                    let reason = match connection.server.stop.run_until_cancelled(handshake).await {
                        Some(Ok(Ok(stream))) => {
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            held.place.established();
                            return connection.serve(stream, peer, held, http2).await;
                        }
                        Some(Ok(Err(error))) => {
                            tracing::debug!(%peer, %error, "TLS handshake failed");
                            "tls"
                        }
                        Some(Err(_)) => "timeout",
                        None => return,
                    };
                    metrics::counter!(names::HANDSHAKE_FAILURES, "transport" => "https", "reason" => reason)
                        .increment(1);
                }
            })
            .await;
    }
}

impl HttpServer {
    /// Runs a connection to its end. When the server stops, a request under way gets some time. A connection without a
    /// request is dropped: browsers open connections ahead, and hyper would wait for the first request.
    async fn run<C>(&self, connection: C, has_asked: &AtomicBool, finish: impl FnOnce(Pin<&mut C>)) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut connection = pin!(connection);
        if let Some(ended) = self.stop.run_until_cancelled(connection.as_mut()).await {
            return ended;
        }
        if !has_asked.load(Ordering::Relaxed) {
            return Ok(());
        }
        finish(connection.as_mut());
        tokio::time::timeout(self.timeouts.drain, connection).await.unwrap_or(Ok(()))
    }
}

#[derive(Debug, Clone)]
struct HttpConnection {
    server: HttpServer,
    secure: Option<AltSvc>,
    /// The connection has one of the last file descriptors.
    probes_only: bool,
}

#[derive(Debug, Clone)]
struct AltSvc {
    alt_svc: Option<HeaderValue>,
}

impl HttpConnection {
    async fn accept<F>(
        self,
        listener: TcpListener,
        caps: Caps,
        name: &'static str,
        connected: impl Fn(Unstalled<TcpStream>, SocketAddr, ConnectionPermits, bool) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_public = self.secure.is_some();
        let trouble = Seldom::new();
        while let Some(accepted) = self.server.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    let place = if is_public { caps.open(peer.ip()) } else { caps.admit(peer.ip()) };
                    let held = place.and_then(|place| Ok((place, self.server.descriptors.take(peer, is_public)?)));
                    let Ok((place, (descriptor, probes_only))) = held else {
                        metrics::counter!(names::HANDSHAKE_FAILURES, "transport" => name, "reason" => "cap")
                            .increment(1);
                        continue;
                    };
                    // TCP_NODELAY: Nagle's algorithm would delay small messages.
                    let _ = stream.set_nodelay(true);
                    let stream = Unstalled::new(stream, self.server.timeouts.stall);
                    let held = ConnectionPermits { place, _descriptor: descriptor };
                    self.server.tracker.spawn(connected(stream, peer, held, probes_only));
                }
                Err(error) => {
                    metrics::counter!(names::HANDSHAKE_FAILURES, "transport" => name, "reason" => "accept")
                        .increment(1);
                    if trouble.is_due() {
                        tracing::warn!(%error, listener = name, "accept failed");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Allows one request, and little time for it: the connection has one of the last descriptors.
    fn restrict(&mut self) {
        self.probes_only = true;
        self.server.timeouts.header = self.server.timeouts.header.min(PROBE_PATIENCE);
    }

    async fn serve<S>(self, stream: S, peer: SocketAddr, held: ConnectionPermits, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (server, timeouts, io) = (self.server.clone(), self.server.timeouts, TokioIo::new(stream));
        let (held, asked) = (Arc::new(held), Arc::new(AtomicBool::new(false)));
        let has_asked = Arc::clone(&asked);
        // Flow control of HTTP/2: to TCP a connection whose windows stay closed looks busy.
        let pace = http2.then(BodyProgress::new);
        let bodies = pace.clone();
        let keep_alive = !self.probes_only;
        let service = service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            self.clone().answer(request, peer, Arc::clone(&held), bodies.clone())
        });
        // Not hyper-util's `auto`, which waits without limit for the bytes that tell the version.
        let ended = if http2 {
            let connection = http2::Builder::new(TrackedExecutor(server.tracker.clone()))
                .timer(TokioTimer::new())
                .keep_alive_interval(timeouts.header)
                .max_concurrent_streams(64)
                .max_header_list_size(32 * 1024)
                .serve_connection(io, service);
            // hyper has no time limit for the first request of HTTP/2.
            let never_asks = async {
                tokio::time::sleep(timeouts.header).await;
                if has_asked.load(Ordering::Relaxed) {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = server.run(connection, &has_asked, |connection| connection.graceful_shutdown()) => ended,
                () = never_asks => Ok(()),
                () = stalled(pace.as_ref(), timeouts.stall) => Ok(()),
            }
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(timeouts.header)
                .max_buf_size(32 * 1024)
                .keep_alive(keep_alive)
                .serve_connection(io, service)
                .with_upgrades();
            server.run(connection, &has_asked, |connection| connection.graceful_shutdown()).await
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    async fn answer(
        mut self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        held: Arc<ConnectionPermits>,
        pace: Option<BodyProgress>,
    ) -> Result<axum::response::Response, Infallible> {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(held);
        if self.probes_only {
            request.extensions_mut().insert(ProbesOnly);
        }
        if self.secure.is_some() {
            request.extensions_mut().insert(Public);
        }
        let mut response = self.server.router.call(request.map(Body::new)).await?;
        if let Some(alt_svc) = self.secure.and_then(|secure| secure.alt_svc) {
            response.headers_mut().insert(header::ALT_SVC, alt_svc);
        }
        if let Some(pace) = pace {
            response = response.map(|body| Body::new(pace.body(body)));
        }
        Ok(response)
    }
}

/// Spawns the tasks of HTTP/2 streams on the tracker.
#[derive(Debug, Clone)]
struct TrackedExecutor(TaskTracker);

impl<F> hyper::rt::Executor<F> for TrackedExecutor
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
