//! What a full disk is owed: commits that were answered though they could not be stored.
//!
//! Rooms go on while the disk takes nothing ([`RepositoryError::Full`](crate::repository::RepositoryError::Full)); what they
//! commit meanwhile is as durable as the process. It is kept here, one commit a room and epoch, and stored before anything else when
//! there is space. The bytes are bounded: beyond [`BYTES`] events are lost to the audit, the oldest first, and rooms keep only their
//! latest state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Head, RoomId};
use crate::log::{Commit, Entry};

/// Bytes of events that are kept for the audit.
const BYTES: usize = 16 << 20;

#[derive(Debug, Default)]
pub(super) struct Owed {
    rooms: BTreeMap<RoomId, VecDeque<Commit>>,
    /// Rooms in the order in which their events came, with the bytes of them.
    events: VecDeque<(RoomId, usize)>,
    bytes: usize,
    /// Events that went.
    lost: u64,
}

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Rooms whose state is not stored.
    pub(super) fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Events that went since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    pub(super) fn add(&mut self, commit: &Commit) {
        let bytes = weight(&commit.entries);
        self.bytes += bytes;
        self.events.push_back((commit.room.clone(), bytes));
        let room = self.rooms.entry(commit.room.clone()).or_default();
        match room.back_mut() {
            Some(last) if last.next.epoch == commit.next.epoch => merge(last, commit),
            _ => room.push_back(commit.clone()),
        }
        // Of the epochs that began and ended meanwhile the database needs only the last: the one before it tells that the
        // one which it knows is over.
        if room.len() > 2
            && let Some(between) = room.remove(1)
        {
            self.lost += between.entries.len() as u64;
        }
        while self.bytes > BYTES {
            self.forget_oldest();
        }
    }

    /// What must be stored, in order.
    pub(super) fn commits(&self) -> Vec<Commit> {
        self.rooms.values().flatten().cloned().collect()
    }

    pub(super) fn paid(&mut self) {
        *self = Self { lost: self.lost, ..Self::default() };
    }

    /// The oldest events go; a room that is over, and of which the database knows nothing, goes with them.
    fn forget_oldest(&mut self) {
        let Some((room, bytes)) = self.events.pop_front() else {
            self.bytes = 0;
            return;
        };
        self.bytes = self.bytes.saturating_sub(bytes);
        let Some(commits) = self.rooms.get_mut(&room) else { return };
        if commits.len() == 1 && commits[0].row.ended && commits[0].expected == Head::default() {
            self.lost += commits[0].entries.len() as u64;
            self.rooms.remove(&room);
            return;
        }
        let mut left = bytes;
        for commit in commits.iter_mut() {
            let mut go = 0;
            while go < commit.entries.len() && left > 0 {
                left = left.saturating_sub(entry_weight(&commit.entries[go]));
                go += 1;
            }
            self.lost += go as u64;
            commit.entries = commit.entries[go..].into();
        }
    }
}

/// The two as one: `next` follows on `commit` in the same epoch.
fn merge(commit: &mut Commit, next: &Commit) {
    // Bodies are for replicas, which have them.
    let stripped = |entry: &Entry| Entry { body: Bytes::new(), ..entry.clone() };
    let entries: Arc<[Entry]> = commit.entries.iter().chain(next.entries.iter()).map(stripped).collect();
    commit.entries = entries;
    commit.next = next.next;
    if next.patch.clear {
        commit.patch = next.patch.clone();
    } else {
        commit.patch.fields.extend(next.patch.fields.iter().map(|(field, value)| (field.clone(), value.clone())));
    }
    let mut row = next.row.clone();
    let known = std::mem::take(&mut commit.row.users);
    row.users = known.into_iter().filter(|user| next.row.users.iter().all(|other| other.user != user.user)).collect();
    row.users.extend(next.row.users.iter().cloned());
    commit.row = row;
}

fn weight(entries: &[Entry]) -> usize {
    entries.iter().map(entry_weight).sum()
}

fn entry_weight(entry: &Entry) -> usize {
    entry.audit.len() + 160
}
