//! Messages from node to node past the log, for the ephemeral lane.
//!
//! A version byte, then JSON. During an update nodes of two versions run side by side: a node ignores what it can't
//! read (another version, an unknown kind or field), and the ephemeral lane guarantees no delivery. A kind or an
//! optional field may be added within a version; a field whose meaning changes takes a new version.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::delivery::{MemberStatus, Signal};
use crate::domain::{RelayedTick, SessionRef, UserId};

const VERSION: u8 = 1;

/// `user` and `session` are the sender's. The receiver compares them with its own replica, so that a node can't speak
/// for a member whose session it doesn't hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Relay {
    /// A position report, for every node with members. The receiver replaces slot and host flag by what its replica
    /// shows.
    Tick {
        user: UserId,
        session: SessionRef,
        tick: RelayedTick,
        /// Whether v2 members are told, too.
        heartbeat: bool,
    },
    /// A member's own measurements, for every node with v3 members.
    Status { user: UserId, session: SessionRef, status: MemberStatus },
    /// A signal from one member to one other, for the target's node.
    Signal {
        user: UserId,
        session: SessionRef,
        to: UserId,
        signal: Signal,
        /// The message type, for the answer if the target is gone.
        #[serde(default)]
        request: String,
        /// The client's `ref`.
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// Answer to a signal whose target has left. For the sender's node; `user` and `session` are the sender's.
    Gone {
        user: UserId,
        session: SessionRef,
        request: String,
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// Answer to a signal for which the target's outbox had no room. For the sender's node, like [`Relay::Gone`].
    Busy {
        user: UserId,
        session: SessionRef,
        request: String,
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// Probes a session, for the node that holds it. `user` and `session` are those probed.
    Probe { user: UserId, session: SessionRef },
}

impl Relay {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.push(VERSION);
        match serde_json::to_writer(&mut out, self) {
            Ok(()) => out.into(),
            // Serialising plain types to memory can't fail; if it did, the receiver would ignore the empty message.
            Err(_) => Bytes::new(),
        }
    }

    /// `None`: another version, or an unknown kind.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first() {
            Some((&VERSION, json)) => serde_json::from_slice(json).ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Limits, MediaTime, MemberSlot, Namespace, NodeId, Rate, RoomTime};

    fn ann() -> (UserId, SessionRef) {
        (UserId::parse("ann").unwrap(), SessionRef { node: NodeId::parse("n1").unwrap(), id: 7 })
    }

    fn a_tick() -> Relay {
        let (user, session) = ann();
        let tick = RelayedTick {
            slot: MemberSlot(1),
            seq: 9,
            playing: true,
            from_host: true,
            position: MediaTime::parse(12.345_678_901_2, &Limits::default()).unwrap(),
            at: RoomTime::from_millis(1_795_000_000_000),
            rate: Rate::NORMAL,
        };
        Relay::Tick { user, session, tick, heartbeat: false }
    }

    #[test]
    fn every_kind_is_read_as_it_was_written() {
        let (user, session) = ann();
        let to = UserId::parse("bob").unwrap();
        let signals = [
            Signal::Offer { offer: r#"{"sdp":"v=0\r\n"}"#.into() },
            Signal::IceCandidate { candidate: "null".into() },
            Signal::PlaybackAck { control: crate::room::Control::Play },
            Signal::SyncResponse { position: MediaTime::ZERO, playing: true, url: None },
            Signal::Custom { namespace: Namespace::parse("org.example").unwrap(), payload: "[1,2]".into() },
        ];
        let relays = signals.into_iter().map(|signal| Relay::Signal {
            user: user.clone(),
            session: session.clone(),
            to: to.clone(),
            signal,
            request: "OFFER".into(),
            reference: Some(7),
        });
        let status = MemberStatus { rtt_ms: Some(20.5), ..MemberStatus::default() };
        let others = [
            a_tick(),
            Relay::Status { user: user.clone(), session: session.clone(), status },
            Relay::Probe { user: user.clone(), session: session.clone() },
            Relay::Gone { user: user.clone(), session: session.clone(), request: "OFFER".into(), reference: None },
            Relay::Busy { user: user.clone(), session: session.clone(), request: "OFFER".into(), reference: Some(7) },
        ];
        for relay in relays.chain(others) {
            assert_eq!(Relay::decode(&relay.encode()), Some(relay));
        }
    }

    #[test]
    fn what_another_version_wrote_is_ignored() {
        let mut newer = a_tick().encode().to_vec();
        newer[0] = VERSION + 1;
        assert_eq!(Relay::decode(&newer), None);
        assert_eq!(Relay::decode(b"\x01{\"teleport\":{\"user\":\"ann\"}}"), None, "a kind of later");
        assert_eq!(Relay::decode(b""), None);
        assert_eq!(Relay::decode(b"\x01"), None);
    }

    #[test]
    fn a_signal_of_a_node_that_knows_no_answers_is_read() {
        let (user, session) = ann();
        let signal = Signal::Offer { offer: "{}".into() };
        let relay = Relay::Signal {
            user,
            session,
            to: UserId::parse("bob").unwrap(),
            signal,
            request: String::new(),
            reference: None,
        };
        let text = String::from_utf8(relay.encode().to_vec()).unwrap();
        let without = text.replace(",\"request\":\"\"", "");
        assert_ne!(without, text);
        assert_eq!(Relay::decode(without.as_bytes()), Some(relay));
    }

    #[test]
    fn a_field_that_was_added_later_changes_nothing() {
        let text = String::from_utf8(a_tick().encode().to_vec()).unwrap();
        let with_more = text.replace("\"heartbeat\"", "\"colour\":\"red\",\"heartbeat\"");
        assert_ne!(with_more, text);
        assert_eq!(Relay::decode(with_more.as_bytes()), Some(a_tick()));
    }
}
