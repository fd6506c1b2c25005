//! Bytes to commands, and the properties of commands.

use std::time::Duration;

use tandem::domain::{
    AddressTag, ChatText, Dialect, KeyHash, Limits, MediaTime, MediaUrl, Namespace, NodeId, PinHash, Player,
    PlayerReason, PlayerState, Rate, RoomTime, SessionRef, TokenHash, TransportKind, UserId, Username,
};
use tandem::room::{Actor, Ask, Basis, Command, Control, Join, MemberConnection, Origin, OwnerClaim, PinProof, Room};

use super::Stage;

pub(super) const USERS: [&str; 5] = ["ann", "bob", "cat", "dan", "eve"];
pub(super) const PINS: [&str; 3] = ["one", "two", "three"];
const SESSIONS: u64 = 7;

/// Bytes as choices; past the end every byte is 0.
pub(super) struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(make(self)) } else { None }
    }

    fn user(&mut self) -> UserId {
        UserId::parse(USERS[usize::from(self.byte()) % USERS.len()]).expect("an id")
    }

    fn session(&mut self) -> SessionRef {
        let id = u64::from(self.byte()) % SESSIONS;
        SessionRef { node: NodeId::parse(if id < 4 { "node-1" } else { "node-2" }).expect("an id"), id }
    }

    fn pin(&mut self) -> PinHash {
        let text = PINS[usize::from(self.byte()) % PINS.len()];
        serde_json::from_value(text.into()).expect("any text is a hash to the room")
    }

    /// Few of them, so that they collide.
    fn key(&mut self) -> KeyHash {
        KeyHash::from_bytes([self.byte() % 4; 32])
    }

    fn origin(&mut self) -> Origin {
        let byte = self.byte();
        let address = byte.is_multiple_of(4).then(|| AddressTag::numbered(u16::from(byte / 4 % 3)));
        Origin { client: (byte >= 192).then(|| KeyHash::from_bytes([byte % 4; 32])), address }
    }

    fn lead(&mut self) -> Duration {
        Duration::from_millis(u64::from(self.byte()) * 4)
    }

    fn text(&mut self) -> &'static str {
        ["Ann", "Bob", "a name of some length"][usize::from(self.byte()) % 3]
    }

    fn position(&mut self, limits: &Limits) -> MediaTime {
        let largest = limits.position_secs as f64;
        let seconds = match self.byte() {
            byte @ 0..=99 => f64::from(byte) * 0.7,
            byte @ 100..=199 => f64::from(byte % 5) * 1000.1,
            200..=219 => largest,
            220..=229 => 1e-300,
            _ => largest * f64::from(self.byte()) / 256.0,
        };
        MediaTime::parse(seconds, limits).expect("in range")
    }

    fn control(&mut self) -> Control {
        if self.flag() { Control::Play } else { Control::Pause }
    }
}

impl Stage {
    pub(super) fn command(&mut self, script: &mut Script<'_>) -> Command {
        // Gates are rare, and READY is of no use without one.
        let kind = match script.byte() % 40 {
            // Rare, too: nothing depends on them.
            35 if script.byte() >= 192 => 40,
            36 if script.byte() >= 128 => 41,
            34..=36 => 22,
            37 | 38 => 28,
            other => other,
        };
        if kind == 39 && !self.sent.is_empty() {
            return self.sent[usize::from(script.byte()) % self.sent.len()].clone();
        }
        let command = self.new_command(kind, script);
        self.sent.push(command.clone());
        command
    }

    fn new_command(&mut self, kind: u8, script: &mut Script<'_>) -> Command {
        match kind {
            0..=7 => Command::Join(self.join(script)),
            8 => Command::Leave { by: self.actor(script) },
            9 | 10 => {
                let Actor { user, session } = self.actor(script);
                Command::Disconnect { user, session }
            }
            40 => Command::CountAudience { count: u32::from(script.byte()) },
            11 | 12 => Command::Deadline { lead: script.lead(), may_keep: !script.byte().is_multiple_of(4) },
            27 => Command::Correct {
                host: script.user(),
                position: script.position(&self.limits),
                playing: script.flag(),
                at: self.true_at(script).unwrap_or(self.now),
            },
            _ => {
                let by = self.actor(script);
                let ask = self.ask(kind, script);
                let lead = if ask.is_scheduled() { script.lead() } else { Duration::ZERO };
                Command::Asked { by, lead, ask }
            }
        }
    }

    fn ask(&self, kind: u8, script: &mut Script<'_>) -> Ask {
        match kind {
            13 => Ask::Rename { name: Username::parse(script.text(), &self.limits).expect("a name") },
            14 => Ask::SetGuestControl { enabled: script.flag() },
            15 => Ask::TransferHost { target: script.user() },
            16 => Ask::Kick { target: script.user() },
            17 => Ask::Ban { target: script.user() },
            41 => Ask::BanViewer { target: script.user(), client: script.maybe(Script::key) },
            18 => Ask::Unban { target: script.user() },
            19 => Ask::SetPin { pin: script.maybe(Script::pin) },
            20 | 21 => Ask::PlayPause {
                control: script.control(),
                position: script.maybe(|script| script.position(&self.limits)),
                true_at: self.true_at(script),
                on: self.basis(script),
            },
            22 | 23 => Ask::Seek {
                position: script.position(&self.limits),
                resume: [None, Some(false), Some(true), Some(true)][usize::from(script.byte()) % 4],
                true_at: self.true_at(script),
                on: self.basis(script),
            },
            24 => Ask::SetRate {
                rate: Rate::parse([0.25, 1.0, 1.1, 4.0][usize::from(script.byte() % 4)]).expect("a rate"),
                on: self.basis(script),
            },
            25 => Ask::SetUrl { url: self.url(), position: script.position(&self.limits) },
            26 => Ask::Adopt {
                position: script.position(&self.limits),
                playing: script.flag(),
                url: script.maybe(|_| self.url()),
            },
            28 | 29 => {
                let gate = self.room.gate();
                let gate_id = script.maybe(|script| gate.map_or(1, |gate| gate.id - u32::from(script.byte() % 8 == 0)));
                let target = script.maybe(|script| match gate {
                    Some(gate) if script.flag() => gate.target,
                    _ => script.position(&self.limits),
                });
                Ask::Ready { gate: gate_id, target, film: self.basis(script).film }
            }
            30..=32 => Ask::Player { player: self.player(script), film: self.basis(script).film },
            _ if script.flag() => Ask::Chat { text: ChatText::parse(script.text(), &self.limits).expect("a text") },
            _ => Ask::Custom {
                namespace: Namespace::parse("org.example").expect("a namespace"),
                payload: "{}".to_owned(),
            },
        }
    }

    /// Mostly nothing, or what the room shows; sometimes what it no longer shows.
    fn basis(&self, script: &mut Script<'_>) -> Basis {
        let byte = script.byte();
        let film = match byte % 8 {
            0..=3 => None,
            4..=6 => Some(self.room.film()),
            _ => Some(self.room.film().wrapping_sub(1)),
        };
        let gate = (byte >= 200).then(|| self.last_gate.wrapping_sub(u32::from(byte >= 240)));
        Basis { film, gate }
    }

    /// Mostly a ready player; some can't keep up.
    fn player(&self, script: &mut Script<'_>) -> Player {
        let byte = script.byte();
        let state = match byte % 8 {
            0 => PlayerState::None,
            1 => PlayerState::Loading,
            2 => PlayerState::Failed,
            _ => PlayerState::Ready,
        };
        let reason = match (state, byte % 8) {
            (PlayerState::Failed, _) => Some("decode"),
            (_, 7) => Some("slow"),
            _ => None,
        };
        Player {
            state,
            reason: reason.map(|reason| PlayerReason::parse(reason).expect("a reason")),
            duration: script.maybe(|script| script.position(&self.limits)),
        }
    }

    /// Mostly a member on its session, else any user on any session.
    fn actor(&self, script: &mut Script<'_>) -> Actor {
        let choice = script.byte();
        let live: Vec<_> = self
            .room
            .members()
            .iter()
            .filter_map(|(user, member)| match &member.connection {
                MemberConnection::Live(session) => Some(Actor { user: user.clone(), session: session.clone() }),
                MemberConnection::Lost { .. } => None,
            })
            .collect();
        if choice >= 230 || live.is_empty() {
            return Actor { user: script.user(), session: script.session() };
        }
        // The host acts more often.
        let host = live.iter().find(|actor| self.room.is_host(&actor.user));
        match host {
            Some(host) if choice < 110 => host.clone(),
            _ => live[usize::from(choice) % live.len()].clone(),
        }
    }

    fn join(&mut self, script: &mut Script<'_>) -> Join {
        let user = script.user();
        let known = self.room.member(&user);
        let presented = match script.byte() % 8 {
            0..=2 => known.map(|member| member.token),
            3 => {
                let gone = || self.room.gone().get(&user).map(|gone| gone.token);
                known.and_then(|member| member.previous_token).or_else(gone)
            }
            4 => Some(TokenHash::from_bytes([script.byte(); 32])),
            _ => None,
        };
        let pin = match script.byte() % 8 {
            0 => PinProof::None,
            1 => PinProof::Fresh(script.pin()),
            2 => PinProof::Checked { against: script.pin(), fits: script.flag() },
            3 => PinProof::Checked { against: pin_of(&self.room).unwrap_or_else(|| script.pin()), fits: false },
            // As the hub's check finds it.
            _ => pin_of(&self.room).map_or(PinProof::None, |against| PinProof::Checked { against, fits: true }),
        };
        self.next_token = self.next_token.wrapping_add(1);
        let dialect = if script.byte().is_multiple_of(3) { Dialect::V3 } else { Dialect::V2 };
        Join {
            user,
            name: script.maybe(|script| Username::parse(script.text(), &self.limits).expect("a name")),
            session: script.session(),
            dialect,
            transport: if script.flag() { TransportKind::WebTransport } else { TransportKind::WebSocket },
            presented,
            new_token: TokenHash::from_bytes([self.next_token; 32]),
            pin,
            origin: script.origin(),
            claim: OwnerClaim { host_key: script.maybe(Script::key), owner: script.maybe(Script::key) },
            // From no byte of its own: inputs kept from earlier versions say the same as before.
            moves: self.next_token.is_multiple_of(2),
        }
    }

    fn true_at(&self, script: &mut Script<'_>) -> Option<RoomTime> {
        let byte = script.byte();
        let offset = Duration::from_millis(u64::from(byte) * 16);
        match byte % 8 {
            0..=2 => None,
            3..=5 => Some(self.now - offset),
            6 => Some(self.now + offset),
            _ => RoomTime::from_millis_f64([-4.3e12, 0.0, 4.3e12][usize::from(byte / 8) % 3]),
        }
    }

    fn url(&self) -> MediaUrl {
        MediaUrl::parse("https://example.org/film", &Default::default(), &self.limits).expect("a url")
    }
}

pub(super) fn actor_of(command: &Command) -> Option<&Actor> {
    match command {
        Command::Join(_) | Command::Disconnect { .. } | Command::Deadline { .. } | Command::Correct { .. } => None,
        Command::CountAudience { .. } => None,
        Command::Leave { by } | Command::Asked { by, .. } => Some(by),
    }
}

pub(super) fn asked(command: &Command) -> Option<&Ask> {
    if let Command::Asked { ask, .. } = command { Some(ask) } else { None }
}

pub(super) fn for_hosts(command: &Command) -> bool {
    matches!(
        asked(command),
        Some(
            Ask::SetGuestControl { .. }
                | Ask::TransferHost { .. }
                | Ask::Kick { .. }
                | Ask::Ban { .. }
                | Ask::BanViewer { .. }
                | Ask::Unban { .. }
                | Ask::SetPin { .. }
        )
    )
}

pub(super) fn moves(command: &Command) -> bool {
    matches!(
        asked(command),
        Some(Ask::PlayPause { .. } | Ask::Seek { .. } | Ask::SetRate { .. } | Ask::SetUrl { .. } | Ask::Adopt { .. })
    )
}

/// Through the stored form: the hub's check sees no more either.
pub(super) fn pin_of(room: &Room) -> Option<PinHash> {
    let record = serde_json::to_value(room).expect("a record");
    serde_json::from_value(record["pin"].clone()).expect("a hash or null")
}
