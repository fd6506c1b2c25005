//! What the tests of the whole server share.

#![allow(dead_code, reason = "each test binary uses its part")]

mod carrier;
pub(crate) mod client;
pub(crate) mod server;
