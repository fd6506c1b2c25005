//! HTTP/3's error codes (RFC 9114 §8.1) with which this crate and its users close connections.

use quinn_proto::VarInt;

/// H3_NO_ERROR.
pub const NO_ERROR: VarInt = VarInt::from_u32(0x100);
/// H3_EXCESSIVE_LOAD.
pub const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);
/// H3_ID_ERROR.
pub const ID_ERROR: VarInt = VarInt::from_u32(0x108);
