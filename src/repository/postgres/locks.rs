//! Locks between the nodes that write: row locks for rooms, advisory locks for the rest.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use crate::commit::{Commit, MemberReport};
use crate::domain::{Head, RoomId, RoomTime, ShortId};
use crate::repository::statement::{SqlConnection, SqlRow, SqlValue};
use crate::repository::{RepositoryError, append, member_rows, prune, rooms, short_ids};

/// Advisory lock of the one node that prunes.
const PRUNING: i64 = 0x7461_6e64_656d_0002;
/// First half of the advisory locks of short links; the second half is the room's hash.
const LINKS: i32 = 0x7464_6c6b;
/// Rooms of one statement: bounds the memory of both sides.
const ROOMS: usize = 5_000;
/// Reports of one transaction: their rooms take no commit meanwhile.
const REPORTS: usize = 1_000;

/// Stores a batch in one transaction. `appending` is the advisory lock that [`heads_after_appends`] waits for.
pub(super) async fn append(
    connection: &mut PgConnection,
    batch: &[Commit],
    appending: i64,
) -> Result<(), RepositoryError> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(appending).execute(&mut *tx).await?;
    lock_rooms(&mut tx, &append::ids(batch)).await?;
    append::append(&mut *tx, batch).await?;
    tx.commit().await?;
    Ok(())
}

/// Locks the rows of these rooms one after the other, until the transaction ends. A room without a row gets one at an
/// epoch of -1, because a row that isn't there can't be locked, and two appenders would both find nothing.
async fn lock_rooms(connection: &mut PgConnection, ids: &[&str]) -> Result<(), RepositoryError> {
    // A conflict locks the row that is there, then finds nothing to do.
    const SQL: &str = "INSERT INTO rooms \
         (room_id, epoch, seq, \"current_time\", position_at, is_playing, guest_control, created_at, updated_at) \
         SELECT room_id, -1, 0, 0, 'epoch', false, false, 'epoch', 'epoch' FROM unnest($1::text[]) AS room_id \
         ON CONFLICT (room_id) DO UPDATE SET seq = rooms.seq WHERE false";
    for ids in ids.chunks(ROOMS) {
        connection.run(SQL.to_owned(), &[SqlValue::Texts(ids)]).await?;
    }
    Ok(())
}

/// Stores members' reports, a bounded number a transaction. Rooms that another writer has locked are passed by: waiting
/// for them in the order of the reports could be waiting in a circle, and the next report comes in a minute.
pub(super) async fn store_reports(
    connection: &mut PgConnection,
    reports: &[MemberReport],
) -> Result<(), RepositoryError> {
    const LOCK: &str = "SELECT room_id FROM rooms WHERE room_id = ANY($1::text[]) FOR NO KEY UPDATE SKIP LOCKED";
    for reports in reports.chunks(REPORTS) {
        let mut tx = connection.begin().await?;
        let mut locked = BTreeSet::new();
        let ids: Vec<&str> = reports.iter().map(|report| report.room.as_str()).collect();
        let visit = |row: &PgRow| {
            locked.extend(row.text("room_id", "roomId")?);
            Ok(())
        };
        tx.each(LOCK.to_owned(), &[SqlValue::Texts(&ids)], visit).await?;
        let ours = reports.iter().filter(|report| locked.contains(report.room.as_str()));
        member_rows::store(&mut *tx, ours).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// The heads once no append of this repository is under way. Asked when an append failed: its COMMIT may still be on
/// its way to the server, and an answer that did not wait for it would be untrue a moment later.
pub(super) async fn heads_after_appends(
    connection: &mut PgConnection,
    rooms: &[RoomId],
    appending: i64,
) -> Result<BTreeMap<RoomId, Head>, RepositoryError> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(appending).execute(&mut *tx).await?;
    let ids: Vec<&str> = rooms.iter().map(RoomId::as_str).collect();
    let heads = rooms::heads(&mut *tx, &ids).await?;
    tx.commit().await?;
    Ok(heads)
}

/// Prunes, unless another node does: then it deletes nothing and returns 0.
pub(super) async fn prune(connection: &mut PgConnection, before: RoomTime) -> Result<u64, RepositoryError> {
    // A lock of the session: each statement is a transaction of its own. If an error ends this early, the connection is
    // thrown away, and the lock with it.
    let mine: bool =
        sqlx::query("SELECT pg_try_advisory_lock($1)").bind(PRUNING).fetch_one(&mut *connection).await?.try_get(0)?;
    if !mine {
        return Ok(0);
    }
    let events = prune::prune(connection, before).await?;
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(PRUNING).execute(connection).await?;
    Ok(events)
}

/// The short link of a room. Two askers for one room, on whatever node, take turns at an advisory lock.
pub(super) async fn short_link(
    connection: &mut PgConnection,
    room: &RoomId,
    now: RoomTime,
    expires: RoomTime,
) -> Result<ShortId, RepositoryError> {
    let mut tx = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(LINKS)
        .bind(room.as_str())
        .execute(&mut *tx)
        .await?;
    let short = short_ids::make(&mut *tx, room, now, expires, ShortId::random).await?;
    tx.commit().await?;
    Ok(short)
}
