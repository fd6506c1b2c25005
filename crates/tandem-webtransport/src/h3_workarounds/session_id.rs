//! h3 has no accessor for the number in its `SessionId`.
//!
//! It can be encoded, so the number is read back from its encoding.
//!
//! Upstream: part of hyperium/h3#293 (an interface for extensions, open on 2026-11-30). Delete when `SessionId`
//! converts to a number.

use bytes::BytesMut;
use h3::proto::coding::Encode as _;
use h3::webtransport::SessionId;

use crate::varint;

/// The stream id of the session's CONNECT request.
pub(crate) fn number(id: SessionId) -> u64 {
    let mut bytes = BytesMut::new();
    id.encode(&mut bytes);
    varint::take(&mut bytes).unwrap_or(u64::MAX)
}
