//! Messages on the session's stream: four bytes of length, big-endian, then as many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes reserved for a message that arrives in pieces. A client gets no more memory than it has sent bytes for.
const FIRST_ROOM: usize = 2048;

/// How a client breaks the rules of a session's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A length of zero.
    #[error("a message of length 0")]
    EmptyMessage,
    /// A length above the limit. The message is not read.
    #[error("a message of {length} bytes, the limit is {limit}")]
    TooLong {
        /// Bytes, as announced.
        length: usize,
        /// Bytes that were allowed.
        limit: usize,
    },
    /// The stream ended, or was reset, inside a message.
    #[error("the control stream ended inside a message")]
    CutShort,
}

/// Cuts the stream into messages. Everything that was read and not returned stays in the reader, so cancelling a read
/// loses nothing.
#[derive(Debug)]
pub struct MessageReader {
    limit: usize,
    unread: Bytes,
    head: [u8; 4],
    head_bytes: usize,
    body: BytesMut,
}

impl MessageReader {
    /// `limit`: bytes of a message, at most.
    pub fn new(limit: usize) -> Self {
        Self { limit, unread: Bytes::new(), head: [0; 4], head_bytes: 0, body: BytesMut::new() }
    }

    /// Adds a piece of the stream. The pieces before must have been consumed: [`take`](Self::take) has returned `None`.
    pub fn feed(&mut self, piece: Bytes) {
        debug_assert!(self.unread.is_empty());
        self.unread = piece;
    }

    /// Whether the stream is between two messages.
    pub fn at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.unread.is_empty()
    }

    /// The next whole message, if it has arrived. A message within one piece is not copied.
    pub fn take(&mut self) -> Result<Option<Bytes>, Violation> {
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

    fn length(&self) -> Result<usize, Violation> {
        match u32::from_be_bytes(self.head) as usize {
            0 => Err(Violation::EmptyMessage),
            length if length > self.limit => Err(Violation::TooLong { length, limit: self.limit }),
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

    fn violation(head: [u8; 4]) -> Violation {
        let mut reader = MessageReader::new(100);
        reader.feed(Bytes::copy_from_slice(&head));
        reader.take().unwrap_err()
    }

    #[test]
    fn a_length_above_the_limit_is_refused_before_the_message_arrives() {
        for length in [101, u32::MAX] {
            let expected = Violation::TooLong { length: length as usize, limit: 100 };
            assert_eq!(violation(length.to_be_bytes()), expected);
        }
    }

    #[test]
    fn a_length_of_zero_is_refused() {
        assert_eq!(violation([0; 4]), Violation::EmptyMessage);
    }

    #[test]
    fn a_message_within_one_piece_is_not_copied() {
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
        fn messages_are_read_as_they_were_written_however_the_stream_is_cut(
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
