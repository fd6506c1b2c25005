//! Checks after the last fault.

use std::time::Duration;

use super::{Heard, ROOMS, World};
use crate::sim::people::What;

/// Longer than any delivery without faults.
const SOON: Duration = Duration::from_secs(3);

impl World {
    /// Each client with a connection and a ROOM_STATE that asked for nothing else since is a member and can speak.
    pub(crate) async fn whoever_is_connected_can_speak(&mut self) {
        let mut asked = Vec::new();
        for client in 0..self.clients.len() {
            if self.clients[client].is_in() {
                asked.push((client, self.chat(client).await));
            }
        }
        self.settle(SOON).await;
        for (client, reference) in asked {
            self.tally.count("speaker: judged");
            let joins = self.asked.values().filter(|asked| asked.client == client && asked.what == What::Join).count();
            if self.acked(reference).is_none() {
                let refusal = self.refused(reference).map(str::to_owned);
                assert!(joins > 1, "client {client} is in its room, and is refused with {refusal:?}");
                assert_eq!(refusal.as_deref(), Some("NOT_JOINED"), "client {client}");
                self.tally.count("speaker: excused");
                // Its last JOIN, for another room, failed.
                self.hang_up(client);
            }
        }
    }

    /// Everybody is in the first room, each over one connection.
    pub(crate) async fn everybody_is_here(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].is_open()
                && (!self.clients[client].is_in() || self.clients[client].room.as_deref() != Some(ROOMS[0]))
            {
                self.hang_up(client);
            }
        }
        self.settle(Duration::from_secs(self.limits.grace_secs + 25)).await;
        for person in 0..self.people.len() {
            let here = (0..self.clients.len())
                .find(|client| self.clients[*client].person == person && self.clients[*client].is_in());
            if here.is_some() {
                self.people[person].client = here;
                continue;
            }
            let alive = self.alive();
            let place = self.rng.pick(&alive).unwrap();
            let client = self.dial(person, place);
            self.people[person].gives_pin = true;
            let reference = self.join(client, ROOMS[0]).await;
            self.settle(SOON).await;
            if !self.clients[client].is_in() {
                let code = self.refused(reference).map(str::to_owned);
                let expected = matches!(code.as_deref(), Some("USER_BANNED" | "ROOM_FULL"));
                assert!(expected, "client {client} can't come in: {code:?}");
                self.hang_up(client);
            }
        }
    }

    /// The ephemeral lane reaches everybody on every node, once; in a large room only the host's ticks, and the digest.
    pub(crate) async fn everybody_hears_everybody(&mut self) {
        let here: Vec<usize> = (0..self.clients.len()).filter(|client| self.clients[*client].is_in()).collect();
        let mut signals = Vec::new();
        let mut ticks = Vec::new();
        let mut chats = Vec::new();
        for from in here.clone() {
            chats.push(self.chat(from).await);
            for to in here.clone() {
                let name = self.people[self.clients[to].person].name;
                signals.push((self.signal(from, name).await, to));
            }
            let absent =
                self.people.iter().find(|person| !person.client.is_some_and(|client| self.clients[client].is_in()));
            if let Some(absent) = absent.map(|person| person.name) {
                let reference = self.signal(from, absent).await;
                self.settle(Duration::from_millis(300)).await;
                assert_eq!(self.refused(reference), Some("TARGET_GONE"));
            }
        }
        self.settle(SOON).await;
        // Nothing is scheduled ahead any more: ticks count again.
        for from in here.clone() {
            if self.people[self.clients[from].person].dialect == 3 {
                ticks.push((from, self.tick(from).await));
                self.settle(Duration::from_millis(300)).await;
            }
        }
        self.settle(SOON).await;
        for (reference, client) in signals {
            assert_eq!(self.heard_signal(client, reference), 1, "signal {reference} to client {client}");
        }
        for reference in chats {
            assert!(self.acked(reference).is_some(), "{reference} is not acknowledged");
        }
        let large = here.len() as u64 > self.limits.full_presence_members;
        let host = self.truth().room(ROOMS[0]).and_then(|room| room.host().cloned());
        for (from, reference) in ticks {
            let from_host =
                host.as_ref().is_some_and(|host| host.as_str() == self.people[self.clients[from].person].name);
            let expected = usize::from(!large || from_host);
            for to in here.iter().filter(|to| **to != from) {
                if self.people[self.clients[*to].person].dialect == 3 {
                    let is_it =
                        |heard: &&Heard| matches!(heard, Heard::Tick { seq, .. } if u64::from(*seq) == reference);
                    let times = self.clients[*to].heard.iter().filter(is_it).count();
                    assert_eq!(times, expected, "tick {reference} of client {from} at client {to}");
                }
            }
        }
        for client in here.iter().filter(|client| large && self.people[self.clients[**client].person].dialect == 3) {
            let last = self.clients[*client].heard.iter().rev().find_map(|heard| match heard {
                Heard::Digest { members, .. } => Some(usize::from(*members)),
                _ => None,
            });
            assert_eq!(last, Some(here.len()), "the digest of client {client}");
        }
    }

    /// A node that never heard of anything reads the log's snapshots: they are the rooms that everybody else has.
    pub(crate) async fn a_new_node_reads_the_same_rooms(&mut self) {
        self.nodes.push(None);
        let place = self.nodes.len() - 1;
        self.start(place, None);
        for room in ROOMS.iter().filter(|room| self.truth().room(room).is_some()) {
            let (hub, room) = (self.node(place).hub.clone(), tandem::domain::RoomId::parse(room).unwrap());
            let nobody = self.node(place).name.clone();
            hub.lose_node_in(&room, &nobody).await.unwrap();
            assert_eq!(hub.inspect(&room).as_ref(), self.truth().rooms.get(&room), "the snapshot of {room}");
        }
    }

    /// Some by LEAVE, some by a pulled cable; then nothing is left.
    pub(crate) async fn everybody_goes(&mut self) {
        for client in 0..self.clients.len() {
            if self.clients[client].is_in() && self.rng.percent(50) {
                self.clients[client].may_be_lost = true;
                self.ask(client, ROOMS[0], What::Other, serde_json::json!({ "type": "LEAVE" })).await;
            } else if self.clients[client].is_open() {
                self.hang_up(client);
            }
        }
        self.settle(Duration::from_secs(self.limits.grace_secs + self.limits.room_keep_minutes * 60 + 5)).await;
    }
}
