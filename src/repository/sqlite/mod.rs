//! The SQLite repository: one file, `tandem.db`, in the data directory.
//!
//! One connection writes and two read, at the same time thanks to WAL. `synchronous = NORMAL`: what
//! [`Repository::append`] acknowledged is written to the operating system, so it survives `kill -9`, a panic and
//! running out of memory. A power cut may lose the last commits, but leaves the file consistent.
//!
//! One process a directory: `tandem.lock` is locked while the repository is open, because two servers on one file would
//! each take its rooms for their own.
//!
//! The file is bounded ([`SqliteRepository::open_bounded`]): before a batch that would come near the bound, the oldest
//! history is deleted, and SQLite refuses pages beyond it (`max_page_count`). Freed pages are used again.

mod bound;
mod data_dir;
#[cfg(test)]
mod tests;
mod tuples;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

pub use self::data_dir::DataDirError;
use self::data_dir::{DirLock, LOCK_FILE, LockRefusal, create_private, make_private};
use super::{EventRow, Repository, RepositoryError, append, member_rows, prune, rooms, short_ids};
use crate::commit::{Commit, MemberReport, Snapshot};
use crate::domain::{Head, RoomId, RoomTime, ShortId};
use crate::telemetry::{Seldom, names};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for a lock that another process holds (a backup, an operator's shell).
const BUSY: Duration = Duration::from_secs(5);
const READERS: u32 = 2;
/// Bytes to which the WAL file shrinks after a burst.
const WAL_REST: &str = "67108864";
/// Bytes kept free below the bound of the file: more than a batch of commits.
const SLACK: u64 = 16 << 20;
/// SQLite's default page size, bytes.
const PAGE: u64 = 4096;

#[derive(Debug)]
pub struct SqliteRepository {
    path: PathBuf,
    readers: SqlitePool,
    options: SqliteConnectOptions,
    writer: Mutex<WriterSlot>,
    /// Bytes that the file may have.
    most: Option<u64>,
    bounded: Seldom,
    // Last, so that a drop closes the connections before it unlocks.
    lock: parking_lot::Mutex<Option<DirLock>>,
}

#[derive(Debug)]
enum WriterSlot {
    Ready(SqliteConnection),
    /// Its last use failed or was cancelled; the next use opens another. (A full disk ends a transaction without sqlx
    /// noticing, and the connection stays unusable.)
    Lost,
    Closed,
}

/// The writing connection on loan. Only [`WriterLease::end`] with a success returns it.
struct WriterLease<'a> {
    slot: MutexGuard<'a, WriterSlot>,
    connection: SqliteConnection,
}

impl WriterLease<'_> {
    fn end<T>(mut self, result: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        if result.is_ok() {
            *self.slot = WriterSlot::Ready(self.connection);
        }
        result
    }
}

impl SqliteRepository {
    /// Opens, or creates, the database in `dir` and migrates its schema.
    pub async fn open(dir: &Path) -> Result<Self, RepositoryError> {
        Self::open_bounded(dir, None).await
    }

    /// [`SqliteRepository::open`] with a bound on the bytes of the file. One that is larger already doesn't grow, and
    /// shrinks only by `VACUUM`.
    pub async fn open_bounded(dir: &Path, most: Option<u64>) -> Result<Self, RepositoryError> {
        create_private(dir).map_err(|problem| RepositoryError::data_dir(dir, problem))?;
        let path = dir.join("tandem.db");
        // Before the file is opened: of two servers that start together one migrates, the other gets the error.
        let lock = take_lock(dir, &path)?;
        make_private(&path).map_err(|problem| RepositoryError::data_dir(dir, problem))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // Telemetry counts batches and calls; a line for each statement would say nothing.
            .disable_statement_logging();
        let readers = options.clone().read_only(true);
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("journal_size_limit", WAL_REST);
        let mut writer = options.connect().await.map_err(|error| open_error(&path, error))?;
        // A migration may take more pages than the bound leaves; what it freed is used again.
        migrate(&mut writer, &path).await?;
        let options = match most.map(|most| most / PAGE) {
            Some(pages) => {
                let bound = AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
                sqlx::query(bound).execute(&mut writer).await.map_err(|error| open_error(&path, error))?;
                options.pragma("max_page_count", pages.to_string())
            }
            None => options,
        };
        Ok(Self {
            path,
            readers: SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(readers),
            options,
            writer: Mutex::new(WriterSlot::Ready(writer)),
            most,
            bounded: Seldom::new(),
            lock: parking_lot::Mutex::new(Some(lock)),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn writer(&self) -> Result<WriterLease<'_>, RepositoryError> {
        let mut slot = self.writer.lock().await;
        let connection = match std::mem::replace(&mut *slot, WriterSlot::Lost) {
            WriterSlot::Ready(connection) => connection,
            WriterSlot::Lost => self.options.connect().await.map_err(|error| open_error(&self.path, error))?,
            WriterSlot::Closed => {
                *slot = WriterSlot::Closed;
                return Err(sqlx::Error::PoolClosed.into());
            }
        };
        Ok(WriterLease { slot, connection })
    }

    /// Turns SQLite's codes for damage and a full disk into errors that say what to do.
    fn told<T>(&self, result: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        let place = || self.path.display().to_string();
        result.map_err(|error| match error {
            RepositoryError::Query(source) | RepositoryError::Open { source, .. } if is_damage(&source) => {
                RepositoryError::Damaged { place: place(), source }
            }
            RepositoryError::Query(source) | RepositoryError::Open { source, .. } if is_full(&source) => {
                RepositoryError::Full { place: place(), source }
            }
            error => error,
        })
    }

    async fn store(&self, connection: &mut SqliteConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
        if let Some(most) = self.most {
            let room = most.saturating_sub(SLACK.max(most / 20));
            let pruned = bound::make_room(connection, room).await?;
            if pruned > 0 {
                metrics::counter!(names::EVENTS_PRUNED).increment(pruned);
                if self.bounded.is_due() {
                    tracing::warn!(
                        place = %self.path.display(),
                        "the database is at MAX_DATABASE_MB: the oldest of its history goes before its time"
                    );
                }
            }
        }
        transaction(connection, async |connection| append::append(connection, batch).await).await
    }

    /// Works on the writing connection.
    async fn write<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let mut writer = self.writer().await?;
        let result = work(&mut writer.connection).await;
        self.told(writer.end(result))
    }

    /// Works on a connection that can't write.
    async fn read<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let mut reader = self.readers.acquire().await?;
        self.told(work(&mut reader).await)
    }

    async fn end(&self) {
        self.readers.close().await;
        if let WriterSlot::Ready(mut writer) = std::mem::replace(&mut *self.writer.lock().await, WriterSlot::Closed) {
            // If the checkpoint fails, the next start reads the WAL: slower, nothing is lost.
            let checkpoint = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut writer).await;
            let closed = writer.close().await;
            if let Err(error) = checkpoint.map(|_| ()).and(closed) {
                tracing::warn!(path = %self.path.display(), %error, "the database was not checkpointed at close");
            }
        }
        self.lock.lock().take();
    }
}

impl Repository for SqliteRepository {
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(self.write(async move |connection: &mut SqliteConnection| self.store(connection, batch).await))
    }

    fn store_reports<'a>(&'a self, reports: &'a [MemberReport]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        Box::pin(self.write(async move |connection: &mut SqliteConnection| {
            transaction(connection, async |connection| member_rows::store(connection, reports.iter()).await).await
        }))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>> {
        // On the writing connection: asked after a failed append, it must see what that append left.
        Box::pin(self.write(async move |connection: &mut SqliteConnection| {
            let ids: Vec<&str> = rooms.iter().map(RoomId::as_str).collect();
            rooms::heads(connection, &ids).await
        }))
    }

    fn latest(&self) -> BoxFuture<'_, Result<Option<RoomTime>, RepositoryError>> {
        Box::pin(self.read(async |connection: &mut SqliteConnection| rooms::latest(connection).await))
    }

    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>> {
        Box::pin(self.read(async |connection: &mut SqliteConnection| rooms::live(connection).await))
    }

    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>> {
        Box::pin(
            self.read(async move |connection: &mut SqliteConnection| {
                rooms::events(connection, room, after, limit).await
            }),
        )
    }

    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>> {
        Box::pin(self.write(async move |connection: &mut SqliteConnection| {
            transaction(connection, async |connection| prune::prune(connection, before).await).await
        }))
    }

    fn short_link<'a>(
        &'a self,
        room: &'a RoomId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>> {
        // On the one writing connection, so two askers never meet.
        Box::pin(self.write(async move |connection: &mut SqliteConnection| {
            transaction(connection, async |connection| {
                short_ids::make(connection, room, now, expires, ShortId::random).await
            })
            .await
        }))
    }

    fn resolve_short<'a>(
        &'a self,
        short: &'a ShortId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(self.write(async move |connection: &mut SqliteConnection| {
            short_ids::resolve(connection, short, now, expires).await
        }))
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(self.read(async move |connection: &mut SqliteConnection| short_ids::recall(connection, short).await))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>> {
        Box::pin(self.read(async |connection: &mut SqliteConnection| rooms::ping(connection).await))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }
}

/// Runs `work` in a transaction. IMMEDIATE takes the writer's lock first, so that nothing that `work` reads can be out
/// of date when it writes.
async fn transaction<T>(
    connection: &mut SqliteConnection,
    work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, RepositoryError>,
) -> Result<T, RepositoryError> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let done = work(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

fn take_lock(dir: &Path, database: &Path) -> Result<DirLock, RepositoryError> {
    DirLock::take(&dir.join(LOCK_FILE)).map_err(|refusal| match refusal {
        LockRefusal::Held(holder) => RepositoryError::InUse { place: database.display().to_string(), holder },
        LockRefusal::Unusable(problem) => RepositoryError::data_dir(dir, problem),
    })
}

async fn migrate(writer: &mut SqliteConnection, path: &Path) -> Result<(), RepositoryError> {
    MIGRATIONS.run_direct(None, writer, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => RepositoryError::Newer { place: path.display().to_string(), found },
        // On a file that is no database, the first statement fails.
        MigrateError::Execute(error) if is_damage(&error) => open_error(path, error),
        error => RepositoryError::Migrate(error),
    })
}

/// SQLite's primary result code, the low byte of what it answers.
fn code(error: &sqlx::Error) -> Option<u32> {
    let code: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

/// SQLITE_CORRUPT, SQLITE_NOTADB.
fn is_damage(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(11 | 26))
}

/// SQLITE_IOERR, SQLITE_FULL: the disk, or a quota on it, takes no more; or it fails.
fn is_full(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(10 | 13))
}

fn open_error(place: &Path, source: impl Into<sqlx::Error>) -> RepositoryError {
    let (place, source) = (place.display().to_string(), source.into());
    if is_damage(&source) {
        RepositoryError::Damaged { place, source }
    } else {
        RepositoryError::Open { place, source }
    }
}
