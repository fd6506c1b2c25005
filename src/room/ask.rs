//! The requests of members to their room.

use crate::domain::{
    ChatText, KeyHash, MediaTime, MediaUrl, Namespace, PinHash, Player, Rate, RoomTime, UserId, Username,
};

use super::{Basis, Control};

/// A member's request: the message types of docs/PROTOCOL.md that become committed events, each named with its type on
/// the wire. `true_at` is the room time at which `position` was true at the sender; beyond 2 s back it says nothing.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// UPDATE_USERNAME.
    Rename { name: Username },
    /// TOGGLE_GUEST_CONTROL.
    SetGuestControl { enabled: bool },
    /// TRANSFER_HOST.
    TransferHost { target: UserId },
    /// KICK.
    Kick { target: UserId },
    /// BAN.
    Ban { target: UserId },
    /// BAN of a viewer, whom the room doesn't know; the hub adds the hash of its client key.
    BanViewer { target: UserId, client: Option<KeyHash> },
    /// UNBAN.
    Unban { target: UserId },
    /// SET_PIN; the session has hashed the PIN.
    SetPin { pin: Option<PinHash> },
    /// PLAY_PAUSE.
    PlayPause { control: Control, position: Option<MediaTime>, true_at: Option<RoomTime>, on: Basis },
    /// SEEK. `resume`: whether to play on at the target; `None`: as the room intends at the moment.
    Seek { position: MediaTime, resume: Option<bool>, true_at: Option<RoomTime>, on: Basis },
    /// SET_RATE.
    SetRate { rate: Rate, on: Basis },
    /// URL_CHANGE.
    SetUrl { url: MediaUrl, position: MediaTime },
    /// SYNC_PLAYBACK of v2: the sender's playback state becomes the room's.
    Adopt { position: MediaTime, playing: bool, url: Option<MediaUrl> },
    /// READY. v2 clients name the target instead of the gate.
    Ready { gate: Option<u32>, target: Option<MediaTime>, film: Option<u32> },
    /// PLAYER. The room ignores one for another film than its own.
    Player { player: Player, film: Option<u32> },
    /// CHAT.
    Chat { text: ChatText },
    /// CUSTOM to all; `payload` is JSON text, parsed and rewritten by the decoder.
    Custom { namespace: Namespace, payload: String },
}

impl Ask {
    /// Whether its effect lies a lead ahead, so that every member hears of it in time.
    pub fn is_scheduled(&self) -> bool {
        match self {
            Self::PlayPause { .. }
            | Self::Seek { .. }
            | Self::SetRate { .. }
            | Self::Adopt { .. }
            | Self::Ready { .. }
            | Self::Player { .. } => true,
            Self::Rename { .. }
            | Self::SetGuestControl { .. }
            | Self::TransferHost { .. }
            | Self::Kick { .. }
            | Self::Ban { .. }
            | Self::BanViewer { .. }
            | Self::Unban { .. }
            | Self::SetPin { .. }
            | Self::SetUrl { .. }
            | Self::Chat { .. }
            | Self::Custom { .. } => false,
        }
    }
}
