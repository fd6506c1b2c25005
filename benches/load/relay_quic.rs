//! The limit for datagrams: quinn, rooms, and nothing else. Every datagram goes to the other members of its sender's room.
//!
//! No HTTP/3. The parameters are those of `src/transport/quic/config.rs`, written down again on purpose: a limit must not
//! move when tandem does. The first message on the client's stream names the room, the answer says that the membership is
//! in force.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::{Mutex, RwLock};
use quinn::VarInt;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::PrivateKeyDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::task::TaskTracker;

use super::quic::BARE_ALPN;
use super::{relays, wire};

const SOCKET_BUFFER: usize = 4 << 20;

/// The room's members.
type Room = RwLock<Vec<quinn::Connection>>;
type Rooms = Arc<Mutex<HashMap<String, Arc<Room>>>>;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config()?), socket.into(), runtime)?;
    relays::announce(endpoint.local_addr()?);
    let (rooms, tasks) = (Rooms::default(), TaskTracker::new());
    while let Some(incoming) = endpoint.accept().await {
        let rooms = Arc::clone(&rooms);
        tasks.spawn(async move {
            // A client that leaves is no news.
            let _ = relay(incoming, rooms).await;
        });
    }
    Ok(())
}

async fn relay(incoming: quinn::Incoming, rooms: Rooms) -> Result<()> {
    let connection = incoming.await?;
    let (mut answer, mut stream) = connection.accept_bi().await?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut join = vec![0; (u32::from_be_bytes(length) as usize).min(64 << 10)];
    stream.read_exact(&mut join).await?;
    let name = wire::field(&join, "roomId").context("no room")?.to_owned();
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    room.write().push(connection.clone());
    answer.write_all(&(relays::JOINED.len() as u32).to_be_bytes()).await?;
    answer.write_all(relays::JOINED.as_bytes()).await?;
    let own = connection.stable_id();
    while let Ok(datagram) = connection.read_datagram().await {
        for member in room.read().iter().filter(|member| member.stable_id() != own) {
            // One that is gone is about to take itself out.
            let _ = member.send_datagram(datagram.clone());
        }
    }
    room.write().retain(|member| member.stable_id() != own);
    Ok(())
}

fn config() -> Result<quinn::ServerConfig> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?.der().clone();
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))?;
    tls.alpn_protocols = vec![BARE_ALPN.to_vec()];
    tls.send_tls13_tickets = 0;
    let mut server = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    let mut transport = quinn::TransportConfig::default();
    transport
        .mtu_discovery_config(None)
        .max_concurrent_bidi_streams(VarInt::from_u32(8))
        .max_concurrent_uni_streams(VarInt::from_u32(8))
        .stream_receive_window(VarInt::from_u32(128 << 10))
        .receive_window(VarInt::from_u32(256 << 10))
        .send_window(256 << 10)
        .datagram_receive_buffer_size(Some(16 << 10))
        .datagram_send_buffer_size(16 << 10)
        .keep_alive_interval(Some(Duration::from_secs(5)))
        .max_idle_timeout(Some(Duration::from_millis(9500).try_into()?))
        .congestion_controller_factory(Arc::new(quinn::congestion::CubicConfig::default()));
    server.transport_config(Arc::new(transport));
    server.max_incoming(1024);
    Ok(server)
}
