//! The room: a pure state machine. No I/O, no clock, no async, no randomness: time is an argument.
//!
//! ```text
//! decide(&self, now, &Command, &Limits) -> Result<Vec<Event>, Reject>     what would happen, or why not
//! apply(&mut self, &Event)                                               it happened; never fails, never refuses
//! next_deadline(&self) -> Option<RoomTime>                               when to send Command::Deadline
//! ```
//! `decide` proposes, the log commits, `apply` follows: on every node, in the same order, with the same result. An
//! event therefore carries everything that `apply` needs; `apply` reads no clock and makes no choice.
//! Each event advances the head's `seq` by one and becomes exactly one message on the wire.
//!
//! Between two events of one decision the room may be without a host, or even without members (the only member's
//! session joins as somebody else): it is over with [`Event::Ended`] and not before.
//!
//! A room without members has ended ([`Event::Ended`]): the value that stays is vacant, and the next JOIN begins a
//! new epoch with nothing of the old one.
//!
//! The types derive serde, because the log's record is exactly this state: a golden test holds the format.

mod apply;
mod ask;
mod chat;
mod command;
mod decide;
mod event;
mod gate;
mod members;
mod state;
#[cfg(test)]
mod tests;

pub use ask::Ask;
pub use chat::{Chat, ChatLine};
pub use command::{Actor, Basis, Command, Control, Join, OwnerClaim, PinProof};
pub use event::{By, Cause, Event, LeaveReason};
pub use gate::ReadyGate;
pub use members::{Members, SharedMap};
pub use state::{ControlKey, Gone, Kept, Member, MemberConnection, Origin, Playback, Room};

use std::time::Duration;

use crate::domain::{ErrorCode, SessionRef};

/// Why a command was not taken. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The session's binding is not (any more) a member of this room.
    #[error("JOIN first")]
    NotMember,
    /// Only the host may do this.
    #[error("only the host may do this")]
    NotHost,
    /// Only the host may do this while guest control is off.
    #[error("only the host may do this while guest control is off")]
    NotInControl,
    /// The room has a PIN and none was given.
    #[error("this room has a PIN")]
    PinRequired,
    /// Wrong PIN.
    #[error("wrong PIN")]
    PinWrong,
    /// The PIN changed since it was checked: check again (never reaches a client).
    #[error("the PIN changed while it was checked")]
    PinStale,
    /// The userId is a member, and the session did not prove to be it.
    #[error("that userId is in the room already")]
    UserIdTaken,
    /// A live v2 member would be replaced: ask its connection for a sign of life first (never reaches a client).
    #[error("that member's connection must be probed first")]
    ProbeFirst(SessionRef),
    /// The token presented is not this member's.
    #[error("the resume token is not this member's")]
    TokenInvalid,
    /// Banned.
    #[error("banned from this room")]
    Banned,
    /// No place for another member.
    #[error("the room is full")]
    Full,
    /// No place for another member from that address.
    #[error("too many members of this room come from your address")]
    AddressFull,
    /// The host removed it a moment ago.
    #[error("the host has removed you from this room; wait")]
    Kicked {
        /// How long it is still kept out.
        retry_after: Duration,
    },
    /// The member addressed is not here.
    #[error("that member is not here")]
    TargetGone,
    /// The command was decided on another film, or before the room's last seek.
    #[error("that was meant for what the room showed before")]
    Stale,
    /// No ready gate is open, or another one, or this member is not awaited.
    #[error("no ready gate awaits this")]
    NoGate,
    /// Too many bans.
    #[error("the list of bans is full")]
    BansFull,
}

impl Reject {
    /// The code that a client sees.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotMember => ErrorCode::NotJoined,
            Self::NotHost => ErrorCode::NotHost,
            Self::NotInControl => ErrorCode::NotInControl,
            Self::PinRequired => ErrorCode::PinRequired,
            Self::PinWrong => ErrorCode::PinWrong,
            Self::UserIdTaken => ErrorCode::UserIdTaken,
            Self::TokenInvalid => ErrorCode::TokenInvalid,
            Self::Banned => ErrorCode::UserBanned,
            Self::Full | Self::AddressFull => ErrorCode::RoomFull,
            Self::Kicked { .. } => ErrorCode::Kicked,
            Self::TargetGone => ErrorCode::TargetGone,
            Self::Stale => ErrorCode::Stale,
            Self::NoGate => ErrorCode::NoGate,
            Self::BansFull => ErrorCode::OutOfRange,
            Self::PinStale | Self::ProbeFirst(_) => ErrorCode::Internal,
        }
    }
}
