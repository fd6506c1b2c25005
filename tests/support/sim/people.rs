//! What people do.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use serde_json::{Value, json};
use tandem::domain::Head;
use tandem::session::transport::Frame;

use super::{Heard, Line, ROOMS, World};

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
    pub(crate) line: Option<usize>,
    /// JOIN was refused for want of the PIN.
    pub(crate) gives_pin: bool,
}

/// Something asked with a reference, to be found again in the log or at another client.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: usize,
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
    /// A v3 member's is answered with ROOM_STATE.
    Sync,
    Other,
}

impl Person {
    pub(crate) fn new(index: usize, dialect: u8) -> Self {
        Self { name: NAMES[index], dialect, tokens: BTreeMap::new(), last_seen: None, line: None, gives_pin: false }
    }
}

impl World {
    /// Dials a node; the line before is left as it is.
    pub(crate) fn dial(&mut self, person: usize, place: usize) -> usize {
        let client = self.connect(place);
        let node = self.node(place).name.clone();
        let excused = self.is_doubted(&node);
        self.lines.push(Line {
            person,
            node,
            client: Some(client),
            heard: Vec::new(),
            session: None,
            room: None,
            last_seen: None,
            excused,
            silent: false,
            renamed: false,
        });
        self.people[person].line = Some(self.lines.len() - 1);
        self.lines.len() - 1
    }

    pub(crate) async fn join(&mut self, line: usize, room: &str) -> u64 {
        let person = self.people[self.lines[line].person].clone();
        let mut join = json!({ "type": "JOIN", "roomId": room, "userId": person.name, "username": person.name });
        if person.dialect == 3 {
            join["protocol"] = 3.into();
            if let Some(token) = person.tokens.get(room) {
                join["resumeToken"] = token.as_str().into();
            }
            if let Some((_, seen)) = person.last_seen.as_ref().filter(|(seen_in, _)| seen_in == room) {
                (join["epoch"], join["lastSeq"]) = (seen.epoch.into(), seen.seq.into());
                self.lines[line].last_seen.get_or_insert(*seen);
            }
        }
        if person.gives_pin {
            join["pin"] = PIN.into();
        }
        self.ask(line, room, What::Join, join).await
    }

    /// Sends a message with a reference of its own.
    pub(crate) async fn ask(&mut self, line: usize, room: &str, what: What, mut message: Value) -> u64 {
        let reference = self.asked.len() as u64 + 1;
        message["ref"] = reference.into();
        let mut shown = message.clone();
        if let Some(token) = shown.get_mut("resumeToken") {
            *token = "…".into();
        }
        self.note(|| format!("line {line}: {shown}"));
        self.asked.insert(reference, Asked { line, room: room.to_owned(), what });
        if let Some(client) = &self.lines[line].client {
            client.message(message.to_string()).await;
        }
        reference
    }

    pub(crate) async fn chat(&mut self, line: usize) -> u64 {
        let next = self.asked.len() as u64 + 1;
        let room = self.lines[line].room.clone().unwrap();
        self.ask(line, &room, What::Chat, json!({ "type": "CHAT", "text": format!("chat {next}.") })).await
    }

    pub(crate) async fn signal(&mut self, line: usize, to: &'static str) -> u64 {
        let next = self.asked.len() as u64 + 1;
        let room = self.lines[line].room.clone().unwrap();
        let message = json!({ "type": "CUSTOM", "to": to, "namespace": "sim", "payload": { "n": next } });
        self.ask(line, &room, What::Signal(to), message).await
    }

    /// A position report of the line's player.
    pub(crate) async fn tick(&mut self, line: usize) -> u64 {
        let reference = self.asked.len() as u64 + 1;
        let room = self.lines[line].room.clone().unwrap();
        self.asked.insert(reference, Asked { line, room, what: What::Tick });
        let place =
            (0..self.nodes.len()).find(|p| self.nodes[*p].as_ref().is_some_and(|n| n.name == self.lines[line].node));
        let Some(place) = place else { return reference };
        let mut tick = BytesMut::new();
        tick.put_u8(3);
        tick.put_u8(self.dice.below(2) as u8);
        tick.put_u16(0);
        tick.put_u32(reference as u32);
        tick.put_f64(self.dice.below(100) as f64);
        tick.put_f64(self.node(place).now().as_millis_f64());
        tick.put_f32(1.0);
        if let Some(client) = &self.lines[line].client {
            client.send(Frame::Compact(tick.freeze())).await;
        }
        reference
    }

    pub(crate) fn hang_up(&mut self, line: usize) {
        self.note(|| format!("line {line} is cut"));
        self.lines[line].listen();
        (self.lines[line].client, self.lines[line].excused) = (None, true);
    }

    /// Whether this line ever heard the payload of a signal.
    pub(crate) fn heard_signal(&self, line: usize, reference: u64) -> usize {
        let is_it = |heard: &&Heard| matches!(heard, Heard::Notice(json) if json["payload"]["n"] == reference);
        self.lines[line].heard.iter().filter(is_it).count()
    }

    pub(crate) fn acked(&self, reference: u64) -> Option<Head> {
        let line = &self.lines[self.asked[&reference].line];
        line.heard.iter().find_map(|heard| match heard {
            Heard::Ack { reference: of, head } if *of == reference => Some(*head),
            _ => None,
        })
    }

    pub(crate) fn refused(&self, reference: u64) -> Option<&str> {
        self.lines[self.asked[&reference].line].refusal(reference)
    }

    /// Whether a JOIN of this line was refused because nobody knew what became of it: it may have got in, and is taken
    /// out again.
    pub(crate) fn join_was_unavailable(&self, line: &Line) -> bool {
        line.heard.iter().any(|heard| match heard {
            Heard::Refused { reference: Some(of), code } => code == "UNAVAILABLE" && self.asked[of].what == What::Join,
            _ => false,
        })
    }

    // ---- at random

    fn lines_in(&self) -> Vec<usize> {
        (0..self.lines.len()).filter(|line| self.lines[*line].is_in()).collect()
    }

    /// A person without a connection dials; or one that has one does so too, and takes its own place.
    pub(super) async fn somebody_connects(&mut self) {
        let person = self.dice.below(self.people.len());
        let alive = self.alive();
        let Some(place) = self.dice.pick(&alive) else { return };
        let connected = self.people[person].line.is_some_and(|line| self.lines[line].is_open());
        if connected && self.dice.percent(70) {
            return;
        }
        let room = if self.dice.percent(75) { ROOMS[0] } else { ROOMS[1] };
        let line = match self.people[person].line {
            // A JOIN repeated, or for another room, over the same session.
            Some(line) if connected && self.dice.percent(30) => line,
            _ => self.dial(person, place),
        };
        self.learn_pin(person);
        self.join(line, room).await;
        if self.dice.percent(5) {
            // Gone before the answer comes.
            self.hang_up(line);
        }
    }

    pub(crate) fn learn_pin(&mut self, person: usize) {
        let lines = self.lines.iter().filter(|line| line.person == person);
        let wanted = lines.flat_map(|line| &line.heard).rev().find_map(|heard| match heard {
            Heard::Refused { code, .. } => Some(code == "PIN_REQUIRED"),
            Heard::State { json, .. } => Some(json["hasPin"] == true),
            _ => None,
        });
        self.people[person].gives_pin = wanted.unwrap_or(false);
    }

    /// A session asks to be somebody else, and is reset before, while or just after that is decided.
    pub(super) async fn somebody_becomes_somebody_else(&mut self) {
        let lines = self.lines_in();
        let Some(line) = self.dice.pick(&lines) else { return };
        let room = self.lines[line].room.clone().unwrap();
        let guest = format!("guest-{}", self.asked.len());
        let dialect = self.people[self.lines[line].person].dialect;
        let mut join = json!({ "type": "JOIN", "roomId": room, "userId": guest, "username": guest, "pin": PIN });
        if dialect == 3 {
            join["protocol"] = 3.into();
        }
        self.lines[line].listen();
        self.lines[line].renamed = true;
        self.ask(line, &room, What::Join, join).await;
        let patience = self.dice.millis(5);
        tokio::time::sleep(patience).await;
        self.hang_up(line);
    }

    pub(super) async fn somebody_hangs_up(&mut self) {
        let lines = self.lines_in();
        let Some(line) = self.dice.pick(&lines) else { return };
        if self.dice.percent(30)
            && let Some(client) = &self.lines[line].client
        {
            client.close().await;
        }
        self.hang_up(line);
    }

    pub(super) fn somebody_falls_silent(&mut self) {
        let lines = self.lines_in();
        let Some(line) = self.dice.pick(&lines) else { return };
        self.note(|| format!("line {line} falls silent"));
        let line = &mut self.lines[line];
        (line.silent, line.excused) = (true, true);
        if let Some(client) = &line.client {
            client.go_silent();
        }
    }

    pub(super) async fn somebody_leaves(&mut self) {
        let lines = self.lines_in();
        let Some(line) = self.dice.pick(&lines) else { return };
        let room = self.lines[line].room.clone().unwrap();
        self.ask(line, &room, What::Other, json!({ "type": "LEAVE" })).await;
        self.lines[line].excused = true;
    }

    pub(super) async fn somebody_asks(&mut self) {
        let lines = self.lines_in();
        let Some(line) = self.dice.pick(&lines) else { return };
        let room = self.lines[line].room.clone().unwrap();
        let next = self.asked.len() as u64 + 1;
        let names: Vec<_> = self.people.iter().map(|person| person.name).collect();
        let somebody = self.dice.pick(&names).unwrap();
        let (what, message) = match self.dice.below(36) {
            0..=5 => (What::Chat, json!({ "type": "CHAT", "text": format!("chat {next}.") })),
            6 => (What::Custom, json!({ "type": "CUSTOM", "namespace": "sim", "payload": { "n": next } })),
            7..=9 => (What::Moves, json!({ "type": "PLAY_PAUSE", "control": "play", "currentTime": next })),
            10 => (What::Moves, json!({ "type": "PLAY_PAUSE", "control": "pause", "currentTime": next })),
            11..=12 => {
                (What::Moves, json!({ "type": "SEEK", "currentTime": next, "isPlaying": self.dice.percent(70) }))
            }
            13 => (What::Other, json!({ "type": "SET_RATE", "rate": 0.5 + self.dice.below(8) as f64 / 8.0 })),
            14 => (What::Other, json!({ "type": "URL_CHANGE", "url": format!("https://example.org/{next}") })),
            15 => (
                What::Other,
                json!({ "type": "SYNC_PLAYBACK", "currentTime": next, "isPlaying": self.dice.percent(50) }),
            ),
            16..=17 => (What::Other, json!({ "type": "TOGGLE_GUEST_CONTROL", "enabled": self.dice.percent(60) })),
            18..=19 => (What::Transfer(somebody), json!({ "type": "TRANSFER_HOST", "targetUserId": somebody })),
            20 => (What::Kick(somebody), json!({ "type": "KICK", "targetUserId": somebody })),
            21 if self.dice.percent(30) => (What::Other, json!({ "type": "BAN", "targetUserId": somebody })),
            22 => (What::Other, json!({ "type": "UNBAN", "targetUserId": somebody })),
            23 if self.dice.percent(25) => (What::Other, json!({ "type": "SET_PIN", "pin": PIN })),
            23 => (What::Other, json!({ "type": "SET_PIN", "pin": null })),
            24 => (What::Other, json!({ "type": "UPDATE_USERNAME", "username": format!("{somebody} {next}") })),
            25 => (What::Sync, json!({ "type": "REQUEST_SYNC" })),
            26 => (What::Other, json!({ "type": "MEMBER_STATUS", "buffering": true, "rttMs": 12.5 })),
            27 => (What::Other, json!({ "type": "HOST_HEARTBEAT", "currentTime": next, "isPlaying": true })),
            28..=30 => {
                self.signal(line, somebody).await;
                return;
            }
            31 => {
                let gate = self.lines[line].heard.iter().rev().find_map(|heard| match heard {
                    Heard::Event { json, .. } | Heard::State { json, .. } => json["gate"]["id"].as_u64(),
                    _ => None,
                });
                (What::Other, json!({ "type": "READY", "gateId": gate }))
            }
            34..=35 => {
                let state = if self.dice.percent(80) { "ready" } else { "failed" };
                let duration = 5000 + self.dice.below(3);
                (What::Other, json!({ "type": "PLAYER", "state": state, "duration": duration }))
            }
            _ => {
                self.tick(line).await;
                return;
            }
        };
        self.ask(line, &room, what, message).await;
    }
}
