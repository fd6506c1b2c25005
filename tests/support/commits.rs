//! Commits as a hub would make them, small enough to reason about.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use tandem::commit::{Commit, Entry, Patch, RoomRow, UserRow};
use tandem::domain::{Head, RoomId, RoomTime, UserId};

/// The epoch of most tests, ms: an ordinary day.
pub(crate) const EPOCH: u64 = 1_795_000_000_000;

pub(crate) fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(crate) fn head(epoch: u64, seq: u64) -> Head {
    Head { epoch, seq }
}

/// A room's time at its event `seq`: one second an event.
pub(crate) fn time(head: Head) -> RoomTime {
    RoomTime::from_millis(i64::try_from(head.epoch + 1000 * head.seq).unwrap())
}

/// A moment as the databases show it, in UTC.
pub(crate) fn shown(at: RoomTime) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.as_micros()) * 1000).unwrap();
    format!("{} {:02}:{:02}:{:02}.{:06}", at.date(), at.hour(), at.minute(), at.second(), at.microsecond())
}

/// The first commit of an epoch, by whoever stands at `expected`: ann is in.
pub(crate) fn created(room: &RoomId, expected: Head, epoch: u64) -> Commit {
    let mut commit = commit(room, expected, &[head(epoch, 1)]);
    commit.patch.clear = true;
    commit.row.users = vec![row_of("ann", 1, commit.row.at)];
    commit
}

/// The next event.
pub(crate) fn after(room: &RoomId, expected: Head) -> Commit {
    commit(room, expected, &[head(expected.epoch, expected.seq + 1)])
}

/// The last event of an epoch.
pub(crate) fn ended(room: &RoomId, expected: Head) -> Commit {
    let mut commit = after(room, expected);
    commit.row.ended = true;
    commit.row.host = None;
    commit.patch = Patch { clear: true, fields: BTreeMap::new() };
    commit
}

/// One event for each head. The field `head` always tells at which head it was written.
pub(crate) fn commit(room: &RoomId, expected: Head, heads: &[Head]) -> Commit {
    let entries: Vec<Entry> = heads.iter().map(|head| entry(*head)).collect();
    let next = *heads.last().unwrap();
    Commit {
        room: room.clone(),
        expected,
        next,
        entries: entries.into(),
        patch: Patch { clear: false, fields: BTreeMap::from([("head".to_owned(), Some(text_of(next)))]) },
        row: RoomRow {
            host: Some(user("ann")),
            url: Some("https://example.org/film".to_owned()),
            position: 12.5,
            playing: true,
            at: time(next),
            guest_control: true,
            ended: false,
            users: Vec::new(),
        },
    }
}

pub(crate) fn entry(head: Head) -> Entry {
    Entry {
        head,
        at: time(head),
        kind: "play",
        user: Some(user("ann")),
        body: Bytes::from(format!("event {} {}", head.epoch, head.seq)),
        audit: Bytes::from(format!("{{\"seq\":{}}}", head.seq)),
    }
}

pub(crate) fn row_of(name: &str, slot: u16, joined_at: RoomTime) -> UserRow {
    UserRow { user: user(name), name: name.to_uppercase(), slot, joined_at, connected: true, left_at: None }
}

/// The value of the field `head` at a head.
pub(crate) fn text_of(head: Head) -> Bytes {
    Bytes::from(format!("{}.{}", head.epoch, head.seq))
}
