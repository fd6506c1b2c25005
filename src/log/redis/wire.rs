//! Messages on the bus: kind, version, the sender, the room, and a body by the kind. Only nodes read them.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::binary::{ByteReader, ByteWriter, WireError};
use crate::commit::outbox_entry::kind;
use crate::commit::{Commit, Entry};
use crate::domain::{Head, NodeId, RoomId};

const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct BusMessage {
    pub(super) from: NodeId,
    pub(super) room: RoomId,
    pub(super) body: BusBody,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum BusBody {
    Commit {
        expected: Head,
        entries: Arc<[Entry]>,
    },
    /// To all nodes that follow the room.
    Ephemeral(Bytes),
    /// To one node, whether it follows or not.
    Directed(Bytes),
    /// The room was written back, or a node of another version committed: replicas must be read again.
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

fn header(kind: u8, from: &NodeId, room: &RoomId) -> ByteWriter {
    let mut out = ByteWriter(vec![kind, VERSION]);
    out.text(from.as_str());
    out.text(room.as_str());
    out
}

impl BusMessage {
    pub(super) fn decode(bytes: Bytes) -> Result<Self, WireError> {
        let mut input = ByteReader(bytes);
        let kind = input.byte()?;
        // The same in every version, up to the body.
        let version = input.byte()?;
        let from = NodeId::parse(&input.text()?).map_err(|_| WireError::Wrong("the sender"))?;
        let room = RoomId::parse(&input.text()?).map_err(|_| WireError::Wrong("the room"))?;
        let body = match kind {
            1 | 4 if version != VERSION => BusBody::Reload,
            _ if version != VERSION => return Err(WireError::Version(version)),
            1 => {
                let expected = input.head()?;
                let entries = (0..input.count()?).map(|_| entry(&mut input)).collect::<Result<_, _>>()?;
                BusBody::Commit { expected, entries }
            }
            2 => BusBody::Ephemeral(input.bytes()?),
            3 => BusBody::Directed(input.bytes()?),
            4 => BusBody::Reload,
            _ => return Err(WireError::Wrong("the kind")),
        };
        Ok(Self { from, room, body })
    }
}

fn entry(input: &mut ByteReader) -> Result<Entry, WireError> {
    Ok(Entry {
        head: input.head()?,
        at: input.time()?,
        kind: kind(&input.text()?),
        user: input.optional(ByteReader::user)?,
        body: input.bytes()?,
        audit: Bytes::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commit::outbox_entry::any::any_commit;

    proptest! {
        #[test]
        fn a_commit_comes_off_the_bus_as_it_went_on(given in any_commit()) {
            let from = NodeId::parse("a").unwrap();
            let read = BusMessage::decode(commit_message(&from, &given).into()).unwrap();
            let entries: Vec<_> = given.entries.iter().map(|e| Entry { audit: Bytes::new(), ..e.clone() }).collect();
            let body = BusBody::Commit { expected: given.expected, entries: entries.into() };
            prop_assert_eq!(read, BusMessage { from, room: given.room, body });
        }

        #[test]
        fn bytes_that_nobody_wrote_are_refused_and_nothing_worse(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
            given in any_commit(),
        ) {
            let _ = BusMessage::decode(bytes.clone().into());
            let whole = commit_message(&NodeId::parse("a").unwrap(), &given);
            let cut = cut.index(whole.len());
            prop_assert!(BusMessage::decode(Bytes::copy_from_slice(&whole[..cut])).is_err());
        }
    }

    #[test]
    fn a_commit_of_another_version_means_that_the_room_must_be_read_again() {
        let (from, room) = (NodeId::parse("a").unwrap(), RoomId::parse("friday").unwrap());
        let of = |version: u8, mut message: Vec<u8>| {
            message[1] = version;
            BusMessage::decode(message.into())
        };
        let mut commit = reload(&from, &room);
        commit[0] = 1;
        commit.extend(b"whatever it is by then");
        assert_eq!(
            of(9, commit).unwrap(),
            BusMessage { from: from.clone(), room: room.clone(), body: BusBody::Reload }
        );
        assert!(matches!(of(9, ephemeral(&from, &room, false, b"x")), Err(WireError::Version(9))));
    }
}
