//! What h3 0.0.8 can't do or does wrong, each with the upstream issue and the condition on which the file can be
//! deleted.
//!
//! The sessions themselves are no workaround of this kind: `h3-webtransport` 0.1.2 keeps the CONNECT stream private and
//! never reads it, so a page that closes leaves a ghost session (hyperium/h3#349), it blocks on the first stream that
//! doesn't say what it is (hyperium/h3#348), and the number of sessions that it announces is not enforced
//! (hyperium/h3#355).

pub(crate) mod connect_protocol;
pub(crate) mod eager_read;
pub(crate) mod held_bytes;
pub(crate) mod safari_setting;
pub(crate) mod session_id;
