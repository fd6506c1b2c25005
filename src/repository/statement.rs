//! What both databases run alike: one statement text, values, and rows, over either connection.

use std::future::Future;

use super::RepositoryError;
use super::columns::corrupt;
use super::stored_time::StoredTime;
use crate::domain::RoomTime;

/// A value on its way into a statement.
#[derive(Debug, Clone, Copy)]
pub(super) enum SqlValue<'a> {
    /// Only in a [`BulkStatement`], which knows the column's type.
    Null,
    Text(&'a str),
    Int(i64),
    Real(f64),
    Bool(bool),
    Bytes(&'a [u8]),
    Time(RoomTime),
    /// Texts, for [`SqlConnection::LISTED`].
    Texts(&'a [&'a str]),
}

impl<'a, T: Into<Self>> From<Option<T>> for SqlValue<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a> From<&'a str> for SqlValue<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for SqlValue<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<RoomTime> for SqlValue<'_> {
    fn from(at: RoomTime) -> Self {
        Self::Time(at)
    }
}

/// A column of a [`BulkStatement`].
#[derive(Debug, Clone, Copy)]
pub(super) enum ColumnKind {
    Text,
    Int,
    Real,
    Bool,
    Bytes,
    Time,
    /// JSON text.
    Json,
    /// The hash of an address, which becomes its id in `media_urls`.
    AddressId,
}

/// A statement about many rows: `{head} <the rows> {tail}`. In `tail` the rows' columns are `column1`, `column2` …
#[derive(Debug)]
pub(super) struct BulkStatement<const N: usize> {
    pub(super) head: &'static str,
    pub(super) columns: [ColumnKind; N],
    pub(super) tail: &'static str,
}

/// A row that a query found. Each method names the column, and what it should hold for [`RepositoryError::Corrupt`].
pub(super) trait SqlRow {
    fn text(&self, column: &'static str, what: &'static str) -> Result<Option<String>, RepositoryError>;
    fn int(&self, column: &'static str, what: &'static str) -> Result<i64, RepositoryError>;
    fn bytes(&self, column: &'static str, what: &'static str) -> Result<Vec<u8>, RepositoryError>;
    fn time(&self, column: &'static str) -> Result<Option<RoomTime>, RepositoryError>;
}

/// One connection of either database.
pub(super) trait SqlConnection: Send {
    type Row: SqlRow;

    /// The condition that the column `room_id` is one of the texts `$1`.
    const LISTED: &'static str;
    /// Before and behind a subquery `FROM …`: the condition that it picks this row. In PostgreSQL it passes by rows
    /// that another transaction has locked.
    const PICKED: [&'static str; 2];

    /// Runs a query; `visit` sees each row.
    fn each(
        &mut self,
        sql: String,
        values: &[SqlValue<'_>],
        visit: impl FnMut(&Self::Row) -> Result<(), RepositoryError> + Send,
    ) -> impl Future<Output = Result<(), RepositoryError>> + Send;

    /// Runs a statement; returns the number of rows that it changed.
    fn run(
        &mut self,
        sql: String,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<u64, RepositoryError>> + Send;

    /// Runs a statement about these rows, in their order; none at all if there are none.
    fn bulk<const N: usize>(
        &mut self,
        statement: &BulkStatement<N>,
        rows: &[[SqlValue<'_>; N]],
    ) -> impl Future<Output = Result<(), RepositoryError>> + Send;

    /// The value of the first row, if there is a row.
    fn first<T: Send>(
        &mut self,
        sql: &str,
        values: &[SqlValue<'_>],
        read: impl Fn(&Self::Row) -> Result<T, RepositoryError> + Send + Sync,
    ) -> impl Future<Output = Result<Option<T>, RepositoryError>> + Send {
        async move {
            let mut found = None;
            let visit = |row: &Self::Row| {
                if found.is_none() {
                    found = Some(read(row)?);
                }
                Ok(())
            };
            self.each(sql.to_owned(), values, visit).await?;
            Ok(found)
        }
    }
}

/// The parts of [`SqlConnection`] that read the same for both drivers, whose types have no trait in common that says
/// so. `$values` turns values into the driver's arguments.
macro_rules! one_statement {
    ($database:ty, $values:path) => {
        async fn each(
            &mut self,
            sql: String,
            values: &[SqlValue<'_>],
            mut visit: impl FnMut(&Self::Row) -> Result<(), RepositoryError> + Send,
        ) -> Result<(), RepositoryError> {
            let query = sqlx::query_with::<$database, _>(sqlx::AssertSqlSafe(sql), $values(values)?);
            let mut rows = query.fetch(self);
            while let Some(row) = futures_util::TryStreamExt::try_next(&mut rows).await? {
                visit(&row)?;
            }
            Ok(())
        }

        async fn run(&mut self, sql: String, values: &[SqlValue<'_>]) -> Result<u64, RepositoryError> {
            let query = sqlx::query_with::<$database, _>(sqlx::AssertSqlSafe(sql), $values(values)?);
            Ok(query.execute(self).await?.rows_affected())
        }
    };
}

macro_rules! row_of {
    ($row:ty) => {
        impl SqlRow for $row {
            fn text(&self, column: &'static str, what: &'static str) -> Result<Option<String>, RepositoryError> {
                sqlx::Row::try_get(self, column).map_err(corrupt(what))
            }

            fn int(&self, column: &'static str, what: &'static str) -> Result<i64, RepositoryError> {
                sqlx::Row::try_get(self, column).map_err(corrupt(what))
            }

            fn bytes(&self, column: &'static str, what: &'static str) -> Result<Vec<u8>, RepositoryError> {
                sqlx::Row::try_get(self, column).map_err(corrupt(what))
            }

            fn time(&self, column: &'static str) -> Result<Option<RoomTime>, RepositoryError> {
                let stored: Option<StoredTime> = sqlx::Row::try_get(self, column).map_err(corrupt("time"))?;
                Ok(stored.map(StoredTime::room_time))
            }
        }
    };
}

row_of!(sqlx::postgres::PgRow);
row_of!(sqlx::sqlite::SqliteRow);

pub(super) use one_statement;
