//! What the hub asks of a session: take this, never block.
//!
//! The hub calls an [`Outlet`] while it holds the room's lock, in the order of the room, so an implementation encodes,
//! queues and returns. Encoded bytes are cached in the value passed: the first outlet of a dialect encodes, the others
//! share the result.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{
    CloseCode, CompactBytes, Dialect, Head, KeyHash, NodeId, ResumeToken, RoomTime, SessionRef, Tick, TransportKind,
    UserId,
};
use crate::quota::{Place, Visitor};
use crate::room::{ChatLine, Claim, Event, Reject, Room};

/// A session's receiving end.
pub trait Outlet: Send + Sync + 'static {
    /// The first message of a membership, and the answer to REQUEST_SYNC: the whole state.
    fn state(&self, room: &Room, welcome: &Welcome<'_>);
    /// A committed event.
    fn event(&self, happening: &Happening<'_>);
    /// An uncommitted message.
    fn notice(&self, notice: &Notice<'_>);
    /// A position report; replaces a waiting one of the same slot.
    fn tick(&self, report: &TickReport);
    /// A CHAT of before, with its own place.
    fn replay(&self, head: Head, line: &ChatLine);
    /// What became of a command that carried a reference, or failed.
    fn reply(&self, reply: Reply<'_>);
    /// The session must end.
    fn close(&self, code: CloseCode, reason: &str);
    /// Ask the peer for a sign of life; the session reports silence by ending (1.5 s).
    fn probe(&self);
    /// The latest round trip.
    fn rtt(&self) -> Option<Duration>;
    /// Whether a message of so many bytes that one member sends to this one alone may be queued. It may not fill more than
    /// half of what may wait, so that nobody's signals end somebody else's session.
    fn has_room(&self, _bytes: usize) -> bool {
        true
    }
    /// Bytes that wait for the peer.
    fn waiting_bytes(&self) -> usize {
        0
    }
}

/// ROOM_STATE's personal part.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// To whom.
    pub user: &'a UserId,
    /// Over which session.
    pub session: &'a SessionRef,
    /// The token to come back with: on a JOIN only.
    pub token: Option<&'a ResumeToken>,
    /// Whether it was a member before.
    pub resumed: bool,
    /// The node's name.
    pub node: &'a NodeId,
    /// Room time now.
    pub now: RoomTime,
}

/// A committed event on its way out, with the room as it is after it.
#[derive(Debug)]
pub struct Happening<'a> {
    /// The room after the event.
    pub room: &'a Room,
    /// The event.
    pub event: &'a Event,
    /// Its place.
    pub head: Head,
    /// Room time now.
    pub now: RoomTime,
    /// One encoding for all; `None`: this event has no message (`Created`, `Kept`, `Ended`).
    pub encoded: OnceCell<Option<Bytes>>,
}

/// An uncommitted message on its way out.
#[derive(Debug)]
pub struct Notice<'a> {
    /// What.
    pub body: NoticeBody<'a>,
    /// Room time now.
    pub now: RoomTime,
    /// One encoding for all.
    pub encoded: OnceCell<Bytes>,
}

/// The uncommitted messages. JSON texts in them were parsed and bounded at the edge.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after docs/PROTOCOL.md")]
pub enum NoticeBody<'a> {
    /// OFFER, ANSWER, ICE_CANDIDATE, PLAYBACK_ACK, a v2 member's SYNC_RESPONSE, CUSTOM with `to`.
    Signal {
        from: &'a UserId,
        to: &'a UserId,
        signal: &'a Signal,
        node: &'a NodeId,
    },
    /// HOST_HEARTBEAT as JSON, for v2 members.
    Heartbeat {
        from: &'a UserId,
        tick: Tick,
    },
    /// MEMBER_STATUS, for v3 members.
    Status {
        user: &'a UserId,
        transport: TransportKind,
        status: MemberStatus,
    },
    /// SYNC_RESPONSE of the server, to one.
    Sync {
        room: &'a Room,
    },
    Degraded {
        degraded: bool,
    },
    Reconnect {
        after: Duration,
    },
}

/// What one member sends to one other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the fields are named after docs/PROTOCOL.md")]
pub enum Signal {
    /// `offer` is JSON text.
    Offer {
        offer: String,
    },
    /// `answer` is JSON text.
    Answer {
        answer: String,
    },
    /// `candidate` is JSON text.
    IceCandidate {
        candidate: String,
    },
    PlaybackAck {
        control: crate::room::Control,
    },
    SyncResponse {
        position: crate::domain::MediaTime,
        playing: bool,
        url: Option<crate::domain::MediaUrl>,
    },
    /// `payload` is JSON text.
    Custom {
        namespace: crate::domain::Namespace,
        payload: String,
    },
}

impl Signal {
    /// About how many bytes its message has.
    pub fn bytes(&self) -> usize {
        const ENVELOPE: usize = 256;
        ENVELOPE
            + match self {
                Self::Offer { offer: text }
                | Self::Answer { answer: text }
                | Self::IceCandidate { candidate: text } => text.len(),
                Self::Custom { payload, .. } => payload.len(),
                Self::SyncResponse { url, .. } => url.as_ref().map_or(0, |url| url.as_str().len()),
                Self::PlaybackAck { .. } => 0,
            }
    }
}

/// A member's own measurements, for display: finite, within ±10 min.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Round trip, ms.
    pub rtt_ms: Option<f64>,
    /// Deviation from the vector, ms.
    pub drift_ms: Option<f64>,
    /// Estimated clock error, ms.
    pub clock_error_ms: Option<f64>,
    /// Whether the player waits for data.
    pub buffering: bool,
}

/// A tick on its way out.
#[derive(Debug)]
pub struct TickReport {
    /// The report; slot and host flag are the server's.
    pub tick: Tick,
    /// The 28 bytes, shared by all.
    pub encoded: OnceCell<CompactBytes>,
}

/// The answer to a command.
#[derive(Debug)]
pub enum Reply<'a> {
    /// Committed at this head (sent only when the client gave a `ref`).
    Ack {
        /// The client's reference.
        reference: u64,
        /// Where.
        head: Head,
    },
    /// Refused.
    Refused {
        /// The client's reference.
        reference: Option<u64>,
        /// The type of the request.
        request: &'a str,
        /// Why.
        refusal: &'a Refusal,
    },
}

/// Why the hub did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    /// The room refused.
    #[error(transparent)]
    Room(#[from] Reject),
    /// Too many wrong PINs.
    #[error("too many wrong PINs; wait")]
    PinThrottled {
        /// How long.
        retry_after: Duration,
    },
    /// Too many JOINs from this address.
    #[error("too many joins; wait")]
    JoinThrottled {
        /// How long.
        retry_after: Duration,
    },
    /// The user has as many sessions as one may.
    #[error("as many sessions as one user may have; leave another room first")]
    SessionLimit,
    /// Its address has.
    #[error("as many sessions as one address may have; try again later")]
    AddressFull,
    /// More bytes, or commands of this kind, than the sender, its address or the room may cause.
    #[error("too much at once; wait")]
    OverBudget {
        /// How long.
        retry_after: Duration,
    },
    /// So much waits for the member addressed that this doesn't fit.
    #[error("the member addressed can't take more at the moment; try again")]
    TargetBusy,
    /// No place for another room on this node.
    #[error("this server has no place for another room")]
    RoomLimit,
    /// Too much waits in this room.
    #[error("this room is overloaded; try again")]
    Overloaded,
    /// The log can't commit.
    #[error("this can't be committed at the moment; try again")]
    Unavailable,
    /// The server stops.
    #[error("this server is going away")]
    Draining,
    /// A fault of the server.
    #[error("a fault of the server")]
    Internal,
}

/// A JOIN as the session hands it to the hub.
#[derive(Debug)]
pub struct JoinRequest {
    /// Which room.
    pub room: crate::domain::RoomId,
    /// Who.
    pub user: UserId,
    /// Called what.
    pub name: Option<crate::domain::Username>,
    /// PIN, as typed.
    pub pin: Option<crate::domain::Pin>,
    /// Token, as presented.
    pub token: Option<ResumeToken>,
    /// Dialect.
    pub dialect: Dialect,
    /// The last event that the client saw, to be sent the CHAT that it missed.
    pub last_seen: Option<Head>,
    /// The session.
    pub session: SessionRef,
    /// What carries it.
    pub transport: TransportKind,
    /// Where the client is (throttling only; never stored).
    pub address: IpAddr,
    /// The place that the session holds from a JOIN before.
    pub place: Option<Arc<Place>>,
    /// Hash of the key that its client keeps.
    pub client: Option<KeyHash>,
    /// What it says of whose room this is.
    pub claim: Claim,
}

impl JoinRequest {
    /// Somebody new, in the current dialect: no name, no PIN, no token, nothing seen.
    pub fn new(
        room: crate::domain::RoomId,
        user: UserId,
        session: SessionRef,
        transport: TransportKind,
        address: IpAddr,
    ) -> Self {
        Self {
            room,
            user,
            name: None,
            pin: None,
            token: None,
            dialect: Dialect::V3,
            last_seen: None,
            session,
            transport,
            address,
            place: None,
            client: None,
            claim: Claim::default(),
        }
    }

    /// Who asks, as quotas see it.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(self.user.clone(), self.address)
    }
}
