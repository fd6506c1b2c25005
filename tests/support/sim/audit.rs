//! The auditor: replays what the log said, and compares it with what every client saw.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tandem::domain::{CloseCode, Head, RoomId, RoomTime};
use tandem::room::{By, Cause, Event, LeaveReason, MemberConnection, Room};

use super::people::What;
use super::{Committed, Heard, SimClient, World};

/// The place of the first event that the message tells of.
fn first_of(head: Head, json: &Value) -> Head {
    let events = json["events"].as_u64().filter(|_| json["type"] == "ROSTER").unwrap_or(1);
    Head { seq: (head.seq + 1).saturating_sub(events), ..head }
}

/// The rooms and events of a run, replayed from the log alone.
pub(crate) struct Truth {
    /// Each room as it is after all of it.
    pub(crate) rooms: BTreeMap<RoomId, Room>,
    /// Each event with the room before it, the room after it, and when.
    events: BTreeMap<(String, Head), Fact>,
    /// Judgements that were made, and those of them that something excused, by what was judged.
    judgements: RefCell<BTreeMap<&'static str, (usize, usize)>>,
}

struct Fact {
    event: Event,
    before: Room,
    after: Room,
    at: RoomTime,
}

/// The auditor's verdict on an event.
enum Judgement {
    Right,
    /// It may be wrong, and the simulation can't tell.
    Excused,
    Wrong(&'static str),
}

impl Truth {
    pub(crate) fn of(commits: &[Committed], world: &World) -> Self {
        let mut truth = Self { rooms: BTreeMap::new(), events: BTreeMap::new(), judgements: RefCell::default() };
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
        for ((room, head), fact) in &truth.events {
            let judged = matches!(fact.event, Event::Disconnected { .. });
            match fact.judge(world) {
                Judgement::Right => truth.judge("disconnected", judged, false),
                Judgement::Excused => truth.judge("disconnected", judged, true),
                Judgement::Wrong(_) if truth.was_never_told(world, room, *head, fact) => {
                    truth.judge("disconnected", judged, true);
                }
                Judgement::Wrong(why) => panic!("{room} {head:?}: {why}: {:?}", fact.event),
            }
        }
        truth
    }

    fn judge(&self, what: &'static str, judged: bool, excused: bool) {
        if judged {
            let mut judgements = self.judgements.borrow_mut();
            let (made, excuses) = judgements.entry(what).or_default();
            *made += 1;
            *excuses += usize::from(excused);
        }
    }

    /// Judgements and excuses by subject.
    pub(crate) fn judgements(&self) -> BTreeMap<&'static str, (usize, usize)> {
        self.judgements.borrow().clone()
    }

    /// Whether what ended was a membership of which its client never knew: the JOIN that made it was answered with
    /// UNAVAILABLE, though it was in, so it is taken out again. That excuses this membership and no other of the
    /// client.
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
        // A client that never got ROOM_STATE doesn't know its session: only one that was refused can be meant.
        let clients = world.clients.iter().filter(|client| world.people[client.person].name == user.as_str());
        let mut clients = clients.filter(|client| client.session.as_ref().is_none_or(|known| *known == session));
        let told = |client: &SimClient| {
            client.heard.iter().any(|heard| match heard {
                Heard::State { room: of, head: at, .. } => of == room && at >= began && *at < head,
                _ => false,
            })
        };
        clients.any(|client| world.join_was_unavailable(client) && !told(client))
    }

    pub(crate) fn room(&self, name: &str) -> Option<&Room> {
        self.rooms.get(name).filter(|room| !room.is_vacant())
    }

    /// The kinds of all events; those of members who were removed by the reason.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.events.values().map(|fact| match &fact.event {
            Event::Left { reason: LeaveReason::Kicked, .. } => "member_kicked",
            Event::Left { reason: LeaveReason::Banned, .. } => "member_banned",
            Event::Left { reason: LeaveReason::Lost, .. } => "grace_expired",
            event => event.kind(),
        })
    }

    /// Events in the log that this request made.
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
            let answers = world.clients[asked.client].heard.iter().filter(|heard| match heard {
                Heard::Ack { reference: of, .. } => of == reference,
                Heard::Refused { reference: of, .. } => *of == Some(*reference),
                _ => false,
            });
            // A signal goes along with its target from node to node, and each node that finds nobody may say so.
            let most = if matches!(asked.what, What::Signal(_)) { 3 } else { 1 };
            let answers: Vec<_> = answers.collect();
            assert!(answers.len() <= most, "{reference} ({:?}) was answered twice: {answers:?}", asked.what);
            if !matches!(asked.what, What::Chat | What::Custom | What::Moves) {
                if let (Some(head), What::Transfer(target)) = (world.acked(*reference), &asked.what)
                    && let Some(Fact { event: Event::HostChanged { host: Some(host) }, before, .. }) =
                        self.events.get(&(asked.room.clone(), head))
                {
                    // To oneself it does nothing, and is acknowledged at the head there is.
                    let by = world.people[world.clients[asked.client].person].name;
                    let by_host = before.host().is_some_and(|host| host.as_str() == by);
                    assert!(by_host || by == *target, "{by} made {host} the host");
                }
                continue;
            }
            let times = self.times(*reference, &asked.what);
            let client = &world.clients[asked.client];
            let unanswered = world.acked(*reference).is_none() && world.refused(*reference).is_none();
            // A client that is connected to the end, and is in its room, gets an answer to all that it asks.
            self.judge("answered", true, unanswered && client.is_in() && !client.may_be_lost);
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
        for (index, client) in world.clients.iter().enumerate() {
            let mut at: Option<(String, Head)> = None;
            let mut missed = None;
            for heard in &client.heard {
                match heard {
                    Heard::State { room, head, json } => {
                        let fact = self.events.get(&(room.clone(), *head));
                        let fact = fact.unwrap_or_else(|| panic!("client {index}: {room} never was at {head:?}"));
                        check_state(json, &fact.after, index);
                        match &at {
                            Some((known, before)) if known == room => {
                                assert!(head >= before, "client {index} went back")
                            }
                            _ => missed = client.last_seen.filter(|seen| seen.epoch == head.epoch),
                        }
                        at = Some((room.clone(), *head));
                    }
                    Heard::Event { head, json } => {
                        let Some((room, before)) = at.clone() else {
                            panic!("client {index}: {json} before ROOM_STATE")
                        };
                        if *head <= before {
                            let caught_up = json["type"] == "CHAT" && missed.is_some_and(|seen| *head > seen);
                            assert!(caught_up, "client {index}: {json} again, or too late, at {before:?}");
                            missed = Some(*head);
                        } else {
                            let next = Head { epoch: before.epoch, seq: before.seq + 1 };
                            assert_eq!(first_of(*head, json), next, "client {index}: a gap: {json}");
                            missed = None;
                            at = Some((room.clone(), *head));
                        }
                        if json["type"] == "ROSTER" {
                            self.check_roster(index, &room, *head, json);
                            continue;
                        }
                        self.check_event(world, index, &room, *head, json);
                        let mut text = json.clone();
                        text["timestamp"] = Value::Null;
                        let (other, same) = texts.entry((room, *head)).or_insert((index, text.clone()));
                        assert_eq!(*same, text, "clients {other} and {index} saw different things");
                    }
                    Heard::Tick { slot, seq, .. } | Heard::Status { slot, seq, .. } => {
                        check_report(world, client, *slot, u64::from(*seq));
                    }
                    Heard::Digest { measured, in_step, buffering, .. } => assert!(in_step + buffering <= *measured),
                    Heard::Notice(json) => check_notice(world, client, json),
                    Heard::Ack { .. } | Heard::Refused { .. } | Heard::Closed(_) => {}
                }
            }
        }
    }

    /// ROSTER: its events are the log's, and the lists say of each what the log says.
    fn check_roster(&self, client: usize, room: &str, head: Head, json: &Value) {
        let name = |user: &Value| user["userId"].as_str().unwrap().to_owned();
        let list = |of: &str| json[of].as_array().unwrap().iter().map(name).collect::<Vec<_>>();
        let (mut joined, mut left) = (BTreeSet::new(), Vec::new());
        for seq in first_of(head, json).seq..=head.seq {
            match self.events.get(&(room.to_owned(), Head { seq, ..head })).map(|fact| &fact.event) {
                Some(Event::Joined { user, .. }) => drop(joined.insert(user.to_string())),
                Some(Event::Left { user, reason: LeaveReason::Left | LeaveReason::Lost, .. }) => {
                    left.push(user.to_string());
                }
                other => panic!("client {client}: {json}, where the log has {other:?} at {seq}"),
            }
        }
        let after = &self.events[&(room.to_owned(), head)].after;
        joined.retain(|user| after.members().keys().any(|member| member.as_str() == user));
        assert_eq!(list("joined").into_iter().collect::<BTreeSet<_>>(), joined, "client {client}: {json}");
        assert_eq!(list("left"), left, "client {client}: {json}");
        self.judge("roster", true, false);
    }

    fn check_event(&self, world: &World, client: usize, room: &str, head: Head, json: &Value) {
        let fact = self.events.get(&(room.to_owned(), head));
        let fact = fact.unwrap_or_else(|| panic!("client {client}: {json} is not in the log"));
        let kind = match json["type"].as_str().unwrap() {
            "USER_JOINED" => "member_joined",
            "USER_LEFT" => "member_left",
            "MEMBER_CONNECTION" if json["connected"] == true => "member_resumed",
            "MEMBER_CONNECTION" => "member_disconnected",
            "SESSION_CHANGED" => "member_moved",
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
        assert_eq!(kind, fact.event.kind(), "client {client}: {json}");
        let me = world.people[world.clients[client].person].name;
        let client_of = &world.clients[client];
        // A removed member hears of its removal, and nothing after it.
        let removed = matches!(json["reason"].as_str(), Some("kicked" | "banned")) && json["userId"] == me;
        let is_there = fact.after.members().keys().any(|user| user.as_str() == me);
        self.judge("seen", true, !is_there && !removed);
        assert!(is_there || removed || client_of.renamed, "client {client}: {json} after {me} was gone");
    }

    /// Every connected client has seen all events, and every replica equals the room.
    pub(crate) fn check_convergence(&self, world: &World) {
        for (index, client) in world.clients.iter().enumerate().filter(|(_, client)| client.is_in()) {
            let room = self.room(client.room.as_deref().unwrap());
            assert_eq!(client.head(), room.map(Room::head), "client {index} did not see the last event");
        }
        for node in world.nodes.iter().flatten() {
            for (id, room) in &self.rooms {
                let replica = node.hub.inspect(id).filter(|replica| !replica.is_vacant());
                if let Some(replica) = replica {
                    assert_eq!(replica, *room, "{} has another {id}", node.name);
                } else {
                    let here = |client: &&SimClient| {
                        client.is_in() && client.node == node.name && client.room.as_deref() == Some(id.as_str())
                    };
                    assert_eq!(world.clients.iter().filter(here).count(), 0, "{} has no {id}", node.name);
                }
            }
        }
    }

    /// Invariant 5: the members are the connected clients. (A kept room has members, and none is connected.)
    pub(crate) fn check_membership(&self, world: &World) {
        let mut connected = BTreeMap::new();
        for client in world.clients.iter().filter(|client| client.is_in()) {
            let key = (client.room.clone().unwrap(), world.people[client.person].name.to_owned());
            assert!(connected.insert(key.clone(), client.session.clone()).is_none(), "{key:?} over two connections");
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
    fn judge(&self, world: &World) -> Judgement {
        let Self { event, before, at, .. } = self;
        let may = |allowed: bool, what: &'static str| if allowed { Judgement::Right } else { Judgement::Wrong(what) };
        match event {
            Event::Moved { by: By::Member(user), cause: Cause::Correction, .. } => {
                may(before.is_host(user), "a correction of somebody else")
            }
            Event::Moved { by: By::Member(user), .. }
            | Event::Sought { by: user, .. }
            | Event::UrlChanged { by: user, .. }
            | Event::Adopted { by: user, .. } => may(before.may_control(user), "no right to control"),
            Event::Chat { user, text, .. } => {
                let number = text.as_str().strip_prefix("chat ").and_then(|rest| rest.strip_suffix('.'));
                let Some(reference) = number.and_then(|number| number.parse::<u64>().ok()) else {
                    return Judgement::Right;
                };
                let client = &world.clients[world.asked[&reference].client];
                let session = client.session.clone().unwrap_or_default();
                let speaks = matches!(before.member(user).map(|member| &member.connection),
                    Some(MemberConnection::Live(on)) if on.to_string() == session);
                may(speaks && world.people[client.person].name == user.as_str(), "somebody spoke for a member")
            }
            Event::Disconnected { user, until, .. } => match before.member(user).map(|member| &member.connection) {
                Some(MemberConnection::Live(session)) => {
                    let session = Some(session.to_string());
                    let client = world.clients.iter().find(|client| client.session == session);
                    // A JOIN that took too long ends its session, though it may be in by then.
                    let too_late = |client: &&SimClient| {
                        client.heard.iter().any(|h| matches!(h, Heard::Closed(CloseCode::JoinTimeout)))
                    };
                    match client {
                        // Its client hung up before ROOM_STATE came: no client knows this session.
                        None => Judgement::Right,
                        Some(client) if client.may_be_lost => Judgement::Right,
                        Some(client) if client.doubted || too_late(&client) => Judgement::Excused,
                        Some(_) => Judgement::Wrong("its connection was well"),
                    }
                }
                // The room was kept, and somebody is there again.
                Some(MemberConnection::Lost { until: before }) => may(before < until, "it was not connected"),
                None => Judgement::Wrong("it was no member"),
            },
            Event::Left { user, reason: LeaveReason::Lost, .. } => {
                match before.member(user).map(|member| &member.connection) {
                    Some(MemberConnection::Lost { until }) => may(until <= at, "its grace time was not over"),
                    _ => Judgement::Wrong("it was connected"),
                }
            }
            _ => Judgement::Right,
        }
    }
}

fn check_state(json: &Value, room: &Room, client: usize) {
    let host = room.host().map(|host| host.as_str());
    assert_eq!(json["hostUserId"].as_str(), host, "client {client}");
    assert_eq!(json["playback"]["seq"], room.playback().seq, "client {client}");
    assert_eq!(json["playback"]["position"], room.playback().position.seconds(), "client {client}");
    let users = json["users"].as_array().unwrap();
    let shown: BTreeMap<_, _> = users
        .iter()
        .map(|user| (user["userId"].as_str().unwrap(), (user["slot"].as_u64().unwrap(), user["connected"] == true)))
        .collect();
    let members = room.members().iter();
    let real: BTreeMap<_, _> =
        members.map(|(user, member)| (user.as_str(), (u64::from(member.slot.0), member.is_live()))).collect();
    assert_eq!(shown, real, "client {client}");
}

/// A tick or status carries its sender's slot, and doesn't return to its sender.
fn check_report(world: &World, client: &SimClient, slot: u16, seq: u64) {
    // A HOST_HEARTBEAT becomes a tick too, with a counter of the server's.
    let Some(asked) = world.asked.get(&seq).filter(|asked| matches!(asked.what, What::Tick | What::Status)) else {
        return;
    };
    let sender = &world.clients[asked.client];
    assert_ne!(world.people[sender.person].name, world.people[client.person].name, "its own report");
    let is_its = |heard: &Heard| matches!(heard, Heard::State { json, .. } if json["slot"] == slot);
    assert!(sender.heard.iter().any(is_its), "slot {slot} is not the sender's");
    assert!(sender.heard.iter().any(|heard| matches!(heard, Heard::State { room, .. } if *room == asked.room)));
}

/// A direct message names its sender, and reaches its target alone.
fn check_notice(world: &World, client: &SimClient, json: &Value) {
    if json["type"] != "CUSTOM" {
        return;
    }
    let asked = &world.asked[&json["payload"]["n"].as_u64().unwrap()];
    let (sender, me) = (&world.clients[asked.client], world.people[client.person].name);
    assert_eq!(json["from"], world.people[sender.person].name, "{json}");
    assert_eq!(asked.what, What::Signal(me), "{json}");
    assert_eq!(json["nodeId"], sender.node.as_str(), "{json}");
}
