//! Deleting what is old: a month's partition as a whole when nothing in it is young, else a bounded number of rows.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use super::partitions::{self, Months, Partitions};
use crate::domain::RoomTime;
use crate::repository::RepositoryError;

/// The server's advisory lock of the one node that prunes.
const LOCK: i64 = 0x7461_6e64_656d_0002;
/// Bounds of one call.
const EVENTS: u64 = 10_000;
const ROOMS: i64 = 500;
const USERS: i64 = 10_000;
const LINKS: i64 = 10_000;
/// Dropping waits for nobody longer than this, because everybody would wait behind it.
const PATIENCE_MS: u32 = 500;
/// Rows that are counted exactly.
const COUNTED: i64 = 50_000;
/// SQLSTATE of a lock not had in time.
const LOCK_NOT_AVAILABLE: &str = "55P03";

pub(super) async fn prune(
    connection: &mut PgConnection,
    before: RoomTime,
    partitions: &Partitions,
) -> Result<u64, RepositoryError> {
    // Of the session, not of a transaction: partitions are dropped in transactions of their own. If an error ends this
    // early, the connection is thrown away, and the lock with it.
    let mine: bool =
        sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection).await?.try_get(0)?;
    if !mine {
        return Ok(0);
    }
    partitions.ahead(connection).await?;
    let mut deleted = 0;
    let mut tables = vec!["room_events_default".to_owned()];
    for month in partitions::all(connection).await? {
        if month.is_before(before) && !has_young(connection, month, before).await? {
            partitions.forget(month);
            if let Some(count) = drop_whole(connection, month, before).await? {
                deleted += count;
                continue;
            }
        }
        tables.push(month.table());
    }
    deleted += delete_rows(connection, before, &tables).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(connection).await?;
    Ok(deleted)
}

/// `None`: not now.
async fn drop_whole(
    connection: &mut PgConnection,
    month: Months,
    before: RoomTime,
) -> Result<Option<u64>, RepositoryError> {
    let table = month.table();
    let count = rows(connection, &table).await?;
    let mut tx = connection.begin().await?;
    // The parent first, in the order of everybody who writes.
    for sql in [
        format!("SET LOCAL lock_timeout = {PATIENCE_MS}"),
        "LOCK TABLE room_events IN ACCESS EXCLUSIVE MODE".to_owned(),
    ] {
        match sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(LOCK_NOT_AVAILABLE) => {
                tracing::debug!(table, "not dropped now: somebody uses it");
                tx.rollback().await?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Somebody may have written since.
    if has_young(&mut tx, month, before).await? {
        tx.rollback().await?;
        return Ok(None);
    }
    sqlx::query(AssertSqlSafe(format!("DROP TABLE {table}"))).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(Some(count))
}

/// How many rows a table has; of a large one about how many, by the server's statistics. Counting a month's events takes longer
/// than an answer may, and a partition that must be counted first would never be dropped.
async fn rows(connection: &mut PgConnection, table: &str) -> Result<u64, RepositoryError> {
    let count = AssertSqlSafe(format!("SELECT count(*) FROM (SELECT FROM {table} LIMIT {COUNTED}) AS counted"));
    let count: i64 = sqlx::query(count).fetch_one(&mut *connection).await?.try_get(0)?;
    if count < COUNTED {
        return Ok(count.unsigned_abs());
    }
    const ABOUT: &str = "SELECT CAST(reltuples AS BIGINT) FROM pg_class WHERE oid = to_regclass($1)";
    let about: i64 = sqlx::query(ABOUT).bind(table).fetch_one(connection).await?.try_get(0)?;
    Ok(about.max(COUNTED).unsigned_abs())
}

async fn has_young(connection: &mut PgConnection, month: Months, before: RoomTime) -> Result<bool, RepositoryError> {
    let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {} WHERE created_at >= $1)", month.table()));
    Ok(sqlx::query(sql).bind(before.as_micros()).fetch_one(connection).await?.try_get(0)?)
}

async fn delete_rows(
    connection: &mut PgConnection,
    before: RoomTime,
    tables: &[String],
) -> Result<u64, RepositoryError> {
    let before = before.as_micros();
    let mut events = 0;
    for table in tables {
        // By their places, partition by partition: the planner would read whole partitions for a list of keys.
        let sql = AssertSqlSafe(format!(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE created_at < $1 \
             ORDER BY created_at LIMIT $2))"
        ));
        let left = i64::try_from(EVENTS - events).unwrap_or(0);
        events += sqlx::query(sql).bind(before).bind(left).execute(&mut *connection).await?.rows_affected();
        if events >= EVENTS {
            break;
        }
    }
    // What an append has its hands on is not old. First the users, so that rooms take few with them.
    for (sql, limit) in [
        (
            "DELETE FROM users WHERE ctid = ANY(ARRAY(SELECT ctid FROM users WHERE left_at < $1 LIMIT $2 \
             FOR UPDATE SKIP LOCKED))",
            USERS,
        ),
        (
            "DELETE FROM rooms WHERE ctid = ANY(ARRAY(SELECT ctid FROM rooms WHERE archived_at < $1 LIMIT $2 \
             FOR UPDATE SKIP LOCKED))",
            ROOMS,
        ),
        (
            "DELETE FROM short_links WHERE ctid = ANY(ARRAY(SELECT ctid FROM short_links WHERE expires_at < $1 LIMIT $2 \
             FOR UPDATE SKIP LOCKED))",
            LINKS,
        ),
    ] {
        sqlx::query(sql).bind(before).bind(limit).execute(&mut *connection).await?;
    }
    // Nothing older is left that could refer to them.
    if events < EVENTS {
        const URLS: &str = "DELETE FROM media_urls WHERE ctid = ANY(ARRAY(SELECT ctid FROM media_urls WHERE used_at < $1 \
             ORDER BY used_at LIMIT $2 FOR UPDATE SKIP LOCKED))";
        sqlx::query(URLS).bind(before).bind(EVENTS as i64).execute(&mut *connection).await?;
    }
    Ok(events)
}
