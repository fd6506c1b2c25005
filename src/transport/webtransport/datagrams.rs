//! Compact messages out, as datagrams.
//!
//! quinn keeps a few of them for a peer whose congestion window is full. What doesn't fit there waits in the session's
//! outbox instead, where a newer tick replaces an older one of its slot: a slow peer gets the latest, not a queue.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;

use super::varint;
use crate::domain::CompactBytes;
use crate::session::transport::{Express, TransportError};
use crate::telemetry::names;

/// The sending end of a session's datagrams; clones share it.
#[derive(Clone)]
pub(super) struct Datagrams {
    connection: quinn::Connection,
    /// The session's quarter stream id, in front of each datagram.
    prefix: Bytes,
}

impl Datagrams {
    pub(super) fn new(connection: quinn::Connection, quarter_id: u64) -> Self {
        let mut prefix = BytesMut::with_capacity(8);
        varint::put(quarter_id, &mut prefix);
        Self { connection, prefix: prefix.freeze() }
    }

    pub(super) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    fn datagram(&self, message: &CompactBytes) -> Bytes {
        if self.prefix[..] == [CompactBytes::PREFIX] {
            return message.datagram();
        }
        [&self.prefix[..], message].concat().into()
    }

    /// Sends a message, as soon as there is place.
    pub(super) async fn send(&self, message: &CompactBytes) -> Result<(), TransportError> {
        self.sent(self.connection.send_datagram_wait(self.datagram(message)).await)
    }

    fn sent(&self, result: Result<(), quinn::SendDatagramError>) -> Result<(), TransportError> {
        let reason = match result {
            Ok(()) => return Ok(()),
            Err(quinn::SendDatagramError::ConnectionLost(error)) => {
                return Err(TransportError::Lost(error.to_string()));
            }
            Err(quinn::SendDatagramError::TooLarge) => "too_big",
            Err(quinn::SendDatagramError::UnsupportedByPeer | quinn::SendDatagramError::Disabled) => "unsupported",
        };
        metrics::counter!(names::DATAGRAMS_DROPPED, "direction" => "out", "reason" => reason).increment(1);
        Ok(())
    }
}

impl Express for Datagrams {
    fn try_send(&self, message: &CompactBytes) -> bool {
        // One look at the connection: `send_datagram` would make place by dropping an older one, and asking for the space
        // first takes the connection's lock twice. Where it would wait it keeps nothing.
        let Some(sent) = self.connection.send_datagram_wait(self.datagram(message)).now_or_never() else {
            return false;
        };
        // A lost connection is the session's to notice.
        let _ = self.sent(sent);
        true
    }

    fn rtt(&self) -> Duration {
        self.connection.rtt()
    }
}
