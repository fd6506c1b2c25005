//! Statements over an SQLite connection. Many rows go as tuples, in a few fixed sizes so that each statement is
//! prepared once. Each is a way to the connection's thread and back, so there are enough sizes for a small batch to be
//! one or two.

use std::sync::Arc;

use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe};

use crate::repository::RepositoryError;
use crate::repository::statement::{BulkStatement, ColumnKind, SqlConnection, SqlValue, one_statement};
use crate::repository::stored_time::StoredTime;

const SIZES: [usize; 11] = [64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1];

impl SqlConnection for SqliteConnection {
    type Row = SqliteRow;

    const LISTED: &'static str = "room_id IN (SELECT value FROM json_each($1))";
    const PICKED: [&'static str; 2] = ["rowid IN (SELECT rowid ", ")"];

    one_statement!(sqlx::Sqlite, arguments);

    async fn bulk<const N: usize>(
        &mut self,
        statement: &BulkStatement<N>,
        mut rows: &[[SqlValue<'_>; N]],
    ) -> Result<(), RepositoryError> {
        for size in SIZES {
            if rows.len() < size {
                continue;
            }
            let sql: Arc<str> = sql(statement, size).into();
            while let Some((now, rest)) = rows.split_at_checked(size) {
                let arguments = arguments(now.as_flattened())?;
                sqlx::query_with::<sqlx::Sqlite, _>(AssertSqlSafe(sql.clone()), arguments).execute(&mut *self).await?;
                rows = rest;
            }
        }
        Ok(())
    }
}

fn sql<const N: usize>(statement: &BulkStatement<N>, rows: usize) -> String {
    let value = |kind: &ColumnKind| match kind {
        ColumnKind::AddressId => "(SELECT id FROM media_urls WHERE hash = ?)",
        _ => "?",
    };
    let tuple = format!("({})", statement.columns.iter().map(value).collect::<Vec<_>>().join(", "));
    let BulkStatement { head, tail, .. } = statement;
    format!("{head} VALUES {tuple}{} {tail}", format!(", {tuple}").repeat(rows - 1))
}

fn arguments(values: &[SqlValue<'_>]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        match *value {
            SqlValue::Null => arguments.add(None::<&str>),
            SqlValue::Text(text) => arguments.add(text),
            SqlValue::Int(number) => arguments.add(number),
            SqlValue::Real(number) => arguments.add(number),
            SqlValue::Bool(is_so) => arguments.add(is_so),
            SqlValue::Bytes(bytes) => arguments.add(bytes.to_vec()),
            SqlValue::Time(at) => arguments.add(StoredTime::of(at)),
            // One parameter for `json_each`, however long.
            SqlValue::Texts(texts) => arguments.add(serde_json::Value::from_iter(texts.iter().copied()).to_string()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
