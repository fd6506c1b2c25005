//! The wire protocol, known to this module alone. `docs/PROTOCOL.md` is the contract; a test reads it.
//!
//! ```text
//! JSON    bytes ─► decode  ─► ClientRequest { ref, ClientMessage }      fields (one pass, borrowed) → domain types
//!         bytes ◄─ encode_* ◄─ EventDelivery, Notice, Room, Refusal    wire structs (borrowed) → one Vec
//! compact bytes ◄► decode_compact, encode_clock_reply, encode_tick, encode_status, encode_digest, bundles
//! ```
//! No text of a client is relayed as it came: texts and numbers pass through domain types, free JSON (offers, CUSTOM
//! payloads) is parsed and rewritten (`json_text`), and the encoder parses it once more.
//!
//! v2 and v3 members get the same bytes: the fields of v2, then those that v3 adds.

mod client_message;
mod compact;
mod decode;
mod encode;
mod fields;
mod json_text;
mod messages;

pub use client_message::{BadRequest, ClientMessage, ClientRequest, JoinMessage, PingEcho, Rules};
pub use compact::{
    Compact, MAX_BUNDLE, bundles, decode_compact, encode_clock_reply, encode_digest, encode_status, encode_tick,
    unbundled,
};
pub use decode::decode;
pub use encode::{
    EncodedState, encode_closing, encode_error, encode_event, encode_notice, encode_pong, encode_probe, encode_replay,
    encode_reply_ack, encode_roster, encode_state, refusal_code,
};
pub use messages::SERVER_KINDS;

/// The protocol version of this server, in ROOM_STATE and `/api/transports`.
pub const PROTOCOL: u8 = 3;

/// The largest `ref`, `epoch` and `lastSeq`: JavaScript's integers are exactly representable up to here.
pub const MAX_INTEGER: u64 = 1 << 53;
