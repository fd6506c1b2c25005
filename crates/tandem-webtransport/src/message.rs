//! Messages on the control stream: four bytes of length, big-endian, then as many of JSON.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::domain::CloseCode;
use crate::session::transport::TransportError;

/// Room made for a message that comes in pieces. A client gets no more memory than it has sent bytes for.
const FIRST_ROOM: usize = 2048;

/// Cuts the stream into messages. Everything that was read and not returned stays in here, so a reader that is dropped
/// and tried again loses nothing.
#[derive(Debug)]
pub struct MessageReader {
    limit: usize,
    unread: Bytes,
    head: [u8; 4],
    head_bytes: usize,
    body: BytesMut,
}

impl MessageReader {
    /// `limit`: bytes of a message.
    pub fn new(limit: usize) -> Self {
        Self { limit, unread: Bytes::new(), head: [0; 4], head_bytes: 0, body: BytesMut::new() }
    }

    /// Adds what arrived. Call [`Self::take`] until it has nothing more before the next piece.
    pub fn feed(&mut self, piece: Bytes) {
        debug_assert!(self.unread.is_empty());
        self.unread = piece;
    }

    /// Whether the stream may end here.
    pub fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.unread.is_empty()
    }

    /// The next whole message. One that arrived in one piece is not copied.
    pub fn take(&mut self) -> Result<Option<Bytes>, TransportError> {
        while self.head_bytes < self.head.len() {
            if !self.unread.has_remaining() {
                return Ok(None);
            }
            self.head[self.head_bytes] = self.unread.get_u8();
            self.head_bytes += 1;
        }
        let length = self.length()?;
        if self.body.is_empty() && self.unread.len() >= length {
            self.head_bytes = 0;
            return Ok(Some(self.unread.split_to(length)));
        }
        let wanted = self.unread.len().min(length - self.body.len());
        if self.body.capacity() == 0 {
            self.body.reserve(length.min(FIRST_ROOM));
        }
        self.body.put(self.unread.split_to(wanted));
        if self.body.len() < length {
            return Ok(None);
        }
        self.head_bytes = 0;
        Ok(Some(std::mem::take(&mut self.body).freeze()))
    }

    fn length(&self) -> Result<usize, TransportError> {
        let violation = |code, reason| Err(TransportError::Violation { code, reason });
        match u32::from_be_bytes(self.head) as usize {
            0 => violation(CloseCode::ProtocolError, "a message of length 0".to_owned()),
            length if length > self.limit => {
                violation(CloseCode::TooBig, format!("a message of {length} bytes, the limit is {}", self.limit))
            }
            length => Ok(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(messages: &[Vec<u8>]) -> Vec<u8> {
        let with_length = |message: &Vec<u8>| [&(message.len() as u32).to_be_bytes(), message.as_slice()].concat();
        messages.iter().flat_map(with_length).collect()
    }

    fn violation(prefix: [u8; 4]) -> CloseCode {
        let mut reader = MessageReader::new(100);
        reader.feed(Bytes::copy_from_slice(&prefix));
        match reader.take() {
            Err(TransportError::Violation { code, .. }) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_the_message_arrives() {
        assert_eq!(violation(101u32.to_be_bytes()), CloseCode::TooBig);
        assert_eq!(violation([0xff; 4]), CloseCode::TooBig);
    }

    #[test]
    fn a_length_of_zero_is_a_protocol_error() {
        assert_eq!(violation([0; 4]), CloseCode::ProtocolError);
    }

    #[test]
    fn a_message_that_came_in_one_piece_is_not_copied() {
        let piece = Bytes::from(encode(&[b"hello".to_vec()]));
        let mut reader = MessageReader::new(100);
        reader.feed(piece.clone());
        assert_eq!(reader.take().unwrap().unwrap().as_ptr(), piece[4..].as_ptr());
    }

    #[test]
    fn a_promised_length_alone_takes_no_memory() {
        let mut reader = MessageReader::new(1 << 20);
        reader.feed(Bytes::copy_from_slice(&(1u32 << 20).to_be_bytes()));
        assert_eq!(reader.take().unwrap(), None);
        assert!(reader.body.capacity() <= FIRST_ROOM);
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..10),
            piece in 1usize..400,
        ) {
            let mut reader = MessageReader::new(300);
            let mut out = Vec::new();
            for piece in encode(&messages).chunks(piece) {
                reader.feed(Bytes::copy_from_slice(piece));
                while let Some(message) = reader.take().unwrap() {
                    out.push(message.to_vec());
                }
            }
            prop_assert_eq!(out, messages);
            prop_assert!(reader.at_boundary());
        }
    }
}
