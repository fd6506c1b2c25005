//! tandem keeps a group's video players in step and lets their browsers find each other.
//!
//! This page is the map; `docs/ARCHITECTURE.md` has the terms, the decisions, and the table of imports.
//! The road of a command:
//!
//! ```text
//! bytes → transport → protocol (decode) → session → hub → room.decide → log.commit → room.apply → outboxes → bytes
//!                                                    ↘ ephemeral lane (ticks, statuses, signals) ↗
//!                                        log → repository: history, stored rooms, tables
//! ```
//!
//! * [`room`]: the pure state machine. Read it first: `decide` makes events of a command, `apply` state of an event.
//! * [`hub`]: this node's replicas of rooms; carries commands into the log and events to every member.
//! * [`log`]: the sequencer: `log::memory` for one process, `log::redis` for a cluster. [`commit`]: its shapes.
//! * [`repository`]: rooms, members, history and short links in SQLite or PostgreSQL.
//! * [`cluster`]: this node among others: leases, the drainer of Redis' outbox, room time.
//! * [`mod@redis`]: the connection to Redis, its keys, and every Lua script with one typed function each.
//! * [`quota`]: counts of what clients use up: JOINs, wrong PINs, sessions, bytes.
//! * [`session`]: the one loop that serves every transport. [`protocol`]: the only module that knows the wire.
//! * [`transport`]: WebSocket, TCP, TLS, adapters of the crates for QUIC and WebTransport. [`http`]: API and page.
//! * [`domain`]: values parsed at the edge, limits, codes. [`app`]: the only module that names concrete adapters.
//!
//! Where four things happen:
//! * A tick that crosses nodes: `session::dispatch`, `hub::ephemeral` (encoded by `hub::relay`),
//!   `log::redis::publisher`, Redis. On the other node `log::redis::bus`, `log::redis::inbox`, `hub::commit_feed`,
//!   `hub::ephemeral_feed`, `hub::ephemeral`, `session::outbox`.
//! * A JOIN with a PIN: `session::dispatch`, `hub::join` (attempts: [`quota`]; the hash is computed in
//!   `hub::pin_hasher`), `hub::replica` opens the room, `hub::queue` and `hub::committer` have it decided
//!   (`room::decide::enter`) and committed (`log::redis::commit`); `hub::room_cell` lets the session in. From Redis'
//!   outbox the commit gets into the database by `cluster::drainer`.
//! * Redis that lost its data: `log::redis::bus` sees another era or a broken connection, `hub::commit_feed` marks
//!   every room, each room's `hub::committer` has it read, and `hub::replica` writes back what Redis lacks
//!   (`log::redis::restore`). Commits wait meanwhile (`@frozen_until` in `restore.lua` and `commit.lua`).
//!   `log::redis::recent` puts commits that the database lacks into the outbox again.
//! * An expired lease: `cluster::watch` on the other nodes (wired in `app::storage`), `hub::expiry` (`adopt` for rooms
//!   without a replica anywhere, which the node that sweeps finds), then `room::decide::membership` (grace time).

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
pub mod redis;
pub mod repository;
pub mod room;
pub mod session;
pub mod telemetry;
pub mod transport;
pub mod vital;
