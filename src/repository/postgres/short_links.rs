//! Short links: one for a room. Askers of one room, on whatever node, take turns at a lock of the server.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use crate::domain::{RoomId, RoomTime, ShortId};
use crate::repository::RepositoryError;
use crate::repository::columns::{corrupt, room_id, short_id};
use crate::repository::short_links::{DRAWS, FRESH, KEEP, RECALL, RENEW_AFTER, RESOLVE, TAKE};

/// Tells the locks of links from other advisory locks; the second half is the room's hash.
const LINKS: i32 = 0x7464_6c6b;

pub(super) async fn make(
    connection: &mut PgConnection,
    room: &RoomId,
    now: RoomTime,
    expires: RoomTime,
    mut draw: impl FnMut() -> ShortId + Send,
) -> Result<ShortId, RepositoryError> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(LINKS)
        .bind(room.as_str())
        .execute(&mut *tx)
        .await?;
    let kept = sqlx::query(KEEP).bind(expires.as_micros()).bind(room.as_str()).fetch_optional(&mut *tx).await?;
    if let Some(row) = kept {
        let short = short_id(row.try_get(0).map_err(corrupt("short id"))?)?;
        tx.commit().await?;
        return Ok(short);
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

pub(super) async fn resolve(
    connection: &mut PgConnection,
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
pub(super) async fn recall(connection: &mut PgConnection, short: &ShortId) -> Result<Option<RoomId>, RepositoryError> {
    let row = sqlx::query(RECALL).bind(short.as_str()).fetch_optional(connection).await?;
    row.as_ref().map(room_of).transpose()
}

fn room_of(row: &PgRow) -> Result<RoomId, RepositoryError> {
    room_id(row.try_get(0).map_err(corrupt("roomId"))?)
}
