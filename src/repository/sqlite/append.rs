//! The writing side: a whole batch in one transaction, few statements however many commits, and pruning.

use std::collections::BTreeMap;

use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, Sqlite};

use super::{json_list, read};
use crate::commit::{Commit, Entry, UserRow};
use crate::domain::{RoomId, RoomTime, UserId};
use crate::repository::RepositoryError;
use crate::repository::addresses;
use crate::repository::columns::{finite, signed};
use crate::repository::fold::{Change, Latest, fold};

pub(super) async fn append(connection: &mut SqliteConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
    // IMMEDIATE: the writer's lock first, so that nothing read below can be out of date when we write.
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let stored = read::heads(&mut tx, batch.iter().map(|commit| commit.room.as_str())).await?;
    let rooms = fold(batch, &stored);
    insert_events(&mut tx, batch).await?;
    store(&mut tx, &rooms).await?;
    tx.commit().await?;
    Ok(())
}

async fn insert_events(connection: &mut SqliteConnection, batch: &[Commit]) -> Result<(), RepositoryError> {
    const URLS: Bulk = Bulk {
        head: "INSERT INTO media_urls (hash, url, used_at) VALUES ",
        tuple: "(?, ?, ?)",
        tail: " ON CONFLICT (hash) DO UPDATE SET used_at = max(used_at, excluded.used_at)",
    };
    const EVENTS: Bulk = Bulk {
        head: "INSERT INTO room_events (room_id, epoch, seq, kind, user_id, data, created_at, url_id) VALUES ",
        tuple: "(?, ?, ?, ?, ?, ?, ?, (SELECT id FROM media_urls WHERE hash = ?))",
        tail: " ON CONFLICT (room_id, epoch, seq) DO NOTHING",
    };
    let urls: Vec<_> = addresses::of(batch).into_iter().collect();
    let bind = |query: Query, (hash, (url, used)): &(addresses::Hash, (String, RoomTime))| {
        query.bind(hash.to_vec()).bind(url.clone()).bind(used.as_micros())
    };
    URLS.run(connection, &urls, bind).await?;
    let rows: Vec<(&RoomId, &Entry)> =
        batch.iter().flat_map(|commit| commit.entries.iter().map(|entry| (&commit.room, entry))).collect();
    let bind = |query: Query, (room, entry): &(&RoomId, &Entry)| {
        let data = addresses::take(&entry.audit);
        query
            .bind(room.as_str())
            .bind(signed(entry.head.epoch))
            .bind(signed(entry.head.seq))
            .bind(entry.kind)
            .bind(entry.user.as_ref().map(UserId::as_str))
            .bind(data.text)
            .bind(entry.at.as_micros())
            .bind(data.url.map(|(hash, _)| hash.to_vec()))
    };
    EVENTS.run(connection, &rows, bind).await
}

async fn store(
    connection: &mut SqliteConnection,
    rooms: &BTreeMap<&RoomId, Change<'_>>,
) -> Result<(), RepositoryError> {
    const ROOMS: Bulk = Bulk {
        head: "INSERT INTO rooms (room_id, epoch, seq, host_user_id, url, current_time_s, position_at, is_playing, \
               guest_control, created_at, updated_at, archived_at) VALUES ",
        tuple: "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        tail: " ON CONFLICT (room_id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, \
               host_user_id = excluded.host_user_id, url = excluded.url, current_time_s = excluded.current_time_s, \
               position_at = excluded.position_at, is_playing = excluded.is_playing, \
               guest_control = excluded.guest_control, updated_at = excluded.updated_at, \
               archived_at = excluded.archived_at, \
               created_at = CASE WHEN excluded.epoch > rooms.epoch THEN excluded.created_at ELSE rooms.created_at END",
    };
    const DROP_FIELDS: Bulk =
        Bulk { head: "DELETE FROM room_fields WHERE (room_id, field) IN (VALUES ", tuple: "(?, ?)", tail: ")" };
    const FIELDS: Bulk = Bulk {
        head: "INSERT INTO room_fields (room_id, field, value) VALUES ",
        tuple: "(?, ?, ?)",
        tail: " ON CONFLICT (room_id, field) DO UPDATE SET value = excluded.value",
    };
    const USERS: Bulk = Bulk {
        head: "INSERT INTO users (room_id, user_id, username, slot, is_connected, joined_at, updated_at, left_at) VALUES ",
        tuple: "(?, ?, ?, ?, ?, ?, ?, ?)",
        tail: " ON CONFLICT (room_id, user_id) DO UPDATE SET username = excluded.username, slot = excluded.slot, \
               is_connected = excluded.is_connected, joined_at = excluded.joined_at, \
               updated_at = excluded.updated_at, left_at = excluded.left_at",
    };
    const EXPIRE: &str = "UPDATE short_links SET expires_at = min(expires_at, ?) WHERE room_id = ?";
    const LEFT: &str =
        "UPDATE users SET left_at = ?1, updated_at = ?1, is_connected = 0 WHERE room_id = ?2 AND left_at IS NULL";

    let changed = || rooms.iter().filter_map(|(room, change)| Some((*room, change, change.latest.as_ref()?)));
    let rows: Vec<_> = changed().collect();
    let bind = |query: Query, (room, change, latest): &(&RoomId, &Change<'_>, &Latest<'_>)| {
        let head = change.head.unwrap_or_default();
        query
            .bind(room.as_str())
            .bind(signed(head.epoch))
            .bind(signed(head.seq))
            .bind(latest.row.host.as_ref().map(UserId::as_str))
            .bind(latest.row.url.as_deref())
            .bind(finite(latest.row.position))
            .bind(latest.row.at.as_micros())
            .bind(latest.row.playing)
            .bind(latest.row.guest_control)
            .bind(latest.since.as_micros())
            .bind(latest.updated.as_micros())
            .bind(latest.row.ended.then_some(latest.updated.as_micros()))
    };
    ROOMS.run(connection, &rows, bind).await?;

    delete_of(connection, "DELETE FROM room_fields WHERE room_id IN (SELECT value FROM json_each(?))", || {
        changed().filter(|(_, change, _)| change.clear).map(|(room, _, _)| room)
    })
    .await?;
    for (room, change, _) in changed() {
        if let Some(at) = change.emptied {
            for sql in [LEFT, EXPIRE] {
                sqlx::query(sql).bind(at.as_micros()).bind(room.as_str()).execute(&mut *connection).await?;
            }
        }
    }

    let mut set = Vec::new();
    let mut dropped = Vec::new();
    for (room, change, _) in changed() {
        for (field, value) in &change.fields {
            match value {
                Some(value) => set.push((room, *field, *value)),
                None if change.clear => {}
                None => dropped.push((room, *field)),
            }
        }
    }
    DROP_FIELDS.run(connection, &dropped, |query, (room, field)| query.bind(room.as_str()).bind(*field)).await?;
    FIELDS
        .run(connection, &set, |query, (room, field, value)| query.bind(room.as_str()).bind(*field).bind(&value[..]))
        .await?;

    let users: Vec<_> =
        changed().flat_map(|(room, change, _)| change.users.values().map(move |user| (room, user))).collect();
    let bind = |query: Query, (room, (user, updated)): &(&RoomId, &(UserRow, RoomTime))| {
        query
            .bind(room.as_str())
            .bind(user.user.as_str())
            .bind(user.name.as_str())
            .bind(user.slot)
            .bind(user.connected)
            .bind(user.joined_at.as_micros())
            .bind(updated.as_micros())
            .bind(user.left_at.map(RoomTime::as_micros))
    };
    USERS.run(connection, &users, bind).await
}

async fn delete_of<'a, I: Iterator<Item = &'a RoomId>>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    rooms: impl Fn() -> I,
) -> Result<(), RepositoryError> {
    if rooms().next().is_some() {
        sqlx::query(sql).bind(json_list(rooms().map(RoomId::as_str))).execute(connection).await?;
    }
    Ok(())
}

type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// A statement for many rows, in a few fixed sizes so that each is prepared once. Each statement is a way to the
/// connection's thread and back, so there are enough sizes for a small batch to be one or two of them.
struct Bulk {
    head: &'static str,
    tuple: &'static str,
    tail: &'static str,
}

impl Bulk {
    const SIZES: [usize; 11] = [64, 32, 16, 8, 7, 6, 5, 4, 3, 2, 1];

    async fn run<T>(
        &self,
        connection: &mut SqliteConnection,
        mut rows: &[T],
        bind: impl Fn(Query, &T) -> Query,
    ) -> Result<(), RepositoryError> {
        for size in Self::SIZES {
            if rows.len() < size {
                continue;
            }
            let sql: std::sync::Arc<str> = self.sql(size).into();
            while let Some((now, rest)) = rows.split_at_checked(size) {
                let query = sqlx::query(AssertSqlSafe(sql.clone()));
                now.iter().fold(query, &bind).execute(&mut *connection).await?;
                rows = rest;
            }
        }
        Ok(())
    }

    fn sql(&self, rows: usize) -> String {
        let Self { head, tuple, tail } = self;
        format!("{head}{tuple}{}{tail}", format!(", {tuple}").repeat(rows - 1))
    }
}

/// Bounds of one call, so that commits never wait long for it.
const PRUNED_EVENTS: i64 = 10_000;
const PRUNED_ROOMS: i64 = 500;
const PRUNED_USERS: i64 = 10_000;
const PRUNED_LINKS: i64 = 10_000;

pub(super) async fn prune(connection: &mut SqliteConnection, before: RoomTime) -> Result<u64, RepositoryError> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut deleted = [0; 4];
    let statements = [
        (
            "DELETE FROM room_events WHERE id IN \
             (SELECT id FROM room_events WHERE created_at < ? ORDER BY created_at LIMIT ?)",
            PRUNED_EVENTS,
        ),
        // First the users, so that rooms take few with them.
        ("DELETE FROM users WHERE rowid IN (SELECT rowid FROM users WHERE left_at < ? LIMIT ?)", PRUNED_USERS),
        ("DELETE FROM rooms WHERE rowid IN (SELECT rowid FROM rooms WHERE archived_at < ? LIMIT ?)", PRUNED_ROOMS),
        (
            "DELETE FROM short_links WHERE short_id IN (SELECT short_id FROM short_links WHERE expires_at < ? LIMIT ?)",
            PRUNED_LINKS,
        ),
    ];
    for (count, (sql, limit)) in deleted.iter_mut().zip(statements) {
        *count = sqlx::query(sql).bind(before.as_micros()).bind(limit).execute(&mut *tx).await?.rows_affected();
    }
    // Nothing older is left that could refer to them.
    if deleted[0] < PRUNED_EVENTS.unsigned_abs() {
        const URLS: &str =
            "DELETE FROM media_urls WHERE id IN (SELECT id FROM media_urls WHERE used_at < ? ORDER BY used_at LIMIT ?)";
        sqlx::query(URLS).bind(before.as_micros()).bind(PRUNED_EVENTS).execute(&mut *tx).await?;
    }
    tx.commit().await?;
    Ok(deleted[0])
}

/// Rows that go at a time to make room.
const CHUNK: i64 = 2_000;
/// Chunks of one call: more than one batch of commits brings in.
const CHUNKS: u32 = 16;

/// Deletes the oldest of what is history (events, ended rooms, members that left) until no more than `most` bytes are in use.
/// Says how many events went.
pub(super) async fn make_room(connection: &mut SqliteConnection, most: u64) -> Result<u64, RepositoryError> {
    // The moment up to which a chunk of the oldest rows of a table reaches; of several tables the earliest.
    const CUT: &str = "SELECT min(cut) FROM ( \
         SELECT max(created_at) AS cut FROM (SELECT created_at FROM room_events ORDER BY created_at LIMIT ?1) UNION ALL \
         SELECT max(archived_at) FROM (SELECT archived_at FROM rooms WHERE archived_at IS NOT NULL \
             ORDER BY archived_at LIMIT ?1) UNION ALL \
         SELECT max(left_at) FROM (SELECT left_at FROM users WHERE left_at IS NOT NULL ORDER BY left_at LIMIT ?1))";
    let mut events = 0;
    for _ in 0..CHUNKS {
        if bytes_in_use(connection).await? <= most {
            break;
        }
        let cut: Option<i64> = sqlx::query_scalar(CUT).bind(CHUNK).fetch_one(&mut *connection).await?;
        let Some(cut) = cut else { break };
        events += prune(connection, RoomTime::from_micros(cut.saturating_add(1))).await?;
    }
    Ok(events)
}

async fn bytes_in_use(connection: &mut SqliteConnection) -> Result<u64, RepositoryError> {
    const SQL: &str = "SELECT (page_count - freelist_count) * page_size \
                       FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let bytes: i64 = sqlx::query_scalar(SQL).fetch_one(connection).await?;
    Ok(bytes.unsigned_abs())
}
