//! The limit for datagrams: quinn, rooms, and nothing else. Every datagram goes to the other members of its sender's
//! room.
//!
//! No HTTP/3. The parameters are those of `crates/tandem-quic/src/config.rs`, written down again on purpose: a limit
//! must not move when tandem does. The first message on the client's stream names the room, the answer says that the
//! membership is in force.
//!
//! With a Redis several of them are one: every datagram is published as well, and what the others publish goes to the
//! members here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use parking_lot::{Mutex, RwLock};
use quinn::VarInt;
use quinn::crypto::rustls::QuicServerConfig;
use rustls::pki_types::PrivateKeyDer;
use socket2::{Domain, Protocol, Socket, Type};
use tokio_util::task::TaskTracker;

use super::quic::BARE_ALPN;
use super::{relays, stores, wire};

/// The channel on which relays of one Redis hear each other.
const CHANNEL: &str = "load:relay";
const SOCKET_BUFFER: usize = 4 << 20;

/// The room's members.
type Room = RwLock<Vec<quinn::Connection>>;
type Rooms = Arc<Mutex<HashMap<String, Arc<Room>>>>;

/// The way to the other relays.
struct Crossing {
    redis: redis::aio::MultiplexedConnection,
    /// In front of what it publishes.
    own: [u8; 8],
    tasks: TaskTracker,
}

impl Crossing {
    async fn open(url: &str, rooms: Rooms) -> Result<Self> {
        let client = stores::client(url)?;
        let mut subscriber = client.get_async_pubsub().await?;
        subscriber.subscribe(CHANNEL).await?;
        let (own, tasks) = (rand::random::<[u8; 8]>(), TaskTracker::new());
        tasks.spawn(async move {
            let mut arrivals = subscriber.into_on_message();
            while let Some(message) = arrivals.next().await {
                if let Some((room, datagram)) = foreign(message.get_payload_bytes(), own, &rooms) {
                    fan_out(&room, &datagram, None);
                }
            }
        });
        Ok(Self { redis: client.get_multiplexed_async_connection().await?, own, tasks })
    }

    fn publish(&self, room: &str, datagram: &[u8]) {
        let payload = [&self.own, &[room.len() as u8][..], room.as_bytes(), datagram].concat();
        let mut redis = self.redis.clone();
        // The number of receivers is ignored.
        self.tasks
            .spawn(async move { redis::cmd("PUBLISH").arg(CHANNEL).arg(payload).query_async::<()>(&mut redis).await });
    }
}

/// A room that another relay's datagram is for, and the datagram.
fn foreign(payload: &[u8], own: [u8; 8], rooms: &Rooms) -> Option<(Arc<Room>, Bytes)> {
    let (from, rest) = payload.split_first_chunk()?;
    let (&length, rest) = rest.split_first()?;
    let (room, datagram) = rest.split_at_checked(usize::from(length))?;
    if *from == own {
        return None;
    }
    let room = Arc::clone(rooms.lock().get(std::str::from_utf8(room).ok()?)?);
    Some((room, Bytes::copy_from_slice(datagram)))
}

/// To all members but one.
fn fan_out(room: &Room, datagram: &Bytes, but: Option<usize>) {
    for member in room.read().iter().filter(|member| Some(member.stable_id()) != but) {
        // One that is gone is about to take itself out.
        let _ = member.send_datagram(datagram.clone());
    }
}

/// Serves until it is killed. `redis`: the address of the Redis that joins several.
pub(crate) async fn serve(address: SocketAddr, redis: Option<&str>) -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind(&address.into())?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config()?), socket.into(), runtime)?;
    let (rooms, tasks) = (Rooms::default(), TaskTracker::new());
    let crossing = match redis {
        Some(url) => Some(Arc::new(Crossing::open(url, Arc::clone(&rooms)).await?)),
        None => None,
    };
    relays::announce(endpoint.local_addr()?);
    while let Some(incoming) = endpoint.accept().await {
        let (rooms, crossing) = (Arc::clone(&rooms), crossing.clone());
        tasks.spawn(async move {
            // A client that leaves is no news.
            let _ = relay(incoming, rooms, crossing.as_deref()).await;
        });
    }
    Ok(())
}

async fn relay(incoming: quinn::Incoming, rooms: Rooms, crossing: Option<&Crossing>) -> Result<()> {
    let connection = incoming.await?;
    let (mut answer, mut stream) = connection.accept_bi().await?;
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let mut join = vec![0; (u32::from_be_bytes(length) as usize).min(64 << 10)];
    stream.read_exact(&mut join).await?;
    let name = wire::field(&join, "roomId").context("no room")?.to_owned();
    let room = Arc::clone(rooms.lock().entry(name.clone()).or_default());
    room.write().push(connection.clone());
    answer.write_all(&(relays::JOINED.len() as u32).to_be_bytes()).await?;
    answer.write_all(relays::JOINED.as_bytes()).await?;
    let own = connection.stable_id();
    while let Ok(datagram) = connection.read_datagram().await {
        if let Some(crossing) = crossing {
            crossing.publish(&name, &datagram);
        }
        fan_out(&room, &datagram, Some(own));
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
