//! Ephemeral messages of other nodes, taken in beside the commit feed.
//!
//! The commit feed hands each message on as bytes, once the commits that came before it are in the replica: a signal of
//! a member that has just joined finds its sender there. A fixed number of tasks decode and deliver. The messages of a
//! room pass through one of them, so they keep their order. The queue of each task is bounded: a message that finds it
//! full is dropped and counted, and commits never wait for one.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Hub;
use crate::domain::RoomId;
use crate::panics;
use crate::telemetry::{HotCounter, names};

static DROPPED: HotCounter = HotCounter::new(names::EPHEMERAL_DROPPED, &[("direction", "in")]);

const TASKS: usize = 8;
/// Messages that wait for one task.
const WAITING: usize = 512;

/// The sending ends of the queues, one a task.
pub(super) struct EphemeralFeed(Vec<mpsc::Sender<RelayBytes>>);

/// A message as it came, and its room.
pub(super) type RelayBytes = (RoomId, Bytes);

impl EphemeralFeed {
    pub(super) fn new() -> (Self, Vec<mpsc::Receiver<RelayBytes>>) {
        let (senders, queues) = (0..TASKS).map(|_| mpsc::channel(WAITING)).unzip();
        (Self(senders), queues)
    }

    /// Never waits. False: the message was dropped.
    pub(super) fn push(&self, room: RoomId, message: Bytes) -> bool {
        let mut hasher = DefaultHasher::new();
        room.hash(&mut hasher);
        let task = usize::try_from(hasher.finish() % TASKS as u64).unwrap_or_default();
        let queued = self.0.get(task).is_some_and(|queue| queue.try_send((room, message)).is_ok());
        if !queued {
            DROPPED.increment(1);
        }
        queued
    }
}

pub(super) fn start(hub: &Hub, queues: Vec<mpsc::Receiver<RelayBytes>>) {
    let (tracker, stop) = (&hub.0.parts.tracker, &hub.0.parts.stop);
    for queue in queues {
        panics::spawn_or_abort(tracker, "ephemeral feed", stop, run(hub.clone(), queue));
    }
}

async fn run(hub: Hub, mut queue: mpsc::Receiver<RelayBytes>) {
    while let Some((room, message)) = queue.recv().await {
        match hub.find(&room) {
            Some(cell) => hub.contain(&cell, || hub.receive_ephemeral(&room, &message)),
            None => hub.receive_ephemeral(&room, &message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> RoomId {
        RoomId::parse(name).unwrap()
    }

    #[test]
    fn a_room_that_floods_loses_its_own_messages_and_what_it_keeps_stays_in_order() {
        let (feed, mut queues) = EphemeralFeed::new();
        let numbered = |number: u32| Bytes::from(number.to_be_bytes().to_vec());
        let sent = (0..2 * WAITING as u32).map(numbered);
        let kept: Vec<_> = sent.filter(|message| feed.push(room("friday"), message.clone())).collect();
        assert_eq!(kept.len(), WAITING);
        let others = (0..100).map(|n| room(&format!("room-{n}")));
        let whole = others.filter(|other| feed.push(other.clone(), Bytes::new())).count();
        assert!(whole > 50, "rooms of other tasks lose nothing: {whole}");
        let mut heard = Vec::new();
        for queue in &mut queues {
            heard.extend(std::iter::from_fn(|| queue.try_recv().ok()));
        }
        let friday = heard.into_iter().filter(|(of, _)| *of == room("friday"));
        assert_eq!(friday.map(|(_, message)| message).collect::<Vec<_>>(), kept);
    }
}
