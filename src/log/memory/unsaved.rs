//! Commits that were answered while the disk was full
//! ([`RepositoryError::Full`](crate::repository::RepositoryError::Full)).
//!
//! Rooms go on while the disk is full; their commits meanwhile are as durable as the process. They are kept here,
//! merged into one commit a room and epoch, and stored before anything else when there is space. The bytes are bounded:
//! beyond [`BYTES`] the oldest events are lost to the audit, and rooms keep only their latest state.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::commit::{Commit, Entry};
use crate::domain::{Head, RoomId};

/// Bytes of events that are kept for the audit.
const BYTES: usize = 16 << 20;
/// Members of a room, those that left included.
const USERS: usize = 2_000;

#[derive(Debug, Default)]
pub(super) struct UnsavedCommits {
    rooms: BTreeMap<RoomId, VecDeque<UnsavedEpoch>>,
    /// Rooms in the order in which their events came.
    events: VecDeque<RoomId>,
    bytes: usize,
    /// Events dropped for the bound.
    lost: u64,
}

/// The commits of one epoch of a room.
#[derive(Debug)]
struct UnsavedEpoch {
    /// All of it as one commit, without the events.
    commit: Commit,
    entries: VecDeque<Entry>,
}

impl UnsavedCommits {
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Rooms whose state is not stored.
    pub(super) fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Events dropped since the last call.
    pub(super) fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    pub(super) fn add(&mut self, commit: &Commit) {
        let room = self.rooms.entry(commit.room.clone()).or_default();
        match room.back_mut() {
            Some(last) if last.commit.next.epoch == commit.next.epoch => last.follow(commit),
            _ => {
                let whole = Commit { entries: Arc::new([]), ..commit.clone() };
                room.push_back(UnsavedEpoch { commit: whole, entries: VecDeque::new() });
            }
        }
        if let Some(last) = room.back_mut() {
            for entry in commit.entries.iter() {
                self.bytes += weight(entry);
                self.events.push_back(commit.room.clone());
                // Bodies are for replicas, which have them.
                last.entries.push_back(Entry { body: Bytes::new(), ..entry.clone() });
            }
        }
        // Of the epochs that began and ended meanwhile the database needs only the last; the first one says that the
        // epoch which it knows is over.
        if room.len() > 2
            && let Some(between) = room.remove(1)
        {
            self.lost += between.entries.len() as u64;
            self.bytes -= between.entries.iter().map(weight).sum::<usize>();
        }
        while self.bytes > BYTES && self.forget_oldest() {}
    }

    /// Everything to store, in order.
    pub(super) fn commits(&self) -> Vec<Commit> {
        let whole =
            |epoch: &UnsavedEpoch| Commit { entries: epoch.entries.iter().cloned().collect(), ..epoch.commit.clone() };
        self.rooms.values().flatten().map(whole).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self { lost: self.lost, ..Self::default() };
    }

    /// Drops the oldest event, and with it a room that is over and that the database doesn't know. Returns whether
    /// there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some(room) = self.events.pop_front() else { return false };
        let Some(epochs) = self.rooms.get_mut(&room) else { return true };
        if let Some(entry) = epochs.iter_mut().find_map(|epoch| epoch.entries.pop_front()) {
            self.bytes -= weight(&entry);
            self.lost += 1;
        }
        if epochs.len() == 1 && epochs[0].commit.row.ended && epochs[0].commit.expected == Head::default() {
            self.lost += epochs[0].entries.len() as u64;
            self.bytes -= epochs[0].entries.iter().map(weight).sum::<usize>();
            self.rooms.remove(&room);
        }
        true
    }
}

impl UnsavedEpoch {
    /// Adds the next commit of the same epoch.
    fn follow(&mut self, next: &Commit) {
        let commit = &mut self.commit;
        commit.next = next.next;
        if next.patch.clear {
            commit.patch = next.patch.clone();
        } else {
            commit.patch.fields.extend(next.patch.fields.iter().map(|(field, value)| (field.clone(), value.clone())));
        }
        let mut row = next.row.clone();
        let known = std::mem::take(&mut commit.row.users);
        row.users =
            known.into_iter().filter(|user| next.row.users.iter().all(|other| other.user != user.user)).collect();
        row.users.extend(next.row.users.iter().cloned());
        // Rows of members that left are dropped first: the rest is bounded by the size of a room.
        if row.users.len() > USERS
            && let Some(gone) = row.users.iter().position(|user| user.left_at.is_some())
        {
            row.users.remove(gone);
        }
        commit.row = row;
    }
}

fn weight(entry: &Entry) -> usize {
    entry.audit.len() + 160
}
