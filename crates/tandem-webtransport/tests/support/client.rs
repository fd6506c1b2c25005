//! Clients of a test's server: raw QUIC, raw HTTP/3, and web-transport-quinn. The server's own tests include this file.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response, StatusCode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio_util::task::TaskTracker;
use web_transport_quinn::{SessionError, WebTransportError};

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Where a server listens, and the certificate that its clients trust.
pub(crate) struct ServerAddress {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
}

impl ServerAddress {
    pub(crate) fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.address.port())
    }

    /// A QUIC connection that speaks h3 and trusts this server only.
    pub(crate) async fn quic(&self) -> quinn::Connection {
        soon("a QUIC connection", self.try_quic()).await.unwrap()
    }

    pub(crate) async fn try_quic(&self) -> Result<quinn::Connection, quinn::ConnectionError> {
        client(self.tls(vec![b"h3".to_vec()]), |_| {}).connect(self.address, "localhost").unwrap().await
    }

    /// Trusts this server only.
    pub(crate) fn tls(&self, alpn: Vec<Vec<u8>>) -> rustls::ClientConfig {
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
    pub(crate) async fn h3(&self) -> H3 {
        H3::over(self.quic().await).await
    }

    pub(crate) fn web_transport_quinn(&self) -> web_transport_quinn::Client {
        web_transport_quinn::ClientBuilder::new().with_server_certificates(vec![self.certificate.clone()]).unwrap()
    }

    pub(crate) async fn connect(&self) -> web_transport_quinn::Session {
        let url: url::Url = self.url("/wt").parse().unwrap();
        soon("a session", self.web_transport_quinn().connect(url)).await.unwrap()
    }
}

/// A QUIC client.
pub(crate) fn client(tls: rustls::ClientConfig, tune: impl FnOnce(&mut quinn::TransportConfig)) -> quinn::Endpoint {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    tune(&mut transport);
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A certificate that a browser accepts by its hash: P-256, at most 14 days.
pub(crate) fn certificate() -> (CertificateDer<'static>, Arc<dyn ResolvesServerCert>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::HOUR;
    params.not_after = params.not_before + time::Duration::days(13);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let signer = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()));
    let certified = CertifiedKey::new(vec![certificate.clone()], signer.unwrap());
    (certificate, Arc::new(SingleCertAndKey::from(certified)))
}

pub(crate) type RequestStream = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// An HTTP/3 client that also has its QUIC connection in hand.
pub(crate) struct H3 {
    pub(crate) quic: quinn::Connection,
    requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    _driver: TaskTracker,
}

impl H3 {
    pub(crate) async fn over(quic: quinn::Connection) -> Self {
        let built = h3::client::builder()
            .enable_datagram(true)
            .enable_extended_connect(true)
            .build::<_, _, Bytes>(h3_quinn::Connection::new(quic.clone()))
            .await;
        let (mut connection, requests) = built.unwrap();
        let driver = TaskTracker::new();
        driver.spawn(async move { std::future::poll_fn(|cx| connection.poll_close(cx)).await });
        Self { quic, requests, _driver: driver }
    }

    pub(crate) async fn send(&mut self, request: Request<()>) -> RequestStream {
        soon("the request to be sent", self.requests.send_request(request)).await.unwrap()
    }

    /// Sends a request without a body; returns head and body of the answer.
    pub(crate) async fn ask(&mut self, request: Request<()>) -> (Response<()>, Bytes) {
        let mut stream = self.send(request).await;
        stream.finish().await.unwrap();
        let response = soon("a response", stream.recv_response()).await.unwrap();
        let body = soon("a body", read_body(&mut stream)).await;
        (response, body)
    }

    /// A CONNECT as a WebTransport client sends it; the status, and the stream for capsules.
    pub(crate) async fn connect(&mut self, request: Request<()>) -> (Response<()>, RequestStream) {
        let mut stream = self.send(request).await;
        let response = soon("a response", stream.recv_response()).await.unwrap();
        (response, stream)
    }

    pub(crate) async fn session(&mut self, server: &ServerAddress) -> RequestStream {
        let (response, stream) = self.connect(webtransport(&server.url("/wt"))).await;
        assert_eq!(response.status(), StatusCode::OK);
        stream
    }

    /// Opens a bidirectional stream of the session.
    pub(crate) async fn stream(&self, session: u8) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.quic.open_bi().await.unwrap();
        send.write_all(&[0x40, 0x41, session]).await.unwrap();
        (send, recv)
    }
}

pub(crate) async fn read_body(stream: &mut RequestStream) -> Bytes {
    let mut body = Vec::new();
    while let Some(mut data) = stream.recv_data().await.unwrap() {
        body.extend_from_slice(&data.copy_to_bytes(data.remaining()));
    }
    body.into()
}

pub(crate) fn webtransport(url: &str) -> Request<()> {
    connect_request(url, h3::ext::Protocol::WEB_TRANSPORT)
}

pub(crate) fn connect_request(url: &str, protocol: h3::ext::Protocol) -> Request<()> {
    Request::builder().method("CONNECT").uri(url).extension(protocol).body(()).unwrap()
}

pub(crate) fn get(url: &str) -> Request<()> {
    Request::builder().uri(url).body(()).unwrap()
}

/// A message as it goes over the control stream.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u32).to_be_bytes(), message].concat()
}

/// A capsule with two-byte type and length.
pub(crate) fn capsule(kind: u16, content: &[u8]) -> Bytes {
    let head = [(0x4000 | kind).to_be_bytes(), (0x4000 | content.len() as u16).to_be_bytes()].concat();
    [&head, content].concat().into()
}

/// CLOSE_WEBTRANSPORT_SESSION (draft-ietf-webtrans-http3).
pub(crate) const CLOSE: u16 = 0x2843;

/// The next message of a control stream.
pub(crate) async fn read_message(recv: &mut web_transport_quinn::RecvStream) -> Vec<u8> {
    let mut length = [0; 4];
    soon("a length", recv.read_exact(&mut length)).await.unwrap();
    let mut message = vec![0; u32::from_be_bytes(length) as usize];
    soon("a message", recv.read_exact(&mut message)).await.unwrap();
    message
}

/// Code and reason of a session that was closed in order.
pub(crate) fn closed_with(error: SessionError) -> (u32, String) {
    match error {
        SessionError::WebTransportError(WebTransportError::Closed(code, reason)) => (code, reason),
        other => panic!("not closed in order: {other:?}"),
    }
}
