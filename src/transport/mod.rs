//! Transports: bytes to frames and back, nothing about rooms.

pub mod caps;
pub mod memory;
pub mod origin;
pub mod proxies;
pub mod tcp;
pub mod tls;
pub mod websocket;

/// Marks a request that came in over the public port (TLS or QUIC), where diagnostics don't exist.
#[derive(Debug, Clone, Copy)]
pub struct Public;
