//! Datagrams of a session (RFC 9297 §2.1).
//!
//! QUIC buffers a few datagrams for a peer whose congestion window is full. [`SessionDatagrams::try_send`] reports a
//! full buffer instead of waiting, so that the application can replace a stale datagram by a newer one.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tandem_quic::{ConnectionError, QuicConnection, SendDatagramError};

use crate::{ObserveWebTransport, WebTransportEvent, varint};

/// Bytes of a datagram, at most: what fits into a packet of 1200 bytes on any path.
pub const MAX_DATAGRAM: usize = 1000;

/// An encoded datagram. Clones are cheap, and serve the sessions of many connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram(Bytes);

impl Datagram {
    /// The byte in front of the payload: quarter stream id 0, i.e. the first session of a connection, the id of nearly
    /// all.
    pub const PREFIX: u8 = 0;

    /// Copies a payload of at most [`MAX_DATAGRAM`] bytes.
    pub fn new(payload: &[u8]) -> Self {
        let mut bytes = BytesMut::with_capacity(1 + payload.len());
        bytes.put_u8(Self::PREFIX);
        bytes.put_slice(payload);
        Self(bytes.freeze())
    }

    /// Takes bytes that begin with [`PREFIX`](Self::PREFIX), without copying them.
    pub fn from_prefixed(bytes: Bytes) -> Self {
        debug_assert_eq!(bytes.first(), Some(&Self::PREFIX));
        Self(bytes)
    }
}

/// The sending end of a session's datagrams; clones share it. It may be used from any task.
#[derive(Debug, Clone)]
pub struct SessionDatagrams {
    connection: QuicConnection,
    /// Stream id of the session's CONNECT, divided by four: in front of each of its datagrams.
    quarter_id: u64,
    observe: ObserveWebTransport,
}

impl SessionDatagrams {
    pub(crate) fn new(connection: QuicConnection, quarter_id: u64, observe: ObserveWebTransport) -> Self {
        Self { connection, quarter_id, observe }
    }

    pub(crate) fn connection(&self) -> &QuicConnection {
        &self.connection
    }

    fn encoded(&self, datagram: &Datagram) -> Bytes {
        if self.quarter_id == u64::from(Datagram::PREFIX) {
            return datagram.0.clone();
        }
        let mut bytes = BytesMut::with_capacity(8 + datagram.0.len());
        varint::put(self.quarter_id, &mut bytes);
        bytes.extend_from_slice(&datagram.0[1..]);
        bytes.freeze()
    }

    /// Sends a datagram as soon as the send buffer has place. A datagram that can't be sent at all (too long for the
    /// path, or the client takes none) is dropped.
    pub async fn send(&self, datagram: &Datagram) -> Result<(), ConnectionError> {
        self.sent(self.connection.send_datagram(self.encoded(datagram)).await)
    }

    /// Sends a datagram unless the send buffer is full; then it returns false. Never blocks. A datagram that can't be
    /// sent at all is dropped, and so is one on a connection that is over, which the reader reports.
    pub fn try_send(&self, datagram: &Datagram) -> bool {
        let Some(sent) = self.connection.try_send_datagram(self.encoded(datagram)) else { return false };
        let _ = self.sent(sent);
        true
    }

    fn sent(&self, result: Result<(), SendDatagramError>) -> Result<(), ConnectionError> {
        let reason = match result {
            Ok(()) => return Ok(()),
            Err(SendDatagramError::ConnectionLost(error)) => return Err(error),
            Err(SendDatagramError::TooLarge) => "too_big",
            Err(SendDatagramError::Unsupported) => "unsupported",
        };
        (self.observe)(WebTransportEvent::DatagramOutDropped { reason });
        Ok(())
    }

    /// The connection's smoothed round trip. Takes no lock.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// The round trip to plan with: on a path that loses packets, one with a repair. Takes the connection's lock.
    pub fn repaired_rtt(&self) -> Duration {
        self.connection.repaired_rtt()
    }
}
