//! A client that begins QUIC handshakes and finishes none: the raw packets of a flood, from one address.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use quinn_proto::{ClientConfig, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig};

/// The handshakes of one address.
pub(crate) struct HalfOpen {
    socket: UdpSocket,
    endpoint: Endpoint,
    config: ClientConfig,
    server: SocketAddr,
    connections: Vec<(ConnectionHandle, quinn_proto::Connection)>,
}

impl HalfOpen {
    pub(crate) fn from(address: IpAddr, server: SocketAddr, tls: rustls::ClientConfig) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let crypto = quinn_proto::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        Self {
            socket,
            endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None),
            config: ClientConfig::new(Arc::new(crypto)),
            server,
            connections: Vec::new(),
        }
    }

    /// Sends the first packet of a new connection.
    #[expect(clippy::disallowed_methods, reason = "quinn-proto takes the standard library's time")]
    pub(crate) fn begin(&mut self) {
        let now = Instant::now();
        let (handle, mut connection) =
            self.endpoint.connect(now, self.config.clone(), self.server, "localhost").unwrap();
        send(&self.socket, &mut connection, now);
        self.connections.push((handle, connection));
    }

    /// Answers demands for a proof of address (Retry), and nothing else, until the server is quiet for a moment. Says
    /// how many there were.
    #[expect(clippy::disallowed_methods, reason = "quinn-proto takes the standard library's time")]
    pub(crate) fn prove_address(&mut self) -> usize {
        let mut packet = [0; 2000];
        let mut proofs = 0;
        while let Ok((length, from)) = self.socket.recv_from(&mut packet) {
            // RFC 9000 §17.2.5: the long header of a Retry.
            if packet[0] & 0xf0 != 0xf0 {
                continue;
            }
            let now = Instant::now();
            let data = BytesMut::from(&packet[..length]);
            let event = self.endpoint.handle(now, from, None, None, data, &mut Vec::new());
            let Some(DatagramEvent::ConnectionEvent(handle, event)) = event else { continue };
            let (_, connection) = self.connections.iter_mut().find(|(of, _)| *of == handle).unwrap();
            connection.handle_event(event);
            send(&self.socket, connection, now);
            proofs += 1;
        }
        proofs
    }
}

fn send(socket: &UdpSocket, connection: &mut quinn_proto::Connection, now: Instant) {
    let mut packet = Vec::new();
    while let Some(transmit) = connection.poll_transmit(now, 1, &mut packet) {
        socket.send_to(&packet[..transmit.size], transmit.destination).unwrap();
        packet.clear();
    }
}
