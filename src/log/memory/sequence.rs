//! The order of each room: the compare-and-set, without I/O or locks.
//!
//! A commit is first *accepted*: its expectation held, it waits for the disk, and the next one must expect its head.
//! Then it is *settled*: durable, and from now on visible. A commit that was accepted and could not be stored is rolled
//! back before it was visible.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::commit::{Commit, Snapshot};
use crate::domain::{Head, RoomId};
use crate::log::{LogError, ascending, too_early};

/// Ends that are remembered. Forgetting one is safe as long as clocks don't run back (see [`crate::log::Log::commit`]).
const ENDS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Sequence {
    rooms: HashMap<RoomId, RoomSequence>,
    /// Ends in the order in which they are forgotten.
    ends: VecDeque<(RoomId, Head)>,
}

#[derive(Debug)]
struct RoomSequence {
    settled: Settled,
    /// Commits that are accepted and not settled.
    ahead: Option<Ahead>,
}

#[derive(Debug)]
enum Settled {
    Unknown,
    Live(Snapshot),
    Ended(Head),
}

#[derive(Debug, Clone, Copy)]
struct Ahead {
    head: Head,
    ended: bool,
    commits: usize,
}

/// The result of the compare-and-set.
#[derive(Debug)]
pub(super) enum Acceptance {
    /// It waits for the disk.
    Accepted,
    /// Its expectation is not the head. Answer with [`Sequence::latest_head`] when nothing of the room is ahead any
    /// more.
    Conflict,
    /// Its heads don't ascend, or its epoch is not later than the one that ended.
    Refused(LogError),
}

impl Sequence {
    pub(super) fn new(initial: Vec<Snapshot>) -> Self {
        let place = |snapshot: Snapshot| {
            (snapshot.room.clone(), RoomSequence { settled: Settled::Live(snapshot), ahead: None })
        };
        Self { rooms: initial.into_iter().map(place).collect(), ends: VecDeque::new() }
    }

    /// The compare-and-set, by the rule of [`crate::log::Log::commit`].
    pub(super) fn accept(&mut self, commit: &Commit) -> Acceptance {
        if let Err(error) = ascending(commit) {
            return Acceptance::Refused(error);
        }
        let place = self.rooms.get(&commit.room);
        let (at, ended) = place.map_or((Head::default(), false), RoomSequence::head);
        let expects_it = commit.expected == at || (ended && commit.expected == Head::default());
        if !expects_it {
            return Acceptance::Conflict;
        }
        if ended && commit.next.epoch <= at.epoch {
            return Acceptance::Refused(too_early(commit, at));
        }
        let place =
            self.rooms.entry(commit.room.clone()).or_insert(RoomSequence { settled: Settled::Unknown, ahead: None });
        let commits = place.ahead.map_or(0, |ahead| ahead.commits) + 1;
        place.ahead = Some(Ahead { head: commit.next, ended: commit.row.ended, commits });
        Acceptance::Accepted
    }

    /// Whether something of the room waits for the disk.
    pub(super) fn is_ahead(&self, room: &RoomId) -> bool {
        self.rooms.get(room).is_some_and(|place| place.ahead.is_some())
    }

    /// Whether neither a durable state nor an end of the room is known.
    pub(super) fn is_unknown(&self, room: &RoomId) -> bool {
        self.rooms.get(room).is_none_or(|place| matches!(place.settled, Settled::Unknown))
    }

    /// The durable state.
    pub(super) fn latest(&self, room: &RoomId) -> Option<Snapshot> {
        self.live(room).cloned()
    }

    pub(super) fn latest_head(&self, room: &RoomId) -> Option<Head> {
        self.live(room).map(|snapshot| snapshot.head)
    }

    fn live(&self, room: &RoomId) -> Option<&Snapshot> {
        match &self.rooms.get(room)?.settled {
            Settled::Live(snapshot) => Some(snapshot),
            Settled::Unknown | Settled::Ended(_) => None,
        }
    }

    /// An accepted commit is durable.
    pub(super) fn settle(&mut self, commit: &Commit) {
        let Some(place) = self.rooms.get_mut(&commit.room) else { return };
        place.ahead =
            place.ahead.filter(|ahead| ahead.commits > 1).map(|ahead| Ahead { commits: ahead.commits - 1, ..ahead });
        self.store(commit);
    }

    /// A commit that was rolled back turned out to be durable.
    pub(super) fn restore(&mut self, commit: &Commit) {
        self.rooms.entry(commit.room.clone()).or_insert(RoomSequence { settled: Settled::Unknown, ahead: None });
        self.store(commit);
    }

    fn store(&mut self, commit: &Commit) {
        if commit.row.ended {
            self.end(&commit.room, commit.next);
            return;
        }
        let Some(place) = self.rooms.get_mut(&commit.room) else { return };
        if !matches!(place.settled, Settled::Live(_)) {
            let room = commit.room.clone();
            place.settled = Settled::Live(Snapshot { room, head: commit.next, fields: BTreeMap::new() });
        }
        let Settled::Live(snapshot) = &mut place.settled else { return };
        if commit.patch.clear || commit.next.epoch != snapshot.head.epoch {
            snapshot.fields.clear();
        }
        for (field, value) in &commit.patch.fields {
            match value {
                Some(value) => snapshot.fields.insert(field.clone(), value.clone()),
                None => snapshot.fields.remove(field),
            };
        }
        snapshot.head = commit.next;
    }

    /// Forgets the room's commits that are accepted and not settled.
    pub(super) fn roll_back(&mut self, room: &RoomId) {
        if let Some(place) = self.rooms.get_mut(room) {
            place.ahead = None;
            if matches!(place.settled, Settled::Unknown) {
                self.rooms.remove(room);
            }
        }
    }

    /// The room ended at `head`. The last [`ENDS`] ends are remembered.
    pub(super) fn end(&mut self, room: &RoomId, head: Head) {
        let place = self.rooms.entry(room.clone()).or_insert(RoomSequence { settled: Settled::Unknown, ahead: None });
        place.settled = Settled::Ended(head);
        self.ends.push_back((room.clone(), head));
        while self.ends.len() > ENDS {
            let Some((room, head)) = self.ends.pop_front() else { return };
            let idle = |place: &RoomSequence| {
                place.ahead.is_none() && matches!(place.settled, Settled::Ended(at) if at == head)
            };
            if self.rooms.get(&room).is_some_and(idle) {
                self.rooms.remove(&room);
            }
        }
    }
}

impl RoomSequence {
    /// The head that the next commit must expect, and whether the room has ended there.
    fn head(&self) -> (Head, bool) {
        match (self.ahead, &self.settled) {
            (Some(ahead), _) => (ahead.head, ahead.ended),
            (None, Settled::Live(snapshot)) => (snapshot.head, false),
            (None, Settled::Ended(head)) => (*head, true),
            (None, Settled::Unknown) => (Head::default(), false),
        }
    }
}
