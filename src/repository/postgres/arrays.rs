//! Statements over a PostgreSQL connection. Many rows go as one array a column (`unnest`): one statement text, prepared
//! once, for any number of rows.

use std::fmt::Write;

use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{Arguments, AssertSqlSafe};

use crate::repository::RepositoryError;
use crate::repository::statement::{BulkStatement, ColumnKind, SqlConnection, SqlValue, one_statement};
use crate::repository::stored_time::StoredTime;

/// Rows of one statement: bounds the memory of both sides.
const ROWS: usize = 5_000;

impl SqlConnection for PgConnection {
    type Row = PgRow;

    const LISTED: &'static str = "room_id = ANY($1::text[])";
    // By the places of the rows: for a list of keys the planner may read the whole table.
    const PICKED: [&'static str; 2] = ["ctid = ANY(ARRAY(SELECT ctid ", " FOR UPDATE SKIP LOCKED))"];

    one_statement!(sqlx::Postgres, arguments);

    async fn bulk<const N: usize>(
        &mut self,
        statement: &BulkStatement<N>,
        rows: &[[SqlValue<'_>; N]],
    ) -> Result<(), RepositoryError> {
        let sql: std::sync::Arc<str> = sql(statement).into();
        for rows in rows.chunks(ROWS) {
            let mut arguments = PgArguments::default();
            for (index, kind) in statement.columns.iter().enumerate() {
                add_column(&mut arguments, *kind, rows.iter().map(|row| row[index])).map_err(sqlx::Error::Encode)?;
            }
            sqlx::query_with::<sqlx::Postgres, _>(AssertSqlSafe(sql.clone()), arguments).execute(&mut *self).await?;
        }
        Ok(())
    }
}

fn sql<const N: usize>(statement: &BulkStatement<N>) -> String {
    let (mut given, mut arrays, mut names) = (String::new(), String::new(), String::new());
    for (index, kind) in statement.columns.iter().enumerate() {
        let (comma, number) = (if index == 0 { "" } else { ", " }, index + 1);
        let array = match kind {
            ColumnKind::Text | ColumnKind::Json => "text[]",
            ColumnKind::Int => "bigint[]",
            ColumnKind::Real => "float8[]",
            ColumnKind::Bool => "boolean[]",
            ColumnKind::Bytes | ColumnKind::AddressId => "bytea[]",
            ColumnKind::Time => "timestamptz[]",
        };
        let _ = match kind {
            ColumnKind::Json => write!(given, "{comma}column{number}::jsonb"),
            ColumnKind::AddressId => write!(given, "{comma}(SELECT id FROM media_urls WHERE hash = column{number})"),
            _ => write!(given, "{comma}column{number}"),
        };
        let _ = write!(arrays, "{comma}${number}::{array}");
        let _ = write!(names, "{comma}column{number}");
    }
    let BulkStatement { head, tail, .. } = statement;
    format!("{head} SELECT {given} FROM unnest({arrays}) AS given ({names}) {tail}")
}

fn add_column<'a>(
    arguments: &mut PgArguments,
    kind: ColumnKind,
    values: impl Iterator<Item = SqlValue<'a>>,
) -> Result<(), sqlx::error::BoxDynError> {
    // A value of another kind than its column's is a fault of the statement: NULL, which its constraint refuses.
    macro_rules! array {
        ($kind:ident as $type:ty) => {
            array!($kind as $type, |value| value)
        };
        ($kind:ident as $type:ty, $convert:expr) => {
            arguments.add(
                values
                    .map(|value| match value {
                        SqlValue::$kind(value) => Some($convert(value)),
                        _ => None,
                    })
                    .collect::<Vec<Option<$type>>>(),
            )
        };
    }
    match kind {
        ColumnKind::Text | ColumnKind::Json => array!(Text as &str),
        ColumnKind::Int => array!(Int as i64),
        ColumnKind::Real => array!(Real as f64),
        ColumnKind::Bool => array!(Bool as bool),
        ColumnKind::Bytes | ColumnKind::AddressId => array!(Bytes as &[u8]),
        ColumnKind::Time => array!(Time as StoredTime, StoredTime::of),
    }
}

fn arguments(values: &[SqlValue<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        match *value {
            SqlValue::Null => arguments.add(None::<&str>),
            SqlValue::Text(text) => arguments.add(text),
            SqlValue::Int(number) => arguments.add(number),
            SqlValue::Real(number) => arguments.add(number),
            SqlValue::Bool(is_so) => arguments.add(is_so),
            SqlValue::Bytes(bytes) => arguments.add(bytes),
            SqlValue::Time(at) => arguments.add(StoredTime::of(at)),
            SqlValue::Texts(texts) => arguments.add(texts),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}
