//! The writing side: a whole batch in one transaction, a few statements however many commits.

use std::collections::BTreeMap;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::partitions::Partitions;
use super::{clean, read};
use crate::commit::{Commit, Entry, UserRow};
use crate::domain::{RoomId, RoomTime, UserId};
use crate::repository::RepositoryError;
use crate::repository::addresses;
use crate::repository::columns::{finite, signed};
use crate::repository::fold::{Change, Latest, fold};

/// Rows of one statement: bounds the memory of both sides.
const ROWS: usize = 5_000;

pub(super) async fn append(
    connection: &mut PgConnection,
    batch: &[Commit],
    appending: i64,
    partitions: &Partitions,
) -> Result<(), RepositoryError> {
    if batch.is_empty() {
        return Ok(());
    }
    let missing =
        partitions.missing(batch.iter().flat_map(|commit| commit.entries.iter().map(|entry| entry.head.epoch)));
    partitions.make(connection, missing).await?;
    let mut tx = connection.begin().await?;
    // See `read::heads_after`.
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(appending).execute(&mut *tx).await?;
    // Sorted, by bytes on every node: the order in which rooms are locked.
    let mut ids: Vec<&str> = batch.iter().map(|commit| commit.room.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    lock(&mut tx, &ids).await?;
    let stored = read::heads(&mut tx, &ids).await?;
    let rooms = fold(batch, &stored);
    insert_events(&mut tx, batch).await?;
    store(&mut tx, &rooms).await?;
    tx.commit().await?;
    Ok(())
}

/// Locks the rows of these rooms one after the other, until the transaction ends. One that is not there is made, at an
/// epoch of -1: an empty place can't be locked, and two appenders would both find it empty.
async fn lock(connection: &mut PgConnection, ids: &[&str]) -> Result<(), RepositoryError> {
    // A conflict locks the row that is there, then finds nothing to do.
    const SQL: &str = "INSERT INTO rooms \
         (room_id, epoch, seq, current_time_s, position_at, is_playing, guest_control, created_at, updated_at) \
         SELECT room_id, -1, 0, 0, 0, false, false, 0, 0 FROM unnest($1::text[]) AS room_id \
         ON CONFLICT (room_id) DO UPDATE SET seq = rooms.seq WHERE false";
    for ids in ids.chunks(ROWS) {
        sqlx::query(SQL).bind(ids).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn insert_events(connection: &mut PgConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
    const URLS: &str = "INSERT INTO media_urls (hash, url, used_at) \
         SELECT * FROM unnest($1::bytea[], $2::text[], $3::bigint[]) \
         ON CONFLICT (hash) DO UPDATE SET used_at = greatest(media_urls.used_at, excluded.used_at)";
    const SQL: &str = "INSERT INTO room_events (room_id, epoch, seq, kind, user_id, data, created_at, url_id) \
         SELECT room_id, epoch, seq, kind, user_id, data, created_at, media_urls.id \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[]) \
         AS new (room_id, epoch, seq, kind, user_id, data, created_at, hash) LEFT JOIN media_urls USING (hash) \
         ON CONFLICT (room_id, epoch, seq) DO NOTHING";
    // In the order of their hashes on every node: so are their rows locked.
    let urls: Vec<_> = addresses::of(batch).into_iter().collect();
    for urls in urls.chunks(ROWS) {
        sqlx::query(URLS)
            .bind(column(urls, |(hash, _)| &hash[..]))
            .bind(column(urls, |(_, (url, _))| clean(url)))
            .bind(column(urls, |(_, (_, used))| used.as_micros()))
            .execute(&mut *connection)
            .await?;
    }
    let rows: Vec<(&RoomId, &Entry)> =
        batch.iter().flat_map(|commit| commit.entries.iter().map(|entry| (&commit.room, entry))).collect();
    for rows in rows.chunks(ROWS) {
        let data = column(rows, |(_, entry)| addresses::take(&entry.audit));
        sqlx::query(SQL)
            .bind(column(rows, |(room, _)| room.as_str()))
            .bind(column(rows, |(_, entry)| signed(entry.head.epoch)))
            .bind(column(rows, |(_, entry)| signed(entry.head.seq)))
            .bind(column(rows, |(_, entry)| entry.kind))
            .bind(column(rows, |(_, entry)| entry.user.as_ref().map(UserId::as_str)))
            .bind(column(&data, |data| clean(&data.text)))
            .bind(column(rows, |(_, entry)| entry.at.as_micros()))
            .bind(column(&data, |data| data.url.as_ref().map(|(hash, _)| &hash[..])))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn store(connection: &mut PgConnection, rooms: &BTreeMap<&RoomId, Change<'_>>) -> Result<(), RepositoryError> {
    const CLEAR: &str = "DELETE FROM room_fields WHERE room_id = ANY($1::text[])";
    const LEFT: &str = "UPDATE users SET left_at = gone.at, updated_at = gone.at, is_connected = false \
         FROM unnest($1::text[], $2::bigint[]) AS gone (room_id, at) \
         WHERE users.room_id = gone.room_id AND users.left_at IS NULL";
    const EXPIRE: &str = "UPDATE short_links SET expires_at = LEAST(expires_at, gone.at) \
         FROM unnest($1::text[], $2::bigint[]) AS gone (room_id, at) WHERE short_links.room_id = gone.room_id";

    let changed: Vec<(&RoomId, &Change<'_>, &Latest<'_>)> =
        rooms.iter().filter_map(|(room, change)| Some((*room, change, change.latest.as_ref()?))).collect();
    for rows in changed.chunks(ROWS) {
        update_rooms(connection, rows).await?;
    }
    let cleared: Vec<&str> =
        changed.iter().filter(|(_, change, _)| change.clear).map(|(room, ..)| room.as_str()).collect();
    if !cleared.is_empty() {
        sqlx::query(CLEAR).bind(cleared).execute(&mut *connection).await?;
    }
    let emptied: Vec<(&str, RoomTime)> =
        changed.iter().filter_map(|(room, change, _)| Some((room.as_str(), change.emptied?))).collect();
    if !emptied.is_empty() {
        for sql in [LEFT, EXPIRE] {
            sqlx::query(sql)
                .bind(column(&emptied, |(room, _)| *room))
                .bind(column(&emptied, |(_, at)| at.as_micros()))
                .execute(&mut *connection)
                .await?;
        }
    }
    store_fields(connection, &changed).await?;
    store_users(connection, &changed).await
}

async fn update_rooms(
    connection: &mut PgConnection,
    rows: &[(&RoomId, &Change<'_>, &Latest<'_>)],
) -> Result<(), RepositoryError> {
    const SQL: &str = "UPDATE rooms SET epoch = new.epoch, seq = new.seq, host_user_id = new.host_user_id, url = new.url, \
         current_time_s = new.current_time_s, position_at = new.position_at, is_playing = new.is_playing, \
         guest_control = new.guest_control, updated_at = new.updated_at, archived_at = new.archived_at, \
         created_at = CASE WHEN new.epoch > rooms.epoch THEN new.created_at ELSE rooms.created_at END \
         FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::float8[], $7::bigint[], \
         $8::boolean[], $9::boolean[], $10::bigint[], $11::bigint[], $12::bigint[]) AS new (room_id, epoch, seq, \
         host_user_id, url, current_time_s, position_at, is_playing, guest_control, created_at, updated_at, archived_at) \
         WHERE rooms.room_id = new.room_id";
    let urls = column(rows, |(_, _, latest)| latest.row.url.as_deref().map(clean));
    sqlx::query(SQL)
        .bind(column(rows, |(room, ..)| room.as_str()))
        .bind(column(rows, |(_, change, _)| signed(change.head.unwrap_or_default().epoch)))
        .bind(column(rows, |(_, change, _)| signed(change.head.unwrap_or_default().seq)))
        .bind(column(rows, |(_, _, latest)| latest.row.host.as_ref().map(UserId::as_str)))
        .bind(column(&urls, Option::as_deref))
        .bind(column(rows, |(_, _, latest)| finite(latest.row.position)))
        .bind(column(rows, |(_, _, latest)| latest.row.at.as_micros()))
        .bind(column(rows, |(_, _, latest)| latest.row.playing))
        .bind(column(rows, |(_, _, latest)| latest.row.guest_control))
        .bind(column(rows, |(_, _, latest)| latest.since.as_micros()))
        .bind(column(rows, |(_, _, latest)| latest.updated.as_micros()))
        .bind(column(rows, |(_, _, latest)| latest.row.ended.then_some(latest.updated.as_micros())))
        .execute(connection)
        .await?;
    Ok(())
}

async fn store_fields(
    connection: &mut PgConnection,
    changed: &[(&RoomId, &Change<'_>, &Latest<'_>)],
) -> Result<(), RepositoryError> {
    const DROP: &str = "DELETE FROM room_fields USING unnest($1::text[], $2::text[]) AS gone (room_id, field) \
         WHERE room_fields.room_id = gone.room_id AND room_fields.field = gone.field";
    const SET: &str = "INSERT INTO room_fields (room_id, field, value) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[]) \
         ON CONFLICT (room_id, field) DO UPDATE SET value = excluded.value";
    let mut set = Vec::new();
    let mut dropped = Vec::new();
    for (room, change, _) in changed {
        for (field, value) in &change.fields {
            match value {
                Some(value) => set.push((room.as_str(), *field, &value[..])),
                None if change.clear => {}
                None => dropped.push((room.as_str(), *field)),
            }
        }
    }
    for rows in dropped.chunks(ROWS) {
        sqlx::query(DROP)
            .bind(column(rows, |(room, _)| *room))
            .bind(column(rows, |(_, field)| *field))
            .execute(&mut *connection)
            .await?;
    }
    for rows in set.chunks(ROWS) {
        sqlx::query(SET)
            .bind(column(rows, |(room, ..)| *room))
            .bind(column(rows, |(_, field, _)| *field))
            .bind(column(rows, |(_, _, value)| *value))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn store_users(
    connection: &mut PgConnection,
    changed: &[(&RoomId, &Change<'_>, &Latest<'_>)],
) -> Result<(), RepositoryError> {
    const SQL: &str = "INSERT INTO users \
         (room_id, user_id, username, slot, is_connected, joined_at, updated_at, left_at) \
         SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::boolean[], $6::bigint[], \
         $7::bigint[], $8::bigint[]) \
         ON CONFLICT (room_id, user_id) DO UPDATE SET username = excluded.username, slot = excluded.slot, \
         is_connected = excluded.is_connected, joined_at = excluded.joined_at, \
         updated_at = excluded.updated_at, left_at = excluded.left_at";
    let rows: Vec<(&RoomId, &(UserRow, RoomTime))> =
        changed.iter().flat_map(|(room, change, _)| change.users.values().map(move |user| (*room, user))).collect();
    for rows in rows.chunks(ROWS) {
        let names = column(rows, |(_, (user, _))| clean(&user.name));
        sqlx::query(SQL)
            .bind(column(rows, |(room, _)| room.as_str()))
            .bind(column(rows, |(_, (user, _))| user.user.as_str()))
            .bind(column(&names, |name| &**name))
            .bind(column(rows, |(_, (user, _))| i32::from(user.slot)))
            .bind(column(rows, |(_, (user, _))| user.connected))
            .bind(column(rows, |(_, (user, _))| user.joined_at.as_micros()))
            .bind(column(rows, |(_, (_, updated))| updated.as_micros()))
            .bind(column(rows, |(_, (user, _))| user.left_at.map(RoomTime::as_micros)))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Statements take their rows as one array a column: prepared once, for any number.
fn column<'r, T, C>(rows: &'r [T], of: impl Fn(&'r T) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}
