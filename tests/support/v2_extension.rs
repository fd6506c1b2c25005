//! v2's browser extension, simulated in virtual time: a line with a delay, a player that needs time to start and to
//! seek, and the extension's own rules (`shared/wire-v2.md`; read from its source):
//! * it acts when a message arrives and never schedules; its own messages come back and are ignored;
//! * a playing position is carried forward by `Date.now() - eventTimestamp`, if there is one;
//! * PLAY_PAUSE seeks first if its player is more than 0.5 s off; HOST_HEARTBEAT seeks from 0.5 s on; SEEK seeks
//!   always;
//! * SEEK_PAUSE seeks, pauses, and sends READY when the player has data; the seeker's own player goes on;
//! * for some time after each of them events of its player are not told to the room, and its position isn't either.

#![expect(clippy::disallowed_methods, reason = "the page's own clock, lines and tasks, which end with the test")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tandem::clock::Clock;
use tandem::domain::{CloseCode, TransportKind};
use tandem::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, Interval, interval, sleep_until};

/// A frame on a line, with the moment at which it arrives.
type InFlight<T> = (Instant, T);

/// A line with the same delay in both directions.
pub(crate) struct DelayedLine {
    inbound: DelayedInbound,
    outbound: DelayedOutbound,
}

pub(crate) struct DelayedInbound {
    frames: UnboundedReceiver<InFlight<Frame>>,
    next: Option<InFlight<Frame>>,
}

pub(crate) struct DelayedOutbound {
    way: Duration,
    to_client: UnboundedSender<InFlight<Bytes>>,
    pongs: UnboundedSender<InFlight<Frame>>,
}

impl Transport for DelayedLine {
    type Inbound = DelayedInbound;
    type Outbound = DelayedOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::WebSocket
    }

    fn peer(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn split(self) -> (DelayedInbound, DelayedOutbound) {
        (self.inbound, self.outbound)
    }
}

impl Inbound for DelayedInbound {
    async fn next(&mut self) -> Result<Frame, TransportError> {
        if self.next.is_none() {
            self.next = Some(self.frames.recv().await.ok_or(TransportError::Lost("over".into()))?);
        }
        sleep_until(self.next.as_ref().unwrap().0).await;
        Ok(self.next.take().unwrap().1)
    }
}

impl Outbound for DelayedOutbound {
    async fn send(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), TransportError> {
        for frame in frames.drain(..) {
            match frame {
                Outgoing::Message(text) => drop(self.to_client.send((Instant::now() + self.way, text))),
                Outgoing::Ping => {
                    let rtt = self.way * 2;
                    drop(self.pongs.send((Instant::now() + rtt, Frame::Alive { rtt: Some(rtt) })));
                }
                Outgoing::Compact(_) | Outgoing::Drain => {}
            }
        }
        Ok(())
    }

    async fn close(self, _: CloseCode, _: &str) {}
}

/// The line, the player and the clock of a machine with the extension.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// One way to the server.
    pub(crate) way: Duration,
    /// From `play()` to moving film.
    pub(crate) start: Duration,
    /// From a seek to moving film.
    pub(crate) seek: Duration,
    /// Its clock is ahead of room time by so much, ms.
    pub(crate) clock_error: i64,
}

/// A player that plays, with time that `play()` and seeks take.
pub(crate) struct VirtualPlayer {
    machine: Machine,
    base: f64,
    pub(crate) playing: bool,
    moves_at: Instant,
    seeked_at: Option<Instant>,
    pub(crate) seeks: usize,
}

impl VirtualPlayer {
    fn new(machine: Machine) -> Self {
        Self { machine, base: 0.0, playing: false, moves_at: Instant::now(), seeked_at: None, seeks: 0 }
    }

    pub(crate) fn position(&self) -> f64 {
        let moved = if self.playing { Instant::now().saturating_duration_since(self.moves_at) } else { Duration::ZERO };
        self.base + moved.as_secs_f64()
    }

    pub(crate) fn moves(&self) -> bool {
        self.playing && Instant::now() >= self.moves_at
    }

    fn play(&mut self) {
        if !self.playing {
            self.playing = true;
            let start = Instant::now() + self.machine.start;
            self.moves_at = self.seeked_at.map_or(start, |seeked| seeked.max(start));
        }
    }

    fn pause(&mut self) {
        self.base = self.position();
        self.playing = false;
    }

    fn seek(&mut self, to: f64) {
        let done = Instant::now() + self.machine.seek;
        (self.base, self.seeked_at, self.moves_at) = (to, Some(done), done);
        self.seeks += 1;
    }
}

/// An act of a person at the player.
enum Press {
    Play,
    Pause,
    Seek(f64),
}

/// A person with the extension.
pub(crate) struct V2Viewer {
    pub(crate) player: Arc<Mutex<VirtualPlayer>>,
    presses: UnboundedSender<Press>,
}

impl V2Viewer {
    /// The transport for the server, and the viewer at its other end, who joins.
    pub(crate) fn arrives(user: &'static str, room: &str, machine: Machine, clock: Clock) -> (DelayedLine, Self) {
        let (to_server, at_server) = unbounded_channel();
        let (to_client, at_client) = unbounded_channel();
        let (presses, pressed) = unbounded_channel();
        let player = Arc::new(Mutex::new(VirtualPlayer::new(machine)));
        let outbound = DelayedOutbound { way: machine.way, to_client, pongs: to_server.clone() };
        let line = DelayedLine { inbound: DelayedInbound { frames: at_server, next: None }, outbound };
        let extension = Extension {
            user,
            machine,
            clock,
            player: Arc::clone(&player),
            to_server,
            at_client,
            pressed,
            locked_until: Instant::now(),
            ready: None,
            host: String::new(),
            guests_control: false,
            initialized: false,
        };
        extension.send(json!({"type": "JOIN", "roomId": room, "userId": user, "username": user}));
        tokio::spawn(extension.run());
        (line, Self { player, presses })
    }

    pub(crate) fn plays(&self) {
        let _ = self.presses.send(Press::Play);
    }

    pub(crate) fn pauses(&self) {
        let _ = self.presses.send(Press::Pause);
    }

    pub(crate) fn seeks_to(&self, position: f64) {
        let _ = self.presses.send(Press::Seek(position));
    }
}

struct Extension {
    user: &'static str,
    machine: Machine,
    clock: Clock,
    player: Arc<Mutex<VirtualPlayer>>,
    to_server: UnboundedSender<InFlight<Frame>>,
    at_client: UnboundedReceiver<InFlight<Bytes>>,
    pressed: UnboundedReceiver<Press>,
    locked_until: Instant,
    /// READY for this target is due when the seek is done.
    ready: Option<f64>,
    host: String,
    guests_control: bool,
    initialized: bool,
}

impl Extension {
    async fn run(mut self) {
        let (mut report, mut heartbeat) = (interval(Duration::from_millis(500)), interval(Duration::from_secs(3)));
        let mut next: Option<InFlight<Bytes>> = None;
        loop {
            let seeked = self.player.lock().seeked_at;
            tokio::select! {
                biased;
                pressed = self.pressed.recv() => match pressed {
                    Some(press) => self.press(press),
                    None => return,
                },
                () = until(seeked) => self.seeked(),
                arrived = self.at_client.recv(), if next.is_none() => match arrived {
                    Some(arrived) => next = Some(arrived),
                    None => return,
                },
                () = until(next.as_ref().map(|(at, _)| *at)) => {
                    let message: Value = serde_json::from_slice(&next.take().unwrap().1).unwrap();
                    self.hear(&message);
                }
                () = ticked(&mut report) => self.report(),
                () = ticked(&mut heartbeat) => self.beat(),
            }
        }
    }

    fn send(&self, message: Value) {
        let at = Instant::now() + self.machine.way;
        let _ = self.to_server.send((at, Frame::Message(Bytes::from(message.to_string()))));
    }

    fn date_now(&self) -> f64 {
        self.clock.now().as_millis_f64() + self.machine.clock_error as f64
    }

    fn lock(&mut self, ms: u64) {
        self.locked_until = Instant::now() + Duration::from_millis(ms);
    }

    fn is_locked(&self) -> bool {
        Instant::now() < self.locked_until
    }

    fn may_tell(&self) -> bool {
        !self.is_locked() && self.initialized && (self.host == self.user || self.guests_control)
    }

    fn press(&mut self, press: Press) {
        let mut player = self.player.lock();
        let control = match press {
            Press::Play => {
                player.play();
                "play"
            }
            Press::Pause => {
                player.pause();
                "pause"
            }
            // Told when the player has done it.
            Press::Seek(to) => return player.seek(to),
        };
        let position = player.position();
        drop(player);
        if self.may_tell() {
            let now = self.date_now();
            self.send(
                json!({"type": "PLAY_PAUSE", "control": control, "currentTime": position, "eventTimestamp": now}),
            );
        }
    }

    /// The player's own event.
    fn seeked(&mut self) {
        let (position, playing) = {
            let mut player = self.player.lock();
            player.seeked_at = None;
            (player.position(), player.playing)
        };
        if let Some(target) = self.ready.take() {
            self.send(json!({"type": "READY", "targetTime": target}));
        }
        if self.may_tell() {
            let now = self.date_now();
            self.send(json!({"type": "SEEK", "currentTime": position, "isPlaying": playing, "eventTimestamp": now}));
        }
    }

    fn report(&mut self) {
        let player = self.player.lock();
        let (position, playing) = (player.position(), player.playing);
        drop(player);
        if self.initialized && !self.is_locked() && position > 0.0 {
            self.send(json!({"type": "POSITION_UPDATE", "currentTime": position, "isPlaying": playing}));
        }
    }

    fn beat(&mut self) {
        if self.initialized && self.host == self.user {
            let player = self.player.lock();
            let beat = json!({"type": "HOST_HEARTBEAT", "currentTime": player.position(), "isPlaying": player.playing,
                "eventTimestamp": self.date_now()});
            drop(player);
            self.send(beat);
        }
    }

    /// `currentTime`, carried forward if the film moves.
    fn carried(&self, message: &Value, playing: bool) -> Option<f64> {
        let position = message["currentTime"].as_f64()?;
        match message["eventTimestamp"].as_f64() {
            Some(at) if playing && at > 0.0 => Some(position + (self.date_now() - at).max(0.0) / 1000.0),
            _ => Some(position),
        }
    }

    fn hear(&mut self, message: &Value) {
        let own = message["userId"] == self.user;
        let playing = message["isPlaying"] == true;
        match message["type"].as_str().unwrap() {
            "ROOM_STATE" => {
                self.host = message["hostUserId"].as_str().unwrap_or_default().to_owned();
                self.guests_control = message["guestControlEnabled"] == true;
                self.send(json!({"type": "REQUEST_SYNC"}));
            }
            "HOST_CHANGED" => self.host = message["hostUserId"].as_str().unwrap_or_default().to_owned(),
            "GUEST_CONTROL" => self.guests_control = message["enabled"] == true,
            "SYNC_RESPONSE" if !self.initialized => {
                self.initialized = true;
                self.lock(1500);
                self.go(message["currentTime"].as_f64(), playing);
            }
            "PLAY_PAUSE" if !own => {
                let play = message["control"] == "play";
                self.lock(1500);
                let position = self.carried(message, play).filter(|position| *position > 0.0);
                let mut player = self.player.lock();
                if let Some(position) = position.filter(|position| (player.position() - position).abs() > 0.5) {
                    player.seek(position);
                }
                if play { player.play() } else { player.pause() }
            }
            "SEEK" if !own => {
                self.lock(1200);
                let position = self.carried(message, playing);
                self.go(position, playing);
            }
            "SEEK_PAUSE" if !own => {
                self.lock(1500);
                self.ready = message["currentTime"].as_f64();
                self.go(self.ready, false);
            }
            "HOST_HEARTBEAT" if !own => {
                let position = self.carried(message, playing);
                let here = self.player.lock().position();
                if position.is_some_and(|position| (position - here).abs() >= 0.5) {
                    self.lock(600);
                    self.go(position, playing);
                }
            }
            _ => {}
        }
    }

    fn go(&mut self, position: Option<f64>, playing: bool) {
        let mut player = self.player.lock();
        if let Some(position) = position {
            player.seek(position);
        }
        if playing { player.play() } else { player.pause() }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn ticked(interval: &mut Interval) {
    interval.tick().await;
}
