//! The PostgreSQL repository: one database for all nodes.
//!
//! What [`Repository::append`] acknowledged is committed; the server's `synchronous_commit` says how durable that is.
//! Any number of nodes may append at the same time. Each locks the rows of its batch's rooms in the order of their ids,
//! which rules out deadlocks, and compares with the stored heads while it holds the locks. Whatever the order of
//! arrival:
//! * each event is stored once: (room, epoch, seq) is unique;
//! * the row of a room is that of the latest commit ever appended (`created_at` is the time of the first appended
//!   commit of its epoch);
//! * the stored fields and users of a room are those of all its commits, if each was appended after the ones before it,
//!   by any node, repeated or overlapping. A commit that arrives after a later one of its room adds its events and
//!   nothing else, so a consumer that takes over a stream must append what is pending before what is new.
//!
//! A connection that broke, or whose answer came too late, is closed and never used again; the next call opens another.
//! Every call has a time limit, so an unreachable database is an error within seconds.

mod arrays;
mod locks;

use std::collections::BTreeMap;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};

use super::{EventRow, Repository, RepositoryError, rooms, short_ids};
use crate::commit::{Commit, MemberReport, Snapshot};
use crate::domain::{Head, RoomId, RoomTime, ShortId};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Time limits of calls to the database.
#[derive(Debug, Clone, Copy)]
pub struct TimeLimits {
    /// For a connection, new or from the pool.
    pub connect: Duration,
    /// For a call, and as `statement_timeout` on the server. Large batches get more.
    pub answer: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(10) }
    }
}

/// Reading every room, or pruning, may take this many times [`TimeLimits::answer`].
const LONG: u32 = 6;
/// A migration, or waiting for another node's, may take this many times [`TimeLimits::answer`]: one rewrites the
/// history.
const MIGRATION: u32 = 360;
/// Entries for which a batch gets another [`TimeLimits::answer`].
const ENTRIES_AN_ANSWER: usize = 20_000;

#[derive(Debug)]
pub struct PostgresRepository {
    pool: PgPool,
    /// Host and database, without the password.
    place: String,
    limits: TimeLimits,
    /// Advisory lock that each append of this repository holds, shared, until its transaction ends;
    /// [`Repository::heads`] takes it exclusively, so it waits for them.
    appending: i64,
}

/// A connection of the pool on loan. Only [`PooledLease::end`] with a success returns it; after an error, or when the
/// future is dropped, an answer may still be on its way, so the connection is closed.
struct PooledLease<'a> {
    repository: &'a PostgresRepository,
    connection: Option<PoolConnection<sqlx::Postgres>>,
}

impl PooledLease<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is given back only when the lease ends")
    }

    async fn end<T>(mut self, result: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        if result.is_ok()
            && let Some(mut connection) = self.connection.take()
        {
            // Dropping it would return it in a background task, which has no time limit.
            let _ = tokio::time::timeout(self.repository.limits.answer, connection.return_to_pool()).await;
        }
        result
    }
}

impl Drop for PooledLease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl PostgresRepository {
    /// Connects and migrates the schema; nodes that open at the same time take turns.
    pub async fn open(url: &SecretString, pool_size: u32) -> Result<Self, RepositoryError> {
        Self::open_within(url, pool_size, TimeLimits::default()).await
    }

    /// [`PostgresRepository::open`] with other limits.
    pub async fn open_within(url: &SecretString, pool_size: u32, limits: TimeLimits) -> Result<Self, RepositoryError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|source| RepositoryError::Open { place: "of DATABASE_URL".to_owned(), source })?
            .application_name("tandem")
            // Telemetry counts batches and calls; a line for each statement would say nothing.
            .disable_statement_logging();
        let place = place(&options);
        let silent = |after| RepositoryError::Silent { place: place.clone(), after };
        let connecting = tokio::time::timeout(limits.connect, options.connect()).await;
        let mut first = connecting
            .map_err(|_elapsed| silent(limits.connect))?
            .map_err(|source| RepositoryError::Open { place: place.clone(), source })?;
        // A server that takes connections and answers nothing is noticed soon.
        tokio::time::timeout(limits.answer, first.ping()).await.map_err(|_elapsed| silent(limits.answer))??;
        let limit = limits.answer * MIGRATION;
        tokio::time::timeout(limit, migrate(&mut first, &place)).await.map_err(|_elapsed| silent(limit))??;
        // If closing fails, the server notices the closed socket.
        let _ = tokio::time::timeout(limits.connect, first.close()).await;
        let pool = pool(pool_size, limits).connect_lazy_with(options);
        Ok(Self { pool, place, limits, appending: rand::random() })
    }

    async fn lease(&self) -> Result<PooledLease<'_>, RepositoryError> {
        let connection = self.pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => {
                RepositoryError::Silent { place: self.place.clone(), after: self.limits.connect }
            }
            error => error.into(),
        })?;
        Ok(PooledLease { repository: self, connection: Some(connection) })
    }

    /// Works on a connection of the pool, for as long as `limit`.
    async fn with<T>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, RepositoryError>,
    ) -> Result<T, RepositoryError> {
        let mut lease = self.lease().await?;
        let result = within(&self.place, limit, work(lease.connection())).await;
        lease.end(result).await
    }
}

impl Repository for PostgresRepository {
    fn append<'a>(&'a self, batch: &'a [Commit]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        let entries: usize = batch.iter().map(|commit| commit.entries.len()).sum();
        let answers = 1 + u32::try_from(entries / ENTRIES_AN_ANSWER).unwrap_or(u32::MAX - 1);
        let work = async move |connection: &mut PgConnection| locks::append(connection, batch, self.appending).await;
        Box::pin(self.with(self.limits.answer * answers, work))
    }

    fn store_reports<'a>(&'a self, reports: &'a [MemberReport]) -> BoxFuture<'a, Result<(), RepositoryError>> {
        let work = async move |connection: &mut PgConnection| locks::store_reports(connection, reports).await;
        Box::pin(self.with(self.limits.answer * LONG, work))
    }

    fn heads<'a>(&'a self, rooms: &'a [RoomId]) -> BoxFuture<'a, Result<BTreeMap<RoomId, Head>, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| {
            locks::heads_after_appends(connection, rooms, self.appending).await
        };
        Box::pin(self.with(self.limits.answer, work))
    }

    fn latest(&self) -> BoxFuture<'_, Result<Option<RoomTime>, RepositoryError>> {
        Box::pin(self.with(self.limits.answer, async |connection: &mut PgConnection| rooms::latest(connection).await))
    }

    fn live_rooms(&self) -> BoxFuture<'_, Result<Vec<Snapshot>, RepositoryError>> {
        let limit = self.limits.answer * LONG;
        let work = async move |connection: &mut PgConnection| {
            let mut tx = connection.begin().await?;
            let longer = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
            sqlx::query(AssertSqlSafe(longer)).execute(&mut *tx).await?;
            let live = rooms::live(&mut *tx).await?;
            tx.commit().await?;
            Ok(live)
        };
        Box::pin(self.with(limit, work))
    }

    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| rooms::events(connection, room, after, limit).await;
        Box::pin(self.with(self.limits.answer, work))
    }

    fn prune(&self, before: RoomTime) -> BoxFuture<'_, Result<u64, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| locks::prune(connection, before).await;
        Box::pin(self.with(self.limits.answer * LONG, work))
    }

    fn short_link<'a>(
        &'a self,
        room: &'a RoomId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<ShortId, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| locks::short_link(connection, room, now, expires).await;
        Box::pin(self.with(self.limits.answer, work))
    }

    fn resolve_short<'a>(
        &'a self,
        short: &'a ShortId,
        now: RoomTime,
        expires: RoomTime,
    ) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| short_ids::resolve(connection, short, now, expires).await;
        Box::pin(self.with(self.limits.answer, work))
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| short_ids::recall(connection, short).await;
        Box::pin(self.with(self.limits.answer, work))
    }

    fn ping(&self) -> BoxFuture<'_, Result<(), RepositoryError>> {
        Box::pin(self.with(self.limits.answer, async |connection: &mut PgConnection| rooms::ping(connection).await))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if tokio::time::timeout(self.limits.answer, self.pool.close()).await.is_err() {
                tracing::warn!(place = self.place, "the database's connections were left open: it does not answer");
            }
        })
    }
}

fn pool(size: u32, limits: TimeLimits) -> PgPoolOptions {
    let millis = limits.answer.as_millis();
    // The server cancels what its client has given up, so that it releases its locks. Sent as statements, because
    // connection poolers don't pass options of the connection on.
    let settings: std::sync::Arc<str> = format!(
        "SET statement_timeout = {millis}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {millis}",
        millis / 2,
    )
    .into();
    PgPoolOptions::new().max_connections(size).acquire_timeout(limits.connect).after_connect(move |connection, _| {
        let settings = AssertSqlSafe(settings.clone());
        Box::pin(async move { connection.execute(settings).await.map(|_| ()) })
    })
}

/// sqlx holds an advisory lock meanwhile: of nodes that start together one migrates, the others wait.
async fn migrate(connection: &mut PgConnection, place: &str) -> Result<(), RepositoryError> {
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(found) => RepositoryError::Newer { place: place.to_owned(), found },
        error => RepositoryError::Migrate(error),
    })
}

async fn within<T>(
    place: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, RepositoryError>>,
) -> Result<T, RepositoryError> {
    let silent = |_elapsed| RepositoryError::Silent { place: place.to_owned(), after: limit };
    tokio::time::timeout(limit, work).await.map_err(silent)?
}

fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    match options.get_socket() {
        Some(socket) => format!("{database} at {}", socket.display()),
        None => format!("{database} at {}:{}", options.get_host(), options.get_port()),
    }
}
