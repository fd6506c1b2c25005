//! A WebTransport client as small as it can be: SETTINGS, one extended CONNECT, one control stream, datagrams. Against
//! the bare relay the same without HTTP/3, so that the client costs the same on both sides of a ratio.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::{BufMut, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::Mutex;

use super::wire::Incoming;

/// The relay's protocol name.
pub(crate) const BARE_ALPN: &[u8] = b"bare";
/// The quarter stream id of a connection's first stream: in front of every datagram, against the relay too.
pub(crate) const PREFIX: u8 = 0;
/// Sockets of this process. One would be the bottleneck of what the server can send.
const SOCKETS: usize = 4;
const SOCKET_BUFFER: usize = 4 << 20;

/// Client endpoints, shared by all connections.
#[derive(Debug)]
pub(crate) struct QuicClients {
    http: Vec<quinn::Endpoint>,
    bare: Vec<quinn::Endpoint>,
    next: AtomicUsize,
}

impl QuicClients {
    /// Binds the sockets.
    pub(crate) fn open() -> Result<Self> {
        let endpoints = |alpn: &[u8]| (0..SOCKETS).map(|_| endpoint(alpn)).collect::<Result<Vec<_>>>();
        Ok(Self { http: endpoints(b"h3")?, bare: endpoints(BARE_ALPN)?, next: AtomicUsize::new(0) })
    }

    fn pick<'a>(&self, endpoints: &'a [quinn::Endpoint]) -> &'a quinn::Endpoint {
        &endpoints[self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len()]
    }

    /// A connection to the relay, and its stream.
    pub(crate) async fn bare(&self, address: SocketAddr) -> Result<QuicLink> {
        let connection = connect(self.pick(&self.bare), address).await?;
        let (send, recv) = connection.open_bi().await?;
        Ok(QuicLink::new(connection, send, recv, Kept::default()))
    }

    /// A WebTransport session, and its control stream.
    pub(crate) async fn web_transport(&self, address: SocketAddr) -> Result<QuicLink> {
        let connection = connect(self.pick(&self.http), address).await?;
        let mut settings = connection.open_uni().await?;
        settings.write_all(SETTINGS).await?;
        let (mut request, mut answer) = connection.open_bi().await?;
        request.write_all(&connect_request(address)).await?;
        let fields = response(&mut answer).await?;
        if !fields.contains(&STATUS_200) {
            bail!("{address} refused the session: {fields:02x?}");
        }
        let (mut send, recv) = connection.open_bi().await?;
        send.write_all(&[0x40, 0x41, 0]).await?;
        let kept = Kept { _settings: Some(settings), _session: Some((request, answer)) };
        Ok(QuicLink::new(connection, send, recv, kept))
    }
}

/// Streams that must stay open.
#[derive(Debug, Default)]
struct Kept {
    _settings: Option<quinn::SendStream>,
    _session: Option<(quinn::SendStream, quinn::RecvStream)>,
}

/// A connection with its stream of messages.
#[derive(Debug)]
pub(crate) struct QuicLink {
    connection: quinn::Connection,
    send: Mutex<quinn::SendStream>,
    recv: Mutex<quinn::RecvStream>,
    _kept: Kept,
}

impl QuicLink {
    fn new(connection: quinn::Connection, send: quinn::SendStream, recv: quinn::RecvStream, kept: Kept) -> Self {
        Self { connection, send: Mutex::new(send), recv: Mutex::new(recv), _kept: kept }
    }

    pub(crate) async fn message(&self, text: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(4 + text.len());
        frame.extend(u32::try_from(text.len())?.to_be_bytes());
        frame.extend(text);
        Ok(self.send.lock().await.write_all(&frame).await?)
    }

    pub(crate) fn compact(&self, bytes: &[u8]) -> Result<()> {
        let mut datagram = BytesMut::with_capacity(1 + bytes.len());
        datagram.put_u8(PREFIX);
        datagram.put_slice(bytes);
        Ok(self.connection.send_datagram(datagram.freeze())?)
    }

    /// Reads both until the connection ends.
    pub(crate) async fn read(&self, hear: &mut impl FnMut(Incoming<'_>)) -> Result<()> {
        let mut stream = self.recv.lock().await;
        let mut kept = BytesMut::new();
        loop {
            tokio::select! {
                datagram = self.connection.read_datagram() => match &datagram?[..] {
                    [PREFIX, compact @ ..] => hear(Incoming::Compact(compact)),
                    other => bail!("a datagram of another session: {other:02x?}"),
                },
                chunk = stream.read_chunk(64 << 10, true) => {
                    let Some(chunk) = chunk? else { bail!("the server ended the stream") };
                    kept.extend_from_slice(&chunk.bytes);
                    while let Some(head) = kept.first_chunk::<4>() {
                        let length = u32::from_be_bytes(*head) as usize;
                        if kept.len() < 4 + length {
                            break;
                        }
                        let message = kept.split_to(4 + length);
                        hear(Incoming::Message(&message[4..]));
                    }
                    if kept.is_empty() {
                        kept = BytesMut::new();
                    }
                }
            }
        }
    }
}

async fn connect(endpoint: &quinn::Endpoint, address: SocketAddr) -> Result<quinn::Connection> {
    let connecting = endpoint.connect(address, "localhost")?;
    connecting.await.with_context(|| format!("connecting to {address} by QUIC"))
}

/// Type 0, the control stream; SETTINGS: extended CONNECT 8 = 1, datagrams 0x33 = 1, WebTransport 0x2b603742 = 1.
const SETTINGS: &[u8] = &[0, 4, 9, 8, 1, 0x33, 1, 0xab, 0x60, 0x37, 0x42, 1];
/// `:status: 200` of QPACK's static table.
const STATUS_200: u8 = 0xc0 | 25;

/// HEADERS: CONNECT (15 of the static table), https (23), the path (name 1), the authority (name 0), the protocol.
fn connect_request(address: SocketAddr) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
    let fields = [
        &[0, 0, 0xc0 | 15, 0xc0 | 23, 0x51][..],
        &text("/wt"),
        &[0x50],
        &text(&address.to_string()),
        &[0x27, 2],
        b":protocol",
        &text("webtransport"),
    ]
    .concat();
    [&[1, fields.len() as u8][..], &fields].concat()
}

/// The fields of the answer's HEADERS frame, which come first but for GREASE.
async fn response(stream: &mut quinn::RecvStream) -> Result<Vec<u8>> {
    loop {
        let kind = varint(stream).await?;
        let mut payload = vec![0; usize::try_from(varint(stream).await?)?.min(64 << 10)];
        stream.read_exact(&mut payload).await?;
        if kind == 1 {
            return Ok(payload);
        }
    }
}

async fn varint(stream: &mut quinn::RecvStream) -> Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes[..1]).await?;
    let length = 1 << (bytes[0] >> 6);
    stream.read_exact(&mut bytes[1..length]).await?;
    bytes[0] &= 0x3f;
    Ok(bytes[..length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn endpoint(alpn: &[u8]) -> Result<quinn::Endpoint> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = quinn::TransportConfig::default();
    transport
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(Duration::from_secs(60).try_into()?))
        .datagram_receive_buffer_size(Some(64 << 10))
        .datagram_send_buffer_size(64 << 10);
    config.transport_config(Arc::new(transport));
    let socket = socket().context("opening a UDP socket")?;
    let mut endpoint =
        quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))?;
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

/// A socket of loopback only, with room for the bursts of a whole load.
pub(crate) fn socket() -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    Ok(socket.into())
}

/// Accepts any certificate: only loopback servers are measured, with no secret in the traffic.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
