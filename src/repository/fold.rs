//! Folds a batch of commits into one change a room, by the rule of heads: a commit that is not later than the stored
//! head changes nothing.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::commit::{Commit, RoomRow, UserRow};
use crate::domain::{Head, RoomId, RoomTime, UserId};

/// One change a room, in the order of room ids. `stored`: the heads that the database has.
pub(super) fn fold<'a>(batch: &'a [Commit], stored: &BTreeMap<RoomId, Head>) -> BTreeMap<&'a RoomId, Change<'a>> {
    let mut rooms: BTreeMap<&RoomId, Change<'_>> = BTreeMap::new();
    for commit in batch {
        let known = stored.get(&commit.room).copied();
        rooms.entry(&commit.room).or_insert_with(|| Change::since(known)).take(commit);
    }
    rooms
}

/// The effect of all commits of one room.
pub(super) struct Change<'a> {
    /// `None`: the room is neither stored nor in the batch.
    pub(super) head: Option<Head>,
    /// The row afterwards; `None`: no commit is later than the stored head.
    pub(super) latest: Option<Latest<'a>>,
    /// Delete the stored fields first.
    pub(super) clear: bool,
    pub(super) fields: BTreeMap<&'a str, Option<&'a Bytes>>,
    /// When the epoch ended: its members left then, and its short link expired.
    pub(super) emptied: Option<RoomTime>,
    pub(super) users: BTreeMap<&'a UserId, (UserRow, RoomTime)>,
}

pub(super) struct Latest<'a> {
    pub(super) row: &'a RoomRow,
    /// Time of the first commit of the epoch in this batch: the row's `created_at` if the epoch is new.
    pub(super) since: RoomTime,
    pub(super) updated: RoomTime,
}

impl<'a> Change<'a> {
    fn since(head: Option<Head>) -> Self {
        Self { head, latest: None, clear: false, fields: BTreeMap::new(), emptied: None, users: BTreeMap::new() }
    }

    fn take(&mut self, commit: &'a Commit) {
        if self.head.is_some_and(|head| commit.next <= head) {
            return;
        }
        let first = commit.entries.first().map_or(commit.row.at, |entry| entry.at);
        let last = commit.entries.last().map_or(commit.row.at, |entry| entry.at);
        let new_epoch = self.head.is_none_or(|head| commit.next.epoch > head.epoch);
        if new_epoch && self.head.is_some() {
            // The commit that ended the old epoch may be lost; its members must not stay in the new one.
            self.empty(first);
        }
        if commit.patch.clear {
            self.clear = true;
            self.fields.clear();
        }
        self.fields.extend(commit.patch.fields.iter().map(|(field, value)| (field.as_str(), value.as_ref())));
        for user in &commit.row.users {
            self.users.insert(&user.user, (user.clone(), last));
        }
        if commit.row.ended {
            self.empty(last);
        }
        let since = self.latest.as_ref().filter(|_| !new_epoch).map_or(first, |latest| latest.since);
        self.latest = Some(Latest { row: &commit.row, since, updated: last });
        self.head = Some(commit.next);
    }

    /// Drops the fields and ends the memberships of the epoch.
    fn empty(&mut self, at: RoomTime) {
        self.clear = true;
        self.fields.clear();
        self.emptied = Some(at);
        for (user, updated) in self.users.values_mut().filter(|(user, _)| user.left_at.is_none()) {
            user.left_at = Some(at);
            user.connected = false;
            *updated = at;
        }
    }
}
