//! How commits look on the bus and in the outbox.
//!
//! * A bus message: kind, version, the sender, the room, and what the kind wants. Only nodes read it, while it flies.
//! * An outbox entry: fields `room`, `head`, `events` (JSON, for anybody: `docs/EVENTS.md`) and `state` (binary, ours).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::codec::{Reader, Writer};
use crate::commit::{Commit, Entry, Patch, RoomRow, UserRow};
use crate::domain::{Head, NodeId, RoomId, RoomTime, UserId};

const VERSION: u8 = 1;

/// Bytes that this version did not write.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it ends too early")]
    Short,
    #[error("version {0} is not known here")]
    Version(u8),
    #[error("{0} is not what it should be")]
    Wrong(&'static str),
    #[error("events: {0}")]
    Events(#[from] serde_json::Error),
}

/// What travels over the bus.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    pub(super) from: NodeId,
    pub(super) room: RoomId,
    pub(super) body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Body {
    Commit {
        expected: Head,
        entries: Arc<[Entry]>,
    },
    /// To all who follow the room.
    Ephemeral(Bytes),
    /// To one node, whether it follows or not.
    Directed(Bytes),
    /// The room was written back, or a node of another version committed: what is known of it may be wrong.
    Reload,
}

/// A bus message of a commit.
pub(super) fn commit_message(from: &NodeId, commit: &Commit) -> Vec<u8> {
    let mut out = header(1, from, &commit.room);
    out.head(commit.expected);
    out.count(commit.entries.len());
    for entry in commit.entries.iter() {
        out.head(entry.head);
        out.time(entry.at);
        out.text(entry.kind);
        out.optional(entry.user.as_ref(), |out, user| out.text(user.as_str()));
        out.bytes(&entry.body);
    }
    out.0
}

pub(super) fn ephemeral(from: &NodeId, room: &RoomId, directed: bool, message: &[u8]) -> Vec<u8> {
    let mut out = header(if directed { 3 } else { 2 }, from, room);
    out.bytes(message);
    out.0
}

pub(super) fn reload(from: &NodeId, room: &RoomId) -> Vec<u8> {
    header(4, from, room).0
}

fn header(kind: u8, from: &NodeId, room: &RoomId) -> Writer {
    let mut out = Writer(vec![kind, VERSION]);
    out.text(from.as_str());
    out.text(room.as_str());
    out
}

impl Message {
    pub(super) fn decode(bytes: Bytes) -> Result<Self, RecordError> {
        let mut input = Reader(bytes);
        let kind = input.byte()?;
        // What follows the version is the same in every version, up to the body.
        let version = input.byte()?;
        let from = NodeId::parse(&input.text()?).map_err(|_| RecordError::Wrong("the sender"))?;
        let room = RoomId::parse(&input.text()?).map_err(|_| RecordError::Wrong("the room"))?;
        let body = match kind {
            1 | 4 if version != VERSION => Body::Reload,
            _ if version != VERSION => return Err(RecordError::Version(version)),
            1 => {
                let expected = input.head()?;
                let entries = (0..input.count()?).map(|_| input.entry()).collect::<Result<_, _>>()?;
                Body::Commit { expected, entries }
            }
            2 => Body::Ephemeral(input.bytes()?),
            3 => Body::Directed(input.bytes()?),
            4 => Body::Reload,
            _ => return Err(RecordError::Wrong("the kind")),
        };
        Ok(Self { from, room, body })
    }
}

/// An event as anybody may read it.
#[derive(Serialize, Deserialize)]
struct PublicEvent<'a> {
    epoch: u64,
    seq: u64,
    /// Microseconds since the Unix epoch.
    at: i64,
    kind: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// The field `events` of an outbox entry.
pub(super) fn events(commit: &Commit) -> Vec<u8> {
    // The audit is JSON by contract; what is not must not hold up everything behind it.
    let data: Vec<Box<RawValue>> = commit.entries.iter().map(|entry| json_or_text(&entry.audit)).collect();
    let events: Vec<_> = commit
        .entries
        .iter()
        .zip(&data)
        .map(|(entry, data)| PublicEvent {
            epoch: entry.head.epoch,
            seq: entry.head.seq,
            at: entry.at.as_micros(),
            kind: entry.kind,
            user: entry.user.as_ref().map(UserId::as_str),
            data,
        })
        .collect();
    serde_json::to_vec(&events).unwrap_or_default()
}

fn json_or_text(bytes: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text)
        .or_else(|_| serde_json::value::to_raw_value(&text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// The field `state` of an outbox entry.
pub(super) fn state(commit: &Commit) -> Vec<u8> {
    let Commit { patch, row, .. } = commit;
    let mut out = Writer(vec![VERSION]);
    out.head(commit.expected);
    out.flag(patch.clear);
    out.count(patch.fields.len());
    for (field, value) in &patch.fields {
        out.text(field);
        out.optional(value.as_ref(), |out, value| out.bytes(value));
    }
    out.optional(row.host.as_ref(), |out, host| out.text(host.as_str()));
    out.optional(row.url.as_ref(), |out, url| out.text(url));
    out.0.extend_from_slice(&row.position.to_be_bytes());
    out.flag(row.playing);
    out.time(row.at);
    out.flag(row.guest_control);
    out.flag(row.ended);
    out.count(row.users.len());
    for user in &row.users {
        out.text(user.user.as_str());
        out.text(&user.name);
        out.0.extend_from_slice(&user.slot.to_be_bytes());
        out.time(user.joined_at);
        out.flag(user.connected);
        out.optional(user.left_at.as_ref(), |out, at| out.time(*at));
    }
    out.0
}

/// The commit of an outbox entry. Bodies are for replicas; the outbox has none.
pub(super) fn commit(room: RoomId, head: Head, events: &[u8], state: Bytes) -> Result<Commit, RecordError> {
    let events: Vec<PublicEvent<'_>> = serde_json::from_slice(events)?;
    let entries = events.iter().map(|event| {
        let user = event.user.map(UserId::parse).transpose().map_err(|_| RecordError::Wrong("a user"))?;
        Ok(Entry {
            head: Head { epoch: event.epoch, seq: event.seq },
            at: RoomTime::from_micros(event.at),
            kind: kind(event.kind),
            user,
            body: Bytes::new(),
            audit: Bytes::copy_from_slice(event.data.get().as_bytes()),
        })
    });
    let entries: Vec<Entry> = entries.collect::<Result<_, RecordError>>()?;
    let mut input = Reader(state);
    input.version()?;
    let expected = input.head()?;
    let (patch, row) = (input.patch()?, input.row()?);
    Ok(Commit { room, expected, next: head, entries: entries.into(), patch, row })
}

/// `epoch.seq`, as the room's hash and the outbox have it.
pub(super) fn head_text(head: Head) -> String {
    format!("{}.{}", head.epoch, head.seq)
}

pub(super) fn parse_head(text: &[u8]) -> Option<Head> {
    let (epoch, seq) = std::str::from_utf8(text).ok()?.split_once('.')?;
    Some(Head { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
}

/// A kind's name with the life that [`Entry::kind`] wants. The table of names is small and ours; a forged stream can't
/// make it grow without bound.
fn kind(name: &str) -> &'static str {
    const MOST: usize = 256;
    static KINDS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut kinds = KINDS.lock();
    let kinds = kinds.get_or_insert_default();
    if let Some(known) = kinds.get(name) {
        return known;
    }
    if kinds.len() >= MOST {
        return "unknown";
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    kinds.insert(name);
    name
}

impl Reader {
    fn version(&mut self) -> Result<(), RecordError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(RecordError::Version(other)),
        }
    }

    fn entry(&mut self) -> Result<Entry, RecordError> {
        Ok(Entry {
            head: self.head()?,
            at: self.time()?,
            kind: kind(&self.text()?),
            user: self.optional(Self::user)?,
            body: self.bytes()?,
            audit: Bytes::new(),
        })
    }

    fn patch(&mut self) -> Result<Patch, RecordError> {
        let clear = self.flag()?;
        let mut fields = BTreeMap::new();
        for _ in 0..self.count()? {
            fields.insert(self.text()?, self.optional(Self::bytes)?);
        }
        Ok(Patch { clear, fields })
    }

    fn row(&mut self) -> Result<RoomRow, RecordError> {
        Ok(RoomRow {
            host: self.optional(Self::user)?,
            url: self.optional(Self::text)?,
            position: f64::from_be_bytes(self.array()?),
            playing: self.flag()?,
            at: self.time()?,
            guest_control: self.flag()?,
            ended: self.flag()?,
            users: (0..self.count()?).map(|_| self.user_row()).collect::<Result<_, _>>()?,
        })
    }

    fn user_row(&mut self) -> Result<UserRow, RecordError> {
        Ok(UserRow {
            user: self.user()?,
            name: self.text()?,
            slot: u16::from_be_bytes(self.array()?),
            joined_at: self.time()?,
            connected: self.flag()?,
            left_at: self.optional(Self::time)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> impl Strategy<Value = Head> {
        (any::<u64>(), any::<u64>()).prop_map(|(epoch, seq)| Head { epoch, seq })
    }

    fn time() -> impl Strategy<Value = RoomTime> {
        any::<i64>().prop_map(RoomTime::from_micros)
    }

    fn user() -> impl Strategy<Value = UserId> {
        "[a-z:@.]{1,64}".prop_map(|text| UserId::parse(&text).unwrap())
    }

    fn raw() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn entry() -> impl Strategy<Value = Entry> {
        let audit = any::<u32>().prop_map(|n| Bytes::from(format!("{{\"n\":{n}}}")));
        let kind = prop_oneof![Just("play"), Just("room_ended")];
        (head(), time(), kind, proptest::option::of(user()), raw(), audit)
            .prop_map(|(head, at, kind, user, body, audit)| Entry { head, at, kind, user, body, audit })
    }

    fn user_row() -> impl Strategy<Value = UserRow> {
        (user(), "\\PC{0,20}", any::<u16>(), time(), any::<bool>(), proptest::option::of(time())).prop_map(
            |(user, name, slot, joined_at, connected, left_at)| UserRow {
                user,
                name,
                slot,
                joined_at,
                connected,
                left_at,
            },
        )
    }

    prop_compose! {
        fn any_commit()(
            expected in head(),
            next in head(),
            entries in proptest::collection::vec(entry(), 0..5),
            clear in any::<bool>(),
            fields in proptest::collection::btree_map("\\PC{0,9}", proptest::option::of(raw()), 0..5),
            host in proptest::option::of(user()),
            url in proptest::option::of("\\PC{0,30}"),
            position in -1e9..1e9,
            flags in any::<(bool, bool, bool)>(),
            at in time(),
            users in proptest::collection::vec(user_row(), 0..4),
        ) -> Commit {
            let (playing, guest_control, ended) = flags;
            Commit {
                room: RoomId::parse("friday").unwrap(),
                expected,
                next,
                entries: entries.into(),
                patch: Patch { clear, fields },
                row: RoomRow { host, url, position, playing, at, guest_control, ended, users },
            }
        }
    }

    proptest! {
        #[test]
        fn a_commit_comes_out_of_the_outbox_as_it_went_in(given in any_commit()) {
            let (events, state) = (events(&given), state(&given));
            let read = commit(given.room.clone(), given.next, &events, state.into()).unwrap();
            let entries: Vec<_> = given.entries.iter().map(|e| Entry { body: Bytes::new(), ..e.clone() }).collect();
            prop_assert_eq!(&read.entries[..], &entries[..]);
            prop_assert_eq!((read.expected, read.next), (given.expected, given.next));
            prop_assert_eq!((read.patch, read.row), (given.patch, given.row));
        }

        #[test]
        fn a_commit_comes_off_the_bus_as_it_went_on(given in any_commit()) {
            let from = NodeId::parse("a").unwrap();
            let read = Message::decode(commit_message(&from, &given).into()).unwrap();
            let entries: Vec<_> = given.entries.iter().map(|e| Entry { audit: Bytes::new(), ..e.clone() }).collect();
            let body = Body::Commit { expected: given.expected, entries: entries.into() };
            prop_assert_eq!(read, Message { from, room: given.room, body });
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused_and_nothing_worse(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
            given in any_commit(),
        ) {
            let _ = Message::decode(bytes.clone().into());
            let _ = commit(given.room.clone(), given.next, b"[]", bytes.into());
            let whole = commit_message(&NodeId::parse("a").unwrap(), &given);
            let cut = cut.index(whole.len());
            prop_assert!(Message::decode(Bytes::copy_from_slice(&whole[..cut])).is_err());
        }
    }

    #[test]
    fn a_commit_of_another_version_means_that_the_room_must_be_read_again() {
        let (from, room) = (NodeId::parse("a").unwrap(), RoomId::parse("friday").unwrap());
        let of = |version: u8, mut message: Vec<u8>| {
            message[1] = version;
            Message::decode(message.into())
        };
        let mut commit = reload(&from, &room);
        commit[0] = 1;
        commit.extend(b"whatever it is by then");
        assert_eq!(of(9, commit).unwrap(), Message { from: from.clone(), room: room.clone(), body: Body::Reload });
        assert!(matches!(of(9, ephemeral(&from, &room, false, b"x")), Err(RecordError::Version(9))));
    }

    #[test]
    fn an_audit_that_is_not_json_does_not_hold_up_the_outbox() {
        let entry = Entry {
            head: Head { epoch: 1, seq: 1 },
            at: RoomTime::from_micros(5),
            kind: "play",
            user: None,
            body: Bytes::new(),
            audit: Bytes::from_static(b"{broken \xff"),
        };
        let row = RoomRow {
            host: None,
            url: None,
            position: 0.0,
            playing: false,
            at: RoomTime::from_micros(5),
            guest_control: false,
            ended: false,
            users: Vec::new(),
        };
        let room = RoomId::parse("friday").unwrap();
        let (expected, next) = (Head::default(), entry.head);
        let given = Commit { room, expected, next, entries: [entry].into(), patch: Patch::default(), row };
        assert!(String::from_utf8(events(&given)).unwrap().contains("{broken"));
    }
}
