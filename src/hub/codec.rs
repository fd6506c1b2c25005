//! The log's record: rooms as fields, events as entries. A golden test holds the format.
//!
//! Fields of a room: `core` (everything but people), `bans`, `banKeys`, `m:<userId>` for each member, `g:<userId>` for
//! each of the last ones who went, and `c:<seq>` for each of the last lines of chat, so that a commit writes only what
//! it changed.

use std::fmt::Display;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::commit::{Commit, Entry, Patch, RoomRow, Snapshot, UserRow};
use crate::domain::{Head, RoomTime, UserId};
use crate::room::{By, Chat, Event, Member, Members, Room, SharedMap};

const CORE: &str = "core";
const BANS: &str = "bans";
const BAN_KEYS: &str = "banKeys";
const MEMBER: &str = "m:";
const GONE: &str = "g:";
const CHAT: &str = "c:";

/// A stored value is not what this version writes.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("field {field}: {source}")]
    Field { field: String, source: serde_json::Error },
    #[error("event {head:?}: {source}")]
    Event { head: Head, source: serde_json::Error },
    #[error("the field {0} is missing")]
    Missing(&'static str),
    #[error("a member's name is not an id: {0}")]
    Member(String),
}

/// The commit that takes `before` to `after`.
pub(super) fn commit(before: &Room, after: &Room, events: &[(Head, Event)], now: RoomTime) -> Commit {
    let entries: Arc<[Entry]> = events.iter().map(|(head, event)| entry(*head, event, now)).collect();
    Commit {
        room: after.id().clone(),
        expected: before.head(),
        next: after.head(),
        entries,
        patch: patch(before, after),
        row: row(before, after, now),
    }
}

fn entry(head: Head, event: &Event, at: RoomTime) -> Entry {
    Entry { head, at, kind: event.kind(), user: user_of(event).cloned(), body: json(event), audit: audit(event) }
}

/// The event of an entry.
pub(super) fn event(entry: &Entry) -> Result<Event, RecordError> {
    serde_json::from_slice(&entry.body).map_err(|source| RecordError::Event { head: entry.head, source })
}

/// The snapshot of a room.
pub(super) fn snapshot(room: &Room) -> Snapshot {
    let whole = patch(&Room::vacant(room.id().clone(), Head::default()), room);
    let fields = whole.fields.into_iter().filter_map(|(field, value)| Some((field, value?))).collect();
    Snapshot { room: room.id().clone(), head: room.head(), fields }
}

/// The room of a snapshot.
pub(super) fn room(snapshot: &Snapshot) -> Result<Room, RecordError> {
    let read = |field: &'static str| snapshot.fields.get(field).ok_or(RecordError::Missing(field));
    let core: Core = parse(CORE, read(CORE)?)?;
    let mut room = core.into_room(snapshot);
    room.bans = parse(BANS, read(BANS)?)?;
    if let Some(keys) = snapshot.fields.get(BAN_KEYS) {
        room.ban_keys = parse(BAN_KEYS, keys)?;
    }
    let user = |name: &str| UserId::parse(name).map_err(|_| RecordError::Member(name.to_owned()));
    for (field, value) in &snapshot.fields {
        if let Some(name) = field.strip_prefix(MEMBER) {
            room.members.insert(user(name)?, parse(field, value)?);
        } else if let Some(name) = field.strip_prefix(GONE) {
            room.gone.insert(user(name)?, parse(field, value)?);
        } else if let Some(seq) = field.strip_prefix(CHAT) {
            let seq = seq.parse().map_err(|_| RecordError::Member(field.clone()))?;
            room.chat.insert(seq, parse(field, value)?);
        }
    }
    Ok(room)
}

fn parse<'a, T: Deserialize<'a>>(field: &str, value: &'a Bytes) -> Result<T, RecordError> {
    serde_json::from_slice(value).map_err(|source| RecordError::Field { field: field.to_owned(), source })
}

fn patch(before: &Room, after: &Room) -> Patch {
    let clear = after.is_vacant() || before.head.epoch != after.head.epoch;
    let mut patch = Patch { clear, ..Patch::default() };
    if after.is_vacant() {
        return patch;
    }
    let core = Core::of(after);
    if clear || core != Core::of(before) {
        patch.fields.insert(CORE.into(), Some(json(&core)));
    }
    if clear || before.bans != after.bans {
        patch.fields.insert(BANS.into(), Some(json(&after.bans)));
    }
    // A room of 3.0.0 has none: without one to store there is none to clear.
    if before.ban_keys != after.ban_keys || (clear && !after.ban_keys.is_empty()) {
        patch.fields.insert(BAN_KEYS.into(), Some(json(&after.ban_keys)));
    }
    let nobody = Members::default();
    let known = if clear { &nobody } else { &before.members };
    keep(&mut patch, MEMBER, &after.members, known);
    let nobody = SharedMap::default();
    keep(&mut patch, GONE, &after.gone, if clear { &nobody } else { &before.gone });
    let silence = Chat::default();
    keep(&mut patch, CHAT, &after.chat, if clear { &silence } else { &before.chat });
    patch
}

/// A field for each entry that is another one than before.
fn keep<K, V>(patch: &mut Patch, prefix: &str, after: &SharedMap<K, V>, before: &SharedMap<K, V>)
where
    K: Ord + Clone + Display,
    V: Clone + PartialEq + Serialize,
{
    for (key, value) in after.changed_since(before) {
        patch.fields.insert(format!("{prefix}{key}"), Some(json(value)));
    }
    for (key, _) in after.gone_since(before) {
        patch.fields.insert(format!("{prefix}{key}"), None);
    }
}

fn row(before: &Room, after: &Room, now: RoomTime) -> RoomRow {
    let nobody = Members::default();
    let known = if before.head.epoch == after.head.epoch { &before.members } else { &nobody };
    let changed = after.members.changed_since(known).map(|(user, member)| user_row(user, member, None));
    let gone = after.members.gone_since(known).map(|(user, member)| user_row(user, member, Some(now)));
    RoomRow {
        host: after.host.clone(),
        url: after.url.as_ref().map(|url| url.as_str().to_owned()),
        position: after.playback.position.seconds(),
        playing: after.playback.playing,
        at: after.playback.at,
        guest_control: after.guest_control,
        ended: after.is_vacant(),
        users: changed.chain(gone).collect(),
    }
}

fn user_row(user: &UserId, member: &Member, left_at: Option<RoomTime>) -> UserRow {
    UserRow {
        user: user.clone(),
        name: member.name.as_str().to_owned(),
        slot: member.slot.0,
        joined_at: member.joined_at,
        connected: left_at.is_none() && member.is_live(),
        left_at,
    }
}

/// Everything of a room but its people and bans.
#[derive(Serialize, Deserialize, PartialEq)]
struct Core {
    created_at: RoomTime,
    host: Option<UserId>,
    guest_control: bool,
    pin: Option<crate::domain::PinHash>,
    url: Option<crate::domain::MediaUrl>,
    #[serde(default)]
    film: u32,
    #[serde(default)]
    duration: Option<crate::domain::MediaTime>,
    playback: crate::room::Playback,
    gate: Option<crate::room::ReadyGate>,
    next_gate: u32,
    next_slot: u16,
    #[serde(default)]
    owner: Option<crate::domain::KeyHash>,
    #[serde(default)]
    kept: Option<crate::room::Kept>,
}

impl Core {
    fn of(room: &Room) -> Self {
        Self {
            created_at: room.created_at,
            host: room.host.clone(),
            guest_control: room.guest_control,
            pin: room.pin.clone(),
            url: room.url.clone(),
            film: room.film,
            duration: room.duration,
            playback: room.playback,
            gate: room.gate.clone(),
            next_gate: room.next_gate,
            next_slot: room.next_slot,
            owner: room.owner,
            kept: room.kept,
        }
    }

    fn into_room(self, snapshot: &Snapshot) -> Room {
        let mut room = Room::vacant(snapshot.room.clone(), snapshot.head);
        room.created_at = self.created_at;
        room.host = self.host;
        room.guest_control = self.guest_control;
        room.pin = self.pin;
        room.url = self.url;
        room.film = self.film;
        room.duration = self.duration;
        room.playback = self.playback;
        room.gate = self.gate;
        room.next_gate = self.next_gate;
        room.next_slot = self.next_slot;
        room.owner = self.owner;
        room.kept = self.kept;
        room
    }
}

/// Serialising our own plain types can't fail; if it ever did, an empty value is refused when it is read.
fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// The event without what an audit must not keep: texts, payloads, hashes, tokens.
fn audit(event: &Event) -> Bytes {
    let data = match event {
        Event::Chat { text, .. } => serde_json::json!({ "chars": text.as_str().chars().count() }),
        Event::Custom { namespace, payload, .. } => {
            serde_json::json!({ "namespace": namespace.as_str(), "bytes": payload.len() })
        }
        Event::Kept { kept, playback, .. } => serde_json::json!({ "until": kept.until, "playback": playback }),
        Event::PinChanged { pin } => serde_json::json!({ "hasPin": pin.is_some() }),
        other => {
            let tagged = serde_json::to_value(other).unwrap_or_default();
            // {"Joined": {…}} → {…}: the name has a column of its own.
            let mut fields = match tagged {
                serde_json::Value::Object(object) => {
                    object.into_iter().next().map(|(_, value)| value).unwrap_or_default()
                }
                plain => plain,
            };
            if let Some(object) = fields.as_object_mut() {
                for secret in ["pin", "token", "proved", "key", "origin", "client", "owner"] {
                    object.remove(secret);
                }
            }
            fields
        }
    };
    json(&data)
}

fn user_of(event: &Event) -> Option<&UserId> {
    match event {
        Event::Created { user, .. }
        | Event::Joined { user, .. }
        | Event::Resumed { user, .. }
        | Event::Disconnected { user, .. }
        | Event::Left { user, .. }
        | Event::Renamed { user, .. }
        | Event::BansChanged { user, .. }
        | Event::GateProgress { user, .. }
        | Event::PlayerChanged { user, .. }
        | Event::Chat { user, .. }
        | Event::Custom { user, .. }
        | Event::Moved { by: By::Member(user), .. }
        | Event::Sought { by: user, .. }
        | Event::UrlChanged { by: user, .. }
        | Event::Adopted { by: user, .. } => Some(user),
        Event::HostChanged { host } => host.as_ref(),
        Event::Moved { by: By::Server, .. }
        | Event::GuestControl { .. }
        | Event::PinChanged { .. }
        | Event::Kept { .. }
        | Event::AudienceCounted { .. }
        | Event::Ended { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::fmt::Write as _;

    use super::*;
    use crate::domain::{
        AddressTag, ChatText, Dialect, KeyHash, Limits, MediaTime, MediaUrl, MemberSlot, Namespace, NodeId, PinHash,
        Player, PlayerReason, PlayerState, Rate, RoomId, SessionRef, TokenHash, TransportKind, UrlPolicy, Username,
    };
    use crate::room::{Cause, Control, ControlKey, Kept, LeaveReason, Origin, Playback, ReadyGate};

    const SAID: &str = "the butler did it";
    const PIN_HASH: &str = "$argon2id$v=19$m=7168,t=5,p=1$c2FsdA$aGFzaA";
    const TOKEN: [u8; 32] = [201; 32];
    const EARLIER_TOKEN: [u8; 32] = [202; 32];
    const CLIENT: [u8; 32] = [203; 32];
    const OWNER: [u8; 32] = [204; 32];

    fn at(millis: i64) -> RoomTime {
        RoomTime::from_millis(1_795_000_000_000 + millis)
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    fn pin() -> PinHash {
        serde_json::from_value(PIN_HASH.into()).unwrap()
    }

    /// One of each.
    fn events() -> Vec<Event> {
        let limits = Limits::default();
        let session = |id| SessionRef { node: NodeId::parse("node-1").unwrap(), id };
        let name = |text| Username::parse(text, &limits).unwrap();
        let position = MediaTime::parse(12.5, &limits).unwrap();
        let url = MediaUrl::parse("https://example.org/film", &UrlPolicy::default(), &limits).unwrap();
        let playback = Playback { position, rate: Rate::NORMAL, playing: true, at: at(500), seq: 9 };
        let key = |control| Some(ControlKey { control, position: Some(position), true_at: Some(at(1)), taken: at(2) });
        let origin = Origin { client: Some(KeyHash::from_bytes(CLIENT)), address: Some(AddressTag::numbered(4711)) };
        let gate = ReadyGate {
            id: 1,
            target: position,
            awaiting: BTreeSet::from([user("ann")]),
            ready: BTreeSet::from([user("bob")]),
            quorum_at: at(3000),
            deadline: at(7000),
            by: user("ann"),
        };
        vec![
            Event::Created {
                epoch: 1_795_000_000_000,
                at: at(0),
                pin: Some(pin()),
                user: user("ann"),
                name: name("Ann"),
                session: session(1),
                dialect: Dialect::V3,
                transport: TransportKind::WebTransport,
                token: TokenHash::from_bytes(TOKEN),
                origin,
                owner: Some(KeyHash::from_bytes(OWNER)),
            },
            Event::Joined {
                at: at(1),
                user: user("bob"),
                name: name("Bob"),
                slot: MemberSlot(2),
                session: session(2),
                dialect: Dialect::V2,
                transport: TransportKind::WebSocket,
                token: TokenHash::from_bytes(TOKEN),
                origin: Origin::default(),
            },
            Event::Disconnected { at: at(2), user: user("bob"), until: at(30_002) },
            Event::Resumed {
                at: at(3),
                user: user("bob"),
                session: session(3),
                dialect: Dialect::V2,
                transport: TransportKind::WebSocket,
                token: TokenHash::from_bytes(TOKEN),
                proved: Some(TokenHash::from_bytes(EARLIER_TOKEN)),
                origin,
                moved: false,
            },
            Event::Renamed { user: user("bob"), name: name("Robert") },
            Event::GuestControl { enabled: true },
            Event::PinChanged { pin: Some(pin()) },
            Event::UrlChanged { by: user("ann"), url: url.clone(), playback },
            Event::Adopted { by: user("ann"), playback, url: Some(url) },
            Event::Moved {
                by: By::Member(user("bob")),
                cause: Cause::Control(Control::Pause),
                playback,
                key: key(Some(Control::Pause)),
            },
            Event::Moved { by: By::Member(user("ann")), cause: Cause::Rate, playback, key: None },
            Event::Moved { by: By::Member(user("ann")), cause: Cause::Correction, playback, key: None },
            Event::Moved { by: By::Server, cause: Cause::Control(Control::Play), playback, key: None },
            Event::Moved {
                by: By::Server,
                cause: Cause::Ended,
                playback: Playback { playing: false, ..playback },
                key: None,
            },
            Event::PlayerChanged {
                user: user("bob"),
                player: Player {
                    state: PlayerState::Failed,
                    reason: Some(PlayerReason::parse("decode").unwrap()),
                    duration: Some(position),
                },
                agreed: Some(position),
            },
            Event::Sought {
                by: user("ann"),
                playback: Playback { playing: false, ..playback },
                gate: Some(gate),
                key: key(None),
            },
            Event::Chat { user: user("ann"), text: ChatText::parse(SAID, &limits).unwrap(), at: at(4) },
            Event::Custom {
                user: user("ann"),
                namespace: Namespace::parse("org.example").unwrap(),
                payload: format!("{{\"said\":\"{SAID}\"}}"),
            },
            Event::Joined {
                at: at(4),
                user: user("eve"),
                name: name("Eve"),
                slot: MemberSlot(3),
                session: session(4),
                dialect: Dialect::V3,
                transport: TransportKind::WebTransport,
                token: TokenHash::from_bytes(TOKEN),
                origin,
            },
            Event::Left { at: at(4), user: user("eve"), reason: LeaveReason::Kicked, until: Some(at(60_004)) },
            Event::BansChanged { user: user("eve"), banned: true, client: None },
            Event::HostChanged { host: Some(user("bob")) },
            Event::GateProgress { id: 1, user: user("ann") },
            Event::BansChanged { user: user("max"), banned: true, client: origin.client },
            Event::BansChanged { user: user("eve"), banned: false, client: None },
            Event::AudienceCounted { count: 1204 },
            Event::Kept {
                at: at(4),
                kept: Kept { until: at(14_400_000), address: origin.address },
                playback: Playback { playing: false, ..playback },
            },
            Event::Left { at: at(5), user: user("ann"), reason: LeaveReason::Left, until: None },
            Event::Ended { at: at(5) },
        ]
    }

    fn is_end(event: &Event) -> bool {
        matches!(event, Event::Left { reason: LeaveReason::Left, .. } | Event::Ended { .. })
    }

    /// The room before its last member leaves, and how it came to be.
    fn story() -> (Room, Room, Vec<(Head, Event)>) {
        let before = Room::vacant(RoomId::parse("friday").unwrap(), Head::default());
        let mut room = before.clone();
        let mut told = Vec::new();
        for event in events().into_iter().filter(|event| !is_end(event)) {
            room.apply(&event);
            told.push((room.head(), event));
        }
        (before, room, told)
    }

    fn snapshot(commit: &Commit) -> Snapshot {
        let fields = commit.patch.fields.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        Snapshot { room: commit.room.clone(), head: commit.next, fields: fields.collect() }
    }

    /// The format in databases and in Redis, and between nodes of two versions while a cluster is
    /// updated.
    ///
    /// When this test fails, the change must be one that the version before can live with, and that can live with what
    /// the version before wrote:
    /// * a new field of an event or of the state needs `#[serde(default)]`, and to an old node it must not matter
    ///   (serde ignores what it doesn't know);
    /// * a new kind of event stops an old node's replica at the gap: it reads the snapshot instead, for every such
    ///   event. Bring the reading in one release, the writing in the next;
    /// * a renamed or removed field takes the same two releases: `#[serde(alias = "…")]` first.
    ///
    /// Then accept the new file (`cargo insta accept`).
    #[test]
    fn rooms_and_events_are_stored_as_they_always_were() {
        let (before, room, told) = story();
        let commit = commit(&before, &room, &told, at(10));
        let mut golden = String::from("# fields\n");
        for (field, value) in &commit.patch.fields {
            writeln!(golden, "{field}: {}", std::str::from_utf8(value.as_ref().unwrap()).unwrap()).unwrap();
        }
        golden.push_str("# entries: kind, user, event, audit\n");
        let ends = events().into_iter().filter(is_end);
        for event in told.into_iter().map(|(_, event)| event).chain(ends) {
            let Entry { kind, user, body, audit, .. } = entry(Head::default(), &event, at(10));
            let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            writeln!(golden, "{kind} {user:?}\n  {}\n  {}", text(&body), text(&audit)).unwrap();
        }
        insta::assert_snapshot!("record", golden);
    }

    /// Reads the golden file of 3.0.0.
    #[test]
    fn rooms_and_events_that_3_0_0_stored_are_still_read() {
        let sample = include_str!("samples/record-3.0.0.txt");
        let (_, sample) = sample.split_once("# fields\n").unwrap();
        let (fields, entries) = sample.split_once("# entries: kind, user, event, audit\n").unwrap();
        let fields = fields.lines().map(|line| line.split_once(": ").unwrap());
        let fields: BTreeMap<_, _> =
            fields.map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()))).collect();
        let head = Head { epoch: 1_795_000_000_000, seq: 21 };
        let stored = Snapshot { room: RoomId::parse("friday").unwrap(), head, fields };
        let room = super::room(&stored).unwrap();
        assert_eq!((room.members().len(), room.host(), room.film()), (2, Some(&user("bob")), 0));
        // Each entry is three lines: its kind, the event, the audit.
        let bodies: Vec<_> = entries.lines().skip(1).step_by(3).map(str::trim).collect();
        assert_eq!(bodies.len(), 23);
        for body in bodies {
            let body = Bytes::copy_from_slice(body.as_bytes());
            let entry = Entry { head, at: at(0), kind: "", user: None, body, audit: Bytes::new() };
            super::event(&entry).unwrap();
        }
    }

    #[test]
    fn a_stored_room_is_read_as_it_was() {
        let (before, room, told) = story();
        let commit = commit(&before, &room, &told, at(10));
        assert_eq!(super::room(&snapshot(&commit)).unwrap(), room);
        for (entry, (head, event)) in commit.entries.iter().zip(told) {
            assert_eq!((entry.head, super::event(entry).unwrap()), (head, event));
        }
    }

    #[test]
    fn the_fields_of_one_commit_on_top_of_another_are_the_room() {
        let (mut room, _, told) = story();
        let mut fields: BTreeMap<String, Bytes> = BTreeMap::new();
        for (head, event) in told {
            let before = room.clone();
            room.apply(&event);
            let commit = commit(&before, &room, &[(head, event)], at(10));
            if commit.patch.clear {
                fields.clear();
            }
            for (name, value) in commit.patch.fields {
                match value {
                    Some(value) => fields.insert(name, value),
                    None => fields.remove(&name),
                };
            }
            let stored = Snapshot { room: room.id().clone(), head, fields: fields.clone() };
            assert_eq!(super::room(&stored).unwrap(), room);
        }
    }

    #[test]
    fn the_audit_keeps_no_texts_payloads_pins_and_tokens() {
        for event in events() {
            let entry = entry(Head::default(), &event, at(10));
            let audit = std::str::from_utf8(&entry.audit).unwrap();
            assert!(serde_json::from_str::<serde_json::Value>(audit).is_ok(), "{audit}");
            for secret in [SAID, "argon2", "c2FsdA", "201,201", "202,202", "y8vLy8", "4711"] {
                assert!(!audit.contains(secret), "{}: {audit}", entry.kind);
            }
        }
        // The secrets were there to be kept.
        let kept: String = events().iter().map(|event| String::from_utf8(json(event).to_vec()).unwrap()).collect();
        for secret in [SAID, "argon2", "c2FsdA", "201,201", "202,202", "y8vLy8", "4711"] {
            assert!(kept.contains(secret));
        }
    }
}
