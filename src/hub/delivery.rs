//! The values that a hub delivers to its subscribers: all that `protocol` knows of the hub.
//!
//! Encoded bytes are cached in the value: the first subscriber encodes, the others share the result.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{
    CompactBytes, Head, MediaTime, MediaUrl, Namespace, NodeId, RelayedTick, ResumeToken, RoomTime, SessionRef,
    TransportKind, UserId,
};
use crate::room::{Control, Event, Reject, Room};

/// ROOM_STATE's personal part.
#[derive(Debug)]
pub struct Joined<'a> {
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
pub struct EventDelivery<'a> {
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
        tick: RelayedTick,
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
        control: Control,
    },
    SyncResponse {
        position: MediaTime,
        playing: bool,
        url: Option<MediaUrl>,
    },
    /// `payload` is JSON text.
    Custom {
        namespace: Namespace,
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
pub struct TickDelivery {
    /// The report; slot and host flag are the server's.
    pub tick: RelayedTick,
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
