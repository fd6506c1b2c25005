//! Short links: one for a room. All of it runs on the one writing connection, so two askers never meet here.

use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::corrupt;
use crate::domain::{RoomId, RoomTime, ShortId};
use crate::repository::RepositoryError;

/// There are 36^7 = 78 billion ids: that so many draws in a row hit living ones is no chance, something is broken.
const DRAWS: usize = 32;

pub(super) async fn make(
    connection: &mut SqliteConnection,
    room: &RoomId,
    now: RoomTime,
    expires: RoomTime,
    mut draw: impl FnMut() -> ShortId + Send,
) -> Result<ShortId, RepositoryError> {
    let mut tx = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    let kept =
        sqlx::query("UPDATE short_links SET expires_at = ? WHERE room_id = ? AND expires_at > ? RETURNING short_id")
            .bind(expires.as_micros())
            .bind(room.as_str())
            .bind(now.as_micros())
            .fetch_optional(&mut *tx)
            .await?;
    if let Some(row) = kept {
        let text: String = row.try_get(0).map_err(corrupt("short id"))?;
        tx.commit().await?;
        return ShortId::parse(&text).ok_or(RepositoryError::Corrupt { what: "short id" });
    }
    sqlx::query("DELETE FROM short_links WHERE room_id = ?").bind(room.as_str()).execute(&mut *tx).await?;
    for _ in 0..DRAWS {
        let short = draw();
        // An id that is taken is left alone, unless its life is over.
        let taken = sqlx::query(
            "INSERT INTO short_links (short_id, room_id, created_at, expires_at) VALUES (?, ?, ?, ?) \
             ON CONFLICT (short_id) DO UPDATE \
             SET room_id = excluded.room_id, created_at = excluded.created_at, expires_at = excluded.expires_at \
             WHERE short_links.expires_at <= excluded.created_at",
        )
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

/// Anybody may follow a link, so a link that is followed often is written once a minute at the most.
const RENEW_AFTER: Duration = Duration::from_secs(60);

/// The room behind a living id.
pub(super) async fn resolve(
    connection: &mut SqliteConnection,
    short: &ShortId,
    now: RoomTime,
    expires: RoomTime,
) -> Result<Option<RoomId>, RepositoryError> {
    let fresh = sqlx::query("SELECT room_id FROM short_links WHERE short_id = ? AND expires_at > ?")
        .bind(short.as_str())
        .bind((expires - RENEW_AFTER).as_micros())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = fresh {
        return room_of(&row).map(Some);
    }
    let row =
        sqlx::query("UPDATE short_links SET expires_at = ? WHERE short_id = ? AND expires_at > ? RETURNING room_id")
            .bind(expires.as_micros())
            .bind(short.as_str())
            .bind(now.as_micros())
            .fetch_optional(connection)
            .await?;
    row.as_ref().map(room_of).transpose()
}

fn room_of(row: &SqliteRow) -> Result<RoomId, RepositoryError> {
    let text: String = row.try_get(0).map_err(corrupt("roomId"))?;
    RoomId::parse(&text).map_err(|_invalid| RepositoryError::Corrupt { what: "roomId" })
}
