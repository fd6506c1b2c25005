//! What the two bare relays share.

use std::io::Write;
use std::net::SocketAddr;

/// The answer to the first message.
pub(crate) const JOINED: &str = r#"{"type":"ROOM_STATE"}"#;
/// Begins the line by which a relay says where it is.
pub(crate) const READY: &str = "relay on ";

/// Prints its address for the process that started it.
pub(crate) fn announce(address: SocketAddr) {
    let _ = writeln!(std::io::stdout(), "{READY}{address}");
}
