//! tandem

pub mod clock;
pub mod domain;
pub mod hub;
pub mod log;
pub mod protocol;
pub mod repository;
pub mod room;
pub mod session;
pub mod telemetry;
pub mod transport;
