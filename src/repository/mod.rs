//! Repositories: what outlives the process, and what people ask about it.
//!
//! [`Repository::append`] takes whole batches of commits in one transaction: audit rows, the stored fields of each room,
//! and the rows of `rooms` and `users`. It is idempotent on (room, epoch, seq): the same commit again changes nothing.
//! One contract suite runs on every implementation.

pub mod sqlite;

use futures_util::future::BoxFuture;

use crate::domain::{Head, RoomId, RoomTime, ShortId};
use crate::log::{Commit, Snapshot};

/// Rooms, users, events and short links in one database.
pub trait Repository: Send + Sync + 'static {
    /// Stores commits in order, all or none, durable when it answers. A commit whose entries are there already is skipped.
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>>;

    /// Every room that has not ended.
    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>>;

    /// A room's audit events after `after`, oldest first, at most `limit`.
    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>>;

    /// Deletes audit events, ended rooms and their users older than `before`, at most a bounded number a call; says how many events.
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
    /// The name ([`crate::log::Entry::kind`]).
    pub kind: String,
    /// Who.
    pub user: Option<String>,
    /// JSON.
    pub data: String,
    /// When.
    pub at: RoomTime,
}

/// The database refused or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// It can't be opened: the sentence names the file or host.
    #[error("can't open the database {place}: {source}")]
    Open {
        /// File or host.
        place: String,
        /// Why.
        source: sqlx::Error,
    },
    /// The schema can't be brought up to date.
    #[error("can't migrate the database: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// A statement failed.
    #[error("database: {0}")]
    Query(#[from] sqlx::Error),
    /// A stored value is not what this version writes.
    #[error("the database holds a {what} that can't be read")]
    Corrupt {
        /// Which column.
        what: &'static str,
    },
}
