//! The repositories that the contract suite runs on.

#![allow(dead_code, reason = "each test binary uses a part")]

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
    fn ask(&self, sql: &str) -> BoxFuture<'_, Vec<Option<String>>>;

    /// A column that holds a moment, as text: `2026-11-30 17:00:00.123456`.
    fn moment(&self, column: &str) -> String;

    /// The query for every comment on a table or column of the schema.
    fn comments(&self) -> &'static str;

    /// The query for tables and columns without one.
    fn uncommented(&self) -> &'static str;
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

    fn ask(&self, sql: &str) -> BoxFuture<'_, Vec<Option<String>>> {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        Box::pin(async move {
            let mut shell =
                SqliteConnection::connect(&format!("sqlite://{}/tandem.db", self.dir.path().display())).await.unwrap();
            let rows = sqlx::query(sql).fetch_all(&mut shell).await.unwrap();
            rows.iter().map(|row| row.try_get_unchecked(0).unwrap()).collect()
        })
    }

    fn moment(&self, column: &str) -> String {
        column.to_owned()
    }

    fn comments(&self) -> &'static str {
        "SELECT table_name || coalesce('.' || column_name, '') || ': ' || comment FROM schema_comments"
    }

    fn uncommented(&self) -> &'static str {
        "SELECT m.name || '.' || c.name FROM sqlite_schema AS m JOIN pragma_table_info(m.name) AS c \
         WHERE m.type = 'table' AND m.name <> '_sqlx_migrations' AND NOT EXISTS (SELECT 1 FROM schema_comments \
         WHERE table_name = m.name AND column_name = c.name AND EXISTS (SELECT 1 FROM schema_comments \
         WHERE table_name = m.name AND column_name IS NULL))"
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

    fn ask(&self, sql: &str) -> BoxFuture<'_, Vec<Option<String>>> {
        let sql = sql.to_owned();
        Box::pin(async move { self.database.ask(&sql).await })
    }
    fn moment(&self, column: &str) -> String {
        format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
    }

    fn comments(&self) -> &'static str {
        "SELECT c.relname || coalesce('.' || a.attname, '') || ': ' || d.description FROM pg_description AS d \
         JOIN pg_class AS c ON c.oid = d.objoid AND d.classoid = 'pg_class'::regclass \
         LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = d.objsubid AND d.objsubid > 0 \
         WHERE c.relnamespace = 'public'::regnamespace"
    }

    fn uncommented(&self) -> &'static str {
        "SELECT c.relname || '.' || a.attname FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid \
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_sqlx_migrations' \
         AND a.attnum > 0 AND NOT a.attisdropped \
         AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)"
    }
}
