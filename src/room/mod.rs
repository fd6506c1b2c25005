//! The room: a pure state machine. No I/O, no clock, no async, no randomness: time is an argument.
//!
//! ```text
//! decide(&self, now, &Command, &Limits) -> Result<Vec<Event>, Reject>   what a command causes, or why not
//! apply(&mut self, &Event)                                             changes the room; never fails
//! next_deadline(&self) -> Option<RoomTime>                             when to send Command::Deadline
//! ```
//! `decide` proposes, the log commits, `apply` follows: on every node, in the same order, with the same result. An
//! event therefore carries everything that `apply` needs. Each event advances the head's `seq` by one and becomes
//! exactly one message on the wire.
//!
//! Between two events of one decision the room may have no host, or even no members (when the only member's session
//! joins as another user). Only [`Event::Ended`] ends a room.
//!
//! After [`Event::Ended`] the value is vacant, and the next JOIN begins a new epoch with nothing of the old one.
//!
//! The types derive serde, because the stored record is exactly this state. A golden test holds the format.

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

/// Why a command was refused. A refused command changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reject {
    /// The session is not, or no longer, a member of this room.
    #[error("JOIN first")]
    NotMember,
    #[error("only the host may do this")]
    NotHost,
    #[error("only the host may do this while guest control is off")]
    NotInControl,
    #[error("this room has a PIN")]
    PinRequired,
    #[error("wrong PIN")]
    PinWrong,
    /// The PIN changed since it was checked: check it again (never reaches a client).
    #[error("the PIN changed while it was checked")]
    PinStale,
    /// The userId is a member, and the session did not prove to be it.
    #[error("that userId is in the room already")]
    UserIdTaken,
    /// A live v2 member would be replaced: probe its session first (never reaches a client).
    #[error("that member's connection must be probed first")]
    ProbeFirst(SessionRef),
    #[error("the resume token is not this member's")]
    TokenInvalid,
    #[error("banned from this room")]
    Banned,
    /// A viewer enters a room without members.
    #[error("nobody is in this room")]
    NoRoom,
    #[error("the room is full")]
    Full,
    /// The bound for one address is reached.
    #[error("too many members of this room come from your address")]
    AddressFull,
    /// The host removed it a moment ago.
    #[error("the host has removed you from this room; wait")]
    Kicked {
        /// The rest of the time for which it is kept out.
        retry_after: Duration,
    },
    #[error("that member is not here")]
    TargetGone,
    /// The command was decided on another film, or before the room's last seek.
    #[error("that was meant for what the room showed before")]
    Stale,
    /// No gate is open, it is another one, or it doesn't await this member.
    #[error("no ready gate awaits this")]
    NoGate,
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
            Self::NoRoom => ErrorCode::NoRoom,
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
