//! The two TCP listeners: plain HTTP on `PORT`, HTTPS on the TCP side of `QUIC_PORT`. Both serve one router.

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

/// After an accept that failed for want of file descriptors or memory: spinning would make it worse.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time to ask for a connection that has one of the last file descriptors.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// Connections that wait to be accepted; tokio's own default.
const BACKLOG: i32 = 1024;

/// A listener that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: can't listen on {address}: {source}")]
pub struct TcpBindError {
    /// The variable with the port.
    pub setting: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why.
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

/// `::` means everything, IPv4 too, whatever the system's default is.
fn dual_stack(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Times that a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// TLS handshake.
    pub handshake: Duration,
    /// The head of a request, and the wait for the next one.
    pub header: Duration,
    /// What requests get to finish once the server stops.
    pub drain: Duration,
    /// Time in which a peer must take some of what it is sent: of TCP, and of the windows of HTTP/2.
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

/// What both listeners share. Every connection runs on `tracker`, and so does what it was upgraded to: when the
/// tracker is empty, nothing is left.
#[derive(Debug, Clone)]
pub struct HttpServer {
    /// Answers requests.
    pub router: Router,
    /// Times.
    pub timeouts: Timeouts,
    /// Holds every task.
    pub tracker: TaskTracker,
    /// Ends accepting, and lets connections finish what they do.
    pub stop: CancellationToken,
    /// File descriptors that connections may have.
    pub descriptors: Descriptors,
}

/// The file descriptors of both TCP listeners, of which the last ones are kept for probes on the plain one: a process that
/// has none left can't even say that it lives.
#[derive(Debug, Clone)]
pub struct Descriptors {
    places: Caps,
    total: usize,
    kept: usize,
}

impl Descriptors {
    /// `total` in all, of which `kept` are for probes.
    pub fn new(total: usize, kept: usize) -> Self {
        Self { places: Caps::new(total, None), total, kept: kept.min(total) }
    }

    /// One for a connection, and whether it is one of those kept for probes.
    fn take(&self, peer: SocketAddr, is_public: bool) -> Result<(Cap, bool), CapsFull> {
        let places = if is_public { self.places.leaving(self.kept) } else { self.places.clone() };
        let cap = places.admit(peer.ip())?;
        Ok((cap, self.places.held() > self.total - self.kept))
    }
}

/// What a connection holds while it lives, and what it was upgraded to.
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
    /// A connection to its end; when the server stops, what is under way gets some time. On a connection that never
    /// asked anything nothing is: browsers open them ahead, and hyper would wait for their first request.
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
    /// It has one of the last file descriptors.
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
                    // Small messages must not wait for one another.
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

    /// For a connection that has one of the last descriptors: one answer, and little time to ask.
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
        // A connection of HTTP/2 whose window stays closed is busy as far as TCP can tell.
        let pace = http2.then(BodyProgress::new);
        let bodies = pace.clone();
        let keep_alive = !self.probes_only;
        let service = service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            self.clone().answer(request, peer, Arc::clone(&held), bodies.clone())
        });
        // Not hyper-util's `auto`: it waits without limit for the bytes that say which version a client speaks.
        let ended = if http2 {
            let connection = http2::Builder::new(TrackedExecutor(server.tracker.clone()))
                .timer(TokioTimer::new())
                .keep_alive_interval(timeouts.header)
                .max_concurrent_streams(64)
                .max_header_list_size(32 * 1024)
                .serve_connection(io, service);
            // HTTP/2 has no time limit of its own for the first request.
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

/// HTTP/2 runs its streams as tasks: on the tracker, like everything.
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
