//! A server with an echo session on the Transport trait, and clients for it.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary includes this file and uses its part")]

#[path = "../../crates/tandem-webtransport/tests/support/client.rs"]
mod client;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub(crate) use client::*;
use futures_util::future::BoxFuture;
use rustls::server::ResolvesServerCert;
use tandem::domain::{CloseCode, TransportKind};
use tandem::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use tandem::transport::origin::OriginPolicy;
use tandem::transport::webtransport::{WebTransportListener, serve};
use tandem::transport::{Accept, SessionRefused};
use tandem::vital::Vital;
use tandem_quic::{QuicListener, QuicOptions};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const MESSAGE_BYTES: usize = 65_536;
pub(crate) const BODY_BYTES: usize = 100_000;

/// One thing that the echo session saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Opened(TransportKind, IpAddr),
    Message(Bytes),
    Compact(Bytes),
    Closed(u32),
    Lost,
    Violation(CloseCode),
}

/// Sends everything back, and knows a few commands.
#[derive(Clone)]
pub(crate) struct EchoAccept {
    seen: mpsc::Sender<Seen>,
    refuses: Option<SessionRefused>,
    /// Drops and repeats each read all the time.
    impatient: bool,
    stop: CancellationToken,
}

impl Accept for EchoAccept {
    type Permit = ();

    fn admit(&self, _: IpAddr) -> Result<(), SessionRefused> {
        self.refuses.map_or(Ok(()), Err)
    }

    fn serve<T: Transport + 'static>(&self, transport: T, (): ()) -> BoxFuture<'static, ()> {
        let echo = self.clone();
        Box::pin(async move { echo.serve(transport).await })
    }
}

impl EchoAccept {
    async fn serve<T: Transport>(&self, transport: T) {
        self.see(Seen::Opened(transport.kind(), transport.peer())).await;
        let (mut inbound, mut outbound) = transport.split();
        loop {
            let sent = match self.next(&mut inbound).await {
                Ok(Frame::Message(message)) => {
                    self.see(Seen::Message(message.clone())).await;
                    match &message[..] {
                        b"close" => return outbound.close(CloseCode::Kicked, "removed by the höst").await,
                        b"farewell" => {
                            let mut last = vec![Outgoing::Message(Bytes::from(vec![b'l'; 60_000]))];
                            outbound.send(&mut last).await.unwrap();
                            return outbound.close(CloseCode::Banned, "bye").await;
                        }
                        b"drain" => outbound.send(&mut vec![Outgoing::Drain]).await,
                        b"vanish" => return,
                        b"stall" => return self.stop.cancelled().await,
                        _ => outbound.send(&mut vec![Outgoing::Message(message)]).await,
                    }
                }
                Ok(Frame::Compact(compact)) => {
                    self.see(Seen::Compact(compact.clone())).await;
                    outbound.send(&mut vec![Outgoing::Compact(compact[..].into())]).await
                }
                Ok(Frame::Alive { .. }) => Ok(()),
                Ok(Frame::Closed(code)) => {
                    self.see(Seen::Closed(code)).await;
                    return outbound.close(CloseCode::Normal, "").await;
                }
                Err(TransportError::Violation { code, reason }) => {
                    self.see(Seen::Violation(code)).await;
                    return outbound.close(code, &reason).await;
                }
                Err(TransportError::Lost(_)) => return self.see(Seen::Lost).await,
            };
            assert!(outbound.datagrams().is_some_and(|datagrams| datagrams.rtt() > Duration::ZERO));
            // What can't be sent is told by the reader.
            let _ = sent;
        }
    }
}

impl EchoAccept {
    async fn see(&self, seen: Seen) {
        // Tests that don't look have dropped the receiver.
        let _ = self.seen.send(seen).await;
    }

    async fn next(&self, inbound: &mut impl Inbound) -> Result<Frame, TransportError> {
        loop {
            tokio::select! {
                frame = inbound.next() => return frame,
                () = tokio::time::sleep(Duration::from_micros(200)), if self.impatient => {}
            }
        }
    }
}

/// A running server.
pub(crate) struct TestServer {
    at: ServerAddress,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) seen: mpsc::Receiver<Seen>,
}

pub(crate) struct Setup {
    pub(crate) origins: &'static str,
    pub(crate) refuses: Option<SessionRefused>,
    pub(crate) impatient: bool,
    pub(crate) router: axum::Router,
    pub(crate) options: QuicOptions,
    pub(crate) vital: Vital,
}

impl Default for Setup {
    fn default() -> Self {
        let options = QuicOptions { socket_buffer_bytes: 200_000, ..QuicOptions::default() };
        Self {
            origins: "*",
            refuses: None,
            impatient: false,
            router: axum::Router::new(),
            options,
            vital: Vital::default(),
        }
    }
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        Self::resolving(setup, |certificates| certificates)
    }

    /// With a resolver of the test's own around the certificate.
    pub(crate) fn resolving(
        setup: Setup,
        around: impl FnOnce(Arc<dyn ResolvesServerCert>) -> Arc<dyn ResolvesServerCert>,
    ) -> Self {
        let (certificate, key) = certificate();
        let key = around(key);
        let listener = QuicListener::bind(([127, 0, 0, 1], 0).into(), key, setup.options).unwrap();
        let address = listener.local_addr();
        let (sender, seen) = mpsc::channel(10_000);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (refuses, impatient) = (setup.refuses, setup.impatient);
        let server = WebTransportListener {
            accept: EchoAccept { seen: sender, refuses, impatient, stop: stop.clone() },
            origins: OriginPolicy::parse(setup.origins).unwrap().into(),
            router: setup.router,
            message_bytes: MESSAGE_BYTES,
            body_bytes: BODY_BYTES,
        };
        serve(listener, server, &tracker, stop.clone(), &setup.vital);
        Self { at: ServerAddress { address, certificate }, tracker, stop, seen }
    }

    /// A server with an open session of a raw HTTP/3 client.
    pub(crate) async fn with_h3_session() -> (Self, H3, RequestStream) {
        let mut server = Self::start();
        let mut client = server.h3().await;
        let session = client.session(&server).await;
        server.opened().await;
        (server, client, session)
    }

    /// A server with an open session.
    pub(crate) async fn with_session() -> (Self, web_transport_quinn::Session) {
        let mut server = Self::start();
        let session = server.connect().await;
        server.opened().await;
        (server, session)
    }

    pub(crate) async fn sees(&mut self) -> Seen {
        soon("the session to see something", self.seen.recv()).await.unwrap()
    }

    pub(crate) async fn opened(&mut self) {
        assert_eq!(self.sees().await, Seen::Opened(TransportKind::WebTransport, IpAddr::from([127, 0, 0, 1])));
    }

    /// Stops and waits until no task is left.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        soon("all tasks to end", self.tracker.wait()).await;
        assert_eq!(self.tracker.len(), 0);
    }
}

impl std::ops::Deref for TestServer {
    type Target = ServerAddress;
    fn deref(&self) -> &ServerAddress {
        &self.at
    }
}

/// Forwards datagrams between one client and the server, but the client's second one only when the server has answered
/// the first.
pub(crate) async fn hesitant_path(server: SocketAddr, tracker: &TaskTracker, stop: CancellationToken) -> SocketAddr {
    let front = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let back = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    back.connect(server).await.unwrap();
    let address = front.local_addr().unwrap();
    let forward = async move {
        let (mut up, mut down) = ([0; 2000], [0; 2000]);
        let (length, client) = front.recv_from(&mut up).await.unwrap();
        back.send(&up[..length]).await.unwrap();
        let mut answered = false;
        loop {
            tokio::select! {
                length = back.recv(&mut down) => {
                    front.send_to(&down[..length.unwrap()], client).await.unwrap();
                    answered = true;
                }
                length = front.recv(&mut up), if answered => { back.send(&up[..length.unwrap()]).await.unwrap(); }
            }
        }
    };
    tracker.spawn(async move { stop.run_until_cancelled(forward).await });
    address
}
