//! The commands of a room.

use std::time::Duration;

use super::{Ask, Origin};
use crate::domain::{
    Dialect, KeyHash, MediaTime, PinHash, RoomTime, SessionRef, TokenHash, TransportKind, UserId, Username,
};

/// The member that issued a command, with its session: a superseded session acts for no member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub user: UserId,
    /// Must be the member's current session.
    pub session: SessionRef,
}

/// A JOIN, with everything that was checked outside the room.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// The userId asked for.
    pub user: UserId,
    /// The name; `None` keeps the name of a resumed member, or makes a guest.
    pub name: Option<Username>,
    pub session: SessionRef,
    pub dialect: Dialect,
    pub transport: TransportKind,
    /// Hash of the resume token that the client presented.
    pub presented: Option<TokenHash>,
    /// Hash of the token that the client will get.
    pub new_token: TokenHash,
    pub pin: PinProof,
    /// The client key and the address class.
    pub origin: Origin,
    pub claim: OwnerClaim,
    /// The member is live in another session of the same client, which this one replaces unseen by the others.
    pub moves: bool,
}

/// A JOIN's claim about the room's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerClaim {
    /// Hash of the joiner's own host key for this room.
    pub host_key: Option<KeyHash>,
    /// The owner named by its invitation.
    pub owner: Option<KeyHash>,
}

/// The result of the PIN check. argon2 is too slow for the state machine, so the PIN is checked before, against a hash
/// that the room may have changed since ([`Reject::PinStale`](super::Reject::PinStale)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinProof {
    /// No PIN was given.
    None,
    /// A PIN for a room that had none at the time: becomes the room's PIN if this JOIN creates the room, else is
    /// ignored.
    Fresh(PinHash),
    /// A PIN compared with the room's hash at the time.
    Checked { against: PinHash, fits: bool },
}

/// The room as the sender of a command saw it, as far as it says so. A command for another film is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Basis {
    /// The room's film ([`Room::film`](super::Room::film)).
    pub film: Option<u32>,
    /// The room's last gate, open or not. A position meant for an earlier gate would undo the seek since.
    pub gate: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Control {
    Play,
    Pause,
}

/// Everything that can happen to a room.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Enters the room, resumes a membership, or takes one over.
    Join(Join),
    /// Ends a membership.
    Leave { by: Actor },
    /// The session ended without LEAVE: the grace time begins.
    Disconnect { user: UserId, session: SessionRef },
    /// `next_deadline` has passed: expires grace times and gates. `may_keep`: whether a room whose members are all lost
    /// may be kept, or too many rooms of the same address are already.
    Deadline { lead: Duration, may_keep: bool },
    /// A member asks for something. `lead` is how far ahead a scheduled effect lies (`MAX_LEAD_MS` at the most): long
    /// enough for every member to have heard of it.
    Asked { by: Actor, lead: Duration, ask: Ask },
    /// Notes the size of the audience in the audit. Sent by the hub.
    CountAudience { count: u32 },
    /// Moves the playback to where the host's player steadily is. Sent by the hub.
    Correct { host: UserId, position: MediaTime, playing: bool, at: RoomTime },
}

impl Command {
    /// Whether it is about a member's coming or going, or that of its connection.
    pub fn moves_member(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Leave { .. } | Self::Disconnect { .. })
    }
}
