//! Compact messages out, as datagrams.
//!
//! QUIC keeps a few of them for a peer whose congestion window is full. What doesn't fit there waits in the session's
//! outbox instead, where a newer tick replaces an older one of its slot: a slow peer gets the latest, not a queue.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::varint;
use crate::domain::CompactBytes;
use crate::session::transport::{Express, TransportError};
use crate::telemetry::names;
use crate::transport::quic;

/// The sending end of a session's datagrams; clones share it.
#[derive(Clone)]
pub(super) struct Datagrams {
    connection: quic::Connection,
    /// The session's quarter stream id, in front of each datagram.
    quarter_id: u64,
}

impl Datagrams {
    pub(super) fn new(connection: quic::Connection, quarter_id: u64) -> Self {
        Self { connection, quarter_id }
    }

    pub(super) fn connection(&self) -> &quic::Connection {
        &self.connection
    }

    fn datagram(&self, message: &CompactBytes) -> Bytes {
        if self.quarter_id == u64::from(CompactBytes::PREFIX) {
            return message.datagram();
        }
        let mut datagram = BytesMut::with_capacity(8 + message.len());
        varint::put(self.quarter_id, &mut datagram);
        datagram.extend_from_slice(message);
        datagram.freeze()
    }

    /// Sends a message, as soon as there is place.
    pub(super) async fn send(&self, message: &CompactBytes) -> Result<(), TransportError> {
        self.sent(self.connection.send_datagram(self.datagram(message)).await)
    }

    fn sent(&self, result: Result<(), quic::SendDatagramError>) -> Result<(), TransportError> {
        let reason = match result {
            Ok(()) => return Ok(()),
            Err(quic::SendDatagramError::ConnectionLost(error)) => {
                return Err(TransportError::Lost(error.to_string()));
            }
            Err(quic::SendDatagramError::TooLarge) => "too_big",
            Err(quic::SendDatagramError::Unsupported) => "unsupported",
        };
        metrics::counter!(names::DATAGRAMS_DROPPED, "direction" => "out", "reason" => reason).increment(1);
        Ok(())
    }
}

impl Express for Datagrams {
    fn try_send(&self, message: &CompactBytes) -> bool {
        let Some(sent) = self.connection.try_send_datagram(self.datagram(message)) else { return false };
        // A lost connection is the session's to notice.
        let _ = self.sent(sent);
        true
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }
}
