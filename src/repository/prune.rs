//! Deleting what is old, a bounded number of rows a call, so that commits never wait long for it.

use super::RepositoryError;
use super::statement::{SqlConnection, SqlValue};
use crate::domain::RoomTime;

/// Events of one call, and addresses.
const EVENTS: u64 = 10_000;
/// A room takes its fields and the rest of its users with it.
const ROOMS: i64 = 500;
const USERS: i64 = 10_000;
const LINKS: i64 = 10_000;

/// Returns how many events were deleted.
pub(super) async fn prune<C: SqlConnection>(connection: &mut C, before: RoomTime) -> Result<u64, RepositoryError> {
    let most = EVENTS.cast_signed();
    let events = delete(connection, "room_events", "created_at < $1 ORDER BY created_at", before, most).await?;
    // First the users, so that rooms take few with them.
    delete(connection, "users", "left_at < $1", before, USERS).await?;
    delete(connection, "rooms", "archived_at < $1", before, ROOMS).await?;
    delete(connection, "short_links", "expires_at < $1", before, LINKS).await?;
    if events < EVENTS {
        // No older event is left that could refer to them.
        delete(connection, "media_urls", "used_at < $1 ORDER BY used_at", before, most).await?;
    }
    Ok(events)
}

async fn delete<C: SqlConnection>(
    connection: &mut C,
    table: &'static str,
    old: &'static str,
    before: RoomTime,
    most: i64,
) -> Result<u64, RepositoryError> {
    let [picked, by] = C::PICKED;
    let sql = format!("DELETE FROM {table} WHERE {picked}FROM {table} WHERE {old} LIMIT $2{by}");
    connection.run(sql, &[before.into(), SqlValue::Int(most)]).await
}
