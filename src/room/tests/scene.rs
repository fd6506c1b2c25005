//! A room, a clock that the test sets, members, and events as short texts.

use std::time::Duration;

use crate::domain::{
    AddressTag, ChatText, Dialect, Head, KeyHash, Limits, MediaTime, MediaUrl, NodeId, PinHash, Player, PlayerReason,
    PlayerState, Rate, RoomId, RoomTime, SessionRef, TokenHash, TransportKind, UserId, Username,
};
use crate::room::{
    Actor, Ask, Basis, By, Cause, Command, Control, Event, Join, Origin, OwnerClaim, PinProof, ReadyGate, Reject, Room,
};

/// Scene time 0, in room time.
pub(super) const START_MS: i64 = 1_795_000_000_000;

/// The lead of members' commands.
pub(super) const LEAD: Duration = Duration::from_millis(100);

pub(super) fn ms(at: i64) -> RoomTime {
    RoomTime::from_millis(START_MS + at)
}

pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub(super) fn token(number: u8) -> TokenHash {
    TokenHash::from_bytes([number; 32])
}

pub(super) fn pin_hash(text: &str) -> PinHash {
    serde_json::from_value(text.into()).unwrap()
}

pub(super) fn fitting(text: &str) -> PinProof {
    PinProof::Checked { against: pin_hash(text), fits: true }
}

pub(super) fn origin(client: u8, address: u16) -> Origin {
    Origin { client: Some(key(client)), address: Some(AddressTag::numbered(address)) }
}

pub(super) fn key(number: u8) -> KeyHash {
    KeyHash::from_bytes([number; 32])
}

pub(super) fn seconds(position: f64) -> MediaTime {
    MediaTime::parse(position, &Limits::default()).unwrap()
}

pub(super) fn url(text: &str) -> MediaUrl {
    MediaUrl::parse(text, &Default::default(), &Limits::default()).unwrap()
}

/// A user on one session; the session's number is also the token that its JOIN gets.
#[derive(Clone)]
pub(super) struct Person {
    pub(super) actor: Actor,
    pub(super) dialect: Dialect,
}

/// A v3 client; its session follows from its name.
pub(super) fn v3(name: &str) -> Person {
    let node = NodeId::parse("node-1").unwrap();
    let session = SessionRef { node, id: u64::from(name.as_bytes()[0]) };
    Person { actor: Actor { user: user(name), session }, dialect: Dialect::V3 }
}

/// A v2 client.
pub(super) fn v2(name: &str) -> Person {
    Person { dialect: Dialect::V2, ..v3(name) }
}

impl Person {
    /// The same user on another session.
    pub(super) fn on(&self, session: u64) -> Self {
        let mut other = self.clone();
        other.actor.session.id = session;
        other
    }

    pub(super) fn session(&self) -> SessionRef {
        self.actor.session.clone()
    }

    fn by(&self) -> Actor {
        self.actor.clone()
    }

    pub(super) fn join(&self) -> Join {
        Join {
            user: self.actor.user.clone(),
            name: None,
            session: self.session(),
            dialect: self.dialect,
            transport: TransportKind::WebSocket,
            presented: None,
            new_token: token(self.actor.session.id as u8),
            pin: PinProof::None,
            origin: Origin::default(),
            claim: OwnerClaim::default(),
            moves: false,
        }
    }

    /// With this client key and address class.
    pub(super) fn join_from(&self, client: u8, address: u16) -> Join {
        Join { origin: origin(client, address), ..self.join() }
    }

    pub(super) fn join_with(&self, presented: u8) -> Join {
        Join { presented: Some(token(presented)), ..self.join() }
    }

    /// From a session of the same page that is live.
    pub(super) fn move_with(&self, presented: u8) -> Join {
        Join { moves: true, ..self.join_with(presented) }
    }

    pub(super) fn join_with_pin(&self, pin: PinProof) -> Join {
        Join { pin, ..self.join() }
    }

    pub(super) fn leave(&self) -> Command {
        Command::Leave { by: self.by() }
    }

    pub(super) fn drop_out(&self) -> Command {
        Command::Disconnect { user: self.actor.user.clone(), session: self.session() }
    }

    pub(super) fn asks(&self, ask: Ask) -> Command {
        Command::Asked { by: self.by(), lead: LEAD, ask }
    }

    pub(super) fn rename(&self, name: &str) -> Command {
        self.asks(Ask::Rename { name: Username::parse(name, &Limits::default()).unwrap() })
    }

    pub(super) fn guests(&self, enabled: bool) -> Command {
        self.asks(Ask::SetGuestControl { enabled })
    }

    pub(super) fn hand_over(&self, target: &str) -> Command {
        self.asks(Ask::TransferHost { target: user(target) })
    }

    pub(super) fn kick(&self, target: &str) -> Command {
        self.asks(Ask::Kick { target: user(target) })
    }

    pub(super) fn ban(&self, target: &str) -> Command {
        self.asks(Ask::Ban { target: user(target) })
    }

    pub(super) fn unban(&self, target: &str) -> Command {
        self.asks(Ask::Unban { target: user(target) })
    }

    pub(super) fn set_pin(&self, pin: Option<&str>) -> Command {
        self.asks(Ask::SetPin { pin: pin.map(pin_hash) })
    }

    pub(super) fn control(&self, control: Control, position: Option<f64>, true_at: Option<i64>) -> Command {
        self.asks(Ask::PlayPause {
            control,
            position: position.map(seconds),
            true_at: true_at.map(ms),
            on: Basis::default(),
        })
    }

    pub(super) fn play(&self, position: f64) -> Command {
        self.control(Control::Play, Some(position), None)
    }

    pub(super) fn pause(&self, position: f64) -> Command {
        self.control(Control::Pause, Some(position), None)
    }

    pub(super) fn seek_at(&self, position: f64, resume: bool, true_at: Option<i64>) -> Command {
        self.seek_resuming(position, Some(resume), true_at)
    }

    pub(super) fn seek_resuming(&self, position: f64, resume: Option<bool>, true_at: Option<i64>) -> Command {
        let on = Basis::default();
        self.asks(Ask::Seek { position: seconds(position), resume, true_at: true_at.map(ms), on })
    }

    pub(super) fn seek(&self, position: f64) -> Command {
        self.seek_at(position, true, None)
    }

    pub(super) fn rate(&self, rate: f64) -> Command {
        self.asks(Ask::SetRate { rate: Rate::parse(rate).unwrap(), on: Basis::default() })
    }

    pub(super) fn show(&self, address: &str, position: f64) -> Command {
        self.asks(Ask::SetUrl { url: url(address), position: seconds(position) })
    }

    pub(super) fn adopt(&self, position: f64, playing: bool) -> Command {
        self.asks(Ask::Adopt { position: seconds(position), playing, url: None })
    }

    pub(super) fn correct(&self, position: f64, playing: bool, at: i64) -> Command {
        Command::Correct { host: self.actor.user.clone(), position: seconds(position), playing, at: ms(at) }
    }

    pub(super) fn ready(&self, gate: Option<u32>, target: Option<f64>) -> Command {
        self.asks(Ask::Ready { gate, target: target.map(seconds), film: None })
    }

    pub(super) fn shows(&self, player: Player, film: Option<u32>) -> Command {
        self.asks(Ask::Player { player, film })
    }

    pub(super) fn is_ready(&self) -> Command {
        self.shows(Player::of(PlayerState::Ready), None)
    }

    /// Its player has loaded a film of this length.
    pub(super) fn measures(&self, duration: f64) -> Command {
        self.shows(Player { duration: Some(seconds(duration)), ..Player::of(PlayerState::Ready) }, None)
    }

    /// Its player has the film, 90 s long, and can't keep up with it.
    pub(super) fn lags(&self, reason: &str) -> Command {
        let reason = Some(PlayerReason::parse(reason).unwrap());
        self.shows(Player { reason, duration: Some(seconds(90.0)), ..Player::of(PlayerState::Ready) }, None)
    }

    pub(super) fn fails(&self, reason: &str) -> Command {
        let reason = Some(PlayerReason::parse(reason).unwrap());
        self.shows(Player { reason, ..Player::of(PlayerState::Failed) }, None)
    }

    pub(super) fn say(&self, text: &str) -> Command {
        self.asks(Ask::Chat { text: ChatText::parse(text, &Limits::default()).unwrap() })
    }
}

impl From<Join> for Command {
    fn from(join: Join) -> Self {
        Self::Join(join)
    }
}

pub(super) struct Scene {
    pub(super) room: Room,
    pub(super) limits: Limits,
    now: RoomTime,
}

impl Scene {
    pub(super) fn new() -> Self {
        let room = Room::vacant(RoomId::parse("friday").unwrap(), Head::default());
        Self { room, limits: Limits::default(), now: ms(0) }
    }

    /// A room that these users created and entered, in this order, at time 0, each with a ready player.
    pub(super) fn of(people: &[&Person]) -> Self {
        let mut scene = Self::without_players(people);
        for person in people {
            scene.at(0).send(person.is_ready()).taken();
        }
        scene
    }

    /// The same, without players.
    pub(super) fn without_players(people: &[&Person]) -> Self {
        let mut scene = Self::new();
        for person in people {
            scene.at(0).send(person.join()).taken();
        }
        scene
    }

    /// Sets the clock to a scene time, ms.
    pub(super) fn at(&mut self, at: i64) -> &mut Self {
        self.now = ms(at);
        self
    }

    /// Decides a command, and applies the events.
    pub(super) fn send(&mut self, command: impl Into<Command>) -> Sent<'_> {
        let before = self.room.clone();
        let command = command.into();
        let outcome = self.room.decide(self.now, &command, &self.limits);
        for event in outcome.iter().flatten() {
            self.room.apply(event);
        }
        Sent { scene: self, before, outcome }
    }

    /// Sends the deadline command, as a hub does when the deadline is due.
    pub(super) fn deadline(&mut self) -> Sent<'_> {
        self.send(Command::Deadline { lead: LEAD, may_keep: true })
    }

    /// The position at a scene time.
    pub(super) fn position(&self, at: i64) -> f64 {
        self.room.playback.position_at(ms(at)).seconds()
    }

    pub(super) fn host(&self) -> &str {
        self.room.host.as_ref().unwrap().as_str()
    }

    pub(super) fn gate(&self) -> &ReadyGate {
        self.room.gate.as_ref().unwrap()
    }

    pub(super) fn slot(&self, name: &str) -> u16 {
        self.room.members[&user(name)].slot.0
    }
}

#[must_use = "say what should come of it"]
pub(super) struct Sent<'a> {
    scene: &'a mut Scene,
    before: Room,
    outcome: Result<Vec<Event>, Reject>,
}

impl<'a> Sent<'a> {
    #[track_caller]
    pub(super) fn expect(self, events: &[&str]) -> &'a mut Scene {
        let seen: Vec<_> = self.outcome.expect("the command was refused").iter().map(told).collect();
        assert_eq!(seen, events);
        self.scene
    }

    /// Accepted without an event.
    #[track_caller]
    pub(super) fn nothing(self) -> &'a mut Scene {
        assert_eq!(self.before, self.scene.room);
        self.expect(&[])
    }

    #[track_caller]
    pub(super) fn refused(self, reject: Reject) -> &'a mut Scene {
        assert_eq!(self.outcome, Err(reject));
        assert_eq!(self.before, self.scene.room, "a refused command changed the room");
        self.scene
    }

    /// Accepted with some event; another test checks which.
    #[track_caller]
    pub(super) fn taken(self) -> &'a mut Scene {
        assert_ne!(self.outcome, Ok(vec![]));
        assert!(self.outcome.is_ok(), "{:?}", self.outcome);
        self.scene
    }
}

/// An event as a short text; times are scene times, ms.
fn told(event: &Event) -> String {
    let time = |at: &RoomTime| at.as_millis() - START_MS;
    let vector = |playback: &crate::room::Playback| {
        let position = (playback.position.seconds() * 1000.0).round() / 1000.0;
        format!("{position} @{}", time(&playback.at))
    };
    match event {
        Event::Created { user, pin, .. } => format!("created by {user}{}", if pin.is_some() { ", pin" } else { "" }),
        Event::Joined { user, slot, .. } => format!("joined {user} #{}", slot.0),
        Event::Resumed { user, session, moved: true, .. } => format!("moved {user} to {}", session.id),
        Event::Resumed { user, session, proved, .. } => {
            format!("resumed {user} on {}{}", session.id, if proved.is_some() { ", proved" } else { "" })
        }
        Event::Disconnected { user, until, .. } => format!("lost {user} until {}", time(until)),
        Event::Left { user, reason, .. } => format!("left {user} {reason:?}").replace("Left", "left"),
        Event::Kept { kept, playback, .. } => format!("kept until {} {}", time(&kept.until), vector(playback)),
        Event::Renamed { user, name } => format!("renamed {user} {}", name.as_str()),
        Event::HostChanged { host } => format!("host {}", host.as_ref().map_or("none", UserId::as_str)),
        Event::GuestControl { enabled } => format!("guests {enabled}"),
        Event::PinChanged { pin } => format!("pin {}", pin.is_some()),
        Event::BansChanged { user, banned, .. } => format!("{} {user}", if *banned { "banned" } else { "unbanned" }),
        Event::Moved { by, cause, playback, .. } => {
            let who = match by {
                By::Member(user) => user.as_str(),
                By::Server => "server",
            };
            let what = match cause {
                Cause::Control(Control::Play) => "play".to_owned(),
                Cause::Control(Control::Pause) => "pause".to_owned(),
                Cause::Rate => format!("rate {}", playback.rate.factor()),
                Cause::Correction => format!("correct {}", playback.playing),
                Cause::Ended => "end".to_owned(),
            };
            format!("{who} {what} {}", vector(playback))
        }
        Event::Sought { by, playback, gate, .. } => {
            let gate = gate.as_ref().map(|gate| {
                let awaited: Vec<_> = gate.awaiting.iter().map(UserId::as_str).collect();
                format!(" gate {} [{}]", gate.id, awaited.join(" "))
            });
            format!("{by} seek {}{}", vector(playback), gate.unwrap_or_default())
        }
        Event::GateProgress { id, user } => format!("ready {user} for {id}"),
        Event::PlayerChanged { user, player, agreed } => {
            let state = player.state.as_str();
            format!(
                "player {user} {state}{}",
                agreed.map_or_else(String::new, |end| format!(", ends {}", end.seconds()))
            )
        }
        Event::UrlChanged { by, url, playback } => format!("{by} shows {} {}", url.as_str(), vector(playback)),
        Event::Adopted { by, playback, .. } => format!("{by} adopt {} {}", playback.playing, vector(playback)),
        Event::Chat { user, text, .. } => format!("{user}: {}", text.as_str()),
        Event::Custom { user, namespace, .. } => format!("{user} custom {}", namespace.as_str()),
        Event::AudienceCounted { count } => format!("{count} watch"),
        Event::Ended { .. } => "ended".to_owned(),
    }
}
