//! Short links: one for a room. All of it runs on the one writing connection, so two askers never meet here.

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use crate::domain::{RoomId, RoomTime, ShortId};
use crate::repository::RepositoryError;
use crate::repository::columns::{corrupt, room_id, short_id};
use crate::repository::short_links::{DRAWS, FRESH, KEEP, RECALL, RENEW_AFTER, RESOLVE, TAKE};

pub(super) async fn make(
    connection: &mut SqliteConnection,
    room: &RoomId,
    now: RoomTime,
    expires: RoomTime,
    mut draw: impl FnMut() -> ShortId + Send,
) -> Result<ShortId, RepositoryError> {
    let mut tx = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    let kept = sqlx::query(KEEP).bind(expires.as_micros()).bind(room.as_str()).fetch_optional(&mut *tx).await?;
    if let Some(row) = kept {
        let text: String = row.try_get(0).map_err(corrupt("short id"))?;
        tx.commit().await?;
        return short_id(&text);
    }
    for _ in 0..DRAWS {
        let short = draw();
        let taken = sqlx::query(TAKE)
            .bind(short.as_str())
            .bind(room.as_str())
            .bind(now.as_micros())
            .bind(expires.as_micros())
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() == 1 {
            tx.commit().await?;
            return Ok(short);
        }
    }
    Err(RepositoryError::ShortIds)
}

/// The room behind a living id.
pub(super) async fn resolve(
    connection: &mut SqliteConnection,
    short: &ShortId,
    now: RoomTime,
    expires: RoomTime,
) -> Result<Option<RoomId>, RepositoryError> {
    let fresh = sqlx::query(FRESH)
        .bind(short.as_str())
        .bind(now.as_micros())
        .bind((expires - RENEW_AFTER).as_micros())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = fresh {
        return room_of(&row).map(Some);
    }
    let row = sqlx::query(RESOLVE)
        .bind(expires.as_micros())
        .bind(short.as_str())
        .bind(now.as_micros())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(room_of).transpose()
}

/// The room that an id stood for, expired or not.
pub(super) async fn recall(
    connection: &mut SqliteConnection,
    short: &ShortId,
) -> Result<Option<RoomId>, RepositoryError> {
    let row = sqlx::query(RECALL).bind(short.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(room_of).transpose()
}

fn room_of(row: &SqliteRow) -> Result<RoomId, RepositoryError> {
    room_id(row.try_get(0).map_err(corrupt("roomId"))?)
}
