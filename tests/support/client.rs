//! A scripted client over any transport, which checks the order of events while it reads.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

pub(crate) use super::carrier::{Carrier, Incoming};
use super::carrier::{CarrierLink, Connected};
use super::server::{Place, soon};

/// Frames that may wait unread at a client; more wait on the wire.
const INBOX: usize = 4096;

/// A connection, and what it knows of its room.
pub(crate) struct Client {
    carrier: Carrier,
    place: Place,
    link: CarrierLink,
    inbox: mpsc::Receiver<Incoming>,
    waiting: VecDeque<Incoming>,
    reading: Option<DropGuard>,
    /// This client's place in the room's order.
    head: Option<(u64, u64)>,
    /// The latest ROOM_STATE.
    pub(crate) state: Value,
    user: String,
    room: String,
    next_ref: u64,
}

impl Client {
    pub(crate) async fn connect(carrier: Carrier, place: &Place) -> Result<Self, String> {
        Self::with_inbox(carrier, place, INBOX).await
    }

    /// A small inbox makes a client that soon stops reading.
    pub(crate) async fn with_inbox(carrier: Carrier, place: &Place, inbox: usize) -> Result<Self, String> {
        let Connected { link, inbox, reading } = Connected::by(carrier, place, inbox).await?;
        Ok(Self {
            carrier,
            place: place.clone(),
            link,
            inbox,
            waiting: VecDeque::new(),
            reading: Some(reading),
            head: None,
            state: Value::Null,
            user: String::new(),
            room: String::new(),
            next_ref: 0,
        })
    }

    pub(crate) fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// The server that it is connected to.
    pub(crate) fn place(&self) -> Place {
        self.place.clone()
    }

    // ---- what it does ----

    /// Sends text as it is. `false`: the connection is gone.
    pub(crate) async fn send_text(&mut self, text: &str) -> bool {
        soon("a message to leave", self.link.send(text)).await
    }

    pub(crate) async fn send(&mut self, message: Value) -> bool {
        self.send_text(&message.to_string()).await
    }

    /// Sends a message with a reference, and returns the reference.
    pub(crate) async fn ask(&mut self, mut message: Value) -> u64 {
        self.next_ref += 1;
        message["ref"] = self.next_ref.into();
        self.send(message).await;
        self.next_ref
    }

    pub(crate) async fn send_compact(&mut self, bytes: &[u8]) {
        assert!(self.try_send_compact(bytes).await, "the connection is gone");
    }

    /// `false`: the connection is gone.
    pub(crate) async fn try_send_compact(&mut self, bytes: &[u8]) -> bool {
        self.link.send_compact(bytes).await
    }

    /// Sends JOIN and nothing else. `extra` adds to or replaces the fields.
    pub(crate) async fn ask_to_join(&mut self, room: &str, user: &str, extra: Value) {
        let mut join = json!({"type": "JOIN", "roomId": room, "userId": user, "username": user.to_uppercase()});
        for (name, value) in extra.as_object().into_iter().flatten() {
            join[name] = value.clone();
        }
        (self.room, self.user) = (room.to_owned(), user.to_owned());
        self.send(join).await;
    }

    /// Joins; ROOM_STATE is the first thing it hears.
    pub(crate) async fn join_with(&mut self, room: &str, user: &str, extra: Value) -> Value {
        self.ask_to_join(room, user, extra).await;
        self.expect("ROOM_STATE").await
    }

    /// Joins as a v3 client.
    pub(crate) async fn join(&mut self, room: &str, user: &str) -> Value {
        self.join_with(room, user, json!({"protocol": 3})).await
    }

    /// Joins as a v2 client.
    pub(crate) async fn join_v2(&mut self, room: &str, user: &str) -> Value {
        self.join_with(room, user, json!({"timestamp": 1})).await
    }

    /// Comes back over this connection with the token of another.
    pub(crate) async fn resume(&mut self, before: &Value) -> Value {
        self.resume_with(before, json!({})).await
    }

    /// The same; `more` adds to the fields.
    pub(crate) async fn resume_with(&mut self, before: &Value, more: Value) -> Value {
        let text = |name: &str| before[name].as_str().unwrap().to_owned();
        let mut extra = json!({"protocol": 3, "resumeToken": text("resumeToken"), "epoch": before["epoch"], "lastSeq": before["seq"]});
        extra.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
        let (room, user) = (text("roomId"), text("userId"));
        self.join_with(&room, &user, extra).await
    }

    pub(crate) async fn play(&mut self, position: f64) {
        self.send(json!({"type": "PLAY_PAUSE", "control": "play", "currentTime": position})).await;
    }

    pub(crate) async fn pause(&mut self, position: f64) {
        self.send(json!({"type": "PLAY_PAUSE", "control": "pause", "currentTime": position})).await;
    }

    pub(crate) async fn seek(&mut self, position: f64, playing: bool) {
        self.send(json!({"type": "SEEK", "currentTime": position, "isPlaying": playing})).await;
    }

    /// Its player is ready, and gates wait for it from now on.
    pub(crate) async fn is_ready(&mut self) {
        self.send(json!({"type": "PLAYER", "state": "ready"})).await;
        self.until("PLAYER_STATE").await;
    }

    pub(crate) async fn chat(&mut self, text: &str) {
        self.send(json!({"type": "CHAT", "text": text})).await;
    }

    pub(crate) async fn leave(&mut self) {
        self.send(json!({"type": "LEAVE"})).await;
    }

    /// A tick of a v3 member at room time `at` ms.
    pub(crate) async fn tick(&mut self, seq: u32, position: f64, at: f64, playing: bool) {
        self.send_compact(&Tick::write(seq, position, at, playing)).await;
    }

    /// Its own measurements, as a v3 member tells them.
    pub(crate) async fn status(&mut self, status: &Status) {
        self.send_compact(&status.write()).await;
    }

    /// The next status of another member; other things are passed over.
    pub(crate) async fn heard_status(&mut self) -> Status {
        loop {
            let bytes = self.compact().await;
            if bytes[0] == Status::KIND {
                return Status::read(&bytes);
            }
        }
    }

    /// The next digest of the room; other things are passed over.
    pub(crate) async fn heard_digest(&mut self) -> Digest {
        loop {
            let bytes = self.compact().await;
            if bytes[0] == Digest::KIND {
                return Digest::read(&bytes);
            }
        }
    }

    /// Ends in order.
    pub(crate) async fn close(mut self) {
        self.link.close().await;
    }

    /// The cable is pulled: nothing is said, nothing answers any more. Keep the returned value for as long as it is
    /// out.
    pub(crate) fn stop_answering(&mut self) {
        // The reader answers WebSocket pings; QUIC's own keep-alive goes on.
        self.reading = None;
    }

    // ---- what it hears ----

    /// The next thing, whatever it is.
    pub(crate) async fn next(&mut self) -> Incoming {
        if let Some(incoming) = self.waiting.pop_front() {
            return incoming;
        }
        let who = format!("something for {}", self.user);
        let incoming = soon(&who, self.hear()).await;
        if let Incoming::Message(message) = &incoming {
            self.follow(message);
        }
        incoming
    }

    /// The next message without a check of its order, for callers that keep their own record. Cancel-safe.
    pub(crate) async fn hear(&mut self) -> Incoming {
        loop {
            let incoming = self.inbox.recv().await.unwrap_or(Incoming::Closed(None));
            match incoming {
                Incoming::Message(message) if message["type"] == "PROBE" => {
                    self.link.send(&json!({"type": "ALIVE", "id": message["id"]}).to_string()).await;
                }
                incoming if is_of_the_connection(&incoming) => {}
                incoming => return incoming,
            }
        }
    }

    /// Nothing has arrived that was not read.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.is_empty() && self.inbox.is_empty()
    }

    /// Everything that is there already.
    pub(crate) fn drain(&mut self) -> Vec<Incoming> {
        let mut all: Vec<_> = self.waiting.drain(..).collect();
        while let Ok(incoming) = self.inbox.try_recv() {
            if is_of_the_connection(&incoming) {
                continue;
            }
            if let Incoming::Message(message) = &incoming {
                self.follow(message);
            }
            all.push(incoming);
        }
        all
    }

    /// Every event comes once and in order.
    fn follow(&mut self, message: &Value) {
        let (Some(epoch), Some(seq)) = (message["epoch"].as_u64(), message["seq"].as_u64()) else { return };
        match message["type"].as_str() {
            Some("ROOM_STATE") => {
                // The token comes with a JOIN only.
                let token = self.state["resumeToken"].clone();
                self.state = message.clone();
                if self.state["resumeToken"].is_null() {
                    self.state["resumeToken"] = token;
                }
                self.head = Some((epoch, seq));
            }
            Some("ACK") => assert!(self.head >= Some((epoch, seq)), "an ACK comes after its event: {message}"),
            // What was missed while away is sent again.
            Some("CHAT") if self.head >= Some((epoch, seq)) => {}
            _ => {
                let (known, last) = self.head.unwrap_or_else(|| panic!("{message} before ROOM_STATE"));
                // ROSTER and PASSED stand for several events, of which `seq` is the last.
                let events = message["events"].as_u64().unwrap_or(1);
                assert_eq!((epoch, seq), (known, last + events), "{} saw {message} out of order", self.user);
                self.head = Some((epoch, seq));
                self.state["seq"] = seq.into();
            }
        }
    }

    /// The next message; compact ones are passed over.
    pub(crate) async fn message(&mut self) -> Value {
        loop {
            match self.next().await {
                Incoming::Message(message) => return message,
                Incoming::Compact(_) => {}
                Incoming::Closed(end) => panic!("{} was closed: {end:?}", self.user),
            }
        }
    }

    /// The next message must be of this type.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        let message = self.message().await;
        assert_eq!(message["type"], kind, "{} got {message}", self.user);
        message
    }

    /// The next message of this type; others are passed over.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let message = self.message().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// The next message must be ERROR with this code.
    pub(crate) async fn refused(&mut self, code: &str) -> Value {
        let error = self.expect("ERROR").await;
        assert_eq!(error["code"], code, "{error}");
        error
    }

    /// The next compact message; others are passed over.
    pub(crate) async fn compact(&mut self) -> Vec<u8> {
        loop {
            match self.next().await {
                Incoming::Compact(bytes) => return bytes,
                Incoming::Message(_) => {}
                Incoming::Closed(end) => panic!("{} was closed: {end:?}", self.user),
            }
        }
    }

    /// Reads on to the end: what came, and how it ended.
    pub(crate) async fn read_to_end(&mut self) -> (Vec<Value>, Option<(u32, String)>) {
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                Incoming::Message(message) => messages.push(message),
                Incoming::Compact(_) => {}
                Incoming::Closed(end) => return (messages, end),
            }
        }
    }

    /// The server closes, with this code where the client can tell it.
    pub(crate) async fn closed_with(&mut self, code: u32) {
        let (messages, end) = self.read_to_end().await;
        match end {
            Some((given, reason)) => assert_eq!(given, code, "{} ended: {reason}, after {messages:?}", self.user),
            None => assert_eq!(self.carrier, Carrier::Wtransport, "{} ended without a code", self.user),
        }
    }

    /// Nothing has come, and nothing is under way: what the server had to say before a PONG is said.
    pub(crate) async fn hears_nothing(&mut self) {
        self.send(json!({"type": "PING", "timestamp": 4711})).await;
        let message = self.message().await;
        assert_eq!(message["type"], "PONG", "{} got {message}", self.user);
    }

    /// Room time now, as the server's clock reply says it, ms.
    pub(crate) async fn room_time(&mut self) -> f64 {
        let mut probe = vec![1, 0, 0, 9];
        probe.extend(0f64.to_be_bytes());
        let id = [2, 0, 0, 9];
        self.send_compact(&probe).await;
        loop {
            let reply = self.compact().await;
            if reply.starts_with(&id) {
                return f64::from_be_bytes(reply[20..28].try_into().unwrap());
            }
        }
    }
}

/// A tick as it arrives: slot, host flag, playing, seq, position, at.
#[derive(Debug, PartialEq)]
pub(crate) struct Tick {
    pub(crate) slot: u64,
    pub(crate) from_host: bool,
    pub(crate) playing: bool,
    pub(crate) seq: u32,
    pub(crate) position: f64,
    pub(crate) at: f64,
}

impl Tick {
    /// A tick as a client sends it. Slot and host flag are wrong: the server must replace them.
    pub(crate) fn write(seq: u32, position: f64, at: f64, playing: bool) -> Vec<u8> {
        let mut bytes = vec![3, u8::from(playing) | 2, 0x7f, 0xff];
        bytes.extend(seq.to_be_bytes());
        bytes.extend(position.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(1f32.to_be_bytes());
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        assert_eq!((bytes.len(), bytes[0]), (28, 3), "a tick");
        Self {
            slot: u16::from_be_bytes([bytes[2], bytes[3]]).into(),
            from_host: bytes[1] & 2 != 0,
            playing: bytes[1] & 1 != 0,
            seq: u32::from_be_bytes(bytes[4..8].try_into().unwrap()),
            position: f64::from_be_bytes(bytes[8..16].try_into().unwrap()),
            at: f64::from_be_bytes(bytes[16..24].try_into().unwrap()),
        }
    }
}

/// A status: measurements in µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Status {
    pub(crate) slot: u16,
    pub(crate) seq: u32,
    pub(crate) buffering: bool,
    pub(crate) in_call: bool,
    pub(crate) webtransport: bool,
    pub(crate) rtt: Option<i32>,
    pub(crate) drift: Option<i32>,
    pub(crate) clock_error: Option<i32>,
}

impl Status {
    pub(crate) const KIND: u8 = 4;

    pub(crate) fn write(&self) -> Vec<u8> {
        let measured = [self.rtt, self.drift, self.clock_error];
        let flags = [
            self.buffering,
            self.rtt.is_some(),
            self.drift.is_some(),
            self.clock_error.is_some(),
            self.in_call,
            self.webtransport,
        ];
        let flags = flags.iter().enumerate().map(|(bit, holds)| u8::from(*holds) << bit).sum();
        let mut bytes = vec![Self::KIND, flags];
        bytes.extend(self.slot.to_be_bytes());
        bytes.extend(self.seq.to_be_bytes());
        bytes.extend(measured.into_iter().flat_map(|micros| micros.unwrap_or(0).to_be_bytes()));
        bytes
    }

    pub(crate) fn read(bytes: &[u8]) -> Self {
        assert_eq!((bytes.len(), bytes[0]), (20, Self::KIND), "a status");
        let flag = |bit: u8| bytes[1] & 1 << bit != 0;
        let micros = |start: usize| i32::from_be_bytes(bytes[start..start + 4].try_into().unwrap());
        Self {
            slot: u16::from_be_bytes([bytes[2], bytes[3]]),
            seq: u32::from_be_bytes(bytes[4..8].try_into().unwrap()),
            buffering: flag(0),
            in_call: flag(4),
            webtransport: flag(5),
            rtt: flag(1).then(|| micros(8)),
            drift: flag(2).then(|| micros(12)),
            clock_error: flag(3).then(|| micros(16)),
        }
    }
}

/// A large room's digest: measurements in µs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) members: u16,
    pub(crate) audience: u32,
    pub(crate) measured: u32,
    pub(crate) in_step: u32,
    pub(crate) buffering: u32,
    /// Median and 95th percentile.
    pub(crate) distance: Option<[i32; 2]>,
    /// Slot, buffering, drift.
    pub(crate) stand_outs: Vec<(u16, bool, Option<i32>)>,
}

impl Digest {
    pub(crate) const KIND: u8 = 5;

    pub(crate) fn read(bytes: &[u8]) -> Self {
        assert_eq!((bytes[0], (bytes.len() - 28) % 7), (Self::KIND, 0), "a digest");
        let number = |start: usize| u32::from_be_bytes(bytes[start..start + 4].try_into().unwrap());
        let drift = |one: &[u8]| i32::from_be_bytes(one[3..].try_into().unwrap());
        let stand_out =
            |one: &[u8]| (u16::from_be_bytes([one[0], one[1]]), one[2] & 1 != 0, (one[2] & 4 != 0).then(|| drift(one)));
        Self {
            members: u16::from_be_bytes([bytes[2], bytes[3]]),
            audience: number(4),
            measured: number(8),
            in_step: number(12),
            buffering: number(16),
            distance: (bytes[1] & 1 != 0).then(|| [number(20), number(24)].map(u32::cast_signed)),
            stand_outs: bytes[28..].chunks(7).map(stand_out).collect(),
        }
    }
}

/// PROBE and CLOSING belong to the connection; tests are about rooms.
fn is_of_the_connection(incoming: &Incoming) -> bool {
    matches!(incoming, Incoming::Message(message) if message["type"] == "PROBE" || message["type"] == "CLOSING")
}
