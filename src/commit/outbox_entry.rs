//! The fields of an outbox entry in Redis: `room`, `head`, `events` (JSON, public: `docs/EVENTS.md`) and `state`
//! (binary, ours). Bodies of events are for replicas; the outbox has none.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::binary::{ByteReader, ByteWriter, WireError};
use super::{Commit, Entry, Patch, RoomRow, UserRow};
use crate::domain::{Head, RoomId, RoomTime, UserId};

const VERSION: u8 = 1;

/// An event as other readers of the outbox get it.
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
pub(crate) fn events(commit: &Commit) -> Vec<u8> {
    // The audit is JSON by contract; one that isn't must not hold up the entries behind it.
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
pub(crate) fn state(commit: &Commit) -> Vec<u8> {
    let Commit { patch, row, .. } = commit;
    let mut out = ByteWriter(vec![VERSION]);
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

/// The commit of an entry.
pub(crate) fn decode(room: RoomId, head: Head, events: &[u8], state: Bytes) -> Result<Commit, WireError> {
    let events: Vec<PublicEvent<'_>> = serde_json::from_slice(events)?;
    let entries = events.iter().map(|event| {
        let user = event.user.map(UserId::parse).transpose().map_err(|_| WireError::Wrong("a user"))?;
        Ok(Entry {
            head: Head { epoch: event.epoch, seq: event.seq },
            at: RoomTime::from_micros(event.at),
            kind: kind(event.kind),
            user,
            body: Bytes::new(),
            audit: Bytes::copy_from_slice(event.data.get().as_bytes()),
        })
    });
    let entries: Vec<Entry> = entries.collect::<Result<_, WireError>>()?;
    let mut input = ByteReader(state);
    input.version()?;
    let expected = input.head()?;
    let (patch, row) = (input.patch()?, input.row()?);
    Ok(Commit { room, expected, next: head, entries: entries.into(), patch, row })
}

/// Interns the name of a kind: [`Entry::kind`] is `'static`. The table is bounded, against a forged stream.
pub(crate) fn kind(name: &str) -> &'static str {
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

impl ByteReader {
    fn version(&mut self) -> Result<(), WireError> {
        match self.byte()? {
            VERSION => Ok(()),
            other => Err(WireError::Version(other)),
        }
    }

    fn patch(&mut self) -> Result<Patch, WireError> {
        let clear = self.flag()?;
        let mut fields = BTreeMap::new();
        for _ in 0..self.count()? {
            fields.insert(self.text()?, self.optional(Self::bytes)?);
        }
        Ok(Patch { clear, fields })
    }

    fn row(&mut self) -> Result<RoomRow, WireError> {
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

    fn user_row(&mut self) -> Result<UserRow, WireError> {
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

/// Commits of every shape, for the tests of this format and of the bus.
#[cfg(test)]
pub(crate) mod any {
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
        pub(crate) fn any_commit()(
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::any::any_commit;
    use super::*;

    proptest! {
        #[test]
        fn a_commit_comes_out_of_the_outbox_as_it_went_in(given in any_commit()) {
            let (events, state) = (events(&given), state(&given));
            let read = decode(given.room.clone(), given.next, &events, state.into()).unwrap();
            let entries: Vec<_> = given.entries.iter().map(|e| Entry { body: Bytes::new(), ..e.clone() }).collect();
            prop_assert_eq!(&read.entries[..], &entries[..]);
            prop_assert_eq!((read.expected, read.next), (given.expected, given.next));
            prop_assert_eq!((read.patch, read.row), (given.patch, given.row));
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused_and_nothing_worse(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            given in any_commit(),
        ) {
            let _ = decode(given.room.clone(), given.next, b"[]", bytes.into());
        }
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
