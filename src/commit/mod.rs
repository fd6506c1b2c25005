//! What travels between hub, log and repository: a commit, and a room's stored state.
//!
//! Field names, values, event bodies and audit records are opaque here: the hub's codec (`hub::codec`) writes and reads
//! them.

pub(crate) mod binary;
pub(crate) mod outbox_entry;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

pub use report::{ConnectionQuality, MemberReport};

use crate::domain::{Head, RoomId, RoomTime, UserId};

/// One append to a room: compare-and-set on `expected`, all of it or nothing.
#[derive(Debug, Clone)]
pub struct Commit {
    pub room: RoomId,
    /// The head that the decision was made on.
    pub expected: Head,
    /// The head afterwards: the last entry's.
    pub next: Head,
    /// The events, heads ascending.
    pub entries: Arc<[Entry]>,
    pub patch: Patch,
    /// The room's columns afterwards.
    pub row: RoomRow,
}

/// One event as the log keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub head: Head,
    /// Room time of the decision.
    pub at: RoomTime,
    /// The event's name in the audit.
    pub kind: &'static str,
    /// The member that acted, or that the event concerns.
    pub user: Option<UserId>,
    /// The event, for replicas.
    pub body: Bytes,
    /// The event for the audit: JSON without chat texts, hashes and tokens.
    pub audit: Bytes,
}

/// Changes of a room's stored fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Patch {
    /// Delete every field first: a new epoch, or the end.
    pub clear: bool,
    /// Field → value; `None` deletes.
    pub fields: BTreeMap<String, Option<Bytes>>,
}

/// The columns of a room that people query.
#[derive(Debug, Clone, PartialEq)]
pub struct RoomRow {
    pub host: Option<UserId>,
    pub url: Option<String>,
    /// Seconds, true at `at`.
    pub position: f64,
    pub playing: bool,
    pub at: RoomTime,
    pub guest_control: bool,
    /// The epoch is over.
    pub ended: bool,
    /// Members whose row changed.
    pub users: Vec<UserRow>,
}

/// The columns of a member that people query.
#[derive(Debug, Clone, PartialEq)]
pub struct UserRow {
    pub user: UserId,
    pub name: String,
    pub slot: u16,
    pub joined_at: RoomTime,
    /// Whether it has a session.
    pub connected: bool,
    /// When its membership ended.
    pub left_at: Option<RoomTime>,
}

/// A room's stored state at a head.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub room: RoomId,
    pub head: Head,
    pub fields: BTreeMap<String, Bytes>,
}
