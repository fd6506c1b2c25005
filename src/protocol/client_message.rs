//! Messages of a client, as domain types.

use crate::domain::{
    Dialect, ErrorCode, Fallback, Head, KeyHash, Limits, MediaTime, Pin, ResumeToken, RoomId, RoomTime, UrlPolicy,
    UserId, Username,
};
use crate::hub::delivery::Signal;
use crate::room::{Ask, OwnerClaim};

/// Limits and lists that decoding applies.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    pub limits: Limits,
    pub urls: UrlPolicy,
}

#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The client's `ref`: returned in the ACK, or in the ERROR.
    pub reference: Option<u64>,
    pub message: ClientMessage,
}

/// `timestamp` of a PING as sent: whole numbers stay whole.
pub type PingEcho = serde_json::Number;

#[derive(Debug, Clone)]
pub enum ClientMessage {
    Join(JoinMessage),
    Leave,
    Ping {
        echo: Option<PingEcho>,
    },
    /// The answer of a page to PROBE; its arrival is its whole content.
    Alive,
    RequestSync,
    /// Becomes a room command once the session adds the member.
    Ask(Ask),
    /// SET_PIN with a PIN: the session hashes it before it becomes an [`Ask`].
    SetPin(Pin),
    /// HOST_HEARTBEAT.
    Heartbeat {
        position: MediaTime,
        playing: bool,
        true_at: Option<RoomTime>,
    },
    /// POSITION_UPDATE.
    Position {
        position: MediaTime,
        playing: bool,
    },
    /// OFFER, ANSWER, ICE_CANDIDATE, PLAYBACK_ACK, SYNC_RESPONSE, CUSTOM with `to`.
    Signal {
        to: UserId,
        signal: Signal,
    },
    /// RAISE_HAND.
    RaiseHand {
        raised: bool,
    },
    /// INVITE_TO_MEMBER.
    Invite {
        target: UserId,
        decline: bool,
    },
}

/// The fields of JOIN.
#[derive(Debug, Clone)]
pub struct JoinMessage {
    pub room: RoomId,
    pub user: UserId,
    /// An empty name counts as none.
    pub name: Option<Username>,
    /// As typed; an empty PIN counts as none.
    pub pin: Option<Pin>,
    /// `protocol`; absent: v2.
    pub dialect: Dialect,
    /// As presented.
    pub token: Option<ResumeToken>,
    /// The last event seen, if both `epoch` and `lastSeq` are given.
    pub last_seen: Option<Head>,
    /// `move`: the client's own live session is to be replaced by this one, unseen by the others.
    pub moves: bool,
    /// Why the client doesn't use WebTransport, or moves, if it says so.
    pub fallback: Option<Fallback>,
    /// Hash of `clientKey`.
    pub client: Option<KeyHash>,
    /// Hash of `hostKey`, and `owner`.
    pub claim: OwnerClaim,
    /// `as` is `viewer`.
    pub viewer: bool,
}

impl ClientMessage {
    /// Whether a session in the audience may send it.
    pub fn is_for_audience(&self) -> bool {
        match self {
            Self::Join(_)
            | Self::Leave
            | Self::Ping { .. }
            | Self::Alive
            | Self::RequestSync
            | Self::RaiseHand { .. } => true,
            Self::Ask(_)
            | Self::SetPin(_)
            | Self::Heartbeat { .. }
            | Self::Position { .. }
            | Self::Signal { .. }
            | Self::Invite { .. } => false,
        }
    }

    /// The type on the wire: for metrics, and for `request` in an ERROR.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Join(_) => "JOIN",
            Self::Leave => "LEAVE",
            Self::Ping { .. } => "PING",
            Self::Alive => "ALIVE",
            Self::RequestSync => "REQUEST_SYNC",
            Self::Ask(ask) => kind_of(ask),
            Self::SetPin(_) => "SET_PIN",
            Self::Heartbeat { .. } => "HOST_HEARTBEAT",
            Self::Position { .. } => "POSITION_UPDATE",
            Self::Signal { signal, .. } => match signal {
                Signal::Offer { .. } => "OFFER",
                Signal::Answer { .. } => "ANSWER",
                Signal::IceCandidate { .. } => "ICE_CANDIDATE",
                Signal::PlaybackAck { .. } => "PLAYBACK_ACK",
                Signal::SyncResponse { .. } => "SYNC_RESPONSE",
                Signal::Custom { .. } => "CUSTOM",
            },
            Self::RaiseHand { .. } => "RAISE_HAND",
            Self::Invite { .. } => "INVITE_TO_MEMBER",
        }
    }
}

fn kind_of(ask: &Ask) -> &'static str {
    match ask {
        Ask::Rename { .. } => "UPDATE_USERNAME",
        Ask::SetGuestControl { .. } => "TOGGLE_GUEST_CONTROL",
        Ask::TransferHost { .. } => "TRANSFER_HOST",
        Ask::Kick { .. } => "KICK",
        Ask::Ban { .. } | Ask::BanViewer { .. } => "BAN",
        Ask::Unban { .. } => "UNBAN",
        Ask::SetPin { .. } => "SET_PIN",
        Ask::PlayPause { .. } => "PLAY_PAUSE",
        Ask::Seek { .. } => "SEEK",
        Ask::SetRate { .. } => "SET_RATE",
        Ask::SetUrl { .. } => "URL_CHANGE",
        Ask::Adopt { .. } => "SYNC_PLAYBACK",
        Ask::Ready { .. } => "READY",
        Ask::Player { .. } => "PLAYER",
        Ask::Chat { .. } => "CHAT",
        Ask::Custom { .. } => "CUSTOM",
    }
}

/// A message that was refused while decoding, with what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    pub code: ErrorCode,
    /// One sentence for people. Repeats nothing of the client's text but an unknown type's name, cut and cleaned.
    pub message: String,
    pub reference: Option<u64>,
    /// The message type, if it is known; else empty.
    pub request: &'static str,
}
