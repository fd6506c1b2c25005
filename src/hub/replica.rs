//! A room's replica: opened, read from the log, written back to a log that lost it, retired.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::delivery::Refusal;
use super::room_cell::{Completion, RoomCell, RoomCellState};
use super::{Hub, codec, commit_feed};
use crate::commit::Snapshot;
use crate::domain::{Head, RoomId};
use crate::log::LogError;
use crate::room::{Command, Room};
use crate::telemetry::names;

/// Whether a log was given this node's replica.
enum WriteBack {
    /// The log knows at least as much.
    NotNeeded,
    /// The room that the log holds since: the replica, a later state, or nothing if the room has ended.
    Answered(Option<Snapshot>),
}

/// An answer of the log, compared with the replica.
#[derive(PartialEq, Eq)]
enum Installed {
    /// The replica lacks nothing that was committed before the log was asked.
    UpToDate,
    /// The answer leaves that open.
    Unclear,
}

/// A read of the room that is under way, for as long as the value lives.
struct Reading<'a>(&'a RoomCell);

impl<'a> Reading<'a> {
    fn of(cell: &'a RoomCell) -> Self {
        cell.lock().begin_read();
        Self(cell)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.lock().end_read();
    }
}

impl Hub {
    /// Restores rooms that outlived the process. Their playback runs on; members that were connected have the grace
    /// time, from now, to come back. Returns the number of rooms.
    pub fn recover(&self, snapshots: Vec<Snapshot>) -> usize {
        let mut recovered = 0;
        for snapshot in snapshots {
            match codec::room(&snapshot) {
                Ok(room) if !room.is_vacant() => {
                    let cell = RoomCell::restored(room);
                    self.0.rooms.lock().insert(cell.id().clone(), Arc::clone(&cell));
                    let mut state = cell.lock();
                    self.count_kept(&mut state);
                    for (user, session) in state.room().live_sessions() {
                        let command = Command::Disconnect { user, session };
                        self.enqueue_in(&cell, &mut state, command, Completion::MustCommit);
                    }
                    state.count_all_as_lost_here();
                    self.reschedule(&cell, &state);
                    drop(state);
                    recovered += 1;
                }
                Ok(_) => {}
                // One unreadable room must not keep the others from coming back.
                Err(error) => tracing::error!(roomId = %snapshot.room, %error, "a stored room can't be read; left out"),
            }
        }
        recovered
    }

    /// A live room: this node's replica, or what the log holds.
    pub async fn peek(&self, room: &RoomId) -> Result<Option<Room>, Refusal> {
        let known = self.find(room).filter(|cell| cell.is_loaded());
        let found = match known {
            Some(cell) => Some(cell.lock().room().clone()),
            None => {
                let loaded = self.0.parts.log.load(room).await;
                let snapshot = loaded.map_err(|error| self.unavailable("load", room, &error))?;
                snapshot.as_ref().map(codec::room).transpose().map_err(|_| Refusal::Internal)?
            }
        };
        Ok(found.filter(|room| !room.is_vacant()))
    }

    /// The room's cell, created and loaded if need be. The subscription precedes the read, so no commit falls between.
    pub(super) async fn open(&self, room: &RoomId) -> Result<Arc<RoomCell>, Refusal> {
        let mut opening = {
            let mut rooms = self.0.rooms.lock();
            let count = rooms.len() as u64;
            let cell = match rooms.entry(room.clone()) {
                Entry::Occupied(entry) => Arc::clone(entry.get()),
                Entry::Vacant(_) if count >= self.0.parts.limits.rooms => return Err(Refusal::RoomLimit),
                Entry::Vacant(entry) => Arc::clone(entry.insert(RoomCell::empty(room.clone()))),
            };
            Opening::of(self, cell)
        };
        let cell = Arc::clone(&opening.cell);
        cell.load_once(async {
            let read = self.first_read(&cell).await.map_err(|error| refusal_of(&error));
            commit_feed::take_in_early(self, &cell);
            read
        })
        .await?;
        opening.done = true;
        Ok(cell)
    }

    /// Subscribes to the room and reads it. Commits that come from now on are kept until the end of the read.
    async fn first_read(&self, cell: &Arc<RoomCell>) -> Result<(), LogError> {
        let _reading = Reading::of(cell);
        let subscribed = self.0.parts.log.subscribe(cell.id()).await;
        subscribed.inspect_err(|error| self.note_outage("subscribe", cell.id(), error))?;
        self.read(cell).await
    }

    /// Reads the room from the log again.
    pub(super) async fn reload(&self, cell: &Arc<RoomCell>) -> Result<(), LogError> {
        let read = self.read(cell).await;
        commit_feed::take_in_early(self, cell);
        read
    }

    async fn read(&self, cell: &Arc<RoomCell>) -> Result<(), LogError> {
        let _reading = Reading::of(cell);
        let (asked_at, settles) = cell.lock().mark_read();
        let loaded = self.0.parts.log.load(cell.id()).await;
        let snapshot = loaded.inspect_err(|error| self.note_outage("load", cell.id(), error))?;
        let written = self.write_back(cell, snapshot.as_ref().map(|snapshot| snapshot.head)).await;
        let snapshot = match written.inspect_err(|error| self.note_outage("restore", cell.id(), error))? {
            WriteBack::NotNeeded => snapshot,
            WriteBack::Answered(holds) => holds,
        };
        if self.install(cell, snapshot, asked_at)? == Installed::UpToDate {
            // A gap that was noted since the question stays open.
            cell.lock().reloaded(settles);
        }
        Ok(())
    }

    /// Reads a room after a gap. Tells its members that the log answers again, although nothing was committed.
    pub(super) async fn catch_up(&self, cell: &Arc<RoomCell>) -> Result<(), LogError> {
        let _permit = self.0.reloads.acquire().await.map_err(|_| LogError::Closed)?;
        self.reload(cell).await?;
        cell.lock().clear_failed_commit(self.now());
        Ok(())
    }

    /// Gives the log this replica if it knows less of the room. The replica holds only durable events, so the log has
    /// lost the room (Redis restarted, or failed over), or the room has ended: the log can tell, and takes or refuses
    /// it.
    async fn write_back(&self, cell: &RoomCell, latest: Option<Head>) -> Result<WriteBack, LogError> {
        let mine = {
            let state = cell.lock();
            let room = state.room();
            (!room.is_vacant() && room.head() > latest.unwrap_or_default()).then(|| codec::snapshot(room))
        };
        match mine {
            None => Ok(WriteBack::NotNeeded),
            Some(mine) => Ok(WriteBack::Answered(self.0.parts.log.restore(mine).await?)),
        }
    }

    /// The same after a commit that conflicted with `latest`; returns the head that the log holds then.
    pub(super) async fn raise(&self, cell: &RoomCell, latest: Option<Head>) -> Result<Option<Head>, LogError> {
        match self.write_back(cell, latest).await? {
            WriteBack::NotNeeded => Ok(latest),
            WriteBack::Answered(holds) => Ok(holds.map(|snapshot| snapshot.head)),
        }
    }

    /// Installs the log's answer that the room is no more: it has ended, and its last events never came.
    pub(super) fn install_ended(&self, cell: &Arc<RoomCell>, asked_at: Head) -> Result<(), LogError> {
        self.install(cell, None, asked_at).map(drop)
    }

    /// Replaces the replica by what the log holds, and tells the members here the whole state. An answer that the
    /// commit feed has overtaken since `asked_at` is older than the replica and changes nothing.
    fn install(&self, cell: &Arc<RoomCell>, snapshot: Option<Snapshot>, asked_at: Head) -> Result<Installed, LogError> {
        let mut state = cell.lock();
        // Another cell is the room on this node by now.
        if state.is_retired() {
            return Ok(Installed::UpToDate);
        }
        let known = state.room().head();
        let room = match snapshot {
            Some(snapshot) if snapshot.head < known => return Ok(Installed::UpToDate),
            Some(snapshot) => self.read_record(&mut state, &snapshot)?,
            None if known != asked_at => return Ok(Installed::Unclear),
            // Ended, or never was: the next epoch may begin from the default head (see `Log::commit`).
            None => Room::vacant(cell.id().clone(), Head::default()),
        };
        let lost = if room == *state.room() { Vec::new() } else { state.replace(room, self.node(), self.now()) };
        self.count_kept(&mut state);
        self.reschedule(cell, &state);
        drop(state);
        cell.notify_changed();
        for (user, session) in lost {
            self.lose(cell, user, session);
        }
        Ok(Installed::UpToDate)
    }

    fn read_record(&self, state: &mut RoomCellState, snapshot: &Snapshot) -> Result<Room, LogError> {
        let read = codec::room(snapshot);
        let newly_unreadable = state.note_readable(read.is_ok());
        read.map_err(|error| {
            // Logged once: the read is repeated as long as somebody is here.
            if newly_unreadable {
                tracing::error!(roomId = %snapshot.room, %error, "a stored room can't be read");
            }
            LogError::Unreadable
        })
    }

    /// [`Hub::note_outage`]; a client hears UNAVAILABLE, which says nothing of the cause.
    pub(super) fn unavailable(&self, operation: &'static str, room: &RoomId, error: &LogError) -> Refusal {
        self.note_outage(operation, room, error);
        Refusal::Unavailable
    }

    /// Counts and logs that the log did not answer. `operation`: commit, load, restore or subscribe.
    fn note_outage(&self, operation: &'static str, room: &RoomId, error: &LogError) {
        metrics::counter!(names::LOG_FAILURES, "operation" => operation).increment(1);
        // One line for all rooms of the node: when Redis is away, every room says the same.
        if self.0.log_outage.is_due() {
            tracing::warn!(operation, roomId = %room, %error, "the log did not answer: clients hear UNAVAILABLE");
        }
    }

    /// Sets the room's deadline. Called under the cell's lock: a deadline that is set after it could overwrite a later
    /// one.
    pub(super) fn reschedule(&self, cell: &RoomCell, state: &RoomCellState) {
        // The deadlines of a retired cell's room are another cell's.
        if !state.is_retired() {
            self.0.timers.schedule(cell.id(), state.room().next_deadline());
            self.note_size(cell, state);
        }
    }

    /// Removes a cell with no member, nothing queued and nobody who opens it.
    pub(super) fn retire(&self, cell: &Arc<RoomCell>) {
        let mut rooms = self.0.rooms.lock();
        let same = rooms.get(cell.id()).is_some_and(|known| Arc::ptr_eq(known, cell));
        let mut state = cell.lock();
        if same && state.is_idle() {
            state.retire();
            rooms.remove(cell.id());
            // Under the lock of the rooms: a cell that is opened anew subscribes and schedules after this, never
            // before.
            self.0.timers.schedule(cell.id(), None);
            self.0.parts.log.unsubscribe(cell.id());
        }
    }
}

/// The answer to a client whose room could not be read.
fn refusal_of(error: &LogError) -> Refusal {
    if matches!(error, LogError::Unreadable) { Refusal::Internal } else { Refusal::Unavailable }
}

/// A call of [`Hub::open`]. While there is one the cell is not idle: a late answer of the log would else be installed
/// in a cell that another one has replaced.
struct Opening<'a> {
    hub: &'a Hub,
    cell: Arc<RoomCell>,
    done: bool,
}

impl<'a> Opening<'a> {
    /// Called under the lock of the rooms, as [`Hub::retire`] takes it.
    fn of(hub: &'a Hub, cell: Arc<RoomCell>) -> Self {
        cell.lock().add_opener();
        Self { hub, cell, done: false }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.cell.lock().remove_opener();
        // The load failed or was cancelled; after a successful one its opener retires the cell.
        if !self.done {
            self.hub.retire(&self.cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, Silent, room};
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_that_the_log_did_not_answer_is_told_from_a_state_that_can_not_be_read() {
        let fixture = Fixture::new();
        let _ann = fixture.join("ann", Arc::new(Silent)).await;
        let cell = fixture.hub.find(&room()).unwrap();
        fixture.fail_loads();
        let error = fixture.hub.reload(&cell).await.unwrap_err();
        assert!(matches!(error, LogError::Unavailable(_)), "{error}");
        assert!(matches!(refusal_of(&error), Refusal::Unavailable));
    }
}
