//! A server with an echo session on the Transport trait, and clients for it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test binary includes this file and uses its part"
)]

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
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

pub const MESSAGE_BYTES: usize = 65_536;
pub const BODY_BYTES: usize = 100_000;

/// Waits, but not for ever.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// One thing that the echo session saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Opened(TransportKind, IpAddr),
    Message(Bytes),
    Compact(Bytes),
    Closed(u32),
    Lost,
    Violation(CloseCode),
}

/// Sends everything back, and knows a few commands.
#[derive(Clone)]
pub struct Echo {
    seen: mpsc::Sender<Seen>,
    refuses: Option<SessionRefused>,
    /// Drops and repeats each read all the time.
    impatient: bool,
    stop: CancellationToken,
}

impl Accept for Echo {
    type Permit = ();

    fn admit(&self, _: IpAddr) -> Result<(), SessionRefused> {
        self.refuses.map_or(Ok(()), Err)
    }

    fn serve<T: Transport + 'static>(&self, transport: T, (): ()) -> BoxFuture<'static, ()> {
        let echo = self.clone();
        Box::pin(async move { echo.serve(transport).await })
    }
}

impl Echo {
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

impl Echo {
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
pub struct TestServer {
    pub address: SocketAddr,
    pub certificate: CertificateDer<'static>,
    pub tracker: TaskTracker,
    pub stop: CancellationToken,
    pub seen: mpsc::Receiver<Seen>,
}

pub struct Setup {
    pub origins: &'static str,
    pub refuses: Option<SessionRefused>,
    pub impatient: bool,
    pub router: axum::Router,
    pub options: QuicOptions,
    pub vital: Vital,
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
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    pub fn with(setup: Setup) -> Self {
        Self::resolving(setup, |certificates| certificates)
    }

    /// With a resolver of the test's own around the certificate.
    pub fn resolving(
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
            accept: Echo { seen: sender, refuses, impatient, stop: stop.clone() },
            origins: OriginPolicy::parse(setup.origins).unwrap().into(),
            router: setup.router,
            message_bytes: MESSAGE_BYTES,
            body_bytes: BODY_BYTES,
        };
        serve(listener, server, &tracker, stop.clone(), &setup.vital);
        Self { address, certificate, tracker, stop, seen }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.address.port())
    }

    pub async fn sees(&mut self) -> Seen {
        soon("the session to see something", self.seen.recv()).await.unwrap()
    }

    pub async fn opened(&mut self) {
        assert_eq!(self.sees().await, Seen::Opened(TransportKind::WebTransport, IpAddr::from([127, 0, 0, 1])));
    }

    /// Stops and waits until no task is left.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        soon("all tasks to end", self.tracker.wait()).await;
        assert_eq!(self.tracker.len(), 0);
    }

    /// A QUIC connection that speaks h3 and trusts this server only.
    pub async fn quic(&self) -> quinn::Connection {
        soon("a QUIC connection", self.try_quic()).await.unwrap()
    }

    pub async fn try_quic(&self) -> Result<quinn::Connection, quinn::ConnectionError> {
        client(self.tls(vec![b"h3".to_vec()]), |_| {}).connect(self.address, "localhost").unwrap().await
    }

    /// Trusts this server only.
    pub fn tls(&self, alpn: Vec<Vec<u8>>) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = alpn;
        tls
    }

    /// A raw HTTP/3 client.
    pub async fn h3(&self) -> H3 {
        H3::over(self.quic().await).await
    }

    pub fn web_transport_quinn(&self) -> web_transport_quinn::Client {
        web_transport_quinn::ClientBuilder::new().with_server_certificates(vec![self.certificate.clone()]).unwrap()
    }

    pub async fn connect(&self) -> web_transport_quinn::Session {
        let url: url::Url = self.url("/wt").parse().unwrap();
        soon("a session", self.web_transport_quinn().connect(url)).await.unwrap()
    }
}

/// A QUIC client.
pub fn client(tls: rustls::ClientConfig, tune: impl FnOnce(&mut quinn::TransportConfig)) -> quinn::Endpoint {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    tune(&mut transport);
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// Forwards datagrams between one client and the server, but the client's second one only when the server has answered
/// the first.
pub async fn hesitant_path(server: SocketAddr, tracker: &TaskTracker, stop: CancellationToken) -> SocketAddr {
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

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate that a browser accepts by its hash: P-256, at most 14 days.
pub fn certificate() -> (CertificateDer<'static>, Arc<dyn ResolvesServerCert>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::HOUR;
    params.not_after = params.not_before + time::Duration::days(13);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let signer = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let certified = CertifiedKey::new(vec![certificate.clone()], signer.unwrap());
    (certificate, Arc::new(SingleCertAndKey::from(certified)))
}

pub type RequestStream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// An HTTP/3 client that also has its QUIC connection in hand.
pub struct H3 {
    pub quic: quinn::Connection,
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    driver: TaskTracker,
}

impl H3 {
    pub async fn over(quic: quinn::Connection) -> Self {
        let built = h3::client::builder()
            .enable_datagram(true)
            .enable_extended_connect(true)
            .build::<_, _, Bytes>(h3_quinn::Connection::new(quic.clone()))
            .await;
        let (mut connection, requests) = built.unwrap();
        let driver = TaskTracker::new();
        driver.spawn(async move { std::future::poll_fn(|cx| connection.poll_close(cx)).await });
        Self { quic, requests, driver }
    }

    pub async fn send(&mut self, request: Request<()>) -> RequestStream {
        soon("the request to be sent", self.requests.send_request(request)).await.unwrap()
    }

    /// Sends a request without a body; returns head and body of the answer.
    pub async fn ask(&mut self, request: Request<()>) -> (Response<()>, Bytes) {
        let mut stream = self.send(request).await;
        stream.finish().await.unwrap();
        let response = soon("a response", stream.recv_response()).await.unwrap();
        let body = soon("a body", read_body(&mut stream)).await;
        (response, body)
    }

    /// A CONNECT as a WebTransport client sends it; the status, and the stream for capsules.
    pub async fn connect(&mut self, request: Request<()>) -> (Response<()>, RequestStream) {
        let mut stream = self.send(request).await;
        let response = soon("a response", stream.recv_response()).await.unwrap();
        (response, stream)
    }

    /// Opens a session.
    pub async fn session(&mut self, server: &TestServer) -> RequestStream {
        let (response, stream) = self.connect(webtransport(&server.url("/wt"))).await;
        assert_eq!(response.status(), StatusCode::OK);
        stream
    }

    /// Opens a bidirectional stream of the session.
    pub async fn stream(&self, session: u8) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        send.write_all(&[0x40, 0x41, session]).await.unwrap();
        (send, recv)
    }
}

pub async fn read_body(stream: &mut RequestStream) -> Bytes {
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.unwrap() {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    body.into()
}

pub fn webtransport(url: &str) -> Request<()> {
    connect_request(url, h3::ext::Protocol::WEB_TRANSPORT)
}

pub fn connect_request(url: &str, protocol: h3::ext::Protocol) -> Request<()> {
    Request::builder().method("CONNECT").uri(url).extension(protocol).body(()).unwrap()
}

pub fn get(url: &str) -> Request<()> {
    Request::builder().uri(url).body(()).unwrap()
}

/// A message as it goes over the control stream.
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

/// A capsule with two-byte type and length.
pub fn capsule(kind: u16, content: &[u8]) -> Bytes {
    let head = [(0x4000 | kind).to_be_bytes(), (0x4000 | content.len() as u16).to_be_bytes()].concat();
    [&head, content].concat().into()
}
