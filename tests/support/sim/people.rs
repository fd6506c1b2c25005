//! What people do.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};
use tandem::domain::{Head, RoomId};
use tandem::session::transport::Frame;

use super::{Heard, ROOMS, SimClient, World};

const NAMES: [&str; 6] = ["ann", "bob", "cat", "dan", "eve", "fay"];
const PIN: &str = "2468";

#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) name: &'static str,
    pub(crate) dialect: u8,
    /// Its resume tokens, by room (v3).
    pub(crate) tokens: BTreeMap<String, String>,
    /// Room and last event seen.
    pub(crate) last_seen: Option<(String, Head)>,
    /// Its connection, the latest.
    pub(crate) client: Option<usize>,
    /// JOIN was refused for want of the PIN.
    pub(crate) gives_pin: bool,
}

/// Something asked with a reference, to be found again in the log or at another client.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) client: usize,
    pub(crate) room: String,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    Join,
    /// Its text holds the reference.
    Chat,
    /// Its payload holds the reference.
    Custom,
    /// Its position is the reference.
    Moves,
    Transfer(&'static str),
    Kick(&'static str),
    /// Its payload holds the reference.
    Signal(&'static str),
    /// Its counter is the reference.
    Tick,
    /// Its counter is the reference.
    Status,
    /// A v3 member's is answered with ROOM_STATE.
    Sync,
    Other,
}

impl Person {
    pub(crate) fn new(index: usize, dialect: u8) -> Self {
        Self { name: NAMES[index], dialect, tokens: BTreeMap::new(), last_seen: None, client: None, gives_pin: false }
    }
}

impl World {
    /// Dials a node; the client before is left as it is.
    pub(crate) fn dial(&mut self, person: usize, place: usize) -> usize {
        let wire = self.connect(place);
        let node = self.node(place).name.clone();
        let doubted = self.is_doubted(&node);
        self.clients.push(SimClient {
            person,
            node,
            wire: Some(wire),
            heard: Vec::new(),
            session: None,
            room: None,
            last_seen: None,
            may_be_lost: false,
            doubted,
            silent: false,
            renamed: false,
        });
        self.people[person].client = Some(self.clients.len() - 1);
        self.clients.len() - 1
    }

    pub(crate) async fn join(&mut self, client: usize, room: &str) -> u64 {
        let person = self.people[self.clients[client].person].clone();
        let mut join = json!({ "type": "JOIN", "roomId": room, "userId": person.name, "username": person.name });
        if person.dialect == 3 {
            join["protocol"] = 3.into();
            if let Some(token) = person.tokens.get(room) {
                join["resumeToken"] = token.as_str().into();
                // A page that replaces its own session; where that one is not live, an ordinary return.
                join["move"] = self.asked.len().is_multiple_of(3).into();
            }
            if let Some((_, seen)) = person.last_seen.as_ref().filter(|(seen_in, _)| seen_in == room) {
                (join["epoch"], join["lastSeq"]) = (seen.epoch.into(), seen.seq.into());
                self.clients[client].last_seen.get_or_insert(*seen);
            }
        }
        if person.gives_pin {
            join["pin"] = PIN.into();
        }
        self.ask(client, room, What::Join, join).await
    }

    /// Sends a message with a reference of its own.
    pub(crate) async fn ask(&mut self, client: usize, room: &str, what: What, mut message: Value) -> u64 {
        let reference = self.asked.len() as u64 + 1;
        message["ref"] = reference.into();
        let mut shown = message.clone();
        if let Some(token) = shown.get_mut("resumeToken") {
            *token = "…".into();
        }
        self.note(|| format!("client {client}: {shown}"));
        self.asked.insert(reference, Asked { client, room: room.to_owned(), what });
        if let Some(wire) = &self.clients[client].wire {
            wire.message(message.to_string()).await;
        }
        reference
    }

    pub(crate) async fn chat(&mut self, client: usize) -> u64 {
        let next = self.asked.len() as u64 + 1;
        let room = self.clients[client].room.clone().unwrap();
        self.ask(client, &room, What::Chat, json!({ "type": "CHAT", "text": format!("chat {next}.") })).await
    }

    pub(crate) async fn signal(&mut self, client: usize, to: &'static str) -> u64 {
        let next = self.asked.len() as u64 + 1;
        let room = self.clients[client].room.clone().unwrap();
        let message = json!({ "type": "CUSTOM", "to": to, "namespace": "sim", "payload": { "n": next } });
        self.ask(client, &room, What::Signal(to), message).await
    }

    /// A position report of the client's player.
    pub(crate) async fn tick(&mut self, client: usize) -> u64 {
        let playing = self.rng.percent(50);
        self.tick_playing(client, playing).await
    }

    /// The client's measurements: a round trip of 12.5 ms. Returns the counter.
    pub(crate) async fn status(&mut self, client: usize, buffering: bool) -> u32 {
        let reference = self.asked.len() as u64 + 1;
        let room = self.clients[client].room.clone().unwrap();
        self.asked.insert(reference, Asked { client, room, what: What::Status });
        let mut status = BytesMut::new();
        status.put_u8(4);
        status.put_u8(u8::from(buffering) | 2);
        status.put_u16(0);
        status.put_u32(reference as u32);
        status.put_i32(12_500);
        status.put_i64(0);
        if let Some(wire) = &self.clients[client].wire {
            wire.send(Frame::Compact(status.freeze())).await;
        }
        reference as u32
    }

    async fn tick_playing(&mut self, client: usize, playing: bool) -> u64 {
        let reference = self.asked.len() as u64 + 1;
        let room = self.clients[client].room.clone().unwrap();
        self.asked.insert(reference, Asked { client, room, what: What::Tick });
        let place = (0..self.nodes.len())
            .find(|p| self.nodes[*p].as_ref().is_some_and(|n| n.name == self.clients[client].node));
        let Some(place) = place else { return reference };
        let mut tick = BytesMut::new();
        tick.put_u8(3);
        tick.put_u8(playing.into());
        tick.put_u16(0);
        tick.put_u32(reference as u32);
        tick.put_f64(self.rng.below(100) as f64);
        tick.put_f64(self.node(place).now().as_millis_f64());
        tick.put_f32(1.0);
        if let Some(wire) = &self.clients[client].wire {
            wire.send(Frame::Compact(tick.freeze())).await;
        }
        reference
    }

    pub(crate) fn hang_up(&mut self, client: usize) {
        self.note(|| format!("client {client} is cut"));
        self.clients[client].listen();
        (self.clients[client].wire, self.clients[client].may_be_lost) = (None, true);
    }

    /// Whether this client ever heard the payload of a signal.
    pub(crate) fn heard_signal(&self, client: usize, reference: u64) -> usize {
        let is_it = |heard: &&Heard| matches!(heard, Heard::Notice(json) if json["payload"]["n"] == reference);
        self.clients[client].heard.iter().filter(is_it).count()
    }

    pub(crate) fn acked(&self, reference: u64) -> Option<Head> {
        let client = &self.clients[self.asked[&reference].client];
        client.heard.iter().find_map(|heard| match heard {
            Heard::Ack { reference: of, head } if *of == reference => Some(*head),
            _ => None,
        })
    }

    pub(crate) fn refused(&self, reference: u64) -> Option<&str> {
        self.clients[self.asked[&reference].client].refusal(reference)
    }

    /// Whether a JOIN of this client was refused because its commit's outcome was unknown: it may have got in, and is
    /// taken out again.
    pub(crate) fn join_was_unavailable(&self, client: &SimClient) -> bool {
        client.heard.iter().any(|heard| match heard {
            Heard::Refused { reference: Some(of), code } => code == "UNAVAILABLE" && self.asked[of].what == What::Join,
            _ => false,
        })
    }

    // ---- at random

    fn clients_in(&self) -> Vec<usize> {
        (0..self.clients.len()).filter(|client| self.clients[*client].is_in()).collect()
    }

    /// A person without a connection dials; or one that has one does so too, and takes its own place.
    pub(super) async fn somebody_connects(&mut self) {
        let person = self.rng.below(self.people.len());
        let alive = self.alive();
        let Some(place) = self.rng.pick(&alive) else { return };
        let connected = self.people[person].client.is_some_and(|client| self.clients[client].is_open());
        if connected && self.rng.percent(70) {
            return;
        }
        let room = if self.rng.percent(75) { ROOMS[0] } else { ROOMS[1] };
        let client = match self.people[person].client {
            // A JOIN repeated, or for another room, over the same session.
            Some(client) if connected && self.rng.percent(30) => client,
            _ => self.dial(person, place),
        };
        self.learn_pin(person);
        self.join(client, room).await;
        if self.rng.percent(5) {
            // Gone before the answer comes.
            self.hang_up(client);
        }
    }

    pub(crate) fn learn_pin(&mut self, person: usize) {
        let clients = self.clients.iter().filter(|client| client.person == person);
        let wanted = clients.flat_map(|client| &client.heard).rev().find_map(|heard| match heard {
            Heard::Refused { code, .. } => Some(code == "PIN_REQUIRED"),
            Heard::State { json, .. } => Some(json["hasPin"] == true),
            _ => None,
        });
        self.people[person].gives_pin = wanted.unwrap_or(false);
    }

    /// A session asks to be somebody else, and is reset before, while or just after that is decided.
    pub(super) async fn somebody_becomes_somebody_else(&mut self) {
        let clients = self.clients_in();
        let Some(client) = self.rng.pick(&clients) else { return };
        let room = self.clients[client].room.clone().unwrap();
        let guest = format!("guest-{}", self.asked.len());
        let dialect = self.people[self.clients[client].person].dialect;
        let mut join = json!({ "type": "JOIN", "roomId": room, "userId": guest, "username": guest, "pin": PIN });
        if dialect == 3 {
            join["protocol"] = 3.into();
        }
        self.clients[client].listen();
        self.clients[client].renamed = true;
        self.ask(client, &room, What::Join, join).await;
        let patience = self.rng.millis(5);
        tokio::time::sleep(patience).await;
        self.hang_up(client);
    }

    pub(super) async fn somebody_hangs_up(&mut self) {
        let clients = self.clients_in();
        let Some(client) = self.rng.pick(&clients) else { return };
        if self.rng.percent(30)
            && let Some(wire) = &self.clients[client].wire
        {
            wire.close().await;
        }
        self.hang_up(client);
    }

    pub(super) fn somebody_falls_silent(&mut self) {
        let clients = self.clients_in();
        let Some(client) = self.rng.pick(&clients) else { return };
        self.note(|| format!("client {client} falls silent"));
        let client = &mut self.clients[client];
        (client.silent, client.may_be_lost) = (true, true);
        if let Some(wire) = &client.wire {
            wire.go_silent();
        }
    }

    /// A host's player plays on in a paused room, or stands in a room that plays, for longer than is put up with.
    pub(super) async fn a_host_departs_from_its_room(&mut self) {
        let hosts = self.clients_in().into_iter().filter_map(|client| {
            let person = &self.people[self.clients[client].person];
            let node = self.nodes.iter().flatten().find(|node| node.name == self.clients[client].node)?;
            let room = node.hub.inspect(&RoomId::parse(self.clients[client].room.as_ref()?).ok()?)?;
            let is_host = room.host().is_some_and(|host| host.as_str() == person.name) && person.dialect == 3;
            is_host.then(|| (client, room.playback().playing))
        });
        let hosts: Vec<_> = hosts.collect();
        let Some((client, playing)) = self.rng.pick(&hosts) else { return };
        for _ in 0..4 {
            if self.clients[client].is_in() {
                self.tick_playing(client, !playing).await;
                self.pass(Duration::from_millis(500)).await;
            }
        }
    }

    pub(super) async fn somebody_leaves(&mut self) {
        let clients = self.clients_in();
        let Some(client) = self.rng.pick(&clients) else { return };
        let room = self.clients[client].room.clone().unwrap();
        self.ask(client, &room, What::Other, json!({ "type": "LEAVE" })).await;
        self.clients[client].may_be_lost = true;
    }

    pub(super) async fn somebody_asks(&mut self) {
        let clients = self.clients_in();
        let Some(client) = self.rng.pick(&clients) else { return };
        let room = self.clients[client].room.clone().unwrap();
        let next = self.asked.len() as u64 + 1;
        let names: Vec<_> = self.people.iter().map(|person| person.name).collect();
        let somebody = self.rng.pick(&names).unwrap();
        let (what, message) = match self.rng.below(42) {
            0..=5 => (What::Chat, json!({ "type": "CHAT", "text": format!("chat {next}.") })),
            6 => (What::Custom, json!({ "type": "CUSTOM", "namespace": "sim", "payload": { "n": next } })),
            7..=9 => (What::Moves, json!({ "type": "PLAY_PAUSE", "control": "play", "currentTime": next })),
            10 => (What::Moves, json!({ "type": "PLAY_PAUSE", "control": "pause", "currentTime": next })),
            11..=12 => (What::Moves, json!({ "type": "SEEK", "currentTime": next, "isPlaying": self.rng.percent(70) })),
            13 => (What::Other, json!({ "type": "SET_RATE", "rate": 0.5 + self.rng.below(8) as f64 / 8.0 })),
            14 => (What::Other, json!({ "type": "URL_CHANGE", "url": format!("https://example.org/{next}") })),
            15 => (
                What::Other,
                json!({ "type": "SYNC_PLAYBACK", "currentTime": next, "isPlaying": self.rng.percent(50) }),
            ),
            16..=17 => (What::Other, json!({ "type": "TOGGLE_GUEST_CONTROL", "enabled": self.rng.percent(60) })),
            18..=19 => (What::Transfer(somebody), json!({ "type": "TRANSFER_HOST", "targetUserId": somebody })),
            20 | 36 | 37 => (What::Kick(somebody), json!({ "type": "KICK", "targetUserId": somebody })),
            21 | 38 | 39 if self.rng.percent(60) => (What::Other, json!({ "type": "BAN", "targetUserId": somebody })),
            22 => (What::Other, json!({ "type": "UNBAN", "targetUserId": somebody })),
            23 | 40 | 41 if self.rng.percent(25) => (What::Other, json!({ "type": "SET_PIN", "pin": PIN })),
            23 => (What::Other, json!({ "type": "SET_PIN", "pin": null })),
            24 => (What::Other, json!({ "type": "UPDATE_USERNAME", "username": format!("{somebody} {next}") })),
            25 => (What::Sync, json!({ "type": "REQUEST_SYNC" })),
            26 => {
                let buffering = self.rng.percent(50);
                self.status(client, buffering).await;
                return;
            }
            27 => (What::Other, json!({ "type": "HOST_HEARTBEAT", "currentTime": next, "isPlaying": true })),
            28..=30 => {
                self.signal(client, somebody).await;
                return;
            }
            31..=33 => {
                let gate = self.clients[client].heard.iter().rev().find_map(|heard| match heard {
                    Heard::Event { json, .. } | Heard::State { json, .. } => json["gate"]["id"].as_u64(),
                    _ => None,
                });
                (What::Other, json!({ "type": "READY", "gateId": gate }))
            }
            34..=35 => {
                let state = if self.rng.percent(80) { "ready" } else { "failed" };
                let duration = 5000 + self.rng.below(3);
                (What::Other, json!({ "type": "PLAYER", "state": state, "duration": duration }))
            }
            _ => {
                self.tick(client).await;
                return;
            }
        };
        self.ask(client, &room, what, message).await;
    }
}
