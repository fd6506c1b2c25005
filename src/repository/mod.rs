//! Repositories: what outlives the process, and what people ask about it.
//!
//! [`Repository::append`] takes whole batches of commits in one transaction: audit rows, the stored fields of each room,
//! and the rows of `rooms` and `users`. It is idempotent on (room, epoch, seq): the same commit again changes nothing.
//! One contract suite runs on every implementation.

mod append;
mod columns;
mod details;
mod error;
mod fold;
pub mod postgres;
mod prune;
mod reports;
mod rooms;
mod short_links;
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
    /// Stores commits in order, all or none, durable when it answers. A commit whose entries are there already is skipped.
    /// One that is not later than the room's stored head adds what events are missing, and leaves the room as it is: what
    /// is replayed never brings old state back. A later epoch keeps nothing of the one before; `row.ended` archives the
    /// room, deletes its fields, expires its short link, and closes its users' rows. An error says nothing about the outcome
    /// (the answer may be what was lost): ask [`Repository::heads`]. Nothing that a commit holds makes it fail by itself.
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// Shows in `users` what members last reported. A member that has no row, has left, or has joined again since is left as
    /// it is; so is one whose row shows a later report, and, in PostgreSQL, one whose room another writer has locked.
    fn store_reports<'a>(&'a self, reports: &'a [MemberReport]) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// The last head stored of these rooms, ended ones too; rooms that are not stored are left out.
    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>>;

    /// The time of the latest commit that was stored: room time never lies before it.
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

    /// Deletes audit events, ended rooms, users that left and short links that expired before `before`, at most a bounded
    /// number a call (besides what a database can drop as a whole); says how many events, about. 0 also says that another node is
    /// at it.
    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>>;

    /// The short id of a room, made if there is none: one a room, whoever asks at the same time. Its life starts anew.
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

    /// The room that a short id stood for, expired or not. Rows stay until [`Repository::prune`] takes them.
    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>>;

    /// Whether the database answers.
    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>>;

    /// Ends in order: what was acknowledged is checkpointed.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// One line of a room's history.
#[derive(Debug, Clone, PartialEq)]
pub struct EventRow {
    /// Its place.
    pub head: Head,
    /// The name ([`crate::commit::Entry::kind`]).
    pub kind: String,
    /// Who.
    pub user: Option<String>,
    /// JSON.
    pub data: String,
    /// When.
    pub at: RoomTime,
}
