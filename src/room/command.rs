//! What can be asked of a room.

use std::time::Duration;

use super::{Ask, Origin};
use crate::domain::{
    Dialect, KeyHash, MediaTime, PinHash, RoomTime, SessionRef, TokenHash, TransportKind, UserId, Username,
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
    pub claim: OwnerClaim,
}

/// What a JOIN says of whose room it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnerClaim {
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
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are named after docs/PROTOCOL.md")]
pub enum Command {
    /// Enter, come back, or take a membership over.
    Join(Join),
    /// Go for good.
    Leave { by: Actor },
    /// The session ended without LEAVE: the membership enters its grace time.
    Disconnect { user: UserId, session: SessionRef },
    /// `next_deadline` has passed: expire grace times and gates. `may_keep`: whether a room whose members are all lost may
    /// wait for them, or too many of the same address do already.
    Deadline { lead: Duration, may_keep: bool },
    /// A member asks for something. `lead` is how far ahead a scheduled effect lies (`MAX_LEAD_MS` at the most): long
    /// enough for every member to have heard of it.
    Asked { by: Actor, lead: Duration, ask: Ask },
    /// The host's ticks deviate steadily: the room follows its host (sent by the hub).
    Correct { host: UserId, position: MediaTime, playing: bool, at: RoomTime },
}
