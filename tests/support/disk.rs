//! A disk under the test's thumb.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem::commit::{Commit, Snapshot};
use tandem::domain::{Head, RoomId, RoomTime, ShortId};
use tandem::repository::{EventRow, Repository, RepositoryError};
use tokio::sync::Semaphore;

/// The result of an append.
pub(crate) enum Answer {
    Stored,
    Refused,
    /// The transaction was committed; the answer was lost.
    StoredButLost,
}

/// A repository that answers an append when the test says so, and remembers heads.
pub(crate) struct Disk {
    pub(crate) heads: Mutex<BTreeMap<RoomId, Head>>,
    pub(crate) batches: Mutex<Vec<usize>>,
    pub(crate) unreachable: Mutex<bool>,
    answers: Mutex<VecDeque<Answer>>,
    answered: Semaphore,
    asked: Semaphore,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            heads: Mutex::default(),
            batches: Mutex::default(),
            unreachable: Mutex::default(),
            answers: Mutex::default(),
            answered: Semaphore::new(0),
            asked: Semaphore::new(0),
        }
    }
}

impl Disk {
    /// Until an append has begun.
    pub(crate) async fn asked(&self) {
        self.asked.acquire().await.unwrap().forget();
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
        self.answered.add_permits(1);
    }

    fn refuse<T>() -> Result<T, RepositoryError> {
        Err(RepositoryError::Query(sqlx::Error::WorkerCrashed))
    }
}

impl Repository for Disk {
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async move {
            self.batches.lock().push(batch.len());
            self.asked.add_permits(1);
            let answered = tokio::time::timeout(Duration::from_secs(120), self.answered.acquire()).await;
            answered.expect("an append that the test did not foresee").unwrap().forget();
            let answer = self.answers.lock().pop_front().unwrap();
            if !matches!(answer, Answer::Refused) {
                self.heads.lock().extend(batch.iter().map(|commit| (commit.room.clone(), commit.next)));
            }
            if matches!(answer, Answer::Stored) { Ok(()) } else { Self::refuse() }
        })
    }

    fn store_reports<'a>(
        &'a self,
        _reports: &'a [tandem::commit::MemberReport],
    ) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(async { Ok(()) })
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>> {
        Box::pin(async move {
            if *self.unreachable.lock() {
                return Self::refuse();
            }
            let heads = self.heads.lock();
            Ok(rooms.iter().filter_map(|room| Some((room.clone(), *heads.get(room)?))).collect())
        })
    }

    fn latest(&self) -> BoxFuture<'_, Result<Option<RoomTime>, RepositoryError>> {
        Box::pin(async { Ok(None) })
    }

    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn events<'a>(
        &'a self,
        _room: &'a RoomId,
        _after: Head,
        _limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn prune(&self, _before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn short_link<'a>(
        &'a self,
        _room: &'a RoomId,
        _now: RoomTime,
        _expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn resolve_short<'a>(
        &'a self,
        _short: &'a ShortId,
        _now: RoomTime,
        _expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn recall_short<'a>(&'a self, _short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>> {
        Box::pin(async { Self::refuse() })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}
