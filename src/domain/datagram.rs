//! Encoded compact messages.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};

/// An encoded compact message, at most 1000 bytes; dereferences to them.
///
/// The bytes are preceded by the zero byte that begins the datagrams of a connection's first session (RFC 9297 §2.1:
/// quarter stream id 0), so one allocation serves the receivers of every transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactBytes(Bytes);

impl CompactBytes {
    /// The quarter stream id of a connection's first session.
    pub const PREFIX: u8 = 0;

    /// Writes a message of `length` bytes.
    pub fn encode(length: usize, write: impl FnOnce(&mut BytesMut)) -> Self {
        let mut bytes = BytesMut::with_capacity(1 + length);
        bytes.put_u8(Self::PREFIX);
        write(&mut bytes);
        Self(bytes.freeze())
    }

    /// The message without prefix, shared.
    pub fn message(&self) -> Bytes {
        self.0.slice(1..)
    }

    /// The message with its prefix, shared.
    pub fn datagram(&self) -> Bytes {
        self.0.clone()
    }
}

impl Deref for CompactBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0[1..]
    }
}

impl From<&[u8]> for CompactBytes {
    fn from(message: &[u8]) -> Self {
        Self::encode(message.len(), |out| out.put_slice(message))
    }
}
