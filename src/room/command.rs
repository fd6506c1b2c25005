//! What can be asked of a room.

use std::time::Duration;

use super::Origin;
use crate::domain::{
    ChatText, Dialect, KeyHash, MediaTime, MediaUrl, Namespace, PinHash, Player, Rate, RoomTime, SessionRef, TokenHash,
    TransportKind, UserId, Username,
};

/// The member that asks, as its session knows it: a session that was superseded acts for nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The member.
    pub user: UserId,
    /// Its session; must be the member's current one.
    pub session: SessionRef,
}

/// A request to enter, with everything that was checked outside.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Who.
    pub user: UserId,
    /// Called what; `None` keeps the name of a resumed member, or makes a guest.
    pub name: Option<Username>,
    /// Over which session.
    pub session: SessionRef,
    /// In which dialect.
    pub dialect: Dialect,
    /// Carried by what.
    pub transport: TransportKind,
    /// Hash of the resume token that the client presented.
    pub presented: Option<TokenHash>,
    /// Hash of the token that the client will get.
    pub new_token: TokenHash,
    /// What is known of the PIN.
    pub pin: PinProof,
    /// By what it is known again.
    pub origin: Origin,
    /// What it says of whose room this is.
    pub claim: Claim,
}

/// What a JOIN says of whose room it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Claim {
    /// Hash of the joiner's own host key for this room.
    pub host_key: Option<KeyHash>,
    /// The owner that its invitation names.
    pub owner: Option<KeyHash>,
}

/// What the checker found: argon2 is too slow for the state machine, so it happens before, against a hash that the
/// room may have changed meanwhile ([`Reject::PinStale`](super::Reject::PinStale)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinProof {
    /// None was given.
    None,
    /// Given to a room that had none when it was looked at: becomes the room's PIN if this JOIN creates it, else is ignored.
    Fresh(PinHash),
    /// Compared with this hash.
    Checked {
        /// The room's hash at the time.
        against: PinHash,
        /// Whether it fitted.
        fits: bool,
    },
}

/// What the sender of a command saw when it decided on it, as far as it says so: a command for another film is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Basis {
    /// The room's film ([`Room::film`](super::Room::film)).
    pub film: Option<u32>,
    /// The room's last gate, open or not. A position that was meant at an earlier gate would undo the seek since.
    pub gate: Option<u32>,
}

/// `play` or `pause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    /// Move.
    Play,
    /// Stand still.
    Pause,
}

/// Everything that can happen to a room.
///
/// `lead` is how far ahead a scheduled command lies (`MAX_LEAD_MS` at the most): long enough for every member to have heard it. `true_at` is the
/// room time at which `position` was true at the sender; at most 2 s back it is
/// believed, else it says nothing.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are named after docs/PROTOCOL.md")]
pub enum Command {
    /// Enter, come back, or take a membership over.
    Join(Join),
    /// Go for good.
    Leave {
        by: Actor,
    },
    /// The session ended without LEAVE: the membership enters its grace time.
    Disconnect {
        user: UserId,
        session: SessionRef,
    },
    /// `next_deadline` has passed: expire grace times and gates. `may_keep`: whether a room whose members are all lost may
    /// wait for them, or too many of the same address do already.
    Deadline {
        lead: Duration,
        may_keep: bool,
    },
    Rename {
        by: Actor,
        name: Username,
    },
    SetGuestControl {
        by: Actor,
        enabled: bool,
    },
    TransferHost {
        by: Actor,
        target: UserId,
    },
    Kick {
        by: Actor,
        target: UserId,
    },
    Ban {
        by: Actor,
        target: UserId,
    },
    Unban {
        by: Actor,
        target: UserId,
    },
    SetPin {
        by: Actor,
        pin: Option<PinHash>,
    },
    PlayPause {
        by: Actor,
        control: Control,
        position: Option<MediaTime>,
        true_at: Option<RoomTime>,
        on: Basis,
        lead: Duration,
    },
    /// `resume`: whether to play on at the target; `None`: as the room means to now.
    Seek {
        by: Actor,
        position: MediaTime,
        resume: Option<bool>,
        true_at: Option<RoomTime>,
        on: Basis,
        lead: Duration,
    },
    SetRate {
        by: Actor,
        rate: Rate,
        on: Basis,
        lead: Duration,
    },
    SetUrl {
        by: Actor,
        url: MediaUrl,
        position: MediaTime,
    },
    /// v2's SYNC_PLAYBACK: the sender's whole state becomes the room's.
    Adopt {
        by: Actor,
        position: MediaTime,
        playing: bool,
        url: Option<MediaUrl>,
        lead: Duration,
    },
    /// The host's ticks deviate steadily: the room follows its host (sent by the hub).
    Correct {
        host: UserId,
        position: MediaTime,
        playing: bool,
        at: RoomTime,
    },
    /// `gate` is absent from v2 clients, which name the target instead.
    Ready {
        by: Actor,
        gate: Option<u32>,
        target: Option<MediaTime>,
        film: Option<u32>,
        lead: Duration,
    },
    /// The member's player; one for another film than the room's says nothing.
    Player {
        by: Actor,
        player: Player,
        film: Option<u32>,
        lead: Duration,
    },
    Chat {
        by: Actor,
        text: ChatText,
    },
    /// `payload` is JSON text, already checked.
    Custom {
        by: Actor,
        namespace: Namespace,
        payload: String,
    },
}
