//! What is asked of the database.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::commit::Snapshot;
use crate::domain::{Head, RoomId, RoomTime};
use crate::repository::addresses;
use crate::repository::columns::{self, corrupt, head, signed};
use crate::repository::{EventRow, RepositoryError};

/// The heads once no append of this repository is under way. Asked when an append failed: its last word, the commit, may
/// be with the server still, and an answer that did not wait for it would be untrue a moment later.
pub(super) async fn heads_after(
    connection: &mut PgConnection,
    rooms: &[RoomId],
    appending: i64,
) -> Result<BTreeMap<RoomId, Head>, RepositoryError> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(appending).execute(&mut *tx).await?;
    let ids: Vec<&str> = rooms.iter().map(RoomId::as_str).collect();
    let heads = heads(&mut tx, &ids).await?;
    tx.commit().await?;
    Ok(heads)
}

pub(super) async fn heads(
    connection: &mut PgConnection,
    rooms: &[&str],
) -> Result<BTreeMap<RoomId, Head>, RepositoryError> {
    // An epoch of -1 is a place that an append has just made for itself.
    const SQL: &str = "SELECT room_id, epoch, seq FROM rooms WHERE room_id = ANY($1::text[]) AND epoch <> -1";
    let rows = sqlx::query(SQL).bind(rooms).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((room_id(row)?, row_head(row)?))).collect()
}

pub(super) async fn latest(connection: &mut PgConnection) -> Result<Option<RoomTime>, RepositoryError> {
    let micros: Option<i64> = sqlx::query_scalar("SELECT max(updated_at) FROM rooms").fetch_one(connection).await?;
    Ok(micros.map(RoomTime::from_micros))
}

pub(super) async fn live_rooms(
    connection: &mut PgConnection,
    limit: Duration,
) -> Result<Vec<Snapshot>, RepositoryError> {
    // One statement sees one moment of the database.
    const SQL: &str = "SELECT room_id, epoch, seq, field, value FROM rooms LEFT JOIN room_fields USING (room_id) \
                       WHERE archived_at IS NULL ORDER BY room_id";
    let mut tx = connection.begin().await?;
    let longer = format!("SET LOCAL statement_timeout = {}", limit.as_millis());
    sqlx::query(AssertSqlSafe(longer)).execute(&mut *tx).await?;
    let mut rooms: Vec<Snapshot> = Vec::new();
    {
        let mut rows = sqlx::query(SQL).fetch(&mut *tx);
        while let Some(row) = rows.try_next().await? {
            // One broken row must not keep the others from coming back.
            let (room, head) = match (room_id(&row), row_head(&row)) {
                (Ok(room), Ok(head)) => (room, head),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::error!(%error, "a stored room is left out");
                    continue;
                }
            };
            if rooms.last().is_none_or(|last| last.room != room) {
                rooms.push(Snapshot { room, head, fields: BTreeMap::new() });
            }
            let field: Option<String> = row.try_get("field").map_err(corrupt("field name"))?;
            if let (Some(field), Some(last)) = (field, rooms.last_mut()) {
                let value: Vec<u8> = row.try_get("value").map_err(corrupt("field value"))?;
                last.fields.insert(field, Bytes::from(value));
            }
        }
    }
    tx.commit().await?;
    Ok(rooms)
}

pub(super) async fn events(
    connection: &mut PgConnection,
    room: &RoomId,
    after: Head,
    limit: u32,
) -> Result<Vec<EventRow>, RepositoryError> {
    // `epoch >= $2` says nothing new, but the planner skips the partitions before it only if told so.
    const SQL: &str = "SELECT epoch, seq, kind, user_id, data, created_at, url FROM room_events \
                       LEFT JOIN media_urls ON media_urls.id = url_id \
                       WHERE room_id = $1 AND epoch >= $2 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT $4";
    let rows = sqlx::query(SQL)
        .bind(room.as_str())
        .bind(signed(after.epoch))
        .bind(signed(after.seq))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter().map(event).collect()
}

pub(super) async fn ping(connection: &mut PgConnection) -> Result<(), RepositoryError> {
    sqlx::query("SELECT 1 FROM rooms LIMIT 1").fetch_optional(connection).await?;
    Ok(())
}

fn event(row: &PgRow) -> Result<EventRow, RepositoryError> {
    Ok(EventRow {
        head: row_head(row)?,
        kind: row.try_get("kind").map_err(corrupt("kind of event"))?,
        user: row.try_get("user_id").map_err(corrupt("userId"))?,
        data: addresses::give_back(
            row.try_get("data").map_err(corrupt("event"))?,
            row.try_get("url").map_err(corrupt("address"))?,
        ),
        at: RoomTime::from_micros(row.try_get("created_at").map_err(corrupt("time"))?),
    })
}

fn room_id(row: &PgRow) -> Result<RoomId, RepositoryError> {
    columns::room_id(row.try_get("room_id").map_err(corrupt("roomId"))?)
}

fn row_head(row: &PgRow) -> Result<Head, RepositoryError> {
    let epoch = row.try_get("epoch").map_err(corrupt("head"))?;
    let seq = row.try_get("seq").map_err(corrupt("head"))?;
    head(epoch, seq)
}
