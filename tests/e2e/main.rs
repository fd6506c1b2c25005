//! The whole server from outside: every scenario over WebSocket, WebTransport by two clients that nobody here wrote, and
//! a room with a member on each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod_e2e.rs"]
mod support;

mod abuse;
mod crash;
mod edge;
mod ephemeral;
mod membership;
mod playback;
mod stop;
mod v2;
