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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::Public;
use crate::session::{Cap, Caps};
use crate::telemetry::names;

/// After an accept that failed for want of file descriptors or memory: spinning would make it worse.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that can't be had.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: can't listen on {address}: {source}")]
pub struct BindError {
    /// The variable with the port.
    pub setting: &'static str,
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: std::io::Error,
}

/// Binds a listener; `setting` names the port's variable in the error.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { setting, address, source })
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
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), header: Duration::from_secs(30), drain: Duration::from_secs(1) }
    }
}

/// What both listeners share. Every connection runs on `tracker`, and so does what it was upgraded to: when the
/// tracker is empty, nothing is left.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Answers requests.
    pub router: Router,
    /// Times.
    pub timeouts: Timeouts,
    /// Holds every task.
    pub tracker: TaskTracker,
    /// Ends accepting, and lets connections finish what they do.
    pub stop: CancellationToken,
}

impl Edge {
    /// Plain HTTP/1.1 until stopped.
    pub async fn serve_plain(self, listener: TcpListener, caps: Caps) {
        let connection = Connection { edge: self, secure: None };
        connection
            .clone()
            .accept(listener, caps, "http", move |stream, peer, cap| {
                let connection = connection.clone();
                async move { connection.serve(stream, peer, cap, false).await }
            })
            .await;
    }

    /// HTTPS (HTTP/2, HTTP/1.1) until stopped. `quic_port` is what `Alt-Svc` offers for HTTP/3.
    pub async fn serve_tls(self, listener: TcpListener, caps: Caps, tls: Arc<rustls::ServerConfig>, quic_port: u16) {
        let alt_svc = HeaderValue::from_str(&format!("h3=\":{quic_port}\"; ma=86400")).ok();
        let connection = Connection { edge: self, secure: Some(Secure { alt_svc }) };
        let acceptor = TlsAcceptor::from(tls);
        connection
            .clone()
            .accept(listener, caps, "https", move |stream, peer, cap| {
                let (connection, acceptor) = (connection.clone(), acceptor.clone());
                async move {
                    let handshake = tokio::time::timeout(connection.edge.timeouts.handshake, acceptor.accept(stream));
                    let reason = match connection.edge.stop.run_until_cancelled(handshake).await {
                        Some(Ok(Ok(stream))) => {
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            return connection.serve(stream, peer, cap, http2).await;
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

impl Edge {
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
struct Connection {
    edge: Edge,
    secure: Option<Secure>,
}

#[derive(Debug, Clone)]
struct Secure {
    alt_svc: Option<HeaderValue>,
}

impl Connection {
    async fn accept<F>(
        self,
        listener: TcpListener,
        caps: Caps,
        name: &'static str,
        connected: impl Fn(TcpStream, SocketAddr, Cap) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        while let Some(accepted) = self.edge.stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => match caps.admit(peer.ip()) {
                    Ok(cap) => {
                        // Small messages must not wait for one another.
                        let _ = stream.set_nodelay(true);
                        self.edge.tracker.spawn(connected(stream, peer, cap));
                    }
                    Err(_) => metrics::counter!(names::HANDSHAKE_FAILURES, "transport" => name, "reason" => "cap")
                        .increment(1),
                },
                Err(error) => {
                    tracing::warn!(%error, listener = name, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve<S>(self, stream: S, peer: SocketAddr, cap: Cap, http2: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (edge, timeouts, io) = (self.edge.clone(), self.edge.timeouts, TokioIo::new(stream));
        let (cap, asked) = (Arc::new(cap), Arc::new(AtomicBool::new(false)));
        let has_asked = Arc::clone(&asked);
        let service = service_fn(move |request| {
            asked.store(true, Ordering::Relaxed);
            self.clone().answer(request, peer, Arc::clone(&cap))
        });
        // Not hyper-util's `auto`: it waits without limit for the bytes that say which version a client speaks.
        let ended = if http2 {
            let connection = http2::Builder::new(Tracked(edge.tracker.clone()))
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
                ended = edge.run(connection, &has_asked, |connection| connection.graceful_shutdown()) => ended,
                () = never_asks => Ok(()),
            }
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(timeouts.header)
                .max_buf_size(32 * 1024)
                .serve_connection(io, service)
                .with_upgrades();
            edge.run(connection, &has_asked, |connection| connection.graceful_shutdown()).await
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    async fn answer(
        mut self,
        mut request: Request<Incoming>,
        peer: SocketAddr,
        cap: Arc<Cap>,
    ) -> Result<axum::response::Response, Infallible> {
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(cap);
        if self.secure.is_some() {
            request.extensions_mut().insert(Public);
        }
        let mut response = self.edge.router.call(request.map(Body::new)).await?;
        if let Some(alt_svc) = self.secure.and_then(|secure| secure.alt_svc) {
            response.headers_mut().insert(header::ALT_SVC, alt_svc);
        }
        Ok(response)
    }
}

/// HTTP/2 runs its streams as tasks: on the tracker, like everything.
#[derive(Debug, Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
