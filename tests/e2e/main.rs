//! The whole server from outside: every scenario over WebSocket, WebTransport by two foreign client libraries, and
//! a room with a member on each.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/whole_server.rs"]
mod support;

#[path = "../support/authority.rs"]
mod authority;

mod abuse;
mod audience;
mod carriers;
mod crash;
mod edge;
mod ephemeral;
mod logs;
mod membership;
mod numbers;
mod playback;
mod stop;
mod traces;
mod v2;
