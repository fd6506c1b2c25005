//! Messages on the bus: kind, version, the sender, the room, and a body by the kind. Only nodes read them.
//!
//! Ephemeral messages travel in batches, at most [`BATCH_BYTES`] each unless a single one is longer. Nodes of 3.0.0
//! (version 1 of these kinds: one message, and its room) ignore a batch by its version, and theirs are ignored here.

use std::sync::Arc;

use bytes::Bytes;

use crate::commit::binary::{ByteReader, ByteWriter, WireError};
use crate::commit::outbox_entry::kind;
use crate::commit::{Commit, Entry};
use crate::domain::{Head, NodeId, RoomId};

const VERSION: u8 = 1;
/// Of the kinds that carry ephemeral messages.
const EPHEMERAL_VERSION: u8 = 2;
/// Bytes of ephemeral messages in one bus message.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

const COMMIT: u8 = 1;
const TO_FOLLOWERS: u8 = 2;
const TO_NODE: u8 = 3;
const RELOAD: u8 = 4;

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
    Ephemeral(Vec<Bytes>),
    /// To one node, whether it follows the rooms or not.
    Directed(Vec<(RoomId, Bytes)>),
    /// The room was written back, or a node of another version committed: replicas must be read again.
    Reload,
}

/// A bus message of a commit.
pub(super) fn commit_message(from: &NodeId, commit: &Commit) -> Vec<u8> {
    let mut out = header(COMMIT, VERSION, from, &commit.room);
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

/// Messages to all nodes that follow the room.
pub(super) fn to_followers(from: &NodeId, room: &RoomId, messages: &[Bytes]) -> Vec<u8> {
    let mut out = header(TO_FOLLOWERS, EPHEMERAL_VERSION, from, room);
    out.count(messages.len());
    messages.iter().for_each(|message| out.bytes(message));
    out.0
}

/// Messages to one node, each with its room. The header's room is the first one's.
pub(super) fn to_node(from: &NodeId, messages: &[(RoomId, Bytes)]) -> Vec<u8> {
    let Some((first, _)) = messages.first() else { return Vec::new() };
    let mut out = header(TO_NODE, EPHEMERAL_VERSION, from, first);
    out.count(messages.len());
    for (room, message) in messages {
        out.text(room.as_str());
        out.bytes(message);
    }
    out.0
}

pub(super) fn reload(from: &NodeId, room: &RoomId) -> Vec<u8> {
    header(RELOAD, VERSION, from, room).0
}

fn header(kind: u8, version: u8, from: &NodeId, room: &RoomId) -> ByteWriter {
    let mut out = ByteWriter(vec![kind, version]);
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
        let room = read_room(&mut input)?;
        let known = if matches!(kind, TO_FOLLOWERS | TO_NODE) { EPHEMERAL_VERSION } else { VERSION };
        let body = match kind {
            COMMIT | RELOAD if version != known => BusBody::Reload,
            _ if version != known => return Err(WireError::Version(version)),
            COMMIT => {
                let expected = input.head()?;
                let entries = (0..input.count()?).map(|_| entry(&mut input)).collect::<Result<_, _>>()?;
                BusBody::Commit { expected, entries }
            }
            TO_FOLLOWERS => BusBody::Ephemeral((0..input.count()?).map(|_| input.bytes()).collect::<Result<_, _>>()?),
            TO_NODE => {
                let count = input.count()?;
                let message = |_| Ok((read_room(&mut input)?, input.bytes()?));
                BusBody::Directed((0..count).map(message).collect::<Result<_, WireError>>()?)
            }
            RELOAD => BusBody::Reload,
            _ => return Err(WireError::Wrong("the kind")),
        };
        Ok(Self { from, room, body })
    }
}

fn read_room(input: &mut ByteReader) -> Result<RoomId, WireError> {
    RoomId::parse(&input.text()?).map_err(|_| WireError::Wrong("the room"))
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

        #[test]
        fn ephemeral_messages_come_off_the_bus_as_they_went_on(
            given in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let (from, friday) = (NodeId::parse("a").unwrap(), RoomId::parse("friday").unwrap());
            let messages: Vec<Bytes> = given.into_iter().map(Bytes::from).collect();
            let whole = to_followers(&from, &friday, &messages);
            prop_assert!(BusMessage::decode(Bytes::copy_from_slice(&whole[..cut.index(whole.len())])).is_err());
            let body = BusBody::Ephemeral(messages.clone());
            prop_assert_eq!(
                BusMessage::decode(whole.into()).unwrap(),
                BusMessage { from: from.clone(), room: friday.clone(), body }
            );
            let rooms = ["friday", "saturday"].map(|name| RoomId::parse(name).unwrap());
            let directed: Vec<_> = rooms.iter().cycle().cloned().zip(messages).collect();
            let whole = to_node(&from, &directed);
            prop_assert!(BusMessage::decode(Bytes::copy_from_slice(&whole[..cut.index(whole.len())])).is_err());
            let body = BusBody::Directed(directed);
            prop_assert_eq!(BusMessage::decode(whole.into()).unwrap(), BusMessage { from, room: friday, body });
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
        let batch = || to_followers(&from, &room, &[Bytes::from_static(b"x")]);
        assert!(matches!(of(9, batch()), Err(WireError::Version(9))));
        assert!(matches!(of(1, batch()), Err(WireError::Version(1))), "a message of 3.0.0");
    }
}
