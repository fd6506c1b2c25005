//! Subscriptions to rooms: the wanted ones, the confirmed ones, and the calls that wait for a confirmation.

use std::collections::HashSet;

use tokio::sync::oneshot;

use crate::domain::RoomId;

#[derive(Default)]
pub(super) struct Subscriptions {
    pub(super) wanted: HashSet<RoomId>,
    /// Confirmed in the present connection of the bus.
    pub(super) heard: HashSet<RoomId>,
    /// Rooms for which the two sets may differ, in the order of the calls. Empty while there is no connection, which
    /// begins with all that are wanted.
    pub(super) changed: Vec<RoomId>,
    waiting: Vec<(RoomId, oneshot::Sender<()>)>,
    connected: bool,
}

impl Subscriptions {
    /// `None`: it is confirmed already.
    pub(super) fn want(&mut self, room: &RoomId) -> Option<oneshot::Receiver<()>> {
        self.wanted.insert(room.clone());
        if self.heard.contains(room) && !self.changed.contains(room) {
            return None;
        }
        self.note(room);
        // Amortised: an outage costs no more than the calls that still wait.
        if self.waiting.len().is_power_of_two() {
            self.forget_dropped();
        }
        let (sender, receiver) = oneshot::channel();
        self.waiting.push((room.clone(), sender));
        Some(receiver)
    }

    /// Returns whether the room was wanted.
    pub(super) fn leave(&mut self, room: &RoomId) -> bool {
        let wanted = self.wanted.remove(room);
        if wanted {
            self.note(room);
        }
        wanted
    }

    /// All that are wanted, for a connection that begins.
    pub(super) fn begin_connection(&mut self) -> Vec<RoomId> {
        self.connected = true;
        self.wanted.iter().cloned().collect()
    }

    pub(super) fn end_connection(&mut self) {
        self.connected = false;
        self.heard.clear();
        self.changed = Vec::new();
    }

    /// Answers the calls whose rooms are heard. Calls for rooms that are no longer wanted end without an answer.
    pub(super) fn confirm(&mut self) {
        for (room, confirmed) in std::mem::take(&mut self.waiting) {
            if self.heard.contains(&room) {
                let _ = confirmed.send(());
            } else if !confirmed.is_closed() && self.wanted.contains(&room) {
                self.waiting.push((room, confirmed));
            }
        }
    }

    /// Forgets calls whose futures were dropped (cancelled JOINs).
    pub(super) fn forget_dropped(&mut self) {
        self.waiting.retain(|(_, waiting)| !waiting.is_closed());
    }

    fn note(&mut self, room: &RoomId) {
        if self.connected {
            self.changed.push(room.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_were_given_up_leave_nothing_behind_however_long_the_bus_is_down() {
        let mut rooms = Subscriptions::default();
        let mut most = 0;
        for n in 0..10_000 {
            let room = RoomId::parse(&format!("room-{}", n % 100)).unwrap();
            drop(rooms.want(&room));
            rooms.leave(&room);
            most = most.max(rooms.waiting.len() + rooms.changed.len());
        }
        assert!(most < 10, "{most}");
    }

    #[test]
    fn a_call_for_a_room_that_nobody_wants_any_more_ends_with_the_next_confirmation() {
        let mut rooms = Subscriptions::default();
        rooms.begin_connection();
        let (friday, sunday) = (RoomId::parse("friday").unwrap(), RoomId::parse("sunday").unwrap());
        let mut gone = rooms.want(&friday).unwrap();
        let mut stays = rooms.want(&sunday).unwrap();
        rooms.leave(&friday);
        rooms.confirm();
        assert_eq!(gone.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(stays.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        rooms.heard.insert(sunday);
        rooms.confirm();
        assert_eq!(stays.try_recv(), Ok(()));
        assert!(rooms.waiting.is_empty());
    }
}
