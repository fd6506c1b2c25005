//! The SQLite repository: one file, `tandem.db`, in the data directory.
//!
//! One connection writes, a few read; WAL lets them work at the same time. `synchronous = NORMAL`: what
//! [`Repository::append`] acknowledged is in the operating system's hands, so it survives the death of the process
//! (`kill -9`, a panic, out of memory). A power cut may take the last moments with it, but never the file's consistency.
//!
//! One process a directory: a lock on `tandem.lock` is held while the repository is open, because two servers on one
//! file would each believe to own its rooms. Times are stored in µs. Pages freed by pruning are used again.

mod append;
mod lock;
mod read;
mod short_links;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, MutexGuard};

use self::lock::{DirLock, Refused};
use super::{EventRow, Repository, RepositoryError};
use crate::domain::{Head, RoomId, RoomTime, ShortId};
use crate::log::{Commit, Snapshot};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a statement waits for somebody else's lock on the file (a backup, an operator's shell).
const BUSY: Duration = Duration::from_secs(5);
const READERS: u32 = 2;
/// After a burst the WAL file shrinks to this, bytes.
const WAL_REST: &str = "67108864";

/// Rooms, users, events and short links in one file.
#[derive(Debug)]
pub struct SqliteRepository {
    path: PathBuf,
    readers: SqlitePool,
    options: SqliteConnectOptions,
    writer: Mutex<Writer>,
    // Last, so that a plain drop lets go of the connections first.
    lock: parking_lot::Mutex<Option<DirLock>>,
}

#[derive(Debug)]
enum Writer {
    Ready(SqliteConnection),
    /// Its last use failed or was broken off: a new one is made for the next. (A full disk ends a transaction behind
    /// sqlx's back, and the connection never gets over it.)
    Lost,
    Closed,
}

/// The writing connection on loan; it comes back only by [`Lease::end`] with a success.
struct Lease<'a> {
    slot: MutexGuard<'a, Writer>,
    connection: SqliteConnection,
}

impl Lease<'_> {
    fn end<T>(mut self, result: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        if result.is_ok() {
            *self.slot = Writer::Ready(self.connection);
        }
        result
    }
}

impl SqliteRepository {
    /// Opens, or creates, the database in `dir` and brings its schema up to date.
    pub async fn open(dir: &Path) -> Result<Self, RepositoryError> {
        create_private(dir).map_err(|error| open_error(dir, error))?;
        let path = dir.join("tandem.db");
        // Before the first look at the file: of two that start together one migrates, the other reads why it may not.
        let lock = take_lock(dir, &path)?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(BUSY)
            .foreign_keys(true)
            // Statements are ours and many; telemetry counts them where they mean something.
            .disable_statement_logging();
        let readers = options.clone().read_only(true);
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("journal_size_limit", WAL_REST);
        let mut writer = options.connect().await.map_err(|error| open_error(&path, error))?;
        migrate(&mut writer, &path).await?;
        Ok(Self {
            path,
            readers: SqlitePoolOptions::new().max_connections(READERS).connect_lazy_with(readers),
            options,
            writer: Mutex::new(Writer::Ready(writer)),
            lock: parking_lot::Mutex::new(Some(lock)),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn writer(&self) -> Result<Lease<'_>, RepositoryError> {
        let mut slot = self.writer.lock().await;
        let connection = match std::mem::replace(&mut *slot, Writer::Lost) {
            Writer::Ready(connection) => connection,
            Writer::Lost => self.options.connect().await.map_err(|error| open_error(&self.path, error))?,
            Writer::Closed => {
                *slot = Writer::Closed;
                return Err(sqlx::Error::PoolClosed.into());
            }
        };
        Ok(Lease { slot, connection })
    }

    async fn end(&self) {
        self.readers.close().await;
        if let Writer::Ready(mut writer) = std::mem::replace(&mut *self.writer.lock().await, Writer::Closed) {
            // Without it the next start reads the WAL: slower, nothing lost.
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
        Box::pin(async move {
            let mut writer = self.writer().await?;
            let result = append::append(&mut writer.connection, batch).await;
            writer.end(result)
        })
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>> {
        // On the writer: it is asked when an append failed, and must see what that append left behind.
        Box::pin(async move {
            let mut writer = self.writer().await?;
            let result = read::heads(&mut writer.connection, rooms.iter().map(RoomId::as_str)).await;
            writer.end(result)
        })
    }

    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>> {
        Box::pin(read::live_rooms(&self.readers))
    }

    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>> {
        Box::pin(read::events(&self.readers, room, after, limit))
    }

    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>> {
        Box::pin(async move {
            let mut writer = self.writer().await?;
            let result = append::prune(&mut writer.connection, before).await;
            writer.end(result)
        })
    }

    fn short_link<'a>(
        &'a self,
        room: &'a RoomId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>> {
        Box::pin(async move {
            let mut writer = self.writer().await?;
            let result = short_links::make(&mut writer.connection, room, now, expires, ShortId::random).await;
            writer.end(result)
        })
    }

    fn resolve_short<'a>(
        &'a self,
        short: &'a ShortId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(async move {
            let mut writer = self.writer().await?;
            let result = short_links::resolve(&mut writer.connection, short, now, expires).await;
            writer.end(result)
        })
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            short_links::recall(&mut reader, short).await
        })
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>> {
        Box::pin(read::ping(&self.readers))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }
}

/// The directory holds hashes of PINs and tokens: made by us, it is ours alone. One that exists keeps its rights.
fn create_private(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

fn take_lock(dir: &Path, database: &Path) -> Result<DirLock, RepositoryError> {
    let path = dir.join("tandem.lock");
    DirLock::take(&path).map_err(|refused| match refused {
        Refused::Held(holder) => RepositoryError::InUse { place: database.display().to_string(), holder },
        Refused::Io(error) => open_error(&path, error),
    })
}

async fn migrate(writer: &mut SqliteConnection, path: &Path) -> Result<(), RepositoryError> {
    MIGRATIONS.run_direct(None, writer, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => RepositoryError::Newer { place: path.display().to_string(), found },
        // The first statements on a file that is no database fail here.
        MigrateError::Execute(error) if error.as_database_error().is_some_and(is_no_database) => {
            open_error(path, error)
        }
        error => RepositoryError::Migrate(error),
    })
}

/// SQLITE_NOTADB and SQLITE_CORRUPT.
fn is_no_database(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().is_some_and(|code| code == "26" || code == "11")
}

fn open_error(place: &Path, source: impl Into<sqlx::Error>) -> RepositoryError {
    RepositoryError::Open { place: place.display().to_string(), source: source.into() }
}

/// A list for `json_each`: one parameter, however long.
fn json_list<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    serde_json::Value::from_iter(ids).to_string()
}
