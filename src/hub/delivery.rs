//! The values that a hub delivers to its subscribers: all that `protocol` knows of the hub.
//!
//! Encoded bytes are cached in the value: the first subscriber encodes, the others share the result.

use std::cell::OnceCell;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::{
    CompactBytes, Head, MediaTime, MediaUrl, Namespace, NodeId, RelayedStatus, RelayedTick, ResumeToken, RoomDigest,
    RoomTime, SessionRef, UserId, Username,
};
use crate::room::{Control, Event, Reject, Room};

/// The part of ROOM_STATE that differs from receiver to receiver.
#[derive(Debug)]
pub struct Joined<'a> {
    /// `None`: the message is for the whole audience.
    pub user: Option<&'a UserId>,
    pub session: Option<&'a SessionRef>,
    /// The token for the next JOIN; only in the answer to a JOIN.
    pub token: Option<&'a ResumeToken>,
    /// Whether the JOIN resumed a membership.
    pub resumed: bool,
    pub node: &'a NodeId,
    pub now: RoomTime,
    /// The rest of ROOM_STATE, shared by all who are told it at one head.
    pub shared: &'a OnceCell<Bytes>,
    /// How many watch without being members.
    pub audience: u32,
}

/// A committed event, with the room as it is after it.
#[derive(Debug)]
pub struct EventDelivery<'a> {
    pub room: &'a Room,
    pub event: &'a Event,
    /// The event's place in the room's order.
    pub head: Head,
    pub now: RoomTime,
    /// Shared by all members. `None`: this event has no message (`Created`, `Kept`, `Ended`).
    pub encoded: OnceCell<Option<Bytes>>,
}

/// Joins and leaves of one commit in a large room, for v3 members: one message in the place of many.
#[derive(Debug)]
pub struct RosterDelivery<'a> {
    /// The room after them.
    pub room: &'a Room,
    /// [`Event::Joined`] and [`Event::Left`] alone, in their order, without a hole.
    pub events: &'a [(Head, Event)],
    pub now: RoomTime,
    /// Shared by all members.
    pub encoded: OnceCell<Bytes>,
}

/// An uncommitted message.
#[derive(Debug)]
pub struct Notice<'a> {
    pub body: NoticeBody<'a>,
    pub now: RoomTime,
    /// Shared by all receivers.
    pub encoded: OnceCell<Bytes>,
}

/// The uncommitted messages. JSON texts in them were parsed and bounded by the decoder.
#[derive(Debug, Clone)]
pub enum NoticeBody<'a> {
    /// OFFER, ANSWER, ICE_CANDIDATE, PLAYBACK_ACK, a v2 member's SYNC_RESPONSE, CUSTOM with `to`.
    Signal {
        from: &'a UserId,
        to: &'a UserId,
        signal: &'a Signal,
        node: &'a NodeId,
    },
    /// SEEK of `server` to one v2 member, whose player is out of step.
    Nudge {
        position: MediaTime,
        playing: bool,
    },
    /// HOST_HEARTBEAT as JSON, for v2 members.
    Heartbeat {
        from: &'a UserId,
        tick: RelayedTick,
    },
    /// SYNC_RESPONSE of the server to one v2 member.
    Sync {
        room: &'a Room,
    },
    Degraded {
        degraded: bool,
    },
    Reconnect {
        after: Duration,
    },
    /// PASSED, for the audience: the last `events` events up to `head` concern members only.
    Passed {
        events: u64,
        head: Head,
    },
    /// AUDIENCE, between two that are committed.
    Audience {
        count: u32,
    },
    /// HAND: a viewer asks to become a member, or no longer. For the host, and for the viewer itself.
    Hand {
        user: &'a UserId,
        name: &'a Username,
        raised: bool,
    },
}

/// A message from one member to one other. Texts are JSON where the comment says so.
#[derive(Debug, Clone, PartialEq)]
pub enum Signal {
    /// JSON.
    Offer {
        offer: String,
    },
    /// JSON.
    Answer {
        answer: String,
    },
    /// JSON.
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
    /// JSON.
    Custom {
        namespace: Namespace,
        payload: String,
    },
}

impl Signal {
    /// Approximate size of the message, in bytes.
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

/// A relayed position report.
#[derive(Debug)]
pub struct TickDelivery {
    pub tick: RelayedTick,
    /// The 28 bytes, shared by all receivers.
    pub encoded: OnceCell<CompactBytes>,
}

/// A member's own measurements, relayed.
#[derive(Debug)]
pub struct StatusDelivery {
    pub status: RelayedStatus,
    /// The 20 bytes, shared by all receivers.
    pub encoded: OnceCell<CompactBytes>,
}

/// How a large room does.
#[derive(Debug)]
pub struct DigestDelivery {
    pub digest: RoomDigest,
    /// Shared by all receivers.
    pub encoded: OnceCell<CompactBytes>,
}

#[derive(Debug)]
pub enum Reply<'a> {
    /// Committed at this head; sent only if the client gave a `ref`.
    Ack { reference: u64, head: Head },
    Refused {
        reference: Option<u64>,
        /// The message type refused.
        request: &'a str,
        refusal: &'a Refusal,
    },
}

/// Why the hub refused a request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    Room(#[from] Reject),
    #[error("too many wrong PINs; wait")]
    PinThrottled { retry_after: Duration },
    #[error("too many joins; wait")]
    JoinThrottled { retry_after: Duration },
    /// The userId has all the sessions that one user may have.
    #[error("as many sessions as one user may have; leave another room first")]
    SessionLimit,
    /// The address has all the sessions that one address may have.
    #[error("as many sessions as one address may have; try again later")]
    AddressFull,
    /// More bytes, or commands of this kind, than the sender, its address or the room may cause.
    #[error("too much at once; wait")]
    OverBudget { retry_after: Duration },
    /// The target's outbox has no room for this signal.
    #[error("the member addressed can't take more at the moment; try again")]
    TargetBusy,
    /// The session is in the audience.
    #[error("the audience may not do this")]
    Forbidden,
    /// It raised or lowered its hand a moment ago, or enough others ask.
    #[error("wait before you raise or lower your hand again")]
    HandsBusy { retry_after: Duration },
    /// The node has no place for another room.
    #[error("this server has no place for another room")]
    RoomLimit,
    /// The room's queue is full.
    #[error("this room is overloaded; try again")]
    Overloaded,
    /// The log did not commit.
    #[error("this can't be committed at the moment; try again")]
    Unavailable,
    /// A planned stop has begun.
    #[error("this server is going away")]
    Draining,
    /// A fault of the server.
    #[error("a fault of the server")]
    Internal,
}
