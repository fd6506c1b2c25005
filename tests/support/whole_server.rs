//! What the tests of the whole server share.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod client;
mod line;
pub(crate) mod server;
