//! The auditor: replays what the log said, and compares it with what every client saw.

use std::collections::BTreeMap;

use serde_json::Value;
use tandem::domain::{CloseCode, Head, RoomId, RoomTime};
use tandem::room::{By, Cause, Event, LeaveReason, MemberConnection, Room};

use super::people::What;
use super::{Committed, Heard, Line, World};

/// What happened, by the log alone.
pub(crate) struct Truth {
    /// Each room as it is after all of it.
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    /// Each event with the room before it, the room after it, and when.
    events: BTreeMap<(String, Head), Fact>,
    /// Members that were disconnected, and of these the ones whose JOIN had been answered with UNAVAILABLE.
    pub(crate) disconnected: usize,
    pub(crate) excused: usize,
}

struct Fact {
    event: Event,
    before: Room,
    after: Room,
    at: RoomTime,
}

impl Truth {
    pub(crate) fn of(commits: &[Committed], world: &World) -> Self {
        let mut truth = Self { rooms: BTreeMap::new(), events: BTreeMap::new(), disconnected: 0, excused: 0 };
        for Committed { room: id, expected, entries } in commits {
            let room = truth.rooms.entry(id.clone()).or_insert_with(|| Room::vacant(id.clone(), Head::default()));
            let anew = room.is_vacant() && *expected == Head::default();
            assert!(anew || *expected == room.head(), "{id}: a commit on {expected:?}, the head is {:?}", room.head());
            for entry in entries.iter() {
                let event: Event = serde_json::from_slice(&entry.body).unwrap();
                let before = room.clone();
                room.apply(&event);
                assert_eq!(room.head(), entry.head);
                let fact = Fact { event, before, after: room.clone(), at: entry.at };
                assert!(
                    truth.events.insert((id.to_string(), entry.head), fact).is_none(),
                    "{id} {:?} twice",
                    entry.head
                );
            }
        }
        let (mut disconnected, mut excused) = (0, 0);
        for ((room, head), fact) in &truth.events {
            disconnected += usize::from(matches!(fact.event, Event::Disconnected { .. }));
            let wrong = fact.breach(world);
            if wrong.is_some() && truth.was_never_told(world, room, *head, fact) {
                excused += 1;
                continue;
            }
            assert!(wrong.is_none(), "{room} {head:?}: {}: {:?}", wrong.unwrap_or_default(), fact.event);
        }
        (truth.disconnected, truth.excused) = (disconnected, excused);
        truth
    }

    /// Whether what ended was a membership of which its client never knew: the JOIN that made it was answered with
    /// UNAVAILABLE, though it was in, so it is taken out again. That excuses this membership and no other of the line.
    fn was_never_told(&self, world: &World, room: &str, head: Head, fact: &Fact) -> bool {
        let Event::Disconnected { user, .. } = &fact.event else { return false };
        let Some(MemberConnection::Live(session)) = fact.before.member(user).map(|member| &member.connection) else {
            return false;
        };
        let session = session.to_string();
        let makes_it = |event: &Event| match event {
            Event::Created { user: who, session: on, .. }
            | Event::Joined { user: who, session: on, .. }
            | Event::Resumed { user: who, session: on, .. } => who == user && on.to_string() == session,
            _ => false,
        };
        let earlier = self.events.range((room.to_owned(), Head::default())..(room.to_owned(), head)).rev();
        let Some(((_, began), _)) = earlier.map(|(at, fact)| (at, &fact.event)).find(|(_, event)| makes_it(event))
        else {
            return false;
        };
        // A line that never got ROOM_STATE doesn't know its session: only one that was refused can be meant.
        let lines = world.lines.iter().filter(|line| world.people[line.person].name == user.as_str());
        let mut lines = lines.filter(|line| line.session.as_ref().is_none_or(|known| *known == session));
        let told = |line: &Line| {
            line.heard.iter().any(|heard| match heard {
                Heard::State { room: of, head: at, .. } => of == room && at >= began && *at < head,
                _ => false,
            })
        };
        lines.any(|line| world.join_was_unavailable(line) && !told(line))
    }

    pub(crate) fn room(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name).filter(|room| !room.is_vacant())
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.events.values().map(|fact| fact.event.kind())
    }

    /// How often what was asked is in the log.
    fn times(&self, reference: u64, what: &What) -> usize {
        let is_it = |fact: &&Fact| match (&fact.event, what) {
            (Event::Chat { text, .. }, What::Chat) => text.as_str() == format!("chat {reference}."),
            (Event::Custom { payload, .. }, What::Custom) => *payload == format!("{{\"n\":{reference}}}"),
            (Event::Moved { key: Some(key), .. } | Event::Sought { key: Some(key), .. }, What::Moves) => {
                key.position.is_some_and(|position| position.seconds() == reference as f64)
            }
            _ => false,
        };
        self.events.values().filter(is_it).count()
    }

    /// Invariant 2, and what a refusal promises.
    pub(crate) fn check_answers(&self, world: &World) {
        for (reference, asked) in &world.asked {
            let answers = world.lines[asked.line].heard.iter().filter(|heard| match heard {
                Heard::Ack { reference: of, .. } => of == reference,
                Heard::Refused { reference: of, .. } => *of == Some(*reference),
                _ => false,
            });
            // The lane between nodes may say a thing twice, and so may the answer of whoever finds nobody.
            let most = if matches!(asked.what, What::Signal(_)) { 2 } else { 1 };
            assert!(answers.count() <= most, "{reference} was answered twice");
            if !matches!(asked.what, What::Chat | What::Custom | What::Moves) {
                if let (Some(head), What::Transfer(target)) = (world.acked(*reference), &asked.what)
                    && let Some(Fact { event: Event::HostChanged { host: Some(host) }, before, .. }) =
                        self.events.get(&(asked.room.clone(), head))
                {
                    // To oneself it does nothing, and is acknowledged at the head there is.
                    let by = world.people[world.lines[asked.line].person].name;
                    let by_host = before.host().is_some_and(|host| host.as_str() == by);
                    assert!(by_host || by == *target, "{by} made {host} the host");
                }
                continue;
            }
            let times = self.times(*reference, &asked.what);
            match (world.acked(*reference), world.refused(*reference)) {
                (Some(head), _) => {
                    assert_eq!(times, 1, "{asked:?} was acknowledged");
                    // In another room than the client thought, if its JOIN for that one was on its way.
                    let there = super::ROOMS.iter().any(|room| self.events.contains_key(&((*room).to_owned(), head)));
                    assert!(there, "{asked:?} at {head:?}");
                }
                (None, Some("UNAVAILABLE") | None) => assert!(times <= 1, "{asked:?} is in the log {times} times"),
                (None, Some(code)) => assert_eq!(times, 0, "{asked:?} was refused with {code}"),
            }
        }
    }

    /// Invariant 1: what clients saw is the log, in order, each event once.
    pub(crate) fn check_views(&self, world: &World) {
        let mut texts: BTreeMap<(String, Head), (usize, Value)> = BTreeMap::new();
        for (index, line) in world.lines.iter().enumerate() {
            let mut at: Option<(String, Head)> = None;
            let mut missed = None;
            for heard in &line.heard {
                match heard {
                    Heard::State { room, head, json } => {
                        let fact = self.events.get(&(room.clone(), *head));
                        let fact = fact.unwrap_or_else(|| panic!("line {index}: {room} never was at {head:?}"));
                        check_state(json, &fact.after, index);
                        match &at {
                            Some((known, before)) if known == room => assert!(head >= before, "line {index} went back"),
                            _ => missed = line.last_seen.filter(|seen| seen.epoch == head.epoch),
                        }
                        at = Some((room.clone(), *head));
                    }
                    Heard::Event { head, json } => {
                        let Some((room, before)) = at.clone() else { panic!("line {index}: {json} before ROOM_STATE") };
                        if *head <= before {
                            let caught_up = json["type"] == "CHAT" && missed.is_some_and(|seen| *head > seen);
                            assert!(caught_up, "line {index}: {json} again, or too late, at {before:?}");
                            missed = Some(*head);
                        } else {
                            let next = Head { epoch: before.epoch, seq: before.seq + 1 };
                            assert_eq!(*head, next, "line {index}: a gap: {json}");
                            missed = None;
                            at = Some((room.clone(), *head));
                        }
                        self.check_event(world, index, &room, *head, json);
                        let mut text = json.clone();
                        text["timestamp"] = Value::Null;
                        let (other, same) = texts.entry((room, *head)).or_insert((index, text.clone()));
                        assert_eq!(*same, text, "lines {other} and {index} saw different things");
                    }
                    Heard::Tick { slot, seq, .. } => check_tick(world, line, *slot, u64::from(*seq)),
                    Heard::Notice(json) => check_notice(world, line, json),
                    Heard::Ack { .. } | Heard::Refused { .. } | Heard::Closed(_) => {}
                }
            }
        }
    }

    fn check_event(&self, world: &World, line: usize, room: &str, head: Head, json: &Value) {
        let fact = self.events.get(&(room.to_owned(), head));
        let fact = fact.unwrap_or_else(|| panic!("line {line}: {json} is not in the log"));
        let kind = match json["type"].as_str().unwrap() {
            "USER_JOINED" => "member_joined",
            "USER_LEFT" => "member_left",
            "MEMBER_CONNECTION" if json["connected"] == true => "member_resumed",
            "MEMBER_CONNECTION" => "member_disconnected",
            "HOST_CHANGED" => "host_changed",
            "GUEST_CONTROL" => "guest_control",
            "USERNAME_UPDATED" => "member_renamed",
            "PIN_CHANGED" => "pin_changed",
            "BANS_CHANGED" => "bans_changed",
            "PLAY_PAUSE" if json["control"] == "play" => "play",
            "PLAY_PAUSE" if json["reason"] == "ended" => "film_ended",
            "PLAY_PAUSE" => "pause",
            "SEEK_PAUSE" => "seek",
            "RATE_CHANGED" => "rate",
            "URL_CHANGE" => "url_changed",
            "SYNC_PLAYBACK" => "playback_adopted",
            "PLAYBACK" => "correction",
            "READY_GATE" => "gate_progress",
            "PLAYER_STATE" => "player",
            "CHAT" => "chat",
            "CUSTOM" => "custom",
            other => panic!("{other} is no event"),
        };
        assert_eq!(kind, fact.event.kind(), "line {line}: {json}");
        let me = world.people[world.lines[line].person].name;
        let line_of = &world.lines[line];
        // Whoever is removed hears that, and nothing after it.
        let removed = matches!(json["reason"].as_str(), Some("kicked" | "banned")) && json["userId"] == me;
        let is_there = fact.after.members().keys().any(|user| user.as_str() == me);
        assert!(is_there || removed || line_of.renamed, "line {line}: {json} after {me} was gone");
    }

    /// Whoever is connected has seen everything, and every replica is the room.
    pub(crate) fn check_convergence(&self, world: &World) {
        for (index, line) in world.lines.iter().enumerate().filter(|(_, line)| line.is_in()) {
            let room = self.room(line.room.as_deref().unwrap());
            assert_eq!(line.head(), room.map(Room::head), "line {index} did not see the last event");
        }
        for node in world.nodes.iter().flatten() {
            for (id, room) in &self.rooms {
                let replica = node.hub.inspect(id).filter(|replica| !replica.is_vacant());
                if let Some(replica) = replica {
                    assert_eq!(replica, *room, "{} has another {id}", node.name);
                } else {
                    let here = |line: &&Line| {
                        line.is_in() && line.node == node.name && line.room.as_deref() == Some(id.as_str())
                    };
                    assert_eq!(world.lines.iter().filter(here).count(), 0, "{} has no {id}", node.name);
                }
            }
        }
    }

    /// Invariant 5: members are those who are connected. (Of a room that waits for all of its members nobody is.)
    pub(crate) fn check_membership(&self, world: &World) {
        let mut connected = BTreeMap::new();
        for line in world.lines.iter().filter(|line| line.is_in()) {
            let key = (line.room.clone().unwrap(), world.people[line.person].name.to_owned());
            assert!(connected.insert(key.clone(), line.session.clone()).is_none(), "{key:?} over two connections");
        }
        let mut members = BTreeMap::new();
        for (id, room) in self.rooms.iter().filter(|(_, room)| room.kept().is_none()) {
            for (user, member) in room.members().iter() {
                let session = match &member.connection {
                    MemberConnection::Live(session) => Some(session.to_string()),
                    MemberConnection::Lost { .. } => None,
                };
                members.insert((id.to_string(), user.to_string()), session);
            }
        }
        assert_eq!(members, connected, "members, and who is connected");
    }
}

impl Fact {
    /// Invariants 4 and 5, event by event.
    fn breach(&self, world: &World) -> Option<String> {
        let Self { event, before, at, .. } = self;
        let may = |allowed: bool, what: &str| (!allowed).then(|| what.to_owned());
        match event {
            Event::Moved { by: By::Member(user), cause: Cause::Correction, .. } => {
                may(before.is_host(user), "a correction of somebody else")
            }
            Event::Moved { by: By::Member(user), .. }
            | Event::Sought { by: user, .. }
            | Event::UrlChanged { by: user, .. }
            | Event::Adopted { by: user, .. } => may(before.may_control(user), "no right to control"),
            Event::Chat { user, text, .. } => {
                let reference = text.as_str().strip_prefix("chat ")?.strip_suffix('.')?.parse::<u64>().ok()?;
                let line = &world.lines[world.asked[&reference].line];
                let session = line.session.clone().unwrap_or_default();
                let speaks = matches!(before.member(user).map(|member| &member.connection),
                    Some(MemberConnection::Live(on)) if on.to_string() == session);
                may(speaks && world.people[line.person].name == user.as_str(), "somebody spoke for a member")
            }
            Event::Disconnected { user, until, .. } => match before.member(user).map(|member| &member.connection) {
                Some(MemberConnection::Live(session)) => {
                    let session = Some(session.to_string());
                    let line = world.lines.iter().find(|line| line.session == session);
                    // A JOIN that took too long ends its session, though it may be in by then.
                    let too_late =
                        |line: &&Line| line.heard.iter().any(|h| matches!(h, Heard::Closed(CloseCode::JoinTimeout)));
                    let line = line.filter(|line| !line.excused && !too_late(line));
                    may(line.is_none(), "its connection was well")
                }
                // The room was kept, and somebody is there again.
                Some(MemberConnection::Lost { until: before }) => may(before < until, "it was not connected"),
                None => Some("it was no member".to_owned()),
            },
            Event::Left { user, reason: LeaveReason::Lost, .. } => {
                match before.member(user).map(|member| &member.connection) {
                    Some(MemberConnection::Lost { until }) => may(until <= at, "its grace time was not over"),
                    _ => Some("it was connected".to_owned()),
                }
            }
            _ => None,
        }
    }
}

fn check_state(json: &Value, room: &Room, line: usize) {
    let host = room.host().map(|host| host.as_str());
    assert_eq!(json["hostUserId"].as_str(), host, "line {line}");
    assert_eq!(json["playback"]["seq"], room.playback().seq, "line {line}");
    assert_eq!(json["playback"]["position"], room.playback().position.seconds(), "line {line}");
    let users = json["users"].as_array().unwrap();
    let shown: BTreeMap<_, _> = users
        .iter()
        .map(|user| (user["userId"].as_str().unwrap(), (user["slot"].as_u64().unwrap(), user["connected"] == true)))
        .collect();
    let members = room.members().iter();
    let real: BTreeMap<_, _> =
        members.map(|(user, member)| (user.as_str(), (u64::from(member.slot.0), member.is_live()))).collect();
    assert_eq!(shown, real, "line {line}");
}

/// A tick shows the slot of whoever sent it, and is not one's own.
fn check_tick(world: &World, line: &Line, slot: u16, seq: u64) {
    // A HOST_HEARTBEAT becomes a tick too, with a counter of the server's.
    let Some(asked) = world.asked.get(&seq).filter(|asked| asked.what == What::Tick) else { return };
    let sender = &world.lines[asked.line];
    assert_ne!(world.people[sender.person].name, world.people[line.person].name, "its own tick");
    let is_its = |heard: &Heard| matches!(heard, Heard::State { json, .. } if json["slot"] == slot);
    assert!(sender.heard.iter().any(is_its), "slot {slot} is not the sender's");
    assert!(sender.heard.iter().any(|heard| matches!(heard, Heard::State { room, .. } if *room == asked.room)));
}

/// Who a direct message comes from is who sent it, and it reaches nobody else.
fn check_notice(world: &World, line: &Line, json: &Value) {
    if json["type"] != "CUSTOM" {
        return;
    }
    let asked = &world.asked[&json["payload"]["n"].as_u64().unwrap()];
    let (sender, me) = (&world.lines[asked.line], world.people[line.person].name);
    assert_eq!(json["from"], world.people[sender.person].name, "{json}");
    assert_eq!(asked.what, What::Signal(me), "{json}");
    assert_eq!(json["nodeId"], sender.node.as_str(), "{json}");
}
