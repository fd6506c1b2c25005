//! The log's record: rooms as fields, events as entries. A golden test holds the format.
//!
//! Fields of a room: `core` (everything but people), `bans`, and `m:<userId>` for each member, so that a commit writes
//! only what it changed.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Head, RoomTime, UserId};
use crate::log::{Commit, Entry, Patch, RoomRow, Snapshot, UserRow};
use crate::room::{By, Event, Member, Room};

const CORE: &str = "core";
const BANS: &str = "bans";
const MEMBER: &str = "m:";

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
    for (field, value) in &snapshot.fields {
        let Some(user) = field.strip_prefix(MEMBER) else { continue };
        let user = UserId::parse(user).map_err(|_| RecordError::Member(user.to_owned()))?;
        room.members.insert(user, parse(field, value)?);
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
    let core = json(&Core::of(after));
    if clear || core != json(&Core::of(before)) {
        patch.fields.insert(CORE.into(), Some(core));
    }
    if clear || before.bans != after.bans {
        patch.fields.insert(BANS.into(), Some(json(&after.bans)));
    }
    for (user, member) in &after.members {
        if clear || before.members.get(user) != Some(member) {
            patch.fields.insert(format!("{MEMBER}{user}"), Some(json(member)));
        }
    }
    if !clear {
        for user in before.members.keys().filter(|user| !after.members.contains_key(*user)) {
            patch.fields.insert(format!("{MEMBER}{user}"), None);
        }
    }
    patch
}

fn row(before: &Room, after: &Room, now: RoomTime) -> RoomRow {
    let same_epoch = before.head.epoch == after.head.epoch;
    let changed =
        after.members.iter().filter(|(user, member)| !same_epoch || before.members.get(*user) != Some(*member));
    let gone = before.members.iter().filter(|(user, _)| same_epoch && !after.members.contains_key(*user));
    RoomRow {
        host: after.host.clone(),
        url: after.url.as_ref().map(|url| url.as_str().to_owned()),
        position: after.playback.position.seconds(),
        playing: after.playback.playing,
        at: after.playback.at,
        guest_control: after.guest_control,
        ended: after.is_vacant(),
        users: changed
            .map(|(user, member)| user_row(user, member, None))
            .chain(gone.map(|(user, member)| user_row(user, member, Some(now))))
            .collect(),
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
    playback: crate::room::Playback,
    gate: Option<crate::room::Gate>,
    next_gate: u32,
    next_slot: u16,
}

impl Core {
    fn of(room: &Room) -> Self {
        Self {
            created_at: room.created_at,
            host: room.host.clone(),
            guest_control: room.guest_control,
            pin: room.pin.clone(),
            url: room.url.clone(),
            playback: room.playback,
            gate: room.gate.clone(),
            next_gate: room.next_gate,
            next_slot: room.next_slot,
        }
    }

    fn into_room(self, snapshot: &Snapshot) -> Room {
        let mut room = Room::vacant(snapshot.room.clone(), snapshot.head);
        room.created_at = self.created_at;
        room.host = self.host;
        room.guest_control = self.guest_control;
        room.pin = self.pin;
        room.url = self.url;
        room.playback = self.playback;
        room.gate = self.gate;
        room.next_gate = self.next_gate;
        room.next_slot = self.next_slot;
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
                for secret in ["pin", "token", "proved", "key"] {
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
        | Event::Ended { .. } => None,
    }
}
