//! The repositories that the contract suite runs on.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::{Connection, Row, SqliteConnection};
use tandem::repository::postgres::PostgresRepository;
use tandem::repository::sqlite::SqliteRepository;
use tandem::repository::{Repository, RepositoryError};
use tempfile::TempDir;

use crate::postgres_server::Database;

/// One database, fresh, that may be opened one time after the other.
pub(crate) trait Backend: Send + Sync {
    /// Opens the database.
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Repository>, RepositoryError>>;

    /// Asks the database itself, behind the repository's back: the first column, as text.
    fn ask(&self, sql: &'static str) -> BoxFuture<'_, Vec<Option<String>>>;
}

/// A file in a directory of its own.
pub(crate) async fn sqlite() -> impl Backend {
    Sqlite { dir: tempfile::tempdir().unwrap() }
}

struct Sqlite {
    dir: TempDir,
}

impl Backend for Sqlite {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Repository>, RepositoryError>> {
        Box::pin(async { Ok(Arc::new(SqliteRepository::open(self.dir.path()).await?) as Arc<dyn Repository>) })
    }

    fn ask(&self, sql: &'static str) -> BoxFuture<'_, Vec<Option<String>>> {
        Box::pin(async move {
            let mut shell =
                SqliteConnection::connect(&format!("sqlite://{}/tandem.db", self.dir.path().display())).await.unwrap();
            let rows = sqlx::query(sql).fetch_all(&mut shell).await.unwrap();
            rows.iter().map(|row| row.try_get_unchecked(0).unwrap()).collect()
        })
    }
}

/// A database of its own on a real server.
pub(crate) async fn postgres() -> impl Backend {
    Postgres { database: Database::create().await }
}

struct Postgres {
    database: Database,
}

impl Backend for Postgres {
    fn open(&self) -> BoxFuture<'_, Result<Arc<dyn Repository>, RepositoryError>> {
        let settings = self.database.settings();
        Box::pin(async move {
            Ok(Arc::new(PostgresRepository::open(&settings.url, settings.pool_size).await?) as Arc<dyn Repository>)
        })
    }

    fn ask(&self, sql: &'static str) -> BoxFuture<'_, Vec<Option<String>>> {
        Box::pin(self.database.ask(sql))
    }
}
