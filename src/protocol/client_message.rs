//! What a client can say, in the words of the domain.

use crate::domain::{
    Dialect, ErrorCode, Fallback, Head, KeyHash, Limits, MediaTime, Pin, ResumeToken, RoomId, RoomTime, UrlPolicy,
    UserId, Username,
};
use crate::hub::delivery::{MemberStatus, Signal};
use crate::room::{Ask, OwnerClaim};

/// What decoding depends on.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Sizes and ranges.
    pub limits: Limits,
    /// Hosts that films may come from.
    pub urls: UrlPolicy,
}

/// One message of a client.
#[derive(Debug, Clone)]
pub struct ClientRequest {
    /// The client's `ref`: comes back in the ACK, or in the ERROR.
    pub reference: Option<u64>,
    /// What it says.
    pub message: ClientMessage,
}

/// PING's `timestamp` as it came: whole numbers stay whole.
pub type Echo = serde_json::Number;

/// Everything that a client can say.
#[derive(Debug, Clone)]
pub enum ClientMessage {
    /// JOIN.
    Join(JoinMessage),
    /// LEAVE.
    Leave,
    /// PING.
    Ping { echo: Option<Echo> },
    /// ALIVE: the answer of a page to PROBE; its arrival is all that it says.
    Alive,
    /// REQUEST_SYNC.
    RequestSync,
    /// Becomes a room command once the session adds the member.
    Ask(Ask),
    /// SET_PIN with a PIN, which the session hashes before it becomes an [`Ask`].
    SetPin(Pin),
    /// HOST_HEARTBEAT.
    Heartbeat { position: MediaTime, playing: bool, true_at: Option<RoomTime> },
    /// POSITION_UPDATE.
    Position { position: MediaTime, playing: bool },
    /// OFFER, ANSWER, ICE_CANDIDATE, PLAYBACK_ACK, SYNC_RESPONSE, CUSTOM with `to`.
    Signal { to: UserId, signal: Signal },
    /// MEMBER_STATUS.
    Status(MemberStatus),
}

/// JOIN.
#[derive(Debug, Clone)]
pub struct JoinMessage {
    /// Which room.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// Called what; an empty name is none.
    pub name: Option<Username>,
    /// As typed; an empty PIN is none.
    pub pin: Option<Pin>,
    /// `protocol`: absent is v2.
    pub dialect: Dialect,
    /// As presented.
    pub token: Option<ResumeToken>,
    /// The last event seen, when both `epoch` and `lastSeq` are given.
    pub last_seen: Option<Head>,
    /// Why not WebTransport, when the client says so.
    pub fallback: Option<Fallback>,
    /// Hash of `clientKey`.
    pub client: Option<KeyHash>,
    /// `hostKey` (its hash) and `owner`.
    pub claim: OwnerClaim,
}

impl ClientMessage {
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
            Self::Status(_) => "MEMBER_STATUS",
        }
    }
}

fn kind_of(ask: &Ask) -> &'static str {
    match ask {
        Ask::Rename { .. } => "UPDATE_USERNAME",
        Ask::SetGuestControl { .. } => "TOGGLE_GUEST_CONTROL",
        Ask::TransferHost { .. } => "TRANSFER_HOST",
        Ask::Kick { .. } => "KICK",
        Ask::Ban { .. } => "BAN",
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

/// A message that can't be taken, with as much of it as could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadRequest {
    /// For the program.
    pub code: ErrorCode,
    /// For the person. Holds nothing of the client's text but an unknown type's name, cut and cleaned.
    pub message: String,
    /// The client's `ref`.
    pub reference: Option<u64>,
    /// The type, when it is one that we know; else empty.
    pub request: &'static str,
}
