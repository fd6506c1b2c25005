//! SQLite whose appends can fail; everything else is forwarded.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use tandem::commit::{Commit, MemberReport, Snapshot};
use tandem::domain::{Head, RoomId, RoomTime, ShortId};
use tandem::repository::sqlite::SqliteRepository;
use tandem::repository::{EventRow, Repository, RepositoryError};

pub(crate) struct FailingRepository {
    pub(crate) repository: SqliteRepository,
    /// Appends fail.
    pub(crate) fails: AtomicBool,
    /// Appends that failed.
    pub(crate) refused: AtomicUsize,
    error: fn() -> RepositoryError,
}

impl FailingRepository {
    pub(crate) fn new(repository: SqliteRepository, error: fn() -> RepositoryError) -> Self {
        Self { repository, fails: AtomicBool::new(false), refused: AtomicUsize::new(0), error }
    }
}

impl Repository for FailingRepository {
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async move {
            if self.fails.load(Ordering::SeqCst) {
                self.refused.fetch_add(1, Ordering::SeqCst);
                return Err((self.error)());
            }
            self.repository.append(batch).await
        })
    }

    fn store_reports<'a>(&'a self, reports: &'a [MemberReport]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        self.repository.store_reports(reports)
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>> {
        self.repository.heads(rooms)
    }

    fn latest(&self) -> BoxFuture<'_, Result<Option<RoomTime>, RepositoryError>> {
        self.repository.latest()
    }

    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>> {
        self.repository.live_rooms()
    }

    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>> {
        self.repository.events(room, after, limit)
    }

    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>> {
        self.repository.prune(before)
    }

    fn short_link<'a>(
        &'a self,
        room: &'a RoomId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>> {
        self.repository.short_link(room, now, expires)
    }

    fn resolve_short<'a>(
        &'a self,
        short: &'a ShortId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        self.repository.resolve_short(short, now, expires)
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        self.repository.recall_short(short)
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>> {
        self.repository.ping()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.repository.close()
    }
}
