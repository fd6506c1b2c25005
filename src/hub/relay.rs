//! What nodes tell each other past the log: one message of the ephemeral lane, as bytes.
//!
//! A byte of version, then JSON. Nodes of two versions run side by side while a cluster is updated, so what a node can't
//! read (another version, a kind or a field that it doesn't know) it ignores: this lane promises nothing. A kind or an
//! optional field may be added within a version; whatever changes the meaning of a field takes a new one.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::delivery::{MemberStatus, Signal};
use crate::domain::{RelayedTick, SessionRef, UserId};

const VERSION: u8 = 1;

/// A message from node to node. `user` and `session` are the sender's, as its node knows them: the receiver compares
/// them with its own replica, so nobody is spoken for by a node that doesn't hold its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Relay {
    /// A position report, for every node with members. The receiver writes slot and host flag anew.
    Tick {
        /// Who.
        user: UserId,
        /// Over which session.
        session: SessionRef,
        /// The report.
        tick: RelayedTick,
        /// Whether v2 members hear of it.
        heartbeat: bool,
    },
    /// A member's own measurements, for every node with v3 members.
    Status {
        /// Who.
        user: UserId,
        /// Over which session.
        session: SessionRef,
        /// The measurements.
        status: MemberStatus,
    },
    /// From one member to one other, for the node of the other.
    Signal {
        /// Who.
        user: UserId,
        /// Over which session.
        session: SessionRef,
        /// To whom.
        to: UserId,
        /// What.
        signal: Signal,
        /// As what the client sent it, for the answer if nobody is there.
        #[serde(default)]
        request: String,
        /// With which reference.
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// The signal found nobody: its target left while it was under way. For the sender's node; `user` and `session` are the
    /// sender's, as the signal named them.
    Gone {
        /// Who asked.
        user: UserId,
        /// Over which session.
        session: SessionRef,
        /// As what.
        request: String,
        /// With which reference.
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// The signal found its member, and no room in its outbox. For the sender's node, as [`Relay::Gone`].
    Busy {
        /// Who asked.
        user: UserId,
        /// Over which session.
        session: SessionRef,
        /// As what.
        request: String,
        /// With which reference.
        #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<u64>,
    },
    /// Does this session still live? For the node that holds it. Here `user` and `session` are the one asked about.
    Probe {
        /// Which member.
        user: UserId,
        /// Its session.
        session: SessionRef,
    },
}

impl Relay {
    /// The bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.push(VERSION);
        match serde_json::to_writer(&mut out, self) {
            Ok(()) => out.into(),
            // Our own plain types: it can't fail, and if it ever did the receiver ignores what it can't read.
            Err(_) => Bytes::new(),
        }
    }

    /// `None`: of another version, or not for us to understand.
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
