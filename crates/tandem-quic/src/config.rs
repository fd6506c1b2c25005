//! QUIC and TLS parameters, each with its reason.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::server::ResolvesServerCert;

use crate::{BindError, QuicOptions};

/// Flow control (RFC 9000 §4): bytes that a client may send on a stream before they are read, two messages of 64 KiB.
const STREAM_WINDOW: u32 = 128 << 10;
/// The same over all its streams.
const CONNECTION_WINDOW: u32 = 256 << 10;
/// Unacknowledged bytes kept for a client, over all streams, before a write waits.
const SEND_WINDOW: u64 = 256 << 10;
/// Bytes of received datagrams that wait to be read. When it is full, the oldest is dropped.
const DATAGRAM_RECEIVE_BUFFER: usize = 16 << 10;
/// Bytes of datagrams that wait for the congestion window: small, because the application can replace a stale datagram
/// as long as it has it.
const DATAGRAM_SEND_BUFFER: usize = 8 << 10;
/// Streams that a client may have open, of each kind. A browser needs three unidirectional ones (control, two for
/// QPACK) and two bidirectional ones (CONNECT, one stream of the session); the rest is for requests. quinn's default of
/// 100 costs memory on each idle connection.
const STREAMS: u32 = 8;

pub(super) fn server(
    address: SocketAddr,
    certificates: Arc<dyn ResolvesServerCert>,
    options: &QuicOptions,
) -> Result<ServerConfig, BindError> {
    let failed = |source| BindError::Tls { address, source };
    // The provider is named because a build with two of them (a dependency may bring aws-lc-rs) has no default.
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    tls.alpn_protocols = vec![b"h3".to_vec()];
    // No tickets and no early data: a CONNECT must not be replayable, and sessions that last for hours gain nothing by
    // a resumption.
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    let crypto =
        QuicServerConfig::try_from(tls).map_err(|missing| failed(rustls::Error::General(missing.to_string())))?;

    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.transport_config(Arc::new(transport(options)?));
    Ok(server)
}

fn transport(options: &QuicOptions) -> Result<TransportConfig, BindError> {
    let idle = IdleTimeout::try_from(2 * options.idle).map_err(|_| BindError::Options("the idle time is too long"))?;
    let mut transport = TransportConfig::default();
    transport
        // MTU discovery costs a burst of probes at each handshake; small messages gain nothing by larger packets.
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BUFFER))
        .datagram_send_buffer_size(DATAGRAM_SEND_BUFFER)
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(idle))
        // GSO: what goes to one client is a few hundred bytes, and some network drivers break it.
        .enable_segmentation_offload(false)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    Ok(transport)
}
