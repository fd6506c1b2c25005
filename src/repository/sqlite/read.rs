//! What is asked of the database.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{Row, SqliteExecutor};

use super::json_list;
use crate::commit::Snapshot;
use crate::domain::{Head, RoomId, RoomTime};
use crate::repository::addresses;
use crate::repository::columns::{self, corrupt, head, signed};
use crate::repository::{EventRow, RepositoryError};

pub(super) async fn heads<'a>(
    connection: &mut SqliteConnection,
    rooms: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<RoomId, Head>, RepositoryError> {
    const SQL: &str = "SELECT room_id, epoch, seq FROM rooms WHERE room_id IN (SELECT value FROM json_each(?))";
    let rows = sqlx::query(SQL).bind(json_list(rooms)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((room_id(row)?, row_head(row)?))).collect()
}

pub(super) async fn latest(readers: &SqlitePool) -> Result<Option<RoomTime>, RepositoryError> {
    let micros: Option<i64> = sqlx::query_scalar("SELECT max(updated_at) FROM rooms").fetch_one(readers).await?;
    Ok(micros.map(RoomTime::from_micros))
}

pub(super) async fn live_rooms(readers: &SqlitePool) -> Result<Vec<Snapshot>, RepositoryError> {
    // One statement sees one moment of the database.
    const SQL: &str = "SELECT room_id, epoch, seq, field, value FROM rooms LEFT JOIN room_fields USING (room_id) \
                       WHERE archived_at IS NULL ORDER BY room_id";
    let mut rows = sqlx::query(SQL).fetch(readers);
    let mut rooms: Vec<Snapshot> = Vec::new();
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
    Ok(rooms)
}

pub(super) async fn events(
    readers: &SqlitePool,
    room: &RoomId,
    after: Head,
    limit: u32,
) -> Result<Vec<EventRow>, RepositoryError> {
    const SQL: &str = "SELECT epoch, seq, kind, user_id, data, created_at, url FROM room_events \
                       LEFT JOIN media_urls ON media_urls.id = url_id \
                       WHERE room_id = ? AND (epoch, seq) > (?, ?) ORDER BY epoch, seq LIMIT ?";
    let rows = sqlx::query(SQL)
        .bind(room.as_str())
        .bind(signed(after.epoch))
        .bind(signed(after.seq))
        .bind(limit)
        .fetch_all(readers)
        .await?;
    rows.iter().map(event).collect()
}

pub(super) async fn ping(executor: impl SqliteExecutor<'_>) -> Result<(), RepositoryError> {
    // Reads a page of the file; `SELECT 1` would not.
    sqlx::query("SELECT 1 FROM rooms LIMIT 1").fetch_optional(executor).await?;
    Ok(())
}

fn event(row: &SqliteRow) -> Result<EventRow, RepositoryError> {
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

fn room_id(row: &SqliteRow) -> Result<RoomId, RepositoryError> {
    let text: &str = row.try_get("room_id").map_err(corrupt("roomId"))?;
    columns::room_id(text)
}

fn row_head(row: &SqliteRow) -> Result<Head, RepositoryError> {
    let epoch = row.try_get("epoch").map_err(corrupt("head"))?;
    let seq = row.try_get("seq").map_err(corrupt("head"))?;
    head(epoch, seq)
}
