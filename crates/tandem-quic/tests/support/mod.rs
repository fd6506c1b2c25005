//! One server program on both drivers, and a client for it.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod link;
pub(crate) mod program;
pub(crate) mod rng;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use program::{Connection, End, RecvHalf, SendHalf};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ResolvesServerCert;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tandem_quic::{ConnectionError, QuicConnection, QuicListener, QuicOptions, VarInt};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A close is sent once, and the kernel drops packets when a socket's buffer is full: whoever has missed it asks, and
/// hears it again while the other side is closing (RFC 9000 §10.2.1).
const KEEP_ALIVE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Driver {
    Tandem,
    Quinn,
}

/// A server of one connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
    /// How the connection ended.
    pub(crate) ended: oneshot::Receiver<String>,
    _alive: Box<dyn Send + Sync>,
}

impl Driver {
    pub(crate) fn start(self, seed: u64) -> Server {
        let (certificate, resolver) = certificate();
        let (sender, ended) = oneshot::channel();
        let (address, alive): (_, Box<dyn Send + Sync>) = match self {
            Self::Tandem => {
                let options = QuicOptions {
                    endpoints: 1 + (seed % 3) as usize,
                    socket_buffer_bytes: 0,
                    idle: Duration::from_secs(60),
                    keep_alive: KEEP_ALIVE,
                    ..QuicOptions::default()
                };
                let listener = QuicListener::bind(([127, 0, 0, 1], 0).into(), resolver, options).unwrap();
                let address = listener.local_addr();
                let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
                let sender = Arc::new(Mutex::new(Some(sender)));
                let drivers = listener.accept(&tracker, stop.clone(), move |accepted| {
                    let sender = Arc::clone(&sender);
                    async move {
                        let Some((connection, handshake)) = accepted.begin().await else { return };
                        if handshake.complete(async {}).await.is_ok() {
                            let ended = program::serve(connection).await;
                            if let Some(sender) = sender.lock().unwrap().take() {
                                let _ = sender.send(ended);
                            }
                        }
                    }
                });
                for driver in drivers {
                    tracker.spawn(driver);
                }
                (address, Box::new(stop.drop_guard()))
            }
            Self::Quinn => {
                let endpoint = quinn_endpoint(resolver);
                let address = endpoint.local_addr().unwrap();
                let accepting = endpoint.clone();
                tokio::spawn(async move {
                    if let Some(incoming) = accepting.accept().await
                        && let Ok(connection) = incoming.await
                    {
                        let _ = sender.send(program::serve(connection).await);
                    }
                });
                (address, Box::new(endpoint))
            }
        };
        Server { address, certificate, ended, _alive: alive }
    }
}

fn quinn_endpoint(resolver: Arc<dyn ResolvesServerCert>) -> quinn::Endpoint {
    let mut tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(transport());
    quinn::Endpoint::server(config, ([127, 0, 0, 1], 0).into()).unwrap()
}

pub(crate) fn client(certificate: &CertificateDer<'static>) -> quinn::Endpoint {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport());
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(config);
    endpoint
}

/// Small windows: a burst must fit into the buffers of the link's sockets.
fn transport() -> Arc<quinn::TransportConfig> {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(Duration::from_secs(120).try_into().unwrap()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(48 << 10))
        .receive_window(VarInt::from_u32(64 << 10));
    Arc::new(transport)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn certificate() -> (CertificateDer<'static>, Arc<dyn ResolvesServerCert>) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let der = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let key = rustls::crypto::ring::sign::any_supported_type(&der).unwrap();
    let certificate = cert.der().clone();
    (certificate.clone(), Arc::new(SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key))))
}

/// FNV-1a hash.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Connection for QuicConnection {
    type Send = tandem_quic::SendStream;
    type Recv = tandem_quic::RecvStream;

    async fn accept_bi(&self) -> Option<(Self::Send, Self::Recv)> {
        poll_fn(|context| self.poll_accept_bi(context)).await.ok()
    }

    async fn accept_uni(&self) -> Option<Self::Recv> {
        poll_fn(|context| self.poll_accept_uni(context)).await.ok()
    }

    async fn open_uni(&self) -> Option<Self::Send> {
        poll_fn(|context| self.poll_open_uni(context)).await.ok()
    }

    async fn read_datagram(&self) -> Option<Bytes> {
        poll_fn(|context| self.poll_read_datagram(context)).await.ok()
    }

    async fn send_datagram(&self, datagram: Bytes) {
        let _ = self.send_datagram(datagram).await;
    }

    fn close(&self, code: VarInt, reason: &[u8]) {
        self.close(code, reason);
    }

    async fn closed(&self) -> ConnectionError {
        self.closed().await
    }
}

impl SendHalf for tandem_quic::SendStream {
    async fn write(&mut self, bytes: Bytes) -> Option<End> {
        match self.write_all_chunks(&mut [bytes]).await {
            Ok(()) => None,
            Err(tandem_quic::WriteError::Stopped(code)) => Some(End::Stopped(code)),
            Err(_) => Some(End::Lost),
        }
    }

    fn finish(&mut self) {
        let _ = self.finish();
    }

    fn reset(&mut self, code: VarInt) {
        let _ = self.reset(code);
    }
}

impl RecvHalf for tandem_quic::RecvStream {
    async fn read(&mut self) -> Result<Bytes, End> {
        match self.chunk(1 << 16).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(End::Finished),
            Err(tandem_quic::ReadError::Reset(code)) => Err(End::Reset(code)),
            Err(_) => Err(End::Lost),
        }
    }

    fn stop(&mut self, code: VarInt) {
        let _ = self.stop(code);
    }
}

impl Connection for quinn::Connection {
    type Send = quinn::SendStream;
    type Recv = quinn::RecvStream;

    async fn accept_bi(&self) -> Option<(Self::Send, Self::Recv)> {
        self.accept_bi().await.ok()
    }

    async fn accept_uni(&self) -> Option<Self::Recv> {
        self.accept_uni().await.ok()
    }

    async fn open_uni(&self) -> Option<Self::Send> {
        self.open_uni().await.ok()
    }

    async fn read_datagram(&self) -> Option<Bytes> {
        self.read_datagram().await.ok()
    }

    async fn send_datagram(&self, datagram: Bytes) {
        let _ = self.send_datagram_wait(datagram).await;
    }

    fn close(&self, code: VarInt, reason: &[u8]) {
        self.close(code, reason);
    }

    async fn closed(&self) -> ConnectionError {
        self.closed().await
    }
}

impl SendHalf for quinn::SendStream {
    async fn write(&mut self, bytes: Bytes) -> Option<End> {
        match self.write_all(&bytes).await {
            Ok(()) => None,
            Err(quinn::WriteError::Stopped(code)) => Some(End::Stopped(code)),
            Err(_) => Some(End::Lost),
        }
    }

    fn finish(&mut self) {
        let _ = self.finish();
    }

    fn reset(&mut self, code: VarInt) {
        let _ = self.reset(code);
    }
}

impl RecvHalf for quinn::RecvStream {
    async fn read(&mut self) -> Result<Bytes, End> {
        match self.read_chunk(1 << 16, true).await {
            Ok(Some(chunk)) => Ok(chunk.bytes),
            Ok(None) => Err(End::Finished),
            Err(quinn::ReadError::Reset(code)) => Err(End::Reset(code)),
            Err(_) => Err(End::Lost),
        }
    }

    fn stop(&mut self, code: VarInt) {
        let _ = self.stop(code);
    }
}
