//! v2's extension, unchanged, in one room with a v3 member: how far its player is from where the room is, in virtual
//! time. A v3 member follows the room's vector; here it is the vector itself.

#![expect(clippy::disallowed_methods, reason = "the page's own clock, lines and tasks, which end with the test")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory_server.rs"]
mod memory_server;
#[path = "support/memory_transport.rs"]
mod memory_transport;
#[path = "support/v2_extension.rs"]
mod v2_extension;

use std::time::Duration;

use bytes::Bytes;
use memory_server::MemoryServer;
use memory_transport::{Delivered, MemoryClient};
use serde_json::{Value, json};
use tandem::domain::{Limits, RoomId};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep};
use v2_extension::{Machine, V2Viewer};

const ROOM: &str = "friday";
/// The promise.
const STEADY_S: f64 = 0.100;
const PLAYING_AFTER_SEEK: Duration = Duration::from_millis(1500);
/// After a command: so long a player may be on its way.
const SETTLING: Duration = Duration::from_secs(6);
/// How long a v3 player needs to be ready after a seek.
const V3_READY: Duration = Duration::from_millis(300);

const fn machine(way: u64, start: u64, seek: u64, clock_error: i64) -> Machine {
    Machine {
        way: Duration::from_millis(way),
        start: Duration::from_millis(start),
        seek: Duration::from_millis(seek),
        clock_error,
    }
}

const MACHINES: [Machine; 6] = [
    machine(1, 20, 60, 0),
    machine(20, 80, 200, 0),
    machine(60, 150, 400, 0),
    machine(20, 110, 700, 0),
    machine(20, 80, 200, 2000),
    machine(20, 80, 200, -2000),
];

struct Evening {
    server: MemoryServer,
    viewer: V2Viewer,
    vera: UnboundedSender<Value>,
}

impl Evening {
    /// Vera (v3) and Vic (v2) in a room; the first to come is host.
    async fn begins(machine: Machine, v2_hosts: bool) -> Self {
        let server = MemoryServer::without_rates(Limits::default());
        let enter = async |v2: bool| {
            if v2 {
                let (line, viewer) = V2Viewer::arrives("vic", ROOM, machine, server.services.clock.clone());
                server.serve(line);
                sleep(Duration::from_secs(1)).await;
                return (Some(viewer), None);
            }
            let client = server.connect();
            let (vera, commands) = unbounded_channel();
            tokio::spawn(v3_member(client, commands));
            sleep(Duration::from_secs(1)).await;
            (None, Some(vera))
        };
        let (first, second) = (enter(v2_hosts).await, enter(!v2_hosts).await);
        let (viewer, vera) = (first.0.or(second.0).unwrap(), first.1.or(second.1).unwrap());
        let evening = Self { server, viewer, vera };
        if !v2_hosts {
            evening.vera(json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true}));
        } else {
            evening.vera(json!({"type": "CHAT", "text": "hello"}));
        }
        evening.vera(json!({"type": "PLAYER", "state": "ready"}));
        // The extension reports no position of 0: its player shows itself by being somewhere.
        evening.viewer.seeks_to(10.0);
        sleep(SETTLING).await;
        evening
    }

    fn vera(&self, message: Value) {
        self.vera.send(message).unwrap();
    }

    fn room_moves(&self) -> bool {
        let room = self.server.services.hub.inspect(&RoomId::parse(ROOM).unwrap()).unwrap();
        let playback = room.playback();
        playback.playing && playback.at <= self.server.services.clock.now()
    }

    /// How far the v2 player is ahead of the room.
    fn apart(&self) -> f64 {
        let room = self.server.services.hub.inspect(&RoomId::parse(ROOM).unwrap()).unwrap();
        self.viewer.player.lock().position() - room.playback().position_at(self.server.services.clock.now()).seconds()
    }

    /// Both play, and stay together.
    async fn is_steady(&self, what: &str) {
        sleep(SETTLING).await;
        assert!(self.room_moves() && self.viewer.player.lock().moves(), "{what}: both play");
        let seeks = self.viewer.player.lock().seeks;
        for _ in 0..150 {
            sleep(Duration::from_millis(100)).await;
            let apart = self.apart();
            assert!(apart.abs() <= STEADY_S, "{what}: {apart:.3} s apart");
        }
        assert_eq!(self.viewer.player.lock().seeks, seeks, "{what}: a player in step is left alone");
    }

    async fn stands_together(&self, what: &str) {
        sleep(SETTLING).await;
        assert!(!self.room_moves() && !self.viewer.player.lock().playing, "{what}: both stand");
        assert!(self.apart().abs() <= STEADY_S, "{what}: {:.3} s apart", self.apart());
    }

    /// Both are playing again soon after a seek.
    async fn plays_soon(&self, what: &str, within: Duration) {
        let began = Instant::now();
        // The seek is on its way.
        sleep(Duration::from_millis(150)).await;
        while !(self.room_moves() && self.viewer.player.lock().moves()) {
            assert!(began.elapsed() <= within, "{what}: not playing after {:?}", began.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A v3 client: ready some time after each seek.
async fn v3_member(mut client: MemoryClient, mut commands: tokio::sync::mpsc::UnboundedReceiver<Value>) {
    let say = |message: Value| Bytes::from(message.to_string());
    client.message(say(json!({"type": "JOIN", "protocol": 3, "roomId": ROOM, "userId": "vera"}))).await;
    let mut ready: Option<(Instant, Value)> = None;
    loop {
        let due = ready.as_ref().map(|(at, _)| *at);
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => drop(client.message(say(command)).await),
                None => return,
            },
            () = async { tokio::time::sleep_until(due.unwrap()).await }, if due.is_some() => {
                client.message(say(ready.take().unwrap().1)).await;
            }
            delivered = client.recv() => match delivered {
                Some(Delivered::Message(text)) => {
                    let message: Value = serde_json::from_slice(&text).unwrap();
                    if message["type"] == "SEEK_PAUSE" && !message["gate"].is_null() {
                        let answer = json!({"type": "READY", "gateId": message["gateId"], "targetTime": message["currentTime"]});
                        ready = Some((Instant::now() + V3_READY, answer));
                    }
                }
                Some(_) => {}
                None => return,
            },
        }
    }
}

/// Each kind of command, by each of the two.
async fn an_evening_with(machine: Machine, v2_hosts: bool) {
    let evening = Evening::begins(machine, v2_hosts).await;
    let name = |what: &str| format!("{what} ({machine:?}, v2 hosts: {v2_hosts})");
    // The extension waits for its own seek, then its player for the film.
    let soon = PLAYING_AFTER_SEEK.max(machine.seek * 2 + Duration::from_millis(700));
    if !v2_hosts {
        evening.vera(json!({"type": "PLAY_PAUSE", "control": "play"}));
        evening.is_steady(&name("v3 plays")).await;
        evening.vera(json!({"type": "SEEK", "currentTime": 60.0}));
        evening.plays_soon(&name("v3 seeks"), soon).await;
        evening.is_steady(&name("v3 seeks")).await;
        evening.vera(json!({"type": "PLAY_PAUSE", "control": "pause"}));
        evening.stands_together(&name("v3 pauses")).await;
    }
    evening.viewer.plays();
    evening.is_steady(&name("v2 plays")).await;
    evening.viewer.seeks_to(200.0);
    evening.plays_soon(&name("v2 seeks"), soon + machine.seek).await;
    evening.is_steady(&name("v2 seeks")).await;
    evening.viewer.pauses();
    evening.stands_together(&name("v2 pauses")).await;
    evening.viewer.plays();
    evening.is_steady(&name("v2 plays again")).await;
}

#[tokio::test(start_paused = true)]
async fn a_v2_guest_stays_in_step_with_a_v3_host() {
    for machine in MACHINES {
        an_evening_with(machine, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_v3_guest_stays_in_step_with_a_v2_host() {
    for machine in MACHINES {
        an_evening_with(machine, true).await;
    }
}
