//! The events of a room: the only thing that changes it. The log orders them, and each is one message on the wire.

use serde::{Deserialize, Serialize};

use super::{Control, ControlKey, Kept, Origin, Playback, ReadyGate};
use crate::domain::{
    ChatText, Dialect, KeyHash, MediaTime, MediaUrl, MemberSlot, Namespace, PinHash, Player, RoomTime, SessionRef,
    TokenHash, TransportKind, UserId, Username,
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    Member(UserId),
    /// The room itself: the ready gate, or the end of the film.
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// PLAY_PAUSE; also the ready gate's release.
    Control(Control),
    /// SET_RATE.
    Rate,
    /// The host's player deviated steadily from the vector.
    Correction,
    /// The film has reached the duration that the players agree on.
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaveReason {
    /// LEAVE, or a JOIN of the same session elsewhere.
    Left,
    /// Removed by the host.
    Kicked,
    /// Removed and banned by the host.
    Banned,
    /// Its grace time ended.
    Lost,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The first JOIN: a new epoch begins with its sender as member 1 and host.
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
    /// A member is back, or on another session. `token` is the new token; `proved` is the one that was presented.
    /// `moved`: its client replaced a live session by another one of the same page, and the membership didn't pause.
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
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        moved: bool,
    },
    /// A member's connection is lost; the membership lasts until `until`.
    Disconnected {
        at: RoomTime,
        user: UserId,
        until: RoomTime,
    },
    /// `until`: the end of the time for which a kick keeps the member out.
    Left {
        at: RoomTime,
        user: UserId,
        reason: LeaveReason,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<RoomTime>,
    },
    /// All members are lost, and their grace times over: the film stands where the last member was, and the room waits.
    Kept {
        at: RoomTime,
        kept: Kept,
        playback: Playback,
    },
    Renamed {
        user: UserId,
        name: Username,
    },
    /// `None`: no member is left.
    HostChanged {
        host: Option<UserId>,
    },
    GuestControl {
        enabled: bool,
    },
    PinChanged {
        pin: Option<PinHash>,
    },
    /// `banned`: a ban was set, else lifted.
    BansChanged {
        user: UserId,
        banned: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<KeyHash>,
    },
    /// The vector changed. An open gate closes, except when only the rate changed. `key` recognises a repeated command.
    Moved {
        by: By,
        cause: Cause,
        playback: Playback,
        key: Option<ControlKey>,
    },
    /// A seek: the film stands at the target; with `gate`, until the awaited members are ready.
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
    /// A member's player changed; `agreed` is the room's duration after it. A gate no longer awaits a player that
    /// failed or is gone.
    PlayerChanged {
        user: UserId,
        player: Player,
        agreed: Option<MediaTime>,
    },
    /// Another film: the playback stands at its position, an open gate closes, and every player loads anew.
    UrlChanged {
        by: UserId,
        url: MediaUrl,
        playback: Playback,
    },
    /// SYNC_PLAYBACK: the sender's playback state became the room's. An open gate closes. With another address it is
    /// another film.
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
    /// How many watch the room without being members, as the nodes count them: for the audit. The room has no part of
    /// them.
    AudienceCounted {
        count: u32,
    },
    /// No member is left: the epoch is over.
    Ended {
        at: RoomTime,
    },
}

impl Event {
    /// The event's name in the audit log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "room_created",
            Self::Joined { .. } => "member_joined",
            Self::Resumed { moved: true, .. } => "member_moved",
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
            Self::AudienceCounted { .. } => "audience",
            Self::Ended { .. } => "room_ended",
        }
    }
}
