//! Two closed tables: codes of refusals, and codes of closed sessions. `docs/PROTOCOL.md` is compared with them.

use std::fmt;

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $meaning:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = $meaning] $variant,)* }

        impl $name {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire and in metrics.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// One sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Why a request was refused.
    ErrorCode {
        BadMessage = "BAD_MESSAGE", "not JSON, or a field is missing or of the wrong kind";
        UnknownType = "UNKNOWN_TYPE", "no such message";
        OutOfRange = "OUT_OF_RANGE", "a number outside its range, a text outside its length";
        BadId = "BAD_ID", "roomId or userId is not an id";
        BadUrl = "BAD_URL", "not https, or its host is private or not on the list";
        BadPinFormat = "BAD_PIN_FORMAT", "a PIN is 1–64 printable characters";
        NotJoined = "NOT_JOINED", "JOIN first";
        NotHost = "NOT_HOST", "only the host may do this";
        NotInControl = "NOT_IN_CONTROL", "only the host may do this while guest control is off";
        PinRequired = "PIN_REQUIRED", "the room has a PIN";
        PinWrong = "PIN_WRONG", "wrong PIN";
        PinThrottled = "PIN_THROTTLED", "too many attempts; `retryAfterMs`";
        UserIdTaken = "USER_ID_TAKEN", "that userId is in the room, and this session has not proved to be it";
        TokenInvalid = "TOKEN_INVALID", "the resume token is not this member's";
        UserBanned = "USER_BANNED", "banned from the room";
        Kicked = "KICKED", "removed by the host a moment ago; `retryAfterMs`";
        RoomFull = "ROOM_FULL", "no place for another member";
        NoRoom = "NO_ROOM", "nobody is in this room, and a viewer opens none";
        Forbidden = "FORBIDDEN", "the audience may not do this";
        RoomLimit = "ROOM_LIMIT", "no place for another room";
        SessionLimit = "SESSION_LIMIT", "as many sessions as one user may have; leave another room first";
        TargetGone = "TARGET_GONE", "the member addressed is not here";
        Stale = "STALE", "meant for another film, or for a seek before the last one";
        NoGate = "NO_GATE", "no ready gate is open, or another one";
        RateLimited = "RATE_LIMITED", "too fast; `retryAfterMs`";
        Overloaded = "OVERLOADED", "no place at the moment; `retryAfterMs`";
        Unavailable = "UNAVAILABLE", "can't be committed at the moment; try again";
        TooBig = "TOO_BIG", "a message or a payload above its size";
        Internal = "INTERNAL", "a fault of the server";
    }
}

codes! {
    /// Why a session ended.
    CloseCode {
        Normal = "NORMAL", "LEAVE, or the client closed";
        GoingAway = "GOING_AWAY", "the server stops (after `RECONNECT`)";
        ProtocolError = "PROTOCOL_ERROR", "a frame that can't be read as this protocol";
        TooBig = "TOO_BIG", "a message above 65,536 bytes, or a frame above its limit";
        RateLimited = "RATE_LIMITED", "pressed on above the message rate for 10 s";
        SlowConsumer = "SLOW_CONSUMER", "did not read: its outbox overflowed, or a write stalled";
        Idle = "IDLE", "nothing heard for the idle time";
        Superseded = "SUPERSEDED", "another session took this member over with its token";
        Kicked = "KICKED", "removed by the host";
        Banned = "BANNED", "banned by the host";
        JoinTimeout = "JOIN_TIMEOUT", "no JOIN within the time given";
        Overloaded = "OVERLOADED", "no place for another session";
        Internal = "INTERNAL", "a fault of the server";
        RoomOver = "ROOM_OVER", "the last member has left the room that this session watched";
    }
}

impl CloseCode {
    /// The number in the WebSocket close frame and the WebTransport CLOSE capsule.
    pub fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::GoingAway => 1001,
            Self::ProtocolError => 4000,
            Self::TooBig => 4001,
            Self::RateLimited => 4002,
            Self::SlowConsumer => 4003,
            Self::Idle => 4004,
            Self::Superseded => 4005,
            Self::Kicked => 4006,
            Self::Banned => 4007,
            Self::JoinTimeout => 4008,
            Self::Overloaded => 4009,
            Self::Internal => 4010,
            Self::RoomOver => 4011,
        }
    }
}

/// Input that was refused, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Invalid {
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
}

impl Invalid {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}
