//! Plays arbitrary bytes as a script of room commands, and asserts the room's invariants after each step. Used by
//! `tests/room_properties.rs` and by the fuzz target.

mod room_commands;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tandem::domain::{Dialect, Head, Limits, Player, PlayerState, RoomId, RoomTime, UserId};
use tandem::room::{
    Actor, Ask, By, Cause, Command, ControlKey, Event, Gone, Join, LeaveReason, Member, MemberConnection, PinProof,
    Playback, Reject, Room,
};

use room_commands::{PINS, Script, USERS, actor_of, asked, for_hosts, moves, pin_of};

/// Commands of a script under the fuzzer: it makes long scripts of short ones when they reach something new, and the
/// time of an execution grows with its commands.
const FUZZED_COMMANDS: usize = 16;
/// One event in so many goes through its stored form under the fuzzer: writing and reading JSON costs more than the
/// rest of a step, and the codec of an event doesn't depend on the room.
const FUZZED_EVENTS: u32 = 16;

/// Plays the script as the fuzzer does: bounded, for thousands of executions a second.
pub fn run(data: &[u8]) {
    let mut script = Script::new(data);
    let mut stage = Stage::new(&mut script);
    stage.stored_every = FUZZED_EVENTS;
    for _ in 0..FUZZED_COMMANDS {
        if script.is_over() {
            break;
        }
        stage.turn(&mut script);
    }
    // A replica that diverged stays diverged.
    stage.check_record();
    stage.everybody_leaves();
}

/// Plays the script and counts what occurred in it, by the names of events and refusals.
pub fn play(data: &[u8]) -> BTreeMap<String, usize> {
    let mut script = Script::new(data);
    let mut stage = Stage::new(&mut script);
    while !script.is_over() {
        stage.turn(&mut script);
        stage.check_record();
    }
    stage.everybody_leaves();
    stage.seen
}

/// The room, its clock, and what is kept to compare with.
struct Stage {
    room: Room,
    limits: Limits,
    now: RoomTime,
    /// The latest `now` so far: clocks of nodes differ by some ms.
    latest: RoomTime,
    /// A copy that applies the same events, through their stored form.
    replica: Room,
    /// The last slot given in the epoch.
    last_slot: u16,
    /// The last gate opened in the epoch.
    last_gate: u32,
    next_token: u8,
    /// Earlier commands, to be repeated.
    sent: Vec<Command>,
    seen: BTreeMap<String, usize>,
    /// One event in so many is applied to the replica through its stored form. Above 1, nothing is counted in `seen`.
    stored_every: u32,
    events: u32,
}

impl Stage {
    fn new(script: &mut Script<'_>) -> Self {
        let limits = Limits {
            room_members: 2 + u64::from(script.byte() % 4),
            room_bans: u64::from(script.byte() % 4),
            room_address_members: 1 + u64::from(script.byte() % 4),
            room_keep_minutes: [240, 0, 1][usize::from(script.byte()) % 3],
            kick_cooldown_secs: [60, 0][usize::from(script.byte()) % 2],
            grace_secs: [30, 1, 0][usize::from(script.byte()) % 3],
            max_lead_ms: u64::from(script.byte()) * 3,
            ..Limits::default()
        };
        let room = Room::vacant(RoomId::parse("friday").expect("an id"), Head::default());
        Self {
            replica: room.clone(),
            room,
            limits,
            now: RoomTime::from_millis(1_795_000_000_000),
            latest: RoomTime::default(),
            last_slot: 0,
            last_gate: 0,
            next_token: 0,
            sent: Vec::new(),
            seen: BTreeMap::new(),
            stored_every: 1,
            events: 0,
        }
    }

    /// Plays one command of the script.
    fn turn(&mut self, script: &mut Script<'_>) {
        self.advance(script);
        let command = self.command(script);
        self.step(&command);
        // Gates wait only for ready players: most members that join report one at once.
        if let Command::Join(join) = &command
            && !script.byte().is_multiple_of(4)
        {
            let by = Actor { user: join.user.clone(), session: join.session.clone() };
            let player = Player::of(PlayerState::Ready);
            self.step(&Command::Asked { by, lead: Duration::ZERO, ask: Ask::Player { player, film: None } });
        }
    }

    /// Advances the clock; sometimes exactly to the room's deadline, sometimes back: nodes' clocks differ.
    fn advance(&mut self, script: &mut Script<'_>) {
        let byte = script.byte();
        let step = Duration::from_millis(u64::from(byte % 32));
        self.now = match byte {
            0..=99 => self.now + step,
            100..=179 => self.now + step * 25,
            180..=209 => self.now + step * 400,
            210..=219 => self.now + step * 10_000_000,
            220..=229 => self.now - step,
            _ => self.room.next_deadline().unwrap_or(self.now).max(self.now),
        };
    }

    fn note(&mut self, what: impl Into<String>) {
        if self.stored_every == 1 {
            *self.seen.entry(what.into()).or_default() += 1;
        }
    }

    fn step(&mut self, command: &Command) {
        self.latest = self.latest.max(self.now);
        let before = self.room.clone();
        let outcome = before.decide(self.now, command, &self.limits);
        assert_eq!(outcome, before.clone().decide(self.now, command, &self.limits), "decide depends on something else");
        assert_eq!(before, self.room, "decide changed the room");
        self.check_authority(&before, command, &outcome);
        match outcome {
            Err(reject) if self.stored_every == 1 => {
                self.note(format!("{reject:?}").split(['(', ' ']).next().unwrap_or_default());
            }
            Err(_) => {}
            Ok(events) => {
                if events.is_empty() {
                    self.note("nothing");
                }
                for event in &events {
                    self.take(event);
                }
                self.check_decision(&before, command, &events);
            }
        }
        self.check_room();
    }

    /// Applies an event to the room and, through its stored form, to the replica.
    fn take(&mut self, event: &Event) {
        let head = self.room.head();
        let playback = *self.room.playback();
        if let Event::Resumed { user, proved: Some(proved), .. } = event {
            assert!(self.room.member(user).is_some_and(|member| member.knows(proved)), "proved with nothing");
        }
        self.note(event.kind());
        self.room.apply(event);
        match event {
            Event::Created { epoch, .. } => {
                assert!(*epoch > head.epoch, "an epoch that is not later");
                assert_eq!(self.room.head(), Head { epoch: *epoch, seq: 1 });
                (self.last_slot, self.last_gate) = (1, 0);
                assert_eq!(self.room.playback().seq, 1);
            }
            _ => assert_eq!(self.room.head(), Head { epoch: head.epoch, seq: head.seq + 1 }),
        }
        match event {
            Event::Joined { slot, .. } => {
                assert!(slot.0 > self.last_slot, "a slot was given twice");
                self.last_slot = slot.0;
            }
            Event::Resumed { user, token, proved: Some(proved), .. } => {
                let member = self.room.member(user).expect("who returns is a member");
                assert_eq!((member.token, member.previous_token), (*token, Some(*proved)));
                assert_eq!(*self.room.playback(), playback);
            }
            Event::Sought { playback, gate, .. } => {
                self.check_vector(playback);
                if let Some(gate) = gate {
                    assert!(gate.id > self.last_gate, "a gate's number was given twice");
                    self.last_gate = gate.id;
                }
            }
            Event::Moved { cause: Cause::Rate, playback, .. } if !playback.playing => self.check_vector(playback),
            Event::Moved { playback, .. } | Event::UrlChanged { playback, .. } | Event::Adopted { playback, .. } => {
                self.check_vector(playback);
                let end = self.room.duration().map_or(f64::INFINITY, |end| end.seconds());
                assert!(playback.position.seconds() <= end, "beyond the end of the film");
            }
            Event::Kept { kept, playback, .. } => {
                self.check_vector(playback);
                assert!(!playback.playing && self.room.live_sessions().is_empty() && !self.room.is_vacant());
                assert_eq!(self.room.next_deadline(), Some(kept.until));
            }
            Event::Created { .. } | Event::Ended { .. } => {}
            _ => assert_eq!(*self.room.playback(), playback, "{event:?} moved the playback"),
        }
        self.events += 1;
        if !self.events.is_multiple_of(self.stored_every) {
            return self.replica.apply(event);
        }
        let stored: Event =
            serde_json::from_str(&serde_json::to_string(event).expect("an event is stored")).expect("and read");
        assert_eq!(stored, *event);
        self.replica.apply(&stored);
    }

    fn check_vector(&self, playback: &Playback) {
        assert_eq!(playback, self.room.playback());
        assert_eq!(playback.seq, self.room.head().seq, "a vector names the event that set it");
        let latest = self.latest + Duration::from_millis(self.limits.max_lead_ms);
        assert!(playback.at <= latest, "scheduled too far ahead");
    }

    /// Asserts that the command's sender had the right to it.
    fn check_authority(&self, before: &Room, command: &Command, outcome: &Result<Vec<Event>, Reject>) {
        let Some(by) = actor_of(command) else { return };
        if !before.member(&by.user).is_some_and(|member| member.is_on(&by.session)) {
            assert_eq!(*outcome, Err(Reject::NotMember), "somebody spoke for a member");
        } else if for_hosts(command) && !before.is_host(&by.user) {
            assert_eq!(*outcome, Err(Reject::NotHost));
        } else if moves(command) && !before.may_control(&by.user) {
            assert_eq!(*outcome, Err(Reject::NotInControl));
        }
    }

    fn check_decision(&self, before: &Room, command: &Command, events: &[Event]) {
        for event in events {
            let (by, what) = match event {
                Event::Moved { by: By::Server, cause: Cause::Ended, playback, .. } => {
                    assert!(!playback.playing && Some(playback.position) == self.room.duration(), "not at its end");
                    assert!(matches!(command, Command::Deadline { .. }), "ended of itself");
                    continue;
                }
                Event::Moved { by: By::Server, .. } => {
                    assert!(
                        before.gate().is_some() || matches!(asked(command), Some(Ask::Seek { .. })),
                        "played of itself"
                    );
                    continue;
                }
                Event::Moved { by: By::Member(user), cause: Cause::Correction, .. } => {
                    assert!(before.is_host(user), "corrected by somebody else");
                    assert_eq!(before.gate(), None);
                    continue;
                }
                Event::Kept { .. } => {
                    assert!(matches!(command, Command::Deadline { may_keep: true, .. }), "kept of itself");
                    assert!(self.limits.room_keep_minutes > 0 && before.kept().is_none());
                    continue;
                }
                Event::Moved { by: By::Member(user), .. } => (user, "moved"),
                Event::Sought { by, .. } => (by, "sought"),
                Event::UrlChanged { by, .. } => (by, "changed the film"),
                Event::Adopted { by, .. } => (by, "was adopted"),
                _ => continue,
            };
            assert!(before.may_control(by), "{by} {what} without the right");
            assert_eq!(actor_of(command).map(|actor| &actor.user), Some(by));
        }
        if let Command::Join(join) = command {
            self.check_entry(before, join, events);
        }
        if let Command::Deadline { .. } = command {
            let due = |room: &Room| room.next_deadline().is_some_and(|at| at <= self.now);
            assert_eq!(due(before), !events.is_empty(), "a deadline fires when it is due, and only then");
            assert!(!due(&self.room), "a busy loop");
        }
        if let Some(Ask::PlayPause { .. } | Ask::Seek { .. }) = asked(command) {
            let again = self.room.decide(self.now, command, &self.limits);
            assert_eq!(again, Ok(vec![]), "the same command twice does something twice");
        }
        let ended = matches!(events.last(), Some(Event::Ended { .. }));
        assert_eq!(ended, self.room.is_vacant() && !before.is_vacant(), "a room ends with its last member");
    }

    /// Asserts that nobody entered without the PIN, or as a member without its token.
    fn check_entry(&self, before: &Room, join: &Join, events: &[Event]) {
        let admitted = |pin| join.pin == PinProof::Checked { against: pin, fits: true };
        let has_pin = || pin_of(before).is_none_or(admitted);
        for event in events {
            match event {
                Event::Joined { user, .. } => {
                    let was_lost = before
                        .gone()
                        .get(user)
                        .is_some_and(|gone| gone.reason == LeaveReason::Lost && join.presented == Some(gone.token));
                    assert!((has_pin() || was_lost) && before.member(user).is_none() && !before.bans().contains(user));
                    let banned = |client| before.ban_keys().values().any(|banned| *banned == client);
                    assert!(!join.origin.client.is_some_and(banned), "a banned client is in");
                    let kept_out = |(other, gone): (&UserId, &Gone)| {
                        let same = other == user || gone.origin.is_client(&join.origin);
                        same && gone.kept_out_until.is_some_and(|until| until > self.now)
                    };
                    assert!(!before.gone().iter().any(kept_out), "back before its time");
                    let same = |member: &&Member| member.origin.address == join.origin.address;
                    let places = self.room.members().values().filter(same).count() as u64;
                    assert!(join.origin.address.is_none() || places <= self.limits.room_address_members);
                }
                Event::Resumed { user, proved, moved, .. } => {
                    let member = before.member(user).expect("who returns is a member");
                    let v2 = (member.dialect, join.dialect) == (Dialect::V2, Dialect::V2);
                    let v3 = (member.dialect, join.dialect) == (Dialect::V3, Dialect::V3);
                    assert!(!moved || (join.moves && v3 && proved.is_some() && member.is_live()));
                    match proved {
                        Some(token) => assert!(member.knows(token) && join.presented == Some(*token)),
                        None => assert!(v2 && !member.is_live() && join.presented.is_none() && has_pin()),
                    }
                }
                Event::Created { .. } => assert!(before.is_vacant()),
                _ => {}
            }
        }
    }

    fn check_room(&self) {
        let room = &self.room;
        assert_eq!(room.host().is_some(), !room.is_vacant());
        assert!(room.host().is_none_or(|host| room.member(host).is_some()), "the host is no member");
        assert!(room.members().len() as u64 <= self.limits.room_members);
        assert!(room.bans().len() as u64 <= self.limits.room_bans);
        assert!(room.bans().iter().all(|user| room.member(user).is_none()), "a ban does not hold");
        assert!(room.ban_keys().keys().all(|user| room.bans().contains(user)));
        assert!(room.gone().len() <= Gone::KEPT && room.gone().keys().all(|user| room.member(user).is_none()));
        if let Some(kept) = room.kept() {
            assert!(room.live_sessions().is_empty() && !room.playback().playing && room.gate().is_none());
            assert_eq!(room.next_deadline(), Some(kept.until));
        }
        if room.is_vacant() {
            assert_eq!(*room, Room::vacant(room.id().clone(), room.head()), "something outlived its room");
        }

        let slots: BTreeSet<_> = room.members().values().map(|member| member.slot.0).collect();
        assert_eq!(slots.len(), room.members().len(), "two members have one slot");
        assert!(slots.iter().all(|slot| (1..=self.last_slot).contains(slot)));

        let mut sessions = BTreeSet::new();
        for member in room.members().values() {
            assert!(member.recent.len() <= ControlKey::KEPT);
            if let MemberConnection::Live(session) = &member.connection {
                assert!(sessions.insert(session.to_string()), "one session is two members");
            }
        }

        let position = room.playback().position.seconds();
        assert!((0.0..=self.limits.position_secs as f64).contains(&position));
        for at in [RoomTime::default(), self.now, self.now + Duration::from_secs(1 << 32)] {
            let position = room.playback().position_at(at).seconds();
            assert!(position.is_finite() && position >= 0.0);
        }
        assert!((0.25..=4.0).contains(&room.playback().rate.factor()));

        if let Some(gate) = room.gate() {
            let live = |user: &UserId| room.member(user).is_some_and(|member| member.is_live());
            assert!(gate.awaiting.iter().chain(&gate.ready).all(live), "the gate counts somebody who is not there");
            let plays = |user: &UserId| {
                room.member(user)
                    .is_some_and(|member| !matches!(member.player.state, PlayerState::None | PlayerState::Failed))
            };
            assert!(gate.awaiting.iter().all(plays), "the gate waits for a player that can't answer");
            assert!(gate.awaiting.is_disjoint(&gate.ready));
            assert!(!gate.awaiting.is_empty(), "the gate waits for nobody");
            assert!(!room.playback().playing, "the film runs behind a closed gate");
            assert_eq!(room.playback().position, gate.target);
        }
    }

    /// Asserts that the stored form is the room, and that the replica is equal.
    fn check_record(&self) {
        let record = serde_json::to_string(&self.room).expect("a room is stored");
        let read: Room = serde_json::from_str(&record).expect("and read");
        assert_eq!(read, self.room, "the record is not the room");
        assert_eq!(self.replica, self.room, "the replica went astray");
    }

    /// Ends the script: every room can be left, and then nothing of it stays.
    fn everybody_leaves(&mut self) {
        let members: Vec<_> = self.room.members().iter().map(|(user, member)| (user.clone(), member.clone())).collect();
        for (user, member) in members {
            if let MemberConnection::Live(session) = member.connection {
                self.step(&Command::Leave { by: Actor { user, session } });
            }
        }
        while let Some(at) = self.room.next_deadline() {
            self.now = self.now.max(at);
            self.step(&Command::Deadline { lead: Duration::ZERO, may_keep: true });
        }
        assert!(self.room.is_vacant());
        self.check_record();
        let record = serde_json::to_string(&self.room).expect("a record");
        for secret in PINS.iter().chain(&USERS).chain(&["https://example.org/film"]) {
            assert!(!record.contains(&format!("\"{secret}\"")), "{secret} outlived the room");
        }
    }
}
