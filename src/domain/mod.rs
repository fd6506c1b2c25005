//! Domain types, parsed at the edge: a value of such a type need not be checked again.
//!
//! Imports nothing of this crate. [`Limits`] has every limit on what a client may send, [`ErrorCode`] the code of every
//! refusal, [`CloseCode`] that of every closed session.

mod address;
mod codes;
mod datagram;
mod id;
mod limits;
mod media;
mod player;
mod presence;
mod room_time;
mod secret;
mod text;
mod visible;

pub use address::{AddressTag, counted_as, is_private, neighbourhood_of, network_of};
pub use codes::{CloseCode, ErrorCode, Invalid};
pub use datagram::CompactBytes;
pub use id::{MemberSlot, NodeId, RoomId, SessionRef, ShortId, UserId};
pub use limits::{LimitRow, Limits};
pub use media::{HostPattern, MediaTime, MediaUrl, Rate, UrlPolicy};
pub use player::{Player, PlayerReason, PlayerState};
pub use presence::{Measurement, RelayedStatus, RoomDigest, StandOut, StatusReport};
pub use room_time::RoomTime;
pub use secret::{KeyHash, Pin, PinHash, ResumeToken, TokenHash};
pub use text::{ChatText, Namespace, Username};

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A place in a room's total order. `epoch` is the room's creation time (ms), so a room that was created again is later
/// than its predecessor; `seq` counts the events of the epoch from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Head {
    /// ms since the Unix epoch at the room's creation.
    pub epoch: u64,
    /// The number of the last event.
    pub seq: u64,
}

/// The protocol that a member speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Dialect {
    /// tandem.watch v2: JSON over WebSocket, no tokens, no READY for its own seeks.
    V2,
    V3,
}

impl Dialect {
    /// The room time of something that a member dates `at` and that arrives `now`. A v3 client knows room time. A v2
    /// client sends its own clock, which may be arbitrarily wrong: unless that is plausible, `now`.
    pub fn believed(self, at: RoomTime, now: RoomTime) -> RoomTime {
        /// The longest delay that is accepted; at most the deviation that a room tolerates.
        const PLAUSIBLE: Duration = Duration::from_millis(250);
        match self {
            Self::V3 => at,
            Self::V2 if at <= now && at + PLAUSIBLE >= now => at,
            Self::V2 => now,
        }
    }

    /// As on the wire.
    pub fn number(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// The transport of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportKind {
    /// HTTP/3 extended CONNECT over QUIC.
    WebTransport,
    /// RFC 6455 over HTTP/1.1 (TLS or plain). Also read from `memory`, which 3.0.0 stored for its in-process test
    /// transport.
    #[serde(alias = "memory")]
    WebSocket,
}

impl TransportKind {
    /// As on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebTransport => "webtransport",
            Self::WebSocket => "websocket",
        }
    }
}

/// Why a client uses WebSocket instead of WebTransport, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback {
    /// The browser has no WebTransport.
    Unsupported,
    /// The server offered none.
    NotOffered,
    /// WebTransport did not open.
    Failed,
    /// WebTransport had not opened yet when WebSocket had.
    Slow,
    /// WebSocket won the last race and got a head start.
    Remembered,
    /// The page asked for WebSocket.
    Chosen,
    /// WebKit never refills the flow-control credit of a WebTransport session: the client moved to a fresh one.
    Credit,
    /// Any other word.
    Other,
}

impl Fallback {
    const ALL: [Self; 8] = [
        Self::Unsupported,
        Self::NotOffered,
        Self::Failed,
        Self::Slow,
        Self::Remembered,
        Self::Chosen,
        Self::Credit,
        Self::Other,
    ];

    /// As on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::NotOffered => "not_offered",
            Self::Failed => "failed",
            Self::Slow => "slow",
            Self::Remembered => "remembered",
            Self::Chosen => "chosen",
            Self::Credit => "credit",
            Self::Other => "other",
        }
    }

    /// An unknown word counts as [`Fallback::Other`]: newer clients may send more of them.
    pub fn named(word: &str) -> Self {
        Self::ALL.into_iter().find(|known| known.as_str() == word).unwrap_or(Self::Other)
    }
}

/// A client's report of where its player is. Only the latest counts; none is committed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TickReport {
    /// The sender's own counter (wrapping).
    pub seq: u32,
    pub playing: bool,
    pub position: MediaTime,
    /// The room time at which `position` was true.
    pub at: RoomTime,
    pub rate: Rate,
}

impl RelayedTick {
    /// Where the player is at a later moment, if nothing else happens.
    pub fn position_at(&self, now: RoomTime) -> MediaTime {
        if !self.playing || now < self.at {
            return self.position;
        }
        self.position.moved(now.seconds_since(self.at) * self.rate.factor())
    }
}

impl TickReport {
    /// Adds what only the server knows of the sender.
    pub fn relayed(self, slot: MemberSlot, from_host: bool) -> RelayedTick {
        let Self { seq, playing, position, at, rate } = self;
        RelayedTick { slot, seq, playing, from_host, position, at, rate }
    }
}

/// A [`TickReport`] as the server relays it to the other members, and between nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RelayedTick {
    pub slot: MemberSlot,
    pub seq: u32,
    pub playing: bool,
    pub from_host: bool,
    pub position: MediaTime,
    pub at: RoomTime,
    pub rate: Rate,
}
