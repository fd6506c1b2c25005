//! What happened in a room: the only thing that changes it, the thing that the log orders, and one wire message each.

use serde::{Deserialize, Serialize};

use super::{Control, ControlKey, Kept, Origin, Playback, ReadyGate};
use crate::domain::{
    ChatText, Dialect, KeyHash, MediaTime, MediaUrl, MemberSlot, Namespace, PinHash, Player, RoomTime, SessionRef,
    TokenHash, TransportKind, UserId, Username,
};

/// Who moved the playback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// A member.
    Member(UserId),
    /// The room itself: the ready gate, or the end of the film.
    Server,
}

/// What moved the playback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// PLAY_PAUSE; also the ready gate's release.
    Control(Control),
    /// SET_RATE.
    Rate,
    /// The host's player deviated steadily.
    Correction,
    /// The film has reached the duration that the players agree on.
    Ended,
}

/// Why a member is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// LEAVE, or a JOIN of the same session elsewhere.
    Left,
    /// The host removed it.
    Kicked,
    /// The host removed it for good.
    Banned,
    /// Its grace time ended.
    Lost,
}

/// One committed fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named after docs/PROTOCOL.md")]
pub enum Event {
    /// The first JOIN: a new epoch begins, empty, its member 1 and host follows from the same event.
    Created {
        epoch: u64,
        at: RoomTime,
        pin: Option<PinHash>,
        user: UserId,
        name: Username,
        session: SessionRef,
        dialect: Dialect,
        transport: TransportKind,
        token: TokenHash,
        #[serde(default, skip_serializing_if = "Origin::is_unknown")]
        origin: Origin,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<KeyHash>,
    },
    /// A new member.
    Joined {
        at: RoomTime,
        user: UserId,
        name: Username,
        slot: MemberSlot,
        session: SessionRef,
        dialect: Dialect,
        transport: TransportKind,
        token: TokenHash,
        #[serde(default, skip_serializing_if = "Origin::is_unknown")]
        origin: Origin,
    },
    /// A member is back, or on another session. Tokens: `token` is the new one; `proved` says that the old one was used.
    Resumed {
        at: RoomTime,
        user: UserId,
        session: SessionRef,
        dialect: Dialect,
        transport: TransportKind,
        token: TokenHash,
        proved: Option<TokenHash>,
        #[serde(default, skip_serializing_if = "Origin::is_unknown")]
        origin: Origin,
    },
    /// A member's connection is lost; it stays a member until `until`.
    Disconnected {
        at: RoomTime,
        user: UserId,
        until: RoomTime,
    },
    /// `until`: it is kept out that long.
    Left {
        at: RoomTime,
        user: UserId,
        reason: LeaveReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<RoomTime>,
    },
    /// All members are lost, and their grace times over: the room stands still where the last one was, and waits.
    Kept {
        at: RoomTime,
        kept: Kept,
        playback: Playback,
    },
    Renamed {
        user: UserId,
        name: Username,
    },
    /// `None`: nobody is left.
    HostChanged {
        host: Option<UserId>,
    },
    GuestControl {
        enabled: bool,
    },
    PinChanged {
        pin: Option<PinHash>,
    },
    /// A member was banned (`banned`) or a ban lifted.
    BansChanged {
        user: UserId,
        banned: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<KeyHash>,
    },
    /// The vector changed; an open gate closes, unless it was the rate. `key` recognises a repeated command.
    Moved {
        by: By,
        cause: Cause,
        playback: Playback,
        key: Option<ControlKey>,
    },
    /// A seek: stand at the target; with `gate`, until the members awaited are ready.
    Sought {
        by: UserId,
        playback: Playback,
        gate: Option<ReadyGate>,
        key: Option<ControlKey>,
    },
    /// An awaited member is ready; the gate stays open.
    GateProgress {
        id: u32,
        user: UserId,
    },
    /// A member's player, for the room's film; `agreed` is the room's duration after it. Nothing is awaited any more of
    /// a player that failed or is gone.
    PlayerChanged {
        user: UserId,
        player: Player,
        agreed: Option<MediaTime>,
    },
    /// Another film; playback stands at its position; an open gate closes; every player starts over.
    UrlChanged {
        by: UserId,
        url: MediaUrl,
        playback: Playback,
    },
    /// The sender's whole state became the room's; an open gate closes. With another address it is another film.
    Adopted {
        by: UserId,
        playback: Playback,
        url: Option<MediaUrl>,
    },
    Chat {
        user: UserId,
        text: ChatText,
        #[serde(default)]
        at: RoomTime,
    },
    Custom {
        user: UserId,
        namespace: Namespace,
        payload: String,
    },
    /// Nobody is left: the epoch is over.
    Ended {
        at: RoomTime,
    },
}

impl Event {
    /// The name in the audit log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "room_created",
            Self::Joined { .. } => "member_joined",
            Self::Resumed { .. } => "member_resumed",
            Self::Disconnected { .. } => "member_disconnected",
            Self::Left { .. } => "member_left",
            Self::Kept { .. } => "room_kept",
            Self::Renamed { .. } => "member_renamed",
            Self::HostChanged { .. } => "host_changed",
            Self::GuestControl { .. } => "guest_control",
            Self::PinChanged { .. } => "pin_changed",
            Self::BansChanged { .. } => "bans_changed",
            Self::Moved { cause: Cause::Control(Control::Play), .. } => "play",
            Self::Moved { cause: Cause::Control(Control::Pause), .. } => "pause",
            Self::Moved { cause: Cause::Rate, .. } => "rate",
            Self::Moved { cause: Cause::Correction, .. } => "correction",
            Self::Moved { cause: Cause::Ended, .. } => "film_ended",
            Self::PlayerChanged { .. } => "player",
            Self::Sought { .. } => "seek",
            Self::GateProgress { .. } => "gate_progress",
            Self::UrlChanged { .. } => "url_changed",
            Self::Adopted { .. } => "playback_adopted",
            Self::Chat { .. } => "chat",
            Self::Custom { .. } => "custom",
            Self::Ended { .. } => "room_ended",
        }
    }
}
