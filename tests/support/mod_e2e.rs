//! What the tests of the whole server share.

#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod carriers;
pub(crate) mod client;
pub(crate) mod server;
