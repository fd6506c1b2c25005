//! The session: one loop for every transport.
//!
//! A transport turns bytes into [`Frame`]s and back; everything else (JOIN, rights, rates, heartbeats, idle limit, outbox, end)
//! is here, so nothing about rooms can differ by transport.
//!
//! ```text
//!           Inbound::next ─► rate ─► protocol::decode ─► hub.submit / tick / relay
//! transport                                                     │
//!           Outbound::send ◄─ writer ◄─ Outbox (reliable by bytes, ticks by slot) ◄─ hub
//! ```
//! One task a session: reader, writer and watchdog are three futures of it, so nothing outlives the loop; when it ends,
//! the membership enters its grace time (or is left) before the transport is closed.

pub mod transport;
