//! The bound of the file (`MAX_DATABASE_MB`): before a batch that would come near it, the oldest history goes.

use sqlx::sqlite::SqliteConnection;

use super::transaction;
use crate::domain::RoomTime;
use crate::repository::statement::{SqlConnection, SqlRow};
use crate::repository::{RepositoryError, prune};

/// Chunks of one call: more than one batch of commits brings in.
const CHUNKS: u32 = 16;

/// Deletes the oldest of what is history (events, ended rooms, members that left) until no more than `most` bytes are
/// in use. Returns how many events went.
pub(super) async fn make_room(connection: &mut SqliteConnection, most: u64) -> Result<u64, RepositoryError> {
    // The moment up to which a chunk of the oldest rows of a table reaches; of several tables the earliest.
    const CUT: &str = "SELECT min(cut) AS cut FROM ( \
         SELECT max(created_at) AS cut FROM (SELECT created_at FROM room_events ORDER BY created_at LIMIT 2000) UNION ALL \
         SELECT max(archived_at) FROM (SELECT archived_at FROM rooms WHERE archived_at IS NOT NULL \
             ORDER BY archived_at LIMIT 2000) UNION ALL \
         SELECT max(left_at) FROM (SELECT left_at FROM users WHERE left_at IS NOT NULL ORDER BY left_at LIMIT 2000))";
    let mut events = 0;
    for _ in 0..CHUNKS {
        if bytes_in_use(connection).await? <= most {
            break;
        }
        let Some(cut) = connection.first(CUT, &[], |row| row.time("cut")).await?.flatten() else { break };
        let behind = RoomTime::from_micros(cut.as_micros().saturating_add(1));
        events += transaction(connection, async |connection| prune::prune(connection, behind).await).await?;
    }
    Ok(events)
}

async fn bytes_in_use(connection: &mut SqliteConnection) -> Result<u64, RepositoryError> {
    const SQL: &str = "SELECT (page_count - freelist_count) * page_size \
                       FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let bytes: i64 = sqlx::query_scalar(SQL).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}
