//! What is asked of the tables about rooms, and the history.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::columns::{self, signed};
use super::details;
use super::statement::{SqlConnection, SqlRow, SqlValue};
use super::{EventRow, RepositoryError};
use crate::commit::Snapshot;
use crate::domain::{Head, RoomId, RoomTime};

pub(super) async fn heads<C: SqlConnection>(
    connection: &mut C,
    ids: &[&str],
) -> Result<BTreeMap<RoomId, Head>, RepositoryError> {
    // An epoch of -1 is a place that an append to PostgreSQL has just made for itself.
    let sql = format!("SELECT room_id, epoch, seq FROM rooms WHERE {} AND epoch <> -1", C::LISTED);
    let mut heads = BTreeMap::new();
    let visit = |row: &C::Row| {
        heads.insert(room_id(row)?, head(row)?);
        Ok(())
    };
    connection.each(sql, &[SqlValue::Texts(ids)], visit).await?;
    Ok(heads)
}

pub(super) async fn latest(connection: &mut impl SqlConnection) -> Result<Option<RoomTime>, RepositoryError> {
    let sql = "SELECT max(updated_at) AS latest FROM rooms";
    Ok(connection.first(sql, &[], |row| row.time("latest")).await?.flatten())
}

/// Rooms that have not ended. A row that can't be read is left out, and an error is logged: one broken room must not
/// keep the others from coming back.
pub(super) async fn live<C: SqlConnection>(connection: &mut C) -> Result<Vec<Snapshot>, RepositoryError> {
    // One statement sees one moment of the database.
    const SQL: &str = "SELECT room_id, epoch, seq, field, value FROM rooms LEFT JOIN room_fields USING (room_id) \
                       WHERE archived_at IS NULL ORDER BY room_id";
    let mut rooms: Vec<Snapshot> = Vec::new();
    let visit = |row: &C::Row| {
        let (room, head) = match (room_id(row), head(row)) {
            (Ok(room), Ok(head)) => (room, head),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(%error, "a stored room is left out");
                return Ok(());
            }
        };
        if rooms.last().is_none_or(|last| last.room != room) {
            rooms.push(Snapshot { room, head, fields: BTreeMap::new() });
        }
        if let (Some(field), Some(last)) = (row.text("field", "field name")?, rooms.last_mut()) {
            last.fields.insert(field, Bytes::from(row.bytes("value", "field value")?));
        }
        Ok(())
    };
    connection.each(SQL.to_owned(), &[], visit).await?;
    Ok(rooms)
}

pub(super) async fn events<C: SqlConnection>(
    connection: &mut C,
    room: &RoomId,
    after: Head,
    limit: u32,
) -> Result<Vec<EventRow>, RepositoryError> {
    // The CAST gives PostgreSQL's jsonb as text.
    const SQL: &str = "SELECT epoch, seq, event_type, user_id, CAST(details AS TEXT) AS details, created_at, url \
                       FROM room_events LEFT JOIN media_urls ON media_urls.id = url_id \
                       WHERE room_id = $1 AND (epoch, seq) > ($2, $3) ORDER BY epoch, seq LIMIT $4";
    let values = [
        SqlValue::Text(room.as_str()),
        SqlValue::Int(signed(after.epoch)),
        SqlValue::Int(signed(after.seq)),
        SqlValue::Int(limit.into()),
    ];
    let mut events = Vec::new();
    let visit = |row: &C::Row| {
        events.push(event(row)?);
        Ok(())
    };
    connection.each(SQL.to_owned(), &values, visit).await?;
    Ok(events)
}

pub(super) async fn ping(connection: &mut impl SqlConnection) -> Result<(), RepositoryError> {
    // Reads a page of the table; `SELECT 1` alone would not.
    connection.first("SELECT 1 FROM rooms LIMIT 1", &[], |_row| Ok(())).await.map(drop)
}

fn event(row: &impl SqlRow) -> Result<EventRow, RepositoryError> {
    let missing = |what| move || RepositoryError::Corrupt { what };
    Ok(EventRow {
        head: head(row)?,
        kind: row.text("event_type", "event_type")?.ok_or_else(missing("event_type"))?,
        user: row.text("user_id", "userId")?,
        data: details::shown(row.text("details", "event")?.ok_or_else(missing("event"))?, row.text("url", "address")?),
        at: row.time("created_at")?.ok_or_else(missing("time"))?,
    })
}

fn room_id(row: &impl SqlRow) -> Result<RoomId, RepositoryError> {
    columns::room_id(row.text("room_id", "roomId")?.as_deref().unwrap_or_default())
}

fn head(row: &impl SqlRow) -> Result<Head, RepositoryError> {
    columns::head(row.int("epoch", "head")?, row.int("seq", "head")?)
}
