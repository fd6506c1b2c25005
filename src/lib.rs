//! tandem keeps a group's video players in step and lets their browsers find each other.
//!
//! This is the reader's door. The road of a command:
//!
//! ```text
//! bytes → transport → protocol (decode) → session → hub → room.decide → log.commit → room.apply → outboxes → transport → bytes
//!                                                    ↘ ephemeral lane (ticks, statuses, signals) ↗
//! ```
//!
//! Read [`room`] first: a pure state machine, the heart of it. Then [`hub`], which carries commands into the [`log`] and events out to
//! everybody, and [`session`], the one loop that serves every [`transport`]. [`protocol`] is the only place that knows the
//! wire; [`domain`] has the words. [`app`] puts it together. Who may import whom is in `docs/ARCHITECTURE.md`, held by a test.

/// Support files of the tests name this crate by its name.
#[cfg(test)]
extern crate self as tandem;

pub mod app;
pub mod authorities;
pub mod clock;
pub mod cluster;
pub mod commit;
pub mod config;
pub mod domain;
pub mod http;
pub mod hub;
pub mod log;
pub mod panics;
pub mod protocol;
pub mod quota;
pub mod repository;
pub mod room;
pub mod session;
pub mod telemetry;
pub mod transport;
pub mod vital;
