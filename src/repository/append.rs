//! The writing side: what a batch of commits makes of the tables, in a few statements however many commits. The caller
//! begins and commits the transaction, and keeps other writers off the batch's rooms until then.

use std::collections::BTreeMap;

use super::RepositoryError;
use super::columns::{finite, printable, signed};
use super::details::{Details, addresses};
use super::fold::{Change, Latest, fold};
use super::rooms;
use super::statement::{BulkStatement, ColumnKind, SqlConnection, SqlValue};
use crate::commit::Commit;
use crate::domain::{RoomId, UserId};

/// Stores a batch, in a transaction that the caller has begun.
pub(super) async fn append(connection: &mut impl SqlConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
    let stored = rooms::heads(connection, &ids(batch)).await?;
    let changes = fold(batch, &stored);
    insert_events(connection, batch).await?;
    store(connection, &changes).await
}

/// The batch's rooms, each once, sorted by bytes: in this order every node locks them.
pub(super) fn ids(batch: &[Commit]) -> Vec<&str> {
    let mut ids: Vec<&str> = batch.iter().map(|commit| commit.room.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn insert_events(connection: &mut impl SqlConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
    use ColumnKind::{AddressId, Bytes, Int, Json, Text, Time};
    const ADDRESSES: BulkStatement<3> = BulkStatement {
        head: "INSERT INTO media_urls (hash, url, used_at)",
        columns: [Bytes, Text, Time],
        tail: "ON CONFLICT (hash) DO UPDATE SET used_at = \
               CASE WHEN media_urls.used_at < excluded.used_at THEN excluded.used_at ELSE media_urls.used_at END",
    };
    const EVENTS: BulkStatement<8> = BulkStatement {
        head: "INSERT INTO room_events (room_id, epoch, seq, event_type, user_id, details, created_at, url_id)",
        columns: [Text, Int, Int, Text, Text, Json, Time, AddressId],
        tail: "ON CONFLICT (room_id, epoch, seq) DO NOTHING",
    };
    let entries = || batch.iter().flat_map(|commit| commit.entries.iter().map(|entry| (&commit.room, entry)));
    let events: Vec<_> = entries().map(|(room, entry)| (room, entry, Details::of(&entry.audit))).collect();
    // In the order of their hashes on every node: so are their rows locked.
    let used: Vec<_> = addresses(events.iter().map(|(_, entry, details)| (details, entry.at)))
        .into_iter()
        .map(|(hash, (url, used))| [SqlValue::Bytes(hash), url.into(), used.into()])
        .collect();
    connection.bulk(&ADDRESSES, &used).await?;
    let rows: Vec<_> = events
        .iter()
        .map(|(room, entry, details)| {
            [
                room.as_str().into(),
                SqlValue::Int(signed(entry.head.epoch)),
                SqlValue::Int(signed(entry.head.seq)),
                entry.kind.into(),
                entry.user.as_ref().map(UserId::as_str).into(),
                details.json.as_str().into(),
                entry.at.into(),
                details.address.as_ref().map(|address| &address.hash[..]).into(),
            ]
        })
        .collect();
    connection.bulk(&EVENTS, &rows).await
}

type Changed<'c> = (&'c RoomId, &'c Change<'c>, &'c Latest<'c>);

async fn store(
    connection: &mut impl SqlConnection,
    changes: &BTreeMap<&RoomId, Change<'_>>,
) -> Result<(), RepositoryError> {
    use ColumnKind::{Text, Time};
    const CLEAR: BulkStatement<1> =
        BulkStatement { head: "DELETE FROM room_fields WHERE room_id IN (", columns: [Text], tail: ")" };
    const LEFT: BulkStatement<2> = BulkStatement {
        head: "UPDATE users SET left_at = gone.column2, updated_at = gone.column2, is_connected = false FROM (",
        columns: [Text, Time],
        tail: ") AS gone WHERE users.room_id = gone.column1 AND users.left_at IS NULL",
    };
    const EXPIRE: BulkStatement<2> = BulkStatement {
        head: "UPDATE short_links SET expires_at = gone.column2 FROM (",
        columns: [Text, Time],
        tail: ") AS gone WHERE short_links.room_id = gone.column1 AND short_links.expires_at > gone.column2",
    };
    let changed: Vec<Changed<'_>> =
        changes.iter().filter_map(|(room, change)| Some((*room, change, change.latest.as_ref()?))).collect();
    store_rooms(connection, &changed).await?;
    let cleared: Vec<_> =
        changed.iter().filter(|(_, change, _)| change.clear).map(|(room, ..)| [room.as_str().into()]).collect();
    connection.bulk(&CLEAR, &cleared).await?;
    let emptied: Vec<_> =
        changed.iter().filter_map(|(room, change, _)| Some([room.as_str().into(), change.emptied?.into()])).collect();
    connection.bulk(&LEFT, &emptied).await?;
    connection.bulk(&EXPIRE, &emptied).await?;
    store_fields(connection, &changed).await?;
    store_users(connection, &changed).await
}

async fn store_rooms(connection: &mut impl SqlConnection, changed: &[Changed<'_>]) -> Result<(), RepositoryError> {
    use ColumnKind::{Bool, Int, Real, Text, Time};
    const ROOMS: BulkStatement<12> = BulkStatement {
        head: "INSERT INTO rooms (room_id, epoch, seq, host_user_id, current_url, \"current_time\", position_at, \
               is_playing, guest_control, created_at, updated_at, archived_at)",
        columns: [Text, Int, Int, Text, Text, Real, Time, Bool, Bool, Time, Time, Time],
        tail: "ON CONFLICT (room_id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, \
               host_user_id = excluded.host_user_id, current_url = excluded.current_url, \
               \"current_time\" = excluded.\"current_time\", position_at = excluded.position_at, \
               is_playing = excluded.is_playing, guest_control = excluded.guest_control, \
               updated_at = excluded.updated_at, archived_at = excluded.archived_at, \
               created_at = CASE WHEN excluded.epoch > rooms.epoch THEN excluded.created_at ELSE rooms.created_at END",
    };
    let urls: Vec<_> = changed.iter().map(|(_, _, latest)| latest.row.url.as_deref().map(printable)).collect();
    let rows: Vec<_> = changed
        .iter()
        .zip(&urls)
        .map(|((room, change, latest), url)| {
            let (head, row) = (change.head.unwrap_or_default(), latest.row);
            [
                room.as_str().into(),
                SqlValue::Int(signed(head.epoch)),
                SqlValue::Int(signed(head.seq)),
                row.host.as_ref().map(UserId::as_str).into(),
                url.as_deref().into(),
                SqlValue::Real(finite(row.position)),
                row.at.into(),
                SqlValue::Bool(row.playing),
                SqlValue::Bool(row.guest_control),
                latest.since.into(),
                latest.updated.into(),
                row.ended.then_some(latest.updated).into(),
            ]
        })
        .collect();
    connection.bulk(&ROOMS, &rows).await
}

async fn store_fields(connection: &mut impl SqlConnection, changed: &[Changed<'_>]) -> Result<(), RepositoryError> {
    use ColumnKind::{Bytes, Text};
    const DROP: BulkStatement<2> =
        BulkStatement { head: "DELETE FROM room_fields WHERE (room_id, field) IN (", columns: [Text, Text], tail: ")" };
    const SET: BulkStatement<3> = BulkStatement {
        head: "INSERT INTO room_fields (room_id, field, value)",
        columns: [Text, Text, Bytes],
        tail: "ON CONFLICT (room_id, field) DO UPDATE SET value = excluded.value",
    };
    let (mut set, mut dropped) = (Vec::new(), Vec::new());
    for (room, change, _) in changed {
        for (field, value) in &change.fields {
            match value {
                Some(value) => set.push([room.as_str().into(), (*field).into(), SqlValue::Bytes(value)]),
                None if change.clear => {}
                None => dropped.push([room.as_str().into(), (*field).into()]),
            }
        }
    }
    connection.bulk(&DROP, &dropped).await?;
    connection.bulk(&SET, &set).await
}

async fn store_users(connection: &mut impl SqlConnection, changed: &[Changed<'_>]) -> Result<(), RepositoryError> {
    use ColumnKind::{Bool, Int, Text, Time};
    // Reports of an earlier membership are none of this one's.
    const USERS: BulkStatement<8> = BulkStatement {
        head: "INSERT INTO users (room_id, user_id, username, slot, is_connected, created_at, updated_at, left_at)",
        columns: [Text, Text, Text, Int, Bool, Time, Time, Time],
        tail: "ON CONFLICT (room_id, user_id) DO UPDATE SET username = excluded.username, slot = excluded.slot, \
               is_connected = excluded.is_connected, created_at = excluded.created_at, \
               updated_at = excluded.updated_at, left_at = excluded.left_at, \
               position = CASE WHEN users.last_heartbeat < excluded.created_at THEN NULL ELSE users.position END, \
               is_playing = CASE WHEN users.last_heartbeat < excluded.created_at THEN NULL ELSE users.is_playing END, \
               connection_quality = CASE WHEN users.last_heartbeat < excluded.created_at THEN NULL \
                                    ELSE users.connection_quality END, \
               last_heartbeat = CASE WHEN users.last_heartbeat < excluded.created_at THEN NULL \
                                ELSE users.last_heartbeat END",
    };
    let users: Vec<_> = changed
        .iter()
        .flat_map(|(room, change, _)| change.users.values().map(move |(user, updated)| (*room, user, *updated)))
        .map(|(room, user, updated)| (room, user, updated, printable(&user.name)))
        .collect();
    let rows: Vec<_> = users
        .iter()
        .map(|(room, user, updated, name)| {
            [
                room.as_str().into(),
                user.user.as_str().into(),
                (&**name).into(),
                SqlValue::Int(user.slot.into()),
                SqlValue::Bool(user.connected),
                user.joined_at.into(),
                (*updated).into(),
                user.left_at.into(),
            ]
        })
        .collect();
    connection.bulk(&USERS, &rows).await
}
