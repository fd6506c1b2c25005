//! tandem

pub mod app;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod hub;
pub mod log;
pub mod node;
pub mod protocol;
pub mod repository;
pub mod room;
pub mod session;
pub mod telemetry;
pub mod transport;
