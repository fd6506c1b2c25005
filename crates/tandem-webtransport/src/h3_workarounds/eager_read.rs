//! h3 reads a unidirectional stream before it looks at the bytes that it already has.
//!
//! `AcceptRecvStream::poll_next_varint` (h3/src/stream.rs) awaits more data even when the stream's type and session id
//! are buffered, so a stream whose first packet is its only one for a while is not recognised. Delivered byte by byte,
//! each field is complete after the read of its own last byte.
//!
//! Upstream: no issue found, 2026-11-30 (hyperium/h3#219 mended the same fault in `recv_data`). Still in h3's main
//! branch. Delete when `poll_next_varint` decodes before it reads.

/// Bytes to deliver singly: the longest stream type and session id.
const HEAD: usize = 16;

/// Limits the first reads of a stream to one byte.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Trickle(usize);

impl Trickle {
    /// For a unidirectional stream.
    pub(crate) const HEAD: Self = Self(HEAD);
    /// For a stream that needs none.
    pub(crate) const NONE: Self = Self(0);

    /// How much of `wanted` bytes the next read may take.
    pub(crate) fn limit(self, wanted: usize) -> usize {
        if self.0 > 0 { 1 } else { wanted }
    }

    /// Notes a read.
    pub(crate) fn advance(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}
