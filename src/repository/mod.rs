//! Repositories: rooms, users, history and short links in SQLite or PostgreSQL, for restarts and for people who query
//! them.
//!
//! [`Repository::append`] stores a batch of commits in one transaction: audit rows, the stored fields of each room, and
//! the rows of `rooms` and `users`. It is idempotent on (room, epoch, seq): the same commit again changes nothing.
//!
//! What both databases do alike is written once, over [`statement::SqlConnection`]; the modules of each database hold
//! its connections, its locks, and how many rows travel in one statement. `tests/contract_repository.rs` runs on both.

mod append;
mod columns;
mod details;
mod error;
mod fold;
mod member_rows;
pub mod postgres;
mod prune;
mod rooms;
mod short_ids;
pub mod sqlite;
mod statement;
mod stored_time;

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;

pub use self::error::RepositoryError;
use crate::commit::{Commit, MemberReport, Snapshot};
use crate::domain::{Head, RoomId, RoomTime, ShortId};

/// Rooms, users, events and short links in one database.
pub trait Repository: Send + Sync + 'static {
    /// Stores commits in order, all or none; durable when it returns `Ok`.
    ///
    /// A commit whose entries are stored already is skipped. A commit that is not later than the room's stored head
    /// adds the events that are missing and leaves the room as it is, so a replay never brings old state back. A later
    /// epoch keeps nothing of the one before. `row.ended` archives the room, deletes its fields, expires its short
    /// link, and ends its memberships. No content of a commit makes the batch fail.
    ///
    /// # Errors
    /// An error doesn't tell the outcome, because the answer may be what was lost: ask [`Repository::heads`].
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// Shows in `users` what members last reported. A member that has no row, has left, or has joined again since is
    /// left as it is; so is one whose row shows a later report, and, in PostgreSQL, one whose room another writer has
    /// locked.
    fn store_reports<'a>(&'a self, reports: &'a [MemberReport]) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// The stored head of each of these rooms, ended ones included; rooms that are not stored are left out.
    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>>;

    /// The time of the latest stored commit: room time never lies before it.
    fn latest(&self) -> BoxFuture<'_, Result<Option<RoomTime>, RepositoryError>>;

    /// Every room that has not ended.
    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>>;

    /// A room's audit events after `after`, oldest first, at most `limit`.
    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>>;

    /// Deletes audit events, ended rooms, members that left and short links that expired before `before`, a bounded
    /// number a call. Returns the number of events; 0 also when another node is pruning.
    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>>;

    /// The short id of a room, made if there is none; concurrent callers get the same one. Its life starts anew.
    fn short_link<'a>(
        &'a self,
        room: &'a RoomId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>>;

    /// The room behind a short id that has not expired; its life then lasts until `expires`.
    fn resolve_short<'a>(
        &'a self,
        short: &'a ShortId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>>;

    /// The room that a short id stood for, expired or not, until [`Repository::prune`] deletes the row.
    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>>;

    /// Reads a page of the database.
    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>>;

    /// Closes the connections; SQLite is checkpointed first.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One event of a room's history.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    pub head: Head,
    /// The event's name ([`crate::commit::Entry::kind`]).
    pub kind: String,
    pub user: Option<String>,
    /// JSON, the address of the film included.
    pub data: String,
    pub at: RoomTime,
}
