//! Short links, one for a room. The caller must serialise [`make`] for one room.

use std::time::Duration;

use super::RepositoryError;
use super::columns::{room_id, short_id};
use super::statement::{SqlConnection, SqlRow, SqlValue};
use crate::domain::{RoomId, RoomTime, ShortId};

/// A link that is followed often is written at most once in this time: anybody may follow one.
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// Of 36^7 = 78 billion ids, this many random ones in a row are never all taken by chance.
const DRAWS: usize = 32;

/// The link of a room, made if there is none; its life starts anew. Runs in a transaction that the caller has begun,
/// and must roll back when this fails.
pub(super) async fn make(
    connection: &mut impl SqlConnection,
    room: &RoomId,
    now: RoomTime,
    expires: RoomTime,
    mut draw: impl FnMut() -> ShortId + Send,
) -> Result<ShortId, RepositoryError> {
    // A room that opens again keeps its link, expired or not.
    const KEEP: &str = "UPDATE short_links SET expires_at = $1 WHERE room_id = $2 RETURNING short_id AS id";
    // An id that is taken is left alone, unless its life is over.
    const TAKE: &str = "INSERT INTO short_links (short_id, room_id, created_at, expires_at) \
         VALUES ($1, $2, $3, $4) \
         ON CONFLICT (short_id) DO UPDATE \
         SET room_id = excluded.room_id, created_at = excluded.created_at, expires_at = excluded.expires_at \
         WHERE short_links.expires_at <= excluded.created_at";
    let text = |row: &_| SqlRow::text(row, "id", "short id");
    let kept = connection.first(KEEP, &[expires.into(), room.as_str().into()], text).await?;
    if let Some(kept) = kept.flatten() {
        return short_id(&kept);
    }
    for _ in 0..DRAWS {
        let short = draw();
        let values = [short.as_str().into(), room.as_str().into(), now.into(), expires.into()];
        if connection.run(TAKE.to_owned(), &values).await? == 1 {
            return Ok(short);
        }
    }
    Err(RepositoryError::ShortIds)
}

/// The room behind a living id; the id then lives until `expires`.
pub(super) async fn resolve(
    connection: &mut impl SqlConnection,
    short: &ShortId,
    now: RoomTime,
    expires: RoomTime,
) -> Result<Option<RoomId>, RepositoryError> {
    const FRESH: &str =
        "SELECT room_id AS id FROM short_links WHERE short_id = $1 AND expires_at > $2 AND expires_at > $3";
    const RENEW: &str =
        "UPDATE short_links SET expires_at = $1 WHERE short_id = $2 AND expires_at > $3 RETURNING room_id AS id";
    let fresh = [short.as_str().into(), now.into(), (expires - RENEW_AFTER).into()];
    match room_of(connection, FRESH, &fresh).await? {
        Some(room) => Ok(Some(room)),
        None => room_of(connection, RENEW, &[expires.into(), short.as_str().into(), now.into()]).await,
    }
}

/// The room that an id stood for, expired or not, until the row is pruned.
pub(super) async fn recall(
    connection: &mut impl SqlConnection,
    short: &ShortId,
) -> Result<Option<RoomId>, RepositoryError> {
    const RECALL: &str = "SELECT room_id AS id FROM short_links WHERE short_id = $1";
    room_of(connection, RECALL, &[short.as_str().into()]).await
}

async fn room_of(
    connection: &mut impl SqlConnection,
    sql: &str,
    values: &[SqlValue<'_>],
) -> Result<Option<RoomId>, RepositoryError> {
    let room = connection.first(sql, values, |row| row.text("id", "roomId")).await?;
    room.flatten().as_deref().map(room_id).transpose()
}
