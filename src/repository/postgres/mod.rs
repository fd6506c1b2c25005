//! The PostgreSQL repository: one database for all nodes.
//!
//! What [`Repository::append`] acknowledged is committed, by the server's own idea of durable (`synchronous_commit`).
//! Any number of nodes may append at the same time: each takes the rows of its batch's rooms in one order, so none waits
//! for another in a circle, and compares with the stored heads while it holds them. Whatever the order of arrival,
//! * every event is there once: the database itself keeps (room, epoch, seq) unique;
//! * a room's row is that of the latest commit that was ever appended, never an older one (but `created_at` is the time
//!   of the first one of its epoch that was);
//! * its stored fields and users are those of all its commits, if each was appended after the ones before it, by whomever
//!   (again and again, overlapping, late: all fine). A commit that comes only after a later one of its room gives its
//!   events and nothing else, so a consumer that takes over a stream must append what is pending before what is new.
//!
//! A connection that broke, or whose answer did not come in time, is thrown away and never used again; the next call
//! makes another. There is a limit of time to everything, so a dead database is an error soon. Times are stored in µs.

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

use super::{EventRow, Repository, RepositoryError, rooms, short_links};
use crate::commit::{Commit, MemberReport, Snapshot};
use crate::domain::{Head, RoomId, RoomTime, ShortId};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// How long the database is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a connection, new or from the pool.
    pub connect: Duration,
    /// For a statement, on both sides. Big batches get more.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), answer: Duration::from_secs(10) }
    }
}

/// How many answers' time reading every room may take, or pruning.
const LONG: u32 = 6;
/// How many answers' time a migration may take, or waiting for that of another node: one rewrites the whole history.
const MIGRATION: u32 = 360;
/// A batch of so many entries may take an answer's time more.
const ENTRIES_AN_ANSWER: usize = 20_000;

/// Rooms, users, events and short links in one database.
#[derive(Debug)]
pub struct PostgresRepository {
    pool: PgPool,
    /// Host and database, without the password.
    place: String,
    limits: Limits,
    /// Held by this repository's appends, shared, until they are committed or gone: who asks for the heads waits for them.
    appending: i64,
}

/// A connection on loan; it goes back only by [`Lease::end`] with a success. Any other way, a future that was dropped
/// among them, leaves nobody knows what on its wire.
struct Lease<'a> {
    repository: &'a PostgresRepository,
    connection: Option<PoolConnection<sqlx::Postgres>>,
}

impl Lease<'_> {
    fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is given back only when the lease ends")
    }

    async fn end<T>(mut self, result: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        if result.is_ok()
            && let Some(mut connection) = self.connection.take()
        {
            // A plain drop would do the same in the background, and without an end if the network is gone by then.
            let _ = tokio::time::timeout(self.repository.limits.answer, connection.return_to_pool()).await;
        }
        result
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl PostgresRepository {
    /// Connects and brings the schema up to date. Any number of nodes may do so at the same time.
    pub async fn open(url: &SecretString, pool_size: u32) -> Result<Self, RepositoryError> {
        Self::open_within(url, pool_size, Limits::default()).await
    }

    /// [`PostgresRepository::open`] with other limits.
    pub async fn open_within(url: &SecretString, pool_size: u32, limits: Limits) -> Result<Self, RepositoryError> {
        let options = PgConnectOptions::from_str(url.expose_secret())
            .map_err(|source| RepositoryError::Open { place: "of DATABASE_URL".to_owned(), source })?
            .application_name("tandem")
            // Statements are ours and many; telemetry counts them where they mean something.
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
        // Without a goodbye the server learns of it all the same.
        let _ = tokio::time::timeout(limits.connect, first.close()).await;
        let pool = pool(pool_size, limits).connect_lazy_with(options);
        Ok(Self { pool, place, limits, appending: rand::random() })
    }

    async fn lease(&self) -> Result<Lease<'_>, RepositoryError> {
        let connection = self.pool.acquire().await.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => {
                RepositoryError::Silent { place: self.place.clone(), after: self.limits.connect }
            }
            error => error.into(),
        })?;
        Ok(Lease { repository: self, connection: Some(connection) })
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
        let work =
            async move |connection: &mut PgConnection| short_links::resolve(connection, short, now, expires).await;
        Box::pin(self.with(self.limits.answer, work))
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, RepositoryError>> {
        let work = async move |connection: &mut PgConnection| short_links::recall(connection, short).await;
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

fn pool(size: u32, limits: Limits) -> PgPoolOptions {
    let millis = limits.answer.as_millis();
    // The server gives up too, or what nobody waits for any more would keep its locks. As statements and not as options
    // of the connection, which poolers in between don't take.
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

/// sqlx takes an advisory lock of the server for it: of nodes that start together one migrates, the others wait.
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
